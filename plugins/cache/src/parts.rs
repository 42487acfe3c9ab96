//! Parts of representations: stored 206 responses, what they answer and how they are put together (RFC 9111 §3.3, §3.4).

use bytes::Bytes;
use edgeweir_filter::Fields;

use crate::ranges::{self, Selected};
use crate::stored::{Part, Stored};

/// First byte, last byte and length of the whole in a `Content-Range` of bytes whose length is known.
pub fn content_range(value: &[u8]) -> Option<(u64, u64, u64)> {
    let text = std::str::from_utf8(value).ok()?.trim();
    let (unit, range) = text.split_once(' ')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (span, whole) = range.trim().split_once('/')?;
    let (first, last) = span.split_once('-')?;
    let number = |digits: &str| {
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| digits.parse::<u64>().ok())?
    };
    let (first, last, whole) = (number(first)?, number(last)?, number(whole)?);
    // RFC 9110 §14.4: invalid when "last-pos value less than its first-pos value, or … complete-length value less than
    // or equal to its last-pos value".
    (first <= last && last < whole).then_some((first, last, whole))
}

/// What a stored part answers to a request: the positions within its body, or that the range is outside of the whole;
/// `None` when it can't answer. RFC 9111 §3.3: only a request that "specifies a range wholly within" it.
pub fn answers(request: &Fields, stored: &Stored, part: Part) -> Option<Within> {
    let whole = usize::try_from(part.whole).ok()?;
    let first = usize::try_from(part.first).ok()?;
    match ranges::select(request, &stored.fields, whole) {
        Selected::Whole => None,
        Selected::Unsatisfiable => Some(Within::Outside(part.whole)),
        Selected::Parts(asked) => match asked.as_slice() {
            &[(from, to)] => {
                let (start, end) = (from.checked_sub(first)?, to.checked_sub(first)?);
                (end < stored.body.len()).then_some(Within::Bytes {
                    start,
                    end,
                    range: (part.first + start as u64, part.first + end as u64),
                    whole: part.whole,
                })
            }
            _ => None,
        },
    }
}

/// What a stored part says to a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Within {
    /// These bytes of its body, first and last, which are those of the whole.
    Bytes {
        /// First, in the body.
        start: usize,
        /// Last, in the body.
        end: usize,
        /// First and last of the whole.
        range: (u64, u64),
        /// Length of the whole.
        whole: u64,
    },
    /// The whole has no such bytes; its length.
    Outside(u64),
}

/// Two parts as one, with the newer one's fields; `None` when they can't be. RFC 9111 §3.4: they must "share the same
/// strong validator"; they have to touch, and together be at most `limit` bytes. All of it makes a 200.
pub fn combined(old: &Stored, new: &Stored, limit: usize) -> Option<Stored> {
    let (before, after) = (old.part?, new.part?);
    if old.strong_tag().is_none() || old.strong_tag() != new.strong_tag() {
        return None;
    }
    if before.whole != after.whole || old.generation != new.generation {
        return None;
    }
    let end = |stored: &Stored, part: Part| part.first.saturating_add(stored.body.len() as u64);
    let (old_end, new_end) = (end(old, before), end(new, after));
    if before.first > new_end || after.first > old_end {
        return None;
    }
    let first = before.first.min(after.first);
    let length = usize::try_from(old_end.max(new_end) - first).ok()?;
    if length > limit {
        return None;
    }
    let mut body = vec![0; length];
    // The newer bytes last: where both have some, they are the same by the validator.
    for (stored, part) in [(old, before), (new, after)] {
        let at = usize::try_from(part.first - first).ok()?;
        body.get_mut(at..at + stored.body.len())?
            .copy_from_slice(&stored.body);
    }
    let is_whole = first == 0 && length as u64 == after.whole;
    let mut whole = new.clone();
    whole.body = Bytes::from(body);
    whole.part = (!is_whole).then_some(Part {
        first,
        whole: after.whole,
    });
    whole.status = if is_whole { 200 } else { 206 };
    // Made anew with every reply.
    whole.fields.remove("content-range");
    Some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stored::Conditions;
    use edgeweir_filter::Timestamp;

    fn stored(first: u64, body: &str, tag: &str) -> Stored {
        Stored {
            generation: 1,
            status: 206,
            fields: Fields::of(&[("etag", tag)]),
            responded: Timestamp::from_secs(0),
            requested: Timestamp::from_secs(0),
            initial_age: 0,
            lifetime: 60,
            conditions: Conditions::default(),
            part: Some(Part { first, whole: 10 }),
            groups: Vec::new(),
            secondary: Bytes::new(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    #[test]
    fn content_ranges_are_read() {
        for (value, want) in [
            ("bytes 0-4/10", Some((0, 4, 10))),
            ("Bytes 9-9/10", Some((9, 9, 10))),
            ("bytes 0-10/10", None),
            ("bytes 4-0/10", None),
            ("bytes 0-4/*", None),
            ("bytes */10", None),
            ("lines 0-4/10", None),
            ("bytes 0-4", None),
            ("bytes +0-4/10", None),
            ("", None),
        ] {
            assert_eq!(content_range(value.as_bytes()), want, "{value}");
        }
    }

    #[test]
    fn a_part_answers_what_lies_within() {
        let part = stored(2, "cdefg", "\"a\"");
        for (range, want) in [
            ("bytes=2-3", Some((0, 1))),
            ("bytes=4-6", Some((2, 4))),
            ("bytes=1-3", None),
            ("bytes=4-7", None),
            ("bytes=4-", None),
            ("bytes=-2", None),
            ("bytes=2-3,5-6", None),
        ] {
            let request = Fields::of(&[("range", range)]);
            let got = answers(&request, &part, part.part.expect("a part"));
            let got = got.map(|within| match within {
                Within::Bytes { start, end, .. } => (start, end),
                Within::Outside(_) => (usize::MAX, 0),
            });
            assert_eq!(got, want, "{range}");
        }
        let past = Fields::of(&[("range", "bytes=10-")]);
        assert_eq!(
            answers(&past, &part, part.part.expect("a part")),
            Some(Within::Outside(10))
        );
        assert_eq!(
            answers(&Fields::default(), &part, part.part.expect("a part")),
            None
        );
    }

    #[test]
    fn parts_with_one_strong_validator_combine() {
        let tag = "\"a\"";
        for (name, old, new, limit, want) in [
            (
                "side by side",
                stored(0, "abc", tag),
                stored(3, "de", tag),
                99,
                Some((206, "abcde")),
            ),
            (
                "overlapping, the other way round",
                stored(3, "def", tag),
                stored(1, "bcde", tag),
                99,
                Some((206, "bcdef")),
            ),
            (
                "all of it",
                stored(0, "abcde", tag),
                stored(5, "fghij", tag),
                99,
                Some((200, "abcdefghij")),
            ),
            (
                "a gap",
                stored(0, "abc", tag),
                stored(4, "e", tag),
                99,
                None,
            ),
            (
                "another tag",
                stored(0, "abc", tag),
                stored(3, "de", "\"b\""),
                99,
                None,
            ),
            (
                "weak tags",
                stored(0, "abc", "W/\"a\""),
                stored(3, "de", "W/\"a\""),
                99,
                None,
            ),
            (
                "too long",
                stored(0, "abc", tag),
                stored(3, "de", tag),
                4,
                None,
            ),
        ] {
            let got = combined(&old, &new, limit)
                .map(|one| (one.status, String::from_utf8_lossy(&one.body).into_owned()));
            assert_eq!(
                got,
                want.map(|(status, body)| (status, body.to_owned())),
                "{name}"
            );
        }
    }
}
