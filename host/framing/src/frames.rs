//! The frames of an HTTP/2 connection: what the reader behind would take, or end with another code than RFC 9113 has for it.

use crate::head::Malformed;

/// SETTINGS_MAX_FRAME_SIZE where nothing else is announced (RFC 9113 §6.5.2).
const MAX_FRAME: usize = 16_384;
/// The end of the preface, behind its empty line.
const PREFACE_END: u32 = b"SM\r\n\r\n".len() as u32;

const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;

/// Follows frames by their heads; the payload of SETTINGS alone is read. Memory: one SETTINGS, at most 16 KiB.
#[derive(Debug)]
pub struct Frames {
    place: Place,
    held: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    /// Bytes up to the head of the next frame.
    left: u32,
    first: bool,
}

impl Frames {
    /// Behind the empty line of the preface.
    pub fn new() -> Self {
        Self {
            place: Place {
                left: PREFACE_END,
                first: true,
            },
            held: Vec::new(),
        }
    }

    /// Whether these bytes pass as they are; they are then taken as read. Nothing is copied for them.
    pub fn passes(&mut self, bytes: &[u8]) -> bool {
        if !self.held.is_empty() {
            return false;
        }
        let mut place = self.place;
        let sound = place.walk(bytes) == Ok(bytes.len());
        if sound {
            self.place = place;
        }
        sound
    }

    /// Takes bytes and gives those that may be read: no part of a head, and SETTINGS only as a whole.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        self.held.extend_from_slice(bytes);
        match self.place.walk(&self.held) {
            Ok(passed) => {
                out.extend(self.held.drain(..passed));
                Ok(())
            }
            Err((passed, why)) => {
                out.extend_from_slice(&self.held[..passed]);
                out.extend_from_slice(&instead(why));
                self.held = Vec::new();
                Err(why)
            }
        }
    }
}

impl Place {
    /// How many bytes pass, up to what is not whole yet or to what is wrong.
    fn walk(&mut self, bytes: &[u8]) -> Result<usize, (usize, Malformed)> {
        let mut at = 0;
        loop {
            let passed = (self.left as usize).min(bytes.len() - at);
            self.left -= passed as u32;
            at += passed;
            let Some((head, payload)) = bytes[at..].split_first_chunk() else {
                return Ok(at);
            };
            match self.frame(head, payload) {
                Ok(true) => {}
                Ok(false) => return Ok(at),
                Err(why) => return Err((at, why)),
            }
        }
    }

    /// Whether a frame passes; `false` when more of it has to be seen.
    fn frame(&mut self, head: &[u8; 9], payload: &[u8]) -> Result<bool, Malformed> {
        let [high, middle, low, kind, flags, ..] = *head;
        let length = u32::from_be_bytes([0, high, middle, low]);
        let settings = kind == SETTINGS && flags & ACK == 0;
        // RFC 9113 §3.4: SETTINGS MUST be the first frame.
        if self.first && !settings {
            return Err(Malformed::FirstFrame);
        }
        self.first = false;
        // RFC 9113 §6.3 to §6.9: another length MUST be treated as an error of type FRAME_SIZE_ERROR.
        let sound = match kind {
            PRIORITY => length == 5,
            RST_STREAM | WINDOW_UPDATE => length == 4,
            SETTINGS if settings => length.is_multiple_of(6) && length as usize <= MAX_FRAME,
            SETTINGS => length == 0,
            PING => length == 8,
            GOAWAY => length >= 8,
            _ => true,
        };
        if !sound {
            return Err(Malformed::FrameLength);
        }
        if settings {
            let Some(pairs) = payload.get(..length as usize) else {
                return Ok(false);
            };
            // RFC 9113 §6.5.2: SETTINGS_INITIAL_WINDOW_SIZE above 2^31 - 1 MUST be treated as FLOW_CONTROL_ERROR.
            if pairs
                .chunks_exact(6)
                .any(|pair| pair[..2] == [0, 4] && pair[2] & 0x80 != 0)
            {
                return Err(Malformed::Window);
            }
        }
        self.left = 9 + length;
        Ok(true)
    }
}

/// What the reader behind gets in the place of a frame, so that it ends the connection with the code that is due.
fn instead(why: Malformed) -> Vec<u8> {
    match why {
        // A length over any SETTINGS_MAX_FRAME_SIZE: FRAME_SIZE_ERROR.
        Malformed::FrameLength => vec![0xff, 0xff, 0xff, PING, 0, 0, 0, 0, 0],
        // The connection's window over 2^31 - 1: FLOW_CONTROL_ERROR.
        Malformed::Window => [
            0,
            0,
            4,
            WINDOW_UPDATE,
            0,
            0,
            0,
            0,
            0,
            0x7f,
            0xff,
            0xff,
            0xff,
        ]
        .repeat(2),
        // SETTINGS on a stream: PROTOCOL_ERROR.
        _ => vec![0, 0, 0, SETTINGS, 0, 0, 0, 0, 1],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: &[u8] = b"SM\r\n\r\n";

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).expect("short");
        [&[0, 0, length, kind, flags, 0, 0, 0, 0], payload].concat()
    }

    /// What passes when the bytes come in pieces of every size.
    fn play(bytes: &[u8]) -> (Vec<u8>, Option<Malformed>) {
        let mut all = None;
        for size in [1, 2, 3, 9, 10, 64, bytes.len()] {
            let mut frames = Frames::new();
            let mut out = Vec::new();
            let mut why = None;
            for piece in bytes.chunks(size) {
                if frames.passes(piece) {
                    out.extend_from_slice(piece);
                } else if let Err(wrong) = frames.feed(piece, &mut out) {
                    why = Some(wrong);
                    break;
                }
            }
            let got = (out, why);
            let first = all.get_or_insert_with(|| got.clone());
            assert_eq!(*first, got, "in pieces of {size}");
        }
        all.expect("there are sizes")
    }

    #[test]
    fn frames_one_after_the_other() {
        let first = frame(
            SETTINGS,
            0,
            &[0, 4, 0x7f, 0xff, 0xff, 0xff, 0, 9, 0xff, 0, 0, 0],
        );
        let start = [END, &first].concat();
        for (name, next, why) in [
            (
                "DATA and HEADERS of any length",
                [frame(0, 1, &[0; 77]), frame(1, 4, &[0; 200])].concat(),
                None,
            ),
            ("PING", frame(PING, 0, &[0; 8]), None),
            (
                "PING of 6",
                frame(PING, 0, &[0; 6]),
                Some(Malformed::FrameLength),
            ),
            ("an acknowledgement", frame(SETTINGS, ACK, b""), None),
            (
                "an acknowledgement with more",
                frame(SETTINGS, ACK, &[0; 6]),
                Some(Malformed::FrameLength),
            ),
            (
                "half a setting",
                frame(SETTINGS, 0, &[0; 9]),
                Some(Malformed::FrameLength),
            ),
            (
                "a window of 2^31",
                frame(SETTINGS, 0, &[0, 1, 0, 0, 0, 0, 0, 4, 0x80, 0, 0, 0]),
                Some(Malformed::Window),
            ),
            (
                "another setting of 2^31",
                frame(SETTINGS, 0, &[0, 6, 0x80, 0, 0, 0]),
                None,
            ),
            (
                "RST_STREAM of 3",
                frame(RST_STREAM, 0, &[0; 3]),
                Some(Malformed::FrameLength),
            ),
            (
                "PRIORITY of 4",
                frame(PRIORITY, 0, &[0; 4]),
                Some(Malformed::FrameLength),
            ),
            (
                "GOAWAY of 7",
                frame(GOAWAY, 0, &[0; 7]),
                Some(Malformed::FrameLength),
            ),
            ("GOAWAY with more", frame(GOAWAY, 0, &[0; 70]), None),
            (
                "WINDOW_UPDATE of 5",
                frame(WINDOW_UPDATE, 0, &[0; 5]),
                Some(Malformed::FrameLength),
            ),
            ("an unknown type", frame(0xf0, 0xff, &[0; 5]), None),
        ] {
            let after = frame(PING, 0, &[1; 8]);
            let (out, got) = play(&[&start[..], &next, &after].concat());
            assert_eq!(got, why, "{name}");
            let want = match why {
                None => [&start[..], &next, &after].concat(),
                Some(why) => [&start[..], &instead(why)].concat(),
            };
            assert_eq!(out, want, "{name}");
        }
    }

    #[test]
    fn settings_come_first() {
        for (name, first) in [
            ("PING", frame(PING, 0, &[0; 8])),
            ("an acknowledgement", frame(SETTINGS, ACK, b"")),
            ("HEADERS", frame(1, 5, b"\x82\x86\x84")),
        ] {
            let (out, why) = play(&[END, &first].concat());
            assert_eq!(why, Some(Malformed::FirstFrame), "{name}");
            assert_eq!(
                out,
                [END, &instead(Malformed::FirstFrame)].concat(),
                "{name}"
            );
        }
    }
}
