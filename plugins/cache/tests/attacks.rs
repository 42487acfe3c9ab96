//! Floods, against the filter alone: what is held stays bounded, and nobody gets another's answer.

#![allow(clippy::disallowed_methods, reason = "a test looks at the clock")]

use std::time::{Duration, Instant};

use edgeweir_cache::Cache;
use edgeweir_filter::{Script, load};

const FRESH: &[(&str, &str)] = &[("cache-control", "max-age=600")];

fn edge(json: &str) -> Script {
    Script::new(load::<Cache>(json.as_bytes()).expect("a valid configuration"))
}

/// Far above what it takes, far below what a quadratic one would.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn a_hundred_thousand_variants_take_a_fixed_place() {
    let mut edge = edge("{}");
    let begun = Instant::now();
    let vary = [FRESH[0], ("vary", "x-kind")];
    edge.answers(200, &vary, &[b"body"]);
    let mut most = 0;
    for at in 0..100_000 {
        let kind = at.to_string();
        edge.request(&["GET", "/"], &[("x-kind", &kind)]).run();
        most = most.max(edge.shared.len());
    }
    assert!(most <= 32, "{most} values in the shared store");
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    // Whoever comes now is served as ever.
    edge.answers(200, &vary, &[b"last"]);
    edge.request(&["GET", "/"], &[("x-kind", "last")]).run();
    let seen = edge.run();
    assert!(seen.text("cache-status").contains("; hit"));
    assert_eq!(seen.body_text(), "last");
}

#[test]
fn a_hundred_thousand_names_in_vary_take_a_fixed_place() {
    let mut edge = edge("{}");
    let mut most = 0;
    for at in 0..20_000 {
        let name = format!("x-{at}");
        edge.answers(200, &[FRESH[0], ("vary", &name)], &[b"body"]);
        edge.request(&["GET", "/"], &[(&name, "1")]).run();
        most = most.max(edge.shared.len());
    }
    assert!(most <= 32, "{most} values in the shared store");
}

#[test]
fn ten_thousand_keys_that_are_alike_are_told_apart_in_good_time() {
    let begun = Instant::now();
    for shape in [
        // Same length and beginning; same length and end; anagrams.
        |at: usize| format!("/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/{at:05}"),
        |at: usize| format!("/{at:05}/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
        |at: usize| {
            format!(
                "/{}b{}",
                "a".repeat(at % 100),
                "a".repeat(100 - at % 100) + &"c".repeat(at / 100)
            )
        },
    ] {
        let mut edge = edge(r#"{"l1_entries": 20000}"#);
        for at in 0..10_000 {
            let body = at.to_string();
            edge.answers(200, FRESH, &[body.as_bytes()]);
            edge.request(&["GET", &shape(at)], &[]).run();
        }
        edge.answers(500, &[], &[b"asked"]);
        for at in 0..10_000 {
            let seen = edge.request(&["GET", &shape(at)], &[]).run();
            assert_eq!(seen.body_text(), at.to_string(), "{}", shape(at));
        }
    }
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
}

#[test]
fn an_instance_holds_no_more_than_its_bounds() {
    let mut edge = edge(r#"{"l1_entries": 100, "l1_bytes": 100000, "shared": false}"#);
    let body = vec![b'x'; 2_000];
    for at in 0..5_000 {
        edge.answers(200, FRESH, &[&body]);
        edge.request(&["GET", &format!("/{at}")], &[]).run();
    }
    edge.answers(500, &[], &[b"asked"]);
    let hits = (0..5_000).filter(|at| {
        let seen = edge.request(&["GET", &format!("/{at}")], &[]).run();
        seen.upstream.is_none()
    });
    let hits = hits.count();
    assert!((1..=50).contains(&hits), "{hits} of 2 KB each in 100 KB");
}
