//! What the filter makes of messages, by the section that asks for it.

use edgeweir_filter::{
    Configured, Cx, Fields, Filter, Record, RequestHead, ResponseHead, Script, Seen, Timestamp,
    load,
};
use edgeweir_minify::{Config, Minify};

const PRETTY: &str = "{\n  \"name\": \"a b\",\n  \"list\": [ 1, 2.50, 1e400 ]\n}\n";
const COMPACT: &str = r#"{"name":"a b","list":[1,2.50,1e400]}"#;
const JSON: (&str, &str) = ("content-type", "application/json");

type Lines = [(&'static str, &'static str)];

fn script_with(change: impl FnOnce(&mut Config)) -> Script {
    let mut config = Config::default();
    change(&mut config);
    Script::new(Minify::new(config).expect("a good configuration"))
}

fn script() -> Script {
    script_with(|_| ())
}

fn exchange(method: &str, request: &Lines, status: u16, origin: &Lines) -> Seen {
    let mut script = script().origin(status, origin, PRETTY);
    script.request(&[method, "/"], request).run()
}

#[test]
fn media_types_that_are_json() {
    for kind in [
        "application/json",
        "application/json; charset=utf-8",
        "Application/JSON;charset=\"UTF-8\"",
        "application/ld+json",
        "application/ld+json; profile=\"x;charset=utf-16\"",
        "application/problem+json; charset=us-ascii",
        "text/json",
        "application/vnd.api+json",
    ] {
        for status in [200, 201, 404, 500] {
            let seen = exchange("GET", &[], status, &[("content-type", kind)]);
            assert_eq!(seen.body_text(), COMPACT, "{status} {kind}");
            assert_eq!(seen.counted("minify.minified"), 1);
            assert_eq!(seen.counted("minify.bytes_in"), PRETTY.len() as u64);
            assert_eq!(seen.counted("minify.bytes_out"), COMPACT.len() as u64);
        }
    }
}

#[test]
fn every_refusal_has_a_name() {
    let cases: &[(&str, &str, &Lines, u16, &Lines, &str)] = &[
        (
            "text",
            "GET",
            &[],
            200,
            &[("content-type", "text/plain")],
            "media_type",
        ),
        ("no type", "GET", &[], 200, &[], "media_type"),
        (
            "JSON with comments",
            "GET",
            &[],
            200,
            &[("content-type", "application/json5")],
            "media_type",
        ),
        (
            "grpc",
            "GET",
            &[],
            200,
            &[("content-type", "application/grpc+json")],
            "media_type",
        ),
        (
            "JSON in a name",
            "GET",
            &[],
            200,
            &[("content-type", "application/jsonp")],
            "media_type",
        ),
        (
            "another charset",
            "GET",
            &[],
            200,
            &[("content-type", "application/json; charset=utf-16")],
            "charset",
        ),
        (
            "coded",
            "GET",
            &[],
            200,
            &[JSON, ("content-encoding", "gzip")],
            "coded",
        ),
        (
            "no-transform",
            "GET",
            &[],
            200,
            &[JSON, ("cache-control", "no-transform")],
            "no_transform",
        ),
        (
            "no-transform asked",
            "GET",
            &[("cache-control", "no-transform")],
            200,
            &[JSON],
            "no_transform",
        ),
        (
            "partial",
            "GET",
            &[("range", "bytes=0-9")],
            206,
            &[JSON, ("content-range", "bytes 0-9/100")],
            "partial",
        ),
        (
            "no such range",
            "GET",
            &[],
            416,
            &[JSON, ("content-range", "bytes */100")],
            "partial",
        ),
        ("no content", "GET", &[], 204, &[JSON], "no_content"),
        ("not modified", "GET", &[], 304, &[JSON], "not_modified"),
        ("a tunnel", "CONNECT", &[], 200, &[JSON], "no_content"),
        (
            "declared empty",
            "GET",
            &[],
            200,
            &[JSON, ("content-length", "0")],
            "empty",
        ),
    ];
    for (name, method, request, status, origin, reason) in cases {
        let seen = exchange(method, request, *status, origin);
        assert_eq!(
            seen.counted(&format!("minify.skipped.{reason}")),
            1,
            "{name}: {:?}",
            seen.record
        );
        assert!(
            seen.fields.changed().is_empty() || *status == 304,
            "{name}: the head is as it came"
        );
        if *status != 204 && *status != 304 {
            assert_eq!(seen.body_text(), PRETTY, "{name}");
        }
    }
    let seen = script().origin(200, &[JSON], "").run();
    assert_eq!(
        seen.counted("minify.skipped.empty"),
        1,
        "a body that never comes"
    );
    let mut limited =
        script_with(|config| config.max_bytes = Some(10)).origin(200, &[JSON], PRETTY);
    let seen = limited.run();
    assert_eq!(
        (
            seen.counted("minify.skipped.too_large"),
            seen.body_text().as_str()
        ),
        (1, PRETTY)
    );
}

#[test]
fn the_head_is_true_for_the_minified_content() {
    let origin: &Lines = &[
        JSON,
        ("etag", "\"v1\""),
        ("accept-ranges", "bytes"),
        ("content-digest", "sha-256=:AAAA:"),
        ("repr-digest", "sha-256=:AAAA:"),
        ("content-md5", "AAAA"),
        ("docker-content-digest", "sha256:aa"),
        ("x-amz-checksum-crc32", "AAAA"),
        ("x-goog-hash", "crc32c=AAAA"),
        ("vary", "origin"),
    ];
    let get = exchange("GET", &[], 200, origin);
    assert_eq!(
        (get.text("etag"), get.all("vary")),
        ("W/\"v1\"".to_owned(), vec!["origin".to_owned()])
    );
    for gone in [
        "content-length",
        "accept-ranges",
        "content-digest",
        "repr-digest",
        "content-md5",
        "docker-content-digest",
        "x-amz-checksum-crc32",
        "x-goog-hash",
    ] {
        assert_eq!(get.field(gone), None, "{gone}");
    }
    // RFC 9110 §9.3.2: the fields of a HEAD are those of the GET.
    let head = exchange("HEAD", &[], 200, origin);
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
fn etags_of_a_304_follow_those_of_the_200() {
    let cases: &[(&str, &Lines, &Lines, &str)] = &[
        (
            "held weak",
            &[("if-none-match", "W/\"a\"")],
            &[("etag", "\"a\"")],
            "W/\"a\"",
        ),
        (
            "held strong, unknown type",
            &[("if-none-match", "\"a\"")],
            &[("etag", "\"a\"")],
            "\"a\"",
        ),
        ("by date", &[], &[("etag", "\"a\"")], "W/\"a\""),
        (
            "known to be JSON",
            &[("if-none-match", "\"a\"")],
            &[("etag", "\"a\""), JSON],
            "W/\"a\"",
        ),
        (
            "known to be none",
            &[("if-none-match", "W/\"a\"")],
            &[("etag", "\"a\""), ("content-type", "text/css")],
            "\"a\"",
        ),
        (
            "no-transform",
            &[("if-none-match", "W/\"a\"")],
            &[("etag", "\"a\""), ("cache-control", "no-transform")],
            "\"a\"",
        ),
        (
            "no-transform asked",
            &[("cache-control", "no-transform")],
            &[("etag", "\"a\""), JSON],
            "\"a\"",
        ),
    ];
    for (name, request, origin, want) in cases {
        let of_bytes = [
            ("content-length", "9"),
            ("accept-ranges", "bytes"),
            ("repr-digest", "sha-256=:AAAA:"),
        ];
        let seen = exchange("GET", request, 304, &[origin, &of_bytes[..]].concat());
        assert_eq!(
            (seen.status, seen.text("etag").as_str()),
            (304, *want),
            "{name}"
        );
        for (field, _) in of_bytes {
            let is_kept = seen.field(field).is_some();
            assert_eq!(is_kept, want.starts_with('"'), "{name}: {field}");
        }
        let upstream = seen.upstream.as_ref().expect("a request upstream");
        assert!(
            upstream.fields.changed().is_empty(),
            "{name}: requests go on as they are"
        );
    }
}

#[test]
fn invalid_bodies_of_known_small_length_are_not_touched() {
    for (name, body, reason) in [
        ("late", "{ \"a\": 1 } x", "trailing"),
        ("cut", "{ \"a\": [ 1, 2 ", "truncated"),
        ("whitespace only", " \n\t ", "truncated"),
        ("mark", "\u{feff}{ }", "encoding"),
        ("word", "[ yes ]", "bad_literal"),
        ("number", "[ 00 ]", "bad_number"),
        ("control", "[ \"\u{1}\" ]", "control_character"),
        ("structure", "{ \"a\" 1 }", "unexpected_byte"),
    ] {
        let seen = script().origin(200, &[JSON], body).run();
        assert_eq!(seen.body_text(), body, "{name}");
        assert_eq!(
            seen.counted(&format!("minify.invalid.{reason}")),
            1,
            "{name}"
        );
        assert_eq!(
            seen.counted("minify.bytes_out"),
            body.len() as u64,
            "{name}"
        );

        // Without a length, or with the option turned off, it streams: the rest goes on as it came.
        for whole_bytes in [0, 1] {
            let mut script =
                script_with(|config| config.whole_bytes = whole_bytes).origin(200, &[JSON], body);
            let seen = script.run();
            let squeezed = |text: &str| text.split_ascii_whitespace().collect::<String>();
            assert_eq!(squeezed(&seen.body_text()), squeezed(body), "{name}");
            assert_eq!(
                seen.counted(&format!("minify.invalid.{reason}")),
                1,
                "{name}"
            );
        }
    }
}

#[test]
fn a_depth_over_the_configured_is_not_looked_into() {
    let body = "[ [ [ 1 ] ] ]";
    for (depth, want) in [(3, "[[[1]]]"), (2, body)] {
        let seen = script_with(|config| config.max_depth = depth)
            .origin(200, &[JSON], body)
            .run();
        assert_eq!(seen.body_text(), want);
        assert_eq!(
            seen.counted("minify.invalid.depth"),
            u64::from(want == body)
        );
    }
}

#[test]
fn a_body_without_length_streams_chunk_by_chunk() {
    let chunks = ["{ \"a\"", " : 1, ", "\"b\" : \"x", " y\" ", "}", "\n"];
    let seen = script().origin_chunks(200, &[JSON], &chunks).run();
    let pieces: Vec<_> = seen
        .chunks
        .iter()
        .map(|chunk| String::from_utf8_lossy(chunk).into_owned())
        .collect();
    assert_eq!(pieces, ["{\"a\"", ":1,", "\"b\":\"x", " y\"", "}"]);
}

#[test]
fn beyond_the_size_limit_a_stream_goes_on_as_it_is() {
    let (first, second) = PRETTY.split_at(20);
    let mut script = script_with(|config| config.max_bytes = Some(30)).origin_chunks(
        200,
        &[JSON],
        &[first, second],
    );
    let seen = script.run();
    assert_eq!(seen.counted("minify.stopped.too_large"), 1);
    let value = |text: &str| {
        serde_json::from_str::<serde_json::Value>(&text.replace("1e400", "1")).expect("JSON")
    };
    assert_eq!(value(&seen.body_text()), value(PRETTY));
    assert!(seen.body_text().ends_with(&PRETTY[30..]));
    assert!(seen.body().len() < PRETTY.len());
}

#[test]
fn beyond_the_size_limit_what_follows_still_fits_what_went_before() {
    let body = r#" {"a" : null , "b": [ null , 1 , null, { "n" : null , "m" : "x y" } ], "c" : null , "d": {} } "#;
    let value: serde_json::Value = serde_json::from_str(body).expect("JSON");
    for config in [
        r#"{"drop_nulls": "members""#,
        r#"{"drop_nulls": "all""#,
        r#"{"drop_nulls": "all", "validate": false"#,
    ] {
        for (kind, limit) in ["json", "x-ndjson"]
            .into_iter()
            .flat_map(|kind| (1..body.len()).map(move |at| (kind, at)))
        {
            let minify: Minify =
                load(format!("{config}, \"max_bytes\": {limit}}}").as_bytes()).expect("good");
            let (first, second) = body.split_at(body.len() / 2);
            let kind = format!("application/{kind}");
            let mut script = Script::new(minify).origin_chunks(
                200,
                &[("content-type", &kind)],
                &[first, second],
            );
            let seen = script.run();
            assert_eq!(seen.counted("minify.stopped.too_large"), 1);
            let found: serde_json::Value = serde_json::from_slice(&seen.body())
                .unwrap_or_else(|error| panic!("{config} {limit}: {error}: {}", seen.body_text()));
            assert_eq!(found["d"], value["d"]);
            assert!(!seen.cut);
        }
    }
}

#[test]
fn a_body_that_turns_out_empty_passes() {
    for config in ["{}", r#"{"validate": false}"#, r#"{"exclude": ["a"]}"#] {
        for kind in [
            "application/json",
            "application/x-ndjson",
            "application/json-seq",
        ] {
            let minify: Minify = load(config.as_bytes()).expect("a good configuration");
            let (mut exchange, mut record) = (minify.exchange(), Record::default());
            let mut cx = Cx::new(Timestamp::default(), &mut record);
            exchange.request(&mut RequestHead::default(), &mut cx);
            let mut head = ResponseHead {
                status: 200,
                fields: Fields::of(&[("content-type", kind)]),
                ..ResponseHead::default()
            };
            exchange.response(&mut head, &mut cx);
            let mut out = Vec::new();
            exchange.response_body(&[], true, &mut out, &mut cx);
            assert_eq!((out.len(), record.cut), (0, None), "{config} {kind}");
            let counted = |name| record.counts.iter().any(|&(own, by)| own == name && by > 0);
            assert!(counted("minify.skipped.empty"), "{config} {kind}");
            assert!(!counted("minify.invalid.truncated"), "{config} {kind}");
        }
    }
}

#[test]
fn a_length_that_lies_costs_nothing_but_the_whole_check() {
    for (declared, chunks) in [
        ("5", &["[ 1, ", "2 ]", " "][..]),
        ("70000", &["[ 1, ", "2 ]", " "]),
    ] {
        let mut script = script();
        let chunks: Vec<&[u8]> = chunks.iter().map(|chunk| chunk.as_bytes()).collect();
        script.answers(200, &[JSON, ("content-length", declared)], &chunks);
        assert_eq!(script.run().body_text(), "[1,2]", "declared {declared}");
    }
    // More than the limit comes where less was declared: what was held goes first.
    let mut script = script_with(|config| config.whole_bytes = 6);
    script.answers(
        200,
        &[JSON, ("content-length", "6")],
        &[b"[ 1,", b" 2,", b" x ]"],
    );
    assert_eq!(script.run().body_text(), "[1,2,x ]");
}

#[test]
fn lines_and_sequences() {
    for kind in [
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "application/jsonlines",
    ] {
        let seen = script()
            .origin_chunks(
                200,
                &[("content-type", kind)],
                &["{ \"a\": 1 }\n", "{ \"a\"", ": 2 }\r\n"],
            )
            .run();
        assert_eq!(seen.body_text(), "{\"a\":1}\n{\"a\":2}\n", "{kind}");
        // Lines stay live: the first went out before the second came.
        assert_eq!(
            seen.chunks.first().map(|chunk| &chunk[..]),
            Some(&b"{\"a\":1}\n"[..])
        );
    }
    for kind in ["application/json-seq", "application/geo+json-seq"] {
        let seen = script()
            .origin_chunks(
                200,
                &[("content-type", kind)],
                &["\u{1e}{ \"a\": 1 }\n", "\u{1e}[\n2 ]\n"],
            )
            .run();
        assert_eq!(seen.body_text(), "\u{1e}{\"a\":1}\n\u{1e}[2]\n", "{kind}");
    }
}

#[test]
fn trailers_are_kept_but_for_digests() {
    let mut script = script().origin_chunks(200, &[JSON], &["[ 1", " ]"]);
    script.trailers(&[
        ("server-timing", "db;dur=1"),
        ("content-digest", "sha-256=:AAAA:"),
        ("x-amz-checksum-sha256", "AAAA"),
    ]);
    let seen = script.run();
    assert_eq!(seen.body_text(), "[1]");
    let trailers = seen.trailers.expect("a trailer section");
    assert_eq!(trailers.get("server-timing"), Some(&b"db;dur=1"[..]));
    assert_eq!(trailers.get("content-digest"), None);
    assert_eq!(trailers.get("x-amz-checksum-sha256"), None);
}

#[test]
fn five_megabytes_stream_through() {
    let pretty: String = std::iter::once("[\n".to_owned())
        .chain((0..80_000).map(|n| format!("  {{ \"id\" : {n}, \"text\" : \"a  b\\n{n}\" }},\n")))
        .chain(["  null\n]\n".to_owned()])
        .collect();
    assert!(pretty.len() > 3_000_000);
    let mut script = script();
    let chunks: Vec<&[u8]> = pretty.as_bytes().chunks(16_381).collect();
    script.answers(200, &[JSON], &chunks);
    let out = script.run().body();
    let value = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).expect("JSON");
    assert!(value(&out) == value(pretty.as_bytes()));
    assert!(out.len() == serde_json::to_vec(&value(&out)).expect("a value").len());
}
