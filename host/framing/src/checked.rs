//! A reader that gives what passes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::head::Malformed;
use crate::machine::Framing;

/// A connection whose requests are checked before they are read.
///
/// In the place of what is refused the reader gets bytes that are no HTTP, to which it has to answer with 400, and then the end;
/// over HTTP/2 a frame for which it has to end the connection. What is written passes as it is, but for codes of errors of
/// HTTP/2, which become those that are due.
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
            if fresh.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            let passed = this.framing.take(fresh.filled(), &mut this.ready);
            buffer.advance(passed);
            if let Some(why) = this.framing.refused()
                && let Some(told) = this.on_refused.take()
            {
                told(why);
            }
            if passed > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S, F> Checked<S, F> {
    /// Writes bytes with `write`, or what goes in their place.
    fn write(
        &mut self,
        bytes: &[u8],
        write: impl FnOnce(&mut S, &[u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let changed = self.framing.changed(bytes);
        let count = ready!(write(&mut self.inner, changed.as_deref().unwrap_or(bytes)))?;
        self.framing.written(&bytes[..count.min(bytes.len())]);
        Poll::Ready(Ok(count))
    }
}

impl<S: AsyncWrite + Unpin, F: Unpin> AsyncWrite for Checked<S, F> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut()
            .write(bytes, |inner, bytes| Pin::new(inner).poll_write(cx, bytes))
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
        let this = self.get_mut();
        if this.framing.changes() {
            let slice = slices.iter().find(|it| !it.is_empty());
            let bytes = slice.map_or(&[][..], |it| it);
            return this.write(bytes, |inner, bytes| Pin::new(inner).poll_write(cx, bytes));
        }
        let count = ready!(Pin::new(&mut this.inner).poll_write_vectored(cx, slices))?;
        let mut left = count;
        for slice in slices {
            let written = left.min(slice.len());
            this.framing.written(&slice[..written]);
            left -= written;
        }
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
