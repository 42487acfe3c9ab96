//! Where the tokens of a stretch begin, as a list.

use crate::stretch::STRETCH;

/// Bits of a mask.
const BITS: usize = 64;
/// Mostly a mask has few bits: so many are written in any case.
const FEW: usize = 12;

pub(crate) struct Tokens {
    places: [u16; STRETCH + BITS],
    count: usize,
}

impl Tokens {
    pub(crate) fn new() -> Self {
        Self {
            places: [0; STRETCH + BITS],
            count: 0,
        }
    }

    /// Adds the bits of a mask whose lowest is at `at`.
    #[inline(always)]
    pub(crate) fn note(&mut self, mut mask: u64, at: usize) {
        let many = mask.count_ones() as usize;
        let places = self.places.get_mut(self.count..);
        let Some(places) = places.and_then(|places| places.first_chunk_mut::<BITS>()) else {
            return;
        };
        let mut next = || {
            // A stretch has fewer than 65,536 bytes.
            let place = (at + mask.trailing_zeros() as usize) as u16;
            mask &= mask.wrapping_sub(1);
            place
        };
        let (first, others) = places.split_at_mut(FEW);
        for place in first {
            *place = next();
        }
        for place in others.iter_mut().take(many.saturating_sub(FEW)) {
            *place = next();
        }
        self.count += many;
    }

    pub(crate) fn noted(&self) -> &[u16] {
        self.places.get(..self.count).unwrap_or_default()
    }

    pub(crate) fn clear(&mut self) {
        self.count = 0;
    }
}
