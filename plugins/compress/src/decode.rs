//! Taking a content coding off: of requests for the origin, of responses for clients and filters that want them plain.

use edgeweir_filter::{ConfigError, Fields, Reply, bounded};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{Coding, Decoder, DecoderFailed};

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

impl Coding {
    /// The coding of a name, whatever its case (RFC 9110 §8.4.1).
    pub(crate) fn named(token: &[u8]) -> Option<Self> {
        // RFC 9110 §8.4.1.3: "A recipient SHOULD consider "x-gzip" to be equivalent to "gzip"."
        if token.eq_ignore_ascii_case(b"x-gzip") {
            return Some(Self::Gzip);
        }
        let mut all = Self::ALL.into_iter();
        all.find(|coding| token.eq_ignore_ascii_case(coding.token().as_bytes()))
    }
}

impl DecoderFailed {
    /// The status for a request with such a body.
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::Corrupt | Self::Truncated | Self::Trailing => 400,
            Self::Bomb | Self::Window => 413,
        }
    }

    pub(crate) fn counter(self) -> &'static str {
        match self {
            Self::Corrupt => "compress.undecodable.corrupt",
            Self::Truncated => "compress.undecodable.truncated",
            Self::Trailing => "compress.undecodable.trailing",
            Self::Window => "compress.undecodable.window",
            Self::Bomb => "compress.undecodable.bomb",
        }
    }
}

/// A coded body on its way to plain.
pub(crate) struct Unpacker {
    decoder: Decoder,
    piece: Vec<u8>,
}

/// What comes out of a decoder at once.
const PIECE: usize = 64 << 10;

impl Unpacker {
    pub(crate) fn new(coding: Coding, max_ratio: u32) -> Self {
        Self {
            decoder: Decoder::new(coding, max_ratio),
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
    ) -> Result<(), DecoderFailed> {
        loop {
            self.piece.clear();
            let more = self.decoder.pull(&mut chunk, end, &mut self.piece, PIECE)?;
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
    use crate::Plan;

    fn coded(coding: Coding, plain: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = Plan::new(coding, 4, 20, None).encoder();
        encoder.push(plain, true, &mut out).expect("codes");
        out
    }

    /// Decodes in pieces of `size`.
    fn decoded(coding: Coding, bytes: &[u8], size: usize) -> Result<Vec<u8>, DecoderFailed> {
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
        let text = "to be, or not to be, that is the question; ".repeat(9000);
        for coding in Coding::ALL {
            let bytes = coded(coding, text.as_bytes());
            for size in [1, 7, 1 << 20] {
                let plain = decoded(coding, &bytes, size);
                assert!(
                    plain.as_deref() == Ok(text.as_bytes()),
                    "{coding:?} by {size}"
                );
            }
        }
    }

    #[test]
    fn a_bomb_is_stopped_before_it_grows() {
        let zeros = vec![0; 50 << 20];
        for coding in Coding::ALL {
            let bomb = coded(coding, &zeros);
            let (mut unpacker, mut most) = (Unpacker::new(coding, 100), 0);
            let came = unpacker.push(&bomb, true, &mut |out| most += out.len());
            assert_eq!(came, Err(DecoderFailed::Bomb), "{coding:?}");
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
