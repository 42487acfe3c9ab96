//! Parts of a complete stored response (RFC 9110 §14, §13.1.5).

use bytes::Bytes;
use edgeweir_filter::Fields;

use crate::freshness::parse_date;

/// Ranges answered in one response; a request for more is answered with all of it, as RFC 9110 §14.2 lets a server do
/// with "many small ranges".
const MOST: usize = 8;

/// What a request's `Range` makes of a stored 200.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Selected {
    /// All of it: no range, none that is understood, or a condition that fails.
    Whole,
    /// These parts, first and last byte each, in the order asked for; never empty.
    Parts(Vec<(usize, usize)>),
    /// None of the ranges has a byte in it: 416.
    Unsatisfiable,
}

/// Which part of a stored body of `length` bytes a request asks for.
pub fn select(request: &Fields, stored: &Fields, length: usize) -> Selected {
    let mut lines = request.values("range");
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return Selected::Whole;
    };
    if request.has("if-range") && !still_the_same(request, stored) {
        return Selected::Whole;
    }
    // RFC 9110 §14.2: "A server MUST ignore" a Range with a unit or a specifier it does not understand.
    let Some(asked) = parse(line) else {
        return Selected::Whole;
    };
    let parts: Vec<(usize, usize)> = asked
        .iter()
        .filter_map(|range| range.within(length))
        .collect();
    if parts.is_empty() {
        return Selected::Unsatisfiable;
    }
    let total = parts.iter().fold(0usize, |all, (first, last)| {
        all.saturating_add(last - first + 1)
    });
    // RFC 9110 §14.2: overlapping ranges may be "a sign of … a deliberate denial-of-service attack".
    if total > length {
        return Selected::Whole;
    }
    Selected::Parts(parts)
}

/// One part, or several as `multipart/byteranges`: the fields are made to fit. `boundary` must be hard to guess.
pub fn body(parts: &[(usize, usize)], whole: &Bytes, fields: &mut Fields, boundary: &str) -> Bytes {
    let part = |&(first, last): &(usize, usize)| whole.get(first..=last).unwrap_or_default();
    let length = whole.len();
    if let [one] = parts {
        fields.set(
            "content-range",
            format!("bytes {}-{}/{length}", one.0, one.1),
        );
        return whole.slice_ref(part(one));
    }
    // RFC 9110 §15.3.7.2: Content-Type and Content-Range in each part, no Content-Range in the header section.
    let kind = fields.joined("content-type");
    let mut out = Vec::new();
    for range in parts {
        out.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
        if let Some(kind) = &kind {
            out.extend_from_slice(&[b"Content-Type: ", &kind[..], b"\r\n"].concat());
        }
        let (first, last) = range;
        out.extend_from_slice(
            format!("Content-Range: bytes {first}-{last}/{length}\r\n\r\n").as_bytes(),
        );
        out.extend_from_slice(part(range));
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    fields.remove("content-range");
    fields.set(
        "content-type",
        format!("multipart/byteranges; boundary={boundary}"),
    );
    out.into()
}

/// RFC 9110 §13.1.5: a tag is compared strongly; a date must be exactly the stored Last-Modified, and that a strong
/// validator (§8.8.2.2: at least a second before Date).
fn still_the_same(request: &Fields, stored: &Fields) -> bool {
    let mut lines = request.values("if-range");
    let (Some(condition), None) = (lines.next(), lines.next()) else {
        return false;
    };
    if condition.ends_with(b"\"") {
        return !condition.starts_with(b"W/") && stored.get("etag") == Some(condition);
    }
    let modified = stored.get("last-modified").and_then(parse_date);
    let date = stored.get("date").and_then(parse_date);
    match (modified, date, parse_date(condition)) {
        (Some(modified), Some(date), Some(asked)) => modified == asked && modified < date,
        _ => false,
    }
}

#[derive(Clone, Copy)]
enum Range {
    From(usize, Option<usize>),
    Last(usize),
}

impl Range {
    /// RFC 9110 §14.1.2: a last position past the end means the end; a suffix longer than the whole means the whole.
    fn within(self, length: usize) -> Option<(usize, usize)> {
        let end = length.checked_sub(1)?;
        match self {
            Self::From(first, last) => {
                (first <= end).then_some((first, last.unwrap_or(end).min(end)))
            }
            Self::Last(0) => None,
            Self::Last(count) => Some((length.saturating_sub(count), end)),
        }
    }
}

/// `bytes=0-4, 7-, -3`; `None` when it is anything else or has more than [`MOST`] ranges.
fn parse(line: &[u8]) -> Option<Vec<Range>> {
    let text = std::str::from_utf8(line).ok()?;
    let (unit, ranges) = text.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let mut found = Vec::new();
    for range in ranges
        .split(',')
        .map(str::trim)
        .filter(|range| !range.is_empty())
    {
        let (first, last) = range.split_once('-')?;
        found.push(match (first, last) {
            ("", last) => Range::Last(position(last)?),
            (first, "") => Range::From(position(first)?, None),
            (first, last) => {
                let (first, last) = (position(first)?, position(last)?);
                // RFC 9110 §14.1.1: invalid "if the last-pos value is present and less than its first-pos".
                if last < first {
                    return None;
                }
                Range::From(first, Some(last))
            }
        });
        if found.len() > MOST {
            return None;
        }
    }
    (!found.is_empty()).then_some(found)
}

/// Digits only; a number too large to hold is past any end.
fn position(digits: &str) -> Option<usize> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_are_selected() {
        use Selected::{Parts, Unsatisfiable, Whole};
        for (name, range, want) in [
            ("first", "bytes=0-3", Parts(vec![(0, 3)])),
            ("to the end", "bytes=3-", Parts(vec![(3, 9)])),
            ("past the end", "bytes=3-99", Parts(vec![(3, 9)])),
            ("suffix", "bytes=-3", Parts(vec![(7, 9)])),
            ("suffix of more", "bytes=-99", Parts(vec![(0, 9)])),
            (
                "huge",
                "bytes=0-99999999999999999999999",
                Parts(vec![(0, 9)]),
            ),
            ("several", "bytes=0-1, 8-9", Parts(vec![(0, 1), (8, 9)])),
            ("one of two", "bytes=0-1, 20-", Parts(vec![(0, 1)])),
            ("spaces and empty", "Bytes = , 0-1 ,", Parts(vec![(0, 1)])),
            ("none", "bytes=10-", Unsatisfiable),
            ("no bytes", "bytes=-0", Unsatisfiable),
            ("backwards", "bytes=5-2", Whole),
            ("unit", "lines=0-3", Whole),
            ("signed", "bytes=+1-3", Whole),
            ("half", "bytes=-", Whole),
            ("nothing", "bytes=", Whole),
            ("overlapping", "bytes=0-, 0-", Whole),
            ("many", "bytes=0-0,1-1,2-2,3-3,4-4,5-5,6-6,7-7,8-8", Whole),
        ] {
            let request = Fields::of(&[("range", range)]);
            assert_eq!(select(&request, &Fields::default(), 10), want, "{name}");
        }
        let twice = Fields::of(&[("range", "bytes=0-1"), ("range", "bytes=2-3")]);
        assert_eq!(select(&twice, &Fields::default(), 10), Whole);
        assert_eq!(
            select(
                &Fields::of(&[("range", "bytes=0-1")]),
                &Fields::default(),
                0
            ),
            Unsatisfiable
        );
    }

    #[test]
    fn if_range_needs_a_strong_match() {
        let stored = Fields::of(&[
            ("etag", "\"a\""),
            ("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT"),
            ("date", "Thu, 01 Jan 2026 00:00:01 GMT"),
        ]);
        let weak = Fields::of(&[
            ("etag", "W/\"a\""),
            ("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT"),
            ("date", "Thu, 01 Jan 2026 00:00:00 GMT"),
        ]);
        for (name, stored, condition, part) in [
            ("the tag", &stored, "\"a\"", true),
            ("another tag", &stored, "\"b\"", false),
            ("weak", &weak, "W/\"a\"", false),
            ("the date", &stored, "Thu, 01 Jan 2026 00:00:00 GMT", true),
            (
                "a later date",
                &stored,
                "Thu, 01 Jan 2026 00:00:01 GMT",
                false,
            ),
            ("a weak date", &weak, "Thu, 01 Jan 2026 00:00:00 GMT", false),
            ("garbage", &stored, "a", false),
        ] {
            let request = Fields::of(&[("range", "bytes=0-1"), ("if-range", condition)]);
            let selected = select(&request, stored, 10);
            assert_eq!(selected != Selected::Whole, part, "{name}");
        }
    }

    proptest! {
        #[test]
        fn parts_lie_within(range in "bytes=[-0-9, ]{0,24}", length in 0..40usize) {
            let request = Fields::of(&[("range", &range)]);
            if let Selected::Parts(parts) = select(&request, &Fields::default(), length) {
                prop_assert!(!parts.is_empty() && parts.len() <= MOST);
                for (first, last) in parts {
                    prop_assert!(first <= last && last < length);
                }
            }
        }
    }
}
