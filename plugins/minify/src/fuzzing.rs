//! What the fuzz targets of `tests/fuzz` call: they take any bytes and panic when a promise is broken.
//!
//! The input of `rewrite` is a line that chooses (rules, framing, what becomes of the unreadable, where it is cut, what it is put behind), and after it the
//! body, so that a corpus can be read.

use std::cell::LazyCell;
use std::rc::Rc;

use edgeweir_filter::load;

use crate::bare::LEAD;
use crate::lexer::is_space;
use crate::{Bare, DropNulls, Framing, Invalid, Lexer, Mask, Minify, Rewriter, Rules};

/// A fuzz target: takes any bytes.
pub type Run = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: [(&str, Run); 3] = [("rewrite", rewrite), ("mask", mask), ("json", json)];

/// By the first byte of the line.
const RULES: [&str; 9] = [
    r#"{"drop_nulls":"members"}"#,
    r#"{"drop_nulls":"all"}"#,
    r#"{"include":["a,b/c,*/d(e,*)"]}"#,
    r#"{"exclude":["a,b/c,*/d(e,*)"],"drop_nulls":"all"}"#,
    r#"{"redact":[{"path":"a/b,*/c"},{"key":"d","ignore_case":true,"replace":"last4"}]}"#,
    r#"{"redact":[{"pattern":"card","replace":"last4"},{"pattern":"email"}],"max_value_bytes":64}"#,
    r#"{"include":["a,b/c"],"exclude":["*/d"],"redact":[{"key":"c","replace":"hash"}],"hash_key":"0123456789abcdef","max_value_bytes":64}"#,
    r#"{"exclude":["a,b/c,*/d(e,*)"],"redact":[{"path":"f/g,*/h"}]}"#,
    r#"{"exclude":["\u0001/\u0002"]}"#,
];

/// A body, rewritten: the same however it is cut, nothing but JSON of JSON, and as the lexer has it where no rule is for it.
pub fn rewrite(data: &[u8]) {
    let at = data.iter().position(|&byte| byte == b'\n');
    let (line, body) = data.split_at(at.unwrap_or(data.len()));
    let body = body.get(1..).unwrap_or_default();
    let choice = |at: usize| usize::from(line.get(at).copied().unwrap_or(0));
    let body = &[behind(choice(3) & 16 != 0), body].concat()[..];
    let rules = choice(0) % RULES.len();
    let framing = match choice(1) % 3 {
        0 => Framing::Single,
        1 => Framing::Lines,
        _ => Framing::Sequence,
    };
    let cuts = choice(2) % 2 == 1;
    let piece = 1 + choice(3) % 16;

    let (whole, invalid) = rewritten(rules, framing, cuts, body, usize::MAX);
    let pieces = rewritten(rules, framing, cuts, body, piece);
    assert_eq!((&whole, invalid), (&pieces.0, pieces.1), "cut by {piece}");
    let (minified, of_lexer) = lexed(framing, 20, [body]);
    let has_mark = body.first() == Some(&0xef);
    if !(cuts && has_mark) {
        assert_eq!(invalid, of_lexer);
    }
    if rules == RULES.len() - 1 && !cuts {
        assert_eq!(whole, minified);
    }
    if invalid.is_none() && !has_mark {
        let (again, still) = lexed(framing, 20, [&whole[..]]);
        assert_eq!((again, still), (whole, None), "of JSON came other");
    }
}

thread_local! {
    /// To read them costs more than a body.
    static CHECKED: LazyCell<Vec<Rc<Rules>>> = LazyCell::new(|| RULES.iter().filter_map(|rules| {
        let minify: Minify = load(rules.as_bytes()).ok()?;
        Some(Rc::clone(&minify.settings.rules))
    }).collect());
}

fn rewritten(
    rules: usize,
    framing: Framing,
    cuts: bool,
    body: &[u8],
    piece: usize,
) -> (Vec<u8>, Option<Invalid>) {
    let Some(rules) = CHECKED.with(|checked| checked.get(rules).cloned()) else {
        panic!("there are {} rules", RULES.len());
    };
    let mut rewriter = Rewriter::new(framing, 20, cuts, rules, None);
    let (mut out, mut invalid) = (Vec::new(), None);
    for chunk in body.chunks(piece) {
        invalid = invalid.or(rewriter.push(chunk, &mut out));
    }
    invalid = invalid.or_else(|| rewriter.finish(&mut out));
    (out, invalid)
}

fn lexed<'c>(
    framing: Framing,
    depth: usize,
    chunks: impl IntoIterator<Item = &'c [u8]>,
) -> (Vec<u8>, Option<Invalid>) {
    let mut lexer = Lexer::new(framing, depth);
    let (mut out, mut invalid) = (Vec::new(), None);
    for chunk in chunks {
        invalid = invalid.or(lexer.push(chunk, &mut out));
    }
    invalid = invalid.or_else(|| lexer.finish(&mut out));
    (out, invalid)
}

fn unchecked<'c>(nulls: DropNulls, chunks: impl IntoIterator<Item = &'c [u8]>) -> Vec<u8> {
    let (mut bare, mut out) = (Bare::new(nulls), Vec::new());
    for chunk in chunks {
        bare.push(chunk, &mut out);
    }
    bare.finish(&mut out);
    out
}

/// A body whole, cut in two and byte by byte becomes the same, checked or not; and what is JSON becomes the same by both.
pub fn json(data: &[u8]) {
    let Some((&[how, cut], text)) = data.split_first_chunk::<2>() else {
        return;
    };
    let framing = match how & 3 {
        1 => Framing::Lines,
        2 => Framing::Sequence,
        _ => Framing::Single,
    };
    let depth = if how & 4 == 0 { 512 } else { 5 };
    let text = [behind(how & 8 != 0), text].concat();
    let want = lexed(framing, depth, text.chunks(1));
    assert_eq!(lexed(framing, depth, [&text[..]]), want);
    let at = usize::from(cut) * text.len() / 256;
    let (first, second) = text.split_at(at);
    assert_eq!(lexed(framing, depth, [first, second]), want);
    for (rules, nulls) in [DropNulls::Members, DropNulls::All].into_iter().enumerate() {
        let without = unchecked(nulls, text.chunks(1));
        assert_eq!(unchecked(nulls, [&text[..]]), without);
        assert_eq!(unchecked(nulls, [first, second]), without);
        let (rewritten, invalid) = rewritten(rules, Framing::Single, false, &text, usize::MAX);
        // What begins with more whitespace is not looked at unchecked.
        let lead = text.iter().take_while(|&&byte| is_space(byte)).count();
        if invalid.is_none() && lead <= LEAD {
            assert_eq!(without, rewritten);
        }
    }
}

/// Blocks are only looked for in bodies of some length: what is short is put behind something.
fn behind(something: bool) -> &'static [u8] {
    match something {
        false => b"",
        true => br#"["a string that is here to be long",                                                                          "#,
    }
}

/// A mask of a client: read within its bounds, or refused at a byte that it has.
pub fn mask(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match Mask::parse(text, 128) {
        Err(bad) => assert!(bad.at <= text.len(), "{bad}"),
        Ok(_) => {
            let again = format!("a({text})");
            let levels = Mask::parse(&again, 129);
            if let Err(bad) = levels {
                assert!(bad.why.starts_with("more than 32"), "{again}: {bad}");
            }
        }
    }
}
