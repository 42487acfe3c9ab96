//! One exchange on its way through a guest: how its request enters, and how a request leaves for the next layer.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use edgeweir_host_chain::{Emergency, Error, Next, Peer, Request, Response, Unreached, Within};
use http::header::{CONTENT_LENGTH, HOST};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use tokio::sync::watch;

use crate::Limits;
use crate::quiet::Quiet;

/// The field wasi:http hosts of the Spin family give the client's address in, as `ip:port`.
const EMERGENCY: HeaderName = HeaderName::from_static(Emergency::FIELD);
const CLIENT_ADDR: HeaderName = HeaderName::from_static("spin-client-addr");
/// What went wrong further in (RFC 9209).
pub(crate) const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
/// Stands in where a request has no authority of its own (HTTP/1.0): guests cannot rebuild a request without one.
const NO_AUTHORITY: &str = "localhost";

/// Fields every component of a chain sees and nobody behind it: what Spin says of a route. An extension of a request.
#[derive(Clone, Default, Debug)]
pub struct RouteFields(Arc<[(HeaderName, HeaderValue)]>);

impl RouteFields {
    /// Fields by their names, which begin with `spin-`; what is no field is left out.
    pub fn of(fields: impl IntoIterator<Item = (String, String)>) -> Self {
        let of_spin = |(name, value): (String, String)| {
            let name = HeaderName::try_from(name).ok()?;
            let ours = name.as_str().starts_with("spin-");
            Some((name, HeaderValue::try_from(value).ok()?)).filter(|_| ours)
        };
        Self(fields.into_iter().filter_map(of_spin).collect())
    }
}

/// What the host remembers of an exchange while the guest has its request.
pub(crate) struct Exchange {
    next: Next,
    extensions: http::Extensions,
    /// What the request itself said of the machine.
    emergency: Option<HeaderValue>,
    /// The request's target was a path, as in HTTP/1.1; the authority is in `host`.
    origin_form: bool,
    host: Option<HeaderValue>,
    /// As it was received, if it was.
    received: Option<Authority>,
    /// As the guest sees it.
    authority: Authority,
    /// The request came without content.
    pub(crate) bodiless: bool,
    pub(crate) method: Method,
    /// Calls of the next layer.
    pub(crate) forwarded: AtomicU32,
    /// Nanoseconds until the next layer's response heads.
    pub(crate) next_ns: AtomicU64,
    next_failed: Mutex<Option<NextFailed>>,
    pub(crate) quiet: Arc<Quiet>,
    cancelled: watch::Sender<bool>,
}

/// How the next layer failed to give a response of the origin's.
pub(crate) enum NextFailed {
    /// With an error.
    Error(Error),
    /// With a response that a layer below made up.
    Made(Unreached, Response),
}

impl NextFailed {
    /// What a guest's 502 or 504 in its place says.
    pub(crate) fn unreached(&self) -> Unreached {
        match self {
            Self::Error(_) => Unreached::Closed,
            Self::Made(unreached, _) => *unreached,
        }
    }

    /// What the layer below said of it.
    pub(crate) fn told(&self) -> Option<&HeaderValue> {
        match self {
            Self::Error(_) => None,
            Self::Made(_, response) => response.headers().get(PROXY_STATUS),
        }
    }
}

/// A head beyond a bound.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLarge;

impl Exchange {
    /// Takes a request apart: what the guest sees, and what stays here.
    pub(crate) fn begin(
        request: http::request::Parts,
        next: Next,
        limits: &Limits,
        bodiless: bool,
    ) -> (Self, http::request::Parts) {
        let mut parts = request;
        let host = parts.headers.get(HOST).cloned();
        let uri = std::mem::take(&mut parts.uri).into_parts();
        let origin_form = uri.authority.is_none();
        let received = uri.authority;
        let authority = received
            .clone()
            .or_else(|| Authority::try_from(host.as_ref()?.as_bytes()).ok())
            .map(without_empty_port)
            .unwrap_or_else(|| Authority::from_static(NO_AUTHORITY));
        strip(&mut parts.headers);
        if let Some(Peer(address)) = parts.extensions.get::<Peer>()
            && let Ok(value) = HeaderValue::try_from(address.to_string())
        {
            parts.headers.insert(CLIENT_ADDR, value);
        }
        if let Some(RouteFields(fields)) = parts.extensions.get::<RouteFields>() {
            for (name, value) in fields.iter() {
                parts.headers.insert(name, value.clone());
            }
        }
        // One that is still there comes from somebody the host listens to; it can raise the level, never lower it.
        let emergency = parts.headers.get(EMERGENCY).cloned();
        let own = parts.extensions.get().copied().unwrap_or(Emergency(0));
        if own != Emergency(0) && emergency.as_ref().is_none_or(|said| said < own.digit()) {
            let value = HeaderValue::from_static(own.digit());
            parts.headers.insert(EMERGENCY, value);
        }
        let mut inner = http::uri::Parts::default();
        inner.scheme = Some(uri.scheme.unwrap_or(Scheme::HTTP));
        inner.authority = Some(authority.clone());
        inner.path_and_query = Some(
            uri.path_and_query
                .unwrap_or_else(|| PathAndQuery::from_static("/")),
        );
        parts.uri = Uri::from_parts(inner).unwrap_or_default();
        let exchange = Self {
            next,
            extensions: std::mem::take(&mut parts.extensions),
            emergency,
            origin_form,
            host,
            received,
            authority,
            bodiless,
            method: parts.method.clone(),
            forwarded: AtomicU32::new(0),
            next_ns: AtomicU64::new(0),
            next_failed: Mutex::default(),
            quiet: Quiet::new(limits),
            cancelled: watch::Sender::new(false),
        };
        (exchange, parts)
    }

    /// Whether a request is for whom the exchange's own is for, or names nobody.
    pub(crate) fn is_for(&self, uri: &Uri) -> bool {
        let named = uri.authority().map(Authority::as_str);
        named.is_none_or(|named| named.is_empty() || self.authority == named)
    }

    /// What the application that the request is in reaches in itself.
    pub(crate) fn within(&self) -> Option<Within> {
        self.extensions.get().cloned()
    }

    /// The request a guest hands on, as the next layer expects it: with the client's address as an extension
    /// and no longer as a field, and with the target in the form it came in.
    pub(crate) fn outgoing(&self, mut request: Request) -> Request {
        strip(request.headers_mut());
        let uri = std::mem::take(request.uri_mut()).into_parts();
        let unchanged = uri.authority.as_ref() == Some(&self.authority);
        let host = match (&uri.authority, &self.host) {
            (_, host) if unchanged => host.clone(),
            (Some(authority), _) => HeaderValue::try_from(authority.as_str()).ok(),
            (None, _) => None,
        };
        request.headers_mut().remove(EMERGENCY);
        if let Some(emergency) = &self.emergency {
            request.headers_mut().insert(EMERGENCY, emergency.clone());
        }
        request.headers_mut().remove(HOST);
        if let Some(host) = host {
            request.headers_mut().insert(HOST, host);
        }
        let mut target = http::uri::Parts::default();
        target.path_and_query = uri.path_and_query;
        if !self.origin_form {
            target.scheme = uri.scheme;
            target.authority = match unchanged {
                true => self.received.clone(),
                false => uri.authority,
            };
        }
        *request.uri_mut() = Uri::from_parts(target).unwrap_or_default();
        *request.extensions_mut() = self.extensions.clone();
        request
    }

    pub(crate) fn next(&self) -> Next {
        self.forwarded.fetch_add(1, Ordering::Relaxed);
        self.next.clone()
    }

    /// Adds to the time spent in the layers below.
    pub(crate) fn waited(&self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.next_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// Keeps how the latest call of the next layer failed, so that it survives its way through the guest as an error
    /// code; `None` when it did not.
    pub(crate) fn ended(&self, failed: Option<NextFailed>) {
        *self.failed() = failed;
    }

    pub(crate) fn take_failed(&self) -> Option<NextFailed> {
        self.failed().take()
    }

    fn failed(&self) -> MutexGuard<'_, Option<NextFailed>> {
        self.next_failed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the calls of the next layer: the client is gone or has waited long enough.
    pub(crate) fn cancel(&self) {
        self.cancelled.send_replace(true);
    }

    pub(crate) async fn cancelled(&self) {
        // The sender is in `self`: the wait ends only by cancellation.
        let _ = self
            .cancelled
            .subscribe()
            .wait_for(|cancelled| *cancelled)
            .await;
    }

    /// Whether the request may be sent to the next layer once more without the guest.
    pub(crate) fn may_resend(&self) -> bool {
        self.forwarded.load(Ordering::Relaxed) == 0 || self.method.is_safe()
    }
}

/// The authority without a colon that no port follows, which hosts of wasi:http refuse when a guest writes it.
// RFC 3986 §6.2.3: "an explicit ":port", for which the port is empty or the default for the scheme, is equivalent to one where the
// port and its ":" delimiter are elided".
fn without_empty_port(authority: Authority) -> Authority {
    let host = authority.as_str().strip_suffix(':');
    match host.map(Authority::try_from) {
        Some(Ok(host)) => host,
        _ => authority,
    }
}

/// Removes what belongs to the host: a client must not forge it, the origin has no use for it.
fn strip(headers: &mut HeaderMap) {
    let ours: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("spin-"))
        .cloned()
        .collect();
    for name in ours {
        headers.remove(name);
    }
}

/// Bounds a head before anything is built from it.
pub(crate) fn check_head(headers: &HeaderMap, lines: usize, bytes: usize) -> Result<(), TooLarge> {
    let size: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    if headers.len() > lines || size > bytes {
        Err(TooLarge)
    } else {
        Ok(())
    }
}

/// The length a response's body must have, by its `content-length`; `None` where it says nothing of the body.
pub(crate) fn body_length(method: &Method, status: StatusCode, headers: &HeaderMap) -> Option<u64> {
    if has_no_body(method, status) {
        return None;
    }
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// RFC 9110 §6.4.1: responses to HEAD, and 1xx, 204 and 304, have no content, whatever `content-length` says.
pub(crate) fn has_no_body(method: &Method, status: StatusCode) -> bool {
    method == Method::HEAD
        || status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
}

#[cfg(test)]
mod tests {
    use edgeweir_host_chain::empty;

    use super::*;

    fn exchange(uri: &str, fields: &[(&'static str, &str)]) -> (Exchange, http::request::Parts) {
        let mut request = http::Request::new(());
        *request.uri_mut() = uri.parse().expect("a target");
        for (name, value) in fields {
            request
                .headers_mut()
                .append(*name, HeaderValue::try_from(*value).expect("a value"));
        }
        request
            .extensions_mut()
            .insert(Peer(([192, 0, 2, 7], 4711).into()));
        Exchange::begin(
            request.into_parts().0,
            Next::new(Vec::new()),
            &Limits::default(),
            true,
        )
    }

    #[test]
    fn a_request_comes_out_as_it_went_in() {
        for (name, uri, host) in [
            ("origin form", "/a?b=c", Some("example.test:8080")),
            ("absolute form", "http://example.test/a", None),
            ("no host at all", "/a", None),
            ("host that is no authority", "/a", Some("not a host")),
            ("asterisk form", "*", Some("example.test")),
            ("an empty port", "http://example.test:/a", None),
            ("an empty port of an address", "http://[::1]:/a", None),
            ("an empty port in host", "/a", Some("example.test:")),
        ] {
            let fields: Vec<_> = host.iter().map(|host| ("host", *host)).collect();
            let (exchange, inner) = exchange(uri, &fields);
            assert!(
                inner.uri.authority().is_some(),
                "{name}: a guest needs an authority"
            );
            let seen = inner.uri.authority().map(Authority::as_str);
            assert!(
                seen.is_some_and(|seen| !seen.ends_with(':')),
                "{name}: a guest cannot write {seen:?}"
            );
            let mut request = http::Request::from_parts(inner, empty());
            request.headers_mut().remove(HOST);
            let out = exchange.outgoing(request);
            assert_eq!(out.uri(), uri, "{name}");
            assert_eq!(
                out.headers().get(HOST).map(|h| h.as_bytes()),
                host.map(str::as_bytes),
                "{name}"
            );
            assert!(out.extensions().get::<Peer>().is_some(), "{name}");
        }
    }

    #[test]
    fn the_address_is_the_hosts_word_alone() {
        let (exchange, inner) = exchange(
            "/",
            &[
                ("spin-client-addr", "10.0.0.1:1"),
                ("spin-x", "y"),
                ("a", "b"),
            ],
        );
        let seen: Vec<_> = inner.headers.get_all("spin-client-addr").iter().collect();
        assert_eq!(seen, ["192.0.2.7:4711"]);
        assert!(!inner.headers.contains_key("spin-x"));
        let out = exchange.outgoing(http::Request::from_parts(inner, empty()));
        assert_eq!(
            out.headers().keys().map(|k| k.as_str()).collect::<Vec<_>>(),
            ["a"]
        );
    }

    #[test]
    fn a_changed_authority_changes_the_host_field() {
        let (exchange, mut inner) = exchange("/a", &[("host", "example.test")]);
        inner.uri = Uri::from_static("http://other.test:81/b");
        let out = exchange.outgoing(http::Request::from_parts(inner, empty()));
        assert_eq!(out.uri(), "/b");
        assert_eq!(out.headers()[HOST], "other.test:81");
    }

    #[test]
    fn heads_are_bounded_by_lines_and_bytes() {
        let mut headers = HeaderMap::new();
        headers.append("ab", HeaderValue::from_static("cd"));
        headers.append("ab", HeaderValue::from_static("ef"));
        assert_eq!(check_head(&headers, 2, 8), Ok(()));
        assert_eq!(check_head(&headers, 1, 8), Err(TooLarge));
        assert_eq!(check_head(&headers, 2, 7), Err(TooLarge));
    }

    #[tokio::test]
    async fn cancelling_ends_every_wait() {
        let exchange = Arc::new(exchange("/", &[]).0);
        let waiting = tokio::spawn({
            let exchange = exchange.clone();
            async move { exchange.cancelled().await }
        });
        tokio::task::yield_now().await;
        exchange.cancel();
        waiting.await.expect("the wait ends");
        exchange.cancelled().await;
    }
}
