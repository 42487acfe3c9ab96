//! Bytes on connections, as the network sees them: TLS and heads included.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes so far.
#[derive(Default, Debug)]
pub struct Tally {
    received: AtomicU64,
    sent: AtomicU64,
}

impl Tally {
    /// Bytes received and sent.
    pub fn get(&self) -> (u64, u64) {
        (self.received.load(Relaxed), self.sent.load(Relaxed))
    }
}

/// A connection whose bytes are counted.
pub struct Tallied<S> {
    stream: S,
    tally: Arc<Tally>,
}

impl<S> Tallied<S> {
    /// Counts what goes through a connection.
    pub const fn new(stream: S, tally: Arc<Tally>) -> Self {
        Self { stream, tally }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tallied<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer));
        let count = buffer.filled().len().saturating_sub(before);
        self.tally.received.fetch_add(count as u64, Relaxed);
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> Tallied<S> {
    fn wrote(&self, written: io::Result<usize>) -> Poll<io::Result<usize>> {
        if let Ok(count) = &written {
            self.tally.sent.fetch_add(*count as u64, Relaxed);
        }
        Poll::Ready(written)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tallied<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices));
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn bytes_of_both_ways_are_counted() {
        let (near, mut far) = tokio::io::duplex(64);
        let tally = Arc::<Tally>::default();
        let mut near = Tallied::new(near, tally.clone());
        far.write_all(b"question").await.unwrap();
        let mut buffer = [0; 5];
        near.read_exact(&mut buffer).await.unwrap();
        assert_eq!(tally.get(), (5, 0));
        near.write_all(b"answer").await.unwrap();
        assert_eq!(tally.get(), (5, 6));
    }
}
