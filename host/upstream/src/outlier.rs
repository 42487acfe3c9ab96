//! Passive health: an endpoint that fails too large a share of what it is sent is left out for a while.

use std::time::{Duration, Instant};

/// What too large a share is, and for how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Failures, per cent of the requests of an interval.
    pub percent: u32,
    /// Requests of an interval below which nothing is concluded.
    pub requests: u32,
    /// Over what the share is taken.
    pub interval: Duration,
    /// How long it is left out the first time; each time in a row that much longer, up to ten times.
    pub eject: Duration,
    /// Endpoints left out at once, per cent of all; a single one of two or more always may be.
    pub most_percent: u32,
}

/// The most an ejection grows.
const LONGEST: u32 = 10;

/// What is known of one endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Outlier {
    since: Option<Instant>,
    requests: u32,
    failures: u32,
    ejected_until: Option<Instant>,
    times: u32,
}

/// How many endpoints there are, and how many of them are left out.
#[derive(Clone, Copy, Debug)]
pub struct Peers {
    /// All.
    pub all: usize,
    /// Those left out now.
    pub ejected: usize,
}

impl Outlier {
    /// Whether it is left out.
    pub fn ejected(&self, now: Instant) -> bool {
        self.ejected_until.is_some_and(|until| now < until)
    }

    /// Notes how a request ended; `true` when the endpoint is left out from now on.
    pub fn ended(&mut self, good: bool, now: Instant, policy: &Policy, peers: Peers) -> bool {
        if self.ejected(now) {
            // Sent before, or because all are left out.
            return false;
        }
        let began = *self.since.get_or_insert(now);
        if now.saturating_duration_since(began) >= policy.interval {
            // A whole interval without an ejection: one step back.
            if self.times > 0 && self.ejected_until.is_none_or(|until| until < began) {
                self.times -= 1;
            }
            self.since = Some(now);
            (self.requests, self.failures) = (0, 0);
        }
        self.requests = self.requests.saturating_add(1);
        self.failures = self.failures.saturating_add(u32::from(!good));
        let enough = self.requests >= policy.requests.max(1);
        let share =
            u64::from(self.failures) * 100 >= u64::from(policy.percent) * u64::from(self.requests);
        if good || !enough || !share || !room(policy, peers) {
            return false;
        }
        self.times = (self.times + 1).min(LONGEST);
        self.ejected_until = Some(now + policy.eject * self.times);
        self.since = None;
        (self.requests, self.failures) = (0, 0);
        true
    }
}

/// Whether one more may be left out.
fn room(policy: &Policy, peers: Peers) -> bool {
    if peers.all < 2 {
        return false;
    }
    let most = (peers.all * policy.most_percent as usize / 100).clamp(1, peers.all - 1);
    peers.ejected < most
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        percent: 50,
        requests: 4,
        interval: Duration::from_secs(10),
        eject: Duration::from_secs(30),
        most_percent: 50,
    };

    /// `+` a success, `-` a failure, a digit that many tens of seconds.
    fn play(events: &str, peers: Peers) -> (Outlier, Instant, usize) {
        let mut outlier = Outlier::default();
        let mut now = Instant::now();
        let mut ejections = 0;
        for event in events.chars() {
            match event.to_digit(10) {
                Some(tens) => now += Duration::from_secs(10) * tens,
                None => ejections += usize::from(outlier.ended(event == '+', now, &POLICY, peers)),
            }
        }
        (outlier, now, ejections)
    }

    #[test]
    fn a_large_share_of_failures_ejects() {
        let two = Peers { all: 2, ejected: 0 };
        for (name, events, peers, ejected, ejections) in [
            ("too few to tell", "---", two, false, 0),
            ("all of four", "----", two, true, 1),
            ("half of four", "++--", two, true, 1),
            ("less than half", "+++--", two, false, 0),
            ("in two intervals", "--1--", two, false, 0),
            ("back after its time", "----3", two, false, 1),
            ("twice as long the second time", "----3----3", two, true, 2),
            ("and then back", "----3----6", two, false, 2),
            (
                "what comes while it is out is not counted",
                "--------",
                two,
                true,
                1,
            ),
            (
                "the only one stays",
                "----",
                Peers { all: 1, ejected: 0 },
                false,
                0,
            ),
            (
                "the other one is out",
                "----",
                Peers { all: 2, ejected: 1 },
                false,
                0,
            ),
            (
                "two of four may go",
                "----",
                Peers { all: 4, ejected: 1 },
                true,
                1,
            ),
            ("not three", "----", Peers { all: 4, ejected: 2 }, false, 0),
            (
                "of three, one",
                "----",
                Peers { all: 3, ejected: 1 },
                false,
                0,
            ),
        ] {
            let (outlier, now, count) = play(events, peers);
            assert_eq!(
                (outlier.ejected(now), count),
                (ejected, ejections),
                "{name}"
            );
        }
    }
}
