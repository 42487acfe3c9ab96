//! Freshness lifetime (RFC 9111 §4.2.1, §4.2.2) and age (§4.2.3).

use std::time::{Duration, UNIX_EPOCH};

use edgeweir_filter::{Fields, Timestamp};

use crate::directives::{Delta, LONGEST, ResponseDirectives};

/// When the request went out and when the response's head came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Times {
    /// `request_time` of RFC 9111 §4.2.3.
    pub requested: Timestamp,
    /// `response_time` of RFC 9111 §4.2.3.
    pub responded: Timestamp,
}

/// How freshness is guessed when the origin says nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heuristic {
    /// Percentage of the time since `Last-Modified`; 0 guesses nothing.
    pub percent: u8,
    /// The longest guess, in seconds.
    pub longest: u32,
}

/// A freshness lifetime, and whether the origin gave it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lifetime {
    /// Seconds, at most [`LONGEST`].
    pub seconds: u32,
    /// Not guessed.
    pub explicit: bool,
}

/// The lifetime of a response; `None` when nothing says it.
pub fn lifetime(
    fields: &Fields,
    directives: &ResponseDirectives,
    responded: Timestamp,
    heuristic: Option<Heuristic>,
) -> Option<Lifetime> {
    let explicit = |seconds| {
        Some(Lifetime {
            seconds,
            explicit: true,
        })
    };
    // RFC 9111 §4.2.1: s-maxage, then max-age, then Expires minus Date, then a guess; the first that is there.
    if let Some(delta) = directives.s_maxage.or(directives.max_age) {
        return explicit(delta.or_stale());
    }
    let date = date_value(fields, responded);
    if fields.has("expires") {
        // RFC 9111 §5.3: "A cache recipient MUST interpret invalid date formats, especially the value "0", as
        // representing a time in the past". Several different lines are invalid too.
        let mut lines = fields.values("expires");
        let first = lines.next().and_then(parse_date);
        let expires = first.filter(|first| lines.all(|line| parse_date(line) == Some(*first)));
        return explicit(seconds(expires.map_or(0, |at| at.saturating_sub(date))));
    }
    let heuristic = heuristic.filter(|heuristic| heuristic.percent > 0)?;
    let modified = fields.get("last-modified").and_then(parse_date)?;
    // RFC 9111 §4.2.2: "a typical setting of this fraction might be 10%" of the interval since Last-Modified.
    let guess = date.saturating_sub(modified) / 100 * u64::from(heuristic.percent);
    Some(Lifetime {
        seconds: seconds(guess).min(heuristic.longest),
        explicit: false,
    })
}

/// `corrected_initial_age` in seconds, at most [`LONGEST`].
pub fn initial_age(fields: &Fields, times: Times) -> u32 {
    // RFC 9111 §5.1: of a list "SHOULD use the first member"; an invalid value "SHOULD [be] ignore[d]".
    let age_value = match fields.list("age").next().map(Delta::parse) {
        Some(Delta::Seconds(seconds)) => seconds,
        Some(Delta::Invalid) | None => 0,
    };
    // RFC 9111 §4.2.3: apparent_age = max(0, response_time - date_value)
    let responded = times.responded.as_secs();
    let apparent_age = responded.saturating_sub(date_value(fields, times.responded));
    // corrected_age_value = age_value + response_delay
    let response_delay = times.responded.since(times.requested).as_secs();
    let corrected_age = u64::from(age_value).saturating_add(response_delay);
    // corrected_initial_age = max(apparent_age, corrected_age_value)
    seconds(apparent_age.max(corrected_age))
}

/// `current_age` in seconds: the initial age and the time spent here since.
pub fn current_age(initial_age: u32, responded: Timestamp, now: Timestamp) -> u32 {
    // RFC 9111 §4.2.3: resident_time = now - response_time; current_age = corrected_initial_age + resident_time
    seconds(u64::from(initial_age).saturating_add(now.since(responded).as_secs()))
}

/// A date in one of the three forms of RFC 9110 §5.6.7, in seconds since the epoch; anything else is no date.
pub fn parse_date(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let date = httpdate::parse_http_date(text).ok()?;
    let since = date.duration_since(UNIX_EPOCH).ok()?;
    // The parser takes some separators for others: what it read must be written like one of the three forms.
    is_form(text, &httpdate::fmt_http_date(date)).then_some(since.as_secs())
}

/// Whether a text is one of the three forms of the date that `fixed` (IMF-fixdate) says. The name of the day is not
/// looked at: it says nothing that the date does not, and some servers get it wrong.
fn is_form(text: &str, fixed: &str) -> bool {
    let (Some(rest), Some(day), Some(month), Some(year), Some(time)) = (
        fixed.get(3..),
        fixed.get(5..7),
        fixed.get(8..11),
        fixed.get(12..16),
        fixed.get(17..25),
    ) else {
        return false;
    };
    let two = year.get(2..).unwrap_or_default();
    let narrow = day.strip_prefix('0').unwrap_or(day);
    let after_name = text.trim_start_matches(|letter: char| letter.is_ascii_alphabetic());
    after_name == rest
        || after_name == format!(", {day}-{month}-{two} {time} GMT")
        || text.get(3..) == Some(&format!(" {month} {narrow:>2} {time} {year}"))
}

/// The preferred form of a date (IMF-fixdate).
pub fn format_date(at: Timestamp) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(at.as_secs()))
}

/// `date_value`: the `Date` field, or the time of receipt where there is none that can be read.
fn date_value(fields: &Fields, responded: Timestamp) -> u64 {
    fields
        .get("date")
        .and_then(parse_date)
        .unwrap_or(responded.as_secs())
}

fn seconds(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(LONGEST).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: u64 = 1_767_225_600; // Thu, 01 Jan 2026 00:00:00 GMT

    fn lives(lines: &[(&str, &str)]) -> Option<u32> {
        let fields = Fields::of(lines);
        let heuristic = Some(Heuristic {
            percent: 10,
            longest: 86_400,
        });
        let directives = ResponseDirectives::of(&fields);
        lifetime(&fields, &directives, Timestamp::from_secs(NOW), heuristic).map(|l| l.seconds)
    }

    #[test]
    fn the_first_source_wins() {
        let date = ("date", "Thu, 01 Jan 2026 00:00:00 GMT");
        let later = ("expires", "Thu, 01 Jan 2026 00:01:00 GMT");
        for (name, lines, want) in [
            (
                "s-maxage",
                vec![("cache-control", "max-age=5, s-maxage=7"), later],
                Some(7),
            ),
            (
                "max-age",
                vec![("cache-control", "max-age=5"), later],
                Some(5),
            ),
            (
                "invalid s-maxage",
                vec![("cache-control", "max-age=5, s-maxage=x")],
                Some(0),
            ),
            (
                "invalid max-age hides expires",
                vec![("cache-control", "max-age=x"), later],
                Some(0),
            ),
            ("expires", vec![date, later], Some(60)),
            ("expires without date", vec![later], Some(60)),
            (
                "expires before date",
                vec![later, ("date", "Thu, 01 Jan 2026 00:02:00 GMT")],
                Some(0),
            ),
            ("expires 0", vec![("expires", "0")], Some(0)),
            (
                "expires of another zone",
                vec![("expires", "Thu, 01 Jan 2026 00:01:00 CET")],
                Some(0),
            ),
            (
                "expires with a one-digit hour",
                vec![("expires", "Thu, 01 Jan 2026 0:01:00 GMT")],
                Some(0),
            ),
            (
                "expires in rfc 850",
                vec![("expires", "Thursday, 01-Jan-26 00:01:00 GMT")],
                Some(60),
            ),
            (
                "expires in asctime",
                vec![("expires", "Thu Jan  1 00:01:00 2026")],
                Some(60),
            ),
            (
                "two expires",
                vec![later, ("expires", "Thu, 01 Jan 2026 00:02:00 GMT")],
                Some(0),
            ),
            (
                "last-modified",
                vec![("last-modified", "Wed, 31 Dec 2025 23:50:00 GMT")],
                Some(60),
            ),
            (
                "long ago",
                vec![("last-modified", "Thu, 01 Jan 1998 00:00:00 GMT")],
                Some(86_400),
            ),
            (
                "in the future",
                vec![("last-modified", "Thu, 01 Jan 2032 00:00:00 GMT")],
                Some(0),
            ),
            ("nothing", vec![date], None),
        ] {
            assert_eq!(lives(&lines), want, "{name}");
        }
    }

    #[test]
    fn ages() {
        let at = |asked: u64, came: u64, lines: &[(&str, &str)]| {
            let times = Times {
                requested: Timestamp::from_secs(asked),
                responded: Timestamp::from_secs(came),
            };
            initial_age(&Fields::of(lines), times)
        };
        for (name, delay, lines, want) in [
            ("none", 0, vec![], 0),
            ("delay counts", 3, vec![], 3),
            ("age and delay", 3, vec![("age", "10")], 13),
            (
                "apparent age",
                0,
                vec![("date", "Wed, 31 Dec 2025 23:59:00 GMT")],
                60,
            ),
            (
                "the larger",
                3,
                vec![("age", "100"), ("date", "Wed, 31 Dec 2025 23:59:00 GMT")],
                103,
            ),
            (
                "a date in the future",
                0,
                vec![("date", "Thu, 01 Jan 2026 01:00:00 GMT")],
                0,
            ),
            ("a list", 0, vec![("age", "7, 100")], 7),
            ("two lines", 0, vec![("age", "7"), ("age", "100")], 7),
            ("negative", 0, vec![("age", "-7")], 0),
            ("fraction", 0, vec![("age", "7.0")], 0),
            ("overflow", 0, vec![("age", "99999999999")], LONGEST),
        ] {
            assert_eq!(at(NOW - delay, NOW, &lines), want, "{name}");
        }
    }

    proptest! {
        #[test]
        fn age_never_wraps(initial: u32, responded: u64, now: u64, delay: u64, age in "[0-9]{1,30}") {
            let initial = initial.min(LONGEST);
            let current = current_age(initial, Timestamp(responded), Timestamp(now));
            prop_assert!(current >= initial && current <= LONGEST);
            let times = Times { requested: Timestamp(responded.saturating_sub(delay)), responded: Timestamp(responded) };
            prop_assert!(initial_age(&Fields::of(&[("age", &age)]), times) <= LONGEST);
        }

        #[test]
        fn dates_never_panic(text: Vec<u8>) {
            parse_date(&text);
        }
    }
}
