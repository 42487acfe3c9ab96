//! One exchange: the host's callbacks on one side, a filter's state machine on the other.

use std::rc::Rc;

use bytes::Bytes;
use edgeweir_filter::{
    Answer, Body, ChainExchange, Cx, Effect, Exchange, Fields, Level, Record, Reply, RequestHead,
    ResponseHead, Step, Timestamp, To,
};

use crate::agenda::{Pending, Ticket, Waiter};
use crate::body::{self, Flow, Flowing};
use crate::heads::{self, Received};
use crate::hostcalls::{self, Map, Side, Status};
use crate::root::{Performed, Root};
use crate::routes::{self, Sent};
use crate::tasks::Cluster;

/// `proxy_action_t`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Action {
    /// Go on.
    Continue = 0,
    /// Wait.
    Pause = 1,
}

/// Where a head is.
enum Stage<H> {
    /// Not here yet, or gone on.
    Away,
    /// It waits for an effect's answer.
    Waiting(H, Received),
}

/// What a step led to.
enum Outcome {
    Forward,
    Replied,
    Waiting,
}

/// One exchange.
pub struct Stream {
    id: u32,
    root: Rc<Root>,
    exchange: ChainExchange,
    record: Record,
    request: Stage<RequestHead>,
    response: Stage<ResponseHead>,
    /// The answer that a stage waits for.
    pending: Option<Pending>,
    /// The number of the last wait.
    waits: u32,
    /// Where the request goes, once somebody asked for that.
    onward: Option<Option<Cluster>>,
    /// The request as the filter sent it on, for a filter that wants to know what became of it.
    sent: Option<Sent>,
    request_body: Flow,
    response_body: Flow,
    /// The request's method; empty where it was not read.
    method: Bytes,
    /// When the filter saw the request: else it is told nothing of the response.
    begun: Option<Timestamp>,
    /// The response's head went out, from whoever.
    answered: bool,
    /// The filter replied itself: it sees nothing more.
    replied: bool,
    /// What the host will have made of the reply's media type.
    typed: Typed,
}

/// Hosts call the body of a reply without a type `text/plain`, and take the type from one without a body.
enum Typed {
    /// As it should be.
    AsItWas,
    /// One that nobody gave it.
    Made,
    /// This one was left out.
    LeftOut(Bytes),
}

impl Stream {
    /// An exchange in a context of its own.
    pub fn new(id: u32, root: Rc<Root>) -> Self {
        Self {
            id,
            exchange: root.chain.start(),
            root,
            record: Record::default(),
            request: Stage::Away,
            response: Stage::Away,
            pending: None,
            waits: 0,
            onward: None,
            sent: None,
            request_body: Flow::passing(Side::Request),
            response_body: Flow::passing(Side::Response),
            method: Bytes::new(),
            begun: None,
            answered: false,
            replied: false,
            typed: Typed::AsItWas,
        }
    }

    /// The request's head is there.
    pub fn on_request(&mut self, end: bool) -> Action {
        let (peer, now) = (self.root.wants_peer, hostcalls::now());
        let emergency = self.root.emergency(now);
        let (mut head, received) = match self.root.blind_request {
            true => heads::unread_request(end, peer, self.root.heeds_field),
            false => match heads::request(end, peer) {
                Ok(read) => read,
                Err(status) => return self.unreadable("request", status),
            },
        };
        self.begun = Some(now);
        self.method = head.method.clone();
        head.emergency = emergency.unwrap_or_default();
        if self.root.heeds_field {
            head.emergency = head.emergency.raised_by(&head.fields);
        }
        let step = self.exchange.request(
            &mut head,
            &mut Cx::new(now, &mut self.record).timed(&hostcalls::now),
        );
        match self.run_request(step, head, received, now) {
            Outcome::Forward => Action::Continue,
            Outcome::Replied | Outcome::Waiting => Action::Pause,
        }
    }

    /// The response's head is there.
    pub fn on_response(&mut self, end: bool) -> Action {
        // After a reply the host shows the filter its own response.
        if self.replied {
            self.mend_type();
        }
        let Some(begun) = self.begun.filter(|_| !self.replied) else {
            return Action::Continue;
        };
        // A response while the request still waits (another filter or the host answered): nobody needs the answer.
        self.request = Stage::Away;
        self.pending = None;
        let (mut head, received) = match self.root.blind_response {
            true => heads::unread_response(end),
            false => match heads::response(end) {
                Ok(read) => read,
                Err(status) => return self.unreadable("response", status),
            },
        };
        let now = match self.root.blind_response {
            true => begun,
            false => hostcalls::now(),
        };
        head.tail_closed = body::tail_closed(&head);
        head.unreached = heads::unreached(head.status);
        if let Some(sent) = &mut self.sent {
            sent.answered();
        }
        let step = self.exchange.response(
            &mut head,
            &mut Cx::new(now, &mut self.record).timed(&hostcalls::now),
        );
        match self.run_response(step, head, received, now) {
            Outcome::Forward => Action::Continue,
            Outcome::Replied | Outcome::Waiting => Action::Pause,
        }
    }

    fn unreadable(&mut self, what: &str, status: Status) -> Action {
        self.begun = None;
        self.root.log(
            Level::Warn,
            &format!(
                "a {what} passes by: its head could not be read (status {})",
                status.0
            ),
        );
        Action::Continue
    }

    /// The exchange is over: the filter learns how its request went.
    pub fn on_log(&mut self) {
        if let Some(way) = self.sent.take().and_then(|sent| sent.way()) {
            self.exchange.sent(&way);
        }
        if self.begun.is_some() && !self.answered && !self.replied && routes::followed() {
            self.exchange.redirected();
        }
    }

    /// The filter it goes through.
    pub fn root(&self) -> &Rc<Root> {
        &self.root
    }

    /// Whether the answer to the wait of this number is awaited; that to another one comes too late.
    pub fn awaits(&self, wait: u32) -> bool {
        let awaited = |pending: &Pending| pending.ticket.number == wait;
        !self.replied && self.pending.as_ref().is_some_and(awaited)
    }

    /// The answer this stream awaits.
    pub fn resume(&mut self, answer: Answer) {
        self.pending = None;
        let now = hostcalls::now();
        let (side, outcome) = match (
            std::mem::replace(&mut self.request, Stage::Away),
            std::mem::replace(&mut self.response, Stage::Away),
        ) {
            (Stage::Waiting(mut head, received), _) => {
                let step = self.exchange.request_answer(
                    answer,
                    &mut head,
                    &mut Cx::new(now, &mut self.record).timed(&hostcalls::now),
                );
                (Side::Request, self.run_request(step, head, received, now))
            }
            (_, Stage::Waiting(mut head, received)) => {
                let step = self.exchange.response_answer(
                    answer,
                    &mut head,
                    &mut Cx::new(now, &mut self.record).timed(&hostcalls::now),
                );
                (Side::Response, self.run_response(step, head, received, now))
            }
            _ => return,
        };
        if matches!(outcome, Outcome::Forward)
            && let Err(status) = hostcalls::continue_stream(side)
        {
            self.root.log(
                Level::Error,
                &format!("a stream could not be continued (status {})", status.0),
            );
            // It would wait for ever.
            let _ = hostcalls::close_stream(side);
        }
    }

    fn run_request(
        &mut self,
        mut step: Step,
        mut head: RequestHead,
        received: Received,
        now: Timestamp,
    ) -> Outcome {
        loop {
            self.settle(now);
            step = match step {
                Step::Forward(body) => {
                    self.plan(
                        Side::Request,
                        (body, false),
                        head.end,
                        &mut head.fields,
                        &received,
                    );
                    let written = heads::write_request(&head, &received);
                    self.head_written(Side::Request, written, &head.fields, &received);
                    if self.root.wants_route {
                        self.sent = Some(Sent::new(head.path, head.authority));
                    }
                    return Outcome::Forward;
                }
                Step::Reply(reply) => return self.reply(Side::Request, reply),
                Step::Do(effect) => match self.perform(effect, now) {
                    None => {
                        self.request = Stage::Waiting(head, received);
                        return Outcome::Waiting;
                    }
                    Some(answer) => self.exchange.request_answer(
                        answer,
                        &mut head,
                        &mut Cx::new(now, &mut self.record).timed(&hostcalls::now),
                    ),
                },
            };
        }
    }

    fn run_response(
        &mut self,
        mut step: Step,
        mut head: ResponseHead,
        received: Received,
        now: Timestamp,
    ) -> Outcome {
        loop {
            self.settle(now);
            step = match step {
                Step::Forward(body) => {
                    self.answered = true;
                    let body = (body, head.has_tail);
                    self.plan(Side::Response, body, head.end, &mut head.fields, &received);
                    let written = heads::write_response(&head, &received);
                    self.head_written(Side::Response, written, &head.fields, &received);
                    return Outcome::Forward;
                }
                Step::Reply(reply) => return self.reply(Side::Response, reply),
                Step::Do(effect) => match self.perform(effect, now) {
                    None => {
                        self.response = Stage::Waiting(head, received);
                        return Outcome::Waiting;
                    }
                    Some(answer) => self.exchange.response_answer(
                        answer,
                        &mut head,
                        &mut Cx::new(now, &mut self.record).timed(&hostcalls::now),
                    ),
                },
            };
        }
    }

    fn settle(&mut self, now: Timestamp) {
        let started = self.root.settle(&mut self.record, now);
        if !started.is_empty() {
            let onward = self.onward();
            self.root.spawn(started, onward);
        }
    }

    /// Where the request goes, as far as the host knows; to be asked with this stream as the effective context.
    fn onward(&mut self) -> Option<Cluster> {
        self.onward
            .get_or_insert_with(|| {
                let name = hostcalls::property("xds\0cluster_name").ok()?;
                let name = String::from_utf8(name).ok()?;
                (!name.is_empty()).then(|| name.into())
            })
            .clone()
    }

    /// Performs an effect; `None` when its answer comes later.
    fn perform(&mut self, effect: Effect, now: Timestamp) -> Option<Answer> {
        let onward = match &effect {
            Effect::Fetch(fetch) if fetch.to == To::Onward => self.onward(),
            _ => None,
        };
        self.waits = self.waits.wrapping_add(1);
        let ticket = Ticket {
            waiter: Waiter::Stream(self.id),
            number: self.waits,
        };
        match self.root.perform(effect, ticket, onward.as_deref(), now) {
            Performed::Answer(answer) => Some(answer),
            Performed::Pending(pending) => {
                self.pending = Some(pending);
                None
            }
        }
    }

    /// Settles how a body is treated, before its head goes on.
    fn plan(
        &mut self,
        side: Side,
        (body, has_tail): (Body, bool),
        end: bool,
        fields: &mut Fields,
        received: &Received,
    ) {
        let flow = if end || body == Body::Pass {
            Flow::passing(side)
        } else {
            let before = received.fields();
            // A host that gets other bytes than declared hangs the client or cuts the message.
            if body == Body::Transform && !fields.has_changed("content-length") {
                fields.remove("content-length");
            }
            let before = ResponseHead {
                fields: before,
                ..ResponseHead::default()
            };
            let mut flow = Flow::new(side, body, has_tail, &before);
            let declared = before.content_length().is_some();
            if side == Side::Response && declared && !fields.has("content-length") {
                flow.take_length_away();
            }
            flow
        };
        match side {
            Side::Request => self.request_body = flow,
            Side::Response => self.response_body = flow,
        }
    }

    fn written(&self, result: Result<(), Status>) {
        if let Err(status) = result {
            self.root.log(
                Level::Error,
                &format!("a changed field could not be written (status {})", status.0),
            );
        }
    }

    /// A head that goes on was written, or not: then a body that was to be changed goes on as it came under the head it
    /// came with. A coded body without its `content-encoding` is of no use to anybody.
    fn head_written(
        &mut self,
        side: Side,
        written: Result<(), Status>,
        fields: &Fields,
        received: &Received,
    ) {
        if written.is_ok() {
            return;
        }
        self.written(written);
        let flow = match side {
            Side::Request => &mut self.request_body,
            Side::Response => &mut self.response_body,
        };
        if !flow.transforms() {
            return;
        }
        *flow = Flow::passing(side);
        self.begun = None;
        if heads::restore(side, fields, received).is_err() {
            let _ = hostcalls::close_stream(side);
            self.replied = true;
        }
    }

    fn is_head(&self) -> bool {
        match self.method.is_empty() {
            true => hostcalls::value(Map::RequestHeaders, b":method")
                .is_ok_and(|method| method == b"HEAD"),
            false => self.method == "HEAD",
        }
    }

    /// Answers the exchange here.
    fn reply(&mut self, side: Side, mut reply: Reply) -> Outcome {
        debug_assert!(!self.replied && !self.answered, "one response per exchange");
        if self.replied || self.answered {
            return Outcome::Forward;
        }
        self.replied = true;
        reply.declare_length(self.is_head());
        let bodiless = matches!(reply.head.status, 204 | 304);
        self.typed = match reply.head.fields.get("content-type") {
            None if !reply.body.is_empty() => Typed::Made,
            Some(given) if reply.body.is_empty() && !bodiless => {
                Typed::LeftOut(Bytes::copy_from_slice(given))
            }
            _ => Typed::AsItWas,
        };
        // The host declares the length of a body itself, and would join ours to it.
        if !reply.body.is_empty() {
            reply.head.fields.remove("content-length");
        }
        let lines = reply
            .head
            .fields
            .iter()
            .map(|(name, value)| (&name[..], &value[..]));
        let fields = heads::pairs(lines);
        // For HEAD too the body is given: the host leaves it out and keeps its length and type.
        if let Err(status) =
            hostcalls::send_response(reply.head.status, "edgeweir", &reply.body, &fields)
        {
            self.root.log(
                Level::Error,
                &format!("a reply could not be sent (status {})", status.0),
            );
            // It would wait for ever: an error without fields and body says less, but ends it.
            let plain = match reply.head.status {
                status @ 400.. => status,
                _ => 500,
            };
            if hostcalls::send_status(plain).is_err() {
                let _ = hostcalls::close_stream(side);
            }
        }
        Outcome::Replied
    }

    /// Gives a reply the media type that it has, or none. RFC 9110 §8.3: without one "the recipient MAY either assume a media type of
    /// "application/octet-stream" [...] or examine the data to determine its type", which it may not of one that is said to be text.
    fn mend_type(&mut self) {
        let there = |name| hostcalls::value(Map::ResponseHeaders, name);
        let mended = match std::mem::replace(&mut self.typed, Typed::AsItWas) {
            // Another one is of a host that answers in another protocol (gRPC).
            Typed::Made if there(b"content-type").is_ok_and(|made| made == b"text/plain") => {
                hostcalls::remove(Map::ResponseHeaders, b"content-type")
            }
            Typed::LeftOut(given) if there(b"content-type").is_err() => {
                hostcalls::add(Map::ResponseHeaders, b"content-type", &given)
            }
            _ => Ok(()),
        };
        self.written(mended);
    }

    /// A piece of a body.
    pub fn on_body(&mut self, side: Side, size: usize, end: bool) -> Action {
        if self.replied {
            return Action::Continue;
        }
        if self.waits(side) {
            return Action::Pause;
        }
        let (flow, exchange, record) = self.flow(side);
        if flow.passes() {
            return Action::Continue;
        }
        let now = hostcalls::now();
        let result = flow.push(size, end, &mut |chunk, end, out| {
            let mut cx = Cx::new(now, record).timed(&hostcalls::now);
            match side {
                Side::Request => exchange.request_body(chunk, end, out, &mut cx),
                Side::Response => exchange.response_body(chunk, end, out, &mut cx),
            }
        });
        self.settle(now);
        if let Some(status) = self.record.cut.take() {
            return self.cut(side, status);
        }
        match result {
            Ok(flowing) => self.flowing(flowing, now),
            Err(status) => self.broken(side, status),
        }
    }

    /// The trailers of a direction.
    pub fn on_trailers(&mut self, side: Side) -> Action {
        if self.replied || self.begun.is_none() {
            return Action::Continue;
        }
        if self.waits(side) {
            return Action::Pause;
        }
        let now = hostcalls::now();
        let (flow, exchange, record) = self.flow(side);
        let result = flow.finish(&mut |chunk, end, out| {
            let mut cx = Cx::new(now, record).timed(&hostcalls::now);
            match side {
                Side::Request => exchange.request_body(chunk, end, out, &mut cx),
                Side::Response => exchange.response_body(chunk, end, out, &mut cx),
            }
        });
        if let Some(status) = self.record.cut.take() {
            self.settle(now);
            return self.cut(side, status);
        }
        let action = match result {
            Ok((flowing, lost)) => {
                if lost > 0 {
                    self.root.log(
                        Level::Error,
                        &format!(
                            "trailers came without notice: the last {lost} bytes of a body are lost"
                        ),
                    );
                    return self.broken(side, Status(0));
                }
                self.flowing(flowing, now)
            }
            Err(status) => return self.broken(side, status),
        };
        if let Ok((mut trailers, received)) = heads::trailers(side) {
            let mut cx = Cx::new(now, &mut self.record).timed(&hostcalls::now);
            match side {
                Side::Request => self.exchange.request_trailers(&mut trailers, &mut cx),
                Side::Response => self.exchange.response_trailers(&mut trailers, &mut cx),
            }
            self.written(heads::write_trailers(side, &trailers, &received));
        }
        self.settle(now);
        action
    }

    fn waits(&self, side: Side) -> bool {
        match side {
            Side::Request => matches!(self.request, Stage::Waiting(..)),
            Side::Response => matches!(self.response, Stage::Waiting(..)),
        }
    }

    fn flow(&mut self, side: Side) -> (&mut Flow, &mut ChainExchange, &mut Record) {
        let flow = match side {
            Side::Request => &mut self.request_body,
            Side::Response => &mut self.response_body,
        };
        (flow, &mut self.exchange, &mut self.record)
    }

    fn flowing(&mut self, flowing: Flowing, now: Timestamp) -> Action {
        match flowing {
            Flowing::On => Action::Continue,
            Flowing::Paused => Action::Pause,
            Flowing::Held => {
                if !self.root.agenda.hold(self.id, now) {
                    self.root.log(
                        Level::Warn,
                        "the host has no ticks: the start of a body waits for its next piece",
                    );
                }
                Action::Pause
            }
        }
    }

    /// Some of a body's bytes could not be read or written: it must not end as if it were whole.
    fn broken(&mut self, side: Side, status: Status) -> Action {
        if self.flow(side).0.observes() {
            // Nothing of it was changed: it goes on, and the filter never learns of an end.
            self.root.log(
                Level::Warn,
                &format!(
                    "a body is no longer looked at: the host refused its bytes (status {})",
                    status.0
                ),
            );
            *self.flow(side).0 = Flow::passing(side);
            return Action::Continue;
        }
        self.root.log(
            Level::Error,
            &format!(
                "a body was cut off: the host refused its bytes (status {})",
                status.0
            ),
        );
        self.flow(side).0.abort();
        self.replied = true;
        Action::Pause
    }

    /// The filter gave a body up: what came of it so far must not pass for the whole.
    fn cut(&mut self, side: Side, status: u16) -> Action {
        if side == Side::Request && !self.answered {
            self.reply(Side::Request, Reply::new(status, &[], ""));
        } else {
            self.flow(side).0.abort();
            self.replied = true;
        }
        Action::Pause
    }

    /// Lets go what waits for a tick.
    pub fn release(&mut self) {
        for flow in [&mut self.request_body, &mut self.response_body] {
            if let Err(status) = flow.release() {
                self.root.log(
                    Level::Error,
                    &format!("a body could not be continued (status {})", status.0),
                );
                flow.abort();
            }
        }
    }
}
