//! An application of Spin that calls itself: `http://self` is its own routes, `http://ID.spin.internal` one of its components.
//!
//! Nothing of it takes the network: who has a component at the end of a private route reaches it by no address.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Weak};

use edgeweir_host_chain::{Answering, Clusters, Peer, Request, Within};
use http::header::HOST;

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
    let host = name.strip_suffix(":80")?;
    match host.strip_suffix(".spin.internal") {
        Some(id) => Some(Goal::Component(id)),
        None => (host == "self").then_some(Goal::Routes),
    }
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
            ("self:80", Some(None)),
            ("app.spin.internal:80", Some(Some("app"))),
            ("self:8080", None),
            ("myself:80", None),
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
}
