//! What became of a request, by its status and `Cache-Status` (RFC 9211).

use std::fmt;

use http::StatusCode;
use http::header::HeaderMap;

/// What became of a request.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Outcome {
    /// The cache stored it now.
    Stored,
    /// The cache had it.
    Hit,
    /// It came with another request's response.
    Collapsed,
    /// The cache did not store it, and why, where it says.
    NotStored(String),
    /// No cache said anything.
    Silent,
    /// Neither 2xx nor 304, and not stored.
    Status(u16),
    /// There was no whole response, and why.
    Unanswered(String),
}

impl Outcome {
    /// Whether the cache has it now.
    pub fn is_cached(&self) -> bool {
        matches!(self, Self::Stored | Self::Hit | Self::Collapsed)
    }

    /// Whether the edge or its origin failed.
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Unanswered(_) | Self::Status(500..))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stored => f.write_str("stored"),
            Self::Hit => f.write_str("already there"),
            Self::Collapsed => f.write_str("came with another request's"),
            Self::NotStored(why) if why.is_empty() => f.write_str("not stored"),
            Self::NotStored(why) => write!(f, "not stored: {why}"),
            Self::Silent => f.write_str("no Cache-Status: no cache on the way"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::Unanswered(why) => write!(f, "no answer: {why}"),
        }
    }
}

/// What a response says of itself.
pub fn outcome(status: StatusCode, headers: &HeaderMap) -> Outcome {
    let lines = headers.get_all("cache-status");
    let text: Vec<_> = lines.iter().filter_map(|line| line.to_str().ok()).collect();
    let text = text.join(",");
    let parameters = of_the_nearest(&text);
    let has = |name: &str| parameters.iter().any(|(known, _)| *known == name);
    let value = |name: &str| {
        let found = parameters.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.trim_matches('"').to_owned())
    };
    if has("stored") {
        return Outcome::Stored;
    }
    if has("hit") {
        return Outcome::Hit;
    }
    if !status.is_success() && status != StatusCode::NOT_MODIFIED {
        return Outcome::Status(status.as_u16());
    }
    // A boolean parameter without a value is true, `?0` is false (RFC 9651 §3.1.2).
    if has("collapsed") && value("collapsed").is_none_or(|value| value != "?0") {
        return Outcome::Collapsed;
    }
    match parameters.is_empty() {
        true => Outcome::Silent,
        false => Outcome::NotStored(value("detail").or_else(|| value("fwd")).unwrap_or_default()),
    }
}

/// The parameters of the last member: the cache closest to the client (RFC 9211 §2).
fn of_the_nearest(text: &str) -> Vec<(&str, &str)> {
    let member = outside_quotes(text, b',').last().copied().unwrap_or("");
    let parameters = outside_quotes(member, b';');
    let parameters = parameters.iter().skip(1).map(|parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        (name.trim(), value.trim())
    });
    parameters.collect()
}

fn outside_quotes(text: &str, separator: u8) -> Vec<&str> {
    let (mut parts, mut from) = (Vec::new(), 0);
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            byte if byte == separator && !quoted => {
                parts.extend(text.get(from..at));
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.extend(text.get(from..));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_status_is_what_counts() {
        for (status, lines, want) in [
            (
                200,
                &["edgeweir; fwd=uri-miss; fwd-status=200; ttl=60; stored"][..],
                "stored",
            ),
            (200, &["edgeweir; hit; ttl=53"], "already there"),
            (
                200,
                &["edgeweir; fwd=uri-miss; ttl=60; collapsed"],
                "came with another request's",
            ),
            (
                200,
                &["edgeweir; fwd=uri-miss; collapsed=?0; detail=no_store"],
                "not stored: no_store",
            ),
            (
                200,
                &["edgeweir; fwd=method; fwd-status=200; detail=method"],
                "not stored: method",
            ),
            (200, &["edgeweir; fwd=bypass"], "not stored: bypass"),
            (
                200,
                &["cdn; hit", "edgeweir; fwd=uri-miss; stored"],
                "stored",
            ),
            (
                200,
                &["cdn; key=\"a, b; hit\"; fwd=miss; detail=\"x\""],
                "not stored: x",
            ),
            (200, &[], "no Cache-Status: no cache on the way"),
            (404, &["edgeweir; fwd=uri-miss; ttl=5; stored"], "stored"),
            (
                404,
                &["edgeweir; fwd=uri-miss; detail=no_freshness"],
                "status 404",
            ),
            (503, &[], "status 503"),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("cache-status", line.parse().unwrap());
            }
            let found = outcome(StatusCode::from_u16(status).unwrap(), &headers);
            assert_eq!(found.to_string(), want, "{status} {lines:?}");
        }
    }
}
