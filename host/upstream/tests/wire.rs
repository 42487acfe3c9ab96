//! An upstream against origins that fail in every way, over sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use bytes::Bytes;
use edgeweir_host_chain::{Body, Error, Layer, Next, Request, Response, empty, full};
use edgeweir_host_upstream::{
    Event, Protocol, Settings, Tls, Upstream, breaker, health, outlier, retry,
};
use http::{Method, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

/// What an origin does with a request it has read the head of.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Act {
    /// 200.
    Good,
    /// This status.
    Status(u16),
    /// Closes the connection without an answer.
    Close,
    /// 200, and then closes the connection without having said so.
    GoodThenClose,
    /// Waits until it is let go, then 200.
    Wait,
}

/// An origin on HTTP/1.1; what it does is changed while it runs.
#[derive(Clone)]
struct Origin {
    address: SocketAddr,
    seen: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
    act: tokio::sync::watch::Sender<Act>,
    healthy: Arc<AtomicBool>,
    open: Arc<tokio::sync::Notify>,
}

impl Origin {
    async fn start(act: Act) -> Self {
        Self::over(act, None).await
    }

    async fn over(act: Act, tls: Option<tokio_rustls::TlsAcceptor>) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = Self {
            address: socket.local_addr().unwrap(),
            seen: Arc::default(),
            connections: Arc::default(),
            act: tokio::sync::watch::Sender::new(act),
            healthy: Arc::new(AtomicBool::new(true)),
            open: Arc::default(),
        };
        let serving = origin.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = socket.accept().await {
                serving.connections.fetch_add(1, SeqCst);
                let (serving, tls) = (serving.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serving.serve(stream).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serving.serve(stream).await;
                            }
                        }
                    }
                });
            }
        });
        origin
    }

    async fn serve(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut read = Vec::new();
        loop {
            let Some(end) = head_end(&mut stream, &mut read).await else {
                return;
            };
            let head = String::from_utf8_lossy(&read[..end]).into_owned();
            read.drain(..end);
            // A body that is announced comes with the head or soon after it.
            let length = head
                .lines()
                .find_map(|line| {
                    line.to_ascii_lowercase()
                        .strip_prefix("content-length: ")
                        .map(str::to_owned)
                })
                .map_or(0, |length| length.trim().parse().unwrap());
            while read.len() < length {
                let mut buffer = [0; 4096];
                match stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => return,
                    Ok(count) => read.extend_from_slice(&buffer[..count]),
                }
            }
            read.drain(..length);
            let act = if head.starts_with("GET /healthz") {
                if self.healthy.load(SeqCst) {
                    Act::Good
                } else {
                    Act::Status(500)
                }
            } else {
                self.seen.fetch_add(1, SeqCst);
                *self.act.borrow()
            };
            let answer = match act {
                Act::Close => return,
                Act::Status(status) => {
                    format!("HTTP/1.1 {status} Told\r\ncontent-length: 0\r\n\r\n")
                }
                Act::Wait => {
                    self.open.notified().await;
                    "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_owned()
                }
                Act::Good | Act::GoodThenClose => {
                    "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_owned()
                }
            };
            if stream.write_all(answer.as_bytes()).await.is_err() || stream.flush().await.is_err() {
                return;
            }
            if act == Act::GoodThenClose {
                return;
            }
        }
    }

    fn seen(&self) -> usize {
        self.seen.load(SeqCst)
    }
}

async fn head_end(stream: &mut (impl AsyncRead + Unpin), read: &mut Vec<u8>) -> Option<usize> {
    loop {
        if let Some(at) = read.windows(4).position(|it| it == b"\r\n\r\n") {
            return Some(at + 4);
        }
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => read.extend_from_slice(&buffer[..count]),
        }
    }
}

/// Where nothing listens.
fn dead() -> String {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().to_string()
}

fn settings(addresses: &[&dyn std::fmt::Display]) -> Settings {
    let mut settings = Settings::at("");
    settings.addresses = addresses.iter().map(|it| it.to_string()).collect();
    settings.timeout = Duration::from_secs(5);
    settings
}

fn twice() -> retry::Policy {
    retry::Policy {
        attempts: 1,
        base: Duration::from_millis(2),
        ..retry::Policy::off()
    }
}

struct Under {
    upstream: Arc<Upstream>,
}

impl Under {
    fn new(settings: Settings) -> Self {
        let upstream = Upstream::new("origin", settings, Arc::default()).unwrap();
        Self {
            upstream: Arc::new(upstream),
        }
    }

    async fn ask(&self, method: Method, body: Body) -> Response {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        // As a client says it.
        if let Some(length) = request.body().size_hint().exact().filter(|it| *it > 0) {
            request
                .headers_mut()
                .insert("content-length", length.into());
        }
        *request.uri_mut() = "http://example.test/".parse().unwrap();
        Next::new(vec![self.upstream.clone() as Arc<dyn Layer>])
            .run(request)
            .await
            .unwrap()
    }

    async fn get(&self) -> StatusCode {
        let response = self.ask(Method::GET, empty()).await;
        let status = response.status();
        response.into_body().collect().await.unwrap();
        status
    }

    fn count(&self, event: Event) -> u64 {
        self.upstream.counts().get(event)
    }
}

/// Waits until something is so.
async fn until(what: &str, so: impl Fn() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < Duration::from_secs(10), "not yet: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_connection_is_kept_and_one_that_closed_is_replaced() {
    let origin = Origin::start(Act::Good).await;
    let under = Under::new(settings(&[&origin.address]));
    for _ in 0..10 {
        assert_eq!(under.get().await, 200);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(origin.connections.load(SeqCst), 1);
    origin.act.send_replace(Act::GoodThenClose);
    for _ in 0..10 {
        assert_eq!(under.get().await, 200);
        let posted = under.ask(Method::POST, full("body")).await;
        assert_eq!(posted.status(), 200);
    }
}

/// A request as it came, which is answered when it is whole.
async fn heard(socket: TcpListener) -> String {
    let (mut stream, _) = socket.accept().await.unwrap();
    let mut read = Vec::new();
    let end = head_end(&mut stream, &mut read).await.unwrap();
    let chunked = String::from_utf8_lossy(&read[..end]).contains("chunked");
    while chunked && !read.ends_with(b"0\r\n\r\n") {
        stream.read_buf(&mut read).await.unwrap();
    }
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    stream.write_all(answer).await.unwrap();
    String::from_utf8_lossy(&read).into_owned()
}

#[tokio::test]
async fn content_of_a_get_goes_on_and_none_is_made_up() {
    for (method, content, want) in [
        (Method::GET, Some("some"), "\r\n\r\n4\r\nsome\r\n0\r\n\r\n"),
        (Method::HEAD, Some("some"), "\r\n\r\n4\r\nsome\r\n0\r\n\r\n"),
        (Method::GET, None, "\r\n\r\n"),
    ] {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let under = Under::new(settings(&[&socket.local_addr().unwrap()]));
        let hearing = tokio::spawn(heard(socket));
        let (mut sender, body) = Channel::<Bytes, Error>::new(1);
        tokio::spawn(async move {
            if let Some(content) = content {
                sender.send_data(content.into()).await.unwrap();
            }
        });
        let response = under.ask(method.clone(), body.boxed_unsync()).await;
        assert_eq!(response.status(), 200);
        let request = hearing.await.unwrap();
        assert!(request.ends_with(want), "{method} {request:?}");
        assert_eq!(request.contains("chunked"), content.is_some(), "{request}");
    }
}

#[tokio::test]
async fn the_less_busy_endpoint_gets_more() {
    let (slow, quick) = (
        Origin::start(Act::Wait).await,
        Origin::start(Act::Good).await,
    );
    let under = Arc::new(Under::new(settings(&[&slow.address, &quick.address])));
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let under = under.clone();
        all.spawn(async move { under.get().await });
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    until("the quick one answered", || quick.seen() > 30).await;
    // With two endpoints both are always compared: the waiting one holds at most what came while the other had as many.
    assert!(
        slow.seen() < 8,
        "{} went to the one that waits",
        slow.seen()
    );
    until("all arrived", || slow.seen() + quick.seen() == 40).await;
    while !all.is_empty() {
        slow.open.notify_waiters();
        if let Ok(Some(status)) =
            tokio::time::timeout(Duration::from_millis(20), all.join_next()).await
        {
            assert_eq!(status.unwrap(), 200);
        }
    }
}

#[tokio::test]
async fn what_was_not_sent_goes_to_another_endpoint() {
    let good = Origin::start(Act::Good).await;
    let mut settings = settings(&[&dead(), &good.address]);
    settings.retry = twice();
    let under = Under::new(settings);
    for _ in 0..30 {
        let posted = under.ask(Method::POST, full("body")).await;
        assert_eq!(posted.status(), 200);
    }
    assert_eq!(good.seen(), 30, "each arrived once");
    assert!(under.count(Event::Repeated) > 3);
}

#[tokio::test]
async fn what_may_have_been_done_is_repeated_only_if_idempotent_and_whole() {
    for (name, method, body, statuses, act, seen, status) in [
        (
            "GET that got no answer",
            Method::GET,
            "",
            &[][..],
            Act::Close,
            2,
            502,
        ),
        ("DELETE", Method::DELETE, "", &[], Act::Close, 2, 502),
        ("POST", Method::POST, "", &[], Act::Close, 1, 502),
        (
            "PUT whose body is gone",
            Method::PUT,
            "body",
            &[],
            Act::Close,
            1,
            502,
        ),
        (
            "503 where it is named",
            Method::GET,
            "",
            &[503],
            Act::Status(503),
            2,
            503,
        ),
        (
            "503 where it is not",
            Method::GET,
            "",
            &[502],
            Act::Status(503),
            1,
            503,
        ),
        (
            "POST and 503",
            Method::POST,
            "",
            &[503],
            Act::Status(503),
            1,
            503,
        ),
        ("404", Method::GET, "", &[503], Act::Status(404), 1, 404),
    ] {
        let origin = Origin::start(act).await;
        let mut settings = settings(&[&origin.address]);
        settings.retry = retry::Policy {
            statuses: statuses.to_vec(),
            ..twice()
        };
        let under = Under::new(settings);
        let body = if body.is_empty() { empty() } else { full(body) };
        let response = under.ask(method, body).await;
        assert_eq!(response.status(), status, "{name}");
        assert_eq!(origin.seen(), seen, "{name}");
    }
}

#[tokio::test]
async fn repetitions_are_bounded_by_their_budget() {
    let origin = Origin::start(Act::Status(503)).await;
    let mut settings = settings(&[&origin.address]);
    settings.retry = retry::Policy {
        statuses: vec![503],
        budget_least: 1,
        budget_percent: 0,
        base: Duration::from_millis(200),
        most: Duration::from_millis(200),
        ..twice()
    };
    let under = Arc::new(Under::new(settings));
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let under = under.clone();
        all.spawn(async move { under.get().await });
    }
    all.join_all().await;
    assert!(origin.seen() < 25, "{} requests of 20", origin.seen());
    assert!(under.count(Event::FinalBudget) > 10);
}

#[tokio::test]
async fn the_breaker_opens_probes_and_closes() {
    let origin = Origin::start(Act::Close).await;
    let mut settings = settings(&[&origin.address]);
    settings.breaker = breaker::Policy {
        failures: 3,
        open: Duration::from_millis(300),
    };
    let under = Under::new(settings);
    for _ in 0..3 {
        assert_eq!(under.get().await, 502);
    }
    let began = Instant::now();
    assert_eq!(under.get().await, 503, "open");
    assert!(began.elapsed() < Duration::from_millis(100));
    assert_eq!((origin.seen(), under.count(Event::CircuitOpen)), (3, 1));
    assert_eq!(under.upstream.snapshot().endpoints[0].breaker, "open");
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert_eq!(under.get().await, 502, "the probe");
    assert_eq!(under.get().await, 503, "open again");
    assert_eq!(origin.seen(), 4);
    origin.act.send_replace(Act::Good);
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert_eq!(under.get().await, 200, "the probe");
    assert_eq!(under.get().await, 200, "closed");
    assert_eq!(under.count(Event::BreakerOpened), 2);
}

#[tokio::test]
async fn a_probe_whose_client_left_does_not_block_the_next() {
    let origin = Origin::start(Act::Close).await;
    let mut settings = settings(&[&origin.address]);
    settings.breaker = breaker::Policy {
        failures: 1,
        open: Duration::from_millis(50),
    };
    let under = Under::new(settings);
    assert_eq!(under.get().await, 502);
    origin.act.send_replace(Act::Wait);
    tokio::time::sleep(Duration::from_millis(80)).await;
    let left = tokio::time::timeout(Duration::from_millis(100), under.get()).await;
    assert!(left.is_err(), "it waits");
    origin.act.send_replace(Act::Good);
    assert_eq!(under.get().await, 200);
    assert_eq!(under.upstream.snapshot().endpoints[0].in_flight, 0);
}

#[tokio::test]
async fn an_endpoint_that_probes_call_unhealthy_gets_nothing() {
    let (ill, well) = (
        Origin::start(Act::Good).await,
        Origin::start(Act::Good).await,
    );
    ill.healthy.store(false, SeqCst);
    let mut settings = settings(&[&ill.address, &well.address]);
    settings.health = Some(health::Policy {
        path: "/healthz".to_owned(),
        host: None,
        interval: Duration::from_millis(20),
        timeout: Duration::from_millis(500),
        healthy: 2,
        unhealthy: 2,
    });
    let under = Under::new(settings);
    let healthy = || under.upstream.snapshot().endpoints[0].healthy;
    until("unhealthy", || !healthy()).await;
    let before = ill.seen();
    for _ in 0..20 {
        assert_eq!(under.get().await, 200);
    }
    assert_eq!(ill.seen(), before);
    // Neither is in order: better one that may fail than none.
    well.healthy.store(false, SeqCst);
    until("both unhealthy", || {
        !under.upstream.snapshot().endpoints[1].healthy
    })
    .await;
    assert_eq!(under.get().await, 200);
    assert_eq!(under.count(Event::Panic), 1);
    ill.healthy.store(true, SeqCst);
    until("healthy again", healthy).await;
    let before = ill.seen();
    assert_eq!(under.get().await, 200);
    assert_eq!(ill.seen(), before + 1);
}

#[tokio::test]
async fn an_endpoint_that_fails_too_often_is_put_aside() {
    let (bad, good) = (
        Origin::start(Act::Status(503)).await,
        Origin::start(Act::Good).await,
    );
    let mut settings = settings(&[&bad.address, &good.address]);
    settings.outlier = Some(outlier::Policy {
        percent: 50,
        requests: 4,
        interval: Duration::from_secs(10),
        eject: Duration::from_millis(400),
        most_percent: 50,
    });
    let under = Under::new(settings);
    for _ in 0..60 {
        under.get().await;
    }
    assert_eq!(bad.seen(), 4, "then it was put aside");
    assert_eq!(under.count(Event::Ejected), 1);
    assert!(under.upstream.snapshot().endpoints[0].ejected);
    tokio::time::sleep(Duration::from_millis(450)).await;
    bad.act.send_replace(Act::Good);
    for _ in 0..20 {
        assert_eq!(under.get().await, 200);
    }
    assert!(bad.seen() > 4, "it is back");
}

#[tokio::test]
async fn more_than_may_be_under_way_wait_and_more_than_may_wait_are_refused() {
    let origin = Origin::start(Act::Wait).await;
    let mut settings = settings(&[&origin.address]);
    settings.requests = Some(2);
    settings.pending = 1;
    let under = Arc::new(Under::new(settings));
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let under = under.clone();
        all.spawn(async move { under.get().await });
    }
    until("two are there, one waits", || {
        origin.seen() == 2 && under.upstream.snapshot().waiting == 1
    })
    .await;
    let refused = under.ask(Method::GET, empty()).await;
    assert_eq!(refused.status(), 503);
    assert_eq!(
        refused.headers()["proxy-status"],
        "edgeweir; error=connection_limit_reached"
    );
    until("all three end", || {
        origin.open.notify_waiters();
        under.upstream.snapshot().requests == 0
    })
    .await;
    assert!(all.join_all().await.iter().all(|status| *status == 200));
    assert_eq!((origin.seen(), under.count(Event::Overflow)), (3, 1));
}

#[tokio::test]
async fn every_address_of_a_name_is_an_endpoint_where_that_is_wanted() {
    let origin = Origin::start(Act::Good).await;
    let name = format!("localhost:{}", origin.address.port());
    for every in [None, Some(Duration::from_secs(60))] {
        let mut settings = settings(&[&name]);
        settings.every_address = every;
        // One of them may be ::1, where nothing listens.
        settings.retry = twice();
        let under = Under::new(settings);
        assert_eq!(under.get().await, 200);
        let endpoints = under.upstream.snapshot().endpoints;
        let shown = endpoints
            .iter()
            .any(|it| it.address.contains("(127.0.0.1:"));
        assert_eq!(shown, every.is_some(), "{endpoints:?}");
    }
    let mut nowhere = settings(&[&"nowhere.invalid:80"]);
    nowhere.every_address = Some(Duration::from_secs(60));
    let under = Under::new(nowhere);
    assert_eq!(under.get().await, 502);
    assert_eq!(under.count(Event::Unresolved), 1);
}

/// A certificate for `names` by a new authority: the authority's PEM, and the server's configuration.
fn certified(names: &[&str], protocols: &[&str]) -> (String, tokio_rustls::TlsAcceptor) {
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let authority = parameters.self_signed(&key).unwrap();
    let pem = authority.pem();
    let issuer = rcgen::Issuer::new(parameters, key);
    let names: Vec<String> = names.iter().map(|it| (*it).to_owned()).collect();
    let key = rcgen::KeyPair::generate().unwrap();
    let own = rcgen::CertificateParams::new(names)
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    (pem, showing(&own, &key, protocols))
}

/// A server that shows a certificate.
fn showing(
    own: &rcgen::Certificate,
    key: &rcgen::KeyPair,
    protocols: &[&str],
) -> tokio_rustls::TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![own.der().clone()],
            PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap();
    server.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
    tokio_rustls::TlsAcceptor::from(Arc::new(server))
}

#[tokio::test]
async fn an_authority_that_is_shown_as_a_servers_is_named_in_words() {
    let mut parameters = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let authority = parameters.self_signed(&key).unwrap();
    let origin = Origin::over(Act::Good, Some(showing(&authority, &key, &[]))).await;
    let mut settings = settings(&[&origin.address]);
    settings.tls = Some(Tls {
        roots: Some(authority.pem().into_bytes()),
        server_name: None,
    });
    let response = Under::new(settings).ask(Method::GET, empty()).await;
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let said = String::from_utf8_lossy(&body);
    assert!(said.contains("an authority's (CA:TRUE)"), "{said}");
    assert!(!said.contains("CaUsedAsEndEntity"), "{said}");
}

/// Ten requests at once, and what they were answered with.
async fn ten(under: &Under) -> Vec<StatusCode> {
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let upstream = under.upstream.clone();
        asking.spawn(async move { Under { upstream }.get().await });
    }
    asking.join_all().await
}

#[tokio::test]
async fn requests_wait_for_one_connection_together() {
    let (pem, acceptor) = certified(&["127.0.0.1"], &["h2", "http/1.1"]);
    let trusting = |pem: &str| {
        Some(Tls {
            roots: Some(pem.as_bytes().to_vec()),
            server_name: None,
        })
    };
    // It accepts, and says nothing.
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = socket.local_addr().unwrap();
    let accepting = tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((stream, _)) = socket.accept().await {
            kept.push(stream);
        }
    });
    let mut settings = settings(&[&silent]);
    settings.protocol = Protocol::Negotiated;
    settings.tls = trusting(&pem);
    settings.connect_timeout = Duration::from_millis(400);
    let under = Under::new(settings.clone());
    for _ in 0..2 {
        let began = Instant::now();
        assert_eq!(ten(&under).await, [StatusCode::GATEWAY_TIMEOUT; 10]);
        assert!(
            began.elapsed() < 2 * settings.connect_timeout,
            "not one after the other"
        );
    }
    accepting.abort();

    settings.connect_timeout = Duration::from_secs(5);
    for (name, protocols, connections) in [
        ("HTTP/2", &["h2"][..], 1..=1),
        ("HTTP/1.1", &["http/1.1"], 1..=10),
    ] {
        let (address, seen) = if connections == (1..=1) {
            (refusing(Some(acceptor.clone())).await, None)
        } else {
            let (pem, acceptor) = certified(&["127.0.0.1"], protocols);
            settings.tls = trusting(&pem);
            let origin = Origin::over(Act::Good, Some(acceptor)).await;
            (origin.address, Some(origin))
        };
        settings.addresses = vec![address.to_string()];
        settings.retry = twice();
        let under = Under::new(settings.clone());
        assert_eq!(ten(&under).await, [StatusCode::OK; 10], "{name}");
        let connected = under.count(Event::Connected);
        assert!(connections.contains(&connected), "{name}: {connected}");
        assert!(seen.is_none_or(|origin| origin.seen() == 10), "{name}");
    }
}

#[tokio::test]
async fn who_leaves_does_not_end_the_attempt_of_others() {
    let (pem, acceptor) = certified(&["127.0.0.1"], &["h2"]);
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = settings(&[&socket.local_addr().unwrap()]);
    settings.protocol = Protocol::Negotiated;
    settings.tls = Some(Tls {
        roots: Some(pem.into_bytes()),
        server_name: None,
    });
    let under = Arc::new(Under::new(settings));
    let asking = |under: &Arc<Under>| {
        let under = under.clone();
        tokio::spawn(async move { under.ask(Method::GET, empty()).await.status() })
    };
    let first = asking(&under);
    let (stream, _) = socket.accept().await.unwrap();
    let second = asking(&under);
    tokio::time::sleep(Duration::from_millis(50)).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    tokio::spawn(async move {
        let stream = acceptor.accept(stream).await.unwrap();
        refuse(stream, Arc::new(AtomicUsize::new(1))).await;
    });
    assert_eq!(second.await.unwrap(), 200);
    assert_eq!(under.count(Event::Connected), 1);
}

#[tokio::test]
async fn a_certificate_is_checked() {
    let (pem, acceptor) = certified(&["127.0.0.1", "shop.test"], &["http/1.1"]);
    let (other, _) = certified(&["127.0.0.1"], &[]);
    let origin = Origin::over(Act::Good, Some(acceptor)).await;
    for (name, roots, server_name, protocol, status, error) in [
        (
            "its address",
            Some(&pem),
            None,
            Protocol::Negotiated,
            200,
            "",
        ),
        (
            "the name given",
            Some(&pem),
            Some("shop.test"),
            Protocol::Http1,
            200,
            "",
        ),
        (
            "another name",
            Some(&pem),
            Some("bank.test"),
            Protocol::Http1,
            502,
            "tls_certificate_error",
        ),
        (
            "another authority",
            Some(&other),
            None,
            Protocol::Http1,
            502,
            "tls_certificate_error",
        ),
        (
            "the system's authorities",
            None,
            None,
            Protocol::Http1,
            502,
            "tls_certificate_error",
        ),
        (
            "HTTP/2 which it has not",
            Some(&pem),
            None,
            Protocol::Http2,
            502,
            "tls_protocol_error",
        ),
    ] {
        let mut settings = settings(&[&origin.address]);
        settings.protocol = protocol;
        settings.tls = Some(Tls {
            roots: roots.map(|pem| pem.as_bytes().to_vec()),
            server_name: server_name.map(str::to_owned),
        });
        let Ok(upstream) = Upstream::new("origin", settings, Arc::default()) else {
            // A machine without authorities says so when it is configured.
            assert!(roots.is_none(), "{name}");
            continue;
        };
        let under = Under {
            upstream: Arc::new(upstream),
        };
        let response = under.ask(Method::GET, empty()).await;
        assert_eq!(response.status(), status, "{name}");
        let said = response
            .headers()
            .get("proxy-status")
            .map(|it| it.to_str().unwrap());
        let want = (!error.is_empty()).then(|| format!("edgeweir; error={error}"));
        assert_eq!(said, want.as_deref(), "{name}");
    }
    // Clear to a port with TLS.
    assert_eq!(Under::new(settings(&[&origin.address])).get().await, 502);
}

/// An HTTP/2 origin that refuses the first stream of all.
async fn refusing(tls: Option<tokio_rustls::TlsAcceptor>) -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let seen = Arc::new(AtomicUsize::new(0));
    tokio::spawn(async move {
        while let Ok((stream, _)) = socket.accept().await {
            let (seen, tls) = (seen.clone(), tls.clone());
            tokio::spawn(async move {
                match tls {
                    None => refuse(stream, seen).await,
                    Some(tls) => refuse(tls.accept(stream).await.unwrap(), seen).await,
                }
            });
        }
    });
    address
}

async fn refuse(stream: impl AsyncRead + AsyncWrite + Unpin, seen: Arc<AtomicUsize>) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        if seen.fetch_add(1, SeqCst) == 0 {
            respond.send_reset(h2::Reason::REFUSED_STREAM);
            continue;
        }
        let authority = request.uri().authority().unwrap().to_string();
        let response = http::Response::builder()
            .header("x-authority", authority)
            .body(())
            .unwrap();
        respond.send_response(response, true).unwrap();
    }
}

#[tokio::test]
async fn a_refused_stream_is_repeated_whatever_its_method() {
    let (pem, acceptor) = certified(&["127.0.0.1"], &["h2", "http/1.1"]);
    for tls in [false, true] {
        let address = refusing(tls.then(|| acceptor.clone())).await;
        let mut settings = settings(&[&address]);
        settings.protocol = if tls {
            Protocol::Negotiated
        } else {
            Protocol::Http2
        };
        settings.tls = tls.then(|| Tls {
            roots: Some(pem.clone().into_bytes()),
            server_name: None,
        });
        settings.retry = twice();
        let under = Under::new(settings);
        let response = under.ask(Method::POST, empty()).await;
        assert_eq!(response.status(), 200, "tls {tls}");
        assert_eq!(response.headers()["x-authority"], "example.test");
        assert_eq!(under.count(Event::Repeated), 1);
        assert_eq!(under.count(Event::Connected), 1, "on the same connection");
    }
}

#[test]
fn what_is_wrong_with_certificates_is_said() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    for (name, roots, server_name, words) in [
        ("empty", "", None, "tls.ca: there is no certificate in it"),
        (
            "broken",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            None,
            "tls.ca: certificate 1: ",
        ),
    ] {
        let mut settings = settings(&[&"127.0.0.1:1"]);
        settings.tls = Some(Tls {
            roots: Some(roots.as_bytes().to_vec()),
            server_name,
        });
        let error = Upstream::new("origin", settings, Arc::default())
            .err()
            .expect(name);
        assert!(error.contains(words), "{name}: {error}");
    }
}
