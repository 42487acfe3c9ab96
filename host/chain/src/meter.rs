//! What a layer cost: calls, time, fuel, memory, host calls and traps, by callback.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts of one plugin, shared by all its instances. Cheap enough to be always on.
#[derive(Default, Debug)]
pub struct Meter {
    calls: Mutex<BTreeMap<&'static str, CallStat>>,
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
    /// The longest call, nanoseconds.
    pub max_ns: u64,
    /// Fuel consumed; 0 where fuel is off.
    pub fuel: u64,
}

/// A copy of a [`Meter`] at one moment.
#[derive(Clone, Default, Debug)]
pub struct MeterSnapshot {
    /// By callback.
    pub calls: BTreeMap<&'static str, CallStat>,
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
        let stat = calls.entry(callback).or_default();
        stat.calls += 1;
        stat.wall_ns = stat.wall_ns.saturating_add(ns);
        stat.max_ns = stat.max_ns.max(ns);
        stat.fuel = stat.fuel.saturating_add(fuel);
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
        let mut counters = lock(&self.counters);
        match counters.get_mut(name) {
            Some(slot) => *slot = slot.saturating_add(value),
            None => {
                counters.insert(name.to_owned(), value);
            }
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
        MeterSnapshot {
            calls: lock(&self.calls).clone(),
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

/// A poisoned meter still counts: the panic that poisoned it was reported where it happened.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
