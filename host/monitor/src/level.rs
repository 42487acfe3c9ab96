//! The level at which the host and its filters save resources, and the rules that move it.
//!
//! | level | filters are told | what they do |
//! |---|---|---|
//! | `disabled` | 0 | as if there were no monitor: no rule moves it |
//! | `minimal` | 0 | everything, as configured |
//! | `standard` | 1 | `compress` at two thirds of its levels, `ratelimit` with 75 % of its limits |
//! | `aggressive` | 2 | `compress` at its lowest levels, `ratelimit` with 50 % |
//! | `maximum` | 3 | `compress` codes nothing, `ratelimit` with 25 % |
//!
//! The percentages are `ratelimit`'s own (`emergency` of a rule).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::alarm::Bound;
use crate::metric::Sample;

/// How much is done to save resources.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing, and no rule changes that.
    Disabled,
    /// Nothing: there is enough.
    #[default]
    Minimal,
    /// A little.
    Standard,
    /// Much.
    Aggressive,
    /// Everything.
    Maximum,
}

impl Level {
    /// All of them, from the least.
    pub const ALL: [Self; 5] = [
        Self::Disabled,
        Self::Minimal,
        Self::Standard,
        Self::Aggressive,
        Self::Maximum,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Minimal => "minimal",
            Self::Standard => "standard",
            Self::Aggressive => "aggressive",
            Self::Maximum => "maximum",
        }
    }

    /// By its name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }

    /// What filters are told: 0 is normal, 3 the worst.
    pub const fn emergency(self) -> u8 {
        match self {
            Self::Disabled | Self::Minimal => 0,
            Self::Standard => 1,
            Self::Aggressive => 2,
            Self::Maximum => 3,
        }
    }

    const fn eased(self) -> Self {
        match self {
            Self::Maximum => Self::Aggressive,
            Self::Aggressive => Self::Standard,
            _ => Self::Minimal,
        }
    }
}

/// Who moves the level.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Mode {
    /// The rules.
    #[default]
    Automatic,
    /// Nobody: it was set to this.
    Fixed(Level),
}

/// When the level is to be at least something.
#[derive(Clone, PartialEq, Debug)]
pub struct Rule {
    /// Its name in logs and metrics.
    pub name: String,
    /// All of these must be crossed.
    pub when: Vec<Bound>,
    /// For how long.
    pub hold: Duration,
    /// The level then; `Disabled` and `Minimal` keep it low.
    pub level: Level,
    /// Of several rules that hold, the one with the greatest decides; among equals, the higher level.
    pub priority: u8,
}

/// Rules where none are configured: memory only. What is short of processor time still works, only slower; whether
/// limits should then be tighter is for the operator to say.
pub fn defaults() -> Vec<Rule> {
    use crate::metric::Metric::{MachineMemory, Memory};
    [
        (
            "memory-critical",
            Memory,
            92.0,
            85.0,
            0,
            Level::Maximum,
            100,
        ),
        (
            "machine-memory-critical",
            MachineMemory,
            97.0,
            93.0,
            0,
            Level::Maximum,
            95,
        ),
        ("memory-high", Memory, 80.0, 75.0, 2, Level::Aggressive, 90),
        (
            "machine-memory-high",
            MachineMemory,
            93.0,
            88.0,
            5,
            Level::Standard,
            80,
        ),
    ]
    .into_iter()
    .map(|(name, metric, at, clear, hold, level, priority)| Rule {
        name: name.to_owned(),
        when: vec![Bound::of(metric, true, at, clear)],
        hold: Duration::from_secs(hold),
        level,
        priority,
    })
    .collect()
}

/// A change of the level.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Move {
    /// Before.
    pub from: Level,
    /// After.
    pub to: Level,
    /// Why.
    pub why: Why,
}

/// Why a level changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Why {
    /// A rule, by its name, with what it saw.
    Rule(String, String),
    /// Nothing asked for it any more for long enough.
    Recovered,
    /// An operator.
    Operator,
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rule(name, seen) => write!(f, "rule {name}: {seen}"),
            Self::Recovered => f.write_str("recovered"),
            Self::Operator => f.write_str("operator"),
        }
    }
}

/// Moves the level: up at once and as far as a rule says, down one step at a time.
#[derive(Clone, Debug)]
pub(crate) struct Governor {
    rules: Vec<Standing>,
    recover_after: Duration,
    mode: Mode,
    level: Level,
    /// Since when no rule asks for the level there is.
    calm: Option<Duration>,
}

#[derive(Clone, Debug)]
struct Standing {
    rule: Rule,
    crossed: Vec<bool>,
    since: Option<Duration>,
    holds: bool,
}

impl Governor {
    pub(crate) fn new(rules: Vec<Rule>, recover_after: Duration, mode: Mode) -> Self {
        let rules = rules
            .into_iter()
            .map(|rule| Standing {
                crossed: vec![false; rule.when.len()],
                rule,
                since: None,
                holds: false,
            })
            .collect();
        Self {
            rules,
            recover_after,
            mode,
            level: match mode {
                Mode::Automatic => Level::Minimal,
                Mode::Fixed(level) => level,
            },
            calm: None,
        }
    }

    pub(crate) const fn level(&self) -> Level {
        self.level
    }

    pub(crate) const fn mode(&self) -> Mode {
        self.mode
    }

    /// The rules that hold now.
    pub(crate) fn holding(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().filter(|it| it.holds).map(|it| &it.rule)
    }

    /// Takes an operator's word. Back in automatic mode it goes on from where it is.
    pub(crate) fn set(&mut self, mode: Mode) -> Option<Move> {
        self.mode = mode;
        self.calm = None;
        let to = match mode {
            Mode::Fixed(level) => level,
            // The rules know no lower one.
            Mode::Automatic => self.level.max(Level::Minimal),
        };
        self.go(to, Why::Operator)
    }

    pub(crate) fn observe(&mut self, sample: &Sample, now: Duration) -> Option<Move> {
        for standing in &mut self.rules {
            standing.observe(sample, now);
        }
        if self.mode != Mode::Automatic {
            return None;
        }
        let decides = self
            .rules
            .iter()
            .filter(|it| it.holds)
            .max_by_key(|it| (it.rule.priority, it.rule.level));
        let wanted = decides.map_or(Level::Minimal, |it| it.rule.level.max(Level::Minimal));
        if wanted >= self.level {
            self.calm = None;
            let why = decides.map(|it| Why::Rule(it.rule.name.clone(), it.seen(sample)));
            return self.go(wanted, why.unwrap_or(Why::Recovered));
        }
        let calm = *self.calm.get_or_insert(now);
        if now.saturating_sub(calm) < self.recover_after {
            return None;
        }
        self.calm = Some(now);
        self.go(self.level.eased().max(wanted), Why::Recovered)
    }

    fn go(&mut self, to: Level, why: Why) -> Option<Move> {
        if to == self.level {
            return None;
        }
        let from = std::mem::replace(&mut self.level, to);
        Some(Move { from, to, why })
    }
}

impl Standing {
    fn observe(&mut self, sample: &Sample, now: Duration) {
        let mut all = !self.rule.when.is_empty();
        for (bound, crossed) in self.rule.when.iter().zip(&mut self.crossed) {
            // The second line counts once the rule holds; before, the first one must stay crossed.
            *crossed = bound.crossed(sample, *crossed && self.holds);
            all &= *crossed;
        }
        self.since = match (all, self.since) {
            (false, _) => None,
            (true, since) => Some(since.unwrap_or(now)),
        };
        self.holds = self
            .since
            .is_some_and(|since| now.saturating_sub(since) >= self.rule.hold);
    }

    fn seen(&self, sample: &Sample) -> String {
        let seen = self.rule.when.iter().map(|bound| {
            let metric = bound.metric();
            let value = sample.get(metric).unwrap_or_default();
            let value = crate::metric::shown(metric.unit(), value);
            format!("{} is {value}", metric.name())
        });
        seen.collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::Metric;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn rule(name: &str, metric: Metric, at: f64, level: Level, priority: u8) -> Rule {
        Rule {
            name: name.to_owned(),
            when: vec![Bound::above(metric, at, at - 10.0).unwrap()],
            hold: Duration::ZERO,
            level,
            priority,
        }
    }

    fn memory(percent: f64) -> Sample {
        Sample::default().with(Metric::Memory, percent)
    }

    #[test]
    fn the_sample_that_crosses_moves_the_level_itself() {
        let rules = vec![rule("m", Metric::Memory, 90.0, Level::Maximum, 1)];
        let mut governor = Governor::new(rules, ms(1_000), Mode::Automatic);
        assert_eq!(governor.observe(&memory(89.0), ms(0)), None);
        let moved = governor.observe(&memory(95.0), ms(100)).expect("a move");
        assert_eq!((moved.from, moved.to), (Level::Minimal, Level::Maximum));
        assert_eq!(moved.why.to_string(), "rule m: memory is 95.0 %");
    }

    #[test]
    fn it_comes_back_one_step_at_a_time() {
        let rules = vec![rule("m", Metric::Memory, 90.0, Level::Maximum, 1)];
        let mut governor = Governor::new(rules, ms(1_000), Mode::Automatic);
        governor.observe(&memory(95.0), ms(0));
        let mut moves = Vec::new();
        for at in 1..60 {
            // Between the lines until 500 ms, then well below.
            let value = if at < 5 { 85.0 } else { 50.0 };
            if let Some(moved) = governor.observe(&memory(value), ms(at * 100)) {
                moves.push((at * 100, moved.to, moved.why));
            }
        }
        assert_eq!(
            moves,
            [
                (1_500, Level::Aggressive, Why::Recovered),
                (2_500, Level::Standard, Why::Recovered),
                (3_500, Level::Minimal, Why::Recovered),
            ]
        );
    }

    #[test]
    fn a_relapse_goes_up_at_once_and_waits_anew() {
        let rules = vec![rule("m", Metric::Memory, 90.0, Level::Aggressive, 1)];
        let mut governor = Governor::new(rules, ms(1_000), Mode::Automatic);
        governor.observe(&memory(95.0), ms(0));
        for at in 1..12 {
            governor.observe(&memory(10.0), ms(at * 100));
        }
        assert_eq!(governor.level(), Level::Standard);
        governor.observe(&memory(95.0), ms(1_200));
        assert_eq!(governor.level(), Level::Aggressive);
        assert_eq!(governor.observe(&memory(10.0), ms(1_300)), None);
        assert_eq!(governor.observe(&memory(10.0), ms(2_200)), None);
        assert!(governor.observe(&memory(10.0), ms(2_300)).is_some());
    }

    #[test]
    fn priority_decides_then_the_level() {
        let busy = |memory: f64, cpu: f64| {
            Sample::default()
                .with(Metric::Memory, memory)
                .with(Metric::MachineCpu, cpu)
        };
        let rules = vec![
            rule("low", Metric::Memory, 50.0, Level::Maximum, 1),
            rule("high", Metric::MachineCpu, 50.0, Level::Standard, 9),
            rule("same", Metric::MachineCpu, 80.0, Level::Aggressive, 9),
        ];
        for (name, sample, want) in [
            ("none", busy(0.0, 0.0), Level::Minimal),
            ("one", busy(60.0, 0.0), Level::Maximum),
            ("the greater priority", busy(60.0, 60.0), Level::Standard),
            ("the higher of equals", busy(60.0, 90.0), Level::Aggressive),
        ] {
            let mut governor = Governor::new(rules.clone(), ms(0), Mode::Automatic);
            governor.observe(&sample, ms(0));
            assert_eq!(governor.level(), want, "{name}");
        }
    }

    #[test]
    fn an_operator_has_the_last_word() {
        let rules = vec![rule("m", Metric::Memory, 90.0, Level::Maximum, 1)];
        let mut governor = Governor::new(rules, ms(0), Mode::Automatic);
        let moved = governor.set(Mode::Fixed(Level::Standard)).expect("a move");
        assert_eq!(moved.why, Why::Operator);
        assert_eq!(governor.observe(&memory(99.0), ms(100)), None);
        assert_eq!(governor.level(), Level::Standard);
        assert_eq!(governor.holding().count(), 1, "what would happen is known");
        assert_eq!(governor.set(Mode::Automatic), None);
        governor.observe(&memory(99.0), ms(200));
        assert_eq!(governor.level(), Level::Maximum);
        governor.set(Mode::Fixed(Level::Disabled));
        assert_eq!(governor.level().emergency(), 0);
    }

    #[test]
    fn a_rule_must_hold_for_its_time() {
        let mut held = rule("m", Metric::Memory, 90.0, Level::Maximum, 1);
        held.hold = ms(300);
        let mut governor = Governor::new(vec![held], ms(0), Mode::Automatic);
        for (at, value) in [
            (0, 95.0),
            (100, 95.0),
            (200, 85.0),
            (300, 95.0),
            (500, 95.0),
        ] {
            assert_eq!(governor.observe(&memory(value), ms(at)), None, "at {at}");
        }
        assert!(governor.observe(&memory(95.0), ms(600)).is_some());
    }
}
