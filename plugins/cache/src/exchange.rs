//! The state machine of one exchange.

use std::mem;
use std::rc::Rc;

use bytes::Bytes;
use edgeweir_filter::{
    Answer, Body, Change, Cx, Effect, Exchange, Level, RequestHead, ResponseHead, Step,
};

use crate::fill::{Capture, Filling};
use crate::freshness::format_date;
use crate::invalidate::{self, Method};
use crate::key::{Key, Target};
use crate::lookup::{Epoch, Lookup, Sent};
use crate::marker;
use crate::reason::Bypass;
use crate::status::{Forward, Status};
use crate::store::{self, Core};

/// One request and its response, seen by the cache.
pub struct CacheExchange {
    pub(crate) core: Rc<Core>,
    pub(crate) state: State,
}

/// What is being waited for. Large states are boxed: most exchanges of a chain never leave the small ones.
#[derive(Default)]
pub(crate) enum State {
    /// Nothing more to do.
    #[default]
    Over,
    /// The response passes, with the reason in its `Cache-Status`.
    Bypassed(Bypass),
    /// A successful response invalidates.
    Unsafe(Target),
    /// The generation of the URI is asked for.
    Epoch(Box<Lookup>, Epoch),
    /// The key's marker is asked for.
    Marker(Box<Lookup>),
    /// The stored response is asked for.
    Object(Box<Lookup>, store::Place),
    /// The request went to the origin.
    Sent(Box<Sent>),
    /// A place for the response is asked for.
    Registering(Box<Filling>),
    /// The body is captured.
    Capturing(Box<Capture>),
    /// Invalidations are on their way, the last of these names now, with this generation.
    Invalidating(Vec<Bytes>, u64),
    /// As before; the last of these names has its new generation, which is being written for longer.
    Prolonging(Vec<Bytes>),
}

impl CacheExchange {
    /// At the request's start.
    pub fn new(core: Rc<Core>) -> Self {
        Self {
            core,
            state: State::Over,
        }
    }

    fn bypass(&mut self, reason: Bypass, cx: &mut Cx<'_>) -> Step {
        cx.count(reason.counter());
        self.state = State::Bypassed(reason);
        Step::Forward(Body::Pass)
    }

    fn pass_response(&mut self, reason: Bypass, head: &mut ResponseHead) -> Step {
        let forward = match reason {
            Bypass::Method => Forward::Method,
            _ => Forward::Bypass,
        };
        let status = Status {
            forward: Some(forward),
            forward_status: Some(head.status),
            detail: Some(reason.name()),
            ..Status::default()
        };
        status.append_to(&mut head.fields, &self.core.settings.name);
        Step::Forward(Body::Pass)
    }

    /// Starts the invalidations a response to an unsafe request asks for.
    fn invalidate(&mut self, target: &Target, head: &mut ResponseHead, cx: &mut Cx<'_>) -> Step {
        let settings = &self.core.settings;
        let names: Vec<Bytes> = invalidate::targets(target, head)
            .iter()
            .filter_map(|target| Key::of_target(target, &settings.key).ok())
            .map(|key| match settings.key.has_extra() {
                true => store::epoch_name(key.uri_part()),
                false => store::marker_name(key.uri_part()),
            })
            .collect();
        let shown = self.pass_response(Bypass::Method, head);
        if names.is_empty() {
            return shown;
        }
        cx.add("cache.invalidated", u64::try_from(names.len()).unwrap_or(1));
        if !self.core.settings.shared {
            for name in &names {
                let (fresh, until, _) = self.new_generation(cx);
                self.core
                    .update_alone(name, |_| marker::invalidate(fresh, until));
            }
            return shown;
        }
        self.next_invalidation(names, cx)
    }

    /// Asks for the last of `names`; the response waits, so that nobody who has seen it is given what was before it.
    fn next_invalidation(&mut self, names: Vec<Bytes>, cx: &mut Cx<'_>) -> Step {
        let Some(name) = names.last().cloned() else {
            return Step::Forward(Body::Pass);
        };
        let (fresh, until, ttl) = self.new_generation(cx);
        self.state = State::Invalidating(names, fresh);
        Step::Do(Effect::Update {
            key: name,
            change: Change::new(move |_| marker::invalidate(fresh, until)),
            ttl,
        })
    }

    fn invalidated(
        &mut self,
        mut names: Vec<Bytes>,
        generation: u64,
        answer: &Answer,
        cx: &mut Cx<'_>,
    ) -> Step {
        let (_, until, _) = self.new_generation(cx);
        match (answer, names.last()) {
            (Answer::Updated(Ok(before)), Some(name)) => {
                if let Some(longer) = marker::outlives(before.as_deref(), until) {
                    let key = name.clone();
                    self.state = State::Prolonging(names);
                    return Step::Do(Effect::Update {
                        key,
                        change: Change::new(move |b| marker::prolong(b, generation, longer)),
                        ttl: store::remaining(longer, cx.now),
                    });
                }
            }
            (Answer::Updated(Err(failed)), Some(name)) => {
                // The other workers can't be told: this one at least knows, for as long as it works alone.
                cx.count("cache.invalidation_failed");
                let line = "cache: an invalidation did not reach the shared store";
                cx.log(Level::Warn, format!("{line}: {}", failed.name()));
                self.core
                    .update_alone(name, |_| marker::invalidate(generation, until));
            }
            _ => {}
        }
        names.pop();
        self.next_invalidation(names, cx)
    }

    /// A generation for an invalidation, until when it matters (seconds since the epoch), and for how long.
    fn new_generation(&self, cx: &Cx<'_>) -> (u64, u32, std::time::Duration) {
        let ttl = match self.core.settings.key.has_extra() {
            true => store::EPOCH,
            false => store::REMEMBERED,
        };
        let until = u32::try_from(cx.now.plus(ttl).as_secs()).unwrap_or(u32::MAX);
        (self.core.fresh_generation(cx.now), until, ttl)
    }
}

impl Exchange for CacheExchange {
    fn request(&mut self, head: &mut RequestHead, cx: &mut Cx<'_>) -> Step {
        let method = Method::of(&head.method);
        match method {
            Method::Get | Method::Head => {}
            Method::Safe => return self.bypass(Bypass::Method, cx),
            Method::Unsafe => {
                cx.count(Bypass::Method.counter());
                self.state = State::Unsafe(Target::of(head));
                return Step::Forward(Body::Pass);
            }
        }
        if let Some(reason) = bypass(head) {
            return self.bypass(reason, cx);
        }
        let core = Rc::clone(&self.core);
        if core.settings.rules.of(head.path_only()).bypass() {
            return self.bypass(Bypass::Rule, cx);
        }
        let key = match Key::of(head, &core.settings.key) {
            Ok(key) => key,
            Err(reason) => return self.bypass(reason, cx),
        };
        let lookup = Lookup::new(key, head, &core.settings, method == Method::Head);
        self.look_up(Box::new(lookup), head, cx)
    }

    fn request_answer(&mut self, answer: Answer, head: &mut RequestHead, cx: &mut Cx<'_>) -> Step {
        match mem::take(&mut self.state) {
            State::Epoch(lookup, epoch) => self.got_epoch(lookup, epoch, answer, head, cx),
            State::Marker(lookup) => self.got_marker(lookup, answer, head, cx),
            State::Object(lookup, place) => self.got_object(lookup, place, answer, head, cx),
            other => {
                debug_assert!(false, "an answer nobody asked for");
                self.state = other;
                Step::Forward(Body::Pass)
            }
        }
    }

    fn response(&mut self, head: &mut ResponseHead, cx: &mut Cx<'_>) -> Step {
        if head.status >= 200 && !head.fields.has("date") {
            // RFC 9110 §6.6.1: a recipient with a clock MUST append a Date "if it is cached or forwarded downstream".
            head.fields.set("date", format_date(cx.now));
        }
        match mem::take(&mut self.state) {
            State::Bypassed(reason) => self.pass_response(reason, head),
            State::Unsafe(target) => self.invalidate(&target, head, cx),
            State::Sent(sent) => self.got_response(*sent, head, cx),
            _ => Step::Forward(Body::Pass),
        }
    }

    fn response_answer(
        &mut self,
        answer: Answer,
        head: &mut ResponseHead,
        cx: &mut Cx<'_>,
    ) -> Step {
        match mem::take(&mut self.state) {
            State::Invalidating(names, generation) => {
                self.invalidated(names, generation, &answer, cx)
            }
            State::Prolonging(mut names) => {
                names.pop();
                self.next_invalidation(names, cx)
            }
            State::Registering(filling) => self.registered(filling, answer, head, cx),
            _ => {
                debug_assert!(false, "an answer nobody asked for");
                Step::Forward(Body::Pass)
            }
        }
    }

    fn response_body(&mut self, chunk: &[u8], end: bool, out: &mut Vec<u8>, cx: &mut Cx<'_>) {
        out.extend_from_slice(chunk);
        if let State::Capturing(capture) = mem::take(&mut self.state) {
            self.captured(capture, chunk, end, cx);
        }
    }
}

/// Requests that are not looked up, whatever is stored.
fn bypass(head: &RequestHead) -> Option<Bypass> {
    // RFC 9110 §9.3.1: content in a GET "has no generally defined semantics"; a key without it would mix answers up.
    if !head.end {
        return Some(Bypass::RequestBody);
    }
    if head.fields.has("upgrade") {
        return Some(Bypass::Upgrade);
    }
    // RFC 9111 §4.3.2: "not applicable to a cache".
    if head.fields.has("if-match") || head.fields.has("if-unmodified-since") {
        return Some(Bypass::Precondition);
    }
    None
}
