//! Made-up exchanges through the host and a real Envoy: `edgeweir diff` finds nothing.

use std::process::Command;

use cargo_edge::{tools, workspace};
use edgeweir_scenarios::hosts::{self, Host, edgeweir};

/// Exchanges of each run.
const EXCHANGES: &str = "500";

/// The four filters. A limit for each client, and no memory of bodies that coded badly: how a body came decides there.
const FILTERS: &str = r#"[{ ratelimit = { rules = [{ key = [{ header = "x-client" }], limits = [{ rate = "6/hour" }] }] } }, "cache", { compress = { max_ratio_percent = 100 } }, "minify"]"#;

fn agrees(name: &str, arguments: &[&str]) {
    let module = hosts::modules()
        .expect("the modules are built")
        .join("edge.proxy-wasm.wasm");
    let folder = hosts::folder(Host::ProxyWasm).expect("a folder");
    let file = folder.join(format!("{name}.toml"));
    let text = format!(
        "[[listener]]\nname = \"main\"\nlisten = \"127.0.0.1:0\"\nupstream = \"origin\"\nfilters = [\"edge\"]\n\n\
         [upstream.origin]\naddress = \"127.0.0.1:1\"\n\n[filter.edge]\nmodule = {:?}\nconfig = {{ filters = {FILTERS} }}\n",
        module.display().to_string()
    );
    std::fs::write(&file, text).expect("the configuration is written");
    let output = Command::new(edgeweir::binary().expect("the host is built"))
        .current_dir(workspace::root())
        .env("EDGEWEIR_ENVOY", tools::envoy().expect("an Envoy"))
        .env_remove("EDGEWEIR_BIN")
        .arg("diff")
        .arg(&file)
        .args(["--generate", EXCHANGES])
        .args(arguments)
        .output()
        .expect("edgeweir diff runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.starts_with("no difference in "),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn the_host_and_envoy_agree_on_made_up_exchanges() {
    agrees("agreement", &["--seed", "2026"]);
}

#[test]
fn the_host_and_envoy_agree_on_trailers() {
    agrees("agreement-http2", &["--seed", "2027", "--http2-origin"]);
}
