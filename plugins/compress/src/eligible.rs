//! Whether a response may be coded, and by which name it is refused.

use edgeweir_filter::ResponseHead;
use edgeweir_filter::representation::{self, Fixed};

use crate::media_type::MediaRange;
use crate::policy::Policy;

/// Why a response stays as it is; the names are shared by metric and log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Skipped {
    /// A rule says so.
    Disabled,
    /// The status or the method (CONNECT) has no content.
    NoContent,
    /// 304: there is no body, but its validator is kept in step with that of the 200.
    NotModified,
    /// 206, 416 or `Content-Range`: byte positions of the origin's representation.
    Partial,
    /// `no-transform` in the response's or the request's `Cache-Control`.
    NoTransform,
    /// The origin applied a content coding.
    Coded,
    /// It was decoded for what follows.
    Decoded,
    /// The body is empty.
    Empty,
    /// There is no `Content-Type`.
    NoMediaType,
    /// The media type is not among `media_types`.
    MediaType,
    /// The media type is among `except_media_types`.
    Excluded,
    /// gRPC frames and codes its own messages.
    Grpc,
    /// The declared length, or what is expected after another filter, is under `min_bytes`.
    TooSmall,
    /// The request has no `Accept-Encoding`.
    NoAcceptEncoding,
    /// None of the configured codings is acceptable, or the client prefers the plain form.
    NotAcceptable,
    /// It may carry a secret, and `breach` says `skip`.
    Breach,
    /// The last body of this URL was hardly smaller coded.
    PoorRatio,
    /// Coding takes more of the worker's time than `cpu_percent`.
    Cpu,
    /// The machine is in its worst emergency.
    Emergency,
    /// Trailers are announced, and the edge can't write the coding's last bytes before them.
    Trailers,
    /// All encoders together would go over `memory_bytes`.
    Memory,
}

impl Skipped {
    /// All of them.
    pub const ALL: [Self; 21] = [
        Self::Disabled,
        Self::NoContent,
        Self::NotModified,
        Self::Partial,
        Self::NoTransform,
        Self::Coded,
        Self::Decoded,
        Self::Empty,
        Self::NoMediaType,
        Self::MediaType,
        Self::Excluded,
        Self::Grpc,
        Self::TooSmall,
        Self::NoAcceptEncoding,
        Self::NotAcceptable,
        Self::Breach,
        Self::PoorRatio,
        Self::Cpu,
        Self::Emergency,
        Self::Trailers,
        Self::Memory,
    ];

    /// The counter of this reason.
    pub fn counter(self) -> &'static str {
        match self {
            Self::Disabled => "compress.skipped.disabled",
            Self::NoContent => "compress.skipped.no_content",
            Self::NotModified => "compress.skipped.not_modified",
            Self::Partial => "compress.skipped.partial",
            Self::NoTransform => "compress.skipped.no_transform",
            Self::Coded => "compress.skipped.coded",
            Self::Decoded => "compress.skipped.decoded",
            Self::Empty => "compress.skipped.empty",
            Self::NoMediaType => "compress.skipped.no_media_type",
            Self::MediaType => "compress.skipped.media_type",
            Self::Excluded => "compress.skipped.excluded",
            Self::Grpc => "compress.skipped.grpc",
            Self::TooSmall => "compress.skipped.too_small",
            Self::NoAcceptEncoding => "compress.skipped.no_accept_encoding",
            Self::NotAcceptable => "compress.skipped.not_acceptable",
            Self::Breach => "compress.skipped.breach",
            Self::PoorRatio => "compress.skipped.poor_ratio",
            Self::Cpu => "compress.skipped.cpu",
            Self::Emergency => "compress.skipped.emergency",
            Self::Trailers => "compress.skipped.trailers",
            Self::Memory => "compress.skipped.memory",
        }
    }

    /// The name shared by metric, log and `Server-Timing`.
    pub fn name(self) -> &'static str {
        let counter = self.counter();
        counter.rsplit('.').next().unwrap_or(counter)
    }
}

impl From<Fixed> for Skipped {
    fn from(fixed: Fixed) -> Self {
        match fixed {
            Fixed::Status => Self::NoContent,
            Fixed::NotModified => Self::NotModified,
            Fixed::Partial => Self::Partial,
            Fixed::NoTransform => Self::NoTransform,
            Fixed::Coded => Self::Coded,
            Fixed::Empty => Self::Empty,
        }
    }
}

/// Whether a response could be coded for a client that accepts it. What is refused here is the same for every
/// client, so it needs no `Vary`.
pub(crate) fn check(head: &ResponseHead, is_head: bool, policy: &Policy) -> Result<(), Skipped> {
    if let Some(fixed) = representation::fixed(head, is_head) {
        return Err(fixed.into());
    }
    check_media_type(head, policy)?;
    match head.expected_length() {
        Some(length) if length < policy.min_bytes => Err(Skipped::TooSmall),
        _ => Ok(()),
    }
}

/// Whether the media type is one to code.
pub(crate) fn check_media_type(head: &ResponseHead, policy: &Policy) -> Result<(), Skipped> {
    let essence = representation::media_type(&head.fields).ok_or(Skipped::NoMediaType)?;
    if essence.starts_with("application/grpc") {
        return Err(Skipped::Grpc);
    }
    let among = |ranges: &[MediaRange]| ranges.iter().any(|range| range.matches(&essence));
    match (among(&policy.media), among(&policy.except)) {
        (false, _) => Err(Skipped::MediaType),
        (true, true) => Err(Skipped::Excluded),
        (true, false) => Ok(()),
    }
}
