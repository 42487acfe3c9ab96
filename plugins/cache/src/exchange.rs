//! The state machine of one exchange.

use std::mem;
use std::rc::Rc;
use std::time::Duration;

use edgeweir_filter::{Answer, Body, Cx, Exchange, Reply, RequestHead, ResponseHead, Step, Way};

use crate::admin;
use crate::check::Checking;
use crate::fill::{Capture, Filling};
use crate::flights::Ended;
use crate::freshness::format_date;
use crate::invalidate::{self, Method, Updates};
use crate::key::{Key, Target};
use crate::lookup::{Epoch, Lookup, Sent};
use crate::news::Hear;
use crate::reason::Bypass;
use crate::status::{Forward, Status};
use crate::store::{Core, Place};
use crate::third::Third;

/// One request and its response, seen by the cache.
pub struct CacheExchange {
    pub(crate) core: Rc<Core>,
    pub(crate) state: State,
    /// What the way of its request is known by, once it went.
    pub(crate) way: Option<u64>,
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
    /// The key's clock is asked for, with what it is set to when there is none.
    Clock(Box<Lookup>, [u8; 8]),
    /// The generation of the URI is asked for.
    Epoch(Box<Lookup>, Epoch),
    /// The key's marker is asked for.
    Marker(Box<Lookup>),
    /// The stored response is asked for.
    Object(Box<Lookup>, Place),
    /// What other machines invalidated is asked for first.
    Hearing(Box<Lookup>, Box<Hear>),
    /// As above, by another request.
    Heard(Box<Lookup>),
    /// The third tier is asked for it.
    Third(Box<Third>),
    /// Whoever has the lease on it is waited for.
    Leased(Box<Third>),
    /// Whether what was found was invalidated with something larger is asked for.
    Checking(Box<Checking>),
    /// Another request to the origin is waited for.
    Waiting(Box<Lookup>),
    /// The request went to the origin.
    Sent(Box<Sent>),
    /// A place for the response is asked for.
    Registering(Box<Filling>),
    /// The body is captured.
    Capturing(Box<Capture>),
    /// Shared values are changed one after the other; then the response goes on, or this reply is sent.
    Updating(Updates, Option<Box<Reply>>),
}

impl CacheExchange {
    /// At the request's start.
    pub fn new(core: Rc<Core>) -> Self {
        Self {
            core,
            state: State::Over,
            way: None,
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

    /// Starts the invalidations a response to an unsafe request asks for; it waits for them, so that nobody who has seen
    /// it is given what was before it.
    fn invalidate(&mut self, target: &Target, head: &mut ResponseHead, cx: &mut Cx<'_>) -> Step {
        let targets = invalidate::targets(target, head);
        let groups = invalidate::groups(target, head, &self.core.settings.dependencies);
        let _ = self.pass_response(Bypass::Method, head);
        let mut updates = self.core.after_unsafe(&targets, &groups, cx);
        if let Some(third) = &self.core.settings.l3 {
            for effect in updates.take_third() {
                cx.spawn(third.tell(effect));
            }
        }
        self.update(updates, None, cx)
    }

    /// Does the next of the changes; after the last the message goes on, or the reply.
    fn update(&mut self, mut updates: Updates, reply: Option<Box<Reply>>, cx: &mut Cx<'_>) -> Step {
        match self.core.next_update(&mut updates, cx) {
            Some(effect) => {
                self.state = State::Updating(updates, reply);
                Step::Do(effect)
            }
            None => match reply {
                Some(_) if updates.failed => Step::Reply(admin::unheard()),
                Some(reply) => Step::Reply(*reply),
                None => Step::Forward(Body::Pass),
            },
        }
    }

    /// A request to the cache itself.
    fn administer(
        &mut self,
        command: Result<admin::Command, admin::Denied>,
        cx: &mut Cx<'_>,
    ) -> Step {
        match command {
            Err(denied) => {
                cx.count("cache.admin_denied");
                Step::Reply(denied.reply())
            }
            Ok(command) => {
                let (updates, reply) = self.core.administer(&command, cx);
                self.update(updates, Some(Box::new(reply)), cx)
            }
        }
    }
}

impl Exchange for CacheExchange {
    fn request(&mut self, head: &mut RequestHead, cx: &mut Cx<'_>) -> Step {
        if !self.core.settings.enabled {
            return self.bypass(Bypass::Disabled, cx);
        }
        if let Some(command) = admin::command(head, &self.core.settings.admin) {
            return self.administer(command, cx);
        }
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
        let target = Target::of(head);
        if core.settings.rules.of(&target).bypass() {
            return self.bypass(Bypass::Rule, cx);
        }
        let key = match Key::with_target(&target, head, core.settings.key_of(&target)) {
            Ok(key) => key,
            Err(reason) => return self.bypass(reason, cx),
        };
        let lookup = Lookup::new(key, target, head, &core.settings, method == Method::Head);
        if lookup.asked.no_transform && core.settings.request_directives {
            // RFC 9111 §5.2.1.6: "the client is asking for intermediaries to avoid transforming the content". What is stored
            // may be what a filter between here and the origin made of it, or what a client without this wish was given.
            if lookup.asked.only_if_cached {
                cx.count(Bypass::NoTransform.counter());
                return self.only_if_cached(&lookup, cx);
            }
            return self.bypass(Bypass::NoTransform, cx);
        }
        core.look_ahead(&lookup, head, cx);
        self.hear_first(Box::new(lookup), head, cx)
    }

    fn request_answer(&mut self, answer: Answer, head: &mut RequestHead, cx: &mut Cx<'_>) -> Step {
        match mem::take(&mut self.state) {
            State::Clock(lookup, fresh) => self.got_clock(lookup, fresh, answer, head, cx),
            State::Epoch(lookup, epoch) => self.got_epoch(lookup, epoch, answer, head, cx),
            State::Marker(lookup) => self.got_marker(lookup, answer, head, cx),
            State::Object(lookup, place) => self.got_object(lookup, place, answer, head, cx),
            State::Hearing(lookup, hear) => self.hearing(lookup, hear, &answer, head, cx),
            State::Heard(lookup) => self.look_up(lookup, head, cx),
            State::Third(third) => self.got_third(third, &answer, head, cx),
            State::Leased(third) => self.ask_again(third, head, cx),
            State::Checking(checking) => self.checked(checking, answer, head, cx),
            State::Waiting(lookup) => self.look_up(lookup, head, cx),
            State::Updating(mut updates, reply) => {
                self.core.updated(&mut updates, &answer, cx);
                self.update(updates, reply, cx)
            }
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
            State::Updating(mut updates, reply) => {
                self.core.updated(&mut updates, &answer, cx);
                self.update(updates, reply, cx)
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

    fn sent(&mut self, way: &Way) {
        if let Some(key) = self.way {
            self.core.ways.borrow_mut().learn(key, way);
        }
    }

    fn redirected(&mut self) {
        // There is never a response to wait for.
        if let State::Sent(sent) = &self.state {
            let seconds = u64::from(self.core.settings.uncacheable);
            let mut known = self.core.uncacheable.borrow_mut();
            let (key, ttl) = (sent.lookup.remembered_as(), Duration::from_secs(seconds));
            known.remember(&key, sent.requested, ttl);
            if let Some(lead) = &sent.lead {
                lead.ends(Ended::Unstorable);
            }
        }
    }
}

/// Fields by which frameworks let a request stand for one of another method.
const OVERRIDES: [&str; 3] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
];

/// Requests that are not looked up, whatever is stored.
fn bypass(head: &RequestHead) -> Option<Bypass> {
    // RFC 9110 §9.3.1: content in a GET "has no generally defined semantics"; a key without it would mix answers up.
    if !head.end {
        return Some(Bypass::RequestBody);
    }
    if head.fields.has("upgrade") {
        return Some(Bypass::Upgrade);
    }
    // The origin may act upon the method that is named there: its answer is not that to this GET.
    for name in OVERRIDES {
        let other = |value: &[u8]| Method::of(value.trim_ascii()) != Method::of(&head.method);
        if head.fields.values(name).any(other) {
            return Some(Bypass::MethodOverride);
        }
    }
    // RFC 9111 §4.3.2: "not applicable to a cache".
    if head.fields.has("if-match") || head.fields.has("if-unmodified-since") {
        return Some(Bypass::Precondition);
    }
    None
}
