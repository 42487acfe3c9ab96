//! Numbers and literals: a byte at a time for the lexer, and whole for the blocks.

/// Where in a number (RFC 8259 §6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Number {
    Minus,
    Zero,
    Integer,
    Point,
    Fraction,
    E,
    Sign,
    Exponent,
}

impl Number {
    /// Where the first byte of a number leads.
    pub(crate) fn first(byte: u8) -> Option<Self> {
        Some(match byte {
            b'-' => Self::Minus,
            b'0' => Self::Zero,
            b'1'..=b'9' => Self::Integer,
            _ => return None,
        })
    }

    /// Where a byte of a number leads; `None` when it is none of it.
    pub(crate) fn next(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Minus, b'0') => Self::Zero,
            (Self::Minus | Self::Integer, b'0'..=b'9') => Self::Integer,
            (Self::Zero | Self::Integer, b'.') => Self::Point,
            (Self::Point | Self::Fraction, b'0'..=b'9') => Self::Fraction,
            (Self::Zero | Self::Integer | Self::Fraction, b'e' | b'E') => Self::E,
            (Self::E, b'+' | b'-') => Self::Sign,
            (Self::E | Self::Sign | Self::Exponent, b'0'..=b'9') => Self::Exponent,
            _ => return None,
        })
    }

    pub(crate) fn may_end(self) -> bool {
        matches!(
            self,
            Self::Zero | Self::Integer | Self::Fraction | Self::Exponent
        )
    }

    pub(crate) fn is_digits(self) -> bool {
        matches!(self, Self::Integer | Self::Fraction | Self::Exponent)
    }
}

/// Whether `text` from `start` to `end` is a number or a literal. Most are short: a word says it of eight bytes.
#[inline(always)]
pub(crate) fn is_scalar(text: &[u8], start: usize, end: usize) -> bool {
    let length = end.wrapping_sub(start);
    let eight = text.get(start..).and_then(|rest| rest.first_chunk::<8>());
    if let (1..=8, Some(eight)) = (length, eight) {
        // The scalar's bytes are moved to the top, so that what follows it is gone.
        let word = u64::from_le_bytes(*eight) << (64 - 8 * length);
        if is_short(word, length) {
            return true;
        }
    }
    is_long(text.get(start..end).unwrap_or_default())
}

/// A literal, or a number without sign and exponent.
#[inline(always)]
fn is_short(word: u64, length: usize) -> bool {
    // A NUL before the word would look like nothing; no control character gets by the blocks.
    let literal = (word == TRUE) | (word == NULL) | (word == FALSE);
    // Zeros to the left change nothing, but a leading zero of its own is none (RFC 8259 §6).
    let below = ZEROS.checked_shr(8 * length as u32).unwrap_or(0);
    let first = (word >> (64 - 8 * length)) as u8;
    // The first point is taken for a digit, where there are digits on both sides of it.
    let points = zeros_of(word ^ POINTS);
    let point = points & points.wrapping_neg();
    let after = point.leading_zeros() as usize / 8;
    let (whole, between) = match point {
        0 => (length, true),
        _ => {
            let whole = length.wrapping_sub(1 + after);
            (whole, (whole != 0) & (after != 0))
        }
    };
    let digits = word ^ ((point >> 2) - (point >> 6));
    literal | (are_digits(digits | below) & ((first != b'0') | (whole == 1)) & between)
}

const ZEROS: u64 = 0x3030_3030_3030_3030;
const POINTS: u64 = 0x2e2e_2e2e_2e2e_2e2e;
const TRUE: u64 = u64::from_le_bytes(*b"\0\0\0\0true");
const NULL: u64 = u64::from_le_bytes(*b"\0\0\0\0null");
const FALSE: u64 = u64::from_le_bytes(*b"\0\0\0false");

/// The high bit of the lowest byte that is zero, and perhaps of others above it.
#[inline(always)]
fn zeros_of(word: u64) -> u64 {
    word.wrapping_sub(0x0101_0101_0101_0101) & !word & 0x8080_8080_8080_8080
}

/// Whether all eight bytes are digits: their upper half is that of `0`, and stays so when six is added.
#[inline(always)]
fn are_digits(word: u64) -> bool {
    const UPPER: u64 = 0xf0f0_f0f0_f0f0_f0f0;
    let added = word.wrapping_add(0x0606_0606_0606_0606);
    ((word & UPPER) ^ ZEROS) | ((added & UPPER) ^ ZEROS) == 0
}

#[inline(never)]
fn is_long(text: &[u8]) -> bool {
    let Some((&first, rest)) = text.split_first() else {
        return false;
    };
    let Some(mut number) = Number::first(first) else {
        return matches!(text, b"true" | b"false" | b"null");
    };
    for &byte in rest {
        match number.next(byte) {
            Some(next) => number = next,
            None => return false,
        }
    }
    number.may_end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn a_word_and_its_bytes_agree(text in "[0-9]{1,9}|-?[0-9.eE+-]{1,9}|true|false|null|[truefalsn0/:]{1,9}", after in "[ ,0-9]{0,9}") {
            let whole = format!("{text}{after}");
            let want = serde_json::from_str::<serde_json::Number>(&text).is_ok() || is_long(text.as_bytes());
            prop_assert_eq!(is_scalar(whole.as_bytes(), 0, text.len()), want);
        }
    }
}
