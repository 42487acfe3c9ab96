//! What an operator may set.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::RangeInclusive;

use schemars::{JsonSchema, Schema};
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::cost::Cost;
use crate::limit::{Algorithm, Burst, Limit};
use crate::part::Part;
use crate::rate::Rate;

/// Configuration of the rate limiter. With none at all: each client address gets `100/minute`, at most `20/second`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Rules in order: the first that matches a request decides it. At least 1, at most 64.
    #[schemars(length(min = 1, max = 64))]
    pub rules: Vec<Rule>,
    /// Blocks of addresses (`192.0.2.0/24`, `2001:db8::/32`, one address) under names, for `clients` and `group`. At most
    /// 64 groups of 1 to 1,024 blocks.
    #[serde(deserialize_with = "distinct")]
    #[schemars(transform = some_groups)]
    pub groups: BTreeMap<String, Vec<String>>,
    /// How many proxies in front of the edge are trusted to have appended to `X-Forwarded-For`, beside the connection
    /// itself. 0 (the default) uses the connection's address alone. At most 16.
    #[schemars(range(max = 16))]
    pub trusted_hops: u8,
    /// Leading bits of an IPv6 address that make one client: 64 by default, 32 to 128.
    #[schemars(range(min = 32, max = 128))]
    pub ipv6_prefix: u8,
    /// Status of a refusal: 429 by default, 400 to 599.
    #[schemars(range(min = 400, max = 599))]
    pub status: u16,
    /// Body of a refusal instead of problem details (RFC 9457). At most 16 KiB.
    #[schemars(length(max = 16_384))]
    pub body: Option<String>,
    /// Media type of `body`: `text/plain; charset=utf-8` by default.
    pub content_type: String,
    /// Which responses say `RateLimit-Policy` and `RateLimit`: `all` (the default) whose requests limits refused or
    /// `limits` admitted, `refused` ones alone, or `none`.
    pub fields: Told,
    /// Also send `X-RateLimit-Limit`, `-Remaining` and `-Reset`. Off by default.
    pub x_ratelimit: bool,
    /// The store that rules of global scope are decided in. None by default.
    pub store: Option<StoreConfig>,
    /// Status where a rule is `closed` and has no state: 503 by default, 400 to 599.
    #[schemars(range(min = 400, max = 599))]
    pub closed_status: u16,
}

/// An `edgeweir store`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// The cluster (Envoy) or authority (wasi:http) of the store: 1 to 256 characters.
    #[schemars(length(min = 1, max = 256))]
    pub to: String,
    /// Where its paths begin: begins and ends with `/`, at most 256 characters. Default `/`.
    #[serde(default = "path")]
    #[schemars(length(min = 1, max = 256))]
    pub path: String,
    /// Sent as `Authorization: Bearer <token>`: 1 to 512 characters. Default: none.
    #[serde(default)]
    #[schemars(length(min = 1, max = 512))]
    pub token: Option<String>,
    /// Milliseconds a decision may take, after which the rule goes on without it. 1 to 10000. Default 20.
    #[serde(default = "timeout")]
    #[schemars(range(min = 1, max = 10_000))]
    pub timeout_ms: u64,
}

fn path() -> String {
    "/".to_owned()
}

fn timeout() -> u64 {
    20
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rules: vec![Rule::default()],
            groups: BTreeMap::new(),
            trusted_hops: 0,
            ipv6_prefix: 64,
            status: 429,
            body: None,
            content_type: "text/plain; charset=utf-8".to_owned(),
            fields: Told::All,
            x_ratelimit: false,
            store: None,
            closed_status: 503,
        }
    }
}

/// Which responses carry the fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// Responses to requests that `limits` admitted, and refusals by limits of any kind.
    #[default]
    All,
    /// Refusals.
    Refused,
    /// None: `Retry-After` alone says when to come back.
    None,
}

/// One rule: whom it concerns, how they are told apart, and how much they may.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// Name in fields, counters, logs and problem details, another for each rule: letters, digits, `-`, `_` and `.`, at
    /// most 64.
    #[schemars(length(min = 1, max = 64))]
    pub name: String,
    /// Paths it applies to: exact (`/login`), by prefix (`/api/*`), with named segments (`/users/{id}`). None: all. At
    /// most 64.
    #[schemars(length(max = 64))]
    pub paths: Vec<String>,
    /// Methods it applies to. None: all. At most 64.
    #[schemars(length(max = 64))]
    pub methods: Vec<String>,
    /// Clients it applies to: names of `groups`, or blocks of addresses. None: all. At most 1,024.
    #[schemars(length(max = 1_024))]
    pub clients: Vec<String>,
    /// Further conditions, all of which must hold. At most 16.
    #[schemars(length(max = 16))]
    pub when: Vec<Condition>,
    /// What happens to a request that matches: `limit` (the default), `allow` without any limit, or `deny` with 403.
    pub action: Action,
    /// What makes a client: every combination of these has its own limits. None: all clients share one. At most 7.
    #[schemars(length(max = 7))]
    pub key: Vec<Part>,
    /// Where the default of `limits` comes from: `strict`, `standard` (the default) or `generous`.
    pub preset: Preset,
    /// The limits, all of which must admit. Those of `preset` by default, none where `concurrency` or `adaptive` is set. Their
    /// state must fit in 60 bytes: 8 for a GCRA limit and for a burst that is a rate, 16 for a sliding window.
    #[schemars(length(max = 7))]
    pub limits: Option<Vec<Limit>>,
    /// Other limits for some clients.
    pub tiers: Option<Tiers>,
    /// Cells a request costs: 1 by default, at most what the limits admit at once. A number, or what a field of the
    /// request or the response says.
    pub cost: Cost,
    /// Requests that a client may have under way at once in one worker or instance: 1 to 1,000,000. Not limited by
    /// default.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub concurrency: Option<u32>,
    /// A limit of what the rule has under way at once in one worker or instance that follows the origin's latency. None by
    /// default.
    pub adaptive: Option<Follow>,
    /// Percent of every limit that is left at the emergency levels 1, 2 and 3: 75, 50 and 25 by default; 1 to 100, none more
    /// than the one before.
    #[schemars(inner(range(min = 1, max = 100)))]
    pub emergency: [u8; 3],
    /// Decide, count and report, but never refuse, nor tell clients; the next rule that matches decides. Off by default.
    pub shadow: bool,
    /// Where `limits` are counted: `local` (the default), on this machine, or `global`, in the store, once for all that
    /// share it.
    pub scope: Scope,
    /// What happens when the shared state can't be reached: `open` (the default) admits, under global scope what the same
    /// limits admit locally; `closed` answers `closed_status`.
    pub on_store_failure: OnStoreFailure,
}

impl Default for Rule {
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            paths: Vec::new(),
            methods: Vec::new(),
            clients: Vec::new(),
            when: Vec::new(),
            action: Action::Limit,
            key: vec![Part::Client],
            preset: Preset::Standard,
            limits: None,
            tiers: None,
            cost: Cost::Fixed(1),
            concurrency: None,
            adaptive: None,
            emergency: [75, 50, 25],
            shadow: false,
            scope: Scope::Local,
            on_store_failure: OnStoreFailure::Open,
        }
    }
}

/// Limits for a rule that sets none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// `10/minute`, 5 of them at once: signing in, resetting passwords, whatever is worth guessing at.
    Strict,
    /// `100/minute`, at most `20/second`: pages that people read.
    #[default]
    Standard,
    /// `1200/minute`, at most `100/second`: programs that call an API.
    Generous,
}

impl Preset {
    /// Its limit.
    pub fn limit(self) -> Limit {
        const SECOND: u64 = 1_000_000_000;
        let a_minute = |count| Rate {
            count,
            per: 60 * SECOND,
        };
        let a_second = |count| Burst::Rate(Rate { count, per: SECOND });
        let (rate, burst) = match self {
            Self::Strict => (a_minute(10), Burst::Cells(5)),
            Self::Standard => (a_minute(100), a_second(20)),
            Self::Generous => (a_minute(1_200), a_second(100)),
        };
        Limit {
            rate,
            burst: Some(burst),
            algorithm: Algorithm::Gcra,
        }
    }
}

/// What happens to a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The limits decide.
    #[default]
    Limit,
    /// It goes on.
    Allow,
    /// It is answered 403.
    Deny,
}

/// Something that must hold of a request.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// What is looked at.
    pub by: Part,
    /// It is one of these, byte for byte. None: it is there at all. At most 256.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub is: Vec<String>,
}

/// Limits by the value of a part.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tiers {
    /// Which part chooses; where none of `limits` has its value, the rule's own limits hold.
    pub by: Part,
    /// Limits by value, which is also a part of the key. 1 to 16. A value is also part of a name: letters, digits, `-`,
    /// `_` and `.`, at most 64.
    #[serde(deserialize_with = "distinct")]
    #[schemars(transform = some_tiers)]
    pub limits: BTreeMap<String, Vec<Limit>>,
}

/// A limit of requests under way that follows the origin's latency: one more after a round of fast responses, a tenth less
/// after a slow one or none at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Follow {
    /// The time to a response's head that is still fast, milliseconds: 1 to 60,000.
    #[schemars(range(min = 1, max = 60_000))]
    pub latency_ms: u32,
    /// Never fewer than these: 4 by default, at least 1.
    #[serde(default = "floor")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub floor: u32,
    /// Never more than these, and what it begins with: 1,000 by default, at most 1,000,000.
    #[serde(default = "ceiling")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub ceiling: u32,
}

fn floor() -> u32 {
    4
}

fn ceiling() -> u32 {
    1_000
}

/// Where limits are counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// On this machine, as exactly as the edge can.
    #[default]
    Local,
    /// In the store.
    Global,
}

/// What happens without the shared state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnStoreFailure {
    /// Requests are admitted, under global scope as far as the same limits admit them locally.
    #[default]
    Open,
    /// Requests are answered `closed_status`.
    Closed,
}

fn some_groups(schema: &mut Schema) {
    lists_by_name(schema, 0..=64, 1..=1_024);
}

fn some_tiers(schema: &mut Schema) {
    lists_by_name(schema, 1..=16, 1..=7);
}

/// The schema of so many lists of so many values each.
fn lists_by_name(schema: &mut Schema, lists: RangeInclusive<u32>, values: RangeInclusive<u32>) {
    schema.insert("minProperties".into(), (*lists.start()).into());
    schema.insert("maxProperties".into(), (*lists.end()).into());
    let list = schema.get_mut("additionalProperties");
    if let Some(list) = list.and_then(|list| list.as_object_mut()) {
        list.insert("minItems".into(), (*values.start()).into());
        list.insert("maxItems".into(), (*values.end()).into());
    }
}

/// Values by name, none of them twice: RFC 8259 §4 leaves open which of two would count.
fn distinct<'de, V: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, V>, D::Error> {
    deserializer.deserialize_map(Distinct(PhantomData))
}

struct Distinct<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for Distinct<V> {
    type Value = BTreeMap<String, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of values by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut all = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if all.contains_key(&name) {
                let message = format!("{name:?} is there twice: give each its own name");
                return Err(A::Error::custom(message));
            }
            all.insert(name, map.next_value()?);
        }
        Ok(all)
    }
}
