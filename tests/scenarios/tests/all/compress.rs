//! Compression: what is coded decodes to the origin's bytes, and the head is true.

use std::time::Duration;

use edgeweir_scenarios::{Host, Origin, Setup, compress, get, on_each_host, request};
use serde_json::json;

on_each_host!(
    each_coding_decodes_to_the_origins_bytes,
    [compress(json!({}))],
    |edge| {
        let body = super::document(50_000);
        for coding in ["gzip", "br", "deflate", "zstd"] {
            for origin in [
                Origin::json(&body),
                Origin::json(&body).chunked(),
                Origin::json("").cut_into(&body, 1_000).chunked(),
                Origin::json(&body).until_close(),
            ] {
                let origin = origin.field("etag", "\"1\"").field("content-md5", "abc");
                let seen = edge.send(&get("/a").field("accept-encoding", coding), &origin);
                assert_eq!(seen.text("content-encoding"), coding);
                assert!(seen.complete, "{coding} has no end");
                assert!(
                    seen.decoded() == body.as_bytes(),
                    "{coding} decodes to other bytes"
                );
                assert!(
                    seen.body.len() < body.len() / 3,
                    "{coding}: {} bytes",
                    seen.body.len()
                );
                assert!(
                    seen.text("vary")
                        .to_ascii_lowercase()
                        .contains("accept-encoding")
                );
                assert_eq!(seen.text("etag"), "W/\"1\"");
                assert!(!seen.has("content-md5"));
            }
        }
    }
);

on_each_host!(
    the_client_decides_by_quality,
    [compress(json!({}))],
    |edge| {
        let body = super::document(5_000);
        for (accepts, want) in [
            ("gzip;q=0", ""),
            ("gzip;q=0.5, br;q=0.1", "gzip"),
            ("br;q=0, *", "zstd"),
            ("*;q=0", ""),
            ("identity", ""),
            ("gzip, deflate, br", "br"),
            ("x-gzip", "gzip"),
            ("exi, compress", ""),
            ("zstd, compress", "zstd"),
            (";;,,=", ""),
        ] {
            let seen = edge.send(
                &get("/a").field("accept-encoding", accepts),
                &Origin::json(&body),
            );
            assert_eq!(
                seen.text("content-encoding"),
                want,
                "Accept-Encoding: {accepts}"
            );
            assert!(seen.decoded() == body.as_bytes(), "{accepts}");
            assert!(seen.has("vary"), "{accepts}: it could have been coded");
        }
    }
);

on_each_host!(
    what_must_not_be_coded_passes_as_it_is,
    [compress(json!({}))],
    |edge| {
        let body = super::noise(3_000);
        for (name, origin) in [
            ("small", Origin::text("small")),
            ("an image", Origin::ok("image/png", &body)),
            (
                "no-transform",
                Origin::text(&body).field("cache-control", "no-transform"),
            ),
            (
                "coded already",
                Origin::text(&body).field("content-encoding", "compress"),
            ),
            (
                "a range",
                Origin {
                    status: 206,
                    ..Origin::text(&body).field("content-range", "bytes 0-2999/9000")
                },
            ),
            ("nothing", Origin::text("")),
        ] {
            let seen = edge.send(&get("/a").field("accept-encoding", "gzip, br"), &origin);
            assert_eq!(seen.status, origin.status, "{name}");
            assert!(seen.body == origin.body.concat(), "{name}");
            assert_ne!(seen.text("content-encoding"), "gzip", "{name}");
            assert_ne!(seen.text("content-encoding"), "br", "{name}");
            assert_eq!(
                seen.text("content-length"),
                seen.body.len().to_string(),
                "{name}"
            );
        }
    }
);

on_each_host!(
    a_head_is_consistent_with_its_get,
    [compress(json!({}))],
    |edge| {
        let origin = Origin::json(super::document(9_000)).field("etag", "\"1\"");
        let got = edge.send(&get("/a").field("accept-encoding", "gzip"), &origin);
        let head = edge.send(
            &request("HEAD", "/a").field("accept-encoding", "gzip"),
            &origin,
        );
        assert_eq!(head.body.len(), 0);
        for field in ["content-encoding", "vary", "etag", "content-type"] {
            assert_eq!(head.text(field), got.text(field), "{field}");
        }
        assert_ne!(
            head.text("content-length"),
            origin.body.concat().len().to_string()
        );
    }
);

on_each_host!(no_body_no_coding, [compress(json!({}))], |edge| {
    for status in [204, 304] {
        let origin = Origin::status(status)
            .field("etag", "\"1\"")
            .field("content-type", "text/css");
        let seen = edge.send(&get("/a").field("accept-encoding", "gzip"), &origin);
        assert_eq!(
            (seen.status, seen.body.len(), seen.complete),
            (status, 0, true)
        );
        assert!(!seen.has("content-encoding"), "{status}");
    }
});

on_each_host!(
    server_sent_events_stay_live,
    [compress(json!({}))],
    |edge| {
        let events: Vec<String> = (0..4).map(|at| format!("data: event {at}\n\n")).collect();
        for coding in ["gzip", "br", "deflate", "zstd"] {
            let origin = Origin::ok("text/event-stream", "")
                .pieces(&events)
                .chunked()
                .pause(Duration::from_millis(250));
            let seen = edge.send(&get("/a").field("accept-encoding", coding), &origin);
            assert_eq!(seen.decoded(), events.concat().as_bytes());
            assert!(
                seen.pieces.len() >= 4,
                "{coding}: came in {} pieces",
                seen.pieces.len()
            );
            if edge.host() != Host::Pure {
                let (first, last) = (seen.pieces[0].0, seen.pieces[seen.pieces.len() - 1].0);
                assert!(
                    last - first > Duration::from_millis(400),
                    "{coding}: the first came {:?} before the last",
                    last - first
                );
            }
        }
    }
);

on_each_host!(
    a_coded_body_that_is_cut_has_no_end,
    [compress(json!({}))],
    |edge| {
        for origin in [
            Origin::json("")
                .cut_into(super::document(40_000), 8_000)
                .chunked()
                .cut(),
            Origin::json("")
                .cut_into(super::document(40_000), 8_000)
                .cut(),
        ] {
            if let Ok(seen) = edge.try_send(&get("/a").field("accept-encoding", "gzip"), &origin) {
                assert!(
                    !seen.complete || seen.status >= 500,
                    "a cut body came as a whole one"
                );
            }
        }
    }
);

on_each_host!(
    trailers_follow_a_coded_body,
    Setup::of([compress(json!({}))]).http2_origin(),
    |edge| {
        let body = super::document(30_000);
        for (declared, origin) in [
            (true, Origin::json(&body)),
            (false, Origin::json("").cut_into(&body, 3_000).chunked()),
        ] {
            let origin = origin.trailer("x-checked", "yes");
            let asks = get("/a")
                .field("accept-encoding", "gzip")
                .field("te", "trailers");
            let unannounced = edge.send(&asks, &origin.clone().unannounced());
            assert!(
                unannounced.complete && unannounced.decoded() == body.as_bytes(),
                "unannounced trailers cost bytes of the body"
            );
            let seen = edge.send(&asks, &origin);
            assert!(
                seen.complete && seen.decoded() == body.as_bytes(),
                "{} bytes",
                seen.body.len()
            );
            // A module can't write a coding's last bytes before announced trailers of a body of unknown length.
            let closed = !declared && matches!(edge.host(), Host::ProxyWasm | Host::Envoy);
            let coding = if closed { "" } else { "gzip" };
            assert_eq!(seen.text("content-encoding"), coding, "{declared}");
            // With a length there is no place for trailers on HTTP/1.1.
            if seen.text("transfer-encoding").contains("chunked") || edge.host() == Host::Pure {
                assert_eq!(seen.trailer("x-checked"), "yes");
            }
        }
    }
);

on_each_host!(
    five_megabytes_stream_through_compress,
    [compress(json!({}))],
    |edge| {
        let body = super::noise(5_000_000);
        for origin in [
            Origin::text(&body),
            Origin::text("").cut_into(&body, 70_001).chunked(),
        ] {
            for coding in ["gzip", "br", "zstd"] {
                let seen = edge.send(&get("/a").field("accept-encoding", coding), &origin);
                assert_eq!(seen.text("content-encoding"), coding);
                assert!(
                    seen.complete && seen.decoded() == body,
                    "{coding}: {} bytes",
                    seen.body.len()
                );
            }
        }
    }
);

on_each_host!(
    a_weak_validator_comes_back_to_the_origin,
    [compress(json!({}))],
    |edge| {
        let asks = get("/a")
            .field("accept-encoding", "gzip")
            .field("if-none-match", "W/\"1\"");
        let seen = edge.send(&asks, &Origin::status(304).field("etag", "\"1\""));
        assert_eq!(seen.status, 304);
        assert!(seen.asked().text("if-none-match").contains("\"1\""));
    }
);
