//! Which media types are worth coding.

/// A media type, or a group of them: `text/html`, `text/*`, `*/*`, `image/*+xml`, `*+json`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MediaRange {
    /// `None` for any.
    kind: Option<String>,
    subtype: Subtype,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Subtype {
    Any,
    Exact(String),
    /// With its `+`.
    Suffix(String),
}

impl MediaRange {
    /// Reads one; `None` when it is not of one of the forms above.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        let (kind, subtype) = match text.split_once('/') {
            Some((kind, subtype)) => (kind, subtype),
            None if text.starts_with("*+") => ("*", text.as_str()),
            None => return None,
        };
        let kind = match kind {
            "*" => None,
            exact => Some(restricted(exact)?),
        };
        let subtype = match subtype.strip_prefix('*') {
            Some("") => Subtype::Any,
            Some(suffix) => {
                restricted(suffix.strip_prefix('+')?)?;
                Subtype::Suffix(suffix.to_owned())
            }
            // `*/html` names no group that exists.
            None if kind.is_none() => return None,
            None => Subtype::Exact(restricted(subtype)?),
        };
        Some(Self { kind, subtype })
    }

    /// Whether a media type in lower case, without parameters, is meant.
    pub fn matches(&self, essence: &str) -> bool {
        let Some((kind, subtype)) = essence.split_once('/') else {
            return false;
        };
        self.kind.as_deref().is_none_or(|wanted| wanted == kind)
            && match &self.subtype {
                Subtype::Any => true,
                Subtype::Exact(wanted) => wanted == subtype,
                Subtype::Suffix(suffix) => {
                    subtype.len() > suffix.len() && subtype.ends_with(suffix.as_str())
                }
            }
    }
}

/// RFC 6838 §4.2: restricted-name, at most 127 characters.
fn restricted(name: &str) -> Option<String> {
    let fits = (1..=127).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b));
    fits.then(|| name.to_owned())
}

/// Types whose content is text or otherwise well compressible. Not among them: what has its own compression
/// (images, video, audio, archives, WOFF fonts).
pub const DEFAULT: &[&str] = &[
    "text/*",
    "*+json",
    "*+xml",
    "*+text",
    "*+yaml",
    "application/json",
    "application/json-seq",
    "application/ndjson",
    "application/x-ndjson",
    "application/jsonl",
    "application/json5",
    "application/javascript",
    "application/x-javascript",
    "application/ecmascript",
    "application/xml",
    "application/xml-dtd",
    "application/yaml",
    "application/toml",
    "application/sql",
    "application/rtf",
    "application/graphql",
    "application/wasm",
    "application/x-sh",
    "application/x-www-form-urlencoded",
    "application/vnd.apple.mpegurl",
    "application/vnd.ms-fontobject",
    "application/openmetrics-text",
    "font/otf",
    "font/ttf",
    "font/collection",
    "image/bmp",
    "image/x-icon",
    "image/vnd.microsoft.icon",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_match_what_they_name() {
        for (name, range, yes, no) in [
            ("exact", "text/html", "text/html", "text/htm"),
            (
                "any subtype",
                "text/*",
                "text/event-stream",
                "application/text",
            ),
            (
                "suffix of one type",
                "image/*+xml",
                "image/svg+xml",
                "application/atom+xml",
            ),
            (
                "suffix of any type",
                "*+json",
                "application/ld+json",
                "application/json",
            ),
            (
                "suffix alone is no subtype",
                "*/*+json",
                "a/b+json",
                "a/+json",
            ),
            (
                "upper case in the configuration",
                "TEXT/Plain",
                "text/plain",
                "text/html",
            ),
            ("everything", "*/*", "video/mp4", "video"),
        ] {
            let range = MediaRange::parse(range).expect(name);
            assert!(range.matches(yes), "{name}: {yes}");
            assert!(!range.matches(no), "{name}: {no}");
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in [
            "",
            "text",
            "*",
            "text/",
            "/html",
            "*/html",
            "text/ht*",
            "te xt/html",
            "a/*b",
            "text/html;q=1",
        ] {
            assert_eq!(MediaRange::parse(text), None, "{text}");
        }
        for text in DEFAULT {
            assert!(MediaRange::parse(text).is_some(), "{text}");
        }
    }
}
