//! Leaves out whitespace between strings, and looks at nothing else: for JSON that is known to be good.
//!
//! Where a text begins is all that is checked, so that a page of HTML or UTF-16 under the name of JSON goes on as it came.

use crate::Invalid;
use crate::block::{BLOCK, StringCarry, Vectors, prefix_xor, spread};
use crate::lexer::is_space;
use crate::stretch::{Packed, STRETCH};

/// Whitespace before a text, at most; what has more goes on as it came.
const LEAD: usize = 64;

/// One body.
#[derive(Clone, Debug)]
pub struct Bare {
    state: State,
    strings: StringCarry,
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

impl Default for Bare {
    fn default() -> Self {
        Self::new()
    }
}

impl Bare {
    /// For one body, with one text in it.
    pub fn new() -> Self {
        Self {
            state: State::Start(Vec::new()),
            strings: StringCarry::default(),
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
                    return None;
                }
                out.extend_from_slice(&lead);
                Some(Invalid::Truncated)
            }
            State::Text => (self.strings.inside != 0).then_some(Invalid::Truncated),
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
    }

    fn text(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let (blocks, rest) = bytes.as_chunks::<BLOCK>();
        for blocks in blocks.chunks(STRETCH / BLOCK) {
            let mut at = 0;
            for block in blocks {
                let keep = self.keep(block);
                let to = self.kept.get_mut(at..);
                if let Some(to) = to.and_then(|to| to.first_chunk_mut()) {
                    Vectors::load(block).compact(keep, to);
                }
                at += keep.count_ones() as usize;
            }
            out.extend_from_slice(self.kept.get(..at).unwrap_or_default());
        }
        for &byte in rest {
            // As `keep` has it, for one byte.
            let quote = byte == b'"' && self.strings.escaped == 0;
            self.strings.escaped = u64::from(byte == b'\\' && self.strings.escaped == 0);
            self.strings.inside ^= spread(u64::from(quote));
            if self.strings.inside != 0 || !is_space(byte) {
                out.push(byte);
            }
        }
    }

    /// The bytes of a block that stay.
    #[inline(always)]
    fn keep(&mut self, block: &[u8; BLOCK]) -> u64 {
        let classes = Vectors::load(block).classes();
        let escaped = match classes.backslashes | self.strings.escaped {
            0 => 0,
            _ => self.strings.escapes(classes.backslashes),
        };
        let strings = prefix_xor(classes.quotes & !escaped) ^ self.strings.inside;
        self.strings.inside = spread(strings >> 63);
        !classes.spaces | strings
    }
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
    use crate::{Framing, Lexer};

    fn bare(chunks: &[&[u8]]) -> (Vec<u8>, Option<Invalid>) {
        let (mut engine, mut out, mut invalid) = (Bare::new(), Vec::new(), None);
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
        fn any_chunks_give_the_same(text: Vec<u8>, length in 1_usize..200) {
            let text = [b"[", &text[..]].concat();
            let chunks: Vec<&[u8]> = text.chunks(length).collect();
            prop_assert_eq!(bare(&chunks), bare(&[&text]));
        }
    }
}
