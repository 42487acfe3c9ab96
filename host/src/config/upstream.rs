//! `[upstream.NAME]`: where requests go, over what, and what is done when that fails.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use edgeweir_host_formats::envoy::Bounds;
use edgeweir_host_upstream as upstream;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use toml::Spanned;

use super::{Authority, Limits, Within};

/// `[upstream.NAME]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Fields")]
pub struct Upstream {
    /// `host:port`; the first of several.
    pub address: Authority,
    /// The others.
    pub others: Vec<Authority>,
    /// Every address a name resolves to is an endpoint of its own.
    pub every_address: bool,
    /// How often names are looked up then, milliseconds.
    pub resolve_ms: Within<1_000, 86_400_000>,
    /// Speak HTTP/2, on a clear connection with prior knowledge.
    pub http2: bool,
    /// Speak what ALPN gives.
    pub negotiated: bool,
    /// Speak TLS.
    pub tls: Option<UpstreamTls>,
    /// The longest a connection may take to open, milliseconds.
    pub connect_timeout_ms: Within<1, 600_000>,
    /// The longest wait for a response head once the request has gone out, milliseconds.
    pub timeout_ms: Within<1, 3_600_000>,
    /// The longest wait between two pieces of a response body, milliseconds.
    pub idle_timeout_ms: Within<1, 86_400_000>,
    /// What is sent again.
    pub retry: Option<Retry>,
    /// Bounds of what is under way, and when an endpoint is left alone.
    pub breaker: Option<Breaker>,
    /// Bounds of what is under way alone; of a bootstrap of Envoy's.
    pub bounds: Option<Bounds>,
    /// Probes.
    pub health: Option<Health>,
    /// What share of failures puts an endpoint aside.
    pub outlier: Option<Outlier>,
}

/// As it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    address: Option<Authority>,
    #[serde(default)]
    addresses: Vec<Authority>,
    #[serde(default)]
    every_address: bool,
    #[serde(default = "resolve")]
    resolve_ms: Within<1_000, 86_400_000>,
    http2: Option<bool>,
    #[serde(default, deserialize_with = "tls")]
    tls: Option<UpstreamTls>,
    #[serde(default = "connect_timeout")]
    connect_timeout_ms: Within<1, 600_000>,
    #[serde(default = "head_timeout")]
    timeout_ms: Within<1, 3_600_000>,
    #[serde(default = "idle_timeout")]
    idle_timeout_ms: Within<1, 86_400_000>,
    retry: Option<Retry>,
    breaker: Option<Breaker>,
    health: Option<Health>,
    outlier: Option<Outlier>,
}

impl TryFrom<Fields> for Upstream {
    type Error = &'static str;

    fn try_from(fields: Fields) -> Result<Self, &'static str> {
        let mut all = fields.address.into_iter().chain(fields.addresses);
        let Some(address) = all.next() else {
            return Err(
                "missing field `address`: an upstream has an `address`, or several `addresses`",
            );
        };
        Ok(Self {
            address,
            others: all.collect(),
            every_address: fields.every_address,
            resolve_ms: fields.resolve_ms,
            http2: fields.http2 == Some(true),
            negotiated: fields.http2.is_none() && fields.tls.is_some(),
            tls: fields.tls,
            connect_timeout_ms: fields.connect_timeout_ms,
            timeout_ms: fields.timeout_ms,
            idle_timeout_ms: fields.idle_timeout_ms,
            retry: fields.retry,
            breaker: fields.breaker,
            bounds: None,
            health: fields.health,
            outlier: fields.outlier,
        })
    }
}

/// `tls = true`, or `[upstream.NAME.tls]`.
#[derive(Clone, Default, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamTls {
    /// Certificates of authorities, PEM; default: the system's.
    pub ca: Option<Spanned<PathBuf>>,
    /// The name the certificate must have; default: the host of each address.
    pub server_name: Option<Spanned<String>>,
}

fn tls<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<UpstreamTls>, D::Error> {
    struct Either;
    impl<'de> Visitor<'de> for Either {
        type Value = Option<UpstreamTls>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "true, or a table with `ca` and `server_name`")
        }
        fn visit_bool<E: Error>(self, on: bool) -> Result<Self::Value, E> {
            Ok(on.then(UpstreamTls::default))
        }
        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            UpstreamTls::deserialize(MapAccessDeserializer::new(map)).map(Some)
        }
    }
    deserializer.deserialize_any(Either)
}

/// `[upstream.NAME.retry]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// Repetitions of one request.
    pub attempts: Within<1, 10>,
    /// Answers that are as good as none.
    pub statuses: Vec<Within<502, 504>>,
    /// The longest pause before the first repetition, milliseconds; it doubles with each.
    pub base_ms: Within<1, 60_000>,
    /// The longest pause before any, milliseconds.
    pub max_ms: Within<1, 60_000>,
    /// Repetitions under way, per cent of the requests under way.
    pub budget_percent: Within<0, 100>,
    /// Repetitions that may always be under way.
    pub budget_least: Within<0, 10_000>,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: Within::of(2),
            statuses: Vec::new(),
            base_ms: Within::of(25),
            max_ms: Within::of(250),
            budget_percent: Within::of(20),
            budget_least: Within::of(3),
        }
    }
}

/// `[upstream.NAME.breaker]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Breaker {
    /// Requests at once, each of which is a connection over HTTP/1.1; more wait.
    pub max_requests: Within<1, 1_000_000>,
    /// Requests that may wait; more are answered with 503.
    pub max_pending: Within<0, 1_000_000>,
    /// Failures in a row after which an endpoint is left alone.
    pub failures: Within<1, 1_000>,
    /// How long it is left alone before one request tries, milliseconds.
    pub open_ms: Within<1, 3_600_000>,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            max_requests: Within::of(1_024),
            max_pending: Within::of(1_024),
            failures: Within::of(5),
            open_ms: Within::of(5_000),
        }
    }
}

/// `[upstream.NAME.health]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// The path asked for with GET; 2xx is good.
    pub path: Spanned<String>,
    /// Whom it is asked of; default: the address.
    pub host: Option<Authority>,
    /// From one probe to the next, milliseconds.
    #[serde(default = "probe_interval")]
    pub interval_ms: Within<10, 3_600_000>,
    /// The longest a probe may take, milliseconds.
    #[serde(default = "probe_timeout")]
    pub timeout_ms: Within<1, 600_000>,
    /// Good probes in a row that bring an endpoint back.
    #[serde(default = "probes_healthy")]
    pub healthy: Within<1, 100>,
    /// Bad probes in a row that put it aside.
    #[serde(default = "probes_unhealthy")]
    pub unhealthy: Within<1, 100>,
}

/// `[upstream.NAME.outlier]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Outlier {
    /// Failures, per cent of an endpoint's requests in an interval.
    pub percent: Within<1, 100>,
    /// Requests in an interval below which nothing is concluded.
    pub requests: Within<1, 1_000_000>,
    /// Over what the share is taken, milliseconds.
    pub interval_ms: Within<10, 3_600_000>,
    /// How long it is put aside the first time, milliseconds; longer each time in a row.
    pub eject_ms: Within<10, 3_600_000>,
    /// Endpoints put aside at once, per cent.
    pub max_percent: Within<1, 100>,
}

impl Default for Outlier {
    fn default() -> Self {
        Self {
            percent: Within::of(50),
            requests: Within::of(20),
            interval_ms: Within::of(10_000),
            eject_ms: Within::of(30_000),
            max_percent: Within::of(50),
        }
    }
}

/// The most that may be under way, or wait.
const MOST_REQUESTS: u64 = 1_000_000;

/// What is wrong with a value, where, and the field below the upstream's table.
type Wrong = (Range<usize>, &'static str, String);

impl Upstream {
    /// An upstream on its defaults.
    pub fn at(address: impl Into<String>) -> Self {
        Self {
            address: Authority(address.into()),
            others: Vec::new(),
            every_address: false,
            resolve_ms: resolve(),
            http2: false,
            negotiated: false,
            tls: None,
            connect_timeout_ms: connect_timeout(),
            timeout_ms: head_timeout(),
            idle_timeout_ms: idle_timeout(),
            retry: None,
            breaker: None,
            bounds: None,
            health: None,
            outlier: None,
        }
    }

    /// All its addresses.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.address)
            .chain(&self.others)
            .map(|it| it.0.as_str())
    }

    /// All of it in one value; `resolve` makes the path of a file.
    ///
    /// # Errors
    /// A file of certificates that cannot be read or holds none, a name or path that is none.
    pub fn settings(
        &self,
        limits: &Limits,
        resolve: impl Fn(&Path) -> PathBuf,
    ) -> Result<upstream::Settings, Wrong> {
        let mut settings = upstream::Settings::at("");
        settings.addresses = self.addresses().map(str::to_owned).collect();
        settings.every_address = self.every_address.then(|| self.resolve_ms.millis());
        settings.protocol = match (self.http2, self.negotiated) {
            (true, _) => upstream::Protocol::Http2,
            (false, true) => upstream::Protocol::Negotiated,
            (false, false) => upstream::Protocol::Http1,
        };
        settings.tls = match &self.tls {
            None => None,
            Some(tls) => Some(of_tls(tls, &resolve)?),
        };
        settings.connect_timeout = self.connect_timeout_ms.millis();
        settings.timeout = self.timeout_ms.millis();
        settings.idle_timeout = self.idle_timeout_ms.millis();
        settings.headers = limits.headers.size();
        settings.header_bytes = limits.header_kib.size() * 1024;
        if let Some(retry) = &self.retry {
            settings.retry = upstream::retry::Policy {
                attempts: small(retry.attempts),
                statuses: retry.statuses.iter().map(|it| it.get() as u16).collect(),
                base: retry.base_ms.millis(),
                most: retry.max_ms.millis(),
                budget_percent: small(retry.budget_percent),
                budget_least: small(retry.budget_least),
            };
        }
        if let Some(breaker) = &self.breaker {
            settings.requests = Some(breaker.max_requests.size());
            settings.pending = breaker.max_pending.size();
            settings.breaker = upstream::breaker::Policy {
                failures: small(breaker.failures),
                open: breaker.open_ms.millis(),
            };
        }
        if let Some(bounds) = &self.bounds {
            let size = |number| usize::try_from(number).unwrap_or(usize::MAX);
            settings.requests = Some(size(bounds.requests.min(MOST_REQUESTS)));
            settings.pending = size(bounds.pending.min(MOST_REQUESTS));
        }
        if let Some(health) = &self.health {
            let path = health.path.get_ref();
            if !path.starts_with('/') || path.parse::<http::uri::PathAndQuery>().is_err() {
                let message = format!("\"{path}\" is not a path, such as \"/healthz\"");
                return Err((health.path.span(), "health.path", message));
            }
            settings.health = Some(upstream::health::Policy {
                path: path.clone(),
                host: health.host.as_ref().map(|it| it.0.clone()),
                interval: health.interval_ms.millis(),
                timeout: health.timeout_ms.millis(),
                healthy: small(health.healthy),
                unhealthy: small(health.unhealthy),
            });
        }
        settings.outlier = self.outlier.as_ref().map(|it| upstream::outlier::Policy {
            percent: small(it.percent),
            requests: small(it.requests),
            interval: it.interval_ms.millis(),
            eject: it.eject_ms.millis(),
            most_percent: small(it.max_percent),
        });
        Ok(settings)
    }
}

fn of_tls(tls: &UpstreamTls, resolve: impl Fn(&Path) -> PathBuf) -> Result<upstream::Tls, Wrong> {
    let roots = match &tls.ca {
        None => None,
        Some(ca) => {
            let file = resolve(ca.get_ref());
            let wrong = |why: String| (ca.span(), "tls.ca", format!("{}: {why}", file.display()));
            let pem = std::fs::read(&file).map_err(|error| wrong(error.to_string()))?;
            upstream::roots_of(&pem).map_err(wrong)?;
            Some(pem)
        }
    };
    let server_name = match &tls.server_name {
        None => None,
        Some(name) => {
            let text = name.get_ref().clone();
            if rustls::pki_types::ServerName::try_from(text.clone()).is_err() {
                let message = format!("\"{text}\" is not a host name");
                return Err((name.span(), "tls.server_name", message));
            }
            Some(text)
        }
    };
    Ok(upstream::Tls { roots, server_name })
}

/// A number whose upper bound is below 2^32.
fn small<const MIN: u64, const MAX: u64>(number: Within<MIN, MAX>) -> u32 {
    u32::try_from(number.get()).unwrap_or(u32::MAX)
}

fn resolve() -> Within<1_000, 86_400_000> {
    Within::of(30_000)
}
fn connect_timeout() -> Within<1, 600_000> {
    Within::of(5_000)
}
fn head_timeout() -> Within<1, 3_600_000> {
    Within::of(60_000)
}
fn idle_timeout() -> Within<1, 86_400_000> {
    Within::of(300_000)
}
fn probe_interval() -> Within<10, 3_600_000> {
    Within::of(5_000)
}
fn probe_timeout() -> Within<1, 600_000> {
    Within::of(1_000)
}
fn probes_healthy() -> Within<1, 100> {
    Within::of(2)
}
fn probes_unhealthy() -> Within<1, 100> {
    Within::of(3)
}
