//! Presets: named sets of defaults.

use schemars::JsonSchema;
use serde::Deserialize;

/// Where the defaults come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// Nothing is cached; every exchange passes.
    Disabled,
    /// Little memory, no guesses, nothing of the cache's own accord.
    Minimal,
    /// The defaults of the reference page.
    #[default]
    Standard,
    /// More memory, hot responses refreshed ahead of time.
    Aggressive,
    /// Most memory, refreshed early, likely next requests fetched ahead.
    Maximum,
}

/// The defaults that differ between presets; each within the bounds of the option of the same name.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// `max_object_bytes`
    pub max_object_bytes: u64,
    /// `l1_entries`
    pub l1_entries: u64,
    /// `l1_bytes`
    pub l1_bytes: u64,
    /// `l2_bytes`
    pub l2_bytes: u64,
    /// `heuristic_percent`
    pub heuristic_percent: u64,
    /// `keep_stale_seconds`
    pub keep_stale_seconds: u64,
    /// `refresh_ahead_percent`
    pub refresh_ahead_percent: u64,
    /// `ttl_jitter_percent`
    pub ttl_jitter_percent: u64,
    /// `predict.per_second`
    pub prefetches_per_second: u64,
}

const STANDARD: Defaults = Defaults {
    max_object_bytes: 1 << 20,
    l1_entries: 1000,
    l1_bytes: 16 << 20,
    l2_bytes: 64 << 20,
    heuristic_percent: 10,
    keep_stale_seconds: 86_400,
    refresh_ahead_percent: 0,
    ttl_jitter_percent: 0,
    prefetches_per_second: 0,
};

impl Preset {
    /// Its defaults.
    pub fn defaults(self) -> Defaults {
        match self {
            Self::Disabled | Self::Standard => STANDARD,
            Self::Minimal => Defaults {
                max_object_bytes: 256 << 10,
                l1_entries: 100,
                l1_bytes: 2 << 20,
                l2_bytes: 8 << 20,
                heuristic_percent: 0,
                keep_stale_seconds: 3600,
                ..STANDARD
            },
            Self::Aggressive => Defaults {
                max_object_bytes: 4 << 20,
                l1_entries: 4000,
                l1_bytes: 64 << 20,
                l2_bytes: 256 << 20,
                refresh_ahead_percent: 10,
                ttl_jitter_percent: 5,
                ..STANDARD
            },
            Self::Maximum => Defaults {
                max_object_bytes: 16 << 20,
                l1_entries: 20_000,
                l1_bytes: 128 << 20,
                l2_bytes: 1 << 30,
                keep_stale_seconds: 7 * 86_400,
                refresh_ahead_percent: 20,
                ttl_jitter_percent: 10,
                prefetches_per_second: 10,
                ..STANDARD
            },
        }
    }
}
