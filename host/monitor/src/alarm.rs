//! Thresholds with severity, hysteresis, a time they must hold, and a cool-down.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::metric::{Metric, Sample, shown};

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// To be known.
    Info,
    /// To be looked at.
    Warning,
    /// To be acted on.
    Critical,
}

impl Severity {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// A line a metric must not cross, and a second one it must come back over.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Bound {
    metric: Metric,
    rising: bool,
    at: f64,
    clear: f64,
}

/// Why a bound is none.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Unsound {
    /// Where it is crossed is no value the metric can have.
    At(Beyond),
    /// Where it is clear is none.
    Clear(Beyond),
    /// `clear` is on the wrong side: it would be crossed and back at once.
    Order {
        /// Whether values above are bad.
        rising: bool,
        /// Where it is crossed.
        at: f64,
        /// Where it would be clear.
        clear: f64,
    },
}

/// A value that a metric never has.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Beyond {
    value: f64,
    most: Option<f64>,
}

impl Beyond {
    fn check(metric: Metric, value: f64) -> Result<(), Self> {
        let most = metric.most();
        let within = value.is_finite() && value >= 0.0 && most.is_none_or(|most| value <= most);
        within.then_some(()).ok_or(Self { value, most })
    }
}

impl fmt::Display for Beyond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { value, most } = self;
        match most {
            Some(most) => write!(f, "{value} is out of bounds: from 0 to {most} percent"),
            None => write!(f, "{value} is out of bounds: a number from 0 on"),
        }
    }
}

impl fmt::Display for Unsound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::At(beyond) | Self::Clear(beyond) => beyond.fmt(f),
            Self::Order { rising, at, clear } => {
                let (side, than) = if rising {
                    ("above", "at most")
                } else {
                    ("below", "at least")
                };
                write!(
                    f,
                    "clear is {clear}, want {than} {at}, where `{side}` stands"
                )
            }
        }
    }
}

impl Bound {
    /// Crossed at `at` and above, clear below `clear`, which is at most `at`.
    pub fn above(metric: Metric, at: f64, clear: f64) -> Result<Self, Unsound> {
        Self::new(metric, true, at, clear)
    }

    /// Crossed at `at` and below, clear above `clear`, which is at least `at`.
    pub fn below(metric: Metric, at: f64, clear: f64) -> Result<Self, Unsound> {
        Self::new(metric, false, at, clear)
    }

    fn new(metric: Metric, rising: bool, at: f64, clear: f64) -> Result<Self, Unsound> {
        Beyond::check(metric, at).map_err(Unsound::At)?;
        Beyond::check(metric, clear).map_err(Unsound::Clear)?;
        if (rising && clear > at) || (!rising && clear < at) {
            return Err(Unsound::Order { rising, at, clear });
        }
        Ok(Self {
            metric,
            rising,
            at,
            clear,
        })
    }

    /// A bound written in this crate.
    pub(crate) const fn of(metric: Metric, rising: bool, at: f64, clear: f64) -> Self {
        Self {
            metric,
            rising,
            at,
            clear,
        }
    }

    /// The metric.
    pub const fn metric(&self) -> Metric {
        self.metric
    }

    /// Where it is crossed.
    pub const fn at(&self) -> f64 {
        self.at
    }

    /// Whether values above are bad.
    pub const fn rising(&self) -> bool {
        self.rising
    }

    /// Whether it is crossed, when it was (`crossed`) or was not before. What is unknown is not crossed.
    pub fn crossed(&self, sample: &Sample, crossed: bool) -> bool {
        let Some(value) = sample.get(self.metric) else {
            return false;
        };
        match (self.rising, crossed) {
            (true, false) => value >= self.at,
            (true, true) => value >= self.clear,
            (false, false) => value <= self.at,
            (false, true) => value <= self.clear,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = if self.rising { "above" } else { "below" };
        let at = shown(self.metric.unit(), self.at);
        write!(f, "{} {side} {at}", self.metric.name())
    }
}

/// When to raise an alarm.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Threshold {
    /// The bound.
    pub bound: Bound,
    /// How bad it is.
    pub severity: Severity,
    /// How long it must be crossed first.
    pub hold: Duration,
    /// How long after it cleared it is not raised again.
    pub cooldown: Duration,
}

/// What is raised where nothing is configured.
pub fn defaults() -> Vec<Threshold> {
    use Severity::{Critical, Info, Warning};
    [
        (Metric::Memory, true, 80.0, 75.0, Warning, 5),
        (Metric::Memory, true, 92.0, 88.0, Critical, 0),
        (Metric::MachineMemory, true, 90.0, 85.0, Warning, 10),
        (Metric::MachineMemory, true, 96.0, 93.0, Critical, 5),
        (Metric::ProcessCpu, true, 80.0, 70.0, Info, 30),
        (Metric::MachineCpu, true, 90.0, 80.0, Warning, 30),
        (Metric::DescriptorsUsed, true, 80.0, 70.0, Warning, 5),
        (Metric::DescriptorsUsed, true, 95.0, 90.0, Critical, 0),
        (Metric::DiskFree, false, 10.0, 12.0, Warning, 10),
        (Metric::DiskFree, false, 3.0, 5.0, Critical, 10),
        (Metric::Errors, true, 5.0, 2.0, Warning, 10),
        (Metric::Errors, true, 25.0, 15.0, Critical, 10),
    ]
    .into_iter()
    .map(|(metric, rising, at, clear, severity, hold)| Threshold {
        bound: Bound::of(metric, rising, at, clear),
        severity,
        hold: Duration::from_secs(hold),
        cooldown: Duration::from_secs(60),
    })
    .collect()
}

/// A threshold and where it stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Alarm {
    pub(crate) threshold: Threshold,
    stands: Stands,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Stands {
    /// Clear; not raised before this time.
    Clear(Duration),
    /// Crossed, not yet for long enough.
    Crossed(Duration),
    /// Raised at this time.
    Raised(Duration),
}

/// What became of an alarm.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Turn {
    Raised,
    Cleared,
}

impl Alarm {
    pub(crate) const fn new(threshold: Threshold) -> Self {
        Self {
            threshold,
            stands: Stands::Clear(Duration::ZERO),
        }
    }

    pub(crate) const fn raised_at(&self) -> Option<Duration> {
        match self.stands {
            Stands::Raised(at) => Some(at),
            _ => None,
        }
    }

    pub(crate) fn observe(&mut self, sample: &Sample, now: Duration) -> Option<Turn> {
        let threshold = &self.threshold;
        match self.stands {
            Stands::Clear(not_before) => {
                if now < not_before || !threshold.bound.crossed(sample, false) {
                    return None;
                }
                self.stands = Stands::Crossed(now);
                self.raise_when_due(now, now)
            }
            Stands::Crossed(since) => {
                // Until it is raised it must stay over the line itself: `clear` is for what was raised.
                if !threshold.bound.crossed(sample, false) {
                    self.stands = Stands::Clear(Duration::ZERO);
                    return None;
                }
                self.raise_when_due(since, now)
            }
            Stands::Raised(_) => {
                if threshold.bound.crossed(sample, true) {
                    return None;
                }
                self.stands = Stands::Clear(now.saturating_add(threshold.cooldown));
                Some(Turn::Cleared)
            }
        }
    }

    fn raise_when_due(&mut self, since: Duration, now: Duration) -> Option<Turn> {
        if now.saturating_sub(since) < self.threshold.hold {
            return None;
        }
        self.stands = Stands::Raised(now);
        Some(Turn::Raised)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// What an alarm did at each second of a metric's course: `^` raised, `v` cleared.
    fn course(threshold: Threshold, values: &[f64]) -> String {
        let mut alarm = Alarm::new(threshold);
        let turn = |(at, value): (usize, &f64)| {
            let sample = Sample::default().with(threshold.bound.metric(), *value);
            match alarm.observe(&sample, seconds(at as u64)) {
                None => '.',
                Some(Turn::Raised) => '^',
                Some(Turn::Cleared) => 'v',
            }
        };
        values.iter().enumerate().map(turn).collect()
    }

    #[test]
    fn an_alarm_is_raised_and_cleared_in_time() {
        let high = Bound::above(Metric::Memory, 80.0, 70.0).unwrap();
        let low = Bound::below(Metric::DiskFree, 10.0, 15.0).unwrap();
        for (name, bound, hold, cooldown, values, want) in [
            ("at once", high, 0, 0, &[79.9, 80.0, 90.0][..], ".^."),
            (
                "clear below the second line only",
                high,
                0,
                0,
                &[80.0, 75.0, 70.0, 69.9],
                "^..v",
            ),
            (
                "no flutter at the line",
                high,
                0,
                0,
                &[80.0, 79.0, 80.0, 79.0],
                "^...",
            ),
            ("must hold", high, 2, 0, &[85.0, 85.0, 85.0, 85.0], "..^."),
            (
                "a dip begins anew",
                high,
                2,
                0,
                &[85.0, 85.0, 79.0, 85.0, 85.0, 85.0],
                ".....^",
            ),
            (
                "cool-down",
                high,
                0,
                3,
                &[85.0, 60.0, 85.0, 85.0, 85.0],
                "^v..^",
            ),
            ("from above", low, 0, 0, &[11.0, 10.0, 14.0, 15.1], ".^.v"),
            (
                "unknown is clear",
                high,
                0,
                0,
                &[85.0, f64::NAN, 85.0],
                "^v^",
            ),
        ] {
            let threshold = Threshold {
                bound,
                severity: Severity::Warning,
                hold: seconds(hold),
                cooldown: seconds(cooldown),
            };
            assert_eq!(course(threshold, values), want, "{name}");
        }
    }

    #[test]
    fn a_bound_that_could_not_hold_is_refused() {
        for (metric, at, clear) in [
            (Metric::Memory, f64::NAN, 1.0),
            (Metric::Memory, 300.0, 1.0),
            (Metric::Threads, 9.0, -1.0),
        ] {
            let wrong = Bound::above(metric, at, clear).unwrap_err().to_string();
            assert!(wrong.contains("is out of bounds: "), "{wrong}");
        }
        let wrong = Bound::above(Metric::Memory, 80.0, 90.0).unwrap_err();
        assert_eq!(
            wrong.to_string(),
            "clear is 90, want at most 80, where `above` stands"
        );
        assert!(Bound::below(Metric::DiskFree, 10.0, 5.0).is_err());
    }

    #[test]
    fn the_defaults_are_sound() {
        for threshold in defaults() {
            let Bound {
                metric,
                rising,
                at,
                clear,
            } = threshold.bound;
            assert!(Bound::new(metric, rising, at, clear).is_ok(), "{metric:?}");
        }
    }
}
