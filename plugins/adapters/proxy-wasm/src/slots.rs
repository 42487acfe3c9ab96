//! Objects shared by the workers (`Effect::Load`, `Store`, `Remove`).
//!
//! 64 sets of 16 ways. A set has one directory key (hash, expiry, size, last use of each way) and one key per way that
//! holds the object with its full key. A set holds at most 1 MiB, so the pool at most 64 MiB, and the host sees at most
//! 1,089 keys however many objects come and go. A write changes the directory by compare-and-swap, then the way;
//! each object carries a generation that both must agree on, so that a reader between the two sees a miss, never
//! another object.

use std::time::Duration;

use bytes::Bytes;
use edgeweir_filter::{Failed, Timestamp};

use crate::shared::{Expect, Reader, Seed, SharedData};

const SETS: u64 = 64;
const WAYS: usize = 16;
/// Bytes of a set's objects with their keys, and so of one object.
pub const SET_BUDGET: usize = 1 << 20;
const KEY_LIMIT: usize = 4096;
const ROUNDS: usize = 16;
const VERSION: u8 = 1;
/// A read is noted in the directory at most this often.
const USE_GRAIN_SECS: u64 = 16;

/// The pool of one filter.
pub struct Objects<D> {
    data: D,
    prefix: String,
    seed: Option<Seed>,
    /// The set the next sweep starts with.
    swept: u64,
}

/// What the directory says of a way; all zero when it is free.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Way {
    name: u64,
    /// Nanoseconds since the epoch.
    until: u64,
    size: u32,
    /// Seconds since the epoch, coarse.
    used: u64,
    generation: u32,
}

/// A set's directory.
#[derive(Clone, Default, Debug)]
struct Directory {
    /// The last generation given.
    generation: u32,
    ways: [Way; WAYS],
}

impl<D: SharedData> Objects<D> {
    /// The pool under a prefix of shared keys; nothing is read or written yet.
    pub fn new(data: D, prefix: String) -> Self {
        Self {
            data,
            prefix,
            seed: None,
            swept: 0,
        }
    }

    /// The object of a key, when it is there and not expired.
    pub fn load(&mut self, key: &[u8], now: Timestamp) -> Result<Option<Bytes>, Failed> {
        let (set, name) = self.place(key)?;
        let (directory, expect) = self.directory(set)?;
        let Some((index, way)) = directory.find(name) else {
            return Ok(None);
        };
        if way.until <= now.0 {
            return Ok(None);
        }
        let Some((raw, _)) = self.data.get(self.way_key(set, index).as_bytes())? else {
            return Ok(None);
        };
        let value = read_object(&raw, key, way.generation).map(|value| raw.slice_ref(value));
        if value.is_some() && now.as_secs() >= way.used.saturating_add(USE_GRAIN_SECS) {
            let mut noted = directory;
            if let Some(way) = noted.ways.get_mut(index) {
                way.used = now.as_secs();
            }
            // Only a hint for eviction: losing the race costs nothing.
            let _ = self
                .data
                .set(self.set_key(set).as_bytes(), &noted.written(), expect);
        }
        Ok(value)
    }

    /// Keeps an object for at most `ttl`; expired ones go first to make room, then those not used for longest.
    pub fn store(
        &mut self,
        key: &[u8],
        value: &[u8],
        ttl: Duration,
        now: Timestamp,
    ) -> Result<(), Failed> {
        let size = object_size(key, value);
        if size > SET_BUDGET || key.len() > KEY_LIMIT {
            return Err(Failed::TooLarge);
        }
        let (set, name) = self.place(key)?;
        for _ in 0..ROUNDS {
            let (mut directory, expect) = self.directory(set)?;
            let generation = directory.generation.wrapping_add(1).max(1);
            let (index, freed) = directory.make_room(name, size, now);
            directory.generation = generation;
            if let Some(way) = directory.ways.get_mut(index) {
                *way = Way {
                    name,
                    until: now.plus(ttl).0,
                    size: u32::try_from(size).unwrap_or(u32::MAX),
                    used: now.as_secs(),
                    generation,
                };
            }
            if !self
                .data
                .set(self.set_key(set).as_bytes(), &directory.written(), expect)?
            {
                continue;
            }
            for freed in freed.filter(|freed| *freed != index) {
                self.data
                    .set(self.way_key(set, freed).as_bytes(), &[], Expect::Any)?;
            }
            let way_key = self.way_key(set, index);
            self.data.set(
                way_key.as_bytes(),
                &written_object(key, value, generation),
                Expect::Any,
            )?;
            // Another writer may have taken the way meanwhile and be done with it: then these bytes, counted nowhere,
            // must not stay.
            let (directory, _) = self.directory(set)?;
            if directory
                .ways
                .get(index)
                .is_none_or(|way| way.generation != generation)
            {
                self.data.set(way_key.as_bytes(), &[], Expect::Any)?;
            }
            return Ok(());
        }
        Err(Failed::Contended)
    }

    /// Forgets an object.
    pub fn remove(&mut self, key: &[u8]) -> Result<(), Failed> {
        let (set, name) = self.place(key)?;
        self.clear(set, |way| way.name == name).map(|_| ())
    }

    /// Frees what has expired in the next `sets` sets; how many objects went.
    pub fn sweep(&mut self, sets: u64, now: Timestamp) -> Result<usize, Failed> {
        let mut freed = 0;
        for _ in 0..sets {
            freed += self.clear(self.swept, |way| way.until <= now.0)?;
            self.swept = (self.swept + 1) % SETS;
        }
        Ok(freed)
    }

    fn clear(&mut self, set: u64, goes: impl Fn(&Way) -> bool) -> Result<usize, Failed> {
        for _ in 0..ROUNDS {
            let (mut directory, expect) = self.directory(set)?;
            let mut freed = Vec::new();
            for (index, way) in directory.ways.iter_mut().enumerate() {
                if way.name != 0 && goes(way) {
                    *way = Way::default();
                    freed.push(index);
                }
            }
            if freed.is_empty() {
                return Ok(0);
            }
            if self
                .data
                .set(self.set_key(set).as_bytes(), &directory.written(), expect)?
            {
                for index in &freed {
                    self.data
                        .set(self.way_key(set, *index).as_bytes(), &[], Expect::Any)?;
                }
                return Ok(freed.len());
            }
        }
        Err(Failed::Contended)
    }

    fn place(&mut self, key: &[u8]) -> Result<(u64, u64), Failed> {
        let seed = match self.seed {
            Some(seed) => seed,
            None => *self.seed.insert(Seed::of(&mut self.data, &self.prefix)?),
        };
        let (place, name) = seed.hash(key);
        Ok((place % SETS, name))
    }

    fn directory(&mut self, set: u64) -> Result<(Directory, Expect), Failed> {
        let key = self.set_key(set);
        Ok(match self.data.get(key.as_bytes())? {
            Some((raw, version)) => (
                Directory::read(&raw).unwrap_or_default(),
                Expect::Version(version),
            ),
            None => (Directory::default(), Expect::Absent),
        })
    }

    fn set_key(&self, set: u64) -> String {
        format!("{}/{set}", self.prefix)
    }

    fn way_key(&self, set: u64, way: usize) -> String {
        format!("{}/{set}/{way}", self.prefix)
    }
}

impl Directory {
    fn find(&self, name: u64) -> Option<(usize, Way)> {
        self.ways
            .iter()
            .copied()
            .enumerate()
            .find(|(_, way)| way.name == name)
    }

    /// Frees ways until `size` more bytes fit; the way to use, and all that were freed.
    fn make_room(
        &mut self,
        name: u64,
        size: usize,
        now: Timestamp,
    ) -> (usize, impl Iterator<Item = usize> + use<>) {
        let mut freed = Vec::new();
        for (index, way) in self.ways.iter_mut().enumerate() {
            if way.name != 0 && (way.name == name || way.until <= now.0) {
                *way = Way::default();
                freed.push(index);
            }
        }
        loop {
            let held: usize = self
                .ways
                .iter()
                .map(|way| usize::try_from(way.size).unwrap_or(usize::MAX))
                .fold(0, usize::saturating_add);
            let free = self.ways.iter().position(|way| way.name == 0);
            if let Some(index) = free
                && held.saturating_add(size) <= SET_BUDGET
            {
                return (index, freed.into_iter());
            }
            let oldest = self
                .ways
                .iter_mut()
                .enumerate()
                .filter(|(_, way)| way.name != 0)
                .min_by_key(|(_, way)| way.used);
            let Some((index, way)) = oldest else {
                return (0, freed.into_iter());
            };
            *way = Way::default();
            freed.push(index);
        }
    }

    fn read(raw: &[u8]) -> Option<Self> {
        let mut reader = Reader(raw);
        if reader.u8()? != VERSION {
            return None;
        }
        let mut directory = Self {
            generation: reader.u32()?,
            ..Self::default()
        };
        for way in &mut directory.ways {
            *way = Way {
                name: reader.u64()?,
                until: reader.u64()?,
                size: reader.u32()?,
                used: reader.u64()?,
                generation: reader.u32()?,
            };
        }
        Some(directory)
    }

    fn written(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(5 + 32 * WAYS);
        out.push(VERSION);
        out.extend_from_slice(&self.generation.to_le_bytes());
        for way in &self.ways {
            out.extend_from_slice(&way.name.to_le_bytes());
            out.extend_from_slice(&way.until.to_le_bytes());
            out.extend_from_slice(&way.size.to_le_bytes());
            out.extend_from_slice(&way.used.to_le_bytes());
            out.extend_from_slice(&way.generation.to_le_bytes());
        }
        out
    }
}

fn object_size(key: &[u8], value: &[u8]) -> usize {
    8usize.saturating_add(key.len()).saturating_add(value.len())
}

fn written_object(key: &[u8], value: &[u8], generation: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(object_size(key, value));
    out.extend_from_slice(&generation.to_le_bytes());
    out.extend_from_slice(&u32::try_from(key.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(key);
    out.extend_from_slice(value);
    out
}

fn read_object<'a>(raw: &'a [u8], key: &[u8], generation: u32) -> Option<&'a [u8]> {
    let mut reader = Reader(raw);
    if reader.u32()? != generation {
        return None;
    }
    let size = usize::try_from(reader.u32()?).ok()?;
    (reader.bytes(size)? == key).then_some(reader.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::shared::simulated::Memory;

    const TTL: Duration = Duration::from_secs(60);
    const NOW: Timestamp = Timestamp::from_secs(1_000);

    fn pool(memory: &Memory) -> Objects<Memory> {
        Objects::new(memory.clone(), "t".into())
    }

    #[test]
    fn an_object_is_seen_by_every_worker_until_it_expires() {
        let memory = Memory::default();
        pool(&memory).store(b"key", b"value", TTL, NOW).unwrap();
        let mut other = pool(&memory);
        assert_eq!(
            other.load(b"key", NOW),
            Ok(Some(Bytes::from_static(b"value")))
        );
        assert_eq!(other.load(b"kez", NOW), Ok(None));
        assert_eq!(other.load(b"key", NOW.plus(TTL)), Ok(None));
        other.store(b"key", b"", TTL, NOW).unwrap();
        assert_eq!(other.load(b"key", NOW), Ok(Some(Bytes::new())), "replaced");
        pool(&memory).remove(b"key").unwrap();
        assert_eq!(other.load(b"key", NOW), Ok(None), "removed");
    }

    #[test]
    fn bounds_hold() {
        let mut objects = pool(&Memory::default());
        assert_eq!(
            objects.store(b"k", &vec![0; SET_BUDGET], TTL, NOW),
            Err(Failed::TooLarge)
        );
        assert_eq!(
            objects.store(&[0; KEY_LIMIT + 1], b"", TTL, NOW),
            Err(Failed::TooLarge)
        );
        assert_eq!(
            objects.store(b"k", &vec![0; SET_BUDGET - 9], TTL, NOW),
            Ok(())
        );
        assert_eq!(
            objects.load(b"k", NOW).unwrap().map(|value| value.len()),
            Some(SET_BUDGET - 9)
        );
    }

    #[test]
    fn memory_and_keys_are_bounded_and_sweeping_frees_them() {
        let memory = Memory::default();
        let mut objects = pool(&memory);
        for n in 0..3_000u32 {
            objects
                .store(&n.to_le_bytes(), &vec![7; 100_000], TTL, NOW)
                .unwrap();
        }
        let (keys, size) = memory.size();
        assert!(
            keys <= 1 + 64 * 17 && size <= 65 * SET_BUDGET,
            "{keys} keys, {size} bytes"
        );
        assert_eq!(objects.sweep(SETS, NOW), Ok(0));
        assert!(objects.sweep(SETS, NOW.plus(TTL)).unwrap() > 500);
        assert!(
            memory.size().1 < 64 * 1024,
            "{} bytes left",
            memory.size().1
        );
    }

    #[test]
    fn the_one_not_used_goes_first() {
        let memory = Memory::default();
        let mut objects = pool(&memory);
        let mut kept = 0;
        for n in 0..200u32 {
            let now = NOW.plus(Duration::from_secs(u64::from(n) * 20));
            objects
                .store(&n.to_le_bytes(), &vec![0; 400_000], TTL * 1000, now)
                .unwrap();
            kept = (0..=n)
                .filter(|n| objects.load(&n.to_le_bytes(), NOW).unwrap().is_some())
                .count();
            // The very first is read all the time.
            assert!(
                objects.load(&0u32.to_le_bytes(), now).unwrap().is_some(),
                "after {n}"
            );
        }
        assert!((64..=128).contains(&kept), "{kept}");
    }

    #[test]
    fn a_writer_in_between_costs_a_retry() {
        let memory = Memory::default();
        pool(&memory).store(b"seed", b"", TTL, NOW).unwrap();
        let rival = memory.clone();
        memory.interleave(move || pool(&rival).store(b"k", b"theirs", TTL, NOW).unwrap());
        pool(&memory).store(b"k", b"ours", TTL, NOW).unwrap();
        assert_eq!(
            pool(&memory).load(b"k", NOW),
            Ok(Some(Bytes::from_static(b"ours")))
        );
    }

    #[test]
    fn broken_values_are_misses() {
        let memory = Memory::default();
        let mut objects = pool(&memory);
        for with in [&b""[..], b"\x01", b"garbage garbage garbage", &[1; 600]] {
            objects.store(b"k", b"v", TTL, NOW).unwrap();
            memory.corrupt(with);
            assert_eq!(objects.load(b"k", NOW), Ok(None));
        }
    }

    #[derive(Clone, Debug)]
    enum Act {
        Store(u8, u8),
        Remove(u8),
        Load(u8),
        Sweep,
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            (0u8..40, any::<u8>()).prop_map(|(key, value)| Act::Store(key, value)),
            (0u8..40).prop_map(Act::Remove),
            (0u8..40).prop_map(Act::Load),
            Just(Act::Sweep),
        ]
    }

    fn perform(memory: &Memory, act: &Act) {
        let mut objects = pool(memory);
        match act {
            // The value tells its key, so that a mix-up shows.
            Act::Store(key, value) => objects
                .store(&[*key], &[*key, *value].repeat(30_000), TTL, NOW)
                .unwrap(),
            Act::Remove(key) => objects.remove(&[*key]).unwrap(),
            Act::Load(key) => {
                if let Some(value) = objects.load(&[*key], NOW).unwrap() {
                    assert_eq!((value[0], value.len()), (*key, 60_000));
                    assert!(value.chunks(2).all(|pair| pair == &value[..2]), "torn");
                }
            }
            Act::Sweep => {
                objects.sweep(SETS, NOW.plus(TTL / 2)).unwrap();
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// Whatever gets between two writes, a read gives its own key's object or nothing, and memory stays bounded.
        #[test]
        fn no_interleaving_mixes_objects(plan in proptest::collection::vec((act(), any::<bool>()), 1..60)) {
            let memory = Memory::default();
            for (act, between) in plan {
                if between {
                    let other = memory.clone();
                    memory.interleave(move || perform(&other, &act));
                } else {
                    perform(&memory, &act);
                }
            }
            for key in 0..40 {
                perform(&memory, &Act::Load(key));
            }
            prop_assert!(memory.size().1 <= 65 * SET_BUDGET);
        }
    }
}
