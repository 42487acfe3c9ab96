//! What an operator may set.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::Coding;
use crate::breach::{Breach, Cookies};
use crate::decode::DecodeConfig;
use crate::dictionary::DictionariesConfig;
use crate::etag::Etags;
use crate::media_type;
use crate::preset::Preset;

/// Configuration of the compress filter. Everything has a default; a field that is not known is refused.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the defaults of levels, `min_bytes` and `max_ratio_percent` come from: `fast`, `balanced` or `small`. Default
    /// `balanced`. What is set beside it counts.
    pub preset: Preset,
    /// The content codings used, best first, at least one. The order decides between codings that a client likes equally.
    /// Default: zstd, br, gzip, deflate; br first with the preset `small`.
    pub codings: Option<Vec<Coding>>,
    /// Level of zstd, 1 (fast) to 4 (small). Default 4. A stream of unknown length takes 6 to 8 MiB.
    #[schemars(range(min = 1, max = 4))]
    pub zstd_level: Option<u32>,
    /// Level of gzip, 1 (fast) to 9 (small). Default 4.
    #[schemars(range(min = 1, max = 9))]
    pub gzip_level: Option<u32>,
    /// Level of deflate, 1 (fast) to 9 (small). Default 4.
    #[schemars(range(min = 1, max = 9))]
    pub deflate_level: Option<u32>,
    /// Level of brotli, 0 (fast) to 11 (small). Default 3. From 7 on a stream takes more than 10 MiB of memory.
    #[cfg(feature = "brotli")]
    #[schemars(range(min = 0, max = 11))]
    pub brotli_level: Option<u32>,
    /// Largest brotli window as a power of two in bytes, 17 to 24. Default 20. A stream takes at least twice as much. A
    /// body whose length is declared takes no larger one than it needs.
    #[schemars(range(min = 17, max = 24))]
    pub brotli_window_bits: Option<u32>,
    /// Responses that declare a smaller length stay as they are, in bytes, at most 1 GiB. Default 500.
    #[schemars(range(max = 1_073_741_824))]
    pub min_bytes: Option<u64>,
    /// A URL whose body came out larger than this percentage of its length is not coded the next 15 times. 1 to 100;
    /// 100 codes whatever comes of it. Default 90.
    #[schemars(range(min = 1, max = 100))]
    pub max_ratio_percent: Option<u32>,
    /// Media types to code: `text/html`, `text/*`, `*/*`, `image/*+xml`, `*+json`. At most 1,000.
    pub media_types: Vec<String>,
    /// Media types left alone although `media_types` has them, in the same forms. At most 1,000. Default: none.
    pub except_media_types: Vec<String>,
    /// By path: the first rule that matches a request decides. At most 100. Default: none.
    #[schemars(length(max = 100))]
    pub rules: Vec<Rule>,
    /// What is done about responses that may carry a secret beside what a client sent (BREACH), as `breach_cookies` tells
    /// them: `off`, `skip` (not coded) or `hide_length` (coded, with padding of a random length). Default `hide_length`.
    pub breach: Breach,
    /// Which responses `breach` is for: `set` those that set a cookie, `any` also those to a request with `Cookie` or
    /// `Authorization`. Default `set`.
    pub breach_cookies: Cookies,
    /// The most padding that `hide_length` adds, in bytes, 16 to 4096. Default 128.
    #[schemars(range(min = 16, max = 4096))]
    pub breach_bytes: u32,
    /// What becomes of a strong `ETag` when the content is coded: `weak` (`W/"a"`) or `suffix` (`"a-gzip"`). Default `weak`.
    pub etag: Etags,
    /// Percentage of a worker's time that coding may take, 1 to 100. Beyond it levels go down step by step until nothing is
    /// coded, and up again later. Default 100: no bound. It needs an edge with a clock.
    #[schemars(range(min = 1, max = 100))]
    pub cpu_percent: u32,
    /// Taking codings off. Default: none.
    pub decode: DecodeConfig,
    /// Shared dictionaries (RFC 9842), for origins that say which responses are some.
    pub dictionaries: DictionariesConfig,
    /// Say in `Server-Timing` what was done: the coding and its level, or why there is none. Default false.
    pub server_timing: bool,
    /// Bytes that all encoders and decoders of a worker or instance, and dictionaries on their way, may hold together, 1 MiB to 2 GiB. Default 256 MiB. A response that
    /// finds no room is coded with a cheaper coding that the client accepts as well, or stays as it is.
    #[schemars(range(min = 1_048_576, max = 2_147_483_648_u64))]
    pub memory_bytes: u64,
    /// Removes `Accept-Encoding` from requests, so that the origin answers plainly and all coding is done here. Default false.
    pub remove_accept_encoding: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            preset: Preset::default(),
            codings: None,
            zstd_level: None,
            gzip_level: None,
            deflate_level: None,
            #[cfg(feature = "brotli")]
            brotli_level: None,
            brotli_window_bits: None,
            min_bytes: None,
            max_ratio_percent: None,
            media_types: media_type::DEFAULT
                .iter()
                .map(|&text| text.to_owned())
                .collect(),
            except_media_types: Vec::new(),
            rules: Vec::new(),
            breach: Breach::HideLength,
            breach_cookies: Cookies::Set,
            breach_bytes: 128,
            etag: Etags::Weak,
            cpu_percent: 100,
            decode: DecodeConfig::default(),
            dictionaries: DictionariesConfig::default(),
            server_timing: false,
            memory_bytes: 256 * 1024 * 1024,
            remove_accept_encoding: false,
        }
    }
}

/// A rule for paths. What it leaves out is as outside of the rules; a `preset` of its own comes before what is set there.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// The paths: an exact path (`/a`), or a prefix ending in `*` (`/a/*`). Compared byte by byte, without the query.
    /// Default `*`: all.
    #[schemars(length(max = 1024))]
    pub path: Option<String>,
    /// Code nothing. Default false.
    pub disabled: bool,
    /// As outside of the rules.
    pub preset: Option<Preset>,
    /// As outside of the rules.
    pub codings: Option<Vec<Coding>>,
    /// As outside of the rules.
    #[schemars(range(min = 1, max = 4))]
    pub zstd_level: Option<u32>,
    /// As outside of the rules.
    #[schemars(range(min = 1, max = 9))]
    pub gzip_level: Option<u32>,
    /// As outside of the rules.
    #[schemars(range(min = 1, max = 9))]
    pub deflate_level: Option<u32>,
    /// As outside of the rules.
    #[cfg(feature = "brotli")]
    #[schemars(range(min = 0, max = 11))]
    pub brotli_level: Option<u32>,
    /// As outside of the rules.
    #[schemars(range(min = 17, max = 24))]
    pub brotli_window_bits: Option<u32>,
    /// As outside of the rules.
    #[schemars(range(max = 1_073_741_824))]
    pub min_bytes: Option<u64>,
    /// As outside of the rules.
    #[schemars(range(min = 1, max = 100))]
    pub max_ratio_percent: Option<u32>,
    /// As outside of the rules.
    pub media_types: Option<Vec<String>>,
    /// As outside of the rules.
    pub except_media_types: Option<Vec<String>>,
    /// As outside of the rules, but for every response of these paths, cookies or not.
    pub breach: Option<Breach>,
}
