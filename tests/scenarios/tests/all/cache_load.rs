//! The cache under load, in a real Envoy with two workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use edgeweir_scenarios::client::Client;
use edgeweir_scenarios::hosts::{self, Host, Running, envoy};
use edgeweir_scenarios::load::{Upstream, page, pipelined};
use edgeweir_scenarios::{Request, Seen, Setup, cache, get, request};
use serde_json::{Value, json};

const TOKEN: &str = "a-token-for-the-tests";

/// An Envoy of its own with the cache in front of this origin.
fn start(config: Value, origin: &Upstream) -> Running {
    let modules = hosts::modules().expect("the modules are built");
    let setup = Setup::of([cache(config)]);
    let bootstrap = envoy::bootstrap(&setup, &modules, origin.address);
    let folder = hosts::folder(Host::Envoy).expect("a folder");
    envoy::run(&folder, "envoy.json", &bootstrap.to_string(), 2).expect("Envoy starts")
}

fn ask(client: &mut Client, request: &Request) -> Seen {
    client.send(request, &request.path).expect("it is sent");
    client
        .receive(request.method == "HEAD")
        .expect("a response")
}

/// Connections that the kernel spread over both workers; sixteen all on one are one in 32,768.
fn connections(edge: &Running) -> Vec<Client> {
    let connect = |_| Client::connect(edge.address).expect("connects");
    (0..16).map(connect).collect()
}

/// Asks in turn until each connection had a hit three times running; what the last one saw.
fn warm(clients: &mut [Client], path: &str) -> Seen {
    let mut seen = Seen::default();
    for client in clients {
        let mut hits = 0;
        for _ in 0..100 {
            seen = ask(client, &get(path));
            assert_eq!(seen.status, 200);
            hits = match seen.text("cache-status").contains("; hit") {
                true => hits + 1,
                false => 0,
            };
            if hits == 3 {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(hits, 3, "no hits: {}", seen.text("cache-status"));
    }
    seen
}

#[test]
fn a_hundred_thousand_keys_leave_memory_flat() {
    const KEYS: usize = 100_000;
    const CONNECTIONS: usize = 8;
    let body = vec![b'x'; 1_024];
    let origin = Upstream::start(move |_| page("cache-control: max-age=3600\r\n", &body));
    let origin = origin.expect("an origin");
    let edge = start(json!({}), &origin);
    let half = |from: usize| {
        let clients: Vec<_> = (0..CONNECTIONS)
            .map(|client| {
                let (address, keys) = (edge.address, from..from + KEYS / 2);
                thread::spawn(move || {
                    let mine = keys.skip(client).step_by(CONNECTIONS);
                    pipelined(address, mine.map(|key| format!("/{key}")), 32)
                })
            })
            .collect();
        let good = clients.into_iter().map(|client| {
            let good = client.join().expect("a client ends");
            good.expect("every response comes")
        });
        assert_eq!(good.sum::<usize>(), KEYS / 2, "all are 200");
        edge.memory().expect("its memory is known") / 1024
    };
    let first = half(0);
    let second = half(KEYS / 2);
    println!(
        "{first} KiB after {} keys, {second} KiB after {KEYS}",
        KEYS / 2
    );
    assert_eq!(origin.asked(), KEYS, "every key is another");
    // Allocators keep a little more now and then; a key that was kept for good would cost over 200 bytes.
    let growth = second.saturating_sub(first);
    assert!(
        growth < 8 * 1024,
        "{first} KiB after half of the keys, {second} KiB after all"
    );
}

#[test]
fn eight_hundred_misses_for_one_key_ask_once_per_worker() {
    // About 400 for each worker: streams that wait go on out of one another's callbacks, and at about 300 deep a worker's
    // stack was at its end.
    const CLIENTS: usize = 800;
    let origin = Upstream::start(|_| {
        thread::sleep(Duration::from_millis(700));
        page("cache-control: max-age=3600\r\n", b"once")
    });
    let origin = origin.expect("an origin");
    let edge = start(json!({}), &origin);
    let connect = |_| Client::connect(edge.address).expect("connects");
    let mut clients: Vec<Client> = (0..CLIENTS).map(connect).collect();
    for client in &mut clients {
        client.send(&get("/one"), "/one").expect("it is sent");
    }
    let mut other = Vec::new();
    for (at, client) in clients.iter_mut().enumerate() {
        match client.receive(false) {
            Ok(seen) if (seen.status, &seen.body[..]) == (200, b"once") => {}
            Ok(seen) => other.push(format!("{at}: {} {}", seen.status, seen.body_text())),
            Err(error) => {
                other.push(format!("{at}: {error}"));
                break;
            }
        }
    }
    let asked = origin.asked();
    assert!(
        other.is_empty(),
        "{asked} requests to the origin, these clients saw something else: {other:?}; the log: {}",
        hosts::tail(&edge.log)
    );
    assert!((1..=2).contains(&asked), "{asked} requests to the origin");
}

#[test]
fn a_purge_is_seen_by_both_workers() {
    let version = Arc::new(AtomicUsize::new(1));
    let current = Arc::clone(&version);
    let origin = Upstream::start(move |_| {
        let version = format!("version {}", current.load(Ordering::SeqCst));
        page(
            "cache-control: max-age=3600\r\nsurrogate-key: all\r\n",
            version.as_bytes(),
        )
    });
    let origin = origin.expect("an origin");
    let edge = start(json!({ "admin": { "token": TOKEN } }), &origin);
    let mut clients = connections(&edge);
    let authorization = format!("Bearer {TOKEN}");
    let by_uri = request("PURGE", "/page").field("authorization", &authorization);
    let by_tag = by_uri.clone().field("surrogate-key", "all");
    let denied = ask(&mut clients[0], &request("PURGE", "/page"));
    assert_eq!(denied.status, 401, "without the token");
    for (round, purge) in [by_uri.clone(), by_tag, by_uri].into_iter().enumerate() {
        assert_eq!(
            warm(&mut clients, "/page").body_text(),
            format!("version {}", round + 1)
        );
        version.fetch_add(1, Ordering::SeqCst);
        // Another connection purges each time.
        let purged = ask(&mut clients[round * 5], &purge);
        assert_eq!(purged.status, 200, "{}", purged.body_text());
        for client in &mut clients {
            let seen = ask(client, &get("/page"));
            assert_eq!(
                seen.body_text(),
                format!("version {}", round + 2),
                "after purge {round}: {}",
                seen.text("cache-status")
            );
        }
    }
}

#[test]
fn a_dead_origin_is_covered_where_it_may_be() {
    let origin = Upstream::start(|path| match path {
        "/strict" => page(
            "cache-control: max-age=1, must-revalidate\r\netag: \"1\"\r\n",
            b"strict",
        ),
        _ => page("cache-control: max-age=1\r\netag: \"1\"\r\n", b"plain"),
    });
    let origin = origin.expect("an origin");
    let edge = start(json!({}), &origin);
    let mut clients = connections(&edge);
    for path in ["/plain", "/strict"] {
        assert_eq!(ask(&mut clients[0], &get(path)).status, 200);
    }
    thread::sleep(Duration::from_millis(2_200));
    origin.close();
    for client in &mut clients {
        let seen = ask(client, &get("/plain"));
        let said = seen.text("cache-status");
        assert_eq!(
            (seen.status, seen.body_text().as_str()),
            (200, "plain"),
            "{said}"
        );
        // RFC 9111 §5.2.2.2: a cache that can't reach the origin MUST generate an error, 504 SHOULD be used.
        let seen = ask(client, &get("/strict"));
        assert_eq!(seen.status, 504, "{}", seen.text("cache-status"));
    }
}
