//! Memory of a filter that grows while the load does not.
//!
//! A cache that fills looks the same until it is full: what is said is the slope, where it leads, and for how long it was seen.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::filters::FilterSeen;
use crate::trend::{MOST, Trend, median};

/// How long growth must have been seen.
pub const SEEN: Duration = Duration::from_secs(600);
/// Growth over the time seen that is no leak: two steps of a linear memory's growth in each of eight instances.
const LEAST_BYTES: f64 = 1_048_576.0;
/// Growth below this share of what there was is none.
const LEAST_SHARE: f64 = 0.05;
/// A load whose rate changes by more than this share over the time seen is not constant.
const CONSTANT: f64 = 0.25;

/// Which of a filter's memories.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kept {
    /// Linear memory of its instances.
    Linear,
    /// Shared data and stores.
    Shared,
}

impl Kept {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear memory",
            Self::Shared => "shared data",
        }
    }
}

/// Growth that looks like a leak.
#[derive(Clone, PartialEq, Debug)]
pub struct Leak {
    /// The filter.
    pub filter: String,
    /// What grows.
    pub kept: Kept,
    /// By how much, bytes a second.
    pub per_second: f64,
    /// For how long it was seen.
    pub over: Duration,
    /// How much there is, bytes.
    pub now: u64,
}

/// The past of each filter, bounded: [`MOST`] points each, and no more filters than there are.
#[derive(Clone, Default, Debug)]
pub(crate) struct Leaks {
    past: BTreeMap<String, VecDeque<Point>>,
}

#[derive(Clone, Copy, Debug)]
struct Point {
    at: f64,
    exchanges: f64,
    linear: f64,
    shared: f64,
}

impl Leaks {
    /// Adds what is known now and says what leaks. Called every few seconds.
    pub(crate) fn observe(&mut self, filters: &[FilterSeen], now: Duration) -> Vec<Leak> {
        self.past
            .retain(|name, _| filters.iter().any(|filter| filter.name == *name));
        let mut leaks = Vec::new();
        for filter in filters {
            let past = self.past.entry(filter.name.clone()).or_default();
            let exchanges = filter.exchanges as f64;
            // A filter that was loaded anew begins anew.
            if past.back().is_some_and(|last| last.exchanges > exchanges) {
                past.clear();
            }
            if past.len() >= MOST {
                past.pop_front();
            }
            past.push_back(Point {
                at: now.as_secs_f64(),
                exchanges,
                linear: filter.memory as f64,
                shared: filter.shared as f64,
            });
            let past = past.make_contiguous();
            if !constant_load(past) {
                continue;
            }
            for (kept, held) in [(Kept::Linear, filter.memory), (Kept::Shared, filter.shared)] {
                let points: Vec<_> = past.iter().map(|it| (it.at, it.of(kept))).collect();
                if let Some(trend) = growing(&points) {
                    leaks.push(Leak {
                        filter: filter.name.clone(),
                        kept,
                        per_second: trend.per_second,
                        over: trend.over,
                        now: held,
                    });
                }
            }
        }
        leaks
    }
}

impl Point {
    const fn of(&self, kept: Kept) -> f64 {
        match kept {
            Kept::Linear => self.linear,
            Kept::Shared => self.shared,
        }
    }
}

fn constant_load(past: &[Point]) -> bool {
    let rates: Vec<(f64, f64)> = past
        .windows(2)
        .map(|pair| {
            let time = (pair[1].at - pair[0].at).max(0.001);
            (pair[1].at, (pair[1].exchanges - pair[0].exchanges) / time)
        })
        .collect();
    let Some(trend) = Trend::of(&rates) else {
        return false;
    };
    let mut values: Vec<f64> = rates.iter().map(|(_, rate)| *rate).collect();
    let typical = median(&mut values).unwrap_or(0.0);
    // Growth without any load is one, too.
    (trend.per_second * trend.over.as_secs_f64()).abs() <= typical * CONSTANT
}

/// The trend of what grows enough, for long enough, and still does.
fn growing(points: &[(f64, f64)]) -> Option<Trend> {
    let trend = Trend::of(points).filter(|trend| trend.over >= SEEN && trend.fits())?;
    let grown = trend.per_second * trend.over.as_secs_f64();
    let before = trend.now - grown;
    if grown < LEAST_BYTES || grown < before * LEAST_SHARE {
        return None;
    }
    // What filled up and stopped is no leak: the last third must have grown at half the pace at least.
    let last = points.get(points.len() * 2 / 3..)?;
    let ((from, low), (to, high)) = (last.first()?, last.last()?);
    (high - low >= trend.per_second * (to - from) / 2.0).then_some(trend)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: f64 = 1_048_576.0;

    /// What is found at the end of 15 minutes, a look every 10 s, with a filter's exchanges and memory at each second.
    fn found(exchanges: impl Fn(f64) -> f64, memory: impl Fn(f64) -> f64) -> Vec<Leak> {
        let mut leaks = Leaks::default();
        let mut last = Vec::new();
        for at in 0..90 {
            let at = f64::from(at) * 10.0;
            let filter = FilterSeen {
                name: "f".to_owned(),
                exchanges: exchanges(at) as u64,
                memory: memory(at) as u64,
                ..FilterSeen::default()
            };
            last = leaks.observe(&[filter], Duration::from_secs_f64(at));
        }
        last
    }

    #[test]
    fn what_grows_under_constant_load_is_found() {
        let steady = |at: f64| at * 50.0;
        // Linear memory grows by pages of 64 KiB.
        let pages = |bytes: f64| (bytes / 65_536.0).floor() * 65_536.0;
        for (name, leaks, want) in [
            (
                "a leak",
                found(steady, |at| pages(8.0 * MIB + at * 10_000.0)),
                Some(10_000.0),
            ),
            (
                "without load",
                found(|_| 0.0, |at| pages(8.0 * MIB + at * 10_000.0)),
                Some(10_000.0),
            ),
            ("level", found(steady, |_| 8.0 * MIB), None),
            ("too slow", found(steady, |at| 8.0 * MIB + at * 100.0), None),
            (
                "a small share",
                found(steady, |at| 900.0 * MIB + at * 5_000.0),
                None,
            ),
            (
                "filled and full",
                found(steady, |at| 8.0 * MIB + at.min(500.0) * 20_000.0),
                None,
            ),
            (
                "growing load",
                found(|at| at * at, |at| 8.0 * MIB + at * 10_000.0),
                None,
            ),
            (
                "up and down",
                found(steady, |at| 8.0 * MIB + (at % 200.0) * 50_000.0),
                None,
            ),
        ] {
            let slope = leaks.first().map(|leak| leak.per_second);
            match (slope, want) {
                (None, None) => {}
                (Some(slope), Some(want)) => {
                    assert!((slope / want - 1.0).abs() < 0.1, "{name}: {slope}");
                }
                _ => panic!("{name}: {leaks:?}"),
            }
        }
    }

    #[test]
    fn ten_minutes_are_seen_first() {
        let mut leaks = Leaks::default();
        for at in 0..120 {
            let filter = FilterSeen {
                name: "f".to_owned(),
                shared: at * 1_000_000,
                ..FilterSeen::default()
            };
            let now = Duration::from_secs(at * 10);
            let found = leaks.observe(&[filter], now);
            assert_eq!(!found.is_empty(), now >= SEEN, "at {now:?}: {found:?}");
            assert!(found.iter().all(|leak| leak.kept == Kept::Shared));
        }
        assert!(leaks.past["f"].len() <= MOST);
        leaks.observe(&[], Duration::from_secs(2_000));
        assert!(leaks.past.is_empty());
    }
}
