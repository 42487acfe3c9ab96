//! The cache key: what makes two requests ask for the same.
//!
//! A key is a row of parts, each a tag, its length in four bytes and its bytes, so that no two rows are equal by
//! concatenation. GET and HEAD share a key, everything else is never looked up.

use std::borrow::Cow;

use bytes::Bytes;
use edgeweir_filter::{RequestHead, comparable, normal_percent, respelled};

use crate::config::KeySettings;
use crate::reason::Bypass;

/// The longest key in bytes. A store's own bound is 4 KiB, and a name is added in front.
pub const LONGEST_KEY: usize = 3 * 1024;

const GET_CLASS: u8 = b'g';
const SCHEME: u8 = b's';
const AUTHORITY: u8 = b'a';
const PATH: u8 = b'p';
const QUERY: u8 = b'q';
const FIELD: u8 = b'f';
const ABSENT_FIELD: u8 = b'n';
const COOKIE: u8 = b'c';
const USER: u8 = b'u';

/// The cache key of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Key {
    /// Method class, scheme, authority, path and query: what an unsafe request invalidates.
    uri: Bytes,
    /// Chosen fields, cookies and user context, where the settings choose any.
    extra: Option<Bytes>,
}

/// Where a request is aimed at, normalised.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// `http` or `https`, lower case.
    pub scheme: Bytes,
    /// Lower case, without a default port.
    pub authority: Bytes,
    /// Path and query as received.
    pub path: Bytes,
}

impl Target {
    /// The target of a request.
    pub fn of(head: &RequestHead) -> Self {
        let scheme = lower(&head.scheme);
        let authority = authority(&scheme, &head.authority);
        Self {
            scheme,
            authority,
            path: head.path.clone(),
        }
    }

    /// The path without its query, as rules compare it: what shares a key shares its rule, and an encoded dot is a dot.
    pub fn plain_path(&self) -> Cow<'_, [u8]> {
        match split(&self.path).0 {
            b"" => Cow::Borrowed(b"/"),
            path => comparable(path),
        }
    }

    /// Scheme and authority.
    pub fn origin(&self) -> Vec<u8> {
        [&self.scheme[..], b"://", &self.authority].concat()
    }
}

impl Key {
    /// The key of a request under the settings.
    #[cfg(any(test, feature = "fuzzing"))]
    pub fn of(head: &RequestHead, settings: &KeySettings) -> Result<Self, Bypass> {
        Self::with_target(&Target::of(head), head, settings)
    }

    /// The key of a request under the settings; `target` is the request's own.
    pub fn with_target(
        target: &Target,
        head: &RequestHead,
        settings: &KeySettings,
    ) -> Result<Self, Bypass> {
        let uri = Self::uri(target, settings)?;
        let mut extra = Parts::default();
        for name in &settings.headers {
            match head.fields.joined(name) {
                Some(value) => {
                    extra.add(FIELD, name.as_bytes());
                    extra.add(FIELD, &value);
                }
                None => extra.add(ABSENT_FIELD, name.as_bytes()),
            }
        }
        for name in &settings.cookies {
            for value in cookies(head, name.as_bytes()) {
                extra.add(COOKIE, name.as_bytes());
                extra.add(COOKIE, value);
            }
        }
        if let Some(name) = &settings.user_context {
            match head.fields.joined(name) {
                Some(value) => extra.add(USER, &value),
                None => extra.add(ABSENT_FIELD, name.as_bytes()),
            }
        }
        let extra = extra.0;
        if uri.len() + extra.len() > LONGEST_KEY {
            return Err(Bypass::KeyTooLong);
        }
        Ok(Self {
            uri: uri.into(),
            extra: settings.has_extra().then(|| extra.into()),
        })
    }

    /// The key of a URI alone, for invalidation.
    pub fn of_target(target: &Target, settings: &KeySettings) -> Result<Self, Bypass> {
        Ok(Self {
            uri: Self::uri(target, settings)?.into(),
            extra: None,
        })
    }

    fn uri(target: &Target, settings: &KeySettings) -> Result<Vec<u8>, Bypass> {
        if target.authority.is_empty() {
            return Err(Bypass::NoAuthority);
        }
        let (path, query) = split(&target.path);
        let path = normal(if path.is_empty() { b"/" } else { path });
        let query = query.and_then(|query| chosen_query(query, settings));
        let all = [
            (GET_CLASS, &b""[..]),
            (SCHEME, &target.scheme),
            (AUTHORITY, &target.authority),
            (PATH, &path),
        ];
        let all = all.iter().copied();
        let all = all.chain(query.as_deref().map(|query| (QUERY, query)));
        // In one piece of memory of just that size.
        let mut parts = Parts(Vec::with_capacity(
            all.clone().map(|(_, part)| part.len() + 5).sum(),
        ));
        for (tag, part) in all {
            parts.add(tag, part);
        }
        if parts.0.len() > LONGEST_KEY {
            return Err(Bypass::KeyTooLong);
        }
        Ok(parts.0)
    }

    /// Whether it has more parts than the URI.
    pub fn has_extra(&self) -> bool {
        self.extra.is_some()
    }

    /// The part that an unsafe request to the URI invalidates.
    pub fn uri_part(&self) -> &Bytes {
        &self.uri
    }

    /// Host and path, as patterns compare them.
    pub fn host_and_path(&self) -> Vec<u8> {
        host_and_path(&self.uri).unwrap_or_default()
    }

    /// The whole key; `epoch` is the URI's generation where the key has more than the URI.
    pub fn primary(&self, epoch: u64) -> Bytes {
        let Some(extra) = &self.extra else {
            return self.uri.clone();
        };
        let epoch = epoch.to_be_bytes();
        [&self.uri[..], b"e", &epoch[..], extra].concat().into()
    }
}

/// A readable form of a target's key for `Cache-Status`: visible ASCII, cut at 256 characters.
pub fn readable(target: &Target, settings: &KeySettings) -> String {
    let (path, query) = split(&target.path);
    let mut text = [&target.scheme[..], b"://", &target.authority, &normal(path)].concat();
    if let Some(query) = query.and_then(|query| chosen_query(query, settings)) {
        text.push(b'?');
        text.extend_from_slice(&query);
    }
    text.iter()
        .take(256)
        .map(|&byte| match byte {
            b' '..=b'~' => char::from(byte),
            _ => '?',
        })
        .collect()
}

/// Whether a key is of a URI, whatever else is in it. A query makes it another URI.
pub fn is_of(primary: &[u8], uri: &[u8]) -> bool {
    primary
        .strip_prefix(uri)
        .is_some_and(|rest| rest.first() != Some(&QUERY))
}

/// Host and path in the bytes of a key, as patterns compare them.
pub fn host_and_path(primary: &[u8]) -> Option<Vec<u8>> {
    let mut rest = primary;
    let (mut host, mut path) = (None, None);
    while let Some((&tag, after)) = rest.split_first() {
        let (length, after) = after.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (value, after) = after.split_at_checked(length)?;
        match tag {
            AUTHORITY => host = Some(value),
            PATH => path = Some(value),
            _ => {}
        }
        if let (Some(host), Some(path)) = (host, path) {
            return Some([host, &in_the_spelling_of_keys(path)].concat());
        }
        rest = after;
    }
    None
}

/// Lower case, without userinfo, a default port or an empty one (RFC 3986 §6.2.2.1, §6.2.3).
pub fn authority(scheme: &[u8], authority: &Bytes) -> Bytes {
    default_port_left_out(scheme, &lower(&authority.slice_ref(authority.trim_ascii())))
}

/// Without a default port or an empty one (RFC 3986 §6.2.3).
pub fn default_port_left_out(scheme: &[u8], authority: &Bytes) -> Bytes {
    let default: &[u8] = match scheme {
        b"https" => b":443",
        b"http" => b":80",
        _ => b":",
    };
    let host = authority
        .strip_suffix(default)
        .or_else(|| authority.strip_suffix(b":"))
        .unwrap_or(authority);
    // Inside brackets a colon is part of the address: `[::]` keeps it, `[::1]:443` loses its port.
    authority.slice_ref(host)
}

fn lower(text: &Bytes) -> Bytes {
    match text.iter().any(u8::is_ascii_uppercase) {
        true => text.to_ascii_lowercase().into(),
        false => text.clone(),
    }
}

/// Splits a request target at its first `?`.
pub fn split(target: &[u8]) -> (&[u8], Option<&[u8]>) {
    match target.iter().position(|&byte| byte == b'?') {
        Some(at) => (target.get(..at).unwrap_or_default(), target.get(at + 1..)),
        None => (target, None),
    }
}

/// Percent-encoding normalised where RFC 3986 §6.2.2 says that it changes nothing: upper-case digits, unreserved
/// characters decoded. An encoded dot stays: a decoded one could make a dot segment that an origin reads otherwise.
fn normal(text: &[u8]) -> Cow<'_, [u8]> {
    normal_percent(text, is_decoded)
}

/// A path, or a pattern of paths, as purges compare it: normalised like a key's, and what no URI has in percent-encoding.
pub fn in_the_spelling_of_keys(text: &[u8]) -> Cow<'_, [u8]> {
    respelled(text, is_decoded)
}

/// What keys have decoded.
fn is_decoded(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~')
}

/// The query as the settings want it; `None` when nothing of it is left under a choice.
fn chosen_query<'q>(query: &'q [u8], settings: &KeySettings) -> Option<Cow<'q, [u8]>> {
    let query = normal(query);
    if settings.query_include.is_none() && settings.query_exclude.is_empty() && !settings.query_sort
    {
        return Some(query);
    }
    let mut pairs: Vec<&[u8]> = query
        .split(|&byte| byte == b'&')
        .filter(|pair| {
            let name = pair.split(|&byte| byte == b'=').next().unwrap_or_default();
            let listed = |names: &[String]| names.iter().any(|n| n.as_bytes() == name);
            match &settings.query_include {
                Some(included) => listed(included),
                None => !listed(&settings.query_exclude),
            }
        })
        .collect();
    if pairs.is_empty() {
        return None;
    }
    if settings.query_sort {
        // By name only, and stable: the order of one name's values can matter.
        pairs.sort_by_key(|pair| pair.split(|&byte| byte == b'=').next().unwrap_or_default());
    }
    Some(pairs.join(&b'&').into())
}

/// The values of a cookie, in order (RFC 6265 §4.2.1).
fn cookies<'a>(head: &'a RequestHead, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    head.fields
        .values("cookie")
        .flat_map(|line| line.split(|&byte| byte == b';'))
        .filter_map(move |pair| {
            let (found, value) = pair.split_at(pair.iter().position(|&byte| byte == b'=')?);
            (found.trim_ascii() == name).then(|| value.get(1..).unwrap_or_default().trim_ascii())
        })
}

#[derive(Default)]
struct Parts(Vec<u8>);

impl Parts {
    fn add(&mut self, tag: u8, bytes: &[u8]) {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.0.push(tag);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgeweir_filter::Fields;
    use proptest::prelude::*;

    fn head(scheme: &str, authority: &str, path: &str, fields: &[(&str, &str)]) -> RequestHead {
        let part = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        RequestHead {
            method: part("GET"),
            scheme: part(scheme),
            authority: part(authority),
            path: part(path),
            fields: Fields::of(fields),
            ..RequestHead::default()
        }
    }

    fn uri(scheme: &str, authority: &str, path: &str, settings: &KeySettings) -> Bytes {
        let key = Key::of(&head(scheme, authority, path, &[]), settings);
        key.expect("a short key").primary(0)
    }

    #[test]
    fn equal_uris_share_a_key() {
        let plain = KeySettings::default();
        for (name, a, b, equal) in [
            (
                "case of the host",
                ("https", "A.example", "/"),
                ("https", "a.example", "/"),
                true,
            ),
            (
                "case of the scheme",
                ("HTTPS", "a", "/"),
                ("https", "a", "/"),
                true,
            ),
            (
                "default port",
                ("https", "a:443", "/"),
                ("https", "a", "/"),
                true,
            ),
            (
                "default port of the other scheme",
                ("https", "a:80", "/"),
                ("https", "a", "/"),
                false,
            ),
            ("empty port", ("http", "a:", "/"), ("http", "a", "/"), true),
            ("scheme", ("http", "a", "/"), ("https", "a", "/"), false),
            (
                "case of the path",
                ("http", "a", "/A"),
                ("http", "a", "/a"),
                false,
            ),
            (
                "encoded unreserved",
                ("http", "a", "/%41%7e"),
                ("http", "a", "/A~"),
                true,
            ),
            (
                "case of the encoding",
                ("http", "a", "/%c3%a9"),
                ("http", "a", "/%C3%A9"),
                true,
            ),
            (
                "encoded slash",
                ("http", "a", "/a%2Fb"),
                ("http", "a", "/a/b"),
                false,
            ),
            (
                "encoded dot",
                ("http", "a", "/%2e%2e/b"),
                ("http", "a", "/../b"),
                false,
            ),
            (
                "half an encoding",
                ("http", "a", "/%4"),
                ("http", "a", "/%4"),
                true,
            ),
            (
                "empty query",
                ("http", "a", "/?"),
                ("http", "a", "/"),
                false,
            ),
            (
                "query order",
                ("http", "a", "/?a=1&b=2"),
                ("http", "a", "/?b=2&a=1"),
                false,
            ),
            (
                "host runs into path",
                ("http", "ab", "/c"),
                ("http", "a", "b/c"),
                false,
            ),
        ] {
            let (a, b) = (uri(a.0, a.1, a.2, &plain), uri(b.0, b.1, b.2, &plain));
            assert_eq!(a == b, equal, "{name}");
        }
    }

    #[test]
    fn queries_are_chosen() {
        let include = KeySettings {
            query_include: Some(vec!["a".to_owned()]),
            ..KeySettings::default()
        };
        let exclude = KeySettings {
            query_exclude: vec!["utm".to_owned()],
            query_sort: true,
            ..KeySettings::default()
        };
        for (name, settings, a, b, equal) in [
            (
                "only the included",
                &include,
                "/?a=1&x=2",
                "/?x=3&a=1",
                true,
            ),
            ("included differs", &include, "/?a=1", "/?a=2", false),
            ("nothing left", &include, "/?x=1", "/", true),
            (
                "without the excluded",
                &exclude,
                "/?utm=1&b=2",
                "/?b=2",
                true,
            ),
            ("sorted", &exclude, "/?b=2&a=1", "/?a=1&b=2", true),
            (
                "values keep their order",
                &exclude,
                "/?a=2&a=1",
                "/?a=1&a=2",
                false,
            ),
        ] {
            let equal_now = uri("http", "h", a, settings) == uri("http", "h", b, settings);
            assert_eq!(equal_now, equal, "{name}");
        }
    }

    #[test]
    fn fields_cookies_and_users_are_apart() {
        let settings = KeySettings {
            headers: vec!["x-a".to_owned(), "x-b".to_owned()],
            cookies: vec!["lang".to_owned()],
            user_context: Some("x-user".to_owned()),
            ..KeySettings::default()
        };
        let key = |fields: &[(&str, &str)]| {
            Key::of(&head("http", "h", "/", fields), &settings).map(|key| key.primary(0))
        };
        let distinct = [
            key(&[]),
            key(&[("x-a", "")]),
            key(&[("x-a", "1")]),
            key(&[("x-b", "1")]),
            key(&[("x-a", "1"), ("x-b", "1")]),
            key(&[("cookie", "lang=1")]),
            key(&[("cookie", "lang=1; lang=2")]),
            key(&[("cookie", "lang=12")]),
            key(&[("x-user", "1")]),
        ];
        for (at, one) in distinct.iter().enumerate() {
            assert!(!distinct[..at].contains(one), "key {at} twice");
        }
        assert_eq!(
            key(&[("cookie", "a=b; lang=1;c=d")]),
            key(&[("cookie", "lang=1")])
        );
        assert_eq!(key(&[("cookie", "xlang=1")]), key(&[]));
        assert_eq!(
            key(&[("x-user", &"u".repeat(LONGEST_KEY))]),
            Err(Bypass::KeyTooLong)
        );
        assert_eq!(
            Key::of(&head("http", "", "/", &[]), &settings),
            Err(Bypass::NoAuthority)
        );
    }

    proptest! {
        #[test]
        fn different_parts_never_collide(a: [Vec<u8>; 3], b: [Vec<u8>; 3]) {
            let row = |parts: &[Vec<u8>; 3]| {
                let mut row = Parts::default();
                parts.iter().for_each(|part| row.add(FIELD, part));
                row.0
            };
            prop_assert_eq!(row(&a) == row(&b), a == b);
        }

        #[test]
        fn normalising_twice_changes_nothing(text: Vec<u8>) {
            let once = normal(&text);
            prop_assert_eq!(&normal(&once), &once);
            let once = in_the_spelling_of_keys(&text);
            prop_assert_eq!(&in_the_spelling_of_keys(&once), &once);
        }
    }
}
