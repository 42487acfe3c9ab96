//! The decoders behind one face: coded bytes in, at most so many plain bytes out at a time.

#[cfg(feature = "brotli")]
use brotli::enc::StandardAlloc;
#[cfg(feature = "brotli")]
use brotli::{BrotliDecompressStream, BrotliResult, BrotliState};
use flate2::{Decompress, FlushDecompress, Status};

use super::Coding;
use super::unzstd::Unzstd;

/// Why a body can't be decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DecoderFailed {
    /// The bytes are not of the coding.
    Corrupt,
    /// They end before their end.
    Truncated,
    /// They go on after it.
    Trailing,
    /// They need a larger window than is given.
    Window,
    /// They grow to more than is allowed.
    Bomb,
}

/// What a body may grow to whatever its length is, in bytes.
const FREE: u64 = 1 << 20;

/// The largest window, in bits: all of brotli's (RFC 7932 §9.1), and what RFC 9659 §3 allows `zstd`.
#[cfg(feature = "brotli")]
const BROTLI_WINDOW: u8 = 24;
const ZSTD_WINDOW: u8 = 23;

/// One stream being decoded.
pub struct Decoder {
    coding: Coding,
    engine: Engine,
    /// The coding's end was reached.
    ended: bool,
    /// Bytes of input and of output.
    taken: u64,
    given: u64,
    max_ratio: u32,
}

enum Engine {
    /// `deflate` before its first two bytes, which tell the zlib format from raw deflate; the first of them.
    Undecided(Option<u8>),
    Zlib(Decompress),
    #[cfg(feature = "brotli")]
    Brotli(Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>),
    Zstd(Box<Unzstd>),
}

impl Decoder {
    /// A decoder for one body, which may grow to `max_ratio` times its length, or to 1 MiB.
    pub fn new(coding: Coding, max_ratio: u32) -> Self {
        Self {
            coding,
            engine: match coding {
                Coding::Gzip => Engine::Zlib(Decompress::new_gzip(15)),
                Coding::Deflate => Engine::Undecided(None),
                // Strict: without the windows of more than 24 bits that are no part of RFC 7932.
                #[cfg(feature = "brotli")]
                Coding::Brotli => {
                    let alloc = StandardAlloc::default;
                    Engine::Brotli(Box::new(BrotliState::new_strict(alloc(), alloc(), alloc())))
                }
                Coding::Zstd => Engine::Zstd(Box::new(Unzstd::new(ZSTD_WINDOW))),
            },
            ended: false,
            taken: 0,
            given: 0,
            max_ratio,
        }
    }

    /// The most bytes one holds, its output aside: windows of 32 KiB (gzip, deflate), 16 MiB (brotli) and 8 MiB (zstd), each
    /// of the latter up to twice; and tables.
    pub fn memory(coding: Coding) -> usize {
        match coding {
            Coding::Gzip | Coding::Deflate => 128 << 10,
            #[cfg(feature = "brotli")]
            Coding::Brotli => (2 << BROTLI_WINDOW) + (4 << 20),
            Coding::Zstd => (4 << ZSTD_WINDOW) + (2 << 20),
        }
    }

    /// Takes from the front of `input` and appends at most `most` bytes to `out`. True when it is to be called again, with
    /// what is left of `input`, for there is more to come out; else all of it was taken. `end` says that nothing follows
    /// `input`. A body of no bytes at all decodes to none.
    pub fn pull(
        &mut self,
        input: &mut &[u8],
        end: bool,
        out: &mut Vec<u8>,
        most: usize,
    ) -> Result<bool, DecoderFailed> {
        let (length, before) = (input.len(), out.len());
        let mut more = self.step(input, out, most)?;
        self.taken += count(length - input.len());
        self.given += count(out.len() - before);
        let allowed = self.taken.saturating_mul(u64::from(self.max_ratio));
        if self.given > allowed.max(FREE) {
            return Err(DecoderFailed::Bomb);
        }
        if self.ended {
            more = self.after(input)?;
        }
        match (more, end, self.ended) {
            (false, true, false) if self.taken > 0 => Err(DecoderFailed::Truncated),
            _ => Ok(more),
        }
    }

    /// True when there may be more to come out.
    fn step(
        &mut self,
        input: &mut &[u8],
        out: &mut Vec<u8>,
        most: usize,
    ) -> Result<bool, DecoderFailed> {
        if self.ended {
            return Ok(false);
        }
        let before = out.len();
        match &mut self.engine {
            Engine::Undecided(first) => {
                let (head, mut state) = match (*first, *input) {
                    (None, [one]) => {
                        *first = Some(*one);
                        *input = &[];
                        return Ok(false);
                    }
                    (None, [one, two, ..]) => (None, inflater(*one, *two)),
                    (Some(one), [two, ..]) => (Some(one), inflater(one, *two)),
                    _ => return Ok(false),
                };
                if let Some(one) = head {
                    inflate(&mut state, &mut &[one][..], out, most)?;
                }
                self.engine = Engine::Zlib(state);
                Ok(true)
            }
            Engine::Zlib(state) => {
                self.ended = inflate(state, input, out, most)?;
                Ok(out.len() - before >= most)
            }
            #[cfg(feature = "brotli")]
            Engine::Brotli(state) => {
                let filled;
                (self.ended, filled) = brotli(state, input, out, most)?;
                Ok(filled)
            }
            Engine::Zstd(state) => {
                let more = state.pull(input, out, most)?;
                // RFC 8878 §3: a stream is one or more frames; any may be the last.
                self.ended = !more && state.is_between_frames();
                Ok(more)
            }
        }
    }

    /// What follows an end; true when the stream goes on. RFC 1952 §2.2: "A gzip file consists of a series of "members"",
    /// and so does zstd (RFC 8878 §3). Nothing may follow the others.
    fn after(&mut self, input: &[u8]) -> Result<bool, DecoderFailed> {
        match (self.coding, input) {
            (_, []) => return Ok(false),
            (Coding::Gzip, [0x1f, ..]) => self.engine = Engine::Zlib(Decompress::new_gzip(15)),
            // The magic numbers of its frames begin so.
            (Coding::Zstd, [0x28 | 0x50..=0x5f, ..]) => {}
            _ => return Err(DecoderFailed::Trailing),
        }
        self.ended = false;
        Ok(true)
    }
}

/// RFC 9110 §8.4.1.2: "Some non-conformant implementations send the "deflate" compressed data without the zlib wrapper."
/// RFC 1950 §2.2: the method is 8, and both bytes as a number are a multiple of 31.
fn inflater(first: u8, second: u8) -> Decompress {
    let zlib = first & 0x0f == 8 && u16::from_be_bytes([first, second]).is_multiple_of(31);
    Decompress::new(zlib)
}

/// True at the end of the stream.
fn inflate(
    state: &mut Decompress,
    input: &mut &[u8],
    out: &mut Vec<u8>,
    most: usize,
) -> Result<bool, DecoderFailed> {
    let start = out.len();
    out.resize(start + most, 0);
    let mut wrote = 0;
    let ended = loop {
        let (read, made) = (state.total_in(), state.total_out());
        let room = out.get_mut(start + wrote..).unwrap_or_default();
        // Without room it would say that it is stuck.
        if room.is_empty() {
            break Ok(false);
        }
        let Ok(status) = state.decompress(input, room, FlushDecompress::None) else {
            break Err(DecoderFailed::Corrupt);
        };
        let read = usize::try_from(state.total_in() - read).unwrap_or(usize::MAX);
        let made = usize::try_from(state.total_out() - made).unwrap_or(usize::MAX);
        *input = input.get(read..).ok_or(DecoderFailed::Corrupt)?;
        wrote += made;
        match status {
            Status::StreamEnd => break Ok(true),
            _ if read == 0 && made == 0 => break Ok(false),
            _ => {}
        }
    };
    out.truncate(start + wrote);
    ended
}

/// Whether the stream ended, and whether there is more to come out.
#[cfg(feature = "brotli")]
fn brotli(
    state: &mut BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>,
    input: &mut &[u8],
    out: &mut Vec<u8>,
    most: usize,
) -> Result<(bool, bool), DecoderFailed> {
    let start = out.len();
    out.resize(start + most, 0);
    let (mut left, mut read, mut room, mut wrote, mut total) = (input.len(), 0, most, 0, 0);
    let result = BrotliDecompressStream(
        &mut left,
        &mut read,
        input,
        &mut room,
        &mut wrote,
        out.get_mut(start..).unwrap_or_default(),
        &mut total,
        state,
    );
    out.truncate(start + wrote);
    *input = input.get(read..).ok_or(DecoderFailed::Corrupt)?;
    match result {
        BrotliResult::ResultSuccess => Ok((true, false)),
        BrotliResult::NeedsMoreInput => Ok((false, false)),
        BrotliResult::NeedsMoreOutput => Ok((false, true)),
        BrotliResult::ResultFailure => Err(DecoderFailed::Corrupt),
    }
}

fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
