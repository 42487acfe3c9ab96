//! The generic cell rate algorithm (ITU-T I.371, annex A; virtual scheduling), in whole nanoseconds.

/// One limit: a cell every `interval`, at most `capacity` at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gcra {
    /// The emission interval, nanoseconds; rounded up, so that the rate is never exceeded.
    interval: u64,
    /// Cells that may come at once (the burst).
    capacity: u32,
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
}

impl Gcra {
    /// `count` cells per `per` nanoseconds, `capacity` at once.
    pub fn new(count: u32, per: u64, capacity: u32) -> Self {
        Self {
            interval: per.div_ceil(u64::from(count.max(1))).max(1),
            capacity: capacity.max(1),
        }
    }

    /// How far the theoretical arrival time may be ahead: the whole burst, nanoseconds.
    pub fn span(&self) -> u64 {
        self.interval.saturating_mul(u64::from(self.capacity))
    }

    /// Decides on `cost` cells at `now`, given the theoretical arrival time before. Pure: safe to call twice.
    pub fn admit(&self, tat: Option<u64>, now: u64, cost: u32) -> Outcome<u64> {
        let span = self.span();
        // A clock that went back would lock everyone out until it catches up: never further ahead than one span.
        let tat = tat.unwrap_or(now).clamp(now, now.saturating_add(span));
        let after = tat.saturating_add(self.interval.saturating_mul(u64::from(cost)));
        let ahead = after.saturating_sub(now);
        if ahead <= span {
            let remaining = (span - ahead) / self.interval;
            let remaining = u32::try_from(remaining).unwrap_or(u32::MAX);
            return Outcome {
                state: after,
                verdict: Ok(()),
                remaining,
                reset: ahead,
            };
        }
        let left = (span - (tat - now)) / self.interval;
        let remaining = u32::try_from(left).unwrap_or(u32::MAX);
        Outcome {
            state: tat,
            verdict: Err(ahead - span),
            remaining,
            reset: tat - now,
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
    fn a_clock_gone_back_a_day_locks_out_for_one_span_at_most() {
        let gcra = Gcra::new(100, 60 * S, 100);
        let outcome = gcra.admit(Some(200_000 * S), 100_000 * S, 1);
        assert!(outcome.verdict.is_err_and(|wait| wait <= gcra.span()));
    }

    proptest! {
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

        #[test]
        fn nothing_wraps(tat in any::<Option<u64>>(), now in any::<u64>(), cost in any::<u32>(), count in any::<u32>(), per in any::<u64>(), capacity in any::<u32>()) {
            Gcra::new(count, per, capacity).admit(tat, now, cost);
        }
    }
}
