//! A block as eight words of eight bytes, where there is no SIMD128.

use crate::block::{BLOCK, Bones, Classes};

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// The bytes of a block.
#[derive(Clone, Copy)]
pub(crate) struct Vectors<'b>(&'b [u8; BLOCK]);

impl<'b> Vectors<'b> {
    pub(crate) fn load(block: &'b [u8; BLOCK]) -> Self {
        Self(block)
    }

    pub(crate) fn classes(&self) -> Classes {
        Classes {
            quotes: self.mask(|word| is(word, b'"')),
            backslashes: self.mask(|word| is(word, b'\\')),
            spaces: self
                .mask(|word| is(word, b' ') | is(word, b'\n') | is(word, b'\r') | is(word, b'\t')),
            marks: self.mask(|word| {
                let word = word | (ONES * 0x20);
                is(word, b',') | is(word, b':') | is(word, b'{') | is(word, b'}')
            }),
        }
    }

    pub(crate) fn bones(&self) -> Bones {
        Bones {
            quotes: self.equal(b'"'),
            commas: self.equal(b','),
            colons: self.equal(b':'),
            opens: self.mask(|word| is(word & (ONES * 0xdf), b'[')),
            closes: self.mask(|word| is(word & (ONES * 0xdf), b']')),
            digits: self.mask(|word| {
                // Sums of what is below the high bit: no byte reaches the next.
                let low = word & !HIGHS;
                (low + ONES * (0x80 - 0x30)) & !(low + ONES * (0x80 - 0x3a)) & !word & HIGHS
            }),
        }
    }

    pub(crate) fn equal(&self, byte: u8) -> u64 {
        self.mask(|word| is(word, byte))
    }

    /// Characters below U+0020.
    pub(crate) fn controls(&self) -> u64 {
        self.mask(|word| is(word & (ONES * 0xe0), 0))
    }

    /// Puts the bytes of `keep` at the start of `to`, and anything after them.
    pub(crate) fn compact(&self, keep: u64, to: &mut [u8; BLOCK + 8]) {
        let mut at = 0;
        for (index, &byte) in self.0.iter().enumerate() {
            if let Some(place) = to.get_mut(at) {
                *place = byte;
            }
            at += usize::from(keep >> index & 1 == 1);
        }
    }

    /// One bit a byte of what `flags` marks with the high bit of a byte.
    fn mask(&self, flags: impl Fn(u64) -> u64) -> u64 {
        let (words, _) = self.0.as_chunks::<8>();
        words.iter().rev().fold(0, |mask, word| {
            let flags = flags(u64::from_le_bytes(*word)) >> 7;
            // The product moves bit 8n to bit 56 + n; no two meet, so nothing carries.
            mask << 8 | flags.wrapping_mul(0x0102_0408_1020_4080) >> 56
        })
    }
}

/// The high bit of every byte that is `byte`.
fn is(word: u64, byte: u8) -> u64 {
    let differs = word ^ (ONES * u64::from(byte));
    !(((differs & !HIGHS) + !HIGHS) | differs) & HIGHS
}
