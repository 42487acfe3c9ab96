//! Runs wasi:http 0.3.0 components as layers of a chain: middleware whose open `wasi:http/handler` import
//! is the next layer, and terminal handlers that answer or call out themselves; and proxies of wasi:http 0.2.
//!
//! One store per instance, many requests in one instance at once, instances kept between requests, so that
//! what a filter remembers in its memory survives. A trap costs the requests in that instance, not the host.
#![forbid(unsafe_code)]

mod body;
mod client;
mod component;
mod context;
mod databases;
mod exchange;
mod handler;
mod hooks;
mod instance;
mod layer;
mod outgoing;
mod output;
mod pool;
mod probe;
mod proxy;
mod quiet;
mod runtime;
mod spin;
mod stores;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use edgeweir_host_chain::{Layer, Meter, World};
use tempfile::TempDir;

pub use component::Program;
pub use edgeweir_host_formats::outbound::Outbound;
pub use exchange::RouteFields;
pub use probe::Refused;
pub use runtime::{Runtime, RuntimeOptions, Unopened};
pub use spin::absent::is_absent;
pub use stores::Kept;

/// The least of [`Limits::headers`].
pub const LEAST_HEADERS: u64 = 16;
/// The least of [`Limits::deadline`], milliseconds: how exactly it is kept.
pub const LEAST_DEADLINE_MS: u64 = 10;

/// What a plugin may use, at most.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Linear memory of one instance in all, bytes. Growth beyond it fails in the guest.
    pub memory_bytes: usize,
    /// How long a guest may compute without yielding. Checked every 10 ms; beyond it the guest traps.
    pub deadline: Duration,
    /// Field lines of a request or response head; more are answered with 431, or are an error of the next layer.
    pub headers: usize,
    /// Bytes of names and values of a head.
    pub header_bytes: usize,
    /// Live instances. Requests beyond `instances` × `concurrent` wait.
    pub instances: usize,
    /// Requests one instance handles at once, counted until its response head.
    pub concurrent: usize,
    /// Requests an instance handles before it is replaced.
    pub requests: usize,
    /// The longest nothing comes of the guest while it waits for nothing outside of it: to its response's head, and between
    /// pieces of a body. So long tasks of an instance that is replaced may take.
    pub timeout: Duration,
    /// The longest it may wait for the next layer's head, for a piece of its body or of the client's.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 256 << 20,
            deadline: Duration::from_secs(1),
            headers: 1000,
            header_bytes: 256 << 10,
            instances: 8,
            concurrent: 16,
            requests: 10_000,
            timeout: Duration::from_secs(60),
            idle: Duration::from_secs(3600),
        }
    }
}

/// What the client sees when the guest traps before its response head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTrap {
    /// 500.
    Respond,
    /// The next layer's response, when the request can still be sent on: its body was not read, and it has not
    /// been sent on yet or has a safe method (RFC 9110 §9.2.1). 500 otherwise.
    PassThrough,
}

/// A component and how to run it.
#[derive(Clone, Debug)]
pub struct Plugin {
    /// Its name in logs and metrics.
    pub name: String,
    /// The `.wasm` file.
    pub component: PathBuf,
    /// What `wasi:cli/environment` returns; the plugin's configuration among it.
    pub environment: BTreeMap<String, String>,
    /// What `spin:variables` returns.
    pub variables: BTreeMap<String, String>,
    /// What it may use.
    pub limits: Limits,
    /// What a trap means for the client.
    pub on_trap: OnTrap,
    /// Whom `wasi:http/client` and `spin:redis` may reach; empty means none.
    pub allowed_outbound: Vec<Outbound>,
    /// Labels of the stores `spin:key-value` may open; `None` means all there are.
    pub stores: Option<Vec<String>>,
    /// Labels of the databases `spin:sqlite` may open.
    pub databases: Vec<String>,
    /// The folder it sees as `/` and may read, if any.
    pub files: Option<Arc<TempDir>>,
}

/// Compiles a component, links it and starts a first instance.
///
/// # Errors
/// Names the file and what is wrong with it: unreadable, not Wasm, a core module, no `wasi:http/handler@0.3.0`
/// export, another version of wasi:http, an import this host does not offer, a limit out of bounds, an
/// instance that does not start; of a filter of this project also a [`Refused`] configuration.
pub async fn load(runtime: &Arc<Runtime>, plugin: Plugin) -> anyhow::Result<Arc<dyn Layer>> {
    load_metered(runtime, plugin, Arc::default()).await
}

/// [`load`], counting on in a meter there is: that of the plugin whose place this one takes.
///
/// # Errors
/// Those of [`load`].
pub async fn load_metered(
    runtime: &Arc<Runtime>,
    plugin: Plugin,
    meter: Arc<Meter>,
) -> anyhow::Result<Arc<dyn Layer>> {
    let (compiler, file) = (Arc::clone(runtime), plugin.component.clone());
    // Compiling takes seconds: it holds up neither what is being served nor a signal to stop.
    let program = tokio::task::spawn_blocking(move || Program::compile(&compiler, &file))
        .await
        .context("loading was cut short")??;
    if program.is_named() {
        probe::ask(&program, runtime, &plugin).await?;
    }
    program
        .start_metered(runtime, plugin, World::default(), meter)
        .await
}

async fn start(loaded: Arc<component::Loaded>) -> anyhow::Result<Arc<dyn Layer>> {
    let file = loaded.plugin.component.display().to_string();
    let refused = |error: wasmtime::Error| {
        anyhow::anyhow!("{file}: no instance could be started: {}", told(&error))
    };
    match loaded.pre.clone() {
        component::Pre::Service(service) => {
            let first = instance::instantiate(&loaded, &service).await;
            let first = first.map_err(refused)?;
            Ok(Arc::new(layer::Component::new(loaded, first, service)))
        }
        component::Pre::Proxy(pre) => {
            let proxy = proxy::Proxy::new(loaded, pre).await;
            Ok(Arc::new(proxy.map_err(refused)?))
        }
    }
}

/// An error without the guest's stack: it is for who wrote the guest, and many lines long.
fn told(error: &wasmtime::Error) -> String {
    let causes = error.chain().map(ToString::to_string);
    let causes: Vec<String> = causes
        .filter(|cause| !cause.contains("wasm backtrace:"))
        .collect();
    causes.join(": ")
}

#[cfg(test)]
mod tests {
    use wasmtime::format_err;

    use super::told;

    #[test]
    fn a_trap_at_start_is_told_without_stacks() {
        let trap = format_err!("wasm trap: `unreachable`");
        let trap = trap.context("error while executing at wasm backtrace:\n    0: 0x1c - a!start");
        assert_eq!(told(&trap), "wasm trap: `unreachable`");
    }
}
