//! A stored response and its bytes in the shared store.
//!
//! Layout, big-endian: version (1), flags (1), status (2), generation (8), response time and request time in ns (8, 8),
//! initial age (4), lifetime (4), stale-while-revalidate (4), stale-if-error (4), body length (4), for a part its first
//! byte and the length of the whole (8, 8), count of groups (1) and each (8), secondary key length (4) and bytes, count
//! of field lines (2), each line as name length (2), value length (4), name and value; the body is the rest and must
//! have its length. Every length is checked on the way in: what a store gives back is never trusted.

use bytes::Bytes;
use edgeweir_filter::{Fields, Timestamp};

use crate::freshness::current_age;
use crate::vary::{self, Vary};

const VERSION: u8 = 2;
const BODY_LENGTH_AT: usize = 44;

const NO_CACHE: u8 = 1;
const NEVER_STALE: u8 = 2;
const SHARED_WITH_AUTHORIZATION: u8 = 4;
const STALE_IF_ERROR: u8 = 16;
const PART: u8 = 32;

/// What reuse of a stored response depends on besides its age.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Conditions {
    /// `no-cache`: only after validation.
    pub no_cache: bool,
    /// Not once it is stale, whatever the client takes.
    pub never_stale: bool,
    /// Also for a request with `Authorization`.
    pub shared_with_authorization: bool,
    /// Seconds past its freshness during which it may be used while it is validated (RFC 5861 §3).
    pub while_revalidate: u32,
    /// Seconds past its freshness during which it may be used in place of an error (RFC 5861 §4), where that is said.
    pub if_error: Option<u32>,
}

/// Which part of a representation a stored 206 holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// Position of its first byte.
    pub first: u64,
    /// Length of the whole representation.
    pub whole: u64,
}

/// A stored response.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stored {
    /// The key's generation it was stored in.
    pub generation: u64,
    /// Its status.
    pub status: u16,
    /// Its fields, as they may be stored.
    pub fields: Fields,
    /// `response_time` of RFC 9111 §4.2.3.
    pub responded: Timestamp,
    /// When it was asked for: invalidations after that count.
    pub requested: Timestamp,
    /// `corrected_initial_age` in seconds.
    pub initial_age: u32,
    /// Freshness lifetime in seconds.
    pub lifetime: u32,
    /// Conditions of reuse.
    pub conditions: Conditions,
    /// Set for a 206: what its body is a part of.
    pub part: Option<Part>,
    /// The groups it belongs to, at most 255.
    pub groups: Vec<u64>,
    /// The secondary key under the fields that its own `Vary` names.
    pub secondary: Bytes,
    /// The body.
    pub body: Bytes,
}

impl Part {
    /// `Content-Range` of a part that is `length` bytes long.
    pub fn content_range(self, length: usize) -> String {
        let last = (self.first + length as u64).saturating_sub(1);
        format!("bytes {}-{last}/{}", self.first, self.whole)
    }
}

impl Stored {
    /// Age now, in seconds.
    pub fn age(&self, now: Timestamp) -> u32 {
        current_age(self.initial_age, self.responded, now)
    }

    /// What is left of the lifetime in seconds; negative when stale.
    pub fn left(&self, now: Timestamp) -> i64 {
        i64::from(self.lifetime) - i64::from(self.age(now))
    }

    /// Whether it was selected by fields that are the same in this request (RFC 9111 §4.1).
    pub fn matches(&self, request: &Fields) -> bool {
        match Vary::of(&self.fields) {
            Vary::Anything => false,
            Vary::Fields(names) => vary::secondary(&names, request) == self.secondary,
        }
    }

    /// Whether it may be used although it went stale `-left` seconds ago, when `window` seconds are allowed for that.
    pub fn within(&self, left: i64, window: u32) -> bool {
        // RFC 9111 §4.2.4: not "if it is prohibited by an explicit in-protocol directive".
        !self.conditions.never_stale && window > 0 && left.saturating_neg() <= i64::from(window)
    }

    /// The entity tag, when it is a strong validator (RFC 9110 §8.8.1).
    pub fn strong_tag(&self) -> Option<&[u8]> {
        self.fields.get("etag").filter(|tag| tag.starts_with(b"\""))
    }

    /// Whether the origin can be asked if it is still the same.
    pub fn has_validator(&self) -> bool {
        has_validator(&self.fields)
    }

    /// Head and body in bytes; `None` when a length is over the format's.
    pub fn encode(&self) -> Option<Bytes> {
        let mut out = self.encode_head()?;
        out.extend_from_slice(&self.body);
        seal(out, self.body.len())
    }

    /// All but the body: append it, then [`seal`].
    pub fn encode_head(&self) -> Option<Vec<u8>> {
        let part = if self.part.is_some() { PART } else { 0 };
        let mut out = vec![VERSION, self.conditions.bits() | part];
        out.extend_from_slice(&self.status.to_be_bytes());
        out.extend_from_slice(&self.generation.to_be_bytes());
        out.extend_from_slice(&self.responded.0.to_be_bytes());
        out.extend_from_slice(&self.requested.0.to_be_bytes());
        out.extend_from_slice(&self.initial_age.to_be_bytes());
        out.extend_from_slice(&self.lifetime.to_be_bytes());
        out.extend_from_slice(&self.conditions.while_revalidate.to_be_bytes());
        out.extend_from_slice(&self.conditions.if_error.unwrap_or(0).to_be_bytes());
        debug_assert_eq!(out.len(), BODY_LENGTH_AT);
        out.extend_from_slice(&[0; 4]);
        if let Some(part) = self.part {
            out.extend_from_slice(&part.first.to_be_bytes());
            out.extend_from_slice(&part.whole.to_be_bytes());
        }
        out.push(u8::try_from(self.groups.len()).ok()?);
        for group in &self.groups {
            out.extend_from_slice(&group.to_be_bytes());
        }
        out.extend_from_slice(&u32::try_from(self.secondary.len()).ok()?.to_be_bytes());
        out.extend_from_slice(&self.secondary);
        out.extend_from_slice(&u16::try_from(self.fields.len()).ok()?.to_be_bytes());
        for (name, value) in self.fields.iter() {
            out.extend_from_slice(&u16::try_from(name.len()).ok()?.to_be_bytes());
            out.extend_from_slice(&u32::try_from(value.len()).ok()?.to_be_bytes());
            out.extend_from_slice(name);
            out.extend_from_slice(value);
        }
        Some(out)
    }

    /// The response in these bytes, sharing them; `None` when they are damaged or of another version.
    pub fn decode(bytes: &Bytes) -> Option<Self> {
        let mut from = Cursor { bytes, at: 0 };
        let [version, flags] = from.array()?;
        if version != VERSION {
            return None;
        }
        let status = u16::from_be_bytes(from.array()?);
        if !(200..=999).contains(&status) {
            return None;
        }
        let generation = u64::from_be_bytes(from.array()?);
        let responded = Timestamp(u64::from_be_bytes(from.array()?));
        let requested = Timestamp(u64::from_be_bytes(from.array()?));
        let initial_age = u32::from_be_bytes(from.array()?);
        let lifetime = u32::from_be_bytes(from.array()?);
        let while_revalidate = u32::from_be_bytes(from.array()?);
        let if_error = u32::from_be_bytes(from.array()?);
        let body_length = from.length()?;
        let part = match flags & PART != 0 {
            true => Some(Part {
                first: u64::from_be_bytes(from.array()?),
                whole: u64::from_be_bytes(from.array()?),
            }),
            false => None,
        };
        let [groups] = from.array()?;
        let groups = (0..groups)
            .map(|_| from.array().map(u64::from_be_bytes))
            .collect::<Option<Vec<u64>>>()?;
        let secondary_length = from.length()?;
        let secondary = from.take(secondary_length)?;
        let count = u16::from_be_bytes(from.array()?);
        // Six bytes a line at least: a forged count can't make the list long.
        let mut lines = Vec::with_capacity(usize::from(count).min(bytes.len() / 6));
        for _ in 0..count {
            let name_length = usize::from(u16::from_be_bytes(from.array()?));
            let value_length = from.length()?;
            lines.push((from.take(name_length)?, from.take(value_length)?));
        }
        let body = from.take(body_length)?;
        (from.at == bytes.len()).then_some(Self {
            generation,
            status,
            fields: Fields::received(lines),
            responded,
            requested,
            initial_age,
            lifetime,
            conditions: Conditions::of(flags, while_revalidate, if_error),
            part,
            groups,
            secondary,
            body,
        })
    }
}

/// `ETag` or a `Last-Modified` that is a date.
pub fn has_validator(fields: &Fields) -> bool {
    fields.has("etag")
        || fields
            .get("last-modified")
            .and_then(crate::freshness::parse_date)
            .is_some()
}

/// Writes the length of the body that was appended to an encoded head.
pub fn seal(mut encoded: Vec<u8>, body_length: usize) -> Option<Bytes> {
    let length = u32::try_from(body_length).ok()?.to_be_bytes();
    encoded
        .get_mut(BODY_LENGTH_AT..BODY_LENGTH_AT + 4)?
        .copy_from_slice(&length);
    Some(encoded.into())
}

impl Conditions {
    fn bits(self) -> u8 {
        let bit = |on: bool, bit: u8| if on { bit } else { 0 };
        bit(self.no_cache, NO_CACHE)
            | bit(self.never_stale, NEVER_STALE)
            | bit(self.shared_with_authorization, SHARED_WITH_AUTHORIZATION)
            | bit(self.if_error.is_some(), STALE_IF_ERROR)
    }

    fn of(bits: u8, while_revalidate: u32, if_error: u32) -> Self {
        Self {
            no_cache: bits & NO_CACHE != 0,
            never_stale: bits & NEVER_STALE != 0,
            shared_with_authorization: bits & SHARED_WITH_AUTHORIZATION != 0,
            while_revalidate,
            if_error: (bits & STALE_IF_ERROR != 0).then_some(if_error),
        }
    }
}

struct Cursor<'a> {
    bytes: &'a Bytes,
    at: usize,
}

impl Cursor<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let found = self.bytes.get(self.at..)?.first_chunk::<N>()?;
        self.at += N;
        Some(*found)
    }

    fn length(&mut self) -> Option<usize> {
        usize::try_from(u32::from_be_bytes(self.array()?)).ok()
    }

    fn take(&mut self, length: usize) -> Option<Bytes> {
        let end = self.at.checked_add(length)?;
        if end > self.bytes.len() {
            return None;
        }
        let found = self.bytes.slice(self.at..end);
        self.at = end;
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stored(fields: Vec<(Vec<u8>, Vec<u8>)>, body: Vec<u8>) -> Stored {
        let lines = fields
            .into_iter()
            .map(|(n, v)| (Bytes::from(n.to_ascii_lowercase()), Bytes::from(v)));
        Stored {
            generation: 7,
            status: 200,
            fields: Fields::received(lines.collect::<Vec<_>>()),
            responded: Timestamp::from_secs(9),
            requested: Timestamp::from_secs(8),
            initial_age: 3,
            lifetime: 60,
            conditions: Conditions {
                no_cache: true,
                shared_with_authorization: true,
                while_revalidate: 5,
                if_error: Some(6),
                ..Conditions::default()
            },
            part: Some(Part { first: 1, whole: 9 }),
            groups: vec![1, u64::MAX],
            secondary: Bytes::from("s"),
            body: body.into(),
        }
    }

    #[test]
    fn every_cut_is_refused() {
        let whole = stored(vec![(b"a".to_vec(), b"b".to_vec())], b"body".to_vec())
            .encode()
            .expect("short");
        for end in 0..whole.len() {
            assert_eq!(Stored::decode(&whole.slice(..end)), None, "cut at {end}");
        }
        let longer = Bytes::from([&whole[..], b"x"].concat());
        assert_eq!(Stored::decode(&longer), None);
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(fields: Vec<(Vec<u8>, Vec<u8>)>, body: Vec<u8>) {
            let stored = stored(fields, body);
            let bytes = stored.encode().expect("short");
            prop_assert_eq!(Stored::decode(&bytes), Some(stored));
        }

        #[test]
        fn decoding_never_panics(bytes: Vec<u8>, good in any::<bool>(), at: usize, byte: u8) {
            Stored::decode(&Bytes::from(bytes));
            let mut bytes = stored(vec![(b"a".to_vec(), b"b".to_vec())], b"body".to_vec()).encode().expect("short").to_vec();
            let at = at % bytes.len();
            bytes[at] = byte;
            if good { bytes.extend_from_slice(b"more"); }
            Stored::decode(&Bytes::from(bytes));
        }
    }
}
