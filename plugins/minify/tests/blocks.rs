//! Bodies long enough for blocks: whole they become what they become byte by byte, valid or not.

use edgeweir_minify::{Framing, Invalid, Lexer};
use proptest::prelude::*;
use proptest::sample::{Index, select};

const FRAMINGS: [Framing; 3] = [Framing::Single, Framing::Lines, Framing::Sequence];

type Outcome = (Vec<u8>, Option<Invalid>, usize);

/// What comes of the chunks, why it was found invalid, and how much had come out in the chunk that was.
fn stream<'c>(
    framing: Framing,
    depth: usize,
    chunks: impl IntoIterator<Item = &'c [u8]>,
) -> Outcome {
    let mut lexer = Lexer::new(framing, depth);
    let (mut out, mut invalid, mut at) = (Vec::new(), None, 0);
    for chunk in chunks {
        invalid = invalid.or(lexer.push(chunk, &mut out));
        if invalid.is_none() {
            at = out.len();
        }
    }
    invalid = invalid.or(lexer.finish(&mut out));
    // Whole and in pieces differ in it.
    at *= usize::from(invalid.is_none());
    (out, invalid, at)
}

/// Blocks are only looked for in chunks of some length.
fn byte_by_byte(framing: Framing, depth: usize, text: &[u8]) -> Outcome {
    stream(framing, depth, text.chunks(1))
}

fn both(framing: Framing, depth: usize, text: &[u8]) {
    let want = byte_by_byte(framing, depth, text);
    let whole = stream(framing, depth, [text]);
    assert!(
        whole == want,
        "{framing:?} {:?}\n{:?}\n{:?} byte by byte\n{:?}\n{:?}",
        whole.1,
        String::from_utf8_lossy(&whole.0),
        want.1,
        String::from_utf8_lossy(&want.0),
        String::from_utf8_lossy(text)
    );
}

fn space() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => Just(String::new()),
        3 => Just(" ".to_owned()),
        2 => (0usize..20).prop_map(|indent| format!("\n{}", " ".repeat(indent))),
        1 => "[ \t\r\n]{0,9}",
        1 => (0usize..200).prop_map(|many| " ".repeat(many)),
    ]
}

fn string() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-z_ ]{0,12}".prop_map(|text| format!("\"{text}\"")),
        1 => r#"([a-z,:{}\[\] é€]|\\\\|\\"|\\u00e9|\\n){0,40}"#.prop_map(|text| format!("\"{text}\"")),
        1 => (0usize..150).prop_map(|many| format!("\"{}\"", "\\\\".repeat(many))),
        1 => (0usize..300).prop_map(|many| format!("\"{}\"", "x".repeat(many))),
    ]
}

fn leaf() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => string(),
        2 => select(&["true", "false", "null", "0", "-1", "0.0", "1e9"][..]).prop_map(str::to_owned),
        2 => any::<u32>().prop_map(|number| number.to_string()),
        1 => "-?(0|[1-9][0-9]{0,20})([.][0-9]{1,20})?([eE][+-]?[0-9]{1,4})?",
        1 => (1usize..200).prop_map(|many| "1".repeat(many)),
    ]
}

/// A text with whitespace of all kinds.
fn text() -> impl Strategy<Value = String> {
    leaf().prop_recursive(5, 120, 10, |inner| {
        let element = (space(), inner.clone(), space()).prop_map(|(a, value, b)| a + &value + &b);
        let member = (space(), string(), space(), space(), inner, space())
            .prop_map(|(a, name, b, c, value, d)| format!("{a}{name}{b}:{c}{value}{d}"));
        prop_oneof![
            (proptest::collection::vec(element, 1..10))
                .prop_map(|elements| format!("[{}]", elements.join(","))),
            (proptest::collection::vec(member, 1..10))
                .prop_map(|members| format!("{{{}}}", members.join(","))),
            space().prop_map(|space| format!("[{space}]")),
            space().prop_map(|space| format!("{{{space}}}")),
        ]
    })
}

#[derive(Clone, Debug)]
enum Mutation {
    Set(Index, u8),
    Insert(Index, u8),
    Remove(Index),
    Cut(Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let byte = prop_oneof![
        4 => select(&b"{}[],:\" \n\r\t\\0123456789-+.eEtrufalsn\x1e\x00yY_\x7f\x0b"[..]),
        1 => any::<u8>(),
    ];
    prop_oneof![
        (any::<Index>(), byte.clone()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        (any::<Index>(), byte).prop_map(|(at, byte)| Mutation::Insert(at, byte)),
        any::<Index>().prop_map(Mutation::Remove),
        any::<Index>().prop_map(Mutation::Cut),
    ]
}

fn mutate(text: &mut Vec<u8>, mutations: &[Mutation]) {
    for mutation in mutations {
        if text.is_empty() {
            return;
        }
        let length = text.len();
        match mutation {
            Mutation::Set(at, byte) => text[at.index(length)] = *byte,
            Mutation::Insert(at, byte) => text.insert(at.index(length), *byte),
            Mutation::Remove(at) => drop(text.remove(at.index(length))),
            Mutation::Cut(at) => text.truncate(at.index(length)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_text_whole_is_a_text_byte_by_byte(text in text(), more in proptest::collection::vec((space(), text()), 0..3)) {
        both(Framing::Single, 512, text.as_bytes());
        both(Framing::Single, 3, text.as_bytes());
        let mut lines = text;
        for (space, line) in more {
            lines += &space;
            lines += &line.replace('\n', " ");
            lines.push('\n');
        }
        for framing in FRAMINGS {
            both(framing, 512, lines.as_bytes());
        }
    }

    #[test]
    fn what_is_nearly_a_text_too(text in text(), mutations in proptest::collection::vec(mutation(), 1..4)) {
        let mut text = format!("[{text},{text}]").into_bytes();
        mutate(&mut text, &mutations);
        for framing in FRAMINGS {
            both(framing, 512, &text);
        }
    }

    #[test]
    fn any_cut_gives_the_same(text in text(), mutation in proptest::option::of(mutation()), cuts in proptest::collection::vec(any::<Index>(), 0..4)) {
        let mut text = format!("[{text},{text}]").into_bytes();
        mutate(&mut text, mutation.as_slice());
        let want = byte_by_byte(Framing::Single, 512, &text);
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        at.extend([0, text.len()]);
        at.sort_unstable();
        let got = stream(Framing::Single, 512, at.windows(2).map(|pair| &text[pair[0]..pair[1]]));
        prop_assert_eq!((got.0, got.1), (want.0, want.1));
    }
}

/// Every byte at every place of a block, at every offset from its start.
#[test]
fn any_byte_anywhere() {
    let text = br#"{ "name" : [ 1, -2.5e3, true ] , "a\"b" : { "c" : null , "d":{} }, "e": [] , "f" : "x y" }"#;
    let padding = " ".repeat(64);
    for at in 0..text.len() {
        for byte in 0..=u8::MAX {
            let mut text = text.to_vec();
            text[at] = byte;
            let whole = [
                padding.as_bytes().get(..at % 64).unwrap_or_default(),
                b"[",
                &text,
                b",",
                &text,
                b"]",
            ]
            .concat();
            both(Framing::Single, 512, &whole);
        }
    }
}

#[test]
fn the_suite_inside_an_array() {
    // Cargo runs a test in its package's folder; where it was compiled may be another clone that shares the target folder.
    let folder = "../../tests/data/json-parsing";
    for file in std::fs::read_dir(folder).expect("the suite") {
        let file = file.expect("a file").path();
        let text = std::fs::read(&file).expect("readable");
        // Where a block begins in it differs.
        for before in 0..64 {
            let padding = " ".repeat(before);
            let whole = [
                b"[ 1, ",
                padding.as_bytes(),
                &text,
                b" , [ \"after\" ] ]",
                &[b' '; 128],
            ]
            .concat();
            both(Framing::Single, 512, &whole);
        }
        let whole = [&text[..], &[b' '; 128]].concat();
        for framing in FRAMINGS {
            both(framing, 512, &whole);
            both(framing, 512, &text);
        }
    }
}

#[test]
fn what_a_fuzzer_found() {
    let folder = "../../tests/fuzz/corpus/json";
    for file in std::fs::read_dir(folder).expect("the corpus") {
        let file = file.expect("a file").path();
        let text = std::fs::read(&file).expect("readable");
        let text = text.get(2..).unwrap_or_default();
        for framing in FRAMINGS {
            both(framing, 512, text);
            for before in 0..64 {
                let before = " ".repeat(before + 64);
                both(framing, 512, &[b"[", before.as_bytes(), text].concat());
            }
            both(framing, 5, &[b"[".repeat(128), text.to_vec()].concat());
            both(
                framing,
                512,
                &[b"[\"\"  ,".repeat(32), text.to_vec()].concat(),
            );
        }
    }
}
