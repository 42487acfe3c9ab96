//! Whether what was found was invalidated with something larger than its key: read only when there was any such
//! invalidation since it was checked last.

use std::collections::VecDeque;

use bytes::Bytes;
use edgeweir_filter::{Answer, Cx, RequestHead, Step};

use crate::exchange::{CacheExchange, State};
use crate::lookup::{Found, Lookup, read, updated};
use crate::memory::Checked;
use crate::standing::{Ban, Mark, Overview, Standing};
use crate::store;

/// A response whose standing is being read.
pub(crate) struct Checking {
    lookup: Box<Lookup>,
    found: Found,
    stage: Stage,
    overview: Overview,
    /// Marks of its groups and of its URI still to be read.
    names: VecDeque<Bytes>,
    marks: Vec<Mark>,
    /// Bans read so far, the places of those to come, and the cells of the one being read.
    bans: Vec<Ban>,
    slots: VecDeque<u32>,
    cells: Vec<Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Overview,
    Marks,
    Bans,
}

impl CacheExchange {
    pub(crate) fn check(
        &mut self,
        lookup: Box<Lookup>,
        found: Found,
        head: &mut RequestHead,
        cx: &mut Cx<'_>,
    ) -> Step {
        // What another machine stored was never checked here.
        if lookup.clock.is_some() && lookup.third.is_none() {
            let checked = self.core.memory.borrow().checked(&found.1.object);
            if checked.clock == lookup.clock {
                return self.standing(lookup, found, Standing::Valid, head, cx);
            }
        }
        let checking = Box::new(Checking {
            lookup,
            found,
            stage: Stage::Overview,
            overview: Overview::default(),
            names: VecDeque::new(),
            marks: Vec::new(),
            bans: Vec::new(),
            slots: VecDeque::new(),
            cells: Vec::new(),
        });
        self.ask(checking, store::wide_name(), head, cx)
    }

    fn ask(
        &mut self,
        checking: Box<Checking>,
        name: Bytes,
        head: &mut RequestHead,
        cx: &mut Cx<'_>,
    ) -> Step {
        if checking.lookup.alone {
            let value = self.core.memory.borrow_mut().marker(&name);
            return self.read(checking, value, head, cx);
        }
        self.state = State::Checking(checking);
        Step::Do(read(name))
    }

    pub(crate) fn checked(
        &mut self,
        checking: Box<Checking>,
        answer: Answer,
        head: &mut RequestHead,
        cx: &mut Cx<'_>,
    ) -> Step {
        match updated(answer) {
            Ok(value) => self.read(checking, value, head, cx),
            Err(_) => {
                // It can't be known: what may have been invalidated is not used.
                cx.count("cache.shared_store_failed");
                let Checking { lookup, found, .. } = *checking;
                self.standing(lookup, found, Standing::Gone, head, cx)
            }
        }
    }

    fn read(
        &mut self,
        mut checking: Box<Checking>,
        value: Option<Bytes>,
        head: &mut RequestHead,
        cx: &mut Cx<'_>,
    ) -> Step {
        match checking.stage {
            Stage::Overview => {
                checking.overview = Overview::of(value.as_deref());
                let known = self.core.memory.borrow().checked(&checking.found.1.object);
                let number = checking.overview.number;
                let here = checking.lookup.third.is_none();
                if here && (number == 0 || known.number == Some(number)) {
                    return self.valid(checking, head, cx);
                }
                checking.stage = Stage::Marks;
                let groups = checking.found.0.groups.iter();
                checking.names = groups.map(|group| store::group_name(*group)).collect();
                let uri = checking.lookup.key.uri_part();
                checking.names.push_back(store::uri_mark_name(uri));
            }
            Stage::Marks => {
                checking.names.pop_front();
                checking
                    .marks
                    .extend(value.as_deref().and_then(Mark::decode));
            }
            Stage::Bans => checking.add_cell(value, cx),
        }
        if let Some(name) = checking.names.front().cloned() {
            return self.ask(checking, name, head, cx);
        }
        if checking.stage == Stage::Marks {
            checking.stage = Stage::Bans;
            let known = self.core.bans.borrow().clone();
            if known.0 == checking.overview.number {
                checking.bans = known.1.to_vec();
            } else {
                checking.slots = checking.overview.bans().collect();
            }
        }
        match checking.next_cell() {
            Some(name) => self.ask(checking, name, head, cx),
            None => self.judged(checking, head, cx),
        }
    }

    fn judged(&mut self, checking: Box<Checking>, head: &mut RequestHead, cx: &mut Cx<'_>) -> Step {
        let number = checking.overview.number;
        if self.core.bans.borrow().0 != number {
            *self.core.bans.borrow_mut() = (number, checking.bans.clone().into());
        }
        let (stored, lookup) = (&checking.found.0, &checking.lookup);
        let uri = lookup.uri();
        let key = store::hash_of(&lookup.primary);
        let banned = checking.bans.iter().filter_map(|ban| ban.on(&uri));
        let marks = checking.marks.iter().copied().chain(banned);
        let marks: Vec<Mark> = marks.chain([checking.overview.all]).collect();
        let judged = marks
            .iter()
            .map(|mark| mark.judge(stored.requested, key, cx.now));
        let standing = judged.max().unwrap_or(Standing::Valid);
        // Valid for good, or until its turn comes.
        let for_good = !marks.iter().any(|mark| mark.concerns(stored.requested));
        if standing == Standing::Valid && for_good {
            return self.valid(checking, head, cx);
        }
        let Checking { lookup, found, .. } = *checking;
        self.standing(lookup, found, standing, head, cx)
    }

    fn valid(&mut self, checking: Box<Checking>, head: &mut RequestHead, cx: &mut Cx<'_>) -> Step {
        let Checking {
            lookup,
            found,
            overview,
            ..
        } = *checking;
        let checked = Checked {
            clock: lookup.clock.clone(),
            number: Some(overview.number),
        };
        self.core
            .memory
            .borrow_mut()
            .passed(&found.1.object, checked);
        self.standing(lookup, found, Standing::Valid, head, cx)
    }
}

impl Checking {
    /// The next cell of a ban to be read.
    fn next_cell(&self) -> Option<Bytes> {
        let slot = u8::try_from(*self.slots.front()?).ok()?;
        let part = u8::try_from(self.cells.len()).ok()?;
        Some(store::ban_name(slot, part))
    }

    fn add_cell(&mut self, value: Option<Bytes>, cx: &Cx<'_>) {
        let cell = value.map(|bytes| bytes.to_vec()).unwrap_or_default();
        self.cells.push(cell);
        let wanted = self.cells.first().and_then(|first| Ban::count(first));
        // A first part that is gone or garbled says nothing of further ones.
        if wanted.is_some_and(|count| usize::from(count) > self.cells.len()) {
            return;
        }
        let cells = std::mem::take(&mut self.cells);
        self.bans
            .push(Ban::decode(&cells).unwrap_or_else(|| Ban::unreadable(cx.now)));
        self.slots.pop_front();
    }
}
