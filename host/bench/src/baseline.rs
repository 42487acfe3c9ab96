//! A run kept as a file, and whether a later one is worse than it.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::report::{Metric, Report};
use crate::statistics::{Ratio, unpaired};

/// How a run stands to a baseline in one metric.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// The metric looked at.
    pub metric: Metric,
    /// How many times worse it is now.
    pub worse: Ratio,
    /// The bound it is held to: 1.05 for 5 %.
    pub bound: f64,
    /// What makes the two hard to compare.
    pub caveats: Vec<String>,
}

impl Judgement {
    /// Whether the whole interval is beyond the bound.
    pub fn regressed(&self) -> bool {
        self.worse.low > self.bound
    }

    /// In a sentence.
    pub fn text(&self) -> String {
        let percent = (self.bound - 1.0) * 100.0;
        let ratio = format!(
            "{:.2} × the baseline in {} ({:.0} % interval {:.2} to {:.2})",
            self.worse.estimate,
            self.metric.name(),
            self.worse.confidence * 100.0,
            self.worse.low,
            self.worse.high
        );
        let mut text = if self.regressed() {
            format!("regression: {ratio}: the whole interval is above {percent} %")
        } else if self.worse.estimate > self.bound {
            format!(
                "no regression shown: {ratio}: the interval reaches below {percent} %; more rounds narrow it"
            )
        } else {
            format!("no regression: {ratio}; allowed are {percent} %")
        };
        for caveat in &self.caveats {
            text.push_str("\nNote: ");
            text.push_str(caveat);
        }
        text
    }
}

/// Writes a report.
pub fn save(report: &Report, file: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(report)?;
    std::fs::write(file, text + "\n")
        .with_context(|| format!("{} cannot be written", file.display()))
}

/// Reads a report.
pub fn read(file: &Path) -> Result<Report> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("{} cannot be read", file.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} is no report of `edgeweir bench`", file.display()))
}

/// Holds the last side of a run against the last side of a baseline. Without a metric it is CPU time where both have it,
/// else median latency.
pub fn judge(
    baseline: &Report,
    now: &Report,
    metric: Option<Metric>,
    above: f64,
) -> Result<Judgement> {
    let (Some(then), Some(side)) = (baseline.sides.last(), now.sides.last()) else {
        bail!("a report without a side");
    };
    let values = |metric: Metric| (metric.values(&then.rounds), metric.values(&side.rounds));
    let (metric, ratio) = match metric {
        Some(metric) => (metric, unpaired_of(values(metric))),
        None => [Metric::Cpu, Metric::P50]
            .into_iter()
            .map(|metric| (metric, unpaired_of(values(metric))))
            .find(|(_, ratio)| ratio.is_some())
            .unwrap_or((Metric::P50, None)),
    };
    let ratio = ratio.with_context(|| format!("one of the two has no {}", metric.name()))?;
    let mut caveats = Vec::new();
    for (what, then, now) in [
        ("machine", &baseline.machine, &now.machine),
        ("load", &baseline.load, &now.load),
        ("side", &then.name, &side.name),
    ] {
        if then != now {
            caveats.push(format!(
                "another {what}: the baseline's is \"{then}\", this one's \"{now}\""
            ));
        }
    }
    Ok(Judgement {
        metric,
        worse: metric.worse(ratio),
        bound: 1.0 + above,
        caveats,
    })
}

fn unpaired_of((then, now): (Vec<f64>, Vec<f64>)) -> Option<Ratio> {
    unpaired(&then, &now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{report, side};

    fn run(times: f64) -> Report {
        let mut run = report();
        run.sides = vec![side("a.toml", times)];
        run
    }

    #[test]
    fn only_what_the_interval_supports_is_a_regression() {
        for (case, times, metric, regressed) in [
            ("the same", 1.0, None, false),
            ("within the bound", 1.03, None, false),
            ("beyond it", 1.25, None, true),
            ("beyond it in throughput", 1.25, Some(Metric::Rate), true),
            ("not in this metric", 1.25, Some(Metric::P99), false),
            ("better", 0.8, None, false),
        ] {
            let judged = judge(&run(1.0), &run(times), metric, 0.05).expect("a judgement");
            assert_eq!(judged.regressed(), regressed, "{case}: {}", judged.text());
            assert!(judged.caveats.is_empty(), "{case}");
        }
    }

    #[test]
    fn another_machine_is_said() {
        let mut now = run(1.0);
        now.machine = "another".to_owned();
        let judged = judge(&run(1.0), &now, None, 0.05).expect("a judgement");
        assert!(
            judged.text().contains("Note: another machine"),
            "{}",
            judged.text()
        );
    }

    #[test]
    fn a_baseline_survives_its_file() {
        let file =
            std::env::temp_dir().join(format!("edgeweir-baseline-{}.json", std::process::id()));
        save(&report(), &file).expect("saved");
        let back = read(&file).expect("read");
        std::fs::remove_file(&file).expect("removed");
        assert_eq!(back.ratios, report().ratios);
        let error = read(Path::new("/nonexistent"))
            .expect_err("no file")
            .to_string();
        assert!(error.contains("/nonexistent cannot be read"), "{error}");
    }
}
