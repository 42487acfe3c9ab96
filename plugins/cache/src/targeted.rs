//! Directives for this cache alone, in fields of their own (RFC 9213).

use edgeweir_filter::Fields;
use sfv::{BareItem, Dictionary, ListEntry, Parser};

use crate::directives::{Delta, LONGEST, Qualified, ResponseDirectives};

/// The directives that count for a response.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chosen {
    /// The directives.
    pub directives: ResponseDirectives,
    /// They are from a targeted field: `Cache-Control` and `Expires` do not count.
    pub targeted: bool,
}

/// Those of the first field of `targets` that is valid and not empty, else those of `Cache-Control`.
///
/// RFC 9213 §2.2: "Select the first (in target list order) field with a valid, non-empty value and use its value to
/// determine the caching policy for the response, and it MUST ignore the Cache-Control and Expires header fields".
pub fn directives(fields: &Fields, targets: &[String]) -> Chosen {
    let targeted = targets.iter().find_map(|name| {
        let text = fields.joined(name)?;
        let members: Dictionary = Parser::new(&text).parse().ok()?;
        if members.is_empty() {
            return None;
        }
        read(&members)
    });
    match targeted {
        Some(directives) => Chosen {
            directives,
            targeted: true,
        },
        None => Chosen {
            directives: ResponseDirectives::of(fields),
            targeted: false,
        },
    }
}

/// The directives of a dictionary; `None` when one that is known has a value of another type than it is to have: then
/// the field is not valid. Parameters are ignored (§2.1).
fn read(members: &Dictionary) -> Option<ResponseDirectives> {
    let mut all = ResponseDirectives::default();
    for (name, member) in members {
        let ListEntry::Item(item) = member else {
            if is_known(name.as_str()) {
                return None;
            }
            continue;
        };
        let value = &item.bare_item;
        match name.as_str() {
            "no-store" => all.no_store = flag(value)?,
            "public" => all.public = flag(value)?,
            "must-revalidate" => all.must_revalidate = flag(value)?,
            "proxy-revalidate" => all.proxy_revalidate = flag(value)?,
            "must-understand" => all.must_understand = flag(value)?,
            "no-cache" => all.no_cache = qualified(value)?,
            "private" => all.private = qualified(value)?,
            "max-age" => all.max_age = Some(seconds(value)?),
            "s-maxage" => all.s_maxage = Some(seconds(value)?),
            "stale-while-revalidate" => all.stale_while_revalidate = Some(seconds(value)?),
            "stale-if-error" => all.stale_if_error = Some(seconds(value)?),
            _ => {}
        }
    }
    Some(all)
}

fn is_known(name: &str) -> bool {
    matches!(
        name,
        "no-store"
            | "public"
            | "must-revalidate"
            | "proxy-revalidate"
            | "must-understand"
            | "no-cache"
            | "private"
            | "max-age"
            | "s-maxage"
            | "stale-while-revalidate"
            | "stale-if-error"
    )
}

fn flag(value: &BareItem) -> Option<bool> {
    match value {
        BareItem::Boolean(on) => Some(*on),
        _ => None,
    }
}

fn qualified(value: &BareItem) -> Option<Qualified> {
    match value {
        BareItem::Boolean(true) => Some(Qualified::All),
        BareItem::Boolean(false) => Some(Qualified::Absent),
        BareItem::String(names) => Some(Qualified::of(names.as_str().as_bytes())),
        _ => None,
    }
}

fn seconds(value: &BareItem) -> Option<Delta> {
    let BareItem::Integer(seconds) = value else {
        return None;
    };
    let seconds = u64::try_from(i64::from(*seconds)).ok()?;
    let seconds = u32::try_from(seconds).unwrap_or(LONGEST).min(LONGEST);
    Some(Delta::Seconds(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(lines: &[(&str, &str)], targets: &[&str]) -> Chosen {
        let targets: Vec<String> = targets.iter().map(|&name| name.to_owned()).collect();
        directives(&Fields::of(lines), &targets)
    }

    #[test]
    fn the_first_valid_field_counts() {
        let control = ("cache-control", "max-age=1");
        for (name, lines, targeted, max_age) in [
            ("none", vec![control], false, Some(1)),
            ("one", vec![control, ("cdn", "max-age=2")], true, Some(2)),
            (
                "the first of two",
                vec![("cdn", "max-age=2"), ("own", "max-age=3")],
                true,
                Some(3),
            ),
            (
                "the second, the first is empty",
                vec![("cdn", "max-age=2"), ("own", "")],
                true,
                Some(2),
            ),
            (
                "the second, the first can't be parsed",
                vec![("cdn", "max-age=2"), ("own", "max-age=3, &")],
                true,
                Some(2),
            ),
            (
                "in two lines",
                vec![("cdn", "public"), ("cdn", "max-age=2")],
                true,
                Some(2),
            ),
            (
                "with parameters",
                vec![control, ("cdn", "max-age=2;x=y")],
                true,
                Some(2),
            ),
            (
                "unknown ones only",
                vec![control, ("cdn", "x=y, z=(1 2)")],
                true,
                None,
            ),
            (
                "a string for a number",
                vec![control, ("cdn", "max-age=\"2\"")],
                false,
                Some(1),
            ),
            (
                "a decimal",
                vec![control, ("cdn", "max-age=2.0")],
                false,
                Some(1),
            ),
            (
                "negative",
                vec![control, ("cdn", "max-age=-2")],
                false,
                Some(1),
            ),
            (
                "no value",
                vec![control, ("cdn", "max-age")],
                false,
                Some(1),
            ),
            (
                "a list",
                vec![control, ("cdn", "max-age=(2)")],
                false,
                Some(1),
            ),
            (
                "a number for a flag",
                vec![control, ("cdn", "max-age=2, no-store=1")],
                false,
                Some(1),
            ),
            (
                "upper case is no key",
                vec![control, ("cdn", "Max-Age=2")],
                false,
                Some(1),
            ),
            (
                "huge",
                vec![("cdn", "max-age=999999999999999")],
                true,
                Some(LONGEST),
            ),
            (
                "the last of two members",
                vec![("cdn", "max-age=2, max-age=3")],
                true,
                Some(3),
            ),
        ] {
            let got = chosen(&lines, &["own", "cdn"]);
            let seconds = got.directives.max_age.map(Delta::or_stale);
            assert_eq!((got.targeted, seconds), (targeted, max_age), "{name}");
        }
    }

    #[test]
    fn flags_and_names() {
        let got = chosen(
            &[(
                "own",
                "no-store=?0, public, private=\"Set-Cookie, x\", no-cache",
            )],
            &["own"],
        );
        let all = got.directives;
        assert!(!all.no_store && all.public);
        assert_eq!(all.no_cache, Qualified::All);
        assert!(all.private.names(b"set-cookie") && all.private.names(b"x"));
    }
}
