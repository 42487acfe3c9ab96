//! Made-up exchanges through the host and a real Envoy: `edgeweir diff` finds nothing, in callbacks neither, and finds a filter
//! that only one of them has.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cargo_edge::{tools, workspace};
use edgeweir_scenarios::hosts::{self, Host, edgeweir};

/// Exchanges of each run.
const EXCHANGES: &str = "500";

/// A limit for each client.
const LIMIT: &str =
    r#"{ rules = [{ key = [{ header = "x-client" }], limits = [{ rate = "6/hour" }] }] }"#;
/// No memory of bodies that coded badly: how a body came decides there.
const COMPRESS: &str = "{ max_ratio_percent = 100 }";

/// A configuration of these modules, each with its settings.
fn configuration(name: &str, filters: &[(&str, &str)]) -> PathBuf {
    let modules = hosts::modules().expect("the modules are built");
    let folder = hosts::folder(Host::ProxyWasm).expect("a folder");
    let names: Vec<&str> = filters.iter().map(|(filter, _)| *filter).collect();
    let mut text = format!(
        "[[listener]]\nname = \"main\"\nlisten = \"127.0.0.1:0\"\nupstream = \"origin\"\nfilters = {names:?}\n\n\
         [upstream.origin]\naddress = \"127.0.0.1:1\"\n"
    );
    for (filter, settings) in filters {
        let module = modules.join(format!("{filter}.proxy-wasm.wasm"));
        let module = module.display().to_string();
        write!(
            text,
            "\n[filter.{filter}]\nmodule = {module:?}\nconfig = {settings}\n"
        )
        .expect("a string takes it");
    }
    let file = folder.join(format!("{name}.toml"));
    std::fs::write(&file, text).expect("the configuration is written");
    file
}

fn diff(sides: &[&str], arguments: &[&str]) -> Output {
    Command::new(edgeweir::binary().expect("the host is built"))
        .current_dir(workspace::root())
        .env("EDGEWEIR_ENVOY", tools::envoy().expect("an Envoy"))
        .env_remove("EDGEWEIR_BIN")
        .arg("diff")
        .args(sides)
        .args(["--generate", EXCHANGES])
        .args(arguments)
        .output()
        .expect("edgeweir diff runs")
}

fn agrees(file: &Path, arguments: &[&str]) {
    let output = diff(&[file.to_str().expect("a path of text")], arguments);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success()
            && said.starts_with("no difference in ")
            && !said.contains("not compared"),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn four_in_one(name: &str) -> PathBuf {
    let filters = format!(
        r#"{{ filters = [{{ ratelimit = {LIMIT} }}, "cache", {{ compress = {COMPRESS} }}, "minify"] }}"#
    );
    configuration(name, &[("edge", &filters)])
}

#[test]
fn the_host_and_envoy_agree_on_made_up_exchanges() {
    agrees(&four_in_one("agreement"), &["--seed", "2026"]);
}

#[test]
fn the_host_and_envoy_agree_on_trailers() {
    let file = four_in_one("agreement-http2");
    agrees(&file, &["--seed", "2027", "--http2-origin"]);
}

#[test]
fn the_host_and_envoy_agree_on_a_chain_of_modules() {
    let filters = [
        ("ratelimit", LIMIT),
        ("cache", "{}"),
        ("compress", COMPRESS),
        ("minify", "{}"),
    ];
    let file = configuration("agreement-four", &filters);
    agrees(&file, &["--seed", "2028"]);
}

#[test]
fn a_filter_that_only_envoy_has_shows_in_the_callbacks() {
    let one = configuration("agreement-one", &[("ratelimit", LIMIT)]);
    let two = configuration(
        "agreement-two",
        &[("ratelimit", LIMIT), ("compress", COMPRESS)],
    );
    let two = format!("envoy:{}", two.display());
    let output = diff(&[one.to_str().expect("a path of text"), &two], &[]);
    let said = String::from_utf8_lossy(&output.stdout);
    let want = "callbacks of filter 2\n    first:  []\n    second: [context_create, request_headers(end), ";
    assert!(
        output.status.code() == Some(3) && said.contains(want),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
