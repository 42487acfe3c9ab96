//! One place of the pool: a virtual machine, its replacement after a trap, its ticks.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard, watch};
use wasmtime::InstancePre;

use crate::host::{Host, ROOT};
use crate::plugin::Common;
use crate::stream::Stream;
use crate::vm::{Trapped, Vm};

/// The first and the longest wait after a replacement that did not start.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// A virtual machine that is no more: it trapped, and with it all its streams.
#[derive(Debug)]
pub(crate) struct Gone;

/// One place of the pool.
pub(crate) struct Worker {
    pub(crate) common: Arc<Common>,
    pre: InstancePre<Host>,
    legacy: bool,
    slot: Mutex<Slot>,
    /// Streams on this worker, to choose the least busy one.
    pub(crate) streams: AtomicUsize,
    /// The tick period of the present machine.
    tick: watch::Sender<Tick>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Tick {
    generation: u64,
    period: Duration,
}

/// What the lock guards.
pub(crate) struct Slot {
    vm: Option<Vm>,
    generation: u64,
    /// Streams whose machine trapped, until their exchange fetches them: they hold what was buffered.
    orphans: HashMap<(u64, u32), Stream>,
    /// After a failed replacement: when to try again.
    retry: Option<(tokio::time::Instant, Duration)>,
}

impl Worker {
    /// Starts the first machine. Fails with the reason why it does not start.
    pub(crate) fn start(
        common: &Arc<Common>,
        pre: &InstancePre<Host>,
        legacy: bool,
    ) -> anyhow::Result<Arc<Worker>> {
        let (tick, ticks) = watch::channel(Tick {
            generation: 0,
            period: Duration::ZERO,
        });
        let slot = Slot {
            vm: None,
            generation: 1,
            orphans: HashMap::new(),
            retry: None,
        };
        let worker = Arc::new(Worker {
            common: Arc::clone(common),
            pre: pre.clone(),
            legacy,
            slot: Mutex::new(slot),
            streams: AtomicUsize::new(0),
            tick,
        });
        let vm = Vm::start(pre, common, Arc::downgrade(&worker), 1, legacy)?;
        // Nobody else has the worker yet.
        if let Ok(mut slot) = worker.slot.try_lock() {
            slot.vm = Some(vm);
        }
        tokio::spawn(drive_ticks(Arc::downgrade(&worker), ticks));
        Ok(worker)
    }

    /// Sets the tick period of a machine; zero stops it.
    pub(crate) fn set_tick(&self, generation: u64, period: Duration) {
        self.tick.send_if_modified(|tick| {
            let next = Tick { generation, period };
            let changed = generation >= tick.generation && *tick != next;
            if changed {
                *tick = next;
            }
            changed
        });
    }

    /// Begins something new on the machine, which is replaced first if it trapped. Returns its generation with the
    /// result.
    pub(crate) async fn begin<R>(
        self: &Arc<Self>,
        act: impl FnOnce(&mut Vm) -> Result<R, Trapped>,
    ) -> Result<(u64, R), Gone> {
        let mut slot = self.slot.lock().await;
        if slot.vm.is_none() {
            self.replace(&mut slot)?;
        }
        let generation = slot.generation;
        self.act(&mut slot, act).map(|result| (generation, result))
    }

    /// Goes on with something of a machine's generation.
    pub(crate) async fn enter<R>(
        &self,
        generation: u64,
        act: impl FnOnce(&mut Vm) -> Result<R, Trapped>,
    ) -> Result<R, Gone> {
        let mut slot = self.slot.lock().await;
        if slot.generation != generation {
            return Err(Gone);
        }
        self.act(&mut slot, act)
    }

    /// The same without waiting; `None` if the machine is in use.
    pub(crate) fn try_enter<R>(
        &self,
        generation: u64,
        act: impl FnOnce(&mut Vm) -> Result<R, Trapped>,
    ) -> Option<Result<R, Gone>> {
        let mut slot = self.slot.try_lock().ok()?;
        if slot.generation != generation {
            return Some(Err(Gone));
        }
        Some(self.act(&mut slot, act))
    }

    /// Looks at what a stream was when its machine trapped.
    pub(crate) async fn orphan<R>(
        &self,
        generation: u64,
        id: u32,
        look: impl FnOnce(&mut Stream) -> R,
    ) -> Option<R> {
        self.slot
            .lock()
            .await
            .orphans
            .get_mut(&(generation, id))
            .map(look)
    }

    /// Forgets a stream whose machine is gone.
    pub(crate) async fn forget(&self, generation: u64, id: u32) {
        self.slot.lock().await.orphans.remove(&(generation, id));
    }

    fn act<R>(
        &self,
        slot: &mut MutexGuard<'_, Slot>,
        act: impl FnOnce(&mut Vm) -> Result<R, Trapped>,
    ) -> Result<R, Gone> {
        let vm = slot.vm.as_mut().ok_or(Gone)?;
        let result = act(vm).and_then(|result| vm.tidy().map(|()| result));
        result.map_err(|trapped| {
            self.bury(slot, trapped);
            Gone
        })
    }

    /// Logs a trap, takes the machine down and tells its streams.
    fn bury(&self, slot: &mut Slot, trapped: Trapped) {
        let Trapped { callback, message } = trapped;
        tracing::error!(plugin = %self.common.name, callback, "trapped: {message}");
        self.common.meter.trap(callback, message);
        let Some(mut vm) = slot.vm.take() else { return };
        let host = vm.store.data_mut();
        host.flush();
        for (id, stream) in host.streams.drain() {
            let signal = Arc::clone(&stream.signal);
            if !stream.lingers {
                slot.orphans.insert((slot.generation, id), stream);
            }
            signal.all();
        }
        slot.generation += 1;
        self.set_tick(slot.generation, Duration::ZERO);
    }

    fn replace(self: &Arc<Self>, slot: &mut Slot) -> Result<(), Gone> {
        let now = tokio::time::Instant::now();
        let wait = match slot.retry {
            Some((at, _)) if now < at => return Err(Gone),
            Some((_, wait)) => (wait * 2).min(BACK_OFF.1),
            None => BACK_OFF.0,
        };
        match Vm::start(
            &self.pre,
            &self.common,
            Arc::downgrade(self),
            slot.generation,
            self.legacy,
        ) {
            Ok(vm) => {
                slot.vm = Some(vm);
                slot.retry = None;
                Ok(())
            }
            Err(error) => {
                let name = &self.common.name;
                tracing::error!(plugin = %name, "no fresh instance, next try in {wait:?}: {error:#}");
                slot.retry = Some((now + wait, wait));
                Err(Gone)
            }
        }
    }

    /// Says that a queue has something for a root context.
    pub(crate) async fn queue_ready(self: Arc<Self>, context: u32, queue: u32) {
        // A machine that trapped is not replaced for it: the item waits in the queue.
        let mut slot = self.slot.lock().await;
        let _ = self.act(&mut slot, |vm| {
            let ready = vm.exports.queue_ready.clone();
            vm.call(
                "proxy_on_queue_ready",
                ready.as_ref(),
                context,
                (context, queue),
            )
            .map(drop)
        });
    }
}

/// Calls `proxy_on_tick` at the period the plugin last asked for, until the worker is gone.
async fn drive_ticks(worker: Weak<Worker>, mut ticks: watch::Receiver<Tick>) {
    loop {
        let Tick { generation, period } = *ticks.borrow_and_update();
        if period.is_zero() {
            if ticks.changed().await.is_err() {
                return;
            }
            continue;
        }
        let mut interval = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                changed = ticks.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                _ = interval.tick() => {
                    let Some(worker) = worker.upgrade() else { return };
                    let ticked = worker.enter(generation, |vm| {
                        let tick = vm.exports.tick.clone();
                        vm.call("proxy_on_tick", tick.as_ref(), ROOT, ROOT).map(drop)?;
                        vm.store.data_mut().flush();
                        Ok(())
                    });
                    let _ = ticked.await;
                }
            }
        }
    }
}

/// Counts a stream on its worker while it lives.
pub(crate) struct Place(pub(crate) Arc<Worker>);

impl Place {
    /// Takes the least busy worker, beginning with `from` so that idle ones take turns.
    pub(crate) fn take(workers: &[Arc<Worker>], from: usize) -> Option<Place> {
        let count = workers.len();
        let turns = (0..count).filter_map(|step| workers.get((from + step) % count));
        let worker = turns.min_by_key(|worker| worker.streams.load(Ordering::Relaxed))?;
        worker.streams.fetch_add(1, Ordering::Relaxed);
        Some(Place(Arc::clone(worker)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}
