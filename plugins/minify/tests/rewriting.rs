//! Dropping, selecting and redacting, against a second opinion that has the whole tree.

mod tree;

use std::rc::Rc;

use edgeweir_minify::{
    Config, DropNulls, Framing, Invalid, Lexer, Mask, Pattern, Redaction, Rewriter, Rules,
};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use tree::{Path, Tree};

fn rewriter(config: &Config, client: Option<&str>, cuts: bool, framing: Framing) -> Rewriter {
    let rules = Rc::new(Rules::check(config).expect("good rules"));
    let mask = client.map(|text| Mask::parse(text, 128).expect("a mask"));
    Rewriter::new(framing, 64, cuts, rules, mask)
}

fn rewrite<'c>(
    config: &Config,
    client: Option<&str>,
    cuts: bool,
    framing: Framing,
    chunks: impl IntoIterator<Item = &'c [u8]>,
) -> (Vec<u8>, Option<Invalid>) {
    let mut rewriter = rewriter(config, client, cuts, framing);
    let (mut out, mut invalid) = (Vec::new(), None);
    for chunk in chunks {
        invalid = invalid.or(rewriter.push(chunk, &mut out));
    }
    invalid = invalid.or_else(|| rewriter.finish(&mut out));
    (out, invalid)
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        40 => select(&["a", "b", "c", "", "é\"", "password", "A"][..]).prop_map(str::to_owned),
        1 => (1_537_usize..1_540).prop_map(|length| "n".repeat(length)),
    ]
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        Just(Tree::Null),
        Just(Tree::Null),
        any::<bool>().prop_map(Tree::Bool),
        select(
            &[
                "0",
                "-1.50e+7",
                "4111111111111111",
                "123456789012345678901234567890"
            ][..]
        )
        .prop_map(|number| Tree::Number(number.to_owned())),
        select(
            &[
                "",
                "x",
                "mail a@b.example",
                "5555-5555-5555-4444",
                "12345678",
                "a long text, too long for 64 bytes of it to be looked at; hidden"
            ][..]
        )
        .prop_map(|text| Tree::String(text.to_owned())),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Tree::Array),
            proptest::collection::vec((name(), inner), 0..6).prop_map(Tree::Object),
        ]
    })
}

/// A path and its text.
fn path() -> impl Strategy<Value = Path> {
    proptest::collection::vec(
        proptest::option::weighted(0.8, select(&["a", "b", "c"][..])),
        1..4,
    )
    .prop_map(|path| {
        path.into_iter()
            .map(|name| name.map(str::to_owned))
            .collect()
    })
}

fn paths(most: usize) -> impl Strategy<Value = Vec<Path>> {
    proptest::collection::vec(path(), 0..=most)
}

fn config() -> impl Strategy<Value = Config> {
    let replace = || select(&["mask", "hash", "last4"][..]);
    let redaction = prop_oneof![
        (path(), replace()).prop_map(|(path, by)| (
            Redaction {
                path: Some(tree::text(&path)),
                ..Redaction::default()
            },
            by
        )),
        (
            select(&["a", "A", "password", "é\"", ""][..]),
            any::<bool>(),
            replace()
        )
            .prop_map(|(key, ignore_case, by)| (
                Redaction {
                    key: Some(key.to_owned()),
                    ignore_case,
                    ..Redaction::default()
                },
                by
            )),
        (select(&[Pattern::Card, Pattern::Email][..]), replace()).prop_map(|(pattern, by)| (
            Redaction {
                pattern: Some(pattern),
                ..Redaction::default()
            },
            by
        )),
    ]
    .prop_map(|(redaction, by)| Redaction {
        replace: serde_json::from_str(&format!("\"{by}\"")).expect("a replacement"),
        ..redaction
    });
    (
        select(&[DropNulls::Never, DropNulls::Members, DropNulls::All][..]),
        paths(2),
        paths(2),
        proptest::collection::vec(redaction, 0..3),
    )
        .prop_map(|(drop_nulls, include, exclude, redact)| Config {
            drop_nulls,
            include: include.iter().map(tree::text).collect(),
            exclude: exclude.iter().map(tree::text).collect(),
            redact,
            hash_key: Some("0123456789abcdef".into()),
            max_value_bytes: 64,
            ..Config::default()
        })
}

fn cut<'c>(text: &'c [u8], cuts: &[Index]) -> Vec<&'c [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
    at.extend([0, text.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect()
}

fn cuts() -> impl Strategy<Value = Vec<Index>> {
    proptest::collection::vec(any::<Index>(), 0..6)
}

/// Bytes that are nearly JSON.
fn soup() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => select(
            &[
                "{", "}", "[", "]", ",", ":", "\"", "\\", "\"a\"", "\"a\":", "\"b\": ", "1", "-", "0", ".5", "true",
                "null", "nul", ",null", ",\"c\":null", " ", "\n", "\r\n", "\u{1e}", "\u{feff}", "é", "\"x y\"", "[1, 2]",
                "{\"a\" : 1}", ",\"a\" : {\"b\":1}", "\"4111111111111111\"",
            ][..]
        )
        .prop_map(|text| text.as_bytes().to_vec()),
        1 => any::<u8>().prop_map(|byte| vec![byte]),
    ];
    proptest::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

fn framings() -> impl Strategy<Value = Framing> {
    select(&[Framing::Single, Framing::Lines, Framing::Sequence][..])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn a_tree_says_the_same(tree in tree(), config in config(), client in paths(2), escaped in any::<bool>(), cuts in cuts()) {
        let want = tree::rewrite(&tree, &config, &client);
        let pretty = tree.pretty(escaped);
        let client = client.iter().map(tree::text).collect::<Vec<_>>().join(",");
        let client = (!client.is_empty()).then_some(&client[..]);
        let (out, invalid) = rewrite(&config, client, true, Framing::Single, cut(pretty.as_bytes(), &cuts));
        prop_assert_eq!(invalid, None);
        prop_assert_eq!(String::from_utf8_lossy(&out), want.compact(escaped), "{}", pretty);
    }

    #[test]
    fn any_cut_gives_the_same(text in soup(), config in config(), framing in framings(), stop in any::<bool>(), cuts in cuts()) {
        let want = rewrite(&config, Some("a,b/c"), stop, framing, [&text[..]]);
        prop_assert_eq!(rewrite(&config, Some("a,b/c"), stop, framing, cut(&text, &cuts)), want.clone());
        prop_assert_eq!(rewrite(&config, Some("a,b/c"), stop, framing, text.chunks(1)), want);
    }

    #[test]
    fn a_long_body_is_the_same_byte_by_byte(trees in proptest::collection::vec(tree(), 1..5), config in config(), client in paths(1), stop in any::<bool>(), padding in 0_usize..80, damage in proptest::option::of((any::<Index>(), any::<u8>())), cuts in cuts()) {
        let elements: Vec<String> = trees.iter().map(|tree| tree.pretty(false)).collect();
        let mut text = format!("{}[{} ,{{\"a\": null}}]", " ".repeat(padding), elements.join(" ,\n")).into_bytes();
        if let Some((at, byte)) = damage {
            let at = at.index(text.len());
            text[at] = byte;
        }
        let client = client.first().map(tree::text);
        let client = client.as_deref();
        let want = rewrite(&config, client, stop, Framing::Single, text.chunks(1));
        prop_assert_eq!(rewrite(&config, client, stop, Framing::Single, [&text[..]]), want.clone(), "{}", String::from_utf8_lossy(&text));
        prop_assert_eq!(rewrite(&config, client, stop, Framing::Single, cut(&text, &cuts)), want);
        // No rule but for `null`s looks into it.
        let config = Config { drop_nulls: config.drop_nulls, ..Config::default() };
        let want = rewrite(&config, None, stop, Framing::Single, text.chunks(1));
        prop_assert_eq!(rewrite(&config, None, stop, Framing::Single, [&text[..]]), want.clone(), "{}", String::from_utf8_lossy(&text));
        prop_assert_eq!(rewrite(&config, None, stop, Framing::Single, cut(&text, &cuts)), want);
    }

    #[test]
    fn what_is_stopped_anywhere_stays_json_or_breaks_off(trees in proptest::collection::vec(tree(), 1..4), config in config(), client in paths(1), at in any::<Index>(), cuts in cuts()) {
        let elements: Vec<String> = trees.iter().map(|tree| tree.pretty(false)).collect();
        let text = format!(" [ {} ]", elements.join(" , ")).into_bytes();
        let mut config = config;
        let mut client = client.first().map(tree::text);
        // So that twice is once; see below.
        if !config.redact.is_empty() {
            config.include.clear();
            client = None;
        }
        config.redact.iter_mut().for_each(|one| one.replace = Default::default());
        let client = client.as_deref();
        let (want, _) = rewrite(&config, client, true, Framing::Single, [&text[..]]);

        let (first, rest) = text.split_at(at.index(text.len() + 1));
        let mut rewriter = rewriter(&config, client, false, Framing::Single);
        let mut out = Vec::new();
        for chunk in cut(first, &cuts) {
            prop_assert_eq!(rewriter.push(chunk, &mut out), None);
        }
        rewriter.stop(&mut out);
        for chunk in cut(rest, &cuts) {
            prop_assert_eq!(rewriter.push(chunk, &mut out), None);
        }
        prop_assert_eq!(rewriter.finish(&mut out), None);
        if rewriter.is_cut() {
            prop_assert!(want.starts_with(&out));
        } else {
            let again = rewrite(&config, client, true, Framing::Single, [&out[..]]);
            prop_assert_eq!(again, (want, None), "{}", String::from_utf8_lossy(&out));
        }
    }

    #[test]
    fn rules_for_nothing_are_the_lexer(text in soup(), framing in framings(), cuts in cuts()) {
        let config = Config {
            exclude: vec!["never/there".into()],
            redact: vec![Redaction { key: Some("nor this".into()), ..Redaction::default() }],
            ..Config::default()
        };
        let mut lexer = Lexer::new(framing, 64);
        let mut want = Vec::new();
        let invalid = lexer.push(&text, &mut want).or_else(|| lexer.finish(&mut want));
        prop_assert_eq!(rewrite(&config, None, false, framing, cut(&text, &cuts)), (want, invalid));
    }

    #[test]
    fn twice_is_once(tree in tree(), config in config()) {
        let mut config = config;
        if !config.redact.is_empty() {
            // A container that is hidden would then be one that an include goes into in vain.
            config.include.clear();
        }
        config.redact.iter_mut().for_each(|one| one.replace = Default::default());
        let (out, _) = rewrite(&config, None, true, Framing::Single, [tree.pretty(false).as_bytes()]);
        prop_assert_eq!(rewrite(&config, None, true, Framing::Single, [&out[..]]), (out.clone(), None));
    }

    #[test]
    fn what_is_hidden_stays_hidden(tree in tree(), at in any::<Index>(), byte in any::<u8>(), inserted in any::<bool>(), cuts in cuts()) {
        let config = Config {
            redact: vec![Redaction { key: Some("password".into()), ..Redaction::default() }],
            ..Config::default()
        };
        let text = tree.with_secrets("password", "SECRET").pretty(false);
        let mut damaged = text.clone().into_bytes();
        let at = at.index(damaged.len());
        // A byte of the name itself makes it another name.
        let (before, after) = text.as_bytes().split_at(at);
        let in_name = (0..="\"password\"".len()).any(|n| {
            before.len() >= n && [&before[before.len() - n..], after].concat().starts_with(b"\"password\"")
        });
        prop_assume!(!in_name);
        if inserted { damaged.insert(at, byte) } else { damaged[at] = byte }
        let (out, _) = rewrite(&config, None, true, Framing::Single, cut(&damaged, &cuts));
        let out = String::from_utf8_lossy(&out).into_owned();
        prop_assert!(!out.contains("SECRET"), "{out}");
    }

    #[test]
    fn lines_are_rewritten_each_by_itself(trees in proptest::collection::vec(tree(), 0..4), config in config(), cuts in cuts()) {
        for (framing, mark) in [(Framing::Lines, ""), (Framing::Sequence, "\u{1e}")] {
            let text: String = trees.iter().map(|tree| format!("{mark}{}\n", tree.compact(false))).collect();
            let want: String = trees.iter().map(|tree| format!("{mark}{}\n", tree::rewrite(tree, &config, &[]).compact(false))).collect();
            let (out, invalid) = rewrite(&config, None, true, framing, cut(text.as_bytes(), &cuts));
            prop_assert_eq!(invalid, None);
            prop_assert_eq!(String::from_utf8_lossy(&out), want);
        }
    }
}

#[test]
fn names_too_long_to_be_held_are_no_rule_s() {
    let long = "n".repeat(1_537);
    let config = |json: &str| serde_json::from_str::<Config>(json).expect("a configuration");
    for (rules, text, want) in [
        (r#"{"drop_nulls":"all"}"#, "{\"N\": null}", "{\"N\":null}"),
        (
            r#"{"drop_nulls":"members","exclude":["z"]}"#,
            "{\"m\": {\"a\":1, \"N\": null, \"b\": null}}",
            "{\"m\":{\"a\":1,\"N\":null}}",
        ),
        (r#"{"include":["*"]}"#, "{\"N\": 1}", "{\"N\":1}"),
        (r#"{"include":["*/a","b"]}"#, "{\"N\": {\"a\":1}}", "{}"),
        (r#"{"exclude":["*"]}"#, "{\"N\": 1}", "{}"),
        (
            r#"{"exclude":["*/a"]}"#,
            "{\"N\": {\"a\":1, \"b\":2}}",
            "{\"N\":{\"b\":2}}",
        ),
        (
            r#"{"redact":[{"path":"*"}]}"#,
            "{\"N\": 1, \"b\" : 2}",
            "{\"N\":\"***\",\"b\":\"***\"}",
        ),
        (
            r#"{"redact":[{"key":"n"}]}"#,
            "{\"N\" : 1, \"n\": 2}",
            "{\"N\":1,\"n\":\"***\"}",
        ),
    ] {
        let (text, want) = (text.replace('N', &long), want.replace('N', &long));
        // With something behind it the name is within one stretch.
        let text = text + &" ".repeat(600);
        for size in [1, 7, 1_000, 1_536, 1_539, 5_000] {
            let (out, invalid) = rewrite(
                &config(rules),
                None,
                true,
                Framing::Single,
                text.as_bytes().chunks(size),
            );
            assert_eq!(invalid, None);
            assert!(out == want.as_bytes(), "{rules} by {size}");
        }
    }
    // The longest spelling of the longest name is held.
    let (name, spelled) = ("m".repeat(256), "\\u006d".repeat(256));
    let rules = format!("{{\"redact\":[{{\"key\":\"{name}\"}}]}}");
    let text = format!("{{\"{spelled}\":1}}");
    for size in [1, 5_000] {
        let (out, _) = rewrite(
            &config(&rules),
            None,
            true,
            Framing::Single,
            text.as_bytes().chunks(size),
        );
        assert!(out.ends_with(b":\"***\"}"));
    }
}

#[test]
fn a_mark_does_not_show_what_is_hidden() {
    let config: Config = serde_json::from_str(r#"{"redact":[{"key":"a"}]}"#).expect("rules");
    for (text, want) in [
        ("\u{feff}{ \"a\" : 1 }", "\u{feff}{\"a\":\"***\"}"),
        ("{\"a\":1}\u{feff}", "{\"a\":\"***\"}"),
        (" \u{feff}{\"a\":1}", ""),
        ("\u{f000}{\"a\":1}", ""),
    ] {
        for size in [1, 100] {
            let (out, _) = rewrite(
                &config,
                None,
                true,
                Framing::Single,
                text.as_bytes().chunks(size),
            );
            assert_eq!(String::from_utf8_lossy(&out), want);
        }
    }
}
