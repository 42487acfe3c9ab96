//! Shared data, shared queues, metrics.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::host::{Guest, ROOT, give, view, view2, write, write_u32};
use crate::shared::Owner;
use crate::status::{Reply, Status};

/// The longest name of a metric, bytes.
const METRIC_NAME: usize = 256;
/// The most bytes in one shared queue.
const QUEUE_BYTES: usize = 64 << 20;

pub(super) fn get(
    guest: &mut Guest<'_>,
    key: u32,
    key_size: u32,
    at: u32,
    size_at: u32,
    cas_at: u32,
) -> Reply {
    let (key, host) = view(guest, key, key_size)?;
    let (value, cas) = host.common.data.get(key).ok_or(Status::NotFound)?;
    write_u32(guest, cas_at, cas)?;
    give(guest, &value, at, size_at)
}

pub(super) fn set(
    guest: &mut Guest<'_>,
    key: u32,
    key_size: u32,
    value: u32,
    size: u32,
    cas: u32,
) -> Reply {
    let (key, value, host) = view2(guest, (key, key_size), (value, size))?;
    let limits = &host.common.limits;
    let held = host.common.data.set(
        key,
        value,
        cas,
        limits.shared_data_keys,
        limits.shared_data_bytes,
    )?;
    host.common
        .meter
        .shared_bytes
        .store(held as u64, Ordering::Relaxed);
    Ok(())
}

pub(super) fn register(guest: &mut Guest<'_>, name: u32, name_size: u32, at: u32) -> Reply {
    let (name, host) = view(guest, name, name_size)?;
    let owner = Owner {
        worker: host.worker.clone(),
        context: ROOT,
    };
    let id = host
        .common
        .runtime
        .shared
        .queues
        .register(&host.common.vm_id, name, owner)?;
    Ok(write_u32(guest, at, id)?)
}

pub(super) fn resolve(
    guest: &mut Guest<'_>,
    vm: u32,
    vm_size: u32,
    name: u32,
    name_size: u32,
    at: u32,
) -> Reply {
    let (vm, name, host) = view2(guest, (vm, vm_size), (name, name_size))?;
    let queues = &host.common.runtime.shared.queues;
    // An empty identifier is the plugin's own.
    let vm = if vm.is_empty() {
        host.common.vm_id.as_bytes()
    } else {
        vm
    };
    let id = queues.resolve(vm, name).ok_or(Status::NotFound)?;
    Ok(write_u32(guest, at, id)?)
}

pub(super) fn dequeue(guest: &mut Guest<'_>, queue: u32, at: u32, size_at: u32) -> Reply {
    // Checked first: an item that cannot be delivered would be lost.
    for pointer in [at, size_at] {
        view(guest, pointer, 4)?;
    }
    let common = Arc::clone(&guest.data().common);
    let item = common.runtime.shared.queues.dequeue(queue)?;
    give(guest, &item, at, size_at)
}

pub(super) fn enqueue(guest: &mut Guest<'_>, queue: u32, data: u32, size: u32) -> Reply {
    let (data, host) = view(guest, data, size)?;
    let most = host.common.limits.shared_data_bytes.min(QUEUE_BYTES);
    let owner = host
        .common
        .runtime
        .shared
        .queues
        .enqueue(queue, data, most)?;
    if let (Some(worker), Ok(tokio)) = (
        owner.worker.upgrade(),
        tokio::runtime::Handle::try_current(),
    ) {
        tokio.spawn(worker.queue_ready(owner.context, queue));
    }
    Ok(())
}

pub(super) fn define_metric(
    guest: &mut Guest<'_>,
    kind: u32,
    name: u32,
    name_size: u32,
    at: u32,
) -> Reply {
    let (name, host) = view(guest, name, name_size)?;
    let name = std::str::from_utf8(name)
        .ok()
        .filter(|name| name.len() <= METRIC_NAME)
        .ok_or(Status::BadArgument)?;
    let id = host.common.metrics.define(&host.common.meter, kind, name)?;
    Ok(write_u32(guest, at, id)?)
}

pub(super) fn increment_metric(guest: &mut Guest<'_>, metric: u32, offset: i64) -> Reply {
    let common = &guest.data().common;
    Ok(common.metrics.increment(&common.meter, metric, offset)?)
}

pub(super) fn record_metric(guest: &mut Guest<'_>, metric: u32, value: u64) -> Reply {
    let common = &guest.data().common;
    Ok(common.metrics.record(&common.meter, metric, value)?)
}

pub(super) fn get_metric(guest: &mut Guest<'_>, metric: u32, at: u32) -> Reply {
    let value = guest.data().common.metrics.get(metric)?;
    Ok(write(guest, at, &value.to_le_bytes())?)
}
