//! The entity tag of a coded representation, and how a client's conditions find their way back to the origin's.

use bytes::Bytes;
use edgeweir_filter::{Fields, ResponseHead, entity_tags, representation};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::Coding;

/// What becomes of a strong `ETag` when the content is coded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Etags {
    /// `W/"a"`: the coded content means the same. The origin understands it in `If-None-Match` as it is.
    #[default]
    Weak,
    /// `"a-gzip"`: a strong tag of the coded content, which is the origin's again on the way back.
    Suffix,
}

/// Gives the origin what it knows: each suffixed tag of `If-None-Match` and `If-Match` is followed by the tag that it
/// was made of. The suffixed one stays: it may be the origin's own.
///
/// `If-Range` is left alone. With the origin's tag in it a range would be answered with bytes of the plain content, to be
/// put together with coded ones (RFC 9110 §13.1.5); with the suffixed one the origin sends all of it.
pub(crate) fn to_origin(etags: Etags, fields: &mut Fields) {
    if etags == Etags::Weak {
        return;
    }
    for condition in ["if-none-match", "if-match"] {
        let Some(asked) = fields.joined(condition) else {
            continue;
        };
        let mut all: Vec<&[u8]> = Vec::new();
        let plain: Vec<Vec<u8>> = entity_tags(&asked).filter_map(without_suffix).collect();
        for member in entity_tags(&asked).chain(plain.iter().map(Vec::as_slice)) {
            if !all.contains(&member) {
                all.push(member);
            }
        }
        if !plain.is_empty() {
            fields.set(condition, all.join(&b", "[..]));
        }
    }
}

/// Whether a part is asked for if the content is still of a date.
///
/// RFC 9110 §13.1.5: a date in `If-Range` is told from a tag by the first three characters having no quote.
pub(crate) fn resumes_by_date(fields: &Fields) -> bool {
    let start = fields.get("if-range").map(|it| it.get(..3).unwrap_or(it));
    start.is_some_and(|it| !it.contains(&b'"'))
}

/// Makes a head true for the content coded so, its `ETag` too.
///
/// RFC 9110 §8.8.1: a strong validator changes "whenever a change occurs to the representation data". Where the coded
/// bytes of equal content differ (`varied`), only a weak one is true.
pub(crate) fn coded(head: &mut ResponseHead, coding: Coding, etags: Etags, varied: bool) {
    let suffixed = match etags {
        Etags::Suffix if !varied => head
            .fields
            .get("etag")
            .and_then(|tag| suffixed(tag, coding)),
        _ => None,
    };
    representation::transformed(head);
    if let Some(suffixed) = suffixed {
        head.fields.set("etag", suffixed);
    }
}

/// Makes the `ETag` of a 304 the one of the 200 that the client holds; answers whether that is the plain one.
///
/// RFC 9110 §15.4.5: a 304 has the `ETag` "that would have been sent in a 200"; RFC 9111 §4.3.4: one that the stored
/// response does not have would freshen nothing. `liked` are the codings that a 200 could have now, best first;
/// without `changes` it would be plain.
pub(crate) fn not_modified(
    head: &mut ResponseHead,
    asked: Option<&[u8]>,
    liked: &[Coding],
    changes: bool,
    etags: Etags,
) -> bool {
    let Some(tag) = head.fields.get("etag").map(Bytes::copy_from_slice) else {
        // By date: it may be coded or not.
        return !changes;
    };
    let held = |tag: &[u8]| asked.is_some_and(|asked| entity_tags(asked).any(|one| one == tag));
    let plain = tag.starts_with(b"\"") && held(&tag);
    if etags == Etags::Suffix && !(plain && liked.is_empty()) {
        let others = Coding::ALL.iter().filter(|coding| !liked.contains(coding));
        let mut forms = liked.iter().chain(others);
        let form = forms.find_map(|coding| suffixed(&tag, *coding).filter(|form| held(form)));
        if let Some(form) = form {
            head.fields.set("etag", form);
            return false;
        }
    }
    if !changes {
        return true;
    }
    if !plain {
        representation::weaken_etag(head);
    }
    plain
}

/// `"a"` as `"a-gzip"`; `None` for a weak tag, and for what is none.
fn suffixed(tag: &[u8], coding: Coding) -> Option<Vec<u8>> {
    let [b'"', opaque @ .., b'"'] = tag else {
        return None;
    };
    Some([b"\"", opaque, b"-", coding.token().as_bytes(), b"\""].concat())
}

/// `"a-gzip"` as `"a"`; a weak one stays weak.
fn without_suffix(member: &[u8]) -> Option<Vec<u8>> {
    let rest = member.strip_suffix(b"\"")?;
    let opaque = Coding::ALL.iter().find_map(|coding| {
        let rest = rest.strip_suffix(coding.token().as_bytes())?;
        rest.strip_suffix(b"-")
    })?;
    Some([opaque, b"\""].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use Coding::{Brotli, Gzip};
    use Etags::{Suffix, Weak};

    fn head(tag: &str) -> ResponseHead {
        ResponseHead {
            fields: Fields::of(&[("etag", tag)]),
            ..ResponseHead::default()
        }
    }

    #[test]
    fn a_coded_tag() {
        for (name, tag, etags, varied, want) in [
            ("weak by default", "\"a\"", Weak, false, "W/\"a\""),
            ("weak already", "W/\"a\"", Weak, false, "W/\"a\""),
            ("suffixed", "\"a\"", Suffix, false, "\"a-gzip\""),
            (
                "weak is never suffixed",
                "W/\"a\"",
                Suffix,
                false,
                "W/\"a\"",
            ),
            (
                "bytes that vary have no strong tag",
                "\"a\"",
                Suffix,
                true,
                "W/\"a\"",
            ),
            ("empty", "\"\"", Suffix, false, "\"-gzip\""),
            ("no tag at all", "a", Suffix, false, "a"),
        ] {
            let mut head = head(tag);
            coded(&mut head, Gzip, etags, varied);
            assert_eq!(head.fields.text("etag"), Some(want), "{name}");
        }
    }

    #[test]
    fn conditions_on_the_way_to_the_origin() {
        for (name, asked, want) in [
            ("ours", "\"a-gzip\"", "\"a-gzip\", \"a\""),
            (
                "two codings of one",
                "\"a-gzip\", \"a-br\"",
                "\"a-gzip\", \"a-br\", \"a\"",
            ),
            ("both forms", "\"a\", \"a-br\"", "\"a\", \"a-br\""),
            ("a stranger's", "\"a-zip\"", "\"a-zip\""),
            ("without a dash", "\"agzip\"", "\"agzip\""),
            ("any", "*", "*"),
            ("a comma inside", "\"a,b-gzip\"", "\"a,b-gzip\", \"a,b\""),
            ("weak", "W/\"a-gzip\"", "W/\"a-gzip\", W/\"a\""),
            ("broken", "a-gzip", "a-gzip"),
            (
                "a backslash",
                "\"a\\\", \"b-gzip\"",
                "\"a\\\", \"b-gzip\", \"b\"",
            ),
        ] {
            for condition in ["if-none-match", "if-match"] {
                let mut fields = Fields::of(&[(condition, asked), ("if-range", asked)]);
                to_origin(Suffix, &mut fields);
                assert_eq!(fields.text(condition), Some(want), "{name}");
                assert_eq!(
                    fields.text("if-range"),
                    Some(asked),
                    "{name}: a range is of plain bytes"
                );
            }
        }
    }

    #[test]
    fn a_304_for_a_client_without_codings() {
        for (asked, want, plain) in [
            ("\"a\"", "\"a\"", true),
            ("\"a\", \"a-gzip\"", "\"a\"", true),
            ("\"a-gzip\"", "\"a-gzip\"", false),
            ("\"b\"", "\"a\"", true),
        ] {
            let mut head = head("\"a\"");
            let held = not_modified(&mut head, Some(asked.as_bytes()), &[], false, Suffix);
            assert_eq!(
                (head.fields.text("etag"), held),
                (Some(want), plain),
                "{asked}"
            );
        }
    }

    #[test]
    fn the_tag_of_a_304_is_the_one_held() {
        for (name, tag, asked, etags, want, plain) in [
            (
                "suffixed",
                "\"a\"",
                Some("\"a-gzip\""),
                Suffix,
                "\"a-gzip\"",
                false,
            ),
            (
                "another coding than the best",
                "\"a\"",
                Some("\"a-br\""),
                Suffix,
                "\"a-br\"",
                false,
            ),
            ("plain", "\"a\"", Some("\"a\""), Suffix, "\"a\"", true),
            (
                "both: as a 200 would be",
                "\"a\"",
                Some("\"a\", \"a-gzip\""),
                Suffix,
                "\"a-gzip\"",
                false,
            ),
            (
                "two: the best",
                "\"a\"",
                Some("\"a-br\", \"a-gzip\""),
                Suffix,
                "\"a-gzip\"",
                false,
            ),
            (
                "the origin's own suffix",
                "\"a-gzip\"",
                Some("\"a-gzip\""),
                Suffix,
                "\"a-gzip\"",
                true,
            ),
            ("neither", "\"a\"", Some("\"b\""), Suffix, "W/\"a\"", false),
            ("by date", "\"a\"", None, Suffix, "W/\"a\"", false),
            (
                "weak mode, held weak",
                "\"a\"",
                Some("W/\"a\""),
                Weak,
                "W/\"a\"",
                false,
            ),
            (
                "weak mode, held strong",
                "\"a\"",
                Some("\"b\", \"a\""),
                Weak,
                "\"a\"",
                true,
            ),
            (
                "weak at the origin",
                "W/\"a\"",
                Some("W/\"a\""),
                Weak,
                "W/\"a\"",
                false,
            ),
        ] {
            let mut head = head(tag);
            let held = not_modified(
                &mut head,
                asked.map(str::as_bytes),
                &[Gzip, Brotli],
                true,
                etags,
            );
            assert_eq!(
                (head.fields.text("etag"), held),
                (Some(want), plain),
                "{name}"
            );
        }
    }
}
