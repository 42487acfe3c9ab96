//! What each tier was asked and did: counted, and summed up for an operator.

use std::cell::Cell;

use edgeweir_filter::Cx;
use serde_json::{Map, Value};

/// A tier.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tier {
    /// An instance's own memory.
    L1,
    /// The store that workers share.
    L2,
    /// The store that machines share.
    L3,
}

/// What is counted of one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Did {
    /// It had what was asked for.
    Hit,
    /// It had not.
    Miss,
    /// It had it, stale: a part of the hits.
    Stale,
    /// Nanoseconds until it was there.
    Lookup,
    /// It took a response.
    Stored,
    /// Bytes of those.
    StoredBytes,
    /// Others had to go to make room.
    Evicted,
}

const KINDS: usize = 7;

macro_rules! names {
    ($tier:literal) => {
        [
            concat!("cache.", $tier, ".hit"),
            concat!("cache.", $tier, ".miss"),
            concat!("cache.", $tier, ".stale"),
            concat!("cache.", $tier, ".lookup_ns"),
            concat!("cache.", $tier, ".stored"),
            concat!("cache.", $tier, ".stored_bytes"),
            concat!("cache.", $tier, ".evicted"),
        ]
    };
}

static NAMES: [[&str; KINDS]; 3] = [names!("l1"), names!("l2"), names!("l3")];

/// The sums of one instance.
#[derive(Debug, Default)]
pub struct Tiers([[Cell<u64>; KINDS]; 3]);

impl Tiers {
    /// Counts, unless it is nothing.
    pub fn add(&self, tier: Tier, did: Did, by: u64, cx: &mut Cx<'_>) {
        let (row, at) = (tier as usize, did as usize);
        let name = NAMES.get(row).and_then(|names| names.get(at));
        let sum = self.0.get(row).and_then(|sums| sums.get(at));
        if let (Some(name), Some(sum), true) = (name, sum, by > 0) {
            sum.set(sum.get().saturating_add(by));
            cx.add(name, by);
        }
    }

    /// Counts one.
    pub fn count(&self, tier: Tier, did: Did, cx: &mut Cx<'_>) {
        self.add(tier, did, 1, cx);
    }

    /// The sums by the last part of their counters' names, and how many of a hundred lookups were hits.
    pub fn statistics(&self, tier: Tier) -> Map<String, Value> {
        let row = tier as usize;
        let (names, sums) = (NAMES.get(row), self.0.get(row));
        let both = names.into_iter().flatten().zip(sums.into_iter().flatten());
        let mut all: Map<String, Value> = both
            .map(|(name, sum)| {
                let last = name.rsplit('.').next().unwrap_or(name);
                (last.to_owned(), sum.get().into())
            })
            .collect();
        let sum = |did: Did| {
            let sum = sums.and_then(|sums| sums.get(did as usize));
            sum.map_or(0, Cell::get)
        };
        let hits = sum(Did::Hit);
        let percent = hits.saturating_mul(100).checked_div(hits + sum(Did::Miss));
        all.insert("hit_percent".to_owned(), percent.into());
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgeweir_filter::{Record, Timestamp};

    #[test]
    fn what_is_counted_is_summed_up() {
        let (tiers, mut record) = (Tiers::default(), Record::default());
        assert_eq!(tiers.statistics(Tier::L1)["hit_percent"], Value::Null);
        let mut cx = Cx::new(Timestamp(1), &mut record);
        for _ in 0..3 {
            tiers.count(Tier::L2, Did::Hit, &mut cx);
        }
        tiers.count(Tier::L2, Did::Miss, &mut cx);
        tiers.add(Tier::L2, Did::StoredBytes, 7, &mut cx);
        tiers.add(Tier::L2, Did::Evicted, 0, &mut cx);
        let sums = tiers.statistics(Tier::L2);
        assert_eq!(sums["hit_percent"], 75);
        assert_eq!(
            (&sums["hit"], &sums["stored_bytes"]),
            (&3.into(), &7.into())
        );
        assert_eq!(tiers.statistics(Tier::L1)["hit"], 0);
        let last = record.counts.last();
        assert_eq!(last, Some(&("cache.l2.stored_bytes", 7)));
    }
}
