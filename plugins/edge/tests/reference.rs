//! The reference pages: every option, every word one may be, every name of a refusal and every counter is there, and every
//! example loads.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use edgeweir_cache::{Bypass, Cache, Missed, Refused};
use edgeweir_compress::{Compress, Skipped};
use edgeweir_edge::Edge;
use edgeweir_filter::{Configured, load, schema};
use edgeweir_minify::Minify;
use edgeweir_ratelimit::RateLimit;
use serde_json::Value;

const CACHE: &str = include_str!("../../cache/README.md");
const COMPRESS: &str = include_str!("../../compress/README.md");
const MINIFY: &str = include_str!("../../minify/README.md");
const RATELIMIT: &str = include_str!("../../ratelimit/README.md");

/// The words that stand in code spans of a page and in its examples, a dotted name as its parts too.
fn words(page: &str) -> BTreeSet<&str> {
    let spans = page.split('`').skip(1).step_by(2);
    spans
        .flat_map(|span| span.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'))
        .collect()
}

/// Names of options, and words that an option may be.
fn options(schema: &Value, found: &mut BTreeSet<String>) {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    match schema {
        Value::Object(members) => {
            if let Some(Value::Object(properties)) = members.get("properties") {
                found.extend(properties.keys().cloned());
            }
            if let Some(Value::Array(words)) = members.get("enum") {
                found.extend(words.iter().filter_map(text));
            }
            found.extend(members.get("const").and_then(text));
            members.values().for_each(|value| options(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| options(value, found)),
        _ => {}
    }
}

fn all_are_there<'n>(page: &str, names: impl IntoIterator<Item = &'n str>) {
    let words = words(page);
    let missing: Vec<_> = names
        .into_iter()
        .filter(|name| !words.contains(name))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

fn every_option_is_there<F: Configured>(page: &str, more_than: usize) {
    let mut found = BTreeSet::new();
    options(&schema::<F>(), &mut found);
    assert!(found.len() > more_than, "{}: {found:?}", F::NAME);
    all_are_there(page, found.iter().map(String::as_str));
}

#[test]
fn every_option_is_on_its_page() {
    every_option_is_there::<Cache>(CACHE, 40);
    every_option_is_there::<Compress>(COMPRESS, 20);
    every_option_is_there::<Minify>(MINIFY, 25);
    every_option_is_there::<RateLimit>(RATELIMIT, 45);
}

#[test]
fn every_refusal_is_on_its_page() {
    let cache = Bypass::ALL.iter().map(|reason| reason.name());
    let cache = cache.chain(Missed::ALL.iter().map(|reason| reason.name()));
    let cache = cache.chain(Refused::ALL.iter().map(|reason| reason.name()));
    all_are_there(CACHE, cache);
    let compress = || Skipped::ALL.iter().map(|reason| reason.name());
    all_are_there(COMPRESS, compress());
    assert_eq!(
        compress().collect::<BTreeSet<_>>().len(),
        Skipped::ALL.len()
    );
}

/// The counters that sources name: what follows a quote and begins so, up to the next quote.
fn counters<'s>(sources: &[&'s str], start: &str) -> BTreeSet<&'s str> {
    let quoted = format!("\"{start}");
    let names = sources.iter().flat_map(|source| {
        let at = source.match_indices(&quoted);
        at.filter_map(|(at, _)| source.get(at + 1..)?.split('"').next())
    });
    names.collect()
}

#[test]
fn every_counter_is_on_its_page() {
    let compress = counters(
        &[
            include_str!("../../compress/src/exchange.rs"),
            include_str!("../../compress/src/measure.rs"),
        ],
        "compress.",
    );
    all_are_there(
        COMPRESS,
        compress.iter().flat_map(|counter| counter.split('.')),
    );
    let minify = counters(
        &[
            include_str!("../../minify/src/lib.rs"),
            include_str!("../../minify/src/eligible.rs"),
            include_str!("../../minify/src/lexer.rs"),
        ],
        "minify.",
    );
    let minify: BTreeSet<_> = minify
        .iter()
        .filter_map(|counter| counter.rsplit('.').next())
        .collect();
    assert!(minify.len() > 20, "{minify:?}");
    all_are_there(MINIFY, minify);
    let store = counters(
        &[include_str!("../../ratelimit/src/store.rs")],
        "ratelimit.store.",
    );
    assert!(store.len() > 6, "{store:?}");
    all_are_there(
        RATELIMIT,
        store.iter().flat_map(|counter| counter.split('.')),
    );
}

fn every_example_loads<F: Configured>(page: &str, many: RangeInclusive<usize>) {
    let examples: Vec<&str> = page
        .split("```json\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(
        many.contains(&examples.len()),
        "the page of {} has {} examples",
        F::NAME,
        examples.len()
    );
    for example in examples {
        if let Err(error) = load::<F>(example.as_bytes()) {
            panic!("{}: {example}\n{error}", F::NAME);
        }
    }
}

#[test]
fn the_examples_of_every_page_load() {
    every_example_loads::<Cache>(CACHE, 1..=usize::MAX);
    every_example_loads::<Compress>(COMPRESS, 1..=usize::MAX);
    every_example_loads::<Minify>(MINIFY, 5..=5);
    every_example_loads::<RateLimit>(RATELIMIT, 5..=usize::MAX);
    every_example_loads::<Edge>(include_str!("../README.md"), 1..=usize::MAX);
}
