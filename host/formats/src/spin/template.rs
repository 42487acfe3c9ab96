//! `{{ name }}` in a text of the manifest.

use std::collections::BTreeMap;

/// Puts values in; the error names what has none.
pub(super) fn fill(text: &str, values: &BTreeMap<String, String>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(before);
        let Some((name, after)) = after.split_once("}}") else {
            return Err("`{{` has no `}}`".to_owned());
        };
        let name = name.trim();
        match values.get(name) {
            Some(value) => out.push_str(value),
            None => return Err(format!("there is no variable `{name}` in [variables]")),
        }
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_take_the_place_of_names() {
        let values = BTreeMap::from([
            ("a".to_owned(), "1".to_owned()),
            ("b".to_owned(), "{{ a }}".to_owned()),
        ]);
        for (text, want) in [
            ("plain", Ok("plain")),
            ("{{ a }}-{{b}}", Ok("1-{{ a }}")),
            ("{{ c }}", Err("no variable `c`")),
            ("{{ a", Err("has no `}}`")),
        ] {
            match (fill(text, &values), want) {
                (Ok(got), Ok(want)) => assert_eq!(got, want),
                (Err(got), Err(want)) => assert!(got.contains(want), "{got}"),
                (got, want) => panic!("{text}: {got:?}, not {want:?}"),
            }
        }
    }
}
