//! The mask that a client gives in the query (`?fields=a,b(c)`).

use edgeweir_filter::form_decoded;

use crate::config::FieldsParameter;
use crate::mask::{BadMask, Mask};

/// Levels of all paths of one request's mask.
const MAX_LEVELS_IN_ALL: usize = 128;

/// The mask of a query, `None` when it has none (or an empty one), and the query without it.
///
/// Several are one list. Percent-encoding is undone, `+` is a space.
pub(crate) fn mask(
    query: &[u8],
    parameter: &FieldsParameter,
) -> Result<(Option<Mask>, Vec<u8>), BadMask> {
    let mut rest = Vec::new();
    let mut mask = None;
    for pair in query.split(|&byte| byte == b'&') {
        let at = pair.iter().position(|&byte| byte == b'=');
        let (name, value) = pair.split_at(at.unwrap_or(pair.len()));
        if form_decoded(name) != parameter.parameter.as_bytes() {
            if !rest.is_empty() {
                rest.push(b'&');
            }
            rest.extend_from_slice(pair);
            continue;
        }
        let value = value.get(1..).unwrap_or_default();
        if value.is_empty() {
            continue;
        }
        let bad = |why| BadMask { at: 0, why };
        let most = usize::try_from(parameter.max_length).unwrap_or(0);
        if value.len() > most {
            return Err(bad("too long a mask"));
        }
        let text =
            String::from_utf8(form_decoded(value)).map_err(|_| bad("bytes that are no UTF-8"))?;
        mask.get_or_insert_with(|| Mask::new(MAX_LEVELS_IN_ALL))
            .add(&text, 0)?;
    }
    Ok((mask, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameter() -> FieldsParameter {
        FieldsParameter {
            parameter: "fields".into(),
            max_length: 20,
            forward: true,
        }
    }

    #[test]
    fn the_mask_of_a_query_and_what_is_left() {
        for (query, has, rest) in [
            ("", false, ""),
            ("a=1&b", false, "a=1&b"),
            ("fields=a", true, ""),
            ("x=1&fields=a%2Cb(c)&y=2", true, "x=1&y=2"),
            ("f%69elds=a&fields=b/c", true, ""),
            ("fields=&fields", false, ""),
            ("Fields=a&xfields=b", false, "Fields=a&xfields=b"),
        ] {
            let (mask, left) = mask(query.as_bytes(), &parameter()).unwrap();
            assert_eq!(mask.is_some(), has, "{query}");
            assert_eq!(String::from_utf8_lossy(&left), rest, "{query}");
        }
    }

    #[test]
    fn what_is_no_mask() {
        for query in [
            "fields=,",
            "fields=a(b",
            "fields=%ff",
            "fields=a&fields=)",
            "fields=aaaaaaaaaaaaaaaaaaaaa",
        ] {
            assert!(mask(query.as_bytes(), &parameter()).is_err(), "{query}");
        }
    }
}
