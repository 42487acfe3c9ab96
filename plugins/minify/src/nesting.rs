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
    /// A set bit is an object; the innermost is the lowest bit of the last word.
    words: Vec<u64>,
}

impl Nesting {
    /// The innermost one; `None` at the top.
    pub(crate) fn innermost(&self) -> Option<Container> {
        if self.depth == 0 {
            return None;
        }
        let word = self.words.last()?;
        Some(if word & 1 == 1 {
            Container::Object
        } else {
            Container::Array
        })
    }

    /// Opens one, unless there are `most` already.
    #[must_use]
    pub(crate) fn push(&mut self, container: Container, most: usize) -> bool {
        if self.depth >= most {
            return false;
        }
        if self.depth.is_multiple_of(64) {
            self.words.push(0);
        }
        if let Some(word) = self.words.last_mut() {
            *word = *word << 1 | u64::from(container == Container::Object);
        }
        self.depth += 1;
        true
    }

    /// Closes the innermost one.
    pub(crate) fn pop(&mut self) {
        let Some(depth) = self.depth.checked_sub(1) else {
            return;
        };
        self.depth = depth;
        if depth.is_multiple_of(64) {
            self.words.pop();
        } else if let Some(word) = self.words.last_mut() {
            *word >>= 1;
        }
    }
}

impl Clone for Nesting {
    fn clone(&self) -> Self {
        Self {
            depth: self.depth,
            words: self.words.clone(),
        }
    }
    /// Keeps the room that is there.
    fn clone_from(&mut self, other: &Self) {
        self.depth = other.depth;
        self.words.clone_from(&other.words);
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
