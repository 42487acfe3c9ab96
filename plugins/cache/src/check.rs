//! Whether what was found was invalidated with something larger than its key: read only when there was any such
//! invalidation since it was checked last.

use edgeweir_filter::{Answer, Cx, RequestHead, Step};

use crate::exchange::{CacheExchange, State};
use crate::judging::{Judging, Next};
use crate::lookup::{Found, Lookup, read, updated};
use crate::memory::Checked;
use crate::standing::Standing;

/// A response whose standing is being read.
pub(crate) struct Checking {
    lookup: Box<Lookup>,
    found: Found,
    judging: Judging,
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
        let mut known = None;
        if lookup.third.is_none() {
            let checked = self.core.memory.borrow().checked(&found.1.object);
            if lookup.clock.is_some() && checked.clock == lookup.clock {
                return self.standing(lookup, found, Standing::Valid, head, cx);
            }
            known = Some(checked.number.unwrap_or(0));
        }
        let mut judging = Judging::new(&found.0, &lookup.key, &lookup.primary, known);
        let next = judging.begin(lookup.alone, &self.core, cx.now);
        let checking = Checking {
            lookup,
            found,
            judging,
        };
        self.judged(Box::new(checking), next, head, cx)
    }

    pub(crate) fn checked(
        &mut self,
        mut checking: Box<Checking>,
        answer: Answer,
        head: &mut RequestHead,
        cx: &mut Cx<'_>,
    ) -> Step {
        match updated(answer) {
            Ok(value) => {
                let alone = checking.lookup.alone;
                let next = checking.judging.go_on(value, alone, &self.core, cx.now);
                self.judged(checking, next, head, cx)
            }
            Err(_) => {
                // It can't be known: what may have been invalidated is not used.
                cx.count("cache.shared_store_failed");
                let Checking { lookup, found, .. } = *checking;
                self.standing(lookup, found, Standing::Gone, head, cx)
            }
        }
    }

    fn judged(
        &mut self,
        checking: Box<Checking>,
        next: Next,
        head: &mut RequestHead,
        cx: &mut Cx<'_>,
    ) -> Step {
        let (standing, for_good) = match next {
            Next::Read(name) => {
                self.state = State::Checking(checking);
                return Step::Do(read(name));
            }
            Next::Judged { standing, for_good } => (standing, for_good),
        };
        let Checking {
            lookup,
            found,
            judging,
        } = *checking;
        // Valid for good, or until its turn comes. What is from the third tier has no place here yet.
        if standing == Standing::Valid && for_good && lookup.third.is_none() {
            let checked = Checked {
                clock: lookup.clock.clone(),
                number: Some(judging.number()),
            };
            let mut memory = self.core.memory.borrow_mut();
            memory.passed(&found.1.object, checked);
        }
        self.standing(lookup, found, standing, head, cx)
    }
}
