//! What the reader behind answers over HTTP/2: the codes of its errors, where it has others than RFC 9113.

use std::ops::Range;

use crate::frame::{GOAWAY, HEAD, RST_STREAM};

/// Codes of errors (RFC 9113 §7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Code {
    Protocol = 1,
    FlowControl = 3,
    StreamClosed = 5,
    FrameSize = 6,
    Compression = 9,
    EnhanceYourCalm = 11,
}

/// The code that GOAWAY shall have, if it is known, and whether RST_STREAM on a stream shall have [`Code::StreamClosed`].
pub struct Due<S> {
    pub connection: Option<Code>,
    pub closed: S,
}

/// Follows frames that are written, by their heads. Memory: one head.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    head: [u8; HEAD],
    /// Bytes of the head that were written.
    seen: usize,
    /// Bytes of the payload that were not.
    left: usize,
}

impl Answers {
    /// These bytes were written.
    pub fn follow(&mut self, bytes: &[u8]) {
        self.walk(bytes, |_, _, _| {});
    }

    /// What is to be written in the place of these bytes, if that is something else.
    pub fn changed(&self, bytes: &[u8], due: &Due<impl Fn(u32) -> bool>) -> Option<Vec<u8>> {
        let mut changed = None;
        self.clone().walk(bytes, |head, from, place| {
            let [_, _, _, kind, _, stream @ ..] = *head;
            // RFC 9113 §6.4 and §6.8: RST_STREAM is a code, GOAWAY has one behind four bytes.
            let (code, at) = match kind {
                GOAWAY => (due.connection, 4),
                RST_STREAM if (due.closed)(u32::from_be_bytes(stream)) => {
                    (Some(Code::StreamClosed), 0)
                }
                _ => return,
            };
            let Some(code) = code else { return };
            let bytes = changed.get_or_insert_with(|| bytes.to_vec());
            let code = (code as u32).to_be_bytes();
            for (offset, byte) in (from..).zip(&mut bytes[place]) {
                if let Some(due) = offset.checked_sub(at).and_then(|at| code.get(at)) {
                    *byte = *due;
                }
            }
        });
        changed
    }

    /// Gives each piece of a payload: the head of its frame, its place there and its place in `bytes`.
    fn walk(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8; HEAD], usize, Range<usize>)) {
        let mut at = 0;
        while at < bytes.len() {
            if self.seen == HEAD {
                let count = self.left.min(bytes.len() - at);
                each(&self.head, self.length() - self.left, at..at + count);
                at += count;
                self.left -= count;
                if self.left == 0 {
                    self.seen = 0;
                }
                continue;
            }
            for (place, byte) in self.head[self.seen..].iter_mut().zip(&bytes[at..]) {
                *place = *byte;
                self.seen += 1;
                at += 1;
            }
            if self.seen == HEAD {
                self.left = self.length();
                if self.left == 0 {
                    self.seen = 0;
                }
            }
        }
    }

    fn length(&self) -> usize {
        let [high, middle, low, ..] = self.head;
        u32::from_be_bytes([0, high, middle, low]) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written of frames when it is given in pieces, and of each piece only so much is taken at once.
    fn play(frames: &[u8], due: &Due<impl Fn(u32) -> bool>) -> Vec<u8> {
        let mut all = None;
        for (piece, taken) in [(1, 1), (3, 2), (10, 7), (64, 64), (1_000, 5), (1_000, 999)] {
            let mut answers = Answers::default();
            let mut written = Vec::new();
            while written.len() < frames.len() {
                let left = &frames[written.len()..];
                let piece = &left[..left.len().min(piece)];
                let changed = answers.changed(piece, due);
                let given = changed.as_deref().unwrap_or(piece);
                assert_eq!(given.len(), piece.len());
                let taken = piece.len().min(taken);
                written.extend_from_slice(&given[..taken]);
                answers.follow(&piece[..taken]);
            }
            let first = all.get_or_insert_with(|| written.clone());
            assert_eq!(*first, written, "in pieces of {piece}, of which {taken}");
        }
        all.expect("there are sizes")
    }

    fn frame(kind: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).expect("short");
        [&[0, 0, length, kind, 0, 0, 0, 0, stream], payload].concat()
    }

    #[test]
    fn codes_of_errors() {
        let settings = frame(4, 0, b"");
        let data = frame(0, 1, &frame(GOAWAY, 0, &[0; 8]));
        let reset = |stream, code| frame(RST_STREAM, stream, &[0, 0, 0, code]);
        let away = |code| frame(GOAWAY, 0, &[0, 0, 0, 5, 0, 0, 0, code, b'w', b'h', b'y']);
        let answers = |reset_code, code| {
            [
                &settings[..],
                &data,
                &reset(3, 1),
                &reset(5, reset_code),
                &data,
                &away(code),
            ]
            .concat()
        };
        let quiet = Due {
            connection: None,
            closed: |_| false,
        };
        assert_eq!(play(&answers(1, 1), &quiet), answers(1, 1));
        assert_eq!(Answers::default().changed(&answers(1, 1), &quiet), None);
        let stream = Due {
            connection: None,
            closed: |stream| stream == 5,
        };
        assert_eq!(play(&answers(1, 1), &stream), answers(5, 1));
        let both = Due {
            connection: Some(Code::Compression),
            closed: |stream| stream == 5,
        };
        assert_eq!(play(&answers(1, 1), &both), answers(5, 9));
    }
}
