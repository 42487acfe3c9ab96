//! Response bodies on their way to the client: counted, and known to have reached their end or not.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use edgeweir_host_chain::{Body, Error};
use http_body::{Body as HttpBody, Frame, SizeHint};

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
