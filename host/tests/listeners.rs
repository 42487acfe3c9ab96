//! What a listener does besides proxying: TLS by name, what it says of an exchange, and how it takes its leave.

mod support;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use edgeweir::config::Config;
use edgeweir::host::{Host, Prepared};
use http::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName};
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A certificate for some names, signed by itself, in two files.
fn certificate(
    folder: &Path,
    file: &str,
    names: &[&str],
) -> (PathBuf, PathBuf, CertificateDer<'static>) {
    let names: Vec<String> = names.iter().map(|it| (*it).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let (pem, key) = (
        folder.join(format!("{file}.pem")),
        folder.join(format!("{file}.key")),
    );
    std::fs::write(&pem, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (pem, key, made.cert.der().clone())
}

async fn with(listener: &str, upstream: &str, rest: &str) -> Host {
    let text = format!(
        "[[listener]]\nname = \"main\"\nlisten = \"127.0.0.1:0\"\nupstream = \"origin\"\n{listener}\n\
         [upstream.origin]\n{upstream}\n{rest}\n"
    );
    Host::start(Config::parse(Path::new("test.toml"), text).unwrap())
        .await
        .unwrap()
}

/// A client that trusts one certificate, asks for a name and offers protocols: what was agreed on, and the stream.
async fn secure(
    address: SocketAddr,
    trusted: &CertificateDer<'static>,
    name: &'static str,
    protocols: &[&str],
) -> std::io::Result<(Option<String>, tokio_rustls::client::TlsStream<TcpStream>)> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(address).await?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector
        .connect(ServerName::try_from(name).unwrap(), stream)
        .await?;
    let agreed = stream.get_ref().1.alpn_protocol();
    let agreed = agreed.map(|it| String::from_utf8_lossy(it).into_owned());
    Ok((agreed, stream))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_has_to_come_after_tls_too() {
    let folder = tempfile::tempdir().unwrap();
    let (pem, key, trusted) = certificate(folder.path(), "edge", &["localhost"]);
    let listener = format!("[listener.tls]\ncertificate = {pem:?}\nkey = {key:?}");
    let origin = format!("address = \"{}\"", origin().await);
    let host = with(&listener, &origin, "[limits]\nhead_timeout_ms = 400").await;
    let address = host.addresses()[0];
    for (sent, answer) in [("", ""), ("GET / HTTP/1.1\r\nHo", "HTTP/1.1 408 ")] {
        let (_, mut stream) = secure(address, &trusted, "localhost", &[]).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut got = Vec::new();
        let reading = stream.read_to_end(&mut got);
        let ended = tokio::time::timeout(Duration::from_secs(5), reading).await;
        assert!(ended.is_ok(), "{sent:?}: it is still open");
        let got = String::from_utf8_lossy(&got);
        assert!(got.starts_with(answer), "{sent:?}: {got}");
    }
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_on_both_sides_with_either_version() {
    let folder = tempfile::tempdir().unwrap();
    let (pem, key, trusted) = certificate(folder.path(), "edge", &["localhost", "127.0.0.1"]);
    let listener = format!("[listener.tls]\ncertificate = {pem:?}\nkey = {key:?}");
    let origin = origin().await;
    // The one behind is a host as well: it gives the one in front an upstream with TLS.
    let behind = with(&listener, &format!("address = \"{origin}\""), "").await;
    let behind = behind.addresses()[0];
    for (case, http2, version) in [
        ("by ALPN", "", "HTTP/2.0"),
        ("HTTP/1.1", "http2 = false", "HTTP/1.1"),
    ] {
        let upstream = format!("address = \"{behind}\"\n{http2}\ntls = {{ ca = {pem:?} }}");
        let host = with(&listener, &upstream, "").await;
        let address = host.addresses()[0];
        for (offered, agreed) in [
            (&["h2", "http/1.1"][..], Some("h2")),
            (&["http/1.1"][..], Some("http/1.1")),
            (&[][..], None),
        ] {
            let (got, stream) = secure(address, &trusted, "localhost", offered)
                .await
                .unwrap();
            assert_eq!(got.as_deref(), agreed, "{case}");
            let request = |path: &str| {
                let target = match agreed {
                    Some("h2") => format!("https://example.org{path}"),
                    _ => path.to_owned(),
                };
                Request::get(target)
                    .header("host", "example.org")
                    .body(empty())
                    .unwrap()
            };
            let io = TokioIo::new(stream);
            let mut client = if agreed == Some("h2") {
                let (sender, connection) =
                    hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
                        .await
                        .unwrap();
                tokio::spawn(connection);
                Client::Http2(sender)
            } else {
                let (sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
                tokio::spawn(connection);
                Client::Http1(sender)
            };
            let response = client.send(request("/head")).await.unwrap();
            let (parts, body, _) = collect(response).await.unwrap();
            assert_eq!(parts.status, 200, "{case}");
            let text = String::from_utf8_lossy(&body).into_owned();
            // What the origin sees came from the host behind, over TLS.
            assert!(
                text.contains("x-forwarded-proto: https\n"),
                "{case}: {text}"
            );
            let response = client.send(request("/large")).await.unwrap();
            assert!(
                collect(response).await.unwrap().1 == pattern(5_000_000),
                "{case}"
            );
        }
        let events = host.state.upstreams["origin"].snapshot();
        assert_eq!(events.endpoints[0].failures, 0, "{case}");
        let _ = version;
        // Clear HTTP to a listener with TLS gets no answer, and costs it nothing.
        let answer = raw(address, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(!answer.starts_with(b"HTTP"), "{case}");
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_is_chosen_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let (pem, key, default) = certificate(folder.path(), "default", &["edge.test"]);
    let (shop_pem, shop_key, shop) = certificate(folder.path(), "shop", &["shop.test"]);
    let (wild_pem, wild_key, wild) = certificate(folder.path(), "wild", &["*.wild.test"]);
    let listener = format!(
        "[listener.tls]\ncertificate = {pem:?}\nkey = {key:?}\n\
         [[listener.tls.names]]\nname = \"Shop.test\"\ncertificate = {shop_pem:?}\nkey = {shop_key:?}\n\
         [[listener.tls.names]]\nname = \"*.wild.test\"\ncertificate = {wild_pem:?}\nkey = {wild_key:?}"
    );
    let host = with(&listener, "address = \"127.0.0.1:1\"", "").await;
    let address = host.addresses()[0];
    for (name, trusted, good) in [
        ("edge.test", &default, true),
        ("shop.test", &shop, true),
        ("SHOP.test", &shop, true),
        ("a.wild.test", &wild, true),
        ("other.test", &default, false),
        ("shop.test", &default, false),
    ] {
        let got = secure(address, trusted, name, &[]).await;
        assert_eq!(got.is_ok(), good, "{name}");
    }
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_certificates_is_said_at_load() {
    let folder = tempfile::tempdir().unwrap();
    let (pem, key, _) = certificate(folder.path(), "edge", &["edge.test"]);
    let (_, other, _) = certificate(folder.path(), "other", &["edge.test"]);
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "nothing").unwrap();
    let gone = folder.path().join("gone.pem");
    let listener = |pem: &Path, key: &Path, more: &str| {
        let tls = format!("[listener.tls]\ncertificate = {pem:?}\nkey = {key:?}\n{more}");
        (tls, String::new())
    };
    for (case, (listener, upstream), place, words) in [
        (
            "no file",
            listener(&gone, &key, ""),
            "test.toml:6:15: in `listener[0].tls.certificate`",
            "cannot be read",
        ),
        (
            "no certificate",
            listener(&empty, &key, ""),
            "test.toml:6:15: in `listener[0].tls.certificate`",
            "there is no certificate in it",
        ),
        (
            "no key",
            listener(&pem, &empty, ""),
            "test.toml:7:7: in `listener[0].tls.key`",
            "there is no private key in it",
        ),
        (
            "another key",
            listener(&pem, &other, ""),
            "test.toml:7:7: in `listener[0].tls.key`",
            "not the key of the certificate",
        ),
        (
            "no name",
            listener(
                &pem,
                &key,
                &format!(
                    "[[listener.tls.names]]\nname = \"a.*.test\"\ncertificate = {pem:?}\nkey = {key:?}"
                ),
            ),
            "test.toml:9:8: in `listener[0].tls.names[0].name`",
            "is not a name",
        ),
        (
            "no authorities",
            (String::new(), format!("tls = {{ ca = {gone:?} }}")),
            "test.toml:8:14: in `upstream.origin.tls.ca`",
            "gone.pem",
        ),
        (
            "none in the file",
            (String::new(), format!("tls = {{ ca = {empty:?} }}")),
            "test.toml:8:14: in `upstream.origin.tls.ca`",
            "there is no certificate in it",
        ),
        (
            "no server name",
            (String::new(), "tls = { server_name = \"a b\" }".to_owned()),
            "test.toml:8:23: in `upstream.origin.tls.server_name`",
            "is not a host name",
        ),
        (
            "no path",
            (String::new(), "health = { path = \"up\" }".to_owned()),
            "test.toml:8:19: in `upstream.origin.health.path`",
            "is not a path",
        ),
    ] {
        let text = format!(
            "[[listener]]\nname = \"main\"\nlisten = \"127.0.0.1:0\"\nupstream = \"origin\"\n{listener}\n\
             [upstream.origin]\naddress = \"127.0.0.1:1\"\n{upstream}\n"
        );
        let config = Config::parse(Path::new("test.toml"), text).unwrap();
        let error = match Prepared::new(config).await {
            Ok(_) => panic!("{case}: it was accepted"),
            Err(error) => format!("{error:#}"),
        };
        assert!(error.contains(place), "{case}: {error}");
        assert!(error.contains(words), "{case}: {error}");
    }
}

#[test]
fn fields_of_upstreams_are_checked_where_they_are_written() {
    for (case, upstream, place, words) in [
        (
            "no address",
            "http2 = true",
            "edge.toml:5:1: in `upstream.origin`",
            "an upstream has an `address`",
        ),
        (
            "not TLS",
            "address = \"a:1\"\ntls = 3",
            "edge.toml:7:7: in `upstream.origin.tls`",
            "true, or a table",
        ),
        (
            "misspelt",
            "address = \"a:1\"\ntls = { caa = \"x\" }",
            "edge.toml:7:9: in `upstream.origin.tls.caa`",
            "unknown field `caa`",
        ),
        (
            "bound",
            "address = \"a:1\"\n[upstream.origin.retry]\nattempts = 11",
            "edge.toml:8:12: in `upstream.origin.retry.attempts`",
            "from 1 to 10",
        ),
        (
            "status",
            "address = \"a:1\"\n[upstream.origin.retry]\nstatuses = [500]",
            "edge.toml:8:13: in `upstream.origin.retry.statuses[0]`",
            "from 502 to 504",
        ),
        (
            "one of several",
            "addresses = [\"a:1\", \"b\"]",
            "edge.toml:6:13: in `upstream.origin.addresses[1]`",
            "is not host:port",
        ),
    ] {
        let text = format!(
            "[[listener]]\nname = \"main\"\nlisten = \"127.0.0.1:0\"\nupstream = \"origin\"\n[upstream.origin]\n{upstream}\n"
        );
        let error = Config::parse(Path::new("edge.toml"), text)
            .expect_err(case)
            .to_string();
        assert!(error.contains(place), "{case}: {error}");
        assert!(error.contains(words), "{case}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_has_one_name_and_says_what_it_took() {
    let origin = origin().await;
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.jsonl");
    let listener = format!(
        "request_id = \"accept\"\nrequest_id_in_response = true\nserver_timing = true\naccess_log = {log:?}"
    );
    let host = with(&listener, &format!("address = \"{origin}\""), "").await;
    let address = host.addresses()[0];
    for (case, given, want) in [
        ("a sound one", "x-request-id: abc-1\r\n", Some("abc-1")),
        ("none", "", None),
        ("one that is not", "x-request-id: a\"b\r\n", None),
    ] {
        let answer = get_raw(address, "/head", given).await;
        let ids: Vec<&str> = answer
            .lines()
            .filter_map(|line| line.strip_prefix("x-request-id: "))
            .collect();
        // In the head of the response, and in what the origin saw.
        assert_eq!(ids.len(), 2, "{case}: {answer}");
        assert_eq!(ids[0], ids[1], "{case}");
        match want {
            Some(want) => assert_eq!(ids[0], want, "{case}"),
            None => assert_eq!(
                (ids[0].len(), &ids[0][14..15]),
                (36, "4"),
                "{case}: {}",
                ids[0]
            ),
        }
        let timing = answer
            .lines()
            .find_map(|line| line.strip_prefix("server-timing: "))
            .expect(case);
        let [(origin, own), (total, all)] = metrics(timing)[..] else {
            panic!("{case}: {timing}");
        };
        assert_eq!((origin, total), ("origin", "total"), "{case}");
        assert!(own <= all, "{case}: {timing}");
        let (_, body) = answer.split_once("\r\n\r\n").expect(case);
        let size = format!(";desc=\"{} bytes\", total", body.len());
        assert!(timing.contains(&size), "{case}: {timing}");
    }
    let long = format!("/chunks?{}", "x".repeat(3_000));
    get_raw(address, &long, "").await;
    let slow = get_raw(address, "/slow", "").await;
    let timing = slow
        .lines()
        .find_map(|line| line.strip_prefix("server-timing: "))
        .unwrap();
    assert!(metrics(timing)[0].1 > 390.0, "{timing}");
    host.stop().await;
    let began = Instant::now();
    let lines = loop {
        let text = std::fs::read_to_string(&log).unwrap();
        if text.lines().count() == 5 {
            break text;
        }
        assert!(began.elapsed() < Duration::from_secs(5), "{text}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let first: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(first["request_id"], "abc-1");
    assert_eq!(first["host"], "example.org");
    assert_eq!(
        (&first["path"], &first["status"]),
        (&"/head".into(), &200.into())
    );
    assert_eq!(first["layers"][0]["name"], "origin");
    assert_eq!(first["layers"][0]["bytes"], first["bytes"]);
    // A path that is longer than what is written says so; bytes are counted where no head says them.
    let fourth: serde_json::Value = serde_json::from_str(lines.lines().nth(3).unwrap()).unwrap();
    let path = fourth["path"].as_str().unwrap();
    assert_eq!(path, format!("{}…", &long[..2_048]));
    assert_eq!(fourth["layers"][0]["bytes"], 70_004);
}

/// Names and milliseconds of a `Server-Timing`.
fn metrics(value: &str) -> Vec<(&str, f64)> {
    value
        .split(", ")
        .map(|metric| {
            let (name, took) = metric.split_once(";dur=").unwrap();
            let took = took.split(';').next().unwrap();
            (name, took.parse().unwrap())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_stops_says_so_on_its_connections() {
    let origin = origin().await;
    let host = with("", &format!("address = \"{origin}\""), "").await;
    let address = host.addresses()[0];
    // HTTP/1.1: the answer to what is in flight says that it is the last.
    let mut one = TcpStream::connect(address).await.unwrap();
    one.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    // HTTP/2, with prior knowledge: GOAWAY, and the stream in flight ends well.
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut sender = sender.ready().await.unwrap();
    let request = Request::get("http://a/slow").body(()).unwrap();
    let (response, _) = sender.send_request(request, true).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let stopping = tokio::spawn(host.stop());
    let mut answer = String::new();
    one.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(
        answer
            .to_ascii_lowercase()
            .contains("\r\nconnection: close\r\n"),
        "{answer}"
    );
    let mut response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    while let Some(data) = response.body_mut().data().await {
        data.unwrap();
    }
    let refused = match sender.ready().await {
        Ok(mut sender) => {
            let request = Request::get("http://a/").body(()).unwrap();
            match sender.send_request(request, true) {
                Ok((response, _)) => response.await.is_err(),
                Err(_) => true,
            }
        }
        Err(_) => true,
    };
    assert!(refused, "a stream after GOAWAY");
    drop(stopping.await.unwrap());
    let _ = connection.await;
}

/// The example of the page is a configuration, with every field it explains.
#[test]
fn the_example_of_the_page_is_good_and_names_every_field() {
    let page = include_str!("../docs/run.md");
    let example = page
        .split("```toml\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let config = Config::parse(Path::new("edgeweir.toml"), example.to_owned());
    let config = config.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.listeners.len(), 2);
    assert!(config.upstreams["origin"].retry.is_some());
    // Each row of a table of fields begins with the field's name: all of them are in the example.
    for row in page.lines().filter_map(|line| line.strip_prefix("| `")) {
        let field = row.split('`').next().unwrap();
        if field.starts_with("--") {
            continue;
        }
        assert!(
            example.lines().any(|line| line
                .trim_start()
                .trim_start_matches("# ")
                .starts_with(&format!("{field} ="))),
            "`{field}` is not in the example"
        );
    }
}
