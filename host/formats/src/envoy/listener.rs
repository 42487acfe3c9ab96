//! Listeners, their filter chain and its HTTP connection manager.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::{HttpFilter, Listener, StripPort, Tls, any, route, socket, wasm};
use crate::Level;
use crate::section::{At, Section};

const MANAGER: &str =
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";
const WASM: &str = "envoy.extensions.filters.http.wasm.v3.Wasm";
/// The most fields of a request that this host takes.
const MOST_FIELDS: u64 = 8_192;
const TLS: &str = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";

/// Reads a listener; `names` are those of the listeners before it.
pub(super) fn read(at: &At<'_>, index: usize, names: &mut BTreeSet<String>) -> Option<Listener> {
    let fields = at.section();
    let name_at = fields.get("name");
    let given = name_at.as_ref().and_then(At::text).unwrap_or_default();
    let name = match &name_at {
        Some(at) if !given.is_empty() => at.placed(given),
        _ => at.placed(format!("listener-{index}")),
    };
    if !names.insert(name.value.clone()) {
        fields.let_go();
        at.warn(format!(
            "a listener before it is called \"{}\" too: Envoy serves the first of a name alone",
            name.value
        ));
        return None;
    }
    fields.without_effect(&[
        "stat_prefix",
        "traffic_direction",
        "access_log",
        "enable_reuse_port",
        "reuse_port",
        "socket_options",
        "tcp_backlog_size",
        "freebind",
        "transparent",
        "drain_type",
        "listener_filters_timeout",
        "continue_on_listener_filters_timeout",
        "connection_balance_config",
        "max_connections_to_accept_per_socket_event",
        "metadata",
        "ignore_global_conn_limit",
    ]);
    fields.unsupported(&[
        "udp_listener_config",
        "api_listener",
        "internal_listener",
        "filter_chain_matcher",
    ]);
    for filter in fields.items("listener_filters") {
        listener_filter(&filter);
    }
    if fields.get("bind_to_port").and_then(|at| at.flag()) == Some(false) {
        at.unsupported("a listener that does not bind is reached by no one here");
    }
    let buffer_limit = fields
        .get("per_connection_buffer_limit_bytes")
        .and_then(|at| at.number(u32::MAX.into()))
        .and_then(|bytes| u32::try_from(bytes).ok());
    let address = fields.need("address").and_then(|at| socket(&at));
    let mut chains = fields.items("filter_chains");
    chains.extend(fields.get("default_filter_chain"));
    if let Some(second) = chains.get(1) {
        second.unsupported("a listener has one filter chain here: only the first is used");
    }
    let Some(first) = chains.first() else {
        at.error("it has no filter chain");
        return None;
    };
    let chain = first.section();
    chain.without_effect(&["name", "metadata", "transport_socket_connect_timeout"]);
    chain.unsupported(&["use_proxy_proto"]);
    if let Some(wanted) = chain.get("filter_chain_match") {
        wanted.unsupported("connections are not chosen among: this chain gets all");
    }
    let tls = chain.get("transport_socket").and_then(|at| tls(&at));
    let mut manager = None;
    for filter_at in chain.items("filters") {
        let filter = filter_at.section();
        let name = filter.text("name").unwrap_or_default();
        let Some((kind, config)) = filter.need("typed_config").and_then(|at| any(&at)) else {
            continue;
        };
        if kind == MANAGER {
            manager = Some(config);
        } else {
            config.let_go();
            filter_at.unsupported(format!(
                "network filter \"{name}\" ({kind}) is not supported"
            ));
        }
    }
    let Some(manager) = manager else {
        first.error("it has no HTTP connection manager: there is nothing to answer requests");
        return None;
    };
    let mut listener = Listener {
        name,
        address: address?,
        tls,
        buffer_limit,
        filters: Vec::new(),
        virtual_hosts: Vec::new(),
        ignore_port: false,
        strip_port: StripPort::Never,
        max_headers: None,
        use_remote_address: false,
        head_timeout: None,
        stream_idle_timeout: None,
    };
    read_manager(&manager, &mut listener);
    Some(listener)
}

fn listener_filter(at: &At<'_>) {
    let filter = at.section();
    let name = filter.text("name").unwrap_or_default();
    let kind = filter
        .get("typed_config")
        .and_then(|at| any(&at))
        .map(|(kind, config)| {
            config.let_go();
            kind
        });
    let kind = kind.unwrap_or_default();
    let sees_only = ["tls_inspector", "http_inspector", "local_ratelimit"];
    if sees_only
        .iter()
        .any(|it| kind.contains(it) || name.contains(it))
    {
        at.warn(format!(
            "listener filter \"{name}\" is not needed and not run"
        ));
    } else {
        at.unsupported(format!(
            "listener filter \"{name}\" ({kind}) is not supported"
        ));
    }
}

fn tls(at: &At<'_>) -> Option<Tls> {
    let socket = at.section();
    let name = socket.text("name").unwrap_or_default();
    if name.ends_with("raw_buffer") {
        return None;
    }
    let (kind, context) = any(&socket.need("typed_config")?)?;
    if kind != TLS {
        context.let_go();
        at.unsupported(format!("transport socket {kind} is not supported"));
        return None;
    }
    context.without_effect(&[
        "session_ticket_keys",
        "disable_stateless_session_resumption",
        "session_timeout",
        "ocsp_staple_policy",
        "full_scan_certs_on_sni_mismatch",
        "prefer_client_ciphers",
    ]);
    if context.flag("require_client_certificate") {
        at.unsupported("certificates of clients are not asked for");
    }
    let common = context.need("common_tls_context")?.section();
    // HTTP/2 and HTTP/1.1 are both offered.
    let _ = common.get("alpn_protocols");
    common.unsupported(&[
        "validation_context",
        "tls_certificate_sds_secret_configs",
        "combined_validation_context",
        "validation_context_sds_secret_config",
    ]);
    let certificates = common.items("tls_certificates");
    if let Some(second) = certificates.get(1) {
        second.warn("one certificate is shown: only the first is used");
    }
    let certificate = certificates.first()?.section();
    let file = |name: &str| {
        let at = certificate.need(name)?;
        let source = at.section();
        let file = source.get("filename");
        if file.is_none() {
            at.unsupported("a certificate and its key are read from files (`filename`)");
            source.let_go();
        }
        let text = file.as_ref()?.text()?;
        Some(file?.placed(PathBuf::from(text)))
    };
    Some(Tls {
        certificate: file("certificate_chain")?,
        key: file("private_key")?,
    })
}

fn read_manager(manager: &Section<'_>, listener: &mut Listener) {
    // Names of statistics.
    let _ = manager.get("stat_prefix");
    manager.without_effect(&[
        "access_log",
        "access_log_flush_interval",
        "access_log_options",
        "tracing",
        "generate_request_id",
        "preserve_external_request_id",
        "always_set_request_id_in_response",
        "request_id_extension",
        "drain_timeout",
        "delayed_close_timeout",
        "forward_client_cert_details",
        "set_current_client_cert_details",
        "internal_address_config",
        "represent_ipv4_remote_address_as_ipv4_mapped_ipv6",
        "http2_protocol_options",
        "http3_protocol_options",
        "stream_error_on_invalid_http_message",
        "add_proxy_protocol_connection_state",
    ]);
    manager.unsupported(&[
        "rds",
        "scoped_routes",
        "typed_header_validation_config",
        "early_header_mutation_extensions",
        "original_ip_detection_extensions",
    ]);
    // What is said of HTTP/1 is as here: methods of any name, and trailers, come through. Nor is `100 Continue` refused.
    let _ = manager.get("proxy_100_continue");
    if let Some(options) = manager.get("http_protocol_options") {
        let options = options.section();
        for name in [
            "allow_custom_methods",
            "enable_trailers",
            "allow_absolute_url",
            "accept_http_10",
        ] {
            let _ = options.get(name);
        }
        options.without_effect(&[
            "default_host_for_http_10",
            "header_key_format",
            "override_stream_error_on_invalid_http_message",
        ]);
    }
    if let Some(options) = manager.get("common_http_protocol_options") {
        let options = options.section();
        options.without_effect(&[
            "idle_timeout",
            "max_connection_duration",
            "max_requests_per_connection",
        ]);
        if let Some(at) = options.get("max_stream_duration") {
            at.warn("a stream may last as long as it moves: `stream_idle_timeout` and `timeout` of its route bound it");
        }
        listener.max_headers = options.get("max_headers_count").and_then(|at| {
            let most = at.number(u32::MAX.into())?;
            if most > MOST_FIELDS {
                at.warn(format!("a request may have {MOST_FIELDS} fields"));
            }
            u32::try_from(most.clamp(1, MOST_FIELDS)).ok()
        });
    }
    fields_added(manager);
    if let Some(codec) = manager.get("codec_type")
        && let Some(text) = codec.word()
    {
        match text.as_str() {
            "AUTO" => {}
            "HTTP3" => codec.unsupported("HTTP/3 is not supported"),
            _ => codec.warn("HTTP/1.1 and HTTP/2 are both spoken"),
        }
    }
    for name in ["normalize_path", "merge_slashes"] {
        if let Some(at) = manager.get(name)
            && at.flag() == Some(true)
        {
            at.warn("paths are matched and sent on as they come");
        }
    }
    let append = !manager.flag("skip_xff_append");
    listener.use_remote_address = manager.flag("use_remote_address") && append;
    listener.head_timeout = manager
        .get("request_headers_timeout")
        .and_then(|at| at.duration());
    listener.stream_idle_timeout = manager
        .get("stream_idle_timeout")
        .and_then(|at| at.duration());
    let own = manager.flag("strip_matching_host_port");
    listener.strip_port = match (manager.flag("strip_any_host_port"), own) {
        (true, _) => StripPort::Any,
        (false, true) => StripPort::Own,
        (false, false) => StripPort::Never,
    };
    let mut router = false;
    for at in manager.items("http_filters") {
        if router {
            at.error("the router is the last filter");
        }
        router |= http_filter(&at, listener);
    }
    if !router {
        manager
            .at
            .error("its http_filters do not end with the router (envoy.filters.http.router)");
    }
    if let Some(routes) = manager.get("route_config") {
        let routes = route::read(&routes, &listener.filters);
        listener.virtual_hosts = routes.virtual_hosts;
        listener.ignore_port |= routes.ignore_port;
    } else {
        manager
            .at
            .error("missing field `route_config`: routes are read from this file alone");
    }
}

/// Fields that Envoy would add or replace.
fn fields_added(manager: &Section<'_>) {
    if let Some(at) = manager.get("server_header_transformation")
        && at.word().is_some_and(|it| it != "PASS_THROUGH")
    {
        at.warn("`server` is what the origin says, or missing");
    }
    for (name, message) in [
        (
            "server_name",
            "`server` is what the origin says, or missing",
        ),
        ("via", "no `via` is added"),
        ("add_user_agent", "`user-agent` is the client's, or missing"),
    ] {
        if let Some(at) = manager.get(name)
            && at.text().is_some_and(|it| it != "false")
        {
            at.warn(message);
        }
    }
}

/// Whether it is the router.
fn http_filter(at: &At<'_>, listener: &mut Listener) -> bool {
    let filter = at.section();
    let Some(name) = filter
        .need("name")
        .and_then(|at| Some(at.placed(at.text()?)))
    else {
        return false;
    };
    let disabled = filter.flag("disabled");
    let optional = filter.flag("is_optional");
    if let Some(discovery) = filter.get("config_discovery") {
        discovery.unsupported("filters are configured by this file alone");
        return false;
    }
    let Some((kind, config)) = filter.get("typed_config").and_then(|at| any(&at)) else {
        // Envoy found the router by its name before 1.22; others always needed one.
        if name.value == "envoy.filters.http.router" {
            at.say(
                Level::Warning,
                "refused",
                "Envoy does not start with a router that has no `typed_config`: give it `{ \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }`",
            );
            return true;
        }
        at.error("missing field `typed_config`");
        return false;
    };
    match kind.as_str() {
        ROUTER => {
            config.without_effect(&[
                "dynamic_stats",
                "start_child_span",
                "upstream_log",
                "upstream_log_options",
                "suppress_envoy_headers",
                "suppress_grpc_request_failure_code_stats",
            ]);
            config.unsupported(&["upstream_http_filters"]);
            true
        }
        WASM => {
            if let Some(plugin) = config.need("config").and_then(|at| wasm::read(&at)) {
                listener.filters.push(HttpFilter {
                    name,
                    disabled,
                    plugin,
                });
            }
            false
        }
        _ => {
            config.let_go();
            let message = format!(
                "HTTP filter \"{}\" ({kind}) is not supported; Wasm filters and the router are",
                name.value
            );
            if optional || disabled {
                at.warn(format!("{message}; it is left out"));
            } else {
                at.unsupported(message);
            }
            false
        }
    }
}
