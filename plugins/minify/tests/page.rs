//! The reference page has every option, every value of one and every name of a refusal.

use std::collections::BTreeSet;

use edgeweir_minify::Minify;
use serde_json::Value;

const PAGE: &str = include_str!("../README.md");

/// The words that stand in code spans of the page, and in its examples.
fn words() -> BTreeSet<&'static str> {
    let spans = PAGE.split('`').skip(1).step_by(2);
    let parts = |span: &'static str| span.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    spans.flat_map(parts).collect()
}

/// Names of options, and words that an option may be.
fn options(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(members) => {
            if let Some(Value::Object(properties)) = members.get("properties") {
                found.extend(properties.keys().cloned());
            }
            if let Some(Value::String(word)) = members.get("const") {
                found.insert(word.clone());
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
    options(&edgeweir_filter::schema::<Minify>(), &mut found);
    assert!(found.len() > 25, "{found:?}");
    let words = words();
    let missing: Vec<_> = found
        .iter()
        .filter(|name| !words.contains(name.as_str()))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_counter_is_on_the_page() {
    let sources = [
        include_str!("../src/lib.rs"),
        include_str!("../src/eligible.rs"),
        include_str!("../src/lexer.rs"),
    ];
    let spans = sources
        .iter()
        .flat_map(|source| source.split('"').skip(1).step_by(2));
    let counters: BTreeSet<_> = spans
        .filter_map(|span| span.strip_prefix("minify.")?.rsplit('.').next())
        .collect();
    assert!(counters.len() > 20, "{counters:?}");
    let words = words();
    let missing: Vec<_> = counters
        .iter()
        .filter(|name| !words.contains(**name))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_example_loads() {
    let examples: Vec<&str> = PAGE
        .split("```json\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert_eq!(examples.len(), 4);
    for example in examples {
        if let Err(error) = edgeweir_filter::load::<Minify>(example.as_bytes()) {
            panic!("{example}\n{error}");
        }
    }
}
