//! Durations (`"1.5s"`, `"250ms"`, `"2m"`, `"1h"`, `"1d"`) and moments (RFC 3339).

use std::time::Duration;

use toml::de::DeValue;
use toml::value::{Datetime, Offset};

use crate::source::{Node, Problem};

/// The moment cases begin at that say none: 2026-01-01T00:00:00Z, in seconds since 1970.
pub const START: u64 = 1_767_225_600;
/// The longest time a case may move its clock by: ten years.
const LONGEST: u64 = 10 * 366 * 86_400;

/// Reads a duration.
pub(crate) fn duration(node: &Node<'_>) -> Result<Duration, Problem> {
    let text = node.text()?;
    match parse_duration(text) {
        Some(time) if time.as_secs() <= LONGEST => Ok(time),
        _ => node.fail(format!(
            "{text:?} is no duration from 0s to {LONGEST}s, such as \"250ms\", \"1.5s\", \"2m\", \"1h\", \"1d\""
        )),
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    let at = text.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
    let (number, unit) = text.split_at(at);
    let unit = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * unit).ok()
}

/// Reads a moment, as seconds since 1970.
pub(crate) fn moment(node: &Node<'_>) -> Result<u64, Problem> {
    let time = match node.value.get_ref() {
        DeValue::Datetime(time) => Some(*time),
        DeValue::String(text) => text.parse::<Datetime>().ok(),
        _ => None,
    };
    match time.and_then(seconds) {
        Some(seconds) => Ok(seconds),
        None => node.fail("want a moment such as \"2026-01-01T00:00:00Z\", from 1970 on"),
    }
}

fn seconds(time: Datetime) -> Option<u64> {
    let (date, clock) = (time.date?, time.time?);
    let offset = match time.offset? {
        Offset::Z => 0,
        Offset::Custom { minutes } => i64::from(minutes) * 60,
    };
    // Days since 1970 of the proleptic Gregorian calendar, counted in years that begin in March.
    let (year, month) = (i64::from(date.year), i64::from(date.month));
    let year = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + i64::from(date.day) - 1;
    let days =
        year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + of_year
            - 719_468;
    let (hour, minute) = (i64::from(clock.hour), i64::from(clock.minute));
    let second = i64::from(clock.second.unwrap_or(0));
    u64::try_from(days * 86_400 + hour * 3_600 + minute * 60 + second - offset).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, want) in [
            ("250ms", Some(Duration::from_millis(250))),
            ("1.5s", Some(Duration::from_millis(1_500))),
            ("2m", Some(Duration::from_secs(120))),
            ("1d", Some(Duration::from_secs(86_400))),
            ("0s", Some(Duration::ZERO)),
            ("5", None),
            ("s", None),
            ("-1s", None),
            ("1 s", None),
        ] {
            assert_eq!(parse_duration(text), want, "{text}");
        }
    }

    #[test]
    fn moments_are_seconds_since_1970() {
        for (text, want) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-03-01T00:00:00Z", Some(951_868_800)),
            ("2024-02-29T12:30:00+02:00", Some(1_709_202_600)),
            ("2026-01-01T00:00:00Z", Some(START)),
            ("1969-12-31T23:59:59Z", None),
            ("2026-01-01", None),
        ] {
            let time = text.parse::<Datetime>().unwrap();
            assert_eq!(seconds(time), want, "{text}");
        }
    }
}
