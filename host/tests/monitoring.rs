//! `examples/monitoring` and the autoscaler: every metric they name is one that a host says.

mod support;

use std::collections::BTreeSet;
use std::path::Path;

use edgeweir::config::Config;
use serde::Deserialize as _;
use serde_json::Value;

fn read(file: &str) -> String {
    let path = cargo_edge::workspace::root().join("examples").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All values under a name, wherever they are.
fn under<'a>(value: &'a Value, name: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                match value.as_str().filter(|_| field == name) {
                    Some(text) => found.push(text),
                    None => under(value, name, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| under(item, name, found)),
        _ => {}
    }
}

/// The names of metrics in an expression.
fn metrics(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words
        .filter(|word| word.starts_with("edgeweir_") || word.starts_with("process_"))
        .map(str::to_owned)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_that_is_named_is_said() {
    let host = support::host(support::origin().await, "").await;
    let text = edgeweir::admin::metrics_text(&host.state);
    let mut said = BTreeSet::new();
    for line in text.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            let (name, kind) = family.split_once(' ').expect("a kind");
            assert!(said.insert(name.to_owned()), "{name} is there twice");
            if kind == "histogram" {
                said.extend(["_bucket", "_sum", "_count"].map(|part| format!("{name}{part}")));
            }
        }
    }
    host.stop().await;

    let alerts: Value = serde_yaml_ng::from_str(&read("monitoring/alerts.yaml")).expect("YAML");
    let dashboard: Value = serde_json::from_str(&read("monitoring/grafana.json")).expect("JSON");
    let mut expressions = Vec::new();
    under(&alerts, "expr", &mut expressions);
    assert!(expressions.len() >= 10, "{expressions:?}");
    under(&dashboard, "expr", &mut expressions);
    let mut named: BTreeSet<String> = expressions.iter().flat_map(|it| metrics(it)).collect();
    let scaled = read("kubernetes/hpa.yaml");
    for document in serde_yaml_ng::Deserializer::from_str(&scaled) {
        let object = Value::deserialize(document).expect("YAML");
        if object["kind"] == "HorizontalPodAutoscaler" {
            let by = object["spec"]["metrics"].as_array().expect("metrics");
            let by = by
                .iter()
                .filter_map(|it| it["pods"]["metric"]["name"].as_str());
            named.extend(by.map(str::to_owned));
        }
    }
    assert!(named.len() > 25, "{named:?}");
    let unknown: Vec<_> = named.difference(&said).collect();
    assert!(unknown.is_empty(), "no host says {unknown:?}");

    // An alert that names a label that is not there would say nothing.
    let mut summaries = Vec::new();
    under(&alerts, "summary", &mut summaries);
    assert!(summaries.len() >= 10);
    let groups = alerts["groups"][0]["rules"].as_array().expect("rules");
    for rule in groups {
        let severity = rule["labels"]["severity"].as_str();
        assert!(matches!(severity, Some("warning" | "critical")), "{rule}");
    }
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<_> = panels.iter().map(|it| it["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "two panels with one id");
}

#[test]
fn the_configuration_of_the_pods_is_one_the_host_takes() {
    let folder = tempfile::tempdir().expect("a folder");
    let token = folder.path().join("token");
    std::fs::write(&token, "a-token-of-the-operator\n").expect("writes");
    let text = read("kubernetes/hpa.yaml");
    let mut found = 0;
    for document in serde_yaml_ng::Deserializer::from_str(&text) {
        let object = Value::deserialize(document).expect("YAML");
        if let Some(config) = object["data"]["edgeweir.toml"].as_str() {
            found += 1;
            let config = config.replace("/etc/edgeweir-token/token", &token.display().to_string());
            Config::parse(Path::new("edgeweir.toml"), config)
                .unwrap_or_else(|error| panic!("{error}"));
        }
    }
    assert_eq!(found, 1);
}
