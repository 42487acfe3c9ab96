//! Bodies to and from an upstream: watched for silence.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use edgeweir_host_chain::{Body, Error};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::{Instant, Sleep};

/// An upstream's body that fails when nothing arrives for `limit`; it holds `held` until its end.
///
/// The time in which nobody asks for more does not count: a slow client is not a slow upstream.
pub struct Watched<B, H> {
    inner: B,
    limit: Duration,
    silence: Option<Pin<Box<Sleep>>>,
    waiting: bool,
    held: Option<H>,
}

impl<B: HttpBody, H> Watched<B, H> {
    /// Watches `inner`.
    pub fn new(inner: B, limit: Duration, held: H) -> Self {
        let held = (!inner.is_end_stream()).then_some(held);
        Self {
            inner,
            limit,
            silence: None,
            waiting: false,
            held,
        }
    }
}

impl<B, H> HttpBody for Watched<B, H>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<Error>,
    H: Unpin,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) {
            this.waiting = false;
            if !matches!(frame, Some(Ok(_))) || this.inner.is_end_stream() {
                this.held = None;
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let limit = this.limit;
        let silence = this
            .silence
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        if !this.waiting {
            this.waiting = true;
            silence.as_mut().reset(Instant::now() + limit);
        }
        ready!(silence.as_mut().poll(cx));
        Poll::Ready(Some(Err(format!(
            "the upstream sent nothing of its body for {limit:?}"
        )
        .into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// When a request body last moved: the upstream's time runs from there.
#[derive(Clone)]
pub struct Activity {
    start: Instant,
    last_ms: Arc<AtomicU64>,
}

impl Activity {
    /// Starts the clock.
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
            last_ms: Arc::new(AtomicU64::new(0)),
        }
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
        let this = self.clone();
        body.map_frame(move |frame| {
            let ms = u64::try_from(this.start.elapsed().as_millis()).unwrap_or(u64::MAX);
            this.last_ms.store(ms, Relaxed);
            frame
        })
        .boxed_unsync()
    }
}
