//! Codings taken off: of requests, of responses, and put on anew.

use std::io::Read;

use edgeweir_compress::{Coding, Compress, Config, Plan};
use edgeweir_filter::{Configured, Script, Seen};

fn script(json: &str) -> Script {
    let config: Config = serde_json::from_str(json).expect(json);
    Script::new(Compress::new(config).expect(json))
}

fn text() -> String {
    "to be, or not to be, that is the question; ".repeat(60)
}

fn coded(coding: Coding, plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = Plan::new(coding, 4, 20, None).encoder();
    encoder.push(plain, true, &mut out).expect("codes");
    out
}

fn decoded(seen: &Seen) -> String {
    let body = seen.body();
    let mut text = String::new();
    match seen.text("content-encoding").as_str() {
        "gzip" => flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut text),
        "deflate" => flate2::read::ZlibDecoder::new(&body[..]).read_to_string(&mut text),
        "zstd" => zstd::Decoder::new(&body[..]).and_then(|mut it| it.read_to_string(&mut text)),
        "br" => brotli::Decompressor::new(&body[..], 4096).read_to_string(&mut text),
        _ => return seen.body_text(),
    }
    .expect("a whole body of the coding that the head names");
    text
}

const OFF: &str = "{}";
const CLIENT: &str = r#"{"decode": {"responses": "for_client"}}"#;
const BETTER: &str = r#"{"decode": {"responses": "for_client", "transcode": true}}"#;
const FILTERS: &str = r#"{"decode": {"responses": "for_filters"}}"#;

#[test]
fn responses_by_what_the_client_accepts() {
    for (name, config, accept, from, want, reason) in [
        ("off", OFF, Some("br"), "gzip", "gzip", "coded"),
        ("accepted", CLIENT, Some("gzip"), "gzip", "gzip", "coded"),
        (
            "not accepted: coded anew",
            CLIENT,
            Some("br"),
            "gzip",
            "br",
            "",
        ),
        (
            "nothing asked for",
            CLIENT,
            None,
            "gzip",
            "",
            "no_accept_encoding",
        ),
        (
            "nothing accepted",
            CLIENT,
            Some(""),
            "gzip",
            "",
            "not_acceptable",
        ),
        (
            "identity asked for",
            CLIENT,
            Some("identity"),
            "br",
            "",
            "not_acceptable",
        ),
        (
            "refused by name",
            CLIENT,
            Some("gzip;q=0, deflate"),
            "gzip",
            "deflate",
            "",
        ),
        (
            "neither it nor plain",
            CLIENT,
            Some("identity;q=0"),
            "gzip",
            "gzip",
            "coded",
        ),
        (
            "unknown",
            CLIENT,
            Some("gzip"),
            "compress",
            "compress",
            "coded",
        ),
        (
            "two",
            CLIENT,
            Some("br"),
            "gzip, gzip",
            "gzip, gzip",
            "coded",
        ),
        (
            "liked as much, ours goes before",
            BETTER,
            Some("gzip, br"),
            "gzip",
            "br",
            "",
        ),
        (
            "liked better",
            BETTER,
            Some("gzip;q=0.5, br"),
            "gzip",
            "br",
            "",
        ),
        (
            "zstd for brotli",
            BETTER,
            Some("zstd, gzip;q=0.1"),
            "br",
            "zstd",
            "",
        ),
        (
            "liked less",
            BETTER,
            Some("gzip, br;q=0.5"),
            "gzip",
            "gzip",
            "coded",
        ),
        (
            "the best already",
            BETTER,
            Some("gzip, br"),
            "br",
            "br",
            "coded",
        ),
        (
            "for filters",
            FILTERS,
            Some("gzip, br"),
            "gzip",
            "",
            "decoded",
        ),
        (
            "for filters, unknown",
            FILTERS,
            Some("gzip, br"),
            "compress",
            "compress",
            "coded",
        ),
    ] {
        let body = match from {
            "gzip" => coded(Coding::Gzip, text().as_bytes()),
            "br" => coded(Coding::Brotli, text().as_bytes()),
            _ => text().into_bytes(),
        };
        let length = body.len().to_string();
        let origin = [
            ("content-type", "text/plain"),
            ("content-encoding", from),
            ("content-length", &length),
            ("content-digest", "sha-256=:AAAA:"),
            ("etag", "\"a\""),
        ];
        let fields: Vec<(&str, &str)> = accept
            .map(|it| ("accept-encoding", it))
            .into_iter()
            .collect();
        let mut script = script(config);
        for (at, size) in [body.len(), 1, 70].into_iter().enumerate() {
            let pieces: Vec<&[u8]> = body.chunks(size).collect();
            script.answers(200, &origin, &pieces);
            let seen = script.request(&["GET", "/"], &fields).run();
            assert_eq!(seen.text("content-encoding"), want, "{name}");
            if !reason.is_empty() {
                let counter = format!("compress.skipped.{reason}");
                assert_eq!(seen.counted(&counter), 1, "{name}: {:?}", seen.record);
            }
            let changed = want != from;
            assert_eq!(seen.field("content-digest").is_none(), changed, "{name}");
            assert_eq!(seen.field("content-length").is_none(), changed, "{name}");
            assert_eq!(seen.text("etag").starts_with("W/"), changed, "{name}");
            if changed || ["gzip", "br"].contains(&from) {
                assert_eq!(decoded(&seen), text(), "{name} cut {at}");
            }
            let client = config.contains("for_client") && ["gzip", "br"].contains(&from);
            assert_eq!(seen.field("vary").is_some(), client, "{name}");
            let head = script.request(&["HEAD", "/"], &fields).run();
            for field in ["content-encoding", "etag", "vary", "content-length"] {
                assert_eq!(
                    head.text(field),
                    seen.text(field),
                    "{name}: HEAD has the head of GET"
                );
            }
        }
    }
}

#[test]
fn what_must_not_be_transformed_stays_coded() {
    let body = coded(Coding::Gzip, text().as_bytes());
    for (name, status, asks, says) in [
        (
            "no-transform",
            200,
            None,
            Some(("cache-control", "no-transform")),
        ),
        (
            "asked not to",
            200,
            Some(("cache-control", "no-transform")),
            None,
        ),
        (
            "a part",
            206,
            None,
            Some(("content-range", "bytes 0-9/100")),
        ),
    ] {
        let mut script = script(FILTERS);
        let mut lines = vec![("content-type", "text/plain"), ("content-encoding", "gzip")];
        lines.extend(says);
        script.answers(status, &lines, &[&body]);
        let asks: Vec<_> = asks.into_iter().collect();
        let seen = script.request(&["GET", "/"], &asks).run();
        assert_eq!(seen.text("content-encoding"), "gzip", "{name}");
        assert!(seen.body() == body, "{name}");
    }
}

#[test]
fn a_response_that_does_not_decode_is_cut_and_counted() {
    let body = coded(Coding::Gzip, text().as_bytes());
    let bomb = coded(Coding::Gzip, &vec![0; 8 << 20]);
    let half = &body[..body.len() / 2];
    for (name, bytes) in [
        ("corrupt", &b"not gzip at all, but text"[..]),
        ("truncated", half),
        ("bomb", &bomb),
    ] {
        for config in [FILTERS, CLIENT] {
            let mut script = script(config);
            let lines = [("content-type", "text/plain"), ("content-encoding", "gzip")];
            script.answers(200, &lines, &bytes.chunks(1000).collect::<Vec<_>>());
            let seen = script
                .request(&["GET", "/"], &[("accept-encoding", "br")])
                .run();
            assert!(seen.cut, "{name}: it must not pass for a whole one");
            let counter = format!("compress.undecodable.{name}");
            assert_eq!(seen.counted(&counter), 1, "{name}: {:?}", seen.record);
        }
    }
}

#[test]
fn trailers_of_a_decoded_response_have_no_digests() {
    let mut script = script(FILTERS);
    let body = coded(Coding::Gzip, text().as_bytes());
    let lines = [("content-type", "text/plain"), ("content-encoding", "gzip")];
    script.answers(200, &lines, &[&body]);
    script.trailers(&[("content-digest", "sha-256=:AAAA:"), ("x", "y")]);
    let seen = script.request(&["GET", "/"], &[]).run();
    let trailers = seen.trailers.as_ref().expect("a trailer section");
    assert!(trailers.has("x") && !trailers.has("content-digest"));
    assert_eq!(seen.body_text(), text());
}

#[test]
fn requests_are_decoded_for_the_origin() {
    let on = r#"{"decode": {"requests": true}}"#;
    let strict = r#"{"decode": {"requests": true, "refuse_unknown": true}}"#;
    for (name, config, coding, status) in [
        ("gzip", on, "gzip", 200),
        ("its old name", on, "x-gzip", 200),
        ("br", on, "br", 200),
        ("deflate", on, "deflate", 200),
        ("zstd", on, "zstd", 200),
        ("plain", strict, "identity", 200),
        ("unknown goes on", on, "compress", 200),
        ("two go on", on, "gzip, gzip", 200),
        ("off", OFF, "gzip", 200),
        ("unknown, refused", strict, "compress", 415),
        ("two, refused", strict, "gzip, gzip", 415),
    ] {
        let of = match coding {
            "gzip" | "x-gzip" => Some(Coding::Gzip),
            "br" => Some(Coding::Brotli),
            "deflate" => Some(Coding::Deflate),
            "zstd" => Some(Coding::Zstd),
            _ => None,
        };
        let body = of.map_or_else(|| text().into_bytes(), |it| coded(it, text().as_bytes()));
        let length = body.len().to_string();
        let fields = [
            ("content-encoding", coding),
            ("content-length", &length),
            ("content-digest", "sha-256=:AAAA:"),
        ];
        let mut script = script(config);
        let pieces: Vec<&[u8]> = body.chunks(33).collect();
        let seen = script
            .request(&["POST", "/"], &fields)
            .request_body(&pieces)
            .run();
        assert_eq!(seen.status, status, "{name}");
        let Some(upstream) = &seen.upstream else {
            // RFC 9110 §15.5.16, §12.5.3: what would have been taken.
            assert_eq!(
                (status, seen.text("accept-encoding").contains("gzip")),
                (415, true),
                "{name}"
            );
            continue;
        };
        let changed = of.is_some() && config != OFF;
        for field in ["content-encoding", "content-length", "content-digest"] {
            assert_eq!(upstream.fields.has(field), !changed, "{name}: {field}");
        }
        let want = if changed { text().into_bytes() } else { body };
        assert!(seen.upstream_body == want, "{name}");
    }
}

#[test]
fn trailers_of_a_decoded_request_have_no_digests() {
    let body = coded(Coding::Gzip, text().as_bytes());
    for (config, kept) in [(r#"{"decode": {"requests": true}}"#, false), (OFF, true)] {
        let mut script = script(config);
        script.request_trailers(&[("content-digest", "sha-256=:AAAA:"), ("a", "b")]);
        let seen = script
            .request(&["PUT", "/"], &[("content-encoding", "gzip")])
            .request_body(&[&body])
            .run();
        let trailers = seen.upstream_trailers.expect("a trailer section");
        assert_eq!(trailers.has("content-digest"), kept);
        assert!(trailers.has("a"));
    }
}

/// RFC 9110 §14.5: its bytes are positions of the representation as the client knows it.
#[test]
fn a_partial_put_is_left_alone() {
    let part = &coded(Coding::Gzip, text().as_bytes())[..20];
    let fields = [
        ("content-encoding", "gzip"),
        ("content-range", "bytes 0-19/54"),
    ];
    let seen = script(r#"{"decode": {"requests": true}}"#)
        .request(&["PUT", "/"], &fields)
        .request_body(&[part])
        .run();
    let upstream = seen.upstream.as_ref().expect("a request upstream");
    assert!(upstream.fields.changed().is_empty());
    assert_eq!(seen.upstream_body, part);
}

#[test]
fn requests_that_do_not_decode_are_refused() {
    let body = coded(Coding::Gzip, text().as_bytes());
    let bomb = coded(Coding::Gzip, &vec![0; 8 << 20]);
    let half = &body[..body.len() / 2];
    for (name, bytes, status) in [
        ("corrupt", &b"not gzip at all, but text"[..], 400),
        ("truncated", half, 400),
        ("bomb", &bomb, 413),
    ] {
        let mut script = script(r#"{"decode": {"requests": true}}"#);
        let pieces: Vec<&[u8]> = bytes.chunks(1000).collect();
        let fields = [("content-encoding", "gzip")];
        let seen = script
            .request(&["POST", "/"], &fields)
            .request_body(&pieces)
            .run();
        assert_eq!((seen.status, seen.cut), (status, true), "{name}");
        assert!(seen.upstream.is_none(), "{name}");
        assert_eq!(
            seen.counted(&format!("compress.undecodable.{name}")),
            1,
            "{name}"
        );
    }
}

#[test]
fn a_304_of_what_is_decoded_has_the_weak_tag() {
    let mut script = script(CLIENT);
    for (held, want) in [("W/\"a\"", "W/\"a\""), ("\"a\"", "\"a\"")] {
        script.answers(304, &[("etag", "\"a\"")], &[]);
        let seen = script
            .request(&["GET", "/"], &[("if-none-match", held)])
            .run();
        assert_eq!(seen.text("etag"), want);
    }
}
