//! `edgeweir warm`: asks an edge for URLs so that its cache has them, and says what came of each.

mod outcome;
mod urls;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use http::Method;
use http::header::{ACCEPT_ENCODING, HeaderName, HeaderValue};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::sync::mpsc;

use crate::ask::{Asker, Edge, Keep, field};

pub use outcome::{Outcome, outcome};

/// URLs of one run: more are to be split.
const MOST: usize = 100_000;
/// URLs told of by name in the report.
const TOLD: usize = 20;

/// Arguments of `warm`.
#[derive(clap::Args, Debug)]
pub struct Warm {
    /// URLs or, with --edge, paths.
    #[arg(value_name = "URL")]
    pub urls: Vec<String>,
    /// Where the edge listens, such as http://127.0.0.1:8000; without it each URL is asked where it says.
    #[arg(long, value_name = "URL")]
    pub edge: Option<Edge>,
    /// A file with a URL in each line, `-` for standard input; empty lines and those that begin with # are left out.
    #[arg(long, value_name = "FILE")]
    pub file: Vec<PathBuf>,
    /// A sitemap, or an index of sitemaps: a URL (asked at the edge) or a file.
    #[arg(long, value_name = "URL|FILE")]
    pub sitemap: Vec<String>,
    /// Requests under way at once.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub concurrency: u16,
    /// Requests begun in a second.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub rate: u32,
    /// How long a whole response may take, milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    pub timeout_ms: u64,
    /// An `Accept-Encoding` to ask with; given more than once, each URL is asked with each of them.
    #[arg(long, value_name = "CODINGS")]
    pub accept_encoding: Vec<HeaderValue>,
    /// A field for every request, such as "accept-language: de".
    #[arg(long, value_name = "FIELD", value_parser = field)]
    pub header: Vec<(HeaderName, HeaderValue)>,
    /// The report as JSON.
    #[arg(long)]
    pub json: bool,
}

/// What came of a run.
#[derive(Default, Debug)]
pub struct Report {
    /// How many by outcome.
    pub counts: BTreeMap<Outcome, usize>,
    /// Bytes of all bodies.
    pub bytes: u64,
    /// The first few that are not in the cache now: URL and outcome.
    pub told: Vec<(String, Outcome)>,
    /// How long it took.
    pub took: Duration,
}

impl Report {
    /// Requests made.
    pub fn asked(&self) -> usize {
        self.counts.values().sum()
    }

    /// Whether something did not answer, or with 5xx.
    pub fn failed(&self) -> bool {
        self.counts.keys().any(Outcome::is_failure)
    }

    /// As text.
    pub fn to_text(&self) -> String {
        let seconds = self.took.as_secs_f64().max(0.001);
        let mut text = format!(
            "{} requests in {seconds:.1} s, {:.1} MB\n",
            self.asked(),
            self.bytes as f64 / 1e6
        );
        for (outcome, count) in &self.counts {
            text.push_str(&format!("{count:>7}  {outcome}\n"));
        }
        for (url, outcome) in &self.told {
            text.push_str(&format!("  {url}: {outcome}\n"));
        }
        text
    }

    /// As JSON.
    pub fn to_json(&self) -> serde_json::Value {
        let counts: serde_json::Map<_, _> = self
            .counts
            .iter()
            .map(|(outcome, count)| (outcome.to_string(), json!(count)))
            .collect();
        let told: Vec<_> = self
            .told
            .iter()
            .map(|(url, outcome)| json!({ "url": url, "outcome": outcome.to_string() }))
            .collect();
        json!({
            "requests": self.asked(),
            "seconds": self.took.as_secs_f64(),
            "bytes": self.bytes,
            "outcomes": counts,
            "not_cached": told,
        })
    }
}

/// Does it. `Ok(false)` when something did not answer, or with 5xx.
pub async fn execute(arguments: &Warm) -> anyhow::Result<bool> {
    let report = run(arguments).await?;
    let text = match arguments.json {
        true => format!("{:#}\n", report.to_json()),
        false => report.to_text(),
    };
    print(&text);
    Ok(!report.failed())
}

/// Asks for everything, so many at once and so many a second.
pub async fn run(arguments: &Warm) -> anyhow::Result<Report> {
    let timeout = Duration::from_millis(arguments.timeout_ms);
    let asker = Asker::new(arguments.edge.clone(), timeout)?;
    let urls = urls::all(arguments, &asker).await?;
    if urls.is_empty() {
        bail!("there is nothing to ask for: give URLs, --file or --sitemap");
    }
    if urls.len() > MOST {
        bail!("there are more than {MOST} URLs: at most so many in a run");
    }
    let variants: Vec<Option<HeaderValue>> = match arguments.accept_encoding.as_slice() {
        [] => vec![None],
        codings => codings.iter().cloned().map(Some).collect(),
    };
    let began = Instant::now();
    // Not drawn where standard error is no terminal.
    let bar = ProgressBar::new((urls.len() * variants.len()) as u64);
    bar.set_style(ProgressStyle::with_template(
        "{bar:30} {pos}/{len} {per_sec} {eta} left {wide_msg}",
    )?);
    let room = Arc::new(tokio::sync::Semaphore::new(usize::from(
        arguments.concurrency,
    )));
    let mut every = tokio::time::interval(Duration::from_secs(1) / arguments.rate);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (sender, mut done) = mpsc::channel::<(String, Outcome, u64)>(64);
    let fields = arguments.header.clone();
    let asking = tokio::spawn(async move {
        for url in urls {
            for variant in &variants {
                every.tick().await;
                let Ok(place) = room.clone().acquire_owned().await else {
                    return;
                };
                let mut fields = fields.clone();
                fields.extend(variant.clone().map(|codings| (ACCEPT_ENCODING, codings)));
                let (asker, url, sender) = (asker.clone(), url.clone(), sender.clone());
                tokio::spawn(async move {
                    let answer = asker.ask(Method::GET, &url, &fields, Keep::Length).await;
                    drop(place);
                    let (outcome, bytes) = match answer {
                        Ok(answer) => (outcome(answer.status, &answer.headers), answer.length),
                        Err(error) => (Outcome::Unanswered(error.to_string()), 0),
                    };
                    // Nobody waits for it when the run was interrupted.
                    let _ = sender.send((url, outcome, bytes)).await;
                });
            }
        }
    });
    let mut report = Report::default();
    while let Some((url, outcome, bytes)) = done.recv().await {
        bar.inc(1);
        report.bytes += bytes;
        if !outcome.is_cached() && report.told.len() < TOLD {
            report.told.push((url, outcome.clone()));
        }
        *report.counts.entry(outcome).or_default() += 1;
    }
    asking.await.context("asking was cut short")?;
    bar.finish_and_clear();
    report.took = began.elapsed();
    Ok(report)
}

/// Prints, and does not mind when nobody reads any more.
fn print(text: &str) {
    use std::io::Write as _;
    let _ = std::io::stdout().write_all(text.as_bytes());
}
