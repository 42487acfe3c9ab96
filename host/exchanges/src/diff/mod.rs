//! `edgeweir diff`: the same exchanges through two sides, and every difference.

mod report;
mod sides;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use anyhow::{Result, bail};
use edgeweir_host_launch::{Exit, Side};
use serde_json::Value;

use crate::callbacks::Callbacks;
use crate::compare::{Difference, Ignored};
use crate::generate::{Session, Step};
use crate::har;
use crate::pair::{Lane, Origins, Subjects};
use crate::shrink;
use crate::terminal::{progress, say};

/// The exit code of a difference.
pub const DIFFERS: u8 = 3;
/// How many ways to differ are shrunk and shown.
const SHOWN: usize = 12;

/// Arguments of `diff`.
#[derive(clap::Args, Debug)]
pub struct Diff {
    /// A configuration (.toml) or module (.wasm): in the host and in Envoy. Two: the first against the second, each as for
    /// `bench`.
    #[arg(required = true, num_args = 1..=2, value_name = "SIDE")]
    pub sides: Vec<Side>,
    /// The configuration, as JSON, of sides that are modules.
    #[arg(long, value_name = "JSON")]
    pub config: Option<String>,
    /// Exchanges to make up.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub generate: u64,
    /// What they are made from: the same seed makes the same exchanges.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Recorded exchanges (HAR) instead: their requests in order, with their responses as the origin's.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["generate", "seed"])]
    pub replay: Option<PathBuf>,
    /// The listener to ask; the first without it.
    #[arg(long, value_name = "NAME")]
    pub listener: Option<String>,
    /// A field that may differ, besides those that are known to; may be repeated.
    #[arg(long, value_name = "FIELD")]
    pub ignore: Vec<String>,
    /// Speak HTTP/2 with the origins, which then send trailers too.
    #[arg(long)]
    pub http2_origin: bool,
    /// Sessions at once; callbacks are compared where it is one.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub lanes: u16,
    /// Envoy's program; else EDGEWEIR_ENVOY, else `envoy` of the PATH.
    #[arg(long, value_name = "FILE")]
    pub envoy: Option<PathBuf>,
    /// What was found, as JSON.
    #[arg(long)]
    pub json: bool,
}

/// One way in which the sides differ.
#[derive(Clone, Debug)]
struct Way {
    name: String,
    times: u64,
    session: Session,
    at: usize,
    differences: Vec<Difference>,
}

/// What a run found.
struct Found {
    exchanges: u64,
    sessions: u64,
    ways: BTreeMap<String, Way>,
    /// Seen once and not again when the session was repeated.
    unsteady: u64,
    /// Recorded and not sent: a body of the request, or of the origin's response, is not known.
    unsent: usize,
    /// How many exchanges' callbacks could not be told apart; or why none are compared.
    callbacks: Result<u64, String>,
}

/// Compares and says what differs.
pub fn execute(arguments: &Diff) -> Result<()> {
    let sides = match arguments.sides.as_slice() {
        [Side::Host(file)] => vec![Side::Host(file.clone()), Side::Envoy(file.clone())],
        [_] => bail!(
            "one side has to be a configuration or a module, which is then run in the host and in Envoy"
        ),
        two => two.to_vec(),
    };
    if sides.iter().any(|side| matches!(side, Side::Url(_))) {
        bail!(
            "both sides need an origin that is told what to say: an address that runs already has its own"
        );
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let origins = Arc::new(runtime.block_on(Origins::start())?);
    let config: Option<Value> = arguments
        .config
        .as_deref()
        .map(serde_json::from_str)
        .transpose()?;
    let edges = sides
        .iter()
        .map(|side| sides::edge(side, arguments, config.as_ref()))
        .collect::<Result<Vec<_>>>()?;
    let callbacks = match sides::uncalled(&edges, arguments) {
        None => Ok(Arc::new(Callbacks::default())),
        Some(why) => Err(why),
    };
    let heard = callbacks.as_ref().ok();
    // From this thread, which lives as long as they have to.
    let first = sides::start(
        &sides[0],
        &edges[0],
        arguments,
        origins.first.address,
        heard.map(|all| all.first.hearer()),
    )?;
    let second = sides::start(
        &sides[1],
        &edges[1],
        arguments,
        origins.second.address,
        heard.map(|all| all.second.hearer()),
    )?;
    let ignored = Arc::new(Ignored(
        arguments
            .ignore
            .iter()
            .map(|name| name.to_ascii_lowercase())
            .collect(),
    ));
    let began = Instant::now();
    let subjects = Subjects {
        first: first.address,
        second: second.address,
        callbacks: heard.cloned(),
    };
    let mut found = runtime.block_on(async {
        match &arguments.replay {
            Some(file) => replayed(&har::read(file)?, &subjects, &origins, &ignored).await,
            None => generated(arguments, &subjects, &origins, &ignored).await,
        }
    })?;
    found.callbacks = callbacks.map(|all| all.mixed());
    let took = began.elapsed().as_secs_f64();
    if arguments.json {
        say(&format!("{:#}\n", report::json(&found, &sides)));
    } else {
        say(&report::text(&found, &sides, took));
    }
    if found.ways.is_empty() {
        return Ok(());
    }
    let times: u64 = found.ways.values().map(|way| way.times).sum();
    let message = format!("{times} exchanges differ, in {} ways", found.ways.len());
    Err(Exit::new(DIFFERS, message).into())
}

async fn generated(
    arguments: &Diff,
    subjects: &Subjects,
    origins: &Arc<Origins>,
    ignored: &Arc<Ignored>,
) -> Result<Found> {
    let bar = progress(arguments.generate, "exchanges");
    let next = Arc::new(AtomicU64::new(0));
    let sent = Arc::new(AtomicU64::new(0));
    let mut lanes = tokio::task::JoinSet::new();
    for _ in 0..arguments.lanes {
        let mut lane = Lane::new(subjects);
        let (origins, ignored) = (origins.clone(), ignored.clone());
        let (next, sent, bar) = (next.clone(), sent.clone(), bar.clone());
        let (seed, wanted, trailers) = (arguments.seed, arguments.generate, arguments.http2_origin);
        lanes.spawn(async move {
            let mut all = Vec::new();
            while sent.load(Relaxed) < wanted {
                let number = next.fetch_add(1, Relaxed);
                // Neighbouring seeds of a run are not those of the next run's seed.
                let seed = seed
                    .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                    .wrapping_add(number);
                let session = Session::generate(seed, trailers);
                let placed = session.placed(&format!("s{number}"));
                let outcome = lane.session(&origins, &placed, &ignored).await;
                let steps = outcome
                    .as_ref()
                    .map_or(session.steps.len(), |(at, _)| at + 1)
                    as u64;
                sent.fetch_add(steps, Relaxed);
                bar.inc(steps);
                if number % 512 == 0 {
                    origins.forget();
                }
                if let Some((at, differences)) = outcome {
                    all.push((number, session, at, differences));
                }
            }
            all
        });
    }
    let mut differing = Vec::new();
    while let Some(lane) = lanes.join_next().await {
        differing.extend(lane?);
    }
    bar.finish_and_clear();
    differing.sort_by_key(|(number, ..)| *number);
    let mut found = Found {
        exchanges: sent.load(Relaxed),
        sessions: next.load(Relaxed),
        ways: BTreeMap::new(),
        unsteady: 0,
        unsent: 0,
        callbacks: Ok(0),
    };
    let mut lane = Lane::new(subjects);
    let mut run = 0;
    for (_, session, at, differences) in differing {
        let way = way_of(&session.steps[at], &differences);
        if let Some(known) = found.ways.get_mut(&way) {
            known.times += 1;
            continue;
        }
        // Seen once may be a matter of time: it counts when it can be seen again.
        match again(&mut lane, origins, &session, ignored, &mut run).await {
            Some((at, differences)) => {
                let way = way_of(&session.steps[at], &differences);
                if let Some(known) = found.ways.get_mut(&way) {
                    known.times += 1;
                    continue;
                }
                let mut smallest = Way {
                    name: name_of(&session.steps[at], &differences),
                    times: 1,
                    session,
                    at,
                    differences,
                };
                smallest.session.steps.truncate(at + 1);
                if found.ways.len() < SHOWN {
                    smallest = shrunk(smallest, &mut lane, origins, ignored, &mut run).await;
                }
                found.ways.insert(way, smallest);
            }
            None => found.unsteady += 1,
        }
    }
    Ok(found)
}

/// What makes two findings the same: the kind of request, and what differs first.
fn way_of(step: &Step, differences: &[Difference]) -> String {
    named(step, differences, Difference::kind)
}

fn named(step: &Step, differences: &[Difference], name: impl Fn(&Difference) -> String) -> String {
    let names: Vec<String> = differences.iter().take(3).map(name).collect();
    format!("{}: {}", step.asked.method, names.join(", "))
}

/// As it is shown: with what differs, and not yet how.
fn name_of(step: &Step, differences: &[Difference]) -> String {
    named(step, differences, |difference| difference.what.clone())
}

async fn again(
    lane: &mut Lane,
    origins: &Origins,
    session: &Session,
    ignored: &Ignored,
    run: &mut u64,
) -> Option<(usize, Vec<Difference>)> {
    *run += 1;
    let placed = session.placed(&format!("again{run}"));
    lane.session(origins, &placed, ignored).await
}

async fn shrunk(
    mut way: Way,
    lane: &mut Lane,
    origins: &Origins,
    ignored: &Ignored,
    run: &mut u64,
) -> Way {
    let kind = way.differences[0].kind();
    let mut tries = 0;
    loop {
        let mut any = false;
        for less in shrink::smaller(&way.session) {
            if tries >= shrink::TRIES {
                return way;
            }
            tries += 1;
            let outcome = again(lane, origins, &less, ignored, run).await;
            if let Some((at, differences)) = outcome.filter(|(_, all)| all[0].kind() == kind) {
                way.session = less;
                way.session.steps.truncate(at + 1);
                (way.at, way.differences) = (at, differences);
                any = true;
                break;
            }
        }
        if !any {
            return way;
        }
    }
}

/// Recorded exchanges are one session, in which every step is compared.
async fn replayed(
    recorded: &[crate::message::Exchange],
    subjects: &Subjects,
    origins: &Arc<Origins>,
    ignored: &Ignored,
) -> Result<Found> {
    let (sent, unsent): (Vec<_>, Vec<_>) = recorded
        .iter()
        .partition(|exchange| !exchange.asked.left_out && !exchange.answer.left_out);
    if sent.is_empty() {
        bail!(match unsent.len() {
            0 => "the recording holds no exchange".to_owned(),
            all => format!(
                "the recording holds nothing to send: the bodies of its {all} exchanges were not recorded"
            ),
        });
    }
    let bar = progress(sent.len() as u64, "exchanges");
    let mut lane = Lane::new(subjects);
    let mut found = Found {
        exchanges: sent.len() as u64,
        sessions: 1,
        ways: BTreeMap::new(),
        unsteady: 0,
        unsent: unsent.len(),
        callbacks: Ok(0),
    };
    for exchange in sent {
        let step = Step {
            asked: exchange.asked.clone(),
            script: exchange.answer.clone(),
        };
        let differences = lane.step(origins, &step, ignored).await;
        origins.forget();
        bar.inc(1);
        if differences.is_empty() {
            continue;
        }
        let way = way_of(&step, &differences);
        let name = name_of(&step, &differences);
        let session = Session {
            seed: 0,
            steps: vec![step],
        };
        found
            .ways
            .entry(way)
            .and_modify(|known| known.times += 1)
            .or_insert(Way {
                name,
                times: 1,
                session,
                at: 0,
                differences,
            });
    }
    bar.finish_and_clear();
    Ok(found)
}
