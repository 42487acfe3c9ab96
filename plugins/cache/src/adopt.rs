//! Takes what the third tier had into the first two, while the client is answered already.

use std::rc::Rc;

use edgeweir_filter::{Answer, Cx, Effect, Task};

use crate::fill::placing;
use crate::flights::Lead;
use crate::lookup::{Lookup, updated};
use crate::marker::Register;
use crate::store::{Core, LONGEST_KEPT, seconds_at};
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
        let Vary::Fields(names) = Vary::of(&stored.fields) else {
            return None;
        };
        let left = u64::from(stored.lifetime.saturating_sub(stored.age(cx.now)));
        let kept = left.saturating_add(u64::from(core.settings.keep_stale));
        let kept = std::time::Duration::from_secs(kept).min(LONGEST_KEPT);
        let register = Register {
            seen: lookup.marker.as_ref().map(|marker| marker.generation),
            // A key nobody knows goes on in the generation it had.
            fresh: stored.generation,
            names,
            request: lookup.request.clone(),
            until: seconds_at(cx.now.plus(kept)),
            max_variants: core.settings.max_variants,
        };
        Some(Self {
            core: Rc::clone(core),
            lookup: lookup.quiet(),
            register: Rc::new(register),
            stored: Rc::clone(stored),
            lead,
        })
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
