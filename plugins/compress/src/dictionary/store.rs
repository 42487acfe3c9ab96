//! The dictionaries that are kept: bounded, the least recently used go first.

use std::rc::Rc;

use edgeweir_filter::Timestamp;

use super::fields::{Available, UseAs};
use crate::Dictionary;

/// Whose a dictionary is: it is used for nothing else.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Origin {
    pub(crate) scheme: Vec<u8>,
    pub(crate) authority: Vec<u8>,
}

/// A dictionary with what is known of it.
struct Entry {
    origin: Origin,
    said: UseAs,
    dictionary: Rc<Dictionary>,
    /// No longer fresh from then on.
    until: Timestamp,
    used: u64,
}

/// What the store may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) entries: usize,
    pub(crate) bytes: usize,
}

/// All dictionaries of a worker or instance.
pub(crate) struct Store {
    bounds: Bounds,
    entries: Vec<Entry>,
    bytes: usize,
    turn: u64,
}

impl Store {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            entries: Vec::new(),
            bytes: 0,
            turn: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Keeps a dictionary until then; makes room by dropping what is stale or was used least recently. The same bytes
    /// for the same pattern replace what is there. False when it is larger than all the room.
    pub(crate) fn keep(
        &mut self,
        origin: Origin,
        said: UseAs,
        dictionary: Rc<Dictionary>,
        until: Timestamp,
        now: Timestamp,
    ) -> bool {
        let size = dictionary.bytes().len();
        if size > self.bounds.bytes || self.bounds.entries == 0 {
            return false;
        }
        self.retain(|entry| {
            let same = entry.origin == origin
                && entry.said.pattern == said.pattern
                && entry.dictionary.sha256() == dictionary.sha256();
            entry.until > now && !same
        });
        while self.entries.len() >= self.bounds.entries
            || self.bytes.saturating_add(size) > self.bounds.bytes
        {
            let Some(oldest) = self.entries.iter().map(|entry| entry.used).min() else {
                break;
            };
            self.retain(|entry| entry.used != oldest);
        }
        self.turn += 1;
        self.bytes += size;
        self.entries.push(Entry {
            origin,
            said,
            dictionary,
            until,
            used: self.turn,
        });
        true
    }

    /// The dictionary that a client has, when it may be used for its request.
    pub(crate) fn find(
        &mut self,
        origin: &Origin,
        path: &[u8],
        available: &Available,
        now: Timestamp,
    ) -> Option<Rc<Dictionary>> {
        let found = self.entries.iter_mut().find(|entry| {
            entry.is_for(origin, path, now)
                && *entry.dictionary.sha256() == available.sha256
                // RFC 9842 §2.3: the client says the id that the dictionary came with.
                && available.id.as_ref().is_none_or(|id| *id == entry.said.id)
                && available.destination.as_ref().is_none_or(|destination| {
                    let all = &entry.said.destinations;
                    all.is_empty() || all.contains(destination)
                })
        })?;
        self.turn += 1;
        found.used = self.turn;
        Some(Rc::clone(&found.dictionary))
    }

    /// Whether there is a dictionary for a path, whoever has it.
    pub(crate) fn is_for(&self, origin: &Origin, path: &[u8], now: Timestamp) -> bool {
        let mut entries = self.entries.iter();
        entries.any(|entry| entry.is_for(origin, path, now))
    }

    fn retain(&mut self, keep: impl Fn(&Entry) -> bool) {
        self.entries.retain(keep);
        let sizes = self.entries.iter().map(|it| it.dictionary.bytes().len());
        self.bytes = sizes.sum();
    }
}

impl Entry {
    fn is_for(&self, origin: &Origin, path: &[u8], now: Timestamp) -> bool {
        self.origin == *origin && self.until > now && self.said.pattern.matches(path)
    }
}
