//! The table and the JSON.

use serde_json::{Value, json};

use super::{Case, Options, Turn};

/// A case with its medians.
#[derive(Debug)]
pub struct Row {
    workload: &'static str,
    name: &'static str,
    bytes: usize,
    median: Turn,
    turns: Vec<Turn>,
    /// CPU per request in multiples of the plain Envoy's, of the same workload.
    to_plain: Option<f64>,
    /// The same, of Envoy's own filter.
    to_native: Option<f64>,
}

/// Medians and ratios.
pub fn rows(cases: &[Case], turns: &[Vec<Turn>], bytes: &[usize]) -> Vec<Row> {
    let medians: Vec<Turn> = turns.iter().map(|turns| median(turns)).collect();
    let find = |workload: &str, wanted: &dyn Fn(&Case) -> bool| {
        let at = cases
            .iter()
            .position(|case| case.workload == workload && wanted(case))?;
        Some(medians[at].cpu)
    };
    let rows = cases.iter().enumerate().map(|(at, case)| {
        let cpu = medians[at].cpu;
        let plain = find(case.workload, &Case::is_plain);
        let native = find(case.workload, &|case| case.native);
        Row {
            workload: case.workload,
            name: case.name,
            bytes: bytes[at],
            median: medians[at],
            turns: turns[at].clone(),
            to_plain: plain.map(|plain| cpu / plain),
            to_native: native.map(|native| cpu / native),
        }
    });
    rows.collect()
}

/// A Markdown table.
pub fn markdown(rows: &[Row], options: &Options) -> String {
    let mut table = format!(
        "Medians of {} rounds of {} s, {} connections, one worker; CPU is that of the proxy's process.\n\n\
         | workload | proxy | bytes | req/s | p50 ms | p99 ms | CPU µs/request | × plain | × its own |\n\
         |---|---|--:|--:|--:|--:|--:|--:|--:|\n",
        options.rounds, options.seconds, options.connections
    );
    for row in rows {
        let times = |ratio: Option<f64>| {
            ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"))
        };
        let (plain, native) = (times(row.to_plain), times(row.to_native));
        table.push_str(&format!(
            "| {} | {} | {} | {:.0} | {:.2} | {:.2} | {:.0} | {plain} | {native} |\n",
            row.workload,
            row.name,
            row.bytes,
            row.median.rate,
            row.median.p50 / 1e3,
            row.median.p99 / 1e3,
            row.median.cpu,
        ));
    }
    table
}

/// The same, with every turn.
pub fn json(rows: &[Row], options: &Options) -> Value {
    let cases: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "workload": row.workload,
                "proxy": row.name,
                "response_bytes": row.bytes,
                "requests_per_second": row.median.rate,
                "p50_us": row.median.p50,
                "p99_us": row.median.p99,
                "cpu_us_per_request": row.median.cpu,
                "cpu_to_plain_envoy": row.to_plain,
                "cpu_to_envoys_own": row.to_native,
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
