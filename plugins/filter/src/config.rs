//! Configuration: parsed once, into a type that cannot hold nonsense, whose JSON Schema is derived from it.

use std::fmt;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::Filter;
use crate::json::Json;

/// A filter with a configuration type.
pub trait Configured: Filter + Sized + 'static {
    /// The filter's fixed name.
    const NAME: &'static str;
    /// What an operator may set: `#[serde(deny_unknown_fields, default)]`, units in names, bounds in its types.
    type Config: DeserializeOwned + JsonSchema + Default;
    /// Checks what one field alone can't tell, and makes the filter.
    fn new(config: Self::Config) -> Result<Self, ConfigError>;
}

/// A configuration that was refused: which field, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    /// The field's path (`limits[0].rate`); empty when it is the whole.
    pub field: String,
    /// What is wrong, with the value and the bound.
    pub message: String,
}

impl ConfigError {
    /// An error of one field.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() || self.field == "." {
            write!(f, "configuration: {}", self.message)
        } else {
            write!(f, "configuration field `{}`: {}", self.field, self.message)
        }
    }
}

impl std::error::Error for ConfigError {}

/// Checks `low <= value <= high` and narrows it; the error names field, value and bound.
pub fn bounded<U: TryFrom<u64>>(
    field: &str,
    value: impl Into<u64>,
    low: u64,
    high: u64,
) -> Result<U, ConfigError> {
    let value = value.into();
    let narrow = U::try_from(value)
        .ok()
        .filter(|_| (low..=high).contains(&value));
    narrow.ok_or_else(|| {
        ConfigError::new(field, format!("{value} is out of bounds: {low} to {high}"))
    })
}

/// Makes a filter from JSON; nothing at all (or only white space) means its defaults.
pub fn load<F: Configured>(json: &[u8]) -> Result<F, ConfigError> {
    if json.trim_ascii().is_empty() {
        return F::new(F::Config::default());
    }
    let json: Json =
        serde_json::from_slice(json).map_err(|error| ConfigError::new("", error.to_string()))?;
    let config = serde_path_to_error::deserialize(&json).map_err(|error| {
        let field = error.path().to_string();
        ConfigError::new(field, error.into_inner().to_string())
    })?;
    F::new(config)
}

/// The JSON Schema of a filter's configuration.
pub fn schema<F: Configured>() -> serde_json::Value {
    schemars::schema_for!(F::Config).to_value()
}
