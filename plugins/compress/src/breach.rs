//! Responses that hold a secret beside what a client sent (BREACH): not coded, or coded with a length that says less.
//!
//! Padding blurs the length, it does not hide it. Lengths of `k` responses average out: telling two lengths apart that
//! differ by one byte takes a number of requests that grows with the square of the padding (see `tests/breach.rs`). Two
//! even draws are added, so that the shortest of many responses says little as well. What ends the attack is not to
//! code, not to reflect, or to mask the secret anew in each response.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

use edgeweir_filter::{Fields, Timestamp};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::Coding;

/// What is done about responses that may carry a secret beside what a client sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Breach {
    /// Nothing: they are coded as any.
    #[default]
    Off,
    /// They are not coded.
    Skip,
    /// They are coded, with padding of a random length.
    HideLength,
}

/// Which responses are taken to carry a secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cookies {
    /// Those that set a cookie.
    #[default]
    Set,
    /// Also those to a request with `Cookie` or `Authorization`.
    Any,
}

/// Whether a request is one of somebody who is known.
pub(crate) fn is_personal(request: &Fields) -> bool {
    request.has("cookie") || request.has("authorization")
}

impl Cookies {
    /// Whether a response may carry a secret.
    pub(crate) fn tell(self, personal: bool, response: &Fields) -> bool {
        response.has("set-cookie") || (self == Self::Any && personal)
    }
}

/// Draws numbers that nobody outside can foresee: a keyed hash of the time and of a count, its key new in each instance.
pub(crate) struct Chance {
    keyed: RandomState,
    drawn: Cell<u64>,
}

impl Chance {
    pub(crate) fn new() -> Self {
        Self {
            keyed: RandomState::new(),
            drawn: Cell::new(0),
        }
    }

    pub(crate) fn draw(&self, now: Timestamp) -> u64 {
        let count = self.drawn.get().wrapping_add(1);
        self.drawn.set(count);
        self.keyed.hash_one((now.0, count))
    }
}

/// The least padding: with it every length from there on can be written in every coding.
const LEAST: usize = 9;

/// How many bytes to add, at most `most` (16 or more): the sum of two even draws, of which `chance` has 32 bits each.
pub(crate) fn length(chance: u64, most: u16) -> usize {
    let room = u64::from(most).saturating_sub(LEAST as u64);
    let (first, second) = (room / 2, room - room / 2);
    let scaled = |bits: u64, most: u64| ((bits & 0xffff_ffff) * (most + 1)) >> 32;
    let drawn = scaled(chance, first) + scaled(chance >> 32, second);
    LEAST + usize::try_from(drawn).unwrap_or(0)
}

/// Appends `bytes` (9 or more) that decoders of `coding` skip, after what an encoder flushed: at a byte's edge.
pub(crate) fn pad(coding: Coding, bytes: usize, out: &mut Vec<u8>) {
    debug_assert!(bytes >= LEAST, "every length from there on can be written");
    match coding {
        Coding::Gzip | Coding::Deflate => empty_blocks(bytes, out),
        #[cfg(feature = "brotli")]
        Coding::Brotli => metadata(bytes, out),
        Coding::Zstd => zstd_blocks(bytes, out),
    }
}

/// RFC 1951 §3.2.4, §3.2.6: blocks without content. A stored one takes 5 bytes; one, two or three fixed ones of 10 bits
/// before it make 6, 7 or 9 of them.
fn empty_blocks(bytes: usize, out: &mut Vec<u8>) {
    const STORED: &[u8] = &[0, 0, 0, 0xff, 0xff];
    const SIX: &[u8] = &[0x02, 0, 0, 0, 0xff, 0xff];
    const SEVEN: &[u8] = &[0x02, 0x08, 0, 0, 0, 0xff, 0xff];
    const NINE: &[u8] = &[0x02, 0x08, 0x20, 0, 0, 0, 0, 0xff, 0xff];
    let mut left = bytes;
    while left >= LEAST + STORED.len() {
        out.extend_from_slice(STORED);
        left -= STORED.len();
    }
    let parts: [&[u8]; 2] = match left {
        9 => [NINE, &[]],
        10 => [STORED, STORED],
        11 => [STORED, SIX],
        12 => [SIX, SIX],
        _ => [SIX, SEVEN],
    };
    out.extend(parts.concat());
}

/// RFC 8878 §3.1.1.2: blocks without content, not the last of their frame. A raw one takes 3 bytes; one of no repetitions
/// has the byte to repeat as well.
fn zstd_blocks(bytes: usize, out: &mut Vec<u8>) {
    const RAW: &[u8] = &[0, 0, 0];
    const REPEATED: &[u8] = &[0x02, 0, 0, 0];
    for _ in 0..bytes % 3 {
        out.extend_from_slice(REPEATED);
    }
    for _ in 0..(bytes / 3).saturating_sub(bytes % 3) {
        out.extend_from_slice(RAW);
    }
}

/// RFC 7932 §9.2: a meta-block with MNIBBLES of 0 is metadata: `MSKIPBYTES` (here 0 or 1) bytes tell the length of what is
/// to be skipped, less 1.
#[cfg(feature = "brotli")]
fn metadata(bytes: usize, out: &mut Vec<u8>) {
    let mut left = bytes;
    while left > 0 {
        // ISLAST 0, MNIBBLES 11, reserved 0, then MSKIPBYTES.
        if left < 3 {
            out.push(0b00_0110);
            left -= 1;
            continue;
        }
        let content = (left - 2).min(256);
        let header = 0b01_0110 | (content - 1) << 6;
        out.extend(u16::try_from(header).unwrap_or(0b01_0110).to_le_bytes());
        out.resize(out.len() + content, 0);
        left -= content + 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    use crate::{Decoder, Plan};

    #[test]
    fn who_is_taken_to_have_a_secret() {
        for (name, request, response, set, any) in [
            ("nobody", &[][..], &[][..], false, false),
            ("sets a cookie", &[], &[("set-cookie", "a=b")], true, true),
            ("has a cookie", &[("cookie", "a=b")], &[], false, true),
            (
                "is logged in",
                &[("authorization", "Basic x")],
                &[],
                false,
                true,
            ),
        ] {
            let personal = is_personal(&Fields::of(request));
            let response = Fields::of(response);
            let told = [Cookies::Set, Cookies::Any].map(|which| which.tell(personal, &response));
            assert_eq!(told, [set, any], "{name}");
        }
    }

    #[test]
    fn lengths_are_within_their_bounds() {
        for most in [16, 17, 128, 4096] {
            assert_eq!(length(0, most), LEAST);
            assert_eq!(length(u64::MAX, most), usize::from(most));
        }
        let chance = Chance::new();
        let drawn: Vec<usize> = (0..10_000)
            .map(|_| length(chance.draw(Timestamp::default()), 128))
            .collect();
        let mean = drawn.iter().sum::<usize>() / drawn.len();
        assert!((66..=71).contains(&mean), "{mean}");
    }

    /// How often of 100 the shorter of two lengths, which differ by one byte, is told by `tell` from `requests` of each.
    fn told(requests: usize, tell: fn(&[usize]) -> usize) -> usize {
        let chance = Chance::new();
        let lengths = |plain: usize| -> Vec<usize> {
            let draws = (0..requests).map(|_| chance.draw(Timestamp::default()));
            draws.map(|draw| plain + length(draw, 128)).collect()
        };
        (0..100)
            .filter(|_| tell(&lengths(1000)) < tell(&lengths(1001)))
            .count()
    }

    #[test]
    fn what_padding_costs_an_attacker() {
        let mean = |lengths: &[usize]| lengths.iter().sum();
        let least = |lengths: &[usize]| lengths.iter().min().copied().unwrap_or(0);
        for (name, share, within) in [
            ("one request says nothing", told(1, mean), 30..=70),
            ("100 say little", told(100, mean), 40..=85),
            ("their shortest no more", told(100, least), 20..=85),
            (
                "5000 tell it: padding is no end of the attack",
                told(5000, mean),
                85..=100,
            ),
        ] {
            assert!(within.contains(&share), "{name}: {share} of 100");
        }
    }

    #[test]
    fn every_length_of_padding_is_skipped_by_decoders() {
        const TEXT: &[u8] = b"to be, or not to be, that is the question";
        for coding in Coding::ALL {
            for bytes in (LEAST..700).chain([4096]) {
                let mut encoder = Plan::new(coding, 4, 20, None).encoder();
                let (mut out, mut padding) = (Vec::new(), Vec::new());
                pad(coding, bytes, &mut padding);
                assert_eq!(padding.len(), bytes, "{coding:?}");
                encoder.push(&TEXT[..20], false, &mut out).expect("codes");
                out.extend(&padding);
                encoder.push(&TEXT[20..], false, &mut out).expect("codes");
                out.extend(&padding);
                encoder.push(&[], true, &mut out).expect("codes");
                let mut plain = Vec::new();
                let read = match coding {
                    Coding::Gzip => flate2::read::GzDecoder::new(&out[..]).read_to_end(&mut plain),
                    Coding::Zstd => zstd::stream::copy_decode(&out[..], &mut plain).map(|()| 0),
                    Coding::Deflate => {
                        flate2::read::ZlibDecoder::new(&out[..]).read_to_end(&mut plain)
                    }
                    Coding::Brotli => {
                        brotli::Decompressor::new(&out[..], 4096).read_to_end(&mut plain)
                    }
                };
                read.unwrap_or_else(|error| panic!("{coding:?} with {bytes}: {error}"));
                assert_eq!(plain, TEXT, "{coding:?} with {bytes}");
                let (mut decoder, mut plain) = (Decoder::new(coding, 100), Vec::new());
                let mut rest = &out[..];
                while decoder
                    .pull(&mut rest, true, &mut plain, 4096)
                    .unwrap_or_else(|why| panic!("{coding:?} with {bytes}: {why:?}"))
                {
                }
                assert_eq!(plain, TEXT, "{coding:?} with {bytes}, decoded here");
            }
        }
    }
}
