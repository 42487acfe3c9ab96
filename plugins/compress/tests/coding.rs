//! What the encoders make is what decoders read, at every level, for any cut of the body, after each flush.

use std::io::{Read, Write};

use edgeweir_compress::{Coding, Decoder, Plan};
use proptest::prelude::*;

/// Decodes a complete body; an error when it is not complete.
fn decoded(coding: Coding, coded: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    match coding {
        Coding::Brotli => brotli::Decompressor::new(coded, 4096).read_to_end(&mut plain)?,
        Coding::Zstd => {
            ruzstd::decoding::StreamingDecoder::new(coded)
                .map_err(std::io::Error::other)?
                .read_to_end(&mut plain)?;
            let c = zstd::stream::decode_all(coded)?;
            assert!(c == plain, "two decoders of zstd read the same");
            plain.len()
        }
        Coding::Gzip => flate2::read::GzDecoder::new(coded).read_to_end(&mut plain)?,
        Coding::Deflate => flate2::read::ZlibDecoder::new(coded).read_to_end(&mut plain)?,
    };
    Ok(plain)
}

/// Decodes what there is of a body.
fn decodable(coding: Coding, coded: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    match coding {
        Coding::Brotli => {
            let mut decoder = brotli::DecompressorWriter::new(&mut plain, 1 << 22);
            decoder.write_all(coded).expect("a good prefix");
            decoder.flush().expect("a good prefix");
            drop(decoder);
        }
        Coding::Zstd => {
            let mut decoder = zstd::stream::write::Decoder::new(&mut plain).expect("a decoder");
            // RFC 9659 §3, in bits.
            decoder.window_log_max(23).expect("a window");
            decoder.write_all(coded).expect("a good prefix");
            decoder.flush().expect("a good prefix");
        }
        Coding::Gzip => {
            let mut decoder = flate2::write::GzDecoder::new(Vec::new());
            decoder.write_all(coded).expect("a good prefix");
            decoder.flush().expect("a good prefix");
            plain.clone_from(decoder.get_ref());
        }
        Coding::Deflate => {
            let mut decoder = flate2::write::ZlibDecoder::new(Vec::new());
            decoder.write_all(coded).expect("a good prefix");
            decoder.flush().expect("a good prefix");
            plain.clone_from(decoder.get_ref());
        }
    }
    plain
}

fn check(
    coding: Coding,
    level: u8,
    window: u8,
    length: Option<u64>,
    chunks: &[Vec<u8>],
    prefixes: bool,
) {
    let plan = Plan::new(coding, level, window, length);
    let mut encoder = plan.encoder();
    let (mut plain, mut coded) = (Vec::new(), Vec::new());
    for chunk in chunks {
        let before = coded.len();
        encoder
            .push(chunk, false, &mut coded)
            .expect("the encoder goes on");
        plain.extend_from_slice(chunk);
        if chunk.is_empty() {
            assert_eq!(
                coded.len(),
                before,
                "{coding:?} {level}: nothing in, nothing out"
            );
        }
        if prefixes {
            assert!(
                decodable(coding, &coded) == plain,
                "{coding:?} {level}: a prefix of {} bytes",
                plain.len()
            );
        }
    }
    encoder
        .push(&[], true, &mut coded)
        .expect("the encoder ends");
    assert!(
        decoded(coding, &coded).expect("a whole body") == plain,
        "{coding:?} {level}: the whole"
    );
}

/// Bytes that look like text, like JSON, like nothing, or all the same.
fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..most),
        (any::<u8>(), 0..most).prop_map(|(byte, count)| vec![byte; count]),
        (0..most).prop_map(|count| {
            (0..)
                .flat_map(|n: u32| {
                    format!("{{\"id\":{n},\"name\":\"item {}\"}},", n % 17).into_bytes()
                })
                .take(count)
                .collect()
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_cut_decodes_after_each_chunk_and_as_a_whole(
        chunks in proptest::collection::vec(bytes(3000), 0..8),
        at in 0..Coding::ALL.len(),
        pick in 0_u8..12,
        window in 17_u8..=24,
        declared in any::<bool>(),
    ) {
        let coding = Coding::ALL[at];
        let levels = coding.levels();
        let level = pick.clamp(*levels.start(), *levels.end());
        let length = chunks.iter().map(Vec::len).sum::<usize>() as u64;
        check(coding, level, window, declared.then_some(length), &chunks, true);
    }
}

#[test]
fn every_level_codes_and_flushes() {
    let text: Vec<u8> = (0..6000_u32)
        .flat_map(|n| format!("line {n} of {}\n", n * 7919 % 1013).into_bytes())
        .collect();
    let chunks: Vec<Vec<u8>> = [1, 2, 3, 9_000, 70_000, 500]
        .iter()
        .scan(0, |at, size| {
            let chunk = text.get(*at..(*at + size).min(text.len()))?.to_vec();
            *at += size;
            Some(chunk)
        })
        .collect();
    assert_eq!(chunks.len(), 6, "the text is long enough");
    for coding in Coding::ALL {
        for level in coding.levels() {
            check(coding, level, 20, None, &chunks, true);
        }
    }
}

#[test]
fn byte_by_byte_is_right() {
    let text = b"data: one\n\ndata: two\n\n";
    let chunks: Vec<Vec<u8>> = text.iter().map(|&byte| vec![byte]).collect();
    for coding in Coding::ALL {
        check(coding, 4, 20, None, &chunks, true);
        check(coding, 1, 20, None, &chunks, true);
    }
}

#[test]
fn an_empty_body_is_a_whole_one() {
    for coding in Coding::ALL {
        for level in coding.levels() {
            check(coding, level, 20, None, &[], false);
        }
    }
}

#[test]
fn bodies_larger_than_the_window_in_one_chunk_and_in_many() {
    let mut seed = 1_u64;
    let big: Vec<u8> = (0..3_000_000)
        .map(|at| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if at % 1000 < 600 {
                b"abcdefghij"[at % 10]
            } else {
                (seed >> 56) as u8
            }
        })
        .collect();
    for (coding, level) in [
        (Coding::Brotli, 0),
        (Coding::Brotli, 1),
        (Coding::Brotli, 4),
        (Coding::Brotli, 5),
        (Coding::Gzip, 1),
        (Coding::Gzip, 4),
        (Coding::Deflate, 9),
    ] {
        check(coding, level, 20, None, std::slice::from_ref(&big), false);
        let cut: Vec<Vec<u8>> = big.chunks(16 * 1024 + 1).map(<[u8]>::to_vec).collect();
        check(coding, level, 18, Some(big.len() as u64), &cut, false);
    }
}

#[test]
fn gzip_and_deflate_have_the_formats_http_names() {
    let coded = |coding| {
        let mut out = Vec::new();
        Plan::new(coding, 4, 20, None)
            .encoder()
            .push(b"x", true, &mut out)
            .expect("codes");
        out
    };
    // RFC 1952 §2.3: magic, deflate, no flags (no name), no time.
    assert_eq!(coded(Coding::Gzip)[..8], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0]);
    // RFC 1952 §2.3.1: CRC-32 and length, little endian.
    let gzip = coded(Coding::Gzip);
    assert_eq!(gzip[gzip.len() - 8..], [0x83, 0x16, 0xdc, 0x8c, 1, 0, 0, 0]);
    // RFC 1950 §2.2: method 8, window 32 KiB, check of the first two bytes.
    let zlib = coded(Coding::Deflate);
    assert_eq!(zlib[0], 0x78);
    assert_eq!((u16::from(zlib[0]) * 256 + u16::from(zlib[1])) % 31, 0);
}

#[test]
fn every_level_fits_a_small_stack() {
    // A guest has about 1 MiB for everything.
    let encode = || {
        let mut all = Vec::new();
        let text: Vec<u8> = (0..12_000_u32)
            .flat_map(|n| format!("line {n} of {}\n", n * 7919 % 1013).into_bytes())
            .collect();
        for coding in Coding::ALL {
            for level in coding.levels() {
                for chunk in [text.len(), 50_000] {
                    let mut encoder = Plan::new(coding, level, 20, None).encoder();
                    let mut coded = Vec::new();
                    for chunk in text.chunks(chunk) {
                        encoder.push(chunk, false, &mut coded).expect("codes");
                    }
                    encoder.push(&[], true, &mut coded).expect("ends");
                    let mut decoder = Decoder::new(coding, 1000);
                    let (mut plain, mut rest) = (Vec::new(), &coded[..]);
                    while decoder
                        .pull(&mut rest, true, &mut plain, 16_384)
                        .expect("decodes")
                    {}
                    assert!(plain == text, "{coding:?} {level}");
                    all.push(coded);
                }
            }
        }
        all
    };
    let small = std::thread::Builder::new().stack_size(512 * 1024);
    small
        .spawn(encode)
        .expect("a thread")
        .join()
        .expect("no level overflows");
}
