//! All limits of a rule in one small value, decided together: the strictest answers.

use crate::config::{Algorithm, Burst, Limit};
use crate::gcra::{Gcra, Outcome};
use crate::window::{Counts, Window};

/// Bytes a value may have in the edge's table of small values.
pub const MOST_BYTES: usize = 64;

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
}

/// The limits of one rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Quota {
    policies: Vec<Policy>,
    /// Distinguishes layouts, so that a value of another rule is never read as this one's.
    layout: u8,
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
    /// The value to write; `None` when refused: a refusal costs nothing.
    pub value: Option<Vec<u8>>,
    /// Every policy's standing.
    pub standings: Vec<Standing>,
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
    /// From a rule's limits; `Err` says how many bytes they need when that is over [`MOST_BYTES`].
    pub fn new(rule: &str, limits: &[Limit]) -> Result<Self, usize> {
        let mut policies = Vec::new();
        for (at, limit) in limits.iter().enumerate() {
            let name = if at == 0 {
                rule.to_owned()
            } else {
                format!("{rule}-{}", at + 1)
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
        let bytes = 1 + policies
            .iter()
            .map(|policy| policy.cell.size())
            .sum::<usize>();
        if bytes > MOST_BYTES {
            return Err(bytes);
        }
        let layout = fold(format!("{policies:?}").as_bytes());
        Ok(Self { policies, layout })
    }

    /// The policies, in order.
    pub fn policies(&self) -> &[Policy] {
        &self.policies
    }

    /// A byte that differs between most layouts; part of the key too.
    pub fn layout(&self) -> u8 {
        self.layout
    }

    /// How long a value matters, nanoseconds.
    pub fn span(&self) -> u64 {
        let spans = self.policies.iter().map(|policy| match policy.cell {
            Cell::Gcra(gcra) => gcra.span(),
            Cell::Window(window) => window.span(),
        });
        spans.max().unwrap_or(0)
    }

    /// Decides on `cost` cells at `now`, given the value before. Pure: safe to call twice.
    ///
    /// A value of another layout (a full table shares values between rules) refuses for one second: stricter than
    /// asked, never more permissive.
    pub fn decide(&self, before: Option<&[u8]>, now: u64, cost: u32) -> Decision {
        let foreign = before.is_some_and(|value| value.first() != Some(&self.layout));
        let mut rest = before.and_then(|value| value.get(1..));
        let mut value = vec![self.layout];
        let mut standings = Vec::with_capacity(self.policies.len());
        for (at, policy) in self.policies.iter().enumerate() {
            let mut word = || {
                let (head, tail) = rest?.split_first_chunk::<8>()?;
                rest = Some(tail);
                Some(u64::from_le_bytes(*head))
            };
            let standing = match policy.cell {
                Cell::Gcra(gcra) => {
                    let outcome = gcra.admit(word(), now, cost);
                    value.extend_from_slice(&outcome.state.to_le_bytes());
                    standing(at, &outcome)
                }
                Cell::Window(window) => {
                    let counts = word().zip(word()).map(|(index, both)| Counts {
                        index,
                        previous: (both >> 32) as u32,
                        current: both as u32,
                    });
                    let outcome = window.admit(counts, now, cost);
                    let both =
                        u64::from(outcome.state.previous) << 32 | u64::from(outcome.state.current);
                    value.extend_from_slice(&outcome.state.index.to_le_bytes());
                    value.extend_from_slice(&both.to_le_bytes());
                    standing(at, &outcome)
                }
            };
            standings.push(standing);
        }
        if foreign {
            for standing in &mut standings {
                *standing = Standing {
                    remaining: 0,
                    wait: Some(1_000_000_000),
                    reset: 1_000_000_000,
                    ..*standing
                };
            }
        }
        let admitted = standings.iter().all(|standing| standing.wait.is_none());
        Decision {
            value: admitted.then_some(value),
            standings,
        }
    }
}

fn standing<S>(policy: usize, outcome: &Outcome<S>) -> Standing {
    Standing {
        policy,
        remaining: outcome.remaining,
        reset: outcome.reset,
        wait: outcome.verdict.err(),
    }
}

/// FNV-1a, folded to a byte: a label, not a defence.
fn fold(bytes: &[u8]) -> u8 {
    let hash = bytes.iter().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    hash.to_le_bytes()
        .into_iter()
        .fold(0, |all, byte| all ^ byte)
}
