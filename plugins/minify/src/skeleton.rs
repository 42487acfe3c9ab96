//! The grammar of JSON on a skeleton: a text without whitespace, in which each string is its opening quote only.
//!
//! There almost all of it is a matter of neighbours, told by masks moved by one or two bits. After `[`, `{`, `,` and `:`
//! a value begins, or after an opening bracket the closing one comes; values begin nowhere else. After `{`, and after a comma in an
//! object, there is a quote and then a colon; colons are nowhere else. A sign is at the start of a
//! number and a digit after it; a point has digits on both sides, and no second one after those; no digit is after a
//! zero at the start. What is open, and so in which container a comma is, changes at brackets only, which are taken one by one.
//! Literals are compared; a number with an exponent is read byte by byte.

use crate::block::{BLOCK, Vectors, spread};
use crate::nesting::Nesting;
use crate::scalar::is_scalar;
use crate::stretch::{Packed, Place, Rules};

/// A skeleton that is valid.
pub(crate) struct Checked {
    /// The number of the bone that ends the outermost container.
    pub(crate) ended: Option<usize>,
}

/// What goes over from block to block: a bit each of the byte before.
#[derive(Default)]
struct Carry {
    /// A value is due.
    value: u64,
    opened: u64,
    /// A name is due, or the end of an empty object.
    named: u64,
    /// Where colons are due: at the next byte, and at the one after it.
    colons: u64,
    scalar: u64,
    other: u64,
    digit: u64,
    minus: u64,
    point: u64,
    zero: u64,
    /// The digits of a fraction go on.
    fraction: u64,
}

/// Checks the first `length` bytes, from `place` on, which becomes the place after them; `None` when they are no JSON.
#[inline(never)]
pub(crate) fn check(
    bones: &mut Packed,
    length: usize,
    place: &mut Place,
    nesting: &mut Nesting,
    rules: &Rules,
) -> Option<Checked> {
    // What ends a literal is always there to be seen.
    *bones.get_mut(length)? = b',';
    let mut carry = Carry {
        value: place.value,
        opened: place.opened,
        named: place.colon & place.value,
        colons: place.colon << place.value,
        ..Carry::default()
    };
    let (mut wrong, mut wrong_number, mut has_others) = (0, 0, false);
    let mut objects = spread(u64::from(nesting.is_object()));
    let mut ended = None;
    let (blocks, _) = bones.as_chunks::<BLOCK>();
    let count = length.div_ceil(BLOCK);
    for (at, block) in blocks.iter().take(count).enumerate() {
        let rest = length - at * BLOCK;
        let mut within = match rest < BLOCK {
            true => (1 << rest) - 1,
            false => u64::MAX,
        };
        let vectors = Vectors::load(block);
        let mut masks = vectors.bones();
        let mut brackets = (masks.opens | masks.closes) & within;
        let mut is_in_object = objects;
        while brackets != 0 {
            let bit = brackets & brackets.wrapping_neg();
            brackets ^= bit;
            let byte = block.get(bit.trailing_zeros() as usize).copied();
            let byte = byte.unwrap_or_default();
            wrong |= u64::from(!nesting.turn(byte & 2 != 0, byte & 0x20 != 0, rules.max_depth));
            objects = spread(u64::from(nesting.is_object()));
            // From here on another container is the innermost.
            is_in_object = (is_in_object & (bit - 1)) | (objects & bit.wrapping_neg());
            if nesting.depth() == 0 {
                within = bit | (bit - 1);
                ended = Some(at * BLOCK + bit.trailing_zeros() as usize);
                break;
            }
        }
        masks.quotes &= within;
        masks.commas &= within;
        masks.colons &= within;
        masks.opens &= within;
        masks.closes &= within;
        masks.digits &= within;
        let separators = masks.commas | masks.opens;
        let before = separators | masks.colons;
        let scalars = within & !(masks.quotes | before | masks.closes);
        let starts = scalars & !(scalars << 1 | carry.scalar);
        carry.scalar = scalars >> 63;

        let due = (before << 1 | carry.value) & within;
        carry.value = before >> 63;
        let empty = masks.closes & (masks.opens << 1 | carry.opened);
        carry.opened = masks.opens >> 63;
        wrong |= (due ^ (masks.quotes | masks.opens | starts)) & !empty;

        let named = separators & is_in_object;
        let colons = (named << 2 | carry.colons) & !(empty << 1) & within;
        wrong |= masks.colons ^ colons;
        wrong |= (named << 1 | carry.named) & within & !(masks.quotes | empty);
        let all_colons = u128::from(named) << 2 | u128::from(carry.colons);
        carry.colons = named >> 62 & !(empty >> 63);
        carry.named = named >> 63;
        let rest = rest.min(BLOCK);
        if rest < BLOCK {
            // The place after them.
            let last = |mask: u64| mask >> (rest - 1) & 1;
            carry.value = last(before);
            carry.opened = last(masks.opens);
            let gone = u128::from(empty) << 1;
            carry.colons = ((all_colons & !gone) >> rest) as u64;
        }

        // Numbers.
        let minus = vectors.equal(b'-') & scalars;
        let point = vectors.equal(b'.') & scalars;
        let zero = vectors.equal(b'0') & scalars;
        let digits = masks.digits;
        let others = scalars & !(digits | minus | point);
        let after_minus = minus << 1 | carry.minus;
        let after_point = point << 1 | carry.point;
        wrong_number |= minus & !starts;
        wrong_number |= (after_minus | after_point) & within & !digits;
        wrong_number |= point & !(digits << 1 | carry.digit);
        let (ends, over) = digits.overflowing_add((after_point & digits) | carry.fraction);
        wrong_number |= ends & !digits & point;
        carry.fraction = u64::from(over);
        let first_zero = zero & (starts | after_minus);
        wrong_number |= (first_zero << 1 | carry.zero) & digits;
        carry.minus = minus >> 63;
        carry.point = point >> 63;
        carry.digit = digits >> 63;
        carry.zero = first_zero >> 63;
        if rest < BLOCK {
            wrong_number |= (minus | point) & !(within >> 1);
        }
        // Literals.
        let mut literals = others & starts;
        let others_start = others & !(others << 1 | carry.other);
        carry.other = others >> 63;
        has_others |= others_start != literals;
        while literals != 0 {
            let place = at * BLOCK + literals.trailing_zeros() as usize;
            literals &= literals - 1;
            wrong |= u64::from(!is_literal(bones, place));
        }
        if ended.is_some() {
            break;
        }
    }
    place.value = carry.value;
    place.opened = carry.opened;
    place.colon = u64::from(carry.colons != 0);
    if has_others {
        let bones = bones.get(..ended.unwrap_or(length))?;
        let mut runs = bones.split(|byte| is_mark(*byte));
        wrong_number = u64::from(!runs.all(|run| run.is_empty() || is_scalar(run)));
    }
    (wrong | wrong_number == 0).then_some(Checked { ended })
}

fn is_mark(byte: u8) -> bool {
    matches!(byte, b'"' | b',' | b':' | b'[' | b']' | b'{' | b'}')
}

/// Whether a literal is here, and something else after it.
#[inline(always)]
fn is_literal(bones: &Packed, place: usize) -> bool {
    let word = bones.get(place..).and_then(|rest| rest.first_chunk());
    let word = u64::from_le_bytes(*word.unwrap_or(&[0; 8]));
    let four = word as u32;
    let is_false = word << 24 == u64::from_le_bytes(*b"\0\0\0false");
    let short = (four == u32::from_le_bytes(*b"true")) | (four == u32::from_le_bytes(*b"null"));
    let next = (word >> if is_false { 40 } else { 32 }) as u8;
    (short | is_false) & ((next == b',') | (next | 0x20 == b'}'))
}
