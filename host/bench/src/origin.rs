//! The built-in origin: a few fixed responses, from a thread of its own.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpListener;

/// What can be asked of it, for the help.
pub const PAGES: &str = "/1k, /json (50 KB, pretty-printed), /html (100 KB), each good for no time; /cached/1k, /cached/json and \
    /cached/html for an hour; /slow takes 0.3 s";

/// An origin that serves until the program ends.
pub struct Origin {
    /// Where.
    pub address: SocketAddr,
}

struct Pages {
    small: Bytes,
    json: Bytes,
    html: Bytes,
}

impl Origin {
    /// Starts it.
    pub fn start() -> Result<Self> {
        let listener =
            std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("the origin's port")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let pages = Arc::new(Pages {
            small: Bytes::from("A kibibyte of text, more or less. ".repeat(31)).slice(..1_024),
            json: json().into(),
            html: html().into(),
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("the origin's runtime")?;
        std::thread::spawn(move || {
            runtime.block_on(async move {
                let Ok(listener) = TcpListener::from_std(listener) else {
                    return;
                };
                loop {
                    let Ok((stream, _)) = listener.accept().await else {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        continue;
                    };
                    let _ = stream.set_nodelay(true);
                    let pages = pages.clone();
                    tokio::spawn(async move {
                        let service = service_fn(move |request| {
                            let pages = pages.clone();
                            async move { Ok::<_, Infallible>(answer(&pages, &request).await) }
                        });
                        let builder = Builder::new(TokioExecutor::new());
                        // A connection that ends early is the proxy's affair.
                        let _ = builder
                            .serve_connection(TokioIo::new(stream), service)
                            .await;
                    });
                }
            });
        });
        Ok(Self { address })
    }
}

async fn answer(pages: &Pages, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let (cached, page) = match path.strip_prefix("/cached") {
        Some(rest) => (true, rest),
        None => (false, path),
    };
    let (kind, body) = match page {
        "/1k" | "/" => ("text/plain", pages.small.clone()),
        "/json" => ("application/json", pages.json.clone()),
        "/html" => ("text/html; charset=utf-8", pages.html.clone()),
        "/slow" => {
            tokio::time::sleep(Duration::from_millis(300)).await;
            ("text/plain", pages.small.clone())
        }
        _ => {
            let mut response = Response::new(Full::new(Bytes::from(format!("pages: {PAGES}\n"))));
            *response.status_mut() = StatusCode::NOT_FOUND;
            return response;
        }
    };
    let mut response = Response::new(Full::new(body));
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if cached {
        fields.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=3600"));
        fields.insert(ETAG, HeaderValue::from_static("\"one\""));
    } else {
        fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

fn json() -> String {
    let mut text = String::from("{\n  \"stations\": [\n");
    for index in 0..220 {
        let comma = if index < 219 { "," } else { "" };
        let _ = write!(
            text,
            "    {{\n      \"id\": {id},\n      \"name\": \"gauge {index}\",\n      \"river\": \"river {river}\",\n      \
             \"position\": [\n        {lat}.{fraction:04},\n        -{long}.{fraction:04}\n      ],\n      \
             \"level_m\": {level}.{cm:02},\n      \"online\": {online},\n      \"comment\": null\n    }}{comma}\n",
            id = 9_007_199_254_u64 + index * 7_919,
            river = index * 31 % 17,
            lat = index % 90,
            long = index * 13 % 180,
            fraction = index * 1_237 % 10_000,
            level = index % 7,
            cm = index * 37 % 100,
            online = index % 5 != 0,
        );
    }
    text.push_str("  ]\n}\n");
    text
}

fn html() -> String {
    let mut text = String::from("<!doctype html>\n<title>Gauges</title>\n<table>\n");
    for index in 0..760 {
        let _ = write!(
            text,
            "  <tr class=\"{parity}\">\n    <td><a href=\"/stations/{index}\">gauge {index}</a></td>\n    \
             <td>river {river}</td>\n    <td class=\"number\">{level}.{cm:02} m</td>\n  </tr>\n",
            parity = if index % 2 == 0 { "even" } else { "odd" },
            river = index * 31 % 17,
            level = index % 7,
            cm = index * 37 % 100,
        );
    }
    text.push_str("</table>\n");
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_pages_have_the_size_they_are_said_to_have() {
        let json = super::json();
        assert!((45_000..60_000).contains(&json.len()), "{}", json.len());
        serde_json::from_str::<serde_json::Value>(&json).expect("JSON");
        let html = super::html().len();
        assert!((90_000..120_000).contains(&html), "{html}");
    }
}
