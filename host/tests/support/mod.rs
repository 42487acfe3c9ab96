//! Origins and clients for the tests: plain ones, none of the host's own code.
#![allow(dead_code)]

pub mod envoy;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use edgeweir::config::Config;
use edgeweir::host::Host;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Channel, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub type TestBody = UnsyncBoxBody<Bytes, BoxError>;

pub fn full(bytes: impl Into<Bytes>) -> TestBody {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

pub fn empty() -> TestBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// Pieces, then trailers.
pub fn pieces(pieces: Vec<Bytes>, trailers: Option<HeaderMap>) -> TestBody {
    let (mut sender, body) = Channel::<Bytes, BoxError>::new(1);
    tokio::spawn(async move {
        for piece in pieces {
            if sender.send(Frame::data(piece)).await.is_err() {
                return;
            }
        }
        if let Some(trailers) = trailers {
            let _ = sender.send(Frame::trailers(trailers)).await;
        }
    });
    body.boxed_unsync()
}

/// A body with a pattern by which a byte out of place is seen.
pub fn pattern(length: usize) -> Bytes {
    (0..length)
        .map(|at| (at % 251) as u8)
        .collect::<Vec<_>>()
        .into()
}

/// A good origin on HTTP/1.1 and HTTP/2.
pub async fn origin() -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = socket.accept().await {
            stream.set_nodelay(true).unwrap();
            tokio::spawn(async move {
                let mut builder = Builder::new(TokioExecutor::new());
                builder.http1().max_headers(2_000);
                let serving = builder.serve_connection(TokioIo::new(stream), service_fn(answer));
                let _ = serving.await;
            });
        }
    });
    address
}

async fn answer(request: Request<Incoming>) -> Result<Response<TestBody>, Infallible> {
    let path = request.uri().path().to_owned();
    let response = match path.as_str() {
        "/echo" => {
            let length = request.headers().get("content-length").cloned();
            let te = request.headers().get("te").cloned();
            let body = request.into_body().map_err(Into::into).boxed_unsync();
            let mut response = Response::new(body);
            if let Some(length) = length {
                response.headers_mut().insert("content-length", length);
            }
            if let Some(te) = te {
                response.headers_mut().insert("x-te", te);
            }
            response
                .headers_mut()
                .insert("trailer", "x-sum".parse().unwrap());
            response
        }
        // Nothing until all of the body came.
        "/collect" => match request.into_body().collect().await {
            Ok(_) => Response::new(full("ok")),
            Err(_) => std::future::pending().await,
        },
        // What arrived, as text.
        "/head" => {
            let mut text = format!(
                "{} {} {:?} authority={:?}\n",
                request.method(),
                request.uri().path_and_query().unwrap(),
                request.version(),
                request.uri().authority().map(ToString::to_string),
            );
            for (name, value) in request.headers() {
                text.push_str(&format!(
                    "{name}: {}\n",
                    String::from_utf8_lossy(value.as_bytes())
                ));
            }
            Response::new(full(text))
        }
        "/chunks" => Response::new(pieces(vec![pattern(1), pattern(70_000), pattern(3)], None)),
        "/large" => {
            // Made once: unoptimised it takes longer than what it is for.
            static LARGE: LazyLock<Bytes> = LazyLock::new(|| pattern(5_000_000));
            Response::new(full(LARGE.clone()))
        }
        "/trailers" => {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", "42".parse().unwrap());
            let mut response = Response::new(pieces(vec!["body".into()], Some(trailers)));
            response
                .headers_mut()
                .insert("trailer", "x-sum".parse().unwrap());
            response
        }
        "/length" if request.method() == http::Method::HEAD => {
            let mut response = Response::new(empty());
            response
                .headers_mut()
                .insert("content-length", "1234".parse().unwrap());
            response
        }
        "/not-modified" => {
            let mut response = Response::new(empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
                .headers_mut()
                .insert("etag", "\"a\"".parse().unwrap());
            response
        }
        "/no-content" => {
            let mut response = Response::new(empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
        "/hop" => {
            let mut response = Response::new(full("hop"));
            response
                .headers_mut()
                .insert("connection", "x-hop".parse().unwrap());
            response.headers_mut().insert("x-hop", "1".parse().unwrap());
            response
                .headers_mut()
                .insert("keep-alive", "5".parse().unwrap());
            response.headers_mut().insert("x-end", "1".parse().unwrap());
            response
        }
        "/bytes" => {
            let mut response = Response::new(full("x"));
            let value = http::HeaderValue::from_bytes(b"caf\xe9").unwrap();
            response.headers_mut().insert("x-latin", value);
            response
        }
        "/slow" => {
            tokio::time::sleep(Duration::from_millis(400)).await;
            Response::new(full("slow"))
        }
        "/never" => std::future::pending().await,
        _ => Response::new(full("ok")),
    };
    Ok(response)
}

/// An origin that reads a head, writes these bytes and closes, for each connection.
pub async fn scripted(bytes: &'static [u8], linger: Duration) -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = socket.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                let mut buffer = [0; 4096];
                while !head.windows(4).any(|window| window == b"\r\n\r\n") {
                    match stream.read(&mut buffer).await {
                        Ok(0) | Err(_) => return,
                        Ok(count) => head.extend_from_slice(&buffer[..count]),
                    }
                }
                let _ = stream.write_all(bytes).await;
                tokio::time::sleep(linger).await;
            });
        }
    });
    address
}

/// A host with one listener and no filters.
pub async fn host(upstream: SocketAddr, extra: &str) -> Host {
    let text = format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"main\"\nlisten = \"127.0.0.1:0\"\nupstream = \"origin\"\n\
         [upstream.origin]\naddress = \"{upstream}\"\n{extra}\n"
    );
    Host::start(Config::parse(Path::new("test.toml"), text).unwrap())
        .await
        .unwrap()
}

/// Sends bytes on a connection of their own and reads until it closes.
pub async fn raw(address: SocketAddr, request: impl AsRef<[u8]>) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The answer may come before the whole request was read.
    let _ = stream.write_all(request.as_ref()).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
    answer
}

pub async fn get_raw(address: SocketAddr, path: &str, fields: &str) -> String {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n{fields}\r\n");
    String::from_utf8_lossy(&raw(address, request).await).into_owned()
}

/// A client of either version, on one connection.
pub enum Client {
    Http1(hyper::client::conn::http1::SendRequest<TestBody>),
    Http2(hyper::client::conn::http2::SendRequest<TestBody>),
}

impl Client {
    pub async fn connect(address: SocketAddr, http2: bool) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let io = TokioIo::new(stream);
        if http2 {
            let (sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
                    .await
                    .unwrap();
            tokio::spawn(connection);
            Self::Http2(sender)
        } else {
            let (sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            Self::Http1(sender)
        }
    }

    pub async fn send(&mut self, request: Request<TestBody>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Self::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }

    /// A request in the form each version wants.
    pub fn request(&self, method: &str, path: &str) -> http::request::Builder {
        match self {
            Self::Http1(_) => Request::builder()
                .method(method)
                .uri(path)
                .header("host", "example.org"),
            Self::Http2(_) => Request::builder()
                .method(method)
                .uri(format!("http://example.org{path}")),
        }
    }

    pub async fn get(&mut self, path: &str) -> (http::response::Parts, Bytes, Option<HeaderMap>) {
        let request = self.request("GET", path).header("te", "trailers");
        let response = self.send(request.body(empty()).unwrap()).await.unwrap();
        collect(response).await.unwrap()
    }
}

pub async fn collect(
    response: Response<Incoming>,
) -> hyper::Result<(http::response::Parts, Bytes, Option<HeaderMap>)> {
    let (parts, body) = response.into_parts();
    let collected = body.collect().await?;
    let trailers = collected.trailers().cloned();
    Ok((parts, collected.to_bytes(), trailers))
}
