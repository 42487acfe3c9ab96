//! What is wrong with a configuration, and where in its file.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::Source;

/// An error of a configuration file: the file, the place, the field, and what would be right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    /// The file as it was named.
    pub file: PathBuf,
    /// Line and column, from 1; `None` when it is the file as a whole.
    pub place: Option<(usize, usize)>,
    /// The path of the field (`listener[0].upstream`), or the option (`--listen`); empty when it is the file as a whole.
    pub field: String,
    /// What is wrong, with the value and what would be right.
    pub message: String,
    line: Box<str>,
    width: usize,
}

impl ConfigError {
    /// An error of a file as a whole.
    pub fn file(file: &Path, message: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            place: None,
            field: String::new(),
            message: message.into(),
            line: Box::default(),
            width: 0,
        }
    }

    /// An error of the value at `span` (bytes of the text); empty at 0 it stands nowhere in the file.
    pub fn at(
        source: &Source,
        span: Range<usize>,
        field: &str,
        message: impl Into<String>,
    ) -> Self {
        let mut error = Self::file(&source.file, message);
        error.field = field.to_owned();
        let start = span.start.min(source.text.len());
        // A span of the parser lies on character bounds; one of a made-up configuration is empty.
        let (Some(before), Some(rest)) = (source.text.get(..start), source.text.get(start..))
        else {
            return error;
        };
        if span == (0..0) {
            return error;
        }
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let column = before[line_start..].chars().count() + 1;
        let line_rest = rest.lines().next().unwrap_or("");
        error.place = Some((before.matches('\n').count() + 1, column));
        error.line = format!("{}{line_rest}", &before[line_start..]).into();
        error.width = (span.len().min(line_rest.len())).max(1);
        error
    }

    /// An error of an option of the command line, with which a file was read.
    pub fn option(file: &Path, option: &str, message: impl Into<String>) -> Self {
        let mut error = Self::file(file, message);
        error.field = option.to_owned();
        error
    }

    /// An error the parser found; `path` as the deserializer knew it.
    pub(super) fn toml(source: &Source, path: &str, error: &toml::de::Error) -> Self {
        // Positions of values are carried by made-up fields that mean nothing to an operator.
        let mut field: String = path
            .split('.')
            .filter(|segment| !segment.starts_with("$__"))
            .collect::<Vec<_>>()
            .join(".");
        if field == "?" {
            field.clear();
        }
        Self::at(
            source,
            error.span().unwrap_or(0..0),
            &field,
            error.message().trim(),
        )
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = if self.file.as_os_str().is_empty() {
            "the built-in configuration".into()
        } else {
            self.file.to_string_lossy()
        };
        write!(f, "{file}")?;
        if let Some((line, column)) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": ")?;
        if !self.field.is_empty() {
            write!(f, "in `{}`: ", self.field)?;
        }
        write!(f, "{}", self.message)?;
        if let Some((line, column)) = self.place
            && !self.line.is_empty()
        {
            let number = line.to_string();
            write!(
                f,
                "\n  {number} | {}\n  {} | {}{}",
                self.line,
                " ".repeat(number.len()),
                " ".repeat(column - 1),
                "^".repeat(self.width)
            )?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
