//! Bodies at the border between the host and a guest: who reads, what was read, and whether the end is the end.

use std::fmt::Display;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use edgeweir_host_chain as chain;
use edgeweir_host_chain::{Meter, Silence};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::sync::oneshot;
use wasmtime_wasi_http::{Error, WasiBody};

use crate::instance::{Instance, Live};
use crate::quiet::{Outside, Quiet};

/// A body whose bytes pass between the host and a guest: they are counted.
pub(crate) fn copied<B: Body<Data = Bytes>>(
    body: B,
    meter: Arc<Meter>,
) -> impl Body<Data = Bytes, Error = B::Error> {
    body.inspect_frame(move |frame| {
        let size = frame.data_ref().map_or(0, |data| data.len() as u64);
        meter.bytes_copied.fetch_add(size, Ordering::Relaxed);
    })
}

/// Waits of a guest for a body from outside.
struct Awaited {
    silence: Silence,
    /// Of the exchange it belongs to, if any.
    quiet: Option<Arc<Quiet>>,
    outside: Option<Outside>,
    /// Ready when nobody is there any more to wait for it.
    left: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Awaited {
    fn new(idle: Duration, quiet: Option<Arc<Quiet>>) -> Self {
        Self {
            silence: Silence::new(idle),
            quiet,
            outside: None,
            left: None,
        }
    }

    /// As part of a response: not for longer than somebody wants that.
    fn until_left(quiet: Arc<Quiet>) -> Self {
        Self {
            left: Some(Box::pin(quiet.clone().left())),
            ..Self::new(quiet.idle, Some(quiet))
        }
    }

    /// Something came.
    fn broken(&mut self) {
        self.silence.broken();
        self.outside = None;
        if let Some(quiet) = &self.quiet {
            quiet.broken();
        }
    }

    /// Nothing came; ready when that has been so for too long.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.outside.is_none() {
            let most = self.silence.limit();
            self.outside = self.quiet.as_ref().map(|it| it.outside_for(most));
        }
        if let Some(left) = &mut self.left
            && left.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(());
        }
        self.silence.poll_over(cx)
    }
}

/// A request's body that can be taken back from a guest that never read it.
#[derive(Clone)]
pub(crate) struct Reclaimable(Arc<Shared>);

struct Shared {
    body: Mutex<(chain::Body, Awaited)>,
    read: AtomicBool,
}

impl Reclaimable {
    pub(crate) fn new(body: chain::Body, quiet: Arc<Quiet>) -> Self {
        let body = Mutex::new((body, Awaited::new(quiet.idle, Some(quiet))));
        Self(Arc::new(Shared {
            body,
            read: AtomicBool::new(false),
        }))
    }

    /// The body as it came, unless some of it was read. A body without content can always be had again.
    pub(crate) fn reclaim(&self) -> Option<chain::Body> {
        let (body, _) = &mut *self.lock();
        if self.0.read.load(Ordering::Relaxed) && !body.is_end_stream() {
            return None;
        }
        Some(std::mem::take(body))
    }

    fn lock(&self) -> MutexGuard<'_, (chain::Body, Awaited)> {
        self.0.body.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Body for Reclaimable {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let (body, awaited) = &mut *self.lock();
        if !body.is_end_stream() {
            self.0.read.store(true, Ordering::Relaxed);
        }
        let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) else {
            ready!(awaited.poll_over(cx));
            return Poll::Ready(Some(Err(Error::ConnectionReadTimeout)));
        };
        awaited.broken();
        Poll::Ready(frame.map(|frame| {
            frame.map_err(|error| {
                tracing::debug!(%error, "the client's body was cut");
                Error::ConnectionTerminated
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.lock().0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.lock().0.size_hint()
    }
}

/// A response's body from elsewhere: a pause that is too long, and an end that is none, are the guest's errors.
pub(crate) struct Timely<B> {
    body: B,
    awaited: Awaited,
}

impl<B> Timely<B> {
    /// Of the next layer.
    pub(crate) fn of(body: B, quiet: Arc<Quiet>) -> Self {
        let awaited = Awaited::until_left(quiet);
        Self { body, awaited }
    }

    /// Of somewhere else, for an exchange if for any; `idle` is the longest pause.
    pub(crate) fn new(body: B, idle: Duration, quiet: Option<Arc<Quiet>>) -> Self {
        let awaited = Awaited::new(idle, quiet);
        Self { body, awaited }
    }
}

impl<B: Body<Data = Bytes, Error: Display> + Unpin> Body for Timely<B> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            ready!(self.awaited.poll_over(cx));
            return Poll::Ready(Some(Err(Error::ConnectionReadTimeout)));
        };
        self.awaited.broken();
        Poll::Ready(frame.map(|frame| {
            frame.map_err(|error| {
                tracing::debug!(%error, "a response's body was cut");
                Error::HttpResponseIncomplete
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body of a guest, whose store ends it as if it were complete when the guest traps.
pub(crate) struct Unbroken {
    body: WasiBody,
    instance: Arc<Instance>,
}

impl Unbroken {
    pub(crate) fn new(body: WasiBody, instance: Arc<Instance>) -> Self {
        Self { body, instance }
    }
}

impl Body for Unbroken {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        // RFC 9112 §8: what is not whole is incomplete, and is not to look complete to anybody.
        if frame.is_none() && self.instance.is_dead() {
            let why = "the guest trapped in the middle of a body";
            return Poll::Ready(Some(Err(Error::InternalError(Some(why.to_owned())))));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && !self.instance.is_dead()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body from the guest.
///
/// A store that is dropped ends its bodies as if they were complete; here such an end is an error, so that a
/// message cut by a trap is never taken for a whole one.
///
/// Silence is held against a guest and its instance only where it waits for nothing outside.
pub(crate) struct FromGuest {
    body: Option<WasiBody>,
    instance: Arc<Instance>,
    /// What `content-length` promised and has not come yet.
    owed: Option<u64>,
    direction: Direction,
    sent: Option<Sent>,
    silence: Silence,
    quiet: Arc<Quiet>,
}

/// Tells the guest how the transmission of its body went.
pub(crate) type Sent = oneshot::Sender<Result<(), Error>>;

enum Direction {
    /// To the next layer.
    Request,
    /// To the layer above. The guard keeps the instance from being retired.
    Response(
        Arc<Meter>,
        #[expect(dead_code, reason = "held for its drop")] Live,
    ),
}

impl FromGuest {
    pub(crate) fn request(
        body: WasiBody,
        instance: Arc<Instance>,
        quiet: Arc<Quiet>,
        sent: Sent,
    ) -> Self {
        let direction = Direction::Request;
        Self {
            body: Some(body),
            instance,
            owed: None,
            direction,
            sent: Some(sent),
            silence: quiet.silence(),
            quiet,
        }
    }

    pub(crate) fn response(
        body: WasiBody,
        instance: Arc<Instance>,
        quiet: Arc<Quiet>,
        sent: Sent,
        length: Option<u64>,
        meter: Arc<Meter>,
        live: Live,
    ) -> Self {
        let direction = Direction::Response(meter, live);
        Self {
            body: Some(body),
            instance,
            owed: length,
            direction,
            sent: Some(sent),
            silence: quiet.silence(),
            quiet,
        }
    }

    fn fail(&mut self, error: Error) -> Poll<Option<Result<Frame<Bytes>, chain::Error>>> {
        // The guest's end is dropped with the body: its next write fails.
        self.body = None;
        if let Some(sent) = self.sent.take() {
            let _ = sent.send(Err(Error::InternalError(Some(error.to_string()))));
        }
        Poll::Ready(Some(Err(error.into())))
    }

    fn cut(&mut self, why: &str) -> Poll<Option<Result<Frame<Bytes>, chain::Error>>> {
        self.fail(Error::InternalError(Some(format!(
            "the guest's body was cut: {why}"
        ))))
    }
}

impl Drop for FromGuest {
    fn drop(&mut self) {
        // The guest may wait for more of the body below, and does not look whether anybody still reads what it writes.
        if self.body.is_some() && matches!(self.direction, Direction::Response(..)) {
            self.quiet.leave();
        }
    }
}

impl Body for FromGuest {
    type Data = Bytes;
    type Error = chain::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, chain::Error>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else {
            return Poll::Ready(None);
        };
        let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) else {
            ready!(this.silence.poll_over(cx));
            while !this.quiet.is_the_guests() {
                this.silence.broken();
                ready!(this.silence.poll_over(cx));
            }
            this.instance.retire();
            return this.cut("nothing came for the plugin's `timeout`");
        };
        this.silence.broken();
        this.quiet.broken();
        match frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    let length = data.len() as u64;
                    if let Direction::Response(meter, _) = &this.direction {
                        meter.body_out.fetch_add(length, Ordering::Relaxed);
                        meter.bytes_copied.fetch_add(length, Ordering::Relaxed);
                    }
                    if let Some(owed) = &mut this.owed {
                        let Some(rest) = owed.checked_sub(length) else {
                            return this.cut("it is longer than its content-length");
                        };
                        *owed = rest;
                    }
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => this.fail(error),
            None if this.instance.is_dead() => this.cut("its instance is gone"),
            None if this.owed.is_some_and(|owed| owed > 0) => {
                this.cut("it is shorter than its content-length")
            }
            None => {
                this.body = None;
                if let Some(sent) = this.sent.take() {
                    let _ = sent.send(Ok(()));
                }
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            // A body that a dead instance leaves behind must be polled once more, to be an error.
            Some(body) => body.is_end_stream() && !self.instance.is_dead(),
            None => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.body, self.owed) {
            (None, _) => SizeHint::with_exact(0),
            (_, Some(owed)) => SizeHint::with_exact(owed),
            (Some(body), None) => body.size_hint(),
        }
    }
}
