//! How clients' requests for a key went: what lets one of the cache's own go past the edge's routes.
//!
//! A request of the cache's own goes straight to a cluster. It is for the same resource only where the route sends a
//! client's request on as it came, which depends on anything in it: so it is known per key and variant, from a client's
//! request that the origin answered, and only for a while, because a route may be changed.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use edgeweir_filter::Way;
use lru::LruCache;

/// Keys that are known at most.
const KNOWN: usize = 8192;
/// Requests of the cache's own for a key until a client's goes once more.
const TRUSTED: u8 = 8;

/// What is known.
pub struct Ways {
    /// The edge has routes that a request of the cache's own does not take. Without them nothing has to be known.
    pub routes: bool,
    random: RandomState,
    /// Of keys whose requests go on as they come: where to, and how often that is still believed.
    known: LruCache<u64, (String, u8), RandomState>,
}

impl Ways {
    /// Nothing, on an edge without routes.
    pub fn new() -> Self {
        Self {
            routes: false,
            random: RandomState::new(),
            known: LruCache::unbounded_with_hasher(RandomState::new()),
        }
    }

    /// What a key is known by, where anything is.
    pub fn key(&self, flight: &[u8]) -> Option<u64> {
        self.routes.then(|| self.random.hash_one(flight))
    }

    /// A client's request went this way.
    pub fn learn(&mut self, key: u64, way: &Way) {
        if way.rewritten {
            self.known.pop(&key);
            return;
        }
        self.known.put(key, (way.to.clone(), TRUSTED));
        while self.known.len() > KNOWN {
            self.known.pop_lru();
        }
    }

    /// Where clients' requests go as they come; the asker sends one there itself.
    pub fn take(&mut self, key: u64) -> Option<&str> {
        let (to, left) = self.known.get_mut(&key)?;
        *left = left.checked_sub(1)?;
        Some(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(to: &str, rewritten: bool) -> Way {
        Way {
            rewritten,
            to: to.to_owned(),
        }
    }

    #[test]
    fn what_goes_on_as_it_comes_is_believed_for_a_while() {
        let mut ways = Ways::new();
        assert_eq!(ways.key(b"a"), None, "nothing has to be known");
        ways.routes = true;
        let keys = [&b"a"[..], b"b"].map(|name| ways.key(name).expect("routes"));
        let [a, b] = keys;
        assert_eq!(ways.take(a), None, "never seen");
        ways.learn(a, &way("one", false));
        ways.learn(b, &way("one", true));
        for _ in 0..TRUSTED {
            assert_eq!(ways.take(a), Some("one"));
        }
        assert_eq!(ways.take(a), None, "the route may be another by now");
        assert_eq!(ways.take(b), None, "rewritten");
        ways.learn(a, &way("two", false));
        assert_eq!(ways.take(a), Some("two"));
        ways.learn(a, &way("two", true));
        assert_eq!(ways.take(a), None, "the route was changed");
    }

    #[test]
    fn it_is_bounded() {
        let mut ways = Ways::new();
        for key in 0..2 * KNOWN as u64 {
            ways.learn(key, &way("one", false));
        }
        assert_eq!(ways.known.len(), KNOWN);
        assert_eq!(ways.take(0), None);
        assert_eq!(ways.take(KNOWN as u64), Some("one"));
    }
}
