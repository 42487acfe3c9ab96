//! A bootstrap of Envoy's, served: what the upstream sees of a request.

mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use edgeweir::config::Config;
use edgeweir::host::Host;
use support::*;

fn bootstrap(listen: SocketAddr, origin: SocketAddr, manager: &str) -> String {
    format!(
        r#"
static_resources:
  listeners:
  - name: edge
    address: {{ socket_address: {{ address: {}, port_value: {} }} }}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: edge
          {manager}
          route_config:
            virtual_hosts:
            - name: a
              domains: ["a.example"]
              routes: [{{ match: {{ prefix: "/" }}, route: {{ cluster: origin }} }}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
  clusters:
  - name: origin
    load_assignment:
      endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: {}, port_value: {} }} }} }} }}] }}]
"#,
        listen.ip(),
        listen.port(),
        origin.ip(),
        origin.port()
    )
}

async fn serve(manager: &str) -> (Host, SocketAddr) {
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listen = free.local_addr().unwrap();
    drop(free);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("envoy.yaml");
    std::fs::write(&file, bootstrap(listen, origin().await, manager)).unwrap();
    let config = Config::read(&file).unwrap_or_else(|error| panic!("{error}"));
    (Host::start(config).await.unwrap(), listen)
}

async fn ask(address: SocketAddr, host: &str, fields: &str) -> String {
    let request =
        format!("GET /head HTTP/1.1\r\nHost: {host}\r\n{fields}Connection: close\r\n\r\n");
    String::from_utf8_lossy(&raw(address, request).await).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_is_taken_off_for_routes_and_the_upstream() {
    for (manager, own, other) in [
        ("", None, None),
        (
            "strip_any_host_port: true",
            Some("a.example"),
            Some("a.example"),
        ),
        ("strip_matching_host_port: true", Some("a.example"), None),
    ] {
        let (host, address) = serve(manager).await;
        let own_port = format!("a.example:{}", address.port());
        for (asked, want) in [
            ("a.example", Some("a.example")),
            (own_port.as_str(), own),
            ("a.example:77", other),
        ] {
            let answer = ask(address, asked, "").await;
            match want {
                Some(want) => {
                    assert!(
                        answer.contains(&format!("\nhost: {want}\n")),
                        "{manager} {asked}: {answer}"
                    );
                }
                None => assert!(
                    answer.starts_with("HTTP/1.1 404"),
                    "{manager} {asked}: {answer}"
                ),
            }
        }
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_bounds_the_fields_of_its_requests() {
    let (host, address) = serve("common_http_protocol_options: { max_headers_count: 4 }").await;
    let answer = ask(address, "a.example", "a: 1\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let answer = ask(address, "a.example", "a: 1\r\nb: 2\r\nc: 3\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_bounds_how_long_is_waited() {
    let manager = "request_headers_timeout: 0.3s\n          stream_idle_timeout: 0.4s";
    let (host, address) = serve(manager).await;
    for (name, request, want) in [
        ("a head", "GET / HTTP/1.1\r\nHost: a.exa", "HTTP/1.1 408 "),
        (
            "a body",
            "POST /collect HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nab",
            "HTTP/1.1 408 ",
        ),
        (
            "a response",
            "GET /never HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
            "HTTP/1.1 504 ",
        ),
    ] {
        let began = Instant::now();
        let answer = raw(address, request).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with(want), "{name}: {answer}");
        assert!(began.elapsed() < Duration::from_secs(5), "{name}");
    }
    // And for a client that takes nothing.
    assert_eq!(host.config().limits.stall_timeout_ms.get(), 400);
    host.stop().await;
}

#[test]
fn the_longest_idle_time_holds() {
    let any: SocketAddr = "127.0.0.1:1".parse().unwrap();
    for (manager, idle) in [
        ("", 300_000),
        ("stream_idle_timeout: 7s", 7_000),
        // No limit: as long as can be.
        ("stream_idle_timeout: 0s", 86_400_000),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("envoy.yaml");
        std::fs::write(&file, bootstrap(any, any, manager)).unwrap();
        let config = Config::read(&file).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(config.limits.stall_timeout_ms.get(), idle, "{manager}");
        let origin = &config.upstreams["origin"];
        assert_eq!(origin.idle_timeout_ms.get(), idle, "{manager}");
        // A route's own is 15 s.
        assert_eq!(origin.timeout_ms.get(), idle.min(15_000), "{manager}");
    }
}
