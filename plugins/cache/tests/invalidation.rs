//! Invalidation of more than one key, seen by two workers: by whom it is done does not matter.

use std::time::Duration;

use edgeweir_cache::Cache;
use edgeweir_filter::{Script, Seen, load};

const TOKEN: &str = "Bearer 0123456789abcdef";
const CONFIG: &str = r#"{
    "admin": { "token": "0123456789abcdef" },
    "dependencies": { "menu": ["page"], "page": ["home", "menu"] }
}"#;

fn worker(json: &str) -> Script {
    Script::new(load::<Cache>(json.as_bytes()).expect("a valid configuration"))
}

/// Two workers of one edge.
fn workers() -> (Script, Script) {
    let one = worker(CONFIG);
    let two = worker(CONFIG).sharing(&one.shared);
    (one, two)
}

fn keep(edge: &mut Script, path: &str, fields: &[(&str, &str)]) {
    let fields = [
        &[("cache-control", "max-age=600"), ("etag", "\"1\"")],
        fields,
    ]
    .concat();
    edge.answers(200, &fields, &[b"old"]);
    let seen = edge.request(&["GET", path], &[]).run();
    assert!(seen.text("cache-status").contains("; stored"), "{path}");
}

fn is_hit(edge: &mut Script, path: &str) -> bool {
    edge.answers(500, &[], &[]);
    edge.request(&["GET", path], &[]).run().status == 200
}

fn admin(edge: &mut Script, line: &[&str], fields: &[(&str, &str)]) -> Seen {
    let fields = [&[("authorization", TOKEN)], fields].concat();
    let seen = edge.request(line, &fields).run();
    assert!(seen.upstream.is_none(), "not for the origin");
    seen
}

fn purge(edge: &mut Script, query: &str) -> String {
    let path = format!("/.edgeweir/cache/purge?{query}");
    let seen = admin(edge, &["POST", &path], &[]);
    assert_eq!(seen.status, 200, "{query}: {}", seen.body_text());
    seen.body_text()
}

#[test]
fn a_purge_finds_every_spelling_of_what_it_names() {
    let (host, coffee) = ("example.com", "/caf%C3%A9/x");
    for (query, path) in [
        (format!("prefix=http://{host}/img/"), "/img/a"),
        (format!("prefix=https://{host}:443/img/"), "/img/a"),
        (format!("pattern=HTTPS://{host}/img/?"), "/img/a"),
        ("prefix=/caf%25c3%25a9/".to_owned(), coffee),
        ("prefix=/caf%c3%a9/".to_owned(), coffee),
        ("pattern=*/caf%25c3%25A9/*".to_owned(), coffee),
        ("prefix=/a%20b/".to_owned(), "/a%20b/c"),
        ("key=/caf%c3%a9/x".to_owned(), coffee),
        ("key=/caf%25c3%25a9/x".to_owned(), coffee),
    ] {
        let (mut one, mut two) = workers();
        keep(&mut one, path, &[]);
        let said = purge(&mut two, &query);
        assert!(!is_hit(&mut one, path), "{query}: {said}");
    }
    for query in ["prefix=img/", "prefix=img", "pattern=ftp://example.com/*"] {
        let path = format!("/.edgeweir/cache/purge?{query}");
        let seen = admin(&mut workers().0, &["POST", &path], &[]);
        assert_eq!(seen.status, 400, "{query}");
        assert!(seen.body_text().contains("must begin with"), "{query}");
    }
}

#[test]
fn what_a_purge_reaches() {
    let all = ["/a", "/a?x", "/b", "/img/c.png", "/img/d.jpg"];
    for (query, gone) in [
        ("key=/a", vec!["/a"]),
        ("key=https://example.com/b", vec!["/b"]),
        ("key=http://example.com/b", vec![]),
        ("tag=red", vec!["/a", "/b"]),
        ("tag=red&tag=blue", vec!["/a", "/b", "/img/c.png"]),
        ("prefix=/img/", vec!["/img/c.png", "/img/d.jpg"]),
        ("prefix=other.example/img/", vec![]),
        ("pattern=*.png", vec!["/img/c.png"]),
        ("pattern=example.com/?", vec!["/a", "/a?x", "/b"]),
        ("all=1", all.to_vec()),
    ] {
        let (mut one, mut two) = workers();
        keep(&mut one, "/a", &[("surrogate-key", "red green")]);
        keep(&mut one, "/a?x", &[]);
        keep(&mut one, "/b", &[("cache-tag", "red")]);
        keep(&mut one, "/img/c.png", &[("cache-tag", "blue")]);
        keep(&mut one, "/img/d.jpg", &[]);
        for path in all {
            assert!(is_hit(&mut two, path), "{path} is shared");
        }
        one.pass(Duration::from_secs(1));
        two.pass(Duration::from_secs(1));
        purge(&mut two, &format!("{query}&dry_run=1"));
        for path in all {
            assert!(is_hit(&mut one, path), "{query}: a dry run touches nothing");
        }
        purge(&mut two, query);
        for path in all {
            let expected = !gone.contains(&path);
            assert_eq!(is_hit(&mut one, path), expected, "{query}: {path}");
            assert_eq!(is_hit(&mut two, path), expected, "{query}: {path}");
        }
        // What is stored afterwards stays.
        one.pass(Duration::from_secs(1));
        two.pass(Duration::from_secs(1));
        for path in gone {
            keep(&mut one, path, &[("surrogate-key", "red blue")]);
            assert!(is_hit(&mut two, path), "{query}: {path} anew");
        }
    }
}

#[test]
fn a_dry_run_says_what_this_worker_holds() {
    let (mut one, mut two) = workers();
    keep(&mut one, "/a", &[("surrogate-key", "home")]);
    keep(&mut one, "/b?x=1", &[]);
    let said = |edge: &mut Script, query: &str| -> serde_json::Value {
        serde_json::from_str(&purge(edge, &format!("{query}&dry_run=1"))).expect("JSON")
    };
    for (query, held) in [
        ("key=/a", vec!["example.com/a"]),
        ("key=/b", vec![]),
        ("tag=menu", vec!["example.com/a"]),
        ("tag=other", vec![]),
        ("prefix=/b", vec!["example.com/b"]),
        ("pattern=*.com/?", vec!["example.com/a", "example.com/b"]),
        ("all=1", vec!["example.com/a", "example.com/b"]),
    ] {
        let mut answer = said(&mut one, query);
        let shown = answer["for_example"].as_array_mut().expect("a list");
        shown.sort_by_key(ToString::to_string);
        assert_eq!(*shown, held, "{query}");
        assert_eq!(answer["held_here"], held.len(), "{query}");
        assert_eq!(answer["invalidated"], false, "{query}");
        assert_eq!(said(&mut two, query)["held_here"], 0, "{query}: not here");
    }
}

#[test]
fn a_soft_purge_makes_stale_each_in_its_time() {
    let (mut one, mut two) = workers();
    for at in 0..20 {
        keep(&mut one, &format!("/{at}"), &[("cache-tag", "red")]);
    }
    one.pass(Duration::from_secs(1));
    purge(&mut one, "tag=red&soft=1&spread=30");
    two.pass(Duration::from_secs(1));
    let validated = |edge: &mut Script, at: i32| {
        edge.answers(500, &[], &[]);
        let path = format!("/{at}");
        let seen = edge.request(&["GET", &path], &[]).run();
        seen.upstream
            .is_some_and(|head| head.fields.has("if-none-match"))
    };
    let now = (0..20).filter(|at| validated(&mut two, *at)).count();
    assert!(now < 10, "{now} at once");
    two.pass(Duration::from_secs(15));
    let later = (0..20).filter(|at| validated(&mut two, *at)).count();
    assert!((3..18).contains(&later), "{later} after half the time");
    two.pass(Duration::from_secs(16));
    assert_eq!((0..20).filter(|at| validated(&mut two, *at)).count(), 20);
    // Validated, it is as good as new.
    two.answers(
        304,
        &[("cache-control", "max-age=600"), ("etag", "\"1\"")],
        &[],
    );
    two.request(&["GET", "/3"], &[]).run();
    assert!(is_hit(&mut two, "/3"));
}

#[test]
fn groups_cascade() {
    let (mut one, mut two) = workers();
    for name in ["menu", "page", "home", "other"] {
        keep(&mut one, &format!("/{name}"), &[("cache-tag", name)]);
    }
    one.pass(Duration::from_secs(1));
    two.pass(Duration::from_secs(1));
    purge(&mut one, "tag=menu");
    for (name, expected) in [
        ("menu", false),
        ("page", false),
        ("home", false),
        ("other", true),
    ] {
        assert_eq!(is_hit(&mut two, &format!("/{name}")), expected, "{name}");
    }
}

#[test]
fn a_group_of_an_origin_is_purged_by_its_name() {
    let (mut one, mut two) = workers();
    keep(&mut one, "/a", &[("cache-groups", "\"red\"")]);
    keep(&mut one, "/b", &[("cache-groups", "\"home\"")]);
    keep(&mut one, "/c", &[("cache-groups", "\"blue\"")]);
    one.pass(Duration::from_secs(1));
    two.pass(Duration::from_secs(1));
    let seen = admin(&mut two, &["PURGE", "/"], &[("surrogate-key", "red")]);
    assert_eq!(seen.status, 200);
    purge(&mut two, "tag=menu");
    assert!(!is_hit(&mut one, "/a") && !is_hit(&mut one, "/b") && is_hit(&mut one, "/c"));
}

#[test]
fn what_depends_on_a_group_goes_with_it_at_its_origin() {
    let (mut one, mut two) = workers();
    keep(&mut one, "/a", &[("cache-groups", "\"home\"")]);
    keep(&mut one, "/b", &[("cache-tag", "home")]);
    one.pass(Duration::from_secs(1));
    two.pass(Duration::from_secs(1));
    two.answers(200, &[("cache-group-invalidation", "\"menu\"")], &[]);
    two.request(&["POST", "/other"], &[]).run();
    assert!(!is_hit(&mut one, "/a"));
    assert!(is_hit(&mut one, "/b"), "a group of the whole cache");
}

#[test]
fn purge_by_method_and_who_may() {
    let (mut one, mut two) = workers();
    keep(&mut one, "/a", &[("surrogate-key", "red")]);
    keep(&mut one, "/b", &[("surrogate-key", "red")]);
    for (authorization, status) in [("", 401), ("Bearer x", 401), ("Basic eA==", 401)] {
        let seen = two
            .request(&["PURGE", "/a"], &[("authorization", authorization)])
            .run();
        assert_eq!((seen.status, seen.upstream.is_none()), (status, true));
    }
    assert!(is_hit(&mut one, "/a"));
    one.pass(Duration::from_secs(1));
    two.pass(Duration::from_secs(1));
    assert_eq!(admin(&mut two, &["PURGE", "/a"], &[]).status, 200);
    assert!(!is_hit(&mut one, "/a") && is_hit(&mut one, "/b"));
    assert_eq!(
        admin(&mut two, &["PURGE", "/"], &[("surrogate-key", "red")]).status,
        200
    );
    assert!(!is_hit(&mut one, "/b"));
    // Groups by method: with those that depend on them, and soft.
    one.pass(Duration::from_secs(1));
    two.pass(Duration::from_secs(1));
    keep(&mut one, "/c", &[("surrogate-key", "home")]);
    one.pass(Duration::from_secs(1));
    two.pass(Duration::from_secs(1));
    let fields = [("surrogate-key", "menu other"), ("edgeweir-soft", "1")];
    assert_eq!(admin(&mut two, &["PURGE", "/"], &fields).status, 200);
    one.answers(304, &[("cache-control", "max-age=600")], &[]);
    let seen = one.request(&["GET", "/c"], &[]).run();
    let upstream = seen.upstream.as_ref().expect("validated");
    assert_eq!(upstream.fields.text("if-none-match"), Some("\"1\""));
    assert_eq!(seen.body_text(), "old");
    // Without a token it is refused, and no path is special.
    let mut off = worker("{}");
    keep(&mut off, "/a", &[]);
    assert_eq!(
        off.request(&["PURGE", "/a"], &[("authorization", TOKEN)])
            .run()
            .status,
        403
    );
    assert!(is_hit(&mut off, "/a"));
    let path = ["GET", "/.edgeweir/cache/stats"];
    assert!(
        off.request(&path, &[("authorization", TOKEN)])
            .run()
            .upstream
            .is_some()
    );
}

#[test]
fn one_ban_too_many_makes_everything_before_it_unusable() {
    let (mut one, mut two) = workers();
    keep(&mut one, "/kept", &[]);
    for at in 0..64 {
        one.pass(Duration::from_secs(1));
        purge(&mut one, &format!("prefix=/nothing/{at}/"));
    }
    two.pass(Duration::from_secs(65));
    assert!(is_hit(&mut two, "/kept"), "none of them was about it");
    one.pass(Duration::from_secs(1));
    purge(&mut one, "prefix=/nothing/more/");
    assert!(!is_hit(&mut two, "/kept"));
    one.pass(Duration::from_secs(1));
    two.pass(Duration::from_secs(2));
    keep(&mut one, "/kept", &[]);
    keep(&mut one, "/x/y", &[]);
    one.pass(Duration::from_secs(1));
    purge(&mut one, "prefix=/x/");
    assert!(
        is_hit(&mut two, "/kept") && !is_hit(&mut two, "/x/y"),
        "and on it goes"
    );
}

#[test]
fn unsafe_responses_invalidate_groups_of_their_origin() {
    for (method, status, invalidates) in [
        ("POST", 200, true),
        ("POST", 500, false),
        ("GET", 200, false),
    ] {
        let (mut one, mut two) = workers();
        keep(&mut one, "/a", &[("cache-groups", "\"cart\"")]);
        one.pass(Duration::from_secs(1));
        two.pass(Duration::from_secs(1));
        two.answers(status, &[("cache-group-invalidation", "\"cart\"")], &[]);
        two.request(&[method, "/other"], &[]).run();
        assert_eq!(is_hit(&mut one, "/a"), !invalidates, "{method} {status}");
        two.answers(200, &[("cache-group-invalidation", "\"cart\"")], &[]);
    }
}

#[test]
fn without_a_shared_store_a_worker_invalidates_for_itself() {
    let config = r#"{ "shared": false, "admin": { "token": "0123456789abcdef" } }"#;
    for query in ["key=/a", "tag=red", "prefix=/", "all=1"] {
        let mut alone = worker(config);
        keep(&mut alone, "/a", &[("cache-tag", "red")]);
        assert!(is_hit(&mut alone, "/a"));
        alone.pass(Duration::from_secs(1));
        purge(&mut alone, query);
        assert!(!is_hit(&mut alone, "/a"), "{query}");
    }
}

const EVERY_WAY: [&str; 8] = [
    "key=/a",
    "key=/a&soft=1",
    "tag=red",
    "tag=red&soft=1",
    "prefix=/",
    "pattern=*a",
    "all=1",
    "all=1&soft=1",
];

#[test]
fn a_purge_that_reaches_nobody_says_so_and_is_for_this_worker() {
    for query in EVERY_WAY {
        let (mut one, _) = workers();
        one.store_down(true);
        keep(&mut one, "/a", &[("cache-tag", "red")]);
        assert!(is_hit(&mut one, "/a"), "{query}: it works alone");
        one.pass(Duration::from_secs(1));
        let path = format!("/.edgeweir/cache/purge?{query}");
        let seen = admin(&mut one, &["POST", &path], &[]);
        assert_eq!(seen.status, 503, "{query}: {}", seen.body_text());
        assert!(seen.counted("cache.invalidation_failed") > 0, "{query}");
        assert_eq!(seen.record.logs.len(), 1, "{query}: {:?}", seen.record.logs);
        assert!(!is_hit(&mut one, "/a"), "{query}");
    }
}

#[test]
fn what_was_purged_between_two_outages_stays_so() {
    for query in EVERY_WAY {
        for (name, by_other, asked) in [
            ("by this worker", false, false),
            ("by another, and this one answers requests", true, true),
        ] {
            let (mut one, mut two) = workers();
            one.store_down(true);
            keep(&mut one, "/a", &[("cache-tag", "red")]);
            one.store_down(false);
            one.pass(Duration::from_secs(1));
            two.pass(Duration::from_secs(1));
            purge(if by_other { &mut two } else { &mut one }, query);
            if asked {
                is_hit(&mut one, "/other");
            }
            one.store_down(true);
            assert!(!is_hit(&mut one, "/a"), "{query} {name}");
        }
    }
}

#[test]
fn users_of_one_uri_are_purged_together() {
    let config =
        r#"{ "admin": { "token": "0123456789abcdef" }, "key": { "user_context": "x-user" } }"#;
    for query in ["key=/a", "key=/a&soft=1", "tag=red", "prefix=/"] {
        let mut edge = worker(config);
        for user in ["ann", "bob"] {
            edge.answers(
                200,
                &[("cache-control", "max-age=600"), ("cache-tag", "red")],
                &[b"x"],
            );
            edge.request(&["GET", "/a"], &[("x-user", user)]).run();
            assert!(
                edge.request(&["GET", "/a"], &[("x-user", user)])
                    .run()
                    .upstream
                    .is_none()
            );
        }
        edge.pass(Duration::from_secs(1));
        let said = purge(&mut edge, query);
        assert!(said.contains(r#""held_here":2"#), "{query}: {said}");
        for user in ["ann", "bob"] {
            let seen = edge.request(&["GET", "/a"], &[("x-user", user)]).run();
            assert!(seen.upstream.is_some(), "{query}: {user}");
        }
    }
}

#[test]
fn a_response_of_too_many_groups_is_not_stored() {
    for (count, refused) in [(64, false), (65, true), (20_000, true)] {
        let (mut one, _) = workers();
        let many: Vec<String> = (0..count).map(|at| format!("g{at}")).collect();
        for (field, separator) in [("cache-tag", ","), ("surrogate-key", " ")] {
            let fields = [
                ("cache-control", "max-age=600"),
                (field, &many.join(separator)),
            ];
            one.answers(200, &fields, &[b"x"]);
            let path = format!("/{field}");
            let seen = one.request(&["GET", &path], &[]).run();
            let status = seen.text("cache-status");
            let named = status.ends_with("detail=too_many_groups");
            assert_eq!(named, refused, "{count}: {status}");
            let counted = seen.counted("cache.refused.too_many_groups");
            assert_eq!(counted, u64::from(refused), "{count}");
            assert_eq!(is_hit(&mut one, &path), !refused, "{count}");
        }
    }
}

#[test]
fn what_a_purge_may_name_is_bounded() {
    let (mut one, _) = workers();
    keep(&mut one, "/a", &[("cache-tag", "red")]);
    let tags = |count: usize| vec!["tag=red"; count].join("&");
    for (query, status) in [
        (tags(101), 400),
        (format!("tag={}", "x".repeat(257)), 400),
        (format!("prefix=/{}", "x".repeat(200)), 400),
        ("tag=red&spread=10".to_owned(), 400),
        ("tag=red&soft=1&spread=3601".to_owned(), 400),
        ("tag=red&all=1".to_owned(), 400),
        (String::new(), 400),
        (tags(100), 200),
    ] {
        assert!(is_hit(&mut one, "/a"), "before {query}");
        one.pass(Duration::from_secs(1));
        let path = format!("/.edgeweir/cache/purge?{query}");
        let seen = admin(&mut one, &["POST", &path], &[]);
        assert_eq!(seen.status, status, "{query}: {}", seen.body_text());
    }
    assert!(!is_hit(&mut one, "/a"));
}

#[test]
fn each_path_has_the_key_of_its_rule_and_is_found_by_its_uri() {
    const JSON: &str = r#"{
        "admin": { "token": "0123456789abcdef" },
        "key": { "query_exclude": ["utm"] },
        "rules": [
            { "path": "/search", "key": { "query_include": ["q"], "query_sort": true } },
            { "path": "/assets/*", "key": { "query_include": [] } },
            { "path": "/shop/*", "key": { "cookies": ["currency"] } }
        ]
    }"#;
    for (stored, same, other) in [
        ("/a?x=1&utm=2", "/a?x=1", "/a?x=2"),
        ("/search?q=1&x=1", "/search?x=2&q=1", "/search?q=2"),
        ("/assets/a?v=1", "/%61ssets/a?v=2", "/assets/b"),
        // All of the filter's own key is replaced.
        ("/shop/a?utm=1", "/shop/a?utm=1", "/shop/a"),
    ] {
        for by_purge in [false, true] {
            let mut one = worker(JSON);
            let mut two = worker(JSON).sharing(&one.shared);
            keep(&mut one, stored, &[]);
            assert!(is_hit(&mut two, same), "{stored} {same}");
            assert!(!is_hit(&mut two, other), "{stored} {other}");
            match by_purge {
                true => drop(purge(&mut two, &format!("key={}", encoded(same)))),
                false => {
                    two.answers(200, &[], &[]);
                    two.request(&["POST", same], &[]).run();
                }
            }
            assert!(!is_hit(&mut one, stored), "{stored} {by_purge}");
        }
    }
    // A key with more than the URI, and one without, in one filter.
    let mut one = worker(JSON);
    let mut two = worker(JSON).sharing(&one.shared);
    let euro = [("cookie", "currency=eur")];
    one.answers(200, &[("cache-control", "max-age=60")], &[b"euro"]);
    one.request(&["GET", "/shop/a"], &euro).run();
    assert!(!is_hit(&mut two, "/shop/a"), "without the cookie");
    two.request(&["GET", "/shop/a"], &euro);
    assert_eq!(two.run().body_text(), "euro");
    purge(&mut two, "key=/shop/a");
    one.answers(200, &[], &[b"new"]);
    one.request(&["GET", "/shop/a"], &euro);
    assert_eq!(one.run().body_text(), "new");
}

fn encoded(text: &str) -> String {
    text.replace('%', "%25").replace('&', "%26")
}
