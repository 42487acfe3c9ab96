//! Rules of global scope, over a store that counts cells and can be in trouble.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use edgeweir_filter::{Failed, Fetch, Fetched, Level, Reply, Script, Seen, load};
use edgeweir_ratelimit::RateLimit;

const HOUR: u64 = 3_600_000_000_000;

/// A store whose limits give each key so many cells and never any back.
#[derive(Clone)]
struct Store(Rc<Inner>);

struct Inner {
    used: RefCell<BTreeMap<Vec<u8>, u64>>,
    trouble: RefCell<Option<Result<Reply, Failed>>>,
    wait: Cell<u64>,
}

/// What a message asks.
#[derive(Debug)]
struct Asked {
    key: Vec<u8>,
    cost: u64,
    charge: bool,
    /// Interval and tolerance of each.
    limits: Vec<(u64, u64)>,
}

fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn asked(fetch: &Fetch) -> Asked {
    let body = &fetch.body[..];
    assert_eq!(body[..3], [1, 1, 0], "one decision");
    let (key, rest) = body[5..].split_at(number(&body[3..5]) as usize);
    let limits = rest[5..].chunks(17);
    assert_eq!(usize::from(rest[4] & 127), limits.len());
    Asked {
        key: key.to_vec(),
        cost: number(&rest[..4]),
        charge: rest[4] > 127,
        limits: limits
            .map(|limit| (number(&limit[1..9]), number(&limit[9..])))
            .collect(),
    }
}

impl Store {
    fn new() -> Self {
        Self(Rc::new(Inner {
            used: RefCell::default(),
            trouble: RefCell::default(),
            wait: Cell::new(HOUR),
        }))
    }

    fn fails(&self, trouble: Result<Reply, Failed>) {
        *self.0.trouble.borrow_mut() = Some(trouble);
    }

    fn works(&self) {
        *self.0.trouble.borrow_mut() = None;
    }

    fn answer(&self, fetch: &Fetch) -> Result<Fetched, Failed> {
        if let Some(trouble) = &*self.0.trouble.borrow() {
            return trouble.clone();
        }
        assert_eq!(
            (&fetch.head.method[..], &fetch.head.path[..]),
            (&b"POST"[..], &b"/limit"[..])
        );
        let ask = asked(fetch);
        let mut all = self.0.used.borrow_mut();
        let used = all.entry(ask.key).or_default();
        let least = ask
            .limits
            .iter()
            .map(|(interval, tolerance)| tolerance / interval + 1);
        let least = least.min().unwrap_or(0);
        let admits = ask.charge || *used + ask.cost <= least;
        if admits {
            *used = (*used + ask.cost).min(least);
        }
        let wait = if admits { 0 } else { self.0.wait.get() };
        let mut body = vec![1, 1, 0];
        body.extend(7u64.to_le_bytes());
        body.push(u8::from(!admits));
        body.extend(wait.to_le_bytes());
        body.push(ask.limits.len() as u8);
        for (interval, tolerance) in ask.limits {
            let left = (tolerance / interval + 1).saturating_sub(*used);
            body.extend((left as u32).to_le_bytes());
            body.extend((*used * interval).to_le_bytes());
            body.extend(wait.to_le_bytes());
        }
        Ok(Reply::new(200, &[], body))
    }
}

fn script(store: &Store, rule: &str) -> Script {
    let config = format!(
        r#"{{"closed_status":599,"store":{{"to":"limits","token":"secret"}},"rules":[{{"name":"g","scope":"global",{rule}}}]}}"#
    );
    let mut script = Script::new(load::<RateLimit>(config.as_bytes()).expect(&config));
    let store = store.clone();
    script.fetch_with(move |fetch| store.answer(fetch));
    script
}

const TEN: &str = r#""limits":[{"rate":"10/hour"},{"rate":"600/minute"}]"#;

fn statuses(script: &mut Script, times: usize) -> Vec<u16> {
    (0..times).map(|_| script.run().status).collect()
}

fn good(statuses: &[u16]) -> usize {
    statuses.iter().filter(|status| **status == 200).count()
}

#[test]
fn workers_that_share_a_store_share_the_limit() {
    let store = Store::new();
    let (mut one, mut two) = (script(&store, TEN), script(&store, TEN));
    let mut all = Vec::new();
    for _ in 0..15 {
        for script in [&mut one, &mut two] {
            all.push(script.run().status);
        }
    }
    assert_eq!((good(&all), all.len()), (10, 30));
    assert!(one.shared.is_empty(), "nothing is kept on this machine");
}

#[test]
fn one_round_trip_decides_on_all_limits_and_none_when_they_are_known_to_be_exhausted() {
    let store = Store::new();
    let mut script = script(&store, TEN);
    for left in (0..10).rev() {
        let seen = script.run();
        assert_eq!((seen.status, seen.fetches.len()), (200, 1));
        let fetch = &seen.fetches[0];
        assert_eq!(fetch.timeout, Duration::from_millis(20));
        assert_eq!(
            fetch.head.fields.text("authorization"),
            Some("Bearer secret")
        );
        assert_eq!(asked(fetch).limits.len(), 2);
        let used = (10 - left) * 360;
        assert_eq!(seen.text("ratelimit"), format!(r#""g";r={left};t={used}"#));
        assert_eq!(
            seen.text("ratelimit-policy"),
            r#""g";q=10;w=3600, "g-2";q=600;w=60"#
        );
    }
    let refused = script.run();
    assert_eq!((refused.status, refused.fetches.len()), (429, 1));
    assert_eq!(refused.text("retry-after"), "3600");
    script.pass(Duration::from_secs(600));
    let known = script.run();
    assert_eq!((known.status, known.fetches.len()), (429, 0));
    assert_eq!(known.text("retry-after"), "3000");
    assert_eq!(known.text("ratelimit"), r#""g";r=0;t=3000"#);
    assert_eq!(known.counted("ratelimit.store.remembered"), 1);
    // Until the time the store said, and no longer.
    script.pass(Duration::from_secs(3_000));
    assert_eq!(script.run().fetches.len(), 1);
}

#[test]
fn a_refusal_is_not_that_of_a_cheaper_request_nor_of_another_level() {
    let store = Store::new();
    let rule = r#""cost":{"request":"x-cost","most":9},"emergency":[50,50,50],"limits":[{"rate":"10/hour"}]"#;
    let mut script = script(&store, rule);
    let mut ask = |cost: &str, level| {
        let seen = script
            .request(&["GET", "/"], &[("x-cost", cost)])
            .emergency(level)
            .run();
        (seen.status, seen.fetches.len())
    };
    assert_eq!(ask("9", 0), (200, 1));
    assert_eq!(ask("5", 0), (429, 1));
    assert_eq!(
        [ask("5", 0), ask("9", 0)],
        [(429, 0); 2],
        "as dear, or dearer"
    );
    assert_eq!(ask("1", 0), (200, 1), "cheaper");
    assert_eq!(ask("9", 1), (429, 1), "another level");
    assert_eq!(ask("9", 1), (429, 0));
    assert_eq!(ask("1", 0), (429, 1));
}

/// A store in each trouble, and how many requests find out before it is left alone.
fn troubles() -> [(&'static str, Result<Reply, Failed>, usize); 9] {
    let status = |status| Ok(Reply::new(status, &[], "no"));
    [
        ("too late", Err(Failed::TimedOut), 1),
        ("too late itself", status(504), 1),
        ("down", Err(Failed::Unavailable), 3),
        ("no such cluster", Err(Failed::Unsupported), 3),
        ("broken", status(500), 3),
        ("wrong token", status(401), 3),
        ("no store", status(404), 3),
        ("garbage", status(200), 3),
        // It answers at once, and knows the keys that it has.
        ("full", status(507), 30),
    ]
}

#[test]
fn open_rules_hold_their_limits_by_themselves_while_the_store_is_in_trouble() {
    for (name, trouble, asks) in troubles() {
        let store = Store::new();
        let mut script = script(&store, TEN);
        store.fails(trouble);
        let seen: Vec<Seen> = (0..30).map(|_| script.run()).collect();
        let statuses: Vec<u16> = seen.iter().map(|seen| seen.status).collect();
        assert_eq!(good(&statuses), 10, "{name}: {statuses:?}");
        assert!(
            statuses.iter().all(|it| matches!(it, 200 | 429)),
            "{name}: {statuses:?}"
        );
        let fetches: usize = seen.iter().map(|seen| seen.fetches.len()).sum();
        assert_eq!(fetches, asks, "{name}");
        let sum = |counter| seen.iter().map(|seen| seen.counted(counter)).sum::<u64>();
        assert_eq!(sum("ratelimit.rule.g.store_error"), 30, "{name}");
        assert_eq!(
            sum("ratelimit.store.left_alone") as usize,
            30 - asks,
            "{name}"
        );
        let warnings = seen.iter().flat_map(|seen| &seen.record.logs);
        let warnings = warnings.filter(|(level, _)| *level >= Level::Warn).count();
        assert_eq!(warnings, usize::from(asks < 30), "{name}: once");
        assert!(seen[0].text("ratelimit").contains("r=9"), "{name}");
    }
}

#[test]
fn closed_rules_answer_the_status_and_nothing_else() {
    for (name, trouble, _) in troubles() {
        let store = Store::new();
        let mut script = script(&store, &format!(r#""on_store_failure":"closed",{TEN}"#));
        store.fails(trouble);
        for seen in (0..30).map(|_| script.run()) {
            assert_eq!(
                (seen.status, seen.upstream.is_none()),
                (599, true),
                "{name}"
            );
        }
        assert!(script.shared.is_empty());
        store.works();
        script.pass(Duration::from_secs(1));
        assert_eq!(script.run().status, 200, "{name}: it is back by itself");
    }
}

#[test]
fn a_store_that_hangs_costs_a_time_out_now_and_then_and_is_asked_again_once_it_is_back() {
    let store = Store::new();
    let mut script = script(&store, r#""limits":[{"rate":"1000/hour"}]"#);
    store.fails(Err(Failed::TimedOut));
    let mut fetches = 0;
    // A minute of 100 requests a second.
    for _ in 0..6_000 {
        fetches += script.run().fetches.len();
        script.pass(Duration::from_millis(10));
    }
    assert!((12..22).contains(&fetches), "{fetches}");
    store.works();
    script.pass(Duration::from_secs(5));
    let back = script.run();
    assert_eq!(
        (back.status, back.counted("ratelimit.store.recovered")),
        (200, 1)
    );
    assert!(
        back.record
            .logs
            .iter()
            .any(|(level, _)| *level == Level::Info)
    );
    let after = script.run();
    assert_eq!((after.fetches.len(), after.record.logs.len()), (1, 0));
}

#[test]
fn what_a_response_costs_is_charged_there_afterwards() {
    let store = Store::new();
    let rule = r#""cost":{"response":"x-cost","default":2,"most":8},"limits":[{"rate":"20/hour"}]"#;
    let mut script = script(&store, rule);
    script.answers(200, &[("x-cost", "7")], &[b"dear"]);
    let seen = script.run();
    let asks: Vec<(u64, bool)> = seen
        .fetches
        .iter()
        .map(|fetch| (asked(fetch).cost, asked(fetch).charge))
        .collect();
    assert_eq!(asks, [(2, false), (5, true)]);
    assert_eq!(seen.text("ratelimit"), r#""g";r=13;t=1260"#, "7 of 20");
    assert_eq!(seen.counted("ratelimit.store.charged"), 1);
    assert_eq!(
        statuses(&mut script, 3),
        [200, 200, 429],
        "7, 14, then 20 at most"
    );
    // A charge that finds no store is lost, and said so; where the request was decided here it is charged here.
    let mut other = self::script(
        &store,
        r#""key":["path"],"cost":{"response":"x-cost","most":8},"limits":[{"rate":"20/hour"}]"#,
    );
    other.answers(200, &[("x-cost", "8")], &[b"dear"]);
    let script = &mut other;
    script.hold_tasks();
    assert_eq!(script.run().status, 200);
    store.fails(Err(Failed::TimedOut));
    let lost = script.run_tasks();
    assert_eq!(lost.counted("ratelimit.store.charge_lost"), 1);
    assert_eq!(good(&statuses(script, 10)), 3, "8, 16, 24 of 20");
}

#[test]
fn a_shadow_asks_the_store_and_the_next_rule_decides() {
    let store = Store::new();
    let config = r#"{"store":{"to":"limits"},"rules":[
        {"name":"trial","scope":"global","shadow":true,"limits":[{"rate":"1/hour"}]},
        {"name":"real","limits":[{"rate":"3/hour"}]}]}"#;
    let mut script = Script::new(load::<RateLimit>(config.as_bytes()).expect(config));
    let answering = store.clone();
    script.fetch_with(move |fetch| answering.answer(fetch));
    for (status, shadowed, fetches, down) in [
        (200, 0, 1, false),
        (200, 1, 1, false),
        // It is known to refuse.
        (200, 1, 0, false),
        (429, 1, 0, true),
    ] {
        if down {
            store.fails(Err(Failed::TimedOut));
        }
        let seen = script.run();
        assert_eq!((seen.status, seen.fetches.len()), (status, fetches));
        assert_eq!(seen.counted("ratelimit.rule.trial.shadowed"), shadowed);
        assert_eq!(seen.text("ratelimit-policy"), r#""real";q=3;w=3600"#);
    }
}

#[test]
fn shadow_tiers_and_levels_work_alike() {
    let store = Store::new();
    let mut shadow = script(
        &store,
        r#""shadow":true,"on_store_failure":"closed","limits":[{"rate":"2/hour"}]"#,
    );
    let seen: Vec<Seen> = (0..4).map(|_| shadow.run()).collect();
    assert!(
        seen.iter()
            .all(|seen| seen.status == 200 && !seen.fields.has("ratelimit"))
    );
    let shadowed: u64 = seen
        .iter()
        .map(|seen| seen.counted("ratelimit.shadowed"))
        .sum();
    assert_eq!(shadowed, 2);
    store.fails(Err(Failed::TimedOut));
    assert_eq!(shadow.run().status, 200);
    store.works();

    let rule = r#""key":["path"],"limits":[{"rate":"2/hour"}],"tiers":{"by":{"header":"x-plan"},"limits":{"gold":[{"rate":"5/hour"}]}}"#;
    let mut tiers = script(&store, rule);
    for (plan, want) in [("gold", 5), ("none", 2)] {
        let run = |_| {
            tiers
                .request(&["GET", "/tier"], &[("x-plan", plan)])
                .run()
                .status
        };
        assert_eq!(good(&(0..8).map(run).collect::<Vec<_>>()), want, "{plan}");
    }

    let rule = r#""key":["path"],"emergency":[50,20,10],"limits":[{"rate":"20/hour"},{"rate":"1/hour","burst":1}]"#;
    let mut levels = script(&store, rule);
    let normal = asked(&levels.run().fetches[0]).limits;
    assert_eq!(normal, [(HOUR / 20, HOUR - HOUR / 20), (HOUR, 0)]);
    for (level, percent) in [(1, 50), (2, 20), (3, 10)] {
        let seen = levels
            .request(&["GET", &format!("/{level}")], &[])
            .emergency(level)
            .run();
        let ask = asked(&seen.fetches[0]);
        let slow = |interval: u64| interval * 100 / percent;
        // A state is never further ahead than what it spans: else a level would forgive what another counted.
        let (first, second) = (slow(HOUR / 20), slow(HOUR));
        let want = [
            (first, HOUR.max(first) - first),
            (second, HOUR.max(second) - second),
        ];
        assert_eq!(ask.limits, want, "level {level}");
    }
}

#[test]
fn a_change_of_the_numbers_keeps_what_was_counted() {
    let store = Store::new();
    let before = statuses(&mut script(&store, r#""limits":[{"rate":"10/hour"}]"#), 6);
    let after = statuses(&mut script(&store, r#""limits":[{"rate":"8/hour"}]"#), 6);
    assert_eq!((good(&before), good(&after)), (6, 2));
}

#[test]
fn long_keys_are_told_apart() {
    let store = Store::new();
    let rule = r#""key":[{"header":"a"},{"header":"b"}],"limits":[{"rate":"2/hour"}]"#;
    let mut script = script(&store, rule);
    let long = "x".repeat(500);
    for last in ["1", "2"] {
        let b = format!("{long}{last}");
        let mut run = || {
            script
                .request(&["GET", "/"], &[("a", &long), ("b", &b)])
                .run()
        };
        let seen = [run(), run(), run()].map(|seen| seen.status);
        assert_eq!(seen, [200, 200, 429], "{last}");
    }
    assert!(store.0.used.borrow().keys().all(|key| key.len() <= 512));
}

#[test]
fn what_can_not_be_global_is_refused_at_load() {
    let store = r#""store":{"to":"limits"}"#;
    for (name, config, want) in [
        (
            "no store",
            r#"{"rules":[{"scope":"global"}]}"#.to_owned(),
            "`rules[0].scope`: a rule of global scope needs `store`",
        ),
        (
            "nothing global",
            format!(r#"{{{store},"rules":[{{"scope":"global","concurrency":3}}]}}"#),
            "`rules[0].scope`: a rule of global scope needs `limits` or `tiers`",
        ),
        (
            "no limit",
            format!(r#"{{{store},"rules":[{{"scope":"global","action":"deny"}}]}}"#),
            "counts nothing",
        ),
        (
            "no target",
            r#"{"store":{"to":""}}"#.to_owned(),
            "`store.to`",
        ),
        (
            "no path",
            r#"{"store":{"to":"a","path":"limit"}}"#.to_owned(),
            "`store.path`",
        ),
        (
            "no time",
            r#"{"store":{"to":"a","timeout_ms":0}}"#.to_owned(),
            "`store.timeout_ms`: 0 is out of bounds: 1 to 10000",
        ),
        (
            "no status",
            r#"{"closed_status":200}"#.to_owned(),
            "`closed_status`: 200 is out of bounds: 400 to 599",
        ),
        (
            "too long",
            format!(
                r#"{{{store},"rules":[{{"scope":"global","limits":[{{"rate":"1/31days","burst":1000}}]}}]}}"#
            ),
            "days to come back is out of bounds: at most ten years",
        ),
        (
            "no scope",
            format!(r#"{{{store},"rules":[{{"scope":"planet"}}]}}"#),
            "unknown variant",
        ),
    ] {
        let error = load::<RateLimit>(config.as_bytes())
            .err()
            .map(|error| error.to_string());
        let error = error.unwrap_or_default();
        assert!(error.contains(want), "{name}: {error}");
    }
}

#[test]
fn what_the_operator_is_told() {
    let notes = |config: &str| {
        use edgeweir_filter::Filter as _;
        let filter = load::<RateLimit>(config.as_bytes()).expect(config);
        (filter.notes().join("; "), filter.wants().exact_updates)
    };
    let (said, exact) = notes(
        r#"{"store":{"to":"a"},"rules":[{"scope":"global","concurrency":2,"limits":[{"rate":"1/hour"}]}]}"#,
    );
    assert!(said.contains("while the store can't be reached"), "{said}");
    assert!(
        said.contains("what is under way is counted by each worker"),
        "{said}"
    );
    assert!(!exact, "the store is exact");
    let (said, exact) = notes(r#"{"store":{"to":"a"}}"#);
    assert!(said.contains("the store is never asked") && exact, "{said}");
}

proptest::proptest! {
    /// Whatever a store answers about: the fields are Structured Fields (RFC 9651), and a limit is not exceeded.
    #[test]
    fn every_field_parses(
        name in "[A-Za-z0-9._-]{1,64}", count in 1u32..40, seconds in 1u32..=86_400, window in proptest::bool::ANY,
        level in 0u8..4, x in proptest::bool::ANY, asks in 1usize..50, wait in 1u64..HOUR
    ) {
        let algorithm = if window { "sliding_window" } else { "gcra" };
        let config = format!(
            r#"{{"store":{{"to":"limits"}},"x_ratelimit":{x},"rules":[{{"name":"{name}","scope":"global","limits":[{{"rate":"{count}/{seconds}s","algorithm":"{algorithm}","burst":"3/second"}}]}}]}}"#
        );
        let store = Store::new();
        store.0.wait.set(wait);
        let mut script = Script::new(load::<RateLimit>(config.as_bytes()).expect(&config));
        let answering = store.clone();
        script.fetch_with(move |fetch| answering.answer(fetch));
        let mut good = 0;
        for _ in 0..asks {
            let seen = script.emergency(level).run();
            good += u32::from(seen.status == 200);
            for field in ["ratelimit", "ratelimit-policy"] {
                let text = seen.text(field);
                let list = sfv::Parser::new(&text).parse::<sfv::List>();
                assert!(list.is_ok_and(|list| !list.is_empty()), "{field}: {text}");
            }
            assert_eq!(seen.fields.has("x-ratelimit-reset"), x);
        }
        assert!(good <= count, "{good} of {count}");
    }
}
