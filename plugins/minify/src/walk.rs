//! Where a body is, as far as masks go: which paths of them are still open.

use crate::mask::{Mask, bit};
use crate::rules::{EXCLUDE, INCLUDE, MASKS, REDACT, Rules};

/// Whose mask a level is of, in the upper bits of its entry.
const CLIENT: u16 = 3;
const OWNER: u32 = 14;

/// What is open for the value of one member, or for the whole text.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// How many arrays and objects are open around it.
    depth: usize,
    /// Where its levels begin.
    start: usize,
    /// A bit for each include whose paths go on below: nothing of the value is included yet.
    partial: u8,
    /// The bits of the names that its levels look for; see [`bit`].
    sieve: u64,
}

/// The open paths. Arrays cost no level, so there is a mark for an object only, and at most one a level of the masks.
#[derive(Clone, Debug)]
pub(crate) struct Walk {
    client: Option<Mask>,
    marks: Vec<Mark>,
    levels: Vec<u16>,
    /// The depth of an object, while the last of its members is one that no mask goes on in: mostly it is.
    passed: Option<usize>,
}

/// What is looked for among the members of an object.
pub(crate) struct Sought {
    /// The bits of their names; see [`bit`].
    pub(crate) sieve: u64,
    /// All others go.
    pub(crate) drops: bool,
}

/// What becomes of a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Member {
    Dropped,
    Kept,
    /// By this of the redactions.
    Redacted(u16),
}

impl Walk {
    pub(crate) fn new(rules: &Rules, client: Option<Mask>) -> Self {
        let mut levels = Vec::new();
        let (mut partial, mut sieve) = (0, 0);
        let all = rules
            .masks
            .iter()
            .map(|mask| Some(mask).filter(|mask| !mask.is_empty()));
        for (owner, mask) in (0_u16..).zip(all.chain([client.as_ref()])) {
            let Some(root) = mask.and_then(|mask| mask.node(0)) else {
                continue;
            };
            levels.push(owner << OWNER);
            sieve |= root.sieve;
            if matches!(owner, INCLUDE | CLIENT) {
                partial |= 1 << owner;
            }
        }
        Self {
            client,
            marks: vec![Mark {
                depth: 0,
                start: 0,
                partial,
                sieve,
            }],
            levels,
            passed: None,
        }
    }

    /// The depth of the object whose last member no mask goes on in, while it lasts.
    pub(crate) fn passed(&self) -> Option<usize> {
        self.passed
    }

    /// Whether the value here is not included itself, though something in it may be.
    #[inline]
    pub(crate) fn is_partial(&self) -> bool {
        self.passed.is_none() && self.marks.last().is_some_and(|mark| mark.partial != 0)
    }

    /// Whether names still matter to a mask, in an object that is at this depth.
    #[inline]
    pub(crate) fn is_open(&mut self, depth: usize) -> bool {
        self.sought(depth).is_some()
    }

    /// What the masks look for in an object that is at this depth, where names matter.
    #[inline]
    pub(crate) fn sought(&mut self, depth: usize) -> Option<Sought> {
        self.leave(depth);
        let mark = self.marks.last().filter(|mark| mark.sieve != 0)?;
        self.passed.is_none().then_some(Sought {
            sieve: mark.sieve,
            drops: mark.partial != 0,
        })
    }

    /// Ends the last member of the object at this depth.
    #[inline]
    pub(crate) fn leave(&mut self, depth: usize) {
        if self.passed.is_some() {
            self.passed = self.passed.filter(|&passed| passed != depth);
        } else if let Some(mark) = self.marks.last()
            && mark.depth == depth
            && depth > 0
        {
            self.levels.truncate(mark.start);
            self.marks.pop();
        }
    }

    /// Goes to a member of the object at this depth, where names matter. Without a name only wildcards are for it.
    #[inline]
    pub(crate) fn enter(&mut self, depth: usize, name: Option<&[u8]>, rules: &Rules) -> Member {
        let Some(&mark) = self.marks.last() else {
            return Member::Kept;
        };
        // A name that can't be held is longer than any of a mask: `*` has all bits.
        let bit = bit(name);
        if mark.sieve & bit == bit {
            return self.look_up(depth, mark, name, bit, rules);
        }
        if mark.partial != 0 {
            return Member::Dropped;
        }
        self.passed = Some(depth);
        Member::Kept
    }

    #[inline(never)]
    fn look_up(
        &mut self,
        depth: usize,
        mark: Mark,
        name: Option<&[u8]>,
        bit: u64,
        rules: &Rules,
    ) -> Member {
        let start = self.levels.len();
        let (mut whole, mut partial, mut redacted) = (0, 0, None::<u16>);
        let mut sieve = 0;
        for at in mark.start..start {
            let Some(&level) = self.levels.get(at) else {
                break;
            };
            let (owner, index) = (level >> OWNER, level & ((1 << OWNER) - 1));
            let mask = match owner {
                CLIENT => self.client.as_ref(),
                _ => rules.masks.get(usize::from(owner)),
            };
            let Some((mask, node)) = mask.and_then(|mask| Some((mask, mask.node(index)?))) else {
                continue;
            };
            if node.sieve & bit != bit {
                continue;
            }
            for &index in &node.below {
                let Some(below) = mask.node(index).filter(|below| below.is_for(name)) else {
                    continue;
                };
                match (owner, below.ends) {
                    (EXCLUDE, Some(_)) => {
                        self.levels.truncate(start);
                        return Member::Dropped;
                    }
                    (REDACT, Some(by)) => {
                        redacted = Some(redacted.map_or(by, |other| other.min(by)));
                    }
                    (_, Some(_)) => {
                        whole |= 1 << owner;
                        continue;
                    }
                    (_, None) => {}
                }
                if !below.below.is_empty() {
                    self.levels.push(owner << OWNER | index);
                    sieve |= below.sieve;
                    partial |= 1 << owner;
                }
            }
        }
        let left_out = mark.partial & !whole & !partial;
        let partial = mark.partial & !whole;
        // A name that can't be held is written before its value is seen: that must be all included.
        if left_out != 0 || (name.is_none() && partial != 0) {
            self.levels.truncate(start);
            return Member::Dropped;
        }
        if sieve | u64::from(partial) == 0 {
            self.passed = Some(depth);
        } else {
            self.marks.push(Mark {
                depth,
                start,
                partial,
                sieve,
            });
        }
        redacted.map_or(Member::Kept, Member::Redacted)
    }
}

const _: () = assert!(MASKS == CLIENT as usize);
