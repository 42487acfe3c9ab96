//! A configuration that a filter would refuse is refused before it serves, with the place of the field.

mod support;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use edgeweir::config::Config;
use edgeweir::host::Host;

/// A file of the build, from wherever a test runs.
fn built(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../target/edge")
        .join(name)
}

fn text(upstream: SocketAddr, module: &str, config: &str) -> String {
    format!(
        "[[listener]]\nname = \"main\"\nlisten = \"127.0.0.1:0\"\nupstream = \"o\"\nfilters = [\"f\"]\n\
         [upstream.o]\naddress = \"{upstream}\"\n[filter.f]\nmodule = {:?}\n{config}\n",
        built(module)
    )
}

const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9);

const WRONG_RATE: &str = "[[filter.f.config.rules]]\nkey = [\"client\"]\nlimits = [{ rate = \"1/second\" }]\n\
     [[filter.f.config.rules]]\nkey = [\"path\"]\nlimits = [{ rate = \"100/fortnight\" }]";

/// What `check`, `check --no-load` and `run --check` say of a file, with their exit codes.
fn said(file: &Path) -> [(Option<i32>, String); 3] {
    [&["check"][..], &["check", "--no-load"], &["run", "--check"]].map(|command| {
        let output = Command::new(env!("CARGO_BIN_EXE_edgeweir"))
            .args(command)
            .arg(file)
            .env("RUST_BACKTRACE", "1")
            .output()
            .expect("it runs");
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    })
}

#[test]
fn what_a_filter_refuses_is_said_once_where_the_field_stands() {
    let folder = tempfile::tempdir().expect("a folder");
    let variable = "environment = { A = \"1\", EDGEWEIR_MINIFY = '{\"max_dept\":1}' }";
    let spin = format!(
        "spin_manifest_version = 2\n[application]\nname = \"a\"\n[[trigger.http]]\nroute = \"/...\"\ncomponent = \"a\"\n\
         dependencies.middleware = [{{ component = \"limit\", inherit_configuration = [\"variables\"] }}]\n\
         [component.a]\nsource = {:?}\n[component.a.variables]\nedgeweir_ratelimit = '{{\"rules\":3}}'\n\
         [component.limit]\nsource = {:?}\n",
        built("gateway.wasi-http.wasm"),
        built("ratelimit.spin.wasm"),
    );
    for (name, text, place, field, what, read_only) in [
        (
            "a module's table",
            text(NOWHERE, "ratelimit.proxy-wasm.wasm", WRONG_RATE),
            ":15:20",
            "`filter.f.config.rules[1].limits[0].rate`",
            "no unit of time",
            false,
        ),
        (
            "a component's table",
            text(NOWHERE, "ratelimit.wasi-http.wasm", WRONG_RATE),
            ":15:20",
            "`filter.f.config.rules[1].limits[0].rate`",
            "no unit of time",
            false,
        ),
        (
            "a type",
            text(
                NOWHERE,
                "minify.proxy-wasm.wasm",
                "config.max_depth = \"x\"",
            ),
            ":10:20",
            "`filter.f.config.max_depth`",
            "is not of type integer",
            true,
        ),
        (
            "the environment",
            text(NOWHERE, "minify.wasi-http.wasm", variable),
            ":10:44",
            "`filter.f.environment.EDGEWEIR_MINIFY`",
            "unknown field `max_dept`",
            true,
        ),
        (
            "the origin of a gateway",
            text(
                NOWHERE,
                "gateway.wasi-http.wasm",
                "environment = { EDGEWEIR_ORIGIN = \"ftp://a\" }",
            ),
            ":10:35",
            "`filter.f.environment.EDGEWEIR_ORIGIN`",
            "neither http nor https",
            false,
        ),
        (
            "a variable of Spin's",
            spin,
            ":11:22",
            ".variables.edgeweir_ratelimit`",
            "in `rules`: ",
            true,
        ),
    ] {
        let file = folder.path().join("bad.toml");
        std::fs::write(&file, text).expect("writes");
        for (at, (code, said)) in said(&file).into_iter().enumerate() {
            if at == 1 && !read_only {
                assert_eq!(code, Some(0), "{name}: {said}");
                continue;
            }
            assert_eq!(code, Some([2, 2, 1][at]), "{name}: {said}");
            assert!(
                said.contains(&format!("bad.toml{place}: ")),
                "{name}: {said}"
            );
            assert!(said.contains(field), "{name}: {said}");
            assert_eq!(said.matches(what).count(), 1, "{name}: {said}");
        }
    }
}

#[tokio::test]
async fn a_component_whose_configuration_is_bad_does_not_take_over() {
    let origin = support::origin().await;
    let component = |rate: &str| {
        let config = format!(
            "config.rules = [{{ key = [\"client\"], limits = [{{ rate = \"{rate}\" }}] }}]"
        );
        let text = text(origin, "ratelimit.wasi-http.wasm", &config);
        Config::parse(Path::new("edge.toml"), text).expect("the host finds nothing")
    };
    let mut host = Host::start(component("2/day")).await.expect("it serves");
    let error = host.prepare(component("2/fortnight")).await.err();
    let error = error.map(|error| error.to_string()).unwrap_or_default();
    assert!(
        error.contains("\"fortnight\" in \"2/fortnight\""),
        "{error}"
    );
    let next = host.prepare(component("1/day")).await.expect("a good one");
    host.adopt(next).await.expect("takes over");
    // What the filter was asked beforehand counts for nothing.
    let address = host.addresses()[0];
    for want in ["200", "429"] {
        let answer = support::get_raw(address, "/", "").await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {want}")),
            "{want}: {answer}"
        );
    }
    host.stop().await;
}

#[test]
fn bounds_of_components_are_said_where_they_are_set() {
    let folder = tempfile::tempdir().expect("a folder");
    for (extra, place, field) in [
        (
            "[limits]\nheaders = 15",
            ":11:11",
            "`limits.headers`: 15 is out of bounds: from 16 to 8192",
        ),
        (
            "[limits]\ndeadline_ms = 9",
            ":11:15",
            "`limits.deadline_ms`: 9 is out of bounds: from 10 to 60000",
        ),
        (
            "headers = 15",
            ":10:11",
            "`filter.f.headers`: 15 is out of bounds: from 16 to 8192",
        ),
        (
            "deadline_ms = 0",
            ":10:15",
            "`filter.f.deadline_ms`: 0 is out of bounds: from 10 to 60000",
        ),
    ] {
        let file = folder.path().join("bad.toml");
        std::fs::write(&file, text(NOWHERE, "minify.wasi-http.wasm", extra)).expect("writes");
        let [(code, check), _, (_, run)] = said(&file);
        assert_eq!(code, Some(2), "{check}");
        for said in [check, run] {
            assert!(said.contains(&format!("bad.toml{place}: ")), "{said}");
            assert!(said.contains(field), "{said}");
        }
        let modules = text(NOWHERE, "minify.proxy-wasm.wasm", extra);
        std::fs::write(&file, modules).expect("writes");
        let [(code, said), ..] = said(&file);
        assert_eq!(code, Some(0), "a module may: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_beyond_the_bounds_of_one_filter_is_refused_before_it() {
    let origin = support::origin().await;
    for module in ["minify.wasi-http.wasm", "minify.proxy-wasm.wasm"] {
        let text = text(origin, module, "headers = 20\nheader_kib = 2");
        let config = Config::parse(Path::new("edge.toml"), text).expect("it is read");
        let host = Host::start(config).await.expect("it starts");
        let address = host.addresses()[0];
        for (fields, want) in [
            ("a: b\r\n".repeat(10), "200"),
            ("a: b\r\n".repeat(30), "431"),
            (format!("a: {}\r\n", "b".repeat(1_000)), "200"),
            (format!("a: {}\r\n", "b".repeat(3_000)), "431"),
        ] {
            let answer = support::get_raw(address, "/", &fields).await;
            let want = format!("HTTP/1.1 {want}");
            assert!(answer.starts_with(&want), "{module} {want}: {answer}");
        }
        host.stop().await;
    }
}

#[test]
fn an_option_that_a_format_has_no_use_for_is_refused() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let run = ["run", "--check"];
    let manifest = "examples/spin/spin.toml";
    const TOML: &str = "examples/host/edgeweir.toml";
    const YAML: &str = "examples/envoy/envoy.yaml";
    for (command, file, option, good) in [
        (&run[..], TOML, &["--listen", "127.0.0.1:0"][..], false),
        (&run, YAML, &["--listen", "127.0.0.1:0"], false),
        (&["check"], YAML, &["--variable", "a=b"], false),
        (
            &["check"],
            TOML,
            &["--runtime-config-file", manifest],
            false,
        ),
        (&["check"], TOML, &["--lenient"], false),
        (
            &["check", "--no-load"],
            manifest,
            &["--variable", "edgeweir_cache="],
            true,
        ),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_edgeweir"))
            .current_dir(&root)
            .args(command)
            .arg(file)
            .args(option)
            .output()
            .expect("it runs");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let whose = match option[0] {
            "--lenient" => "files of Envoy and Spin",
            _ => "Spin manifests",
        };
        let refused = said.contains(&format!("`{}` is for {whose}, and this is an ", option[0]));
        assert_eq!(
            (output.status.success(), refused),
            (good, !good),
            "{file}: {said}"
        );
    }
}

/// Sizes aside, which change with every build.
#[test]
fn the_page_shows_what_inspect_says() {
    let page = include_str!("../docs/inspect.md");
    let shown = page.split_once("$ edgeweir inspect target/edge/minify.proxy-wasm.wasm\n");
    let shown = shown
        .and_then(|(_, rest)| rest.split_once("```"))
        .expect("a block")
        .0;
    let output = Command::new(env!("CARGO_BIN_EXE_edgeweir"))
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .args(["inspect", "target/edge/minify.proxy-wasm.wasm"])
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let without_sizes = |text: &str| -> Vec<String> {
        let sized = |line: &&str| {
            let line = line.trim_start();
            ["size ", "memory ", "sections "]
                .iter()
                .any(|it| line.starts_with(it))
        };
        text.lines()
            .filter(|line| !sized(line))
            .map(str::to_owned)
            .collect()
    };
    // Imports stand in the order in which the linker found them.
    let (mut shown, mut said) = (without_sizes(shown), without_sizes(&said));
    shown.sort();
    said.sort();
    assert_eq!(shown, said);
}

#[test]
fn a_file_that_is_no_wasm_is_called_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let wasm = folder.path().join("cut.wasm");
    std::fs::write(&wasm, b"\0asm").expect("writes");
    let file = folder.path().join("bad.toml");
    let text = text(NOWHERE, "x", "").replace(&format!("{:?}", built("x")), &format!("{wasm:?}"));
    std::fs::write(&file, text).expect("writes");
    for (_, said) in said(&file) {
        assert!(said.contains("bad.toml:9:10: "), "{said}");
        assert!(said.contains("not Wasm: it has fewer than"), "{said}");
    }
}

#[test]
fn a_filter_that_a_route_configures_is_in_use() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("edge.toml");
    let route = "[[listener.route]]\nprefix = \"/a\"\nfilters = [\"f\"]\nconfig.f.max_depth = 3\n[upstream.o]";
    let text = text(NOWHERE, "minify.proxy-wasm.wasm", "")
        .replace("filters = [\"f\"]\n[upstream.o]", route);
    std::fs::write(&file, &text).expect("writes");
    for (code, said) in said(&file) {
        assert_eq!(code, Some(0), "{said}");
        assert!(
            !said.contains("unused-filter") && !said.contains("names this filter"),
            "{said}"
        );
    }
    std::fs::write(&file, text.replace("max_depth", "max_dept")).expect("writes");
    for (_, said) in said(&file) {
        assert!(said.contains("edge.toml:8:"), "{said}");
    }
}

#[test]
fn what_cannot_be_used_is_said_where_it_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let kept =
        text(NOWHERE, "minify.proxy-wasm.wasm", "") + "\n[state]\ncache_dir = \"/proc/nowhere\"\n";
    let module = built("minify.proxy-wasm.wasm");
    let spin = format!(
        "spin_manifest_version = 2\n[application]\nname = \"a\"\n[[trigger.http]]\nroute = \"/...\"\ncomponent = \"a\"\n\
         [component.a]\nsource = {module:?}\n",
    );
    for (name, text, want) in [
        (
            "a cache folder",
            kept,
            "in `state.cache_dir`: /proc/nowhere",
        ),
        ("a module for Envoy", spin, "Spin runs components alone"),
    ] {
        let file = folder.path().join("bad.toml");
        std::fs::write(&file, text).expect("writes");
        let output = Command::new(env!("CARGO_BIN_EXE_edgeweir"))
            .args(["run", "--check"])
            .arg(&file)
            .output()
            .expect("it runs");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert_eq!(output.status.code(), Some(1), "{name}: {said}");
        assert!(said.contains(want), "{name}: {said}");
    }
}
