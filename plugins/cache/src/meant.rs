//! What an operator's text means: a URI, or a pattern of host and path, in the spelling of keys. A text that could match no
//! key is refused, lest a purge of nothing looks like one that was done.

use bytes::Bytes;
use edgeweir_filter::RequestHead;

use crate::key::{self, Target};
use crate::standing::PATTERN;
use crate::work::Url;

/// The target that a path on the request's host or an absolute URL names; the error says what is expected.
pub fn target(head: &RequestHead, text: &str) -> Result<Target, String> {
    let expected =
        || format!("is {text:?}, must be a path or an absolute http(s) URL, without `#`");
    let written = visible(text);
    let mut asked = head.clone();
    if written.starts_with('/') && !written.contains('#') {
        asked.path = written.into();
    } else {
        let url = Url::parse(&written).ok_or_else(expected)?;
        asked.scheme = url.scheme.into();
        asked.authority = url.authority.into();
        asked.path = url.path.into();
    }
    if asked.authority.is_empty() {
        return Err(format!("is {text:?} on no host: the request names none"));
    }
    Ok(Target::of(&asked))
}

/// The pattern of host and path that a text means, with `end` after it. One that begins with a slash is on the host of the
/// request. A scheme only says which port is left out: keys of both schemes are meant.
pub fn pattern(head: &RequestHead, text: &str, end: &str) -> Result<String, String> {
    let expected = || {
        format!(
            "is {text:?}, must begin with a path (`/img/`), a host (`www.example.com/img/`, `*`) or `http://`, `https://`"
        )
    };
    let (host, path) = match text.starts_with('/') {
        true => (Target::of(head).authority, text),
        false => {
            let (scheme, rest) = schemed(text).ok_or_else(expected)?;
            let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let known = scheme.is_some() || is_a_host(head, host);
            if host.is_empty() || !known || !literal(host).is_ascii() || host.contains('@') {
                return Err(expected());
            }
            (normal_host(scheme, host, path), path)
        }
    };
    if host.is_empty() {
        return Err(format!("is {text:?} on no host: the request names none"));
    }
    if text.contains('#') {
        return Err(format!("is {text:?}, must have no `#`: no key has one"));
    }
    let whole = [&host[..], path.as_bytes(), end.as_bytes()].concat();
    let whole = String::from_utf8_lossy(&key::in_the_spelling_of_keys(&whole)).into_owned();
    match whole.len() {
        1..=PATTERN => Ok(whole),
        length => Err(format!("has {length} bytes, must be 1 to {PATTERN}")),
    }
}

/// A scheme before `://`, where there is one, and the rest; `None` where it is not one of HTTP's.
fn schemed(text: &str) -> Option<(Option<&'static [u8]>, &str)> {
    match text.split_once("://") {
        Some((scheme, rest)) if !scheme.contains('/') => {
            match scheme.to_ascii_lowercase().as_str() {
                "http" => Some((Some(b"http"), rest)),
                "https" => Some((Some(b"https"), rest)),
                _ => None,
            }
        }
        _ => Some((None, text)),
    }
}

/// Whether what stands before the first slash is a host: `img/` is more likely a path without its slash, which would match
/// nothing.
fn is_a_host(head: &RequestHead, host: &str) -> bool {
    let own = Target::of(head).authority;
    host.contains(['.', ':', '*', '?'])
        || host.eq_ignore_ascii_case("localhost")
        || host.as_bytes().eq_ignore_ascii_case(&own)
}

/// What stands before the first wildcard.
fn literal(text: &str) -> &str {
    text.split(['*', '?']).next().unwrap_or_default()
}

/// Hosts are kept in lower case and without a default port. After a wildcard there may be a path, which is kept as it is.
fn normal_host(scheme: Option<&[u8]>, host: &str, path: &str) -> Bytes {
    let (sure, rest) = host.split_at(literal(host).len());
    let host = Bytes::from([&sure.to_ascii_lowercase(), rest].concat());
    if !rest.is_empty() && path.is_empty() {
        return host;
    }
    match scheme {
        Some(scheme) => key::default_port_left_out(scheme, &host),
        None => {
            let bare = host.strip_suffix(b":443").or(host.strip_suffix(b":80"));
            host.slice_ref(bare.unwrap_or(&host))
        }
    }
}

/// What no request's line can have, in percent-encoding.
fn visible(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'!'..=b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(authority: &'static str) -> RequestHead {
        RequestHead {
            scheme: "https".into(),
            authority: authority.into(),
            ..RequestHead::default()
        }
    }

    #[test]
    fn patterns_are_spelt_as_keys_are() {
        for (text, want) in [
            ("/img/", Some("a.example/img/*")),
            ("A.example/img/", Some("a.example/img/*")),
            ("web/img/", Some("web/img/*")),
            ("http://B.example/img/", Some("b.example/img/*")),
            ("HTTPS://b.example:443/img/", Some("b.example/img/*")),
            ("https://b.example:80/img/", Some("b.example:80/img/*")),
            ("http://b.example:80", Some("b.example*")),
            ("http://img/x", Some("img/x*")),
            ("b.example:443/X", Some("b.example/X*")),
            ("[::1]:8080/", Some("[::1]:8080/*")),
            ("/caf%c3%a9/", Some("a.example/caf%C3%A9/*")),
            ("/caf\u{e9}/", Some("a.example/caf%C3%A9/*")),
            ("/%61/%2f", Some("a.example/a/%2F*")),
            ("/a b", Some("a.example/a%20b*")),
            ("*.Example/IMG/?.png", Some("*.Example/IMG/?.png*")),
            ("*IMG*", Some("*IMG**")),
            ("//x", Some("a.example//x*")),
            ("", None),
            ("img/", None),
            ("img", None),
            ("ftp://b.example/", None),
            ("*://b.example/", None),
            ("http:///x", None),
            ("http://u@b.example/", None),
            ("b\u{fc}cher.example/", None),
            ("/x#y", None),
        ] {
            let own = if text.starts_with("web") {
                "WEB"
            } else {
                "A.example"
            };
            assert_eq!(
                pattern(&head(own), text, "*").ok().as_deref(),
                want,
                "{text}"
            );
        }
        assert!(pattern(&head(""), "/x", "").is_err(), "on no host");
        let long = format!("/{}", "x".repeat(PATTERN - "a.example/".len()));
        assert!(pattern(&head("a.example"), &long, "*").is_err());
        assert!(pattern(&head("a.example"), &long, "").is_ok());
    }

    #[test]
    fn targets_are_paths_or_urls() {
        for (text, want) in [
            ("/x?y", Some("https://a.example/x?y")),
            ("/caf\u{e9}", Some("https://a.example/caf%C3%A9")),
            ("http://B.example/\u{e9}", Some("http://b.example/%C3%A9")),
            ("x", None),
            ("/x#y", None),
            ("ftp://b.example/", None),
        ] {
            let got = target(&head("A.example"), text).ok();
            let got = got.map(|target| [&target.origin()[..], &target.path].concat());
            assert_eq!(got.as_deref(), want.map(str::as_bytes), "{text}");
        }
        assert!(target(&head(""), "/x").is_err(), "on no host");
    }
}
