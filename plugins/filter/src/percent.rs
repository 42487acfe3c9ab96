//! Percent-encoding (RFC 3986 §2.1), undone.

/// Decodes the percent-encoded bytes for which `which` holds; what is no encoding stays as it is.
pub fn percent_decoded(text: &[u8], which: impl Fn(u8) -> bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte == b'%'
            && let Some(([high, low], after)) = tail.split_first_chunk::<2>()
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
            && which(high << 4 | low)
        {
            out.push(high << 4 | low);
            rest = after;
            continue;
        }
        out.push(byte);
    }
    out
}

/// Decodes a name or value of a query as forms write them: `+` is a space too.
pub fn form_decoded(text: &[u8]) -> Vec<u8> {
    let space = |&byte: &u8| if byte == b'+' { b' ' } else { byte };
    let spaced: Vec<u8> = text.iter().map(space).collect();
    percent_decoded(&spaced, |_| true)
}

fn hex(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

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
