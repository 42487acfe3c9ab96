//! Manifests that become applications, and those that do not.

use std::fs;
use std::path::Path;

use edgeweir_host_package::read_manifest;

fn refused(text: &str) -> String {
    let folder = Path::new("../../examples/spin");
    read_manifest(text, folder).expect_err(text).to_string()
}

#[test]
fn the_example_is_one_component_behind_one_route() {
    let folder = Path::new("../../examples/spin");
    let text = fs::read_to_string(folder.join("spin.toml")).expect("the example");
    let made = read_manifest(&text, folder).expect("reads");
    let application = made.application;
    assert_eq!(application.name, "edgeweir-example");
    assert_eq!(application.triggers[0].route, "/...");
    assert_eq!(application.triggers[0].component, "gateway");
    let [gateway] = &application.components[..] else {
        panic!("one component");
    };
    // As it is written: Spin fills it in where it runs.
    assert_eq!(gateway.variables["edgeweir_cache"], "{{ edgeweir_cache }}");
    assert_eq!(gateway.key_value_stores, ["default"]);
    assert_eq!(
        application.variables["edgeweir_cache"].default.as_deref(),
        Some("")
    );
    assert_eq!(
        made.notes[2],
        "compress is composed into gateway and has its allowed_outbound_hosts, key_value_stores, variables too, which it \
         does not inherit in the manifest"
    );
}

#[test]
fn two_routes_share_a_component_only_if_what_is_before_it_is_the_same() {
    let text = r#"
        spin_manifest_version = 2
        application = { name = "two" }
        [[trigger.http]]
        route = "/a"
        component = "app"
        [[trigger.http]]
        route = "/b"
        component = "app"
        [[trigger.http]]
        route = "/c"
        component = "app"
        dependencies.middleware = [{ component = "compress", inherit_configuration = true }]
        [component.app]
        source = "../../target/edge/gateway.wasi-http.wasm"
        environment = { A = "b" }
        [component.compress]
        source = "../../target/edge/compress.wasi-http.wasm"
    "#;
    let made = read_manifest(text, Path::new("../../examples/spin")).expect("reads");
    let served: Vec<_> = made
        .application
        .triggers
        .iter()
        .map(|it| it.component.as_str())
        .collect();
    assert_eq!(served, ["app", "app", "app-2"]);
    assert_eq!(made.application.components.len(), 2);
    assert!(made.notes.is_empty(), "{:?}", made.notes);
}

#[test]
fn what_a_package_cannot_hold_is_refused_by_name() {
    let base = |more: &str| {
        format!(
            "spin_manifest_version = 2\napplication = {{ name = \"a\" }}\n\
             [[trigger.http]]\nroute = \"/\"\ncomponent = \"app\"\n{more}"
        )
    };
    for (text, want) in [
        (base(""), "there is no [component.app]"),
        (
            base("[component.app]\nsource = \"gone.wasm\"\n"),
            "component.app.source: ",
        ),
        (
            base("[component.app]\nsource = \"a\"\nfiles = [\"x\"]\n"),
            "unknown field `files`",
        ),
        (
            base("[component.app]\nsource = { url = \"x\" }\n"),
            "line 7",
        ),
        (base("[[trigger.redis]]\n"), "unknown field `redis`"),
        (
            base(
                "dependencies.middleware = [{ component = \"app\" }]\n[component.app]\nsource = \"../../target/edge/gateway.wasi-http.wasm\"\n",
            ),
            "trigger \"/\": app: it does not import wasi:http/handler",
        ),
        ("spin_manifest_version = 1\n".to_owned(), "missing field"),
    ] {
        let error = refused(&text);
        assert!(error.contains(want), "{text}\n{error}");
    }
}

/// Spin's format: each parameter is asked for or has a default, what is filled in is one of them, and what comes of it is an
/// application like the example.
#[test]
fn the_template_becomes_an_application() {
    let folder = Path::new("../../examples/spin/templates/edgeweir");
    let about =
        fs::read_to_string(folder.join("metadata/spin-template.toml")).expect("the metadata");
    let about: toml::Table = about.parse().expect("TOML");
    assert_eq!(about["manifest_version"].as_str(), Some("1"));
    assert_eq!(about["id"].as_str(), Some("edgeweir"));
    assert_eq!(about["trigger_type"].as_str(), Some("http"));
    let mut text = fs::read_to_string(folder.join("content/spin.toml")).expect("the content");
    // Spin knows these itself.
    let mut filled = vec![
        ("project-name | kebab_case".to_owned(), "my-edge".to_owned()),
        ("authors".to_owned(), "Nobody".to_owned()),
    ];
    for (name, parameter) in about["parameters"].as_table().expect("parameters") {
        assert_eq!(parameter["type"].as_str(), Some("string"), "{name}");
        assert!(parameter["prompt"].as_str().is_some(), "{name}");
        let default = parameter.get("default").and_then(toml::Value::as_str);
        let value = default.unwrap_or("../../target/edge");
        filled.push((name.clone(), value.to_owned()));
    }
    for (name, value) in filled {
        let place = format!("{{{{{name}}}}}");
        assert!(text.contains(&place), "nothing asks for {name}");
        text = text.replace(&place, &value);
    }
    assert!(!text.contains("{{"), "{text}");
    let made = read_manifest(&text, Path::new("../../examples/spin")).expect("reads");
    assert_eq!(made.application.name, "my-edge");
    assert_eq!(made.application.triggers[0].route, "/...");
    let [gateway] = &made.application.components[..] else {
        panic!("one component");
    };
    let rules: serde_json::Value =
        serde_json::from_str(&gateway.environment["EDGEWEIR_RATELIMIT"]).expect("JSON");
    assert_eq!(rules["rules"][0]["limits"][0]["rate"], "100/minute");
}
