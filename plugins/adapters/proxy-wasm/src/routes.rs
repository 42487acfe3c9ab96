//! Whether a route asks the origin for something else than the filter sent on.
//!
//! A host rewrites path and authority when the filter has let the request go, and Envoy shows a request again only when
//! the exchange is logged, after its response. So what a route does is learnt from the exchange before: the first
//! response by a way in each worker counts as rewritten, and a way on which a rewrite was seen once stays a
//! rewriting one. A way is a route's name, its cluster, the authority and the path's first segment.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use crate::hostcalls;

/// The most ways that are known; all others count as rewriting.
const WAYS: usize = 1024;

/// What is known of the ways of one filter's requests.
#[derive(Default)]
pub struct Routes {
    random: RandomState,
    /// Whether a way rewrites.
    known: RefCell<HashMap<u64, bool>>,
}

/// A request as the filter sent it on.
pub struct Sent {
    path: bytes::Bytes,
    authority: bytes::Bytes,
    /// The way it went, once that was asked for.
    way: Option<u64>,
}

impl Sent {
    /// With this path and authority.
    pub fn new(path: bytes::Bytes, authority: bytes::Bytes) -> Self {
        Self {
            path,
            authority,
            way: None,
        }
    }

    /// Whether the host asked for something else; `None` when it doesn't show that now.
    fn is_rewritten(&self) -> Option<bool> {
        let path = hostcalls::property("request\0path").ok()?;
        let authority = hostcalls::property("request\0host").ok()?;
        Some(path != self.path || authority != self.authority)
    }
}

impl Routes {
    /// Whether the response that came is one to a rewritten request, as far as can be known.
    pub fn rewrites(&self, sent: &mut Sent) -> bool {
        if let Some(rewritten) = sent.is_rewritten() {
            return rewritten;
        }
        let way = self.way(sent);
        sent.way = Some(way);
        let known = self.known.try_borrow();
        known.ok().and_then(|known| known.get(&way).copied()) != Some(false)
    }

    /// Learns from an exchange that is over; nothing where the host doesn't show the request even now.
    pub fn learn(&self, sent: &Sent) {
        let (Some(way), Some(rewritten)) = (sent.way, sent.is_rewritten()) else {
            return;
        };
        if let Ok(mut known) = self.known.try_borrow_mut()
            && (known.len() < WAYS || known.contains_key(&way))
        {
            *known.entry(way).or_default() |= rewritten;
        }
    }

    fn way(&self, sent: &Sent) -> u64 {
        let property = |path| hostcalls::property(path).unwrap_or_default();
        let segment = sent
            .path
            .split(|byte| matches!(byte, b'/' | b'?'))
            .nth(1)
            .unwrap_or_default();
        self.random.hash_one((
            property("xds\0route_name"),
            property("xds\0cluster_name"),
            &sent.authority,
            segment,
        ))
    }
}
