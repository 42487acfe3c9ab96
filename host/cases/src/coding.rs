//! What a coded body says: two encoders, or one that was flushed elsewhere, write the same text in different bytes.

use std::io::Read;

use ruzstd::decoding::StreamingDecoder;

/// The longest text a body is decoded to, bytes.
pub const LONGEST: u64 = 256 << 20;

/// The text of a body in these codings (RFC 9110 §8.4.1, RFC 7932, RFC 8878), the value of `Content-Encoding`; why there is
/// none, where a coding is not known or the body is not of it, to its last byte.
pub fn decoded(codings: &str, body: &[u8]) -> Result<Vec<u8>, String> {
    let mut text = body.to_vec();
    // RFC 9110 §8.4: "the content codings MUST [be listed] in the order in which they were applied".
    for coding in codings.to_ascii_lowercase().split(',').rev() {
        let coding = coding.trim();
        let read = match coding {
            "" | "identity" => continue,
            "gzip" | "x-gzip" => read(flate2::read::MultiGzDecoder::new(&text[..])),
            "deflate" => zlib(&text),
            "br" => brotli(&text),
            "zstd" => zstd(&text),
            other => return Err(format!("the coding {other:?} is not known here")),
        };
        text = read.map_err(|error| format!("it is no {coding}: {error}"))?;
    }
    Ok(text)
}

fn read(decoder: impl Read) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    append(decoder, &mut text)?;
    Ok(text)
}

fn append(decoder: impl Read, text: &mut Vec<u8>) -> Result<(), String> {
    let room = LONGEST.saturating_sub(text.len() as u64);
    let mut limited = decoder.take(room + 1);
    let read = limited.read_to_end(text).map_err(|it| it.to_string())?;
    match read as u64 > room {
        true => Err(format!("it says more than {LONGEST} bytes")),
        false => Ok(()),
    }
}

fn zlib(body: &[u8]) -> Result<Vec<u8>, String> {
    let mut decoder = flate2::bufread::ZlibDecoder::new(body);
    let text = read(&mut decoder)?;
    match decoder.into_inner().len() {
        0 => Ok(text),
        rest => Err(format!("{rest} bytes follow its end")),
    }
}

fn brotli(body: &[u8]) -> Result<Vec<u8>, String> {
    // All of the body is in the decoder's buffer: asked again when it has come to the end, it refuses what is left there.
    let mut decoder = brotli::Decompressor::new(body, body.len());
    let text = read(&mut decoder)?;
    match decoder.read(&mut [0]) {
        Ok(0) => Ok(text),
        _ => Err("more follows its end".to_owned()),
    }
}

/// Frames one after the other (RFC 8878 §3.1), and those that are to be skipped among them.
fn zstd(body: &[u8]) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    let mut rest = body;
    loop {
        if let Some(after) = skippable(rest) {
            rest = after;
        } else {
            let frame = StreamingDecoder::new(&mut rest).map_err(|it| it.to_string());
            let mut frame = frame?;
            append(&mut frame, &mut text)?;
            let decoder = frame.into_frame_decoder();
            let said = decoder.get_checksum_from_data();
            if said.is_some() && said != decoder.get_calculated_checksum() {
                return Err("its checksum is another's".to_owned());
            }
        }
        if rest.is_empty() {
            return Ok(text);
        }
    }
}

/// What follows a frame that is to be skipped (RFC 8878 §3.1.2).
fn skippable(body: &[u8]) -> Option<&[u8]> {
    let magic = u32::from_le_bytes(body.get(..4)?.try_into().ok()?);
    if magic & 0xffff_fff0 != 0x184d_2a50 {
        return None;
    }
    let length = u32::from_le_bytes(body.get(4..8)?.try_into().ok()?);
    body.get(8 + length as usize..)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    const TEXT: &[u8] = b"a weir, a weir, a weir holds water back";

    fn coded(coding: &str, text: &[u8]) -> Vec<u8> {
        let level = flate2::Compression::fast();
        match coding {
            "gzip" => {
                let mut coder = flate2::write::GzEncoder::new(Vec::new(), level);
                coder.write_all(text).unwrap();
                coder.finish().unwrap()
            }
            "deflate" => {
                let mut coder = flate2::write::ZlibEncoder::new(Vec::new(), level);
                coder.write_all(text).unwrap();
                coder.finish().unwrap()
            }
            "br" => {
                let mut all = Vec::new();
                let mut coder = brotli::CompressorWriter::new(&mut all, 4_096, 5, 16);
                coder.write_all(text).unwrap();
                drop(coder);
                all
            }
            _ => compress_to_vec(text, CompressionLevel::Fastest),
        }
    }

    #[test]
    fn a_body_is_of_its_coding_to_the_last_byte() {
        for coding in ["gzip", "deflate", "br", "zstd"] {
            let body = coded(coding, TEXT);
            assert_eq!(decoded(coding, &body).as_deref(), Ok(TEXT), "{coding}");
            for cut in 0..body.len() {
                let part = decoded(coding, &body[..cut]);
                assert!(part.is_err(), "{coding}, cut at {cut}");
            }
            for more in [&b"!"[..], b"GARBAGE!!!!!", &[0; 9_000]] {
                let longer = [&body[..], more].concat();
                let read = decoded(coding, &longer);
                assert!(read.is_err(), "{coding} and {} bytes", more.len());
            }
        }
    }

    #[test]
    fn members_and_frames_follow_each_other() {
        let (first, second) = TEXT.split_at(10);
        for coding in ["gzip", "zstd"] {
            let body = [coded(coding, first), coded(coding, second)].concat();
            assert_eq!(decoded(coding, &body).as_deref(), Ok(TEXT), "{coding}");
        }
        let skipped = [0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9];
        let frame = coded("zstd", TEXT);
        for (name, body) in [
            ("before", [&skipped[..], &frame].concat()),
            ("behind", [&frame[..], &skipped].concat()),
        ] {
            assert_eq!(decoded("zstd", &body).as_deref(), Ok(TEXT), "{name}");
        }
        assert_eq!(decoded("zstd", &skipped).as_deref(), Ok(&b""[..]));
    }

    #[test]
    fn a_frame_has_the_text_its_checksum_is_of() {
        // The frame with its checksum, of "hello " 50 times.
        let frame = [
            &[0x28, 0xb5, 0x2f, 0xfd, 0x64, 0x2c, 0x00, 0x6d, 0x00][..],
            b"\x000hello \x01\x00#QK\x11\xdc\xdd~\xcd",
        ];
        let mut frame = frame.concat();
        let wrong = decoded("zstd", &frame).unwrap_err();
        assert!(wrong.contains("checksum"), "{wrong}");
        *frame.last_mut().unwrap() ^= 1;
        assert_eq!(decoded("zstd", &frame), Ok(b"hello ".repeat(50)));
    }

    #[test]
    fn what_is_not_of_a_coding_has_no_text() {
        for (codings, body, want) in [
            ("", &b"plain"[..], Ok(b"plain".to_vec())),
            ("identity", b"plain", Ok(b"plain".to_vec())),
            ("gzip", b"plain", Err("it is no gzip")),
            ("new", b"plain", Err("is not known here")),
        ] {
            match (decoded(codings, body), want) {
                (Err(got), Err(want)) => assert!(got.contains(want), "{got}"),
                (got, want) => assert_eq!(got, want.map_err(str::to_owned), "{codings}"),
            }
        }
        let twice = coded("gzip", &coded("deflate", TEXT));
        assert_eq!(decoded("deflate, GZIP", &twice).as_deref(), Ok(TEXT));
    }
}
