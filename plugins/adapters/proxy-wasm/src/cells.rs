//! Small values that are read, changed and written as one operation (`Effect::Update`).
//!
//! 4,096 shared keys, each a bucket of at most 16 values of at most 64 bytes: 65,536 values, 6 MB at most. A value
//! is known by 64 bits of a keyed hash, of which 12 choose its bucket. A value that lives is never given up. When a
//! bucket is full, the keys that found no place share one further value, and as long as that one lives every new key
//! starts from it: sharing can only make a limit stricter, never let a key start over.
//!
//! Values say when they end and how long they live: after the clock was set back, what would end later than it lives from
//! now on ends then.
//!
//! Calls of the host: one for a change that leaves the value as it is, else two.

use std::time::Duration;

use bytes::Bytes;
use edgeweir_filter::{Change, Failed, Timestamp};

use crate::shared::{Expect, Reader, Seed, SharedData};

const BUCKETS: u64 = 4096;
const CELLS: usize = 16;
const VALUE_LIMIT: usize = 64;
/// Compare-and-swap rounds before giving up, 2 ms of them. Two workers that do nothing but update one bucket can fall into step, so that
/// one of them loses for as long as the other goes on: 64 were too few for 100 updates in a row.
const ROUNDS: usize = 1024;
/// The name of the value shared by those without a place; no key's hash is zero.
const OVERFLOW: u64 = 0;
const VERSION: u8 = 2;
/// How far the clocks of two readings may be apart, nanoseconds, added to how long a value lives.
const SLACK: u64 = 1_000_000_000;

/// The pool of one filter.
pub struct Cells<D> {
    data: D,
    prefix: String,
    seed: Option<Seed>,
}

#[derive(Clone, Copy)]
struct Cell<'a> {
    name: u64,
    until: u64,
    /// Whole seconds, rounded up.
    ttl: u32,
    value: &'a [u8],
}

impl<D: SharedData> Cells<D> {
    /// The pool under a prefix of shared keys; nothing is read or written yet.
    pub fn new(data: D, prefix: String) -> Self {
        Self {
            data,
            prefix,
            seed: None,
        }
    }

    /// Applies `change` to the value of `key` atomically and answers the value before. It lives for `ttl` from now.
    pub fn update(
        &mut self,
        key: &[u8],
        change: &Change,
        ttl: Duration,
        now: Timestamp,
    ) -> Result<Option<Bytes>, Failed> {
        let seed = match self.seed {
            Some(seed) => seed,
            None => *self.seed.insert(Seed::of(&mut self.data, &self.prefix)?),
        };
        let (place, name) = seed.hash(key);
        let number = u16::try_from(place % BUCKETS).unwrap_or(0).to_be_bytes();
        let bucket = [self.prefix.as_bytes(), b"/", &number].concat();
        let seconds = u32::try_from(ttl.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX);
        for _ in 0..ROUNDS {
            let found = self.data.get(&bucket)?;
            let expect = found
                .as_ref()
                .map_or(Expect::Absent, |(_, version)| Expect::Version(*version));
            let raw = found.map(|(raw, _)| raw).unwrap_or_default();
            let before = find(&raw, name, now);
            let answer = |before: Option<&[u8]>| before.map(|value| raw.slice_ref(value));
            let after = match change.apply(before) {
                Some(after) if after.len() <= VALUE_LIMIT => after,
                Some(_) => return Err(Failed::TooLarge),
                None => return Ok(answer(before)),
            };
            let mut cells: Vec<Cell<'_>> = alive(&raw, now).collect();
            let cell = Cell {
                name,
                until: now.plus(ttl).0,
                ttl: seconds,
                value: &after,
            };
            put(&mut cells, cell);
            if self.data.set(&bucket, &written(&cells), expect)? {
                return Ok(answer(before));
            }
        }
        Err(Failed::Contended)
    }
}

/// The value a key has: its own, or else that of the overflow, or none.
fn find(raw: &[u8], name: u64, now: Timestamp) -> Option<&[u8]> {
    let mut overflow = None;
    for cell in alive(raw, now) {
        if cell.name == name {
            return Some(cell.value);
        }
        if cell.name == OVERFLOW {
            overflow = Some(cell.value);
        }
    }
    overflow
}

fn put<'a>(cells: &mut Vec<Cell<'a>>, mut cell: Cell<'a>) {
    let own = cells.iter().filter(|other| other.name != OVERFLOW).count();
    if own >= CELLS && !cells.iter().any(|other| other.name == cell.name) {
        cell.name = OVERFLOW;
    }
    match cells.iter_mut().find(|other| other.name == cell.name) {
        Some(other) if cell.name == OVERFLOW => {
            // It serves several keys: it lives as long as the one that needs it longest.
            *other = Cell {
                until: other.until.max(cell.until),
                ttl: other.ttl.max(cell.ttl),
                ..cell
            };
        }
        Some(other) => *other = cell,
        None => cells.push(cell),
    }
}

/// The cells that are still alive; none of a bucket in another format.
fn alive(raw: &[u8], now: Timestamp) -> impl Iterator<Item = Cell<'_>> {
    let mut reader = Reader(raw);
    let known = reader.u8() == Some(VERSION);
    std::iter::from_fn(move || {
        let (name, until, ttl) = (reader.u64()?, reader.u64()?, reader.u32()?);
        let longest = u64::from(ttl).saturating_mul(1_000_000_000);
        let longest = now.0.saturating_add(longest).saturating_add(SLACK);
        Some(Cell {
            name,
            until: until.min(longest),
            ttl,
            value: {
                let size = reader.u8()?;
                reader.bytes(usize::from(size))?
            },
        })
    })
    .take(if known { CELLS + 1 } else { 0 })
    .filter(move |cell| cell.until > now.0)
}

fn written(cells: &[Cell<'_>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(
        1 + cells
            .iter()
            .map(|cell| 21 + cell.value.len())
            .sum::<usize>(),
    );
    out.push(VERSION);
    for cell in cells {
        out.extend_from_slice(&cell.name.to_le_bytes());
        out.extend_from_slice(&cell.until.to_le_bytes());
        out.extend_from_slice(&cell.ttl.to_le_bytes());
        out.push(u8::try_from(cell.value.len()).unwrap_or(0));
        out.extend_from_slice(cell.value);
    }
    out
}

#[cfg(test)]
#[path = "cells_bound.rs"]
mod bound;
#[cfg(test)]
#[path = "cells_model.rs"]
mod model;

#[cfg(test)]
mod tests {
    use std::cell::Cell as Slot;
    use std::rc::Rc;

    use proptest::prelude::*;

    use super::*;
    use crate::shared::simulated::Memory;

    const TTL: Duration = Duration::from_secs(10);

    fn count(before: Option<&[u8]>) -> u64 {
        before
            .and_then(|value| value.try_into().ok())
            .map_or(0, u64::from_le_bytes)
    }

    fn increment() -> Change {
        Change::new(|before| Some((count(before) + 1).to_le_bytes().to_vec()))
    }

    /// Takes one of `bound`, or leaves the value.
    fn take(bound: u64) -> Change {
        Change::new(move |before| {
            let taken = count(before);
            (taken < bound).then(|| (taken + 1).to_le_bytes().to_vec())
        })
    }

    fn pool(memory: &Memory) -> Cells<Memory> {
        Cells::new(memory.clone(), "t".into())
    }

    #[test]
    fn an_update_answers_the_value_before() {
        let memory = Memory::default();
        let mut cells = pool(&memory);
        let now = Timestamp::from_secs(1);
        assert_eq!(cells.update(b"a", &increment(), TTL, now), Ok(None));
        let before = cells.update(b"a", &increment(), TTL, now).unwrap();
        assert_eq!(count(before.as_deref()), 1);
        assert_eq!(cells.update(b"b", &increment(), TTL, now), Ok(None));
        let late = now.plus(TTL);
        assert_eq!(
            cells.update(b"a", &increment(), TTL, late),
            Ok(None),
            "expired"
        );
    }

    #[test]
    fn a_value_has_a_bound() {
        let mut cells = pool(&Memory::default());
        let big = Change::new(|_| Some(vec![0; 65]));
        assert_eq!(
            cells.update(b"a", &big, TTL, Timestamp(1)),
            Err(Failed::TooLarge)
        );
    }

    #[test]
    fn a_clock_set_back_keeps_values_no_longer_than_they_live() {
        let memory = Memory::default();
        let mut cells = pool(&memory);
        let day = Duration::from_secs(86_400);
        let before = Timestamp::from_secs(1).plus(day);
        cells.update(b"a", &increment(), TTL, before).unwrap();
        let now = Timestamp::from_secs(1);
        let kept = cells.update(b"a", &Change::new(|_| None), TTL, now);
        assert_eq!(count(kept.unwrap().as_deref()), 1);
        // Whatever is written in its bucket, it counts from now on.
        let written = |cells: &mut Cells<Memory>, now| {
            for n in 0..60_000u32 {
                cells
                    .update(&n.to_le_bytes(), &increment(), TTL, now)
                    .unwrap();
            }
        };
        written(&mut cells, now);
        let later = now.plus(TTL).plus(Duration::from_secs(1));
        assert_eq!(cells.update(b"a", &increment(), TTL, later), Ok(None));
    }

    #[test]
    fn a_broken_bucket_counts_as_empty() {
        let memory = Memory::default();
        let mut cells = pool(&memory);
        cells.update(b"a", &increment(), TTL, Timestamp(1)).unwrap();
        for with in [
            &b""[..],
            b"\x02",
            b"\x02aaaaaaaaaaaaaaaaaaaa\xff",
            b"\x01junk",
        ] {
            memory.corrupt(with);
            assert_eq!(
                cells.update(b"a", &increment(), TTL, Timestamp(1)),
                Ok(None)
            );
        }
    }

    #[test]
    fn writers_that_never_stop_are_given_up_on() {
        let memory = Memory::default();
        pool(&memory)
            .update(b"a", &increment(), TTL, Timestamp(1))
            .unwrap();
        fn again(memory: Memory, left: usize) {
            let mut other = pool(&memory);
            let next = memory.clone();
            other.update(b"a", &increment(), TTL, Timestamp(1)).unwrap();
            if left > 0 {
                memory.interleave(move || again(next, left - 1));
            }
        }
        let rival = memory.clone();
        memory.interleave(move || again(rival, ROUNDS));
        // Each write of ours is preceded by one of theirs.
        assert_eq!(
            pool(&memory).update(b"a", &increment(), TTL, Timestamp(1)),
            Err(Failed::Contended)
        );
    }

    /// However many keys there are, together they get no more than one place each, and no key more than its bound.
    #[test]
    fn a_full_bucket_is_stricter_never_laxer() {
        let memory = Memory::default();
        let mut cells = pool(&memory);
        let mut now = Timestamp::from_secs(1);
        let bound = 3;
        let keys: Vec<String> = (0..100_000).map(|n| format!("k{n}")).collect();
        let admitted = |cells: &mut Cells<Memory>, key: &str, now| {
            let before = cells
                .update(key.as_bytes(), &take(bound), TTL, now)
                .unwrap();
            count(before.as_deref()) < bound
        };
        let mut total = 0;
        for key in &keys {
            total += u64::from(admitted(&mut cells, key, now));
        }
        assert!(
            total <= BUCKETS * (CELLS as u64 + bound),
            "{total} of {}",
            keys.len()
        );
        let (count, size) = memory.size();
        assert!(
            count as u64 <= BUCKETS + 1 && size < 6_000_000,
            "{count} keys, {size} bytes"
        );
        // A key in the overflow does not start over when a place gets free.
        now = now.plus(TTL / 2);
        let last = keys.last().unwrap();
        let first: u64 = (0..10)
            .map(|_| u64::from(admitted(&mut cells, last, now)))
            .sum();
        now = now.plus(TTL / 2);
        let second: u64 = (0..10)
            .map(|_| u64::from(admitted(&mut cells, last, now)))
            .sum();
        assert!(first + second <= bound, "{first} and {second}");
    }

    proptest! {
        /// Any interleaving of workers loses no update.
        #[test]
        fn no_update_is_lost(plan in proptest::collection::vec((0u8..4, any::<bool>()), 1..60)) {
            let memory = Memory::default();
            let expected: Rc<Slot<[u64; 4]>> = Rc::default();
            let bump = |key: u8| {
                let expected = expected.clone();
                let memory = memory.clone();
                move || {
                    let mut all = expected.get();
                    all[usize::from(key)] += 1;
                    expected.set(all);
                    pool(&memory).update(&[key], &increment(), TTL, Timestamp(1)).unwrap();
                }
            };
            for (key, between) in plan {
                if between {
                    memory.interleave(bump(key));
                } else {
                    bump(key)();
                }
            }
            memory.interleave(|| ());
            bump(0)();
            for key in 0u8..4 {
                let before = pool(&memory).update(&[key], &increment(), TTL, Timestamp(1)).unwrap();
                prop_assert_eq!(count(before.as_deref()), expected.get()[usize::from(key)]);
            }
        }
    }
}
