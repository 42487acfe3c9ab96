//! An application of Spin that calls itself: a request that names no host, or `self.alt`, is for its own routes, one for
//! `ID.spin.internal` for one of its components, whatever the scheme and the port.
//!
//! Nothing of it takes the network: who has a component at the end of a private route reaches it by no address.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Weak};

use edgeweir_host_chain::{Answering, Clusters, Peer, Request, Within};
use edgeweir_host_formats::outbound::SELF;
use http::Uri;
use http::header::HOST;
use http::uri::{Authority, Scheme};

use crate::routing::Routes;

/// How many requests within may hang on each other.
const DEEPEST: u32 = 16;

/// The routes of a listener, as its own components see them.
pub struct Inside {
    routes: Weak<Routes>,
    /// How deep in the application a request is; none of a client's is.
    depth: u32,
}

impl Inside {
    /// What a client's request has with it on its way through these routes.
    pub fn of(routes: &Arc<Routes>) -> Within {
        Within(Arc::new(Self {
            routes: Arc::downgrade(routes),
            depth: 0,
        }))
    }
}

enum Goal<'a> {
    Routes,
    Component(&'a str),
}

/// Whom `host:port` names.
fn goal(name: &str) -> Option<Goal<'_>> {
    let host = name.rsplit_once(':').map_or(name, |(host, _)| host);
    match host.strip_suffix(".spin.internal") {
        Some(id) => Some(Goal::Component(id)),
        None => (host == SELF).then_some(Goal::Routes),
    }
}

/// The target of a request to oneself, which is plain HTTP and may have named no host.
///
/// RFC 9110 §4.2.1: "A sender MUST NOT generate an "http" URI with an empty host identifier."
fn addressed(uri: Uri, goal: &Goal<'_>) -> Uri {
    let mut parts = uri.into_parts();
    parts.scheme = Some(Scheme::HTTP);
    if matches!(goal, Goal::Routes) {
        parts.authority = Some(Authority::from_static("localhost"));
    }
    Uri::from_parts(parts).unwrap_or_default()
}

impl Clusters for Inside {
    fn knows(&self, name: &str) -> bool {
        goal(name).is_some()
    }

    fn call(&self, name: &str, mut request: Request) -> Answering {
        if self.depth == DEEPEST {
            tracing::warn!(
                "a request of a component to its own application denied: {DEEPEST} others wait for each other"
            );
            return Box::pin(async { Err("the application calls itself without end".into()) });
        }
        let (Some(goal), Some(routes)) = (goal(name), self.routes.upgrade()) else {
            return Box::pin(async { Err("the application is no more".into()) });
        };
        *request.uri_mut() = addressed(std::mem::take(request.uri_mut()), &goal);
        request.headers_mut().remove(HOST);
        let extensions = request.extensions_mut();
        extensions.insert(Peer(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))));
        extensions.insert(Within(Arc::new(Self {
            routes: self.routes.clone(),
            depth: self.depth + 1,
        })));
        match goal {
            Goal::Routes => Box::pin(async move { routes.run(request).await }),
            Goal::Component(id) => match routes.service(id) {
                Some(next) => Box::pin(next.run(request)),
                None => Box::pin(async { Err("no such component has a trigger".into()) }),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_within_are_spins() {
        for (name, want) in [
            ("self.alt:80", Some(None)),
            ("self.alt:443", Some(None)),
            ("app.spin.internal:80", Some(Some("app"))),
            ("app.spin.internal:8443", Some(Some("app"))),
            ("self:80", None),
            ("my.self.alt:80", None),
            ("spin.internal:80", None),
            ("a.example:80", None),
        ] {
            let found = goal(name).map(|it| match it {
                Goal::Routes => None,
                Goal::Component(id) => Some(id),
            });
            assert_eq!(found, want, "{name}");
        }
    }

    #[test]
    fn a_request_to_oneself_has_a_host() {
        for (from, goal, want) in [
            ("https://:443/a?b", Goal::Routes, "http://localhost/a?b"),
            ("http://self.alt/a", Goal::Routes, "http://localhost/a"),
            (
                "https://app.spin.internal/a",
                Goal::Component("app"),
                "http://app.spin.internal/a",
            ),
        ] {
            let uri = from.parse().expect("a target");
            assert_eq!(addressed(uri, &goal), want, "{from}");
        }
    }
}
