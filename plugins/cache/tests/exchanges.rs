//! Whole exchanges through the filter, one worker or two.

use std::time::Duration;

use edgeweir_cache::Cache;
use edgeweir_filter::{
    Answer, Body, Cx, Effect, Exchange, Fields, Filter, Record, Reply, RequestHead, ResponseHead,
    Script, Seen, SharedMemory, Step, Timestamp, load,
};

const FRESH: &[(&str, &str)] = &[("cache-control", "max-age=60"), ("etag", "\"1\"")];

fn edge(json: &str) -> Script {
    Script::new(load::<Cache>(json.as_bytes()).expect("a valid configuration"))
}

fn plain() -> Script {
    edge("{}").get("/").origin(200, FRESH, "body")
}

/// Two workers that share a store.
fn workers(json: &str) -> (Script, Script) {
    let one = edge(json).origin(200, FRESH, "body");
    let two = edge(json).sharing(&one.shared).origin(200, FRESH, "body");
    (one, two)
}

fn ask(edge: &mut Script, line: &[&str], fields: &[(&str, &str)]) -> Seen {
    edge.request(line, fields).run()
}

fn is_hit(seen: &Seen) -> bool {
    let hit = seen.text("cache-status").contains("; hit");
    assert_eq!(
        hit,
        seen.upstream.is_none(),
        "{}",
        seen.text("cache-status")
    );
    assert_eq!(hit, seen.field("age").is_some());
    hit
}

/// Answers with `response`, then asks again: whether the second was a hit, and the first's `Cache-Status`.
fn reused(request: &[(&str, &str)], status: u16, response: &[(&str, &str)]) -> (bool, String) {
    let mut edge = plain();
    edge.answers(status, response, &[b"body"]);
    let first = ask(&mut edge, &["GET", "/"], request);
    let second = ask(&mut edge, &["GET", "/"], request);
    (is_hit(&second), first.text("cache-status"))
}

#[test]
fn a_miss_then_a_hit_with_its_age() {
    let mut edge = plain();
    let miss = edge.run();
    assert_eq!(
        miss.text("cache-status"),
        "edgeweir; fwd=uri-miss; fwd-status=200; ttl=60; stored"
    );
    assert_eq!((miss.status, miss.body_text().as_str()), (200, "body"));
    assert_eq!(
        (miss.counted("cache.miss"), miss.counted("cache.stored")),
        (1, 1)
    );
    let hit = edge.pass(Duration::from_secs(7)).run();
    assert!(is_hit(&hit));
    assert_eq!(hit.text("cache-status"), "edgeweir; hit; ttl=53");
    assert_eq!(
        (hit.text("age"), hit.text("content-length")),
        ("7".to_owned(), "4".to_owned())
    );
    assert_eq!((hit.status, hit.body_text().as_str()), (200, "body"));
    assert_eq!(
        (hit.counted("cache.hit"), hit.counted("cache.l1.hit")),
        (1, 1)
    );
    let stale = edge.pass(Duration::from_secs(53)).run();
    assert_eq!(
        stale.text("cache-status"),
        "edgeweir; fwd=stale; fwd-status=200; ttl=60; stored"
    );
}

#[test]
fn date_is_added_and_age_replaced() {
    let mut edge = plain();
    edge.answers(
        200,
        &[("cache-control", "max-age=60"), ("age", "10")],
        &[b"x"],
    );
    assert_eq!(edge.run().text("date"), "Thu, 01 Jan 2026 00:00:00 GMT");
    let hit = edge.pass(Duration::from_secs(5)).run();
    assert_eq!(hit.all("age"), ["15"]);
    assert_eq!(hit.text("date"), "Thu, 01 Jan 2026 00:00:00 GMT");
}

#[test]
fn the_time_an_origin_takes_counts() {
    let mut edge = plain();
    edge.delay(Duration::from_secs(20)).run();
    let hit = edge.delay(Duration::ZERO).run();
    assert_eq!(hit.text("age"), "20");
}

#[test]
fn refusals_are_named() {
    for (name, request, status, response, detail) in [
        (
            "no-store",
            vec![],
            200,
            vec![("cache-control", "no-store")],
            "no_store",
        ),
        (
            "private",
            vec![],
            200,
            vec![("cache-control", "private, max-age=9")],
            "private",
        ),
        ("nothing said", vec![], 200, vec![], "no_freshness"),
        (
            "vary *",
            vec![],
            200,
            vec![("vary", "*"), FRESH[0]],
            "vary_star",
        ),
        (
            "a cookie",
            vec![],
            200,
            vec![("set-cookie", "a=b"), FRESH[0]],
            "set_cookie",
        ),
        ("a part", vec![], 206, vec![FRESH[0]], "partial"),
        (
            "an error",
            vec![],
            503,
            vec![("last-modified", "Thu, 01 Jan 2015 00:00:00 GMT")],
            "no_freshness",
        ),
        (
            "authorization",
            vec![("authorization", "x")],
            200,
            FRESH.to_vec(),
            "authorization",
        ),
        (
            "a range that the origin does not have",
            vec![("range", "bytes=999-")],
            416,
            vec![FRESH[0], ("content-range", "bytes */4")],
            "one_request",
        ),
        (
            "asked not to store",
            vec![("cache-control", "no-store")],
            200,
            FRESH.to_vec(),
            "request_no_store",
        ),
        (
            "two lengths",
            vec![],
            200,
            vec![FRESH[0], ("content-length", "4, 5")],
            "bad_length",
        ),
        (
            "a declared length over the bound",
            vec![],
            200,
            vec![FRESH[0], ("content-length", "1048577")],
            "too_large",
        ),
        (
            "a name too long",
            vec![],
            200,
            vec![
                FRESH[0],
                ("vary", "x-a-name-of-more-than-forty-six-characters-in-all"),
            ],
            "vary_too_long",
        ),
    ] {
        let (hit, first) = reused(&request, status, &response);
        assert!(!hit, "{name}");
        assert!(
            first.ends_with(&format!("; detail={detail}")),
            "{name}: {first}"
        );
    }
}

#[test]
fn bypasses_are_named() {
    for (name, line, fields, body, want) in [
        (
            "options",
            ["OPTIONS", "/"],
            vec![],
            false,
            "fwd=method; fwd-status=200; detail=method",
        ),
        (
            "unknown",
            ["BREW", "/"],
            vec![],
            false,
            "fwd=method; fwd-status=200; detail=method",
        ),
        (
            "body",
            ["GET", "/"],
            vec![],
            true,
            "fwd=bypass; fwd-status=200; detail=request_body",
        ),
        (
            "upgrade",
            ["GET", "/"],
            vec![("upgrade", "websocket")],
            false,
            "fwd=bypass; fwd-status=200; detail=upgrade",
        ),
        (
            "no-transform",
            ["GET", "/"],
            vec![("cache-control", "no-transform")],
            false,
            "fwd=bypass; fwd-status=200; detail=no_transform",
        ),
        (
            "if-match",
            ["GET", "/"],
            vec![("if-match", "\"1\"")],
            false,
            "fwd=bypass; fwd-status=200; detail=precondition",
        ),
    ] {
        let mut edge = plain();
        edge.run();
        edge.request(&line, &fields);
        if body {
            edge.request_body(&[b"x"]);
        }
        let seen = edge.run();
        assert_eq!(
            seen.text("cache-status"),
            format!("edgeweir; {want}"),
            "{name}"
        );
        assert_eq!(
            seen.upstream_body,
            if body { b"x".to_vec() } else { Vec::new() }
        );
    }
    let mut edge = plain();
    let long = format!("/{}", "x".repeat(4000));
    let seen = ask(&mut edge, &["GET", &long], &[]);
    assert!(seen.text("cache-status").ends_with("detail=key_too_long"));
    let seen = ask(&mut edge, &["GET", "/", ""], &[]);
    assert!(seen.text("cache-status").ends_with("detail=no_authority"));
}

#[test]
fn hosts_schemes_and_queries_are_apart() {
    let mut edge = plain();
    edge.run();
    for (line, hit) in [
        (["GET", "/", "EXAMPLE.com:443"], true),
        (["GET", "/", "example.org"], false),
        (["GET", "/?", "example.com"], false),
        (["HEAD", "/", "example.com"], true),
    ] {
        let seen = ask(&mut edge, &line, &[]);
        assert_eq!(is_hit(&seen), hit, "{line:?}");
    }
}

#[test]
fn authorization_is_kept_apart() {
    let with = [("authorization", "x")];
    // Stored for anybody, but not for those with Authorization.
    let mut edge = plain();
    edge.run();
    let seen = ask(&mut edge, &["GET", "/"], &with);
    assert!(!is_hit(&seen));
    assert!(
        seen.upstream
            .as_ref()
            .is_some_and(|head| !head.fields.has("if-none-match"))
    );
    // And the other way round.
    let mut edge = plain();
    ask(&mut edge, &["GET", "/"], &with);
    assert!(!is_hit(&ask(&mut edge, &["GET", "/"], &[])));
    for allowed in [
        "public, max-age=60",
        "s-maxage=60",
        "must-revalidate, max-age=60",
    ] {
        assert!(
            reused(&with, 200, &[("cache-control", allowed)]).0,
            "{allowed}"
        );
    }
}

#[test]
fn variants_are_kept_apart_on_two_workers() {
    let (mut one, mut two) = workers("{}");
    let fields = [
        ("cache-control", "max-age=60"),
        ("vary", "Accept-Language, accept-encoding"),
    ];
    for (language, body) in [("en", "hello"), ("de", "hallo")] {
        let request = [
            ("accept-language", language),
            ("accept-encoding", "gzip, br"),
        ];
        one.answers(200, &fields, &[body.as_bytes()]);
        assert!(!is_hit(&ask(&mut one, &["GET", "/"], &request)));
    }
    for (language, encoding, want) in [
        ("en", "br,gzip", Some("hello")),
        ("DE", "br, gzip, x;q=0", Some("hallo")),
        ("fr", "gzip, br", None),
        ("en", "gzip, br;q=0", None),
    ] {
        let request = [("accept-language", language), ("accept-encoding", encoding)];
        let seen = ask(&mut two, &["GET", "/"], &request);
        assert_eq!(is_hit(&seen), want.is_some(), "{language} {encoding}");
        match want {
            Some(body) => assert_eq!(seen.body_text(), body),
            None => assert!(seen.text("cache-status").contains("fwd=vary-miss")),
        }
    }
}

#[test]
fn at_most_eight_variants() {
    let mut edge = plain();
    edge.answers(200, &[FRESH[0], ("vary", "x")], &[b"body"]);
    for round in 0..20 {
        let value = round.to_string();
        assert!(!is_hit(&ask(&mut edge, &["GET", "/"], &[("x", &value)])));
    }
    // Eight objects, a marker and a clock.
    assert!(
        edge.shared.len() <= 10,
        "{} values in the store",
        edge.shared.len()
    );
    let hits = (0..20).filter(|round| {
        let value = round.to_string();
        edge.request(
            &["GET", "/"],
            &[("x", &value), ("cache-control", "only-if-cached")],
        );
        edge.run().status == 200
    });
    assert_eq!(hits.count(), 8);
}

#[test]
fn the_time_of_a_lookup_counts_for_the_tier_that_answered() {
    let (mut one, mut two) = workers("{}");
    let took = |seen: &Seen| {
        ["miss", "l2", "l1"].map(|tier| {
            let name = format!("cache.{tier}.lookup_ns");
            seen.counted(&name)
        })
    };
    one.lap(Duration::from_nanos(300));
    two.lap(Duration::from_nanos(200));
    assert_eq!(took(&one.run()), [300, 0, 0]);
    assert_eq!(took(&two.run()), [0, 200, 0]);
    assert_eq!(took(&two.run()), [0, 0, 200]);
}

#[test]
fn what_one_worker_stores_the_other_serves() {
    let (mut one, mut two) = workers("{}");
    one.run();
    let seen = two.run();
    assert!(is_hit(&seen));
    assert_eq!(
        (seen.body_text().as_str(), seen.counted("cache.l2.hit")),
        ("body", 1)
    );
    assert_eq!(two.run().counted("cache.l1.hit"), 1);
}

/// Hits, misses, stale ones, stored, evicted of a tier.
fn did(seen: &Seen, tier: &str) -> [u64; 5] {
    ["hit", "miss", "stale", "stored", "evicted"]
        .map(|what| seen.counted(&format!("cache.{tier}.{what}")))
}

#[test]
fn each_tier_counts_what_it_was_asked_and_did() {
    const TOKEN: &str = "a-token-of-enough-characters";
    let json = format!(r#"{{"l1_entries": 1, "admin": {{"token": "{TOKEN}"}}}}"#);
    let (mut one, mut two) = workers(&json);
    let miss = ask(&mut one, &["GET", "/"], &[]);
    assert_eq!(did(&miss, "l1"), [0, 1, 0, 1, 0]);
    assert_eq!(did(&miss, "l2"), [0, 1, 0, 1, 0]);
    let bytes = |seen: &Seen, tier: &str| seen.counted(&format!("cache.{tier}.stored_bytes"));
    assert_eq!(bytes(&miss, "l1"), miss.counted("cache.stored_bytes"));
    assert_eq!(bytes(&miss, "l2"), miss.counted("cache.stored_bytes"));
    let read = ask(&mut two, &["GET", "/"], &[]);
    assert_eq!(did(&read, "l1"), [0, 1, 0, 1, 0], "promoted");
    assert_eq!(did(&read, "l2"), [1, 0, 0, 0, 0]);
    let hit = ask(&mut one, &["GET", "/"], &[]);
    assert_eq!(did(&hit, "l1"), [1, 0, 0, 0, 0]);
    assert_eq!(did(&hit, "l2"), [0; 5]);
    let other = ask(&mut one, &["GET", "/other"], &[]);
    assert_eq!(
        did(&other, "l1"),
        [0, 1, 0, 1, 1],
        "one is all there may be"
    );
    one.pass(Duration::from_secs(61));
    let stale = ask(
        &mut one,
        &["GET", "/other"],
        &[("cache-control", "max-stale")],
    );
    assert_eq!(did(&stale, "l1"), [1, 0, 1, 0, 0]);
    let authorization = format!("Bearer {TOKEN}");
    let fields = [("authorization", &authorization[..])];
    let told = ask(&mut one, &["GET", "/.edgeweir/cache/stats"], &fields);
    let told: serde_json::Value = serde_json::from_slice(&told.body()).expect("JSON");
    let of = |tier: &str| {
        ["hit", "miss", "stale", "stored", "evicted", "hit_percent"]
            .map(|it| told[tier][it].clone())
    };
    assert_eq!(of("l1"), [2, 2, 1, 2, 1, 50].map(serde_json::Value::from));
    assert_eq!(of("l2"), [0, 2, 0, 2, 0, 0].map(serde_json::Value::from));
    assert_eq!(
        (&told["l1"]["entries"], &told["l3"]),
        (&1.into(), &serde_json::Value::Null)
    );
}

#[test]
fn a_response_stays_in_the_shared_store_for_so_long() {
    let (mut one, mut two) = workers(r#"{"l2_seconds": 5}"#);
    one.run();
    assert!(is_hit(&two.pass(Duration::from_secs(4)).run()));
    // Who has it in its own memory uses it still; who has not asks the origin.
    let mut third = edge("{}").sharing(&one.shared).origin(200, FRESH, "body");
    assert!(!is_hit(&third.pass(Duration::from_secs(6)).run()));
    assert!(is_hit(&two.pass(Duration::from_secs(2)).run()));
}

#[test]
fn an_answer_to_head_without_validator_and_length_freshens_nothing() {
    let mut edge = plain();
    edge.run();
    edge.pass(Duration::from_secs(50));
    edge.answers(200, &FRESH[..1], &[]);
    let fields = [("cache-control", "no-cache")];
    assert_eq!(ask(&mut edge, &["HEAD", "/"], &fields).status, 200);
    assert_eq!(ask(&mut edge, &["GET", "/"], &[]).text("age"), "50");
    edge.pass(Duration::from_secs(10));
    assert!(!is_hit(&ask(&mut edge, &["GET", "/"], &[])));
}

#[test]
fn what_is_answered_504_here_is_not_forwarded() {
    let mut edge = plain();
    let seen = ask(
        &mut edge,
        &["GET", "/"],
        &[("cache-control", "only-if-cached")],
    );
    assert_eq!(
        (seen.status, seen.counted("cache.only_if_cached")),
        (504, 1)
    );
    assert_eq!(seen.counted("cache.miss"), 1);
    assert_eq!(seen.counted("cache.forwarded.absent"), 0);
}

#[test]
fn an_unsafe_request_on_one_worker_invalidates_on_both() {
    for (name, line, status, location, invalidates) in [
        ("post", ["POST", "/"], 200, None, true),
        ("unknown", ["BREW", "/"], 204, None, true),
        (
            "location",
            ["POST", "/other"],
            201,
            Some(("location", "/")),
            true,
        ),
        (
            "content-location",
            ["PUT", "/other"],
            200,
            Some(("content-location", "https://example.com/")),
            true,
        ),
        (
            "location elsewhere",
            ["POST", "/other"],
            201,
            Some(("location", "https://example.org/")),
            false,
        ),
        ("error", ["POST", "/"], 500, None, false),
        ("safe", ["OPTIONS", "/"], 200, None, false),
    ] {
        let (mut one, mut two) = workers("{}");
        one.run();
        assert!(
            is_hit(&one.run()) && is_hit(&two.run()),
            "{name}: both have it in memory"
        );
        two.answers(status, location.as_slice(), &[b"done"]);
        ask(&mut two, &line, &[]);
        two.answers(200, FRESH, &[b"body"]);
        for worker in [&mut one, &mut two] {
            let seen = ask(
                worker,
                &["GET", "/"],
                &[("cache-control", "only-if-cached")],
            );
            assert_eq!(seen.status, if invalidates { 504 } else { 200 }, "{name}");
        }
        if invalidates {
            assert!(!is_hit(&ask(&mut one, &["GET", "/"], &[])), "{name}");
            assert!(
                is_hit(&ask(&mut two, &["GET", "/"], &[])),
                "{name}: stored again"
            );
        }
    }
}

#[test]
fn invalidation_reaches_every_key_of_a_uri() {
    let json = r#"{"key": {"headers": ["x-tenant"]}}"#;
    let (mut one, mut two) = workers(json);
    for tenant in ["a", "b"] {
        one.answers(200, FRESH, &[tenant.as_bytes()]);
        ask(&mut one, &["GET", "/"], &[("x-tenant", tenant)]);
    }
    for tenant in ["a", "b"] {
        let seen = ask(&mut two, &["GET", "/"], &[("x-tenant", tenant)]);
        assert!(is_hit(&seen));
        assert_eq!(seen.body_text(), tenant);
    }
    ask(&mut two, &["DELETE", "/"], &[("x-tenant", "c")]);
    for tenant in ["a", "b"] {
        assert!(!is_hit(&ask(
            &mut one,
            &["GET", "/"],
            &[("x-tenant", tenant)]
        )));
    }
}

#[test]
fn a_newer_response_counts_on_both_at_once() {
    let (mut one, mut two) = workers("{}");
    one.run();
    assert!(is_hit(&two.run()));
    one.answers(
        200,
        &[("cache-control", "max-age=60"), ("etag", "\"2\"")],
        &[b"newer"],
    );
    ask(&mut one, &["GET", "/"], &[("cache-control", "no-cache")]);
    assert_eq!(two.run().body_text(), "newer");
}

#[test]
fn without_a_shared_store_memory_works_alone() {
    for json in [
        "{}",
        r#"{"shared": false}"#,
        r#"{"shared": false, "key": {"cookies": ["a"]}}"#,
    ] {
        let mut edge = edge(json).origin(200, FRESH, "body");
        edge.store_down(true);
        edge.run();
        assert!(is_hit(&edge.run()), "{json}");
        ask(&mut edge, &["POST", "/"], &[]);
        assert!(
            !is_hit(&ask(&mut edge, &["GET", "/"], &[])),
            "{json}: invalidated"
        );
        assert!(is_hit(&edge.run()), "{json}: stored again");
        assert!(edge.shared.is_empty());
    }
    // An outage on the way: nothing but misses, then hits from memory.
    let mut edge = plain();
    edge.run();
    edge.store_down(true);
    assert!(!is_hit(&edge.run()));
    assert!(is_hit(&edge.run()));
}

#[test]
fn memory_asks_again_after_its_residence() {
    let mut edge = edge(r#"{"l1_seconds": 5}"#).origin(200, FRESH, "body");
    edge.run();
    assert_eq!(
        edge.pass(Duration::from_secs(4))
            .run()
            .counted("cache.l1.hit"),
        1
    );
    assert_eq!(
        edge.pass(Duration::from_secs(1))
            .run()
            .counted("cache.l2.hit"),
        1
    );
    assert_eq!(edge.run().counted("cache.l1.hit"), 1);
}

#[test]
fn incomplete_bodies_are_not_stored() {
    let mut cut = plain();
    cut.cut();
    assert_eq!(cut.run().counted("cache.stored"), 0);
    let mut short = plain();
    short.answers(200, &[FRESH[0], ("content-length", "9")], &[b"body"]);
    assert_eq!(short.run().counted("cache.refused.length_mismatch"), 1);
    for mut edge in [cut, short] {
        assert!(!is_hit(&edge.run()));
    }
}

#[test]
fn bodies_stream_through_up_to_the_bound() {
    let mut edge = edge(r#"{"max_object_bytes": 1024}"#)
        .get("/")
        .origin_chunks(200, FRESH, &["one ", "two"]);
    let miss = edge.run();
    assert_eq!(miss.chunks, ["one ", "two"]);
    assert_eq!(edge.run().body_text(), "one two");
    let large = "x".repeat(900);
    let mut edge = edge_of_chunks(&[&large, &large]);
    let seen = edge.run();
    assert_eq!(
        (seen.body().len(), seen.counted("cache.refused.too_large")),
        (1800, 1)
    );
    assert!(!is_hit(&edge.run()));
}

fn edge_of_chunks(chunks: &[&str]) -> Script {
    edge(r#"{"max_object_bytes": 1024}"#)
        .get("/")
        .origin_chunks(200, FRESH, chunks)
}

#[test]
fn trailers_are_passed_and_not_stored() {
    let mut edge = plain();
    edge.trailers(&[("x-sum", "1")]);
    let miss = edge.run();
    assert!(miss.trailers.is_some_and(|trailers| trailers.has("x-sum")));
    let hit = edge.run();
    assert!(is_hit(&hit) && hit.trailers.is_none() && hit.field("x-sum").is_none());
}

#[test]
fn empty_responses_are_stored_at_their_head() {
    let mut edge = plain();
    edge.answers(204, FRESH, &[]);
    assert_eq!(edge.run().counted("cache.stored"), 1);
    let hit = edge.run();
    assert!(is_hit(&hit));
    assert_eq!((hit.status, hit.field("content-length")), (204, None));
}

#[test]
fn head_is_answered_from_a_stored_get_but_not_stored() {
    let mut edge = plain();
    let head = ask(&mut edge, &["HEAD", "/"], &[]);
    assert!(head.text("cache-status").ends_with("detail=head_request"));
    assert!(!is_hit(&ask(&mut edge, &["GET", "/"], &[])));
    let head = ask(&mut edge, &["HEAD", "/"], &[]);
    assert!(is_hit(&head));
    assert_eq!(
        (head.text("content-length"), head.body().len()),
        ("4".to_owned(), 0)
    );
}

#[test]
fn clients_conditions_are_answered_from_the_store() {
    let mut edge = plain();
    edge.run();
    for (field, value, status) in [
        ("if-none-match", "W/\"1\"", 304),
        ("if-none-match", "*", 304),
        ("if-none-match", "\"2\"", 200),
        ("if-modified-since", "Thu, 01 Jan 2026 00:00:00 GMT", 304),
        ("if-modified-since", "Thu, 01 Jan 2015 00:00:00 GMT", 200),
    ] {
        let seen = ask(&mut edge, &["GET", "/"], &[(field, value)]);
        assert!(is_hit(&seen));
        assert_eq!(seen.status, status, "{field}: {value}");
        if status == 304 {
            assert_eq!(
                (seen.body().len(), seen.text("etag").as_str()),
                (0, "\"1\"")
            );
            assert!(seen.field("date").is_some() && seen.field("content-type").is_none());
        }
    }
}

#[test]
fn a_stale_response_is_validated() {
    let mut edge = plain();
    edge.answers(
        200,
        &[FRESH[0], FRESH[1], ("x-old", "1"), ("x-new", "0")],
        &[b"body"],
    );
    edge.run();
    edge.pass(Duration::from_secs(61));
    edge.answers(304, &[FRESH[0], ("x-new", "1")], &[]);
    let validated = edge.run();
    let asked = validated.upstream.as_ref().expect("asked the origin");
    assert_eq!(asked.fields.text("if-none-match"), Some("\"1\""));
    assert_eq!(
        (validated.status, validated.body_text().as_str()),
        (200, "body")
    );
    assert_eq!(
        validated.text("cache-status"),
        "edgeweir; fwd=stale; fwd-status=304; ttl=60; stored"
    );
    assert_eq!(
        (
            validated.text("x-old"),
            validated.text("x-new"),
            validated.text("age")
        ),
        ("1".into(), "1".into(), "0".into())
    );
    let hit = edge.run();
    assert!(is_hit(&hit));
    assert_eq!(
        (hit.text("x-new").as_str(), hit.body_text().as_str()),
        ("1", "body")
    );
    // A full response replaces.
    edge.pass(Duration::from_secs(61));
    edge.answers(200, &[FRESH[0], ("etag", "\"2\"")], &[b"other"]);
    assert_eq!(edge.run().body_text(), "other");
    assert_eq!(edge.run().body_text(), "other");
}

#[test]
fn validation_answers_the_clients_own_condition() {
    let mut edge = plain();
    edge.run();
    edge.pass(Duration::from_secs(61))
        .answers(304, &[FRESH[0]], &[]);
    let known = ask(&mut edge, &["GET", "/"], &[("if-none-match", "\"1\"")]);
    assert_eq!(known.status, 304);
    edge.pass(Duration::from_secs(61));
    let unknown = ask(&mut edge, &["GET", "/"], &[("if-none-match", "\"0\"")]);
    assert_eq!(
        (unknown.status, unknown.body_text().as_str()),
        (200, "body")
    );
}

#[test]
fn what_a_client_has_already_keeps_nothing_out_of_the_store() {
    for condition in [
        ("if-none-match", "\"1\""),
        ("if-modified-since", "Thu, 01 Jan 2026 00:00:00 GMT"),
    ] {
        let mut edge = edge_with(r#"{"ask_for_all": true}"#);
        let first = ask(&mut edge, &["GET", "/"], &[condition]);
        let upstream = first.upstream.as_ref().expect("asked the origin");
        assert!(!upstream.fields.has(condition.0), "{condition:?}");
        assert_eq!((first.status, first.body_text().as_str()), (200, "body"));
        assert_eq!(first.counted("cache.asked_for_all"), 1);
        let second = ask(&mut edge, &["GET", "/"], &[condition]);
        assert!(is_hit(&second), "{condition:?}");
        assert_eq!(second.status, 304, "{condition:?}");
    }
}

#[test]
fn a_condition_goes_on_where_nothing_would_be_stored() {
    let condition = ("if-none-match", "\"1\"");
    for (name, method, others) in [
        ("HEAD", "HEAD", &[][..]),
        ("a part", "GET", &[("range", "bytes=0-0")]),
        ("somebody's", "GET", &[("authorization", "Basic eA==")]),
        ("no-store", "GET", &[("cache-control", "no-store")]),
    ] {
        let mut edge = edge_with(r#"{"ask_for_all": true}"#);
        edge.answers(304, &[("etag", "\"1\"")], &[]);
        let seen = ask(&mut edge, &[method, "/"], &[&[condition], others].concat());
        let upstream = seen.upstream.as_ref().expect("asked the origin");
        assert!(upstream.fields.has("if-none-match"), "{name}");
        assert_eq!(seen.status, 304, "{name}");
    }
    // What turns out not to be stored, and so what comes after it: private, and larger than it said.
    let long = [b'x'; 2_000];
    for (name, fields, body) in [
        ("private", &[("cache-control", "private")][..], &long[..10]),
        ("too large", FRESH, &long),
    ] {
        let mut edge = edge(r#"{"max_object_bytes": 1024, "ask_for_all": true}"#).get("/");
        edge.answers(200, fields, &[body]);
        let first = ask(&mut edge, &["GET", "/"], &[condition]);
        assert_eq!((first.status, first.body().len()), (200, body.len()));
        edge.answers(304, &[("etag", "\"1\"")], &[]);
        let second = ask(&mut edge, &["GET", "/"], &[condition]);
        let upstream = second.upstream.as_ref().expect("asked the origin");
        assert!(upstream.fields.has("if-none-match"), "{name}");
        assert_eq!(second.status, 304, "{name}");
        // Until it is forgotten.
        edge.pass(Duration::from_secs(61));
        edge.answers(200, fields, &[body]);
        let third = ask(&mut edge, &["GET", "/"], &[condition]);
        let upstream = third.upstream.as_ref().expect("asked the origin");
        assert!(!upstream.fields.has("if-none-match"), "{name}");
    }
}

#[test]
fn validation_may_end_storing() {
    let mut edge = plain();
    edge.run();
    edge.pass(Duration::from_secs(61))
        .answers(304, &[("cache-control", "no-store")], &[]);
    let seen = edge.run();
    assert_eq!((seen.status, seen.body_text().as_str()), (200, "body"));
    assert!(seen.text("cache-status").ends_with("detail=no_store"));
    edge.answers(200, FRESH, &[b"anew"]);
    let next = edge.run();
    assert_eq!(next.body_text(), "anew");
    assert!(
        next.upstream
            .is_some_and(|head| !head.fields.has("if-none-match"))
    );
}

#[test]
fn no_cache_is_validated_each_time() {
    let mut edge = plain();
    edge.answers(
        200,
        &[("cache-control", "max-age=60, no-cache"), ("etag", "\"1\"")],
        &[b"body"],
    );
    edge.run();
    edge.answers(304, &[("etag", "\"1\"")], &[]);
    for _ in 0..2 {
        let seen = edge.run();
        assert!(
            seen.text("cache-status")
                .starts_with("edgeweir; fwd=stale; fwd-status=304")
        );
        assert_eq!(seen.body_text(), "body");
    }
}

#[test]
fn head_freshens_or_drops_a_stored_get() {
    for (name, fields, body) in [
        ("agrees", [FRESH[0], FRESH[1]], "body"),
        ("another validator", [FRESH[0], ("etag", "\"2\"")], "anew"),
        (
            "another length",
            [FRESH[0], ("content-length", "9")],
            "anew",
        ),
    ] {
        let mut edge = plain();
        edge.run();
        edge.pass(Duration::from_secs(61))
            .answers(200, &fields, &[]);
        ask(&mut edge, &["HEAD", "/"], &[]);
        edge.answers(200, FRESH, &[b"anew"]);
        let seen = ask(&mut edge, &["GET", "/"], &[]);
        assert_eq!(seen.body_text(), body, "{name}");
    }
}

#[test]
fn request_directives() {
    let mut edge = plain();
    let none = ask(
        &mut edge,
        &["GET", "/"],
        &[("cache-control", "only-if-cached")],
    );
    assert_eq!((none.status, none.upstream.is_none()), (504, true));
    ask(&mut edge, &["GET", "/"], &[]);
    edge.pass(Duration::from_secs(30));
    for (control, hit) in [
        ("max-age=30", true),
        ("max-age=29", false),
        ("min-fresh=30", true),
        ("min-fresh=61", false),
        ("no-cache", false),
        ("only-if-cached", true),
        ("no-store", true),
    ] {
        let seen = ask(&mut edge, &["GET", "/"], &[("cache-control", control)]);
        assert_eq!(is_hit(&seen), hit, "{control}");
        if !hit {
            assert!(seen.text("cache-status").contains("fwd=request"));
            edge.pass(Duration::from_secs(30));
        }
    }
    let mut deaf = edge_with(r#"{"request_directives": false}"#);
    deaf.run();
    assert!(is_hit(&ask(
        &mut deaf,
        &["GET", "/"],
        &[("cache-control", "no-cache")]
    )));
}

#[test]
fn what_one_client_wants_untransformed_is_for_nobody_else() {
    let plain = [("cache-control", "no-transform")];
    let mut edge = self::plain();
    let first = ask(&mut edge, &["GET", "/"], &plain);
    assert!(first.text("cache-status").ends_with("detail=no_transform"));
    assert_eq!(first.counted("cache.bypass.no_transform"), 1);
    assert!(!is_hit(&ask(&mut edge, &["GET", "/"], &[])), "not stored");
    assert!(!is_hit(&ask(&mut edge, &["GET", "/"], &plain)), "not used");
    assert!(
        is_hit(&ask(&mut edge, &["GET", "/"], &[])),
        "nor taken away"
    );
    let both = [("cache-control", "no-transform, only-if-cached")];
    let none = ask(&mut edge, &["GET", "/"], &both);
    assert_eq!((none.status, none.upstream.is_none()), (504, true));

    let mut deaf = edge_with(r#"{"request_directives": false}"#);
    let first = ask(&mut deaf, &["GET", "/"], &plain);
    let status = first.text("cache-status");
    assert!(status.ends_with("detail=request_no_transform"), "{status}");
    assert!(!is_hit(&ask(&mut deaf, &["GET", "/"], &[])), "not stored");
    assert!(is_hit(&ask(&mut deaf, &["GET", "/"], &plain)));
}

fn edge_with(json: &str) -> Script {
    edge(json).get("/").origin(200, FRESH, "body")
}

#[test]
fn cookies_stay_out_unless_allowed() {
    let fields = [FRESH[0], ("set-cookie", "a=1"), ("set-cookie", "b=2")];
    let mut edge = edge_with(r#"{"store_set_cookie": true}"#);
    edge.answers(200, &fields, &[b"body"]);
    edge.run();
    assert_eq!(edge.run().all("set-cookie"), ["a=1", "b=2"]);
}

#[test]
fn rules_bypass_and_assume() {
    let mut edge = edge_with(
        r#"{"rules": [{"path": "/live/*", "bypass": true}, {"ttl_by_status": {"404": 5, "200": 7}}]}"#,
    );
    for (path, status, fields, hit) in [
        ("/live/a", 200, FRESH, false),
        ("/li%76e/a", 200, FRESH, false),
        ("/a", 404, &[][..], true),
        ("/b", 200, &[][..], true),
        ("/c", 404, &[("cache-control", "max-age=0")][..], false),
        ("/d", 500, &[][..], false),
    ] {
        edge.answers(status, fields, &[b"body"]);
        ask(&mut edge, &["GET", path], &[]);
        assert_eq!(is_hit(&ask(&mut edge, &["GET", path], &[])), hit, "{path}");
    }
    edge.pass(Duration::from_secs(5));
    edge.answers(404, &[], &[b"body"]);
    assert!(
        !is_hit(&ask(&mut edge, &["GET", "/a"], &[])),
        "its time is over"
    );
}

#[test]
fn status_shows_name_key_and_upstream_caches() {
    let mut edge = edge_with(r#"{"name": "(weir)", "debug_key": true}"#);
    edge.answers(
        200,
        &[FRESH[0], ("cache-status", "origin; hit")],
        &[b"body"],
    );
    let line = ["GET", "/a%41?q=\"1\""];
    assert_eq!(
        ask(&mut edge, &line, &[]).text("cache-status"),
        "origin; hit, \"(weir)\"; fwd=uri-miss; fwd-status=200; ttl=60; stored; key=\"https://example.com/aA?q=\\\"1\\\"\""
    );
    assert_eq!(
        ask(&mut edge, &line, &[]).text("cache-status"),
        "origin; hit, \"(weir)\"; hit; ttl=60; key=\"https://example.com/aA?q=\\\"1\\\"\""
    );
}

#[test]
fn damaged_values_in_the_store_are_misses() {
    for damage in [&b""[..], b"\x01", b"\x02garbage that is no response at all"] {
        let (mut one, mut two) = workers("{}");
        one.run();
        let store = one.shared.clone();
        overwrite(&store, damage);
        assert!(!is_hit(&two.run()));
        assert!(is_hit(&two.run()), "stored anew");
    }
}

/// A filter that writes `damage` over every object and marker it can name.
fn overwrite(store: &SharedMemory, damage: &'static [u8]) {
    struct Vandal(&'static [u8]);
    impl Filter for Vandal {
        fn name(&self) -> &'static str {
            "vandal"
        }
        fn exchange(&self) -> Box<dyn Exchange> {
            Box::new(Vandal(self.0))
        }
    }
    impl Exchange for Vandal {
        fn request(&mut self, _: &mut RequestHead, cx: &mut Cx<'_>) -> Step {
            cx.detach(Effect::Store {
                key: [&b"cache/o/0/"[..], KEY].concat().into(),
                value: self.0.into(),
                ttl: Duration::from_secs(60),
            });
            Step::Forward(Body::Pass)
        }
    }
    let before = store.len();
    Script::new(Vandal(damage)).sharing(store).run();
    assert_eq!(store.len(), before, "it was an object that is there");
}

#[test]
fn an_invalidation_outlasts_what_was_stored() {
    let (mut one, mut two) = workers("{}");
    one.answers(200, &[("cache-control", "max-age=86400")], &[b"old"]);
    one.run();
    assert!(is_hit(&two.run()));
    ask(&mut two, &["POST", "/"], &[]);
    for worker in [&mut one, &mut two] {
        worker.pass(Duration::from_secs(3600));
        let seen = ask(
            worker,
            &["GET", "/"],
            &[("cache-control", "only-if-cached")],
        );
        assert_eq!(seen.status, 504);
    }
    assert!(is_there(&one.shared, &[&b"cache/m/"[..], KEY].concat()));
}

/// The key of `https://example.com/`.
const KEY: &[u8] = b"g\0\0\0\0s\0\0\0\x05httpsa\0\0\0\x0bexample.comp\0\0\0\x01/";

/// Whether the store has a value an hour after the scripts' start.
fn is_there(store: &SharedMemory, name: &[u8]) -> bool {
    struct Look(Vec<u8>);
    impl Filter for Look {
        fn name(&self) -> &'static str {
            "look"
        }
        fn exchange(&self) -> Box<dyn Exchange> {
            Box::new(Look(self.0.clone()))
        }
    }
    impl Exchange for Look {
        fn request(&mut self, _: &mut RequestHead, _: &mut Cx<'_>) -> Step {
            Step::Do(Effect::Load {
                key: self.0.clone().into(),
            })
        }
        fn request_answer(&mut self, answer: Answer, _: &mut RequestHead, _: &mut Cx<'_>) -> Step {
            let there = matches!(answer, Answer::Loaded(Ok(Some(_))));
            Step::Reply(Reply::new(if there { 200 } else { 404 }, &[], ""))
        }
    }
    let mut look = Script::new(Look(name.to_vec())).sharing(store);
    look.pass(Duration::from_secs(3600)).run().status == 200
}

#[test]
fn ranges_are_answered_from_the_whole() {
    let mut edge = plain();
    let fields = [FRESH[0], FRESH[1], ("content-type", "text/plain")];
    edge.answers(200, &fields, &[b"0123456789"]);
    let missed = ask(&mut edge, &["GET", "/"], &[("range", "bytes=0-1")]);
    assert!(missed.upstream.is_some_and(|head| head.fields.has("range")));
    for (name, asked, status, range, body) in [
        (
            "one",
            vec![("range", "bytes=2-4")],
            206,
            "bytes 2-4/10",
            "234",
        ),
        (
            "the end",
            vec![("range", "bytes=-2")],
            206,
            "bytes 8-9/10",
            "89",
        ),
        (
            "outside",
            vec![("range", "bytes=10-")],
            416,
            "bytes */10",
            "",
        ),
        (
            "another unit",
            vec![("range", "x=1")],
            200,
            "",
            "0123456789",
        ),
        (
            "if-range holds",
            vec![("range", "bytes=0-0"), ("if-range", "\"1\"")],
            206,
            "bytes 0-0/10",
            "0",
        ),
        (
            "if-range fails",
            vec![("range", "bytes=0-0"), ("if-range", "\"2\"")],
            200,
            "",
            "0123456789",
        ),
        (
            "known",
            vec![("range", "bytes=0-0"), ("if-none-match", "\"1\"")],
            304,
            "",
            "",
        ),
    ] {
        let seen = ask(&mut edge, &["GET", "/"], &asked);
        assert!(is_hit(&seen), "{name}");
        assert_eq!(
            (seen.status, seen.text("content-range").as_str()),
            (status, range),
            "{name}"
        );
        assert_eq!(seen.body_text(), body, "{name}");
        if status != 304 {
            assert_eq!(
                seen.text("content-length"),
                body.len().to_string(),
                "{name}"
            );
        }
    }
    let head = ask(&mut edge, &["HEAD", "/"], &[("range", "bytes=0-0")]);
    assert_eq!(
        (head.status, head.text("content-length").as_str()),
        (200, "10")
    );
    let several = ask(&mut edge, &["GET", "/"], &[("range", "bytes=0-1, 8-9")]);
    let kind = several.text("content-type");
    let boundary = kind
        .strip_prefix("multipart/byteranges; boundary=")
        .expect("a boundary");
    let part = |range: &str, bytes: &str| {
        format!(
            "--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes {range}/10\r\n\r\n{bytes}\r\n"
        )
    };
    let want = format!(
        "{}{}--{boundary}--\r\n",
        part("0-1", "01"),
        part("8-9", "89")
    );
    assert_eq!((several.status, several.body_text()), (206, want));
}

/// Copies a value of the store to another name.
fn copy(store: &SharedMemory, from: &[u8], to: &[u8]) {
    struct Copy(Vec<u8>, Vec<u8>);
    impl Filter for Copy {
        fn name(&self) -> &'static str {
            "copy"
        }
        fn exchange(&self) -> Box<dyn Exchange> {
            Box::new(Copy(self.0.clone(), self.1.clone()))
        }
    }
    impl Exchange for Copy {
        fn request(&mut self, _: &mut RequestHead, _: &mut Cx<'_>) -> Step {
            Step::Do(Effect::Load {
                key: self.0.clone().into(),
            })
        }
        fn request_answer(&mut self, answer: Answer, _: &mut RequestHead, cx: &mut Cx<'_>) -> Step {
            let Answer::Loaded(Ok(Some(value))) = answer else {
                panic!("nothing to copy");
            };
            cx.detach(Effect::Store {
                key: self.1.clone().into(),
                value,
                ttl: Duration::from_secs(60),
            });
            Step::Forward(Body::Pass)
        }
    }
    Script::new(Copy(from.to_vec(), to.to_vec()))
        .sharing(store)
        .run();
}

#[test]
fn a_variant_in_a_wrong_place_is_not_served() {
    let (mut one, mut two) = workers("{}");
    for language in ["en", "de"] {
        let fields = [FRESH[0], ("vary", "accept-language")];
        one.answers(200, &fields, &[language.as_bytes()]);
        ask(&mut one, &["GET", "/"], &[("accept-language", language)]);
    }
    let place = |at: &str| [b"cache/o/", at.as_bytes(), b"/", KEY].concat();
    copy(&one.shared, &place("0"), &place("1"));
    assert!(!is_hit(&ask(
        &mut two,
        &["GET", "/"],
        &[("accept-language", "de")]
    )));
    assert!(is_hit(&ask(
        &mut two,
        &["GET", "/"],
        &[("accept-language", "en")]
    )));
}

#[test]
fn what_arrives_late_from_before_an_invalidation_is_not_served() {
    let (mut one, mut two) = workers("{}");
    one.run();
    let object = [&b"cache/o/0/"[..], KEY].concat();
    copy(&one.shared, &object, b"aside");
    ask(&mut one, &["POST", "/"], &[]);
    one.answers(200, FRESH, &[b"new"]);
    ask(&mut one, &["GET", "/"], &[]);
    copy(&one.shared, b"aside", &object);
    let seen = two.run();
    assert!(!is_hit(&seen));
    assert!(seen.text("cache-status").contains("fwd=miss"));
}

#[test]
fn head_with_authorization_says_nothing_about_what_is_stored() {
    let mut edge = plain();
    edge.run();
    edge.answers(200, &[FRESH[0], ("etag", "\"mine\"")], &[]);
    ask(&mut edge, &["HEAD", "/"], &[("authorization", "x")]);
    assert!(is_hit(&ask(&mut edge, &["GET", "/"], &[])));
}

#[test]
fn all_that_is_captured_at_once_is_bounded() {
    let json = br#"{"capture_bytes": 1048576, "max_object_bytes": 1048576}"#;
    let cache: Cache = load(json).expect("a valid configuration");
    let mut record = Record::default();
    let start = |path: &str, record: &mut Record| {
        let mut exchange = cache.exchange();
        let mut request = RequestHead {
            method: "GET".into(),
            scheme: "https".into(),
            authority: "example.com".into(),
            path: path.to_owned().into(),
            end: true,
            ..RequestHead::default()
        };
        let mut cx = Cx::new(Timestamp::from_secs(1_767_225_600), record);
        let mut step = exchange.request(&mut request, &mut cx);
        while let Step::Do(_) = step {
            step = exchange.request_answer(Answer::Updated(Ok(None)), &mut request, &mut cx);
        }
        let mut head = ResponseHead {
            status: 200,
            fields: Fields::of(FRESH),
            end: false,
            ..ResponseHead::default()
        };
        let mut step = exchange.response(&mut head, &mut cx);
        while let Step::Do(_) = step {
            step = exchange.response_answer(Answer::Updated(Ok(None)), &mut head, &mut cx);
        }
        exchange
    };
    let half = vec![b'x'; 600_000];
    let feed = |exchange: &mut Box<dyn Exchange>, end, record: &mut Record| {
        let mut out = Vec::new();
        let mut cx = Cx::new(Timestamp::from_secs(1_767_225_600), record);
        exchange.response_body(&half, end, &mut out, &mut cx);
        assert_eq!(out.len(), half.len(), "it streams on in any case");
    };
    let count = |record: &Record, name| record.counts.iter().filter(|(n, _)| *n == name).count();
    let mut one = start("/1", &mut record);
    feed(&mut one, false, &mut record);
    let mut two = start("/2", &mut record);
    feed(&mut two, true, &mut record);
    assert_eq!(count(&record, "cache.refused.busy"), 1);
    // The client of the first leaves: there is room again.
    drop(one);
    let mut three = start("/3", &mut record);
    feed(&mut three, true, &mut record);
    assert_eq!(count(&record, "cache.refused.busy"), 1);
    assert_eq!(count(&record, "cache.stored"), 1);
}
