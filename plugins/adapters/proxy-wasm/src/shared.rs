//! The host's shared data as the pools see it, and the hashing they share.

use std::hash::{BuildHasher, Hasher, RandomState};

use bytes::Bytes;
use edgeweir_filter::Failed;

use crate::hostcalls::{self, Status};

/// What must hold for a write to happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expect {
    /// Nothing.
    Any,
    /// The key holds no value.
    Absent,
    /// The value still has this number.
    Version(u32),
}

/// Values by key, seen by several workers at once; each write gives a value a new number.
pub trait SharedData {
    /// The value and its number.
    fn get(&mut self, key: &[u8]) -> Result<Option<(Bytes, u32)>, Failed>;
    /// Writes; `false` when what was expected did not hold.
    fn set(&mut self, key: &[u8], value: &[u8], expect: Expect) -> Result<bool, Failed>;
}

/// The shared data of the host this module runs in.
#[derive(Clone, Copy, Default)]
pub struct HostData;

impl SharedData for HostData {
    fn get(&mut self, key: &[u8]) -> Result<Option<(Bytes, u32)>, Failed> {
        hostcalls::shared(key).map_err(|_| Failed::Unavailable)
    }

    fn set(&mut self, key: &[u8], value: &[u8], expect: Expect) -> Result<bool, Failed> {
        let cas = match expect {
            Expect::Any => 0,
            // A host compares only where there is a value: a number no value has means "only if absent".
            Expect::Absent => u32::MAX,
            Expect::Version(cas) => cas,
        };
        match hostcalls::set_shared(key, value, cas) {
            Ok(()) => Ok(true),
            Err(Status::CAS_MISMATCH) => Ok(false),
            Err(_) => Err(Failed::Unavailable),
        }
    }
}

/// A secret of one pool, so that nobody outside can choose keys that collide; shared by its workers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seed(u64, u64);

impl Seed {
    /// Reads the pool's seed, or makes it.
    pub fn of(data: &mut impl SharedData, prefix: &str) -> Result<Self, Failed> {
        let key = format!("{prefix}/seed");
        for _ in 0..2 {
            if let Some((value, _)) = data.get(key.as_bytes())?
                && let (16, mut seed) = (value.len(), Reader(&value))
                && let (Some(a), Some(b)) = (seed.u64(), seed.u64())
            {
                return Ok(Self(a, b));
            }
            let random = RandomState::new();
            let mut fresh = [0; 16];
            for (half, salt) in fresh.chunks_mut(8).zip([1u8, 2]) {
                half.copy_from_slice(&random.hash_one(salt).to_le_bytes());
            }
            data.set(key.as_bytes(), &fresh, Expect::Absent)?;
        }
        Err(Failed::Unavailable)
    }

    /// A hash of a key: where it lives, and what it is known by there (never zero).
    #[allow(deprecated)] // The one keyed hash in std whose result is the same in every build.
    pub fn hash(&self, key: &[u8]) -> (u64, u64) {
        let mut hasher = std::hash::SipHasher::new_with_keys(self.0, self.1);
        hasher.write(key);
        let hash = hasher.finish();
        // The place is taken off the top: most of a name's bits say more than its place does.
        (hash >> 32, hash.max(1))
    }
}

/// Reads fixed-width numbers off the front of a value.
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// The next `size` bytes.
    pub fn bytes(&mut self, size: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(size)?;
        self.0 = rest;
        Some(head)
    }
    /// The next byte.
    pub fn u8(&mut self) -> Option<u8> {
        self.bytes(1)?.first().copied()
    }
    /// The next four bytes.
    pub fn u32(&mut self) -> Option<u32> {
        self.bytes(4)?.try_into().ok().map(u32::from_le_bytes)
    }
    /// The next eight bytes.
    pub fn u64(&mut self) -> Option<u64> {
        self.bytes(8)?.try_into().ok().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
pub mod simulated {
    //! Shared data in memory, with other workers getting in between.

    use std::cell::RefCell;
    use std::collections::HashMap;
    use std::rc::Rc;

    use super::*;

    type Between = Box<dyn FnOnce()>;

    #[derive(Default)]
    struct Inner {
        values: HashMap<Vec<u8>, (Bytes, u32)>,
        last: u32,
        calls: usize,
        /// Run before the next write, as another worker would.
        between: Vec<Between>,
    }

    /// Clone it to play another worker.
    #[derive(Clone, Default)]
    pub struct Memory(Rc<RefCell<Inner>>);

    impl Memory {
        /// Runs `other` just before the next write.
        pub fn interleave(&self, other: impl FnOnce() + 'static) {
            self.0.borrow_mut().between.push(Box::new(other));
        }
        /// How many times it was asked for something.
        pub fn calls(&self) -> usize {
            self.0.borrow().calls
        }
        /// Keys and bytes of all values.
        pub fn size(&self) -> (usize, usize) {
            let inner = self.0.borrow();
            (
                inner.values.len(),
                inner.values.values().map(|(value, _)| value.len()).sum(),
            )
        }
        /// Overwrites every value.
        pub fn corrupt(&self, with: &[u8]) {
            for (value, _) in self.0.borrow_mut().values.values_mut() {
                *value = Bytes::copy_from_slice(with);
            }
        }
    }

    impl SharedData for Memory {
        fn get(&mut self, key: &[u8]) -> Result<Option<(Bytes, u32)>, Failed> {
            self.0.borrow_mut().calls += 1;
            Ok(self.0.borrow().values.get(key).cloned())
        }
        fn set(&mut self, key: &[u8], value: &[u8], expect: Expect) -> Result<bool, Failed> {
            let between = std::mem::take(&mut self.0.borrow_mut().between);
            for other in between {
                other();
            }
            let mut inner = self.0.borrow_mut();
            inner.calls += 1;
            let now = inner.values.get(key).map(|(_, version)| *version);
            let holds = match expect {
                Expect::Any => true,
                Expect::Absent => now.is_none(),
                // As hosts do it: with no value there is nothing to compare.
                Expect::Version(version) => now.is_none_or(|now| now == version),
            };
            if holds {
                inner.last += 1;
                let version = inner.last;
                inner
                    .values
                    .insert(key.to_vec(), (Bytes::copy_from_slice(value), version));
            }
            Ok(holds)
        }
    }

    #[test]
    fn one_seed_wins() {
        let memory = Memory::default();
        let mut other = memory.clone();
        memory.interleave(move || {
            Seed::of(&mut other, "p").unwrap();
        });
        let first = Seed::of(&mut memory.clone(), "p").unwrap();
        assert_eq!(first, Seed::of(&mut memory.clone(), "p").unwrap());
        assert_eq!(memory.size().0, 1);
        let (place, name) = first.hash(b"key");
        assert_eq!(first.hash(b"key"), (place, name));
    }
}
