//! What an exchange took in each filter, from a host's own meters.

use serde_json::Value;

use super::Admin;

/// Time in a filter since it was loaded, nanoseconds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Spent {
    filter: String,
    wall: u64,
    /// 0 where it is not measured.
    cpu: u64,
}

/// What a host's filters took so far; nothing of an Envoy, whose filters are not timed.
pub(super) fn spent(admin: &Admin) -> Vec<Spent> {
    let stats = admin.stats().ok().flatten();
    stats.map(|stats| of(&stats)).unwrap_or_default()
}

fn of(stats: &Value) -> Vec<Spent> {
    let filters = stats["filters"].as_array().into_iter().flatten();
    filters
        .map(|filter| {
            let sum = |field: &str| {
                let calls = filter["calls"].as_array().into_iter().flatten();
                calls.filter_map(|call| call[field].as_u64()).sum()
            };
            Spent {
                filter: filter["name"].as_str().unwrap_or_default().to_owned(),
                wall: sum("wall_ns"),
                cpu: sum("cpu_ns"),
            }
        })
        .collect()
}

/// What was added between two looks, in a line; `None` where no filter ran.
pub(super) fn line(before: &[Spent], after: &[Spent]) -> Option<String> {
    let parts: Vec<String> = after
        .iter()
        .filter_map(|now| {
            let earlier = before.iter().find(|it| it.filter == now.filter);
            let (wall, cpu) = earlier.map_or((0, 0), |it| (it.wall, it.cpu));
            let wall = now.wall.saturating_sub(wall);
            let cpu = now.cpu.saturating_sub(cpu);
            let us = |ns: u64| ns as f64 / 1e3;
            match (wall, cpu) {
                (0, 0) => None,
                (wall, 0) => Some(format!("{} {:.1} µs", now.filter, us(wall))),
                (wall, cpu) => Some(format!(
                    "{} {:.1} µs (CPU {:.1})",
                    now.filter,
                    us(wall),
                    us(cpu)
                )),
            }
        })
        .collect();
    (!parts.is_empty()).then(|| format!("{:<13} {}", "time", parts.join(", ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_time_of_one_exchange_is_what_was_added() {
        let stats = |calls: u64| {
            let call =
                |wall: u64, cpu: u64| json!({ "wall_ns": wall * calls, "cpu_ns": cpu * calls });
            of(&json!({ "filters": [
                { "name": "cache", "calls": [call(2_000, 1_500), call(1_000, 500)] },
                { "name": "minify", "calls": [call(700, 0)] },
                { "name": "idle", "calls": [] },
            ] }))
        };
        assert_eq!(
            line(&stats(3), &stats(4)).as_deref(),
            Some("time          cache 3.0 µs (CPU 2.0), minify 0.7 µs")
        );
        assert_eq!(line(&stats(3), &stats(3)), None);
    }
}
