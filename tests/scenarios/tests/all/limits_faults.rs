//! A limiter whose store, or the Redis behind it, is in trouble: open rules answer no error, closed ones their status, few
//! requests wait, and nobody has to do anything for it to be well again.

use std::time::{Duration, Instant};

use edgeweir_scenarios::machines::{RealStore, Redis};
use edgeweir_scenarios::{Edge, Host, Origin, Setup, get, on_each_host, ratelimit};
use serde_json::json;

/// What a decision may take, and what Redis may take of it.
const TIMEOUT: Duration = Duration::from_millis(150);
const OF_REDIS: Duration = Duration::from_millis(60);
const CLOSED: u16 = 597;

struct Fleet {
    redis: Redis,
    store: RealStore,
}

/// What goes wrong, and how it is put right; `None` where it puts itself right.
struct Fault {
    name: &'static str,
    begin: fn(&mut Fleet),
    end: fn(&mut Fleet),
    meanwhile: Meanwhile,
}

/// Whether the store decides while it lasts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Meanwhile {
    Always,
    Never,
    /// It may be well again at any time.
    Sometimes,
}

/// Redis answers nobody else while a script runs.
const BUSY: &str = "local t = redis.call('TIME') local till = t[1] * 1000 + t[2] / 1000 + 2500 \
                    repeat t = redis.call('TIME') until t[1] * 1000 + t[2] / 1000 > till return 1";

fn say(fleet: &mut Fleet, words: &[&str]) {
    let said = fleet.redis.command(words).expect("Redis answers");
    assert!(!said.starts_with('-'), "{words:?}: {said}");
}

const FAULTS: [Fault; 9] = [
    Fault {
        name: "Redis flushed",
        begin: |fleet| say(fleet, &["FLUSHALL", ";", "SCRIPT", "FLUSH"]),
        end: |_| {},
        meanwhile: Meanwhile::Always,
    },
    Fault {
        name: "Redis down",
        begin: |fleet| fleet.redis.down(),
        end: |fleet| fleet.redis.again().expect("it starts"),
        meanwhile: Meanwhile::Never,
    },
    Fault {
        name: "Redis hung",
        begin: |fleet| fleet.redis.hangs(true),
        end: |fleet| fleet.redis.hangs(false),
        meanwhile: Meanwhile::Never,
    },
    Fault {
        name: "Redis slow",
        begin: |fleet| {
            let url = fleet.redis.url();
            let port = url.rsplit(':').next().map(str::to_owned).expect("a port");
            let cli = std::process::Command::new("redis-cli")
                .args(["-p", &port, "EVAL", BUSY, "0"])
                .stdout(std::process::Stdio::null())
                .spawn();
            drop(cli.expect("redis-cli"));
            std::thread::sleep(Duration::from_millis(200));
        },
        end: |_| {},
        meanwhile: Meanwhile::Sometimes,
    },
    Fault {
        name: "Redis out of memory",
        begin: |fleet| {
            let policy = ["CONFIG", "SET", "maxmemory-policy", "noeviction", ";"];
            let limit = ["CONFIG", "SET", "maxmemory", "1"];
            say(fleet, &[&policy[..], &limit[..]].concat());
        },
        end: |fleet| say(fleet, &["CONFIG", "SET", "maxmemory", "0"]),
        meanwhile: Meanwhile::Never,
    },
    Fault {
        name: "Redis wants another password",
        begin: |fleet| {
            let words = [
                "CONFIG",
                "SET",
                "requirepass",
                "changed",
                ";",
                "AUTH",
                "changed",
                ";",
            ];
            say(
                fleet,
                &[&words[..], &["CLIENT", "KILL", "TYPE", "normal"][..]].concat(),
            );
        },
        end: |fleet| {
            say(
                fleet,
                &["AUTH", "changed", ";", "CONFIG", "SET", "requirepass", ""],
            );
        },
        meanwhile: Meanwhile::Never,
    },
    Fault {
        name: "Redis restarted",
        begin: |fleet| {
            fleet.redis.down();
            fleet.redis.again().expect("it starts");
        },
        end: |_| {},
        // The first request finds the connection gone.
        meanwhile: Meanwhile::Sometimes,
    },
    Fault {
        name: "the store down",
        begin: |fleet| fleet.store.down(),
        end: |fleet| fleet.store.again().expect("it starts"),
        meanwhile: Meanwhile::Never,
    },
    Fault {
        name: "the store hung",
        begin: |fleet| fleet.store.hangs(true),
        end: |fleet| fleet.store.hangs(false),
        meanwhile: Meanwhile::Never,
    },
];

/// Each path a client, none of them near its limit.
fn ask(edge: &mut Edge, rule: &str) -> (u16, Duration) {
    let since = Instant::now();
    let seen = edge.send(&get(&format!("/{rule}/a")), &Origin::text("ok"));
    (seen.status, since.elapsed())
}

/// Both rules are decided in the store again, whichever worker they meet.
fn works(edge: &mut Edge, store: &RealStore, name: &str) {
    let until = Instant::now() + Duration::from_secs(40);
    let mut row = 0;
    while row < 20 {
        let decided = store.counted("admitted");
        let (status, _) = ask(edge, "closed");
        let is_well = status == 200 && store.counted("admitted") > decided;
        row = if is_well { row + 1 } else { 0 };
        assert!(
            Instant::now() < until,
            "{name}: it is not well again: {status}"
        );
        if row == 0 {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

#[test]
fn a_store_in_trouble_does_what_the_rule_says() {
    let redis = Redis::start().expect("a Redis");
    let store = RealStore::over(&redis, OF_REDIS).expect("a store");
    let rule = |name: &str| {
        json!({
            "name": name,
            "paths": [format!("/{{scenario}}/{name}/*")],
            "key": ["path"],
            "scope": "global",
            "on_store_failure": name,
            "limits": [{ "rate": "1000000/hour" }, { "rate": "100000/second" }]
        })
    };
    let config = json!({
        "closed_status": CLOSED,
        "store": { "to": store.address.to_string(), "timeout_ms": TIMEOUT.as_millis() as u64 },
        "rules": [rule("open"), rule("closed")]
    });
    let setup = Setup::of([ratelimit(config)])
        .server(store.address)
        .except(Host::Pure, "its clock is not the store's");
    let fleet = std::cell::RefCell::new(Fleet { redis, store });
    on_each_host(
        "a_store_in_trouble_does_what_the_rule_says",
        &setup,
        |edge| {
            let mut fleet = fleet.borrow_mut();
            for fault in FAULTS {
                let name = fault.name;
                works(edge, &fleet.store, name);
                (fault.begin)(&mut fleet);
                let mut slow = 0;
                for at in 0..60 {
                    let (status, took) = ask(edge, "open");
                    assert_eq!(status, 200, "{name}: open, request {at}");
                    let (other, also) = ask(edge, "closed");
                    let allowed: &[u16] = match fault.meanwhile {
                        Meanwhile::Always => &[200],
                        Meanwhile::Never => &[CLOSED],
                        Meanwhile::Sometimes => &[200, CLOSED],
                    };
                    assert!(
                        allowed.contains(&other),
                        "{name}: closed, request {at}: {other}"
                    );
                    for took in [took, also] {
                        slow += u32::from(took >= OF_REDIS);
                        // Generous: what the machine adds is not the limiter's.
                        assert!(took < TIMEOUT + Duration::from_secs(2), "{name}: {took:?}");
                    }
                }
                // A time-out for each worker or instance, and a probe now and then; not one for each of 120 requests.
                assert!(slow <= 30, "{name}: {slow} of 120 requests waited");
                println!("{}: {name}: {slow} of 120 requests waited", edge.host());
                (fault.end)(&mut fleet);
            }
            works(edge, &fleet.store, "at the end");
        },
    );
}
