//! What every filter that changes a body owes the head (RFC 9110).

use crate::{Fields, ResponseHead};

/// RFC 9110 §7.7: a proxy "MUST NOT transform the content of a message that contains a no-transform cache directive".
pub fn no_transform(fields: &Fields) -> bool {
    fields
        .list("cache-control")
        .any(|directive| directive.eq_ignore_ascii_case(b"no-transform"))
}

/// Makes a head true for a representation whose bytes were changed: the length is unknown, digests and byte ranges of
/// the old bytes are gone, a strong validator becomes weak.
pub fn transformed(head: &mut ResponseHead) {
    // RFC 9110 §8.6: a sender MUST NOT forward a Content-Length known to be incorrect.
    head.fields.remove("content-length");
    // RFC 9530 §2, §3; RFC 3230 §4.3.2; RFC 2616 §14.15: digests of the bytes before.
    for digest in ["content-digest", "repr-digest", "digest", "content-md5"] {
        head.fields.remove(digest);
    }
    // Ranges asked of the origin would be of its own bytes.
    head.fields.remove("accept-ranges");
    weaken_etag(head);
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
    let value = fields.get("content-type")?;
    let essence = value.split(|&byte| byte == b';').next()?.trim_ascii();
    let text = std::str::from_utf8(essence).ok()?;
    (!text.is_empty()).then(|| text.to_ascii_lowercase())
}

/// Whether a content coding other than `identity` was applied.
pub fn is_coded(fields: &Fields) -> bool {
    fields
        .list("content-encoding")
        .any(|coding| !coding.eq_ignore_ascii_case(b"identity"))
}
