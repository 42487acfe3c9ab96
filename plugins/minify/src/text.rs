//! What a JSON string means (RFC 8259 §7), and how a text is written as one.

use std::borrow::Cow;

/// The text that the characters between two quotes mean, in UTF-8 where they are.
///
/// RFC 8259 §8.3: implementations that compare strings without converting escapes "may incorrectly find that "a\\b" and
/// "a\u005Cb" are not equal". A lone surrogate becomes U+FFFD; an escape that is none stays as it is.
pub(crate) fn meaning(raw: &[u8]) -> Cow<'_, [u8]> {
    let Some(first) = raw.iter().position(|&byte| byte == b'\\') else {
        return Cow::Borrowed(raw);
    };
    let (before, mut rest) = raw.split_at_checked(first).unwrap_or((raw, &[]));
    let mut text = before.to_vec();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            text.push(byte);
            continue;
        }
        let Some((&escape, after)) = rest.split_first() else {
            text.push(byte);
            break;
        };
        let plain = match escape {
            b'"' | b'\\' | b'/' => escape,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => match unit(after) {
                Some(unit) => {
                    rest = after.get(4..).unwrap_or_default();
                    push(&mut text, unit, &mut rest);
                    continue;
                }
                None => {
                    text.push(byte);
                    continue;
                }
            },
            _ => {
                text.push(byte);
                continue;
            }
        };
        text.push(plain);
        rest = after;
    }
    Cow::Owned(text)
}

/// Appends a UTF-16 code unit, with the second of its pair where `rest` goes on with that.
fn push(text: &mut Vec<u8>, unit: u32, rest: &mut &[u8]) {
    let mut code = unit;
    if (0xd800..0xdc00).contains(&unit) {
        let second = rest.strip_prefix(b"\\u").and_then(self::unit);
        if let Some(second @ 0xdc00..0xe000) = second {
            code = 0x1_0000 + ((unit - 0xd800) << 10) + (second - 0xdc00);
            *rest = rest.get(6..).unwrap_or_default();
        }
    }
    let char = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
    text.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
}

/// Four hexadecimal digits.
fn unit(digits: &[u8]) -> Option<u32> {
    let digits = digits.get(..4)?;
    digits.iter().try_fold(0, |unit, digit| {
        Some(unit << 4 | char::from(*digit).to_digit(16)?)
    })
}

/// Appends characters as they stand between the quotes of a JSON string.
pub(crate) fn escape(text: &str, out: &mut Vec<u8>) {
    for char in text.chars() {
        match char {
            '"' | '\\' => out.extend([b'\\', char as u8]),
            '\0'..='\u{1f}' => out.extend(format!("\\u{:04x}", u32::from(char)).bytes()),
            _ => out.extend(char.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_mean_characters() {
        for (raw, want) in [
            ("plain é", "plain é"),
            (r"\u0061\u00e9", "aé"),
            (r#"\"\\\/\b\f\n\r\t"#, "\"\\/\u{8}\u{c}\n\r\t"),
            (r"\ud83c\udf00!", "\u{1F300}!"),
            (r"\ud83c!", "\u{fffd}!"),
            (r"\udf00\ud83c", "\u{fffd}\u{fffd}"),
            (r"\ud83c\u0041", "\u{fffd}A"),
            (r"\x\u12\u12g4", r"\x\u12\u12g4"),
        ] {
            assert_eq!(meaning(raw.as_bytes()), want.as_bytes(), "{raw}");
        }
    }

    #[test]
    fn what_is_written_is_read_as_the_same() {
        let text = "a\"b\\c\n\u{0}é";
        let mut out = Vec::new();
        escape(text, &mut out);
        assert_eq!(meaning(&out), text.as_bytes());
        let json = format!("\"{}\"", String::from_utf8(out).unwrap());
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }
}
