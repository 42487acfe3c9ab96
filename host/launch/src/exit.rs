//! An outcome that has an exit code of its own.

use std::fmt;

/// Ends the program with a code other than that of an error: the command worked, and this is its answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exit {
    /// The exit code.
    pub code: u8,
    message: String,
}

impl Exit {
    /// An answer with its code.
    pub fn new(code: u8, message: String) -> Self {
        Self { code, message }
    }

    /// A code alone: all there is to say was said.
    pub fn said(code: u8) -> Self {
        Self::new(code, String::new())
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Exit {}
