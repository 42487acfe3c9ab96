//! A connection whose other end has to take what is written to it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use edgeweir_host_chain::Silence;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection that fails when something waits to be written and for `limit` nothing of it is taken.
pub struct Flowing<S> {
    inner: S,
    silence: Silence,
}

impl<S> Flowing<S> {
    /// Watches what is written to `inner`.
    pub const fn new(inner: S, limit: Duration) -> Self {
        Self {
            inner,
            silence: Silence::new(limit),
        }
    }

    /// What came of a write, or an error when it has waited for too long.
    fn watched<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.silence.broken();
            return written;
        }
        self.silence.poll_over(cx).map(|()| {
            let why = format!("the client took nothing for {:?}", self.silence.limit());
            Err(io::Error::new(io::ErrorKind::TimedOut, why))
        })
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Flowing<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Flowing<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.watched(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.watched(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.watched(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.watched(cx, shut)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_takes_something_in_time_gets_all_of_it() {
        let limit = Duration::from_secs(1);
        for (name, pause, whole) in [
            ("slow", limit * 9 / 10, true),
            ("too slow", limit * 11 / 10, false),
        ] {
            let (mut client, server) = tokio::io::duplex(10);
            let mut server = Flowing::new(server, limit);
            let reading = tokio::spawn(async move {
                let mut read = 0;
                let mut buffer = [0; 10];
                loop {
                    tokio::time::sleep(pause).await;
                    match client.read(&mut buffer).await {
                        Ok(0) | Err(_) => return read,
                        Ok(count) => read += count,
                    }
                }
            });
            let written = server.write_all(&[0; 100]).await;
            assert_eq!(written.is_ok(), whole, "{name}");
            drop(server);
            assert_eq!(reading.await.unwrap() == 100, whole, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_with_nothing_to_write_is_none() {
        let (mut client, server) = tokio::io::duplex(10);
        let mut server = Flowing::new(server, Duration::from_secs(1));
        for _ in 0..3 {
            server.write_all(&[0; 10]).await.unwrap();
            tokio::time::sleep(Duration::from_secs(5)).await;
            client.read_exact(&mut [0; 10]).await.unwrap();
        }
    }
}
