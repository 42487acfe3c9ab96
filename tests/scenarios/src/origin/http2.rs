//! The HTTP/2 origin, with prior knowledge: for trailers, above all.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderName, HeaderValue, Request as Asked, Response};
use tokio::net::{TcpListener, TcpStream};

use super::Slots;
use crate::{Framing, Origin, Received};

pub(super) fn start(slots: Arc<Slots>) -> io::Result<SocketAddr> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        runtime.block_on(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&slots)));
            }
        });
    });
    Ok(address)
}

async fn serve(stream: TcpStream, slots: Arc<Slots>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    while let Some(Ok((asked, respond))) = connection.accept().await {
        let slots = Arc::clone(&slots);
        // An error here is the edge's: it left, or reset the stream.
        tokio::spawn(async move { exchange(asked, respond, &slots).await });
    }
}

async fn exchange(
    asked: Asked<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    slots: &Slots,
) -> Result<(), h2::Error> {
    let (head, mut body) = asked.into_parts();
    let mut received = Received {
        method: head.method.to_string(),
        path: head
            .uri
            .path_and_query()
            .map(ToString::to_string)
            .unwrap_or_default(),
        fields: head
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
            .collect(),
        body: Vec::new(),
    };
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        received.body.extend_from_slice(&chunk);
        body.flow_control().release_capacity(chunk.len())?;
    }
    let is_head = received.method == "HEAD";
    let origin = slots
        .take(received)
        .unwrap_or_else(|| Arc::new(Origin::status(404)));
    tokio::time::sleep(origin.delay).await;
    let mut response = Response::new(());
    if let Ok(status) = http::StatusCode::from_u16(origin.status) {
        *response.status_mut() = status;
    }
    *response.headers_mut() = fields(origin.fields.iter().map(|(n, v)| (n.as_str(), &v[..])));
    let bodiless = is_head || matches!(origin.status, 204 | 304);
    if origin.framing == Framing::Length && !matches!(origin.status, 204 | 304) {
        response
            .headers_mut()
            .entry("content-length")
            .or_insert(origin.length().into());
    }
    let ends = bodiless || (origin.body.is_empty() && origin.trailers.is_empty() && !origin.cut);
    let mut stream = respond.send_response(response, ends)?;
    if ends {
        return Ok(());
    }
    for (at, piece) in origin.body.iter().enumerate() {
        if at > 0 {
            tokio::time::sleep(origin.pause).await;
        }
        let waiting = Arc::clone(&origin);
        let may_send = tokio::task::spawn_blocking(move || waiting.may_send(at)).await;
        if !may_send.unwrap_or(false) {
            stream.send_reset(h2::Reason::INTERNAL_ERROR);
            return Ok(());
        }
        let last = at + 1 == origin.body.len() && origin.trailers.is_empty() && !origin.cut;
        send(&mut stream, piece, last).await?;
    }
    if origin.cut {
        // What was written is to reach the edge before the reset.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        stream.send_reset(h2::Reason::INTERNAL_ERROR);
    } else if !origin.trailers.is_empty() {
        let trailers = origin
            .trailers
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_bytes()));
        stream.send_trailers(fields(trailers))?;
    }
    Ok(())
}

async fn send(
    stream: &mut h2::SendStream<Bytes>,
    piece: &[u8],
    last: bool,
) -> Result<(), h2::Error> {
    let mut rest = Bytes::copy_from_slice(piece);
    while !rest.is_empty() {
        stream.reserve_capacity(rest.len());
        let Some(room) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else {
            return Ok(());
        };
        let now = rest.split_to(room?.min(rest.len()));
        stream.send_data(now, last && rest.is_empty())?;
    }
    Ok(())
}

fn fields<'f>(lines: impl Iterator<Item = (&'f str, &'f [u8])>) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for (name, value) in lines {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(value))
        {
            fields.append(name, value);
        }
    }
    fields
}
