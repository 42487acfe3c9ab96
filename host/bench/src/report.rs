//! What was measured and what can be said of it, as data and for a terminal.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use edgeweir_host_monitor::Trend;
use serde::{Deserialize, Serialize};

use crate::cost::{FilterCost, bottleneck};
use crate::statistics::{Ratio, Verdict, median, paired};

/// A whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The version of this program.
    pub version: String,
    /// The machine: processor and the number of them.
    pub machine: String,
    /// The load, in words.
    pub load: String,
    /// One or two sides; the second is compared with the first.
    pub sides: Vec<SideReport>,
    /// By metric, how many times the second side's value is the first's.
    pub ratios: BTreeMap<Metric, Ratio>,
}

/// One side.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SideReport {
    /// What it is, as it was named.
    pub name: String,
    /// Its rounds, in the order they were run.
    pub rounds: Vec<Round>,
    /// Latency over all rounds: percentile (0 to 100) and microseconds.
    pub latency: Vec<(f64, f64)>,
    /// Responses by status, over all rounds.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests without a whole response.
    pub errors: u64,
    /// Requests of a fixed rate that were never sent.
    pub unsent: u64,
    /// What its filters cost; empty where the side does not say.
    pub filters: Vec<FilterCost>,
}

impl SideReport {
    /// The share of requests that got no whole response, or one with a status from 400; 0 without requests.
    pub fn unserved(&self) -> f64 {
        let responses: u64 = self.statuses.values().sum();
        let served = self.statuses.range(..400).map(|(_, count)| count).sum();
        let all = responses + self.errors;
        all.saturating_sub(served) as f64 / all.max(1) as f64
    }

    /// Resident memory at the end, bytes; `None` where it is not known.
    pub fn resident(&self) -> Option<u64> {
        let last = self.rounds.last()?.resident;
        (last > 0).then_some(last)
    }

    /// How resident memory grew in the second half of the rounds, bytes a second; `None` for fewer than
    /// 12 rounds or half a minute in it, from which nothing can be said of an hour.
    pub fn growth(&self) -> Option<f64> {
        let second = self.rounds.get(self.rounds.len() / 2..)?;
        let lasted = second.last()?.at - second.first()?.at;
        if lasted < LEAST_GROWTH_SECONDS || self.resident().is_none() {
            return None;
        }
        let points: Vec<(f64, f64)> = second
            .iter()
            .map(|round| (round.at, round.resident as f64))
            .collect();
        Trend::of(&points).map(|trend| trend.per_second)
    }
}

/// The shortest second half that growth is read from, seconds.
const LEAST_GROWTH_SECONDS: f64 = 30.0;

/// The figures of one round.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Round {
    /// Seconds since the first round began.
    pub at: f64,
    /// Responses a second.
    pub rate: f64,
    /// Median latency, microseconds.
    pub p50: f64,
    /// Latency 95 of 100 do not exceed, microseconds.
    pub p95: f64,
    /// Latency 99 of 100 do not exceed, microseconds.
    pub p99: f64,
    /// CPU time of the process for each response, microseconds; 0 where it is not known.
    pub cpu: f64,
    /// Bytes of a response's body, on average.
    pub bytes: f64,
    /// Resident memory of the process after it, bytes; 0 where it is not known.
    #[serde(default)]
    pub resident: u64,
}

/// A figure of a round.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// CPU time for each response.
    Cpu,
    /// Median latency.
    P50,
    /// 95th percentile of latency.
    P95,
    /// 99th percentile of latency.
    P99,
    /// Responses a second.
    Rate,
}

impl Metric {
    /// All of them, the steadiest first.
    pub const ALL: [Self; 5] = [Self::Cpu, Self::P50, Self::P95, Self::P99, Self::Rate];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "CPU µs/request",
            Self::P50 => "p50 ms",
            Self::P95 => "p95 ms",
            Self::P99 => "p99 ms",
            Self::Rate => "requests/s",
        }
    }

    /// Its value in a round.
    pub fn of(self, round: &Round) -> f64 {
        match self {
            Self::Cpu => round.cpu,
            Self::P50 => round.p50,
            Self::P95 => round.p95,
            Self::P99 => round.p99,
            Self::Rate => round.rate,
        }
    }

    /// Its values over a side's rounds.
    pub fn values(self, rounds: &[Round]) -> Vec<f64> {
        rounds.iter().map(|round| self.of(round)).collect()
    }

    /// What a verdict means for it.
    pub fn word(self, verdict: Verdict) -> &'static str {
        match (verdict, self) {
            (Verdict::NotShown, _) => "no difference shown",
            (Verdict::Less, Self::Rate) | (Verdict::More, Self::P50 | Self::P95 | Self::P99) => {
                "slower"
            }
            (Verdict::More, Self::Rate) | (Verdict::Less, Self::P50 | Self::P95 | Self::P99) => {
                "faster"
            }
            (Verdict::Less, Self::Cpu) => "cheaper",
            (Verdict::More, Self::Cpu) => "dearer",
        }
    }

    /// How many times worse the second is, as a ratio: above one is worse for every metric.
    pub fn worse(self, ratio: Ratio) -> Ratio {
        match self {
            Self::Rate => Ratio {
                estimate: 1.0 / ratio.estimate,
                low: 1.0 / ratio.high,
                high: 1.0 / ratio.low,
                confidence: ratio.confidence,
            },
            _ => ratio,
        }
    }

    /// A value as tables show it.
    pub fn shown(self, value: f64) -> String {
        match self {
            Self::Cpu if value == 0.0 => "–".to_owned(),
            Self::Cpu => format!("{value:.1}"),
            Self::Rate => format!("{value:.0}"),
            _ => format!("{:.3}", value / 1e3),
        }
    }
}

impl Report {
    /// Compares the second side with the first, where there are two.
    pub fn compare(&mut self) {
        let [first, second] = self.sides.as_slice() else {
            return;
        };
        for metric in Metric::ALL {
            let (a, b) = (metric.values(&first.rounds), metric.values(&second.rounds));
            if let Some(ratio) = paired(&a, &b) {
                self.ratios.insert(metric, ratio);
            }
        }
    }

    /// Sides of which nothing was served, each in a sentence: what follows is the cost of errors.
    pub fn failures(&self) -> Vec<String> {
        let failed = |(side, letter): (&SideReport, &str)| {
            let responses: u64 = side.statuses.values().sum();
            let served = |(status, _): (&u16, &u64)| (100..400).contains(status);
            if side.statuses.iter().any(served) || responses + side.errors == 0 {
                return None;
            }
            let statuses: Vec<String> = side.statuses.keys().map(u16::to_string).collect();
            Some(match responses {
                0 => format!(
                    "{letter} ANSWERED NOTHING: none of {} requests got a whole response",
                    side.errors
                ),
                _ => format!(
                    "{letter} ANSWERED WITH ERRORS ALONE: all {responses} responses are {}; the figures are the cost of those",
                    statuses.join(" or ")
                ),
            })
        };
        self.sides
            .iter()
            .zip(["A", "B"])
            .filter_map(failed)
            .collect()
    }

    /// The verdict in a sentence or two; for one side, its bottleneck. Before it, what makes it worthless.
    pub fn headline(&self) -> String {
        let mut lines = self.failures();
        for (metric, what) in [(Metric::Cpu, "CPU time"), (Metric::P50, "median latency")] {
            let Some(ratio) = self.ratios.get(&metric) else {
                continue;
            };
            let verdict = ratio.verdict();
            let interval = format!(
                "{:.0} % interval {:.2} to {:.2}",
                ratio.confidence * 100.0,
                ratio.low,
                ratio.high
            );
            lines.push(match verdict {
                Verdict::NotShown => format!(
                    "B and A: no difference in {what} shown ({:.2} ×, {interval})",
                    ratio.estimate
                ),
                _ => format!(
                    "B is {}: {:.2} × the {what} of A ({interval})",
                    metric.word(verdict),
                    ratio.estimate
                ),
            });
        }
        for (side, letter) in self.sides.iter().zip(["A", "B"]) {
            if let Some(sentence) = bottleneck(&side.filters) {
                lines.push(if self.sides.len() > 1 {
                    format!("{letter}: {sentence}")
                } else {
                    sentence
                });
            }
        }
        lines.join("\n")
    }

    /// What spoils a measurement, each in a sentence.
    pub fn warnings(&self) -> Vec<String> {
        let mut all = Vec::new();
        for (side, letter) in self.sides.iter().zip(["A", "B"]) {
            let responses: u64 = side.statuses.values().sum();
            let share = |count: u64| count as f64 / responses.max(1) as f64 * 100.0;
            for (status, count) in &side.statuses {
                if !(200..400).contains(status) {
                    let why = match status {
                        429 => " (a limiter refuses them: they cost less than what is served)",
                        404 => {
                            " (is the path right? without --upstream the built-in origin answers)"
                        }
                        500 => " (a filter's trap? `edgeweir run` logs it)",
                        502..=504 => " (the origin is not reached)",
                        _ => "",
                    };
                    all.push(format!(
                        "{letter}: {:.1} % of the responses are {status}{why}",
                        share(*count)
                    ));
                }
            }
            if side.errors > 0 {
                all.push(format!(
                    "{letter}: {} requests got no whole response",
                    side.errors
                ));
            }
            if side.unsent > 0 {
                all.push(format!(
                    "{letter}: {} requests were due and never sent: it does not keep up with the rate",
                    side.unsent
                ));
            }
            let traps: u64 = side.filters.iter().map(|filter| filter.traps).sum();
            if traps > 0 {
                all.push(format!("{letter}: {traps} traps"));
            }
        }
        all
    }

    /// For a terminal.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n\n", self.headline());
        let _ = writeln!(text, "{}; {}", self.load, self.machine);
        for (side, letter) in self.sides.iter().zip(["A", "B"]) {
            let _ = writeln!(text, "{letter}  {}", side.name);
        }
        text.push('\n');
        let mut rows = vec![vec![String::new()]];
        for (_, letter) in self.sides.iter().zip(["A", "B"]) {
            rows[0].push(letter.to_owned());
        }
        if !self.ratios.is_empty() {
            rows[0].extend(["B / A", "interval", "B is"].map(str::to_owned));
        }
        for metric in Metric::ALL {
            let mut row = vec![metric.name().to_owned()];
            for side in &self.sides {
                row.push(metric.shown(median(&metric.values(&side.rounds))));
            }
            if let Some(ratio) = self.ratios.get(&metric) {
                row.push(format!("{:.2}", ratio.estimate));
                row.push(format!("{:.2}–{:.2}", ratio.low, ratio.high));
                row.push(metric.word(ratio.verdict()).to_owned());
            }
            rows.push(row);
        }
        let mut bytes = vec!["bytes/response".to_owned()];
        for side in &self.sides {
            let all: Vec<f64> = side.rounds.iter().map(|round| round.bytes).collect();
            bytes.push(format!("{:.0}", median(&all)));
        }
        rows.push(bytes);
        let mut memory = |name: &str, of: &dyn Fn(&SideReport) -> Option<String>| {
            let shown: Vec<Option<String>> = self.sides.iter().map(of).collect();
            if shown.iter().any(Option::is_some) {
                let cells = shown.into_iter().map(|cell| cell.unwrap_or("–".to_owned()));
                rows.push(std::iter::once(name.to_owned()).chain(cells).collect());
            }
        };
        const MIB: f64 = 1_048_576.0;
        memory("resident MiB", &|side| {
            Some(format!("{:.0}", side.resident()? as f64 / MIB))
        });
        memory("grows MiB/hour", &|side| {
            Some(format!("{:+.1}", side.growth()? * 3_600.0 / MIB))
        });
        text.push_str(&aligned(&rows));
        for (side, letter) in self.sides.iter().zip(["A", "B"]) {
            if !side.filters.is_empty() {
                let _ = write!(
                    text,
                    "\n{letter}: time in filters\n{}",
                    filter_table(&side.filters)
                );
            }
        }
        for warning in self.warnings() {
            let _ = writeln!(text, "\nNote: {warning}");
        }
        text
    }
}

/// Callbacks with less of the time in filters than this are summed up.
const SMALL: f64 = 0.01;

fn filter_table(filters: &[FilterCost]) -> String {
    let head = [
        "filter",
        "callback",
        "calls",
        "µs/request",
        "mean µs",
        "p50",
        "p95",
        "p99",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let mut calls = filters.iter().flat_map(|filter| &filter.calls);
    let has_cpu = calls.any(|call| call.cpu_us > 0.0);
    if has_cpu {
        rows[0].push("CPU µs/request".to_owned());
    }
    let all: f64 = filters
        .iter()
        .flat_map(|filter| &filter.calls)
        .map(|call| call.total_us)
        .sum();
    for filter in filters {
        let exchanges = filter.exchanges.max(1) as f64;
        let (shown, small): (Vec<_>, Vec<_>) = filter
            .calls
            .iter()
            .partition(|call| call.total_us >= all * SMALL);
        let first = rows.len();
        for call in &shown {
            rows.push(vec![
                String::new(),
                call.callback.clone(),
                call.calls.to_string(),
                format!("{:.1}", call.total_us / exchanges),
                format!("{:.1}", call.mean_us),
                format!("{:.1}", call.p50_us),
                format!("{:.1}", call.p95_us),
                format!("{:.1}", call.p99_us),
            ]);
            if let Some(row) = rows.last_mut().filter(|_| has_cpu) {
                row.push(format!("{:.1}", call.cpu_us / exchanges));
            }
        }
        if !small.is_empty() {
            let total: f64 = small.iter().map(|call| call.total_us).sum();
            let calls: u64 = small.iter().map(|call| call.calls).sum();
            let per_request = format!("{:.1}", total / exchanges);
            rows.push(vec![
                String::new(),
                format!("({} others)", small.len()),
                calls.to_string(),
                per_request,
            ]);
        }
        if let Some(row) = rows.get_mut(first) {
            row[0].clone_from(&filter.name);
        }
    }
    aligned(&rows)
}

/// Pads every column to its widest cell: words (the first, and what is not a number) to the left, numbers to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|at| {
            rows.iter()
                .filter_map(|row| row.get(at))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let numeric: Vec<bool> = (0..columns)
        .map(|at| {
            let cells = rows.iter().skip(1).filter_map(|row| row.get(at));
            at > 0
                && cells.clone().count() > 0
                && cells
                    .clone()
                    .all(|cell| !cell.chars().any(char::is_alphabetic))
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (at, cell) in row.iter().enumerate() {
            let pad = " ".repeat(widths[at] - cell.chars().count());
            if at > 0 {
                line.push_str("  ");
            }
            if numeric[at] {
                line.push_str(&pad);
                line.push_str(cell);
            } else {
                line.push_str(cell);
                line.push_str(&pad);
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::cost::CallCost;

    pub(crate) fn side(name: &str, times: f64) -> SideReport {
        let rounds = (0..8)
            .map(|at| {
                let wobble = 1.0 + f64::from(at % 3) / 100.0;
                Round {
                    at: f64::from(at) * 2.0,
                    rate: 9_000.0 / times * wobble,
                    p50: 800.0 * times * wobble,
                    p95: 1_500.0 * times * wobble,
                    p99: 4_000.0 * wobble,
                    cpu: 70.0 * times * wobble,
                    bytes: 1_024.0,
                    resident: 0,
                }
            })
            .collect();
        let call = |callback: &str, us: f64| CallCost {
            callback: callback.to_owned(),
            calls: 1_000,
            mean_us: us,
            p50_us: us,
            p95_us: us * 2.0,
            p99_us: us * 4.0,
            total_us: us * 1_000.0,
            cpu_us: 0.0,
        };
        SideReport {
            name: name.to_owned(),
            rounds,
            latency: [0.0, 50.0, 90.0, 99.0, 99.9, 99.99]
                .iter()
                .zip([300.0, 800.0, 1_200.0, 4_000.0, 9_000.0, 20_000.0])
                .map(|(at, us)| (*at, us * times))
                .collect(),
            statuses: [(200, 1_000)].into(),
            errors: 0,
            unsent: 0,
            filters: vec![
                FilterCost {
                    name: "minify".to_owned(),
                    abi: "proxy-wasm".to_owned(),
                    exchanges: 1_000,
                    us_per_exchange: 44.0,
                    memory_peak: 1 << 20,
                    traps: 0,
                    calls: vec![
                        call("proxy_on_response_body", 42.0 * times),
                        call("proxy_on_log", 2.0),
                    ],
                },
                FilterCost {
                    name: "cache".to_owned(),
                    abi: "proxy-wasm".to_owned(),
                    exchanges: 1_000,
                    us_per_exchange: 20.0,
                    memory_peak: 1 << 20,
                    traps: 0,
                    calls: vec![call("proxy_on_request_headers", 20.0)],
                },
            ],
        }
    }

    pub(crate) fn report() -> Report {
        let mut report = Report {
            version: "0.1.0".to_owned(),
            machine: "a processor, 2 of them".to_owned(),
            load: "closed loop, 16 connections".to_owned(),
            sides: vec![side("a.toml", 1.0), side("b.toml", 1.25)],
            ratios: BTreeMap::new(),
        };
        report.compare();
        report
    }

    #[test]
    fn the_verdict_comes_first_and_has_its_interval() {
        let report = report();
        let text = report.text();
        assert!(
            text.starts_with("B is dearer: 1.25 × the CPU time of A (99 % interval 1.25 to 1.25)")
                || text.starts_with("B is dearer: 1.25 × the CPU time of A (95 % interval")
                || text.starts_with("B is dearer: 1.25 × the CPU time of A (96 % interval"),
            "{text}"
        );
        assert!(
            text.contains("B: minify takes 73 % of the time a request spends in filters"),
            "{text}"
        );
        let lines: Vec<&str> = text.lines().collect();
        let p99 = lines
            .iter()
            .find(|line| line.starts_with("p99"))
            .expect("a line");
        assert!(p99.ends_with("no difference shown"), "{p99}");
        let rate = lines
            .iter()
            .find(|line| line.starts_with("requests/s"))
            .expect("a line");
        assert!(rate.ends_with("slower"), "{rate}");
    }

    #[test]
    fn what_spoils_a_measurement_is_said() {
        let mut report = report();
        report.sides[0].statuses.insert(429, 1_000);
        report.sides[1].unsent = 3;
        let warnings = report.warnings();
        assert!(
            warnings[0].starts_with("A: 50.0 % of the responses are 429 (a limiter"),
            "{warnings:?}"
        );
        assert!(
            warnings[1].starts_with("B: 3 requests were due and never sent"),
            "{warnings:?}"
        );
    }

    #[test]
    fn cpu_time_has_a_column_where_it_was_measured() {
        let mut report = report();
        assert!(!report.text().contains("CPU µs/request\n"));
        report.sides[0].filters[0].calls[0].cpu_us = 41_500.0;
        let text = report.text();
        let mut lines = text
            .lines()
            .skip_while(|line| !line.ends_with("p99  CPU µs/request"));
        let row = lines.nth(1).unwrap_or_default();
        assert!(
            row.starts_with("minify") && row.ends_with(" 41.5"),
            "{text}"
        );
    }

    #[test]
    fn errors_alone_are_said_before_the_verdict() {
        let mut report = report();
        report.sides[0].statuses = [(400, 1_000)].into();
        report.sides[1].statuses.clear();
        report.sides[1].errors = 7;
        let text = report.text();
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        assert!(
            first.starts_with("A ANSWERED WITH ERRORS ALONE: all 1000 responses are 400"),
            "{text}"
        );
        assert_eq!(
            lines.next(),
            Some("B ANSWERED NOTHING: none of 7 requests got a whole response")
        );
        report.sides[0].statuses.insert(204, 1);
        report.sides[1].statuses.insert(304, 1);
        assert!(report.failures().is_empty());
    }

    #[test]
    fn growth_is_of_the_second_half_and_of_no_less_than_half_a_minute() {
        let mut report = report();
        let one = report.sides[0].rounds[0];
        let grown = |report: &mut Report, rounds: u32, every: f64| {
            // It fills up in the first half and grows by a MiB every ten seconds in the second.
            report.sides[0].rounds = (0..rounds)
                .map(|number| Round {
                    at: f64::from(number) * every,
                    resident: (100 << 20) + (u64::from(number.max(rounds / 2)) << 20),
                    ..one
                })
                .collect();
            report.sides[0].growth()
        };
        assert_eq!(grown(&mut report, 24, 2.0), None);
        assert_eq!(grown(&mut report, 8, 60.0), None);
        assert_eq!(grown(&mut report, 24, 10.0), Some(104_857.6));
        let text = report.text();
        let growth = text.lines().find(|line| line.starts_with("grows MiB/hour"));
        assert!(growth.is_some_and(|line| line.contains("+360.0")), "{text}");
    }

    #[test]
    fn above_one_is_worse_for_every_metric() {
        let ratio = Ratio {
            estimate: 0.5,
            low: 0.4,
            high: 0.8,
            confidence: 0.95,
        };
        let worse = Metric::Rate.worse(ratio);
        assert_eq!((worse.estimate, worse.low, worse.high), (2.0, 1.25, 2.5));
        assert_eq!(Metric::Cpu.worse(ratio), ratio);
    }
}
