//! What holds for every body.

use edgeweir_minify::{Framing, Invalid, Lexer};
use proptest::prelude::*;
use serde_json::Value;

fn stream<'c>(
    framing: Framing,
    chunks: impl IntoIterator<Item = &'c [u8]>,
) -> (Vec<u8>, Option<Invalid>) {
    let mut lexer = Lexer::new(framing, 512);
    let (mut out, mut invalid) = (Vec::new(), None);
    for chunk in chunks {
        invalid = invalid.or(lexer.push(chunk, &mut out));
    }
    invalid = invalid.or(lexer.finish(&mut out));
    (out, invalid)
}

fn framings() -> impl Strategy<Value = Framing> {
    prop_oneof![
        Just(Framing::Single),
        Just(Framing::Lines),
        Just(Framing::Sequence)
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(
            |number| serde_json::Number::from_f64(number).map_or(Value::Null, Value::Number)
        ),
        ".{0,12}".prop_map(Value::from),
        "[ \t\n\"\\\\a]{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 60, 8, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::btree_map(".{0,6}", inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Bytes that are nearly JSON.
fn soup() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        proptest::sample::select(
            &[
                "{",
                "}",
                "[",
                "]",
                ",",
                ":",
                "\"",
                "\\",
                "\\\"",
                "\"a\"",
                "\"a\":",
                "1",
                "-",
                "0",
                ".5",
                "e+1",
                "true",
                "fals",
                "null",
                " ",
                "\n",
                "\r\n",
                "\t",
                "\u{1e}",
                "\u{0}",
                "\u{feff}",
                "é",
                "x",
                "\"a b\"",
                "[1, 2]",
                "{\"a\" : 1}"
            ][..]
        )
        .prop_map(|text| text.as_bytes().to_vec()),
        any::<u8>().prop_map(|byte| vec![byte]),
    ];
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

fn cut(text: &[u8], cuts: &[prop::sample::Index]) -> Vec<Vec<u8>> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
    at.extend([0, text.len()]);
    at.sort_unstable();
    at.windows(2)
        .map(|pair| text[pair[0]..pair[1]].to_vec())
        .collect()
}

fn without_space(text: &[u8]) -> Vec<u8> {
    text.iter()
        .copied()
        .filter(|byte| !b" \t\r\n".contains(byte))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn any_cut_gives_the_same(text in soup(), framing in framings(), cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6)) {
        let want = stream(framing, [&text[..]]);
        let chunks = cut(&text, &cuts);
        prop_assert_eq!(stream(framing, chunks.iter().map(|chunk| &chunk[..])), want.clone());
        prop_assert_eq!(stream(framing, text.chunks(1)), want);
    }

    #[test]
    fn only_whitespace_goes(text in soup(), framing in framings()) {
        let (out, _) = stream(framing, [&text[..]]);
        prop_assert_eq!(without_space(&out), without_space(&text));
        prop_assert!(out.len() <= text.len());
    }

    #[test]
    fn twice_is_once(text in soup(), framing in framings()) {
        let (out, invalid) = stream(framing, [&text[..]]);
        prop_assert_eq!(stream(framing, [&out[..]]), (out.clone(), invalid));
    }

    #[test]
    fn serde_json_agrees_what_is_a_text(text in soup()) {
        let (out, invalid) = stream(Framing::Single, [&text[..]]);
        let value = serde_json::from_slice::<Value>(&text);
        // It is stricter only inside strings (escapes, UTF-8) and about the size of numbers.
        if let Ok(value) = value {
            prop_assert_eq!(invalid, None);
            prop_assert_eq!(serde_json::from_slice::<Value>(&out).ok(), Some(value));
        } else if invalid.is_none() {
            let odd = !text.is_ascii() || text.contains(&b'\\') || text.contains(&b'e');
            prop_assert!(odd, "{:?}", String::from_utf8_lossy(&text));
        }
    }

    #[test]
    fn a_pretty_value_becomes_a_compact_one(value in value(), cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6)) {
        let pretty = serde_json::to_vec_pretty(&value).expect("a value");
        let chunks = cut(&pretty, &cuts);
        let (out, invalid) = stream(Framing::Single, chunks.iter().map(|chunk| &chunk[..]));
        prop_assert_eq!(invalid, None);
        prop_assert_eq!(String::from_utf8_lossy(&out), serde_json::to_string(&value).expect("a value"));
    }

    #[test]
    fn lines_of_values_stay_lines(values in proptest::collection::vec(value(), 0..6), crlf in any::<bool>()) {
        let compact: String = values.iter().map(|value| format!("{value}\n")).collect();
        let spaced: String = values.iter().map(|value| format!(" {value} {}", if crlf { "\r\n" } else { "\n" })).collect();
        let (out, invalid) = stream(Framing::Lines, [spaced.as_bytes()]);
        prop_assert_eq!(invalid, None);
        prop_assert_eq!(String::from_utf8_lossy(&out), compact);
    }

    #[test]
    fn sequences_keep_their_separators(values in proptest::collection::vec(value(), 0..6)) {
        let compact: String = values.iter().map(|value| format!("\u{1e}{value}\n")).collect();
        let pretty: String = values.iter().map(|value| format!("\u{1e}{value:#}\n\n")).collect();
        let (out, invalid) = stream(Framing::Sequence, [pretty.as_bytes()]);
        prop_assert_eq!(invalid, None);
        prop_assert_eq!(String::from_utf8_lossy(&out), compact);
    }
}
