//! The data of one store: contexts, limits, counts, and checked access to the guest's memory.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::HeaderMap;
use wasmtime::{Caller, Memory, ResourceLimiter, TypedFunc};

use crate::fields::Fields;
use crate::plugin::Common;
use crate::status::{Fault, Status};
use crate::stream::Stream;
use crate::worker::Worker;

/// The root context of every virtual machine.
pub(crate) const ROOT: u32 = 1;
/// Lines of a plugin's log kept while it starts, for the error that says why it refused.
const START_LINES: usize = 20;

/// What the guest's allocator is called as.
pub(crate) type Allocate = TypedFunc<u32, u32>;

/// The answer of a callout, readable during its callback.
#[derive(Default)]
pub(crate) struct CalloutAnswer {
    pub(crate) fields: Fields,
    pub(crate) body: Bytes,
    pub(crate) trailers: Fields,
}

impl CalloutAnswer {
    pub(crate) fn new(
        head: http::response::Parts,
        body: Bytes,
        trailers: Option<HeaderMap>,
    ) -> Self {
        let trailers = Fields::of_lines(trailers.unwrap_or_default());
        Self {
            fields: Fields::of_response(&head),
            body,
            trailers,
        }
    }
}

/// The data of one store.
pub(crate) struct Host {
    pub(crate) common: Arc<Common>,
    pub(crate) worker: Weak<Worker>,
    pub(crate) generation: u64,
    pub(crate) memory: Option<Memory>,
    pub(crate) allocate: Option<Allocate>,
    pub(crate) limiter: Limiter,
    pub(crate) clock: CallbackClock,
    pub(crate) streams: HashMap<u32, Stream>,
    /// The effective context.
    pub(crate) current: u32,
    pub(crate) next_context: u32,
    pub(crate) next_token: u32,
    /// Callouts under way: the token and the context that made it, which may be gone.
    pub(crate) callouts: HashMap<u32, u32>,
    pub(crate) root_callouts: usize,
    pub(crate) answer: Option<CalloutAnswer>,
    /// Contexts that called `proxy_done` after their `on_done` asked to wait.
    pub(crate) done: Vec<u32>,
    pub(crate) counts: Vec<u64>,
    pub(crate) copied: u64,
    /// Unfinished lines of the guest's standard output and error.
    pub(crate) stdio: [Vec<u8>; 2],
    pub(crate) start_log: Option<Vec<String>>,
    /// Errors the guest logged while it starts: where it does not start they are in the error, and said once.
    held: Vec<String>,
}

impl Host {
    pub(crate) fn new(common: Arc<Common>, worker: Weak<Worker>, generation: u64) -> Self {
        let counts = vec![0; common.calls.len()];
        let limiter = Limiter {
            common: Arc::clone(&common),
            held: 0,
        };
        Self {
            common,
            worker,
            generation,
            memory: None,
            allocate: None,
            limiter,
            clock: CallbackClock::default(),
            streams: HashMap::new(),
            current: ROOT,
            next_context: ROOT + 1,
            next_token: 1,
            callouts: HashMap::new(),
            root_callouts: 0,
            answer: None,
            done: Vec::new(),
            counts,
            copied: 0,
            stdio: [Vec::new(), Vec::new()],
            start_log: Some(Vec::new()),
            held: Vec::new(),
        }
    }

    /// Counts one call of a host function.
    pub(crate) fn count(&mut self, call: usize) {
        if let Some(count) = self.counts.get_mut(call) {
            *count += 1;
        }
    }

    /// Hands the counts over to the meter.
    pub(crate) fn flush(&mut self) {
        let counted = self
            .common
            .calls
            .iter()
            .zip(&self.counts)
            .filter(|(_, count)| **count > 0);
        self.common.meter.host_calls(counted);
        self.counts.fill(0);
        let copied = std::mem::take(&mut self.copied);
        self.common
            .meter
            .bytes_copied
            .fetch_add(copied, std::sync::atomic::Ordering::Relaxed);
    }

    /// The stream of the effective context; the root context has none.
    pub(crate) fn stream(&mut self) -> Option<&mut Stream> {
        self.streams.get_mut(&self.current)
    }

    /// Keeps a line for the error of a start that fails.
    pub(crate) fn note(&mut self, line: &str) {
        if let Some(log) = &mut self.start_log
            && log.len() < START_LINES
        {
            log.push(line.chars().take(500).collect());
        }
    }

    /// Keeps an error that is logged during a start; whether it did.
    pub(crate) fn hold(&mut self, line: &str) -> bool {
        let holds = self.start_log.is_some() && self.held.len() < START_LINES;
        if holds {
            self.held.push(line.to_owned());
        }
        holds
    }

    /// The start went well: what was kept for its error is logged.
    pub(crate) fn started(&mut self) {
        self.start_log = None;
        let plugin = &self.common.name;
        for text in self.held.drain(..) {
            tracing::error!(target: "edgeweir::plugin", %plugin, context = ROOT, "{text}");
        }
    }
}

/// The deadline of the callback that runs.
pub(crate) struct CallbackClock {
    pub(crate) started: Instant,
    pub(crate) deadline: Duration,
}

impl Default for CallbackClock {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            deadline: Duration::from_secs(5),
        }
    }
}

/// Linear memory under its limit, and into the meter.
pub(crate) struct Limiter {
    common: Arc<Common>,
    held: u64,
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _most: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // A store may hold several memories: the limit is on their sum.
        let others = self.held.saturating_sub(current as u64);
        let after = others + desired as u64;
        if after > self.common.limits.memory_bytes as u64 {
            return Ok(false);
        }
        self.common.meter.memory(self.held, after);
        self.held = after;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _most: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= 1_000_000)
    }

    fn memories(&self) -> usize {
        8
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        self.common.meter.memory(self.held, 0);
    }
}

/// A host function's way to the guest.
pub(crate) type Guest<'a> = Caller<'a, Host>;

fn range(start: u32, len: u32, memory: usize) -> Result<std::ops::Range<usize>, Status> {
    let (start, len) = (start as usize, len as usize);
    let end = start.checked_add(len).filter(|end| *end <= memory);
    end.map(|end| start..end).ok_or(Status::InvalidMemoryAccess)
}

/// A guest's bytes, and the host's data beside them.
pub(crate) fn view<'a>(
    guest: &'a mut Guest<'_>,
    start: u32,
    len: u32,
) -> Result<(&'a [u8], &'a mut Host), Status> {
    let memory = guest.data().memory.ok_or(Status::InvalidMemoryAccess)?;
    let (bytes, host) = memory.data_and_store_mut(guest);
    let range = range(start, len, bytes.len())?;
    host.copied += u64::from(len);
    Ok((bytes.get(range).ok_or(Status::InvalidMemoryAccess)?, host))
}

/// Two pieces of the guest's bytes, and the host's data beside them.
pub(crate) fn view2<'a>(
    guest: &'a mut Guest<'_>,
    first: (u32, u32),
    second: (u32, u32),
) -> Result<(&'a [u8], &'a [u8], &'a mut Host), Status> {
    let memory = guest.data().memory.ok_or(Status::InvalidMemoryAccess)?;
    let (bytes, host) = memory.data_and_store_mut(guest);
    let bytes = &*bytes;
    let one = bytes
        .get(range(first.0, first.1, bytes.len())?)
        .ok_or(Status::InvalidMemoryAccess)?;
    let two = bytes
        .get(range(second.0, second.1, bytes.len())?)
        .ok_or(Status::InvalidMemoryAccess)?;
    host.copied += u64::from(first.1) + u64::from(second.1);
    Ok((one, two, host))
}

/// A copy of a guest's bytes.
pub(crate) fn copy(guest: &mut Guest<'_>, start: u32, len: u32) -> Result<Vec<u8>, Status> {
    Ok(view(guest, start, len)?.0.to_vec())
}

/// Writes over a guest's bytes.
pub(crate) fn write(guest: &mut Guest<'_>, start: u32, bytes: &[u8]) -> Result<(), Status> {
    let memory = guest.data().memory.ok_or(Status::InvalidMemoryAccess)?;
    let len = u32::try_from(bytes.len()).map_err(|_| Status::InvalidMemoryAccess)?;
    let (all, host) = memory.data_and_store_mut(guest);
    let range = range(start, len, all.len())?;
    host.copied += u64::from(len);
    all.get_mut(range)
        .ok_or(Status::InvalidMemoryAccess)?
        .copy_from_slice(bytes);
    Ok(())
}

/// Writes a 32-bit number.
pub(crate) fn write_u32(guest: &mut Guest<'_>, at: u32, value: u32) -> Result<(), Status> {
    write(guest, at, &value.to_le_bytes())
}

/// Gives the guest bytes in memory it allocates for them, and tells it where and how many. Nothing is no allocation.
pub(crate) fn give(
    guest: &mut Guest<'_>,
    bytes: &[u8],
    at: u32,
    size_at: u32,
) -> Result<(), Fault> {
    // Both pointers are checked before the guest allocates what it would never learn of.
    for pointer in [at, size_at] {
        view(guest, pointer, 4)?;
    }
    let size = u32::try_from(bytes.len()).map_err(|_| Status::InternalFailure)?;
    let mut start = 0;
    if size > 0 {
        let allocate = guest
            .data()
            .allocate
            .clone()
            .ok_or(Status::InvalidMemoryAccess)?;
        let full = guest.data().common.world.fault("proxy_on_memory_allocate");
        if full.is_none() {
            start = allocate.call(&mut *guest, size).map_err(Fault::Trap)?;
        }
        if start == 0 {
            return Err(Status::InternalFailure.into());
        }
        write(guest, start, bytes)?;
    }
    write_u32(guest, at, start)?;
    write_u32(guest, size_at, size)?;
    Ok(())
}
