//! What is stale is answered at once and refreshed behind the client, by a way that both workers know.

use std::time::Duration;

use edgeweir_scenarios::{Edge, Host, Origin, Setup, cache, get, on_each_host};
use serde_json::json;

fn page(body: &str, control: &str) -> Origin {
    Origin::text(body)
        .field("cache-control", control)
        .field("etag", format!("\"{body}\""))
}

/// A refresh begins with a host's next tick.
fn settle(edge: &mut Edge) {
    if edge.host() != Host::Pure {
        std::thread::sleep(Duration::from_millis(1_500));
    }
}

/// Stores it, and has each worker see that its request goes on as it came: that is learnt from exchanges that are over.
fn store(edge: &mut Edge, path: &str, origin: &Origin) {
    for _ in 0..16 {
        edge.send(&get(path).field("cache-control", "no-cache"), origin);
    }
}

const WINDOW: &str = "max-age=1, stale-while-revalidate=600";

on_each_host!(a_refresh_is_behind_the_client, [cache(json!({}))], |edge| {
    store(edge, "/a", &page("old", WINDOW));
    settle(edge);
    edge.pass(Duration::from_millis(1_300));
    let seen = edge.send(&get("/a"), &page("new", "max-age=60"));
    assert_eq!(seen.body_text(), "old", "{}", seen.text("cache-status"));
    settle(edge);
    for _ in 0..6 {
        let seen = edge.send(&get("/a"), &Origin::status(500));
        assert_eq!(seen.body_text(), "new", "{}", seen.text("cache-status"));
    }
});

on_each_host!(
    a_refresh_that_fails_leaves_what_is_there,
    [cache(json!({}))],
    |edge| {
        store(edge, "/a", &page("old", WINDOW));
        settle(edge);
        edge.pass(Duration::from_millis(1_300));
        for origin in [Origin::status(500), Origin::gone(), Origin::status(404)] {
            let seen = edge.send(&get("/a"), &origin);
            assert_eq!(seen.body_text(), "old", "{}", seen.text("cache-status"));
            settle(edge);
        }
    }
);

on_each_host!(
    what_the_edge_answers_itself_takes_the_place_of_nothing,
    [cache(
        json!({ "rules": [{ "path": "*", "ttl_by_status": { "502": 30, "503": 30, "504": 30 } }] })
    )],
    |edge| {
        store(edge, "/a", &page("old", WINDOW));
        settle(edge);
        edge.pass(Duration::from_millis(1_300));
        for _ in 0..3 {
            let seen = edge.send(&get("/a"), &Origin::gone());
            assert_eq!(seen.body_text(), "old", "{}", seen.text("cache-status"));
            settle(edge);
        }
    }
);

/// More than an answer to a request of the cache's own may bring.
const LARGE: usize = 9 << 20;

on_each_host!(
    what_is_too_large_to_be_fetched_is_validated_by_a_client,
    Setup::of([cache(
        json!({ "max_object_bytes": 16 << 20, "l2_bytes": 128 << 20 })
    )])
    .except(Host::Spin, "an object has 1 MiB at most"),
    |edge| {
        let large = Origin::text("x".repeat(LARGE))
            .field("cache-control", WINDOW)
            .field("etag", "\"large\"");
        for _ in 0..6 {
            let asked = get("/large").field("cache-control", "no-cache");
            edge.send(&asked, &large);
        }
        settle(edge);
        edge.pass(Duration::from_millis(1_300));
        let unchanged = Origin::status(304)
            .field("etag", "\"large\"")
            .field("cache-control", "max-age=60");
        let seen = edge.send(&get("/large"), &unchanged);
        let said = seen.text("cache-status");
        assert!(said.contains("fwd=stale; fwd-status=304"), "{said}");
        assert_eq!(seen.body.len(), LARGE);
        settle(edge);
    }
);
