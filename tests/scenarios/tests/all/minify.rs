//! Minification: equal as a value, every other byte kept.

use edgeweir_scenarios::{Origin, Setup, get, minify, on_each_host, request};
use serde_json::{Value, json};

on_each_host!(json_is_equal_as_a_value, [minify(json!({}))], |edge| {
    let body = super::document(20_000);
    let value: Value = serde_json::from_str(&body).expect("the document is JSON");
    for media in [
        "application/json",
        "application/json; charset=utf-8",
        "application/problem+json",
    ] {
        let origin = Origin::ok(media, &body).field("etag", "\"1\"");
        let seen = edge.send(&get("/a"), &origin);
        assert_eq!(seen.json(), value, "{media}");
        assert_eq!(seen.body_text(), value.to_string(), "{media}: not minimal");
        assert_eq!(seen.text("etag"), "W/\"1\"", "{media}");
        if seen.has("content-length") {
            assert_eq!(seen.text("content-length"), seen.body.len().to_string());
        }
    }
});

on_each_host!(bodies_cut_at_awkward_places, [minify(json!({}))], |edge| {
    let body = "{ \"a\\\\\" : [ 1.5e+3 , \"\\u00e9 \u{e9}\u{1F300} \\\" \" , true ] ,\r\n\t\"a\\\\\" : 12345678901234567890123 }";
    let want = "{\"a\\\\\":[1.5e+3,\"\\u00e9 \u{e9}\u{1F300} \\\" \",true],\"a\\\\\":12345678901234567890123}";
    for size in [1, 2, 3, 7, 1_000] {
        for origin in [
            Origin::json("").cut_into(body, size).chunked(),
            Origin::json("").cut_into(body, size),
            Origin::json("").cut_into(body, size).until_close(),
        ] {
            let framing = origin.framing;
            let seen = edge.send(
                &get("/a"),
                &origin.pause(std::time::Duration::from_millis(1)),
            );
            assert_eq!(seen.body_text(), want, "pieces of {size}, {framing:?}");
            assert!(seen.complete);
        }
    }
});

on_each_host!(invalid_json_passes_unharmed, [minify(json!({}))], |edge| {
    for body in [
        "{ \"a\" : }",
        "[ 1 , 2",
        "{ \"a\" : 1 } trailing",
        "[ 01 ]",
        "[ \"tab\there\" ]",
        "\u{feff}{ \"a\" : 1 }",
        "  ",
        "[ nul ]",
    ] {
        let seen = edge.send(&get("/a"), &Origin::json(body));
        assert_eq!((seen.status, seen.body_text().as_str()), (200, body));
        assert!(seen.complete);
    }
});

on_each_host!(lines_of_json_stay_lines, [minify(json!({}))], |edge| {
    let body = "{ \"a\" : 1 }\n[ 2 , 3 ]\n\"x y\"\n";
    let seen = edge.send(&get("/a"), &Origin::ok("application/x-ndjson", body));
    assert_eq!(seen.body_text(), "{\"a\":1}\n[2,3]\n\"x y\"\n");
});

on_each_host!(
    what_is_not_its_business_passes,
    [minify(json!({}))],
    |edge| {
        let body = "{ \"a\" : 1 }";
        for (name, origin) in [
            ("text", Origin::text(body)),
            (
                "coded",
                Origin::json(body).field("content-encoding", "zstd"),
            ),
            (
                "no-transform",
                Origin::json(body).field("cache-control", "no-transform"),
            ),
            (
                "a range",
                Origin {
                    status: 206,
                    ..Origin::json(body).field("content-range", "bytes 0-10/90")
                },
            ),
            (
                "another charset",
                Origin::ok("application/json; charset=utf-16", body),
            ),
        ] {
            let seen = edge.send(&get("/a"), &origin);
            assert_eq!(seen.body_text(), body, "{name}");
            assert_eq!(
                seen.text("content-length"),
                body.len().to_string(),
                "{name}"
            );
        }
    }
);

on_each_host!(
    a_head_of_json_promises_no_wrong_length,
    [minify(json!({}))],
    |edge| {
        let origin = Origin::json(super::document(3_000)).field("etag", "\"1\"");
        let got = edge.send(&get("/a"), &origin);
        let head = edge.send(&request("HEAD", "/a"), &origin);
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert_eq!(head.text("etag"), got.text("etag"));
        let length = head.text("content-length");
        assert!(
            length.is_empty() || length == got.body.len().to_string(),
            "{length}"
        );
    }
);

on_each_host!(
    five_megabytes_stream_through_minify,
    [minify(json!({}))],
    |edge| {
        let body = super::document(5_000_000);
        let value: Value = serde_json::from_str(&body).expect("the document is JSON");
        let want = value.to_string();
        for origin in [
            Origin::json(&body),
            Origin::json("").cut_into(&body, 65_537).chunked(),
        ] {
            let seen = edge.send(&get("/a"), &origin);
            assert!(
                seen.complete && seen.body_text() == want,
                "{} bytes, not {}",
                seen.body.len(),
                want.len()
            );
        }
    }
);

on_each_host!(json_that_is_cut_has_no_end, [minify(json!({}))], |edge| {
    for origin in [
        Origin::json("")
            .cut_into(super::document(200_000), 9_000)
            .cut(),
        Origin::json("")
            .cut_into(super::document(200_000), 9_000)
            .chunked()
            .cut(),
    ] {
        if let Ok(seen) = edge.try_send(&get("/a"), &origin) {
            assert!(
                !seen.complete || seen.status >= 500,
                "a cut body came as a whole one"
            );
        }
    }
});

on_each_host!(
    trailers_follow_minified_json,
    Setup::of([minify(json!({}))]).http2_origin(),
    |edge| {
        let body = super::document(30_000);
        let value: Value = serde_json::from_str(&body).expect("the document is JSON");
        let origin = Origin::json("")
            .cut_into(&body, 1_234)
            .chunked()
            .trailer("grpc-status", "0");
        let seen = edge.send(&get("/a").field("te", "trailers"), &origin);
        assert!(seen.complete);
        assert_eq!(seen.body_text(), value.to_string());
        if seen.text("transfer-encoding").contains("chunked") {
            assert_eq!(seen.trailer("grpc-status"), "0");
        }
    }
);
