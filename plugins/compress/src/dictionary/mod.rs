//! Shared dictionaries (RFC 9842): responses that say that they are one are kept, and used for clients that have them.
//!
//! What is kept is only what a shared cache may store and send to anybody, and it is used for the same scheme and host
//! alone: coded with a dictionary, a response tells something of it by its length. The store is a worker's or instance's
//! own: a client whose dictionary another worker saw gets a response without one.

mod crossing;
pub(crate) mod fields;
mod pattern;
mod store;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use edgeweir_filter::{
    ConfigError, Fields, RequestHead, ResponseHead, Timestamp, bounded, delta_seconds,
    representation,
};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::Dictionary;
use crate::budget::{Budget, Reservation};
pub(crate) use crossing::Crossing;
use fields::{Available, UseAs};
use store::{Bounds, Origin, Store};

/// Shared dictionaries.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DictionariesConfig {
    /// Dictionaries kept by a worker or instance, 0 (none are kept or used) to 1000. Default 16.
    #[schemars(range(max = 1000))]
    pub entries: u32,
    /// Bytes of all of them, 64 KiB to 256 MiB. Default 16 MiB.
    #[schemars(range(min = 65_536, max = 268_435_456))]
    pub bytes: u64,
    /// Bytes of one at most, 1 KiB to 16 MiB. Default 2 MiB.
    #[schemars(range(min = 1024, max = 16_777_216))]
    pub max_bytes: u64,
    /// Also for requests by plain `http`, as an edge behind one that speaks TLS sees them. Clients use dictionaries in
    /// secure contexts only. Default false.
    pub plain_http: bool,
}

impl Default for DictionariesConfig {
    fn default() -> Self {
        Self {
            entries: 16,
            bytes: 16 << 20,
            max_bytes: 2 << 20,
            plain_http: false,
        }
    }
}

impl DictionariesConfig {
    pub(crate) fn check(&self) -> Result<DictionarySettings, ConfigError> {
        Ok(DictionarySettings {
            entries: bounded("dictionaries.entries", self.entries, 0, 1000)?,
            bytes: bounded("dictionaries.bytes", self.bytes, 1 << 16, 1 << 28)?,
            max_bytes: bounded("dictionaries.max_bytes", self.max_bytes, 1 << 10, 1 << 24)?,
            plain_http: self.plain_http,
        })
    }
}

/// Checked bounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DictionarySettings {
    pub(crate) entries: usize,
    pub(crate) bytes: usize,
    pub(crate) max_bytes: usize,
    pub(crate) plain_http: bool,
}

/// The dictionaries of a worker or instance.
pub(crate) struct Dictionaries {
    settings: DictionarySettings,
    store: RefCell<Store>,
}

/// What of a request matters for dictionaries; there is none for requests that have nothing to do with them.
pub(crate) struct Asked {
    scheme: Bytes,
    authority: Bytes,
    /// With the query.
    target: Bytes,
    available: Option<Available>,
    /// Its response is not for a shared cache to keep.
    unkept: bool,
    pub(crate) crossing: Crossing,
}

/// The bytes of a dictionary on their way to the client.
pub(crate) struct Capture {
    origin: Origin,
    said: UseAs,
    until: Timestamp,
    bytes: Vec<u8>,
    most: usize,
    _room: Reservation,
}

impl Dictionaries {
    pub(crate) fn new(settings: DictionarySettings) -> Self {
        let bounds = Bounds {
            entries: settings.entries,
            bytes: settings.bytes,
        };
        Self {
            settings,
            store: RefCell::new(Store::new(bounds)),
        }
    }

    /// What a request asks for. RFC 9842 §8: dictionaries are for secure contexts.
    pub(crate) fn asked(&self, head: &RequestHead) -> Option<Asked> {
        let secure = head.scheme.eq_ignore_ascii_case(b"https") || self.settings.plain_http;
        let read = head.method == "GET" || head.method == "HEAD";
        if self.settings.entries == 0 || !secure || !read {
            return None;
        }
        // RFC 9111 §5.2.1.5: with `no-store` "a cache MUST NOT store any part of [...] any response to it".
        let mut directives = head.fields.list("cache-control");
        let unstored =
            directives.any(|directive| named(directive).0.eq_ignore_ascii_case(b"no-store"));
        Some(Asked {
            scheme: head.scheme.clone(),
            authority: head.authority.clone(),
            target: head.path.clone(),
            available: Available::parse(&head.fields),
            unkept: unstored || head.fields.has("authorization"),
            crossing: Crossing::of(&head.fields),
        })
    }

    /// The dictionary to use for the response, where the client has one that is known here.
    pub(crate) fn find(&self, asked: &Asked, now: Timestamp) -> Option<Rc<Dictionary>> {
        let available = asked.available.as_ref()?;
        let mut store = self.store.borrow_mut();
        store.find(&asked.origin(), asked.path(), available, now)
    }

    /// Whether the response depends on which dictionary the client has.
    pub(crate) fn concern(&self, asked: &Asked, now: Timestamp) -> bool {
        let store = self.store.borrow();
        !store.is_empty() && store.is_for(&asked.origin(), asked.path(), now)
    }

    /// Begins to keep a response that is a dictionary for others; `None` when it is none, or none to be kept.
    pub(crate) fn capture(
        &self,
        asked: &Asked,
        head: &ResponseHead,
        budget: &Budget,
        now: Timestamp,
    ) -> Option<Capture> {
        let plain = !representation::is_coded(&head.fields);
        if head.status != 200 || head.end || asked.unkept || !plain {
            return None;
        }
        if !head.fields.has("use-as-dictionary") {
            return None;
        }
        let said = UseAs::parse(&head.fields, asked.path())?;
        let lifetime = lifetime(&head.fields)?;
        let most = self.settings.max_bytes.min(self.settings.bytes);
        let length = match head.content_length() {
            Some(length) => usize::try_from(length).ok().filter(|it| *it <= most)?,
            None => most,
        };
        Some(Capture {
            origin: asked.origin(),
            said,
            until: now.plus(lifetime),
            bytes: Vec::new(),
            most: length,
            _room: budget.take(length)?,
        })
    }

    /// Keeps what was captured whole; false when there is no room.
    pub(crate) fn keep(&self, capture: Capture, now: Timestamp) -> bool {
        let Capture {
            origin,
            said,
            until,
            bytes,
            ..
        } = capture;
        // Less is no help, and nothing to look for in.
        if bytes.len() < 2 {
            return false;
        }
        let dictionary = Rc::new(Dictionary::new(bytes));
        let mut store = self.store.borrow_mut();
        store.keep(origin, said, dictionary, until, now)
    }
}

impl Asked {
    fn origin(&self) -> Origin {
        Origin {
            scheme: self.scheme.to_ascii_lowercase(),
            authority: self.authority.to_ascii_lowercase(),
        }
    }

    fn path(&self) -> &[u8] {
        let mut parts = self.target.split(|byte| *byte == b'?');
        parts.next().unwrap_or_default()
    }
}

impl Capture {
    /// Takes a piece; false when it became too long to be kept.
    pub(crate) fn push(&mut self, piece: &[u8]) -> bool {
        let fits = self.bytes.len().saturating_add(piece.len()) <= self.most;
        if fits {
            self.bytes.extend_from_slice(piece);
        }
        fits
    }
}

/// How long a response is fresh, when a shared cache may store it and send it to anybody (RFC 9111 §3, §4.2.1).
fn lifetime(fields: &Fields) -> Option<Duration> {
    if fields.has("set-cookie") {
        return None;
    }
    let personal = |name: &[u8]| {
        [&b"*"[..], b"cookie", b"authorization"]
            .iter()
            .any(|other| name.eq_ignore_ascii_case(other))
    };
    if fields.list("vary").any(personal) {
        return None;
    }
    let (mut own, mut shared) = (None, None);
    for directive in fields.list("cache-control") {
        let (name, value) = named(directive);
        match &name.to_ascii_lowercase()[..] {
            b"no-store" | b"private" | b"no-cache" => return None,
            // A lifetime that is no number, or there twice, is none.
            b"max-age" if own.is_none() => own = Some(seconds(value)?),
            b"s-maxage" if shared.is_none() => shared = Some(seconds(value)?),
            b"max-age" | b"s-maxage" => return None,
            _ => {}
        }
    }
    // RFC 9111 §5.1: of a list "SHOULD use the first member", and one that is no number "SHOULD be ignored".
    let age = fields.list("age").next().and_then(seconds).unwrap_or(0);
    let left = u64::from(shared.or(own)?.checked_sub(age)?);
    (left > 0).then(|| Duration::from_secs(left))
}

/// The name of a directive and its argument.
fn named(directive: &[u8]) -> (&[u8], &[u8]) {
    let mut parts = directive.splitn(2, |byte| *byte == b'=');
    (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    )
}

/// Seconds, quoted or not.
fn seconds(text: &[u8]) -> Option<u32> {
    let text = text.strip_prefix(b"\"").unwrap_or(text);
    delta_seconds(text.strip_suffix(b"\"").unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_shared_cache_may_send_to_anybody() {
        for (name, lines, want) in [
            (
                "a lifetime",
                &[("cache-control", "public, max-age=60")][..],
                Some(60),
            ),
            (
                "public goes without saying",
                &[("cache-control", "max-age=60")],
                Some(60),
            ),
            (
                "the shared one counts",
                &[("cache-control", "max-age=60, s-maxage=5")],
                Some(5),
            ),
            (
                "aged",
                &[("cache-control", "max-age=60"), ("age", "20")],
                Some(40),
            ),
            (
                "stale",
                &[("cache-control", "max-age=60"), ("age", "60")],
                None,
            ),
            (
                "an age beyond all numbers",
                &[("cache-control", "max-age=60"), ("age", "99999999999")],
                None,
            ),
            (
                "two ages",
                &[("cache-control", "max-age=60"), ("age", "70, 0")],
                None,
            ),
            (
                "two lines of ages",
                &[
                    ("cache-control", "max-age=60"),
                    ("age", "20"),
                    ("age", "70"),
                ],
                Some(40),
            ),
            (
                "an age that is none",
                &[("cache-control", "max-age=60"), ("age", "-70")],
                Some(60),
            ),
            (
                "a lifetime beyond all numbers",
                &[("cache-control", "max-age=99999999999")],
                Some(4_294_967_295),
            ),
            ("private", &[("cache-control", "private, max-age=60")], None),
            (
                "private fields",
                &[("cache-control", "private=\"a\", max-age=60")],
                None,
            ),
            (
                "not stored",
                &[("cache-control", "no-store, max-age=60")],
                None,
            ),
            (
                "validated each time",
                &[("cache-control", "no-cache, max-age=60")],
                None,
            ),
            ("no lifetime", &[("cache-control", "public")], None),
            ("nothing said", &[], None),
            ("no number", &[("cache-control", "max-age=a")], None),
            ("two", &[("cache-control", "max-age=1, max-age=2")], None),
            (
                "a cookie",
                &[("cache-control", "max-age=60"), ("set-cookie", "a=b")],
                None,
            ),
            (
                "by cookie",
                &[("cache-control", "max-age=60"), ("vary", "Cookie")],
                None,
            ),
            (
                "by anything",
                &[("cache-control", "max-age=60"), ("vary", "*")],
                None,
            ),
            (
                "by coding",
                &[("cache-control", "max-age=60"), ("vary", "accept-encoding")],
                Some(60),
            ),
        ] {
            let lifetime = lifetime(&Fields::of(lines));
            assert_eq!(lifetime, want.map(Duration::from_secs), "{name}");
        }
    }
}
