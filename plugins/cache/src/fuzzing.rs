//! What the fuzz targets of `tests/fuzz` call: each takes any bytes and panics when a promise is broken.
//!
//! The inputs are text where the grammar is, so that a corpus can be read: lines are separated by `\n`, parts by `\0`.

use bytes::Bytes;
use edgeweir_filter::{Fields, RequestHead, ResponseHead, Timestamp};

use crate::config::KeySettings;
use crate::directives::{Delta, LONGEST, RequestDirectives, ResponseDirectives};
use crate::freshness::{Heuristic, Times, format_date, initial_age, lifetime, parse_date};
use crate::invalidate;
use crate::kept::Kept;
use crate::key::{Key, Target};
use crate::marker::Marker;
use crate::ranges::{self, Selected};
use crate::stored::Stored;
use crate::targeted;
use crate::vary::{Vary, secondary};

/// A fuzz target: takes any bytes.
pub type Run = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: [(&str, Run); 8] = [
    ("directives", directives),
    ("dates", dates),
    ("vary", vary),
    ("stored", stored),
    ("key", key),
    ("location", location),
    ("ranges", range_of),
    ("targeted", targeted),
];

/// The first second of 2026.
const NOW: u64 = 1_767_225_600;

/// Cache-Control, a line each: read without a panic, alike in any case and however the lines are joined; what is added
/// never takes a restriction away.
pub fn directives(data: &[u8]) {
    let lines = one_field("cache-control", data);
    let read = ResponseDirectives::of(&lines);
    let asked = RequestDirectives::of(&lines);
    for delta in [read.max_age, read.s_maxage].into_iter().flatten() {
        assert!(delta.or_stale() <= LONGEST);
        assert!(delta != Delta::Invalid || delta.or_stale() == 0);
    }
    let upper = one_field("cache-control", &data.to_ascii_uppercase());
    assert_eq!(ResponseDirectives::of(&upper), read, "in upper case");
    assert_eq!(RequestDirectives::of(&upper), asked, "in upper case");
    if !read.malformed
        && let Some(joined) = lines.joined("cache-control")
    {
        let joined = one_line("cache-control", &joined);
        assert_eq!(ResponseDirectives::of(&joined), read, "as one line");
        assert_eq!(RequestDirectives::of(&joined), asked, "as one line");
    }
    let mut more = lines.clone();
    more.append("cache-control", "no-store");
    let stricter = ResponseDirectives::of(&more);
    assert!(stricter.no_store);
    assert!(read.never_stale() == stricter.never_stale());
    let at = Timestamp::from_secs(NOW);
    let given = lifetime(&lines, &read, at, None).map(|lifetime| lifetime.seconds);
    more.append("cache-control", "max-age=1");
    let capped = ResponseDirectives::of(&more);
    if capped.s_maxage.is_none() {
        let seconds = lifetime(&more, &capped, at, None).map(|lifetime| lifetime.seconds);
        assert!(
            seconds <= Some(1),
            "{given:?} became {seconds:?} by max-age=1"
        );
    }
}

/// A date and, after `\n`, an `Age`: what is read as a date is one of the three forms and comes back the same.
pub fn dates(data: &[u8]) {
    let mut parts = data.splitn(2, |&byte| byte == b'\n');
    let (date, age) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    if let Some(seconds) = parse_date(date) {
        // RFC 9110 §5.6.7: every form has a day, a time with two colons and a year.
        assert!(date.iter().filter(|&&byte| byte == b':').count() == 2);
        // Years of four digits end here (9999-12-31T23:59:59Z).
        assert!(seconds <= 253_402_300_799);
        let text = format_date(Timestamp::from_secs(seconds));
        if seconds < u64::MAX / 1_000_000_000 {
            assert_eq!(parse_date(text.as_bytes()), Some(seconds));
        }
    }
    let at = Timestamp::from_secs(NOW);
    let times = Times {
        requested: at,
        responded: at,
    };
    for name in ["date", "expires", "last-modified"] {
        let mut fields = one_line(name, date);
        fields.append("age", age.to_vec());
        let directives = ResponseDirectives::default();
        let guess = Some(Heuristic {
            percent: 10,
            longest: 86_400,
        });
        let found = lifetime(&fields, &directives, at, guess);
        assert!(found.is_none_or(|found| found.seconds <= LONGEST));
        assert!(initial_age(&fields, times) <= LONGEST);
    }
}

/// `Vary` lines, then the fields of two requests, `name: value` a line: one request has one key, and requests that
/// differ in a nominated field that is no list never share one.
pub fn vary(data: &[u8]) {
    let mut parts = data.splitn(3, |&byte| byte == 0);
    let response = one_field("vary", parts.next().unwrap_or_default());
    let one = lines(parts.next().unwrap_or_default());
    let other = lines(parts.next().unwrap_or_default());
    let Vary::Fields(names) = Vary::of(&response) else {
        assert!(response.list("vary").any(|name| name == b"*"));
        return;
    };
    assert!(names.windows(2).all(|two| two.first() < two.last()));
    let (first, second) = (secondary(&names, &one), secondary(&names, &other));
    assert_eq!(secondary(&names, &one.clone()), first);
    let differ = names
        .iter()
        .filter(|name| !name.starts_with(b"accept"))
        .filter_map(|name| std::str::from_utf8(name).ok())
        .any(|name| plain(&one, name) != plain(&other, name));
    assert!(!differ || first != second, "two requests with one key");
}

fn plain(fields: &Fields, name: &str) -> Option<Vec<u8>> {
    fields.joined(name).map(|value| value.trim_ascii().to_vec())
}

/// Bytes a store gives back: a stored response or a marker, or neither; what is one comes back the same.
pub fn stored(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    if let Some(found) = Stored::decode(&bytes) {
        assert!(found.body.len() <= bytes.len());
        let again = found.encode();
        assert!(again.is_some(), "what was decoded can be encoded");
        if let Some(again) = again {
            assert_eq!(Stored::decode(&again), Some(found));
        }
    }
    if let Some(Kept::Varies(names)) = Kept::read(&bytes) {
        secondary(&names, &Fields::default());
    }
    if let Some(marker) = Marker::decode(data)
        && let Some(again) = marker.encode()
    {
        assert_eq!(Marker::decode(&again), Some(marker));
    }
}

/// `authority\npath` twice: equal keys only for what RFC 3986 calls equivalent.
pub fn key(data: &[u8]) {
    let mut parts = data.splitn(4, |&byte| byte == b'\n');
    let mut part = || Bytes::copy_from_slice(parts.next().unwrap_or_default());
    let mut head = || RequestHead {
        method: Bytes::from_static(b"GET"),
        scheme: Bytes::from_static(b"https"),
        authority: part(),
        path: part(),
        ..RequestHead::default()
    };
    let (one, other) = (head(), head());
    let settings = KeySettings::default();
    let (Ok(first), Ok(second)) = (Key::of(&one, &settings), Key::of(&other, &settings)) else {
        return;
    };
    assert!(first.primary(0).len() <= crate::key::LONGEST_KEY);
    let (one, other) = (Target::of(&one), Target::of(&other));
    if first == second {
        assert_eq!(one.authority, other.authority);
        assert_eq!(decoded(&one.path), decoded(&other.path));
    } else {
        assert_ne!(one, other, "one target with two keys");
    }
}

/// The path with every escape of a byte resolved, `/` for an empty one; escapes of `?`, `/` and the like stay apart.
fn decoded(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    if !path.starts_with(b"/") && (path.is_empty() || path.starts_with(b"?")) {
        out.push(b'/');
    }
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let digit = |at: usize| {
            let digit = after.get(at).copied().map(char::from)?.to_digit(16)?;
            u8::try_from(digit).ok()
        };
        match (byte, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                let value = high << 4 | low;
                if value.is_ascii_alphanumeric() || matches!(value, b'-' | b'_' | b'~') {
                    out.push(value);
                } else {
                    out.extend_from_slice(&[0, value]);
                }
                rest = after.get(2..).unwrap_or_default();
            }
            _ => out.push(byte),
        }
    }
    out
}

/// The target's path, then `Location`: what is invalidated is of the same origin, and a path.
pub fn location(data: &[u8]) {
    let mut parts = data.splitn(2, |&byte| byte == b'\n');
    let asked = Target {
        scheme: Bytes::from("https"),
        authority: Bytes::from("a.example"),
        path: [b"/", parts.next().unwrap_or_default()].concat().into(),
    };
    let head = ResponseHead {
        status: 201,
        fields: one_line("location", parts.next().unwrap_or_default()),
        ..ResponseHead::default()
    };
    let targets = invalidate::targets(&asked, &head);
    assert!((1..=2).contains(&targets.len()));
    for target in targets {
        assert_eq!(
            (&target.scheme, &target.authority),
            (&asked.scheme, &asked.authority)
        );
        assert!(target.path.starts_with(b"/"));
    }
}

/// The length of what is stored in one byte, then `Range`, then `If-Range`: parts lie within.
pub fn range_of(data: &[u8]) {
    let Some((&length, rest)) = data.split_first() else {
        return;
    };
    let mut parts = rest.splitn(2, |&byte| byte == b'\n');
    let mut request = one_line("range", parts.next().unwrap_or_default());
    if let Some(condition) = parts.next() {
        request.append("if-range", condition.to_vec());
    }
    let length = usize::from(length);
    let stored = Fields::of(&[
        ("etag", "\"a\""),
        ("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT"),
    ]);
    if let Selected::Parts(parts) = ranges::select(&request, &stored, length) {
        let total: usize = parts.iter().map(|(first, last)| last - first + 1).sum();
        assert!(
            parts
                .iter()
                .all(|&(first, last)| first <= last && last < length)
        );
        assert!(!parts.is_empty() && total <= length);
        let mut fields = stored.clone();
        let body = ranges::body(&parts, &Bytes::from(vec![b'x'; length]), &mut fields, "b");
        assert!(body.len() >= total);
    }
}

/// `CDN-Cache-Control`, a line each, beside a `Cache-Control` of a minute: one of the two counts, whole.
pub fn targeted(data: &[u8]) {
    let targets = ["cdn-cache-control".to_owned()];
    let mut fields = one_field("cdn-cache-control", data);
    fields.append("cache-control", "max-age=60");
    let chosen = targeted::directives(&fields, &targets);
    let directives = &chosen.directives;
    if chosen.targeted {
        for delta in [directives.max_age, directives.s_maxage] {
            // RFC 9213 §2.1: a value of another type spoils the field, so none is left that can't be read.
            assert!(delta.is_none_or(|delta| matches!(delta, Delta::Seconds(0..=LONGEST))));
        }
        assert!(!directives.malformed);
        assert!(!data.trim_ascii().is_empty());
    } else {
        assert_eq!(*directives, ResponseDirectives::of(&fields));
    }
    if let Some(joined) = fields.joined("cdn-cache-control") {
        let mut one = one_line("cdn-cache-control", &joined);
        one.append("cache-control", "max-age=60");
        assert_eq!(targeted::directives(&one, &targets), chosen, "as one line");
    }
}

fn one_line(name: &str, value: &[u8]) -> Fields {
    Fields::received([(
        Bytes::copy_from_slice(name.as_bytes()),
        value.to_vec().into(),
    )])
}

fn one_field(name: &str, data: &[u8]) -> Fields {
    let lines = data.split(|&byte| byte == b'\n');
    Fields::received(lines.map(|line| {
        (
            Bytes::copy_from_slice(name.as_bytes()),
            Bytes::copy_from_slice(line),
        )
    }))
}

fn lines(data: &[u8]) -> Fields {
    let lines = data.split(|&byte| byte == b'\n').filter_map(|line| {
        let at = line.iter().position(|&byte| byte == b':')?;
        let (name, value) = (line.get(..at)?, line.get(at + 1..)?);
        Some((
            Bytes::copy_from_slice(name),
            Bytes::copy_from_slice(value.trim_ascii()),
        ))
    });
    Fields::received(lines)
}
