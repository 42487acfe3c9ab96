//! Bodies, configurations and answers: `proxy_get_buffer_bytes` and its kin.

use bytes::{Bytes, BytesMut};

use crate::host::{Guest, Host, ROOT, copy, give, write_u32};
use crate::status::{Reply, Status};
use crate::stream::{Direction, Phase};

const REQUEST_BODY: u32 = 0;
const RESPONSE_BODY: u32 = 1;
const CALLOUT_BODY: u32 = 4;
const VM_CONFIGURATION: u32 = 6;
const PLUGIN_CONFIGURATION: u32 = 7;
/// `CallData`, the last kind there is.
const KINDS: u32 = 9;

/// The buffer of a kind; `NotFound` if there is none now.
fn find(host: &mut Host, kind: u32) -> Result<Bytes, Status> {
    match kind {
        REQUEST_BODY => host
            .stream()
            .map(|stream| stream.request.buffer.clone())
            .ok_or(Status::NotFound),
        RESPONSE_BODY => host
            .stream()
            .map(|stream| stream.response.buffer.clone())
            .ok_or(Status::NotFound),
        CALLOUT_BODY => host
            .answer
            .as_ref()
            .map(|answer| answer.body.clone())
            .ok_or(Status::NotFound),
        VM_CONFIGURATION => Ok(host.common.vm_configuration.clone()),
        PLUGIN_CONFIGURATION => Ok(host.common.configuration.clone()),
        kind if kind < KINDS => Err(Status::NotFound),
        _ => Err(Status::BadArgument),
    }
}

pub(super) fn get(
    guest: &mut Guest<'_>,
    kind: u32,
    start: u32,
    most: u32,
    at: u32,
    size_at: u32,
) -> Reply {
    let buffer = find(guest.data_mut(), kind)?;
    // As in Envoy: a start beyond the end is nothing, a size beyond it is cut; only an overflow is an error.
    let end = start.checked_add(most).ok_or(Status::BadArgument)? as usize;
    let end = end.min(buffer.len());
    let start = (start as usize).min(end);
    give(
        guest,
        buffer.get(start..end).unwrap_or_default(),
        at,
        size_at,
    )
}

pub(super) fn status(guest: &mut Guest<'_>, kind: u32, size_at: u32, flags_at: u32) -> Reply {
    let size = find(guest.data_mut(), kind)?.len();
    write_u32(guest, size_at, size as u32)?;
    Ok(write_u32(guest, flags_at, 0)?)
}

/// Replaces the first `size` bytes from 0 on (prepends where that is 0), appends from the end on; as in Envoy nothing can be put
/// into the middle.
pub(super) fn set(
    guest: &mut Guest<'_>,
    kind: u32,
    start: u32,
    size: u32,
    data: u32,
    data_size: u32,
) -> Reply {
    let direction = match kind {
        REQUEST_BODY => Direction::Request,
        RESPONSE_BODY => Direction::Response,
        _ => return Err(Status::BadArgument.into()),
    };
    let fresh = copy(guest, data, data_size)?;
    let host = guest.data_mut();
    let most = host.common.limits.memory_bytes;
    if host.current == ROOT {
        return Err(Status::BadArgument.into());
    }
    let stream = host.stream().ok_or(Status::BadArgument)?;
    if stream.phase >= Phase::Log {
        return Err(Status::BadArgument.into());
    }
    let side = stream.side(direction);
    let old = &side.buffer;
    let start = (start as usize).min(old.len());
    if start > 0 && start < old.len() {
        return Err(Status::BadArgument.into());
    }
    let end = start.saturating_add(size as usize).min(old.len());
    let after = old.len() - (end - start) + fresh.len();
    if after > most {
        return Err(Status::BadArgument.into());
    }
    side.buffer = if start == 0 && end == old.len() {
        Bytes::from(fresh)
    } else {
        let mut next = BytesMut::with_capacity(after);
        next.extend_from_slice(old.get(..start).unwrap_or_default());
        next.extend_from_slice(&fresh);
        next.extend_from_slice(old.get(end..).unwrap_or_default());
        next.freeze()
    };
    side.rewritten = true;
    Ok(())
}

/// ABI 0.1.0: the configuration of the plugin.
pub(super) fn configuration(guest: &mut Guest<'_>, at: u32, size_at: u32) -> Reply {
    let configuration = guest.data().common.configuration.clone();
    give(guest, &configuration, at, size_at)
}
