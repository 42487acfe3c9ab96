//! Percent-encoding (RFC 3986 §2.1): undone, and in one spelling.

use std::borrow::Cow;

/// Decodes the percent-encoded bytes for which `which` holds; what is no encoding stays as it is.
pub fn percent_decoded(text: &[u8], which: impl Fn(u8) -> bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match encoded_byte(byte, tail) {
            Some((decoded, _, after)) if which(decoded) => {
                out.push(decoded);
                rest = after;
            }
            _ => out.push(byte),
        }
    }
    out
}

/// Decodes a name or value of a query as forms write them: `+` is a space too.
pub fn form_decoded(text: &[u8]) -> Vec<u8> {
    let space = |&byte: &u8| if byte == b'+' { b' ' } else { byte };
    let spaced: Vec<u8> = text.iter().map(space).collect();
    percent_decoded(&spaced, |_| true)
}

/// A path as rules compare it, so that a client can't leave a rule by another spelling. Patterns and requests take it alike.
///
/// RFC 3986 §6.2.2.2: an encoded unreserved character equals the character itself; nothing else is decoded.
pub fn comparable(path: &[u8]) -> Cow<'_, [u8]> {
    respelled(path, |byte| {
        byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
    })
}

/// A path in which the unreserved characters for which `which` holds are decoded and all else is encoded one way.
///
/// RFC 3986 §6.2.2.1: "the hexadecimal digits within a percent-encoding triplet [...] are case-insensitive". §2, RFC 3987 §3.1:
/// what no URI has (blanks, controls, anything beyond ASCII) is the same as its encoding.
pub fn respelled(path: &[u8], which: impl Fn(u8) -> bool) -> Cow<'_, [u8]> {
    let in_a_uri =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&byte);
    if path.iter().all(|&byte| byte != b'%' && in_a_uri(byte)) {
        return Cow::Borrowed(path);
    }
    let mut encoded = Vec::with_capacity(path.len());
    for &byte in path {
        match in_a_uri(byte) {
            true => encoded.push(byte),
            false => encoded.extend_from_slice(format!("%{byte:02X}").as_bytes()),
        }
    }
    Cow::Owned(normal_percent(&encoded, which).into_owned())
}

/// A text in which the encoded characters for which `which` holds are decoded and the digits of all others are upper case
/// (RFC 3986 §6.2.2).
pub fn normal_percent(text: &[u8], which: impl Fn(u8) -> bool) -> Cow<'_, [u8]> {
    if !text.contains(&b'%') {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let Some((decoded, [high, low], after)) = encoded_byte(byte, after) else {
            out.push(byte);
            continue;
        };
        rest = after;
        match which(decoded) {
            true => out.push(decoded),
            false => out.extend([b'%', high.to_ascii_uppercase(), low.to_ascii_uppercase()]),
        }
    }
    Cow::Owned(out)
}

/// What two digits after a percent sign stand for, they themselves, and what follows.
fn encoded_byte(byte: u8, after: &[u8]) -> Option<(u8, [u8; 2], &[u8])> {
    let (digits, rest) = after.split_first_chunk::<2>()?;
    let [high, low] = *digits;
    let decoded = hex(high)? << 4 | hex(low)?;
    (byte == b'%').then_some((decoded, *digits, rest))
}

fn hex(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_a_path_are_one() {
        for (path, want) in [
            ("/a", "/a"),
            ("/%61", "/a"),
            ("/%2Fa", "/%2Fa"),
            ("/%7e%7E", "/~~"),
            ("/%2e%2E", "/.."),
            ("/%2f%2F%c3%a9", "/%2F%2F%C3%A9"),
            ("/é%61 ", "/%C3%A9a%20"),
            ("/%zz%+1%", "/%zz%+1%"),
            ("/%az%a", "/%az%a"),
            ("/%2561", "/%2561"),
        ] {
            assert_eq!(&comparable(path.as_bytes())[..], want.as_bytes(), "{path}");
        }
    }

    #[test]
    fn what_is_no_encoding_stays() {
        for (text, want) in [
            ("a+b%20c", "a b c"),
            ("%2B%2b", "++"),
            ("%", "%"),
            ("%4", "%4"),
            ("%zz%41", "%zzA"),
        ] {
            assert_eq!(form_decoded(text.as_bytes()), want.as_bytes(), "{text}");
        }
    }
}
