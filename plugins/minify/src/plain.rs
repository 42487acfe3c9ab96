//! A stretch where only whitespace and `null`s go.
//!
//! What goes is taken out of the masks of a stretch before it is packed. A stretch is taken up to its last separator or
//! bracket, so that nothing needs to be held over its end.

use crate::block::{BLOCK, StringCarry, Vectors};
use crate::nesting::{Container, Nesting};
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
            edit.drop_nulls(self, text, end, nulls)?;
        }
        let last = end.checked_sub(1);
        let last = last.map(|last| (last, self.bones.get(last).copied().unwrap_or_default()));
        let point = match last {
            None => point,
            Some((at, b',')) if scan.ended.is_none() => {
                let comma = self.position(at)?;
                self.masks.leave_out(comma, comma + 1);
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
        self.masks.count(scan.blocks);
        let (bytes, bones) = match scan.ended {
            Some(bone) => {
                let closed = match self.bones.get(bone)? {
                    b'}' => Container::Object,
                    _ => Container::Array,
                };
                let _ = nesting.push(closed, usize::MAX);
                (self.position(bone)?, bone)
            }
            None => {
                let bones = self.bones.get(..scan.bones)?;
                let is_cut = |byte: &u8| matches!(byte, b',' | b'[' | b']' | b'{' | b'}');
                let last = bones.iter().rposition(is_cut)?;
                (self.position(last)? + 1, last + 1)
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

    /// Where `null`s begin in a block of the first `end` bones.
    fn nulls(&self, block: usize, end: usize) -> u64 {
        let (blocks, _) = self.bones.as_chunks::<BLOCK>();
        let nulls = blocks
            .get(block)
            .map(|block| Vectors::load(block).equal(b'n'));
        nulls.unwrap_or_default() & below(end.saturating_sub(block * BLOCK))
    }

    /// Where a bone is in the text.
    fn position(&self, bone: usize) -> Option<usize> {
        let (block, within) = self.masks.find(bone)?;
        Some(block * BLOCK + 63 - within.leading_zeros() as usize)
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
            self.leave_out_comma(stretch, 0)?;
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
        let count = end.div_ceil(BLOCK);
        // No other literal has that letter.
        let (mut block, mut nulls) = (0, stretch.nulls(0, end));
        while block < count {
            if nulls == 0 {
                block += 1;
                nulls = stretch.nulls(block, end);
                continue;
            }
            let null = block * BLOCK + nulls.trailing_zeros() as usize;
            nulls &= nulls - 1;
            let bone = |number: usize| stretch.bones.get(number).copied().unwrap_or_default();
            let is_member = null.checked_sub(1).map(bone) == Some(b':');
            let start = match is_member {
                true => null.checked_sub(2)?,
                false if which == DropNulls::All => null,
                false => continue,
            };
            let comma = start.checked_sub(1);
            let is_first = comma.is_none_or(|at| bone(at) != b',' || self.gone == comma);
            if is_first {
                match comma {
                    None => self.wrote = self.point.wrote,
                    Some(_) if self.gone == comma => {}
                    Some(_) => self.wrote = false,
                }
                self.leave_out_comma(stretch, null + 4)?;
            } else {
                let comma = stretch.position(comma?)?;
                stretch.masks.leave_out(comma, comma + 1);
            }
            let (start, end) = (stretch.position(start)?, stretch.position(null)? + 4);
            // RFC 8259 §7: no control character in a string. What is left to others here is whitespace beside the colon, mostly.
            let is_control = |byte: &u8| *byte < b' ';
            if is_member && text.get(start..end)?.iter().any(is_control) {
                return None;
            }
            stretch.masks.leave_out(start, end);
            self.nulls += 1;
        }
        Some(())
    }

    /// Leaves out a comma, if this is one.
    fn leave_out_comma(&mut self, stretch: &mut Stretch, at: usize) -> Option<()> {
        if stretch.bones.get(at) == Some(&b',') {
            let comma = stretch.position(at)?;
            stretch.masks.leave_out(comma, comma + 1);
            self.gone = Some(at);
        }
        Some(())
    }
}
