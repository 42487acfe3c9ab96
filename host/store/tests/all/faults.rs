//! A real Redis that is down, hung, slow, flushed, full, restarted, or wants another password.

use std::time::{Duration, Instant};

use edgeweir_host_store::limit::Limit;
use edgeweir_host_store::wire::{Ask, ask_bytes};

use crate::process::{Client, Redis, Store, signal};

const TIMEOUT: Duration = Duration::from_millis(100);

/// The names of the answers to `n` writes and reads, each within the time-out (and what the machine adds).
fn names(client: &mut Client, n: usize) -> Vec<String> {
    let ask = |at: usize| {
        let since = Instant::now();
        let answer = match at % 2 {
            0 => client.ask("PUT", "/kv/a", &[("edgeweir-ttl", "60")], b"v"),
            _ => client.ask("GET", "/kv/a", &[], b""),
        };
        // A busy machine wakes late: that is not the store waiting for Redis.
        assert!(since.elapsed() < TIMEOUT * 5, "{:?}", since.elapsed());
        answer.name()
    };
    (0..n).map(ask).collect()
}

fn works_again(client: &mut Client) {
    let until = Instant::now() + Duration::from_secs(10);
    while client.ask("PUT", "/kv/again", &[], b"v").status >= 500 {
        assert!(Instant::now() < until, "it does not come back");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(client.ask("GET", "/kv/again", &[], b"").body, b"v");
}

fn only(names: &[String], allowed: &[&str]) {
    let all_known = names.iter().all(|name| allowed.contains(&name.as_str()));
    assert!(
        all_known && names.iter().any(|it| it == allowed[0]),
        "{names:?}, allowed {allowed:?}"
    );
}

#[test]
fn down_and_restarted() {
    let mut redis = Redis::start(&[]);
    let store = Store::start(&["--redis", &redis.url()]);
    let mut client = store.client();
    works_again(&mut client);
    redis.down();
    only(
        &names(&mut client, 20),
        &["redis-unreachable", "redis-breaker-open", "redis-timed-out"],
    );
    assert_eq!(client.ask("GET", "/health", &[], b"").status, 503);
    // It comes back empty, without scripts: they are loaded again.
    redis.again();
    works_again(&mut client);
}

#[test]
fn down_at_the_start() {
    let mut redis = Redis::start(&[]);
    redis.down();
    let store = Store::start(&["--redis", &redis.url()]);
    let mut client = store.client();
    only(
        &names(&mut client, 4),
        &["redis-unreachable", "redis-breaker-open", "redis-timed-out"],
    );
    redis.again();
    works_again(&mut client);
}

#[test]
fn hung() {
    let redis = Redis::start(&[]);
    let store = Store::start(&["--redis", &redis.url()]);
    let mut client = store.client();
    works_again(&mut client);
    signal(redis.pid(), libc::SIGSTOP);
    let since = Instant::now();
    let names = names(&mut client, 40);
    only(&names, &["redis-timed-out", "redis-breaker-open"]);
    let waited = names.iter().filter(|it| *it == "redis-timed-out").count();
    assert!(
        waited < 12,
        "a Redis that is gone costs a few time-outs, not each request one: {waited}"
    );
    println!("hung: {waited} of 40 waited, {:?} in all", since.elapsed());
    signal(redis.pid(), libc::SIGCONT);
    works_again(&mut client);
}

#[test]
fn slow() {
    let redis = Redis::start(&[]);
    let store = Store::start(&["--redis", &redis.url()]);
    let mut client = store.client();
    works_again(&mut client);
    // Redis answers others only when a script ends.
    let port = redis.port.to_string();
    let mut stop = std::process::Command::new("redis-cli")
        .args(["-p", &port, "EVAL", "local t = redis.call('TIME') local till = t[1] * 1000 + t[2] / 1000 + 900 repeat t = redis.call('TIME') until t[1] * 1000 + t[2] / 1000 > till", "0"])
        .spawn()
        .expect("redis-cli");
    std::thread::sleep(Duration::from_millis(150));
    only(
        &names(&mut client, 8),
        &["redis-timed-out", "redis-breaker-open"],
    );
    stop.wait().expect("ended");
    works_again(&mut client);
}

#[test]
fn flushed() {
    let redis = Redis::start(&[]);
    let store = Store::start(&["--redis", &redis.url()]);
    let mut client = store.client();
    let fields = [("edgeweir-groups", "g")];
    assert_eq!(client.ask("PUT", "/kv/a", &fields, b"one").status, 201);
    let version = client
        .ask("GET", "/kv/a", &[], b"")
        .field("etag")
        .to_owned();
    redis.cli(&["FLUSHALL"]);
    redis.cli(&["SCRIPT", "FLUSH"]);
    assert_eq!(client.ask("GET", "/kv/a", &[], b"").name(), "not-found");
    // A version from before does not come back.
    assert_eq!(client.ask("PUT", "/kv/a", &[], b"two").status, 201);
    let stale = client.ask("PUT", "/kv/a", &[("if-match", &version)], b"x");
    assert_eq!(stale.name(), "precondition-failed");
    // A generation that Redis lost takes what was written under it along, and brings nothing back.
    client.ask("PUT", "/kv/b", &fields, b"one");
    redis.cli(&["DEL", "{edgeweir:0}:g:k:g"]);
    client.ask("PUT", "/kv/c", &fields, b"two");
    assert_eq!(client.ask("GET", "/kv/b", &[], b"").status, 404);
    assert_eq!(client.ask("GET", "/kv/c", &[], b"").body, b"two");
}

#[test]
fn out_of_memory() {
    let redis = Redis::start(&["--maxmemory-policy", "noeviction"]);
    let store = Store::start(&["--redis", &redis.url(), "--redis-timeout-ms", "2000"]);
    let mut client = store.client();
    client.ask("PUT", "/kv/a", &[("edgeweir-groups", "g")], b"kept");
    let ask = ask_bytes(&[Ask {
        key: b"known".to_vec(),
        cost: 1,
        charge: false,
        limits: vec![Limit::Gcra {
            interval: 3_600_000_000_000,
            tolerance: 360_000_000_000_000,
        }],
    }]);
    assert_eq!(client.ask("POST", "/limit", &[], &ask).status, 200);
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let undecided = client.ask("POST", "/limit", &[], &ask);
    assert_eq!(
        (undecided.status, undecided.name().as_str()),
        (503, "redis-out-of-memory"),
        "it counts for nobody, so it is to be left alone"
    );
    let full = client.ask("PUT", "/kv/b", &[], b"more");
    assert_eq!(
        (full.status, full.name().as_str()),
        (507, "redis-out-of-memory")
    );
    assert_eq!(
        client.ask("GET", "/kv/a", &[], b"").body,
        b"kept",
        "reads go on"
    );
    // An invalidation works without memory, if only by forgetting more.
    assert_eq!(
        client
            .ask("POST", "/kv/invalidate?prefix=a", &[], b"")
            .status,
        204
    );
    assert_eq!(client.ask("GET", "/kv/a", &[], b"").status, 404);
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    works_again(&mut client);
}

#[test]
fn wrong_password() {
    let redis = Redis::start(&["--requirepass", "right"]);
    let wrong = format!("redis://:wrong@127.0.0.1:{}", redis.port);
    let store = Store::start(&["--redis", &wrong]);
    assert!(
        !store.lines.concat().contains("wrong"),
        "no password is printed: {:?}",
        store.lines
    );
    let mut client = store.client();
    only(
        &names(&mut client, 8),
        &["redis-denied", "redis-breaker-open"],
    );
    let none = Store::start(&["--redis", &redis.url()]);
    only(
        &names(&mut none.client(), 8),
        &["redis-denied", "redis-breaker-open"],
    );
    let right = format!("redis://:right@127.0.0.1:{}", redis.port);
    works_again(&mut Store::start(&["--redis", &right]).client());
}

/// A Redis that speaks TLS only, with a certificate signed by nobody else.
#[test]
fn over_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("text").to_owned();
    let (key, certificate) = (path("key.pem"), path("certificate.pem"));
    let made = std::process::Command::new("openssl")
        .args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1",
        ])
        .args(["-keyout", &key, "-out", &certificate])
        .args([
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
        ])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .output();
    let made = made.expect("openssl");
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port().to_string();
    drop(listener);
    // Beside its plain port, which nobody uses here.
    let redis = Redis::start(&[
        "--tls-port",
        &port,
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &certificate,
        "--tls-auth-clients",
        "no",
    ]);
    let url = format!("rediss://127.0.0.1:{port}");
    let options = ["--redis", &url, "--redis-timeout-ms", "5000"];
    let trusts = Store::start(&[&options[..], &["--redis-ca", &certificate]].concat());
    works_again(&mut trusts.client());
    assert!(redis.cli(&["DBSIZE"]).trim() != "0");
    // The system does not know who signed it.
    let doubts = Store::start(&options);
    assert_eq!(
        doubts.client().ask("PUT", "/kv/a", &[], b"v").name(),
        "redis-unreachable"
    );
    let plain = format!("redis://127.0.0.1:{port}");
    let plain = Store::start(&["--redis", &plain, "--redis-timeout-ms", "500"]);
    assert!(plain.client().ask("PUT", "/kv/a", &[], b"v").status >= 500);
}
