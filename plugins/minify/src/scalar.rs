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

/// Whether `text` is a number or a literal.
#[inline(never)]
pub(crate) fn is_scalar(text: &[u8]) -> bool {
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
