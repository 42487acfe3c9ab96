//! A limit as an operator writes it.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

use crate::rate::Rate;

/// A limit.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// The sustained rate.
    pub rate: Rate,
    /// How much may come at once: a number of cells, or a second rate (`"20/second"`) that holds as well. Without it
    /// the whole count of `rate` may come at once.
    #[serde(default)]
    pub burst: Option<Burst>,
    /// `gcra` (the default) or `sliding_window`.
    #[serde(default)]
    pub algorithm: Algorithm,
}

impl Limit {
    /// How many cells it ever admits at once.
    pub fn at_once(&self) -> u32 {
        match self.burst {
            Some(Burst::Cells(cells)) => cells,
            Some(Burst::Rate(rate)) => rate.count.min(self.rate.count),
            None => self.rate.count,
        }
    }

    /// Why it can't be: the field and the reason.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        match (self.algorithm, self.burst) {
            (_, Some(Burst::Cells(cells))) if !(1..=1_000_000_000).contains(&cells) => Err((
                "burst",
                format!("{cells} is out of bounds: 1 to 1000000000"),
            )),
            (Algorithm::SlidingWindow, Some(Burst::Cells(_))) => Err((
                "burst",
                "a sliding window has no burst in cells: give a rate like \"20/second\"".to_owned(),
            )),
            _ => Ok(()),
        }
    }
}

/// How much may come at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, JsonSchema)]
#[schemars(untagged)]
pub enum Burst {
    /// So many cells: 1 to 1,000,000,000.
    Cells(#[schemars(range(min = 1, max = 1_000_000_000))] u32),
    /// A second rate that holds as well.
    Rate(Rate),
}

/// By hand, so that a rate that is none says why.
impl<'de> Deserialize<'de> for Burst {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BurstVisitor)
    }
}

struct BurstVisitor;

impl Visitor<'_> for BurstVisitor {
    type Value = Burst;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of cells (1 to 1000000000) or a rate like \"20/second\"")
    }
    fn visit_u64<E: Error>(self, cells: u64) -> Result<Burst, E> {
        let cells = u32::try_from(cells);
        cells
            .map(Burst::Cells)
            .map_err(|_| E::custom(OUT_OF_BOUNDS))
    }
    fn visit_str<E: Error>(self, rate: &str) -> Result<Burst, E> {
        rate.parse().map(Burst::Rate).map_err(E::custom)
    }
}

/// Of a number of cells that none can be.
pub const OUT_OF_BOUNDS: &str = "the number of cells is out of bounds: 1 to 1000000000";

/// How a limit counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// The generic cell rate algorithm: exact.
    #[default]
    Gcra,
    /// The sliding window counter: an estimate over two windows, of which it admits at most twice the limit in one.
    SlidingWindow,
}
