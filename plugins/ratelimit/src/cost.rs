//! What a request costs.

use std::fmt;

use edgeweir_filter::Fields;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use crate::limit::OUT_OF_BOUNDS;
use crate::token;

/// Cells that a request costs.
#[derive(Clone, PartialEq, Eq, Debug, JsonSchema)]
#[schemars(untagged)]
pub enum Cost {
    /// The same for each: at least 1.
    Fixed(#[schemars(range(min = 1, max = 1_000_000_000))] u32),
    /// As a field says, a whole number.
    Said(Said),
}

/// A cost that a field says: one of the request or one of the response.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Said {
    /// A request field's name. Let something in front of the edge set it: who sets it chooses what requests cost.
    #[schemars(length(min = 1, max = 128))]
    pub request: Option<String>,
    /// A response field's name: what it says over `default` is taken after the fact.
    #[schemars(length(min = 1, max = 128))]
    pub response: Option<String>,
    /// The cost where the field is absent or no number: 1 by default. Of a response also what is taken before the request
    /// goes on, and the least it costs.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub default: u32,
    /// The most it may say; more counts as this.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub most: u32,
}

fn one() -> u32 {
    1
}

/// By hand, since what is derived does not say what of an object is wrong.
impl<'de> Deserialize<'de> for Cost {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CostVisitor)
    }
}

struct CostVisitor;

impl<'de> Visitor<'de> for CostVisitor {
    type Value = Cost;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a number of cells, or an object like {\"request\": \"x-cost\", \"most\": 10} or {\"response\": \"x-cost\", \"most\": 10}",
        )
    }
    fn visit_u64<E: Error>(self, cells: u64) -> Result<Cost, E> {
        let cells = u32::try_from(cells);
        cells.map(Cost::Fixed).map_err(|_| E::custom(OUT_OF_BOUNDS))
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Cost, A::Error> {
        Said::deserialize(MapAccessDeserializer::new(map)).map(Cost::Said)
    }
}

impl Cost {
    /// The same cost, its field's name in lower case; or why it can't be: the field and the reason. `at_once` is what the
    /// limits admit at once.
    pub fn checked(self, at_once: u32) -> Result<Self, (&'static str, String)> {
        let refuse = |message: String| Err(("cost", message));
        let (default, most) = match &self {
            Self::Fixed(cost) => (*cost, *cost),
            Self::Said(said) => (said.default, said.most),
        };
        if default == 0 {
            return refuse("0 is out of bounds: at least 1".to_owned());
        }
        if default > most {
            return refuse(format!(
                "the default {default} is more than the most, {most}"
            ));
        }
        if most > at_once {
            return refuse(format!(
                "{most} is more than the limits ever admit at once ({at_once})"
            ));
        }
        let Self::Said(mut said) = self else {
            return Ok(self);
        };
        let (field, name) = match (&mut said.request, &mut said.response) {
            (Some(name), None) => ("cost.request", name),
            (None, Some(name)) => ("cost.response", name),
            _ => {
                let message = "it is said by a request or a response field, one of them";
                return refuse(message.to_owned());
            }
        };
        // RFC 9110 §5.1: field-name = token
        token::check(name).map_err(|message| (field, message))?;
        name.make_ascii_lowercase();
        Ok(Self::Said(said))
    }

    /// Whether a response's field says it.
    pub fn is_of_response(&self) -> bool {
        matches!(self, Self::Said(said) if said.response.is_some())
    }

    /// Whether it reads a request's fields.
    pub fn is_of_request(&self) -> bool {
        matches!(self, Self::Said(said) if said.request.is_some())
    }

    /// What is taken before a request goes on.
    pub fn before(&self, fields: &Fields) -> u32 {
        match self {
            Self::Fixed(cost) => *cost,
            Self::Said(said) => match said.request.as_deref() {
                // At least one: a field must not be a way around the limits.
                Some(name) => {
                    number(fields, name).map_or(said.default, |cost| cost.clamp(1, said.most))
                }
                None => said.default,
            },
        }
    }

    /// What is taken on top once the response is there. Nothing is given back: others may have been refused for it.
    pub fn after(&self, fields: &Fields) -> u32 {
        let Self::Said(said) = self else {
            return 0;
        };
        let name = said.response.as_deref();
        let cost = name.and_then(|name| number(fields, name)).unwrap_or(0);
        cost.min(said.most).saturating_sub(said.default)
    }
}

/// A whole number in a field of one line; too large a one is the largest.
fn number(fields: &Fields, name: &str) -> Option<u32> {
    let mut values = fields.values(name);
    let text = values.next()?.trim_ascii();
    if values.next().is_some() || text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = std::str::from_utf8(text).ok()?.parse();
    Some(number.unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_read_within_their_bounds() {
        let cost = |json: &str| {
            let cost: Cost = serde_json::from_str(json).unwrap();
            cost.checked(100).unwrap()
        };
        let request = cost(r#"{"request":"X-Cost","default":2,"most":50}"#);
        let response = cost(r#"{"response":"X-Cost","most":50}"#);
        for (name, value, before, after) in [
            ("absent", None, 2, 0),
            ("a number", Some("7"), 7, 6),
            ("nothing", Some("0"), 1, 0),
            ("more than the most", Some("51"), 50, 49),
            ("far more", Some("99999999999999999999"), 50, 49),
            ("negative", Some("-1"), 2, 0),
            ("no number", Some("7.5"), 2, 0),
            ("spaces around", Some(" 7 "), 7, 6),
        ] {
            let lines: Vec<_> = value.iter().map(|value| ("x-cost", *value)).collect();
            let fields = Fields::of(&lines);
            assert_eq!(request.before(&fields), before, "{name}");
            assert_eq!(
                (response.before(&fields), response.after(&fields)),
                (1, after),
                "{name}"
            );
        }
        assert_eq!(cost("3").before(&Fields::default()), 3);
    }

    #[test]
    fn costs_that_can_never_be_paid_are_refused() {
        for (json, want) in [
            ("0", "at least 1"),
            (
                "101",
                "101 is more than the limits ever admit at once (100)",
            ),
            (r#"{"request":"x","most":101}"#, "101 is more than"),
            (
                r#"{"request":"x","default":9,"most":5}"#,
                "the default 9 is more than the most, 5",
            ),
            (r#"{"response":"","most":5}"#, "\"\" must be a token"),
            (r#"{"request":"x y","most":5}"#, "\"x y\" must be a token"),
            (
                r#"{"most":5}"#,
                "a request or a response field, one of them",
            ),
            (r#"{"request":"x","response":"x","most":5}"#, "one of them"),
        ] {
            let cost: Cost = serde_json::from_str(json).unwrap();
            let (_, error) = cost.checked(100).unwrap_err();
            assert!(error.contains(want), "{json}: {error}");
        }
        assert!(serde_json::from_str::<Cost>(r#"{"respons":"x","most":5}"#).is_err());
    }
}
