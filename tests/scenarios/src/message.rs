//! What is sent, what the origin does, and what was seen.

use std::io::Read as _;
use std::time::Duration;

use serde_json::Value;

use crate::lockstep::Confirmed;

/// A request of the client.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: String,
    /// Path and query; the scenario's own first segment is put before it.
    pub path: String,
    /// Field lines, in order.
    pub fields: Vec<(String, Vec<u8>)>,
    /// The body, written in these pieces.
    pub body: Vec<Vec<u8>>,
    /// The body is chunked, each piece a chunk; else it has a length.
    pub chunked: bool,
}

/// A GET.
pub fn get(path: &str) -> Request {
    request("GET", path)
}

/// A request without a body.
pub fn request(method: &str, path: &str) -> Request {
    Request {
        method: method.to_owned(),
        path: path.to_owned(),
        fields: Vec::new(),
        body: Vec::new(),
        chunked: false,
    }
}

impl Request {
    /// Adds a field line.
    pub fn field(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.fields.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }
    /// A body in one piece.
    pub fn body(self, body: impl AsRef<[u8]>) -> Self {
        self.pieces([body])
    }
    /// A body in pieces, with a length.
    pub fn pieces<B: AsRef<[u8]>>(mut self, pieces: impl IntoIterator<Item = B>) -> Self {
        self.body = pieces
            .into_iter()
            .map(|piece| piece.as_ref().to_vec())
            .collect();
        self
    }
    /// The body is chunked.
    pub fn chunked(mut self) -> Self {
        self.chunked = true;
        self
    }
}

/// How the end of a body is told on HTTP/1.1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// By `content-length`.
    Length,
    /// By chunks.
    Chunked,
    /// By the end of the connection.
    Close,
}

/// What the origin does with a request.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Status.
    pub status: u16,
    /// Field lines, in order; framing fields come from `framing`.
    pub fields: Vec<(String, Vec<u8>)>,
    /// The body, written in these pieces.
    pub body: Vec<Vec<u8>>,
    /// How its end is told.
    pub framing: Framing,
    /// Trailers.
    pub trailers: Vec<(String, String)>,
    /// Time before the head.
    pub delay: Duration,
    /// Time between pieces.
    pub pause: Duration,
    /// The connection is cut after the pieces, before the end.
    pub cut: bool,
    /// Each piece but the first waits until the client has confirmed all before it; when that never comes, the connection
    /// is cut.
    pub confirmed: Option<Confirmed>,
}

impl Origin {
    /// A status without a body.
    pub fn status(status: u16) -> Self {
        Self {
            status,
            fields: Vec::new(),
            body: Vec::new(),
            framing: Framing::Length,
            trailers: Vec::new(),
            delay: Duration::ZERO,
            pause: Duration::ZERO,
            cut: false,
            confirmed: None,
        }
    }
    /// Takes the request and closes the connection without a word.
    pub fn gone() -> Self {
        Self::status(0)
    }
    /// Whether it closes the connection without a word.
    pub fn is_gone(&self) -> bool {
        self.status == 0
    }
    /// 200 with a media type and a body.
    pub fn ok(media_type: &str, body: impl AsRef<[u8]>) -> Self {
        Self::status(200)
            .field("content-type", media_type)
            .body(body)
    }
    /// 200 with text.
    pub fn text(body: impl AsRef<[u8]>) -> Self {
        Self::ok("text/plain", body)
    }
    /// 200 with JSON.
    pub fn json(body: impl AsRef<[u8]>) -> Self {
        Self::ok("application/json", body)
    }
    /// Adds a field line.
    pub fn field(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.fields.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }
    /// The body in one piece.
    pub fn body(self, body: impl AsRef<[u8]>) -> Self {
        self.pieces([body])
    }
    /// The body in pieces, framing unchanged.
    pub fn pieces<B: AsRef<[u8]>>(mut self, pieces: impl IntoIterator<Item = B>) -> Self {
        self.body = pieces
            .into_iter()
            .map(|piece| piece.as_ref().to_vec())
            .filter(|piece| !piece.is_empty())
            .collect();
        self
    }
    /// The body cut into pieces of `size` bytes.
    pub fn cut_into(self, body: impl AsRef<[u8]>, size: usize) -> Self {
        let body = body.as_ref().to_vec();
        self.pieces(body.chunks(size.max(1)))
    }
    /// Told by chunks.
    pub fn chunked(mut self) -> Self {
        self.framing = Framing::Chunked;
        self
    }
    /// Told by the end of the connection.
    pub fn until_close(mut self) -> Self {
        self.framing = Framing::Close;
        self
    }
    /// Adds a trailer (chunked, or HTTP/2).
    pub fn trailer(mut self, name: &str, value: &str) -> Self {
        self.trailers.push((name.to_owned(), value.to_owned()));
        // RFC 9110 §6.6.2: the names that will follow; some HTTP/1.1 servers send no others.
        self.field("trailer", name)
    }
    /// The trailers come without having been announced.
    pub fn unannounced(mut self) -> Self {
        self.fields.retain(|(name, _)| name != "trailer");
        self
    }
    /// Waits before the head.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }
    /// Waits between pieces.
    pub fn pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }
    /// Cuts the connection after the pieces.
    pub fn cut(mut self) -> Self {
        self.cut = true;
        self
    }
    /// Sends a piece only when the client has confirmed all before it.
    pub fn in_lockstep(mut self, confirmed: &Confirmed) -> Self {
        self.confirmed = Some(confirmed.clone());
        self
    }
    /// Whether the piece of this number, counted from 0, may go; waits for it.
    pub(crate) fn may_send(&self, piece: usize) -> bool {
        self.confirmed
            .as_ref()
            .is_none_or(|confirmed| confirmed.wait(piece))
    }
    /// The length of the whole body; of one that is cut, more than will come.
    pub(crate) fn length(&self) -> usize {
        let sent: usize = self.body.iter().map(Vec::len).sum();
        if self.cut { sent + 1_000 } else { sent }
    }
}

/// A request as the origin received it.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// The method.
    pub method: String,
    /// Path and query, without the scenario's own first segment.
    pub path: String,
    /// Field lines.
    pub fields: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Received {
    /// All values of a field, joined with `, `.
    pub fn text(&self, name: &str) -> String {
        joined(&self.fields, name)
    }
}

/// What came of an exchange.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Status the client got; 0 when none came.
    pub status: u16,
    /// Field lines the client got.
    pub fields: Vec<(String, Vec<u8>)>,
    /// Body the client got.
    pub body: Vec<u8>,
    /// Trailers the client got.
    pub trailers: Vec<(String, Vec<u8>)>,
    /// The body's end was told, and came.
    pub complete: bool,
    /// How many bytes of body had come after how much time, for each read.
    pub pieces: Vec<(Duration, usize)>,
    /// The requests the origin got meanwhile.
    pub upstream: Vec<Received>,
}

impl Seen {
    /// All values of a field, joined with `, `; empty when there is none.
    pub fn text(&self, name: &str) -> String {
        joined(&self.fields, name)
    }
    /// The values of a field, a line each.
    pub fn all(&self, name: &str) -> Vec<String> {
        self.fields
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
            .collect()
    }
    /// Whether the field is there.
    pub fn has(&self, name: &str) -> bool {
        self.fields
            .iter()
            .any(|(n, _)| n.eq_ignore_ascii_case(name))
    }
    /// A trailer, joined as a field.
    pub fn trailer(&self, name: &str) -> String {
        joined(&self.trailers, name)
    }
    /// The body as text.
    pub fn body_text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    /// The body after its content coding.
    pub fn decoded(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let coding = self.text("content-encoding");
        let done = match coding.as_str() {
            "" | "identity" => return self.body.clone(),
            "gzip" => flate2::read::GzDecoder::new(&self.body[..]).read_to_end(&mut out),
            "deflate" => flate2::read::ZlibDecoder::new(&self.body[..]).read_to_end(&mut out),
            "br" => brotli::Decompressor::new(&self.body[..], 65_536).read_to_end(&mut out),
            "zstd" => ruzstd::decoding::StreamingDecoder::new(&self.body[..])
                .map_err(std::io::Error::other)
                .and_then(|mut decoder| decoder.read_to_end(&mut out)),
            other => panic!("no decoder for {other:?}"),
        };
        if let Err(error) = done {
            panic!(
                "{coding} body of {} bytes does not decode: {error}",
                self.body.len()
            );
        }
        out
    }
    /// The decoded body as JSON.
    pub fn json(&self) -> Value {
        let body = self.decoded();
        serde_json::from_slice(&body).unwrap_or_else(|error| {
            panic!("no JSON ({error}): {:?}", String::from_utf8_lossy(&body))
        })
    }
    /// What the edge asked the origin; panics unless it was exactly one request.
    pub fn asked(&self) -> &Received {
        match &self.upstream[..] {
            [one] => one,
            other => panic!("the origin got {} requests, not one", other.len()),
        }
    }
    /// Whether it was answered without the origin.
    pub fn answered_at_the_edge(&self) -> bool {
        self.upstream.is_empty()
    }
}

fn joined(fields: &[(String, Vec<u8>)], name: &str) -> String {
    let values: Vec<_> = fields
        .iter()
        .filter(|(n, _)| n.eq_ignore_ascii_case(name))
        .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
        .collect();
    values.join(", ")
}
