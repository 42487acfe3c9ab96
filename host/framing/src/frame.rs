//! One frame: its head, and whether it is sound by itself.

use crate::head::Malformed;

/// SETTINGS_MAX_FRAME_SIZE where nothing else is announced (RFC 9113 §6.5.2).
pub const MAX_FRAME: usize = 16_384;
/// Bytes of a frame's head (RFC 9113 §4.1).
pub const HEAD: usize = 9;
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

pub const ACK: u8 = 0x1;
pub const END_STREAM: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;
pub const PADDED: u8 = 0x8;
pub const WITH_PRIORITY: u8 = 0x20;

/// The head of a frame.
pub struct Head {
    pub length: usize,
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
}

impl Head {
    /// Nine bytes.
    pub fn of(head: &[u8; HEAD]) -> Self {
        let [high, middle, low, kind, flags, stream @ ..] = *head;
        Self {
            length: u32::from_be_bytes([0, high, middle, low]) as usize,
            kind,
            flags,
            // RFC 9113 §4.1: the reserved bit MUST be ignored.
            stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
        }
    }

    /// RFC 9113 §4.2, §6.3 to §6.9: another length MUST be treated as an error of type FRAME_SIZE_ERROR.
    pub fn sound(&self) -> Result<(), Malformed> {
        let sound = match self.kind {
            PRIORITY => self.length == 5,
            RST_STREAM | WINDOW_UPDATE => self.length == 4,
            SETTINGS if self.flags & ACK != 0 => self.length == 0,
            SETTINGS => self.length.is_multiple_of(6),
            PING => self.length == 8,
            GOAWAY => self.length >= 8,
            _ => true,
        };
        if sound && self.length <= MAX_FRAME {
            Ok(())
        } else {
            Err(Malformed::FrameLength)
        }
    }
}

/// RFC 9113 §6.5.2: SETTINGS_INITIAL_WINDOW_SIZE above 2^31 - 1 MUST be treated as FLOW_CONTROL_ERROR.
pub fn windows(settings: &[u8]) -> Result<(), Malformed> {
    let beyond = |pair: &[u8]| matches!(pair, [0, 4, 0x80..=0xff, ..]);
    if settings.chunks_exact(6).any(beyond) {
        Err(Malformed::Window)
    } else {
        Ok(())
    }
}

/// PRIORITY of a stream that depends on itself: the reader behind makes it an error of the stream, PROTOCOL_ERROR (RFC 7540
/// §5.3.1), and takes no more on it.
pub fn reset(stream: u32) -> [u8; HEAD + 5] {
    let [a, b, c, d] = stream.to_be_bytes();
    [0, 0, 5, PRIORITY, 0, a, b, c, d, a, b, c, d, 0]
}
