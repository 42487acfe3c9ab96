//! A configured filter in this VM, and the effects it may ask for.

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::time::Duration;

use edgeweir_filter::{
    Answer, Chain, Cx, Effect, Emergency, Failed, Filter, Gate, Level, Record, Timestamp, To,
};

use crate::agenda::{Agenda, Pending, Ticket};
use crate::callout::{self, Call};
use crate::cells::Cells;
use crate::hostcalls;
use crate::shared::{Expect, HostData, Reader, SharedData};
use crate::slots::{Geometry, Objects};
use crate::tasks::{Cluster, Single, TASKS, Task};
use crate::vm;

/// Format of everything in shared data: another number, other keys.
const FORMAT: &str = "v2";
/// The shared value that holds the emergency level as a digit, for every module of this `vm_id`.
const EMERGENCY_KEY: &[u8] = b"edgeweir.emergency";
const EMERGENCY_READ: Duration = Duration::from_millis(100);
const SWEEP_PERIOD: Duration = Duration::from_secs(1);
const LEASE: Duration = Duration::from_secs(5);

/// What came of performing an effect.
pub enum Performed {
    /// Its answer.
    Answer(Answer),
    /// It comes later, for as long as this is kept.
    Pending(Pending),
}

/// A task that has begun, and the effect it waits for.
pub type Started = (Box<dyn edgeweir_filter::Task>, Effect);

/// A configured filter.
pub struct Root {
    /// The filter.
    pub chain: Chain,
    /// Whether requests carry the client's address.
    pub wants_peer: bool,
    /// The emergency level as last read, and when; nothing for a filter that does not want it.
    emergency: Option<Cell<(Emergency, Timestamp)>>,
    /// A request's field may raise that level.
    pub heeds_field: bool,
    /// Whether requests' heads are not read.
    pub blind_request: bool,
    /// Whether responses' heads are not read.
    pub blind_response: bool,
    /// Whether the filter learns how requests went.
    pub wants_route: bool,
    /// What it does at a time of its own.
    pub agenda: Rc<Agenda>,
    name: &'static str,
    /// Percent of the pool that the machine is to have back at each emergency level from 1.
    released: [u8; 3],
    objects: RefCell<Objects<HostData>>,
    /// A table for each kind of value a filter keeps.
    cells: RefCell<Vec<(&'static str, Cells<HostData>)>>,
    metrics: RefCell<Vec<(&'static str, Option<u32>)>>,
    fitted: Cell<bool>,
    /// This VM stored an object: expired ones are to be looked for.
    stored: Cell<bool>,
    swept: Cell<Timestamp>,
    /// Who this VM is, in the lease for sweeping.
    nonce: u64,
}

impl Root {
    /// A filter in the root context of `agenda`; nothing is asked of the host yet.
    pub fn new(agenda: Rc<Agenda>, name: &'static str, chain: Chain) -> Self {
        chain.routes_rewrite();
        let wants = chain.wants();
        Self {
            wants_peer: wants.peer,
            emergency: wants.emergency.then(Cell::default),
            heeds_field: wants.emergency && hostcalls::variable(Emergency::HEEDED),
            wants_route: wants.route,
            blind_request: wants.blind_request,
            blind_response: wants.blind_response,
            chain,
            name,
            released: wants.shared_released_percent,
            objects: RefCell::new(Objects::new(
                HostData,
                format!("edgeweir/{name}/{FORMAT}/objects"),
                Geometry::of(wants.shared_bytes),
            )),
            cells: RefCell::default(),
            metrics: RefCell::default(),
            fitted: Cell::new(false),
            stored: Cell::new(false),
            swept: Cell::new(Timestamp(0)),
            nonce: RandomState::new().hash_one(agenda.root()),
            agenda,
        }
    }

    /// Writes a line to the host's log under the filter's name.
    pub fn log(&self, level: Level, line: &str) {
        log(self.name, level, line);
    }

    /// How short the machine is of resources, as of at most 100 ms ago; `None` for a filter that does not want to know.
    pub fn emergency(&self, now: Timestamp) -> Option<Emergency> {
        let read = self.emergency.as_ref()?;
        let (known, at) = read.get();
        if at != Timestamp::default() && now.since(at) < EMERGENCY_READ {
            return Some(known);
        }
        let shared = hostcalls::shared(EMERGENCY_KEY).ok().flatten();
        let level = shared.and_then(|(value, _)| Emergency::parse(&value));
        let level = level.unwrap_or_default();
        read.set((level, now));
        Some(level)
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

    /// Publishes what a call left behind, does the effects nobody waits for, and runs the tasks it asked for as far as
    /// that is possible at once; what comes back are those that have to wait for something, with what that is.
    pub fn settle(&self, record: &mut Record, now: Timestamp) -> Vec<Started> {
        let mut waiting = Vec::new();
        self.publish(record, now);
        while !record.tasks.is_empty() {
            for mut steps in std::mem::take(&mut record.tasks) {
                let mut effect = steps.start(&mut Cx::new(now, record));
                self.publish(record, now);
                while let Some(next) = effect.take() {
                    if matches!(next, Effect::Fetch(_) | Effect::Wait { .. }) {
                        waiting.push((steps, next));
                        break;
                    }
                    let answer = self.perform_at_once(next, now);
                    effect = steps.answer(answer, &mut Cx::new(now, record));
                    self.publish(record, now);
                }
            }
        }
        waiting
    }

    fn publish(&self, record: &mut Record, now: Timestamp) {
        for (level, line) in record.logs.drain(..) {
            self.log(level, &line);
        }
        for (name, by) in record.counts.drain(..) {
            self.count(name, by);
        }
        for effect in record.effects.drain(..) {
            let answer = match effect {
                Effect::Fetch(_) => {
                    // In a context of its own: a stream's call ends with the stream.
                    record.tasks.push(Box::new(Single::of(effect)));
                    continue;
                }
                Effect::Wait { .. } => continue,
                effect => self.perform_at_once(effect, now),
            };
            if let Answer::Loaded(Err(failed))
            | Answer::Stored(Err(failed))
            | Answer::Updated(Err(failed)) = answer
            {
                self.log(
                    Level::Debug,
                    &format!("a background effect failed: {}", failed.name()),
                );
            }
        }
    }

    /// Takes over tasks that wait for something; they go on with the next tick.
    pub fn spawn(self: &Rc<Self>, tasks: Vec<Started>, onward: Option<Cluster>) {
        for (steps, first) in tasks {
            self.enqueue(steps, Some(first), onward.clone());
        }
    }

    fn enqueue(
        self: &Rc<Self>,
        steps: Box<dyn edgeweir_filter::Task>,
        first: Option<Effect>,
        onward: Option<Cluster>,
    ) {
        if self.agenda.tasks() >= TASKS {
            self.count("tasks_dropped", 1);
            return;
        }
        self.agenda.enqueue(Task {
            root: Rc::clone(self),
            steps,
            first,
            onward,
        });
    }

    /// Clears what a larger pool before left in the host, once. Not when a configuration is loaded: a host loads it in a machine
    /// of its own to try it, and may refuse it for what another filter of the chain says.
    pub fn fit(&self) {
        if self.fitted.replace(true) {
            return;
        }
        let objects = self.objects.try_borrow_mut();
        if let Ok(mut objects) = objects
            && let Err(failed) = objects.fit()
        {
            self.log(
                Level::Warn,
                &format!("the shared pool was not fitted: {}", failed.name()),
            );
        }
    }

    /// Takes over the filter's startup tasks.
    pub fn start(self: &Rc<Self>) {
        for steps in self.chain.startup() {
            self.enqueue(steps, None, None);
        }
    }

    /// Performs an effect for `ticket`, as far as that is possible at once; [`To::Onward`] is `onward`.
    pub fn perform(
        &self,
        effect: Effect,
        ticket: Ticket,
        onward: Option<&str>,
        now: Timestamp,
    ) -> Performed {
        Performed::Answer(match effect {
            Effect::Fetch(fetch) => {
                let cluster = match &fetch.to {
                    To::Onward => onward,
                    To::Named(cluster) => Some(cluster.as_str()),
                };
                let sent = match cluster {
                    Some(cluster) => callout::send(cluster, &fetch),
                    None => Err(Failed::Unsupported),
                };
                match sent {
                    Ok(token) => {
                        vm::await_call(
                            token,
                            Call {
                                agenda: Rc::clone(&self.agenda),
                                ticket,
                                sent: now,
                                timeout: fetch.timeout,
                            },
                        );
                        return Performed::Pending(Pending::call(&self.agenda, ticket, token));
                    }
                    Err(failed) => {
                        let to = cluster.unwrap_or("an unknown cluster");
                        self.log(Level::Warn, &format!("no request could be sent to {to:?}"));
                        Answer::Fetched(Err(failed))
                    }
                }
            }
            Effect::Wait { gate, limit } => {
                if limit.is_zero() || gate.as_ref().is_some_and(Gate::is_open) {
                    return Performed::Answer(Answer::Waited);
                }
                let pending = Pending::wait(&self.agenda, ticket, now.plus(limit), gate);
                self.agenda.schedule(now);
                return Performed::Pending(pending);
            }
            effect => self.perform_at_once(effect, now),
        })
    }

    fn perform_at_once(&self, effect: Effect, now: Timestamp) -> Answer {
        // A pool is borrowed here only, and no hostcall comes back into this module.
        let objects = self
            .objects
            .try_borrow_mut()
            .map_err(|_| Failed::Unavailable);
        match effect {
            Effect::Load { key } => {
                Answer::Loaded(objects.and_then(|mut pool| pool.load(&key, now)))
            }
            Effect::Store { key, value, ttl } => {
                self.stored.set(true);
                self.agenda.sweep_from_now_on(now);
                let used = self.used_percent(now);
                Answer::Stored(objects.and_then(|mut pool| {
                    pool.restrict(used);
                    pool.store(&key, &value, ttl, now)
                }))
            }
            Effect::Remove { key } => {
                Answer::Stored(objects.and_then(|mut pool| pool.remove(&key)).map(|()| 0))
            }
            Effect::Update {
                table,
                key,
                change,
                ttl,
            } => {
                let cells = self.cells.try_borrow_mut().map_err(|_| Failed::Unavailable);
                Answer::Updated(cells.and_then(|mut tables| {
                    self.table(&mut tables, table)
                        .ok_or(Failed::Unavailable)?
                        .update(&key, &change, ttl, now)
                }))
            }
            Effect::Fetch(_) => Answer::Fetched(Err(Failed::Unsupported)),
            Effect::Wait { .. } => Answer::Waited,
        }
    }

    fn table<'t>(
        &self,
        tables: &'t mut Vec<(&'static str, Cells<HostData>)>,
        name: &'static str,
    ) -> Option<&'t mut Cells<HostData>> {
        let known = tables.iter().position(|(known, _)| *known == name);
        let at = known.unwrap_or(tables.len());
        if known.is_none() {
            let prefix = format!("edgeweir/{}/{FORMAT}/{name}", self.name);
            tables.push((name, Cells::new(HostData, prefix)));
        }
        tables.get_mut(at).map(|(_, cells)| cells)
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

    /// Frees expired objects in a few sets, and what an emergency takes the room of, if this VM has the lease for it.
    pub fn sweep(&self, now: Timestamp) {
        if !self.stored.get() || now.since(self.swept.get()) < SWEEP_PERIOD {
            return;
        }
        self.swept.set(now);
        if self.has_lease(now) == Ok(true)
            && let Ok(mut objects) = self.objects.try_borrow_mut()
        {
            objects.restrict(self.used_percent(now));
            if let Err(failed) = objects.sweep(now) {
                self.log(
                    Level::Debug,
                    &format!("expired objects were not freed: {}", failed.name()),
                );
            }
        }
    }

    /// Percent of the pool that is used at the machine's emergency level.
    fn used_percent(&self, now: Timestamp) -> u8 {
        let emergency = self.emergency(now).unwrap_or_default();
        100u8.saturating_sub(emergency.of(self.released).unwrap_or(0))
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
