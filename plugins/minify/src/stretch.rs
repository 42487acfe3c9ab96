//! Stretches of blocks that are found to be JSON without a look at their single bytes.
//!
//! Two sums hold the grammar. A value is due after `[`, `{`, `,` and `:`: their bits, moved by one and added to the mask of
//! whitespace, are carried over it to where the value must begin; these are exactly the places where values begin, but
//! for the closing bracket of an empty container. And a colon is due after `{` and a comma in an object: their bits, added
//! to the mask of whitespace and strings, are carried to where the colon must be; these are exactly the places of colons.
//! What is open, and so in which container a comma is, changes at brackets only, which are taken one by one; numbers
//! and literals are found as runs of other bytes, and each run is checked; no control character may be among what is kept.
//!
//! A stretch is valid as a whole, or it is nothing: the lexer then goes over it byte by byte, and alone says which byte
//! is wrong and why.

use crate::block::{BLOCK, StringCarry, Vectors, spread};
use crate::masks::{BLOCKS, Stretched};
use crate::nesting::{Container, Nesting};
use crate::scalar::is_scalar;

/// Most bytes of a stretch.
pub(crate) const STRETCH: usize = BLOCKS * BLOCK;

/// Ends of scalars that are looked at together.
const CHANGES: usize = 256;

/// Where a stretch begins or ends, inside an array or object and in no number or literal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Place {
    pub(crate) strings: StringCarry,
    /// One where a value is due.
    pub(crate) value: u64,
    /// One where a colon is due, from the name's place on.
    pub(crate) colon: u64,
    /// One right after an opening bracket.
    pub(crate) opened: u64,
}

/// What of a stretch is kept, and the room to find it in. A stretch is gone over three times, each time with one kind of
/// work: masks from vectors, grammar on masks, and vectors packed by masks.
pub(crate) struct Stretch {
    masks: Stretched,
    kept: [u8; STRETCH + BLOCK + 8],
    length: usize,
    /// Where runs of scalar bytes begin and end, in turn.
    changes: [u16; CHANGES + BLOCK],
    pending: usize,
    /// Blocks to look at next: few after a text that ended early.
    ahead: usize,
}

/// A stretch that is valid: how far it went.
pub(crate) struct Taken {
    pub(crate) bytes: usize,
    pub(crate) place: Place,
}

/// What the grammar goes by.
pub(crate) struct Rules {
    pub(crate) max_depth: usize,
    /// No line feed may be between tokens.
    pub(crate) lines: bool,
}

/// What comes of the brackets of a block.
struct Brackets {
    opens: u64,
    closes: u64,
    /// Where the innermost container is an object, from each bracket on.
    objects: u64,
    /// All up to the end of the text.
    within: u64,
    fault: bool,
}

impl Stretch {
    pub(crate) fn new() -> Self {
        Self {
            masks: Stretched::new(),
            kept: [0; STRETCH + BLOCK + 8],
            length: 0,
            changes: [0; CHANGES + BLOCK],
            pending: 0,
            ahead: BLOCKS,
        }
    }

    /// What is kept of the last stretch taken.
    pub(crate) fn kept(&self) -> &[u8] {
        self.kept.get(..self.length).unwrap_or_default()
    }

    /// Takes blocks from the start of `text`, up to `STRETCH` bytes or to the end of the outermost container; `None` when
    /// anything of them is doubtful. `nesting` is of use only after a stretch taken.
    pub(crate) fn take(
        &mut self,
        text: &[u8],
        mut place: Place,
        nesting: &mut Nesting,
        rules: &Rules,
    ) -> Option<Taken> {
        let (blocks, _) = text.as_chunks::<BLOCK>();
        let blocks = blocks.get(..self.ahead).unwrap_or(blocks);
        self.masks.classify(blocks, rules.lines);
        let mut at = self.validate(text, blocks, &mut place, nesting, rules)?;
        let used = at.div_ceil(BLOCK);
        self.ahead = match used == blocks.len() {
            true => (2 * used).min(BLOCKS),
            false => used + 1,
        };
        self.length = compact(blocks.get(..used)?, &self.masks.spaces, &mut self.kept);
        if let Some(&start) = self.changes.get(..self.pending)?.first() {
            // A number or literal that may go on is left for the next stretch.
            let start = usize::from(start);
            self.length = self.length.checked_sub(at.checked_sub(start)?)?;
            at = start;
            place.value = 1;
            // A backslash in it, where none may be, escapes nothing before it.
            place.strings = StringCarry::default();
        }
        // RFC 8259 §7: no control character in a string; and there is none outside but the whitespace that is gone.
        let least = self
            .kept()
            .iter()
            .fold(u8::MAX, |least, &byte| least.min(byte));
        (least >= b' ' && at > 0).then_some(Taken { bytes: at, place })
    }

    /// Says how many bytes of the blocks are valid JSON: all, or those to the text's end.
    fn validate(
        &mut self,
        text: &[u8],
        blocks: &[[u8; BLOCK]],
        place: &mut Place,
        nesting: &mut Nesting,
        rules: &Rules,
    ) -> Option<usize> {
        let masks = &mut self.masks;
        masks.strings(blocks.len(), &mut place.strings);
        let (count, within) = brackets(masks, blocks, place, nesting, rules.max_depth)?;
        let scalar = masks.tokens(count);
        if masks.misplaced(count, &mut place.value, &mut place.colon) != 0 {
            return None;
        }
        let mut noted = Changes {
            places: &mut self.changes,
            pending: 0,
        };
        let changes = masks.changes.get(..count)?;
        let wrong = noted.any_wrong(changes, text);
        self.pending = noted.pending;
        debug_assert_eq!(self.pending as u64, scalar);
        (!wrong).then_some(count * BLOCK - within.leading_zeros() as usize)
    }
}

/// Goes through the brackets outside strings. Says how many blocks there are to the end of the outermost container, and
/// what of the last one is within it; `None` when a bracket is wrong.
#[inline(never)]
fn brackets(
    masks: &mut Stretched,
    blocks: &[[u8; BLOCK]],
    place: &mut Place,
    nesting: &mut Nesting,
    max_depth: usize,
) -> Option<(usize, u64)> {
    let mut object = is_object(nesting);
    masks.opens.fill(0);
    masks.empty.fill(0);
    for (at, block) in blocks.iter().enumerate() {
        let brackets = *masks.brackets.get(at)?;
        let mut spaces = *masks.spaces.get(at)?;
        if brackets == 0 {
            *masks.objects.get_mut(at)? = object;
            place.opened &= u64::from(spaces == u64::MAX);
            continue;
        }
        let mut found = Brackets {
            opens: 0,
            closes: 0,
            objects: object,
            within: u64::MAX,
            fault: false,
        };
        found.take(brackets, block, nesting, max_depth);
        if found.fault {
            return None;
        }
        object = is_object(nesting);
        spaces |= !found.within;
        let (after, over) = (found.opens << 1 | place.opened).overflowing_add(spaces);
        place.opened = found.opens >> 63 | u64::from(over);
        *masks.opens.get_mut(at)? = found.opens;
        *masks.objects.get_mut(at)? = found.objects;
        *masks.empty.get_mut(at)? = found.closes & after & !spaces;
        if nesting.innermost().is_none() {
            // What comes after the end of the text is not looked at here.
            masks.end(at, found.within);
            return Some((at + 1, found.within));
        }
    }
    Some((blocks.len(), u64::MAX))
}

impl Brackets {
    /// Goes through `brackets`, those outside strings.
    #[inline(always)]
    fn take(
        &mut self,
        mut brackets: u64,
        block: &[u8; BLOCK],
        nesting: &mut Nesting,
        max_depth: usize,
    ) {
        while brackets != 0 {
            let bit = brackets & brackets.wrapping_neg();
            brackets ^= bit;
            let byte = block
                .get(bit.trailing_zeros() as usize)
                .copied()
                .unwrap_or_default();
            let container = if byte & 0x20 == 0 {
                Container::Array
            } else {
                Container::Object
            };
            // Whether it is one at all.
            self.fault |= !matches!(byte | 0x20, b'{' | b'}');
            if byte & 2 == 2 {
                self.opens |= bit;
                self.fault |= !nesting.push(container, max_depth);
            } else {
                self.closes |= bit;
                self.fault |= nesting.innermost() != Some(container);
                nesting.pop();
            }
            // From here on another container is the innermost.
            self.objects = (self.objects & (bit - 1)) | (is_object(nesting) & bit.wrapping_neg());
            if nesting.innermost().is_none() {
                self.within = bit | (bit - 1);
                break;
            }
        }
    }
}

/// All ones in an object.
#[inline(always)]
fn is_object(nesting: &Nesting) -> u64 {
    spread(u64::from(nesting.innermost() == Some(Container::Object)))
}

/// Packs what is kept of the blocks; says how much that is.
#[inline(never)]
fn compact(
    blocks: &[[u8; BLOCK]],
    spaces: &[u64; BLOCKS],
    kept: &mut [u8; STRETCH + BLOCK + 8],
) -> usize {
    let mut length = 0;
    for (block, &spaces) in blocks.iter().zip(spaces) {
        let keep = !spaces;
        let to = kept.get_mut(length..).and_then(|to| to.first_chunk_mut());
        if let Some(to) = to {
            Vectors::load(block).compact(keep, to);
        }
        length += keep.count_ones() as usize;
    }
    length
}

/// Where runs of scalars begin and end.
struct Changes<'s> {
    places: &'s mut [u16; CHANGES + BLOCK],
    pending: usize,
}

impl Changes<'_> {
    /// Whether a scalar is none.
    #[inline(never)]
    fn any_wrong(&mut self, changes: &[u64], text: &[u8]) -> bool {
        let mut wrong = false;
        for (at, &changes) in changes.iter().enumerate() {
            wrong |= self.note(changes, at * BLOCK).is_none();
            if self.pending > CHANGES {
                wrong |= self.are_wrong(text);
            }
        }
        wrong | self.are_wrong(text)
    }

    /// Notes where runs of scalars begin and end. Mostly there are few: so many are written in any case.
    #[inline(always)]
    fn note(&mut self, mut changes: u64, at: usize) -> Option<()> {
        let count = changes.count_ones() as usize;
        let slots = self
            .places
            .get_mut(self.pending..)?
            .first_chunk_mut::<BLOCK>()?;
        let (first, others) = slots.split_first_chunk_mut::<4>()?;
        let mut next = || {
            // At most STRETCH.
            let place = (at + changes.trailing_zeros() as usize) as u16;
            changes &= changes.wrapping_sub(1);
            place
        };
        *first = [next(), next(), next(), next()];
        for slot in others.iter_mut().take(count.saturating_sub(4)) {
            *slot = next();
        }
        self.pending += count;
        Some(())
    }

    /// Whether one of the scalars noted is none; one that has not ended yet stays noted.
    #[inline(never)]
    fn are_wrong(&mut self, text: &[u8]) -> bool {
        let noted = self.places.get(..self.pending).unwrap_or_default();
        let (pairs, open) = noted.as_chunks::<2>();
        let mut wrong = false;
        for &[start, end] in pairs {
            wrong |= !is_scalar(text, usize::from(start), usize::from(end));
        }
        let open = open.first().copied();
        self.pending = usize::from(open.is_some());
        if let (Some(open), Some(first)) = (open, self.places.first_mut()) {
            *first = open;
        }
        wrong
    }
}
