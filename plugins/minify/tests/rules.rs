//! What rules make of messages: heads, requests, replies.

use edgeweir_filter::{Script, Seen, load};
use edgeweir_minify::Minify;

const JSON: (&str, &str) = ("content-type", "application/json");
const USER: &str = r#"{
  "id": 7,
  "name": "Ada",
  "password": "hunter2!",
  "card": "4111 1111 1111 1111",
  "note": null,
  "tags": [ "x", null ],
  "orders": [ { "id": 1, "total": 9.50, "secret": "s" }, { "id": 2, "total": 1, "secret": "t" } ]
}"#;

type Lines = [(&'static str, &'static str)];

fn script(config: &str) -> Script {
    Script::new(load::<Minify>(config.as_bytes()).expect("a good configuration"))
}

fn body(config: &str) -> String {
    let seen = script(config).origin(200, &[JSON], USER).run();
    assert_eq!(seen.counted("minify.minified"), 1);
    seen.body_text()
}

#[test]
fn what_rules_leave_and_hide() {
    for (config, want) in [
        (
            r#"{"include": ["id,orders/total"]}"#,
            r#"{"id":7,"orders":[{"total":9.50},{"total":1}]}"#,
        ),
        (r#"{"include": ["id", "tags/x"]}"#, r#"{"id":7,"tags":[]}"#),
        (
            r#"{"include": ["tags", "note", "orders"], "exclude": ["orders/secret,orders/id"], "drop_nulls": "members"}"#,
            r#"{"tags":["x",null],"orders":[{"total":9.50},{"total":1}]}"#,
        ),
        (
            r#"{"include": ["tags,note"], "drop_nulls": "all"}"#,
            r#"{"tags":["x"]}"#,
        ),
        (
            r#"{"exclude": ["orders,tags,note"], "redact": [{"key": "PASSWORD", "ignore_case": true}, {"pattern": "card", "replace": "last4"}]}"#,
            r#"{"id":7,"name":"Ada","password":"***","card":"***1111"}"#,
        ),
        (
            r#"{"include": ["id,name,tags"], "redact": [{"path": "*", "replace": "hash"}], "hash_key": "0123456789abcdef"}"#,
            r#"{"id":"hmac:f69cf4852626eee1","name":"hmac:9bc245ae8032d0b6","tags":"***"}"#,
        ),
    ] {
        let seen = body(config);
        assert_eq!(seen, want, "{config}");
    }
}

#[test]
fn what_was_done_is_counted() {
    let config = r#"{"include": ["id,note,tags,orders/id"], "drop_nulls": "all", "redact": [{"key": "id"}]}"#;
    let mut script = script(config).origin(200, &[JSON], USER);
    script.lap(std::time::Duration::from_micros(3));
    let seen = script.run();
    assert_eq!(
        (
            seen.counted("minify.nulls_dropped"),
            seen.counted("minify.members_dropped"),
            seen.counted("minify.values_redacted"),
            seen.counted("minify.bytes_in"),
            seen.counted("minify.bytes_out"),
        ),
        (2, 3 + 4, 3, USER.len() as u64, seen.body().len() as u64)
    );
}

fn ask(config: &str, path: &str, request: &Lines, status: u16, origin: &Lines) -> Seen {
    let mut script = script(config).origin(status, origin, USER);
    script.request(&["GET", path], request).run()
}

#[test]
fn a_client_gets_the_members_it_asks_for() {
    let config = r#"{"fields": {"parameter": "fields"}}"#;
    for (path, status, want) in [
        ("/?fields=id", 200, r#"{"id":7}"#),
        (
            "/?x=1&fields=id,orders(id)",
            201,
            r#"{"id":7,"orders":[{"id":1},{"id":2}]}"#,
        ),
        ("/?fields=name&fields=id", 200, r#"{"id":7,"name":"Ada"}"#),
        ("/?fields=n%61me", 200, r#"{"name":"Ada"}"#),
    ] {
        let seen = ask(config, path, &[("range", "bytes=0-1")], status, &[JSON]);
        assert_eq!(seen.body_text(), want, "{path}");
        let upstream = seen.upstream.expect("a request upstream");
        assert_eq!(upstream.path, path);
        assert_eq!(upstream.fields.get("range"), None);
        assert_eq!(
            upstream.fields.get("accept-encoding"),
            Some(&b"identity"[..])
        );
    }
    // All of it: where nothing was asked for, of an error, of what is no JSON or is coded.
    for (path, status, origin) in [
        ("/", 200, &[JSON][..]),
        ("/?fields=", 200, &[JSON]),
        ("/?fields=id", 404, &[JSON]),
        ("/?fields=id", 200, &[("content-type", "text/plain")]),
        ("/?fields=id", 200, &[JSON, ("content-encoding", "gzip")]),
    ] {
        let seen = ask(config, path, &[], status, origin);
        assert!(seen.body_text().contains("hunter2!"), "{path} {status}");
    }
    let seen = ask(config, "/", &[("range", "bytes=0-1")], 200, &[JSON]);
    assert!(
        seen.upstream
            .expect("a request")
            .fields
            .changed()
            .is_empty()
    );
}

#[test]
fn what_the_client_asks_for_is_no_more_than_the_operator_shows() {
    let config = r#"{"include": ["id,name"], "redact": [{"key": "name"}], "fields": {"parameter": "f", "forward": false}}"#;
    let seen = ask(config, "/a?f=name,password&b=1", &[], 200, &[JSON]);
    assert_eq!(seen.body_text(), r#"{"name":"***"}"#);
    assert_eq!(seen.upstream.expect("a request").path, "/a?b=1");
    let seen = ask(config, "/a?f=id", &[], 200, &[JSON]);
    assert_eq!(seen.upstream.expect("a request").path, "/a");
}

#[test]
fn a_mask_that_is_none_is_answered_400() {
    let config = r#"{"fields": {"parameter": "fields", "max_length": 8}}"#;
    for (path, detail) in [
        ("/?fields=a(b", "a `(` that is not closed at byte 3"),
        ("/?fields=a%5C", "nothing after `\\` at byte 0"),
        ("/?fields=aaaaaaaaa", "too long a mask at byte 0"),
    ] {
        let seen = ask(config, path, &[], 200, &[JSON]);
        assert_eq!(seen.status, 400, "{path}");
        assert!(seen.upstream.is_none());
        assert_eq!(seen.text("content-type"), "application/problem+json");
        let problem: serde_json::Value = serde_json::from_slice(&seen.body()).expect("JSON");
        assert_eq!(problem["detail"], format!("The mask of fields: {detail}"));
        assert_eq!(seen.counted("minify.bad_mask"), 1);
    }
}

#[test]
fn what_is_hidden_is_not_shown_by_what_cannot_be_read() {
    let hides = r#"{"redact": [{"key": "password"}], "max_bytes": 100000"#;
    let cases: &[(&str, u16, &Lines, &str)] = &[
        ("coded", 200, &[JSON, ("content-encoding", "gzip")], "coded"),
        (
            "a part",
            206,
            &[JSON, ("content-range", "bytes 0-9/99")],
            "partial",
        ),
        (
            "parts",
            206,
            &[("content-type", "multipart/byteranges; boundary=x")],
            "partial",
        ),
        (
            "UTF-16",
            200,
            &[("content-type", "application/json; charset=utf-16")],
            "charset",
        ),
        (
            "too long",
            200,
            &[JSON, ("content-length", "100001")],
            "too_large",
        ),
        (
            "two types in a line",
            200,
            &[("content-type", "application/json, application/json")],
            "media_type",
        ),
        (
            "two lines of types",
            200,
            &[("content-type", "text/plain"), JSON],
            "media_type",
        ),
        (
            "a parameter without a semicolon",
            200,
            &[("content-type", "application/json charset=utf-8")],
            "media_type",
        ),
    ];
    for (name, status, origin, reason) in cases {
        let seen = ask(&format!("{hides}}}"), "/", &[], *status, origin);
        assert_eq!(
            (seen.status, seen.counted("minify.refused")),
            (502, 1),
            "{name}"
        );
        assert_eq!(
            seen.counted(&format!("minify.skipped.{reason}")),
            1,
            "{name}"
        );
        assert!(!seen.body_text().contains("hunter"), "{name}");
        let seen = ask(
            &format!("{hides}, \"unreadable\": \"pass\"}}"),
            "/",
            &[],
            *status,
            origin,
        );
        assert_eq!(seen.status, *status, "{name}");
        assert!(seen.body_text().contains("hunter"), "{name}");
    }
    // Neither side can ask for what is hidden.
    for (request, origin) in [
        (&[("cache-control", "no-transform")][..], &[JSON][..]),
        (&[], &[JSON, ("cache-control", "max-age=1, no-transform")]),
    ] {
        let seen = ask(&format!("{hides}}}"), "/", request, 200, origin);
        assert!(seen.body_text().contains("\"password\":\"***\""));
        assert_eq!(seen.field("content-length"), None);
    }
    // What is no JSON is not its business.
    let seen = ask(
        &format!("{hides}}}"),
        "/",
        &[],
        206,
        &[("content-type", "video/mp4")],
    );
    assert_eq!(seen.status, 206);
    let seen = ask(
        &format!("{hides}}}"),
        "/",
        &[("range", "bytes=0-9"), ("if-range", "\"a\"")],
        200,
        &[JSON],
    );
    let upstream = seen.upstream.expect("a request upstream");
    assert_eq!(
        (
            upstream.fields.get("range"),
            upstream.fields.get("if-range")
        ),
        (None, None)
    );
    assert_eq!(
        upstream.fields.get("accept-encoding"),
        Some(&b"identity"[..])
    );
}

#[test]
fn a_body_that_turns_out_invalid_breaks_off() {
    for (name, body, want, reason) in [
        (
            "a word",
            r#"{ "a": 1, x "password": "s" }"#,
            r#"{"a":1"#,
            "unexpected_byte",
        ),
        (
            "cut",
            r#"{ "a": 1, "password": "s"#,
            r#"{"a":1,"password":"***""#,
            "truncated",
        ),
        (
            "a second text",
            r#"{ "a": 1 } { "password": "s" }"#,
            r#"{"a":1}"#,
            "trailing",
        ),
        (
            "too deep",
            r#"[ [ [ { "password": "s" } ] ] ]"#,
            "[[[",
            "depth",
        ),
    ] {
        let hides = r#"{"max_depth": 3, "redact": [{"key": "password"}]"#;
        for (more, chunked) in [("", true), ("", false), (", \"whole_bytes\": 0", false)] {
            let mut script = script(&format!("{hides}{more}}}"));
            script = match chunked {
                true => script.origin_chunks(200, &[JSON], &[&body[..12], &body[12..]]),
                false => script.origin(200, &[JSON], body),
            };
            let seen = script.run();
            assert!(seen.cut, "{name}");
            assert!(want.starts_with(&seen.body_text()), "{name}");
            assert_eq!(
                seen.counted(&format!("minify.invalid.{reason}")),
                1,
                "{name}"
            );
            assert_eq!(seen.counted("minify.cut"), 1, "{name}");
        }
        let seen = script(&format!("{hides}, \"unreadable\": \"pass\"}}"))
            .origin(200, &[JSON], body)
            .run();
        let done = (seen.cut, seen.body_text(), seen.counted("minify.cut"));
        assert_eq!(done, (false, body.to_owned(), 0), "{name}");
    }
    let hides = r#"{"max_bytes": 20, "redact": [{"key": "password"}]}"#;
    let seen = script(hides)
        .origin_chunks(
            200,
            &[JSON],
            &[r#"{ "a": "12345678901"#, r#"23", "password": "s" }"#],
        )
        .run();
    assert!(seen.cut);
    assert_eq!(seen.body_text(), r#"{"a":"12345678901"#);
    assert_eq!(
        (
            seen.counted("minify.stopped.too_large"),
            seen.counted("minify.cut")
        ),
        (1, 1)
    );
}

#[test]
fn what_is_left_of_a_value_that_goes_is_not_taken_for_another() {
    let fields = r#"{"fields": {"parameter": "fields"}"#;
    let hides = r#"{"exclude": ["a"], "unreadable": "pass""#;
    let redacts = r#"{"redact": [{"key": "a"}], "unreadable": "pass""#;
    for (name, config, body, want, reason) in [
        (
            "too long, as a client asks",
            format!("{fields}, \"max_bytes\": 12}}"),
            r#"{"a":"0123456789","b":1}"#,
            "{",
            "stopped.too_large",
        ),
        (
            "too deep, as a client asks",
            format!("{fields}, \"max_depth\": 2}}"),
            r#"{"a":[[1]],"b":1}"#,
            "{",
            "invalid.depth",
        ),
        (
            "invalid, in what is hidden",
            format!("{hides}}}"),
            r#"{"b":1,"a":{"c":x},"b":1}"#,
            r#"{"b":1"#,
            "invalid.bad_literal",
        ),
        (
            "too long, in what is replaced",
            format!("{redacts}, \"max_bytes\": 12}}"),
            r#"{"a":"0123456789","b":1}"#,
            r#"{"a":"***""#,
            "stopped.too_large",
        ),
    ] {
        for at in 1..body.len() {
            let (first, second) = body.split_at(at);
            let asked = script(&config).get("/?fields=b");
            let seen = asked.origin_chunks(200, &[JSON], &[first, second]).run();
            assert!(seen.cut, "{name}");
            assert!(
                want.starts_with(&seen.body_text()),
                "{name}: {}",
                seen.body_text()
            );
            assert_eq!(seen.counted(&format!("minify.{reason}")), 1, "{name}");
            assert_eq!(seen.counted("minify.cut"), 1, "{name}");
        }
    }
    // Known as a whole, such a body passes as it came.
    let body = r#"{"a":[[1]],"b":1}"#;
    let asked = script(&format!("{fields}, \"max_depth\": 2}}")).get("/?fields=b");
    let seen = asked.origin(200, &[JSON], body).run();
    assert_eq!((seen.cut, seen.body_text().as_str()), (false, body));
    // So does what follows a value that went whole.
    for at in 8..r#"{"a":"0","#.len() {
        let config = format!("{fields}, \"max_bytes\": {at}}}");
        let body = r#"{"a":"0","b":[ 1 ]}"#;
        let asked = script(&config).get("/?fields=b");
        let seen = asked.origin_chunks(200, &[JSON], &[body]).run();
        assert_eq!(
            (seen.cut, seen.body_text().as_str()),
            (false, r#"{"b":[ 1 ]}"#)
        );
    }
}

#[test]
fn what_was_undone_is_not_counted() {
    for (config, body) in [
        (r#"{"drop_nulls": "members"}"#, r#"{"a":null,"b":1"#),
        (
            r#"{"redact": [{"key": "a"}], "unreadable": "pass"}"#,
            r#"{"a":"secr" "#,
        ),
        (r#"{"fields": {"parameter": "fields"}}"#, r#"{"a":"secr" "#),
    ] {
        let asked = script(config).get("/?fields=b");
        let seen = asked.origin(200, &[JSON], body).run();
        assert_eq!(seen.body_text(), body);
        assert_eq!(seen.counted("minify.invalid.truncated"), 1);
        for of in ["nulls_dropped", "members_dropped", "values_redacted"] {
            assert_eq!(seen.counted(&format!("minify.{of}")), 0, "{config}");
        }
    }
}

#[test]
fn nulls_alone_are_for_the_client_s_sake_and_nothing_is_refused() {
    let config = r#"{"drop_nulls": "members"}"#;
    let seen = ask(config, "/", &[("range", "bytes=0-1")], 200, &[JSON]);
    assert!(!seen.body_text().contains("note"));
    assert!(
        seen.upstream
            .expect("a request")
            .fields
            .changed()
            .is_empty()
    );
    let origin = &[JSON, ("content-encoding", "gzip")];
    assert_eq!(ask(config, "/", &[], 200, origin).status, 200);
    let invalid = r#"{ "a": null, x }"#;
    let seen = script(config).origin(200, &[JSON], invalid).run();
    assert_eq!(seen.body_text(), invalid);
    let seen = script(config).origin_chunks(200, &[JSON], &[invalid]).run();
    assert_eq!(seen.body_text(), "{x }");
}

#[test]
fn the_head_of_a_rewritten_response_is_true() {
    let config = r#"{"exclude": ["a"]}"#;
    let origin = &[
        JSON,
        ("etag", "\"v\""),
        ("accept-ranges", "bytes"),
        ("content-digest", "sha-256=:AA==:"),
    ];
    let seen = ask(config, "/", &[], 200, origin);
    assert_eq!(seen.text("etag"), "W/\"v\"");
    for gone in ["content-length", "accept-ranges", "content-digest"] {
        assert_eq!(seen.field(gone), None, "{gone}");
    }
    let mut script = script(config).origin(200, origin, USER);
    let head = script.request(&["HEAD", "/"], &[]).run();
    assert_eq!(
        (head.text("etag"), head.body().len()),
        ("W/\"v\"".to_owned(), 0)
    );
    assert_eq!(
        ask(config, "/", &[], 304, &[JSON, ("etag", "\"v\"")]).text("etag"),
        "W/\"v\""
    );
}

#[test]
fn of_a_trusted_origin_nothing_is_checked() {
    let trusting = r#"{"validate": false, "fields": {"parameter": "fields"}}"#;
    let without =
        r#"{"validate": false, "drop_nulls": "members", "fields": {"parameter": "fields"}}"#;
    let lines = ("content-type", "application/x-ndjson");
    for (path, kind, origin, want, counter) in [
        (
            "/",
            JSON,
            r#"{ "a b" : [ 1 , 2 ] }"#,
            r#"{"a b":[1,2]}"#,
            None,
        ),
        // No grammar is checked.
        ("/", JSON, r#"{ "a" : 1 2 }"#, r#"{"a":12}"#, None),
        (
            "/",
            JSON,
            "\n<p> no JSON </p>",
            "\n<p> no JSON </p>",
            Some("minify.invalid.unexpected_byte"),
        ),
        (
            "/",
            JSON,
            r#"[ "cut "#,
            r#"["cut "#,
            Some("minify.invalid.truncated"),
        ),
        // Lines, and what a client selects from, are read all the same.
        (
            "/",
            lines,
            "{ \"a\" : 1 }\n[ x ]\n",
            "{\"a\":1}\n[x ]\n",
            Some("minify.invalid.bad_literal"),
        ),
        (
            "/?fields=a",
            JSON,
            r#"{ "a" : 1 , "b" : 2 }"#,
            r#"{"a":1}"#,
            None,
        ),
    ] {
        for whole in [true, false] {
            let asked = script(trusting).get(path);
            let seen = match whole {
                true => asked.origin(200, &[kind], origin).run(),
                false => {
                    let (first, second) = origin.split_at(origin.len() / 2);
                    asked.origin_chunks(200, &[kind], &[first, second]).run()
                }
            };
            assert_eq!(seen.counted("minify.minified"), 1, "{origin}");
            if let Some(counter) = counter {
                assert_eq!(seen.counted(counter), 1, "{origin}");
            }
            if !(whole && kind == lines) {
                assert_eq!(seen.body_text(), want, "{origin}, whole: {whole}");
            }
        }
    }
    let origin = r#"{ "a" : null , "b" : [ null , { "c" : null } ] , "d" : 1 2 }"#;
    for at in 1..origin.len() {
        let (first, second) = origin.split_at(at);
        let asked = script(without).get("/");
        let seen = asked.origin_chunks(200, &[JSON], &[first, second]).run();
        assert_eq!(seen.body_text(), r#"{"b":[null,{}],"d":12}"#, "cut at {at}");
        assert_eq!(seen.counted("minify.nulls_dropped"), 2, "cut at {at}");
    }
    let asked = script(without).get("/?fields=b");
    let seen = asked.origin(200, &[JSON], &origin[..51]).run();
    assert_eq!(seen.counted("minify.invalid.truncated"), 1);
    for beside in [
        r#""exclude": ["a"]"#,
        r#""include": ["a"]"#,
        r#""redact": [{"key": "a"}]"#,
    ] {
        let config = format!(r#"{{"validate": false, {beside}}}"#);
        let error = load::<Minify>(config.as_bytes()).err().expect("refused");
        assert!(error.to_string().contains("validate"), "{error}");
    }
}
