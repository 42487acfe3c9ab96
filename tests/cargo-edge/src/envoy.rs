//! Envoy bootstraps, in the shape of `examples/envoy/`, with ports that the kernel chooses.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

/// A bootstrap with these HTTP filters (the router is added) in front of an origin.
pub fn bootstrap(mut filters: Vec<Value>, origin: SocketAddr, http2_origin: bool) -> Value {
    filters.push(json!({
        "name": "envoy.filters.http.router",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
        }
    }));
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "edge",
        "use_remote_address": true,
        "proxy_100_continue": true,
        "http_protocol_options": { "allow_custom_methods": true, "enable_trailers": true },
        "route_config": {
            "virtual_hosts": [{
                "name": "all",
                "domains": ["*"],
                "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "origin", "timeout": "30s" } }]
            }]
        },
        "http_filters": filters
    });
    let upstream = if http2_origin {
        json!({ "http2_protocol_options": {} })
    } else {
        json!({ "http_protocol_options": { "allow_custom_methods": true, "enable_trailers": true } })
    };
    let limits = json!({
        "max_connections": 10_000, "max_pending_requests": 10_000, "max_requests": 10_000
    });
    json!({
        "admin": { "address": socket("127.0.0.1:0") },
        "static_resources": {
            "listeners": [{
                "name": "main",
                "address": socket("127.0.0.1:0"),
                "filter_chains": [{
                    "filters": [{
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": manager
                    }]
                }]
            }],
            "clusters": [{
                "name": "origin",
                "type": "STATIC",
                "connect_timeout": "10s",
                "circuit_breakers": { "thresholds": [limits] },
                "typed_extension_protocol_options": {
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                        "explicit_http_config": upstream
                    }
                },
                "load_assignment": {
                    "cluster_name": "origin",
                    "endpoints": [{
                        "lb_endpoints": [{ "endpoint": { "address": socket(&origin.to_string()) } }]
                    }]
                }
            }]
        }
    })
}

/// One of our modules as an HTTP filter, with its configuration as JSON text.
pub fn wasm(name: &str, config: &str, modules: &Path) -> Value {
    json!({
        "name": format!("edgeweir.{name}"),
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": {
                "name": name,
                "root_id": name,
                "configuration": {
                    "@type": "type.googleapis.com/google.protobuf.StringValue",
                    "value": config
                },
                "vm_config": {
                    "vm_id": format!("edgeweir-{name}"),
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": {
                        "local": { "filename": modules.join(format!("{name}.proxy-wasm.wasm")) }
                    }
                },
                "failure_policy": "FAIL_RELOAD",
                "reload_config": { "backoff": { "base_interval": "0.1s" } }
            }
        }
    })
}

/// Where the first listener of a live Envoy is, by the file it wrote its admin address to; `None` until it is live.
pub fn listener(admin: &Path) -> Option<SocketAddr> {
    let admin: SocketAddr = fs::read_to_string(admin).ok()?.trim().parse().ok()?;
    if !ask(admin, "/ready")?.starts_with("HTTP/1.1 200") {
        return None;
    }
    let answer = ask(admin, "/listeners?format=json")?;
    let body = answer.split_once("\r\n\r\n")?.1;
    let from = body.find('{')?;
    let to = body.rfind('}')?;
    let listeners: Value = serde_json::from_str(body.get(from..=to)?).ok()?;
    let address = &listeners["listener_statuses"][0]["local_address"]["socket_address"];
    let port = u16::try_from(address["port_value"].as_u64()?).ok()?;
    Some(SocketAddr::from(([127, 0, 0, 1], port)))
}

fn ask(admin: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&admin, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    // A chunked answer is small enough for one chunk: its size line and end are cut off by the braces.
    let asks = format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
    stream.write_all(asks.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer).into_owned())
}

fn socket(address: &str) -> Value {
    let (address, port) = address.rsplit_once(':').unwrap_or((address, "0"));
    let port: u16 = port.parse().unwrap_or_default();
    json!({ "socket_address": { "address": address, "port_value": port } })
}
