//! Tasks: work of a filter that no stream waits for, run by the root context.

use std::rc::Rc;

use edgeweir_filter::{Answer, Cx, Effect, Record};

use crate::agenda::{Agenda, Pending, Ticket, Waiter};
use crate::hostcalls;
use crate::root::{Performed, Root};

/// How many tasks a filter has in one VM, begun or about to begin; one more is dropped, and counted as
/// `edgeweir.tasks_dropped`. Each may hold one call's answer of at most 8 MiB, and that one at a time.
pub const TASKS: usize = 64;

/// The name of a cluster.
pub type Cluster = Rc<str>;

/// A task to begin.
pub struct Task {
    /// The filter it belongs to, as it was configured then.
    pub root: Rc<Root>,
    /// What it does.
    pub steps: Box<dyn edgeweir_filter::Task>,
    /// What it waits for, when it has begun.
    pub first: Option<Effect>,
    /// Where the exchange that asked for it goes, when one did and that is known.
    pub onward: Option<Cluster>,
}

/// A task that waits for an answer.
pub struct Begun {
    task: Task,
    pending: Pending,
}

/// One effect as a task.
pub struct Single(Option<Effect>);

impl Single {
    /// Of an effect whose answer does not matter.
    pub fn of(effect: Effect) -> Self {
        Self(Some(effect))
    }
}

impl edgeweir_filter::Task for Single {
    fn start(&mut self, _: &mut Cx<'_>) -> Option<Effect> {
        self.0.take()
    }
    fn answer(&mut self, _: Answer, _: &mut Cx<'_>) -> Option<Effect> {
        None
    }
}

/// Goes on with what is ready. Called from a tick alone, with the root as the effective context: a call made from another
/// callback might be a stream's, and end with it.
pub fn begin(agenda: &Rc<Agenda>) {
    // Those that a task asks for begin too, so there is a bound; the next tick goes on.
    for _ in 0..TASKS {
        let Some((number, mut task)) = agenda.ready() else {
            return;
        };
        let mut record = Record::default();
        let now = hostcalls::now();
        let effect = match task.first.take() {
            Some(effect) => Some(effect),
            None => task.steps.start(&mut Cx::new(now, &mut record)),
        };
        run(agenda, number, 0, task, effect, record);
    }
}

/// Gives a task the answer it waits for.
pub fn resume(agenda: &Rc<Agenda>, number: u32, wait: u32, answer: Answer) {
    let Some(begun) = agenda.take(number) else {
        return;
    };
    if begun.pending.ticket.number != wait || hostcalls::set_context(agenda.root()).is_err() {
        agenda.keep(number, begun);
        return;
    }
    let Begun { mut task, pending } = begun;
    drop(pending);
    let mut record = Record::default();
    let now = hostcalls::now();
    let effect = task.steps.answer(answer, &mut Cx::new(now, &mut record));
    run(agenda, number, wait, task, effect, record);
}

fn run(
    agenda: &Rc<Agenda>,
    number: u32,
    mut wait: u32,
    mut task: Task,
    mut effect: Option<Effect>,
    mut record: Record,
) {
    let now = hostcalls::now();
    loop {
        let started = task.root.settle(&mut record, now);
        task.root.spawn(started, task.onward.clone());
        let Some(next) = effect.take() else {
            return;
        };
        wait = wait.wrapping_add(1);
        let ticket = Ticket {
            waiter: Waiter::Task(number),
            number: wait,
        };
        let onward = task.onward.as_deref();
        effect = match task.root.perform(next, ticket, onward, now) {
            Performed::Pending(pending) => {
                agenda.keep(number, Begun { task, pending });
                return;
            }
            Performed::Answer(answer) => task.steps.answer(answer, &mut Cx::new(now, &mut record)),
        };
    }
}
