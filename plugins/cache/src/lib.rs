//! A shared HTTP cache (RFC 9111, RFC 9110, RFC 9211) as a pure filter.
//!
//! Two tiers. The second is the store that an edge's workers or instances share; the first is this instance's own
//! memory, which saves fetching and decoding a body again. What has to be one across workers is in a marker of at most
//! 64 bytes per key, read with every lookup and changed by atomic updates only: an invalidation, a newer response or a
//! new `Vary` counts everywhere at once. Where the edge has no shared store, or it fails, the first tier works alone.
//!
//! A miss streams through while it is captured, up to a bound. Beyond any bound the exchange passes through and says
//! so: in `Cache-Status`, in a counter, by the same name.
//!
//! ```
//! use edgeweir_filter::{Script, load};
//!
//! let cache: edgeweir_cache::Cache = load(b"{}").unwrap();
//! let mut edge = Script::new(cache).get("/").origin(200, &[("cache-control", "max-age=60")], "body");
//! assert_eq!(edge.run().text("cache-status"), "edgeweir; fwd=uri-miss; fwd-status=200; ttl=60; stored");
//! assert_eq!(edge.run().text("cache-status"), "edgeweir; hit; ttl=60");
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)
)]

mod admin;
mod adopt;
mod answer;
mod check;
mod conditional;
mod config;
mod directives;
mod exchange;
mod fill;
mod flights;
mod freshness;
mod groups;
mod invalidate;
mod key;
mod l3;
mod lookup;
mod marker;
mod memory;
mod operate;
mod parts;
mod preset;
mod ranges;
mod reason;
mod refresh;
mod rules;
mod standing;
mod status;
mod storable;
mod store;
mod stored;
mod successors;
mod targeted;
mod uncacheable;
mod vary;
mod warm;
mod work;

use std::rc::Rc;

use edgeweir_filter::{ConfigError, Configured, Exchange, Filter, Task, Wants};

pub use config::{Config, KeyConfig};
pub use reason::{Bypass, Missed, Refused};
pub use rules::Rule;

/// The cache filter: its settings and the first tier.
pub struct Cache {
    core: Rc<store::Core>,
}

impl Configured for Cache {
    const NAME: &'static str = "cache";
    type Config = Config;

    fn new(config: Config) -> Result<Self, ConfigError> {
        let settings = config::Settings::try_from(config)?;
        Ok(Self {
            core: Rc::new(store::Core::new(settings)),
        })
    }
}

impl Filter for Cache {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn exchange(&self) -> Box<dyn Exchange> {
        Box::new(exchange::CacheExchange::new(Rc::clone(&self.core)))
    }

    fn wants(&self) -> Wants {
        let settings = &self.core.settings;
        Wants {
            peer: settings.prefetches > 0,
            route: settings.background.enabled,
            shared_bytes: if settings.shared {
                settings.l2_bytes
            } else {
                0
            },
            ..Wants::default()
        }
    }

    fn startup(&self) -> Vec<Box<dyn Task>> {
        match self.core.settings.enabled && !self.core.settings.warm.urls.is_empty() {
            true => vec![Box::new(warm::Warm::new(&self.core))],
            false => Vec::new(),
        }
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.core.settings.shared {
            notes.push(
                "`shared` is off: each worker or instance has a cache of its own, and an invalidation reaches only the one that saw it"
                    .to_owned(),
            );
        }
        notes
    }
}
