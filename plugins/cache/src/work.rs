//! Settings of what the cache does besides answering: collapsing, refreshing, warming, predicting.

use std::time::Duration;

use bytes::Bytes;
use edgeweir_filter::{ConfigError, To, bounded};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::key::{self, Target};

/// Concurrent misses for one key that share one request to the origin.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CollapseConfig {
    /// Requests of one instance that may wait for the same response; more go to the origin. 0 (no collapsing) to 10000.
    /// Default 1000.
    #[schemars(range(max = 10000))]
    pub max_waiters: u64,
    /// Milliseconds they wait at most before they go to the origin themselves. 1 to 60000. Default 5000.
    #[schemars(range(min = 1, max = 60000))]
    pub timeout_ms: u64,
}

impl Default for CollapseConfig {
    fn default() -> Self {
        Self {
            max_waiters: 1000,
            timeout_ms: 5000,
        }
    }
}

/// Requests of the cache's own: refreshes while a stale response is used, refreshes ahead, warming, prefetches.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BackgroundConfig {
    /// Whether there are any. Default true. Without them the first request after a response went stale validates it,
    /// and only those that come meanwhile get it stale.
    pub enabled: bool,
    /// Where they go: a cluster (Envoy) or an authority (wasi:http, needs the client). Default: where the request went that
    /// gave rise to them; in Envoy that is the cluster of its route, past the route's rewrites and added fields, so there
    /// are some only for what was seen to go on as it came. A component sends what goes to an authority with that as its
    /// `Host`: for keys of other hosts there are none.
    #[schemars(length(min = 1, max = 256))]
    pub cluster: Option<String>,
    /// Milliseconds such a request may take. 1 to 600000. Default 10000.
    #[schemars(range(min = 1, max = 600000))]
    pub timeout_ms: u64,
    /// Seconds for which an instance makes no further such request for a key of which one failed, nor has a client make it, and
    /// what is stale is used as far as it may be. 0 (the next client's request leads to the next one) to 3600. Default 2.
    #[schemars(range(max = 3600))]
    pub retry_seconds: u64,
}

impl Default for BackgroundConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            cluster: None,
            timeout_ms: 10_000,
            retry_seconds: 2,
        }
    }
}

/// Responses fetched before anybody asks.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WarmConfig {
    /// Absolute URLs fetched when the filter is loaded, by one worker or instance, in order. At most 10000. In Envoy
    /// `background.cluster` must be set. Default: none.
    #[schemars(length(max = 10000))]
    pub urls: Vec<String>,
    /// Requests a second at most. 1 to 10000. Default 20.
    #[schemars(range(min = 1, max = 10000))]
    pub per_second: u64,
}

impl Default for WarmConfig {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            per_second: 20,
        }
    }
}

/// Prefetching what clients are likely to ask for next.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PredictConfig {
    /// Prefetches a second of one instance at most. 0 (none) to 1000. Default: that of the preset, 0.
    #[schemars(range(max = 1000))]
    pub per_second: Option<u64>,
    /// Keys whose successors are remembered. 16 to 100000. Default 2048.
    #[schemars(range(min = 16, max = 100000))]
    pub keys: u64,
}

impl Default for PredictConfig {
    fn default() -> Self {
        Self {
            per_second: None,
            keys: 2048,
        }
    }
}

/// Checked settings of collapsing.
#[derive(Clone, Copy, Debug)]
pub struct Collapse {
    /// Waiters of one key at most.
    pub waiters: usize,
    /// The longest wait.
    pub limit: Duration,
}

/// Checked settings of the cache's own requests.
#[derive(Clone, Debug)]
pub struct Background {
    /// Whether there are any.
    pub enabled: bool,
    /// Where they go.
    pub to: To,
    /// The longest one may take.
    pub timeout: Duration,
    /// How long there is none for a key after one that failed.
    pub retry: Duration,
}

/// An absolute URL to be fetched ahead.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Url {
    /// `http` or `https`.
    pub scheme: String,
    /// Host and port.
    pub authority: String,
    /// Path and query.
    pub path: String,
}

/// Checked settings of warming.
#[derive(Clone, Debug)]
pub struct Warm {
    /// What is fetched.
    pub urls: Vec<Url>,
    /// Time between two requests.
    pub pace: Duration,
}

impl TryFrom<CollapseConfig> for Collapse {
    type Error = ConfigError;
    fn try_from(config: CollapseConfig) -> Result<Self, ConfigError> {
        Ok(Self {
            waiters: bounded("collapse.max_waiters", config.max_waiters, 0, 10_000)?,
            limit: bounded("collapse.timeout_ms", config.timeout_ms, 1, 60_000)
                .map(Duration::from_millis)?,
        })
    }
}

impl TryFrom<BackgroundConfig> for Background {
    type Error = ConfigError;
    fn try_from(config: BackgroundConfig) -> Result<Self, ConfigError> {
        let to = match config.cluster {
            None => To::Onward,
            Some(name) if !name.is_empty() && name.len() <= 256 => To::Named(name),
            Some(name) => {
                let message = format!("is {name:?}, must have 1 to 256 bytes");
                return Err(ConfigError::new("background.cluster", message));
            }
        };
        Ok(Self {
            enabled: config.enabled,
            to,
            timeout: bounded("background.timeout_ms", config.timeout_ms, 1, 600_000)
                .map(Duration::from_millis)?,
            retry: bounded("background.retry_seconds", config.retry_seconds, 0, 3600)
                .map(Duration::from_secs)?,
        })
    }
}

impl TryFrom<WarmConfig> for Warm {
    type Error = ConfigError;
    fn try_from(config: WarmConfig) -> Result<Self, ConfigError> {
        if config.urls.len() > 10_000 {
            let message = format!("has {} URLs, at most 10000 are allowed", config.urls.len());
            return Err(ConfigError::new("warm.urls", message));
        }
        let urls = config.urls.iter().enumerate().map(|(at, text)| {
            Url::parse(text).ok_or_else(|| {
                let message = format!(
                    "is {text:?}, must be http:// or https://, a host, and a path without blanks, at most 2048 bytes"
                );
                ConfigError::new(format!("warm.urls[{at}]"), message)
            })
        });
        let per_second: u64 = bounded("warm.per_second", config.per_second, 1, 10_000)?;
        Ok(Self {
            urls: urls.collect::<Result<_, _>>()?,
            pace: Duration::from_nanos(1_000_000_000 / per_second),
        })
    }
}

impl Url {
    /// Where it is aimed at.
    pub fn target(&self) -> Target {
        let scheme = Bytes::copy_from_slice(self.scheme.as_bytes());
        Target {
            authority: key::authority(&scheme, &Bytes::copy_from_slice(self.authority.as_bytes())),
            path: Bytes::copy_from_slice(self.path.as_bytes()),
            scheme,
        }
    }

    /// An absolute `http` or `https` URL without user, fragment, blanks or control characters.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > 2048 || !text.bytes().all(|byte| (b'!'..=b'~').contains(&byte)) {
            return None;
        }
        let (scheme, rest) = text.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(at);
        let good = matches!(scheme.as_str(), "http" | "https")
            && !authority.is_empty()
            && !authority.contains('@')
            && !path.contains('#');
        good.then(|| Self {
            scheme,
            authority: authority.to_owned(),
            path: match path.starts_with('/') {
                true => path.to_owned(),
                false => format!("/{path}"),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_absolute() {
        for (text, want) in [
            (
                "https://a.example/x?y",
                Some(("https", "a.example", "/x?y")),
            ),
            (
                "HTTP://a.example:8080",
                Some(("http", "a.example:8080", "/")),
            ),
            ("http://a.example?y", Some(("http", "a.example", "/?y"))),
            ("/x", None),
            ("ftp://a.example/", None),
            ("http://u@a.example/", None),
            ("http:///x", None),
            ("http://a.example/ x", None),
            ("http://a.example/#x", None),
        ] {
            let url = Url::parse(text);
            let got = url.as_ref().map(|url| {
                (
                    url.scheme.as_str(),
                    url.authority.as_str(),
                    url.path.as_str(),
                )
            });
            assert_eq!(got, want, "{text}");
        }
    }
}
