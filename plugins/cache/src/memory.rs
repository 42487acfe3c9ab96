//! The first tier: decoded responses in this instance's own memory, bounded in entries and bytes.

use std::collections::hash_map::RandomState;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use edgeweir_filter::Timestamp;
use lru::LruCache;

use crate::marker::Marker;
use crate::stored::Stored;

/// What an entry costs besides its bytes: nodes, pointers, tables.
const OVERHEAD: usize = 256;

/// Bounds of the first tier.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Responses at most; 0 turns the tier off.
    pub entries: usize,
    /// Bytes at most, keys and overhead included.
    pub bytes: usize,
    /// How long a response is used before the shared store is asked again.
    pub residence: Duration,
}

/// Least recently used out first.
pub struct Memory {
    // A hasher seeded at random: with a fixed one, keys could be chosen to collide.
    objects: LruCache<Bytes, Entry, RandomState>,
    markers: LruCache<Bytes, Bytes, RandomState>,
    known: LruCache<Bytes, Known, RandomState>,
    /// Reads from the shared store of what is not kept here yet.
    reads: LruCache<Bytes, u32, RandomState>,
    bytes: usize,
    bounds: Bounds,
}

struct Entry {
    stored: Rc<Stored>,
    edition: u16,
    since: Timestamp,
    size: usize,
    checked: Checked,
    hits: u32,
}

/// When a response was last found not to be invalidated as a member of something larger.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Checked {
    /// The clock of its key then; `None` when it never was.
    pub clock: Option<Bytes>,
    /// The number of the last such invalidation then.
    pub number: Option<u64>,
}

/// What was read of a key while its clock stood still: nothing changes without the clock.
#[derive(Clone, Debug)]
pub struct Known {
    /// The clock.
    pub clock: Bytes,
    /// The key with the URI's generation.
    pub primary: Bytes,
    /// The key's marker, when there was one.
    pub marker: Option<Marker>,
    /// When it was read.
    pub since: Timestamp,
}

impl Memory {
    /// An empty tier.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            objects: LruCache::unbounded_with_hasher(RandomState::new()),
            markers: LruCache::unbounded_with_hasher(RandomState::new()),
            known: LruCache::unbounded_with_hasher(RandomState::new()),
            reads: LruCache::unbounded_with_hasher(RandomState::new()),
            bytes: 0,
            bounds,
        }
    }

    /// The response stored in this generation and edition, while its residence lasts.
    pub fn get(
        &mut self,
        key: &Bytes,
        generation: u64,
        edition: u16,
        now: Timestamp,
    ) -> Option<Rc<Stored>> {
        let entry = self.objects.get(key)?;
        if entry.stored.generation != generation {
            self.remove(key);
            return None;
        }
        let current = entry.edition == edition && now.since(entry.since) < self.bounds.residence;
        current.then(|| Rc::clone(&entry.stored))
    }

    /// The response stored in this generation, whatever was stored since elsewhere; it counts as asked for just now.
    pub fn recall(
        &mut self,
        key: &Bytes,
        generation: u64,
        edition: u16,
        now: Timestamp,
    ) -> Option<Rc<Stored>> {
        let entry = self.objects.get_mut(key)?;
        if entry.stored.generation != generation {
            return None;
        }
        entry.edition = edition;
        entry.since = now;
        Some(Rc::clone(&entry.stored))
    }

    /// Keeps a response of `size` bytes; returns how many others had to go, `None` when it is too large.
    pub fn put(
        &mut self,
        key: Bytes,
        stored: Rc<Stored>,
        edition: u16,
        size: usize,
        now: Timestamp,
    ) -> Option<u64> {
        self.remove(&key);
        let size = size.saturating_add(key.len()).saturating_add(OVERHEAD);
        if size > self.bounds.bytes || self.bounds.entries == 0 {
            return None;
        }
        let mut evicted = 0;
        while self.objects.len() >= self.bounds.entries
            || self.bytes.saturating_add(size) > self.bounds.bytes
        {
            let Some((_, gone)) = self.objects.pop_lru() else {
                break;
            };
            self.bytes = self.bytes.saturating_sub(gone.size);
            evicted += 1;
        }
        self.bytes += size;
        let entry = Entry {
            stored,
            edition,
            since: now,
            size,
            checked: Checked::default(),
            hits: 0,
        };
        self.objects.put(key, entry);
        Some(evicted)
    }

    /// Forgets a response.
    pub fn remove(&mut self, key: &Bytes) {
        if let Some(gone) = self.objects.pop(key) {
            self.bytes = self.bytes.saturating_sub(gone.size);
        }
    }

    /// What is known of a key under its clock, for as long as a residence.
    pub fn known(&mut self, key: &Bytes, clock: &Bytes, now: Timestamp) -> Option<Known> {
        let known = self.known.get(key)?;
        let current = known.clock == *clock && now.since(known.since) < self.bounds.residence;
        current.then(|| known.clone())
    }

    /// Remembers what was read of a key; for at most twice as many keys as there may be responses.
    pub fn learn(&mut self, key: Bytes, known: Known) {
        self.known.put(key, known);
        while self.known.len() > self.bounds.entries.saturating_mul(2).max(16) {
            self.known.pop_lru();
        }
    }

    /// When a response was last checked.
    pub fn checked(&self, key: &Bytes) -> Checked {
        self.objects
            .peek(key)
            .map(|entry| entry.checked.clone())
            .unwrap_or_default()
    }

    /// A response was found to be valid.
    pub fn passed(&mut self, key: &Bytes, checked: Checked) {
        if let Some(entry) = self.objects.peek_mut(key) {
            entry.checked = checked;
        }
    }

    /// What is kept, whatever generation it is of; not counted as asked for.
    pub fn peek(&self, key: &Bytes) -> Option<Rc<Stored>> {
        self.objects.peek(key).map(|entry| Rc::clone(&entry.stored))
    }

    /// Whether this very response is what is kept.
    pub fn holds(&self, key: &Bytes, stored: &Rc<Stored>) -> bool {
        let kept = self.objects.peek(key);
        kept.is_some_and(|entry| Rc::ptr_eq(&entry.stored, stored))
    }

    /// Counts a hit; how often it was hit since it was kept.
    pub fn hit(&mut self, key: &Bytes) -> u32 {
        let Some(entry) = self.objects.peek_mut(key) else {
            return 0;
        };
        entry.hits = entry.hits.saturating_add(1);
        entry.hits
    }

    /// Counts a read from the shared store; whether the response is to be kept here from now on.
    pub fn promotes(&mut self, key: &Bytes, after: u32) -> bool {
        if after <= 1 || self.objects.contains(key) {
            return true;
        }
        let reads = self.reads.get(key).copied().unwrap_or(0).saturating_add(1);
        if reads >= after {
            self.reads.pop(key);
            return true;
        }
        self.reads.put(key.clone(), reads);
        while self.reads.len() > self.bounds.entries.max(16) {
            self.reads.pop_lru();
        }
        false
    }

    /// How many responses there are, and their bytes.
    pub fn size(&self) -> (usize, usize) {
        (self.objects.len(), self.bytes)
    }

    /// All responses, for an operator's question.
    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, &Rc<Stored>)> {
        self.objects.iter().map(|(key, entry)| (key, &entry.stored))
    }

    /// A value of this instance alone, for when there is no shared store.
    pub fn marker(&mut self, key: &Bytes) -> Option<Bytes> {
        self.markers.get(key).cloned()
    }

    /// Sets such a value; at most two for each entry, so that what was invalidated is remembered a while.
    pub fn set_marker(&mut self, key: Bytes, value: Vec<u8>) {
        self.markers.put(key, value.into());
        while self.markers.len() > self.bounds.entries.saturating_mul(2).max(16) {
            self.markers.pop_lru();
        }
    }

    /// The shared store answers: what this instance decided without it is over. Kept until the store fails again, it would
    /// bring back what was invalidated or replaced meanwhile.
    pub fn no_longer_alone(&mut self) {
        if !self.markers.is_empty() {
            self.markers.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stored::Conditions;
    use edgeweir_filter::Fields;

    const NOW: Timestamp = Timestamp::from_secs(100);

    fn stored(generation: u64) -> Rc<Stored> {
        Rc::new(Stored {
            generation,
            status: 200,
            fields: Fields::default(),
            responded: NOW,
            requested: NOW,
            initial_age: 0,
            lifetime: 60,
            conditions: Conditions::default(),
            part: None,
            groups: Vec::new(),
            secondary: Bytes::new(),
            body: Bytes::new(),
        })
    }

    fn memory(entries: usize, bytes: usize) -> Memory {
        Memory::new(Bounds {
            entries,
            bytes,
            residence: Duration::from_secs(5),
        })
    }

    #[test]
    fn bounded_in_entries_and_bytes() {
        let key = |n: u32| Bytes::from(n.to_be_bytes().to_vec());
        let mut few = memory(3, 1 << 20);
        let mut small = memory(100, 3 * (1000 + 4 + OVERHEAD));
        for n in 0..50 {
            few.put(key(n), stored(1), 0, 1000, NOW);
            small.put(key(n), stored(1), 0, 1000, NOW);
            assert!(few.objects.len() <= 3);
            assert!(small.size().1 <= small.bounds.bytes && small.objects.len() <= 3);
        }
        assert!(few.get(&key(49), 1, 0, NOW).is_some());
        assert!(few.get(&key(46), 1, 0, NOW).is_none());
        small.put(key(99), stored(1), 0, 1 << 20, NOW);
        assert!(
            small.get(&key(99), 1, 0, NOW).is_none(),
            "over the whole bound"
        );
        for n in 0..50 {
            small.remove(&key(n));
        }
        assert_eq!(small.size().1, 0);
    }

    #[test]
    fn another_edition_or_a_long_stay_asks_again() {
        let key = Bytes::from("k");
        let mut memory = memory(3, 1 << 20);
        memory.put(key.clone(), stored(1), 7, 10, NOW);
        let later = NOW.plus(Duration::from_secs(5));
        assert!(memory.get(&key, 1, 7, NOW).is_some());
        assert!(memory.get(&key, 1, 8, NOW).is_none());
        assert!(memory.get(&key, 1, 7, later).is_none());
        assert!(memory.recall(&key, 1, 8, later).is_some());
        assert!(memory.get(&key, 1, 8, later).is_some());
        assert!(memory.get(&key, 2, 8, later).is_none());
        assert!(
            memory.recall(&key, 1, 8, later).is_none(),
            "another generation is forgotten"
        );
    }

    #[test]
    fn markers_are_bounded() {
        let mut memory = memory(10, 1 << 20);
        for n in 0..100u32 {
            memory.set_marker(Bytes::from(n.to_be_bytes().to_vec()), vec![1]);
        }
        assert_eq!(memory.markers.len(), 20);
    }
}
