//! `edgeweir record`: serves a configuration and writes down what passes.

use std::path::PathBuf;

use anyhow::bail;
use edgeweir_host_exchanges::har::SECRET;
use edgeweir_host_exchanges::recorder::{Bounds, Recorder};

use crate::cli::{addresses, say};
use crate::config::Config;
use crate::host::{Prepared, StopSignals};

/// Arguments of `record`.
#[derive(clap::Args, Debug)]
pub struct Record {
    /// The configuration, as for `run`.
    pub config: PathBuf,
    /// The file that is written (HAR 1.2); one that is there is replaced.
    #[arg(long, value_name = "FILE")]
    pub to: PathBuf,
    /// Where it listens in: what clients send and get, or what the upstreams do.
    #[arg(long, value_enum, default_value_t = Side::Client)]
    pub side: Side,
    /// The largest the file may become, MiB; what comes later is counted and left out.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub max_file_mib: u64,
    /// The largest body that is kept, KiB; of larger ones only the head is.
    #[arg(long, value_name = "N", default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    pub max_body_kib: u32,
    /// A field whose value is not written, besides Authorization, Cookie, Proxy-Authorization, Set-Cookie and X-Api-Key.
    #[arg(long, value_name = "FIELD")]
    pub redact: Vec<String>,
    /// Write those too: the file then holds what it takes to be these clients.
    #[arg(long)]
    pub keep_secrets: bool,
}

/// Where a recording listens in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Side {
    /// Between clients and filters.
    Client,
    /// Between filters and upstreams.
    Origin,
}

/// Serves until it is told to stop, then says what was written.
pub async fn execute(arguments: &Record) -> anyhow::Result<()> {
    let mut config = Config::read(&arguments.config)?;
    let mut redacts: Vec<String> = arguments
        .redact
        .iter()
        .map(|name| name.to_ascii_lowercase())
        .collect();
    if !arguments.keep_secrets {
        redacts.extend(SECRET.map(str::to_owned));
    }
    let bounds = Bounds {
        file: arguments.max_file_mib * 1_048_576,
        body: usize::try_from(arguments.max_body_kib)? * 1_024,
        redacts,
    };
    let (recorder, waiting) = Recorder::new(bounds);
    match arguments.side {
        Side::Client => config.taps.client = Some(recorder),
        Side::Origin => config.taps.origin = Some(recorder),
    }
    let prepared = Prepared::new(config).await?;
    let mut signals = StopSignals::watch()?;
    let host = prepared.serve().await?;
    // Not before: what cannot start must not cost the recording that is there.
    let recording = waiting.start(&arguments.to)?;
    say(&addresses(&host));
    say(&format!(
        "recording into {}; stop with Ctrl-C\n",
        arguments.to.display()
    ));
    let stopped_by = signals.next().await;
    say(&format!("\n{stopped_by}: finishing what is in flight\n"));
    // The last copies of the recorder go with the host's state: then the file is whole.
    drop(host.stop().await);
    let outcome = tokio::task::spawn_blocking(|| recording.finish()).await?;
    say(&format!(
        "{} exchanges in {}\n",
        outcome.written,
        arguments.to.display()
    ));
    if outcome.left_out > 0 {
        say(&format!(
            "{} left out: the file was full (--max-file-mib {}) or the disk too slow\n",
            outcome.left_out, arguments.max_file_mib
        ));
    }
    if let Some(error) = outcome.error {
        bail!("{}: {error}", arguments.to.display());
    }
    Ok(())
}
