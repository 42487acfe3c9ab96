//! Ends callbacks at their deadlines, and remembers which of them take long.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use edgeweir_host_chain::lock;
use tokio::runtime::{Handle, RuntimeFlavor};
use wasmtime::SharedMemory;

/// From here on a callback is a slow one: it would hold up what else its thread has to do.
const PATIENCE: Duration = Duration::from_millis(10);
/// For how long it is remembered.
const MEMORY: Duration = Duration::from_mins(1);
/// [`Watch::until`] of a machine that was stopped.
const STOPPED: u64 = u64::MAX;

/// The machines whose callbacks have deadlines, looked at all few milliseconds.
pub(crate) struct Watchdog {
    began: Instant,
    watches: Mutex<Vec<Arc<Watch>>>,
}

impl Default for Watchdog {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            watches: Mutex::default(),
        }
    }
}

impl Watchdog {
    /// Watches a machine for as long as it has what is returned; its code looks whether the memory has grown
    /// ([`crate::checks`]).
    pub(crate) fn watch(&self, grows: SharedMemory) -> Arc<Watch> {
        let watch = Arc::new(Watch {
            began: self.began,
            until: AtomicU64::new(0),
            grows,
        });
        lock(&self.watches).push(Arc::clone(&watch));
        watch
    }

    /// Stops who is late, and forgets who is gone.
    pub(crate) fn look(&self) {
        let now = nanoseconds(self.began.elapsed());
        lock(&self.watches).retain(|watch| {
            watch.stop_if_late(now);
            Arc::strong_count(watch) > 1
        });
    }
}

/// One machine's deadline.
pub(crate) struct Watch {
    began: Instant,
    /// When the callback under way has to be over, nanoseconds; 0 where none is, [`STOPPED`] where it was stopped.
    until: AtomicU64,
    grows: SharedMemory,
}

impl Watch {
    /// A callback begins.
    pub(crate) fn begin(&self, deadline: Duration) {
        let until = nanoseconds(self.began.elapsed().saturating_add(deadline));
        self.until.store(until, Ordering::Release);
    }

    /// A callback is over. Returns whether it was stopped, and the machine with it.
    pub(crate) fn end(&self) -> bool {
        self.until.swap(0, Ordering::AcqRel) == STOPPED
    }

    /// Only the callback that was found late is stopped: the one after it has another time to be over at.
    fn stop_if_late(&self, now: u64) {
        let until = self.until.load(Ordering::Acquire);
        let late = until != 0 && until != STOPPED && until <= now;
        let stops = || {
            self.until
                .compare_exchange(until, STOPPED, Ordering::AcqRel, Ordering::Relaxed)
        };
        if late && stops().is_ok() {
            // It has one page and may have two: this cannot fail but for want of memory, and then the next look tries again.
            if self.grows.grow(1).is_err() {
                let _ = self.until.compare_exchange(
                    STOPPED,
                    until,
                    Ordering::AcqRel,
                    Ordering::Relaxed,
                );
            }
        }
    }
}

/// Beyond five hundred years it is the end of time, but for [`STOPPED`].
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(STOPPED - 1)
}

/// Which callbacks of a plugin took long lately.
#[derive(Default)]
pub(crate) struct Slow {
    any: AtomicBool,
    callbacks: Mutex<Vec<(&'static str, Instant)>>,
}

impl Slow {
    /// Takes note of what a callback took.
    pub(crate) fn note(&self, callback: &'static str, took: Duration) {
        if took < PATIENCE {
            return;
        }
        let mut callbacks = lock(&self.callbacks);
        callbacks.retain(|(name, _)| *name != callback);
        callbacks.push((callback, Instant::now()));
        self.any.store(true, Ordering::Relaxed);
    }

    /// Runs a callback; if it is a slow one the tasks that wait for this thread go to another first, so that they are not
    /// held up. Only slow callbacks pay for it: handing over costs more than most callbacks take.
    pub(crate) fn run<T>(&self, callback: &'static str, run: impl FnOnce() -> T) -> T {
        let slow = self.any.load(Ordering::Relaxed) && self.has(callback);
        let others = || {
            Handle::try_current().is_ok_and(|it| it.runtime_flavor() == RuntimeFlavor::MultiThread)
        };
        if slow && others() {
            return tokio::task::block_in_place(run);
        }
        run()
    }

    fn has(&self, callback: &'static str) -> bool {
        let mut callbacks = lock(&self.callbacks);
        callbacks.retain(|(_, at)| at.elapsed() < MEMORY);
        self.any.store(!callbacks.is_empty(), Ordering::Relaxed);
        callbacks.iter().any(|(name, _)| *name == callback)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> SharedMemory {
        let mut config = wasmtime::Config::new();
        config.shared_memory(true);
        let engine = wasmtime::Engine::new(&config).unwrap();
        SharedMemory::new(&engine, wasmtime::MemoryType::shared(1, 2)).unwrap()
    }

    #[test]
    fn who_is_late_is_stopped_and_nobody_else() {
        let dog = Watchdog::default();
        let (late, early, idle) = (
            dog.watch(memory()),
            dog.watch(memory()),
            dog.watch(memory()),
        );
        late.begin(Duration::ZERO);
        early.begin(Duration::from_secs(3_600));
        dog.look();
        dog.look();
        assert!(late.end() && !early.end() && !idle.end());
        let sizes = [&late, &early, &idle].map(|it| it.grows.size());
        assert_eq!(sizes, [2, 1, 1]);
    }

    #[test]
    fn who_was_found_late_but_is_over_stops_nobody() {
        let dog = Watchdog::default();
        let watch = dog.watch(memory());
        watch.begin(Duration::ZERO);
        let found = watch.until.load(Ordering::Acquire);
        assert!(!watch.end());
        watch.begin(Duration::from_secs(3_600));
        watch.stop_if_late(found);
        assert!(!watch.end());
        assert_eq!(watch.grows.size(), 1);
    }

    #[test]
    fn who_is_gone_is_forgotten() {
        let dog = Watchdog::default();
        drop(dog.watch(memory()));
        let kept = dog.watch(memory());
        dog.look();
        assert_eq!(lock(&dog.watches).len(), 1);
        drop(kept);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_slow_callback_gives_its_thread_away_and_another_does_not() {
        let slow = Arc::new(Slow::default());
        slow.note("slow", PATIENCE);
        slow.note("fast", PATIENCE / 2);
        for (name, given) in [("slow", true), ("fast", false)] {
            let slow = Arc::clone(&slow);
            // On the one thread for tasks: while that is taken nobody runs the other one.
            let running = tokio::spawn(async move {
                slow.run(name, || {
                    let (told, heard) = std::sync::mpsc::channel();
                    tokio::spawn(async move { told.send(()) });
                    heard.recv_timeout(Duration::from_millis(300)).is_ok()
                })
            });
            assert_eq!(running.await.unwrap(), given, "{name}");
        }
    }
}
