//! The rewriter on a stretch: it goes from token to token, which the masks show, and steps over what no rule looks into.
//!
//! What goes is taken out of the masks of what is kept; what takes the place of a value is written between two pieces of
//! it. All else is as byte by byte: see the functions of the same names there.

use super::{LONGEST_NAME, Rewriter};
use std::borrow::Cow;

use crate::Framing;
use crate::block::BLOCK;
use crate::lexer::is_space;
use crate::plain::Between;
use crate::redact::{self, MASK, Replacement};
use crate::rules::{DropNulls, Rules};
use crate::run::Run;
use crate::stretch::{self, STRETCH, Stretch};
use crate::text;
use crate::tokens::Tokens;
use crate::walk::Member;

/// An array or object that is gone through, and what is to be done to a stretch of it.
struct Guided<'a> {
    rewriter: &'a mut Rewriter,
    stretch: &'a mut Stretch,
    text: &'a [u8],
    tokens: &'a [u16],
    /// Names mean what they are: there is no escape.
    is_literal: bool,
    /// The token being read.
    at: usize,
    /// Where the last token ends that is taken.
    end: usize,
    depth: usize,
    /// The comma before the next value.
    comma: Option<usize>,
    /// There is one, of an earlier stretch.
    pending: bool,
    /// That one is to be written.
    leads: bool,
    /// What is written in place of values: at which place of the text, and up to where of `inserted`.
    places: Vec<(usize, usize)>,
    inserted: Vec<u8>,
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
        tokens: &mut Tokens,
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
        let tokens = stretch.masks.tokens(end, tokens);
        let is_literal = !stretch.masks.have_backslashes(end.div_ceil(BLOCK));
        let depth = self.depth;
        let mut guided = Guided {
            rewriter: self,
            stretch,
            text,
            tokens,
            is_literal,
            at: 0,
            end,
            depth,
            comma: None,
            pending: between == Between::Next,
            leads: false,
            places: Vec::new(),
            inserted: Vec::new(),
        };
        guided.go();
        guided.write(run);
        let last = tokens.last().and_then(|&at| text.get(usize::from(at)));
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
    #[inline(always)]
    fn byte(&self, token: usize) -> u8 {
        let at = self
            .tokens
            .get(token)
            .copied()
            .map_or(usize::MAX, usize::from);
        self.text.get(at).copied().unwrap_or_default()
    }

    /// Where a token is; the end for the one after the last.
    fn place(&self, token: usize) -> usize {
        self.tokens.get(token).map_or(self.end, |&at| at.into())
    }

    fn go(&mut self) {
        if let Some(depth) = self.rewriter.dropped_at {
            if self.step_over(self.depth - depth) {
                self.rewriter.dropped_at = None;
                self.depth = depth;
            }
            self.pending = false;
            let end = self.place(self.at);
            self.stretch.masks.leave_out(0, end);
        }
        while self.at < self.tokens.len() {
            // In the order in which they mostly come, and as comparisons: a jump by the byte is seldom foreseen.
            if self.byte(self.at) == b',' {
                self.comma = Some(self.place(self.at));
                self.at += 1;
            }
            let byte = self.byte(self.at);
            if byte == b'"' && self.byte(self.at + 1) == b':' {
                let mut named = Named {
                    start: Some(self.place(self.at)),
                    ..Named::default()
                };
                let is_kept = self.named(&mut named);
                self.at += 2;
                match is_kept {
                    true => self.value(&named),
                    false => self.drop_value(&named),
                }
            } else if byte | 0x20 == b'}' {
                self.close(byte);
            } else if self.at < self.tokens.len() {
                self.value(&Named::default());
            }
        }
        if let Some(comma) = self.comma {
            self.stretch.masks.leave_out(comma, comma + 1);
        }
    }

    fn close(&mut self, byte: u8) {
        if byte == b'}' {
            self.rewriter.walk.leave(self.depth);
        }
        self.depth = self.depth.saturating_sub(1);
        self.rewriter.wrote = true;
        self.pending = false;
        self.comma = None;
        self.at += 1;
    }

    /// Decides about a member by its name: whether anything of it stays.
    fn named(&mut self, named: &mut Named) -> bool {
        let Rewriter {
            walk, rules, tally, ..
        } = &mut *self.rewriter;
        let is_open = walk.is_open(self.depth);
        if !is_open && !rules.has_keys() {
            return true;
        }
        let tokens = (self.tokens.get(self.at), self.tokens.get(self.at + 1));
        let (start, end) = match tokens {
            (Some(&start), Some(&end)) => (usize::from(start), usize::from(end)),
            _ => (0, 0),
        };
        let raw = trimmed(self.text.get(start..end).unwrap_or_default());
        let raw = raw.get(1..raw.len().saturating_sub(1)).unwrap_or_default();
        named.is_long = raw.len() > LONGEST_NAME;
        let name = match named.is_long {
            true => None,
            false if self.is_literal => Some(Cow::Borrowed(raw)),
            false => Some(text::meaning(raw)),
        };
        let name = name.as_deref();
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
        let byte = self.byte(self.at);
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
            self.at += 1;
            return;
        }
        if self.step_over(0) {
            self.rewriter.wrote = true;
            return;
        }
        // It goes on beyond the stretch.
        let last = self.at.saturating_sub(1);
        let byte = self.byte(last);
        self.rewriter.wrote = !matches!(byte, b'[' | b'{');
        self.comma = (byte == b',').then(|| self.place(last));
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
            None => self.at += 1,
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
        if let Some(comma) = self.comma.take() {
            self.stretch.masks.leave_out(comma, comma + 1);
        }
        self.pending = false;
        let start = named.start.unwrap_or(self.place(self.at));
        if !self.step_over(0) {
            self.rewriter.dropped_at = Some(self.depth);
        }
        let end = self.place(self.at);
        self.stretch.masks.leave_out(start, end);
    }

    /// Puts what `other` appends in place of a value, if it does.
    fn replace(&mut self, other: impl FnOnce((&[u8], &Rules), &mut Vec<u8>)) {
        let start = self.place(self.at);
        let is_whole = self.step_over(0);
        let end = self.place(self.at);
        let raw = trimmed(self.text.get(start..end).unwrap_or_default());
        let before = self.inserted.len();
        other((raw, &self.rewriter.rules), &mut self.inserted);
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

    /// Goes on until no more are open than when there were `open` fewer, at least by one token; says whether that was in the
    /// stretch.
    fn step_over(&mut self, open: usize) -> bool {
        let mut open = open;
        while self.at < self.tokens.len() {
            let byte = self.byte(self.at);
            self.at += 1;
            open += usize::from(byte & 0xdf == b'[');
            open = open.saturating_sub(usize::from(byte & 0xdf == b']'));
            if open == 0 {
                return true;
            }
        }
        false
    }

    /// Writes what is kept and what was put in.
    fn write(&mut self, run: &mut Run<'_, '_>) {
        run.comma(self.leads);
        let (mut from, mut written) = (0, 0);
        for &(place, inserted) in &self.places {
            run.write(self.stretch.pack_between(self.text, from, place));
            run.write(self.inserted.get(written..inserted).unwrap_or_default());
            (from, written) = (place, inserted);
        }
        run.write(self.stretch.pack_between(self.text, from, self.end));
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
