//! Leaves out whitespace between strings, and `null`s, and looks at nothing else: for JSON that is known to be good.
//!
//! Where a text begins is all that is checked, so that a page of HTML or UTF-16 under the name of JSON goes on as it came.

mod nulls;

use self::nulls::Nulls;
use crate::Invalid;
use crate::block::{BLOCK, StringCarry, Vectors, prefix_xor, spread};
use crate::lexer::is_space;
use crate::rules::DropNulls;
use crate::stretch::{Packed, STRETCH, put};

/// Whitespace before a text, at most; what has more goes on as it came.
pub(crate) const LEAD: usize = 64;

/// One body.
#[derive(Clone, Debug)]
pub struct Bare {
    state: State,
    strings: StringCarry,
    nulls: Nulls,
    kept: Box<Packed>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum State {
    /// Whether it is a text is not known: what came of it.
    Start(Vec<u8>),
    Text,
    /// Everything goes on as it comes.
    Passing,
}

impl Bare {
    /// For one body, with one text in it.
    pub fn new(nulls: DropNulls) -> Self {
        Self {
            state: State::Start(Vec::new()),
            strings: StringCarry::default(),
            nulls: Nulls::new(nulls),
            kept: Box::new([0; STRETCH + BLOCK + 8]),
        }
    }

    /// Appends what is kept of a chunk; why the body is no JSON, once, where its beginning says so.
    pub fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) -> Option<Invalid> {
        match &mut self.state {
            State::Text => self.text(chunk, out),
            State::Passing => out.extend_from_slice(chunk),
            State::Start(lead) => {
                // The first bytes of a body come together but for a hostile origin's.
                let first = std::mem::take(lead);
                let begun = match first.is_empty() {
                    true => begins(chunk),
                    false => begins(&[&first, chunk.get(..LEAD).unwrap_or(chunk)].concat()),
                };
                match begun {
                    None => {
                        let kept = [&first, chunk].concat();
                        self.state = State::Start(kept);
                    }
                    Some(Ok(())) => {
                        self.state = State::Text;
                        self.text(&first, out);
                        self.text(chunk, out);
                    }
                    Some(Err(invalid)) => {
                        self.state = State::Passing;
                        out.extend_from_slice(&first);
                        out.extend_from_slice(chunk);
                        return Some(invalid);
                    }
                }
            }
        }
        None
    }

    /// The body ended; why it is none, if it ended too early to be told.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Option<Invalid> {
        match std::mem::replace(&mut self.state, State::Passing) {
            State::Start(lead) => {
                // One digit is a text.
                if lead.iter().any(|&byte| !is_space(byte)) {
                    self.text(&lead, out);
                    self.nulls.end(out);
                    return None;
                }
                out.extend_from_slice(&lead);
                Some(Invalid::Truncated)
            }
            State::Text => {
                self.nulls.end(out);
                (self.strings.inside != 0).then_some(Invalid::Truncated)
            }
            State::Passing => None,
        }
    }

    pub(crate) fn is_passing(&self) -> bool {
        self.state == State::Passing
    }

    /// Everything that follows goes on as it comes.
    pub(crate) fn pass(&mut self, out: &mut Vec<u8>) {
        if let State::Start(lead) = std::mem::replace(&mut self.state, State::Passing) {
            out.extend_from_slice(&lead);
        }
        self.nulls.end(out);
    }

    /// How many `null`s went since this was asked last.
    pub(crate) fn take_nulls(&mut self) -> u64 {
        std::mem::take(&mut self.nulls.dropped)
    }

    fn text(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut floor = out.len();
        self.nulls.release(out);
        let (blocks, rest) = bytes.as_chunks::<BLOCK>();
        for blocks in blocks.chunks(STRETCH / BLOCK) {
            match self.nulls.go() {
                true => self.stretch_without_nulls(blocks, out, &mut floor),
                false => self.stretch(blocks, out),
            }
        }
        for &byte in rest {
            self.byte(byte, out, &mut floor);
        }
        if self.nulls.go() {
            self.nulls.hold(out, floor, self.strings.inside != 0);
        }
    }

    fn stretch(&mut self, blocks: &[[u8; BLOCK]], out: &mut Vec<u8>) {
        let mut at = 0;
        for block in blocks {
            let vectors = Vectors::load(block);
            let Kept { keep, .. } = self.keep(&vectors);
            at = put(&vectors, keep, &mut self.kept, at);
        }
        out.extend_from_slice(self.kept.get(..at).unwrap_or_default());
    }

    fn stretch_without_nulls(
        &mut self,
        blocks: &[[u8; BLOCK]],
        out: &mut Vec<u8>,
        floor: &mut usize,
    ) {
        let mut at = 0;
        for block in blocks {
            let vectors = Vectors::load(block);
            let Kept {
                mut keep,
                strings,
                stray,
            } = self.keep(&vectors);
            if !self.nulls.to_come.is_empty() {
                keep &= u64::MAX << self.nulls.go_on(block, out);
            }
            if self.nulls.comma {
                keep = self.without_comma(block, keep);
            }
            let mut nulls = match self.nulls.go() {
                true => vectors.equal(b'n') & !strings & keep,
                false => 0,
            };
            if stray != 0 {
                nulls &= stray ^ (stray - 1);
            }
            while nulls != 0 {
                let null = nulls.trailing_zeros();
                nulls &= nulls - 1;
                let before = (1 << null) - 1;
                at = put(&vectors, keep & before, &mut self.kept, at);
                out.extend_from_slice(self.kept.get(..at).unwrap_or_default());
                (at, keep) = (0, keep & !before);
                let rest = block.get(null as usize..).unwrap_or_default();
                let letters = self.nulls.drop(rest, out, floor);
                if letters > 0 {
                    keep &= u64::MAX.checked_shl(null + letters).unwrap_or(0);
                    nulls &= keep;
                    if self.nulls.comma {
                        keep = self.without_comma(block, keep);
                    }
                }
            }
            at = put(&vectors, keep, &mut self.kept, at);
            if stray != 0 {
                self.nulls.stop();
            }
        }
        out.extend_from_slice(self.kept.get(..at).unwrap_or_default());
    }

    /// Leaves out the comma behind the first value of an array or object, which went.
    fn without_comma(&mut self, block: &[u8; BLOCK], keep: u64) -> u64 {
        // There may be none of it in this block.
        let Some(next) = block.get(keep.trailing_zeros() as usize) else {
            return keep;
        };
        self.nulls.comma = false;
        match next {
            b',' => keep & (keep - 1),
            _ => keep,
        }
    }

    /// As a block is taken, for one byte.
    fn byte(&mut self, byte: u8, out: &mut Vec<u8>, floor: &mut usize) {
        let quote = byte == b'"' && self.strings.escaped == 0;
        self.strings.escaped = u64::from(byte == b'\\' && self.strings.escaped == 0);
        self.strings.inside ^= spread(u64::from(quote));
        let is_outside = self.strings.inside == 0;
        if is_outside && byte == b'\\' {
            self.nulls.stop();
        }
        if !self.nulls.to_come.is_empty() && self.nulls.go_on(&[byte], out) > 0 {
            return;
        }
        if is_outside && is_space(byte) {
            return;
        }
        if std::mem::take(&mut self.nulls.comma) && byte == b',' {
            return;
        }
        let is_null = is_outside && byte == b'n' && self.nulls.go();
        if is_null && self.nulls.drop(&[byte], out, floor) > 0 {
            return;
        }
        out.push(byte);
    }

    #[inline(always)]
    fn keep(&mut self, vectors: &Vectors) -> Kept {
        let classes = vectors.classes();
        let escaped = match classes.backslashes | self.strings.escaped {
            0 => 0,
            _ => self.strings.escapes(classes.backslashes),
        };
        let strings = prefix_xor(classes.quotes & !escaped) ^ self.strings.inside;
        self.strings.inside = spread(strings >> 63);
        Kept {
            keep: !classes.spaces | strings,
            strings,
            stray: classes.backslashes & !strings,
        }
    }
}

/// What of a block is what.
struct Kept {
    /// What stays, but for `null`s.
    keep: u64,
    strings: u64,
    /// Backslashes outside of strings: after one the text is no JSON, in which names are not read backwards any more.
    stray: u64,
}

/// Whether a text begins here; `None` where there is too little to say. RFC 8259 §8.1 wants UTF-8 without a byte order mark, and in
/// any other encoding of Unicode one of the first two bytes of a text is none of ASCII or zero.
fn begins(bytes: &[u8]) -> Option<Result<(), Invalid>> {
    let lead = bytes.iter().take_while(|&&byte| is_space(byte)).count();
    if lead > LEAD {
        return Some(Err(Invalid::UnexpectedByte));
    }
    let (first, second) = (bytes.get(lead), bytes.get(lead + 1));
    Some(match (first?, second) {
        (0 | 0xef | 0xfe | 0xff, _) | (_, Some(0)) => Err(Invalid::Encoding),
        (b'{' | b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n', second) => {
            second?;
            Ok(())
        }
        _ => Err(Invalid::UnexpectedByte),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Config, Framing, Lexer, Rewriter, Rules};
    use std::rc::Rc;

    fn bare(chunks: &[&[u8]]) -> (Vec<u8>, Option<Invalid>) {
        bare_without(DropNulls::Never, chunks)
    }

    fn bare_without(nulls: DropNulls, chunks: &[&[u8]]) -> (Vec<u8>, Option<Invalid>) {
        let (mut engine, mut out, mut invalid) = (Bare::new(nulls), Vec::new(), None);
        for chunk in chunks {
            invalid = engine.push(chunk, &mut out).or(invalid);
        }
        invalid = engine.finish(&mut out).or(invalid);
        (out, invalid)
    }

    fn checked(text: &[u8]) -> (Vec<u8>, Option<Invalid>) {
        let (mut lexer, mut out) = (Lexer::new(Framing::Single, 64), Vec::new());
        let invalid = lexer.push(text, &mut out);
        let invalid = invalid.or_else(|| lexer.finish(&mut out));
        (out, invalid)
    }

    #[test]
    fn what_is_no_text_goes_on_as_it_came() {
        let spaces = [b' '; LEAD + 1];
        for (text, want) in [
            (&b"\n <html> <p>"[..], Invalid::UnexpectedByte),
            (b"\xef\xbb\xbf{ }", Invalid::Encoding),
            (b"\xff\xfe{\0 \0}\0", Invalid::Encoding),
            (b"{\0 \0}\0", Invalid::Encoding),
            (b"\0{\0 \0}", Invalid::Encoding),
            (&spaces, Invalid::UnexpectedByte),
            (b" \n", Invalid::Truncated),
            (b"", Invalid::Truncated),
        ] {
            assert_eq!(bare(&[text]), (text.to_vec(), Some(want)), "{text:?}");
            let single: Vec<&[u8]> = text.chunks(1).collect();
            assert_eq!(bare(&single), (text.to_vec(), Some(want)), "{text:?}");
        }
    }

    #[test]
    fn strings_stay_whatever_is_in_them() {
        for (text, want) in [
            (
                r#"{ "a b" : "c \" d \\" , "e" : 1 }"#,
                r#"{"a b":"c \" d \\","e":1}"#,
            ),
            (" 1 ", "1"),
            ("7", "7"),
            (" \t\r\n[ ]\n", "[]"),
        ] {
            assert_eq!(bare(&[text.as_bytes()]), (want.into(), None), "{text}");
        }
        let cut = bare(&[br#"["a b"#]);
        assert_eq!(cut, (br#"["a b"#.to_vec(), Some(Invalid::Truncated)));
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            "[ \\\\\"a\n\u{e9}]{0,80}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..8).prop_map(Into::into),
                proptest::collection::btree_map("[ \\\\\"a]{0,40}", inner, 0..8)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn checked_without(nulls: DropNulls, text: &[u8]) -> Vec<u8> {
        let rules = Rules::check(&Config {
            drop_nulls: nulls,
            ..Config::default()
        });
        let rules = Rc::new(rules.unwrap());
        let mut rewriter = Rewriter::new(Framing::Single, 512, false, rules, None);
        let mut out = Vec::new();
        assert_eq!(rewriter.push(text, &mut out), None);
        assert_eq!(rewriter.finish(&mut out), None);
        out
    }

    const PIECES: [&str; 14] = [
        "null",
        "n",
        "u",
        "\"",
        "\\",
        ":",
        ",",
        "{",
        "}",
        "[",
        "]",
        " ",
        "\"a\":null",
        "1",
    ];
    const WHICH: [DropNulls; 2] = [DropNulls::Members, DropNulls::All];

    #[test]
    fn nulls_go_with_their_names_and_a_comma() {
        let long = "n".repeat(crate::rewriter::LONGEST_NAME);
        for (text, members, all) in [
            (r#"{ "a" : null }"#, "{}", "{}"),
            (r#"{ "a" : null , "b" : 1 }"#, r#"{"b":1}"#, r#"{"b":1}"#),
            (r#"{ "a" : 1 , "b" : null }"#, r#"{"a":1}"#, r#"{"a":1}"#),
            (
                r#"{"a,\"b\\":null,"null":"null","c":[null,null,1,null,{"d":null}]}"#,
                r#"{"null":"null","c":[null,null,1,null,{}]}"#,
                r#"{"null":"null","c":[1,{}]}"#,
            ),
            ("null", "null", "null"),
            ("[ null ]", "[null]", "[]"),
            ("[[null],null,[]]", "[[null],null,[]]", "[[],[]]"),
            (&format!(r#"{{"{long}":null}}"#), "{}", "{}"),
            (
                &format!(r#"{{"{long}n":null}}"#),
                &format!(r#"{{"{long}n":null}}"#),
                &format!(r#"{{"{long}n":null}}"#),
            ),
        ] {
            for (which, want) in WHICH.into_iter().zip([members, all]) {
                for length in [1, 2, 3, 5, 63, 64, 65, 5000] {
                    let chunks: Vec<&[u8]> = text.as_bytes().chunks(length).collect();
                    let found = bare_without(which, &chunks);
                    assert_eq!(found, (want.into(), None), "{text} by {length}");
                }
            }
        }
    }

    #[test]
    fn what_goes_is_put_back_where_the_rest_goes_on_as_it_comes() {
        let text = br#"{"a": null , "b": [ 1, null ], "c": null}"#;
        for at in 2..text.len() {
            let (first, rest) = text.split_at(at);
            for which in WHICH {
                let (mut engine, mut out) = (Bare::new(which), Vec::new());
                assert_eq!(engine.push(first, &mut out), None);
                engine.pass(&mut out);
                engine.push(rest, &mut out);
                let whole: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
                assert!(whole["b"][0] == 1, "{}", String::from_utf8_lossy(&out));
            }
        }
    }

    proptest! {
        #[test]
        fn of_json_the_same_is_left_as_where_it_is_checked(value in json(), at in any::<prop::sample::Index>()) {
            let text = serde_json::to_vec_pretty(&value).unwrap();
            let want = checked(&text);
            prop_assert_eq!(want.1, None);
            prop_assert_eq!(&bare(&[&text]), &want);
            let (first, second) = text.split_at(at.index(text.len()));
            prop_assert_eq!(&bare(&[first, second]), &want);
        }

        #[test]
        fn of_nulls_the_same_go_as_where_it_is_checked(value in json(), pretty: bool, at in any::<prop::sample::Index>()) {
            let text = match pretty {
                true => serde_json::to_vec_pretty(&value).unwrap(),
                false => serde_json::to_vec(&value).unwrap(),
            };
            let (first, second) = text.split_at(at.index(text.len()));
            for which in WHICH {
                let want = (checked_without(which, &text), None);
                prop_assert_eq!(&bare_without(which, &[&text]), &want);
                prop_assert_eq!(&bare_without(which, &[first, second]), &want);
            }
        }

        #[test]
        fn any_chunks_give_the_same(text: Vec<u8>, length in 1_usize..200) {
            let text = [b"[", &text[..]].concat();
            let chunks: Vec<&[u8]> = text.chunks(length).collect();
            prop_assert_eq!(bare(&chunks), bare(&[&text]));
        }

        #[test]
        fn any_chunks_give_the_same_without_nulls(
            pieces in proptest::collection::vec(proptest::sample::select(&PIECES[..]), 0..120),
            length in 1_usize..200,
        ) {
            let text = ["[", &pieces.concat()].concat().into_bytes();
            let chunks: Vec<&[u8]> = text.chunks(length).collect();
            for which in WHICH {
                prop_assert_eq!(bare_without(which, &chunks), bare_without(which, &[&text]));
            }
        }
    }
}
