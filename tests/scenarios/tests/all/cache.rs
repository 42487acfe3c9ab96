//! The cache: RFC 9111 as a client sees it, two workers or not.

use std::time::Duration;

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

/// Sends it several times: over two workers the chance that one is never asked is one in a hundred.
fn each_worker(edge: &mut Edge, request: &Request, origin: &Origin, mut check: impl FnMut(&Seen)) {
    for _ in 0..8 {
        check(&edge.send(request, origin));
        settle(edge);
    }
}

fn is_hit(seen: &Seen) -> bool {
    seen.text("cache-status").contains("hit") && seen.answered_at_the_edge()
}

on_each_host!(a_miss_then_a_hit, [cache(json!({}))], |edge| {
    let origin = fresh("hello");
    let first = edge.send(&get("/a"), &origin);
    assert_eq!((first.status, &first.body[..]), (200, &b"hello"[..]));
    let said = first.text("cache-status");
    assert!(
        said.contains("fwd=uri-miss") && said.contains("stored"),
        "{said}"
    );
    settle(edge);
    each_worker(edge, &get("/a"), &Origin::status(500), |seen| {
        assert!(
            is_hit(seen),
            "{} {}",
            seen.status,
            seen.text("cache-status")
        );
        assert_eq!((seen.status, &seen.body[..]), (200, &b"hello"[..]));
        assert!(
            seen.text("age").parse::<u64>().is_ok(),
            "Age is {:?}",
            seen.text("age")
        );
        assert_eq!(seen.text("content-length"), "5");
    });
});

on_each_host!(
    age_counts_from_the_origins_age,
    [cache(json!({}))],
    |edge| {
        edge.send(&get("/a"), &fresh("hello").field("age", "10"));
        edge.pass(Duration::from_millis(2_100));
        let seen = edge.send(&get("/a"), &Origin::status(500));
        assert!(is_hit(&seen), "{}", seen.text("cache-status"));
        let age: u64 = seen.text("age").parse().expect("Age is a number");
        assert!((12..=14).contains(&age), "Age is {age}");
        assert_eq!(seen.all("age").len(), 1);
    }
);

on_each_host!(what_is_stale_is_not_reused, [cache(json!({}))], |edge| {
    edge.send(
        &get("/a"),
        &Origin::text("old").field("cache-control", "max-age=1"),
    );
    edge.pass(Duration::from_millis(2_200));
    each_worker(edge, &get("/a"), &fresh("new"), |seen| {
        assert_eq!(seen.body_text(), "new")
    });
});

on_each_host!(vary_keeps_languages_apart, [cache(json!({}))], |edge| {
    let languages = ["en", "de", "fr"];
    for language in languages {
        let origin = fresh(language).field("vary", "Accept-Language");
        let seen = edge.send(&get("/a").field("accept-language", language), &origin);
        assert_eq!(seen.body_text(), language);
        settle(edge);
    }
    for language in languages {
        let request = get("/a").field("accept-language", language);
        each_worker(edge, &request, &Origin::status(500), |seen| {
            assert!(is_hit(seen), "{language}: {}", seen.text("cache-status"));
            assert_eq!(seen.body_text(), language);
        });
    }
});

on_each_host!(vary_star_is_never_reused, [cache(json!({}))], |edge| {
    let mut origins = 0;
    for at in 0..4 {
        let origin = fresh(&at.to_string()).field("vary", "accept, *");
        let seen = edge.send(&get("/a"), &origin);
        assert_eq!(seen.body_text(), at.to_string());
        origins += seen.upstream.len();
        settle(edge);
    }
    assert_eq!(origins, 4);
});

on_each_host!(what_is_personal_is_not_shared, [cache(json!({}))], |edge| {
    for (path, field, value) in [
        ("/cookie", "set-cookie", "session=1"),
        ("/private", "cache-control", "private, max-age=60"),
        ("/no-store", "cache-control", "no-store, max-age=60"),
        ("/partial", "content-range", "bytes 0-4/10"),
    ] {
        for body in ["first", "second", "third"] {
            let mut origin = fresh(body).field(field, value);
            if path == "/partial" {
                origin.status = 206;
            }
            let seen = edge.send(&get(path), &origin);
            assert_eq!(
                seen.body_text(),
                body,
                "{path}: {}",
                seen.text("cache-status")
            );
            // A part is kept as a part, when it is as long as it says: nobody who wants the whole is given it.
            let stored = seen.text("cache-status").contains("stored");
            let is_part = path == "/partial" && body.len() == 5;
            assert_eq!(stored, is_part, "{path}: {body}");
            settle(edge);
        }
    }
});

on_each_host!(
    authorization_is_shared_only_when_the_origin_says_so,
    [cache(json!({}))],
    |edge| {
        let asks = |path| get(path).field("authorization", "Basic YTpi");
        for (path, control, shared) in [
            ("/plain", "max-age=60", false),
            ("/public", "public, max-age=60", true),
            ("/s-maxage", "s-maxage=60", true),
        ] {
            let origin = |body| Origin::text(body).field("cache-control", control);
            edge.send(&asks(path), &origin("first"));
            settle(edge);
            let second = edge.send(&get(path), &origin("second"));
            let want = if shared { "first" } else { "second" };
            assert_eq!(
                second.body_text(),
                want,
                "{path}: {}",
                second.text("cache-status")
            );
        }
    }
);

on_each_host!(
    an_unsafe_method_invalidates_for_every_worker,
    [cache(json!({}))],
    |edge| {
        edge.send(&get("/a"), &fresh("old"));
        settle(edge);
        each_worker(edge, &get("/a"), &Origin::status(500), |seen| {
            assert!(is_hit(seen))
        });
        let failed = edge.send(&request("POST", "/a").body("x=1"), &Origin::status(500));
        assert_eq!(failed.status, 500);
        each_worker(edge, &get("/a"), &Origin::status(500), |seen| {
            assert!(
                is_hit(seen),
                "a failed POST must not invalidate: {}",
                seen.text("cache-status")
            );
        });
        let post = edge.send(&request("POST", "/a").body("x=1"), &Origin::text("done"));
        assert_eq!(post.body_text(), "done");
        settle(edge);
        each_worker(edge, &get("/a"), &fresh("new"), |seen| {
            assert_eq!(seen.body_text(), "new", "{}", seen.text("cache-status"));
        });
    }
);

on_each_host!(
    clients_that_come_back_fill_the_cache,
    [cache(json!({ "ask_for_all": true }))],
    |edge| {
        let known = get("/a").field("if-none-match", "\"1\"");
        let first = edge.send(&known, &fresh("whole").field("etag", "\"1\""));
        assert_eq!((first.status, first.body_text().as_str()), (200, "whole"));
        assert_eq!(first.asked().text("if-none-match"), "");
        settle(edge);
        each_worker(edge, &known, &Origin::status(500), |seen| {
            assert!(is_hit(seen), "{}", seen.text("cache-status"));
            assert_eq!(seen.status, 304);
        });
    }
);

on_each_host!(
    location_of_an_unsafe_method_is_invalidated,
    [cache(json!({}))],
    |edge| {
        edge.send(&get("/list"), &fresh("old"));
        settle(edge);
        let list = edge.path("/list");
        let created = Origin::status(201).field("location", &list);
        edge.send(&request("POST", "/new").body("x"), &created);
        settle(edge);
        each_worker(edge, &get("/list"), &fresh("new"), |seen| {
            assert_eq!(seen.body_text(), "new")
        });
    }
);

on_each_host!(
    an_error_needs_explicit_freshness,
    [cache(json!({}))],
    |edge| {
        for body in ["one", "two"] {
            let mut broken =
                Origin::text(body).field("last-modified", "Mon, 01 Jan 2024 00:00:00 GMT");
            broken.status = 500;
            let seen = edge.send(&get("/broken"), &broken);
            assert_eq!((seen.status, seen.body_text().as_str()), (500, body));
            settle(edge);
        }
    }
);

on_each_host!(
    a_body_that_is_cut_is_not_stored,
    [cache(json!({}))],
    |edge| {
        // The edge may also answer an error of its own: then nothing of it may look like the body.
        if let Ok(cut) = edge.try_send(&get("/a"), &fresh("half of").cut()) {
            assert!(
                !cut.complete || cut.status >= 500,
                "a cut body came as a whole one"
            );
        }
        settle(edge);
        each_worker(edge, &get("/a"), &fresh("whole"), |seen| {
            assert_eq!((seen.body_text().as_str(), seen.complete), ("whole", true));
        });
    }
);

on_each_host!(
    a_large_object_passes_and_is_not_stored,
    [cache(json!({}))],
    |edge| {
        let body = super::noise(2_000_000);
        for framing in [Origin::text(&body), Origin::text(&body).chunked()] {
            for _ in 0..2 {
                let seen = edge.send(
                    &get("/a"),
                    &framing.clone().field("cache-control", "max-age=60"),
                );
                assert!(
                    seen.complete && seen.body == body,
                    "{} bytes",
                    seen.body.len()
                );
                assert_eq!(seen.upstream.len(), 1, "{}", seen.text("cache-status"));
            }
        }
    }
);

on_each_host!(the_key_tells_requests_apart, [cache(json!({}))], |edge| {
    let requests = [
        get("/a"),
        get("/a?x=1"),
        get("/a?x=2"),
        get("/A"),
        get("/a/"),
        get("/a").field("host", "other.example"),
    ];
    for (at, request) in requests.iter().enumerate() {
        let seen = edge.send(request, &fresh(&format!("body {at}")));
        assert_eq!(seen.body_text(), format!("body {at}"), "{request:?}");
        settle(edge);
    }
    for (at, request) in requests.iter().enumerate() {
        let seen = edge.send(request, &Origin::status(500));
        assert_eq!(seen.body_text(), format!("body {at}"), "{request:?}");
    }
});

on_each_host!(a_head_says_what_a_get_says, [cache(json!({}))], |edge| {
    let origin = fresh("hello").field("etag", "\"1\"");
    edge.send(&get("/a"), &origin);
    settle(edge);
    each_worker(edge, &request("HEAD", "/a"), &origin, |seen| {
        assert_eq!((seen.status, seen.body.len()), (200, 0));
        assert_eq!(seen.text("content-length"), "5");
        assert_eq!(seen.text("etag"), "\"1\"");
        assert!(!seen.text("cache-status").is_empty());
    });
});

on_each_host!(
    cache_status_is_on_every_response,
    [cache(json!({}))],
    |edge| {
        for (method, status) in [
            ("GET", 404),
            ("POST", 200),
            ("GET", 503),
            ("OPTIONS", 204),
            ("DELETE", 200),
        ] {
            let seen = edge.send(&request(method, "/x"), &Origin::status(status));
            assert_eq!(seen.status, status);
            let said = seen.text("cache-status");
            assert!(said.contains("fwd="), "{method} {status}: {said:?}");
        }
    }
);

on_each_host!(
    a_client_can_insist_on_the_origin,
    [cache(json!({}))],
    |edge| {
        edge.send(&get("/a"), &fresh("old"));
        settle(edge);
        let insists = get("/a").field("cache-control", "no-cache");
        let seen = edge.send(&insists, &fresh("new"));
        assert_eq!((seen.body_text().as_str(), seen.upstream.len()), ("new", 1));
    }
);

on_each_host!(
    a_stored_204_and_its_fields_come_back,
    [cache(json!({}))],
    |edge| {
        let origin = Origin::status(204)
            .field("cache-control", "max-age=60")
            .field("x-kept", "yes");
        edge.send(&get("/a"), &origin);
        settle(edge);
        each_worker(edge, &get("/a"), &Origin::status(500), |seen| {
            assert_eq!(seen.status, 204, "{}", seen.text("cache-status"));
            assert_eq!(seen.text("x-kept"), "yes");
            assert!(!seen.has("content-length"));
        });
    }
);
