//! What outlives an exchange, and the names of things in the shared store.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use edgeweir_filter::{Answer, Change, Cx, Effect, Task, Timestamp};

use crate::config::Settings;
use crate::flights::{Ended, Flights, Lead};
use crate::keep::Keep;
use crate::kept;
use crate::key::Key;
use crate::marker;
use crate::memory::Memory;
use crate::news::Hearing;
use crate::reason::Refused;
use crate::standing::Ban;
use crate::storable::Storable;
use crate::stored::Stored;
use crate::successors::{Rate, Successors};
use crate::tiers::{Did, Tier, Tiers};
use crate::uncacheable::Uncacheable;
use crate::ways::Ways;

/// How long an invalidation of a key that nothing is stored under is remembered: long enough for responses that were
/// on their way to arrive and be refused.
pub const REMEMBERED: Duration = Duration::from_secs(300);

/// How long the generation of a URI lasts where keys have more parts than the URI. When it is lost, by time or for
/// want of room, there is a new one, and what was stored under the old one is not found any more.
pub const EPOCH: Duration = Duration::from_secs(2 * 86_400);

/// The longest a response is kept in the shared store.
pub const LONGEST_KEPT: Duration = Duration::from_secs(365 * 86_400);

/// The longest anything is kept under a key.
pub fn longest(key: &Key) -> Duration {
    match key.has_extra() {
        true => EPOCH,
        false => LONGEST_KEPT,
    }
}

/// Keys remembered as not cacheable at most.
const UNCACHEABLE: usize = 4096;

/// How long a clock stands in the shared store; when it is gone there is a new one, and everything is read anew.
pub const CLOCK: Duration = Duration::from_secs(30 * 86_400);

/// Bytes a store may add to an object of its own.
pub const FRAMING: usize = 64;

/// State of one filter: everything exchanges share within an instance.
pub struct Core {
    /// Checked settings.
    pub settings: Settings,
    /// The first tier.
    pub memory: RefCell<Memory>,
    /// Requests to the origin under way.
    pub flights: Flights,
    /// Keys whose responses could not be stored.
    pub uncacheable: RefCell<Uncacheable>,
    /// Which key is likely to follow which.
    pub successors: RefCell<Successors>,
    /// Prefetches.
    pub prefetches: RefCell<Rate>,
    /// Refreshes ahead.
    pub refreshes_ahead: RefCell<Rate>,
    /// How clients' requests went.
    pub ways: RefCell<Ways>,
    /// The bans, and the number of the invalidation they were read under.
    pub bans: RefCell<(u64, Rc<[Ban]>)>,
    /// How far it is with hearing what other machines invalidated.
    pub(crate) hearing: RefCell<Hearing>,
    /// A request to a target by name can be for no other host than that.
    pub(crate) sends_as_target: Cell<bool>,
    random: RandomState,
    drawn: Cell<u64>,
    /// Bytes of responses being captured now.
    captured: Cell<usize>,
    /// What the tiers were asked and did.
    pub tiers: Tiers,
    /// Keys whose last request in the background failed.
    pub held_off: RefCell<Uncacheable>,
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
            flights: Flights::default(),
            uncacheable: RefCell::new(Uncacheable::new(UNCACHEABLE)),
            successors: RefCell::new(Successors::new(settings.successors)),
            prefetches: RefCell::new(Rate::new(settings.prefetches)),
            refreshes_ahead: RefCell::new(Rate::new(settings.refreshes_ahead)),
            ways: RefCell::new(Ways::new()),
            bans: RefCell::new((0, Rc::from([]))),
            hearing: RefCell::default(),
            settings,
            sends_as_target: Cell::new(false),
            random: RandomState::new(),
            drawn: Cell::new(0),
            captured: Cell::new(0),
            tiers: Tiers::default(),
            held_off: RefCell::new(Uncacheable::new(UNCACHEABLE)),
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
    pub fn until(&self, key: &Key, storable: &Storable, now: Timestamp) -> u32 {
        let until = storable.until(self.settings.keep_stale);
        until.min(seconds_at(now.plus(longest(key))))
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

    /// Keeps a response in all tiers and tells the other workers; then those who wait for `lead` go on.
    pub fn keep(
        self: &Rc<Self>,
        place: &Place,
        stored: &Rc<Stored>,
        encoded: Bytes,
        until: u32,
        lead: Option<Lead>,
        cx: &mut Cx<'_>,
    ) {
        if let Some(l3) = &self.settings.l3 {
            let lease = lead.as_ref().and_then(|lead| lead.lease.clone());
            let what = (stored, &encoded, until);
            cx.spawn(Keep::new(self, l3, place, what, lease));
        }
        self.keep_here(place, stored, encoded, until, lead, cx);
    }

    /// As `keep`, but in the first two tiers only.
    pub fn keep_here(
        self: &Rc<Self>,
        place: &Place,
        stored: &Rc<Stored>,
        encoded: Bytes,
        until: u32,
        lead: Option<Lead>,
        cx: &mut Cx<'_>,
    ) {
        let size = encoded.len();
        let put = self.memory.borrow_mut().put(
            place.object.clone(),
            Rc::clone(stored),
            place.edition.wrapping_add(1),
            size,
            cx.now,
        );
        self.put_here(put, size, cx);
        cx.count("cache.stored");
        cx.add(
            "cache.stored_bytes",
            u64::try_from(size).unwrap_or(u64::MAX),
        );
        let store = Effect::Store {
            key: place.object.clone(),
            value: encoded,
            ttl: remaining(until, cx.now).min(self.settings.l2_residence),
        };
        let generation = stored.generation;
        let change = move |before: Option<&[u8]>| marker::next_edition(before, generation);
        self.announce(place, store, change, until, lead, cx);
    }

    /// Counts what the first tier took, or didn't, and what had to go for that.
    pub fn put_here(&self, evicted: Option<u64>, size: usize, cx: &mut Cx<'_>) {
        if let Some(evicted) = evicted {
            self.stored_in(Tier::L1, size, cx);
            self.tiers.add(Tier::L1, Did::Evicted, evicted, cx);
        }
    }

    /// Counts what a tier took.
    pub fn stored_in(&self, tier: Tier, size: usize, cx: &mut Cx<'_>) {
        let size = u64::try_from(size).unwrap_or(u64::MAX);
        self.tiers.count(tier, Did::Stored, cx);
        self.tiers.add(tier, Did::StoredBytes, size, cx);
    }

    /// A request to the origin for what is stored failed: for a while none is made in the background.
    pub fn hold_off(&self, flight: &[u8], now: Timestamp) {
        let pause = self.settings.background.retry;
        self.held_off.borrow_mut().remember(flight, now, pause);
    }

    /// Lets go of a flight whose response is not kept: also the lease on it.
    pub fn give_up(&self, lead: Option<Lead>, why: Refused, cx: &mut Cx<'_>) {
        if let (Some(lead), true) = (&lead, why.concerns_others()) {
            lead.ends(Ended::Unstorable);
        }
        if let (Some(l3), Some(name)) = (&self.settings.l3, lead.and_then(|it| it.lease.clone())) {
            cx.spawn(l3.tell(l3.release(&name)));
        }
    }

    /// Drops a response from all tiers and tells the other workers.
    pub fn forget(self: &Rc<Self>, place: &Place, old: &Stored, until: u32, cx: &mut Cx<'_>) {
        self.memory.borrow_mut().remove(&place.object);
        if let Some(l3) = &self.settings.l3 {
            let name = kept::name_of(&place.key, old);
            cx.spawn(l3.tell(l3.forget(&name)));
        }
        let remove = Effect::Remove {
            key: place.object.clone(),
        };
        let (at, generation) = (place.at, old.generation);
        let change = move |before: Option<&[u8]>| marker::vacate(before, generation, at);
        self.announce(place, remove, change, until, None, cx);
    }

    /// Does it, then changes the key's marker, then its clock: who sees the new time sees the new marker, and who sees
    /// that finds what it says.
    fn announce(
        self: &Rc<Self>,
        place: &Place,
        first: Effect,
        change: impl Fn(Option<&[u8]>) -> Option<Vec<u8>> + 'static,
        until: u32,
        lead: Option<Lead>,
        cx: &mut Cx<'_>,
    ) {
        if place.alone {
            self.update_alone(&place.marker(), change);
            return;
        }
        let ttl = remaining(until.max(place.until), cx.now);
        let edition = cell(place.marker(), change, ttl);
        let clock = self.tick(place.clock, cx.now);
        let size = match &first {
            Effect::Store { value, .. } => value.len(),
            _ => 0,
        };
        cx.spawn(InOrder {
            core: Rc::clone(self),
            size,
            effects: VecDeque::from([first, edition, clock]),
            _lead: lead,
        });
    }

    /// Moves a clock: whoever knows something under it reads it anew.
    pub fn tick(&self, clock: u8, now: Timestamp) -> Effect {
        let fresh = self.fresh_generation(now).to_be_bytes();
        cell(clock_name(clock), move |_| Some(fresh.to_vec()), CLOCK)
    }
}

/// Effects one after the other; those who wait for the lead go on after the last.
struct InOrder {
    core: Rc<Core>,
    /// Bytes of what is stored by one of them.
    size: usize,
    effects: VecDeque<Effect>,
    _lead: Option<Lead>,
}

impl Task for InOrder {
    fn start(&mut self, _: &mut Cx<'_>) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn answer(&mut self, answer: Answer, cx: &mut Cx<'_>) -> Option<Effect> {
        if let (Answer::Stored(Ok(evicted)), true) = (&answer, self.size > 0) {
            self.core.stored_in(Tier::L2, self.size, cx);
            let tiers = &self.core.tiers;
            tiers.add(Tier::L2, Did::Evicted, *evicted, cx);
        }
        if matches!(
            answer,
            Answer::Stored(Err(_)) | Answer::Updated(Err(_)) | Answer::Fetched(Err(_))
        ) {
            cx.count("cache.shared_store_failed");
        }
        self.effects.pop_front()
    }
}

/// Where a variant is kept.
#[derive(Clone, Debug)]
pub struct Place {
    /// The key.
    pub key: Key,
    /// The same with the URI's generation.
    pub primary: Bytes,
    /// The object's name in the shared store, and in the first tier.
    pub object: Bytes,
    /// Which of the key's places it is.
    pub at: u8,
    /// The key's edition when this was learnt.
    pub edition: u16,
    /// Until when the key's marker matters, in seconds since the epoch.
    pub until: u32,
    /// The clock of its key.
    pub clock: u8,
    /// The shared store is not used.
    pub alone: bool,
}

impl Place {
    /// The marker's name in the shared store.
    pub fn marker(&self) -> Bytes {
        marker_name(&self.primary)
    }
}

/// The clock of a URI: there are 256, and a change under one makes workers read anew what they know of all keys
/// that share it.
pub fn clock_of(uri: &[u8]) -> u8 {
    let [.., low] = hash_of(uri).to_be_bytes();
    low
}

/// A hash that is the same in every worker (FNV-1a, folded).
pub fn hash_of(bytes: &[u8]) -> u64 {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash ^ hash >> 32
}

/// How long an invalidation of more than one key is remembered: longer than anything stored before it is kept.
pub const MARKED: Duration = LONGEST_KEPT;

/// The name of up to where other machines' invalidations are known.
pub fn news_name() -> Bytes {
    Bytes::from_static(b"cache/n/")
}

/// The name of what says which invalidations of more than one key there were.
pub fn wide_name() -> Bytes {
    Bytes::from_static(b"cache/i/")
}

/// The name of a group's mark.
pub fn group_name(group: u64) -> Bytes {
    [&b"cache/t/"[..], &group.to_be_bytes()].concat().into()
}

/// The name of the mark of one URI, for when it is made stale.
pub fn uri_mark_name(uri: &[u8]) -> Bytes {
    [&b"cache/u/"[..], uri].concat().into()
}

/// The name of a part of a ban.
pub fn ban_name(slot: u8, part: u8) -> Bytes {
    [&b"cache/b/"[..], &[slot, part]].concat().into()
}

/// The name of a clock.
pub fn clock_name(clock: u8) -> Bytes {
    // Evaluated at compile time: an index out of bounds would not build.
    #[allow(clippy::indexing_slicing)]
    const NAMES: [[u8; 9]; 256] = {
        let mut names = [*b"cache/c/?"; 256];
        let mut clock = 0;
        while clock < names.len() {
            names[clock][8] = clock as u8;
            clock += 1;
        }
        names
    };
    static CLOCKS: [[u8; 9]; 256] = NAMES;
    Bytes::from_static(CLOCKS.get(usize::from(clock)).map_or(&[], |name| &name[..]))
}

/// Changes a shared value. Values of a kind have a table of their own, so that none is ever taken for another's.
pub fn cell(
    key: Bytes,
    change: impl Fn(Option<&[u8]>) -> Option<Vec<u8>> + 'static,
    ttl: Duration,
) -> Effect {
    let table = match key.get(6) {
        Some(b'm') => "markers",
        Some(b'e') => "epochs",
        Some(b'c') => "clocks",
        Some(b't') => "groups",
        Some(b'u') => "uris",
        Some(b'b') => "bans",
        Some(b'i') => "overview",
        Some(b'n') => "news",
        _ => "turns",
    };
    Effect::Update {
        table,
        key,
        change: Change::new(change),
        ttl,
    }
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

/// Whole seconds since the epoch.
pub fn seconds_at(time: Timestamp) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

/// The key that an object's name is made of.
pub fn primary_of(object: &[u8]) -> Option<&[u8]> {
    object.strip_prefix(b"cache/o/")?.get(2..)
}

/// Time until a second since the epoch, at least one second.
pub fn remaining(until: u32, now: Timestamp) -> Duration {
    Timestamp::from_secs(u64::from(until))
        .since(now)
        .clamp(Duration::from_secs(1), LONGEST_KEPT)
}
