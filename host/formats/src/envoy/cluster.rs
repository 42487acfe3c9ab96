//! Clusters: whom to connect to, and how.

use std::path::PathBuf;

use super::{Cluster, UpstreamTls, any, endpoints, health};
use crate::Placed;
use crate::section::At;

const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const TLS: &str = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";

pub(super) fn read(at: &At<'_>) -> Option<Cluster> {
    let fields = at.section();
    let name_at = fields.need("name")?;
    let name = name_at.placed(name_at.text()?);
    let kind = fields.get("type");
    let word = kind.as_ref().and_then(|kind| kind.word());
    let fixed = matches!(word.as_deref(), None | Some("STATIC" | "0"));
    if let (Some(kind), Some(text)) = (kind, word)
        && !matches!(
            text.as_str(),
            "STATIC" | "STRICT_DNS" | "LOGICAL_DNS" | "0" | "1" | "2"
        )
    {
        kind.unsupported(format!("a cluster of type {text} gets its endpoints from elsewhere; STATIC, STRICT_DNS and LOGICAL_DNS are supported"));
    }
    fields.unsupported(&[
        "cluster_type",
        "eds_cluster_config",
        "transport_socket_matches",
        "upstream_bind_config",
        "filters",
    ]);
    fields.without_effect(&[
        "alt_stat_name",
        "dns_lookup_family",
        "dns_refresh_rate",
        "dns_failure_refresh_rate",
        "respect_dns_ttl",
        "typed_dns_resolver_config",
        "dns_resolution_config",
        "per_connection_buffer_limit_bytes",
        "upstream_connection_options",
        "metadata",
        "track_cluster_stats",
        "close_connections_on_host_health_failure",
        "ignore_health_on_host_removal",
        "preconnect_policy",
        "max_requests_per_connection",
        "wait_for_warm_on_init",
    ]);
    let mut http2 = false;
    if let Some(options) = fields.get("http2_protocol_options") {
        http2 = true;
        options.section().let_go();
    }
    if let Some(options) = fields.get("http_protocol_options") {
        options.section().let_go();
    }
    if let Some(options) = fields.get("typed_extension_protocol_options") {
        for (_, at) in options.entries() {
            let Some((kind, config)) = any(&at) else {
                continue;
            };
            if kind != OPTIONS {
                config.let_go();
                at.warn(format!("{kind} is not supported: it is ignored"));
                continue;
            }
            http2 |= protocol(&config);
        }
    }
    let tls = fields.get("transport_socket").and_then(|at| tls(&at));
    let connect_timeout = fields.get("connect_timeout").and_then(|at| at.duration());
    let endpoints = endpoints::read(&fields, fixed);
    endpoints::balancing(&fields, endpoints.len() > 1);
    health::ejection(&fields);
    let bounds = health::bounds(&fields, http2);
    let health = health::checks(&fields, &name.value);
    if endpoints.is_empty() {
        at.error("it has no endpoint");
    }
    Some(Cluster {
        name,
        endpoints,
        http2,
        tls,
        connect_timeout,
        bounds,
        health,
    })
}

/// Whether HTTP/2 is spoken.
fn protocol(options: &crate::section::Section<'_>) -> bool {
    options.without_effect(&["common_http_protocol_options"]);
    options.unsupported(&["http_filters"]);
    if let Some(upstream) = options.get("upstream_http_protocol_options") {
        upstream.section().let_go();
        upstream.warn("the name asked for by TLS is that of the endpoint");
    }
    for name in ["use_downstream_protocol_config", "auto_config"] {
        if let Some(at) = options.get(name) {
            at.section().let_go();
            at.warn("HTTP/1.1 is spoken, whatever the client or the upstream speak");
        }
    }
    let Some(explicit) = options.get("explicit_http_config") else {
        return false;
    };
    let explicit = explicit.section();
    explicit.unsupported(&["http3_protocol_options"]);
    if let Some(http1) = explicit.get("http_protocol_options") {
        http1.section().let_go();
    }
    // Empty is as good as set.
    let http2 = explicit.at.node.get("http2_protocol_options").is_some()
        || explicit.at.node.get("http2ProtocolOptions").is_some();
    if let Some(options) = explicit.get("http2_protocol_options") {
        options.section().let_go();
    }
    http2
}

fn tls(at: &At<'_>) -> Option<Placed<UpstreamTls>> {
    let socket = at.section();
    let name = socket.text("name").unwrap_or_default();
    let config = socket.get("typed_config");
    if name.ends_with("raw_buffer") {
        if let Some((_, config)) = config.and_then(|at| any(&at)) {
            config.let_go();
        }
        return None;
    }
    let (kind, context) = any(&config?)?;
    if kind != TLS {
        context.let_go();
        at.unsupported(format!("transport socket {kind} is not supported"));
        return None;
    }
    let mut found = UpstreamTls {
        sni: context.text("sni"),
        trusted: None,
    };
    context.without_effect(&["max_session_keys", "allow_renegotiation"]);
    if let Some(common) = context.get("common_tls_context") {
        let common = common.section();
        let _ = common.get("alpn_protocols");
        common.unsupported(&[
            "tls_certificates",
            "tls_certificate_sds_secret_configs",
            "combined_validation_context",
            "validation_context_sds_secret_config",
        ]);
        if let Some(validation) = common.get("validation_context") {
            let validation = validation.section();
            if let Some(trusted) = validation.get("trusted_ca") {
                let source = trusted.section();
                found.trusted = source.text("filename").map(PathBuf::from);
            }
        }
    }
    Some(at.placed(found))
}
