//! From a file to a component that is compiled, checked and linked.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use edgeweir_host_chain::{Layer, Meter, World};
use edgeweir_host_formats::component::{made_component, own_name};
use wasmtime::Engine;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Linker};
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p3::bindings::ServicePre;

use crate::context::Guest;
use crate::spin::absent::{self, is_absent};
use crate::{Limits, Plugin, Runtime, spin};

const HANDLER: &str = "wasi:http/handler@0.3.0";

/// A plugin ready to be instantiated.
pub(crate) struct Loaded {
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) plugin: Plugin,
    pub(crate) pre: Pre,
    pub(crate) meter: Arc<Meter>,
    pub(crate) world: World,
}

/// A component that is linked, by the version of wasi:http it exports.
#[derive(Clone)]
pub(crate) enum Pre {
    /// 0.3.
    Service(ServicePre<Guest>),
    /// 0.2.
    Proxy(ProxyPre<Guest>),
}

/// A component that is compiled: it can be started any number of times.
#[derive(Clone)]
pub struct Program {
    component: Component,
    linker: Arc<Linker<Guest>>,
    /// As it is given in errors.
    file: String,
    /// It carries its name, as filters of this project do.
    named: bool,
}

impl Program {
    /// Reads, compiles and checks a file.
    ///
    /// # Errors
    /// As those of [`load`](crate::load), but for what is found out by starting it.
    pub fn compile(runtime: &Runtime, file: &Path) -> anyhow::Result<Program> {
        let name = file.display().to_string();
        let bytes = std::fs::read(file).with_context(|| format!("{name}: cannot be read"))?;
        let bytes = made_component(bytes).with_context(|| name.clone())?;
        check_kind(&bytes).with_context(|| name.clone())?;
        let component = Component::new(&runtime.engine, &bytes)
            .map_err(|error| anyhow::anyhow!("{name}: does not compile: {error:#}"))?;
        check_world(runtime, &component).with_context(|| name.clone())?;
        let linker = linker(runtime, &component, &name).with_context(|| name.clone())?;
        Ok(Program {
            component,
            linker,
            file: name,
            named: own_name(&bytes).is_some(),
        })
    }

    /// Whether it carries its name, as filters of this project do.
    pub(crate) fn is_named(&self) -> bool {
        self.named
    }

    /// Links it and starts a first instance in a world; [`load`](crate::load) is this after compiling, in the real one.
    /// Its runtime is the program's or a [`Runtime::fork`] of it.
    ///
    /// # Errors
    /// As those of [`load`](crate::load).
    pub async fn start(
        &self,
        runtime: &Arc<Runtime>,
        plugin: Plugin,
        world: World,
    ) -> anyhow::Result<Arc<dyn Layer>> {
        self.start_metered(runtime, plugin, world, Arc::default())
            .await
    }

    /// [`Program::start`], counting on in a meter there is.
    pub(crate) async fn start_metered(
        &self,
        runtime: &Arc<Runtime>,
        plugin: Plugin,
        world: World,
        meter: Arc<Meter>,
    ) -> anyhow::Result<Arc<dyn Layer>> {
        check_limits(&plugin.name, &plugin.limits)?;
        let pre = self
            .linker
            .instantiate_pre(&self.component)
            .and_then(|pre| match is_proxy(&runtime.engine, &self.component) {
                true => ProxyPre::new(pre).map(Pre::Proxy),
                false => ServicePre::new(pre).map(Pre::Service),
            })
            .map_err(|error| anyhow::anyhow!("{}: cannot be linked: {error:#}", self.file))?;
        let loaded = Loaded {
            runtime: runtime.clone(),
            plugin,
            pre,
            meter,
            world,
        };
        crate::start(Arc::new(loaded)).await
    }
}

/// Component binaries have layer 1 in their header, core modules layer 0.
fn check_kind(bytes: &[u8]) -> anyhow::Result<()> {
    match (bytes.get(..4), bytes.get(6..8)) {
        (Some(b"\0asm"), Some([1, 0])) => Ok(()),
        (Some(b"\0asm"), Some([0, 0])) => {
            bail!("a core Wasm module, not a component; proxy-wasm modules are run as such")
        }
        (Some(b"\0asm"), _) => bail!("Wasm of an unknown kind"),
        _ => bail!("not Wasm: the first four bytes are not `\\0asm`"),
    }
}

fn check_world(runtime: &Runtime, component: &Component) -> anyhow::Result<()> {
    let engine = &runtime.engine;
    let ty = component.component_type();
    let exports: Vec<String> = ty
        .exports(engine)
        .map(|(name, _)| name.to_owned())
        .collect();
    if let Some(found) = exports.iter().find(|name| {
        name.starts_with("wasi:http/handler@") || name.starts_with("wasi:http/incoming-handler@")
    }) {
        ensure!(
            is_0_3(found) || is_0_2(found),
            "exports `{found}`: another version of wasi:http; this host runs `{HANDLER}` and 0.2's incoming-handler"
        );
    } else {
        bail!("exports no `{HANDLER}`; it exports: {}", list(&exports));
    }
    for (name, _) in ty.imports(engine) {
        ensure!(
            !name.starts_with("wasi:http/") || is_0_3(name) || is_0_2(name),
            "imports `{name}`: another version of wasi:http; this host offers 0.3.0 and 0.2"
        );
    }
    Ok(())
}

/// What links a component: where it may lack something, a linker of its own, in which a call of that is a trap.
fn linker(
    runtime: &Runtime,
    component: &Component,
    name: &str,
) -> anyhow::Result<Arc<Linker<Guest>>> {
    // Judged only when linking fails: the linker knows best.
    if runtime.linker.instantiate_pre(component).is_ok() {
        return Ok(runtime.linker.clone());
    }
    let world = component.component_type();
    let imports = world.imports(&runtime.engine);
    let missing = imports.filter(|(name, _)| !is_offered(name));
    let (absent, missing): (Vec<_>, Vec<_>) = missing.partition(|(name, _)| is_absent(name));
    let names = |imports: &[(&str, _)]| {
        let names = imports
            .iter()
            .map(|(name, _): &(&str, _)| (*name).to_owned());
        list(&names.collect::<Vec<_>>())
    };
    // All that are missing are named, not the first alone.
    ensure!(
        missing.is_empty(),
        "imports what this host does not offer: {}",
        names(&missing)
    );
    if absent.is_empty() {
        return Ok(runtime.linker.clone());
    }
    tracing::warn!(
        "{name}: a call of what this host does not offer is a trap: {}",
        names(&absent)
    );
    let mut linker = Linker::clone(&runtime.linker);
    for (name, import) in absent {
        if let ComponentItem::ComponentInstance(instance) = import.ty {
            absent::add_to_linker(&mut linker, &runtime.engine, name, &instance)?;
        }
    }
    Ok(Arc::new(linker))
}

/// 0.3.0 and the patches after it share one type; release candidates do not.
fn is_0_3(name: &str) -> bool {
    name.split_once('@').is_some_and(|(_, version)| {
        version
            .strip_prefix("0.3.")
            .is_some_and(|patch| !patch.is_empty() && patch.bytes().all(|b| b.is_ascii_digit()))
    })
}

/// 0.2.0 and the patches after it.
fn is_0_2(name: &str) -> bool {
    name.split_once('@').is_some_and(|(_, version)| {
        version
            .strip_prefix("0.2.")
            .is_some_and(|patch| !patch.is_empty() && patch.bytes().all(|b| b.is_ascii_digit()))
    })
}

/// Whether a component is a proxy of the old kind.
fn is_proxy(engine: &Engine, component: &Component) -> bool {
    let ty = component.component_type();
    ty.exports(engine)
        .any(|(name, _)| name.starts_with("wasi:http/incoming-handler@") && is_0_2(name))
}

fn is_offered(name: &str) -> bool {
    [
        "wasi:cli/",
        "wasi:clocks/",
        "wasi:random/",
        "wasi:io/",
        "wasi:filesystem/",
        "wasi:sockets/",
    ]
    .iter()
    .any(|prefix| name.starts_with(prefix))
        || name.starts_with("wasi:http/")
        || spin::OFFERED
            .iter()
            .any(|offered| name.starts_with(offered))
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        return "nothing".into();
    }
    names
        .iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

fn check_limits(name: &str, limits: &Limits) -> anyhow::Result<()> {
    let at_least = |field: &str, value: usize, bound: usize| {
        ensure!(
            value >= bound,
            "plugin `{name}`: limit `{field}` is {value}, at least {bound}"
        );
        Ok(())
    };
    at_least("memory_bytes", limits.memory_bytes, 1 << 20)?;
    at_least("headers", limits.headers, crate::LEAST_HEADERS as usize)?;
    at_least("header_bytes", limits.header_bytes, 1024)?;
    at_least("instances", limits.instances, 1)?;
    at_least("concurrent", limits.concurrent, 1)?;
    at_least("requests", limits.requests, 1)?;
    // `http::HeaderMap` panics beyond 32,768 fields.
    ensure!(
        limits.headers <= 20_000,
        "plugin `{name}`: limit `headers` is {}, at most 20000",
        limits.headers
    );
    ensure!(
        limits.deadline >= crate::runtime::TICK,
        "plugin `{name}`: limit `deadline` is {:?}, at least {:?}",
        limits.deadline,
        crate::runtime::TICK
    );
    ensure!(
        !limits.timeout.is_zero(),
        "plugin `{name}`: limit `timeout` is 0, at least 1 ms"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_apart_by_their_header() {
        for (name, bytes, want) in [
            ("component", &b"\0asm\x0d\0\x01\0"[..], None),
            ("core module", b"\0asm\x01\0\0\0", Some("core Wasm module")),
            ("text", b"(component)", Some("not Wasm")),
            ("empty", b"", Some("not Wasm")),
            ("cut", b"\0asm\x0d", Some("unknown kind")),
        ] {
            let got = check_kind(bytes).err().map(|error| error.to_string());
            match want {
                None => assert_eq!(got, None, "{name}"),
                Some(want) => assert!(
                    got.as_ref().is_some_and(|got| got.contains(want)),
                    "{name}: {got:?}"
                ),
            }
        }
    }

    #[test]
    fn only_final_0_3_versions_pass() {
        for (name, want) in [
            ("wasi:http/handler@0.3.0", true),
            ("wasi:http/handler@0.3.2", true),
            ("wasi:http/handler@0.3.0-rc-2025-09-16", false),
            ("wasi:http/incoming-handler@0.2.6", false),
            ("wasi:http/handler", false),
        ] {
            assert_eq!(is_0_3(name), want, "{name}");
        }
    }
}
