//! `/metrics`: the text format of Prometheus.

use std::collections::BTreeSet;
use std::fmt::{Display, Write};
use std::sync::atomic::Ordering::Relaxed;

use edgeweir_host_chain::MeterSnapshot;
use edgeweir_host_monitor::{Advice, Forecast, Level, Metric, Unit};

use super::process::Process;
use crate::host::State;
use crate::stats::BUCKETS_US;

/// Everything at this moment.
pub fn text(state: &State) -> String {
    let mut out = Exposition::default();
    filters(&mut out, state);
    listeners(&mut out, state);
    upstreams(&mut out, state);
    reloads(&mut out, state);
    process(&mut out, state);
    monitor(&mut out, state);
    out.text
}

#[derive(Default)]
struct Exposition {
    text: String,
}

impl Exposition {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            self.text.push(if index == 0 { '{' } else { ',' });
            let _ = write!(self.text, "{label}=\"{}\"", escaped(text));
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

/// A label's value: backslash, quote and line feed are the three that need it.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

fn filters(out: &mut Exposition, state: &State) {
    let snapshots: Vec<(&str, MeterSnapshot)> = state
        .filters
        .iter()
        .filter_map(|filter| Some((filter.name.as_str(), filter.layer.meter()?.snapshot())))
        .collect();
    out.family(
        "edgeweir_filter_info",
        "gauge",
        "Filters loaded, with their ABI and file.",
    );
    for filter in &state.filters {
        let file = filter.file.display().to_string();
        let labels = [
            ("filter", filter.name.as_str()),
            ("abi", filter.abi.name()),
            ("file", &file),
        ];
        out.sample("edgeweir_filter_info", &labels, 1);
    }
    type OfCall = fn(&edgeweir_host_chain::CallStat) -> String;
    let by_callback: [(&str, &str, &str, OfCall); 5] = [
        (
            "edgeweir_calls_total",
            "counter",
            "Calls of a filter's callback.",
            |stat| stat.calls.to_string(),
        ),
        (
            "edgeweir_call_seconds_total",
            "counter",
            "Wall time in a filter's callback.",
            |stat| seconds(stat.wall_ns),
        ),
        (
            "edgeweir_call_cpu_seconds_total",
            "counter",
            "CPU time in a filter's callback; 0 where limits.cpu_time is off.",
            |stat| seconds(stat.cpu_ns),
        ),
        (
            "edgeweir_call_seconds_max",
            "gauge",
            "The longest call of a filter's callback.",
            |stat| seconds(stat.max_ns),
        ),
        (
            "edgeweir_fuel_total",
            "counter",
            "Fuel (Wasm instructions) consumed; 0 where fuel is off.",
            |stat| stat.fuel.to_string(),
        ),
    ];
    for (name, kind, help, value) in by_callback {
        out.family(name, kind, help);
        for (filter, snapshot) in &snapshots {
            for (callback, stat) in &snapshot.calls {
                out.sample(
                    name,
                    &[("filter", filter), ("callback", callback)],
                    value(stat),
                );
            }
        }
    }
    out.family(
        "edgeweir_host_calls_total",
        "counter",
        "Calls of the host by a filter.",
    );
    for (filter, snapshot) in &snapshots {
        for (call, count) in &snapshot.host_calls {
            out.sample(
                "edgeweir_host_calls_total",
                &[("filter", filter), ("call", call)],
                count,
            );
        }
    }
    out.family(
        "edgeweir_plugin_counter",
        "untyped",
        "Metrics a filter defined itself.",
    );
    for (filter, snapshot) in &snapshots {
        for (name, value) in &snapshot.counters {
            out.sample(
                "edgeweir_plugin_counter",
                &[("filter", filter), ("name", name)],
                value,
            );
        }
    }
    type OfFilter = fn(&MeterSnapshot) -> u64;
    let by_filter: [(&str, &str, &str, OfFilter); 12] = [
        (
            "edgeweir_exchanges_total",
            "counter",
            "Exchanges a filter handled.",
            |it| it.exchanges,
        ),
        (
            "edgeweir_answered_total",
            "counter",
            "Exchanges a filter answered itself.",
            |it| it.answered,
        ),
        (
            "edgeweir_body_in_bytes_total",
            "counter",
            "Response body bytes into a filter.",
            |it| it.body_in,
        ),
        (
            "edgeweir_body_out_bytes_total",
            "counter",
            "Response body bytes out of a filter.",
            |it| it.body_out,
        ),
        (
            "edgeweir_bytes_copied_total",
            "counter",
            "Bytes copied between host and filter.",
            |it| it.bytes_copied,
        ),
        (
            "edgeweir_memory_bytes",
            "gauge",
            "Linear memory of a filter's instances.",
            |it| it.memory_now,
        ),
        (
            "edgeweir_memory_peak_bytes",
            "gauge",
            "The most linear memory of one instance.",
            |it| it.memory_peak,
        ),
        (
            "edgeweir_shared_bytes",
            "gauge",
            "Bytes a filter keeps in shared data or stores.",
            |it| it.shared_bytes,
        ),
        (
            "edgeweir_instances_total",
            "counter",
            "Instances made of a filter.",
            |it| it.instances,
        ),
        // The difference may fall, so it is none of the counters.
        (
            "edgeweir_saved_from_bytes_total",
            "counter",
            "Body bytes before what a filter does to make them fewer.",
            |it| crate::monitor::lengths(it).0,
        ),
        (
            "edgeweir_saved_to_bytes_total",
            "counter",
            "Body bytes after it: what edgeweir_saved_from_bytes_total has more is saved.",
            |it| crate::monitor::lengths(it).1,
        ),
        (
            "edgeweir_traps_total",
            "counter",
            "Traps in a filter.",
            |it| it.traps,
        ),
    ];
    for (name, kind, help, value) in by_filter {
        out.family(name, kind, help);
        for (filter, snapshot) in &snapshots {
            out.sample(name, &[("filter", filter)], value(snapshot));
        }
    }
    let name = "edgeweir_memory_limit_bytes";
    out.family(
        name,
        "gauge",
        "Linear memory one instance of a filter may have.",
    );
    for filter in &state.filters {
        out.sample(name, &[("filter", &filter.name)], filter.memory_limit);
    }
    let name = "edgeweir_call_seconds";
    let help = "Time of a filter's calls over the last minute, by quantile.";
    out.family(name, "gauge", help);
    for filter in &state.filters {
        let Some(percentiles) = state.watch.percentiles(&filter.name) else {
            continue;
        };
        for (quantile, us) in ["0.5", "0.95", "0.99"].iter().zip(percentiles) {
            let labels = [("filter", filter.name.as_str()), ("quantile", quantile)];
            out.sample(name, &labels, format!("{:.9}", us / 1e6));
        }
    }
}

fn listeners(out: &mut Exposition, state: &State) {
    out.family(
        "edgeweir_requests_total",
        "counter",
        "Exchanges ended, by class of status; none: the client left before an answer.",
    );
    for listener in &state.listeners {
        for (class, count) in ["none", "1xx", "2xx", "3xx", "4xx", "5xx"]
            .iter()
            .zip(&listener.stats.by_class)
        {
            let labels = [("listener", listener.name.as_str()), ("class", class)];
            out.sample("edgeweir_requests_total", &labels, count.load(Relaxed));
        }
    }
    let name = "edgeweir_request_seconds";
    out.family(
        name,
        "histogram",
        "From a request's head to the last byte of its response.",
    );
    for listener in &state.listeners {
        let mut sum = 0;
        let counts = listener.stats.histogram();
        let bounds = BUCKETS_US
            .iter()
            .map(|us| (*us as f64 / 1e6).to_string())
            .chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(&counts) {
            sum += count;
            let labels = [("listener", listener.name.as_str()), ("le", bound.as_str())];
            out.sample("edgeweir_request_seconds_bucket", &labels, sum);
        }
        let labels = [("listener", listener.name.as_str())];
        let total = listener.stats.total_us.load(Relaxed) as f64 / 1e6;
        out.sample("edgeweir_request_seconds_sum", &labels, total);
        out.sample("edgeweir_request_seconds_count", &labels, sum);
    }
    type OfListener = fn(&crate::stats::ListenerStats) -> u64;
    let by_listener: [(&str, &str, &str, OfListener); 8] = [
        (
            "edgeweir_limited_total",
            "counter",
            "Responses with status 429.",
            |it| it.limited.load(Relaxed),
        ),
        (
            "edgeweir_cache_lookups_total",
            "counter",
            "Responses for which the cache nearest the client was looked into, by their Cache-Status.",
            |it| it.looked_up.load(Relaxed),
        ),
        (
            "edgeweir_cache_hits_total",
            "counter",
            "Of edgeweir_cache_lookups_total, those that were reused.",
            |it| it.reused.load(Relaxed),
        ),
        (
            "edgeweir_in_flight",
            "gauge",
            "Exchanges in flight.",
            |it| it.in_flight.load(Relaxed),
        ),
        ("edgeweir_connections", "gauge", "Connections open.", |it| {
            it.connections.load(Relaxed)
        }),
        (
            "edgeweir_cut_total",
            "counter",
            "Responses that did not reach their end.",
            |it| it.cut.load(Relaxed),
        ),
        (
            "edgeweir_malformed_total",
            "counter",
            "Connections closed for a request that could be read in two ways, or in none, or for a malformed frame of HTTP/2.",
            |it| it.malformed.load(Relaxed),
        ),
        (
            "edgeweir_sent_bytes_total",
            "counter",
            "Response body bytes sent to clients.",
            |it| it.sent.load(Relaxed),
        ),
    ];
    for (name, kind, help, value) in by_listener {
        out.family(name, kind, help);
        for listener in &state.listeners {
            out.sample(
                name,
                &[("listener", &listener.name)],
                value(&listener.stats),
            );
        }
    }
}

fn upstreams(out: &mut Exposition, state: &State) {
    let all: Vec<_> = state.upstreams.values().map(|it| it.snapshot()).collect();
    out.family(
        "edgeweir_upstream_events_total",
        "counter",
        "What happened at an upstream, by name.",
    );
    for upstream in &all {
        for (event, count) in &upstream.counts {
            let labels = [("upstream", upstream.name.as_str()), ("event", event)];
            out.sample("edgeweir_upstream_events_total", &labels, count);
        }
    }
    type OfUpstream = fn(&edgeweir_host_upstream::Snapshot) -> usize;
    let by_upstream: [(&str, &str, OfUpstream); 2] = [
        (
            "edgeweir_upstream_requests",
            "Requests under way at an upstream.",
            |it| it.requests,
        ),
        (
            "edgeweir_upstream_waiting",
            "Requests that wait for room at an upstream.",
            |it| it.waiting,
        ),
    ];
    for (name, help, value) in by_upstream {
        out.family(name, "gauge", help);
        for upstream in &all {
            out.sample(name, &[("upstream", &upstream.name)], value(upstream));
        }
    }
    type OfEndpoint = fn(&edgeweir_host_upstream::EndpointSnapshot) -> u64;
    let by_endpoint: [(&str, &str, &str, OfEndpoint); 6] = [
        (
            "edgeweir_endpoint_in_flight",
            "gauge",
            "Requests in flight at an endpoint.",
            |it| it.in_flight as u64,
        ),
        (
            "edgeweir_endpoint_requests_total",
            "counter",
            "Requests sent to an endpoint.",
            |it| it.requests,
        ),
        (
            "edgeweir_endpoint_failures_total",
            "counter",
            "Requests to an endpoint that got no answer, or 502, 503 or 504.",
            |it| it.failures,
        ),
        (
            "edgeweir_endpoint_healthy",
            "gauge",
            "What probes say of an endpoint.",
            |it| u64::from(it.healthy),
        ),
        (
            "edgeweir_endpoint_ejected",
            "gauge",
            "Whether an endpoint is put aside for its failures.",
            |it| u64::from(it.ejected),
        ),
        (
            "edgeweir_endpoint_breaker_open",
            "gauge",
            "Whether an endpoint's breaker lets no request, or one only, through.",
            |it| u64::from(it.breaker != "closed"),
        ),
    ];
    for (name, kind, help, value) in by_endpoint {
        out.family(name, kind, help);
        for upstream in &all {
            for endpoint in &upstream.endpoints {
                let labels = [
                    ("upstream", upstream.name.as_str()),
                    ("endpoint", endpoint.address.as_str()),
                ];
                out.sample(name, &labels, value(endpoint));
            }
        }
    }
}

fn reloads(out: &mut Exposition, state: &State) {
    let reloads = &state.reloads;
    out.family(
        "edgeweir_reloads_total",
        "counter",
        "Reloads of the configuration.",
    );
    for (outcome, count) in [("taken", &reloads.good), ("refused", &reloads.bad)] {
        out.sample(
            "edgeweir_reloads_total",
            &[("outcome", outcome)],
            count.load(Relaxed),
        );
    }
    out.family(
        "edgeweir_last_reload_refused",
        "gauge",
        "Whether the last reload was refused: what was served before is served on.",
    );
    let refused = u64::from(reloads.last_error().is_some());
    out.sample("edgeweir_last_reload_refused", &[], refused);
    out.family(
        "edgeweir_generations",
        "gauge",
        "Generations of the configuration with exchanges in flight, the served one included.",
    );
    out.sample("edgeweir_generations", &[], reloads.alive());
}

fn process(out: &mut Exposition, state: &State) {
    let process = Process::now();
    for (name, kind, help, value) in [
        (
            "process_resident_memory_bytes",
            "gauge",
            "Resident memory.",
            process.resident.to_string(),
        ),
        (
            "process_virtual_memory_bytes",
            "gauge",
            "Virtual memory.",
            process.virtual_size.to_string(),
        ),
        (
            "process_cpu_seconds_total",
            "counter",
            "Processor time.",
            process.cpu_seconds.to_string(),
        ),
        (
            "process_threads",
            "gauge",
            "Threads.",
            process.threads.to_string(),
        ),
        (
            "process_open_fds",
            "gauge",
            "Open descriptors.",
            process.descriptors.to_string(),
        ),
        (
            "edgeweir_uptime_seconds",
            "gauge",
            "Time since the start.",
            format!("{:.3}", state.started.elapsed().as_secs_f64()),
        ),
    ] {
        out.family(name, kind, help);
        out.sample(name, &[], value);
    }
}

/// `edgeweir_monitor_` and a metric's name with its unit.
pub fn name_of(metric: Metric) -> String {
    let unit = match metric.unit() {
        Unit::Percent => "_percent",
        Unit::Bytes => "_bytes",
        Unit::BytesPerSecond => "_bytes_per_second",
        Unit::PerSecond => "_per_second",
        Unit::Milliseconds => "_milliseconds",
        Unit::Count => "",
    };
    format!("edgeweir_monitor_{}{unit}", metric.name())
}

fn monitor(out: &mut Exposition, state: &State) {
    let watch = &state.watch;
    watch.look(|monitor, sample, process| {
        for metric in Metric::ALL {
            let name = name_of(metric);
            out.family(&name, "gauge", metric.text());
            if let Some(value) = sample.get(metric) {
                out.sample(&name, &[], value);
            }
        }
        for (name, help, value) in [
            (
                "process_max_fds",
                "Descriptors the process may open.",
                process.descriptor_limit,
            ),
            (
                "edgeweir_memory_allowed_bytes",
                "Memory the process may have: the machine's, or less by its control group.",
                process.memory_limit,
            ),
            (
                "edgeweir_processors",
                "Processors the process may use.",
                u64::from(process.processors),
            ),
            (
                "edgeweir_emergency",
                "What filters are told: 0 (nothing is short) to 3.",
                u64::from(monitor.level().emergency()),
            ),
        ] {
            out.family(name, "gauge", help);
            out.sample(name, &[], value);
        }
        let name = "edgeweir_level";
        out.family(
            name,
            "gauge",
            "The level of saving: 1 for the one there is.",
        );
        for level in Level::ALL {
            let is = u8::from(level == monitor.level());
            out.sample(name, &[("level", level.name())], is);
        }
        let name = "edgeweir_alerts";
        out.family(name, "gauge", "Alarms that stand, by severity.");
        for (severity, count) in super::monitor::standing(monitor) {
            out.sample(name, &[("severity", severity.name())], count);
        }
        let name = "edgeweir_leak_bytes_per_second";
        let help = "Growth of a filter's memory under constant load, where there is any.";
        out.family(name, "gauge", help);
        for leak in monitor.leaks() {
            let labels = [
                ("filter", leak.filter.as_str()),
                ("memory", leak.kept.name()),
            ];
            out.sample(name, &labels, leak.per_second);
        }
        forecasts(out, monitor.forecasts());
        let name = "edgeweir_regression_percent";
        let help = "By how much something is worse than the baseline, where it is.";
        out.family(name, "gauge", help);
        for found in monitor.regressions() {
            let labels = [
                ("filter", found.filter.as_deref().unwrap_or("")),
                ("what", found.what),
            ];
            out.sample(name, &labels, format!("{:.1}", found.percent()));
        }
        advice(out, monitor.advice());
    });
    let name = "edgeweir_level_changes_total";
    out.family(
        name,
        "counter",
        "How often the level of saving became this one.",
    );
    for level in Level::ALL {
        out.sample(name, &[("level", level.name())], watch.changes(level));
    }
    let name = "edgeweir_alerts_total";
    out.family(name, "counter", "Alarms raised, by severity.");
    for severity in super::monitor::SEVERITIES {
        out.sample(
            name,
            &[("severity", severity.name())],
            watch.raised(severity),
        );
    }
}

/// Forecasts, the soonest first: of several thresholds of a metric with one severity, that one is said.
fn forecasts(out: &mut Exposition, all: &[Forecast]) {
    let name = "edgeweir_forecast_seconds";
    let help = "Time left until a threshold is crossed, where that can be foreseen.";
    out.family(name, "gauge", help);
    let mut said = BTreeSet::new();
    for forecast in all {
        let (metric, severity) = (forecast.metric.name(), forecast.severity.name());
        if said.insert((metric, severity)) {
            let labels = [("metric", metric), ("severity", severity)];
            out.sample(name, &labels, forecast.left.as_secs());
        }
    }
}

/// One line for a setting, however many reasons there are to change it.
fn advice(out: &mut Exposition, all: &[Advice]) {
    let name = "edgeweir_advice";
    let help = "Recommendations, by the setting they are about.";
    out.family(name, "gauge", help);
    let settings = all.iter().map(|it| it.setting.as_str());
    for setting in settings.collect::<BTreeSet<_>>() {
        out.sample(name, &[("setting", setting)], 1);
    }
}

fn seconds(ns: u64) -> String {
    format!("{:.9}", ns as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use edgeweir_host_monitor::{Severity, Trend};

    use super::*;

    #[test]
    fn a_series_is_said_once() {
        let points: Vec<_> = (0..100).map(|at| (f64::from(at), f64::from(at))).collect();
        let trend = Trend::of(&points).expect("a trend");
        let ahead = |at, severity, left| Forecast {
            metric: Metric::Connections,
            at,
            severity,
            left: Duration::from_secs(left),
            trend,
        };
        let mut out = Exposition::default();
        let all = [
            ahead(4e3, Severity::Warning, 1_856),
            ahead(5e3, Severity::Warning, 2_357),
            ahead(6e3, Severity::Critical, 3_000),
        ];
        forecasts(&mut out, &all);
        let about = |setting: &str, text: &str| Advice {
            setting: setting.to_owned(),
            text: text.to_owned(),
        };
        let two = ["few descriptors", "few connections"];
        advice(&mut out, &two.map(|why| about("limits.connections", why)));
        let said: Vec<&str> = out.text.lines().filter(|it| !it.starts_with('#')).collect();
        assert_eq!(
            said,
            [
                "edgeweir_forecast_seconds{metric=\"connections\",severity=\"warning\"} 1856",
                "edgeweir_forecast_seconds{metric=\"connections\",severity=\"critical\"} 3000",
                "edgeweir_advice{setting=\"limits.connections\"} 1",
            ]
        );
    }
}
