//! Stretches of blocks that are found to be JSON without a look at their single bytes.
//!
//! What is kept of the blocks is packed twice: once as what goes on, and once as a skeleton, which is much shorter, and
//! in which the grammar is a matter of neighbours (see `skeleton`).
//!
//! A stretch is valid as a whole, or it is nothing: the lexer then goes over it byte by byte, and alone says which byte
//! is wrong and why.

use crate::block::{BLOCK, StringCarry, Vectors};
use crate::masks::{BLOCKS, Stretched};
use crate::nesting::Nesting;
use crate::skeleton;

/// Most bytes of a stretch.
pub(crate) const STRETCH: usize = BLOCKS * BLOCK;

/// Room for what is packed of a stretch: whole blocks are written.
pub(crate) type Packed = [u8; STRETCH + BLOCK + 8];

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

/// What of a stretch is kept, and the room to find it in. A stretch is gone over several times, each time with one kind of
/// work: masks from vectors, vectors packed by masks, grammar on masks.
pub(crate) struct Stretch {
    pub(crate) masks: Stretched,
    kept: Packed,
    length: usize,
    pub(crate) bones: Packed,
    /// Blocks to look at next: few after a text that ended early.
    ahead: usize,
}

/// A stretch that is valid: how far it went.
pub(crate) struct Taken {
    pub(crate) bytes: usize,
    pub(crate) place: Place,
}

/// Blocks that are JSON.
pub(crate) struct Scan {
    pub(crate) blocks: usize,
    /// Bytes of their skeleton.
    pub(crate) bones: usize,
    /// Bytes of a number or literal at the end, which may go on: they are not of the skeleton.
    pub(crate) open: usize,
    /// The number of the bone that ends the outermost container.
    pub(crate) ended: Option<usize>,
}

/// What the grammar goes by.
pub(crate) struct Rules {
    pub(crate) max_depth: usize,
    /// No line feed may be between tokens.
    pub(crate) lines: bool,
}

impl Stretch {
    pub(crate) fn new() -> Self {
        Self {
            masks: Stretched::new(),
            kept: [0; STRETCH + BLOCK + 8],
            length: 0,
            bones: [0; STRETCH + BLOCK + 8],
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
        let scan = self.scan(text, &mut place, nesting, rules)?;
        let (used, within, open) = match scan.ended {
            None => (scan.blocks, u64::MAX, scan.open),
            Some(bone) => {
                let (at, within) = self.masks.find(bone)?;
                (at + 1, within, 0)
            }
        };
        if self.masks.are_doubtful(used, within) {
            return None;
        }
        if open > 0 {
            // A backslash in it, where none may be, escapes nothing before it.
            place.strings = StringCarry::default();
        }
        self.pack(text, used, within, open)?;
        let bytes = used * BLOCK - within.leading_zeros() as usize - open;
        (bytes > 0).then_some(Taken { bytes, place })
    }

    /// Finds what is what in the next blocks, and whether it is JSON.
    pub(crate) fn scan(
        &mut self,
        text: &[u8],
        place: &mut Place,
        nesting: &mut Nesting,
        rules: &Rules,
    ) -> Option<Scan> {
        let (blocks, _) = text.as_chunks::<BLOCK>();
        let blocks = blocks.get(..self.ahead).unwrap_or(blocks);
        self.masks.classify(blocks, rules.lines);
        // A number or literal that may go on is left for the next stretch.
        let open = self.masks.strings(blocks.len(), &mut place.strings);
        let bones = pack::<false>(blocks, &self.masks.bones, &mut self.bones).checked_sub(open)?;
        self.ahead = BLOCKS;
        let checked = skeleton::check(&mut self.bones, bones, place, nesting, rules)?;
        self.ahead = match checked.ended {
            Some(bone) => {
                self.masks.count(blocks.len());
                self.masks.find(bone)?.0 + 2
            }
            None => (2 * blocks.len()).min(BLOCKS),
        };
        Some(Scan {
            blocks: blocks.len(),
            bones,
            open,
            ended: checked.ended,
        })
    }

    /// What follows the end of the outermost of `open` arrays and objects, which are open at the place `from`, where that end is
    /// before the place `end`. A block that does not close so many is looked at as a whole.
    pub(crate) fn end_of(
        &self,
        text: &[u8],
        end: usize,
        mut open: usize,
        from: usize,
    ) -> Option<usize> {
        let (blocks, _) = text.as_chunks::<BLOCK>();
        let within = from / BLOCK..end.div_ceil(BLOCK);
        let bones = self.masks.bones.get(within.clone())?;
        let mut after = u64::MAX << (from % BLOCK);
        for (block, (at, bones)) in blocks.get(within.clone())?.iter().zip(within.zip(bones)) {
            let first = at * BLOCK;
            let within = bones & below(end - first) & after;
            after = u64::MAX;
            let found = Vectors::load(block).bones();
            let (mut opens, mut closes) = (found.opens & within, found.closes & within);
            while closes != 0 && closes.count_ones() as usize >= open {
                let bit = closes & closes.wrapping_neg();
                open += (opens & (bit - 1)).count_ones() as usize;
                open -= 1;
                if open == 0 {
                    return Some(first + bit.trailing_zeros() as usize + 1);
                }
                opens &= !(bit - 1);
                closes ^= bit;
            }
            open += opens.count_ones() as usize;
            open -= closes.count_ones() as usize;
        }
        None
    }

    /// Whether there is a control character in the strings of the first `end` bytes of `text`.
    pub(crate) fn has_controls(&self, text: &[u8], end: usize) -> bool {
        let (blocks, _) = text.as_chunks::<BLOCK>();
        let (mut all, mut last) = (0, 0);
        for (block, kept) in blocks
            .iter()
            .take(end.div_ceil(BLOCK))
            .zip(&self.masks.kept)
        {
            all |= last;
            last = Vectors::load(block).controls() & kept;
        }
        all | last & u64::MAX >> (BLOCK - 1 - end.wrapping_sub(1) % BLOCK) != 0
    }

    /// Packs what is kept of the first `end` bytes of `text`.
    pub(crate) fn pack_all(&mut self, text: &[u8], end: usize) -> &[u8] {
        let used = end.div_ceil(BLOCK);
        self.masks.leave_out(end, used * BLOCK);
        let (blocks, _) = text.as_chunks::<BLOCK>();
        let blocks = blocks.get(..used).unwrap_or_default();
        self.length = pack::<true>(blocks, &self.masks.kept, &mut self.kept);
        self.kept()
    }

    /// Packs what is kept of the first blocks of `text`, of the last of them what is `within`, and of that not the last `open`
    /// bytes. `None` when a control character is among it.
    pub(crate) fn pack(
        &mut self,
        text: &[u8],
        used: usize,
        within: u64,
        open: usize,
    ) -> Option<()> {
        let (blocks, _) = text.as_chunks::<BLOCK>();
        let last = *self.masks.kept.get(used.checked_sub(1)?)?;
        let beyond = (last & !within).count_ones() as usize + open;
        let packed = pack::<false>(blocks.get(..used)?, &self.masks.kept, &mut self.kept);
        self.length = packed.checked_sub(beyond)?;
        // RFC 8259 §7: no control character in a string; and there is none outside but the whitespace that is gone.
        let least = self
            .kept()
            .iter()
            .fold(u8::MAX, |least, &byte| least.min(byte));
        (least >= b' ').then_some(())
    }
}

/// As many ones, from the lowest bit on.
pub(crate) fn below(bits: usize) -> u64 {
    match bits < BLOCK {
        true => (1 << bits) - 1,
        false => u64::MAX,
    }
}

/// Packs what is kept of the blocks, of `SPARSE` ones of which much is not; says how much that is.
#[inline(never)]
fn pack<const SPARSE: bool>(
    blocks: &[[u8; BLOCK]],
    keep: &[u64; BLOCKS],
    packed: &mut Packed,
) -> usize {
    let mut length = 0;
    for (block, &keep) in blocks.iter().zip(keep) {
        if SPARSE && keep == 0 {
            continue;
        }
        length = put(&Vectors::load(block), keep, packed, length);
    }
    length
}

/// Packs what is kept of a block behind what already is; says how much that is now.
#[inline(always)]
pub(crate) fn put(vectors: &Vectors, keep: u64, packed: &mut Packed, at: usize) -> usize {
    let to = packed.get_mut(at..).and_then(|to| to.first_chunk_mut());
    if let Some(to) = to {
        vectors.compact(keep, to);
    }
    at + keep.count_ones() as usize
}
