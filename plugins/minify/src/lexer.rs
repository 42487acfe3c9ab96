//! Validates JSON and drops its insignificant whitespace, in one pass over chunks cut anywhere.
//!
//! The state is a few words and one bit per level of nesting. What is kept is copied in runs.

use crate::block::{BLOCK, StringCarry};
use crate::nesting::{Container, Nesting};
use crate::scalar::{self, Begin, Number};
use crate::stretch::{Place, Rules, STRETCH, Stretch};

/// What separates JSON texts in a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// There is one text (RFC 8259).
    Single,
    /// A text a line (NDJSON, JSON Lines). Every line feed is kept, so lines keep their numbers.
    Lines,
    /// RFC 7464: each text after a record separator (0x1E); it and the white space that ends the text are kept.
    Sequence,
}

/// Why the rest of a body went on as it came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Invalid {
    /// A byte that the grammar has no place for.
    UnexpectedByte,
    /// A byte order mark, or UTF-16 or UTF-32.
    Encoding,
    /// A control character inside a string (RFC 8259 §7).
    ControlCharacter,
    /// A word that is neither `true`, `false` nor `null`.
    BadLiteral,
    /// A number outside the grammar of RFC 8259 §6.
    BadNumber,
    /// Something after the text's end.
    Trailing,
    /// A line feed inside a text of a line-based format.
    LineFeed,
    /// Nested deeper than allowed.
    Depth,
    /// The body ended in the middle of a text, or had none.
    Truncated,
}

/// Chunks of fewer bytes are gone over byte by byte: the blocks are not worth their room.
pub(crate) const FEW: usize = 2 * BLOCK;

const LF: u8 = b'\n';
const RS: u8 = 0x1e;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Before a text.
    Start,
    /// Before the record separator of a sequence's first or next text.
    Separator,
    /// After `[`.
    ArrayFirst,
    /// After `,` in an array.
    ArrayNext,
    /// After `{`.
    ObjectFirst,
    /// After `,` in an object.
    ObjectNext,
    /// After a member's name.
    Colon,
    /// After `:`.
    MemberValue,
    /// After a value inside an array or object.
    AfterValue,
    /// After a text.
    Done,
    /// In a string; `name` when it names a member.
    String {
        name: bool,
    },
    /// After a backslash in a string.
    Escape {
        name: bool,
    },
    /// In a literal, of which this is still to come.
    Literal(&'static [u8]),
    Number(Number),
    /// Everything goes on as it comes.
    Passing,
}

/// Minifies one body.
#[derive(Clone, Debug)]
pub struct Lexer {
    state: State,
    nesting: Nesting,
    max_depth: usize,
    framing: Framing,
    /// Of the whitespace dropped since the last token: a line feed if there was one, else its first byte. It is put
    /// back where two tokens of an invalid body would else become one.
    space: Option<u8>,
    /// What was open before the stretch that is being taken.
    before: Nesting,
}

impl Lexer {
    /// A lexer for one body. Depth is the number of arrays and objects open at once.
    pub fn new(framing: Framing, max_depth: usize) -> Self {
        Self {
            state: match framing {
                Framing::Single | Framing::Lines => State::Start,
                Framing::Sequence => State::Separator,
            },
            nesting: Nesting::default(),
            max_depth,
            framing,
            space: None,
            before: Nesting::default(),
        }
    }

    /// Whether everything goes on as it comes from here on.
    pub fn is_passing(&self) -> bool {
        self.state == State::Passing
    }

    /// Stops looking: everything goes on as it comes from here on.
    pub fn pass(&mut self, out: &mut Vec<u8>) {
        self.put_space_back(out);
        self.state = State::Passing;
    }

    /// Appends what is kept of `chunk` to `out`. From the first invalid byte on all is kept; its reason is returned
    /// once.
    pub fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) -> Option<Invalid> {
        if self.is_passing() {
            out.extend_from_slice(chunk);
            return None;
        }
        let mut rest = chunk;
        let mut stretch = (chunk.len() >= FEW).then(Stretch::new);
        while !rest.is_empty() {
            let doubted = match (&mut stretch, self.place()) {
                (Some(stretch), Some(place)) if rest.len() >= BLOCK => {
                    if let Some(bytes) = self.take(stretch, rest, place, out) {
                        rest = rest.get(bytes..).unwrap_or_default();
                        continue;
                    }
                    true
                }
                _ => false,
            };
            // What is doubted is gone over as a whole; else a block may begin before long.
            let (now, later) = match doubted {
                true => rest.split_at_checked(STRETCH).unwrap_or((rest, &[])),
                false => (rest, &[][..]),
            };
            let mut run = Run {
                chunk: now,
                start: 0,
                at: 0,
            };
            let settle = !doubted && stretch.is_some();
            let found = self.scan(&mut run, out, settle);
            run.copy(out);
            if let Err(invalid) = found {
                self.pass(out);
                out.extend_from_slice(run.rest());
                out.extend_from_slice(later);
                return Some(invalid);
            }
            rest = rest.get(run.at..).unwrap_or_default();
        }
        None
    }

    /// Takes a stretch of valid JSON from the start of `rest`; says how long it is.
    fn take(
        &mut self,
        stretch: &mut Stretch,
        rest: &[u8],
        place: Place,
        out: &mut Vec<u8>,
    ) -> Option<usize> {
        self.before.clone_from(&self.nesting);
        let rules = Rules {
            max_depth: self.max_depth,
            lines: self.framing == Framing::Lines,
        };
        let Some(taken) = stretch.take(rest, place, &mut self.nesting, &rules) else {
            std::mem::swap(&mut self.before, &mut self.nesting);
            return None;
        };
        out.extend_from_slice(stretch.kept());
        let skipped = rest.get(..taken.bytes).unwrap_or_default();
        let blank = match skipped.iter().rposition(|&byte| !is_space(byte)) {
            Some(last) => {
                self.space = None;
                skipped.get(last + 1..).unwrap_or_default()
            }
            None => skipped,
        };
        self.state = self.state_at(taken.place);
        if !matches!(self.state, State::String { .. } | State::Escape { .. }) {
            self.note_space(blank);
        }
        Some(taken.bytes)
    }

    /// Where this is for a stretch; `None` where one cannot begin.
    fn place(&self) -> Option<Place> {
        let (name, strings) = match self.state {
            State::String { name } => (
                name,
                StringCarry {
                    inside: u64::MAX,
                    escaped: 0,
                },
            ),
            State::Escape { name } => (
                name,
                StringCarry {
                    inside: u64::MAX,
                    escaped: 1,
                },
            ),
            _ => (false, StringCarry::default()),
        };
        let (value, colon, opened) = match self.state {
            State::String { .. } | State::Escape { .. } => (false, name, false),
            State::ArrayFirst => (true, false, true),
            State::ArrayNext | State::MemberValue => (true, false, false),
            State::ObjectFirst => (true, true, true),
            State::ObjectNext => (true, true, false),
            State::Colon => (false, true, false),
            State::AfterValue => (false, false, false),
            _ => return None,
        };
        // A text may be a string, but a stretch is inside an array or object.
        self.nesting.innermost()?;
        Some(Place {
            strings,
            value: value.into(),
            colon: colon.into(),
            opened: opened.into(),
        })
    }

    /// The state at the end of a stretch.
    fn state_at(&self, place: Place) -> State {
        let Some(innermost) = self.nesting.innermost() else {
            return State::Done;
        };
        let name = place.colon == 1;
        match (place.value, place.opened) {
            _ if place.strings.escaped == 1 => State::Escape { name },
            _ if place.strings.inside != 0 => State::String { name },
            (0, _) if name => State::Colon,
            (0, _) => State::AfterValue,
            (_, 0) if name => State::ObjectNext,
            (_, 0) if innermost == Container::Array => State::ArrayNext,
            (_, 0) => State::MemberValue,
            (_, _) if name => State::ObjectFirst,
            (_, _) => State::ArrayFirst,
        }
    }

    /// Says that the body ended; what was held back for it is appended.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Option<Invalid> {
        let lines = self.framing != Framing::Single;
        match self.state {
            State::Passing => None,
            State::Number(number) if number.may_end() && self.nesting.innermost().is_none() => None,
            State::Done => {
                // RFC 7464 §2.4: without white space after it a number would count as truncated.
                if self.framing == Framing::Sequence {
                    out.extend(self.space.take());
                }
                None
            }
            State::Start | State::Separator if lines => None,
            _ => {
                self.put_space_back(out);
                Some(Invalid::Truncated)
            }
        }
    }

    /// One byte of the whitespace before an invalid byte is put back where its absence would join two tokens (`1 2`,
    /// or two lines of a body that says it is one text), or cut the first character of UTF-16 in two.
    fn put_space_back(&mut self, out: &mut Vec<u8>) {
        use State::{AfterValue, Colon, Done, Separator, Start};
        let space = self.space.take();
        if matches!(self.state, Start | Separator | AfterValue | Colon | Done) {
            out.extend(space);
        }
    }

    /// Goes over the run byte by byte; with `settle` only to where a stretch can begin.
    fn scan(&mut self, run: &mut Run<'_>, out: &mut Vec<u8>, settle: bool) -> Result<(), Invalid> {
        while let Some(byte) = run.peek() {
            if settle && run.rest().len() >= BLOCK && self.place().is_some() {
                return Ok(());
            }
            match self.state {
                State::String { name } => {
                    run.at += string_run(run.rest());
                    match run.peek() {
                        None => return Ok(()),
                        Some(b'"') if name => self.state = State::Colon,
                        Some(b'"') => self.state = self.after_value(),
                        Some(b'\\') => self.state = State::Escape { name },
                        // RFC 8259 §7: "characters that MUST be escaped: ... the control characters (U+0000 through U+001F)"
                        Some(_) => return Err(Invalid::ControlCharacter),
                    }
                    run.at += 1;
                }
                State::Escape { name } => {
                    if byte < b' ' {
                        return Err(Invalid::ControlCharacter);
                    }
                    // Which escapes exist is not asked: they are kept byte for byte.
                    self.state = State::String { name };
                    run.at += 1;
                }
                State::Literal(to_come) => {
                    let (same, rest) = scalar::literal(to_come, run.rest());
                    run.at += same;
                    self.state = match rest? {
                        [] => self.after_value(),
                        rest => State::Literal(rest),
                    };
                }
                State::Number(number) => match number.next(byte) {
                    Some(next) => {
                        self.state = State::Number(next);
                        run.at += 1;
                        if next.is_digits() {
                            run.at += run.rest().iter().take_while(|b| b.is_ascii_digit()).count();
                        }
                    }
                    None if number.may_end() && ends_number(byte) => {
                        self.state = self.after_value()
                    }
                    None => return Err(Invalid::BadNumber),
                },
                _ if is_space(byte) => self.skip_space(byte, run, out)?,
                _ => {
                    let ended = self.state == State::Done;
                    self.token(byte)?;
                    if ended {
                        // A separator. What ends the text before it is not insignificant (RFC 7464 §2.4).
                        run.copy(out);
                        out.extend(self.space);
                    }
                    self.space = None;
                    run.at += 1;
                }
            }
        }
        Ok(())
    }

    /// Leaves out a run of whitespace; keeps what separates texts.
    fn skip_space(
        &mut self,
        first: u8,
        run: &mut Run<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Invalid> {
        if self.framing != Framing::Single && first == LF {
            return self.line_feed(run, out);
        }
        run.copy(out);
        let stops_at_lf = self.framing != Framing::Single;
        let rest = run.rest();
        let length = rest
            .iter()
            .position(|&byte| !is_space(byte) || (stops_at_lf && byte == LF))
            .unwrap_or(rest.len());
        self.note_space(rest.get(..length).unwrap_or_default());
        run.at += length;
        run.start = run.at;
        Ok(())
    }

    /// Remembers of whitespace that is left out what may have to be put back.
    fn note_space(&mut self, skipped: &[u8]) {
        // Where lines are, the first byte is mostly the line feed.
        if self.space != Some(LF) {
            if skipped.contains(&LF) {
                self.space = Some(LF);
            } else if self.space.is_none() {
                self.space = skipped.first().copied();
            }
        }
    }

    /// A line feed where whitespace may be, in a format that gives it a meaning.
    fn line_feed(&mut self, run: &mut Run<'_>, out: &mut Vec<u8>) -> Result<(), Invalid> {
        let keep = match (self.framing, self.state) {
            (Framing::Lines, State::Start | State::Done) => {
                self.state = State::Start;
                true
            }
            (Framing::Lines, _) => return Err(Invalid::LineFeed),
            // RFC 7464 §2.2: each text is followed by a line feed. It is kept at once, not when the next text comes.
            (_, State::Done) => {
                self.state = State::Separator;
                true
            }
            _ => false,
        };
        if keep {
            self.space = None;
        } else {
            self.space = Some(LF);
            run.copy(out);
            run.start = run.at + 1;
        }
        run.at += 1;
        Ok(())
    }

    /// Takes a byte that is outside strings, numbers, literals and whitespace.
    #[inline]
    fn token(&mut self, byte: u8) -> Result<(), Invalid> {
        let innermost = self.nesting.innermost();
        self.state = match self.state {
            State::AfterValue => match (byte, innermost) {
                (b',', Some(Container::Object)) => State::ObjectNext,
                (b',', _) => State::ArrayNext,
                (b']', Some(Container::Array)) | (b'}', Some(Container::Object)) => self.close(),
                _ => return Err(misplaced(byte)),
            },
            State::Colon if byte == b':' => State::MemberValue,
            State::ObjectFirst | State::ObjectNext if byte == b'"' => State::String { name: true },
            State::ObjectFirst if byte == b'}' => self.close(),
            State::ArrayFirst if byte == b']' => self.close(),
            State::MemberValue | State::ArrayFirst | State::ArrayNext => self.value(byte)?,
            State::Start | State::Separator if matches!(byte, 0xef | 0xfe | 0xff) => {
                // The mark of UTF-8, UTF-16 or UTF-32.
                return Err(Invalid::Encoding);
            }
            // RFC 7464 §2.1: several separators in a row are one.
            State::Start | State::Separator | State::Done
                if byte == RS && self.framing == Framing::Sequence =>
            {
                State::Start
            }
            State::Start => self.value(byte)?,
            State::Done if byte != 0 => return Err(Invalid::Trailing),
            _ => return Err(misplaced(byte)),
        };
        Ok(())
    }

    /// Takes the first byte of a value.
    fn value(&mut self, byte: u8) -> Result<State, Invalid> {
        Ok(match Begin::of(byte)? {
            Begin::String => State::String { name: false },
            Begin::Open(container) => self.open(container)?,
            Begin::Number(number) => State::Number(number),
            Begin::Literal(to_come) => State::Literal(to_come),
        })
    }

    fn open(&mut self, container: Container) -> Result<State, Invalid> {
        if !self.nesting.push(container, self.max_depth) {
            return Err(Invalid::Depth);
        }
        Ok(match container {
            Container::Array => State::ArrayFirst,
            Container::Object => State::ObjectFirst,
        })
    }

    fn close(&mut self) -> State {
        self.nesting.pop();
        self.after_value()
    }

    fn after_value(&self) -> State {
        match self.nesting.innermost() {
            Some(_) => State::AfterValue,
            None => State::Done,
        }
    }
}

impl Invalid {
    /// The counter of this reason; the name of the reason is what follows the second dot.
    pub fn counter(self) -> &'static str {
        match self {
            Self::UnexpectedByte => "minify.invalid.unexpected_byte",
            Self::Encoding => "minify.invalid.encoding",
            Self::ControlCharacter => "minify.invalid.control_character",
            Self::BadLiteral => "minify.invalid.bad_literal",
            Self::BadNumber => "minify.invalid.bad_number",
            Self::Trailing => "minify.invalid.trailing",
            Self::LineFeed => "minify.invalid.line_feed",
            Self::Depth => "minify.invalid.depth",
            Self::Truncated => "minify.invalid.truncated",
        }
    }
}

/// A chunk being read, and the run of kept bytes in it that is still to be copied.
struct Run<'c> {
    chunk: &'c [u8],
    start: usize,
    at: usize,
}

impl Run<'_> {
    fn peek(&self) -> Option<u8> {
        self.chunk.get(self.at).copied()
    }
    fn rest(&self) -> &[u8] {
        self.chunk.get(self.at..).unwrap_or_default()
    }
    /// Copies what is kept up to here.
    fn copy(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.chunk.get(self.start..self.at).unwrap_or_default());
        self.start = self.at;
    }
}

/// A byte where another was due.
pub(crate) fn misplaced(byte: u8) -> Invalid {
    match byte {
        // UTF-16 or UTF-32: nothing else has this byte between tokens.
        0 => Invalid::Encoding,
        _ => Invalid::UnexpectedByte,
    }
}

/// RFC 8259 §2: ws = *( %x20 / %x09 / %x0A / %x0D )
pub(crate) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

pub(crate) fn ends_number(byte: u8) -> bool {
    is_space(byte) || matches!(byte, b',' | b']' | b'}' | RS)
}

/// How many bytes from the start are plain string content: no quote, no backslash, no control character.
pub(crate) fn string_run(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let mut seen = 0;
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        let word = u64::from_le_bytes(word.try_into().unwrap_or_default());
        let zero_in = |x: u64| x.wrapping_sub(ONES) & !x;
        // The lowest flagged byte is always a true one; only bytes above it may be flagged by a borrow.
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let quote = zero_in(word ^ (ONES * u64::from(b'"')));
        let backslash = zero_in(word ^ (ONES * u64::from(b'\\')));
        let stops = (control | quote | backslash) & HIGHS;
        if stops != 0 {
            return seen + (stops.trailing_zeros() / 8) as usize;
        }
        seen += 8;
    }
    let rest = words.remainder();
    seen + rest
        .iter()
        .position(|&byte| byte < b' ' || byte == b'"' || byte == b'\\')
        .unwrap_or(rest.len())
}
