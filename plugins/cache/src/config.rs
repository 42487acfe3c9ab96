//! What an operator may set, and the checked form of it.

use std::collections::BTreeMap;
use std::time::Duration;

use edgeweir_filter::{ConfigError, Emergency, bounded, is_token};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::admin::{AdminConfig, AdminSettings};
use crate::freshness::Heuristic;
use crate::groups::Dependencies;
use crate::key::Target;
use crate::l3::{L3, L3Config};
use crate::memory::Bounds;
use crate::preset::Preset;
use crate::rules::{Rule, Rules};
use crate::work::{
    Background, BackgroundConfig, Collapse, CollapseConfig, PredictConfig, Warm, WarmConfig,
};

/// Configuration of the cache filter. Everything has a default; a field that is not known is refused.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the defaults come from: `disabled` (nothing is cached), `minimal`, `standard`, `aggressive` or `maximum`.
    /// Default `standard`. What is set beside it counts.
    pub preset: Preset,
    /// The cache's name in `Cache-Status`: 1 to 64 visible ASCII characters. Default `edgeweir`.
    #[schemars(length(min = 1, max = 64))]
    pub name: String,
    /// Add the cache key to `Cache-Status` (its `key` parameter). For debugging. Default false.
    pub debug_key: bool,
    /// The largest response that is stored, in bytes: body, fields, key and 64 bytes together. 1024 (1 KiB) to 16777216 (16 MiB).
    /// Default 1048576 (1 MiB). An edge's shared store may have a lower bound (1 MiB in Envoy); what is over it is
    /// only kept in an instance's own memory.
    #[schemars(range(min = 1024, max = 16777216))]
    pub max_object_bytes: Option<u64>,
    /// Bytes an instance holds of all responses that are on their way into the store at the same time; one that finds
    /// no room passes without being stored. 1048576 (1 MiB) to 268435456 (256 MiB). Default 33554432 (32 MiB).
    #[schemars(range(min = 1048576, max = 268435456))]
    pub capture_bytes: u64,
    /// Responses kept in an instance's own memory. 0 (none) to 100000. Default 1000.
    #[schemars(range(max = 100000))]
    pub l1_entries: Option<u64>,
    /// Bytes of an instance's own memory for responses. 0 to 268435456 (256 MiB). Default 16777216 (16 MiB).
    #[schemars(range(max = 268435456))]
    pub l1_bytes: Option<u64>,
    /// Seconds after which a response in an instance's own memory is asked for again in the shared store. 1 to 86400.
    /// Default 300. Invalidations and newer responses reach every instance at once whatever this says.
    #[schemars(range(min = 1, max = 86400))]
    pub l1_seconds: u64,
    /// Times a response is read from the shared store within a residence before it is kept in an instance's own memory.
    /// 1 to 100. Default 1. More keeps a scan over many keys from driving out what is asked for often.
    #[schemars(range(min = 1, max = 100))]
    pub l1_promote_hits: u64,
    /// Bytes of the store that the edge's workers share. 1048576 (1 MiB) to 1073741824 (1 GiB). Default 67108864 (64 MiB).
    /// In a wasi:http component without a store it is the instance's memory, at most 64 MiB.
    #[schemars(range(min = 1048576, max = 1073741824))]
    pub l2_bytes: Option<u64>,
    /// The longest a response stays in that store, in seconds. 1 to 31536000 (a year). Default 31536000: as long as it may be
    /// of use. What an instance keeps of its own is not concerned.
    #[schemars(range(min = 1, max = 31536000))]
    pub l2_seconds: u64,
    /// Use the store that the edge's workers or instances share. Default true. Without it each of them has a cache of
    /// its own, and an invalidation reaches only the one that saw it.
    pub shared: bool,
    /// A third tier: an HTTP store that outlives the edge. Default: none.
    pub l3: Option<L3Config>,
    /// Response fields with directives for this cache, in order (RFC 9213); the first that is there and valid counts
    /// instead of `Cache-Control` and `Expires`. At most 8 names. Default `["CDN-Cache-Control"]`.
    #[schemars(length(max = 8))]
    pub targets: Vec<String>,
    /// Freshness guessed for a response without an explicit lifetime, in percent of the time since `Last-Modified`.
    /// 0 (no guess) to 100. Default 10. Errors are not guessed for, see `heuristic_error_max_seconds`.
    #[schemars(range(max = 100))]
    pub heuristic_percent: Option<u64>,
    /// The longest freshness guessed, in seconds. 0 to 31536000 (a year). Default 86400 (a day).
    #[schemars(range(max = 31536000))]
    pub heuristic_max_seconds: u64,
    /// Seconds that a response with a validator is kept after it went stale, to be validated. 0 to 2592000 (30 days).
    /// Default 86400.
    #[schemars(range(max = 2592000))]
    pub keep_stale_seconds: Option<u64>,
    /// The longest freshness guessed for 404, 405, 410, 414 and 501, in seconds. 0 (they need an explicit lifetime) to
    /// 86400. Default 0. Other errors are never guessed for.
    #[schemars(range(max = 86400))]
    pub heuristic_error_max_seconds: u64,
    /// Seconds that a stale response is used while the origin can't be reached, where nothing forbids it and no
    /// `stale-if-error` says otherwise. 0 (never) to 2592000 (30 days). Default 86400.
    #[schemars(range(max = 2592000))]
    pub unreached_seconds: u64,
    /// Seconds that a stale response is used, and refreshed behind the client, at the emergency levels 1, 2 and 3, where
    /// nothing forbids it. 0 (no longer than the response says) to 86400 (a day), rising. Default `[0, 0, 0]`.
    #[schemars(inner(range(max = 86400)))]
    pub emergency_stale_seconds: [u64; 3],
    /// Percent of `l2_bytes` that is used at the emergency levels 1, 2 and 3: the rest of the memory is given back. 25 to 100,
    /// falling. Default `[75, 50, 25]`. Without effect in components.
    #[schemars(inner(range(min = 25, max = 100)))]
    pub emergency_l2_percent: [u64; 3],
    /// Percent of a lifetime, at its end, in which a hot response is refreshed in the background. 0 (never) to 50.
    #[schemars(range(max = 50))]
    pub refresh_ahead_percent: Option<u64>,
    /// Hits in an instance that make a response hot. 1 to 1000. Default 3.
    #[schemars(range(min = 1, max = 1000))]
    pub refresh_ahead_hits: u64,
    /// Such refreshes a second in an instance. 1 to 10,000. Default 20.
    #[schemars(range(min = 1, max = 10_000))]
    pub refresh_ahead_per_second: u64,
    /// Seconds for which a key whose response could not be stored skips lookup and collapsing. 0 (never) to 3600.
    /// Default 60.
    #[schemars(range(max = 3600))]
    pub uncacheable_seconds: u64,
    /// Percent by which each freshness lifetime is cut at random when it is stored, so that what was stored together does
    /// not go stale together. 0 to 50. Default 0.
    #[schemars(range(max = 50))]
    pub ttl_jitter_percent: Option<u64>,
    /// Variants stored for one key under `Vary`. 1 to 8. Default 8.
    #[schemars(range(min = 1, max = 8))]
    pub max_variants: u64,
    /// Act upon `Cache-Control` and `Pragma` of requests (`no-cache`, `max-age`, `only-if-cached` …). Default true, as
    /// RFC 9111 asks; off, a client can't make the cache go to the origin. `no-store` counts in any case.
    pub request_directives: bool,
    /// On a miss, not to tell the origin what the client has: its `If-None-Match` and `If-Modified-Since` stay behind where the response is
    /// likely to be stored, so that clients that come back fill the store too. RFC 9111 §4.3.2 has such conditions "likely intended for
    /// some other (inbound) server", so they go on unless this is set.
    pub ask_for_all: bool,
    /// Store responses with `Set-Cookie`, cookie and all, when they are otherwise storable. Default false: a cookie is
    /// for one client.
    pub store_set_cookie: bool,
    /// Groups (`Surrogate-Key`, `Cache-Tag`, `Cache-Groups`) kept of one response; one with more is not stored. 0 to 255.
    /// Default 64.
    #[schemars(range(max = 255))]
    pub max_groups: u64,
    /// Which groups go with one that is invalidated: for each, those that depend on it. At most 1000 in all.
    pub dependencies: BTreeMap<String, Vec<String>>,
    /// Concurrent misses for one key.
    pub collapse: CollapseConfig,
    /// Requests of the cache's own.
    pub background: BackgroundConfig,
    /// What is fetched at the start.
    pub warm: WarmConfig,
    /// What is fetched because it is likely to be asked for next.
    pub predict: PredictConfig,
    /// Invalidation by request: `PURGE` and a path of its own. Off without a token.
    pub admin: AdminConfig,
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
            preset: Preset::Standard,
            name: "edgeweir".to_owned(),
            debug_key: false,
            max_object_bytes: None,
            capture_bytes: 32 << 20,
            l1_entries: None,
            l1_bytes: None,
            l1_seconds: 300,
            l1_promote_hits: 1,
            l2_bytes: None,
            l2_seconds: 31_536_000,
            shared: true,
            l3: None,
            targets: vec!["CDN-Cache-Control".to_owned()],
            heuristic_percent: None,
            heuristic_max_seconds: 86_400,
            heuristic_error_max_seconds: 0,
            keep_stale_seconds: None,
            unreached_seconds: 86_400,
            emergency_stale_seconds: [0; 3],
            emergency_l2_percent: [75, 50, 25],
            refresh_ahead_percent: None,
            refresh_ahead_hits: 3,
            refresh_ahead_per_second: 20,
            uncacheable_seconds: 60,
            ttl_jitter_percent: None,
            max_variants: 8,
            request_directives: true,
            ask_for_all: false,
            store_set_cookie: false,
            max_groups: 64,
            dependencies: BTreeMap::new(),
            collapse: CollapseConfig::default(),
            background: BackgroundConfig::default(),
            warm: WarmConfig::default(),
            predict: PredictConfig::default(),
            admin: AdminConfig::default(),
            key: KeyConfig::default(),
            rules: Vec::new(),
        }
    }
}

/// Checked settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether anything is done at all.
    pub enabled: bool,
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
    /// Reads from the shared store that promote a response.
    pub promote: u32,
    /// Bytes of the shared store.
    pub l2_bytes: usize,
    /// The longest a response is there.
    pub l2_residence: Duration,
    /// Whether the shared store is used.
    pub shared: bool,
    /// The third tier.
    pub l3: Option<L3>,
    /// Targeted fields, in lower case.
    pub targets: Vec<String>,
    /// How freshness is guessed.
    pub heuristic: Heuristic,
    /// The longest guess for an error, in seconds; 0 for none.
    pub heuristic_error: u32,
    /// Seconds a stale response is used while the origin can't be reached.
    pub unreached: u32,
    /// Percent of a lifetime in which hot responses are refreshed.
    pub refresh_ahead: u8,
    /// Hits that make a response hot.
    pub refresh_hits: u32,
    /// Refreshes ahead a second at most.
    pub refreshes_ahead: u32,
    /// Seconds a key is known as not cacheable.
    pub uncacheable: u32,
    /// Groups of one response at most.
    pub max_groups: usize,
    /// Which groups go with which.
    pub dependencies: Dependencies,
    /// Collapsing.
    pub collapse: Collapse,
    /// Requests of the cache's own.
    pub background: Background,
    /// What is fetched at the start.
    pub warm: Warm,
    /// Prefetches a second at most.
    pub prefetches: u32,
    /// Keys whose successors are remembered.
    pub successors: usize,
    /// Invalidation by request.
    pub admin: AdminSettings,
    /// Seconds kept past freshness.
    pub keep_stale: u32,
    /// Seconds that what is stale is used at each emergency level from 1.
    emergency_stale: [u32; 3],
    /// Percent of `l2_bytes` that is given back at each emergency level from 1.
    pub emergency_released: [u8; 3],
    /// Percent of a lifetime cut at random at most.
    pub jitter: u8,
    /// Variants under one key at most.
    pub max_variants: u8,
    /// Whether requests' directives count.
    pub request_directives: bool,
    /// Whether clients' conditions stay behind on a miss.
    pub ask_for_all: bool,
    /// Whether `Set-Cookie` may be stored.
    pub set_cookie: bool,
    /// The key's settings, where no rule has its own.
    key: KeySettings,
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
        let preset = config.preset.defaults();
        Ok(Self {
            enabled: config.preset != Preset::Disabled,
            name: shown_name(&config.name)?,
            debug_key: config.debug_key,
            max_object: bounded(
                "max_object_bytes",
                config.max_object_bytes.unwrap_or(preset.max_object_bytes),
                1024,
                16 << 20,
            )?,
            capture: bounded("capture_bytes", config.capture_bytes, 1 << 20, 256 << 20)?,
            bounds: Bounds {
                entries: bounded(
                    "l1_entries",
                    config.l1_entries.unwrap_or(preset.l1_entries),
                    0,
                    100_000,
                )?,
                bytes: bounded(
                    "l1_bytes",
                    config.l1_bytes.unwrap_or(preset.l1_bytes),
                    0,
                    256 << 20,
                )?,
                residence: bounded("l1_seconds", config.l1_seconds, 1, 86_400)
                    .map(Duration::from_secs)?,
            },
            promote: bounded("l1_promote_hits", config.l1_promote_hits, 1, 100)?,
            l2_bytes: bounded(
                "l2_bytes",
                config.l2_bytes.unwrap_or(preset.l2_bytes),
                1 << 20,
                1 << 30,
            )?,
            l2_residence: bounded("l2_seconds", config.l2_seconds, 1, 31_536_000)
                .map(Duration::from_secs)?,
            shared: config.shared,
            l3: config.l3.map(L3::try_from).transpose()?,
            targets: targets(config.targets)?,
            heuristic: Heuristic {
                percent: bounded(
                    "heuristic_percent",
                    config.heuristic_percent.unwrap_or(preset.heuristic_percent),
                    0,
                    100,
                )?,
                longest: bounded(
                    "heuristic_max_seconds",
                    config.heuristic_max_seconds,
                    0,
                    31_536_000,
                )?,
            },
            heuristic_error: bounded(
                "heuristic_error_max_seconds",
                config.heuristic_error_max_seconds,
                0,
                86_400,
            )?,
            keep_stale: bounded(
                "keep_stale_seconds",
                config
                    .keep_stale_seconds
                    .unwrap_or(preset.keep_stale_seconds),
                0,
                2_592_000,
            )?,
            unreached: bounded("unreached_seconds", config.unreached_seconds, 0, 2_592_000)?,
            emergency_stale: emergency_stale(config.emergency_stale_seconds)?,
            emergency_released: emergency_released(config.emergency_l2_percent)?,
            refresh_ahead: bounded(
                "refresh_ahead_percent",
                config
                    .refresh_ahead_percent
                    .unwrap_or(preset.refresh_ahead_percent),
                0,
                50,
            )?,
            refresh_hits: bounded("refresh_ahead_hits", config.refresh_ahead_hits, 1, 1000)?,
            refreshes_ahead: bounded(
                "refresh_ahead_per_second",
                config.refresh_ahead_per_second,
                1,
                10_000,
            )?,
            uncacheable: bounded("uncacheable_seconds", config.uncacheable_seconds, 0, 3600)?,
            jitter: bounded(
                "ttl_jitter_percent",
                config
                    .ttl_jitter_percent
                    .unwrap_or(preset.ttl_jitter_percent),
                0,
                50,
            )?,
            max_variants: bounded("max_variants", config.max_variants, 1, 8)?,
            request_directives: config.request_directives,
            ask_for_all: config.ask_for_all,
            set_cookie: config.store_set_cookie,
            max_groups: bounded("max_groups", config.max_groups, 0, 255)?,
            dependencies: Dependencies::new(config.dependencies)?,
            collapse: Collapse::try_from(config.collapse)?,
            background: Background::try_from(config.background)?,
            warm: Warm::try_from(config.warm)?,
            prefetches: bounded(
                "predict.per_second",
                config
                    .predict
                    .per_second
                    .unwrap_or(preset.prefetches_per_second),
                0,
                1000,
            )?,
            successors: bounded("predict.keys", config.predict.keys, 16, 100_000)?,
            admin: AdminSettings::try_from(config.admin)?,
            key: KeySettings::check("key", config.key)?,
            rules: Rules::new(config.rules)?,
        })
    }
}

impl Settings {
    /// The key's settings for a target.
    pub fn key_of(&self, target: &Target) -> &KeySettings {
        self.rules.of(target).key().unwrap_or(&self.key)
    }

    /// Whether an emergency changes anything.
    pub fn heeds_emergencies(&self) -> bool {
        let longer = self.emergency_stale.iter().any(|seconds| *seconds > 0);
        longer || self.emergency_released.iter().any(|percent| *percent > 0)
    }

    /// Seconds that what is stale is used at this level, whatever the response says.
    pub fn saving(&self, emergency: Emergency) -> u32 {
        emergency.of(self.emergency_stale).unwrap_or(0)
    }
}

/// None less than the one before it.
fn emergency_stale(seconds: [u64; 3]) -> Result<[u32; 3], ConfigError> {
    const FIELD: &str = "emergency_stale_seconds";
    let [one, two, three] = seconds.map(|seconds| bounded(FIELD, seconds, 0, 86_400));
    let all = [one?, two?, three?];
    if all.is_sorted() {
        return Ok(all);
    }
    let message = format!("{all:?} falls from one level to the next; want rising");
    Err(ConfigError::new(FIELD, message))
}

/// What is not used, of what is used at each level; none more than the one before it.
fn emergency_released(used: [u64; 3]) -> Result<[u8; 3], ConfigError> {
    const FIELD: &str = "emergency_l2_percent";
    let [one, two, three] = used.map(|percent| bounded::<u8>(FIELD, percent, 25, 100));
    let released = [one?, two?, three?].map(|percent| 100u8.saturating_sub(percent));
    if released.is_sorted() {
        return Ok(released);
    }
    let message = format!("{used:?} rises from one level to the next; want falling");
    Err(ConfigError::new(FIELD, message))
}

impl KeySettings {
    /// Checks what is set under `field`.
    pub fn check(field: &str, config: KeyConfig) -> Result<Self, ConfigError> {
        let at = |name: &str| format!("{field}.{name}");
        if config.query_include.is_some() && !config.query_exclude.is_empty() {
            let message = format!(
                "has names although `{}` is set: give one of the two",
                at("query_include")
            );
            return Err(ConfigError::new(at("query_exclude"), message));
        }
        let included = config.query_include.as_deref().unwrap_or_default();
        at_most(&at("query_include"), included, 64)?;
        at_most(&at("query_exclude"), &config.query_exclude, 64)?;
        at_most(&at("headers"), &config.headers, 16)?;
        at_most(&at("cookies"), &config.cookies, 16)?;
        for (number, name) in config.cookies.iter().enumerate() {
            token(&at(&format!("cookies[{number}]")), name)?;
        }
        let mut headers = Vec::new();
        for (number, name) in config.headers.iter().enumerate() {
            headers.push(field_name(&at(&format!("headers[{number}]")), name)?);
        }
        headers.sort();
        headers.dedup();
        let user_context = match &config.user_context {
            Some(name) => Some(field_name(&at("user_context"), name)?),
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

    /// Whether keys have more parts than the URI.
    pub fn has_extra(&self) -> bool {
        !self.headers.is_empty() || !self.cookies.is_empty() || self.user_context.is_some()
    }
}

fn targets(names: Vec<String>) -> Result<Vec<String>, ConfigError> {
    at_most("targets", &names, 8)?;
    let names = names.iter().enumerate();
    names
        .map(|(at, name)| field_name(&format!("targets[{at}]"), name))
        .collect()
}

fn at_most(field: &str, names: &[String], max: usize) -> Result<(), ConfigError> {
    if names.len() <= max {
        return Ok(());
    }
    let message = format!("has {} names, at most {max} are allowed", names.len());
    Err(ConfigError::new(field, message))
}

fn token(field: &str, name: &str) -> Result<(), ConfigError> {
    if name.len() <= 128 && is_token(name.as_bytes()) {
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
                "the shared store's",
                r#"{"l2_seconds": 31536001}"#,
                &["l2_seconds", "31536001", "31536000"],
            ),
            (
                "the third tier's",
                r#"{"l3": {"to": "store", "seconds": 0}}"#,
                &["l3.seconds", "0", "31536000"],
            ),
            (
                "a pause",
                r#"{"background": {"retry_seconds": 3601}}"#,
                &["background.retry_seconds", "3601", "3600"],
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
            (
                "emergency",
                r#"{"emergency_stale_seconds": [10, 5, 60]}"#,
                &["emergency_stale_seconds", "10, 5", "rising"],
            ),
            (
                "emergency's bound",
                r#"{"emergency_stale_seconds": [0, 0, 86401]}"#,
                &["emergency_stale_seconds", "86401", "86400"],
            ),
            (
                "emergency's shares",
                r#"{"emergency_l2_percent": [50, 75, 25]}"#,
                &["emergency_l2_percent", "50, 75", "falling"],
            ),
            (
                "emergency's share",
                r#"{"emergency_l2_percent": [100, 50, 24]}"#,
                &["emergency_l2_percent", "24", "25"],
            ),
            (
                "a rule's key",
                r#"{"rules": [{}, {"key": {"cookies": ["a b"]}}]}"#,
                &["rules[1].key.cookies[0]", "a b", "token"],
            ),
            (
                "both in a rule's key",
                r#"{"rules": [{"key": {"query_include": [], "query_exclude": ["b"]}}]}"#,
                &["rules[0].key.query_exclude", "rules[0].key.query_include"],
            ),
            (
                "unknown in a rule's key",
                r#"{"rules": [{"key": {"query": []}}]}"#,
                &["rules[0].key", "unknown field"],
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
