//! Objects shared by the workers (`Effect::Load`, `Store`, `Remove`).
//!
//! A pool of a fixed number of bytes: 8 to 2,048 sets of 64 ways, a set for each 128 KiB. A set has one directory key
//! (hash, expiry, size, last use of each way) and one key per way that holds a piece: an object with its full key, or a
//! chunk of one. A set's pieces are bounded so that all of them, the directories and 128 bytes for each key stay within
//! the pool's bytes, however many objects come and go; 64 MiB are 512 sets, or 32,768 pieces.
//!
//! A write changes the directory by compare-and-swap, then the way; each piece carries a generation that both must
//! agree on, so that a reader between the two sees a miss, never another object. An object larger than a quarter of a
//! set is split: its chunks go to the sets after its own, at most two to each, under names of their own, and carry a stamp that
//! its head must know. An object with its key is at most a quarter of the pool, and 16 MiB.
//!
//! Calls of the host: 2 for a load and 4 for a store of an object in one piece, and as many again for each chunk.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use bytes::Bytes;
use edgeweir_filter::{Failed, Timestamp};

use crate::directory::{DIRECTORY, Directory, WAYS, Way};
use crate::shared::{Expect, Reader, Seed, SharedData};

const KEY_LIMIT: usize = 4096;
/// The largest object.
const OBJECT_LIMIT: usize = 16 << 20;
const ROUNDS: usize = 16;
/// A read is noted in the directory at most this often.
const USE_GRAIN_SECS: u32 = 16;
/// What a key costs the host beside its value.
const KEY_COST: usize = 128;
/// A round over all sets takes so many sweeps.
const SWEEPS: u64 = 16;

/// How a pool of some bytes is divided.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Geometry {
    /// A power of two; 0 when there is no pool.
    sets: u64,
    /// Bytes of a set's pieces.
    budget: usize,
    /// Bytes of the largest object with its key.
    largest: usize,
}

impl Geometry {
    /// Of a pool of `bytes`: none for 0, else between 1 MiB and 1 GiB.
    pub fn of(bytes: usize) -> Self {
        if bytes == 0 {
            return Self::default();
        }
        let bytes = bytes.clamp(1 << 20, 1 << 30);
        let most = (bytes >> 17).clamp(8, 2048);
        let sets = 1usize << most.ilog2();
        let overhead = DIRECTORY + (WAYS + 1) * KEY_COST;
        Self {
            sets: u64::try_from(sets).unwrap_or(8),
            budget: (bytes / sets).saturating_sub(overhead),
            largest: OBJECT_LIMIT.min(bytes / 4),
        }
    }

    /// Bytes of the largest piece.
    fn piece(self) -> usize {
        self.budget / 4
    }

    fn written(self) -> Vec<u8> {
        [self.sets, u64::try_from(self.budget).unwrap_or(0)]
            .map(u64::to_le_bytes)
            .concat()
    }
}

/// Sets and budget of the pool that was in the host before.
fn read_geometry(raw: &[u8]) -> Option<(u64, usize)> {
    let mut reader = Reader(raw);
    let sets = reader.u64().filter(|sets| *sets <= 2048)?;
    Some((sets, usize::try_from(reader.u64()?).ok()?))
}

/// The pool of one filter.
pub struct Objects<D> {
    data: D,
    prefix: String,
    geometry: Geometry,
    seed: Option<Seed>,
    random: RandomState,
    /// The set the next sweep starts with.
    swept: u64,
    /// Percent of a set's bytes that are used for now, and when it was last swept.
    used: u8,
    swept_to: u8,
    /// Pieces that had to go for others since [`store`](Self::store) was called last.
    evicted: u64,
}

/// Where a piece is: its set, and its name there.
#[derive(Clone, Copy)]
struct Place {
    set: u64,
    name: u64,
}

/// What the head of a chunked object says in place of a value.
struct Chunked {
    size: usize,
    stamp: u64,
}

const WHOLE: u8 = 0;
const IN_CHUNKS: u8 = 1;

impl<D: SharedData> Objects<D> {
    /// The pool under a prefix of shared keys; nothing is read or written yet.
    pub fn new(data: D, prefix: String, geometry: Geometry) -> Self {
        Self {
            data,
            prefix,
            geometry,
            seed: None,
            random: RandomState::new(),
            swept: 0,
            used: 100,
            swept_to: 100,
            evicted: 0,
        }
    }

    /// Clears what a larger pool before left beyond this one. Called when a configuration is loaded.
    pub fn fit(&mut self) -> Result<(), Failed> {
        let key = format!("{}/geometry", self.prefix);
        let before = self.data.get(key.as_bytes())?;
        let Geometry { sets, budget, .. } = self.geometry;
        match before.and_then(|(raw, _)| read_geometry(&raw)) {
            Some(before) if before == (sets, budget) => return Ok(()),
            None if sets == 0 => return Ok(()),
            None => {}
            Some((before, _)) if before != sets => {
                // Nearly everything would be looked for elsewhere.
                for set in 0..before {
                    self.change(set, |directory| directory.clear(|_| true))?;
                }
            }
            Some(_) => {
                for set in 0..sets {
                    self.change(set, |directory| directory.trim(budget))?;
                }
            }
        }
        self.data
            .set(key.as_bytes(), &self.geometry.written(), Expect::Any)?;
        Ok(())
    }

    /// The object of a key, when it is there and not expired.
    pub fn load(&mut self, key: &[u8], now: Timestamp) -> Result<Option<Bytes>, Failed> {
        let Ok(place) = self.place(key) else {
            return Ok(None);
        };
        let Some(head) = self.get(place, key, now)? else {
            return Ok(None);
        };
        match head.first() {
            Some(&WHOLE) => Ok(Some(head.slice(1..))),
            _ => match Chunked::read(&head) {
                Some(chunked) => self.gather(place, &chunked, now),
                None => Ok(None),
            },
        }
    }

    fn gather(
        &mut self,
        place: Place,
        chunked: &Chunked,
        now: Timestamp,
    ) -> Result<Option<Bytes>, Failed> {
        let mut all = Vec::with_capacity(chunked.size.min(self.geometry.largest));
        let tag = chunked.stamp.to_le_bytes();
        let mut index = 0;
        while all.len() < chunked.size {
            index += 1;
            let chunk = self.get(self.after(place, index), &tag, now)?;
            let Some(chunk) = chunk.filter(|chunk| !chunk.is_empty()) else {
                return Ok(None);
            };
            all.extend_from_slice(&chunk);
        }
        Ok((all.len() == chunked.size).then(|| all.into()))
    }

    /// Keeps an object for at most `ttl`; expired ones go first to make room, then those not used for longest: how many pieces of
    /// them.
    pub fn store(
        &mut self,
        key: &[u8],
        value: &[u8],
        ttl: Duration,
        now: Timestamp,
    ) -> Result<u64, Failed> {
        self.evicted = 0;
        if self.geometry.sets == 0 {
            return Err(Failed::Unsupported);
        }
        let size = value.len().saturating_add(key.len());
        if size > self.share(self.geometry.largest) || key.len() > KEY_LIMIT {
            return Err(Failed::TooLarge);
        }
        let place = self.place(key)?;
        let until = now.plus(ttl);
        if piece_size(key, value).saturating_add(1) <= self.geometry.piece() {
            self.put(place, key, [&[WHOLE], value], until, now)?;
            return Ok(self.evicted);
        }
        let stamp = self.random.hash_one((now, place.name, value.len()));
        // The head comes last: until then what it names is not complete.
        let room = self.geometry.piece() - piece_size(&[0; 8], &[]);
        for (index, chunk) in (1..).zip(value.chunks(room)) {
            let place = self.after(place, index);
            self.put(place, &stamp.to_le_bytes(), [chunk, &[]], until, now)?;
        }
        let chunked = Chunked {
            size: value.len(),
            stamp,
        };
        self.put(place, key, [&chunked.written(), &[]], until, now)?;
        Ok(self.evicted)
    }

    /// Forgets an object.
    pub fn remove(&mut self, key: &[u8]) -> Result<(), Failed> {
        let Ok(place) = self.place(key) else {
            return Ok(());
        };
        let head = self.get(place, key, Timestamp(0))?;
        self.change(place.set, |directory| {
            directory.clear(|way| way.name == place.name)
        })?;
        let chunks = head.as_deref().and_then(Chunked::read).map_or(0, |it| {
            let room = self.geometry.piece() - piece_size(&[0; 8], &[]);
            it.size.min(OBJECT_LIMIT).div_ceil(room.max(1))
        });
        for index in (1..).take(chunks) {
            let place = self.after(place, index);
            self.change(place.set, |directory| {
                directory.clear(|way| way.name == place.name)
            })?;
        }
        Ok(())
    }

    /// From now on uses only so much of its bytes, 25 to 100 per cent; the next sweep frees the others.
    pub fn restrict(&mut self, percent: u8) {
        // The largest piece is a quarter of a set.
        self.used = percent.clamp(25, 100);
    }

    /// Frees what has expired, and then what was not used for longest and has no room, in a sixteenth of the sets, the next
    /// ones; in all of them when there is less room than at the last sweep. How many pieces went.
    pub fn sweep(&mut self, now: Timestamp) -> Result<usize, Failed> {
        let mut freed = 0;
        let budget = self.budget();
        let sets = match self.used < self.swept_to {
            true => self.geometry.sets,
            false => self.geometry.sets.div_ceil(SWEEPS),
        };
        for _ in 0..sets {
            freed += self.change(self.swept, |directory| {
                let mut freed = directory.clear(|way| way.until <= now.0);
                freed.extend(directory.trim(budget));
                freed
            })?;
            self.swept = (self.swept + 1) % self.geometry.sets.max(1);
        }
        self.swept_to = self.used;
        Ok(freed)
    }

    /// Bytes of a set's pieces for now.
    fn budget(&self) -> usize {
        self.share(self.geometry.budget)
    }

    fn share(&self, bytes: usize) -> usize {
        bytes.saturating_mul(usize::from(self.used)) / 100
    }

    /// The value of a piece whose tag is this one.
    fn get(&mut self, place: Place, tag: &[u8], now: Timestamp) -> Result<Option<Bytes>, Failed> {
        let set_key = self.set_key(place.set);
        let Some((raw, version)) = self.data.get(&set_key)? else {
            return Ok(None);
        };
        let Some((index, way)) = Directory::find(&raw, place.name) else {
            return Ok(None);
        };
        if way.until <= now.0 {
            return Ok(None);
        }
        let Some((piece, _)) = self.data.get(&self.way_key(place.set, index))? else {
            return Ok(None);
        };
        let value = read_piece(&piece, tag, way.generation).map(|value| piece.slice_ref(value));
        let seconds = seconds(now);
        if value.is_some() && seconds >= way.used.saturating_add(USE_GRAIN_SECS) {
            let mut noted = Directory::read(&raw);
            if let Some(way) = noted.ways.get_mut(index) {
                way.used = seconds;
            }
            // Only a hint for eviction: losing the race costs nothing.
            let expect = Expect::Version(version);
            let _ = self.data.set(&set_key, &noted.written(), expect);
        }
        Ok(value)
    }

    fn put(
        &mut self,
        place: Place,
        tag: &[u8],
        value: [&[u8]; 2],
        until: Timestamp,
        now: Timestamp,
    ) -> Result<(), Failed> {
        let mut piece = Vec::new();
        let set_key = self.set_key(place.set);
        for _ in 0..ROUNDS {
            let (mut directory, expect) = self.directory(&set_key)?;
            let generation = directory.generation.wrapping_add(1).max(1);
            if piece.is_empty() {
                write_piece(&mut piece, tag, value);
            }
            if let Some(start) = piece.get_mut(..4) {
                start.copy_from_slice(&generation.to_le_bytes());
            }
            let budget = self.budget();
            let (index, freed, evicted) = directory.make_room(place.name, piece.len(), budget, now);
            directory.generation = generation;
            if let Some(way) = directory.ways.get_mut(index) {
                *way = Way {
                    name: place.name,
                    until: until.0,
                    size: u32::try_from(piece.len()).unwrap_or(u32::MAX),
                    used: seconds(now),
                    generation,
                };
            }
            if !self.data.set(&set_key, &directory.written(), expect)? {
                continue;
            }
            self.evicted += evicted;
            for freed in freed.into_iter().filter(|freed| *freed != index) {
                self.free(place.set, freed)?;
            }
            let way_key = self.way_key(place.set, index);
            self.data.set(&way_key, &piece, Expect::Any)?;
            // Another writer may have taken the way meanwhile and be done with it: then these bytes, counted nowhere,
            // must not stay.
            let ours = self.data.get(&set_key)?.is_some_and(|(raw, _)| {
                let found = Directory::find(&raw, place.name);
                found.is_some_and(|(at, way)| at == index && way.generation == generation)
            });
            if !ours {
                self.free(place.set, index)?;
            }
            return Ok(());
        }
        Err(Failed::Contended)
    }

    /// Changes a set's directory, and empties the ways that the change names; how many.
    fn change(
        &mut self,
        set: u64,
        change: impl Fn(&mut Directory) -> Vec<usize>,
    ) -> Result<usize, Failed> {
        let set_key = self.set_key(set);
        for _ in 0..ROUNDS {
            let (mut directory, expect) = self.directory(&set_key)?;
            let freed = change(&mut directory);
            if freed.is_empty() {
                return Ok(0);
            }
            if self.data.set(&set_key, &directory.written(), expect)? {
                for index in &freed {
                    self.free(set, *index)?;
                }
                return Ok(freed.len());
            }
        }
        Err(Failed::Contended)
    }

    fn free(&mut self, set: u64, way: usize) -> Result<bool, Failed> {
        self.data.set(&self.way_key(set, way), &[], Expect::Any)
    }

    fn place(&mut self, key: &[u8]) -> Result<Place, Failed> {
        if self.geometry.sets == 0 {
            return Err(Failed::Unsupported);
        }
        let seed = match self.seed {
            Some(seed) => seed,
            None => *self.seed.insert(Seed::of(&mut self.data, &self.prefix)?),
        };
        let (place, name) = seed.hash(key);
        Ok(Place {
            set: place % self.geometry.sets,
            name,
        })
    }

    /// Where a chunk of an object is: in turn in the sets after its own.
    fn after(&self, place: Place, index: u64) -> Place {
        Place {
            set: (place.set + index) % self.geometry.sets.max(1),
            name: (place.name ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15)).max(1),
        }
    }

    fn directory(&mut self, set_key: &[u8]) -> Result<(Directory, Expect), Failed> {
        Ok(match self.data.get(set_key)? {
            Some((raw, version)) => (Directory::read(&raw), Expect::Version(version)),
            None => (Directory::default(), Expect::Absent),
        })
    }

    fn set_key(&self, set: u64) -> Vec<u8> {
        let number = u16::try_from(set).unwrap_or(u16::MAX).to_be_bytes();
        [self.prefix.as_bytes(), b"/", &number].concat()
    }

    fn way_key(&self, set: u64, way: usize) -> Vec<u8> {
        let mut key = self.set_key(set);
        key.push(u8::try_from(way).unwrap_or(u8::MAX));
        key
    }
}

impl Chunked {
    fn written(&self) -> Vec<u8> {
        let size = u64::try_from(self.size).unwrap_or(u64::MAX);
        let mut out = vec![IN_CHUNKS];
        out.extend_from_slice(&size.to_le_bytes());
        out.extend_from_slice(&self.stamp.to_le_bytes());
        out
    }

    fn read(head: &[u8]) -> Option<Self> {
        let mut reader = Reader(head);
        (reader.u8()? == IN_CHUNKS).then_some(())?;
        Some(Self {
            size: usize::try_from(reader.u64()?).ok()?,
            stamp: reader.u64()?,
        })
    }
}

fn seconds(now: Timestamp) -> u32 {
    u32::try_from(now.as_secs()).unwrap_or(u32::MAX)
}

fn piece_size(tag: &[u8], value: &[u8]) -> usize {
    8usize.saturating_add(tag.len()).saturating_add(value.len())
}

/// Generation (to be filled in), length of the tag, tag, value.
fn write_piece(out: &mut Vec<u8>, tag: &[u8], value: [&[u8]; 2]) {
    out.reserve_exact(piece_size(tag, &[]) + value.iter().map(|part| part.len()).sum::<usize>());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&u32::try_from(tag.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(tag);
    for part in value {
        out.extend_from_slice(part);
    }
}

fn read_piece<'a>(raw: &'a [u8], tag: &[u8], generation: u32) -> Option<&'a [u8]> {
    let mut reader = Reader(raw);
    if reader.u32()? != generation {
        return None;
    }
    let size = usize::try_from(reader.u32()?).ok()?;
    (reader.bytes(size)? == tag).then_some(reader.0)
}

#[cfg(test)]
#[path = "slots_tests.rs"]
mod tests;
