//! What would never have an effect is refused at load, or noted where it may be meant.

use edgeweir_filter::{Filter as _, Script, load};
use edgeweir_ratelimit::RateLimit;

fn refused(config: &str) -> String {
    let loaded = load::<RateLimit>(config.as_bytes());
    loaded.err().map(|it| it.to_string()).unwrap_or_default()
}

fn script(config: &str) -> Script {
    Script::new(load::<RateLimit>(config.as_bytes()).expect(config)).origin(200, &[], "hello")
}

#[test]
fn values_that_no_request_has_are_refused() {
    for (rule, want) in [
        (
            r#""when":[{"by":"method","is":["GET","post"]}]"#,
            r#"`rules[0].when[0].is[1]`: "post" must be "POST""#,
        ),
        (
            r#""when":[{"by":"path","is":["login"]}]"#,
            r#"`rules[0].when[0].is[0]`: "login" must begin with '/'"#,
        ),
        (r#""when":[{"by":"path","is":["/a?b"]}]"#, "without a query"),
        (
            r#""paths":["/a/{id}"],"when":[{"by":{"segment":"id"},"is":["7/8"]}]"#,
            r#"`rules[0].when[0].is[0]`: "7/8" must be one segment"#,
        ),
        (
            r#""paths":["/a/{id}"],"when":[{"by":"template","is":["/a/{id}"]}]"#,
            "`rules[0].when[0].by`: a template is a matter of `paths`",
        ),
        (
            r#""when":[{"by":{"header":"x"},"is":[" a"]}]"#,
            r#"`rules[0].when[0].is[0]`: " a" must have no white space"#,
        ),
        (
            r#""when":[{"by":"api_key","is":["a\n"]}]"#,
            "nor a line's end",
        ),
        (
            r#""when":[{"by":{"cookie":"x"},"is":["a;b"]}]"#,
            "there a cookie ends",
        ),
        (
            r#""tiers":{"by":"client","limits":{"192.0.2.1":[{"rate":"1/second"}]}}"#,
            "`rules[0].tiers.by`: no address names a tier",
        ),
        (
            r#""tiers":{"by":"path","limits":{"a":[{"rate":"1/second"}]}}"#,
            "`rules[0].tiers.by`: no path names a tier",
        ),
        (
            r#""tiers":{"by":"method","limits":{"get":[{"rate":"1/second"}]}}"#,
            r#"`rules[0].tiers.limits.get`: "get" must be "GET""#,
        ),
        (
            r#""tiers":{"by":"group","limits":{"home":[{"rate":"1/second"}]}}"#,
            r#"`rules[0].tiers.limits.home`: "home" is no name of `groups`"#,
        ),
        (
            r#""key":["client",{"header":"A"},{"header":"a"}]"#,
            "`rules[0].key[2]`: the same part is there before",
        ),
    ] {
        let config = format!(r#"{{"groups":{{"office":["192.0.2.0/24"]}},"rules":[{{{rule}}}]}}"#);
        let error = refused(&config);
        assert!(error.contains(want), "{config}: {error}");
    }
}

#[test]
fn options_without_effect_are_refused() {
    const IDLE: &str = "has no effect: a rule that allows or denies counts nothing";
    for (rule, field, want) in [
        (r#""action":"allow","cost":2"#, "cost", IDLE),
        (r#""action":"deny","key":["path"]"#, "key", IDLE),
        (r#""action":"deny","emergency":[9,9,9]"#, "emergency", IDLE),
        (
            r#""action":"allow","on_store_failure":"closed""#,
            "on_store_failure",
            IDLE,
        ),
        (r#""action":"allow","shadow":true"#, "shadow", IDLE),
        (
            r#""preset":"strict","concurrency":2"#,
            "preset",
            "has no effect beside `concurrency` or `adaptive`: write `limits`",
        ),
        (
            r#""cost":2,"concurrency":2"#,
            "cost",
            "has no effect without `limits`",
        ),
        (
            r#""cost":2,"concurrency":2,"limits":[]"#,
            "cost",
            "has no effect without `limits`",
        ),
        (
            r#""on_store_failure":"closed","adaptive":{"latency_ms":9}"#,
            "on_store_failure",
            "has no effect without `limits`",
        ),
    ] {
        let error = refused(&format!(r#"{{"rules":[{{{rule}}}]}}"#));
        let want = format!("`rules[0].{field}`: {want}");
        assert!(error.contains(&want), "{rule}: {error}");
    }
    // A rule that denies is tried out as any other.
    script(r#"{"rules":[{"action":"deny","shadow":true}]}"#);
}

#[test]
fn names_that_stand_for_two_things_are_refused() {
    for (config, want) in [
        (
            r#"{"groups":{"a":["::/0"],"a":["10.0.0.0/8"]}}"#,
            r#"`groups`: "a" is there twice"#,
        ),
        (
            r#"{"rules":[{"tiers":{"by":"method","limits":{"GET":[{"rate":"1/second"}],"GET":[{"rate":"2/second"}]}}}]}"#,
            r#""GET" is there twice"#,
        ),
        (
            r#"{"groups":{"192.0.2.1":["::/0"]}}"#,
            "is an address: give the group a name",
        ),
        (
            r#"{"rules":[{"name":"a","tiers":{"by":"method","limits":{"GET":[{"rate":"1/second"}]}}},{"name":"a-GET"}]}"#,
            r#"`rules[1].name`: "a-GET" is the name of two limits"#,
        ),
        (
            r#"{"rules":[{"name":"a"},{"name":"a"}]}"#,
            r#"`rules[1].name`: "a" is another rule's, "a""#,
        ),
        (
            r#"{"rules":[{"name":"a.b"},{"name":"c"},{"name":"a-b"}]}"#,
            r#"`rules[2].name`: "a-b" is another rule's, "a.b": metrics have '_'"#,
        ),
        (
            r#"{"rules":[{"name":"a_b_c"},{"name":"a.b-c"}]}"#,
            r#"`rules[1].name`: "a.b-c" is another rule's, "a_b_c""#,
        ),
        (
            r#"{"rules":[{"name":"a","tiers":{"by":{"header":"x"},"limits":{"burst":[{"rate":"1/second"}]}}}]}"#,
            r#"`rules[0].name`: "a-burst" is the name of two limits"#,
        ),
        (
            r#"{"groups":{"a":["::ffff:10.0.0.0/24"]}}"#,
            "is no block of addresses",
        ),
    ] {
        let error = refused(config);
        assert!(error.contains(want), "{config}: {error}");
    }
}

#[test]
fn lists_where_options_go_by_name_are_refused() {
    const LIST: &str = "a list where an object of options belongs";
    for (config, field, want) in [
        ("[]", "configuration:", LIST),
        (r#"{"rules":[[]]}"#, "`rules[0]`:", LIST),
        (
            r#"{"rules":[{"limits":[["1/second"]]}]}"#,
            "`rules[0].limits[0]`:",
            LIST,
        ),
        (
            r#"{"rules":[{"when":[["path",["/a"]]]}]}"#,
            "`rules[0].when[0]`:",
            LIST,
        ),
        (
            r#"{"rules":[{"tiers":["method",{}]}]}"#,
            "`rules[0].tiers`:",
            LIST,
        ),
        (
            r#"{"rules":[{"adaptive":[5,1,9]}]}"#,
            "`rules[0].adaptive`:",
            LIST,
        ),
        (r#"{"store":["limits"]}"#, "`store`:", LIST),
        (
            r#"{"rules":[{"cost":["x-cost",null,1,5]}]}"#,
            "`rules[0].cost`:",
            "expected a number of cells, or an object like",
        ),
        (
            r#"{"groups":[["a",["::/0"]]]}"#,
            "`groups`:",
            "expected an object of values by name",
        ),
        (
            r#"{"rules":[{"cost":{"request":"x","most":5,"least":1}}]}"#,
            "`rules[0].cost.least`:",
            "unknown field `least`",
        ),
        (
            r#"{"rules":[{"limits":[{"rate":"1/second","burst":"fast"}]}]}"#,
            "`rules[0].limits[0].burst`:",
            "\"fast\" is no rate",
        ),
        (
            r#"{"rules":[{"limits":[{"rate":"1/second","burst":-1}]}]}"#,
            "`rules[0].limits[0].burst`:",
            "expected a number of cells",
        ),
        (
            r#"{"rules":[{"cost":4294967297}]}"#,
            "`rules[0].cost`:",
            "out of bounds: 1 to 1000000000",
        ),
        (
            r#"{"status":429,"status":430}"#,
            "configuration:",
            "duplicate field `status`",
        ),
        (r#"{"status":429} x"#, "configuration:", "trailing"),
    ] {
        let error = refused(config);
        assert!(
            error.contains(field) && error.contains(want),
            "{config}: {error}"
        );
    }
}

#[test]
fn names_that_differ_by_more_than_punctuation_load() {
    let names = ["a.b", "ab", "a-b.c", "A.b", "a..b", "-a.b"];
    let rules = names
        .map(|name| format!(r#"{{"name":"{name}"}}"#))
        .join(",");
    assert_eq!(refused(&format!(r#"{{"rules":[{rules}]}}"#)), "");
}

#[test]
fn a_burst_beyond_what_a_state_can_count_is_refused() {
    for (limit, want) in [
        (
            r#"{"rate":"1/31days","burst":1000000000}"#,
            "`rules[0].limits`: a burst that takes",
        ),
        (
            r#"{"rate":"1/31days","burst":118}"#,
            "out of bounds: at most ten years",
        ),
        (r#"{"rate":"1/31days","burst":117}"#, ""),
        (r#"{"rate":"1/31days"}"#, ""),
        (r#"{"rate":"1000000000/31days"}"#, ""),
    ] {
        let error = refused(&format!(
            r#"{{"rules":[{{"emergency":[100,100,1],"limits":[{limit}]}}]}}"#
        ));
        assert!(error.contains(want), "{limit}: {error}");
        assert_eq!(error.is_empty(), want.is_empty(), "{limit}: {error}");
    }
}

#[test]
fn a_group_is_known_by_its_name() {
    let config = |groups: &str| {
        format!(
            r#"{{"groups":{{{groups}"office":["192.0.2.0/24"]}},"rules":[{{"name":"r","key":["group"],"limits":[{{"rate":"1/hour"}}],
               "tiers":{{"by":"group","limits":{{"office":[{{"rate":"3/hour"}}]}}}}}}]}}"#
        )
    };
    let mut before = script(&config(""));
    let mut admitted = |peer: &str| {
        (0..5)
            .filter(|_| before.peer(peer).run().status == 200)
            .count()
    };
    assert_eq!((admitted("192.0.2.1"), admitted("8.8.8.8")), (3, 1));
    // Another group in front of it moves nobody.
    let more = config(r#""home":["198.51.100.0/24"],"#);
    let mut after = script(&more).sharing(&before.shared);
    assert_eq!(after.peer("192.0.2.2").run().status, 429);
    assert_eq!(after.peer("198.51.100.1").run().status, 200);
}

#[test]
fn values_are_compared_as_requests_have_them() {
    let mut script = script(
        r#"{"rules":[{"name":"host","when":[{"by":{"header":"Host"},"is":["API.example"]}],"action":"deny"},
             {"name":"path","when":[{"by":"path","is":["/%6cogin"]}],"action":"deny"}]}"#,
    );
    for (authority, path, status) in [
        ("api.example", "/", 403),
        ("Api.Example", "/", 403),
        ("example", "/", 200),
        ("example", "/login?x", 403),
        ("example", "/%6Cogin", 403),
    ] {
        script.request(&["GET", path, authority], &[]);
        assert_eq!(script.run().status, status, "{authority} {path}");
    }
}

#[test]
fn what_is_never_reached_is_noted() {
    let notes = |config: &str| load::<RateLimit>(config.as_bytes()).expect(config).notes();
    for (config, want) in [
        (
            r#"{"rules":[{"name":"a","paths":["/a"]},{"name":"all"},{"name":"b","paths":["/b"]}]}"#,
            Some("rule all: it matches every request, so that no rule behind it is asked"),
        ),
        (
            r#"{"rules":[{"name":"b","paths":["/b"]},{"name":"all"}]}"#,
            None,
        ),
        (
            r#"{"rules":[{"name":"trial","shadow":true},{"name":"all"}]}"#,
            None,
        ),
        (
            r#"{"rules":[{"name":"r","limits":[{"rate":"10/minute"},{"rate":"20/minute"}]}]}"#,
            Some("rule r: the limit r-2 never refuses, r always does before it"),
        ),
        (
            r#"{"rules":[{"name":"r","limits":[{"rate":"10/minute","burst":"20/second"}]}]}"#,
            Some("rule r: the limit r-burst never refuses, r always does before it"),
        ),
        (
            r#"{"rules":[{"name":"r","limits":[{"rate":"10/minute"},{"rate":"10/minute"}]}]}"#,
            Some("rule r: the limit r-2 never refuses, r always does before it"),
        ),
        (
            r#"{"rules":[{"name":"r","limits":[{"rate":"1000/hour","burst":50},{"rate":"20/second"}]}]}"#,
            None,
        ),
        ("", None),
        (r#"{"rules":[{"preset":"generous"}]}"#, None),
    ] {
        let want: Vec<&str> = want.into_iter().collect();
        assert_eq!(notes(config), want, "{config}");
    }
}

#[test]
fn every_example_of_the_readme_loads() {
    let readme = include_str!("../README.md");
    let examples: Vec<&str> = readme
        .split("```json\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(examples.len() > 10, "{}", examples.len());
    for example in examples {
        assert_eq!(refused(example), "", "{example}");
    }
}
