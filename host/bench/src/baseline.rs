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
    /// How many times worse it is now; `None` where one of the two has no value.
    pub worse: Option<Ratio>,
    /// How much worse is allowed: 0.05 for 5 %.
    pub above: f64,
    /// That it serves less than the baseline did: errors are cheap, and their cost says nothing.
    pub unserved: Option<String>,
    /// What makes the two hard to compare.
    pub caveats: Vec<String>,
}

impl Judgement {
    /// Whether the whole interval is beyond the bound, or less is served.
    pub fn regressed(&self) -> bool {
        let beyond = |worse: Ratio| worse.low > 1.0 + self.above;
        self.unserved.is_some() || self.worse.is_some_and(beyond)
    }

    /// In a sentence.
    pub fn text(&self) -> String {
        let mut text = match (&self.unserved, self.worse) {
            (Some(unserved), _) => format!("regression: {unserved}"),
            (None, Some(worse)) => self.of_cost(worse),
            (None, None) => format!("one of the two has no {}", self.metric.name()),
        };
        for caveat in &self.caveats {
            text.push_str("\nNote: ");
            text.push_str(caveat);
        }
        text
    }

    fn of_cost(&self, worse: Ratio) -> String {
        // What was written in decimal is said in decimal.
        let percent = (self.above * 1e8).round() / 1e6;
        let ratio = format!(
            "{:.2} × the baseline in {} ({:.0} % interval {:.2} to {:.2})",
            worse.estimate,
            self.metric.name(),
            worse.confidence * 100.0,
            worse.low,
            worse.high
        );
        if self.regressed() {
            format!("regression: {ratio}: the whole interval is above {percent} %")
        } else if worse.estimate > 1.0 + self.above {
            format!(
                "no regression shown: {ratio}: the interval reaches below {percent} %; more rounds narrow it"
            )
        } else {
            format!("no regression: {ratio}; allowed are {percent} %")
        }
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

/// By how much the share of requests that are not served may grow: those a limiter refuses vary from run to run.
const UNSERVED: f64 = 0.01;

/// Holds the last side of a run against the last side of a baseline. Without a metric it is CPU time where both have it,
/// else median latency. Before that: it must serve what the baseline served.
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
    let (failed_then, failed) = (then.unserved(), side.unserved());
    let unserved = (failed > failed_then + UNSERVED).then(|| {
        format!(
            "{:.1} % of the requests were not served (errors, or a status from 400), in the baseline {:.1} %: what errors \
             cost says nothing",
            failed * 100.0,
            failed_then * 100.0
        )
    });
    if ratio.is_none() && unserved.is_none() {
        bail!("one of the two has no {}", metric.name());
    }
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
        worse: ratio.map(|ratio| metric.worse(ratio)),
        above,
        unserved,
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
    fn a_run_that_serves_less_is_a_regression_whatever_it_costs() {
        let with = |served: u64, refused: u64, errors: u64| {
            let mut run = run(0.5);
            run.sides[0].statuses = [(200, served), (503, refused)].into();
            run.sides[0].errors = errors;
            run
        };
        for (case, then, now, regressed) in [
            (
                "all are served",
                with(1_000, 0, 0),
                with(2_000, 0, 0),
                false,
            ),
            ("none is", with(1_000, 0, 0), with(0, 2_000, 0), true),
            ("a part", with(1_000, 0, 0), with(950, 50, 0), true),
            (
                "without an answer",
                with(1_000, 0, 0),
                with(950, 0, 50),
                true,
            ),
            (
                "one in a thousand",
                with(1_000, 0, 0),
                with(999, 1, 0),
                false,
            ),
            ("as before", with(500, 500, 0), with(500, 505, 0), false),
            (
                "more than before",
                with(500, 500, 0),
                with(0, 1_000, 0),
                true,
            ),
        ] {
            let judged = judge(&then, &now, None, 0.05).expect("a judgement");
            assert_eq!(judged.regressed(), regressed, "{case}: {}", judged.text());
            assert_eq!(
                judged.text().starts_with("regression: "),
                regressed,
                "{case}"
            );
        }
        let mut silent = with(0, 0, 9);
        silent.sides[0].rounds.clear();
        let judged = judge(&run(1.0), &silent, None, 0.05).expect("a judgement");
        assert!(judged.regressed(), "{}", judged.text());
    }

    #[test]
    fn a_bound_is_said_as_it_was_given() {
        for (above, said) in [(0.05, "5 %"), (0.07, "7 %"), (0.025, "2.5 %")] {
            let judged = judge(&run(1.0), &run(1.0), None, above).expect("a judgement");
            let text = judged.text();
            assert!(text.ends_with(&format!("allowed are {said}")), "{text}");
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
