//! The host's functions, as results. The only unsafe code of the crate is here and in the attributes of `exports`.
#![allow(unsafe_code)]

use bytes::Bytes;
use edgeweir_filter::{Level, Timestamp};

/// Why the host refused; the numbers of `proxy_status_t`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status(pub u32);

impl Status {
    pub const NOT_FOUND: Self = Self(1);
    pub const CAS_MISMATCH: Self = Self(8);
}

/// `proxy_buffer_type_t`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Buffer {
    RequestBody = 0,
    ResponseBody = 1,
    CallResponseBody = 4,
    PluginConfiguration = 7,
}

/// `proxy_header_map_type_t`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Map {
    RequestHeaders = 0,
    RequestTrailers = 1,
    ResponseHeaders = 2,
    ResponseTrailers = 3,
    CallResponseHeaders = 6,
}

/// `proxy_stream_type_t`: a direction of an exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Side {
    Request = 0,
    Response = 1,
}

#[cfg(target_arch = "wasm32")]
mod raw {
    #[link(wasm_import_module = "env")]
    unsafe extern "C" {
        pub fn proxy_log(level: u32, text: *const u8, size: usize) -> u32;
        pub fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
        pub fn proxy_get_property(
            path: *const u8,
            path_size: usize,
            value: *mut *mut u8,
            size: *mut usize,
        ) -> u32;
        pub fn proxy_set_property(
            path: *const u8,
            path_size: usize,
            value: *const u8,
            size: usize,
        ) -> u32;
        pub fn proxy_get_buffer_bytes(
            kind: u32,
            start: usize,
            max: usize,
            data: *mut *mut u8,
            size: *mut usize,
        ) -> u32;
        pub fn proxy_set_buffer_bytes(
            kind: u32,
            start: usize,
            length: usize,
            data: *const u8,
            size: usize,
        ) -> u32;
        pub fn proxy_get_header_map_pairs(kind: u32, data: *mut *mut u8, size: *mut usize) -> u32;
        pub fn proxy_get_header_map_value(
            kind: u32,
            name: *const u8,
            name_size: usize,
            data: *mut *mut u8,
            size: *mut usize,
        ) -> u32;
        pub fn proxy_replace_header_map_value(
            kind: u32,
            name: *const u8,
            name_size: usize,
            value: *const u8,
            size: usize,
        ) -> u32;
        pub fn proxy_add_header_map_value(
            kind: u32,
            name: *const u8,
            name_size: usize,
            value: *const u8,
            size: usize,
        ) -> u32;
        pub fn proxy_remove_header_map_value(kind: u32, name: *const u8, name_size: usize) -> u32;
        pub fn proxy_get_shared_data(
            key: *const u8,
            key_size: usize,
            value: *mut *mut u8,
            size: *mut usize,
            cas: *mut u32,
        ) -> u32;
        pub fn proxy_set_shared_data(
            key: *const u8,
            key_size: usize,
            value: *const u8,
            size: usize,
            cas: u32,
        ) -> u32;
        pub fn proxy_continue_stream(side: u32) -> u32;
        pub fn proxy_close_stream(side: u32) -> u32;
        pub fn proxy_send_local_response(
            status: u32,
            details: *const u8,
            details_size: usize,
            body: *const u8,
            body_size: usize,
            fields: *const u8,
            fields_size: usize,
            grpc_status: i32,
        ) -> u32;
        pub fn proxy_http_call(
            upstream: *const u8,
            upstream_size: usize,
            fields: *const u8,
            fields_size: usize,
            body: *const u8,
            body_size: usize,
            trailers: *const u8,
            trailers_size: usize,
            timeout: u32,
            token: *mut u32,
        ) -> u32;
        pub fn proxy_set_effective_context(context: u32) -> u32;
        pub fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
        pub fn proxy_define_metric(kind: u32, name: *const u8, size: usize, id: *mut u32) -> u32;
        pub fn proxy_increment_metric(id: u32, by: i64) -> u32;
    }
    unsafe extern "C" {
        pub fn __wasm_call_ctors();
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
use crate::fake::raw;

#[cfg(all(test, not(target_arch = "wasm32")))]
pub use crate::fake::variable;

/// Whether the VM's environment has this variable.
#[cfg(not(all(test, not(target_arch = "wasm32"))))]
pub fn variable(name: &str) -> bool {
    std::env::var_os(name).is_some()
}

/// Natively there is no host: every call answers `Unimplemented`.
#[cfg(all(not(test), not(target_arch = "wasm32")))]
mod raw {
    macro_rules! absent {
        ($($name:ident($($arg:ident: $type:ty),*);)*) => {
            $(#[allow(clippy::too_many_arguments)]
            pub unsafe fn $name($(_: $type),*) -> u32 { 12 })*
        };
    }
    absent! {
        proxy_log(a: u32, b: *const u8, c: usize);
        proxy_get_current_time_nanoseconds(a: *mut u64);
        proxy_get_property(a: *const u8, b: usize, c: *mut *mut u8, d: *mut usize);
        proxy_set_property(a: *const u8, b: usize, c: *const u8, d: usize);
        proxy_get_buffer_bytes(a: u32, b: usize, c: usize, d: *mut *mut u8, e: *mut usize);
        proxy_set_buffer_bytes(a: u32, b: usize, c: usize, d: *const u8, e: usize);
        proxy_get_header_map_pairs(a: u32, b: *mut *mut u8, c: *mut usize);
        proxy_get_header_map_value(a: u32, b: *const u8, c: usize, d: *mut *mut u8, e: *mut usize);
        proxy_replace_header_map_value(a: u32, b: *const u8, c: usize, d: *const u8, e: usize);
        proxy_add_header_map_value(a: u32, b: *const u8, c: usize, d: *const u8, e: usize);
        proxy_remove_header_map_value(a: u32, b: *const u8, c: usize);
        proxy_get_shared_data(a: *const u8, b: usize, c: *mut *mut u8, d: *mut usize, e: *mut u32);
        proxy_set_shared_data(a: *const u8, b: usize, c: *const u8, d: usize, e: u32);
        proxy_continue_stream(a: u32);
        proxy_close_stream(a: u32);
        proxy_send_local_response(a: u32, b: *const u8, c: usize, d: *const u8, e: usize, f: *const u8, g: usize, h: i32);
        proxy_http_call(a: *const u8, b: usize, c: *const u8, d: usize, e: *const u8, f: usize, g: *const u8, h: usize, i: u32, j: *mut u32);
        proxy_set_effective_context(a: u32);
        proxy_set_tick_period_milliseconds(a: u32);
        proxy_define_metric(a: u32, b: *const u8, c: usize, d: *mut u32);
        proxy_increment_metric(a: u32, b: i64);
    }
    pub unsafe fn __wasm_call_ctors() {}
}

/// Runs the module's static constructors; for [`module!`](crate::module) alone.
#[doc(hidden)]
pub fn construct() {
    // SAFETY: called once, from `_initialize`, before any other code of the module.
    unsafe { raw::__wasm_call_ctors() }
}

/// Memory the host fills and hands over: exactly `size` bytes, freed by [`owned`].
#[cfg(any(test, target_arch = "wasm32"))]
pub fn allocate(size: usize) -> *mut u8 {
    match std::alloc::Layout::array::<u8>(size) {
        // SAFETY: the layout has a size above zero.
        Ok(layout) if size > 0 => unsafe { std::alloc::alloc(layout) },
        _ => std::ptr::null_mut(),
    }
}

fn check(status: u32) -> Result<(), Status> {
    if status == 0 {
        Ok(())
    } else {
        Err(Status(status))
    }
}

/// Takes over a block the host filled.
fn owned(data: *mut u8, size: usize) -> Vec<u8> {
    if data.is_null() || size == 0 {
        return Vec::new();
    }
    // SAFETY: the host got the block from `allocate` with this very size (capacity = size, alignment 1), wrote all of
    // it and gave up its use; nothing else in this module knows the address.
    unsafe { Vec::from_raw_parts(data, size, size) }
}

fn filled(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Result<Vec<u8>, Status> {
    let mut data = std::ptr::null_mut();
    let mut size = 0;
    check(call(&mut data, &mut size))?;
    Ok(owned(data, size))
}

/// Writes a line to the host's log; a host that can't is ignored.
pub fn log(level: Level, line: &str) {
    let level = match level {
        Level::Debug => 1,
        Level::Info => 2,
        Level::Warn => 3,
        Level::Error => 4,
    };
    // SAFETY: the slice is valid during the call, which only reads it. The same holds for every slice below.
    unsafe { raw::proxy_log(level, line.as_ptr(), line.len()) };
}

/// The wall clock; the epoch when the host has none.
pub fn now() -> Timestamp {
    let mut time = 0;
    // SAFETY: `time` is writable and lives through the call. The same holds for every out-pointer below.
    unsafe { raw::proxy_get_current_time_nanoseconds(&mut time) };
    Timestamp(time)
}

/// A property of the stream; `path` with its parts separated by NUL.
pub fn property(path: &str) -> Result<Vec<u8>, Status> {
    // SAFETY: see `log` and `now`.
    filled(|data, size| unsafe { raw::proxy_get_property(path.as_ptr(), path.len(), data, size) })
}

/// Sets a property of the stream, of one part, that other modules of the chain see.
pub fn set_property(path: &str, value: &[u8]) -> Result<(), Status> {
    // SAFETY: see `log`.
    check(unsafe {
        raw::proxy_set_property(path.as_ptr(), path.len(), value.as_ptr(), value.len())
    })
}

/// At most `max` bytes of a buffer from `start`; may be fewer.
pub fn buffer(kind: Buffer, start: usize, max: usize) -> Result<Vec<u8>, Status> {
    // SAFETY: see `now`.
    filled(|data, size| unsafe { raw::proxy_get_buffer_bytes(kind as u32, start, max, data, size) })
}

/// Replaces the first `length` bytes of a buffer; with `length` 0 and `start` at its end, appends.
pub fn set_buffer(kind: Buffer, start: usize, length: usize, data: &[u8]) -> Result<(), Status> {
    // SAFETY: see `log`.
    check(unsafe {
        raw::proxy_set_buffer_bytes(kind as u32, start, length, data.as_ptr(), data.len())
    })
}

/// All pairs of a map in the host's serialisation.
pub fn map(kind: Map) -> Result<Bytes, Status> {
    // SAFETY: see `now`.
    filled(|data, size| unsafe { raw::proxy_get_header_map_pairs(kind as u32, data, size) })
        .map(Bytes::from)
}

/// The first line of a field.
pub fn value(kind: Map, name: &[u8]) -> Result<Vec<u8>, Status> {
    // SAFETY: see `log` and `now`.
    filled(|data, size| unsafe {
        raw::proxy_get_header_map_value(kind as u32, name.as_ptr(), name.len(), data, size)
    })
}

/// Replaces a field with one line.
pub fn replace(kind: Map, name: &[u8], value: &[u8]) -> Result<(), Status> {
    // SAFETY: see `log`.
    check(unsafe {
        raw::proxy_replace_header_map_value(
            kind as u32,
            name.as_ptr(),
            name.len(),
            value.as_ptr(),
            value.len(),
        )
    })
}

/// Adds a line.
pub fn add(kind: Map, name: &[u8], value: &[u8]) -> Result<(), Status> {
    // SAFETY: see `log`.
    check(unsafe {
        raw::proxy_add_header_map_value(
            kind as u32,
            name.as_ptr(),
            name.len(),
            value.as_ptr(),
            value.len(),
        )
    })
}

/// Removes all lines of a field.
pub fn remove(kind: Map, name: &[u8]) -> Result<(), Status> {
    // SAFETY: see `log`.
    check(unsafe { raw::proxy_remove_header_map_value(kind as u32, name.as_ptr(), name.len()) })
}

/// A value shared by all VMs of this id, with its compare-and-swap number.
pub fn shared(key: &[u8]) -> Result<Option<(Bytes, u32)>, Status> {
    let mut cas = 0;
    // SAFETY: see `log` and `now`.
    let value = filled(|data, size| unsafe {
        raw::proxy_get_shared_data(key.as_ptr(), key.len(), data, size, &mut cas)
    });
    match value {
        Ok(value) => Ok(Some((Bytes::from(value), cas))),
        Err(Status::NOT_FOUND) => Ok(None),
        Err(status) => Err(status),
    }
}

/// Writes a shared value; a `cas` other than 0 must be the value's number, when there is a value.
pub fn set_shared(key: &[u8], value: &[u8], cas: u32) -> Result<(), Status> {
    // SAFETY: see `log`.
    check(unsafe {
        raw::proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), cas)
    })
}

/// Lets a paused direction of the effective context's stream go on.
pub fn continue_stream(side: Side) -> Result<(), Status> {
    // SAFETY: no memory is passed.
    check(unsafe { raw::proxy_continue_stream(side as u32) })
}

/// Resets a direction of the effective context's stream.
pub fn close_stream(side: Side) -> Result<(), Status> {
    // SAFETY: no memory is passed.
    check(unsafe { raw::proxy_close_stream(side as u32) })
}

/// Answers the exchange here; `fields` as [`pairs`](crate::heads::pairs) makes them.
pub fn send_response(status: u16, details: &str, body: &[u8], fields: &[u8]) -> Result<(), Status> {
    // SAFETY: see `log`.
    check(unsafe {
        raw::proxy_send_local_response(
            u32::from(status),
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            fields.as_ptr(),
            fields.len(),
            -1,
        )
    })
}

/// Ends the exchange with a status alone; behind the head of a response a host can only reset it.
pub fn send_status(status: u16) -> Result<(), Status> {
    let no_fields = 0u32.to_le_bytes();
    send_response(status, "edgeweir", &[], &no_fields)
}

/// Sends a request to a cluster; the answer comes to `proxy_on_http_call_response` with the returned token.
pub fn http_call(
    cluster: &str,
    fields: &[u8],
    body: &[u8],
    timeout_ms: u32,
) -> Result<u32, Status> {
    let mut token = 0;
    let no_trailers = 0u32.to_le_bytes();
    // SAFETY: see `log` and `now`.
    check(unsafe {
        raw::proxy_http_call(
            cluster.as_ptr(),
            cluster.len(),
            fields.as_ptr(),
            fields.len(),
            body.as_ptr(),
            body.len(),
            no_trailers.as_ptr(),
            no_trailers.len(),
            timeout_ms,
            &mut token,
        )
    })?;
    Ok(token)
}

/// Makes the following calls act on another context of this VM.
pub fn set_context(context: u32) -> Result<(), Status> {
    // SAFETY: no memory is passed.
    check(unsafe { raw::proxy_set_effective_context(context) })
}

/// Sets the root context's tick; 0 turns it off.
pub fn set_tick(period_ms: u32) -> Result<(), Status> {
    // SAFETY: no memory is passed.
    check(unsafe { raw::proxy_set_tick_period_milliseconds(period_ms) })
}

/// Defines a counter.
pub fn counter(name: &str) -> Result<u32, Status> {
    let mut id = 0;
    // SAFETY: see `log` and `now`.
    check(unsafe { raw::proxy_define_metric(0, name.as_ptr(), name.len(), &mut id) })?;
    Ok(id)
}

/// Adds to a counter.
pub fn increment(id: u32, by: u64) -> Result<(), Status> {
    // SAFETY: no memory is passed.
    check(unsafe { raw::proxy_increment_metric(id, i64::try_from(by).unwrap_or(i64::MAX)) })
}
