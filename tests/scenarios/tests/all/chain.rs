//! All four at once: as four modules, and as one.

use std::time::Duration;

use edgeweir_scenarios::{
    Edge, Filter, Host, Origin, Setup, cache, compress, edge as in_one, get, minify, on_each_host,
    ratelimit, request,
};
use serde_json::{Value, json};

fn limits(burst: u32) -> Value {
    json!({ "rules": [{
        "key": [{ "header": "x-client" }],
        "limits": [{ "rate": format!("{burst}/hour"), "burst": burst }]
    }] })
}

/// The four, the outermost first, with a limit that only the test of the limit reaches.
pub fn four() -> [Filter; 4] {
    [
        ratelimit(limits(1_500)),
        cache(json!({})),
        compress(json!({})),
        minify(json!({})),
    ]
}

/// The same four as one module.
pub fn one() -> [Filter; 1] {
    [in_one(
        json!({ "filters": [{ "ratelimit": limits(1_500) }, "cache", { "compress": {} }, "minify"] }),
    )]
}

fn settle(edge: &mut Edge) {
    if edge.host() != Host::Pure {
        std::thread::sleep(Duration::from_millis(60));
    }
}

/// A miss is minified, coded and stored as coded; a hit serves the very same bytes.
fn stored_as_coded(edge: &mut Edge) {
    let body = super::document(20_000);
    let value: Value = serde_json::from_str(&body).expect("the document is JSON");
    let origin = Origin::json(&body)
        .field("cache-control", "max-age=60")
        .field("etag", "\"1\"");
    for coding in ["gzip", "br", ""] {
        let mut asks = get("/a").field("x-client", "chain");
        if !coding.is_empty() {
            asks = asks.field("accept-encoding", coding);
        }
        let miss = edge.send(&asks, &origin);
        assert_eq!(
            miss.upstream.len(),
            1,
            "{coding}: {}",
            miss.text("cache-status")
        );
        assert_eq!(miss.text("content-encoding"), coding);
        assert_eq!(String::from_utf8_lossy(&miss.decoded()), value.to_string());
        assert!(
            miss.text("vary")
                .to_ascii_lowercase()
                .contains("accept-encoding")
        );
        assert!(
            miss.has("ratelimit"),
            "the limiter is outermost: its fields are on every response"
        );
        settle(edge);
        for _ in 0..6 {
            let hit = edge.send(&asks, &Origin::status(500));
            assert!(
                hit.text("cache-status").contains("hit"),
                "{coding}: {}",
                hit.text("cache-status")
            );
            assert!(hit.answered_at_the_edge());
            assert!(hit.body == miss.body, "{coding}: a hit serves other bytes");
            assert_eq!(hit.text("content-encoding"), coding);
            assert_eq!(hit.text("content-length"), miss.body.len().to_string());
            assert!(hit.has("age") && hit.has("ratelimit"));
            settle(edge);
        }
    }
}

on_each_host!(
    four_filters_store_the_coded_variant,
    Setup::of(four()),
    |edge| {
        stored_as_coded(edge);
    }
);

on_each_host!(four_in_one_do_what_four_do, Setup::of(one()), |edge| {
    stored_as_coded(edge);
});

/// A limit counts hits too, and what is refused is neither stored nor coded.
fn limited(edge: &mut Edge, client: &str) {
    let name = format!("{client}-{}", edge.host().name());
    let asks = get("/limited")
        .field("x-client", &name)
        .field("accept-encoding", "gzip");
    let origin = Origin::text(super::noise(2_000)).field("cache-control", "max-age=60");
    let mut statuses = Vec::new();
    for _ in 0..8 {
        statuses.push(edge.send(&asks, &origin).status);
        settle(edge);
    }
    assert_eq!(statuses, [200, 200, 200, 200, 200, 429, 429, 429]);
    let refused = edge.send(&asks, &origin);
    assert!(
        !refused.has("content-encoding"),
        "a refusal is made outside of the compressor"
    );
    assert!(!refused.has("cache-status"), "and outside of the cache");
    let other = edge.send(
        &get("/limited").field("x-client", format!("{name}-other")),
        &origin,
    );
    assert_eq!(other.status, 200);
}

on_each_host!(
    the_limit_counts_hits_too,
    [
        ratelimit(limits(5)),
        cache(json!({})),
        compress(json!({})),
        minify(json!({}))
    ],
    |edge| { limited(edge, "hits") }
);

on_each_host!(
    the_limit_in_one_counts_hits_too,
    [in_one(
        json!({ "filters": [{ "ratelimit": limits(5) }, "cache", "compress", "minify"] })
    )],
    |edge| { limited(edge, "hits-in-one") }
);

on_each_host!(
    an_empty_list_passes_everything,
    [in_one(json!({ "filters": [] }))],
    |edge| {
        let body = super::document(5_000);
        let origin = Origin::json(&body)
            .field("etag", "\"1\"")
            .field("cache-control", "max-age=60");
        for _ in 0..2 {
            let seen = edge.send(&get("/a").field("accept-encoding", "gzip"), &origin);
            assert!(seen.body == body.as_bytes());
            assert_eq!(seen.text("etag"), "\"1\"");
            assert_eq!(seen.text("content-length"), body.len().to_string());
            assert_eq!(seen.upstream.len(), 1);
            assert!(!seen.has("cache-status") && !seen.has("vary") && !seen.has("ratelimit"));
        }
    }
);

on_each_host!(
    statuses_without_a_body_pass_the_chain,
    Setup::of(four()),
    |edge| {
        for status in [204, 304] {
            let seen = edge.send(
                &get("/none").field("accept-encoding", "br"),
                &Origin::status(status),
            );
            assert_eq!(
                (seen.status, seen.body.len(), seen.complete),
                (status, 0, true)
            );
            assert!(!seen.has("content-encoding"));
        }
        let origin = Origin::json(super::document(4_000));
        let head = edge.send(
            &request("HEAD", "/head").field("accept-encoding", "br"),
            &origin,
        );
        assert_eq!((head.status, head.body.len()), (200, 0));
    }
);

on_each_host!(
    trailers_pass_the_chain,
    Setup::of(four()).http2_origin(),
    |edge| {
        let body = super::document(20_000);
        let value: Value = serde_json::from_str(&body).expect("the document is JSON");
        let origin = Origin::json("")
            .cut_into(&body, 2_500)
            .chunked()
            .trailer("x-checked", "yes");
        let asks = get("/a")
            .field("accept-encoding", "gzip")
            .field("te", "trailers");
        let seen = edge.send(&asks, &origin);
        assert!(seen.complete);
        assert_eq!(seen.json(), value);
        if seen.text("transfer-encoding").contains("chunked") {
            assert_eq!(seen.trailer("x-checked"), "yes");
        }
    }
);
