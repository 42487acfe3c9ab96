//! What a module offers: its ABI version, its callbacks, its allocator.

use std::fmt;

use anyhow::{Context as _, anyhow, bail};
use wasmtime::{ExternType, Instance, Module, Store, TypedFunc, WasmParams, WasmResults};

use crate::host::Host;

/// The version of the ABI a module is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Abi {
    V0_1_0,
    V0_2_0,
    V0_2_1,
}

impl Abi {
    /// Reads the version from the module's marker export.
    pub(crate) fn of(module: &Module) -> anyhow::Result<Abi> {
        let mut unknown = None;
        for export in module
            .exports()
            .filter(|export| matches!(export.ty(), ExternType::Func(_)))
        {
            match export.name() {
                "proxy_abi_version_0_1_0" => return Ok(Abi::V0_1_0),
                "proxy_abi_version_0_2_0" => return Ok(Abi::V0_2_0),
                "proxy_abi_version_0_2_1" => return Ok(Abi::V0_2_1),
                other if other.starts_with("proxy_abi_version") => unknown = Some(other.to_owned()),
                _ => {}
            }
        }
        match unknown {
            Some(name) => {
                bail!("it exports {name}; this host runs proxy-wasm 0.1.0, 0.2.0 and 0.2.1")
            }
            None => bail!(
                "it is no proxy-wasm module: it exports no proxy_abi_version_0_1_0, _0_2_0 or _0_2_1"
            ),
        }
    }
}

/// A headers callback; ABI 0.1.0 does not say whether the stream ends.
#[derive(Clone)]
pub(crate) enum OnHeaders {
    Short(TypedFunc<(u32, u32), u32>),
    Full(TypedFunc<(u32, u32, u32), u32>),
}

/// Context, token, and how many headers, body bytes and trailers the answer has.
pub(crate) type OnAnswer = TypedFunc<(u32, u32, u32, u32, u32), ()>;

/// The callbacks a module has; a missing one is skipped.
pub(crate) struct Exports {
    pub(crate) context_create: Option<TypedFunc<(u32, u32), ()>>,
    pub(crate) vm_start: Option<TypedFunc<(u32, u32), u32>>,
    pub(crate) configure: Option<TypedFunc<(u32, u32), u32>>,
    pub(crate) tick: Option<TypedFunc<u32, ()>>,
    pub(crate) queue_ready: Option<TypedFunc<(u32, u32), ()>>,
    pub(crate) request_headers: Option<OnHeaders>,
    pub(crate) request_body: Option<TypedFunc<(u32, u32, u32), u32>>,
    pub(crate) request_trailers: Option<TypedFunc<(u32, u32), u32>>,
    pub(crate) response_headers: Option<OnHeaders>,
    pub(crate) response_body: Option<TypedFunc<(u32, u32, u32), u32>>,
    pub(crate) response_trailers: Option<TypedFunc<(u32, u32), u32>>,
    pub(crate) http_call_response: Option<OnAnswer>,
    pub(crate) done: Option<TypedFunc<u32, u32>>,
    pub(crate) log: Option<TypedFunc<u32, ()>>,
    pub(crate) delete: Option<TypedFunc<u32, ()>>,
}

impl Exports {
    /// Finds the callbacks; one with another signature than the ABI's is an error.
    pub(crate) fn of(instance: &Instance, store: &mut Store<Host>) -> anyhow::Result<Self> {
        Ok(Self {
            context_create: typed(instance, store, "proxy_on_context_create")?,
            vm_start: typed(instance, store, "proxy_on_vm_start")?,
            configure: typed(instance, store, "proxy_on_configure")?,
            tick: typed(instance, store, "proxy_on_tick")?,
            queue_ready: typed(instance, store, "proxy_on_queue_ready")?,
            request_headers: headers(instance, store, "proxy_on_request_headers")?,
            request_body: typed(instance, store, "proxy_on_request_body")?,
            request_trailers: typed(instance, store, "proxy_on_request_trailers")?,
            response_headers: headers(instance, store, "proxy_on_response_headers")?,
            response_body: typed(instance, store, "proxy_on_response_body")?,
            response_trailers: typed(instance, store, "proxy_on_response_trailers")?,
            http_call_response: typed(instance, store, "proxy_on_http_call_response")?,
            done: typed(instance, store, "proxy_on_done")?,
            log: typed(instance, store, "proxy_on_log")?,
            delete: typed(instance, store, "proxy_on_delete")?,
        })
    }
}

/// A callback with its arguments, in Envoy's form: `proxy_on_request_headers(2, 4, 1)`.
pub(crate) struct Called<'p, P>(pub(crate) &'static str, pub(crate) &'p P);

impl<P: fmt::Debug> fmt::Display for Called<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arguments = format!("{:?}", self.1);
        // A tuple brings its parentheses, a number alone does not.
        if arguments.starts_with('(') {
            write!(f, "{}{arguments}", self.0)
        } else {
            write!(f, "{}({arguments})", self.0)
        }
    }
}

/// Finds one exported function.
pub(crate) fn typed<P: WasmParams, R: WasmResults>(
    instance: &Instance,
    store: &mut Store<Host>,
    name: &str,
) -> anyhow::Result<Option<TypedFunc<P, R>>> {
    let Some(func) = instance.get_func(&mut *store, name) else {
        return Ok(None);
    };
    let typed = func.typed::<P, R>(&*store).map_err(anyhow::Error::from);
    typed
        .with_context(|| format!("its export {name} has another signature than the ABI's"))
        .map(Some)
}

fn headers(
    instance: &Instance,
    store: &mut Store<Host>,
    name: &str,
) -> anyhow::Result<Option<OnHeaders>> {
    let Some(func) = instance.get_func(&mut *store, name) else {
        return Ok(None);
    };
    if let Ok(full) = func.typed(&*store) {
        return Ok(Some(OnHeaders::Full(full)));
    }
    match func.typed(&*store) {
        Ok(short) => Ok(Some(OnHeaders::Short(short))),
        Err(_) => Err(anyhow!(
            "its export {name} has another signature than the ABI's"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callback_is_written_as_envoy_writes_it() {
        for (shown, want) in [
            (Called("_initialize", &()).to_string(), "_initialize()"),
            (
                Called("proxy_on_log", &3_u32).to_string(),
                "proxy_on_log(3)",
            ),
            (
                Called("proxy_on_request_headers", &(4_u32, 10_u32, 0_u32)).to_string(),
                "proxy_on_request_headers(4, 10, 0)",
            ),
        ] {
            assert_eq!(shown, want);
        }
    }
}
