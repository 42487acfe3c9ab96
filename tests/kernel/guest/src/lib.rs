//! What runs inside wasmtime: the minifier, the rewriter, a transcoder and a copy, over a buffer of the module.
//!
//! `input(length)` gives the address of that many bytes to fill; each of the others works on them and says how long what
//! came of it is, which is at `output()`.

use std::cell::RefCell;
use std::rc::Rc;

use edgeweir_minify::{Bare, DropNulls, Framing, Lexer, Rewriter, Rules};

#[derive(Default)]
struct Buffers {
    input: Vec<u8>,
    output: Vec<u8>,
    reason: &'static str,
    rules: Option<Rc<Rules>>,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

fn with(work: impl FnOnce(&mut Buffers)) -> usize {
    BUFFERS.with_borrow_mut(|buffers| {
        work(buffers);
        buffers.output.len()
    })
}

/// Makes room for `length` bytes of input.
#[unsafe(no_mangle)]
pub extern "C" fn input(length: usize) -> *mut u8 {
    BUFFERS.with_borrow_mut(|buffers| {
        buffers.input.resize(length, 0);
        buffers.output.reserve(length + 1);
        buffers.input.as_mut_ptr()
    })
}

/// Where the output is.
#[unsafe(no_mangle)]
pub extern "C" fn output() -> *const u8 {
    BUFFERS.with_borrow(|buffers| buffers.output.as_ptr())
}

/// Minifies the input in chunks; framing 0 is one text, 1 lines, 2 a sequence.
#[unsafe(no_mangle)]
pub extern "C" fn minify(chunk: usize, framing: u32, max_depth: usize) -> usize {
    let framing = match framing {
        1 => Framing::Lines,
        2 => Framing::Sequence,
        _ => Framing::Single,
    };
    with(
        |Buffers {
             input,
             output,
             reason,
             ..
         }| {
            output.clear();
            let mut lexer = Lexer::new(framing, max_depth);
            let mut invalid = None;
            for chunk in input.chunks(chunk.max(1)) {
                invalid = lexer.push(chunk, output).or(invalid);
            }
            invalid = lexer.finish(output).or(invalid);
            *reason = invalid.map_or("", |invalid| invalid.counter());
        },
    )
}

/// Leaves out the whitespace of the input in chunks, and checks nothing; `null`s go too where `nulls` is 1 (members) or 2 (all).
#[unsafe(no_mangle)]
pub extern "C" fn bare(chunk: usize, nulls: u32) -> usize {
    let nulls = match nulls {
        1 => DropNulls::Members,
        2 => DropNulls::All,
        _ => DropNulls::Never,
    };
    with(|Buffers { input, output, .. }| {
        output.clear();
        let mut bare = Bare::new(nulls);
        for chunk in input.chunks(chunk.max(1)) {
            bare.push(chunk, output);
        }
        bare.finish(output);
    })
}

/// Takes the input as a configuration whose rules are for `rewrite`; puts what is wrong with it into the output.
#[unsafe(no_mangle)]
pub extern "C" fn rules() -> usize {
    with(
        |Buffers {
             input,
             output,
             rules,
             ..
         }| {
            output.clear();
            let config = serde_json::from_slice(input).map_err(|error| error.to_string());
            match config.and_then(|config| Rules::check(&config).map_err(|error| error.to_string()))
            {
                Ok(checked) => *rules = Some(Rc::new(checked)),
                Err(error) => output.extend_from_slice(error.as_bytes()),
            }
        },
    )
}

/// Rewrites the input in chunks by the rules; from an invalid byte on it ends.
#[unsafe(no_mangle)]
pub extern "C" fn rewrite(chunk: usize, max_depth: usize) -> usize {
    with(
        |Buffers {
             input,
             output,
             reason,
             rules,
         }| {
            output.clear();
            let Some(rules) = rules else {
                return;
            };
            let rules = Rc::clone(rules);
            let mut rewriter = Rewriter::new(Framing::Single, max_depth, true, rules, None);
            let mut invalid = None;
            for chunk in input.chunks(chunk.max(1)) {
                invalid = rewriter.push(chunk, output).or(invalid);
            }
            invalid = rewriter.finish(output).or(invalid);
            *reason = invalid.map_or("", |invalid| invalid.counter());
        },
    )
}

/// Why the last input was invalid: puts the reason's name into the output.
#[unsafe(no_mangle)]
pub extern "C" fn reason() -> usize {
    with(|Buffers { output, reason, .. }| {
        output.clear();
        output.extend_from_slice(reason.as_bytes());
    })
}

/// Reads the input and writes it compactly with serde_json; nothing when it is invalid.
#[unsafe(no_mangle)]
pub extern "C" fn transcode() -> usize {
    with(|Buffers { input, output, .. }| {
        output.clear();
        let mut reader = serde_json::Deserializer::from_slice(input);
        let mut writer = serde_json::Serializer::new(&mut *output);
        if serde_transcode::transcode(&mut reader, &mut writer).is_err() {
            output.clear();
        }
    })
}

/// Copies the input.
#[unsafe(no_mangle)]
pub extern "C" fn copy() -> usize {
    with(|Buffers { input, output, .. }| {
        output.clear();
        output.extend_from_slice(input);
    })
}
