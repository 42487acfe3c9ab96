//! The sliding window counter: the previous window's count fades out linearly while this one's grows.
//!
//! It assumes the previous window's requests were spread evenly; where they were not, an interval that straddles two
//! windows can see more than the limit (at most twice). GCRA has no such error; this is the alternative for those
//! whose contracts speak of windows.

use crate::gcra::Outcome;

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

    /// How long a count matters: two windows, nanoseconds.
    pub fn span(&self) -> u64 {
        self.per.saturating_mul(2)
    }

    /// Decides on `cost` requests at `now`. Pure: safe to call twice.
    pub fn admit(&self, before: Option<Counts>, now: u64, cost: u32) -> Outcome<Counts> {
        let index = now / self.per;
        let elapsed = now % self.per;
        let before = before.unwrap_or_default();
        let counts = match index.checked_sub(before.index) {
            Some(0) => before,
            Some(1) => Counts {
                index,
                previous: before.current,
                current: 0,
            },
            Some(_) => Counts {
                index,
                previous: 0,
                current: 0,
            },
            // The clock went back: keep the counts as this window's, which forgets nothing and ends with it.
            None => Counts { index, ..before },
        };
        let faded = scale(counts.previous, self.per - elapsed, self.per);
        let used = faded.saturating_add(counts.current);
        let wanted = used.saturating_add(cost);
        let reset = if counts.current > 0 {
            self.span() - elapsed
        } else {
            self.per - elapsed
        };
        if wanted <= self.limit {
            let state = Counts {
                current: counts.current.saturating_add(cost),
                ..counts
            };
            return Outcome {
                state,
                verdict: Ok(()),
                remaining: self.limit - wanted,
                reset,
            };
        }
        let remaining = self.limit.saturating_sub(used);
        Outcome {
            state: counts,
            verdict: Err(self.wait(counts, elapsed, cost)),
            remaining,
            reset,
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
            let counts = Counts { index: 7, previous: previous.min(limit), current: current.min(limit) };
            let now = 70 * S + elapsed * S;
            let outcome = window.admit(Some(counts), now, 1);
            if let Err(wait) = outcome.verdict {
                prop_assert!(wait > 0);
                prop_assert!(window.admit(Some(counts), now + wait, 1).verdict.is_ok(), "{wait}");
            }
        }

        #[test]
        fn nothing_wraps(limit in any::<u32>(), per in any::<u64>(), index in any::<u64>(), previous in any::<u32>(), current in any::<u32>(), now in any::<u64>(), cost in any::<u32>()) {
            Window::new(limit, per).admit(Some(Counts { index, previous, current }), now, cost);
        }
    }
}
