//! Takes what the third tier had into the first two, while the client is answered already.

use std::rc::Rc;
use std::time::Duration;

use edgeweir_filter::{Answer, Cx, Effect, Task, Timestamp};

use crate::fill::placing;
use crate::flights::Lead;
use crate::lookup::{Lookup, updated};
use crate::marker::{Marker, Register};
use crate::store::{Core, Place, longest, seconds_at};
use crate::stored::Stored;
use crate::vary::Vary;

/// A response of the third tier that is to have a place here.
pub(crate) struct Adopt {
    core: Rc<Core>,
    lookup: Lookup,
    register: Rc<Register>,
    stored: Rc<Stored>,
    /// Those who wait for it go on when it is there.
    lead: Option<Lead>,
}

impl Adopt {
    /// Of a response that was found for a lookup; `None` when it is of no use any more.
    pub fn of(
        core: &Rc<Core>,
        lookup: &Lookup,
        stored: &Rc<Stored>,
        lead: Option<Lead>,
        cx: &Cx<'_>,
    ) -> Option<Self> {
        let register = register(core, lookup, stored, cx.now)?;
        Some(Self {
            core: Rc::clone(core),
            lookup: lookup.quiet(),
            register: Rc::new(register),
            stored: Rc::clone(stored),
            lead,
        })
    }
}

/// What a place here is asked for with; `None` when the response is of no use to anybody else.
fn register(core: &Core, lookup: &Lookup, stored: &Stored, now: Timestamp) -> Option<Register> {
    let Vary::Fields(names) = Vary::of(&stored.fields) else {
        return None;
    };
    let left = u64::from(stored.lifetime.saturating_sub(stored.age(now)));
    let kept = left.saturating_add(u64::from(core.settings.keep_stale));
    let kept = Duration::from_secs(kept).min(longest(&lookup.key));
    Some(Register {
        seen: lookup.marker.as_ref().map(|marker| marker.generation),
        // A key nobody knows goes on in the generation it had.
        fresh: stored.generation,
        names,
        request: lookup.request.clone(),
        until: seconds_at(now.plus(kept)),
        max_variants: core.settings.max_variants,
    })
}

/// The place that it will have here, unless another is quicker; one that nothing else has when it can't have any.
pub(crate) fn place(core: &Core, lookup: &Lookup, stored: &Stored, now: Timestamp) -> Place {
    let marker = lookup.marker.as_ref().and_then(Marker::encode);
    let register = register(core, lookup, stored, now);
    let given = register.and_then(|register| register.apply(marker.as_deref()).ok());
    match given {
        Some((marker, at)) => lookup.place_at(&marker, at),
        None => lookup.place_at(&Marker::new(0, false, 0), u8::MAX),
    }
}

impl Task for Adopt {
    fn start(&mut self, cx: &mut Cx<'_>) -> Option<Effect> {
        let register = Rc::clone(&self.register);
        (!self.lookup.alone).then(|| placing(&self.lookup, register, cx.now))
    }

    fn answer(&mut self, answer: Answer, cx: &mut Cx<'_>) -> Option<Effect> {
        let before = updated(answer).ok()?;
        let (marker, at) = self.register.apply(before.as_deref()).ok()?;
        let place = self.lookup.place_at(&marker, at);
        let stored = match marker.generation == self.stored.generation {
            true => Rc::clone(&self.stored),
            false => Rc::new(Stored {
                generation: marker.generation,
                ..Stored::clone(&self.stored)
            }),
        };
        let encoded = stored.encode()?;
        let (until, lead) = (self.register.until, self.lead.take());
        self.core
            .keep_here(&place, &stored, encoded, until, lead, cx);
        None
    }
}
