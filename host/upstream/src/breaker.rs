//! A circuit breaker: after failures in a row an endpoint is left alone, then tried with one request.

use std::time::{Duration, Instant};

/// When it opens, and for how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Failures in a row that open it; 0: never.
    pub failures: u32,
    /// How long it stays open before one request may try.
    pub open: Duration,
}

/// The breaker of one endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Breaker {
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Requests pass; so many have failed in a row.
    Closed(u32),
    /// No request passes until then.
    Open(Instant),
    /// One request is out to try.
    Probing,
}

impl Default for State {
    fn default() -> Self {
        Self::Closed(0)
    }
}

/// What the breaker says to a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// It may go.
    Pass,
    /// It may go, and decides whether others may: its end must be told, or [`Breaker::abandoned`].
    Probe,
}

impl Breaker {
    /// Whether a request would be let through now; changes nothing.
    pub fn would_admit(&self, now: Instant) -> bool {
        match self.state {
            State::Closed(_) => true,
            State::Open(until) => now >= until,
            State::Probing => false,
        }
    }

    /// Lets a request through, or not.
    pub fn admit(&mut self, now: Instant) -> Option<Admission> {
        match self.state {
            State::Closed(_) => Some(Admission::Pass),
            State::Open(until) if now >= until => {
                self.state = State::Probing;
                Some(Admission::Probe)
            }
            State::Open(_) | State::Probing => None,
        }
    }

    /// A request went well: failures are counted from none again.
    pub fn succeeded(&mut self, admission: Admission) {
        // One that was let through before it opened says nothing about now.
        if admission == Admission::Probe || matches!(self.state, State::Closed(_)) {
            self.state = State::Closed(0);
        }
    }

    /// A request failed; `true` when that opened the breaker.
    pub fn failed(&mut self, admission: Admission, now: Instant, policy: Policy) -> bool {
        let opens = match self.state {
            State::Closed(failures) => {
                let failures = failures.saturating_add(1);
                self.state = State::Closed(failures);
                policy.failures > 0 && failures >= policy.failures
            }
            State::Probing => admission == Admission::Probe,
            State::Open(_) => false,
        };
        if opens {
            self.state = State::Open(now + policy.open);
        }
        opens
    }

    /// A request ended without saying anything about the endpoint: its client left.
    pub fn abandoned(&mut self, admission: Admission, now: Instant) {
        if admission == Admission::Probe && self.state == State::Probing {
            // The next one may try at once.
            self.state = State::Open(now);
        }
    }

    /// `closed`, `open` or `half-open`.
    pub fn name(&self) -> &'static str {
        match self.state {
            State::Closed(_) => "closed",
            State::Open(_) => "open",
            State::Probing => "half-open",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        failures: 3,
        open: Duration::from_secs(5),
    };

    /// What happens, in a word each: `+` a success, `-` a failure, `?` an admission, `x` an abandoned one, `s` a second.
    fn play(events: &str, policy: Policy) -> (&'static str, String) {
        let mut breaker = Breaker::default();
        let mut now = Instant::now();
        let mut last = Admission::Pass;
        let mut said = String::new();
        for event in events.chars() {
            match event {
                '+' => breaker.succeeded(last),
                '-' => {
                    breaker.failed(last, now, policy);
                }
                'x' => breaker.abandoned(last, now),
                's' => now += Duration::from_secs(1),
                _ => {
                    assert_eq!(breaker.would_admit(now), {
                        let mut copy = breaker;
                        copy.admit(now).is_some()
                    });
                    match breaker.admit(now) {
                        Some(admission) => {
                            last = admission;
                            said.push(if admission == Admission::Probe {
                                'P'
                            } else {
                                'y'
                            });
                        }
                        None => said.push('n'),
                    }
                }
            }
        }
        (breaker.name(), said)
    }

    #[test]
    fn opens_waits_probes_and_closes() {
        for (name, events, state, said) in [
            ("new", "?", "closed", "y"),
            ("two failures are not three", "--?", "closed", "y"),
            (
                "a success in between counts from none",
                "--+--?",
                "closed",
                "y",
            ),
            ("three in a row", "---?", "open", "n"),
            ("still within its time", "---ssss?", "open", "n"),
            ("one probe and no more", "---sssss???", "half-open", "Pnn"),
            ("a good probe closes", "---sssss?+?", "closed", "Py"),
            ("a bad probe opens anew", "---sssss?-?", "open", "Pn"),
            (
                "and for the whole time",
                "---sssss?-ssss?s?",
                "half-open",
                "PnP",
            ),
            (
                "a probe whose client left frees the place",
                "---sssss?x?",
                "half-open",
                "PP",
            ),
            (
                "a late failure does not prolong it",
                "---ssss-s?",
                "half-open",
                "P",
            ),
            ("a late success does not close it", "---+?", "open", "n"),
        ] {
            assert_eq!(play(events, POLICY), (state, said.to_owned()), "{name}");
        }
        let never = Policy {
            failures: 0,
            ..POLICY
        };
        assert_eq!(play("----------?", never).1, "y", "0 failures: never");
    }
}
