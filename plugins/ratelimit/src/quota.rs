//! All limits of a rule (or of a tier of it) in one small value, decided together: the strictest answers.

use bytes::Bytes;

use crate::gcra::{Gcra, Outcome};
use crate::limit::{Algorithm, Burst, Limit};
use crate::window::{Counts, Window};
use crate::wire::{Limits, MOST_SPAN};

/// Bytes a value may have in the edge's table of small values.
pub const MOST_BYTES: usize = 64;
/// Bytes before the limits' own: what tells layouts apart.
const LABEL: usize = 4;
/// Tables that limits are kept in.
const TABLES: [&str; 16] = [
    "limits-0", "limits-1", "limits-2", "limits-3", "limits-4", "limits-5", "limits-6", "limits-7",
    "limits-8", "limits-9", "limits-a", "limits-b", "limits-c", "limits-d", "limits-e", "limits-f",
];
const SECOND: u64 = 1_000_000_000;

/// One limit as the client is told of it, with its algorithm.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    /// The name in `RateLimit-Policy`.
    pub name: String,
    /// Cells per window.
    pub quota: u32,
    /// The window, seconds.
    pub window: u64,
    cell: Cell,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cell {
    Gcra(Gcra),
    Window(Window),
}

impl Cell {
    fn size(self) -> usize {
        match self {
            Self::Gcra(_) => 8,
            Self::Window(_) => 16,
        }
    }
    fn span(self) -> u64 {
        match self {
            Self::Gcra(gcra) => gcra.span(),
            Self::Window(window) => window.span(),
        }
    }
    fn tightened(self, percent: u8) -> Self {
        match self {
            Self::Gcra(gcra) => Self::Gcra(gcra.tightened(percent)),
            Self::Window(window) => Self::Window(window.tightened(percent)),
        }
    }
    /// Whether what this one admits the other does, too.
    fn covers(self, other: Self) -> bool {
        match (self, other) {
            (Self::Gcra(one), Self::Gcra(other)) => one.covers(other),
            (Self::Window(one), Self::Window(other)) => one == other,
            _ => false,
        }
    }
    /// Cells left and time to the whole quota after an admission, once `cost` more are taken. A window that counted something
    /// is there again at the same time however much it was.
    fn less(self, remaining: u32, reset: u64, cost: u32) -> (u32, u64) {
        match self {
            Self::Gcra(gcra) => gcra.less(remaining, reset, cost),
            Self::Window(_) => (remaining.saturating_sub(cost), reset),
        }
    }
    fn within(self, horizon: u64) -> Self {
        match self {
            Self::Gcra(gcra) => Self::Gcra(gcra.within(horizon)),
            window => window,
        }
    }
}

/// The tables of one configuration: each layout has one of its own while there are enough, so that the clients of one limit
/// never fill the buckets of another's.
#[derive(Debug, Default)]
pub struct Tables([Option<u32>; 16]);

impl Tables {
    /// The table of a layout: the one its label names, or the next that is free; when none is, it shares the one it names.
    ///
    /// What follows in the configuration moves nothing, and the same configuration gives the same tables in every worker
    /// and module.
    pub fn of(&mut self, layout: u32) -> &'static str {
        let named = usize::try_from(layout % 16).unwrap_or(0);
        let mut all = (named..named + 16).map(|at| at % 16);
        let at = all.find(|at| {
            let place = self.0.get_mut(*at);
            place.is_some_and(|place| *place.get_or_insert(layout) == layout)
        });
        TABLES
            .get(at.unwrap_or(named))
            .copied()
            .unwrap_or("limits-0")
    }
}

/// The limits of one rule, at each emergency level.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Quota {
    /// The normal policies, then those of the levels 1 to 3.
    levels: [Vec<Policy>; 4],
    /// Distinguishes layouts, so that a value of another rule is never read as this one's.
    layout: u32,
    table: &'static str,
    span: u64,
    /// `RateLimit-Policy` of each level.
    lines: [Bytes; 4],
    /// The limits of each level as a store is told them; empty for those it is never told.
    messages: [Bytes; 4],
}

/// What one policy says after a decision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Which policy.
    pub policy: usize,
    /// Cells left.
    pub remaining: u32,
    /// Nanoseconds until the whole quota is there again.
    pub reset: u64,
    /// Nanoseconds to wait when it refused.
    pub wait: Option<u64>,
}

/// The decision of a rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// The value to write; `None` when there is nothing to: a refusal costs nothing.
    pub value: Option<Vec<u8>>,
    /// Every policy's standing.
    pub standings: Vec<Standing>,
}

impl Standing {
    /// The same so many nanoseconds later, if nothing else came.
    pub fn after(&self, passed: u64) -> Self {
        Self {
            reset: self.reset.saturating_sub(passed),
            wait: self
                .wait
                .and_then(|wait| wait.checked_sub(passed))
                .filter(|wait| *wait > 0),
            ..*self
        }
    }
}

impl Decision {
    /// Whether every limit admits.
    pub fn admitted(&self) -> bool {
        self.standings
            .iter()
            .all(|standing| standing.wait.is_none())
    }
    /// Nanoseconds until all limits admit; zero when they do.
    pub fn wait(&self) -> u64 {
        self.standings
            .iter()
            .filter_map(|standing| standing.wait)
            .max()
            .unwrap_or(0)
    }
    /// The policy nearest to refusing.
    pub fn strictest(&self) -> Option<Standing> {
        self.standings
            .iter()
            .copied()
            .min_by_key(|standing| (standing.wait.is_none(), standing.remaining))
    }
}

impl Quota {
    /// From limits under a name, with the percentage of them that is left at the emergency levels 1 to 3; `Err` says how
    /// many bytes they need when that is over [`MOST_BYTES`].
    pub fn new(name: &str, limits: &[Limit], left: [u8; 3]) -> Result<Self, usize> {
        let mut policies = Vec::new();
        for (at, limit) in limits.iter().enumerate() {
            let name = if at == 0 {
                name.to_owned()
            } else {
                format!("{name}-{}", at + 1)
            };
            let own = match limit.burst {
                Some(Burst::Cells(cells)) => cells,
                _ => limit.rate.count,
            };
            let cell = match limit.algorithm {
                Algorithm::Gcra => Cell::Gcra(Gcra::new(limit.rate.count, limit.rate.per, own)),
                Algorithm::SlidingWindow => {
                    Cell::Window(Window::new(limit.rate.count, limit.rate.per))
                }
            };
            policies.push(Policy {
                name: name.clone(),
                quota: limit.rate.count,
                window: limit.rate.seconds(),
                cell,
            });
            if let Some(Burst::Rate(burst)) = limit.burst {
                let cell = Cell::Gcra(Gcra::new(burst.count, burst.per, burst.count));
                let name = format!("{name}-burst");
                policies.push(Policy {
                    name,
                    quota: burst.count,
                    window: burst.seconds(),
                    cell,
                });
            }
        }
        let bytes = LABEL
            + policies
                .iter()
                .map(|policy| policy.cell.size())
                .sum::<usize>();
        if bytes > MOST_BYTES {
            return Err(bytes);
        }
        let cells: Vec<Cell> = policies.iter().map(|policy| policy.cell).collect();
        let layout = label(format!("{cells:?}").as_bytes());
        let [first, second, third] = left.map(|percent| tightened(&policies, percent));
        let mut levels = [policies, first, second, third];
        let spans = levels.iter().map(|level| spans(level)).collect::<Vec<_>>();
        for level in &mut levels {
            for (at, policy) in level.iter_mut().enumerate() {
                let furthest = spans.iter().filter_map(|spans| spans.get(at)).max();
                policy.cell = policy.cell.within(furthest.copied().unwrap_or(0));
            }
        }
        let span = spans.iter().flatten().copied().max().unwrap_or(0);
        Ok(Self {
            lines: levels.each_ref().map(|level| line(level)),
            levels,
            layout,
            table: Tables::default().of(layout),
            span,
            messages: Default::default(),
        })
    }

    /// The same limits in a table of their own among those of a configuration.
    #[must_use]
    pub fn kept_apart(self, tables: &mut Tables) -> Self {
        Self {
            table: tables.of(self.layout),
            ..self
        }
    }

    /// The same limits for a store to decide on, with the percentage that is left at the levels 1 to 3; `Err` says how many
    /// nanoseconds they span where that is over what a store takes.
    pub fn global(mut self, left: [u8; 3]) -> Result<Self, u64> {
        let [normal, ..] = &self.levels;
        let [first, second, third] = left;
        let levels = [100, first, second, third].map(|percent| {
            let (mut limits, mut furthest) = (Limits::default(), 0);
            for policy in normal {
                match policy.cell {
                    Cell::Gcra(gcra) => {
                        let (interval, span) = gcra.slowed(percent);
                        furthest = span.max(furthest);
                        limits.gcra(interval, span);
                    }
                    Cell::Window(window) => {
                        let (per, limit) = window.tightened(percent).parts();
                        limits.window(per, limit);
                    }
                }
            }
            (limits.bytes(), furthest)
        });
        let furthest = levels.iter().map(|(_, span)| *span).max().unwrap_or(0);
        if furthest > MOST_SPAN {
            return Err(furthest);
        }
        self.messages = levels.map(|(message, _)| message);
        Ok(self)
    }

    /// The limits at an emergency level as a store is told them.
    pub fn message(&self, level: u8) -> &Bytes {
        let [normal, first, second, third] = &self.messages;
        match level {
            0 => normal,
            1 => first,
            2 => second,
            _ => third,
        }
    }

    /// The policies at an emergency level, in order.
    pub fn policies(&self, level: u8) -> &[Policy] {
        let [normal, first, second, third] = &self.levels;
        match level {
            0 => normal,
            1 => first,
            2 => second,
            _ => third,
        }
    }

    /// `RateLimit-Policy` at an emergency level.
    pub fn line(&self, level: u8) -> &Bytes {
        let [normal, first, second, third] = &self.lines;
        match level {
            0 => normal,
            1 => first,
            2 => second,
            _ => third,
        }
    }

    /// The limits that never refuse, each with the one that always does before it.
    pub fn idle(&self) -> Vec<(&str, &str)> {
        let policies = self.policies(0);
        let idle = policies.iter().enumerate().filter_map(|(at, policy)| {
            let mut others = policies.iter().enumerate();
            let (_, before) = others.find(|(other, it)| {
                // Of two alike the second is idle.
                let alike = it.cell == policy.cell;
                it.cell.covers(policy.cell) && if alike { *other < at } else { true }
            })?;
            Some((policy.name.as_str(), before.name.as_str()))
        });
        idle.collect()
    }

    /// What differs between layouts; part of the key too.
    pub fn layout(&self) -> u32 {
        self.layout
    }

    /// The table these limits are kept in.
    pub fn table(&self) -> &'static str {
        self.table
    }

    /// How long a value matters, nanoseconds.
    pub fn span(&self) -> u64 {
        self.span
    }

    /// Decides on `cost` cells at `now`, given the value before. Pure: safe to call twice.
    ///
    /// A value of another layout (a full table shares values between rules) refuses for one second: stricter than
    /// asked, never more permissive.
    pub fn decide(&self, before: Option<&[u8]>, now: u64, cost: u32, level: u8) -> Decision {
        let policies = self.policies(level);
        let mut words = Words(before.and_then(|value| value.get(LABEL..)));
        let mut value = self.begin();
        let mut standings = Vec::with_capacity(policies.len());
        let mut rebased = false;
        for (at, policy) in policies.iter().enumerate() {
            match policy.cell {
                Cell::Gcra(gcra) => {
                    let outcome = gcra.admit(words.next(), now, cost);
                    value.extend_from_slice(&outcome.state.to_le_bytes());
                    rebased |= outcome.rebased;
                    standings.push(standing(at, &outcome));
                }
                Cell::Window(window) => {
                    let outcome = window.admit(words.counts(), now, cost);
                    write_counts(&mut value, outcome.state);
                    rebased |= outcome.rebased;
                    standings.push(standing(at, &outcome));
                }
            }
        }
        if self.is_foreign(before) {
            for standing in &mut standings {
                *standing = Standing {
                    remaining: 0,
                    wait: Some(SECOND),
                    reset: SECOND,
                    ..*standing
                };
            }
            return Decision {
                value: None,
                standings,
            };
        }
        let admitted = standings.iter().all(|standing| standing.wait.is_none());
        let value = if admitted {
            Some(value)
        } else if rebased {
            Some(self.rebased(before, now, level))
        } else {
            None
        };
        Decision { value, standings }
    }

    /// The value after `cost` cells were used, whether they conform or not; `None` leaves it. Pure: safe to call twice.
    pub fn charge(&self, before: Option<&[u8]>, now: u64, cost: u32, level: u8) -> Option<Vec<u8>> {
        if self.is_foreign(before) || cost == 0 {
            return None;
        }
        Some(self.charged(before, now, cost, level))
    }

    /// The standings of an admission once `cost` more cells are taken, as of the admission: nobody waits for what the state
    /// says of it.
    pub fn less(&self, decision: &Decision, cost: u32, level: u8) -> Decision {
        let less = |standing: &Standing| {
            let policy = self.policies(level).get(standing.policy)?;
            let (remaining, reset) = policy.cell.less(standing.remaining, standing.reset, cost);
            Some(Standing {
                remaining,
                reset,
                ..*standing
            })
        };
        let standings = decision.standings.iter();
        Decision {
            value: None,
            standings: standings.map(|it| less(it).unwrap_or(*it)).collect(),
        }
    }

    /// The same use as before, as the clock has it now.
    fn rebased(&self, before: Option<&[u8]>, now: u64, level: u8) -> Vec<u8> {
        self.charged(before, now, 0, level)
    }

    fn charged(&self, before: Option<&[u8]>, now: u64, cost: u32, level: u8) -> Vec<u8> {
        let mut words = Words(before.and_then(|value| value.get(LABEL..)));
        let mut value = self.begin();
        for policy in self.policies(level) {
            match policy.cell {
                Cell::Gcra(gcra) => {
                    let state = gcra.charge(words.next(), now, cost);
                    value.extend_from_slice(&state.to_le_bytes());
                }
                Cell::Window(window) => {
                    write_counts(&mut value, window.charge(words.counts(), now, cost));
                }
            }
        }
        value
    }

    /// Whether a value is of this layout.
    pub fn reads(&self, value: &[u8]) -> bool {
        !self.is_foreign(Some(value))
    }

    fn is_foreign(&self, before: Option<&[u8]>) -> bool {
        before.is_some_and(|value| !value.starts_with(&self.layout.to_le_bytes()))
    }

    fn begin(&self) -> Vec<u8> {
        let mut value = Vec::with_capacity(MOST_BYTES);
        value.extend_from_slice(&self.layout.to_le_bytes());
        value
    }
}

/// The numbers of a value, in order.
struct Words<'a>(Option<&'a [u8]>);

impl Words<'_> {
    fn next(&mut self) -> Option<u64> {
        let (word, rest) = self.0?.split_first_chunk::<8>()?;
        self.0 = Some(rest);
        Some(u64::from_le_bytes(*word))
    }
    fn counts(&mut self) -> Option<Counts> {
        let (index, both) = (self.next()?, self.next()?);
        Some(Counts {
            index,
            previous: (both >> 32) as u32,
            current: both as u32,
        })
    }
}

fn write_counts(value: &mut Vec<u8>, counts: Counts) {
    let both = u64::from(counts.previous) << 32 | u64::from(counts.current);
    value.extend_from_slice(&counts.index.to_le_bytes());
    value.extend_from_slice(&both.to_le_bytes());
}

/// Draft §3: a List of Items, the policies' names, with the quota and its window.
fn line(policies: &[Policy]) -> Bytes {
    let items: Vec<String> = policies
        .iter()
        .map(|policy| format!("\"{}\";q={};w={}", policy.name, policy.quota, policy.window))
        .collect();
    items.join(", ").into()
}

fn tightened(policies: &[Policy], percent: u8) -> Vec<Policy> {
    let quota = |policy: &Policy| u64::from(policy.quota) * u64::from(percent) / 100;
    policies
        .iter()
        .map(|policy| Policy {
            quota: u32::try_from(quota(policy).max(1)).unwrap_or(u32::MAX),
            cell: policy.cell.tightened(percent),
            ..policy.clone()
        })
        .collect()
}

fn spans(policies: &[Policy]) -> Vec<u64> {
    policies.iter().map(|policy| policy.cell.span()).collect()
}

fn standing<S>(policy: usize, outcome: &Outcome<S>) -> Standing {
    Standing {
        policy,
        remaining: outcome.remaining,
        reset: outcome.reset,
        wait: outcome.verdict.err(),
    }
}

/// FNV-1a: a label, not a defence.
fn label(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn quota(limits: &str, left: [u8; 3]) -> Quota {
        let limits: Vec<Limit> = serde_json::from_str(limits).unwrap();
        Quota::new("q", &limits, left).unwrap()
    }

    #[test]
    fn all_limits_admit_or_none_is_used() {
        let quota = quota(
            r#"[{"rate":"2/second"},{"rate":"3/hour","algorithm":"sliding_window"}]"#,
            [100; 3],
        );
        let mut value = None;
        let mut seen = Vec::new();
        for now in [0, 0, 0, 1, 2].map(|second| 7_200 * SECOND + second * SECOND) {
            let decision = quota.decide(value.as_deref(), now, 1, 0);
            let refused: Vec<usize> = decision
                .standings
                .iter()
                .filter(|standing| standing.wait.is_some())
                .map(|standing| standing.policy)
                .collect();
            seen.push(refused);
            value = decision.value.or(value);
        }
        assert_eq!(seen, [vec![], vec![], vec![0], vec![], vec![1]]);
    }

    #[test]
    fn a_value_of_another_layout_refuses_and_is_left_alone() {
        let (one, other) = (
            quota(r#"[{"rate":"2/second"}]"#, [100; 3]),
            quota(r#"[{"rate":"3/second"}]"#, [100; 3]),
        );
        let value = one.decide(None, SECOND, 1, 0).value;
        let decision = other.decide(value.as_deref(), SECOND, 1, 0);
        assert_eq!((decision.admitted(), decision.value), (false, None));
        assert_eq!(other.charge(value.as_deref(), SECOND, 1, 0), None);
    }

    #[test]
    fn limits_have_tables_of_their_own_while_there_are_enough() {
        let quotas: Vec<Quota> = (1..=20)
            .map(|count| quota(&format!(r#"[{{"rate":"{count}/hour"}}]"#), [100; 3]))
            .collect();
        let mut tables = Tables::default();
        let mut of = |quota: &Quota| quota.clone().kept_apart(&mut tables).table();
        let first: Vec<_> = quotas.iter().map(&mut of).collect();
        let apart: std::collections::BTreeSet<_> = first.iter().take(16).collect();
        assert_eq!(apart.len(), 16, "{first:?}");
        let again: Vec<_> = quotas.iter().map(&mut of).collect();
        assert_eq!(first, again, "what came later moved nothing");
        let alone = quotas.get(17).map(Quota::table);
        assert_eq!(
            first.get(17).copied(),
            alone,
            "all are taken: the one it names"
        );
    }

    #[test]
    fn each_emergency_level_leaves_its_share() {
        let quota = quota(r#"[{"rate":"100/minute"}]"#, [75, 50, 1]);
        for (level, admitted) in [(0, 100), (1, 75), (2, 50), (3, 1)] {
            let mut value = None;
            let count = (0..200)
                .filter(|_| {
                    let decision = quota.decide(value.as_deref(), SECOND, 1, level);
                    let admitted = decision.admitted();
                    value = decision.value.or(value.take());
                    admitted
                })
                .count();
            assert_eq!(count, admitted, "level {level}");
            assert_eq!(
                quota.policies(level).first().map(|policy| policy.quota),
                Some(admitted as u32)
            );
        }
    }

    #[test]
    fn a_clock_set_back_is_written_even_when_refused() {
        let quota = quota(
            r#"[{"rate":"10/hour"},{"rate":"5/minute","algorithm":"sliding_window"}]"#,
            [100; 3],
        );
        let day = 86_400 * SECOND;
        let mut value = None;
        for _ in 0..5 {
            value = quota.decide(value.as_deref(), 9 * day, 1, 0).value;
        }
        let back = quota.decide(value.as_deref(), 8 * day, 1, 0);
        assert!(!back.admitted());
        assert!(back.wait() <= 3_600 * SECOND);
        let later = quota.decide(back.value.as_deref(), 8 * day + back.wait(), 1, 0);
        assert!(later.admitted(), "{later:?}");
    }

    proptest! {
        /// Levels that come and go give nothing beyond the normal limit.
        #[test]
        fn changing_levels_keep_the_bound(
            count in 1u32..50, per in 1u64..20, asks in prop::collection::vec((0u8..4, 0u64..500_000_000, 1u32..4), 1..300)
        ) {
            let quota = quota(&format!(r#"[{{"rate":"{count}/{per}s"}}]"#), [70, 30, 5]);
            let (start, mut now, mut used, mut value) = (1_000 * SECOND, 1_000 * SECOND, 0u64, None);
            for (level, gap, cost) in asks {
                now += gap;
                let decision = quota.decide(value.as_deref(), now, cost.min(count), level);
                if decision.admitted() {
                    let most = quota.policies(level)[0].quota;
                    used += u64::from(cost.min(count).min(most));
                }
                value = decision.value.or(value);
                prop_assert!(used <= u64::from(count) + (now - start) * u64::from(count) / (per * SECOND));
            }
        }

        /// Any bytes a table may hold are read without a panic and never admit more.
        #[test]
        fn any_value_is_read(bytes in prop::collection::vec(any::<u8>(), 0..70), now in any::<u64>(), cost in any::<u32>()) {
            let quota = quota(r#"[{"rate":"10/second"},{"rate":"5/minute","algorithm":"sliding_window"}]"#, [70, 30, 5]);
            let labelled = [&quota.layout().to_le_bytes()[..], &bytes].concat();
            for value in [&bytes, &labelled] {
                for level in 0..4 {
                    quota.decide(Some(value), now, cost, level);
                    quota.charge(Some(value), now, cost, level);
                }
            }
        }
    }
}
