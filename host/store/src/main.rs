//! The store alone, as a program of its own: what `edgeweir store` is, without the rest of the host.
#![forbid(unsafe_code)]

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Parser;

/// Keeps what outgrows one edge: cached responses, keys and values, and limits that count once for all.
#[derive(Parser)]
#[command(name = "edgeweir-store", version)]
struct Arguments {
    #[command(flatten)]
    store: edgeweir_host_store::command::Store,
}

fn main() -> ExitCode {
    let level = std::env::var("EDGEWEIR_LOG").unwrap_or_else(|_| "info".to_owned());
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(level))
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        // Where nobody reads any more, there is nobody to tell: it would be the end of what logs.
        .log_internal_errors(false)
        .init();
    match edgeweir_host_store::command::execute(&Arguments::parse().store) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "edgeweir-store: {error:#}");
            ExitCode::FAILURE
        }
    }
}
