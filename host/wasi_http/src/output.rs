//! A guest's standard output and error as log lines with the plugin's name, and the counters among them.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use edgeweir_host_chain::{Meter, Witness};
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

/// A longer line is logged in pieces of this many bytes.
const MAX_LINE: usize = 8192;

/// The environment variable by which a guest is asked for counters.
pub(crate) const COUNTERS_ASKED: &str = "EDGEWEIR_COUNTERS";
/// What a line of counters begins with: names with what was added to them follow, `name=12`.
const COUNTERS: &str = "edgeweir-counters ";
/// Counters a guest may have; what it counts beside them is left out.
const MOST_COUNTERS: usize = 256;
/// The longest name a counter may have, bytes.
const LONGEST_NAME: usize = 128;

/// One of the two streams of one instance.
#[derive(Clone)]
pub(crate) struct Output {
    plugin: Arc<str>,
    stream: &'static str,
    line: Arc<Mutex<Vec<u8>>>,
    witness: Option<Arc<dyn Witness>>,
    meter: Arc<Meter>,
}

impl Output {
    pub(crate) fn new(
        plugin: &str,
        stream: &'static str,
        witness: Option<Arc<dyn Witness>>,
        meter: Arc<Meter>,
    ) -> Self {
        Self {
            plugin: plugin.into(),
            stream,
            line: Arc::default(),
            witness,
            meter,
        }
    }

    fn write(&self, bytes: &[u8]) {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        for &byte in bytes {
            if byte == b'\n' {
                self.log(&mut line);
            } else {
                line.push(byte);
                if line.len() >= MAX_LINE {
                    self.log(&mut line);
                }
            }
        }
    }

    fn log(&self, line: &mut Vec<u8>) {
        if !line.is_empty() {
            // Control characters would let a guest forge lines of the host's log.
            let text = String::from_utf8_lossy(line).replace(|c: char| c.is_control(), " ");
            match (text.strip_prefix(COUNTERS), &self.witness) {
                (Some(counts), _) => self.count(counts),
                (None, Some(witness)) => witness.log(None, &text),
                (None, None) => {
                    tracing::info!(target: "edgeweir::guest", plugin = %self.plugin, stream = self.stream, "{text}");
                }
            }
            line.clear();
        }
    }

    fn count(&self, counts: &str) {
        let well_named = |name: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            name.len() <= LONGEST_NAME && name.bytes().all(plain)
        };
        for (name, by) in counts
            .split_ascii_whitespace()
            .filter_map(|count| count.split_once('='))
        {
            if let Ok(by) = by.parse()
                && well_named(name)
            {
                self.meter.add_counter_within(name, by, MOST_COUNTERS);
            }
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // A guest that traps has often said why in a line it did not end.
        if Arc::strong_count(&self.line) == 1 {
            let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
            let mut rest = std::mem::take(&mut *line);
            drop(line);
            self.log(&mut rest);
        }
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    /// Always ready: the library's own hands what is written to a task, and a guest that writes would block its instance until
    /// that has run; requests that come meanwhile would have another one started.
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        Output::write(self, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(MAX_LINE)
    }
}

#[async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}

impl AsyncWrite for Output {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0
                .lock()
                .expect("not poisoned")
                .extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_logged_whole_with_the_plugins_name() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let output = Output::new("cache", "stderr", None, Arc::default());
            let stream = output.clone();
            stream.write(b"one ");
            stream.write(b"line\nanother \x1b[2J\r\n\nthe last");
            drop(stream);
            drop(output);
        });
        let log = String::from_utf8(log.0.lock().expect("not poisoned").clone()).expect("text");
        let lines: Vec<_> = log.lines().collect();
        assert_eq!(lines.len(), 3, "{log}");
        for (line, want) in lines.iter().zip(["one line", "another  [2J ", "the last"]) {
            assert!(
                line.contains(want) && line.contains("plugin=cache"),
                "{line}"
            );
        }
        assert!(!log.contains('\x1b'));
    }

    #[test]
    fn counters_are_no_log_lines_and_have_a_bound() {
        let meter = Arc::new(Meter::default());
        let output = Output::new("cache", "stderr", None, Arc::clone(&meter));
        output.write(b"edgeweir-counters edgeweir.cache.hit=2 edgeweir.cache.miss=1\n");
        output.write(b"edgeweir-counters edgeweir.cache.hit=3 no x=-1 <b>=1 y=\n");
        let counters = meter.snapshot().counters;
        let want = [("edgeweir.cache.hit", 5), ("edgeweir.cache.miss", 1)];
        assert_eq!(
            counters,
            want.map(|(name, count)| (name.to_owned(), count)).into()
        );
        for name in 0..2 * MOST_COUNTERS {
            output.write(format!("edgeweir-counters n{name}=1\n").as_bytes());
        }
        output.write(b"edgeweir-counters edgeweir.cache.hit=1\n");
        let counters = meter.snapshot().counters;
        assert_eq!(counters.len(), MOST_COUNTERS);
        assert_eq!(counters["edgeweir.cache.hit"], 6);
    }
}
