//! A Wasm plugin and its VM.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine as _;

use super::{Code, Plugin, Policy, any, protobuf};
use crate::Placed;
use crate::remote::Remote;
use crate::section::At;

pub(super) fn read(at: &At<'_>) -> Option<Plugin> {
    let plugin = at.section();
    let policy = policy(at, &plugin);
    // The host always makes a machine anew; how long Envoy waits before it does is its own affair.
    let _ = plugin.get("reload_config");
    if let Some(restriction) = plugin.get("capability_restriction_config") {
        restriction
            .warn("capabilities are not restricted: the plugin may call every host function");
    }
    let allow = plugin.get("allow_on_headers_stop_iteration");
    let (configuration, text) = match plugin.get("configuration").and_then(|at| bytes(&at)) {
        Some((bytes, text)) => (Some(bytes), text),
        None => (None, false),
    };
    let mut found = Plugin {
        name: plugin.text("name").unwrap_or_default(),
        root_id: plugin.text("root_id").unwrap_or_default(),
        vm_id: String::new(),
        code: at.placed(Code::Inline(Vec::new())),
        configuration,
        text,
        vm_configuration: Vec::new(),
        environment: BTreeMap::new(),
        policy: policy.value,
        policy_span: policy.span,
        allow_on_headers_stop_iteration: allow.and_then(|at| at.flag()).unwrap_or(false),
    };
    let vm = plugin.need("vm_config")?.section();
    found.vm_id = vm.text("vm_id").unwrap_or_default();
    vm.without_effect(&["allow_precompiled", "nack_on_code_cache_miss"]);
    if let Some(runtime) = vm.get("runtime") {
        match runtime.text()?.as_str() {
            "envoy.wasm.runtime.null" => {
                runtime
                    .error("filters compiled into Envoy (envoy.wasm.runtime.null) are no modules");
                return None;
            }
            name if name.starts_with("envoy.wasm.runtime.") => {}
            name => runtime.warn(format!(
                "\"{name}\" is no runtime that is known; the module runs in wasmtime"
            )),
        }
    }
    if let Some((bytes, _)) = vm.get("configuration").and_then(|at| bytes(&at)) {
        found.vm_configuration = bytes.value;
    }
    if let Some(variables) = vm.get("environment_variables") {
        let variables = variables.section();
        for key in variables.items("host_env_keys") {
            let key = key.text()?;
            if let Ok(value) = std::env::var(&key) {
                found.environment.insert(key, value);
            }
        }
        if let Some(values) = variables.get("key_values") {
            for (key, value) in values.entries() {
                found.environment.insert(key, value.text()?);
            }
        }
    }
    let code_at = vm.need("code")?;
    let code = code_at.section();
    if let Some(at) = code.get("remote") {
        let remote = at.section();
        // As often as is needed, and once for all starts.
        let _ = remote.get("retry_policy");
        let uri = remote.need("http_uri")?.section();
        // It is fetched directly: no cluster is asked for it.
        let _ = (uri.get("cluster"), uri.get("timeout"));
        let (url, sha256) = (uri.need("uri")?.text()?, remote.need("sha256")?.text()?);
        let read = Remote::new(&url, &sha256)
            .map_err(|why| at.error(why))
            .ok()?;
        found.code = at.placed(Code::Remote(read));
        return Some(found);
    }
    let local = code.need("local")?.section();
    if let Some(file) = local.get("filename") {
        found.code = file.placed(Code::File(PathBuf::from(file.text()?)));
    } else if let Some(inline) = local.get("inline_bytes") {
        let text: String = inline.text()?.split_whitespace().collect();
        match base64::engine::general_purpose::STANDARD.decode(text) {
            Ok(bytes) => found.code = inline.placed(Code::Inline(bytes)),
            Err(error) => {
                inline.error(format!("it is no base64: {error}"));
                return None;
            }
        }
    } else if let Some(inline) = local.get("inline_string") {
        found.code = inline.placed(Code::Inline(inline.text()?.into_bytes()));
    } else {
        code_at.error("`local` has a `filename` or `inline_bytes`");
        return None;
    }
    Some(found)
}

fn policy(at: &At<'_>, plugin: &crate::section::Section<'_>) -> Placed<Policy> {
    let open = plugin.get("fail_open");
    let policy = plugin.get("failure_policy");
    if let (Some(open), Some(_)) = (&open, &policy)
        && open.flag() == Some(true)
    {
        // Envoy refuses both.
        open.error("`fail_open` and `failure_policy` exclude each other");
    }
    if let Some(policy) = policy {
        let value = match policy.word().unwrap_or_default().as_str() {
            "FAIL_OPEN" | "3" => Policy::Open,
            "FAIL_RELOAD" | "1" => Policy::Reload,
            "FAIL_CLOSED" | "2" | "UNSPECIFIED" | "0" => Policy::Closed,
            other => {
                policy.error(format!(
                    "\"{other}\" is none of FAIL_RELOAD, FAIL_CLOSED and FAIL_OPEN"
                ));
                Policy::Closed
            }
        };
        return policy.placed(value);
    }
    match open {
        Some(open) if open.flag() == Some(true) => open.placed(Policy::Open),
        _ => at.placed(Policy::Closed),
    }
}

/// The bytes a plugin gets of an `Any`, and whether they are a `StringValue`'s text.
fn bytes(at: &At<'_>) -> Option<(Placed<Vec<u8>>, bool)> {
    let (kind, value) = any_value(at)?;
    match kind.as_str() {
        "google.protobuf.StringValue" => {
            let text = value.as_ref().and_then(|at| at.text()).unwrap_or_default();
            let place = value.as_ref().unwrap_or(at);
            Some((place.placed(text.into_bytes()), true))
        }
        "google.protobuf.BytesValue" => {
            let value = value?;
            let text: String = value.text()?.split_whitespace().collect();
            match base64::engine::general_purpose::STANDARD.decode(text) {
                Ok(bytes) => Some((value.placed(bytes), false)),
                Err(error) => {
                    value.error(format!("it is no base64: {error}"));
                    None
                }
            }
        }
        "google.protobuf.Struct" => {
            let json = value
                .as_ref()
                .map(|at| at.node.to_json())
                .unwrap_or_default();
            at.warn(
                "a Struct reaches the module as protobuf, not as JSON, as in Envoy itself; most modules want the JSON \
                 in a google.protobuf.StringValue",
            );
            Some((at.placed(protobuf::message(&json)), false))
        }
        other => {
            at.unsupported(format!("a configuration of type {other} cannot be written as its bytes; use a google.protobuf.StringValue"));
            None
        }
    }
}

fn any_value<'a>(at: &At<'a>) -> Option<(String, Option<At<'a>>)> {
    let section = at.section();
    let kind = section.text("@type");
    if kind
        .as_ref()
        .is_some_and(|kind| kind.ends_with("TypedStruct"))
    {
        drop(section);
        let (kind, value) = any(at)?;
        value.let_go();
        return Some((kind, None));
    }
    let Some(kind) = kind else {
        at.error("missing field `@type`");
        section.let_go();
        return None;
    };
    let value = section.get("value");
    if !kind.ends_with("Value") && !kind.ends_with("Struct") {
        section.let_go();
    }
    Some((kind.rsplit('/').next().unwrap_or(&kind).to_owned(), value))
}
