//! When a server that fails is left alone, and when it is tried again.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::Timestamp;

/// Refusals and errors in a row that open it; one time-out does, since that is what a request pays most for.
const REFUSALS: u32 = 3;
/// How long a server is left alone at first, and at most.
const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(5);

/// A circuit breaker, one for each server in a worker or instance.
///
/// Closed, it lets every request through. One time-out, or three failures of another kind in a row, open it: requests are
/// then to do without the server. After 250 ms one request is let through as a probe, and if that fails the next after
/// twice as long, 5 s at most; each pause is up to a quarter shorter by chance, so that workers do not probe together.
/// Any success closes it. Nothing has to be reported back: a probe that is lost is followed by another.
///
/// ```
/// # use edgeweir_filter::{Breaker, Failed, Timestamp};
/// let (breaker, now) = (Breaker::default(), Timestamp::from_secs(1));
/// let pass = breaker.ask(now).expect("closed at first");
/// assert!(breaker.failed(pass, Failed::TimedOut.into(), now), "it opened");
/// assert!(breaker.ask(now).is_none());
/// ```
#[derive(Debug, Default)]
pub struct Breaker {
    seed: RandomState,
    /// Counts openings and probes: what was asked before one of them says nothing about it.
    turn: Cell<u32>,
    /// Failures in a row while closed.
    refusals: Cell<u32>,
    /// While open: the pause that is under way, and its end.
    open: Cell<Option<(Duration, Timestamp)>>,
}

/// Leave to ask the server once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pass(u32);

/// How a server failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// It took longer than allowed.
    TimedOut,
    /// It refused, or answered what it should not have.
    Refused,
}

impl From<crate::Failed> for Trouble {
    fn from(failed: crate::Failed) -> Self {
        match failed {
            crate::Failed::TimedOut => Self::TimedOut,
            _ => Self::Refused,
        }
    }
}

impl Breaker {
    /// Leave to ask the server now; `None` while it is to be left alone.
    pub fn ask(&self, now: Timestamp) -> Option<Pass> {
        if let Some((pause, until)) = self.open.get() {
            // A clock set back is no reason to wait longer than the pause.
            if now < until && until.since(now) <= pause {
                return None;
            }
            let next = pause.saturating_mul(2).min(LONGEST);
            self.pause(next, now);
        }
        Some(Pass(self.turn.get()))
    }

    /// What was asked was answered. Whether that closed it.
    pub fn well(&self, _: Pass) -> bool {
        self.refusals.set(0);
        self.open.take().is_some()
    }

    /// What was asked was not answered. Whether that opened it.
    pub fn failed(&self, pass: Pass, trouble: Trouble, now: Timestamp) -> bool {
        // Asked before it opened, or before the last probe: known already.
        if pass.0 != self.turn.get() || self.open.get().is_some() {
            return false;
        }
        let refusals = self.refusals.get().saturating_add(1);
        self.refusals.set(refusals);
        if trouble == Trouble::Refused && refusals < REFUSALS {
            return false;
        }
        self.pause(FIRST, now);
        true
    }

    /// Whether the server is being left alone.
    pub fn is_open(&self) -> bool {
        self.open.get().is_some()
    }

    fn pause(&self, pause: Duration, now: Timestamp) {
        let turn = self.turn.get().wrapping_add(1);
        self.turn.set(turn);
        let shorter = pause.as_nanos() / 4 * u128::from(self.seed.hash_one(turn) % 1_024) / 1_024;
        let shorter = Duration::from_nanos(u64::try_from(shorter).unwrap_or(0));
        self.open
            .set(Some((pause, now.plus(pause.saturating_sub(shorter)))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Failed;

    const MS: u64 = 1_000_000;

    fn at(ms: u64) -> Timestamp {
        Timestamp((1_000_000 + ms) * MS)
    }

    #[test]
    fn what_opens_it() {
        use Trouble::{Refused, TimedOut};
        for (name, troubles, opens) in [
            ("one time-out", &[TimedOut][..], true),
            ("two refusals", &[Refused, Refused], false),
            ("three refusals", &[Refused; 3], true),
            ("a refusal and a time-out", &[Refused, TimedOut], true),
        ] {
            let breaker = Breaker::default();
            let mut opened = 0;
            for trouble in troubles {
                let pass = breaker.ask(at(0)).expect(name);
                opened += u32::from(breaker.failed(pass, *trouble, at(0)));
            }
            assert_eq!(
                (opened, breaker.is_open()),
                (u32::from(opens), opens),
                "{name}"
            );
        }
        let breaker = Breaker::default();
        for _ in 0..10 {
            let pass = breaker.ask(at(0)).expect("closed");
            assert!(!breaker.failed(pass, Refused, at(0)));
            assert!(!breaker.well(pass), "a success in between counts anew");
        }
    }

    #[test]
    fn one_probe_a_pause_and_pauses_grow() {
        let breaker = Breaker::default();
        // Many were under way when the first was too late: one opening, whatever the others say.
        let passes: Vec<Pass> = (0..50).filter_map(|_| breaker.ask(at(0))).collect();
        let opened = passes
            .iter()
            .filter(|pass| breaker.failed(**pass, Trouble::TimedOut, at(20)));
        assert_eq!(opened.count(), 1);
        let mut probes = Vec::new();
        for ms in 20..30_000 {
            if let Some(pass) = breaker.ask(at(ms)) {
                probes.push(ms);
                assert!(
                    !breaker.failed(pass, Failed::TimedOut.into(), at(ms)),
                    "it was open"
                );
                assert!(breaker.ask(at(ms)).is_none(), "one probe");
            }
        }
        let gaps: Vec<u64> = [&[20], &probes[..]]
            .concat()
            .windows(2)
            .map(|pair| pair[1] - pair[0])
            .collect();
        for (gap, pause) in gaps
            .iter()
            .zip([250, 500, 1_000, 2_000, 4_000, 5_000, 5_000])
        {
            assert!((pause * 3 / 4..=pause + 1).contains(gap), "{gaps:?}");
        }
        assert!(probes.len() >= 8, "{probes:?}");
    }

    #[test]
    fn a_probe_that_is_answered_closes_it_and_the_next_pause_is_short() {
        let breaker = Breaker::default();
        let open = |ms| {
            let pass = breaker.ask(at(ms)).expect("closed");
            assert!(breaker.failed(pass, Trouble::TimedOut, at(ms)));
        };
        open(0);
        for ms in [300, 900, 2_000] {
            assert!(
                breaker.ask(at(ms)).is_some(),
                "a lost probe is followed by another"
            );
        }
        let pass = breaker.ask(at(10_000)).expect("a probe");
        assert!(breaker.well(pass));
        assert!(!breaker.well(pass), "said once");
        open(10_001);
        assert!(breaker.ask(at(10_252)).is_some());
    }

    #[test]
    fn a_clock_set_back_is_no_reason_to_wait() {
        let breaker = Breaker::default();
        let pass = breaker.ask(at(900_000)).expect("closed");
        breaker.failed(pass, Trouble::TimedOut, at(900_000));
        assert!(breaker.ask(at(0)).is_some());
    }
}
