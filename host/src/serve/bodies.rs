//! Bodies on their way: counted, watched for silence, and known to have reached their end or not.

use std::future::Future;
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

/// An upstream's body that fails when nothing arrives for `limit`.
///
/// The time in which nobody asks for more does not count: a slow client is not a slow upstream.
pub struct Watched<B> {
    inner: B,
    limit: Duration,
    silence: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl<B> Watched<B> {
    /// Watches `inner`.
    pub fn new(inner: B, limit: Duration) -> Self {
        Self {
            inner,
            limit,
            silence: None,
            waiting: false,
        }
    }
}

impl<B> HttpBody for Watched<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<Error>,
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

/// What is called once a response body ended: its bytes, and whether it was cut.
pub trait OnEnd: Send + Unpin + 'static {
    /// The end, by completion, by error or because the client left.
    fn end(&mut self, bytes: u64, cut: bool);
}

/// A response body that counts its bytes and says when and how it ended.
pub struct Counted<E: OnEnd> {
    inner: Body,
    bytes: u64,
    /// Bytes announced by `content-length`; the server asks for no more once they are through.
    expected: Option<u64>,
    ended: bool,
    failed: bool,
    on_end: E,
}

impl<E: OnEnd> Counted<E> {
    /// Counts `inner`.
    pub fn new(inner: Body, expected: Option<u64>, on_end: E) -> Self {
        Self {
            ended: inner.is_end_stream(),
            inner,
            bytes: 0,
            expected,
            failed: false,
            on_end,
        }
    }
}

impl<E: OnEnd> HttpBody for Counted<E> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.bytes += data.len() as u64;
                }
                self.ended = frame.is_trailers()
                    || self.inner.is_end_stream()
                    || self.expected == Some(self.bytes);
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "a response body was cut");
                self.failed = true;
            }
            None => self.ended = true,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<E: OnEnd> Drop for Counted<E> {
    fn drop(&mut self) {
        let cut = self.failed || !self.ended;
        self.on_end.end(self.bytes, cut);
    }
}
