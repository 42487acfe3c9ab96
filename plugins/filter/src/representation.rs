//! What every filter that changes a body owes the head (RFC 9110).

use crate::{Fields, ResponseHead, entity_tags};

/// RFC 9110 §7.7: a proxy "MUST NOT transform the content of a message that contains a no-transform cache directive".
pub fn no_transform(fields: &Fields) -> bool {
    fields
        .list("cache-control")
        .any(|directive| directive.eq_ignore_ascii_case(b"no-transform"))
}

/// Makes a head true for a representation whose bytes were changed: the length is unknown, digests and byte ranges of
/// the old bytes are gone, a strong validator becomes weak.
pub fn transformed(head: &mut ResponseHead) {
    head.expected = head.expected_length();
    drop_fields_of_bytes(&mut head.fields);
    weaken_etag(head);
}

/// Drops what is said of the bytes themselves: their length, digests and ranges.
///
/// For a 304 too: RFC 9111 §3.2 has its fields replace those of the stored response, which are of other bytes.
pub fn drop_fields_of_bytes(fields: &mut Fields) {
    // RFC 9110 §8.6: a sender MUST NOT forward a Content-Length known to be incorrect.
    fields.remove("content-length");
    drop_digests(fields);
    // Ranges asked of the origin would be of its own bytes.
    fields.remove("accept-ranges");
}

/// Drops digests of bytes that were changed; they may also come in the trailer section (RFC 9530 §6.5).
pub fn drop_digests(fields: &mut Fields) {
    // RFC 9530 §2, §3; RFC 3230 §4.3.2; RFC 2616 §14.15: digests of the bytes before.
    for digest in ["content-digest", "repr-digest", "digest", "content-md5"] {
        fields.remove(digest);
    }
}

/// Why a response's content is left alone, whatever it is and whatever the filter does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fixed {
    /// The status has no content of its own: 1xx, 204, 205.
    Status,
    /// 304: only what it says of the stored response matters.
    NotModified,
    /// A part of a representation: 206, or any response with `Content-Range`.
    Partial,
    /// `Cache-Control: no-transform`.
    NoTransform,
    /// A content coding was applied already.
    Coded,
    /// There is no byte of content.
    Empty,
}

/// Whether a response may be changed by any filter: `Some` names the reason why not.
///
/// An answer to HEAD (`is_head`) is judged as that to GET would be.
pub fn fixed(head: &ResponseHead, is_head: bool) -> Option<Fixed> {
    let fields = &head.fields;
    if no_transform(fields) {
        return Some(Fixed::NoTransform);
    }
    match head.status {
        // RFC 9110 §15.2, §15.3.5, §15.3.6: no content.
        0..=199 | 204 | 205 => return Some(Fixed::Status),
        304 => return Some(Fixed::NotModified),
        // RFC 9110 §14.4: the positions are those of the bytes as the origin has them; a 416 names their number.
        206 | 416 => return Some(Fixed::Partial),
        _ if fields.has("content-range") => return Some(Fixed::Partial),
        _ => {}
    }
    if is_coded(fields) {
        return Some(Fixed::Coded);
    }
    let none_follows = head.end && !is_head;
    (none_follows || head.content_length() == Some(0)).then_some(Fixed::Empty)
}

/// Makes the head of a 304 the one that a changed 200 would have had, without knowing whether that was changed: its `ETag` weak and
/// nothing said of the bytes, unless the client holds the strong one.
///
/// RFC 9110 §15.4.5: a 304 has the `ETag` "that would have been sent in a 200"; RFC 9111 §4.3.4: a strong one that
/// the stored response does not have would freshen nothing.
pub fn weaken_not_modified(head: &mut ResponseHead, if_none_match: Option<&[u8]>) {
    let held = match (head.fields.get("etag"), if_none_match) {
        (Some(tag), Some(asked)) => entity_tags(asked).any(|member| member == tag),
        _ => false,
    };
    if !held {
        transformed(head);
    }
}

/// RFC 9110 §8.8.1: a strong validator changes whenever the representation data does, so changed data has a weak one.
pub fn weaken_etag(head: &mut ResponseHead) {
    let weak = match head.fields.get("etag") {
        Some(tag) if tag.starts_with(b"\"") => [b"W/", tag].concat(),
        _ => return,
    };
    head.fields.set("etag", weak);
}

/// The type and subtype of `content-type`, without parameters, in lower case.
pub fn media_type(fields: &Fields) -> Option<String> {
    essence(fields.get("content-type")?)
}

/// The type and subtype of one value of `content-type`, as [`media_type`] gives them.
pub fn essence(value: &[u8]) -> Option<String> {
    let essence = value.split(|&byte| byte == b';').next()?.trim_ascii();
    let text = std::str::from_utf8(essence).ok()?;
    (!text.is_empty()).then(|| text.to_ascii_lowercase())
}

/// The `charset` parameter of `content-type`, unquoted, in lower case.
pub fn charset(fields: &Fields) -> Option<String> {
    let value = fields.get("content-type")?;
    let (mut quoted, mut escaped) = (false, false);
    let parts = value.split(|&byte| {
        // RFC 9110 §5.6.4: within a quoted string a semicolon parts nothing, and a quote behind a backslash ends it not.
        quoted ^= byte == b'"' && !escaped;
        escaped = byte == b'\\' && quoted && !escaped;
        byte == b';' && !quoted
    });
    parts.skip(1).find_map(|one| {
        let at = one.iter().position(|&byte| byte == b'=')?;
        let (name, value) = (one.get(..at)?.trim_ascii(), one.get(at + 1..)?.trim_ascii());
        if !name.eq_ignore_ascii_case(b"charset") {
            return None;
        }
        let value = value.strip_prefix(b"\"").unwrap_or(value);
        let value = value.strip_suffix(b"\"").unwrap_or(value);
        Some(String::from_utf8_lossy(value).to_ascii_lowercase())
    })
}

/// Whether a content coding other than `identity` was applied.
pub fn is_coded(fields: &Fields) -> bool {
    fields
        .list("content-encoding")
        .any(|coding| !coding.eq_ignore_ascii_case(b"identity"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(status: u16, lines: &[(&str, &str)]) -> ResponseHead {
        ResponseHead {
            status,
            fields: Fields::of(lines),
            end: false,
            ..ResponseHead::default()
        }
    }

    #[test]
    fn what_stays_as_it_is() {
        for (name, status, lines, want) in [
            ("a plain 200", 200, &[][..], None),
            ("an error page", 500, &[("content-length", "9")], None),
            (
                "told not to",
                304,
                &[("cache-control", "no-transform")],
                Some(Fixed::NoTransform),
            ),
            ("no content", 204, &[], Some(Fixed::Status)),
            ("switching", 101, &[], Some(Fixed::Status)),
            ("not modified", 304, &[], Some(Fixed::NotModified)),
            ("a part", 206, &[], Some(Fixed::Partial)),
            (
                "a part by its field",
                200,
                &[("content-range", "bytes 0-1/2")],
                Some(Fixed::Partial),
            ),
            (
                "coded",
                200,
                &[("content-encoding", "gzip")],
                Some(Fixed::Coded),
            ),
            (
                "not really coded",
                200,
                &[("content-encoding", "Identity")],
                None,
            ),
            (
                "declared empty",
                200,
                &[("content-length", "0")],
                Some(Fixed::Empty),
            ),
        ] {
            assert_eq!(fixed(&head(status, lines), false), want, "{name}");
            let ended = ResponseHead {
                end: true,
                ..head(status, lines)
            };
            assert_eq!(fixed(&ended, true), want, "{name}, asked by HEAD");
        }
        let ended = ResponseHead {
            end: true,
            ..head(200, &[])
        };
        assert_eq!(fixed(&ended, false), Some(Fixed::Empty));
    }

    #[test]
    fn charsets_are_found_among_parameters() {
        for (value, want) in [
            ("application/json", None),
            ("application/json; charset=UTF-8", Some("utf-8")),
            (
                "application/json;profile=x; Charset = \"utf-16\"",
                Some("utf-16"),
            ),
            ("application/json; charset", None),
            (r#"application/json; profile="x;charset=utf-16""#, None),
            (
                r#"application/json; profile="\";charset=utf-16;"; charset=UTF-8"#,
                Some("utf-8"),
            ),
        ] {
            let head = head(200, &[("content-type", value)]);
            assert_eq!(charset(&head.fields).as_deref(), want, "{value}");
        }
    }

    #[test]
    fn the_validator_of_a_304_is_the_one_held() {
        for (name, asked, want) in [
            ("held strong", Some(&b"\"b\", \"a\""[..]), "\"a\""),
            ("held weak", Some(b"W/\"a\""), "W/\"a\""),
            ("any", Some(b"*"), "W/\"a\""),
            ("by date", None, "W/\"a\""),
        ] {
            let of_bytes = [
                "content-length",
                "repr-digest",
                "content-digest",
                "accept-ranges",
            ];
            let mut head = head(304, &[("etag", "\"a\"")]);
            for field in of_bytes {
                head.fields.set(field, "1");
            }
            weaken_not_modified(&mut head, asked);
            assert_eq!(head.fields.text("etag"), Some(want), "{name}");
            let are_kept = of_bytes.map(|field| head.fields.has(field));
            assert_eq!(are_kept, [want == "\"a\""; 4], "{name}");
        }
    }
}
