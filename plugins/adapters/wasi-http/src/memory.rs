//! Values kept in the instance's memory: least recently used first out, bounded by entries and by bytes.

use std::collections::hash_map::RandomState;
use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::Bytes;
use edgeweir_filter::{Failed, Timestamp};
use lru::LruCache;

/// Entries at most.
pub const ENTRIES: NonZeroUsize = NonZeroUsize::new(4_096).unwrap();
/// Bytes of keys and values at most, however many a filter wants.
pub const BYTES: usize = 64 << 20;
/// Bytes of one value at most; a larger one is [`Failed::TooLarge`].
pub const VALUE: usize = 1 << 20;

/// Values with an expiry.
///
/// The hasher is seeded at random: the default one of `lru` has a fixed seed in Wasm, and keys come from traffic.
pub struct Memory {
    values: LruCache<Bytes, Kept, RandomState>,
    bytes: usize,
    limit: usize,
}

struct Kept {
    until: Timestamp,
    value: Bytes,
}

impl Memory {
    /// For a filter that wants so many bytes ([`Wants::shared_bytes`](edgeweir_filter::Wants::shared_bytes)): as many, up
    /// to [`BYTES`]. With 0 nothing is ever kept.
    pub fn wanted(bytes: usize) -> Self {
        Self::bounded(ENTRIES, bytes.min(BYTES))
    }

    /// An empty memory under bounds of its own.
    pub fn bounded(entries: NonZeroUsize, bytes: usize) -> Self {
        Self {
            values: LruCache::with_hasher(entries, RandomState::new()),
            bytes: 0,
            limit: bytes,
        }
    }

    /// The value of `key`, unless it has expired.
    pub fn load(&mut self, key: &Bytes, now: Timestamp) -> Option<Bytes> {
        let kept = self.values.get(key)?;
        if kept.until > now {
            return Some(kept.value.clone());
        }
        self.remove(key);
        None
    }

    /// Keeps a value for `ttl` at most, in place of those used least recently; how many of them.
    pub fn store(
        &mut self,
        key: Bytes,
        value: Bytes,
        ttl: Duration,
        now: Timestamp,
    ) -> Result<u64, Failed> {
        let size = key.len() + value.len();
        if value.len() > VALUE || size > self.limit {
            return Err(Failed::TooLarge);
        }
        self.remove(&key);
        let kept = Kept {
            until: now.plus(ttl),
            value,
        };
        let mut evicted = 0;
        if let Some((key, old)) = self.values.push(key, kept) {
            self.bytes -= key.len() + old.value.len();
            evicted += 1;
        }
        self.bytes += size;
        while self.bytes > self.limit {
            let Some((key, old)) = self.values.pop_lru() else {
                break;
            };
            self.bytes -= key.len() + old.value.len();
            evicted += 1;
        }
        Ok(evicted)
    }

    /// Drops a value.
    pub fn remove(&mut self, key: &Bytes) {
        if let Some((key, old)) = self.values.pop_entry(key) {
            self.bytes -= key.len() + old.value.len();
        }
    }

    /// Bytes of keys and values held now.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const NOW: Timestamp = Timestamp::from_secs(1_000);

    fn small() -> Memory {
        Memory::bounded(NonZeroUsize::new(3).unwrap_or(NonZeroUsize::MIN), 30)
    }

    fn put(memory: &mut Memory, key: &'static str, value: &'static str) {
        assert!(memory.store(key.into(), value.into(), MINUTE, NOW).is_ok());
    }

    #[test]
    fn values_expire() {
        let mut memory = small();
        put(&mut memory, "a", "1");
        assert_eq!(
            memory.load(&"a".into(), NOW.plus(MINUTE / 2)),
            Some("1".into())
        );
        assert_eq!(memory.load(&"a".into(), NOW.plus(MINUTE)), None);
        assert_eq!(memory.bytes(), 0);
    }

    #[test]
    fn entries_and_bytes_are_bounded() {
        let mut memory = small();
        for key in ["a", "b", "c", "d"] {
            put(&mut memory, key, "12345678");
        }
        // Four entries: one over the bound of three.
        assert_eq!(memory.load(&"a".into(), NOW), None);
        assert_eq!(memory.bytes(), 27);
        // "b" is used, so the bytes of a larger value cost "c" and "d".
        assert!(memory.load(&"b".into(), NOW).is_some());
        let value = Bytes::from("12345678901234567890");
        assert_eq!(
            memory.store("e".into(), value, MINUTE, NOW),
            Ok(2),
            "evicted"
        );
        assert!(memory.load(&"b".into(), NOW).is_some());
        assert_eq!(memory.load(&"d".into(), NOW), None);
        assert_eq!(memory.bytes(), 30);
    }

    #[test]
    fn a_filter_gets_what_it_wants_up_to_the_bound() {
        for (name, wanted, length, want) in [
            ("none", 0, 0, Err(Failed::TooLarge)),
            ("room", 1_000, 999, Ok(0)),
            ("no room", 1_000, 1_000, Err(Failed::TooLarge)),
            ("any amount", usize::MAX, VALUE, Ok(0)),
            (
                "over a value's bound",
                usize::MAX,
                VALUE + 1,
                Err(Failed::TooLarge),
            ),
        ] {
            let mut memory = Memory::wanted(wanted);
            assert!(memory.limit <= BYTES, "{name}");
            let value = Bytes::from(vec![0; length]);
            assert_eq!(memory.store("a".into(), value, MINUTE, NOW), want, "{name}");
        }
    }

    #[test]
    fn too_large_is_said_and_replacing_is_counted_once() {
        let mut memory = small();
        let large = Bytes::from(vec![0; 31]);
        assert_eq!(
            memory.store("a".into(), large, MINUTE, NOW),
            Err(Failed::TooLarge)
        );
        put(&mut memory, "a", "1");
        put(&mut memory, "a", "22");
        assert_eq!(memory.bytes(), 3);
        memory.remove(&"a".into());
        assert_eq!(memory.bytes(), 0);
    }
}
