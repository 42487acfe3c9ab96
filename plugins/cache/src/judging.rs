//! What has to be read to know whether a response was invalidated with something larger than its key: one cell after another.

use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;
use edgeweir_filter::Timestamp;

use crate::key::Key;
use crate::standing::{Ban, Mark, Overview, Standing};
use crate::store::{self, Core};
use crate::stored::Stored;

/// A response whose standing is being read.
pub(crate) struct Judging {
    stored: Rc<Stored>,
    key: Key,
    /// The key with its generation: what its own moment within a spread is made of.
    primary: Bytes,
    /// The invalidation it was checked under before; `None` when it has to be judged in any case.
    checked: Option<u64>,
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

/// What is next.
pub(crate) enum Next {
    /// This cell is to be read.
    Read(Bytes),
    /// Nothing: it is worth this; `for_good` says that no mark known now will change that.
    Judged { standing: Standing, for_good: bool },
}

impl Judging {
    pub fn new(stored: &Rc<Stored>, key: &Key, primary: &Bytes, checked: Option<u64>) -> Self {
        Self {
            stored: Rc::clone(stored),
            key: key.clone(),
            primary: primary.clone(),
            checked,
            stage: Stage::Overview,
            overview: Overview::default(),
            names: VecDeque::new(),
            marks: Vec::new(),
            bans: Vec::new(),
            slots: VecDeque::new(),
            cells: Vec::new(),
        }
    }

    /// The number of the invalidation it was judged under.
    pub fn number(&self) -> u64 {
        self.overview.number
    }

    /// What is to be read first; an instance that works alone reads its own values.
    pub fn begin(&mut self, alone: bool, core: &Core, now: Timestamp) -> Next {
        let first = store::wide_name();
        match alone {
            true => {
                let value = core.memory.borrow_mut().marker(&first);
                self.go_on(value, alone, core, now)
            }
            false => Next::Read(first),
        }
    }

    /// With what was read.
    pub fn go_on(
        &mut self,
        mut value: Option<Bytes>,
        alone: bool,
        core: &Core,
        now: Timestamp,
    ) -> Next {
        loop {
            match self.read(value, core, now) {
                Next::Read(name) if alone => value = core.memory.borrow_mut().marker(&name),
                next => return next,
            }
        }
    }

    fn read(&mut self, value: Option<Bytes>, core: &Core, now: Timestamp) -> Next {
        match self.stage {
            Stage::Overview => {
                self.overview = Overview::of(value.as_deref());
                let number = self.overview.number;
                if (self.checked).is_some_and(|checked| number == 0 || number == checked) {
                    return Next::Judged {
                        standing: Standing::Valid,
                        for_good: true,
                    };
                }
                self.stage = Stage::Marks;
                let groups = self.stored.groups.iter();
                self.names = groups.map(|group| store::group_name(*group)).collect();
                let uri = self.key.uri_part();
                self.names.push_back(store::uri_mark_name(uri));
            }
            Stage::Marks => {
                self.names.pop_front();
                self.marks.extend(value.as_deref().and_then(Mark::decode));
            }
            Stage::Bans => self.add_cell(value, now),
        }
        if let Some(name) = self.names.front() {
            return Next::Read(name.clone());
        }
        if self.stage == Stage::Marks {
            self.stage = Stage::Bans;
            let known = core.bans.borrow().clone();
            if known.0 == self.overview.number {
                self.bans = known.1.to_vec();
            } else {
                self.slots = self.overview.bans().collect();
            }
        }
        match self.next_cell() {
            Some(name) => Next::Read(name),
            None => self.judged(core, now),
        }
    }

    fn judged(&self, core: &Core, now: Timestamp) -> Next {
        let number = self.overview.number;
        if core.bans.borrow().0 != number {
            *core.bans.borrow_mut() = (number, self.bans.clone().into());
        }
        let (uri, key) = (self.key.host_and_path(), store::hash_of(&self.primary));
        let banned = self.bans.iter().filter_map(|ban| ban.on(&uri));
        let marks = self.marks.iter().copied().chain(banned);
        let (mut standing, mut for_good) = (Standing::Valid, true);
        for mark in marks.chain([self.overview.all]) {
            standing = standing.max(mark.judge(self.stored.requested, key, now));
            for_good &= !mark.concerns(self.stored.requested);
        }
        Next::Judged { standing, for_good }
    }

    /// The next cell of a ban to be read.
    fn next_cell(&self) -> Option<Bytes> {
        let slot = u8::try_from(*self.slots.front()?).ok()?;
        let part = u8::try_from(self.cells.len()).ok()?;
        Some(store::ban_name(slot, part))
    }

    fn add_cell(&mut self, value: Option<Bytes>, now: Timestamp) {
        let cell = value.map(|bytes| bytes.to_vec()).unwrap_or_default();
        self.cells.push(cell);
        let wanted = self.cells.first().and_then(|first| Ban::count(first));
        // A first part that is gone or garbled says nothing of further ones.
        if wanted.is_some_and(|count| usize::from(count) > self.cells.len()) {
            return;
        }
        let cells = std::mem::take(&mut self.cells);
        self.bans
            .push(Ban::decode(&cells).unwrap_or_else(|| Ban::unreadable(now)));
        self.slots.pop_front();
    }
}
