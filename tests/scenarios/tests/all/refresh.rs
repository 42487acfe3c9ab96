//! What is stale is answered at once and refreshed behind the client, by a way that both workers know.

use std::time::Duration;

use edgeweir_scenarios::{Edge, Host, Origin, cache, get, on_each_host};
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

/// What a route does to requests is learnt from an exchange that is over, in each worker.
fn way_is_known(edge: &mut Edge) {
    for at in 0..16 {
        edge.send(&get(&format!("/before{at}")), &Origin::text("x"));
    }
}

const WINDOW: &str = "max-age=1, stale-while-revalidate=600";

on_each_host!(a_refresh_is_behind_the_client, [cache(json!({}))], |edge| {
    way_is_known(edge);
    edge.send(&get("/a"), &page("old", WINDOW));
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
        way_is_known(edge);
        edge.send(&get("/a"), &page("old", WINDOW));
        settle(edge);
        edge.pass(Duration::from_millis(1_300));
        for origin in [Origin::status(500), Origin::gone(), Origin::status(404)] {
            let seen = edge.send(&get("/a"), &origin);
            assert_eq!(seen.body_text(), "old", "{}", seen.text("cache-status"));
            settle(edge);
        }
    }
);
