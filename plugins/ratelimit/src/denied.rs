//! Refusals remembered, so that a client that keeps asking costs no shared read.
//!
//! What is kept is the value that refused. Others can only have used more since, so what it refuses now the value in
//! the table refuses too; once it would admit, the table is asked again. One exception: another worker saw the clock set
//! back, and rewrote the value; then this one says so itself (it has to be rewritten), and the table is asked as well.

use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;

/// Places; a client of the same place as another takes it over.
const PLACES: usize = 1_024;
/// The longest key that is remembered, bytes: all of them take less than 1 MiB.
const MOST_KEY: usize = 256;

/// What was refused of late, by key.
#[derive(Debug)]
pub struct Denied {
    seed: RandomState,
    places: Vec<Option<(Bytes, Bytes)>>,
}

impl Default for Denied {
    fn default() -> Self {
        Self {
            seed: RandomState::new(),
            places: Vec::new(),
        }
    }
}

impl Denied {
    /// The value that refused this key last.
    pub fn of(&self, key: &Bytes) -> Option<Bytes> {
        if self.places.is_empty() {
            return None;
        }
        let (known, value) = self.places.get(self.place(key))?.as_ref()?;
        (known == key).then(|| value.clone())
    }

    /// Remembers a refusal.
    pub fn remember(&mut self, key: &Bytes, value: &Bytes) {
        if key.len() > MOST_KEY {
            return;
        }
        if self.places.is_empty() {
            self.places.resize(PLACES, None);
        }
        let at = self.place(key);
        if let Some(place) = self.places.get_mut(at) {
            // A copy: the value is a small part of what was read.
            *place = Some((key.clone(), Bytes::copy_from_slice(value)));
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
            denied.remember(key, &value);
            assert_eq!(denied.of(key), Some(value.clone()));
        }
        let kept = keys.iter().filter(|key| denied.of(key).is_some());
        assert!(kept.count() <= PLACES);
        let last = &keys[keys.len() - 1];
        denied.forget(last);
        assert_eq!(denied.of(last), None);
        let long = Bytes::from(vec![b'k'; MOST_KEY + 1]);
        denied.remember(&long, &value);
        assert_eq!(denied.of(&long), None);
    }
}
