//! The examples for Kubernetes: every field is one that the API knows, and what names something else names what is there.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use cargo_edge::{tools, workspace};
use edgeweir_scenarios::hosts;
use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    autoscaling::v2::HorizontalPodAutoscaler,
    batch::v1::Job,
    core::v1::{ConfigMap, Namespace, Secret, Service},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};
use serde::Serialize;
use serde::de::{Deserialize as _, DeserializeOwned};
use serde_json::Value;

struct Object {
    file: String,
    kind: String,
    name: String,
    all: Value,
}

fn objects() -> Vec<Object> {
    let folder = workspace::root().join("examples/kubernetes");
    let mut objects = Vec::new();
    for file in fs::read_dir(folder).expect("examples/kubernetes") {
        let path = file.expect("a file").path();
        if path.extension().is_none_or(|it| it != "yaml") {
            continue;
        }
        let file = path.file_name().expect("a name").to_string_lossy();
        let text = fs::read_to_string(&path).expect("reads");
        for document in serde_yaml_ng::Deserializer::from_str(&text) {
            let all = Value::deserialize(document).unwrap_or_else(|e| panic!("{file}: {e}"));
            let text = |at: &str| all.pointer(at).and_then(Value::as_str).map(str::to_owned);
            objects.push(Object {
                file: file.clone().into_owned(),
                kind: text("/kind").unwrap_or_else(|| panic!("{file}: no kind")),
                name: text("/metadata/name").unwrap_or_else(|| panic!("{file}: no name")),
                all,
            });
        }
    }
    objects
}

/// What is in `given` and not in `understood`.
fn unknown(given: &Value, understood: &Value, at: &str, out: &mut Vec<String>) {
    match (given, understood) {
        (Value::Object(given), Value::Object(understood)) => {
            for (name, value) in given {
                match understood.get(name) {
                    Some(same) => unknown(value, same, &format!("{at}.{name}"), out),
                    None => out.push(format!("{at}.{name}")),
                }
            }
        }
        (Value::Array(given), Value::Array(understood)) if given.len() == understood.len() => {
            for (number, (value, same)) in given.iter().zip(understood).enumerate() {
                unknown(value, same, &format!("{at}[{number}]"), out);
            }
        }
        (given, understood) if given == understood => {}
        _ => out.push(format!("{at}: {given} read as {understood}")),
    }
}

fn is<T: DeserializeOwned + Serialize>(object: &Object) {
    let place = format!("{}: {} {}", object.file, object.kind, object.name);
    let typed: T = serde_json::from_value(object.all.clone())
        .unwrap_or_else(|error| panic!("{place}: {error}"));
    let again = serde_json::to_value(typed).expect("writes");
    let mut fields = Vec::new();
    unknown(&object.all, &again, "", &mut fields);
    assert!(fields.is_empty(), "{place}: unknown {fields:?}");
}

/// The fields of SpinKube's custom resource (core.spinkube.dev/v1alpha1).
fn spin_app(object: &Object) {
    const FIELDS: [&str; 18] = [
        "checks",
        "components",
        "deploymentAnnotations",
        "enableAutoscaling",
        "executor",
        "image",
        "imagePullSecrets",
        "invocationLimits",
        "podAnnotations",
        "podLabels",
        "replicas",
        "resources",
        "runtimeConfig",
        "serviceAccountName",
        "serviceAnnotations",
        "variables",
        "volumeMounts",
        "volumes",
    ];
    assert_eq!(object.all["apiVersion"], "core.spinkube.dev/v1alpha1");
    let spec = object.all["spec"].as_object().expect("a spec");
    for field in spec.keys() {
        assert!(FIELDS.contains(&field.as_str()), "{}: {field}", object.file);
    }
    // The variables are the manifest's.
    let manifest = workspace::root().join("examples/spin/spin.toml");
    let manifest = fs::read_to_string(manifest).expect("the manifest");
    for variable in object.all["spec"]["variables"]
        .as_array()
        .expect("variables")
    {
        let name = variable["name"].as_str().expect("a name");
        assert!(manifest.contains(&format!("\n{name} = {{")), "{name}");
    }
}

/// Fields of the Gateway API (v1), of Envoy Gateway's Backend (v1alpha1) and of the operator's PodMonitor (v1): those that
/// are used here, wherever they stand.
fn custom(object: &Object) {
    let (version, known): (&str, &[&str]) = match object.kind.as_str() {
        "GatewayClass" => ("gateway.networking.k8s.io/v1", &["controllerName"]),
        "Gateway" => (
            "gateway.networking.k8s.io/v1",
            &[
                "gatewayClassName",
                "listeners",
                "name",
                "protocol",
                "port",
                "allowedRoutes",
                "namespaces",
                "from",
            ],
        ),
        "HTTPRoute" => (
            "gateway.networking.k8s.io/v1",
            &[
                "parentRefs",
                "rules",
                "backendRefs",
                "group",
                "kind",
                "name",
            ],
        ),
        "Backend" => (
            "gateway.envoyproxy.io/v1alpha1",
            &["endpoints", "fqdn", "hostname", "port"],
        ),
        _ => (
            "monitoring.coreos.com/v1",
            &[
                "selector",
                "matchLabels",
                "app",
                "podMetricsEndpoints",
                "port",
                "path",
                "interval",
                "authorization",
                "type",
                "credentials",
                "name",
                "key",
            ],
        ),
    };
    let place = format!("{}: {} {}", object.file, object.kind, object.name);
    assert_eq!(object.all["apiVersion"], version, "{place}");
    let mut fields = Vec::new();
    names(&object.all["spec"], &mut fields);
    assert!(!fields.is_empty(), "{place}");
    for field in fields {
        assert!(known.contains(&field), "{place}: {field}");
    }
}

fn names<'a>(value: &'a Value, out: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                out.push(name);
                names(value, out);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| names(item, out)),
        _ => {}
    }
}

#[test]
fn every_field_is_one_of_the_api() {
    let mut kinds = BTreeMap::new();
    for object in objects() {
        *kinds.entry(object.kind.clone()).or_insert(0) += 1;
        match object.kind.as_str() {
            "ConfigMap" => is::<ConfigMap>(&object),
            "Deployment" => is::<Deployment>(&object),
            "HorizontalPodAutoscaler" => is::<HorizontalPodAutoscaler>(&object),
            "Job" => is::<Job>(&object),
            "Namespace" => is::<Namespace>(&object),
            "NetworkPolicy" => is::<NetworkPolicy>(&object),
            "PodDisruptionBudget" => is::<PodDisruptionBudget>(&object),
            "Secret" => is::<Secret>(&object),
            "Service" => is::<Service>(&object),
            "StatefulSet" => is::<StatefulSet>(&object),
            // Not Kubernetes' own; checked below for what matters.
            "EnvoyExtensionPolicy" | "EnvoyPatchPolicy" | "WasmPlugin" => {}
            "GatewayClass" | "Gateway" | "HTTPRoute" | "Backend" | "PodMonitor" => custom(&object),
            "SpinApp" => spin_app(&object),
            other => panic!("{}: no check for {other}", object.file),
        }
    }
    for (kind, count) in [
        ("Deployment", 3),
        ("HorizontalPodAutoscaler", 3),
        ("PodDisruptionBudget", 4),
    ] {
        assert_eq!(kinds.get(kind), Some(&count), "{kind}");
    }
}

/// All values under this name, wherever they are.
fn all<'a>(value: &'a Value, name: &str, out: &mut Vec<&'a Value>) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                if field == name {
                    out.push(value);
                }
                all(value, name, out);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| all(item, name, out)),
        _ => {}
    }
}

fn texts(value: &Value, name: &str) -> Vec<String> {
    let mut found = Vec::new();
    all(value, name, &mut found);
    found
        .into_iter()
        .filter_map(|it| Some(it.as_str()?.to_owned()))
        .collect()
}

#[test]
fn names_that_refer_to_something_refer_to_what_is_there() {
    let objects = objects();
    let there =
        |kind: &str, name: &str| objects.iter().any(|it| it.kind == kind && it.name == name);
    let mut labels = Vec::new();
    for object in &objects {
        labels.extend(
            object
                .all
                .pointer("/spec/template/metadata/labels")
                .cloned(),
        );
    }
    for object in &objects {
        let place = format!("{}: {} {}", object.file, object.kind, object.name);
        let wants =
            |kind: &str, name: &str| assert!(there(kind, name), "{place}: no {kind} {name}");
        for name in texts(&object.all, "secretName") {
            wants("Secret", &name);
        }
        let mut keys = Vec::new();
        all(&object.all, "secretKeyRef", &mut keys);
        for key in keys {
            let (name, key) = (
                key["name"].as_str().unwrap_or(""),
                key["key"].as_str().unwrap_or(""),
            );
            let secret = objects
                .iter()
                .find(|it| it.kind == "Secret" && it.name == name);
            let data = secret.map(|it| &it.all["stringData"][key]);
            assert!(
                data.is_some_and(Value::is_string),
                "{place}: no {key} in {name}"
            );
        }
        let mut maps = Vec::new();
        all(&object.all, "configMap", &mut maps);
        for map in maps {
            wants("ConfigMap", map["name"].as_str().unwrap_or(""));
        }
        if let Some(target) = object.all.pointer("/spec/scaleTargetRef") {
            wants(
                target["kind"].as_str().unwrap_or(""),
                target["name"].as_str().unwrap_or(""),
            );
        }
        // Selectors of services, budgets and policies select pods that are here.
        for at in [
            "/spec/selector/matchLabels",
            "/spec/podSelector/matchLabels",
            "/spec/selector",
        ] {
            let selector = object.all.pointer(at).and_then(Value::as_object);
            let Some(selector) = selector.filter(|it| it.contains_key("app")) else {
                continue;
            };
            let selected = |pod: &Value| {
                selector
                    .iter()
                    .all(|(name, value)| pod.get(name) == Some(value))
            };
            assert!(
                labels.iter().any(selected),
                "{place}: {selector:?} selects nothing"
            );
        }
        // Ports that are named are some container's, and what is mounted is a volume.
        if object.kind == "Service" {
            let named: Vec<String> = texts(&object.all, "targetPort");
            for port in named {
                let app = object.all.pointer("/spec/selector/app");
                let pod = objects.iter().find(|it| {
                    it.all.pointer("/spec/template/metadata/labels/app") == app && it.kind != "Job"
                });
                let mut ports = Vec::new();
                all(&pod.expect("selected").all, "ports", &mut ports);
                let has = ports
                    .iter()
                    .filter_map(|it| it.as_array())
                    .flatten()
                    .any(|it| it["name"] == port.as_str());
                assert!(has, "{place}: no container port {port}");
            }
        }
        if let Some(pod) = object.all.pointer("/spec/template/spec") {
            let claimed = &object.all["spec"]["volumeClaimTemplates"];
            let claimed = claimed.as_array().into_iter().flatten();
            let volumes: Vec<&Value> = pod["volumes"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|it| &it["name"])
                .chain(claimed.map(|it| &it["metadata"]["name"]))
                .collect();
            let mut mounts = Vec::new();
            all(pod, "volumeMounts", &mut mounts);
            for mount in mounts.iter().filter_map(|it| it.as_array()).flatten() {
                assert!(
                    volumes.contains(&&mount["name"]),
                    "{place}: no volume {}",
                    mount["name"]
                );
            }
            for image in texts(pod, "image") {
                let tag = image.rsplit_once(':').map(|(_, tag)| tag);
                assert!(
                    tag.is_some_and(|tag| tag != "latest"),
                    "{place}: {image} has no version"
                );
            }
        }
        // What a policy or a route is attached to, and where a route leads.
        if let Some(class) = object.all["spec"]["gatewayClassName"].as_str() {
            wants("GatewayClass", class);
        }
        for field in ["targetRefs", "targetRef", "parentRefs", "backendRefs"] {
            let mut found = Vec::new();
            all(&object.all, field, &mut found);
            for one in found {
                for to in one.as_array().unwrap_or(&vec![one.clone()]) {
                    let kind = to["kind"].as_str().unwrap_or("Gateway");
                    wants(kind, to["name"].as_str().unwrap_or(""));
                }
            }
        }
        // A port that is scraped is a container's, and what is said to it is in a Secret.
        for endpoint in object.all["spec"]["podMetricsEndpoints"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let mut ports = Vec::new();
            objects
                .iter()
                .for_each(|it| all(&it.all, "ports", &mut ports));
            let mut ports = ports.iter().filter_map(|it| it.as_array()).flatten();
            assert!(ports.any(|it| it["name"] == endpoint["port"]), "{place}");
            let said = &endpoint["authorization"]["credentials"];
            let secret = objects
                .iter()
                .find(|it| it.kind == "Secret" && said["name"] == it.name.as_str());
            let key = said["key"].as_str().unwrap_or("");
            assert!(
                secret.is_some_and(|it| it.all["stringData"][key].is_string()),
                "{place}: no {said}"
            );
        }
        if !["Namespace", "WasmPlugin", "GatewayClass"].contains(&object.kind.as_str()) {
            assert_eq!(object.all["metadata"]["namespace"], "edge", "{place}");
        }
    }
    // One token, one port, in every way to run it.
    let store = objects
        .iter()
        .find(|it| it.kind == "Secret" && it.name == "edgeweir-store");
    let store = store.expect("the store's Secret");
    let token = store.all["stringData"]["token"].as_str().expect("a token");
    let redis = objects
        .iter()
        .find(|it| it.kind == "Secret" && it.name == "redis");
    let password = redis
        .and_then(|it| it.all["stringData"]["password"].as_str())
        .expect("a password");
    assert!(
        store.all["stringData"]["redis"]
            .as_str()
            .is_some_and(|it| it.contains(&format!(":{password}@redis-0.redis:6379")))
    );
    for file in ["envoy.yaml", "envoy-gateway.yaml", "istio.yaml"] {
        let path = workspace::root().join("examples/kubernetes").join(file);
        let text = fs::read_to_string(path).expect("reads");
        assert!(text.contains(token), "{file}: not the store's token");
        assert!(
            text.contains("edgeweir-store.edge.svc.cluster.local"),
            "{file}: not the store's name"
        );
    }
}

/// What the filters are configured with, in each of the three ways, is a configuration they take.
#[test]
fn every_filter_takes_its_configuration() {
    let mut count = 0;
    for object in objects() {
        let mut configurations: Vec<Value> = Vec::new();
        for field in ["config", "pluginConfig"] {
            let mut found = Vec::new();
            all(&object.all, field, &mut found);
            configurations.extend(found.into_iter().cloned());
        }
        if let Some(text) = object
            .all
            .pointer("/data/envoy.yaml")
            .and_then(Value::as_str)
        {
            let bootstrap: Value = serde_yaml_ng::from_str(text).expect("YAML");
            let mut found = Vec::new();
            all(&bootstrap, "configuration", &mut found);
            let json = found.iter().filter_map(|it| it["value"].as_str());
            configurations.extend(json.map(|it| serde_json::from_str(it).expect("JSON")));
        }
        for configuration in configurations {
            let json = configuration.to_string();
            let loaded = edgeweir_filter::load::<edgeweir_edge::Edge>(json.as_bytes());
            assert!(loaded.is_ok(), "{}: {:?}", object.file, loaded.err());
            count += 1;
        }
    }
    assert_eq!(count, 3);
}

/// A real Envoy takes the bootstrap, with the module where it was built and names it need not resolve.
#[test]
fn envoy_takes_the_bootstrap() {
    let modules = hosts::modules().expect("the modules are built");
    let objects = objects();
    let map = objects
        .iter()
        .find(|it| it.kind == "ConfigMap" && it.name == "edge");
    let text = map
        .and_then(|it| it.all["data"]["envoy.yaml"].as_str())
        .expect("a bootstrap");
    let modules = modules.to_str().expect("text");
    assert!(text.contains("/modules/"));
    let text = text.replace("/modules/", &format!("{modules}/"));
    let folder = hosts::folder(hosts::Host::Envoy).expect("a folder");
    let file = folder.join("kubernetes.yaml");
    fs::write(&file, text).expect("writes");
    let envoy = tools::envoy().expect("Envoy");
    let mut command = Command::new(envoy);
    command
        .args(["--mode", "validate", "--use-dynamic-base-id", "-c"])
        .arg(&file);
    let out = command.output().expect("it runs");
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
}
