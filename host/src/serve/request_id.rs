//! `x-request-id`: one name for an exchange, on its whole way.

use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::config::RequestId;

/// The field.
pub const NAME: HeaderName = HeaderName::from_static("x-request-id");
/// The longest identifier that is taken from a client, bytes.
const LONGEST: usize = 128;

/// Sees to it that a request has an identifier, and returns it. `made` is a new one; it is asked for when needed.
pub fn identify(
    headers: &mut HeaderMap,
    policy: RequestId,
    made: impl FnOnce() -> String,
) -> Option<HeaderValue> {
    if policy == RequestId::Off {
        return None;
    }
    let mut given = headers.get_all(&NAME).iter();
    let given = match (given.next(), given.next()) {
        (Some(one), None) if policy == RequestId::Accept && sound(one.as_bytes()) => {
            Some(one.clone())
        }
        _ => None,
    };
    let id = match given {
        Some(given) => given,
        None => HeaderValue::from_str(&made()).ok()?,
    };
    headers.insert(NAME, id.clone());
    Some(id)
}

/// Whether an identifier may go into logs and other systems as it is: short, and nothing that means something there.
fn sound(id: &[u8]) -> bool {
    (1..=LONGEST).contains(&id.len())
        && id
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~:+/=@".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_is_taken_or_made() {
        let long = "a".repeat(129);
        for (name, policy, given, want) in [
            ("off leaves it alone", RequestId::Off, &["<x>"][..], None),
            ("none is made", RequestId::Accept, &[], Some("new")),
            (
                "a sound one is taken",
                RequestId::Accept,
                &["4bf9-2f/a=1"],
                Some("4bf9-2f/a=1"),
            ),
            ("one that is not", RequestId::Accept, &["a b"], Some("new")),
            ("quotes", RequestId::Accept, &["a\"b"], Some("new")),
            ("none at all", RequestId::Accept, &[""], Some("new")),
            ("too long", RequestId::Accept, &[&long], Some("new")),
            (
                "the longest",
                RequestId::Accept,
                &[&long[..128]],
                Some(&long[..128]),
            ),
            ("two", RequestId::Accept, &["a", "b"], Some("new")),
            ("whatever it is", RequestId::Make, &["4bf9"], Some("new")),
        ] {
            let mut headers = HeaderMap::new();
            for value in given {
                headers.append(NAME, HeaderValue::from_str(value).expect(name));
            }
            let got = identify(&mut headers, policy, || "new".to_owned());
            assert_eq!(
                got.as_ref().map(HeaderValue::as_bytes),
                want.map(str::as_bytes),
                "{name}"
            );
            let sent: Vec<_> = headers
                .get_all(NAME)
                .iter()
                .map(HeaderValue::as_bytes)
                .collect();
            match want {
                Some(want) => assert_eq!(sent, [want.as_bytes()], "{name}"),
                None => assert_eq!(sent, [b"<x>"], "{name}"),
            }
        }
    }
}
