//! The request's side of the third tier: news before anything else, then a read, and with it the lease on what nobody has.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use edgeweir_filter::{Answer, Cx, Effect, Pass, RequestHead, Step, Timestamp};

use crate::aboard::Aboard;
use crate::adopt::{self, Adopt};
use crate::exchange::{CacheExchange, State};
use crate::flights::Lead;
use crate::kept::{self, Kept};
use crate::l3::Said;
use crate::lookup::Lookup;
use crate::news::{Due, Hear};
use crate::reason::Missed;
use crate::stored::Stored;
use crate::tiers::{Did, Tier};

/// How long after one read the next asks whether the holder of a lease has written: at first, and at most.
const FIRST_POLL: Duration = Duration::from_millis(20);
const LONGEST_POLL: Duration = Duration::from_millis(100);

/// A read of the third tier.
pub(crate) struct Third {
    lookup: Box<Lookup>,
    /// What is read, and whether that is a variant's.
    name: Bytes,
    variant: bool,
    missed: Missed,
    lead: Option<Lead>,
    pass: Pass,
    /// Until when the holder of the lease is waited for, and how long until the next read.
    waits: Option<(Timestamp, Duration)>,
}

/// A response came from the third tier: those who wait for it go on when it is in the first two.
#[derive(Default)]
pub(crate) struct FromThird {
    pub lead: Option<Lead>,
}

impl CacheExchange {
    /// Looks up, after the news when they are due.
    pub(crate) fn hear_first(
        &mut self,
        lookup: Box<Lookup>,
        head: &mut RequestHead,
        cx: &mut Cx<'_>,
    ) -> Step {
        let core = Rc::clone(&self.core);
        match core.news_due(cx) {
            Due::No => self.look_up(lookup, head, cx),
            Due::Wait(gate) => {
                self.state = State::Heard(lookup);
                let limit = core.settings.l3.as_ref().map(|third| third.timeout());
                Step::Do(Effect::Wait {
                    gate: Some(gate),
                    limit: limit.unwrap_or_default(),
                })
            }
            Due::Hear(mut hear) => match hear.begin(cx) {
                Some(effect) => {
                    self.state = State::Hearing(lookup, hear);
                    Step::Do(effect)
                }
                None => self.look_up(lookup, head, cx),
            },
        }
    }

    pub(crate) fn hearing(
        &mut self,
        lookup: Box<Lookup>,
        mut hear: Box<Hear>,
        answer: &Answer,
        head: &mut RequestHead,
        cx: &mut Cx<'_>,
    ) -> Step {
        match hear.go_on(answer, cx) {
            Some(effect) => {
                self.state = State::Hearing(lookup, hear);
                Step::Do(effect)
            }
            None => {
                drop(hear);
                self.look_up(lookup, head, cx)
            }
        }
    }

    /// Asks the third tier, where there is one; one request of this worker's for all that miss the same.
    pub(crate) fn ask_third(
        &mut self,
        mut lookup: Box<Lookup>,
        missed: Missed,
        head: &mut RequestHead,
        cx: &mut Cx<'_>,
    ) -> Step {
        let core = Rc::clone(&self.core);
        let Some(third) = &core.settings.l3 else {
            return self.forward(lookup, missed, None, head, cx);
        };
        let asked = std::mem::replace(&mut lookup.asked_third, true);
        // Who waited was told nothing of another variant.
        let waited = lookup.waited.is_some() && missed != Missed::Variant;
        if asked || waited || self.is_known_uncacheable(&lookup, cx) {
            return self.forward(lookup, missed, None, head, cx);
        }
        let Some(pass) = third.pass(cx) else {
            return self.forward(lookup, missed, None, head, cx);
        };
        // Who wants what is stored or nothing waits for nobody.
        let lead = match lookup.asked.only_if_cached {
            true => None,
            false => match self.board(&lookup, missed, cx) {
                Aboard::Go(lead) => lead,
                Aboard::Wait(awaited) => return self.wait(lookup, missed, awaited, cx),
            },
        };
        let read = Third {
            name: kept::name(&lookup.key),
            variant: false,
            lookup,
            missed,
            lead,
            pass,
            waits: None,
        };
        self.read_third(Box::new(read))
    }

    fn read_third(&mut self, read: Box<Third>) -> Step {
        let lease = read.lead.as_ref().and(self.core.settings.l3.as_ref());
        let lease = lease.and_then(|third| third.lease);
        let Some(third) = &self.core.settings.l3 else {
            return Step::Forward(edgeweir_filter::Body::Pass);
        };
        let effect = third.read(&read.name, lease);
        self.state = State::Third(read);
        Step::Do(effect)
    }

    pub(crate) fn got_third(
        &mut self,
        mut read: Box<Third>,
        answer: &Answer,
        head: &mut RequestHead,
        cx: &mut Cx<'_>,
    ) -> Step {
        let core = Rc::clone(&self.core);
        let Some(third) = &core.settings.l3 else {
            return self.go(*read, head, cx);
        };
        match third.said(answer, &read.name, read.pass, cx) {
            Said::Failed => self.go(*read, head, cx),
            Said::Kept(bytes) => match Kept::read(&bytes) {
                Some(Kept::Response(stored)) if stored.matches(&read.lookup.request) => {
                    self.kept_there(*read, stored, head, cx)
                }
                Some(Kept::Varies(names)) if !read.variant => {
                    let lookup = &read.lookup;
                    read.name = kept::variant_for(&lookup.key, &names, &lookup.request);
                    read.variant = true;
                    self.ask_again(read, head, cx)
                }
                _ => {
                    core.tiers.count(Tier::L3, Did::Miss, cx);
                    self.go(*read, head, cx)
                }
            },
            Said::Nothing => {
                core.tiers.count(Tier::L3, Did::Miss, cx);
                let name = read.name.clone();
                if let (Some(lead), Some(_)) = (&mut read.lead, third.lease) {
                    lead.lease = Some(name);
                }
                self.go(*read, head, cx)
            }
            Said::Held => {
                let lease = third.lease.unwrap_or_default();
                let (until, poll) = read
                    .waits
                    .unwrap_or_else(|| (cx.now.plus(lease), FIRST_POLL));
                if cx.now >= until {
                    core.tiers.count(Tier::L3, Did::Miss, cx);
                    cx.count("cache.l3.waited_in_vain");
                    return self.go(*read, head, cx);
                }
                if read.waits.is_none() {
                    cx.count("cache.l3.waited");
                }
                read.waits = Some((until, (poll * 2).min(LONGEST_POLL)));
                self.state = State::Leased(read);
                Step::Do(Effect::Wait {
                    gate: None,
                    limit: poll,
                })
            }
        }
    }

    /// Reads once more: a variant, or what the holder of the lease has written meanwhile.
    pub(crate) fn ask_again(
        &mut self,
        mut read: Box<Third>,
        head: &mut RequestHead,
        cx: &mut Cx<'_>,
    ) -> Step {
        let core = Rc::clone(&self.core);
        match core.settings.l3.as_ref().and_then(|third| third.pass(cx)) {
            Some(pass) => {
                read.pass = pass;
                self.read_third(read)
            }
            None => self.go(*read, head, cx),
        }
    }

    fn go(&mut self, read: Third, head: &mut RequestHead, cx: &mut Cx<'_>) -> Step {
        let Third {
            lookup,
            missed,
            lead,
            ..
        } = read;
        match lead {
            Some(lead) => self.send(lookup, missed, None, Some(lead), head, cx),
            None => self.forward(lookup, missed, None, head, cx),
        }
    }

    fn kept_there(
        &mut self,
        read: Third,
        mut stored: Stored,
        head: &mut RequestHead,
        cx: &mut Cx<'_>,
    ) -> Step {
        self.hit(&read.lookup, Tier::L3, &stored, cx);
        let Third {
            mut lookup,
            lead,
            waits,
            missed,
            ..
        } = read;
        // Generations are this machine's own: another's response is judged by the time it was asked for.
        if let Some(marker) = &lookup.marker {
            stored.generation = marker.generation;
        }
        if waits.is_some() {
            lookup.waited = Some(missed);
        }
        let place = adopt::place(&self.core, &lookup, &stored, cx.now);
        lookup.third = Some(FromThird { lead });
        self.found(lookup, Rc::new(stored), place, head, cx)
    }

    /// What the third tier had goes into the first two; the lead, when it is still needed for a request to the origin.
    pub(crate) fn adopt(
        &self,
        lookup: &mut Lookup,
        stored: &Rc<Stored>,
        to_the_origin: bool,
        cx: &mut Cx<'_>,
    ) -> Option<Lead> {
        let FromThird { lead } = lookup.third.take()?;
        let (mine, yours) = match to_the_origin {
            true => (None, lead),
            false => (lead, None),
        };
        if let Some(adopt) = Adopt::of(&self.core, lookup, stored, mine, cx) {
            cx.spawn(adopt);
        }
        yours
    }
}
