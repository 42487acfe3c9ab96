//! Claims of a JSON Web Token, read without verifying its signature.
//!
//! Whoever sends the token could have written it: where no filter in front has verified it, a client chooses its own
//! claims. The filter says so at load.

use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

/// The longest token that is read, bytes.
const MOST_TOKEN: usize = 8 << 10;

/// The value of a top-level claim of the token in `Authorization: Bearer`: text as it is, a whole number or truth value as JSON
/// writes it; `None` where there is no such token, no such claim, or it is something else.
pub fn claim(authorization: &[u8], name: &str) -> Option<String> {
    let token = bearer(authorization)?;
    if token.len() > MOST_TOKEN {
        return None;
    }
    // RFC 7519 §3, RFC 7515 §3.1: header, payload and signature, each in base64url without padding, with a dot between.
    let mut parts = token.split(|&byte| byte == b'.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let payload = base64url(payload)?;
    let mut json = serde_json::Deserializer::from_slice(&payload);
    let found = json.deserialize_map(Find(name)).ok()?;
    json.end().ok()?;
    found
}

/// RFC 9110 §11.1: the scheme is compared without case. RFC 6750 §2.1: `Bearer`, spaces, the token.
fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = authorization.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| token.trim_ascii())
}

/// RFC 4648 §5, without padding. Bits left over must be zero (§3.5), so that a payload has one form only.
fn base64url(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for group in text.chunks(4) {
        let mut bits = 0u32;
        for &byte in group {
            bits = bits << 6 | sextet(byte)?;
        }
        let [_, first, second, third] = match group.len() {
            4 => bits.to_be_bytes(),
            3 if bits & 0b11 == 0 => (bits << 6).to_be_bytes(),
            2 if bits & 0b1111 == 0 => (bits << 12).to_be_bytes(),
            _ => return None,
        };
        let bytes = [first, second, third];
        out.extend_from_slice(bytes.get(..group.len() - 1)?);
    }
    Some(out)
}

fn sextet(byte: u8) -> Option<u32> {
    Some(u32::from(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'-' => 62,
        b'_' => 63,
        _ => return None,
    }))
}

/// Finds one member of an object and keeps nothing of the others.
struct Find<'a>(&'a str);

impl<'de> Visitor<'de> for Find<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of claims")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut found = None;
        while let Some(name) = map.next_key::<String>()? {
            if name != self.0 {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            // RFC 7519 §4: a parser may use the last of duplicates; so does serde_json for a whole object.
            found = map.next_value::<Scalar>()?.0;
        }
        Ok(found)
    }
}

/// The text of a claim; nothing of a list, an object or null.
struct Scalar(Option<String>);

impl<'de> serde::Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a claim")
    }
    fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
        Ok(Scalar(Some(text.to_owned())))
    }
    fn visit_bool<E>(self, truth: bool) -> Result<Scalar, E> {
        Ok(Scalar(Some(truth.to_string())))
    }
    fn visit_u64<E>(self, number: u64) -> Result<Scalar, E> {
        Ok(Scalar(Some(number.to_string())))
    }
    fn visit_i64<E>(self, number: i64) -> Result<Scalar, E> {
        Ok(Scalar(Some(number.to_string())))
    }
    /// A fraction has several forms: it tells nobody apart.
    fn visit_f64<E>(self, _: f64) -> Result<Scalar, E> {
        Ok(Scalar(None))
    }
    fn visit_unit<E>(self) -> Result<Scalar, E> {
        Ok(Scalar(None))
    }
    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut all: A) -> Result<Scalar, A::Error> {
        while all.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar(None))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut all: A) -> Result<Scalar, A::Error> {
        while all.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar(None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(bytes: &[u8]) -> String {
        const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut out = String::new();
        for group in bytes.chunks(3) {
            let mut bits = 0u32;
            for at in 0..3 {
                bits = bits << 8 | u32::from(group.get(at).copied().unwrap_or(0));
            }
            for at in 0..=group.len() {
                out.push(char::from(DIGITS[(bits >> (18 - 6 * at) & 63) as usize]));
            }
        }
        out
    }

    fn token(payload: &str) -> String {
        format!("Bearer e30.{}.c2ln", encoded(payload.as_bytes()))
    }

    #[test]
    fn claims_are_found() {
        let deep = format!("{}1{}", "[".repeat(1_000), "]".repeat(1_000));
        let (beside, itself) = (
            format!(r#"{{"x":{deep},"sub":"a"}}"#),
            format!(r#"{{"sub":{deep}}}"#),
        );
        for (name, payload, want) in [
            ("text", r#"{"iss":"i","sub":"alice"}"#, Some("alice")),
            ("a number", r#"{"sub":42}"#, Some("42")),
            ("a negative one", r#"{"sub":-42}"#, Some("-42")),
            ("a fraction", r#"{"sub":0.5}"#, None),
            ("a truth value", r#"{"sub":true}"#, Some("true")),
            ("not text but a list", r#"{"sub":["a"]}"#, None),
            ("null", r#"{"sub":null}"#, None),
            ("only at the top", r#"{"a":{"sub":"x"}}"#, None),
            (
                "the last of duplicates",
                r#"{"sub":"a","sub":"b"}"#,
                Some("b"),
            ),
            ("escapes are one name", r#"{"s\u0075b":"a"}"#, Some("a")),
            ("no object", r#""sub""#, None),
            ("no JSON", "sub", None),
            ("something after", r#"{"sub":"a"} x"#, None),
            ("deep, beside it", &beside, Some("a")),
            ("deep itself", &itself, None),
        ] {
            assert_eq!(
                claim(token(payload).as_bytes(), "sub").as_deref(),
                want,
                "{name}"
            );
        }
        let long = token(&format!(r#"{{"sub":"{}"}}"#, "x".repeat(MOST_TOKEN)));
        let good = encoded(br#"{"sub":"a"}"#);
        for (name, authorization, want) in [
            (
                "the scheme in any case",
                format!("bEARER e30.{good}.x"),
                Some("a"),
            ),
            ("another scheme", format!("Basic e30.{good}.x"), None),
            ("too few parts", format!("Bearer e30.{good}"), None),
            ("too many parts", format!("Bearer e30.{good}.x.y"), None),
            ("padding", format!("Bearer e30.{good}=.x"), None),
            ("bits left over", "Bearer e30.e31.x".to_owned(), None),
            ("too long", long, None),
            ("nothing", String::new(), None),
        ] {
            assert_eq!(
                claim(authorization.as_bytes(), "sub").as_deref(),
                want,
                "{name}"
            );
        }
    }

    proptest! {
        #[test]
        fn base64url_reads_what_was_written(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(base64url(encoded(&bytes).as_bytes()), Some(bytes));
        }

        #[test]
        fn any_token_is_read(authorization in prop::collection::vec(any::<u8>(), 0..200), payload in "\\PC{0,100}") {
            claim(&authorization, "sub");
            claim(token(&payload).as_bytes(), "sub");
        }
    }
}
