//! Sixty-four bytes at once: a mask of one bit a byte for every class of bytes that JSON tells apart.
//!
//! The lowest bit is the first byte. With SIMD128 a mask is four comparisons; elsewhere it is made of words of eight
//! bytes, so that every test of what is built on it also runs natively.

/// Bytes in a block.
pub(crate) const BLOCK: usize = 64;

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub(crate) use crate::simd::Vectors;
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
pub(crate) use crate::words::Vectors;

/// Which bytes are what, whether inside a string or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Classes {
    pub(crate) quotes: u64,
    pub(crate) backslashes: u64,
    /// RFC 8259 §2: ws = *( %x20 / %x09 / %x0A / %x0D )
    pub(crate) spaces: u64,
    /// `,`, `:`, `[`, `]`, `{`, `}`, and some control characters and letters between them: outside strings these are not
    /// JSON.
    pub(crate) marks: u64,
}

/// Which bytes of a skeleton are what; see `skeleton`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Bones {
    pub(crate) quotes: u64,
    pub(crate) commas: u64,
    pub(crate) colons: u64,
    /// `[` and `{`.
    pub(crate) opens: u64,
    /// `]` and `}`.
    pub(crate) closes: u64,
    pub(crate) digits: u64,
}

/// What of strings goes over from block to block.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct StringCarry {
    /// All ones when the block before ended inside a string.
    pub(crate) inside: u64,
    /// One when its last byte was a backslash that escapes.
    pub(crate) escaped: u64,
}

impl StringCarry {
    /// The bytes that a backslash escapes. In a run of backslashes every second one is escaped by the one before it,
    /// and the byte after a run is escaped when the run is odd.
    pub(crate) fn escapes(&mut self, backslashes: u64) -> u64 {
        const EVEN: u64 = 0x5555_5555_5555_5555;
        let backslashes = backslashes & !self.escaped;
        let follows = backslashes << 1 | self.escaped;
        let starts = backslashes & !follows;
        // A run that starts on an odd bit is moved by addition to the bit after it; its escaped bytes are the even bits.
        let (ends, over) = backslashes.overflowing_add(starts & !EVEN);
        self.escaped = u64::from(over);
        // In runs from an even bit the odd bits are escaped, in the others the even ones. An addition that ran over
        // a run cleared it; in all other runs the bits are still there.
        (EVEN ^ (ends << 1)) & follows
    }
}

/// Each bit is the parity of itself and the bits below.
#[inline(always)]
pub(crate) fn prefix_xor(mut bits: u64) -> u64 {
    bits ^= bits << 1;
    bits ^= bits << 2;
    bits ^= bits << 4;
    bits ^= bits << 8;
    bits ^= bits << 16;
    bits ^ (bits << 32)
}

/// All ones for one, nothing for nothing.
#[inline(always)]
pub(crate) fn spread(bit: u64) -> u64 {
    0u64.wrapping_sub(bit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mask(bytes: &[u8; BLOCK], is: impl Fn(u8) -> bool) -> u64 {
        (0..BLOCK).fold(0, |mask, at| mask | u64::from(is(bytes[at])) << at)
    }

    fn bytes() -> impl Strategy<Value = [u8; BLOCK]> {
        let byte = prop_oneof![
            proptest::sample::select(&b"\"\\\\\\ \t\r\n,:[]{}_yY\x7f\x1a\x0c\x0010-./"[..]),
            any::<u8>()
        ];
        proptest::collection::vec(byte, BLOCK)
            .prop_map(|bytes| bytes.try_into().unwrap_or([0; BLOCK]))
    }

    proptest! {
        #[test]
        fn masks_say_what_each_byte_is(block in bytes()) {
            let classes = Vectors::load(&block).classes();
            prop_assert_eq!(classes.quotes, mask(&block, |b| b == b'"'));
            prop_assert_eq!(classes.backslashes, mask(&block, |b| b == b'\\'));
            prop_assert_eq!(classes.spaces, mask(&block, |b| b" \t\r\n".contains(&b)));
            let marks = mask(&block, |b| b",:[]{}".contains(&(b | 0x20)) || b"[]".contains(&b));
            prop_assert_eq!(classes.marks, marks);
            let bones = Vectors::load(&block).bones();
            prop_assert_eq!(bones.quotes, mask(&block, |b| b == b'"'));
            prop_assert_eq!(bones.commas, mask(&block, |b| b == b','));
            prop_assert_eq!(bones.colons, mask(&block, |b| b == b':'));
            prop_assert_eq!(bones.opens, mask(&block, |b| b"[{".contains(&b)));
            prop_assert_eq!(bones.closes, mask(&block, |b| b"]}".contains(&b)));
            prop_assert_eq!(bones.digits, mask(&block, |b| b.is_ascii_digit()));
            prop_assert_eq!(Vectors::load(&block).equal(b'-'), mask(&block, |b| b == b'-'));
        }

        #[test]
        fn strings_go_from_quote_to_quote(blocks in proptest::collection::vec(bytes(), 1..4)) {
            let mut carry = StringCarry::default();
            let (mut inside, mut escaped) = (false, false);
            for block in blocks {
                let classes = Vectors::load(&block).classes();
                let quotes = classes.quotes & !carry.escapes(classes.backslashes);
                let strings = prefix_xor(quotes) ^ carry.inside;
                carry.inside = spread(strings >> 63);
                for (at, &byte) in block.iter().enumerate() {
                    let quote = byte == b'"' && !escaped;
                    inside ^= quote;
                    escaped = byte == b'\\' && !escaped;
                    prop_assert_eq!(quotes >> at & 1 == 1, quote);
                    prop_assert_eq!(strings >> at & 1 == 1, inside);
                }
            }
        }
    }
}
