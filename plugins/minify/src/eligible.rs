//! Whether a response is JSON that may be changed, and by which name it is refused.

use edgeweir_filter::ResponseHead;
use edgeweir_filter::representation::{self, Fixed};

use crate::Framing;
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
    /// The media type is missing or not JSON.
    MediaType,
    /// The `charset` parameter names another encoding than UTF-8.
    Charset,
    /// The declared length is over `max_bytes`.
    TooLarge,
}

impl Skipped {
    /// The counter of this reason; the name of the reason is what follows the second dot.
    pub fn counter(self) -> &'static str {
        match self {
            Self::NoContent => "minify.skipped.no_content",
            Self::NotModified => "minify.skipped.not_modified",
            Self::Partial => "minify.skipped.partial",
            Self::NoTransform => "minify.skipped.no_transform",
            Self::Coded => "minify.skipped.coded",
            Self::Empty => "minify.skipped.empty",
            Self::MediaType => "minify.skipped.media_type",
            Self::Charset => "minify.skipped.charset",
            Self::TooLarge => "minify.skipped.too_large",
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

/// How the texts of a response are framed, when it may be minified.
pub(crate) fn check(
    head: &ResponseHead,
    is_head: bool,
    settings: &Settings,
) -> Result<Framing, Skipped> {
    if let Some(fixed) = fixed(head, is_head, settings) {
        return Err(fixed.into());
    }
    let framing = check_type(head, settings)?;
    if head
        .content_length()
        .is_some_and(|length| length > settings.max_bytes)
    {
        return Err(Skipped::TooLarge);
    }
    Ok(framing)
}

/// As [`representation::fixed`], but what is to be hidden is hidden in spite of `no-transform`.
///
/// RFC 9110 §7.7 binds a proxy; this is a gateway, that "acts as an origin server for the outbound connection" (§3.7), and
/// does what its operator wants of the content.
fn fixed(head: &ResponseHead, is_head: bool, settings: &Settings) -> Option<Fixed> {
    let fixed = representation::fixed(head, is_head)?;
    if fixed != Fixed::NoTransform || !settings.rules.guards() {
        return Some(fixed);
    }
    let mut allowed = head.clone();
    allowed.fields.remove("cache-control");
    representation::fixed(&allowed, is_head)
}

/// Whether a response that is not eligible for this reason would show what must not be seen.
pub(crate) fn shows(skipped: Skipped, head: &ResponseHead, settings: &Settings) -> bool {
    match skipped {
        Skipped::Charset | Skipped::TooLarge => true,
        Skipped::Coded => !matches!(check_type(head, settings), Err(Skipped::MediaType)),
        // Parts of JSON, that may be cut anywhere; several ranges are in a type of their own (RFC 9110 §14.6).
        Skipped::Partial => {
            let type_is = representation::media_type(&head.fields);
            type_is.as_deref() == Some("multipart/byteranges")
                || !matches!(check_type(head, settings), Err(Skipped::MediaType))
        }
        // RFC 9110 §5.3: of a field that is no list and there twice each recipient may believe another line. Of
        // `application/json charset=utf-8`, which is no media type (§8.3.1), many believe the first word.
        Skipped::MediaType => {
            let mut claimed = head.fields.list("content-type");
            claimed.any(|one| {
                let first = one.split(u8::is_ascii_whitespace).next();
                let essence = first.and_then(representation::essence);
                essence.is_some_and(|essence| framing(&essence, settings).is_some())
            })
        }
        _ => false,
    }
}

/// How the texts of a response are framed, by its media type alone.
pub(crate) fn check_type(head: &ResponseHead, settings: &Settings) -> Result<Framing, Skipped> {
    let essence = representation::media_type(&head.fields).ok_or(Skipped::MediaType)?;
    let framing = framing(&essence, settings).ok_or(Skipped::MediaType)?;
    // RFC 8259 §8.1: UTF-8; the parameter is not defined, but what it says of other encodings is believed.
    match representation::charset(&head.fields).as_deref() {
        None | Some("utf-8" | "utf8" | "us-ascii" | "ascii") => Ok(framing),
        Some(_) => Err(Skipped::Charset),
    }
}

fn framing(essence: &str, settings: &Settings) -> Option<Framing> {
    if settings.media_types.iter().any(|other| other == essence) {
        return Some(Framing::Single);
    }
    // gRPC puts its own frames around JSON.
    if essence.starts_with("application/grpc") {
        return None;
    }
    match essence {
        "application/json" | "text/json" => Some(Framing::Single),
        "application/x-ndjson"
        | "application/ndjson"
        | "application/jsonl"
        | "application/x-jsonl"
        | "application/jsonlines"
        | "application/x-jsonlines"
        | "application/json-lines"
        | "application/stream+json"
        | "text/jsonl" => Some(Framing::Lines),
        "application/json-seq" => Some(Framing::Sequence),
        // RFC 8091: +json-seq; RFC 6839 §3.1: +json.
        other if other.ends_with("+json-seq") => Some(Framing::Sequence),
        other if other.ends_with("+json") => Some(Framing::Single),
        _ => None,
    }
}
