//! Bodies to and from an upstream: watched for silence.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use edgeweir_host_chain::{Body, Error, Silence};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::Instant;

/// A body that fails when nothing arrives for `limit`, as `late` says; it holds `held` until its end.
///
/// The time in which nobody asks for more does not count: a slow client is not a slow upstream, and the other way round.
pub struct Watched<B, H, L> {
    inner: B,
    silence: Silence,
    late: L,
    held: Option<H>,
}

impl<B: HttpBody, H, L: FnMut(Duration) -> Error> Watched<B, H, L> {
    /// Watches `inner`.
    pub fn new(inner: B, limit: Duration, held: H, late: L) -> Self {
        let held = (!inner.is_end_stream()).then_some(held);
        Self {
            inner,
            silence: Silence::new(limit),
            late,
            held,
        }
    }
}

impl<B, H, L> HttpBody for Watched<B, H, L>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<Error>,
    H: Unpin,
    L: FnMut(Duration) -> Error + Unpin,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) {
            this.silence.broken();
            if !matches!(frame, Some(Ok(_))) || this.inner.is_end_stream() {
                this.held = None;
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        ready!(this.silence.poll_over(cx));
        Poll::Ready(Some(Err((this.late)(this.silence.limit()))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A body whose first frame was awaited: whether there is any is known.
pub(crate) struct Begun {
    first: Option<Result<Frame<Bytes>, Error>>,
    rest: Body,
}

impl Begun {
    /// Waits for the first frame, or the end.
    pub(crate) async fn of(mut rest: Body) -> Self {
        let first = rest.frame().await;
        if first.is_none() {
            rest = edgeweir_host_chain::empty();
        }
        Self { first, rest }
    }
}

impl HttpBody for Begun {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }
}

/// When a request body last moved: the upstream's time runs from there.
#[derive(Clone)]
pub struct Activity {
    start: Instant,
    last_ms: Arc<AtomicU64>,
    awaited: Arc<AtomicBool>,
    failed: Arc<AtomicBool>,
}

impl Activity {
    /// Starts the clock.
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
            last_ms: Arc::new(AtomicU64::new(0)),
            awaited: Arc::default(),
            failed: Arc::default(),
        }
    }

    /// Whether the body was asked for more and has not given it: whoever sends it is waited for, not the upstream.
    pub fn awaited(&self) -> bool {
        self.awaited.load(Relaxed)
    }

    /// Whether the body broke off.
    pub fn failed(&self) -> bool {
        self.failed.load(Relaxed)
    }

    /// Waits until nothing has moved for `limit`.
    pub async fn silent_for(&self, limit: Duration) {
        loop {
            let last = self.start + Duration::from_millis(self.last_ms.load(Relaxed));
            if last.elapsed() >= limit {
                return;
            }
            tokio::time::sleep_until(last + limit).await;
        }
    }

    /// A body that notes when it moves.
    pub fn noting(&self, body: Body) -> Body {
        let activity = self.clone();
        Noting { body, activity }.boxed_unsync()
    }
}

/// A request body that notes when it moves.
struct Noting {
    body: Body,
    activity: Activity,
}

impl HttpBody for Noting {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        let activity = &self.activity;
        activity.awaited.store(frame.is_pending(), Relaxed);
        if frame.is_ready() {
            let ms = u64::try_from(activity.start.elapsed().as_millis()).unwrap_or(u64::MAX);
            activity.last_ms.store(ms, Relaxed);
        }
        if let Poll::Ready(Some(Err(_))) = frame {
            activity.failed.store(true, Relaxed);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
