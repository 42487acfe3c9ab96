//! Which URLs a dictionary is for.

/// Wild cards in a pattern at most: matching takes at most as many passes over the path.
const STARS: usize = 8;

/// The part of URL Pattern that is understood: the path, with `*` for any run of characters. The query is not looked at,
/// as in a URL Pattern that says nothing of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Pattern {
    text: Vec<u8>,
}

impl Pattern {
    /// Reads the `match` of a dictionary from this path; `None` for what goes beyond the part that is understood: named
    /// groups, regular expressions (which RFC 9842 §2.1.1 forbids), other origins, queries.
    pub(crate) fn parse(text: &str, dictionary: &[u8]) -> Option<Self> {
        let bad = |byte: u8| !byte.is_ascii_graphic() || b"{}()\\:?#\"<>".contains(&byte);
        if text.is_empty() || text.len() > 1024 || text.bytes().any(bad) || text.starts_with("//") {
            return None;
        }
        // Behind a wild card they say how often.
        if text.contains("*+") || text.contains("**") || text.matches('*').count() > STARS {
            return None;
        }
        let text = if text.starts_with('/') {
            text.as_bytes().to_vec()
        } else {
            // RFC 9842 §2.1.1: the URL of the dictionary is the base.
            let folder = dictionary.iter().rposition(|byte| *byte == b'/')?;
            [dictionary.get(..=folder)?, text.as_bytes()].concat()
        };
        let dots = text
            .split(|byte| *byte == b'/')
            .any(|part| matches!(part, b"." | b".."));
        (!dots).then_some(Self { text })
    }

    /// Whether a path without its query is meant.
    pub(crate) fn matches(&self, path: &[u8]) -> bool {
        let mut parts = self.text.split(|byte| *byte == b'*');
        let Some(mut rest) = parts.next().and_then(|start| path.strip_prefix(start)) else {
            return false;
        };
        let Some(last) = parts.next_back() else {
            return rest.is_empty();
        };
        for part in parts {
            match find(rest, part).and_then(|at| rest.get(at + part.len()..)) {
                Some(after) => rest = after,
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    if part.is_empty() {
        return Some(0);
    }
    text.windows(part.len()).position(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_match() {
        for (name, pattern, path, want) in [
            ("exact", "/a.js", "/a.js", true),
            ("longer", "/a.js", "/a.js.map", false),
            ("in the middle", "/js/app.*.js", "/js/app.17.js", true),
            ("nothing between", "/js/app*.js", "/js/app.js", true),
            ("overlap", "/js/ab*ba", "/js/aba", false),
            ("crosses segments", "/js/*", "/js/a/b", true),
            ("several", "/*/app/*.js", "/v1/app/main.js", true),
            (
                "several, out of order",
                "/*/app/*.js",
                "/v1/main.js/app/",
                false,
            ),
            ("the end twice", "/*.js", "/a.js.js", true),
            ("everything", "*", "/any", false),
            (
                "relative to the dictionary's folder",
                "app.*.js",
                "/static/app.2.js",
                true,
            ),
            ("relative, elsewhere", "app.*.js", "/app.2.js", false),
        ] {
            let pattern = Pattern::parse(pattern, b"/static/app.1.js").expect(name);
            assert_eq!(pattern.matches(path.as_bytes()), want, "{name}");
        }
    }

    #[test]
    fn what_is_not_understood_is_no_pattern() {
        for text in [
            "",
            "/:name",
            "/(a|b)",
            "/{a}?",
            "/a?b",
            "/a#b",
            "https://example.com/a",
            "//other/a",
            "/\\*",
            "/a*+",
            "/a**",
            "/a/../b",
            "./a",
            "/*1*2*3*4*5*6*7*8*9",
            "/a b",
            "/é",
        ] {
            assert_eq!(Pattern::parse(text, b"/x/y"), None, "{text}");
        }
        assert_eq!(
            Pattern::parse(&format!("/{}", "a".repeat(1024)), b"/"),
            None
        );
    }
}
