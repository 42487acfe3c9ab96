//! Shared dictionaries (RFC 9842): from a response that is one to another that is coded with it.

use std::io::Read;
use std::time::Duration;

use edgeweir_compress::{Compress, Config, Dictionary};
use edgeweir_filter::{Body, Chain, Configured, Cx, Exchange, Filter, ResponseHead, Script};
use edgeweir_filter::{Seen, Step, representation};

fn script(json: &str) -> Script {
    let config: Config = serde_json::from_str(json).expect(json);
    Script::new(Compress::new(config).expect(json))
}

/// A bundle: versions differ in some of their lines.
fn bundle(version: u64) -> String {
    let line = |at: u64| {
        let changed = if at.is_multiple_of(40) { version } else { 0 };
        let name = (at * 2_654_435_761 + changed * 97) % 1_000_003;
        format!(
            "function f{name}(a, b) {{ return a * {} + b.k{}; }}\n",
            name % 9973,
            name * 31 % 7919
        )
    };
    (0..1500).map(line).collect()
}

type Lines<'a> = &'a [(&'a str, &'a str)];

const SCRIPT: (&str, &str) = ("content-type", "text/javascript");
const FRESH: (&str, &str) = ("cache-control", "public, max-age=3600");
const USE: (&str, &str) = ("use-as-dictionary", "match=\"/js/app.*.js\"");

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let of = |chunk: &[u8]| {
        let bits = chunk
            .iter()
            .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        let digit = |at: usize| DIGITS[(bits >> (18 - 6 * at)) as usize % 64] as char;
        (0..4)
            .map(|at| if at > chunk.len() { '=' } else { digit(at) })
            .collect::<String>()
    };
    bytes.chunks(3).map(of).collect()
}

fn available(body: &str) -> String {
    format!(":{}:", base64(Dictionary::new(body.into()).sha256()))
}

/// The origin's version 1 passes by, with these fields.
fn teach(script: &mut Script, request: Lines<'_>, fields: Lines<'_>) -> Seen {
    let body = bundle(1);
    script.answers(
        200,
        fields,
        &body.as_bytes().chunks(5000).collect::<Vec<_>>(),
    );
    let asks = [&[("accept-encoding", "br")], request].concat();
    let seen = script.request(&["GET", "/js/app.1.js"], &asks).run();
    assert_eq!(
        seen.text("content-encoding"),
        "br",
        "the dictionary itself is coded as ever"
    );
    seen
}

/// A client with version 1 asks for version 2; what `more` says counts instead of what it would say.
fn ask(script: &mut Script, line: &[&str], more: Lines<'_>) -> Seen {
    script.answers(200, &[SCRIPT, ("etag", "\"2\"")], &[bundle(2).as_bytes()]);
    let has = available(&bundle(1));
    let usual = [
        ("accept-encoding", "gzip, br, dcb"),
        ("available-dictionary", has.as_str()),
    ];
    let other = |field: &&(&str, &str)| more.iter().all(|(name, _)| *name != field.0);
    let asks: Vec<_> = usual.iter().filter(other).chain(more).copied().collect();
    script.request(line, &asks).run()
}

const NEXT: &[&str] = &["GET", "/js/app.2.js?x=1"];

/// Decodes `dcb` with a decoder that is given the dictionary.
fn with_dictionary(body: &[u8], dictionary: &str) -> String {
    let hash = *Dictionary::new(dictionary.into()).sha256();
    assert_eq!(
        body[..36],
        [&b"\xff\x44\x43\x42"[..], &hash].concat(),
        "RFC 9842 §4"
    );
    let mut text = String::new();
    let mut decoder = brotli::Decompressor::new(&body[36..], 4096);
    assert!(decoder.attach_dictionary(dictionary.as_bytes().to_vec().into()));
    decoder.read_to_string(&mut text).expect("decodes");
    text
}

#[test]
fn the_next_version_is_coded_with_the_one_before() {
    let mut script = script("{}");
    let before = ask(&mut script, NEXT, &[]);
    assert_eq!(
        before.text("content-encoding"),
        "br",
        "nothing is known yet"
    );
    assert_eq!(before.all("vary"), ["Accept-Encoding"]);
    let taught = teach(&mut script, &[], &[SCRIPT, FRESH, USE]);
    assert_eq!(taught.counted("compress.dictionary.kept"), 1);
    let seen = ask(&mut script, NEXT, &[]);
    assert_eq!(seen.text("content-encoding"), "dcb");
    let vary = "Accept-Encoding, Available-Dictionary, Sec-Fetch-Site";
    assert_eq!(seen.all("vary"), [vary]);
    assert_eq!(seen.text("etag"), "W/\"2\"");
    assert_eq!(seen.counted("compress.dictionary.used"), 1);
    assert_eq!(with_dictionary(&seen.body(), &bundle(1)), bundle(2));
    let (small, plain) = (seen.body().len(), before.body().len());
    assert!(small * 3 < plain, "{small} against {plain}");
    println!("{} bytes: br {plain}, dcb {small}", bundle(2).len());
    let head = ask(&mut script, &["HEAD", "/js/app.2.js"], &[]);
    assert_eq!(head.text("content-encoding"), "dcb", "as its GET");
}

/// RFC 9110 §15.4.5, §15.3.7: a 304 and a 206 have the `Vary` "that would have been sent in a 200".
#[test]
fn what_is_no_whole_response_varies_as_the_whole_one() {
    let mut script = script("{}");
    teach(&mut script, &[], &[SCRIPT, FRESH, USE]);
    let vary = ask(&mut script, NEXT, &[]).text("vary");
    assert_eq!(
        vary,
        "Accept-Encoding, Available-Dictionary, Sec-Fetch-Site"
    );
    let range = ("content-range", "bytes 0-9/5000");
    let has = available(&bundle(1));
    for (status, fields) in [
        (304, &[SCRIPT][..]),
        (304, &[]),
        (206, &[SCRIPT, range]),
        (206, &[("content-type", "multipart/byteranges; boundary=x")]),
    ] {
        script.answers(status, fields, &[]);
        let asks = [
            ("accept-encoding", "br"),
            ("available-dictionary", has.as_str()),
            ("if-none-match", "W/\"2\""),
        ];
        let seen = script.request(NEXT, &asks).run();
        assert_eq!(seen.text("vary"), vary, "{status} {fields:?}");
    }
    let picture = ("content-type", "image/png");
    script.answers(206, &[picture, range], &[]);
    let seen = script.request(NEXT, &[("accept-encoding", "br")]).run();
    assert_eq!(seen.text("vary"), "", "it is never coded");
}

/// RFC 9842 §9.3.3: by its length a response would tell another site what it has in common with a dictionary.
#[test]
fn another_site_gets_no_response_coded_with_a_dictionary() {
    let mut script = script("{}");
    teach(&mut script, &[], &[SCRIPT, FRESH, USE]);
    let usual = "Accept-Encoding, Available-Dictionary, Sec-Fetch-Site";
    for (site, mode, want, read) in [
        ("same-origin", "no-cors", "dcb", ""),
        ("cross-site", "navigate", "dcb", ", Sec-Fetch-Mode"),
        ("cross-site", "no-cors", "br", ", Sec-Fetch-Mode"),
        ("cross-site", "cors", "br", ", Sec-Fetch-Mode, Origin"),
    ] {
        let fetch = [("sec-fetch-site", site), ("sec-fetch-mode", mode)];
        let seen = ask(&mut script, NEXT, &fetch);
        assert_eq!(seen.text("content-encoding"), want, "{site} {mode}");
        let counted = seen.counted("compress.dictionary.cross_origin");
        assert_eq!(counted, u64::from(want == "br"), "{site} {mode}");
        assert_eq!(seen.text("vary"), format!("{usual}{read}"), "{site} {mode}");
        // What is no whole response says the same.
        script.answers(304, &[SCRIPT], &[]);
        let has = available(&bundle(1));
        let asks = [("available-dictionary", has.as_str()), fetch[0], fetch[1]];
        let asks = [&[("accept-encoding", "br, dcb")][..], &asks].concat();
        let seen = script.request(NEXT, &asks).run();
        assert_eq!(seen.text("vary"), format!("{usual}{read}"), "{site} {mode}");
    }
    // Who has none depends on no more than that.
    let seen = ask(
        &mut script,
        NEXT,
        &[
            ("available-dictionary", ":AAAA:"),
            ("sec-fetch-site", "cross-site"),
        ],
    );
    assert_eq!(seen.text("vary"), "Accept-Encoding, Available-Dictionary");
}

#[test]
fn zstd_with_a_dictionary_is_dcz() {
    let mut script = script("{}");
    teach(&mut script, &[], &[SCRIPT, FRESH, USE]);
    let (before, after) = (bundle(1), bundle(2));
    for (accepts, want) in [
        ("zstd, dcz", "dcz"),
        ("br, zstd, dcb, dcz", "dcz"),
        ("dcb, dcz;q=0.9", "dcb"),
        ("*", "zstd"),
    ] {
        let seen = ask(&mut script, NEXT, &[("accept-encoding", accepts)]);
        assert_eq!(seen.text("content-encoding"), want, "{accepts}");
        if want != "dcz" {
            continue;
        }
        let (body, mut text) = (seen.body(), String::new());
        let hash = *Dictionary::new(before.clone().into()).sha256();
        let start = [&b"\x5e\x2a\x4d\x18\x20\x00\x00\x00"[..], &hash].concat();
        assert_eq!(body[..40], start, "RFC 9842 §5");
        let mut decoder =
            zstd::Decoder::with_ref_prefix(&body[40..], before.as_bytes()).expect("a decoder");
        decoder.read_to_string(&mut text).expect("decodes");
        assert_eq!(text, after);
        println!("{} bytes: dcz {}", after.len(), body.len());
        assert!(body.len() * 15 < after.len(), "{} bytes", body.len());
    }
}

#[test]
fn who_gets_it_and_who_does_not() {
    let other = available("another dictionary");
    for (name, line, more, coding, varies) in [
        ("the same path", NEXT, &[][..], "dcb", true),
        ("its own", &["GET", "/js/app.1.js"], &[], "dcb", true),
        ("another path", &["GET", "/css/app.2.css"], &[], "br", false),
        (
            "another host",
            &["GET", "/js/app.2.js", "other.example"],
            &[],
            "br",
            false,
        ),
        (
            "another dictionary",
            NEXT,
            &[("available-dictionary", other.as_str())],
            "br",
            true,
        ),
        (
            "not accepted",
            NEXT,
            &[("accept-encoding", "gzip, br, dcb;q=0")],
            "br",
            true,
        ),
        (
            "liked less",
            NEXT,
            &[("accept-encoding", "gzip, br, dcb;q=0.5")],
            "br",
            true,
        ),
        (
            "the id it came with",
            NEXT,
            &[("dictionary-id", "\"\"")],
            "dcb",
            true,
        ),
        (
            "an id it did not come with",
            NEXT,
            &[("dictionary-id", "\"7\"")],
            "br",
            true,
        ),
        (
            "for anything",
            NEXT,
            &[("sec-fetch-dest", "image")],
            "dcb",
            true,
        ),
        (
            "no transformation",
            NEXT,
            &[("cache-control", "no-transform")],
            "",
            true,
        ),
    ] {
        let mut script = script("{}");
        teach(&mut script, &[], &[SCRIPT, FRESH, USE]);
        let seen = ask(&mut script, line, more);
        assert_eq!(seen.text("content-encoding"), coding, "{name}");
        let said = seen.text("vary").contains("Available-Dictionary");
        assert_eq!(said, varies, "{name}");
    }
}

#[test]
fn what_is_no_dictionary_for_others_is_not_kept() {
    let cookie = ("set-cookie", "a=b");
    let login = ("authorization", "Basic eDp5");
    let unstored = ("cache-control", "No-Store");
    for (name, config, request, fields) in [
        (
            "private",
            "{}",
            &[][..],
            &[SCRIPT, USE, ("cache-control", "private, max-age=60")][..],
        ),
        ("no lifetime", "{}", &[], &[SCRIPT, USE]),
        ("a cookie", "{}", &[], &[SCRIPT, USE, FRESH, cookie]),
        ("logged in", "{}", &[login], &[SCRIPT, USE, FRESH]),
        ("not to be stored", "{}", &[unstored], &[SCRIPT, USE, FRESH]),
        ("says nothing", "{}", &[], &[SCRIPT, FRESH]),
        (
            "a pattern of another host",
            "{}",
            &[],
            &[
                SCRIPT,
                FRESH,
                ("use-as-dictionary", "match=\"https://o.example/*\""),
            ],
        ),
        (
            "turned off",
            r#"{"dictionaries": {"entries": 0}}"#,
            &[],
            &[SCRIPT, FRESH, USE],
        ),
        (
            "too large",
            r#"{"dictionaries": {"max_bytes": 10000}}"#,
            &[],
            &[SCRIPT, FRESH, USE],
        ),
    ] {
        let mut script = script(config);
        let seen = teach(&mut script, request, fields);
        assert_eq!(seen.counted("compress.dictionary.kept"), 0, "{name}");
        assert_eq!(
            ask(&mut script, NEXT, &[]).text("content-encoding"),
            "br",
            "{name}"
        );
    }
}

#[test]
fn destinations_ids_and_lifetimes_count() {
    let mut script = script("{}");
    let said = (
        "use-as-dictionary",
        "match=\"/js/*\", match-dest=(\"script\"), id=\"v1\"",
    );
    teach(&mut script, &[], &[SCRIPT, FRESH, said]);
    for (name, more, coding) in [
        (
            "as said",
            &[("sec-fetch-dest", "script"), ("dictionary-id", "\"v1\"")][..],
            "dcb",
        ),
        ("another destination", &[("sec-fetch-dest", "style")], "br"),
        ("nothing said of it", &[], "dcb"),
        ("another id", &[("dictionary-id", "\"v0\"")], "br"),
    ] {
        let seen = ask(&mut script, NEXT, more);
        assert_eq!(seen.text("content-encoding"), coding, "{name}");
    }
    let mut fetched = self::script("{}");
    let said = ("use-as-dictionary", "match=\"/js/*\", match-dest=(\"\")");
    teach(&mut fetched, &[], &[SCRIPT, FRESH, said]);
    for (destination, coding) in [("empty", "dcb"), ("script", "br")] {
        let seen = ask(&mut fetched, NEXT, &[("sec-fetch-dest", destination)]);
        assert_eq!(seen.text("content-encoding"), coding, "{destination}");
    }
    script.pass(Duration::from_secs(3600));
    let late = ask(&mut script, NEXT, &[]);
    assert_eq!(late.text("content-encoding"), "br", "no longer fresh");
    assert_eq!(late.all("vary"), ["Accept-Encoding"]);
}

#[test]
fn the_store_is_bounded() {
    let mut script = script(r#"{"dictionaries": {"entries": 2}}"#);
    for host in ["a.example", "b.example", "c.example"] {
        script.answers(200, &[SCRIPT, FRESH, USE], &[bundle(1).as_bytes()]);
        script.request(&["GET", "/js/app.1.js", host], &[]).run();
    }
    for (host, coding) in [
        ("a.example", "br"),
        ("b.example", "dcb"),
        ("c.example", "dcb"),
    ] {
        let seen = ask(&mut script, &["GET", "/js/app.2.js", host], &[]);
        assert_eq!(seen.text("content-encoding"), coding, "{host}");
    }
}

#[test]
fn a_response_that_is_not_coded_is_a_dictionary_too() {
    let mut script = script("{}");
    script.answers(200, &[SCRIPT, FRESH, USE], &[bundle(1).as_bytes()]);
    let seen = script.request(&["GET", "/js/app.1.js"], &[]).run();
    assert_eq!(seen.body_text(), bundle(1));
    assert_eq!(ask(&mut script, NEXT, &[]).text("content-encoding"), "dcb");
    let mut cut = self::script("{}");
    cut.answers(200, &[SCRIPT, FRESH, USE], &[bundle(1).as_bytes()]);
    cut.cut();
    cut.request(&["GET", "/js/app.1.js"], &[]).run();
    assert_eq!(
        ask(&mut cut, NEXT, &[]).text("content-encoding"),
        "br",
        "half a response is none"
    );
}

/// A filter before: makes content ninety times as long.
struct Grows;

impl Filter for Grows {
    fn name(&self) -> &'static str {
        "grows"
    }
    fn exchange(&self) -> Box<dyn Exchange> {
        Box::new(Grows)
    }
}

impl Exchange for Grows {
    fn response(&mut self, head: &mut ResponseHead, _: &mut Cx<'_>) -> Step {
        representation::transformed(head);
        Step::Forward(Body::Transform)
    }
    fn response_body(&mut self, chunk: &[u8], _: bool, out: &mut Vec<u8>, _: &mut Cx<'_>) {
        out.extend(chunk.repeat(90));
    }
}

#[test]
fn the_length_before_another_filter_is_no_bound() {
    let config = r#"{"dictionaries": {"max_bytes": 10000000}, "max_ratio_percent": 100}"#;
    let config: Config = serde_json::from_str(config).expect("a configuration");
    let compress = Compress::new(config).expect("a good configuration");
    let chain = Chain::new("edge", vec![Box::new(compress), Box::new(Grows)]);
    let mut script = Script::new(chain);
    let (before, after) = (bundle(1), bundle(2));
    let long = before.repeat(90);
    let has = available(&long);
    script.answers(200, &[SCRIPT, FRESH, USE], &[before.as_bytes()]);
    let seen = script.request(&["GET", "/js/app.1.js"], &[]).run();
    assert_eq!(seen.counted("compress.dictionary.kept"), 1);
    for accepts in ["dcz", "dcb", "zstd", "br", "gzip"] {
        let lines = [SCRIPT, ("content-length", &after.len().to_string())];
        let pieces: Vec<&[u8]> = after.as_bytes().chunks(9_000).collect();
        script.answers(200, &lines, &pieces);
        let asks = [
            ("accept-encoding", accepts),
            ("available-dictionary", has.as_str()),
        ];
        let seen = script.request(NEXT, &asks).run();
        assert_eq!(seen.text("content-encoding"), accepts);
        assert_eq!(seen.counted("compress.failed"), 0, "{accepts}");
        assert!(!seen.cut, "{accepts}");
    }
}
