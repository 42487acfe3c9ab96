//! Every host function of the proxy-wasm ABI 0.1.0, 0.2.0 and 0.2.1, and the WASI functions modules import beside them.

mod buffers;
mod callout;
mod foreign;
mod headers;
mod log;
mod property;
mod shared;
mod stream;
mod wasi;

use anyhow::{Context as _, bail};
use wasmtime::{Caller, ExternType, Linker, Module};

use crate::exports::Abi;
use crate::host::Host;
use crate::status::answer;

pub(crate) use wasi::ProcExit;

/// Links functions that answer with a status; each is counted under its name.
macro_rules! link {
    ($linker:expr, $calls:expr, $($name:literal => $path:path [$($arg:ident: $ty:ty),*];)*) => { $(
        let call = $calls.len();
        $calls.push($name);
        $linker.func_wrap("env", $name, move |mut caller: Caller<'_, Host>, $($arg: $ty),*| -> wasmtime::Result<u32> {
            let host = caller.data_mut();
            host.count(call);
            if let Some(status) = host.common.world.fault($name) {
                return Ok(status);
            }
            answer($path(&mut caller, $($arg),*))
        })?;
    )* };
}

/// What a module may import, and the names of the functions by their index in the counts.
pub(crate) fn link(
    linker: &mut Linker<Host>,
    module: &Module,
    abi: Abi,
) -> anyhow::Result<Vec<&'static str>> {
    let mut calls = Vec::new();
    link_proxy(linker, &mut calls, module, abi)
        .map_err(anyhow::Error::from)
        .context("the host functions")?;
    wasi::link(linker, module, &mut calls)
        .map_err(anyhow::Error::from)
        .context("the WASI functions")?;
    // Emscripten tells its host of memory that grew; there is nothing to do.
    linker.func_wrap("env", "emscripten_notify_memory_growth", |_memory: u32| {})?;
    // AssemblyScript's runtime: where an assertion failed (file and message are texts of its own), and a seed.
    linker.func_wrap(
        "env",
        "abort",
        |_message: u32, _file: u32, line: u32, column: u32| -> wasmtime::Result<()> {
            Err(wasmtime::format_err!(
                "the module called abort at {line}:{column}"
            ))
        },
    )?;
    linker.func_wrap("env", "seed", || {
        getrandom::u64().map_or(0.5, |bits| (bits >> 11) as f64 / (1_u64 << 53) as f64)
    })?;
    Ok(calls)
}

/// Refuses a module that imports what the host does not have, with the whole list.
pub(crate) fn check(
    linker: &Linker<Host>,
    module: &Module,
    store: &mut wasmtime::Store<Host>,
) -> anyhow::Result<()> {
    let mut missing = Vec::new();
    for import in module.imports() {
        let (from, name) = (import.module(), import.name());
        let wanted = match import.ty() {
            ExternType::Func(wanted) => wanted,
            _ => {
                missing.push(format!("{from}.{name} (not a function)"));
                continue;
            }
        };
        match linker
            .get(&mut *store, from, name)
            .ok()
            .and_then(|found| found.into_func())
        {
            None => missing.push(format!("{from}.{name}")),
            Some(found) if !found.ty(&*store).matches(&wanted) => {
                missing.push(format!(
                    "{from}.{name} (as {wanted}, which is not its signature)"
                ));
            }
            Some(_) => {}
        }
    }
    if !missing.is_empty() {
        bail!(
            "it imports what this host does not have: {}",
            missing.join(", ")
        );
    }
    Ok(())
}

fn link_proxy(
    linker: &mut Linker<Host>,
    calls: &mut Vec<&'static str>,
    module: &Module,
    abi: Abi,
) -> wasmtime::Result<()> {
    link! { linker, calls,
        "proxy_log" => log::log[level: u32, message: u32, size: u32];
        "proxy_get_log_level" => log::level[at: u32];
        "proxy_get_current_time_nanoseconds" => log::now[at: u32];
        "proxy_set_tick_period_milliseconds" => stream::set_tick_period[period: u32];
        "proxy_set_effective_context" => stream::set_effective_context[context: u32];
        "proxy_done" => stream::done[];
        "proxy_get_property" => property::get[path: u32, path_size: u32, at: u32, size_at: u32];
        "proxy_set_property" => property::set[path: u32, path_size: u32, value: u32, value_size: u32];
        "proxy_get_buffer_bytes" => buffers::get[kind: u32, start: u32, most: u32, at: u32, size_at: u32];
        "proxy_set_buffer_bytes" => buffers::set[kind: u32, start: u32, size: u32, data: u32, data_size: u32];
        "proxy_get_buffer_status" => buffers::status[kind: u32, size_at: u32, flags_at: u32];
        "proxy_get_header_map_size" => headers::size[kind: u32, at: u32];
        "proxy_get_header_map_pairs" => headers::pairs[kind: u32, at: u32, size_at: u32];
        "proxy_set_header_map_pairs" => headers::set_pairs[kind: u32, data: u32, size: u32];
        "proxy_get_header_map_value" => headers::get[kind: u32, key: u32, key_size: u32, at: u32, size_at: u32];
        "proxy_add_header_map_value" => headers::add[kind: u32, key: u32, key_size: u32, value: u32, size: u32];
        "proxy_replace_header_map_value" => headers::replace[kind: u32, key: u32, key_size: u32, value: u32, size: u32];
        "proxy_remove_header_map_value" => headers::remove[kind: u32, key: u32, key_size: u32];
        "proxy_continue_stream" => stream::continue_stream[kind: u32];
        "proxy_close_stream" => stream::close_stream[kind: u32];
        "proxy_send_local_response" => stream::send_local_response[status: u32, details: u32, details_size: u32,
            body: u32, body_size: u32, headers: u32, headers_size: u32, grpc_status: i32];
        "proxy_http_call" => callout::http_call[upstream: u32, upstream_size: u32, headers: u32, headers_size: u32,
            body: u32, body_size: u32, trailers: u32, trailers_size: u32, timeout: u32, token_at: u32];
        "proxy_grpc_send" => callout::grpc_send[token: u32, data: u32, size: u32, end: u32];
        "proxy_grpc_cancel" => callout::grpc_token[token: u32];
        "proxy_grpc_close" => callout::grpc_token[token: u32];
        "proxy_get_status" => callout::get_status[code_at: u32, at: u32, size_at: u32];
        "proxy_get_shared_data" => shared::get[key: u32, key_size: u32, at: u32, size_at: u32, cas_at: u32];
        "proxy_set_shared_data" => shared::set[key: u32, key_size: u32, value: u32, size: u32, cas: u32];
        "proxy_register_shared_queue" => shared::register[name: u32, name_size: u32, at: u32];
        "proxy_resolve_shared_queue" => shared::resolve[vm: u32, vm_size: u32, name: u32, name_size: u32, at: u32];
        "proxy_dequeue_shared_queue" => shared::dequeue[queue: u32, at: u32, size_at: u32];
        "proxy_enqueue_shared_queue" => shared::enqueue[queue: u32, data: u32, size: u32];
        "proxy_define_metric" => shared::define_metric[kind: u32, name: u32, name_size: u32, at: u32];
        "proxy_increment_metric" => shared::increment_metric[metric: u32, offset: i64];
        "proxy_record_metric" => shared::record_metric[metric: u32, value: u64];
        "proxy_get_metric" => shared::get_metric[metric: u32, at: u32];
        "proxy_call_foreign_function" => foreign::call[name: u32, name_size: u32, args: u32, args_size: u32,
            at: u32, size_at: u32];
        // ABI 0.1.0; Envoy offers them to later modules too.
        "proxy_get_configuration" => buffers::configuration[at: u32, size_at: u32];
        "proxy_continue_request" => stream::continue_request[];
        "proxy_continue_response" => stream::continue_response[];
        "proxy_clear_route_cache" => stream::clear_route_cache[];
    }
    // The text of ABI 0.1.0 has no initial metadata in these two; SDKs of that ABI (Rust 0.1) import what Envoy has, which is as in
    // later ones.
    let narrow =
        |name, parameters| abi == Abi::V0_1_0 && imported(module, name) == Some(parameters);
    if narrow("proxy_grpc_call", 10) {
        link! { linker, calls,
            "proxy_grpc_call" => callout::grpc_call_0_1_0[_a: u32, _b: u32, _c: u32, _d: u32, _e: u32, _f: u32, _g: u32,
                _h: u32, _i: u32, _j: u32];
        }
    } else {
        link! { linker, calls,
            "proxy_grpc_call" => callout::grpc_call[_a: u32, _b: u32, _c: u32, _d: u32, _e: u32, _f: u32, _g: u32,
                _h: u32, _i: u32, _j: u32, _k: u32, _l: u32];
        }
    }
    if narrow("proxy_grpc_stream", 7) {
        link! { linker, calls,
            "proxy_grpc_stream" => callout::grpc_stream_0_1_0[_a: u32, _b: u32, _c: u32, _d: u32, _e: u32, _f: u32,
                _g: u32];
        }
    } else {
        link! { linker, calls,
            "proxy_grpc_stream" => callout::grpc_stream[_a: u32, _b: u32, _c: u32, _d: u32, _e: u32, _f: u32, _g: u32,
                _h: u32, _i: u32];
        }
    }
    Ok(())
}

/// How many parameters a module gives a host function that it imports.
fn imported(module: &Module, name: &str) -> Option<usize> {
    let import = module.imports().find(|import| import.name() == name)?;
    Some(import.ty().func()?.params().len())
}
