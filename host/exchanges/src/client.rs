//! Sends a request as it is given, in its pieces and with its trailers, and takes the response down.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use http::{HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::message::{Answer, Asked, Body, End, fields_of, in_pieces, map_of, whole};

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
        let answer = tokio::time::timeout(PATIENCE, self.exchange(asked)).await;
        answer.unwrap_or_else(|_| {
            anyhow::bail!("no response from {} within {PATIENCE:?}", self.target)
        })
    }

    async fn exchange(&mut self, asked: &Asked) -> Result<Answer> {
        let kept = match self.open.take() {
            Some(mut sender) => {
                let response = self.on_kept(&mut sender, asked).await?;
                response.map(|response| (sender, response))
            }
            None => None,
        };
        let (sender, response) = match kept {
            Some(kept) => kept,
            None => self.on_new(asked).await?,
        };
        self.taken(sender, response).await
    }

    /// The response on a connection of before; `None` where the request is to be sent on a new one.
    async fn on_kept(
        &self,
        sender: &mut http1::SendRequest<Body>,
        asked: &Asked,
    ) -> Result<Option<Response<Incoming>>> {
        if sender.ready().await.is_err() {
            return Ok(None);
        }
        let request = request(asked, self.target)?;
        // RFC 9110 §9.2.2: "A client SHOULD NOT automatically retry a request with a non-idempotent method unless it has some
        // means to know that the request semantics are actually idempotent, regardless of the method, or some means to detect
        // that the original request was never applied." What comes back unsent was not.
        let idempotent = request.method().is_idempotent();
        match sender.try_send_request(request).await {
            Ok(response) => Ok(Some(response)),
            Err(error) if idempotent || error.message().is_some() => Ok(None),
            Err(error) => Err(error.into_error()).with_context(|| {
                format!("{} closed the connection without a response", self.target)
            }),
        }
    }

    async fn on_new(
        &self,
        asked: &Asked,
    ) -> Result<(http1::SendRequest<Body>, Response<Incoming>)> {
        let stream = TcpStream::connect(self.target)
            .await
            .context(Unreachable(self.target))?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        sender.ready().await?;
        let response = sender.send_request(request(asked, self.target)?).await?;
        Ok((sender, response))
    }

    /// The response as it comes; the connection is kept where it may be.
    async fn taken(
        &mut self,
        sender: http1::SendRequest<Body>,
        response: Response<Incoming>,
    ) -> Result<Answer> {
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
        [] if asked.trailers.is_empty() => whole(Empty::new()),
        [one] if asked.trailers.is_empty() => whole(Full::new(one.clone())),
        pieces => in_pieces(pieces, End::Whole(map_of(&asked.trailers))),
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

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Answers the first request of each connection, reads the second and closes; what it has read.
    fn closing() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = socket.local_addr().expect("an address");
        let read = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&read);
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = socket.accept() {
                for answered in [true, false] {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let mut byte = [0];
                        match stream.read(&mut byte) {
                            Ok(1) => head.extend(byte),
                            _ => break,
                        }
                    }
                    let head = String::from_utf8_lossy(&head);
                    let line = head.lines().next().unwrap_or_default();
                    let mut seen = seen.lock().expect("no panic");
                    seen.push(line.trim_end_matches(" HTTP/1.1").to_owned());
                    if answered {
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
                    }
                }
            }
        });
        (address, read)
    }

    fn asked(method: &str, target: &str) -> Asked {
        Asked {
            method: method.to_owned(),
            target: target.to_owned(),
            ..Asked::default()
        }
    }

    #[tokio::test]
    async fn what_may_have_been_processed_is_not_sent_again() {
        let (address, read) = closing();
        let mut client = Client::new(address);
        client.send(&asked("POST", "/1")).await.expect("a response");
        let error = client.send(&asked("POST", "/2")).await;
        assert!(error.is_err(), "{error:?}");
        // An idempotent one is, and on a connection of its own.
        client.send(&asked("POST", "/3")).await.expect("a response");
        client.send(&asked("PUT", "/4")).await.expect("a response");
        assert_eq!(
            *read.lock().expect("no panic"),
            ["POST /1", "POST /2", "POST /3", "PUT /4", "PUT /4"]
        );
    }

    #[tokio::test]
    async fn what_was_never_sent_is_sent_on_a_new_connection() {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = socket.local_addr().expect("an address");
        // Each connection is closed after its first response, which does not say so.
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = socket.accept() {
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
            }
        });
        let mut client = Client::new(address);
        for _ in 0..2 {
            client.send(&asked("POST", "/")).await.expect("a response");
            // The connection's task does not run meanwhile: only sending finds out.
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
