//! The examples run as they are; only ports are others.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cargo_edge::{process, workspace};
use edgeweir_scenarios::hosts::{self, Host, edgeweir, envoy};
use edgeweir_scenarios::machines::RealStore;
use edgeweir_scenarios::{Origin, Seen, client, get, origin};

fn ask(address: std::net::SocketAddr, segment: &str) -> Seen {
    let path = format!("/{segment}/a");
    let asks = get("/a").field("accept-encoding", "gzip");
    client::exchange(address, &asks, &path).unwrap_or_else(|error| panic!("{segment}: {error}"))
}

#[test]
fn every_envoy_example_runs() {
    hosts::modules().expect("the modules are built");
    let folder = workspace::root().join("examples/envoy");
    let mut ran = Vec::new();
    for file in fs::read_dir(&folder).expect("examples/envoy") {
        let file = file.expect("a file").path();
        let name = file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if !name.ends_with(".yaml") {
            continue;
        }
        let text = fs::read_to_string(&file).expect("reads");
        let port = origin::server().http1.port().to_string();
        let mut patched = text.clone();
        for (from, to) in [("10000", "0"), ("9901", "0"), ("9000", port.as_str())] {
            let (from, to) = (format!("port_value: {from}"), format!("port_value: {to}"));
            assert!(patched.contains(&from), "{name} has no {from}");
            patched = patched.replace(&from, &to);
        }
        let scratch = hosts::folder(Host::Envoy).expect("a folder");
        let running =
            envoy::run(&scratch, &name, &patched, 2).unwrap_or_else(|e| panic!("{name}: {e:#}"));
        let segment = format!("example-{name}");
        let body = super::document(4_000);
        origin::server().answer(
            &segment,
            &Origin::json(&body).field("cache-control", "max-age=60"),
        );
        let has = |filter: &str| text.contains(&format!("{filter}.proxy-wasm.wasm"));
        let first = ask(running.address, &segment);
        assert_eq!((first.status, first.complete), (200, true), "{name}");
        assert_eq!(first.has("ratelimit"), has("ratelimit"), "{name}");
        assert_eq!(
            first.text("content-encoding") == "gzip",
            has("compress"),
            "{name}"
        );
        assert_eq!(first.decoded().len() < body.len(), has("minify"), "{name}");
        let second = ask(running.address, &segment);
        assert_eq!(
            second.text("cache-status").contains("hit"),
            has("cache"),
            "{name}"
        );
        if has("ratelimit") {
            let refused = (0..60).any(|_| ask(running.address, &segment).status == 429);
            assert!(refused, "{name}: sixty more requests at once and no 429");
        }
        ran.push(name);
    }
    for name in [
        "envoy.yaml",
        "cache.yaml",
        "compress.yaml",
        "minify.yaml",
        "ratelimit.yaml",
    ] {
        assert!(
            ran.iter().any(|ran| ran == name),
            "examples/envoy/{name} is missing"
        );
    }
}

#[test]
fn the_host_example_runs() {
    hosts::modules().expect("the modules are built");
    let text =
        fs::read_to_string(workspace::root().join("examples/host/edgeweir.toml")).expect("reads");
    let parsed: toml::Table = text.parse().expect("examples/host/edgeweir.toml is TOML");
    let mut patched = text.replace("127.0.0.1:9000", &origin::server().http1.to_string());
    let mut listeners = Vec::new();
    for listener in parsed["listener"].as_array().expect("listeners") {
        let listen = listener["listen"].as_str().expect("listen").to_owned();
        let port = hosts::free_port().expect("a port");
        patched = patched.replace(&listen, &format!("127.0.0.1:{port}"));
        listeners.push((listen, std::net::SocketAddr::from(([127, 0, 0, 1], port))));
    }
    if let Some(admin) = parsed.get("admin").and_then(|admin| admin.get("listen")) {
        let port = hosts::free_port().expect("a port");
        patched = patched.replace(
            admin.as_str().expect("listen"),
            &format!("127.0.0.1:{port}"),
        );
    }
    let folder = hosts::folder(Host::ProxyWasm).expect("a folder");
    let file = folder.join("edgeweir.toml");
    fs::write(&file, patched).expect("writes");
    let (out, err) = (folder.join("out.log"), folder.join("err.log"));
    let mut command = Command::new(edgeweir::binary().expect("the host is built"));
    command
        .current_dir(workspace::root())
        .arg("run")
        .arg(&file)
        .stdin(Stdio::null());
    command.stdout(fs::File::create(&out).expect("a log"));
    command.stderr(fs::File::create(&err).expect("a log"));
    let mut process = process::spawn(command).expect("it starts");
    for (listen, address) in listeners {
        let until = Instant::now() + Duration::from_secs(120);
        while client::Client::connect(address).is_err() {
            if let Some(status) = process.ended().expect("its state is known") {
                panic!(
                    "it ended with {status}: {}{}",
                    hosts::tail(&out),
                    hosts::tail(&err)
                );
            }
            assert!(Instant::now() < until, "{listen} does not listen");
            std::thread::sleep(Duration::from_millis(30));
        }
        let segment = format!("host-example-{}", address.port());
        origin::server().answer(
            &segment,
            &Origin::json(super::document(4_000)).field("cache-control", "max-age=60"),
        );
        let seen = ask(address, &segment);
        assert_eq!((seen.status, seen.complete), (200, true), "{listen}");
        seen.json();
    }
}

/// Spin 4.1's rules: every source is there, every component that is named exists, and what middleware inherits the
/// primary component has.
#[test]
fn the_spin_example_holds_together() {
    hosts::modules().expect("the modules are built");
    let folder = workspace::root().join("examples/spin");
    let text = fs::read_to_string(folder.join("spin.toml")).expect("reads");
    let manifest: toml::Table = text.parse().expect("examples/spin/spin.toml is TOML");
    assert_eq!(manifest["spin_manifest_version"].as_integer(), Some(2));
    let components = manifest["component"].as_table().expect("components");
    for (name, component) in components {
        let source = component["source"]
            .as_str()
            .unwrap_or_else(|| panic!("{name}: a source that is a file"));
        assert!(
            folder.join(Path::new(source)).is_file(),
            "{name}: no file {source}"
        );
    }
    let triggers = manifest["trigger"]["http"]
        .as_array()
        .expect("HTTP triggers");
    let mut middlewares = 0;
    for trigger in triggers {
        let route = trigger["route"].as_str().expect("a route");
        assert!(route.starts_with('/'), "{route}");
        let primary = trigger["component"].as_str().expect("a component by name");
        let primary = components
            .get(primary)
            .unwrap_or_else(|| panic!("{route}: no component {primary}"));
        let hosts = primary
            .get("allowed_outbound_hosts")
            .and_then(toml::Value::as_array);
        assert!(
            hosts.is_some_and(|hosts| !hosts.is_empty()),
            "{route}: the gateway may reach no host"
        );
        let middleware = trigger
            .get("dependencies")
            .and_then(|dependencies| dependencies.get("middleware"))
            .and_then(toml::Value::as_array);
        for layer in middleware.into_iter().flatten() {
            middlewares += 1;
            let name = layer["component"].as_str().expect("a component by name");
            let component = components
                .get(name)
                .unwrap_or_else(|| panic!("{route}: no component {name}"));
            let inherits: Vec<&str> = match layer.get("inherit_configuration") {
                Some(toml::Value::Array(keys)) => {
                    keys.iter().filter_map(toml::Value::as_str).collect()
                }
                Some(toml::Value::Boolean(true)) => {
                    vec!["environment", "key_value_stores", "variables"]
                }
                _ => Vec::new(),
            };
            for key in &inherits {
                let known = [
                    "allowed_outbound_hosts",
                    "environment",
                    "files",
                    "key_value_stores",
                    "sqlite_databases",
                    "variables",
                    "ai_models",
                ];
                assert!(known.contains(key), "{name}: {key} cannot be inherited");
                if matches!(*key, "key_value_stores" | "environment") {
                    assert!(
                        primary.get(key).is_some(),
                        "{name} inherits {key}, which the primary component lacks"
                    );
                }
            }
            if component["source"]
                .as_str()
                .unwrap_or_default()
                .ends_with(".spin.wasm")
            {
                assert!(
                    inherits.contains(&"key_value_stores"),
                    "{name} has no store to reach"
                );
            }
        }
    }
    assert!(middlewares >= 4, "{middlewares} layers of middleware");
}

#[test]
fn the_store_example_keeps_what_an_envoy_forgets() {
    hosts::modules().expect("the modules are built");
    let store = RealStore::start(&["--memory"]).expect("a store");
    let file = workspace::root().join("examples/store/envoy.yaml");
    let mut text = fs::read_to_string(file).expect("reads");
    for (from, to) in [
        ("10000", 0),
        ("9901", 0),
        ("9000", origin::server().http1.port()),
        ("7440", store.address.port()),
    ] {
        let (from, to) = (format!("port_value: {from}"), format!("port_value: {to}"));
        assert!(text.contains(&from), "no {from}");
        text = text.replace(&from, &to);
    }
    // A machine that also compiles is slow.
    let patient = text.replace("\"timeout_ms\": 20", "\"timeout_ms\": 5000");
    assert_ne!(text, patient);
    let start = || {
        let scratch = hosts::folder(Host::Envoy).expect("a folder");
        envoy::run(&scratch, "store.yaml", &patient, 2).expect("it runs")
    };
    let segment = "example-store";
    let answer = Origin::text("kept").field("cache-control", "max-age=60");
    origin::server().answer(segment, &answer);
    let running = start();
    assert_eq!(ask(running.address, segment).body_text(), "kept");
    let until = Instant::now() + Duration::from_secs(10);
    while store.counted("puts") == 0 {
        assert!(Instant::now() < until, "not written");
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(running);
    origin::server().answer(segment, &Origin::status(500));
    let seen = ask(start().address, segment);
    let said = seen.text("cache-status");
    assert!(said.contains("; hit"), "{} {said}", seen.status);
    assert!(store.counted("hits") > 0);
}

/// The unit's command, with folders of this test's own.
#[test]
fn the_store_unit_runs() {
    let file = workspace::root().join("examples/store/edgeweir-store.service");
    let text = fs::read_to_string(file).expect("reads");
    let line = text.lines().find_map(|it| it.strip_prefix("ExecStart="));
    let mut words = line.expect("ExecStart").split(' ');
    assert_eq!(words.next(), Some("/usr/local/bin/edgeweir"));
    let folder = hosts::folder(Host::ProxyWasm).expect("a folder");
    let place = folder.to_str().expect("text");
    let arguments: Vec<String> = words
        .map(|it| {
            it.replace("/run/edgeweir", place)
                .replace("/var/lib/edgeweir", place)
        })
        .collect();
    let mut command = Command::new(edgeweir::binary().expect("edgeweir"));
    command.args(&arguments).env("EDGEWEIR_LOG", "off");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut store = process::spawn(command).expect("it starts");
    let socket = folder.join("store.sock");
    let until = Instant::now() + Duration::from_secs(30);
    let mut stream = loop {
        match std::os::unix::net::UnixStream::connect(&socket) {
            Ok(stream) => break stream,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        assert!(store.ended().expect("a child").is_none(), "it ended");
        std::thread::sleep(Duration::from_millis(20));
    };
    let ask = b"GET /health HTTP/1.1\r\nhost: store\r\nconnection: close\r\n\r\n";
    stream.write_all(ask).expect("writes");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("reads");
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n"),
        "{answer}"
    );
    assert!(folder.join("store.redb").exists());
}
