//! What a request of the cache's own can reach.

use bytes::Bytes;
use edgeweir_filter::{ConfigError, Cx, FETCHED, To};

use crate::key::{self, Target};
use crate::lookup::Lookup;
use crate::store::Core;
use crate::stored::Stored;

impl Core {
    /// From now on a request to `background.cluster` can be for no other host than that; the error names the first URL of
    /// the list to be warmed that is.
    pub(crate) fn targets_are_hosts(&self) -> Result<(), ConfigError> {
        self.sends_as_target.set(true);
        let To::Named(name) = &self.settings.background.to else {
            return Ok(());
        };
        for (at, url) in self.settings.warm.urls.iter().enumerate() {
            if !self.is_for_its_host(&url.target()) {
                let message = format!(
                    "is for {:?}, must be for {name:?}: a component sends what goes to `background.cluster` with that as its Host; without `background.cluster` it goes where requests go, with its own",
                    url.authority
                );
                return Err(ConfigError::new(format!("warm.urls[{at}]"), message));
            }
        }
        Ok(())
    }

    /// Whether a request of the cache's own for a target would be for the target's host. RFC 9110 §7.2: `Host` "enables the
    /// origin server to distinguish among resources"; an answer to another host is not one for the key.
    fn is_for_its_host(&self, target: &Target) -> bool {
        match &self.settings.background.to {
            To::Named(name) if self.sends_as_target.get() => {
                let name = Bytes::copy_from_slice(name.as_bytes());
                key::authority(&target.scheme, &name) == target.authority
            }
            To::Named(_) | To::Onward => true,
        }
    }

    /// Whether there are requests of the cache's own for a target; one that would be for another host is counted.
    pub(crate) fn asks_for(&self, target: &Target, cx: &mut Cx<'_>) -> bool {
        let fits = self.is_for_its_host(target);
        if !fits && self.settings.background.enabled {
            cx.count("cache.background_other_host");
        }
        self.settings.background.enabled && fits
    }

    /// Whether one would reach what a response came from, and could bring back as much.
    pub(crate) fn refreshes(&self, lookup: &Lookup, stored: &Stored, cx: &mut Cx<'_>) -> bool {
        stored.body.len() <= FETCHED
            && self.asks_for(&lookup.target, cx)
            && self.reaches(lookup).is_some()
    }

    /// Whether a request for what is stored failed a while ago: RFC 5861 §3 has a cache "attempt to revalidate it", not with each
    /// request of a client while that fails.
    pub(crate) fn is_held_off(&self, lookup: &Lookup, cx: &Cx<'_>) -> bool {
        let held_off = self.held_off.borrow();
        held_off.knows(&lookup.flight(), cx.now)
    }

    /// What the way of a request is known by; one for the head alone may have a way of its own.
    pub(crate) fn way_of(&self, lookup: &Lookup) -> Option<u64> {
        let ways = self.ways.borrow();
        ways.key(&lookup.flight()).filter(|_| !lookup.is_head)
    }

    /// Where one for a key would reach what clients' requests do, if anywhere.
    pub(crate) fn reaches(&self, lookup: &Lookup) -> Option<To> {
        let to = &self.settings.background.to;
        let mut ways = self.ways.borrow_mut();
        match ways.key(&lookup.flight()) {
            Some(key) if *to == To::Onward => Some(To::Named(ways.take(key)?.to_owned())),
            _ => Some(to.clone()),
        }
    }
}
