//! The module, with its vectors, gives what the native code gives byte by byte.

use std::fmt::Arguments;
use std::fs;
use std::rc::Rc;

use edgeweir_kernel::{Kernel, document};
use edgeweir_minify::{Config, Framing, Lexer, Rewriter, Rules};

fn byte_by_byte(framing: Framing, text: &[u8]) -> (Vec<u8>, String) {
    let mut lexer = Lexer::new(framing, 512);
    let (mut out, mut invalid) = (Vec::new(), None);
    for byte in text.chunks(1) {
        invalid = invalid.or(lexer.push(byte, &mut out));
    }
    invalid = invalid.or(lexer.finish(&mut out));
    let reason = invalid.map_or("", |invalid| invalid.counter());
    (out, reason.to_owned())
}

/// Every file of the suite and of the fuzzer's corpus, alone and inside more.
fn texts() -> Vec<Vec<u8>> {
    let mut texts = vec![document::pretty(30_000)];
    for folder in ["tests/data/json-parsing", "tests/fuzz/corpus/json"] {
        // Cargo runs a test in its package's folder; where it was compiled may be another clone that shares the target folder.
        let folder = fs::read_dir(format!("../../{folder}")).expect("the folder");
        for file in folder {
            let text = fs::read(file.expect("a file").path()).expect("readable");
            for before in [0, 1, 13, 31, 47, 63] {
                let padding = " ".repeat(before);
                let end = [b' '; 128];
                texts.push([b"[ 1, ", padding.as_bytes(), &text, b" , [ \"a\" ] ]", &end].concat());
            }
            texts.push([&text[..], &[b' '; 128]].concat());
            texts.push(text);
        }
    }
    // A valid document with one byte changed, many times over.
    let whole = document::pretty(3_000);
    let bytes = b"{}[],:\" \n\t\\019-.eEtnf\x1e\x00y_\x7f\x80";
    for at in 0..whole.len() {
        let mut text = whole.clone();
        text[at] = bytes[at * 31 % bytes.len()];
        texts.push(text);
    }
    texts
}

#[test]
fn the_module_and_the_native_code_agree() {
    let mut kernel = Kernel::new().expect("the module");
    for (number, framing) in [Framing::Single, Framing::Lines, Framing::Sequence]
        .into_iter()
        .enumerate()
    {
        for text in texts() {
            let (want, reason) = byte_by_byte(framing, &text);
            for chunk in [100_000, 300, 129] {
                kernel.input(&text).expect("room");
                let length = kernel.minify(chunk, number as u32, 512).expect("no trap");
                let out = kernel.output(length).expect("the output");
                let length = kernel.call("reason").expect("no trap");
                let why = kernel.output(length).expect("the reason");
                assert!(
                    out == want && why == reason.as_bytes(),
                    "{framing:?}, chunks of {chunk}: {reason:?} {:?}\n{}\n{}\n{}",
                    String::from_utf8_lossy(&why),
                    String::from_utf8_lossy(&text),
                    String::from_utf8_lossy(&want),
                    String::from_utf8_lossy(&out),
                );
            }
        }
    }
}

/// What the rewriter makes of a text byte by byte.
fn rewritten(rules: &Rc<Rules>, text: &[u8]) -> Vec<u8> {
    let mut rewriter = Rewriter::new(Framing::Single, 512, true, Rc::clone(rules), None);
    let mut out = Vec::new();
    for byte in text.chunks(1) {
        rewriter.push(byte, &mut out);
    }
    rewriter.finish(&mut out);
    out
}

fn same(what: Arguments<'_>, text: &[u8], want: &[u8], out: &[u8]) {
    assert!(
        out == want,
        "{what}\n{}\n{}\n{}",
        String::from_utf8_lossy(text),
        String::from_utf8_lossy(want),
        String::from_utf8_lossy(out),
    );
}

#[test]
fn of_json_the_module_leaves_the_same_unchecked() {
    let mut kernel = Kernel::new().expect("the module");
    for (number, nulls) in [(1, "members"), (2, "all")] {
        let config = format!(r#"{{"drop_nulls":"{nulls}"}}"#);
        let config: Config = serde_json::from_str(&config).expect("a configuration");
        let rules = Rc::new(Rules::check(&config).expect("good rules"));
        let mut valid = 0;
        for text in texts() {
            if serde_json::from_slice::<serde_json::Value>(&text).is_err() {
                continue;
            }
            valid += 1;
            let want = rewritten(&rules, &text);
            for chunk in [100_000, 300, 7] {
                kernel.input(&text).expect("room");
                let length = kernel.bare(chunk, number).expect("no trap");
                let out = kernel.output(length).expect("the output");
                same(
                    format_args!("{nulls}, chunks of {chunk}"),
                    &text,
                    &want,
                    &out,
                );
            }
        }
        assert!(valid > 1_000, "{valid}");
    }
}

#[test]
fn the_module_rewrites_as_the_native_code_does() {
    let mut kernel = Kernel::new().expect("the module");
    for config in [
        r#"{"drop_nulls":"members"}"#,
        r#"{"drop_nulls":"all","exclude":["data(customer/address,note)"]}"#,
        r#"{"include":["data(id,customer/name,items/sku)"]}"#,
        r#"{"exclude":["data(customer/address,note)"],"redact":[{"path":"data/customer/email"}]}"#,
        r#"{"redact":[{"path":"data/items"},{"key":"email","replace":"last4"},{"pattern":"email"}]}"#,
    ] {
        kernel.rules(config).expect("good rules");
        let rules: Config = serde_json::from_str(config).expect("a configuration");
        let rules = Rc::new(Rules::check(&rules).expect("good rules"));
        for text in texts() {
            let want = rewritten(&rules, &text);
            for chunk in [100_000, 300] {
                kernel.input(&text).expect("room");
                let length = kernel.rewrite(chunk, 512).expect("no trap");
                let out = kernel.output(length).expect("the output");
                same(
                    format_args!("{config}, chunks of {chunk}"),
                    &text,
                    &want,
                    &out,
                );
            }
        }
    }
}
