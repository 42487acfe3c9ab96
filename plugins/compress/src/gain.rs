//! Whether coding is worth it: what it brought before, and what the first bytes say.

use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};

/// URLs remembered at most. Two that fall on one place share it: the later one counts.
const PLACES: usize = 1024;
/// Times that a URL which gained too little is left alone before it is tried again.
const REST: u8 = 15;

/// URLs whose coded bodies were hardly smaller than the plain ones: 8 KiB, whatever comes.
///
/// The head goes out before the first byte of the body is seen, so what a body gains is known only for the next time.
pub(crate) struct Gains {
    keyed: RandomState,
    places: RefCell<Vec<(u32, u8)>>,
}

/// A URL in [`Gains`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key(u64);

impl Gains {
    pub(crate) fn new() -> Self {
        Self {
            keyed: RandomState::new(),
            places: RefCell::new(vec![(0, 0); PLACES]),
        }
    }

    pub(crate) fn key(&self, authority: &[u8], path: &[u8]) -> Key {
        Key(self.keyed.hash_one((authority, path)))
    }

    /// Whether to leave a body alone because the last one was not worth it. Each time that `counts` brings the next
    /// try nearer.
    pub(crate) fn poor(&self, key: Key, counts: bool) -> bool {
        let mut places = self.places.borrow_mut();
        match places.get_mut(key.place()) {
            Some((mark, left)) if *mark == key.mark() && *left > 0 => {
                *left -= u8::from(counts);
                true
            }
            _ => false,
        }
    }

    /// Learns from a whole body whether it came out larger than `percent` of its length.
    pub(crate) fn learn(&self, key: Key, plain: u64, coded: u64, percent: u8) {
        let poor = percent < 100
            && u128::from(coded) * 100 > u128::from(plain).saturating_mul(percent.into());
        let mut places = self.places.borrow_mut();
        let Some(place) = places.get_mut(key.place()) else {
            return;
        };
        if poor {
            *place = (key.mark(), REST);
        } else if place.0 == key.mark() {
            *place = (0, 0);
        }
    }
}

impl Key {
    fn place(self) -> usize {
        usize::try_from(self.0 % PLACES as u64).unwrap_or(0)
    }

    /// The bits that the place does not say.
    fn mark(self) -> u32 {
        u32::try_from(self.0 >> 32).unwrap_or(0)
    }
}

/// Bytes looked at; fewer say nothing.
const SAMPLE: usize = 1024;

/// Whether these bytes are as evenly spread as those of something that is compressed or encrypted already.
///
/// Of `n` bytes drawn evenly from 256 the squares of the counts add up to about n²/256 + n; text has ten times as much.
pub(crate) fn looks_random(bytes: &[u8]) -> bool {
    let Some(sample) = bytes.get(..SAMPLE) else {
        return false;
    };
    let mut counts = [0_u64; 256];
    for byte in sample {
        if let Some(count) = counts.get_mut(usize::from(*byte)) {
            *count += 1;
        }
    }
    let squares: u64 = counts.iter().map(|count| count * count).sum();
    let n = sample.len() as u64;
    squares * 10 <= (n * n / 256 + n) * 12
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poor_url_rests_and_is_tried_again() {
        let gains = Gains::new();
        let key = gains.key(b"a", b"/1");
        assert!(!gains.poor(key, true), "nothing is known");
        gains.learn(key, 1000, 901, 90);
        assert_eq!(
            (0..20).filter(|_| gains.poor(key, true)).count(),
            usize::from(REST)
        );
        gains.learn(key, 1000, 901, 90);
        assert!((0..100).all(|_| gains.poor(key, false)), "HEAD only looks");
        gains.learn(key, 1000, 900, 90);
        assert!(!gains.poor(key, true), "it got better");
        gains.learn(key, 1000, 2000, 100);
        assert!(
            !gains.poor(key, true),
            "100 percent codes whatever comes of it"
        );
        gains.learn(key, 1000, 2000, 99);
        assert!(
            !gains.poor(gains.key(b"b", b"/1"), true),
            "another host's is another's"
        );
    }

    #[test]
    fn random_bytes_are_told_from_the_rest() {
        let mut state = 1_u64;
        let mut random = |_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        };
        let noise: Vec<u8> = (0..4096).map(&mut random).collect();
        let text = "to be, or not to be, that is the question; ".repeat(100);
        let base64: Vec<u8> = noise.iter().map(|byte| b'0' + byte % 64).collect();
        for (name, bytes, want) in [
            ("noise", &noise[..], true),
            ("a kilobyte of noise", &noise[..1024], true),
            ("too little to say", &noise[..1000], false),
            ("text", text.as_bytes(), false),
            ("base64 still shrinks by a quarter", &base64, false),
            ("zeros", &[0; 4096], false),
        ] {
            assert_eq!(looks_random(bytes), want, "{name}");
        }
    }
}
