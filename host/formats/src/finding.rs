//! What was found in a file: how bad, what, where, and what to do about it.

use std::fmt;
use std::ops::Range;

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// It can be better.
    Advice,
    /// It is left out or works otherwise than it says.
    Warning,
    /// It would make answers wrong: loading ends, unless the operator takes it on.
    Unsupported,
    /// It cannot be used.
    Error,
}

impl Level {
    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Advice => "advice",
            Self::Warning => "warning",
            Self::Unsupported | Self::Error => "error",
        }
    }
}

/// One thing that was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// A short name that does not change.
    pub code: &'static str,
    /// The path of the field, as `static_resources.listeners[0].name`.
    pub path: String,
    /// Bytes of the text; empty at 0 where it is the file as a whole.
    pub span: Range<usize>,
    /// What it is, and what to do.
    pub message: String,
}

impl Finding {
    /// Line and column, from 1; `None` when it is the file as a whole.
    pub fn place(&self, text: &str) -> Option<Place> {
        if self.span == (0..0) {
            return None;
        }
        Some(Place::of(text, self.span.start))
    }
}

/// A line and a column, from 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column, characters.
    pub column: usize,
}

impl Place {
    /// The place of a byte of a text.
    pub fn of(text: &str, at: usize) -> Self {
        let mut end = at.min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let before = text.get(..end).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A value and the bytes of the text it stands at.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Placed<T> {
    /// The value.
    pub value: T,
    /// Its place.
    pub span: Range<usize>,
}

impl<T> Placed<T> {
    /// A value at a place.
    pub const fn new(value: T, span: Range<usize>) -> Self {
        Self { value, span }
    }

    /// Another value at the same place.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Placed<U> {
        Placed::new(change(self.value), self.span)
    }
}
