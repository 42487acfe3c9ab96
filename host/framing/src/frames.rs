//! The frames of an HTTP/2 connection: what the reader behind would take, or end with another code than RFC 9113 has for it.

use crate::answers::{Answers, Code, Due};
use crate::block::{Block, fragment};
use crate::frame::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEAD, HEADERS, Head, PUSH_PROMISE,
    RST_STREAM, SETTINGS, reset, windows,
};
use crate::head::Malformed;
use crate::hpack::{Broken, Reader};
use crate::streams::{State, Streams};

/// The end of the preface, behind its empty line.
const PREFACE_END: usize = b"SM\r\n\r\n".len();

/// What the reader behind gets in the place of what is refused: SETTINGS on a stream, for which it ends the connection. The
/// code it gives is changed to the one that is due.
const REFUSED: [u8; HEAD] = [0, 0, 0, SETTINGS, 0, 0, 0, 0, 1];

/// Follows frames by their heads; of SETTINGS and of field blocks the payload is read. Memory: two frames, beside what
/// [`Reader`], [`Streams`] and [`Answers`] keep.
#[derive(Debug)]
pub struct Frames {
    /// Bytes up to the head of the next frame.
    left: usize,
    first: bool,
    /// A frame that is not whole.
    held: Vec<u8>,
    block: Option<Block>,
    /// The most bytes of the frames of one field block.
    most: usize,
    reader: Reader,
    streams: Streams,
    answers: Answers,
    refused: Option<Malformed>,
}

/// What becomes of a frame.
enum Next {
    /// More of it has to be seen.
    More,
    /// It passes as it is; its length.
    Pass(usize),
    /// It is left out, or something else was given in its place.
    Taken(usize),
}

impl Frames {
    /// Behind the empty line of the preface; a head may have `most` bytes.
    pub fn new(most: usize) -> Self {
        Self {
            left: PREFACE_END,
            first: true,
            held: Vec::new(),
            block: None,
            most: most.saturating_mul(2),
            reader: Reader::new(),
            streams: Streams::new(),
            answers: Answers::default(),
            refused: None,
        }
    }

    /// Takes bytes. So many of them pass as they are, without being copied; behind them comes what is put into `out`.
    pub fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> usize {
        let start = out.len();
        let mut held = std::mem::take(&mut self.held);
        let holding = !held.is_empty();
        if holding {
            held.extend_from_slice(bytes);
        }
        let all = if holding { &held[..] } else { bytes };
        let (mut at, mut copying, mut passed) = (0, holding, 0);
        while self.refused.is_none() {
            let count = self.left.min(all.len() - at);
            if copying {
                out.extend_from_slice(&all[at..at + count]);
            }
            self.left -= count;
            at += count;
            if !copying {
                passed = at;
            }
            match self.frame(&all[at..], out) {
                Ok(Next::More) => break,
                Ok(Next::Pass(length)) => {
                    copying |= out.len() > start;
                    self.left = length;
                }
                Ok(Next::Taken(length)) => {
                    copying = true;
                    at += length;
                }
                Err(why) => {
                    self.refused = Some(why);
                    out.extend_from_slice(&REFUSED);
                    return passed;
                }
            }
        }
        self.held = if holding && at < held.len() {
            held.drain(..at);
            held
        } else if holding {
            // A large frame is not kept for the life of the connection.
            Vec::new()
        } else {
            bytes[at..].to_vec()
        };
        passed
    }

    /// The head of a frame has come.
    pub fn begun(&self) -> bool {
        !self.first
    }

    /// Why the connection ends.
    pub fn refused(&self) -> Option<Malformed> {
        self.refused
    }

    /// The reader behind has written these bytes.
    pub fn written(&mut self, bytes: &[u8]) {
        self.answers.follow(bytes);
    }

    /// Whether a code may have to be changed.
    pub fn changes(&self) -> bool {
        self.refused.is_some() || self.streams.beyond()
    }

    /// What goes to the client in the place of bytes that the reader behind writes, if that is something else.
    pub fn changed(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        if !self.changes() {
            return None;
        }
        let due = Due {
            connection: self.refused.map(code),
            closed: |stream| self.streams.state(stream) == State::Beyond,
        };
        self.answers.changed(bytes, &due)
    }

    /// Judges the frame at the beginning of `rest`.
    fn frame(&mut self, rest: &[u8], out: &mut Vec<u8>) -> Result<Next, Malformed> {
        let Some((head, payload)) = rest.split_first_chunk() else {
            return Ok(Next::More);
        };
        let head = Head::of(head);
        self.in_place(&head)?;
        head.sound()?;
        let whole = HEAD + head.length;
        let payload = match head.kind {
            HEADERS | CONTINUATION => payload.get(..head.length),
            SETTINGS if head.flags & ACK == 0 => payload.get(..head.length),
            _ => Some(&[][..]),
        };
        let Some(payload) = payload else {
            return Ok(Next::More);
        };
        match head.kind {
            HEADERS => {
                let next = match self.headers(&head, payload, out)? {
                    true => Next::Pass(whole),
                    false => Next::Taken(whole),
                };
                return Ok(next);
            }
            CONTINUATION => {
                self.continuation(&head, payload, out)?;
                return Ok(Next::Taken(whole));
            }
            DATA => match self.streams.state(head.stream) {
                State::Open if head.flags & END_STREAM != 0 => {
                    self.streams.set(head.stream, State::Ended);
                }
                State::Ended => self.beyond(head.stream, out),
                _ => {}
            },
            RST_STREAM if self.streams.state(head.stream) != State::Idle => {
                self.streams.set(head.stream, State::Unknown);
            }
            SETTINGS => windows(payload)?,
            // RFC 9113 §8.4: servers MUST treat the receipt of a PUSH_PROMISE frame as a connection error of type
            // PROTOCOL_ERROR.
            PUSH_PROMISE => return Err(Malformed::Push),
            _ => {}
        }
        Ok(Next::Pass(whole))
    }

    /// Whether a frame may come here.
    fn in_place(&mut self, head: &Head) -> Result<(), Malformed> {
        // RFC 9113 §3.4: SETTINGS MUST be the first frame.
        if self.first && (head.kind != SETTINGS || head.flags & ACK != 0) {
            return Err(Malformed::FirstFrame);
        }
        self.first = false;
        // RFC 9113 §6.2 and §6.10: HEADERS without END_HEADERS MUST be followed by CONTINUATION on the same stream, and only
        // they are; anything else MUST be treated as a connection error of type PROTOCOL_ERROR.
        let sound = match &self.block {
            Some(block) => head.kind == CONTINUATION && head.stream == block.stream(),
            None => head.kind != CONTINUATION,
        };
        if sound {
            Ok(())
        } else {
            Err(Malformed::Continuation)
        }
    }

    /// Whether HEADERS pass as they are.
    fn headers(
        &mut self,
        head: &Head,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<bool, Malformed> {
        let (fragment, on) = fragment(head.flags, payload)?;
        self.reader.read(fragment).map_err(undecodable)?;
        let state = self.streams.state(head.stream);
        let ended = head.flags & END_STREAM != 0;
        match state {
            State::Idle if ended => self.streams.set(head.stream, State::Ended),
            State::Idle => self.streams.set(head.stream, State::Open),
            State::Open if ended => self.streams.set(head.stream, State::Ended),
            State::Ended => self.beyond(head.stream, out),
            State::Open | State::Beyond | State::Unknown => {}
        }
        let mut block = Block::new(head.stream, head.flags, state == State::Open);
        self.trailers(&mut block, out)?;
        // RFC 9113 §5.3.2 deprecates priorities. The reader behind takes one on the stream itself for an error of the stream and
        // does not decode the block, which the next blocks depend on.
        let whole = head.flags & END_HEADERS != 0;
        if whole {
            self.reader.end().map_err(undecodable)?;
            if on != Some(head.stream) {
                return Ok(true);
            }
        }
        block.put(fragment);
        block.write(whole, out);
        self.block = (!whole).then_some(block);
        Ok(false)
    }

    fn continuation(
        &mut self,
        head: &Head,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Malformed> {
        let Some(mut block) = self.block.take() else {
            return Err(Malformed::Continuation);
        };
        // RFC 9113 §10.5: large numbers of small or empty frames can be abused to cause a peer to expend time.
        block.spent = block.spent.saturating_add(HEAD + payload.len());
        if block.spent > self.most {
            return Err(Malformed::Continuations);
        }
        self.reader.read(payload).map_err(undecodable)?;
        self.trailers(&mut block, out)?;
        let whole = head.flags & END_HEADERS != 0;
        if whole {
            self.reader.end().map_err(undecodable)?;
        }
        block.put(payload);
        block.write(whole, out);
        self.block = (!whole).then_some(block);
        Ok(())
    }

    /// RFC 9113 §8.1: trailers MUST NOT include pseudo-header fields; such a request is malformed, a stream error of type
    /// PROTOCOL_ERROR (§8.1.1). The reader behind would drop them.
    fn trailers(&mut self, block: &mut Block, out: &mut Vec<u8>) -> Result<(), Malformed> {
        if !block.trailers || !self.reader.pseudo() {
            return Ok(());
        }
        // RFC 9113 §5.4.1: an endpoint MAY choose to treat a stream error as a connection error.
        if block.begun() {
            return Err(Malformed::Trailers);
        }
        block.trailers = false;
        self.streams.set(block.stream(), State::Unknown);
        out.extend_from_slice(&reset(block.stream()));
        Ok(())
    }

    /// RFC 9113 §5.1: frames other than WINDOW_UPDATE, PRIORITY and RST_STREAM on a half-closed (remote) stream are a stream
    /// error of type STREAM_CLOSED. The frame follows: its field block and its bytes count for the connection.
    fn beyond(&mut self, stream: u32, out: &mut Vec<u8>) {
        self.streams.set(stream, State::Beyond);
        out.extend_from_slice(&reset(stream));
    }
}

/// RFC 9113 §4.3: a decoding error in a field block MUST be treated as a connection error of type COMPRESSION_ERROR.
fn undecodable(_: Broken) -> Malformed {
    Malformed::FieldBlock
}

/// The code of the error that ends a connection.
fn code(why: Malformed) -> Code {
    match why {
        Malformed::FrameLength => Code::FrameSize,
        Malformed::Window => Code::FlowControl,
        Malformed::FieldBlock => Code::Compression,
        Malformed::Continuations => Code::EnhanceYourCalm,
        _ => Code::Protocol,
    }
}

#[cfg(test)]
mod tests;
