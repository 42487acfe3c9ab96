//! Limits of global scope: machines that share a store share the limit.

use std::net::SocketAddr;
use std::time::Duration;

use edgeweir_scenarios::client::{self, Client};
use edgeweir_scenarios::hosts::Running;
use edgeweir_scenarios::machines::{RealStore, Redis};
use edgeweir_scenarios::{Host, Origin, Setup, get, hosts, on_each_host, origin, ratelimit};
use serde_json::{Value, json};

/// Forty at once for each value of `x-client`, in the store at this address.
fn forty(store: SocketAddr) -> Value {
    json!({
        // Long: a machine that also compiles is slow.
        "store": { "to": store.to_string(), "timeout_ms": 5000 },
        "rules": [{
            "name": "forty",
            "key": [{ "header": "x-client" }],
            "scope": "global",
            "on_store_failure": "closed",
            "limits": [{ "rate": "40/day" }, { "rate": "1000/second" }]
        }]
    })
}

#[test]
fn a_global_limit_is_decided_in_the_store() {
    let store = RealStore::start(&["--memory"]).expect("a store");
    let setup = Setup::of([ratelimit(forty(store.address))]).server(store.address);
    on_each_host("a_global_limit_is_decided_in_the_store", &setup, |edge| {
        let asks = get("/a").field("x-client", edge.host().name());
        let before = store.counted("admitted") + store.counted("limited");
        let seen: Vec<_> = (0..60)
            .map(|_| edge.send(&asks, &Origin::text("ok")))
            .collect();
        let statuses: Vec<u16> = seen.iter().map(|seen| seen.status).collect();
        assert!(
            statuses[..40].iter().all(|status| *status == 200),
            "{statuses:?}"
        );
        assert!(
            statuses[40..].iter().all(|status| *status == 429),
            "{statuses:?}"
        );
        assert!(
            seen[0].text("ratelimit").contains("\"forty\";r=39"),
            "{:?}",
            seen[0].fields
        );
        let policy = seen[59].text("ratelimit-policy");
        assert_eq!(policy, "\"forty\";q=40;w=86400, \"forty-2\";q=1000;w=1");
        assert_eq!(seen[59].json()["violated-policies"], json!(["forty"]));
        // One round trip for both limits; what is exhausted is known to each worker or instance then.
        let asked = store.counted("admitted") + store.counted("limited") - before;
        assert!((41..50).contains(&asked), "{asked}");
    });
}

/// 4 clients at each of two machines ask 200 times in all, in three rounds: 40 are admitted in each.
fn race(name: &str, machines: &[Running; 2]) {
    let path = format!("/two-{name}/a");
    let segment = path.trim_start_matches('/').trim_end_matches("/a");
    origin::server().answer(segment, &Origin::text("ok"));
    for round in 0..3 {
        let asks = get(&path).field("x-client", format!("{name}-{round}"));
        let racers: Vec<_> = (0..8)
            .map(|racer| {
                let (asks, path) = (asks.clone(), path.clone());
                let address = machines[racer % 2].address;
                std::thread::spawn(move || -> std::io::Result<Vec<u16>> {
                    let mut client = Client::connect(address)?;
                    let mut statuses = Vec::new();
                    for _ in 0..25 {
                        client.send(&asks, &path)?;
                        let seen = client.receive(false)?;
                        statuses.push(seen.status);
                        if seen.text("connection") == "close" {
                            client = Client::connect(address)?;
                        }
                    }
                    Ok(statuses)
                })
            })
            .collect();
        let mut statuses = Vec::new();
        for racer in racers {
            statuses.extend(racer.join().expect("a racer").expect("a response"));
        }
        let of = |status| statuses.iter().filter(|it| **it == status).count();
        assert_eq!((of(200), of(429)), (40, 160), "{statuses:?}");
        for machine in machines {
            let seen = client::exchange(machine.address, &asks, &path);
            assert_eq!(seen.expect("a response").status, 429, "known to both");
        }
    }
}

/// 4 clients at each of two machines, each machine with a store of its own, both over one Redis: 40 are admitted in all.
fn two_machines(host: Host) {
    let redis = Redis::start().expect("a Redis");
    let store = || RealStore::over(&redis, Duration::from_secs(5)).expect("a store");
    let stores = [store(), store()];
    let machine = |store: &RealStore| {
        let setup = Setup::of([ratelimit(forty(store.address))]).server(store.address);
        hosts::start(host, &setup).expect("it starts")
    };
    let machines = stores.each_ref().map(machine);
    race(host.name(), &machines.map(|it| it.expect("it is there")));
    let shares = stores.each_ref().map(|store| store.counted("admitted"));
    println!("{host}: admitted by each store: {shares:?}");
    assert_eq!(shares.iter().sum::<u64>(), 120);
    assert!(shares.iter().all(|share| *share > 0), "{shares:?}");
}

#[test]
fn two_envoys_over_one_redis_admit_one_quota() {
    two_machines(Host::Envoy);
}

#[test]
fn two_hosts_of_modules_over_one_redis_admit_one_quota() {
    two_machines(Host::ProxyWasm);
}

#[test]
fn two_hosts_of_components_over_one_redis_admit_one_quota() {
    two_machines(Host::WasiHttp);
}

/// A component for Spin speaks to Redis itself, and counts with an Envoy whose store is over the same.
#[test]
fn a_component_over_spin_redis_and_an_envoy_over_the_store_admit_one_quota() {
    let redis = Redis::start().expect("a Redis");
    let store = RealStore::over(&redis, Duration::from_secs(5)).expect("a store");
    let at_redis: SocketAddr = redis
        .url()
        .replace("redis://", "")
        .parse()
        .expect("an address");
    let mut direct = forty(at_redis);
    direct["store"]["to"] = json!(redis.url());
    let spin = Setup::of([ratelimit(direct)])
        .server(at_redis)
        .on_spins_stores();
    let envoy = Setup::of([ratelimit(forty(store.address))]).server(store.address);
    let machines = [(Host::WasiHttp, spin), (Host::Envoy, envoy)].map(|(host, setup)| {
        let running = hosts::start(host, &setup).expect("it starts");
        running.expect("it is there")
    });
    race("spin-redis", &machines);
    let admitted = store.counted("admitted");
    assert!(
        (1..120).contains(&admitted),
        "{admitted} by the store alone"
    );
    // A Redis that hangs costs a time-out, and a closed rule says so.
    redis.hangs(true);
    let asks = get("/two-spin-redis/a").field("x-client", "hung");
    let seen = client::exchange(machines[0].address, &asks, "/two-spin-redis/a");
    assert_eq!(seen.expect("a response").status, 503);
    redis.hangs(false);
}

#[test]
fn what_a_response_costs_is_charged_in_the_store() {
    let store = RealStore::start(&["--memory"]).expect("a store");
    let config = json!({
        "store": { "to": store.address.to_string(), "timeout_ms": 5000 },
        "rules": [{
            "key": [{ "header": "x-client" }],
            "scope": "global",
            "cost": { "response": "x-cost", "most": 8 },
            "limits": [{ "rate": "20/day" }]
        }]
    });
    let setup = Setup::of([ratelimit(config)]).server(store.address);
    on_each_host(
        "what_a_response_costs_is_charged_in_the_store",
        &setup,
        |edge| {
            let asks = get("/a").field("x-client", edge.host().name());
            let dear = Origin::text("ok").field("x-cost", "8");
            let mut statuses = Vec::new();
            for _ in 0..4 {
                let decided = store.counted("admitted") + store.counted("limited");
                statuses.push(edge.send(&asks, &dear).status);
                // The charge is sent beside the response.
                for _ in 0..200 {
                    let now = store.counted("admitted") + store.counted("limited");
                    if now >= decided + 2 {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            assert_eq!(statuses, [200, 200, 200, 429]);
        },
    );
}
