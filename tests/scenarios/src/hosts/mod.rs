//! What a scenario runs on.

pub mod edgeweir;
pub mod envoy;
pub mod pure;
pub mod spin;

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use cargo_edge::artifact::Flavour;
use cargo_edge::process::Helper;

use crate::Setup;

/// A host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Host {
    /// The filters as plain code, driven by a script: two workers in turn, one shared store.
    Pure,
    /// `edgeweir run` with the proxy-wasm modules.
    ProxyWasm,
    /// `edgeweir run` with the wasi:http components.
    WasiHttp,
    /// Envoy with two workers.
    Envoy,
    /// Spin, where there is one.
    Spin,
}

impl Host {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Pure,
        Self::ProxyWasm,
        Self::WasiHttp,
        Self::Envoy,
        Self::Spin,
    ];

    /// A word for paths and for `EDGEWEIR_HOSTS`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pure => "pure",
            Self::ProxyWasm => "proxy-wasm",
            Self::WasiHttp => "wasi-http",
            Self::Envoy => "envoy",
            Self::Spin => "spin",
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pure => "the pure contract",
            Self::ProxyWasm => "edgeweir with proxy-wasm modules",
            Self::WasiHttp => "edgeweir with wasi:http components",
            Self::Envoy => "Envoy with two workers",
            Self::Spin => "Spin",
        })
    }
}

/// All hosts, or those that `EDGEWEIR_HOSTS` names.
pub fn chosen() -> Vec<Host> {
    let named = std::env::var("EDGEWEIR_HOSTS").unwrap_or_default();
    let wanted: Vec<&str> = named.split(',').filter(|name| !name.is_empty()).collect();
    Host::ALL
        .into_iter()
        .filter(|host| wanted.is_empty() || wanted.contains(&host.name()))
        .collect()
}

/// A host that is up.
#[derive(Clone)]
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it wrote to its log so far can be read here.
    pub log: PathBuf,
    process: Arc<Helper>,
}

impl Running {
    /// Memory of the process that is in use now (`VmRSS`), in bytes.
    pub fn memory(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.process.id());
        let status = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
        let kilobytes: u64 = kilobytes.context("no VmRSS")?.trim().parse()?;
        Ok(kilobytes * 1024)
    }
}

/// A host with these filters: started on first use, shared by all scenarios of the program that ask for the same, gone
/// with the program. `None` when this machine has no such host.
pub fn running(host: Host, setup: &Setup) -> Result<Option<Running>> {
    type Slot = Arc<Mutex<Option<Result<Option<Running>, String>>>>;
    static ALL: OnceLock<Mutex<HashMap<String, Slot>>> = OnceLock::new();
    let key = format!("{}:{}", host.name(), setup.key());
    let slot = {
        let mut all = ALL
            .get_or_init(Mutex::default)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(key).or_default())
    };
    // Held while it starts: others that want the same wait, those that want another do not.
    let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
    let started = slot.get_or_insert_with(|| start(host, setup).map_err(|e| format!("{e:#}")));
    started.clone().map_err(|error| anyhow!(error))
}

/// A host of one's own. `None` when this machine has no such host.
pub fn start(host: Host, setup: &Setup) -> Result<Option<Running>> {
    match host {
        Host::Pure => Ok(None),
        Host::ProxyWasm | Host::WasiHttp => edgeweir::start(host, setup).map(Some),
        Host::Envoy => envoy::start(setup).map(Some),
        Host::Spin => spin::start(setup),
    }
}

/// The modules and components, built once per program and only when something changed.
pub fn modules() -> Result<PathBuf> {
    static BUILT: OnceLock<Result<(), String>> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            let named = std::env::var("EDGEWEIR_BUILD").unwrap_or_default();
            let names: Vec<String> = named
                .split(',')
                .filter(|n| !n.is_empty())
                .map(str::to_owned)
                .collect();
            let built = cargo_edge::build::build(&names, Flavour::Usual, true);
            built.map(drop).map_err(|error| format!("{error:#}"))
        })
        .clone()
        .map_err(|error| anyhow!(error))?;
    Ok(cargo_edge::workspace::edge_dir())
}

/// A folder for one start of a host: its configuration and its log stay for a look after a failure.
pub fn folder(host: Host) -> Result<PathBuf> {
    static COUNT: Mutex<u32> = Mutex::new(0);
    let number = {
        let mut count = COUNT.lock().unwrap_or_else(PoisonError::into_inner);
        *count += 1;
        *count
    };
    let folder = cargo_edge::workspace::target_dir()
        .join("scenarios")
        .join(format!("{}-{number}", host.name()));
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    Ok(folder)
}

/// A log file for a process's two outputs.
pub(crate) fn log(path: &PathBuf) -> Result<(File, File)> {
    let file = File::create(path).with_context(|| format!("making {}", path.display()))?;
    let other = file.try_clone().context("a second handle of a log")?;
    Ok((file, other))
}

/// A port that was free a moment ago.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("looking for a port")?;
    Ok(listener.local_addr()?.port())
}

/// Waits until the process listens; an error with its log when it ends instead.
pub(crate) fn wait_for(
    mut process: Helper,
    address: SocketAddr,
    log: PathBuf,
    patience: Duration,
) -> Result<Running> {
    let until = Instant::now() + patience;
    loop {
        if let Some(status) = process.ended()? {
            bail!("it ended with {status}; its log: {}", tail(&log));
        }
        if TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok() {
            return Ok(Running {
                address,
                log,
                process: Arc::new(process),
            });
        }
        if Instant::now() > until {
            bail!(
                "it does not listen after {patience:?}; its log: {}",
                tail(&log)
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The last lines of a log.
pub fn tail(log: &PathBuf) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
