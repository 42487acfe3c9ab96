//! What a request of the cache's own can reach.

use bytes::Bytes;
use edgeweir_filter::{ConfigError, Cx, To};

use crate::key::{self, Target};
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

    /// Whether one would reach what a response came from.
    pub(crate) fn refreshes(&self, target: &Target, stored: &Stored, cx: &mut Cx<'_>) -> bool {
        let rerouted = self.settings.background.to == To::Onward && stored.conditions.rerouted;
        !rerouted && self.asks_for(target, cx)
    }
}
