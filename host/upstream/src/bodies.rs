//! Bodies to and from an upstream: watched for silence.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use edgeweir_host_chain::{Error, Silence};
use http_body::{Body as HttpBody, Frame, SizeHint};

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
