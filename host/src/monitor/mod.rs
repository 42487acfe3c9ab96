//! The host watches itself and its machine: a thread measures, the monitor decides, filters are told.

mod config;
mod seen;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use edgeweir_host_chain::Emergency;
use edgeweir_host_monitor::{
    Baseline, Bounds, Event, FilterSeen, Level, Mode, Monitor, Move, Probe, Process, SURVEY,
    Sample, Severity,
};

use crate::config::{Config, ConfigError};
use crate::host::{Live, State};

pub use config::{Alarm, Condition, Monitor as Settings, Mover, Setting};
pub use seen::{lengths, saved};

/// What watches one host.
pub struct Watch {
    /// Whether it does.
    pub enabled: bool,
    /// Time between samples.
    pub interval: Duration,
    /// Whether a request's own [`Emergency::FIELD`] counts.
    pub accept_field: bool,
    started: Instant,
    emergency: AtomicU8,
    changes: [AtomicU64; Level::ALL.len()],
    raised: [AtomicU64; 3],
    inner: Mutex<Inner>,
}

struct Inner {
    monitor: Monitor,
    probe: Probe,
    sample: Sample,
    filters: seen::Recent,
    /// `None` before the first survey.
    current: Option<Baseline>,
}

/// The thread that measures, until this is dropped.
pub struct Watching {
    stopped: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watch {
    /// What a configuration asks for.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        let settings = config.monitor.settings(config)?;
        let level = match settings.mode {
            Mode::Fixed(level) => level,
            Mode::Automatic => Level::Minimal,
        };
        let mut probe = Probe::new(&kept_in(config));
        let sample = probe.sample(Duration::ZERO, Default::default);
        Ok(Self {
            enabled: config.monitor.enabled,
            accept_field: config.monitor.accept_field,
            interval: config.monitor.interval_ms.millis(),
            started: Instant::now(),
            emergency: AtomicU8::new(level.emergency()),
            changes: Default::default(),
            raised: Default::default(),
            inner: Mutex::new(Inner {
                monitor: Monitor::new(settings),
                probe,
                sample,
                filters: seen::Recent::default(),
                current: None,
            }),
        })
    }

    /// What filters are told now.
    pub fn emergency(&self) -> Emergency {
        Emergency(self.emergency.load(Relaxed))
    }

    /// Time since it began: the clock of everything it says.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Looks at the monitor and the last sample. Keeps the sampler waiting: to be short.
    pub fn look<R>(&self, see: impl FnOnce(&Monitor, &Sample, Process) -> R) -> R {
        let inner = self.inner();
        see(&inner.monitor, &inner.sample, inner.probe.process())
    }

    /// What filters and host cost over the last minute, to be kept as a baseline; `None` until that has been looked at.
    pub fn current(&self) -> Option<Baseline> {
        self.inner().current.clone()
    }

    /// Time of calls of a filter over the last minute: half, 95 and 99 of a hundred, microseconds.
    pub fn percentiles(&self, filter: &str) -> Option<[f64; 3]> {
        self.inner().filters.percentiles(filter)
    }

    /// How often the level became this one.
    pub fn changes(&self, level: Level) -> u64 {
        self.changes[level as usize].load(Relaxed)
    }

    /// How many alarms of a severity were raised.
    pub fn raised(&self, severity: Severity) -> u64 {
        self.raised[severity as usize].load(Relaxed)
    }

    /// Sets the level, or gives it back to the rules.
    pub fn set(&self, setting: Setting) -> Level {
        let mut inner = self.inner();
        let moved = inner.monitor.set(setting.mode());
        if let Some(moved) = &moved {
            self.moved(moved);
        }
        inner.monitor.level()
    }

    /// Measures until the result is dropped, on a thread of its own: what keeps the others busy must not keep it from
    /// noticing.
    pub fn start(self: &Arc<Self>, live: &Live) -> Watching {
        let stopped = Arc::new(AtomicBool::new(!self.enabled));
        let (watch, host, stop) = (self.clone(), live.clone(), stopped.clone());
        let spawned = self.enabled.then(|| {
            std::thread::Builder::new()
                .name("monitor".into())
                .spawn(move || watch.run(&host, &stop))
        });
        let thread = match spawned {
            Some(Err(error)) => {
                tracing::warn!(%error, "nothing is watched: no thread could be started");
                None
            }
            Some(Ok(thread)) => Some(thread),
            None => None,
        };
        Watching { stopped, thread }
    }

    fn run(&self, host: &Live, stopped: &AtomicBool) {
        let mut surveyed = Duration::ZERO;
        let mut due = self.now();
        while !stopped.load(Relaxed) {
            let state = host.now();
            let now = self.now();
            self.sample(&state, now);
            if now.saturating_sub(surveyed) >= SURVEY {
                surveyed = now;
                self.survey(&state, now);
            }
            drop(state);
            // Missed samples are not made up for.
            due = (due + self.interval).max(self.now());
            while !stopped.load(Relaxed) {
                let left = due.saturating_sub(self.now());
                if left.is_zero() {
                    break;
                }
                std::thread::park_timeout(left);
            }
        }
    }

    fn sample(&self, state: &State, now: Duration) {
        let mut inner = self.inner();
        let inner = &mut *inner;
        let sample = inner.probe.sample(now, || seen::load(state));
        inner.sample = sample;
        let events = inner.monitor.observe(&sample, now);
        self.tell(&events);
        for loaded in &state.filters {
            loaded.layer.tell(self.emergency());
        }
    }

    fn survey(&self, state: &State, now: Duration) {
        let (mut filters, times): (Vec<FilterSeen>, Vec<_>) =
            state.filters.iter().map(seen::filter).unzip();
        let mut inner = self.inner();
        let inner = &mut *inner;
        inner.filters.add(&mut filters, times);
        let process = inner.probe.process();
        let ended = state.listeners.iter().map(|it| it.stats.requests()).sum();
        let cost = inner
            .filters
            .cpu_us_per_exchange(process.cpu_seconds, ended);
        let memory = process.resident as f64;
        let current = Baseline::of(env!("CARGO_PKG_VERSION"), memory, cost, &filters);
        let bounds = Bounds {
            connections: state.connections,
            fullest: seen::fullest(state),
            processors: process.processors,
            descriptors: process.descriptor_limit,
        };
        let events = inner.monitor.survey(&filters, bounds, &current, now);
        inner.current = Some(current);
        self.tell(&events);
    }

    fn tell(&self, events: &[Event]) {
        for event in events {
            match event {
                Event::Moved(moved) => self.moved(moved),
                Event::Raised { threshold, value } => {
                    self.raised[threshold.severity as usize].fetch_add(1, Relaxed);
                    let (bound, severity) = (threshold.bound, threshold.severity.name());
                    match threshold.severity {
                        Severity::Info => tracing::info!(severity, value, "{bound}"),
                        _ => tracing::warn!(severity, value, "{bound}"),
                    }
                }
                Event::Cleared { threshold, value } => {
                    tracing::info!(value, "no longer {}", threshold.bound);
                }
                Event::Leaking(leak) => {
                    self.raised[Severity::Warning as usize].fetch_add(1, Relaxed);
                    tracing::warn!(filter = leak.filter, "{leak}");
                }
                Event::Regressed(regression) => {
                    self.raised[Severity::Warning as usize].fetch_add(1, Relaxed);
                    tracing::warn!("{regression}");
                }
            }
        }
    }

    fn moved(&self, moved: &Move) {
        self.emergency.store(moved.to.emergency(), Relaxed);
        self.changes[moved.to as usize].fetch_add(1, Relaxed);
        tracing::warn!(
            from = moved.from.name(),
            to = moved.to.name(),
            emergency = moved.to.emergency(),
            "the level of saving changed: {}",
            moved.why
        );
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the host keeps what it keeps: the disk whose free space counts.
fn kept_in(config: &Config) -> PathBuf {
    let state = config.state.store.clone();
    let state = state.or_else(|| config.state.cache_dir.clone());
    let state = state.or_else(crate::load::user_cache);
    state.unwrap_or_else(|| PathBuf::from("."))
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.stopped.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}
