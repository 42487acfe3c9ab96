//! A bound on the memory of all encoders together.

use std::cell::Cell;
use std::rc::Rc;

/// Bytes that encoders may hold at once, in one worker or instance.
#[derive(Clone, Debug)]
pub struct Budget {
    left: Rc<Cell<usize>>,
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(bytes: usize) -> Self {
        Self {
            left: Rc::new(Cell::new(bytes)),
        }
    }

    /// Sets bytes aside until the reservation is dropped; `None` when there is no room.
    pub fn take(&self, bytes: usize) -> Option<Reservation> {
        let left = self.left.get().checked_sub(bytes)?;
        self.left.set(left);
        Some(Reservation {
            budget: self.clone(),
            bytes,
        })
    }
}

/// Bytes set aside; given back on drop, also when an exchange is dropped in the middle.
#[derive(Debug)]
pub struct Reservation {
    budget: Budget,
    bytes: usize,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let left = self.budget.left.get();
        self.budget.left.set(left.saturating_add(self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back() {
        let budget = Budget::new(10);
        let first = budget.take(7).expect("room for seven");
        assert!(budget.take(4).is_none());
        let second = budget.take(3).expect("room for three");
        drop(first);
        assert!(budget.take(8).is_none());
        drop(second);
        assert!(budget.take(10).is_some());
    }
}
