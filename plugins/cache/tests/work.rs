//! What the cache does besides answering: stale responses, requests of its own, parts.

use std::time::Duration;

use edgeweir_cache::Cache;
use edgeweir_filter::{Failed, Filter, Reply, Script, Seen, load};

const FRESH: &[(&str, &str)] = &[("cache-control", "max-age=60")];
const STALE_OK: (&str, &str) = ("cache-control", "max-age=10, stale-while-revalidate=20");

fn edge(json: &str) -> Script {
    Script::new(load::<Cache>(json.as_bytes()).expect("a valid configuration")).get("/")
}

fn passes(edge: &mut Script, seconds: u64) -> &mut Script {
    edge.pass(Duration::from_secs(seconds))
}

fn get(edge: &mut Script, fields: &[(&str, &str)]) -> Seen {
    edge.request(&["GET", "/"], fields).run()
}

fn said(seen: &Seen) -> String {
    seen.text("cache-status")
}

#[test]
fn a_stale_response_is_used_while_it_is_refreshed() {
    let mut edge = edge("{}");
    edge.answers(200, &[STALE_OK, ("etag", "\"1\"")], &[b"old"])
        .run();
    passes(&mut edge, 15);
    edge.fetch_answers(Ok(Reply::new(200, &[STALE_OK], "new")));
    let seen = get(&mut edge, &[("range", "bytes=0-0"), ("cookie", "a=b")]);
    assert_eq!(said(&seen), "edgeweir; hit; ttl=-5");
    assert_eq!((seen.status, seen.body_text().as_str()), (206, "o"));
    let [fetch] = &seen.fetches[..] else {
        panic!("one request: {:?}", seen.fetches);
    };
    assert_eq!(fetch.head.fields.text("if-none-match"), Some("\"1\""));
    assert_eq!(fetch.head.fields.text("cookie"), Some("a=b"));
    assert!(!fetch.head.fields.has("range"));
    let seen = get(&mut edge, &[]);
    assert_eq!(
        (said(&seen).as_str(), seen.body_text().as_str()),
        ("edgeweir; hit; ttl=10", "new")
    );
    assert!(seen.fetches.is_empty());
}

#[test]
fn an_emergency_uses_what_is_stale_as_long_as_the_operator_says() {
    const CONFIG: &str = r#"{"emergency_stale_seconds": [0, 30, 600]}"#;
    for (name, control, level, after, used) in [
        ("no emergency", "max-age=10", 0, 15, false),
        ("a level without", "max-age=10", 1, 15, false),
        ("within its seconds", "max-age=10", 2, 40, true),
        ("past them", "max-age=10", 2, 41, false),
        ("the worst level", "max-age=10", 3, 600, true),
        ("forbidden", "max-age=10, must-revalidate", 3, 15, false),
        (
            "the response allows more",
            "max-age=10, stale-while-revalidate=50",
            2,
            55,
            true,
        ),
    ] {
        let mut edge = edge(CONFIG);
        let fields = [("cache-control", control), ("etag", "\"1\"")];
        edge.answers(200, &fields, &[b"old"]).run();
        passes(&mut edge, after);
        edge.answers(200, FRESH, &[b"new"]);
        let seen = edge.request(&["GET", "/"], &[]).emergency(level).run();
        let want = if used { "old" } else { "new" };
        assert_eq!(seen.body_text(), want, "{name}: {}", said(&seen));
        // What was used is refreshed behind the client.
        assert_eq!(seen.fetches.len(), usize::from(used), "{name}");
        assert_eq!(get(&mut edge, &[]).body_text(), "new", "{name}");
    }
}

#[test]
fn a_refresh_that_says_not_modified_freshens() {
    let mut edge = edge("{}");
    edge.answers(200, &[STALE_OK, ("etag", "\"1\"")], &[b"old"])
        .run();
    passes(&mut edge, 15);
    edge.fetch_answers(Ok(Reply::new(
        304,
        &[STALE_OK, ("etag", "\"1\""), ("x", "new")],
        "",
    )));
    get(&mut edge, &[]);
    let seen = get(&mut edge, &[]);
    assert_eq!(
        (said(&seen).as_str(), seen.body_text().as_str()),
        ("edgeweir; hit; ttl=10", "old")
    );
    assert_eq!(seen.text("x"), "new");
}

#[test]
fn a_cookie_in_a_304_is_for_the_one_who_asked() {
    let mut edge = edge("{}");
    let response = [("cache-control", "max-age=10"), ("etag", "\"1\"")];
    edge.answers(200, &response, &[b"body"]).run();
    passes(&mut edge, 15).answers(304, &[response[0], response[1], ("set-cookie", "a=b")], &[]);
    let seen = get(&mut edge, &[]);
    assert_eq!(
        (seen.status, seen.text("set-cookie").as_str()),
        (200, "a=b")
    );
    let hit = get(&mut edge, &[]);
    assert_eq!(
        (said(&hit).as_str(), hit.field("set-cookie")),
        ("edgeweir; hit; ttl=10", None)
    );
}

#[test]
fn a_failed_refresh_leaves_what_is_stored_and_is_tried_again() {
    for answer in [
        Err(Failed::TimedOut),
        Ok(Reply::new(503, &[], "")),
        Ok(Reply::new(500, &[("cache-control", "max-age=0")], "x")),
    ] {
        let mut edge = edge("{}");
        edge.answers(200, &[STALE_OK], &[b"old"]).run();
        passes(&mut edge, 15);
        edge.fetch_answers(answer);
        assert_eq!(get(&mut edge, &[]).fetches.len(), 1);
        let seen = get(&mut edge, &[]);
        assert_eq!((seen.body_text().as_str(), seen.fetches.len()), ("old", 1));
    }
}

#[test]
fn a_refresh_that_may_not_be_stored_takes_the_old_one_away() {
    let mut edge = edge("{}");
    edge.answers(200, &[STALE_OK], &[b"old"]).run();
    passes(&mut edge, 15);
    edge.fetch_answers(Ok(Reply::new(200, &[("cache-control", "no-store")], "new")));
    get(&mut edge, &[]);
    let seen = edge.answers(200, FRESH, &[b"newest"]).run();
    assert_eq!(seen.body_text(), "newest");
    assert!(seen.upstream.is_some());
}

#[test]
fn only_one_refresh_at_a_time() {
    let mut edge = edge("{}");
    edge.answers(200, &[STALE_OK], &[b"old"]).run();
    passes(&mut edge, 15).hold_tasks();
    for _ in 0..5 {
        assert_eq!(get(&mut edge, &[]).body_text(), "old");
    }
    edge.fetch_answers(Ok(Reply::new(200, &[STALE_OK], "new")));
    assert_eq!(edge.run_tasks().fetches.len(), 1);
    assert_eq!(get(&mut edge, &[]).body_text(), "new");
}

#[test]
fn stale_while_revalidate_has_its_limits() {
    let control = |value: &'static str| ("cache-control", value);
    for (name, response, request, after) in [
        ("past the window", STALE_OK, vec![], 31),
        (
            "must-revalidate",
            control("max-age=10, stale-while-revalidate=20, must-revalidate"),
            vec![],
            15,
        ),
        (
            "proxy-revalidate",
            control("max-age=10, stale-while-revalidate=20, proxy-revalidate"),
            vec![],
            15,
        ),
        (
            "s-maxage",
            control("s-maxage=10, stale-while-revalidate=20"),
            vec![],
            15,
        ),
        (
            "no-cache",
            control("max-age=10, stale-while-revalidate=20, no-cache"),
            vec![],
            1,
        ),
        (
            "a client that says how old",
            STALE_OK,
            vec![control("max-age=12")],
            11,
        ),
        (
            "a client that wants to validate",
            STALE_OK,
            vec![control("no-cache")],
            11,
        ),
        (
            "a client that wants it fresh",
            STALE_OK,
            vec![control("min-fresh=1")],
            11,
        ),
        (
            "a window that can't be read",
            control("max-age=10, stale-while-revalidate=x"),
            vec![],
            11,
        ),
    ] {
        let mut edge = edge("{}");
        edge.answers(200, &[response, ("etag", "\"1\"")], &[b"old"])
            .run();
        passes(&mut edge, after).answers(200, FRESH, &[b"new"]);
        let seen = get(&mut edge, &request);
        assert_eq!(seen.body_text(), "new", "{name}");
        assert!(seen.fetches.is_empty(), "{name}");
    }
}

#[test]
fn behind_a_rewriting_route_one_client_validates_itself() {
    let mut edge = edge("{}");
    edge.answers(200, &[STALE_OK], &[b"old"]).rerouted().run();
    passes(&mut edge, 15).answers(200, FRESH, &[b"new"]);
    let seen = get(&mut edge, &[]);
    assert_eq!((seen.body_text().as_str(), seen.fetches.len()), ("new", 0));
    let mut named = self::edge(r#"{"background": {"cluster": "origin"}}"#);
    named.answers(200, &[STALE_OK], &[b"old"]).rerouted().run();
    passes(&mut named, 15);
    let seen = get(&mut named, &[]);
    assert_eq!((seen.body_text().as_str(), seen.fetches.len()), ("old", 1));
}

#[test]
fn where_a_target_is_the_host_nothing_is_asked_for_another() {
    const TO: &str = r#"{"background": {"cluster": "example.com:443"}}"#;
    for (name, json, told, asked) in [
        ("the next handler", "{}", true, 1),
        ("the host itself", TO, true, 1),
        (
            "a cluster",
            r#"{"background": {"cluster": "origin"}}"#,
            false,
            1,
        ),
        (
            "another",
            r#"{"background": {"cluster": "origin"}}"#,
            true,
            0,
        ),
    ] {
        let cache = load::<Cache>(json.as_bytes()).expect("a valid configuration");
        if told {
            cache.targets_are_hosts().expect("nothing to warm");
        }
        let mut edge = Script::new(cache).get("/");
        edge.answers(200, &[STALE_OK], &[b"old"]).run();
        passes(&mut edge, 15).answers(200, FRESH, &[b"new"]);
        let seen = get(&mut edge, &[]);
        assert_eq!(seen.fetches.len(), asked, "{name}");
        // Nobody else can: this client brings the new one.
        assert_eq!(seen.upstream.is_none(), asked == 1, "{name}");
        let counted = seen.counted("cache.background_other_host");
        assert_eq!(counted, u64::from(asked == 0), "{name}");
    }
}

#[test]
fn what_can_not_be_asked_for_is_not_warmed() {
    let told = |to: &str| {
        let json = format!(
            r#"{{"background": {{{to}}}, "warm": {{"urls": ["https://a.example/", "http://B.example/x"]}}}}"#
        );
        let cache = load::<Cache>(json.as_bytes()).expect("a valid configuration");
        cache.targets_are_hosts().map_err(|error| error.to_string())
    };
    assert_eq!(told(""), Ok(()));
    let error = told(r#""cluster": "A.example""#).expect_err("another host");
    for part in ["warm.urls[1]", "B.example", "A.example", "Host"] {
        assert!(error.contains(part), "{error} lacks {part}");
    }
}

#[test]
fn stale_in_place_of_errors() {
    let control = |value: &'static str| ("cache-control", value);
    // Lifetime 10; asked again `after` seconds, when the origin answers `status` or can't be reached.
    for (name, response, request, after, status, unreached, want) in [
        (
            "said for errors",
            control("max-age=10, stale-if-error=20"),
            vec![],
            15,
            500,
            false,
            (200, "old"),
        ),
        (
            "503 too",
            control("max-age=10, stale-if-error=20"),
            vec![],
            15,
            503,
            false,
            (200, "old"),
        ),
        (
            "404 is no such error",
            control("max-age=10, stale-if-error=20"),
            vec![],
            15,
            404,
            false,
            (404, ""),
        ),
        (
            "past the window",
            control("max-age=10, stale-if-error=20"),
            vec![],
            31,
            500,
            false,
            (500, ""),
        ),
        (
            "past the window, unreached",
            control("max-age=10, stale-if-error=20"),
            vec![],
            31,
            503,
            true,
            (503, ""),
        ),
        (
            "the client says so",
            control("max-age=10"),
            vec![control("stale-if-error=20")],
            15,
            500,
            false,
            (200, "old"),
        ),
        (
            "nothing said, the origin's own",
            control("max-age=10"),
            vec![],
            15,
            503,
            false,
            (503, ""),
        ),
        (
            "nothing said, unreached",
            control("max-age=10"),
            vec![],
            15,
            503,
            true,
            (200, "old"),
        ),
        (
            "unreached for too long",
            control("max-age=10"),
            vec![],
            86_411,
            503,
            true,
            (503, ""),
        ),
        (
            "must-revalidate",
            control("max-age=10, stale-if-error=20, must-revalidate"),
            vec![],
            15,
            503,
            true,
            (504, ""),
        ),
        (
            "proxy-revalidate",
            control("max-age=10, proxy-revalidate"),
            vec![],
            15,
            503,
            true,
            (504, ""),
        ),
        (
            "s-maxage",
            control("s-maxage=10"),
            vec![],
            15,
            503,
            true,
            (504, ""),
        ),
        (
            "must-revalidate, the origin's own",
            control("max-age=10, must-revalidate"),
            vec![],
            15,
            503,
            false,
            (503, ""),
        ),
        (
            "still fresh, but the client wants it validated",
            control("max-age=99"),
            vec![control("no-cache")],
            15,
            503,
            true,
            (503, ""),
        ),
    ] {
        let mut edge = edge("{}");
        edge.answers(200, &[response, ("etag", "\"1\"")], &[b"old"])
            .run();
        passes(&mut edge, after).answers(status, &[], &[]);
        if unreached {
            edge.unreached();
        }
        let seen = get(&mut edge, &request);
        assert_eq!(
            (seen.status, seen.body_text().as_str()),
            want,
            "{name}: {}",
            said(&seen)
        );
    }
}

#[test]
fn what_the_edge_made_up_is_never_stored() {
    let mut edge = edge("{}");
    edge.answers(504, FRESH, &[b"x"]).unreached();
    assert!(said(&edge.run()).ends_with("detail=unreached"));
    assert!(edge.answers(200, FRESH, &[b"y"]).run().upstream.is_some());
}

#[test]
fn hot_responses_are_refreshed_ahead() {
    let mut edge = edge(r#"{"refresh_ahead_percent": 20, "refresh_ahead_hits": 3}"#);
    edge.answers(200, FRESH, &[b"old"]).run();
    passes(&mut edge, 50);
    for _ in 0..2 {
        assert!(get(&mut edge, &[]).fetches.is_empty(), "not hot yet");
    }
    edge.fetch_answers(Ok(Reply::new(200, FRESH, "new")));
    let seen = get(&mut edge, &[]);
    assert_eq!((seen.fetches.len(), seen.body_text().as_str()), (1, "old"));
    let seen = get(&mut edge, &[]);
    assert_eq!((seen.fetches.len(), seen.body_text().as_str()), (0, "new"));
}

#[test]
fn parts_are_stored_used_and_put_together() {
    let mut edge = edge("{}");
    let part = |range: &'static str| [FRESH[0], ("etag", "\"1\""), ("content-range", range)];
    edge.answers(206, &part("bytes 2-4/8"), &[b"cde"]);
    let first = get(&mut edge, &[("range", "bytes=2-4")]);
    assert!(said(&first).ends_with("stored"), "{}", said(&first));
    let hit = get(&mut edge, &[("range", "bytes=3-4")]);
    assert_eq!((hit.status, hit.body_text().as_str()), (206, "de"));
    assert_eq!(hit.text("content-range"), "bytes 3-4/8");
    assert!(hit.upstream.is_none());
    // Not all of it, and not another part; asked for as the client does.
    edge.answers(206, &part("bytes 4-7/8"), &[b"efgh"]);
    let other = get(&mut edge, &[("range", "bytes=4-7")]);
    assert!(
        said(&other).starts_with("edgeweir; fwd=partial; fwd-status=206"),
        "{}",
        said(&other)
    );
    let upstream = other.upstream.expect("asked");
    assert_eq!(upstream.fields.text("range"), Some("bytes=4-7"));
    assert!(!upstream.fields.has("if-none-match"));
    let joined = get(&mut edge, &[("range", "bytes=3-6")]);
    assert_eq!(
        (
            joined.body_text().as_str(),
            joined.text("content-range").as_str()
        ),
        ("defg", "bytes 3-6/8")
    );
    edge.answers(206, &part("bytes 0-1/8"), &[b"ab"]);
    get(&mut edge, &[("range", "bytes=0-1")]);
    let whole = get(&mut edge, &[]);
    assert_eq!(
        (whole.status, whole.body_text().as_str()),
        (200, "abcdefgh")
    );
    assert!(whole.upstream.is_none() && whole.field("content-range").is_none());
}

#[test]
fn a_part_never_takes_the_place_of_the_whole() {
    let mut edge = edge("{}");
    let tag = ("etag", "\"1\"");
    edge.answers(200, &[FRESH[0], tag], &[b"abcdefgh"]).run();
    edge.answers(
        206,
        &[FRESH[0], tag, ("content-range", "bytes 0-1/8")],
        &[b"ab"],
    );
    let seen = get(
        &mut edge,
        &[("range", "bytes=0-1"), ("cache-control", "no-cache")],
    );
    assert!(said(&seen).ends_with("detail=partial"), "{}", said(&seen));
    assert_eq!(get(&mut edge, &[]).body_text(), "abcdefgh");
}

#[test]
fn targeted_directives_come_first() {
    for (name, fields, config, want) in [
        (
            "longer",
            vec![
                ("cdn-cache-control", "max-age=60"),
                ("cache-control", "no-store"),
            ],
            "{}",
            true,
        ),
        (
            "shorter",
            vec![("cdn-cache-control", "no-store"), FRESH[0]],
            "{}",
            false,
        ),
        (
            "not its target",
            vec![("other-cache-control", "no-store"), FRESH[0]],
            "{}",
            true,
        ),
        (
            "its own target",
            vec![("other-cache-control", "no-store"), FRESH[0]],
            r#"{"targets": ["Other-Cache-Control"]}"#,
            false,
        ),
        (
            "broken",
            vec![("cdn-cache-control", "no-store, &"), FRESH[0]],
            "{}",
            true,
        ),
        (
            "expires does not count",
            vec![("cdn-cache-control", "max-age=60"), ("expires", "0")],
            "{}",
            true,
        ),
        (
            "nor when the target gives no lifetime",
            vec![
                ("cdn-cache-control", "public"),
                ("expires", "Fri, 01 Jan 2038 00:00:00 GMT"),
            ],
            "{}",
            false,
        ),
    ] {
        let mut edge = edge(config);
        edge.answers(200, &fields, &[b"x"]).run();
        assert_eq!(edge.run().upstream.is_none(), want, "{name}");
    }
}

#[test]
fn warming_fetches_a_list_once() {
    let json = r#"{"warm": {"urls": ["https://example.com/", "https://example.com/b"]}}"#;
    let mut edge = edge(json);
    for body in ["a", "b"] {
        edge.fetch_answers(Ok(Reply::new(200, FRESH, body)));
    }
    let seen = edge.load().run_tasks();
    assert_eq!(seen.fetches.len(), 2);
    let hit = get(&mut edge, &[]);
    assert_eq!(
        (hit.body_text().as_str(), hit.upstream.is_none()),
        ("a", true)
    );
    // Another worker finds it begun.
    let mut other = self::edge(json).sharing(&edge.shared);
    assert!(other.load().run_tasks().fetches.is_empty());
}

#[test]
fn what_usually_comes_next_is_fetched_ahead() {
    let mut edge = edge(r#"{"predict": {"per_second": 10}}"#);
    edge.answers(200, &[("cache-control", "max-age=1")], &[b"x"]);
    for client in 0..5 {
        edge.request(&["GET", "/"], &[("cookie", "a=b")])
            .peer(&format!("192.0.2.{client}"));
        edge.run();
        edge.request(&["GET", "/next"], &[])
            .peer(&format!("192.0.2.{client}"));
        edge.run();
        passes(&mut edge, 60);
    }
    edge.fetch_answers(Ok(Reply::new(200, FRESH, "ahead")));
    edge.request(&["GET", "/"], &[("cookie", "a=b")])
        .peer("192.0.2.9");
    let seen = edge.run();
    let [fetch] = &seen.fetches[..] else {
        panic!("one prefetch: {:?}", seen.fetches);
    };
    assert_eq!(fetch.head.path, "/next");
    assert!(!fetch.head.fields.has("cookie"));
    edge.request(&["GET", "/next"], &[]).peer("192.0.2.9");
    let hit = edge.run();
    assert_eq!(
        (hit.body_text().as_str(), hit.counted("cache.prefetch_used")),
        ("ahead", 1)
    );
}

#[test]
fn presets_set_the_defaults() {
    let mut off = edge(r#"{"preset": "disabled"}"#);
    off.answers(200, FRESH, &[b"x"]).run();
    assert!(said(&off.run()).ends_with("detail=disabled"));
    for preset in ["minimal", "standard", "aggressive", "maximum"] {
        let mut on = edge(&format!(r#"{{"preset": "{preset}"}}"#));
        on.answers(200, FRESH, &[b"x"]).run();
        let ttl = said(&on.run());
        let ttl = ttl.strip_prefix("edgeweir; hit; ttl=").expect("a hit");
        // The larger ones cut lifetimes at random, by a tenth at most.
        assert!(
            (54..=60).contains(&ttl.parse::<u8>().expect("seconds")),
            "{preset}: {ttl}"
        );
    }
    let wants = |json: &str| {
        load::<Cache>(json.as_bytes())
            .expect("valid")
            .wants()
            .shared_bytes
    };
    assert_eq!(wants(r#"{"preset": "minimal"}"#), 8 << 20);
    assert_eq!(
        wants(r#"{"preset": "minimal", "l2_bytes": 2097152}"#),
        2 << 20
    );
}
