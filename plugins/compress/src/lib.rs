//! HTTP content coding as a pure filter: by RFC 9110 §12.5.3, streamed, flushed with every chunk, in bounded memory.
//!
//! Requests go on as they are (but see [`Config::remove_accept_encoding`], [`Config::decode`] and [`Etags::Suffix`]): an
//! origin that codes by itself is left to it. Ranges too: an origin that answers 206 is passed on, one that answers 200
//! may be coded.
//!
//! Files by what they decide: `request` and `eligible` whether a response may be coded or decoded, `accept_encoding` how,
//! `policy` and `preset` what holds for its path, `etag` what its head says, `governor` and `gain` how much work it is worth,
//! `breach` what its length may tell, `dictionary` what the client has already; `exchange` puts them together and `stream` takes
//! the body through.
//!
//! ```
//! use edgeweir_filter::{Script, load};
//! use edgeweir_compress::Compress;
//!
//! let compress: Compress = load(br#"{"codings": ["gzip"], "min_bytes": 10}"#).unwrap();
//! let mut script = Script::new(compress).origin(200, &[("content-type", "text/plain")], "to be, or not to be");
//! let seen = script.request(&["GET", "/"], &[("accept-encoding", "gzip")]).run();
//! assert_eq!(seen.text("content-encoding"), "gzip");
//! assert_eq!(seen.text("vary"), "Accept-Encoding");
//! assert_eq!(seen.body()[..2], [0x1f, 0x8b]);
//! ```
#![forbid(unsafe_code)]
#![warn(clippy::unwrap_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

mod accept_encoding;
mod breach;
mod budget;
mod coder;
mod config;
mod decode;
mod dictionary;
mod eligible;
mod etag;
mod exchange;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod gain;
mod governor;
mod measure;
mod media_type;
mod policy;
mod preset;
mod request;
mod stream;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use edgeweir_filter::{ConfigError, Configured, Exchange, Filter, Timestamp, Wants};

pub use accept_encoding::AcceptEncoding;
pub use breach::{Breach, Cookies};
pub use coder::{Coding, Decoder, DecoderFailed, Dictionary, Encoder, EncoderFailed, Flush, Plan};
pub use config::{Config, Rule};
pub use decode::{DecodeConfig, DecodeResponses};
pub use dictionary::DictionariesConfig;
pub use eligible::Skipped;
pub use etag::Etags;
pub use media_type::MediaRange;
pub use preset::Preset;

use breach::Chance;
use budget::Budget;
use dictionary::Dictionaries;
use exchange::Coded;
use gain::Gains;
use governor::{Ease, Load};
use policy::{Policy, Settings};

/// The compress filter.
pub struct Compress {
    shared: Rc<Shared>,
}

/// What the exchanges of a worker or instance have in common.
struct Shared {
    settings: Settings,
    budget: Budget,
    gains: Gains,
    chance: Chance,
    dictionaries: Dictionaries,
    load: Cell<Load>,
}

impl Shared {
    /// Notes what coding took until now.
    fn spend(&self, spent: Duration, now: Timestamp) {
        let percent = self.settings.cpu_percent;
        if percent < 100 {
            let load = self.load.get();
            self.load.set(governor::spend(load, spent, now, percent));
        }
    }

    /// How far levels are lowered for a response that begins now.
    fn ease(&self, now: Timestamp) -> Ease {
        let percent = self.settings.cpu_percent;
        if percent < 100 {
            self.load
                .set(governor::govern(self.load.get(), now, percent));
        }
        self.load.get().ease
    }
}

impl Filter for Compress {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn exchange(&self) -> Box<dyn Exchange> {
        Box::new(Coded::new(Rc::clone(&self.shared)))
    }

    fn wants(&self) -> Wants {
        Wants {
            emergency: true,
            ..Wants::default()
        }
    }

    fn notes(&self) -> Vec<String> {
        let settings = &self.shared.settings;
        let plans = settings.policies().flat_map(plans);
        let dearest = plans.map(|plan| plan.memory()).max().unwrap_or(1);
        vec![format!(
            "encoders hold at most {} MiB together; the dearest of the configured codings takes {} KiB a stream at most",
            settings.memory_bytes >> 20,
            dearest >> 10,
        )]
    }
}

impl Configured for Compress {
    const NAME: &'static str = "compress";
    type Config = Config;

    fn new(config: Config) -> Result<Self, ConfigError> {
        let settings = Settings::check(&config)?;
        let room = settings.memory_bytes;
        for plan in settings.policies().flat_map(plans) {
            if plan.memory() > room {
                let message = format!(
                    "{room} is less than one stream of {} takes at this level and window: {}",
                    plan.coding().token(),
                    plan.memory()
                );
                return Err(ConfigError::new("memory_bytes", message));
            }
        }
        Ok(Self {
            shared: Rc::new(Shared {
                budget: Budget::new(room),
                dictionaries: Dictionaries::new(settings.dictionaries),
                settings,
                gains: Gains::new(),
                chance: Chance::new(),
                load: Cell::default(),
            }),
        })
    }
}

/// The dearest plans of a policy.
fn plans(policy: &Policy) -> impl Iterator<Item = Plan> {
    let plan = |&coding: &Coding| {
        let level = policy.level(coding);
        Plan::new(coding, level, policy.window_bits, None)
    };
    policy.codings.iter().map(plan)
}
