//! `edgeweir check`: one bad file for each finding, with its line; and the examples, which have none.

use std::path::Path;
use std::process::{Command, Output};

const EDGE: &str = "target/edge";

/// Runs it from the project's root.
fn check(file: &Path, more: &[&str]) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the root");
    Command::new(env!("CARGO_BIN_EXE_edgeweir"))
        .current_dir(root)
        .arg("check")
        .arg(file)
        .args(more)
        .output()
        .expect("it runs")
}

fn toml(listener: &str, rest: &str) -> String {
    format!(
        "[[listener]]\nname = \"main\"\nlisten = \"127.0.0.1:0\"\nupstream = \"o\"\n{listener}\n[upstream.o]\naddress = \"127.0.0.1:9\"\n{rest}"
    )
}

fn filter(name: &str, module: &str, rest: &str) -> String {
    format!("[filter.{name}]\nmodule = \"{EDGE}/{module}.wasm\"\n{rest}\n")
}

#[test]
fn each_finding_has_a_file_that_shows_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let (minify, compress, cache, limit) = (
        filter("m", "minify.proxy-wasm", ""),
        filter("z", "compress.proxy-wasm", ""),
        filter("c", "cache.proxy-wasm", ""),
        filter("l", "ratelimit.proxy-wasm", ""),
    );
    let envoy = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/envoy/minify.yaml"),
    )
    .expect("the example");
    let spin = "spin_manifest_version = 2\n[application]\nname = \"a\"\n[[trigger.http]]\nroute = \"/...\"\ncomponent = \"a\"\n[component.a]\nsource = \"a.wasm\"\n";
    for (code, exit, line, ending, text) in [
        (
            "invalid",
            2,
            3,
            "toml",
            toml("", "").replace("127.0.0.1:0", "here"),
        ),
        (
            "module",
            2,
            9,
            "toml",
            toml("filters = [\"x\"]", &filter("x", "none", "")),
        ),
        (
            "order-minify",
            1,
            9,
            "toml",
            toml("filters = [\"m\", \"z\"]", &format!("{minify}{compress}")),
        ),
        (
            "order-compress",
            0,
            9,
            "toml",
            toml("filters = [\"z\", \"c\"]", &format!("{compress}{cache}")),
        ),
        (
            "order-ratelimit",
            0,
            12,
            "toml",
            toml("filters = [\"c\", \"l\"]", &format!("{cache}{limit}")),
        ),
        (
            "twice",
            1,
            12,
            "toml",
            toml(
                "filters = [\"m\", \"n\"]",
                &format!("{minify}{}", minify.replace(".m]", ".n]")),
            ),
        ),
        ("unused-filter", 1, 9, "toml", toml("", &minify)),
        (
            "vary-variants",
            1,
            10,
            "toml",
            toml(
                "filters = [\"c\", \"z\"]",
                &format!(
                    "{}{compress}",
                    filter("c", "cache.proxy-wasm", "config.max_variants = 2")
                ),
            ),
        ),
        (
            "missing-cluster",
            2,
            10,
            "toml",
            toml(
                "filters = [\"c\"]",
                &filter("c", "cache.proxy-wasm", "config.l3.to = \"store\""),
            ),
        ),
        (
            "option",
            2,
            10,
            "toml",
            toml(
                "filters = [\"m\"]",
                &filter("m", "minify.proxy-wasm", "config.max_dept = 3"),
            ),
        ),
        (
            "option",
            2,
            10,
            "toml",
            toml(
                "filters = [\"m\"]",
                &filter("m", "minify.proxy-wasm", "config.max_depth = -1"),
            ),
        ),
        (
            "unreachable-route",
            1,
            2,
            "toml",
            toml(
                "[[listener.route]]\nprefix = \"/\"\n[[listener.route]]\nprefix = \"/a\"",
                "",
            ),
        ),
        (
            "unused-upstream",
            0,
            0,
            "toml",
            toml("", "[upstream.p]\naddress = \"127.0.0.1:8\"\n"),
        ),
        (
            "failure-policy",
            1,
            43,
            "yaml",
            envoy.replace("FAIL_RELOAD", "FAIL_OPEN").replace(
                "                reload_config: { backoff: { base_interval: 0.1s } }\n",
                "",
            ),
        ),
        (
            "ignored",
            1,
            20,
            "yaml",
            envoy.replace("stat_prefix: edge", "stat_prefix: edge\n          bogus: 1"),
        ),
        (
            "unsupported",
            2,
            0,
            "yaml",
            envoy.replace("type: STATIC", "type: EDS"),
        ),
        (
            "missing-cluster",
            2,
            0,
            "yaml",
            envoy.replace("cluster: origin, timeout", "cluster: other, timeout"),
        ),
        (
            "option",
            2,
            0,
            "yaml",
            envoy.replace("value: \"{}\"", "value: \"{\""),
        ),
        (
            "no-effect",
            0,
            0,
            "yaml",
            envoy.replace("type: STATIC", "type: STATIC\n    lb_policy: RANDOM"),
        ),
        (
            "buffer-limit",
            1,
            0,
            "yaml",
            envoy.replace(
                "  - name: edge\n",
                "  - name: edge\n    per_connection_buffer_limit_bytes: 1024\n",
            ),
        ),
        (
            "missing-store",
            2,
            9,
            "toml",
            format!("{spin}key_value_stores = [\"other\"]\n"),
        ),
        (
            "invalid",
            2,
            6,
            "toml",
            spin.replace("component = \"a\"", "component = \"b\""),
        ),
    ] {
        let file = folder.path().join(format!("bad.{ending}"));
        std::fs::write(&file, &text).expect("writes");
        let output = check(&file, &["--no-load", "--json"]);
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let found: Vec<serde_json::Value> = serde_json::from_str(&told).unwrap_or_else(|_| {
            panic!("{code}: {told}{}", String::from_utf8_lossy(&output.stderr))
        });
        let one = found.iter().find(|it| it["code"] == code);
        let one = one.unwrap_or_else(|| panic!("{code}: {told}\n{text}"));
        assert_eq!(output.status.code(), Some(exit), "{code}: {told}");
        if line > 0 {
            assert_eq!(one["line"], line, "{code}: {told}\n{text}");
        }
        assert!(
            one["message"].as_str().is_some_and(|it| it.len() > 10),
            "{code}"
        );
    }
}

/// The page's file gives the page's words.
#[test]
fn the_page_shows_what_is_said() {
    let page = include_str!("../docs/check.md");
    let block = |from: &str| {
        let after = page.split_once(from).expect("a block").1;
        after.split_once("```").expect("its end").0.to_owned()
    };
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("chain.toml");
    std::fs::write(&file, block("```toml\n")).expect("writes");
    let output = check(&file, &["--no-load"]);
    assert_eq!(output.status.code(), Some(2));
    let told = [output.stdout, output.stderr].concat();
    let told = String::from_utf8_lossy(&told).replace(&file.display().to_string(), "chain.toml");
    assert_eq!(told, block("$ edgeweir check chain.toml --no-load\n"));
}

#[test]
fn the_examples_are_good() {
    for file in [
        "examples/host/edgeweir.toml",
        "examples/envoy/envoy.yaml",
        "examples/envoy/cache.yaml",
        "examples/envoy/compress.yaml",
        "examples/envoy/minify.yaml",
        "examples/envoy/ratelimit.yaml",
        "examples/spin/spin.toml",
    ] {
        let output = check(Path::new(file), &["--no-load"]);
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(0), "{file}: {told}");
        assert!(!told.contains("warning["), "{file}: {told}");
    }
}

#[test]
fn what_a_filter_refuses_is_heard() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("edge.toml");
    // The schema knows no rule between these: the filter itself does.
    let config = "config.rules = [{ name = \"a\", key = [\"client\"], limits = [] }]";
    let text = toml(
        "filters = [\"l\"]",
        &filter("l", "ratelimit.proxy-wasm", config),
    );
    std::fs::write(&file, text).expect("writes");
    let output = check(&file, &[]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("edge.toml:10:"), "{told}");
}

#[test]
fn what_a_module_imports_and_will_not_get_is_a_warning() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = r#"(module (import "env" "proxy_grpc_stream" (func (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_call_foreign_function" (func (param i32 i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1")))"#;
    let module = folder.path().join("calls.wasm");
    std::fs::write(&module, wat::parse_str(text).expect("it is good")).expect("writes");
    let file = folder.path().join("edge.toml");
    let filter = format!("[filter.a]\nmodule = \"{}\"\n", module.display());
    std::fs::write(&file, toml("filters = [\"a\"]", &filter)).expect("writes");
    let output = check(&file, &["--no-load"]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    for words in [
        "edge.toml:9:",
        "[grpc]",
        "it imports proxy_grpc_stream: this host makes no gRPC calls",
        "[foreign-function]",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
}
