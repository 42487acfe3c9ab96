//! Work beside exchanges: tasks that no exchange waits for, and gates that several wait at.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

use crate::{Answer, Cx, Effect};

/// Work that no exchange waits for (a refresh, a warm-up): a state machine of effects, one at a time.
///
/// Asked for with [`Cx::spawn`] or by [`Filter::startup`](crate::Filter::startup). An adapter bounds how many are under
/// way in an instance; one that finds no room, or whose instance ends, is dropped.
pub trait Task {
    /// The first effect; `None` when there is nothing to do.
    fn start(&mut self, cx: &mut Cx<'_>) -> Option<Effect>;
    /// The next effect after the answer to the one before; `None` ends the task.
    fn answer(&mut self, answer: Answer, cx: &mut Cx<'_>) -> Option<Effect>;
}

type Wake = Box<dyn FnOnce()>;

/// Something that happens once in an instance, and that exchanges of the same instance may wait for.
///
/// Clones are the same gate. Whoever is to open it keeps a clone and opens it also when it is dropped, lest the others
/// wait for their whole time.
#[derive(Clone, Default)]
pub struct Gate(Rc<Inner>);

#[derive(Default)]
struct Inner {
    open: Cell<bool>,
    waiting: RefCell<Vec<Wake>>,
}

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it was opened.
    pub fn is_open(&self) -> bool {
        self.0.open.get()
    }

    /// Opens it, and tells everybody who waits; a second time does nothing.
    pub fn open(&self) {
        self.0.open.set(true);
        let waiting = self.0.waiting.take();
        for wake in waiting {
            wake();
        }
    }

    /// Calls `wake` when it opens; at once when it is open. For adapters: `wake` only notes who is to go on, it runs in
    /// the middle of another exchange's call.
    pub fn on_open(&self, wake: impl FnOnce() + 'static) {
        if self.is_open() {
            wake();
        } else {
            self.0.waiting.borrow_mut().push(Box::new(wake));
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_open() {
            "Gate(open)"
        } else {
            "Gate(closed)"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_opens_once_and_tells_all() {
        let (gate, told) = (Gate::new(), Rc::new(Cell::new(0)));
        let tell = || {
            let told = Rc::clone(&told);
            move || told.set(told.get() + 1)
        };
        gate.on_open(tell());
        gate.on_open(tell());
        assert!(!gate.is_open());
        gate.clone().open();
        gate.open();
        assert_eq!((gate.is_open(), told.get()), (true, 2));
        gate.on_open(tell());
        assert_eq!(told.get(), 3);
    }
}
