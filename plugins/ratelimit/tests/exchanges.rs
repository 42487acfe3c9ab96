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

#[test]
fn every_field_parses_as_a_structured_field() {
    let mut script = script(
        r#"{"rules":[{"name":"a.b-c_1","limits":[{"rate":"1/minute"},{"rate":"5/hour"}]}]}"#,
    );
    for _ in 0..3 {
        let seen = script.run();
        for name in ["ratelimit", "ratelimit-policy"] {
            let value = seen.text(name);
            sfv::Parser::new(&value)
                .parse::<sfv::List>()
                .unwrap_or_else(|error| panic!("{name}: {value}: {error}"));
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
    assert_eq!(closed.store_down(true).run().status, 503);
}

#[test]
fn a_shadow_never_refuses() {
    let mut script = script(r#"{"rules":[{"shadow":true,"limits":[{"rate":"1/minute"}]}]}"#);
    script.run();
    let seen = script.run();
    assert_eq!((seen.status, seen.counted("ratelimit.shadowed")), (200, 1));
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
