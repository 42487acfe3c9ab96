//! What every back-end answers alike.

use edgeweir_host_store::limit::Limit;
use edgeweir_host_store::wire::{Ask, answers, ask_bytes};

use crate::process::{Client, Redis, Store};

const A: &str = "/cache/000102030405060708090a0b0c0d0e0f";
const B: &str = "/cache/ffffffffffffffffffffffffffffffff";
const TTL: (&str, &str) = ("edgeweir-ttl", "60");

fn on_each(test: impl Fn(&mut Client)) {
    test(&mut Store::start(&["--memory"]).client());
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("s.redb");
    for sync in ["os", "disk"] {
        let file = file.with_extension(sync);
        let file = file.to_str().expect("text");
        test(&mut Store::start(&["--file", file, "--sync", sync]).client());
    }
    let redis = Redis::start(&[]);
    let url = redis.url();
    let arguments = ["--redis", &url, "--redis-timeout-ms", "5000"];
    test(&mut Store::start(&arguments).client());
    redis.cli(&["FLUSHALL"]);
    let parts = [&arguments[..], &["--redis-parts", "7"]].concat();
    test(&mut Store::start(&parts).client());
    let cluster = Redis::start(&["--cluster-enabled", "yes"]);
    cluster.cli(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    while !cluster
        .cli(&["CLUSTER", "INFO"])
        .contains("cluster_state:ok")
    {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let url = cluster.url();
    let arguments = [
        "--redis",
        &url,
        "--redis-cluster",
        "--redis-timeout-ms",
        "5000",
    ];
    test(&mut Store::start(&arguments).client());
}

#[test]
fn the_third_tier_reads_what_it_wrote_until_it_is_invalidated() {
    on_each(|client| {
        assert_eq!(client.ask("GET", A, &[], b"").name(), "not-found");
        for (query, a, b) in [
            ("names=000102030405060708090a0b0c0d0e0f", 404, 200),
            ("groups=00000000000000aa", 404, 404),
            ("groups=00000000000000bb,00000000000000cc", 200, 404),
            ("prefix=x.example%2Fimg", 404, 200),
            ("pattern=*%2F%3F.css", 200, 404),
            ("pattern=*nothing*", 200, 200),
            ("all=1", 404, 404),
        ] {
            for (path, groups, uri) in [
                (A, "00000000000000aa", "x.example/img/a.png"),
                (B, "00000000000000aa,00000000000000bb", "x.example/s.css"),
            ] {
                let fields = [TTL, ("edgeweir-groups", groups), ("edgeweir-uri", uri)];
                let put = client.ask("PUT", path, &fields, path.as_bytes());
                assert_eq!(put.status, 204, "{put:?}");
                assert_eq!(client.ask("GET", path, &[], b"").body, path.as_bytes());
            }
            let told = client.ask("POST", &format!("/cache/invalidate?{query}"), &[], b"");
            assert_eq!(told.status, 204, "{query}");
            for (path, want) in [(A, a), (B, b)] {
                assert_eq!(
                    client.ask("GET", path, &[], b"").status,
                    want,
                    "{query} {path}"
                );
            }
        }
    });
}

#[test]
fn keys_are_written_as_their_conditions_say() {
    on_each(|client| {
        let path = "/kv/a%2Fb%00c";
        let absent = ("if-none-match", "*");
        let created = client.ask("PUT", path, &[absent], b"one");
        assert_eq!(created.status, 201);
        let first = created.field("etag").to_owned();
        let got = client.ask("GET", path, &[], b"");
        assert_eq!(
            (got.field("etag"), &got.body[..]),
            (&first[..], &b"one"[..])
        );
        assert_eq!(
            client
                .ask("GET", path, &[("if-none-match", &first)], b"")
                .status,
            304
        );
        assert_eq!(
            client.ask("PUT", path, &[absent], b"x").name(),
            "precondition-failed"
        );
        let replaced = client.ask("PUT", path, &[("if-match", &first)], b"two");
        assert_eq!(replaced.status, 204);
        assert_ne!(replaced.field("etag"), first);
        for method in ["PUT", "DELETE"] {
            let stale = client.ask(method, path, &[("if-match", &first)], b"x");
            assert_eq!(stale.name(), "precondition-failed", "{method}");
        }
        assert_eq!(client.ask("GET", path, &[], b"").body, b"two");
        let second = replaced.field("etag").to_owned();
        assert_eq!(
            client
                .ask("DELETE", path, &[("if-match", &second)], b"")
                .status,
            204
        );
        assert_eq!(client.ask("DELETE", path, &[], b"").name(), "not-found");
        assert_eq!(
            client.ask("PUT", path, &[("if-match", "*")], b"x").name(),
            "precondition-failed"
        );
        // A time to live ends.
        client.ask("PUT", path, &[("edgeweir-ttl-ms", "40")], b"short");
        std::thread::sleep(std::time::Duration::from_millis(80));
        assert_eq!(client.ask("GET", path, &[], b"").status, 404);
    });
}

#[test]
fn a_batch_does_its_steps_in_order() {
    on_each(|client| {
        let mut batch = vec![1, 4, 0];
        batch.extend([2, 1, 0, b'k', 1]); // put k when absent, for a second
        batch.extend(1000_u64.to_le_bytes());
        batch.extend([3, 0, 0, 0, b'v', b'a', b'l']);
        batch.extend([1, 1, 0, b'k', 0]); // get k
        batch.extend([3, 1, 0, b'k', 1]); // delete k when absent
        batch.extend([3, 1, 0, b'k', 3]); // delete k when present
        let done = client.ask("POST", "/kv/batch", &[], &batch);
        assert_eq!(done.status, 200, "{done:?}");
        let statuses: Vec<u8> = [3, 16, 32, 45].iter().map(|at| done.body[*at]).collect();
        assert_eq!(statuses, [1, 1, 2, 1], "{:?}", done.body);
        assert_eq!(&done.body[29..32], b"val");
    });
}

#[test]
fn a_limit_admits_what_it_says() {
    on_each(|client| {
        let ask = Ask {
            key: b"alice".to_vec(),
            cost: 1,
            charge: false,
            limits: vec![
                Limit::Gcra {
                    interval: 3_600_000_000_000,
                    tolerance: 9 * 3_600_000_000_000,
                },
                Limit::Window {
                    per: 86_400_000_000_000,
                    limit: 4,
                },
            ],
        };
        let admitted = (0..12)
            .filter(|_| {
                let answer = client.ask(
                    "POST",
                    "/limit",
                    &[],
                    &ask_bytes(std::slice::from_ref(&ask)),
                );
                assert_eq!(answer.status, 200, "{answer:?}");
                let (_, decisions) = answers(&answer.body).expect("an answer");
                decisions[0].iter().all(|it| it.wait == 0)
            })
            .count();
        assert_eq!(admitted, 4);
        let look = Ask { cost: 0, ..ask };
        let answer = client.ask("POST", "/limit", &[], &ask_bytes(&[look]));
        let (_, decisions) = answers(&answer.body).expect("an answer");
        let left: Vec<u32> = decisions[0].iter().map(|it| it.remaining).collect();
        assert_eq!(
            left,
            [6, 0],
            "what one limit refused cost the other nothing"
        );
    });
}

#[test]
fn every_no_has_a_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let token = folder.path().join("token");
    std::fs::write(&token, "0123456789abcdef\n").expect("written");
    let arguments = [
        "--memory",
        "--max-request-kib",
        "1",
        "--token-file",
        token.to_str().expect("text"),
    ];
    let store = Store::start(&arguments);
    let mut client = store.client();
    let good = ("authorization", "bearer 0123456789abcdef");
    let large = vec![0; 1025];
    let groups = |count: usize| (0..count).map(|at| format!("{at:x},")).collect::<String>();
    let (most, more) = (&groups(256)[..], &groups(257)[..]);
    for (method, path, fields, body, want) in [
        ("GET", "/kv/a", &[][..], &b""[..], "no-token"),
        (
            "GET",
            "/kv/a",
            &[("authorization", "Bearer 0123456789abcdeg")],
            b"",
            "wrong-token",
        ),
        ("GET", "/health", &[], b"", "200"),
        ("GET", "/kv/a", &[good], b"", "not-found"),
        ("GET", "/", &[good], b"", "no-such-path"),
        ("GET", "/cache/xyz", &[good], b"", "bad-request"),
        (
            "PUT",
            "/kv/a",
            &[good, ("edgeweir-ttl", "0")],
            b"",
            "bad-request",
        ),
        (
            "PUT",
            "/kv/a",
            &[good, ("edgeweir-groups", "a b")],
            b"",
            "bad-request",
        ),
        (
            "PUT",
            "/kv/a",
            &[good, ("edgeweir-groups", most)],
            b"",
            "201",
        ),
        (
            "PUT",
            "/kv/a",
            &[good, ("edgeweir-groups", more)],
            b"",
            "bad-request",
        ),
        (
            "POST",
            "/cache/invalidate?some=1",
            &[good],
            b"",
            "bad-request",
        ),
        ("POST", "/limit", &[good], b"\x02", "bad-request"),
        ("PATCH", "/kv/a", &[good], b"", "method-not-allowed"),
        ("GET", "/stats", &[good], b"", "200"),
        ("PUT", "/kv/a", &[good], &large, "body-too-large"),
    ] {
        let answer = client.ask(method, path, fields, body);
        assert_eq!(answer.name(), want, "{method} {path}");
    }
    assert!(store.stop(), "SIGTERM ends it well");
}

#[test]
fn off_loopback_it_refuses_without_a_token() {
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_edgeweir-store"))
        .args(["--memory", "--listen", "0.0.0.0:0"])
        .env_remove("EDGEWEIR_STORE_TOKEN")
        .output()
        .expect("ran");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(
        !out.status.success() && said.contains("give a token"),
        "{said}"
    );
}

#[test]
fn a_lease_is_one_until_it_is_released_or_its_time_is_over() {
    on_each(|client| {
        let lease = ("edgeweir-lease", "60000");
        let release = ("edgeweir-lease", "release");
        assert_eq!(client.ask("GET", A, &[lease], b"").name(), "not-found");
        assert_eq!(client.ask("GET", A, &[lease], b"").name(), "lease-held");
        assert_eq!(client.ask("GET", A, &[], b"").name(), "not-found");
        assert_eq!(client.ask("GET", B, &[lease], b"").name(), "not-found");
        assert_eq!(client.ask("DELETE", B, &[release], b"").status, 204);
        let short = ("edgeweir-lease", "100");
        assert_eq!(client.ask("GET", B, &[short], b"").name(), "not-found");
        assert_eq!(client.ask("GET", B, &[lease], b"").name(), "lease-held");
        std::thread::sleep(std::time::Duration::from_millis(150));
        assert_eq!(client.ask("GET", B, &[lease], b"").name(), "not-found");
        assert_eq!(client.ask("PUT", A, &[TTL, release], b"v").status, 204);
        assert_eq!(client.ask("GET", A, &[lease], b"").body, b"v");
        assert_eq!(client.ask("DELETE", A, &[release], b"").status, 204);
        assert_eq!(client.ask("GET", A, &[], b"").body, b"v", "only the lease");
        assert_eq!(client.ask("DELETE", A, &[], b"").status, 204);
        assert_eq!(client.ask("GET", A, &[lease], b"").name(), "not-found");
        for bad in ["0", "60001", "x", ""] {
            let bad = [("edgeweir-lease", bad)];
            assert_eq!(client.ask("GET", A, &bad, b"").name(), "bad-request");
        }
    });
}

#[test]
fn what_edges_tell_one_another_is_heard_once() {
    on_each(|client| {
        let hear = |client: &mut Client, mark: &str| {
            let answer = client.ask("GET", &format!("/cache/news?since={mark}"), &[], b"");
            let text = String::from_utf8(answer.body).expect("text");
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        let start = hear(client, "");
        assert_eq!((start.len(), start[1].as_str()), (2, "lost"));
        let all = "/cache/invalidate?all=1";
        assert_eq!(client.ask("POST", all, &[], b"").status, 204);
        for line in ["one", "two 2"] {
            let told = client.ask("POST", all, &[("edgeweir-news", line)], b"");
            assert_eq!(told.status, 204);
        }
        let news = hear(client, &start[0]);
        assert_eq!(news[1..], ["known", "one", "two 2"]);
        assert_eq!(hear(client, &news[0])[1..], ["known"]);
        for at in 0..300 {
            let line = at.to_string();
            client.ask("POST", all, &[("edgeweir-news", &line)], b"");
        }
        let first = hear(client, &news[0]);
        let second = hear(client, &first[0]);
        assert_eq!((first.len(), second.len()), (258, 46));
        assert_eq!(second.last().map(String::as_str), Some("299"));
        assert_eq!(hear(client, "another-5")[1], "lost");
        let long = "x".repeat(12 * 1024 + 1);
        let told = client.ask("POST", all, &[("edgeweir-news", &long)], b"");
        assert_eq!(told.name(), "bad-request");
    });
}
