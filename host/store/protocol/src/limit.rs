//! Limits as pure functions: GCRA and the sliding window, several in one decision, all or none.
//!
//! The same arithmetic as the rate limiter's own (a property holds them together), so that a rule means the same locally
//! and through the store. Integers saturate; the clock is an argument.

/// How far ahead a state may have been written without the clock having been set back, nanoseconds.
pub const SLACK: u64 = 1_000_000_000;

/// One limit of a decision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    /// A cell every `interval` nanoseconds; cells may come early by `tolerance` nanoseconds.
    Gcra {
        /// Nanoseconds between cells, 1 or more.
        interval: u64,
        /// Nanoseconds a cell may be early: the burst less one, times the interval.
        tolerance: u64,
    },
    /// At most `limit` in a window of `per` nanoseconds, as estimated from two counts.
    Window {
        /// The window, nanoseconds: whole seconds.
        per: u64,
        /// Requests in it.
        limit: u32,
    },
}

/// What is kept of one limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// The theoretical arrival time, nanoseconds since the epoch.
    Gcra(u64),
    /// Counts of two windows.
    Window {
        /// Which window `current` counts: time divided by the period.
        index: u64,
        /// Requests of the window before.
        previous: u32,
        /// Requests of this window.
        current: u32,
    },
}

/// What is kept of all limits of one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kept {
    /// In the order of the limits.
    pub states: Vec<State>,
    /// The clock when they were written, nanoseconds since the epoch; `None`: written without it.
    ///
    /// This alone says that the clock was set back. A state far ahead does not: who reads it may ask with a shorter burst
    /// than who wrote it, and what the other counted is to stay.
    pub written: Option<u64>,
}

/// What one limit says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Cells left after the decision.
    pub remaining: u32,
    /// Nanoseconds until the whole quota is there again.
    pub reset: u64,
    /// Nanoseconds to wait; 0 when this limit admits.
    pub wait: u64,
}

/// All limits of one key, decided together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// In the order of the limits.
    pub standings: Vec<Standing>,
    /// What to write; `None` when refused: a refusal costs nothing.
    pub after: Option<Kept>,
}

impl Decision {
    /// Whether every limit admits.
    pub fn admitted(&self) -> bool {
        self.standings.iter().all(|standing| standing.wait == 0)
    }

    /// Nanoseconds until all limits admit; 0 when they do.
    pub fn wait(&self) -> u64 {
        self.standings.iter().map(|it| it.wait).max().unwrap_or(0)
    }
}

struct Outcome {
    state: State,
    standing: Standing,
    /// The clock was set back: the state is to be written whatever the verdict.
    rebased: bool,
}

/// Decides on `cost` cells at `now`, given what was kept. Pure: safe to call twice. A cost over what a limit can ever
/// give takes all of it.
pub fn decide(limits: &[Limit], before: Option<&Kept>, now: u64, cost: u32) -> Decision {
    let read = Read::of(before, now);
    let at = |cost| -> Vec<Outcome> {
        let outcomes = limits.iter().enumerate();
        outcomes
            .map(|(at, limit)| limit.admit(read.state(at), now, cost))
            .collect()
    };
    let outcomes = at(cost);
    let standings: Vec<Standing> = outcomes.iter().map(|outcome| outcome.standing).collect();
    let rebased = read.back > 0 || outcomes.iter().any(|outcome| outcome.rebased);
    let after = if standings.iter().all(|standing| standing.wait == 0) {
        (cost > 0 || rebased).then_some(outcomes)
    } else {
        rebased.then(|| at(0))
    };
    let after = after.map(|outcomes| Kept {
        states: outcomes.iter().map(|outcome| outcome.state).collect(),
        written: Some(read.written),
    });
    Decision { standings, after }
}

/// Takes `cost` cells that were used already, given what was kept; what they exceed a limit by is forgiven. Pure: safe to
/// call twice. It always admits.
pub fn charge(limits: &[Limit], before: Option<&Kept>, now: u64, cost: u32) -> Decision {
    let read = Read::of(before, now);
    let mut rebased = read.back > 0;
    let mut states = Vec::with_capacity(limits.len());
    for (at, limit) in limits.iter().enumerate() {
        let outcome = limit.admit(read.state(at), now, 0);
        rebased |= outcome.rebased;
        states.push(limit.charge(outcome.state, now, cost));
    }
    let after = Kept {
        states,
        written: Some(read.written),
    };
    let mut standings = decide(limits, Some(&after), now, 0).standings;
    for standing in &mut standings {
        standing.wait = 0;
    }
    Decision {
        standings,
        after: (cost > 0 || rebased).then_some(after),
    }
}

/// What was kept, by the clock as it is now.
struct Read<'a> {
    states: &'a [State],
    /// Nanoseconds that the clock was set back by since.
    back: u64,
    /// What the next state says it was written at.
    written: u64,
}

impl<'a> Read<'a> {
    fn of(before: Option<&'a Kept>, now: u64) -> Self {
        let written = before.and_then(|kept| kept.written).unwrap_or(now);
        let back = Some(written.saturating_sub(now)).filter(|back| *back > SLACK);
        Self {
            states: before.map_or(&[], |kept| &kept.states),
            back: back.unwrap_or(0),
            written: if back.is_some() {
                now
            } else {
                written.max(now)
            },
        }
    }

    /// A clock set back would lock everyone out until it has caught up: what was used counts from the new time on.
    fn state(&self, at: usize) -> Option<State> {
        Some(match *self.states.get(at)? {
            State::Gcra(tat) => State::Gcra(tat.saturating_sub(self.back)),
            counts => counts,
        })
    }
}

/// When states stop to matter, nanoseconds since the epoch.
pub fn expires(limits: &[Limit], states: &[State]) -> u64 {
    let ends = limits
        .iter()
        .zip(states)
        .map(|(limit, state)| match (limit, state) {
            (_, State::Gcra(tat)) => *tat,
            (Limit::Window { per, .. }, State::Window { index, .. }) => {
                index.saturating_add(2).saturating_mul(*per)
            }
            (Limit::Gcra { .. }, State::Window { .. }) => 0,
        });
    // A second more: clocks of two stores over one Redis differ.
    ends.max().unwrap_or(0).saturating_add(SLACK)
}

impl Limit {
    /// How long a state can matter at most, nanoseconds.
    pub fn span(&self) -> u64 {
        match *self {
            Self::Gcra {
                interval,
                tolerance,
            } => interval.saturating_add(tolerance),
            Self::Window { per, .. } => per.saturating_mul(2),
        }
    }

    fn admit(&self, before: Option<State>, now: u64, cost: u32) -> Outcome {
        match (*self, before) {
            (
                Self::Gcra {
                    interval,
                    tolerance,
                },
                before,
            ) => {
                let tat = match before {
                    Some(State::Gcra(tat)) => Some(tat),
                    _ => None,
                };
                gcra(interval.max(1), tolerance, tat, now, cost)
            }
            (Self::Window { per, limit }, before) => {
                window(per.max(1), limit.max(1), before, now, cost)
            }
        }
    }

    /// From the state as of now.
    fn charge(&self, state: State, now: u64, cost: u32) -> State {
        match (*self, state) {
            (Self::Gcra { interval, .. }, State::Gcra(tat)) => {
                let after = tat.saturating_add(interval.saturating_mul(u64::from(cost)));
                State::Gcra(after.min(now.saturating_add(self.span())).max(tat))
            }
            (
                Self::Window { limit, .. },
                State::Window {
                    index,
                    previous,
                    current,
                },
            ) => State::Window {
                index,
                previous,
                current: current.saturating_add(cost).min(limit).max(current),
            },
            (_, other) => other,
        }
    }
}

fn gcra(interval: u64, tolerance: u64, tat: Option<u64>, now: u64, cost: u32) -> Outcome {
    let span = interval.saturating_add(tolerance);
    let capacity = span / interval;
    let tat = tat.unwrap_or(now).max(now);
    let after = tat.saturating_add(interval.saturating_mul(u64::from(cost).min(capacity)));
    let ahead = after.saturating_sub(now);
    let cells = |free: u64| u32::try_from(free / interval).unwrap_or(u32::MAX);
    if ahead <= span {
        return Outcome {
            state: State::Gcra(after),
            standing: Standing {
                remaining: cells(span - ahead),
                reset: ahead,
                wait: 0,
            },
            rebased: false,
        };
    }
    let before = tat.saturating_sub(now);
    Outcome {
        state: State::Gcra(tat),
        standing: Standing {
            remaining: cells(span.saturating_sub(before)),
            reset: before,
            wait: ahead - span,
        },
        rebased: false,
    }
}

fn window(per: u64, limit: u32, before: Option<State>, now: u64, cost: u32) -> Outcome {
    let cost = cost.min(limit);
    let (index, elapsed, previous, current, rebased) = counts(per, before, now);
    let faded = scale(previous, per - elapsed, per);
    let used = faded.saturating_add(current);
    let wanted = used.saturating_add(cost);
    let span = per.saturating_mul(2);
    if wanted <= limit {
        return Outcome {
            state: State::Window {
                index,
                previous,
                current: current.saturating_add(cost),
            },
            standing: Standing {
                remaining: limit - wanted,
                reset: span - elapsed,
                wait: 0,
            },
            rebased,
        };
    }
    let reset = if current > 0 { span } else { per } - elapsed;
    Outcome {
        state: State::Window {
            index,
            previous,
            current,
        },
        standing: Standing {
            remaining: limit.saturating_sub(used),
            reset,
            wait: wait(per, limit, (previous, current), elapsed, cost).max(1),
        },
        rebased,
    }
}

/// The counts as of now: index, how much of the window has passed, the two counts, and whether the clock was set back.
fn counts(per: u64, before: Option<State>, now: u64) -> (u64, u64, u32, u32, bool) {
    let (index, elapsed) = (now / per, now % per);
    let Some(State::Window {
        index: was,
        previous,
        current,
    }) = before
    else {
        return (index, elapsed, 0, 0, false);
    };
    match index.checked_sub(was) {
        Some(0) => (index, elapsed, previous, current, false),
        Some(1) => (index, elapsed, current, 0, false),
        Some(_) => (index, elapsed, 0, 0, false),
        // Another clock was in the next window already.
        None if was.saturating_mul(per).saturating_sub(now) <= SLACK => {
            (was, 0, previous, current, false)
        }
        // The clock was set back: what was used fades from now on, and is gone with this window.
        None => (index, elapsed, previous.max(current), 0, true),
    }
}

/// Nanoseconds until `cost` more would fit, if nothing else came.
fn wait(per: u64, limit: u32, (previous, current): (u32, u32), elapsed: u64, cost: u32) -> u64 {
    let room = |fading: u32, fixed: u32| {
        let free = limit.checked_sub(fixed.checked_add(cost)?)?;
        // The part of the window that must have passed before `fading` has shrunk to `free`.
        let part = u128::from(per) * u128::from(free.min(fading)) / u128::from(fading.max(1));
        (fading > 0).then(|| per - u64::try_from(part).unwrap_or(0))
    };
    match room(previous, current) {
        Some(at) if at > elapsed => at - elapsed,
        _ => (per - elapsed).saturating_add(room(current, 0).unwrap_or(per)),
    }
}

/// `count * part / whole`, rounded up: an estimate never counts too little.
fn scale(count: u32, part: u64, whole: u64) -> u32 {
    let scaled = (u128::from(count) * u128::from(part)).div_ceil(u128::from(whole.max(1)));
    u32::try_from(scaled).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;
    const HOUR: u64 = 3600 * S;

    /// `count` in `per` seconds, `burst` of them at once.
    fn per(count: u64, per: u64, burst: u64) -> Limit {
        let interval = (per * S).div_ceil(count);
        Limit::Gcra {
            interval,
            tolerance: interval * (burst - 1),
        }
    }

    /// Asks for one cell; whether it was there.
    fn takes(limits: &[Limit], kept: &mut Option<Kept>, now: u64) -> bool {
        let decision = decide(limits, kept.as_ref(), now, 1);
        let admitted = decision.admitted();
        *kept = decision.after.or(kept.take());
        admitted
    }

    #[test]
    fn all_limits_or_none() {
        let window = Limit::Window {
            per: 10 * S,
            limit: 3,
        };
        let limits = [per(1, 1, 10), window];
        let mut kept = None;
        let admitted = (0..10)
            .filter(|_| takes(&limits, &mut kept, 100 * S))
            .count();
        assert_eq!(admitted, 3);
        assert_eq!(
            kept.and_then(|it| it.states.first().copied()),
            Some(State::Gcra(103 * S)),
            "the limit that would have admitted was not charged for what the other refused"
        );
    }

    #[test]
    fn edges_of_other_numbers_give_nothing_back() {
        for (name, one, other, most) in [
            (
                "a shorter burst",
                per(1000, 3600, 1000),
                per(1000, 3600, 50),
                1000,
            ),
            (
                "another window",
                per(1000, 3600, 1000),
                per(100, 60, 100),
                1100,
            ),
            ("a tenth", per(1000, 3600, 1000), per(100, 3600, 100), 1000),
        ] {
            let (mut kept, mut admitted) = (None, 0);
            for at in 0..6000 {
                // All within 6 ms.
                let now = 1_000 * HOUR + at * 1000;
                admitted += usize::from(takes(&[one], &mut kept, now));
                admitted += usize::from(at % 2 == 1 && takes(&[other], &mut kept, now));
            }
            assert!((100..=most).contains(&admitted), "{name}: {admitted}");
            let refused = decide(&[other], kept.as_ref(), 1_000 * HOUR, 1);
            assert_eq!((refused.admitted(), refused.after), (false, None), "{name}");
        }
    }

    #[test]
    fn a_charge_of_other_numbers_gives_nothing_back() {
        let (one, other) = (per(1000, 3600, 1000), per(1000, 3600, 50));
        let now = 1_000 * HOUR;
        let used = charge(&[one], None, now, 1000).after;
        let after = charge(&[other], used.as_ref(), now, 7)
            .after
            .expect("written");
        assert_eq!(after.states, [State::Gcra(now + HOUR)]);
        assert!(expires(&[other], &after.states) > now + HOUR);
    }

    #[test]
    fn a_clock_set_back_is_written_though_refused() {
        let limits = [per(1, 1, 5)];
        let mut kept = None;
        for _ in 0..5 {
            assert!(takes(&limits, &mut kept, 90_000 * S));
        }
        let decision = decide(&limits, kept.as_ref(), 100 * S, 1);
        assert_eq!(decision.wait(), S);
        let after = Kept {
            states: vec![State::Gcra(105 * S)],
            written: Some(100 * S),
        };
        assert_eq!(decision.after, Some(after), "what was used, and no more");
        let look = decide(&limits, kept.as_ref(), 90_000 * S - SLACK, 0);
        assert_eq!(look.after, None, "clocks of two stores differ");
    }

    #[test]
    fn a_state_without_its_time_counts_as_it_is() {
        let kept = Kept {
            states: vec![State::Gcra(1_000 * HOUR + HOUR)],
            written: None,
        };
        let refused = decide(&[per(1000, 3600, 50)], Some(&kept), 1_000 * HOUR, 1);
        assert_eq!((refused.admitted(), refused.after), (false, None));
        let admitted = decide(&[per(1000, 3600, 1000)], Some(&kept), 1_001 * HOUR, 1);
        let written = admitted.after.and_then(|after| after.written);
        assert_eq!(written, Some(1_001 * HOUR));
    }
}
