//! `/stats.json`: what the dashboard shows.

use std::sync::atomic::Ordering::Relaxed;
use std::time::UNIX_EPOCH;

use serde_json::{Value, json};

use super::process::Process;
use crate::host::{ListenerState, State};
use crate::load::Loaded;
use crate::stats::Ended;

/// Everything at this moment. Counts grow from the start; rates are of the last seconds.
pub fn json(state: &State) -> Value {
    let process = Process::now();
    let mut recent: Vec<(&str, Ended)> = state
        .listeners
        .iter()
        .flat_map(|listener| {
            listener
                .stats
                .recent()
                .into_iter()
                .map(|ended| (listener.name.as_str(), ended))
        })
        .collect();
    recent.sort_by_key(|(_, ended)| std::cmp::Reverse(ended.at));
    recent.truncate(crate::stats::RECENT);
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_s": state.started.elapsed().as_secs_f64(),
        "process": {
            "resident": process.resident,
            "cpu_s": process.cpu_seconds,
            "threads": process.threads,
            "descriptors": process.descriptors,
        },
        "monitor": super::monitor::json(state),
        "listeners": state.listeners.iter().map(listener).collect::<Vec<_>>(),
        "filters": state.filters.iter().map(|loaded| filter(state, loaded)).collect::<Vec<_>>(),
        "upstreams": state.upstreams.values().map(|it| upstream(&it.snapshot())).collect::<Vec<_>>(),
        "reloads": {
            "taken": state.reloads.good.load(Relaxed),
            "refused": state.reloads.bad.load(Relaxed),
            "last_error": state.reloads.last_error(),
            "generations": state.reloads.alive(),
        },
        "recent": recent.iter().map(|(name, ended)| exchange(name, ended)).collect::<Vec<_>>(),
    })
}

fn listener(listener: &ListenerState) -> Value {
    let stats = &listener.stats;
    let rate = stats.rate();
    let classes: Vec<u64> = stats
        .by_class
        .iter()
        .map(|count| count.load(Relaxed))
        .collect();
    json!({
        "name": listener.name,
        "tls": listener.secure,
        "address": listener.address.get().map(ToString::to_string),
        "upstream": listener.upstream,
        "filters": listener.filters,
        "requests": stats.requests(),
        "classes": classes,
        "limited": stats.limited.load(Relaxed),
        "looked_up": stats.looked_up.load(Relaxed),
        "reused": stats.reused.load(Relaxed),
        "in_flight": stats.in_flight.load(Relaxed),
        "connections": stats.connections.load(Relaxed),
        "cut": stats.cut.load(Relaxed),
        "sent": stats.sent.load(Relaxed),
        "per_second": rate.per_second,
        "percentiles_us": rate.percentiles.map(|all| all.map(|time| time.as_micros() as u64)),
    })
}

fn upstream(upstream: &edgeweir_host_upstream::Snapshot) -> Value {
    let endpoints: Vec<Value> = upstream
        .endpoints
        .iter()
        .map(|it| {
            json!({
                "address": it.address,
                "in_flight": it.in_flight,
                "requests": it.requests,
                "failures": it.failures,
                "breaker": it.breaker,
                "healthy": it.healthy,
                "ejected": it.ejected,
            })
        })
        .collect();
    let events: serde_json::Map<String, Value> = upstream
        .counts
        .iter()
        .map(|(event, count)| ((*event).to_owned(), Value::from(*count)))
        .collect();
    json!({
        "name": upstream.name,
        "requests": upstream.requests,
        "waiting": upstream.waiting,
        "events": events,
        "endpoints": endpoints,
    })
}

fn filter(state: &State, loaded: &Loaded) -> Value {
    let listeners: Vec<&str> = state
        .listeners
        .iter()
        .filter(|listener| listener.filters.contains(&loaded.name))
        .map(|listener| listener.name.as_str())
        .collect();
    let snapshot = loaded
        .layer
        .meter()
        .map(|meter| meter.snapshot())
        .unwrap_or_default();
    let calls: Vec<Value> = snapshot
        .calls
        .iter()
        .map(|(callback, stat)| {
            json!({
                "callback": callback,
                "calls": stat.calls,
                "wall_ns": stat.wall_ns,
                "cpu_ns": stat.cpu_ns,
                "max_ns": stat.max_ns,
                "fuel": stat.fuel,
                "times": snapshot.times.get(callback),
            })
        })
        .collect();
    json!({
        "name": loaded.name,
        "abi": loaded.abi.name(),
        "file": loaded.file.display().to_string(),
        "size": loaded.size,
        "listeners": listeners,
        "exchanges": snapshot.exchanges,
        "answered": snapshot.answered,
        "body_in": snapshot.body_in,
        "body_out": snapshot.body_out,
        "bytes_copied": snapshot.bytes_copied,
        "saved": crate::monitor::saved(&snapshot),
        "percentiles_us": state.watch.percentiles(&loaded.name),
        "memory_now": snapshot.memory_now,
        "memory_limit": loaded.memory_limit,
        "memory_peak": snapshot.memory_peak,
        "shared_bytes": snapshot.shared_bytes,
        "instances": snapshot.instances,
        "traps": snapshot.traps,
        "last_trap": snapshot.last_trap.map(|trap| json!({
            "callback": trap.callback,
            "message": trap.message,
        })),
        "calls": calls,
        "host_calls": snapshot.host_calls,
        "counters": snapshot.counters,
    })
}

fn exchange(listener: &str, ended: &Ended) -> Value {
    json!({
        "listener": listener,
        "at_ms": ended.at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64),
        "method": ended.method,
        "path": ended.path,
        "status": ended.status,
        "took_us": ended.took.as_micros() as u64,
        "cache_status": ended.cache_status,
        "rate_limit": ended.rate_limit,
        "content_encoding": ended.content_encoding,
        "bytes": ended.bytes,
        "cut": ended.cut,
    })
}
