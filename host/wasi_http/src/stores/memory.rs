//! A store in memory.

use std::collections::BTreeMap;

use super::{number, room, size};

/// Keys and values, and what they take.
#[derive(Default)]
pub(crate) struct Memory {
    entries: BTreeMap<String, Vec<u8>>,
    bytes: u64,
}

impl Memory {
    pub(super) fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.entries.get(key).cloned()
    }

    pub(super) fn contains(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    pub(super) fn keys(&self) -> Vec<String> {
        self.entries.keys().cloned().collect()
    }

    pub(super) fn set(&mut self, key: String, value: Vec<u8>) -> Result<u64, String> {
        let old = self.entries.get(&key);
        let old = old.map_or(0, |old| size(&key, old.len()));
        self.bytes = room(self.bytes, old, size(&key, value.len()))?;
        self.entries.insert(key, value);
        Ok(self.bytes)
    }

    pub(super) fn delete(&mut self, key: &str) -> u64 {
        if let Some(old) = self.entries.remove(key) {
            self.bytes = self.bytes.saturating_sub(size(key, old.len()));
        }
        self.bytes
    }

    pub(super) fn swap(
        &mut self,
        key: String,
        old: Option<&[u8]>,
        new: Vec<u8>,
    ) -> Result<bool, String> {
        if self.entries.get(&key).map(Vec::as_slice) != old {
            return Ok(false);
        }
        self.set(key, new).map(|_| true)
    }

    pub(super) fn increment(&mut self, key: String, delta: i64) -> Result<i64, String> {
        let after = number(self.entries.get(&key).map(Vec::as_slice), delta)?;
        self.set(key, after.to_le_bytes().to_vec())?;
        Ok(after)
    }
}
