//! A request as the rules see it, and the key that its parts make.

use std::borrow::Cow;
use std::net::IpAddr;

use bytes::Bytes;
use edgeweir_filter::{RequestHead, form_decoded};
use sha2::{Digest as _, Sha256};

use crate::claims;
use crate::part::{HOST, Part};
use crate::path::Pattern;

/// The longest part of a key as it is, bytes; of a longer one its SHA-256 counts.
const MOST_PART: usize = 512;
/// In place of a length: no part.
const ABSENT: u16 = u16::MAX;
/// In place of a length: a hash of a part that is too long. It is no length, so that no client can send another's hash.
const HASHED: u16 = u16::MAX - 1;

/// A request as the rules see it: what several of them ask for is found once.
#[derive(Debug)]
pub struct Subject<'r> {
    /// The head.
    pub head: &'r RequestHead,
    /// Its path, percent-encoded unreserved characters decoded.
    pub path: Cow<'r, [u8]>,
    /// The client's address, where a rule asks for it.
    pub address: Option<IpAddr>,
    /// The same as far as it makes a client.
    pub client: Option<IpAddr>,
    /// The name of the group the client is in.
    pub group: Option<&'r str>,
    /// The pattern of the rule that matched, with its number.
    pub matched: Option<(usize, &'r Pattern)>,
}

impl Subject<'_> {
    /// The value of a part, if there is one.
    pub fn value<'a>(&'a self, part: &'a Part) -> Option<Cow<'a, [u8]>> {
        match part {
            Part::Client => self.client.map(|address| match address {
                IpAddr::V4(address) => Cow::Owned(address.octets().to_vec()),
                IpAddr::V6(address) => Cow::Owned(address.octets().to_vec()),
            }),
            Part::Group => Some(Cow::Borrowed(self.group?.as_bytes())),
            Part::Path => Some(Cow::Borrowed(&self.path)),
            Part::Template => Some(Cow::Owned(self.matched?.0.to_le_bytes().to_vec())),
            Part::Segment(name) => {
                let (_, pattern) = self.matched?;
                pattern.segment(&self.path, name).map(Cow::Borrowed)
            }
            Part::Method => Some(Cow::Borrowed(&self.head.method)),
            Part::ApiKey => {
                let own = self.head.fields.get("x-api-key");
                let credentials = || credentials(self.head.fields.get("authorization")?);
                own.or_else(credentials).map(Cow::Borrowed)
            }
            // RFC 9113 §8.3.1: ":authority" conveys what Host does, and is where the edge has both. RFC 9110 §4.2.3: a host is
            // case-insensitive.
            Part::Header(name) if name == HOST => {
                let authority = &self.head.authority;
                (!authority.is_empty()).then(|| Cow::Owned(authority.to_ascii_lowercase()))
            }
            Part::Header(name) => self.head.fields.joined(name).map(Cow::Owned),
            Part::Cookie(name) => cookie(self.head, name).map(Cow::Borrowed),
            Part::Query(name) => query(self.head, name).map(Cow::Owned),
            Part::Claim(name) => {
                let authorization = self.head.fields.get("authorization")?;
                claims::claim(authorization, name).map(|text| Cow::Owned(text.into_bytes()))
            }
        }
    }

    /// The key of a rule's state: every part with its length before it, so that no two keys collide by concatenation.
    pub fn key(&self, rule: &str, layout: u32, parts: &[Part]) -> Bytes {
        let mut key = Vec::with_capacity(64);
        push(&mut key, Some(rule.as_bytes()));
        key.extend_from_slice(&layout.to_le_bytes());
        for part in parts {
            push(&mut key, self.value(part).as_deref());
        }
        key.into()
    }
}

/// The same key for any layout: what a store keeps holds on when the numbers of a rule change.
pub fn of_any_layout(key: &Bytes) -> Bytes {
    let name = key
        .first_chunk()
        .map_or(0, |length| usize::from(u16::from_le_bytes(*length)));
    match (key.get(..2 + name), key.get(2 + name + 4..)) {
        (Some(name), Some(parts)) => [name, parts].concat().into(),
        _ => key.clone(),
    }
}

/// An absent part differs from an empty one, and a long one from all others: whoever shares a hash with it has broken SHA-256.
fn push(key: &mut Vec<u8>, part: Option<&[u8]>) {
    let Some(part) = part else {
        return key.extend_from_slice(&ABSENT.to_le_bytes());
    };
    match u16::try_from(part.len()) {
        Ok(length) if part.len() <= MOST_PART => {
            key.extend_from_slice(&length.to_le_bytes());
            key.extend_from_slice(part);
        }
        _ => {
            key.extend_from_slice(&HASHED.to_le_bytes());
            key.extend_from_slice(&Sha256::digest(part));
        }
    }
}

/// RFC 9110 §11.4: a scheme, a space, what identifies the user. The scheme and further spaces say nothing of who it is.
fn credentials(authorization: &[u8]) -> Option<&[u8]> {
    let space = authorization.iter().position(|&byte| byte == b' ')?;
    Some(authorization.get(space..)?.trim_ascii())
}

/// RFC 6265 §4.2.1: pairs with `; ` between. The first of a name counts.
fn cookie<'h>(head: &'h RequestHead, name: &'h str) -> Option<&'h [u8]> {
    let lines = head.fields.values("cookie");
    let pairs = lines.flat_map(|line| line.split(|&byte| byte == b';'));
    pairs.map(<[u8]>::trim_ascii).find_map(|pair| {
        let value = pair.strip_prefix(name.as_bytes())?;
        value.strip_prefix(b"=")
    })
}

/// The first parameter of a name, decoded as forms are: however it is written, it is the same parameter.
fn query(head: &RequestHead, name: &str) -> Option<Vec<u8>> {
    head.query()?.split(|&byte| byte == b'&').find_map(|pair| {
        let at = pair.iter().position(|&byte| byte == b'=');
        let (found, value) = pair.split_at(at.unwrap_or(pair.len()));
        let is_it = form_decoded(found) == name.as_bytes();
        is_it.then(|| form_decoded(value.get(1..).unwrap_or_default()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgeweir_filter::Fields;

    fn head(path: &str, fields: &[(&str, &str)]) -> RequestHead {
        let lines = fields.iter().map(|(name, value)| {
            (
                Bytes::copy_from_slice(name.as_bytes()),
                Bytes::copy_from_slice(value.as_bytes()),
            )
        });
        RequestHead {
            method: "GET".into(),
            authority: "Example.com".into(),
            path: Bytes::copy_from_slice(path.as_bytes()),
            fields: Fields::received(lines.collect::<Vec<_>>()),
            ..RequestHead::default()
        }
    }

    fn subject(head: &RequestHead) -> Subject<'_> {
        Subject {
            head,
            path: edgeweir_filter::comparable(head.path_only()),
            address: None,
            client: None,
            group: None,
            matched: None,
        }
    }

    #[test]
    fn parts_are_read() {
        for (name, part, path, fields, want) in [
            ("path", Part::Path, "/%61?b", &[][..], Some("/a")),
            ("method", Part::Method, "/", &[], Some("GET")),
            (
                "header",
                Part::Header("x".into()),
                "/",
                &[("x", "1"), ("X", "2")],
                Some("1, 2"),
            ),
            (
                "the host, in lower case",
                Part::Header("host".into()),
                "/",
                &[],
                Some("example.com"),
            ),
            ("no header", Part::Header("x".into()), "/", &[], None),
            (
                "own key first",
                Part::ApiKey,
                "/",
                &[("authorization", "Bearer b"), ("x-api-key", "a")],
                Some("a"),
            ),
            (
                "credentials",
                Part::ApiKey,
                "/",
                &[("authorization", "Bearer  b")],
                Some("b"),
            ),
            (
                "in any scheme",
                Part::ApiKey,
                "/",
                &[("authorization", "bearer b")],
                Some("b"),
            ),
            (
                "no credentials",
                Part::ApiKey,
                "/",
                &[("authorization", "b")],
                None,
            ),
            (
                "cookie",
                Part::Cookie("b".into()),
                "/",
                &[("cookie", "ab=1; b=2; b=3")],
                Some("2"),
            ),
            (
                "cookie on a second line",
                Part::Cookie("b".into()),
                "/",
                &[("cookie", "a=1"), ("cookie", "b=2=")],
                Some("2="),
            ),
            (
                "no cookie",
                Part::Cookie("b".into()),
                "/",
                &[("cookie", "a=b")],
                None,
            ),
            (
                "query",
                Part::Query("q".into()),
                "/?x=1&q=a%20b+c&q=2",
                &[],
                Some("a b c"),
            ),
            (
                "a name in another spelling",
                Part::Query("q".into()),
                "/?%71=1",
                &[],
                Some("1"),
            ),
            ("empty", Part::Query("q".into()), "/?q", &[], Some("")),
            ("no query", Part::Query("q".into()), "/", &[], None),
            ("no token", Part::Claim("sub".into()), "/", &[], None),
        ] {
            let head = head(path, fields);
            let value = subject(&head).value(&part).map(Cow::into_owned);
            assert_eq!(value.as_deref(), want.map(str::as_bytes), "{name}");
        }
    }

    #[test]
    fn parts_do_not_run_together() {
        let of = |fields: &[(&str, &str)]| {
            let head = head("/", fields);
            let parts = [Part::Header("a".into()), Part::Header("b".into())];
            subject(&head).key("r", 0, &parts)
        };
        assert_ne!(
            of(&[("a", "xy"), ("b", "z")]),
            of(&[("a", "x"), ("b", "yz")])
        );
        assert_ne!(of(&[("a", "x"), ("b", "")]), of(&[("a", "x")]));
        let long = "x".repeat(100_000);
        assert!(of(&[("a", &long), ("b", &long)]).len() < 1_100);
    }

    #[test]
    fn long_parts_are_told_apart_by_all_of_their_bytes() {
        let of = |value: &[u8]| {
            let line = (Bytes::from("a"), Bytes::copy_from_slice(value));
            let head = RequestHead {
                fields: Fields::received([line]),
                ..RequestHead::default()
            };
            subject(&head).key("r", 0, &[Part::Header("a".into())])
        };
        for length in [MOST_PART, MOST_PART + 1, usize::from(HASHED), 100_000] {
            let mut value = vec![b'x'; length];
            let one = of(&value);
            assert_eq!(one, of(&value), "{length} bytes");
            value[length - 1] = b'y';
            assert_ne!(one, of(&value), "{length} bytes");
            value.push(b'x');
            assert_ne!(one, of(&value), "{length} bytes and one");
            // The name, the layout, and one part.
            assert!(one.len() <= 3 + 4 + 2 + MOST_PART, "{length} bytes");
        }
        let long = vec![b'x'; MOST_PART + 1];
        let hash = Sha256::digest(&long);
        assert_ne!(of(&long), of(&hash), "a hash that a client sends");
    }
}
