//! What the decoders read, what they refuse and by which name.

use edgeweir_compress::{Coding, Decoder, DecoderFailed, Plan};

/// Decodes `coded` in pieces of `cut` bytes, `most` bytes out at a time.
fn decode(coding: Coding, coded: &[u8], cut: usize, most: usize) -> Result<Vec<u8>, DecoderFailed> {
    let mut decoder = Decoder::new(coding, 100);
    let mut plain = Vec::new();
    let mut pieces = coded.chunks(cut).peekable();
    let mut piece = pieces.next().unwrap_or_default();
    loop {
        let end = pieces.peek().is_none();
        loop {
            let before = plain.len();
            let more = decoder.pull(&mut piece, end, &mut plain, most)?;
            assert!(plain.len() - before <= most, "no more than asked for");
            if !more {
                break;
            }
        }
        assert!(piece.is_empty(), "all is taken");
        match pieces.next() {
            Some(next) => piece = next,
            None => return Ok(plain),
        }
    }
}

fn coded(coding: Coding, level: u8, plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = Plan::new(coding, level, 20, None).encoder();
    for chunk in plain.chunks(50_000) {
        encoder.push(chunk, false, &mut out).expect("codes");
    }
    encoder.push(&[], true, &mut out).expect("ends");
    out
}

fn text(lines: u32) -> Vec<u8> {
    (0..lines)
        .flat_map(|n| format!("line {n} of {}\n", n * 7919 % 1013).into_bytes())
        .collect()
}

#[test]
fn any_cut_and_any_room_give_the_same() {
    let plain = text(600);
    for coding in Coding::ALL {
        for level in coding.levels().step_by(3) {
            let coded = coded(coding, level, &plain);
            for (cut, most) in [
                (1, 512),
                (7, 100),
                (1000, 4096),
                (1 << 20, 1 << 20),
                (65_536, 65_536),
            ] {
                let got = decode(coding, &coded, cut, most);
                assert!(
                    got == Ok(plain.clone()),
                    "{coding:?} {level} by {cut}, {most}"
                );
            }
        }
    }
}

#[test]
fn streams_of_others_are_read() {
    let plain = text(4_000);
    for level in [-5, 1, 3, 9, 19] {
        for checksum in [true, false] {
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), level).expect("one");
            encoder.include_checksum(checksum).expect("a checksum");
            std::io::Write::write_all(&mut encoder, &plain).expect("codes");
            let coded = encoder.finish().expect("ends");
            assert!(
                decode(Coding::Zstd, &coded, 3000, 9000) == Ok(plain.clone()),
                "zstd {level}"
            );
        }
    }
    let mut raw = flate2::Compress::new(flate2::Compression::new(6), false);
    let mut out = Vec::with_capacity(plain.len());
    raw.compress_vec(&plain, &mut out, flate2::FlushCompress::Finish)
        .expect("codes");
    for cut in [1, 2, 5000] {
        assert!(
            decode(Coding::Deflate, &out, cut, 9000) == Ok(plain.clone()),
            "raw deflate"
        );
    }
}

/// RFC 8878 §3.1.1.2, §3.1.1.3: blocks of no content, of every kind.
#[test]
fn empty_blocks_anywhere() {
    let plain = b"to be, or not to be";
    let raw = |last: u8, text: &[u8]| {
        let header = [last | (text.len() as u8) << 3, 0, 0];
        [&header[..], text].concat()
    };
    for (name, empty) in [
        ("none", &[][..]),
        ("raw", &[0, 0, 0]),
        ("repeated", &[2, 0, 0, b'a']),
        ("raw literals", &[4 | 2 << 3, 0, 0, 0, 0]),
        ("raw literals, 12 bits", &[4 | 3 << 3, 0, 0, 4, 0, 0]),
        ("raw literals, 20 bits", &[4 | 4 << 3, 0, 0, 12, 0, 0, 0]),
        ("repeated literals", &[4 | 3 << 3, 0, 0, 1, b'a', 0]),
        (
            "repeated literals, 12 bits",
            &[4 | 4 << 3, 0, 0, 5, 0, b'a', 0],
        ),
        (
            "repeated literals, 20 bits",
            &[4 | 5 << 3, 0, 0, 13, 0, 0, b'a', 0],
        ),
    ] {
        let mut last = empty.to_vec();
        let last = match last.first_mut() {
            Some(flags) => {
                *flags |= 1;
                last
            }
            None => raw(1, b""),
        };
        let middle = [&raw(0, &plain[..5])[..], empty, empty, &raw(0, &plain[5..])].concat();
        for checksum in [false, true] {
            // RFC 8878 §3.1.1.1: a window of 1 KiB.
            let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, u8::from(checksum) << 2, 0];
            frame.extend([empty, &middle, empty, &last].concat());
            if checksum {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).expect("one");
                encoder.include_checksum(true).expect("a checksum");
                std::io::Write::write_all(&mut encoder, plain).expect("codes");
                let other = encoder.finish().expect("ends");
                frame.extend(&other[other.len() - 4..]);
            }
            let other = zstd::stream::decode_all(&frame[..]).map_err(|error| error.to_string());
            assert_eq!(other, Ok(plain.to_vec()), "{name}: libzstd");
            for cut in [1, 3, 1000] {
                let got = decode(Coding::Zstd, &frame, cut, 999);
                assert_eq!(got, Ok(plain.to_vec()), "{name} by {cut}, {checksum}");
            }
        }
    }
}

#[test]
fn one_stream_after_another() {
    let (first, second) = (text(2000), text(10));
    let both = [first.clone(), second.clone()].concat();
    for coding in [Coding::Gzip, Coding::Zstd] {
        let parts = [
            coded(coding, 3, &first),
            coded(coding, 3, b""),
            coded(coding, 1, &second),
        ];
        for cut in [1, 3, 10_000_000] {
            assert!(
                decode(coding, &parts.concat(), cut, 999) == Ok(both.clone()),
                "{coding:?} {cut}"
            );
        }
    }
    // RFC 8878 §3.1.2: what a skippable frame holds is skipped.
    let skip = [&[0x53, 0x2a, 0x4d, 0x18, 5, 0, 0, 0][..], b"hello"].concat();
    let coded = [skip.clone(), coded(Coding::Zstd, 3, &first), skip].concat();
    for cut in [1, 9, 10_000_000] {
        assert!(
            decode(Coding::Zstd, &coded, cut, 999) == Ok(first.clone()),
            "{cut}"
        );
    }
}

#[test]
fn every_refusal_has_its_name() {
    let plain = text(400);
    for coding in Coding::ALL {
        let good = coded(coding, 3, &plain);
        assert_eq!(
            decode(coding, &[], 1, 9),
            Ok(Vec::new()),
            "{coding:?}: nothing"
        );
        for cut in [1, 4, good.len() / 2, good.len() - 1] {
            let got = decode(coding, &good[..cut], 500, 1 << 20);
            assert_eq!(
                got,
                Err(DecoderFailed::Truncated),
                "{coding:?} cut at {cut}"
            );
        }
        let more = [&good[..], b"more"].concat();
        for cut in [1, 1 << 20] {
            assert_eq!(
                decode(coding, &more, cut, 1 << 20),
                Err(DecoderFailed::Trailing),
                "{coding:?}"
            );
        }
        assert!(
            decode(coding, b"<html>not coded</html>", 5, 100).is_err(),
            "{coding:?}"
        );
        let zeros = vec![0; 12 << 20];
        let bomb = coded_bomb(coding, &zeros);
        let got = decode(coding, &bomb, 65_536, 65_536);
        assert_eq!(
            got,
            Err(DecoderFailed::Bomb),
            "{coding:?}, {} bytes",
            bomb.len()
        );
        // The first MiB is free.
        let little = coded_bomb(coding, &zeros[..1 << 20]);
        assert!(
            decode(coding, &little, 65_536, 65_536).is_ok(),
            "{coding:?}"
        );
    }
}

fn coded_bomb(coding: Coding, zeros: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = Plan::new(coding, 3, 20, None).encoder();
    encoder.push(zeros, true, &mut out).expect("codes");
    out
}

#[test]
fn checks_of_the_content_count() {
    let plain = text(400);
    for (coding, from_end) in [(Coding::Gzip, 6), (Coding::Deflate, 2), (Coding::Zstd, 2)] {
        let mut bad = coded(coding, 3, &plain);
        let at = bad.len() - from_end;
        bad[at] ^= 1;
        assert_eq!(
            decode(coding, &bad, 1000, 1 << 20),
            Err(DecoderFailed::Corrupt),
            "{coding:?}"
        );
    }
}

#[test]
fn windows_beyond_the_bound_are_refused() {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).expect("one");
    encoder.window_log(24).expect("a window");
    std::io::Write::write_all(&mut encoder, b"a").expect("codes");
    let wide = encoder.finish().expect("ends");
    assert_eq!(
        decode(Coding::Zstd, &wide, 99, 99),
        Err(DecoderFailed::Window)
    );
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).expect("one");
    encoder.window_log(23).expect("a window");
    std::io::Write::write_all(&mut encoder, b"a").expect("codes");
    let wide = encoder.finish().expect("ends");
    assert_eq!(decode(Coding::Zstd, &wide, 99, 99), Ok(b"a".to_vec()));
    // RFC 7932 §9.1: 0x11 is none of its windows.
    assert_eq!(
        decode(Coding::Brotli, &[0x11, 24, 3], 99, 99),
        Err(DecoderFailed::Corrupt)
    );
}
