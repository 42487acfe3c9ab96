//! Header maps: `proxy_get_header_map_pairs` and its kin.

use http::header::HeaderMap;

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
        0 => stream.request.fields.as_ref(),
        1 => stream.request.trailers.as_ref(),
        2 => stream.response.fields.as_ref(),
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
        .filter(|stream| stream.phase < Phase::Done)
        .ok_or(Status::BadArgument)?;
    let fields = match kind {
        0 => stream.request.fields.as_mut(),
        1 => trailers(&mut stream.request),
        2 => stream.response.fields.as_mut(),
        3 => trailers(&mut stream.response),
        _ => None,
    };
    fields
        .map(|fields| (fields, bound))
        .ok_or(Status::BadArgument)
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
    let size = find(guest.data_mut(), kind)?.map_or(0, Fields::size);
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
    let value = find(host, kind)?
        .and_then(|fields| fields.get(key))
        .ok_or(Status::NotFound)?
        .into_owned();
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
