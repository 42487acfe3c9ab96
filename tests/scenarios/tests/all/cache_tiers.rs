//! The cache's third tier: a store that outlives the edge, and all that can be wrong with it.

use std::time::{Duration, Instant};

use edgeweir_scenarios::faulty::{Fault, Faulty};
use edgeweir_scenarios::machines::RealStore;
use edgeweir_scenarios::{Edge, Origin, Request, Setup, cache, get, on_each_host, request};
use serde_json::{Value, json};

const TOKEN: &str = "a-token-of-enough-characters";

/// A cache with a store at this address; `l3` is merged into the store's settings, `more` into the cache's.
fn with(address: std::net::SocketAddr, l3: Value, more: Value) -> Setup {
    let mut settings = json!({
        "admin": { "token": TOKEN },
        // Long: a machine that also compiles is slow.
        "l3": { "to": address.to_string(), "timeout_ms": 3000 }
    });
    merge(&mut settings["l3"], l3);
    merge(&mut settings, more);
    Setup::of([cache(settings)]).server(address)
}

/// A store of its own.
fn with_store(l3: Value, more: Value) -> (RealStore, Setup) {
    let store = RealStore::start(&["--memory"]).expect("a store");
    let setup = with(store.address, l3, more);
    (store, setup)
}

fn merge(into: &mut Value, from: Value) {
    if let (Some(into), Value::Object(from)) = (into.as_object_mut(), from) {
        into.extend(from);
    }
}

/// Waits until the store's statistics say so, ten seconds at most.
fn waits(store: &RealStore, what: &str, holds: impl Fn(&RealStore) -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !holds(store) {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn fresh(body: &str) -> Origin {
    Origin::text(body)
        .field("cache-control", "max-age=600")
        .field("surrogate-key", "news")
}

/// Sent, and in the store then.
fn store_one(edge: &mut Edge, store: &RealStore, path: &str) {
    let before = store.counted("puts");
    edge.send(&get(path), &fresh("kept"));
    waits(store, "not written", |store| store.counted("puts") > before);
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
        store_one(edge, &store, "/a");
        edge.restart();
        is_kept(edge, "/a");
        // It is in the first two tiers again: the store is not asked any more.
        edge.pass(Duration::from_millis(300));
        for _ in 0..4 {
            is_kept(edge, "/a");
        }
        let hits = store.counted("hits");
        for _ in 0..4 {
            is_kept(edge, "/a");
        }
        assert_eq!(store.counted("hits"), hits);
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
            store_one(edge, &store, path);
            let before = store.counted("invalidations");
            let mut answer = edge.send(&purge, &Origin::status(500));
            if answer.status == 503 {
                // A connection to the store that broke: nothing says that the store has it, so it is to be sent again.
                answer = edge.send(&purge, &Origin::status(500));
            }
            assert_eq!(answer.status, 200, "{name}: {}", answer.body_text());
            // It was answered when the store had it.
            assert!(store.counted("invalidations") > before, "{name}: not told");
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
        let long = format!("/{}", "a".repeat(2500));
        for path in ["/a", &long] {
            let paid = get(path).field("x-plan", "paid");
            let before = store.counted("puts");
            edge.send(&paid, &fresh("kept"));
            waits(&store, "not written", |it| it.counted("puts") > before);
            edge.restart();
            let seen = edge.send(&paid, &Origin::status(500));
            let said = seen.text("cache-status");
            assert_eq!(seen.body_text(), "kept", "{said}");
            let free = edge.send(&get(path).field("x-plan", "free"), &fresh("free"));
            assert_eq!(free.body_text(), "free");
            let answer = edge.send(&purge(path), &Origin::status(500));
            assert_eq!(answer.status, 200, "{}", answer.body_text());
            edge.restart();
            let seen = edge.send(&paid, &fresh("new"));
            assert_eq!(seen.body_text(), "new", "{}", seen.text("cache-status"));
        }
    });
}

#[test]
fn every_variant_outlives_the_edge() {
    let (store, setup) = with_store(json!({}), json!({}));
    on_each_host("every_variant_outlives_the_edge", &setup, |edge| {
        let asks = |coding: &str| get("/a").field("accept-encoding", coding);
        for coding in ["br", "gzip"] {
            let before = store.counted("puts");
            edge.send(
                &asks(coding),
                &fresh(coding).field("vary", "accept-encoding"),
            );
            // The variant, and the fields that tell variants apart.
            waits(&store, "not written", |it| it.counted("puts") > before + 1);
        }
        for order in [["br", "gzip"], ["gzip", "br"]] {
            edge.restart();
            for coding in order {
                let seen = edge.send(&asks(coding), &Origin::status(500));
                let said = seen.text("cache-status");
                assert_eq!(seen.body_text(), coding, "{order:?}: {said}");
                assert!(said.contains("; hit"), "{order:?}: {said}");
            }
        }
        let answer = edge.send(&purge("/a"), &Origin::status(500));
        assert_eq!(answer.status, 200, "{}", answer.body_text());
        edge.restart();
        for coding in ["br", "gzip"] {
            let new = fresh("new").field("vary", "accept-encoding");
            let seen = edge.send(&asks(coding), &new);
            assert_eq!(seen.body_text(), "new", "{}", seen.text("cache-status"));
        }
    });
}

#[test]
fn many_groups_of_one_cost_the_others_nothing() {
    let (store, setup) = with_store(json!({}), json!({ "max_groups": 255 }));
    on_each_host(
        "many_groups_of_one_cost_the_others_nothing",
        &setup,
        |edge| {
            let groups: Vec<String> = (0..255).map(|at| format!("g{at}")).collect();
            let many = Origin::text("kept")
                .field("cache-control", "max-age=600")
                .field("surrogate-key", groups.join(" "));
            for at in 0..4 {
                let before = store.counted("puts");
                edge.send(&get(&format!("/many/{at}")), &many);
                waits(&store, "not written", |it| it.counted("puts") > before);
            }
            store_one(edge, &store, "/other");
            edge.restart();
            for path in ["/many/0", "/other"] {
                is_kept(edge, path);
            }
            let by_the_last = purge("/many").field("surrogate-key", "g254");
            assert_eq!(edge.send(&by_the_last, &Origin::status(500)).status, 200);
            edge.restart();
            is_gone(edge, "/many/0");
            is_kept(edge, "/other");
        },
    );
}

#[test]
fn a_write_behind_comes_later() {
    let l3 = json!({ "write": "behind", "behind_ms": 700 });
    let (store, setup) = with_store(l3, json!({}));
    on_each_host("a_write_behind_comes_later", &setup, |edge| {
        let before = store.counted("puts");
        if edge.address().is_some() {
            edge.send(&get("/a"), &fresh("kept"));
            assert_eq!(store.counted("puts"), before, "written at once");
        }
        edge.send(&get("/a"), &fresh("kept"));
        waits(&store, "not written", |it| it.counted("puts") > before);
        edge.restart();
        is_kept(edge, "/a");
    });
}

#[test]
fn a_store_in_trouble_costs_no_answer() {
    let store = Faulty::start().expect("a server");
    let setup = with(store.address, json!({ "timeout_ms": 300 }), json!({}));
    on_each_host("a_store_in_trouble_costs_no_answer", &setup, |edge| {
        for (name, fault) in [
            ("hangs", Fault::Hangs),
            ("dead", Fault::Dead),
            ("fails", Fault::Answers(500, Vec::new())),
            ("denies", Fault::Answers(401, Vec::new())),
            ("full", Fault::Answers(507, Vec::new())),
            ("garbage", Fault::Answers(200, b"garbage".to_vec())),
            ("empty", Fault::Answers(200, Vec::new())),
            ("long", Fault::Answers(200, vec![0xff; 100_000])),
        ] {
            store.set(fault);
            // Whatever it was before, it is tried again.
            edge.pass(Duration::from_millis(600));
            let begun = Instant::now();
            for at in 0..12 {
                is_gone(edge, &format!("/{name}/{at}"));
            }
            let took = begun.elapsed();
            assert!(took < Duration::from_secs(4), "{name} took {took:?}");
        }
    });
}

/// What a worker or an instance does with a store that hangs: one time-out, then it is left alone.
#[test]
fn a_store_that_hangs_costs_a_time_out_and_not_one_each_request() {
    let store = RealStore::start(&["--memory"]).expect("a store");
    let setup = with(store.address, json!({ "timeout_ms": 1000 }), json!({}));
    on_each_host(
        "a_store_that_hangs_costs_a_time_out_and_not_one_each_request",
        &setup,
        |edge| {
            store_one(edge, &store, "/before");
            store.hangs(true);
            let begun = Instant::now();
            for at in 0..60 {
                is_gone(edge, &format!("/hung/{at}"));
            }
            let took = begun.elapsed();
            store.hangs(false);
            // Two workers, or some instances, and a probe of each now and then; 60 time-outs would be a minute.
            assert!(took < Duration::from_secs(20), "{took:?}");
            // Recovery needs nobody.
            let until = Instant::now() + Duration::from_secs(20);
            let puts = store.counted("puts");
            let mut at = 0;
            while store.counted("puts") <= puts {
                assert!(Instant::now() < until, "it is not used again");
                at += 1;
                is_gone(edge, &format!("/again/{at}"));
                edge.pass(Duration::from_millis(100));
            }
        },
    );
}
