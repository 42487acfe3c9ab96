//! The four filters in one: any ordered list of them, composed, so that a message crosses into the guest once.
//!
//! ```
//! use edgeweir_filter::load;
//! let json = br#"{"filters": ["ratelimit", {"cache": {}}, {"ratelimit": {"status": 503}}]}"#;
//! let error = load::<edgeweir_edge::Edge>(json).err().expect("a filter is listed twice");
//! assert!(error.to_string().contains("ratelimit"));
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::indexing_slicing))]

use std::fmt;

use edgeweir_cache::Cache;
use edgeweir_compress::Compress;
use edgeweir_filter::{Chain, ConfigError, Configured, Exchange, Filter, Task, Wants};
use edgeweir_minify::Minify;
use edgeweir_ratelimit::RateLimit;
use schemars::JsonSchema;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Configuration of the four in one. With none at all: ratelimit, cache, compress, minify, each on its defaults.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The filters in order, the outermost (nearest the client) first: a name alone (`"cache"`) means its defaults, an
    /// object of one member (`{"cache": {..}}`) its configuration. Each filter at most once; an empty list passes
    /// everything on. The cache stands outside of compress, and compress outside of minify.
    #[schemars(with = "Vec<EntryShape>")]
    pub filters: Vec<Entry>,
}

impl Default for Config {
    fn default() -> Self {
        let filters = [Name::Ratelimit, Name::Cache, Name::Compress, Name::Minify];
        Self {
            filters: filters.into_iter().map(Entry::defaults).collect(),
        }
    }
}

/// The filters there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Name {
    /// The response cache.
    Cache,
    /// Compression.
    Compress,
    /// JSON minification.
    Minify,
    /// Rate limiting.
    Ratelimit,
}

/// A filter of the list, with its configuration.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub enum Entry {
    /// The response cache.
    Cache(Box<<Cache as Configured>::Config>),
    /// Compression.
    Compress(Box<<Compress as Configured>::Config>),
    /// JSON minification.
    Minify(Box<<Minify as Configured>::Config>),
    /// Rate limiting.
    Ratelimit(Box<<RateLimit as Configured>::Config>),
}

/// How an entry may be written.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(
    dead_code,
    reason = "describes the schema; values are read by Entry's visitor"
)]
enum EntryShape {
    /// On its defaults.
    Name(Name),
    /// With its configuration.
    Configured(Entry),
}

impl Entry {
    fn defaults(name: Name) -> Self {
        match name {
            Name::Cache => Self::Cache(Box::default()),
            Name::Compress => Self::Compress(Box::default()),
            Name::Minify => Self::Minify(Box::default()),
            Name::Ratelimit => Self::Ratelimit(Box::default()),
        }
    }

    fn name(&self) -> Name {
        match self {
            Self::Cache(_) => Name::Cache,
            Self::Compress(_) => Name::Compress,
            Self::Minify(_) => Name::Minify,
            Self::Ratelimit(_) => Name::Ratelimit,
        }
    }

    fn filter(self) -> Result<Box<dyn Filter>, ConfigError> {
        Ok(match self {
            Self::Cache(config) => Box::new(Cache::new(*config)?),
            Self::Compress(config) => Box::new(Compress::new(*config)?),
            Self::Minify(config) => Box::new(Minify::new(*config)?),
            Self::Ratelimit(config) => Box::new(RateLimit::new(*config)?),
        })
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EntryVisitor)
    }
}

/// Reads an entry in either form; by hand, because serde's untagged enums forget which field was wrong.
struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = Entry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the name of a filter, or an object of one member: its name and its configuration",
        )
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Entry, E> {
        Name::deserialize(serde::de::value::StrDeserializer::new(name)).map(Entry::defaults)
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Entry, M::Error> {
        let empty = || M::Error::custom("an empty object: name a filter, like {\"cache\": {}}");
        // As a text: what is wrong further in is told below it.
        let name = map.next_key::<String>()?.ok_or_else(empty)?;
        let name = Name::deserialize(serde::de::value::StrDeserializer::new(&name))?;
        let entry = match name {
            Name::Cache => Entry::Cache(map.next_value()?),
            Name::Compress => Entry::Compress(map.next_value()?),
            Name::Minify => Entry::Minify(map.next_value()?),
            Name::Ratelimit => Entry::Ratelimit(map.next_value()?),
        };
        match map.next_key::<Name>()? {
            None => Ok(entry),
            Some(second) => Err(M::Error::custom(format!(
                "{second:?} as a second member: give each filter an object of its own"
            ))),
        }
    }
}

/// The four in one, configured.
pub struct Edge(Chain);

impl Configured for Edge {
    const NAME: &'static str = "edge";
    type Config = Config;

    fn new(config: Config) -> Result<Self, ConfigError> {
        let names: Vec<Name> = config.filters.iter().map(Entry::name).collect();
        for (at, name) in names.iter().enumerate() {
            let field = format!("filters[{at}]");
            if names.iter().take(at).any(|before| before == name) {
                return Err(ConfigError::new(
                    field,
                    format!("{} is listed twice", text(*name)),
                ));
            }
            // A filter that changes bodies sees them before they are coded, and the cache keeps what both made of them.
            let outside: &[Name] = match name {
                Name::Cache => &[Name::Compress, Name::Minify],
                Name::Compress => &[Name::Minify],
                Name::Minify | Name::Ratelimit => &[],
            };
            if let Some(wrong) = names
                .iter()
                .take(at)
                .find(|before| outside.contains(before))
            {
                let (inner, outer) = (text(*wrong), text(*name));
                return Err(ConfigError::new(
                    field,
                    format!(
                        "{outer} must come before {inner}: the order is ratelimit, cache, compress, minify"
                    ),
                ));
            }
        }
        let mut filters = Vec::with_capacity(names.len());
        for (at, entry) in config.filters.into_iter().enumerate() {
            let name = text(entry.name());
            filters.push(entry.filter().map_err(|error| {
                ConfigError::new(
                    format!("filters[{at}].{name}.{}", error.field),
                    error.message,
                )
            })?);
        }
        Ok(Self(Chain::new(Self::NAME, filters)))
    }
}

fn text(name: Name) -> &'static str {
    match name {
        Name::Cache => "cache",
        Name::Compress => "compress",
        Name::Minify => "minify",
        Name::Ratelimit => "ratelimit",
    }
}

impl Filter for Edge {
    fn name(&self) -> &'static str {
        Self::NAME
    }
    fn exchange(&self) -> Box<dyn Exchange> {
        self.0.exchange()
    }
    fn wants(&self) -> Wants {
        self.0.wants()
    }
    fn notes(&self) -> Vec<String> {
        self.0.notes()
    }
    fn startup(&self) -> Vec<Box<dyn Task>> {
        self.0.startup()
    }
    fn targets_are_hosts(&self) -> Result<(), ConfigError> {
        self.0.targets_are_hosts()
    }
    fn routes_rewrite(&self) {
        self.0.routes_rewrite();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgeweir_filter::load;

    #[test]
    fn a_wrong_list_is_refused_by_name() {
        for (config, want) in [
            (r#"{"filters":["caches"]}"#, "unknown variant `caches`"),
            (
                r#"{"filters":["cache","cache"]}"#,
                "`filters[1]`: cache is listed twice",
            ),
            (
                r#"{"filters":["minify","compress"]}"#,
                "compress must come before minify",
            ),
            (
                r#"{"filters":["compress","cache"]}"#,
                "cache must come before compress",
            ),
            (
                r#"{"filters":[{"ratelimit":{"status":1}}]}"#,
                "`filters[0].ratelimit.status`: 1 is out of bounds",
            ),
            (
                r#"{"filters":[{"ratelimit":{"rulez":1}}]}"#,
                "unknown field `rulez`",
            ),
            (r#"{"filters":[{}]}"#, "an empty object"),
            (r#"{"filter":[]}"#, "unknown field `filter`"),
        ] {
            let error = load::<Edge>(config.as_bytes())
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default();
            assert!(error.contains(want), "{config}: {error}");
        }
    }

    #[test]
    fn lists_in_order_load() {
        for config in [
            "",
            r#"{"filters":[]}"#,
            r#"{"filters":["ratelimit",{"minify":{}}]}"#,
        ] {
            assert!(load::<Edge>(config.as_bytes()).is_ok(), "{config}");
        }
    }
}
