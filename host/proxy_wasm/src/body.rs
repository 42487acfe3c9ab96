//! Bodies on their way through a plugin, chunk by chunk: read one, ask the plugin, send what it leaves.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use edgeweir_host_chain::{Body, Error, Meter};
use http::StatusCode;
use http::header::{CONTENT_LENGTH, HeaderMap};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;

use crate::exchange::{Ending, Exchange, closed, failed};
use crate::fields::Fields;
use crate::plugin::{Common, OnTrap};
use crate::stream::{Direction, LocalResponse, Stream};
use crate::vm::{Action, Vm};
use crate::worker::Gone;

type Item = Result<Frame<Bytes>, Error>;

const MISLABELLED: &str = "the plugin changed a body's length and left its content-length";

/// Why a plugin ended a body before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It paused for longer than there is room.
    TooLarge,
    /// It made the body another length than its head declares.
    Mislabelled,
    /// Its machine trapped.
    Trapped,
    /// It answered, or reset the exchange.
    Decided,
}

/// A body with a plugin's callbacks over it.
pub(crate) struct Pump {
    exchange: Arc<Exchange>,
    direction: Direction,
    inner: Body,
    /// Which callbacks there are.
    on_body: bool,
    on_trailers: bool,
    ready: VecDeque<Item>,
    /// The plugin holds what it was given so far.
    held: bool,
    /// Nothing more comes from `inner`.
    source_over: bool,
    /// Nothing follows `ready`.
    over: bool,
    /// The plugin has no say any more.
    raw: bool,
    rewritten: bool,
    pub(crate) failure: Option<Failure>,
    /// The `content-length` that went out, and the bytes that followed.
    declared: Option<u64>,
    sent: u64,
    common: Arc<Common>,
}

/// What a callback left to do.
enum Step {
    Send {
        data: Bytes,
        trailers: Option<HeaderMap>,
        rewritten: bool,
    },
    Hold,
    TooLarge,
    Decided,
}

impl Pump {
    pub(crate) fn new(
        exchange: Arc<Exchange>,
        common: Arc<Common>,
        direction: Direction,
        inner: Body,
        (on_body, on_trailers): (bool, bool),
    ) -> Self {
        Self {
            exchange,
            direction,
            inner,
            on_body,
            on_trailers,
            ready: VecDeque::new(),
            held: false,
            source_over: false,
            over: false,
            raw: false,
            rewritten: false,
            failure: None,
            declared: None,
            sent: 0,
            common,
        }
    }

    /// Goes ahead of a head that is held, until the plugin lets go of both or decides otherwise.
    pub(crate) async fn lead(&mut self) {
        self.held = true;
        while self.held && self.ready.is_empty() {
            self.advance().await;
        }
        self.held = false;
    }

    /// Whether what comes next is no more of the body but that it broke off.
    pub(crate) fn broke_off(&self) -> bool {
        matches!(self.ready.front(), Some(Err(_)))
    }

    /// Sees that the head is true to the body where it declares a length: the head waits for the plugin's answer to the first
    /// chunk, which for a buffering plugin is the whole body. A plugin that changes a body's length takes the field away or sets
    /// it, since Envoy sends the one it left.
    pub(crate) async fn prime(&mut self, headers: &HeaderMap) {
        let declared = headers
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if !self.on_body || declared.is_none() {
            return;
        }
        if let Some(first) = self.next().await {
            self.ready.push_front(first);
        }
        let waiting = self
            .ready
            .iter()
            .flatten()
            .filter_map(|frame| frame.data_ref())
            .map(Bytes::len)
            .sum::<usize>();
        self.declared = declared;
        let whole = self.over && self.ready.iter().all(Result::is_ok);
        if whole && self.rewritten && declared != Some(waiting as u64) {
            self.mislabelled(waiting as u64);
            self.fail(Failure::Mislabelled, MISLABELLED.into());
        }
    }

    /// The next frame to send.
    async fn next(&mut self) -> Option<Item> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(self.account(item));
            }
            if self.over {
                return self.missing();
            }
            self.advance().await;
        }
    }

    /// Holds the plugin to the length that went out.
    fn account(&mut self, item: Item) -> Item {
        let Ok(frame) = &item else { return item };
        // Frames pass here once more when the head waited for them; the length is known only afterwards.
        let Some(declared) = self.declared else {
            return item;
        };
        self.sent += frame.data_ref().map_or(0, Bytes::len) as u64;
        if self.sent > declared {
            self.mislabelled(self.sent);
            self.over = true;
            self.declared = None;
            self.ready.clear();
            return Err(MISLABELLED.into());
        }
        item
    }

    /// At the end: an error if less came than was declared.
    fn missing(&mut self) -> Option<Item> {
        let declared = self.declared?;
        if !self.rewritten || self.sent == declared {
            return None;
        }
        self.mislabelled(self.sent);
        self.declared = None;
        Some(Err(MISLABELLED.into()))
    }

    fn mislabelled(&self, bytes: u64) {
        let declared = self.declared.unwrap_or_default();
        tracing::error!(
            plugin = %self.common.name,
            "{MISLABELLED}: {declared} are declared, and it made them {bytes} or more. It has to remove content-length: Envoy sends both as they are",
        );
    }

    async fn advance(&mut self) {
        if self.held {
            let exchange = Arc::clone(&self.exchange);
            let resumed = exchange.signal.of(self.direction).notified();
            if self.source_over {
                resumed.await;
                return self.look().await;
            }
            tokio::select! {
                biased;
                () = resumed => return self.look().await,
                frame = self.inner.frame() => return self.took(frame).await,
            }
        }
        let frame = self.inner.frame().await;
        self.took(frame).await;
    }

    /// Handles what came from the source.
    async fn took(&mut self, frame: Option<Item>) {
        let frame = match frame {
            None => {
                self.source_over = true;
                return self.give(Bytes::new(), true).await;
            }
            Some(Err(error)) => {
                // An end the plugin never sees: it is no end of the body.
                self.over = true;
                if self.direction == Direction::Request {
                    self.exchange.leave();
                }
                return self.ready.push_back(Err(error));
            }
            Some(Ok(frame)) => frame,
        };
        match frame.into_data() {
            Ok(data) => {
                if self.direction == Direction::Response {
                    self.common
                        .meter
                        .body_in
                        .fetch_add(data.len() as u64, Ordering::Relaxed);
                }
                let end = self.inner.is_end_stream();
                self.source_over |= end;
                if !data.is_empty() || end {
                    self.give(data, end).await;
                }
            }
            Err(other) => {
                if let Ok(trailers) = other.into_trailers() {
                    self.source_over = true;
                    self.give_trailers(trailers).await;
                }
            }
        }
    }

    /// Gives a chunk to the plugin.
    async fn give(&mut self, data: Bytes, end: bool) {
        if self.raw || !self.on_body {
            return self.send(data, None);
        }
        let (direction, id) = (self.direction, self.exchange.id);
        let most = self.common.limits.body_buffer_bytes;
        let exchange = Arc::clone(&self.exchange);
        let (held, mut released) = (self.held, Bytes::new());
        let step = exchange.enter(|vm| {
            match vm.stream(id) {
                Some(stream) if stream.verdict.is_none() => {
                    let side = stream.side(direction);
                    released = side.released(held);
                    side.push(data);
                }
                _ => return Ok(Step::Decided),
            }
            let action = vm.on_body(id, direction, end)?;
            Ok(after(vm, id, direction, action, end, most))
        });
        let step = step.await;
        self.send_released(released);
        self.follow(step).await;
    }

    /// Gives the trailer section to the plugin; with it goes what was held back.
    async fn give_trailers(&mut self, trailers: HeaderMap) {
        if self.raw || !(self.on_trailers || self.on_body) {
            return self.send(Bytes::new(), Some(trailers));
        }
        let (direction, id) = (self.direction, self.exchange.id);
        let exchange = Arc::clone(&self.exchange);
        let (held, mut released) = (self.held, Bytes::new());
        let step = exchange.enter(|vm| {
            match vm.stream(id) {
                Some(stream) if stream.verdict.is_none() => {
                    let side = stream.side(direction);
                    released = side.released(held);
                    side.trailers = Some(Fields::of_lines(trailers));
                }
                _ => return Ok(Step::Decided),
            }
            let action = vm.on_trailers(id, direction)?;
            Ok(after(vm, id, direction, action, true, usize::MAX))
        });
        let step = step.await;
        self.send_released(released);
        self.follow(step).await;
    }

    /// Sends what the plugin let go of while the next piece was on its way.
    fn send_released(&mut self, released: Bytes) {
        if !released.is_empty() {
            self.rewritten = true;
            // The end is not over with it: the piece after it may be held back still.
            self.ready.push_back(Ok(Frame::data(released)));
        }
    }

    /// Looks whether the plugin let go of what it holds.
    async fn look(&mut self) {
        let (direction, id, end) = (self.direction, self.exchange.id, self.source_over);
        let exchange = Arc::clone(&self.exchange);
        let step = exchange.enter(|vm| {
            let paused = vm
                .stream(id)
                .is_none_or(|stream| stream.side(direction).paused);
            let action = if paused {
                Action::Pause
            } else {
                Action::Continue
            };
            Ok(after(vm, id, direction, action, end, usize::MAX))
        });
        let step = step.await;
        self.follow(step).await;
    }

    async fn follow(&mut self, step: Result<Step, Gone>) {
        self.held = false;
        match step {
            Ok(Step::Send {
                data,
                trailers,
                rewritten,
            }) => {
                self.rewritten |= rewritten;
                self.send(data, trailers);
            }
            Ok(Step::Hold) => self.held = true,
            Ok(Step::Decided) => self.fail(Failure::Decided, closed()),
            Ok(Step::TooLarge) => {
                if self.direction == Direction::Request {
                    self.refuse().await;
                }
                let most = self.common.limits.body_buffer_bytes;
                tracing::error!(
                    plugin = %self.common.name,
                    "it holds back a body beyond the buffer's {most} bytes",
                );
                self.fail(
                    Failure::TooLarge,
                    "the plugin holds back more of the body than there is room for".into(),
                );
            }
            Err(Gone) => {
                let direction = self.direction;
                let look = |stream: &mut Stream| {
                    let side = stream.side(direction);
                    let trailers = side.trailers.take().map(|trailers| trailers.lines);
                    (std::mem::take(&mut side.buffer), trailers, side.touched())
                };
                match self.exchange.orphan(look).await {
                    Some((data, trailers, false)) if self.common.on_trap == OnTrap::PassThrough => {
                        self.raw = true;
                        self.send(data, trailers);
                    }
                    _ => self.fail(Failure::Trapped, failed()),
                }
            }
        }
    }

    /// A request the plugin holds back for too long is answered with 413, as in Envoy.
    async fn refuse(&mut self) {
        let id = self.exchange.id;
        let refused = self.exchange.enter(|vm| {
            let reply = LocalResponse::plain(StatusCode::PAYLOAD_TOO_LARGE, "Payload Too Large");
            if let Some(stream) = vm.stream(id) {
                stream.reply(reply);
            }
            Ok(())
        });
        // A machine that is gone by now was logged; the failure below stands for both.
        let _ = refused.await;
    }

    fn send(&mut self, data: Bytes, trailers: Option<HeaderMap>) {
        if !data.is_empty() {
            self.ready.push_back(Ok(Frame::data(data)));
        }
        if let Some(trailers) = trailers {
            self.ready.push_back(Ok(Frame::trailers(trailers)));
        }
        self.over |= self.source_over;
    }

    fn fail(&mut self, failure: Failure, error: Error) {
        self.failure = Some(failure);
        self.over = true;
        self.ready.push_back(Err(error));
    }
}

/// What follows from a callback's action and from what the plugin did besides.
fn after(
    vm: &mut Vm,
    id: u32,
    direction: Direction,
    action: Action,
    end: bool,
    most: usize,
) -> Step {
    let Some(stream) = vm.stream(id).filter(|stream| stream.verdict.is_none()) else {
        return Step::Decided;
    };
    let side = stream.side(direction);
    if action != Action::Continue {
        return if side.buffer.len() > most {
            Step::TooLarge
        } else {
            Step::Hold
        };
    }
    let trailers = if end {
        side.trailers
            .as_ref()
            .map(|trailers| trailers.lines.clone())
    } else {
        None
    };
    let trailers = trailers.filter(|trailers| !trailers.is_empty());
    Step::Send {
        data: std::mem::take(&mut side.buffer),
        trailers,
        rewritten: side.rewritten,
    }
}

/// A [`Pump`] as a body: polled by whoever sends it, nothing runs ahead.
pub(crate) struct PumpBody {
    state: State,
    /// Of a response: ends the stream with the body.
    ending: Option<Ending>,
    meter: Option<Arc<Meter>>,
}

/// A pump at work, which comes back with what it brought.
type Pumping = Pin<Box<dyn Future<Output = (Box<Pump>, Option<Item>)> + Send>>;

enum State {
    Idle(Box<Pump>),
    Busy(Pumping),
    Over,
}

impl PumpBody {
    /// The body of a request.
    pub(crate) fn request(pump: Pump) -> Self {
        Self {
            state: State::Idle(Box::new(pump)),
            ending: None,
            meter: None,
        }
    }

    /// The body of a response, whose end is the stream's.
    pub(crate) fn response(pump: Pump, ending: Ending) -> Self {
        let meter = Some(Arc::clone(&pump.common.meter));
        Self {
            state: State::Idle(Box::new(pump)),
            ending: Some(ending),
            meter,
        }
    }
}

impl http_body::Body for PumpBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Item>> {
        let this = &mut *self;
        let item = loop {
            match std::mem::replace(&mut this.state, State::Over) {
                State::Over => return Poll::Ready(None),
                State::Idle(mut pump) => match pump.ready.pop_front() {
                    Some(item) => {
                        let item = pump.account(item);
                        this.state = State::Idle(pump);
                        break Some(item);
                    }
                    None => {
                        this.state = State::Busy(Box::pin(async move {
                            let item = pump.next().await;
                            (pump, item)
                        }));
                    }
                },
                State::Busy(mut busy) => match busy.as_mut().poll(context) {
                    Poll::Pending => {
                        this.state = State::Busy(busy);
                        return Poll::Pending;
                    }
                    Poll::Ready((pump, item)) => {
                        this.state = State::Idle(pump);
                        break item;
                    }
                },
            }
        };
        match &item {
            Some(Ok(frame)) => count(this.meter.as_ref(), frame),
            Some(Err(_)) | None => {
                this.state = State::Over;
                this.ending = None;
            }
        }
        Poll::Ready(item)
    }

    fn is_end_stream(&self) -> bool {
        match &self.state {
            State::Idle(pump) => pump.over && pump.ready.is_empty(),
            State::Busy(_) => false,
            State::Over => true,
        }
    }
}

/// A response's body the plugin has no callbacks for: it passes, and its end is the stream's.
pub(crate) struct Passing {
    inner: Body,
    ending: Option<Ending>,
    meter: Arc<Meter>,
}

impl Passing {
    pub(crate) fn new(inner: Body, ending: Ending, meter: &Arc<Meter>) -> Self {
        Self {
            inner,
            ending: Some(ending),
            meter: Arc::clone(meter),
        }
    }
}

impl http_body::Body for Passing {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Item>> {
        let item = ready!(Pin::new(&mut self.inner).poll_frame(context));
        match &item {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.meter
                        .body_in
                        .fetch_add(data.len() as u64, Ordering::Relaxed);
                }
                count(Some(&self.meter), frame);
            }
            Some(Err(_)) | None => self.ending = None,
        }
        Poll::Ready(item)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn count(meter: Option<&Arc<Meter>>, frame: &Frame<Bytes>) {
    if let (Some(meter), Some(data)) = (meter, frame.data_ref()) {
        meter
            .body_out
            .fetch_add(data.len() as u64, Ordering::Relaxed);
    }
}
