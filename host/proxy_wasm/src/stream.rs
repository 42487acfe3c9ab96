//! The state of one exchange inside a virtual machine: what its host functions read and write.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use edgeweir_host_chain::Unreached;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use tokio::sync::Notify;

use crate::fields::Fields;
use crate::plugin::Notes;

/// Which of the two messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Request,
    Response,
}

/// How far an exchange is; decides what a plugin may still do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// The request is on its way, no response is there.
    Request,
    /// The response's head is with the plugin.
    ResponseHead,
    /// The response's head is gone.
    ResponseBody,
    /// Both messages are over: `on_log`, which sees their heads again.
    Log,
    /// `on_done` and what follows.
    Done,
}

/// One message of the exchange.
#[derive(Default)]
pub(crate) struct Side {
    /// `None` until the message is there.
    pub(crate) fields: Option<Fields>,
    /// The head went on: as in Envoy the plugin no longer sees it, but when the exchange is logged.
    pub(crate) gone: bool,
    pub(crate) trailers: Option<Fields>,
    /// What the body callback sees: the chunk, or all that was held back.
    pub(crate) buffer: Bytes,
    /// Whether `buffer` may be read and written now: from a body callback until it is sent on.
    pub(crate) end_of_stream: bool,
    /// Held back until the plugin continues it.
    pub(crate) paused: bool,
    /// The plugin continued it before it was paused.
    pub(crate) resume: bool,
    /// The plugin changed the body.
    pub(crate) rewritten: bool,
    /// Body bytes seen.
    pub(crate) seen: u64,
}

impl Side {
    /// Appends a chunk; the first one is taken over without a copy.
    pub(crate) fn push(&mut self, chunk: Bytes) {
        self.seen += chunk.len() as u64;
        if self.buffer.is_empty() {
            self.buffer = chunk;
        } else if !chunk.is_empty() {
            let held = std::mem::take(&mut self.buffer);
            let mut held = held
                .try_into_mut()
                .unwrap_or_else(|shared| BytesMut::from(&shared[..]));
            held.extend_from_slice(&chunk);
            self.buffer = held.freeze();
        }
    }

    /// Whether the plugin changed the head or the body.
    pub(crate) fn touched(&self) -> bool {
        self.rewritten || self.fields.as_ref().is_some_and(|fields| fields.changed)
    }

    /// What was held back and continued since, as in Envoy where it leaves at once: the next callback sees none of it.
    pub(crate) fn released(&mut self, held: bool) -> Bytes {
        if held && !self.paused {
            std::mem::take(&mut self.buffer)
        } else {
            Bytes::new()
        }
    }

    /// A further callback begins: what it is asked to continue is its own pause, not the one before.
    pub(crate) fn begins(&mut self) {
        self.paused = false;
        self.resume = false;
    }

    /// Continues a paused message, or one that is about to pause. Says whether it was paused.
    pub(crate) fn continues(&mut self) -> bool {
        let was = self.paused;
        self.resume = !was;
        self.paused = false;
        was
    }
}

/// Wakes what waits for the plugin.
#[derive(Default)]
pub(crate) struct Signal {
    pub(crate) request: Notify,
    pub(crate) response: Notify,
    /// A local response, a reset, or the end of the virtual machine.
    pub(crate) verdict: Notify,
}

impl Signal {
    /// Wakes everything.
    pub(crate) fn all(&self) {
        self.request.notify_one();
        self.response.notify_one();
        self.verdict.notify_one();
    }

    /// What the pump of a message waits on.
    pub(crate) fn of(&self, direction: Direction) -> &Notify {
        match direction {
            Direction::Request => &self.request,
            Direction::Response => &self.response,
        }
    }
}

/// A response the plugin (or the host in its place) gives itself.
pub(crate) struct LocalResponse {
    pub(crate) status: http::StatusCode,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: Bytes,
    pub(crate) grpc_status: Option<u32>,
}

impl LocalResponse {
    /// A response of the host: a status with a line of text.
    pub(crate) fn plain(status: http::StatusCode, text: &'static str) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Bytes::from_static(text.as_bytes()),
            grpc_status: None,
        }
    }

    /// The message as Envoy makes it: the length is the body's; without a body there is neither length nor type.
    pub(crate) fn into_response(
        self,
        to_head: bool,
        to_grpc: bool,
    ) -> http::Response<edgeweir_host_chain::Body> {
        let mut headers = HeaderMap::with_capacity(self.headers.len() + 2);
        for (name, value) in self.headers {
            // The plugin's list is bounded, and a line too many is dropped.
            let _ = headers.try_append(name, value);
        }
        let (mut status, mut body) = (self.status, self.body);
        if let Some(code) = self.grpc_status.filter(|_| to_grpc) {
            // A gRPC client reads its status from a trailers-only response.
            status = http::StatusCode::OK;
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert("grpc-status", HeaderValue::from(code));
            if let Ok(message) = HeaderValue::from_bytes(&body) {
                headers.insert("grpc-message", message);
            }
            body = Bytes::new();
        } else if body.is_empty() {
            headers.remove(CONTENT_TYPE);
        } else {
            headers
                .entry(CONTENT_TYPE)
                .or_insert(HeaderValue::from_static("text/plain"));
        }
        headers.remove(CONTENT_LENGTH);
        headers.remove(http::header::TRANSFER_ENCODING);
        if !body.is_empty() && !bodiless(status) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        if to_head || bodiless(status) {
            body = Bytes::new();
        }
        let body = if body.is_empty() {
            edgeweir_host_chain::empty()
        } else {
            edgeweir_host_chain::full(body)
        };
        let mut response = http::Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

/// RFC 9110 §6.4.1: these responses have no content, whatever their fields say.
pub(crate) fn bodiless(status: http::StatusCode) -> bool {
    status.is_informational() || matches!(status.as_u16(), 204 | 304)
}

/// What the plugin decided about the whole exchange.
pub(crate) enum Verdict {
    /// Answer with this.
    Reply(LocalResponse),
    /// `proxy_close_stream`.
    Close,
}

/// One HTTP context.
pub(crate) struct Stream {
    pub(crate) phase: Phase,
    pub(crate) request: Side,
    pub(crate) response: Side,
    pub(crate) verdict: Option<Verdict>,
    /// A local response was accepted once.
    pub(crate) answered: bool,
    pub(crate) signal: Arc<Signal>,
    /// Properties in place of the host's own.
    pub(crate) given: HashMap<Vec<u8>, Vec<u8>>,
    pub(crate) notes: Notes,
    pub(crate) callouts: usize,
    pub(crate) origin: Origin,
    /// `on_done` asked to wait for `proxy_done`.
    pub(crate) lingers: bool,
}

/// What the host knows of an exchange besides its messages.
pub(crate) struct Origin {
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) version: http::Version,
    pub(crate) route: Option<crate::Route>,
    /// Why the response is not the origin's.
    pub(crate) unreached: Option<Unreached>,
    pub(crate) started: Instant,
    pub(crate) started_at: SystemTime,
}

impl Origin {
    /// `response.code_details`, in Envoy's words as far as it has some.
    pub(crate) fn details(&self) -> &'static str {
        match self.unreached {
            None => "via_upstream",
            Some(Unreached::Refused) => {
                "upstream_reset_before_response_started{connection_failure}"
            }
            Some(Unreached::Closed) => {
                "upstream_reset_before_response_started{connection_termination}"
            }
            Some(Unreached::ConnectTimeout | Unreached::Timeout) => "upstream_response_timeout",
            Some(Unreached::Full) => "upstream_reset_before_response_started{overflow}",
            Some(Unreached::Unavailable) => "no_healthy_upstream",
        }
    }
}

impl Stream {
    /// A stream that begins with a request's head.
    pub(crate) fn new(request: Fields, signal: Arc<Signal>, origin: Origin, notes: Notes) -> Self {
        Self {
            phase: Phase::Request,
            request: Side {
                fields: Some(request),
                ..Side::default()
            },
            response: Side::default(),
            verdict: None,
            answered: false,
            signal,
            given: HashMap::new(),
            notes,
            callouts: 0,
            origin,
            lingers: false,
        }
    }

    /// The head of a message as the plugin may see it now.
    pub(crate) fn head<'a>(&self, side: &'a Side) -> Option<&'a Fields> {
        let seen = !side.gone || self.phase == Phase::Log;
        side.fields.as_ref().filter(|_| seen)
    }

    pub(crate) fn side(&mut self, direction: Direction) -> &mut Side {
        match direction {
            Direction::Request => &mut self.request,
            Direction::Response => &mut self.response,
        }
    }

    /// Takes a local response, once. Behind a head that is gone nothing can be answered any more: as in Envoy that resets the
    /// exchange.
    pub(crate) fn reply(&mut self, reply: LocalResponse) -> bool {
        if self.answered || self.verdict.is_some() || self.phase >= Phase::Log {
            return false;
        }
        self.answered = true;
        self.verdict = Some(match self.phase >= Phase::ResponseBody {
            true => Verdict::Close,
            false => Verdict::Reply(reply),
        });
        self.signal.all();
        true
    }

    /// Resets the exchange.
    pub(crate) fn close(&mut self) {
        if self.phase < Phase::Log {
            self.verdict = Some(Verdict::Close);
            self.signal.all();
        }
    }
}
