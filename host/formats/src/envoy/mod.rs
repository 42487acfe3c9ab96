//! Envoy's bootstrap (v3, YAML or JSON), as far as a host of Wasm filters has a meaning for it: listeners with an HTTP
//! connection manager, Wasm filters, routes and clusters.
//!
//! What is left out is named in a finding with its path and place: a warning where answers stay the same or lack
//! something, [`Level::Unsupported`](crate::Level) where they would be wrong (another HTTP filter, say).

mod cluster;
mod endpoints;
mod health;
mod listener;
mod protobuf;
mod route;
mod wasm;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::action::{Action, Edits};
use crate::remote::Remote;
use crate::route::VirtualHost;
use crate::section::{At, Notes, Section};
use crate::{Finding, Placed, yaml};

/// A bootstrap.
#[derive(Clone, Default, Debug)]
pub struct Bootstrap {
    /// The admin address.
    pub admin: Option<Placed<SocketAddr>>,
    /// Listeners, in order.
    pub listeners: Vec<Listener>,
    /// Clusters, in order.
    pub clusters: Vec<Cluster>,
}

/// A listener and its HTTP connection manager.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Its name.
    pub name: Placed<String>,
    /// Where it listens.
    pub address: Placed<SocketAddr>,
    /// The certificate it shows, if it speaks TLS.
    pub tls: Option<Tls>,
    /// `per_connection_buffer_limit_bytes`.
    pub buffer_limit: Option<u32>,
    /// Wasm filters, outermost first.
    pub filters: Vec<HttpFilter>,
    /// Virtual hosts.
    pub virtual_hosts: Vec<VirtualHost<Way>>,
    /// The port of an authority counts for nothing when virtual hosts are looked for.
    pub ignore_port: bool,
    /// The port of an authority that is taken off.
    pub strip_port: StripPort,
    /// `max_headers_count`.
    pub max_headers: Option<u32>,
    /// The client's address is put into `X-Forwarded-For`.
    pub use_remote_address: bool,
    /// `request_headers_timeout`.
    pub head_timeout: Option<Duration>,
    /// `stream_idle_timeout`.
    pub stream_idle_timeout: Option<Duration>,
}

/// The port that is taken off the authority of a request, for filters, routes and the upstream.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum StripPort {
    /// None.
    #[default]
    Never,
    /// The listener's own: `strip_matching_host_port`.
    Own,
    /// Whatever it is: `strip_any_host_port`.
    Any,
}

/// `DownstreamTlsContext`.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The file of the certificate and those that signed it.
    pub certificate: Placed<PathBuf>,
    /// The file of its key.
    pub key: Placed<PathBuf>,
}

/// A Wasm filter in its place.
#[derive(Clone, Debug)]
pub struct HttpFilter {
    /// The name by which routes speak of it.
    pub name: Placed<String>,
    /// It is off where no route turns it on.
    pub disabled: bool,
    /// What it runs.
    pub plugin: Plugin,
}

/// `PluginConfig` with its `VmConfig`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plugin {
    /// `name`.
    pub name: String,
    /// `root_id`.
    pub root_id: String,
    /// `vm_id`.
    pub vm_id: String,
    /// The module.
    pub code: Placed<Code>,
    /// What the plugin is configured with, and where its text stands.
    pub configuration: Option<Placed<Vec<u8>>>,
    /// Whether that is the text of a `StringValue`.
    pub text: bool,
    /// What the VM is configured with.
    pub vm_configuration: Vec<u8>,
    /// Environment variables of the VM.
    pub environment: BTreeMap<String, String>,
    /// What a trap does.
    pub policy: Policy,
    /// Where `failure_policy` or the plugin stands.
    pub policy_span: std::ops::Range<usize>,
    /// Callbacks over bodies run while the head is paused.
    pub allow_on_headers_stop_iteration: bool,
}

/// The code of a module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Code {
    /// A file.
    File(PathBuf),
    /// The module itself.
    Inline(Vec<u8>),
    /// What is to be fetched.
    Remote(Remote),
}

/// `failure_policy`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    /// The VM is gone for good, its requests are answered with 500 (Envoy's default).
    Closed,
    /// Requests pass by.
    Open,
    /// The VM is made anew.
    Reload,
}

/// A route.
#[derive(Clone, Debug)]
pub struct Way {
    /// Its name.
    pub name: String,
    /// What becomes of a request.
    pub action: Action,
    /// What is changed behind the filters.
    pub edits: Edits,
    /// Filters that are off (`true`) or on here, by name.
    pub disabled: BTreeMap<String, bool>,
    /// The longest wait for a response.
    pub timeout: Option<Placed<Duration>>,
}

/// A cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Its name.
    pub name: Placed<String>,
    /// `host:port` of each endpoint.
    pub endpoints: Vec<Placed<String>>,
    /// HTTP/2 is spoken.
    pub http2: bool,
    /// TLS is spoken.
    pub tls: Option<Placed<UpstreamTls>>,
    /// `connect_timeout`.
    pub connect_timeout: Option<Duration>,
    /// `circuit_breakers`.
    pub bounds: Option<Bounds>,
    /// `health_checks`.
    pub health: Option<HealthCheck>,
}

/// What may be under way at a cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Requests, each of which is a connection over HTTP/1.1.
    pub requests: u64,
    /// Requests that wait.
    pub pending: u64,
}

/// An `http_health_check`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HealthCheck {
    /// The path asked for.
    pub path: Placed<String>,
    /// Whom it is asked of.
    pub host: String,
    /// From one to the next.
    pub interval: Duration,
    /// The longest one may take.
    pub timeout: Duration,
    /// Good ones in a row that bring an endpoint back.
    pub healthy: u64,
    /// Bad ones in a row that put it aside.
    pub unhealthy: u64,
}

/// `UpstreamTlsContext`.
#[derive(Clone, Default, Debug)]
pub struct UpstreamTls {
    /// The name asked for.
    pub sni: Option<String>,
    /// Who signs the certificate, a file; without it nobody is believed and everybody is.
    pub trusted: Option<PathBuf>,
}

/// Reads a bootstrap: what of it could be read, and everything that is to be said about it.
pub fn read(text: &str) -> (Bootstrap, Vec<Finding>) {
    let root = match yaml::parse(text) {
        Ok(root) => root,
        Err(finding) => return (Bootstrap::default(), vec![finding]),
    };
    let notes = Notes::of_protobuf();
    let bootstrap = bootstrap(&At {
        node: &root,
        path: String::new(),
        notes: &notes,
    });
    (bootstrap, notes.take())
}

fn bootstrap(at: &At<'_>) -> Bootstrap {
    let root = at.section();
    let mut found = Bootstrap::default();
    root.without_effect(&[
        "node",
        "stats_sinks",
        "stats_config",
        "stats_flush_interval",
        "watchdog",
        "watchdogs",
        "tracing",
        "cluster_manager",
        "layered_runtime",
        "runtime",
        "overload_manager",
        "flags_path",
        "enable_dispatcher_stats",
        "use_tcp_for_dns_lookups",
        "typed_dns_resolver_config",
        "default_socket_interface",
        "application_log_config",
    ]);
    if let Some(dynamic) = root.get("dynamic_resources") {
        let resources = dynamic.section();
        for name in ["lds_config", "cds_config", "ads_config"] {
            if let Some(at) = resources.get(name) {
                at.unsupported(
                    "listeners and clusters are read from this file alone (static_resources)",
                );
            }
        }
    }
    if let Some(admin) = root.get("admin") {
        let admin = admin.section();
        admin.without_effect(&[
            "access_log",
            "access_log_path",
            "profile_path",
            "ignore_global_conn_limit",
        ]);
        found.admin = admin.get("address").and_then(|at| socket(&at));
    }
    let Some(resources) = root.need("static_resources").map(|at| at.section()) else {
        return found;
    };
    if let Some(secrets) = resources.get("secrets") {
        secrets.warn("secrets are not read: name the files of a certificate where it is used");
    }
    for at in resources.items("clusters") {
        found.clusters.extend(cluster::read(&at));
    }
    let mut names = std::collections::BTreeSet::new();
    for (index, at) in resources.items("listeners").iter().enumerate() {
        found
            .listeners
            .extend(listener::read(at, index, &mut names));
    }
    if found.listeners.is_empty() {
        at.error("it has no listener: nothing would be served");
    }
    clusters_known(at, &found);
    found
}

/// Envoy refuses a route to a cluster that is not there.
fn clusters_known(at: &At<'_>, found: &Bootstrap) {
    let known = |name: &str| found.clusters.iter().any(|it| it.name.value == name);
    let mut names = std::collections::BTreeSet::new();
    for cluster in &found.clusters {
        if !names.insert(&cluster.name.value) {
            at.notes.push(Finding {
                level: crate::Level::Error,
                code: "invalid",
                path: "static_resources.clusters".to_owned(),
                span: cluster.name.span.clone(),
                message: format!("a cluster is called \"{}\" already", cluster.name.value),
            });
        }
    }
    let ways = found.listeners.iter().flat_map(|it| &it.virtual_hosts);
    for (_, way) in ways.flat_map(|host| &host.routes) {
        let Action::Forward(to) = &way.action else {
            continue;
        };
        for (_, name) in to.iter().filter(|(_, name)| !known(&name.value)) {
            at.notes.push(Finding {
                level: crate::Level::Error,
                code: "missing-cluster",
                path: "route.cluster".to_owned(),
                span: name.span.clone(),
                message: format!(
                    "there is no cluster \"{}\" in static_resources.clusters",
                    name.value
                ),
            });
        }
    }
}

/// `Address` with a `socket_address` of numbers.
fn socket(at: &At<'_>) -> Option<Placed<SocketAddr>> {
    let (host, port, at) = host_port(at)?;
    match host.parse() {
        Ok(ip) => Some(at.placed(SocketAddr::new(ip, port))),
        Err(_) => {
            at.error(format!("\"{host}\" is no IP address to listen on"));
            None
        }
    }
}

/// `Address` with a `socket_address`.
fn host_port<'a>(at: &At<'a>) -> Option<(String, u16, At<'a>)> {
    let address = at.section();
    if let Some(pipe) = address.get("pipe") {
        pipe.unsupported("Unix sockets are not supported");
        return None;
    }
    address.unsupported(&["envoy_internal_address"]);
    let socket_at = address.need("socket_address")?;
    let socket = socket_at.section();
    if let Some(protocol) = socket.get("protocol")
        && protocol.word().is_some_and(|it| it != "TCP")
    {
        protocol.unsupported("only TCP is supported");
    }
    socket.without_effect(&["ipv4_compat", "resolver_name"]);
    socket.unsupported(&["named_port", "network_namespace_filepath"]);
    let host = socket.need("address")?.text()?;
    let port = socket.need("port_value")?.number(65_535)?;
    Some((host, u16::try_from(port).ok()?, socket_at))
}

/// An `Any`: the name of its type, without the prefix, and its fields. A `TypedStruct` is what it stands for.
fn any<'a>(at: &At<'a>) -> Option<(String, Section<'a>)> {
    let section = at.section();
    let Some(kind) = section.text("@type") else {
        at.error("missing field `@type`");
        section.let_go();
        return None;
    };
    let short = |kind: &str| kind.rsplit('/').next().unwrap_or(kind).to_owned();
    let kind = short(&kind);
    if matches!(
        kind.as_str(),
        "xds.type.v3.TypedStruct" | "udpa.type.v1.TypedStruct"
    ) {
        let inner = short(&section.need("type_url")?.text()?);
        let value = section.get("value")?.section();
        return Some((inner, value));
    }
    Some((kind, section))
}
