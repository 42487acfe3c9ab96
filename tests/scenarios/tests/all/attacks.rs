//! What somebody who means harm sends to a cache, and what must not come of it.

use std::time::Duration;

use edgeweir_scenarios::client::Client;
use edgeweir_scenarios::{Edge, Host, Origin, Request, Seen, cache, get, on_each_host, request};
use serde_json::json;

fn fresh(body: &str) -> Origin {
    Origin::text(body).field("cache-control", "max-age=60")
}

/// A stored response may be written just after the client has the last byte.
fn settle(edge: &mut Edge) {
    if edge.host() != Host::Pure {
        std::thread::sleep(Duration::from_millis(60));
    }
}

/// Asks several times, so that both workers do.
fn each_worker(edge: &mut Edge, request: &Request, origin: &Origin, check: impl Fn(&Seen)) {
    for _ in 0..6 {
        check(&edge.send(request, origin));
        settle(edge);
    }
}

/// No line of the answer has a byte in it that ends a line, and nothing that was smuggled in.
fn is_clean(seen: &Seen) {
    for (name, value) in &seen.fields {
        let broken = |bytes: &[u8]| bytes.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0));
        assert!(
            !broken(name.as_bytes()) && !broken(value),
            "{name}: {value:?}"
        );
    }
    assert!(!seen.has("x-smuggled"), "{:?}", seen.fields);
}

on_each_host!(hosts_on_one_path_never_share, [cache(json!({}))], |edge| {
    let hosts = [
        ("a.example", None),
        ("b.example", None),
        ("a.example.", None),
        ("a.example:8080", None),
        ("xa.example", None),
        ("c.example", Some(("x-forwarded-host", "a.example"))),
        ("d.example", Some(("x-host", "a.example"))),
        ("e.example", Some(("forwarded", "host=a.example"))),
        ("f.example", Some(("x-forwarded-server", "a.example"))),
        ("g.example", Some(("x-http-host-override", "a.example"))),
    ];
    let ask = |host: &str, extra: Option<(&str, &str)>| {
        let asked = get("/same").field("host", host);
        match extra {
            Some((name, value)) => asked.field(name, value),
            None => asked,
        }
    };
    for (host, extra) in hosts {
        let seen = edge.send(&ask(host, extra), &fresh(&format!("of {host}")));
        assert_eq!(seen.body_text(), format!("of {host}"));
        settle(edge);
    }
    for (host, _) in hosts {
        each_worker(edge, &ask(host, None), &Origin::status(500), |seen| {
            assert_eq!(seen.body_text(), format!("of {host}"));
        });
    }
});

on_each_host!(
    a_method_in_a_field_is_not_stored_as_a_get,
    [cache(json!({}))],
    |edge| {
        for (at, name) in [
            "x-http-method-override",
            "x-http-method",
            "x-method-override",
        ]
        .into_iter()
        .enumerate()
        {
            for (method, meant) in [("POST", "GET"), ("GET", "DELETE"), ("GET", "POST")] {
                let path = format!("/{at}/{method}/{meant}");
                let asked = request(method, &path).field(name, meant);
                edge.send(&asked, &fresh("deleted"));
                settle(edge);
                each_worker(edge, &get(&path), &fresh("the page"), |seen| {
                    assert_eq!(
                        seen.body_text(),
                        "the page",
                        "{name}: {meant} as {method}: {}",
                        seen.text("cache-status")
                    );
                });
            }
        }
    }
);

on_each_host!(
    a_path_in_a_field_stays_with_its_host,
    [cache(json!({}))],
    |edge| {
        for name in ["x-original-url", "x-rewrite-url"] {
            let path = format!("/{name}");
            let poison = get(&path)
                .field("host", "evil.example")
                .field(name, "/admin");
            edge.send(&poison, &fresh("poison"));
            settle(edge);
            each_worker(edge, &get(&path), &fresh("the page"), |seen| {
                assert_eq!(seen.body_text(), "the page", "{name}");
            });
        }
    }
);

on_each_host!(
    a_line_can_not_be_ended_from_within,
    [cache(json!({}))],
    |edge| {
        for (at, value) in ["a\rx-smuggled: 1", "a\0b", "a\r\0x-smuggled: 1\r", "\r"]
            .into_iter()
            .enumerate()
        {
            let path = format!("/{at}");
            // An edge may refuse the whole response: then there is nothing to look at.
            for _ in 0..4 {
                let origin = fresh("x").field("x-value", value);
                if edge.host() == Host::Pure {
                    // What an adapter would be handed: it is its own parser that refuses such bytes.
                    break;
                }
                if let Ok(seen) = edge.try_send(&get(&path), &origin) {
                    is_clean(&seen);
                }
                settle(edge);
            }
            // A request with such a value: refused, or passed without harm.
            for name in [
                "accept-language",
                "if-none-match",
                "range",
                "x-forwarded-host",
            ] {
                if edge.host() == Host::Pure {
                    break;
                }
                let asked = get(&format!("/asked{at}")).field(name, value);
                let origin = fresh("x").field("vary", "accept-language, x-forwarded-host");
                if let Ok(seen) = edge.try_send(&asked, &origin) {
                    is_clean(&seen);
                    for received in &seen.upstream {
                        assert_eq!(received.text("x-smuggled"), "");
                    }
                }
            }
            each_worker(edge, &get("/after"), &fresh("well"), |seen| {
                assert_eq!(seen.body_text(), "well");
            });
        }
    }
);

on_each_host!(
    what_is_oversized_passes_and_harms_nothing,
    [cache(json!({}))],
    |edge| {
        let long = "x".repeat(20_000);
        let mut many = get("/many");
        for at in 0..60 {
            many = many.field(&format!("x-field-{at}"), "v");
        }
        let requests = [
            get("/vary").field("x-long", &long),
            get(&format!("/{}", "p".repeat(5_000))),
            get(&format!("/q?{}", "p".repeat(5_000))),
            get("/tag").field("if-none-match", format!("\"{long}\"")),
            get("/control").field("cache-control", format!("{}max-age=5", "a,".repeat(5_000))),
            many,
        ];
        for asked in &requests {
            for at in 0..3 {
                let origin = fresh(&format!("body {at}")).field("vary", "x-long");
                let seen = edge.send(asked, &origin);
                assert_eq!(seen.status, 200, "{}", asked.path.len());
                assert!(seen.body_text().starts_with("body"));
                settle(edge);
            }
        }
        let tall = fresh("tall").field("x-tall", "y".repeat(40_000));
        for _ in 0..3 {
            let seen = edge.send(&get("/tall"), &tall);
            assert_eq!((seen.status, seen.text("x-tall").len()), (200, 40_000));
            settle(edge);
        }
    }
);

on_each_host!(
    paths_that_look_alike_stay_apart,
    [cache(json!({}))],
    |edge| {
        let paths = [
            "/a",
            "/a;x",
            "/a;",
            "/a/",
            "/a//",
            "//a",
            "/./a",
            "/b/../a",
            "/a/.",
            "/a%2f",
            "/a%5c",
            "/a%00",
            "/a%00b",
            "/a%20",
            "/a%09",
            "/a%0d%0a",
            "/a%3b",
            "/a%3f",
            "/a?",
            "/a?;",
            "/a%23",
            "/a%2e%2e/b",
            "/%2e/a",
            "/a%",
            "/a%2",
            "/a%zz",
            "/a%25",
            "/a%2500",
            "/a.css",
            "/a/x.css",
            "/a;x.css",
            "/a%2fx.css",
            "/A",
        ];
        for (at, path) in paths.into_iter().enumerate() {
            // A path that an edge refuses (400) is no way in.
            let seen = edge.send(&get(path), &fresh(&format!("body {at}")));
            if seen.status == 200 {
                assert_eq!(
                    seen.body_text(),
                    format!("body {at}"),
                    "{path}: {}",
                    seen.text("cache-status")
                );
            }
            settle(edge);
        }
    }
);

on_each_host!(
    what_looks_static_is_not_stored_for_its_name,
    [cache(json!({}))],
    |edge| {
        for path in [
            "/account/x.css",
            "/account.php/x.js",
            "/account;x.png",
            "/account%2fx.css",
            "/account/x.css?a",
            "/account%3fx.css",
            "/static/../account",
            "/robots.txt/../account",
        ] {
            for control in [None, Some("private"), Some("no-store"), Some("no-cache")] {
                for user in ["anna", "bert"] {
                    let mut origin = Origin::ok("text/css", user);
                    if let Some(control) = control {
                        origin = origin.field("cache-control", control);
                    }
                    let asked = get(path).field("cookie", format!("user={user}"));
                    let seen = edge.send(&asked, &origin);
                    if seen.status == 200 {
                        assert_eq!(seen.body_text(), user, "{path} {control:?}");
                    }
                }
            }
        }
    }
);

on_each_host!(
    a_cookie_never_reaches_somebody_else,
    [cache(json!({}))],
    |edge| {
        let short = |control: &str| {
            Origin::text("page")
                .field("cache-control", control)
                .field("etag", "\"a\"")
        };
        let alone = |edge: &mut Edge, path: &str| {
            settle(edge);
            each_worker(edge, &get(path), &fresh("clean"), |seen| {
                assert!(!seen.has("set-cookie"), "{path}: {:?}", seen.fields);
            });
        };
        let cookie = |origin: Origin| origin.field("set-cookie", "session=anna");
        for (path, control) in [
            ("/stored", "max-age=60"),
            ("/public", "public, s-maxage=60"),
        ] {
            edge.send(&get(path), &cookie(short(control)));
            alone(edge, path);
        }
        edge.send(&get("/validated"), &short("max-age=1"));
        edge.send(
            &get("/refreshed"),
            &short("max-age=1, stale-while-revalidate=60"),
        );
        edge.pass(Duration::from_millis(1_300));
        let mut not_modified = cookie(Origin::status(304)).field("etag", "\"a\"");
        edge.send(&get("/validated"), &not_modified);
        alone(edge, "/validated");
        not_modified = not_modified.field("cache-control", "max-age=60");
        edge.send(&get("/refreshed"), &not_modified);
        alone(edge, "/refreshed");
        edge.send(&get("/headed"), &short("max-age=60"));
        settle(edge);
        let insists = request("HEAD", "/headed").field("cache-control", "no-cache");
        edge.send(&insists, &cookie(short("max-age=60")));
        alone(edge, "/headed");
    }
);

on_each_host!(
    what_was_made_for_one_user_stays_with_them,
    [cache(json!({}))],
    |edge| {
        let anna = |path: &str| get(path).field("authorization", "Bearer anna");
        let bert = |path: &str| get(path).field("authorization", "Bearer bert");
        let theirs = |edge: &mut Edge, path: &str| {
            settle(edge);
            for asked in [get(path), bert(path)] {
                each_worker(edge, &asked, &fresh("other"), |seen| {
                    assert_ne!(
                        seen.body_text(),
                        "anna's",
                        "{path}: {}",
                        seen.text("cache-status")
                    );
                });
            }
        };
        edge.send(&anna("/plain"), &fresh("anna's"));
        theirs(edge, "/plain");
        // A stale public page that a refresh for her is to replace.
        for (path, control) in [
            ("/stale", "public, max-age=1"),
            ("/refreshed", "public, max-age=1, stale-while-revalidate=60"),
            ("/failed", "public, max-age=1, stale-if-error=60"),
        ] {
            let page = Origin::text("page").field("cache-control", control);
            edge.send(&get(path), &page);
        }
        settle(edge);
        edge.pass(Duration::from_millis(1_300));
        for path in ["/stale", "/refreshed", "/failed"] {
            edge.send(&anna(path), &fresh("anna's"));
        }
        for path in ["/stale", "/refreshed", "/failed"] {
            theirs(edge, path);
        }
        // A part for her is not part of the whole for others.
        let mut part = fresh("anna's")
            .field("content-range", "bytes 0-5/6")
            .field("etag", "\"a\"");
        part.status = 206;
        edge.send(&anna("/part").field("range", "bytes=0-5"), &part);
        theirs(edge, "/part");
    }
);

on_each_host!(
    many_ranges_cost_no_more_than_the_whole,
    [cache(json!({}))],
    |edge| {
        let body = super::noise(20_000);
        let whole = Origin::text(&body).field("cache-control", "max-age=60");
        edge.send(&get("/a"), &whole);
        settle(edge);
        let every = |count: usize, step: usize| {
            let ranges: Vec<String> = (0..count)
                .map(|at| format!("{}-{}", at * step, at * step))
                .collect();
            format!("bytes={}", ranges.join(","))
        };
        for range in [
            every(1_000, 20),
            every(1_000, 0),
            format!("bytes={}", vec!["0-"; 1_000].join(",")),
            format!("bytes={}", vec!["-20000"; 500].join(",")),
            format!("bytes=0-9,{}", "5-99999999999999999999,".repeat(200)),
            format!("bytes={}", ",".repeat(5_000)),
            "bytes=0-18446744073709551615".to_owned(),
            "bytes=18446744073709551615-".to_owned(),
            "bytes=-18446744073709551616".to_owned(),
        ] {
            let seen = edge.send(&get("/a").field("range", &range), &Origin::status(500));
            assert!(
                matches!(seen.status, 200 | 206 | 416),
                "{}: {}",
                &range[..20],
                seen.status
            );
            assert!(
                seen.body.len() <= body.len() + 2_000,
                "{} bytes for {}",
                seen.body.len(),
                &range[..20]
            );
        }
    }
);

on_each_host!(
    a_request_in_the_body_of_a_get_is_none,
    [cache(json!({}))],
    |edge| {
        let Some(address) = edge.address() else {
            return;
        };
        edge.send(&get("/a"), &fresh("body of a"));
        settle(edge);
        edge.origin_does(&fresh("from the origin"));
        let inner = format!(
            "GET {} HTTP/1.1\r\nhost: edge.example\r\n\r\n",
            edge.path("/evil")
        );
        for (path, asked) in [
            ("/b", get("/a").body(&inner)),
            ("/c", get("/a").body(&inner).chunked()),
        ] {
            let mut client = Client::connect(address).expect("it listens");
            // An edge may answer, and close, before it has read all.
            let _ = client.send(&asked, &edge.path("/a"));
            let first = client.receive(false).expect("an answer");
            assert_eq!(first.status, 200);
            // What it must not do is to answer what was in the body.
            let next = client
                .send(&get(path), &edge.path(path))
                .and_then(|()| client.receive(false));
            let received = edge.received();
            assert!(
                received.iter().all(|received| received.path != "/evil"),
                "the body was taken for a request"
            );
            if let Ok(next) = next {
                assert_eq!(next.body_text(), "from the origin");
                assert!(received.iter().any(|received| received.path == path));
            }
        }
    }
);

on_each_host!(
    the_body_of_a_get_does_not_choose_what_others_get,
    [cache(json!({}))],
    |edge| {
        for (path, asked) in [
            ("/length", get("/length").body("q=poison")),
            ("/chunked", get("/chunked").body("q=poison").chunked()),
            ("/empty", get("/empty").field("content-length", "0")),
        ] {
            let first = edge.send(&asked, &fresh("poison"));
            settle(edge);
            // Content that the origin never saw chose nothing.
            let harmless = first.upstream.iter().all(|asked| asked.body.is_empty());
            each_worker(edge, &get(path), &fresh("the page"), |seen| {
                let right = seen.body_text() == "the page" || harmless;
                assert!(right, "{path}: {}", seen.text("cache-status"));
            });
        }
    }
);
