//! What the cache does besides answering: stale responses, requests of its own, parts.

use std::time::Duration;

use edgeweir_cache::Cache;
use edgeweir_filter::{FETCHED, Failed, Filter, Reply, Script, Seen, To, load};

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
        // Not with each request while it fails.
        for _ in 0..9 {
            let seen = get(&mut edge, &[]);
            assert_eq!((seen.body_text().as_str(), seen.fetches.len()), ("old", 0));
            assert!(seen.upstream.is_none(), "nor by a client");
        }
        passes(&mut edge, 2);
        let seen = get(&mut edge, &[]);
        assert_eq!((seen.body_text().as_str(), seen.fetches.len()), ("old", 1));
    }
}

#[test]
fn a_failed_refresh_is_tried_again_at_once_where_that_is_wanted() {
    let mut edge = edge(r#"{"background": {"retry_seconds": 0}}"#);
    edge.answers(200, &[STALE_OK], &[b"old"]).run();
    passes(&mut edge, 15);
    for _ in 0..3 {
        edge.fetch_answers(Err(Failed::TimedOut));
        assert_eq!(get(&mut edge, &[]).fetches.len(), 1);
    }
}

#[test]
fn where_clients_validate_a_failure_is_not_found_out_by_each_of_them() {
    let mut edge = edge(r#"{"background": {"enabled": false}}"#);
    edge.answers(200, &[STALE_OK], &[b"old"]).run();
    passes(&mut edge, 15).answers(500, &[], &[b"error"]);
    assert_eq!(get(&mut edge, &[]).status, 500, "it is the one that asks");
    for _ in 0..3 {
        let seen = get(&mut edge, &[]);
        assert_eq!(
            (seen.body_text().as_str(), seen.upstream.is_none()),
            ("old", true)
        );
    }
    passes(&mut edge, 2);
    assert_eq!(get(&mut edge, &[]).status, 500);
}

/// An answer to a request of the cache's own that the edge may have made up.
fn made_up(status: u16) -> Reply {
    let mut reply = Reply::new(status, FRESH, "upstream connect error");
    reply.head.unreached = true;
    reply
}

#[test]
fn an_error_takes_the_place_of_nothing_that_may_be_used() {
    const RULE: &str = r#"{"rules": [{"ttl_by_status": {"500": 600, "503": 600}}]}"#;
    let error = |status| Reply::new(status, &[], "error");
    for (name, answer, after, want) in [
        ("made up", made_up(503), 15, "old"),
        (
            "made up, and nothing may be used",
            made_up(504),
            35,
            "asked",
        ),
        ("within stale-while-revalidate", error(503), 15, "old"),
        ("another one", error(500), 15, "old"),
    ] {
        let mut edge = edge(RULE);
        edge.answers(200, &[STALE_OK], &[b"old"]).run();
        // A window that is over when the answer comes.
        passes(&mut edge, 15);
        edge.fetch_answers(Ok(answer)).hold_tasks();
        get(&mut edge, &[]);
        passes(&mut edge, after - 15);
        assert_eq!(
            edge.run_tasks().counted("cache.refresh_failed"),
            1,
            "{name}"
        );
        let seen = edge.answers(200, FRESH, &[b"asked"]).run();
        assert_eq!(seen.body_text(), want, "{name}: {}", said(&seen));
    }
}

#[test]
fn what_can_not_be_fetched_whole_is_left_to_clients() {
    let tagged = [STALE_OK, ("etag", "\"1\"")];
    for (bytes, fetches) in [(FETCHED, 1), (FETCHED + 1, 0)] {
        let mut edge = edge(
            r#"{"max_object_bytes": 16777216, "refresh_ahead_percent": 50, "refresh_ahead_hits": 1}"#,
        );
        let body = vec![b'x'; bytes];
        edge.answers(200, &tagged, &[&body]).run();
        for passed in [6, 9] {
            passes(&mut edge, passed).answers(304, &tagged, &[]);
            edge.hold_tasks();
            let seen = get(&mut edge, &[]);
            assert_eq!(seen.body_text().len(), bytes, "{}", said(&seen));
            assert_eq!(edge.run_tasks().fetches.len(), fetches, "{bytes} {passed}");
        }
    }
}

#[test]
fn what_can_not_be_fetched_whole_is_not_fetched_ahead() {
    const WARMED: &str =
        r#"{"max_object_bytes": 16777216, "warm": {"urls": ["https://example.com/"]}}"#;
    for (bytes, fetches) in [(FETCHED, 1), (FETCHED + 1, 0)] {
        let mut edge = edge(WARMED);
        let body = vec![b'x'; bytes];
        edge.answers(200, &[STALE_OK], &[&body]).run();
        passes(&mut edge, 15);
        let seen = edge.load().run_tasks();
        assert_eq!(seen.fetches.len(), fetches, "{bytes}");
    }
}

#[test]
fn what_grew_over_what_can_be_fetched_is_brought_by_a_client() {
    let mut edge = edge("{}");
    edge.answers(200, &[STALE_OK], &[b"old"]).run();
    passes(&mut edge, 15);
    edge.fetch_answers(Err(Failed::TooLarge));
    assert_eq!(get(&mut edge, &[]).body_text(), "old");
    let seen = edge.answers(200, FRESH, &[b"large"]).run();
    assert_eq!(
        (seen.body_text().as_str(), seen.fetches.len()),
        ("large", 0)
    );
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

/// As `edge`, where what the cache asks itself passes by the routes.
fn past_routes(json: &str) -> Script {
    let cache = load::<Cache>(json.as_bytes()).expect("a valid configuration");
    cache.routes_rewrite();
    Script::new(cache).get("/")
}

#[test]
fn past_routes_nothing_is_asked_for_that_they_may_rewrite() {
    const NAMED: &str = r#"{"background": {"cluster": "other"}}"#;
    for (name, json, rewritten, want) in [
        ("nobody says", "{}", None, None),
        ("rewritten", "{}", Some(true), None),
        ("as it came", "{}", Some(false), Some("origin")),
        (
            "a cluster that needs no rewriting",
            NAMED,
            Some(true),
            Some("other"),
        ),
    ] {
        let mut edge = past_routes(json);
        edge.answers(200, &[STALE_OK], &[b"old"]);
        if let Some(rewritten) = rewritten {
            edge.went("origin", rewritten);
        }
        edge.run();
        passes(&mut edge, 15).answers(200, FRESH, &[b"new"]);
        edge.fetch_with(|_| Ok(Reply::new(200, FRESH, "new")));
        let seen = get(&mut edge, &[]);
        let asked = seen.fetches.first().map(|fetch| match &fetch.to {
            To::Named(to) => to.clone(),
            To::Onward => "origin".to_owned(),
        });
        assert_eq!(asked.as_deref(), want, "{name}");
        let body = if want.is_some() { "old" } else { "new" };
        assert_eq!(seen.body_text(), body, "{name}");
    }
}

#[test]
fn one_path_or_variant_says_nothing_of_another() {
    const VARIES: (&str, &str) = ("vary", "x");
    let mut edge = past_routes("{}");
    edge.answers(200, &[STALE_OK, VARIES], &[b"old"]);
    let (a, b) = (&[("x", "a")][..], &[("x", "b")][..]);
    for (path, fields, rewritten) in [
        ("/one", a, false),
        ("/one", b, true),
        ("/one/more", a, true),
        ("/one?more", a, true),
    ] {
        edge.went("origin", rewritten);
        edge.request(&["GET", path], fields).run();
    }
    passes(&mut edge, 15);
    for (path, fields, fetches) in [
        ("/one", b, 0),
        ("/one/more", a, 0),
        ("/one?more", a, 0),
        ("/one", a, 1),
    ] {
        let seen = edge.request(&["GET", path], fields).run();
        assert_eq!(seen.fetches.len(), fetches, "{path} {fields:?}");
        assert_eq!(seen.upstream.is_none(), fetches == 1, "{path} {fields:?}");
    }
}

#[test]
fn a_head_request_may_go_another_way() {
    let mut edge = past_routes("{}");
    edge.answers(200, &[STALE_OK], &[b"old"]);
    edge.went("origin", true).run();
    edge.went("origin", false);
    edge.request(&["HEAD", "/"], &[("cache-control", "no-cache")])
        .run();
    passes(&mut edge, 15);
    assert!(get(&mut edge, &[]).fetches.is_empty());
}

#[test]
fn now_and_then_a_client_finds_out_whether_the_route_was_changed() {
    let mut edge = past_routes("{}");
    edge.answers(200, &[STALE_OK], &[b"x"]);
    edge.went("origin", false).run();
    edge.went("origin", true);
    let mut asked = Vec::new();
    for _ in 0..12 {
        passes(&mut edge, 15);
        asked.push(get(&mut edge, &[]).fetches.len());
    }
    assert_eq!(asked, [1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0]);
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
            "no-cache",
            control("max-age=99, no-cache, stale-if-error=20"),
            vec![],
            15,
            503,
            true,
            (504, ""),
        ),
        (
            "no-cache, the origin's own",
            control("max-age=99, no-cache, stale-if-error=20"),
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
fn refreshes_ahead_are_so_many_a_second() {
    let mut edge = edge(
        r#"{"refresh_ahead_percent": 20, "refresh_ahead_hits": 1, "refresh_ahead_per_second": 3}"#,
    );
    for at in 0..10 {
        edge.request(&["GET", &format!("/{at}")], &[]);
        edge.answers(200, FRESH, &[b"old"]).run();
    }
    passes(&mut edge, 50);
    let refreshed = |edge: &mut Script| {
        let mut fetches = 0;
        for at in 0..10 {
            edge.fetch_answers(Ok(Reply::new(200, FRESH, "new")));
            fetches += edge
                .request(&["GET", &format!("/{at}")], &[])
                .run()
                .fetches
                .len();
        }
        fetches
    };
    assert_eq!(refreshed(&mut edge), 3);
    assert_eq!(refreshed(&mut edge), 0, "within the same second");
    passes(&mut edge, 1);
    assert_eq!(refreshed(&mut edge), 3);
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
    assert_eq!((seen.fetches.len(), seen.counted("cache.warmed")), (2, 2));
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
fn what_did_not_come_was_not_warmed() {
    let json = r#"{"warm": {"urls": ["https://example.com/", "https://example.com/b"]}, "rules": [{"ttl_by_status": {"503": 600}}]}"#;
    let mut edge = edge(json);
    edge.fetch_answers(Ok(made_up(503)));
    edge.fetch_answers(Err(Failed::Unsupported));
    let seen = edge.load().run_tasks();
    assert_eq!((seen.fetches.len(), seen.counted("cache.warmed")), (2, 0));
    assert!(edge.answers(200, FRESH, &[b"x"]).run().upstream.is_some());
    let mut past = past_routes(json);
    let seen = past.load().run_tasks();
    assert_eq!((seen.fetches.len(), seen.counted("cache.warmed")), (0, 0));
}

const PREDICTS: &str = r#"{"predict": {"per_second": 10}}"#;

/// Clients who go from `/` to `/next`, and what the cache does when one more asks for `/`.
fn one_after_the_other(
    edge: &mut Script,
    mut asks: impl FnMut(&mut Script, &str, &[(&str, &str)], &str) -> Seen,
) -> Seen {
    edge.answers(200, &[("cache-control", "max-age=1")], &[b"x"]);
    for client in 0..5 {
        let client = format!("192.0.2.{client}");
        asks(edge, "/", &[("cookie", "a=b")], &client);
        asks(edge, "/next", &[], &client);
        passes(edge, 60);
    }
    edge.fetch_answers(Ok(Reply::new(200, FRESH, "ahead")));
    asks(edge, "/", &[("cookie", "a=b")], "192.0.2.9")
}

#[test]
fn what_comes_next_is_fetched_where_clients_get_it() {
    let named = r#"{"predict": {"per_second": 10}, "background": {"cluster": "named"}}"#;
    let to = |to: &str| Some(To::Named(to.to_owned()));
    // Of the two paths: their routes as the edge says them before, or where they went and whether they were rewritten.
    type Said = [(Option<&'static str>, Option<(&'static str, bool)>); 2];
    let silent: Said = [(None, None); 2];
    let route = |route| (Some(route), None);
    let went = |to, rewritten| (None, Some((to, rewritten)));
    for (name, json, routes, said, want) in [
        ("nobody says", PREDICTS, false, silent, None),
        ("a cluster for all", named, false, silent, to("named")),
        (
            "of one route",
            PREDICTS,
            false,
            [route("/..."), route("/...")],
            Some(To::Onward),
        ),
        (
            "of another route",
            PREDICTS,
            false,
            [route("/"), route("/next")],
            None,
        ),
        ("past routes, nobody says", PREDICTS, true, silent, None),
        (
            "past routes, one of which rewrites",
            PREDICTS,
            true,
            [went("a", false), went("a", true)],
            None,
        ),
        (
            "past routes, to another cluster",
            PREDICTS,
            true,
            [went("a", true), went("b", false)],
            to("b"),
        ),
    ] {
        let mut edge = match routes {
            true => past_routes(json),
            false => edge(json),
        };
        let seen = one_after_the_other(&mut edge, |edge, path, fields, client| {
            let (route, went) = said[usize::from(path == "/next")];
            edge.request(&["GET", path], fields).peer(client);
            if let Some(route) = route {
                edge.route(route);
            }
            if let Some((to, rewritten)) = went {
                edge.went(to, rewritten);
            }
            edge.run()
        });
        let asked: Vec<_> = seen.fetches.iter().map(|fetch| fetch.to.clone()).collect();
        assert_eq!(asked, Vec::from_iter(want.clone()), "{name}");
        let counted = seen.counted("cache.prefetched");
        assert_eq!(counted, u64::from(want.is_some()), "{name}");
    }
}

#[test]
fn what_usually_comes_next_is_fetched_ahead() {
    let mut edge = edge(PREDICTS);
    let seen = one_after_the_other(&mut edge, |edge, path, fields, client| {
        edge.request(&["GET", path], fields).peer(client);
        edge.route("/...").run()
    });
    let [fetch] = &seen.fetches[..] else {
        panic!("one prefetch: {:?}", seen.fetches);
    };
    assert_eq!(fetch.head.path, "/next");
    assert!(!fetch.head.fields.has("cookie"));
    edge.request(&["GET", "/next"], &[])
        .peer("192.0.2.9")
        .route("/...");
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
