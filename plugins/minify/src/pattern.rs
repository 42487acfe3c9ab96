//! Values that are sensitive by what they look like, wherever they stand: found in time linear in their length.

use std::ops::Range;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a value looks like.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pattern {
    /// A payment card's number: 13 to 19 digits whose last is the Luhn check digit, in groups that single spaces or
    /// hyphens part. (One in ten of all other such numbers is taken for one.)
    Card,
    /// An e-mail address.
    Email,
}

impl Pattern {
    /// The first place in `text` that looks so.
    pub(crate) fn find(self, text: &[u8]) -> Option<Range<usize>> {
        match self {
            Self::Card => card(text),
            Self::Email => email(text),
        }
    }
}

fn card(text: &[u8]) -> Option<Range<usize>> {
    let mut from = 0;
    while let Some(skipped) = text.get(from..)?.iter().position(u8::is_ascii_digit) {
        let start = from + skipped;
        let rest = text.get(start..)?;
        if let Some(length) = card_at(rest) {
            return Some(start..start + length);
        }
        // On with the next group.
        let group = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        from = start + group;
    }
    None
}

/// The length of the card number at the start of `text`: it ends where a group of digits does.
fn card_at(text: &[u8]) -> Option<usize> {
    let (mut digits, mut odd, mut even) = (0, 0, 0);
    let mut bytes = text.iter().enumerate().peekable();
    while let Some((at, &byte)) = bytes.next() {
        let next = bytes.peek().map(|(_, next)| **next);
        if !byte.is_ascii_digit() {
            // A separator, between two groups only.
            if !matches!(byte, b' ' | b'-') || !next.is_some_and(|next| next.is_ascii_digit()) {
                return None;
            }
            continue;
        }
        digits += 1;
        if digits > 19 {
            return None;
        }
        // ISO/IEC 7812-1 annex B: from the check digit leftwards, each second digit is doubled. Which these are is known at
        // the end, so both sums are kept.
        let digit = u32::from(byte - b'0');
        let doubled = digit * 2 / 10 + digit * 2 % 10;
        (odd, even) = (even + doubled, odd + digit);
        let group_ends = !next.is_some_and(|next| next.is_ascii_digit());
        if group_ends && digits >= 13 && even % 10 == 0 {
            return Some(at + 1);
        }
    }
    None
}

fn email(text: &[u8]) -> Option<Range<usize>> {
    // RFC 5321 §4.5.3.1: 64 octets of local part, 255 of domain.
    let is_local = |byte: &&u8| {
        byte.is_ascii_alphanumeric() || !byte.is_ascii() || b".!#$%&'*+-/=?^_`{|}~".contains(byte)
    };
    let is_domain =
        |byte: &&u8| byte.is_ascii_alphanumeric() || !byte.is_ascii() || b".-".contains(byte);
    let mut from = 0;
    loop {
        let at = from + text.get(from..)?.iter().position(|&byte| byte == b'@')?;
        let (before, after) = (text.get(..at)?, text.get(at + 1..)?);
        let local = before.iter().rev().take(64).take_while(is_local).count();
        let domain = after.iter().take(255).take_while(is_domain).count();
        let labels = after.get(..domain)?;
        let labels = labels.strip_suffix(b".").unwrap_or(labels);
        let dotted = labels
            .iter()
            .position(|&byte| byte == b'.')
            .is_some_and(|dot| dot > 0 && dot + 1 < labels.len());
        if local > 0 && dotted {
            return Some(at - local..at + 1 + labels.len());
        }
        from = at + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pattern: Pattern, text: &str) -> Option<&str> {
        let range = pattern.find(text.as_bytes())?;
        Some(&text[range])
    }

    #[test]
    fn card_numbers() {
        for (text, want) in [
            ("4111111111111111", Some("4111111111111111")),
            (
                "card 4111 1111 1111 1111, thanks",
                Some("4111 1111 1111 1111"),
            ),
            ("3782-822463-10005", Some("3782-822463-10005")),
            ("no 12 4111111111111111", Some("4111111111111111")),
            ("4222222222222", Some("4222222222222")),
            ("4111111111111112", None),
            ("411111111111", None),
            ("4111  1111 1111 1111", None),
            ("4111111111111111000000", None),
            ("", None),
            ("- -", None),
        ] {
            assert_eq!(found(Pattern::Card, text), want, "{text}");
        }
    }

    #[test]
    fn email_addresses() {
        for (text, want) in [
            ("a@b.example", Some("a@b.example")),
            (
                "write to <first.last+tag@mail.example.org>.",
                Some("first.last+tag@mail.example.org"),
            ),
            ("a@b, c@d.example", Some("c@d.example")),
            ("é@b.example.", Some("é@b.example")),
            ("@b.example", None),
            ("a@b", None),
            ("a@.b", None),
            ("a@b.", None),
            ("a b", None),
        ] {
            assert_eq!(found(Pattern::Email, text), want, "{text}");
        }
    }
}
