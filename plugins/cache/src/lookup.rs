//! The request's side: from the key to a stored response, or to the origin.

use std::cell::OnceCell;
use std::rc::Rc;

use bytes::Bytes;
use edgeweir_filter::{
    Answer, Body, Cx, Effect, Failed, Fields, Reply, RequestHead, Step, Timestamp,
};

use crate::aboard::{Aboard, Boarded};
use crate::answer::{self, Verdict};
use crate::conditional;
use crate::config::Settings;
use crate::directives::RequestDirectives;
use crate::exchange::{CacheExchange, State};
use crate::flights::Lead;
use crate::key::{self, Key, Target};
use crate::marker::{self, Marker};
use crate::memory::Known;
use crate::reason::Missed;
use crate::refresh::Refresh;
use crate::standing::Standing;
use crate::status::{Forward, Status};
use crate::store::{self, Place};
use crate::stored::Stored;
use crate::third::FromThird;
use crate::tiers::{Did, Tier};
use crate::vary;

/// What is known of a request that is looked up.
pub(crate) struct Lookup {
    pub key: Key,
    /// The key with the URI's generation, once that is known.
    pub primary: Bytes,
    pub asked: RequestDirectives,
    /// The request's fields as the client sent them.
    pub request: Fields,
    /// Where it is aimed at, normalised.
    pub target: Target,
    origin: OnceCell<Bytes>,
    pub is_head: bool,
    /// When the tiers were begun to be asked.
    pub began: Timestamp,
    /// The third tier was asked.
    pub asked_third: bool,
    /// It had what is judged now.
    pub third: Option<FromThird>,
    /// The shared store is off, or failed in this exchange.
    pub alone: bool,
    /// The key's clock as read, where the shared store is used.
    pub clock: Option<Bytes>,
    pub marker: Option<Marker>,
    /// It waited for another request to the origin, because.
    pub waited: Option<Missed>,
    /// The flight it waited for last.
    pub boarded: Option<Boarded>,
    pub shown_key: Option<String>,
}

/// What a URI's generation is asked with.
#[derive(Clone, Copy)]
pub(crate) struct Epoch {
    fresh: u64,
    now: u32,
    until: u32,
}

impl Epoch {
    pub(crate) fn new(fresh: u64, now: Timestamp) -> Self {
        Self {
            fresh,
            now: store::seconds_at(now),
            until: store::seconds_at(now.plus(store::EPOCH)),
        }
    }

    /// The update that reads a URI's generation, or makes it.
    pub(crate) fn ask(self, uri: &[u8]) -> Effect {
        let change = move |before: Option<&[u8]>| self.apply(before);
        store::cell(store::epoch_name(uri), change, store::EPOCH)
    }

    pub(crate) fn generation(self, before: Option<&[u8]>) -> u64 {
        marker::epoch(before, self.fresh, self.now, self.until)
            .0
            .generation
    }

    fn apply(self, before: Option<&[u8]>) -> Option<Vec<u8>> {
        let (marker, write) = marker::epoch(before, self.fresh, self.now, self.until);
        write.then(|| marker.encode()).flatten()
    }
}

/// A stored response that was found, and where.
pub(crate) type Found = (Rc<Stored>, Place);

/// A request on its way to the origin.
pub(crate) struct Sent {
    pub lookup: Box<Lookup>,
    pub requested: Timestamp,
    pub missed: Missed,
    /// What was selected but not reused.
    pub selected: Option<Found>,
    /// The request was made conditional: a 304 is ours.
    pub validates: bool,
    /// Others wait for what it brings.
    pub lead: Option<Lead>,
}

impl Lookup {
    pub fn new(
        key: Key,
        target: Target,
        head: &RequestHead,
        settings: &Settings,
        is_head: bool,
    ) -> Self {
        let mut asked = RequestDirectives::of(&head.fields);
        if !settings.request_directives {
            asked = RequestDirectives {
                no_store: asked.no_store,
                no_transform: asked.no_transform,
                ..RequestDirectives::default()
            };
        }
        let shown_key = settings
            .debug_key
            .then(|| key::readable(&target, settings.key_of(&target)));
        Self {
            primary: key.primary(0),
            key,
            asked,
            request: head.fields.clone(),
            target,
            origin: OnceCell::new(),
            is_head,
            began: Timestamp::default(),
            asked_third: false,
            third: None,
            alone: !settings.shared,
            clock: None,
            marker: None,
            waited: None,
            boarded: None,
            shown_key,
        }
    }

    /// The same for work in the background, without the client's wishes.
    pub fn quiet(&self) -> Self {
        Self {
            key: self.key.clone(),
            primary: self.primary.clone(),
            asked: RequestDirectives::default(),
            request: self.request.clone(),
            target: self.target.clone(),
            origin: self.origin.clone(),
            is_head: false,
            began: self.began,
            asked_third: self.asked_third,
            third: None,
            alone: self.alone,
            clock: self.clock.clone(),
            marker: self.marker.clone(),
            waited: None,
            boarded: None,
            shown_key: None,
        }
    }

    /// Nanoseconds since it was begun.
    pub fn took(&self, cx: &Cx<'_>) -> u64 {
        let took = cx.now.since(self.began).saturating_add(cx.lap());
        u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Scheme and authority, normalised.
    pub fn origin(&self) -> &Bytes {
        self.origin.get_or_init(|| self.target.origin().into())
    }

    /// A member of `Cache-Status` to start from.
    pub fn status(&self) -> Status {
        Status {
            key: self.shown_key.clone(),
            ..Status::default()
        }
    }

    /// Where the variant for this request is kept, when the key has one.
    pub fn place(&self) -> Option<Place> {
        let marker = self.marker.as_ref()?;
        let at = marker.place(&self.request)?;
        Some(self.place_at(marker, at))
    }

    /// Where a variant is kept.
    pub fn place_at(&self, marker: &Marker, at: u8) -> Place {
        Place {
            key: self.key.clone(),
            primary: self.primary.clone(),
            object: store::object_name(&self.primary, at),
            at,
            edition: marker.edition,
            until: marker.until,
            clock: store::clock_of(self.key.uri_part()),
            alone: self.alone,
        }
    }

    /// What it is known by among keys that can't be cached: as soon as anything is stored under its clock, it may be.
    pub fn remembered_as(&self) -> Vec<u8> {
        [&self.primary, self.clock.as_deref().unwrap_or_default()].concat()
    }

    /// What it shares requests to the origin by: the key, and the variant as far as that is known.
    pub fn flight(&self) -> Bytes {
        match &self.marker {
            Some(marker) if !marker.names.is_empty() => {
                let secondary = vary::secondary(&marker.names, &self.request);
                [&self.primary[..], &secondary].concat().into()
            }
            _ => self.primary.clone(),
        }
    }
}

impl CacheExchange {
    pub(crate) fn look_up(
        &mut self,
        mut lookup: Box<Lookup>,
        head: &mut RequestHead,
        cx: &mut Cx<'_>,
    ) -> Step {
        lookup.began = cx.now;
        if lookup.alone {
            return self.ask_epoch(lookup, head, cx);
        }
        let fresh = self.core.fresh_generation(cx.now).to_be_bytes();
        let clock = store::clock_of(lookup.key.uri_part());
        self.state = State::Clock(lookup, fresh);
        let change = move |before: Option<&[u8]>| before.is_none().then(|| fresh.to_vec());
        let name = store::clock_name(clock);
        Step::Do(store::cell(name, change, store::CLOCK))
    }

    pub(crate) fn got_clock(
        &mut self,
        mut lookup: Box<Lookup>,
        fresh: [u8; 8],
        answer: Answer,
        head: &mut RequestHead,
        cx: &mut Cx<'_>,
    ) -> Step {
        let clock = match updated(answer) {
            Ok(before) => before.unwrap_or_else(|| Bytes::copy_from_slice(&fresh)),
            Err(failed) => {
                go_alone(&mut lookup, failed, cx);
                return self.ask_epoch(lookup, head, cx);
            }
        };
        let key = lookup.key.primary(0);
        let mut memory = self.core.memory.borrow_mut();
        memory.no_longer_alone();
        let known = memory.known(&key, &clock, cx.now);
        drop(memory);
        lookup.clock = Some(clock);
        match known {
            Some(known) => {
                lookup.primary = known.primary;
                self.with_marker(lookup, known.marker, head, cx)
            }
            None => self.ask_epoch(lookup, head, cx),
        }
    }

    fn ask_epoch(&mut self, lookup: Box<Lookup>, head: &mut RequestHead, cx: &mut Cx<'_>) -> Step {
        if !lookup.key.has_extra() {
            return self.ask_marker(lookup, head, cx);
        }
        let epoch = Epoch::new(self.core.fresh_generation(cx.now), cx.now);
        if lookup.alone {
            return self.with_own_epoch(lookup, epoch, head, cx);
        }
        let effect = epoch.ask(lookup.key.uri_part());
        self.state = State::Epoch(lookup, epoch);
        Step::Do(effect)
    }

    pub(crate) fn got_epoch(
        &mut self,
        mut lookup: Box<Lookup>,
        epoch: Epoch,
        answer: Answer,
        head: &mut RequestHead,
        cx: &mut Cx<'_>,
    ) -> Step {
        match updated(answer) {
            Ok(before) => {
                lookup.primary = lookup.key.primary(epoch.generation(before.as_deref()));
                self.ask_marker(lookup, head, cx)
            }
            Err(failed) => {
                go_alone(&mut lookup, failed, cx);
                self.with_own_epoch(lookup, epoch, head, cx)
            }
        }
    }

    fn with_own_epoch(
        &mut self,
        mut lookup: Box<Lookup>,
        epoch: Epoch,
        head: &mut RequestHead,
        cx: &mut Cx<'_>,
    ) -> Step {
        let name = store::epoch_name(lookup.key.uri_part());
        let before = self.core.update_alone(&name, |before| epoch.apply(before));
        lookup.primary = lookup.key.primary(epoch.generation(before.as_deref()));
        self.ask_marker(lookup, head, cx)
    }

    fn ask_marker(&mut self, lookup: Box<Lookup>, head: &mut RequestHead, cx: &mut Cx<'_>) -> Step {
        let name = store::marker_name(&lookup.primary);
        if lookup.alone {
            let value = self.core.memory.borrow_mut().marker(&name);
            let marker = value.as_deref().and_then(Marker::decode);
            return self.with_marker(lookup, marker, head, cx);
        }
        self.state = State::Marker(lookup);
        Step::Do(read(name))
    }

    pub(crate) fn got_marker(
        &mut self,
        mut lookup: Box<Lookup>,
        answer: Answer,
        head: &mut RequestHead,
        cx: &mut Cx<'_>,
    ) -> Step {
        let value = match updated(answer) {
            Ok(value) => value,
            Err(failed) => {
                go_alone(&mut lookup, failed, cx);
                let name = store::marker_name(&lookup.primary);
                self.core.memory.borrow_mut().marker(&name)
            }
        };
        let marker = value.as_deref().and_then(Marker::decode);
        if let Some(clock) = lookup.clock.clone() {
            let known = Known {
                clock,
                primary: lookup.primary.clone(),
                marker: marker.clone(),
                since: cx.now,
            };
            let key = lookup.key.primary(0);
            self.core.memory.borrow_mut().learn(key, known);
        }
        self.with_marker(lookup, marker, head, cx)
    }

    fn with_marker(
        &mut self,
        mut lookup: Box<Lookup>,
        marker: Option<Marker>,
        head: &mut RequestHead,
        cx: &mut Cx<'_>,
    ) -> Step {
        lookup.marker = marker;
        let Some((place, marker)) = lookup.place().zip(lookup.marker.as_ref()) else {
            self.core.tiers.count(Tier::L1, Did::Miss, cx);
            if !lookup.alone {
                // The shared store would know its place.
                self.core.tiers.count(Tier::L2, Did::Miss, cx);
            }
            let marker = lookup.marker.as_ref();
            let missed = match marker.is_some_and(Marker::has_variants) {
                true => Missed::Variant,
                false => Missed::Absent,
            };
            if marker.is_some_and(Marker::has_vacancy) {
                // What was let go may be on its way out of the third tier still.
                return self.forward(lookup, missed, None, head, cx);
            }
            // Nothing is stored here: another machine, or this one before, may have stored it.
            return self.ask_third(lookup, missed, head, cx);
        };
        let (generation, edition) = (marker.generation, marker.edition);
        let found = self
            .core
            .memory
            .borrow_mut()
            .get(&place.object, generation, edition, cx.now);
        if let Some(stored) = found {
            self.hit(&lookup, Tier::L1, &stored, cx);
            return self.found(lookup, stored, place, head, cx);
        }
        self.core.tiers.count(Tier::L1, Did::Miss, cx);
        if lookup.alone {
            // Nobody else to ask: the residence time does not matter.
            return self.recall(lookup, place, generation, head, cx);
        }
        let key = place.object.clone();
        self.state = State::Object(lookup, place);
        Step::Do(Effect::Load { key })
    }

    /// What this instance holds of the same generation is as good as it was.
    fn recall(
        &mut self,
        lookup: Box<Lookup>,
        place: Place,
        generation: u64,
        head: &mut RequestHead,
        cx: &mut Cx<'_>,
    ) -> Step {
        let found =
            self.core
                .memory
                .borrow_mut()
                .recall(&place.object, generation, place.edition, cx.now);
        match found {
            Some(stored) => {
                self.hit(&lookup, Tier::L1, &stored, cx);
                self.found(lookup, stored, place, head, cx)
            }
            None => self.ask_third(lookup, Missed::Empty, head, cx),
        }
    }

    /// A tier had what was asked for.
    pub(crate) fn hit(&self, lookup: &Lookup, tier: Tier, stored: &Stored, cx: &mut Cx<'_>) {
        let tiers = &self.core.tiers;
        tiers.count(tier, Did::Hit, cx);
        tiers.add(tier, Did::Lookup, lookup.took(cx), cx);
        if stored.left(cx.now) <= 0 {
            tiers.count(tier, Did::Stale, cx);
        }
    }

    pub(crate) fn got_object(
        &mut self,
        lookup: Box<Lookup>,
        place: Place,
        answer: Answer,
        head: &mut RequestHead,
        cx: &mut Cx<'_>,
    ) -> Step {
        let Some(generation) = lookup.marker.as_ref().map(|marker| marker.generation) else {
            return self.forward(lookup, Missed::Absent, None, head, cx);
        };
        let loaded = match answer {
            Answer::Loaded(Ok(loaded)) => loaded,
            _ => {
                cx.count("cache.shared_store_failed");
                None
            }
        };
        let tiers = &self.core.tiers;
        let Some(bytes) = loaded else {
            // The shared store let it go, or never took it.
            tiers.count(Tier::L2, Did::Miss, cx);
            return self.recall(lookup, place, generation, head, cx);
        };
        let stored = Stored::decode(&bytes).map(Rc::new).ok_or(Missed::Corrupt);
        let current = |stored: &Rc<Stored>| stored.generation == generation;
        let stored = match stored {
            Ok(stored) if current(&stored) => stored,
            other => {
                tiers.count(Tier::L2, Did::Miss, cx);
                let missed = other.err().unwrap_or(Missed::Empty);
                return self.ask_third(lookup, missed, head, cx);
            }
        };
        self.hit(&lookup, Tier::L2, &stored, cx);
        self.promote(&place, &stored, bytes.len(), cx);
        self.found(lookup, stored, place, head, cx)
    }

    fn promote(&self, place: &Place, stored: &Rc<Stored>, size: usize, cx: &mut Cx<'_>) {
        let mut memory = self.core.memory.borrow_mut();
        if !memory.promotes(&place.object, self.core.settings.promote) {
            return;
        }
        let (object, stored) = (place.object.clone(), Rc::clone(stored));
        let put = memory.put(object, stored, place.edition, size, cx.now);
        self.core.put_here(put, size, cx);
    }

    pub(crate) fn found(
        &mut self,
        lookup: Box<Lookup>,
        stored: Rc<Stored>,
        place: Place,
        head: &mut RequestHead,
        cx: &mut Cx<'_>,
    ) -> Step {
        // The place was found by a fingerprint; the response itself says for which requests it is.
        if !stored.matches(&lookup.request) {
            return self.ask_third(lookup, Missed::Variant, head, cx);
        }
        self.check(lookup, (stored, place), head, cx)
    }

    /// With the standing of what was found: answers with it, or not.
    pub(crate) fn standing(
        &mut self,
        mut lookup: Box<Lookup>,
        (stored, place): Found,
        standing: Standing,
        head: &mut RequestHead,
        cx: &mut Cx<'_>,
    ) -> Step {
        let saving = self.core.settings.saving(head.emergency);
        let (asked, request) = (&lookup.asked, (&lookup.request, lookup.is_head));
        match answer::judge(&stored, asked, request, standing, saving, cx.now) {
            Verdict::Reuse => {
                self.adopt(&mut lookup, &stored, false, cx);
                self.refresh_ahead(&lookup, &stored, &place, head, cx);
                self.reuse(&lookup, &stored, "cache.hit", cx)
            }
            Verdict::ReuseStale => {
                self.adopt(&mut lookup, &stored, false, cx);
                let core = &self.core;
                if lookup.waited.is_none()
                    && !core.is_held_off(&lookup, cx)
                    && let Some(lead) = core.flights.lead(&lookup.flight())
                {
                    let refreshes = core.refreshes(&lookup, &stored, cx);
                    // RFC 9111 §5.2.1.7: "the client only wishes to obtain a stored response": another one validates it.
                    if !refreshes && !lookup.asked.only_if_cached {
                        // Nobody else can: this request is the one that validates.
                        let found = Some((stored, place));
                        return self.send(lookup, Missed::Stale, found, Some(lead), head, cx);
                    }
                    if refreshes {
                        cx.count("cache.refresh");
                        let found = (Rc::clone(&stored), place);
                        cx.spawn(Refresh::of(core, &lookup, Some(found), lead, head));
                    }
                }
                self.reuse(&lookup, &stored, "cache.stale", cx)
            }
            Verdict::Ask(missed) => {
                if missed == Missed::Invalidated {
                    // Another machine may have asked for it anew. One who leads goes on to the origin.
                    return match lookup.third.take().and_then(|third| third.lead) {
                        Some(lead) => self.send(lookup, missed, None, Some(lead), head, cx),
                        None => self.ask_third(lookup, missed, head, cx),
                    };
                }
                let lead = self.adopt(&mut lookup, &stored, true, cx);
                if missed == Missed::Stale
                    && let Some(step) = self.in_place_of_shared_error(&lookup, &stored, cx)
                {
                    return step;
                }
                let found = Some((stored, place));
                match lead {
                    Some(lead) => self.send(lookup, missed, found, Some(lead), head, cx),
                    None => self.forward(lookup, missed, found, head, cx),
                }
            }
        }
    }

    fn reuse(
        &mut self,
        lookup: &Lookup,
        stored: &Stored,
        counter: &'static str,
        cx: &mut Cx<'_>,
    ) -> Step {
        cx.count(counter);
        let mut status = lookup.status();
        match lookup.waited {
            None => status.hit = true,
            Some(missed) => {
                cx.count("cache.collapsed");
                status.forward = Some(missed.forward());
                status.collapsed = Some(true);
            }
        }
        let name = &self.core.settings.name;
        let unique = self.core.fresh_generation(cx.now);
        Step::Reply(answer::reply(stored, lookup, status, name, unique, cx.now))
    }

    /// Refreshes what is hot and near the end of its freshness, once.
    fn refresh_ahead(
        &self,
        lookup: &Lookup,
        stored: &Rc<Stored>,
        place: &Place,
        head: &RequestHead,
        cx: &mut Cx<'_>,
    ) {
        let core = &self.core;
        let settings = &core.settings;
        if settings.refresh_ahead == 0 {
            return;
        }
        let hits = core.memory.borrow_mut().hit(&place.object);
        let left = stored.left(cx.now).saturating_mul(100);
        let near = left <= i64::from(stored.lifetime) * i64::from(settings.refresh_ahead);
        // Asked before whether it would reach the origin, which costs the way one of its few in a row.
        if hits < settings.refresh_hits || !near || !core.refreshes_ahead.borrow().has(cx.now) {
            return;
        }
        if !core.is_held_off(lookup, cx)
            && let Some(lead) = core.flights.lead(&lookup.flight())
            && core.refreshes(lookup, stored, cx)
        {
            core.refreshes_ahead.borrow_mut().take(cx.now);
            cx.count("cache.refresh_ahead");
            let found = (Rc::clone(stored), place.clone());
            cx.spawn(Refresh::of(core, lookup, Some(found), lead, head));
        }
    }

    pub(crate) fn is_known_uncacheable(&self, lookup: &Lookup, cx: &Cx<'_>) -> bool {
        let known = self.core.uncacheable.borrow();
        self.core.settings.uncacheable > 0 && known.knows(&lookup.remembered_as(), cx.now)
    }

    /// To the origin, or to wait for another request that went there.
    pub(crate) fn forward(
        &mut self,
        lookup: Box<Lookup>,
        missed: Missed,
        selected: Option<Found>,
        head: &mut RequestHead,
        cx: &mut Cx<'_>,
    ) -> Step {
        if lookup.asked.only_if_cached {
            cx.count("cache.miss");
            return self.only_if_cached(&lookup, cx);
        }
        match self.board(&lookup, missed, cx) {
            Aboard::Go(lead) => self.send(lookup, missed, selected, lead, head, cx),
            Aboard::Wait(awaited) => self.wait(lookup, missed, awaited, cx),
        }
    }

    /// Whether what comes may be for other requests too.
    pub(crate) fn may_serve_others(&self, lookup: &Lookup, missed: Missed, cx: &Cx<'_>) -> bool {
        missed.collapses()
            && !lookup.is_head
            && !lookup.asked.no_store
            && !lookup.asked.no_transform
            && !lookup.request.has("range")
            && !self.is_known_uncacheable(lookup, cx)
    }

    /// Whether what comes is likely to be stored, and is wanted whole for that: a 304 to this client's own condition fills nothing.
    fn may_fill(&self, lookup: &Lookup, missed: Missed, cx: &Cx<'_>) -> bool {
        self.core.settings.ask_for_all
            && !lookup.request.has("authorization")
            && self.may_serve_others(lookup, missed, cx)
    }

    pub(crate) fn only_if_cached(&mut self, lookup: &Lookup, cx: &mut Cx<'_>) -> Step {
        // RFC 9111 §5.2.1.7: "respond with either a stored response … or a 504 (Gateway Timeout) status code".
        cx.count("cache.only_if_cached");
        let mut reply = Reply::new(504, &[], "");
        let status = Status {
            detail: Some("only_if_cached"),
            ..lookup.status()
        };
        status.append_to(&mut reply.head.fields, &self.core.settings.name);
        Step::Reply(reply)
    }

    pub(crate) fn send(
        &mut self,
        lookup: Box<Lookup>,
        missed: Missed,
        selected: Option<Found>,
        lead: Option<Lead>,
        head: &mut RequestHead,
        cx: &mut Cx<'_>,
    ) -> Step {
        cx.count("cache.miss");
        cx.count(missed.counter());
        cx.add("cache.miss.lookup_ns", lookup.took(cx));
        // What is for somebody with an Authorization is not validated by somebody else's answer, and a part not in place
        // of another part.
        let validates = !matches!(missed, Missed::Authorization | Missed::Part)
            && selected
                .as_ref()
                .is_some_and(|(stored, _)| stored.has_validator());
        if let (true, Some((stored, _))) = (validates, &selected) {
            conditional::ask_whether_changed(&mut head.fields, stored);
        } else if self.may_fill(&lookup, missed, cx) && conditional::ask_for_all(&mut head.fields) {
            cx.count("cache.asked_for_all");
        }
        // What is stored is the answer to a request without content.
        head.bodiless = true;
        self.way = self.core.way_of(&lookup);
        self.state = State::Sent(Box::new(Sent {
            lookup,
            requested: cx.now,
            missed,
            selected,
            validates,
            lead,
        }));
        Step::Forward(Body::Pass)
    }
}

impl Missed {
    /// The reason in the words of RFC 9211 §2.2.
    pub(crate) fn forward(self) -> Forward {
        match self {
            Self::Absent => Forward::UriMiss,
            Self::Variant => Forward::VaryMiss,
            Self::Stale | Self::NoCache => Forward::Stale,
            Self::RequestNoCache | Self::RequestMaxAge | Self::RequestMinFresh => Forward::Request,
            Self::Authorization => Forward::Bypass,
            Self::Part => Forward::Partial,
            Self::Empty | Self::Corrupt | Self::Invalidated => Forward::Miss,
        }
    }

    /// The name, where `fwd` alone does not say it.
    pub(crate) fn detail(self) -> Option<&'static str> {
        match self {
            Self::Absent | Self::Variant | Self::Empty | Self::Stale | Self::Part => None,
            other => Some(other.name()),
        }
    }

    /// Whether another request's response may serve this one too.
    pub(crate) fn collapses(self) -> bool {
        match self {
            Self::Absent
            | Self::Variant
            | Self::Empty
            | Self::Stale
            | Self::Corrupt
            | Self::Invalidated => true,
            Self::NoCache
            | Self::RequestNoCache
            | Self::RequestMaxAge
            | Self::RequestMinFresh
            | Self::Authorization
            | Self::Part => false,
        }
    }
}

/// Reads a small shared value: an update that leaves it as it is.
pub(crate) fn read(key: Bytes) -> Effect {
    store::cell(key, |_| None, store::REMEMBERED)
}

pub(crate) fn updated(answer: Answer) -> Result<Option<Bytes>, Failed> {
    match answer {
        Answer::Updated(result) => result,
        _ => Err(Failed::Unavailable),
    }
}

pub(crate) fn go_alone(lookup: &mut Lookup, failed: Failed, cx: &mut Cx<'_>) {
    lookup.alone = true;
    lookup.clock = None;
    cx.count("cache.shared_store_failed");
    cx.log(
        edgeweir_filter::Level::Debug,
        format!(
            "cache: the shared store is {}; this instance works alone",
            failed.name()
        ),
    );
}
