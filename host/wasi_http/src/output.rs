//! A guest's standard output and error as log lines with the plugin's name.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use edgeweir_host_chain::Witness;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};

/// A longer line is logged in pieces of this many bytes.
const MAX_LINE: usize = 8192;

/// One of the two streams of one instance.
#[derive(Clone)]
pub(crate) struct Output {
    plugin: Arc<str>,
    stream: &'static str,
    line: Arc<Mutex<Vec<u8>>>,
    witness: Option<Arc<dyn Witness>>,
}

impl Output {
    pub(crate) fn new(
        plugin: &str,
        stream: &'static str,
        witness: Option<Arc<dyn Witness>>,
    ) -> Self {
        Self {
            plugin: plugin.into(),
            stream,
            line: Arc::default(),
            witness,
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
            match &self.witness {
                Some(witness) => witness.log(None, &text),
                None => {
                    tracing::info!(target: "edgeweir::guest", plugin = %self.plugin, stream = self.stream, "{text}");
                }
            }
            line.clear();
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
            let output = Output::new("cache", "stderr", None);
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
}
