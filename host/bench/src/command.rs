//! `edgeweir bench`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use edgeweir_host_launch::{Edge, Exit, Options, Side};
use http::{HeaderName, HeaderValue};
use indicatif::{ProgressBar, ProgressStyle};

use crate::load::Load;
use crate::measure::{Plan, Subject, machine, measure};
use crate::origin::Origin;
use crate::report::{Metric, Report};
use crate::statistics::FEWEST;
use crate::{baseline, html};

/// The exit code of a regression.
pub const REGRESSED: u8 = 3;

/// Arguments of `bench`.
#[derive(clap::Args, Debug)]
pub struct Bench {
    /// What is measured, or A and B to compare: a configuration (.toml), a module or component (.wasm), either with
    /// `envoy:` or `wasmtime:` before it to run it there, or something that runs already (http://127.0.0.1:10000).
    #[arg(required = true, num_args = 1..=2, value_name = "SIDE")]
    pub sides: Vec<Side>,
    /// The configuration, as JSON, of sides that are modules.
    #[arg(long, value_name = "JSON")]
    pub config: Option<String>,
    /// The listener to load; the first without it.
    #[arg(long, value_name = "NAME")]
    pub listener: Option<String>,
    /// Leave the configured upstreams instead of putting the built-in origin behind every side.
    #[arg(long)]
    pub upstream: bool,
    /// A path to ask for, several in turn; of the built-in origin: /1k, /json, /html, or /cached/… of them.
    #[arg(long = "path", value_name = "PATH", default_value = "/json")]
    pub paths: Vec<String>,
    /// A field of every request, such as 'accept-encoding: gzip'; may be repeated.
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", value_parser = field)]
    pub fields: Vec<(HeaderName, HeaderValue)>,
    /// Connections.
    #[arg(long, short = 'c', value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub connections: u16,
    /// HTTP/2 with prior knowledge instead of HTTP/1.1.
    #[arg(long)]
    pub http2: bool,
    /// Requests in flight on each HTTP/2 connection.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256), requires = "http2")]
    pub streams: u16,
    /// Requests a second, sent whether or not answers keep up; without it each connection asks again when it was answered.
    #[arg(long, value_name = "N", value_parser = rate)]
    pub rate: Option<f64>,
    /// Rounds of each side; six are the fewest that can show a difference.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(FEWEST as i64..=100))]
    pub rounds: u16,
    /// The length of a round, seconds.
    #[arg(long, value_name = "S", default_value_t = 2.0, value_parser = seconds)]
    pub seconds: f64,
    /// Load before the first round, seconds.
    #[arg(long, value_name = "S", default_value_t = 2.0, value_parser = seconds)]
    pub warm_up: f64,
    /// Worker threads of each side.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: u16,
    /// Measure the CPU time of each callback too, in sides that are hosts: two readings of the thread's clock each, 0.1 to
    /// 0.6 µs, which count in all figures.
    #[arg(long)]
    pub cpu_time: bool,
    /// Envoy's program; else EDGEWEIR_ENVOY, else `envoy` of the PATH.
    #[arg(long, value_name = "FILE")]
    pub envoy: Option<PathBuf>,
    /// Write a report with plots.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Print the report as JSON instead of tables.
    #[arg(long)]
    pub json: bool,
    /// Keep this run to hold later ones against.
    #[arg(long, value_name = "FILE")]
    pub save_baseline: Option<PathBuf>,
    /// Hold the last side against a kept run; exit code 3 when it is worse by more than --fail-above.
    #[arg(long, value_name = "FILE")]
    pub baseline: Option<PathBuf>,
    /// How much worse is too much; the whole interval has to be beyond it.
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = percent, requires = "baseline")]
    pub fail_above: f64,
    /// What is held against the baseline; without it CPU time where both have it, else median latency.
    #[arg(long, value_name = "METRIC", requires = "baseline")]
    pub fail_on: Option<Metric>,
}

/// Measures, reports, and judges when there is a baseline.
pub fn execute(arguments: &Bench) -> Result<()> {
    // What can be wrong with a file is said before minutes are spent.
    let held = arguments
        .baseline
        .as_deref()
        .map(baseline::read)
        .transpose()?;
    for file in [&arguments.html, &arguments.save_baseline]
        .into_iter()
        .flatten()
    {
        writable(file)?;
    }
    let config = arguments
        .config
        .as_deref()
        .map(serde_json::from_str::<serde_json::Value>)
        .transpose()
        .context("--config is no JSON")?;
    let origin = if arguments.upstream {
        None
    } else {
        Some(Origin::start()?)
    };
    for side in &arguments.sides {
        let edge = |file: &Path| edge(file, arguments, config.as_ref(), origin.as_ref());
        side.check(edge, arguments.listener.as_deref())?;
    }
    let subjects = arguments
        .sides
        .iter()
        .map(|side| start(side, arguments, config.as_ref(), origin.as_ref()))
        .collect::<Result<Vec<_>>>()?;
    let load = Arc::new(Load {
        http2: arguments.http2,
        connections: usize::from(arguments.connections),
        streams: usize::from(arguments.streams),
        rate: arguments.rate,
        paths: arguments.paths.clone(),
        fields: arguments.fields.clone(),
    });
    let plan = Plan {
        rounds: usize::from(arguments.rounds),
        round: Duration::from_secs_f64(arguments.seconds),
        warm_up: Duration::from_secs_f64(arguments.warm_up),
    };
    let bar = progress(plan.rounds * subjects.len());
    let sides = measure(&subjects, &load, plan, &bar);
    bar.finish_and_clear();
    let sides = sides.map_err(|error| explained(error, &subjects))?;
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        machine: machine(),
        load: described(arguments),
        sides,
        ratios: std::collections::BTreeMap::new(),
    };
    report.compare();
    if let Some(file) = &arguments.html {
        std::fs::write(file, html::page(&report))
            .with_context(|| format!("{} cannot be written", file.display()))?;
    }
    let judged = held
        .map(|held| baseline::judge(&held, &report, arguments.fail_on, arguments.fail_above))
        .transpose()?;
    if let Some(file) = &arguments.save_baseline {
        // What regressed does not take the place of what it was held against.
        let regressed = judged.as_ref().is_some_and(|it| it.regressed());
        if !(regressed && arguments.baseline.as_ref() == Some(file)) {
            baseline::save(&report, file)?;
        }
    }
    if arguments.json {
        for failure in report.failures() {
            let _ = writeln!(std::io::stderr(), "{failure}");
        }
        say(&format!("{}\n", serde_json::to_string_pretty(&report)?));
    } else {
        say(&report.text());
    }
    if let Some(judged) = judged {
        if judged.regressed() {
            return Err(Exit::new(REGRESSED, judged.text()).into());
        }
        // Standard output stays JSON where it was asked for.
        let _ = writeln!(std::io::stderr(), "{}", judged.text());
    }
    Ok(())
}

/// The configuration of a side, in front of the origin it gets.
fn edge(
    file: &Path,
    arguments: &Bench,
    config: Option<&serde_json::Value>,
    origin: Option<&Origin>,
) -> Result<Edge> {
    let edge = match origin {
        Some(origin) => Edge::of(file, config)?.with_origin(origin.address),
        None => Edge::with_upstreams(file)?,
    };
    Ok(match arguments.cpu_time {
        true => edge.with_cpu_time(),
        false => edge,
    })
}

fn start(
    side: &Side,
    arguments: &Bench,
    config: Option<&serde_json::Value>,
    origin: Option<&Origin>,
) -> Result<Subject> {
    let options = Options {
        workers: usize::from(arguments.workers),
        listener: arguments.listener.clone(),
        envoy: arguments.envoy.clone(),
        callbacks: None,
    };
    let child = side.start(|file| edge(file, arguments, config, origin), &options)?;
    let address = match (side, &child) {
        (Side::Url(address), _) => *address,
        (_, Some(child)) => child.address,
        (_, None) => bail!("{side} did not start"),
    };
    Ok(Subject {
        name: side.to_string(),
        address,
        child,
        is_host: matches!(side, Side::Host(_)),
    })
}

/// The error, and what a child that ended said.
fn explained(error: anyhow::Error, subjects: &[Subject]) -> anyhow::Error {
    let logs: Vec<String> = subjects
        .iter()
        .filter_map(|subject| subject.child.as_ref())
        .map(|child| child.log_tail().trim().to_owned())
        .filter(|log| !log.is_empty())
        .collect();
    if logs.is_empty() {
        error
    } else {
        error.context(format!("the log says: {}", logs.join("\n")))
    }
}

fn described(arguments: &Bench) -> String {
    let way = match arguments.rate {
        Some(rate) => format!(
            "{rate} requests/s over {} connections",
            arguments.connections
        ),
        None => format!(
            "{} connections, each asking again when answered",
            arguments.connections
        ),
    };
    let protocol = if arguments.http2 {
        format!("HTTP/2, {} streams each", arguments.streams)
    } else {
        "HTTP/1.1".to_owned()
    };
    let mut text = format!(
        "{way}, {protocol}, {} rounds of {} s, {} worker{}, {}",
        arguments.rounds,
        arguments.seconds,
        arguments.workers,
        if arguments.workers == 1 { "" } else { "s" },
        arguments.paths.join(" ")
    );
    for (name, value) in &arguments.fields {
        text.push_str(&format!(
            ", {name}: {}",
            String::from_utf8_lossy(value.as_bytes())
        ));
    }
    if cfg!(debug_assertions) {
        text.push_str(
            ", the host not optimised (a debug build): of this use ratios between filters alone",
        );
    }
    text
}

/// A bar on a terminal, nothing elsewhere.
fn progress(rounds: usize) -> ProgressBar {
    let bar = ProgressBar::new(rounds as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} ({eta} left)") {
        bar.set_style(style);
    }
    bar
}

fn writable(file: &Path) -> Result<()> {
    std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(file)
        .map(drop)
        .with_context(|| format!("{} cannot be written", file.display()))
}

fn field(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text
        .split_once(':')
        .ok_or_else(|| format!("\"{text}\" is not NAME: VALUE"))?;
    let name = HeaderName::from_bytes(name.trim().as_bytes())
        .map_err(|_| format!("\"{name}\" is no field name"))?;
    let value = HeaderValue::from_str(value.trim())
        .map_err(|_| format!("\"{value}\" is no field value"))?;
    Ok((name, value))
}

fn rate(text: &str) -> Result<f64, String> {
    within(text, 0.1, 1_000_000.0)
}

fn seconds(text: &str) -> Result<f64, String> {
    within(text, 0.1, 3_600.0)
}

fn percent(text: &str) -> Result<f64, String> {
    within(text.trim_end_matches('%'), 0.0, 1_000.0).map(|percent| percent / 100.0)
}

fn within(text: &str, least: f64, most: f64) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (least..=most).contains(&value) => Ok(value),
        _ => Err(format!("\"{text}\" is not a number from {least} to {most}")),
    }
}

/// Prints, and does not mind when nobody reads any more.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_bounds_that_are_said() {
        assert_eq!(percent("5%"), Ok(0.05));
        assert_eq!(percent("2.5"), Ok(0.025));
        assert_eq!(
            seconds("0"),
            Err("\"0\" is not a number from 0.1 to 3600".to_owned())
        );
        assert!(rate("NaN").is_err());
        assert!(field("accept-encoding gzip").is_err());
        assert_eq!(
            field("Accept-Encoding: gzip").expect("a field").0,
            "accept-encoding"
        );
    }
}
