//! The third tier: what is counted, and how long each of its requests may take.

use std::time::Duration;

use edgeweir_cache::Cache;
use edgeweir_filter::{Failed, Reply, Script, Seen, load};

const TOKEN: &str = "a-token-of-enough-characters";

/// A cache whose store answers every request so.
fn edge(l3: &str, status: Result<u16, Failed>) -> Script {
    let json = format!(
        r#"{{"admin": {{"token": "{TOKEN}"}}, "l3": {{"to": "store", "timeout_ms": 50{l3}}}}}"#
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
