//! Why there is no response head, and what is answered in its place.

use std::time::Duration;

use edgeweir_host_chain::{Response, Unreached, full};
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderValue};

use crate::counts::Event;
use crate::retry::Ended;

/// Why there is no response head.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    Connect(String),
    ConnectTimeout(Duration),
    Tls {
        certificate: bool,
        why: String,
    },
    Timeout(Duration),
    /// Nothing came of the request's body for so long.
    BodyTimeout(Duration),
    /// The request's body broke off.
    BodyFailed(String),
    /// What came is no sound HTTP.
    Malformed(&'static str),
    Closed(String),
    /// This stream alone, by the other side (RST_STREAM).
    Reset(String),
    Refused(String),
    Overflow(String),
    CircuitOpen,
    Unresolved,
    Request(String),
}

impl Failure {
    pub(crate) fn event(&self) -> Event {
        match self {
            Self::Connect(_) => Event::ConnectFailed,
            Self::ConnectTimeout(_) => Event::ConnectTimeout,
            Self::Tls { .. } => Event::TlsFailed,
            Self::Timeout(_) => Event::Timeout,
            Self::BodyTimeout(_) | Self::BodyFailed(_) => Event::RequestCut,
            Self::Malformed(_) => Event::Malformed,
            Self::Closed(_) | Self::Reset(_) => Event::Reset,
            Self::Refused(_) => Event::Refused,
            Self::Overflow(_) => Event::Overflow,
            Self::CircuitOpen => Event::CircuitOpen,
            Self::Unresolved => Event::Unresolved,
            Self::Request(_) => Event::Unsendable,
        }
    }

    /// The endpoint has no part in it.
    pub(crate) fn of_the_request(&self) -> bool {
        matches!(
            self,
            Self::Request(_) | Self::BodyTimeout(_) | Self::BodyFailed(_)
        )
    }

    /// How the attempt ended, where another could follow.
    pub(crate) fn ended(&self) -> Option<Ended> {
        match self {
            Self::Connect(_) | Self::ConnectTimeout(_) | Self::Tls { .. } => {
                Some(Ended::Unconnected)
            }
            Self::Refused(_) => Some(Ended::Refused),
            Self::Closed(_) | Self::Reset(_) => Some(Ended::Reset),
            _ => None,
        }
    }

    /// The answer in the upstream's place.
    pub(crate) fn response(&self, upstream: &str, address: &str) -> Response {
        let (status, kind, text, unreached) = self.told();
        tracing::warn!(upstream, address, status = status.as_u16(), "{text}");
        let mut response = plain(status, Some(kind), format!("upstream {upstream}: {text}\n"));
        if let Some(unreached) = unreached {
            response.extensions_mut().insert(unreached);
        }
        response
    }

    /// Status, type of RFC 9209 §2.3, words.
    fn told(&self) -> (StatusCode, &'static str, String, Option<Unreached>) {
        match self {
            Self::Connect(why) => (
                StatusCode::BAD_GATEWAY,
                "connection_refused",
                format!("cannot connect: {why}"),
                Some(Unreached::Refused),
            ),
            Self::ConnectTimeout(limit) => (
                StatusCode::GATEWAY_TIMEOUT,
                "connection_timeout",
                format!("no connection within {limit:?}"),
                Some(Unreached::ConnectTimeout),
            ),
            Self::Tls { certificate, why } => (
                StatusCode::BAD_GATEWAY,
                if *certificate {
                    "tls_certificate_error"
                } else {
                    "tls_protocol_error"
                },
                format!("TLS: {why}"),
                Some(Unreached::Refused),
            ),
            Self::Timeout(limit) => (
                StatusCode::GATEWAY_TIMEOUT,
                "http_response_timeout",
                format!("no response within {limit:?}"),
                Some(Unreached::Timeout),
            ),
            // RFC 9110 §15.5.9: it is the request that was not complete in time.
            Self::BodyTimeout(limit) => (
                StatusCode::REQUEST_TIMEOUT,
                "http_request_error",
                format!("nothing of the request's body came for {limit:?}"),
                None,
            ),
            Self::Malformed(why) => (
                StatusCode::BAD_GATEWAY,
                "http_protocol_error",
                format!("a malformed response: {why}"),
                Some(Unreached::Closed),
            ),
            Self::Closed(why) | Self::Reset(why) | Self::BodyFailed(why) => (
                StatusCode::BAD_GATEWAY,
                "connection_terminated",
                format!("no response: {why}"),
                Some(Unreached::Closed),
            ),
            Self::Refused(why) => (
                StatusCode::BAD_GATEWAY,
                "connection_terminated",
                format!("the stream was refused: {why}"),
                Some(Unreached::Closed),
            ),
            Self::Overflow(why) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "connection_limit_reached",
                why.clone(),
                Some(Unreached::Full),
            ),
            Self::CircuitOpen => (
                StatusCode::SERVICE_UNAVAILABLE,
                "destination_unavailable",
                "its endpoints failed too often in a row: the breaker is open".to_owned(),
                Some(Unreached::Unavailable),
            ),
            Self::Unresolved => (
                StatusCode::BAD_GATEWAY,
                "dns_error",
                "none of its names has an address".to_owned(),
                Some(Unreached::Refused),
            ),
            Self::Request(why) => (
                StatusCode::BAD_REQUEST,
                "http_request_error",
                format!("the request cannot be sent on: {why}"),
                None,
            ),
        }
    }
}

/// A short text answer of the host itself; `error` is its `Proxy-Status` (RFC 9209) type.
pub fn plain(status: StatusCode, error: Option<&'static str>, text: String) -> Response {
    let length = text.len();
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    if let Some(error) = error
        && let Ok(value) = HeaderValue::from_str(&format!("edgeweir; error={error}"))
    {
        headers.insert("proxy-status", value);
    }
    response
}

/// What of TLS's errors says nothing to an operator, in words.
pub(crate) fn in_words(why: String) -> String {
    if why.contains("CaUsedAsEndEntity") {
        return "the certificate it shows is an authority's (CA:TRUE), which no server may show as its own: have a certificate \
                signed by that authority, or make this one without CA:TRUE"
            .to_owned();
    }
    why
}

/// An error with its causes, outermost first.
pub(crate) fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
