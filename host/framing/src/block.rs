//! A field block in more than one frame, put together again.

use crate::frame::{
    CONTINUATION, END_HEADERS, END_STREAM, HEADERS, MAX_FRAME, PADDED, WITH_PRIORITY,
};
use crate::head::Malformed;

/// A field block whose end has not come. It is written again in the fewest frames, for the reader behind bounds their number,
/// not what they cost. Memory: two frames.
#[derive(Debug)]
pub struct Block {
    stream: u32,
    end_stream: u8,
    bytes: Vec<u8>,
    /// HEADERS were written.
    begun: bool,
    /// Bytes of its frames, with their heads.
    pub spent: usize,
    /// It is no request's.
    pub trailers: bool,
}

impl Block {
    /// With the flags of its HEADERS.
    pub fn new(stream: u32, flags: u8, trailers: bool) -> Self {
        Self {
            stream,
            end_stream: flags & END_STREAM,
            bytes: Vec::new(),
            begun: false,
            spent: 0,
            trailers,
        }
    }

    /// The stream it is on.
    pub fn stream(&self) -> u32 {
        self.stream
    }

    /// Whether some of it was written.
    pub fn begun(&self) -> bool {
        self.begun
    }

    /// The next piece.
    pub fn put(&mut self, fragment: &[u8]) {
        self.bytes.extend_from_slice(fragment);
    }

    /// Writes what fills frames, and at the end the rest.
    pub fn write(&mut self, end: bool, out: &mut Vec<u8>) {
        loop {
            let last = end && self.bytes.len() <= MAX_FRAME;
            if !last && self.bytes.len() < MAX_FRAME {
                return;
            }
            let count = self.bytes.len().min(MAX_FRAME);
            let (kind, flags) = match self.begun {
                false => (HEADERS, self.end_stream),
                true => (CONTINUATION, 0),
            };
            let flags = if last { flags | END_HEADERS } else { flags };
            self.begun = true;
            out.extend_from_slice(&(count as u32).to_be_bytes()[1..]);
            out.extend_from_slice(&[kind, flags]);
            out.extend_from_slice(&self.stream.to_be_bytes());
            out.extend(self.bytes.drain(..count));
            if last {
                return;
            }
        }
    }
}

/// The field block within HEADERS, and the stream they depend on.
pub fn fragment(flags: u8, mut payload: &[u8]) -> Result<(&[u8], Option<u32>), Malformed> {
    // RFC 9113 §4.2: a frame too small to contain mandatory frame data is an error of type FRAME_SIZE_ERROR.
    let mut padding = 0;
    if flags & PADDED != 0 {
        let (length, rest) = payload.split_first().ok_or(Malformed::FrameLength)?;
        (padding, payload) = (usize::from(*length), rest);
    }
    let mut on = None;
    if flags & WITH_PRIORITY != 0 {
        let ([high, a, b, c, _weight], rest) =
            payload.split_first_chunk().ok_or(Malformed::FrameLength)?;
        on = Some(u32::from_be_bytes([high & 0x7f, *a, *b, *c]));
        payload = rest;
    }
    // RFC 9113 §6.2: padding longer than what it may fill MUST be treated as a connection error of type PROTOCOL_ERROR.
    let length = payload.len().checked_sub(padding);
    let block = length.and_then(|length| payload.get(..length));
    Ok((block.ok_or(Malformed::Padding)?, on))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The frames of a block that comes in pieces of one size: kind, flags and length of each, and their payloads.
    fn written(length: usize, piece: usize) -> (Vec<(u8, u8, usize)>, Vec<u8>) {
        let block: Vec<u8> = (0..length).map(|at| at as u8).collect();
        let mut gathered = Block::new(3, END_STREAM | PADDED, false);
        let mut out = Vec::new();
        for piece in block.chunks(piece) {
            gathered.put(piece);
            gathered.write(false, &mut out);
        }
        gathered.write(true, &mut out);
        let (mut frames, mut payloads) = (Vec::new(), Vec::new());
        let mut rest = &out[..];
        while let Some(([_, high, low, kind, flags, 0, 0, 0, 3], behind)) =
            rest.split_first_chunk::<9>()
        {
            let (payload, behind) = behind.split_at(usize::from(*high) << 8 | usize::from(*low));
            frames.push((*kind, *flags, payload.len()));
            payloads.extend_from_slice(payload);
            rest = behind;
        }
        assert_eq!(rest, b"");
        assert_eq!(payloads, block);
        (frames, payloads)
    }

    #[test]
    fn the_fewest_frames() {
        let whole = |length| (HEADERS, END_STREAM | END_HEADERS, length);
        let (first, more) = (
            (HEADERS, END_STREAM, MAX_FRAME),
            (CONTINUATION, 0, MAX_FRAME),
        );
        let last = |length| (CONTINUATION, END_HEADERS, length);
        for piece in [1, 100, MAX_FRAME] {
            for (length, frames) in [
                (0, vec![whole(0)]),
                (60, vec![whole(60)]),
                (MAX_FRAME - 1, vec![whole(MAX_FRAME - 1)]),
                (MAX_FRAME, vec![first, last(0)]),
                (MAX_FRAME + 1, vec![first, last(1)]),
                (2 * MAX_FRAME + 5, vec![first, more, last(5)]),
            ] {
                assert_eq!(written(length, piece).0, frames, "{length} by {piece}");
            }
        }
    }

    #[test]
    fn what_is_around_a_block() {
        for (name, flags, payload, want) in [
            ("nothing", 0, &b"block"[..], Ok((&b"block"[..], None))),
            ("padding", PADDED, b"\x02block\0\0", Ok((b"block", None))),
            ("all of it padding", PADDED, b"\x02\0\0", Ok((b"", None))),
            (
                "too much padding",
                PADDED,
                b"\x03\0\0",
                Err(Malformed::Padding),
            ),
            ("no length of it", PADDED, b"", Err(Malformed::FrameLength)),
            (
                "a stream and a weight",
                WITH_PRIORITY,
                b"\x80\0\0\x05\x10block",
                Ok((b"block", Some(5))),
            ),
            (
                "half of that",
                WITH_PRIORITY,
                b"\0\0\0",
                Err(Malformed::FrameLength),
            ),
            (
                "both",
                PADDED | WITH_PRIORITY,
                b"\x01\0\0\0\x05\x10block\0",
                Ok((b"block", Some(5))),
            ),
            (
                "both, and too much padding",
                PADDED | WITH_PRIORITY,
                b"\x02\0\0\0\x05\x10\0",
                Err(Malformed::Padding),
            ),
        ] {
            assert_eq!(fragment(flags, payload), want, "{name}");
        }
    }
}
