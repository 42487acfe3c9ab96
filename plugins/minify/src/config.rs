//! What an operator may set.

use std::rc::Rc;

use edgeweir_filter::{ConfigError, bounded};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rules::{DropNulls, Redaction, Rules};

/// Configuration of the minify filter.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How many arrays and objects may be open at once, 1 to 65,536. What is nested deeper goes on as it came.
    #[schemars(range(min = 1, max = 65_536))]
    pub max_depth: u32,
    /// Whether a body is checked to be JSON. Not to check it is for origins whose JSON is known to be good, and takes half of the
    /// time: whitespace goes wherever it is not between two double quotes, of invalid JSON too (`1 2` becomes `12`), and of the limits
    /// `max_bytes` alone holds. It has an effect on single texts of which nothing goes but that and `null`s.
    pub validate: bool,
    /// A body that declares at most this length, in bytes, is checked as a whole first: when it is invalid, not one byte of
    /// it is changed. 0 turns this off; at most 1 MiB. Each such response holds as much memory. Other bodies stream:
    /// there the part before the first invalid byte is minified.
    #[schemars(range(max = 1_048_576))]
    pub whole_bytes: u64,
    /// Responses that declare a greater length, in bytes, stay as they are; of one that declares none, what comes after so
    /// many bytes does. Without it there is no limit: memory does not depend on the length.
    #[schemars(range(min = 1))]
    pub max_bytes: Option<u64>,
    /// Further media types whose content is a JSON text, such as `application/x-amz-json-1.1`: a type and a subtype each,
    /// without parameters. At most 64.
    #[schemars(length(max = 64))]
    pub media_types: Vec<String>,
    /// Which `null`s go: `never`, `members` of objects, or `all`, elements of arrays too.
    pub drop_nulls: DropNulls,
    /// Masks of the members that stay: nothing else does. At most 256 masks. Empty: all stay.
    #[schemars(length(max = 256))]
    pub include: Vec<String>,
    /// Masks of members that go, also where they are included. At most 256 masks.
    #[schemars(length(max = 256))]
    pub exclude: Vec<String>,
    /// The query parameter by which a client asks for some members only. Without it there is none.
    pub fields: Option<FieldsParameter>,
    /// Values to be hidden. Where several are for one value, the first by path or key is taken, else the first pattern.
    /// At most 256.
    #[schemars(length(max = 256))]
    pub redact: Vec<Redaction>,
    /// The secret of `"replace": "hash"`, 16 to 256 bytes.
    #[schemars(length(min = 16, max = 256))]
    pub hash_key: Option<String>,
    /// The longest string or number, in bytes as sent, of which a redaction looks at the content (`hash`, `last4`,
    /// `pattern`), 64 to 1,048,576. A longer one is hidden whole. Each response holds as much memory at most.
    #[schemars(range(min = 64, max = 1_048_576))]
    pub max_value_bytes: u32,
    /// Whether the origin is asked for no content coding, where `include`, `exclude`, `redact` or a mask of the client are to
    /// be applied.
    pub ask_identity: bool,
    /// What becomes of JSON that `include`, `exclude` or `redact` are for and that can't be read: coded, partial, in another
    /// encoding, longer than `max_bytes`, deeper than `max_depth`, or invalid. `refuse` unless set.
    pub unreadable: Option<Unreadable>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_depth: 512,
            validate: true,
            whole_bytes: 64 * 1024,
            max_bytes: None,
            media_types: Vec::new(),
            drop_nulls: DropNulls::Never,
            include: Vec::new(),
            exclude: Vec::new(),
            fields: None,
            redact: Vec::new(),
            hash_key: None,
            max_value_bytes: 64 * 1024,
            ask_identity: true,
            unreadable: None,
        }
    }
}

/// The query parameter by which a client says what it wants of a response.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FieldsParameter {
    /// Its name, 1 to 64 letters, digits, `-`, `_`, `.`, `~` or `$`.
    pub parameter: String,
    /// The longest value, in bytes as sent, 1 to 4,096. A longer one is answered 400.
    #[serde(default = "FieldsParameter::max_length")]
    #[schemars(range(min = 1, max = 4_096))]
    pub max_length: u32,
    /// Whether the origin gets the parameter too.
    #[serde(default = "FieldsParameter::forward")]
    pub forward: bool,
}

impl FieldsParameter {
    fn max_length() -> u32 {
        1_024
    }
    fn forward() -> bool {
        true
    }
}

/// What becomes of JSON that rules are for and that can't be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unreadable {
    /// It goes on as it came: from the first invalid byte on, or all of a coded response. Within a value that is left out or
    /// replaced a body breaks off all the same.
    Pass,
    /// It does not: a response that is known beforehand to be unreadable becomes a 502, and a body breaks off before its
    /// first invalid byte.
    Refuse,
}

/// A checked configuration.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) max_depth: usize,
    pub(crate) validate: bool,
    pub(crate) whole_bytes: usize,
    pub(crate) max_bytes: u64,
    /// In lower case.
    pub(crate) media_types: Vec<String>,
    pub(crate) rules: Rc<Rules>,
    pub(crate) fields: Option<FieldsParameter>,
    pub(crate) ask_identity: bool,
    /// There are rules, and what they can't be applied to must not pass.
    pub(crate) refuses: bool,
}

impl Settings {
    pub(crate) fn check(config: &Config) -> Result<Self, ConfigError> {
        let rules = Rules::check(config)?;
        if let Some(fields) = &config.fields {
            let name = &fields.parameter;
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~$".contains(&byte);
            if name.is_empty() || name.len() > 64 || !name.bytes().all(is_plain) {
                let message = format!(
                    "\"{name}\" is out of bounds: 1 to 64 letters, digits, `-`, `_`, `.`, `~` or `$`"
                );
                return Err(ConfigError::new("fields.parameter", message));
            }
            bounded::<u32>("fields.max_length", fields.max_length, 1, 4_096)?;
        }
        if !config.validate && rules.guards() {
            let message = "is false, and there are rules: what they are for is found by reading it";
            return Err(ConfigError::new("validate", message));
        }
        let pass = config.unreadable == Some(Unreadable::Pass);
        Ok(Self {
            max_depth: bounded("max_depth", config.max_depth, 1, 65_536)?,
            validate: config.validate,
            whole_bytes: bounded("whole_bytes", config.whole_bytes, 0, 1 << 20)?,
            max_bytes: match config.max_bytes {
                None => u64::MAX,
                Some(bytes) => bounded("max_bytes", bytes, 1, u64::MAX)?,
            },
            media_types: media_types(&config.media_types)?,
            fields: config.fields.clone(),
            ask_identity: config.ask_identity,
            refuses: rules.guards() && !pass,
            rules: Rc::new(rules),
        })
    }
}

fn media_types(configured: &[String]) -> Result<Vec<String>, ConfigError> {
    if configured.len() > 64 {
        let message = format!("{} are out of bounds: at most 64", configured.len());
        return Err(ConfigError::new("media_types", message));
    }
    let is_token = |text: &str| edgeweir_filter::is_token(text.as_bytes());
    for (at, text) in configured.iter().enumerate() {
        let parts = text.split_once('/');
        if !parts.is_some_and(|(of, sub)| is_token(of) && is_token(sub)) {
            let message = format!(
                "\"{text}\" is no media type: a type, a slash and a subtype, no parameters"
            );
            return Err(ConfigError::new(format!("media_types[{at}]"), message));
        }
    }
    let lower = configured.iter().map(|text| text.to_ascii_lowercase());
    Ok(lower.collect())
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
            (
                r#"{"include": ["a", "b//c"]}"#,
                "include[1]",
                &["b//c", "no name", "byte 2"],
            ),
            (r#"{"exclude": ["a)"]}"#, "exclude[0]", &["a)", "byte 1"]),
            (
                r#"{"media_types": ["a/b", "a/b; c=d"]}"#,
                "media_types[1]",
                &["a/b; c=d", "subtype"],
            ),
            (r#"{"media_types": ["json"]}"#, "media_types[0]", &["json"]),
            (
                r#"{"redact": [{"path": ""}]}"#,
                "redact[0].path",
                &["no name"],
            ),
            (
                r#"{"redact": [{"key": "a", "pattern": "card"}]}"#,
                "redact[0]",
                &["one of"],
            ),
            (r#"{"redact": [{}]}"#, "redact[0]", &["one of"]),
            (
                r#"{"redact": [{"path": "a", "ignore_case": true}]}"#,
                "redact[0].ignore_case",
                &["`key`"],
            ),
            (
                r#"{"redact": [{"key": "a", "replace": "hash"}]}"#,
                "redact[0].replace",
                &["hash", "`hash_key`"],
            ),
            (r#"{"hash_key": "short"}"#, "hash_key", &["5", "16 to 256"]),
            (
                r#"{"max_value_bytes": 63}"#,
                "max_value_bytes",
                &["63", "64 to 1048576"],
            ),
            (
                r#"{"fields": {"parameter": "a b"}}"#,
                "fields.parameter",
                &["a b", "1 to 64"],
            ),
            (
                r#"{"fields": {"parameter": "a", "max_length": 4097}}"#,
                "fields.max_length",
                &["4097", "1 to 4096"],
            ),
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
