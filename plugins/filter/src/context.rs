//! What a call is given besides its message, and what it leaves behind.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::{Effect, Task, Timestamp};

/// Severity of a log line.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// For development.
    Debug,
    /// Of interest.
    Info,
    /// The operator should look.
    Warn,
    /// Something is broken.
    Error,
}

/// What calls left behind, for the adapter to publish: counters, log lines, effects nobody waits for.
#[derive(Default)]
pub struct Record {
    /// Counter increments by name (`cache.hit`); an adapter prefixes them with `edgeweir.`.
    pub counts: Vec<(&'static str, u64)>,
    /// Log lines.
    pub logs: Vec<(Level, Cow<'static, str>)>,
    /// Effects without an answer, in order.
    pub effects: Vec<Effect>,
    /// Tasks to begin.
    pub tasks: Vec<Box<dyn Task>>,
    /// The body under way is not to end as if it were whole; see [`Cx::cut`].
    pub cut: Option<u16>,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("counts", &self.counts)
            .field("logs", &self.logs)
            .field("effects", &self.effects)
            .field("tasks", &self.tasks.len())
            .field("cut", &self.cut)
            .finish()
    }
}

/// The context of one call.
pub struct Cx<'a> {
    /// The time of the call.
    pub now: Timestamp,
    record: &'a mut Record,
    clock: Option<&'a dyn Fn() -> Timestamp>,
}

impl fmt::Debug for Cx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cx")
            .field("now", &self.now)
            .field("record", &self.record)
            .field("timed", &self.clock.is_some())
            .finish()
    }
}

impl<'a> Cx<'a> {
    /// A context at a time, leaving its traces in `record`.
    pub fn new(now: Timestamp, record: &'a mut Record) -> Self {
        Self {
            now,
            record,
            clock: None,
        }
    }
    /// With a clock for [`lap`](Self::lap): the one that gave `now`, or one that never goes back.
    #[must_use]
    pub fn timed(self, clock: &'a dyn Fn() -> Timestamp) -> Self {
        Self {
            clock: Some(clock),
            ..self
        }
    }
    /// The time since the call began; zero where the adapter gives no clock, or when that went back.
    ///
    /// It is for measuring what work costs, and for nothing that a response depends on. A reading costs 0.1 µs in Envoy.
    pub fn lap(&self) -> Duration {
        self.clock
            .map_or(Duration::ZERO, |clock| clock().since(self.now))
    }
    /// Counts one. Names are fixed at compile time, so that metrics stay bounded.
    pub fn count(&mut self, name: &'static str) {
        self.add(name, 1);
    }
    /// Adds to a counter.
    pub fn add(&mut self, name: &'static str, by: u64) {
        self.record.counts.push((name, by));
    }
    /// Writes a log line.
    pub fn log(&mut self, level: Level, line: impl Into<Cow<'static, str>>) {
        self.record.logs.push((level, line.into()));
    }
    /// Asks for an effect whose outcome does not matter to the exchange.
    pub fn detach(&mut self, effect: Effect) {
        self.record.effects.push(effect);
    }
    /// Gives up the body that this call is about: it must not end as if it were whole. Nothing more of it is shown.
    ///
    /// Where it is a request's and no response has begun, the client is answered `status` (400 to 599); else the message
    /// is broken off.
    pub fn cut(&mut self, status: u16) {
        self.record.cut = Some(status);
    }
    /// Whether the body of this call was given up.
    pub(crate) fn is_cut(&self) -> bool {
        self.record.cut.is_some()
    }
    /// Begins work that no exchange waits for, after this call.
    pub fn spawn(&mut self, task: impl Task + 'static) {
        self.record.tasks.push(Box::new(task));
    }
}
