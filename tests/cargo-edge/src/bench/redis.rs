//! Redis alone: what a decision costs that is a round trip to it, with no proxy around.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::Turn;
use super::proxy::{Running, spawn, wait};
use crate::tools;

/// A limit as it is commonly kept in Redis.
const GCRA: &str = include_str!("gcra.lua");
/// Decisions by which the number of a turn is found.
const TRIAL: u64 = 5_000;

/// A Redis that keeps nothing on disk.
pub fn start(folder: &Path, log: &Path) -> Result<Running> {
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut command = Command::new(tools::redis()?);
    command
        .args(["--bind", "127.0.0.1", "--port", &address.port().to_string()])
        .args(["--save", "", "--appendonly", "no", "--dir"])
        .arg(folder);
    let process = spawn(command, log)?;
    wait(process, log, || {
        TcpStream::connect(address).ok().map(|_| address)
    })
}

/// Loads it with decisions for about so long, one in flight on each connection.
pub fn turn(redis: &Running, connections: u32, time: Duration) -> Result<Turn> {
    let script = loaded(redis.address)?;
    let trial = decisions(redis.address, &script, connections, TRIAL)?;
    let many = (trial.rate * time.as_secs_f64()).max(1.0);
    let before = redis.cpu()?;
    let turn = decisions(redis.address, &script, connections, many as u64)?;
    let spent = redis.cpu()?.saturating_sub(before);
    Ok(Turn {
        cpu: spent.as_secs_f64() * 1e6 / many,
        ..turn
    })
}

/// Loads the script; its name.
fn loaded(address: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect(address).context("connecting to Redis")?;
    let length = GCRA.len();
    write!(
        stream,
        "*3\r\n$6\r\nSCRIPT\r\n$4\r\nLOAD\r\n${length}\r\n{GCRA}\r\n"
    )?;
    let mut lines = BufReader::new(stream).lines();
    let kind = lines.next().context("Redis says nothing")??;
    let name = lines.next().transpose()?.unwrap_or_default();
    if !kind.starts_with('$') || name.len() != 40 {
        bail!("Redis does not take the script: {kind}");
    }
    Ok(name)
}

fn decisions(address: SocketAddr, script: &str, connections: u32, many: u64) -> Result<Turn> {
    let output = Command::new("redis-benchmark")
        .args(["-h", "127.0.0.1", "-p", &address.port().to_string()])
        .args(["-c", &connections.to_string(), "-n", &many.to_string()])
        .args(["--csv", "--precision", "3"])
        // The limit of the other rows: never reached.
        .args([
            "EVALSHA", script, "1", "limit", "1000000", "1000000", "1000000",
        ])
        .output()
        .context("running redis-benchmark")?;
    let said = String::from_utf8_lossy(&output.stdout);
    parse(&said).with_context(|| {
        let errors = String::from_utf8_lossy(&output.stderr);
        format!("redis-benchmark printed something else: {said}{errors}")
    })
}

/// A line of names and one of values: "test","rps","avg_latency_ms",…
fn parse(said: &str) -> Option<Turn> {
    let fields = |line: &str| -> Vec<String> {
        let fields = line.trim().trim_matches('"').split("\",\"");
        fields.map(str::to_owned).collect()
    };
    let mut lines = said.lines().filter(|line| line.starts_with('"'));
    let names = fields(lines.next()?);
    // What is asked for is the first value and may hold anything, a comma too.
    let values = fields(lines.next()?);
    let value = |name: &str| -> Option<f64> {
        let from_end = names.len() - names.iter().position(|known| known == name)?;
        let at = values.len().checked_sub(from_end)?;
        values.get(at)?.parse().ok()
    };
    Some(Turn {
        rate: value("rps")?,
        p50: value("p50_latency_ms")? * 1e3,
        p99: value("p99_latency_ms")? * 1e3,
        cpu: 0.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redis_benchmark_is_understood() {
        let said = "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\"p95_latency_ms\",\
                    \"p99_latency_ms\",\"max_latency_ms\"\n\
                    \"EVALSHA 4\",\"5 1\",\"33333.33\",\"0.450\",\"0.072\",\"0.447\",\"0.695\",\"1.055\",\"1.311\"\n";
        let turn = parse(said).expect("a turn");
        assert_eq!((turn.rate, turn.p50, turn.p99), (33_333.33, 447.0, 1_055.0));
        assert!(parse("Could not connect to Redis\n").is_none());
    }
}
