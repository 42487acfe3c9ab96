//! What is said about bootstraps: everything that has no meaning here, by its path and place.

use edgeweir_host_formats::envoy::{self, Code, Policy};
use edgeweir_host_formats::{Finding, Level};
use serde_json::Value;

const BASE: &str = r#"
static_resources:
  listeners:
  - name: edge
    address: { socket_address: { address: 127.0.0.1, port_value: 10000 } }
    #LISTENER
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: edge
          #MANAGER
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              #HOST
              routes:
              - match: { prefix: "/" }
                route: { cluster: origin }
                #ROUTE
          http_filters:
          #FILTER
          - name: w
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
              config:
                name: w
                #PLUGIN
                vm_config:
                  runtime: envoy.wasm.runtime.v8
                  #VM
                  code: { local: { filename: w.wasm } }
          - name: envoy.filters.http.router
            typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }
  clusters:
  - name: origin
    #CLUSTER
    load_assignment:
      endpoints: [{ lb_endpoints: [{ endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: 9000 } } } }] }]
"#;

/// The bootstrap with a text in a place, indented as the place is.
fn with(place: &str, text: &str) -> String {
    let marker = format!("#{place}");
    let at = BASE.find(&marker).expect(place);
    let indent = at - BASE[..at].rfind('\n').expect("a line") - 1;
    let text = text.replace('\n', &format!("\n{}", " ".repeat(indent)));
    BASE.replace(&marker, &text)
}

fn found(text: &str) -> Vec<Finding> {
    envoy::read(text).1
}

#[test]
fn the_base_has_nothing_to_be_said() {
    assert_eq!(found(BASE), []);
    // The same as JSON, with the names of JSON.
    let json = edgeweir_host_formats::yaml::parse(BASE)
        .unwrap()
        .to_json()
        .to_string();
    assert_eq!(found(&json), []);
    assert_eq!(
        found(
            &json
                .replace("static_resources", "staticResources")
                .replace("port_value", "portValue")
        ),
        []
    );
}

#[test]
fn everything_that_is_left_out_is_named_with_its_path_and_line() {
    use Level::{Advice, Error, Unsupported, Warning};
    for (place, text, level, path, words) in [
        (
            "LISTENER",
            "bogus: 1",
            Warning,
            "static_resources.listeners[0].bogus",
            "`bogus` is not supported",
        ),
        (
            "LISTENER",
            "traffic_direction: OUTBOUND",
            Advice,
            "static_resources.listeners[0].traffic_direction",
            "no effect",
        ),
        (
            "LISTENER",
            "udp_listener_config: {}",
            Unsupported,
            "listeners[0].udp_listener_config",
            "not supported",
        ),
        (
            "LISTENER",
            "listener_filters: [{ name: envoy.filters.listener.proxy_protocol }]",
            Unsupported,
            "listener_filters[0]",
            "proxy_protocol",
        ),
        (
            "LISTENER",
            "bind_to_port: false",
            Unsupported,
            "listeners[0]",
            "does not bind",
        ),
        ("MANAGER", "rds: {}", Unsupported, ".rds", "not supported"),
        (
            "MANAGER",
            "codec_type: HTTP3",
            Unsupported,
            ".codec_type",
            "HTTP/3",
        ),
        (
            "MANAGER",
            "merge_slashes: true",
            Warning,
            ".merge_slashes",
            "as they come",
        ),
        (
            "MANAGER",
            "request_headers_timeout: 10",
            Error,
            ".request_headers_timeout",
            "no duration",
        ),
        (
            "MANAGER",
            "use_remote_address: maybe",
            Error,
            ".use_remote_address",
            "neither true nor false",
        ),
        (
            "HOST",
            "cors: {}",
            Unsupported,
            "virtual_hosts[0].cors",
            "not supported",
        ),
        (
            "HOST",
            "retry_policy: { retry_on: 5xx }",
            Warning,
            "virtual_hosts[0].retry_policy",
            "a failure is answered",
        ),
        (
            "HOST",
            "require_tls: ALL",
            Unsupported,
            ".require_tls",
            "write a redirect",
        ),
        (
            "HOST",
            "response_headers_to_add: [{ header: { key: a, value: '%REQ(x)%' } }]",
            Unsupported,
            "response_headers_to_add[0].header",
            "%COMMANDS%",
        ),
        (
            "ROUTE",
            "non_forwarding_action: {}",
            Unsupported,
            "routes[0].non_forwarding_action",
            "not supported",
        ),
        (
            "ROUTE",
            "typed_per_filter_config: { w: { \"@type\": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm } }",
            Error,
            "typed_per_filter_config.w",
            "no configuration of routes",
        ),
        (
            "ROUTE",
            "typed_per_filter_config: { x: { \"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true } }",
            Warning,
            "typed_per_filter_config.x",
            "no filter \"x\"",
        ),
        (
            "FILTER",
            "- name: authz\n  typed_config: { \"@type\": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz }",
            Unsupported,
            "http_filters[0]",
            "ext_authz",
        ),
        (
            "FILTER",
            "- name: x\n  config_discovery: {}",
            Unsupported,
            "http_filters[0].config_discovery",
            "this file alone",
        ),
        (
            "PLUGIN",
            "capability_restriction_config: {}",
            Warning,
            ".capability_restriction_config",
            "every host function",
        ),
        (
            "PLUGIN",
            "failure_policy: FAIL",
            Error,
            ".failure_policy",
            "FAIL_RELOAD",
        ),
        (
            "PLUGIN",
            "failure_policy: FAIL_OPEN\nfail_open: true",
            Error,
            ".fail_open",
            "exclude",
        ),
        (
            "PLUGIN",
            "configuration: { \"@type\": type.googleapis.com/google.protobuf.Struct, value: { a: 1 } }",
            Warning,
            ".configuration",
            "StringValue",
        ),
        (
            "PLUGIN",
            "configuration: { \"@type\": type.googleapis.com/a.B, a: 1 }",
            Unsupported,
            ".configuration",
            "a.B",
        ),
        ("VM", "code_x: 1", Warning, ".vm_config.code_x", "ignored"),
        (
            "CLUSTER",
            "type: EDS",
            Unsupported,
            "clusters[0].type",
            "EDS",
        ),
        (
            "CLUSTER",
            "lb_policy: RANDOM",
            Advice,
            "clusters[0].lb_policy",
            "no effect",
        ),
        (
            "CLUSTER",
            "outlier_detection: { consecutive_5xx: 3 }",
            Warning,
            "clusters[0].outlier_detection",
            "no endpoint is put aside",
        ),
        (
            "CLUSTER",
            "health_checks: [{ timeout: 1s, interval: 5s, tcp_health_check: {} }]",
            Warning,
            "clusters[0].health_checks[0]",
            "HTTP alone",
        ),
        (
            "CLUSTER",
            "health_checks: [{ timeout: 1s, interval: 5s, healthy_threshold: 1, unhealthy_threshold: 1, http_health_check: { path: /, expected_statuses: [] } }]",
            Warning,
            ".http_health_check.expected_statuses",
            "ignored",
        ),
        (
            "CLUSTER",
            "circuit_breakers: { thresholds: [{ priority: HIGH, max_connections: 1 }] }",
            Warning,
            ".thresholds[0]",
            "no priority",
        ),
        (
            "CLUSTER",
            "circuit_breakers: { thresholds: [{ max_requests: 5 }] }",
            Warning,
            ".thresholds[0].max_requests",
            "max_connections",
        ),
        (
            "MANAGER",
            "common_http_protocol_options: { max_stream_duration: 60s }",
            Warning,
            ".max_stream_duration",
            "as long as it moves",
        ),
        (
            "MANAGER",
            "common_http_protocol_options: { max_headers_count: 9000 }",
            Warning,
            ".max_headers_count",
            "8192",
        ),
        ("MANAGER", "via: edge", Warning, ".via", "no `via`"),
        (
            "MANAGER",
            "server_name: edge",
            Warning,
            ".server_name",
            "what the origin says",
        ),
        (
            "CLUSTER",
            "connect_timeout: soon",
            Error,
            "clusters[0].connect_timeout",
            "no duration",
        ),
    ] {
        let text = with(place, text);
        let all = found(&text);
        let one = all
            .iter()
            .find(|it| it.path.ends_with(path) && it.message.contains(words));
        let one = one.unwrap_or_else(|| panic!("{path}: {words}: {all:#?}\n{text}"));
        assert_eq!(one.level, level, "{path}: {words}");
        assert!(one.place(&text).is_some(), "{path}");
    }
}

/// The bootstrap with these endpoints, a line each.
fn with_endpoints(cluster: &str, groups: &str) -> String {
    let text = with("CLUSTER", cluster);
    let from = text.find("      endpoints: [").expect("endpoints");
    let groups = groups.replace(
        "PORT",
        "endpoint: { address: { socket_address: { address: 127.0.0.1, port_value",
    );
    format!("{}      endpoints: [{groups}]\n", &text[..from])
}

#[test]
fn what_chooses_among_several_endpoints_is_named() {
    let two = "{ lb_endpoints: [{ PORT: 1 } } } }, { PORT: 2 } } } }] }";
    for (name, cluster, groups, path, words) in [
        (
            "a policy",
            "lb_policy: RANDOM",
            two,
            ".lb_policy",
            "drawn at random",
        ),
        (
            "a ring",
            "ring_hash_lb_config: {}",
            two,
            ".ring_hash_lb_config",
            "drawn at random",
        ),
        (
            "weights",
            "",
            "{ lb_endpoints: [{ PORT: 1 } } } }, { PORT: 2 } } }, load_balancing_weight: 3 }] }",
            ".lb_endpoints[1].load_balancing_weight",
            "not weighed",
        ),
        (
            "priorities",
            "",
            "{ lb_endpoints: [{ PORT: 1 } } } }] }, { priority: 1, lb_endpoints: [{ PORT: 2 } } } }] }",
            ".endpoints[1].priority",
            "alike",
        ),
    ] {
        let text = with_endpoints(cluster, groups);
        let all = found(&text);
        let one = all.iter().find(|it| it.path.ends_with(path));
        let one = one.unwrap_or_else(|| panic!("{name}: {all:#?}\n{text}"));
        assert_eq!(one.level, Level::Warning, "{name}");
        assert!(one.message.contains(words), "{name}: {one:?}");
        assert!(one.place(&text).is_some(), "{name}");
    }
    for (name, cluster, groups) in [
        ("as here", "lb_policy: LEAST_REQUEST", two),
        (
            "weights that are the same",
            "",
            "{ priority: 0, lb_endpoints: [{ PORT: 1 } } }, load_balancing_weight: 2 }, { PORT: 2 } } }, load_balancing_weight: 2 }] }",
        ),
    ] {
        let all = found(&with_endpoints(cluster, groups));
        let told = all.iter().filter(|it| it.path.contains("clusters"));
        assert!(
            told.clone().all(|it| it.level == Level::Advice),
            "{name}: {all:#?}"
        );
    }
}

#[test]
fn checks_and_bounds_of_a_cluster_are_taken_over() {
    let checks = "health_checks: [{ timeout: 1s, interval: 5s, healthy_threshold: 2, unhealthy_threshold: 3, http_health_check: { path: /up } }]";
    let thresholds = "circuit_breakers: { thresholds: [{ max_connections: 7, max_pending_requests: 3, max_requests: 9 }] }";
    let http2 = "http2_protocol_options: {}";
    let of = |text: &str| {
        let (bootstrap, findings) = envoy::read(&with("CLUSTER", text));
        assert!(
            findings.iter().all(|it| it.level < Level::Warning),
            "{findings:#?}"
        );
        bootstrap.clusters.into_iter().next().expect("a cluster")
    };
    let cluster = of(&format!("{checks}\n{thresholds}"));
    let health = cluster.health.expect("a check");
    assert_eq!(
        (health.path.value.as_str(), health.host.as_str()),
        ("/up", "origin")
    );
    assert_eq!((health.healthy, health.unhealthy), (2, 3));
    let bounds = cluster.bounds.expect("bounds");
    assert_eq!((bounds.requests, bounds.pending), (7, 3));
    let bounds = of(&format!("{http2}\n{thresholds}"))
        .bounds
        .expect("bounds");
    assert_eq!((bounds.requests, bounds.pending), (9, 0));
    assert_eq!(of(http2).bounds, None);
}

/// The bootstrap with its listener twice, each with this in place of its name.
fn twice(first: &str, second: &str) -> String {
    let (from, to) = (
        BASE.find("  - name: edge").expect("a listener"),
        BASE.find("  clusters:").expect("its end"),
    );
    let of = |name: &str| BASE[from..to].replacen("name: edge", name, 1);
    let text = format!("{}{}{}", of(first), of(second), &BASE[to..]);
    format!("{}{text}", &BASE[..from])
}

#[test]
fn of_listeners_of_one_name_the_first_is_served() {
    for (name, first, second, want) in [
        ("two of a name", "name: edge", "name: edge", vec!["edge"]),
        (
            "two names",
            "name: edge",
            "name: side",
            vec!["edge", "side"],
        ),
        (
            "without names",
            "stat_prefix: a",
            "name: \"\"",
            vec!["listener-0", "listener-1"],
        ),
    ] {
        let (bootstrap, findings) = envoy::read(&twice(first, second));
        let names = bootstrap.listeners.iter().map(|it| it.name.value.as_str());
        assert_eq!(names.collect::<Vec<_>>(), want, "{name}");
        let warned = findings.iter().filter(|it| it.level >= Level::Warning);
        let warned: Vec<_> = warned.map(|it| it.path.as_str()).collect();
        match want.len() {
            1 => assert_eq!(warned, ["static_resources.listeners[1]"], "{name}"),
            _ => assert!(warned.is_empty(), "{name}: {findings:#?}"),
        }
    }
}

/// What a request with these fields is sent on with.
fn sent_on(text: &str, fields: &[(&'static str, &str)]) -> Vec<String> {
    let (bootstrap, findings) = envoy::read(text);
    assert_eq!(findings, []);
    let mut map = http::HeaderMap::new();
    for (name, value) in fields {
        map.append(*name, value.parse().expect("a value"));
    }
    let (_, way) = &bootstrap.listeners[0].virtual_hosts[0].routes[0];
    for edits in &way.edits.request {
        edits.apply(&mut map);
    }
    let line = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        format!("{name}: {}", value.to_str().expect("text"))
    };
    map.iter().map(line).collect()
}

#[test]
fn fields_are_changed_level_by_level() {
    let add = |name: &str, action: &str| {
        format!(
            "request_headers_to_add: [{{ header: {{ key: x-a, value: {name} }}, append_action: {action} }}]"
        )
    };
    let levels = |most: &str, host: &str, route: &str| {
        let text = with("ROUTE", route).replace("#HOST", &host.replace('\n', "\n              "));
        text.replacen(
            "route_config:",
            &format!("route_config:\n            {most}"),
            1,
        )
    };
    let nearest = "most_specific_header_mutations_wins: true";
    let (overwrite, append) = ("OVERWRITE_IF_EXISTS_OR_ADD", "APPEND_IF_EXISTS_OR_ADD");
    for (name, text, want) in [
        (
            "what is around a route removes what the route adds",
            levels(
                "",
                "request_headers_to_remove: [x-a]",
                &add("route", append),
            ),
            vec![],
        ),
        (
            "and adds behind it",
            levels("", &add("host", append), &add("route", append)),
            vec!["x-a: 0", "x-a: route", "x-a: host"],
        ),
        (
            "and has the last word",
            levels("", &add("host", overwrite), &add("route", overwrite)),
            vec!["x-a: host"],
        ),
        (
            "unless the route has it",
            levels(nearest, &add("host", overwrite), &add("route", overwrite)),
            vec!["x-a: route"],
        ),
        (
            "which adds then what was removed around it",
            levels(
                nearest,
                "request_headers_to_remove: [x-a]",
                &add("route", append),
            ),
            vec!["x-a: route"],
        ),
        (
            "one level removes before it adds",
            levels(
                "",
                "",
                &format!("{}\nrequest_headers_to_remove: [x-a]", add("route", append)),
            ),
            vec!["x-a: route"],
        ),
    ] {
        assert_eq!(sent_on(&text, &[("x-a", "0")]), want, "{name}\n{text}");
    }
}

#[test]
fn a_field_without_a_value_is_left_alone_unless_it_is_to_be_kept() {
    for (more, want) in [
        ("", "x-a: 0"),
        (", keep_empty_value: false", "x-a: 0"),
        (", keep_empty_value: true", "x-a: "),
    ] {
        let edit = format!(
            "request_headers_to_add: [{{ header: {{ key: x-a, value: \"\" }}, append_action: OVERWRITE_IF_EXISTS_OR_ADD{more} }}]"
        );
        assert_eq!(
            sent_on(&with("ROUTE", &edit), &[("x-a", "0")]),
            [want],
            "{more}"
        );
    }
}

#[test]
fn ports_and_fields_of_a_listener_are_taken_over() {
    use edgeweir_host_formats::envoy::StripPort::{Any, Never, Own};
    for (text, strip, most, appends) in [
        ("", Never, None, false),
        ("strip_any_host_port: true", Any, None, false),
        ("strip_matching_host_port: true", Own, None, false),
        (
            "common_http_protocol_options: { max_headers_count: 7 }",
            Never,
            Some(7),
            false,
        ),
        ("use_remote_address: true", Never, None, true),
        (
            "use_remote_address: true\nskip_xff_append: true",
            Never,
            None,
            false,
        ),
    ] {
        let (bootstrap, findings) = envoy::read(&with("MANAGER", text));
        assert!(
            findings.iter().all(|it| it.level < Level::Warning),
            "{findings:#?}"
        );
        let listener = bootstrap.listeners.first().expect("a listener");
        assert_eq!(listener.strip_port, strip, "{text}");
        assert_eq!(listener.max_headers, most, "{text}");
        assert_eq!(listener.use_remote_address, appends, "{text}");
        assert!(!listener.ignore_port, "{text}");
    }
}

#[test]
fn what_cannot_be_is_an_error_with_its_line() {
    for (name, text, words) in [
        ("no YAML", "a: [".to_owned(), ""),
        (
            "nothing",
            "{}".to_owned(),
            "missing field `static_resources`",
        ),
        (
            "no listener",
            "static_resources: {}".to_owned(),
            "no listener",
        ),
        (
            "a cluster that is missing",
            BASE.replace("cluster: origin", "cluster: other"),
            "there is no cluster \"other\"",
        ),
        (
            "no router",
            BASE.replace("http.router.v3.Router", "http.x.v3.X"),
            "end with the router",
        ),
        (
            "no manager",
            BASE.replace(
                "http_connection_manager.v3.HttpConnectionManager",
                "tcp_proxy.v3.TcpProxy",
            ),
            "no HTTP connection manager",
        ),
        (
            "a port",
            BASE.replace("10000", "100000"),
            "\"100000\" is no whole number from 0 to 65535",
        ),
        (
            "a name to listen on",
            BASE.replacen("127.0.0.1", "edge.local", 1),
            "no IP address",
        ),
        (
            "a null module",
            BASE.replace("runtime.v8", "runtime.null"),
            "are no modules",
        ),
        (
            "a domain",
            BASE.replace("[\"*\"]", "[\"a*b\"]"),
            "is no host",
        ),
        ("no domain", BASE.replace("[\"*\"]", "[]"), "no domain"),
        (
            "an expression",
            BASE.replace("prefix: \"/\"", "safe_regex: { regex: \"(\" }"),
            "no regular expression",
        ),
        (
            "no action",
            BASE.replace("route: { cluster: origin }", "name: x"),
            "none of `route`",
        ),
    ] {
        let all = found(&text);
        let one = all
            .iter()
            .find(|it| it.level >= Level::Unsupported && it.message.contains(words));
        assert!(one.is_some(), "{name}: {all:#?}");
    }
}

/// Every list of one is its item.
fn lone(value: Value) -> Value {
    match value {
        Value::Array(items) => {
            let mut items: Vec<_> = items.into_iter().map(lone).collect();
            match items.len() {
                1 => items.remove(0),
                _ => Value::Array(items),
            }
        }
        Value::Object(fields) => {
            let fields = fields.into_iter();
            Value::Object(fields.map(|(name, it)| (name, lone(it))).collect())
        }
        other => other,
    }
}

#[test]
fn what_the_reader_of_envoy_takes_is_taken() {
    let text = with("CLUSTER", "type: strict_dns\nlb_policy: round_robin")
        .replace("#MANAGER", "codec_type: auto")
        .replace(
            "#PLUGIN",
            "failure_policy: fail_reload\n                reload_config: {}",
        );
    let json = edgeweir_host_formats::yaml::parse(&text)
        .expect("YAML")
        .to_json();
    let (bootstrap, findings) = envoy::read(&lone(json).to_string());
    assert!(
        findings.iter().all(|it| it.level == Level::Advice),
        "{findings:#?}"
    );
    let [listener] = bootstrap.listeners.as_slice() else {
        panic!("one listener")
    };
    assert_eq!(listener.filters[0].plugin.policy, Policy::Reload);
    assert_eq!(bootstrap.clusters.len(), 1);
    // Envoy found a router by its name once.
    let nameless = with("FILTER", "").replace(
        "            typed_config: { \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }\n",
        "",
    );
    let codes: Vec<_> = found(&nameless).iter().map(|it| it.code).collect();
    assert_eq!(codes, ["refused"]);
    // An item has to be what an item is.
    let wrong = with("HOST", "request_headers_to_remove: { a: b }");
    let wrong = found(&wrong);
    assert!(
        wrong.iter().any(|it| it.level == Level::Error),
        "{wrong:#?}"
    );
}

#[test]
fn a_plugin_is_read_whole() {
    let text = with(
        "PLUGIN",
        "root_id: r\nfailure_policy: FAIL_RELOAD\nreload_config: {}\nconfiguration: { \"@type\": type.googleapis.com/google.protobuf.BytesValue, value: aGk= }",
    )
    .replace(
        "#VM",
        "vm_id: v\n                  environment_variables: { key_values: { A: b } }\n                  configuration: { \"@type\": type.googleapis.com/google.protobuf.StringValue, value: vm }",
    )
    .replace("filename: w.wasm", "inline_bytes: AGFzbQ==");
    let (bootstrap, findings) = envoy::read(&text);
    assert!(
        findings.iter().all(|it| it.level == Level::Advice),
        "{findings:#?}"
    );
    let plugin = &bootstrap.listeners[0].filters[0].plugin;
    assert_eq!(
        plugin.configuration.as_ref().map(|it| it.value.as_slice()),
        Some(&b"hi"[..])
    );
    assert_eq!((plugin.root_id.as_str(), plugin.vm_id.as_str()), ("r", "v"));
    assert_eq!(plugin.vm_configuration, b"vm");
    assert_eq!(plugin.environment["A"], "b");
    assert_eq!(plugin.policy, Policy::Reload);
    assert_eq!(plugin.code.value, Code::Inline(b"\0asm".to_vec()));
}

#[test]
fn a_name_among_addresses_is_no_endpoint_for_envoy() {
    let named = |kind: &str| {
        let text = with("CLUSTER", kind);
        text.replace(
            "address: 127.0.0.1, port_value: 9000",
            "address: origin.internal, port_value: 9000",
        )
    };
    for (kind, want) in [
        ("", 1),
        ("type: STATIC", 1),
        ("type: STRICT_DNS", 0),
        ("type: LOGICAL_DNS", 0),
    ] {
        let found = found(&named(kind));
        let refused = found.iter().filter(|it| it.code == "refused");
        assert_eq!(refused.count(), want, "{kind}: {found:?}");
    }
    let addresses = found(&with("CLUSTER", "type: STATIC"));
    assert!(addresses.iter().all(|it| it.code != "refused"));
}
