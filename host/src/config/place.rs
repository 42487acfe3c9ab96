//! Where a field of a TOML file stands, for what is found out after it was parsed.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Source;

impl Source {
    /// The place of a field by the names on the way to it, and the numbers of items; `*` is the first below which the rest of
    /// the way is. `None` where it is not there, or the file is no TOML.
    pub fn place_of(&self, steps: &[&str]) -> Option<Range<usize>> {
        let root = DeTable::parse(&self.text).ok()?;
        reach(root.get_ref(), steps)
    }

    /// The names in a table; `None` where the file is no TOML.
    pub fn names_in(&self, table: &str) -> Option<Vec<String>> {
        let root = DeTable::parse(&self.text).ok()?;
        let table = root.get_ref().get(table);
        let table = table.and_then(|it| it.get_ref().as_table());
        let names = table.map(|it| it.keys().map(|name| name.get_ref().to_string()));
        Some(names.into_iter().flatten().collect())
    }

    /// The place of a field below the value at `span`, by its path as filters write it (`rules[1].rate`): as far as it leads.
    pub fn below(&self, span: Range<usize>, path: &str) -> Range<usize> {
        let path = path.replace('[', ".").replace(']', "");
        let steps: Vec<&str> = path.split('.').filter(|step| !step.is_empty()).collect();
        let found = DeTable::parse(&self.text)
            .ok()
            .and_then(|root| within(root.get_ref(), &span, &steps));
        found.unwrap_or(span)
    }
}

/// The place at the end of the way.
fn reach(table: &DeTable<'_>, steps: &[&str]) -> Option<Range<usize>> {
    let (first, rest) = steps.split_first()?;
    if let Some((key, value)) = table.get_key_value(*first) {
        let (star, inner) = (rest.first() == Some(&"*"), value.get_ref().as_table());
        if let (true, Some(inner)) = (star, inner) {
            let below = rest.get(1..).unwrap_or_default();
            let mut tables = inner.iter().filter_map(|(_, it)| it.get_ref().as_table());
            return tables.find_map(|table| reach(table, below));
        }
        let (place, left) = descend(key.span(), value, rest);
        return (left == 0).then_some(place);
    }
    None
}

/// Goes on from a value as far as the steps lead; the place there, and how many were left.
fn descend(
    place: Range<usize>,
    value: &Spanned<DeValue<'_>>,
    steps: &[&str],
) -> (Range<usize>, usize) {
    let here = match value.get_ref() {
        // A table that is written in pieces has its name's place.
        DeValue::Table(_) => place,
        _ => value.span(),
    };
    let Some((first, rest)) = steps.split_first() else {
        return (here, 0);
    };
    let next = match value.get_ref() {
        DeValue::Table(table) => table
            .get_key_value(*first)
            .map(|(key, value)| (key.span(), value)),
        DeValue::Array(items) => first
            .parse()
            .ok()
            .and_then(|index: usize| items.get(index))
            .map(|item| (item.span(), item)),
        _ => None,
    };
    match next {
        Some((place, value)) => descend(place, value, rest),
        None => (here, steps.len()),
    }
}

/// Looks for the value at `span` among those of a table, and goes on from there.
fn within(table: &DeTable<'_>, span: &Range<usize>, steps: &[&str]) -> Option<Range<usize>> {
    let mut values = table.iter().map(|(_, value)| value);
    values.find_map(|value| from(value, span, steps))
}

fn from(value: &Spanned<DeValue<'_>>, span: &Range<usize>, steps: &[&str]) -> Option<Range<usize>> {
    if value.span() == *span {
        return Some(descend(span.clone(), value, steps).0);
    }
    match value.get_ref() {
        DeValue::Table(table) => within(table, span, steps),
        DeValue::Array(items) => items.iter().find_map(|item| from(item, span, steps)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
[filter.limit]
module = \"m\"

[[filter.limit.config.rules]]
limits = [{ rate = \"1/second\" }]

[[filter.limit.config.rules]]
limits = [{ rate = \"1/week\" }]

[[listener]]
config.trim.max_depth = 3
";

    fn source() -> Source {
        Source {
            text: TEXT.to_owned(),
            ..Source::default()
        }
    }

    fn line(place: Range<usize>) -> usize {
        TEXT[..=place.start].lines().count()
    }

    #[test]
    fn a_field_is_found_by_the_way_to_it() {
        for (steps, want) in [
            (&["filter", "limit"][..], Some(TEXT.find("limit"))),
            (&["filter", "limit", "module"], Some(TEXT.find("\"m\""))),
            (
                &[
                    "filter", "limit", "config", "rules", "1", "limits", "0", "rate",
                ],
                Some(TEXT.find("\"1/week\"")),
            ),
            (&["filter", "limit", "config", "rules", "2"], None),
            (&["upstream"], None),
        ] {
            let place = source().place_of(steps).map(|place| Some(place.start));
            assert_eq!(place, want, "{steps:?}");
        }
    }

    #[test]
    fn names_in_a_table_are_those_of_the_file() {
        let names = |text: &str| {
            let text = text.to_owned();
            let source = Source {
                text,
                ..Source::default()
            };
            source.names_in("t")
        };
        let two = Some(vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!(names("[t]\na = 1\nb.c = 2\n[u]\nd = 3\n"), two);
        assert_eq!(names("t = 1"), Some(Vec::new()));
        assert_eq!(names(""), Some(Vec::new()));
        assert_eq!(names("[t"), None);
    }

    #[test]
    fn a_path_below_a_value_leads_as_far_as_it_goes() {
        #[derive(serde::Deserialize)]
        struct File {
            filter: std::collections::BTreeMap<String, Filter>,
            listener: Vec<Listener>,
        }
        #[derive(serde::Deserialize)]
        struct Filter {
            config: Spanned<toml::Value>,
        }
        #[derive(serde::Deserialize)]
        struct Listener {
            config: std::collections::BTreeMap<String, Spanned<toml::Value>>,
        }
        let file: File = toml::from_str(TEXT).expect("TOML");
        let config = file.filter["limit"].config.span();
        let of_route = file.listener[0].config["trim"].span();
        let source = source();
        for (name, span, path, want) in [
            ("all of it", &config, "rules[1].limits[0].rate", 8),
            ("a field that is missing", &config, "rules[0].key", 4),
            (
                "a field of a scalar",
                &config,
                "rules[0].limits[0].rate.unit",
                5,
            ),
            ("nothing", &config, "", 4),
            ("of a route", &of_route, "max_depth", 11),
        ] {
            let place = source.below(span.clone(), path);
            assert_eq!(line(place), want, "{name}");
        }
        assert_eq!(source.below(3..5, "a"), 3..5, "no value is there");
    }
}
