//! How much may be under way at once.

use std::cell::Cell;
use std::rc::Rc;

/// A number of places, taken and given back.
pub(crate) struct Room {
    taken: Rc<Cell<u32>>,
    places: u32,
}

impl Room {
    /// Room for so many.
    pub(crate) fn new(places: u32) -> Self {
        Self {
            taken: Rc::default(),
            places,
        }
    }

    /// One of the places, until it is dropped; `None` when all are taken.
    pub(crate) fn take(&self) -> Option<Place> {
        let taken = self.taken.get();
        if taken >= self.places {
            return None;
        }
        self.taken.set(taken + 1);
        Some(Place(Rc::clone(&self.taken)))
    }
}

/// A place that is taken.
pub(crate) struct Place(Rc<Cell<u32>>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_it_is_dropped() {
        let room = Room::new(2);
        let (first, second) = (room.take(), room.take());
        assert!(first.is_some() && second.is_some());
        assert!(room.take().is_none());
        drop(first);
        assert!(room.take().is_some());
    }
}
