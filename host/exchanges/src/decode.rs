//! What a coded body says: two encoders, or one that was flushed elsewhere, write the same text in different bytes.

use std::io::Read as _;

/// The most that is decoded, bytes.
const MOST: u64 = 64 << 20;

/// The text of a body in these codings (RFC 9110 §8.4.1, RFC 7932, RFC 8878); `None` when a coding is not known or the
/// body is not of it.
pub fn decoded(codings: &str, body: &[u8]) -> Option<Vec<u8>> {
    let mut text = body.to_vec();
    // RFC 9110 §8.4: listed in the order in which they were applied.
    for coding in codings
        .split(',')
        .rev()
        .map(str::trim)
        .filter(|coding| !coding.is_empty())
    {
        text = one(&coding.to_ascii_lowercase(), &text)?;
    }
    Some(text)
}

fn one(coding: &str, body: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    match coding {
        "gzip" | "x-gzip" => flate2::read::MultiGzDecoder::new(body)
            .take(MOST)
            .read_to_end(&mut text)
            .ok()?,
        "deflate" => flate2::read::ZlibDecoder::new(body)
            .take(MOST)
            .read_to_end(&mut text)
            .ok()?,
        "br" => brotli::Decompressor::new(body, 4_096)
            .take(MOST)
            .read_to_end(&mut text)
            .ok()?,
        "zstd" => {
            let mut rest = body;
            // Frames one after the other; those that are skipped are padding (RFC 8878 §3.1.2).
            while !rest.is_empty() {
                if let Some(after) = skippable(rest) {
                    rest = after;
                    continue;
                }
                let decoder = ruzstd::decoding::StreamingDecoder::new(&mut rest).ok()?;
                decoder.take(MOST).read_to_end(&mut text).ok()?;
            }
            text.len()
        }
        _ => return None,
    };
    Some(text)
}

/// What follows a frame that is to be skipped.
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

    use super::*;

    #[test]
    fn the_same_text_in_other_bytes_is_the_same() {
        let mut all = Vec::new();
        for flushes in [false, true] {
            let mut coder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            coder.write_all(b"a weir, ").expect("written");
            if flushes {
                coder.flush().expect("flushed");
            }
            coder.write_all(b"a weir").expect("written");
            all.push(coder.finish().expect("finished"));
        }
        assert_ne!(all[0], all[1]);
        for body in &all {
            assert_eq!(
                decoded("gzip", body).as_deref(),
                Some(b"a weir, a weir".as_slice())
            );
        }
    }

    #[test]
    fn what_is_not_of_a_coding_has_no_text() {
        assert_eq!(decoded("gzip", b"plain"), None);
        assert_eq!(decoded("unknown", b"plain"), None);
        assert_eq!(decoded("", b"plain").as_deref(), Some(b"plain".as_slice()));
        let skipped = [0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9];
        assert_eq!(decoded("zstd", &skipped).as_deref(), Some(b"".as_slice()));
    }
}
