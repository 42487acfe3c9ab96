//! What a layer cost: calls, time, fuel, memory, host calls and traps, by callback.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::{distribution, lock};

/// Counts of one plugin, shared by all its instances. Cheap enough to be always on.
#[derive(Default, Debug)]
pub struct Meter {
    calls: Mutex<BTreeMap<&'static str, (CallStat, Times)>>,
    host_calls: Mutex<BTreeMap<&'static str, u64>>,
    counters: Mutex<BTreeMap<String, u64>>,
    /// Bytes copied between the host and the guest's linear memory.
    pub bytes_copied: AtomicU64,
    /// Linear memory of all live instances, bytes.
    pub memory_now: AtomicU64,
    /// The most linear memory one instance has had, bytes.
    pub memory_peak: AtomicU64,
    /// Bytes the plugin keeps in shared data or in its stores.
    pub shared_bytes: AtomicU64,
    /// Instances made.
    pub instances: AtomicU64,
    /// Traps, each of which cost one request.
    pub traps: AtomicU64,
    /// Exchanges handled.
    pub exchanges: AtomicU64,
    /// Exchanges the layer answered itself, without the layers below.
    pub answered: AtomicU64,
    /// Response body bytes received from the layer below, and sent on.
    pub body_in: AtomicU64,
    /// Response body bytes sent to the layer above.
    pub body_out: AtomicU64,
    last_trap: Mutex<Option<Trap>>,
}

/// The last trap of a plugin, for logs and the dashboard.
#[derive(Clone, Debug)]
pub struct Trap {
    /// The callback it happened in.
    pub callback: &'static str,
    /// The message with the Wasm backtrace.
    pub message: String,
}

/// What one callback cost in all.
#[derive(Clone, Copy, Default, Debug)]
pub struct CallStat {
    /// Calls.
    pub calls: u64,
    /// Wall time, nanoseconds.
    pub wall_ns: u64,
    /// CPU time, nanoseconds; 0 where it is not measured.
    pub cpu_ns: u64,
    /// The longest call, nanoseconds.
    pub max_ns: u64,
    /// Fuel consumed; 0 where fuel is off.
    pub fuel: u64,
}

/// Steps of each power of two: a percentile is at most an eighth above the truth.
const STEPS: u64 = 8;
/// Up to 2^36 ns, a minute; longer times count as that.
const PLACES: usize = STEPS as usize * 34;

/// How the times of one callback are distributed.
#[derive(Clone, Debug)]
struct Times(Box<[u32; PLACES]>);

impl Default for Times {
    fn default() -> Self {
        Self(Box::new([0; PLACES]))
    }
}

impl Times {
    fn add(&mut self, ns: u64) {
        let place = distribution::place(ns, STEPS);
        let place = usize::try_from(place).unwrap_or(usize::MAX).min(PLACES - 1);
        self.0[place] = self.0[place].saturating_add(1);
    }

    fn counted(&self) -> Vec<(u64, u64)> {
        (0..)
            .zip(self.0.iter())
            .filter(|(_, count)| **count > 0)
            .map(|(place, count)| (distribution::bound(place, STEPS), u64::from(*count)))
            .collect()
    }
}

/// A copy of a [`Meter`] at one moment.
#[derive(Clone, Default, Debug)]
pub struct MeterSnapshot {
    /// By callback.
    pub calls: BTreeMap<&'static str, CallStat>,
    /// By callback, how its wall times are distributed: upper bounds in nanoseconds and counts, those that are not 0.
    pub times: BTreeMap<&'static str, Vec<(u64, u64)>>,
    /// Host calls by name.
    pub host_calls: BTreeMap<&'static str, u64>,
    /// Metrics the plugin defined itself, by name.
    pub counters: BTreeMap<String, u64>,
    /// See the fields of [`Meter`] of the same names.
    pub bytes_copied: u64,
    /// See [`Meter::memory_now`].
    pub memory_now: u64,
    /// See [`Meter::memory_peak`].
    pub memory_peak: u64,
    /// See [`Meter::shared_bytes`].
    pub shared_bytes: u64,
    /// See [`Meter::instances`].
    pub instances: u64,
    /// See [`Meter::traps`].
    pub traps: u64,
    /// See [`Meter::exchanges`].
    pub exchanges: u64,
    /// See [`Meter::answered`].
    pub answered: u64,
    /// See [`Meter::body_in`].
    pub body_in: u64,
    /// See [`Meter::body_out`].
    pub body_out: u64,
    /// The last trap.
    pub last_trap: Option<Trap>,
}

impl Meter {
    /// Counts one call of a callback.
    pub fn call(&self, callback: &'static str, wall: Duration, fuel: u64) {
        let ns = u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX);
        let mut calls = lock(&self.calls);
        let (stat, times) = calls.entry(callback).or_default();
        times.add(ns);
        stat.calls += 1;
        stat.wall_ns = stat.wall_ns.saturating_add(ns);
        stat.max_ns = stat.max_ns.max(ns);
        stat.fuel = stat.fuel.saturating_add(fuel);
    }

    /// Adds the CPU time of a call that was counted: see [`crate::thread_cpu`].
    pub fn cpu(&self, callback: &'static str, spent: Duration) {
        let ns = u64::try_from(spent.as_nanos()).unwrap_or(u64::MAX);
        let mut calls = lock(&self.calls);
        let (stat, _) = calls.entry(callback).or_default();
        stat.cpu_ns = stat.cpu_ns.saturating_add(ns);
    }

    /// Adds the host calls of one exchange; batched so that the lock is taken once.
    pub fn host_calls<'a>(&self, counts: impl IntoIterator<Item = (&'a &'static str, &'a u64)>) {
        let mut all = lock(&self.host_calls);
        for (name, count) in counts {
            *all.entry(name).or_default() += count;
        }
    }

    /// Sets a metric the plugin defined.
    pub fn set_counter(&self, name: &str, value: u64) {
        let mut counters = lock(&self.counters);
        match counters.get_mut(name) {
            Some(slot) => *slot = value,
            None => {
                counters.insert(name.to_owned(), value);
            }
        }
    }

    /// Adds to a metric the plugin defined.
    pub fn add_counter(&self, name: &str, value: u64) {
        self.add_counter_within(name, value, usize::MAX);
    }

    /// Adds to a metric, where it is there or fewer than `most` are.
    pub fn add_counter_within(&self, name: &str, value: u64, most: usize) {
        let mut counters = lock(&self.counters);
        if let Some(slot) = counters.get_mut(name) {
            *slot = slot.saturating_add(value);
        } else if counters.len() < most {
            counters.insert(name.to_owned(), value);
        }
    }

    /// Counts a trap and keeps its message.
    pub fn trap(&self, callback: &'static str, message: String) {
        self.traps.fetch_add(1, Ordering::Relaxed);
        *lock(&self.last_trap) = Some(Trap { callback, message });
    }

    /// Notes the linear memory of one instance that had `before` bytes.
    pub fn memory(&self, before: u64, after: u64) {
        if after >= before {
            self.memory_now.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.memory_now.fetch_sub(before - after, Ordering::Relaxed);
        }
        self.memory_peak.fetch_max(after, Ordering::Relaxed);
    }

    /// A copy of everything, for reports.
    pub fn snapshot(&self) -> MeterSnapshot {
        let (calls, times) = lock(&self.calls)
            .iter()
            .map(|(name, (stat, times))| ((*name, *stat), (*name, times.counted())))
            .unzip();
        MeterSnapshot {
            calls,
            times,
            host_calls: lock(&self.host_calls).clone(),
            counters: lock(&self.counters).clone(),
            bytes_copied: self.bytes_copied.load(Ordering::Relaxed),
            memory_now: self.memory_now.load(Ordering::Relaxed),
            memory_peak: self.memory_peak.load(Ordering::Relaxed),
            shared_bytes: self.shared_bytes.load(Ordering::Relaxed),
            instances: self.instances.load(Ordering::Relaxed),
            traps: self.traps.load(Ordering::Relaxed),
            exchanges: self.exchanges.load(Ordering::Relaxed),
            answered: self.answered.load(Ordering::Relaxed),
            body_in: self.body_in.load(Ordering::Relaxed),
            body_out: self.body_out.load(Ordering::Relaxed),
            last_trap: lock(&self.last_trap).clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_counted_close_below_its_bound() {
        for ns in (0..3_000).chain((3_000..60_000_000).step_by(7_919)) {
            let mut times = Times::default();
            times.add(ns);
            let counted = times.counted();
            assert_eq!(counted.len(), 1);
            let (bound, count) = counted[0];
            assert!(bound >= ns && bound - ns <= ns / 8, "{ns} below {bound}");
            assert_eq!(count, 1);
        }
        let mut times = Times::default();
        times.add(u64::MAX);
        assert_eq!(times.counted().len(), 1);
    }

    #[test]
    fn a_snapshot_has_what_was_counted() {
        let meter = Meter::default();
        meter.call("on_log", Duration::from_nanos(100), 0);
        meter.call("on_log", Duration::from_nanos(100), 0);
        meter.call("on_log", Duration::from_micros(9), 0);
        meter.cpu("on_log", Duration::from_nanos(50));
        meter.cpu("on_log", Duration::from_nanos(25));
        let snapshot = meter.snapshot();
        assert_eq!(snapshot.calls["on_log"].calls, 3);
        assert_eq!(snapshot.calls["on_log"].cpu_ns, 75);
        assert_eq!(snapshot.times["on_log"], [(103, 2), (9_215, 1)]);
    }
}
