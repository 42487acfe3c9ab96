//! Work that no exchange waits for.
//!
//! A task runs in the component-model task of the exchange that began it, which lasts until all in it is done: a host
//! that keeps an instance for its tasks (wasi:http leaves that to the host) lets it outlive the response. Where the
//! instance ends first, the task is dropped.

use std::future::Future;
use std::rc::Rc;

use edgeweir_filter::{Answer, Cx, Effect, Level, Task};

use crate::instance::Instance;
use crate::{log, time};

/// Tasks that may be under way in an instance; those beyond are dropped, and it is said so.
pub(crate) const TASKS: u32 = 64;

/// Begins tasks, after what is being sent now.
pub(crate) fn begin(instance: &Rc<Instance>, tasks: Vec<Box<dyn Task>>) {
    for task in tasks {
        let Some(place) = instance.tasks.take() else {
            let line = format!("{TASKS} tasks are under way: one more was dropped");
            log::line(time::now(), instance.name, Level::Warn, &line);
            continue;
        };
        let instance = Rc::clone(instance);
        wit_bindgen::spawn_local(async move {
            run(
                task,
                |work| instance.call(work),
                |effect| instance.effects.perform(effect),
            )
            .await;
            drop(place);
        });
    }
}

/// One call of a task.
type Work<'a> = &'a mut dyn FnMut(&mut Cx<'_>) -> Option<Effect>;

/// Runs a task to its end: one effect at a time.
async fn run<F: Future<Output = Answer>>(
    mut task: Box<dyn Task>,
    call: impl Fn(Work<'_>) -> Option<Effect>,
    perform: impl Fn(Effect) -> F,
) {
    let mut next = call(&mut |cx| task.start(cx));
    while let Some(effect) = next {
        let mut answer = Some(perform(effect).await);
        next = call(&mut |cx| task.answer(answer.take()?, cx));
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::ready;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use edgeweir_filter::{Record, Timestamp};

    use super::*;

    /// Waits for shorter and shorter times, and notes what it was told.
    struct Countdown(u64);

    impl Task for Countdown {
        fn start(&mut self, _: &mut Cx<'_>) -> Option<Effect> {
            let limit = Duration::from_secs(self.0);
            (self.0 > 0).then_some(Effect::Wait { gate: None, limit })
        }
        fn answer(&mut self, answer: Answer, cx: &mut Cx<'_>) -> Option<Effect> {
            assert!(matches!(answer, Answer::Waited));
            cx.count("waited");
            self.0 -= 1;
            self.start(cx)
        }
    }

    #[test]
    fn a_task_runs_one_effect_at_a_time_until_it_has_none() {
        for (name, from, want) in [("nothing to do", 0, &[][..]), ("three", 3, &[3, 2, 1])] {
            let (record, seen) = (RefCell::new(Record::default()), RefCell::new(Vec::new()));
            let running = run(
                Box::new(Countdown(from)),
                |work| work(&mut Cx::new(Timestamp::default(), &mut record.borrow_mut())),
                |effect| {
                    let Effect::Wait { limit, .. } = effect else {
                        return ready(Answer::Loaded(Ok(None)));
                    };
                    seen.borrow_mut().push(limit.as_secs());
                    ready(Answer::Waited)
                },
            );
            let ended = pin!(running).poll(&mut Context::from_waker(Waker::noop()));
            assert_eq!(ended, Poll::Ready(()), "{name}");
            assert_eq!(*seen.borrow(), want, "{name}");
            assert_eq!(record.borrow().counts.len(), want.len(), "{name}");
        }
    }
}
