//! A shared HTTP cache (RFC 9110, 9111, 5861, 9211, 9213, 9875) as a pure filter.
//!
//! Three tiers. The first is this instance's own memory; the second the store that an edge's workers or instances share;
//! the third, where one is configured, an HTTP store that outlives the edge. What has to be one across workers is in
//! values of at most 64 bytes that only atomic updates change:
//!
//! - a *marker* per key: its generation, the fields `Vary` named, and which of at most eight places holds which variant;
//! - *marks* of groups, URIs, patterns and everything: until when what was asked for is unusable or stale. Nothing is
//!   searched for: a response is judged by them when it is used;
//! - 256 *clocks*: one moves with every change that concerns a key. As long as it stands still, what a worker knows of the
//!   key is right, so a hit from the first tier reads one shared value.
//!
//! A miss streams through while it is captured, up to a bound; others that miss the same key in the same worker wait for
//! it. (Not those in other workers: a lease in shared data would make them wait out the time of a worker that is gone.)
//! Beyond any bound the exchange passes through and says so: in `Cache-Status`, in a counter, by the same name. Where the
//! edge has no shared store, or it fails, the first tier works alone.
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

mod aboard;
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
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod groups;
mod invalidate;
mod judging;
mod keep;
mod kept;
mod key;
mod l3;
mod lookup;
mod marker;
mod meant;
mod memory;
mod news;
mod operate;
mod parts;
mod preset;
mod ranges;
mod reach;
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
mod third;
mod tiers;
mod uncacheable;
mod vary;
mod warm;
mod ways;
mod work;

use std::rc::Rc;

use edgeweir_filter::{ConfigError, Configured, Exchange, Filter, Task, To, Wants};

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
            route: settings.background.enabled && settings.background.to == To::Onward,
            emergency: settings.heeds_emergencies(),
            shared_bytes: if settings.shared {
                settings.l2_bytes
            } else {
                0
            },
            shared_released_percent: settings.emergency_released,
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

    fn targets_are_hosts(&self) -> Result<(), ConfigError> {
        self.core.targets_are_hosts()
    }

    fn routes_rewrite(&self) {
        self.core.ways.borrow_mut().routes = true;
    }
}
