//! The limiter through the contract: what a client sees.

use std::time::Duration;

use edgeweir_filter::{Script, SharedMemory, load};
use edgeweir_ratelimit::RateLimit;

fn script(config: &str) -> Script {
    Script::new(load::<RateLimit>(config.as_bytes()).expect(config)).origin(200, &[], "hello")
}

fn refused(config: &str) -> String {
    load::<RateLimit>(config.as_bytes())
        .err()
        .map(|error| error.to_string())
        .unwrap_or_default()
}

#[test]
fn the_default_admits_a_burst_of_twenty_then_refuses_as_the_fields_say() {
    let mut script = script("");
    for request in 0..20 {
        let seen = script.run();
        assert_eq!(seen.status, 200, "request {request}");
        assert_eq!(
            seen.text("ratelimit-policy"),
            r#""default";q=100;w=60, "default-burst";q=20;w=1"#
        );
    }
    let seen = script.run();
    assert_eq!((seen.status, seen.text("retry-after").as_str()), (429, "1"));
    assert_eq!(seen.text("ratelimit"), r#""default-burst";r=0;t=1"#);
    assert_eq!(seen.text("content-type"), "application/problem+json");
    let problem: serde_json::Value = serde_json::from_slice(&seen.body()).unwrap();
    assert_eq!(
        problem["violated-policies"],
        serde_json::json!(["default-burst"])
    );
    assert_eq!(
        (seen.counted("ratelimit.limited"), seen.upstream.is_none()),
        (1, true)
    );
    script.pass(Duration::from_secs(1));
    assert_eq!(script.run().status, 200);
}

/// A list of strings with whole numbers as parameters, as the draft has them.
fn reads(name: &str, value: &str, parameters: &[&str]) {
    let list = sfv::Parser::new(value).parse::<sfv::List>();
    let list = list.unwrap_or_else(|error| panic!("{name}: {value}: {error}"));
    assert!(!list.is_empty(), "{name}: {value}");
    for entry in list {
        let sfv::ListEntry::Item(item) = entry else {
            panic!("{name}: {value}");
        };
        assert!(
            matches!(item.bare_item, sfv::BareItem::String(_)),
            "{name}: {value}"
        );
        let keys: Vec<&str> = item.params.keys().map(|key| key.as_str()).collect();
        assert_eq!(keys, parameters, "{name}: {value}");
        for number in item.params.values() {
            assert!(
                matches!(number, sfv::BareItem::Integer(_)),
                "{name}: {value}"
            );
        }
    }
}

proptest::proptest! {
    #[test]
    fn every_field_is_a_structured_field_and_waiting_as_told_is_enough(
        rule in "[A-Za-z0-9._-]{1,64}", count in 1u32..=1_000_000_000, seconds in 1u32..=2_678_400,
        window in proptest::bool::ANY, level in 0u8..4, asks in 1usize..30
    ) {
        let count = if asks > 10 { count % 9 + 1 } else { count };
        let algorithm = if window { "sliding_window" } else { "gcra" };
        let mut script = script(&format!(
            r#"{{"rules":[{{"name":"{rule}","limits":[{{"rate":"{count}/{seconds}s","algorithm":"{algorithm}","burst":"3/second"}}]}}]}}"#
        ));
        for _ in 0..asks {
            let seen = script.emergency(level).run();
            reads("ratelimit", &seen.text("ratelimit"), &["r", "t"]);
            reads("ratelimit-policy", &seen.text("ratelimit-policy"), &["q", "w"]);
            if seen.status != 200 {
                let wait: u64 = seen.text("retry-after").parse().expect("Retry-After is a number");
                script.pass(Duration::from_secs(wait));
                proptest::prop_assert_eq!(script.emergency(level).run().status, 200, "after {}", wait);
            }
        }
    }
}

#[test]
fn workers_that_share_state_share_the_limit() {
    let shared = SharedMemory::default();
    let config = r#"{"rules":[{"limits":[{"rate":"10/minute"}]}]}"#;
    let mut workers = [
        script(config).sharing(&shared),
        script(config).sharing(&shared),
    ];
    let admitted = (0..40)
        .filter(|at| workers[at % 2].run().status == 200)
        .count();
    assert_eq!(admitted, 10);
}

#[test]
fn clients_paths_and_headers_are_told_apart() {
    let mut by_client = script(r#"{"rules":[{"limits":[{"rate":"1/minute"}]}]}"#);
    assert_eq!([by_client.run().status, by_client.run().status], [200, 429]);
    assert_eq!(by_client.peer("192.0.2.2").run().status, 200);

    let config =
        r#"{"rules":[{"key":["path",{"header":"X-Api-Key"}],"limits":[{"rate":"1/minute"}]}]}"#;
    let mut by_both = script(config);
    for (path, key, status) in [
        ("/a", "1", 200),
        ("/a", "1", 429),
        ("/b", "1", 200),
        ("/a", "2", 200),
        ("/a?q", "2", 429),
    ] {
        assert_eq!(
            by_both
                .request(&["GET", path], &[("x-api-key", key)])
                .run()
                .status,
            status,
            "{path} {key}"
        );
    }
}

#[test]
fn the_first_rule_that_matches_decides() {
    let mut script = script(
        r#"{"rules":[{"name":"login","paths":["/login"],"methods":["POST"],"limits":[{"rate":"1/hour"}]},
            {"name":"api","paths":["/api/*"],"limits":[{"rate":"2/hour"}]}]}"#,
    );
    for (method, path, policy) in [
        ("POST", "/login", r#""login";q=1;w=3600"#),
        ("GET", "/login", ""),
        ("GET", "/api/x", r#""api";q=2;w=3600"#),
        ("GET", "/%61pi/x", r#""api";q=2;w=3600"#),
        ("GET", "/apix", ""),
    ] {
        let seen = script.request(&[method, path], &[]).run();
        assert_eq!(
            (seen.status, seen.text("ratelimit-policy").as_str()),
            (200, policy),
            "{method} {path}"
        );
    }
    let seen = script.request(&["POST", "/login"], &[]).run();
    assert_eq!(
        (seen.status, seen.text("retry-after").as_str()),
        (429, "3600")
    );
}

#[test]
fn a_sliding_window_refuses_and_recovers() {
    let mut script =
        script(r#"{"rules":[{"limits":[{"rate":"3/minute","algorithm":"sliding_window"}]}]}"#);
    let statuses: Vec<u16> = (0..4).map(|_| script.run().status).collect();
    assert_eq!(statuses, [200, 200, 200, 429]);
    let wait: u64 = script.run().text("retry-after").parse().unwrap();
    assert_eq!(script.run().status, 429);
    script.pass(Duration::from_secs(wait));
    assert_eq!(script.run().status, 200);
}

#[test]
fn without_its_state_a_rule_opens_or_closes_as_configured() {
    let mut open = script("");
    let seen = open.store_down(true).run();
    assert_eq!(
        (seen.status, seen.counted("ratelimit.store_error")),
        (200, 1)
    );
    let mut closed = script(r#"{"rules":[{"on_store_failure":"closed"}]}"#);
    let seen = closed.store_down(true).run();
    assert_eq!(seen.status, 503);
    let problem: serde_json::Value = serde_json::from_slice(&seen.body()).unwrap();
    assert_eq!(problem["status"], 503);
    let seen = script(r#"{"rules":[{"name":"no.body_1","action":"deny"}]}"#).run();
    let problem: serde_json::Value = serde_json::from_slice(&seen.body()).unwrap();
    assert_eq!(problem["detail"], "rule no.body_1 denies this request");
}

#[test]
fn a_shadow_never_refuses() {
    let mut script = script(r#"{"rules":[{"shadow":true,"limits":[{"rate":"1/minute"}]}]}"#);
    script.run();
    let seen = script.run();
    assert_eq!((seen.status, seen.counted("ratelimit.shadowed")), (200, 1));
    assert_eq!(seen.counted("ratelimit.unmatched"), 1, "nothing decides");
}

#[test]
fn a_shadow_leaves_the_decision_to_the_next_rule() {
    let mut script = script(
        r#"{"rules":[{"name":"trial","shadow":true,"limits":[{"rate":"1/minute"}]},
            {"name":"real","limits":[{"rate":"2/minute"}]}]}"#,
    );
    for (ask, status, trial, real) in [
        (1, 200, "admitted", "admitted"),
        (2, 200, "shadowed", "admitted"),
        (3, 429, "shadowed", "limited"),
    ] {
        let seen = script.run();
        assert_eq!(seen.status, status, "{ask}");
        for (rule, what) in [("trial", trial), ("real", real)] {
            let counted = seen.counted(&format!("ratelimit.rule.{rule}.{what}"));
            assert_eq!(counted, 1, "{ask}: {rule} {what}");
        }
        // In all it counts once, and as shadowed beside that.
        let all = ["admitted", "limited", "unmatched"];
        let all = all.map(|what| seen.counted(&format!("ratelimit.{what}")));
        assert_eq!(all.iter().sum::<u64>(), 1, "{ask}: {all:?}");
        let shadowed = seen.counted("ratelimit.shadowed");
        assert_eq!(shadowed, u64::from(trial == "shadowed"), "{ask}");
        assert_eq!(seen.text("ratelimit-policy"), r#""real";q=2;w=60"#, "{ask}");
    }
}

#[test]
fn what_is_behind_shadows_is_asked_in_order() {
    let shadows = r#"{"name":"no","shadow":true,"action":"deny"},{"name":"few","shadow":true,"limits":[{"rate":"1/minute"}]}"#;
    for (behind, status, counter) in [
        (r#"{"name":"x","action":"deny"}"#, 403, "ratelimit.limited"),
        (
            r#"{"name":"x","action":"allow"},{"name":"y","action":"deny"}"#,
            200,
            "ratelimit.rule.x.admitted",
        ),
        (
            r#"{"name":"x","paths":["/x"],"action":"deny"}"#,
            200,
            "ratelimit.unmatched",
        ),
    ] {
        let mut script = script(&format!(r#"{{"rules":[{shadows},{behind}]}}"#));
        for few in ["admitted", "shadowed"] {
            let seen = script.run();
            assert_eq!(
                (seen.status, seen.counted(counter)),
                (status, 1),
                "{behind}"
            );
            assert_eq!(seen.counted("ratelimit.rule.no.shadowed"), 1, "{behind}");
            let few = format!("ratelimit.rule.few.{few}");
            assert_eq!(seen.counted(&few), 1, "{behind}");
        }
    }
}

#[test]
fn what_a_response_cost_is_charged_to_a_shadow_too() {
    let cost = r#""cost":{"response":"x-cost","most":5}"#;
    let config = format!(
        r#"{{"rules":[{{"name":"trial","shadow":true,{cost},"limits":[{{"rate":"10/hour"}}]}},
            {{"name":"real",{cost},"limits":[{{"rate":"100/hour"}}]}}]}}"#
    );
    let mut script = script(&config).origin(200, &[("x-cost", "5")], "hello");
    for (left, shadowed) in [(95, 0), (90, 0), (85, 1)] {
        let seen = script.run();
        let told = seen.text("ratelimit");
        assert!(told.contains(&format!("\"real\";r={left};")), "{told}");
        assert_eq!(seen.counted("ratelimit.shadowed"), shadowed, "{left}");
    }
}

#[test]
fn status_body_and_x_fields_are_configurable() {
    let config = r#"{"status":503,"body":"later","x_ratelimit":true,"rules":[{"limits":[{"rate":"1/minute"}]}]}"#;
    let mut script = script(config);
    let seen = script.run();
    assert_eq!(
        (
            seen.text("x-ratelimit-limit"),
            seen.text("x-ratelimit-remaining")
        ),
        ("1".into(), "0".into())
    );
    let seen = script.run();
    assert_eq!(
        (seen.status, seen.body_text(), seen.text("content-type")),
        (503, "later".into(), "text/plain; charset=utf-8".into())
    );
}

#[test]
fn nonsense_is_refused_by_name() {
    for (config, want) in [
        (r#"{"rulez":[]}"#, "unknown field `rulez`"),
        (
            r#"{"rules":[]}"#,
            "`rules`: 0 rules is out of bounds: 1 to 64",
        ),
        (
            r#"{"rules":[{"limits":[{"rate":"many"}]}]}"#,
            "`rules[0].limits[0].rate`: \"many\" is no rate",
        ),
        (
            r#"{"rules":[{"limits":[{"rate":"1/second","burst":0}]}]}"#,
            "`rules[0].limits[0].burst`: 0 is out of bounds",
        ),
        (
            r#"{"rules":[{"limits":[{"rate":"1/second","burts":1}]}]}"#,
            "unknown field `burts`",
        ),
        (
            r#"{"rules":[{"limits":[]}]}"#,
            "`rules[0].limits`: a rule needs at least one limit",
        ),
        (
            r#"{"rules":[{"cost":9,"limits":[{"rate":"3/second"}]}]}"#,
            "`rules[0].cost`: 9 is more than",
        ),
        (r#"{"rules":[{"name":"a b"}]}"#, "`rules[0].name`"),
        (
            r#"{"status":200}"#,
            "`status`: 200 is out of bounds: 400 to 599",
        ),
        (
            r#"{"ipv6_prefix":8}"#,
            "`ipv6_prefix`: 8 is out of bounds: 32 to 128",
        ),
        (r#"{"status":"x"}"#, "`status`: invalid type"),
    ] {
        let error = refused(config);
        assert!(error.contains(want), "{config}: {error}");
    }
}

#[test]
fn the_schema_names_every_field() {
    let schema = edgeweir_filter::schema::<RateLimit>();
    assert_eq!(schema["additionalProperties"], false);
    assert!(
        schema["properties"]["trusted_hops"]["description"]
            .as_str()
            .is_some_and(|text| text.contains("At most 16"))
    );
}

#[test]
fn a_remembered_refusal_needs_no_store() {
    let mut script =
        script(r#"{"rules":[{"on_store_failure":"closed","limits":[{"rate":"2/minute"}]}]}"#);
    let statuses = [
        script.run().status,
        script.run().status,
        script.run().status,
    ];
    assert_eq!(statuses, [200, 200, 429]);
    script.store_down(true).pass(Duration::from_secs(10));
    let seen = script.run();
    assert_eq!(
        (seen.status, seen.text("retry-after").as_str()),
        (429, "20"),
        "as of now"
    );
    assert_eq!(seen.counted("ratelimit.limited"), 1);
    // Once it would admit, the store is asked.
    script.pass(Duration::from_secs(20));
    assert_eq!(script.run().status, 503);
    assert_eq!(script.store_down(false).run().status, 200);
}

#[test]
fn a_clock_set_back_a_day_ends_what_was_remembered() {
    let config = r#"{"rules":[{"limits":[{"rate":"60/hour","burst":2}]}]}"#;
    let mut script = script(config);
    let start = script.now();
    let statuses = [
        script.run().status,
        script.run().status,
        script.run().status,
    ];
    assert_eq!(statuses, [200, 200, 429]);
    script = script.at(edgeweir_filter::Timestamp(start.0 - 86_400_000_000_000));
    let seen = script.run();
    let wait: u64 = seen.text("retry-after").parse().unwrap();
    assert!(seen.status == 429 && wait <= 60, "{wait}");
    script.pass(Duration::from_secs(wait));
    assert_eq!(script.run().status, 200);
}

#[test]
fn an_emergency_tightens_and_says_so() {
    let config = r#"{"rules":[{"emergency":[50,20,10],"limits":[{"rate":"10/hour"}]}]}"#;
    for (level, admitted, policy) in [
        (0, 10, "q=10;"),
        (1, 5, "q=5;"),
        (2, 2, "q=2;"),
        (3, 1, "q=1;"),
    ] {
        let mut script = script(config);
        let count = (0..20)
            .filter(|_| script.emergency(level).run().status == 200)
            .count();
        assert_eq!(count, admitted, "level {level}");
        let seen = script.run();
        assert!(
            seen.text("ratelimit-policy").contains(policy),
            "level {level}"
        );
        assert_eq!(seen.status, 429, "level {level}");
        assert_eq!(seen.text("retry-after"), (360 * 10 / admitted).to_string());
    }
}

#[test]
fn fields_are_told_as_configured() {
    for (told, on_admitted, on_refused) in [
        ("all", true, true),
        ("refused", false, true),
        ("none", false, false),
    ] {
        let config =
            format!(r#"{{"fields":"{told}","rules":[{{"limits":[{{"rate":"1/minute"}}]}}]}}"#);
        let mut script = script(&config);
        for want in [on_admitted, on_refused] {
            let seen = script.run();
            for name in ["ratelimit", "ratelimit-policy"] {
                assert_eq!(seen.field(name).is_some(), want, "{told} {}", seen.status);
            }
        }
        assert_eq!(script.run().text("retry-after"), "60");
    }
    let seen = script(r#"{"rules":[{"shadow":true}]}"#).run();
    assert_eq!(seen.field("ratelimit"), None, "a shadow tells nobody");
}

#[test]
fn each_rule_counts_for_itself_with_the_time_it_took() {
    let mut script = script(r#"{"rules":[{"name":"one","limits":[{"rate":"1/minute"}]}]}"#);
    script.lap(Duration::from_nanos(700));
    let mut time = 0;
    for ask in 0..32 {
        let seen = script.run();
        let what = if ask == 0 { "admitted" } else { "limited" };
        assert_eq!(
            seen.counted(&format!("ratelimit.rule.one.{what}")),
            1,
            "{ask}"
        );
        time += seen.counted("ratelimit.rule.one.decision_ns");
        // One is timed, and counts for sixteen.
        assert_eq!(time, 16 * 700 * (ask / 16 + 1), "{ask}");
    }
    script.pass(Duration::from_secs(60));
    let seen = script.store_down(true).run();
    assert_eq!(seen.counted("ratelimit.rule.one.store_error"), 1);
}

#[test]
fn what_the_operator_should_know_is_noted() {
    use edgeweir_filter::Filter as _;
    let notes = |config: &str| load::<RateLimit>(config.as_bytes()).expect(config).notes();
    assert!(notes("").is_empty());
    let all = notes(r#"{"rules":[{"name":"r","key":[{"claim":"sub"}],"concurrency":5}]}"#);
    assert!(
        all.iter().any(|note| note.contains("without verifying")),
        "{all:?}"
    );
    assert!(
        all.iter().any(|note| note.contains("for itself")),
        "{all:?}"
    );
}
