//! Whether a response may be coded, and by which name it is refused.

use edgeweir_filter::ResponseHead;
use edgeweir_filter::representation::{self, Fixed};

use crate::config::Settings;

/// Why a response stays as it is; the names are shared by metric and log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Skipped {
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
    /// The body is empty.
    Empty,
    /// The media type is missing or not among the configured.
    MediaType,
    /// gRPC frames and codes its own messages.
    Grpc,
    /// The declared length is under `min_bytes`.
    TooSmall,
    /// The request has no `Accept-Encoding`.
    NoAcceptEncoding,
    /// None of the configured codings is acceptable, or the client prefers the plain form.
    NotAcceptable,
    /// Trailers are announced, and the edge can't write the coding's last bytes before them.
    Trailers,
    /// All encoders together would go over `memory_bytes`.
    Memory,
}

impl Skipped {
    /// The counter of this reason; the name of the reason is what follows the second dot.
    pub fn counter(self) -> &'static str {
        match self {
            Self::NoContent => "compress.skipped.no_content",
            Self::NotModified => "compress.skipped.not_modified",
            Self::Partial => "compress.skipped.partial",
            Self::NoTransform => "compress.skipped.no_transform",
            Self::Coded => "compress.skipped.coded",
            Self::Empty => "compress.skipped.empty",
            Self::MediaType => "compress.skipped.media_type",
            Self::Grpc => "compress.skipped.grpc",
            Self::TooSmall => "compress.skipped.too_small",
            Self::NoAcceptEncoding => "compress.skipped.no_accept_encoding",
            Self::NotAcceptable => "compress.skipped.not_acceptable",
            Self::Trailers => "compress.skipped.trailers",
            Self::Memory => "compress.skipped.memory",
        }
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
pub(crate) fn check(
    head: &ResponseHead,
    is_head: bool,
    settings: &Settings,
) -> Result<(), Skipped> {
    if let Some(fixed) = representation::fixed(head, is_head) {
        return Err(fixed.into());
    }
    check_media_type(head, settings)?;
    match head.content_length() {
        Some(length) if length < settings.min_bytes => Err(Skipped::TooSmall),
        _ => Ok(()),
    }
}

/// Whether the media type is one to code.
pub(crate) fn check_media_type(head: &ResponseHead, settings: &Settings) -> Result<(), Skipped> {
    let essence = representation::media_type(&head.fields).ok_or(Skipped::MediaType)?;
    if essence.starts_with("application/grpc") {
        return Err(Skipped::Grpc);
    }
    let wanted = settings.media.iter().any(|range| range.matches(&essence));
    wanted.then_some(()).ok_or(Skipped::MediaType)
}
