//! The encoder of `dcb` (RFC 9842 §4): brotli with copies from a dictionary that the client has.
//!
//! A copy is of the dictionary or of the body, never of both: decoders refuse one that runs past the dictionary's end into
//! what they gave out. So copies are found here, and `brotli` builds the prefix codes.

mod copies;
mod write;

use std::rc::Rc;

use copies::Copies;
use write::Bits;

use super::{Dictionary, Flush};

/// Bytes of a meta-block at most, so that 4 nibbles tell its length (RFC 7932 §9.2).
const BLOCK: usize = 1 << 16;

/// One stream being written.
pub(super) struct Dcb {
    copies: Copies,
    bits: Bits,
}

/// The most bytes one holds, with a dictionary of `held` bytes.
pub(super) fn memory(level: u8, window_bits: u8, held: usize) -> usize {
    // What came before is kept for up to two windows, half of that a second time while it grows.
    (3 << window_bits) + copies::tables(level, window_bits, held) + (2 << 20)
}

impl Dcb {
    pub(super) fn new(level: u8, window_bits: u8, dictionary: Rc<Dictionary>) -> Self {
        Self {
            copies: Copies::new(level, window_bits, dictionary),
            bits: Bits::of_stream(window_bits),
        }
    }

    pub(super) fn push(&mut self, mut input: &[u8], flush: Flush, out: &mut Vec<u8>) {
        loop {
            let room = BLOCK - self.copies.waiting();
            let (part, rest) = input.split_at(input.len().min(room));
            self.copies.take(part);
            input = rest;
            let waiting = self.copies.waiting();
            if waiting == BLOCK || (waiting > 0 && flush != Flush::Later) {
                self.block(out);
            }
            if input.is_empty() {
                break;
            }
        }
        match flush {
            Flush::Later => {}
            Flush::Now => self.bits.align(out),
            Flush::End => self.bits.end(out),
        }
    }

    fn block(&mut self, out: &mut Vec<u8>) {
        let before = (self.bits, out.len(), self.copies.recent());
        let (content, commands) = self.copies.find();
        self.bits.coded(content, commands, out);
        // What has little to copy is shorter as it is.
        if out.len() > before.1 + content.len() {
            out.truncate(before.1);
            self.bits = before.0;
            self.bits.plain(content, out);
            self.copies.forget(before.2);
        }
    }
}
