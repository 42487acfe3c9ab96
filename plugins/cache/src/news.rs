//! What machines with a third tier tell one another: invalidations, so that a purge at one reaches the first two tiers of all.
//!
//! Each invalidation leaves a line in the store. Every machine asks for the lines since the last one it heard, and applies
//! them as marks that responses are judged by, so that hearing one twice does no harm. A place in the shared store says up to
//! where the machine has heard, so that one worker hears for all.

use bytes::Bytes;
use edgeweir_filter::{Answer, Cx, Effect, Gate, Pass, Task, Timestamp, percent_decoded};
use std::rc::Rc;

use crate::invalidate::Updates;
use crate::operate::encoded;
use crate::standing::{Ban, Mark, Wide};
use crate::store::{self, Core};

/// Lines in one answer; where there are so many there may be more.
const AT_ONCE: usize = 256;
/// Answers read in a row.
const ANSWERS: usize = 20;
/// Bytes of a mark of the store's.
const LONGEST_MARK: usize = 40;
const VERSION: u8 = 1;

/// What was invalidated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    /// What is stored under a URI.
    Uri(Bytes),
    /// Groups.
    Groups(Vec<u64>),
    /// All whose host and path match.
    Pattern(Vec<u8>),
    /// Everything.
    All,
}

/// The line that tells it: who says it, until when what was asked for is unusable or stale, and what.
pub fn line(who: u64, mark: Mark, what: &str) -> String {
    let mark: String = mark
        .over(None)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{who:016x} {mark} {what}")
}

/// What a line tells; `None` when it is none of this version.
fn read(line: &str) -> Option<(u64, Mark, What)> {
    let mut words = line.split(' ');
    let who = u64::from_str_radix(words.next()?, 16).ok()?;
    let digits = words.next()?.as_bytes();
    let mark: Option<Vec<u8>> = digits
        .chunks(2)
        .map(|pair| {
            let pair = std::str::from_utf8(pair).ok()?;
            u8::from_str_radix(pair, 16).ok()
        })
        .collect();
    let mark = Mark::decode(&mark?)?;
    let what = match (words.next()?, words.next()) {
        ("u", Some(uri)) => What::Uri(percent_decoded(uri.as_bytes(), |_| true).into()),
        ("g", Some(groups)) => {
            let groups = groups
                .split(',')
                .map(|group| u64::from_str_radix(group, 16));
            What::Groups(groups.collect::<Result<_, _>>().ok()?)
        }
        ("p", Some(pattern)) => What::Pattern(percent_decoded(pattern.as_bytes(), |_| true)),
        ("a", None) => What::All,
        _ => return None,
    };
    words.next().is_none().then_some((who, mark, what))
}

/// The words for a URI.
pub fn of_uri(uri: &[u8]) -> String {
    format!("u {}", encoded(uri))
}
/// The words for groups, as they are listed.
pub fn of_groups(listed: &str) -> String {
    format!("g {listed}")
}
/// The words for a pattern.
pub fn of_pattern(pattern: &[u8]) -> String {
    format!("p {}", encoded(pattern))
}
/// The word for everything.
pub const OF_ALL: &str = "a";

/// Up to where a machine has heard: one value that its workers share.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Heard {
    /// The machine's name among machines.
    who: u64,
    /// When.
    at: Timestamp,
    /// The store's mark; empty at first.
    mark: String,
}

impl Heard {
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.who.to_be_bytes());
        out.extend_from_slice(&self.at.0.to_be_bytes());
        out.extend_from_slice(self.mark.as_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (&version, rest) = bytes.split_first()?;
        let (who, rest) = rest.split_first_chunk()?;
        let (at, rest) = rest.split_first_chunk()?;
        (version == VERSION).then(|| Self {
            who: u64::from_be_bytes(*who),
            at: Timestamp(u64::from_be_bytes(*at)),
            mark: String::from_utf8_lossy(rest).into_owned(),
        })
    }
}

/// How far an instance is with hearing.
#[derive(Default)]
pub struct Hearing {
    /// When the machine last asked for what it has heard, as far as is known here.
    at: Timestamp,
    /// The machine's name, once it is known here.
    pub who: u64,
    /// It is being heard now.
    gate: Option<Gate>,
}

/// What a request is to do about news.
pub(crate) enum Due {
    /// Nothing: what was heard is recent enough.
    No,
    /// Wait until it is heard.
    Wait(Gate),
    /// Hear, before anything else.
    Hear(Box<Hear>),
}

impl Core {
    /// Whether news are due. Those that soon will be are heard in the background.
    pub(crate) fn news_due(self: &Rc<Self>, cx: &mut Cx<'_>) -> Due {
        let Some(third) = &self.settings.l3 else {
            return Due::No;
        };
        let Some(every) = third.news else {
            return Due::No;
        };
        let hearing = self.hearing.borrow();
        let since = cx.now.since(hearing.at);
        // A clock that was set back: hear at once.
        let set_back = hearing.at > cx.now.plus(every);
        let late = since >= every * 2 || set_back;
        if since < every && !set_back {
            return Due::No;
        }
        if let Some(gate) = &hearing.gate {
            return match late {
                true => Due::Wait(gate.clone()),
                false => Due::No,
            };
        }
        drop(hearing);
        let Some(pass) = third.pass(cx) else {
            return Due::No;
        };
        let every = u64::try_from(every.as_nanos()).unwrap_or(u64::MAX);
        let hear = Hear::new(self, pass, Timestamp(cx.now.0.saturating_sub(every)));
        if late {
            return Due::Hear(Box::new(hear));
        }
        cx.spawn(hear);
        Due::No
    }

    /// Whether news have to be heard for all to be known that was said until `when`.
    pub(crate) fn news_after(self: &Rc<Self>, when: Timestamp, cx: &mut Cx<'_>) -> Due {
        let third = self.settings.l3.as_ref().filter(|it| it.news.is_some());
        let hearing = self.hearing.borrow();
        let Some(third) = third.filter(|_| hearing.at <= when) else {
            return Due::No;
        };
        if let Some(gate) = &hearing.gate {
            return Due::Wait(gate.clone());
        }
        drop(hearing);
        match third.pass(cx) {
            Some(pass) => Due::Hear(Box::new(Hear::new(self, pass, when))),
            None => Due::No,
        }
    }
}

/// Hears what is new, and applies it.
pub(crate) struct Hear {
    core: Rc<Core>,
    gate: Gate,
    pass: Pass,
    stage: Stage,
    /// What the machine heard later than this is recent enough.
    after: Timestamp,
    /// When the store was asked.
    asked: Timestamp,
    heard: Heard,
    answers: usize,
}

enum Stage {
    /// Where the machine is is asked.
    Place,
    /// The store is asked.
    Store,
    /// What it said is applied; then the machine is where the mark says, and there may be more.
    Apply(Updates, Heard, bool),
    /// That is written down.
    Written(bool),
}

impl Hear {
    fn new(core: &Rc<Core>, pass: Pass, after: Timestamp) -> Self {
        let gate = Gate::new();
        core.hearing.borrow_mut().gate = Some(gate.clone());
        Self {
            core: Rc::clone(core),
            gate,
            pass,
            stage: Stage::Place,
            after,
            asked: after,
            heard: Heard::default(),
            answers: 0,
        }
    }

    /// The first effect.
    pub fn begin(&mut self, cx: &mut Cx<'_>) -> Option<Effect> {
        let fresh = Heard {
            who: self.core.fresh_generation(cx.now),
            ..Heard::default()
        };
        self.heard = fresh.clone();
        let change = move |before: Option<&[u8]>| match before.and_then(Heard::decode) {
            None => Some(fresh.encode()),
            Some(_) => None,
        };
        if self.core.settings.shared {
            return Some(store::cell(store::news_name(), change, store::MARKED));
        }
        let before = self.core.update_alone(&store::news_name(), change);
        self.placed(before.as_deref(), cx)
    }

    /// The next effect after an answer; `None` when all is heard, or can't be.
    pub fn go_on(&mut self, answer: &Answer, cx: &mut Cx<'_>) -> Option<Effect> {
        match std::mem::replace(&mut self.stage, Stage::Store) {
            Stage::Place => match answer {
                Answer::Updated(Ok(before)) => self.placed(before.as_deref(), cx),
                // Nothing is known of where the machine is: this instance hears what comes from now on.
                _ => self.placed(None, cx),
            },
            Stage::Store => self.said(answer, cx),
            Stage::Apply(mut updates, next, more) => {
                self.core.updated(&mut updates, answer, cx);
                self.apply(updates, next, more, cx)
            }
            Stage::Written(more) => self.written(more, cx),
        }
    }

    fn placed(&mut self, before: Option<&[u8]>, cx: &mut Cx<'_>) -> Option<Effect> {
        if let Some(before) = before.and_then(Heard::decode) {
            self.heard = before;
        }
        {
            let mut hearing = self.core.hearing.borrow_mut();
            hearing.who = self.heard.who;
            // Another worker heard just now.
            if self.heard.at > self.after && self.heard.at <= cx.now {
                hearing.at = self.heard.at;
                return None;
            }
        }
        self.ask(cx)
    }

    fn ask(&mut self, cx: &Cx<'_>) -> Option<Effect> {
        self.asked = cx.now;
        self.stage = Stage::Store;
        Some(self.core.settings.l3.as_ref()?.news(&self.heard.mark))
    }

    fn said(&mut self, answer: &Answer, cx: &mut Cx<'_>) -> Option<Effect> {
        let core = Rc::clone(&self.core);
        let third = core.settings.l3.as_ref()?;
        let Some(text) = third.heard(answer, self.pass, cx)? else {
            // A store that knows no news.
            self.heard_at(cx.now);
            return None;
        };
        let mut lines = text.lines();
        let mark = lines.next().filter(|mark| mark.len() <= LONGEST_MARK)?;
        let lost = lines.next()? == "lost";
        let next = Heard {
            at: self.asked,
            mark: mark.to_owned(),
            ..self.heard.clone()
        };
        let mut updates = Updates::default();
        let mut count = 0;
        if lost {
            // At the start there is nothing yet that could have been invalidated.
            if !self.heard.mark.is_empty() {
                cx.count("cache.l3.news_lost");
                core.push_wide(Wide::All(Mark::soft(cx.now, 0)), &mut updates, cx);
            }
        } else {
            let mut wide = false;
            for line in lines {
                count += 1;
                match read(line) {
                    Some((who, ..)) if who == self.heard.who => {}
                    Some((_, mark, what)) => {
                        cx.count("cache.l3.heard");
                        wide |= core.hear(mark.not_after(cx.now), &what, &mut updates, cx);
                    }
                    None => cx.count("cache.l3.failed.not_understood"),
                }
            }
            if wide {
                core.push_wide(Wide::Marks, &mut updates, cx);
            }
        }
        self.apply(updates, next, count >= AT_ONCE, cx)
    }

    fn apply(
        &mut self,
        mut updates: Updates,
        next: Heard,
        more: bool,
        cx: &mut Cx<'_>,
    ) -> Option<Effect> {
        if let Some(effect) = self.core.next_update(&mut updates, cx) {
            self.stage = Stage::Apply(updates, next, more);
            return Some(effect);
        }
        if updates.failed {
            // Not all workers know: after a while it is heard once more.
            self.heard_at(cx.now);
            return None;
        }
        let seen = std::mem::replace(&mut self.heard, next.clone());
        // Another worker that is further has heard all of this too.
        let change = move |before: Option<&[u8]>| {
            let same = before
                .and_then(Heard::decode)
                .is_none_or(|before| before.mark == seen.mark);
            same.then(|| next.encode())
        };
        if self.core.settings.shared {
            self.stage = Stage::Written(more);
            return Some(store::cell(store::news_name(), change, store::MARKED));
        }
        self.core.update_alone(&store::news_name(), change);
        self.written(more, cx)
    }

    fn heard_at(&self, at: Timestamp) {
        self.core.hearing.borrow_mut().at = at;
    }

    fn written(&mut self, more: bool, cx: &mut Cx<'_>) -> Option<Effect> {
        self.answers += 1;
        if more && self.answers < ANSWERS {
            self.pass = self.core.settings.l3.as_ref()?.pass(cx)?;
            return self.ask(cx);
        }
        self.heard_at(self.heard.at);
        None
    }
}

impl Task for Hear {
    fn start(&mut self, cx: &mut Cx<'_>) -> Option<Effect> {
        self.begin(cx)
    }
    fn answer(&mut self, answer: Answer, cx: &mut Cx<'_>) -> Option<Effect> {
        self.go_on(&answer, cx)
    }
}

impl Drop for Hear {
    fn drop(&mut self) {
        self.core.hearing.borrow_mut().gate = None;
        self.gate.open();
    }
}

impl Core {
    /// Marks what another machine invalidated; whether all workers are to be told.
    fn hear(&self, mark: Mark, what: &What, updates: &mut Updates, cx: &mut Cx<'_>) -> bool {
        let over = move |before: Option<&[u8]>| Some(mark.over(before));
        match what {
            What::Uri(uri) => updates.push(store::uri_mark_name(uri), store::MARKED, over),
            What::Groups(groups) => {
                for group in groups {
                    updates.push(store::group_name(*group), store::MARKED, over);
                }
            }
            What::Pattern(pattern) => {
                if let Some(ban) = Ban::new(mark, pattern) {
                    self.ban(&ban, updates, cx);
                }
                return false;
            }
            What::All => {
                self.push_wide(Wide::All(mark), updates, cx);
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_heard() {
        let now = Timestamp::from_secs(1_700_000_000);
        for (name, words, mark, want) in [
            (
                "a URI",
                of_uri(b"\0\x01 /x?\xff"),
                Mark::hard(now),
                What::Uri(Bytes::from_static(b"\0\x01 /x?\xff")),
            ),
            (
                "groups",
                of_groups("00000000000000aa,ffffffffffffffff"),
                Mark::soft(now, 60),
                What::Groups(vec![0xaa, u64::MAX]),
            ),
            (
                "a pattern",
                of_pattern(b"a.example/*, ?"),
                Mark::hard(now),
                What::Pattern(b"a.example/*, ?".to_vec()),
            ),
            ("everything", OF_ALL.to_owned(), Mark::hard(now), What::All),
        ] {
            let line = line(7, mark, &words);
            assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            assert_eq!(read(&line), Some((7, mark, want)), "{name}");
        }
    }

    #[test]
    fn what_is_no_news_is_not_understood() {
        let good = line(7, Mark::default(), OF_ALL);
        for bad in [
            "",
            "7",
            "7 00 a",
            "7 zz a",
            "x 00 a",
            &format!("{good} x"),
            &good.replace(" a", " u"),
            &good.replace(" a", " q x"),
            &good.replace(" a", " g x,y"),
        ] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_place_fits_into_a_cell() {
        let heard = Heard {
            who: u64::MAX,
            at: Timestamp(u64::MAX),
            mark: "x".repeat(LONGEST_MARK),
        };
        let bytes = heard.encode();
        assert!(bytes.len() <= 64);
        assert_eq!(Heard::decode(&bytes), Some(heard));
        assert_eq!(Heard::decode(b""), None);
    }
}
