//! The same decisions everywhere: the rate limiter's own functions, the embedded back-end, the script in Redis, and two
//! stores over one Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use edgeweir_host_store::backend::Put;
use edgeweir_host_store::embedded::Embedded;
use edgeweir_host_store::limit::{Kept, Limit, Standing, State, charge, decide};
use edgeweir_host_store::redis::{Redis, Settings};
use edgeweir_host_store::shelf::{Bounds, Space, Written};
use edgeweir_host_store::wire::{Ask, Condition, answers, ask_bytes};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::gcra::Gcra;
use crate::process::{self, Store};
use crate::window::{Counts, Window};

const S: u64 = 1_000_000_000;

proptest! {
    /// Whatever comes, forwards in time: GCRA decides as the rate limiter does.
    #[test]
    fn gcra_is_the_rate_limiters(
        count in 1u32..2000, per in 1u64..100_000_000_000, capacity in 1u32..60,
        asks in prop::collection::vec((0u64..2_000_000_000, 1u32..5), 1..120)
    ) {
        let theirs = Gcra::new(count, per, capacity);
        let interval = per.div_ceil(u64::from(count)).max(1);
        let ours = [Limit::Gcra { interval, tolerance: interval * u64::from(capacity - 1) }];
        let (mut tat, mut states, mut now) = (None, None::<Kept>, 1_700_000_000 * S);
        for (gap, cost) in asks {
            now += gap;
            let cost = cost.min(capacity);
            let want = theirs.admit(tat, now, cost);
            let got = decide(&ours, states.as_ref(), now, cost);
            let standing = got.standings[0];
            prop_assert_eq!(want.verdict.err().unwrap_or(0), standing.wait);
            prop_assert_eq!((want.remaining, want.reset), (standing.remaining, standing.reset));
            if let Some(after) = got.after {
                prop_assert_eq!(&after.states[..], &[State::Gcra(want.state)][..]);
                tat = Some(want.state);
                states = Some(after);
            }
        }
    }

    /// And so does the sliding window.
    #[test]
    fn the_window_is_the_rate_limiters(
        limit in 1u32..60, seconds in 1u64..40, asks in prop::collection::vec((0u64..9_000_000_000, 1u32..5), 1..120)
    ) {
        let theirs = Window::new(limit, seconds * S);
        let ours = [Limit::Window { per: seconds * S, limit }];
        let (mut counts, mut states, mut now) = (None::<Counts>, None::<Kept>, 1_700_000_000 * S);
        for (gap, cost) in asks {
            now += gap;
            let cost = cost.min(limit);
            let want = theirs.admit(counts, now, cost);
            let got = decide(&ours, states.as_ref(), now, cost);
            let standing = got.standings[0];
            prop_assert_eq!(want.verdict.err().unwrap_or(0), standing.wait);
            prop_assert_eq!(want.remaining, standing.remaining);
            if let Some(after) = got.after {
                counts = Some(want.state);
                states = Some(after);
            }
        }
    }
}

proptest! {
    /// What is charged after the fact is what the rate limiter charges, and is never refused.
    #[test]
    fn charges_are_the_rate_limiters(
        count in 1u32..60, seconds in 1u64..40,
        asks in prop::collection::vec((0u64..9_000_000_000, 0u32..9, any::<bool>()), 1..80)
    ) {
        let (gcra, window) = (Gcra::new(count, seconds * S, count), Window::new(count, seconds * S));
        let interval = (seconds * S).div_ceil(u64::from(count));
        let ours = [
            Limit::Gcra { interval, tolerance: interval * u64::from(count - 1) },
            Limit::Window { per: seconds * S, limit: count },
        ];
        let (mut tat, mut counts, mut states, mut now) = (None, None::<Counts>, None::<Kept>, 1_700_000_000 * S);
        for (gap, cost, charged) in asks {
            now += gap;
            let decision = match charged {
                true => charge(&ours, states.as_ref(), now, cost),
                false => decide(&ours, states.as_ref(), now, cost),
            };
            if charged {
                prop_assert!(decision.admitted());
                if cost > 0 {
                    tat = Some(gcra.charge(tat, now, cost));
                    counts = Some(window.charge(counts, now, cost));
                }
            } else if decision.admitted() && cost > 0 {
                tat = Some(gcra.admit(tat, now, cost).state);
                counts = Some(window.admit(counts, now, cost).state);
            }
            if let Some(after) = decision.after {
                prop_assert_eq!(Some(after.states[0]), tat.map(State::Gcra));
                let want = counts.map(|it| State::Window { index: it.index, previous: it.previous, current: it.current });
                prop_assert_eq!(Some(after.states[1]), want);
                states = Some(after);
            }
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .expect("a runtime")
}

fn redis_at(server: &process::Redis) -> Redis {
    Redis::open(Settings {
        urls: vec![server.url()],
        cluster: false,
        prefix: "edgeweir".to_owned(),
        parts: 1,
        connections: 4,
        timeout: Duration::from_secs(5),
        authority: None,
    })
    .expect("an address")
}

fn memory() -> Embedded {
    let bounds = Bounds {
        keys: 100_000,
        bytes: 1 << 30,
    };
    Embedded::open(None, bounds).expect("memory")
}

/// Limits, and others of the same kinds: what edges that disagree ask.
fn limits() -> impl Strategy<Value = [Vec<Limit>; 2]> {
    let seconds = 1u64..50;
    let gcra =
        (1u64..3_000_000_000, 0u64..90_000_000_000).prop_map(|(interval, tolerance)| Limit::Gcra {
            interval,
            tolerance,
        });
    let long = (1u64..1_000_000_000_000_000, 0u64..300_000_000_000_000_000);
    let long = long.prop_map(|(interval, tolerance)| Limit::Gcra {
        interval,
        tolerance,
    });
    let window = (seconds, 1u32..50).prop_map(|(seconds, limit)| Limit::Window {
        per: seconds * S,
        limit,
    });
    let large = (1u64..2_678_400, 1u32..1_000_000_000).prop_map(|(seconds, limit)| Limit::Window {
        per: seconds * S,
        limit,
    });
    let gcra = prop_oneof![4 => gcra, 1 => long];
    let window = prop_oneof![4 => window, 1 => large];
    let both = prop_oneof![(gcra.clone(), gcra), (window.clone(), window)];
    prop::collection::vec(both, 1..4).prop_map(|both| {
        let (some, others) = both.into_iter().unzip();
        [some, others]
    })
}

/// Over random limits, costs and times, the clock going back too, the script in Redis decides as the embedded one.
#[test]
fn redis_decides_as_the_embedded_back_end() {
    let server = process::Redis::start(&[]);
    let runtime = runtime();
    let _inside = runtime.enter();
    let (redis, memory) = (redis_at(&server), memory());
    let serial = AtomicU32::new(0);
    let asks = prop::collection::vec(
        (
            -3i64..6,
            0u32..1_000_000,
            prop_oneof![9 => 0u32..8, 1 => any::<u32>()],
            prop_oneof![4 => Just(false), 1 => Just(true)],
            prop_oneof![3 => Just(0usize), 1 => Just(1)],
        ),
        1..60,
    );
    let jumps = prop_oneof![Just(1i64), Just(1), Just(40), Just(100_000)];
    let mut runner = TestRunner::new(Config::with_cases(150));
    runner
        .run(&(limits(), asks, jumps), |(limits, asks, scale)| {
            let key = serial
                .fetch_add(1, Ordering::Relaxed)
                .to_string()
                .into_bytes();
            // Not yet: what is past its time by the real clock is let go.
            let mut seconds = 2_000_000_000u64;
            for (step, micros, cost, charge, which) in asks {
                seconds = seconds.saturating_add_signed(step * scale);
                let ask = [Ask {
                    key: key.clone(),
                    cost,
                    charge,
                    limits: limits[which].clone(),
                }];
                let now = seconds * S + u64::from(micros) * 1000;
                let (want, got) = runtime.block_on(async {
                    let want = memory.limit_at(&ask, now).await.expect("decided");
                    let got = redis.limit_at(&ask, Some((seconds, micros))).await;
                    (want, got.expect("decided"))
                });
                prop_assert_eq!(want, got, "{:?} at {}", ask, now);
            }
            Ok(())
        })
        .expect("they agree");
}

/// While edges disagree on a limit, none gives back what the other counted, and a refusal changes nothing.
#[test]
fn edges_that_disagree_admit_no_more_than_the_larger_limit() {
    let server = process::Redis::start(&[]);
    let runtime = runtime();
    let _inside = runtime.enter();
    let (redis, memory) = (redis_at(&server), memory());
    let gcra = |interval: u64, burst: u64| Limit::Gcra {
        interval,
        tolerance: interval * (burst - 1),
    };
    let window = |seconds, limit| Limit::Window {
        per: seconds * S,
        limit,
    };
    for (name, old, new, most) in [
        (
            "a shorter burst",
            gcra(3_600_000_000, 1000),
            gcra(3_600_000_000, 50),
            1000,
        ),
        (
            "another rate",
            gcra(3_600_000_000, 1000),
            gcra(600_000_000, 100),
            1100,
        ),
        ("fewer", window(3600, 100), window(3600, 40), 100),
        // Windows of two lengths count apart.
        ("another window", window(3600, 100), window(60, 10), 110),
    ] {
        let asks: Vec<Ask> = [old, new]
            .into_iter()
            .cycle()
            .take(250)
            .map(|limit| Ask {
                key: name.as_bytes().to_vec(),
                cost: 1,
                charge: false,
                limits: vec![limit],
            })
            .collect();
        let (mut of_redis, mut of_memory) = (0, 0);
        for round in 0..10u32 {
            // All within ten milliseconds, far enough ahead that nothing is let go.
            let (seconds, micros) = (2_000_001_600, round * 1000);
            let now = seconds * S + u64::from(micros) * 1000;
            runtime.block_on(async {
                let decided = redis.limit_at(&asks, Some((seconds, micros))).await;
                of_redis += admitted(&decided.expect("decided").decisions);
                let decided = memory.limit_at(&asks, now).await;
                of_memory += admitted(&decided.expect("decided").decisions);
            });
        }
        for admitted in [of_redis, of_memory] {
            assert!((90..=most).contains(&admitted), "{name}: {admitted}");
        }
    }
}

/// States of the version before, which say nothing of when they were written, still count.
#[test]
fn states_without_their_time_still_count() {
    let server = process::Redis::start(&[]);
    let runtime = runtime();
    let _inside = runtime.enter();
    let redis = redis_at(&server);
    let seconds = 2_000_000_000u64;
    let far = format!("{} 0", seconds + 3000);
    server.cli(&["SET", "{edgeweir:0}:l:g:known", &far]);
    let limit = |interval: u64, burst: u64| Limit::Gcra {
        interval,
        tolerance: interval * (burst - 1),
    };
    for (limit, want) in [(limit(S, 50), 0), (limit(S, 3001), 1), (limit(S, 3001), 0)] {
        let ask = [Ask {
            key: b"known".to_vec(),
            cost: 1,
            charge: false,
            limits: vec![limit],
        }];
        let decided = runtime.block_on(redis.limit_at(&ask, Some((seconds, 0))));
        assert_eq!(admitted(&decided.expect("decided").decisions), want);
    }
}

const DAY: u64 = 86_400 * S;

fn ask(key: &str, quota: u64) -> Ask {
    Ask {
        key: key.as_bytes().to_vec(),
        cost: 1,
        charge: false,
        limits: vec![Limit::Gcra {
            interval: DAY,
            tolerance: DAY * (quota - 1),
        }],
    }
}

fn admitted(decisions: &[Vec<Standing>]) -> u32 {
    let admits = |standings: &&Vec<Standing>| standings.iter().all(|it| it.wait == 0);
    u32::try_from(decisions.iter().filter(admits).count()).expect("few")
}

#[test]
fn a_hundred_thousand_racing_decisions_admit_exactly_the_quota() {
    let server = process::Redis::start(&[]);
    let runtime = runtime();
    let _inside = runtime.enter();
    // Two stores over one Redis race each other too.
    let stores = [Arc::new(redis_at(&server)), Arc::new(redis_at(&server))];
    let memory = Arc::new(memory());
    let asks: Arc<Vec<Ask>> = Arc::new(vec![ask("racing", 1000); 50]);
    let (of_redis, of_memory) = runtime.block_on(async {
        let mut racing = tokio::task::JoinSet::new();
        for task in 0..40 {
            let (store, memory) = (stores[task % 2].clone(), memory.clone());
            let asks = asks.clone();
            racing.spawn(async move {
                let (mut redis, mut own) = (0, 0);
                // 40 tasks of 50 batches of 50 decisions.
                for _ in 0..50 {
                    redis += admitted(&store.limit(&asks).await.expect("decided").decisions);
                    own += admitted(&memory.limit(&asks).await.expect("decided").decisions);
                }
                (redis, own)
            });
        }
        let mut all = (0, 0);
        while let Some(one) = racing.join_next().await {
            let (redis, own) = one.expect("raced");
            all = (all.0 + redis, all.1 + own);
        }
        all
    });
    assert_eq!((of_redis, of_memory), (1000, 1000));
}

#[test]
fn two_stores_over_one_redis_agree() {
    let server = process::Redis::start(&[]);
    let arguments = ["--redis", &server.url(), "--redis-timeout-ms", "5000"].map(str::to_owned);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let stores = [Store::start(&arguments), Store::start(&arguments)];
    let [mut one, mut two] = [stores[0].client(), stores[1].client()];
    let path = "/cache/000102030405060708090a0b0c0d0e0f";
    let fields = [
        ("edgeweir-ttl", "60"),
        ("edgeweir-groups", "00000000000000aa"),
        ("edgeweir-uri", "x.example/a"),
    ];
    for query in [
        "groups=00000000000000aa",
        "prefix=x.example",
        "pattern=*a",
        "all=1",
        "names=000102030405060708090a0b0c0d0e0f",
    ] {
        one.ask("PUT", path, &fields, b"stored by one");
        assert_eq!(
            two.ask("GET", path, &[], b"").body,
            b"stored by one",
            "{query}"
        );
        two.ask("POST", &format!("/cache/invalidate?{query}"), &[], b"");
        assert_eq!(one.ask("GET", path, &[], b"").status, 404, "{query}");
    }
    // A lease is taken by one.
    assert_eq!(
        one.ask("PUT", "/kv/lease", &[("if-none-match", "*")], b"one")
            .status,
        201
    );
    assert_eq!(
        two.ask("PUT", "/kv/lease", &[("if-none-match", "*")], b"two")
            .status,
        412
    );
    let message = ask_bytes(&[ask("both", 7)]);
    let mut sum = 0;
    for _ in 0..10 {
        for client in [&mut one, &mut two] {
            let answer = client.ask("POST", "/limit", &[], &message);
            sum += admitted(&answers(&answer.body).expect("an answer").1);
        }
    }
    assert_eq!(sum, 7);
}

/// A counter raised by compare-and-set from many sides loses nothing.
#[test]
fn racing_compare_and_sets_lose_nothing() {
    let runtime = runtime();
    let _inside = runtime.enter();
    let memory = Arc::new(memory());
    let put = |value: u32| Put {
        ttl: Duration::from_secs(60),
        uri: Vec::new(),
        groups: Vec::new(),
        value: Bytes::from(value.to_string()),
    };
    let total = runtime.block_on(async {
        let first = memory
            .put(Space::Keys, b"n", put(0), Condition::Absent)
            .await;
        assert!(matches!(first, Ok(Written::Stored { created: true, .. })));
        let mut racing = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let memory = memory.clone();
            racing.spawn(async move {
                let mut raised = 0;
                while raised < 250 {
                    let found = memory.get(Space::Keys, b"n").expect("there");
                    let value: u32 = std::str::from_utf8(&found.value)
                        .expect("text")
                        .parse()
                        .expect("a number");
                    let condition = Condition::Version(found.version);
                    let done = memory
                        .put(Space::Keys, b"n", put(value + 1), condition)
                        .await;
                    if matches!(done, Ok(Written::Stored { .. })) {
                        raised += 1;
                    }
                    tokio::task::yield_now().await;
                }
            });
        }
        while racing.join_next().await.is_some() {}
        memory.get(Space::Keys, b"n").expect("there").value
    });
    assert_eq!(total, "2000");
}
