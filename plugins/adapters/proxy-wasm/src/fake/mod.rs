//! A host in memory, and exchanges against it.
#![allow(unsafe_code)]

mod blind;
mod exchanges;
mod together;

use std::cell::RefCell;
use std::collections::HashMap;

use crate::heads;

type Lines = Vec<(Vec<u8>, Vec<u8>)>;

/// What the host holds, and what it was asked to do.
#[derive(Default)]
struct Host {
    maps: HashMap<u32, Lines>,
    buffers: HashMap<u32, Vec<u8>>,
    done: Vec<String>,
    /// Nanoseconds since the first second.
    time: u64,
    shared: HashMap<Vec<u8>, (Vec<u8>, u32)>,
    /// Properties besides those that are always the same.
    shown: HashMap<&'static [u8], &'static str>,
    counters: Vec<String>,
    token: u32,
    /// Every hostcall, by name.
    calls: Vec<&'static str>,
    /// The variables of the environment.
    variables: Vec<&'static str>,
    /// The next calls of this name are refused, so many of them.
    refused: (&'static str, u32),
}

thread_local! {
    static HOST: RefCell<Host> = RefCell::default();
}

fn host<T>(call: impl FnOnce(&mut Host) -> T) -> T {
    HOST.with_borrow_mut(call)
}

/// Whether the environment has this variable.
pub fn variable(name: &str) -> bool {
    host(|host| host.variables.contains(&name))
}

/// The functions a module imports; those no test needs are refused.
pub mod raw {
    use super::*;

    unsafe fn bytes(data: *const u8, size: usize) -> Vec<u8> {
        unsafe { std::slice::from_raw_parts(data, size) }.to_vec()
    }

    unsafe fn give(value: &[u8], data: *mut *mut u8, size: *mut usize) -> u32 {
        let block = crate::hostcalls::allocate(value.len());
        unsafe {
            if !block.is_null() {
                std::ptr::copy_nonoverlapping(value.as_ptr(), block, value.len());
            }
            *data = block;
            *size = value.len();
        }
        0
    }

    fn called(name: &'static str) {
        host(|host| host.calls.push(name));
    }

    /// Whether this call is one of those a test wants refused.
    fn refuses(name: &'static str) -> bool {
        host(|host| {
            let refuses = host.refused.0 == name && host.refused.1 > 0;
            host.refused.1 -= u32::from(refuses);
            refuses
        })
    }

    fn note(what: String) -> u32 {
        host(|host| host.done.push(what));
        0
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    pub unsafe fn __wasm_call_ctors() {}
    pub unsafe fn proxy_log(_: u32, _: *const u8, _: usize) -> u32 {
        called("proxy_log");
        0
    }
    pub unsafe fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32 {
        called("proxy_get_current_time_nanoseconds");
        unsafe { *time = 1_000_000_000 + host(|host| host.time) };
        0
    }
    pub unsafe fn proxy_get_property(
        path: *const u8,
        path_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32 {
        called("proxy_get_property");
        let path = unsafe { bytes(path, path_size) };
        let shown = host(|host| host.shown.get(&path[..]).copied());
        let value = match &path[..] {
            _ if shown.is_some() => shown.unwrap_or_default(),
            b"source\0address" => "192.0.2.1:80",
            b"xds\0cluster_name" => "origin",
            b"response\0code_details" => "via_upstream",
            _ => return 1,
        };
        unsafe { give(value.as_bytes(), data, size) }
    }
    pub unsafe fn proxy_set_property(
        path: *const u8,
        path_size: usize,
        value: *const u8,
        size: usize,
    ) -> u32 {
        called("proxy_set_property");
        let (path, value) = unsafe { (bytes(path, path_size), bytes(value, size)) };
        note(format!("property {} {}", text(&path), text(&value)))
    }
    pub unsafe fn proxy_get_buffer_bytes(
        kind: u32,
        start: usize,
        max: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32 {
        called("proxy_get_buffer_bytes");
        if refuses("proxy_get_buffer_bytes") {
            return 2;
        }
        note(format!("read {kind}"));
        let Some(all) = host(|host| host.buffers.get(&kind).cloned()) else {
            return 1;
        };
        let start = start.min(all.len());
        unsafe {
            give(
                &all[start..all.len().min(start.saturating_add(max))],
                data,
                size,
            )
        }
    }
    pub unsafe fn proxy_set_buffer_bytes(
        kind: u32,
        start: usize,
        length: usize,
        data: *const u8,
        size: usize,
    ) -> u32 {
        called("proxy_set_buffer_bytes");
        let value = unsafe { bytes(data, size) };
        host(|host| {
            let Some(all) = host.buffers.get_mut(&kind) else {
                return 1;
            };
            match start {
                0 => drop(all.splice(..length.min(all.len()), value)),
                _ if start >= all.len() => all.extend(value),
                _ => return 2,
            }
            0
        })
    }
    pub unsafe fn proxy_get_header_map_pairs(
        kind: u32,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32 {
        called("proxy_get_header_map_pairs");
        let Some(lines) = host(|host| host.maps.get(&kind).cloned()) else {
            return 1;
        };
        unsafe {
            give(
                &heads::pairs(lines.iter().map(|(n, v)| (&n[..], &v[..]))),
                data,
                size,
            )
        }
    }
    pub unsafe fn proxy_get_header_map_value(
        kind: u32,
        name: *const u8,
        name_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32 {
        called("proxy_get_header_map_value");
        let name = unsafe { bytes(name, name_size) };
        let value = host(|host| {
            let lines = host.maps.get(&kind)?;
            let line = lines.iter().find(|(n, _)| n[..] == name)?;
            Some(line.1.clone())
        });
        match value {
            Some(value) => unsafe { give(&value, data, size) },
            None => 1,
        }
    }
    pub unsafe fn proxy_replace_header_map_value(
        _: u32,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        size: usize,
    ) -> u32 {
        called("proxy_replace_header_map_value");
        if refuses("proxy_replace_header_map_value") {
            return 2;
        }
        let (name, value) = unsafe { (bytes(name, name_size), bytes(value, size)) };
        note(format!("replace {}: {}", text(&name), text(&value)))
    }
    pub unsafe fn proxy_add_header_map_value(
        _: u32,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        size: usize,
    ) -> u32 {
        called("proxy_add_header_map_value");
        let (name, value) = unsafe { (bytes(name, name_size), bytes(value, size)) };
        note(format!("add {}: {}", text(&name), text(&value)))
    }
    pub unsafe fn proxy_remove_header_map_value(_: u32, name: *const u8, name_size: usize) -> u32 {
        called("proxy_remove_header_map_value");
        note(format!(
            "remove {}",
            text(&unsafe { bytes(name, name_size) })
        ))
    }
    pub unsafe fn proxy_get_shared_data(
        key: *const u8,
        key_size: usize,
        value: *mut *mut u8,
        size: *mut usize,
        cas: *mut u32,
    ) -> u32 {
        called("proxy_get_shared_data");
        let key = unsafe { bytes(key, key_size) };
        match host(|host| host.shared.get(&key).cloned()) {
            Some((found, version)) => unsafe {
                *cas = version;
                give(&found, value, size)
            },
            None => 1,
        }
    }
    pub unsafe fn proxy_set_shared_data(
        key: *const u8,
        key_size: usize,
        value: *const u8,
        size: usize,
        cas: u32,
    ) -> u32 {
        called("proxy_set_shared_data");
        let (key, value) = unsafe { (bytes(key, key_size), bytes(value, size)) };
        host(|host| {
            let version = host.shared.get(&key).map_or(0, |(_, version)| *version);
            if cas != 0 && version != 0 && cas != version {
                return 8;
            }
            host.shared.insert(key, (value, version + 1));
            0
        })
    }
    pub unsafe fn proxy_continue_stream(side: u32) -> u32 {
        called("proxy_continue_stream");
        if refuses("proxy_continue_stream") {
            return 2;
        }
        note(format!("continue {side}"))
    }
    pub unsafe fn proxy_close_stream(side: u32) -> u32 {
        called("proxy_close_stream");
        note(format!("close {side}"))
    }
    #[allow(clippy::too_many_arguments)]
    pub unsafe fn proxy_send_local_response(
        status: u32,
        _: *const u8,
        _: usize,
        body: *const u8,
        body_size: usize,
        fields: *const u8,
        fields_size: usize,
        _: i32,
    ) -> u32 {
        called("proxy_send_local_response");
        if refuses("proxy_send_local_response") {
            return 2;
        }
        let (body, fields) = unsafe { (bytes(body, body_size), bytes(fields, fields_size)) };
        let declared = text(&fields).contains("content-length");
        note(format!("reply {status} {} {declared}", text(&body)))
    }
    #[allow(clippy::too_many_arguments)]
    pub unsafe fn proxy_http_call(
        upstream: *const u8,
        upstream_size: usize,
        _: *const u8,
        _: usize,
        _: *const u8,
        _: usize,
        _: *const u8,
        _: usize,
        timeout: u32,
        token: *mut u32,
    ) -> u32 {
        called("proxy_http_call");
        let upstream = unsafe { bytes(upstream, upstream_size) };
        let next = host(|host| {
            host.token += 1;
            host.token
        });
        unsafe { *token = next };
        note(format!("call {} {timeout}", text(&upstream)))
    }
    pub unsafe fn proxy_set_effective_context(context: u32) -> u32 {
        called("proxy_set_effective_context");
        note(format!("as {context}"))
    }
    pub unsafe fn proxy_set_tick_period_milliseconds(period: u32) -> u32 {
        called("proxy_set_tick_period_milliseconds");
        note(format!("tick {period}"))
    }
    pub unsafe fn proxy_define_metric(_: u32, name: *const u8, size: usize, id: *mut u32) -> u32 {
        called("proxy_define_metric");
        let name = text(&unsafe { bytes(name, size) });
        host(|host| {
            host.counters.push(name);
            unsafe { *id = host.counters.len() as u32 };
        });
        0
    }
    pub unsafe fn proxy_increment_metric(id: u32, by: i64) -> u32 {
        called("proxy_increment_metric");
        let name = host(|host| host.counters[id as usize - 1].clone());
        note(format!("count {name} {by}"))
    }
}

fn owned(lines: &[(&str, &str)]) -> Lines {
    lines
        .iter()
        .map(|(n, v)| (n.as_bytes().to_vec(), v.as_bytes().to_vec()))
        .collect()
}

fn done() -> Vec<String> {
    host(|host| std::mem::take(&mut host.done))
}
