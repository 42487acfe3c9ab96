//! Sends a request as it is given, in its pieces and with its trailers, and takes the response down.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use http::{HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::message::{Answer, Asked, Body, fields_of, in_pieces, map_of};

/// The longest an exchange may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The most of a body that is kept, bytes; more is an error.
const MOST: usize = 64 << 20;

/// No connection: nothing can be said of responses.
#[derive(Clone, Copy, Debug)]
pub struct Unreachable(SocketAddr);

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connecting to {}", self.0)
    }
}

/// One connection, opened when it is needed and again when it was closed.
pub struct Client {
    target: SocketAddr,
    open: Option<http1::SendRequest<Body>>,
}

impl Client {
    /// To this address.
    pub fn new(target: SocketAddr) -> Self {
        Self { target, open: None }
    }

    /// One exchange. A body that ends early is a response that says so; no response at all is an error.
    pub async fn send(&mut self, asked: &Asked) -> Result<Answer> {
        let first = self.open.is_some();
        let answer = match tokio::time::timeout(PATIENCE, self.attempt(asked)).await {
            Ok(answer) => answer,
            Err(_) => {
                self.open = None;
                anyhow::bail!("no response from {} within {PATIENCE:?}", self.target);
            }
        };
        match answer {
            // A kept connection may have been closed just now: once again on a new one.
            Err(_) if first && self.open.is_none() => {
                tokio::time::timeout(PATIENCE, self.attempt(asked))
                    .await
                    .context("no response in time")?
            }
            answer => answer,
        }
    }

    async fn attempt(&mut self, asked: &Asked) -> Result<Answer> {
        let mut sender = match self.open.take() {
            Some(sender) if !sender.is_closed() => sender,
            _ => {
                let stream = TcpStream::connect(self.target)
                    .await
                    .context(Unreachable(self.target))?;
                stream.set_nodelay(true)?;
                let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
                tokio::spawn(connection);
                sender
            }
        };
        sender.ready().await?;
        let response = sender.send_request(request(asked, self.target)?).await?;
        let (head, mut body) = response.into_parts();
        let mut answer = Answer {
            status: head.status.as_u16(),
            fields: fields_of(&head.headers),
            ..Answer::default()
        };
        let mut size = 0;
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => {
                        size += data.len();
                        anyhow::ensure!(size <= MOST, "a body of more than {MOST} bytes");
                        answer.body.push(data);
                    }
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers() {
                            answer.trailers = fields_of(&trailers);
                        }
                    }
                },
                Err(_) => {
                    answer.cut = true;
                    return Ok(answer);
                }
            }
        }
        let closes = answer
            .text("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if !closes {
            self.open = Some(sender);
        }
        Ok(answer)
    }
}

/// The request as hyper sends it: Host and framing are made here.
fn request(asked: &Asked, target: SocketAddr) -> Result<Request<Body>> {
    let body: Body = match asked.body.as_slice() {
        [] if asked.trailers.is_empty() => Empty::new().boxed_unsync(),
        [one] if asked.trailers.is_empty() => Full::new(one.clone()).boxed_unsync(),
        pieces => in_pieces(pieces, map_of(&asked.trailers)),
    };
    let mut request = Request::new(body);
    *request.method_mut() = Method::from_bytes(asked.method.as_bytes()).context("the method")?;
    *request.uri_mut() = asked
        .target
        .parse::<Uri>()
        .with_context(|| format!("the target {}", asked.target))?;
    let authority = if asked.authority.is_empty() {
        target.to_string()
    } else {
        asked.authority.clone()
    };
    let fields = request.headers_mut();
    fields.insert(
        header::HOST,
        HeaderValue::from_str(&authority).context("the authority")?,
    );
    for (name, value) in &map_of(&asked.fields) {
        fields.append(name, value.clone());
    }
    if !asked.trailers.is_empty() {
        let names: Vec<&str> = asked
            .trailers
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        fields.insert(header::TRAILER, HeaderValue::from_str(&names.join(", "))?);
    }
    // A length the body does not have would hang the exchange.
    fields.remove(header::CONTENT_LENGTH);
    for name in ["connection", "keep-alive", "transfer-encoding", "upgrade"] {
        fields.remove(HeaderName::from_static(name));
    }
    Ok(request)
}
