//! Waiting for another request to the origin: who goes, who waits, and what they do when that was in vain.

use edgeweir_filter::{Cx, Effect, Step, Timestamp};

use crate::exchange::{CacheExchange, State};
use crate::flights::{Awaited, Boarding, Ended, Lead};
use crate::lookup::Lookup;
use crate::reason::Missed;
use crate::status::Status;
use crate::stored::Stored;

/// Flights that one request waits for at most.
const BOARDINGS: u8 = 2;

/// What a request that waited knows of that.
pub(crate) struct Boarded {
    awaited: Awaited,
    /// Until when it waits, however often.
    until: Timestamp,
    times: u8,
}

/// What a request that would go to the origin does.
pub(crate) enum Aboard {
    /// It goes, and leads others or not.
    Go(Option<Lead>),
    /// It waits for another.
    Wait(Awaited),
}

impl Lookup {
    /// Whether it may wait, or wait once more: when the flight before ended with nothing for it (it was cut, its answer was for
    /// another variant or confirmed what only its client has), one of those who waited leads the next.
    fn may_board(&self, now: Timestamp) -> bool {
        match (&self.waited, &self.boarded) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(_), Some(before)) => {
                let unsaid = before.awaited.ended() == Ended::Unsaid;
                unsaid && before.times < BOARDINGS && now < before.until
            }
        }
    }

    /// An error that the flight it waited for brought: whether the origin itself sent it.
    fn failed_for_all(&self) -> Option<bool> {
        match self.boarded.as_ref()?.awaited.ended() {
            Ended::Failed { reached } => Some(reached),
            Ended::Unsaid | Ended::Unstorable => None,
        }
    }
}

impl CacheExchange {
    /// Whether a request is the one for its key, goes by itself, or waits.
    pub(crate) fn board(&self, lookup: &Lookup, missed: Missed, cx: &mut Cx<'_>) -> Aboard {
        let collapse = self.core.settings.collapse;
        let may_wait = collapse.waiters > 0
            && lookup.may_board(cx.now)
            && self.may_serve_others(lookup, missed, cx);
        if !may_wait {
            return Aboard::Go(None);
        }
        match self.core.flights.board(&lookup.flight(), collapse.waiters) {
            Boarding::Lead(lead) => Aboard::Go(Some(lead)),
            Boarding::Full => {
                cx.count("cache.collapse_full");
                Aboard::Go(None)
            }
            Boarding::Wait(awaited) => Aboard::Wait(awaited),
        }
    }

    pub(crate) fn wait(
        &mut self,
        mut lookup: Box<Lookup>,
        missed: Missed,
        awaited: Awaited,
        cx: &Cx<'_>,
    ) -> Step {
        let before = lookup.boarded.as_ref();
        let limit = self.core.settings.collapse.limit;
        let until = before.map_or_else(|| cx.now.plus(limit), |before| before.until);
        let times = before.map_or(0, |before| before.times).saturating_add(1);
        let gate = Some(awaited.gate.clone());
        lookup.waited.get_or_insert(missed);
        lookup.boarded = Some(Boarded {
            awaited,
            until,
            times,
        });
        self.state = State::Waiting(lookup);
        Step::Do(Effect::Wait {
            gate,
            limit: until.since(cx.now),
        })
    }

    /// A stale response in place of an error that another request was answered and this one waited for.
    pub(crate) fn in_place_of_shared_error(
        &self,
        lookup: &Lookup,
        stored: &Stored,
        cx: &mut Cx<'_>,
    ) -> Option<Step> {
        let reached = lookup.failed_for_all()?;
        let status = Status {
            forward: lookup.waited.map(Missed::forward),
            collapsed: Some(true),
            ..lookup.status()
        };
        let reply = self.stale_for_error(lookup, stored, reached, &status, cx)?;
        cx.count("cache.collapsed");
        Some(Step::Reply(reply))
    }
}
