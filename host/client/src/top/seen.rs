//! What `/stats.json` and `/history.json` say, as far as it is shown.

use std::collections::BTreeMap;

use serde_json::Value;

use super::past::Past;

/// The metrics whose past is shown.
pub const PLOTTED: [&str; 4] = ["requests", "latency_p99", "process_cpu", "memory_resident"];

/// What was seen of a host.
#[derive(Default)]
pub struct Seen {
    /// The newest page.
    pub now: Value,
    before: Value,
    past: BTreeMap<&'static str, Past>,
}

impl Seen {
    /// Takes a newer page.
    pub fn add(&mut self, stats: Value) {
        self.before = std::mem::replace(&mut self.now, stats);
        let (now, every) = (uptime(&self.now), self.every());
        for name in PLOTTED {
            let value = self.metric(name);
            let past = self.past.entry(name).or_default();
            match every {
                Some(every) => value
                    .into_iter()
                    .for_each(|it| past.add(now - every, now, it)),
                None => past.clear(),
            }
        }
    }

    /// Time between the newest page and the one before, seconds; `None` without one of the same host's life.
    fn every(&self) -> Option<f64> {
        let before = self.before["uptime_s"].as_f64()?;
        Some(uptime(&self.now) - before).filter(|every| *every > 0.0)
    }

    /// Takes what was before the first page: samples as far back as they are kept, before them steps.
    pub fn past(&mut self, history: &Value) {
        let now = uptime(&self.now);
        let step = history["step_s"].as_f64().unwrap_or(10.0);
        for name in PLOTTED {
            let kept = &history["metrics"][name];
            let (fine, coarse) = (points(&kept["fine"], now), points(&kept["coarse"], now));
            let past = self.past.entry(name).or_default();
            past.clear();
            let oldest = fine.first().map_or(now, |(at, _)| *at);
            for (at, value) in coarse.into_iter().filter(|(at, _)| *at <= oldest) {
                past.add(at - step, at, value);
            }
            // A sample stands for the time since the one before it, if that is not long ago: it was unknown between them.
            let mut before = oldest;
            for (at, value) in fine {
                past.add(before.max(at - LONGEST), at, value);
                before = at;
            }
        }
    }

    /// The newest value of a metric.
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.now["monitor"]["sample"][name].as_f64()
    }

    /// The last minutes of a metric in so many columns, oldest first, in thousandths; `None` for what is not known.
    pub fn columns(&self, name: &str, room: usize) -> Vec<Option<u64>> {
        let every = self.every().unwrap_or(0.0);
        let past = self.past.get(name);
        past.map_or_else(Vec::new, |it| it.columns(uptime(&self.now), every, room))
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

/// How long the host runs, seconds: the clock of a plot.
fn uptime(stats: &Value) -> f64 {
    stats["uptime_s"].as_f64().unwrap_or(0.0)
}

/// The longest that one sample stands for, seconds.
const LONGEST: f64 = 1.0;

/// When, and how much.
fn points(kept: &Value, now: f64) -> Vec<(f64, f64)> {
    let all = |name: &str| kept[name].as_array().into_iter().flatten();
    let pairs = all("ago").zip(all("value"));
    let pairs = pairs.filter_map(|(ago, value)| Some((now - ago.as_f64()?, value.as_f64()?)));
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_past_ends_where_it_ended_and_an_unknown_value_is_a_gap() {
        let page = |uptime: f64, p99: Value| {
            json!({
                "uptime_s": uptime,
                "monitor": { "sample": { "requests": 0.0, "latency_p99": p99 } },
            })
        };
        let ago: Vec<f64> = (20..60).rev().map(f64::from).collect();
        let history = json!({
            "step_s": 10,
            "metrics": { "latency_p99": {
                "fine": { "ago": ago, "value": vec![3.0; 40] },
                "coarse": { "ago": [65.0, 75.0, 30.0], "value": [5.0, 5.0, 5.0] },
            } },
        });
        let mut seen = Seen::default();
        seen.add(page(200.0, Value::Null));
        seen.past(&history);
        // Of 12 columns of 10 s the last two are of the time since the traffic ended.
        let shown = seen.columns("latency_p99", 12);
        let (three, five) = (Some(3_000), Some(5_000));
        assert_eq!(shown[4..7], [five, five, shown[6]]);
        assert_eq!(shown[7..], [three, three, three, None, None]);
        seen.add(page(201.0, Value::from(9.0)));
        assert_eq!(seen.columns("latency_p99", 12)[11], Some(9_000));
        // Another life of the host: nothing of the one before is shown.
        seen.add(page(1.0, Value::from(9.0)));
        assert_eq!(seen.columns("latency_p99", 12), vec![None; 12]);
    }
}
