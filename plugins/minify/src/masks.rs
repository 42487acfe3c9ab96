//! The masks of a stretch, an array a class, so that what is done to all blocks alike is done to several at once.
//!
//! Each step is a function that is not inlined: in one, the values of all steps would not have enough registers.

use crate::block::StringCarry;
use crate::block::{BLOCK, Vectors, prefix_xor, spread};
use crate::stretch::below;
use crate::tokens::Tokens;

/// Blocks of a stretch at most.
pub(crate) const BLOCKS: usize = 32;

type Masks = [u64; BLOCKS];

/// Which bytes of the blocks are what.
pub(crate) struct Stretched {
    /// Without those that are escaped, after `strings`.
    quotes: Masks,
    backslashes: Masks,
    /// What is left out: whitespace, after `strings` only that outside strings.
    spaces: Masks,
    marks: Masks,
    line_feeds: Masks,
    /// From each opening quote to before the closing one.
    inside: Masks,
    /// What is kept.
    pub(crate) kept: Masks,
    /// What the grammar looks at: what is kept, but of each string only its opening quote.
    pub(crate) bones: Masks,
    /// How many of these there are up to the end of a block.
    counts: [u16; BLOCKS],
    /// Bytes of numbers and literals, and whatever else is outside strings.
    scalars: Masks,
    /// Where two of them would become one, and line feeds in a line.
    doubts: Masks,
}

impl Stretched {
    pub(crate) fn new() -> Self {
        let none = [0; BLOCKS];
        Self {
            quotes: none,
            backslashes: none,
            spaces: none,
            marks: none,
            line_feeds: none,
            inside: none,
            kept: none,
            bones: none,
            counts: [0; BLOCKS],
            scalars: none,
            doubts: none,
        }
    }

    /// Tells the bytes of the blocks apart.
    #[expect(
        clippy::indexing_slicing,
        reason = "the arrays are as long as the loop at most"
    )]
    #[inline(never)]
    pub(crate) fn classify(&mut self, blocks: &[[u8; BLOCK]], lines: bool) {
        for (at, block) in blocks.iter().take(BLOCKS).enumerate() {
            let vectors = Vectors::load(block);
            let classes = vectors.classes();
            self.quotes[at] = classes.quotes;
            self.backslashes[at] = classes.backslashes;
            self.spaces[at] = classes.spaces;
            self.marks[at] = classes.marks;
            if lines {
                self.line_feeds[at] = vectors.equal(b'\n');
            }
        }
    }

    /// Finds the strings of the first `count` blocks, and what is kept; says how many bytes of a scalar are at their end.
    #[expect(
        clippy::indexing_slicing,
        reason = "the arrays are as long as the loop at most"
    )]
    #[inline(never)]
    pub(crate) fn strings(&mut self, count: usize, carry: &mut StringCarry) -> usize {
        let count = count.min(BLOCKS);
        let mut backslashes = carry.escaped;
        for at in 0..count {
            backslashes |= self.backslashes[at];
        }
        if backslashes != 0 {
            for at in 0..count {
                self.quotes[at] &= !carry.escapes(self.backslashes[at]);
            }
        }
        for at in 0..count {
            self.inside[at] = prefix_xor(self.quotes[at]);
        }
        for inside in self.inside.iter_mut().take(count) {
            *inside ^= carry.inside;
            carry.inside = spread(*inside >> 63);
        }
        for at in 0..count {
            let (quotes, inside) = (self.quotes[at], self.inside[at]);
            let strings = inside | quotes;
            let spaces = self.spaces[at] & !strings;
            self.spaces[at] = spaces;
            self.kept[at] = !spaces;
            self.bones[at] = !(strings | spaces) | (quotes & inside);
            self.scalars[at] = !(strings | spaces | self.marks[at]);
            self.doubts[at] = self.line_feeds[at] & !strings;
        }
        let (mut before, mut gap) = (0, 0);
        for at in 0..count {
            let (scalars, spaces) = (self.scalars[at], self.spaces[at]);
            // Whitespace after a scalar is carried over to what comes after it.
            let after = ((scalars << 1 | before) & spaces) | gap;
            before = scalars >> 63;
            let (next, over) = after.overflowing_add(spaces);
            gap = u64::from(over);
            self.doubts[at] |= next & !spaces & scalars;
        }
        let scalars = self.scalars.get(..count).unwrap_or_default();
        let mut open = 0;
        for scalars in scalars.iter().rev() {
            open += scalars.leading_ones() as usize;
            if *scalars != u64::MAX {
                break;
            }
        }
        open
    }

    /// Whether there is something doubtful up to the byte `within` of the last of `count` blocks.
    #[inline(never)]
    pub(crate) fn are_doubtful(&self, count: usize, within: u64) -> bool {
        let doubts = self.doubts.get(..count).unwrap_or_default();
        let Some((last, others)) = doubts.split_last() else {
            return false;
        };
        others.iter().fold(last & within, |all, one| all | one) != 0
    }

    /// Counts the bones of the first `count` blocks, so that they can be found.
    pub(crate) fn count(&mut self, count: usize) {
        // Of no block beyond them there are any.
        self.counts.fill(u16::MAX);
        let mut all = 0;
        let masks = self.bones.iter().take(count);
        for (sum, bones) in self.counts.iter_mut().zip(masks) {
            all += bones.count_ones() as u16;
            *sum = all;
        }
    }

    /// Where in the blocks bone number `number` is: in which block, and all of that up to it.
    pub(crate) fn find(&self, number: usize) -> Option<(usize, u64)> {
        let at = self
            .counts
            .partition_point(|&count| usize::from(count) <= number);
        let before = at.checked_sub(1).and_then(|at| self.counts.get(at));
        let before = number - usize::from(*before.unwrap_or(&0));
        let mut bones = *self.bones.get(at)?;
        for _ in 0..before {
            bones &= bones.wrapping_sub(1);
        }
        Some((at, bones ^ bones.wrapping_sub(1)))
    }

    /// Where in the blocks the bone is that so many others of the first `count` blocks come after.
    pub(crate) fn find_last(&self, others: usize, count: usize) -> Option<usize> {
        let mut others = others;
        let bones = self.bones.get(..count)?;
        for (at, &bones) in bones.iter().enumerate().rev() {
            let here = bones.count_ones() as usize;
            if others < here {
                let mut bones = bones;
                for _ in 0..others {
                    bones ^= 1 << bones.ilog2();
                }
                return Some(at * BLOCK + bones.ilog2() as usize);
            }
            others -= here;
        }
        None
    }

    /// The last bone before the byte `place`.
    pub(crate) fn bone_before(&self, place: usize) -> Option<usize> {
        let last = place / BLOCK;
        let (last, others) = self.bones.get(..=last)?.split_last()?;
        let mut first = others.len() * BLOCK;
        let mut bones = last & below(place % BLOCK);
        let mut others = others.iter().rev();
        while bones == 0 {
            bones = *others.next()?;
            first -= BLOCK;
        }
        Some(first + 63 - bones.leading_zeros() as usize)
    }

    /// The first bone that is not before the byte `place`, where there is one.
    pub(crate) fn bone_from(&self, place: usize) -> Option<usize> {
        let mut at = place / BLOCK;
        let mut here = self.bones.get(at)? & u64::MAX << (place % BLOCK);
        while here == 0 {
            at += 1;
            here = *self.bones.get(at)?;
        }
        Some(at * BLOCK + here.trailing_zeros() as usize)
    }

    /// The bytes of a block's numbers and literals.
    pub(crate) fn scalars(&self, block: usize) -> u64 {
        self.scalars.get(block).copied().unwrap_or_default()
    }

    /// The block, from block `from` on, that bone number `number` is in.
    pub(crate) fn block_of(&self, number: usize, from: usize) -> usize {
        let counts = self.counts.get(from..).unwrap_or_default();
        let before = counts
            .iter()
            .take_while(|count| usize::from(**count) <= number);
        from + before.count()
    }

    /// Whether there may be a backslash between two places.
    #[inline]
    pub(crate) fn may_escape(&self, start: usize, end: usize) -> bool {
        let blocks = self.backslashes.get(start / BLOCK..=end / BLOCK);
        blocks.is_none_or(|blocks| blocks.iter().any(|&backslashes| backslashes != 0))
    }

    /// The tokens up to the byte `end`.
    #[inline(never)]
    pub(crate) fn tokens(&self, end: usize, tokens: &mut Tokens) {
        let mut before = 0;
        let all = self.bones.iter().zip(&self.scalars).enumerate();
        let begins = all
            .take(end.div_ceil(BLOCK))
            .map(|(at, (&bones, &scalars))| {
                let begins = bones & !(scalars & (scalars << 1 | before));
                before = scalars >> 63;
                begins & below(end - at * BLOCK)
            });
        tokens.start(begins, end);
    }

    /// Turns places of the text, in order, into those of what is kept, each with something of its own.
    pub(crate) fn rank<T>(&self, places: &mut [(usize, T)]) {
        let (mut blocks, mut before) = (0, 0);
        for (place, _) in places {
            let block = *place / BLOCK;
            let passed = self.kept.get(blocks..block).unwrap_or_default();
            before += passed.iter().map(|kept| kept.count_ones()).sum::<u32>();
            blocks = block;
            let kept = self.kept.get(block).copied().unwrap_or_default();
            *place = (before + (kept & below(*place % BLOCK)).count_ones()) as usize;
        }
    }

    /// Leaves out the bytes from `start` to before `end`.
    pub(crate) fn leave_out(&mut self, start: usize, end: usize) {
        let blocks = start / BLOCK..end.div_ceil(BLOCK);
        let last = match end % BLOCK {
            0 => 0,
            end => u64::MAX << end,
        };
        match self.kept.get_mut(blocks).unwrap_or_default() {
            [] => {}
            [only] => *only &= below(start % BLOCK) | last,
            [first, within @ .., beyond] => {
                *first &= below(start % BLOCK);
                within.fill(0);
                *beyond &= last;
            }
        }
    }
}
