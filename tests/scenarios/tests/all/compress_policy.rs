//! Compression by policy: rules, tags that come back, hidden lengths, less work when there is too much.

use std::collections::BTreeSet;
use std::time::Duration;

use edgeweir_scenarios::{Host, Origin, Setup, compress, get, on_each_host};
use serde_json::{Value, json};

on_each_host!(
    a_suffixed_tag_is_the_origins_again,
    [compress(json!({ "etag": "suffix" }))],
    |edge| {
        let origin = Origin::json(super::document(9_000)).field("etag", "\"1\"");
        for (coding, tag) in [
            ("gzip", "\"1-gzip\""),
            ("br", "\"1-br\""),
            ("identity", "\"1\""),
        ] {
            let got = edge.send(&get("/a").field("accept-encoding", coding), &origin);
            assert_eq!(got.text("etag"), tag);
            let asks = get("/a")
                .field("accept-encoding", coding)
                .field("if-none-match", tag);
            let seen = edge.send(&asks, &Origin::status(304).field("etag", "\"1\""));
            assert_eq!((seen.status, seen.text("etag").as_str()), (304, tag));
            assert!(seen.asked().text("if-none-match").contains("\"1\""));
            let writes = get("/a")
                .field("accept-encoding", coding)
                .field("if-match", tag);
            let seen = edge.send(&writes, &origin);
            assert!(seen.asked().text("if-match").contains("\"1\""));
        }
        let resumes = get("/a")
            .field("accept-encoding", "gzip")
            .field("range", "bytes=100-")
            .field("if-range", "\"1-gzip\"");
        let seen = edge.send(&resumes, &origin);
        assert_eq!(
            seen.asked().text("if-range"),
            "\"1-gzip\"",
            "the origin sends all of it"
        );
    }
);

/// A rule for each host: a scenario's paths begin with its own name and the host's.
fn rules(scenario: &str, path: &str, rule: Value) -> Vec<Value> {
    let of = |host: Host| {
        let mut rule = rule.clone();
        rule["path"] = json!(format!("/{scenario}.{}{path}", host.name()));
        rule
    };
    Host::ALL.into_iter().map(of).collect()
}

fn by_path() -> Setup {
    let of = |path, rule| rules("the_first_rule_of_a_path_decides", path, rule);
    let all = [
        of("/live", json!({ "disabled": true })),
        of(
            "/static/*",
            json!({ "preset": "small", "codings": ["gzip"] }),
        ),
        of("/account/*", json!({ "breach": "skip" })),
    ];
    Setup::of([compress(
        json!({ "rules": all.concat(), "server_timing": true }),
    )])
}

on_each_host!(the_first_rule_of_a_path_decides, by_path(), |edge| {
    let body = super::document(5_000);
    for (path, coding, says) in [
        ("/a", "br", "br 3"),
        ("/live", "", "disabled"),
        ("/live/2", "br", "br 3"),
        ("/static/app.js", "gzip", "gzip 7"),
        ("/account/me", "", "breach"),
    ] {
        let asks = get(path).field("accept-encoding", "gzip, br");
        let seen = edge.send(&asks, &Origin::json(&body));
        assert_eq!(seen.text("content-encoding"), coding, "{path}");
        assert!(seen.decoded() == body.as_bytes(), "{path}");
        let entry = format!("edgeweir-compress;desc=\"{says}\"");
        assert_eq!(seen.text("server-timing"), entry, "{path}");
    }
});

on_each_host!(
    lengths_of_what_sets_cookies_are_hidden,
    [compress(json!({ "breach_bytes": 512 }))],
    |edge| {
        let body = super::document(3_000);
        for coding in ["gzip", "deflate", "br", "zstd"] {
            let asks = get("/a").field("accept-encoding", coding);
            let lengths =
                |origin: &Origin, edge: &mut edgeweir_scenarios::Edge| -> BTreeSet<usize> {
                    let ask = |_| {
                        let seen = edge.send(&asks, origin);
                        assert_eq!(seen.text("content-encoding"), coding);
                        assert!(
                            seen.complete && seen.decoded() == body.as_bytes(),
                            "{coding}"
                        );
                        seen.body.len()
                    };
                    (0..8).map(ask).collect()
                };
            let plain = Origin::json(&body);
            let cookie = plain.clone().field("set-cookie", "a=b");
            assert_eq!(lengths(&plain, edge).len(), 1, "{coding}");
            assert!(
                lengths(&cookie, edge).len() > 2,
                "{coding}: a length says what it said before"
            );
        }
    }
);

on_each_host!(
    an_emergency_lowers_levels_and_then_codes_nothing,
    Setup::of([compress(json!({ "gzip_level": 6, "server_timing": true }))]).heeds_emergencies(),
    |edge| {
        let body = super::document(5_000);
        for (level, says) in [
            ("0", "gzip 6"),
            ("1", "gzip 6 to 4"),
            ("2", "gzip 6 to 1"),
            ("3", "emergency"),
        ] {
            let asks = get("/a")
                .field("accept-encoding", "gzip")
                .field("edgeweir-emergency", level);
            let seen = edge.send(&asks, &Origin::json(&body));
            if edge.host() != Host::Pure {
                let entry = format!("edgeweir-compress;desc=\"{says}\"");
                assert_eq!(seen.text("server-timing"), entry, "level {level}");
            }
            assert!(seen.decoded() == body.as_bytes());
        }
    }
);

on_each_host!(
    over_its_share_of_the_time_levels_go_down,
    [compress(
        json!({ "gzip_level": 9, "cpu_percent": 1, "server_timing": true })
    )],
    |edge| {
        let body = super::noise(1_500_000);
        let mut said = BTreeSet::new();
        for _ in 0..16 {
            let asks = get("/a").field("accept-encoding", "gzip");
            let seen = edge.send(&asks, &Origin::text(&body));
            assert!(seen.complete && seen.decoded() == body);
            said.insert(seen.text("server-timing"));
            edge.pass(Duration::from_millis(30));
        }
        // A script's clock stands still in a call.
        if edge.host() != Host::Pure {
            let lower = said
                .iter()
                .filter(|entry| entry.contains(" to ") || entry.contains("cpu"));
            assert!(lower.count() > 0, "{said:?}");
        }
    }
);
