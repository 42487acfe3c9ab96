//! What an operator may set, and the checked form of it.

use std::time::Duration;

use edgeweir_filter::{ConfigError, bounded};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::freshness::Heuristic;
use crate::memory::Bounds;
use crate::rules::{Rule, Rules};

/// Configuration of the cache filter. Everything has a default; a field that is not known is refused.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The cache's name in `Cache-Status`: 1 to 64 visible ASCII characters. Default `edgeweir`.
    #[schemars(length(min = 1, max = 64))]
    pub name: String,
    /// Add the cache key to `Cache-Status` (its `key` parameter). For debugging. Default false.
    pub debug_key: bool,
    /// The largest response that is stored, in bytes: body, fields, key and 64 bytes together. 1024 (1 KiB) to 16777216 (16 MiB).
    /// Default 1048576 (1 MiB). An edge's shared store may have a lower bound (1 MiB in Envoy); what is over it is
    /// only kept in an instance's own memory.
    #[schemars(range(min = 1024, max = 16777216))]
    pub max_object_bytes: u64,
    /// Bytes an instance holds of all responses that are on their way into the store at the same time; one that finds
    /// no room passes without being stored. 1048576 (1 MiB) to 268435456 (256 MiB). Default 33554432 (32 MiB).
    #[schemars(range(min = 1048576, max = 268435456))]
    pub capture_bytes: u64,
    /// Responses kept in an instance's own memory. 0 (none) to 100000. Default 1000.
    #[schemars(range(max = 100000))]
    pub l1_entries: u64,
    /// Bytes of an instance's own memory for responses. 0 to 268435456 (256 MiB). Default 16777216 (16 MiB).
    #[schemars(range(max = 268435456))]
    pub l1_bytes: u64,
    /// Seconds after which a response in an instance's own memory is asked for again in the shared store. 1 to 86400.
    /// Default 300. Invalidations and newer responses reach every instance at once whatever this says.
    #[schemars(range(min = 1, max = 86400))]
    pub l1_seconds: u64,
    /// Use the store that the edge's workers or instances share. Default true. Without it each of them has a cache of
    /// its own, and an invalidation reaches only the one that saw it.
    pub shared: bool,
    /// Freshness guessed for a response without an explicit lifetime, in percent of the time since `Last-Modified`.
    /// 0 (no guess) to 100. Default 10. Errors are never guessed for.
    #[schemars(range(max = 100))]
    pub heuristic_percent: u64,
    /// The longest freshness guessed, in seconds. 0 to 31536000 (a year). Default 86400 (a day).
    #[schemars(range(max = 31536000))]
    pub heuristic_max_seconds: u64,
    /// Seconds that a response with a validator is kept after it went stale, to be validated. 0 to 2592000 (30 days).
    /// Default 86400.
    #[schemars(range(max = 2592000))]
    pub keep_stale_seconds: u64,
    /// Percent by which each freshness lifetime is cut at random when it is stored, so that what was stored together does
    /// not go stale together. 0 to 50. Default 0.
    #[schemars(range(max = 50))]
    pub ttl_jitter_percent: u64,
    /// Variants stored for one key under `Vary`. 1 to 8. Default 8.
    #[schemars(range(min = 1, max = 8))]
    pub max_variants: u64,
    /// Act upon `Cache-Control` and `Pragma` of requests (`no-cache`, `max-age`, `only-if-cached` …). Default true, as
    /// RFC 9111 asks; off, a client can't make the cache go to the origin. `no-store` counts in any case.
    pub request_directives: bool,
    /// Store responses with `Set-Cookie`, cookie and all, when they are otherwise storable. Default false: a cookie is
    /// for one client.
    pub store_set_cookie: bool,
    /// What makes two requests ask for the same.
    pub key: KeyConfig,
    /// Rules for paths, tried in order; the first that matches counts. At most 100.
    #[schemars(length(max = 100))]
    pub rules: Vec<Rule>,
}

/// What the cache key is made of besides scheme, host and path.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KeyConfig {
    /// Only these query parameters count; an empty list: none. Default: all. Not together with `query_exclude`.
    /// At most 64 names.
    pub query_include: Option<Vec<String>>,
    /// These query parameters do not count. Default: none. At most 64 names.
    pub query_exclude: Vec<String>,
    /// Whether the order of query parameters of different names does not count. Default false.
    pub query_sort: bool,
    /// Request fields whose values are part of the key. Default: none. At most 16 names.
    pub headers: Vec<String>,
    /// Cookies whose values are part of the key. Default: none. At most 16 names.
    pub cookies: Vec<String>,
    /// A request field that says for whom a response is (a user, a group, a tenant), set by something trusted before
    /// the cache; its value is part of the key. Default: none.
    pub user_context: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: "edgeweir".to_owned(),
            debug_key: false,
            max_object_bytes: 1 << 20,
            capture_bytes: 32 << 20,
            l1_entries: 1000,
            l1_bytes: 16 << 20,
            l1_seconds: 300,
            shared: true,
            heuristic_percent: 10,
            heuristic_max_seconds: 86_400,
            keep_stale_seconds: 86_400,
            ttl_jitter_percent: 0,
            max_variants: 8,
            request_directives: true,
            store_set_cookie: false,
            key: KeyConfig::default(),
            rules: Vec::new(),
        }
    }
}

/// Checked settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name as it stands in `Cache-Status`: a token or a quoted string.
    pub name: String,
    /// Whether the key is shown.
    pub debug_key: bool,
    /// Bytes of a stored response at most.
    pub max_object: usize,
    /// Bytes of all responses being captured at most.
    pub capture: usize,
    /// Bounds of the first tier.
    pub bounds: Bounds,
    /// Whether the shared store is used.
    pub shared: bool,
    /// How freshness is guessed.
    pub heuristic: Heuristic,
    /// Seconds kept past freshness.
    pub keep_stale: u32,
    /// Percent of a lifetime cut at random at most.
    pub jitter: u8,
    /// Variants under one key at most.
    pub max_variants: u8,
    /// Whether requests' directives count.
    pub request_directives: bool,
    /// Whether `Set-Cookie` may be stored.
    pub set_cookie: bool,
    /// The key's settings.
    pub key: KeySettings,
    /// The rules for paths.
    pub rules: Rules,
}

/// Checked settings of the key.
#[derive(Clone, Debug, Default)]
pub struct KeySettings {
    /// Only these parameters.
    pub query_include: Option<Vec<String>>,
    /// Not these parameters.
    pub query_exclude: Vec<String>,
    /// Parameters in order of their names.
    pub query_sort: bool,
    /// Fields, in lower case.
    pub headers: Vec<String>,
    /// Cookies.
    pub cookies: Vec<String>,
    /// The field of the user context, in lower case.
    pub user_context: Option<String>,
}

impl TryFrom<Config> for Settings {
    type Error = ConfigError;

    fn try_from(config: Config) -> Result<Self, ConfigError> {
        Ok(Self {
            name: shown_name(&config.name)?,
            debug_key: config.debug_key,
            max_object: bounded("max_object_bytes", config.max_object_bytes, 1024, 16 << 20)?,
            capture: bounded("capture_bytes", config.capture_bytes, 1 << 20, 256 << 20)?,
            bounds: Bounds {
                entries: bounded("l1_entries", config.l1_entries, 0, 100_000)?,
                bytes: bounded("l1_bytes", config.l1_bytes, 0, 256 << 20)?,
                residence: bounded("l1_seconds", config.l1_seconds, 1, 86_400)
                    .map(Duration::from_secs)?,
            },
            shared: config.shared,
            heuristic: Heuristic {
                percent: bounded("heuristic_percent", config.heuristic_percent, 0, 100)?,
                longest: bounded(
                    "heuristic_max_seconds",
                    config.heuristic_max_seconds,
                    0,
                    31_536_000,
                )?,
            },
            keep_stale: bounded(
                "keep_stale_seconds",
                config.keep_stale_seconds,
                0,
                2_592_000,
            )?,
            jitter: bounded("ttl_jitter_percent", config.ttl_jitter_percent, 0, 50)?,
            max_variants: bounded("max_variants", config.max_variants, 1, 8)?,
            request_directives: config.request_directives,
            set_cookie: config.store_set_cookie,
            key: KeySettings::try_from(config.key)?,
            rules: Rules::new(config.rules)?,
        })
    }
}

impl KeySettings {
    /// Whether keys have more parts than the URI.
    pub fn has_extra(&self) -> bool {
        !self.headers.is_empty() || !self.cookies.is_empty() || self.user_context.is_some()
    }
}

impl TryFrom<KeyConfig> for KeySettings {
    type Error = ConfigError;

    fn try_from(config: KeyConfig) -> Result<Self, ConfigError> {
        if config.query_include.is_some() && !config.query_exclude.is_empty() {
            return Err(ConfigError::new(
                "key.query_exclude",
                "has names although `key.query_include` is set: give one of the two",
            ));
        }
        let included = config.query_include.as_deref().unwrap_or_default();
        at_most("key.query_include", included, 64)?;
        at_most("key.query_exclude", &config.query_exclude, 64)?;
        at_most("key.headers", &config.headers, 16)?;
        at_most("key.cookies", &config.cookies, 16)?;
        for (at, name) in config.cookies.iter().enumerate() {
            token(&format!("key.cookies[{at}]"), name)?;
        }
        let mut headers = Vec::new();
        for (at, name) in config.headers.iter().enumerate() {
            headers.push(field_name(&format!("key.headers[{at}]"), name)?);
        }
        headers.sort();
        headers.dedup();
        let user_context = match &config.user_context {
            Some(name) => Some(field_name("key.user_context", name)?),
            None => None,
        };
        Ok(Self {
            query_include: config.query_include,
            query_exclude: config.query_exclude,
            query_sort: config.query_sort,
            headers,
            cookies: config.cookies,
            user_context,
        })
    }
}

fn at_most(field: &str, names: &[String], max: usize) -> Result<(), ConfigError> {
    if names.len() <= max {
        return Ok(());
    }
    let message = format!("has {} names, at most {max} are allowed", names.len());
    Err(ConfigError::new(field, message))
}

fn token(field: &str, name: &str) -> Result<(), ConfigError> {
    let is_token = !name.is_empty()
        && name.len() <= 128
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
    if is_token {
        return Ok(());
    }
    let message = format!("is {name:?}, must be a token of 1 to 128 characters (RFC 9110 §5.6.2)");
    Err(ConfigError::new(field, message))
}

fn field_name(field: &str, name: &str) -> Result<String, ConfigError> {
    token(field, name)?;
    Ok(name.to_ascii_lowercase())
}

/// RFC 9211 §2: the value is a token or a string of RFC 8941.
fn shown_name(name: &str) -> Result<String, ConfigError> {
    let visible = name.bytes().all(|byte| (b'!'..=b'~').contains(&byte));
    if name.is_empty() || name.len() > 64 || !visible {
        let message = format!("is {name:?}, must be 1 to 64 visible ASCII characters");
        return Err(ConfigError::new("name", message));
    }
    let starts = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '*');
    let token = name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&b));
    if starts && token {
        return Ok(name.to_owned());
    }
    Ok(crate::status::quoted(name))
}

#[cfg(test)]
mod tests {
    use crate::Cache;

    fn error(json: &str) -> String {
        match edgeweir_filter::load::<Cache>(json.as_bytes()) {
            Ok(_) => "accepted".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn refusals_name_field_value_and_bound() {
        for (name, json, want) in [
            ("nothing", "", &["accepted"][..]),
            ("empty", "{}", &["accepted"]),
            ("unknown", r#"{"nmae": "x"}"#, &["nmae", "unknown field"]),
            (
                "unknown inside",
                r#"{"key": {"header": []}}"#,
                &["header", "unknown field"],
            ),
            ("type", r#"{"l1_entries": "many"}"#, &["l1_entries", "many"]),
            ("negative", r#"{"l1_entries": -1}"#, &["l1_entries", "-1"]),
            (
                "too small",
                r#"{"max_object_bytes": 1023}"#,
                &["max_object_bytes", "1023", "1024"],
            ),
            (
                "too large",
                r#"{"max_object_bytes": 16777217}"#,
                &["max_object_bytes", "16777217", "16777216"],
            ),
            (
                "variants",
                r#"{"max_variants": 9}"#,
                &["max_variants", "9", "1 to 8"],
            ),
            (
                "residence",
                r#"{"l1_seconds": 0}"#,
                &["l1_seconds", "0", "86400"],
            ),
            (
                "capture",
                r#"{"capture_bytes": 1}"#,
                &["capture_bytes", "1 is out of bounds", "1048576"],
            ),
            (
                "jitter",
                r#"{"ttl_jitter_percent": 51}"#,
                &["ttl_jitter_percent", "51", "0 to 50"],
            ),
            (
                "percent",
                r#"{"heuristic_percent": 101}"#,
                &["heuristic_percent", "101", "100"],
            ),
            ("name", r#"{"name": "a\r\nb"}"#, &["name", "visible ASCII"]),
            (
                "field name",
                r#"{"key": {"headers": ["a b"]}}"#,
                &["key.headers[0]", "a b", "token"],
            ),
            (
                "both",
                r#"{"key": {"query_include": ["a"], "query_exclude": ["b"]}}"#,
                &["key.query_exclude", "query_include"],
            ),
            (
                "rule status",
                r#"{"rules": [{"ttl_by_status": {"99": 5}}]}"#,
                &["rules[0].ttl_by_status", "99"],
            ),
            (
                "rule path",
                r#"{"rules": [{"path": "x"}]}"#,
                &["rules[0].path", "x"],
            ),
            (
                "rule ttl",
                r#"{"rules": [{"ttl_by_status": {"404": 99999999}}]}"#,
                &["rules[0].ttl_by_status.404", "99999999"],
            ),
            ("garbage", "{", &["configuration"]),
        ] {
            let error = error(json);
            for part in want {
                assert!(error.contains(part), "{name}: {error} lacks {part}");
            }
        }
    }

    #[test]
    fn every_field_is_in_the_schema() {
        let schema = edgeweir_filter::schema::<Cache>().to_string();
        for name in [
            "max_object_bytes",
            "l1_seconds",
            "query_include",
            "ttl_by_status",
            "heuristic_percent",
        ] {
            assert!(schema.contains(name), "{name}");
        }
    }
}
