//! What is said about bootstraps: everything that has no meaning here, by its path and place.

use edgeweir_host_formats::envoy::{self, Code, Policy};
use edgeweir_host_formats::{Finding, Level};

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
