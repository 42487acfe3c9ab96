//! Rate limiting: a limit is a bound, and the client is told.

use std::time::Duration;

use edgeweir_scenarios::{Host, Origin, Setup, client, get, on_each_host, ratelimit, request};
use serde_json::{Value, json};

/// Ten at once, then one in six minutes, for each value of `x-client`.
fn ten() -> Value {
    json!({ "rules": [{
        "name": "ten",
        "key": [{ "header": "x-client" }],
        "limits": [{ "rate": "10/hour", "burst": 10 }]
    }] })
}

on_each_host!(exactly_the_burst_is_admitted, [ratelimit(ten())], |edge| {
    let asks = get("/a").field("x-client", format!("burst-{}", edge.host().name()));
    let mut admitted = 0;
    let mut reached = 0;
    for _ in 0..25 {
        let seen = edge.send(&asks, &Origin::text("ok"));
        assert!(matches!(seen.status, 200 | 429), "{}", seen.status);
        admitted += usize::from(seen.status == 200);
        reached += seen.upstream.len();
    }
    assert_eq!((admitted, reached), (10, 10));
});

on_each_host!(
    racing_clients_get_no_more_than_the_burst,
    Setup::of([ratelimit(ten())])
        .except(Host::Pure, "one thread")
        .except(
            Host::WasiHttp,
            "each instance counts for itself: approximate, as it says at load"
        )
        .except(
            Host::Spin,
            "read and write are two steps there: approximate, as it says at load"
        ),
    |edge| {
        edge.origin_does(&Origin::text("ok"));
        let asks = get("/a").field("x-client", "racing");
        let (address, path) = (
            edge.address().expect("not the pure contract"),
            edge.path("/a"),
        );
        let racers: Vec<_> = (0..8)
            .map(|_| {
                let (asks, path) = (asks.clone(), path.clone());
                std::thread::spawn(move || {
                    let answers = (0..10)
                        .map(|_| client::exchange(address, &asks, &path).map(|seen| seen.status));
                    answers.collect::<Result<Vec<_>, _>>()
                })
            })
            .collect();
        let mut statuses = Vec::new();
        for racer in racers {
            statuses.extend(racer.join().expect("a racer").expect("a response"));
        }
        let admitted = statuses.iter().filter(|status| **status == 200).count();
        let refused = statuses.iter().filter(|status| **status == 429).count();
        assert_eq!((admitted, refused), (10, 70));
    }
);

on_each_host!(
    a_refusal_says_why_and_until_when,
    [ratelimit(ten())],
    |edge| {
        let asks = get("/a").field("x-client", format!("told-{}", edge.host().name()));
        let first = edge.send(&asks, &Origin::text("ok"));
        assert!(
            first.text("ratelimit-policy").contains("\"ten\";q=10"),
            "{}",
            first.text("ratelimit-policy")
        );
        assert!(
            first.text("ratelimit").contains("r=9"),
            "{}",
            first.text("ratelimit")
        );
        let refused = (0..10)
            .map(|_| edge.send(&asks, &Origin::text("ok")))
            .last()
            .expect("ten");
        assert_eq!(refused.status, 429);
        let wait: u64 = refused
            .text("retry-after")
            .parse()
            .expect("Retry-After is a number");
        assert!((1..=360).contains(&wait), "{wait}");
        assert!(
            refused.text("ratelimit").contains("r=0"),
            "{}",
            refused.text("ratelimit")
        );
        assert!(refused.has("ratelimit-policy"));
        assert_eq!(refused.text("content-type"), "application/problem+json");
        let problem = refused.json();
        assert_eq!(problem["status"], 429);
        assert_eq!(problem["violated-policies"][0], "ten");
        assert_eq!(
            refused.text("content-length"),
            refused.body.len().to_string()
        );
    }
);

on_each_host!(clients_are_told_apart, [ratelimit(ten())], |edge| {
    let host = edge.host().name();
    for client in ["apart-a", "apart-b"] {
        let asks = get("/a").field("x-client", format!("{client}-{host}"));
        let admitted = (0..12)
            .filter(|_| edge.send(&asks, &Origin::text("ok")).status == 200)
            .count();
        assert_eq!(admitted, 10, "{client}");
    }
});

on_each_host!(
    a_client_may_be_named_by_any_bytes,
    Setup::of([ratelimit(ten())]).except(Host::Pure, "its script speaks text only"),
    |edge| {
        let asks = get("/a").field("x-client", b"\xff\xfe\x80caf\xe9");
        let admitted = (0..12)
            .filter(|_| edge.send(&asks, &Origin::text("ok")).status == 200)
            .count();
        assert_eq!(admitted, 10);
    }
);

on_each_host!(
    what_was_used_comes_back_with_time,
    [ratelimit(json!({ "rules": [{
        "key": [{ "header": "x-client" }],
        "limits": [{ "rate": "1/second", "burst": 2 }]
    }] }))],
    |edge| {
        let asks = get("/a").field("x-client", format!("back-{}", edge.host().name()));
        let statuses = |edge: &mut edgeweir_scenarios::Edge| -> Vec<u16> {
            (0..4)
                .map(|_| edge.send(&asks, &Origin::text("ok")).status)
                .collect()
        };
        assert_eq!(statuses(edge), [200, 200, 429, 429]);
        edge.pass(Duration::from_millis(1_300));
        assert_eq!(statuses(edge), [200, 429, 429, 429]);
    }
);

on_each_host!(
    behind_a_shadow_the_next_rule_decides,
    [ratelimit(json!({ "rules": [
        { "name": "trial", "shadow": true, "key": [{ "header": "x-client" }], "limits": [{ "rate": "1/hour" }] },
        { "name": "real", "key": [{ "header": "x-client" }], "limits": [{ "rate": "2/hour" }] }
    ] }))],
    |edge| {
        let asks = get("/a").field("x-client", format!("shadow-{}", edge.host().name()));
        for status in [200, 200, 429] {
            let seen = edge.send(&asks, &Origin::text("ok"));
            assert_eq!(seen.status, status);
            assert_eq!(seen.text("ratelimit-policy"), "\"real\";q=2;w=3600");
        }
    }
);

on_each_host!(
    a_refused_upload_gets_its_answer,
    [ratelimit(ten())],
    |edge| {
        let name = format!("upload-{}", edge.host().name());
        let asks = |body: &[u8]| request("POST", "/a").field("x-client", &name).body(body);
        for _ in 0..10 {
            assert_eq!(edge.send(&asks(b"small"), &Origin::text("ok")).status, 200);
        }
        let refused = edge.send(&asks(b"a body that nobody reads"), &Origin::text("ok"));
        assert_eq!((refused.status, refused.upstream.len()), (429, 0));
        let head = edge.send(
            &request("HEAD", "/a").field("x-client", &name),
            &Origin::text("ok"),
        );
        assert_eq!((head.status, head.body.len()), (429, 0));
    }
);

on_each_host!(
    a_configured_value_cannot_split_a_response,
    [ratelimit(json!({
        "status": 503,
        "body": "later\r\n",
        "content_type": "text/plain\r\nset-cookie: stolen=1",
        "rules": [{ "key": [{ "header": "x-client" }], "limits": [{ "rate": "1/hour", "burst": 1 }] }]
    }))],
    |edge| {
        let asks = get("/a").field("x-client", format!("split-{}", edge.host().name()));
        edge.send(&asks, &Origin::text("ok"));
        let refused = edge.send(&asks, &Origin::text("ok"));
        assert_eq!(
            (refused.status, refused.body_text().as_str()),
            (503, "later\r\n")
        );
        assert!(!refused.has("set-cookie"), "{:?}", refused.fields);
    }
);

on_each_host!(
    what_the_origin_says_of_its_own_limits_stays,
    [ratelimit(ten())],
    |edge| {
        let asks = get("/a").field("x-client", format!("own-{}", edge.host().name()));
        let origin = Origin::text("ok")
            .field("ratelimit", "\"origin\";r=1;t=1")
            .field("ratelimit", "\"other\";r=1;t=1")
            .field("RateLimit-Policy", "\"origin\";q=1;w=1")
            .field("x-other", "kept");
        let seen = edge.send(&asks, &origin);
        // Both are lists: the origin's members come first, ours behind.
        let said = seen.text("ratelimit");
        let both = "\"origin\";r=1;t=1, \"other\";r=1;t=1, \"ten\";r=9;";
        assert!(said.starts_with(both), "{:?}", seen.fields);
        let policies = seen.text("ratelimit-policy");
        let both = "\"origin\";q=1;w=1, \"ten\";q=10;";
        assert!(policies.starts_with(both), "{:?}", seen.fields);
        assert_eq!((seen.status, seen.text("x-other").as_str()), (200, "kept"));
        let refused = edge.send(&asks, &Origin::status(404));
        assert_eq!((refused.status, refused.body.len()), (404, 0));
    }
);
