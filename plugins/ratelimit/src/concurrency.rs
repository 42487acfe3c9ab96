//! How many requests are under way: by client with a fixed limit, by rule with one that follows the origin's latency.
//!
//! Both count in the memory of one worker (Envoy) or instance: an exchange that ends there, in whatever way, is dropped
//! there, and gives its place back. With W workers at most W times the limit is under way in all.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use edgeweir_filter::Timestamp;

/// The requests under way by key; there are no more entries than such requests.
#[derive(Debug, Default)]
pub struct UnderWay(RefCell<HashMap<Bytes, u32>>);

/// One request under way, until it is dropped.
#[derive(Debug)]
pub struct Place {
    all: Rc<UnderWay>,
    key: Bytes,
}

impl UnderWay {
    /// Counts a request; also, how many of its key there are with it.
    pub fn enter(self: &Rc<Self>, key: &Bytes) -> (Place, u32) {
        let mut all = self.0.borrow_mut();
        let count = all.entry(key.clone()).or_insert(0);
        *count = count.saturating_add(1);
        let place = Place {
            all: Rc::clone(self),
            key: key.clone(),
        };
        (place, *count)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.all.0.borrow_mut();
        if let Some(count) = all.get_mut(&self.key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                all.remove(&self.key);
            }
        }
    }
}

/// A limit of requests under way that grows while responses are fast and shrinks when they are not: additive increase,
/// multiplicative decrease.
#[derive(Debug)]
pub struct Adaptive {
    floor: u64,
    ceiling: u64,
    /// Slower responses than this are a sign of too many at once.
    latency: Duration,
    /// The limit in thousandths.
    limit: Cell<u64>,
    shrunk: Cell<Timestamp>,
    under_way: Cell<u32>,
}

/// One request under way, until it is dropped.
#[derive(Debug)]
pub struct Slot(Rc<Adaptive>);

impl Adaptive {
    /// Between `floor` and `ceiling` at once, beginning with the ceiling.
    pub fn new(floor: u32, ceiling: u32, latency: Duration) -> Self {
        let thousandths = |limit: u32| u64::from(limit.max(1)).saturating_mul(1_000);
        Self {
            floor: thousandths(floor),
            ceiling: thousandths(ceiling.max(floor)),
            latency,
            limit: Cell::new(thousandths(ceiling.max(floor))),
            shrunk: Cell::default(),
            under_way: Cell::new(0),
        }
    }

    /// The limit now.
    pub fn limit(&self) -> u32 {
        u32::try_from(self.limit.get() / 1_000).unwrap_or(u32::MAX)
    }

    /// Counts a request; also, how many there are with it.
    pub fn enter(self: &Rc<Self>) -> (Slot, u32) {
        let count = self.under_way.get().saturating_add(1);
        self.under_way.set(count);
        (Slot(Rc::clone(self)), count)
    }

    /// A response took so long, or there was none.
    pub fn learn(&self, took: Duration, unreached: bool, now: Timestamp) {
        let limit = self.limit.get();
        if took > self.latency || unreached {
            // One decrease for what one overload delays: all of its responses come late. A clock set back is no reason to wait.
            let shrunk = self.shrunk.get();
            if now < shrunk || now.since(shrunk) >= self.latency {
                self.shrunk.set(now);
                self.limit.set((limit / 10 * 9).max(self.floor));
            }
        } else if u64::from(self.under_way.get()).saturating_mul(2_000) >= limit {
            // One more after as many fast responses as there may be at once, if the limit is in use at all.
            let step = (1_000_000 / limit.max(1)).max(1);
            self.limit.set((limit + step).min(self.ceiling));
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let count = &self.0.under_way;
        count.set(count.get().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn places_are_given_back() {
        let all = Rc::new(UnderWay::default());
        let (a, b) = (Bytes::from("a"), Bytes::from("b"));
        let (first, one) = all.enter(&a);
        let (second, two) = all.enter(&a);
        let (_other, other) = all.enter(&b);
        assert_eq!((one, two, other), (1, 2, 1));
        drop(first);
        assert_eq!(all.enter(&a).1, 2);
        drop(second);
        assert_eq!(all.0.borrow().len(), 1, "only b is left");
    }

    #[test]
    fn the_limit_follows_the_latency() {
        let adaptive = Rc::new(Adaptive::new(5, 100, 100 * MS));
        let slots: Vec<Slot> = (0..80).map(|_| adaptive.enter().0).collect();
        let mut now = Timestamp::from_secs(1);
        for (name, took, times, want) in [
            ("fast, at the ceiling", 50, 10, 100),
            ("slow, all of one overload", 500, 50, 90),
        ] {
            for _ in 0..times {
                adaptive.learn(took * MS, false, now);
            }
            assert_eq!(adaptive.limit(), want, "{name}");
        }
        for _ in 0..100 {
            now = now.plus(100 * MS);
            adaptive.learn(500 * MS, false, now);
        }
        assert_eq!(adaptive.limit(), 5, "never under the floor");
        for _ in 0..5 {
            adaptive.learn(50 * MS, false, now);
        }
        assert_eq!(adaptive.limit(), 5);
        adaptive.learn(50 * MS, false, now);
        assert_eq!(adaptive.limit(), 6, "one more after a round of fast ones");
        drop(slots);
        for _ in 0..100 {
            adaptive.learn(50 * MS, false, now);
        }
        assert_eq!(adaptive.limit(), 6, "nobody needs more");
        adaptive.learn(Duration::ZERO, true, Timestamp(0));
        assert_eq!(adaptive.limit(), 5, "unreached, by a clock set back");
    }

    proptest! {
        #[test]
        fn always_between_floor_and_ceiling(
            floor in 1u32..100, ceiling in 1u32..10_000, latency in 1u32..1_000,
            samples in prop::collection::vec((any::<u32>(), any::<bool>(), any::<u64>(), any::<bool>()), 0..200)
        ) {
            let adaptive = Rc::new(Adaptive::new(floor, ceiling, latency * MS));
            let mut slots = Vec::new();
            for (took, unreached, now, enters) in samples {
                if enters {
                    slots.push(adaptive.enter().0);
                } else {
                    slots.pop();
                }
                adaptive.learn(Duration::from_micros(u64::from(took)), unreached, Timestamp(now));
                prop_assert!((floor..=ceiling.max(floor)).contains(&adaptive.limit()));
                prop_assert_eq!(adaptive.under_way.get() as usize, slots.len());
            }
        }
    }
}
