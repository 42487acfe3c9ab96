//! `edgeweir replay`: sends recorded requests again and compares the responses with the recorded ones.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use edgeweir_host_launch::{Edge, Exit, Options, Side};

use crate::client::{Client, Unreachable};
use crate::compare::{Difference, Ignored, answers};
use crate::har::{self, REDACTED};
use crate::message::{Answer, Exchange};
use crate::terminal::{progress, said, say};

/// The exit code of a response that differs from the recorded one.
pub const DIFFERS: u8 = 3;
/// How many exchanges that differ are shown.
const SHOWN: usize = 20;

/// Arguments of `replay`.
#[derive(clap::Args, Debug)]
pub struct Replay {
    /// The recorded exchanges, HAR 1.2 of `edgeweir record` or any other program.
    pub file: PathBuf,
    /// Where to: a configuration (.toml), which is started with its own upstreams, or what runs already
    /// (http://127.0.0.1:8000).
    #[arg(long, value_name = "SIDE")]
    pub against: Side,
    /// The listener to ask; the first without it.
    #[arg(long, value_name = "NAME")]
    pub listener: Option<String>,
    /// At the recorded pace, so many times as fast; without it one after the other, without waiting.
    #[arg(long, value_name = "X", value_parser = speed)]
    pub speed: Option<f64>,
    /// A field that may differ, besides those that are known to; may be repeated.
    #[arg(long, value_name = "FIELD")]
    pub ignore: Vec<String>,
    /// Envoy's program; else EDGEWEIR_ENVOY, else `envoy` of the PATH.
    #[arg(long, value_name = "FILE")]
    pub envoy: Option<PathBuf>,
}

/// Replays and says what differs.
pub fn execute(arguments: &Replay) -> Result<()> {
    let recorded = har::read(&arguments.file)?;
    if recorded.is_empty() {
        bail!("{} holds no exchange", arguments.file.display());
    }
    let (sent, unsent): (Vec<_>, Vec<_>) = recorded
        .iter()
        .enumerate()
        .partition(|(_, exchange)| !exchange.asked.left_out);
    if sent.is_empty() {
        bail!(
            "{} holds nothing to send: the bodies of its requests were too large to be recorded",
            arguments.file.display()
        );
    }
    let options = Options {
        listener: arguments.listener.clone(),
        envoy: arguments.envoy.clone(),
        ..Options::default()
    };
    let child = arguments.against.start(Edge::with_upstreams, &options)?;
    let target = match (&arguments.against, &child) {
        (Side::Url(address), _) => *address,
        (_, Some(child)) => child.address,
        (_, None) => bail!("{} did not start", arguments.against),
    };
    let ignored = Ignored(
        arguments
            .ignore
            .iter()
            .map(|name| name.to_ascii_lowercase())
            .collect(),
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime")?;
    let bar = progress(sent.len() as u64, "exchanges");
    let differing: Result<Vec<_>> = runtime.block_on(async {
        let mut client = Client::new(target);
        let mut differing = Vec::new();
        let began = Instant::now();
        let first = recorded
            .iter()
            .map(|exchange| exchange.started_ms)
            .min()
            .unwrap_or(0);
        for (at, exchange) in &sent {
            if let Some(speed) = arguments.speed {
                let due =
                    Duration::from_millis(exchange.started_ms.saturating_sub(first)).div_f64(speed);
                tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
            }
            let differences = once(&mut client, exchange, &ignored).await?;
            if !differences.is_empty() {
                differing.push((*at, differences));
            }
            bar.inc(1);
        }
        Ok(differing)
    });
    bar.finish_and_clear();
    let differing = differing.map_err(|error| said(error, child.as_ref()))?;
    say(&text(&recorded, sent.len(), &differing, &arguments.against));
    if !unsent.is_empty() {
        say(&format!("{}\n", unknown(unsent.len())));
    }
    if differing.is_empty() {
        return Ok(());
    }
    let message = format!("{} of {} responses differ", differing.len(), sent.len());
    Err(Exit::new(DIFFERS, message).into())
}

/// Sends one request again. Where nothing listens there is nothing to compare: an error.
async fn once(
    client: &mut Client,
    exchange: &Exchange,
    ignored: &Ignored,
) -> Result<Vec<Difference>> {
    // A secret is sent as what stands for it: without, a response that is nobody else's could be stored. One that was not
    // recorded cannot be compared.
    let redacted = |value: &[u8]| value == REDACTED.as_bytes();
    match client.send(&exchange.asked).await {
        Ok(mut answer) => {
            let mut before = exchange.answer.clone();
            let hidden = |answer: &mut Answer| {
                let names = exchange
                    .answer
                    .fields
                    .iter()
                    .filter(|(_, value)| redacted(value));
                let names: Vec<&String> = names.map(|(name, _)| name).collect();
                answer.fields.retain(|(name, _)| !names.contains(&name));
            };
            hidden(&mut answer);
            hidden(&mut before);
            Ok(answers(&before, &answer, ignored))
        }
        Err(error) if error.is::<Unreachable>() => Err(error),
        Err(error) => Ok(vec![Difference {
            what: "response".to_owned(),
            first: exchange.answer.status.to_string(),
            second: format!("none: {error:#}"),
        }]),
    }
}

/// What is said of requests that are not sent again.
fn unknown(count: usize) -> String {
    format!("{count} not sent: the bodies of their requests were too large to be recorded")
}

fn text(
    recorded: &[Exchange],
    sent: usize,
    differing: &[(usize, Vec<Difference>)],
    against: &Side,
) -> String {
    let mut text = if differing.is_empty() {
        format!("{sent} responses of {against} are as recorded\n")
    } else {
        format!(
            "{} of {sent} responses of {against} differ\n",
            differing.len()
        )
    };
    for (at, differences) in differing.iter().take(SHOWN) {
        let asked = &recorded[*at].asked;
        text.push_str(&format!(
            "\n{}. {} {}\n",
            at + 1,
            asked.method,
            asked.target
        ));
        for difference in differences {
            text.push_str(&format!(
                "  {}\n    recorded: {}\n    now:      {}\n",
                difference.what, difference.first, difference.second
            ));
        }
    }
    if differing.len() > SHOWN {
        text.push_str(&format!("\nand {} more\n", differing.len() - SHOWN));
    }
    text
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.01..=1_000.0).contains(&value) => Ok(value),
        _ => Err(format!("\"{text}\" is not a number from 0.01 to 1000")),
    }
}
