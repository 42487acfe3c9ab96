//! What an operator may set.

use edgeweir_filter::ConfigError;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::quota::{MOST_BYTES, Quota};
use crate::rate::Rate;

/// Configuration of the rate limiter. With none at all: each client address gets `100/minute`, at most `20/second`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Rules in order: the first that matches a request decides it. At least 1, at most 64.
    pub rules: Vec<Rule>,
    /// How many proxies in front of the edge are trusted to have appended to `X-Forwarded-For`, beside the connection
    /// itself. 0 (the default) uses the connection's address alone. At most 16.
    pub trusted_hops: u8,
    /// Leading bits of an IPv6 address that make one client: 64 by default, 32 to 128.
    pub ipv6_prefix: u8,
    /// Status of a refusal: 429 by default, 400 to 599.
    pub status: u16,
    /// Body of a refusal instead of problem details (RFC 9457). At most 16 KiB.
    pub body: Option<String>,
    /// Media type of `body`: `text/plain; charset=utf-8` by default.
    pub content_type: String,
    /// Also send `X-RateLimit-Limit`, `-Remaining` and `-Reset`. Off by default.
    pub x_ratelimit: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rules: vec![Rule::default()],
            trusted_hops: 0,
            ipv6_prefix: 64,
            status: 429,
            body: None,
            content_type: "text/plain; charset=utf-8".to_owned(),
            x_ratelimit: false,
        }
    }
}

/// One rule: whom it concerns, how they are told apart, and how much they may.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// Name in fields, logs and problem details: letters, digits, `-`, `_` and `.`, at most 64.
    pub name: String,
    /// Paths it applies to: exact (`/login`) or by prefix (`/api/*`). None: all.
    pub paths: Vec<String>,
    /// Methods it applies to. None: all.
    pub methods: Vec<String>,
    /// What makes a client: every combination of these has its own limits. None: all clients share one.
    pub key: Vec<KeyPart>,
    /// The limits, all of which must admit.
    pub limits: Vec<Limit>,
    /// Cells a request costs: 1 by default, at least 1.
    pub cost: u32,
    /// Decide, count and report, but never refuse. Off by default.
    pub shadow: bool,
    /// What happens when the shared state can't be reached: `open` (the default) admits, `closed` answers 503.
    pub on_store_failure: OnStoreFailure,
}

impl Default for Rule {
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            paths: Vec::new(),
            methods: Vec::new(),
            key: vec![KeyPart::Client],
            limits: vec![Limit::default()],
            cost: 1,
            shadow: false,
            on_store_failure: OnStoreFailure::Open,
        }
    }
}

/// A part of what makes a client.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyPart {
    /// The client's address.
    Client,
    /// The path without its query.
    Path,
    /// The method.
    Method,
    /// The value of a request field, by name.
    Header(String),
}

/// A limit.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// The sustained rate.
    pub rate: Rate,
    /// How much may come at once: a number of cells, or a second rate (`"20/second"`) that holds as well. Without it
    /// the whole count of `rate` may come at once.
    #[serde(default)]
    pub burst: Option<Burst>,
    /// `gcra` (the default) or `sliding_window`.
    #[serde(default)]
    pub algorithm: Algorithm,
}

impl Default for Limit {
    fn default() -> Self {
        const SECOND: u64 = 1_000_000_000;
        Self {
            rate: Rate {
                count: 100,
                per: 60 * SECOND,
            },
            burst: Some(Burst::Rate(Rate {
                count: 20,
                per: SECOND,
            })),
            algorithm: Algorithm::Gcra,
        }
    }
}

/// How much may come at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "burst must be a number of cells (1 to 1000000000) or a rate like \"20/second\""
)]
pub enum Burst {
    /// So many cells: 1 to 1,000,000,000.
    Cells(u32),
    /// A second rate that holds as well.
    Rate(Rate),
}

/// How a limit counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// The generic cell rate algorithm: exact.
    #[default]
    Gcra,
    /// The sliding window counter: an estimate over two windows.
    SlidingWindow,
}

/// What happens without the shared state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnStoreFailure {
    /// Requests are admitted, and counted as such.
    #[default]
    Open,
    /// Requests are answered 503.
    Closed,
}

impl Config {
    /// Checks every bound, and returns the rules' quotas.
    pub(crate) fn check(&self) -> Result<Vec<Quota>, ConfigError> {
        let bound = |ok: bool, field: &str, value: String, bound: &str| {
            if ok {
                Ok(())
            } else {
                Err(ConfigError::new(
                    field,
                    format!("{value} is out of bounds: {bound}"),
                ))
            }
        };
        bound(
            self.trusted_hops <= 16,
            "trusted_hops",
            self.trusted_hops.to_string(),
            "0 to 16",
        )?;
        bound(
            (32..=128).contains(&self.ipv6_prefix),
            "ipv6_prefix",
            self.ipv6_prefix.to_string(),
            "32 to 128",
        )?;
        bound(
            (400..=599).contains(&self.status),
            "status",
            self.status.to_string(),
            "400 to 599",
        )?;
        let body = self.body.as_ref().map_or(0, String::len);
        bound(
            body <= 16_384,
            "body",
            format!("{body} bytes"),
            "at most 16384 bytes",
        )?;
        bound(
            (1..=64).contains(&self.rules.len()),
            "rules",
            format!("{} rules", self.rules.len()),
            "1 to 64",
        )?;
        self.rules
            .iter()
            .enumerate()
            .map(|(at, rule)| rule.check(&format!("rules[{at}]")))
            .collect()
    }
}

impl Rule {
    fn check(&self, at: &str) -> Result<Quota, ConfigError> {
        let refuse =
            |field: &str, message: String| Err(ConfigError::new(format!("{at}.{field}"), message));
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if self.name.is_empty() || self.name.len() > 64 || !self.name.bytes().all(plain) {
            return refuse(
                "name",
                format!(
                    "{:?} must be 1 to 64 letters, digits, '-', '_' or '.'",
                    self.name
                ),
            );
        }
        if let Some(path) = self.paths.iter().find(|path| !path.starts_with('/')) {
            return refuse("paths", format!("{path:?} must begin with '/'"));
        }
        if self.cost == 0 {
            return refuse("cost", "0 is out of bounds: at least 1".to_owned());
        }
        if self.limits.is_empty() {
            return refuse(
                "limits",
                "a rule needs at least one limit, like {\"rate\": \"100/minute\"}".to_owned(),
            );
        }
        for (index, limit) in self.limits.iter().enumerate() {
            let capacity = match limit.burst {
                Some(Burst::Cells(cells)) if !(1..=1_000_000_000).contains(&cells) => {
                    let field = format!("limits[{index}].burst");
                    return refuse(&field, format!("{cells} is out of bounds: 1 to 1000000000"));
                }
                Some(Burst::Cells(cells)) => cells,
                Some(Burst::Rate(rate)) => rate.count.min(limit.rate.count),
                None => limit.rate.count,
            };
            if limit.algorithm == Algorithm::SlidingWindow
                && matches!(limit.burst, Some(Burst::Cells(_)))
            {
                let field = format!("limits[{index}].burst");
                return refuse(
                    &field,
                    "a sliding window has no burst in cells: give a rate like \"20/second\""
                        .to_owned(),
                );
            }
            if self.cost > capacity {
                return refuse(
                    "cost",
                    format!(
                        "{} is more than limits[{index}] ever admits at once ({capacity})",
                        self.cost
                    ),
                );
            }
        }
        Quota::new(&self.name, &self.limits).or_else(|bytes| {
            refuse("limits", format!("they need {bytes} bytes of state, at most {MOST_BYTES}: use fewer limits in one rule"))
        })
    }
}
