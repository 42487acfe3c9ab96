//! How wasi:http treats messages on their way out: to the next layer, and to the network.

use std::sync::Arc;
use std::time::Duration;

use crate::body::{Timely, Unbroken, copied};
use crate::client::{Client, received};
use crate::exchange::Exchange;
use crate::instance::Instance;
use edgeweir_host_chain::{Activity, Clusters, Meter, Unreached, Within, World, begun, framed};
use edgeweir_host_formats::outbound::{Outbound, SELF};
use http::uri::Scheme;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks, default_send_request};

/// How long a request of a guest may take where it does not say so itself: to connect; then from the last move of its body to
/// the response's head; and between two pieces of the response's body.
const CONNECT: Duration = Duration::from_secs(5);
const FIRST_BYTE: Duration = Duration::from_secs(60);
const BETWEEN_BYTES: Duration = Duration::from_secs(300);
/// The longest it may say.
const LONGEST: Duration = Duration::from_secs(3600);

/// The hooks of one store.
pub(crate) struct Hooks {
    allowed: Arc<[Outbound]>,
    world: World,
    client: Client,
    meter: Arc<Meter>,
    instance: Arc<Instance>,
    /// A request for the next layer is being converted: it gets its `host` from the exchange, not from here.
    pub(crate) to_next: bool,
    /// The exchange of a proxy of wasi:http 0.2: what it may send nowhere else goes to the next layer, but not in an
    /// application of Spin, which has none for it.
    pub(crate) next: Option<Arc<Exchange>>,
    /// The exchange in which the request is sent that is about to be.
    pub(crate) asking: Option<Arc<Exchange>>,
    /// What the application of the latest exchange reaches in itself.
    pub(crate) within: Option<Within>,
    /// Calls of `client.send` since the last look.
    pub(crate) sent: u64,
}

impl Hooks {
    pub(crate) fn new(
        allowed: &[Outbound],
        world: World,
        client: Client,
        meter: Arc<Meter>,
        instance: Arc<Instance>,
    ) -> Self {
        Self {
            meter,
            client,
            instance,
            allowed: allowed.into(),
            world,
            to_next: false,
            next: None,
            asking: None,
            within: None,
            sent: 0,
        }
    }
}

type Sent = Result<(http::Response<WasiBody>, Io), Error>;
type Io = Box<dyn Future<Output = Result<(), Error>> + Send>;

impl WasiHttpHooks for Hooks {
    fn set_host_header(&mut self) -> bool {
        !self.to_next
    }

    fn default_scheme(&mut self) -> Option<Scheme> {
        Some(if self.to_next {
            Scheme::HTTP
        } else {
            Scheme::HTTPS
        })
    }

    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _response_result: Io,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let allowed = match self.within {
            Some(_) if is_self(request.uri()) => self.allowed.iter().any(Outbound::allows_self),
            _ => is_allowed(&self.allowed, request.uri()),
        };
        let meter = self.meter.clone();
        let request = request.map(|body| copied(body, meter).boxed_unsync());
        let sending = self.sending(allowed, request, options);
        let meter = self.meter.clone();
        Box::new(async move {
            let (response, io) = Box::into_pin(sending).await?;
            let response = response.map(|body| copied(body, meter).boxed_unsync());
            Ok((response, io))
        })
    }
}

impl Hooks {
    fn sending(
        &mut self,
        allowed: bool,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let instance = self.instance.clone();
        let request = request.map(|body| Unbroken::new(body, instance).boxed_unsync());
        let next = self.next.as_ref().filter(|_| self.within.is_none());
        if !allowed
            && let Some(exchange) = next
            && exchange.is_for(request.uri())
        {
            return Box::new(forward(exchange.clone(), request));
        }
        self.sent += 1;
        let exchange = self.asking.take().or_else(|| self.next.clone());
        let options = bounded(options);
        if self.world.fault("client.send").is_some() {
            return Box::new(async { Err(Error::ConnectionRefused) });
        }
        if let Some(clusters) = self.world.clusters.clone() {
            return Box::new(staged(clusters, request, options));
        }
        if allowed
            && let Some(Within(services)) = &self.within
            && target(request.uri()).is_some_and(|name| services.knows(&name))
        {
            return Box::new(staged(services.clone(), request, options));
        }
        let plain = request.uri().scheme() != Some(&Scheme::HTTPS);
        let client = self.client.clone();
        Box::new(async move {
            if !allowed {
                tracing::warn!(uri = %request.uri(), "outbound request denied: the component is not granted it");
                return Err(Error::HttpRequestDenied);
            }
            let idle = options.between_bytes_timeout.unwrap_or(BETWEEN_BYTES);
            let quiet = exchange.as_ref().map(|exchange| exchange.quiet.clone());
            let waits = [options.connect_timeout, options.first_byte_timeout];
            let longest = waits.into_iter().flatten().sum();
            let outside = quiet.as_ref().map(|quiet| quiet.outside_for(longest));
            let bodiless = exchange.is_some_and(|exchange| exchange.bodiless);
            let sent = sent(request, bodiless, options, plain.then_some(client)).await;
            drop(outside);
            let (response, io) = sent?;
            Ok((received(response, idle, quiet), io))
        })
    }
}

/// Sends a request to the network: in the clear by a client, by TLS without.
async fn sent(
    request: http::Request<WasiBody>,
    bodiless: bool,
    options: RequestOptions,
    client: Option<Client>,
) -> Sent {
    let first = options.first_byte_timeout.unwrap_or(FIRST_BYTE);
    let framed = async {
        let (parts, mut body) = request.into_parts();
        if bodiless {
            body = begun(body).await;
        }
        framed(http::Request::from_parts(parts, body)).await
    };
    let framed = tokio::time::timeout(first, framed).await;
    let request = framed.map_err(|_| Error::ConnectionReadTimeout)?;
    let activity = Activity::start();
    let request = request.map(|body| match body.is_end_stream() {
        true => body,
        false => activity.noting(body),
    });
    if let Some(client) = client {
        let response = client.send(request, options, &activity).await?;
        let response = response.map(|body| body.map_err(Error::from).boxed_unsync());
        return Ok((response, Box::new(async { Ok(()) })));
    }
    let connect = options.connect_timeout.unwrap_or(CONNECT);
    let options = RequestOptions {
        // Looked after here: it begins anew whenever the request's body moves.
        first_byte_timeout: Some(LONGEST),
        ..options
    };
    tokio::select! {
        sent = default_send_request(request, Some(options)) => {
            let (response, io) = sent?;
            Ok((response.map(|body| body.boxed_unsync()), Box::new(io)))
        }
        () = activity.silent_for(connect + first) => Err(Error::ConnectionReadTimeout),
    }
}

/// A request of a proxy of wasi:http 0.2 to the next layer.
async fn forward(exchange: Arc<Exchange>, request: http::Request<WasiBody>) -> Sent {
    let request = request.map(|body| body.map_err(|error| error.into()).boxed_unsync());
    let request = exchange.outgoing(request);
    let outside = exchange.quiet.outside();
    let response = exchange.next().run(request).await;
    drop(outside);
    let response = match response {
        Ok(response) => response,
        Err(error) => {
            tracing::debug!(%error, "the next layer failed");
            return Err(Error::ConnectionTerminated);
        }
    };
    if let Some(unreached) = response.extensions().get::<Unreached>() {
        return Err(match unreached {
            Unreached::Refused => Error::ConnectionRefused,
            Unreached::ConnectTimeout => Error::ConnectionTimeout,
            Unreached::Closed => Error::ConnectionTerminated,
            Unreached::Timeout => Error::HttpResponseTimeout,
            Unreached::Full => Error::ConnectionLimitReached,
            Unreached::Unavailable => Error::DestinationUnavailable,
        });
    }
    let quiet = exchange.quiet.clone();
    let response = response.map(|body| Timely::of(body, quiet).boxed_unsync());
    Ok((response, Box::new(async { Ok(()) })))
}

/// A request to what stands in place of the network: of a test, or of the application itself.
async fn staged(
    clusters: Arc<dyn Clusters>,
    request: http::Request<WasiBody>,
    options: RequestOptions,
) -> Sent {
    let target = target(request.uri()).ok_or(Error::HttpRequestUriInvalid)?;
    if !clusters.knows(&target) {
        return Err(Error::HttpRequestDenied);
    }
    let request = request.map(|body| body.map_err(|error| error.into()).boxed_unsync());
    let most = options.first_byte_timeout.unwrap_or(Duration::MAX);
    let response = match tokio::time::timeout(most, clusters.call(&target, request)).await {
        Err(_) => return Err(Error::HttpResponseTimeout),
        Ok(Err(_)) => return Err(Error::ConnectionRefused),
        Ok(Ok(response)) => response,
    };
    let response = response.map(|body| {
        body.map_err(|_| Error::HttpResponseIncomplete)
            .boxed_unsync()
    });
    Ok((response, Box::new(async { Ok(()) })))
}

/// Whether a request of an application is for the application itself: it names no host, as in `/path` (where SDKs write `:443`
/// or `:80`), or the one that Spin keeps for this.
fn is_self(uri: &http::Uri) -> bool {
    uri.authority()
        .is_none_or(|authority| matches!(authority.host(), "" | SELF))
}

/// An entry must allow it; the port is that of the scheme where there is none.
fn is_allowed(allowed: &[Outbound], uri: &http::Uri) -> bool {
    let Some(authority) = uri.authority() else {
        return false;
    };
    let scheme = uri.scheme_str().unwrap_or("http");
    let (host, port) = (authority.host(), authority.port_u16());
    allowed.iter().any(|it| it.allows(scheme, host, port))
}

/// `host:port`, as clusters are named.
fn target(uri: &http::Uri) -> Option<String> {
    let authority = uri.authority()?;
    let default = if uri.scheme() == Some(&Scheme::HTTPS) {
        443
    } else {
        80
    };
    let port = authority.port_u16().unwrap_or(default);
    let host = match authority.host() {
        "" => SELF.to_owned(),
        host => host.to_ascii_lowercase(),
    };
    Some(format!("{host}:{port}"))
}

/// What the guest asks for, within the bounds an upstream's settings have; and where it asks for nothing, their defaults.
fn bounded(options: Option<RequestOptions>) -> RequestOptions {
    let options = options.unwrap_or_default();
    let bound = |asked: Option<Duration>, default| Some(asked.unwrap_or(default).min(LONGEST));
    RequestOptions {
        connect_timeout: bound(options.connect_timeout, CONNECT),
        first_byte_timeout: bound(options.first_byte_timeout, FIRST_BYTE),
        between_bytes_timeout: bound(options.between_bytes_timeout, BETWEEN_BYTES),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_hosts_and_ports_are_reached() {
        let allowed = ["127.0.0.1:9000", "origin.test:443"]
            .map(|it| Outbound::authority(it).expect("a service"));
        for (name, uri, want) in [
            ("listed", "http://127.0.0.1:9000/x", true),
            ("another port", "http://127.0.0.1:9001/x", false),
            ("port of the scheme", "https://Origin.test/", true),
            ("the other scheme's port", "http://origin.test/", false),
            ("a prefix is no match", "http://127.0.0.1:90001/", false),
            (
                "user info does not hide the host",
                "http://origin.test:443@evil.test/",
                false,
            ),
        ] {
            let Ok(uri) = uri.parse::<http::Uri>() else {
                assert!(!want, "{name}");
                continue;
            };
            assert_eq!(is_allowed(&allowed, &uri), want, "{name}");
        }
    }

    #[test]
    fn a_guest_says_how_long_its_requests_may_take() {
        let seconds = Duration::from_secs;
        let asked = RequestOptions {
            connect_timeout: Some(seconds(30)),
            first_byte_timeout: Some(seconds(600)),
            between_bytes_timeout: Some(Duration::MAX),
        };
        for (name, asked, want) in [
            ("nothing", None, [5, 60, 300]),
            ("something", Some(asked), [30, 600, 3600]),
        ] {
            let got = bounded(asked);
            let got = [
                got.connect_timeout,
                got.first_byte_timeout,
                got.between_bytes_timeout,
            ];
            assert_eq!(got, want.map(|it| Some(seconds(it))), "{name}");
        }
    }

    #[test]
    fn an_application_names_itself_in_two_ways() {
        for (uri, want) in [
            ("/x", true),
            ("https://:443/x", true),
            ("http://:80/x", true),
            ("http://self.alt/x", true),
            ("https://self.alt:8443/x", true),
            ("http://self/x", false),
            ("http://Self.Alt/x", false),
            ("http://x.self.alt/x", false),
            ("http://self.alt@a.test/x", false),
        ] {
            let uri = uri.parse().expect("a target");
            assert_eq!(is_self(&uri), want, "{uri}");
        }
    }
}
