//! The masks of a stretch, an array a class, so that what is done to all blocks alike is done to several at once.
//!
//! Each step is a function that is not inlined: in one, the values of all steps would not have enough registers.

use crate::block::StringCarry;
use crate::block::{BLOCK, Vectors, prefix_xor, spread};

/// Blocks of a stretch at most.
pub(crate) const BLOCKS: usize = 32;

type Masks = [u64; BLOCKS];

/// Which bytes of the blocks are what. A class is that of all bytes first, and after `strings` of those outside strings.
pub(crate) struct Stretched {
    pub(crate) quotes: Masks,
    backslashes: Masks,
    pub(crate) spaces: Masks,
    pub(crate) commas: Masks,
    pub(crate) colons: Masks,
    pub(crate) brackets: Masks,
    pub(crate) line_feeds: Masks,
    /// From each opening quote to before the closing one.
    pub(crate) inside: Masks,
    /// What belongs to a string, both quotes too.
    pub(crate) strings: Masks,
    pub(crate) opens: Masks,
    /// Where the innermost container is an object.
    pub(crate) objects: Masks,
    /// Closing brackets that have nothing before them since the opening one.
    pub(crate) empty: Masks,
    /// Where a number or literal begins, and after its end.
    pub(crate) changes: Masks,
    /// Where values begin.
    pub(crate) values: Masks,
    /// After what a value follows, and after what a name does.
    pub(crate) before_values: Masks,
    pub(crate) before_names: Masks,
}

impl Stretched {
    pub(crate) fn new() -> Self {
        let none = [0; BLOCKS];
        Self {
            quotes: none,
            backslashes: none,
            spaces: none,
            commas: none,
            colons: none,
            brackets: none,
            line_feeds: none,
            inside: none,
            strings: none,
            opens: none,
            objects: none,
            empty: none,
            changes: none,
            values: none,
            before_values: none,
            before_names: none,
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
            self.commas[at] = classes.commas;
            self.colons[at] = classes.colons;
            self.brackets[at] = classes.brackets;
            if lines {
                self.line_feeds[at] = vectors.line_feeds();
            }
        }
    }

    /// Finds the strings of the first `count` blocks, and takes what is in them from all other classes.
    #[expect(
        clippy::indexing_slicing,
        reason = "the arrays are as long as the loop at most"
    )]
    #[inline(never)]
    pub(crate) fn strings(&mut self, count: usize, carry: &mut StringCarry) {
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
            let strings = self.inside[at] | self.quotes[at];
            self.strings[at] = strings;
            self.spaces[at] &= !strings;
            self.commas[at] &= !strings;
            self.colons[at] &= !strings;
            self.brackets[at] &= !strings;
        }
    }

    /// Finds what the grammar goes by in the first `count` blocks; says where a number or literal is at their end.
    #[expect(
        clippy::indexing_slicing,
        reason = "the arrays are as long as the loop at most"
    )]
    #[inline(never)]
    pub(crate) fn tokens(&mut self, count: usize) -> u64 {
        let count = count.min(BLOCKS);
        for at in 0..count {
            self.changes[at] = !(self.strings[at]
                | self.spaces[at]
                | self.commas[at]
                | self.colons[at]
                | self.brackets[at]);
        }
        let mut before = 0;
        for at in 0..count {
            let scalars = self.changes[at];
            let changes = scalars ^ (scalars << 1 | before);
            before = scalars >> 63;
            self.changes[at] = changes;
            self.values[at] =
                (self.quotes[at] & self.inside[at]) | (changes & scalars) | self.opens[at];
            let separators = self.commas[at] | self.opens[at];
            self.before_values[at] = separators | self.colons[at];
            self.before_names[at] = separators & self.objects[at];
        }
        before
    }

    /// What of the first `count` blocks is not where the grammar has it: values where values are due, colons where names are.
    #[inline(never)]
    #[expect(
        clippy::indexing_slicing,
        reason = "the arrays are as long as the loop at most"
    )]
    pub(crate) fn misplaced(&self, count: usize, value: &mut u64, colon: &mut u64) -> u64 {
        let mut wrong = 0;
        for at in 0..count.min(BLOCKS) {
            let spaces = self.spaces[at];
            let before = self.before_values[at];
            let (due, over) = (before << 1 | *value).overflowing_add(spaces);
            *value = before >> 63 | u64::from(over);
            let between = spaces | self.strings[at];
            let before = self.before_names[at];
            let (named, over) = (before << 1 | *colon).overflowing_add(between);
            *colon = before >> 63 | u64::from(over);
            wrong |= ((self.values[at] ^ (due & !spaces)) | (self.colons[at] ^ (named & !between)))
                & !self.empty[at];
            wrong |= self.line_feeds[at] & !self.strings[at];
        }
        wrong
    }

    /// Makes as if block `at` ended in whitespace after what is `within`.
    pub(crate) fn end(&mut self, at: usize, within: u64) {
        let all = [
            &mut self.quotes,
            &mut self.commas,
            &mut self.colons,
            &mut self.brackets,
            &mut self.line_feeds,
            &mut self.inside,
            &mut self.strings,
        ];
        for mask in all.into_iter().filter_map(|masks| masks.get_mut(at)) {
            *mask &= within;
        }
        if let Some(spaces) = self.spaces.get_mut(at) {
            *spaces |= !within;
        }
    }
}
