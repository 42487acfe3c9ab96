//! `cargo edge test`: brings what the tests need and runs all of them.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};

use crate::artifact::Flavour;
use crate::workspace::{cargo, target_dir};
use crate::{build, demo, tools};

/// The command; an error when Envoy cannot be had, something does not compile, or a test fails.
pub fn command(args: &[String]) -> Result<()> {
    let envoy = tools::envoy().context("the tests need the real Envoy")?;
    println!("Envoy: {}", envoy.display());
    let redis = tools::redis().context("the tests of the store need a real Redis")?;
    println!("Redis: {}", redis.display());
    let browser = tools::browser();
    match &browser {
        Ok(browser) => println!("Browser: {}", browser.display()),
        // The rest of what the dashboard's tests look at needs none.
        Err(error) => println!("Browser: none, so no page is rendered ({error:#})"),
    }
    build::command(&[], Flavour::Usual)?;
    let host = compile()?;
    let hosts = scenarios();
    // Of an earlier run.
    let _ = fs::remove_file(&hosts);
    let mut cargo = cargo();
    cargo
        .args(["test", "--workspace", "--no-fail-fast"])
        .args(args);
    cargo
        .env("EDGEWEIR_ENVOY", &envoy)
        .env("EDGEWEIR_BIN", &host);
    if let Ok(browser) = &browser {
        cargo.env("EDGEWEIR_BROWSER", browser);
    }
    cargo.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut running = cargo.spawn().context("running cargo test")?;
    let mut total = Total::default();
    if let Some(stdout) = running.stdout.take() {
        let mut terminal = std::io::stdout();
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.context("reading from cargo test")?;
            let line = String::from_utf8_lossy(&line);
            total.add(&line);
            writeln!(terminal, "{line}")?;
        }
    }
    let status = running.wait().context("waiting for cargo test")?;
    if let Ok(hosts) = fs::read_to_string(&hosts) {
        println!("Scenarios by host\n{hosts}");
    }
    for failed in &total.names {
        println!("FAILED {failed}");
    }
    println!(
        "{} passed, {} failed, {} ignored",
        total.passed, total.failed, total.ignored
    );
    if !status.success() || total.failed > 0 {
        bail!("cargo test ended with {status}");
    }
    if total.passed == 0 {
        bail!("no test ran");
    }
    Ok(())
}

/// Where the scenarios leave a line for each host: how many hold, how many fail, which were left out and why.
pub fn scenarios() -> PathBuf {
    target_dir().join("scenarios/hosts.txt")
}

/// Compiles every test and gives the host's program, which the tests of the host need and so is compiled with them:
/// a build of its own would choose other features for its dependencies and compile most of them twice.
fn compile() -> Result<PathBuf> {
    let status = cargo()
        .args(["test", "--workspace", "--no-run"])
        .stdin(Stdio::null())
        .status()
        .context("running cargo test")?;
    if !status.success() {
        bail!("the tests do not compile");
    }
    let host = target_dir().join("debug/edgeweir");
    if host.is_file() {
        return Ok(host);
    }
    demo::host(false, false)
}

/// The sum over all test binaries.
#[derive(Default, PartialEq, Eq, Debug)]
struct Total {
    passed: u64,
    failed: u64,
    ignored: u64,
    names: Vec<String>,
}

impl Total {
    /// Reads one line of cargo's output.
    fn add(&mut self, line: &str) {
        if let Some(name) = line
            .strip_prefix("test ")
            .and_then(|l| l.strip_suffix(" ... FAILED"))
        {
            self.names.push(name.to_owned());
        }
        let Some(result) = line.strip_prefix("test result: ") else {
            return;
        };
        for part in result.split([';', '.']) {
            let mut words = part.split_whitespace();
            if let (Some(count), Some(what)) = (words.next(), words.next())
                && let Ok(count) = count.parse::<u64>()
            {
                match what {
                    "passed" => self.passed += count,
                    "failed" => self.failed += count,
                    "ignored" => self.ignored += count,
                    _ => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_add_up() {
        let mut total = Total::default();
        for line in [
            "running 3 tests",
            "test a::b ... ok",
            "test a::c ... FAILED",
            "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: ok. 40 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 1.20s",
        ] {
            total.add(line);
        }
        let want = Total {
            passed: 42,
            failed: 1,
            ignored: 2,
            names: vec!["a::c".to_owned()],
        };
        assert_eq!(total, want);
    }
}
