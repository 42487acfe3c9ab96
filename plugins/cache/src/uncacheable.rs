//! Keys whose responses could not be stored: they need not be looked for, nor waited for.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

use edgeweir_filter::Timestamp;
use lru::LruCache;

/// Hashes of keys, each until a time; the least recently used goes first.
pub struct Uncacheable {
    // Seeded at random: nobody outside can aim at another's hash.
    hasher: RandomState,
    keys: LruCache<u64, Timestamp, RandomState>,
    most: usize,
}

impl Uncacheable {
    /// None yet, `most` at most.
    pub fn new(most: usize) -> Self {
        Self {
            hasher: RandomState::new(),
            keys: LruCache::unbounded_with_hasher(RandomState::new()),
            most,
        }
    }

    /// Remembers a key for a while.
    pub fn remember(&mut self, key: &[u8], now: Timestamp, ttl: Duration) {
        self.keys.put(self.hasher.hash_one(key), now.plus(ttl));
        while self.keys.len() > self.most {
            self.keys.pop_lru();
        }
    }

    /// Whether a key is remembered.
    pub fn knows(&self, key: &[u8], now: Timestamp) -> bool {
        let until = self.keys.peek(&self.hasher.hash_one(key));
        until.is_some_and(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_remembered_for_a_while_and_few_of_them() {
        let mut known = Uncacheable::new(3);
        let now = Timestamp::from_secs(9);
        let minute = Duration::from_secs(60);
        for key in [b"a", b"b", b"c", b"d"] {
            known.remember(key, now, minute);
        }
        assert!(!known.knows(b"a", now), "the oldest of four");
        assert!(known.knows(b"b", now) && known.knows(b"d", now));
        assert!(!known.knows(b"d", now.plus(minute)));
    }
}
