//! The whole of it as one state machine: samples in, events out. Time is an argument.

use std::time::Duration;

use crate::advice::{Advice, Bounds, advice};
use crate::alarm::{Alarm, Severity, Threshold, Turn};
use crate::baseline::{Baseline, Regression};
use crate::filters::FilterSeen;
use crate::history::History;
use crate::leak::{Leak, Leaks};
use crate::level::{Governor, Level, Mode, Move, Rule};
use crate::metric::{Metric, Sample, shown};
use crate::trend::Trend;

/// How often [`Monitor::survey`] is to be called.
pub const SURVEY: Duration = Duration::from_secs(10);
/// How far back trends look.
pub const WINDOW: Duration = Duration::from_secs(900);
/// How far ahead forecasts look.
pub const HORIZON: Duration = Duration::from_secs(4 * 3600);

/// What a monitor is told once.
#[derive(Clone, Debug)]
pub struct Settings {
    /// When to raise alarms.
    pub thresholds: Vec<Threshold>,
    /// When to move the level.
    pub rules: Vec<Rule>,
    /// How long nothing must ask for a level before it goes down a step.
    pub recover_after: Duration,
    /// Who moves the level at first.
    pub mode: Mode,
    /// A good time to compare with, and by how many percent it may be worse.
    pub baseline: Option<(Baseline, f64)>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            thresholds: crate::alarm::defaults(),
            rules: crate::level::defaults(),
            recover_after: Duration::from_secs(10),
            mode: Mode::Automatic,
            baseline: None,
        }
    }
}

/// What happened.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// A threshold was crossed for long enough.
    Raised {
        /// The threshold.
        threshold: Threshold,
        /// The value that raised it.
        value: f64,
    },
    /// It is clear again.
    Cleared {
        /// The threshold.
        threshold: Threshold,
        /// The value; not a number when it is not known any more.
        value: f64,
    },
    /// The level changed.
    Moved(Move),
    /// A filter's memory grows under constant load.
    Leaking(Leak),
    /// Something is worse than the baseline.
    Regressed(Regression),
}

/// An alarm that stands.
#[derive(Clone, PartialEq, Debug)]
pub struct Alert {
    /// What it is about: a metric's name, `leak` or `regression`.
    pub about: String,
    /// How bad it is.
    pub severity: Severity,
    /// Since when.
    pub since: Duration,
    /// What is seen, in words.
    pub text: String,
}

/// A threshold that will be crossed if things go on as they do.
#[derive(Clone, PartialEq, Debug)]
pub struct Forecast {
    /// The metric.
    pub metric: Metric,
    /// The threshold's value.
    pub at: f64,
    /// How bad that will be.
    pub severity: Severity,
    /// Time left.
    pub left: Duration,
    /// The line it comes from.
    pub trend: Trend,
}

/// The monitor of one host.
#[derive(Debug)]
pub struct Monitor {
    history: History,
    alarms: Vec<Alarm>,
    governor: Governor,
    leaks: Leaks,
    baseline: Option<(Baseline, f64)>,
    leaking: Vec<(Duration, Leak)>,
    regressed: Vec<(Duration, Regression)>,
    forecasts: Vec<Forecast>,
    advice: Vec<Advice>,
}

impl Monitor {
    /// A monitor that has seen nothing yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            history: History::default(),
            alarms: settings.thresholds.into_iter().map(Alarm::new).collect(),
            governor: Governor::new(settings.rules, settings.recover_after, settings.mode),
            leaks: Leaks::default(),
            baseline: settings.baseline,
            leaking: Vec::new(),
            regressed: Vec::new(),
            forecasts: Vec::new(),
            advice: Vec::new(),
        }
    }

    /// Takes a sample, and says what it changes: the level with the very sample that crosses a rule's bound, if the rule
    /// has no time to hold.
    pub fn observe(&mut self, sample: &Sample, now: Duration) -> Vec<Event> {
        self.history.push(sample, now);
        let mut events = Vec::new();
        if let Some(moved) = self.governor.observe(sample, now) {
            events.push(Event::Moved(moved));
        }
        for alarm in &mut self.alarms {
            let threshold = alarm.threshold;
            let value = sample.get(threshold.bound.metric()).unwrap_or(f64::NAN);
            match alarm.observe(sample, now) {
                None => {}
                Some(Turn::Raised) => events.push(Event::Raised { threshold, value }),
                Some(Turn::Cleared) => events.push(Event::Cleared { threshold, value }),
            }
        }
        events
    }

    /// Looks at what takes longer to see: leaks, forecasts, the baseline, advice. To be called every [`SURVEY`].
    pub fn survey(
        &mut self,
        filters: &[FilterSeen],
        bounds: Bounds,
        current: &Baseline,
        now: Duration,
    ) -> Vec<Event> {
        let mut events = Vec::new();
        let leaks = self.leaks.observe(filters, now);
        let known = std::mem::take(&mut self.leaking);
        for leak in leaks {
            let same =
                |(_, old): &&(Duration, Leak)| old.filter == leak.filter && old.kept == leak.kept;
            let since = known.iter().find(same).map(|(since, _)| *since);
            if since.is_none() {
                events.push(Event::Leaking(leak.clone()));
            }
            self.leaking.push((since.unwrap_or(now), leak));
        }
        if let Some((baseline, tolerance)) = &self.baseline {
            let known = std::mem::take(&mut self.regressed);
            for found in baseline.regressions(current, *tolerance) {
                let same = |(_, old): &&(Duration, Regression)| {
                    old.filter == found.filter && old.what == found.what
                };
                let since = known.iter().find(same).map(|(since, _)| *since);
                if since.is_none() {
                    events.push(Event::Regressed(found.clone()));
                }
                self.regressed.push((since.unwrap_or(now), found));
            }
        }
        self.forecasts = self.foresee(now);
        let latest = self.history.latest().map(|(_, sample)| *sample);
        let forecasts: Vec<_> = self
            .forecasts
            .iter()
            .map(|it| (it.metric, it.at, it.left))
            .collect();
        self.advice = advice(&latest.unwrap_or_default(), filters, bounds, &forecasts);
        events
    }

    fn foresee(&self, now: Duration) -> Vec<Forecast> {
        let mut found: Vec<Forecast> = Vec::new();
        for alarm in self.alarms.iter().filter(|it| it.raised_at().is_none()) {
            let bound = alarm.threshold.bound;
            let since = now.saturating_sub(WINDOW);
            let points: Vec<_> = self
                .history
                .coarse(bound.metric(), since)
                .map(|point| (point.at.as_secs_f64(), point.value))
                .collect();
            let Some(trend) = Trend::of(&points) else {
                continue;
            };
            // A line that wanders within a hundredth of the threshold is level.
            let moved = trend.per_second * trend.over.as_secs_f64();
            if moved.abs() < bound.at() / 100.0 || (moved > 0.0) != bound.rising() {
                continue;
            }
            if let Some(left) = trend.reaches(bound.at(), HORIZON) {
                found.push(Forecast {
                    metric: bound.metric(),
                    at: bound.at(),
                    severity: alarm.threshold.severity,
                    left,
                    trend,
                });
            }
        }
        found.sort_by_key(|it| it.left);
        found
    }

    /// Sets the level, or gives it back to the rules.
    pub fn set(&mut self, mode: Mode) -> Option<Move> {
        self.governor.set(mode)
    }

    /// The level there is.
    pub const fn level(&self) -> Level {
        self.governor.level()
    }

    /// Who moves it.
    pub const fn mode(&self) -> Mode {
        self.governor.mode()
    }

    /// The rules that hold now, whether or not they decide.
    pub fn holding(&self) -> impl Iterator<Item = &str> {
        self.governor.holding().map(|rule| rule.name.as_str())
    }

    /// What was measured.
    pub const fn history(&self) -> &History {
        &self.history
    }

    /// What may be crossed before long, soonest first.
    pub fn forecasts(&self) -> &[Forecast] {
        &self.forecasts
    }

    /// What could be set differently.
    pub fn advice(&self) -> &[Advice] {
        &self.advice
    }

    /// The leaks seen with the last survey.
    pub fn leaks(&self) -> impl Iterator<Item = &Leak> {
        self.leaking.iter().map(|(_, leak)| leak)
    }

    /// What is worse than the baseline since the last survey.
    pub fn regressions(&self) -> impl Iterator<Item = &Regression> {
        self.regressed.iter().map(|(_, regression)| regression)
    }

    /// What is wrong now, worst first.
    pub fn alerts(&self) -> Vec<Alert> {
        let latest = self.history.latest().map(|(_, sample)| *sample);
        let latest = latest.unwrap_or_default();
        let raised = self.alarms.iter().filter_map(|alarm| {
            let bound = alarm.threshold.bound;
            let metric = bound.metric();
            let value = latest.get(metric).map(|value| shown(metric.unit(), value));
            Some(Alert {
                about: metric.name().to_owned(),
                severity: alarm.threshold.severity,
                since: alarm.raised_at()?,
                text: format!("{bound}: {}", value.unwrap_or_else(|| "unknown".to_owned())),
            })
        });
        let leaking = self.leaking.iter().map(|(since, leak)| Alert {
            about: "leak".to_owned(),
            severity: Severity::Warning,
            since: *since,
            text: leak.to_string(),
        });
        let regressed = self.regressed.iter().map(|(since, found)| Alert {
            about: "regression".to_owned(),
            severity: Severity::Warning,
            since: *since,
            text: found.to_string(),
        });
        let mut alerts: Vec<_> = raised.chain(leaking).chain(regressed).collect();
        alerts.sort_by_key(|alert| (std::cmp::Reverse(alert.severity), alert.since));
        alerts
    }
}

impl std::fmt::Display for Leak {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use crate::metric::Unit::Bytes;
        let (kept, filter, over) = (self.kept.name(), &self.filter, self.over.as_secs() / 60);
        let (an_hour, now) = (
            shown(Bytes, self.per_second * 3600.0),
            shown(Bytes, self.now as f64),
        );
        write!(
            f,
            "{kept} of {filter} grew by {an_hour} an hour for {over} min under constant load: {now} now"
        )
    }
}

impl std::fmt::Display for Regression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let of = self.filter.as_deref().unwrap_or("the host");
        write!(
            f,
            "{} of {of} is {:.0}, {:.0} % over the baseline's {:.0}",
            self.what,
            self.is,
            self.percent(),
            self.was
        )
    }
}
