//! The table and the JSON.

use serde_json::{Value, json};

use super::cases::Reference;
use super::{Case, Options, Turn};

/// A case with its medians.
#[derive(Debug)]
pub struct Row {
    pub(super) workload: &'static str,
    pub(super) name: &'static str,
    /// Of the response's body.
    pub(super) bytes: usize,
    pub(super) median: Turn,
    turns: Vec<Turn>,
    /// CPU per request in multiples of each reference of the same workload, in the order of [`Reference::ALL`].
    times: [Option<f64>; Reference::ALL.len()],
}

/// Medians and ratios.
pub fn rows(cases: &[Case], turns: &[Vec<Turn>], bytes: &[usize]) -> Vec<Row> {
    let medians: Vec<Turn> = turns.iter().map(|turns| median(turns)).collect();
    let find = |workload: &str, wanted: Reference| {
        let at = cases
            .iter()
            .position(|case| case.workload == workload && case.reference == Some(wanted))?;
        Some(medians[at].cpu)
    };
    let rows = cases.iter().enumerate().map(|(at, case)| {
        let cpu = medians[at].cpu;
        Row {
            workload: case.workload,
            name: case.name,
            bytes: bytes[at],
            median: medians[at],
            turns: turns[at].clone(),
            times: Reference::ALL
                .map(|reference| find(case.workload, reference).map(|other| cpu / other)),
        }
    });
    rows.collect()
}

/// A Markdown table.
pub fn markdown(rows: &[Row], options: &Options) -> String {
    // A column for each reference that some workload has.
    let shown: Vec<usize> = (0..Reference::ALL.len())
        .filter(|&at| rows.iter().any(|row| row.times[at].is_some()))
        .collect();
    let mut table = format!(
        "Medians of {} rounds of {} s, {} connections, one worker; CPU is that of the proxy's process.\n\n\
         | workload | proxy | bytes | req/s | p50 ms | p99 ms | CPU µs/request |",
        options.rounds, options.seconds, options.connections
    );
    for &at in &shown {
        table.push_str(&format!(" × {} |", Reference::ALL[at].name()));
    }
    table.push_str("\n|---|---|--:|--:|--:|--:|--:|");
    table.push_str(&"--:|".repeat(shown.len()));
    table.push('\n');
    for row in rows {
        let times = |ratio: Option<f64>| match ratio {
            None => "–".to_owned(),
            Some(ratio) if ratio < 0.1 => format!("{ratio:.3}"),
            Some(ratio) => format!("{ratio:.2}"),
        };
        table.push_str(&format!(
            "| {} | {} | {} | {:.0} | {:.2} | {:.2} | {:.0} |",
            row.workload,
            row.name,
            row.bytes,
            row.median.rate,
            row.median.p50 / 1e3,
            row.median.p99 / 1e3,
            row.median.cpu,
        ));
        for &at in &shown {
            table.push_str(&format!(" {} |", times(row.times[at])));
        }
        table.push('\n');
    }
    table
}

/// The same, with every turn.
pub fn json(rows: &[Row], options: &Options) -> Value {
    let cases: Vec<Value> = rows
        .iter()
        .map(|row| {
            let times = Reference::ALL.iter().zip(row.times);
            let times: serde_json::Map<String, Value> = times
                .filter_map(|(reference, ratio)| Some((reference.name().to_owned(), ratio?.into())))
                .collect();
            json!({
                "workload": row.workload,
                "proxy": row.name,
                "response_bytes": row.bytes,
                "requests_per_second": row.median.rate,
                "p50_us": row.median.p50,
                "p99_us": row.median.p99,
                "cpu_us_per_request": row.median.cpu,
                "cpu_times": times,
                "rounds": row.turns.iter().map(|turn| json!({
                    "requests_per_second": turn.rate,
                    "p50_us": turn.p50,
                    "p99_us": turn.p99,
                    "cpu_us_per_request": turn.cpu,
                })).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "connections": options.connections,
        "cpus": std::thread::available_parallelism().map_or(0, usize::from),
        "cases": cases,
    })
}

/// Each figure's own median.
fn median(turns: &[Turn]) -> Turn {
    let of = |figure: fn(&Turn) -> f64| {
        let mut all: Vec<f64> = turns.iter().map(figure).collect();
        all.sort_by(f64::total_cmp);
        match all.len() {
            0 => 0.0,
            n if n % 2 == 1 => all[n / 2],
            n => (all[n / 2 - 1] + all[n / 2]) / 2.0,
        }
    };
    Turn {
        rate: of(|turn| turn.rate),
        p50: of(|turn| turn.p50),
        p99: of(|turn| turn.p99),
        cpu: of(|turn| turn.cpu),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_ignores_an_outlier() {
        let turn = |rate| Turn {
            rate,
            p50: 1.0,
            p99: 2.0,
            cpu: rate,
        };
        assert_eq!(median(&[turn(5.0), turn(900.0), turn(7.0)]).rate, 7.0);
        assert_eq!(median(&[turn(5.0), turn(7.0)]).rate, 6.0);
    }
}
