//! Presets: named sets of defaults.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::Coding;

/// Where the defaults come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// The lowest levels, and nothing small: for edges short of processor time.
    Fast,
    /// The defaults of the reference page.
    #[default]
    Balanced,
    /// Higher levels: for what is coded once and sent often, behind a cache.
    Small,
}

/// The defaults that differ between presets; each within the bounds of the option of the same name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Defaults {
    pub(crate) levels: [u8; Coding::COUNT],
    pub(crate) window_bits: u8,
    pub(crate) min_bytes: u64,
    pub(crate) max_ratio_percent: u8,
}

impl Preset {
    /// Its codings, best first. Brotli's higher levels are a fifth smaller than all else and take eight times as long.
    pub(crate) fn codings(self) -> Vec<Coding> {
        match self {
            #[cfg(feature = "brotli")]
            Self::Small => vec![Coding::Brotli, Coding::Zstd, Coding::Gzip, Coding::Deflate],
            _ => Coding::ALL.to_vec(),
        }
    }
    /// Its defaults.
    pub(crate) fn defaults(self) -> Defaults {
        match self {
            Self::Fast => Defaults {
                levels: levels(1, 1, 1),
                window_bits: 18,
                min_bytes: 1000,
                max_ratio_percent: 80,
            },
            Self::Balanced => Defaults {
                levels: levels(4, 3, 4),
                window_bits: 20,
                min_bytes: 500,
                max_ratio_percent: 90,
            },
            Self::Small => Defaults {
                levels: levels(4, 6, 7),
                window_bits: 22,
                min_bytes: 200,
                max_ratio_percent: 95,
            },
        }
    }
}

/// In the order of [`Coding::ALL`]; deflate has that of gzip.
#[cfg_attr(not(feature = "brotli"), allow(unused_variables))]
fn levels(zstd: u8, brotli: u8, gzip: u8) -> [u8; Coding::COUNT] {
    [
        zstd,
        #[cfg(feature = "brotli")]
        brotli,
        gzip,
        gzip,
    ]
}
