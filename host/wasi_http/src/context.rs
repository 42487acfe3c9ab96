//! What a guest's store holds, and the limits on it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use edgeweir_host_chain::{Clock, Meter};
use wasmtime::component::{GuestTaskId, ResourceTable};
use wasmtime::{ResourceLimiter, StoreContextMut};
use wasmtime_wasi::{FsPerms, HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::component::Loaded;
use crate::exchange::Exchange;
use crate::hooks::Hooks;
use crate::instance::Instance;
use crate::output::{COUNTERS_ASKED, Output};

/// Resources of one instance; a request takes about ten.
const MAX_RESOURCES: usize = 16_384;
/// The largest single answer of `wasi:random`, bytes.
const MAX_RANDOM: u64 = 1 << 20;
/// Elements of one table.
const MAX_TABLE: usize = 1 << 20;
/// What `http::HeaderMap` costs per field line beside its bytes, as wasmtime-wasi-http counts it.
const FIELD_OVERHEAD: usize = 80;

/// What a call says that was made to fail.
pub(crate) const INJECTED: &str = "made to fail";

/// The time of a clock in place of the machine's.
struct Told(Arc<dyn Clock>);

impl HostWallClock for Told {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(1)
    }

    fn now(&self) -> Duration {
        let wall = self.0.wall().duration_since(SystemTime::UNIX_EPOCH);
        wall.unwrap_or_default()
    }
}

impl HostMonotonicClock for Told {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        u64::try_from(self.0.monotonic().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// The data of one store: one instance of one plugin.
pub(crate) struct Guest {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    pub(crate) table: ResourceTable,
    pub(crate) hooks: Hooks,
    pub(crate) limiter: Limiter,
    pub(crate) loaded: Arc<Loaded>,
    pub(crate) instance: Arc<Instance>,
    exchanges: HashMap<GuestTaskId, Arc<Exchange>>,
    host_calls: BTreeMap<&'static str, u64>,
}

impl Guest {
    pub(crate) fn new(loaded: Arc<Loaded>, instance: Arc<Instance>) -> Self {
        let plugin = &loaded.plugin;
        let mut wasi = WasiCtx::builder();
        let output = |stream| {
            let witness = loaded.world.witness.clone();
            Output::new(&plugin.name, stream, witness, loaded.meter.clone())
        };
        wasi.stdout(output("stdout"));
        wasi.stderr(output("stderr"));
        if let Some(clock) = &loaded.world.clock {
            wasi.wall_clock(Told(Arc::clone(clock)));
            wasi.monotonic_clock(Told(Arc::clone(clock)));
        } else {
            // A guest holds its counts for a moment, which a clock that is told may never reach.
            wasi.env(COUNTERS_ASKED, "1");
        }
        wasi.allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false);
        wasi.max_random_size(MAX_RANDOM);
        for (name, value) in &plugin.environment {
            wasi.env(name, value);
        }
        if let Some(files) = &plugin.files {
            let shown = wasi.preopened_dir(files.path(), "/", FsPerms::ReadOnly);
            if let Err(error) = shown {
                let folder = files.path().display();
                tracing::error!(%error, %folder, "the guest sees none of its files");
            }
        }
        let limits = &plugin.limits;
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(
            limits
                .header_bytes
                .saturating_add(limits.headers.saturating_mul(FIELD_OVERHEAD)),
        );
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_RESOURCES);
        Self {
            wasi: wasi.build(),
            http,
            table,
            hooks: Hooks::new(
                &plugin.allowed_outbound,
                loaded.world.clone(),
                loaded.runtime.client.clone(),
                loaded.meter.clone(),
                instance.clone(),
            ),
            limiter: Limiter {
                meter: loaded.meter.clone(),
                bound: limits.memory_bytes,
                used: 0,
            },
            loaded,
            instance,
            exchanges: HashMap::new(),
            host_calls: BTreeMap::new(),
        }
    }

    /// Ties a call of the guest's handler to its exchange. An entry stays until the task's number is used
    /// again or no task is left: a guest may call on after it has returned. Numbers are reused, so there are
    /// as many entries as there were tasks at once.
    pub(crate) fn begin(&mut self, task: GuestTaskId, exchange: Arc<Exchange>) {
        self.hooks.within = exchange.within();
        self.exchanges.insert(task, exchange);
    }

    /// Lets go of all exchanges, when no task of the guest is left: each holds the chain, and with it this layer.
    pub(crate) fn forget(&mut self) {
        self.exchanges.clear();
    }

    pub(crate) fn count(&mut self, host_call: &'static str) {
        *self.host_calls.entry(host_call).or_default() += 1;
    }

    /// Hands the counts of host calls to the meter.
    pub(crate) fn flush(&mut self) {
        if self.hooks.sent > 0 {
            *self.host_calls.entry("client.send").or_default() +=
                std::mem::take(&mut self.hooks.sent);
        }
        if !self.host_calls.is_empty() {
            self.loaded.meter.host_calls(&self.host_calls);
            self.host_calls.clear();
        }
    }

    /// Counts a host call; whether it is to fail.
    pub(crate) fn counted(&mut self, host_call: &'static str) -> Result<(), String> {
        self.count(host_call);
        match self.loaded.world.fault(host_call) {
            Some(_) => Err(INJECTED.to_owned()),
            None => Ok(()),
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.flush();
    }
}

/// The exchange the running guest code belongs to.
///
/// `None` for code outside of any handler call. wasi:http: "Hosts with this requirement must associate work
/// happening on the same component model task that the `handler` was originally invoked on with the same
/// incoming HTTP request." The last of the stack is that original call.
pub(crate) fn exchange_of(mut store: StoreContextMut<'_, Guest>) -> Option<Arc<Exchange>> {
    let task = store.async_call_stack().ok()?.last()?;
    store.data().exchanges.get(&task).cloned()
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            ctx: &mut self.http,
            table: &mut self.table,
            hooks: &mut self.hooks,
        }
    }
}

/// Bounds and meters the linear memories of one store together.
pub(crate) struct Limiter {
    meter: Arc<Meter>,
    bound: usize,
    used: usize,
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let after = self.used.saturating_sub(current).saturating_add(desired);
        if after > self.bound {
            return Ok(false);
        }
        self.meter.memory(self.used as u64, after as u64);
        self.used = after;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= MAX_TABLE)
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        self.meter.memory(self.used as u64, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn memories_of_a_store_share_one_bound() {
        let meter = Arc::new(Meter::default());
        let mut limiter = Limiter {
            meter: meter.clone(),
            bound: 300,
            used: 0,
        };
        for (name, current, desired, want) in [
            ("first memory", 0, 100, true),
            ("second memory", 0, 150, true),
            ("first grows to the bound", 100, 150, true),
            ("second grows past it", 150, 151, false),
        ] {
            assert_eq!(
                limiter.memory_growing(current, desired, None).ok(),
                Some(want),
                "{name}"
            );
        }
        assert_eq!(meter.memory_now.load(Ordering::Relaxed), 300);
        drop(limiter);
        assert_eq!(meter.memory_now.load(Ordering::Relaxed), 0);
        assert_eq!(meter.memory_peak.load(Ordering::Relaxed), 300);
    }
}
