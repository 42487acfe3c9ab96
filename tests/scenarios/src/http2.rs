//! An HTTP/2 client with prior knowledge: requests side by side on one connection.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::net::TcpStream;

use crate::{Request, Seen};

/// The longest that all of them may take together.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sends all requests on one connection, at once; what came of each. A stream that is reset is not complete; one that is
/// reset before a response has status 0.
pub fn together(address: SocketAddr, requests: &[(Request, String)]) -> io::Result<Vec<Seen>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let all = tokio::time::timeout(PATIENCE, all(address, requests)).await;
        all.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    })
}

/// One request on a connection of its own.
pub fn exchange(address: SocketAddr, request: &Request, path: &str) -> io::Result<Seen> {
    let mut all = together(address, &[(request.clone(), path.to_owned())])?;
    all.pop().ok_or_else(|| io::ErrorKind::NotFound.into())
}

async fn all(address: SocketAddr, requests: &[(Request, String)]) -> io::Result<Vec<Seen>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(1 << 20)
        .initial_connection_window_size(8 << 20);
    let handshake = builder.handshake::<_, Bytes>(stream).await;
    let (sender, connection) = handshake.map_err(io::Error::other)?;
    let connection = tokio::spawn(connection);
    let streams: Vec<_> = requests
        .iter()
        .map(|(request, path)| tokio::spawn(one(sender.clone(), request.clone(), path.clone())))
        .collect();
    let mut seen = Vec::new();
    for stream in streams {
        seen.push(stream.await.map_err(io::Error::other)??);
    }
    drop(sender);
    connection.abort();
    Ok(seen)
}

async fn one(sender: SendRequest<Bytes>, request: Request, path: String) -> io::Result<Seen> {
    let mut sender = sender.ready().await.map_err(io::Error::other)?;
    let mut head = http::Request::builder()
        .method(request.method.as_str())
        .uri(format!("http://edge.example{path}"));
    for (name, value) in &request.fields {
        head = head.header(name, &value[..]);
    }
    let head = head.body(()).map_err(io::Error::other)?;
    let sent = sender.send_request(head, request.body.is_empty());
    let (response, mut body) = sent.map_err(io::Error::other)?;
    for (at, piece) in request.body.iter().enumerate() {
        let mut rest = Bytes::copy_from_slice(piece);
        while !rest.is_empty() {
            body.reserve_capacity(rest.len());
            let Some(Ok(room)) = std::future::poll_fn(|cx| body.poll_capacity(cx)).await else {
                break;
            };
            let now = rest.split_to(room.min(rest.len()));
            let last = rest.is_empty() && at + 1 == request.body.len();
            body.send_data(now, last).map_err(io::Error::other)?;
        }
    }
    let mut seen = Seen::default();
    let Ok(response) = response.await else {
        return Ok(seen);
    };
    let (head, mut body) = response.into_parts();
    seen.status = head.status.as_u16();
    seen.fields = lines(&head.headers);
    while let Some(chunk) = body.data().await {
        let Ok(chunk) = chunk else {
            return Ok(seen);
        };
        seen.body.extend_from_slice(&chunk);
        let released = body.flow_control().release_capacity(chunk.len());
        released.map_err(io::Error::other)?;
    }
    match body.trailers().await {
        Ok(trailers) => {
            seen.trailers = trailers.as_ref().map(lines).unwrap_or_default();
            seen.complete = true;
        }
        Err(_) => seen.complete = false,
    }
    Ok(seen)
}

fn lines(fields: &http::HeaderMap) -> Vec<(String, Vec<u8>)> {
    fields
        .iter()
        .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
        .collect()
}
