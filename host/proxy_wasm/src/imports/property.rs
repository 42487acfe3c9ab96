//! Properties: what `proxy_get_property` answers, by a path whose parts are closed by NUL.

use http::Version;
use http::header::HeaderName;

use super::log::nanos;
use crate::fields::Fields;
use crate::host::{Guest, Host, copy, give, view, view2};
use crate::status::{Reply, Status};
use crate::stream::{Phase, Stream};

/// Properties the plugins of one exchange may set.
const SET: usize = 64;
/// The longest path and value a plugin may set, bytes.
const SET_BYTES: usize = 64 << 10;

pub(super) fn get(
    guest: &mut Guest<'_>,
    path: u32,
    path_size: u32,
    at: u32,
    size_at: u32,
) -> Reply {
    let path = copy(guest, path, path_size)?;
    let path = path.strip_suffix(&[0]).unwrap_or(&path);
    let host = guest.data();
    let stream = host.streams.get(&host.current);
    let given = stream.and_then(|stream| stream.given.get(path)).cloned();
    // As in Envoy, one of several parts can be set but not read.
    let set = || {
        let stream = stream.filter(|_| !path.contains(&0))?;
        stream.notes.properties().get(path).cloned()
    };
    let value = given.or_else(|| find(host, path)).or_else(set);
    give(guest, &value.ok_or(Status::NotFound)?, at, size_at)
}

/// Sets a property of the exchange, which the plugins after this one see, too. As in Envoy the root context has none, and a name
/// of the host's own stays the host's.
pub(super) fn set(
    guest: &mut Guest<'_>,
    path: u32,
    path_size: u32,
    value: u32,
    value_size: u32,
) -> Reply {
    view(guest, value, value_size)?;
    let (path, value, host) = view2(guest, (path, path_size), (value, value_size))?;
    let path = path.strip_suffix(&[0]).unwrap_or(path);
    if path.is_empty() || path.len() + value.len() > SET_BYTES {
        return Err(Status::BadArgument.into());
    }
    let stream = host.streams.get(&host.current).ok_or(Status::NotFound)?;
    let mut set = stream.notes.properties();
    if set.len() >= SET && !set.contains_key(path) {
        return Err(Status::InternalFailure.into());
    }
    set.insert(path.to_vec(), value.to_vec());
    Ok(())
}

/// The host's own properties. Numbers, times and durations are eight bytes, little-endian, the latter in nanoseconds.
fn find(host: &Host, path: &[u8]) -> Option<Vec<u8>> {
    let mut parts = path.split(|byte| *byte == 0);
    let (first, second) = (parts.next()?, parts.next());
    let second = second.unwrap_or_default();
    match first {
        b"plugin_name" => return Some(host.common.name.clone().into_bytes()),
        b"plugin_root_id" => return Some(host.common.root_id.clone().into_bytes()),
        b"plugin_vm_id" => return Some(host.common.vm_id.clone().into_bytes()),
        _ => {}
    }
    let stream = host.streams.get(&host.current)?;
    match (first, second) {
        (b"request", b"headers") => header(stream.head(&stream.request)?, parts.next()?),
        (b"request", name) => request(stream, name),
        (b"response", b"headers") => header(stream.head(&stream.response)?, parts.next()?),
        (b"response", b"trailers") => header(stream.response.trailers.as_ref()?, parts.next()?),
        (b"response", name) => response(stream, name),
        (b"source", b"address") => Some(stream.origin.peer?.to_string().into_bytes()),
        (b"source", b"port") => number(stream.origin.peer?.port().into()),
        (b"connection", b"id") | (b"connection_id", b"") => number(connection(stream)?),
        (b"connection", b"mtls") => Some(vec![0]),
        (b"xds", name) => routed(stream, name),
        _ => None,
    }
}

fn routed(stream: &Stream, name: &[u8]) -> Option<Vec<u8>> {
    let route = stream.origin.route.as_ref();
    let value = match name {
        b"cluster_name" => route.map_or("origin", |route| &route.cluster),
        b"route_name" => route.map_or("default", |route| &route.route),
        b"virtual_host_name" => route.map_or("default", |route| &route.virtual_host),
        _ => return None,
    };
    Some(value.as_bytes().to_vec())
}

fn request(stream: &Stream, name: &[u8]) -> Option<Vec<u8>> {
    let seen = || stream.head(&stream.request);
    let path = || seen()?.pseudo(":path");
    match name {
        b"path" => path().map(<[u8]>::to_vec),
        b"url_path" => path()?
            .split(|byte| *byte == b'?')
            .next()
            .map(<[u8]>::to_vec),
        b"query" => {
            let path = path()?;
            let at = path
                .iter()
                .position(|byte| *byte == b'?')
                .map_or(path.len(), |at| at + 1);
            path.get(at..).map(<[u8]>::to_vec)
        }
        b"method" => header(seen()?, b":method"),
        b"host" => header(seen()?, b":authority"),
        b"scheme" => header(seen()?, b":scheme"),
        b"id" => header(seen()?, b"x-request-id"),
        b"referer" => header(seen()?, b"referer"),
        b"useragent" => header(seen()?, b"user-agent"),
        b"protocol" => Some(protocol(stream.origin.version).as_bytes().to_vec()),
        b"time" => number(nanos(stream.origin.started_at)),
        // Known once the request is over.
        b"duration" if stream.phase == Phase::Log => {
            number(u64::try_from(stream.origin.started.elapsed().as_nanos()).unwrap_or(u64::MAX))
        }
        b"size" => number(stream.request.seen),
        b"total_size" => {
            number(stream.request.seen + seen().map_or(0, |fields| fields.size() as u64))
        }
        _ => None,
    }
}

fn response(stream: &Stream, name: &[u8]) -> Option<Vec<u8>> {
    let fields = stream.response.fields.as_ref()?;
    match name {
        b"code" => number(fields.status()?.as_u16().into()),
        b"code_details" => Some(stream.origin.details().as_bytes().to_vec()),
        b"size" => number(stream.response.seen),
        b"total_size" => number(stream.response.seen + fields.size() as u64),
        _ => None,
    }
}

fn header(fields: &Fields, name: &[u8]) -> Option<Vec<u8>> {
    let value = match HeaderName::from_bytes(name) {
        Ok(name) if name != http::header::HOST => fields.joined(&name),
        _ => fields.get(name),
    };
    value.map(std::borrow::Cow::into_owned)
}

fn number(value: u64) -> Option<Vec<u8>> {
    Some(value.to_le_bytes().to_vec())
}

/// One number per client connection, as long as it lives: two connections never have address and port in common.
fn connection(stream: &Stream) -> Option<u64> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    stream.origin.peer?.hash(&mut hasher);
    Some(hasher.finish())
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 | Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}
