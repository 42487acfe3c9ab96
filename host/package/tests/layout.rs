//! What is written, read again by its specification.

use std::fs;
use std::io::Read;
use std::path::Path;

use edgeweir_host_package::{
    Application, Component, Digest, Form, Image, Interfaces, Label, Layout, Trigger, Variable,
};
use serde_json::Value;

fn label() -> Label {
    Label {
        title: "cache".into(),
        version: "0.1.0".into(),
        description: "A shared HTTP cache".into(),
        created: "1970-01-01T00:00:00Z".into(),
    }
}

fn json(file: &Path) -> Value {
    serde_json::from_slice(&fs::read(file).expect("a file")).expect("JSON")
}

/// The content a descriptor points at: it is there, of that size and digest.
fn followed(folder: &Path, descriptor: &Value) -> Vec<u8> {
    let digest = descriptor["digest"].as_str().expect("a digest");
    let hex = digest.strip_prefix("sha256:").expect("SHA-256");
    let bytes = fs::read(folder.join("blobs/sha256").join(hex)).expect("a blob");
    assert_eq!(descriptor["size"], bytes.len());
    assert_eq!(Digest::of(&bytes).to_string(), digest);
    bytes
}

/// The manifest an index names, with its configuration and layers.
fn image(folder: &Path, reference: &str) -> (Value, Value, Vec<Vec<u8>>) {
    assert_eq!(
        json(&folder.join("oci-layout")),
        serde_json::json!({ "imageLayoutVersion": "1.0.0" })
    );
    let index = json(&folder.join("index.json"));
    let descriptor = index["manifests"]
        .as_array()
        .expect("manifests")
        .iter()
        .find(|it| it["annotations"]["org.opencontainers.image.ref.name"] == reference)
        .unwrap_or_else(|| panic!("{reference} is in {index:#}"));
    let manifest: Value = serde_json::from_slice(&followed(folder, descriptor)).expect("JSON");
    assert_eq!(manifest["schemaVersion"], 2);
    let config = serde_json::from_slice(&followed(folder, &manifest["config"])).expect("JSON");
    let layers = manifest["layers"].as_array().expect("layers");
    let layers = layers.iter().map(|it| followed(folder, it)).collect();
    (manifest, config, layers)
}

#[test]
fn istio_finds_plugin_wasm_in_the_last_layer() {
    let folder = tempfile::tempdir().expect("a folder");
    let module = [b"\0asm\x01\0\0\0".as_slice(), &[7; 70_000]].concat();
    let mut layout = Layout::open(folder.path()).expect("begins");
    let written = layout
        .add(
            "cache:0.1.0",
            &Image::for_envoy(&module, &label()).expect("packs"),
        )
        .expect("writes");
    assert_eq!(written.form, Form::Envoy);
    let (manifest, config, layers) = image(folder.path(), "cache:0.1.0");
    assert_eq!(
        manifest["annotations"]["module.wasm.image/variant"],
        "compat"
    );
    assert_eq!(
        manifest["config"]["mediaType"],
        "application/vnd.oci.image.config.v1+json"
    );
    assert_eq!(
        manifest["layers"][0]["mediaType"],
        "application/vnd.oci.image.layer.v1.tar+gzip"
    );
    let mut archive = Vec::new();
    flate2::read::GzDecoder::new(layers.last().expect("a layer").as_slice())
        .read_to_end(&mut archive)
        .expect("gzip");
    // Tools for container images compare what they unpack with this digest.
    assert_eq!(
        config["rootfs"]["diff_ids"][0],
        Digest::of(&archive).to_string()
    );
    let mut archive = tar::Archive::new(archive.as_slice());
    let mut entries = archive.entries().expect("entries");
    let mut file = entries.next().expect("a file").expect("an entry");
    assert_eq!(file.path().expect("a path"), Path::new("plugin.wasm"));
    let mut content = Vec::new();
    file.read_to_end(&mut content).expect("reads");
    assert_eq!(content, module);
    assert!(entries.next().is_none());
}

#[test]
fn a_wasm_artifact_is_the_file_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut layout = Layout::open(folder.path()).expect("begins");
    let interfaces = Interfaces {
        exports: vec!["wasi:http/handler@0.3.0".into()],
        imports: vec!["wasi:http/types@0.3.0".into()],
    };
    let wasm = b"\0asm\x0d\0\x01\0".to_vec();
    for (reference, interfaces, os) in [
        ("module", None, "wasip1"),
        ("component", Some(&interfaces), "wasip2"),
    ] {
        layout
            .add(
                reference,
                &Image::of_wasm(wasm.clone(), interfaces, &label()),
            )
            .expect("writes");
        let (manifest, config, layers) = image(folder.path(), reference);
        assert_eq!(
            manifest["config"]["mediaType"],
            "application/vnd.wasm.config.v0+json"
        );
        assert_eq!(manifest["layers"][0]["mediaType"], "application/wasm");
        assert_eq!(layers, std::slice::from_ref(&wasm));
        assert_eq!(config["architecture"], "wasm");
        assert_eq!(config["os"], os);
        assert_eq!(config["layerDigests"][0], Digest::of(&wasm).to_string());
        assert_eq!(
            config["component"]["exports"].is_array(),
            interfaces.is_some()
        );
    }
}

#[test]
fn a_spin_application_names_its_components_by_digest() {
    let folder = tempfile::tempdir().expect("a folder");
    let application = Application {
        name: "shop".into(),
        version: "2.0.0".into(),
        variables: [(
            "token".to_owned(),
            Variable {
                default: None,
                secret: true,
            },
        )]
        .into(),
        triggers: vec![Trigger {
            route: "/...".into(),
            component: "app".into(),
        }],
        components: vec![Component {
            id: "app".into(),
            wasm: b"\0asm\x0d\0\x01\0".to_vec(),
            key_value_stores: vec!["default".into()],
            sqlite_databases: vec!["db".into()],
            ..Component::default()
        }],
        ..Application::default()
    };
    Layout::open(folder.path())
        .expect("begins")
        .add("shop:2.0.0", &Image::for_spin(application, &label()))
        .expect("writes");
    let (manifest, config, layers) = image(folder.path(), "shop:2.0.0");
    let types: Vec<_> = manifest["layers"]
        .as_array()
        .expect("layers")
        .iter()
        .map(|layer| layer["mediaType"].as_str().expect("text"))
        .collect();
    assert_eq!(
        types,
        [
            "application/vnd.wasm.content.layer.v1+wasm",
            "application/vnd.fermyon.spin.application.v1+config"
        ]
    );
    let locked: Value = serde_json::from_slice(&layers[1]).expect("JSON");
    assert_eq!(
        locked["components"][0]["source"]["digest"],
        Digest::of(&layers[0]).to_string()
    );
    assert_eq!(
        locked["components"][0]["metadata"]["key_value_stores"][0],
        "default"
    );
    assert_eq!(locked["components"][0]["metadata"]["databases"][0], "db");
    assert_eq!(locked["triggers"][0]["trigger_config"]["route"], "/...");
    assert_eq!(locked["variables"]["token"]["secret"], true);
    assert_eq!(
        config["config"]["Labels"]["com.fermyon.spin.lockedAppDigest"],
        Digest::of(&layers[1]).to_string()
    );
}

#[test]
fn the_same_input_gives_the_same_digest_and_other_images_stay() {
    let write = |folder: &Path, reference: &str, module: &[u8]| {
        Layout::open(folder)
            .expect("opens")
            .add(
                reference,
                &Image::for_envoy(module, &label()).expect("packs"),
            )
            .expect("writes")
            .digest
    };
    let (one, two) = (
        tempfile::tempdir().expect("one"),
        tempfile::tempdir().expect("two"),
    );
    let first = write(one.path(), "a:1", b"\0asm a");
    assert_eq!(first, write(two.path(), "b:1", b"\0asm a"));
    let other = write(one.path(), "b:1", b"\0asm b");
    assert_ne!(first, other);
    image(one.path(), "a:1");
    image(one.path(), "b:1");
    write(one.path(), "a:1", b"\0asm c");
    let index = json(&one.path().join("index.json"));
    assert_eq!(index["manifests"].as_array().map(Vec::len), Some(2));
    assert_ne!(index["manifests"][0]["digest"], first.to_string());
}

#[test]
fn a_folder_of_something_else_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("notes.txt"), "mine").expect("writes");
    let error = Layout::open(folder.path()).err().expect("refused");
    assert!(error.to_string().contains("not an image layout"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).expect("lists").count(), 1);
}
