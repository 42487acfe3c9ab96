//! Bodies at the border between the host and a guest: who reads, what was read, and whether the end is the end.

use std::fmt::Display;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use edgeweir_host_chain as chain;
use edgeweir_host_chain::Meter;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};
use wasmtime_wasi_http::{Error, WasiBody};

use crate::instance::{GRACE, Instance, Live};

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

/// Notices when nothing comes for too long. Counts only while someone waits for more.
struct Patience {
    most: Duration,
    left: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    fn new(most: Duration) -> Self {
        Self { most, left: None }
    }

    /// Something came.
    fn renew(&mut self) {
        if let Some(left) = &mut self.left {
            left.as_mut().reset(Instant::now() + self.most);
        }
    }

    /// Nothing came; ready when that has been so for too long.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let most = self.most;
        self.left
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(most)))
            .as_mut()
            .poll(cx)
    }
}

/// A request's body that can be taken back from a guest that never read it.
#[derive(Clone)]
pub(crate) struct Reclaimable(Arc<Shared>);

struct Shared {
    body: Mutex<(chain::Body, Patience)>,
    read: AtomicBool,
}

impl Reclaimable {
    /// `idle` is the longest pause of the client.
    pub(crate) fn new(body: chain::Body, idle: Duration) -> Self {
        let body = Mutex::new((body, Patience::new(idle)));
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

    fn lock(&self) -> MutexGuard<'_, (chain::Body, Patience)> {
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
        let (body, patience) = &mut *self.lock();
        if !body.is_end_stream() {
            self.0.read.store(true, Ordering::Relaxed);
        }
        let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) else {
            ready!(patience.poll(cx));
            return Poll::Ready(Some(Err(Error::ConnectionReadTimeout)));
        };
        patience.renew();
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
    patience: Patience,
}

impl<B> Timely<B> {
    /// `idle` is the longest pause.
    pub(crate) fn new(body: B, idle: Duration) -> Self {
        Self {
            body,
            patience: Patience::new(idle),
        }
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
            ready!(self.patience.poll(cx));
            return Poll::Ready(Some(Err(Error::ConnectionReadTimeout)));
        };
        self.patience.renew();
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

/// A body from the guest.
///
/// A store that is dropped ends its bodies as if they were complete; here such an end is an error, so that a
/// message cut by a trap is never taken for a whole one.
///
/// A guest that waits for the other side's body learns of a pause there [`GRACE`] before its own silence is held
/// against it and its instance.
pub(crate) struct FromGuest {
    body: Option<WasiBody>,
    instance: Arc<Instance>,
    /// What `content-length` promised and has not come yet.
    owed: Option<u64>,
    direction: Direction,
    sent: Option<Sent>,
    patience: Patience,
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
        idle: Duration,
        sent: Sent,
    ) -> Self {
        let direction = Direction::Request;
        Self {
            body: Some(body),
            instance,
            owed: None,
            direction,
            sent: Some(sent),
            patience: Patience::new(idle + GRACE),
        }
    }

    pub(crate) fn response(
        body: WasiBody,
        instance: Arc<Instance>,
        idle: Duration,
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
            patience: Patience::new(idle + GRACE),
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
            ready!(this.patience.poll(cx));
            this.instance.retire();
            return this.cut("nothing came for the plugin's `timeout`");
        };
        this.patience.renew();
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
