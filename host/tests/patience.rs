//! How long a client is waited for: for its first request and the next, for their bodies, and to take what it asked for.

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use edgeweir::config::Config;
use edgeweir::host::Host;
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// SETTINGS without any.
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
/// What is long enough where a fraction of a second was asked for, and short where it would be for ever.
const SOON: Duration = Duration::from_secs(5);

/// What a client is told before its connection ends.
enum Told {
    Nothing,
    Late,
    GoAway,
    Whatever,
}

async fn with(upstream: SocketAddr, limits: &str, extra: &str) -> Host {
    let text = format!(
        "[limits]\n{limits}\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"main\"\nlisten = \"127.0.0.1:0\"\nupstream = \"origin\"\n\
         [upstream.origin]\naddress = \"{upstream}\"\n{extra}\n"
    );
    Host::start(Config::parse(Path::new("test.toml"), text).unwrap())
        .await
        .unwrap()
}

/// An origin that answers whatever it is asked with more than sockets hold.
async fn endless() -> SocketAddr {
    let mut bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 67108864\r\n\r\n".to_vec();
    bytes.resize(bytes.len() + 67_108_864, b'x');
    scripted(bytes.leak(), Duration::ZERO).await
}

/// The first bytes of an answer.
async fn status_line(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut line = [0; 12];
    stream.read_exact(&mut line).await.unwrap();
    String::from_utf8_lossy(&line).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_begins_with_no_request_ends() {
    let host = with(origin().await, "head_timeout_ms = 400", "").await;
    let settings = [PREFACE, SETTINGS].concat();
    // A field block without an end.
    let headers = [&settings[..], b"\0\0\x01\x01\x01\0\0\0\x01\x82"].concat();
    for address in [host.addresses()[0], host.admin.unwrap()] {
        for (name, sent, answer) in [
            ("silent", &b""[..], Told::Nothing),
            ("empty lines", b"\r\n\r\n", Told::Nothing),
            ("part of a head", b"GET / HTTP/1.1\r\nHo", Told::Late),
            ("part of a preface", b"PRI * HT", Told::Nothing),
            ("the preface alone", PREFACE, Told::Whatever),
            ("HTTP/2 without a request", &settings, Told::GoAway),
            ("HTTP/2 with part of one", &headers, Told::GoAway),
        ] {
            let began = Instant::now();
            let got = raw(address, sent).await;
            let took = began.elapsed();
            assert!(took < SOON, "{name}: {took:?}");
            assert!(took > Duration::from_millis(300), "{name}: {took:?}");
            let so = match answer {
                Told::Nothing => got.is_empty(),
                Told::Late => got.starts_with(b"HTTP/1.1 408 "),
                Told::GoAway => got.windows(5).any(|it| it == b"\0\0\x08\x07\0"),
                Told::Whatever => true,
            };
            assert!(so, "{name}: {got:?}");
        }
    }
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_now_and_then_is_no_request() {
    let host = with(origin().await, "head_timeout_ms = 400", "").await;
    let mut stream = TcpStream::connect(host.addresses()[0]).await.unwrap();
    let began = Instant::now();
    let mut got = [0; 12];
    for byte in b"GET / HTTP/1.1\r\nHost: a\r\nx: ".iter().cycle() {
        let _ = stream.write_all(&[*byte]).await;
        let reading = stream.read_exact(&mut got);
        if let Ok(read) = tokio::time::timeout(Duration::from_millis(50), reading).await {
            read.unwrap();
            break;
        }
        assert!(began.elapsed() < SOON, "it is still open");
    }
    assert_eq!(&got, b"HTTP/1.1 408");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_nothing_keeps_nobody_out() {
    let limits = "head_timeout_ms = 400\nconnections = 2";
    let host = with(origin().await, limits, "").await;
    let address = host.addresses()[0];
    let mut silent = Vec::new();
    for _ in 0..2 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let line = tokio::time::timeout(SOON, status_line(address)).await;
    assert_eq!(line.expect("a place"), "HTTP/1.1 200");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http2_connection_without_a_request_is_closed() {
    let host = with(origin().await, "head_timeout_ms = 300", "").await;
    let stream = TcpStream::connect(host.addresses()[0]).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    // As long as one is under way it stays.
    for path in ["slow", ""] {
        let request = http::Request::get(format!("http://example.org/{path}"));
        let (response, _) = client
            .send_request(request.body(()).unwrap(), true)
            .unwrap();
        let (parts, mut body) = response.await.unwrap().into_parts();
        assert_eq!(parts.status, 200, "{path}");
        while let Some(piece) = body.data().await {
            piece.unwrap();
        }
        client = client.ready().await.unwrap();
    }
    let ended = tokio::time::timeout(SOON, connection).await;
    // GOAWAY, not just an end.
    ended.expect("it ends").unwrap().unwrap();
    host.stop().await;
}

/// Who waits for room at the upstream gets it when the client that has it is given up.
const ONE_AT_A_TIME: &str = "timeout_ms = 10000\n[upstream.origin.breaker]\nmax_requests = 1";

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_nothing_of_a_response_is_given_up() {
    let host = with(endless().await, "stall_timeout_ms = 400", ONE_AT_A_TIME).await;
    let address = host.addresses()[0];
    let mut idle = TcpStream::connect(address).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n";
    idle.write_all(request).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let line = tokio::time::timeout(SOON, status_line(address)).await;
    assert_eq!(line.expect("room"), "HTTP/1.1 200");
    let mut rest = Vec::new();
    let _ = idle.read_to_end(&mut rest).await;
    assert!(rest.len() < 67_108_864, "it was cut");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gives_a_stream_no_window_is_given_up() {
    let limits = "stall_timeout_ms = 400\nhead_timeout_ms = 600";
    let host = with(endless().await, limits, ONE_AT_A_TIME).await;
    let address = host.addresses()[0];
    for window in [0, 65_535] {
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut client, connection) = h2::client::Builder::new()
            .initial_window_size(window)
            .handshake::<_, bytes::Bytes>(stream)
            .await
            .unwrap();
        let connection = tokio::spawn(connection);
        let request = http::Request::get("http://example.org/").body(()).unwrap();
        let (response, _) = client.send_request(request, true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        let line = tokio::time::timeout(SOON, status_line(address)).await;
        assert_eq!(line.expect("room"), "HTTP/1.1 200", "window {window}");
        // What is left of it holds the connection no longer than nothing would.
        let ended = tokio::time::timeout(SOON, connection).await;
        assert!(ended.is_ok(), "window {window}");
        drop(response);
    }
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_body_that_stops_is_the_clients_fault() {
    let breaker = "[upstream.origin.breaker]\nfailures = 1";
    for (name, limits, upstream) in [
        ("at the listener", "stall_timeout_ms = 400", ""),
        ("at the upstream", "", "timeout_ms = 400"),
    ] {
        for http2 in [false, true] {
            let extra = format!("http2 = {http2}\n{upstream}\n{breaker}");
            let host = with(origin().await, limits, &extra).await;
            let address = host.addresses()[0];
            let extra = format!("{name}, upstream http2 {http2}");
            let began = Instant::now();
            let request = b"POST /collect HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab";
            let got = raw(address, request).await;
            let got = String::from_utf8_lossy(&got);
            assert!(got.starts_with("HTTP/1.1 408 "), "{extra}: {got}");
            assert!(began.elapsed() < SOON, "{extra}");
            // The endpoint is not blamed for it.
            assert_eq!(status_line(address).await, "HTTP/1.1 200", "{extra}");
            host.stop().await;
        }
    }
}
