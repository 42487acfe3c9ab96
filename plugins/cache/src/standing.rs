//! Invalidation of more than one key, in constant time: by marks that all workers share and each stored response is
//! judged by when it is used, not by a search for what is meant.
//!
//! A mark says until when what was asked for is unusable (hard) or stale (soft). There is one for a group, one for a URI that
//! is to be stale, one for everything; a ban is a mark with a pattern. One cell says that there was such an invalidation
//! at all, so that usually nothing else has to be read. All changes are pure, safe to repeat and commute; where the edge's
//! table is full, marks share a value and judge more strictly.

use edgeweir_filter::Timestamp;

/// Bans at most; one more makes everything unusable that was asked for before it, and the bans begin anew.
pub const BANS: u32 = 64;
/// Bytes of a ban's pattern at most.
pub const PATTERN: usize = 200;

const VERSION: u8 = 1;
const PART: usize = 57;

/// What a stored response is worth after all invalidations.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Standing {
    /// As much as its freshness says.
    Valid,
    /// It is stale, whatever its freshness says.
    Stale,
    /// It must not be used.
    Gone,
}

/// Until when what was asked for is unusable or stale.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mark {
    hard: Timestamp,
    soft: Timestamp,
    /// Seconds over which what is soft becomes stale, each key at a moment of its own.
    spread: u16,
}

impl Mark {
    /// Everything asked for until now is unusable.
    pub fn hard(now: Timestamp) -> Self {
        Self {
            hard: now,
            ..Self::default()
        }
    }

    /// Everything asked for until now is stale, within `spread` seconds.
    pub fn soft(now: Timestamp, spread: u16) -> Self {
        Self {
            soft: now,
            spread,
            ..Self::default()
        }
    }

    /// The same, but about nothing that is asked for after `now`: a clock elsewhere may be ahead.
    pub fn not_after(self, now: Timestamp) -> Self {
        Self {
            hard: self.hard.min(now),
            soft: self.soft.min(now),
            ..self
        }
    }

    /// Both marks in one: never less strict than either.
    fn and(self, other: Self) -> Self {
        let none = Timestamp::default();
        let spread = match (self.soft, other.soft) {
            (mine, theirs) if mine == theirs => self.spread.min(other.spread),
            (mine, theirs) if theirs == none && mine != none => self.spread,
            (mine, theirs) if mine == none && theirs != none => other.spread,
            // What had its turn under the one must not wait for another under the other.
            _ => 0,
        };
        Self {
            hard: self.hard.max(other.hard),
            soft: self.soft.max(other.soft),
            spread,
        }
    }

    /// The cell with this mark in it, on top of what was there.
    pub fn over(self, before: Option<&[u8]>) -> Vec<u8> {
        let before = before.and_then(Self::decode).unwrap_or_default();
        let mut out = vec![VERSION];
        self.and(before).write(&mut out);
        out
    }

    /// The mark in a cell.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&version, mut rest) = bytes.split_first()?;
        let mark = Self::read(&mut rest)?;
        (version == VERSION && rest.is_empty()).then_some(mark)
    }

    /// What a response is worth that was asked for then; `key` is a hash of its key.
    pub fn judge(self, requested: Timestamp, key: u64, now: Timestamp) -> Standing {
        if requested <= self.hard {
            return Standing::Gone;
        }
        if requested > self.soft {
            return Standing::Valid;
        }
        let after = key % (u64::from(self.spread) + 1);
        match now >= self.soft.plus(std::time::Duration::from_secs(after)) {
            true => Standing::Stale,
            false => Standing::Valid,
        }
    }

    /// Whether a response that was asked for then is, or will be, worth less by this mark.
    pub fn concerns(self, requested: Timestamp) -> bool {
        requested <= self.hard.max(self.soft)
    }

    fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.hard.0.to_be_bytes());
        out.extend_from_slice(&self.soft.0.to_be_bytes());
        out.extend_from_slice(&self.spread.to_be_bytes());
    }

    fn read(from: &mut &[u8]) -> Option<Self> {
        Some(Self {
            hard: Timestamp(u64::from_be_bytes(take(from)?)),
            soft: Timestamp(u64::from_be_bytes(take(from)?)),
            spread: u16::from_be_bytes(take(from)?),
        })
    }
}

/// What happens to more than one key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wide {
    /// Marks of groups or URIs were set.
    Marks,
    /// Everything.
    All(Mark),
    /// A place for a ban is wanted; without one, everything until then is unusable.
    Reserve(Timestamp),
    /// The ban in this place is written.
    Commit(u32),
}

/// Which invalidations of more than one key there were: one cell for all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Overview {
    /// Another one after each of them.
    pub number: u64,
    /// The mark of everything.
    pub all: Mark,
    reserved: u64,
    live: u64,
}

impl Overview {
    /// The overview in a cell; none, or one that can't be read, counts as the beginning.
    pub fn of(bytes: Option<&[u8]>) -> Self {
        bytes.and_then(Self::decode).unwrap_or_default()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (&version, mut rest) = bytes.split_first()?;
        let from = &mut rest;
        let overview = Self {
            number: u64::from_be_bytes(take(from)?),
            all: Mark::read(from)?,
            reserved: u64::from_be_bytes(take(from)?),
            live: u64::from_be_bytes(take(from)?),
        };
        (version == VERSION && from.is_empty()).then_some(overview)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.number.to_be_bytes());
        self.all.write(&mut out);
        out.extend_from_slice(&self.reserved.to_be_bytes());
        out.extend_from_slice(&self.live.to_be_bytes());
        out
    }

    /// The places of bans that are written.
    pub fn bans(&self) -> impl Iterator<Item = u32> + use<> {
        let live = self.live;
        (0..BANS).filter(move |slot| live & (1 << slot) != 0)
    }

    /// The place that [`Wide::Reserve`] gives; `None` when all were taken.
    pub fn free(&self) -> Option<u32> {
        let slot = (!self.reserved).trailing_zeros();
        (slot < BANS).then_some(slot)
    }

    fn after(self, wide: Wide, fresh: u64) -> Self {
        let mut next = Self {
            number: fresh,
            ..self
        };
        match wide {
            Wide::Marks => {}
            Wide::All(mark) => next.all = next.all.and(mark),
            Wide::Reserve(now) => match self.free() {
                Some(slot) => {
                    next.reserved |= 1 << slot;
                    next.number = self.number;
                }
                None => {
                    next.all = next.all.and(Mark::hard(now));
                    (next.reserved, next.live) = (0, 0);
                }
            },
            // Meanwhile the bans may have begun anew: then everything is unusable that this one was about.
            Wide::Commit(slot) => next.live |= (1 << slot) & self.reserved,
        }
        next
    }
}

/// The overview's cell after an invalidation; `fresh` is a number nobody had.
pub fn change(before: Option<&[u8]>, wide: Wide, fresh: u64) -> Vec<u8> {
    Overview::of(before).after(wide, fresh).encode()
}

/// A mark for what matches a pattern.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ban {
    mark: Mark,
    /// Host and path, `*` for any bytes, `?` for any one.
    pattern: Vec<u8>,
}

impl Ban {
    /// A ban; `None` when the pattern is too long or empty.
    pub fn new(mark: Mark, pattern: &[u8]) -> Option<Self> {
        let fits = !pattern.is_empty() && pattern.len() <= PATTERN;
        fits.then(|| Self {
            mark,
            pattern: pattern.to_vec(),
        })
    }

    /// What can't be read any more bans everything until now.
    pub fn unreadable(now: Timestamp) -> Self {
        Self {
            mark: Mark::hard(now),
            pattern: vec![b'*'],
        }
    }

    /// Its parts, one for each cell; `id` tells them from those of another ban.
    pub fn parts(&self, id: u32) -> Vec<Vec<u8>> {
        let mut bytes = Vec::new();
        self.mark.write(&mut bytes);
        bytes.extend_from_slice(&self.pattern);
        let parts = bytes.chunks(PART);
        let count = u8::try_from(parts.len()).unwrap_or(u8::MAX);
        let cell = |(at, part): (usize, &[u8])| {
            let mut out = vec![count];
            out.extend_from_slice(&id.to_be_bytes());
            out.extend_from_slice(&sum(at, id, part).to_be_bytes());
            out.extend_from_slice(part);
            out
        };
        parts.enumerate().map(cell).collect()
    }

    /// How many parts the ban has whose first is this cell.
    pub fn count(first: &[u8]) -> Option<u8> {
        first.first().copied().filter(|count| *count > 0)
    }

    /// The ban of these cells, in order; `None` when one of them is not of it.
    pub fn decode(cells: &[Vec<u8>]) -> Option<Self> {
        let mut bytes = Vec::new();
        let mut known = None;
        for (at, cell) in cells.iter().enumerate() {
            let mut rest = &cell[..];
            let [count] = take::<1>(&mut rest)?;
            let id = u32::from_be_bytes(take(&mut rest)?);
            let check = u16::from_be_bytes(take(&mut rest)?);
            if *known.get_or_insert(id) != id
                || usize::from(count) != cells.len()
                || check != sum(at, id, rest)
            {
                return None;
            }
            bytes.extend_from_slice(rest);
        }
        let mut rest = &bytes[..];
        let mark = Mark::read(&mut rest)?;
        Self::new(mark, rest)
    }

    /// Its mark, for what it is about; `uri` is host and path.
    pub fn on(&self, uri: &[u8]) -> Option<Mark> {
        matches(&self.pattern, uri).then_some(self.mark)
    }
}

/// Whether a text matches a pattern: `*` for any bytes, `?` for any one. Takes at most the product of both lengths.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut seen) = (0, 0);
    // After the last star: where the pattern goes on, and where in the text that was tried last.
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = text.get(seen) {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at + 1, seen));
                at += 1;
            }
            Some(wanted) if wanted == byte || *wanted == b'?' => {
                at += 1;
                seen += 1;
            }
            _ => {
                let Some((after, from)) = star else {
                    return false;
                };
                star = Some((after, from + 1));
                at = after;
                seen = from + 1;
            }
        }
    }
    pattern.iter().skip(at).all(|byte| *byte == b'*')
}

fn sum(at: usize, id: u32, part: &[u8]) -> u16 {
    let seed = u64::from(id) ^ (at as u64) << 32 ^ 0xcbf2_9ce4_8422_2325;
    let hash = part.iter().fold(seed, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let [.., a, b] = (hash ^ hash >> 32 ^ hash >> 16).to_be_bytes();
    u16::from_be_bytes([a, b])
}

fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = from.split_first_chunk::<N>()?;
    *from = rest;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_secs(seconds)
    }

    #[test]
    fn marks_judge_by_the_time_of_asking() {
        let both = Mark::hard(at(5)).and(Mark::soft(at(9), 0));
        for (name, mark, requested, now, want) in [
            ("before a hard one", Mark::hard(at(5)), 4, 9, Standing::Gone),
            ("at the same time", Mark::hard(at(5)), 5, 9, Standing::Gone),
            ("after it", Mark::hard(at(5)), 6, 9, Standing::Valid),
            (
                "before a soft one",
                Mark::soft(at(5), 0),
                4,
                9,
                Standing::Stale,
            ),
            (
                "after a soft one",
                Mark::soft(at(5), 0),
                6,
                9,
                Standing::Valid,
            ),
            ("between both", both, 7, 9, Standing::Stale),
            ("before both", both, 5, 9, Standing::Gone),
            (
                "its turn is yet to come",
                Mark::soft(at(5), 9),
                4,
                12,
                Standing::Valid,
            ),
            (
                "its turn has come",
                Mark::soft(at(5), 9),
                4,
                13,
                Standing::Stale,
            ),
        ] {
            // Key 8: the ninth of ten seconds.
            assert_eq!(mark.judge(at(requested), 8, at(now)), want, "{name}");
        }
    }

    #[test]
    fn patterns_match() {
        for (pattern, text, want) in [
            ("a.example/x*", "a.example/x/y", true),
            ("a.example/x*", "a.example/x", true),
            ("a.example/x", "a.example/x/y", false),
            ("*/img/*.png", "a.example/img/a/b.png", true),
            ("*/img/*.png", "a.example/img/a.jpg", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a*b*c", "aXbYbZc", true),
            ("*aaaaaaaaaaaaaaaaaaaab", &"a".repeat(2000), false),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes()),
                want,
                "{pattern}"
            );
        }
    }

    #[test]
    fn bans_take_places_until_there_are_none() {
        let mut cell: Option<Vec<u8>> = None;
        for n in 0..BANS {
            let slot = Overview::of(cell.as_deref()).free();
            assert_eq!(slot, Some(n));
            cell = Some(change(cell.as_deref(), Wide::Reserve(at(1)), 7));
            assert_eq!(Overview::of(cell.as_deref()).bans().count() as u32, n);
            cell = Some(change(cell.as_deref(), Wide::Commit(n), u64::from(n)));
        }
        assert_eq!(Overview::of(cell.as_deref()).free(), None);
        cell = Some(change(cell.as_deref(), Wide::Reserve(at(9)), 8));
        let anew = Overview::of(cell.as_deref());
        assert_eq!((anew.bans().count(), anew.number), (0, 8));
        assert_eq!(anew.all.judge(at(9), 0, at(10)), Standing::Gone);
        let late = Overview::of(Some(&change(cell.as_deref(), Wide::Commit(3), 9)));
        assert_eq!(late.bans().count(), 0, "of the bans before");
    }

    #[test]
    fn a_ban_is_read_back_or_not_at_all() {
        let ban = Ban::new(Mark::hard(at(5)), &[b'x'; PATTERN]).expect("fits");
        let cells = ban.parts(7);
        assert!(cells.iter().all(|cell| cell.len() <= 64));
        assert_eq!(Ban::decode(&cells), Some(ban.clone()));
        let other = ban.parts(8);
        for at in 0..cells.len() {
            let mut mixed = cells.clone();
            mixed[at] = other[at].clone();
            assert_eq!(Ban::decode(&mixed), None, "part {at} of another one");
            mixed = cells.clone();
            mixed[at][9] ^= 1;
            assert_eq!(Ban::decode(&mixed), None, "part {at} damaged");
        }
        assert_eq!(Ban::decode(&cells[1..]), None);
        assert_eq!(Ban::new(Mark::default(), &[b'x'; PATTERN + 1]), None);
    }

    proptest! {
        #[test]
        fn marks_commute_and_only_get_stricter(a: (u64, u64, u16), b: (u64, u64, u16), requested: u64, key: u64, now: u64) {
            let mark = |(hard, soft, spread): (u64, u64, u16)| Mark { hard: Timestamp(hard), soft: Timestamp(soft), spread };
            let (a, b) = (mark(a), mark(b));
            prop_assert_eq!(a.and(b), b.and(a));
            prop_assert_eq!(a.and(a), a);
            // An invalidation is never set in the future.
            let now = now.max(a.soft.0).max(b.soft.0);
            let judge = |mark: Mark| mark.judge(Timestamp(requested), key, Timestamp(now));
            prop_assert!(judge(a.and(b)) >= judge(a).max(judge(b)));
            let bytes = a.over(None);
            prop_assert_eq!(Mark::decode(&bytes), Some(a));
        }

        #[test]
        fn decoding_never_panics(cells: Vec<Vec<u8>>) {
            let _ = Ban::decode(&cells);
            for cell in cells {
                let _ = (Mark::decode(&cell), Overview::of(Some(&cell)));
            }
        }

        #[test]
        fn a_pattern_with_stars_is_what_a_search_says(pattern in "[ab*?]{0,8}", text in "[ab]{0,10}") {
            fn slow(pattern: &[u8], text: &[u8]) -> bool {
                match (pattern.split_first(), text.split_first()) {
                    (None, rest) => rest.is_none(),
                    (Some((b'*', after)), Some((_, rest))) => slow(after, text) || slow(pattern, rest),
                    (Some((b'*', after)), None) => slow(after, text),
                    (Some((p, after)), Some((t, rest))) => (*p == b'?' || p == t) && slow(after, rest),
                    (Some(_), None) => false,
                }
            }
            prop_assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), slow(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
