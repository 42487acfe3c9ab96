//! A chunk being read, and the run of it that is still to be copied.

use crate::token::Token;

/// Bytes that are copied together where a run is no longer.
const SMALL: usize = 32;

/// What is kept of a chunk is copied in runs: as long as nothing is left out between two pieces, they are one.
pub(crate) struct Run<'c, 'o> {
    pub(crate) chunk: &'c [u8],
    /// The byte being read.
    pub(crate) at: usize,
    start: usize,
    end: usize,
    /// Up to here there is no stretch to be taken.
    pub(crate) doubted: usize,
    out: &'o mut Vec<u8>,
}

impl<'c, 'o> Run<'c, 'o> {
    pub(crate) fn new(chunk: &'c [u8], out: &'o mut Vec<u8>) -> Self {
        Self {
            chunk,
            at: 0,
            start: 0,
            end: 0,
            doubted: 0,
            out,
        }
    }

    #[inline]
    pub(crate) fn peek(&self) -> Option<u8> {
        self.chunk.get(self.at).copied()
    }

    #[inline]
    pub(crate) fn rest(&self) -> &'c [u8] {
        self.chunk.get(self.at..).unwrap_or_default()
    }

    /// Keeps what is between two places of the chunk.
    #[inline]
    pub(crate) fn keep(&mut self, start: usize, end: usize) {
        if start != self.end {
            self.flush();
            self.start = start;
        }
        self.end = end;
    }

    /// Writes bytes that are not of the chunk.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.flush();
        self.out.extend_from_slice(bytes);
    }

    /// Writes a token that ended.
    #[inline]
    pub(crate) fn token(&mut self, token: &Token) {
        match token.range() {
            Some((start, end)) => self.keep(start, end),
            None => self.write(token.text(&[])),
        }
    }

    /// Writes a comma where one is due.
    #[inline]
    pub(crate) fn comma(&mut self, due: bool) {
        if due {
            self.punctuate(b',');
        }
    }

    /// Writes the colon behind a name.
    #[inline]
    pub(crate) fn colon(&mut self) {
        self.punctuate(b':');
    }

    /// Takes the byte of the chunk where it stands right behind what is kept, so that the run goes on.
    #[inline]
    fn punctuate(&mut self, byte: u8) {
        if self.end < self.at && self.chunk.get(self.end) == Some(&byte) {
            self.end += 1;
        } else {
            self.write(&[byte]);
        }
    }

    /// Copies what is kept so far.
    #[inline]
    pub(crate) fn flush(&mut self) {
        let length = self.end.saturating_sub(self.start);
        if length > 0 {
            let rest = self.chunk.get(self.start..).unwrap_or_default();
            match rest.first_chunk::<SMALL>() {
                // Of a fixed length, so without a call; what is too much of it goes at once.
                Some(block) if length <= SMALL => {
                    let to = self.out.len() + length;
                    self.out.extend_from_slice(block);
                    self.out.truncate(to);
                }
                _ => self
                    .out
                    .extend_from_slice(rest.get(..length).unwrap_or_default()),
            }
        }
        self.start = self.end;
    }
}
