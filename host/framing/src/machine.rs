//! From one request to the next, byte by byte.

use crate::frames::Frames;
use crate::head::{self, Body, Malformed};

/// How an HTTP/2 connection with prior knowledge begins (RFC 9113 §3.4), up to its first empty line.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";
/// A chunk's size and its extensions, bytes.
const CHUNK_LINE: usize = 4_096;
/// What a reader behind gets in the place of what was refused: no head, no chunk and no trailer can begin like that.
const REFUSED: &[u8] = b"\0\r\n\r\n";
/// Beyond the bound of a head; the reader behind has the same bound and must see it exceeded.
const BEYOND: usize = 8_192;

/// Follows the requests of one connection. Memory: one head, up to its bound; over HTTP/2 two frames.
#[derive(Debug)]
pub struct Framing {
    state: State,
    held: Vec<u8>,
    /// The most bytes of a head, and of all trailers.
    most: usize,
    trailers: usize,
    fresh: bool,
    /// Of HTTP/2.
    frames: Option<Box<Frames>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Head,
    Length(u64),
    Size,
    Chunk(u64),
    ChunkEnd,
    Trailers,
    /// HTTP/2.
    Frames,
    /// A head beyond its bound: the reader behind says so.
    TooLarge,
    Refused(Malformed),
}

impl Framing {
    /// At the beginning of a connection; a head may have `most` bytes.
    pub fn new(most: usize) -> Self {
        Self {
            state: State::Head,
            held: Vec::new(),
            most: most.saturating_add(BEYOND),
            trailers: 0,
            fresh: true,
            frames: None,
        }
    }

    /// Takes bytes. So many of them pass as they are, without being copied; behind them comes what is put into `out`, a head
    /// only as a whole.
    pub fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> usize {
        let count = bytes.len() as u64;
        match &mut self.state {
            State::Frames => return self.frames(bytes, out),
            State::Length(left) | State::Chunk(left) if *left > count => {
                *left -= count;
                return bytes.len();
            }
            _ => {}
        }
        self.feed(bytes, out);
        0
    }

    /// Whether a first request has come: its head is whole, or over HTTP/2 the head of the first frame.
    pub fn begun(&self) -> bool {
        match &self.frames {
            Some(frames) => frames.begun(),
            None => !self.fresh && self.state != State::Frames,
        }
    }

    /// It is HTTP/2.
    pub fn two(&self) -> bool {
        self.state == State::Frames
    }

    /// A part of a head has come, and it is of HTTP/1.
    pub fn partial(&self) -> bool {
        self.state == State::Head && !self.held.is_empty() && !PREFACE.starts_with(&self.held)
    }

    /// Whether anything else than the reader behind writes may have to go to the client.
    pub fn changes(&self) -> bool {
        self.frames.as_ref().is_some_and(|frames| frames.changes())
    }

    /// What goes to the client in the place of bytes that the reader behind writes, if that is something else.
    pub fn changed(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.frames.as_ref()?.changed(bytes)
    }

    /// The reader behind has written these bytes.
    pub fn written(&mut self, bytes: &[u8]) {
        if let Some(frames) = &mut self.frames {
            frames.written(bytes);
        }
    }

    /// Why it was refused.
    pub fn refused(&self) -> Option<Malformed> {
        match self.state {
            State::Refused(why) => Some(why),
            _ => None,
        }
    }

    /// Nothing more will pass.
    pub fn ended(&self) -> bool {
        matches!(self.state, State::Refused(_) | State::TooLarge)
    }

    fn frames(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> usize {
        let most = self.most;
        let frames = self
            .frames
            .get_or_insert_with(|| Box::new(Frames::new(most)));
        let passed = frames.take(bytes, out);
        if let Some(why) = frames.refused() {
            self.state = State::Refused(why);
        }
        passed
    }

    fn feed(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() && !self.ended() {
            if self.state == State::Frames {
                copied(bytes, out, |bytes, out| self.frames(bytes, out));
                return;
            }
            let (taken, state) = match self.state {
                State::Length(left) => self.through(bytes, left, State::Length, State::Head, out),
                State::Chunk(left) => self.through(bytes, left, State::Chunk, State::ChunkEnd, out),
                State::Head => self.line(bytes, b"\r\n\r\n", self.most, Self::head, out),
                State::Size => self.line(bytes, b"\r\n", CHUNK_LINE, Self::size, out),
                State::ChunkEnd => self.line(bytes, b"\r\n", 2, Self::chunk_end, out),
                State::Trailers => self.line(bytes, b"\r\n", self.most, Self::trailer, out),
                State::Frames | State::TooLarge | State::Refused(_) => return,
            };
            bytes = &bytes[taken..];
            match state {
                Ok(state) => self.state = state,
                Err(why) => {
                    self.state = State::Refused(why);
                    self.held = Vec::new();
                    out.extend_from_slice(REFUSED);
                }
            }
        }
    }

    /// Bytes of a body.
    fn through(
        &mut self,
        bytes: &[u8],
        left: u64,
        stay: fn(u64) -> State,
        then: State,
        out: &mut Vec<u8>,
    ) -> (usize, Result<State, Malformed>) {
        let taken = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        out.extend_from_slice(&bytes[..taken]);
        let left = left - taken as u64;
        (taken, Ok(if left == 0 { then } else { stay(left) }))
    }

    /// Holds bytes until `end`, then asks `judge` what they are.
    fn line(
        &mut self,
        bytes: &[u8],
        end: &[u8],
        most: usize,
        judge: fn(&mut Self, &[u8]) -> Result<State, Malformed>,
        out: &mut Vec<u8>,
    ) -> (usize, Result<State, Malformed>) {
        for (index, byte) in bytes.iter().enumerate() {
            let after_cr = self.held.last() == Some(&b'\r');
            // RFC 9112 §2.2: a bare CR is invalid; a bare LF may be taken for a line end, which not everybody does. §4: NUL
            // is in no part of a message.
            if (*byte == b'\n') != after_cr || *byte == 0 {
                return (index + 1, Err(Malformed::LineEnd));
            }
            self.held.push(*byte);
            if self.state == State::Head {
                // RFC 9112 §2.2: a server ignores at least one empty line before a request line.
                if self.held == b"\r\n" {
                    self.held.clear();
                    continue;
                }
                // What is no request at all is not waited for.
                if self.held.len() == 1 && !byte.is_ascii_graphic() && *byte != b'\r' {
                    return (index + 1, Err(Malformed::RequestLine));
                }
            }
            if self.held.ends_with(end) {
                let held = std::mem::take(&mut self.held);
                let state = judge(self, &held);
                if state.is_ok() {
                    out.extend_from_slice(&held);
                }
                return (index + 1, state);
            }
            if self.held.len() >= most {
                if self.state != State::Head {
                    return (index + 1, Err(Malformed::Chunk));
                }
                out.append(&mut self.held);
                return (index + 1, Ok(State::TooLarge));
            }
        }
        (bytes.len(), Ok(self.state))
    }

    fn head(&mut self, head: &[u8]) -> Result<State, Malformed> {
        if std::mem::replace(&mut self.fresh, false) && head == PREFACE {
            return Ok(State::Frames);
        }
        Ok(match head::request(head)? {
            Body::Length(0) => State::Head,
            Body::Length(length) => State::Length(length),
            Body::Chunked => State::Size,
        })
    }

    // RFC 9112 §7.1: chunk-size [ chunk-ext ] CRLF.
    fn size(&mut self, line: &[u8]) -> Result<State, Malformed> {
        let line = line.strip_suffix(b"\r\n").unwrap_or(line);
        let digits = line
            .iter()
            .take_while(|byte| byte.is_ascii_hexdigit())
            .count();
        let (size, extension) = line.split_at(digits);
        let extension = extension.trim_ascii_start();
        let sound = |byte: &u8| !byte.is_ascii_control() || *byte == b'\t';
        if !(extension.is_empty() || extension.starts_with(b";")) || !extension.iter().all(sound) {
            return Err(Malformed::Chunk);
        }
        let size = std::str::from_utf8(size).map_err(|_| Malformed::Chunk)?;
        match u64::from_str_radix(size, 16) {
            Ok(0) => {
                self.trailers = 0;
                Ok(State::Trailers)
            }
            Ok(size) => Ok(State::Chunk(size)),
            Err(_) => Err(Malformed::Chunk),
        }
    }

    fn chunk_end(&mut self, line: &[u8]) -> Result<State, Malformed> {
        if line == b"\r\n" {
            Ok(State::Size)
        } else {
            Err(Malformed::Chunk)
        }
    }

    fn trailer(&mut self, line: &[u8]) -> Result<State, Malformed> {
        let field = line.strip_suffix(b"\r\n").unwrap_or(line);
        if field.is_empty() {
            return Ok(State::Head);
        }
        self.trailers = self.trailers.saturating_add(line.len());
        if self.trailers > self.most {
            return Err(Malformed::Field);
        }
        head::field(field).map(|_| State::Trailers)
    }
}

/// Puts all that passes of some bytes into `out`, what passes as it is among it.
pub(crate) fn copied(
    bytes: &[u8],
    out: &mut Vec<u8>,
    take: impl FnOnce(&[u8], &mut Vec<u8>) -> usize,
) {
    let mut behind = Vec::new();
    let passed = take(bytes, &mut behind);
    out.extend_from_slice(&bytes[..passed]);
    out.append(&mut behind);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What passes of some bytes when they come in pieces of every size, and how it ends.
    fn play(bytes: &[u8]) -> (Vec<u8>, Option<Malformed>) {
        let mut all = None;
        for size in [1, 2, 3, 7, 64, bytes.len().max(1)] {
            let mut framing = Framing::new(1_000);
            let mut out = Vec::new();
            for piece in bytes.chunks(size) {
                copied(piece, &mut out, |bytes, out| framing.take(bytes, out));
            }
            let got = (out, framing.refused());
            let first = all.get_or_insert_with(|| got.clone());
            assert_eq!(*first, got, "in pieces of {size}");
        }
        all.expect("there are sizes")
    }

    #[test]
    fn requests_one_after_the_other() {
        const NEXT: &str = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";
        for (name, request, why) in [
            ("no body", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", None),
            (
                "a length",
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n\r\n\n\0\r\n",
                None,
            ),
            (
                "chunks",
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n\r\n\0\n\r\n00\r\n\r\n",
                None,
            ),
            (
                "extensions and trailers",
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nA ;a=\"b\"\r\n0123456789\r\n0\r\nx: y\r\nz: \r\n\r\n",
                None,
            ),
            (
                "LF in the head",
                "GET / HTTP/1.1\nHost: a\n\n",
                Some(Malformed::LineEnd),
            ),
            (
                "CR in the head",
                "GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n",
                Some(Malformed::LineEnd),
            ),
            (
                "CR CR LF",
                "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
                Some(Malformed::LineEnd),
            ),
            (
                "NUL",
                "GET / HTTP/1.1\r\nHost: a\0\r\n\r\n",
                Some(Malformed::LineEnd),
            ),
            ("no request", "\x16\x03\x01", Some(Malformed::RequestLine)),
            (
                "no size",
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
                Some(Malformed::Chunk),
            ),
            (
                "0x",
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n",
                Some(Malformed::Chunk),
            ),
            (
                "a sign",
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+1\r\na\r\n",
                Some(Malformed::Chunk),
            ),
            (
                "beyond 64 bits",
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000000\r\na\r\n",
                Some(Malformed::Chunk),
            ),
            (
                "LF after the size",
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n",
                Some(Malformed::LineEnd),
            ),
            (
                "LF in an extension",
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;\n\r\na\r\n0\r\n\r\n",
                Some(Malformed::LineEnd),
            ),
            (
                "a longer chunk",
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
                Some(Malformed::Chunk),
            ),
            (
                "a trailer without a name",
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n: y\r\n\r\n",
                Some(Malformed::Field),
            ),
        ] {
            let bytes = format!("{request}{NEXT}");
            let (out, got) = play(bytes.as_bytes());
            assert_eq!(got, why, "{name}");
            let passed = String::from_utf8_lossy(&out).contains(NEXT);
            assert_eq!(passed, why.is_none(), "{name}");
            match why {
                None => assert_eq!(out, bytes.as_bytes(), "{name}"),
                Some(_) => assert!(out.ends_with(REFUSED), "{name}"),
            }
        }
    }

    #[test]
    fn when_a_connection_has_begun() {
        let two = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        for (name, bytes, begun, two, partial) in [
            ("nothing", String::new(), false, false, false),
            ("empty lines", "\r\n\r\n".to_owned(), false, false, false),
            ("part of a line", "GET / HT".to_owned(), false, false, true),
            (
                "all but the last byte",
                "GET / HTTP/1.1\r\nHost: a\r\n\r".to_owned(),
                false,
                false,
                true,
            ),
            (
                "a head",
                "GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
                true,
                false,
                false,
            ),
            (
                "part of a second one",
                "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET".to_owned(),
                true,
                false,
                true,
            ),
            (
                "part of a preface",
                "PRI * HT".to_owned(),
                false,
                false,
                false,
            ),
            ("its first lines", two[..20].to_owned(), false, true, false),
            ("all of it", two.to_owned(), false, true, false),
            (
                "and SETTINGS",
                format!("{two}\0\0\0\x04\0\0\0\0\0"),
                true,
                true,
                false,
            ),
        ] {
            let mut framing = Framing::new(1_000);
            copied(bytes.as_bytes(), &mut Vec::new(), |bytes, out| {
                framing.take(bytes, out)
            });
            let got = (framing.begun(), framing.two(), framing.partial());
            assert_eq!(got, (begun, two, partial), "{name}");
        }
    }

    #[test]
    fn what_comes_before_and_beyond() {
        let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let (out, why) = play(&[b"\r\n\r\n", &get[..]].concat());
        assert_eq!(
            (&out[..], why),
            (&get[..], None),
            "empty lines before a request are dropped"
        );
        let two = [PREFACE, b"SM\r\n\r\n\0\0\0\x04\0\0\0\0\0"].concat();
        assert_eq!(play(&two), (two.clone(), None), "HTTP/2");
        let late = [&get[..], PREFACE].concat();
        assert_eq!(
            play(&late).1,
            Some(Malformed::RequestLine),
            "but only at the beginning: `*` is a target of OPTIONS alone"
        );
        let long = [
            b"GET / HTTP/1.1\r\nHost: a\r\nx: ",
            &[b'y'; 20_000][..],
            b"\r\n\r\n",
            get,
        ]
        .concat();
        let (out, why) = play(&long);
        assert_eq!(
            (out.len(), why),
            (1_000 + BEYOND, None),
            "a head beyond its bound is left to the reader"
        );
    }
}
