//! How short the machine is of resources, as far as filters are told.

use crate::Fields;

/// The emergency level: 0 is normal, 3 the worst. Filters do less the higher it is: cheaper coding levels, longer use of
/// stale responses, smaller caches, tighter limits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Emergency(u8);

impl Emergency {
    /// Nothing is short.
    pub const NONE: Self = Self(0);
    /// The worst level.
    pub const WORST: Self = Self(3);
    /// The request field that may say the level, a digit.
    pub const FIELD: &str = "edgeweir-emergency";
    /// The environment variable that says, whatever its value, that the field comes from the edge or from one in front of
    /// it. Without it an adapter takes no field's word: a client that raised the level would take more than its own cells
    /// from what others share with it, and keep work from being done for them.
    pub const HEEDED: &str = "EDGEWEIR_EMERGENCY_FIELD";

    /// A level; what is above the worst is the worst.
    pub const fn new(level: u8) -> Self {
        if level > Self::WORST.0 {
            return Self::WORST;
        }
        Self(level)
    }

    /// The level as a number, 0 to 3.
    pub const fn level(self) -> u8 {
        self.0
    }

    /// What is said of this level, of something for each from 1; nothing for 0.
    pub fn of<T>(self, each: [T; 3]) -> Option<T> {
        let step = usize::from(self.0).checked_sub(1)?;
        each.into_iter().nth(step)
    }

    /// From the text of a shared value or a field: one digit. Anything else is no level.
    pub fn parse(text: &[u8]) -> Option<Self> {
        match text.trim_ascii() {
            [digit @ b'0'..=b'3'] => Some(Self(digit - b'0')),
            _ => None,
        }
    }

    /// With what a request's fields say, where they are [heeded](Self::HEEDED). They can raise what is known, never lower it.
    /// The field goes on, for the filters that follow.
    pub fn raised_by(self, fields: &Fields) -> Self {
        let said = fields.values(Self::FIELD).filter_map(Self::parse).max();
        said.map_or(self, |said| said.max(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_from_one_has_its_own() {
        let said: Vec<_> = (0..=4).map(|it| Emergency::new(it).of([7, 8, 9])).collect();
        assert_eq!(said, [None, Some(7), Some(8), Some(9), Some(9)]);
    }

    #[test]
    fn a_field_raises_and_never_lowers() {
        for (name, known, said, want) in [
            ("nothing is said", 1, &[][..], 1),
            ("higher", 1, &["3"], 3),
            ("lower", 2, &["0"], 2),
            ("the highest counts", 0, &["1", "2"], 2),
            ("no level", 1, &["4", "", "2, 3", "-1"], 1),
        ] {
            let lines: Vec<_> = said.iter().map(|said| (Emergency::FIELD, *said)).collect();
            let level = Emergency::new(known).raised_by(&Fields::of(&lines));
            assert_eq!(level, Emergency::new(want), "{name}");
        }
    }
}
