//! Meta-blocks (RFC 7932 §9), of one block type each.

use brotli::enc::StandardAlloc;
use brotli::enc::brotli_bit_stream::BrotliBuildAndStoreHuffmanTreeFast;
use brotli::enc::command::{BrotliDistanceParams, Command, GetCopyLengthCode, GetInsertLengthCode};
use brotli::enc::constants::{kCopyBase, kCopyExtra, kInsBase, kInsExtra};

use super::copies::Insert;

/// RFC 7932 §4: without direct distance codes and postfix bits there are 16 and 48 codes of distances.
const DISTANCES: BrotliDistanceParams = BrotliDistanceParams {
    distance_postfix_bits: 0,
    num_direct_distance_codes: 0,
    alphabet_size: 64,
    max_distance: (1 << 26) - 4,
};

/// Bits that make no byte yet, fewer than 32.
#[derive(Clone, Copy)]
pub(super) struct Bits {
    held: u64,
    count: u32,
}

impl Bits {
    /// Those that a stream begins with. RFC 7932 §9.1: 7 bits for a window of 17 bits, 4 for 18 to 24.
    pub(super) fn of_stream(window_bits: u8) -> Self {
        let (held, count) = match u64::from(window_bits) {
            ..=17 => (1, 7),
            bits => ((bits - 17) << 1 | 1, 4),
        };
        Self { held, count }
    }

    /// Appends at most 32 bits.
    fn put(&mut self, count: u32, bits: impl Into<u64>, out: &mut Vec<u8>) {
        self.held |= bits.into() << self.count;
        self.count += count;
        while self.count >= 8 {
            out.extend(self.held.to_le_bytes().first());
            self.held >>= 8;
            self.count -= 8;
        }
    }

    fn fill_byte(&mut self, out: &mut Vec<u8>) {
        self.put(self.count.wrapping_neg() % 8, 0_u8, out);
    }

    /// RFC 7932 §9.2: an empty meta-block of metadata, which ends at a byte's edge.
    pub(super) fn align(&mut self, out: &mut Vec<u8>) {
        self.put(6, 0b00_0110_u8, out);
        self.fill_byte(out);
    }

    /// RFC 7932 §9.2: ISLAST, ISLASTEMPTY.
    pub(super) fn end(&mut self, out: &mut Vec<u8>) {
        self.put(2, 0b11_u8, out);
        self.fill_byte(out);
    }

    /// ISLAST of 0, MNIBBLES of 4, MLEN less 1 and ISUNCOMPRESSED.
    fn header(&mut self, length: usize, plain: bool, out: &mut Vec<u8>) {
        let length = u16::try_from(length - 1).unwrap_or(u16::MAX);
        self.put(20, u32::from(length) << 3 | u32::from(plain) << 19, out);
    }

    /// A meta-block of bytes as they are.
    pub(super) fn plain(&mut self, content: &[u8], out: &mut Vec<u8>) {
        self.header(content.len(), true, out);
        self.fill_byte(out);
        out.extend_from_slice(content);
    }

    /// A meta-block of commands, which make up `content`.
    pub(super) fn coded(&mut self, content: &[u8], commands: &[Insert], out: &mut Vec<u8>) {
        self.header(content.len(), false, out);
        // One block type of each kind, no postfix bits, no direct distances, context mode 0, one tree of each kind.
        self.put(13, 0_u8, out);
        let (mut literals, mut lengths, mut distances) =
            (Code::new(8), Code::new(10), Code::new(6));
        let mut rest = content;
        for insert in commands {
            let (command, inserted) = command(insert, &mut rest);
            for byte in inserted {
                literals.count(usize::from(*byte));
            }
            lengths.count(usize::from(command.cmd_prefix_));
            if has_distance(&command) {
                distances.count(usize::from(command.dist_prefix_ & 0x3ff));
            }
        }
        for code in [&mut literals, &mut lengths, &mut distances] {
            code.build(self, out);
        }
        let mut rest = content;
        for insert in commands {
            let (command, inserted) = command(insert, &mut rest);
            lengths.put(usize::from(command.cmd_prefix_), self, out);
            let length = GetInsertLengthCode(inserted.len());
            self.extra(command.insert_len_, length, &kInsBase, &kInsExtra, out);
            if command.copy_len() > 0 {
                let length = GetCopyLengthCode(insert.copied);
                self.extra(command.copy_len(), length, &kCopyBase, &kCopyExtra, out);
            }
            for byte in inserted {
                literals.put(usize::from(*byte), self, out);
            }
            if has_distance(&command) {
                distances.put(usize::from(command.dist_prefix_ & 0x3ff), self, out);
                self.put(
                    u32::from(command.dist_prefix_ >> 10),
                    command.dist_extra_,
                    out,
                );
            }
        }
    }

    /// What of a length its code does not say (RFC 7932 §5).
    fn extra(&mut self, length: u32, code: u16, bases: &[u32], extras: &[u32], out: &mut Vec<u8>) {
        let code = usize::from(code);
        if let (Some(base), Some(extra)) = (bases.get(code), extras.get(code)) {
            self.put(*extra, length - base, out);
        }
    }
}

/// The command for literals, which are taken off the front of `rest` with what is copied, and those literals.
fn command<'a>(insert: &Insert, rest: &mut &'a [u8]) -> (Command, &'a [u8]) {
    let (inserted, after) = rest.split_at(insert.literals.min(rest.len()));
    *rest = after.get(insert.copied..).unwrap_or_default();
    let mut command = Command::default();
    if insert.copied == 0 {
        // The meta-block ends with its literals, before the distance.
        command.init_insert(inserted.len());
    } else {
        let (copied, code) = (insert.copied, insert.code);
        command.init(&DISTANCES, inserted.len(), copied, copied, code);
    }
    (command, inserted)
}

/// RFC 7932 §5: the first 128 codes imply distance code 0.
fn has_distance(command: &Command) -> bool {
    command.copy_len() > 0 && command.cmd_prefix_ >= 128
}

/// A prefix code (RFC 7932 §3): first how often its symbols come, then their bits.
struct Code {
    alphabet_bits: usize,
    counts: [u32; SYMBOLS],
    total: usize,
    lengths: [u8; SYMBOLS],
    bits: [u16; SYMBOLS],
}

/// RFC 7932 §5: of insert and copy lengths; the other alphabets are smaller.
const SYMBOLS: usize = 704;

impl Code {
    fn new(alphabet_bits: usize) -> Self {
        Self {
            alphabet_bits,
            counts: [0; SYMBOLS],
            total: 0,
            lengths: [0; SYMBOLS],
            bits: [0; SYMBOLS],
        }
    }

    fn count(&mut self, symbol: usize) {
        if let Some(count) = self.counts.get_mut(symbol) {
            *count += 1;
            self.total += 1;
        }
    }

    fn build(&mut self, bits: &mut Bits, out: &mut Vec<u8>) {
        // At most 5 bits a symbol, and 40 before them.
        let (mut written, mut at) = ([0_u8; SYMBOLS], 0);
        BrotliBuildAndStoreHuffmanTreeFast(
            &mut StandardAlloc::default(),
            &self.counts,
            self.total,
            self.alphabet_bits,
            &mut self.lengths,
            &mut self.bits,
            &mut at,
            &mut written,
        );
        for byte in written {
            let count = at.min(8);
            bits.put(u32::try_from(count).unwrap_or(0), byte, out);
            at -= count;
        }
    }

    fn put(&self, symbol: usize, bits: &mut Bits, out: &mut Vec<u8>) {
        if let (Some(length), Some(code)) = (self.lengths.get(symbol), self.bits.get(symbol)) {
            bits.put(u32::from(*length), *code, out);
        }
    }
}
