//! What a root context does at a time of its own: waits that end, gates that opened, bodies held back, tasks.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use edgeweir_filter::{Gate, Timestamp};

use crate::hostcalls;
use crate::tasks::{Begun, Task};
use crate::vm;
use crate::vm::AT_ONCE;

/// How long the first piece of a body waits for the next one (see [`Flow`](crate::body::Flow)).
const RELEASE_MS: u32 = 10;
/// The period for what is to happen at once, but not inside the callback that asked for it.
const SOON_MS: u32 = 1;

/// Who waits for an answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Waiter {
    /// A stream's context.
    Stream(u32),
    /// A task of the root context.
    Task(u32),
}

/// One wait of a waiter: an answer that comes for an earlier one is nobody's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Ticket {
    /// Whose.
    pub waiter: Waiter,
    /// Which of the waiter's waits.
    pub number: u32,
}

/// The agenda of one root context; it outlives a change of its configuration.
pub struct Agenda {
    root: u32,
    waits: RefCell<BTreeSet<(Timestamp, Ticket)>>,
    /// Waits whose gate opened.
    woken: RefCell<VecDeque<Ticket>>,
    held: RefCell<Vec<u32>>,
    ready: RefCell<VecDeque<Task>>,
    begun: RefCell<HashMap<u32, Begun>>,
    last_task: Cell<u32>,
    /// Asks for a tick every second, whatever else there is.
    sweeps: Cell<bool>,
    tick: Cell<u32>,
    /// How many waits may still be ended before the next tick.
    turns: Cell<u32>,
}

/// What an answer is waited for with; dropped, nothing is waited for any more.
pub struct Pending {
    agenda: Rc<Agenda>,
    /// What the answer must come for.
    pub ticket: Ticket,
    due: Option<Timestamp>,
    call: Option<u32>,
}

impl Pending {
    /// The answer to a call, under this token.
    pub fn call(agenda: &Rc<Agenda>, ticket: Ticket, token: u32) -> Self {
        Self {
            agenda: Rc::clone(agenda),
            ticket,
            due: None,
            call: Some(token),
        }
    }

    /// The end of a wait, by its gate or by its time.
    pub fn wait(agenda: &Rc<Agenda>, ticket: Ticket, due: Timestamp, gate: Option<Gate>) -> Self {
        if let Ok(mut waits) = agenda.waits.try_borrow_mut() {
            waits.insert((due, ticket));
        }
        if let Some(gate) = gate {
            let agenda = Rc::clone(agenda);
            gate.on_open(move || {
                if let Ok(mut woken) = agenda.woken.try_borrow_mut() {
                    woken.push_back(ticket);
                }
            });
        }
        Self {
            agenda: Rc::clone(agenda),
            ticket,
            due: Some(due),
            call: None,
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(due) = self.due
            && let Ok(mut waits) = self.agenda.waits.try_borrow_mut()
        {
            waits.remove(&(due, self.ticket));
        }
        if let Some(token) = self.call {
            vm::forget_call(token);
        }
    }
}

impl Agenda {
    /// Of the root context `root`, with nothing on it.
    pub fn new(root: u32) -> Rc<Self> {
        Rc::new(Self {
            root,
            waits: RefCell::default(),
            woken: RefCell::default(),
            held: RefCell::default(),
            ready: RefCell::default(),
            begun: RefCell::default(),
            last_task: Cell::new(0),
            sweeps: Cell::new(false),
            tick: Cell::new(0),
            turns: Cell::new(AT_ONCE),
        })
    }

    /// The root context's id.
    pub fn root(&self) -> u32 {
        self.root
    }

    /// From now on a tick every second.
    pub fn sweep_from_now_on(&self, now: Timestamp) {
        if !self.sweeps.replace(true) {
            self.schedule(now);
        }
    }

    /// Remembers that a stream holds bytes back that the next tick is to let go; `false` when there are no ticks.
    pub fn hold(&self, stream: u32, now: Timestamp) -> bool {
        if let Ok(mut held) = self.held.try_borrow_mut() {
            held.push(stream);
        }
        self.schedule(now)
    }

    /// Streams that hold bytes back.
    pub fn holding(&self) -> Vec<u32> {
        self.held
            .try_borrow_mut()
            .map(|mut held| std::mem::take(&mut *held))
            .unwrap_or_default()
    }

    /// The next wait whose time is over.
    pub fn due(&self, now: Timestamp) -> Option<Ticket> {
        let mut waits = self.waits.try_borrow_mut().ok()?;
        let first = *waits.first()?;
        (first.0 <= now).then(|| waits.remove(&first))?;
        Some(first.1)
    }

    /// The next wait whose gate opened.
    pub fn woken(&self) -> Option<Ticket> {
        self.woken.try_borrow_mut().ok()?.pop_front()
    }

    /// So many waits may be ended until the next tick.
    pub fn renew_turns(&self, turns: u32) {
        self.turns.set(turns);
    }

    /// Whether one more wait may be ended before the next tick; counts it.
    pub fn take_turn(&self) -> bool {
        let left = self.turns.get().checked_sub(1);
        left.inspect(|left| self.turns.set(*left)).is_some()
    }

    /// The last turn was not needed.
    pub fn return_turn(&self) {
        self.turns.set(self.turns.get().saturating_add(1));
    }

    /// Whether a gate opened that somebody waits at.
    pub fn has_woken(&self) -> bool {
        self.woken.try_borrow().is_ok_and(|woken| !woken.is_empty())
    }

    /// Whether something is to happen as soon as it may.
    pub fn is_stirred(&self) -> bool {
        self.has_woken() || self.ready.try_borrow().is_ok_and(|ready| !ready.is_empty())
    }

    /// How many tasks there are, begun or not.
    pub fn tasks(&self) -> usize {
        let ready = self.ready.try_borrow().map_or(0, |ready| ready.len());
        let begun = self.begun.try_borrow().map_or(0, |begun| begun.len());
        ready.saturating_add(begun)
    }

    /// A task that the next tick is to begin.
    pub fn enqueue(&self, task: Task) {
        if let Ok(mut ready) = self.ready.try_borrow_mut() {
            ready.push_back(task);
        }
    }

    /// The next task to begin, with the number it is known by from now on.
    pub fn ready(&self) -> Option<(u32, Task)> {
        let task = self.ready.try_borrow_mut().ok()?.pop_front()?;
        let number = self.last_task.get().wrapping_add(1);
        self.last_task.set(number);
        Some((number, task))
    }

    /// Keeps a task until its answer comes.
    pub fn keep(&self, number: u32, begun: Begun) {
        if let Ok(mut all) = self.begun.try_borrow_mut() {
            all.insert(number, begun);
        }
    }

    /// Takes a task out.
    pub fn take(&self, number: u32) -> Option<Begun> {
        self.begun.try_borrow_mut().ok()?.remove(&number)
    }

    /// Lets go of everything: the root context is gone.
    pub fn clear(&self) {
        // Taken out first: what is dropped looks in here.
        let ready = self
            .ready
            .try_borrow_mut()
            .map(|mut it| std::mem::take(&mut *it));
        let begun = self
            .begun
            .try_borrow_mut()
            .map(|mut it| std::mem::take(&mut *it));
        drop((ready, begun));
        if let Ok(mut woken) = self.woken.try_borrow_mut() {
            woken.clear();
        }
    }

    /// Sets the tick to what is needed next; `false` when the host has none.
    pub fn schedule(&self, now: Timestamp) -> bool {
        let period = self.period(now);
        if period == self.tick.get() {
            return true;
        }
        let done = hostcalls::set_tick(period).is_ok();
        if done {
            self.tick.set(period);
        }
        done
    }

    fn period(&self, now: Timestamp) -> u32 {
        if self.is_stirred() {
            return SOON_MS;
        }
        let held = self.held.try_borrow().is_ok_and(|held| !held.is_empty());
        let wait = self
            .waits
            .try_borrow()
            .ok()
            .and_then(|waits| waits.first().map(|(time, _)| *time));
        // Rounded up: a tick that comes too early does nothing.
        let wait = wait.map(|time| {
            let left = time.since(now).max(Duration::from_millis(1));
            u32::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX)
        });
        [
            self.sweeps.get().then_some(1000),
            held.then_some(RELEASE_MS),
            wait.map(|wait| wait.min(1000)),
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(0)
    }
}
