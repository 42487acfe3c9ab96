//! What an operator may set.

use edgeweir_filter::{ConfigError, bounded};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Coding;
use crate::media_type::{self, MediaRange};

/// Configuration of the compress filter.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The content codings used, best first. The order decides between codings that a client likes equally.
    pub codings: Vec<Coding>,
    /// Level of gzip, 1 (fast) to 9 (small).
    #[schemars(range(min = 1, max = 9))]
    pub gzip_level: u32,
    /// Level of deflate, 1 (fast) to 9 (small).
    #[schemars(range(min = 1, max = 9))]
    pub deflate_level: u32,
    /// Level of brotli, 0 (fast) to 11 (small). From 7 on a stream takes more than 10 MiB of memory.
    #[schemars(range(min = 0, max = 11))]
    pub brotli_level: u32,
    /// Largest brotli window as a power of two in bytes, 17 to 24; a stream takes at least twice as much. A body whose length is
    /// declared takes no larger one than it needs.
    #[schemars(range(min = 17, max = 24))]
    pub brotli_window_bits: u32,
    /// Responses that declare a smaller length stay as they are, in bytes, at most 1 GiB.
    #[schemars(range(max = 1_073_741_824))]
    pub min_bytes: u64,
    /// Media types to code: `text/html`, `text/*`, `*/*`, `image/*+xml`, `*+json`. At most 1,000.
    pub media_types: Vec<String>,
    /// Bytes that all encoders of a worker or instance may hold together, 1 MiB to 2 GiB. A response that finds no room is
    /// coded with a cheaper coding that the client accepts as well, or stays as it is.
    #[schemars(range(min = 1_048_576, max = 2_147_483_648_u64))]
    pub memory_bytes: u64,
    /// Removes `Accept-Encoding` from requests, so that the origin answers plainly and all coding is done here.
    pub remove_accept_encoding: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            codings: Coding::ALL.to_vec(),
            gzip_level: 4,
            deflate_level: 4,
            brotli_level: 4,
            brotli_window_bits: 20,
            min_bytes: 500,
            media_types: media_type::DEFAULT
                .iter()
                .map(|&text| text.to_owned())
                .collect(),
            memory_bytes: 256 * 1024 * 1024,
            remove_accept_encoding: false,
        }
    }
}

/// A checked configuration.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) codings: Vec<Coding>,
    levels: [u8; Coding::ALL.len()],
    pub(crate) window_bits: u8,
    pub(crate) min_bytes: u64,
    pub(crate) media: Vec<MediaRange>,
    pub(crate) memory_bytes: usize,
    pub(crate) remove_accept_encoding: bool,
}

impl Settings {
    pub(crate) fn check(config: &Config) -> Result<Self, ConfigError> {
        if config.codings.is_empty() {
            return Err(ConfigError::new(
                "codings",
                "at least one of br, gzip, deflate is needed",
            ));
        }
        for (at, coding) in config.codings.iter().enumerate() {
            if config.codings.iter().take(at).any(|other| other == coding) {
                let message = format!("`{}` is there twice", coding.token());
                return Err(ConfigError::new(format!("codings[{at}]"), message));
            }
        }
        if config.media_types.len() > 1000 {
            let message = format!("{} media types; at most 1000", config.media_types.len());
            return Err(ConfigError::new("media_types", message));
        }
        let media = config.media_types.iter().enumerate().map(|(at, text)| {
            MediaRange::parse(text).ok_or_else(|| {
                let message = format!(
                    "`{text}` is no media type; write `type/subtype`, `type/*`, `type/*+suffix`, `*+suffix` or `*/*`"
                );
                ConfigError::new(format!("media_types[{at}]"), message)
            })
        });
        Ok(Self {
            codings: config.codings.clone(),
            levels: [
                bounded("brotli_level", config.brotli_level, 0, 11)?,
                bounded("gzip_level", config.gzip_level, 1, 9)?,
                bounded("deflate_level", config.deflate_level, 1, 9)?,
            ],
            window_bits: bounded("brotli_window_bits", config.brotli_window_bits, 17, 24)?,
            min_bytes: bounded("min_bytes", config.min_bytes, 0, 1 << 30)?,
            media: media.collect::<Result<_, _>>()?,
            memory_bytes: bounded("memory_bytes", config.memory_bytes, 1 << 20, 1 << 31)?,
            remove_accept_encoding: config.remove_accept_encoding,
        })
    }

    pub(crate) fn level(&self, coding: Coding) -> u8 {
        self.levels.get(coding as usize).copied().unwrap_or(4)
    }
}

#[cfg(test)]
mod tests {
    use crate::Compress;
    use edgeweir_filter::{load, schema};

    #[test]
    fn a_bad_configuration_is_refused_by_name_value_and_bound() {
        for (json, field, parts) in [
            (r#"{"gzip_level": 0}"#, "gzip_level", &["0", "1 to 9"][..]),
            (
                r#"{"deflate_level": 10}"#,
                "deflate_level",
                &["10", "1 to 9"],
            ),
            (
                r#"{"brotli_level": 12}"#,
                "brotli_level",
                &["12", "0 to 11"],
            ),
            (
                r#"{"brotli_window_bits": 16}"#,
                "brotli_window_bits",
                &["16", "17 to 24"],
            ),
            (
                r#"{"min_bytes": 1073741825}"#,
                "min_bytes",
                &["1073741825", "0 to 1073741824"],
            ),
            (r#"{"memory_bytes": 1}"#, "memory_bytes", &["1 ", "1048576"]),
            (r#"{"codings": []}"#, "codings", &["at least one"]),
            (
                r#"{"codings": ["br", "br"]}"#,
                "codings[1]",
                &["br", "twice"],
            ),
            (r#"{"codings": ["zip"]}"#, "codings[0]", &["zip", "gzip"]),
            (
                r#"{"media_types": ["text/*", "html"]}"#,
                "media_types[1]",
                &["html"],
            ),
            (r#"{"gzip_level": "fast"}"#, "gzip_level", &["fast"]),
            (r#"{"gziplevel": 1}"#, "gziplevel", &["unknown field"]),
        ] {
            let Err(error) = load::<Compress>(json.as_bytes()) else {
                panic!("{json} was taken");
            };
            assert_eq!(error.field, field, "{json}: {error}");
            for part in parts {
                assert!(error.message.contains(part), "{json}: {error}");
            }
        }
    }

    #[test]
    fn defaults_and_schema_say_the_same() {
        assert!(load::<Compress>(b"").is_ok());
        assert!(load::<Compress>(b"{}").is_ok());
        let schema = schema::<Compress>();
        let gzip = &schema["properties"]["gzip_level"];
        assert_eq!(
            (&gzip["minimum"], &gzip["maximum"], &gzip["default"]),
            (&1.into(), &9.into(), &4.into())
        );
        assert_eq!(schema["additionalProperties"], false);
    }
}
