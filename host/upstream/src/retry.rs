//! Whether a request is sent again, when, and why not.

use std::time::Duration;

use http::Method;

/// What may be repeated, and how often.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Repetitions of one request; 0: none.
    pub attempts: u32,
    /// Answers that are as good as none: of 502, 503 and 504.
    pub statuses: Vec<u16>,
    /// The longest pause before the first repetition; it doubles with each.
    pub base: Duration,
    /// The longest pause before any.
    pub most: Duration,
    /// Repetitions under way, per cent of the requests under way.
    pub budget_percent: u32,
    /// Repetitions that may always be under way.
    pub budget_least: u32,
}

impl Policy {
    /// Nothing is repeated.
    pub fn off() -> Self {
        Self {
            attempts: 0,
            statuses: Vec::new(),
            base: Duration::from_millis(25),
            most: Duration::from_millis(250),
            budget_percent: 20,
            budget_least: 3,
        }
    }
}

/// How an attempt ended that could be followed by another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// There was no connection: nothing was sent.
    Unconnected,
    /// The upstream said it has done nothing with it (RFC 9113 §8.7: REFUSED_STREAM).
    Refused,
    /// The connection ended before a response head.
    Reset,
    /// An answer with this status.
    Status(u16),
}

/// What is known of a request.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Its method.
    pub method: &'a Method,
    /// It has no body, or nothing of it was taken yet: it can be sent once more as it was.
    pub whole: bool,
    /// Repetitions so far.
    pub repeated: u32,
}

/// How much is under way at an upstream.
#[derive(Clone, Copy, Default, Debug)]
pub struct UnderWay {
    /// Requests.
    pub requests: usize,
    /// Repetitions among them.
    pub repetitions: usize,
}

/// Why a request is not repeated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Final {
    /// The policy has no repetitions.
    Off,
    /// It ended in a way the policy does not name.
    Condition,
    /// Its method is not idempotent, and something of it may have been done.
    Method,
    /// Bytes of its body are gone.
    BodySent,
    /// It was repeated as often as may be.
    Attempts,
    /// Too many repetitions are under way already.
    Budget,
}

impl Final {
    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Condition => "condition",
            Self::Method => "method",
            Self::BodySent => "body_sent",
            Self::Attempts => "attempts",
            Self::Budget => "budget",
        }
    }
}

/// Whether to send a request again after it `ended` so.
pub fn again(
    ended: Ended,
    asked: Asked<'_>,
    policy: &Policy,
    under_way: UnderWay,
) -> Result<(), Final> {
    if policy.attempts == 0 {
        return Err(Final::Off);
    }
    let untouched = match ended {
        Ended::Unconnected | Ended::Refused => true,
        Ended::Reset => false,
        Ended::Status(status) if policy.statuses.contains(&status) => false,
        Ended::Status(_) => return Err(Final::Condition),
    };
    // RFC 9110 §9.2.2: a request with a non-idempotent method is not retried automatically unless there is some means
    // to know that it was never applied.
    if !untouched && !asked.method.is_idempotent() {
        return Err(Final::Method);
    }
    if !asked.whole {
        return Err(Final::BodySent);
    }
    if asked.repeated >= policy.attempts {
        return Err(Final::Attempts);
    }
    let share = under_way
        .requests
        .saturating_mul(policy.budget_percent as usize)
        / 100;
    if under_way.repetitions >= share.max(policy.budget_least as usize) {
        return Err(Final::Budget);
    }
    Ok(())
}

/// The pause before repetition number `repeated + 1`: anything up to a bound that doubles, so that those who failed
/// together do not come back together. `chance` is any number.
pub fn pause(repeated: u32, policy: &Policy, chance: u64) -> Duration {
    let doubled = policy.base.saturating_mul(1 << repeated.min(16));
    let bound = doubled.min(policy.most);
    let us = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(chance % us.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        Policy {
            attempts: 2,
            statuses: vec![503],
            ..Policy::off()
        }
    }

    #[test]
    fn what_is_repeated_and_what_is_not() {
        use Ended::{Refused, Reset, Status, Unconnected};
        let some = UnderWay {
            requests: 100,
            repetitions: 19,
        };
        let many = UnderWay {
            requests: 100,
            repetitions: 20,
        };
        let few = UnderWay {
            requests: 1,
            repetitions: 2,
        };
        for (name, ended, method, whole, repeated, under_way, want) in [
            (
                "no connection",
                Unconnected,
                Method::GET,
                true,
                0,
                some,
                Ok(()),
            ),
            (
                "no connection, any method",
                Unconnected,
                Method::POST,
                true,
                0,
                some,
                Ok(()),
            ),
            (
                "refused, any method",
                Refused,
                Method::POST,
                true,
                0,
                some,
                Ok(()),
            ),
            (
                "refused after bytes of the body",
                Refused,
                Method::PUT,
                false,
                0,
                some,
                Err(Final::BodySent),
            ),
            ("reset", Reset, Method::GET, true, 0, some, Ok(())),
            (
                "reset, idempotent",
                Reset,
                Method::DELETE,
                true,
                0,
                some,
                Ok(()),
            ),
            (
                "reset, not idempotent",
                Reset,
                Method::POST,
                true,
                0,
                some,
                Err(Final::Method),
            ),
            (
                "reset, unknown method",
                Reset,
                Method::PATCH,
                true,
                0,
                some,
                Err(Final::Method),
            ),
            (
                "reset after bytes of the body",
                Reset,
                Method::PUT,
                false,
                0,
                some,
                Err(Final::BodySent),
            ),
            (
                "a named status",
                Status(503),
                Method::GET,
                true,
                1,
                some,
                Ok(()),
            ),
            (
                "a named status, not idempotent",
                Status(503),
                Method::POST,
                true,
                0,
                some,
                Err(Final::Method),
            ),
            (
                "another status",
                Status(502),
                Method::GET,
                true,
                0,
                some,
                Err(Final::Condition),
            ),
            (
                "often enough",
                Unconnected,
                Method::GET,
                true,
                2,
                some,
                Err(Final::Attempts),
            ),
            (
                "a fifth is under way",
                Unconnected,
                Method::GET,
                true,
                0,
                many,
                Err(Final::Budget),
            ),
            (
                "three are always allowed",
                Unconnected,
                Method::GET,
                true,
                0,
                few,
                Ok(()),
            ),
        ] {
            let asked = Asked {
                method: &method,
                whole,
                repeated,
            };
            assert_eq!(again(ended, asked, &policy(), under_way), want, "{name}");
        }
        let asked = Asked {
            method: &Method::GET,
            whole: true,
            repeated: 0,
        };
        assert_eq!(
            again(Unconnected, asked, &Policy::off(), some),
            Err(Final::Off)
        );
    }

    #[test]
    fn the_pause_doubles_up_to_its_bound() {
        let policy = policy();
        for (repeated, bound) in [(0, 25), (1, 50), (2, 100), (3, 200), (4, 250), (40, 250)] {
            let bound = Duration::from_millis(bound);
            let mut longest = Duration::ZERO;
            for chance in 0..300_000u64 {
                let pause = pause(repeated, &policy, chance);
                assert!(pause <= bound, "{repeated}: {pause:?}");
                longest = longest.max(pause);
            }
            assert_eq!(longest, bound, "{repeated}");
        }
    }
}
