//! How much of a worker's time coding takes, and what is done when it is too much.

use std::time::Duration;

use edgeweir_filter::Timestamp;

use crate::Coding;

/// How far levels are lowered: 0 not at all, 1 two thirds of what is configured, 2 the lowest, 3 nothing is coded.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct Ease(u8);

impl Ease {
    /// Nothing is coded.
    pub(crate) const OFF: Self = Self(3);

    /// So many steps; more than there are is the last.
    pub(crate) fn new(steps: u8) -> Self {
        Self(steps.min(Self::OFF.0))
    }

    /// The level to code at; `None` for not at all.
    pub(crate) fn level(self, coding: Coding, configured: u8) -> Option<u8> {
        let (_, lowest, _) = coding.level_option();
        let lowest = u8::try_from(lowest).unwrap_or(configured);
        match self.0 {
            0 => Some(configured),
            1 => Some((configured * 2 / 3).max(lowest)),
            2 => Some(lowest.min(configured)),
            _ => None,
        }
    }

    fn harder(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

/// What is known of the time that coding took; small, and passed by value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Load {
    /// Nanoseconds that coding may take now; below 0 it took more than its share.
    balance: i64,
    /// When `balance` was reckoned.
    at: Timestamp,
    /// When `ease` changed last.
    changed: Timestamp,
    /// How often lowering followed soon upon raising: each doubles the wait before the next try.
    relapses: u8,
    /// What to do.
    pub(crate) ease: Ease,
}

/// What may be saved up, as time of a worker: a burst of this length at full share.
const WINDOW: i64 = 1_000_000_000;
/// Time after a change before levels are lowered further: the change is to show first.
const LOWER_AFTER: Duration = Duration::from_millis(100);
/// Time after a change before levels are raised, and what it doubles up to.
const RAISE_AFTER: Duration = Duration::from_secs(2);
const MOST_RELAPSES: u8 = 4;

/// What is known after coding took `spent` until now, of which it may take `percent`: a bucket of time fills at the share
/// and is emptied by what is spent. A clock that goes back fills nothing.
pub(crate) fn spend(load: Load, spent: Duration, now: Timestamp, percent: u8) -> Load {
    let nanos = |time: Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
    let share = i64::from(percent);
    let capacity = WINDOW / 100 * share;
    let elapsed = nanos(now.since(load.at)).min(WINDOW.saturating_mul(2));
    let balance = load.balance.saturating_add(elapsed / 100 * share);
    let balance = balance.min(capacity).saturating_sub(nanos(spent));
    Load {
        balance: balance.max(-capacity),
        at: now,
        ..load
    }
}

/// What to do about the next response. With an empty bucket levels go down a step; nearly full for a while, they go up one.
/// When that was wrong the next try comes later: after 4, 8, 16, 32 seconds.
///
/// To be asked once for each response: those under way keep their level, and what they still take says nothing of a step
/// that was made meanwhile.
pub(crate) fn govern(load: Load, now: Timestamp, percent: u8) -> Load {
    let capacity = WINDOW / 100 * i64::from(percent);
    let mut after = spend(load, Duration::ZERO, now, percent);
    let since = now.since(load.changed);
    let patience = RAISE_AFTER.saturating_mul(1 << load.relapses);
    if after.balance < 0 && load.ease < Ease::OFF && since >= LOWER_AFTER {
        after.ease = Ease::new(load.ease.0 + 1);
        after.changed = now;
        after.balance = 0;
        if since < patience.saturating_mul(2) {
            after.relapses = (load.relapses + 1).min(MOST_RELAPSES);
        }
    } else if after.balance >= capacity / 4 * 3 && load.ease > Ease::default() && since >= patience
    {
        after.ease = load.ease.harder();
        after.changed = now;
    } else if load.ease == Ease::default() && since >= patience.saturating_mul(8) {
        after.relapses = 0;
    }
    after
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn levels_by_ease() {
        for (coding, configured, want) in [
            (Coding::Gzip, 9, [Some(9), Some(6), Some(1), None]),
            (Coding::Gzip, 6, [Some(6), Some(4), Some(1), None]),
            (Coding::Gzip, 4, [Some(4), Some(2), Some(1), None]),
            (Coding::Deflate, 1, [Some(1), Some(1), Some(1), None]),
            (Coding::Brotli, 4, [Some(4), Some(2), Some(0), None]),
            (Coding::Brotli, 0, [Some(0), Some(0), Some(0), None]),
        ] {
            for (steps, want) in (0..).zip(want) {
                let level = Ease::new(steps).level(coding, configured);
                assert_eq!(level, want, "{coding:?} {configured}, {steps}");
            }
        }
        assert_eq!(Ease::new(200), Ease::OFF);
    }

    const START: Timestamp = Timestamp::from_secs(1000);

    /// Runs requests that come every `gap` and take `cost` (for each ease) for `seconds`; the time taken, every ease
    /// there was, and the state at the end.
    fn run(
        load: Load,
        percent: u8,
        gap: Duration,
        cost: [u64; 4],
        seconds: u64,
    ) -> (Duration, Vec<Ease>, Load) {
        let (mut load, mut total, mut seen) = (load, Duration::ZERO, vec![load.ease]);
        let mut now = load.at.max(START);
        let until = now.plus(Duration::from_secs(seconds));
        while now < until {
            let spent = Duration::from_micros(cost[usize::from(load.ease.0)]);
            total += spent;
            now = now.plus(gap.max(spent));
            load = govern(spend(load, spent, now, percent), now, percent);
            if seen.last() != Some(&load.ease) {
                seen.push(load.ease);
            }
        }
        (total, seen, load)
    }

    #[test]
    fn what_it_does_by_load() {
        const MS: Duration = Duration::from_millis(1);
        let steps = |eases: &[Ease]| eases.iter().map(|ease| ease.0).collect::<Vec<_>>();
        // 100 µs a millisecond is 10 %.
        let (_, seen, idle) = run(Load::default(), 30, MS, [100, 50, 20, 0], 60);
        assert_eq!(steps(&seen), [0], "under its share nothing changes");
        // 50 % at the configured level, 20 % one step lower.
        let (_, seen, busy) = run(idle, 30, MS, [500, 200, 50, 0], 2);
        assert_eq!(steps(&seen), [0, 1], "one step is enough, and it stays");
        let (_, seen, _) = run(busy, 30, MS, [500, 200, 50, 0], 60);
        assert!(
            seen.len() < 12,
            "tries come later and later: {:?}",
            steps(&seen)
        );
        let (_, seen, off) = run(idle, 5, MS, [900, 800, 700, 0], 1);
        assert_eq!(steps(&seen), [0, 1, 2, 3], "down to nothing");
        let (_, seen, _) = run(off, 5, MS, [20, 10, 5, 0], 40);
        assert_eq!(steps(&seen), [3, 2, 1, 0], "and all the way back");
        let (_, seen, _) = run(Load::default(), 100, MS, [900, 500, 100, 0], 60);
        assert_eq!(steps(&seen), [0], "100 percent is no bound");
    }

    #[test]
    fn a_clock_that_goes_back_neither_fills_nor_hangs() {
        let spent = Duration::from_secs(1);
        let load = spend(Load::default(), spent, START, 10);
        let back = spend(load, Duration::ZERO, Timestamp::from_secs(10), 10);
        assert!(back.balance <= load.balance);
        let later = govern(back, Timestamp::from_secs(30), 10);
        assert!(later.balance > 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Whatever comes, coding takes no more than its share, a burst, and what the tries cost.
        #[test]
        fn the_share_is_kept(percent in 1..=90_u8, gap in 100..20_000_u64, full in 1..5_000_u64) {
            let cost = [full, full / 2, full / 4, 0];
            let (total, _, _) = run(Load::default(), percent, Duration::from_micros(gap), cost, 120);
            let allowed = Duration::from_secs(120) * u32::from(percent) / 100;
            // Before it may lower again a try runs for LOWER_AFTER, at worst at full load; at 120 s there are at most 40.
            let tries = LOWER_AFTER * 40;
            let burst = Duration::from_secs(1) * u32::from(percent) / 100 + Duration::from_micros(full) * 4;
            prop_assert!(total <= allowed + burst + tries, "{total:?} of {allowed:?}");
        }
    }
}
