//! `edgeweir run`, as a user starts it: the built program on a configuration file.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use cargo_edge::bench::inline_toml;
use cargo_edge::{demo, process, workspace};
use serde_json::Value;

use super::{Host, Running};
use crate::{Setup, origin};

/// Starts one for these filters, as modules or as components.
pub fn start(host: Host, setup: &Setup) -> Result<Running> {
    let modules = super::modules()?;
    let folder = super::folder(host)?;
    let port = super::free_port()?;
    let file = folder.join("edgeweir.toml");
    fs::write(&file, config(host, setup, port, &modules)?)
        .with_context(|| format!("writing {}", file.display()))?;
    run(&file, SocketAddr::from(([127, 0, 0, 1], port)))
}

/// Starts one on a configuration file of any format, and waits until it listens at `address`.
pub fn run(file: &std::path::Path, address: SocketAddr) -> Result<Running> {
    let log = file.with_extension("log");
    let (out, err) = super::log(&log)?;
    let mut command = Command::new(binary()?);
    command
        .current_dir(workspace::root())
        .arg("run")
        .arg(file)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err);
    let process = process::spawn(command).context("starting edgeweir")?;
    // The first start on a machine compiles every module.
    super::wait_for(process, address, log, Duration::from_secs(180))
}

/// The host's program, built once per test program.
pub fn binary() -> Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BUILT
        .get_or_init(|| demo::host(false, true).map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(|error| anyhow!(error))
}

/// The configuration file.
pub fn config(host: Host, setup: &Setup, port: u16, modules: &std::path::Path) -> Result<String> {
    let origin = origin::server();
    let (origin, http2) = match setup.http2_origin {
        true => (origin.http2, true),
        false => (origin.http1, false),
    };
    let kind = match host {
        Host::WasiHttp if setup.spins_stores => "spin",
        Host::WasiHttp => "wasi-http",
        _ => "proxy-wasm",
    };
    let names: Vec<String> = setup
        .filters
        .iter()
        .map(|filter| quoted(filter.name))
        .collect();
    let mut file = format!(
        "[monitor]\naccept_field = {}\n\n[[listener]]\nname = \"main\"\nlisten = \"127.0.0.1:{port}\"\nupstream = \"origin\"\nfilters = [{}]\n\n\
         [upstream.origin]\naddress = \"{origin}\"\nhttp2 = {http2}\n",
        setup.heeds_emergencies,
        names.join(", ")
    );
    for filter in &setup.filters {
        let module = modules.join(format!("{}.{kind}.wasm", filter.name));
        let module = module
            .to_str()
            .context("the path of the modules is no text")?;
        file.push_str(&format!(
            "\n[filter.{}]\nmodule = {}\n",
            filter.name,
            quoted(module)
        ));
        if filter
            .config
            .as_object()
            .is_some_and(|config| !config.is_empty())
        {
            file.push_str(&format!("config = {}\n", inline_toml(&filter.config)));
        }
        if host == Host::WasiHttp && filter.name == "cache" {
            // Each instance has a memory of its own, and on a machine that is busy otherwise a second one is started: what
            // the scenarios look for in the cache is in the first.
            file.push_str("instances = 1\n");
        }
        if let Some(address) = setup.reaches() {
            let store = quoted(&address.to_string());
            file.push_str(&match host {
                Host::WasiHttp => format!("allowed_outbound = [{store}]\n"),
                _ => format!("clusters = {{ {store} = {store} }}\n"),
            });
        }
    }
    Ok(file)
}

/// A basic string: its escapes are those of JSON.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}
