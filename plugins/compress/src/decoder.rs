//! The decoders behind one face: coded bytes in, at most so many plain bytes out at a time.

use brotli::enc::StandardAlloc;
use brotli::{BrotliDecompressStream, BrotliResult, BrotliState};
use flate2::{Decompress, FlushDecompress, Status};

use crate::Coding;

/// Why a body could not be decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DecoderFailed {
    /// The bytes are not of the coding, or go on after its end.
    Corrupt,
    /// They end before their end.
    Truncated,
}

/// One stream being decoded.
pub(crate) struct Decoder {
    coding: Coding,
    engine: Engine,
    /// The coding's end was reached.
    ended: bool,
}

enum Engine {
    /// `deflate` before its first two bytes, which tell the zlib format from raw deflate.
    Undecided(Vec<u8>),
    Zlib(Decompress),
    Brotli(Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>),
}

impl Decoder {
    pub(crate) fn new(coding: Coding) -> Self {
        let alloc = StandardAlloc::default;
        Self {
            coding,
            ended: false,
            engine: match coding {
                Coding::Gzip => Engine::Zlib(Decompress::new_gzip(15)),
                Coding::Deflate => Engine::Undecided(Vec::new()),
                Coding::Brotli => {
                    Engine::Brotli(Box::new(BrotliState::new(alloc(), alloc(), alloc())))
                }
            },
        }
    }

    /// The most bytes one holds: a window of 32 KiB, or of up to 16 MiB (RFC 7932 §9.1).
    pub(crate) fn memory(coding: Coding) -> usize {
        match coding {
            Coding::Gzip | Coding::Deflate => 64 << 10,
            Coding::Brotli => 17 << 20,
        }
    }

    /// Takes from the front of `input` and appends at most `most` bytes to `out`; true when there is more to come out.
    pub(crate) fn pull(
        &mut self,
        input: &mut &[u8],
        end: bool,
        out: &mut Vec<u8>,
        most: usize,
    ) -> Result<bool, DecoderFailed> {
        if let Engine::Undecided(first) = &mut self.engine {
            let (head, rest) = input.split_at(input.len().min(2 - first.len().min(2)));
            first.extend_from_slice(head);
            *input = rest;
            let zlib = match first[..] {
                // RFC 1950 §2.2: the method is 8, and both bytes as a number are a multiple of 31.
                [first, second] => {
                    first & 0x0f == 8 && u16::from_be_bytes([first, second]) % 31 == 0
                }
                _ if !end => return Ok(false),
                _ => return Err(DecoderFailed::Truncated),
            };
            let (first, mut state) = (std::mem::take(first), Decompress::new(zlib));
            inflate(&mut state, &mut &first[..], out, most)?;
            self.engine = Engine::Zlib(state);
        }
        if self.ended {
            return self.after(input);
        }
        let before = out.len();
        let filled = match &mut self.engine {
            Engine::Undecided(_) => false,
            Engine::Zlib(state) => {
                self.ended = inflate(state, input, out, most)?;
                out.len() - before >= most
            }
            Engine::Brotli(state) => {
                let (ended, filled) = brotli(state, input, out, most)?;
                self.ended = ended;
                filled
            }
        };
        if self.ended {
            return self.after(input);
        }
        match (filled || !input.is_empty(), end) {
            (true, _) => Ok(true),
            (false, false) => Ok(false),
            (false, true) => Err(DecoderFailed::Truncated),
        }
    }

    /// What follows the end. RFC 1952 §2.2: a gzip file is a series of members; nothing else may follow.
    fn after(&mut self, input: &[u8]) -> Result<bool, DecoderFailed> {
        match (self.coding, input) {
            (_, []) => Ok(false),
            (Coding::Gzip, [0x1f, ..]) => {
                self.engine = Engine::Zlib(Decompress::new_gzip(15));
                self.ended = false;
                Ok(true)
            }
            _ => Err(DecoderFailed::Corrupt),
        }
    }
}

/// True at the end of the stream.
fn inflate(
    state: &mut Decompress,
    input: &mut &[u8],
    out: &mut Vec<u8>,
    most: usize,
) -> Result<bool, DecoderFailed> {
    let start = out.len();
    loop {
        let (read, before) = (state.total_in(), out.len());
        let room = most.saturating_sub(before - start);
        if room == 0 {
            return Ok(false);
        }
        out.reserve_exact(room);
        let status = state
            .decompress_vec(input, out, FlushDecompress::Sync)
            .map_err(|_| DecoderFailed::Corrupt)?;
        let read = usize::try_from(state.total_in() - read).map_err(|_| DecoderFailed::Corrupt)?;
        *input = input.get(read..).ok_or(DecoderFailed::Corrupt)?;
        match status {
            Status::StreamEnd => return Ok(true),
            _ if read == 0 && out.len() == before => return Ok(false),
            _ => {}
        }
    }
}

/// Whether the stream ended, and whether there is more to come out.
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
