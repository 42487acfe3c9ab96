//! Paths as rules write them: exact, by prefix, or with named segments.

use edgeweir_filter::comparable;

/// A path that rules apply to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pattern {
    segments: Vec<Segment>,
    /// It ends in `*`: anything may follow, and what precedes it in its segment must begin it.
    open: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Segment {
    Literal(Vec<u8>),
    /// Exactly one segment, not empty.
    Named(String),
}

impl Pattern {
    /// `/login`, `/api/*`, `/users/{id}/orders`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(path) = text.strip_prefix('/') else {
            return Err(format!("{text:?} must begin with '/'"));
        };
        never_of_a_path(text)?;
        let (path, is_open) = match path.strip_suffix('*') {
            Some(path) => (path, true),
            None => (path, false),
        };
        if path.contains('*') {
            return Err(format!("{text:?} has a '*' that is not its end"));
        }
        let mut segments = Vec::new();
        for part in path.split('/') {
            let name = part
                .strip_prefix('{')
                .and_then(|rest| rest.strip_suffix('}'));
            segments.push(match name {
                Some(name) if is_name(name) => {
                    let named = Segment::Named(name.to_owned());
                    if segments.contains(&named) {
                        return Err(format!("{text:?} has two segments {name:?}: give each its own name"));
                    }
                    named
                }
                None if !part.contains(['{', '}']) => {
                    Segment::Literal(comparable(part.as_bytes()).into_owned())
                }
                _ => {
                    return Err(format!(
                        "{part:?} in {text:?} is no segment: a name of letters, digits and '_' in braces, or none"
                    ));
                }
            });
        }
        let open = match is_open.then(|| segments.pop()).flatten() {
            None => None,
            Some(Segment::Literal(begins)) => Some(begins),
            Some(Segment::Named(_)) => {
                return Err(format!("{text:?} has a '*' right after a named segment"));
            }
        };
        Ok(Self { segments, open })
    }

    /// Whether a path, as [`comparable`] gives, is one of these.
    pub fn matches(&self, path: &[u8]) -> bool {
        self.walk(path, |_, _| ())
    }

    /// The value of a named segment in a path that matches.
    pub fn segment<'p>(&self, path: &'p [u8], wanted: &str) -> Option<&'p [u8]> {
        let mut found = None;
        let matches = self.walk(path, |name, value| {
            if name == wanted && found.is_none() {
                found = Some(value);
            }
        });
        found.filter(|_| matches)
    }

    /// Whether it has a segment of this name.
    pub fn names(&self, wanted: &str) -> bool {
        let named = |segment: &Segment| matches!(segment, Segment::Named(name) if name == wanted);
        self.segments.iter().any(named)
    }

    fn walk<'p>(&self, path: &'p [u8], mut named: impl FnMut(&str, &'p [u8])) -> bool {
        let mut rest = path.strip_prefix(b"/");
        for segment in &self.segments {
            let Some(left) = rest else {
                return false;
            };
            let end = left.iter().position(|&byte| byte == b'/');
            let value = left.get(..end.unwrap_or(left.len())).unwrap_or_default();
            rest = end.and_then(|end| left.get(end + 1..));
            match segment {
                Segment::Literal(literal) if literal != value => return false,
                Segment::Named(_) if value.is_empty() => return false,
                Segment::Named(name) => named(name, value),
                Segment::Literal(_) => {}
            }
        }
        match (&self.open, rest) {
            (Some(begins), Some(left)) => left.starts_with(begins),
            (None, None) => true,
            _ => false,
        }
    }
}

/// RFC 3986 §3.3: "The path is terminated by the first question mark ("?") or number sign ("#") character, or by the end of
/// the URI". RFC 9112 §3: a space ends a request-target, and no control is in one.
pub fn never_of_a_path(text: &str) -> Result<(), String> {
    if text.contains(['?', '#']) {
        return Err(format!(
            "{text:?} must be a path alone, without a query or fragment: a query is a matter of `when`"
        ));
    }
    if text.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return Err(format!(
            "{text:?} must have no space or control: write them percent-encoded, like \"%20\""
        ));
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=64).contains(&name.len()) && name.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_written() {
        for (pattern, path, want) in [
            ("/", "/", true),
            ("/", "/a", false),
            ("/login", "/login", true),
            ("/login", "/login/", false),
            ("/login", "/Login", false),
            ("/*", "/", true),
            ("/*", "/a/b", true),
            ("/api/*", "/api/", true),
            ("/api/*", "/api", false),
            ("/api/*", "/apix", false),
            ("/api*", "/apix/y", true),
            ("/users/{id}", "/users/7", true),
            ("/users/{id}", "/users/", false),
            ("/users/{id}", "/users/7/orders", false),
            ("/users/{id}/*", "/users/7/orders", true),
            ("/users/{id}/*", "/users/7", false),
            ("/{a}/x/{b}", "/1/x/2", true),
            ("/{a}/x/{b}", "/1/y/2", false),
            ("/%6cogin", "/login", true),
            ("/caf%C3%A9", "/caf%c3%a9", true),
            ("/café", "/caf%c3%a9", true),
            ("/caf%C3%A9", "/café", true),
            ("/caf%c3%a9/*", "/caf%C3%a9/x", true),
            ("/login", "login", false),
            ("/login", "", false),
        ] {
            let parsed = Pattern::parse(pattern).unwrap();
            let is_matched = parsed.matches(&comparable(path.as_bytes()));
            assert_eq!(is_matched, want, "{pattern} {path}");
        }
    }

    #[test]
    fn named_segments_are_found() {
        let pattern = Pattern::parse("/users/{id}/orders/{order}").unwrap();
        assert!(pattern.names("id") && !pattern.names("users"));
        for (path, name, want) in [
            ("/users/7/orders/8", "id", Some("7")),
            ("/users/7/orders/8", "order", Some("8")),
            ("/users/7/orders/8", "x", None),
            ("/users/7/orders/", "id", None),
        ] {
            let found = pattern.segment(path.as_bytes(), name);
            assert_eq!(found, want.map(str::as_bytes), "{path} {name}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for (pattern, want) in [
            ("login", "must begin with '/'"),
            ("/a*b", "not its end"),
            ("/a/{id", "no segment"),
            ("/a/x{id}", "no segment"),
            ("/a/{}", "no segment"),
            ("/a/{id}*", "right after"),
            ("/{a}/{b}/{a}", "two segments \"a\""),
            ("/a?b=1", "without a query or fragment"),
            ("/a?*", "without a query or fragment"),
            ("/a#b", "without a query or fragment"),
            ("/a b", "no space or control"),
            ("/a\r", "no space or control"),
        ] {
            let error = Pattern::parse(pattern).unwrap_err();
            assert!(error.contains(want), "{pattern}: {error}");
        }
    }
}
