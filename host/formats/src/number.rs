//! Numbers that cannot leave their bounds: checked where they are read, so that the error has a place in the file.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// An integer from `MIN` to `MAX`, both included.
///
/// Anything else is refused by the parser with the value and both bounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Within<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Within<MIN, MAX> {
    /// A value known when the program is written; clamped to the bounds.
    pub const fn of(value: u64) -> Self {
        if value < MIN {
            Self(MIN)
        } else if value > MAX {
            Self(MAX)
        } else {
            Self(value)
        }
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number as a size in memory.
    pub fn size(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// The number taken as milliseconds.
    pub const fn millis(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Within<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bounds<const MIN: u64, const MAX: u64>;
        impl<const MIN: u64, const MAX: u64> Visitor<'_> for Bounds<MIN, MAX> {
            type Value = u64;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a whole number from {MIN} to {MAX}")
            }
            fn visit_i64<E: Error>(self, value: i64) -> Result<u64, E> {
                match u64::try_from(value) {
                    Ok(value) => self.visit_u64(value),
                    Err(_) => Err(out_of_bounds(value, MIN, MAX)),
                }
            }
            fn visit_u64<E: Error>(self, value: u64) -> Result<u64, E> {
                if (MIN..=MAX).contains(&value) {
                    Ok(value)
                } else {
                    Err(out_of_bounds(value, MIN, MAX))
                }
            }
        }
        deserializer.deserialize_i64(Bounds::<MIN, MAX>).map(Self)
    }
}

fn out_of_bounds<E: Error>(value: impl fmt::Display, min: u64, max: u64) -> E {
    E::custom(format!("{value} is out of bounds: from {min} to {max}"))
}
