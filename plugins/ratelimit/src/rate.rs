//! Rates as people write them: `"100/minute"`, `"20/second"`, `"5/10s"`.

use std::borrow::Cow;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

/// So many cells per period.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// 1 to 1,000,000,000.
    pub count: u32,
    /// Nanoseconds; one second to 31 days.
    pub per: u64,
}

const SECOND: u64 = 1_000_000_000;
const MOST_SECONDS: u64 = 31 * 86_400;
const MOST_COUNT: u32 = 1_000_000_000;

impl Rate {
    /// The period in whole seconds.
    pub fn seconds(self) -> u64 {
        self.per / SECOND
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || {
            format!(
                "{text:?} is no rate: write a count, a slash and a period, like \"100/minute\" or \"5/10s\""
            )
        };
        let (count, period) = text.split_once('/').ok_or_else(expected)?;
        let count: u32 = count.trim().parse().map_err(|_| expected())?;
        if !(1..=MOST_COUNT).contains(&count) {
            return Err(format!(
                "the count of {text:?} is {count}: it must be 1 to {MOST_COUNT}"
            ));
        }
        let period = period.trim();
        let digits = period.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = period.split_at(digits);
        let number: u64 = if number.is_empty() {
            1
        } else {
            number.parse().map_err(|_| expected())?
        };
        let unit = match unit.trim() {
            "s" | "sec" | "second" | "seconds" => 1,
            "m" | "min" | "minute" | "minutes" => 60,
            "h" | "hour" | "hours" => 3_600,
            "d" | "day" | "days" => 86_400,
            other => {
                return Err(format!(
                    "{other:?} in {text:?} is no unit of time: use second, minute, hour or day"
                ));
            }
        };
        let seconds = number.saturating_mul(unit);
        if !(1..=MOST_SECONDS).contains(&seconds) {
            return Err(format!(
                "the period of {text:?} is {seconds} s: it must be 1 s to 31 days"
            ));
        }
        Ok(Self {
            count,
            per: seconds.saturating_mul(SECOND),
        })
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Rate {
    fn schema_name() -> Cow<'static, str> {
        "Rate".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A count, a slash and a period: \"100/minute\", \"20/second\", \"5/10s\".",
            "pattern": "^\\s*[0-9]+\\s*/\\s*[0-9]*\\s*(s|sec|seconds?|m|min|minutes?|h|hours?|d|days?)\\s*$",
            "examples": ["100/minute", "20/second"]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_read_as_written() {
        for (text, want) in [
            ("100/minute", Ok((100, 60))),
            ("20/second", Ok((20, 1))),
            ("5/10s", Ok((5, 10))),
            (" 7 / 2 hours ", Ok((7, 7_200))),
            ("0/second", Err("1 to 1000000000")),
            ("100", Err("like \"100/minute\"")),
            ("100/fortnight", Err("use second, minute, hour or day")),
            ("1/32days", Err("31 days")),
            ("-1/second", Err("is no rate")),
        ] {
            match (text.parse::<Rate>(), want) {
                (Ok(rate), Ok(want)) => assert_eq!((rate.count, rate.seconds()), want, "{text}"),
                (Err(error), Err(want)) => assert!(error.contains(want), "{text}: {error}"),
                (got, want) => panic!("{text}: {got:?}, want {want:?}"),
            }
        }
    }
}
