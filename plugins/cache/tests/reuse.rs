//! What a stored response is used for, and what it is not.

use std::time::Duration;

use edgeweir_cache::Cache;
use edgeweir_filter::{Script, Seen, load};

const FRESH: (&str, &str) = ("cache-control", "max-age=60");
const TAG: (&str, &str) = ("etag", "\"1\"");

fn edge(json: &str) -> Script {
    Script::new(load::<Cache>(json.as_bytes()).expect("a valid configuration")).get("/")
}

fn ask(edge: &mut Script, method: &str, fields: &[(&str, &str)]) -> Seen {
    edge.request(&[method, "/"], fields).run()
}

/// With `cde` of `abcdefgh` stored, as `control` says; from now on the origin has all of it.
fn with_a_part(control: &str) -> Script {
    let mut edge = edge("{}");
    let fields = [
        ("cache-control", control),
        TAG,
        ("content-range", "bytes 2-4/8"),
    ];
    edge.answers(206, &fields, &[b"cde"]);
    let seen = ask(&mut edge, "GET", &[("range", "bytes=2-4")]);
    assert!(seen.text("cache-status").ends_with("stored"));
    edge.answers(200, &[FRESH, TAG], &[b"abcdefgh"]);
    edge
}

#[test]
fn a_range_is_nothing_to_head() {
    let mut edge = with_a_part("max-age=60");
    let seen = ask(&mut edge, "HEAD", &[("range", "bytes=3-4")]);
    assert_eq!((seen.status, seen.field("content-range")), (200, None));
    assert!(seen.upstream.is_some(), "a part does not say it");
    let seen = ask(&mut edge, "GET", &[("range", "bytes=3-4")]);
    assert_eq!((seen.status, seen.body_text().as_str()), (206, "de"));
    assert!(seen.upstream.is_none(), "the part is still there");
    ask(&mut edge, "GET", &[]);
    let seen = ask(&mut edge, "HEAD", &[("range", "bytes=3-4")]);
    assert_eq!(seen.status, 200);
    assert!(seen.upstream.is_none(), "the whole says it");
}

/// RFC 9211 §2.2: `vary-miss` is for a cache that "contained a response that matched the request URI".
#[test]
fn what_head_made_unusable_is_no_variant() {
    for (vary, other, want) in [
        ("", "a", "fwd=uri-miss"),
        ("x-kind", "a", "fwd=uri-miss"),
        ("x-kind", "b", "fwd=vary-miss"),
    ] {
        let mut edge = edge("{}");
        edge.answers(200, &[FRESH, TAG, ("vary", vary)], &[b"hello"]);
        for kind in ["a", other] {
            ask(&mut edge, "GET", &[("x-kind", kind)]);
        }
        edge.answers(200, &[FRESH, ("etag", "\"2\""), ("vary", vary)], &[]);
        let insists = [("x-kind", "a"), ("cache-control", "no-cache")];
        ask(&mut edge, "HEAD", &insists);
        let seen = ask(&mut edge, "GET", &[("x-kind", "a")]);
        let said = seen.text("cache-status");
        assert!(said.contains(want), "{vary:?} {other}: {said}");
        let seen = ask(&mut edge, "GET", &[("x-kind", "a")]);
        assert!(seen.upstream.is_none(), "{vary:?} {other}");
    }
}

#[test]
fn another_part_is_not_given_because_it_is_still_right() {
    for (name, control, request) in [
        ("the client insists", "max-age=60", "no-cache"),
        ("the response does", "max-age=60, no-cache", ""),
    ] {
        let mut edge = with_a_part(control);
        let seen = ask(&mut edge, "GET", &[("cache-control", request)]);
        let upstream = seen.upstream.as_ref().expect("asked");
        assert!(!upstream.fields.has("if-none-match"), "{name}");
        assert_eq!((seen.status, seen.body_text().as_str()), (200, "abcdefgh"));
    }
}

#[test]
fn conditions_are_answered_from_a_part_too() {
    for (name, condition, want) in [
        ("the tag", ("if-none-match", "\"1\""), 304),
        ("another tag", ("if-none-match", "\"2\""), 206),
        (
            "the date",
            ("if-modified-since", "Thu, 01 Jan 2026 00:00:00 GMT"),
            304,
        ),
    ] {
        let mut edge = with_a_part("max-age=60");
        let seen = ask(&mut edge, "GET", &[condition, ("range", "bytes=3-4")]);
        assert_eq!(seen.status, want, "{name}");
        assert!(seen.upstream.is_none(), "{name}");
    }
}

#[test]
fn who_wants_what_is_stored_never_makes_a_request() {
    let stale_ok = ("cache-control", "max-age=10, stale-while-revalidate=20");
    let only = [("cache-control", "only-if-cached")];
    for (name, json, fetches) in [
        ("in the background", "{}", 1),
        ("without", r#"{"background": {"enabled": false}}"#, 0),
    ] {
        let mut edge = edge(json);
        edge.answers(200, &[stale_ok, TAG], &[b"old"]).run();
        edge.pass(Duration::from_secs(15));
        let seen = ask(&mut edge, "GET", &only);
        assert_eq!(
            (seen.status, seen.body_text().as_str()),
            (200, "old"),
            "{name}"
        );
        assert!(seen.upstream.is_none(), "{name}");
        assert_eq!(seen.fetches.len(), fetches, "{name}");
    }
    let mut edge = edge(r#"{"background": {"enabled": false}}"#);
    edge.answers(200, &[stale_ok, TAG], &[b"old"]).run();
    edge.pass(Duration::from_secs(15));
    ask(&mut edge, "GET", &only);
    edge.answers(200, &[FRESH], &[b"new"]);
    // It has not taken the place of one that validates.
    assert_eq!(ask(&mut edge, "GET", &[]).body_text(), "new");
    edge.pass(Duration::from_secs(99));
    let seen = ask(&mut edge, "GET", &only);
    assert_eq!(seen.status, 504);
    assert!(seen.upstream.is_none());
}

#[test]
fn an_error_needs_a_lifetime_of_its_own_unless_a_guess_is_asked_for() {
    let modified = ("last-modified", "Thu, 01 Jan 2015 00:00:00 GMT");
    for (json, status, want) in [
        ("{}", 404, None),
        ("{}", 501, None),
        (r#"{"heuristic_error_max_seconds": 30}"#, 404, Some("30")),
        (r#"{"heuristic_error_max_seconds": 30}"#, 503, None),
        (r#"{"preset": "maximum"}"#, 410, None),
        (
            r#"{"rules": [{"ttl_by_status": {"404": 7}}]}"#,
            404,
            Some("7"),
        ),
    ] {
        let mut edge = edge(json);
        edge.answers(status, &[modified], &[b"body"]);
        let first = ask(&mut edge, "GET", &[]).text("cache-status");
        match want {
            Some(ttl) => assert!(first.ends_with(&format!("ttl={ttl}; stored")), "{first}"),
            None => assert!(first.ends_with("detail=no_freshness"), "{json}: {first}"),
        }
        let second = ask(&mut edge, "GET", &[]);
        assert_eq!(second.upstream.is_none(), want.is_some(), "{json} {status}");
    }
}
