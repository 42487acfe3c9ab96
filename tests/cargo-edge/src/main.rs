//! `cargo edge build|demo|test|bench|fuzz`.

use std::process::ExitCode;

use cargo_edge::artifact::Flavour;
use cargo_edge::{bench, build, demo, fuzz, test};
use clap::{Parser, Subcommand};

/// Builds, shows, tests and measures Edgeweir.
#[derive(Parser)]
#[command(name = "cargo edge", bin_name = "cargo edge", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  cargo edge build                 every module and component, into target/edge/
  cargo edge build minify          one filter only
  cargo edge demo                  all four filters in front of a built-in origin
  cargo edge test                  every test, the real Envoy among them
  cargo edge bench --quick         side by side: Envoy alone, with each filter, and the host
  cargo edge fuzz dates            libFuzzer on one parser, a million executions";

#[derive(Subcommand)]
enum Command {
    /// Compile the filters to WebAssembly, into target/edge/.
    ///
    /// After that, what the codecs have for settings that the filters don't offer is taken out, and brotli's largest table is
    /// replaced by a computation. Nothing but the Rust toolchain is needed for it; what is left codes the same, byte for byte.
    Build {
        /// Filters to build: cache, compress, minify, ratelimit, edge, gateway; all when none is named.
        names: Vec<String>,
        /// For runtimes without SIMD128: `<name>.<kind>.baseline.wasm`, beside the others.
        #[arg(long)]
        baseline: bool,
        /// Compress without brotli, for platforms that limit a module's size: `compress.<kind>.slim.wasm`.
        #[arg(long, conflicts_with = "baseline")]
        slim: bool,
    },
    /// Build everything and start the host with all four filters in front of a built-in origin.
    Demo {
        /// Passed on to `edgeweir run`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Fetch what the tests need and run all of them; fails without Envoy.
    Test {
        /// Passed on to `cargo test --workspace`, for example a test's name.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Measure Envoy and the host, plain and with each filter, side by side.
    Bench(bench::Options),
    /// Run libFuzzer on the cache's parsers and the minifier, with stable Rust.
    Fuzz(fuzz::Options),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Build {
            names,
            baseline,
            slim,
        } => {
            let flavour = match (baseline, slim) {
                (true, _) => Flavour::Baseline,
                (_, true) => Flavour::Slim,
                _ => Flavour::Usual,
            };
            build::command(&names, flavour)
        }
        Command::Demo { args } => demo::command(&args),
        Command::Test { args } => test::command(&args),
        Command::Bench(options) => bench::command(&options),
        Command::Fuzz(options) => fuzz::command(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
