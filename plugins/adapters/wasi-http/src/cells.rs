//! Small values that are changed in place, in a table that stays a bound when it is full.
//!
//! A key belongs to one set. A set holds a cell for each of its keys, up to [`WAYS`]; the keys beyond share the set's
//! overflow cell, so that together they get no more than one of them would. A key that finds room later starts from
//! what the overflow cell says: moving house never gives it a fresh allowance. A cell that lives is never given up.
//!
//! Cells say when they end and how long they live: after the clock was set back, what would end later than it lives from
//! now on ends then.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

use bytes::Bytes;
use edgeweir_filter::{Change, Failed, Timestamp};

/// Cells of a set, besides the overflow cell.
pub const WAYS: usize = 16;
/// Sets of a table: 16,384 keys have a cell of their own.
pub const SETS: u64 = 1_024;
/// Bytes of one value at most.
pub const VALUE: usize = 64;
/// How far the clocks of two readings may be apart, added to how long a cell lives.
const SLACK: Duration = Duration::from_secs(1);

#[derive(Clone, PartialEq, Eq, Debug)]
struct Cell {
    tag: u64,
    until: Timestamp,
    ttl: Duration,
    value: Vec<u8>,
}

impl Cell {
    /// Whether it is alive; one that would live longer than it may ends when it may.
    fn lives(&mut self, now: Timestamp) -> bool {
        self.until = self.until.min(now.plus(self.ttl).plus(SLACK));
        self.until > now
    }
}

/// The cells of the keys of one set.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Set {
    ways: Vec<Cell>,
    overflow: Option<Cell>,
}

impl Set {
    /// Applies a change to the cell of the key with this tag. The value before, and whether something was written.
    pub fn update(
        &mut self,
        tag: u64,
        change: &Change,
        ttl: Duration,
        now: Timestamp,
    ) -> Result<(Option<Bytes>, bool), Failed> {
        self.ways.retain_mut(|cell| cell.lives(now));
        self.overflow.take_if(|cell| !cell.lives(now));
        let until = now.plus(ttl);
        if let Some(cell) = self.ways.iter_mut().find(|cell| cell.tag == tag) {
            let before = Bytes::copy_from_slice(&cell.value);
            let after = checked(change.apply(Some(&before)))?;
            let written = after.is_some();
            if let Some(value) = after {
                (cell.value, cell.until, cell.ttl) = (value, until, ttl);
            }
            return Ok((Some(before), written));
        }
        let before = self
            .overflow
            .as_ref()
            .map(|cell| Bytes::copy_from_slice(&cell.value));
        let Some(value) = checked(change.apply(before.as_deref()))? else {
            return Ok((before, false));
        };
        if self.ways.len() < WAYS {
            self.ways.push(Cell {
                tag,
                until,
                ttl,
                value,
            });
        } else {
            // The cell is of many keys: it matters for as long as it does for one of them.
            let (until, ttl) = match &self.overflow {
                Some(cell) => (cell.until.max(until), cell.ttl.max(ttl)),
                None => (until, ttl),
            };
            self.overflow = Some(Cell {
                tag: 0,
                until,
                ttl,
                value,
            });
        }
        Ok((before, true))
    }

    /// As bytes, at most `1 + (WAYS + 1) * (VALUE + 26)`.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        let overflow = self.overflow.iter().map(|cell| (OVERFLOW, cell));
        for (kind, cell) in self.ways.iter().map(|cell| (WAY, cell)).chain(overflow) {
            out.push(kind);
            out.extend_from_slice(&cell.tag.to_le_bytes());
            out.extend_from_slice(&cell.until.0.to_le_bytes());
            let ttl = u64::try_from(cell.ttl.as_nanos()).unwrap_or(u64::MAX);
            out.extend_from_slice(&ttl.to_le_bytes());
            out.push(u8::try_from(cell.value.len()).unwrap_or(0));
            out.extend_from_slice(&cell.value);
        }
        out
    }

    /// From bytes. What is not a set (another version, something cut off) is `None`.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&VERSION, mut rest) = bytes.split_first()? else {
            return None;
        };
        let mut set = Self::default();
        while let Some((&kind, after)) = rest.split_first() {
            let (tag, after) = after.split_first_chunk::<8>()?;
            let (until, after) = after.split_first_chunk::<8>()?;
            let (ttl, after) = after.split_first_chunk::<8>()?;
            let (&length, after) = after.split_first()?;
            let (value, after) = after.split_at_checked(usize::from(length))?;
            if value.len() > VALUE {
                return None;
            }
            let cell = Cell {
                tag: u64::from_le_bytes(*tag),
                until: Timestamp(u64::from_le_bytes(*until)),
                ttl: Duration::from_nanos(u64::from_le_bytes(*ttl)),
                value: value.to_vec(),
            };
            match kind {
                WAY if set.ways.len() < WAYS => set.ways.push(cell),
                OVERFLOW => set.overflow = Some(cell),
                _ => return None,
            }
            rest = after;
        }
        Some(set)
    }
}

const VERSION: u8 = 2;
const WAY: u8 = 0;
const OVERFLOW: u8 = 1;

fn checked(value: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, Failed> {
    match value {
        Some(value) if value.len() > VALUE => Err(Failed::TooLarge),
        value => Ok(value),
    }
}

/// A table of sets in the instance's memory, at most about 2 MiB.
#[derive(Default)]
pub struct Cells {
    seed: RandomState,
    sets: HashMap<u64, Set>,
}

impl Cells {
    /// Applies a change to the cell of `key`: the value before.
    pub fn update(
        &mut self,
        key: &[u8],
        change: &Change,
        ttl: Duration,
        now: Timestamp,
    ) -> Result<Option<Bytes>, Failed> {
        let tag = self.seed.hash_one(key);
        let set = self.sets.entry(tag % SETS).or_default();
        set.update(tag, change, ttl, now).map(|(before, _)| before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const NOW: Timestamp = Timestamp::from_secs(1_000);

    /// Counts up to a limit: the smallest limiter.
    fn take(limit: u8) -> Change {
        Change::new(move |before| {
            let used = before.and_then(|value| value.first().copied()).unwrap_or(0);
            (used < limit).then(|| vec![used + 1])
        })
    }

    fn admitted(set: &mut Set, tag: u64, now: Timestamp) -> bool {
        matches!(set.update(tag, &take(3), MINUTE, now), Ok((_, true)))
    }

    #[test]
    fn a_key_has_its_own_cell_until_it_expires() {
        let mut set = Set::default();
        let first = (0..5).filter(|_| admitted(&mut set, 1, NOW)).count();
        assert_eq!(first, 3);
        assert!(admitted(&mut set, 2, NOW));
        assert!(admitted(&mut set, 1, NOW.plus(MINUTE)));
    }

    #[test]
    fn beyond_the_ways_keys_share_one_bound() {
        let mut set = Set::default();
        for tag in 0..WAYS as u64 {
            assert!(admitted(&mut set, tag, NOW));
        }
        let shared = (100..200)
            .filter(|&tag| admitted(&mut set, tag, NOW))
            .count();
        assert_eq!(shared, 3, "a hundred keys in one cell");
    }

    #[test]
    fn moving_out_of_the_overflow_gives_no_fresh_allowance() {
        let mut set = Set::default();
        for tag in 0..WAYS as u64 {
            assert!(admitted(&mut set, tag, NOW));
        }
        let later = NOW.plus(MINUTE / 2);
        assert!((0..3).all(|_| admitted(&mut set, 100, later)));
        // The ways expire, the overflow cell does not yet: key 100 gets a cell of its own, as used as before.
        let free = NOW.plus(MINUTE);
        assert!(!admitted(&mut set, 100, free));
        assert!(admitted(&mut set, 100, free.plus(MINUTE)));
    }

    #[test]
    fn a_set_survives_its_bytes_and_nonsense_is_refused() {
        let mut set = Set::default();
        for tag in 0..20 {
            let _ = admitted(&mut set, tag, NOW);
        }
        let bytes = set.encode();
        assert_eq!(Set::decode(&bytes), Some(set));
        assert_eq!(Set::decode(&[]), None);
        assert_eq!(Set::decode(&[9, 0]), None);
        for cut in 1..28 {
            assert_eq!(
                Set::decode(bytes.get(..bytes.len() - cut).unwrap_or_default()).is_some(),
                cut == 27,
                "{cut}"
            );
        }
    }

    #[test]
    fn a_clock_set_back_keeps_cells_no_longer_than_they_live() {
        let mut set = Set::default();
        for tag in 0..20 {
            let _ = admitted(&mut set, tag, NOW.plus(MINUTE * 1_440));
        }
        // The next change has them all begin anew; their values are the filter's to judge.
        assert!(admitted(&mut set, 0, NOW));
        let later = NOW.plus(MINUTE).plus(SLACK);
        assert!((1..4).all(|tag| admitted(&mut set, tag, later)));
        assert_eq!((set.ways.len(), set.overflow), (3, None));
    }

    /// A hundred thousand clients, each a cell a second and five at once: none gets more, however many share.
    #[test]
    fn no_client_gets_more_than_its_bound() {
        const SECOND: u64 = 1_000_000_000;
        let after = |before: Option<&[u8]>, now: u64| {
            let tat = before.and_then(|value| value.try_into().ok());
            let after = tat.map_or(now, u64::from_le_bytes).max(now) + SECOND;
            (after <= now + 5 * SECOND).then_some(after)
        };
        let mut cells = Cells::default();
        let mut got: HashMap<u32, (u64, u64)> = HashMap::new();
        let mut now = 1_000 * SECOND;
        for ask in 0..400_000_u32 {
            let client = match ask {
                0..100_000 => ask,
                _ if ask % 3 == 0 => ask / 3 % 40,
                _ => ask.wrapping_mul(2_654_435_761) % 100_000,
            };
            now += 30_000;
            let change =
                Change::new(move |before| after(before, now).map(|tat| tat.to_le_bytes().to_vec()));
            let ttl = Duration::from_secs(5);
            let before = cells.update(&client.to_le_bytes(), &change, ttl, Timestamp(now));
            let admitted = before.is_ok_and(|before| after(before.as_deref(), now).is_some());
            let (first, count) = got.entry(client).or_insert((now, 0));
            *count += u64::from(admitted);
            assert!(*count <= 5 + (now - *first) / SECOND, "client {client}");
        }
    }

    #[test]
    fn a_value_over_the_bound_is_refused() {
        let mut cells = Cells::default();
        let change = Change::new(|_| Some(vec![0; VALUE + 1]));
        assert_eq!(
            cells.update(b"key", &change, MINUTE, NOW),
            Err(Failed::TooLarge)
        );
    }

    #[test]
    fn a_table_tells_keys_apart() {
        let mut cells = Cells::default();
        for n in 0..2_000_u32 {
            let before = cells.update(&n.to_le_bytes(), &take(3), MINUTE, NOW);
            assert_eq!(before, Ok(None), "{n}");
        }
        assert_eq!(
            cells.update(&7_u32.to_le_bytes(), &take(3), MINUTE, NOW),
            Ok(Some(Bytes::from(vec![1])))
        );
    }
}
