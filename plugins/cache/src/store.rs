//! What outlives an exchange, and the names of things in the shared store.

use std::cell::{Cell, RefCell};
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use edgeweir_filter::{Change, Cx, Effect, Timestamp};

use crate::config::Settings;
use crate::marker;
use crate::memory::Memory;
use crate::storable::Storable;
use crate::stored::Stored;

/// How long an invalidation of a key that nothing is stored under is remembered: long enough for responses that were
/// on their way to arrive and be refused.
pub const REMEMBERED: Duration = Duration::from_secs(300);

/// How long the generation of a URI lasts where keys have more parts than the URI. When it is lost, by time or for
/// want of room, there is a new one, and what was stored under the old one is not found any more.
pub const EPOCH: Duration = Duration::from_secs(2 * 86_400);

/// The longest a response is kept in the shared store.
const LONGEST_KEPT: Duration = Duration::from_secs(365 * 86_400);

/// Bytes a store may add to an object of its own.
pub const FRAMING: usize = 64;

/// State of one filter: everything exchanges share within an instance.
pub struct Core {
    /// Checked settings.
    pub settings: Settings,
    /// The first tier.
    pub memory: RefCell<Memory>,
    random: RandomState,
    drawn: Cell<u64>,
    /// Bytes of responses being captured now.
    captured: Cell<usize>,
}

/// Bytes taken of the bound for all responses that are captured at the same time; given back when it is dropped,
/// however the exchange ended.
pub struct Room {
    core: Rc<Core>,
    taken: usize,
}

impl Room {
    /// None yet.
    pub fn of(core: &Rc<Core>) -> Self {
        Self {
            core: Rc::clone(core),
            taken: 0,
        }
    }

    /// Takes more; `false`, and nothing taken, when that would be over the bound.
    pub fn take(&mut self, bytes: usize) -> bool {
        let all = self.core.captured.get().saturating_add(bytes);
        if all > self.core.settings.capture {
            return false;
        }
        self.core.captured.set(all);
        self.taken += bytes;
        true
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let all = self.core.captured.get();
        self.core.captured.set(all.saturating_sub(self.taken));
    }
}

impl Core {
    /// With an empty first tier.
    pub fn new(settings: Settings) -> Self {
        Self {
            memory: RefCell::new(Memory::new(settings.bounds)),
            settings,
            random: RandomState::new(),
            drawn: Cell::new(0),
            captured: Cell::new(0),
        }
    }

    /// A generation that no worker had before, to all likelihood (64 bits from a hasher seeded at random).
    pub fn fresh_generation(&self, now: Timestamp) -> u64 {
        let drawn = self.drawn.get();
        self.drawn.set(drawn.wrapping_add(1));
        self.random.hash_one((drawn, now))
    }

    /// Until when a response may be of use, in seconds since the epoch.
    ///
    /// Where keys have more parts than the URI it is not longer than a URI's generation lasts: an invalidation is then
    /// remembered until everything stored before it is gone.
    pub fn until(&self, storable: &Storable, now: Timestamp) -> u32 {
        let until = storable.until(self.settings.keep_stale);
        let longest = match self.settings.key.has_extra() {
            true => EPOCH,
            false => LONGEST_KEPT,
        };
        until.min(u32::try_from(now.plus(longest).as_secs()).unwrap_or(u32::MAX))
    }

    /// Applies a change to this instance's own value, for when there is no shared store; returns the value before.
    pub fn update_alone(
        &self,
        key: &Bytes,
        change: impl Fn(Option<&[u8]>) -> Option<Vec<u8>>,
    ) -> Option<Bytes> {
        let mut memory = self.memory.borrow_mut();
        let before = memory.marker(key);
        if let Some(after) = change(before.as_deref()) {
            memory.set_marker(key.clone(), after);
        }
        before
    }

    /// Keeps a response in both tiers and tells the other workers. `edition` is the key's edition before.
    pub fn keep(
        &self,
        place: &Place,
        stored: &Rc<Stored>,
        encoded: Bytes,
        until: u32,
        cx: &mut Cx<'_>,
    ) {
        let size = encoded.len();
        let evicted = self.memory.borrow_mut().put(
            place.object.clone(),
            Rc::clone(stored),
            place.edition.wrapping_add(1),
            size,
            cx.now,
        );
        if evicted > 0 {
            cx.add("cache.l1.evicted", evicted);
        }
        cx.count("cache.stored");
        cx.add(
            "cache.stored_bytes",
            u64::try_from(size).unwrap_or(u64::MAX),
        );
        if !place.alone {
            cx.detach(Effect::Store {
                key: place.object.clone(),
                value: encoded,
                ttl: remaining(until, cx.now),
            });
        }
        self.announce(place, stored.generation, until, cx);
    }

    /// Drops a response from both tiers and tells the other workers.
    pub fn forget(&self, place: &Place, generation: u64, until: u32, cx: &mut Cx<'_>) {
        self.memory.borrow_mut().remove(&place.object);
        if !place.alone {
            cx.detach(Effect::Remove {
                key: place.object.clone(),
            });
        }
        self.announce(place, generation, until, cx);
    }

    fn announce(&self, place: &Place, generation: u64, until: u32, cx: &mut Cx<'_>) {
        let change = move |before: Option<&[u8]>| marker::next_edition(before, generation);
        if place.alone {
            self.update_alone(&place.marker, change);
            return;
        }
        cx.detach(Effect::Update {
            key: place.marker.clone(),
            change: Change::new(change),
            ttl: remaining(until.max(place.until), cx.now),
        });
    }
}

/// Where a variant is kept.
#[derive(Clone, Debug)]
pub struct Place {
    /// The marker's name in the shared store.
    pub marker: Bytes,
    /// The object's name in the shared store, and in the first tier.
    pub object: Bytes,
    /// The key's edition when this was learnt.
    pub edition: u16,
    /// Until when the key's marker matters, in seconds since the epoch.
    pub until: u32,
    /// The shared store is not used.
    pub alone: bool,
}

/// The name of a key's marker.
pub fn marker_name(primary: &[u8]) -> Bytes {
    [b"cache/m/", primary].concat().into()
}

/// The name of a URI's generation, where keys have more parts than the URI.
pub fn epoch_name(uri: &[u8]) -> Bytes {
    [b"cache/e/", uri].concat().into()
}

/// The name of a variant's object.
pub fn object_name(primary: &[u8], place: u8) -> Bytes {
    [b"cache/o/", &[b'0'.wrapping_add(place)][..], b"/", primary]
        .concat()
        .into()
}

/// Time until a second since the epoch, at least one second.
pub fn remaining(until: u32, now: Timestamp) -> Duration {
    Timestamp::from_secs(u64::from(until))
        .since(now)
        .clamp(Duration::from_secs(1), LONGEST_KEPT)
}
