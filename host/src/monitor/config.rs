//! `[monitor]` of `edgeweir.toml`.

use std::ops::Range;
use std::path::PathBuf;

use edgeweir_host_monitor as monitor;
use edgeweir_host_monitor::{Baseline, Level, Metric, Mode, Rule, Severity, Threshold, Unsound};
use serde::Deserialize;
use toml::Spanned;

use crate::config::{Config, ConfigError, Within};

/// `[monitor]`: what is watched, when alarms are raised, and when filters are told to save.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Monitor {
    /// Whether anything is watched.
    pub enabled: bool,
    /// Time between two samples, milliseconds.
    pub interval_ms: Within<100, 60_000>,
    /// How long no rule must ask for a level before it goes down a step, milliseconds.
    pub recover_after_ms: Within<0, 3_600_000>,
    /// Who moves the level.
    pub level: Setting,
    /// Whether `edgeweir-emergency` of a request may raise the level for it: behind an edge that watches, too. Else it is
    /// taken off, as anybody could say it.
    pub accept_field: bool,
    /// A file with the costs of a good time, from `/baseline.json`.
    pub baseline: Option<Spanned<PathBuf>>,
    /// By how many percent things may be worse than the baseline.
    pub baseline_tolerance_percent: Within<1, 1_000>,
    /// Alarms; those of a metric replace the built-in ones of the same metric.
    #[serde(rename = "threshold")]
    pub thresholds: Vec<Spanned<Alarm>>,
    /// What moves the level; one replaces the built-in rule of the same name.
    #[serde(rename = "rule")]
    pub rules: Vec<Spanned<Mover>>,
}

impl Default for Monitor {
    fn default() -> Self {
        Self {
            enabled: true,
            interval_ms: Within::of(100),
            recover_after_ms: Within::of(10_000),
            level: Setting::Automatic,
            accept_field: false,
            baseline: None,
            baseline_tolerance_percent: Within::of(25),
            thresholds: Vec::new(),
            rules: Vec::new(),
        }
    }
}

/// Who moves the level: the rules, or nobody.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Setting {
    /// The rules.
    Automatic,
    /// See [`Level`].
    Disabled,
    /// See [`Level`].
    Minimal,
    /// See [`Level`].
    Standard,
    /// See [`Level`].
    Aggressive,
    /// See [`Level`].
    Maximum,
}

impl Setting {
    /// By the name it has in a file and at `/level`.
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "automatic" => Some(Self::Automatic),
            name => Some(match Level::of(name)? {
                Level::Disabled => Self::Disabled,
                Level::Minimal => Self::Minimal,
                Level::Standard => Self::Standard,
                Level::Aggressive => Self::Aggressive,
                Level::Maximum => Self::Maximum,
            }),
        }
    }

    /// As the monitor knows it.
    pub const fn mode(self) -> Mode {
        match self {
            Self::Automatic => Mode::Automatic,
            Self::Disabled => Mode::Fixed(Level::Disabled),
            Self::Minimal => Mode::Fixed(Level::Minimal),
            Self::Standard => Mode::Fixed(Level::Standard),
            Self::Aggressive => Mode::Fixed(Level::Aggressive),
            Self::Maximum => Mode::Fixed(Level::Maximum),
        }
    }
}

/// `[[monitor.threshold]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alarm {
    /// What is measured.
    pub metric: Metric,
    /// Raised at this value and above; this or `below`.
    pub above: Option<Spanned<f64>>,
    /// Raised at this value and below.
    pub below: Option<Spanned<f64>>,
    /// Clear on the other side of this; a tenth back without it.
    pub clear: Option<Spanned<f64>>,
    /// How bad it is.
    pub severity: Severity,
    /// How long it must be crossed first, milliseconds.
    #[serde(default = "at_once")]
    pub for_ms: Within<0, 86_400_000>,
    /// How long after it cleared it is not raised again, milliseconds.
    #[serde(default = "a_minute")]
    pub cooldown_ms: Within<0, 86_400_000>,
}

/// `[[monitor.rule]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mover {
    /// Its name in logs, its own.
    pub name: Spanned<String>,
    /// All of these must be crossed, at least one.
    pub when: Spanned<Vec<Spanned<Condition>>>,
    /// For how long, milliseconds.
    #[serde(default = "at_once")]
    pub for_ms: Within<0, 86_400_000>,
    /// The level then.
    pub level: Level,
    /// Of several that hold, the one with the greatest decides.
    #[serde(default = "in_the_middle")]
    pub priority: Within<0, 255>,
}

/// A condition of a rule.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// What is measured.
    pub metric: Metric,
    /// Crossed at this value and above; this or `below`.
    pub above: Option<Spanned<f64>>,
    /// Crossed at this value and below.
    pub below: Option<Spanned<f64>>,
    /// Clear on the other side of this; a tenth back without it.
    pub clear: Option<Spanned<f64>>,
}

fn at_once() -> Within<0, 86_400_000> {
    Within::of(0)
}
fn a_minute() -> Within<0, 86_400_000> {
    Within::of(60_000)
}
fn in_the_middle() -> Within<0, 255> {
    Within::of(50)
}

/// Rules and thresholds one configuration may have: each is looked at with every sample.
const MOST: usize = 100;

/// What is wrong, where, and in which field.
type Wrong = (Range<usize>, String, String);

impl Monitor {
    /// Checks it, and makes what the monitor works by.
    pub fn settings(&self, config: &Config) -> Result<monitor::Settings, ConfigError> {
        let wrong = |(span, field, message): Wrong| {
            ConfigError::at(&config.source, span, &format!("monitor.{field}"), message)
        };
        Ok(monitor::Settings {
            thresholds: self.thresholds().map_err(wrong)?,
            rules: self.rules().map_err(wrong)?,
            recover_after: self.recover_after_ms.millis(),
            mode: self.level.mode(),
            baseline: self.baseline(config).map_err(wrong)?,
        })
    }

    fn thresholds(&self) -> Result<Vec<Threshold>, Wrong> {
        not_too_many("threshold", &self.thresholds)?;
        let mut thresholds = monitor::default_thresholds();
        thresholds.retain(|built_in| {
            let metric = built_in.bound.metric();
            self.thresholds
                .iter()
                .all(|it| it.get_ref().metric != metric)
        });
        for (index, one) in self.thresholds.iter().enumerate() {
            let alarm = one.get_ref().clone();
            let condition = Condition {
                metric: alarm.metric,
                above: alarm.above,
                below: alarm.below,
                clear: alarm.clear,
            };
            let bound = condition.bound(one.span(), &format!("threshold[{index}]"))?;
            thresholds.push(Threshold {
                bound,
                severity: alarm.severity,
                hold: alarm.for_ms.millis(),
                cooldown: alarm.cooldown_ms.millis(),
            });
        }
        Ok(thresholds)
    }

    fn rules(&self) -> Result<Vec<Rule>, Wrong> {
        not_too_many("rule", &self.rules)?;
        let mut rules = monitor::default_rules();
        rules.retain(|built_in| {
            let names = self.rules.iter().map(|it| it.get_ref().name.get_ref());
            names.into_iter().all(|name| *name != built_in.name)
        });
        for (index, one) in self.rules.iter().enumerate() {
            let earlier = self.rules.iter().take(index);
            rules.push(one.get_ref().rule(index, earlier.map(Spanned::get_ref))?);
        }
        Ok(rules)
    }

    fn baseline(&self, config: &Config) -> Result<Option<(Baseline, f64)>, Wrong> {
        let Some(file) = &self.baseline else {
            return Ok(None);
        };
        let baseline = read_baseline(&config.resolve(file.get_ref()))
            .map_err(|message| (file.span(), "baseline".to_owned(), message))?;
        Ok(Some((
            baseline,
            self.baseline_tolerance_percent.get() as f64,
        )))
    }
}

fn not_too_many<T>(kind: &str, all: &[Spanned<T>]) -> Result<(), Wrong> {
    match all.last() {
        Some(last) if all.len() > MOST => {
            let message = format!("there are {}; at most {MOST} are looked at", all.len());
            Err((last.span(), kind.to_owned(), message))
        }
        _ => Ok(()),
    }
}

impl Mover {
    /// The rule, with a name that none of the earlier ones has.
    fn rule<'a>(
        &self,
        index: usize,
        mut earlier: impl Iterator<Item = &'a Self>,
    ) -> Result<Rule, Wrong> {
        let name = self.name.get_ref();
        let misnamed = |message: String| {
            let field = format!("rule[{index}].name");
            Err((self.name.span(), field, message))
        };
        if name.trim().is_empty() {
            return misnamed(format!("{name:?} is no name: logs say which rule holds"));
        }
        if earlier.any(|it| it.name.get_ref() == name) {
            return misnamed(format!("{name:?} is the name of an earlier rule"));
        }
        let conditions = self.when.get_ref();
        if conditions.is_empty() || conditions.len() > MOST {
            let field = format!("rule[{index}].when");
            let message = format!("it has {} conditions, want 1 to {MOST}", conditions.len());
            return Err((self.when.span(), field, message));
        }
        let bounds = conditions.iter().enumerate().map(|(at, condition)| {
            let field = format!("rule[{index}].when[{at}]");
            condition.get_ref().bound(condition.span(), &field)
        });
        Ok(Rule {
            name: name.clone(),
            when: bounds.collect::<Result<_, _>>()?,
            hold: self.for_ms.millis(),
            level: self.level,
            priority: u8::try_from(self.priority.get()).unwrap_or(u8::MAX),
        })
    }
}

impl Condition {
    /// The bound; `span` and `field` are the condition's own.
    fn bound(&self, span: Range<usize>, field: &str) -> Result<monitor::Bound, Wrong> {
        let metric = self.metric.name();
        let (at, side) = match (&self.above, &self.below) {
            (Some(above), None) => (above, "above"),
            (None, Some(below)) => (below, "below"),
            _ => {
                let message = format!("{metric}: want one of `above` and `below`");
                return Err((span, field.to_owned(), message));
            }
        };
        let crossed = *at.get_ref();
        let clear = self.clear.as_ref().map(|it| *it.get_ref());
        let made = match side {
            "above" => {
                let clear = clear.unwrap_or(crossed * 0.9);
                monitor::Bound::above(self.metric, crossed, clear)
            }
            _ => {
                // A tenth back, which for a share is never more than all of it.
                let back = || (crossed * 1.1).min(self.metric.most().unwrap_or(f64::INFINITY));
                let clear = clear.unwrap_or_else(back);
                monitor::Bound::below(self.metric, crossed, clear)
            }
        };
        made.map_err(|unsound| {
            let (place, name) = match (unsound, &self.clear) {
                (Unsound::At(_), _) | (_, None) => (at.span(), side),
                (_, Some(clear)) => (clear.span(), "clear"),
            };
            let field = format!("{field}.{name}");
            (place, field, format!("{metric}: {unsound}"))
        })
    }
}

fn read_baseline(file: &std::path::Path) -> Result<Baseline, String> {
    let says = |error: &dyn std::fmt::Display| {
        format!(
            "{} is no baseline: {error}; `curl http://ADMIN/baseline.json` writes one",
            file.display()
        )
    };
    let text = std::fs::read_to_string(file).map_err(|error| says(&error))?;
    let baseline: Baseline = serde_json::from_str(&text).map_err(|error| says(&error))?;
    match baseline.is_empty() {
        true => Err(says(&"it has no costs to compare with")),
        false => Ok(baseline),
    }
}
