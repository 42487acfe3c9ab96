//! The tokens of a stretch, one after the other.

use crate::block::BLOCK;
use crate::masks::BLOCKS;

pub(crate) struct Tokens {
    begins: Begins,
    cursor: Cursor,
}

/// Where in each block one begins.
pub(crate) struct Begins {
    masks: [u64; BLOCKS],
    blocks: usize,
    /// Where the last one ends.
    end: usize,
}

/// The token at hand.
#[derive(Clone, Copy, Default)]
pub(crate) struct Cursor {
    /// Its block, and those of it that come after that.
    block: usize,
    rest: u64,
    /// Where it begins; after the last one the end.
    pub(crate) at: usize,
}

impl Cursor {
    /// Goes to the next token.
    #[inline(always)]
    pub(crate) fn step(&mut self, begins: &Begins) {
        let masks = begins.masks.get(..begins.blocks).unwrap_or_default();
        while self.rest == 0 {
            self.block += 1;
            match masks.get(self.block) {
                Some(&mask) => self.rest = mask,
                None => {
                    self.at = begins.end;
                    return;
                }
            }
        }
        self.at = self.block * BLOCK + self.rest.trailing_zeros() as usize;
        self.rest &= self.rest - 1;
    }

    /// Goes to the first token that does not begin before `place`.
    #[inline(always)]
    pub(crate) fn go_to(&mut self, place: usize, begins: &Begins) {
        self.block = place / BLOCK;
        let masks = begins.masks.get(..begins.blocks).unwrap_or_default();
        let mask = masks.get(self.block).copied().unwrap_or_default();
        self.rest = mask & u64::MAX << (place % BLOCK);
        self.step(begins);
    }
}

impl Tokens {
    pub(crate) fn new() -> Self {
        Self {
            begins: Begins {
                masks: [0; BLOCKS],
                blocks: 0,
                end: 0,
            },
            cursor: Cursor::default(),
        }
    }

    /// Goes to the first of those of the next `end` bytes.
    pub(crate) fn start(&mut self, masks: impl Iterator<Item = u64>, end: usize) {
        self.begins.blocks = 0;
        for (to, mask) in self.begins.masks.iter_mut().zip(masks) {
            *to = mask;
            self.begins.blocks += 1;
        }
        self.begins.end = end;
        self.go_to(0);
    }

    /// Where the token at hand begins; after the last one the end.
    #[inline(always)]
    pub(crate) fn at(&self) -> usize {
        self.cursor.at
    }

    /// Goes to the next token.
    #[inline(always)]
    pub(crate) fn step(&mut self) {
        self.cursor.step(&self.begins);
    }

    /// Goes to the first token that does not begin before `place`.
    pub(crate) fn go_to(&mut self, place: usize) {
        self.cursor.go_to(place, &self.begins);
    }

    /// For a loop: the token at hand in a place of its own, and what it goes by.
    #[inline(always)]
    pub(crate) fn apart(&mut self) -> (&mut Cursor, &Begins) {
        (&mut self.cursor, &self.begins)
    }

    /// Where the last token begins.
    pub(crate) fn last(&self) -> Option<usize> {
        let masks = self.begins.masks.get(..self.begins.blocks)?;
        let block = masks.iter().rposition(|&mask| mask != 0)?;
        let mask = masks.get(block)?;
        Some(block * BLOCK + 63 - mask.leading_zeros() as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_comes_once_and_then_the_end() {
        let mut tokens = Tokens::new();
        tokens.start([0b101, 0, 1 << 63, 0].into_iter(), 250);
        let mut places = vec![tokens.at()];
        for _ in 0..4 {
            tokens.step();
            places.push(tokens.at());
        }
        assert_eq!(places, [0, 2, 191, 250, 250]);
        assert_eq!(tokens.last(), Some(191));
        for (place, want) in [(1, 2), (2, 2), (3, 191), (191, 191), (192, 250), (300, 250)] {
            tokens.go_to(place);
            assert_eq!(tokens.at(), want, "{place}");
        }
        tokens.start(std::iter::empty(), 0);
        assert_eq!((tokens.at(), tokens.last()), (0, None));
    }
}
