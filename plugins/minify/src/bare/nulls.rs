//! `null`s where nothing is checked: the name of one is read backwards from it.
//!
//! Within a string every double quote is escaped, so before an end of a string the first one that is not is its beginning.

use crate::rewriter::LONGEST_NAME;
use crate::rules::DropNulls;
use crate::scalar::literal;

const NULL: &[u8] = b"null";

/// What of a text `null`s have to do with.
#[derive(Clone, Debug)]
pub(super) struct Nulls {
    which: DropNulls,
    /// The end of what was kept before: what goes with a `null` that comes, if one does.
    held: Vec<u8>,
    /// What of the last one is still to come.
    pub(super) to_come: &'static [u8],
    /// The first value of an array or object went: so does the comma behind it.
    pub(super) comma: bool,
    /// What went with the last one, up to it.
    gone: Vec<u8>,
    pub(super) dropped: u64,
}

impl Nulls {
    pub(super) fn new(which: DropNulls) -> Self {
        Self {
            which,
            held: Vec::new(),
            to_come: &[],
            comma: false,
            gone: Vec::new(),
            dropped: 0,
        }
    }

    /// Whether there are any to be dropped.
    #[inline(always)]
    pub(super) fn go(&self) -> bool {
        self.which != DropNulls::Never
    }

    /// None goes from here on.
    pub(super) fn stop(&mut self) {
        self.which = DropNulls::Never;
    }

    /// Drops one that comes behind `kept`, where `rest` is one as far as it goes, with its name and the comma before it; says how many
    /// of its letters go. What is before `floor` has nothing to do with it.
    pub(super) fn drop(&mut self, rest: &[u8], kept: &mut Vec<u8>, floor: &mut usize) -> u32 {
        let (letters, Ok(to_come)) = literal(NULL, rest) else {
            return 0;
        };
        let text = kept.get(*floor..).unwrap_or_default();
        let start = match text.last() {
            Some(b':') => name(text.get(..text.len() - 1).unwrap_or_default()),
            Some(b',' | b'[') if self.which == DropNulls::All => Some(text.len()),
            _ => None,
        };
        let Some(start) = start else {
            return 0;
        };
        // What comes before it is always there.
        let before = start.checked_sub(1);
        let from = match before.and_then(|before| Some((before, text.get(before)?))) {
            Some((before, b',')) => before,
            Some((_, b'{' | b'[')) => start,
            _ => return 0,
        };
        self.comma = from == start;
        self.gone.clear();
        self.gone
            .extend_from_slice(text.get(from..).unwrap_or_default());
        kept.truncate(*floor + from);
        // A comma comes before the next one, if it is not again the first.
        *floor = kept.len() - usize::from(self.comma);
        self.dropped += 1;
        self.to_come = to_come;
        letters as u32
    }

    /// Puts what was held at the end of what is kept.
    pub(super) fn release(&mut self, kept: &mut Vec<u8>) {
        kept.append(&mut self.held);
    }

    /// Goes on with the letters that are still to come; says how many go. Where it was no `null` it is put back.
    pub(super) fn go_on(&mut self, bytes: &[u8], kept: &mut Vec<u8>) -> u32 {
        match literal(self.to_come, bytes) {
            (letters, Ok(to_come)) => {
                self.to_come = to_come;
                letters as u32
            }
            (_, Err(_)) => {
                self.put_back(kept);
                0
            }
        }
    }

    /// Puts back what went last: it was no `null`, or the comma behind it does not go.
    fn put_back(&mut self, kept: &mut Vec<u8>) {
        kept.append(&mut self.gone);
        kept.extend_from_slice(NULL.strip_suffix(self.to_come).unwrap_or(NULL));
        self.dropped = self.dropped.saturating_sub(1);
        (self.comma, self.to_come) = (false, &[]);
    }

    /// The rest comes as it is: puts back what was held, and what letters or a comma that come are of.
    pub(super) fn end(&mut self, kept: &mut Vec<u8>) {
        self.release(kept);
        if self.comma || !self.to_come.is_empty() {
            self.put_back(kept);
        }
    }

    /// Takes from the end of what is kept what may have to go yet.
    pub(super) fn hold(&mut self, kept: &mut Vec<u8>, floor: usize, is_inside: bool) {
        let text = kept.get(floor..).unwrap_or_default();
        let start = match text.split_last() {
            // A string that is not at its end may be a name.
            _ if is_inside => begin(text),
            Some((b':', named)) => name(named),
            Some((b'"', _)) => name(text),
            Some((b',' | b'[' | b'{', _)) => Some(text.len()),
            _ => None,
        };
        let is_value = |before: &usize| matches!(text.get(*before), Some(b',' | b'[' | b'{'));
        let before = start.and_then(|start| start.checked_sub(1));
        if let Some(before) = before.filter(is_value) {
            self.held = kept.split_off(floor + before);
        }
    }
}

/// Where the string begins that ends here.
fn name(text: &[u8]) -> Option<usize> {
    match text.split_last() {
        Some((b'"', within)) => begin(within),
        _ => None,
    }
}

/// Where the string begins whose content goes up to here.
fn begin(within: &[u8]) -> Option<usize> {
    let least = within.len().saturating_sub(LONGEST_NAME + 1);
    let mut end = within.len();
    loop {
        let quote = within.get(least..end)?.iter().rposition(|&b| b == b'"')? + least;
        let before = within.get(..quote)?.iter().rev();
        if before.take_while(|&&byte| byte == b'\\').count() % 2 == 0 {
            return Some(quote);
        }
        end = quote;
    }
}
