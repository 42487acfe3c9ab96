//! `cargo edge bench`: Envoy and the host, plain, with each filter and with Envoy's own, in turn on one machine; for
//! the cache nginx and Varnish too, where they are installed.
//!
//! Every case has a proxy process of its own with one worker. In each round every case is loaded once by wrk; a figure
//! is the median over the rounds. Requests per second depend on what else the machine does (wrk and the origin share
//! it); CPU time per request of the proxy process alone is the firm figure.

mod cases;
mod chart;
mod empty;
mod instructions;
mod load;
mod others;
mod proxy;
mod redis;
mod report;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::artifact::Flavour;
use crate::process::Helper;
use crate::workspace::{cargo, edge_dir, target_dir};
use crate::{build, demo, process, tools};

pub use cases::{Case, Keeps, Nginx, Proxy, Reference};
pub use proxy::inline_toml;

/// What is measured, and for how long.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// How often every case has its turn.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Length of a turn in seconds.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// Connections of the client.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub connections: u32,
    /// Two rounds of a second each: to see that everything runs.
    #[arg(long)]
    pub quick: bool,
    /// Count instructions instead of time: of the cases in Envoy, one after the other under callgrind, some ten seconds each.
    #[arg(long, conflicts_with_all = ["rounds", "seconds", "connections", "quick"])]
    pub instructions: bool,
    /// Measure the files that are in target/edge/ and the host that was built last, as they are.
    #[arg(long)]
    pub no_build: bool,
    /// Only cases whose title, "workload: proxy", contains this; several are separated by commas. `kernel` alone measures
    /// the minifier's inner loop in wasmtime beside native programs.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
}

/// One turn of one case.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// Requests per second.
    pub rate: f64,
    /// Median latency in microseconds.
    pub p50: f64,
    /// 99th percentile of latency in microseconds.
    pub p99: f64,
    /// CPU time of the proxy's process per request in microseconds.
    pub cpu: f64,
}

/// The command: measures, prints a Markdown table, writes `target/edge/bench.json` and the picture `bench.svg` beside it.
pub fn command(options: &Options) -> Result<()> {
    let mut options = options.clone();
    if options.quick {
        (options.rounds, options.seconds) = (2, 1);
    }
    if options.only == ["kernel"] {
        return kernel(&options);
    }
    let wrk = tools::wrk()?;
    tools::envoy()?;
    let cases = chosen(&options)?;
    let host = if options.no_build {
        demo::built(true)
    } else {
        build::build(&[], Flavour::Usual, false)?;
        if cases.iter().any(|case| case.proxy.is_host()) {
            eprintln!("building the host for release");
            demo::host(true, false)?
        } else {
            demo::built(true)
        }
    };
    let (_origin, origin) = origin()?;
    if options.instructions {
        return count(cases, &wrk, origin, &host);
    }
    let mut running = Vec::new();
    let (mut measured, mut left_out) = (Vec::new(), Vec::new());
    for case in cases {
        eprintln!("starting {}", case.title());
        let proxy = proxy::start(&case.proxy, origin, &host, running.len(), None)
            .with_context(|| case.title())?;
        match load::check(proxy.address, &case) {
            Ok(bytes) => {
                running.push((proxy, bytes));
                measured.push(case);
            }
            // Another thing would be measured; the other cases are none the worse for it.
            Err(error) => left_out.push(format!("left out: {}: {error:#}", case.title())),
        }
    }
    let cases = measured;
    if cases.is_empty() {
        bail!("nothing is left to measure\n{}", left_out.join("\n"));
    }
    let mut turns: Vec<Vec<Turn>> = vec![Vec::new(); cases.len()];
    let time = Duration::from_secs(options.seconds);
    for round in 1..=options.rounds {
        for (at, case) in cases.iter().enumerate() {
            let (proxy, _) = &running[at];
            let turn = load::turn(&wrk, proxy, case, options.connections, time)
                .with_context(|| case.title())?;
            eprintln!(
                "round {round}/{}  {:<22} {:<34} {:>8.0} req/s {:>7.0} µs CPU",
                options.rounds, case.workload, case.name, turn.rate, turn.cpu
            );
            turns[at].push(turn);
        }
    }
    let bytes: Vec<usize> = running.iter().map(|(_, bytes)| *bytes).collect();
    let rows = report::rows(&cases, &turns, &bytes);
    println!("{}", report::markdown(&rows, &options));
    for line in left_out {
        eprintln!("{line}");
    }
    let file = edge_dir().join("bench.json");
    let json = serde_json::to_string_pretty(&report::json(&rows, &options))?;
    fs::write(&file, json).with_context(|| format!("writing {}", file.display()))?;
    let picture = edge_dir().join("bench.svg");
    fs::write(&picture, chart::svg(&rows))
        .with_context(|| format!("writing {}", picture.display()))?;
    println!("written to target/edge/bench.json, and as a picture to target/edge/bench.svg");
    Ok(())
}

/// Instructions in place of times, of what runs in Envoy.
fn count(cases: Vec<Case>, wrk: &Path, origin: SocketAddr, host: &Path) -> Result<()> {
    let folder = proxy::folder(0)?;
    let mut counted = Vec::new();
    for case in cases {
        eprintln!("counting {}", case.title());
        let callgrind = instructions::Callgrind::new(&folder)?;
        let running = proxy::start(&case.proxy, origin, host, 0, Some(&callgrind))
            .with_context(|| case.title())?;
        load::check(running.address, &case).with_context(|| case.title())?;
        let count = callgrind
            .count(wrk, &running, &case)
            .with_context(|| case.title())?;
        counted.push((case, count));
    }
    println!("{}", instructions::markdown(&counted));
    Ok(())
}

/// The minifier's inner loop alone, in wasmtime, beside native programs: no proxy, no client.
fn kernel(options: &Options) -> Result<()> {
    let rounds = options.rounds.to_string();
    let status = cargo()
        .args(["run", "--release", "--package", "edgeweir-kernel", "--"])
        .arg(&rounds)
        .status()
        .context("running cargo")?;
    if !status.success() {
        bail!("the kernel was not measured: {status}");
    }
    Ok(())
}

/// The cases asked for, less those whose program is not there.
fn chosen(options: &Options) -> Result<Vec<Case>> {
    let mut cases = cases::all();
    if !options.only.is_empty() {
        cases.retain(|case| options.only.iter().any(|only| case.title().contains(only)));
    }
    if cases.is_empty() {
        bail!(
            "no case has that title; the workloads are {}",
            cases::workloads().join(", ")
        );
    }
    if options.instructions {
        cases.retain(|case| case.proxy.is_envoy());
        if cases.is_empty() {
            bail!("instructions are counted in Envoy, and none of these cases runs there");
        }
    }
    cases.retain(|case| match case.proxy.program() {
        Some(program) if others::find(program).is_none() => {
            eprintln!(
                "left out, there is no {program} on the PATH: {}",
                case.title()
            );
            false
        }
        _ => true,
    });
    Ok(cases)
}

fn origin() -> Result<(Helper, SocketAddr)> {
    let built = cargo()
        .args([
            "build",
            "--release",
            "--package",
            "cargo-edge",
            "--bin",
            "origin",
        ])
        .status()
        .context("running cargo")?;
    if !built.success() {
        bail!("the origin does not compile");
    }
    let mut command = Command::new(target_dir().join("release/origin"));
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut origin = process::spawn(command).context("starting the origin")?;
    let stdout = origin.stdout().context("the origin has no output")?;
    let mut line = String::new();
    BufReader::new(stdout)
        .read_line(&mut line)
        .context("reading the origin's address")?;
    let address = line
        .trim()
        .parse()
        .context("the origin prints no address")?;
    Ok((origin, address))
}
