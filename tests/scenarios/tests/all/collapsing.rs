//! Many clients who ask for the same at once: the origin is asked once per worker, and nobody is kept waiting for long.

use std::thread;
use std::time::{Duration, Instant};

use edgeweir_scenarios::client;
use edgeweir_scenarios::{Edge, Host, Origin, Request, Seen, cache, get, on_each_host};
use serde_json::json;

const CLIENTS: usize = 24;

/// All at once; `None` where the connection ended without an answer. Nothing happens at once on the pure contract.
fn at_once(
    edge: &mut Edge,
    asked: &Request,
    origin: &Origin,
) -> Option<(Vec<Option<Seen>>, usize)> {
    let address = edge.address()?;
    edge.origin_does(origin);
    let path = edge.path(&asked.path);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (asked, path) = (asked.clone(), path.clone());
            thread::spawn(move || client::exchange(address, &asked, &path).ok())
        })
        .collect();
    let seen = clients
        .into_iter()
        .map(|client| client.join().ok().flatten());
    let seen = seen.collect();
    Some((seen, edge.received().len()))
}

fn slow(body: &str) -> Origin {
    Origin::text(body).delay(Duration::from_millis(400))
}

on_each_host!(one_of_many_asks_the_origin, [cache(json!({}))], |edge| {
    let origin = slow("shared").field("cache-control", "max-age=60");
    let Some((seen, asked)) = at_once(edge, &get("/a"), &origin) else {
        return;
    };
    for seen in &seen {
        let seen = seen.as_ref().expect("an answer");
        assert_eq!((seen.status, seen.body_text().as_str()), (200, "shared"));
    }
    // Two workers at most, each of which may ask for itself; of instances, which share nothing, there are a few.
    let most = if edge.host() == Host::WasiHttp { 6 } else { 2 };
    assert!(asked <= most, "the origin was asked {asked} times");
});

on_each_host!(
    what_is_not_shared_is_asked_for_by_each,
    [cache(json!({}))],
    |edge| {
        for control in ["private", "no-store"] {
            let origin = slow("own").field("cache-control", control);
            let path = format!("/{control}");
            let begun = Instant::now();
            let Some((seen, asked)) = at_once(edge, &get(&path), &origin) else {
                return;
            };
            for seen in &seen {
                let seen = seen.as_ref().expect("an answer");
                assert_eq!((seen.status, seen.body_text().as_str()), (200, "own"));
            }
            assert_eq!(
                asked, CLIENTS,
                "{control}: somebody got what was for another"
            );
            // One after the other would take ten seconds.
            assert!(
                begun.elapsed() < Duration::from_secs(5),
                "{:?}",
                begun.elapsed()
            );
        }
    }
);

on_each_host!(
    nobody_hangs_when_the_one_who_asks_fails,
    [cache(json!({}))],
    |edge| {
        let gone = Origin::gone().delay(Duration::from_millis(400));
        let cut = slow("half of it")
            .field("cache-control", "max-age=60")
            .cut();
        let error = {
            let mut error = slow("broken");
            error.status = 500;
            error
        };
        for (path, origin) in [("/gone", gone), ("/cut", cut), ("/error", error)] {
            let begun = Instant::now();
            let Some((seen, _)) = at_once(edge, &get(path), &origin) else {
                return;
            };
            for seen in seen.iter().flatten() {
                assert!(
                    seen.status >= 500 || !seen.complete,
                    "{path}: {} {}",
                    seen.status,
                    seen.body_text()
                );
            }
            assert!(
                begun.elapsed() < Duration::from_secs(15),
                "{path}: {:?}",
                begun.elapsed()
            );
        }
    }
);

on_each_host!(
    those_with_authorization_do_not_wait_for_others,
    [cache(json!({}))],
    |edge| {
        let origin = slow("own").field("cache-control", "max-age=60");
        let asked = get("/a").field("authorization", "Bearer anna");
        let Some((seen, asked)) = at_once(edge, &asked, &origin) else {
            return;
        };
        assert!(seen.iter().flatten().all(|seen| seen.body_text() == "own"));
        assert_eq!(asked, CLIENTS, "somebody got what was for another");
    }
);

on_each_host!(
    when_the_one_who_asks_leaves_one_of_the_others_asks,
    [cache(json!({}))],
    |edge| {
        let Some(address) = edge.address() else {
            return;
        };
        let origin = slow("shared").field("cache-control", "max-age=60");
        edge.origin_does(&origin);
        let path = edge.path("/a");
        let mut leader = client::Client::connect(address).expect("a connection");
        leader.send(&get("/a"), &path).expect("sent");
        while edge.received().is_empty() {
            thread::sleep(Duration::from_millis(10));
        }
        let others: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let path = path.clone();
                thread::spawn(move || client::exchange(address, &get("/a"), &path).ok())
            })
            .collect();
        thread::sleep(Duration::from_millis(150));
        leader.leave();
        for other in others {
            let seen = other.join().ok().flatten().expect("an answer");
            assert_eq!((seen.status, seen.body_text().as_str()), (200, "shared"));
        }
        // As many as when nobody leaves, and one more.
        let most = if edge.host() == Host::WasiHttp { 7 } else { 3 };
        let asked = edge.received().len();
        assert!(asked <= most, "the origin was asked {asked} times");
    }
);
