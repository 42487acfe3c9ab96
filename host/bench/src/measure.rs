//! Rounds of both sides in turn.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use edgeweir_host_launch::Running;
use indicatif::ProgressBar;
use serde_json::Value;

use crate::cost;
use crate::load::{self, Load, Tally};
use crate::report::{Round, SideReport};

/// Percentiles that are kept of all latencies.
const PERCENTILES: [f64; 16] = [
    0.0, 10.0, 25.0, 50.0, 60.0, 70.0, 80.0, 90.0, 95.0, 97.5, 99.0, 99.5, 99.9, 99.95, 99.99,
    100.0,
];

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Rounds of each side.
    pub rounds: usize,
    /// The length of one.
    pub round: Duration,
    /// Load before the first round of each side, not measured.
    pub warm_up: Duration,
}

/// A side under load.
pub struct Subject {
    /// As it was named.
    pub name: String,
    /// Where it is.
    pub address: SocketAddr,
    /// Its process, where it is a child.
    pub child: Option<Running>,
    /// Whether the child is a host, which says what its filters cost.
    pub is_host: bool,
}

/// Measures one or two subjects; the order within a pair of rounds changes each time, so that neither is always the one
/// that comes second.
pub fn measure(
    subjects: &[Subject],
    load: &Arc<Load>,
    plan: Plan,
    bar: &ProgressBar,
) -> Result<Vec<SideReport>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("the runtime of the load")?;
    let run = |subject: &Subject, lasts| {
        runtime
            .block_on(load::run(load, subject.address, lasts))
            .with_context(|| format!("loading {}", subject.name))
    };
    for subject in subjects {
        bar.set_message(format!("warming up {}", subject.name));
        run(subject, plan.warm_up)?;
    }
    let before: Vec<Value> = subjects.iter().map(stats).collect();
    let began = Instant::now();
    let mut rounds: Vec<Vec<Round>> = vec![Vec::new(); subjects.len()];
    let mut tallies: Vec<Option<Tally>> = vec![None; subjects.len()];
    for number in 0..plan.rounds {
        let mut order: Vec<usize> = (0..subjects.len()).collect();
        if number % 2 == 1 {
            order.reverse();
        }
        for at in order {
            let subject = &subjects[at];
            bar.set_message(format!(
                "round {} of {}: {}",
                number + 1,
                plan.rounds,
                subject.name
            ));
            let cpu = |subject: &Subject| subject.child.as_ref().map(Running::cpu).transpose();
            let (since, used) = (began.elapsed(), cpu(subject)?);
            let tally = run(subject, plan.round)?;
            let used = match (used, cpu(subject)?) {
                (Some(before), Some(after)) => after.saturating_sub(before),
                _ => Duration::ZERO,
            };
            let resident = subject.child.as_ref().and_then(Running::resident);
            rounds[at].push(round(since, &tally, used, resident.unwrap_or_default()));
            match &mut tallies[at] {
                Some(all) => all.add(&tally),
                slot => *slot = Some(tally),
            }
            bar.inc(1);
        }
    }
    let mut reports = Vec::new();
    for (((subject, before), rounds), tally) in subjects.iter().zip(before).zip(rounds).zip(tallies)
    {
        let after = stats(subject);
        let tally = tally.context("no round was run")?;
        reports.push(SideReport {
            name: subject.name.clone(),
            rounds,
            latency: PERCENTILES
                .iter()
                .map(|at| (*at, tally.latency.value_at_percentile(*at) as f64 / 1e3))
                .collect(),
            statuses: tally.statuses.clone(),
            errors: tally.errors,
            unsent: tally.unsent,
            filters: cost::between(&before, &after),
        });
    }
    Ok(reports)
}

fn round(since: Duration, tally: &Tally, cpu: Duration, resident: u64) -> Round {
    let responses = tally.responses().max(1) as f64;
    let at = |percentile| tally.latency.value_at_percentile(percentile) as f64 / 1e3;
    Round {
        at: since.as_secs_f64(),
        rate: tally.responses() as f64 / tally.took.as_secs_f64().max(1e-9),
        p50: at(50.0),
        p95: at(95.0),
        p99: at(99.0),
        cpu: cpu.as_secs_f64() * 1e6 / responses,
        bytes: tally.bytes as f64 / responses,
        resident,
    }
}

/// What a host says of itself; nothing for others, and nothing when it does not answer.
fn stats(subject: &Subject) -> Value {
    match &subject.child {
        Some(child) if subject.is_host => child.stats().unwrap_or_default(),
        _ => Value::Null,
    }
}

/// The processor and how many, for reports that are read elsewhere.
pub fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown processor", |rest| {
            rest.trim_start_matches(['\t', ' ', ':'])
        });
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{model}, {cpus} of them")
}
