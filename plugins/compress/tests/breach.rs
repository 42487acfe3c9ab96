//! What an attacker learns from lengths, with and without padding (BREACH: Gluck, Harris, Prado 2013).

use std::io::Read;

use edgeweir_compress::{Breach, Compress, Config, Cookies};
use edgeweir_filter::{Configured, Script, Seen};

fn script(change: impl FnOnce(&mut Config)) -> Script {
    let mut config = Config {
        min_bytes: Some(1),
        max_ratio_percent: Some(100),
        ..Config::default()
    };
    change(&mut config);
    Script::new(Compress::new(config).expect("a good configuration"))
}

/// A page with a secret that also shows what was asked for.
fn page(guess: &str) -> String {
    format!(
        "<p>Results for {guess}</p><form><input name=token value=7c1f0ad9e35b></form>{}",
        "<li>an item of a list</li>".repeat(20)
    )
}

const RIGHT: &str = "name=token value=7c1f0ad9e3";
const WRONG: &str = "name=token value=7c1f#x@~!Q";

fn ask(script: &mut Script, guess: &str, coding: &str, origin: &[(&str, &str)]) -> Seen {
    let body = page(guess);
    let lines = [&[("content-type", "text/html")], origin].concat();
    script.answers(200, &lines, &[body.as_bytes()]);
    let seen = script
        .request(&["GET", "/search"], &[("accept-encoding", coding)])
        .run();
    assert_eq!(seen.text("content-encoding"), coding);
    let (mut plain, coded) = (String::new(), seen.body());
    match coding {
        "gzip" => flate2::read::GzDecoder::new(&coded[..]).read_to_string(&mut plain),
        "zstd" => zstd::Decoder::new(&coded[..]).and_then(|mut it| it.read_to_string(&mut plain)),
        "deflate" => flate2::read::ZlibDecoder::new(&coded[..]).read_to_string(&mut plain),
        _ => brotli::Decompressor::new(&coded[..], 4096).read_to_string(&mut plain),
    }
    .expect("padded bodies decode");
    assert_eq!(plain, body);
    seen
}

#[test]
fn one_request_tells_a_right_guess_and_with_padding_it_does_not() {
    let cookie = [("set-cookie", "session=1")];
    for coding in ["gzip", "deflate", "br", "zstd"] {
        let mut open = script(|config| config.breach = Breach::Off);
        let lengths =
            [RIGHT, WRONG].map(|guess| ask(&mut open, guess, coding, &cookie).body().len());
        assert!(
            lengths[0] < lengths[1],
            "{coding}: the oracle is there: {lengths:?}"
        );

        let mut padded = script(|_| ());
        let (mut told, rounds) = (0, 400);
        for _ in 0..rounds {
            let [right, wrong] =
                [RIGHT, WRONG].map(|guess| ask(&mut padded, guess, coding, &cookie).body().len());
            told += usize::from(right < wrong) * 2 + usize::from(right == wrong);
        }
        // Guessing tells half of them; the difference is some bytes here, the padding up to 128.
        let percent = told * 50 / rounds;
        assert!(
            (35..75).contains(&percent),
            "{coding}: {percent} % told right"
        );
    }
}

#[test]
fn who_gets_padding_and_who_is_not_coded() {
    let cookie = ("cookie", "session=1");
    let sets = ("set-cookie", "session=1");
    let rule = r#"{"rules": [{"path": "/account/*", "breach": "skip"}, {"path": "/pages/*", "breach": "off"}]}"#;
    let skip = r#"{"breach": "skip"}"#;
    let any = r#"{"breach_cookies": "any"}"#;
    let off = r#"{"breach": "off"}"#;
    for (name, config, path, request, response, want) in [
        ("nothing to hide", "{}", "/", None, None, "coded"),
        ("sets a cookie", "{}", "/", None, Some(sets), "padded"),
        (
            "has one, not asked about",
            "{}",
            "/",
            Some(cookie),
            None,
            "coded",
        ),
        ("has one", any, "/", Some(cookie), None, "padded"),
        (
            "logged in",
            any,
            "/",
            Some(("authorization", "Basic eDp5")),
            None,
            "padded",
        ),
        ("not coded", skip, "/", None, Some(sets), "skipped"),
        ("coded without a cookie", skip, "/", None, None, "coded"),
        ("turned off", off, "/", None, Some(sets), "coded"),
        (
            "a path of its own",
            rule,
            "/account/1",
            None,
            None,
            "skipped without vary",
        ),
        (
            "a path without secrets",
            rule,
            "/pages/1",
            None,
            Some(sets),
            "coded",
        ),
        ("another path", rule, "/", None, Some(sets), "padded"),
    ] {
        let config: Config = serde_json::from_str(config).expect(name);
        let mut script = Script::new(Compress::new(config).expect(name));
        let mut asks = vec![("accept-encoding", "br")];
        asks.extend(request);
        let mut lines = vec![("content-type", "text/html"), ("etag", "\"a\"")];
        lines.extend(response);
        script.answers(200, &lines, &[page("").as_bytes()]);
        let seen = script.request(&["GET", path], &asks).run();
        let padding = seen.counted("compress.padding_bytes");
        let got = match (seen.text("content-encoding").as_str(), padding) {
            ("br", 0) => "coded",
            ("br", 9..=128) => "padded",
            ("", 0) if seen.field("vary").is_none() => "skipped without vary",
            ("", 0) => "skipped",
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(got, want, "{name}");
        let skipped = seen.counted("compress.skipped.breach");
        assert_eq!(skipped, u64::from(want.starts_with("skipped")), "{name}");
    }
}

#[test]
fn the_strongest_claims_are_not_made_of_padded_bytes() {
    let mut script = script(|config| {
        config.etag = edgeweir_compress::Etags::Suffix;
        config.breach_cookies = Cookies::Any;
    });
    let tag = [("etag", "\"a\"")];
    let plain = ask(&mut script, RIGHT, "gzip", &tag);
    assert_eq!(plain.text("etag"), "\"a-gzip\"");
    let padded = ask(&mut script, RIGHT, "gzip", &[tag[0], ("set-cookie", "a=b")]);
    assert_eq!(
        padded.text("etag"),
        "W/\"a\"",
        "equal content, other bytes each time"
    );
}
