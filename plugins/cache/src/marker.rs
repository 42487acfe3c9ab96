//! What all workers agree on about one key: a value of at most 64 bytes, read with every lookup and only changed by
//! atomic updates.
//!
//! It holds the key's generation (an invalidation is a new one, and whatever was stored or is on its way under another
//! one is never reused), the fields that `Vary` named, which of the at most eight places holds which variant, and an
//! edition that goes up with every store, so that a worker's own memory knows when to ask the shared store again.
//!
//! All changes are pure and safe to repeat. Unrelated keys may come to share one marker when the edge's table is full:
//! then they share invalidations and compete for the places, which costs misses, never a wrong answer, because a stored
//! response names its own generation, key and secondary key.

use bytes::Bytes;
use edgeweir_filter::Fields;

use crate::reason::Refused;
use crate::vary;

/// Bytes of a marker at most.
pub const LONGEST: usize = 64;
/// Places of variants under one key at most.
pub const PLACES: usize = 8;

const VERSION: u8 = 1;
const FIXED: usize = 18;
/// The fingerprint of a place that nothing is stored in; no secondary key has it.
const VACANT: u16 = 0;

/// Names that are written as one byte; the order is part of the format.
const KNOWN: [&str; 32] = [
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "access-control-request-headers",
    "access-control-request-method",
    "authorization",
    "cookie",
    "device-memory",
    "dnt",
    "dpr",
    "ect",
    "host",
    "next-router-prefetch",
    "next-router-segment-prefetch",
    "next-router-state-tree",
    "next-url",
    "origin",
    "purpose",
    "referer",
    "rsc",
    "save-data",
    "sec-ch-ua",
    "sec-ch-ua-mobile",
    "sec-ch-ua-platform",
    "sec-fetch-dest",
    "sec-fetch-mode",
    "sec-fetch-site",
    "user-agent",
    "viewport-width",
    "x-forwarded-proto",
    "x-requested-with",
];

/// The marker of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Marker {
    /// Never the same twice.
    pub generation: u64,
    /// An invalidation made this generation.
    pub invalidated: bool,
    /// Seconds since the epoch until which something stored may matter.
    pub until: u32,
    /// Goes up with every store; wraps.
    pub edition: u16,
    /// The place to be given away next when all are taken.
    next: u8,
    /// A fingerprint of each place's secondary key.
    places: Vec<u16>,
    /// The nominated fields, sorted.
    pub names: Vec<Bytes>,
}

impl Marker {
    /// A key's first marker, or the one after an invalidation.
    pub fn new(generation: u64, invalidated: bool, until: u32) -> Self {
        Self {
            generation,
            invalidated,
            until,
            edition: 0,
            next: 0,
            places: Vec::new(),
            names: Vec::new(),
        }
    }

    /// The place where the variant for this request would be.
    pub fn place(&self, request: &Fields) -> Option<u8> {
        let print = self.fingerprint(request);
        let at = self.places.iter().position(|known| *known == print)?;
        u8::try_from(at).ok()
    }

    /// Whether anything is stored in this generation.
    pub fn has_variants(&self) -> bool {
        self.places.iter().any(|place| *place != VACANT)
    }

    /// Whether something was let go whose place nothing else has taken.
    pub fn has_vacancy(&self) -> bool {
        self.places.contains(&VACANT)
    }

    /// The bytes; `None` when they would be more than [`LONGEST`].
    pub fn encode(&self) -> Option<Vec<u8>> {
        let mut out = vec![VERSION, u8::from(self.invalidated) | self.next << 1];
        out.extend_from_slice(&self.generation.to_be_bytes());
        out.extend_from_slice(&self.until.to_be_bytes());
        out.extend_from_slice(&self.edition.to_be_bytes());
        out.push(u8::try_from(self.places.len()).ok()?);
        out.push(u8::try_from(self.names.len()).ok()?);
        for place in &self.places {
            out.extend_from_slice(&place.to_be_bytes());
        }
        for name in &self.names {
            match KNOWN.iter().position(|known| known.as_bytes() == &name[..]) {
                Some(code) => out.push(u8::try_from(code).ok()?),
                None => {
                    let length = u8::try_from(name.len()).ok().filter(|l| *l < 0x80)?;
                    out.push(0x80 | length);
                    out.extend_from_slice(name);
                }
            }
        }
        (out.len() <= LONGEST).then_some(out)
    }

    /// The marker in these bytes; `None` when they are none of this version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (fixed, mut rest) = bytes.split_at_checked(FIXED)?;
        let &[
            version,
            flags,
            g0,
            g1,
            g2,
            g3,
            g4,
            g5,
            g6,
            g7,
            u0,
            u1,
            u2,
            u3,
            e0,
            e1,
            places,
            names,
        ] = fixed
        else {
            return None;
        };
        if version != VERSION || usize::from(places) > PLACES {
            return None;
        }
        let mut marker = Self {
            generation: u64::from_be_bytes([g0, g1, g2, g3, g4, g5, g6, g7]),
            invalidated: flags & 1 == 1,
            until: u32::from_be_bytes([u0, u1, u2, u3]),
            edition: u16::from_be_bytes([e0, e1]),
            next: flags >> 1,
            places: Vec::new(),
            names: Vec::new(),
        };
        for _ in 0..places {
            let (&print, after) = rest.split_first_chunk::<2>()?;
            marker.places.push(u16::from_be_bytes(print));
            rest = after;
        }
        for _ in 0..names {
            let (&code, after) = rest.split_first()?;
            let length = usize::from(code & 0x7f);
            (rest, _) = if code & 0x80 == 0 {
                marker
                    .names
                    .push(Bytes::from_static(KNOWN.get(length)?.as_bytes()));
                (after, ())
            } else {
                let (name, after) = after.split_at_checked(length)?;
                marker.names.push(Bytes::copy_from_slice(name));
                (after, ())
            };
        }
        rest.is_empty().then_some(marker)
    }

    fn fingerprint(&self, request: &Fields) -> u16 {
        let secondary = vary::secondary(&self.names, request);
        // FNV-1a, seeded by the generation so that nobody outside can aim at a collision; one would only make two
        // variants take turns in one place.
        let hash = self
            .generation
            .to_be_bytes()
            .iter()
            .chain(&secondary)
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
            });
        let [a, b, c, d, e, f, g, h] = hash.to_be_bytes();
        u16::from_be_bytes([a ^ c ^ e ^ g, b ^ d ^ f ^ h]).max(VACANT + 1)
    }
}

/// A response that wants a place under a key.
#[derive(Debug)]
pub struct Register {
    /// The generation at lookup; `None` when there was no marker.
    pub seen: Option<u64>,
    /// A generation nobody had, should the key need one.
    pub fresh: u64,
    /// The fields that this response's `Vary` names.
    pub names: Vec<Bytes>,
    /// The request's fields.
    pub request: Fields,
    /// Seconds since the epoch until which the response may matter.
    pub until: u32,
    /// Variants at most.
    pub max_variants: u8,
}

impl Register {
    /// The bytes of the marker after; `None` leaves it.
    pub fn change(&self, before: Option<&[u8]>) -> Option<Vec<u8>> {
        self.apply(before)
            .ok()
            .and_then(|(marker, _)| marker.encode())
    }

    /// The marker after, and the place.
    pub fn apply(&self, before: Option<&[u8]>) -> Result<(Marker, u8), Refused> {
        let mut marker = match before.and_then(Marker::decode) {
            None => Marker::new(self.fresh, false, 0),
            Some(marker) => {
                let unchanged = match self.seen {
                    Some(seen) => seen == marker.generation,
                    // Another exchange made it meanwhile: fine, unless it was an invalidation.
                    None => !marker.invalidated,
                };
                if !unchanged {
                    return Err(Refused::Invalidated);
                }
                marker
            }
        };
        marker.until = marker.until.max(self.until);
        if self.names.iter().any(|name| !marker.names.contains(name)) {
            marker.names.extend(self.names.iter().cloned());
            marker.names.sort();
            marker.names.dedup();
            // Every fingerprint was made of fewer names: none can be found again.
            marker.places.clear();
            marker.next = 0;
        }
        let place = match marker.place(&self.request) {
            Some(place) => place,
            None => marker.give_place(&self.request, self.max_variants),
        };
        match marker.encode() {
            Some(_) => Ok((marker, place)),
            None => Err(Refused::VaryTooLong),
        }
    }
}

impl Marker {
    fn give_place(&mut self, request: &Fields, max_variants: u8) -> u8 {
        let print = self.fingerprint(request);
        if let Some(at) = self.places.iter().position(|known| *known == VACANT)
            && let Some(place) = self.places.get_mut(at)
        {
            *place = print;
            return u8::try_from(at).unwrap_or(0);
        }
        let taken = u8::try_from(self.places.len()).unwrap_or(u8::MAX);
        if taken < max_variants.min(PLACES as u8) {
            self.places.push(print);
            return taken;
        }
        // The one given away longest ago goes.
        let place = if self.next < taken { self.next } else { 0 };
        if let Some(old) = self.places.get_mut(usize::from(place)) {
            *old = print;
        }
        self.next = (place + 1) % taken.max(1);
        place
    }
}

/// Makes everything stored or on its way under a key unusable. It has to be remembered until what was there before is
/// of no use any more ([`outlives`]): a table that runs out of room may give a forgotten key a marker it had before.
pub fn invalidate(fresh: u64, until: u32) -> Option<Vec<u8>> {
    Marker::new(fresh, true, until).encode()
}

/// The marker of an invalidation as it is, to be written once more for longer; `None` when it is another one's by now.
pub fn prolong(before: Option<&[u8]>, generation: u64, until: u32) -> Option<Vec<u8>> {
    let marker = before.and_then(Marker::decode)?;
    let until = marker.until.max(until);
    (marker.generation == generation).then(|| Marker { until, ..marker }.encode())?
}

/// Until when an invalidation of what was there before must be remembered, when that is after `until`.
pub fn outlives(before: Option<&[u8]>, until: u32) -> Option<u32> {
    let marker = before.and_then(Marker::decode)?;
    (marker.until > until).then_some(marker.until)
}

/// The generation of a URI whose keys have more parts than the URI: as it is, or a fresh one. The flag says whether it
/// is to be written, which it is also from time to time to keep it.
pub fn epoch(before: Option<&[u8]>, fresh: u64, now: u32, until: u32) -> (Marker, bool) {
    match before.and_then(Marker::decode) {
        None => (Marker::new(fresh, false, until), true),
        Some(known) => {
            let ages = known.until.saturating_sub(now) < until.saturating_sub(now) / 2;
            (Marker { until, ..known }, ages)
        }
    }
}

/// Tells every worker that what was stored in a place under `generation` is not to be used any more.
pub fn vacate(before: Option<&[u8]>, generation: u64, place: u8) -> Option<Vec<u8>> {
    let mut marker = before.and_then(Marker::decode)?;
    if marker.generation != generation {
        return None;
    }
    *marker.places.get_mut(usize::from(place))? = VACANT;
    marker.edition = marker.edition.wrapping_add(1);
    marker.encode()
}

/// Tells every worker that something was stored under `generation`.
pub fn next_edition(before: Option<&[u8]>, generation: u64) -> Option<Vec<u8>> {
    let mut marker = before.and_then(Marker::decode)?;
    if marker.generation != generation {
        return None;
    }
    marker.edition = marker.edition.wrapping_add(1);
    marker.encode()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn register(seen: Option<u64>, names: &[&'static str], request: &[(&str, &str)]) -> Register {
        Register {
            seen,
            fresh: 9,
            names: names.iter().copied().map(Bytes::from).collect(),
            request: Fields::of(request),
            until: 100,
            max_variants: 2,
        }
    }

    #[test]
    fn generations_decide_who_may_store() {
        let filled = Marker::new(5, false, 0).encode();
        let emptied = Marker::new(5, true, 0).encode();
        for (name, before, seen, want) in [
            ("first", None, None, Ok(9)),
            ("evicted meanwhile", None, Some(5), Ok(9)),
            ("same", filled.as_deref(), Some(5), Ok(5)),
            ("filled meanwhile", filled.as_deref(), None, Ok(5)),
            (
                "invalidated meanwhile",
                emptied.as_deref(),
                None,
                Err(Refused::Invalidated),
            ),
            ("invalidated before", emptied.as_deref(), Some(5), Ok(5)),
            (
                "another generation",
                filled.as_deref(),
                Some(4),
                Err(Refused::Invalidated),
            ),
            ("damaged", Some(&b"\x01\x02"[..]), Some(4), Ok(9)),
        ] {
            let got = register(seen, &[], &[]).apply(before);
            assert_eq!(got.map(|(marker, _)| marker.generation), want, "{name}");
        }
    }

    #[test]
    fn variants_are_bounded_and_take_turns() {
        let mut bytes = None;
        let mut places = Vec::new();
        for language in ["en", "de", "en", "fr", "it"] {
            let request = [("accept-language", language)];
            let seen = bytes
                .as_deref()
                .and_then(Marker::decode)
                .map(|m| m.generation);
            let ask = register(seen, &["accept-language"], &request);
            let (marker, place) = ask.apply(bytes.as_deref()).expect("room");
            assert_eq!(marker.place(&Fields::of(&request)), Some(place));
            places.push(place);
            bytes = marker.encode();
        }
        assert_eq!(places, [0, 1, 0, 0, 1]);
        let marker = Marker::decode(&bytes.expect("encoded")).expect("decoded");
        assert_eq!(
            marker.place(&Fields::of(&[("accept-language", "en")])),
            None
        );
    }

    #[test]
    fn names_add_up_until_they_do_not_fit() {
        let (one, _) = register(None, &["x-a"], &[]).apply(None).expect("fits");
        let bytes = one.encode().expect("fits");
        let (two, _) = register(Some(9), &["cookie"], &[])
            .apply(Some(&bytes))
            .expect("fits");
        assert_eq!(two.names, ["cookie", "x-a"]);
        let bytes = two.encode().expect("fits");
        let long = register(
            Some(9),
            &["x-a-name-of-more-than-forty-four-characters-in-all"],
            &[],
        );
        assert_eq!(
            long.apply(Some(&bytes)).map(|_| ()),
            Err(Refused::VaryTooLong)
        );
    }

    #[test]
    fn a_store_is_announced_only_in_its_generation() {
        let before = Marker::new(5, false, 0).encode();
        let after = next_edition(before.as_deref(), 5).and_then(|bytes| Marker::decode(&bytes));
        assert_eq!(after.map(|marker| marker.edition), Some(1));
        assert_eq!(next_edition(before.as_deref(), 6), None);
        assert_eq!(next_edition(None, 5), None);
    }

    #[test]
    fn an_invalidation_outlives_what_it_invalidates() {
        let before = Marker::new(5, false, 900).encode();
        assert_eq!(outlives(before.as_deref(), 300), Some(900));
        assert_eq!(outlives(before.as_deref(), 900), None);
        assert_eq!(outlives(None, 300), None);
        let after = invalidate(6, 300);
        let longer = prolong(after.as_deref(), 6, 900).and_then(|bytes| Marker::decode(&bytes));
        assert_eq!(longer, Some(Marker::new(6, true, 900)));
        assert_eq!(prolong(after.as_deref(), 5, 900), None);
    }

    proptest! {
        #[test]
        fn decoding_never_panics(bytes: Vec<u8>) {
            Marker::decode(&bytes);
        }

        #[test]
        fn what_is_encoded_is_decoded(generation: u64, invalidated: bool, until: u32, edition: u16, known in 0..32usize, count in 0..=8usize, next in 0..8u8, name in "[a-z-]{0,20}") {
            let mut marker = Marker::new(generation, invalidated, until);
            marker.edition = edition;
            marker.next = next;
            marker.places = (0..count).map(|at| at as u16 * 77).collect();
            marker.names = vec![Bytes::from(KNOWN[known]), Bytes::from(format!("x{name}"))];
            let bytes = marker.encode().expect("fits");
            prop_assert!(bytes.len() <= LONGEST);
            prop_assert_eq!(Marker::decode(&bytes), Some(marker));
        }
    }
}
