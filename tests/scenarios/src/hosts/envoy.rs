//! The real Envoy, with two workers, in the shape of `examples/envoy/`.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use cargo_edge::process::{self, Helper};
use cargo_edge::{
    envoy::{listener, wasm},
    tools, workspace,
};
use serde_json::{Value, json};

use super::{Host, Running};
use crate::{Setup, origin};

/// Starts one for these filters.
pub fn start(setup: &Setup) -> Result<Running> {
    let modules = super::modules()?;
    let origin = origin::server();
    let origin = if setup.http2_origin {
        origin.http2
    } else {
        origin.http1
    };
    let config = bootstrap(setup, &modules, origin);
    let folder = super::folder(Host::Envoy)?;
    run(&folder, "envoy.json", &config.to_string(), 2)
}

/// Runs Envoy on a configuration whose listener and admin ports are 0, and finds out which it got.
pub fn run(folder: &Path, name: &str, config: &str, workers: u32) -> Result<Running> {
    let (mut process, log) = spawn(folder, name, config, workers)?;
    let admin = folder.join("admin");
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(status) = process.ended()? {
            bail!("it ended with {status}; its log: {}", super::tail(&log));
        }
        if let Some(address) = listener(&admin) {
            return super::wait_for(process, address, log, Duration::from_secs(10));
        }
        if Instant::now() > until {
            bail!(
                "it is not ready after a minute; its log: {}",
                super::tail(&log)
            );
        }
        std::thread::sleep(Duration::from_millis(25));
    }
}

/// Starts Envoy without waiting for anything.
pub fn spawn(folder: &Path, name: &str, config: &str, workers: u32) -> Result<(Helper, PathBuf)> {
    let envoy = tools::envoy()?;
    let file = folder.join(name);
    fs::write(&file, config).with_context(|| format!("writing {}", file.display()))?;
    let log = folder.join("envoy.log");
    let (out, err) = super::log(&log)?;
    let mut command = Command::new(envoy);
    command
        .current_dir(workspace::root())
        .args([
            "--use-dynamic-base-id",
            "--log-level",
            "warning",
            "--component-log-level",
            "wasm:info",
        ])
        .args(["--concurrency", &workers.to_string()])
        .arg("--config-path")
        .arg(&file)
        .arg("--admin-address-path")
        .arg(folder.join("admin"))
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err);
    let process = process::spawn(command).context("starting Envoy")?;
    Ok((process, log))
}

/// A bootstrap for these filters.
pub fn bootstrap(setup: &Setup, modules: &Path, origin: SocketAddr) -> Value {
    let filters = setup.filters.iter();
    let filters = filters.map(|filter| {
        let mut filter = wasm(filter.name, &filter.config.to_string(), modules);
        if setup.heeds_emergencies {
            filter["typed_config"]["config"]["vm_config"]["environment_variables"] =
                json!({ "key_values": { "EDGEWEIR_EMERGENCY_FIELD": "1" } });
        }
        filter
    });
    let mut all = cargo_edge::envoy::bootstrap(filters.collect(), origin, setup.http2_origin);
    if let Some(address) = setup.reaches()
        && let Some(clusters) = all["static_resources"]["clusters"].as_array_mut()
    {
        let name = address.to_string();
        clusters.push(json!({
            "name": name,
            "type": "STATIC",
            "connect_timeout": "1s",
            "load_assignment": {
                "cluster_name": name,
                "endpoints": [{
                    "lb_endpoints": [{ "endpoint": { "address": { "socket_address": {
                        "address": address.ip().to_string(),
                        "port_value": address.port()
                    } } } }]
                }]
            }
        }));
    }
    all
}
