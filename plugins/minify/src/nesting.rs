//! Which arrays and objects are open: one bit a level, so that depth costs no stack of the guest.

/// What a level is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Container {
    Array,
    Object,
}

/// The open arrays and objects, innermost last.
#[derive(Debug, Default)]
pub(crate) struct Nesting {
    depth: usize,
    /// The innermost ones, up to 64; a set bit is an object, and the lowest is the innermost.
    top: u64,
    /// Those around them, 64 a word.
    below: Vec<u64>,
}

impl Nesting {
    /// The innermost one; `None` at the top.
    #[inline]
    pub(crate) fn innermost(&self) -> Option<Container> {
        if self.depth == 0 {
            return None;
        }
        Some(if self.top & 1 == 1 {
            Container::Object
        } else {
            Container::Array
        })
    }

    /// Opens one, unless there are `most` already.
    #[must_use]
    #[inline]
    pub(crate) fn push(&mut self, container: Container, most: usize) -> bool {
        if self.depth >= most {
            return false;
        }
        if self.depth.is_multiple_of(64) && self.depth > 0 {
            self.below.push(self.top);
        }
        self.top = self.top << 1 | u64::from(container == Container::Object);
        self.depth += 1;
        true
    }

    /// Closes the innermost one.
    #[inline]
    pub(crate) fn pop(&mut self) {
        let Some(depth) = self.depth.checked_sub(1) else {
            return;
        };
        self.depth = depth;
        self.top >>= 1;
        if depth.is_multiple_of(64) {
            self.top = self.below.pop().unwrap_or_default();
        }
    }

    /// How many are open.
    #[inline(always)]
    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    /// Whether the innermost one is an object.
    #[inline(always)]
    pub(crate) fn is_object(&self) -> bool {
        self.top & 1 == 1
    }

    /// Opens one or closes one; says whether there was room, or it was the innermost. Which of both it is costs no branch.
    #[must_use]
    #[inline(always)]
    pub(crate) fn turn(&mut self, opens: bool, object: bool, most: usize) -> bool {
        let depth = match opens {
            true => self.depth + 1,
            false => self.depth.wrapping_sub(1),
        };
        if depth.min(self.depth).is_multiple_of(64) {
            return self.turn_slowly(opens, object, most);
        }
        let is_innermost = self.is_object() == object;
        self.depth = depth;
        self.top = match opens {
            true => self.top << 1 | u64::from(object),
            false => self.top >> 1,
        };
        match opens {
            true => depth <= most,
            false => is_innermost,
        }
    }

    /// Where a word of levels begins or ends.
    #[inline(never)]
    fn turn_slowly(&mut self, opens: bool, object: bool, most: usize) -> bool {
        let container = match object {
            true => Container::Object,
            false => Container::Array,
        };
        if opens {
            return self.push(container, most);
        }
        let is_innermost = self.innermost() == Some(container);
        self.pop();
        is_innermost
    }
}

impl Clone for Nesting {
    fn clone(&self) -> Self {
        Self {
            depth: self.depth,
            top: self.top,
            below: self.below.clone(),
        }
    }
    /// Keeps the room that is there.
    fn clone_from(&mut self, other: &Self) {
        (self.depth, self.top) = (other.depth, other.top);
        if !(self.below.is_empty() && other.below.is_empty()) {
            self.below.clone_from(&other.below);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_a_stack_of_bits(steps in proptest::collection::vec(proptest::option::of(any::<bool>()), 0..600)) {
            let (mut nesting, mut model) = (Nesting::default(), Vec::new());
            for step in steps {
                match step {
                    Some(object) => {
                        let container = if object { Container::Object } else { Container::Array };
                        prop_assert_eq!(nesting.push(container, 150), model.len() < 150);
                        if model.len() < 150 {
                            model.push(container);
                        }
                    }
                    None => {
                        nesting.pop();
                        model.pop();
                    }
                }
                prop_assert_eq!(nesting.innermost(), model.last().copied());
            }
        }
    }
}
