//! A stretch where only whitespace and `null`s go.
//!
//! What goes is taken out of the masks of a stretch before it is packed. A stretch is taken up to its last separator or
//! bracket, so that nothing needs to be held over its end.

use crate::block::{BLOCK, StringCarry, Vectors};
use crate::nesting::{Container, Nesting};
use crate::rewriter::LONGEST_NAME;
use crate::rules::DropNulls;
use crate::stretch::{Place, Rules, Scan, Stretch, below};

/// Between two tokens of an array or object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Between {
    /// After its opening bracket.
    First,
    /// After a comma, which is not written yet.
    Next,
    /// After a value.
    After,
}

/// Where a stretch begins or ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    pub(crate) between: Between,
    /// Something of the array or object was written.
    pub(crate) wrote: bool,
}

/// What was taken.
pub(crate) struct Inside {
    pub(crate) bytes: usize,
    /// The end of the outermost container comes next.
    pub(crate) ended: bool,
    pub(crate) point: Point,
    /// A comma comes before what is kept.
    pub(crate) comma: bool,
    pub(crate) nulls: u64,
}

/// Where a scan is cut.
pub(crate) struct Cut {
    pub(crate) bytes: usize,
    /// The end of the outermost container comes next.
    pub(crate) ended: bool,
    bones: usize,
}

impl Between {
    /// What it is for a scan.
    pub(crate) fn place(self, container: Container) -> Place {
        let value = u64::from(self != Self::After);
        Place {
            strings: StringCarry::default(),
            value,
            colon: value & u64::from(container == Container::Object),
            opened: u64::from(self == Self::First),
        }
    }
}

impl Stretch {
    /// Takes blocks from the start of `text`, up to the end of the outermost container, its bracket not included: this may be
    /// no byte. `None` when anything of them is doubtful; `nesting` is of use only after a stretch taken.
    pub(crate) fn take_inside(
        &mut self,
        text: &[u8],
        point: Point,
        nesting: &mut Nesting,
        rules: &Rules,
        nulls: DropNulls,
    ) -> Option<Inside> {
        let mut place = point.between.place(nesting.innermost()?);
        let scan = self.scan(text, &mut place, nesting, rules)?;
        let cut = self.cut(&scan, nesting)?;
        let (bytes, end, ended) = (cut.bytes, cut.bones, cut.ended);
        if bytes == 0 {
            return Some(Inside {
                bytes,
                ended,
                point,
                comma: false,
                nulls: 0,
            });
        }
        let used = bytes.div_ceil(BLOCK);
        let within = u64::MAX >> (used * BLOCK - bytes);
        let mut edit = Edit {
            point,
            nulls: 0,
            gone: None,
            wrote: point.wrote,
        };
        edit.begin(self)?;
        if nulls != DropNulls::Never {
            self.masks.count(scan.blocks);
            edit.drop_nulls(self, text, end, nulls)?;
        }
        let last = end.checked_sub(1);
        let last = last.map(|last| (last, self.bones.get(last).copied().unwrap_or_default()));
        let point = match last {
            None => point,
            Some((at, b',')) if scan.ended.is_none() => {
                self.masks.leave_out(bytes - 1, bytes);
                Point {
                    between: Between::Next,
                    wrote: edit.gone != Some(at) || edit.wrote,
                }
            }
            Some((_, b'[' | b'{')) => Point {
                between: Between::First,
                wrote: false,
            },
            Some(_) => Point {
                between: Between::After,
                wrote: true,
            },
        };
        self.pack(text, used, within, 0)?;
        let first = self.kept().first();
        Some(Inside {
            bytes,
            ended,
            point,
            comma: edit.is_due() && !matches!(first, None | Some(b']' | b'}')),
            nulls: edit.nulls,
        })
    }

    /// Where a scan is cut so that nothing needs to be held: after its last separator or bracket, or before the bracket that
    /// ends it, which is opened again. `None` where something is doubtful up to there.
    pub(crate) fn cut(&mut self, scan: &Scan, nesting: &mut Nesting) -> Option<Cut> {
        let (bytes, bones) = match scan.ended {
            Some(bone) => {
                let closed = match self.bones.get(bone)? {
                    b'}' => Container::Object,
                    _ => Container::Array,
                };
                let _ = nesting.push(closed, usize::MAX);
                // The scan has counted them.
                let (block, within) = self.masks.find(bone)?;
                (block * BLOCK + within.ilog2() as usize, bone)
            }
            None => {
                let bones = self.bones.get(..scan.bones)?;
                let is_cut = |byte: &u8| matches!(byte, b',' | b'[' | b']' | b'{' | b'}');
                let last = bones.iter().rposition(is_cut)?;
                let others = scan.bones + scan.open - 1 - last;
                (self.masks.find_last(others, scan.blocks)? + 1, last + 1)
            }
        };
        let used = bytes.div_ceil(BLOCK);
        let within = u64::MAX.checked_shr((used * BLOCK - bytes) as u32);
        let is_doubtful = self.masks.are_doubtful(used, within.unwrap_or_default());
        (!is_doubtful).then_some(Cut {
            bytes,
            ended: scan.ended.is_some(),
            bones,
        })
    }
}

/// What goes of a stretch.
struct Edit {
    point: Point,
    nulls: u64,
    /// The last comma that went with the value before it, and whether something was written before that.
    gone: Option<usize>,
    wrote: bool,
}

impl Edit {
    /// Whether a comma is to be written before what is kept.
    fn is_due(&self) -> bool {
        self.point.between == Between::Next && self.point.wrote
    }

    /// Leaves out a comma after values that went.
    fn begin(&mut self, stretch: &mut Stretch) -> Option<()> {
        if self.point.between == Between::After && !self.point.wrote {
            self.leave_out_comma(stretch, 0, 0)?;
        }
        Some(())
    }

    /// Leaves out the `null`s up to bone number `end`. With each goes the comma before it, or where nothing was written before it,
    /// the one after it.
    fn drop_nulls(
        &mut self,
        stretch: &mut Stretch,
        text: &[u8],
        end: usize,
        which: DropNulls,
    ) -> Option<()> {
        let mut nulls = Nulls::new(stretch, text, end);
        while let Some((null, at)) = nulls.next(stretch, text) {
            let bone = |number: usize| stretch.bones.get(number).copied().unwrap_or_default();
            let is_member = null.checked_sub(1).map(bone) == Some(b':');
            let (first, start) = match is_member {
                true => {
                    let colon = stretch.masks.bone_before(at)?;
                    let start = stretch.masks.bone_before(colon)?;
                    let name = text.get(start..colon)?.trim_ascii_end();
                    // As everywhere: its quotes are no part of it.
                    if name.len() > LONGEST_NAME + 2 {
                        continue;
                    }
                    (null.checked_sub(2)?, start)
                }
                false if which == DropNulls::All => (null, at),
                false => continue,
            };
            let comma = first.checked_sub(1);
            let is_first = comma.is_none_or(|at| bone(at) != b',' || self.gone == comma);
            let from = if is_first {
                match comma {
                    None => self.wrote = self.point.wrote,
                    Some(_) if self.gone == comma => {}
                    Some(_) => self.wrote = false,
                }
                self.leave_out_comma(stretch, null + 4, at + 4)?;
                start
            } else {
                stretch.masks.bone_before(start)?
            };
            // RFC 8259 §7: no control character in a string. What is left to others here is whitespace beside the colon, mostly.
            let is_control = |byte: &u8| *byte < b' ';
            if is_member && text.get(start..at)?.iter().any(is_control) {
                return None;
            }
            stretch.masks.leave_out(from, at + 4);
            self.nulls += 1;
        }
        Some(())
    }

    /// Leaves out a comma, if this bone is one, which is the first from this place on.
    fn leave_out_comma(&mut self, stretch: &mut Stretch, at: usize, from: usize) -> Option<()> {
        if stretch.bones.get(at) == Some(&b',') {
            let comma = stretch.masks.bone_from(from)?;
            stretch.masks.leave_out(comma, comma + 1);
            self.gone = Some(at);
        }
        Some(())
    }
}

/// The `null`s of a stretch, in order: the number of the bone each begins with, and where that is in the text.
struct Nulls {
    /// How many bones are looked at.
    end: usize,
    /// Those of 64 bones that are still to come.
    bones: u64,
    first: usize,
    /// Those of a block of the text that are still to come.
    found: u64,
    block: usize,
}

impl Nulls {
    fn new(stretch: &Stretch, text: &[u8], end: usize) -> Self {
        let mut new = Self {
            end,
            bones: 0,
            first: 0,
            found: 0,
            block: 0,
        };
        new.bones = new.bones(stretch);
        new.found = new.found(stretch, text);
        new
    }

    fn next(&mut self, stretch: &Stretch, text: &[u8]) -> Option<(usize, usize)> {
        while self.bones == 0 {
            self.first += BLOCK;
            if self.first >= self.end {
                return None;
            }
            self.bones = self.bones(stretch);
        }
        let number = self.first + self.bones.trailing_zeros() as usize;
        self.bones &= self.bones - 1;
        let block = stretch.masks.block_of(number, self.block);
        if block != self.block {
            self.block = block;
            self.found = self.found(stretch, text);
        }
        let place = self.block * BLOCK + self.found.trailing_zeros() as usize;
        self.found &= self.found.wrapping_sub(1);
        Some((number, place))
    }

    /// No other literal has that letter, and no number.
    fn bones(&self, stretch: &Stretch) -> u64 {
        let (blocks, _) = stretch.bones.as_chunks::<BLOCK>();
        let block = blocks.get(self.first / BLOCK);
        let nulls = block.map(|block| Vectors::load(block).equal(b'n'));
        nulls.unwrap_or_default() & below(self.end.saturating_sub(self.first))
    }

    fn found(&self, stretch: &Stretch, text: &[u8]) -> u64 {
        let (blocks, _) = text.as_chunks::<BLOCK>();
        let block = blocks.get(self.block);
        let letters = block.map(|block| Vectors::load(block).equal(b'n'));
        letters.unwrap_or_default() & stretch.masks.scalars(self.block)
    }
}
