//! Conditions: the client's, answered from the store (RFC 9111 §4.3.2), and our own, asked of the origin (§4.3.1), with
//! what its answer does to a stored response (§4.3.3 to §4.3.5, §3.2).

use bytes::Bytes;
use edgeweir_filter::{Fields, ResponseHead, entity_tags};

use crate::freshness::parse_date;
use crate::storable;
use crate::stored::Stored;

/// Fields of a 304 or of a HEAD response that do not replace stored ones: they describe the stored bytes, or select
/// them (RFC 9111 §3.2: "Content-Length" and fields that the stored response "depends upon").
const NOT_UPDATED: [&[u8]; 5] = [
    b"content-length",
    b"content-encoding",
    b"content-range",
    b"vary",
    b"cache-status",
];

/// Representation fields that have no place in a 304 (RFC 9110 §15.4.5).
const NOT_IN_304: [&str; 6] = [
    "content-encoding",
    "content-language",
    "content-length",
    "content-range",
    "content-type",
    "accept-ranges",
];

/// Whether the client has this response already: then it is to be answered with 304.
pub fn is_known_to(request: &Fields, stored: &Stored) -> bool {
    // RFC 9111 §4.3.2: evaluated for "a request that can be satisfied by reusing a stored 200 (OK) or 206 (Partial Content)
    // response"; other statuses are what they are.
    if !matches!(stored.status, 200 | 206) {
        return false;
    }
    if request.has("if-none-match") {
        // RFC 9110 §13.1.2: weak comparison; `*` matches any representation there is. If-Modified-Since is ignored
        // beside it (§13.1.3).
        let tag = stored.fields.get("etag").map(opaque);
        return request
            .values("if-none-match")
            .flat_map(entity_tags)
            .any(|member| member == b"*" || Some(opaque(member)) == tag);
    }
    let mut since = request.values("if-modified-since");
    let (Some(since), None) = (since.next(), since.next()) else {
        return false;
    };
    // RFC 9110 §13.1.3: "A recipient MUST ignore the If-Modified-Since header field if the received field value is not
    // a valid HTTP-date". RFC 9111 §4.3.2: without Last-Modified, Date is compared.
    let modified = stored
        .fields
        .get("last-modified")
        .or_else(|| stored.fields.get("date"));
    match (parse_date(since), modified.and_then(parse_date)) {
        (Some(since), Some(modified)) => modified <= since,
        _ => false,
    }
}

/// Asks the origin whether a stored response is still right, in place of what the client asked.
pub fn ask_whether_changed(request: &mut Fields, stored: &Stored) {
    // RFC 9111 §4.3.1: If-None-Match from the stored ETag, If-Modified-Since from the stored Last-Modified.
    for (condition, validator) in [
        ("if-none-match", "etag"),
        ("if-modified-since", "last-modified"),
    ] {
        match stored.fields.get(validator) {
            Some(value) => request.set(condition, value.to_vec()),
            None => {
                request.remove(condition);
            }
        }
    }
}

/// Asks the origin for the whole response, whatever the client has of it; says whether that changes anything.
pub fn ask_for_all(request: &mut Fields) -> bool {
    let (by_tag, by_date) = (
        request.remove("if-none-match"),
        request.remove("if-modified-since"),
    );
    by_tag || by_date
}

/// Whether a 304 is about this stored response. RFC 9111 §4.3.4: "If none of the stored responses contains at least one of
/// those same strong validators, then the cache MUST NOT use the new response to update any stored responses." A weak one or
/// none goes with the response that was asked about.
pub fn is_about(not_modified: &Fields, stored: &Stored) -> bool {
    match (not_modified.get("etag"), stored.fields.get("etag")) {
        (Some(new), Some(old)) => opaque(new) == opaque(old),
        (Some(new), None) => new.trim_ascii().starts_with(b"W/"),
        (None, _) => true,
    }
}

/// Whether a response to HEAD says that the stored GET is still right; `None` when it has nothing to tell by. RFC 9111 §4.3.5:
/// validators and length, where given, must be the stored ones.
pub fn agrees_with(head: &ResponseHead, stored: &Stored) -> Option<bool> {
    let told = ["etag", "last-modified", "content-length"];
    if head.status == stored.status && !told.iter().any(|name| head.fields.has(name)) {
        return None;
    }
    let same = |name: &str| match head.fields.get(name) {
        Some(new) => stored.fields.get(name) == Some(new),
        None => true,
    };
    let length = head
        .content_length()
        .is_none_or(|length| usize::try_from(length) == Ok(stored.body.len()));
    Some(head.status == stored.status && same("etag") && same("last-modified") && length)
}

/// The stored fields brought up to date: each field that the new message has replaces all stored lines of it.
pub fn freshened(stored: &Stored, new: &Fields) -> Fields {
    // A coding applied on the way weakens a tag; then the origin's strong one would claim too much of the stored bytes.
    // RFC 9111 §3.1: what belongs to the connection of the new message is none of the stored one's.
    let own = storable::of_connection(new);
    let same_tag = stored.fields.get("etag").map(opaque) == new.get("etag").map(opaque);
    let updates = |name: &[u8]| match name {
        b"etag" => !same_tag,
        // RFC 9111 §4.2.3: the age of the 304 is where the age of what it freshens begins anew.
        b"age" => true,
        _ => !NOT_UPDATED.contains(&name) && !own(name),
    };
    let replaced = |name: &[u8]| updates(name) && new.iter().any(|(n, _)| &n[..] == name);
    let old = stored.fields.iter().filter(|(name, _)| !replaced(name));
    let new_lines = new.iter().filter(|(name, _)| updates(name));
    let lines: Vec<(Bytes, Bytes)> = old
        .chain(new_lines)
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect();
    let mut fields = Fields::received(lines);
    // Both must go on selecting: what the stored bytes vary by, and what the origin says now.
    for name in new.list("vary") {
        if !fields
            .list("vary")
            .any(|known| known.eq_ignore_ascii_case(name))
        {
            fields.append("vary", name.to_vec());
        }
    }
    fields
}

/// Leaves out what describes a body: the reply has none of the stored one.
pub fn leave_out_representation(fields: &mut Fields) {
    for name in NOT_IN_304 {
        fields.remove(name);
    }
}

/// RFC 9110 §8.8.3.2: weak comparison looks at the opaque part only.
fn opaque(tag: &[u8]) -> &[u8] {
    let tag = entity_tags(tag).next().unwrap_or(tag);
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stored::Conditions;
    use edgeweir_filter::Timestamp;

    fn stored(fields: &[(&str, &str)]) -> Stored {
        Stored {
            generation: 1,
            status: 200,
            fields: Fields::of(fields),
            responded: Timestamp::from_secs(0),
            requested: Timestamp::from_secs(0),
            initial_age: 0,
            lifetime: 60,
            conditions: Conditions::default(),
            part: None,
            groups: Vec::new(),
            secondary: Bytes::new(),
            body: Bytes::from("body"),
        }
    }

    #[test]
    fn conditions_of_clients() {
        let has = stored(&[
            ("etag", "\"a,b\""),
            ("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT"),
        ]);
        let dated = stored(&[("date", "Thu, 01 Jan 2026 00:00:00 GMT")]);
        let then = "Thu, 01 Jan 2026 00:00:00 GMT";
        let before = "Wed, 31 Dec 2025 23:59:59 GMT";
        type Row<'a> = (&'a str, &'a Stored, &'a [(&'a str, &'a str)], bool);
        let table: &[Row<'_>] = &[
            ("none", &has, &[], false),
            ("the tag", &has, &[("if-none-match", "\"a,b\"")], true),
            ("weak form", &has, &[("if-none-match", "W/\"a,b\"")], true),
            (
                "in a list over lines",
                &has,
                &[
                    ("if-none-match", "\"x\""),
                    ("if-none-match", "\"y\", \"a,b\""),
                ],
                true,
            ),
            ("another", &has, &[("if-none-match", "\"b\"")], false),
            ("without quotes", &has, &[("if-none-match", "a,b")], false),
            ("any", &has, &[("if-none-match", "*")], true),
            (
                "tag wins over date",
                &has,
                &[("if-none-match", "\"b\""), ("if-modified-since", then)],
                false,
            ),
            ("same date", &has, &[("if-modified-since", then)], true),
            ("earlier", &has, &[("if-modified-since", before)], false),
            (
                "no date",
                &has,
                &[("if-modified-since", "yesterday")],
                false,
            ),
            (
                "no tag stored",
                &dated,
                &[("if-none-match", "\"a\"")],
                false,
            ),
            (
                "Date instead of Last-Modified",
                &dated,
                &[("if-modified-since", then)],
                true,
            ),
        ];
        for (name, stored, request, want) in table {
            assert_eq!(is_known_to(&Fields::of(request), stored), *want, "{name}");
        }
    }

    #[test]
    fn conditions_are_about_what_was_found() {
        for (status, want) in [(200, true), (206, true), (203, false), (404, false)] {
            let has = Stored {
                status,
                ..stored(&[("etag", "\"a\"")])
            };
            let request = Fields::of(&[("if-none-match", "\"a\"")]);
            assert_eq!(is_known_to(&request, &has), want, "{status}");
        }
    }

    #[test]
    fn every_field_of_a_304_replaces() {
        let old = stored(&[
            ("etag", "W/\"a\""),
            ("x-two", "1"),
            ("x-two", "2"),
            ("x-kept", "1"),
            ("content-encoding", "gzip"),
            ("vary", "accept-encoding"),
        ]);
        let new = Fields::of(&[
            ("etag", "\"a\""),
            ("x-two", "3"),
            ("x-new", "1"),
            ("content-encoding", "br"),
            ("content-length", "0"),
            ("vary", "origin"),
        ]);
        let fields = freshened(&old, &new);
        assert_eq!(fields.values("x-two").collect::<Vec<_>>(), [b"3"]);
        assert_eq!(fields.text("etag"), Some("W/\"a\""));
        assert_eq!(fields.text("content-encoding"), Some("gzip"));
        assert_eq!(
            fields.joined("vary").as_deref(),
            Some(&b"accept-encoding, origin"[..])
        );
        assert!(fields.has("x-kept") && fields.has("x-new") && !fields.has("content-length"));
        assert!(is_about(&new, &old));
        assert!(!is_about(&Fields::of(&[("etag", "\"b\"")]), &old));
        let untagged = stored(&[("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT")]);
        assert!(!is_about(&new, &untagged), "strong, and none stored");
        assert!(is_about(&Fields::of(&[("etag", "W/\"a\"")]), &untagged));
        assert!(is_about(&Fields::default(), &untagged));
    }
}
