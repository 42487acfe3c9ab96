//! Taking a content coding off: of requests for the origin, of responses for clients and filters that want them plain.

use edgeweir_filter::{ConfigError, Fields, Reply, bounded};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::Coding;
use crate::decoder::{Decoder, DecoderFailed};

/// Decoding.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DecodeConfig {
    /// Decode request content (`Content-Encoding`) for the origin. Default false.
    pub requests: bool,
    /// Answer a request whose coding is not known with 415 and an `Accept-Encoding` of those that are. Default false: it
    /// goes on as it is.
    pub refuse_unknown: bool,
    /// Which coded responses are decoded: `off`, `for_client` (when the client does not accept the coding; what it gets may
    /// be coded anew) or `for_filters` (all; what follows sees them plain, and they are not coded here). Default `off`.
    pub responses: DecodeResponses,
    /// With `for_client`: also decode when the client likes another of our codings better, and code so. Default false.
    pub transcode: bool,
    /// How many times its length a body may grow to, beyond its first MiB: 2 to 1100. Default 100.
    #[schemars(range(min = 2, max = 1100))]
    pub max_ratio: u32,
}

/// Which coded responses are decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DecodeResponses {
    /// None.
    #[default]
    Off,
    /// Those in a coding that the client does not accept.
    ForClient,
    /// All.
    ForFilters,
}

impl Default for DecodeConfig {
    fn default() -> Self {
        Self {
            requests: false,
            refuse_unknown: false,
            responses: DecodeResponses::Off,
            transcode: false,
            max_ratio: 100,
        }
    }
}

impl DecodeConfig {
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        bounded::<u32>("decode.max_ratio", self.max_ratio, 2, 1100)?;
        if self.transcode && self.responses != DecodeResponses::ForClient {
            let message = "is true, which needs `responses` to be `for_client`";
            return Err(ConfigError::new("decode.transcode", message));
        }
        if self.refuse_unknown && !self.requests {
            let message = "is true, which needs `requests` to be true";
            return Err(ConfigError::new("decode.refuse_unknown", message));
        }
        Ok(())
    }
}

/// What `Content-Encoding` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Applied {
    /// Nothing, or `identity`.
    None,
    /// One coding that can be taken off.
    One(Coding),
    /// One that can't, or more than one.
    Other,
}

impl Applied {
    pub(crate) fn of(fields: &Fields) -> Self {
        let mut codings = fields
            .list("content-encoding")
            .filter(|coding| !coding.eq_ignore_ascii_case(b"identity"));
        match (codings.next(), codings.next()) {
            (None, _) => Self::None,
            (Some(token), None) => Coding::named(token).map_or(Self::Other, Self::One),
            _ => Self::Other,
        }
    }
}

/// RFC 9110 §15.5.16: a 415 for a coding "ought to" say in `Accept-Encoding` what would be taken (§12.5.3).
pub(crate) fn unsupported() -> Reply {
    let known = Coding::ALL.map(Coding::token).join(", ");
    Reply::new(415, &[("accept-encoding", &known)], "")
}

/// A coded body on its way to plain.
pub(crate) struct Unpacker {
    decoder: Decoder,
    allowed: Allowance,
    piece: Vec<u8>,
}

/// How much may still come out. RFC 9110 gives no number: text shrinks to a tenth, what repeats itself to a hundredth.
struct Allowance {
    left: u64,
    ratio: u64,
}

/// What may come out whatever goes in.
const FREE: u64 = 1 << 20;
/// What comes out of a decoder at once.
const PIECE: usize = 64 << 10;

/// Why a body could not be decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Undecodable {
    /// The bytes are not of the coding.
    Corrupt,
    /// They end before their end.
    Truncated,
    /// They grow over `max_ratio`.
    Bomb,
}

impl Undecodable {
    /// The status for a request with such a body.
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::Corrupt | Self::Truncated => 400,
            Self::Bomb => 413,
        }
    }

    pub(crate) fn counter(self) -> &'static str {
        match self {
            Self::Corrupt => "compress.undecodable.corrupt",
            Self::Truncated => "compress.undecodable.truncated",
            Self::Bomb => "compress.undecodable.bomb",
        }
    }
}

impl Unpacker {
    pub(crate) fn new(coding: Coding, max_ratio: u32) -> Self {
        Self {
            decoder: Decoder::new(coding),
            allowed: Allowance {
                left: FREE,
                ratio: max_ratio.into(),
            },
            piece: Vec::new(),
        }
    }

    /// The most bytes one holds.
    pub(crate) fn memory(coding: Coding) -> usize {
        Decoder::memory(coding) + PIECE
    }

    /// Decodes a piece; `sink` is given what comes out, bit by bit, so that nothing gathers here.
    pub(crate) fn push(
        &mut self,
        mut chunk: &[u8],
        end: bool,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Undecodable> {
        let came = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        let more = came.saturating_mul(self.allowed.ratio);
        self.allowed.left = self.allowed.left.saturating_add(more);
        loop {
            self.piece.clear();
            let more = self.decoder.pull(&mut chunk, end, &mut self.piece, PIECE);
            let more = more.map_err(|failed| match failed {
                DecoderFailed::Corrupt => Undecodable::Corrupt,
                DecoderFailed::Truncated => Undecodable::Truncated,
            })?;
            let out = u64::try_from(self.piece.len()).unwrap_or(u64::MAX);
            self.allowed.left = self
                .allowed
                .left
                .checked_sub(out)
                .ok_or(Undecodable::Bomb)?;
            sink(&self.piece);
            if !more {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    use crate::Plan;

    fn coded(coding: Coding, plain: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = Plan::new(coding, 4, 20, None).encoder();
        encoder.push(plain, true, &mut out).expect("codes");
        out
    }

    /// Decodes in pieces of `size`.
    fn decoded(coding: Coding, bytes: &[u8], size: usize) -> Result<Vec<u8>, Undecodable> {
        let (mut unpacker, mut plain) = (Unpacker::new(coding, 100), Vec::new());
        let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
        for piece in &pieces {
            unpacker.push(piece, false, &mut |out| plain.extend_from_slice(out))?;
        }
        unpacker.push(&[], true, &mut |out| plain.extend_from_slice(out))?;
        Ok(plain)
    }

    #[test]
    fn what_was_coded_comes_back_however_it_is_cut() {
        let text = "to be, or not to be, that is the question; ".repeat(3000);
        for coding in Coding::ALL {
            let bytes = coded(coding, text.as_bytes());
            for size in [1, 2, 7, 100, 1 << 20] {
                let plain = decoded(coding, &bytes, size);
                assert!(
                    plain.as_deref() == Ok(text.as_bytes()),
                    "{coding:?} by {size}"
                );
            }
            assert_eq!(decoded(coding, &coded(coding, b""), 9), Ok(Vec::new()));
        }
    }

    #[test]
    fn members_and_raw_deflate() {
        let mut two = coded(Coding::Gzip, b"to be, ");
        two.extend(coded(Coding::Gzip, b"or not to be"));
        for size in [1, 5, 1000] {
            assert_eq!(
                decoded(Coding::Gzip, &two, size).expect("two members"),
                b"to be, or not to be"
            );
        }
        // RFC 9110 §8.4.1.2: "Some non-conformant implementations send the "deflate" compressed data without the zlib wrapper."
        let mut raw = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        raw.write_all(b"to be, or not to be").expect("codes");
        let raw = raw.finish().expect("codes");
        for size in [1, 2, 1000] {
            assert_eq!(
                decoded(Coding::Deflate, &raw, size).expect("raw"),
                b"to be, or not to be"
            );
        }
    }

    #[test]
    fn what_is_no_body_of_the_coding_has_a_name() {
        let text = "to be, or not to be, that is the question; ".repeat(50);
        for coding in Coding::ALL {
            let bytes = coded(coding, text.as_bytes());
            let cut = &bytes[..bytes.len() - 1];
            assert_eq!(
                decoded(coding, cut, 50),
                Err(Undecodable::Truncated),
                "{coding:?}"
            );
            assert_eq!(
                decoded(coding, b"", 1),
                Err(Undecodable::Truncated),
                "{coding:?}"
            );
            let more = [&bytes[..], b"more"].concat();
            assert_eq!(
                decoded(coding, &more, 1000),
                Err(Undecodable::Corrupt),
                "{coding:?}"
            );
            let noise: Vec<u8> = (0..5000_u32)
                .map(|at| ((at * at) >> 3) as u8 | 0x81)
                .collect();
            assert!(decoded(coding, &noise, 1000).is_err(), "{coding:?}");
        }
    }

    #[test]
    fn a_bomb_is_stopped_before_it_grows() {
        let zeros = vec![0; 50 << 20];
        for coding in Coding::ALL {
            let bomb = coded(coding, &zeros);
            let (mut unpacker, mut most) = (Unpacker::new(coding, 100), 0);
            let came = unpacker.push(&bomb, true, &mut |out| most += out.len());
            assert_eq!(came, Err(Undecodable::Bomb), "{coding:?}");
            assert!(most <= (1 << 20) + 100 * bomb.len(), "{coding:?}: {most}");
        }
    }

    #[test]
    fn what_content_encoding_says() {
        for (name, value, want) in [
            ("plain", "identity", Applied::None),
            ("one", "GZip", Applied::One(Coding::Gzip)),
            ("its old name", "x-gzip", Applied::One(Coding::Gzip)),
            (
                "beside identity",
                "identity, br",
                Applied::One(Coding::Brotli),
            ),
            ("two", "gzip, br", Applied::Other),
            ("unknown", "compress", Applied::Other),
        ] {
            let fields = Fields::of(&[("content-encoding", value)]);
            assert_eq!(Applied::of(&fields), want, "{name}");
        }
        assert_eq!(Applied::of(&Fields::default()), Applied::None);
    }
}
