//! What of a body is in the dictionary or in the body before.

use std::rc::Rc;

use super::super::Dictionary;

/// Literals and a copy after them (RFC 7932 §2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Insert {
    pub(super) literals: usize,
    /// Bytes copied: none at the end of a block.
    pub(super) copied: usize,
    /// RFC 7932 §4: 0 to 3 for one of the last four distances, or the distance and 15.
    pub(super) code: usize,
}

/// The last four distances, the last one first.
pub(super) type Recent = [usize; 4];

/// A copy that could be made.
#[derive(Clone, Copy)]
struct Found {
    length: usize,
    /// Where it begins, in the dictionary or in what is kept of the body.
    from: usize,
    of_dictionary: bool,
    /// About how many bits it saves.
    gain: usize,
}

/// The body as far as copies can reach, and where in it and in the dictionary strings begin.
pub(super) struct Copies {
    dictionary: Rc<Dictionary>,
    in_dictionary: Places,
    in_body: Places,
    /// The end of the body so far: at least what `window` bytes reach, at most two windows.
    body: Vec<u8>,
    /// Bytes of the body that are no longer kept.
    gone: u64,
    /// Where what is not coded yet begins.
    next: usize,
    window: usize,
    recent: Recent,
    commands: Vec<Insert>,
}

/// Bytes of tables.
pub(super) fn tables(level: u8, window_bits: u8, held: usize) -> usize {
    let places = |bits: u8| (1 << bits) * ways(level) * size_of::<u32>();
    places(of_dictionary(level, held)) + places(of_body(level, window_bits))
}

/// How many strings of a hash are looked at.
fn ways(level: u8) -> usize {
    match level {
        0..=4 => 2,
        5..=8 => 4,
        _ => 8,
    }
}

/// Bits of the hash of strings in a dictionary: there is room for each, up to 2^19.
fn of_dictionary(level: u8, held: usize) -> u8 {
    bits(held.clamp(64, 1 << 19)) - bits(ways(level))
}

/// Bits of the hash of strings in the body: there is room for each, up to 2^17.
fn of_body(level: u8, window_bits: u8) -> u8 {
    window_bits.min(17) - bits(ways(level))
}

/// The bits of the smallest power of two that is not less.
fn bits(number: usize) -> u8 {
    u8::try_from(number.next_power_of_two().trailing_zeros()).unwrap_or(u8::MAX)
}

impl Copies {
    pub(super) fn new(level: u8, window_bits: u8, dictionary: Rc<Dictionary>) -> Self {
        let bytes = dictionary.bytes();
        let mut in_dictionary = Places::new(of_dictionary(level, bytes.len()), ways(level), 6);
        for at in (0..bytes.len()).step_by(1 + (bytes.len() >> 19)) {
            in_dictionary.put(eight(bytes, at), at as u32);
        }
        Self {
            dictionary,
            in_dictionary,
            in_body: Places::new(of_body(level, window_bits), ways(level), 5),
            body: Vec::new(),
            gone: 0,
            next: 0,
            window: 1 << window_bits,
            // RFC 7932 §4: "initialized by the values 16, 15, 11, and 4", the last distance being 4.
            recent: [4, 11, 15, 16],
            commands: Vec::new(),
        }
    }

    /// Bytes that were taken and not searched yet.
    pub(super) fn waiting(&self) -> usize {
        self.body.len() - self.next
    }

    /// Takes a piece of the body, at most half a window with what waits.
    pub(super) fn take(&mut self, piece: &[u8]) {
        let needed = self.body.len() + piece.len();
        if needed > 2 * self.window {
            let out_of_reach = self.next.saturating_sub(self.window);
            self.body.drain(..out_of_reach);
            self.next -= out_of_reach;
            self.gone += u64::try_from(out_of_reach).unwrap_or(0);
        } else if needed > self.body.capacity() {
            let room = (2 * needed).min(2 * self.window);
            self.body.reserve_exact(room - self.body.len());
        }
        self.body.extend_from_slice(piece);
    }

    pub(super) fn recent(&self) -> Recent {
        self.recent
    }

    /// What was found last is not made use of.
    pub(super) fn forget(&mut self, recent: Recent) {
        self.recent = recent;
    }

    /// What waits, and how it comes about.
    pub(super) fn find(&mut self) -> (&[u8], &[Insert]) {
        let (start, end) = (self.next, self.body.len());
        self.commands.clear();
        // The last bytes before had too few after them to be noted.
        for at in start.saturating_sub(7)..start {
            self.note(at);
        }
        let (mut at, mut literals_from) = (start, start);
        while at < end {
            let mut found = self.best(at);
            self.note(at);
            let Some(mut copy) = found else {
                // Where nothing was found for long not every byte is looked at.
                at += 1 + (at - literals_from) / 256;
                continue;
            };
            // A byte later there may be more.
            while copy.length < 64 {
                found = self.best(at + 1);
                match found {
                    Some(later) if later.gain > copy.gain + LITERAL => copy = later,
                    _ => break,
                }
                at += 1;
                self.note(at);
            }
            while at > literals_from && self.extends(&copy, at) {
                (copy.from, copy.length, at) = (copy.from - 1, copy.length + 1, at - 1);
            }
            let distance = self.distance(&copy, at);
            let code = self.code(distance);
            self.commands.push(Insert {
                literals: at - literals_from,
                copied: copy.length,
                code,
            });
            let after = at + copy.length;
            for inside in (at + 1..after).step_by(1 + copy.length / 64) {
                self.note(inside);
            }
            (at, literals_from) = (after, after);
        }
        if literals_from < end {
            self.commands.push(Insert {
                literals: end - literals_from,
                copied: 0,
                code: 0,
            });
        }
        self.next = end;
        (self.body.get(start..).unwrap_or_default(), &self.commands)
    }

    /// How far back copies of the body may begin. RFC 7932 §9.1: a window is 16 bytes less.
    fn reach(&self, at: usize) -> usize {
        let before = usize::try_from(self.gone).unwrap_or(usize::MAX);
        before.saturating_add(at).min(self.window - 16)
    }

    /// RFC 9841: distances beyond the reach are in the dictionary, its last byte being the nearest.
    fn distance(&self, copy: &Found, at: usize) -> usize {
        match copy.of_dictionary {
            true => self.reach(at) + self.dictionary.bytes().len() - copy.from,
            false => at - copy.from,
        }
    }

    /// The copy that saves most, where one saves anything.
    fn best(&self, at: usize) -> Option<Found> {
        let wanted = self.body.get(at..)?;
        let (dictionary, reach) = (self.dictionary.bytes(), self.reach(at));
        let mut best: Option<Found> = None;
        let mut consider = |of_dictionary, from: usize, cost| {
            let source = if of_dictionary {
                dictionary
            } else {
                &self.body
            };
            let length = common(source.get(from..).unwrap_or_default(), wanted);
            let gain = (length * LITERAL).saturating_sub(cost);
            if length >= 3 && gain > best.map_or(0, |best| best.gain) {
                best = Some(Found {
                    length,
                    from,
                    of_dictionary,
                    gain,
                });
            }
        };
        let cost = |distance: usize| 8 + usize::from(bits(distance));
        for distance in self.recent {
            match distance.checked_sub(reach) {
                None | Some(0) => consider(false, at - distance, 5),
                Some(beyond) if beyond <= dictionary.len() => {
                    consider(true, dictionary.len() - beyond, 5);
                }
                Some(_) => {}
            }
        }
        let Some(string) = eight(&self.body, at) else {
            return best;
        };
        for place in self.in_body.of(string) {
            let distance = self.place(at).wrapping_sub(*place) as usize;
            if (1..=reach).contains(&distance) {
                consider(false, at - distance, cost(distance));
            }
        }
        for place in self.in_dictionary.of(string) {
            let from = *place as usize;
            consider(true, from, cost(reach + dictionary.len() - from));
        }
        best
    }

    /// Whether a copy could begin a byte earlier.
    fn extends(&self, copy: &Found, at: usize) -> bool {
        let source = match copy.of_dictionary {
            true => self.dictionary.bytes(),
            false => &self.body,
        };
        match (copy.from.checked_sub(1), at.checked_sub(1)) {
            (Some(from), Some(at)) => source.get(from) == self.body.get(at),
            _ => false,
        }
    }

    /// The code of a distance, which becomes the last one.
    fn code(&mut self, distance: usize) -> usize {
        let known = self.recent.iter().position(|recent| *recent == distance);
        // RFC 7932 §4: code 0 is not pushed; with any other all move on.
        if known != Some(0) {
            let [first, second, third, _] = self.recent;
            self.recent = [distance, first, second, third];
        }
        known.unwrap_or(distance + 15)
    }

    fn note(&mut self, at: usize) {
        let place = self.place(at);
        self.in_body.put(eight(&self.body, at), place);
    }

    /// A position in the body, which wraps around after 4 GiB.
    fn place(&self, at: usize) -> u32 {
        (self.gone as u32).wrapping_add(at as u32)
    }
}

/// About how many bits a literal takes.
const LITERAL: usize = 5;

/// Where strings were seen last: a table with some places for each hash, the latest first.
struct Places {
    shift: u32,
    ways: usize,
    /// What leaves as many bytes of eight as are hashed.
    cut: u32,
    table: Vec<u32>,
}

impl Places {
    fn new(bits: u8, ways: usize, hashed: u32) -> Self {
        Self {
            shift: 64 - u32::from(bits),
            ways,
            cut: 64 - 8 * hashed,
            table: vec![0; ways << bits],
        }
    }

    /// Those of strings that may begin so; 0 where there was none.
    fn of(&self, string: u64) -> &[u32] {
        let at = self.at(string);
        self.table.get(at..at + self.ways).unwrap_or_default()
    }

    fn put(&mut self, string: Option<u64>, place: u32) {
        let Some(string) = string else {
            return;
        };
        let at = self.at(string);
        let places = self.table.get_mut(at..at + self.ways);
        let mut moved = place;
        for place in places.unwrap_or_default() {
            std::mem::swap(place, &mut moved);
        }
    }

    fn at(&self, string: u64) -> usize {
        // A prime near 2^64 divided by the golden ratio spreads what differs in few bits.
        let hash = (string << self.cut).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift;
        usize::try_from(hash).unwrap_or(0) * self.ways
    }
}

/// The eight bytes from there on.
fn eight(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_le_bytes(*bytes))
}

/// How many bytes both begin with.
fn common(one: &[u8], other: &[u8]) -> usize {
    let (mut length, most) = (0, one.len().min(other.len()));
    while let (Some(a), Some(b)) = (eight(one, length), eight(other, length)) {
        if a != b {
            return length + (a ^ b).trailing_zeros() as usize / 8;
        }
        length += 8;
    }
    while length < most && one.get(length) == other.get(length) {
        length += 1;
    }
    length
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the commands make of the dictionary and of `body`, which begins with what came before them.
    fn replay(
        dictionary: &[u8],
        body: &mut Vec<u8>,
        content: &[u8],
        commands: &[Insert],
        recent: &mut Vec<usize>,
        window: usize,
    ) {
        let mut literals = content.iter();
        for insert in commands {
            body.extend(literals.by_ref().take(insert.literals));
            if insert.copied == 0 {
                continue;
            }
            let distance = match insert.code {
                code @ 0..=3 => recent[recent.len() - 1 - code],
                code => code - 15,
            };
            if insert.code != 0 {
                recent.push(distance);
            }
            let reach = body.len().min(window - 16);
            if distance <= reach {
                for _ in 0..insert.copied {
                    body.push(body[body.len() - distance]);
                }
            } else {
                let from = dictionary.len() - (distance - reach);
                let copy = dictionary.get(from..from + insert.copied);
                body.extend_from_slice(copy.expect("it ends in the dictionary"));
            }
            literals.by_ref().nth(insert.copied - 1);
        }
        assert!(body.ends_with(content), "another body");
    }

    fn check(level: u8, dictionary: &[u8], body: &[u8], cut: usize) {
        let shared = Rc::new(Dictionary::new(dictionary.to_vec()));
        let mut copies = Copies::new(level, 17, shared);
        let (mut made, mut recent) = (Vec::new(), vec![16, 15, 11, 4]);
        for piece in body.chunks(cut) {
            copies.take(piece);
            assert!(copies.body.len() <= 2 << 17 && copies.body.capacity() <= 2 << 17);
            let (content, commands) = copies.find();
            assert!(content == piece);
            replay(
                dictionary,
                &mut made,
                content,
                commands,
                &mut recent,
                1 << 17,
            );
        }
        assert!(made == body);
    }

    proptest! {
        #[test]
        fn copies_are_of_one_source(
            level in 0..=11_u8,
            dictionary in "[a-c]{0,60}|([a-h]{2,9} ){0,90}",
            parts in prop::collection::vec((any::<prop::sample::Index>(), 0..200_usize, "[a-d ]{0,9}"), 0..40),
            cut in 1..400_usize,
        ) {
            let bytes = dictionary.as_bytes();
            let body: Vec<u8> = parts.iter().flat_map(|(from, length, new)| {
                let from = from.index(bytes.len() + 1);
                let copy = &bytes[from..bytes.len().min(from + length)];
                [copy, new.as_bytes()].concat()
            }).collect();
            check(level, bytes, &body, cut);
        }
    }

    #[test]
    fn nothing_beyond_the_window_is_copied() {
        let mut state = 5_u64;
        let mut words = |count: usize| -> Vec<u8> {
            let word = std::iter::repeat_with(|| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                format!("{:x},", state >> 50)
            });
            word.take(count).flat_map(String::into_bytes).collect()
        };
        let dictionary = words(30_000);
        let body = [&dictionary[..], &words(40_000), &words(10), &dictionary].concat();
        for level in [0, 5, 11] {
            check(level, &dictionary, &body, 1 << 16);
            check(level, &dictionary[..3], &body, 999);
        }
    }
}
