//! The admin pages: metrics for Prometheus, health, and a live dashboard.

mod metrics;
mod process;
mod stats;

use std::net::SocketAddr;
use std::sync::Arc;

use edgeweir_host_chain::{Response, empty, full};
use http::header::{self, HeaderValue};
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;

use crate::host::Live;
use crate::serve::listener::Service;
use crate::serve::plain;

pub use metrics::text as metrics_text;
pub use stats::json as stats_json;

const DASHBOARD: &str = include_str!("dashboard.html");

/// The pages of one host.
pub struct Admin {
    live: Live,
}

impl Admin {
    /// Pages about what is served when they are asked for.
    pub fn new(live: Live) -> Self {
        Self { live }
    }

    fn page(&self, path: &str) -> Response {
        match path {
            "/" => typed("text/html; charset=utf-8", DASHBOARD.to_owned()),
            "/stats.json" => typed("application/json", stats_json(&self.live.now()).to_string()),
            // The version is what makes Prometheus read it as text format 0.0.4.
            "/metrics" => typed(
                "text/plain; version=0.0.4; charset=utf-8",
                metrics_text(&self.live.now()),
            ),
            // Alive is to answer at all; ready is to have loaded every filter and bound every listener.
            "/healthz" => typed("text/plain", "ok\n".to_owned()),
            "/readyz" if self.ready() => typed("text/plain", "ready\n".to_owned()),
            "/readyz" => plain(
                StatusCode::SERVICE_UNAVAILABLE,
                None,
                "starting\n".to_owned(),
            ),
            _ => plain(
                StatusCode::NOT_FOUND,
                None,
                "pages: / /stats.json /metrics /healthz /readyz\n".to_owned(),
            ),
        }
    }

    fn ready(&self) -> bool {
        self.live
            .now()
            .listeners
            .iter()
            .all(|it| it.address.get().is_some())
    }
}

impl Service for Admin {
    async fn answer(self: Arc<Self>, _: SocketAddr, request: Request<Incoming>) -> Response {
        if !for_this_machine(&request) {
            return plain(
                StatusCode::FORBIDDEN,
                None,
                "the admin pages answer to an address or to localhost only\n".to_owned(),
            );
        }
        match *request.method() {
            Method::GET => self.page(request.uri().path()),
            Method::HEAD => {
                let (parts, _) = self.page(request.uri().path()).into_parts();
                Response::from_parts(parts, empty())
            }
            _ => {
                let text = "these pages are to be read\n".to_owned();
                let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, None, text);
                response
                    .headers_mut()
                    .insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
                response
            }
        }
    }
}

/// A page of another site can point its own name at this address; its scripts would then read what is here.
fn for_this_machine(request: &Request<Incoming>) -> bool {
    let host = match request.uri().authority() {
        Some(authority) => Some(authority.clone()),
        None => request
            .headers()
            .get(header::HOST)
            .and_then(|host| http::uri::Authority::try_from(host.as_bytes()).ok()),
    };
    host.is_none_or(|host| {
        let name = host.host().trim_start_matches('[').trim_end_matches(']');
        name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok()
    })
}

fn typed(kind: &'static str, text: String) -> Response {
    let mut response = Response::new(full(text));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}
