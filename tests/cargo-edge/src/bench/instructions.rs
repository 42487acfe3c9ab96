//! `cargo edge bench --instructions`: what a request takes of Envoy in instructions, counted by valgrind's callgrind.
//!
//! A count hardly depends on what else the machine does: two of the same build are within a percent, where times are not within ten. It
//! says nothing of caches and of the kernel, and it has more of malloc than there is: tcmalloc takes a slower path under valgrind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::{Case, load, proxy};
use crate::tools;

/// How long a case is loaded before it is counted, and while it is.
const WARM: Duration = Duration::from_secs(1);
const COUNTED: Duration = Duration::from_secs(3);

/// An Envoy under callgrind, which counts nothing yet.
pub struct Callgrind {
    program: PathBuf,
    out: PathBuf,
}

impl Callgrind {
    /// With its figures in a folder.
    pub fn new(folder: &Path) -> Result<Self> {
        let callgrind = Self {
            program: tools::valgrind()?,
            out: folder.join("callgrind"),
        };
        // Of an earlier run.
        let _ = fs::remove_file(callgrind.dump());
        Ok(callgrind)
    }

    /// Where its first dump goes.
    fn dump(&self) -> PathBuf {
        self.out.with_extension("1")
    }

    /// The command that starts an Envoy, started by callgrind.
    pub fn around(&self, envoy: &Command) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(["--tool=callgrind", "--trace-children=yes"])
            .arg("--instr-atstart=no")
            .arg(format!("--callgrind-out-file={}", self.out.display()))
            .arg(envoy.get_program())
            .args(envoy.get_args());
        command
    }

    /// Instructions of all threads for each request, under the load of one connection.
    pub fn count(&self, wrk: &Path, running: &proxy::Running, case: &Case) -> Result<f64> {
        load::load(wrk, running, case, 1, WARM)?;
        self.tell(running, "--instr=on")?;
        let told = load::load(wrk, running, case, 1, COUNTED);
        self.tell(running, "--instr=off")?;
        self.tell(running, "--dump")?;
        let dump = self.dump();
        let text = fs::read_to_string(&dump)
            .with_context(|| format!("callgrind wrote no {}", dump.display()))?;
        let all = totals(&text).with_context(|| format!("{} has another form", dump.display()))?;
        Ok(all / told?.requests.max(1.0))
    }

    fn tell(&self, running: &proxy::Running, what: &str) -> Result<()> {
        let control = self.program.with_file_name("callgrind_control");
        let output = Command::new(&control)
            .arg(what)
            .arg(running.id().to_string())
            .output()
            .with_context(|| format!("running {}", control.display()))?;
        let said = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() || !said.contains("OK") {
            bail!("callgrind does not answer: {}", said.trim());
        }
        Ok(())
    }
}

/// The sum of a dump.
fn totals(dump: &str) -> Option<f64> {
    let mut sums = dump
        .lines()
        .filter_map(|line| line.strip_prefix("totals: "));
    sums.next()?.trim().parse().ok()
}

/// The table: a row for each case, in the order given.
pub fn markdown(counted: &[(Case, f64)]) -> String {
    let mut text =
        "| workload | proxy | instructions/request | over plain |\n|---|---|--:|--:|\n".to_owned();
    for (case, count) in counted {
        let plain = counted.iter().find(|(other, _)| {
            other.workload == case.workload && other.reference == Some(super::Reference::Plain)
        });
        let over = plain.map_or("–".to_owned(), |(_, plain)| {
            format!("{:.0}", count - plain)
        });
        text.push_str(&format!(
            "| {} | {} | {count:.0} | {over} |\n",
            case.workload, case.name
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_says_its_sum() {
        let dump = "events: Ir\nfn=(1)\n0 12\n\ntotals: 464429181\n";
        assert_eq!(totals(dump), Some(464_429_181.0));
        assert_eq!(totals("events: Ir\nsummary: 0\n"), None);
    }
}
