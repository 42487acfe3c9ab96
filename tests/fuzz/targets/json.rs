#![no_main]
//! A body whole, cut in two and byte by byte becomes the same.
use edgeweir_minify::{Framing, Invalid, Lexer};

fn stream<'c>(
    framing: Framing,
    depth: usize,
    chunks: impl Iterator<Item = &'c [u8]>,
) -> (Vec<u8>, Option<Invalid>) {
    let mut lexer = Lexer::new(framing, depth);
    let (mut out, mut invalid) = (Vec::new(), None);
    for chunk in chunks {
        invalid = invalid.or(lexer.push(chunk, &mut out));
    }
    invalid = invalid.or(lexer.finish(&mut out));
    (out, invalid)
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((&[how, cut], text)) = data.split_first_chunk::<2>() else {
        return;
    };
    let framing = match how & 3 {
        1 => Framing::Lines,
        2 => Framing::Sequence,
        _ => Framing::Single,
    };
    let depth = if how & 4 == 0 { 512 } else { 5 };
    // Blocks are only looked for in bodies of some length: what is short is put behind something.
    let before: &[u8] = if how & 8 == 0 {
        b""
    } else {
        br#"["a string that is here to be long",                                                                          "#
    };
    let text = [before, text].concat();
    let want = stream(framing, depth, text.chunks(1));
    assert_eq!(stream(framing, depth, [&text[..]].into_iter()), want);
    let at = usize::from(cut) * text.len() / 256;
    let (first, second) = text.split_at(at);
    assert_eq!(stream(framing, depth, [first, second].into_iter()), want);
});
