//! Paths as rules write them.

use crate::{ConfigError, comparable};

/// The longest pattern in bytes.
const LONGEST: usize = 1024;

/// The paths that a rule is for: an exact path (`/a`), or a prefix ending in `*` (`/a/*`), without the query. All spellings of a
/// path are one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathPattern {
    start: Vec<u8>,
    prefix: bool,
}

impl PathPattern {
    /// A pattern of at most 1,024 bytes; without one, all paths. The error names `field`.
    pub fn check(field: &str, path: Option<&str>) -> Result<Self, ConfigError> {
        let path = path.unwrap_or("*");
        let start = path.strip_suffix('*').unwrap_or(path);
        let rooted = start.starts_with('/') || path == "*";
        if !rooted || start.contains(['*', '?', '#']) || path.len() > LONGEST {
            let message = format!(
                "is {path:?}, must be a path that starts with `/`, at most {LONGEST} bytes, with `*` at most at its end"
            );
            return Err(ConfigError::new(field, message));
        }
        Ok(Self {
            start: comparable(start.as_bytes()).into_owned(),
            prefix: path.ends_with('*'),
        })
    }

    /// Whether a path without its query, as [`comparable`] gives it, is one of these.
    pub fn matches(&self, path: &[u8]) -> bool {
        match self.prefix {
            true => path.starts_with(&self.start),
            false => path == self.start,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_or_by_their_start() {
        for (pattern, path, want) in [
            (None, "/a", true),
            (Some("*"), "/", true),
            (Some("/a"), "/a", true),
            (Some("/a"), "/a/", false),
            (Some("/a/*"), "/a/", true),
            (Some("/a/*"), "/a", false),
            (Some("/a*"), "/ab/c", true),
            (Some("/%61*"), "/ab/c", true),
        ] {
            let checked = PathPattern::check("path", pattern).expect("a pattern");
            assert_eq!(checked.matches(path.as_bytes()), want, "{pattern:?} {path}");
        }
        for bad in ["", "a", "/a*b", "/*/*", "/a?b", "/a#b", &"/".repeat(1025)] {
            let error = PathPattern::check("rules[3].path", Some(bad)).expect_err(bad);
            assert_eq!(error.field, "rules[3].path");
            assert!(error.message.contains("1024"), "{error}");
        }
    }
}
