//! What a filter needs of its adapter.

/// What a filter needs beyond the messages themselves; each costs something, so nothing is given unasked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Wants {
    /// [`RequestHead::peer`](crate::RequestHead::peer) is to be filled: a hostcall per request.
    pub peer: bool,
    /// [`RequestHead::route`](crate::RequestHead::route) is to be filled, and [`Exchange::sent`](crate::Exchange::sent) to be
    /// called: a few hostcalls per request that goes on.
    pub route: bool,
    /// [`RequestHead::emergency`](crate::RequestHead::emergency) is to be filled.
    pub emergency: bool,
    /// Decisions need [`Effect::Update`](crate::Effect::Update) to be exact; an adapter that can't says so at load.
    pub exact_updates: bool,
    /// It reads nothing of a request's head but [`peer`](Self::peer) and [`emergency`](Self::emergency), and changes nothing of
    /// the request: an adapter may show an empty head.
    pub blind_request: bool,
    /// It reads nothing of a response's head and only sets fields of it, leaves the body alone and does not look at the clock:
    /// an adapter may show an empty head with the status 0, at the time of the request.
    pub blind_response: bool,
    /// Bytes of values that [`Effect::Store`](crate::Effect::Store) is to have room for; 0 when none is ever stored.
    pub shared_bytes: usize,
    /// Percent of these bytes that the machine is to have back at the emergency levels 1, 2 and 3: what was not used for
    /// longest goes, and no more is stored than has room in the rest. 75 at most. An adapter whose values are in memory that it
    /// can't give back says so at load.
    pub shared_released_percent: [u8; 3],
}

impl Wants {
    /// What two filters need together.
    pub fn and(self, other: Self) -> Self {
        Self {
            peer: self.peer || other.peer,
            route: self.route || other.route,
            emergency: self.emergency || other.emergency,
            exact_updates: self.exact_updates || other.exact_updates,
            blind_request: self.blind_request && other.blind_request,
            blind_response: self.blind_response && other.blind_response,
            shared_bytes: self.shared_bytes.saturating_add(other.shared_bytes),
            shared_released_percent: {
                let [a, b, c] = self.shared_released_percent;
                let [x, y, z] = other.shared_released_percent;
                [a.max(x), b.max(y), c.max(z)]
            },
        }
    }
}
