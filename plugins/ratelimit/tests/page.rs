//! The reference page has every option.

use std::collections::BTreeSet;

use edgeweir_ratelimit::RateLimit;
use serde_json::Value;

const PAGE: &str = include_str!("../README.md");

fn options(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(members) => {
            if let Some(Value::Object(properties)) = members.get("properties") {
                found.extend(properties.keys().cloned());
            }
            for word in members
                .get("enum")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                found.extend(word.as_str().map(str::to_owned));
            }
            found.extend(
                members
                    .get("const")
                    .and_then(Value::as_str)
                    .map(str::to_owned),
            );
            members.values().for_each(|value| options(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| options(value, found)),
        _ => {}
    }
}

#[test]
fn every_option_and_every_word_is_on_the_page() {
    let mut found = BTreeSet::new();
    options(&edgeweir_filter::schema::<RateLimit>(), &mut found);
    assert!(found.len() > 45, "{found:?}");
    let spans = PAGE.split('`').skip(1).step_by(2);
    let words: BTreeSet<&str> = spans
        .flat_map(|span| span.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'))
        .collect();
    let missing: Vec<_> = found
        .iter()
        .filter(|name| !words.contains(name.as_str()))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_example_loads() {
    let examples = PAGE.split("```json\n").skip(1);
    let examples: Vec<&str> = examples
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(examples.len() >= 5);
    for example in examples {
        if let Err(error) = edgeweir_filter::load::<RateLimit>(example.as_bytes()) {
            panic!("{example}\n{error}");
        }
    }
}
