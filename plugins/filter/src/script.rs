//! Runs a filter without any host: one exchange at a time, with the time and the chunks a test says.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use crate::{
    Answer, Body, Chain, Cx, Effect, Emergency, Exchange, Failed, Fetch, Fetched, Fields, Filter,
    Record, Reply, RequestHead, ResponseHead, Step, Task, Timestamp, To, Way,
};

/// A shared store for scripts, with expiry; clone it into several scripts to play several workers.
#[derive(Clone, Default)]
pub struct SharedMemory(Rc<RefCell<BTreeMap<Bytes, (Timestamp, Bytes)>>>);

impl SharedMemory {
    /// Entries, expired ones included.
    pub fn len(&self) -> usize {
        self.0.borrow().len()
    }
    /// Whether nothing was ever kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    fn load(&self, key: &Bytes, now: Timestamp) -> Option<Bytes> {
        let all = self.0.borrow();
        all.get(key)
            .filter(|(until, _)| *until > now)
            .map(|(_, value)| value.clone())
    }
    fn store(&self, key: Bytes, value: Bytes, until: Timestamp) {
        self.0.borrow_mut().insert(key, (until, value));
    }
}

type FetchFn = dyn Fn(&Fetch) -> Result<Fetched, Failed>;

/// Drives a filter through exchanges, answering its effects from memory.
pub struct Script {
    chain: Chain,
    /// The shared store.
    pub shared: SharedMemory,
    now: Timestamp,
    request: RequestHead,
    request_chunks: Vec<Bytes>,
    origin: Option<ResponseHead>,
    origin_chunks: Vec<Bytes>,
    request_trailers: Option<Fields>,
    origin_trailers: Option<Fields>,
    cut: bool,
    delay: Duration,
    lap: Duration,
    fetched: VecDeque<Result<Fetched, Failed>>,
    fetcher: Option<Box<FetchFn>>,
    store_down: bool,
    way: Option<Way>,
    /// Spawned and not run yet.
    tasks: Vec<Box<dyn Task>>,
    held: bool,
}

/// What came out of an exchange.
#[derive(Debug, Default)]
pub struct Seen {
    /// Status sent to the client.
    pub status: u16,
    /// Fields sent to the client.
    pub fields: Fields,
    /// Body sent to the client, a piece per flush.
    pub chunks: Vec<Bytes>,
    /// Trailers sent to the origin.
    pub upstream_trailers: Option<Fields>,
    /// Trailers sent to the client.
    pub trailers: Option<Fields>,
    /// The request the origin got; `None` when the filter replied itself.
    pub upstream: Option<RequestHead>,
    /// The request's body as the origin got it.
    pub upstream_body: Vec<u8>,
    /// The filter gave the request's or the response's body up.
    pub cut: bool,
    /// Counters and log lines.
    pub record: Record,
    /// Own requests the filter sent.
    pub fetches: Vec<Fetch>,
}

impl Seen {
    /// The first value of a response field.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.fields.get(name)
    }
    /// The first value as text; empty when absent.
    pub fn text(&self, name: &str) -> String {
        self.field(name)
            .map(|value| String::from_utf8_lossy(value).into_owned())
            .unwrap_or_default()
    }
    /// All values of a response field as text.
    pub fn all(&self, name: &str) -> Vec<String> {
        self.fields
            .values(name)
            .map(|value| String::from_utf8_lossy(value).into_owned())
            .collect()
    }
    /// The whole body.
    pub fn body(&self) -> Vec<u8> {
        self.chunks.concat()
    }
    /// The whole body as text.
    pub fn body_text(&self) -> String {
        String::from_utf8_lossy(&self.body()).into_owned()
    }
    /// The sum of a counter's increments.
    pub fn counted(&self, name: &str) -> u64 {
        self.record
            .counts
            .iter()
            .filter(|(n, _)| *n == name)
            .map(|(_, by)| by)
            .sum()
    }
}

impl Script {
    /// A script of one filter (or chain), at the start of 2026, with an empty store and an origin that answers 200.
    pub fn new(filter: impl Filter + 'static) -> Self {
        Self {
            chain: Chain::of(filter),
            shared: SharedMemory::default(),
            now: Timestamp::from_secs(1_767_225_600),
            request: RequestHead::default(),
            request_chunks: Vec::new(),
            origin: None,
            origin_chunks: Vec::new(),
            request_trailers: None,
            origin_trailers: None,
            cut: false,
            delay: Duration::ZERO,
            lap: Duration::ZERO,
            fetched: VecDeque::new(),
            fetcher: None,
            store_down: false,
            way: None,
            tasks: Vec::new(),
            held: false,
        }
        .get("/")
        .origin(200, &[], "")
    }

    /// Shares the store of another script: two workers of one edge.
    pub fn sharing(mut self, shared: &SharedMemory) -> Self {
        self.shared = shared.clone();
        self
    }
    /// Sets the time.
    pub fn at(mut self, now: Timestamp) -> Self {
        self.now = now;
        self
    }
    /// Lets time pass.
    pub fn pass(&mut self, time: Duration) -> &mut Self {
        self.now = self.now.plus(time);
        self
    }
    /// The time now.
    pub fn now(&self) -> Timestamp {
        self.now
    }
    /// The next request: a GET of `https://example.com` + `path` from 192.0.2.1.
    pub fn get(mut self, path: &str) -> Self {
        self.request(&["GET", path][..], &[]);
        self
    }
    /// The next request, `[method, path]` or `[method, path, authority]`, with fields.
    pub fn request(&mut self, line: &[&str], fields: &[(&str, &str)]) -> &mut Self {
        let part = |at: usize, default: &'static str| {
            Bytes::copy_from_slice(line.get(at).copied().unwrap_or(default).as_bytes())
        };
        let lines = fields.iter().map(|(n, v)| {
            (
                Bytes::copy_from_slice(n.as_bytes()),
                Bytes::copy_from_slice(v.as_bytes()),
            )
        });
        self.request = RequestHead {
            method: part(0, "GET"),
            scheme: Bytes::from("https"),
            authority: part(2, "example.com"),
            path: part(1, "/"),
            fields: Fields::received(lines),
            peer: Some(Bytes::from("192.0.2.1")),
            peer_forwarded: false,
            end: true,
            ..RequestHead::default()
        };
        self.request_chunks.clear();
        self
    }
    /// The client's address for the next request.
    pub fn peer(&mut self, address: &str) -> &mut Self {
        self.request.peer = Some(Bytes::copy_from_slice(address.as_bytes()));
        self
    }
    /// The route of the next request, as an edge says it before it goes on.
    pub fn route(&mut self, route: &str) -> &mut Self {
        self.request.route = Some(Bytes::copy_from_slice(route.as_bytes()));
        self
    }
    /// The emergency level at the next request, for a filter that wants it.
    pub fn emergency(&mut self, level: u8) -> &mut Self {
        if self.chain.wants().emergency {
            self.request.emergency = Emergency::new(level);
        }
        self
    }
    /// The next request's body, cut as said.
    pub fn request_body(&mut self, chunks: &[&[u8]]) -> &mut Self {
        self.request_chunks = chunks
            .iter()
            .map(|chunk| Bytes::copy_from_slice(chunk))
            .collect();
        self.request.end = chunks.is_empty();
        self
    }
    /// Trailers after the next requests' bodies.
    pub fn request_trailers(&mut self, fields: &[(&str, &str)]) -> &mut Self {
        self.request_trailers = Some(Fields::of(fields));
        self
    }
    /// What the origin answers, with a `content-length` when `fields` doesn't say otherwise.
    pub fn origin(mut self, status: u16, fields: &[(&str, &str)], body: &str) -> Self {
        self.answers(status, fields, &[body.as_bytes()]);
        let declared = fields
            .iter()
            .any(|(n, _)| matches!(*n, "content-length" | "transfer-encoding"));
        if !declared
            && !body.is_empty()
            && let Some(head) = &mut self.origin
        {
            let length = (
                Bytes::from("content-length"),
                Bytes::from(body.len().to_string()),
            );
            let lines = head
                .fields
                .iter()
                .map(|(n, v)| (n.clone(), v.clone()))
                .chain([length]);
            head.fields = Fields::received(lines.collect::<Vec<_>>());
        }
        self
    }
    /// What the origin answers, body cut as said, no length.
    pub fn origin_chunks(mut self, status: u16, fields: &[(&str, &str)], chunks: &[&str]) -> Self {
        let chunks: Vec<&[u8]> = chunks.iter().map(|chunk| chunk.as_bytes()).collect();
        self.answers(status, fields, &chunks);
        self
    }
    /// What the origin answers from now on, byte for byte as said.
    pub fn answers(&mut self, status: u16, fields: &[(&str, &str)], chunks: &[&[u8]]) -> &mut Self {
        let lines = fields.iter().map(|(n, v)| {
            (
                Bytes::copy_from_slice(n.as_bytes()),
                Bytes::copy_from_slice(v.as_bytes()),
            )
        });
        self.origin_chunks = chunks
            .iter()
            .filter(|c| !c.is_empty())
            .map(|c| Bytes::copy_from_slice(c))
            .collect();
        let end = self.origin_chunks.is_empty();
        self.origin = Some(ResponseHead {
            status,
            fields: Fields::received(lines),
            end,
            ..ResponseHead::default()
        });
        self.origin_trailers = None;
        self.cut = false;
        self
    }
    /// Trailers after the origin's body.
    pub fn trailers(&mut self, fields: &[(&str, &str)]) -> &mut Self {
        self.origin_trailers = Some(Fields::of(fields));
        self
    }
    /// The origin's body is cut before its end.
    pub fn cut(&mut self) -> &mut Self {
        self.cut = true;
        self
    }
    /// Time the origin takes to answer.
    pub fn delay(&mut self, delay: Duration) -> &mut Self {
        self.delay = delay;
        self
    }
    /// Time that passes before each reading of [`Cx::lap`] in a call of the filter.
    pub fn lap(&mut self, lap: Duration) -> &mut Self {
        self.lap = lap;
        self
    }
    /// What the filter's next own request is answered; without it, one that goes onward gets the origin's answer.
    pub fn fetch_answers(&mut self, answer: Result<Fetched, Failed>) -> &mut Self {
        self.fetched.push_back(answer);
        self
    }
    /// Answers the filter's own requests for which `fetch_answers` has none.
    pub fn fetch_with(
        &mut self,
        answer: impl Fn(&Fetch) -> Result<Fetched, Failed> + 'static,
    ) -> &mut Self {
        self.fetcher = Some(Box::new(answer));
        self
    }
    /// Turns the shared store off or on.
    pub fn store_down(&mut self, down: bool) -> &mut Self {
        self.store_down = down;
        self
    }

    /// The origin can't be reached: what `answers` said is the edge's own.
    pub fn unreached(&mut self) -> &mut Self {
        if let Some(head) = &mut self.origin {
            head.unreached = true;
        }
        self
    }
    /// How the edge says from now on that requests went; without it, it doesn't say.
    pub fn went(&mut self, to: &str, rewritten: bool) -> &mut Self {
        let to = to.to_owned();
        self.way = Some(Way { rewritten, to });
        self
    }
    /// Keeps spawned tasks until [`run_tasks`](Self::run_tasks); else they run right after their exchange.
    pub fn hold_tasks(&mut self) -> &mut Self {
        self.held = true;
        self
    }
    /// Queues what the filter does when it is loaded.
    pub fn load(&mut self) -> &mut Self {
        let startup = self.chain.startup();
        self.tasks.extend(startup);
        self
    }
    /// Runs the tasks that wait, and those they spawn, one after the other.
    pub fn run_tasks(&mut self) -> Seen {
        let mut seen = Seen::default();
        self.finish_tasks(&mut seen);
        seen
    }

    /// The clock of a call: each reading is a lap after the one before.
    fn reading(&self) -> impl Fn() -> Timestamp + use<> {
        let (last, lap) = (Cell::new(self.now), self.lap);
        move || {
            last.set(last.get().plus(lap));
            last.get()
        }
    }

    fn finish_tasks(&mut self, seen: &mut Seen) {
        while !self.tasks.is_empty() {
            let mut task = self.tasks.remove(0);
            let mut next =
                task.start(&mut Cx::new(self.now, &mut seen.record).timed(&self.reading()));
            self.settle(seen);
            while let Some(effect) = next {
                let answer = self.perform(effect, seen);
                next = task.answer(
                    answer,
                    &mut Cx::new(self.now, &mut seen.record).timed(&self.reading()),
                );
                self.settle(seen);
            }
        }
    }

    /// Runs the exchange, to its end or to the cut.
    pub fn run(&mut self) -> Seen {
        let mut seen = self.exchange();
        if !self.held {
            self.finish_tasks(&mut seen);
        }
        seen
    }

    fn exchange(&mut self) -> Seen {
        let mut seen = Seen::default();
        let mut exchange = self.chain.start();
        let mut request = self.request.clone();
        let mut step = exchange.request(
            &mut request,
            &mut Cx::new(self.now, &mut seen.record).timed(&self.reading()),
        );
        let body = loop {
            match step {
                Step::Forward(body) => break body,
                Step::Reply(reply) => return self.finish(seen, reply),
                Step::Do(effect) => {
                    let answer = self.perform(effect, &mut seen);
                    let reading = self.reading();
                    let mut cx = Cx::new(self.now, &mut seen.record).timed(&reading);
                    step = exchange.request_answer(answer, &mut request, &mut cx);
                }
            }
            self.settle(&mut seen);
        };
        let last = self.request_chunks.len().saturating_sub(1);
        for (at, chunk) in self.request_chunks.iter().enumerate() {
            if body == Body::Pass {
                seen.upstream_body.extend_from_slice(chunk);
                continue;
            }
            let mut out = Vec::new();
            exchange.request_body(
                chunk,
                at == last,
                &mut out,
                &mut Cx::new(self.now, &mut seen.record).timed(&self.reading()),
            );
            if let Some(status) = seen.record.cut.take() {
                seen.cut = true;
                return self.finish(seen, Reply::new(status, &[], ""));
            }
            seen.upstream_body
                .extend_from_slice(if body == Body::Observe { chunk } else { &out });
        }
        if let Some(mut trailers) = self.request_trailers.clone() {
            let reading = self.reading();
            let mut cx = Cx::new(self.now, &mut seen.record).timed(&reading);
            exchange.request_trailers(&mut trailers, &mut cx);
            seen.upstream_trailers = Some(trailers);
        }
        self.settle(&mut seen);
        let is_head = request.method == "HEAD";
        seen.upstream = Some(request);
        let seen = self.respond(&mut exchange, seen, is_head);
        if let Some(way) = self.way.as_ref().filter(|_| !self.is_unreached()) {
            exchange.sent(way);
        }
        seen
    }

    fn is_unreached(&self) -> bool {
        self.origin.as_ref().is_some_and(|head| head.unreached)
    }

    fn respond(&mut self, exchange: &mut impl Exchange, mut seen: Seen, is_head: bool) -> Seen {
        self.now = self.now.plus(self.delay);
        let mut head = self.origin.clone().unwrap_or_default();
        head.end = head.end || is_head || matches!(head.status, 204 | 304);
        let mut step = exchange.response(
            &mut head,
            &mut Cx::new(self.now, &mut seen.record).timed(&self.reading()),
        );
        let body = loop {
            match step {
                Step::Forward(body) => break body,
                Step::Reply(reply) => return self.finish(seen, reply),
                Step::Do(effect) => {
                    let answer = self.perform(effect, &mut seen);
                    let reading = self.reading();
                    let mut cx = Cx::new(self.now, &mut seen.record).timed(&reading);
                    step = exchange.response_answer(answer, &mut head, &mut cx);
                }
            }
            self.settle(&mut seen);
        };
        seen.status = head.status;
        seen.fields = head.fields;
        if !head.end {
            self.run_body(body, exchange, &mut seen);
        }
        self.settle(&mut seen);
        seen
    }

    fn run_body(&mut self, body: Body, exchange: &mut impl Exchange, seen: &mut Seen) {
        let chunks = std::mem::take(&mut self.origin_chunks);
        let separate_end = self.origin_trailers.is_some() || chunks.len() != 1;
        let last = chunks.len().saturating_sub(1);
        for (at, chunk) in chunks.iter().enumerate() {
            let end = !self.cut && !separate_end && at == last;
            if !seen.cut {
                self.push(body, chunk, end, exchange, seen);
            }
        }
        if separate_end && !self.cut && !seen.cut {
            self.push(body, &[], true, exchange, seen);
            if let Some(mut trailers) = self.origin_trailers.clone() {
                exchange.response_trailers(
                    &mut trailers,
                    &mut Cx::new(self.now, &mut seen.record).timed(&self.reading()),
                );
                seen.trailers = Some(trailers);
            }
        }
        self.origin_chunks = chunks;
    }

    fn push(
        &mut self,
        body: Body,
        chunk: &[u8],
        end: bool,
        exchange: &mut impl Exchange,
        seen: &mut Seen,
    ) {
        let mut out = Vec::new();
        if body != Body::Pass {
            exchange.response_body(
                chunk,
                end,
                &mut out,
                &mut Cx::new(self.now, &mut seen.record).timed(&self.reading()),
            );
        }
        let sent = if body == Body::Transform {
            out.into()
        } else {
            Bytes::copy_from_slice(chunk)
        };
        if !sent.is_empty() {
            seen.chunks.push(sent);
        }
        seen.cut |= seen.record.cut.take().is_some();
        self.settle(seen);
    }

    fn finish(&mut self, mut seen: Seen, mut reply: Reply) -> Seen {
        let is_head = self.request.method == "HEAD";
        reply.declare_length(is_head);
        seen.status = reply.head.status;
        seen.fields = reply.head.fields;
        if !is_head && !reply.body.is_empty() {
            seen.chunks = vec![reply.body];
        }
        self.settle(&mut seen);
        seen
    }

    fn settle(&mut self, seen: &mut Seen) {
        self.tasks.append(&mut seen.record.tasks);
        for effect in std::mem::take(&mut seen.record.effects) {
            self.perform(effect, seen);
        }
    }

    fn perform(&mut self, effect: Effect, seen: &mut Seen) -> Answer {
        let down = self.store_down.then_some(Failed::Unavailable);
        match (effect, down) {
            (Effect::Load { .. }, Some(failed)) => Answer::Loaded(Err(failed)),
            (Effect::Store { .. } | Effect::Remove { .. }, Some(failed)) => {
                Answer::Stored(Err(failed))
            }
            (Effect::Update { .. }, Some(failed)) => Answer::Updated(Err(failed)),
            (Effect::Load { key }, None) => Answer::Loaded(Ok(self.shared.load(&key, self.now))),
            (Effect::Store { key, value, ttl }, None) => {
                self.shared.store(key, value, self.now.plus(ttl));
                Answer::Stored(Ok(0))
            }
            (Effect::Remove { key }, None) => {
                self.shared.0.borrow_mut().remove(&key);
                Answer::Stored(Ok(0))
            }
            (
                Effect::Update {
                    key, change, ttl, ..
                },
                None,
            ) => {
                let before = self.shared.load(&key, self.now);
                if let Some(after) = change.apply(before.as_deref()) {
                    self.shared.store(key, after.into(), self.now.plus(ttl));
                }
                Answer::Updated(Ok(before))
            }
            (Effect::Fetch(fetch), _) => {
                let onward = fetch.to == To::Onward;
                let answer = match (self.fetched.pop_front(), &self.fetcher) {
                    (Some(answer), _) => answer,
                    (None, Some(fetcher)) if !onward => fetcher(&fetch),
                    (None, _) => match &self.origin {
                        Some(head) if onward && !head.unreached => Ok(Reply {
                            head: head.clone(),
                            body: self.origin_chunks.concat().into(),
                        }),
                        Some(_) if onward => Err(Failed::Unavailable),
                        _ => Err(Failed::Unsupported),
                    },
                };
                seen.fetches.push(fetch);
                Answer::Fetched(answer)
            }
            (Effect::Wait { gate, limit }, _) => {
                if gate.is_none_or(|gate| !gate.is_open()) {
                    self.now = self.now.plus(limit);
                }
                Answer::Waited
            }
        }
    }
}
