//! The third tier: what is counted, how long each of its requests may take, and two machines that share one.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use edgeweir_cache::Cache;
use edgeweir_filter::{Failed, Fetch, Fetched, Reply, Script, Seen, SharedMemory, load};

const TOKEN: &str = "a-token-of-enough-characters";

/// A cache whose store answers every request so.
fn edge(l3: &str, status: Result<u16, Failed>) -> Script {
    let json = format!(
        r#"{{"admin": {{"token": "{TOKEN}"}}, "l3": {{"to": "store", "timeout_ms": 50, "news_ms": 0{l3}}}}}"#
    );
    let cache = load::<Cache>(json.as_bytes()).expect("a valid configuration");
    let fresh = [("cache-control", "max-age=60")];
    let mut edge = Script::new(cache).get("/").origin(200, &fresh, "body");
    edge.fetch_with(move |_| status.map(|status| Reply::new(status, &[], "")));
    edge
}

fn sent(seen: &Seen) -> Vec<(String, u128)> {
    let fetches = seen.fetches.iter();
    fetches
        .map(|fetch| {
            let method = String::from_utf8_lossy(&fetch.head.method).into_owned();
            (method, fetch.timeout.as_millis())
        })
        .collect()
}

#[test]
fn each_failure_is_counted_and_costs_no_answer() {
    for (name, status, failed, missed) in [
        ("it has nothing and takes nothing", Ok(404), 1, 1),
        ("it hangs", Err(Failed::TimedOut), 2, 0),
        ("it is dead", Err(Failed::Unavailable), 2, 0),
        ("it is not there", Err(Failed::Unsupported), 2, 0),
        ("it is broken", Ok(500), 2, 0),
        ("it answers what nobody put", Ok(200), 0, 1),
    ] {
        for behind in ["", r#", "write": "behind""#] {
            let seen = edge(behind, status).run();
            assert_eq!((seen.status, seen.body_text().as_str()), (200, "body"));
            let counted = |what| seen.counted(what);
            assert_eq!(counted("cache.l3.failed"), failed, "{name}{behind}");
            assert_eq!(counted("cache.l3.miss"), missed, "{name}{behind}");
            assert_eq!(counted("cache.l3.hit"), 0, "{name}{behind}");
        }
    }
}

#[test]
fn only_a_read_is_short() {
    let mut edge = edge("", Ok(404));
    let slow = Duration::from_secs(5).as_millis();
    let want = [("GET".to_owned(), 50), ("PUT".to_owned(), slow)];
    assert_eq!(sent(&edge.run()), want);
    let authorization = format!("Bearer {TOKEN}");
    let fields = [("authorization", &authorization[..])];
    for soft in ["0", "1"] {
        let fields = [fields[0], ("edgeweir-soft", soft)];
        let purged = edge.request(&["PURGE", "/"], &fields).run();
        assert_eq!(sent(&purged), [("POST".to_owned(), slow)], "soft: {soft}");
        assert_eq!(purged.counted("cache.l3.failed"), 1);
    }
}

/// The store's protocol, in memory: what is kept, leases, news. A prefix or a pattern forgets everything.
#[derive(Clone, Default)]
struct Store(Rc<Kept>);

#[derive(Default)]
struct Kept {
    values: RefCell<BTreeMap<String, Vec<u8>>>,
    /// The groups of what is kept.
    groups: RefCell<BTreeMap<String, Vec<String>>>,
    leases: RefCell<BTreeMap<String, ()>>,
    news: RefCell<Vec<String>>,
    restarts: Cell<u32>,
    forgets: Cell<bool>,
    fails: Cell<Option<Failed>>,
    asked: Cell<u32>,
}

impl Store {
    fn answer(&self, fetch: &Fetch) -> Result<Fetched, Failed> {
        let kept = &self.0;
        kept.asked.set(kept.asked.get() + 1);
        if let Some(failed) = kept.fails.get() {
            return Err(failed);
        }
        let path = String::from_utf8_lossy(&fetch.head.path).into_owned();
        let name = path.strip_prefix("/cache/").expect("below its path");
        let lease = fetch.head.fields.text("edgeweir-lease");
        let says = |status| Ok(Reply::new(status, &[], ""));
        match &fetch.head.method[..] {
            b"GET" if name.starts_with("news?since=") => {
                let since = name.strip_prefix("news?since=").unwrap_or_default();
                let order = format!("order{}", kept.restarts.get());
                let news = kept.news.borrow();
                let from = since.rsplit_once('-').filter(|(it, _)| *it == order);
                let from = from.and_then(|(_, number)| number.parse::<usize>().ok());
                let mut text = format!("{order}-{}\n", news.len());
                text.push_str(if from.is_some() { "known\n" } else { "lost\n" });
                for line in news.iter().skip(from.unwrap_or(usize::MAX)) {
                    text.push_str(&format!("{line}\n"));
                }
                Ok(Reply::new(200, &[], text))
            }
            b"GET" => match kept.values.borrow().get(name) {
                Some(value) => Ok(Reply::new(200, &[], value.clone())),
                None if lease.is_none() => says(404),
                None => match kept.leases.borrow_mut().insert(name.to_owned(), ()) {
                    None => says(404),
                    Some(()) => says(409),
                },
            },
            b"PUT" | b"DELETE" => {
                if lease == Some("release") {
                    kept.leases.borrow_mut().remove(name);
                }
                if fetch.head.method == "PUT" {
                    let mut values = kept.values.borrow_mut();
                    values.insert(name.to_owned(), fetch.body.to_vec());
                    let groups = fetch.head.fields.text("edgeweir-groups").unwrap_or("");
                    let groups = groups.split(',').map(str::to_owned).collect();
                    kept.groups.borrow_mut().insert(name.to_owned(), groups);
                }
                says(204)
            }
            _ => {
                if kept.forgets.get() {
                    kept.forget(name);
                }
                let line = fetch.head.fields.text("edgeweir-news");
                kept.news.borrow_mut().extend(line.map(str::to_owned));
                says(204)
            }
        }
    }
}

impl Kept {
    fn forget(&self, what: &str) {
        let mut values = self.values.borrow_mut();
        let (kind, listed) = what
            .strip_prefix("invalidate?")
            .and_then(|what| what.split_once('='))
            .expect("it names something");
        match kind {
            "names" => values.retain(|name, _| !listed.split(',').any(|it| it == name)),
            "groups" => {
                let all = self.groups.borrow();
                let is_of = |group: &String| listed.split(',').any(|it| it == group);
                values.retain(|name, _| !all[name].iter().any(is_of));
            }
            _ => values.clear(),
        }
    }
}

/// A machine with this store.
fn machine(store: &Store, l3: &str) -> Script {
    keyed(store, l3, r#""query_sort": true"#)
}

/// A machine whose keys are made so.
fn keyed(store: &Store, l3: &str, key: &str) -> Script {
    let json = format!(
        r#"{{"admin": {{"token": "{TOKEN}"}}, "l3": {{"to": "store"{l3}}}, "key": {{{key}}}}}"#
    );
    let cache = load::<Cache>(json.as_bytes()).expect("a valid configuration");
    let mut script = Script::new(cache);
    let store = store.clone();
    script.fetch_with(move |fetch| store.answer(fetch));
    script
}

fn asks(machine: &mut Script, path: &str, body: &str) -> Seen {
    let fields = [("cache-control", "max-age=600"), ("surrogate-key", "news")];
    machine.request(&["GET", path, "a.example"], &[]);
    machine.answers(200, &fields, &[body.as_bytes()]);
    machine.run()
}

fn purges(machine: &mut Script, line: &[&str], fields: &[(&str, &str)]) -> Seen {
    let authorization = format!("Bearer {TOKEN}");
    let all = [&[("authorization", authorization.as_str())], fields].concat();
    machine.request(line, &all);
    machine.answers(204, &[], &[]);
    machine.run()
}

/// As `asks`, of an origin that tells variants apart.
fn asks_varied(machine: &mut Script, fields: &[(&str, &str)], body: &str) -> Seen {
    machine.request(&["GET", "/x", "a.example"], fields);
    let varied = [
        ("cache-control", "max-age=600"),
        ("vary", "accept-encoding"),
    ];
    machine.answers(200, &varied, &[body.as_bytes()]).run()
}

const LATER: Duration = Duration::from_secs(2);

#[test]
fn what_one_stores_is_a_hit_for_the_other() {
    let store = Store::default();
    let (mut a, mut b) = (machine(&store, ""), machine(&store, ""));
    assert!(
        asks(&mut a, "/x", "one")
            .text("cache-status")
            .ends_with("; stored")
    );
    let seen = asks(&mut b, "/x", "two");
    assert_eq!(
        (seen.body_text().as_str(), seen.counted("cache.l3.hit")),
        ("one", 1)
    );
    assert!(seen.text("cache-status").contains("; hit"));
    let again = asks(&mut b, "/x", "two");
    assert_eq!(
        (again.body_text().as_str(), again.counted("cache.l3.hit")),
        ("one", 0)
    );
}

#[test]
fn keys_with_more_parts_are_shared_and_leased_as_others() {
    for key in [
        r#""headers": ["x-plan"]"#,
        r#""cookies": ["plan"]"#,
        r#""user_context": "x-plan""#,
    ] {
        let store = Store::default();
        let (mut a, mut b) = (keyed(&store, "", key), keyed(&store, "", key));
        let ask = |machine: &mut Script, plan: &str, body: &str| {
            let cookie = format!("plan={plan}");
            let fields = [("x-plan", plan), ("cookie", &cookie[..])];
            machine.request(&["GET", "/x", "a.example"], &fields);
            machine.answers(200, &[("cache-control", "max-age=600")], &[body.as_bytes()]);
            machine.run()
        };
        ask(&mut a, "paid", "one");
        let seen = ask(&mut b, "paid", "two");
        assert_eq!(seen.body_text(), "one", "{key}");
        assert_eq!(ask(&mut b, "free", "free").body_text(), "free", "{key}");
        assert!(store.0.leases.borrow().is_empty(), "{key}");
        let leased = seen
            .fetches
            .iter()
            .any(|it| it.head.fields.has("edgeweir-lease"));
        assert!(leased, "{key}");
        // It is found in the first two tiers then, and an invalidation of the URI reaches it in all.
        assert_eq!(ask(&mut b, "paid", "three").counted("cache.l3.hit"), 0);
        store.0.forgets.set(true);
        for machine in [&mut a, &mut b] {
            machine.pass(LATER);
        }
        purges(&mut a, &["PURGE", "/x", "a.example"], &[]);
        assert!(store.0.values.borrow().is_empty(), "{key}");
        b.pass(LATER);
        assert_eq!(ask(&mut b, "paid", "new").body_text(), "new", "{key}");
    }
}

#[test]
fn every_variant_is_found() {
    for order in [["br", "gzip"], ["gzip", "br"]] {
        let store = Store::default();
        store.0.forgets.set(true);
        let (mut a, mut b) = (machine(&store, ""), machine(&store, ""));
        for coding in ["br", "gzip"] {
            asks_varied(&mut a, &[("accept-encoding", coding)], coding);
        }
        for coding in order {
            let seen = asks_varied(&mut b, &[("accept-encoding", coding)], "own");
            assert_eq!(seen.body_text(), coding, "{order:?}");
            let hits = seen.counted("cache.l3.hit");
            assert_eq!(hits, 1, "{order:?}: {}", seen.text("cache-status"));
            let reads =
                |path: &[u8]| path.starts_with(b"/cache/") && !path.starts_with(b"/cache/news");
            let reads = seen
                .fetches
                .iter()
                .filter(|it| reads(&it.head.path))
                .count();
            assert_eq!(reads, 2, "one for the names, one for the variant");
        }
        // In its own tiers, each in a place of its own.
        for coding in order {
            let seen = asks_varied(&mut b, &[("accept-encoding", coding)], "own");
            assert_eq!((seen.body_text().as_str(), seen.fetches.len()), (coding, 0));
        }
        // Nobody has this one: the lease is on the variant.
        let seen = asks_varied(&mut b, &[("accept-encoding", "zstd")], "zstd");
        assert!(seen.text("cache-status").contains("fwd=vary-miss"));
        assert!(store.0.leases.borrow().is_empty());
        a.pass(LATER);
        let seen = asks_varied(&mut a, &[("accept-encoding", "zstd")], "own");
        assert_eq!(seen.body_text(), "zstd");
        purges(&mut a, &["PURGE", "/x", "a.example"], &[]);
        assert!(store.0.values.borrow().is_empty(), "of all variants");
    }
}

#[test]
fn what_was_on_its_way_during_an_invalidation_does_not_come_back() {
    let admin = "/.edgeweir/cache/purge?";
    for (name, line, fields) in [
        ("by key", ["PURGE", "/x", "a.example"], &[][..]),
        (
            "softly",
            ["PURGE", "/x", "a.example"],
            &[("edgeweir-soft", "1")],
        ),
        (
            "by tag",
            ["PURGE", "/y", "a.example"],
            &[("surrogate-key", "news")],
        ),
        (
            "by prefix",
            ["POST", &format!("{admin}prefix=/x"), "a.example"],
            &[],
        ),
        ("all", ["POST", &format!("{admin}all=1"), "a.example"], &[]),
        ("after an unsafe request", ["POST", "/x", "a.example"], &[]),
    ] {
        for (elsewhere, writing) in [(false, false), (false, true), (true, false), (true, true)] {
            let name = format!("{name}, elsewhere: {elsewhere}, during the write: {writing}");
            let store = Store::default();
            store.0.forgets.set(true);
            let shared = SharedMemory::default();
            let mut a = machine(&store, "").sharing(&shared);
            // Another machine, or another worker of the same.
            let mut b = match elsewhere {
                true => machine(&store, ""),
                false => machine(&store, "").sharing(&shared),
            };
            b.pass(Duration::from_millis(1));
            let (line, fields) = (line.map(str::to_owned), fields.to_vec());
            let invalidate = move || {
                let seen = purges(&mut b, &line.each_ref().map(String::as_str), &fields);
                assert!(seen.status < 300);
            };
            a.hold_tasks();
            assert_eq!(asks(&mut a, "/x", "old").body_text(), "old");
            a.pass(Duration::from_millis(2));
            if writing {
                let (invalidate, store) = (RefCell::new(Some(invalidate)), store.clone());
                a.fetch_with(move |fetch| {
                    if fetch.head.method == "PUT" {
                        let mut invalidate = invalidate.take().expect("one write");
                        invalidate();
                    }
                    store.answer(fetch)
                });
            } else {
                let mut invalidate = invalidate;
                invalidate();
            }
            let seen = a.run_tasks();
            assert_eq!(seen.counted("cache.l3.superseded"), 1, "{name}");
            assert!(store.0.values.borrow().is_empty(), "{name}");
            // A machine that starts now knows of nothing.
            let mut started = machine(&store, "");
            started.pass(LATER);
            assert_eq!(asks(&mut started, "/x", "new").body_text(), "new", "{name}");
        }
    }
}

#[test]
fn an_invalidation_at_one_reaches_the_other() {
    let admin = "/.edgeweir/cache/purge?";
    for (name, line, fields, gone) in [
        (
            "by tag",
            ["PURGE", "/x", "a.example"],
            &[("surrogate-key", "news")][..],
            true,
        ),
        (
            "by another tag",
            ["PURGE", "/x", "a.example"],
            &[("surrogate-key", "other")],
            false,
        ),
        ("by key", ["PURGE", "/x", "a.example"], &[], true),
        ("by another key", ["PURGE", "/y", "a.example"], &[], false),
        (
            "softly by tag",
            ["PURGE", "/x", "a.example"],
            &[("surrogate-key", "news"), ("edgeweir-soft", "1")],
            true,
        ),
        (
            "softly by key",
            ["PURGE", "/x", "a.example"],
            &[("edgeweir-soft", "1")],
            true,
        ),
        (
            "by prefix",
            ["POST", &format!("{admin}prefix=/x"), "a.example"],
            &[],
            true,
        ),
        (
            "by pattern",
            ["POST", &format!("{admin}pattern=*/x*"), "a.example"],
            &[],
            true,
        ),
        (
            "by another pattern",
            ["POST", &format!("{admin}pattern=*/y*"), "a.example"],
            &[],
            false,
        ),
        (
            "all",
            ["POST", &format!("{admin}all=1"), "a.example"],
            &[],
            true,
        ),
    ] {
        // A store that keeps what it should forget does not bring it back either.
        for forgets in [true, false] {
            let store = Store::default();
            store.0.forgets.set(forgets);
            let (mut a, mut b) = (machine(&store, ""), machine(&store, ""));
            asks(&mut a, "/x", "old");
            for machine in [&mut a, &mut b] {
                machine.pass(LATER);
                assert_eq!(
                    asks(machine, "/x", "not asked").body_text(),
                    "old",
                    "{name}"
                );
            }
            let purged = purges(&mut a, &line, fields);
            assert_eq!(purged.status, 200, "{name}: {}", purged.body_text());
            for machine in [&mut a, &mut b] {
                machine.pass(LATER);
            }
            let want = if gone { "new" } else { "old" };
            let seen = asks(&mut b, "/x", "new");
            assert_eq!(
                seen.body_text(),
                want,
                "{name}, forgets: {forgets}, {}",
                seen.text("cache-status")
            );
            a.pass(Duration::from_millis(1));
            if name.starts_with("softly") {
                // What is only stale here is validated by each.
                continue;
            }
            assert_eq!(
                asks(&mut a, "/x", "newer").body_text(),
                want,
                "{name}: {:?}",
                forgets
            );
        }
    }
}

#[test]
fn an_unsafe_request_at_one_reaches_the_other() {
    let store = Store::default();
    let (mut a, mut b) = (machine(&store, ""), machine(&store, ""));
    asks(&mut a, "/x?a=1&b=2", "old");
    asks(&mut b, "/x?b=2&a=1", "old");
    a.pass(LATER)
        .request(&["POST", "/x?b=2&a=1", "a.example"], &[]);
    a.answers(204, &[], &[]).run();
    b.pass(LATER);
    assert_eq!(asks(&mut b, "/x?a=1&b=2", "new").body_text(), "new");
}

#[test]
fn news_cost_a_request_at_a_time_and_lost_ones_make_stale() {
    let store = Store::default();
    let mut a = machine(&store, "");
    let news = |seen: &Seen| {
        let paths = seen.fetches.iter().map(|fetch| &fetch.head.path[..]);
        paths
            .filter(|path| path.starts_with(b"/cache/news"))
            .count()
    };
    // Once before the request, once after the write.
    assert_eq!(news(&asks(&mut a, "/x", "old")), 2);
    a.pass(Duration::from_millis(400));
    assert_eq!(news(&asks(&mut a, "/x", "")), 0);
    a.pass(LATER);
    assert_eq!(news(&asks(&mut a, "/x", "")), 1);
    store.0.restarts.set(1);
    a.pass(LATER);
    let seen = asks(&mut a, "/x", "validated");
    assert_eq!(seen.counted("cache.l3.news_lost"), 1);
    assert_eq!(seen.body_text(), "validated");
    // A script's clock stands still within an exchange: that one was asked for no later than the news were heard.
    a.pass(LATER);
    assert_eq!(asks(&mut a, "/x", "validated").body_text(), "validated");
    a.pass(LATER);
    let seen = asks(&mut a, "/x", "not asked");
    assert_eq!(
        (
            seen.body_text().as_str(),
            seen.counted("cache.l3.news_lost")
        ),
        ("validated", 0)
    );
}

#[test]
fn a_lease_held_elsewhere_is_waited_for_and_no_longer_than_it_lasts() {
    let store = Store::default();
    let mut a = machine(&store, r#", "lease_ms": 500"#);
    let name = |seen: &Seen| {
        let read = seen
            .fetches
            .iter()
            .find(|it| it.head.fields.has("edgeweir-lease"));
        let path = read.expect("a read").head.path.clone();
        String::from_utf8_lossy(&path["/cache/".len()..]).into_owned()
    };
    // Its holder is gone.
    let held = name(&asks(&mut machine(&Store::default(), ""), "/x", ""));
    store.0.leases.borrow_mut().insert(held.clone(), ());
    let begun = a.now();
    let seen = asks(&mut a, "/x", "own");
    assert_eq!(seen.body_text(), "own");
    let waited = a.now().since(begun);
    assert!(
        waited >= Duration::from_millis(500) && waited < Duration::from_millis(700),
        "{waited:?}"
    );
    assert_eq!(
        (
            seen.counted("cache.l3.waited"),
            seen.counted("cache.l3.waited_in_vain")
        ),
        (1, 1)
    );
    // Its holder writes.
    let store = Store::default();
    let mut b = machine(&store, "");
    asks(&mut machine(&store, ""), "/x", "theirs");
    let value = std::mem::take(&mut *store.0.values.borrow_mut());
    store.0.leases.borrow_mut().insert(held, ());
    let (late, writer) = (Cell::new(0), store.clone());
    b.fetch_with(move |fetch| {
        late.set(late.get() + 1);
        if late.get() == 4 {
            writer.0.values.borrow_mut().extend(value.clone());
        }
        writer.answer(fetch)
    });
    let seen = asks(&mut b, "/x", "own");
    assert_eq!(seen.body_text(), "theirs");
    assert!(
        seen.text("cache-status").ends_with("; collapsed"),
        "{}",
        seen.text("cache-status")
    );
}

#[test]
fn a_lease_is_released_when_nothing_is_stored() {
    for (name, status, control, stored) in [
        ("stored", 200, "max-age=60", 1),
        ("private", 200, "private", 0),
        ("an error", 500, "no-store", 0),
    ] {
        let store = Store::default();
        let mut a = machine(&store, "");
        a.request(&["GET", "/x", "a.example"], &[]);
        a.answers(status, &[("cache-control", control)], &[b"body"])
            .run();
        assert!(store.0.leases.borrow().is_empty(), "{name}");
        assert_eq!(store.0.values.borrow().len(), stored, "{name}");
    }
    for off in [r#", "lease_ms": 0"#, r#", "write": "behind""#] {
        let store = Store::default();
        let seen = asks(&mut machine(&store, off), "/x", "");
        let leased = seen
            .fetches
            .iter()
            .any(|it| it.head.fields.has("edgeweir-lease"));
        assert!(!leased, "{off}");
    }
}

#[test]
fn a_store_in_trouble_is_left_alone_and_comes_back_by_itself() {
    for (failed, name) in [
        (Failed::TimedOut, "cache.l3.failed.timed_out"),
        (Failed::Unavailable, "cache.l3.failed.unavailable"),
    ] {
        let store = Store::default();
        store.0.fails.set(Some(failed));
        let mut a = machine(&store, "");
        let mut counted = (0, 0);
        for at in 0..100 {
            let seen = asks(&mut a, &format!("/{at}"), "own");
            assert_eq!((seen.status, seen.body_text().as_str()), (200, "own"));
            counted.0 += seen.counted(name);
            counted.1 += seen.counted("cache.l3.failed.breaker_open");
        }
        let most = if failed == Failed::TimedOut { 1 } else { 3 };
        assert!(store.0.asked.get() <= most, "{} times", store.0.asked.get());
        assert!(counted.0 >= 1 && counted.1 > 100, "{name}: {counted:?}");
        store.0.fails.set(None);
        a.pass(Duration::from_secs(1));
        asks(&mut a, "/again", "own");
        assert!(!store.0.values.borrow().is_empty(), "{name}: not written");
    }
}

#[test]
fn a_purge_that_the_store_did_not_take_says_so() {
    let store = Store::default();
    let mut a = machine(&store, "");
    store.0.fails.set(Some(Failed::Unavailable));
    let seen = purges(&mut a, &["PURGE", "/x", "a.example"], &[]);
    assert_eq!(seen.status, 503, "{}", seen.body_text());
    store.0.fails.set(None);
    assert_eq!(
        purges(&mut a, &["PURGE", "/x", "a.example"], &[]).status,
        200
    );
}
