//! A Spin manifest runs as it is: routes, middleware, what components are granted.

mod support;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use edgeweir::config::{Config, Options};
use edgeweir::host::Host;
use edgeweir::inspect::Inspected;
use edgeweir_host_formats::spin::Store;
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
    let mut misspelt = given.clone();
    misspelt.variables.push(("w".to_owned(), "1".to_owned()));
    let error = read(base, &misspelt).expect_err("there is no such variable");
    assert!(error.message.contains("no variable `w`"), "{error}");
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
    let other = Store::File(Some(folder.path().join("other.db")));
    assert_eq!(config.stores, [("other".to_owned(), other.clone())].into());
    let in_state = Options {
        state_dir: Some("kept".into()),
        ..with_store
    };
    let config = read(&store, &in_state).expect("it is read");
    let default = Store::File(Some("kept/sqlite_key_value.db".into()));
    let stores = [("other".to_owned(), other), ("default".to_owned(), default)];
    assert_eq!(config.stores, stores.into());
    let database = format!("{base}sqlite_databases = [\"default\", \"mine\"]\n");
    let error = read(&database, &given).expect_err("there is no such database");
    assert!(error.message.contains("[sqlite_database.mine]"), "{error}");
    // Of profiles none is chosen, as in Spin without `--profile`.
    let profile = format!("{base}profile = {{ debug = {{}} }}\n");
    assert!(read(&profile, &given).is_ok());
    let composed = format!("{base}dependencies = {{ \"a:b/c\" = \"0.1.0\" }}\n");
    let error = read(&composed, &given).expect_err("no registry is asked");
    assert!(error.message.contains("--lenient"), "{error}");
    let lenient = Options {
        lenient: true,
        ..given
    };
    assert!(read(&composed, &lenient).is_ok());
}

/// The component that forwards to an origin.
fn gateway() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../target/edge/gateway.wasi-http.wasm")
        .canonicalize()
        .expect("target/edge: cargo edge build")
}

/// An application made with the SDK of Spin 3.
fn older() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("the target folder")
        .join("guests-wasi");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("wasi_http/tests/spin");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--release", "--target", "wasm32-wasip1"])
        .arg("--manifest-path")
        .arg(folder.join("Cargo.toml"))
        .env("CARGO_TARGET_DIR", &target)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTFLAGS")
        .status();
    assert!(built.expect("cargo runs").success());
    target.join("wasm32-wasip1/release/wasi_http_test_spin.wasm")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_of_spin_3_runs_as_it_is_and_keeps_what_it_keeps() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = format!(
        "spin_manifest_version = 2\n[application]\nname = \"a\"\n[[trigger.http]]\nroute = \"/...\"\ncomponent = \"a\"\n\
         [component.a]\nsource = {:?}\nkey_value_stores = [\"default\"]\nsqlite_databases = [\"default\"]\n",
        older()
    );
    let file = folder.path().join("spin.toml");
    std::fs::write(&file, text).expect("writes");
    let state = folder.path().join(".spin");
    let kept = Options {
        state_dir: Some(state.clone()),
        ..options()
    };
    for (options, count) in [(options(), 0), (kept.clone(), 0), (kept, 1), (options(), 0)] {
        let config = Config::read_with(&file, &options).expect("it is read");
        let host = Host::start(config).await.expect("it starts");
        let address = host.addresses()[0];
        let ask = async |path: &str, body: &str| {
            let sent = format!("content-length: {}\r\n\r\n{body}", body.len());
            let head = format!("POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n");
            let answer = raw(address, format!("{head}{sent}")).await;
            String::from_utf8_lossy(&answer).into_owned()
        };
        let stored = ask("/store?default", "value").await;
        assert!(stored.contains("Some(\"value\")"), "{stored}");
        let made = "CREATE TABLE IF NOT EXISTS t (a)";
        ask("/sqlite?default", made).await;
        let counted = ask("/sqlite?default", "SELECT COUNT(*) FROM t").await;
        assert!(counted.contains(&format!("Integer({count})")), "{counted}");
        ask("/sqlite?default", "INSERT INTO t VALUES (1)").await;
        host.stop().await;
    }
    let files = std::fs::read_dir(&state).expect("read");
    let files: BTreeSet<_> = files.map(|it| it.expect("read").file_name()).collect();
    for file in ["sqlite_key_value.db", "sqlite_db.db"] {
        assert!(files.contains(OsStr::new(file)), "{files:?}");
    }
    let warned = Inspected::read(&older()).expect("read").unserved();
    assert!(
        matches!(&warned[..], [("not-offered", why)] if why.contains("fermyon:spin/llm@2.0.0")),
        "{warned:?}"
    );
}

#[test]
fn a_manifest_is_named_from_its_own_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = format!(
        "spin_manifest_version = 2\n[application]\nname = \"a\"\n[[trigger.http]]\nroute = \"/...\"\ncomponent = \"a\"\n\
         [component.a]\nsource = {:?}\nfiles = [\"spin.toml\"]\n",
        gateway()
    );
    std::fs::write(folder.path().join("spin.toml"), text).expect("writes");
    let checked = Command::new(env!("CARGO_BIN_EXE_edgeweir"))
        .args(["check", "spin.toml"])
        .current_dir(&folder)
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success(), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dependency_is_linked_into_its_component() {
    let folder = tempfile::tempdir().expect("a folder");
    let manifest = |export: &str| {
        format!(
            "spin_manifest_version = 2\n[application]\nname = \"a\"\n[[trigger.http]]\nroute = \"/...\"\ncomponent = \"a\"\n\
             [component.a]\nsource = {:?}\n[component.a.dependencies]\n\"wasi:config\" = {{ path = \"settings.wasm\"{export} }}\n",
            older()
        )
    };
    let file = folder.path().join("spin.toml");
    let dependency = folder.path().join("settings.wasm");
    std::fs::write(&file, manifest("")).expect("writes");
    let start = async || {
        let config = Config::read_with(&file, &options()).expect("it is read");
        assert!(edgeweir::reload::files(&config).contains(&dependency));
        Host::start(config).await
    };
    let error = start().await.err().expect("there is none").to_string();
    assert!(error.contains("spin.toml:10:"), "{error}");
    assert!(
        error.contains("in `filter.a.dependencies.\"wasi:config\"`"),
        "{error}"
    );
    assert!(error.contains("settings.wasm cannot be read"), "{error}");
    for value in ["first!", "second"] {
        std::fs::write(&dependency, settings(value)).expect("writes");
        let host = start().await.expect("it starts");
        let answer = get_raw(host.addresses()[0], "/config?any", "").await;
        assert!(
            answer.contains(&format!("Ok(Some(\"{value}\")) Ok([])")),
            "{answer}"
        );
        host.stop().await;
    }
    std::fs::write(&file, manifest(", export = \"a:b/c\"")).expect("writes");
    let error = start()
        .await
        .err()
        .expect("it exports no such thing")
        .to_string();
    assert!(error.contains("it does not export a:b/c"), "{error}");
}

/// A component that exports settings, of which each has this value of six bytes.
fn settings(value: &str) -> Vec<u8> {
    let text = format!(
        r#"(component
            (core module $m
                (memory (export "memory") 1)
                (data (i32.const 4) "\01\00\00\00\20\00\00\00\06\00\00\00")
                (data (i32.const 32) "{value}")
                (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 64))
                (func (export "get") (param i32 i32) (result i32) (i32.const 0))
                (func (export "all") (result i32) (i32.const 128)))
            (core instance $i (instantiate $m))
            (alias core export $i "memory" (core memory $memory))
            (alias core export $i "realloc" (core func $realloc))
            (type $error (variant (case "upstream" string) (case "io" string)))
            (func $get (param "key" string) (result (result (option string) (error $error)))
                (canon lift (core func $i "get") (memory $memory) (realloc $realloc)))
            (func $all (result (result (list (tuple string string)) (error $error)))
                (canon lift (core func $i "all") (memory $memory)))
            (component $named
                (type $error (variant (case "upstream" string) (case "io" string)))
                (import "import-error" (type $named (eq $error)))
                (import "import-get" (func $get (param "key" string) (result (result (option string) (error $named)))))
                (import "import-all" (func $all (result (result (list (tuple string string)) (error $named)))))
                (export $out "error" (type $error))
                (export "get" (func $get) (func (param "key" string) (result (result (option string) (error $out)))))
                (export "get-all" (func $all) (func (result (result (list (tuple string string)) (error $out))))))
            (instance $settings (instantiate $named
                (with "import-error" (type $error)) (with "import-get" (func $get)) (with "import-all" (func $all))))
            (export "wasi:config/store@0.2.0-draft-2024-09-27" (instance $settings)))"#
    );
    wat::parse_str(text).expect("a component")
}

/// What the application says of a request that is not sent.
const DENIED: &str = "not reached: ErrorCode::HttpRequestDenied";

#[tokio::test(flavor = "multi_thread")]
async fn components_reach_each_other_and_nobody_else_reaches_a_private_one() {
    let gateway = gateway();
    let older = older();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("spin.toml");
    let text = format!(
        r#"
spin_manifest_version = 2
[application]
name = "a"
[[trigger.http]]
route = "/..."
component = "front"
[[trigger.http]]
route = "/gate/..."
component = "gate"
[[trigger.http]]
route = {{ private = true }}
component = "hidden"
[[trigger.http]]
route = {{ private = true }}
component = "any"
[component.front]
source = {older:?}
variables = {{ answer = "front" }}
allowed_outbound_hosts = ["http://self", "http://hidden.spin.internal", "http://any.spin.internal", "http://nobody.spin.internal"]
[component.any]
source = {older:?}
allowed_outbound_hosts = ["https://*:*"]
[component.hidden]
source = {older:?}
variables = {{ answer = "hidden" }}
[component.gate]
source = {gateway:?}
environment = {{ EDGEWEIR_ORIGIN = "http://hidden.spin.internal" }}
allowed_outbound_hosts = ["http://*.spin.internal"]
"#
    );
    std::fs::write(&file, text).expect("writes");
    let config = Config::read_with(&file, &options()).expect("it is read");
    let host = Host::start(config).await.expect("it starts");
    let address = host.addresses()[0];
    for (path, want) in [
        ("/call?/variable?answer", "200 Ok(\"front\")"),
        ("/call?http://self.alt/variable?answer", "200 Ok(\"front\")"),
        (
            "/call?https://self.alt/variable?answer",
            "200 Ok(\"front\")",
        ),
        (
            "/call?http://self.alt:81/variable?answer",
            "200 Ok(\"front\")",
        ),
        // A word for patterns alone.
        ("/call?http://self/variable?answer", DENIED),
        ("/call?http://127.0.0.1:1/x", DENIED),
        ("/call?https://api.example.com/x", DENIED),
        (
            "/call?http://hidden.spin.internal/variable?answer",
            "200 Ok(\"hidden\")",
        ),
        ("/call?https://hidden.spin.internal/", DENIED),
        (
            "/call?http://any.spin.internal/call?https://hidden.spin.internal/variable?answer",
            "200 200 Ok(\"hidden\")",
        ),
        (
            "/call?http://any.spin.internal/call?/variable?answer",
            "200 200 Ok(\"front\")",
        ),
        ("/call?http://nobody.spin.internal/", "not reached"),
        ("/call?http://gate.spin.internal/", DENIED),
        ("/gate/a", "answered by Spin 3: /gate/a"),
        ("/variable?answer", "Ok(\"front\")"),
        (
            "/loop",
            "200 200 200 200 200 200 200 200 200 200 200 200 200 200 200 200 not reached",
        ),
    ] {
        let said = get_raw(address, path, "").await;
        assert!(said.contains(want), "{path}: {said}");
    }
    let named =
        "GET /variable?answer HTTP/1.1\r\nhost: hidden.spin.internal\r\nconnection: close\r\n\r\n";
    let said = String::from_utf8_lossy(&raw(address, named).await).into_owned();
    assert!(said.contains("Ok(\"front\")"), "{said}");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_not_there_are_named_with_their_line() {
    let gateway = gateway();
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
