//! What is to go and what is to be hidden, from a configuration, checked once.

use edgeweir_filter::{ConfigError, bounded};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Config;
use crate::mask::{MAX_NAME, Mask};
use crate::pattern::Pattern;
use crate::redact::{HashKey, Replacement};

/// Levels of all paths of one list; a path's beginning that others share counts once.
const MAX_LEVELS_IN_ALL: usize = 4_096;
/// Entries of one list.
const MAX_ENTRIES: usize = 256;

pub(crate) const INCLUDE: u16 = 0;
pub(crate) const EXCLUDE: u16 = 1;
pub(crate) const REDACT: u16 = 2;
pub(crate) const MASKS: usize = 3;

/// Which `null`s go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DropNulls {
    /// None.
    #[default]
    Never,
    /// Members of objects whose value is `null`.
    Members,
    /// Elements of arrays too: those after them move up.
    All,
}

/// One redaction: of values by path, by the name of their member or by what they look like. One of the three.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Redaction {
    /// A mask: `user/card,orders/payment(number,holder)`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The name of a member at any depth, up to 256 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// With `key`: whether letters of ASCII match in either case.
    pub ignore_case: bool,
    /// What a string or number looks like.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pattern: Option<Pattern>,
    /// What stands in its place.
    pub replace: Replacement,
}

/// A name that is redacted wherever it stands.
#[derive(Clone, Debug)]
struct Key {
    name: Box<[u8]>,
    ignore_case: bool,
    by: u16,
}

/// Checked rules.
#[derive(Clone, Debug)]
pub struct Rules {
    pub(crate) drop_nulls: DropNulls,
    /// By [`INCLUDE`], [`EXCLUDE`], [`REDACT`].
    pub(crate) masks: [Mask; MASKS],
    keys: Vec<Key>,
    /// A bit for each length that a name of `keys` has; of 63 bytes and more they share one.
    lengths: u64,
    pub(crate) patterns: Vec<(Pattern, Replacement)>,
    /// How each of the redactions replaces.
    pub(crate) replacements: Vec<Replacement>,
    pub(crate) hash_key: Option<HashKey>,
    pub(crate) max_value: usize,
}

impl Rules {
    /// Checks the rules of a configuration.
    pub fn check(config: &Config) -> Result<Self, ConfigError> {
        let empty = || Mask::new(MAX_LEVELS_IN_ALL);
        let mut rules = Self {
            drop_nulls: config.drop_nulls,
            masks: [
                mask("include", &config.include)?,
                mask("exclude", &config.exclude)?,
                empty(),
            ],
            keys: Vec::new(),
            lengths: 0,
            patterns: Vec::new(),
            replacements: config.redact.iter().map(|one| one.replace).collect(),
            hash_key: None,
            max_value: bounded("max_value_bytes", config.max_value_bytes, 64, 1 << 20)?,
        };
        few("redact", config.redact.len())?;
        if let Some(secret) = &config.hash_key {
            if !(16..=256).contains(&secret.len()) {
                let length = secret.len();
                let message = format!("{length} bytes are out of bounds: 16 to 256");
                return Err(ConfigError::new("hash_key", message));
            }
            rules.hash_key = HashKey::new(secret.as_bytes());
        }
        for (by, one) in (0_u16..).zip(&config.redact) {
            let field = format!("redact[{by}]");
            rules.add(by, one, &field)?;
            if one.replace == Replacement::Hash && rules.hash_key.is_none() {
                let field = format!("{field}.replace");
                return Err(ConfigError::new(field, "\"hash\" needs `hash_key`"));
            }
        }
        Ok(rules)
    }

    fn add(&mut self, by: u16, one: &Redaction, field: &str) -> Result<(), ConfigError> {
        let of = |what: &str| format!("{field}.{what}");
        match (&one.path, &one.key, one.pattern) {
            (Some(path), None, None) => {
                let [.., mask] = &mut self.masks;
                mask.add(path, by).map_err(|bad| {
                    ConfigError::new(of("path"), format!("\"{path}\" is no mask: {bad}"))
                })?;
            }
            (None, Some(key), None) => {
                let length = key.len();
                if length > MAX_NAME {
                    let message = format!("{length} bytes are out of bounds: 0 to {MAX_NAME}");
                    return Err(ConfigError::new(of("key"), message));
                }
                self.lengths |= 1 << length.min(63);
                self.keys.push(Key {
                    name: key.as_bytes().into(),
                    ignore_case: one.ignore_case,
                    by,
                });
            }
            (None, None, Some(pattern)) => self.patterns.push((pattern, one.replace)),
            _ => {
                let message = "one of `path`, `key` and `pattern` is needed, and no second";
                return Err(ConfigError::new(field, message));
            }
        }
        if one.ignore_case && one.key.is_none() {
            let message = "true is only for a `key`";
            return Err(ConfigError::new(of("ignore_case"), message));
        }
        Ok(())
    }

    /// Whether nothing is to go but whitespace.
    pub(crate) fn is_empty(&self) -> bool {
        self.drop_nulls == DropNulls::Never && !self.guards()
    }

    /// Whether there is something that the operator does not want to be seen.
    pub(crate) fn guards(&self) -> bool {
        let masks = self.masks.iter().any(|mask| !mask.is_empty());
        masks || !self.replacements.is_empty()
    }

    /// Whether values or names are looked at wherever they are.
    #[inline]
    pub(crate) fn look_everywhere(&self) -> bool {
        self.has_keys() || !self.patterns.is_empty()
    }

    /// Whether names matter at any depth.
    #[inline]
    pub(crate) fn has_keys(&self) -> bool {
        self.lengths != 0
    }

    /// The first redaction of members of this name.
    #[inline]
    pub(crate) fn by_key(&self, name: &[u8]) -> Option<u16> {
        if self.lengths >> name.len().min(63) & 1 == 0 {
            return None;
        }
        let matches = |key: &&Key| match key.ignore_case {
            true => key.name.eq_ignore_ascii_case(name),
            false => *key.name == *name,
        };
        self.keys.iter().find(matches).map(|key| key.by)
    }
}

fn mask(field: &str, list: &[String]) -> Result<Mask, ConfigError> {
    few(field, list.len())?;
    let mut mask = Mask::new(MAX_LEVELS_IN_ALL);
    for (at, text) in list.iter().enumerate() {
        mask.add(text, 0).map_err(|bad| {
            let field = format!("{field}[{at}]");
            ConfigError::new(field, format!("\"{text}\" is no mask: {bad}"))
        })?;
    }
    Ok(mask)
}

fn few(field: &str, entries: usize) -> Result<(), ConfigError> {
    if entries > MAX_ENTRIES {
        let message = format!("{entries} entries are out of bounds: 0 to {MAX_ENTRIES}");
        return Err(ConfigError::new(field, message));
    }
    Ok(())
}
