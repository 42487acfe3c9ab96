//! What the host calls of every module; [`module!`](crate::module) has the rest. Nothing here decides.
//!
//! A callback costs a crossing even when it does nothing (0.3 to 0.5 µs in Envoy), so there is none that a module does not need:
//! `proxy_on_delete`, which follows `proxy_on_done` at once, is the end of an exchange.
#![allow(unsafe_code)]

use crate::hostcalls::{self, Side};
use crate::vm;

#[unsafe(no_mangle)]
extern "C" fn proxy_abi_version_0_2_1() {}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    hostcalls::allocate(size)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_context_create(context: u32, root: u32) {
    vm::create(context, root);
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_vm_start(_: u32, _: u32) -> u32 {
    1
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_configure(root: u32, size: usize) -> u32 {
    u32::from(vm::configure(root, size))
}

/// A head's status of what would be a body's: `StopAllIterationAndWatermark` in place of `StopIteration`.
fn head(status: u32) -> u32 {
    match status {
        0 => 0,
        _ => 4,
    }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_tick(root: u32) {
    vm::tick(root);
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_headers(context: u32, _: u32, end: u32) -> u32 {
    head(vm::stream(context, |stream| stream.on_request(end != 0)))
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_body(context: u32, size: usize, end: u32) -> u32 {
    vm::stream(context, |stream| {
        stream.on_body(Side::Request, size, end != 0)
    })
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_trailers(context: u32, _: u32) -> u32 {
    vm::stream(context, |stream| stream.on_trailers(Side::Request))
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_headers(context: u32, _: u32, end: u32) -> u32 {
    head(vm::stream(context, |stream| stream.on_response(end != 0)))
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_http_call_response(
    context: u32,
    token: u32,
    fields: u32,
    body: usize,
    _: u32,
) {
    vm::called(context, token, fields, body);
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_delete(context: u32) {
    vm::delete(context);
}
