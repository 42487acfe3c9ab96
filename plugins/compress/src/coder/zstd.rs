//! The zstd encoder: `zrip`, which is Rust without `unsafe`.
//!
//! Of the two pure Rust encoders that are kept up, `structured-zstd` has all levels, but 160,000 lines, over a thousand
//! mentions of `unsafe` and three times the Wasm; `zrip` is a tenth of that, forbids `unsafe`, has levels up to 4, where
//! zstd pays at an edge (beyond, brotli is smaller at the same cost), and flushes. The C library would need a C compiler
//! for Wasm on each machine that builds. What it lacks is worked around here: its encoder writes to an owned writer, and
//! its dictionaries are of zstd's own format.

use std::cell::RefCell;
use std::io::{self, Write};
use std::mem;
use std::rc::Rc;

use zrip::{FrameEncoder, Options};

use super::{Dictionary, EncoderFailed, Flush, Plan};

/// A body up to this length, when that is declared or it is there at once, is coded in one go, with tables of its size: 50 KB take a
/// quarter less time than in pieces and come out 2 % smaller.
const AT_ONCE: usize = 256 * 1024;

/// The longest body whose encoder is kept for the next: with it goes all that was in its window.
const KEPT: usize = 256 * 1024;

/// A first block below this length is always searched for matches, before which the tables are cleared of what an encoder coded
/// before. One that looks random is not (`zrip` samples eight times 512 bytes): such a body gets an encoder of its own.
const SEARCHED: usize = 4096;

thread_local! {
    /// What encoders write to. A call lends it the output.
    static OUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// An encoder whose frame ended: for the next of its kind, tables of 2 MiB are neither made nor cleared once more, which takes
    /// longer than coding a body of a few kilobytes.
    static IDLE: RefCell<Option<Box<Idle>>> = const { RefCell::new(None) };
}

struct Idle {
    level: i32,
    window_bits: u8,
    encoder: FrameEncoder<Out>,
}

/// [`OUT`]. An encoder owns what it writes to.
#[derive(Clone, Copy)]
struct Out;

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        OUT.with_borrow_mut(|out| out.extend_from_slice(bytes));
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One frame being written.
pub(super) struct Zstd {
    level: i32,
    window_bits: u8,
    dictionary: Option<Rc<Dictionary>>,
    /// Bytes that may come: past the window of level 4 distances would be too large.
    most: usize,
    /// Bytes given to the encoder.
    taken: usize,
    /// It may be coded in one go: what came waits for the rest.
    is_whole: bool,
    held: Vec<u8>,
    encoder: Option<FrameEncoder<Out>>,
}

/// The level to use with a dictionary, and the bits of its window, which is the level's: the first from `level` on that
/// reaches over `both`, dictionary and body. That of level 4 is too large for clients (RFC 9842 §5: 8 MiB), but is as good
/// as one of 8 MiB where both fit into that.
pub(super) fn with_dictionary(level: u8, both: u64, declared: bool) -> (u8, u8) {
    const WINDOWS: [(u8, u8); 4] = [(1, 19), (2, 20), (3, 21), (4, 23)];
    let fits = |(own, bits): &(u8, u8)| match own {
        4 => declared && both <= 1 << bits,
        _ => *own >= level && both <= 1 << bits,
    };
    WINDOWS.into_iter().find(fits).unwrap_or((3, 21))
}

/// Bytes of hash tables and of what a block of 128 KiB takes.
pub(super) fn tables(level: u8) -> usize {
    const KIB: usize = 1024;
    2560 * KIB
        + match level {
            0 | 1 => 128 * KIB,
            2 => 256 * KIB,
            3 => 768 * KIB,
            _ => 2048 * KIB,
        }
}

impl Zstd {
    pub(super) fn new(plan: &Plan) -> Self {
        let most = match &plan.dictionary {
            Some(dictionary) if plan.level == 4 => {
                (1_usize << plan.window_bits).saturating_sub(dictionary.bytes().len())
            }
            _ => usize::MAX,
        };
        Self {
            most,
            level: i32::from(plan.level),
            window_bits: plan.window_bits,
            dictionary: plan.dictionary.clone(),
            is_whole: plan.dictionary.is_none()
                && plan.length.is_none_or(|it| it <= AT_ONCE as u64),
            held: Vec::new(),
            taken: 0,
            encoder: None,
        }
    }

    pub(super) fn push(
        &mut self,
        input: &[u8],
        flush: Flush,
        out: &mut Vec<u8>,
    ) -> Result<(), EncoderFailed> {
        if self.is_whole {
            let fits = self.held.len() + input.len() <= AT_ONCE;
            match flush {
                Flush::Later if fits => {
                    self.held.extend_from_slice(input);
                    return Ok(());
                }
                Flush::End if fits && self.held.is_empty() => return whole(self.level, input, out),
                Flush::End if fits => {
                    self.held.extend_from_slice(input);
                    return whole(self.level, &self.held, out);
                }
                // It is longer, or wanted now.
                _ => self.is_whole = false,
            }
        }
        let coming = self.held.len() + input.len();
        self.taken = self.taken.saturating_add(coming);
        if self.taken > self.most {
            return Err(EncoderFailed);
        }
        OUT.with_borrow_mut(|lent| mem::swap(lent, out));
        let held = mem::take(&mut self.held);
        let done = self.write(&held, input, flush);
        OUT.with_borrow_mut(|lent| mem::swap(lent, out));
        done.map_err(|_| EncoderFailed)
    }

    fn write(&mut self, held: &[u8], input: &[u8], flush: Flush) -> io::Result<()> {
        let encoder = match &mut self.encoder {
            Some(encoder) => encoder,
            None => {
                let encoder = match self.dictionary.as_deref() {
                    Some(dictionary) => begin_with(dictionary, self.level, self.window_bits)?,
                    None => {
                        // All that was taken is what comes now.
                        let reuse = flush == Flush::Now && (1..SEARCHED).contains(&self.taken);
                        begin(self.level, self.window_bits, reuse)?
                    }
                };
                self.encoder.insert(encoder)
            }
        };
        encoder.write_all(held)?;
        encoder.write_all(input)?;
        match flush {
            Flush::Later => Ok(()),
            Flush::Now => encoder.flush(),
            Flush::End => match self.encoder.take() {
                Some(encoder) => self.end(encoder),
                None => Ok(()),
            },
        }
    }

    fn end(&self, mut encoder: FrameEncoder<Out>) -> io::Result<()> {
        encoder.reset(Out)?;
        if self.dictionary.is_none() && self.taken <= KEPT {
            let (level, window_bits) = (self.level, self.window_bits);
            IDLE.set(Some(Box::new(Idle {
                level,
                window_bits,
                encoder,
            })));
        }
        Ok(())
    }
}

/// Codes a body in one go. (A context that keeps its tables takes 3 % less time and another 65 KB of code.)
fn whole(level: i32, body: &[u8], out: &mut Vec<u8>) -> Result<(), EncoderFailed> {
    let frame = zrip::compress(body, level).map_err(|_| EncoderFailed)?;
    out.extend_from_slice(&frame);
    Ok(())
}

/// An encoder at the start of a frame, which may have coded another before.
fn begin(level: i32, window_bits: u8, reuse: bool) -> io::Result<FrameEncoder<Out>> {
    let fits = |it: &mut Box<Idle>| (it.level, it.window_bits) == (level, window_bits);
    if reuse && let Some(idle) = IDLE.with_borrow_mut(|kept| kept.take_if(fits)) {
        return Ok(idle.encoder);
    }
    let options = Options::default().window_log(u32::from(window_bits));
    FrameEncoder::with_options(Out, level, &options).map_err(io::Error::other)
}

/// An encoder with a dictionary, which has written the frame's header.
fn begin_with(
    dictionary: &Dictionary,
    level: i32,
    window_bits: u8,
) -> io::Result<FrameEncoder<Out>> {
    // RFC 9842 §5: a skippable frame of 32 bytes, the dictionary's SHA-256, comes first.
    let prefix = [0x5e, 0x2a, 0x4d, 0x18, 0x20, 0, 0, 0];
    let start = OUT.with_borrow_mut(|out| {
        out.extend_from_slice(&prefix);
        out.extend_from_slice(dictionary.sha256());
        out.len()
    });
    // What is beyond the window is out of reach from the first byte on.
    let bytes = dictionary.bytes();
    let reach = bytes.len().saturating_sub(1 << window_bits);
    let formatted = [FORMAT, bytes.get(reach..).unwrap_or_default()].concat();
    let formatted = zrip::Dictionary::from_bytes(&formatted).map_err(io::Error::other)?;
    let mut encoder = FrameEncoder::with_dict(Out, level, formatted).map_err(io::Error::other)?;
    // Nothing at all makes it write the header.
    let _none = encoder.write(&[])?;
    // RFC 8878 §3.1.1.1: the header names the dictionary by a number (the last byte; the low bits of the fifth say that
    // it is there). RFC 9842 §5 has "raw" dictionaries, which have none.
    OUT.with_borrow_mut(|out| match out.get_mut(start..) {
        Some([_, _, _, _, descriptor, window, ID]) if *descriptor & 3 == 1 => {
            *descriptor &= !3;
            *window = (window_bits - 10) << 3;
            out.truncate(start + 6);
            Ok(encoder)
        }
        _ => Err(io::Error::other("not the header that was expected")),
    })
}

const ID: u8 = 1;

/// RFC 8878 §5: the start of a dictionary. Of it the encoder uses the offsets alone, which are those of a frame without
/// one (§3.1.1.5): what follows serves as raw content.
const FORMAT: &[u8] = &[
    0x37, 0xa4, 0x30, 0xec, // magic number
    ID, 0, 0, 0, // Dictionary_ID
    128, 0x10, // a Huffman code of two symbols
    0xf0, 0x03, 0xf0, 0x03, 0xf0, 0x03, // three tables of one symbol
    1, 0, 0, 0, 4, 0, 0, 0, 8, 0, 0, 0, // repeated offsets
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Coding;

    /// What comes of these pieces, each flushed.
    fn coded(level: u8, pieces: &[&[u8]]) -> Vec<u8> {
        let plan = Plan::new(Coding::Zstd, level, 20, None);
        let (mut zstd, mut out) = (Zstd::new(&plan), Vec::new());
        for piece in pieces {
            zstd.push(piece, Flush::Now, &mut out).expect("codes");
        }
        zstd.push(&[], Flush::End, &mut out).expect("ends");
        out
    }

    #[test]
    fn what_was_coded_before_leaves_nothing_behind() {
        let text = "{\"name\": \"alpha\", \"value\": 12345}, "
            .repeat(2_000)
            .into_bytes();
        let mut state = 1_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        })
        .take(8_000)
        .collect();
        // What a block that is not searched has where the body before had it, too.
        let words = b"a few words that come again in both of them, and once more later on";
        let place = 700..700 + words.len();
        let (mut random, mut before) = (noise.clone(), text.clone());
        random[place.clone()].copy_from_slice(words);
        before[place].copy_from_slice(words);
        for level in [1, 2, 3, 4] {
            for first in [1, 500, SEARCHED - 1, SEARCHED, 8_000] {
                for body in [&random[..first], &text[..first]] {
                    let pieces = [body, &words[..], &text[..3_000]];
                    let fresh = std::thread::scope(|scope| {
                        scope.spawn(|| coded(level, &pieces)).join().expect("codes")
                    });
                    coded(level, &[&before]);
                    assert!(
                        fresh == coded(level, &pieces),
                        "level {level}, {first} bytes"
                    );
                }
            }
        }
        let kept = IDLE.with_borrow(|idle| idle.as_ref().map(|it| it.level));
        assert_eq!(kept, Some(4), "it is the last one");
    }
}
