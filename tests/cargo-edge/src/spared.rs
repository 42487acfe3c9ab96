//! Functions of the codecs that are never reached with what is set in `plugins/compress/src/coder`.
//!
//! The compiler can't know it: what leads to them is in memory. In the files that ship they trap. A test codes with every level, and
//! with windows, lengths, pieces and dictionaries of all sizes, with and without them (`tests/scenarios/tests/all/compress_same.rs`).

use crate::artifact::{Artifact, Flavour};

/// Functions of one name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spared {
    /// As Rust mangles it, without what differs from build to build.
    pub name: &'static str,
    /// What their generic arguments have, if not all instances are meant.
    pub with: &'static str,
}

impl Spared {
    /// All instances.
    pub const fn never(name: &'static str) -> Self {
        Self { name, with: "" }
    }

    /// Whether a symbol is of one of them.
    pub fn is(&self, symbol: &str) -> bool {
        symbol.contains(self.name) && symbol.contains(self.with)
    }
}

/// Brotli tells a callback what it writes if `BROTLI_METABLOCK_CALLBACK` is set, with statistics about it. It is not set.
const BROTLI: [Spared; 1] = [Spared::never(
    "6brotli3enc17brotli_bit_stream12LogMetaBlock",
)];

/// The fast strategy is that of levels 1 and 2, whose matches have seven bytes (`min_match` in zrip's `level_params_inner`; only
/// negative levels have five, six or eight, and none has four): what is made for others. That of levels 3 and 4 has five
/// (`short_mls`): what is made for four. Deflate's level 0, which stores, is no level of ours.
const ALL: [Spared; 10] = [
    Spared::never("11zrip_encode4fast28compress_fast_block_h14_mls4"),
    Spared::never("11zrip_encode4fast28compress_fast_block_h15_mls4"),
    Spared::never("11zrip_encode4fast28compress_fast_block_h16_mls4"),
    Spared::never("11zrip_encode4fast28compress_fast_block_h17_mls4"),
    Spared::never("11zrip_encode4fast28compress_fast_block_h13_mls5"),
    Spared::never("11zrip_encode4fast24compress_fast_block_mls6"),
    Spared::never("11zrip_encode4fast28compress_fast_block_h13_mls8"),
    Spared::never("11zrip_encode4fast24compress_fast_block_mls8"),
    Spared {
        name: "11zrip_encode5dfast11dfast_block",
        with: "_Km4_",
    },
    Spared::never("7zlib_rs7deflate9algorithm6stored14deflate_stored"),
];

/// Those of a file.
pub fn of(artifact: &Artifact) -> Vec<Spared> {
    match artifact.name {
        "compress" if artifact.flavour == Flavour::Slim => ALL.to_vec(),
        "compress" | "edge" => [&ALL[..], &BROTLI].concat(),
        _ => Vec::new(),
    }
}
