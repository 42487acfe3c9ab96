//! What takes the place of a stored response, and what leaves it as it is.

use std::time::Duration;

use edgeweir_cache::Cache;
use edgeweir_filter::{Reply, Script, Seen, load};

const TAGGED: &[(&str, &str)] = &[("cache-control", "max-age=60"), ("etag", "\"1\"")];

fn edge(json: &str) -> Script {
    Script::new(load::<Cache>(json.as_bytes()).expect("a valid configuration")).get("/")
}

fn ask(edge: &mut Script, method: &str, fields: &[(&str, &str)]) -> Seen {
    edge.request(&[method, "/"], fields).run()
}

#[test]
fn a_client_that_wants_nothing_stored_takes_nothing_away() {
    let insists = [("cache-control", "no-store, no-cache")];
    for (name, method, status, left) in [
        ("a 304", "GET", 304, true),
        ("an answer to HEAD that agrees", "HEAD", 200, true),
    ] {
        let mut edge = edge("{}");
        edge.answers(200, TAGGED, &[b"body"]).run();
        edge.answers(status, &[TAGGED[0], TAGGED[1], ("x", "new")], &[]);
        let seen = ask(&mut edge, method, &insists);
        assert!(seen.upstream.is_some(), "{name}");
        let seen = ask(&mut edge, "GET", &[]);
        assert_eq!(seen.upstream.is_none(), left, "{name}");
        assert_eq!(seen.body_text(), "body", "{name}");
        assert_eq!(seen.text("x"), "", "{name}: nothing of it was stored");
    }
    let mut edge = edge("{}");
    edge.answers(200, TAGGED, &[b"body"]).run();
    // What the origin says of the stored response counts whoever asked.
    edge.answers(200, &[("etag", "\"2\"")], &[]);
    ask(&mut edge, "HEAD", &insists);
    edge.answers(200, TAGGED, &[b"new"]);
    assert_eq!(ask(&mut edge, "GET", &[]).body_text(), "new");
}

#[test]
fn an_error_in_the_background_does_not_replace_what_serves_errors() {
    const RULES: &str = r#"{"rules": [{"ttl_by_status": {"503": 5, "404": 5}}]}"#;
    let stale_if_error = "max-age=10, stale-while-revalidate=20, stale-if-error=60";
    // Asked for after 15 seconds, answered `late` seconds after that.
    for (name, control, status, fields, late, replaced) in [
        ("negative caching", stale_if_error, 503, &[][..], 0, false),
        (
            "a lifetime of its own",
            stale_if_error,
            500,
            &[("cache-control", "max-age=5")][..],
            0,
            false,
        ),
        ("not such an error", stale_if_error, 404, &[][..], 0, true),
        (
            "it may still be used while it is validated",
            "max-age=10, stale-while-revalidate=20",
            503,
            &[][..],
            0,
            false,
        ),
        (
            "nothing to use in place of errors",
            "max-age=10, stale-while-revalidate=20",
            503,
            &[][..],
            16,
            true,
        ),
    ] {
        let mut edge = edge(RULES);
        edge.answers(200, &[("cache-control", control)], &[b"old"])
            .run();
        edge.pass(Duration::from_secs(15));
        edge.fetch_answers(Ok(Reply::new(status, fields, "failed")));
        edge.hold_tasks();
        assert_eq!(ask(&mut edge, "GET", &[]).body_text(), "old", "{name}");
        edge.pass(Duration::from_secs(late));
        let seen = edge.run_tasks();
        assert_eq!(seen.fetches.len(), 1, "{name}");
        let failed = seen.counted("cache.refresh_failed");
        assert_eq!(failed, u64::from(!replaced), "{name}");
        edge.answers(503, &[], &[b"down"]);
        let seen = ask(&mut edge, "GET", &[]);
        let want = if replaced { "failed" } else { "old" };
        assert_eq!(seen.body_text(), want, "{name}");
    }
}

#[test]
fn an_error_does_not_replace_what_is_fresh() {
    let json = r#"{"refresh_ahead_percent": 50, "refresh_ahead_hits": 1,
        "rules": [{"ttl_by_status": {"503": 5}}]}"#;
    let mut edge = edge(json);
    edge.answers(200, &[("cache-control", "max-age=60")], &[b"old"])
        .run();
    edge.pass(Duration::from_secs(50));
    edge.fetch_answers(Ok(Reply::new(503, &[], "failed")));
    let seen = ask(&mut edge, "GET", &[]);
    assert_eq!((seen.body_text().as_str(), seen.fetches.len()), ("old", 1));
    let seen = ask(&mut edge, "GET", &[]);
    assert_eq!(seen.body_text(), "old");
}
