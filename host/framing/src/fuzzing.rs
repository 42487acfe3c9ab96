//! What the fuzz target of `tests/fuzz` calls: it takes any bytes and panics when a promise is broken.

use crate::machine::copied;
use crate::{Framing, Malformed};

/// A fuzz target: takes any bytes.
pub type Run = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: [(&str, Run); 1] = [("http2", http2)];

/// The most bytes of a head here.
const MOST: usize = 1_000;
/// The preface and empty SETTINGS.
pub const START: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Frames of HTTP/2. The first byte says how they are cut; then come, for each frame, a kind, flags, a stream, a length and the
/// payload, each of the first in one byte. A kind of 128 and more: the rest is taken as it is.
///
/// The verdict and what passes are the same however the bytes come; what passes, passes again as it is; an answer keeps its length.
pub fn http2(data: &[u8]) {
    let Some((cut, rest)) = data.split_first() else {
        return;
    };
    let bytes = [START, &frames(rest)].concat();
    let (passed, why) = play(&bytes, MOST, usize::MAX);
    let piece = 1 + usize::from(*cut) % 64;
    assert_eq!(
        play(&bytes, MOST, piece),
        (passed.clone(), why),
        "by {piece}"
    );

    // Behind an error there is what ends the connection.
    let sound = match why {
        None => &passed[..],
        Some(_) => &passed[..passed.len() - 9],
    };
    if !sound.windows(14).any(is_reset) {
        let again = play(sound, MOST, usize::MAX);
        assert_eq!(again, (sound.to_vec(), None), "it does not pass again");
    }

    let mut framing = Framing::new(MOST);
    framing.take(&bytes, &mut Vec::new());
    let mut written = 0;
    for piece in rest.chunks(piece) {
        if let Some(changed) = framing.changed(piece) {
            assert_eq!(changed.len(), piece.len());
            written += 1;
        }
        framing.written(piece);
    }
    assert!(written == 0 || framing.changes());
}

/// The frames that an input stands for.
fn frames(mut input: &[u8]) -> Vec<u8> {
    let mut frames = Vec::new();
    while let Some(([kind @ 0..=0x7f, flags, stream, length], rest)) = input.split_first_chunk() {
        let (payload, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        frames.extend_from_slice(&[0, 0, payload.len() as u8, *kind, *flags, 0, 0, 0, *stream]);
        frames.extend_from_slice(payload);
        input = rest;
    }
    frames.extend_from_slice(input.strip_prefix(&[0x80]).unwrap_or(input));
    frames
}

/// What passes of bytes that come in pieces, and why they are refused; a head may have `most` bytes.
pub fn play(bytes: &[u8], most: usize, size: usize) -> (Vec<u8>, Option<Malformed>) {
    let mut framing = Framing::new(most);
    let mut out = Vec::new();
    for piece in bytes.chunks(size) {
        copied(piece, &mut out, |bytes, out| framing.take(bytes, out));
    }
    (out, framing.refused())
}

/// PRIORITY of a stream that depends on itself, which may have been put in before a frame.
fn is_reset(bytes: &[u8]) -> bool {
    bytes[..5] == [0, 0, 5, 2, 0] && bytes[5..9] == bytes[9..13]
}
