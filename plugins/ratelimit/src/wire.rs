//! The messages of `POST /limit`: one decision on all limits of a rule, and its answer. Little-endian, without padding.
//!
//! The store's page has them as tables, and examples beside it that the tests here read too.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::quota::Standing;

const VERSION: u8 = 1;
/// The longest key a store takes; of one that reaches it the beginning counts, and the SHA-256 of all of it. Only such keys are
/// as long as that, so that no other can be written to equal one.
const MOST_KEY: usize = 512;
const BEGINNING: usize = MOST_KEY - 32;
/// The longest time a limit may span there: ten years.
pub const MOST_SPAN: u64 = 10 * 365 * 86_400 * 1_000_000_000;
/// Added to the number of limits: the cells are taken whether they conform or not.
const CHARGE: u8 = 128;

/// Limits as a message has them: how many, then each.
#[derive(Debug, Default)]
pub struct Limits(Vec<u8>);

impl Limits {
    /// Adds a cell each `interval` nanoseconds, with so many nanoseconds for all that may come at once.
    pub fn gcra(&mut self, interval: u64, span: u64) {
        self.push(1, interval, span.saturating_sub(interval));
    }
    /// Adds a window of so many nanoseconds.
    pub fn window(&mut self, per: u64, limit: u32) {
        self.push(2, per, u64::from(limit));
    }
    /// The bytes.
    pub fn bytes(self) -> Bytes {
        self.0.into()
    }

    fn push(&mut self, algorithm: u8, first: u64, second: u64) {
        match self.0.first_mut() {
            Some(count) => *count = count.saturating_add(1),
            None => self.0.push(1),
        }
        self.0.push(algorithm);
        self.0.extend_from_slice(&first.to_le_bytes());
        self.0.extend_from_slice(&second.to_le_bytes());
    }
}

/// Whether cells are asked for, or were used already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    /// All limits admit them, or none is charged.
    Asked,
    /// They are taken; what they exceed a limit by is forgiven.
    Had,
}

/// A message about `cost` cells of one key.
pub fn ask(key: &[u8], cost: u32, used: Use, limits: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(9 + key.len().min(MOST_KEY) + limits.len());
    out.push(VERSION);
    out.extend_from_slice(&1u16.to_le_bytes());
    let length = |length: usize| u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes();
    match key.get(..BEGINNING).filter(|_| key.len() >= MOST_KEY) {
        Some(beginning) => {
            out.extend_from_slice(&length(MOST_KEY));
            out.extend_from_slice(beginning);
            out.extend_from_slice(&Sha256::digest(key));
        }
        None => {
            out.extend_from_slice(&length(key.len()));
            out.extend_from_slice(key);
        }
    }
    out.extend_from_slice(&cost.to_le_bytes());
    if let Some((count, rest)) = limits.split_first() {
        out.push(if used == Use::Had {
            count | CHARGE
        } else {
            *count
        });
        out.extend_from_slice(rest);
    }
    out.into()
}

/// What each of so many limits says; `None` when it is no answer to one decision on them.
pub fn answer(body: &[u8], limits: usize) -> Option<Vec<Standing>> {
    let (head, mut rest) = body.split_first_chunk::<21>()?;
    let [
        VERSION,
        1,
        0,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        refused,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        count,
    ] = *head
    else {
        return None;
    };
    if usize::from(count) != limits {
        return None;
    }
    let mut standings = Vec::with_capacity(limits);
    for policy in 0..limits {
        let (remaining, after) = rest.split_first_chunk::<4>()?;
        let (reset, after) = after.split_first_chunk::<8>()?;
        let (wait, after) = after.split_first_chunk::<8>()?;
        let wait = u64::from_le_bytes(*wait);
        standings.push(Standing {
            policy,
            remaining: u32::from_le_bytes(*remaining),
            reset: u64::from_le_bytes(*reset),
            wait: (wait > 0).then_some(wait),
        });
        rest = after;
    }
    // The verdict and what the limits say must be the same.
    let waits = standings.iter().any(|standing| standing.wait.is_some());
    (rest.is_empty() && waits == (refused == 1)).then_some(standings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const VECTORS: &str = include_str!("../../../host/store/limit-vectors.txt");

    fn vectors(what: &str) -> Vec<(Vec<u8>, &'static str)> {
        let read = |line: &'static str| {
            let (hex, reads) = line.strip_prefix(what)?.trim_start().split_once(' ')?;
            let byte = |at: usize| u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok();
            let bytes: Option<Vec<u8>> = (0..hex.len() / 2).map(byte).collect();
            Some((bytes?, reads))
        };
        VECTORS.lines().filter_map(read).collect()
    }

    #[test]
    fn asks_are_written_as_the_store_reads_them() {
        let mut hundred = Limits::default();
        hundred.gcra(600_000_000, 60_000_000_000);
        let hundred = hundred.bytes();
        let asks: Vec<Vec<u8>> = vectors("ask").into_iter().map(|(bytes, _)| bytes).collect();
        for (name, used) in [("asked", Use::Asked), ("had", Use::Had)] {
            let message = ask(b"alice", 1, used, &hundred);
            assert!(
                asks.iter().any(|ask| ask == &message[..]),
                "{name}: {message:?}"
            );
        }
    }

    #[test]
    fn answers_of_one_decision_are_read() {
        let mut read = 0;
        for (bytes, reads) in vectors("answer") {
            let limits = reads.matches("Standing").count();
            let one = !reads.contains("], [");
            assert_eq!(answer(&bytes, limits).is_some(), one, "{reads}");
            assert_eq!(answer(&bytes, limits + 1), None);
            if let Some(standings) = answer(&bytes, limits) {
                let text = format!("remaining: {}", standings[0].remaining);
                assert!(reads.contains(&text), "{reads}");
                read += 1;
            }
            for cut in 0..bytes.len() {
                assert_eq!(answer(&bytes[..cut], limits), None);
            }
        }
        assert!(read >= 1);
    }

    #[test]
    fn keys_over_the_bound_stay_apart() {
        let key = |bytes: usize, last: u8| [&vec![b'k'; bytes - 1][..], &[last]].concat();
        for bytes in [1, MOST_KEY - 1, MOST_KEY, MOST_KEY + 1, 4_000] {
            let (one, other) = (key(bytes, 1), key(bytes, 2));
            let message = |key: &[u8]| ask(key, 1, Use::Asked, &[]);
            assert_ne!(message(&one), message(&other), "{bytes} bytes");
            assert!(message(&one).len() <= 9 + MOST_KEY);
        }
        let long = key(4_000, 1);
        let written = [&long[..BEGINNING], &Sha256::digest(&long)].concat();
        let message = |key: &[u8]| ask(key, 1, Use::Asked, &[]);
        assert_ne!(
            message(&long),
            message(&written),
            "one that a client writes"
        );
    }

    proptest! {
        #[test]
        fn any_answer_is_read(bytes in prop::collection::vec(any::<u8>(), 0..80), limits in 0usize..4) {
            let _ = answer(&bytes, limits);
        }
    }
}
