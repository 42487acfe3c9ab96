//! The fields of RFC 9842, as Structured Fields (RFC 9651): what does not parse is as if it were not there.

use edgeweir_filter::Fields;
use sfv::{BareItem, Dictionary, Item, ListEntry, Parser};

use super::pattern::Pattern;

/// RFC 9842 §2.1: `Use-As-Dictionary`, as far as it can be followed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct UseAs {
    pub(crate) pattern: Pattern,
    /// Request destinations it is for; empty means all.
    pub(crate) destinations: Vec<String>,
    pub(crate) id: String,
}

impl UseAs {
    /// Of a response to a request for this path (without its query).
    pub(crate) fn parse(fields: &Fields, path: &[u8]) -> Option<Self> {
        let text = fields.joined("use-as-dictionary")?;
        let members: Dictionary = Parser::new(&text).parse().ok()?;
        let item = |name: &str| match members.get(name) {
            Some(ListEntry::Item(item)) => Some(&item.bare_item),
            _ => None,
        };
        // §2.1.4: "raw" is the default, and the only one there is.
        match item("type") {
            None if members.get("type").is_none() => {}
            Some(BareItem::Token(token)) if token.as_str() == "raw" => {}
            _ => return None,
        }
        // §2.1.1: without a match it is no dictionary.
        let Some(BareItem::String(pattern)) = item("match") else {
            return None;
        };
        let id = match (members.get("id"), item("id")) {
            (None, _) => String::new(),
            // §2.1.3: at most 1024 characters.
            (_, Some(BareItem::String(id))) if id.as_str().len() <= 1024 => id.as_str().to_owned(),
            _ => return None,
        };
        let destinations = match members.get("match-dest") {
            None => Vec::new(),
            Some(ListEntry::InnerList(list)) if list.items.len() <= 32 => {
                let texts = list.items.iter().map(|item| match &item.bare_item {
                    BareItem::String(text) => Some(text.as_str().to_owned()),
                    _ => None,
                });
                texts.collect::<Option<_>>()?
            }
            Some(_) => return None,
        };
        Some(Self {
            pattern: Pattern::parse(pattern.as_str(), path)?,
            destinations,
            id,
        })
    }
}

/// RFC 9842 §2.2, §2.3: the dictionary that a client has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Available {
    pub(crate) sha256: [u8; 32],
    /// What the response with the dictionary said of it; `None` when the client does not say.
    pub(crate) id: Option<String>,
    /// What the response is for (Fetch, `Sec-Fetch-Dest`).
    pub(crate) destination: Option<String>,
}

impl Available {
    /// Of a request.
    pub(crate) fn parse(fields: &Fields) -> Option<Self> {
        let text = fields.joined("available-dictionary")?;
        let item: Item = Parser::new(&text).parse().ok()?;
        let BareItem::ByteSequence(hash) = item.bare_item else {
            return None;
        };
        let id = fields.joined("dictionary-id").and_then(|text| {
            let item: Item = Parser::new(&text).parse().ok()?;
            match item.bare_item {
                BareItem::String(id) => Some(id.as_str().to_owned()),
                _ => None,
            }
        });
        // Fetch: the destination of `fetch()` is the empty string, "serialized as "empty"" in the field.
        let destination = fields.text("sec-fetch-dest").map(|text| match text {
            "empty" => String::new(),
            other => other.to_owned(),
        });
        Some(Self {
            sha256: hash.try_into().ok()?,
            id,
            destination,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn use_as_dictionary_section_2_1() {
        let destination = |text: &str| vec![text.to_owned()];
        for (name, text, want) in [
            ("a pattern", r#"match="/js/*""#, Some((vec![], ""))),
            (
                "all of it",
                r#"match="/js/*", match-dest=("script"), id="v1", type=raw"#,
                Some((destination("script"), "v1")),
            ),
            (
                "order and space do not count",
                r#"id="v1" , match="/js/*";x=1"#,
                Some((vec![], "v1")),
            ),
            (
                "what is not known does not count",
                r#"match="/js/*", ttl=60"#,
                Some((vec![], "")),
            ),
            ("no pattern", r#"id="v1""#, None),
            ("another type", r#"match="/js/*", type=zip"#, None),
            (
                "a type that is no token",
                r#"match="/js/*", type="raw""#,
                None,
            ),
            ("a pattern that is a token", "match=*", None),
            ("a regular expression", r#"match="/(a|b)""#, None),
            ("a bad id", r#"match="/js/*", id=1"#, None),
            (
                "bad destinations",
                r#"match="/js/*", match-dest="script""#,
                None,
            ),
            ("not structured", "match=/js/*", None),
            ("empty", "", None),
        ] {
            let parsed = UseAs::parse(&Fields::of(&[("use-as-dictionary", text)]), b"/a");
            let parsed = parsed.map(|it| (it.destinations, it.id));
            let want = want.map(|(all, id)| (all, id.to_owned()));
            assert_eq!(parsed, want, "{name}");
        }
        let long = format!(r#"match="/js/*", id="{}""#, "a".repeat(1025));
        assert_eq!(
            UseAs::parse(&Fields::of(&[("use-as-dictionary", &long)]), b"/"),
            None
        );
    }

    #[test]
    fn available_dictionary_section_2_2() {
        let hash = ":pZGm1Av0IEBKARczz7exkNYsZb8LzaMrV7J32a2fFG4=:";
        for (name, text, want) in [
            ("a hash", hash, true),
            ("with a parameter", &format!("{hash};a=1"), true),
            ("too short", ":AAAA:", false),
            ("a string", "\"abc\"", false),
            ("two", &format!("{hash}, {hash}"), false),
            ("not base64", ":????:", false),
        ] {
            let parsed = Available::parse(&Fields::of(&[("available-dictionary", text)]));
            assert_eq!(parsed.is_some(), want, "{name}");
        }
        let fields = [
            ("available-dictionary", hash),
            ("dictionary-id", "\"v1\""),
            ("sec-fetch-dest", "script"),
        ];
        let parsed = Available::parse(&Fields::of(&fields)).expect("a dictionary");
        assert_eq!(parsed.sha256[..2], [0xa5, 0x91]);
        assert_eq!(parsed.id.as_deref(), Some("v1"));
        assert_eq!(parsed.destination.as_deref(), Some("script"));
        let fields = [("available-dictionary", hash), ("sec-fetch-dest", "empty")];
        let parsed = Available::parse(&Fields::of(&fields)).expect("a dictionary");
        assert_eq!(parsed.destination.as_deref(), Some(""));
    }
}
