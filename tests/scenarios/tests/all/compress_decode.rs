//! Codings taken off and put on anew, and shared dictionaries.

use std::io::{Read as _, Write as _};

use edgeweir_compress::Dictionary;
use edgeweir_scenarios::{Host, Origin, Setup, cache, compress, get, on_each_host, request};
use serde_json::json;

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut coder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    coder.write_all(plain).expect("codes");
    coder.finish().expect("codes")
}

on_each_host!(
    requests_reach_the_origin_plain,
    [compress(
        json!({ "decode": { "requests": true, "refuse_unknown": true } })
    )],
    |edge| {
        let body = super::document(200_000);
        let coded = gzip(body.as_bytes());
        let pieces: Vec<&[u8]> = coded.chunks(1_000).collect();
        for asks in [
            request("POST", "/a").pieces(&pieces),
            request("POST", "/a").pieces(&pieces).chunked(),
            request("PUT", "/a").body(&coded),
        ] {
            let asks = asks
                .field("content-encoding", "gzip")
                .field("content-digest", "sha-256=:AAAA:");
            let seen = edge.send(&asks, &Origin::text("taken"));
            assert_eq!((seen.status, seen.body_text().as_str()), (200, "taken"));
            let asked = seen.asked();
            assert!(asked.body == body.as_bytes(), "{} bytes", asked.body.len());
            assert_eq!(asked.text("content-encoding"), "");
            assert_eq!(asked.text("content-digest"), "");
        }
        let plain = request("POST", "/a").body(&body);
        let seen = edge.send(&plain, &Origin::text("taken"));
        assert!(seen.asked().body == body.as_bytes());
        let unknown = request("POST", "/a")
            .field("content-encoding", "compress")
            .body(&coded);
        let seen = edge.send(&unknown, &Origin::text("taken"));
        assert_eq!(seen.status, 415);
        assert!(seen.text("accept-encoding").contains("gzip"));
    }
);

on_each_host!(
    a_request_that_does_not_decode_is_not_taken_for_whole,
    [compress(json!({ "decode": { "requests": true } }))],
    |edge| {
        let good = gzip(super::document(100_000).as_bytes());
        let bomb = gzip(&vec![0; 30_000_000]);
        let corrupt = [&good[..good.len() / 2], &[0; 1000]].concat();
        for (name, body, status) in [
            ("a bomb", &bomb[..], 413),
            ("corrupt", &corrupt, 400),
            ("cut", &good[..good.len() - 9], 400),
        ] {
            let asks = request("POST", "/a").field("content-encoding", "gzip");
            let asks = asks.pieces(body.chunks(4_000)).chunked();
            // Where the origin has the head already, the connection to the client may end without a word.
            match edge.try_send(&asks, &Origin::text("taken")) {
                Ok(seen) => assert_eq!(seen.status, status, "{name}"),
                Err(error) => panic!("{name}: {error}"),
            }
            let seen = edge.send(&get("/a"), &Origin::text("still here"));
            assert_eq!(seen.body_text(), "still here", "after {name}");
        }
    }
);

fn for_client() -> Setup {
    let decode = json!({ "responses": "for_client", "transcode": true, "max_ratio": 1100 });
    Setup::of([compress(json!({ "decode": decode }))])
}

on_each_host!(a_client_gets_what_it_accepts, for_client(), |edge| {
    let body = super::document(300_000);
    let coded = gzip(body.as_bytes());
    for origin in [
        Origin::json(&coded),
        Origin::json("").cut_into(&coded, 700).chunked(),
        Origin::json(&coded).until_close(),
    ] {
        let origin = origin
            .field("content-encoding", "gzip")
            .field("etag", "\"1\"");
        for (accepts, coding) in [
            ("gzip", "gzip"),
            ("identity", ""),
            ("", ""),
            ("br", "br"),
            ("gzip, br", "br"),
            ("zstd", "zstd"),
        ] {
            let seen = edge.send(&get("/a").field("accept-encoding", accepts), &origin);
            assert_eq!(seen.text("content-encoding"), coding, "{accepts}");
            assert!(
                seen.complete && seen.decoded() == body.as_bytes(),
                "{accepts}"
            );
            let tag = if coding == "gzip" { "\"1\"" } else { "W/\"1\"" };
            assert_eq!(seen.text("etag"), tag, "{accepts}");
            assert!(seen.has("vary"), "{accepts}");
        }
    }
});

on_each_host!(
    what_grows_a_thousandfold_from_an_http2_origin_arrives_whole,
    for_client().http2_origin(),
    |edge| {
        // The first pieces of such a body may be held back for trailers, of which nothing is known yet.
        let body = "0123456789abcdef".repeat(300_000);
        let coded = gzip(body.as_bytes());
        for size in [300, 1_000, 5_000, coded.len()] {
            let origin = Origin::json("").cut_into(&coded, size).chunked();
            let origin = origin.field("content-encoding", "gzip");
            let seen = edge.send(&get("/a").field("accept-encoding", "identity"), &origin);
            assert_eq!(seen.text("content-encoding"), "", "{size}");
            assert!(
                seen.complete && seen.body == body.as_bytes(),
                "{size}: {} bytes",
                seen.body.len()
            );
            let seen = edge.send(&get("/a"), &Origin::text("still here"));
            assert_eq!(seen.body_text(), "still here", "{size}");
        }
    }
);

on_each_host!(
    a_response_that_does_not_decode_has_no_end,
    [compress(
        json!({ "decode": { "responses": "for_filters" } })
    )],
    |edge| {
        let good = gzip(super::document(100_000).as_bytes());
        let bomb = gzip(&vec![0; 30_000_000]);
        let corrupt = [&good[..good.len() / 2], &[0; 1000]].concat();
        for (name, body) in [
            ("a bomb", &bomb[..]),
            ("corrupt", &corrupt),
            ("cut", &good[..good.len() - 9]),
        ] {
            for origin in [
                Origin::json(body),
                Origin::json("").cut_into(body, 2_000).chunked(),
            ] {
                let origin = origin.field("content-encoding", "gzip");
                if let Ok(seen) = edge.try_send(&get("/a"), &origin) {
                    let broken = !seen.complete || seen.status >= 500;
                    assert!(
                        broken || edge.host() == Host::Pure,
                        "{name} came as a whole one"
                    );
                }
            }
        }
    }
);

fn behind_a_cache() -> Setup {
    let decode = json!({ "decode": { "responses": "for_filters" } });
    Setup::of([cache(json!({})), compress(decode)])
}

on_each_host!(
    half_a_decoded_response_is_not_stored,
    behind_a_cache(),
    |edge| {
        let good = gzip(super::document(100_000).as_bytes());
        let half = Origin::json(&good[..good.len() / 2])
            .field("content-encoding", "gzip")
            .field("cache-control", "max-age=600");
        for _ in 0..3 {
            if let Ok(seen) = edge.try_send(&get("/a"), &half) {
                assert_eq!(seen.upstream.len(), 1, "it was answered from what was cut");
            }
        }
        let whole = Origin::json(&good)
            .field("content-encoding", "gzip")
            .field("cache-control", "max-age=600");
        let seen = edge.send(&get("/a"), &whole);
        assert!(seen.decoded() == super::document(100_000).as_bytes());
    }
);

on_each_host!(
    the_next_version_comes_as_its_difference,
    [compress(json!({ "dictionaries": { "plain_http": true } }))],
    |edge| {
        let version = |number: u32| {
            let mut text = super::document(60_000);
            text.push_str(&format!("{{\"version\": {number}}}"));
            text
        };
        let (first, second) = (version(1), version(2));
        let pattern = format!("match=\"{}\"", edge.path("/app.*.js"));
        let teaches = Origin::ok("text/javascript", &first)
            .field("cache-control", "max-age=600")
            .field("use-as-dictionary", pattern);
        let dictionary = Dictionary::new(first.clone().into_bytes());
        let asks = get("/app.2.js")
            .field("accept-encoding", "gzip, br, dcb")
            .field(
                "available-dictionary",
                format!(":{}:", base64(dictionary.sha256())),
            );
        let mut shared = 0;
        // Each worker or instance has its own: who asks may reach one that has not seen it.
        for _ in 0..12 {
            let seen = edge.send(&get("/app.1.js").field("accept-encoding", "br"), &teaches);
            assert!(seen.decoded() == first.as_bytes());
            // Twice, lest two that take turns never meet.
            edge.send(&asks, &Origin::ok("text/javascript", &second));
            let seen = edge.send(&asks, &Origin::ok("text/javascript", &second));
            if seen.text("content-encoding") != "dcb" {
                assert!(seen.decoded() == second.as_bytes());
                continue;
            }
            shared += 1;
            assert!(
                seen.text("vary")
                    .to_ascii_lowercase()
                    .contains("available-dictionary")
            );
            assert!(seen.body.len() < 400, "{} bytes", seen.body.len());
            let mut decoder = brotli::Decompressor::new(&seen.body[36..], 4096);
            assert!(decoder.attach_dictionary(first.clone().into_bytes().into()));
            let mut text = Vec::new();
            decoder.read_to_end(&mut text).expect("decodes");
            assert!(text == second.as_bytes());
        }
        assert!(shared > 0, "it was never used");
    }
);

on_each_host!(
    a_log_that_grew_comes_as_its_difference,
    [compress(
        json!({ "dictionaries": { "plain_http": true }, "breach": "off" })
    )],
    |edge| {
        let line = |at: usize| {
            let (user, path) = (at * 7919 % 9000 + 1000, at * 104_729 % 100_000);
            format!(
                "{{\"time\":\"2026-11-{:02}T{:02}:00:00Z\",\"user\":{user},\"path\":\"/a/{path}\"}}\n",
                at % 28 + 1,
                at % 24
            )
        };
        let log = |lines| (0..lines).map(line).collect::<String>();
        let (first, second) = (log(800), log(1000));
        let teaches = Origin::ok("application/x-ndjson", &first)
            .field("cache-control", "max-age=600")
            .field(
                "use-as-dictionary",
                format!("match=\"{}\"", edge.path("/log*")),
            );
        let hash = *Dictionary::new(first.clone().into_bytes()).sha256();
        let asks = get("/log?2")
            .field("accept-encoding", "br, dcb")
            .field("available-dictionary", format!(":{}:", base64(&hash)));
        let mut shared = 0;
        for _ in 0..12 {
            edge.send(&get("/log?1").field("accept-encoding", "br"), &teaches);
            for _ in 0..2 {
                let seen = edge.send(&asks, &Origin::ok("application/x-ndjson", &second));
                if seen.text("content-encoding") != "dcb" {
                    continue;
                }
                shared += 1;
                // As browsers do, it refuses a copy that goes on after the dictionary's end.
                let mut decoder = brotli::Decompressor::new(&seen.body[36..], 4096);
                assert!(decoder.attach_dictionary(first.clone().into_bytes().into()));
                let mut text = Vec::new();
                decoder.read_to_end(&mut text).expect("decodes");
                assert!(text == second.as_bytes());
            }
        }
        assert!(shared > 0, "it was never used");
    }
);

on_each_host!(zstd_with_empty_blocks_is_read, for_client(), |edge| {
    // RFC 8878 §3.1.1.2: raw blocks of 5,000 bytes, repetitions of none and no literals between them; the last is empty.
    let body = super::document(20_000);
    let mut coded = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 7 << 3];
    for part in body.as_bytes().chunks(5_000) {
        let header = (part.len() as u32) << 3;
        coded.extend(&header.to_le_bytes()[..3]);
        coded.extend(part);
        coded.extend([2, 0, 0, b'a', 0, 0, 0, 4 | 2 << 3, 0, 0, 0, 0]);
    }
    coded.extend([3, 0, 0, b'a']);
    for origin in [
        Origin::json(&coded),
        Origin::json("").cut_into(&coded, 700).chunked(),
    ] {
        let origin = origin.field("content-encoding", "zstd");
        let seen = edge.send(&get("/a"), &origin);
        assert_eq!((seen.status, &*seen.text("content-encoding")), (200, ""));
        assert!(seen.body == body.as_bytes(), "{} bytes", seen.body.len());
    }
});

fn cached_dictionaries() -> Setup {
    let dictionaries = json!({ "dictionaries": { "plain_http": true } });
    Setup::of([cache(json!({})), compress(dictionaries)])
}

on_each_host!(
    a_cache_keeps_apart_who_has_the_dictionary,
    cached_dictionaries(),
    |edge| {
        let (first, second) = (super::document(40_000), super::document(41_000));
        let teaches = Origin::ok("text/javascript", &first)
            .field("cache-control", "max-age=600")
            .field(
                "use-as-dictionary",
                format!("match=\"{}\"", edge.path("/app.*")),
            );
        let answers = Origin::ok("text/javascript", &second).field("cache-control", "max-age=600");
        let hash = *Dictionary::new(first.clone().into_bytes()).sha256();
        let has = format!(":{}:", base64(&hash));
        for at in 0..8 {
            // A path of its own each time: what is stored would not pass the compressor again.
            edge.send(
                &get(&format!("/app.first{at}")).field("accept-encoding", "br"),
                &teaches,
            );
            let path = format!("/app.second{at}");
            let accepts = |coding| get(&path).field("accept-encoding", coding);
            for _ in 0..3 {
                let asks = accepts("br, dcb").field("available-dictionary", &has);
                let seen = edge.send(&asks, &answers);
                assert!(["br", "dcb"].contains(&&*seen.text("content-encoding")));
                for asks in [
                    accepts("br"),
                    accepts("br, dcb"),
                    accepts("br").field("available-dictionary", &has),
                    accepts("br, dcb").field("available-dictionary", ":AAAA:"),
                ] {
                    let seen = edge.send(&asks, &answers);
                    assert_eq!(seen.text("content-encoding"), "br");
                    assert!(seen.decoded() == second.as_bytes());
                }
            }
        }
    }
);

on_each_host!(
    a_cache_keeps_dictionaries_from_other_sites,
    cached_dictionaries(),
    |edge| {
        let (first, second) = (super::document(40_000), super::document(41_000));
        let teaches = Origin::ok("text/javascript", &first)
            .field("cache-control", "max-age=600")
            .field(
                "use-as-dictionary",
                format!("match=\"{}\"", edge.path("/app.*")),
            );
        let answers = Origin::ok("text/javascript", &second).field("cache-control", "max-age=600");
        let hash = *Dictionary::new(first.clone().into_bytes()).sha256();
        let has = format!(":{}:", base64(&hash));
        let mut used = 0;
        for at in 0..8 {
            // Each worker or instance has its own dictionaries: several pass by, so that who is asked has seen one.
            for teach in 0..4 {
                let path = format!("/app.first{at}-{teach}");
                edge.send(&get(&path).field("accept-encoding", "br"), &teaches);
            }
            let path = format!("/app.second{at}");
            let asks = |site, mode| {
                get(&path)
                    .field("accept-encoding", "br, dcb")
                    .field("available-dictionary", &has)
                    .field("sec-fetch-site", site)
                    .field("sec-fetch-mode", mode)
            };
            for _ in 0..2 {
                let seen = edge.send(&asks("same-origin", "no-cors"), &answers);
                used += usize::from(seen.text("content-encoding") == "dcb");
                for (site, mode) in [
                    ("cross-site", "no-cors"),
                    ("same-site", "no-cors"),
                    ("cross-site", "cors"),
                ] {
                    let seen = edge.send(&asks(site, mode), &answers);
                    assert_eq!(seen.text("content-encoding"), "br", "{site} {mode}");
                    assert!(seen.decoded() == second.as_bytes());
                }
            }
        }
        assert!(used > 0, "no response was coded with a dictionary");
    }
);

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let of = |chunk: &[u8]| {
        let bits = chunk
            .iter()
            .fold(0_u32, |bits, byte| (bits << 8) | u32::from(*byte));
        let bits = bits << (8 * (3 - chunk.len()));
        let digit = |at: usize| match at > chunk.len() {
            true => '=',
            false => DIGITS[(bits >> (18 - 6 * at)) as usize % 64] as char,
        };
        (0..4).map(digit).collect::<String>()
    };
    bytes.chunks(3).map(of).collect()
}
