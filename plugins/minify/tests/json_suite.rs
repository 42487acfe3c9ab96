//! Half of JSONTestSuite (`tests/data/json-parsing`, MIT), each body cut at every point into two chunks.

use std::path::Path;
use std::rc::Rc;

use edgeweir_filter::{Script, load};
use edgeweir_minify::{Config, Framing, Invalid, Lexer, Minify, Rewriter, Rules};

/// Invalid only for their escapes or for bytes in a string that are no UTF-8: kept byte for byte, so not refused.
const KEPT_IN_STRINGS: &[&str] = &[
    "n_string_1_surrogate_then_escape_u1.json",
    "n_string_1_surrogate_then_escape_u1x.json",
    "n_string_1_surrogate_then_escape_u.json",
    "n_string_backslash_00.json",
    "n_string_escape_x.json",
    "n_string_escaped_emoji.json",
    "n_string_incomplete_escaped_character.json",
    "n_string_incomplete_surrogate.json",
    "n_string_incomplete_surrogate_escape_invalid.json",
    "n_string_invalid-utf-8-in-escape.json",
    "n_string_invalid_backslash_esc.json",
    "n_string_invalid_unicode_escape.json",
    "n_string_invalid_utf8_after_escape.json",
];

fn files() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"))
        .join("../../tests/data/json-parsing");
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("a readable folder"))
        .map(|entry| {
            (
                entry.file_name().into_string().expect("a name in UTF-8"),
                entry.path(),
            )
        })
        .filter(|(name, _)| name.ends_with(".json"))
        .map(|(name, path)| (name, std::fs::read(path).expect("a readable file")))
        .collect();
    files.sort();
    let of = |start: &str| {
        files
            .iter()
            .filter(|(name, _)| name.starts_with(start))
            .count()
    };
    assert!(
        of("y_") >= 40 && of("n_") >= 80 && of("i_") >= 15,
        "the suite is not whole"
    );
    files
}

/// What comes of a stream of chunks, where it was found invalid (bytes given till then), and why.
fn stream(chunks: &[&[u8]]) -> (Vec<u8>, Option<Invalid>) {
    let mut lexer = Lexer::new(Framing::Single, 512);
    let (mut out, mut invalid) = (Vec::new(), None);
    for chunk in chunks {
        invalid = invalid.or(lexer.push(chunk, &mut out));
    }
    invalid = invalid.or(lexer.finish(&mut out));
    (out, invalid)
}

/// A second opinion: whitespace outside strings goes, no more.
fn stripped(text: &[u8]) -> Vec<u8> {
    let (mut inside, mut escaped) = (false, false);
    let mut out = text.to_vec();
    out.retain(|&byte| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if inside => escaped = true,
            b'"' => inside = !inside,
            b' ' | b'\t' | b'\n' | b'\r' => return inside,
            _ => {}
        }
        true
    });
    out
}

/// How many bytes went by before the first invalid one; all of them for a body that ends too early.
fn good(text: &[u8]) -> usize {
    let mut lexer = Lexer::new(Framing::Single, 512);
    let mut out = Vec::new();
    text.iter()
        .position(|byte| lexer.push(&[*byte], &mut out).is_some())
        .unwrap_or(text.len())
}

#[test]
fn valid_texts_keep_their_value_and_every_other_byte() {
    for (name, text) in files().iter().filter(|(name, _)| name.starts_with("y_")) {
        let (out, invalid) = stream(&[text]);
        assert_eq!(invalid, None, "{name}");
        assert_eq!(out, stripped(text), "{name}");
        // serde_json knows no lone surrogates; the suite has none among the valid.
        let value = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).expect(name);
        assert_eq!(value(&out), value(text), "{name}");
    }
}

#[test]
fn invalid_texts_are_named_and_lose_nothing() {
    for (name, text) in files().iter().filter(|(name, _)| name.starts_with("n_")) {
        let (out, invalid) = stream(&[text]);
        if KEPT_IN_STRINGS.contains(&name.as_str()) {
            assert_eq!((out, invalid), (stripped(text), None), "{name}");
            continue;
        }
        assert!(
            invalid.is_some(),
            "{name}: {}",
            String::from_utf8_lossy(&out)
        );
        let (before, rest) = text.split_at(good(text));
        assert!(out.ends_with(rest), "{name}: the rest as it came");
        let kept = &out[..out.len() - rest.len()];
        // One byte of the whitespace before the rest may have stayed.
        let kept = kept
            .strip_suffix(b" ")
            .or(kept.strip_suffix(b"\n"))
            .unwrap_or(kept);
        let whole = stripped(before);
        assert!(
            kept == whole || [kept, &out[kept.len()..=kept.len()]].concat() == whole,
            "{name}: nothing lost before it"
        );
    }
}

#[test]
fn a_small_invalid_body_of_known_length_is_not_changed_at_all() {
    for (name, text) in files() {
        let (out, invalid) = stream(&[&text]);
        let want = if invalid.is_some() { text.clone() } else { out };
        let minify: Minify = load(b"").expect("defaults");
        let mut script = Script::new(minify);
        let length = text.len().to_string();
        let half = text.len() / 2;
        script.answers(
            200,
            &[
                ("content-type", "application/json"),
                ("content-length", &length),
            ],
            &[&text[..half], &text[half..]],
        );
        let seen = script.run();
        assert_eq!(seen.body(), want, "{name}");
        if let Some(invalid) = invalid.filter(|_| !text.is_empty()) {
            assert_eq!(seen.counted(invalid.counter()), 1, "{name}");
        }
    }
}

#[test]
fn every_cut_into_two_gives_the_same_bytes() {
    for (name, text) in files() {
        let want = stream(&[&text]);
        for at in 0..=text.len() {
            let (first, second) = text.split_at(at);
            assert_eq!(stream(&[first, second]), want, "{name} cut at {at}");
        }
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(stream(&bytes), want, "{name} byte by byte");
    }
}

/// As `stream`, by the rewriter.
fn rewritten(rules: &str, cuts: bool, chunks: &[&[u8]]) -> (Vec<u8>, Option<Invalid>) {
    let config: Config = serde_json::from_str(rules).expect("rules");
    let rules = Rc::new(Rules::check(&config).expect("good rules"));
    let mut rewriter = Rewriter::new(Framing::Single, 512, cuts, rules, None);
    let (mut out, mut invalid) = (Vec::new(), None);
    for chunk in chunks {
        invalid = invalid.or(rewriter.push(chunk, &mut out));
    }
    invalid = invalid.or_else(|| rewriter.finish(&mut out));
    (out, invalid)
}

#[test]
fn with_rules_for_other_members_all_is_as_without_any() {
    let rules = r#"{"exclude": ["x/y"], "redact": [{"key": "z"}, {"pattern": "email"}]}"#;
    for (name, text) in files() {
        let want = stream(&[&text]);
        for at in 0..=text.len() {
            let (first, second) = text.split_at(at);
            let seen = rewritten(rules, false, &[first, second]);
            assert_eq!(seen, want, "{name} cut at {at}");
        }
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(rewritten(rules, false, &bytes), want, "{name} by byte");
    }
}

#[test]
fn where_an_invalid_text_must_not_be_shown_it_ends_before_its_first_invalid_byte() {
    for (name, text) in files() {
        let (_, invalid) = stream(&[&text]);
        for rules in [
            r#"{"redact": [{"key": "z"}]}"#,
            r#"{"redact": [{"path": "a"}, {"pattern": "card"}], "drop_nulls": "all", "include": ["*"]}"#,
        ] {
            let want = rewritten(rules, true, &[&text]);
            let has_mark = text.starts_with(b"\xef\xbb\xbf");
            assert!(has_mark || want.1 == invalid, "{name}: {:?}", want.1);
            if rules.contains('z') && !has_mark {
                let shown = stripped(&text[..good(&text)]);
                assert!(shown.starts_with(&want.0), "{name}: {:?}", want.0);
            }
            for at in 0..=text.len() {
                let (first, second) = text.split_at(at);
                assert_eq!(
                    rewritten(rules, true, &[first, second]),
                    want,
                    "{name} at {at}"
                );
            }
        }
    }
}
