//! Header maps: `proxy_get_header_map_pairs` and its kin.

use http::header::HeaderMap;

use crate::exports::Abi;
use crate::fields::{Bound, Fields};
use crate::host::{Guest, Host, give, view, view2, write_u32};
use crate::status::{Reply, Status};
use crate::stream::{Phase, Side};
use crate::wire;

/// The last kind of map there is: the trailers of a callout.
const KINDS: u32 = 8;

/// The map of a kind, to read. `None` if the message is not there.
fn find(host: &mut Host, kind: u32) -> Result<Option<&Fields>, Status> {
    match kind {
        6 => return Ok(host.answer.as_ref().map(|answer| &answer.fields)),
        7 => return Ok(host.answer.as_ref().map(|answer| &answer.trailers)),
        kind if kind >= KINDS => return Err(Status::BadArgument),
        _ => {}
    }
    let Some(stream) = host.stream() else {
        return Ok(None);
    };
    Ok(match kind {
        0 => stream.head(&stream.request),
        1 => stream.request.trailers.as_ref(),
        2 => stream.head(&stream.response),
        3 => stream.response.trailers.as_ref(),
        // Metadata of gRPC calls, of which there are none.
        _ => None,
    })
}

/// The map of a kind, to write. `BadArgument` if there is none now, or it is not the plugin's to change.
fn find_mut(host: &mut Host, kind: u32) -> Result<(&mut Fields, Bound), Status> {
    let bound = host.common.limits.fields();
    let stream = host
        .stream()
        .filter(|stream| stream.phase < Phase::Log)
        .ok_or(Status::BadArgument)?;
    let fields = match kind {
        0 => head(&mut stream.request),
        1 => trailers(&mut stream.request),
        2 => head(&mut stream.response),
        3 => trailers(&mut stream.response),
        _ => None,
    };
    fields
        .map(|fields| (fields, bound))
        .ok_or(Status::BadArgument)
}

/// The head of a message, until it went on.
fn head(side: &mut Side) -> Option<&mut Fields> {
    let here = !side.gone;
    side.fields.as_mut().filter(|_| here)
}

/// The trailers of a message; at its end a plugin may add some, as in Envoy.
fn trailers(side: &mut Side) -> Option<&mut Fields> {
    if side.trailers.is_none() && side.end_of_stream && side.seen > 0 {
        side.trailers = Some(Fields::of_lines(HeaderMap::new()));
    }
    side.trailers.as_mut()
}

/// Bytes of all names and values, as in Envoy.
pub(super) fn size(guest: &mut Guest<'_>, kind: u32, at: u32) -> Reply {
    let map = find(guest.data_mut(), kind)?.ok_or(Status::BadArgument)?;
    let size = map.size();
    Ok(write_u32(guest, at, size as u32)?)
}

pub(super) fn pairs(guest: &mut Guest<'_>, kind: u32, at: u32, size_at: u32) -> Reply {
    let wire = find(guest.data_mut(), kind)?
        .map(|fields| wire::encode(fields.iter()))
        .unwrap_or_default();
    give(guest, &wire, at, size_at)
}

pub(super) fn set_pairs(guest: &mut Guest<'_>, kind: u32, data: u32, size: u32) -> Reply {
    let (data, host) = view(guest, data, size)?;
    let (fields, bound) = find_mut(host, kind)?;
    let pairs = wire::decode(data, bound.lines)?;
    Ok(fields.set_all(&pairs, bound)?)
}

pub(super) fn get(
    guest: &mut Guest<'_>,
    kind: u32,
    key: u32,
    key_size: u32,
    at: u32,
    size_at: u32,
) -> Reply {
    let (key, host) = view(guest, key, key_size)?;
    let abi = host.common.abi;
    let map = find(host, kind)?.ok_or(Status::BadArgument)?;
    let value = match map.get(key) {
        Some(value) => value.into_owned(),
        // SDKs of that ABI take any other status for a fault.
        None if abi == Abi::V0_1_0 => Vec::new(),
        None => return Err(Status::NotFound.into()),
    };
    give(guest, &value, at, size_at)
}

pub(super) fn add(
    guest: &mut Guest<'_>,
    kind: u32,
    key: u32,
    key_size: u32,
    value: u32,
    size: u32,
) -> Reply {
    let (key, value, host) = view2(guest, (key, key_size), (value, size))?;
    let (fields, bound) = find_mut(host, kind)?;
    Ok(fields.add(key, value, bound)?)
}

pub(super) fn replace(
    guest: &mut Guest<'_>,
    kind: u32,
    key: u32,
    key_size: u32,
    value: u32,
    size: u32,
) -> Reply {
    let (key, value, host) = view2(guest, (key, key_size), (value, size))?;
    let (fields, bound) = find_mut(host, kind)?;
    Ok(fields.replace(key, value, bound)?)
}

pub(super) fn remove(guest: &mut Guest<'_>, kind: u32, key: u32, key_size: u32) -> Reply {
    let (key, host) = view(guest, key, key_size)?;
    let (fields, _) = find_mut(host, kind)?;
    Ok(fields.remove(key)?)
}
