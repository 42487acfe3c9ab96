//! The demo's origin: a few pages that each show one thing a filter does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use edgeweir_host_chain::{Body, Error, Response, empty, full};
use http::header::{self, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Channel, Limited};
use hyper::body::Incoming;

use super::pages;
use crate::serve::listener::Service;

/// What `/post` takes, bytes.
const POST_LIMIT: usize = 1024 * 1024;
/// Events of `/stream`, and the time between two.
const EVENTS: u32 = 10;
const EVENT_EVERY: Duration = Duration::from_millis(500);
const SLOW: Duration = Duration::from_secs(2);

/// The origin; it counts requests, so that a page shows which copy of it one sees.
#[derive(Default)]
pub struct Origin {
    served: AtomicU64,
}

impl Service for Origin {
    async fn answer(self: Arc<Self>, _: SocketAddr, request: Request<Incoming>) -> Response {
        let number = self.served.fetch_add(1, Relaxed) + 1;
        let method = request.method().clone();
        let mut response = match (request.method(), request.uri().path()) {
            (&Method::POST | &Method::PUT, "/post") => post(request).await,
            (&Method::GET | &Method::HEAD, path) => page(path, number, &request).await,
            _ => text(
                StatusCode::METHOD_NOT_ALLOWED,
                "GET, HEAD, or POST to /post\n".to_owned(),
            ),
        };
        response
            .headers_mut()
            .insert("x-origin-request", HeaderValue::from(number));
        if method == Method::HEAD {
            let (parts, _) = response.into_parts();
            return Response::from_parts(parts, empty());
        }
        response
    }
}

async fn page(path: &str, number: u64, request: &Request<Incoming>) -> Response {
    match path {
        "/" => {
            let mut response = text(StatusCode::OK, pages::INDEX.to_owned());
            set(&mut response, header::CACHE_CONTROL, "no-cache");
            response
        }
        "/json" => cacheable(
            request,
            "application/json",
            pages::json(),
            "\"catalogue-1\"",
        ),
        "/html" => cacheable(
            request,
            "text/html; charset=utf-8",
            pages::html(),
            "\"page-1\"",
        ),
        "/no-store" => {
            let body = format!("{{\n  \"request\": {number},\n  \"stored\": false\n}}\n");
            let mut response = typed("application/json", body);
            set(&mut response, header::CACHE_CONTROL, "no-store");
            response
        }
        "/slow" => {
            tokio::time::sleep(SLOW).await;
            let mut response = text(
                StatusCode::OK,
                format!("request {number} took {SLOW:?}; the next may be a hit\n"),
            );
            set(&mut response, header::CACHE_CONTROL, "max-age=30");
            response
        }
        "/stream" => {
            let mut response = Response::new(events());
            set(&mut response, header::CONTENT_TYPE, "text/event-stream");
            set(&mut response, header::CACHE_CONTROL, "no-store");
            response
        }
        _ => text(
            StatusCode::NOT_FOUND,
            format!("there is no page {path}\n\n{}", pages::INDEX),
        ),
    }
}

/// A page good for a minute, that answers 304 to its own validator.
fn cacheable(
    request: &Request<Incoming>,
    kind: &'static str,
    body: String,
    tag: &'static str,
) -> Response {
    let known = request
        .headers()
        .get_all(header::IF_NONE_MATCH)
        .into_iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(|member| member.trim_ascii())
        // RFC 9110 §13.1.2: If-None-Match compares weakly.
        .any(|member| {
            member.strip_prefix(b"W/").unwrap_or(member) == tag.as_bytes() || member == b"*"
        });
    let mut response = if known {
        let mut response = Response::new(empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        typed(kind, body)
    };
    set(&mut response, header::CACHE_CONTROL, "max-age=60");
    set(&mut response, header::ETAG, tag);
    response
}

async fn post(request: Request<Incoming>) -> Response {
    match Limited::new(request.into_body(), POST_LIMIT)
        .collect()
        .await
    {
        Ok(body) => {
            let bytes = body.to_bytes();
            let body = format!("{{\n  \"received\": {}\n}}\n", bytes.len());
            typed("application/json", body)
        }
        Err(_) => text(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("at most {POST_LIMIT} bytes, whole\n"),
        ),
    }
}

/// Server-sent events, one every half second.
fn events() -> Body {
    let (mut sender, body) = Channel::<Bytes, Error>::new(1);
    tokio::spawn(async move {
        for number in 1..=EVENTS {
            let event =
                format!("id: {number}\ndata: {{\"event\": {number}, \"of\": {EVENTS}}}\n\n");
            if sender.send(Frame::data(event.into())).await.is_err() {
                return; // the client left
            }
            tokio::time::sleep(EVENT_EVERY).await;
        }
    });
    body.boxed_unsync()
}

fn typed(kind: &'static str, body: String) -> Response {
    let length = body.len();
    let mut response = Response::new(full(body));
    set(&mut response, header::CONTENT_TYPE, kind);
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    response
}

fn text(status: StatusCode, body: String) -> Response {
    let mut response = typed("text/plain; charset=utf-8", body);
    *response.status_mut() = status;
    response
}

fn set(response: &mut Response, name: header::HeaderName, value: &'static str) {
    response
        .headers_mut()
        .insert(name, HeaderValue::from_static(value));
}
