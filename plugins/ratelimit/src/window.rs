//! The sliding window counter: the previous window's count fades out linearly while this one's grows.
//!
//! It assumes the previous window's requests were spread evenly; where they were not, an interval that straddles two
//! windows can see more than the limit (at most twice). GCRA has no such error; this is the alternative for those
//! whose contracts speak of windows.

use crate::gcra::{Outcome, SLACK};

/// At most `limit` in any window of `per` nanoseconds, as estimated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    limit: u32,
    per: u64,
}

/// Counts of two windows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Which window `current` counts: nanoseconds since the epoch divided by the period.
    pub index: u64,
    /// Requests of the window before.
    pub previous: u32,
    /// Requests of this window.
    pub current: u32,
}

impl Window {
    /// `limit` per `per` nanoseconds.
    pub fn new(limit: u32, per: u64) -> Self {
        Self {
            limit: limit.max(1),
            per: per.max(1),
        }
    }

    /// The window, nanoseconds, and the limit.
    pub fn parts(&self) -> (u64, u32) {
        (self.per, self.limit)
    }

    /// How long a count matters: two windows, nanoseconds.
    pub fn span(&self) -> u64 {
        self.per.saturating_mul(2)
    }

    /// So many percent of the limit, at least one.
    #[must_use]
    pub fn tightened(&self, percent: u8) -> Self {
        let limit = u64::from(self.limit) * u64::from(percent.clamp(1, 100)) / 100;
        Self::new(u32::try_from(limit).unwrap_or(u32::MAX), self.per)
    }

    /// Decides on `cost` requests at `now`. Pure: safe to call twice. A cost over the limit takes all of it.
    pub fn admit(&self, before: Option<Counts>, now: u64, cost: u32) -> Outcome<Counts> {
        let cost = cost.min(self.limit);
        let (counts, elapsed, rebased) = self.read(before, now);
        let faded = scale(counts.previous, self.per - elapsed, self.per);
        let used = faded.saturating_add(counts.current);
        let wanted = used.saturating_add(cost);
        if wanted <= self.limit {
            let state = Counts {
                current: counts.current.saturating_add(cost),
                ..counts
            };
            return Outcome {
                state,
                verdict: Ok(()),
                remaining: self.limit - wanted,
                reset: self.span() - elapsed,
                rebased,
            };
        }
        let reset = if counts.current > 0 {
            self.span() - elapsed
        } else {
            self.per - elapsed
        };
        Outcome {
            state: counts,
            verdict: Err(self.wait(counts, elapsed, cost)),
            remaining: self.limit.saturating_sub(used),
            reset,
            rebased,
        }
    }

    /// Takes `cost` that was used already; what it exceeds the limit by is forgiven.
    pub fn charge(&self, before: Option<Counts>, now: u64, cost: u32) -> Counts {
        let (counts, _, _) = self.read(before, now);
        let charged = counts.current.saturating_add(cost).min(self.limit);
        Counts {
            current: charged.max(counts.current),
            ..counts
        }
    }

    /// The counts as of now, how much of the window has passed, and whether the clock was set back.
    fn read(&self, before: Option<Counts>, now: u64) -> (Counts, u64, bool) {
        let index = now / self.per;
        let elapsed = now % self.per;
        let before = before.unwrap_or_default();
        let fresh = |previous| Counts {
            index,
            previous,
            current: 0,
        };
        match index.checked_sub(before.index) {
            Some(0) => (before, elapsed, false),
            Some(1) => (fresh(before.current), elapsed, false),
            Some(_) => (fresh(0), elapsed, false),
            // Another worker was in the next window already.
            None if before.index.saturating_mul(self.per).saturating_sub(now) <= SLACK => {
                (before, 0, false)
            }
            // The clock was set back: what was used fades from now on, and is gone with this window.
            None => (fresh(before.previous.max(before.current)), elapsed, true),
        }
    }

    /// Nanoseconds until `cost` more would fit, if nothing else came.
    fn wait(&self, counts: Counts, elapsed: u64, cost: u32) -> u64 {
        let room = |fading: u32, fixed: u32| {
            let free = self.limit.checked_sub(fixed.checked_add(cost)?)?;
            // The part of the window that must have passed before `fading` has shrunk to `free`.
            (fading > 0).then(|| {
                self.per
                    - u64::try_from(
                        u128::from(self.per) * u128::from(free.min(fading)) / u128::from(fading),
                    )
                    .unwrap_or(0)
            })
        };
        match room(counts.previous, counts.current) {
            Some(at) if at > elapsed => at - elapsed,
            _ => {
                let next = room(counts.current, 0).unwrap_or(self.per);
                (self.per - elapsed).saturating_add(next)
            }
        }
    }
}

/// `count * part / whole`, rounded up: an estimate never counts too little.
fn scale(count: u32, part: u64, whole: u64) -> u32 {
    let scaled = (u128::from(count) * u128::from(part)).div_ceil(u128::from(whole));
    u32::try_from(scaled).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn the_window_before_fades() {
        let window = Window::new(10, 10 * S);
        let before = Counts {
            index: 9,
            previous: 0,
            current: 10,
        };
        for (elapsed, remaining) in [(0, 0), (5 * S, 4), (9 * S, 8)] {
            let outcome = window.admit(Some(before), 100 * S + elapsed, 1);
            assert_eq!(outcome.verdict.is_ok(), elapsed > 0, "{elapsed}");
            assert_eq!(outcome.remaining, remaining, "{elapsed}");
        }
        assert_eq!(window.admit(Some(before), 120 * S, 1).remaining, 9);
    }

    proptest! {
        #[test]
        fn waiting_as_told_is_enough(limit in 1u32..50, previous in 0u32..50, current in 0u32..50, elapsed in 0u64..10) {
            let window = Window::new(limit, 10 * S);
            // More than the limit, too: an emergency tightens it.
            let counts = Counts { index: 7, previous, current };
            let now = 70 * S + elapsed * S;
            let outcome = window.admit(Some(counts), now, 1);
            if let Err(wait) = outcome.verdict {
                prop_assert!(wait > 0);
                prop_assert!(window.admit(Some(counts), now + wait, 1).verdict.is_ok(), "{wait}");
            }
        }

        /// However the clock jumps: each jump frees at most one limit, and whoever waits as told is served within one window.
        #[test]
        fn a_clock_that_jumps_frees_no_more_than_a_limit_and_locks_nobody_out(
            limit in 1u32..40, jumps in prop::collection::vec((-86_400i64..86_400, 0u64..100), 1..12)
        ) {
            let window = Window::new(limit, 10 * S);
            let (mut counts, mut now) = (None, 1_000_000 * S);
            for (jump, asks) in jumps {
                now = now.saturating_add_signed(jump * 1_000_000_000);
                let start = now;
                let mut admitted = 0u64;
                for _ in 0..asks {
                    let outcome = window.admit(counts, now, 1);
                    admitted += u64::from(outcome.verdict.is_ok());
                    if outcome.verdict.is_ok() || outcome.rebased {
                        counts = Some(outcome.state);
                    }
                    // Every window of the clock admits the limit at most, and the time touches so many of them.
                    let touched = now / (10 * S) - start / (10 * S) + 1;
                    prop_assert!(admitted <= touched * u64::from(limit), "{admitted}");
                    now += 70_000_000;
                }
                let mut waited = 0;
                loop {
                    let outcome = window.admit(counts, now, 1);
                    if outcome.rebased {
                        counts = Some(outcome.state);
                    }
                    let Err(wait) = outcome.verdict else { break };
                    waited += wait;
                    now += wait;
                    // The rest of this window, and what it takes for one to fade out of it in the next.
                    prop_assert!(waited <= 2 * 10 * S, "{waited}");
                }
            }
        }

        #[test]
        fn workers_at_a_boundary_forget_nothing(limit in 1u32..40, early in 0u64..1_000_000_000) {
            let window = Window::new(limit, 10 * S);
            let next = Counts { index: 8, previous: limit, current: 0 };
            let outcome = window.admit(Some(next), 80 * S - early, 1);
            prop_assert!(outcome.verdict.is_err());
            prop_assert_eq!((outcome.state, outcome.rebased), (next, false));
        }

        #[test]
        fn nothing_wraps(limit in any::<u32>(), per in any::<u64>(), index in any::<u64>(), previous in any::<u32>(), current in any::<u32>(), now in any::<u64>(), cost in any::<u32>()) {
            let (window, counts) = (Window::new(limit, per), Some(Counts { index, previous, current }));
            window.admit(counts, now, cost);
            window.charge(counts, now, cost);
            window.tightened(cost as u8).admit(counts, now, cost);
        }
    }
}
