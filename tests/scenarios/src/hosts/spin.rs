//! Spin, where a `spin` is on the PATH: the components as middleware in front of the gateway.

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use cargo_edge::{process, tools};

use super::{Host, Running};
use crate::{Setup, origin};

/// Starts one for these filters; `None` without Spin.
pub fn start(setup: &Setup) -> Result<Option<Running>> {
    let Some(spin) = tools::on_path("spin") else {
        return Ok(None);
    };
    super::modules()?;
    let folder = super::folder(Host::Spin)?;
    let port = super::free_port()?;
    let manifest = folder.join("spin.toml");
    fs::write(&manifest, self::manifest(setup)).context("writing spin.toml")?;
    let log = folder.join("spin.log");
    let (out, err) = super::log(&log)?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut command = Command::new(spin);
    command
        .current_dir(&folder)
        .args(["up", "--from"])
        .arg(&manifest)
        .args(["--listen", &address.to_string()])
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err);
    let process = process::spawn(command).context("starting Spin")?;
    super::wait_for(process, address, log, Duration::from_secs(120)).map(Some)
}

/// The manifest: stores, environment and hosts are those of the primary component, and inherited by name.
fn manifest(setup: &Setup) -> String {
    let modules = cargo_edge::workspace::edge_dir();
    let origin = origin::server().http1;
    let store = setup.reaches();
    let store = store.map_or(String::new(), |address| format!(", \"http://{address}\""));
    let mut components = String::new();
    let mut environment = format!("EDGEWEIR_ORIGIN = \"http://{origin}\"");
    if setup.heeds_emergencies {
        environment.push_str(", EDGEWEIR_EMERGENCY_FIELD = \"1\"");
    }
    let mut middleware = Vec::new();
    for filter in &setup.filters {
        let name = filter.name;
        let with_stores = modules.join(format!("{name}.spin.wasm"));
        let file = if with_stores.exists() {
            with_stores
        } else {
            modules.join(format!("{name}.wasi-http.wasm"))
        };
        let config = serde_json::Value::from(filter.config.to_string());
        environment.push_str(&format!(
            ", EDGEWEIR_{} = {config}",
            name.to_ascii_uppercase()
        ));
        middleware.push(format!(
            "{{ component = \"{name}\", inherit_configuration = [\"environment\", \"key_value_stores\", \"variables\", \"allowed_outbound_hosts\"] }}"
        ));
        components.push_str(&format!(
            "\n[component.{name}]\nsource = {:?}\n",
            file.display().to_string()
        ));
    }
    format!(
        "spin_manifest_version = 2\n\n[application]\nname = \"scenario\"\nversion = \"0.1.0\"\n\n\
         [[trigger.http]]\nroute = \"/...\"\ncomponent = \"origin\"\n\
         dependencies.middleware = [{}]\n\n\
         [component.origin]\nsource = {:?}\nallowed_outbound_hosts = [\"http://{origin}\"{store}]\n\
         key_value_stores = [\"default\"]\nenvironment = {{ {environment} }}\n{components}",
        middleware.join(", "),
        modules.join("gateway.wasi-http.wasm").display().to_string(),
    )
}
