//! Secondary keys (RFC 9111 §4.1): which stored variant is for this request.

use bytes::Bytes;
use edgeweir_filter::{Fields, list_members};

/// The content codings whose acceptance the normalised `Accept-Encoding` tells apart.
const KNOWN_CODINGS: [&str; 6] = ["br", "dcb", "dcz", "deflate", "gzip", "zstd"];

/// List-based fields whose members may be trimmed and joined without a change of meaning.
const LISTS: [&[u8]; 4] = [
    b"accept",
    b"accept-charset",
    b"accept-language",
    b"accept-encoding",
];

/// What `Vary` nominates.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Vary {
    /// `*` somewhere: RFC 9111 §4.1: "A stored response with a Vary header field value containing a member "*" always
    /// fails to match."
    Anything,
    /// These fields, in lower case, sorted, each once; maybe none.
    Fields(Vec<Bytes>),
}

impl Vary {
    /// Reads all `Vary` lines.
    pub fn of(fields: &Fields) -> Self {
        let mut names = Vec::new();
        for name in fields.list("vary") {
            if name == b"*" {
                return Self::Anything;
            }
            names.push(Bytes::from(name.to_ascii_lowercase()));
        }
        names.sort();
        names.dedup();
        Self::Fields(names)
    }
}

/// The secondary key of a request under nominated fields: normalised values, length-prefixed.
pub fn secondary<'n>(names: impl IntoIterator<Item = &'n Bytes>, request: &Fields) -> Vec<u8> {
    let mut key = Vec::new();
    let mut add = |bytes: &[u8]| {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        key.extend_from_slice(&length.to_be_bytes());
        key.extend_from_slice(bytes);
    };
    for name in names {
        add(name);
        match std::str::from_utf8(name)
            .ok()
            .and_then(|name| request.joined(name))
        {
            // RFC 9111 §4.1: "If … a header field is absent from a request, it can only match another request if it
            // is also absent there."
            None => add(b"-"),
            Some(value) => add(&[b"=", &normalised(name, &value)[..]].concat()),
        }
    }
    key
}

/// Whether every coding of a response is one that the secondary key tells apart.
pub fn codings_are_known(fields: &Fields) -> bool {
    fields.list("content-encoding").all(|coding| {
        let coding = canonical(coding);
        coding == "identity" || KNOWN_CODINGS.contains(&coding.as_str())
    })
}

/// RFC 9111 §4.1: values match when they "can be transformed … by … normalizing both header field values in a way
/// known to have identical semantics".
fn normalised(name: &[u8], value: &[u8]) -> Vec<u8> {
    if name == b"accept-encoding" {
        return accept_encoding(value).into_bytes();
    }
    if !LISTS.contains(&name) {
        return value.trim_ascii().to_vec();
    }
    if name == b"accept-language" {
        return accept_language(value);
    }
    let members: Vec<&[u8]> = list_members(value).collect();
    members.join(&b","[..])
}

/// Language ranges without case (RFC 9110 §12.5.4), best first, equals in alphabetical order: what order they are listed in
/// says nothing. §12.5.4: "some recipients treat the order in which language tags are listed as an indication of
/// descending priority … this behavior cannot be relied upon".
fn accept_language(value: &[u8]) -> Vec<u8> {
    let mut ranges: Vec<(u16, Vec<u8>)> = list_members(value)
        .map(|member| {
            let mut parts = member.split(|&byte| byte == b';');
            let range = parts.next().unwrap_or_default().trim_ascii();
            let quality = parts.find_map(quality).unwrap_or(1000);
            (quality, range.to_ascii_lowercase())
        })
        .collect();
    ranges.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    let one = |(quality, range): (u16, Vec<u8>)| {
        [&range, &b";"[..], quality.to_string().as_bytes()].concat()
    };
    let ranges: Vec<Vec<u8>> = ranges.into_iter().map(one).collect();
    ranges.join(&b","[..])
}

/// The known codings a request takes, best first, equals in alphabetical order joined by `,`, ranks by `>`; `!` at the
/// end when even the identity is refused. `gzip;q=0` and `*` are resolved.
fn accept_encoding(value: &[u8]) -> String {
    let mut named: Vec<(String, u16)> = Vec::new();
    let mut star = None;
    for member in list_members(value) {
        let mut parts = member.split(|&byte| byte == b';');
        let coding = canonical(parts.next().unwrap_or_default().trim_ascii());
        let quality = parts.find_map(quality).unwrap_or(1000);
        match coding.as_str() {
            "*" => star = Some(quality),
            _ if named.iter().any(|(known, _)| *known == coding) => {}
            _ => named.push((coding, quality)),
        }
    }
    let of = |coding: &str| {
        let found = named.iter().find(|(known, _)| known == coding);
        found.map(|(_, quality)| *quality)
    };
    let mut accepted: Vec<(u16, &str)> = KNOWN_CODINGS
        .iter()
        .map(|&coding| (of(coding).or(star).unwrap_or(0), coding))
        .filter(|(quality, _)| *quality > 0)
        .collect();
    // RFC 9110 §12.5.3: identity is acceptable unless excluded by "identity;q=0" or by "*;q=0" without identity.
    let identity = of("identity").or(star.filter(|quality| *quality == 0));
    if let Some(quality) = identity.filter(|quality| *quality > 0) {
        accepted.push((quality, "identity"));
    }
    accepted.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
    let mut text = String::new();
    let mut before = None;
    for (quality, coding) in accepted {
        match before {
            None => {}
            Some(same) if same == quality => text.push(','),
            Some(_) => text.push('>'),
        }
        before = Some(quality);
        text.push_str(coding);
    }
    if identity == Some(0) {
        text.push('!');
    }
    text
}

/// RFC 9110 §8.4.1: codings are case-insensitive; "x-gzip" is equivalent to "gzip".
fn canonical(coding: &[u8]) -> String {
    let lower = String::from_utf8_lossy(coding).to_ascii_lowercase();
    match lower.as_str() {
        "x-gzip" => "gzip".to_owned(),
        _ => lower,
    }
}

/// `q=0.5` in thousandths; one that can't be read counts as 1, so that it is not lost.
fn quality(parameter: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(parameter).ok()?.trim();
    let value = text
        .strip_prefix("q=")
        .or_else(|| text.strip_prefix("Q="))?;
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    let digits = fraction.len() <= 3 && fraction.bytes().all(|byte| byte.is_ascii_digit());
    match (whole, digits) {
        ("0", true) => format!("{fraction:0<3}").parse().ok(),
        _ => Some(1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn accept_encoding_is_normalised() {
        for (name, value, want) in [
            (
                "a browser's",
                "gzip, deflate, br, zstd",
                "br,deflate,gzip,zstd",
            ),
            (
                "any order",
                "zstd,br,  gzip,deflate",
                "br,deflate,gzip,zstd",
            ),
            ("zero refuses", "gzip;q=0, br", "br"),
            ("zero with decimals", "gzip;q=0.000, br", "br"),
            ("preference is kept", "gzip;q=0.5, br", "br>gzip"),
            ("alias", "x-gzip", "gzip"),
            ("upper case", "GZIP;Q=0.1", "gzip"),
            ("star", "*", "br,dcb,dcz,deflate,gzip,zstd"),
            (
                "star without one",
                "gzip;q=0, *;q=0.5",
                "br,dcb,dcz,deflate,zstd",
            ),
            ("star refuses the rest and identity", "gzip, *;q=0", "gzip!"),
            ("identity refused", "gzip, identity;q=0", "gzip!"),
            (
                "identity preferred",
                "identity, gzip;q=0.5",
                "identity>gzip",
            ),
            ("unknown", "exi, gzip", "gzip"),
            ("nothing", "", ""),
        ] {
            assert_eq!(accept_encoding(value.as_bytes()), want, "{name}");
        }
    }

    #[test]
    fn vary_is_read_over_all_lines() {
        let vary = |lines: &[(&str, &str)]| Vary::of(&Fields::of(lines));
        let names =
            |names: &[&'static str]| Vary::Fields(names.iter().copied().map(Bytes::from).collect());
        assert_eq!(vary(&[("vary", "B, a"), ("vary", "b")]), names(&["a", "b"]));
        assert_eq!(vary(&[("vary", "a"), ("vary", "b, *")]), Vary::Anything);
        assert_eq!(vary(&[]), names(&[]));
    }

    #[test]
    fn secondary_keys_match_when_the_meaning_does() {
        let key = |name: &'static str, lines: &[(&str, &str)]| {
            secondary(&[Bytes::from(name)], &Fields::of(lines))
        };
        for (name, field, a, b, equal) in [
            (
                "spaces in a list",
                "accept-language",
                vec![("accept-language", "en,de")],
                vec![("accept-language", "EN , de")],
                true,
            ),
            (
                "two lines",
                "accept-language",
                vec![("accept-language", "en"), ("accept-language", "de")],
                vec![("accept-language", "en, de")],
                true,
            ),
            (
                "order of languages",
                "accept-language",
                vec![("accept-language", "de,en")],
                vec![("accept-language", "en,de")],
                true,
            ),
            (
                "preference of languages",
                "accept-language",
                vec![("accept-language", "de,en;q=0.9")],
                vec![("accept-language", "en,de;q=0.9")],
                false,
            ),
            ("absent and empty", "x", vec![], vec![("x", "")], false),
            ("absent and absent", "x", vec![], vec![], true),
            (
                "case of another value",
                "x",
                vec![("x", "A")],
                vec![("x", "a")],
                false,
            ),
        ] {
            assert_eq!(key(field, &a) == key(field, &b), equal, "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_request_has_a_key(value: Vec<u8>) {
            let names = LISTS.map(Bytes::from_static);
            let lines = names.iter().map(|name| (name.clone(), Bytes::from(value.clone())));
            let request = Fields::received(lines.collect::<Vec<_>>());
            prop_assert!(!secondary(&names, &request).is_empty());
        }
    }
}
