//! What stands in place of a value that must not be seen.

use std::ops::Range;

use hmac::{Hmac, KeyInit, Mac};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::pattern::Pattern;
use crate::text;

/// What a value that must not be seen becomes: always a JSON string.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Replacement {
    /// `"***"`.
    #[default]
    Mask,
    /// `"hmac:"` and the first 16 hexadecimal digits of an HMAC-SHA-256 with the configured `hash_key`: equal values stay
    /// equal. Only of strings and numbers; anything else becomes `"***"`.
    Hash,
    /// `"***1234"`, the last four characters of a string or number of at least eight; anything else becomes `"***"`.
    Last4,
}

/// What the mask is.
pub(crate) const MASK: &[u8] = b"\"***\"";
/// A shorter value would be half shown by its last four characters.
const SHORTEST_SHOWN: usize = 8;

/// The secret of the hashes.
#[derive(Clone)]
pub(crate) struct HashKey(Hmac<Sha256>);

impl HashKey {
    /// From its bytes; any number of them will do.
    pub(crate) fn new(secret: &[u8]) -> Option<Self> {
        Hmac::new_from_slice(secret).ok().map(Self)
    }
}

impl std::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashKey")
    }
}

/// Appends what stands for the value of the token `raw`: a string with its quotes, or a number.
pub(crate) fn replace(raw: &[u8], by: Replacement, key: Option<&HashKey>, out: &mut Vec<u8>) {
    let meaning = text::meaning(content(raw));
    replace_text(&meaning, by, key, out);
}

fn replace_text(value: &[u8], by: Replacement, key: Option<&HashKey>, out: &mut Vec<u8>) {
    match (by, key) {
        (Replacement::Hash, Some(HashKey(hmac))) => {
            let mut hmac = hmac.clone();
            hmac.update(value);
            out.extend_from_slice(b"\"hmac:");
            for byte in hmac.finalize().into_bytes().iter().take(8) {
                let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
                out.extend([digit(byte >> 4) as u8, digit(byte & 15) as u8]);
            }
            out.push(b'"');
        }
        (Replacement::Last4, _) => {
            let value = String::from_utf8_lossy(value);
            let four = value.char_indices().rev().nth(3).map(|(at, _)| at);
            match four.filter(|_| value.chars().nth(SHORTEST_SHOWN - 1).is_some()) {
                Some(at) => {
                    out.extend_from_slice(b"\"***");
                    text::escape(value.get(at..).unwrap_or_default(), out);
                    out.push(b'"');
                }
                None => out.extend_from_slice(MASK),
            }
        }
        _ => out.extend_from_slice(MASK),
    }
}

/// Looks for patterns in the token `raw`, a string or number: appends what stands in its place, when one is found. What
/// is hashed, or shown of it, is what the first of the patterns found.
pub(crate) fn replace_found(
    raw: &[u8],
    patterns: &[(Pattern, Replacement)],
    key: Option<&HashKey>,
    out: &mut Vec<u8>,
) -> bool {
    let text = text::meaning(content(raw));
    let find = |(pattern, by): &(Pattern, Replacement)| Some((pattern.find(&text)?, *by));
    let Some((range, by)): Option<(Range<usize>, _)> = patterns.iter().find_map(find) else {
        return false;
    };
    replace_text(text.get(range).unwrap_or_default(), by, key, out);
    true
}

/// A string without its quotes; a number as it is.
fn content(raw: &[u8]) -> &[u8] {
    let inner = raw.strip_prefix(b"\"");
    inner.map_or(raw, |raw| raw.strip_suffix(b"\"").unwrap_or(raw))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_for_a_value() {
        let key = HashKey::new(b"key").unwrap();
        for (raw, by, want) in [
            (r#""secret""#, Replacement::Mask, r#""***""#),
            (r#""12345678""#, Replacement::Last4, r#""***5678""#),
            ("12345678", Replacement::Last4, r#""***5678""#),
            (r#""1234567""#, Replacement::Last4, r#""***""#),
            (r#""ééééééé\"""#, Replacement::Last4, r#""***ééé\"""#),
            (r#""""#, Replacement::Last4, r#""***""#),
            // RFC 4231 has no such short key; by `printf … | openssl dgst -sha256 -hmac key`.
            (
                r#""The quick brown fox jumps over the lazy do\u0067""#,
                Replacement::Hash,
                r#""hmac:f7bc83f430538424""#,
            ),
        ] {
            let mut out = Vec::new();
            replace(raw.as_bytes(), by, Some(&key), &mut out);
            assert_eq!(String::from_utf8_lossy(&out), want, "{raw} {by:?}");
            serde_json::from_slice::<String>(&out).unwrap();
        }
    }

    #[test]
    fn of_a_found_pattern_its_own_end_is_shown() {
        let patterns = [
            (Pattern::Card, Replacement::Last4),
            (Pattern::Email, Replacement::Mask),
        ];
        for (raw, want) in [
            (r#""card 4111 1111 1111 1111 ok""#, Some(r#""***1111""#)),
            ("4111111111111111", Some(r#""***1111""#)),
            (r#""a\u0040b.example""#, Some(r#""***""#)),
            (r#""nothing""#, None),
        ] {
            let mut out = Vec::new();
            let found = replace_found(raw.as_bytes(), &patterns, None, &mut out);
            assert_eq!(found, want.is_some(), "{raw}");
            assert_eq!(String::from_utf8_lossy(&out), want.unwrap_or_default());
        }
    }
}
