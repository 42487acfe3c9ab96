//! What is kept, in memory: records by key, with when they expire, their groups and their URIs. Pure: no clock, no file.
//!
//! Bounded in keys and bytes. What is past its time goes first; then, to make room, cached responses that expire soonest,
//! then keys that expire soonest. A limit's state is never evicted (its client would get a full bucket): when nothing else
//! is left to evict, the write is refused as `store-full`.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::pattern::What;
use crate::wire::Condition;

/// What is kept apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Space {
    /// Cached responses.
    Cache,
    /// Keys and values.
    Keys,
    /// States of limits.
    Limits,
}

impl Space {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Cache, Self::Keys, Self::Limits];

    /// Its byte in a file, its letter in Redis.
    pub fn letter(self) -> u8 {
        match self {
            Self::Cache => b'c',
            Self::Keys => b'k',
            Self::Limits => b'l',
        }
    }

    fn of(letter: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|space| space.letter() == letter)
    }

    /// The name in statistics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::Keys => "kv",
            Self::Limits => "limits",
        }
    }
}

/// A key with its space's letter in front.
pub type Key = Arc<[u8]>;

/// The key of something.
pub fn key(space: Space, name: &[u8]) -> Key {
    [&[space.letter()], name].concat().into()
}

/// One thing that is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Grows with every write of the whole store.
    pub version: u64,
    /// Milliseconds since the epoch.
    pub expires: u64,
    /// What prefixes and patterns are held against; empty: the key itself.
    pub uri: Vec<u8>,
    /// Its groups.
    pub groups: Vec<String>,
    /// The bytes.
    pub value: Bytes,
}

/// A record's cost beside its bytes: maps, sets, allocations. Estimated.
const OVERHEAD: u64 = 200;

impl Record {
    fn bytes(&self, key: &[u8]) -> u64 {
        let groups: usize = self.groups.iter().map(|group| group.len() + 100).sum();
        // The URI is in its own index, too.
        let all = key.len() + self.uri.len() * 2 + groups + self.value.len();
        OVERHEAD.saturating_add(u64::try_from(all).unwrap_or(u64::MAX))
    }

    fn uri<'a>(&'a self, key: &'a [u8]) -> &'a [u8] {
        if self.uri.is_empty() {
            key.get(1..).unwrap_or_default()
        } else {
            &self.uri
        }
    }
}

/// A change to be written down: a key and what is there now.
pub type Change = (Key, Option<Arc<Record>>);

/// How much may be kept.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Records.
    pub keys: usize,
    /// Bytes: keys, values, URIs, groups and what keeping them costs.
    pub bytes: u64,
}

/// What came of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Written {
    /// It is there, under this version.
    Stored {
        /// The version now.
        version: u64,
        /// There was nothing before.
        created: bool,
    },
    /// The condition did not hold.
    Precondition,
    /// Nothing could be evicted to make room.
    Full,
}

/// What came of a deletion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deleted {
    /// It is gone.
    Gone,
    /// There was nothing.
    Missing,
    /// The condition did not hold.
    Precondition,
}

/// Everything that is kept.
pub struct Shelf {
    bounds: Bounds,
    records: HashMap<Key, Arc<Record>>,
    /// By letter of the space, then by time.
    expiry: BTreeSet<(u8, u64, Key)>,
    groups: HashMap<(u8, String), HashSet<Key>>,
    uris: BTreeSet<(u8, Vec<u8>, Key)>,
    bytes: u64,
    /// Records of each space, in the order of [`Space::ALL`].
    held: [usize; 3],
    last: u64,
    counts: Counts,
}

/// What happened since the start.
#[derive(Clone, Copy, Default, Debug)]
pub struct Counts {
    /// Records past their time.
    pub expired: u64,
    /// Records that made room.
    pub evicted: u64,
    /// Writes refused because there was no room.
    pub refused: u64,
}

impl Shelf {
    /// An empty one.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            records: HashMap::new(),
            expiry: BTreeSet::new(),
            groups: HashMap::new(),
            uris: BTreeSet::new(),
            bytes: 0,
            held: [0; 3],
            last: 0,
            counts: Counts::default(),
        }
    }

    /// Puts back what was kept, while starting; bounds are met by the next write.
    pub fn restore(&mut self, key: Key, record: Record) {
        self.last = self.last.max(record.version);
        self.remove(&key);
        self.insert(key, Arc::new(record));
    }

    /// Lets go of a key, while starting.
    pub fn forget(&mut self, key: &Key) {
        self.remove(key);
    }

    /// What is under a key, past its time or not.
    pub fn any(&self, key: &[u8]) -> Option<&Arc<Record>> {
        self.records.get(key)
    }

    /// What is kept under a key at `now`, milliseconds.
    pub fn get(&self, key: &[u8], now: u64) -> Option<&Arc<Record>> {
        self.records.get(key).filter(|record| record.expires > now)
    }

    /// Writes a record when the condition holds; its version is chosen here.
    pub fn put(
        &mut self,
        key: Key,
        record: Record,
        condition: Condition,
        now: u64,
        changes: &mut Vec<Change>,
    ) -> Written {
        let before = self.get(&key, now).map(|record| record.version);
        if !holds(condition, before) {
            return Written::Precondition;
        }
        let old = self.records.get(&key).map(|record| record.bytes(&key));
        if !self.make_room(&key, record.bytes(&key), old, now, changes) {
            self.counts.refused += 1;
            return Written::Full;
        }
        // Time keeps a version from coming back after all records of a higher one are gone and the store is restarted.
        self.last = self.last.saturating_add(1).max(now.saturating_mul(1000));
        let record = Arc::new(Record {
            version: self.last,
            ..record
        });
        self.remove(&key);
        self.insert(key.clone(), record.clone());
        changes.push((key, Some(record)));
        Written::Stored {
            version: self.last,
            created: before.is_none(),
        }
    }

    /// Deletes a key when the condition holds.
    pub fn delete(
        &mut self,
        key: &Key,
        condition: Condition,
        now: u64,
        changes: &mut Vec<Change>,
    ) -> Deleted {
        let before = self.get(key, now).map(|record| record.version);
        match before {
            _ if !holds(condition, before) => Deleted::Precondition,
            None => Deleted::Missing,
            Some(_) => {
                self.take(key, changes);
                Deleted::Gone
            }
        }
    }

    /// Forgets what is named of a space; how many that were.
    pub fn invalidate(&mut self, space: Space, what: &What, changes: &mut Vec<Change>) -> usize {
        let letter = space.letter();
        let keys: Vec<Key> = match what {
            What::Names(names) => names.iter().map(|name| key(space, name)).collect(),
            What::Groups(groups) => {
                let of = |group: &String| self.groups.get(&(letter, group.clone()));
                let keys: HashSet<Key> = groups.iter().filter_map(of).flatten().cloned().collect();
                keys.into_iter().collect()
            }
            What::Prefix(_) | What::Pattern(_) | What::All => {
                let head = what.head();
                let from = (letter, head.to_vec(), Key::from(&b""[..]));
                self.uris
                    .range(from..)
                    .take_while(|(of, uri, _)| *of == letter && uri.starts_with(head))
                    .filter(|(_, uri, _)| what.covers(uri))
                    .map(|(_, _, key)| key.clone())
                    .collect()
            }
        };
        keys.iter().filter(|key| self.take(key, changes)).count()
    }

    /// Lets go of what is past its time, at most `most`.
    pub fn sweep(&mut self, now: u64, most: usize, changes: &mut Vec<Change>) {
        let mut left = most;
        for space in Space::ALL {
            while left > 0 {
                let Some((expires, key)) = self.soonest(space) else {
                    break;
                };
                if expires > now {
                    break;
                }
                left -= 1;
                self.counts.expired += 1;
                self.take(&key, changes);
            }
        }
    }

    /// Records of a space.
    pub fn count(&self, space: Space) -> usize {
        self.held[space as usize]
    }

    /// Records in all.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes in all, as bounded.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What happened since the start.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn make_room(
        &mut self,
        key: &Key,
        wanted: u64,
        old: Option<u64>,
        now: u64,
        changes: &mut Vec<Change>,
    ) -> bool {
        if wanted > self.bounds.bytes {
            return false;
        }
        let mut old = old;
        loop {
            let keys = self.records.len() + usize::from(old.is_none());
            let bytes = self
                .bytes
                .saturating_sub(old.unwrap_or(0))
                .saturating_add(wanted);
            if keys <= self.bounds.keys && bytes <= self.bounds.bytes {
                return true;
            }
            let soonest = |space| self.soonest(space);
            let past = Space::ALL
                .into_iter()
                .filter_map(soonest)
                .find(|(expires, _)| *expires <= now);
            let victim = past
                .or_else(|| soonest(Space::Cache))
                .or_else(|| soonest(Space::Keys));
            let Some((expires, victim)) = victim else {
                return false;
            };
            if expires <= now {
                self.counts.expired += 1;
            } else {
                self.counts.evicted += 1;
            }
            if victim == *key {
                old = None;
            }
            self.take(&victim, changes);
        }
    }

    fn soonest(&self, space: Space) -> Option<(u64, Key)> {
        let from = (space.letter(), 0, Key::from(&b""[..]));
        let (letter, expires, key) = self.expiry.range(from..).next()?;
        (*letter == space.letter()).then(|| (*expires, key.clone()))
    }

    fn take(&mut self, key: &Key, changes: &mut Vec<Change>) -> bool {
        let there = self.remove(key);
        if there {
            changes.push((key.clone(), None));
        }
        there
    }

    fn insert(&mut self, key: Key, record: Arc<Record>) {
        let letter = key.first().copied().unwrap_or_default();
        self.bytes = self.bytes.saturating_add(record.bytes(&key));
        if let Some(space) = Space::of(letter) {
            self.held[space as usize] += 1;
        }
        self.expiry.insert((letter, record.expires, key.clone()));
        for group in &record.groups {
            let of = self.groups.entry((letter, group.clone())).or_default();
            of.insert(key.clone());
        }
        // Limits are never invalidated by URI.
        if letter != Space::Limits.letter() {
            self.uris
                .insert((letter, record.uri(&key).to_vec(), key.clone()));
        }
        self.records.insert(key, record);
    }

    fn remove(&mut self, key: &Key) -> bool {
        let Some(record) = self.records.remove(key) else {
            return false;
        };
        let letter = key.first().copied().unwrap_or_default();
        self.bytes = self.bytes.saturating_sub(record.bytes(key));
        if let Some(space) = Space::of(letter) {
            self.held[space as usize] -= 1;
        }
        self.expiry.remove(&(letter, record.expires, key.clone()));
        for group in &record.groups {
            let name = (letter, group.clone());
            if let Some(of) = self.groups.get_mut(&name) {
                of.remove(key);
                if of.is_empty() {
                    self.groups.remove(&name);
                }
            }
        }
        self.uris
            .remove(&(letter, record.uri(key).to_vec(), key.clone()));
        true
    }
}

fn holds(condition: Condition, version: Option<u64>) -> bool {
    match condition {
        Condition::Any => true,
        Condition::Absent => version.is_none(),
        Condition::Present => version.is_some(),
        Condition::Version(wanted) => version == Some(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(expires: u64, value: &'static str, groups: &[&str], uri: &str) -> Record {
        Record {
            version: 0,
            expires,
            uri: uri.as_bytes().to_vec(),
            groups: groups.iter().map(|it| (*it).to_owned()).collect(),
            value: Bytes::from(value),
        }
    }

    fn shelf(keys: usize) -> Shelf {
        Shelf::new(Bounds {
            keys,
            bytes: 100_000,
        })
    }

    fn put(shelf: &mut Shelf, space: Space, name: &str, expires: u64) -> Written {
        let record = record(expires, "v", &[], "");
        shelf.put(
            key(space, name.as_bytes()),
            record,
            Condition::Any,
            1,
            &mut Vec::new(),
        )
    }

    #[test]
    fn conditions() {
        let mut shelf = shelf(9);
        let name = key(Space::Keys, b"a");
        let mut write = |condition, now| {
            shelf.put(
                name.clone(),
                record(100, "v", &[], ""),
                condition,
                now,
                &mut Vec::new(),
            )
        };
        assert_eq!(write(Condition::Present, 1), Written::Precondition);
        let Written::Stored {
            version,
            created: true,
        } = write(Condition::Absent, 1)
        else {
            panic!("not stored");
        };
        assert_eq!(write(Condition::Absent, 1), Written::Precondition);
        assert_eq!(
            write(Condition::Version(version + 1), 1),
            Written::Precondition
        );
        assert!(matches!(
            write(Condition::Version(version), 1),
            Written::Stored { created: false, .. }
        ));
        assert!(
            matches!(
                write(Condition::Absent, 100),
                Written::Stored { created: true, .. }
            ),
            "what is past its time is not there"
        );
    }

    #[test]
    fn the_soonest_to_expire_makes_room_and_limits_never_do() {
        let mut shelf = shelf(3);
        put(&mut shelf, Space::Keys, "k", 50);
        put(&mut shelf, Space::Cache, "late", 90);
        put(&mut shelf, Space::Cache, "soon", 60);
        put(&mut shelf, Space::Limits, "l", 70);
        assert!(shelf.get(b"csoon", 2).is_none());
        put(&mut shelf, Space::Limits, "m", 70);
        assert!(shelf.get(b"clate", 2).is_none());
        put(&mut shelf, Space::Limits, "n", 70);
        assert!(shelf.get(b"kk", 2).is_none());
        assert_eq!(put(&mut shelf, Space::Limits, "o", 70), Written::Full);
        assert_eq!(put(&mut shelf, Space::Cache, "c", 70), Written::Full);
        assert_eq!((shelf.counts().evicted, shelf.counts().refused), (3, 2));
        let mut changes = Vec::new();
        shelf.sweep(70, 10, &mut changes);
        assert_eq!((changes.len(), shelf.len(), shelf.bytes()), (3, 0, 0));
    }

    #[test]
    fn invalidations_name_what_they_mean() {
        for (query, want) in [
            ("names=a,nothing", 1),
            ("groups=g", 2),
            ("groups=g,h", 2),
            ("prefix=x.example/i", 2),
            ("pattern=*.png", 1),
            ("all=1", 3),
        ] {
            let mut shelf = shelf(9);
            for (name, groups, uri) in [
                ("a", &["g", "h"][..], "x.example/i/a.png"),
                ("b", &["g"][..], "x.example/i/b"),
                ("c", &[][..], "y.example/"),
            ] {
                let record = record(100, "v", groups, uri);
                let name = key(Space::Cache, name.as_bytes());
                shelf.put(name, record, Condition::Any, 1, &mut Vec::new());
            }
            put(&mut shelf, Space::Keys, "x.example/i/not-mine", 100);
            let what = What::of(query).expect("valid");
            let mut changes = Vec::new();
            assert_eq!(
                shelf.invalidate(Space::Cache, &what, &mut changes),
                want,
                "{query}"
            );
            assert_eq!((changes.len(), shelf.len()), (want, 4 - want), "{query}");
        }
    }
}
