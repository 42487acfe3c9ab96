//! A `wasmtime serve` with the same components, composed into one as it takes them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use edgeweir_host_formats::component::{configuration_variable, is_component};
use edgeweir_host_package::{Part, compose};
use toml::{Table, Value};

use crate::edge::{Edge, settings, text};
use crate::envoy::program;

/// Wasmtime's program: `EDGEWEIR_WASMTIME`, else `wasmtime` of the PATH.
pub fn find() -> Result<PathBuf> {
    program("EDGEWEIR_WASMTIME", "wasmtime")?.context(
        "no wasmtime found: name one with EDGEWEIR_WASMTIME, or put one on the PATH \
         (`cargo install wasmtime-cli` makes one)",
    )
}

/// What a `wasmtime serve` is given.
#[derive(Debug)]
pub(crate) struct Served {
    /// The component.
    pub wasm: Vec<u8>,
    /// Its environment, which all its parts see.
    pub environment: BTreeMap<String, String>,
}

/// The components of a listener (the first when none is named) as one, outermost first.
///
/// There is no upstream in `wasmtime serve`: the last of them has to answer by itself or ask for itself, as the gateway does.
pub(crate) fn composed(edge: &Edge, listener: Option<&str>) -> Result<Served> {
    without_routes(edge, listener)?;
    let mut parts = Vec::new();
    let mut environment = BTreeMap::new();
    for name in edge.filters_of(listener)? {
        let filter = edge.named("filter", &name)?;
        let file =
            text(filter, "module").with_context(|| format!("[filter.{name}] has no module"))?;
        let file = edge.resolve(Path::new(&file));
        let wasm = std::fs::read(&file)
            .with_context(|| format!("[filter.{name}]: {} cannot be read", file.display()))?;
        if !is_component(&wasm) {
            bail!(
                "[filter.{name}] is {}, a proxy-wasm module; wasmtime serve runs components only",
                file.display()
            );
        }
        let file_name = file.file_name().unwrap_or_default().to_string_lossy();
        if let Some(json) = settings(filter)? {
            environment.insert(configuration_variable(&wasm, &file_name), json);
        }
        environment.extend(variables(filter));
        parts.push(Part { name, wasm });
    }
    let Some(last) = parts.pop() else {
        bail!(
            "{} has no filters: wasmtime serve needs a component",
            edge.file().display()
        );
    };
    Ok(Served {
        wasm: compose(&parts, &last)?,
        environment,
    })
}

/// Refuses a listener with routes.
pub(crate) fn without_routes(edge: &Edge, listener: Option<&str>) -> Result<()> {
    let table = edge.listener(listener)?;
    if table.contains_key("route") {
        bail!(
            "{}: listener \"{}\" has routes; wasmtime serve has none, it gives every request to one component",
            edge.file().display(),
            text(table, "name").unwrap_or_default()
        );
    }
    Ok(())
}

fn variables(filter: &Table) -> impl Iterator<Item = (String, String)> {
    let given = filter.get("environment").and_then(Value::as_table);
    given.into_iter().flatten().filter_map(|(name, value)| {
        let value = value.as_str()?;
        Some((name.clone(), value.to_owned()))
    })
}

/// The address in what `wasmtime serve` says when it listens.
pub(crate) fn address_in(said: &str) -> Option<std::net::SocketAddr> {
    let (_, rest) = said.split_once("Serving HTTP on http://")?;
    let (address, _) = rest.split_once('/')?;
    address.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_refused_by_name() {
        let file = tempfile::Builder::new()
            .prefix("cache")
            .suffix(".wasm")
            .tempfile()
            .expect("a file");
        std::fs::write(file.path(), b"\0asm\x01\0\0\0").expect("written");
        let edge = Edge::of_module(file.path(), None).expect("an edge");
        let error = composed(&edge, None).expect_err("a module");
        assert!(
            error.to_string().contains("runs components only"),
            "{error}"
        );
    }

    #[test]
    fn routes_are_refused() {
        let file = tempfile::NamedTempFile::with_suffix(".toml").expect("a file");
        let text = "[[listener]]\nname = \"main\"\nlisten = \"127.0.0.1:0\"\n[[listener.route]]\nrespond = { status = 200 }\n";
        std::fs::write(file.path(), text).expect("written");
        let edge = Edge::read(file.path()).expect("an edge");
        let error = composed(&edge, None).expect_err("routes").to_string();
        assert!(error.contains("listener \"main\" has routes"), "{error}");
    }

    #[test]
    fn the_address_is_in_what_it_says() {
        let said = "warning: x\nServing HTTP on http://127.0.0.1:4711/\n";
        assert_eq!(address_in(said), Some(([127, 0, 0, 1], 4711).into()));
        assert_eq!(address_in("Serving HTTP on http://127.0.0.1:47"), None);
    }
}
