//! What came of a run: at a terminal, as JSON, as JUnit.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use serde_json::{Value, json};

use crate::judge::{Failure, Verdict};
use crate::seen::Cost;

/// What came of a case.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The file it is in.
    pub file: PathBuf,
    /// Its name.
    pub name: String,
    /// Its line.
    pub line: usize,
    /// How it ended.
    pub end: End,
    /// How long that took.
    pub took: Duration,
}

/// How a case ended.
#[derive(Clone, Debug)]
pub enum End {
    /// It was judged.
    Judged {
        /// What holds and what does not.
        verdict: Verdict,
        /// What it cost.
        cost: Cost,
        /// How often it ran, each time with a body split elsewhere.
        splits: usize,
        /// The split the failures are of.
        split: Option<usize>,
        /// What came of it under faults.
        torture: Option<Tortured>,
    },
    /// It cannot run on this host.
    Skipped(String),
    /// It could not be run.
    Broken(String),
}

/// What came of a case under faults.
#[derive(Clone, Debug, Default)]
pub struct Tortured {
    /// Calls made to fail.
    pub faults: usize,
    /// Exchanges that were the same, untouched, refused, reset.
    pub fates: [usize; 4],
    /// Faults that broke it, and how.
    pub broke: Vec<(String, String)>,
}

/// What came of a run, in the order of files and cases.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Where it ran: `host`, `envoy`.
    pub on: String,
    /// The cases.
    pub outcomes: Vec<Outcome>,
    /// Files that are wrong.
    pub problems: Vec<String>,
    /// How long it took in all.
    pub took: Duration,
}

impl Outcome {
    fn failed(&self) -> bool {
        match &self.end {
            End::Judged {
                verdict, torture, ..
            } => {
                !verdict.failures.is_empty()
                    || torture.as_ref().is_some_and(|it| !it.broke.is_empty())
            }
            _ => false,
        }
    }

    fn failures(&self) -> &[Failure] {
        match &self.end {
            End::Judged { verdict, .. } => &verdict.failures,
            _ => &[],
        }
    }
}

/// Counts of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Cases in which all holds.
    pub passed: usize,
    /// Cases in which something does not.
    pub failed: usize,
    /// Cases that this host cannot run.
    pub skipped: usize,
    /// Cases and files that could not be run.
    pub broken: usize,
}

impl Run {
    /// How many cases ended how.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts {
            broken: self.problems.len(),
            ..Counts::default()
        };
        for outcome in &self.outcomes {
            match &outcome.end {
                _ if outcome.failed() => counts.failed += 1,
                End::Judged { .. } => counts.passed += 1,
                End::Skipped(_) => counts.skipped += 1,
                End::Broken(_) => counts.broken += 1,
            }
        }
        counts
    }

    /// 0: all passed, those left out that cannot run here; 1: some failed, or every one was left out; 2: a case, a file or a
    /// module is broken, or there is nothing to run.
    pub fn exit_code(&self) -> u8 {
        match self.counts() {
            counts if counts.broken > 0 => 2,
            counts if counts.failed > 0 => 1,
            counts if counts == Counts::default() => 2,
            counts if counts.passed == 0 => 1,
            _ => 0,
        }
    }

    /// For people.
    pub fn terminal(&self, colours: bool) -> String {
        let paint = Paint(colours);
        let mut out = String::new();
        let mut file = None;
        for outcome in &self.outcomes {
            if file != Some(&outcome.file) {
                let _ = writeln!(out, "{}", paint.bold(&outcome.file.display().to_string()));
                file = Some(&outcome.file);
            }
            self::outcome(&mut out, paint, outcome);
        }
        for problem in &self.problems {
            let _ = writeln!(out, "{} {problem}", paint.red("broken"));
        }
        let counts = self.counts();
        let mut parts = vec![format!("{} passed", counts.passed)];
        for (count, name) in [
            (counts.failed, "failed"),
            (counts.broken, "broken"),
            (counts.skipped, "skipped"),
        ] {
            if count > 0 {
                parts.push(format!("{count} {name}"));
            }
        }
        let line = format!(
            "{} on {} in {:.1} s",
            parts.join(", "),
            self.on,
            self.took.as_secs_f64()
        );
        let good = self.exit_code() == 0;
        let line = if good {
            paint.green(&line)
        } else {
            paint.red(&line)
        };
        let _ = writeln!(out, "\n{line}");
        if counts.skipped > 0 && counts.skipped == self.outcomes.len() {
            let _ = writeln!(out, "nothing was run: every case was skipped");
        }
        self.torture_line(&mut out);
        for (what, cases) in self.unchecked() {
            let _ = writeln!(out, "not checked on {}: {what} (in {cases} cases)", self.on);
        }
        out
    }

    fn torture_line(&self, out: &mut String) {
        let mut all = Tortured::default();
        let mut any = false;
        for outcome in &self.outcomes {
            if let End::Judged {
                torture: Some(it), ..
            } = &outcome.end
            {
                any = true;
                all.faults += it.faults;
                for (sum, fate) in all.fates.iter_mut().zip(it.fates) {
                    *sum += fate;
                }
                all.broke.extend(it.broke.iter().cloned());
            }
        }
        if any {
            let [same, untouched, refused, reset] = all.fates;
            let _ = writeln!(
                out,
                "{} faults: {same} changed nothing, {untouched} left the origin's answer, {refused} were answered with an \
                 error, {reset} were a reset, {} broke something",
                all.faults,
                all.broke.len()
            );
        }
    }

    fn unchecked(&self) -> Vec<(String, usize)> {
        let mut counts: Vec<(String, usize)> = Vec::new();
        for outcome in &self.outcomes {
            let End::Judged { verdict, .. } = &outcome.end else {
                continue;
            };
            for what in &verdict.unchecked {
                match counts.iter_mut().find(|(other, _)| other == what) {
                    Some((_, count)) => *count += 1,
                    None => counts.push((what.clone(), 1)),
                }
            }
        }
        counts
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let counts = self.counts();
        let outcomes = self.outcomes.iter().map(|outcome| {
            let mut value = json!({
                "file": outcome.file.display().to_string(),
                "line": outcome.line,
                "name": outcome.name,
                "seconds": outcome.took.as_secs_f64(),
            });
            let end = match &outcome.end {
                End::Skipped(why) => json!({ "end": "skipped", "why": why }),
                End::Broken(why) => json!({ "end": "broken", "why": why }),
                End::Judged {
                    verdict,
                    cost,
                    splits,
                    split,
                    torture,
                } => json!({
                    "end": if outcome.failed() { "failed" } else { "passed" },
                    "held": verdict.held,
                    "not_checked": verdict.unchecked,
                    "splits": splits,
                    "split": split,
                    "cost": {
                        "fuel": cost.fuel,
                        "memory_bytes": cost.memory,
                        "host_calls": cost.host_calls,
                        "bytes_copied": cost.bytes_copied,
                        "wall_seconds": cost.wall.as_secs_f64(),
                    },
                    "failures": verdict.failures.iter().map(|failure| json!({
                        "line": failure.line,
                        "step": failure.step.0,
                        "time": failure.step.1,
                        "what": failure.what,
                        "want": failure.want,
                        "got": failure.got,
                    })).collect::<Vec<_>>(),
                    "torture": torture.as_ref().map(|it| json!({
                        "faults": it.faults,
                        "same": it.fates[0],
                        "untouched": it.fates[1],
                        "refused": it.fates[2],
                        "reset": it.fates[3],
                        "broke": it.broke.iter().map(|(fault, how)| json!({ "fault": fault, "how": how }))
                            .collect::<Vec<_>>(),
                    })),
                }),
            };
            if let (Some(all), Value::Object(more)) = (value.as_object_mut(), end) {
                all.extend(more);
            }
            value
        });
        json!({
            "on": self.on,
            "passed": counts.passed,
            "failed": counts.failed,
            "skipped": counts.skipped,
            "broken": counts.broken,
            "seconds": self.took.as_secs_f64(),
            "problems": self.problems,
            "cases": outcomes.collect::<Vec<_>>(),
        })
    }

    /// For CI: a suite for each file, and one, `broken`, of what could not be read.
    pub fn junit(&self) -> Result<String, String> {
        let mut report = Report::new("edgeweir test");
        report.set_time(self.took);
        let mut files: Vec<&PathBuf> = self.outcomes.iter().map(|outcome| &outcome.file).collect();
        files.dedup();
        for file in files {
            let mut suite = TestSuite::new(file.display().to_string());
            for outcome in self.outcomes.iter().filter(|outcome| &outcome.file == file) {
                let status = match &outcome.end {
                    End::Skipped(why) => {
                        let mut status = TestCaseStatus::skipped();
                        status.set_message(why.clone());
                        status
                    }
                    End::Broken(why) => {
                        let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
                        status.set_message(why.clone());
                        status
                    }
                    End::Judged { .. } if outcome.failed() => {
                        let mut text = String::new();
                        details(&mut text, Paint(false), outcome);
                        let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                        status.set_message(text.lines().next().unwrap_or_default().trim());
                        status.set_description(text);
                        status
                    }
                    End::Judged { .. } => TestCaseStatus::success(),
                };
                let mut case = TestCase::new(outcome.name.clone(), status);
                case.set_classname(file.display().to_string());
                case.set_time(outcome.took);
                suite.add_test_case(case);
            }
            report.add_test_suite(suite);
        }
        if !self.problems.is_empty() {
            let mut suite = TestSuite::new("broken");
            for problem in &self.problems {
                let first = problem.lines().next().unwrap_or_default();
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
                status.set_message(first);
                status.set_description(problem.as_str());
                suite.add_test_case(TestCase::new(first, status));
            }
            report.add_test_suite(suite);
        }
        report.to_string().map_err(|error| error.to_string())
    }
}

fn outcome(out: &mut String, paint: Paint, outcome: &Outcome) {
    let (mark, more) = match &outcome.end {
        _ if outcome.failed() => (paint.red("FAILED "), String::new()),
        End::Judged {
            splits, torture, ..
        } => {
            let mut more = match splits {
                1 => String::new(),
                splits => format!(", at {splits} splits"),
            };
            if let Some(torture) = torture {
                let _ = write!(more, ", {} faults", torture.faults);
            }
            (paint.green("passed "), more)
        }
        End::Skipped(why) => (paint.yellow("skipped"), format!(": {why}")),
        End::Broken(_) => (paint.red("broken "), String::new()),
    };
    let time = match &outcome.end {
        End::Judged { .. } => format!(" ({} ms{more})", outcome.took.as_millis()),
        _ => more,
    };
    let _ = writeln!(out, "  {mark} {}{time}", outcome.name);
    details(out, paint, outcome);
}

fn details(out: &mut String, paint: Paint, outcome: &Outcome) {
    let file = outcome.file.display();
    if let End::Broken(why) = &outcome.end {
        let _ = writeln!(out, "      {file}:{}: {why}", outcome.line);
    }
    if let End::Judged {
        split: Some(split), ..
    } = &outcome.end
    {
        let _ = writeln!(out, "      with its body split after {split} bytes:");
    }
    let failures = outcome.failures();
    for (at, failure) in failures.iter().enumerate() {
        let (step, time) = failure.step;
        // A step that is done many times fails in the same way many times: once is enough to read.
        let of = |failure: &Failure| (failure.step.0, failure.line);
        let same = |other: &&Failure| {
            of(other) == of(failure) && other.what == failure.what && other.want == failure.want
        };
        if failures.iter().take(at).any(|other| same(&other)) {
            continue;
        }
        let time = match failures.iter().filter(same).count() {
            1 if time == 1 => String::new(),
            1 => format!(", time {time}"),
            count => format!(", time {time} and {} more", count - 1),
        };
        let _ = write!(
            out,
            "      {file}:{}: step {step}{time}: {}: ",
            failure.line, failure.what
        );
        match &failure.diff {
            None => {
                let _ = writeln!(
                    out,
                    "want {}, got {}",
                    paint.green(&failure.want),
                    paint.red(&failure.got)
                );
            }
            Some(diff) => {
                let _ = writeln!(out, "want (-) and got (+) differ");
                for line in diff.lines() {
                    let line = match line.as_bytes().first() {
                        Some(b'-') => paint.green(line),
                        Some(b'+') => paint.red(line),
                        _ => line.to_owned(),
                    };
                    let _ = writeln!(out, "        {line}");
                }
            }
        }
    }
    if let End::Judged {
        torture: Some(torture),
        ..
    } = &outcome.end
    {
        for (fault, how) in &torture.broke {
            let _ = writeln!(out, "      {} {how}", paint.red(fault));
            let _ = writeln!(
                out,
                "        again: edgeweir test {file} --filter {:?} --torture-at {fault}",
                outcome.name
            );
        }
    }
}

/// Colours, or none.
#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn with(self, code: &str, text: &str) -> String {
        match self.0 {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }
    fn bold(self, text: &str) -> String {
        self.with("1", text)
    }
    fn green(self, text: &str) -> String {
        self.with("32", text)
    }
    fn red(self, text: &str) -> String {
        self.with("31", text)
    }
    fn yellow(self, text: &str) -> String {
        self.with("33", text)
    }
}
