//! What each filter cost, as an aligned table for a terminal.

use std::fmt::Write;
use std::time::Duration;

use edgeweir_host_chain::MeterSnapshot;
use edgeweir_host_monitor::{Unit, shown};

use crate::host::State;

/// Host calls named per filter; the rest are in `/metrics`.
const TOP_CALLS: usize = 3;

const HEADINGS: [&str; 10] = [
    "plugin",
    "callback",
    "calls",
    "mean µs",
    "max µs",
    "fuel/call",
    "memory now / most of one",
    "copied",
    "traps",
    "host calls",
];

/// The table of a host: one row per plugin and callback, and one line per listener.
pub fn table(state: &State) -> String {
    let mut rows: Vec<Vec<String>> = vec![HEADINGS.map(str::to_owned).to_vec()];
    for filter in &state.filters {
        let Some(meter) = filter.layer.meter() else {
            continue;
        };
        rows.extend(rows_of(&filter.name, &meter.snapshot()));
    }
    let mut text = String::new();
    for listener in &state.listeners {
        let stats = &listener.stats;
        let requests = stats.requests();
        let mean = stats.total_us.load(std::sync::atomic::Ordering::Relaxed) / requests.max(1);
        let _ = writeln!(
            text,
            "{}: {requests} requests, mean {} ms, {} cut short",
            listener.name,
            mean as f64 / 1_000.0,
            stats.cut.load(std::sync::atomic::Ordering::Relaxed),
        );
    }
    if rows.len() > 1 {
        text.push('\n');
        text.push_str(&aligned(&rows));
    }
    text
}

fn rows_of(name: &str, snapshot: &MeterSnapshot) -> Vec<Vec<String>> {
    let mut calls: Vec<_> = snapshot.host_calls.iter().collect();
    calls.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let top: Vec<_> = calls
        .iter()
        .take(TOP_CALLS)
        .map(|(call, count)| format!("{call} {count}"))
        .collect();
    let memory = format!(
        "{} / {}",
        bytes(snapshot.memory_now),
        bytes(snapshot.memory_peak)
    );
    let whole = [
        memory,
        bytes(snapshot.bytes_copied),
        snapshot.traps.to_string(),
        top.join(", "),
    ];
    if snapshot.calls.is_empty() {
        let mut row = vec![name.to_owned(), "(not called)".to_owned()];
        row.extend(std::iter::repeat_n(String::new(), 4));
        row.extend(whole);
        return vec![row];
    }
    let mut rows = Vec::new();
    for (index, (callback, stat)) in snapshot.calls.iter().enumerate() {
        let first = index == 0;
        let mean = Duration::from_nanos(stat.wall_ns / stat.calls.max(1));
        let mut row = vec![
            if first {
                name.to_owned()
            } else {
                String::new()
            },
            (*callback).to_owned(),
            stat.calls.to_string(),
            micros(mean),
            micros(Duration::from_nanos(stat.max_ns)),
            match stat.fuel / stat.calls.max(1) {
                0 => "off".to_owned(),
                fuel => fuel.to_string(),
            },
        ];
        if first {
            row.extend(whole.iter().cloned());
        } else {
            row.extend(std::iter::repeat_n(String::new(), whole.len()));
        }
        rows.push(row);
    }
    rows
}

/// Pads every column to its widest cell; numbers to the right, names to the left.
fn aligned(rows: &[Vec<String>]) -> String {
    let mut widths = [0; HEADINGS.len()];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            let pad = " ".repeat(width - cell.chars().count());
            let left = column < 2 || column == HEADINGS.len() - 1;
            if column > 0 {
                line.push_str("  ");
            }
            if left {
                line.push_str(cell);
                line.push_str(&pad);
            } else {
                line.push_str(&pad);
                line.push_str(cell);
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn micros(time: Duration) -> String {
    format!("{:.1}", time.as_nanos() as f64 / 1_000.0)
}

/// A size as people read it, in powers of 1,024.
pub fn bytes(count: u64) -> String {
    shown(Unit::Bytes, count as f64)
}

#[cfg(test)]
mod tests {
    use edgeweir_host_chain::Meter;

    use super::*;

    #[test]
    fn a_row_per_callback_and_columns_that_line_up() {
        let meter = Meter::default();
        meter.call("on_request_headers", Duration::from_micros(10), 0);
        meter.call("on_request_headers", Duration::from_micros(30), 0);
        meter.call("on_log", Duration::from_nanos(1_500), 700);
        meter.host_calls([(&"proxy_log", &3), (&"proxy_get_property", &9)]);
        meter.memory(0, 2 * 1_048_576);
        let mut rows = vec![HEADINGS.map(str::to_owned).to_vec()];
        rows.extend(rows_of("limit", &meter.snapshot()));
        let text = aligned(&rows);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[1].starts_with("limit   on_log"), "{text}");
        assert!(lines[1].contains("2.0 MiB / 2.0 MiB"), "{text}");
        assert!(
            lines[1].contains("proxy_get_property 9, proxy_log 3"),
            "{text}"
        );
        assert!(
            lines[2].contains("20.0") && lines[2].contains("30.0"),
            "{text}"
        );
        let column = |line: &str, word: &str| line.find(word).map(|at| line[..at].chars().count());
        assert_eq!(column(lines[0], "callback"), column(lines[2], "on_request"));
    }
}
