//! Whatever the fields say and however the body is cut: nothing panics, and what arrives decodes to what was sent.

use std::io::Read;

use edgeweir_compress::{Coding, Compress, Config, Plan};
use edgeweir_filter::{Configured, Script};
use proptest::prelude::*;

const CONFIG: &str = r#"{
    "min_bytes": 1, "etag": "suffix", "server_timing": true, "breach_cookies": "any",
    "decode": { "requests": true, "responses": "for_client", "transcode": true }
}"#;

fn script() -> Script {
    let config: Config = serde_json::from_str(CONFIG).expect("a configuration");
    Script::new(Compress::new(config).expect("a good configuration"))
}

/// Text that is nearly a field value of ours, or none at all.
fn value() -> impl Strategy<Value = String> {
    let parts = prop::sample::select(vec![
        "gzip",
        "br",
        "deflate",
        "identity",
        "x-gzip",
        "dcb",
        "*",
        "q=0.5",
        "q=0",
        ";",
        ",",
        "=",
        "\"",
        "W/",
        "\"a\"",
        "\"a-gzip\"",
        "match=",
        "\"/js/*\"",
        "(",
        ")",
        ":AAAA:",
        "id=",
        "type=raw",
        " ",
        "\\",
        "/*",
        "\u{e9}",
        "bytes=0-",
    ]);
    prop::collection::vec(parts, 0..12).prop_map(|parts| parts.concat())
}

fn decoded(coding: &str, body: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    let read = match coding {
        "gzip" => flate2::read::GzDecoder::new(body).read_to_end(&mut plain),
        "deflate" => flate2::read::ZlibDecoder::new(body).read_to_end(&mut plain),
        "br" => brotli::Decompressor::new(body, 4096).read_to_end(&mut plain),
        "zstd" => zstd::Decoder::new(body).and_then(|mut it| it.read_to_end(&mut plain)),
        "" => return Some(body.to_vec()),
        _ => return None,
    };
    read.ok().map(|_| plain)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn hostile_fields_harm_nobody(
        asks in prop::collection::vec((prop::sample::select(vec![
            "accept-encoding", "if-none-match", "if-match", "if-range", "available-dictionary", "dictionary-id",
            "content-encoding", "cache-control", "cookie",
        ]), value()), 0..6),
        says in prop::collection::vec((prop::sample::select(vec![
            "etag", "vary", "use-as-dictionary", "cache-control", "age", "content-length", "server-timing", "set-cookie",
            "content-type",
        ]), value()), 0..6),
        status in prop::sample::select(vec![200_u16, 204, 206, 304, 404]),
        body in prop::collection::vec(any::<u8>(), 0..3000),
        size in 1..800_usize,
    ) {
        let mut script = script();
        let mut lines = vec![("content-type", "text/plain"), ("cache-control", "max-age=60")];
        lines.extend(says.iter().map(|(name, value)| (*name, value.as_str())));
        let asks: Vec<_> = asks.iter().map(|(name, value)| (*name, value.as_str())).collect();
        for method in ["GET", "HEAD", "POST", "GET"] {
            script.answers(status, &lines, &body.chunks(size).collect::<Vec<_>>());
            let seen = script.request(&[method, "/js/a"], &asks).request_body(&[&body]).run();
            prop_assert!(seen.status >= 200);
            if method == "GET" && status == 200 && seen.upstream.is_some() && !seen.cut {
                let plain = decoded(&seen.text("content-encoding"), &seen.body());
                prop_assert!(plain.is_none_or(|plain| plain == body));
            }
        }
    }

    #[test]
    fn what_is_coded_anew_is_the_same_content(
        text in "[a-f ]{1,4000}",
        from in prop::sample::select(Coding::ALL.to_vec()),
        accepts in prop::sample::select(vec!["", "gzip", "br", "deflate", "gzip, br", "identity", "zstd"]),
        cookie in any::<bool>(),
        size in 1..500_usize,
    ) {
        let mut coded = Vec::new();
        let mut encoder = Plan::new(from, 4, 20, None).encoder();
        encoder.push(text.as_bytes(), true, &mut coded).expect("codes");
        let mut lines = vec![("content-type", "text/plain"), ("content-encoding", from.token())];
        if cookie {
            lines.push(("set-cookie", "a=b"));
        }
        let mut script = script();
        script.answers(200, &lines, &coded.chunks(size).collect::<Vec<_>>());
        let seen = script.request(&["GET", "/"], &[("accept-encoding", accepts)]).run();
        let coding = seen.text("content-encoding");
        prop_assert!(coding.is_empty() || accepts.contains(&coding), "{coding} for {accepts}");
        prop_assert_eq!(decoded(&coding, &seen.body()), Some(text.into_bytes()));
    }
}
