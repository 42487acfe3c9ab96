//! A name or value that is held until it is known what becomes of it.

/// A token: in the chunk where it is, or apart when chunks were cut in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Token {
    /// What earlier chunks had of it.
    held: Vec<u8>,
    /// Where in this chunk it is.
    pub(crate) start: usize,
    end: usize,
}

impl Token {
    /// It begins here.
    #[inline]
    pub(crate) fn begin(&mut self, at: usize) {
        self.held.clear();
        (self.start, self.end) = (at, at);
    }

    /// It ends here.
    #[inline]
    pub(crate) fn end(&mut self, chunk: &[u8], at: usize) {
        self.end = at;
        if !self.held.is_empty() {
            self.stash(chunk, at);
        }
    }

    /// The whole of it, once it ended.
    #[inline]
    pub(crate) fn text<'a>(&'a self, chunk: &'a [u8]) -> &'a [u8] {
        if self.held.is_empty() {
            chunk.get(self.start..self.end).unwrap_or_default()
        } else {
            &self.held
        }
    }

    /// Where in this chunk it is, when no part of it is elsewhere.
    #[inline]
    pub(crate) fn range(&self) -> Option<(usize, usize)> {
        self.held.is_empty().then_some((self.start, self.end))
    }

    /// How long it would be, were it to end here.
    pub(crate) fn length(&self, at: usize) -> usize {
        self.held.len() + at.saturating_sub(self.start)
    }

    /// Keeps what the chunk has of it, up to `at`.
    pub(crate) fn stash(&mut self, chunk: &[u8], at: usize) {
        self.held
            .extend_from_slice(chunk.get(self.start..at).unwrap_or_default());
        (self.start, self.end) = (0, 0);
    }

    /// Keeps the whole of it, when it ended in this chunk.
    pub(crate) fn stash_ended(&mut self, chunk: &[u8]) {
        if self.held.is_empty() {
            self.stash(chunk, self.end);
        }
    }
}
