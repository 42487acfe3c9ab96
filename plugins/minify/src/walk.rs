//! Where a body is, as far as masks go: which paths of them are still open.

use crate::mask::Mask;
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
}

/// The open paths. Arrays cost no level, so there is a mark for an object only, and at most one a level of the masks.
#[derive(Clone, Debug)]
pub(crate) struct Walk {
    client: Option<Mask>,
    marks: Vec<Mark>,
    levels: Vec<u16>,
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
        let mut partial = 0;
        for (owner, mask) in (0_u16..).zip(&rules.masks) {
            if !mask.is_empty() {
                levels.push(owner << OWNER);
                partial |= u8::from(owner == INCLUDE);
            }
        }
        if client.is_some() {
            levels.push(CLIENT << OWNER);
            partial |= 1 << CLIENT;
        }
        Self {
            client,
            marks: vec![Mark {
                depth: 0,
                start: 0,
                partial,
            }],
            levels,
        }
    }

    /// Whether the value here is not included itself, though something in it may be.
    #[inline]
    pub(crate) fn is_partial(&self) -> bool {
        self.marks.last().is_some_and(|mark| mark.partial != 0)
    }

    /// Whether names still matter to a mask, in an object that is at this depth.
    #[inline]
    pub(crate) fn is_open(&mut self, depth: usize) -> bool {
        self.leave(depth);
        let start = self.marks.last().map_or(0, |mark| mark.start);
        start < self.levels.len()
    }

    /// Ends the last member of the object at this depth.
    #[inline]
    pub(crate) fn leave(&mut self, depth: usize) {
        if let Some(mark) = self.marks.last()
            && mark.depth == depth
            && depth > 0
        {
            self.levels.truncate(mark.start);
            self.marks.pop();
        }
    }

    /// Goes to a member of the object at this depth. Without a name only wildcards are for it.
    pub(crate) fn enter(&mut self, depth: usize, name: Option<&[u8]>, rules: &Rules) -> Member {
        self.leave(depth);
        let Some(&mark) = self.marks.last() else {
            return Member::Kept;
        };
        let start = self.levels.len();
        let (mut whole, mut partial, mut redacted) = (0, 0, None::<u16>);
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
            // A name that can't be held is longer than any of a mask: `*` has all lengths.
            if !node.may_have(name.map_or(63, <[u8]>::len)) {
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
        self.marks.push(Mark {
            depth,
            start,
            partial,
        });
        redacted.map_or(Member::Kept, Member::Redacted)
    }
}

const _: () = assert!(MASKS == CLIENT as usize);
