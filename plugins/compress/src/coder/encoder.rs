//! The encoders behind one face: bytes in, coded bytes out, decodable as far as was flushed.

#[cfg(feature = "brotli")]
use std::rc::Rc;

#[cfg(feature = "brotli")]
use brotli::enc::StandardAlloc;
#[cfg(feature = "brotli")]
use brotli::enc::encode::{
    BrotliEncoderOperation, BrotliEncoderParameter, BrotliEncoderStateStruct,
};
use flate2::{Compression, FlushCompress, Status};

#[cfg(feature = "brotli")]
use super::dcb::Dcb;
use super::zstd::Zstd;
use super::{Coding, Plan};

/// What the encoders are fed at once, in bytes. Brotli is also flushed after so many: it would else gather commands for
/// up to 16 MiB of input, and guess a large body from one large chunk and take the large tables it has for these.
const SLICE: usize = 64 * 1024;

/// An encoder refused its input: a bug in it or in how it is called. The coded body can't be completed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EncoderFailed;

/// What is to be decodable after a chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flush {
    /// Nothing in particular: more comes at once. Up to 128 KiB are held back, of zstd 256 KiB.
    Later,
    /// All input so far.
    Now,
    /// All, and the stream is complete.
    End,
}

/// One stream being coded.
pub struct Encoder {
    engine: Engine,
    /// What goes before the stream.
    prefix: Vec<u8>,
    /// Input is held back.
    pending: bool,
}

enum Engine {
    Zlib(flate2::Compress),
    #[cfg(feature = "brotli")]
    Brotli {
        state: Box<BrotliEncoderStateStruct<StandardAlloc>>,
        /// Bytes since it was flushed.
        held: usize,
    },
    #[cfg(feature = "brotli")]
    Dcb(Box<Dcb>),
    Zstd(Box<Zstd>),
}

impl Encoder {
    pub(super) fn new(plan: &Plan) -> Self {
        let level = Compression::new(u32::from(plan.level));
        let prefix = match (plan.coding, &plan.dictionary) {
            // RFC 9842 §4: four bytes and the dictionary's SHA-256 come first.
            #[cfg(feature = "brotli")]
            (Coding::Brotli, Some(dictionary)) => {
                [&[0xff, 0x44, 0x43, 0x42][..], dictionary.sha256()].concat()
            }
            _ => Vec::new(),
        };
        let engine = match (plan.coding, &plan.dictionary) {
            (Coding::Gzip, _) => Engine::Zlib(flate2::Compress::new_gzip(level, plan.window_bits)),
            (Coding::Deflate, _) => Engine::Zlib(flate2::Compress::new(level, true)),
            (Coding::Zstd, _) => Engine::Zstd(Box::new(Zstd::new(plan))),
            #[cfg(feature = "brotli")]
            (Coding::Brotli, Some(dictionary)) => {
                let dictionary = Rc::clone(dictionary);
                Engine::Dcb(Box::new(Dcb::new(plan.level, plan.window_bits, dictionary)))
            }
            #[cfg(feature = "brotli")]
            (Coding::Brotli, None) => {
                let mut state = Box::new(BrotliEncoderStateStruct::new(StandardAlloc::default()));
                for (parameter, value) in [
                    (BrotliEncoderParameter::BROTLI_PARAM_QUALITY, plan.level),
                    (BrotliEncoderParameter::BROTLI_PARAM_LGWIN, plan.window_bits),
                ] {
                    state.set_parameter(parameter, u32::from(value));
                }
                Engine::Brotli { state, held: 0 }
            }
        };
        Self {
            engine,
            prefix,
            pending: false,
        }
    }

    /// Appends the coded form of `chunk` to `out`. A decoder that has all of `out` so far can give back all input so
    /// far; with `end` the stream is complete. An empty chunk without `end` adds nothing.
    pub fn push(
        &mut self,
        chunk: &[u8],
        end: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), EncoderFailed> {
        self.feed(chunk, if end { Flush::End } else { Flush::Now }, out)
    }

    /// Appends what is ready of the coded form of `chunk` to `out`; `flush` says what must be. An empty chunk adds nothing
    /// but what was held back, or the end. Each flush costs a few bytes and some ratio: chunks that come together are best
    /// pushed with [`Flush::Later`] and the last of them with [`Flush::Now`].
    pub fn feed(
        &mut self,
        chunk: &[u8],
        flush: Flush,
        out: &mut Vec<u8>,
    ) -> Result<(), EncoderFailed> {
        if chunk.is_empty() && (flush == Flush::Later || (flush == Flush::Now && !self.pending)) {
            return Ok(());
        }
        out.append(&mut self.prefix);
        self.pending = flush == Flush::Later;
        let mut rest = chunk;
        loop {
            let (slice, after) = rest.split_at(rest.len().min(SLICE));
            rest = after;
            let last = rest.is_empty();
            match &mut self.engine {
                // These slice by themselves; zstd does better with a whole body.
                Engine::Zstd(state) => return state.push(chunk, flush, out),
                #[cfg(feature = "brotli")]
                Engine::Dcb(state) => {
                    state.push(chunk, flush, out);
                    return Ok(());
                }
                Engine::Zlib(state) => zlib(state, slice, flush_of(flush, last), out)?,
                #[cfg(feature = "brotli")]
                Engine::Brotli { state, held } => {
                    *held += slice.len();
                    let operation = match flush {
                        Flush::End if last => BrotliEncoderOperation::BROTLI_OPERATION_FINISH,
                        Flush::Later if *held < SLICE => {
                            BrotliEncoderOperation::BROTLI_OPERATION_PROCESS
                        }
                        _ => BrotliEncoderOperation::BROTLI_OPERATION_FLUSH,
                    };
                    if operation != BrotliEncoderOperation::BROTLI_OPERATION_PROCESS {
                        *held = 0;
                    }
                    brotli(state, slice, operation, out)?;
                }
            }
            if last {
                return Ok(());
            }
        }
    }
}

fn flush_of(flush: Flush, last: bool) -> FlushCompress {
    match flush {
        Flush::End if last => FlushCompress::Finish,
        Flush::Now if last => FlushCompress::Sync,
        _ => FlushCompress::None,
    }
}

fn zlib(
    state: &mut flate2::Compress,
    mut input: &[u8],
    flush: FlushCompress,
    out: &mut Vec<u8>,
) -> Result<(), EncoderFailed> {
    loop {
        out.reserve((input.len() / 4).max(1024));
        let read = state.total_in();
        let before = out.len();
        let status = state
            .compress_vec(input, out, flush)
            .map_err(|_| EncoderFailed)?;
        let read = usize::try_from(state.total_in() - read).map_err(|_| EncoderFailed)?;
        input = input.get(read..).ok_or(EncoderFailed)?;
        let idle = read == 0 && out.len() == before;
        match status {
            Status::StreamEnd if flush == FlushCompress::Finish && input.is_empty() => {
                return Ok(());
            }
            Status::StreamEnd => return Err(EncoderFailed),
            // Room left over means that nothing is pending (zlib's manual, "deflate").
            _ if flush != FlushCompress::Finish
                && input.is_empty()
                && (idle || out.len() < out.capacity()) =>
            {
                return Ok(());
            }
            _ if idle => return Err(EncoderFailed),
            _ => {}
        }
    }
}

#[cfg(feature = "brotli")]
fn brotli(
    state: &mut BrotliEncoderStateStruct<StandardAlloc>,
    input: &[u8],
    operation: BrotliEncoderOperation,
    out: &mut Vec<u8>,
) -> Result<(), EncoderFailed> {
    let finish = operation == BrotliEncoderOperation::BROTLI_OPERATION_FINISH;
    let (mut left, mut offset) = (input.len(), 0);
    loop {
        let before = (left, out.len());
        // No output slice: what is ready is taken from the encoder's own storage, copied once.
        let went = state.compress_stream(
            operation,
            &mut left,
            input,
            &mut offset,
            &mut 0,
            &mut [],
            &mut 0,
            &mut None,
            &mut |_, _, _, _| (),
        );
        if !went {
            return Err(EncoderFailed);
        }
        let mut ready = 0;
        let output = state.take_output(&mut ready);
        out.extend_from_slice(output.get(..ready).ok_or(EncoderFailed)?);
        if left == 0 && !state.has_more_output() && (!finish || state.is_finished()) {
            return Ok(());
        }
        if (left, out.len()) == before {
            return Err(EncoderFailed);
        }
    }
}
