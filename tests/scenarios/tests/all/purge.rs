//! Invalidation by the operator: what was purged is not served by any worker again.

use std::time::Duration;

use edgeweir_scenarios::client;
use edgeweir_scenarios::request;
use edgeweir_scenarios::{Edge, Filter, Host, Origin, Request, Seen, cache, get, on_each_host};
use serde_json::json;

const TOKEN: &str = "a-token-of-the-operator";

fn guarded() -> Filter {
    cache(json!({ "admin": { "token": TOKEN } }))
}

fn fresh(body: &str) -> Origin {
    Origin::text(body)
        .field("cache-control", "max-age=60")
        .field("etag", "\"a\"")
}

fn purge(path: &str) -> Request {
    request("PURGE", path).field("authorization", format!("Bearer {TOKEN}"))
}

fn settle(edge: &mut Edge) {
    if edge.host() != Host::Pure {
        std::thread::sleep(Duration::from_millis(60));
    }
}

/// Stores it and has every worker see it.
fn stored(edge: &mut Edge, asked: &Request, origin: &Origin) {
    edge.send(asked, origin);
    settle(edge);
    each_worker(edge, asked, &Origin::status(500), |seen| {
        assert_eq!(seen.status, 200, "{}", seen.text("cache-status"));
    });
}

fn each_worker(edge: &mut Edge, asked: &Request, origin: &Origin, check: impl Fn(&Seen)) {
    for _ in 0..6 {
        check(&edge.send(asked, origin));
        settle(edge);
    }
}

fn is_served(edge: &mut Edge, asked: &Request, body: &str) {
    each_worker(edge, asked, &fresh("new"), |seen| {
        assert_eq!(seen.body_text(), body, "{}", seen.text("cache-status"));
    });
}

on_each_host!(a_purged_uri_is_gone_for_every_worker, [guarded()], |edge| {
    for path in ["/a", "/b"] {
        stored(edge, &get(path), &fresh("old"));
    }
    let done = edge.send(&purge("/a"), &Origin::status(500));
    assert!(
        (200..300).contains(&done.status),
        "{} {}",
        done.status,
        done.body_text()
    );
    assert!(done.answered_at_the_edge(), "the origin was asked to purge");
    settle(edge);
    is_served(edge, &get("/a"), "new");
    is_served(edge, &get("/b"), "old");
});

on_each_host!(every_variant_of_a_purged_uri_is_gone, [guarded()], |edge| {
    for kind in ["a", "b"] {
        let origin = fresh("old").field("vary", "x-kind");
        stored(edge, &get("/v").field("x-kind", kind), &origin);
    }
    edge.send(&purge("/v"), &Origin::status(500));
    settle(edge);
    for kind in ["a", "b"] {
        let seen = edge.send(&get("/v").field("x-kind", kind), &fresh("new"));
        assert_eq!(seen.body_text(), "new", "{}", seen.text("cache-status"));
    }
});

on_each_host!(a_purged_group_is_gone_and_no_other, [guarded()], |edge| {
    // Groups are one for the whole edge: other hosts of this program have their own.
    for (path, field, value) in [
        ("/one", "surrogate-key", "shop item-1"),
        ("/two", "cache-tag", "shop, item-2"),
        ("/three", "surrogate-key", "shopping item-3"),
    ] {
        stored(edge, &get(path), &fresh("old").field(field, value));
    }
    let done = edge.send(
        &purge("/anything").field("surrogate-key", "shop"),
        &Origin::status(500),
    );
    assert!((200..300).contains(&done.status), "{}", done.body_text());
    settle(edge);
    is_served(edge, &get("/one"), "new");
    is_served(edge, &get("/two"), "new");
    is_served(edge, &get("/three"), "old");
});

on_each_host!(what_is_softly_purged_is_validated, [guarded()], |edge| {
    stored(edge, &get("/soft"), &fresh("old"));
    edge.send(
        &purge("/soft").field("edgeweir-soft", "1"),
        &Origin::status(500),
    );
    settle(edge);
    let not_modified = Origin::status(304)
        .field("etag", "\"a\"")
        .field("cache-control", "max-age=60");
    let seen = edge.send(&get("/soft"), &not_modified);
    assert_eq!(seen.body_text(), "old", "{}", seen.text("cache-status"));
    assert_eq!(seen.asked().text("if-none-match"), "\"a\"");
});

on_each_host!(without_the_token_nothing_is_purged, [guarded()], |edge| {
    stored(edge, &get("/a"), &fresh("old"));
    for asked in [
        request("PURGE", "/a"),
        request("PURGE", "/a").field("authorization", "Bearer a-token-of-somebody-else"),
        request("PURGE", "/a").field("authorization", format!("Basic {TOKEN}")),
        request("PURGE", "/a").field("authorization", "Bearer a-token-of-the-operato"),
    ] {
        let seen = edge.send(&asked, &Origin::text("purged"));
        assert_eq!(seen.status, 401);
        assert!(seen.answered_at_the_edge());
    }
    is_served(edge, &get("/a"), "old");
});

on_each_host!(
    without_a_configured_token_purge_is_refused,
    [cache(json!({}))],
    |edge| {
        stored(edge, &get("/a"), &fresh("old"));
        let seen = edge.send(&purge("/a"), &Origin::text("purged"));
        assert_eq!(seen.status, 403);
        assert!(seen.answered_at_the_edge());
        is_served(edge, &get("/a"), "old");
    }
);

on_each_host!(
    a_prefix_is_purged_and_nothing_beside_it,
    [guarded()],
    |edge| {
        let Some(address) = edge.address() else {
            return;
        };
        for path in ["/p/a", "/p/b", "/q/a"] {
            stored(edge, &get(path), &fresh("old"));
        }
        let post = |query: &str| {
            let asked = request("POST", "/").field("authorization", format!("Bearer {TOKEN}"));
            let path = format!("/.edgeweir/cache/purge?{query}");
            client::exchange(address, &asked, &path).expect("an answer")
        };
        let prefix = format!("prefix={}", edge.path("/p/"));
        let tried = post(&format!("{prefix}&dry_run=1"));
        assert!((200..300).contains(&tried.status), "{}", tried.body_text());
        is_served(edge, &get("/p/a"), "old");
        let done = post(&prefix);
        assert!((200..300).contains(&done.status), "{}", done.body_text());
        settle(edge);
        is_served(edge, &get("/p/a"), "new");
        is_served(edge, &get("/p/b"), "new");
        is_served(edge, &get("/q/a"), "old");
        assert_eq!(post("prefix=/x&all=1").status, 400);
        assert_eq!(post("what=1").status, 400);
    }
);
