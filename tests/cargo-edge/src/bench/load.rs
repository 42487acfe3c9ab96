//! Load by wrk, and what it says.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::proxy::Running;
use super::{Case, Proxy, Turn, redis};

/// Asks until the response shows what is to be measured (a cache needs a first request); returns the body's bytes.
pub fn check(address: SocketAddr, case: &Case) -> Result<usize> {
    if matches!(case.proxy, Proxy::Redis) {
        return Ok(0);
    }
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        let mut stream = TcpStream::connect(address).context("connecting")?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let accepts = match case.accepts {
            "" => String::new(),
            coding => format!("accept-encoding: {coding}\r\n"),
        };
        let path = case.path;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: bench\r\n{accepts}connection: close\r\n\r\n"
        )?;
        let mut answer = Vec::new();
        stream
            .read_to_end(&mut answer)
            .context("reading a response")?;
        let end = answer
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .unwrap_or(answer.len());
        let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
        if head.starts_with("http/1.1 200") && head.contains(case.shows) {
            let body = answer.get(end + 4..).unwrap_or_default();
            let chunked = head.contains("transfer-encoding: chunked");
            return Ok(if chunked {
                without_framing(body)
            } else {
                body.len()
            });
        }
        if Instant::now() > until {
            bail!("the response does not show {:?}: {head}", case.shows);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The bytes of a chunked body without sizes and line ends.
fn without_framing(mut body: &[u8]) -> usize {
    let mut total = 0;
    while let Some(end) = body.windows(2).position(|two| two == b"\r\n") {
        let size = String::from_utf8_lossy(&body[..end]).into_owned();
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        let Some(rest) = body.get(end + 2 + size + 2..).filter(|_| size > 0) else {
            break;
        };
        total += size;
        body = rest;
    }
    total
}

/// Loads a proxy for a while.
pub fn turn(
    wrk: &Path,
    proxy: &Running,
    case: &Case,
    connections: u32,
    time: Duration,
) -> Result<Turn> {
    if matches!(case.proxy, Proxy::Redis) {
        return redis::turn(proxy, connections, time);
    }
    let before = proxy.cpu()?;
    let told = load(wrk, proxy, case, connections, time)?;
    let spent = proxy.cpu()?.saturating_sub(before);
    Ok(Turn {
        rate: told.rate,
        p50: told.p50,
        p99: told.p99,
        cpu: spent.as_secs_f64() * 1e6 / told.requests.max(1.0),
    })
}

/// The same, and what wrk says of it.
pub fn load(
    wrk: &Path,
    proxy: &Running,
    case: &Case,
    connections: u32,
    time: Duration,
) -> Result<Told> {
    let mut command = Command::new(wrk);
    command
        .args(["--threads", "1", "--latency", "--timeout", "10s"])
        .args(["--connections", &connections.to_string()])
        .args(["--duration", &format!("{}s", time.as_secs())]);
    if !case.accepts.is_empty() {
        command.args(["--header", &format!("accept-encoding: {}", case.accepts)]);
    }
    let output = command
        .arg(format!("http://{}{}", proxy.address, case.path))
        .output()
        .context("running wrk")?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!(
            "wrk failed: {said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let told = parse(&said).with_context(|| format!("wrk printed something else: {said}"))?;
    if let Some(errors) = told
        .errors
        .as_ref()
        .filter(|errors| !case.refuses || errors.starts_with("Socket"))
    {
        bail!("{errors}");
    }
    Ok(told)
}

/// What wrk says of a load.
#[derive(Debug, PartialEq)]
pub struct Told {
    /// Responses that came.
    pub requests: f64,
    rate: f64,
    p50: f64,
    p99: f64,
    errors: Option<String>,
}

fn parse(said: &str) -> Option<Told> {
    let mut told = Told {
        requests: 0.0,
        rate: 0.0,
        p50: 0.0,
        p99: 0.0,
        errors: None,
    };
    let (mut seen, mut latencies) = (0, 0);
    for line in said.lines().map(str::trim) {
        let mut words = line.split_whitespace();
        let (first, second) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        match first {
            "50%" => (told.p50, latencies) = (microseconds(second)?, latencies + 1),
            "99%" => (told.p99, latencies) = (microseconds(second)?, latencies + 1),
            "Requests/sec:" => (told.rate, seen) = (second.parse().ok()?, seen + 1),
            // What happened to connections says more than what was answered.
            "Non-2xx" if told.errors.is_some() => {}
            "Non-2xx" | "Socket" => told.errors = Some(line.to_owned()),
            _ if second == "requests" => (told.requests, seen) = (first.parse().ok()?, seen + 1),
            _ => {}
        }
    }
    (seen == 2 && latencies == 2).then_some(told)
}

/// `1.25ms`, `870.00us`, `1.02s`, `1.5m`.
fn microseconds(text: &str) -> Option<f64> {
    let at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(at);
    let factor = match unit {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        "m" => 6e7,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "Running 4s test @ http://127.0.0.1:1/1k\n  1 threads and 16 connections\n  Thread Stats   Avg      Stdev     Max   +/- Stdev\n    Latency     2.29ms  1.02ms  14.05ms   83.04%\n  Latency Distribution\n     50%    2.05ms\n     75%    2.60ms\n     90%    3.41ms\n     99%  870.00us\n  28012 requests in 4.00s, 36.07MB read\nRequests/sec:   7001.12\nTransfer/sec:      9.01MB\n";

    #[test]
    fn chunks_are_counted_without_their_framing() {
        assert_eq!(
            without_framing(b"3\r\nabc\r\na\r\n0123456789\r\n0\r\n\r\n"),
            13
        );
        assert_eq!(without_framing(b"0\r\n\r\n"), 0);
    }

    #[test]
    fn wrk_is_understood() {
        let want = Told {
            requests: 28_012.0,
            rate: 7001.12,
            p50: 2_050.0,
            p99: 870.0,
            errors: None,
        };
        assert_eq!(parse(SAID), Some(want));
        let refused = format!("{SAID}  Non-2xx or 3xx responses: 5\n");
        assert!(parse(&refused).is_some_and(|told| told.errors.is_some()));
        assert_eq!(parse("wrk: command not found"), None);
    }
}
