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
    pub above: Option<f64>,
    /// Raised at this value and below.
    pub below: Option<f64>,
    /// Clear on the other side of this; a tenth back without it.
    pub clear: Option<f64>,
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
    /// Its name in logs.
    pub name: String,
    /// All of these must be crossed, at least one.
    pub when: Vec<Condition>,
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
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// What is measured.
    pub metric: Metric,
    /// Crossed at this value and above; this or `below`.
    pub above: Option<f64>,
    /// Crossed at this value and below.
    pub below: Option<f64>,
    /// Clear on the other side of this; a tenth back without it.
    pub clear: Option<f64>,
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

impl Monitor {
    /// Checks it, and makes what the monitor works by.
    pub fn settings(&self, config: &Config) -> Result<monitor::Settings, ConfigError> {
        let wrong = |span: Range<usize>, field: String, message: String| {
            ConfigError::at(&config.source, span, &field, message)
        };
        for (kind, count, last) in [
            (
                "threshold",
                self.thresholds.len(),
                self.thresholds.last().map(Spanned::span),
            ),
            (
                "rule",
                self.rules.len(),
                self.rules.last().map(Spanned::span),
            ),
        ] {
            if let Some(span) = last.filter(|_| count > MOST) {
                let message = format!("there are {count}; at most {MOST} are looked at");
                return Err(wrong(span, format!("monitor.{kind}"), message));
            }
        }
        let mut thresholds = monitor::default_thresholds();
        thresholds.retain(|built_in| {
            let metric = built_in.bound.metric();
            self.thresholds
                .iter()
                .all(|it| it.get_ref().metric != metric)
        });
        for (index, one) in self.thresholds.iter().enumerate() {
            let alarm = one.get_ref();
            let condition = Condition {
                metric: alarm.metric,
                above: alarm.above,
                below: alarm.below,
                clear: alarm.clear,
            };
            let bound = condition.bound().map_err(|message| {
                wrong(one.span(), format!("monitor.threshold[{index}]"), message)
            })?;
            thresholds.push(Threshold {
                bound,
                severity: alarm.severity,
                hold: alarm.for_ms.millis(),
                cooldown: alarm.cooldown_ms.millis(),
            });
        }
        let mut rules = monitor::default_rules();
        rules.retain(|built_in| {
            self.rules
                .iter()
                .all(|it| it.get_ref().name != built_in.name)
        });
        for (index, one) in self.rules.iter().enumerate() {
            let mover = one.get_ref();
            let field = || format!("monitor.rule[{index}]");
            if mover.when.is_empty() || mover.when.len() > MOST {
                let message = format!(
                    "`when` has {} conditions, want 1 to {MOST}",
                    mover.when.len()
                );
                return Err(wrong(one.span(), field(), message));
            }
            let when: Result<Vec<_>, _> = mover.when.iter().map(Condition::bound).collect();
            rules.push(Rule {
                name: mover.name.clone(),
                when: when.map_err(|message| wrong(one.span(), field(), message))?,
                hold: mover.for_ms.millis(),
                level: mover.level,
                priority: u8::try_from(mover.priority.get()).unwrap_or(u8::MAX),
            });
        }
        let baseline = match &self.baseline {
            None => None,
            Some(file) => {
                let baseline =
                    read_baseline(&config.resolve(file.get_ref())).map_err(|message| {
                        wrong(file.span(), "monitor.baseline".to_owned(), message)
                    })?;
                Some((baseline, self.baseline_tolerance_percent.get() as f64))
            }
        };
        Ok(monitor::Settings {
            thresholds,
            rules,
            recover_after: self.recover_after_ms.millis(),
            mode: self.level.mode(),
            baseline,
        })
    }
}

impl Condition {
    fn bound(&self) -> Result<monitor::Bound, String> {
        let text = |unsound: Unsound| format!("{}: {unsound}", self.metric.name());
        match (self.above, self.below) {
            (Some(at), None) => {
                let clear = self.clear.unwrap_or(at * 0.9);
                monitor::Bound::above(self.metric, at, clear).map_err(text)
            }
            (None, Some(at)) => {
                let clear = self.clear.unwrap_or(at * 1.1);
                monitor::Bound::below(self.metric, at, clear).map_err(text)
            }
            _ => Err(format!(
                "{}: want one of `above` and `below`",
                self.metric.name()
            )),
        }
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
    serde_json::from_str(&text).map_err(|error| says(&error))
}
