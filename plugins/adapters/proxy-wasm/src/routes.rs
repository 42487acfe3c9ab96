//! How a request went that a filter sent on.
//!
//! A host rewrites path and authority when the filter has let the request go, and Envoy shows a request again only when
//! the exchange is logged, after its response. So what became of it is learnt when it is over, and holds for what asks for the same.

use edgeweir_filter::Way;

use crate::hostcalls;

/// A request as the filter sent it on.
pub struct Sent {
    path: bytes::Bytes,
    authority: bytes::Bytes,
    answered: bool,
}

impl Sent {
    /// With this path and authority.
    pub fn new(path: bytes::Bytes, authority: bytes::Bytes) -> Self {
        Self {
            path,
            authority,
            answered: false,
        }
    }

    /// A response came. One that the host or another filter made up says nothing: the request may not have come as far as to
    /// what would have rewritten it.
    pub fn answered(&mut self) {
        self.answered = hostcalls::property("response\0code_details")
            .is_ok_and(|details| details == b"via_upstream");
    }

    /// How it went, once the exchange is over; `None` where the host doesn't show that even then.
    pub fn way(&self) -> Option<Way> {
        let shown = |name| hostcalls::property(name).ok().filter(|_| self.answered);
        let (path, authority) = (shown("request\0path")?, shown("request\0host")?);
        Some(Way {
            rewritten: path != self.path || authority != self.authority,
            to: String::from_utf8(shown("xds\0cluster_name")?).ok()?,
        })
    }
}

/// Whether the host followed a redirect of the origin itself: the request's exchange ended without a response, and another began.
pub fn followed() -> bool {
    hostcalls::property("response\0code_details")
        .is_ok_and(|details| details == b"internal_redirect")
}
