//! The way a request takes through a listener: its chain of filters and what stands at the end of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use async_trait::async_trait;
use edgeweir_host_chain::{Error, Layer, Next, Request, Response};
use edgeweir_host_formats::action::{Edits, Redirect, Respond};
use edgeweir_host_formats::route::{Asked, PathMatch, Segments, Table};
use edgeweir_host_proxy_wasm::Notes;
use edgeweir_host_wasi_http::RouteFields;
use http::header::{HeaderValue, LOCATION};
use http::{StatusCode, Uri, header};

use crate::serve::plain;
use crate::within::Inside;

/// The ways of a listener.
pub struct Routes {
    table: Table<Taken>,
    /// Where a request goes that takes none.
    lost: Next,
    /// Components by their names, where they reach each other.
    services: BTreeMap<String, Next>,
}

/// A way, with its chains.
pub struct Taken {
    /// Its name.
    pub name: String,
    /// Upstreams by weight; one chain for each.
    pub chains: Vec<Chain>,
    /// Counts requests, to share them among the chains.
    pub turn: AtomicU32,
    /// The route of a Spin manifest, as it is written and read.
    pub spin: Option<(String, Segments)>,
}

/// A chain to its end.
pub struct Chain {
    /// Its share.
    pub weight: u32,
    /// What modules are told it leads to.
    pub cluster: String,
    /// The filters and the end.
    pub next: Next,
}

impl Taken {
    /// The chain whose turn it is: each its share, spread.
    fn chain(&self) -> Option<&Chain> {
        if let [only] = self.chains.as_slice() {
            return Some(only);
        }
        let all: u32 = self.chains.iter().map(|chain| chain.weight).sum();
        // Steps that share no divisor with most sums visit the shares in a mixed order.
        let turn = self.turn.fetch_add(1, Relaxed).wrapping_mul(7919);
        let mut at = turn.checked_rem(all)?;
        self.chains
            .iter()
            .find(|chain| match at.checked_sub(chain.weight) {
                Some(rest) => {
                    at = rest;
                    false
                }
                None => true,
            })
    }
}

impl Routes {
    /// The ways of a table; `lost` answers what takes none, `services` are what components reach by name.
    pub fn new(table: Table<Taken>, lost: Next, services: BTreeMap<String, Next>) -> Self {
        Self {
            table,
            lost,
            services,
        }
    }

    /// A component and what stands before it.
    pub fn service(&self, id: &str) -> Option<Next> {
        self.services.get(id).cloned()
    }

    /// Sends a request its way. The layers see which it is by an extension.
    pub async fn run(self: &Arc<Self>, mut request: Request) -> Result<Response, Error> {
        let (next, route, fields) = {
            let found = self.table.find(&Asked {
                authority: request.uri().authority().map_or("", |it| it.as_str()),
                path: request.uri().path(),
                query: request.uri().query(),
                method: request.method(),
                fields: request.headers(),
            });
            let host = found.map_or("", |(host, _)| host).to_owned();
            let taken = found.and_then(|(_, way)| way);
            match taken.and_then(|way| Some((way, way.chain()?))) {
                Some((way, chain)) => (
                    chain.next.clone(),
                    edgeweir_host_proxy_wasm::Route {
                        cluster: chain.cluster.clone(),
                        route: way.name.clone(),
                        virtual_host: host,
                    },
                    way.spin
                        .as_ref()
                        .map(|(route, pattern)| spin_fields(route, pattern, request.uri())),
                ),
                None => (
                    self.lost.clone(),
                    edgeweir_host_proxy_wasm::Route {
                        cluster: String::new(),
                        route: String::new(),
                        virtual_host: host,
                    },
                    None,
                ),
            }
        };
        request.extensions_mut().insert(route);
        if !self.services.is_empty() {
            // One that comes from within has its own, which knows how deep it is.
            let within = || Inside::of(self);
            request.extensions_mut().get_or_insert_with(within);
        }
        if let Some(fields) = fields {
            request.extensions_mut().insert(fields);
        }
        next.run(request).await
    }
}

/// What Spin tells a component of the route that led to it.
fn spin_fields(route: &str, pattern: &Segments, uri: &Uri) -> RouteFields {
    let (bound, rest) = pattern.bind(uri.path()).unwrap_or_default();
    let plain = route.strip_suffix("/...").unwrap_or(route);
    let mut fields = vec![
        ("spin-full-url".to_owned(), uri.to_string()),
        ("spin-path-info".to_owned(), rest.to_owned()),
        ("spin-matched-route".to_owned(), route.to_owned()),
        ("spin-raw-component-route".to_owned(), route.to_owned()),
        ("spin-component-route".to_owned(), plain.to_owned()),
        ("spin-base-path".to_owned(), "/".to_owned()),
    ];
    for (name, value) in bound {
        fields.push((format!("spin-path-match-{name}"), value.to_owned()));
    }
    RouteFields::of(fields)
}

/// Changes a request behind the filters, and the response in front of them.
pub struct Editing {
    /// What to change.
    pub edits: Edits,
    /// How the route looks at the path.
    pub matched: PathMatch,
}

#[async_trait]
impl Layer for Editing {
    fn name(&self) -> &str {
        "route"
    }

    async fn handle(&self, mut request: Request, next: Next) -> Result<Response, Error> {
        let Some(target) = self.edits.target(request.uri(), &self.matched) else {
            let text = "the route makes no target of this path\n".to_owned();
            return Ok(plain(StatusCode::BAD_REQUEST, None, text));
        };
        if let Some(notes) = request.extensions().get::<Notes>() {
            let path = target.path_and_query().map_or("/", |path| path.as_str());
            let authority = self.edits.host.as_ref().and(target.authority());
            notes.rewrite(path, authority.map(|it| it.as_str()));
        }
        *request.uri_mut() = target;
        if self.edits.host.is_some() {
            request.headers_mut().remove(header::HOST);
        }
        for edits in &self.edits.request {
            edits.apply(request.headers_mut());
        }
        let mut response = next.run(request).await?;
        for edits in &self.edits.response {
            edits.apply(response.headers_mut());
        }
        Ok(response)
    }
}

/// Answers with a redirect.
pub struct Redirecting {
    /// Where to.
    pub redirect: Redirect,
    /// How the route looks at the path.
    pub matched: PathMatch,
}

#[async_trait]
impl Layer for Redirecting {
    fn name(&self) -> &str {
        "redirect"
    }

    async fn handle(&self, request: Request, _: Next) -> Result<Response, Error> {
        let uri = request.uri();
        let tls = uri.scheme_str() == Some("https");
        let (status, location) = self.redirect.location(uri, tls, &self.matched);
        let mut response = empty(status);
        // A path has no bytes that a field may not.
        if let Ok(location) = HeaderValue::try_from(location) {
            response.headers_mut().insert(LOCATION, location);
        }
        Ok(response)
    }
}

/// Answers with a fixed text.
pub struct Responding(pub Respond);

#[async_trait]
impl Layer for Responding {
    fn name(&self) -> &str {
        "respond"
    }

    async fn handle(&self, _: Request, _: Next) -> Result<Response, Error> {
        let Respond { status, body } = &self.0;
        if body.is_empty() {
            return Ok(empty(*status));
        }
        let mut response = plain(*status, None, body.clone());
        // As Envoy writes it.
        let text = HeaderValue::from_static("text/plain");
        response.headers_mut().insert(header::CONTENT_TYPE, text);
        Ok(response)
    }
}

/// Answers what takes no way: 404 with the reason in `Proxy-Status`.
pub struct Lost;

#[async_trait]
impl Layer for Lost {
    fn name(&self) -> &str {
        "no route"
    }

    async fn handle(&self, _: Request, _: Next) -> Result<Response, Error> {
        let mut response = empty(StatusCode::NOT_FOUND);
        // RFC 9209 §2.3.4: "the intermediary cannot determine the appropriate next hop to use for this request".
        let why = HeaderValue::from_static("edgeweir; error=destination_not_found");
        response.headers_mut().insert("proxy-status", why);
        Ok(response)
    }
}

fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(edgeweir_host_chain::empty());
    *response.status_mut() = status;
    // RFC 9110 §8.6: no length with a 204.
    if status != StatusCode::NO_CONTENT {
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, 0.into());
    }
    response
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn chains_get_their_shares() {
        let chain = |weight, cluster: &str| Chain {
            weight,
            cluster: cluster.to_owned(),
            next: Next::new(vec![Arc::new(Lost)]),
        };
        let taken = Taken {
            name: String::new(),
            chains: vec![chain(90, "a"), chain(10, "b"), chain(0, "c")],
            turn: AtomicU32::new(0),
            spin: None,
        };
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..1000 {
            let chain = taken.chain().expect("a share");
            *counts.entry(chain.cluster.as_str()).or_insert(0) += 1;
        }
        assert_eq!(
            counts.into_iter().collect::<Vec<_>>(),
            [("a", 900), ("b", 100)]
        );
        let none = Taken {
            name: String::new(),
            chains: Vec::new(),
            turn: AtomicU32::new(0),
            spin: None,
        };
        assert!(none.chain().is_none());
    }
}
