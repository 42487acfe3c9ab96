//! The cache's third tier: a store that outlives the edge, and all that can be wrong with it.

use std::time::{Duration, Instant};

use edgeweir_scenarios::store::{Mode, Store};
use edgeweir_scenarios::{Edge, Origin, Request, Setup, cache, get, on_each_host, request};
use serde_json::{Value, json};

const TOKEN: &str = "a-token-of-enough-characters";

/// A cache with a store of its own; `l3` is merged into the store's settings, `more` into the cache's.
fn with_store(l3: Value, more: Value) -> (Store, Setup) {
    let store = Store::start().expect("a store");
    let mut settings = json!({
        "admin": { "token": TOKEN },
        // Long: a machine that also compiles is slow.
        "l3": { "to": store.address.to_string(), "timeout_ms": 3000 }
    });
    merge(&mut settings["l3"], l3);
    merge(&mut settings, more);
    let setup = Setup::of([cache(settings)]).store(&store);
    (store, setup)
}

fn merge(into: &mut Value, from: Value) {
    if let (Some(into), Value::Object(from)) = (into.as_object_mut(), from) {
        into.extend(from);
    }
}

fn fresh(body: &str) -> Origin {
    Origin::text(body)
        .field("cache-control", "max-age=600")
        .field("surrogate-key", "news")
}

/// Sent, and in the store then.
fn store_one(edge: &mut Edge, store: &Store, path: &str) {
    edge.send(&get(path), &fresh("kept"));
    assert!(store.waits(|store| store.has(path)), "not written");
}

fn purge(path: &str) -> Request {
    request("PURGE", path).field("authorization", format!("Bearer {TOKEN}"))
}

/// The restarted edge knows nothing: what it answers without the origin is from the store.
fn is_kept(edge: &mut Edge, path: &str) {
    let seen = edge.send(&get(path), &Origin::status(500));
    let said = seen.text("cache-status");
    assert_eq!(
        (seen.status, seen.body_text().as_str()),
        (200, "kept"),
        "{said}"
    );
    assert!(
        said.contains("; hit") && seen.answered_at_the_edge(),
        "{said}"
    );
}

fn is_gone(edge: &mut Edge, path: &str) {
    let seen = edge.send(&get(path), &fresh("new"));
    let said = seen.text("cache-status");
    assert_eq!(
        (seen.status, seen.body_text().as_str()),
        (200, "new"),
        "{said}"
    );
    assert!(!seen.answered_at_the_edge(), "{said}");
}

#[test]
fn the_store_outlives_the_edge() {
    let (store, setup) = with_store(json!({}), json!({}));
    on_each_host("the_store_outlives_the_edge", &setup, |edge| {
        store.reset();
        store_one(edge, &store, "/a");
        edge.restart();
        is_kept(edge, "/a");
        // It is in the first two tiers again: the store is not asked any more.
        edge.pass(Duration::from_millis(300));
        for _ in 0..4 {
            is_kept(edge, "/a");
        }
        let asked = store.asked("GET ");
        for _ in 0..4 {
            is_kept(edge, "/a");
        }
        assert_eq!(store.asked("GET "), asked);
        is_gone(edge, "/another");
    });
}

#[test]
fn purges_reach_the_store() {
    let (store, setup) = with_store(json!({}), json!({}));
    on_each_host("purges_reach_the_store", &setup, |edge| {
        for (name, path, purge) in [
            ("by key", "/key", purge("/key")),
            (
                "by key, soft",
                "/soft",
                purge("/soft").field("edgeweir-soft", "1"),
            ),
            (
                "by tag",
                "/tag",
                purge("/tag").field("surrogate-key", "news"),
            ),
        ] {
            store.reset();
            store_one(edge, &store, path);
            let answer = edge.send(&purge, &Origin::status(500));
            assert_eq!(answer.status, 200, "{name}: {}", answer.body_text());
            assert!(store.waits(Store::is_empty), "{name}: it is still there");
        }
        edge.restart();
        for path in ["/key", "/soft", "/tag"] {
            is_gone(edge, path);
        }
    });
}

#[test]
fn a_purge_reaches_keys_with_more_parts() {
    let key = json!({ "key": { "headers": ["x-plan"] } });
    let (store, setup) = with_store(json!({}), key);
    on_each_host("a_purge_reaches_keys_with_more_parts", &setup, |edge| {
        store.reset();
        let paid = get("/a").field("x-plan", "paid");
        edge.send(&paid, &fresh("kept"));
        assert!(store.waits(|store| store.len() == 1), "not written");
        let answer = edge.send(&purge("/a"), &Origin::status(500));
        assert_eq!(answer.status, 200, "{}", answer.body_text());
        assert!(store.waits(Store::is_empty), "it is still there");
    });
}

#[test]
fn a_write_behind_comes_later() {
    let l3 = json!({ "write": "behind", "behind_ms": 700 });
    let (store, setup) = with_store(l3, json!({}));
    on_each_host("a_write_behind_comes_later", &setup, |edge| {
        store.reset();
        if edge.address().is_some() {
            edge.send(&get("/a"), &fresh("kept"));
            assert!(store.is_empty(), "written at once");
        }
        edge.send(&get("/a"), &fresh("kept"));
        assert!(store.waits(|store| store.len() == 1), "not written");
        edge.restart();
        is_kept(edge, "/a");
    });
}

#[test]
fn a_store_in_trouble_costs_no_answer() {
    let (store, setup) = with_store(json!({ "timeout_ms": 300 }), json!({}));
    on_each_host("a_store_in_trouble_costs_no_answer", &setup, |edge| {
        store.reset();
        // The first exchange of a host may take longer.
        is_gone(edge, "/warm");
        for mode in [Mode::Hangs, Mode::Dead, Mode::Fails] {
            store.set(mode);
            let begun = Instant::now();
            for at in 0..3 {
                is_gone(edge, &format!("/{mode:?}/{at}"));
            }
            let took = begun.elapsed();
            assert!(took < Duration::from_secs(4), "{mode:?} took {took:?}");
            assert!(store.asked("GET ") >= 3, "{mode:?}: not asked");
        }
        store.set(Mode::Works);
        store_one(edge, &store, "/again");
        edge.restart();
        is_kept(edge, "/again");
    });
}

#[test]
fn what_the_store_should_not_have_is_not_used() {
    let (store, setup) = with_store(json!({}), json!({}));
    on_each_host(
        "what_the_store_should_not_have_is_not_used",
        &setup,
        |edge| {
            for (path, spoil) in [
                (
                    "/garbage",
                    (|_| b"garbage".to_vec()) as fn(&[u8]) -> Vec<u8>,
                ),
                ("/empty", |_| Vec::new()),
                ("/short", |value| value[..value.len() / 2].to_vec()),
                ("/long", |_| vec![0xff; 100_000]),
                // Its name is in the value: 4 bytes of length first.
                ("/another-key", |value| {
                    let mut value = value.to_vec();
                    value[20] ^= 1;
                    value
                }),
            ] {
                store.reset();
                store_one(edge, &store, path);
                store.spoil(spoil);
                edge.restart();
                let before = store.asked("GET ");
                is_gone(edge, path);
                assert!(store.asked("GET ") > before, "{path}: not asked");
            }
        },
    );
}
