//! The access log: a line of JSON for each exchange, written beside the traffic.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::UNIX_EPOCH;

use edgeweir_host_chain::Timeline;
use serde_json::json;

use crate::stats::Ended;

/// Lines that wait to be written; beyond it a line is dropped and counted.
const WAITING: usize = 8_192;

/// A file that lines go to. Its thread ends, with everything written, when this is dropped.
pub struct AccessLog {
    lines: SyncSender<String>,
    dropped: AtomicU64,
}

/// What a line says beside what the dashboard knows.
pub struct About {
    /// The listener.
    pub listener: String,
    /// The client's connection.
    pub peer: SocketAddr,
    /// Whom the request was for.
    pub host: String,
    /// Path and query.
    pub path: String,
    /// Its identifier.
    pub request_id: Option<String>,
    /// What the layers took and gave.
    pub timeline: Option<Timeline>,
}

impl AccessLog {
    /// Opens a file to append to; `-` is the standard output.
    pub fn open(file: &Path) -> io::Result<Self> {
        let out: Box<dyn Write + Send> = if file == Path::new("-") {
            Box::new(io::stdout())
        } else {
            Box::new(OpenOptions::new().create(true).append(true).open(file)?)
        };
        let (lines, waiting) = sync_channel(WAITING);
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write(out, &waiting))?;
        Ok(Self {
            lines,
            dropped: AtomicU64::new(0),
        })
    }

    /// Whether a file could be opened; one that is not there is not made.
    pub fn look_at(file: &Path) -> io::Result<()> {
        if file == Path::new("-") {
            return Ok(());
        }
        match OpenOptions::new().append(true).open(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && file.file_name().is_some() => {
                let folder = file.parent().filter(|it| !it.as_os_str().is_empty());
                std::fs::metadata(folder.unwrap_or(Path::new("."))).map(drop)
            }
            opened => opened.map(drop),
        }
    }

    /// Writes a line; never waits.
    pub fn note(&self, about: &About, ended: &Ended) {
        match self.lines.try_send(line(about, ended)) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => {
                // Once in a while, not once a line: the disk is slow already.
                if self.dropped.fetch_add(1, Relaxed).is_multiple_of(10_000) {
                    tracing::warn!("the access log cannot keep up: lines are dropped");
                }
            }
        }
    }
}

fn write(out: Box<dyn Write + Send>, lines: &Receiver<String>) {
    let mut out = BufWriter::new(out);
    let mut complained = false;
    while let Ok(first) = lines.recv() {
        let mut written = out.write_all(first.as_bytes());
        for line in lines.try_iter() {
            written = written.and_then(|()| out.write_all(line.as_bytes()));
        }
        if let Err(error) = written.and_then(|()| out.flush())
            && !std::mem::replace(&mut complained, true)
        {
            tracing::error!(%error, "the access log cannot be written");
        }
    }
}

fn line(about: &About, ended: &Ended) -> String {
    let since = ended.at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut value = json!({
        "time": since.as_millis() as u64,
        "listener": about.listener,
        "client": about.peer.to_string(),
        "host": about.host,
        "method": ended.method,
        "path": about.path,
        "status": ended.status,
        "bytes": ended.bytes,
        "took_us": ended.took.as_micros() as u64,
        "cut": ended.cut,
    });
    if let Some(fields) = value.as_object_mut() {
        let optional = [
            ("request_id", about.request_id.as_deref().unwrap_or("")),
            ("cache_status", &ended.cache_status),
            ("rate_limit", &ended.rate_limit),
            ("content_encoding", &ended.content_encoding),
        ];
        for (name, text) in optional {
            if !text.is_empty() {
                fields.insert(name.to_owned(), text.into());
            }
        }
        if let Some(timeline) = &about.timeline {
            let layers = timeline.own();
            let layers = layers.iter().map(|it| {
                json!({
                    "name": it.name,
                    "took_us": it.took.as_micros() as u64,
                    "bytes": it.passed,
                })
            });
            fields.insert("layers".to_owned(), layers.collect());
        }
    }
    format!("{value}\n")
}
