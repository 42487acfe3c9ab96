//! Members dropped, selected and hidden: never shown, whatever the origin sends and however it is cut.

use std::time::Duration;

use edgeweir_scenarios::{Filter, Origin, get, minify, on_each_host, request};
use serde_json::json;

const USER: &str = r#"{
  "id": 7,
  "name": "Ada",
  "\u0070assword": "hunter2!",
  "card": "4111 1111 1111 1111",
  "note": null,
  "tags": [ "x", null ],
  "orders": [ { "id": 1, "total": 9.50 }, { "id": 2, "total": 12345678901234567890 } ]
}
"#;

/// The same body in ways that it may come.
fn ways(body: &str) -> [Origin; 4] {
    [
        Origin::json(body),
        Origin::json("").cut_into(body, 3).chunked(),
        Origin::json("")
            .cut_into(body, 20)
            .pause(Duration::from_millis(1)),
        Origin::json(body).until_close(),
    ]
}

fn hiding() -> Filter {
    minify(json!({
        "exclude": ["orders"],
        "redact": [{ "key": "password" }, { "pattern": "card", "replace": "last4" }],
        "max_depth": 16
    }))
}

on_each_host!(
    nulls_go,
    [minify(json!({ "drop_nulls": "members" }))],
    |edge| {
        for origin in ways(USER) {
            let seen = edge.send(&get("/a"), &origin);
            assert_eq!(
                seen.body_text(),
                r#"{"id":7,"name":"Ada","\u0070assword":"hunter2!","card":"4111 1111 1111 1111","tags":["x",null],"orders":[{"id":1,"total":9.50},{"id":2,"total":12345678901234567890}]}"#
            );
            assert!(seen.complete);
        }
    }
);

on_each_host!(
    only_what_is_included_comes,
    [minify(
        json!({ "include": ["id,orders/*"], "exclude": ["orders/id"], "drop_nulls": "all" })
    )],
    |edge| {
        for origin in ways(USER) {
            let origin = origin
                .field("etag", "\"1\"")
                .field("accept-ranges", "bytes");
            let request = get("/a")
                .field("range", "bytes=0-9")
                .field("accept-encoding", "gzip");
            let seen = edge.send(&request, &origin);
            assert_eq!(
                seen.body_text(),
                r#"{"id":7,"orders":[{"total":9.50},{"total":12345678901234567890}]}"#
            );
            assert_eq!((seen.status, seen.text("etag").as_str()), (200, "W/\"1\""));
            assert!(!seen.has("accept-ranges") && seen.complete);
            let asked = seen.asked();
            assert_eq!(asked.text("range"), "");
            assert_eq!(asked.text("accept-encoding"), "identity");
        }
        let head = edge.send(
            &request("HEAD", "/a"),
            &Origin::json(USER).field("etag", "\"1\""),
        );
        assert_eq!(
            (head.text("etag").as_str(), head.body.len()),
            ("W/\"1\"", 0)
        );
    }
);

on_each_host!(
    what_is_hidden_is_not_seen_however_it_comes,
    [hiding()],
    |edge| {
        for origin in ways(USER) {
            for origin in [
                origin.clone(),
                origin.field("cache-control", "no-transform"),
            ] {
                let seen = edge.send(&get("/a"), &origin);
                assert_eq!(
                    seen.body_text(),
                    r#"{"id":7,"name":"Ada","\u0070assword":"***","card":"***1111","note":null,"tags":["x",null]}"#
                );
                assert!(seen.complete);
            }
        }
    }
);

on_each_host!(what_cannot_be_read_is_not_shown, [hiding()], |edge| {
    for (name, origin) in [
        (
            "coded",
            Origin::json(USER).field("content-encoding", "gzip"),
        ),
        (
            "a part",
            Origin {
                status: 206,
                ..Origin::json(USER).field("content-range", "bytes 0-10/900")
            },
        ),
        (
            "UTF-16",
            Origin::ok("application/json; charset=utf-16", USER),
        ),
    ] {
        let seen = edge.send(&get("/a"), &origin);
        assert_eq!(seen.status, 502, "{name}");
        assert_eq!(seen.text("content-type"), "application/problem+json");
        assert!(!seen.body_text().contains("hunter"), "{name}");
    }
    for (name, damaged) in [
        ("a word before it", USER.replace("\"\\u0070", "x \"\\u0070")),
        ("a bracket after it", USER.replace("\"tags\"", "]")),
        ("no end", USER[..USER.len() / 2].to_owned()),
        ("a second text", format!("{{}}{USER}")),
        ("UTF-16 unsaid", USER.replace('"', "\0\"\0")),
        ("too deep", format!("{}{USER}", "[".repeat(16))),
    ] {
        for origin in ways(&damaged) {
            // Broken off before anything was on its way, there is no response at all.
            let Ok(seen) = edge.try_send(&get("/a"), &origin) else {
                continue;
            };
            assert!(seen.status == 502 || !seen.complete, "{name}: as if whole");
            let seen = seen.body_text();
            assert!(!seen.contains("hunter"), "{name}: {seen}");
            assert!(!seen.contains("4111 1111"), "{name}: {seen}");
        }
    }
});

on_each_host!(
    a_client_gets_the_fields_it_asks_for,
    [minify(
        json!({ "fields": { "parameter": "fields", "forward": false }, "exclude": ["card"] })
    )],
    |edge| {
        for origin in ways(USER) {
            let seen = edge.send(&get("/a?v=1&fields=id,orders(id)%2Ccard"), &origin);
            assert_eq!(seen.body_text(), r#"{"id":7,"orders":[{"id":1},{"id":2}]}"#);
            assert!(
                seen.asked().path.ends_with("/a?v=1"),
                "{}",
                seen.asked().path
            );
        }
        let error = Origin {
            status: 404,
            ..Origin::json(r#"{ "error": "no such user" }"#)
        };
        let seen = edge.send(&get("/a?fields=id"), &error);
        assert_eq!(seen.body_text(), r#"{"error":"no such user"}"#);

        let seen = edge.send(&get("/a?fields=id("), &Origin::json(USER));
        assert_eq!((seen.status, seen.upstream.len()), (400, 0));
        assert_eq!(seen.json()["status"], 400);
    }
);

on_each_host!(
    what_follows_a_limit_fits_or_does_not_come,
    [minify(
        json!({ "fields": { "parameter": "fields" }, "drop_nulls": "members", "max_bytes": 10 })
    )],
    |edge| {
        for size in [1, 5, 100] {
            let origin = |body| Origin::json("").cut_into(body, size).chunked();
            let fits = r#"{ "a":null , "b":[ 1 ]}"#;
            let seen = edge.send(&get("/a"), &origin(fits));
            assert_eq!(seen.json(), json!({ "b": [1] }), "pieces of {size}");
            assert!(seen.complete);
            let seen = edge.send(&get("/a?fields=b"), &origin(fits));
            assert_eq!(seen.json(), json!({ "b": [1] }), "pieces of {size}");
            // Broken off before anything was on its way, there is no response at all.
            let within = r#"{"a":"0123456789","b":1}"#;
            if let Ok(seen) = edge.try_send(&get("/a?fields=b"), &origin(within)) {
                assert!(seen.status == 502 || !seen.complete, "as if whole");
                assert!(!seen.body_text().contains("789"), "{}", seen.body_text());
            }
        }
    }
);

on_each_host!(an_empty_body_is_shown, [hiding()], |edge| {
    let pause = Duration::from_millis(50);
    for origin in [
        Origin::json(""),
        Origin::json("").chunked().pause(pause),
        Origin::json("").until_close().pause(pause),
    ] {
        let framing = origin.framing;
        let seen = edge.send(&get("/a"), &origin);
        assert_eq!((seen.status, seen.body.len()), (200, 0), "{framing:?}");
        assert!(seen.complete, "{framing:?}");
    }
});

on_each_host!(
    each_line_is_rewritten_by_itself,
    [minify(
        json!({ "drop_nulls": "all", "redact": [{ "path": "a", "replace": "hash" }], "hash_key": "sixteen bytes and" })
    )],
    |edge| {
        let body = "{ \"a\" : 1, \"b\": null }\n[ null , 3 ]\n{\"a\":\"1\"}\n";
        let origin = Origin::ok("application/x-ndjson", "")
            .cut_into(body, 5)
            .chunked();
        let seen = edge.send(&get("/a"), &origin).body_text();
        let lines: Vec<&str> = seen.lines().collect();
        assert_eq!(lines.len(), 3, "{seen}");
        assert!(
            lines[0].starts_with("{\"a\":\"hmac:") && lines[0] == lines[2],
            "{seen}"
        );
        assert_eq!(lines[1], "[3]");
    }
);

on_each_host!(
    five_megabytes_are_rewritten_on_the_way,
    [minify(
        json!({ "include": ["entries(id,nested)"], "redact": [{ "key": "deep" }] })
    )],
    |edge| {
        let body = super::document(5_000_000);
        let entry = r#"{"id":9007199254740993,"nested":{"deep":"***"}}"#;
        for origin in [
            Origin::json(&body),
            Origin::json("").cut_into(&body, 65_537).chunked(),
        ] {
            let seen = edge.send(&get("/a"), &origin);
            let text = seen.body_text();
            let entries = text.matches(entry).count();
            assert!(seen.complete && entries > 5_000, "{entries}");
            assert_eq!(
                text.len(),
                entries * (entry.len() + 1) - 1 + "{\"entries\":[]}".len()
            );
        }
    }
);
