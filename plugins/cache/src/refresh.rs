//! Requests of the cache's own that no client waits for: a refresh of what is stale or soon will be, a fetch of what is
//! likely to be asked for.

use std::rc::Rc;

use bytes::Bytes;
use edgeweir_filter::{
    Answer, Cx, Effect, FETCHED, Failed, Fetch, Fetched, Fields, RequestHead, Task, Timestamp, To,
};

use crate::answer;
use crate::conditional;
use crate::fill;
use crate::flights::{Ended, Lead};
use crate::freshness::{Times, format_date};
use crate::key::{Key, Target};
use crate::lookup::{Epoch, Found, Lookup, read, updated};
use crate::marker::{Marker, Register};
use crate::reason::{Bypass, Refused};
use crate::storable::Storable;
use crate::store::{self, Core, Place};
use crate::stored::Stored;
use crate::work::Url;

/// Fields of a client's request that are not for a request of the cache's own: conditions and ranges, directives, and
/// what belongs to the connection or the content (RFC 9110 §7.6.1).
const NOT_SENT: [&str; 18] = [
    "cache-control",
    "connection",
    "content-length",
    "expect",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "pragma",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// One request of the cache's own.
pub(crate) struct Refresh {
    core: Rc<Core>,
    lookup: Lookup,
    head: RequestHead,
    /// Among whose requests it was foreseen, when it was.
    foreseen: Option<Bytes>,
    /// What is stored now.
    old: Option<Found>,
    requested: Timestamp,
    stage: Stage,
    /// Those who miss meanwhile wait for it.
    lead: Option<Lead>,
    /// It ended well: what it is about is stored.
    pub(crate) is_stored: bool,
}

enum Stage {
    Epoch(Epoch),
    Marker,
    Object(Place),
    Fetching,
    Registering(Box<Registering>),
}

struct Registering {
    storable: Storable,
    register: Rc<Register>,
    body: Bytes,
}

impl Refresh {
    /// For what a client asked for, on its behalf.
    pub fn of(
        core: &Rc<Core>,
        lookup: &Lookup,
        old: Option<Found>,
        lead: Lead,
        head: &RequestHead,
    ) -> Self {
        let mut head = RequestHead {
            method: Bytes::from_static(b"GET"),
            peer: None,
            end: true,
            ..head.clone()
        };
        for name in NOT_SENT {
            head.fields.remove(name);
        }
        Self {
            core: Rc::clone(core),
            lookup: lookup.quiet(),
            head,
            foreseen: None,
            old,
            requested: Timestamp(0),
            stage: Stage::Fetching,
            lead: Some(lead),
            is_stored: false,
        }
    }

    /// For what nobody asked for yet; `like` lends its fields.
    pub fn ahead(core: &Rc<Core>, url: &Url, like: Fields) -> Result<Self, Bypass> {
        let mut head = RequestHead {
            method: Bytes::from_static(b"GET"),
            scheme: Bytes::copy_from_slice(url.scheme.as_bytes()),
            authority: Bytes::copy_from_slice(url.authority.as_bytes()),
            path: Bytes::copy_from_slice(url.path.as_bytes()),
            fields: like,
            end: true,
            ..RequestHead::default()
        };
        for name in NOT_SENT {
            head.fields.remove(name);
        }
        let target = Target::of(&head);
        let key = Key::with_target(&target, &head, core.settings.key_of(&target))?;
        let lookup = Lookup::new(key, target, &head, &core.settings, false);
        Ok(Self {
            core: Rc::clone(core),
            lookup,
            head,
            foreseen: None,
            old: None,
            requested: Timestamp(0),
            stage: Stage::Marker,
            lead: None,
            is_stored: false,
        })
    }

    /// The marker says whether it is there already.
    fn ask_marker(&mut self, cx: &mut Cx<'_>) -> Option<Effect> {
        self.stage = Stage::Marker;
        let name = store::marker_name(&self.lookup.primary);
        if self.lookup.alone {
            let value = self.core.memory.borrow_mut().marker(&name);
            return self.with_marker(value, cx);
        }
        Some(read(name))
    }

    fn with_marker(&mut self, value: Option<Bytes>, cx: &mut Cx<'_>) -> Option<Effect> {
        self.lookup.marker = value.as_deref().and_then(Marker::decode);
        let Some(place) = self.lookup.place() else {
            return self.fetch_alone(cx);
        };
        if self.lookup.alone {
            let kept = self.core.memory.borrow().peek(&place.object);
            return self.with_stored(kept, place, cx);
        }
        let key = place.object.clone();
        self.stage = Stage::Object(place);
        Some(Effect::Load { key })
    }

    /// What is there and fresh need not be fetched.
    fn with_stored(
        &mut self,
        stored: Option<Rc<Stored>>,
        place: Place,
        cx: &mut Cx<'_>,
    ) -> Option<Effect> {
        let generation = self.lookup.marker.as_ref()?.generation;
        let current = stored.filter(|stored| {
            stored.generation == generation && stored.matches(&self.lookup.request)
        });
        if current
            .as_ref()
            .is_some_and(|stored| stored.left(cx.now) > 0)
        {
            cx.count("cache.ahead_known");
            self.is_stored = true;
            return None;
        }
        if let Some(stored) = &current
            && stored.body.len() > FETCHED
        {
            return None;
        }
        self.old = current.map(|stored| (stored, place));
        self.fetch_alone(cx)
    }

    /// Fetches, unless somebody does already, or it can't be had where clients get it.
    fn fetch_alone(&mut self, cx: &mut Cx<'_>) -> Option<Effect> {
        self.lead = Some(self.core.flights.lead(&self.lookup.flight())?);
        let to = self.core.reaches(&self.lookup)?;
        if let Some(site) = &self.foreseen {
            let mut successors = self.core.successors.borrow_mut();
            if !successors.begin(site, &self.head.path) {
                return None;
            }
            cx.count("cache.prefetched");
        }
        self.fetch(to, cx)
    }

    fn fetch(&mut self, to: To, cx: &mut Cx<'_>) -> Option<Effect> {
        if let Some((stored, _)) = &self.old {
            conditional::ask_whether_changed(&mut self.head.fields, stored);
        }
        self.requested = cx.now;
        self.stage = Stage::Fetching;
        Some(Effect::Fetch(Fetch {
            to,
            head: self.head.clone(),
            body: Bytes::new(),
            timeout: self.core.settings.background.timeout,
        }))
    }

    fn fetched(&mut self, mut reply: Fetched, cx: &mut Cx<'_>) -> Option<Effect> {
        let times = Times {
            requested: self.requested,
            responded: cx.now,
        };
        if !reply.head.fields.has("date") {
            // RFC 9110 §6.6.1, as for any response that is cached.
            reply.head.fields.set("date", format_date(cx.now));
        }
        let head = &reply.head;
        if let (304, Some((old, place))) = (head.status, &self.old) {
            let lead = self.lead.take();
            let core = Rc::clone(&self.core);
            let (_, kept) = core.freshen(&self.lookup, old, place, lead, times, head, cx);
            self.is_stored = kept.is_ok();
            return None;
        }
        if fill::is_error(head) {
            if let Some(lead) = &self.lead {
                // It may have been: then less is allowed to those who wait.
                lead.ends(Ended::Failed { reached: true });
            }
            if head.unreached || self.outlives_errors(cx) {
                return self.failed(cx);
            }
        }
        match self.core.storable(&self.lookup, head, times) {
            Ok((storable, declared)) if declared.is_none_or(|l| l == reply.body.len() as u64) => {
                let register = Rc::new(self.core.ask_place(&self.lookup, &storable, cx.now));
                let registering = Box::new(Registering {
                    storable,
                    register: Rc::clone(&register),
                    body: reply.body,
                });
                if self.lookup.alone {
                    let name = store::marker_name(&self.lookup.primary);
                    let before = self
                        .core
                        .update_alone(&name, |before| register.change(before));
                    return self.registered(registering, before, cx);
                }
                self.stage = Stage::Registering(registering);
                Some(fill::placing(&self.lookup, register, cx.now))
            }
            Ok(_) => self.refused(Refused::LengthMismatch, cx),
            Err(refused) => {
                // An error may pass.
                if !matches!(head.status, 500..=599) {
                    self.forget(cx);
                }
                self.refused(refused, cx)
            }
        }
    }

    /// Something else has taken the place of what is stored. RFC 9111 §4.3.3: a full response "indicates that none of the
    /// stored responses nominated in the conditional request are suitable".
    fn forget(&self, cx: &mut Cx<'_>) {
        if let Some((old, place)) = &self.old {
            self.core.forget(place, old, place.until, cx);
        }
    }

    /// Whether what is stored is better than an error: what is fresh, and what may still be used stale. RFC 5861 §3: "caches
    /// MAY serve the response in which it appears after it becomes stale"; §4: "a cached stale response MAY be used to satisfy
    /// the request" in place of an error; for either it has to stay.
    fn outlives_errors(&self, cx: &Cx<'_>) -> bool {
        let (asked, unreached) = (&self.lookup.asked, self.core.settings.unreached);
        self.old.as_ref().is_some_and(|(stored, _)| {
            let left = stored.left(cx.now);
            left > 0
                || stored.within(left, stored.conditions.while_revalidate)
                || answer::serves_error(stored, asked, true, unreached, cx.now)
        })
    }

    fn registered(
        &mut self,
        registering: Box<Registering>,
        before: Option<Bytes>,
        cx: &mut Cx<'_>,
    ) -> Option<Effect> {
        let Registering {
            storable,
            register,
            body,
        } = *registering;
        let (marker, at) = match register.apply(before.as_deref()) {
            Ok(decided) => decided,
            Err(refused) => return self.refused(refused, cx),
        };
        let place = self.lookup.place_at(&marker, at);
        let stored = Stored {
            body,
            ..storable.into_stored(marker.generation)
        };
        match stored.encode() {
            Some(encoded) if encoded.len() <= self.core.room_for(&place) => {
                let lead = self.lead.take();
                let stored = Rc::new(stored);
                self.core
                    .keep(&place, &stored, encoded, register.until, lead, cx);
                self.is_stored = true;
                None
            }
            _ => self.refused(Refused::TooLarge, cx),
        }
    }

    fn refused(&mut self, refused: Refused, cx: &mut Cx<'_>) -> Option<Effect> {
        cx.count(refused.counter());
        self.failed(cx)
    }

    fn failed(&self, cx: &mut Cx<'_>) -> Option<Effect> {
        cx.count("cache.refresh_failed");
        self.core.hold_off(&self.lookup.flight(), cx.now);
        None
    }
}

impl Core {
    /// Learns from the order of requests, and fetches what is likely to be asked for next.
    pub(crate) fn look_ahead(
        self: &Rc<Self>,
        lookup: &Lookup,
        head: &RequestHead,
        cx: &mut Cx<'_>,
    ) {
        let settings = &self.settings;
        let (Some(client), true) = (&head.peer, settings.prefetches > 0) else {
            return;
        };
        let Some(site) = self.site(lookup, head) else {
            return;
        };
        let mut successors = self.successors.borrow_mut();
        if successors.observe(client, &site, &head.path, cx.now) {
            cx.count("cache.prefetch_used");
        }
        let next = successors.predict(&site, &head.path);
        let Some(path) = next.filter(|_| self.asks_for(&lookup.target, cx)) else {
            return;
        };
        if !self.prefetches.borrow_mut().take(cx.now) {
            return;
        }
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let url = Url {
            scheme: text(&head.scheme),
            authority: text(&head.authority),
            path: text(&path),
        };
        let mut like = head.fields.clone();
        // For nobody in particular.
        for name in ["authorization", "cookie"] {
            like.remove(name);
        }
        if let Ok(ahead) = Refresh::ahead(self, &url, like) {
            cx.spawn(Refresh {
                foreseen: Some(site),
                ..ahead
            });
        }
    }

    /// Among which requests one says what comes next. What is fetched ahead by the next handler of this request has to be
    /// what that of the next one would bring: they are of one route, where the edge says which.
    fn site(&self, lookup: &Lookup, head: &RequestHead) -> Option<Bytes> {
        let origin = lookup.origin();
        if self.settings.background.to != To::Onward || self.ways.borrow().routes {
            return Some(origin.clone());
        }
        let route = head.route.as_deref()?;
        Some([origin, &b" "[..], route].concat().into())
    }
}

impl Task for Refresh {
    fn start(&mut self, cx: &mut Cx<'_>) -> Option<Effect> {
        if self.lead.is_some() {
            return self.fetch(self.core.settings.background.to.clone(), cx);
        }
        if !self.lookup.key.has_extra() {
            return self.ask_marker(cx);
        }
        let epoch = Epoch::new(self.core.fresh_generation(cx.now), cx.now);
        if self.lookup.alone {
            // Of a key with more parts than the URI nothing is fetched ahead without the shared store.
            return None;
        }
        self.stage = Stage::Epoch(epoch);
        Some(epoch.ask(self.lookup.key.uri_part()))
    }

    fn answer(&mut self, answer: Answer, cx: &mut Cx<'_>) -> Option<Effect> {
        match (std::mem::replace(&mut self.stage, Stage::Marker), answer) {
            (Stage::Epoch(epoch), answer) => {
                let before = updated(answer).ok()?;
                let generation = epoch.generation(before.as_deref());
                self.lookup.primary = self.lookup.key.primary(generation);
                self.ask_marker(cx)
            }
            (Stage::Marker, answer) => {
                let value = updated(answer).ok()?;
                self.with_marker(value, cx)
            }
            (Stage::Object(place), answer) => {
                let stored = match answer {
                    Answer::Loaded(Ok(Some(bytes))) => Stored::decode(&bytes).map(Rc::new),
                    _ => None,
                };
                self.with_stored(stored, place, cx)
            }
            (Stage::Fetching, Answer::Fetched(Ok(reply))) => self.fetched(reply, cx),
            (Stage::Registering(registering), Answer::Updated(Ok(before))) => {
                self.registered(registering, before, cx)
            }
            (Stage::Fetching, Answer::Fetched(Err(Failed::TooLarge))) => {
                // A client is to bring it.
                self.forget(cx);
                self.refused(Refused::TooLarge, cx)
            }
            (Stage::Fetching, _) => self.failed(cx),
            (Stage::Registering(_), _) => self.refused(Refused::SharedStore, cx),
        }
    }
}
