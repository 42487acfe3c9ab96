//! One request of a listener: made ready for the chain, run through it, and its response made ready for the client.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use edgeweir_host_chain::{Emergency, EndToEnd, Peer, Request, Response, Timeline};
use edgeweir_host_exchanges::recorder::Received;
use edgeweir_host_upstream::bodies::Watched;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, StatusCode, Uri, Version};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::access::{About, AccessLog};
use super::bodies::{Counted, OnEnd};
use super::fields;
use super::listener::Secure;
use super::listener::Service;
use super::plain;
use super::request_id;
use crate::config::{RequestId, StripPort};
use crate::monitor::Watch;
use crate::reload::Generation;
use crate::routing::Routes;
use crate::stats::{Ended, ListenerStats, nearest, reused};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// What is kept of a path for the dashboard, and of a field, bytes.
const PATH_KEPT: usize = 200;
/// What is kept of a method, bytes: the longest that is registered has 17.
const METHOD_KEPT: usize = 32;
/// What is written of a path to the access log, bytes: 8,192 lines may wait.
const PATH_LOGGED: usize = 2_048;
/// At the end of what was cut.
const CUT: char = '…';

/// A listener's chain, and what it did.
pub struct Site {
    /// The name of the listener.
    pub name: String,
    /// The ways of its requests: filters, and what is behind them.
    pub routes: Arc<Routes>,
    /// The client's address is put into `X-Forwarded-For`.
    pub forwarded_for: bool,
    /// The port that is taken off whom a request is for.
    pub strip_port: StripPort,
    /// The listener's own port.
    pub port: u16,
    /// The most fields a request may have.
    pub headers: usize,
    /// How long a client may send nothing of a body.
    pub stall_timeout: Duration,
    /// Counts.
    pub stats: Arc<ListenerStats>,
    /// Says how short the machine is.
    pub watch: Arc<Watch>,
    /// What is told besides.
    pub telling: Telling,
    /// The generation it is part of, which lives as long as its exchanges.
    pub generation: Generation,
}

/// What an exchange says of itself, on its way and afterwards.
#[derive(Clone, Default)]
pub struct Telling {
    /// `Server-Timing` in the response.
    pub server_timing: bool,
    /// What becomes of `x-request-id`.
    pub request_id: RequestId,
    /// It is returned in the response.
    pub request_id_in_response: bool,
    /// A recording wants the fields that the client sent.
    pub received: bool,
    /// Where a line is written.
    pub access_log: Option<Arc<AccessLog>>,
}

/// What of a request is wanted when its response comes.
struct Asked {
    head: bool,
    timeline: Option<Timeline>,
    request_id: Option<HeaderValue>,
    /// Where it has a body: whether nothing came of it for too long.
    stalled: Option<Arc<AtomicBool>>,
}

impl Service for Site {
    async fn answer(
        self: Arc<Self>,
        peer: SocketAddr,
        request: http::Request<Incoming>,
    ) -> Response {
        let mut pending = Pending::begin(&self.stats, &self.generation, &request);
        let mut asked = Asked {
            head: request.method() == Method::HEAD,
            timeline: None,
            request_id: None,
            stalled: None,
        };
        if let Some(log) = &self.telling.access_log {
            pending.log = Some((log.clone(), self.about(peer, &request)));
        }
        let response = match self.prepare(peer, request, &mut asked, &mut pending) {
            Ok(request) => match self.routes.run(request).await {
                // RFC 9110 §15.5.9: whatever was made of it, the request was not complete in time.
                _ if asked.stalled.as_ref().is_some_and(|it| it.load(Relaxed)) => plain(
                    StatusCode::REQUEST_TIMEOUT,
                    None,
                    format!("nothing of the body came for {:?}\n", self.stall_timeout),
                ),
                Ok(response) => response,
                Err(error) => {
                    tracing::warn!(listener = self.name, %error, "an exchange failed");
                    plain(
                        StatusCode::BAD_GATEWAY,
                        Some("proxy_internal_error"),
                        format!("the exchange failed: {error}\n"),
                    )
                }
            },
            Err(refused) => *refused,
        };
        self.finish(response, asked, pending)
    }

    fn stats(&self) -> Option<Arc<ListenerStats>> {
        Some(self.stats.clone())
    }
}

impl Site {
    /// Checks a request and brings it into the form layers get: an absolute URI that says whom it is for, no `Host`
    /// beside it, nothing of the client's connection, the client in `X-Forwarded-For` and in [`Peer`].
    fn prepare(
        &self,
        peer: SocketAddr,
        request: http::Request<Incoming>,
        asked: &mut Asked,
        pending: &mut Pending,
    ) -> Result<Request, Box<Response>> {
        let refuse = |status, text: String| Err(Box::new(plain(status, None, text)));
        let (mut parts, body) = request.into_parts();
        let received = self.telling.received.then(|| received(&parts.headers));
        let made = || uuid::Uuid::new_v4().to_string();
        asked.request_id = request_id::identify(&mut parts.headers, self.telling.request_id, made);
        if let (Some((_, about)), Some(id)) = (&mut pending.log, &asked.request_id) {
            about.request_id = id.to_str().ok().map(str::to_owned);
        }
        if parts.headers.len() > self.headers {
            return refuse(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                format!("a request may have {} fields\n", self.headers),
            );
        }
        if parts.method == Method::CONNECT {
            return refuse(
                StatusCode::NOT_IMPLEMENTED,
                "CONNECT: this is a reverse proxy, it opens no tunnels\n".to_owned(),
            );
        }
        if parts.version < Version::HTTP_2 && fields::wants_upgrade(&parts.headers) {
            return refuse(
                StatusCode::NOT_IMPLEMENTED,
                "Upgrade: this host does not switch protocols (no WebSocket)\n".to_owned(),
            );
        }
        let authority = match authority_of(&parts) {
            Ok(authority) => authority.map(|it| self.stripped(it)),
            Err(text) => return refuse(StatusCode::BAD_REQUEST, format!("{text}\n")),
        };
        if parts.uri.path() == "*" {
            // RFC 9110 §9.3.7: OPTIONS * asks about the server as a whole, which is this one.
            let mut response = Response::new(edgeweir_host_chain::empty());
            response
                .headers_mut()
                .insert(header::CONTENT_LENGTH, 0.into());
            return Err(Box::new(response));
        }
        let secure = parts.extensions.get::<Secure>().is_some();
        let path = parts.uri.path_and_query().cloned();
        let mut uri = http::uri::Parts::default();
        uri.path_and_query = Some(path.unwrap_or(PathAndQuery::from_static("/")));
        if let Some(authority) = authority {
            uri.scheme = Some(if secure { Scheme::HTTPS } else { Scheme::HTTP });
            uri.authority = Some(authority);
        }
        parts.uri = match Uri::from_parts(uri) {
            Ok(uri) => uri,
            Err(error) => return refuse(StatusCode::BAD_REQUEST, format!("the target: {error}\n")),
        };
        parts.headers.remove(header::HOST);
        let named = fields::strip_request(&mut parts.headers);
        fields::join_cookies(&mut parts.headers);
        if self.forwarded_for {
            fields::append_forwarded_for(&mut parts.headers, peer.ip());
        }
        if secure {
            // What the client says of its own connection is not its to say.
            let https = HeaderValue::from_static("https");
            parts.headers.insert("x-forwarded-proto", https);
        }
        parts.extensions.clear();
        parts.extensions.insert(Peer(peer));
        if let Some(received) = received {
            parts.extensions.insert(received);
        }
        if !self.watch.accept_field {
            parts.headers.remove(Emergency::FIELD);
        }
        parts.extensions.insert(self.watch.emergency());
        if self.telling.server_timing || pending.log.is_some() {
            let timeline = Timeline::default();
            parts.extensions.insert(timeline.clone());
            if let Some((_, about)) = &mut pending.log {
                about.timeline = Some(timeline.clone());
            }
            asked.timeline = Some(timeline).filter(|_| self.telling.server_timing);
        }
        if body.is_end_stream() {
            return Ok(Request::from_parts(parts, edgeweir_host_chain::empty()));
        }
        let stalled = asked.stalled.insert(Arc::default()).clone();
        let late = move |limit| {
            stalled.store(true, Relaxed);
            format!("the client sent nothing of its body for {limit:?}").into()
        };
        let body = EndToEnd::new(body, named);
        let body = Watched::new(body, self.stall_timeout, (), late).boxed_unsync();
        Ok(Request::from_parts(parts, body))
    }

    /// Whom a request is for, without the port that is to be taken off.
    fn stripped(&self, authority: Authority) -> Authority {
        let off = match (self.strip_port, authority.port_u16()) {
            (StripPort::Never, _) | (_, None) => false,
            (StripPort::Own, Some(port)) => port == self.port,
            (StripPort::Any, Some(_)) => true,
        };
        let host = authority.as_str().rsplit_once(':').filter(|_| off);
        match host.map(|(host, _)| Authority::try_from(host)) {
            Some(Ok(host)) => host,
            _ => authority,
        }
    }

    fn about(&self, peer: SocketAddr, request: &http::Request<Incoming>) -> About {
        let host = match request.uri().authority() {
            Some(authority) => authority.to_string(),
            None => text_of(request.headers(), &header::HOST),
        };
        About {
            listener: self.name.clone(),
            peer,
            host: cut(&host, PATH_KEPT),
            path: cut(path_of(request), PATH_LOGGED),
            request_id: None,
            timeline: None,
        }
    }

    /// Brings a response into the form the client gets.
    fn finish(&self, response: Response, asked: Asked, mut pending: Pending) -> Response {
        let (mut parts, body) = response.into_parts();
        fields::strip_response(&mut parts.headers);
        let has_body = !asked.head
            && parts.status != StatusCode::NO_CONTENT
            && parts.status != StatusCode::NOT_MODIFIED;
        let mut expected = None;
        if has_body {
            expected = content_length(&parts.headers);
            // A length a filter left behind after changing the body would cut or hang the client: the body is right.
            if let (Some(announced), Some(real)) = (expected, body.size_hint().exact())
                && announced != real
            {
                tracing::warn!(announced, real, "a response's content-length was wrong");
                parts.headers.remove(header::CONTENT_LENGTH);
                expected = None;
            }
        }
        if let Some(id) = asked
            .request_id
            .filter(|_| self.telling.request_id_in_response)
        {
            parts.headers.insert(request_id::NAME, id);
        }
        if let Some(timeline) = &asked.timeline
            && let Ok(value) =
                HeaderValue::from_str(&server_timing(timeline, pending.began.elapsed()))
        {
            // What the origin said of itself stays beside it.
            parts.headers.append("server-timing", value);
        }
        pending.answered(&parts);
        if !has_body {
            // Nothing of a body will be asked for; an upstream's is closed here.
            pending.end(0, false);
            return Response::from_parts(parts, edgeweir_host_chain::empty());
        }
        let body = Counted::new(body, expected, pending).boxed_unsync();
        Response::from_parts(parts, body)
    }
}

/// What a client sent, but for what is of its connection and the `Host`.
fn received(headers: &HeaderMap) -> Received {
    let mut headers = headers.clone();
    headers.remove(header::HOST);
    fields::strip_request(&mut headers);
    Received(headers)
}

/// Whom a request is for; `None` only for HTTP/1.0 without a Host.
fn authority_of(parts: &http::request::Parts) -> Result<Option<Authority>, &'static str> {
    let mut hosts = parts.headers.get_all(header::HOST).into_iter();
    let host = hosts.next();
    // RFC 9112 §3.2: no Host in HTTP/1.1, or more than one, is answered with 400.
    if hosts.next().is_some() {
        return Err("there is more than one Host");
    }
    // RFC 9112 §3.2.2: in the absolute form the target counts and Host is ignored.
    if let Some(authority) = parts.uri.authority() {
        // RFC 9110 §4.2.4: user information in an authority is to be treated as an error.
        return match authority.as_str().contains('@') {
            true => Err("the target has user information"),
            false => Ok(Some(authority.clone())),
        };
    }
    match host {
        Some(host) => match Authority::try_from(host.as_bytes()) {
            Ok(authority) if !authority.as_str().contains('@') => Ok(Some(authority)),
            _ => Err("the Host is malformed"),
        },
        None if parts.version == Version::HTTP_11 => Err("there is no Host"),
        None => Ok(None),
    }
}

/// What each layer took to its response head without those below it, and all of it, in milliseconds; and the bytes of
/// its body and of that of the layer below it, as far as they are known with the head.
// Server Timing (W3C) §2: a list of metrics, each a token with the parameters dur and desc.
fn server_timing(timeline: &Timeline, total: std::time::Duration) -> String {
    let mut text = String::new();
    let layers = timeline.own();
    let below = layers.iter().skip(1).map(Some).chain([None]);
    for (layer, below) in layers.iter().zip(below) {
        let token = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
        let name = layer.name.chars().map(|c| if token(c) { c } else { '-' });
        text.extend(name);
        text.push_str(&format!(";dur={:.3}", layer.took.as_secs_f64() * 1e3));
        match (below.and_then(|it| it.size), layer.size) {
            (Some(before), Some(after)) => {
                text.push_str(&format!(";desc=\"{before} to {after} bytes\""));
            }
            (Some(before), None) => text.push_str(&format!(";desc=\"from {before} bytes\"")),
            (None, Some(after)) => text.push_str(&format!(";desc=\"{after} bytes\"")),
            (None, None) => {}
        }
        text.push_str(", ");
    }
    text.push_str(&format!("total;dur={:.3}", total.as_secs_f64() * 1e3));
    text
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    std::str::from_utf8(headers.get(header::CONTENT_LENGTH)?.as_bytes())
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// An exchange that has begun: it ends when its body does, or when it is dropped because the client left.
struct Pending {
    stats: Arc<ListenerStats>,
    log: Option<(Arc<AccessLog>, About)>,
    /// Held until the end: an old generation lives as long as its exchanges.
    _generation: Generation,
    began: Instant,
    ended: Option<Ended>,
}

impl Pending {
    fn begin(
        stats: &Arc<ListenerStats>,
        generation: &Generation,
        request: &http::Request<Incoming>,
    ) -> Self {
        stats.in_flight.fetch_add(1, Relaxed);
        let path = cut(path_of(request), PATH_KEPT);
        Self {
            stats: stats.clone(),
            log: None,
            _generation: generation.clone(),
            began: Instant::now(),
            ended: Some(Ended {
                at: SystemTime::now(),
                method: cut(request.method().as_str(), METHOD_KEPT),
                path,
                status: 0,
                took: std::time::Duration::ZERO,
                cache_status: String::new(),
                reused: None,
                rate_limit: String::new(),
                content_encoding: String::new(),
                bytes: 0,
                cut: true,
            }),
        }
    }

    fn answered(&mut self, parts: &http::response::Parts) {
        if let Some(ended) = &mut self.ended {
            ended.status = parts.status.as_u16();
            let cache_status = whole_of(&parts.headers, &CACHE_STATUS);
            ended.reused = reused(&cache_status);
            ended.cache_status = cut_to_nearest(&cache_status, PATH_KEPT);
            ended.rate_limit = text_of(&parts.headers, &RATE_LIMIT);
            ended.content_encoding = text_of(&parts.headers, &header::CONTENT_ENCODING);
        }
    }
}

impl OnEnd for Pending {
    fn end(&mut self, bytes: u64, cut: bool) {
        let Some(mut ended) = self.ended.take() else {
            return;
        };
        self.stats.in_flight.fetch_sub(1, Relaxed);
        ended.at = SystemTime::now();
        ended.took = self.began.elapsed();
        ended.bytes = bytes;
        ended.cut = cut;
        if let Some((log, about)) = &self.log {
            log.note(about, &ended);
        }
        self.stats.end(ended);
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.end(0, true);
    }
}

fn text_of(headers: &HeaderMap, name: &HeaderName) -> String {
    cut(&whole_of(headers, name), PATH_KEPT)
}

/// All of a field.
fn whole_of(headers: &HeaderMap, name: &HeaderName) -> String {
    let mut text = String::new();
    for value in headers.get_all(name) {
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(&String::from_utf8_lossy(value.as_bytes()));
    }
    text
}

/// A `Cache-Status` of at most so many bytes: of a longer one what the cache nearest the client says.
fn cut_to_nearest(cache_status: &str, most: usize) -> String {
    if cache_status.len() <= most {
        return cache_status.to_owned();
    }
    let nearest = nearest(cache_status);
    match nearest.len() < cache_status.len() {
        true => format!("{CUT}, {}", cut(nearest, most)),
        false => cut(nearest, most),
    }
}

fn path_of(request: &http::Request<Incoming>) -> &str {
    let path = request.uri().path_and_query();
    path.map_or("/", |path| path.as_str())
}

/// A text of at most so many bytes and, where it was longer, a mark.
fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let kept = text.get(..text.floor_char_boundary(most)).unwrap_or("");
    format!("{kept}{CUT}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_says_so() {
        for (text, most, want) in [
            ("/short", 200, "/short"),
            ("/as-long", 8, "/as-long"),
            ("/longer", 4, "/lon…"),
            ("/ä", 2, "/…"),
        ] {
            assert_eq!(cut(text, most), want);
        }
    }

    #[test]
    fn of_a_long_cache_status_the_nearest_cache_is_kept() {
        let far = format!("cdn; hit; ttl=30; key=\"{}\"", "k".repeat(190));
        for (field, want) in [
            ("edgeweir; hit", "edgeweir; hit".to_owned()),
            (
                &format!("{far}, edgeweir; fwd=uri-miss; stored"),
                "…, edgeweir; fwd=uri-miss; stored".to_owned(),
            ),
            (&far, format!("{}…", &far[..200])),
        ] {
            assert_eq!(cut_to_nearest(field, 200), want);
        }
    }

    #[test]
    fn sizes_are_told_as_far_as_they_are_known() {
        let timeline = Timeline::default();
        let took = std::time::Duration::ZERO;
        let known = |bytes: usize| Response::new(edgeweir_host_chain::full(vec![0; bytes]));
        let origin = timeline.note(3, "origin", took, known(5_000));
        drop(timeline.note(2, "minify", took, origin.map(|_| known(4_100).into_body())));
        timeline.note_failed(1, "co der", took);
        drop(timeline.note(0, "limit", took, known(7)));
        assert_eq!(
            server_timing(&timeline, took),
            "limit;dur=0.000;desc=\"7 bytes\", co-der;dur=0.000;desc=\"from 4100 bytes\", \
             minify;dur=0.000;desc=\"5000 to 4100 bytes\", origin;dur=0.000;desc=\"5000 bytes\", \
             total;dur=0.000"
        );
    }
}
