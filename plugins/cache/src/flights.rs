//! Request collapsing within an instance: one request to the origin per key, others wait for what it brings.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::rc::Rc;

use bytes::Bytes;
use edgeweir_filter::Gate;

/// Requests to the origin under way by key. No more than there are exchanges and tasks.
#[derive(Clone, Default)]
pub struct Flights(Rc<RefCell<HashMap<Bytes, Flight, RandomState>>>);

struct Flight {
    awaited: Awaited,
    waiters: usize,
}

/// A flight as those see it who wait for its end.
#[derive(Clone, Default)]
pub struct Awaited {
    /// Opens when it is over.
    pub gate: Gate,
    ended: Rc<Cell<Ended>>,
}

/// What a flight's end says, besides what is stored by then.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Ended {
    /// Nothing: another one for the same key may bring what is wanted.
    #[default]
    Unsaid,
    /// What came can't be stored, and what comes next hardly.
    Unstorable,
    /// An error came; `reached` says that the origin itself sent it.
    Failed {
        /// Whether the origin was reached.
        reached: bool,
    },
}

impl Awaited {
    /// How it ended, as far as that was said.
    pub fn ended(&self) -> Ended {
        self.ended.get()
    }
}

/// What a request that would go to the origin may do.
pub enum Boarding {
    /// Go: it leads.
    Lead(Lead),
    /// Wait for the leader.
    Wait(Awaited),
    /// Go alone: enough others wait already.
    Full,
}

/// The right to be the one request for a key. Dropped, it lets those who wait go on, however it ended.
pub struct Lead {
    flights: Flights,
    key: Bytes,
    awaited: Awaited,
    /// The name whose lease was given for it, where machines share a store.
    pub lease: Option<Bytes>,
}

impl Flights {
    /// Joins the flight for a key, or begins it; at most `most` wait.
    pub fn board(&self, key: &Bytes, most: usize) -> Boarding {
        match self.0.borrow_mut().entry(key.clone()) {
            Entry::Occupied(mut flight) => {
                let flight = flight.get_mut();
                if flight.waiters >= most {
                    return Boarding::Full;
                }
                flight.waiters += 1;
                Boarding::Wait(flight.awaited.clone())
            }
            Entry::Vacant(place) => {
                let awaited = Awaited::default();
                place.insert(Flight {
                    awaited: awaited.clone(),
                    waiters: 0,
                });
                Boarding::Lead(Lead {
                    flights: self.clone(),
                    key: key.clone(),
                    awaited,
                    lease: None,
                })
            }
        }
    }

    /// Begins a flight; `None` when there is one.
    pub fn lead(&self, key: &Bytes) -> Option<Lead> {
        match self.board(key, 0) {
            Boarding::Lead(lead) => Some(lead),
            Boarding::Wait(_) | Boarding::Full => None,
        }
    }
}

impl Lead {
    /// Says how it ends, to those who wait; what was said first stays.
    pub fn ends(&self, how: Ended) {
        if self.awaited.ended() == Ended::Unsaid {
            self.awaited.ended.set(how);
        }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.flights.0.borrow_mut().remove(&self.key);
        self.awaited.gate.open();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_leads_some_wait_the_rest_goes_alone() {
        let (flights, key) = (Flights::default(), Bytes::from("k"));
        let Boarding::Lead(lead) = flights.board(&key, 1) else {
            panic!("the first leads");
        };
        let Boarding::Wait(awaited) = flights.board(&key, 1) else {
            panic!("the second waits");
        };
        let gate = awaited.gate.clone();
        assert!(matches!(flights.board(&key, 1), Boarding::Full));
        assert!(flights.lead(&key).is_none());
        assert!(flights.lead(&Bytes::from("other")).is_some());
        assert!(!gate.is_open());
        lead.ends(Ended::Failed { reached: true });
        lead.ends(Ended::Unstorable);
        drop(lead);
        assert_eq!(awaited.ended(), Ended::Failed { reached: true });
        assert!(gate.is_open());
        assert!(flights.lead(&key).is_some(), "over, and forgotten");
    }
}
