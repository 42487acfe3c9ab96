//! The generic cell rate algorithm (ITU-T I.371, annex A; virtual scheduling), in whole nanoseconds.

/// How far a state may lie in the future without the clock having been set back: workers read the clock and write one
/// after the other, never this far apart.
pub const SLACK: u64 = 1_000_000_000;

/// One limit: a cell every `interval`, at most `capacity` at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gcra {
    /// The emission interval, nanoseconds; rounded up, so that the rate is never exceeded.
    interval: u64,
    /// Cells that may come at once (the burst).
    capacity: u32,
    /// How far ahead a state that shares this limit's cell may be, nanoseconds.
    horizon: u64,
}

/// The state after a decision, and what it means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome<S> {
    /// The state to write when all limits admit.
    pub state: S,
    /// `Err(nanoseconds to wait)` when the cells do not conform.
    pub verdict: Result<(), u64>,
    /// Cells left after the decision.
    pub remaining: u32,
    /// Nanoseconds until the whole quota is there again.
    pub reset: u64,
    /// The clock was set back: `state` is to be written whatever the verdict, else it holds until the clock is there again.
    pub rebased: bool,
}

impl Gcra {
    /// `count` cells per `per` nanoseconds, `capacity` at once.
    pub fn new(count: u32, per: u64, capacity: u32) -> Self {
        let interval = per.div_ceil(u64::from(count.max(1))).max(1);
        let capacity = capacity.max(1);
        Self {
            interval,
            capacity,
            horizon: interval.saturating_mul(u64::from(capacity)),
        }
    }

    /// The whole burst, nanoseconds.
    pub fn span(&self) -> u64 {
        self.interval.saturating_mul(u64::from(self.capacity))
    }

    /// Whether no cell conforms to it that would not to the other: neither its rate nor its burst is more.
    pub fn covers(&self, other: Self) -> bool {
        self.interval >= other.interval && self.capacity <= other.capacity
    }

    /// So many percent of the rate and of the burst, at least one cell.
    #[must_use]
    pub fn tightened(&self, percent: u8) -> Self {
        let percent = u64::from(percent.clamp(1, 100));
        let capacity = u64::from(self.capacity) * percent / 100;
        let tight = Self {
            interval: self.interval.saturating_mul(100).div_ceil(percent),
            capacity: u32::try_from(capacity.max(1)).unwrap_or(u32::MAX),
            horizon: 0,
        };
        Self {
            horizon: tight.span(),
            ..tight
        }
    }

    /// The interval and the span of so many percent of the rate over a state that the whole limit writes too: the span is
    /// never shorter, since a state beyond it refuses until it has come back. In any time it admits at most so many percent
    /// of what the whole limit does, and one cell.
    pub fn slowed(&self, percent: u8) -> (u64, u64) {
        let percent = u64::from(percent.clamp(1, 100));
        let interval = self.interval.saturating_mul(100).div_ceil(percent);
        (interval, self.span().max(interval))
    }

    /// The same limit over a state that limits of another level write too.
    #[must_use]
    pub fn within(self, horizon: u64) -> Self {
        Self {
            horizon: self.horizon.max(horizon),
            ..self
        }
    }

    /// Decides on `cost` cells at `now`, given the theoretical arrival time before. Pure: safe to call twice. A cost over
    /// the capacity takes all of it.
    pub fn admit(&self, tat: Option<u64>, now: u64, cost: u32) -> Outcome<u64> {
        let span = self.span();
        let (tat, rebased) = self.read(tat, now);
        let cost = u64::from(cost.min(self.capacity));
        let after = tat.saturating_add(self.interval.saturating_mul(cost));
        let ahead = after.saturating_sub(now);
        let cells = |free: u64| u32::try_from(free / self.interval).unwrap_or(u32::MAX);
        if ahead <= span {
            return Outcome {
                state: after,
                verdict: Ok(()),
                remaining: cells(span - ahead),
                reset: ahead,
                rebased,
            };
        }
        let before = tat.saturating_sub(now);
        Outcome {
            state: tat,
            verdict: Err(ahead - span),
            remaining: cells(span.saturating_sub(before)),
            reset: before,
            rebased,
        }
    }

    /// Takes `cost` cells that were used already; what they exceed the burst by is forgiven.
    pub fn charge(&self, tat: Option<u64>, now: u64, cost: u32) -> u64 {
        let (tat, _) = self.read(tat, now);
        let after = tat.saturating_add(self.interval.saturating_mul(u64::from(cost)));
        after.min(now.saturating_add(self.span())).max(tat)
    }

    /// The cells left and the time to the whole quota of an outcome, as of then, once `cost` more are taken: what
    /// [`charge`](Self::charge) makes of its state.
    pub fn less(&self, remaining: u32, reset: u64, cost: u32) -> (u32, u64) {
        let taken = self.interval.saturating_mul(u64::from(cost));
        let all = self.interval.saturating_mul(u64::from(remaining));
        let reset = match cost <= remaining {
            true => reset.saturating_add(taken),
            // All there was and what had come back of the next: no more than the burst.
            false => reset.saturating_add(all).max(self.span()),
        };
        (remaining.saturating_sub(cost), reset)
    }

    /// The state as of now. A clock set back would lock everyone out until it has caught up: then the burst counts as used
    /// up from now on, so that a cell is there again after one interval.
    fn read(&self, tat: Option<u64>, now: u64) -> (u64, bool) {
        let furthest = now.saturating_add(self.horizon);
        match tat.unwrap_or(now).max(now) {
            far if far > furthest.saturating_add(SLACK) => (now.saturating_add(self.span()), true),
            tat => (tat, false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn a_burst_then_one_per_interval() {
        let gcra = Gcra::new(10, S, 3);
        let mut tat = None;
        for (at, admitted) in [
            (0, true),
            (0, true),
            (0, true),
            (0, false),
            (S / 10, true),
            (S / 10, false),
            (S, true),
        ] {
            let outcome = gcra.admit(tat, S + at, 1);
            assert_eq!(outcome.verdict.is_ok(), admitted, "at {at}");
            if admitted {
                tat = Some(outcome.state);
            }
        }
    }

    #[test]
    fn waiting_as_told_is_enough_and_no_less() {
        let gcra = Gcra::new(7, S, 2);
        let full = gcra.admit(Some(5 * S + gcra.span()), 5 * S, 1);
        let Err(wait) = full.verdict else {
            panic!("a full bucket admitted")
        };
        assert!(
            gcra.admit(Some(full.state), 5 * S + wait, 1)
                .verdict
                .is_ok()
        );
        assert!(
            gcra.admit(Some(full.state), 5 * S + wait - 1, 1)
                .verdict
                .is_err()
        );
    }

    #[test]
    fn a_tightened_limit_forgives_nothing() {
        let normal = Gcra::new(3, S, 3);
        let tight = normal.tightened(50);
        let (normal, tight) = (normal.within(tight.span()), tight.within(normal.span()));
        let full = 5 * S + normal.span();
        for limit in [tight, normal] {
            let outcome = limit.admit(Some(full), 5 * S, 1);
            assert_eq!((outcome.state, outcome.rebased), (full, false));
            assert!(outcome.verdict.is_err());
        }
    }

    #[test]
    fn a_charge_after_the_fact_empties_the_bucket_and_no_more() {
        let gcra = Gcra::new(10, S, 5);
        assert_eq!(gcra.charge(Some(7 * S), 7 * S, 2), 7 * S + S / 5);
        assert_eq!(gcra.charge(None, 7 * S, 1_000_000), 7 * S + S / 2);
        let late = 7 * S + S / 2 + 1;
        assert_eq!(gcra.charge(Some(late), 7 * S, 1), late, "never given back");
    }

    proptest! {
        #[test]
        fn what_is_left_after_a_charge_is_what_it_leaves(
            count in 1u32..1000, capacity in 2u32..50, used in 0u64..50, cost in 0u32..50, more in 0u32..60
        ) {
            let gcra = Gcra::new(count, S, capacity);
            let now = 5 * S;
            // Less than half is used before, half of it at most is asked for.
            let before = now + gcra.span() * used / 100;
            let outcome = gcra.admit(Some(before), now, cost % (capacity / 2) + 1);
            prop_assert_eq!(outcome.verdict, Ok(()));
            let tat = gcra.charge(Some(outcome.state), now, more);
            let left = u32::try_from((gcra.span() + now - tat) / gcra.interval).unwrap();
            prop_assert_eq!(gcra.less(outcome.remaining, outcome.reset, more), (left, tat - now));
        }

        #[test]
        fn never_more_than_rate_times_time_plus_burst(
            count in 1u32..1000, capacity in 1u32..50, gaps in prop::collection::vec(0u64..50_000_000, 1..400)
        ) {
            let gcra = Gcra::new(count, S, capacity);
            let (mut tat, mut now, mut admitted) = (None, S, 0u64);
            for gap in gaps {
                now += gap;
                let outcome = gcra.admit(tat, now, 1);
                if outcome.verdict.is_ok() {
                    tat = Some(outcome.state);
                    admitted += 1;
                }
                prop_assert!(admitted <= u64::from(capacity) + (now - S) * u64::from(count) / S + 1);
            }
        }

        /// However the clock jumps: each jump frees at most one burst, and whoever keeps asking is served again within
        /// one span of the new time.
        #[test]
        fn a_clock_that_jumps_frees_no_more_than_a_burst_and_locks_nobody_out(
            count in 1u32..100, capacity in 1u32..20, jumps in prop::collection::vec((-86_400i64..86_400, 0u64..200), 1..12)
        ) {
            let gcra = Gcra::new(count, S, capacity);
            let (mut tat, mut now) = (None, 1_000_000 * S);
            for (jump, asks) in jumps {
                now = now.saturating_add_signed(jump * 1_000_000_000);
                let start = now;
                let mut admitted = 0u64;
                for _ in 0..asks {
                    let outcome = gcra.admit(tat, now, 1);
                    admitted += u64::from(outcome.verdict.is_ok());
                    if outcome.verdict.is_ok() || outcome.rebased {
                        tat = Some(outcome.state);
                    }
                    prop_assert!(admitted <= u64::from(capacity) + (now - start) * u64::from(count) / S);
                    now += 7_000_000;
                }
                // Asking once more than a span (and the slack between workers) later at the latest.
                let mut waited = 0;
                while let Err(wait) = gcra.admit(tat, now, 1).verdict {
                    let outcome = gcra.admit(tat, now, 1);
                    if outcome.rebased {
                        tat = Some(outcome.state);
                    }
                    waited += wait;
                    now += wait;
                    prop_assert!(waited <= gcra.span() + SLACK, "{waited}");
                }
            }
        }

        #[test]
        fn nothing_wraps(tat in any::<Option<u64>>(), now in any::<u64>(), cost in any::<u32>(), count in any::<u32>(), per in any::<u64>(), capacity in any::<u32>()) {
            let gcra = Gcra::new(count, per, capacity);
            gcra.admit(tat, now, cost);
            gcra.charge(tat, now, cost);
            gcra.tightened(cost as u8).admit(tat, now, cost);
        }
    }
}
