//! A reader that gives what passes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::head::Malformed;
use crate::machine::Framing;

/// What a client is told whose first head is not whole in time.
// RFC 9110 §15.5.9: the server did not receive a complete request message within the time that it was prepared to wait.
const LATE: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// A connection whose requests are checked before they are read.
///
/// It has to begin in time, with a head of HTTP/1.1 or a frame of HTTP/2; else it ends, after a 408 where a part of a head had
/// come. What comes later the reader has to time: it gets a head only when that is whole.
///
/// In the place of what is refused the reader gets bytes that are no HTTP, to which it has to answer with 400, and then the end;
/// over HTTP/2 a frame for which it has to end the connection. What is written passes as it is, but for codes of errors of
/// HTTP/2, which become those that are due.
pub struct Checked<S, F> {
    inner: S,
    framing: Framing,
    ready: Vec<u8>,
    at: usize,
    two: Arc<AtomicBool>,
    /// Until it has begun.
    opening: Option<Pin<Box<Sleep>>>,
    /// It did not begin in time.
    late: bool,
    on_refused: Option<F>,
}

impl<S, F> Checked<S, F> {
    /// Checks `inner`, whose heads may have `most` bytes and which has to begin within `limit`; `on_refused` is told once. Must
    /// be called within a tokio runtime.
    pub fn new(inner: S, most: usize, limit: Duration, on_refused: F) -> Self {
        Self {
            inner,
            framing: Framing::new(most),
            ready: Vec::new(),
            at: 0,
            two: Arc::default(),
            opening: Some(Box::pin(tokio::time::sleep(limit))),
            late: false,
            on_refused: Some(on_refused),
        }
    }

    /// Whether it turned out to be HTTP/2.
    pub fn two(&self) -> Arc<AtomicBool> {
        self.two.clone()
    }
}

impl<S: AsyncWrite + Unpin, F> Checked<S, F> {
    /// Ends what has not begun in time.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(opening) = &mut self.opening else {
            return self.late;
        };
        if opening.as_mut().poll(cx).is_pending() {
            return false;
        }
        self.opening = None;
        self.late = true;
        if self.framing.partial() {
            // Nothing was written before: there is room for this. Who does not take it does not get it.
            let _ = Pin::new(&mut self.inner).poll_write(cx, LATE);
            let _ = Pin::new(&mut self.inner).poll_flush(cx);
        }
        true
    }
}

impl<S, F> AsyncRead for Checked<S, F>
where
    S: AsyncRead + AsyncWrite + Unpin,
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
            if this.framing.ended() || buffer.remaining() == 0 || this.poll_late(cx) {
                return Poll::Ready(Ok(()));
            }
            let mut fresh = ReadBuf::new(buffer.initialize_unfilled());
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut fresh))?;
            if fresh.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            let passed = this.framing.take(fresh.filled(), &mut this.ready);
            buffer.advance(passed);
            if this.opening.is_some() {
                this.two.store(this.framing.two(), Relaxed);
                if this.framing.begun() {
                    this.opening = None;
                }
            }
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

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_has_to_begin_in_time() {
        const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let settings = [PREFACE, b"\0\0\0\x04\0\0\0\0\0"].concat();
        for (name, sent, ends, answer) in [
            ("silent", &b""[..], true, &b""[..]),
            ("an empty line", b"\r\n", true, b""),
            ("part of a head", b"GET / HTTP/1.1\r\nHo", true, LATE),
            ("part of a preface", b"PRI * HT", true, b""),
            ("a preface", PREFACE, true, b""),
            ("a head", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", false, b""),
            ("SETTINGS", &settings, false, b""),
        ] {
            let (mut client, server) = tokio::io::duplex(1_000);
            let limit = Duration::from_secs(1);
            let mut checked = Checked::new(server, 1_000, limit, |_| {});
            // One byte after the other: none of them gives it more time.
            let sending = async {
                let pause = limit.mul_f64(0.9) / u32::try_from(sent.len().max(1)).expect("short");
                for byte in sent {
                    client.write_all(&[*byte]).await.expect("room");
                    tokio::time::sleep(pause).await;
                }
                std::future::pending::<()>().await;
            };
            let reading = async { checked.read_to_end(&mut Vec::new()).await };
            let ended = tokio::select! {
                () = sending => unreachable!(),
                ended = tokio::time::timeout(limit * 2, reading) => ended.is_ok(),
            };
            assert_eq!(ended, ends, "{name}");
            drop(checked);
            let mut got = Vec::new();
            client.read_to_end(&mut got).await.expect("an end");
            assert_eq!(got, answer, "{name}");
        }
    }

    #[test]
    fn an_error_of_http2_is_told_in_both_directions() {
        let settings = b"\0\0\0\x04\0\0\0\0\0";
        let start = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &settings[..]].concat();
        // Index 0, which stands for nothing.
        let broken = b"\0\0\x01\x01\x05\0\0\0\x01\x80";
        let behind = b"\0\0\x08\x06\0\0\0\0\0what now";
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let (mut client, server) = tokio::io::duplex(1_000);
            let mut why = None;
            let mut checked = Checked::new(server, 1_000, Duration::from_secs(9), |told| {
                why = Some(told)
            });
            let sent = [&start[..], broken, behind].concat();
            client.write_all(&sent).await.expect("room");
            let mut read = Vec::new();
            checked.read_to_end(&mut read).await.expect("an end");
            // SETTINGS on a stream, for which the reader ends the connection.
            assert_eq!(read, [&start[..], b"\0\0\0\x04\0\0\0\0\x01"].concat());

            let away = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x01";
            let mut left = [settings, &away[..]].concat();
            while !left.is_empty() {
                let (first, second) = left.split_at(left.len().min(12));
                let slices = [IoSlice::new(first), IoSlice::new(second)];
                let count = checked.write_vectored(&slices).await.expect("room");
                left.drain(..count);
            }
            drop(checked);
            let mut got = Vec::new();
            client.read_to_end(&mut got).await.expect("an end");
            let due = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x09";
            assert_eq!(got, [settings, &due[..]].concat());
            assert_eq!(why, Some(Malformed::FieldBlock));
        });
    }
}
