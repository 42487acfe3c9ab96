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
use crate::nesting::{Container, Nesting};
use crate::scalar::is_scalar;

/// Most bytes of a stretch.
pub(crate) const STRETCH: usize = 4096;

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

/// What of a stretch is kept, and the room to find it in.
pub(crate) struct Stretch {
    kept: [u8; STRETCH + BLOCK + 8],
    length: usize,
    /// Where runs of scalar bytes begin and end, in turn.
    changes: [u16; CHANGES + BLOCK],
    pending: usize,
}

/// A stretch that is valid: how far it went.
pub(crate) struct Taken {
    pub(crate) bytes: usize,
    pub(crate) place: Place,
}

impl Stretch {
    pub(crate) fn new() -> Self {
        Self {
            kept: [0; STRETCH + BLOCK + 8],
            length: 0,
            changes: [0; CHANGES + BLOCK],
            pending: 0,
        }
    }

    /// What is kept of the last stretch taken.
    pub(crate) fn kept(&self) -> &[u8] {
        self.kept.get(..self.length).unwrap_or_default()
    }

    /// Takes blocks from the start of `text` up to `STRETCH` bytes, or to the end of the outermost container; `None` when
    /// anything of them is doubtful. `lines`: a line feed outside strings is. `nesting` is of use only after a stretch taken.
    pub(crate) fn take(
        &mut self,
        text: &[u8],
        mut place: Place,
        nesting: &mut Nesting,
        max_depth: usize,
        lines: bool,
    ) -> Option<Taken> {
        (self.length, self.pending) = (0, 0);
        let (blocks, _) = text
            .get(..text.len().min(STRETCH))
            .unwrap_or_default()
            .as_chunks::<BLOCK>();
        let mut object = spread(u64::from(nesting.innermost() == Some(Container::Object)));
        let mut scalar = 0;
        let mut faults = 0;
        let mut at = 0;
        for block in blocks {
            let vectors = Vectors::load(block);
            let classes = vectors.classes();
            let mut strings = place.strings.strings(&classes);
            let mut within = u64::MAX;
            let (mut opens, mut closes) = (0, 0);
            let mut objects = object;
            let mut brackets = classes.brackets & !strings.whole();
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
                match byte {
                    b'{' | b'[' => {
                        opens |= bit;
                        faults |= u64::from(!nesting.push(container, max_depth));
                    }
                    b'}' | b']' => {
                        closes |= bit;
                        faults |= u64::from(nesting.innermost() != Some(container));
                        nesting.pop();
                    }
                    _ => faults = 1,
                }
                let innermost = nesting.innermost();
                object = spread(u64::from(innermost == Some(Container::Object)));
                // From here on another container is the innermost.
                objects = (objects & (bit - 1)) | (object & bit.wrapping_neg());
                if innermost.is_none() {
                    within = bit | (bit - 1);
                    break;
                }
            }
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
            let (named, named_over) = (before_names << 1 | place.colon).overflowing_add(between);
            place.colon = before_names >> 63 | u64::from(named_over);
            let wrong = (values ^ (due & !spaces)) | (colons ^ (named & !between));
            if opens | closes == 0 {
                faults |= wrong;
                place.opened &= u64::from(spaces == u64::MAX);
            } else {
                let (empty, over) = (opens << 1 | place.opened).overflowing_add(spaces);
                place.opened = opens >> 63 | u64::from(over);
                faults |= wrong & !(closes & empty & !spaces);
            }
            if lines {
                faults |= vectors.line_feeds() & outside & within;
            }

            let keep = !spaces;
            let to = self.kept.get_mut(self.length..)?.first_chunk_mut()?;
            vectors.compact(keep, to);
            self.length += keep.count_ones() as usize;
            self.note(changes, at)?;
            at += BLOCK;
            if within != u64::MAX || nesting.innermost().is_none() {
                at -= within.leading_zeros() as usize;
                break;
            }
            if self.pending > CHANGES {
                faults |= self.check(text);
            }
        }
        faults |= self.check(text);
        if scalar == 1 {
            // A number or literal that may go on is left for the next stretch.
            let start = self.changes.first().copied().map_or(at, usize::from);
            self.length = self.length.saturating_sub(at.saturating_sub(start));
            at = start;
            place.value = 1;
        }
        // RFC 8259 §7: no control character in a string; and there is none outside but the whitespace that is gone.
        let least = self
            .kept()
            .iter()
            .fold(u8::MAX, |least, &byte| least.min(byte));
        (faults == 0 && least >= b' ' && at > 0).then_some(Taken { bytes: at, place })
    }

    /// Notes where runs of scalars begin and end. Mostly there are few: so many are written in any case.
    #[inline(always)]
    fn note(&mut self, mut changes: u64, at: usize) -> Option<()> {
        let count = changes.count_ones() as usize;
        let slots = self
            .changes
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

    /// Looks at the scalars noted; one that has not ended yet stays noted.
    fn check(&mut self, text: &[u8]) -> u64 {
        let (pairs, open) = self
            .changes
            .get(..self.pending)
            .unwrap_or_default()
            .as_chunks::<2>();
        let mut faults = false;
        for &[start, end] in pairs {
            faults |= !is_scalar(text, usize::from(start), usize::from(end));
        }
        let open = open.first().copied();
        self.pending = usize::from(open.is_some());
        if let (Some(open), Some(first)) = (open, self.changes.first_mut()) {
            *first = open;
        }
        u64::from(faults)
    }
}
