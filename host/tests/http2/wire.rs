//! Frames of HTTP/2 by hand, and a client that sends them as they are and keeps what comes back.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// END_STREAM of DATA and HEADERS; ACK of SETTINGS and PING.
pub const END: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;
pub const PADDED: u8 = 0x8;
pub const WITH_PRIORITY: u8 = 0x20;

/// Codes of errors (RFC 9113 §7).
pub const NO_ERROR: u32 = 0;
pub const PROTOCOL: u32 = 1;
pub const FLOW_CONTROL: u32 = 3;
pub const STREAM_CLOSED: u32 = 5;
pub const FRAME_SIZE: u32 = 6;
pub const REFUSED: u32 = 7;
pub const COMPRESSION: u32 = 9;
pub const CALM: u32 = 11;

/// Identifiers of settings (RFC 9113 §6.5.2).
pub const TABLE_SIZE: u16 = 1;
pub const ENABLE_PUSH: u16 = 2;
pub const CONCURRENT: u16 = 3;
pub const WINDOW: u16 = 4;
pub const MAX_FRAME: u16 = 5;

/// What the PING after each case carries: once it is answered all before it was read.
const FENCE: &[u8; 8] = b"the-end.";

/// How long something that has to come is waited for, on a machine that is busy.
pub const PATIENCE: Duration = Duration::from_secs(4);
/// How long nothing has to come for nothing more to be expected.
pub const QUIET: Duration = Duration::from_millis(250);

/// One frame (RFC 9113 §4.1).
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

pub fn headers(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, flags, stream, block)
}

pub fn data(stream: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    frame(DATA, flags, stream, payload)
}

pub fn settings(pairs: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (identifier, value) in pairs {
        payload.extend_from_slice(&identifier.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    frame(SETTINGS, 0, 0, &payload)
}

pub fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

pub fn rst_stream(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

pub fn priority(stream: u32, on: u32) -> Vec<u8> {
    let mut payload = on.to_be_bytes().to_vec();
    payload.push(15);
    frame(PRIORITY, 0, stream, &payload)
}

/// A whole request without a body.
pub fn get(stream: u32, path: &str) -> Vec<u8> {
    headers(stream, END | END_HEADERS, &block("GET", path))
}

/// The head of a request whose body follows.
pub fn post(stream: u32, path: &str) -> Vec<u8> {
    headers(stream, END_HEADERS, &block("POST", path))
}

/// The pseudo-fields of a request, literals without indexing.
pub fn block(method: &str, path: &str) -> Vec<u8> {
    let mut block = literal(b":method", method.as_bytes());
    block.extend(literal(b":scheme", b"http"));
    block.extend(literal(b":authority", b"example.org"));
    block.extend(literal(b":path", path.as_bytes()));
    block
}

/// A literal field line without indexing and with a literal name (RFC 7541 §6.2.2).
pub fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut line = vec![0];
    for text in [name, value] {
        line.push(u8::try_from(text.len()).expect("short"));
        assert!(text.len() < 127, "one byte of length");
        line.extend_from_slice(text);
    }
    line
}

pub fn together<const N: usize>(parts: [Vec<u8>; N]) -> Vec<u8> {
    parts.concat()
}

/// What a server sent, as far as a verdict depends on it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Got {
    Head {
        stream: u32,
        ok: bool,
        end: bool,
    },
    Data {
        stream: u32,
        length: usize,
        end: bool,
    },
    Reset {
        stream: u32,
        code: u32,
    },
    Settings(Vec<(u16, u32)>),
    SettingsAck,
    Pong(Vec<u8>),
    GoAway(u32),
    WindowUpdate {
        stream: u32,
        by: u32,
    },
    Closed,
    Other(u8),
}

/// A connection, and all that came on it.
pub struct Wire {
    stream: TcpStream,
    read: Vec<u8>,
    pub got: Vec<Got>,
    /// The field block of the first head that came.
    pub first_block: Option<Vec<u8>>,
}

impl Wire {
    /// A connection on which nothing was sent.
    pub fn bare(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        stream
            .set_write_timeout(Some(Duration::from_secs(1)))
            .expect("a timeout");
        Self {
            stream,
            read: Vec::new(),
            got: Vec::new(),
            first_block: None,
        }
    }

    /// A connection opened with a preface and these settings.
    pub fn open(address: SocketAddr, pairs: &[(u16, u32)]) -> Self {
        let mut wire = Self::bare(address);
        wire.send(&[PREFACE.to_vec(), settings(pairs)].concat());
        wire
    }

    /// Whether all was taken; a server that closed or no longer reads takes no more.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    pub fn closed(&self) -> bool {
        self.got.contains(&Got::Closed)
    }

    /// Reads until `done`, the connection is closed, or nothing came for `patience`. Whether it was done or closed.
    pub fn read_until(&mut self, patience: Duration, done: impl Fn(&[Got]) -> bool) -> bool {
        let mut last = Instant::now();
        loop {
            if done(&self.got) || self.closed() {
                return true;
            }
            let Some(left) = patience
                .checked_sub(last.elapsed())
                .filter(|it| !it.is_zero())
            else {
                return false;
            };
            self.stream.set_read_timeout(Some(left)).expect("a timeout");
            let mut buffer = [0; 16_384];
            match self.stream.read(&mut buffer) {
                Ok(0) => self.got.push(Got::Closed),
                Ok(count) => {
                    self.read.extend_from_slice(&buffer[..count]);
                    last = Instant::now();
                    self.take_frames();
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => self.got.push(Got::Closed),
            }
        }
    }

    /// Sends a PING and reads until it is answered and `done`, or some quiet has passed.
    pub fn fence(&mut self, quiet: Duration, done: impl Fn(&[Got]) -> bool) {
        self.send(&frame(PING, 0, 0, FENCE));
        let fenced = |got: &[Got]| got.contains(&Got::Pong(FENCE.to_vec()));
        self.read_until(PATIENCE, |got| fenced(got) || done(got));
        // Errors of streams and answers of the origin may come after it.
        self.read_until(quiet, done);
    }

    /// Reads until `done`, and whatever comes right behind.
    pub fn settle(&mut self, done: impl Fn(&[Got]) -> bool) {
        self.read_until(PATIENCE, done);
        self.read_until(QUIET, |_| false);
    }

    /// What the server announced, once it came.
    pub fn announced(&mut self, wanted: u16) -> Option<u32> {
        let is_settings = |got: &Got| matches!(got, Got::Settings(_));
        self.read_until(PATIENCE, |got| got.iter().any(is_settings));
        self.got.iter().find_map(|got| match got {
            Got::Settings(pairs) => {
                let found = pairs.iter().find(|(identifier, _)| *identifier == wanted);
                found.map(|(_, value)| *value)
            }
            _ => None,
        })
    }

    fn take_frames(&mut self) {
        // An answer of HTTP/1.1 is no frame: what counts is that the connection is closed after it.
        if self.read.starts_with(b"HTTP/1.") {
            return;
        }
        while self.read.len() >= 9 {
            let length = u32::from_be_bytes([0, self.read[0], self.read[1], self.read[2]]) as usize;
            if self.read.len() < 9 + length {
                return;
            }
            let frame: Vec<u8> = self.read.drain(..9 + length).collect();
            let got = self.frame(
                frame[3],
                frame[4],
                number(&frame[5..]) & !(1 << 31),
                &frame[9..],
            );
            self.got.push(got);
        }
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Got {
        let end = flags & END != 0;
        match kind {
            HEADERS => {
                self.first_block.get_or_insert_with(|| payload.to_vec());
                let ok = begins_with_200(payload);
                Got::Head { stream, ok, end }
            }
            DATA => Got::Data {
                stream,
                length: payload.len(),
                end,
            },
            RST_STREAM => Got::Reset {
                stream,
                code: number(payload),
            },
            SETTINGS if end => Got::SettingsAck,
            SETTINGS => {
                let pairs = payload.chunks_exact(6);
                Got::Settings(
                    pairs
                        .map(|it| (u16::from_be_bytes([it[0], it[1]]), number(&it[2..])))
                        .collect(),
                )
            }
            PING if end => Got::Pong(payload.to_vec()),
            GOAWAY => Got::GoAway(number(&payload[4..])),
            WINDOW_UPDATE => Got::WindowUpdate {
                stream,
                by: number(payload),
            },
            other => Got::Other(other),
        }
    }
}

/// Bytes of DATA that came on a stream.
pub fn data_on(got: &[Got], wanted: u32) -> usize {
    let lengths = got.iter().map(|got| match got {
        Got::Data { stream, length, .. } if *stream == wanted => *length,
        _ => 0,
    });
    lengths.sum()
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// Sizes of the dynamic table may come first; 0x88 is `:status: 200` of the static table.
fn begins_with_200(mut block: &[u8]) -> bool {
    while let [size, rest @ ..] = block
        && size & 0xe0 == 0x20
    {
        block = rest;
        if size & 0x1f == 0x1f {
            let end = block.iter().position(|byte| byte & 0x80 == 0);
            block = &block[end.map_or(block.len(), |at| at + 1)..];
        }
    }
    block.first() == Some(&0x88)
}
