//! Fields that belong to one connection, and those an intermediary adds.

use std::net::IpAddr;

use edgeweir_host_chain::{OF_THE_CONNECTION, named_by_connection};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Removes what belongs to the connection a request came by; `TE: trailers` alone survives, as it is true end to end here. What
/// `Connection` named is not to be in the trailers either.
pub fn strip_request(headers: &mut HeaderMap) -> Vec<HeaderName> {
    // RFC 9110 §10.1.4: TE is about the connection, and every connection of this host carries trailers.
    let trailers =
        list(headers, &header::TE).any(|coding| coding.eq_ignore_ascii_case(b"trailers"));
    let named = strip_response(headers);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    named
}

/// Removes what belongs to the connection a response came by, as [`strip_request`] does.
pub fn strip_response(headers: &mut HeaderMap) -> Vec<HeaderName> {
    let named = named_by_connection(headers);
    for name in named.iter().chain(&OF_THE_CONNECTION) {
        headers.remove(name);
    }
    headers.remove(header::TE);
    named
}

/// Makes one line of the cookies of several.
// RFC 9113 §8.2.3: several Cookie lines MUST be concatenated with "; " before they are passed into a non-HTTP/2 context, such as
// an HTTP/1.1 connection or a generic HTTP server application; Envoy does so with those of HTTP/1.1, too.
pub fn join_cookies(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (lines.next(), lines.next()) else {
        return;
    };
    let mut joined = first.as_bytes().to_vec();
    for line in std::iter::once(second).chain(lines) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(line.as_bytes());
    }
    if let Ok(value) = HeaderValue::from_bytes(&joined) {
        headers.insert(header::COOKIE, value);
    }
}

/// Whether the request asks to leave HTTP on its connection (`h2c` is not meant: ignoring it is the right answer).
pub fn wants_upgrade(headers: &HeaderMap) -> bool {
    // RFC 9110 §7.8: an upgrade is asked for by both fields.
    list(headers, &header::CONNECTION).any(|option| option.eq_ignore_ascii_case(b"upgrade"))
        && list(headers, &header::UPGRADE).any(|protocol| {
            !protocol.eq_ignore_ascii_case(b"h2c") && !protocol.eq_ignore_ascii_case(b"http/2.0")
        })
}

/// Appends the client's address to `X-Forwarded-For`, as one line.
pub fn append_forwarded_for(headers: &mut HeaderMap, client: IpAddr) {
    let name = HeaderName::from_static("x-forwarded-for");
    let mut line = Vec::new();
    for value in headers.get_all(&name) {
        if !value.as_bytes().trim_ascii().is_empty() {
            line.extend_from_slice(value.as_bytes());
            line.extend_from_slice(b", ");
        }
    }
    line.extend_from_slice(client.to_canonical().to_string().as_bytes());
    if let Ok(value) = HeaderValue::from_bytes(&line) {
        headers.insert(name, value);
    }
}

/// The members of a comma-separated list over all its lines.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    headers
        .get_all(name)
        .into_iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn what_belongs_to_a_connection_goes() {
        for (case, before, after) in [
            (
                "named fields",
                headers(&[
                    ("connection", "close, X-Hop"),
                    ("x-hop", "1"),
                    ("x-end", "2"),
                ]),
                headers(&[("x-end", "2")]),
            ),
            (
                "several lines",
                headers(&[
                    ("connection", "a"),
                    ("connection", "b"),
                    ("a", "1"),
                    ("b", "2"),
                ]),
                headers(&[]),
            ),
            (
                "unnamed ones",
                headers(&[
                    ("keep-alive", "5"),
                    ("transfer-encoding", "chunked"),
                    ("upgrade", "x"),
                ]),
                headers(&[]),
            ),
            (
                "te keeps trailers only",
                headers(&[("te", "gzip;q=0.5, Trailers")]),
                headers(&[("te", "trailers")]),
            ),
            (
                "framing can't be named away",
                headers(&[("connection", "content-length"), ("content-length", "3")]),
                headers(&[("content-length", "3")]),
            ),
            (
                "the trailer field is end to end",
                headers(&[("trailer", "x-sum")]),
                headers(&[("trailer", "x-sum")]),
            ),
        ] {
            let mut got = before;
            strip_request(&mut got);
            assert_eq!(got, after, "{case}");
        }
    }

    #[test]
    fn the_client_is_appended_to_one_line() {
        let mut got = headers(&[
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2"),
        ]);
        append_forwarded_for(&mut got, "::ffff:9.9.9.9".parse().unwrap());
        let lines: Vec<_> = got.get_all("x-forwarded-for").iter().collect();
        assert_eq!(lines, ["1.1.1.1, 2.2.2.2, 9.9.9.9"]);
    }

    #[test]
    fn cookies_become_one_line() {
        for (lines, want) in [
            (&[][..], None),
            (&[("cookie", "a=1; b=2")][..], Some("a=1; b=2")),
            (
                &[
                    ("cookie", "a=1"),
                    ("x", "y"),
                    ("cookie", "b=2; c=3"),
                    ("cookie", "d="),
                ][..],
                Some("a=1; b=2; c=3; d="),
            ),
        ] {
            let mut got = headers(lines);
            join_cookies(&mut got);
            let cookies: Vec<_> = got.get_all("cookie").iter().collect();
            assert_eq!(cookies, want.as_slice());
        }
    }

    #[test]
    fn an_upgrade_needs_both_fields() {
        assert!(wants_upgrade(&headers(&[
            ("connection", "Upgrade"),
            ("upgrade", "websocket")
        ])));
        assert!(!wants_upgrade(&headers(&[("upgrade", "websocket")])));
        assert!(!wants_upgrade(&headers(&[
            ("connection", "Upgrade, HTTP2-Settings"),
            ("upgrade", "h2c")
        ])));
    }
}
