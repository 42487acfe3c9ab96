//! The order of callbacks, from what a host and an Envoy log of them.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What a host is to log.
pub const HOST_LOG: &str = "warn,edgeweir::callbacks=trace";
/// What Envoy's Wasm component is to log.
pub const ENVOY_LOG: &str = "trace";
/// How long the last callbacks of an exchange may take after the client has its response.
const SETTLES: Duration = Duration::from_millis(500);

/// Those of an exchange; the others (start, configuration, ticks) have no place in it.
const OF_AN_EXCHANGE: [&str; 11] = [
    "proxy_on_context_create",
    "proxy_on_request_headers",
    "proxy_on_request_body",
    "proxy_on_request_trailers",
    "proxy_on_response_headers",
    "proxy_on_response_body",
    "proxy_on_response_trailers",
    "proxy_on_http_call_response",
    "proxy_on_done",
    "proxy_on_log",
    "proxy_on_delete",
];

/// The log of one side, read from where it was last read to.
pub struct Trace {
    log: PathBuf,
    read: u64,
}

impl Trace {
    /// From the end of what is there.
    pub fn of(log: PathBuf) -> Self {
        let read = log.metadata().map_or(0, |data| data.len());
        Self { log, read }
    }

    /// The callbacks since the last call: those of whole exchanges, when they settle in time.
    pub async fn since(&mut self) -> Vec<String> {
        let until = Instant::now() + SETTLES;
        loop {
            let text = self.unread();
            let names = names(&text);
            let count = |wanted: &str| names.iter().filter(|name| *name == wanted).count();
            let whole = text.ends_with('\n')
                && count("proxy_on_context_create") == count("proxy_on_delete");
            if (whole && !names.is_empty()) || Instant::now() > until {
                self.read += text.len() as u64;
                return collapsed(names);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn unread(&self) -> String {
        let mut bytes = Vec::new();
        let read = File::open(&self.log).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.read))?;
            file.read_to_end(&mut bytes)
        });
        // The log is ASCII but for what messages quote; a byte that is no text must not move what is read next.
        let text: String = bytes
            .iter()
            .map(|byte| {
                if byte.is_ascii() {
                    char::from(*byte)
                } else {
                    '?'
                }
            })
            .collect();
        read.map_or_else(|_| String::new(), |_| text)
    }
}

/// The callbacks a log names: `… [host->vm] proxy_on_log(3)` of Envoy, `… edgeweir::callbacks: proxy_on_log` of the host.
fn names(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| {
            let rest = line
                .split_once("[host->vm] ")
                .or_else(|| line.split_once("edgeweir::callbacks: "))?
                .1;
            let name: String = rest
                .chars()
                .take_while(|c| c.is_ascii_lowercase() || *c == '_')
                .collect();
            OF_AN_EXCHANGE.contains(&name.as_str()).then_some(name)
        })
        .collect()
}

/// In how many pieces a body comes is the connection's matter: one name for all of them.
fn collapsed(mut names: Vec<String>) -> Vec<String> {
    names.dedup_by(|a, b| a == b && a.ends_with("_body"));
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_logs_say_the_same() {
        let envoy = "[2026-11-21 16:00:00.000][1][trace][wasm] [x.cc:1] [host->vm] proxy_on_vm_start(1, 0)\n\
                     [t][1][trace][wasm] [x.cc:1] [host->vm] proxy_on_context_create(2, 1)\n\
                     [t][1][trace][wasm] [x.cc:1] [host<-vm] proxy_on_context_create return: void\n\
                     [t][1][trace][wasm] [x.cc:1] [vm->host] env.proxy_log(1, 2, 3)\n\
                     [t][1][trace][wasm] [x.cc:1] [host->vm] proxy_on_response_body(2, 5, 0)\n\
                     [t][1][trace][wasm] [x.cc:1] [host->vm] proxy_on_response_body(2, 0, 1)\n";
        let host = "TRACE edgeweir::callbacks: proxy_on_context_create context=2\n\
                    TRACE edgeweir::callbacks: proxy_on_tick context=1\n\
                    TRACE edgeweir::callbacks: proxy_on_response_body context=2\n";
        let want = ["proxy_on_context_create", "proxy_on_response_body"];
        assert_eq!(collapsed(names(envoy)), want);
        assert_eq!(collapsed(names(host)), want);
    }
}
