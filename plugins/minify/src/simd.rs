//! A block as four vectors of SIMD128.

use core::arch::wasm32::*;

use crate::block::{BLOCK, Bones, Classes};

/// The bytes of a block.
#[derive(Clone, Copy)]
pub(crate) struct Vectors([v128; 4]);

impl Vectors {
    #[inline(always)]
    pub(crate) fn load(block: &[u8; BLOCK]) -> Self {
        let mut vectors = [u64x2_splat(0); 4];
        let (halves, _) = block.as_chunks::<8>();
        let (pairs, _) = halves.as_chunks::<2>();
        // Two words beside each other are one load.
        for (vector, [low, high]) in vectors.iter_mut().zip(pairs) {
            *vector = u64x2(u64::from_le_bytes(*low), u64::from_le_bytes(*high));
        }
        Self(vectors)
    }

    #[inline(always)]
    pub(crate) fn classes(&self) -> Classes {
        // Looked up by the byte itself: beyond fifteen it gives nothing.
        let controls = u8x16(0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 0, 0, 255, 0, 0);
        // By the lower half of a byte: what the byte must be, but for one bit.
        let marks = u8x16(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, b':', b'{', b',', b'}', 0, 0);
        let [a, b, c, d] = self.0.map(|bytes| u8x16_eq(bytes, u8x16_splat(b'\\')));
        let backslashes = if v128_any_true(v128_or(v128_or(a, b), v128_or(c, d))) {
            mask([a, b, c, d])
        } else {
            0
        };
        Classes {
            quotes: self.equal(b'"'),
            backslashes,
            spaces: mask(self.0.map(|bytes| {
                v128_or(
                    u8x16_swizzle(controls, bytes),
                    u8x16_eq(bytes, u8x16_splat(b' ')),
                )
            })),
            marks: mask(self.0.map(|bytes| {
                let low = v128_and(bytes, u8x16_splat(0x0f));
                u8x16_eq(u8x16_swizzle(marks, low), v128_or(bytes, u8x16_splat(0x20)))
            })),
        }
    }

    #[inline(always)]
    pub(crate) fn bones(&self) -> Bones {
        let upper = self.0.map(|bytes| v128_and(bytes, u8x16_splat(0xdf)));
        Bones {
            quotes: self.equal(b'"'),
            commas: self.equal(b','),
            colons: self.equal(b':'),
            opens: mask(upper.map(|bytes| u8x16_eq(bytes, u8x16_splat(b'[')))),
            closes: mask(upper.map(|bytes| u8x16_eq(bytes, u8x16_splat(b']')))),
            digits: mask(self.0.map(|bytes| {
                let digits = u8x16_sub(bytes, u8x16_splat(b'0'));
                u8x16_le(digits, u8x16_splat(9))
            })),
        }
    }

    /// Characters below U+0020.
    #[inline(always)]
    pub(crate) fn controls(&self) -> u64 {
        mask(self.0.map(|bytes| u8x16_lt(bytes, u8x16_splat(b' '))))
    }

    /// Puts the bytes of `keep` at the start of `to`, and anything after them.
    #[inline(always)]
    pub(crate) fn compact(&self, keep: u64, to: &mut [u8; BLOCK + 8]) {
        if keep == u64::MAX {
            for (vector, to) in self.0.iter().zip(to.as_chunks_mut::<16>().0) {
                let (to, _) = to.as_chunks_mut::<8>();
                if let [low, high] = to {
                    *low = u64x2_extract_lane::<0>(*vector).to_le_bytes();
                    *high = u64x2_extract_lane::<1>(*vector).to_le_bytes();
                }
            }
            return;
        }
        let mut at = 0;
        let mut keep = keep;
        for vector in self.0 {
            let (low, high) = (usize::from(keep as u8), usize::from((keep >> 8) as u8));
            keep >>= 16;
            // A byte indexes a table of 256.
            let lanes = u64x2(
                LOW.get(low).copied().unwrap_or_default(),
                HIGH.get(high).copied().unwrap_or_default(),
            );
            let packed = u8x16_swizzle(vector, lanes);
            put(to, at, u64x2_extract_lane::<0>(packed));
            at += low.count_ones() as usize;
            put(to, at, u64x2_extract_lane::<1>(packed));
            at += high.count_ones() as usize;
        }
    }

    #[inline(always)]
    pub(crate) fn equal(&self, byte: u8) -> u64 {
        mask(self.0.map(|bytes| u8x16_eq(bytes, u8x16_splat(byte))))
    }
}

/// Stores eight bytes. `at` is at most the length of a block, which the compiler is told by a mask.
#[inline(always)]
fn put(to: &mut [u8; BLOCK + 8], at: usize, bytes: u64) {
    let at = at & (BLOCK - 1);
    if let Some(to) = to.get_mut(at..at + 8) {
        to.copy_from_slice(&bytes.to_le_bytes());
    }
}

#[inline(always)]
fn mask([a, b, c, d]: [v128; 4]) -> u64 {
    let [a, b, c, d] = [a, b, c, d].map(|flags| u64::from(u8x16_bitmask(flags)));
    (a | b << 16) | (c << 32 | d << 48)
}

/// The lanes to take for every choice of eight: those of the lower half of a vector, and of the upper.
static LOW: [u64; 256] = lanes(0);
static HIGH: [u64; 256] = lanes(8);

#[expect(
    clippy::indexing_slicing,
    reason = "done while compiling, where a wrong index is an error"
)]
const fn lanes(first: u64) -> [u64; 256] {
    let mut table = [0; 256];
    let mut choice = 0;
    while choice < 256 {
        let (mut lane, mut at, mut packed) = (0, 0, 0);
        while lane < 8 {
            if choice >> lane & 1 == 1 {
                packed |= (first + lane) << (8 * at);
                at += 1;
            }
            lane += 1;
        }
        table[choice] = packed;
        choice += 1;
    }
    table
}
