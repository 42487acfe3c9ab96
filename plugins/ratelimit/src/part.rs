//! What of a request tells clients apart, or chooses a rule or a tier, as an operator writes it.

use std::fmt;

use edgeweir_filter::comparable;
use schemars::JsonSchema;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

use crate::path::{Pattern, never_of_a_path};
use crate::token;

/// The field that an edge shows as the authority.
pub const HOST: &str = "host";

/// A part of a request.
#[derive(Clone, PartialEq, Eq, Debug, JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub enum Part {
    /// The client's address; of an IPv6 one the first `ipv6_prefix` bits.
    Client,
    /// The first of the configured `groups` that has the client's address: all of it is one.
    Group,
    /// The path without its query.
    Path,
    /// Which of the rule's `paths` matched: all of `/users/{id}` is one.
    Template,
    /// A named segment of the path that matched: `id` of `/users/{id}`.
    Segment(#[schemars(length(min = 1, max = 64))] String),
    /// The method.
    Method,
    /// `X-Api-Key`, or else the credentials of `Authorization`.
    ApiKey,
    /// The value of a request field, by name.
    Header(#[schemars(length(min = 1, max = 128))] String),
    /// The value of a cookie, by name.
    Cookie(#[schemars(length(min = 1, max = 128))] String),
    /// The value of a query parameter, by name.
    Query(#[schemars(length(min = 1, max = 128))] String),
    /// A top-level claim of the JSON Web Token in `Authorization: Bearer`. Its signature is NOT verified here.
    Claim(#[schemars(length(min = 1, max = 128))] String),
}

impl Part {
    /// Whether it needs the client's address.
    pub fn is_of_address(&self) -> bool {
        matches!(self, Self::Client | Self::Group)
    }

    /// Lower case where names are compared without case.
    pub fn normalized(self) -> Self {
        match self {
            Self::Header(name) => Self::Header(name.to_ascii_lowercase()),
            other => other,
        }
    }

    /// Why it can't be.
    pub fn check(&self, paths: &[Pattern], has_groups: bool) -> Result<(), String> {
        match self {
            // RFC 9110 §5.1: field-name = token; RFC 6265 §4.1.1: cookie-name = token
            Self::Header(name) | Self::Cookie(name) => token::check(name),
            Self::Query(name) | Self::Claim(name) if name.is_empty() || name.len() > 128 => {
                Err(format!("{name:?} must be 1 to 128 bytes"))
            }
            Self::Segment(name)
                if paths.is_empty() || !paths.iter().all(|path| path.names(name)) =>
            {
                Err(format!(
                    "no segment {name:?} in each of the rule's paths: write one like \"/users/{{{name}}}\""
                ))
            }
            Self::Template if paths.is_empty() => {
                Err("a template needs paths: write some like \"/users/{id}\"".to_owned())
            }
            Self::Group if !has_groups => {
                Err("a group needs `groups`: name some blocks of addresses there".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// A value that it is compared with, as requests have it; or why no request can.
    pub fn value_of(&self, text: &str, groups: &[String]) -> Result<String, String> {
        match self {
            Self::Group if !groups.iter().any(|name| name == text) => {
                return Err(format!("{text:?} is no name of `groups`"));
            }
            Self::Method => token::method(text)?,
            Self::Path if !text.starts_with('/') => {
                return Err(format!("{text:?} must begin with '/'"));
            }
            Self::Segment(_) if text.is_empty() || text.contains('/') => {
                return Err(format!("{text:?} must be one segment of a path, not empty"));
            }
            // RFC 9110 §5.5: "field values do not include [...] leading or trailing whitespace"; CR, LF and NUL are invalid.
            Self::Header(_) | Self::Cookie(_) | Self::ApiKey
                if text.trim_matches([' ', '\t']) != text || text.contains(['\r', '\n', '\0']) =>
            {
                return Err(format!(
                    "{text:?} must have no white space around it, nor a line's end in it (RFC 9110 §5.5)"
                ));
            }
            Self::Cookie(_) if text.contains(';') => {
                return Err(format!("{text:?} must have no ';': there a cookie ends"));
            }
            Self::Header(name) if name == HOST => return Ok(text.to_ascii_lowercase()),
            _ => {}
        }
        if matches!(self, Self::Path | Self::Segment(_)) {
            never_of_a_path(text)?;
            let path = comparable(text.as_bytes());
            return Ok(String::from_utf8_lossy(&path).into_owned());
        }
        Ok(text.to_owned())
    }
}

/// The parts that are what they are.
const BARE: [(&str, Part); 6] = [
    ("client", Part::Client),
    ("group", Part::Group),
    ("path", Part::Path),
    ("template", Part::Template),
    ("method", Part::Method),
    ("api_key", Part::ApiKey),
];

/// Makes a part of its name.
type Named = fn(String) -> Part;

/// The parts that have a name.
const NAMED: [(&str, Named); 5] = [
    ("segment", Part::Segment),
    ("header", Part::Header),
    ("cookie", Part::Cookie),
    ("query", Part::Query),
    ("claim", Part::Claim),
];

/// By hand, since what is derived speaks of variants and not of what to write.
impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PartVisitor)
    }
}

struct PartVisitor;

impl<'de> Visitor<'de> for PartVisitor {
    type Value = Part;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a part like \"client\" or {\"header\": \"name\"}")
    }

    fn visit_str<E: Error>(self, kind: &str) -> Result<Part, E> {
        if let Some((_, part)) = BARE.iter().find(|(known, _)| *known == kind) {
            return Ok(part.clone());
        }
        Err(E::custom(match named(kind) {
            Some(_) => format!("{kind:?} needs a name: write {{{kind:?}: \"name\"}}"),
            None => unknown(kind),
        }))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Part, A::Error> {
        let one = "a part in braces is one with its name, like {\"header\": \"name\"}";
        let kind: String = map.next_key()?.ok_or_else(|| A::Error::custom(one))?;
        let Some(part) = named(&kind) else {
            let is_bare = BARE.iter().any(|(known, _)| *known == kind);
            return Err(A::Error::custom(match is_bare {
                true => format!("{kind:?} has no name: write {kind:?} alone, without braces"),
                false => unknown(&kind),
            }));
        };
        let name = map.next_value()?;
        match map.next_key::<String>()? {
            None => Ok(part(name)),
            Some(_) => Err(A::Error::custom(one)),
        }
    }
}

fn named(kind: &str) -> Option<Named> {
    let found = NAMED.iter().find(|(known, _)| *known == kind);
    found.map(|(_, part)| *part)
}

fn unknown(kind: &str) -> String {
    let bare = BARE.map(|(known, _)| format!("{known:?}")).join(", ");
    let named = NAMED.map(|(known, _)| format!("{{{known:?}: \"name\"}}"));
    format!(
        "{kind:?} is no part: write one of {bare}, {}",
        named.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_written_as_the_schema_has_them() {
        let schema = schemars::schema_for!(Part).to_value().to_string();
        for (kind, part) in BARE {
            let json = format!("{kind:?}");
            assert_eq!(serde_json::from_str::<Part>(&json).unwrap(), part);
            assert!(schema.contains(&json), "{json}: {schema}");
        }
        for (kind, part) in NAMED {
            let json = format!("{{{kind:?}:\"a\"}}");
            let read: Part = serde_json::from_str(&json).unwrap();
            assert_eq!(read, part("a".to_owned()));
            assert!(schema.contains(&format!("{kind:?}")), "{json}: {schema}");
        }
    }

    #[test]
    fn what_is_no_part_is_told_how_one_is_written() {
        for (json, want) in [
            (r#""header""#, r#"write {"header": "name"}"#),
            (r#""segment""#, r#"write {"segment": "name"}"#),
            (r#""cookie""#, r#"write {"cookie": "name"}"#),
            (r#""query""#, r#"write {"query": "name"}"#),
            (r#""claim""#, r#"write {"claim": "name"}"#),
            (r#"{"client":"a"}"#, r#"write "client" alone"#),
            (r#"{"api_key":null}"#, r#"write "api_key" alone"#),
            (
                r#""hedder""#,
                r#""hedder" is no part: write one of "client", "group","#,
            ),
            (r#"{"hedder":"a"}"#, r#"{"header": "name"}, {"cookie":"#),
            ("{}", "one with its name"),
            (r#"{"header":"a","cookie":"b"}"#, "one with its name"),
            (r#"{"header":1}"#, "expected a string"),
            (
                "1",
                r#"expected a part like "client" or {"header": "name"}"#,
            ),
            ("null", "expected a part like"),
            (r#"["header","a"]"#, "expected a part like"),
        ] {
            let error = serde_json::from_str::<Part>(json).unwrap_err().to_string();
            assert!(error.contains(want), "{json}: {error}");
        }
    }
}
