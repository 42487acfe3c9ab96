//! Imports go one way.

use std::collections::BTreeMap;

use cargo_edge::workspace;
use serde_json::Value;

const FILTERS: [&str; 4] = ["cache", "compress", "minify", "ratelimit"];

/// What a filter may use besides the contract: pure code.
const PURE: [&str; 14] = [
    "brotli",
    "bytes",
    "flate2",
    "hmac",
    "httpdate",
    "lru",
    "memchr",
    "schemars",
    "serde",
    "serde_json",
    "sfv",
    "sha2",
    "subtle",
    "zrip",
];

/// What the store and a component that speaks to Redis in its place share.
const PROTOCOL: &str = "edgeweir-store-protocol";

/// The direct dependencies of every package of the workspace, without those of its tests.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let output = workspace::cargo()
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--offline",
        ])
        .output()
        .expect("cargo runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().expect("dependencies");
            let names = dependencies
                .iter()
                .filter(|dependency| dependency["kind"].is_null())
                .filter_map(|dependency| dependency["name"].as_str())
                .map(str::to_owned);
            (
                package["name"].as_str().unwrap_or_default().to_owned(),
                names.collect(),
            )
        })
        .collect()
}

fn own(names: &[String]) -> Vec<&str> {
    names
        .iter()
        .map(String::as_str)
        .filter(|name| name.starts_with("edgeweir"))
        .collect()
}

#[test]
fn a_filter_uses_the_contract_and_pure_code_only() {
    let all = dependencies();
    for filter in FILTERS {
        let used = &all[&format!("edgeweir-{filter}")];
        assert_eq!(own(used), ["edgeweir-filter"], "{filter}");
        let impure: Vec<_> = used
            .iter()
            .filter(|name| *name != "edgeweir-filter" && !PURE.contains(&name.as_str()))
            .collect();
        assert!(impure.is_empty(), "{filter} uses {impure:?}");
    }
    assert!(
        own(&all["edgeweir-filter"]).is_empty(),
        "the contract uses nothing of the project"
    );
    let mut edge = own(&all["edgeweir-edge"]);
    edge.sort_unstable();
    let want = [
        "edgeweir-cache",
        "edgeweir-compress",
        "edgeweir-filter",
        "edgeweir-minify",
        "edgeweir-ratelimit",
    ];
    assert_eq!(edge, want);
}

#[test]
fn an_adapter_knows_no_filter_and_a_guest_one_of_each() {
    let all = dependencies();
    for abi in ["proxy-wasm", "wasi-http"] {
        let adapter = format!("edgeweir-adapter-{abi}");
        let mut used = own(&all[&adapter]);
        used.retain(|name| *name != PROTOCOL || abi != "wasi-http");
        assert_eq!(used, ["edgeweir-filter"], "{adapter}");
        for filter in FILTERS.into_iter().chain(["edge"]) {
            let mut used = own(&all[&format!("edgeweir-{filter}-{abi}")]);
            used.sort_unstable();
            let mut want = [adapter.clone(), format!("edgeweir-{filter}")];
            want.sort();
            assert_eq!(used, want, "edgeweir-{filter}-{abi}");
        }
    }
}

#[test]
fn the_host_knows_no_filter() {
    for (name, used) in dependencies() {
        if name == "edgeweir" || name.starts_with("edgeweir-host-") {
            let wrong: Vec<_> = own(&used)
                .into_iter()
                .filter(|used| !used.starts_with("edgeweir-host-") && *used != PROTOCOL)
                .collect();
            assert!(wrong.is_empty(), "{name} uses {wrong:?}");
        }
    }
}

#[test]
fn the_stores_protocol_is_pure() {
    assert_eq!(dependencies()[PROTOCOL], ["bytes"]);
}
