//! `proxy_http_call`, and the gRPC functions, which this host does not serve.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use http::{Method, Uri};
use http_body_util::{BodyExt, Full};

use crate::callout::Callout;
use crate::fields::line;
use crate::host::{Guest, ROOT, copy, give, view, write_u32};
use crate::status::{Reply, Status};
use crate::wire;

#[allow(clippy::too_many_arguments, reason = "the ABI's signature")]
pub(super) fn http_call(
    guest: &mut Guest<'_>,
    upstream: u32,
    upstream_size: u32,
    headers: u32,
    headers_size: u32,
    body: u32,
    body_size: u32,
    trailers: u32,
    trailers_size: u32,
    timeout: u32,
    token_at: u32,
) -> Reply {
    // As in Envoy, to which it is a signed number.
    if i32::try_from(timeout).is_err() {
        return Err(Status::BadArgument.into());
    }
    view(guest, token_at, 4)?;
    let body = Bytes::from(copy(guest, body, body_size)?);
    let bound = guest.data().common.limits.fields();
    let trailers = copy(guest, trailers, trailers_size)?;
    let trailers = lines(&wire::decode(&trailers, bound.lines)?)?;
    let (upstream, host) = view(guest, upstream, upstream_size)?;
    let upstream = std::str::from_utf8(upstream).map_err(|_| Status::BadArgument)?;
    let cluster = upstream.to_owned();
    let target = match &host.common.world.clusters {
        Some(clusters) if clusters.knows(upstream) => Some("127.0.0.1".to_owned()),
        Some(_) => None,
        None => host.common.clusters.get(upstream).cloned(),
    };
    let target = target.ok_or(Status::BadArgument)?;
    let (headers, host) = view(guest, headers, headers_size)?;
    let request = request(
        &wire::decode(headers, bound.lines)?,
        &target,
        body,
        trailers,
    )?;
    let most = host.common.limits.callouts;
    let context = host.current;
    let under_way = match host.stream() {
        Some(stream) => &mut stream.callouts,
        None => &mut host.root_callouts,
    };
    if *under_way >= most {
        return Err(Status::InternalFailure.into());
    }
    let tokio = tokio::runtime::Handle::try_current().map_err(|_| Status::InternalFailure)?;
    *under_way += 1;
    debug_assert!(context == ROOT || host.streams.contains_key(&context));
    let token = host.next_token;
    host.next_token = token.checked_add(1).unwrap_or(1);
    host.callouts.insert(token, context);
    let callout = Callout {
        token,
        generation: host.generation,
        worker: host.worker.clone(),
        cluster,
        request,
        // As in Envoy: none is none.
        timeout: (timeout > 0).then(|| Duration::from_millis(timeout.into())),
        most: host.common.limits.callout_bytes,
    };
    tokio.spawn(callout.run(host.common.client.clone(), host.common.world.clone()));
    Ok(write_u32(guest, token_at, token)?)
}

/// Builds the request. `:method`, `:path` and `:authority` must be there, as in Envoy.
fn request(
    pairs: &[(&[u8], &[u8])],
    target: &str,
    body: Bytes,
    trailers: HeaderMap,
) -> Result<http::Request<edgeweir_host_chain::Body>, Status> {
    let pseudo = |wanted: &str| {
        pairs
            .iter()
            .find(|(name, _)| *name == wanted.as_bytes())
            .map(|(_, value)| *value)
    };
    let method = pseudo(":method")
        .and_then(|method| Method::from_bytes(method).ok())
        .ok_or(Status::BadArgument)?;
    let path = pseudo(":path")
        .filter(|path| path.first() == Some(&b'/'))
        .ok_or(Status::BadArgument)?;
    let authority = pseudo(":authority")
        .or_else(|| pseudo("host"))
        .ok_or(Status::BadArgument)?;
    let host = HeaderValue::from_bytes(authority).map_err(|_| Status::BadArgument)?;
    let uri = Uri::builder()
        .scheme("http")
        .authority(target)
        .path_and_query(path)
        .build();
    let regular: Vec<_> = pairs
        .iter()
        .copied()
        .filter(|(name, _)| name.first() != Some(&b':'))
        .collect();
    let mut headers = lines(&regular)?;
    // The length is the body's, the host is the authority asked for, the framing is the client's.
    headers.remove(CONTENT_LENGTH);
    headers.remove(TRANSFER_ENCODING);
    headers.insert(HOST, host);
    let body = if trailers.is_empty() {
        Full::new(body)
            .map_err(|never| match never {})
            .boxed_unsync()
    } else {
        Full::new(body)
            .with_trailers(async { Some(Ok(trailers)) })
            .map_err(|never| match never {})
            .boxed_unsync()
    };
    let mut request = http::Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = uri.map_err(|_| Status::BadArgument)?;
    *request.headers_mut() = headers;
    Ok(request)
}

fn lines(pairs: &[(&[u8], &[u8])]) -> Result<HeaderMap, Status> {
    let mut lines_ = HeaderMap::with_capacity(pairs.len());
    for (name, value) in pairs {
        let (name, value) = line(name, value)?;
        lines_
            .try_append(name, value)
            .map_err(|_| Status::BadArgument)?;
    }
    Ok(lines_)
}

macro_rules! not_served {
    ($($name:ident [$($arg:ident),*];)*) => { $(
        #[allow(clippy::too_many_arguments, reason = "the ABI's signature")]
        pub(super) fn $name(_guest: &mut Guest<'_>, $($arg: u32),*) -> Reply {
            Err(Status::Unimplemented.into())
        }
    )* };
}

not_served! {
    grpc_call_0_1_0[_a, _b, _c, _d, _e, _f, _g, _h, _i, _j];
    grpc_stream_0_1_0[_a, _b, _c, _d, _e, _f, _g];
    grpc_call[_a, _b, _c, _d, _e, _f, _g, _h, _i, _j, _k, _l];
    grpc_stream[_a, _b, _c, _d, _e, _f, _g, _h, _i];
}

/// No gRPC call is under way, so no token names one.
pub(super) fn grpc_token(_guest: &mut Guest<'_>, _token: u32) -> Reply {
    Err(Status::NotFound.into())
}

/// See [`grpc_token`].
pub(super) fn grpc_send(
    guest: &mut Guest<'_>,
    token: u32,
    _data: u32,
    _size: u32,
    _end: u32,
) -> Reply {
    grpc_token(guest, token)
}

/// The status of the last callout: its HTTP status inside its callback, else 0.
pub(super) fn get_status(guest: &mut Guest<'_>, code_at: u32, at: u32, size_at: u32) -> Reply {
    let status = guest
        .data()
        .answer
        .as_ref()
        .and_then(|answer| answer.fields.status());
    write_u32(
        guest,
        code_at,
        status.map_or(0, |status| status.as_u16().into()),
    )?;
    give(
        guest,
        status
            .and_then(|status| status.canonical_reason())
            .unwrap_or_default()
            .as_bytes(),
        at,
        size_at,
    )
}
