//! What an operator may set.

use edgeweir_filter::{ConfigError, bounded};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Configuration of the minify filter.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How many arrays and objects may be open at once, 1 to 65,536. What is nested deeper goes on as it came.
    #[schemars(range(min = 1, max = 65_536))]
    pub max_depth: u32,
    /// A body that declares at most this length, in bytes, is checked as a whole first: when it is invalid, not one byte of
    /// it is changed. 0 turns this off; at most 1 MiB. Each such response holds as much memory. Other bodies stream:
    /// there the part before the first invalid byte is minified.
    #[schemars(range(max = 1_048_576))]
    pub whole_bytes: u64,
    /// Responses that declare a greater length, in bytes, stay as they are; of one that declares none, what comes after so
    /// many bytes does. Without it there is no limit: memory does not depend on the length.
    #[schemars(range(min = 1))]
    pub max_bytes: Option<u64>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_depth: 512,
            whole_bytes: 64 * 1024,
            max_bytes: None,
        }
    }
}

/// A checked configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) max_depth: usize,
    pub(crate) whole_bytes: usize,
    pub(crate) max_bytes: u64,
}

impl Settings {
    pub(crate) fn check(config: &Config) -> Result<Self, ConfigError> {
        Ok(Self {
            max_depth: bounded("max_depth", config.max_depth, 1, 65_536)?,
            whole_bytes: bounded("whole_bytes", config.whole_bytes, 0, 1 << 20)?,
            max_bytes: match config.max_bytes {
                None => u64::MAX,
                Some(bytes) => bounded("max_bytes", bytes, 1, u64::MAX)?,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::Minify;
    use edgeweir_filter::{load, schema};

    #[test]
    fn a_bad_configuration_is_refused_by_name_value_and_bound() {
        for (json, field, parts) in [
            (r#"{"max_depth": 0}"#, "max_depth", &["0", "1 to 65536"][..]),
            (
                r#"{"max_depth": 65537}"#,
                "max_depth",
                &["65537", "1 to 65536"],
            ),
            (
                r#"{"whole_bytes": 1048577}"#,
                "whole_bytes",
                &["1048577", "0 to 1048576"],
            ),
            (r#"{"max_bytes": 0}"#, "max_bytes", &["0", "1 to"]),
            (r#"{"max_bytes": -1}"#, "max_bytes", &["-1"]),
            (r#"{"maxdepth": 1}"#, "maxdepth", &["unknown field"]),
        ] {
            let Err(error) = load::<Minify>(json.as_bytes()) else {
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
        assert!(load::<Minify>(b"").is_ok());
        let schema = schema::<Minify>();
        let depth = &schema["properties"]["max_depth"];
        assert_eq!(
            (&depth["minimum"], &depth["maximum"], &depth["default"]),
            (&1.into(), &65_536.into(), &512.into())
        );
        assert_eq!(schema["additionalProperties"], false);
    }
}
