//! What each filter and callback cost, from a host's own meters, and the bottleneck in a sentence.

use std::collections::BTreeMap;

use edgeweir_host_chain::distribution;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One filter over all rounds.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct FilterCost {
    /// Its name in the configuration.
    pub name: String,
    /// `proxy-wasm` or `wasi:http`.
    pub abi: String,
    /// Exchanges it saw.
    pub exchanges: u64,
    /// Time in it for each of them, microseconds.
    pub us_per_exchange: f64,
    /// The most linear memory one instance had, bytes.
    pub memory_peak: u64,
    /// Traps.
    pub traps: u64,
    /// By callback, the dearest first.
    pub calls: Vec<CallCost>,
}

/// One callback of a filter over all rounds.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CallCost {
    /// Its name.
    pub callback: String,
    /// Calls.
    pub calls: u64,
    /// Mean time, microseconds.
    pub mean_us: f64,
    /// Half of the calls took no longer, microseconds; 0 where the host keeps no distribution.
    pub p50_us: f64,
    /// 95 of 100.
    pub p95_us: f64,
    /// 99 of 100.
    pub p99_us: f64,
    /// All calls, microseconds.
    pub total_us: f64,
    /// All calls, CPU time in microseconds; 0 where it was not measured.
    #[serde(default)]
    pub cpu_us: f64,
}

/// What two copies of `/stats.json` say of the time between them. Filters no request reached are left out.
pub fn between(before: &Value, after: &Value) -> Vec<FilterCost> {
    let filters = after["filters"].as_array().into_iter().flatten();
    filters
        .filter_map(|filter| {
            let earlier = find(&before["filters"], "name", &filter["name"]);
            let exchanges = grown(filter, earlier, "exchanges");
            if exchanges == 0 {
                return None;
            }
            let mut calls: Vec<CallCost> = filter["calls"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|call| {
                    let earlier =
                        earlier.and_then(|it| find(&it["calls"], "callback", &call["callback"]));
                    call_cost(call, earlier)
                })
                .collect();
            calls.sort_by(|a, b| b.total_us.total_cmp(&a.total_us));
            let total: f64 = calls.iter().map(|call| call.total_us).sum();
            Some(FilterCost {
                name: text(&filter["name"]),
                abi: text(&filter["abi"]),
                exchanges,
                us_per_exchange: total / exchanges as f64,
                memory_peak: filter["memory_peak"].as_u64().unwrap_or_default(),
                traps: grown(filter, earlier, "traps"),
                calls,
            })
        })
        .collect()
}

/// "minify takes 61 % of the time a request spends in filters: …"; `None` when no filter ran.
pub fn bottleneck(filters: &[FilterCost]) -> Option<String> {
    let all: f64 = filters.iter().map(total).sum();
    let dearest = filters
        .iter()
        .max_by(|a, b| total(a).total_cmp(&total(b)))?;
    let call = dearest.calls.first()?;
    if all <= 0.0 {
        return None;
    }
    let exchanges = filters
        .iter()
        .map(|filter| filter.exchanges)
        .max()
        .unwrap_or(1)
        .max(1) as f64;
    let share = total(dearest) / all * 100.0;
    let (whole, part) = (total(dearest) / exchanges, call.total_us / exchanges);
    Some(if filters.len() == 1 {
        format!(
            "{} spends {whole:.1} µs on a request, {part:.1} µs of it in {} ({:.0} %)",
            dearest.name,
            call.callback,
            call.total_us / total(dearest) * 100.0
        )
    } else {
        format!(
            "{} takes {share:.0} % of the time a request spends in filters: {whole:.1} of {:.1} µs, {part:.1} µs of it in {}",
            dearest.name,
            all / exchanges,
            call.callback
        )
    })
}

fn total(filter: &FilterCost) -> f64 {
    filter.calls.iter().map(|call| call.total_us).sum()
}

fn call_cost(call: &Value, earlier: Option<&Value>) -> Option<CallCost> {
    let calls = grown(call, earlier, "calls");
    if calls == 0 {
        return None;
    }
    let total_us = grown(call, earlier, "wall_ns") as f64 / 1e3;
    let times = times_between(call, earlier);
    let at = |share: f64| percentile(&times, share) as f64 / 1e3;
    Some(CallCost {
        callback: text(&call["callback"]),
        calls,
        mean_us: total_us / calls as f64,
        p50_us: at(0.50),
        p95_us: at(0.95),
        p99_us: at(0.99),
        total_us,
        cpu_us: grown(call, earlier, "cpu_ns") as f64 / 1e3,
    })
}

/// The distribution of a callback's times: upper bound in nanoseconds to count.
fn times_between(call: &Value, earlier: Option<&Value>) -> BTreeMap<u64, u64> {
    let mut times = BTreeMap::new();
    let mut each = |value: &Value, take: bool| {
        for pair in value["times"].as_array().into_iter().flatten() {
            let (Some(bound), Some(count)) = (pair[0].as_u64(), pair[1].as_u64()) else {
                continue;
            };
            let slot = times.entry(bound).or_insert(0_u64);
            *slot = if take {
                slot.saturating_sub(count)
            } else {
                *slot + count
            };
        }
    };
    each(call, false);
    if let Some(earlier) = earlier {
        each(earlier, true);
    }
    times
}

/// 0 where nothing was counted.
fn percentile(times: &BTreeMap<u64, u64>, share: f64) -> u64 {
    let counted = times.iter().map(|(bound, count)| (*bound, *count));
    distribution::percentiles(counted, [share]).map_or(0, |[found]| found)
}

fn find<'v>(list: &'v Value, field: &str, wanted: &Value) -> Option<&'v Value> {
    list.as_array()?.iter().find(|it| it[field] == *wanted)
}

fn grown(now: &Value, earlier: Option<&Value>, field: &str) -> u64 {
    let before = earlier
        .and_then(|it| it[field].as_u64())
        .unwrap_or_default();
    now[field]
        .as_u64()
        .unwrap_or_default()
        .saturating_sub(before)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn stats(calls: u64) -> Value {
        let call = |name: &str, each: u64| {
            json!({
                "callback": name, "calls": calls, "wall_ns": calls * each, "cpu_ns": calls * each / 2, "max_ns": each,
                "times": [[each, calls * 9 / 10], [each * 8, calls / 10]],
            })
        };
        json!({ "filters": [
            { "name": "minify", "abi": "proxy-wasm", "exchanges": calls, "traps": 0, "memory_peak": 7,
              "calls": [call("proxy_on_request_headers", 2_000), call("proxy_on_response_body", 40_000)] },
            { "name": "cache", "abi": "proxy-wasm", "exchanges": calls, "traps": 0, "memory_peak": 7,
              "calls": [call("proxy_on_request_headers", 27_000)] },
            { "name": "idle", "abi": "proxy-wasm", "exchanges": 0, "calls": [] },
        ] })
    }

    #[test]
    fn what_was_before_does_not_count() {
        let costs = between(&stats(100), &stats(300));
        assert_eq!(costs.len(), 2);
        let body = &costs[0].calls[0];
        assert_eq!(
            (body.callback.as_str(), body.calls),
            ("proxy_on_response_body", 200)
        );
        assert_eq!(
            (body.mean_us, body.p50_us, body.p95_us),
            (40.0, 40.0, 320.0)
        );
        assert_eq!((body.total_us, body.cpu_us), (8_000.0, 4_000.0));
        assert_eq!(costs[0].us_per_exchange, 42.0);
    }

    #[test]
    fn the_bottleneck_has_a_name() {
        let costs = between(&stats(0), &stats(300));
        assert_eq!(
            bottleneck(&costs).as_deref(),
            Some(
                "minify takes 61 % of the time a request spends in filters: 42.0 of 69.0 µs, 40.0 µs of it in \
                 proxy_on_response_body"
            )
        );
        assert_eq!(
            bottleneck(&costs[..1]).as_deref(),
            Some(
                "minify spends 42.0 µs on a request, 40.0 µs of it in proxy_on_response_body (95 %)"
            )
        );
        assert_eq!(bottleneck(&[]), None);
    }
}
