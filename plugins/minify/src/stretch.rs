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

use crate::block::{BLOCK, Classes, StringCarry, Vectors, spread};
use crate::nesting::{Container, Nesting};
use crate::scalar::is_scalar;

/// Most bytes of a stretch.
pub(crate) const STRETCH: usize = 2048;

const BLOCKS: usize = STRETCH / BLOCK;

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
    classes: [Classes; BLOCKS],
    /// What of each block is kept.
    keep: [u64; BLOCKS],
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
            classes: [Classes::default(); BLOCKS],
            keep: [0; BLOCKS],
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
        classify(blocks, &mut self.classes, rules.lines);
        let mut at = self.validate(text, blocks, &mut place, nesting, rules)?;
        let used = at.div_ceil(BLOCK);
        self.ahead = match used == blocks.len() {
            true => (2 * used).min(BLOCKS),
            false => used + 1,
        };
        self.length = compact(blocks.get(..used)?, &self.keep, &mut self.kept);
        if let Some(&start) = self.changes.get(..self.pending)?.first() {
            // A number or literal that may go on is left for the next stretch.
            let start = usize::from(start);
            self.length = self.length.checked_sub(at.checked_sub(start)?)?;
            at = start;
            place.value = 1;
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
        self.pending = 0;
        let mut object = is_object(nesting);
        let mut scalar = 0;
        let mut faults = 0;
        let mut at = 0;
        let rooms = self.classes.iter().zip(&mut self.keep);
        let changes_noted = &mut Changes {
            places: &mut self.changes,
            pending: 0,
        };
        for (block, (classes, keep)) in blocks.iter().zip(rooms) {
            let mut strings = place.strings.strings(classes);
            let brackets = classes.brackets & !strings.whole();
            let mut found = Brackets {
                opens: 0,
                closes: 0,
                objects: object,
                within: u64::MAX,
                fault: false,
            };
            if brackets != 0 {
                found.take(brackets, block, nesting, rules.max_depth);
                object = is_object(nesting);
            }
            let Brackets {
                opens,
                closes,
                objects,
                within,
                fault,
            } = found;
            // What comes after the end of the text is not looked at here: it is as if the block ended in whitespace.
            strings.quotes &= within;
            strings.inside &= within;
            let outside = !strings.whole();
            let spaces = (classes.spaces | !within) & outside;
            let commas = classes.commas & outside & within;
            let colons = classes.colons & outside & within;
            let scalars = outside & !(spaces | commas | colons | opens | closes);
            let changes = scalars ^ (scalars << 1 | scalar);
            scalar = scalars >> 63;

            let values = (strings.quotes & strings.inside) | (changes & scalars) | opens;
            let before_values = commas | colons | opens;
            let (due, over) = (before_values << 1 | place.value).overflowing_add(spaces);
            place.value = before_values >> 63 | u64::from(over);
            let before_names = (commas | opens) & objects;
            let between = spaces | strings.whole();
            let (named, over) = (before_names << 1 | place.colon).overflowing_add(between);
            place.colon = before_names >> 63 | u64::from(over);
            let wrong = (values ^ (due & !spaces)) | (colons ^ (named & !between));
            if brackets == 0 {
                faults |= wrong;
                place.opened &= u64::from(spaces == u64::MAX);
            } else {
                let (empty, over) = (opens << 1 | place.opened).overflowing_add(spaces);
                place.opened = opens >> 63 | u64::from(over);
                faults |= wrong & !(closes & empty & !spaces) | u64::from(fault);
            }
            faults |= classes.line_feeds & outside & within;
            *keep = !spaces;
            changes_noted.note(changes, at)?;
            at += BLOCK;
            if nesting.innermost().is_none() {
                at -= within.leading_zeros() as usize;
                break;
            }
            if changes_noted.pending > CHANGES {
                faults |= u64::from(changes_noted.are_wrong(text));
            }
        }
        faults |= u64::from(changes_noted.are_wrong(text));
        self.pending = changes_noted.pending;
        (faults == 0).then_some(at)
    }
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

fn classify(blocks: &[[u8; BLOCK]], classes: &mut [Classes; BLOCKS], lines: bool) {
    for (block, classes) in blocks.iter().zip(classes) {
        let vectors = Vectors::load(block);
        *classes = vectors.classes();
        if lines {
            classes.line_feeds = vectors.line_feeds();
        }
    }
}

/// Packs what is kept of the blocks; says how much that is.
fn compact(
    blocks: &[[u8; BLOCK]],
    keep: &[u64; BLOCKS],
    kept: &mut [u8; STRETCH + BLOCK + 8],
) -> usize {
    let mut length = 0;
    for (block, &keep) in blocks.iter().zip(keep) {
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
