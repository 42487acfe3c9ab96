//! The rewriter on a stretch: it goes from token to token, which the masks show, and steps over what no rule looks into.
//!
//! What goes is taken out of the masks of what is kept; what takes the place of a value is written between two pieces of
//! it. All else is as byte by byte: see the functions of the same names there.

use super::{LONGEST_NAME, Rewriter};

use crate::Framing;
use crate::lexer::is_space;
use crate::mask::bit;
use crate::nesting::Container;
use crate::plain::Between;
use crate::redact::{self, MASK, Replacement};
use crate::rules::{DropNulls, Rules};
use crate::run::Run;
use crate::stretch::{self, STRETCH, Stretch};
use crate::text;
use crate::tokens::Tokens;
use crate::walk::Member;

/// What guides through a stretch, and the room for what is put in.
pub(super) struct Guide {
    tokens: Tokens,
    /// What is written in place of values: at which place of the text, and up to where of `inserted`.
    places: Vec<(usize, usize)>,
    inserted: Vec<u8>,
}

impl Guide {
    pub(super) fn new() -> Self {
        Self {
            tokens: Tokens::new(),
            places: Vec::new(),
            inserted: Vec::new(),
        }
    }
}

/// An array or object that is gone through, and what is to be done to a stretch of it.
struct Guided<'a> {
    rewriter: &'a mut Rewriter,
    stretch: &'a mut Stretch,
    text: &'a [u8],
    tokens: &'a mut Tokens,
    /// Where the last token ends that is taken.
    end: usize,
    depth: usize,
    /// What becomes of a value is told by the names above it alone.
    by_name_only: bool,
    /// The comma before the next value.
    comma: Option<usize>,
    /// There is one, of an earlier stretch.
    pending: bool,
    /// That one is to be written.
    leads: bool,
    /// See [`Guide`].
    places: &'a mut Vec<(usize, usize)>,
    inserted: &'a mut Vec<u8>,
}

/// What is known of the value that comes.
#[derive(Default)]
struct Named {
    /// Where the name begins.
    start: Option<usize>,
    is_long: bool,
    redacted: Option<u16>,
}

impl Rewriter {
    /// Takes a stretch by the rules.
    pub(super) fn take_guided(
        &mut self,
        stretch: &mut Stretch,
        guide: &mut Guide,
        run: &mut Run<'_, '_>,
    ) -> Option<()> {
        let (between, container) = (self.between()?, self.inner?);
        let mut place = between.place(container);
        let rules = stretch::Rules {
            max_depth: self.max_depth,
            lines: self.framing == Framing::Lines,
        };
        self.before.clone_from(&self.nesting);
        let text = run.rest();
        let scan = stretch.scan(text, &mut place, &mut self.nesting, &rules);
        let cut = scan.and_then(|scan| stretch.cut(&scan, &mut self.nesting));
        // RFC 8259 §7: no control character in a string; also where it is left out.
        let ended = cut.as_ref().is_some_and(|cut| cut.ended);
        let end = cut.map(|cut| cut.bytes);
        let end = end.filter(|&end| !stretch.has_controls(text, end));
        let Some(end) = end.filter(|&end| end > 0) else {
            std::mem::swap(&mut self.before, &mut self.nesting);
            run.doubted = run.at + if end.is_some() { 1 } else { STRETCH };
            return None;
        };
        let Guide {
            tokens,
            places,
            inserted,
        } = guide;
        places.clear();
        inserted.clear();
        stretch.masks.tokens(end, tokens);
        let last = tokens.last().and_then(|at| text.get(at));
        let depth = self.depth;
        let rules = &self.rules;
        let by_name_only = rules.drop_nulls == DropNulls::Never && !rules.look_everywhere();
        let mut guided = Guided {
            by_name_only,
            rewriter: self,
            stretch,
            text,
            tokens,
            end,
            depth,
            comma: None,
            pending: between == Between::Next,
            leads: false,
            places,
            inserted,
        };
        guided.go();
        guided.write(run);
        let between = match last {
            None => between,
            Some(b',') => Between::Next,
            Some(b'[' | b'{') => Between::First,
            Some(_) => Between::After,
        };
        run.at += end;
        run.doubted = run.at + usize::from(ended);
        self.arrive(between);
        Some(())
    }
}

impl Guided<'_> {
    /// The first byte of the token at hand; 0 after the last.
    #[inline(always)]
    fn byte(&self) -> u8 {
        let taken = self.text.get(..self.end).unwrap_or_default();
        taken.get(self.tokens.at()).copied().unwrap_or_default()
    }

    fn go(&mut self) {
        if let Some(depth) = self.rewriter.dropped_at {
            if self.leave_to(depth) {
                self.rewriter.dropped_at = None;
            }
            self.pending = false;
            self.stretch.masks.leave_out(0, self.tokens.at());
        } else if let Some(depth) = self.rewriter.walk.passed()
            && self.by_name_only
            && self.depth > depth
        {
            // The stretch begins within a value that no mask goes into.
            self.leads = self.pending && self.rewriter.wrote;
            self.pending = false;
            if self.leave_to(depth) {
                self.rewriter.wrote = true;
            } else {
                self.goes_on();
            }
        }
        loop {
            let mut byte = self.byte();
            // In the order in which they mostly come, and as comparisons: a jump by the byte is seldom foreseen.
            if byte == b',' && self.by_name_only && self.rewriter.before.is_object() {
                self.pass_members();
                byte = self.byte();
            }
            if byte == b',' {
                self.comma = Some(self.tokens.at());
                self.tokens.step();
                byte = self.byte();
            }
            if byte == b'"' && self.rewriter.before.is_object() {
                let mut named = Named {
                    start: Some(self.tokens.at()),
                    ..Named::default()
                };
                match self.named(&mut named) {
                    true => self.value(&named),
                    false => self.drop_value(&named),
                }
            } else if byte | 0x20 == b'}' {
                self.close(byte);
            } else if byte != 0 {
                self.value(&Named::default());
            } else {
                break;
            }
        }
        if let Some(comma) = self.comma {
            self.stretch.masks.leave_out(comma, comma + 1);
        }
    }

    /// Goes over members of an object whose names no mask looks for, from the comma before them on.
    fn pass_members(&mut self) {
        let Some(sought) = self.rewriter.walk.sought(self.depth) else {
            return;
        };
        if !sought.drops && !self.rewriter.wrote {
            return;
        }
        let text = self.text.get(..self.end).unwrap_or_default();
        let (cursor, begins) = self.tokens.apart();
        let first = cursor.at;
        let (mut here, mut passed) = (*cursor, 0);
        // It goes back to the comma where anything is not as it mostly is.
        while text.get(here.at) == Some(&b',') {
            let mut next = here;
            next.step(begins);
            let name = next.at;
            next.step(begins);
            let colon = next.at;
            let Some([b'"', raw @ .., b'"']) = text.get(name..colon) else {
                break;
            };
            if sought.sieve & bit(Some(raw)) != 0
                || raw.len() > LONGEST_NAME
                || self.stretch.masks.may_escape(name, colon)
            {
                break;
            }
            next.step(begins);
            let value = text.get(next.at).copied().unwrap_or_default();
            if value & 0xdf == b'[' {
                let Some(end) = self.stretch.end_of(text, self.end, 1, next.at + 1) else {
                    break;
                };
                next.go_to(end, begins);
            } else {
                next.step(begins);
            }
            here = next;
            passed += 1;
        }
        *cursor = here;
        if sought.drops {
            self.stretch.masks.leave_out(first, here.at);
            self.rewriter.tally.left_out += passed;
        }
    }

    fn close(&mut self, byte: u8) {
        if byte == b'}' {
            self.rewriter.walk.leave(self.depth);
        }
        self.depth = self.depth.saturating_sub(1);
        self.rewriter.before.pop();
        self.rewriter.wrote = true;
        self.pending = false;
        self.comma = None;
        self.tokens.step();
    }

    /// Decides about a member by its name, and goes to its value: whether anything of it stays.
    fn named(&mut self, named: &mut Named) -> bool {
        let Rewriter {
            walk, rules, tally, ..
        } = &mut *self.rewriter;
        let start = self.tokens.at();
        self.tokens.step();
        let colon = self.tokens.at();
        self.tokens.step();
        let is_open = walk.is_open(self.depth);
        let is_sought = is_open || rules.has_keys();
        // Whether it is too long matters to a `null` too.
        if !is_sought && colon.saturating_sub(start) <= LONGEST_NAME {
            return true;
        }
        let raw = trimmed(self.text.get(start..colon).unwrap_or_default());
        let raw = raw.get(1..raw.len().saturating_sub(1)).unwrap_or_default();
        named.is_long = raw.len() > LONGEST_NAME;
        if !is_sought {
            return true;
        }
        let meaning;
        let name = if named.is_long {
            None
        } else if self.stretch.masks.may_escape(start, colon) {
            meaning = text::meaning(raw);
            Some(&*meaning)
        } else {
            Some(raw)
        };
        let by_key = name.and_then(|name| rules.by_key(name));
        let by_path = match is_open {
            true => walk.enter(self.depth, name, rules),
            false => Member::Kept,
        };
        match by_path {
            Member::Dropped => {
                tally.left_out += 1;
                return false;
            }
            Member::Kept => named.redacted = by_key,
            Member::Redacted(by) => named.redacted = Some(by_key.map_or(by, |key| key.min(by))),
        }
        true
    }

    /// Decides about a value.
    fn value(&mut self, named: &Named) {
        let byte = self.byte();
        if byte & 0xdf != b'[' {
            return self.scalar(byte, named);
        }
        self.keep();
        if named.redacted.is_some() {
            return self.replace(|_, inserted| inserted.extend_from_slice(MASK));
        }
        self.rewriter.wrote = false;
        let rules = &self.rewriter.rules;
        if rules.drop_nulls != DropNulls::Never
            || rules.look_everywhere()
            || self.rewriter.walk.is_open(self.depth + 1)
        {
            self.depth += 1;
            let container = match byte {
                b'{' => Container::Object,
                _ => Container::Array,
            };
            // There was room for it when it was checked.
            let _ = self.rewriter.before.push(container, usize::MAX);
            self.tokens.step();
            return;
        }
        if self.step_over() {
            self.rewriter.wrote = true;
            return;
        }
        self.goes_on();
    }

    /// What is gone over goes on beyond the stretch.
    fn goes_on(&mut self) {
        let last = self.tokens.last();
        let byte = last.and_then(|last| self.text.get(last));
        self.rewriter.wrote = !matches!(byte, Some(b'[' | b'{'));
        self.comma = last.filter(|_| byte == Some(&b','));
    }

    fn scalar(&mut self, byte: u8, named: &Named) {
        let Rewriter {
            walk, rules, tally, ..
        } = &mut *self.rewriter;
        if walk.is_partial() {
            // Nothing of it can be what an include goes down to.
            tally.left_out += 1;
            return self.drop_value(named);
        }
        let may_go = match rules.drop_nulls {
            DropNulls::Never => false,
            DropNulls::Members => named.start.is_some() && !named.is_long,
            DropNulls::All => !named.is_long,
        };
        if byte == b'n' && may_go {
            tally.nulls += 1;
            return self.drop_value(named);
        }
        let has_text = matches!(byte, b'"' | b'-' | b'0'..=b'9');
        let by = named.redacted.map(|by| {
            let by = rules.replacements.get(usize::from(by)).copied();
            by.unwrap_or_default()
        });
        self.keep();
        match by {
            Some(by @ (Replacement::Hash | Replacement::Last4)) if has_text => {
                self.replace(|(raw, rules), inserted| match raw.len() > rules.max_value {
                    true => inserted.extend_from_slice(MASK),
                    false => redact::replace(raw, by, rules.hash_key.as_ref(), inserted),
                });
            }
            Some(_) => self.replace(|_, inserted| inserted.extend_from_slice(MASK)),
            None if has_text && !self.rewriter.rules.patterns.is_empty() => {
                self.replace(|(raw, rules), inserted| {
                    if raw.len() > rules.max_value {
                        inserted.extend_from_slice(MASK);
                    } else {
                        let key = rules.hash_key.as_ref();
                        redact::replace_found(raw, &rules.patterns, key, inserted);
                    }
                });
            }
            None => self.tokens.step(),
        }
    }

    /// Writes what comes before a value that stays.
    fn keep(&mut self) {
        let wrote = std::mem::replace(&mut self.rewriter.wrote, true);
        match self.comma.take() {
            Some(comma) if !wrote => self.stretch.masks.leave_out(comma, comma + 1),
            Some(_) => {}
            None => self.leads |= self.pending && wrote,
        }
        self.pending = false;
    }

    /// Leaves out a value, its name and the comma before it.
    fn drop_value(&mut self, named: &Named) {
        let comma = self.comma.take();
        self.pending = false;
        let start = comma.or(named.start).unwrap_or(self.tokens.at());
        if !self.step_over() {
            self.rewriter.dropped_at = Some(self.depth);
        }
        let end = self.tokens.at();
        self.stretch.masks.leave_out(start, end);
    }

    /// Puts what `other` appends in place of a value, if it does.
    fn replace(&mut self, other: impl FnOnce((&[u8], &Rules), &mut Vec<u8>)) {
        let start = self.tokens.at();
        let is_whole = self.step_over();
        let end = self.tokens.at();
        let raw = trimmed(self.text.get(start..end).unwrap_or_default());
        let before = self.inserted.len();
        other((raw, &self.rewriter.rules), self.inserted);
        if self.inserted.len() == before {
            return;
        }
        self.rewriter.tally.redacted += 1;
        self.places.push((start, self.inserted.len()));
        self.stretch.masks.leave_out(start, end);
        if !is_whole {
            self.rewriter.dropped_at = Some(self.depth);
        }
    }

    /// Goes to what follows a value; says whether its end is in the stretch.
    #[inline]
    fn step_over(&mut self) -> bool {
        if self.byte() & 0xdf == b'[' {
            return self.leave(1, self.tokens.at() + 1);
        }
        self.tokens.step();
        true
    }

    /// Goes to what follows the value at this depth that the stretch begins in; says whether its end is in the stretch.
    fn leave_to(&mut self, depth: usize) -> bool {
        let is_left = self.leave(self.depth - depth, 0);
        if is_left {
            for _ in depth..self.depth {
                self.rewriter.before.pop();
            }
            self.depth = depth;
        }
        is_left
    }

    /// Goes to what follows the end of the outermost of `open` arrays and objects, which are open at the place `from`; says
    /// whether that end is in the stretch.
    fn leave(&mut self, open: usize, from: usize) -> bool {
        let end = self.stretch.end_of(self.text, self.end, open, from);
        self.tokens.go_to(end.unwrap_or(self.end));
        end.is_some()
    }

    /// Writes what is kept and what was put in.
    fn write(&mut self, run: &mut Run<'_, '_>) {
        run.comma(self.leads);
        self.stretch.masks.rank(self.places);
        let packed = self.stretch.pack_all(self.text, self.end);
        let (mut from, mut written) = (0, 0);
        for &(to, inserted) in &*self.places {
            run.write(packed.get(from..to).unwrap_or_default());
            run.write(self.inserted.get(written..inserted).unwrap_or_default());
            (from, written) = (to, inserted);
        }
        run.write(packed.get(from..).unwrap_or_default());
    }
}

/// A token without the whitespace after it.
#[inline(always)]
fn trimmed(text: &[u8]) -> &[u8] {
    if text.last() == Some(&b'"') {
        return text;
    }
    let end = text.iter().rposition(|&byte| !is_space(byte));
    text.get(..end.map_or(0, |end| end + 1)).unwrap_or_default()
}
