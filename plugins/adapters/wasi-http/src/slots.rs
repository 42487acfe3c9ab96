//! How values lie in a key-value store that has no expiry, no bounds and no compare-and-swap.
//!
//! The store's keys are a fixed pool, so it can't grow forever: `edgeweir/<filter>/slot/<n>` with [`SLOTS`] values of at
//! most [`VALUE`](crate::memory::VALUE) bytes (whoever comes later to a slot takes it), however many bytes the filter wants
//! of other stores (instances of different configurations must find the same slots), and `edgeweir/<filter>/<table>/<n>`
//! with [`SETS`](crate::cells::SETS) sets of cells. The value carries its whole key and its expiry. Which slot a key has
//! depends on a random seed kept at `edgeweir/<filter>/seed`, so nobody can aim at the slot of another's key.

use std::hash::{DefaultHasher, Hasher};

use bytes::Bytes;
use edgeweir_filter::Timestamp;

use crate::cells::SETS;

/// Values at most.
pub const SLOTS: u64 = 2_048;

/// Names the slots of one filter.
#[derive(Clone, Debug)]
pub struct Slots {
    filter: &'static str,
    seed: u64,
}

impl Slots {
    /// Slots by a seed.
    pub fn new(filter: &'static str, seed: u64) -> Self {
        Self { filter, seed }
    }

    /// Where the seed is kept.
    pub fn seed_name(filter: &str) -> String {
        format!("edgeweir/{filter}/seed")
    }

    /// Where the value of `key` is kept.
    pub fn value_name(&self, key: &[u8]) -> String {
        format!("edgeweir/{}/slot/{}", self.filter, self.hash(key) % SLOTS)
    }

    /// The number and the place of the set of `key`'s cell, and its tag within.
    pub fn cell(&self, table: &str, key: &[u8]) -> (u64, String, u64) {
        let tag = self.hash(key);
        let number = tag % SETS;
        (
            number,
            format!("edgeweir/{}/{table}/{number}", self.filter),
            tag,
        )
    }

    /// SipHash with the seed in front. Another release of the compiler may hash differently: then what is kept is not
    /// found any more and is overwritten in time.
    fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.seed);
        hasher.write(key);
        hasher.finish()
    }
}

const VERSION: u8 = 1;

/// A value with its key and expiry, as kept in a slot.
pub fn encode(key: &[u8], value: &[u8], until: Timestamp) -> Option<Vec<u8>> {
    let length = u16::try_from(key.len()).ok()?;
    let mut out = Vec::with_capacity(11 + key.len() + value.len());
    out.push(VERSION);
    out.extend_from_slice(&until.0.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(key);
    out.extend_from_slice(value);
    Some(out)
}

/// The value in a slot, when it is `key`'s and has not expired.
pub fn decode(kept: Vec<u8>, key: &[u8], now: Timestamp) -> Option<Bytes> {
    let (&VERSION, rest) = kept.split_first()? else {
        return None;
    };
    let (until, rest) = rest.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (its_key, value) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    if Timestamp(u64::from_le_bytes(*until)) <= now || its_key != key {
        return None;
    }
    let at = kept.len() - value.len();
    Some(Bytes::from(kept).slice(at..))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000);
    const LATER: Timestamp = Timestamp::from_secs(1_060);

    #[test]
    fn a_slot_gives_its_own_unexpired_value_only() {
        let kept = encode(b"key", b"value", LATER).unwrap_or_default();
        for (name, key, now, want) in [
            ("found", &b"key"[..], NOW, Some(Bytes::from("value"))),
            ("of another key", b"other", NOW, None),
            ("of a longer key", b"keyv", NOW, None),
            ("expired", b"key", LATER, None),
        ] {
            assert_eq!(decode(kept.clone(), key, now), want, "{name}");
        }
        for cut in 0..kept.len() - 5 {
            let cut_off = kept.iter().take(cut).copied().collect();
            assert_eq!(decode(cut_off, b"key", NOW), None, "{cut}");
        }
    }

    #[test]
    fn the_pool_of_names_is_fixed() {
        let slots = Slots::new("cache", 42);
        let names: std::collections::HashSet<String> = (0..100_000_u32)
            .map(|n| slots.value_name(&n.to_le_bytes()))
            .collect();
        assert_eq!(names.len() as u64, SLOTS);
        assert_ne!(
            Slots::new("cache", 1).value_name(b"key"),
            Slots::new("cache", 2).value_name(b"key")
        );
    }
}
