//! The zstd decoder: `zrip` reads, this cuts the stream for it.
//!
//! `zrip` reads from a reader until a block is whole, and can't go on after a reader that had nothing more. So frames are
//! taken apart here as far as their headers go, and it is given whole blocks.

use std::cell::RefCell;
use std::io::{self, Read};
use std::mem;
use std::rc::Rc;

use zrip::FrameDecoder;

use super::DecoderFailed;

/// RFC 8878 §3.1.1.2.4: the content of a block is at most 128 KiB.
const BLOCK: usize = 128 * 1024;

/// What the decoder reads from: what was handed to it, and no more.
#[derive(Clone, Default)]
struct Source(Rc<RefCell<Handed>>);

#[derive(Default)]
struct Handed {
    bytes: Vec<u8>,
    at: usize,
}

impl Source {
    fn hand(&self, part: &[u8]) {
        let mut handed = self.0.borrow_mut();
        if handed.at == handed.bytes.len() {
            handed.bytes.clear();
            handed.at = 0;
        }
        handed.bytes.extend_from_slice(part);
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut handed = self.0.borrow_mut();
        let mut rest = handed.bytes.get(handed.at..).unwrap_or_default();
        let read = rest.read(buffer)?;
        handed.at += read;
        Ok(read)
    }
}

/// What comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    /// The magic number of a frame, and the byte that tells how long its header is.
    Start,
    /// The header of a frame from its start on, so long.
    Header(usize),
    /// So many bytes that are to be skipped.
    Skip(usize),
    /// The header of a block.
    Block,
    /// A block's content, so long, the last one's with the frame's checksum.
    Content { header: [u8; 3], length: usize },
}

/// One stream being decoded.
pub(super) struct Unzstd {
    largest_window: u64,
    source: Source,
    frame: FrameDecoder<Source>,
    next: Next,
    /// The start of what is next, when it came cut.
    part: Vec<u8>,
    /// There was a frame.
    started: bool,
    /// The frame ends with a checksum.
    checksum: bool,
    /// A block's output, and how much of it was given.
    block: Vec<u8>,
    given: usize,
}

impl Unzstd {
    /// A decoder of frames with windows of at most so many bits.
    pub(super) fn new(window_bits: u8) -> Self {
        let source = Source::default();
        Self {
            largest_window: 1 << window_bits,
            frame: FrameDecoder::new(source.clone()),
            source,
            next: Next::Start,
            part: Vec::new(),
            started: false,
            checksum: false,
            block: Vec::new(),
            given: 0,
        }
    }

    /// Whether the stream may end here. RFC 8878 §3: it is one or more frames.
    pub(super) fn is_between_frames(&self) -> bool {
        let whole = self.part.is_empty() && self.given == self.block.len();
        self.started && whole && self.next == Next::Start
    }

    /// Takes from the front of `input` and appends at most `most` bytes to `out`; true when there is more to come out.
    pub(super) fn pull(
        &mut self,
        input: &mut &[u8],
        out: &mut Vec<u8>,
        most: usize,
    ) -> Result<bool, DecoderFailed> {
        let full = out.len() + most;
        // An end of a frame is told once, then what follows is taken for another.
        let mut moved = self.given < self.block.len();
        loop {
            let rest = self.block.get(self.given..).unwrap_or_default();
            let fits = rest.len().min(full - out.len());
            out.extend_from_slice(rest.get(..fits).unwrap_or_default());
            self.given += fits;
            if self.given < self.block.len() {
                return Ok(true);
            }
            if (moved && self.is_between_frames()) || !self.gather(input) {
                return Ok(false);
            }
            let mut part = mem::take(&mut self.part);
            self.take(&part)?;
            moved = true;
            if self.part.is_empty() {
                part.clear();
                self.part = part;
            }
        }
    }

    /// Takes from `input` until `part` is all of what is next; false when it is not.
    fn gather(&mut self, input: &mut &[u8]) -> bool {
        let wanted = match self.next {
            Next::Start => 5,
            Next::Header(length) | Next::Content { length, .. } => length,
            Next::Block => 3,
            Next::Skip(left) => {
                let skipped = input.len().min(left);
                *input = input.get(skipped..).unwrap_or_default();
                self.next = Next::Skip(left - skipped);
                return left == skipped;
            }
        };
        let missing = wanted.saturating_sub(self.part.len());
        let (head, rest) = input.split_at(input.len().min(missing));
        self.part.extend_from_slice(head);
        *input = rest;
        head.len() == missing
    }

    /// Takes a part that is whole.
    fn take(&mut self, part: &[u8]) -> Result<(), DecoderFailed> {
        self.next = match self.next {
            Next::Start => {
                self.part = part.to_vec();
                start(part).ok_or(match self.started {
                    true => DecoderFailed::Trailing,
                    false => DecoderFailed::Corrupt,
                })?
            }
            Next::Header(_) => self.header(part)?,
            Next::Skip(_) => Next::Start,
            Next::Block => self.block_header(part)?,
            Next::Content { header, .. } => {
                let (last, ..) = block(header);
                // Of an empty block that something follows, such as padding or a flush, it would read on for content.
                if last || !is_empty(header, part) {
                    self.source.hand(&header);
                    self.source.hand(part);
                    self.decode(last)?;
                }
                if last { Next::Start } else { Next::Block }
            }
        };
        Ok(())
    }

    fn header(&mut self, part: &[u8]) -> Result<Next, DecoderFailed> {
        self.started = true;
        // RFC 8878 §3.1.2: the magic number of skippable frames, then the length of what is to be skipped.
        let [_, 0x2a, 0x4d, 0x18, skip @ ..] = part else {
            let descriptor = part.get(4).copied().unwrap_or(0);
            if window(part) > self.largest_window {
                return Err(DecoderFailed::Window);
            }
            self.checksum = descriptor & 4 != 0;
            self.frame.reset(self.source.clone());
            self.source.hand(part);
            return Ok(Next::Block);
        };
        let length = u32::from_le_bytes(skip.try_into().unwrap_or_default());
        Ok(Next::Skip(usize::try_from(length).unwrap_or(usize::MAX)))
    }

    fn block_header(&mut self, part: &[u8]) -> Result<Next, DecoderFailed> {
        let Ok(header) = <[u8; 3]>::try_from(part) else {
            return Err(DecoderFailed::Corrupt);
        };
        let (last, kind, size) = block(header);
        if size > BLOCK {
            return Err(DecoderFailed::Corrupt);
        }
        let content = if kind == 1 { 1 } else { size };
        let checksum = if last && self.checksum { 4 } else { 0 };
        let length = content + checksum;
        Ok(Next::Content { header, length })
    }

    /// Decodes what was handed over: a block, and the frame's end after the last.
    fn decode(&mut self, last: bool) -> Result<(), DecoderFailed> {
        self.block.resize(BLOCK, 0);
        let read = self.frame.read(&mut self.block);
        let length = read.map_err(|_| DecoderFailed::Corrupt)?;
        self.block.truncate(length);
        self.given = 0;
        // Reads the checksum, and that no frame follows.
        if last && length > 0 {
            let read = self.frame.read(&mut [0]);
            if read.map_err(|_| DecoderFailed::Corrupt)? > 0 {
                return Err(DecoderFailed::Corrupt);
            }
        }
        Ok(())
    }
}

/// RFC 8878 §3.1.1.2: a bit for the last, two for the type, the rest is a size.
fn block([a, b, c]: [u8; 3]) -> (bool, usize, usize) {
    let header = usize::from(a) | usize::from(b) << 8 | usize::from(c) << 16;
    (header & 1 != 0, header >> 1 & 3, header >> 3)
}

/// Whether a block gives no content, and leaves nothing for others.
fn is_empty(header: [u8; 3], content: &[u8]) -> bool {
    match (block(header), content) {
        ((_, 0 | 1, size), _) => size == 0,
        // RFC 8878 §3.1.1.3.1, §3.1.1.3.2: no literals, as they are (0) or repeated (1), the size in 5, 12 or 20 bits;
        // then no sequences.
        (
            (_, 2, _),
            [0, 0] | [4, 0, 0] | [12, 0, 0, 0] | [1, _, 0] | [5, 0, _, 0] | [13, 0, 0, _, 0],
        ) => true,
        _ => false,
    }
}

/// RFC 8878 §3.1.1, §3.1.2: how long a frame's header is, from its first five bytes.
fn start(part: &[u8]) -> Option<Next> {
    match *part {
        [0x28, 0xb5, 0x2f, 0xfd, descriptor] => {
            let (window, id, content) = sizes(descriptor);
            Some(Next::Header(5 + window + id + content))
        }
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, _] => Some(Next::Header(8)),
        _ => None,
    }
}

/// RFC 8878 §3.1.1.1.1: bytes of `Window_Descriptor`, `Dictionary_ID` and `Frame_Content_Size`.
fn sizes(descriptor: u8) -> (usize, usize, usize) {
    let single = descriptor & 0x20 != 0;
    let id = match descriptor & 3 {
        3 => 4,
        few => usize::from(few),
    };
    let content = match descriptor >> 6 {
        0 => usize::from(single),
        bits => 1 << bits,
    };
    (usize::from(!single), id, content)
}

/// RFC 8878 §3.1.1.1.2, §3.1.1.1.4: the window of a frame, which is its content where that is one segment.
fn window(header: &[u8]) -> u64 {
    let descriptor = header.get(4).copied().unwrap_or(0);
    let (window, id, content) = sizes(descriptor);
    if window > 0 {
        let bits = header.get(5).copied().unwrap_or(0);
        let base = 1_u64 << (10 + (bits >> 3));
        return base + base / 8 * u64::from(bits & 7);
    }
    let field = header.get(5 + id..).unwrap_or_default();
    let size = field
        .iter()
        .rev()
        .fold(0_u64, |size, &byte| size << 8 | u64::from(byte));
    if content == 2 { size + 256 } else { size }
}
