//! What the filter makes of messages, by the section that asks for it.

use std::io::Read;

use edgeweir_compress::{Coding, Compress, Config, Etags};
use edgeweir_filter::{Configured, Script, Seen};

const TEXT: &str = "to be, or not to be, that is the question; ";

fn filter(change: impl FnOnce(&mut Config)) -> Compress {
    let mut config = Config::default();
    change(&mut config);
    Compress::new(config).expect("a good configuration")
}

fn script() -> Script {
    Script::new(filter(|_| ()))
}

fn long() -> String {
    TEXT.repeat(40)
}

type Lines = [(&'static str, &'static str)];

/// One exchange: a request, and a response with a long text body unless `origin` says otherwise.
fn exchange(method: &str, request: &Lines, status: u16, origin: &Lines) -> Seen {
    let mut script = script().origin(status, origin, &long());
    script.request(&[method, "/"], request).run()
}

fn decoded(seen: &Seen) -> String {
    let body = seen.body();
    let mut text = String::new();
    match seen.text("content-encoding").as_str() {
        "gzip" => flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut text),
        "deflate" => flate2::read::ZlibDecoder::new(&body[..]).read_to_string(&mut text),
        "br" => brotli::Decompressor::new(&body[..], 4096).read_to_string(&mut text),
        "zstd" => zstd::Decoder::new(&body[..]).and_then(|mut it| it.read_to_string(&mut text)),
        _ => return seen.body_text(),
    }
    .expect("a whole body of the coding that the head names");
    text
}

#[test]
fn the_client_decides_by_section_12_5_3() {
    for (name, accept, want) in [
        ("brotli before gzip", "gzip, deflate, br", "br"),
        ("quality values count", "gzip;q=0.8, br;q=0.1", "gzip"),
        ("deflate alone", "deflate", "deflate"),
        ("anything", "*", "zstd"),
        ("zstandard before brotli", "gzip, deflate, br, zstd", "zstd"),
        ("x-gzip is answered as gzip", "x-gzip", "gzip"),
        ("zero refuses", "gzip;q=0", ""),
        ("identity preferred", "identity;q=1, gzip;q=0.5", ""),
        (
            "nothing acceptable is still answered",
            "identity;q=0, compress",
            "",
        ),
    ] {
        let seen = exchange(
            "GET",
            &[("accept-encoding", accept)],
            200,
            &[("content-type", "text/html")],
        );
        assert_eq!(
            (seen.status, seen.text("content-encoding").as_str()),
            (200, want),
            "{name}"
        );
        assert_eq!(decoded(&seen), long(), "{name}");
        // §12.5.5: also what was not coded was selected by the field.
        assert_eq!(seen.all("vary"), ["Accept-Encoding"], "{name}");
        let counter = if want.is_empty() {
            "compress.skipped.not_acceptable".to_owned()
        } else {
            format!("compress.coded.{want}")
        };
        assert_eq!(seen.counted(&counter), 1, "{name}");
    }
}

#[test]
fn every_refusal_has_a_name() {
    let gzip: &Lines = &[("accept-encoding", "gzip")];
    let text = ("content-type", "text/plain");
    let cases: &[(&str, &str, &Lines, u16, &Lines, &str)] = &[
        (
            "an image",
            "GET",
            gzip,
            200,
            &[("content-type", "image/png")],
            "media_type",
        ),
        ("no type", "GET", gzip, 200, &[], "no_media_type"),
        (
            "an empty type",
            "GET",
            gzip,
            200,
            &[("content-type", ";x=y")],
            "no_media_type",
        ),
        (
            "grpc",
            "GET",
            gzip,
            200,
            &[("content-type", "application/grpc+json")],
            "grpc",
        ),
        (
            "coded at the origin",
            "GET",
            gzip,
            200,
            &[text, ("content-encoding", "br")],
            "coded",
        ),
        (
            "coded twice",
            "GET",
            gzip,
            200,
            &[text, ("content-encoding", "identity, gzip")],
            "coded",
        ),
        (
            "no-transform",
            "GET",
            gzip,
            200,
            &[text, ("cache-control", "max-age=1, No-Transform")],
            "no_transform",
        ),
        (
            "no-transform asked",
            "GET",
            &[
                ("accept-encoding", "gzip"),
                ("cache-control", "no-transform"),
            ],
            200,
            &[text],
            "no_transform",
        ),
        (
            "partial",
            "GET",
            gzip,
            206,
            &[text, ("content-range", "bytes 0-9/100")],
            "partial",
        ),
        (
            "a range in a 200",
            "GET",
            gzip,
            200,
            &[text, ("content-range", "bytes 0-9/100")],
            "partial",
        ),
        (
            "no such range",
            "GET",
            gzip,
            416,
            &[text, ("content-range", "bytes */100")],
            "partial",
        ),
        (
            "too small",
            "GET",
            gzip,
            200,
            &[text, ("content-length", "499")],
            "too_small",
        ),
        (
            "declared empty",
            "GET",
            gzip,
            200,
            &[text, ("content-length", "0")],
            "empty",
        ),
        ("no content", "GET", gzip, 204, &[text], "no_content"),
        ("reset", "POST", gzip, 205, &[text], "no_content"),
        ("a tunnel", "CONNECT", gzip, 200, &[text], "no_content"),
        ("not modified", "GET", gzip, 304, &[text], "not_modified"),
        ("no field", "GET", &[], 200, &[text], "no_accept_encoding"),
        (
            "an empty field",
            "GET",
            &[("accept-encoding", "")],
            200,
            &[text],
            "not_acceptable",
        ),
    ];
    for (name, method, request, status, origin, reason) in cases {
        let seen = exchange(method, request, *status, origin);
        assert_eq!(
            seen.counted(&format!("compress.skipped.{reason}")),
            1,
            "{name}: {:?}",
            seen.record
        );
        let before = origin
            .iter()
            .find(|(field, _)| *field == "content-encoding")
            .map_or("", |(_, value)| value);
        assert_eq!(seen.text("content-encoding"), before, "{name}");
        if *status != 204 && *status != 304 {
            assert_eq!(seen.body_text(), long(), "{name}");
        }
    }
    let seen = script()
        .origin(200, &[text], "")
        .request(&["GET", "/"], gzip)
        .run();
    assert_eq!(
        seen.counted("compress.skipped.empty"),
        1,
        "a body that never comes"
    );
}

#[test]
fn what_no_client_would_get_coded_has_no_vary() {
    for (name, origin) in [
        ("an image", &[("content-type", "image/png")][..]),
        (
            "small",
            &[("content-type", "text/plain"), ("content-length", "9")],
        ),
        (
            "no-transform",
            &[
                ("content-type", "text/plain"),
                ("cache-control", "no-transform"),
            ],
        ),
    ] {
        let seen = exchange("GET", &[("accept-encoding", "gzip")], 200, origin);
        assert!(seen.all("vary").is_empty(), "{name}");
    }
}

#[test]
fn media_types_and_statuses_that_are_coded() {
    for (status, kind) in [
        (200, "text/html; charset=utf-8"),
        (200, "TEXT/CSS"),
        (200, "application/json"),
        (200, "application/ld+json;profile=x"),
        (200, "image/svg+xml"),
        (200, "application/wasm"),
        (200, "application/manifest+json"),
        (201, "application/javascript"),
        (404, "text/html"),
        (500, "application/problem+json"),
    ] {
        let mut script = script().origin(status, &[("content-type", kind)], &long());
        let seen = script
            .request(&["GET", "/"], &[("accept-encoding", "gzip")])
            .run();
        assert_eq!(seen.text("content-encoding"), "gzip", "{status} {kind}");
        assert_eq!(decoded(&seen), long());
    }
}

#[test]
fn the_head_is_true_for_the_coded_content() {
    let origin: &Lines = &[
        ("content-type", "text/plain"),
        ("etag", "\"v1\""),
        ("accept-ranges", "bytes"),
        ("content-digest", "sha-256=:AAAA:"),
        ("repr-digest", "sha-256=:AAAA:"),
        ("digest", "sha-256=AAAA"),
        ("content-md5", "AAAA"),
        ("vary", "Origin"),
        ("vary", "cookie"),
        ("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT"),
    ];
    let get = exchange("GET", &[("accept-encoding", "br")], 200, origin);
    assert_eq!(get.text("etag"), "W/\"v1\"");
    assert_eq!(get.all("vary"), ["Origin, cookie, Accept-Encoding"]);
    for gone in [
        "content-length",
        "accept-ranges",
        "content-digest",
        "repr-digest",
        "digest",
        "content-md5",
    ] {
        assert_eq!(get.field(gone), None, "{gone}");
    }
    assert_eq!(get.text("last-modified"), "Thu, 01 Jan 2026 00:00:00 GMT");

    // RFC 9110 §9.3.2: the fields of a HEAD are those of the GET.
    let head = exchange("HEAD", &[("accept-encoding", "br")], 200, origin);
    let lines = |seen: &Seen| {
        seen.fields
            .iter()
            .map(|(n, v)| (n.clone(), v.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(lines(&head), lines(&get));
    assert!(head.body().is_empty());
}

#[test]
fn vary_is_not_repeated() {
    for (name, before, after) in [
        (
            "there in another case",
            "accept-encoding",
            "accept-encoding",
        ),
        ("a star says it all", "*", "*"),
    ] {
        let mut script = script().origin(
            200,
            &[("content-type", "text/plain"), ("vary", before)],
            &long(),
        );
        let seen = script
            .request(&["GET", "/"], &[("accept-encoding", "gzip")])
            .run();
        assert_eq!(seen.all("vary"), [after], "{name}");
    }
}

#[test]
fn etags_of_a_304_follow_those_of_the_200() {
    let cases: &[(&str, &Lines, &Lines, &str)] = &[
        (
            "held weak",
            &[("accept-encoding", "gzip"), ("if-none-match", "W/\"a\"")],
            &[("etag", "\"a\"")],
            "W/\"a\"",
        ),
        (
            "held strong, unknown type",
            &[
                ("accept-encoding", "gzip"),
                ("if-none-match", "\"b\", \"a\""),
            ],
            &[("etag", "\"a\"")],
            "\"a\"",
        ),
        (
            "by date",
            &[("accept-encoding", "gzip")],
            &[("etag", "\"a\"")],
            "W/\"a\"",
        ),
        (
            "held strong, known type",
            &[("accept-encoding", "gzip"), ("if-none-match", "\"a\"")],
            &[("etag", "\"a\""), ("content-type", "text/css")],
            "\"a\"",
        ),
        (
            "a type that is never coded",
            &[("accept-encoding", "gzip"), ("if-none-match", "\"a\"")],
            &[("etag", "\"a\""), ("content-type", "image/png")],
            "\"a\"",
        ),
        (
            "a client without codings",
            &[("if-none-match", "\"a\"")],
            &[("etag", "\"a\"")],
            "\"a\"",
        ),
        (
            "no-transform",
            &[("accept-encoding", "gzip")],
            &[("etag", "\"a\""), ("cache-control", "no-transform")],
            "\"a\"",
        ),
        (
            "weak already",
            &[("accept-encoding", "gzip")],
            &[("etag", "W/\"a\"")],
            "W/\"a\"",
        ),
    ];
    for (name, request, origin, want) in cases {
        let seen = exchange("GET", request, 304, origin);
        assert_eq!(
            (seen.status, seen.text("etag").as_str()),
            (304, *want),
            "{name}"
        );
        assert_eq!(seen.field("content-encoding"), None, "{name}");
        // The condition itself goes on: RFC 9110 §13.1.2 compares weakly.
        let asked = request
            .iter()
            .find(|(n, _)| *n == "if-none-match")
            .map(|(_, v)| v.as_bytes());
        let upstream = seen.upstream.as_ref().expect("a request upstream");
        assert_eq!(upstream.fields.get("if-none-match"), asked, "{name}");
    }
}

#[test]
fn every_chunk_reaches_the_client() {
    for coding in ["gzip", "deflate", "br"] {
        let events = ["data: one\n\n", "data: two\n\n", ":\n\n", "data: three\n\n"];
        let mut script =
            script().origin_chunks(200, &[("content-type", "text/event-stream")], &events);
        let seen = script
            .request(&["GET", "/"], &[("accept-encoding", coding)])
            .run();
        assert_eq!(seen.text("content-encoding"), coding);
        // One piece per event, and one that ends the stream.
        assert_eq!(seen.chunks.len(), events.len() + 1, "{coding}");
        assert_eq!(decoded(&seen), events.concat());
        assert_eq!(
            seen.counted("compress.bytes_in"),
            events.concat().len() as u64
        );
        assert_eq!(seen.counted("compress.bytes_out"), seen.body().len() as u64);
    }
}

#[test]
fn trailers_are_kept_but_for_digests() {
    let mut script = script().origin_chunks(200, &[("content-type", "text/plain")], &["a", "b"]);
    script.trailers(&[
        ("server-timing", "db;dur=1"),
        ("repr-digest", "sha-256=:AAAA:"),
    ]);
    let seen = script
        .request(&["GET", "/"], &[("accept-encoding", "gzip")])
        .run();
    assert_eq!(decoded(&seen), "ab");
    let trailers = seen.trailers.expect("a trailer section");
    assert_eq!(trailers.get("server-timing"), Some(&b"db;dur=1"[..]));
    assert_eq!(trailers.get("repr-digest"), None);

    let mut plain = self::script().origin_chunks(200, &[("content-type", "image/png")], &["a"]);
    plain.trailers(&[("repr-digest", "sha-256=:AAAA:")]);
    let seen = plain
        .request(&["GET", "/"], &[("accept-encoding", "gzip")])
        .run();
    assert!(
        seen.trailers.expect("a trailer section").has("repr-digest"),
        "nothing was changed"
    );
}

#[test]
fn requests_go_on_as_they_are_unless_told() {
    let accept = [("accept-encoding", "gzip"), ("range", "bytes=0-9")];
    let seen = exchange("GET", &accept, 200, &[("content-type", "text/plain")]);
    let upstream = seen.upstream.as_ref().expect("a request upstream");
    assert!(upstream.fields.changed().is_empty());
    assert_eq!(
        seen.text("content-encoding"),
        "gzip",
        "an origin that ignores the range"
    );

    let mut script = Script::new(filter(|config| config.remove_accept_encoding = true)).origin(
        200,
        &[("content-type", "text/plain")],
        &long(),
    );
    let seen = script.request(&["GET", "/"], &accept).run();
    assert!(
        !seen
            .upstream
            .as_ref()
            .expect("a request upstream")
            .fields
            .has("accept-encoding")
    );
    assert_eq!(seen.text("content-encoding"), "gzip");
}

#[test]
fn a_full_budget_falls_back_and_then_steps_aside() {
    // Room for one brotli stream, or two of gzip and a rest.
    let compress = filter(|config| {
        config.memory_bytes = 5 * 1024 * 1024;
        config.codings = Some(vec![Coding::Brotli, Coding::Gzip]);
    });
    let exchanges: Vec<String> = {
        use edgeweir_filter::{
            Cx, Exchange, Fields, Filter, Record, RequestHead, ResponseHead, Timestamp,
        };
        let mut live: Vec<Box<dyn Exchange>> = Vec::new();
        let mut record = Record::default();
        let mut ask = |live: &mut Vec<Box<dyn Exchange>>| {
            let mut exchange = compress.exchange();
            let mut request = RequestHead {
                fields: Fields::of(&[("accept-encoding", "br, gzip")]),
                ..RequestHead::default()
            };
            let mut response = ResponseHead {
                status: 200,
                fields: Fields::of(&[("content-type", "text/plain")]),
                end: false,
                ..ResponseHead::default()
            };
            let mut cx = Cx::new(Timestamp::default(), &mut record);
            exchange.request(&mut request, &mut cx);
            exchange.response(&mut response, &mut cx);
            live.push(exchange);
            response
                .fields
                .text("content-encoding")
                .unwrap_or("plain")
                .to_owned()
        };
        let mut all: Vec<String> = (0..6).map(|_| ask(&mut live)).collect();
        live.clear();
        all.push(ask(&mut live));
        assert_eq!(
            record
                .counts
                .iter()
                .filter(|(name, _)| *name == "compress.skipped.memory")
                .count(),
            all.iter().filter(|coding| *coding == "plain").count()
        );
        all
    };
    assert_eq!(exchanges.first().map(String::as_str), Some("br"));
    assert!(
        exchanges[1..5].contains(&"gzip".to_owned()),
        "{exchanges:?}"
    );
    assert_eq!(exchanges[5], "plain", "{exchanges:?}");
    assert_eq!(
        exchanges[6], "br",
        "dropped exchanges give their room back: {exchanges:?}"
    );
}

#[test]
fn a_body_cut_at_the_origin_is_not_completed() {
    let mut script = script().origin_chunks(
        200,
        &[("content-type", "text/plain")],
        &["first part", "second part"],
    );
    script.cut();
    let seen = script
        .request(&["GET", "/"], &[("accept-encoding", "gzip")])
        .run();
    let mut text = Vec::new();
    let ended = flate2::read::GzDecoder::new(&seen.body()[..]).read_to_end(&mut text);
    assert!(ended.is_err(), "a cut body must not look whole");
    assert_eq!(text, b"first partsecond part");
}

#[test]
fn five_megabytes_through_every_coding() {
    let body: String = (0..100_000)
        .map(|n| format!("{{\"id\": {n}, \"name\": \"item {}\"}},\n", n % 977))
        .collect();
    let chunks: Vec<&[u8]> = body.as_bytes().chunks(40_001).collect();
    for coding in ["gzip", "deflate", "br"] {
        let mut script = script();
        script.answers(200, &[("content-type", "application/json")], &chunks);
        let seen = script
            .request(&["GET", "/"], &[("accept-encoding", coding)])
            .run();
        assert!(decoded(&seen) == body, "{coding}");
        assert!(
            seen.body().len() * 4 < body.len(),
            "{coding}: {} of {}",
            seen.body().len(),
            body.len()
        );
    }
}

#[test]
fn a_suffixed_tag_comes_back_as_the_origins() {
    let mut script = Script::new(filter(|config| config.etag = Etags::Suffix)).origin(
        200,
        &[("content-type", "text/plain"), ("etag", "\"a\"")],
        &long(),
    );
    for (coding, want) in [
        ("gzip", "\"a-gzip\""),
        ("br", "\"a-br\""),
        ("identity", "\"a\""),
    ] {
        for method in ["GET", "HEAD"] {
            let seen = script
                .request(&[method, "/"], &[("accept-encoding", coding)])
                .run();
            assert_eq!(seen.text("etag"), want, "{method} {coding}");
        }
    }
    let asks = [
        ("accept-encoding", "gzip"),
        ("if-none-match", "\"a-gzip\""),
        ("if-match", "\"a-gzip\""),
        ("if-range", "\"a-gzip\""),
        ("range", "bytes=5-"),
    ];
    script.answers(304, &[("etag", "\"a\"")], &[]);
    let seen = script.request(&["GET", "/"], &asks).run();
    let upstream = &seen.upstream.as_ref().expect("a request upstream").fields;
    for condition in ["if-none-match", "if-match"] {
        assert_eq!(
            upstream.text(condition),
            Some("\"a-gzip\", \"a\""),
            "{condition}"
        );
    }
    assert_eq!(
        upstream.text("if-range"),
        Some("\"a-gzip\""),
        "ranges are of plain bytes"
    );
    assert_eq!(seen.text("etag"), "\"a-gzip\"");
}

/// RFC 9110 §13.1.5: the coded and the plain content have one date; a part of one is none of the other.
#[test]
fn a_part_by_date_is_asked_for_whole() {
    let date = "Sat, 29 Oct 1994 19:43:31 GMT";
    for (name, accepts, condition, disabled, kept) in [
        ("by date", "gzip", Some(date), false, false),
        ("by tag", "gzip", Some("\"a\""), false, true),
        ("by weak tag", "gzip", Some("W/\"a\""), false, true),
        ("without condition", "gzip", None, false, true),
        ("plain", "identity", Some(date), false, true),
        ("nothing is coded", "gzip", Some(date), true, true),
    ] {
        let json = match disabled {
            true => r#"{"rules": [{"path": "/*", "disabled": true}]}"#,
            false => "{}",
        };
        let config = serde_json::from_str(json).expect(json);
        let mut script = Script::new(Compress::new(config).expect(json));
        script.answers(206, &[("content-range", "bytes 5-9/10")], &[b"abcde"]);
        let mut asks = vec![("accept-encoding", accepts), ("range", "bytes=5-")];
        asks.extend(condition.map(|condition| ("if-range", condition)));
        let seen = script.request(&["GET", "/"], &asks).run();
        let upstream = &seen.upstream.as_ref().expect("a request upstream").fields;
        assert_eq!(upstream.has("range"), kept, "{name}");
        assert_eq!(
            upstream.text("if-range"),
            condition.filter(|_| kept),
            "{name}"
        );
    }
}

#[test]
fn a_304_freshens_a_coded_response_with_nothing_of_the_plain_one() {
    let origin: &Lines = &[
        ("etag", "\"a\""),
        ("content-length", "9000"),
        ("repr-digest", "sha-256=:AAAA:"),
        ("cache-control", "max-age=60"),
    ];
    for (name, held, gone) in [
        ("a coded one is held", "W/\"a\"", true),
        ("the plain one is held", "\"a\"", false),
    ] {
        let seen = exchange(
            "GET",
            &[("accept-encoding", "gzip"), ("if-none-match", held)],
            304,
            origin,
        );
        for field in ["content-length", "repr-digest"] {
            assert_eq!(seen.field(field).is_none(), gone, "{name}: {field}");
        }
        assert_eq!(seen.text("cache-control"), "max-age=60");
    }
}

#[test]
fn wishes_for_digests_go_on_rfc_9530_section_4() {
    let wish = [
        ("want-content-digest", "sha-256=10"),
        ("want-repr-digest", "sha-256=10"),
        ("accept-encoding", "gzip"),
    ];
    for (name, kind, kept) in [
        ("coded", "text/plain", false),
        ("left alone", "image/png", true),
    ] {
        let lines: &Lines = &[
            ("content-type", kind),
            ("content-digest", "sha-256=:AAAA:"),
            ("repr-digest", "sha-256=:AAAA:"),
        ];
        let seen = exchange("GET", &wish, 200, lines);
        let upstream = &seen.upstream.as_ref().expect("a request upstream").fields;
        assert!(upstream.has("want-content-digest") && upstream.has("want-repr-digest"));
        for digest in ["content-digest", "repr-digest"] {
            assert_eq!(seen.field(digest).is_some(), kept, "{name}: {digest}");
        }
    }
}
