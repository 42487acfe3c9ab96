//! Coding with a dictionary (RFC 9842): what comes out is what decoders with that dictionary read, and far smaller.

use std::rc::Rc;

use brotli::enc::StandardAlloc;
use brotli::{BrotliDecompressStream, BrotliResult, BrotliState, SliceWrapperMut};
use edgeweir_compress::{Coding, Dictionary, Flush, Plan};
use proptest::prelude::*;

/// A bundle of a script as build tools make them: `changed` of 1,000 functions differ from version 1.
fn bundle(functions: usize, changed: usize) -> Vec<u8> {
    let mut seed = 3_u64;
    let mut draw = |most: usize| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % most
    };
    let names = [
        "state", "props", "children", "render", "update", "dispatch", "element", "value", "index",
        "length",
    ];
    let mut text = String::from("(()=>{\"use strict\";");
    for at in 0..functions {
        let (a, b, c) = (names[draw(10)], names[draw(10)], names[draw(10)]);
        let (x, y) = (draw(100_000), draw(1000));
        let new = if (at * 7919) % 1000 < changed {
            "null!==e&&"
        } else {
            ""
        };
        text.push_str(&format!(
            "function {}{x:x}(e,t,n){{var r={new}e.{a}.{b}({y},t[\"{c}\"]);if(!r||r.{b}>{x})return n(r,{y});\
             for(let o=0;o<e.{c};o++)t.push(r.{a}(o+{y}));return t}}",
            ["a", "b", "x", "_"][draw(4)],
        ));
    }
    text.push_str("})();");
    text.into_bytes()
}

fn code(plan: &Plan, body: &[u8], chunk: usize, flush: Flush) -> Vec<u8> {
    let mut encoder = plan.encoder();
    let mut out = Vec::new();
    for piece in body.chunks(chunk) {
        encoder.feed(piece, flush, &mut out).expect("codes");
    }
    encoder.feed(&[], Flush::End, &mut out).expect("ends");
    out
}

/// RFC 9842 §4, §5: checks what goes before the stream and gives the stream.
fn stream<'a>(coding: Coding, dictionary: &Dictionary, coded: &'a [u8]) -> &'a [u8] {
    let magic: &[u8] = match coding {
        Coding::Brotli => &[0xff, 0x44, 0x43, 0x42],
        _ => &[0x5e, 0x2a, 0x4d, 0x18, 0x20, 0, 0, 0],
    };
    let rest = coded.strip_prefix(magic).expect("the magic number");
    rest.strip_prefix(dictionary.sha256()).expect("the hash")
}

/// What a decoder with the dictionary makes of it, and whether that is all. It refuses a copy that goes on after the
/// dictionary's end, as those of browsers do.
fn decoded_brotli(dictionary: &[u8], coded: &[u8]) -> (Vec<u8>, bool) {
    let alloc = StandardAlloc::default;
    let mut state = BrotliState::new_strict(alloc(), alloc(), alloc());
    let mut copy = brotli::Allocator::<u8>::alloc_cell(&mut alloc(), dictionary.len());
    copy.slice_mut().copy_from_slice(dictionary);
    assert!(state.attach_dictionary(copy), "a raw dictionary");
    let (mut plain, mut total) = (Vec::new(), 0);
    let (mut left, mut read) = (coded.len(), 0);
    loop {
        let mut piece = vec![0; 65_536];
        let (mut room, mut wrote) = (piece.len(), 0);
        let result = BrotliDecompressStream(
            &mut left, &mut read, coded, &mut room, &mut wrote, &mut piece, &mut total, &mut state,
        );
        plain.extend_from_slice(&piece[..wrote]);
        match result {
            BrotliResult::ResultSuccess => return (plain, true),
            BrotliResult::NeedsMoreInput => return (plain, false),
            BrotliResult::NeedsMoreOutput => {}
            BrotliResult::ResultFailure => panic!("not a stream: {:?}", state.error_code),
        }
    }
}

fn decode_brotli(dictionary: &[u8], coded: &[u8]) -> Vec<u8> {
    let (plain, all) = decoded_brotli(dictionary, coded);
    assert!(all, "the stream has an end");
    plain
}

fn decode_zstd(dictionary: &[u8], coded: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    // A prefix is for one frame, and the hash is in one of its own.
    let mut decoder =
        zstd::stream::read::Decoder::with_ref_prefix(coded, dictionary).expect("a decoder");
    // RFC 9842 §5: clients have a window of at least 8 MiB.
    decoder.window_log_max(23).expect("a window");
    std::io::Read::read_to_end(&mut decoder, &mut plain).expect("a stream");
    plain
}

fn check(
    coding: Coding,
    level: u8,
    old: &[u8],
    new: &[u8],
    declared: bool,
    chunk: usize,
    flush: Flush,
) -> usize {
    let dictionary = Rc::new(Dictionary::new(old.to_vec()));
    let plan = Plan::new(coding, level, 20, declared.then_some(new.len() as u64));
    let plan = plan
        .with_dictionary(Rc::clone(&dictionary))
        .expect("a coding that has it");
    let coded = code(&plan, new, chunk, flush);
    let inner = stream(coding, &dictionary, &coded);
    let plain = match coding {
        Coding::Brotli => decode_brotli(old, inner),
        _ => decode_zstd(old, inner),
    };
    let what = (plan.token(), level, old.len(), new.len(), chunk, flush);
    assert!(plain == new, "{what:?}");
    coded.len()
}

#[test]
fn a_new_version_is_far_smaller_than_by_itself() {
    let (old, new) = (bundle(4000, 0), bundle(4000, 20));
    let alone = |coding, level| {
        code(
            &Plan::new(coding, level, 22, Some(new.len() as u64)),
            &new,
            new.len(),
            Flush::Now,
        )
        .len()
    };
    let best = alone(Coding::Brotli, 11);
    println!(
        "{} bytes; br 11 alone {best}, br 5 {}, zstd 3 {}",
        new.len(),
        alone(Coding::Brotli, 5),
        alone(Coding::Zstd, 3)
    );
    for (coding, level) in [
        (Coding::Brotli, 2),
        (Coding::Brotli, 4),
        (Coding::Brotli, 5),
        (Coding::Brotli, 9),
        (Coding::Brotli, 11),
        (Coding::Zstd, 1),
        (Coding::Zstd, 3),
    ] {
        let size = check(coding, level, &old, &new, true, 1 << 20, Flush::Now);
        println!("{coding:?} {level} with version 1: {size}");
        assert!(
            size * 15 < best,
            "{coding:?} {level}: {size} bytes, br 11 alone {best}"
        );
    }
}

#[test]
fn any_level_dictionary_and_cut_comes_back() {
    let (old, new) = (bundle(300, 0), bundle(320, 100));
    for (coding, levels) in [(Coding::Brotli, 0..=11), (Coding::Zstd, 1..=4)] {
        for level in levels {
            for dictionary in [
                &old[..2],
                &old[..9],
                &old[..1000],
                &old,
                b"not alike at all, by any measure",
            ] {
                for (chunk, flush) in [
                    (1 << 20, Flush::Now),
                    (1000, Flush::Now),
                    (1000, Flush::Later),
                ] {
                    check(coding, level, dictionary, &new, chunk > 1000, chunk, flush);
                }
            }
        }
        check(coding, 3, &old, b"", true, 1, Flush::Now);
        check(coding, 3, &old, b"x", true, 1, Flush::Now);
    }
}

#[test]
fn bodies_and_dictionaries_beyond_the_window() {
    let (old, new) = (bundle(14_000, 0), bundle(14_500, 30));
    assert!(old.len() > 2 << 20, "{}", old.len());
    for (coding, level) in [
        (Coding::Brotli, 2),
        (Coding::Brotli, 5),
        (Coding::Zstd, 1),
        (Coding::Zstd, 2),
        (Coding::Zstd, 3),
        (Coding::Zstd, 4),
    ] {
        for declared in [true, false] {
            check(coding, level, &old, &new, declared, 64 << 10, Flush::Later);
            check(
                coding,
                level,
                &old[..100_000],
                &new,
                declared,
                16 << 10,
                Flush::Now,
            );
        }
    }
}

/// What follows the dictionary's end in a body that begins with it may begin as the dictionary does, or as its end.
#[test]
fn bodies_that_grow() {
    let line = |at: usize| {
        let (user, path) = (at * 7919 % 9000 + 1000, at * 104_729 % 100_000);
        format!(
            "{{\"time\":\"2026-11-{:02}T{:02}:{:02}:00Z\",\"user\":{user},\"path\":\"/a/{path}\"}}\n",
            at % 28 + 1,
            at % 24,
            at % 60
        )
    };
    let log = |lines: usize| (0..lines).map(line).collect::<String>().into_bytes();
    let table = |rows: usize| {
        let row = |at| format!("a{at},b\n");
        ["a,b\n".to_owned()]
            .into_iter()
            .chain((0..rows).map(row))
            .collect::<String>()
            .into_bytes()
    };
    let (head, tail) = (
        b"head ".repeat(100),
        &b"0123456789abcdefghijklmnopqrstuvwxyz-+"[..],
    );
    for (old, new) in [
        (log(800), log(1000)),
        (table(3000), table(3100)),
        (bundle(50, 0), bundle(50, 0).repeat(2)),
        ([&head[..], tail].concat(), tail.repeat(20)),
        (b"gn".to_vec(), b"nnngn".to_vec()),
        (b"gcc".to_vec(), b"cgcc".repeat(150)),
    ] {
        for level in 0..=11 {
            check(Coding::Brotli, level, &old, &new, true, 1 << 20, Flush::Now);
            check(Coding::Brotli, level, &old, &new, false, 700, Flush::Now);
        }
        for level in 1..=4 {
            check(Coding::Zstd, level, &old, &new, true, 1 << 20, Flush::Now);
        }
    }
}

proptest! {
    #[test]
    fn what_was_flushed_is_decodable(
        level in 0..=11_u8,
        old in "[a-c]{0,40}|([a-h]{2,9} ){0,90}",
        parts in prop::collection::vec((any::<prop::sample::Index>(), 0..200_usize, "[a-d \u{e9}]{0,9}", any::<bool>()), 1..20),
        declared in any::<bool>(),
    ) {
        let pieces: Vec<(Vec<u8>, bool)> = parts.into_iter().map(|(from, length, new, flushed)| {
            let from = from.index(old.len() + 1);
            let copy = &old.as_bytes()[from..old.len().min(from + length)];
            ([copy, new.as_bytes()].concat(), flushed)
        }).collect();
        let length = pieces.iter().map(|(piece, _)| piece.len() as u64).sum();
        let dictionary = Rc::new(Dictionary::new(old.clone().into_bytes()));
        let plan = Plan::new(Coding::Brotli, level, 20, declared.then_some(length));
        let plan = plan.with_dictionary(Rc::clone(&dictionary)).expect("it has dictionaries");
        let (mut encoder, mut out, mut fed) = (plan.encoder(), Vec::new(), Vec::new());
        for (piece, flushed) in pieces {
            let flush = if flushed { Flush::Now } else { Flush::Later };
            encoder.feed(&piece, flush, &mut out).expect("codes");
            fed.extend(piece);
            if flushed && !fed.is_empty() {
                let (plain, all) = decoded_brotli(old.as_bytes(), stream(Coding::Brotli, &dictionary, &out));
                prop_assert!(plain == fed && !all);
            }
        }
        encoder.feed(&[], Flush::End, &mut out).expect("ends");
        let inner = stream(Coding::Brotli, &dictionary, &out);
        prop_assert!(decoded_brotli(old.as_bytes(), inner) == (fed, true));
    }
}

#[test]
fn only_two_codings_have_dictionaries() {
    let dictionary = Rc::new(Dictionary::new(b"what was sent before".to_vec()));
    let token = |coding| {
        let plan = Plan::new(coding, 4, 20, None).with_dictionary(Rc::clone(&dictionary));
        plan.map(|plan| plan.token())
    };
    assert_eq!(
        Coding::ALL.map(token),
        [Some("dcz"), Some("dcb"), None, None]
    );
}
