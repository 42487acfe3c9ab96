//! Numbers and literals: a byte at a time for the lexer, and whole for the blocks.

use crate::Invalid;
use crate::lexer::misplaced;
use crate::nesting::Container;

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

/// What a value's first byte begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Begin {
    String,
    Open(Container),
    Number(Number),
    /// A literal, with the rest of it.
    Literal(&'static [u8]),
}

impl Begin {
    /// Why a byte begins no value is told by what it may have been meant for.
    #[inline]
    pub(crate) fn of(byte: u8) -> Result<Self, Invalid> {
        if let Some(number) = Number::first(byte) {
            return Ok(Self::Number(number));
        }
        Ok(match byte {
            b'"' => Self::String,
            b'[' => Self::Open(Container::Array),
            b'{' => Self::Open(Container::Object),
            b't' => Self::Literal(b"rue"),
            b'f' => Self::Literal(b"alse"),
            b'n' => Self::Literal(b"ull"),
            b'A'..=b'Z' | b'a'..=b'z' => return Err(Invalid::BadLiteral),
            b'+' | b'.' => return Err(Invalid::BadNumber),
            _ => return Err(misplaced(byte)),
        })
    }
}

/// How many bytes go on with a literal, and what of it is still to come then.
#[inline]
pub(crate) fn literal(
    to_come: &'static [u8],
    bytes: &[u8],
) -> (usize, Result<&'static [u8], Invalid>) {
    let length = to_come.len().min(bytes.len());
    let same = to_come
        .iter()
        .zip(bytes)
        .take_while(|(a, b)| a == b)
        .count();
    let rest = match same < length {
        true => Err(Invalid::BadLiteral),
        false => Ok(to_come.get(same..).unwrap_or_default()),
    };
    (same, rest)
}

/// Whether `text` from `start` to `end` is a number or a literal. Most are short: two words say it of sixteen bytes.
#[inline(always)]
pub(crate) fn is_scalar(text: &[u8], start: usize, end: usize) -> bool {
    let length = end.wrapping_sub(start);
    let sixteen = text.get(start..).and_then(|rest| rest.first_chunk::<16>());
    match (length, sixteen) {
        (1..=8, Some([a, b, c, d, e, f, g, h, ..])) => {
            // The bytes are moved to the top, so that what follows is gone.
            let word = u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]) << (64 - 8 * length);
            // A NUL before the word would look like nothing; no control character gets by the blocks.
            let literal = (word == TRUE) | (word == NULL) | (word == FALSE);
            let negative = usize::from(*a == b'-');
            let first = if negative == 1 { *b } else { *a };
            literal | is_decimal(0, word, first, length - negative) || is_long(text, start, end)
        }
        (9..=16, Some(sixteen)) => {
            let both = u128::from_le_bytes(*sixteen) << (128 - 8 * length);
            let [a, b, ..] = sixteen;
            let negative = usize::from(*a == b'-');
            let first = if negative == 1 { *b } else { *a };
            is_decimal(both as u64, (both >> 64) as u64, first, length - negative)
                || is_long(text, start, end)
        }
        _ => is_long(text, start, end),
    }
}

/// Whether the upper `length` bytes of the two words, the first of which is `first`, are a number without sign and
/// exponent.
#[inline(always)]
fn is_decimal(low: u64, high: u64, first: u8, length: usize) -> bool {
    // Zeros to the left change nothing.
    let fill = |word: u64, bytes: usize| {
        let others = u64::MAX.checked_shr(8 * bytes as u32).unwrap_or(0);
        (word & !others) | (ZEROS & others)
    };
    let low = fill(low, length.saturating_sub(8));
    let high = fill(high, length.min(8));
    // The first point is taken for a digit, where there are digits on both sides of it.
    let lowest = |bits: u64| bits & bits.wrapping_neg();
    let in_low = lowest(zeros_of(low ^ POINTS));
    let in_high = match in_low {
        0 => lowest(zeros_of(high ^ POINTS)),
        _ => 0,
    };
    let digit = |word: u64, point: u64| word ^ ((point >> 2) - (point >> 6));
    let after = match in_low {
        0 => in_high.leading_zeros() as usize / 8,
        _ => 8 + in_low.leading_zeros() as usize / 8,
    };
    let (whole, between) = match in_low | in_high {
        0 => (length, length != 0),
        _ => {
            let whole = length.wrapping_sub(1 + after);
            (whole, (whole != 0) & (after != 0))
        }
    };
    // RFC 8259 §6: int = zero / ( digit1-9 *DIGIT ), so nothing follows a zero in front.
    are_digits(digit(low, in_low))
        & are_digits(digit(high, in_high))
        & ((first != b'0') | (whole == 1))
        & between
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
fn is_long(text: &[u8], start: usize, end: usize) -> bool {
    let text = text.get(start..end).unwrap_or_default();
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
        fn a_word_and_its_bytes_agree(text in "[0-9]{1,18}|-?[0-9]{0,9}[.][0-9]{0,9}|-?[0-9.eE+-]{1,18}|-?(true|false|null)|[truefalsn0/:]{1,9}", after in "[ ,0-9.]{0,17}") {
            let whole = format!("{text}{after}");
            let want = serde_json::from_str::<serde_json::Number>(&text).is_ok() || is_long(text.as_bytes(), 0, text.len());
            prop_assert_eq!(is_scalar(whole.as_bytes(), 0, text.len()), want);
        }
    }
}
