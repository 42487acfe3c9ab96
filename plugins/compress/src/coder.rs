//! Content codings: what a stream is coded with, the encoders and the decoders.

#[cfg(feature = "brotli")]
mod dcb;
mod decoder;
mod dictionary;
mod encoder;
mod unzstd;
mod zstd;

use std::ops::RangeInclusive;
use std::rc::Rc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use decoder::{Decoder, DecoderFailed};
pub use dictionary::Dictionary;
pub use encoder::{Encoder, EncoderFailed, Flush};

/// A content coding (RFC 9110 §8.4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub enum Coding {
    /// `zstd` (RFC 8878), its window bounded by RFC 9659.
    #[serde(rename = "zstd")]
    Zstd,
    /// `br` (RFC 7932).
    #[cfg(feature = "brotli")]
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
    /// All of them, in the default order of preference: as a module runs them zstd takes half of the time of gzip and two
    /// fifths of that of br, at about their size (the page has a table).
    pub const ALL: [Self; Self::COUNT] = [
        Self::Zstd,
        #[cfg(feature = "brotli")]
        Self::Brotli,
        Self::Gzip,
        Self::Deflate,
    ];

    /// How many there are.
    pub const COUNT: usize = if cfg!(feature = "brotli") { 4 } else { 3 };

    /// The name in `Content-Encoding`.
    pub fn token(self) -> &'static str {
        match self {
            #[cfg(feature = "brotli")]
            Self::Brotli => "br",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    /// Its levels, fast to small.
    pub fn levels(self) -> RangeInclusive<u8> {
        match self {
            #[cfg(feature = "brotli")]
            Self::Brotli => 0..=11,
            Self::Zstd => 1..=4,
            Self::Gzip | Self::Deflate => 1..=9,
        }
    }
}

/// A coding with its level, window and dictionary: all that an encoder needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    coding: Coding,
    level: u8,
    window_bits: u8,
    length: Option<u64>,
    dictionary: Option<Rc<Dictionary>>,
}

/// The smallest brotli window used for a short body. Below it the encoder changes to hashers made for tiny windows.
const SMALLEST_WINDOW: u8 = 17;

impl Plan {
    /// A plan for a body; `length` in bytes when it is declared, which the body may not exceed. Level and window are within their coding's bounds
    /// (brotli: 0 to 11 and 17 to 24; zstd: 1 to 4, window one bit less, for it holds two of them; gzip and deflate: 1 to 9,
    /// window always 15).
    pub fn new(coding: Coding, level: u8, window_bits: u8, length: Option<u64>) -> Self {
        let mut plan = Self {
            coding,
            level,
            window_bits: 15,
            length,
            dictionary: None,
        };
        let fit = bits(length.unwrap_or(u64::MAX));
        let brotli = fit.clamp(SMALLEST_WINDOW, window_bits.clamp(SMALLEST_WINDOW, 24));
        match coding {
            Coding::Gzip | Coding::Deflate => {}
            #[cfg(feature = "brotli")]
            Coding::Brotli => plan.window_bits = brotli,
            // RFC 9659 §3: a window for `zstd` "MUST NOT exceed 8 MB", which is 23 bits.
            Coding::Zstd => plan.window_bits = brotli - 1,
        }
        plan
    }

    /// The same with a dictionary that the client has: `br` becomes `dcb` and `zstd` becomes `dcz`. `None` for the others,
    /// which have no such form. Brotli reaches all of the dictionary from any window. The window of zstd opens as far as is
    /// needed to reach it, up to 8 MiB, with an undeclared length up to 2 MiB; levels that can't use one in such a window
    /// (below 4) become the nearest that can.
    pub fn with_dictionary(self, dictionary: Rc<Dictionary>) -> Option<Self> {
        let held = u64::try_from(dictionary.bytes().len()).unwrap_or(u64::MAX);
        let both = held.saturating_add(self.length.unwrap_or(held));
        let (level, window_bits) = match self.coding {
            Coding::Gzip | Coding::Deflate => return None,
            #[cfg(feature = "brotli")]
            Coding::Brotli => (self.level, self.window_bits),
            Coding::Zstd => zstd::with_dictionary(self.level, both, self.length.is_some()),
        };
        Some(Self {
            level,
            window_bits,
            dictionary: Some(dictionary),
            ..self
        })
    }

    /// The coding.
    pub fn coding(&self) -> Coding {
        self.coding
    }

    /// The name in `Content-Encoding`: that of the coding, or `dcb` or `dcz` with a dictionary (RFC 9842 §4, §5).
    pub fn token(&self) -> &'static str {
        match (&self.dictionary, self.coding) {
            #[cfg(feature = "brotli")]
            (Some(_), Coding::Brotli) => "dcb",
            (Some(_), Coding::Zstd) => "dcz",
            (_, coding) => coding.token(),
        }
    }

    /// The same at the coding's lowest level, which takes the least time and no more memory; with a dictionary as it is.
    pub(crate) fn at_lowest_level(self) -> Self {
        let level = match self.dictionary {
            Some(_) => self.level,
            None => *self.coding.levels().start(),
        };
        Self { level, ..self }
    }

    /// The most bytes an encoder of this plan holds, its output aside (a test counts what is really allocated).
    ///
    /// gzip and deflate: 0.4 MiB. brotli with the default window of 20 bits: level 0 0.4 MiB, 1 1 MiB, 2 to 5 4 to 5 MiB,
    /// 6 6 MiB, 7 12 MiB, 8 20 MiB, 9 38 MiB, 10 and 11 22 MiB. From level 2 on the window counts twice, from 10 on ten times.
    /// zstd: six times the window, or three times a shorter body, and 2 to 4 MiB. With a dictionary brotli: three times the
    /// window and 3 to 5 MiB.
    pub fn memory(&self) -> usize {
        const KIB: usize = 1024;
        let window = 1_usize << self.window_bits;
        match (self.coding, self.level) {
            (Coding::Gzip | Coding::Deflate, _) => 400 * KIB,
            #[cfg(feature = "brotli")]
            (Coding::Brotli, level) if let Some(dictionary) = &self.dictionary => {
                dcb::memory(level, self.window_bits, dictionary.bytes().len())
            }
            #[cfg(feature = "brotli")]
            (Coding::Brotli, 0) => 400 * KIB,
            #[cfg(feature = "brotli")]
            (Coding::Brotli, 1) => 1024 * KIB,
            #[cfg(feature = "brotli")]
            (Coding::Brotli, 2..=4) => 2 * window + 2048 * KIB,
            #[cfg(feature = "brotli")]
            (Coding::Brotli, 5) => 2 * window + 3072 * KIB,
            #[cfg(feature = "brotli")]
            (Coding::Brotli, 6) => 2 * window + 4096 * KIB,
            #[cfg(feature = "brotli")]
            (Coding::Brotli, 7) => 2 * window + 10 * 1024 * KIB,
            #[cfg(feature = "brotli")]
            (Coding::Brotli, 8) => 2 * window + 18 * 1024 * KIB,
            #[cfg(feature = "brotli")]
            (Coding::Brotli, 9) => 2 * window + 36 * 1024 * KIB,
            #[cfg(feature = "brotli")]
            (Coding::Brotli, _) => 10 * window + 12 * 1024 * KIB,
            (Coding::Zstd, level) => {
                let held = self.dictionary.as_ref().map_or(0, |it| it.bytes().len());
                let held = held.min(window);
                let length = self.length.and_then(|length| usize::try_from(length).ok());
                // A buffer of up to two windows doubles as it grows; while it does, both are there.
                let buffer = length.map_or(usize::MAX, |length| length.saturating_add(held));
                let buffer = buffer.saturating_mul(3).min(6 * window);
                buffer + 2 * held + zstd::tables(level)
            }
        }
    }

    /// A fresh encoder.
    pub fn encoder(&self) -> Encoder {
        Encoder::new(self)
    }
}

/// The bits of the smallest window that holds so many bytes.
fn bits(length: u64) -> u8 {
    // RFC 7932 §9.1: the window is (1 << bits) - 16 bytes; more than the body is of no use.
    let bits = length.saturating_add(16).max(1).ilog2() + 1;
    u8::try_from(bits).unwrap_or(u8::MAX)
}
