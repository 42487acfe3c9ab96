//! The response's side: into the store, while it streams to the client.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use edgeweir_filter::{Answer, Body, Cx, Effect, Level, Reply, ResponseHead, Step, Timestamp};

use crate::answer;
use crate::conditional;
use crate::exchange::{CacheExchange, State};
use crate::flights::{Ended, Lead};
use crate::freshness::Times;
use crate::lookup::{Found, Lookup, Sent};
use crate::marker::Register;
use crate::parts;
use crate::reason::{Missed, Refused};
use crate::status::Status;
use crate::storable::{Asked, Policy, Storable};
use crate::store::{self, Core, Place, Room};
use crate::stored::{self, Stored};

/// A response that waits for a place.
pub(crate) struct Filling {
    lookup: Box<Lookup>,
    storable: Storable,
    register: Rc<Register>,
    declared: Option<u64>,
    status: Status,
    selected: Option<Found>,
    lead: Option<Lead>,
}

/// A response that is captured on its way.
pub(crate) struct Capture {
    /// The encoded head, then the body as it came.
    buffer: Vec<u8>,
    head_length: usize,
    /// Bytes of the buffer at most.
    limit: usize,
    declared: Option<u64>,
    place: Place,
    until: u32,
    room: Room,
    /// A stored part that this one may go together with.
    other: Option<Rc<Stored>>,
    /// Given up when it is stored, or isn't.
    lead: Option<Lead>,
    /// What its key is remembered as, should it turn out too large.
    key: Vec<u8>,
}

impl CacheExchange {
    pub(crate) fn got_response(
        &mut self,
        sent: Sent,
        head: &mut ResponseHead,
        cx: &mut Cx<'_>,
    ) -> Step {
        let times = Times {
            requested: sent.requested,
            responded: cx.now,
        };
        let status = Status {
            forward: Some(sent.missed.forward()),
            forward_status: Some(head.status),
            detail: sent.missed.detail(),
            collapsed: sent.lookup.waited.map(|_| false),
            ..sent.lookup.status()
        };
        if let (true, Some(lead)) = (is_error(head), &sent.lead) {
            let reached = !head.unreached;
            lead.ends(Ended::Failed { reached });
            // Whoever may have it stale has it so, without asking each for itself.
            self.core.hold_off(&sent.lookup.flight(), cx.now);
        }
        if let Some((stored, place)) = &sent.selected {
            if sent.validates && head.status == 304 {
                let found = (Rc::clone(stored), place.clone());
                return self.validated(sent.lookup, found, sent.lead, times, head, status, cx);
            }
            if matches!(sent.missed, Missed::Stale | Missed::NoCache)
                && is_error(head)
                && let Some(reply) = self.in_place_of_error(&sent.lookup, stored, head, &status, cx)
            {
                return Step::Reply(reply);
            }
            // Somebody with Authorization may be shown something else.
            let comparable = !matches!(sent.missed, Missed::Authorization | Missed::Part);
            if sent.lookup.is_head && head.status == 200 && comparable {
                self.compare_with_head(&sent.lookup, stored, place, times, head, cx);
            }
        }
        let Sent {
            lookup,
            selected,
            lead,
            ..
        } = sent;
        let checked = match &selected {
            // RFC 9110 §15.3.7: a part of what is stored as a whole adds nothing to it.
            Some((stored, _)) if is_part_of(head, stored) => Err(Refused::Partial),
            _ => self.core.storable(&lookup, head, times),
        };
        match checked {
            Ok((storable, declared)) => {
                let filling = Filling {
                    register: Rc::new(self.core.ask_place(&lookup, &storable, cx.now)),
                    lookup,
                    storable,
                    declared,
                    status,
                    selected,
                    lead,
                };
                self.register(Box::new(filling), head, cx)
            }
            Err(refused) => {
                self.remember(refused, || lookup.remembered_as(), cx);
                self.refuse(refused, lead, status, head, cx)
            }
        }
    }

    /// Remembers a key of which the next response is likely to be refused as well.
    fn remember(&self, refused: Refused, key: impl FnOnce() -> Vec<u8>, cx: &Cx<'_>) {
        let seconds = self.core.settings.uncacheable;
        if refused.lasts() && seconds > 0 {
            let ttl = Duration::from_secs(u64::from(seconds));
            let mut known = self.core.uncacheable.borrow_mut();
            known.remember(&key(), cx.now, ttl);
        }
    }

    /// A stale response in place of an error, or the error that the protocol asks for.
    fn in_place_of_error(
        &self,
        lookup: &Lookup,
        stored: &Stored,
        head: &ResponseHead,
        status: &Status,
        cx: &mut Cx<'_>,
    ) -> Option<Reply> {
        let conditions = &stored.conditions;
        if !conditions.no_cache {
            let stale = self.stale_for_error(lookup, stored, !head.unreached, status, cx);
            if stale.is_some() {
                return stale;
            }
        }
        if !head.unreached || !(conditions.never_stale || conditions.no_cache) {
            return None;
        }
        // RFC 9111 §5.2.2.2: "a cache … that is disconnected … MUST generate an error response rather than reuse the
        // stale response. The generated response SHOULD be 504 (Gateway Timeout)". §5.2.2.4 forbids as much: "MUST NOT be
        // used to satisfy any other request without forwarding it for validation and receiving a successful response".
        cx.count("cache.stale_forbidden");
        let status = Status {
            detail: Some("stale_forbidden"),
            ..status.clone()
        };
        let mut reply = Reply::new(504, &[], "");
        status.append_to(&mut reply.head.fields, &self.core.settings.name);
        Some(reply)
    }

    /// A stale response in place of an error, where that is allowed; `reached` says that the origin itself sent the error.
    pub(crate) fn stale_for_error(
        &self,
        lookup: &Lookup,
        stored: &Stored,
        reached: bool,
        status: &Status,
        cx: &mut Cx<'_>,
    ) -> Option<Reply> {
        let settings = &self.core.settings;
        if !answer::serves_error(stored, &lookup.asked, reached, settings.unreached, cx.now) {
            return None;
        }
        cx.count("cache.stale");
        cx.count("cache.stale_if_error");
        let status = Status {
            detail: Some("stale_if_error"),
            ..status.clone()
        };
        let unique = self.core.fresh_generation(cx.now);
        let name = &settings.name;
        Some(answer::reply(stored, lookup, status, name, unique, cx.now))
    }

    fn refuse(
        &mut self,
        refused: Refused,
        lead: Option<Lead>,
        mut status: Status,
        head: &mut ResponseHead,
        cx: &mut Cx<'_>,
    ) -> Step {
        cx.count(refused.counter());
        self.core.give_up(lead, refused, cx);
        status.detail = Some(refused.name());
        status.append_to(&mut head.fields, &self.core.settings.name);
        self.state = State::Over;
        Step::Forward(Body::Pass)
    }

    /// Asks for a place, and with it whether the key was invalidated while the response was on its way.
    fn register(
        &mut self,
        filling: Box<Filling>,
        head: &mut ResponseHead,
        cx: &mut Cx<'_>,
    ) -> Step {
        let asked = Rc::clone(&filling.register);
        if filling.lookup.alone {
            let name = store::marker_name(&filling.lookup.primary);
            let before = self.core.update_alone(&name, |before| asked.change(before));
            return self.with_place(filling, before, head, cx);
        }
        let effect = placing(&filling.lookup, asked, cx.now);
        self.state = State::Registering(filling);
        Step::Do(effect)
    }

    pub(crate) fn registered(
        &mut self,
        filling: Box<Filling>,
        answer: Answer,
        head: &mut ResponseHead,
        cx: &mut Cx<'_>,
    ) -> Step {
        match answer {
            Answer::Updated(Ok(before)) => self.with_place(filling, before, head, cx),
            _ => {
                let Filling { status, lead, .. } = *filling;
                self.refuse(Refused::SharedStore, lead, status, head, cx)
            }
        }
    }

    fn with_place(
        &mut self,
        filling: Box<Filling>,
        before: Option<Bytes>,
        head: &mut ResponseHead,
        cx: &mut Cx<'_>,
    ) -> Step {
        let Filling {
            mut lookup,
            storable,
            register,
            declared,
            mut status,
            selected,
            lead,
        } = *filling;
        // The same pure function that was applied there says here what it decided.
        let (marker, at) = match register.apply(before.as_deref()) {
            Ok(decided) => decided,
            Err(refused) => return self.refuse(refused, lead, status, head, cx),
        };
        status.ttl = Some(storable.left());
        let place = lookup.place_at(&marker, at);
        let generation = marker.generation;
        lookup.marker = Some(marker);
        // From now on the variant is part of what is asked by.
        self.way = self.way.and_then(|_| self.core.way_of(&lookup));
        let limit = self.core.room_for(&place);
        let expected = declared
            .and_then(|length| usize::try_from(length).ok())
            .unwrap_or(0);
        let buffer = storable.into_stored(generation).encode_head();
        let fits = |buffer: &Vec<u8>| buffer.len().saturating_add(expected) <= limit;
        let Some(buffer) = buffer.filter(fits) else {
            self.remember(Refused::TooLarge, || lookup.remembered_as(), cx);
            return self.refuse(Refused::TooLarge, lead, status, head, cx);
        };
        let mut room = Room::of(&self.core);
        if !room.take(buffer.len()) {
            return self.refuse(Refused::Busy, lead, status, head, cx);
        }
        status.stored = true;
        status.append_to(&mut head.fields, &self.core.settings.name);
        let capture = Box::new(Capture {
            head_length: buffer.len(),
            buffer,
            limit,
            declared,
            place,
            until: register.until,
            room,
            other: selected
                .map(|(stored, _)| stored)
                .filter(|stored| stored.part.is_some()),
            lead,
            key: lookup.remembered_as(),
        });
        if head.end {
            self.captured(capture, &[], true, cx);
            return Step::Forward(Body::Pass);
        }
        self.state = State::Capturing(capture);
        Step::Forward(Body::Observe)
    }

    pub(crate) fn captured(
        &mut self,
        mut capture: Box<Capture>,
        chunk: &[u8],
        end: bool,
        cx: &mut Cx<'_>,
    ) {
        if capture.buffer.len().saturating_add(chunk.len()) > capture.limit {
            cx.count(Refused::TooLarge.counter());
            let key = std::mem::take(&mut capture.key);
            self.remember(Refused::TooLarge, || key, cx);
            cx.log(
                Level::Debug,
                "cache: a response grew over max_object_bytes and was not stored",
            );
            self.core.give_up(capture.lead, Refused::TooLarge, cx);
            return;
        }
        if !capture.room.take(chunk.len()) {
            cx.count(Refused::Busy.counter());
            self.core.give_up(capture.lead, Refused::Busy, cx);
            return;
        }
        capture.buffer.extend_from_slice(chunk);
        if !end {
            self.state = State::Capturing(capture);
            return;
        }
        let length = capture.buffer.len() - capture.head_length;
        // RFC 9111 §3.3: a message is incomplete when "its length is not the declared one"; such a response is not
        // stored, because parts are not combined here. A cut body never comes to its end at all.
        if capture
            .declared
            .is_some_and(|declared| u64::try_from(length) != Ok(declared))
        {
            cx.count(Refused::LengthMismatch.counter());
            self.core.give_up(capture.lead, Refused::LengthMismatch, cx);
            return;
        }
        let sealed = stored::seal(capture.buffer, length);
        let Some((encoded, stored)) =
            sealed.and_then(|bytes| Some((bytes.clone(), Stored::decode(&bytes)?)))
        else {
            debug_assert!(false, "what was just encoded can be decoded");
            return;
        };
        let whole = capture
            .other
            .as_ref()
            .and_then(|other| parts::combined(other, &stored, capture.limit));
        let combined = whole.and_then(|whole| Some((whole.encode()?, whole)));
        let (encoded, stored) = combined.unwrap_or((encoded, stored));
        self.core.keep(
            &capture.place,
            &Rc::new(stored),
            encoded,
            capture.until,
            capture.lead,
            cx,
        );
    }

    /// RFC 9111 §4.3.3, §4.3.4: a 304 to our own condition; the stored response is brought up to date and sent.
    #[allow(clippy::too_many_arguments)]
    fn validated(
        &mut self,
        lookup: Box<Lookup>,
        (old, place): Found,
        lead: Option<Lead>,
        times: Times,
        head: &ResponseHead,
        mut status: Status,
        cx: &mut Cx<'_>,
    ) -> Step {
        let (stored, kept) = self
            .core
            .freshen(&lookup, &old, &place, lead, times, head, cx);
        match kept {
            Ok(()) => status.stored = true,
            Err(Some(refused)) => status.detail = Some(refused.name()),
            Err(None) => {}
        }
        let unique = self.core.fresh_generation(cx.now);
        let name = &self.core.settings.name;
        let mut reply = answer::reply(&stored, &lookup, status, name, unique, cx.now);
        // A cookie in the 304 is for this client.
        if !reply.head.fields.has("set-cookie") {
            for cookie in head.fields.values("set-cookie") {
                reply.head.fields.append("set-cookie", cookie.to_vec());
            }
        }
        Step::Reply(reply)
    }

    /// RFC 9111 §4.3.5: a response to HEAD freshens the stored GET, or makes it unusable.
    fn compare_with_head(
        &mut self,
        lookup: &Lookup,
        old: &Rc<Stored>,
        place: &Place,
        times: Times,
        head: &ResponseHead,
        cx: &mut Cx<'_>,
    ) {
        let updated = match conditional::agrees_with(head, old) {
            Some(true) => self.core.freshened(lookup, old, times, head),
            Some(false) => Err(Refused::Invalidated),
            None => return,
        };
        match updated.map(|(stored, until)| Some((stored.encode()?, stored, until))) {
            Ok(Some((encoded, stored, until))) => {
                self.core
                    .keep(place, &Rc::new(stored), encoded, until, None, cx)
            }
            Err(refused) if !evicts(refused) => {}
            Ok(None) | Err(_) => self.core.forget(place, old, place.until, cx),
        }
    }
}

impl Core {
    fn policy(&self, lookup: &Lookup, status: u16, now: Timestamp) -> Policy<'_> {
        let settings = &self.settings;
        Policy {
            heuristic: settings.heuristic,
            longest_error: settings.heuristic_error,
            targets: &settings.targets,
            max_groups: settings.max_groups,
            unreached: settings.unreached,
            keep_stale: settings.keep_stale,
            set_cookie: settings.set_cookie,
            assumed: settings.rules.of(&lookup.target).ttl(status),
            jitter: settings.jitter,
            random: self.fresh_generation(now),
        }
    }

    /// Whether a response may be stored, and the length it declares.
    pub(crate) fn storable(
        &self,
        lookup: &Lookup,
        head: &ResponseHead,
        times: Times,
    ) -> Result<(Storable, Option<u64>), Refused> {
        if head.unreached {
            return Err(Refused::Unreached);
        }
        let policy = self.policy(lookup, head.status, times.responded);
        let storable = Storable::check(lookup.asked_of(), head, times, &policy)?;
        let mut declared = head.content_length();
        if declared.is_none() && head.fields.has("content-length") {
            return Err(Refused::BadLength);
        }
        if let (206, Some(range)) = (head.status, head.fields.get("content-range")) {
            declared = parts::content_range(range).map(|(first, last, _)| last - first + 1);
        }
        // Refused here already, no place is taken for it.
        let limit = u64::try_from(self.settings.max_object).unwrap_or(u64::MAX);
        if declared.is_some_and(|length| length > limit) {
            return Err(Refused::TooLarge);
        }
        Ok((storable, declared))
    }

    /// What to ask the key's marker for a response's place.
    pub(crate) fn ask_place(
        &self,
        lookup: &Lookup,
        storable: &Storable,
        now: Timestamp,
    ) -> Register {
        Register {
            seen: lookup.marker.as_ref().map(|marker| marker.generation),
            fresh: self.fresh_generation(now),
            names: storable.names.clone(),
            request: lookup.request.clone(),
            until: self.until(&lookup.key, storable, now),
            max_variants: self.settings.max_variants,
        }
    }

    /// Bytes of an encoded response at a place at most.
    pub(crate) fn room_for(&self, place: &Place) -> usize {
        self.settings
            .max_object
            .saturating_sub(place.object.len())
            .saturating_sub(store::FRAMING)
    }

    /// What a 304 to our own condition makes of a stored response, and whether that was kept.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn freshen(
        self: &Rc<Self>,
        lookup: &Lookup,
        old: &Rc<Stored>,
        place: &Place,
        lead: Option<Lead>,
        times: Times,
        head: &ResponseHead,
        cx: &mut Cx<'_>,
    ) -> (Rc<Stored>, Result<(), Option<Refused>>) {
        cx.count("cache.validated");
        if !conditional::is_about(&head.fields, old) {
            // The origin says "not modified" of another representation than the one asked about: this answer is the
            // best there is, but the next request asks without a condition.
            cx.count("cache.validation_mismatch");
            self.forget(place, old, place.until, cx);
            return (Rc::clone(old), Err(None));
        }
        match self.freshened(lookup, old, times, head) {
            Ok((stored, until)) => match stored.encode() {
                Some(encoded) => {
                    let stored = Rc::new(stored);
                    self.keep(place, &stored, encoded, until, lead, cx);
                    (stored, Ok(()))
                }
                None => (Rc::clone(old), Err(None)),
            },
            Err(refused) => {
                // It may be sent once more, having been validated, but not be kept.
                cx.count(refused.counter());
                if evicts(refused) {
                    self.forget(place, old, place.until, cx);
                }
                let sent = Stored {
                    fields: conditional::freshened(old, &head.fields),
                    ..Stored::clone(old)
                };
                (Rc::new(sent), Err(Some(refused)))
            }
        }
    }

    /// A stored response brought up to date by a 304 or an answer to HEAD, and until when it may be of use.
    pub(crate) fn freshened(
        &self,
        lookup: &Lookup,
        old: &Rc<Stored>,
        times: Times,
        head: &ResponseHead,
    ) -> Result<(Stored, u32), Refused> {
        let mut merged = ResponseHead {
            status: old.status,
            fields: conditional::freshened(old, &head.fields),
            ..ResponseHead::default()
        };
        if !self.settings.set_cookie {
            // It is for whoever asked now; the rest of what the 304 says is for all.
            merged.fields.remove("set-cookie");
        }
        if let Some(part) = old.part {
            merged
                .fields
                .set("content-range", part.content_range(old.body.len()));
        }
        let asked = Asked {
            is_head: false,
            ..lookup.asked_of()
        };
        let storable = Storable::check(
            asked,
            &merged,
            times,
            &self.policy(lookup, old.status, times.responded),
        )?;
        let until = self.until(&lookup.key, &storable, times.responded);
        let mut stored = storable.into_stored(old.generation);
        stored.body = old.body.clone();
        Ok((stored, until))
    }
}

impl Lookup {
    fn asked_of(&self) -> Asked<'_> {
        Asked {
            fields: &self.request,
            no_store: self.asked.no_store,
            no_transform: self.asked.no_transform,
            is_head: self.is_head,
            origin: self.origin(),
        }
    }
}

/// The update that gives a response its place.
pub(crate) fn placing(lookup: &Lookup, register: Rc<Register>, now: Timestamp) -> Effect {
    let known_until = lookup.marker.as_ref().map_or(0, |marker| marker.until);
    let until = register.until.max(known_until);
    let change = move |before: Option<&[u8]>| register.change(before);
    let name = store::marker_name(&lookup.primary);
    store::cell(name, change, store::remaining(until, now))
}

/// Whether what is stored goes because its update is refused: not where the request alone is the reason.
///
/// RFC 9111 §5.2.1.5: no-store in a request forbids to store "any part of either this request or any response to it"; what
/// was stored before is none of that.
fn evicts(refused: Refused) -> bool {
    !matches!(
        refused,
        Refused::RequestNoStore | Refused::RequestNoTransform
    )
}

/// RFC 5861 §4: an error is "any situation that would result in a 500, 502, 503, or 504 HTTP response status code".
pub(crate) fn is_error(head: &ResponseHead) -> bool {
    head.unreached || matches!(head.status, 500 | 502 | 503 | 504)
}

fn is_part_of(head: &ResponseHead, stored: &Stored) -> bool {
    head.status == 206
        && stored.part.is_none()
        && stored.strong_tag().is_some()
        && stored.strong_tag() == head.fields.get("etag")
}
