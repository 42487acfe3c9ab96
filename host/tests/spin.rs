//! A Spin manifest runs as it is: routes, middleware, what components are granted.

mod support;

use std::path::Path;

use edgeweir::config::{Config, Options};
use edgeweir::host::Host;
use support::*;

fn options() -> Options {
    Options {
        listen: Some(([127, 0, 0, 1], 0).into()),
        ..Options::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_runs_as_it_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = std::fs::read_to_string(root.join("examples/spin/spin.toml")).expect("the example");
    let origin = origin().await;
    let folder = tempfile::tempdir().expect("a folder");
    let edge = root
        .join("target/edge")
        .canonicalize()
        .expect("target/edge: cargo edge build");
    let text = text
        .replace("127.0.0.1:9000", &origin.to_string())
        .replace("../../target/edge", edge.to_str().expect("a path"));
    let file = folder.path().join("spin.toml");
    std::fs::write(&file, text).expect("writes");
    let config = Config::read_with(&file, &options()).expect("it is read");
    assert_eq!(
        config
            .notes
            .iter()
            .filter(|it| it.level > edgeweir_host_formats::Level::Advice)
            .count(),
        0,
        "{:?}",
        config.notes
    );
    let host = Host::start(config).await.expect("it starts");
    let address = host.addresses()[0];
    let first = get_raw(address, "/head", "").await;
    assert!(first.contains("ratelimit: "), "the limit is first: {first}");
    assert!(first.contains("cache-status: "), "{first}");
    assert!(
        first.contains("200 OK"),
        "the gateway reaches the origin: {first}"
    );
    assert!(
        !first.contains("spin-"),
        "nothing of Spin reaches the origin: {first}"
    );
    host.stop().await;
}

#[test]
fn a_manifest_that_cannot_run_says_why_with_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let base = "spin_manifest_version = 2\n[application]\nname = \"a\"\n[variables]\nv = { required = true }\n\
                [[trigger.http]]\nroute = \"/...\"\ncomponent = \"a\"\n[component.a]\nsource = \"a.wasm\"\n";
    let read = |text: &str, options: &Options| {
        let file = folder.path().join("spin.toml");
        std::fs::write(&file, text).expect("writes");
        Config::read_with(&file, options)
    };
    let error = read(base, &options()).expect_err("a variable is missing");
    assert_eq!(error.place, Some((5, 5)), "{error}");
    assert!(error.message.contains("SPIN_VARIABLE_V"), "{error}");
    let given = Options {
        variables: vec![("v".to_owned(), "1".to_owned())],
        ..options()
    };
    let config = read(base, &given).expect("it is read");
    assert_eq!(config.listeners[0].listen.get_ref().0.port(), 0);
    let store = format!("{base}key_value_stores = [\"other\"]\n");
    let error = read(&store, &given).expect_err("there is no such store");
    assert!(error.message.contains("[key_value_store.other]"), "{error}");
    let runtime = folder.path().join("runtime.toml");
    std::fs::write(
        &runtime,
        "[key_value_store.other]\ntype = \"spin\"\npath = \"other.db\"\n",
    )
    .expect("writes");
    let with_store = Options {
        runtime_config: Some(runtime),
        ..given.clone()
    };
    let config = read(&store, &with_store).expect("it is read");
    assert_eq!(config.stores.len(), 1);
    let profile = format!("{base}profile = {{ debug = {{}} }}\n");
    let error = read(&profile, &given).expect_err("profiles are not supported");
    assert!(error.message.contains("--lenient"), "{error}");
    let lenient = Options {
        lenient: true,
        ..given
    };
    assert!(read(&profile, &lenient).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_not_there_are_named_with_their_line() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let gateway = root
        .join("target/edge/gateway.wasi-http.wasm")
        .canonicalize()
        .expect("target/edge: cargo edge build");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("page.html"), "shown").expect("written");
    let start = async |files: &str| {
        let text = format!(
            "spin_manifest_version = 2\n[application]\nname = \"a\"\n[[trigger.http]]\nroute = \"/...\"\ncomponent = \"a\"\n\
             [component.a]\nsource = {:?}\nenvironment = {{ EDGEWEIR_ORIGIN = \"http://127.0.0.1:1\" }}\n{files}\n",
            gateway.to_str().expect("a path")
        );
        let file = folder.path().join("spin.toml");
        std::fs::write(&file, text).expect("writes");
        let config = Config::read_with(&file, &options()).expect("it is read");
        Host::start(config)
            .await
            .map_err(|error| format!("{error:#}"))
    };
    let host =
        start("files = [\"*.html\", { source = \"page.html\", destination = \"/index.html\" }]");
    host.await.expect("it starts").stop().await;
    let Err(error) = start("files = [\"page.html\",\n  \"absent.html\"]").await else {
        panic!("a file that is not there is shown");
    };
    assert!(error.contains("spin.toml:11:3: in `files`"), "{error}");
    assert!(error.contains("\"absent.html\" is not there"), "{error}");
}
