//! Active health: how many probes in a row it takes to change one's mind about an endpoint.

use std::time::Duration;

/// What is asked, how often, and what counts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    /// The path asked for with GET.
    pub path: String,
    /// Whom it is asked of, in `Host`; none: the endpoint's own name.
    pub host: Option<String>,
    /// From one probe to the next.
    pub interval: Duration,
    /// The longest a probe may take to its response head.
    pub timeout: Duration,
    /// Good probes in a row that make an unhealthy endpoint healthy.
    pub healthy: u32,
    /// Bad probes in a row that make a healthy endpoint unhealthy.
    pub unhealthy: u32,
}

/// What probes have shown. An endpoint is healthy until they show otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Health {
    down: bool,
    /// Probes in a row that say otherwise.
    against: u32,
}

impl Health {
    /// Whether requests go there.
    pub fn healthy(self) -> bool {
        !self.down
    }

    /// Notes a probe; `true` when that changed what is thought of the endpoint.
    pub fn probed(&mut self, good: bool, policy: &Policy) -> bool {
        if good != self.down {
            self.against = 0;
            return false;
        }
        self.against = self.against.saturating_add(1);
        let enough = if self.down {
            policy.healthy
        } else {
            policy.unhealthy
        };
        let changed = self.against >= enough.max(1);
        if changed {
            self.down = !self.down;
            self.against = 0;
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_some_in_a_row() {
        let policy = Policy {
            path: "/".to_owned(),
            host: None,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            healthy: 2,
            unhealthy: 3,
        };
        for (name, probes, healthy, changes) in [
            ("new", "", true, 0),
            ("two bad ones", "--", true, 0),
            ("three", "---", false, 1),
            ("with a good one between", "--+--", true, 0),
            ("down and one good", "---+", false, 1),
            ("down and two good", "---++", true, 2),
            ("down, good, bad, good", "---+-+", false, 1),
            ("up again it takes three again", "---++--", true, 2),
        ] {
            let mut health = Health::default();
            let changed = probes
                .chars()
                .filter(|probe| health.probed(*probe == '+', &policy))
                .count();
            assert_eq!((health.healthy(), changed), (healthy, changes), "{name}");
        }
    }
}
