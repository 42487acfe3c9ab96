//! What takes the place of a stored response, and what leaves it as it is.

use edgeweir_cache::Cache;
use edgeweir_filter::{Script, Seen, load};

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
