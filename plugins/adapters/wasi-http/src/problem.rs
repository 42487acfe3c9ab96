//! Replies of the adapter's own, as problem details (RFC 9457).

use edgeweir_filter::Reply;

use crate::bindings::wasi::http::types::ErrorCode;

/// A reply with `application/problem+json`.
pub(crate) fn problem(status: u16, title: &str, detail: &str) -> Reply {
    let body = serde_json::json!({
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
    });
    Reply::new(
        status,
        &[
            ("content-type", "application/problem+json"),
            ("cache-control", "no-store"),
        ],
        body.to_string(),
    )
}

/// What a client is told when the next handler gave no response. A 502, 503 or 504 says that the origin was not reached.
pub(crate) fn no_response(code: &ErrorCode) -> Reply {
    let status = status_of(code);
    let title = match status {
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        413 => "Content Too Large",
        _ => "Bad Gateway",
    };
    let mut reply = problem(status, title, &format!("no response: {}", name(code)));
    reply.head.unreached = status != 413;
    reply
}

/// RFC 9110 §15.6.3, §15.6.5: 504 when the answer did not come in time, 502 for everything else that went wrong further
/// in; a request that was too large for it is the client's. RFC 9209 §2.3: 503 where nobody was asked.
pub(crate) fn status_of(code: &ErrorCode) -> u16 {
    match code {
        ErrorCode::DnsTimeout
        | ErrorCode::ConnectionTimeout
        | ErrorCode::ConnectionReadTimeout
        | ErrorCode::ConnectionWriteTimeout
        | ErrorCode::HttpResponseTimeout => 504,
        ErrorCode::ConnectionLimitReached | ErrorCode::DestinationUnavailable => 503,
        ErrorCode::HttpRequestBodySize(_) => 413,
        _ => 502,
    }
}

/// The error's name as wasi:http spells it, without what it carries (which may be of the inner network).
fn name(code: &ErrorCode) -> String {
    let debug = format!("{code:?}");
    let variant = debug.split(['(', ' ']).next().unwrap_or_default();
    let variant = variant.strip_prefix("ErrorCode::").unwrap_or(variant);
    let mut name = String::with_capacity(variant.len() + 8);
    for letter in variant.chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_named_without_its_payload() {
        for (name, code, status, detail, unreached) in [
            (
                "refused",
                ErrorCode::ConnectionRefused,
                502,
                "no response: connection-refused",
                true,
            ),
            (
                "late",
                ErrorCode::ConnectionReadTimeout,
                504,
                "no response: connection-read-timeout",
                true,
            ),
            (
                "overloaded",
                ErrorCode::ConnectionLimitReached,
                503,
                "no response: connection-limit-reached",
                true,
            ),
            (
                "left alone",
                ErrorCode::DestinationUnavailable,
                503,
                "no response: destination-unavailable",
                true,
            ),
            (
                "internal",
                ErrorCode::InternalError(Some("10.0.0.7 (secret)".to_owned())),
                502,
                "no response: internal-error",
                true,
            ),
            (
                "too large",
                ErrorCode::HttpRequestBodySize(Some(7)),
                413,
                "no response: http-request-body-size",
                false,
            ),
        ] {
            let reply = no_response(&code);
            assert_eq!(reply.head.status, status, "{name}");
            assert_eq!(reply.head.unreached, unreached, "{name}");
            let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap_or_default();
            assert_eq!(body.get("detail"), Some(&detail.into()), "{name}");
        }
    }
}
