//! The request's side: from the key to a stored response, or to the origin.

use std::rc::Rc;

use bytes::Bytes;
use edgeweir_filter::{
    Answer, Body, Change, Cx, Effect, Failed, Fields, Reply, RequestHead, Step, Timestamp,
};

use crate::answer::{self, Verdict};
use crate::conditional;
use crate::config::Settings;
use crate::directives::RequestDirectives;
use crate::exchange::{CacheExchange, State};
use crate::key::{self, Key};
use crate::marker::{self, Marker};
use crate::reason::Missed;
use crate::status::{Forward, Status};
use crate::store::{self, Place};
use crate::stored::Stored;

/// What is known of a request that is looked up.
pub(crate) struct Lookup {
    pub key: Key,
    /// The key with the URI's generation, once that is known.
    pub primary: Bytes,
    pub asked: RequestDirectives,
    /// The request's fields as the client sent them.
    pub request: Fields,
    /// The path, for the rules.
    pub path: Bytes,
    pub is_head: bool,
    /// The shared store is off, or failed in this exchange.
    pub alone: bool,
    pub marker: Option<Marker>,
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
    fn apply(self, before: Option<&[u8]>) -> Option<Vec<u8>> {
        let (marker, write) = marker::epoch(before, self.fresh, self.now, self.until);
        write.then(|| marker.encode()).flatten()
    }
}

/// A request on its way to the origin.
pub(crate) struct Sent {
    pub lookup: Box<Lookup>,
    pub requested: Timestamp,
    pub missed: Missed,
    /// What was selected but not reused.
    pub selected: Option<(Rc<Stored>, Place)>,
    /// The request was made conditional: a 304 is ours.
    pub validates: bool,
}

impl Lookup {
    pub fn new(key: Key, head: &RequestHead, settings: &Settings, is_head: bool) -> Self {
        let mut asked = RequestDirectives::of(&head.fields);
        if !settings.request_directives {
            asked = RequestDirectives {
                no_store: asked.no_store,
                ..RequestDirectives::default()
            };
        }
        Self {
            primary: key.primary(0),
            key,
            asked,
            request: head.fields.clone(),
            path: Bytes::copy_from_slice(head.path_only()),
            is_head,
            alone: !settings.shared,
            marker: None,
            shown_key: settings
                .debug_key
                .then(|| key::readable(head, &settings.key)),
        }
    }

    /// A member of `Cache-Status` to start from.
    pub fn status(&self) -> Status {
        Status {
            key: self.shown_key.clone(),
            ..Status::default()
        }
    }
}

impl CacheExchange {
    pub(crate) fn look_up(
        &mut self,
        lookup: Box<Lookup>,
        head: &mut RequestHead,
        cx: &mut Cx<'_>,
    ) -> Step {
        if !self.core.settings.key.has_extra() {
            return self.ask_marker(lookup, head, cx);
        }
        let until = u32::try_from(cx.now.plus(store::EPOCH).as_secs()).unwrap_or(u32::MAX);
        let epoch = Epoch {
            fresh: self.core.fresh_generation(cx.now),
            now: u32::try_from(cx.now.as_secs()).unwrap_or(u32::MAX),
            until,
        };
        if lookup.alone {
            return self.with_own_epoch(lookup, epoch, head, cx);
        }
        let name = store::epoch_name(lookup.key.uri_part());
        self.state = State::Epoch(lookup, epoch);
        Step::Do(Effect::Update {
            key: name,
            change: Change::new(move |before| epoch.apply(before)),
            ttl: store::EPOCH,
        })
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
            Ok(before) => self.with_epoch(lookup, epoch, before, head, cx),
            Err(failed) => {
                go_alone(&mut lookup, failed, cx);
                self.with_own_epoch(lookup, epoch, head, cx)
            }
        }
    }

    fn with_own_epoch(
        &mut self,
        lookup: Box<Lookup>,
        epoch: Epoch,
        head: &mut RequestHead,
        cx: &mut Cx<'_>,
    ) -> Step {
        let name = store::epoch_name(lookup.key.uri_part());
        let before = self.core.update_alone(&name, |before| epoch.apply(before));
        self.with_epoch(lookup, epoch, before, head, cx)
    }

    fn with_epoch(
        &mut self,
        mut lookup: Box<Lookup>,
        epoch: Epoch,
        before: Option<Bytes>,
        head: &mut RequestHead,
        cx: &mut Cx<'_>,
    ) -> Step {
        let (marker, _) = marker::epoch(before.as_deref(), epoch.fresh, epoch.now, epoch.until);
        lookup.primary = lookup.key.primary(marker.generation);
        self.ask_marker(lookup, head, cx)
    }

    fn ask_marker(&mut self, lookup: Box<Lookup>, head: &mut RequestHead, cx: &mut Cx<'_>) -> Step {
        let name = store::marker_name(&lookup.primary);
        if lookup.alone {
            let value = self.core.memory.borrow_mut().marker(&name);
            return self.with_marker(lookup, value, head, cx);
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
        self.with_marker(lookup, value, head, cx)
    }

    fn with_marker(
        &mut self,
        mut lookup: Box<Lookup>,
        value: Option<Bytes>,
        head: &mut RequestHead,
        cx: &mut Cx<'_>,
    ) -> Step {
        lookup.marker = value.as_deref().and_then(Marker::decode);
        let Some(marker) = lookup
            .marker
            .as_ref()
            .filter(|marker| marker.has_variants())
        else {
            return self.forward(lookup, Missed::Absent, None, head, cx);
        };
        let Some(at) = marker.place(&lookup.request) else {
            return self.forward(lookup, Missed::Variant, None, head, cx);
        };
        let place = Place {
            marker: store::marker_name(&lookup.primary),
            object: store::object_name(&lookup.primary, at),
            edition: marker.edition,
            until: marker.until,
            alone: lookup.alone,
        };
        let (generation, edition) = (marker.generation, marker.edition);
        let found = self
            .core
            .memory
            .borrow_mut()
            .get(&place.object, generation, edition, cx.now);
        if let Some(stored) = found {
            cx.count("cache.l1.hit");
            return self.found(lookup, stored, place, head, cx);
        }
        if lookup.alone {
            // Nobody else to ask: the residence time does not matter.
            let found =
                self.core
                    .memory
                    .borrow_mut()
                    .recall(&place.object, generation, edition, cx.now);
            return match found {
                Some(stored) => self.found(lookup, stored, place, head, cx),
                None => self.forward(lookup, Missed::Empty, None, head, cx),
            };
        }
        let key = place.object.clone();
        self.state = State::Object(lookup, place);
        Step::Do(Effect::Load { key })
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
        let Some(bytes) = loaded else {
            // The shared store let it go (or never took it): what this instance holds of the same generation is as
            // good as it was.
            let found = self.core.memory.borrow_mut().recall(
                &place.object,
                generation,
                place.edition,
                cx.now,
            );
            return match found {
                Some(stored) => self.found(lookup, stored, place, head, cx),
                None => self.forward(lookup, Missed::Empty, None, head, cx),
            };
        };
        let Some(stored) = Stored::decode(&bytes).map(Rc::new) else {
            return self.forward(lookup, Missed::Corrupt, None, head, cx);
        };
        if stored.generation != generation {
            return self.forward(lookup, Missed::Empty, None, head, cx);
        }
        cx.count("cache.l2.hit");
        let evicted = self.core.memory.borrow_mut().put(
            place.object.clone(),
            Rc::clone(&stored),
            place.edition,
            bytes.len(),
            cx.now,
        );
        if evicted > 0 {
            cx.add("cache.l1.evicted", evicted);
        }
        self.found(lookup, stored, place, head, cx)
    }

    fn found(
        &mut self,
        lookup: Box<Lookup>,
        stored: Rc<Stored>,
        place: Place,
        head: &mut RequestHead,
        cx: &mut Cx<'_>,
    ) -> Step {
        // The place was found by a fingerprint; the response itself says for which requests it is.
        if !stored.matches(&lookup.request) {
            return self.forward(lookup, Missed::Variant, None, head, cx);
        }
        match answer::judge(&stored, &lookup.asked, &lookup.request, cx.now) {
            Verdict::Reuse => {
                cx.count("cache.hit");
                let status = Status {
                    hit: true,
                    ..lookup.status()
                };
                let name = &self.core.settings.name;
                let unique = self.core.fresh_generation(cx.now);
                let reply = answer::reply(&stored, &lookup, status, name, unique, cx.now);
                Step::Reply(reply)
            }
            Verdict::Ask(missed) => self.forward(lookup, missed, Some((stored, place)), head, cx),
        }
    }

    fn forward(
        &mut self,
        lookup: Box<Lookup>,
        missed: Missed,
        selected: Option<(Rc<Stored>, Place)>,
        head: &mut RequestHead,
        cx: &mut Cx<'_>,
    ) -> Step {
        cx.count("cache.miss");
        cx.count(missed.counter());
        if lookup.asked.only_if_cached {
            // RFC 9111 §5.2.1.7: "respond with either a stored response … or a 504 (Gateway Timeout) status code".
            cx.count("cache.only_if_cached");
            let mut reply = Reply::new(504, &[], "");
            let status = Status {
                detail: Some("only_if_cached"),
                ..lookup.status()
            };
            status.append_to(&mut reply.head.fields, &self.core.settings.name);
            return Step::Reply(reply);
        }
        // What is for somebody with an Authorization is not validated by somebody else's answer.
        let validates = missed != Missed::Authorization
            && selected
                .as_ref()
                .is_some_and(|(stored, _)| stored.has_validator());
        if let (true, Some((stored, _))) = (validates, &selected) {
            conditional::ask_whether_changed(head, stored);
        }
        self.state = State::Sent(Box::new(Sent {
            lookup,
            requested: cx.now,
            missed,
            selected,
            validates,
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
            Self::Empty | Self::Corrupt => Forward::Miss,
        }
    }

    /// The name, where `fwd` alone does not say it.
    pub(crate) fn detail(self) -> Option<&'static str> {
        match self {
            Self::Absent | Self::Variant | Self::Empty | Self::Stale => None,
            other => Some(other.name()),
        }
    }
}

/// Reads a small shared value: an update that leaves it as it is.
fn read(key: Bytes) -> Effect {
    Effect::Update {
        key,
        change: Change::new(|_| None),
        ttl: store::REMEMBERED,
    }
}

fn updated(answer: Answer) -> Result<Option<Bytes>, Failed> {
    match answer {
        Answer::Updated(result) => result,
        _ => Err(Failed::Unavailable),
    }
}

fn go_alone(lookup: &mut Lookup, failed: Failed, cx: &mut Cx<'_>) {
    lookup.alone = true;
    cx.count("cache.shared_store_failed");
    cx.log(
        edgeweir_filter::Level::Debug,
        format!(
            "cache: the shared store is {}; this instance works alone",
            failed.name()
        ),
    );
}
