//! The flow of an exchange: continue, close, answer; contexts and ticks.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use crate::fields::line;
use crate::host::{Guest, ROOT, copy, view};
use crate::status::{Reply, Status};
use crate::stream::{Direction, LocalResponse};
use crate::wire;

pub(super) fn set_tick_period(guest: &mut Guest<'_>, period: u32) -> Reply {
    let host = guest.data();
    if let Some(worker) = host.worker.upgrade() {
        worker.set_tick(host.generation, Duration::from_millis(period.into()));
    }
    Ok(())
}

pub(super) fn set_effective_context(guest: &mut Guest<'_>, context: u32) -> Reply {
    let host = guest.data_mut();
    if context != ROOT && !host.streams.contains_key(&context) {
        return Err(Status::BadArgument.into());
    }
    host.current = context;
    Ok(())
}

pub(super) fn done(guest: &mut Guest<'_>) -> Reply {
    let host = guest.data_mut();
    let current = host.current;
    if !host.streams.contains_key(&current) || host.done.contains(&current) {
        return Err(Status::NotFound.into());
    }
    host.done.push(current);
    Ok(())
}

pub(super) fn continue_stream(guest: &mut Guest<'_>, kind: u32) -> Reply {
    match kind {
        0 => resume(guest, Direction::Request),
        1 => resume(guest, Direction::Response),
        // TCP streams, which an HTTP filter does not have.
        2 | 3 => Err(Status::Unimplemented.into()),
        _ => Err(Status::BadArgument.into()),
    }
}

pub(super) fn continue_request(guest: &mut Guest<'_>) -> Reply {
    resume(guest, Direction::Request)
}

pub(super) fn continue_response(guest: &mut Guest<'_>) -> Reply {
    resume(guest, Direction::Response)
}

fn resume(guest: &mut Guest<'_>, direction: Direction) -> Reply {
    let stream = guest.data_mut().stream().ok_or(Status::BadArgument)?;
    if stream.side(direction).continues() {
        stream.signal.of(direction).notify_one();
    }
    Ok(())
}

pub(super) fn close_stream(guest: &mut Guest<'_>, kind: u32) -> Reply {
    if kind > 3 {
        return Err(Status::BadArgument.into());
    }
    guest
        .data_mut()
        .stream()
        .ok_or(Status::BadArgument)?
        .close();
    Ok(())
}

/// There is one route: nothing is cached that could be cleared.
pub(super) fn clear_route_cache(_guest: &mut Guest<'_>) -> Reply {
    Ok(())
}

#[allow(clippy::too_many_arguments, reason = "the ABI's signature")]
pub(super) fn send_local_response(
    guest: &mut Guest<'_>,
    status: u32,
    details: u32,
    details_size: u32,
    body: u32,
    body_size: u32,
    headers: u32,
    headers_size: u32,
    grpc_status: i32,
) -> Reply {
    // A final response; 1xx cannot end an exchange.
    let status = u16::try_from(status)
        .ok()
        .filter(|status| (200..=599).contains(status));
    let status = status
        .and_then(|status| StatusCode::from_u16(status).ok())
        .ok_or(Status::BadArgument)?;
    view(guest, details, details_size)?;
    let body = Bytes::from(copy(guest, body, body_size)?);
    let (wire, host) = view(guest, headers, headers_size)?;
    let bound = host.common.limits.fields();
    let pairs = wire::decode(wire, bound.lines)?;
    if pairs
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum::<usize>()
        > bound.bytes
    {
        return Err(Status::BadArgument.into());
    }
    // Pseudo headers say nothing the arguments do not.
    let regular = pairs.iter().filter(|(name, _)| name.first() != Some(&b':'));
    let headers = regular
        .map(|(name, value)| line(name, value))
        .collect::<Result<_, _>>()?;
    let grpc_status = u32::try_from(grpc_status).ok();
    let stream = host.stream().ok_or(Status::BadArgument)?;
    if stream.reply(LocalResponse {
        status,
        headers,
        body,
        grpc_status,
    }) {
        Ok(())
    } else {
        Err(Status::BadArgument.into())
    }
}
