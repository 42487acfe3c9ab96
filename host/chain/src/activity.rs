//! How long a request has not moved.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use tokio::time::Instant;

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

    /// Has the time begin anew.
    pub fn moved(&self) {
        let ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(ms, Relaxed);
    }

    /// A body that notes when it moves.
    pub fn noting<E: 'static>(&self, body: UnsyncBoxBody<Bytes, E>) -> UnsyncBoxBody<Bytes, E> {
        let activity = self.clone();
        Noting { body, activity }.boxed_unsync()
    }
}

/// A request body that notes when it moves.
struct Noting<E> {
    body: UnsyncBoxBody<Bytes, E>,
    activity: Activity,
}

// Nothing in it is pinned: the body is in a box.
impl<E> Unpin for Noting<E> {}

impl<E> Body for Noting<E> {
    type Data = Bytes;
    type Error = E;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, E>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        let activity = &self.activity;
        activity.awaited.store(frame.is_pending(), Relaxed);
        if frame.is_ready() {
            activity.moved();
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
