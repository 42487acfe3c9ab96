//! The reference page has every option, every name of a refusal and every counter.

use std::collections::BTreeSet;

use edgeweir_compress::{Compress, Skipped};
use serde_json::Value;

const PAGE: &str = include_str!("../README.md");

/// The words that stand in code spans of the page, a dotted name as its parts too.
fn words() -> BTreeSet<&'static str> {
    let spans = PAGE.split('`').skip(1).step_by(2);
    let parts = |span: &'static str| span.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    spans.flat_map(parts).collect()
}

fn options(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(members) => {
            if let Some(Value::Object(properties)) = members.get("properties") {
                found.extend(properties.keys().cloned());
            }
            members.values().for_each(|value| options(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| options(value, found)),
        _ => {}
    }
}

#[test]
fn every_option_is_on_the_page() {
    let mut found = BTreeSet::new();
    options(&edgeweir_filter::schema::<Compress>(), &mut found);
    assert!(found.len() > 20, "{found:?}");
    let words = words();
    let missing: Vec<_> = found
        .iter()
        .filter(|name| !words.contains(name.as_str()))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_name_is_on_the_page() {
    let words = words();
    let names = Skipped::ALL.iter().map(|reason| reason.name());
    let missing: Vec<_> = names.filter(|name| !words.contains(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert_eq!(
        Skipped::ALL
            .iter()
            .map(|r| r.name())
            .collect::<BTreeSet<_>>()
            .len(),
        Skipped::ALL.len()
    );
}

#[test]
fn every_counter_is_on_the_page() {
    const SOURCES: [&str; 2] = [
        include_str!("../src/exchange.rs"),
        include_str!("../src/measure.rs"),
    ];
    let words = words();
    for source in SOURCES {
        let literals = source.split('"').skip(1).step_by(2);
        for counter in literals.filter(|text| text.starts_with("compress.")) {
            for part in counter.split('.') {
                assert!(words.contains(part), "{counter}");
            }
        }
    }
}
