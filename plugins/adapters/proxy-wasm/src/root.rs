//! A configured filter in this VM, and the effects it may ask for.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use edgeweir_filter::{Answer, Chain, Effect, Failed, Filter, Level, Record, Timestamp};

use crate::callout;
use crate::cells::Cells;
use crate::hostcalls;
use crate::shared::{Expect, HostData, Reader, SharedData};
use crate::slots::Objects;

/// Format of everything in shared data: another number, other keys.
const FORMAT: &str = "v1";
const SWEEP_PERIOD: Duration = Duration::from_secs(1);
/// A whole round over the 64 sets takes 16 s.
const SETS_PER_SWEEP: u64 = 4;
const LEASE: Duration = Duration::from_secs(5);
/// How long the first piece of a body waits for the next one (see [`Flow`](crate::body::Flow)).
const RELEASE_MS: u32 = 10;

/// What came of performing an effect.
pub enum Performed {
    /// Its answer.
    Answer(Answer),
    /// A request was sent; its answer comes under this token.
    Call(u32),
    /// The answer is due then.
    At(Timestamp),
}

/// A configured filter.
pub struct Root {
    /// The filter.
    pub chain: Chain,
    /// Whether requests carry the client's address.
    pub wants_peer: bool,
    name: &'static str,
    objects: RefCell<Objects<HostData>>,
    cells: RefCell<Cells<HostData>>,
    metrics: RefCell<Vec<(&'static str, Option<u32>)>>,
    waits: RefCell<BTreeSet<(Timestamp, u32)>>,
    held: RefCell<Vec<u32>>,
    tick: Cell<u32>,
    /// This VM stored an object: expired ones are to be looked for.
    stored: Cell<bool>,
    swept: Cell<Timestamp>,
    /// Who this VM is, in the lease for sweeping.
    nonce: u64,
}

impl Root {
    /// A filter in the root context `id`; nothing is asked of the host yet.
    pub fn new(id: u32, name: &'static str, chain: Chain) -> Self {
        Self {
            wants_peer: chain.wants().peer,
            chain,
            name,
            objects: RefCell::new(Objects::new(
                HostData,
                format!("edgeweir/{name}/{FORMAT}/objects"),
            )),
            cells: RefCell::new(Cells::new(
                HostData,
                format!("edgeweir/{name}/{FORMAT}/cells"),
            )),
            metrics: RefCell::default(),
            waits: RefCell::default(),
            held: RefCell::default(),
            tick: Cell::new(0),
            stored: Cell::new(false),
            swept: Cell::new(Timestamp(0)),
            nonce: RandomState::new().hash_one(id),
        }
    }

    /// Writes a line to the host's log under the filter's name.
    pub fn log(&self, level: Level, line: &str) {
        log(self.name, level, line);
    }

    /// Logs the filter's notes, from one of the workers' VMs.
    pub fn announce(&self) {
        for note in self.chain.notes() {
            let hash = stable_hash(note.as_bytes());
            let key = format!("edgeweir/{}/{FORMAT}/note/{hash:x}", self.name);
            if HostData.set(key.as_bytes(), &[1], Expect::Absent) != Ok(false) {
                self.log(Level::Info, &note);
            }
        }
    }

    /// Publishes what a call left behind, and starts the effects nobody waits for.
    pub fn settle(&self, record: &mut Record, now: Timestamp) {
        for (level, line) in record.logs.drain(..) {
            self.log(level, &line);
        }
        for (name, by) in record.counts.drain(..) {
            self.count(name, by);
        }
        for effect in record.effects.drain(..) {
            let failed = match self.perform(effect, now) {
                Performed::Answer(
                    Answer::Loaded(Err(failed))
                    | Answer::Stored(Err(failed))
                    | Answer::Updated(Err(failed))
                    | Answer::Fetched(Err(failed)),
                ) => failed,
                _ => continue,
            };
            self.log(
                Level::Debug,
                &format!("a background effect failed: {}", failed.name()),
            );
        }
    }

    /// Performs an effect as far as that is possible at once.
    pub fn perform(&self, effect: Effect, now: Timestamp) -> Performed {
        // A pool is borrowed here only, and no hostcall comes back into this module.
        let objects = self
            .objects
            .try_borrow_mut()
            .map_err(|_| Failed::Unavailable);
        Performed::Answer(match effect {
            Effect::Load { key } => {
                Answer::Loaded(objects.and_then(|mut pool| pool.load(&key, now)))
            }
            Effect::Store { key, value, ttl } => {
                self.stored.set(true);
                Answer::Stored(objects.and_then(|mut pool| pool.store(&key, &value, ttl, now)))
            }
            Effect::Remove { key } => {
                Answer::Stored(objects.and_then(|mut pool| pool.remove(&key)))
            }
            Effect::Update { key, change, ttl } => {
                let cells = self.cells.try_borrow_mut().map_err(|_| Failed::Unavailable);
                Answer::Updated(cells.and_then(|mut cells| cells.update(&key, &change, ttl, now)))
            }
            Effect::Fetch(fetch) => match callout::send(&fetch) {
                Ok(token) => return Performed::Call(token),
                Err(failed) => {
                    self.log(
                        Level::Warn,
                        &format!("no request could be sent to {:?}", fetch.to),
                    );
                    Answer::Fetched(Err(failed))
                }
            },
            Effect::Wait { limit, .. } => return Performed::At(now.plus(limit)),
        })
    }

    fn count(&self, name: &'static str, by: u64) {
        let Ok(mut metrics) = self.metrics.try_borrow_mut() else {
            return;
        };
        let known = metrics
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, id)| *id);
        let id = match known {
            Some(id) => id,
            None => {
                let id = hostcalls::counter(&format!("edgeweir.{name}")).ok();
                metrics.push((name, id));
                id
            }
        };
        if let Some(id) = id {
            let _ = hostcalls::increment(id, by);
        }
    }

    /// Remembers that a stream is to be woken.
    pub fn wake_at(&self, time: Timestamp, stream: u32, now: Timestamp) {
        if let Ok(mut waits) = self.waits.try_borrow_mut() {
            waits.insert((time, stream));
        }
        self.schedule(now);
    }

    /// Remembers that a stream holds bytes back that the next tick is to let go; `false` when there are no ticks.
    pub fn hold(&self, stream: u32, now: Timestamp) -> bool {
        if let Ok(mut held) = self.held.try_borrow_mut() {
            held.push(stream);
        }
        self.schedule(now)
    }

    /// Streams whose wait is over.
    pub fn due(&self, now: Timestamp) -> Vec<u32> {
        let Ok(mut waits) = self.waits.try_borrow_mut() else {
            return Vec::new();
        };
        let later = waits.split_off(&(now.plus(Duration::from_nanos(1)), 0));
        std::mem::replace(&mut *waits, later)
            .into_iter()
            .map(|(_, stream)| stream)
            .collect()
    }

    /// Streams that hold bytes back.
    pub fn holding(&self) -> Vec<u32> {
        self.held
            .try_borrow_mut()
            .map(|mut held| std::mem::take(&mut *held))
            .unwrap_or_default()
    }

    /// Frees expired objects in a few sets, if this VM has the lease for it.
    pub fn sweep(&self, now: Timestamp) {
        if !self.stored.get() || now.since(self.swept.get()) < SWEEP_PERIOD {
            return;
        }
        self.swept.set(now);
        if self.has_lease(now) == Ok(true)
            && let Ok(mut objects) = self.objects.try_borrow_mut()
            && let Err(failed) = objects.sweep(SETS_PER_SWEEP, now)
        {
            self.log(
                Level::Debug,
                &format!("expired objects were not freed: {}", failed.name()),
            );
        }
    }

    fn has_lease(&self, now: Timestamp) -> Result<bool, Failed> {
        let key = format!("edgeweir/{}/{FORMAT}/sweeper", self.name);
        let expect = match HostData.get(key.as_bytes())? {
            None => Expect::Absent,
            Some((raw, version)) => {
                let mut reader = Reader(&raw);
                let (holder, until) = (reader.u64().unwrap_or(0), reader.u64().unwrap_or(0));
                if holder != self.nonce && until > now.0 {
                    return Ok(false);
                }
                Expect::Version(version)
            }
        };
        let lease = [self.nonce.to_le_bytes(), now.plus(LEASE).0.to_le_bytes()].concat();
        HostData.set(key.as_bytes(), &lease, expect)
    }

    /// Sets the tick to what is needed next; `false` when the host has none.
    pub fn schedule(&self, now: Timestamp) -> bool {
        let held = self.held.try_borrow().is_ok_and(|held| !held.is_empty());
        let wait = self
            .waits
            .try_borrow()
            .ok()
            .and_then(|waits| waits.first().map(|(time, _)| *time));
        let mut period = if self.stored.get() { 1000 } else { 0 };
        if let Some(time) = wait {
            // Rounded up: a tick that comes too early does nothing.
            let left =
                u32::try_from(time.since(now).as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX);
            period = left.clamp(1, 1000);
        }
        if held {
            period = if period == 0 {
                RELEASE_MS
            } else {
                period.min(RELEASE_MS)
            };
        }
        if period == self.tick.get() {
            return true;
        }
        let done = hostcalls::set_tick(period).is_ok();
        if done {
            self.tick.set(period);
        }
        done
    }
}

/// Writes a line to the host's log.
pub fn log(name: &str, level: Level, line: &str) {
    hostcalls::log(level, &format!("edgeweir {name}: {line}"));
}

/// A hash that is the same in every VM (FNV-1a); for nothing that an outsider chooses.
fn stable_hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
