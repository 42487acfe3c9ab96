//! Rate limiting as a pure filter: GCRA or a sliding window, several limits at once, decided by one atomic update; limits
//! of requests under way, fixed or following the origin's latency.
//!
//! A refusal is a 429 with `Retry-After`, `RateLimit-Policy`, `RateLimit` and problem details; the response to a request that
//! limits admitted carries the `RateLimit` fields. With an exact [`Effect::Update`](edgeweir_filter::Effect::Update)
//! (Envoy's shared data) the limit holds across all workers; where the edge only has an instance's memory it holds per
//! instance, and says so at load. A rule of global scope is decided in an `edgeweir store`, once for all edges that share it.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::indexing_slicing))]

mod address;
mod answer;
mod check;
mod claims;
mod concurrency;
mod config;
mod cost;
mod denied;
mod exchange;
mod gcra;
mod limit;
mod meter;
mod part;
mod path;
mod quota;
mod rate;
mod rules;
mod store;
mod subject;
mod token;
mod window;
mod wire;

use std::rc::Rc;

use edgeweir_filter::{ConfigError, Configured, Exchange, Filter, Wants};

pub use config::{
    Action, Condition, Config, Follow, OnStoreFailure, Preset, Rule, Scope, StoreConfig, Tiers,
    Told,
};
pub use cost::{Cost, Said};
pub use limit::{Algorithm, Burst, Limit};
pub use part::Part;
pub use rate::Rate;

use exchange::{Limited, Shared};
use rules::Rules;

/// The rate limiter, configured.
pub struct RateLimit(Rc<Shared>);

impl Configured for RateLimit {
    const NAME: &'static str = "ratelimit";
    type Config = Config;

    fn new(config: Config) -> Result<Self, ConfigError> {
        let rules = Rules::new(config)?;
        Ok(Self(Rc::new(Shared {
            rules,
            denied: Default::default(),
        })))
    }
}

impl Filter for RateLimit {
    fn name(&self) -> &'static str {
        Self::NAME
    }
    fn exchange(&self) -> Box<dyn Exchange> {
        Box::new(Limited::new(Rc::clone(&self.0)))
    }
    fn wants(&self) -> Wants {
        let rules = &self.0.rules;
        Wants {
            peer: rules.wants_address(),
            emergency: rules.wants_emergency(),
            exact_updates: rules.shares_state(),
            blind_request: !rules.reads_requests(),
            blind_response: !rules.reads_responses(),
            ..Wants::default()
        }
    }
    fn notes(&self) -> Vec<String> {
        self.0.rules.notes()
    }
}
