//! The origin at the end of a chain: pooled HTTP/1.1 connections, or HTTP/2 with prior knowledge.

use std::io;
use std::time::Duration;

use async_trait::async_trait;
use edgeweir_host_chain::{Body, Error, Layer, Next, Request, Response, Unreached, empty, full};
use http::header::{self, HeaderMap, HeaderValue};
use http::uri::{Authority, PathAndQuery};
use http::{Method, StatusCode, Uri, Version};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use super::bodies::{Activity, Watched};
use super::fields;
use crate::config;

/// Idle connections kept to one upstream.
const IDLE_CONNECTIONS: usize = 256;
/// Flow control of HTTP/2: what one stream may have waiting, bytes. The connection's own window is out of the way, so
/// that a client which stops reading stops its own stream only.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1 << 30;

/// One upstream.
///
/// A failure before the response head is a response, 502 or 504, so that the filters see it as they do in Envoy; it is
/// marked [`Unreached`], by which filters of wasi:http get an error code. A failure after it is an error of the body.
pub struct Upstream {
    name: String,
    address: Authority,
    client: Wire,
    connect_timeout: Duration,
    timeout: Duration,
    idle_timeout: Duration,
}

enum Wire {
    Http1(Box<Client<HttpConnector, Body>>),
    /// One connection carries every stream; it is opened anew when it has closed.
    Http2(Mutex<Option<SendRequest<Body>>>),
}

/// Why there is no response head.
#[derive(Debug)]
enum Failure {
    Connect(String),
    ConnectTimeout(Duration),
    Timeout(Duration),
    Closed(String),
    Request(String),
}

impl Upstream {
    /// An upstream of a configuration.
    pub fn new(
        name: &str,
        settings: &config::Upstream,
        limits: &config::Limits,
    ) -> Result<Self, Error> {
        let connect_timeout = settings.connect_timeout_ms.millis();
        let client = if settings.http2 {
            Wire::Http2(Mutex::new(None))
        } else {
            let mut connector = HttpConnector::new();
            connector.set_nodelay(true);
            connector.set_connect_timeout(Some(connect_timeout));
            let client = Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .timer(TokioTimer::new())
                .pool_idle_timeout(Duration::from_secs(60))
                .pool_max_idle_per_host(IDLE_CONNECTIONS)
                .http1_max_headers(limits.headers.size())
                .http1_max_buf_size(limits.header_kib.size() * 1024)
                .build(connector);
            Wire::Http1(Box::new(client))
        };
        Ok(Self {
            name: name.to_owned(),
            address: settings.address.0.parse()?,
            client,
            connect_timeout,
            timeout: settings.timeout_ms.millis(),
            idle_timeout: settings.idle_timeout_ms.millis(),
        })
    }

    async fn send(&self, request: Request) -> Result<http::Response<Incoming>, Failure> {
        let (parts, body) = request.into_parts();
        let activity = Activity::start();
        // Nothing to note in a body that is not there; and a request without one can be sent twice.
        let repeatable = body.is_end_stream()
            && matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
        let body = if body.is_end_stream() {
            empty()
        } else {
            activity.noting(body)
        };
        let again = repeatable.then(|| parts.clone());
        let sent = async {
            match self.dispatch(Request::from_parts(parts, body)).await {
                // RFC 9110 §9.2.2: an idempotent request may be repeated when the connection closed under it, which a
                // kept connection does whenever the upstream's patience ends just then.
                Err(Failure::Closed(why)) => match again {
                    Some(parts) => {
                        tracing::debug!(upstream = self.name, why, "repeating a request");
                        self.dispatch(Request::from_parts(parts, empty())).await
                    }
                    None => Err(Failure::Closed(why)),
                },
                other => other,
            }
        };
        tokio::select! {
            response = sent => response,
            () = activity.silent_for(self.timeout) => Err(Failure::Timeout(self.timeout)),
        }
    }

    async fn dispatch(&self, request: Request) -> Result<http::Response<Incoming>, Failure> {
        match &self.client {
            Wire::Http1(client) => self.over_http1(client, request).await,
            Wire::Http2(connection) => self.over_http2(connection, request).await,
        }
    }

    async fn over_http1(
        &self,
        client: &Client<HttpConnector, Body>,
        mut request: Request,
    ) -> Result<http::Response<Incoming>, Failure> {
        let authority = authority_of(&request);
        // The pool is keyed by the address connected to; what the client asked for travels in Host.
        *request.uri_mut() = self.uri(&self.address, &request)?;
        *request.version_mut() = Version::HTTP_11;
        let host = match authority {
            Some(authority) => HeaderValue::from_str(authority.as_str()),
            None => HeaderValue::from_str(self.address.as_str()),
        }
        .map_err(|error| Failure::Request(error.to_string()))?;
        request.headers_mut().insert(header::HOST, host);
        if request.headers().contains_key(header::TE) {
            // RFC 9110 §10.1.4: a sender of TE names it in Connection.
            request
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("te"));
        }
        client.request(request).await.map_err(|error| {
            if error.is_connect() {
                if timed_out(&error) {
                    Failure::ConnectTimeout(self.connect_timeout)
                } else {
                    Failure::Connect(chain_of(&error))
                }
            } else {
                Failure::Closed(chain_of(&error))
            }
        })
    }

    async fn over_http2(
        &self,
        connection: &Mutex<Option<SendRequest<Body>>>,
        mut request: Request,
    ) -> Result<http::Response<Incoming>, Failure> {
        let authority = authority_of(&request).unwrap_or_else(|| self.address.clone());
        *request.uri_mut() = self.uri(&authority, &request)?;
        *request.version_mut() = Version::HTTP_2;
        // RFC 9113 §8.3.1: :authority is what a client generates; Host beside it could only contradict it.
        request.headers_mut().remove(header::HOST);
        let mut sender = self.connected(connection).await?;
        sender
            .ready()
            .await
            .map_err(|error| Failure::Closed(chain_of(&error)))?;
        sender
            .send_request(request)
            .await
            .map_err(|error| Failure::Closed(chain_of(&error)))
    }

    async fn connected(
        &self,
        connection: &Mutex<Option<SendRequest<Body>>>,
    ) -> Result<SendRequest<Body>, Failure> {
        let mut connection = connection.lock().await;
        if let Some(sender) = connection.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let opening = async {
            let stream = TcpStream::connect(self.address.as_str()).await?;
            stream.set_nodelay(true)?;
            hyper::client::conn::http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .handshake::<_, Body>(TokioIo::new(stream))
                .await
                .map_err(io::Error::other)
        };
        match tokio::time::timeout(self.connect_timeout, opening).await {
            Ok(Ok((sender, driver))) => {
                let name = self.name.clone();
                tokio::spawn(async move {
                    if let Err(error) = driver.await {
                        tracing::debug!(upstream = name, %error, "an HTTP/2 connection ended");
                    }
                });
                *connection = Some(sender.clone());
                Ok(sender)
            }
            Ok(Err(error)) => Err(Failure::Connect(chain_of(&error))),
            Err(_) => Err(Failure::ConnectTimeout(self.connect_timeout)),
        }
    }

    fn uri(&self, authority: &Authority, request: &Request) -> Result<Uri, Failure> {
        Uri::builder()
            .scheme("http")
            .authority(authority.clone())
            .path_and_query(
                request
                    .uri()
                    .path_and_query()
                    .cloned()
                    .unwrap_or(PathAndQuery::from_static("/")),
            )
            .build()
            .map_err(|error| Failure::Request(error.to_string()))
    }

    fn failed(&self, failure: &Failure) -> Response {
        let (status, kind, text, unreached) = match failure {
            Failure::Connect(why) => (
                StatusCode::BAD_GATEWAY,
                "connection_refused",
                format!("cannot connect: {why}"),
                Some(Unreached::Refused),
            ),
            Failure::ConnectTimeout(limit) => (
                StatusCode::GATEWAY_TIMEOUT,
                "connection_timeout",
                format!("no connection within {limit:?}"),
                Some(Unreached::ConnectTimeout),
            ),
            Failure::Timeout(limit) => (
                StatusCode::GATEWAY_TIMEOUT,
                "http_response_timeout",
                format!("no response within {limit:?}"),
                Some(Unreached::Timeout),
            ),
            Failure::Closed(why) => (
                StatusCode::BAD_GATEWAY,
                "connection_terminated",
                format!("no response: {why}"),
                Some(Unreached::Closed),
            ),
            Failure::Request(why) => (
                StatusCode::BAD_REQUEST,
                "http_request_error",
                format!("the request cannot be sent on: {why}"),
                None,
            ),
        };
        tracing::warn!(
            upstream = self.name,
            address = %self.address,
            status = status.as_u16(),
            "{text}"
        );
        let text = format!("upstream {}: {text}\n", self.name);
        let mut response = plain(status, Some(kind), text);
        if let Some(unreached) = unreached {
            response.extensions_mut().insert(unreached);
        }
        response
    }
}

#[async_trait]
impl Layer for Upstream {
    fn name(&self) -> &str {
        &self.name
    }

    async fn handle(&self, request: Request, _: Next) -> Result<Response, Error> {
        match self.send(request).await {
            Ok(response) => {
                let (mut parts, body) = response.into_parts();
                fields::strip_response(&mut parts.headers);
                parts.extensions.clear();
                let body = Watched::new(body, self.idle_timeout).boxed_unsync();
                Ok(Response::from_parts(parts, body))
            }
            Err(failure) => Ok(self.failed(&failure)),
        }
    }
}

/// A short text answer of the host itself; `error` is its `Proxy-Status` (RFC 9209) type.
pub fn plain(status: StatusCode, error: Option<&'static str>, text: String) -> Response {
    let length = text.len();
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    if let Some(error) = error
        && let Ok(value) = HeaderValue::from_str(&format!("edgeweir; error={error}"))
    {
        headers.insert("proxy-status", value);
    }
    response
}

/// Whom the request is for: the URI's authority, or the Host a filter wrote in its place.
fn authority_of(request: &Request) -> Option<Authority> {
    if let Some(authority) = request.uri().authority() {
        return Some(authority.clone());
    }
    let host = request.headers().get(header::HOST)?;
    Authority::try_from(host.as_bytes()).ok()
}

fn timed_out(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>()
            && io.kind() == io::ErrorKind::TimedOut
        {
            return true;
        }
        cause = error.source();
    }
    false
}

/// An error with its causes, outermost first.
fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
