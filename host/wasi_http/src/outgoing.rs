//! `wasi:http/client` as an import: what wasmtime does, with whose request it is.

use wasmtime::AsContextMut as _;
use wasmtime::component::{Accessor, Linker, Resource};
use wasmtime_wasi_http::p3::bindings::http::client::HostWithStore;
use wasmtime_wasi_http::p3::bindings::http::types::Request;
use wasmtime_wasi_http::{WasiHttp, WasiHttpView as _};

use crate::context::{Guest, exchange_of};

pub(crate) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    linker
        .instance("wasi:http/client@0.3.0")?
        .func_wrap_concurrent(
            "send",
            |accessor: &Accessor<Guest>, (request,): (Resource<Request>,)| {
                Box::pin(async move {
                    accessor.with(|mut store| {
                        let exchange = exchange_of(store.as_context_mut());
                        store.data_mut().hooks.asking = exchange;
                    });
                    // It asks the hooks before it waits for anything: nothing else is asked in between.
                    let http = accessor.with_getter::<WasiHttp>(Guest::http);
                    Ok((match WasiHttp::send(&http, request).await {
                        Ok(response) => Ok(response),
                        Err(error) => Err(error.downcast()?),
                    },))
                })
            },
        )?;
    linker.allow_shadowing(false);
    Ok(())
}
