//! Which URIs an unsafe request makes stale (RFC 9111 §4.4).

use edgeweir_filter::ResponseHead;

use crate::key::{Target, authority, split};

/// Methods by what they do to the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// Looked up and stored.
    Get,
    /// Looked up.
    Head,
    /// Known to be safe (RFC 9110 §9.2.1, RFC 4918, RFC 3253, RFC 5323): changes nothing.
    Safe,
    /// Anything else: RFC 9111 §4.4 counts "methods whose safety is unknown" among the unsafe.
    Unsafe,
}

impl Method {
    /// RFC 9110 §9.1: methods are case-sensitive.
    pub fn of(method: &[u8]) -> Self {
        match method {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"OPTIONS" | b"TRACE" | b"PROPFIND" | b"REPORT" | b"SEARCH" | b"QUERY" | b"PRI"
            // A tunnel, not a resource.
            | b"CONNECT" => Self::Safe,
            _ => Self::Unsafe,
        }
    }
}

/// The URIs to invalidate after an unsafe request: its own, and those in `Location` and `Content-Location` of the same
/// origin. RFC 9111 §4.4: "MUST invalidate the target URI … when it receives a non-error status code": 2xx or 3xx.
pub fn targets(asked: &Target, head: &ResponseHead) -> Vec<Target> {
    if !(200..400).contains(&head.status) {
        return Vec::new();
    }
    let mut targets = vec![asked.clone()];
    for name in ["location", "content-location"] {
        if let Some(reference) = head.fields.get(name)
            && let Some(target) = resolve(asked, reference.trim_ascii())
            && !targets.contains(&target)
        {
            targets.push(target);
        }
    }
    targets
}

/// Resolves a reference (RFC 3986 §5.2.2); `None` when it leads to another origin. RFC 9111 §4.4: "A cache MUST NOT
/// trigger an invalidation under these conditions if the origin … of the URI to be invalidated differs".
fn resolve(base: &Target, reference: &[u8]) -> Option<Target> {
    let reference = reference.split(|&byte| byte == b'#').next()?;
    let at = |path: Vec<u8>| {
        Some(Target {
            path,
            ..base.clone()
        })
    };
    if let Some((scheme, rest)) = with_scheme(reference) {
        let rest = rest.strip_prefix(b"//")?;
        return (scheme == base.scheme).then(|| on_host(base, rest))?;
    }
    if let Some(rest) = reference.strip_prefix(b"//") {
        return on_host(base, rest);
    }
    let (base_path, base_query) = split(&base.path);
    let (path, query) = split(reference);
    if path.is_empty() {
        return at(joined(base_path.to_vec(), query.or(base_query)));
    }
    let whole = if path.starts_with(b"/") {
        path.to_vec()
    } else {
        // RFC 3986 §5.2.3: up to the last slash of the base.
        let directory = base_path.iter().rposition(|&byte| byte == b'/');
        let kept = directory
            .and_then(|end| base_path.get(..=end))
            .unwrap_or(b"/");
        [kept, path].concat()
    };
    at(joined(without_dot_segments(&whole), query))
}

fn on_host(base: &Target, rest: &[u8]) -> Option<Target> {
    let end = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?'))
        .unwrap_or(rest.len());
    let (host, path) = rest.split_at(end);
    if authority(&base.scheme, host) != base.authority {
        return None;
    }
    let (path, query) = split(path);
    let path = if path.is_empty() { b"/" } else { path };
    Some(Target {
        path: joined(without_dot_segments(path), query),
        ..base.clone()
    })
}

/// RFC 3986 §3.1: a letter, then letters, digits, `+`, `-`, `.`, before a colon.
fn with_scheme(reference: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let at = reference.iter().position(|&byte| byte == b':')?;
    let (scheme, rest) = reference.split_at(at);
    let starts = scheme.first().is_some_and(u8::is_ascii_alphabetic);
    let goes_on = scheme
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte));
    (starts && goes_on).then(|| {
        (
            scheme.to_ascii_lowercase(),
            rest.get(1..).unwrap_or_default(),
        )
    })
}

fn joined(mut path: Vec<u8>, query: Option<&[u8]>) -> Vec<u8> {
    if let Some(query) = query {
        path.push(b'?');
        path.extend_from_slice(query);
    }
    path
}

/// RFC 3986 §5.2.4, for a path that starts with `/`.
fn without_dot_segments(path: &[u8]) -> Vec<u8> {
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut ends_in_slash = false;
    for segment in path.split(|&byte| byte == b'/').skip(1) {
        ends_in_slash = matches!(segment, b"." | b"..");
        match segment {
            b"." => {}
            b".." => {
                kept.pop();
            }
            _ => kept.push(segment),
        }
    }
    if ends_in_slash {
        kept.push(b"");
    }
    let mut out = Vec::with_capacity(path.len());
    for segment in kept {
        out.push(b'/');
        out.extend_from_slice(segment);
    }
    if out.is_empty() {
        out.push(b'/');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgeweir_filter::Fields;
    use proptest::prelude::*;

    fn base() -> Target {
        Target {
            scheme: b"https".to_vec(),
            authority: b"a.example".to_vec(),
            path: b"/x/y?q".to_vec(),
        }
    }

    #[test]
    fn references_resolve_within_the_origin() {
        for (reference, want) in [
            ("/z", Some("/z")),
            ("z", Some("/x/z")),
            ("../z?w", Some("/z?w")),
            ("./", Some("/x/")),
            ("..", Some("/")),
            ("../../../z", Some("/z")),
            ("?w", Some("/x/y?w")),
            ("", Some("/x/y?q")),
            ("#part", Some("/x/y?q")),
            ("https://A.example:443/z", Some("/z")),
            ("HTTPS://a.example", Some("/")),
            ("//a.example/z#part", Some("/z")),
            ("http://a.example/z", None),
            ("https://b.example/z", None),
            ("https://a.example:8443/z", None),
            ("mailto:a@b", None),
            ("https:/z", None),
        ] {
            let path = resolve(&base(), reference.as_bytes()).map(|target| target.path);
            assert_eq!(path.as_deref(), want.map(str::as_bytes), "{reference}");
        }
    }

    #[test]
    fn only_success_invalidates() {
        for (status, count) in [(200, 2), (204, 2), (302, 2), (404, 0), (500, 0), (100, 0)] {
            let head = ResponseHead {
                status,
                fields: Fields::of(&[("location", "/z"), ("content-location", "/z")]),
                end: true,
                ..ResponseHead::default()
            };
            assert_eq!(targets(&base(), &head).len(), count, "{status}");
        }
    }

    #[test]
    fn methods_have_classes() {
        for (method, want) in [
            ("GET", Method::Get),
            ("get", Method::Unsafe),
            ("OPTIONS", Method::Safe),
            ("POST", Method::Unsafe),
            ("BREW", Method::Unsafe),
        ] {
            assert_eq!(Method::of(method.as_bytes()), want, "{method}");
        }
    }

    proptest! {
        #[test]
        fn any_reference_resolves_or_not(reference: Vec<u8>) {
            if let Some(target) = resolve(&base(), &reference) {
                prop_assert!(target.path.starts_with(b"/"));
            }
        }
    }
}
