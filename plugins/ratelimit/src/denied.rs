//! Refusals remembered, so that a client that keeps asking costs no shared read.
//!
//! What is kept of a local limit is the value that refused. Others can only have used more since, so what it refuses now
//! the value in the table refuses too; once it would admit, the table is asked again. One exception: another worker saw
//! the clock set back, and rewrote the value; then this one says so itself (it has to be rewritten), and the table is asked
//! as well. Of a global limit it is what the store said.

use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;

/// Places; a client of the same place as another takes it over.
const PLACES: usize = 1_024;
/// The longest key that is remembered, bytes: all of them take less than 1 MiB.
const MOST_KEY: usize = 256;

/// What was refused of late, by key.
#[derive(Debug)]
pub struct Denied<V> {
    seed: RandomState,
    places: Vec<Option<(Bytes, V)>>,
}

impl<V> Default for Denied<V> {
    fn default() -> Self {
        Self {
            seed: RandomState::new(),
            places: Vec::new(),
        }
    }
}

impl<V: Clone> Denied<V> {
    /// What refused this key last.
    pub fn of(&self, key: &Bytes) -> Option<V> {
        if self.places.is_empty() {
            return None;
        }
        let (known, value) = self.places.get(self.place(key))?.as_ref()?;
        (known == key).then(|| value.clone())
    }

    /// Remembers a refusal.
    pub fn remember(&mut self, key: &Bytes, value: V) {
        if key.len() > MOST_KEY {
            return;
        }
        if self.places.is_empty() {
            self.places.resize(PLACES, None);
        }
        let at = self.place(key);
        if let Some(place) = self.places.get_mut(at) {
            *place = Some((key.clone(), value));
        }
    }

    /// Forgets one.
    pub fn forget(&mut self, key: &Bytes) {
        let at = self.place(key);
        if let Some(place) = self.places.get_mut(at)
            && place.as_ref().is_some_and(|(known, _)| known == key)
        {
            *place = None;
        }
    }

    fn place(&self, key: &Bytes) -> usize {
        usize::try_from(self.seed.hash_one(key) % PLACES as u64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut denied = Denied::default();
        let value = Bytes::from_static(b"value");
        let keys: Vec<Bytes> = (0..10 * PLACES).map(|at| at.to_string().into()).collect();
        for key in &keys {
            assert_eq!(denied.of(key), None);
            denied.remember(key, value.clone());
            assert_eq!(denied.of(key), Some(value.clone()));
        }
        let kept = keys.iter().filter(|key| denied.of(key).is_some());
        assert!(kept.count() <= PLACES);
        let last = &keys[keys.len() - 1];
        denied.forget(last);
        assert_eq!(denied.of(last), None);
        let long = Bytes::from(vec![b'k'; MOST_KEY + 1]);
        denied.remember(&long, value);
        assert_eq!(denied.of(&long), None);
    }
}
