//! The encoders behind one face: bytes in, coded bytes out, everything decodable after each call.

use std::rc::Rc;

use brotli::enc::StandardAlloc;
use brotli::enc::encode::{
    BrotliEncoderOperation, BrotliEncoderParameter, BrotliEncoderStateStruct,
};
use flate2::{Compression, FlushCompress, Status};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A content coding (RFC 9110 §8.4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub enum Coding {
    /// `br` (RFC 7932).
    #[serde(rename = "br")]
    Brotli,
    /// `gzip` (RFC 1952).
    #[serde(rename = "gzip")]
    Gzip,
    /// `deflate`: the zlib format (RFC 1950), as RFC 9110 §8.4.1.2 says, not raw deflate.
    #[serde(rename = "deflate")]
    Deflate,
}

impl Coding {
    /// All of them, in the default order of preference.
    pub const ALL: [Self; 3] = [Self::Brotli, Self::Gzip, Self::Deflate];

    /// The coding of a name in lower or upper case.
    pub(crate) fn named(token: &[u8]) -> Option<Self> {
        // RFC 9110 §8.4.1.3: "A recipient SHOULD consider "x-gzip" to be equivalent to "gzip"."
        if token.eq_ignore_ascii_case(b"x-gzip") {
            return Some(Self::Gzip);
        }
        let mut all = Self::ALL.into_iter();
        all.find(|coding| token.eq_ignore_ascii_case(coding.token().as_bytes()))
    }

    /// The name in `Content-Encoding`.
    pub fn token(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }
}

/// Bytes that both sides have before the body begins, known by their hash (RFC 9842).
#[derive(PartialEq, Eq, Debug)]
pub struct Dictionary {
    bytes: Vec<u8>,
    sha256: [u8; 32],
}

impl Dictionary {
    /// A dictionary of these bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        let sha256 = Sha256::digest(&bytes).into();
        Self { bytes, sha256 }
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Their SHA-256.
    pub fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }
}

/// A coding with its level and window: all that an encoder needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    coding: Coding,
    level: u8,
    window_bits: u8,
    dictionary: Option<Rc<Dictionary>>,
}

/// The smallest brotli window used for a short body. Below it the encoder changes to hashers made for tiny windows.
const SMALLEST_WINDOW: u8 = 17;

/// What the encoders are fed at once, in bytes. Brotli is also flushed after so many: it would else gather commands for
/// up to 16 MiB of input, and guess a large body from one large chunk and take the large tables it has for these.
const SLICE: usize = 64 * 1024;

impl Plan {
    /// A plan for a body; `length` in bytes when it is declared. Level and window are within their coding's bounds
    /// (brotli: 0 to 11 and 17 to 24; gzip and deflate: 1 to 9, window always 15).
    pub fn new(coding: Coding, level: u8, window_bits: u8, length: Option<u64>) -> Self {
        let window_bits = match coding {
            Coding::Gzip | Coding::Deflate => 15,
            Coding::Brotli => {
                // RFC 7932 §9.1: the window is (1 << bits) - 16 bytes; more than the body is of no use.
                let fit = length.map_or(u8::MAX, |length| {
                    let bits = length.saturating_add(16).max(1).ilog2() + 1;
                    u8::try_from(bits).unwrap_or(u8::MAX)
                });
                fit.clamp(SMALLEST_WINDOW, window_bits.max(SMALLEST_WINDOW))
            }
        };
        Self {
            coding,
            level,
            window_bits,
            dictionary: None,
        }
    }

    /// The same with a dictionary that the client has: `br` becomes `dcb`. `None` for the others, which have no such form.
    pub fn with_dictionary(self, dictionary: Rc<Dictionary>) -> Option<Self> {
        if self.coding != Coding::Brotli {
            return None;
        }
        let known = u64::try_from(dictionary.bytes.len()).unwrap_or(u64::MAX);
        // With a lower level the encoder does not look into a dictionary.
        let plan = Self::new(
            self.coding,
            self.level.max(2),
            23,
            Some(known.saturating_mul(2)),
        );
        Some(Self {
            dictionary: Some(dictionary),
            ..plan
        })
    }

    /// The name in `Content-Encoding`.
    pub fn token(&self) -> &'static str {
        match self.dictionary {
            Some(_) => "dcb",
            None => self.coding.token(),
        }
    }

    /// The same at the coding's lowest level, which takes the least time and no more memory; with a dictionary as it is.
    pub(crate) fn at_lowest_level(self) -> Self {
        let level = match self.dictionary {
            Some(_) => self.level,
            None => u8::from(self.coding != Coding::Brotli),
        };
        Self { level, ..self }
    }

    /// The coding.
    pub fn coding(&self) -> Coding {
        self.coding
    }

    /// The most bytes an encoder of this plan holds, its output aside (a test counts what is really allocated).
    ///
    /// gzip and deflate: 0.4 MiB. brotli with the default window of 20 bits: level 0 0.4 MiB, 1 1 MiB, 2 to 5 4 to 5 MiB,
    /// 6 6 MiB, 7 12 MiB, 8 20 MiB, 9 38 MiB, 10 and 11 22 MiB. From level 2 on the window counts twice, from 10 on ten times.
    pub fn memory(&self) -> usize {
        const KIB: usize = 1024;
        let window = 1_usize << self.window_bits;
        match (self.coding, self.level) {
            (Coding::Gzip | Coding::Deflate, _) => 400 * KIB,
            (Coding::Brotli, 0) => 400 * KIB,
            (Coding::Brotli, 1) => 1024 * KIB,
            (Coding::Brotli, 2..=4) => 2 * window + 2048 * KIB,
            (Coding::Brotli, 5) => 2 * window + 3072 * KIB,
            (Coding::Brotli, 6) => 2 * window + 4096 * KIB,
            (Coding::Brotli, 7) => 2 * window + 10 * 1024 * KIB,
            (Coding::Brotli, 8) => 2 * window + 18 * 1024 * KIB,
            (Coding::Brotli, 9) => 2 * window + 36 * 1024 * KIB,
            (Coding::Brotli, _) => 10 * window + 12 * 1024 * KIB,
        }
    }

    /// A fresh encoder.
    pub fn encoder(&self) -> Encoder {
        let level = Compression::new(u32::from(self.level));
        let engine = match self.coding {
            Coding::Gzip => Engine::Zlib(flate2::Compress::new_gzip(level, self.window_bits)),
            Coding::Deflate => Engine::Zlib(flate2::Compress::new(level, true)),
            Coding::Brotli => {
                let mut state = Box::new(BrotliEncoderStateStruct::new(StandardAlloc::default()));
                for (parameter, value) in [
                    (BrotliEncoderParameter::BROTLI_PARAM_QUALITY, self.level),
                    (BrotliEncoderParameter::BROTLI_PARAM_LGWIN, self.window_bits),
                ] {
                    state.set_parameter(parameter, u32::from(value));
                }
                if let Some(dictionary) = &self.dictionary {
                    state.set_custom_dictionary(dictionary.bytes.len(), &dictionary.bytes);
                }
                Engine::Brotli(state)
            }
        };
        // RFC 9842 §4: four bytes and the hash of the dictionary go before the brotli stream.
        let prefix = self
            .dictionary
            .as_ref()
            .map(|dictionary| [&b"\xff\x44\x43\x42"[..], &dictionary.sha256].concat());
        Encoder { engine, prefix }
    }
}

/// An encoder refused its input: a bug in it or in how it is called. The coded body can't be completed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EncoderFailed;

/// One stream being coded.
pub struct Encoder {
    engine: Engine,
    /// To be written first.
    prefix: Option<Vec<u8>>,
}

enum Engine {
    Zlib(flate2::Compress),
    Brotli(Box<BrotliEncoderStateStruct<StandardAlloc>>),
}

impl Encoder {
    /// Appends the coded form of `chunk` to `out`. A decoder that has all of `out` so far can give back all input so
    /// far; with `end` the stream is complete. An empty chunk without `end` adds nothing.
    pub fn push(
        &mut self,
        chunk: &[u8],
        end: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), EncoderFailed> {
        if chunk.is_empty() && !end {
            return Ok(());
        }
        out.extend(self.prefix.take().unwrap_or_default());
        let mut rest = chunk;
        loop {
            let (slice, after) = rest.split_at(rest.len().min(SLICE));
            rest = after;
            let last = rest.is_empty();
            match &mut self.engine {
                Engine::Zlib(state) => zlib(state, slice, last, end, out)?,
                Engine::Brotli(state) => brotli(state, slice, last && end, out)?,
            }
            if last {
                return Ok(());
            }
        }
    }
}

fn zlib(
    state: &mut flate2::Compress,
    mut input: &[u8],
    last: bool,
    end: bool,
    out: &mut Vec<u8>,
) -> Result<(), EncoderFailed> {
    let flush = match (last, end) {
        (true, true) => FlushCompress::Finish,
        (true, false) => FlushCompress::Sync,
        (false, _) => FlushCompress::None,
    };
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

fn brotli(
    state: &mut BrotliEncoderStateStruct<StandardAlloc>,
    input: &[u8],
    finish: bool,
    out: &mut Vec<u8>,
) -> Result<(), EncoderFailed> {
    let operation = if finish {
        BrotliEncoderOperation::BROTLI_OPERATION_FINISH
    } else {
        BrotliEncoderOperation::BROTLI_OPERATION_FLUSH
    };
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
