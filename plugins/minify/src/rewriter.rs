//! Drops, selects and redacts in one pass over chunks cut anywhere, and leaves out whitespace on the way.
//!
//! No tree: a bit per open array or object, the open paths of the masks, and what is held: a member's name until its
//! value begins, `null` until it is whole, a string or number that a redaction must see.

mod blocks;
mod guided;

use std::rc::Rc;

use self::guided::Guide;
use crate::lexer::{FEW, ends_number, is_space, misplaced, string_run};
use crate::mask::Mask;
use crate::nesting::{Container, Nesting};
use crate::redact::{self, MASK, Replacement};
use crate::rules::{DropNulls, Rules};
use crate::run::Run;
use crate::scalar::{self, Begin, Number};
use crate::stretch::Stretch;
use crate::text;
use crate::token::Token;
use crate::walk::{Member, Walk};
use crate::{Framing, Invalid};

const LF: u8 = b'\n';
const RS: u8 = 0x1e;
/// No longer name can be one of a mask: six bytes of an escape mean at least one of its 256.
pub(crate) const LONGEST_NAME: usize = 6 * crate::mask::MAX_NAME;

/// What comes next, as in [`Lexer`](crate::Lexer).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// The rest of a byte order mark.
    Mark(&'static [u8]),
    Start,
    Separator,
    ArrayFirst,
    ArrayNext,
    ObjectFirst,
    ObjectNext,
    Colon,
    MemberValue,
    AfterValue,
    Done,
    String {
        name: bool,
    },
    Escape {
        name: bool,
    },
    Literal(&'static [u8]),
    Number(Number),
    /// All goes on as it comes, but for a comma right here: the values before it went.
    Comma,
    /// Everything goes on as it comes.
    Passing,
    /// Nothing goes on.
    Cut,
}

/// How far the name of the member is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Name {
    /// There is none, or all of it is written.
    None,
    /// It is held.
    Held,
    /// It is too long to be held and was written, without its colon.
    Written,
}

/// What is being held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Held {
    Nothing,
    Name,
    /// What may be a `null` that goes.
    Null,
    /// A string or number, for its redaction, or for patterns.
    Value(Option<Replacement>),
}

/// What was changed, but for whitespace.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Members and elements that were `null`.
    pub nulls: u64,
    /// Members and elements that the masks leave out.
    pub left_out: u64,
    /// Values replaced.
    pub redacted: u64,
}

/// Rewrites one body.
#[derive(Clone, Debug)]
pub struct Rewriter {
    rules: Rc<Rules>,
    walk: Walk,
    framing: Framing,
    max_depth: usize,
    /// Nothing goes on from the first invalid byte on.
    cuts: bool,
    /// There is more to it than whitespace and `null`s.
    looks: bool,
    state: State,
    nesting: Nesting,
    /// The innermost of them.
    inner: Option<Container>,
    depth: usize,
    /// See `Lexer`.
    space: Option<u8>,
    /// Something of this array or object was written.
    wrote: bool,
    /// While a value is dropped: the depth it is at.
    dropped_at: Option<usize>,
    name: Name,
    name_token: Token,
    held: Held,
    /// The value held, or where the value being kept begins in this chunk.
    value: Token,
    redacted: Option<u16>,
    /// Nothing was read yet.
    fresh: bool,
    /// What was open before the stretch that is being taken.
    before: Nesting,
    tally: Tally,
}

impl Rewriter {
    /// A rewriter for one body. Depth is the number of arrays and objects open at once; with `cuts` nothing of a body goes
    /// on from its first invalid byte on.
    pub fn new(
        framing: Framing,
        max_depth: usize,
        cuts: bool,
        rules: Rc<Rules>,
        mask: Option<Mask>,
    ) -> Self {
        Self {
            looks: rules.guards() || mask.is_some(),
            walk: Walk::new(&rules, mask),
            rules,
            framing,
            max_depth,
            cuts,
            state: match framing {
                Framing::Single | Framing::Lines => State::Start,
                Framing::Sequence => State::Separator,
            },
            nesting: Nesting::default(),
            inner: None,
            depth: 0,
            space: None,
            wrote: false,
            dropped_at: None,
            name: Name::None,
            name_token: Token::default(),
            held: Held::Nothing,
            value: Token::default(),
            redacted: None,
            fresh: true,
            before: Nesting::default(),
            tally: Tally::default(),
        }
    }

    /// Whether nothing is rewritten from here on.
    pub fn is_stopped(&self) -> bool {
        matches!(self.state, State::Comma | State::Passing | State::Cut)
    }

    /// Whether nothing goes on from here on: the body is to break off.
    pub fn is_cut(&self) -> bool {
        self.state == State::Cut
    }

    /// What was changed since this was asked last.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// Rewrites no more: from here on everything goes on as it comes, or nothing where it is to be cut. It is so too within a
    /// value that is left out or was replaced: the rest of it would be taken for something else.
    pub fn stop(&mut self, out: &mut Vec<u8>) {
        if self.cuts || self.dropped_at.is_some() {
            self.state = State::Cut;
            return;
        }
        self.release(out);
        self.state = match self.state {
            State::AfterValue if !self.wrote => State::Comma,
            _ => State::Passing,
        };
    }

    /// Appends what goes on of `chunk` to `out`. The reason of the first invalid byte is returned once.
    pub fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) -> Option<Invalid> {
        if self.is_stopped() {
            self.pass(chunk, out);
            return None;
        }
        let mut run = Run::new(chunk, out);
        let blocks = (chunk.len() >= FEW).then(|| (Stretch::new(), Guide::new()));
        let found = self.scan(&mut run, blocks);
        self.pause(&mut run);
        run.flush();
        let rest = run.rest();
        let invalid = found.err()?;
        self.stop(out);
        self.pass(rest, out);
        Some(invalid)
    }

    /// Appends what goes on of bytes behind those that are rewritten.
    fn pass(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut rest = bytes;
        if self.state == State::Comma {
            let space = bytes.iter().take_while(|&&byte| is_space(byte)).count();
            let (space, behind) = bytes.split_at_checked(space).unwrap_or_default();
            if let Some((first, others)) = behind.split_first() {
                self.state = State::Passing;
                if *first == b',' {
                    out.extend_from_slice(space);
                    rest = others;
                }
            }
        }
        if self.state != State::Cut {
            out.extend_from_slice(rest);
        }
    }

    /// Says that the body ended; what was held back for it is appended.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Option<Invalid> {
        let lines = self.framing != Framing::Single;
        match self.state {
            State::Comma | State::Passing | State::Cut => None,
            State::Number(number) if number.may_end() && self.depth == 0 => {
                let mut run = Run::new(&[], out);
                self.ended(&mut run);
                run.flush();
                None
            }
            State::Done => {
                // RFC 7464 §2.4: without white space after it a number would count as truncated.
                if self.framing == Framing::Sequence {
                    out.extend(self.space.take());
                }
                None
            }
            State::Start | State::Separator if lines => None,
            _ => {
                self.stop(out);
                Some(Invalid::Truncated)
            }
        }
    }

    /// Writes what is held, as it came.
    fn release(&mut self, out: &mut Vec<u8>) {
        use State::{
            AfterValue, ArrayNext, Colon, Done, MemberValue, ObjectNext, Separator, Start,
        };
        let mut run = Run::new(&[], out);
        match self.held {
            Held::Name => {
                run.comma(self.wrote);
                run.write(self.name_token.text(&[]));
            }
            Held::Null | Held::Value(_) => {
                self.prefix(&mut run);
                run.write(self.value.text(&[]));
            }
            Held::Nothing => {
                if self.name == Name::Held {
                    run.comma(self.wrote);
                    run.write(self.name_token.text(&[]));
                }
                match self.state {
                    MemberValue => run.write(b":"),
                    ArrayNext | ObjectNext => run.comma(self.wrote),
                    _ => {}
                }
            }
        }
        run.flush();
        let space = self.space.take();
        // As in `Lexer`: where two tokens would else become one.
        if matches!(self.state, Start | Separator | AfterValue | Colon | Done) {
            out.extend(space);
        }
    }

    /// Keeps of the chunk what the next one will need.
    fn pause(&mut self, run: &mut Run<'_, '_>) {
        let at = run.at;
        if self.name == Name::Held {
            self.name_token.stash_ended(run.chunk);
        }
        match self.held {
            Held::Name => {
                self.name_token.stash(run.chunk, at);
                // Its first quote is held too.
                if self.name_token.length(0) > LONGEST_NAME + 1 {
                    self.long_name(run);
                    self.value.begin(0);
                }
            }
            Held::Null => self.value.stash(run.chunk, at),
            Held::Value(_) if self.value.length(at) > self.rules.max_value => self.too_long(run),
            Held::Value(_) => self.value.stash(run.chunk, at),
            Held::Nothing if self.keeps_token() => {
                run.keep(self.value.start, at);
                self.value.begin(0);
            }
            Held::Nothing => {}
        }
    }

    /// Whether the bytes of the token being read go on as they come.
    fn keeps_token(&self) -> bool {
        let in_token = matches!(
            self.state,
            State::String { .. } | State::Escape { .. } | State::Literal(_) | State::Number(_)
        );
        in_token && self.dropped_at.is_none()
    }

    /// Goes over the run byte by byte, but where no rule can be for what comes.
    fn scan(
        &mut self,
        run: &mut Run<'_, '_>,
        mut blocks: Option<(Stretch, Guide)>,
    ) -> Result<(), Invalid> {
        if blocks.is_none() {
            run.doubted = usize::MAX;
        }
        while let Some(byte) = run.peek() {
            if self.may_take(run)
                && let Some((stretch, guide)) = &mut blocks
            {
                let taken = match self.looks {
                    true => self.take_guided(stretch, guide, run),
                    false => self.take_plain(stretch, run),
                };
                if taken.is_some() {
                    continue;
                }
            }
            match self.state {
                State::String { name } => {
                    if !self.string(name, run)? {
                        return Ok(());
                    }
                }
                State::Escape { name } => {
                    if byte < b' ' {
                        return Err(Invalid::ControlCharacter);
                    }
                    self.state = State::String { name };
                    run.at += 1;
                }
                State::Literal(to_come) => self.literal(to_come, run)?,
                State::Number(number) => self.number(number, byte, run)?,
                State::Mark(to_come) => match to_come.split_first() {
                    Some((next, after)) if *next == byte => {
                        run.at += 1;
                        self.state = State::Mark(after);
                        if after.is_empty() {
                            run.write(b"\xef\xbb\xbf");
                            self.state = State::Start;
                        }
                    }
                    _ => return Err(Invalid::Encoding),
                },
                _ if is_space(byte) => self.skip_space(byte, run)?,
                _ => self.token(byte, run)?,
            }
        }
        Ok(())
    }

    /// Goes on with a string; says whether there is more of the chunk.
    #[inline]
    fn string(&mut self, name: bool, run: &mut Run<'_, '_>) -> Result<bool, Invalid> {
        run.at += string_run(run.rest());
        match run.peek() {
            None => return Ok(false),
            Some(b'"') => {
                run.at += 1;
                if name {
                    self.named(run);
                } else {
                    self.ended(run);
                }
            }
            Some(b'\\') => {
                run.at += 1;
                self.state = State::Escape { name };
            }
            // RFC 8259 §7: "characters that MUST be escaped: ... the control characters (U+0000 through U+001F)"
            Some(_) => return Err(Invalid::ControlCharacter),
        }
        Ok(true)
    }

    #[inline]
    fn literal(&mut self, to_come: &'static [u8], run: &mut Run<'_, '_>) -> Result<(), Invalid> {
        let (same, rest) = scalar::literal(to_come, run.rest());
        run.at += same;
        match rest? {
            [] => self.ended(run),
            rest => self.state = State::Literal(rest),
        }
        Ok(())
    }

    #[inline]
    fn number(&mut self, number: Number, byte: u8, run: &mut Run<'_, '_>) -> Result<(), Invalid> {
        match number.next(byte) {
            Some(next) => {
                self.state = State::Number(next);
                run.at += 1;
                if next.is_digits() {
                    run.at += run.rest().iter().take_while(|b| b.is_ascii_digit()).count();
                }
            }
            None if number.may_end() && ends_number(byte) => self.ended(run),
            None => return Err(Invalid::BadNumber),
        }
        Ok(())
    }

    /// Goes over members the way they mostly come, from the quote of a name on: without a look at what may come instead.
    /// Wherever that ends, the state says what comes next.
    fn members(&mut self, run: &mut Run<'_, '_>) -> Result<(), Invalid> {
        loop {
            if self.dropped_at.is_none() {
                self.held = Held::Name;
                self.name_token.begin(run.at);
            }
            self.state = State::String { name: true };
            self.space = None;
            run.at += 1;
            self.string(true, run)?;
            if self.state != State::Colon || run.peek() != Some(b':') {
                return Ok(());
            }
            run.at += 1;
            self.state = State::MemberValue;
            if run.peek() == Some(b' ') {
                run.at += 1;
            }
            let Some(byte) = run.peek().filter(|&byte| !is_space(byte)) else {
                return Ok(());
            };
            self.value(byte, Some(Container::Object), run)?;
            run.at += 1;
            match self.state {
                State::String { .. } => drop(self.string(false, run)?),
                State::Literal(to_come) => self.literal(to_come, run)?,
                _ => {
                    while let (State::Number(number), Some(byte)) = (self.state, run.peek()) {
                        self.number(number, byte, run)?;
                    }
                }
            }
            if self.state != State::AfterValue || run.peek() != Some(b',') {
                return Ok(());
            }
            run.at += 1;
            self.state = State::ObjectNext;
            self.space = None;
            if self.may_take(run) {
                return Ok(());
            }
            if let Some(byte) = run.peek().filter(|&byte| is_space(byte)) {
                self.skip_space(byte, run)?;
            }
            if run.peek() != Some(b'"') {
                return Ok(());
            }
        }
    }

    /// Leaves out a run of whitespace; keeps what separates texts.
    fn skip_space(&mut self, first: u8, run: &mut Run<'_, '_>) -> Result<(), Invalid> {
        self.fresh = false;
        let stops_at_lf = self.framing != Framing::Single;
        if stops_at_lf && first == LF {
            return self.line_feed(run);
        }
        let (length, has_lf) = space_run(run.rest(), stops_at_lf);
        if has_lf {
            self.space = Some(LF);
        } else if self.space.is_none() {
            self.space = Some(first);
        }
        run.at += length;
        Ok(())
    }

    /// A line feed where whitespace may be, in a format that gives it a meaning.
    fn line_feed(&mut self, run: &mut Run<'_, '_>) -> Result<(), Invalid> {
        let at = run.at;
        let keep = match (self.framing, self.state) {
            (Framing::Lines, State::Start | State::Done) => {
                self.state = State::Start;
                true
            }
            (Framing::Lines, _) => return Err(Invalid::LineFeed),
            (_, State::Done) => {
                self.state = State::Separator;
                true
            }
            _ => false,
        };
        if keep {
            self.space = None;
            run.keep(at, at + 1);
        } else {
            self.space = Some(LF);
        }
        run.at += 1;
        Ok(())
    }

    /// Takes a byte that is outside strings, numbers, literals and whitespace.
    #[inline]
    fn token(&mut self, byte: u8, run: &mut Run<'_, '_>) -> Result<(), Invalid> {
        let innermost = self.inner;
        let at = run.at;
        match self.state {
            State::AfterValue => match (byte, innermost) {
                (b',', Some(Container::Object)) => self.state = State::ObjectNext,
                (b',', _) => self.state = State::ArrayNext,
                (b']', Some(Container::Array)) | (b'}', Some(Container::Object)) => {
                    self.close(innermost, run);
                }
                _ => return Err(misplaced(byte)),
            },
            State::Colon if byte == b':' => self.state = State::MemberValue,
            State::ObjectFirst | State::ObjectNext if byte == b'"' => return self.members(run),
            State::ObjectFirst if byte == b'}' => self.close(innermost, run),
            State::ArrayFirst if byte == b']' => self.close(innermost, run),
            State::MemberValue | State::ArrayFirst | State::ArrayNext => {
                self.value(byte, innermost, run)?;
            }
            State::Start if byte == 0xef && self.cuts && self.fresh => {
                // RFC 8259 §8.1: a parser may ignore a byte order mark. It stays; what follows is not passed unseen for it.
                self.state = State::Mark(b"\xbb\xbf");
            }
            State::Start | State::Separator if matches!(byte, 0xef | 0xfe | 0xff) => {
                return Err(Invalid::Encoding);
            }
            State::Start | State::Separator | State::Done
                if byte == RS && self.framing == Framing::Sequence =>
            {
                if self.state == State::Done {
                    // What ends the text before it is not insignificant (RFC 7464 §2.4).
                    if let Some(space) = self.space {
                        run.write(&[space]);
                    }
                }
                run.keep(at, at + 1);
                self.state = State::Start;
            }
            State::Start => {
                self.wrote = false;
                self.value(byte, None, run)?;
            }
            State::Done if byte != 0 => return Err(Invalid::Trailing),
            _ => return Err(misplaced(byte)),
        }
        self.fresh = false;
        self.space = None;
        run.at += 1;
        Ok(())
    }

    /// Takes the first byte of a value: whether it may stand here, and what becomes of it.
    #[inline]
    fn value(
        &mut self,
        byte: u8,
        innermost: Option<Container>,
        run: &mut Run<'_, '_>,
    ) -> Result<(), Invalid> {
        let next = match Begin::of(byte)? {
            Begin::String => State::String { name: false },
            Begin::Open(container) => {
                if !self.nesting.push(container, self.max_depth) {
                    return Err(Invalid::Depth);
                }
                if self.dropped_at.is_none() {
                    self.opened(run);
                }
                self.inner = Some(container);
                self.depth += 1;
                self.state = match container {
                    Container::Array => State::ArrayFirst,
                    Container::Object => State::ObjectFirst,
                };
                return Ok(());
            }
            Begin::Number(number) => State::Number(number),
            Begin::Literal(to_come) => State::Literal(to_come),
        };
        if self.dropped_at.is_none() {
            self.scalar(byte, innermost, run);
        }
        self.state = next;
        Ok(())
    }

    /// Decides about an array or object that begins here.
    fn opened(&mut self, run: &mut Run<'_, '_>) {
        if self.redacted.take().is_some() {
            self.mask(run);
        } else {
            self.prefix(run);
            run.keep(run.at, run.at + 1);
            self.wrote = false;
        }
    }

    /// Decides about any other value that begins here.
    #[inline]
    fn scalar(&mut self, byte: u8, innermost: Option<Container>, run: &mut Run<'_, '_>) {
        let redacted = self.redacted.take();
        if self.walk.is_partial() {
            // Nothing of it can be what an include goes down to.
            if innermost.is_none() {
                run.write(b"null");
            } else {
                self.name = Name::None;
            }
            self.tally.left_out += 1;
            self.dropped_at = Some(self.depth);
            return;
        }
        let has_text = matches!(byte, b'"' | b'-' | b'0'..=b'9');
        let may_go = match (self.rules.drop_nulls, innermost) {
            (DropNulls::Never, _) | (_, None) => false,
            (_, Some(Container::Object)) => self.name == Name::Held,
            (nulls, Some(Container::Array)) => nulls == DropNulls::All,
        };
        self.held = match redacted {
            _ if byte == b'n' && may_go => Held::Null,
            Some(by) => {
                let by = self.rules.replacements.get(usize::from(by)).copied();
                match by.unwrap_or_default() {
                    by @ (Replacement::Hash | Replacement::Last4) if has_text => {
                        Held::Value(Some(by))
                    }
                    _ => return self.mask(run),
                }
            }
            None if has_text && !self.rules.patterns.is_empty() => Held::Value(None),
            None => {
                self.prefix(run);
                Held::Nothing
            }
        };
        self.value.begin(run.at);
    }

    /// Puts the mask where a value was to be, and drops that.
    fn mask(&mut self, run: &mut Run<'_, '_>) {
        self.prefix(run);
        run.write(MASK);
        self.tally.redacted += 1;
        self.dropped_at = Some(self.depth);
    }

    /// A held value is longer than what may be held of it: it is hidden unseen.
    fn too_long(&mut self, run: &mut Run<'_, '_>) {
        self.held = Held::Nothing;
        self.mask(run);
    }

    /// Writes what comes before a value: a comma, and the name it is of.
    #[inline]
    fn prefix(&mut self, run: &mut Run<'_, '_>) {
        match self.name {
            Name::None => run.comma(self.wrote),
            Name::Held => {
                run.comma(self.wrote);
                run.token(&self.name_token);
                run.colon();
            }
            Name::Written => run.colon(),
        }
        self.name = Name::None;
        self.wrote = true;
    }

    /// A name was read to its end: decides about its member.
    #[inline]
    fn named(&mut self, run: &mut Run<'_, '_>) {
        self.state = State::Colon;
        if self.held != Held::Name {
            if self.dropped_at.is_none() {
                // The end of one that is too long.
                run.keep(self.value.start, run.at);
            }
            return;
        }
        self.name_token.end(run.chunk, run.at);
        let raw = self.name_token.text(run.chunk);
        let raw = raw.get(1..raw.len().saturating_sub(1)).unwrap_or_default();
        if raw.len() > LONGEST_NAME {
            return self.long_name(run);
        }
        self.held = Held::Nothing;
        self.name = Name::Held;
        if !self.walk.is_open(self.depth) && !self.rules.has_keys() {
            return;
        }
        let name = text::meaning(raw);
        let by_key = match self.rules.has_keys() {
            true => self.rules.by_key(&name),
            false => None,
        };
        let by_path = match self.walk.is_open(self.depth) {
            true => self.walk.enter(self.depth, Some(&name), &self.rules),
            false => Member::Kept,
        };
        match by_path {
            Member::Dropped => self.leave_out(),
            Member::Kept => self.redacted = by_key,
            Member::Redacted(by) => self.redacted = Some(by_key.map_or(by, |key| key.min(by))),
        }
    }

    /// A name that can't be one of the rules' is longer than what may be held of it: wildcards decide.
    fn long_name(&mut self, run: &mut Run<'_, '_>) {
        self.held = Held::Nothing;
        let member = match self.walk.is_open(self.depth) {
            true => self.walk.enter(self.depth, None, &self.rules),
            false => Member::Kept,
        };
        match member {
            Member::Dropped => return self.leave_out(),
            Member::Kept => {}
            Member::Redacted(by) => self.redacted = Some(by),
        }
        run.comma(self.wrote);
        run.token(&self.name_token);
        self.wrote = true;
        self.name = Name::Written;
    }

    fn leave_out(&mut self) {
        self.name = Name::None;
        self.tally.left_out += 1;
        self.dropped_at = Some(self.depth);
    }

    /// A string, number or literal ended before this byte.
    #[inline]
    fn ended(&mut self, run: &mut Run<'_, '_>) {
        self.after_value();
        if let Some(depth) = self.dropped_at {
            if depth == self.depth {
                self.dropped_at = None;
            }
            return;
        }
        match self.held {
            Held::Nothing | Held::Name => run.keep(self.value.start, run.at),
            Held::Null => {
                self.held = Held::Nothing;
                self.name = Name::None;
                self.tally.nulls += 1;
            }
            Held::Value(by) => {
                self.held = Held::Nothing;
                self.value.end(run.chunk, run.at);
                self.redact(by, run);
            }
        }
    }

    /// Writes a held value, or what stands in its place.
    fn redact(&mut self, by: Option<Replacement>, run: &mut Run<'_, '_>) {
        self.prefix(run);
        let raw = self.value.text(run.chunk);
        let key = self.rules.hash_key.as_ref();
        let mut other = Vec::new();
        let replaced = match by {
            _ if raw.len() > self.rules.max_value => {
                other.extend_from_slice(MASK);
                true
            }
            Some(by) => {
                redact::replace(raw, by, key, &mut other);
                true
            }
            None => redact::replace_found(raw, &self.rules.patterns, key, &mut other),
        };
        if replaced {
            self.tally.redacted += 1;
            run.write(&other);
        } else {
            run.token(&self.value);
        }
    }

    fn close(&mut self, container: Option<Container>, run: &mut Run<'_, '_>) {
        self.nesting.pop();
        self.inner = self.nesting.innermost();
        if self.dropped_at.is_none() {
            if container == Some(Container::Object) {
                self.walk.leave(self.depth);
            }
            run.keep(run.at, run.at + 1);
            self.wrote = true;
        }
        self.depth = self.depth.saturating_sub(1);
        if self.dropped_at == Some(self.depth) {
            self.dropped_at = None;
        }
        self.after_value();
    }

    #[inline]
    fn after_value(&mut self) {
        self.state = match self.depth {
            0 => State::Done,
            _ => State::AfterValue,
        };
    }
}

/// How many bytes of whitespace there are, and whether a line feed is among them. Mostly it is one, and spaces after it.
#[inline]
fn space_run(bytes: &[u8], stops_at_lf: bool) -> (usize, bool) {
    const SPACES: u64 = 0x2020_2020_2020_2020;
    let (mut length, mut has_lf) = (0, false);
    loop {
        let rest = bytes.get(length..).unwrap_or_default();
        match rest.first() {
            Some(b' ') => {}
            Some(b'\t' | b'\r') => {
                length += 1;
                continue;
            }
            Some(&LF) if !stops_at_lf => {
                has_lf = true;
                length += 1;
                continue;
            }
            _ => return (length, has_lf),
        }
        match rest.first_chunk() {
            Some(word) => {
                let differs = u64::from_le_bytes(*word) ^ SPACES;
                length += (differs.trailing_zeros() / 8) as usize;
            }
            None => length += 1,
        }
    }
}
