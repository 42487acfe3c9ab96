//! Who is limited, by which rule, and at what cost.

use edgeweir_filter::{Script, Seen, load};
use edgeweir_ratelimit::RateLimit;

fn script(config: &str) -> Script {
    Script::new(load::<RateLimit>(config.as_bytes()).expect(config)).origin(200, &[], "hello")
}

/// What the rule of this name counted.
fn counted(seen: &Seen, rule: &str, what: &str) -> u64 {
    seen.counted(&format!("ratelimit.rule.{rule}.{what}"))
}

#[test]
fn every_part_tells_clients_apart() {
    // A token whose claims are {"sub":"a"} and {"sub":"b"}.
    let (a, b) = (
        "Bearer e30.eyJzdWIiOiJhIn0.x",
        "Bearer e30.eyJzdWIiOiJiIn0.x",
    );
    for (name, rule, same, other) in [
        (
            "cookie",
            r#""key":[{"cookie":"id"}]"#,
            [("/x", "cookie", "id=1; z=1"), ("/y", "cookie", "z=2; id=1")],
            ("/x", "cookie", "id=2"),
        ),
        (
            "query",
            r#""key":[{"query":"k"}]"#,
            [("/x?k=1", "a", ""), ("/y?z&%6b=%31", "a", "")],
            ("/x?k=2", "a", ""),
        ),
        (
            "api key",
            r#""key":["api_key"]"#,
            [("/", "authorization", "Bearer 1"), ("/", "x-api-key", "1")],
            ("/", "x-api-key", "2"),
        ),
        (
            "claim",
            r#""key":[{"claim":"sub"}]"#,
            [("/", "authorization", a), ("/y", "authorization", a)],
            ("/", "authorization", b),
        ),
        (
            "segment",
            r#""paths":["/users/{id}/*"],"key":[{"segment":"id"}]"#,
            [("/users/1/a", "a", ""), ("/users/%31/b?c", "a", "")],
            ("/users/2/a", "a", ""),
        ),
        (
            "template",
            r#""paths":["/users/{id}","/orders/{id}"],"key":["template"]"#,
            [("/users/1", "a", ""), ("/users/2", "a", "")],
            ("/orders/1", "a", ""),
        ),
        (
            "path",
            r#""key":["path"]"#,
            [("/a?x", "a", ""), ("/%61", "a", "")],
            ("/b", "a", ""),
        ),
    ] {
        let config = format!(r#"{{"rules":[{{{rule},"limits":[{{"rate":"1/hour"}}]}}]}}"#);
        let mut script = script(&config);
        let mut status = |(path, field, value): (&str, &str, &str)| {
            script
                .request(&["GET", path], &[(field, value)])
                .run()
                .status
        };
        assert_eq!(same.map(&mut status), [200, 429], "{name}");
        assert_eq!(status(other), 200, "{name}");
    }
}

#[test]
fn keys_that_begin_alike_are_clients_of_their_own() {
    let mut script = script(r#"{"rules":[{"key":["api_key"],"limits":[{"rate":"1/hour"}]}]}"#);
    // A token is longer than any part that is kept as it is.
    for length in [500, 511, 512, 513, 4_000] {
        let same = "k".repeat(length);
        for last in ["1", "2"] {
            let key = format!("Bearer {same}{last}");
            let mut run = || {
                script
                    .request(&["GET", "/"], &[("authorization", &key)])
                    .run()
            };
            assert_eq!([run().status, run().status], [200, 429], "{length} {last}");
        }
    }
}

#[test]
fn a_network_is_one_client() {
    let mut script = script(r#"{"rules":[{"limits":[{"rate":"10/hour"}]}]}"#);
    let mut admitted = 0;
    // 2^16 addresses of one /64.
    for at in 0..=u16::MAX {
        let address = format!("2001:db8:1:2::{at:x}");
        admitted += usize::from(script.peer(&address).run().status == 200);
    }
    assert_eq!(admitted, 10);
    assert_eq!(script.peer("2001:db8:1:3::1").run().status, 200);
}

#[test]
fn groups_and_lists_choose_rules() {
    let mut script = script(
        r#"{"groups":{"office":["192.0.2.0/24","2001:db8::/32"],"partners":["198.51.100.0/24"]},
            "rules":[
              {"name":"banned","clients":["203.0.113.0/24"],"action":"deny"},
              {"name":"internal","clients":["office"],"paths":["/internal/*"],"action":"allow"},
              {"name":"networks","clients":["office","partners"],"key":["group"],"limits":[{"rate":"2/hour"}]},
              {"name":"rest","key":[],"limits":[{"rate":"1/hour"}]}]}"#,
    );
    for (peer, path, status, rule) in [
        ("203.0.113.7", "/", 403, "banned"),
        ("192.0.2.1", "/internal/x", 200, "internal"),
        ("192.0.2.1", "/internal/x", 200, "internal"),
        ("192.0.2.1", "/internal/x", 200, "internal"),
        ("192.0.2.1", "/", 200, "networks"),
        ("2001:db8::1", "/", 200, "networks"),
        ("192.0.2.3", "/", 429, "networks"),
        ("198.51.100.1", "/", 200, "networks"),
        ("8.8.8.8", "/", 200, "rest"),
        ("9.9.9.9", "/internal/x", 429, "rest"),
    ] {
        let seen = script.request(&["GET", path], &[]).peer(peer).run();
        assert_eq!(seen.status, status, "{peer} {path}");
        let what = if status == 200 { "admitted" } else { "limited" };
        assert_eq!(counted(&seen, rule, what), 1, "{peer} {path}");
    }
}

#[test]
fn conditions_and_tiers_choose_limits() {
    let mut script = script(
        r#"{"rules":[
              {"name":"probes","when":[{"by":{"header":"User-Agent"},"is":["probe/1","probe/2"]}],"action":"allow"},
              {"name":"named","when":[{"by":"api_key"}],"key":["api_key"],
               "limits":[{"rate":"1/hour"}],
               "tiers":{"by":{"header":"X-Plan"},"limits":{"gold":[{"rate":"3/hour"}],"silver":[{"rate":"2/hour"}]}}},
              {"name":"rest","limits":[{"rate":"1/day"}]}]}"#,
    );
    let mut admitted = |fields: &[(&str, &str)]| {
        let script = script.request(&["GET", "/"], fields);
        let seen: Vec<Seen> = (0..5).map(|_| script.run()).collect();
        let count = seen.iter().filter(|seen| seen.status == 200).count();
        (count, seen[4].text("ratelimit-policy"))
    };
    for (fields, want, policy) in [
        (&[("user-agent", "probe/2")][..], 5, ""),
        (
            &[("x-api-key", "a"), ("x-plan", "gold")],
            3,
            r#""named-gold";q=3;w=3600"#,
        ),
        (
            &[("x-api-key", "a"), ("x-plan", "silver")],
            2,
            r#""named-silver";q=2;w=3600"#,
        ),
        (
            &[("x-api-key", "b"), ("x-plan", "gold")],
            3,
            r#""named-gold";q=3;w=3600"#,
        ),
        (
            &[("x-api-key", "a"), ("x-plan", "lead")],
            1,
            r#""named";q=1;w=3600"#,
        ),
        (&[("x-plan", "gold")], 1, r#""rest";q=1;w=86400"#),
    ] {
        assert_eq!(admitted(fields), (want, policy.to_owned()), "{fields:?}");
    }
}

#[test]
fn a_request_costs_what_its_field_says() {
    let config =
        r#"{"rules":[{"cost":{"request":"X-Cost","most":8},"limits":[{"rate":"10/hour"}]}]}"#;
    let mut script = script(config);
    for (cost, status, left) in [
        ("6", 200, "r=4;"),
        ("100", 429, "r=4;"),
        ("x", 200, "r=3;"),
        ("0", 200, "r=2;"),
    ] {
        let seen = script.request(&["GET", "/"], &[("x-cost", cost)]).run();
        assert_eq!(seen.status, status, "{cost}");
        assert!(
            seen.text("ratelimit").contains(left),
            "{cost}: {}",
            seen.text("ratelimit")
        );
    }
}

#[test]
fn a_response_costs_after_the_fact() {
    let config =
        r#"{"rules":[{"cost":{"response":"X-Cost","most":10},"limits":[{"rate":"10/hour"}]}]}"#;
    let mut script = script(config).origin(200, &[("x-cost", "4")], "hello");
    let left: Vec<String> = (0..3).map(|_| script.run().text("ratelimit")).collect();
    // Each says what is left after its own cost, and the last what is left to forgive: nothing.
    let want = [
        r#""default";r=6;t=1440"#,
        r#""default";r=2;t=2880"#,
        r#""default";r=0;t=3600"#,
    ];
    assert_eq!(left, want);
    let seen = script.run();
    assert_eq!(
        seen.status, 429,
        "what exceeded the burst is forgiven, the rest is not"
    );
    let wait: u64 = seen.text("retry-after").parse().unwrap();
    assert!((1..=360).contains(&wait), "{wait}");
}

#[test]
fn a_response_says_what_is_left_after_its_own_cost() {
    let config = r#"{"x_ratelimit":true,"rules":[{"cost":{"response":"x-cost","default":5,"most":30},
        "limits":[{"rate":"100/hour"},{"rate":"60/hour","algorithm":"sliding_window"}]}]}"#;
    let mut script = script(config);
    for (cost, left) in [("30", "30"), ("2", "25"), ("none", "20"), ("30", "0")] {
        let seen = script.answers(200, &[("x-cost", cost)], &[b"hello"]).run();
        assert_eq!(seen.text("x-ratelimit-remaining"), left, "{cost}");
        let told = seen.text("ratelimit");
        assert!(
            told.starts_with(&format!(r#""default-2";r={left};"#)),
            "{cost}: {told}"
        );
    }
    assert_eq!(script.run().status, 429);
}

#[test]
fn nonsense_is_refused_by_name() {
    for (rule, want) in [
        (
            r#""paths":["login"]"#,
            "`rules[0].paths[0]`: \"login\" must begin with '/'",
        ),
        (r#""paths":["/a","/{a"]"#, "`rules[0].paths[1]`"),
        (
            r#""paths":["/a?b=1"]"#,
            "`rules[0].paths[0]`: \"/a?b=1\" must be a path alone, without a query",
        ),
        (
            r#""methods":["GET","post"]"#,
            "`rules[0].methods[1]`: \"post\" must be \"POST\"",
        ),
        (
            r#""methods":[""]"#,
            "`rules[0].methods[0]`: \"\" must be a token",
        ),
        (
            r#""methods":["P OST"]"#,
            "`rules[0].methods[0]`: \"P OST\" must be a token",
        ),
        (
            r#""cost":{"request":"x y","most":2}"#,
            "`rules[0].cost.request`: \"x y\" must be a token of 1 to 128 characters",
        ),
        (
            r#""cost":{"response":"x:y","most":2}"#,
            "`rules[0].cost.response`: \"x:y\" must be a token",
        ),
        (
            r#""clients":["office"]"#,
            "`rules[0].clients`: \"office\" is no block of addresses",
        ),
        (
            r#""key":["group"]"#,
            "`rules[0].key[0]`: a group needs `groups`",
        ),
        (
            r#""key":["template"]"#,
            "`rules[0].key[0]`: a template needs paths",
        ),
        (
            r#""key":[{"segment":"id"}],"paths":["/users/{id}","/x"]"#,
            "`rules[0].key[0]`: no segment \"id\"",
        ),
        (
            r#""key":[{"header":"a b"}]"#,
            "`rules[0].key[0]`: \"a b\" must be a token",
        ),
        (
            r#""key":["client","header"]"#,
            "`rules[0].key[1]`: \"header\" needs a name: write {\"header\": \"name\"}",
        ),
        (
            r#""tiers":{"by":"claim","limits":{}}"#,
            "`rules[0].tiers.by`: \"claim\" needs a name",
        ),
        (
            r#""key":[{"claim":""}]"#,
            "`rules[0].key[0]`: \"\" must be 1 to 128 bytes",
        ),
        (
            r#""key":["path","path","path","path","path","path","path","path"]"#,
            "`rules[0].key`: 8 entries",
        ),
        (
            r#""when":[{"by":"client"}]"#,
            "`rules[0].when[0].by`: an address is a matter of `clients`",
        ),
        (r#""when":[{"by":{"header":""}}]"#, "`rules[0].when[0].by`"),
        (
            r#""action":"deny","limits":[{"rate":"1/second"}]"#,
            "`rules[0].action`: a rule that limits",
        ),
        (
            r#""emergency":[50,75,25]"#,
            "`rules[0].emergency`: [50, 75, 25] is out of bounds",
        ),
        (r#""emergency":[50,25,0]"#, "`rules[0].emergency`"),
        (
            r#""concurrency":0"#,
            "`rules[0].concurrency`: 0 is out of bounds: 1 to 1000000",
        ),
        (
            r#""adaptive":{"latency_ms":0}"#,
            "`rules[0].adaptive.latency_ms`: 0 is out of bounds: 1 to 60000",
        ),
        (
            r#""adaptive":{"latency_ms":9,"floor":9,"ceiling":8}"#,
            "`rules[0].adaptive.floor`: 9 is out of bounds",
        ),
        (
            r#""adaptive":{"latency_ms":9,"ceiling":1000001}"#,
            "`rules[0].adaptive.ceiling`",
        ),
        (
            r#""tiers":{"by":"method","limits":{}}"#,
            "`rules[0].tiers.limits`: 0 tiers is out of bounds: 1 to 16",
        ),
        (
            r#""tiers":{"by":"method","limits":{"a b":[{"rate":"1/second"}]}}"#,
            "`rules[0].tiers.limits.a b`: \"a b\" must be",
        ),
        (
            r#""tiers":{"by":"method","limits":{"a":[]}}"#,
            "`rules[0].tiers.limits.a`: a tier needs",
        ),
        (
            r#""cost":{"request":"x","most":21}"#,
            "`rules[0].cost`: 21 is more than the limits ever admit",
        ),
        (
            r#""limits":[{"rate":"1/second","algorithm":"sliding_window","burst":3}]"#,
            "`rules[0].limits[0].burst`: a sliding window",
        ),
        (
            r#""limits":[{"rate":"1/second"},{"rate":"1/second"},{"rate":"1/second"},{"rate":"1/second"},{"rate":"1/second"},{"rate":"1/second"},{"rate":"1/second"},{"rate":"1/second"}]"#,
            "`rules[0].limits`: they need 68 bytes",
        ),
    ] {
        let config = format!(r#"{{"rules":[{{{rule}}}]}}"#);
        let error = load::<RateLimit>(config.as_bytes())
            .err()
            .map(|error| error.to_string());
        let error = error.unwrap_or_default();
        assert!(error.contains(want), "{config}: {error}");
    }
    for (config, want) in [
        (r#"{"groups":{"a b":["::/0"]}}"#, "`groups.a b`"),
        (
            r#"{"groups":{"a":[]}}"#,
            "`groups.a`: 0 blocks is out of bounds: 1 to 1024",
        ),
        (
            r#"{"groups":{"a":["1.2.3.4/33"]}}"#,
            "`groups.a`: the prefix of",
        ),
        (
            r#"{"rules":[{},{}]}"#,
            "`rules[1].name`: \"default\" is another rule's",
        ),
        (
            r#"{"trusted_hops":17}"#,
            "`trusted_hops`: 17 is out of bounds: 0 to 16",
        ),
    ] {
        let error = load::<RateLimit>(config.as_bytes())
            .err()
            .map(|error| error.to_string());
        let error = error.unwrap_or_default();
        assert!(error.contains(want), "{config}: {error}");
    }
}

#[test]
fn all_addresses_of_one_network_are_one_client() {
    let mut script = script(r#"{"rules":[{"limits":[{"rate":"100/hour"}]}]}"#);
    let mut admitted = 0;
    for host in 0..1u32 << 16 {
        let address = format!("2001:db8:7:8:{:x}::{host:x}", host % 7);
        admitted += u32::from(script.peer(&address).run().status == 200);
    }
    assert_eq!((admitted, script.shared.len()), (100, 1));
    assert_eq!(
        script.peer("2001:db8:7:9::1").run().status,
        200,
        "another network"
    );
}

#[test]
fn presets_are_limits_of_their_own() {
    for (rule, at_once) in [
        (r#""preset":"strict""#, 5),
        (r#""preset":"standard""#, 20),
        (r#""preset":"generous""#, 100),
        // What is set beside it counts.
        (r#""preset":"strict","limits":[{"rate":"7/minute"}]"#, 7),
    ] {
        let mut script = script(&format!(r#"{{"rules":[{{{rule}}}]}}"#));
        let admitted = (0..200).filter(|_| script.run().status == 200).count();
        assert_eq!(admitted, at_once, "{rule}");
    }
    let idle = load::<RateLimit>(br#"{"rules":[{"preset":"strict","action":"deny"}]}"#);
    assert!(idle.is_err_and(|error| error.to_string().contains("action")));
}
