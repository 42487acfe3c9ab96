//! `edgeweir package`, as it is called.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// A module for proxy-wasm that says its ABI, its name and its version, by hand.
fn module(name: &str, version: &str) -> Vec<u8> {
    let mut bytes = b"\0asm\x01\0\0\0".to_vec();
    let mut section = |id: u8, content: &[u8]| {
        bytes.push(id);
        bytes.push(u8::try_from(content.len()).expect("a short section"));
        bytes.extend_from_slice(content);
    };
    section(1, &[1, 0x60, 0, 0]);
    section(3, &[1, 0]);
    section(7, b"\x01\x17proxy_abi_version_0_2_1\x00\x00");
    section(10, &[1, 2, 0, 0x0b]);
    let named = |key: &[u8], value: &str| {
        let length = u8::try_from(key.len()).expect("a short name");
        [&[length], key, value.as_bytes()].concat()
    };
    section(0, &named(b"edgeweir:name", name));
    section(0, &named(b"edgeweir:version", version));
    bytes
}

fn package(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_edgeweir"))
        .arg("package")
        .args(arguments)
        .current_dir(folder)
        .env_remove("SOURCE_DATE_EPOCH")
        .output()
        .expect("runs")
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", complaint(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_module_has_two_forms_and_a_fixed_digest() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes);
    write("limit.proxy-wasm.wasm", &module("limit", "1.2.0+abc")).expect("writes");
    write("other.spin.wasm", b"\0asm\x0d\0\x01\0").expect("writes");
    let files = ["limit.proxy-wasm.wasm", "other.spin.wasm"];
    let first = said(&package(folder.path(), &[&files[..], &["--json"]].concat()));
    let first: Value = serde_json::from_str(&first).expect("JSON");
    let references: Vec<_> = first["images"]
        .as_array()
        .expect("images")
        .iter()
        .map(|image| (image["reference"].as_str(), image["form"].as_str()))
        .collect();
    assert_eq!(
        references,
        [
            (Some("limit:1.2.0_abc"), Some("envoy")),
            (Some("limit:1.2.0_abc-wasm"), Some("wasm")),
            (Some("other:latest-spin"), Some("wasm")),
        ]
    );
    let again = said(&package(
        folder.path(),
        &[&files[..], &["--json", "--to", "again"]].concat(),
    ));
    let again: Value = serde_json::from_str(&again).expect("JSON");
    assert_eq!(first["images"], again["images"]);
    let text = said(&package(folder.path(), &files));
    let digest = first["images"][0]["digest"].as_str().expect("a digest");
    assert!(text.contains("limit:1.2.0_abc       envoy"), "{text}");
    assert!(text.contains(digest), "{text}");
    assert!(
        text.contains("skopeo copy oci:target/images:limit:1.2.0_abc "),
        "{text}"
    );
}

#[test]
fn a_flavour_of_a_module_has_a_tag_of_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes);
    let files = [
        "limit.proxy-wasm.wasm",
        "limit.proxy-wasm.slim.wasm",
        "limit.proxy-wasm.baseline.wasm",
    ];
    for file in files {
        write(file, &module("limit", "1.2.0")).expect("writes");
    }
    let components = ["limit.wasi-http.wasm", "limit.wasi-http.slim.wasm"];
    for file in components {
        write(file, b"\0asm\x0d\0\x01\0").expect("writes");
    }
    let text = said(&package(folder.path(), &[&files[..], &components].concat()));
    for reference in [
        "limit:1.2.0 ",
        "limit:1.2.0-wasm ",
        "limit:1.2.0-slim ",
        "limit:1.2.0-slim-wasm ",
        "limit:1.2.0-baseline ",
        "limit:latest-wasi-http ",
        "limit:latest-wasi-http-slim ",
    ] {
        assert!(text.contains(reference), "{reference}: {text}");
    }
}

#[test]
fn the_time_is_what_source_date_epoch_says() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("a.wasm"), module("a", "1")).expect("writes");
    let dated = |value: &str| {
        Command::new(env!("CARGO_BIN_EXE_edgeweir"))
            .args(["package", "a.wasm", "--form", "wasm", "--json"])
            .current_dir(folder.path())
            .env("SOURCE_DATE_EPOCH", value)
            .output()
            .expect("runs")
    };
    let written: Value = serde_json::from_str(&said(&dated("1700000000"))).expect("JSON");
    let digest = written["images"][0]["digest"].as_str().expect("a digest");
    let hex = digest.strip_prefix("sha256:").expect("SHA-256");
    let manifest = folder.path().join("target/images/blobs/sha256").join(hex);
    let manifest = fs::read_to_string(manifest).expect("the manifest");
    assert!(manifest.contains("2023-11-14T22:13:20Z"), "{manifest}");
    let refused = dated("yesterday");
    assert_eq!(refused.status.code(), Some(1));
    assert!(complaint(&refused).contains("SOURCE_DATE_EPOCH is \"yesterday\""));
}

#[test]
fn an_application_for_spin_is_its_manifest_composed() {
    let folder = tempfile::tempdir().expect("a folder");
    let manifest = std::path::absolute("../examples/spin/spin.toml").expect("a path");
    let manifest = manifest.to_string_lossy();
    let text = said(&package(folder.path(), &[&manifest]));
    assert!(text.contains("edgeweir-example:0.1.0  spin "), "{text}");
    // The index names the manifest, the manifest the layers: the first is the component.
    let images = folder.path().join("target/images");
    let json = |file: &Path| -> Value {
        serde_json::from_slice(&fs::read(file).expect("a file")).expect("JSON")
    };
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().expect("a digest");
        let hex = digest.strip_prefix("sha256:").expect("SHA-256");
        images.join("blobs/sha256").join(hex)
    };
    let index = json(&images.join("index.json"));
    let manifest = json(&blob(&index["manifests"][0]));
    fs::copy(blob(&manifest["layers"][0]), folder.path().join("app.wasm")).expect("copies");
    let config = "[state]\ncache_dir = \"cache\"\n\
        [[listener]]\nname = \"main\"\nlisten = \"127.0.0.1:0\"\nupstream = \"none\"\nfilters = [\"app\"]\n\
        [upstream.none]\naddress = \"127.0.0.1:9\"\n\
        [filter.app]\nmodule = \"app.wasm\"\nenvironment = { EDGEWEIR_ORIGIN = \"http://127.0.0.1:9\" }\n";
    fs::write(folder.path().join("app.toml"), config).expect("writes");
    let checked = Command::new(env!("CARGO_BIN_EXE_edgeweir"))
        .args(["run", "--check", "app.toml"])
        .current_dir(folder.path())
        .output()
        .expect("runs");
    assert!(said(&checked).contains("good"), "{}", complaint(&checked));
    assert!(
        text.contains("note: compress is composed into gateway and has its"),
        "{text}"
    );
}

#[test]
fn what_is_wrong_is_said_and_nothing_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes);
    write("a.wasm", &module("same", "1")).expect("writes");
    write("b.wasm", &module("same", "1")).expect("writes");
    write("c.wasm", b"\0asm\x0d\0\x01\0").expect("writes");
    write("notes.txt", b"no Wasm").expect("writes");
    write("edge.toml", b"[[listener]]\nname = \"main\"\n").expect("writes");
    write("half.toml", b"[application\n").expect("writes");
    for (arguments, want) in [
        (&["notes.txt"][..], "notes.txt is not Wasm"),
        (&["gone.wasm"][..], "gone.wasm cannot be read"),
        (
            &["edge.toml"][..],
            "edge.toml: it is no Spin manifest: spin_manifest_version is not there; only `spin.toml`",
        ),
        (&["half.toml"][..], "half.toml: TOML parse error at line 1"),
        (
            &["a.wasm", "b.wasm"][..],
            "a.wasm and b.wasm would both be same:1",
        ),
        (&["c.wasm", "--form", "envoy"][..], "has no form \"envoy\""),
        (
            &["a.wasm", "--form", "tar"][..],
            "the forms are envoy, wasm and spin",
        ),
        (
            &["a.wasm", "--name", "Acme"][..],
            "\"Acme\" is no name of an image",
        ),
        (
            &["a.wasm", "--tag", "a b"][..],
            "\"a b\" is no tag of an image",
        ),
        (
            &["a.wasm", "c.wasm", "--name", "x"][..],
            "--name is for one file; 2 are given",
        ),
        (
            &["a.wasm", "--to", "."][..],
            "the folder is not empty, and not an image layout",
        ),
    ] {
        let output = package(folder.path(), arguments);
        assert!(!output.status.success(), "{arguments:?}");
        let complaint = complaint(&output);
        assert!(complaint.contains(want), "{arguments:?}: {complaint}");
        assert!(!folder.path().join("target").exists(), "{arguments:?}");
    }
}
