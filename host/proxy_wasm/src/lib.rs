//! A proxy-wasm host for HTTP filters on wasmtime: ABI 0.1.0, 0.2.0 and 0.2.1.
//!
//! A [`Plugin`] is loaded by [`load`] into a [`Layer`] of the host's chain. It runs in a pool of virtual machines, each
//! with a root context and any number of streams that share its linear memory, as in Envoy. A callback has exclusive
//! use of its machine; streams that wait for a callout or for the plugin hold nothing.
//!
//! A callback that traps, spins beyond its deadline, or exceeds its memory or stack takes its machine down: the streams
//! on it are answered or pass on as [`OnTrap`] says, and the next request starts a fresh machine.
#![forbid(unsafe_code)]

mod body;
mod callout;
mod checks;
mod deadline;
mod exchange;
mod exports;
mod fields;
mod host;
mod imports;
mod joined;
mod layer;
mod plugin;
mod runtime;
mod shared;
mod status;
mod stream;
mod vm;
mod wire;
mod worker;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use edgeweir_host_chain::{Layer, Meter, World};
use wasmtime::{Engine, Linker, Module, Store};

use crate::deadline::Slow;
use crate::exports::Abi;
use crate::host::Host;
use crate::layer::{Over, ProxyWasm};
use crate::plugin::Common;
use crate::shared::Metrics;
use crate::worker::Worker;

pub use plugin::{Limits, Notes, OnTrap, Plugin, Properties, Route};
pub use runtime::{Runtime, RuntimeOptions};

/// The most instances of one plugin.
pub const INSTANCES: u64 = 1_024;

/// Loads a plugin and starts its instances. Must be called inside a tokio runtime.
///
/// Errors name the file and say why: not readable, not Wasm, a component, no or an unknown ABI version, imports this
/// host does not have (all of them), a trap at start, a configuration refused, with what the plugin logged about it.
pub async fn load(runtime: &Arc<Runtime>, plugin: Plugin) -> anyhow::Result<Arc<dyn Layer>> {
    load_metered(runtime, plugin, Arc::default()).await
}

/// [`load`], counting on in a meter there is: that of the plugin whose place this one takes.
pub async fn load_metered(
    runtime: &Arc<Runtime>,
    plugin: Plugin,
    meter: Arc<Meter>,
) -> anyhow::Result<Arc<dyn Layer>> {
    let says = format!("plugin {}: {}", plugin.name, plugin.module.display());
    let runtime = Arc::clone(runtime);
    // Compiling takes seconds, and a module may spin while it starts: neither holds up what is being served.
    let handle = tokio::runtime::Handle::current();
    let loading = tokio::task::spawn_blocking(move || {
        let _inside = handle.enter();
        plugin.limits.check()?;
        let program = Program::compile(&runtime, &plugin.module, &plugin.limits)?;
        prepare(&runtime, plugin, &program, World::default(), meter)
    });
    let layer = loading
        .await
        .context("loading was cut short")?
        .context(says)?;
    Ok(Arc::new(layer))
}

/// A module that is compiled: it can be started any number of times.
#[derive(Clone)]
pub struct Program {
    engine: Engine,
    module: Module,
    abi: Abi,
    /// As it is given in errors.
    file: std::path::PathBuf,
}

impl Program {
    /// Reads and compiles a file for the stack of these limits, and for their deadline or none.
    pub fn compile(
        runtime: &Runtime,
        file: &std::path::Path,
        limits: &Limits,
    ) -> anyhow::Result<Program> {
        let bytes = std::fs::read(file).context("cannot be read")?;
        match bytes.get(..8) {
            Some(b"\0asm\x01\0\0\0") => {}
            Some([0, b'a', b's', b'm', ..]) => bail!("it is a component, not a proxy-wasm module"),
            _ => bail!("it is not Wasm: it does not begin with the bytes 00 61 73 6d"),
        }
        let engine = runtime.engine(limits)?;
        let checked = if runtime.inserts_checks(limits) {
            // What cannot be read the compiler refuses, and says what is wrong with it.
            let checked = checks::insert(&bytes);
            if checked.is_err() {
                Module::validate(&engine, &bytes)
                    .map_err(anyhow::Error::from)
                    .context("it is not valid Wasm")?;
            }
            checked?
        } else {
            bytes
        };
        let module = Module::from_binary(&engine, &checked)
            .map_err(anyhow::Error::from)
            .context("it is not valid Wasm")?;
        let abi = Abi::of(&module)?;
        Ok(Program {
            engine,
            module,
            abi,
            file: file.to_owned(),
        })
    }

    /// Starts a plugin's instances in a world; [`load`] is this after compiling, in the real one. Its runtime is the
    /// program's or a [`Runtime::fork`] of it. Must be called inside a tokio runtime, and does not yield.
    pub fn start(
        &self,
        runtime: &Arc<Runtime>,
        plugin: Plugin,
        world: World,
    ) -> anyhow::Result<Arc<dyn Layer>> {
        let says = format!("plugin {}: {}", plugin.name, self.file.display());
        plugin.limits.check()?;
        Ok(Arc::new(
            prepare(runtime, plugin, self, world, Arc::default()).context(says)?,
        ))
    }
}

fn prepare(
    runtime: &Arc<Runtime>,
    plugin: Plugin,
    program: &Program,
    world: World,
    meter: Arc<Meter>,
) -> anyhow::Result<ProxyWasm> {
    let instances = plugin.instances;
    ensure!(
        (1..=INSTANCES).contains(&(instances as u64)),
        "instances is {instances}, want 1 to {INSTANCES}"
    );
    for (cluster, address) in &plugin.clusters {
        let valid = address
            .parse::<http::uri::Authority>()
            .is_ok_and(|authority| authority.port().is_some());
        ensure!(valid, "clusters.{cluster} is {address:?}, want host:port");
    }
    let Program {
        engine,
        module,
        abi,
        ..
    } = program;
    let abi = *abi;
    let mut linker = Linker::<Host>::new(engine);
    let calls = imports::link(&mut linker, module, abi)?;
    let common = Arc::new(Common {
        data: runtime.shared.data(&plugin.vm_id),
        name: plugin.name,
        abi,
        root_id: plugin.root_id,
        allow_on_headers_stop_iteration: plugin.allow_on_headers_stop_iteration,
        vm_id: plugin.vm_id,
        configuration: Bytes::from(plugin.configuration),
        vm_configuration: Bytes::from(plugin.vm_configuration),
        environment: plugin
            .environment
            .iter()
            .map(|(name, value)| format!("{name}={value}\0").into_bytes())
            .collect(),
        limits: plugin.limits,
        on_trap: plugin.on_trap,
        clusters: plugin.clusters,
        meter,
        runtime: Arc::clone(runtime),
        metrics: Metrics::default(),
        slow: Slow::default(),
        client: runtime.client(),
        world,
        calls,
    });
    let mut probe = Store::new(
        engine,
        Host::new(Arc::clone(&common), std::sync::Weak::new(), 0),
    );
    imports::check(&linker, module, &mut probe)?;
    let pre = linker
        .instantiate_pre(module)
        .map_err(anyhow::Error::from)
        .context("it cannot be linked")?;
    let legacy = abi == Abi::V0_1_0;
    let workers = (0..instances)
        .map(|_| Worker::start(&common, &pre, legacy))
        .collect::<Result<Vec<_>, _>>()?;
    let has = |name: &str| module.get_export(name).is_some();
    let over = Over {
        request: (
            has("proxy_on_request_body"),
            has("proxy_on_request_trailers"),
        ),
        response: (
            has("proxy_on_response_body"),
            has("proxy_on_response_trailers"),
        ),
    };
    Ok(ProxyWasm {
        common,
        workers,
        over,
        turn: AtomicUsize::new(0),
    })
}
