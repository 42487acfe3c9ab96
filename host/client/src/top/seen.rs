//! What `/stats.json` and `/history.json` say, as far as it is shown.

use std::collections::{BTreeMap, VecDeque};

use serde_json::Value;

/// Points of a metric's past that are kept.
const PAST: usize = 240;
/// The metrics whose past is shown.
pub const PLOTTED: [&str; 4] = ["requests", "latency_p99", "process_cpu", "memory_resident"];

/// What was seen of a host.
#[derive(Default)]
pub struct Seen {
    /// The newest page.
    pub now: Value,
    before: Value,
    past: BTreeMap<&'static str, VecDeque<u64>>,
}

impl Seen {
    /// Takes a newer page.
    pub fn add(&mut self, stats: Value) {
        self.before = std::mem::replace(&mut self.now, stats);
        for name in PLOTTED {
            let value = self.metric(name).unwrap_or(0.0);
            let past = self.past.entry(name).or_default();
            past.push_back(scaled(value));
            if past.len() > PAST {
                past.pop_front();
            }
        }
    }

    /// Takes what was before the first page.
    pub fn past(&mut self, history: &Value) {
        for name in PLOTTED {
            let values = history["metrics"][name]["fine"]["value"].as_array();
            let values = values.into_iter().flatten().filter_map(Value::as_f64);
            let past = self.past.entry(name).or_default();
            let newer = std::mem::take(past);
            past.extend(values.map(scaled));
            past.extend(newer);
            while past.len() > PAST {
                past.pop_front();
            }
        }
    }

    /// The newest value of a metric.
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.now["monitor"]["sample"][name].as_f64()
    }

    /// The past of a metric, oldest first, in thousandths.
    pub fn points(&self, name: &str) -> Vec<u64> {
        let past = self.past.get(name);
        past.into_iter().flatten().copied().collect()
    }

    /// A list of the newest page.
    pub fn list(&self, name: &str) -> &[Value] {
        self.now[name].as_array().map_or(&[], Vec::as_slice)
    }

    /// Time in a filter's callbacks for an exchange, microseconds: since the page before, else since the start.
    pub fn cost(&self, filter: &Value) -> Option<f64> {
        let before = self.before["filters"].as_array();
        let before = before.and_then(|all| all.iter().find(|old| old["name"] == filter["name"]));
        let (busy, exchanges) = totals(filter);
        let (busy_then, exchanges_then) = before.map_or((0.0, 0.0), totals);
        if exchanges > exchanges_then {
            return Some((busy - busy_then) / (exchanges - exchanges_then) / 1e3);
        }
        (exchanges > 0.0).then(|| busy / exchanges / 1e3)
    }
}

fn totals(filter: &Value) -> (f64, f64) {
    let calls = filter["calls"].as_array().into_iter().flatten();
    let busy = calls.filter_map(|call| call["wall_ns"].as_f64()).sum();
    (busy, filter["exchanges"].as_f64().unwrap_or(0.0))
}

/// A sparkline counts in whole numbers.
fn scaled(value: f64) -> u64 {
    (value * 1e3).max(0.0) as u64
}
