//! The response's side: into the store, while it streams to the client.

use std::rc::Rc;

use bytes::Bytes;
use edgeweir_filter::{Answer, Body, Change, Cx, Effect, Level, ResponseHead, Step, Timestamp};

use crate::answer;
use crate::conditional;
use crate::exchange::{CacheExchange, State};
use crate::freshness::Times;
use crate::lookup::{Lookup, Sent};
use crate::marker::{Marker, Register};
use crate::reason::{Missed, Refused};
use crate::status::Status;
use crate::storable::{Asked, Policy, Storable};
use crate::store::{self, Place, Room};
use crate::stored::{self, Stored};

/// A response that waits for a place.
pub(crate) struct Filling {
    lookup: Box<Lookup>,
    storable: Storable,
    register: Rc<Register>,
    declared: Option<u64>,
    status: Status,
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
            ..sent.lookup.status()
        };
        if let Some((stored, place)) = &sent.selected {
            if sent.validates && head.status == 304 {
                return self.validated(&sent.lookup, stored, place, times, head, status, cx);
            }
            // Somebody with Authorization may be shown something else.
            let comparable = sent.missed != Missed::Authorization;
            if sent.lookup.is_head && head.status == 200 && comparable {
                self.compare_with_head(&sent.lookup, stored, place, times, head, cx);
            }
        }
        let Sent { lookup, .. } = sent;
        match self.check(&lookup, head, times) {
            Ok((storable, declared)) => self.register(lookup, storable, declared, status, head, cx),
            Err(refused) => self.refuse(refused, status, head, cx),
        }
    }

    fn policy(&self, lookup: &Lookup, status: u16, now: Timestamp) -> Policy {
        let settings = &self.core.settings;
        Policy {
            heuristic: settings.heuristic,
            set_cookie: settings.set_cookie,
            assumed: settings.rules.of(&lookup.path).ttl(status),
            jitter: settings.jitter,
            random: self.core.fresh_generation(now),
        }
    }

    fn check(
        &self,
        lookup: &Lookup,
        head: &ResponseHead,
        times: Times,
    ) -> Result<(Storable, Option<u64>), Refused> {
        let storable = Storable::check(
            lookup.asked_of(),
            head,
            times,
            &self.policy(lookup, head.status, times.responded),
        )?;
        let declared = head.content_length();
        if declared.is_none() && head.fields.has("content-length") {
            return Err(Refused::BadLength);
        }
        // Refused here already, no place is taken for it.
        let limit = u64::try_from(self.core.settings.max_object).unwrap_or(u64::MAX);
        if declared.is_some_and(|length| length > limit) {
            return Err(Refused::TooLarge);
        }
        Ok((storable, declared))
    }

    fn refuse(
        &mut self,
        refused: Refused,
        mut status: Status,
        head: &mut ResponseHead,
        cx: &mut Cx<'_>,
    ) -> Step {
        cx.count(refused.counter());
        status.detail = Some(refused.name());
        status.append_to(&mut head.fields, &self.core.settings.name);
        self.state = State::Over;
        Step::Forward(Body::Pass)
    }

    /// Asks for a place, and with it whether the key was invalidated while the response was on its way.
    fn register(
        &mut self,
        lookup: Box<Lookup>,
        storable: Storable,
        declared: Option<u64>,
        status: Status,
        head: &mut ResponseHead,
        cx: &mut Cx<'_>,
    ) -> Step {
        let until = self.core.until(&storable, cx.now);
        let known_until = lookup.marker.as_ref().map_or(0, |marker| marker.until);
        let register = Rc::new(Register {
            seen: lookup.marker.as_ref().map(|marker| marker.generation),
            fresh: self.core.fresh_generation(cx.now),
            names: storable.names.clone(),
            request: lookup.request.clone(),
            until,
            max_variants: self.core.settings.max_variants,
        });
        let name = store::marker_name(&lookup.primary);
        let filling = Box::new(Filling {
            lookup,
            storable,
            register,
            declared,
            status,
        });
        let asked = Rc::clone(&filling.register);
        let change = move |before: Option<&[u8]>| {
            asked
                .apply(before)
                .ok()
                .and_then(|(marker, _)| marker.encode())
        };
        if filling.lookup.alone {
            let before = self.core.update_alone(&name, change);
            return self.with_place(filling, before, head, cx);
        }
        self.state = State::Registering(filling);
        Step::Do(Effect::Update {
            key: name,
            change: Change::new(change),
            ttl: store::remaining(until.max(known_until), cx.now),
        })
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
            _ => self.refuse(Refused::SharedStore, filling.status, head, cx),
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
            lookup,
            storable,
            register,
            declared,
            mut status,
        } = *filling;
        // The same pure function that was applied there says here what it decided.
        let (marker, at) = match register.apply(before.as_deref()) {
            Ok(decided) => decided,
            Err(refused) => return self.refuse(refused, status, head, cx),
        };
        status.ttl = Some(storable.left());
        let place = place_of(&lookup, &marker, at);
        let Some(buffer) = storable.into_stored(marker.generation).encode_head() else {
            return self.refuse(Refused::TooLarge, status, head, cx);
        };
        let limit = self
            .core
            .settings
            .max_object
            .saturating_sub(place.object.len())
            .saturating_sub(store::FRAMING);
        let expected = declared
            .and_then(|length| usize::try_from(length).ok())
            .unwrap_or(0);
        if buffer.len().saturating_add(expected) > limit {
            return self.refuse(Refused::TooLarge, status, head, cx);
        }
        let mut room = Room::of(&self.core);
        if !room.take(buffer.len()) {
            return self.refuse(Refused::Busy, status, head, cx);
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
            cx.log(
                Level::Debug,
                "cache: a response grew over max_object_bytes and was not stored",
            );
            return;
        }
        if !capture.room.take(chunk.len()) {
            cx.count(Refused::Busy.counter());
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
            return;
        }
        let sealed = stored::seal(capture.buffer, length);
        let Some((encoded, stored)) =
            sealed.and_then(|bytes| Some((bytes.clone(), Stored::decode(&bytes)?)))
        else {
            debug_assert!(false, "what was just encoded can be decoded");
            return;
        };
        self.core
            .keep(&capture.place, &Rc::new(stored), encoded, capture.until, cx);
    }

    /// RFC 9111 §4.3.3, §4.3.4: a 304 to our own condition; the stored response is brought up to date and sent.
    #[allow(clippy::too_many_arguments)]
    fn validated(
        &mut self,
        lookup: &Lookup,
        old: &Rc<Stored>,
        place: &Place,
        times: Times,
        head: &ResponseHead,
        mut status: Status,
        cx: &mut Cx<'_>,
    ) -> Step {
        cx.count("cache.validated");
        let unique = self.core.fresh_generation(cx.now);
        let name = &self.core.settings.name;
        if !conditional::is_about(&head.fields, old) {
            // The origin says "not modified" of another representation than the one asked about: this answer is the
            // best there is, but the next request asks without a condition.
            cx.count("cache.validation_mismatch");
            self.core.forget(place, old.generation, place.until, cx);
            return Step::Reply(answer::reply(old, lookup, status, name, unique, cx.now));
        }
        let updated = self.freshened(lookup, old, times, head);
        let stored = match updated {
            Ok((stored, until)) => match stored.encode() {
                Some(encoded) => {
                    let stored = Rc::new(stored);
                    status.stored = true;
                    self.core.keep(place, &stored, encoded, until, cx);
                    stored
                }
                None => Rc::clone(old),
            },
            Err(refused) => {
                // It may be sent once more, having been validated, but not be kept.
                cx.count(refused.counter());
                status.detail = Some(refused.name());
                self.core.forget(place, old.generation, place.until, cx);
                Rc::new(Stored {
                    fields: conditional::freshened(old, &head.fields),
                    ..Stored::clone(old)
                })
            }
        };
        Step::Reply(answer::reply(&stored, lookup, status, name, unique, cx.now))
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
        let updated = conditional::agrees_with(head, old)
            .then(|| self.freshened(lookup, old, times, head).ok())
            .flatten();
        match updated.and_then(|(stored, until)| Some((stored.encode()?, stored, until))) {
            Some((encoded, stored, until)) => {
                self.core.keep(place, &Rc::new(stored), encoded, until, cx)
            }
            None => self.core.forget(place, old.generation, place.until, cx),
        }
    }

    fn freshened(
        &self,
        lookup: &Lookup,
        old: &Rc<Stored>,
        times: Times,
        head: &ResponseHead,
    ) -> Result<(Stored, u32), Refused> {
        let merged = ResponseHead {
            status: old.status,
            fields: conditional::freshened(old, &head.fields),
            end: false,
            ..ResponseHead::default()
        };
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
        let until = self.core.until(&storable, times.responded);
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
            is_head: self.is_head,
        }
    }
}

fn place_of(lookup: &Lookup, marker: &Marker, at: u8) -> Place {
    Place {
        marker: store::marker_name(&lookup.primary),
        object: store::object_name(&lookup.primary, at),
        edition: marker.edition,
        until: marker.until,
        alone: lookup.alone,
    }
}
