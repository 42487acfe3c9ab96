//! The proxy without filters: messages in every form HTTP/1.1 and HTTP/2 give them, and what goes wrong on either side.

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::Bytes;
use edgeweir::config;
use edgeweir::serve::Upstream;
use edgeweir_host_chain::{Next, Unreached};
use http::HeaderMap;
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Client's version and upstream's.
const WIRES: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

async fn on_each_wire<F: Future<Output = ()>>(
    scenario: impl Fn(std::net::SocketAddr, bool, bool) -> F,
) {
    let origin = origin().await;
    for (client, upstream) in WIRES {
        let host = host(origin, &format!("http2 = {upstream}")).await;
        scenario(host.addresses()[0], client, upstream).await;
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_come_through_whole() {
    on_each_wire(|address, http2, _| async move {
        let mut client = Client::connect(address, http2).await;
        let (parts, body, _) = client.get("/large").await;
        assert_eq!(parts.headers["content-length"], "5000000");
        assert!(body == pattern(5_000_000), "5 MB down");
        let (parts, body, _) = client.get("/chunks").await;
        assert!(!parts.headers.contains_key("content-length"));
        assert_eq!(body.len(), 70_004);

        let request = client
            .request("POST", "/echo")
            .body(full(pattern(5_000_000)));
        let response = client.send(request.unwrap()).await.unwrap();
        let (parts, body, _) = collect(response).await.unwrap();
        assert_eq!(parts.headers["content-length"], "5000000");
        assert!(body == pattern(5_000_000), "5 MB up and down");

        let sent: Vec<Bytes> = (1..200).map(pattern).collect();
        let request = client
            .request("POST", "/echo")
            .body(pieces(sent.clone(), None));
        let response = client.send(request.unwrap()).await.unwrap();
        let (parts, body, _) = collect(response).await.unwrap();
        assert!(!parts.headers.contains_key("content-length"));
        assert!(body == sent.concat(), "pieces of unknown length");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_come_through_in_both_directions() {
    on_each_wire(|address, http2, upstream| async move {
        let mut client = Client::connect(address, http2).await;
        let (_, body, trailers) = client.get("/trailers").await;
        assert_eq!(body, "body");
        let case = format!("client http2 {http2}, upstream http2 {upstream}");
        assert_eq!(trailers.expect(&case)["x-sum"], "42", "{case}");

        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "7".parse().unwrap());
        let request = client
            .request("POST", "/echo")
            .header("te", "trailers")
            .header("trailer", "x-sum")
            .body(pieces(vec!["up".into()], Some(trailers)));
        let response = client.send(request.unwrap()).await.unwrap();
        assert_eq!(response.headers()["x-te"], "trailers", "{case}");
        let (_, body, trailers) = collect(response).await.unwrap();
        assert_eq!(body, "up");
        assert_eq!(trailers.expect(&case)["x-sum"], "7", "{case}");
    })
    .await;
}

// RFC 9113 §8.2.3
#[tokio::test(flavor = "multi_thread")]
async fn cookies_are_one_line() {
    on_each_wire(|address, http2, upstream| async move {
        let mut client = Client::connect(address, http2).await;
        let request = client
            .request("GET", "/head")
            .header("cookie", "a=1")
            .header("x-other", "1")
            .header("cookie", "b=2; c=3");
        let response = client.send(request.body(empty()).unwrap()).await.unwrap();
        let (_, body, _) = collect(response).await.unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        let cookies: Vec<_> = text.lines().filter(|it| it.starts_with("cookie")).collect();
        let case = format!("client http2 {http2}, upstream http2 {upstream}");
        assert_eq!(cookies, ["cookie: a=1; b=2; c=3"], "{case}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_with_two_lengths_is_none() {
    const CHUNKS: &str = "b\r\nhello world\r\n0\r\n\r\n";
    for length in ["5", "11", "50"] {
        for fields in [
            format!("content-length: {length}\r\ntransfer-encoding: chunked\r\n"),
            format!("transfer-encoding: chunked\r\ncontent-length: {length}\r\n"),
        ] {
            let answer = format!("HTTP/1.1 200 OK\r\n{fields}\r\n{CHUNKS}");
            let upstream = scripted(answer.leak().as_bytes(), Duration::ZERO).await;
            let host = host(upstream, "").await;
            for http2 in [false, true] {
                let mut client = Client::connect(host.addresses()[0], http2).await;
                let (parts, body, _) = client.get("/").await;
                let case = format!("{fields}, client http2 {http2}");
                assert_eq!(parts.status, 502, "{case}");
                let why = "edgeweir; error=http_protocol_error";
                assert_eq!(parts.headers["proxy-status"], why, "{case}");
                let body = String::from_utf8_lossy(&body);
                assert!(
                    body.contains("Transfer-Encoding and Content-Length"),
                    "{body}"
                );
            }
            host.stop().await;
        }
    }
}

// RFC 9112 §2.3
#[tokio::test(flavor = "multi_thread")]
async fn the_version_is_that_of_the_own_connection() {
    let upstream = scripted(b"HTTP/1.0 200 OK\r\n\r\nhello", Duration::ZERO).await;
    let host = host(upstream, "").await;
    let got = get_raw(host.addresses()[0], "/", "").await;
    assert!(got.starts_with("HTTP/1.1 200 OK\r\n"), "{got}");
    assert!(got.contains("transfer-encoding: chunked\r\n"), "{got}");
    assert!(got.ends_with("5\r\nhello\r\n0\r\n\r\n"), "{got}");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_without_a_body_stay_so() {
    on_each_wire(|address, http2, upstream| async move {
        let case = format!("client http2 {http2}, upstream http2 {upstream}");
        let mut client = Client::connect(address, http2).await;
        for (path, length) in [("/length", Some("1234")), ("/chunks", None)] {
            let request = client.request("HEAD", path).body(empty()).unwrap();
            let (parts, body, _) = collect(client.send(request).await.unwrap()).await.unwrap();
            let got = parts
                .headers
                .get("content-length")
                .map(|it| it.to_str().unwrap());
            assert_eq!(got, length, "HEAD {path}, {case}");
            assert!(body.is_empty());
        }
        let (parts, body, _) = client.get("/not-modified").await;
        assert_eq!((parts.status.as_u16(), body.len()), (304, 0), "{case}");
        assert_eq!(parts.headers["etag"], "\"a\"");
        let (parts, _, _) = client.get("/no-content").await;
        assert_eq!(parts.status, 204, "{case}");
        assert!(!parts.headers.contains_key("content-length"), "{case}");
        // The connection is still in step after all that.
        let (_, body, _) = client.get("/").await;
        assert_eq!(body, "ok", "{case}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_are_those_of_the_right_hop() {
    on_each_wire(|address, http2, upstream| async move {
        let mut client = Client::connect(address, http2).await;
        let mut request = client
            .request("GET", "/head?q=%20a")
            .header("x-forwarded-for", "1.2.3.4")
            .header("x-end", "kept");
        if !http2 {
            request = request
                .header("connection", "x-hop, keep-alive")
                .header("x-hop", "gone")
                .header("keep-alive", "5")
                .header("proxy-connection", "keep-alive");
        }
        let response = client.send(request.body(empty()).unwrap()).await.unwrap();
        let (_, body, _) = collect(response).await.unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        let case = format!("client http2 {http2}, upstream http2 {upstream}:\n{text}");
        assert!(
            text.contains("x-forwarded-for: 1.2.3.4, 127.0.0.1\n"),
            "{case}"
        );
        assert!(text.contains("x-end: kept\n"), "{case}");
        for gone in ["x-hop", "keep-alive", "connection", "via:"] {
            assert!(!text.contains(gone), "{gone}: {case}");
        }
        if upstream {
            assert!(
                text.contains("GET /head?q=%20a HTTP/2.0 authority=Some(\"example.org\")"),
                "{case}"
            );
            assert!(!text.contains("host:"), "{case}");
        } else {
            assert!(text.contains("GET /head?q=%20a HTTP/1.1"), "{case}");
            assert!(text.contains("\nhost: example.org\n"), "{case}");
        }
        let (parts, ..) = client.get("/hop").await;
        assert!(!parts.headers.contains_key("x-hop") || upstream, "{case}");
        assert!(!parts.headers.contains_key("keep-alive"), "{case}");
        assert_eq!(parts.headers["x-end"], "1", "{case}");
        let (parts, ..) = client.get("/bytes").await;
        assert_eq!(parts.headers["x-latin"].as_bytes(), b"caf\xe9", "{case}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_serves_many_requests() {
    let origin = origin().await;
    let host = host(origin, "").await;
    let stats = host.state.listeners[0].stats.clone();
    let mut client = Client::connect(host.addresses()[0], false).await;
    for _ in 0..50 {
        assert_eq!(client.get("/").await.1, "ok");
    }
    assert_eq!(stats.connections.load(Relaxed), 1);
    assert_eq!(stats.by_class[2].load(Relaxed), 50);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_fails_before_its_head_is_answered_for() {
    // A port that was free a moment ago.
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let refused = socket.local_addr().unwrap();
    drop(socket);
    let silent = scripted(b"", Duration::ZERO).await;
    let garbage = scripted(b"this is not HTTP at all\r\n\r\n", Duration::ZERO).await;
    let good = origin().await;
    for (case, upstream, extra, path, status) in [
        ("refused", refused, "", "/", 502),
        ("refused, http2", refused, "http2 = true", "/", 502),
        ("closed at once", silent, "", "/", 502),
        ("not HTTP", garbage, "", "/", 502),
        ("not HTTP/2", garbage, "http2 = true", "/", 502),
        ("no answer in time", good, "timeout_ms = 200", "/never", 504),
        (
            "no answer in time, http2",
            good,
            "timeout_ms = 200\nhttp2 = true",
            "/never",
            504,
        ),
    ] {
        let host = host(upstream, extra).await;
        let began = Instant::now();
        let (parts, body, _) = Client::connect(host.addresses()[0], false)
            .await
            .get(path)
            .await;
        assert_eq!(parts.status.as_u16(), status, "{case}");
        assert!(
            parts.headers["proxy-status"]
                .to_str()
                .unwrap()
                .starts_with("edgeweir; error=")
        );
        assert!(
            String::from_utf8_lossy(&body).starts_with("upstream origin: "),
            "{case}"
        );
        assert!(began.elapsed() < Duration::from_secs(4), "{case}");
        host.stop().await;
    }
}

/// Filters tell it from an answer of the upstream's own by this mark.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_answered_for_an_upstream_is_marked() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let refused = socket.local_addr().unwrap();
    drop(socket);
    let silent = scripted(b"", Duration::ZERO).await;
    let own = scripted(
        b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n",
        Duration::ZERO,
    )
    .await;
    for (case, address, room, status, marked) in [
        ("refused", refused, 1, 502, Some(Unreached::Refused)),
        ("closed at once", silent, 1, 502, Some(Unreached::Closed)),
        ("its own 502", own, 1, 502, None),
        ("nobody is asked", own, 0, 503, Some(Unreached::Full)),
    ] {
        let settings = config::Upstream::at(address.to_string());
        let limits = config::Limits::default();
        let mut settings = settings.settings(&limits, |file| file.to_owned()).unwrap();
        (settings.requests, settings.pending) = (Some(room), 0);
        let upstream = Upstream::new("origin", settings, Arc::default()).unwrap();
        let request = http::Request::builder()
            .uri("/")
            .header("host", "example.test")
            .body(edgeweir_host_chain::empty())
            .unwrap();
        let chain = Next::new(vec![Arc::new(upstream)]);
        let response = chain.run(request).await.unwrap();
        assert_eq!(response.status(), status, "{case}");
        assert_eq!(
            response.extensions().get::<Unreached>().copied(),
            marked,
            "{case}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_cut_upstream_is_cut_for_the_client() {
    for (case, answer) in [
        (
            "content-length",
            &b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"[..],
        ),
        (
            "chunked",
            &b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n"[..],
        ),
    ] {
        let upstream = scripted(answer, Duration::from_millis(50)).await;
        let host = host(upstream, "").await;
        for http2 in [false, true] {
            let mut client = Client::connect(host.addresses()[0], http2).await;
            let request = client.request("GET", "/").body(empty()).unwrap();
            let response = client.send(request).await.unwrap();
            assert_eq!(response.status(), 200);
            let ended = collect(response).await;
            assert!(
                ended.is_err(),
                "{case}, http2 {http2}: a clean end: {ended:?}"
            );
        }
        let stats = host.state.listeners[0].stats.clone();
        assert_eq!(stats.cut.load(Relaxed), 2, "{case}");
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_falls_silent_in_its_body_is_cut() {
    let upstream = scripted(
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf",
        Duration::from_secs(60),
    )
    .await;
    let host = host(upstream, "idle_timeout_ms = 200").await;
    let began = Instant::now();
    let answer = get_raw(host.addresses()[0], "/", "").await;
    assert!(answer.ends_with("half"), "{answer}");
    assert!(began.elapsed() < Duration::from_secs(5));
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_frees_everything() {
    let origin = origin().await;
    let host = host(origin, "").await;
    let stats = host.state.listeners[0].stats.clone();
    let address = host.addresses()[0];
    let mut leaving = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n";
        stream.write_all(request).await.unwrap();
        leaving.push(stream);
    }
    let began = Instant::now();
    while stats.in_flight.load(Relaxed) < 20 {
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "they were not begun"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(leaving);
    // And one that leaves in the middle of a body.
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let mut some = [0; 1000];
    stream.read_exact(&mut some).await.unwrap();
    drop(stream);
    let began = Instant::now();
    while stats.requests() < 21
        || stats.in_flight.load(Relaxed) > 0
        || stats.connections.load(Relaxed) > 0
    {
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "in flight: {}",
            stats.in_flight.load(Relaxed)
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(stats.by_class[0].load(Relaxed), 20);
    assert_eq!(stats.cut.load(Relaxed), 21);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_connections_at_once() {
    let origin = origin().await;
    let host = host(origin, "").await;
    let address = host.addresses()[0];
    let mut clients = Vec::new();
    for _ in 0..1_000 {
        clients.push(Client::connect(address, false).await);
    }
    let stats = host.state.listeners[0].stats.clone();
    let mut all = tokio::task::JoinSet::new();
    for mut client in clients {
        all.spawn(async move {
            let (parts, body, _) = client.get("/slow").await;
            assert_eq!((parts.status.as_u16(), &body[..]), (200, &b"slow"[..]));
            client
        });
    }
    let clients = all.join_all().await;
    assert_eq!(stats.connections.load(Relaxed), 1_000);
    assert_eq!(stats.by_class[2].load(Relaxed), 1_000);
    drop(clients);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forty_thousand_fields_cost_one_request() {
    let origin = origin().await;
    let host = host(origin, "").await;
    let address = host.addresses()[0];
    let mut request = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
    for number in 0..40_000 {
        request.extend_from_slice(format!("x{number}: y\r\n").as_bytes());
    }
    request.extend_from_slice(b"\r\n");
    let answer = raw(address, request).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
        "{answer}"
    );

    let answer = get_raw(address, "/", &"a: b\r\n".repeat(1_500)).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let answer = get_raw(address, "/", &"a: b\r\n".repeat(900)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    let mut client = Client::connect(address, true).await;
    let mut request = client.request("GET", "/");
    for number in 0..2_000 {
        request = request.header(format!("x{number}"), "y");
    }
    let response = client.send(request.body(empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 431);

    // The host lives, for old connections and new ones.
    assert_eq!(client.get("/").await.1, "ok");
    assert!(get_raw(address, "/", "").await.ends_with("ok"));
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_said() {
    let origin = origin().await;
    let host = host(origin, "").await;
    let address = host.addresses()[0];
    for (case, request, status) in [
        (
            "WebSocket",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
            501,
        ),
        ("CONNECT", "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 501),
        (
            "no Host",
            "GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
            400,
        ),
        (
            "two Hosts",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n",
            400,
        ),
        (
            "user in Host",
            "GET / HTTP/1.1\r\nHost: u@a\r\nConnection: close\r\n\r\n",
            400,
        ),
        (
            "h2c is ignored",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade, close\r\nUpgrade: h2c\r\n\r\n",
            200,
        ),
        (
            "absolute form",
            "GET http://b/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            200,
        ),
        ("HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", 200),
        (
            "server as a whole",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            200,
        ),
    ] {
        let stop = tokio::time::timeout(Duration::from_secs(3), async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut head = vec![0; 12];
            stream.read_exact(&mut head).await.unwrap();
            String::from_utf8(head).unwrap()
        });
        let head = stop.await.expect(case);
        assert!(head.ends_with(&status.to_string()), "{case}: {head}");
    }
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_finishes_what_is_in_flight() {
    let origin = origin().await;
    let host = host(origin, "").await;
    let address = host.addresses()[0];
    let idle = TcpStream::connect(address).await.unwrap();
    let in_flight = tokio::spawn(async move { get_raw(address, "/slow", "").await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let began = Instant::now();
    let state = host.stop().await;
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "an idle connection held it up"
    );
    assert!(in_flight.await.unwrap().ends_with("slow"));
    assert_eq!(state.listeners[0].stats.by_class[2].load(Relaxed), 1);
    assert!(
        TcpStream::connect(address).await.is_err(),
        "it still accepts"
    );
    drop(idle);
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_cuts_what_outlasts_the_grace_time() {
    let origin = origin().await;
    let host = host(origin, "[limits]\ngrace_ms = 200").await;
    let address = host.addresses()[0];
    let in_flight = tokio::spawn(async move { get_raw(address, "/never", "").await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let began = Instant::now();
    host.stop().await;
    assert!(began.elapsed() < Duration::from_secs(2));
    assert_eq!(in_flight.await.unwrap(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_pages_say_what_happened() {
    let origin = origin().await;
    let host = host(origin, "").await;
    let admin = host.admin.expect("admin is configured");
    let mut client = Client::connect(host.addresses()[0], false).await;
    for _ in 0..3 {
        client.get("/chunks").await;
    }
    let local = |path: &str| get_admin(admin, path.to_owned());
    let metrics = local("/metrics").await;
    for line in [
        "edgeweir_requests_total{listener=\"main\",class=\"2xx\"} 3",
        "edgeweir_request_seconds_bucket{listener=\"main\",le=\"+Inf\"} 3",
        "edgeweir_request_seconds_count{listener=\"main\"} 3",
        "edgeweir_sent_bytes_total{listener=\"main\"} 210012",
        "edgeweir_in_flight{listener=\"main\"} 0",
        "# TYPE edgeweir_request_seconds histogram",
    ] {
        assert!(
            metrics.lines().any(|it| it == line),
            "no {line} in:\n{metrics}"
        );
    }
    let resident = metrics
        .lines()
        .find_map(|line| line.strip_prefix("process_resident_memory_bytes "))
        .expect("resident memory");
    assert!(resident.parse::<u64>().unwrap() > 1_000_000);
    let stats = local("/stats.json").await;
    let stats: serde_json::Value =
        serde_json::from_str(stats.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(stats["listeners"][0]["requests"], 3);
    assert_eq!(stats["recent"][0]["path"], "/chunks");
    assert_eq!(stats["recent"][0]["bytes"], 70_004);
    assert!(local("/healthz").await.ends_with("ok\n"));
    assert!(local("/readyz").await.ends_with("ready\n"));
    assert!(local("/").await.contains("<html"));
    assert!(local("/nothing").await.starts_with("HTTP/1.1 404"));
    // A name that another site points at this address gets nothing.
    assert!(
        get_raw(admin, "/stats.json", "")
            .await
            .starts_with("HTTP/1.1 403")
    );
    host.stop().await;
}

async fn get_admin(address: std::net::SocketAddr, path: String) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    String::from_utf8_lossy(&raw(address, request).await).into_owned()
}
