//! From the host's counts to what the monitor knows.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering::Relaxed;

use edgeweir_host_chain::{MeterSnapshot, distribution};
use edgeweir_host_monitor::{EXCHANGES, FilterSeen, Load};

use crate::host::State;
use crate::load::Loaded;

/// Surveys over which recent costs are taken: a minute.
const SURVEYS: usize = 6;

/// What the listeners did so far.
pub fn load(state: &State) -> Load {
    let mut load = Load::default();
    for listener in &state.listeners {
        let stats = &listener.stats;
        add(&mut load, stats.wire.get());
        load.connections += stats.connections.load(Relaxed);
        load.in_flight += stats.in_flight.load(Relaxed);
        load.ended += stats.requests();
        load.failed += stats.by_class[5].load(Relaxed);
        load.limited += stats.limited.load(Relaxed);
        load.looked_up += stats.looked_up.load(Relaxed);
        load.reused += stats.reused.load(Relaxed);
        if let Some([p50, _, p99]) = stats.rate().percentiles {
            let us =
                |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
            let (slow, slowest) = load.latency_us.unwrap_or_default();
            load.latency_us = Some((slow.max(us(p50)), slowest.max(us(p99))));
        }
    }
    for upstream in state.upstreams.values() {
        add(&mut load, upstream.counts().wire.get());
    }
    for filter in &state.filters {
        if let Some(meter) = filter.layer.meter() {
            load.saved += saved(&meter.snapshot());
        }
    }
    load
}

/// Connections open at the listener that has the most.
pub fn fullest(state: &State) -> u64 {
    let open = state.listeners.iter();
    let open = open.map(|it| it.stats.connections.load(Relaxed));
    open.max().unwrap_or_default()
}

fn add(load: &mut Load, (received, sent): (u64, u64)) {
    load.received = load.received.saturating_add(received);
    load.sent = load.sent.saturating_add(sent);
}

/// Bytes a filter took off bodies, less those it added.
pub fn saved(seen: &MeterSnapshot) -> u64 {
    let (before, after) = lengths(seen);
    before.saturating_sub(after)
}

/// Bytes of bodies before and after what a filter does to make them shorter. Where it counts them itself, those; else what
/// went in and came out of one that answers nothing itself. Each only grows, or begins anew at nothing with the first answer.
pub fn lengths(seen: &MeterSnapshot) -> (u64, u64) {
    let sum = |direction: &str| -> Option<u64> {
        let suffixes = ["compress", "minify"].map(|it| format!("{it}.bytes_{direction}"));
        let counters = seen.counters.iter();
        let own = counters.filter(|(name, _)| suffixes.iter().any(|it| name.ends_with(it)));
        own.map(|(_, count)| *count).reduce(u64::saturating_add)
    };
    match (sum("in"), sum("out")) {
        (Some(before), Some(after)) => (before, after),
        _ if seen.answered == 0 => (seen.body_in, seen.body_out),
        _ => (0, 0),
    }
}

/// A filter as it is now, and the times of its calls.
pub fn filter(loaded: &Loaded) -> (FilterSeen, Times) {
    let seen = loaded.layer.meter().map(|meter| meter.snapshot());
    let seen = seen.unwrap_or_default();
    let mut times = Times::new();
    for (bound, count) in seen.times.values().flatten() {
        *times.entry(*bound).or_default() += count;
    }
    let filter = FilterSeen {
        name: loaded.name.clone(),
        exchanges: seen.exchanges,
        busy_ns: seen.calls.values().map(|call| call.wall_ns).sum(),
        memory: seen.memory_now,
        memory_limit: loaded.memory_limit,
        passes: loaded.passes,
        memory_peak: seen.memory_peak,
        shared: seen.shared_bytes,
        traps: seen.traps,
        recent: None,
        counters: seen.counters,
    };
    (filter, times)
}

/// What filters and host did at the last few surveys.
#[derive(Default)]
pub struct Recent {
    filters: BTreeMap<String, VecDeque<At>>,
    host: VecDeque<(f64, u64)>,
    percentiles: BTreeMap<String, [f64; 3]>,
}

/// Counts of calls by the longest time they took, nanoseconds; all callbacks together.
pub type Times = BTreeMap<u64, u64>;

struct At {
    exchanges: u64,
    busy_ns: u64,
    times: Times,
}

impl Recent {
    /// Adds what is now, and fills in what each filter did since the oldest survey that is kept.
    pub fn add(&mut self, filters: &mut [FilterSeen], times: Vec<Times>) {
        self.filters
            .retain(|name, _| filters.iter().any(|filter| filter.name == *name));
        self.percentiles.clear();
        for (filter, times) in filters.iter_mut().zip(times) {
            let past = self.filters.entry(filter.name.clone()).or_default();
            // Loaded anew: what was before is another's.
            if past
                .back()
                .is_some_and(|at| at.exchanges > filter.exchanges)
            {
                past.clear();
            }
            if let Some(oldest) = past.front()
                && let Some(ns) = percentiles(&times, &oldest.times, [0.50, 0.95, 0.99])
            {
                let us = ns.map(|ns| ns as f64 / 1e3);
                self.percentiles.insert(filter.name.clone(), us);
                filter.recent = Some(edgeweir_host_monitor::Recent {
                    exchanges: filter.exchanges.saturating_sub(oldest.exchanges),
                    busy_ns: filter.busy_ns.saturating_sub(oldest.busy_ns),
                    percentiles_us: us,
                });
            }
            if past.len() >= SURVEYS {
                past.pop_front();
            }
            past.push_back(At {
                exchanges: filter.exchanges,
                busy_ns: filter.busy_ns,
                times,
            });
        }
    }

    /// See [`super::Watch::percentiles`].
    pub fn percentiles(&self, filter: &str) -> Option<[f64; 3]> {
        self.percentiles.get(filter).copied()
    }

    /// Processor time of the process for an exchange since the oldest survey that is kept; 0 with fewer than [`EXCHANGES`],
    /// of which what the process does beside them would be the most.
    pub fn cpu_us_per_exchange(&mut self, cpu_seconds: f64, ended: u64) -> f64 {
        let oldest = self.host.front().copied();
        if self.host.len() >= SURVEYS {
            self.host.pop_front();
        }
        self.host.push_back((cpu_seconds, ended));
        let since = oldest.map(|(cpu, before)| (cpu, ended.saturating_sub(before)));
        match since {
            Some((cpu, exchanges)) if exchanges >= EXCHANGES => {
                (cpu_seconds - cpu) * 1e6 / exchanges as f64
            }
            _ => 0.0,
        }
    }
}

/// The times within which the given shares of calls ended, of those in `now` and not yet in `before`; `None` for none.
fn percentiles<const N: usize>(now: &Times, before: &Times, shares: [f64; N]) -> Option<[u64; N]> {
    let since = now.iter().map(|(bound, count)| {
        let old = before.get(bound).copied().unwrap_or(0);
        (*bound, count.saturating_sub(old))
    });
    distribution::percentiles(since, shares)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_exchanges_say_nothing_of_their_cost() {
        let mut recent = Recent::default();
        for (cpu, ended, want) in [
            (1.0, 10_000, 0.0),
            (1.5, 10_000 + EXCHANGES - 1, 0.0),
            (2.0, 10_000 + 2 * EXCHANGES, 1e6 / (2 * EXCHANGES) as f64),
        ] {
            assert_eq!(recent.cpu_us_per_exchange(cpu, ended), want, "{ended}");
        }
    }

    #[test]
    fn what_is_added_later_takes_nothing_off_the_lengths() {
        let counted = |before: u64, after: u64| MeterSnapshot {
            counters: [
                ("edgeweir.compress.bytes_in".to_owned(), before),
                ("edgeweir.compress.bytes_out".to_owned(), after),
            ]
            .into(),
            answered: 3,
            ..MeterSnapshot::default()
        };
        let (text, noise) = (counted(120_000, 569), counted(240_000, 122_783));
        assert_eq!((saved(&text), saved(&noise)), (119_431, 117_217));
        let (then, now) = (lengths(&text), lengths(&noise));
        assert!(then.0 <= now.0 && then.1 <= now.1, "{then:?} {now:?}");
        let plain = MeterSnapshot {
            body_in: 9,
            body_out: 4,
            ..MeterSnapshot::default()
        };
        assert_eq!((lengths(&plain), saved(&plain)), ((9, 4), 5));
    }

    #[test]
    fn only_calls_that_came_since_count() {
        let before = Times::from([(1_000_000, 7)]);
        assert_eq!(percentiles(&before, &before, [0.5]), None);
        let now = Times::from([(1_000, 99), (50_000, 1), (1_000_000, 7)]);
        let found = percentiles(&now, &before, [0.50, 0.99, 1.0]);
        assert_eq!(found, Some([1_000, 1_000, 50_000]));
    }
}
