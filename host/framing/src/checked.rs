//! A reader that gives what passes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::head::Malformed;
use crate::machine::Framing;

/// A connection whose requests are checked before they are read; what is written passes as it is.
///
/// In the place of what is refused the reader gets bytes that are no HTTP, to which it has to answer with 400, and then the end;
/// over HTTP/2 a frame for which it has to end the connection with the code that is due.
pub struct Checked<S, F> {
    inner: S,
    framing: Framing,
    ready: Vec<u8>,
    at: usize,
    on_refused: Option<F>,
}

impl<S, F> Checked<S, F> {
    /// Checks `inner`, whose heads may have `most` bytes; `on_refused` is told once.
    pub fn new(inner: S, most: usize, on_refused: F) -> Self {
        Self {
            inner,
            framing: Framing::new(most),
            ready: Vec::new(),
            at: 0,
            on_refused: Some(on_refused),
        }
    }
}

impl<S, F> AsyncRead for Checked<S, F>
where
    S: AsyncRead + Unpin,
    F: FnOnce(Malformed) + Unpin,
{
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.at < this.ready.len() {
                let count = buffer.remaining().min(this.ready.len() - this.at);
                buffer.put_slice(&this.ready[this.at..this.at + count]);
                this.at += count;
                if this.at == this.ready.len() {
                    // A large head is not kept for the life of the connection.
                    this.ready = Vec::new();
                    this.at = 0;
                }
                return Poll::Ready(Ok(()));
            }
            if this.framing.ended() || buffer.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            let mut fresh = ReadBuf::new(buffer.initialize_unfilled());
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut fresh))?;
            let count = fresh.filled().len();
            if count == 0 {
                return Poll::Ready(Ok(()));
            }
            if this.framing.passes(fresh.filled()) {
                buffer.advance(count);
                return Poll::Ready(Ok(()));
            }
            this.framing.feed(fresh.filled(), &mut this.ready);
            if let Some(why) = this.framing.refused()
                && let Some(told) = this.on_refused.take()
            {
                told(why);
            }
        }
    }
}

impl<S: AsyncWrite + Unpin, F: Unpin> AsyncWrite for Checked<S, F> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
