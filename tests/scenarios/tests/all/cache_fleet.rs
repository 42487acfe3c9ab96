//! Two machines, each with a store of its own, both stores over one Redis: what one caches, purges and asks for, the other
//! knows; and whatever happens to the store or to Redis, no exchange fails.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use edgeweir_scenarios::hosts::Running;
use edgeweir_scenarios::machines::{RealStore, Redis};
use edgeweir_scenarios::{
    Host, Origin, Request, Seen, Setup, cache, client, get, hosts, origin, request,
};
use serde_json::json;

const TOKEN: &str = "a-token-of-enough-characters";
/// What machines hear from one another is at most this old: 2 × `news_ms` and a read.
const BOUND: Duration = Duration::from_millis(2 * 500 + 20);

struct Fleet {
    redis: Redis,
    stores: [RealStore; 2],
    machines: [Running; 2],
    segment: String,
}

fn setup(store: SocketAddr, timeout_ms: u64) -> Setup {
    Setup::of([cache(json!({
        "admin": { "token": TOKEN },
        "l3": { "to": store.to_string(), "timeout_ms": timeout_ms }
    }))])
    .server(store)
}

impl Fleet {
    fn start(host: Host, name: &str, timeout_ms: u64) -> Self {
        let redis = Redis::start().expect("a Redis");
        let store = || RealStore::over(&redis, Duration::from_secs(2)).expect("a store");
        let stores = [store(), store()];
        let machines = stores.each_ref().map(|store| {
            let running = hosts::start(host, &setup(store.address, timeout_ms));
            running.expect("it starts").expect("it is there")
        });
        Self {
            redis,
            stores,
            machines,
            segment: format!("fleet-{name}-{}", host.name()),
        }
    }

    fn does(&self, answer: &Origin) {
        origin::server().answer(&self.segment, answer);
        origin::server().received(&self.segment);
    }

    fn asked(&self) -> usize {
        origin::server().received(&self.segment).len()
    }

    fn send(&self, machine: usize, asked: &Request) -> Seen {
        let path = format!("/{}{}", self.segment, asked.path);
        client::exchange(self.machines[machine].address, asked, &path).expect("a response")
    }

    /// Both workers of a machine have it then, as far as they ever do.
    fn warm(&self, path: &str, want: &str) {
        for at in 0..12 {
            let seen = self.send(at % 2, &get(path));
            assert_eq!(seen.body_text(), want, "{}", seen.text("cache-status"));
        }
    }
}

fn fresh(body: &str) -> Origin {
    Origin::text(body)
        .field("cache-control", "max-age=600")
        .field("surrogate-key", "news")
}

fn purge(path: &str) -> Request {
    request("PURGE", path).field("authorization", format!("Bearer {TOKEN}"))
}

fn shared(host: Host) {
    let fleet = Fleet::start(host, "shared", 5000);
    fleet.does(&fresh("old"));
    assert_eq!(fleet.send(0, &get("/a")).body_text(), "old");
    // It is written behind the response's back.
    thread::sleep(Duration::from_millis(300));
    let seen = fleet.send(1, &get("/a"));
    assert!(
        seen.text("cache-status").contains("; hit"),
        "{}",
        seen.text("cache-status")
    );
    assert_eq!(fleet.asked(), 1);

    for (name, path, purge) in [
        (
            "by tag",
            "/tag",
            purge("/tag").field("surrogate-key", "news"),
        ),
        ("by key", "/key", purge("/key")),
        (
            "softly",
            "/soft",
            purge("/soft").field("edgeweir-soft", "1"),
        ),
    ] {
        fleet.does(&fresh("old"));
        fleet.warm(path, "old");
        fleet.does(&fresh("new"));
        let purged = fleet.send(0, &purge);
        assert_eq!(purged.status, 200, "{name}: {}", purged.body_text());
        thread::sleep(BOUND);
        // Nobody asked meanwhile: the first request hears of it before it is answered.
        fleet.warm(path, "new");
    }

    // With clients all the time it is heard in the background.
    fleet.does(&fresh("old"));
    fleet.warm("/busy", "old");
    fleet.does(&fresh("new"));
    let busy = purge("/busy").field("surrogate-key", "news");
    assert_eq!(fleet.send(0, &busy).status, 200);
    let purged = Instant::now();
    let mut last = Duration::ZERO;
    while purged.elapsed() < BOUND * 2 {
        if fleet.send(1, &get("/busy")).body_text() == "old" {
            last = purged.elapsed();
        }
        thread::sleep(Duration::from_millis(2));
    }
    println!("{host}: the other machine used what was purged for {last:?}");
    // The machine that runs this may be busy itself.
    assert!(last < BOUND + Duration::from_millis(500), "{last:?}");
    assert_eq!(fleet.send(1, &get("/busy")).body_text(), "new");
}

#[test]
fn two_envoys_share_what_is_stored_and_purged() {
    shared(Host::Envoy);
}

#[test]
fn two_hosts_of_modules_share_what_is_stored_and_purged() {
    shared(Host::ProxyWasm);
}

#[test]
fn two_hosts_of_components_share_what_is_stored_and_purged() {
    shared(Host::WasiHttp);
}

/// A body that takes its time, and an invalidation meanwhile, at the same machine or at the other: a machine that starts
/// afterwards knows of no invalidation.
fn on_its_way(host: Host) {
    let fleet = Fleet::start(host, "way", 5000);
    // Each is in a group of its own.
    let slow = |path: &str| {
        Origin::text("")
            .pieces(["o", "ld"])
            .pause(Duration::from_millis(800))
            .field("cache-control", "max-age=600")
            .field("surrogate-key", path)
    };
    let tag = |path: &str| purge("/").field("surrogate-key", path);
    let cases = [
        ("/key", 0, purge("/key")),
        ("/elsewhere", 1, purge("/elsewhere")),
        ("/tag", 0, tag("/tag")),
        ("/tag/elsewhere", 1, tag("/tag/elsewhere")),
        ("/unsafe", 0, request("POST", "/unsafe")),
    ];
    for (path, at, invalidation) in &cases {
        fleet.does(&slow(path));
        let address = fleet.machines[0].address;
        let whole = format!("/{}{path}", fleet.segment);
        let client = thread::spawn(move || client::exchange(address, &get("/"), &whole));
        thread::sleep(Duration::from_millis(300));
        fleet.does(&fresh("new"));
        let done = fleet.send(*at, invalidation);
        assert_eq!(done.status, 200, "{path}: {}", done.body_text());
        let seen = client.join().expect("a client").expect("a response");
        assert_eq!(seen.body_text(), "old", "{path}");
    }
    thread::sleep(BOUND);
    let started = hosts::start(host, &setup(fleet.stores[0].address, 5000));
    let started = started.expect("it starts").expect("it is there");
    for (path, ..) in &cases {
        let whole = format!("/{}{path}", fleet.segment);
        let seen = client::exchange(started.address, &get("/"), &whole).expect("a response");
        let said = seen.text("cache-status");
        assert_eq!(seen.body_text(), "new", "{path}: {said}");
    }
}

#[test]
fn what_was_on_its_way_to_envoy_during_a_purge_does_not_come_back() {
    on_its_way(Host::Envoy);
}

#[test]
fn what_was_on_its_way_to_a_module_during_a_purge_does_not_come_back() {
    on_its_way(Host::ProxyWasm);
}

#[test]
fn what_was_on_its_way_to_a_component_during_a_purge_does_not_come_back() {
    on_its_way(Host::WasiHttp);
}

/// Components for Spin need no store between them and Redis: they speak its protocol over `spin:redis`.
fn over_redis(redis: &Redis, timeout_ms: u64) -> Running {
    let address = redis.url().replace("redis://", "");
    let address: SocketAddr = address.parse().expect("an address");
    let config = json!({
        "admin": { "token": TOKEN },
        "l3": { "to": redis.url(), "timeout_ms": timeout_ms }
    });
    let setup = Setup::of([cache(config)]).server(address).on_spins_stores();
    let running = hosts::start(Host::WasiHttp, &setup).expect("it starts");
    running.expect("it is there")
}

#[test]
fn two_hosts_share_over_spin_redis_and_with_an_envoy_over_the_store() {
    let redis = Redis::start().expect("a Redis");
    let store = RealStore::over(&redis, Duration::from_secs(2)).expect("a store");
    let envoy = hosts::start(Host::Envoy, &setup(store.address, 5000));
    let machines = [
        over_redis(&redis, 5000),
        over_redis(&redis, 5000),
        envoy.expect("it starts").expect("it is there"),
    ];
    let segment = "fleet-spin-redis";
    let does = |answer: &Origin| origin::server().answer(segment, answer);
    let send = |at: usize, asked: &Request| {
        let path = format!("/{segment}{}", asked.path);
        client::exchange(machines[at].address, asked, &path).expect("a response")
    };
    for (name, path, purge) in [
        (
            "by tag",
            "/tag",
            purge("/tag").field("surrogate-key", "news"),
        ),
        ("by key", "/key", purge("/key")),
    ] {
        for from in 0..machines.len() {
            let path = format!("{path}/{from}");
            let asks = get(&path);
            let mut purge = purge.clone();
            purge.path = path;
            does(&fresh("old"));
            assert_eq!(send(from, &asks).body_text(), "old", "{name} {from}");
            thread::sleep(Duration::from_millis(300));
            does(&fresh("new"));
            for at in 0..machines.len() {
                let seen = send(at, &asks);
                let said = seen.text("cache-status");
                assert_eq!(seen.body_text(), "old", "{name} {from} {at}: {said}");
            }
            let purged = send(from, &purge);
            assert_eq!(purged.status, 200, "{name}: {}", purged.body_text());
            thread::sleep(BOUND);
            for at in 0..machines.len() {
                let seen = send(at, &asks);
                let said = seen.text("cache-status");
                assert_eq!(seen.body_text(), "new", "{name} {from} {at}: {said}");
            }
        }
    }
}

#[test]
fn spin_redis_in_trouble_fails_no_exchange() {
    let mut redis = Redis::start().expect("a Redis");
    let machine = over_redis(&redis, 300);
    let segment = "fleet-spin-trouble";
    origin::server().answer(segment, &fresh("body"));
    let send_some = |name: &str| {
        let begun = Instant::now();
        for at in 0..20 {
            let path = format!("/{segment}/{name}/{at}");
            let seen = client::exchange(machine.address, &get("/"), &path).expect("a response");
            assert_eq!(
                (seen.status, seen.body_text().as_str()),
                (200, "body"),
                "{name}"
            );
        }
        println!("{name}: 20 misses took {:?}", begun.elapsed());
    };
    let kept = |redis: &Redis| redis.command(&["DBSIZE"]).expect("an answer") != ":0\r\n";
    send_some("well");
    assert!(kept(&redis), "nothing is in Redis");
    redis.hangs(true);
    send_some("hangs");
    redis.hangs(false);
    redis.down();
    send_some("down");
    redis.again().expect("it starts again");
    // Its connections are opened anew, by themselves.
    let until = Instant::now() + Duration::from_secs(20);
    let mut round = 0;
    while !kept(&redis) {
        assert!(Instant::now() < until, "it is not used again");
        round += 1;
        send_some(&format!("again-{round}"));
        thread::sleep(Duration::from_millis(100));
    }
}

/// 50 clients at each of two machines at once: the origin is asked once, at first and again after a purge.
fn stampede(host: Host) {
    let fleet = Fleet::start(host, "stampede", 5000);
    fleet.does(&fresh("warm"));
    fleet.warm("/warm", "warm");
    for round in 0..3 {
        let body = format!("round {round}");
        fleet.does(&fresh(&body).delay(Duration::from_millis(200)));
        let clients: Vec<_> = (0..100)
            .map(|at| {
                let address = fleet.machines[at % 2].address;
                let path = format!("/{}/stampede", fleet.segment);
                thread::spawn(move || client::exchange(address, &get("/stampede"), &path))
            })
            .collect();
        for client in clients {
            let seen = client.join().expect("a client").expect("a response");
            assert_eq!((seen.status, seen.body_text()), (200, body.clone()));
        }
        assert_eq!(fleet.asked(), 1, "round {round}");
        let purged = fleet.send(round % 2, &purge("/stampede"));
        assert_eq!(purged.status, 200, "{}", purged.body_text());
        thread::sleep(BOUND);
    }
}

#[test]
fn a_stampede_at_two_envoys_is_one_request() {
    stampede(Host::Envoy);
}

#[test]
fn a_stampede_at_two_hosts_of_modules_is_one_request() {
    stampede(Host::ProxyWasm);
}

#[test]
fn no_trouble_of_store_or_redis_fails_an_exchange() {
    let mut fleet = Fleet::start(Host::Envoy, "trouble", 20);
    fleet.does(&fresh("body"));
    let send_some = |fleet: &Fleet, name: &str| {
        let begun = Instant::now();
        for at in 0..40 {
            let seen = fleet.send(at % 2, &get(&format!("/{name}/{at}")));
            assert_eq!(
                (seen.status, seen.body_text().as_str()),
                (200, "body"),
                "{name}"
            );
        }
        let took = begun.elapsed();
        println!("{name}: 40 misses took {took:?}");
        assert!(took < Duration::from_secs(8), "{name} took {took:?}");
    };
    send_some(&fleet, "well");
    fleet.redis.hangs(true);
    send_some(&fleet, "redis-hangs");
    fleet.redis.hangs(false);
    fleet.redis.down();
    send_some(&fleet, "redis-down");
    fleet.redis.again().expect("it starts again");
    send_some(&fleet, "redis-empty");
    fleet.redis.command(&["FLUSHALL"]).expect("an answer");
    send_some(&fleet, "redis-flushed");
    let full = ["CONFIG", "SET", "maxmemory", "1"];
    fleet.redis.command(&full).expect("an answer");
    send_some(&fleet, "redis-full");
    let room = ["CONFIG", "SET", "maxmemory", "0"];
    fleet.redis.command(&room).expect("an answer");
    fleet.stores[0].hangs(true);
    send_some(&fleet, "store-hangs");
    fleet.stores[0].hangs(false);
    for store in &mut fleet.stores {
        store.down();
    }
    send_some(&fleet, "stores-down");
    for store in &mut fleet.stores {
        store.again().expect("it starts again");
    }
    // Nobody does anything: they are used again.
    let before = fleet.stores.each_ref().map(|store| store.counted("puts"));
    let until = Instant::now() + Duration::from_secs(20);
    let mut at = 0;
    while (0..2).any(|it| fleet.stores[it].counted("puts") <= before[it]) {
        assert!(Instant::now() < until, "they are not used again");
        at += 1;
        fleet.send(at % 2, &get(&format!("/again/{at}")));
        thread::sleep(Duration::from_millis(20));
    }
}
