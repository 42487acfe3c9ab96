//! The first tier: decoded responses in this instance's own memory, bounded in entries and bytes.

use std::collections::hash_map::RandomState;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use edgeweir_filter::Timestamp;
use lru::LruCache;

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
    bytes: usize,
    bounds: Bounds,
}

struct Entry {
    stored: Rc<Stored>,
    edition: u16,
    since: Timestamp,
    size: usize,
}

impl Memory {
    /// An empty tier.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            objects: LruCache::unbounded_with_hasher(RandomState::new()),
            markers: LruCache::unbounded_with_hasher(RandomState::new()),
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

    /// Keeps a response of `size` bytes; returns how many others had to go.
    pub fn put(
        &mut self,
        key: Bytes,
        stored: Rc<Stored>,
        edition: u16,
        size: usize,
        now: Timestamp,
    ) -> u64 {
        self.remove(&key);
        let size = size.saturating_add(key.len()).saturating_add(OVERHEAD);
        if size > self.bounds.bytes || self.bounds.entries == 0 {
            return 0;
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
        };
        self.objects.put(key, entry);
        evicted
    }

    /// Forgets a response.
    pub fn remove(&mut self, key: &Bytes) {
        if let Some(gone) = self.objects.pop(key) {
            self.bytes = self.bytes.saturating_sub(gone.size);
        }
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

    /// Bytes held now.
    #[cfg(test)]
    fn held(&self) -> usize {
        self.bytes
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
            initial_age: 0,
            lifetime: 60,
            conditions: Conditions::default(),
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
            assert!(small.held() <= small.bounds.bytes && small.objects.len() <= 3);
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
        assert_eq!(small.held(), 0);
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
