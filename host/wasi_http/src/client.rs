//! Requests of guests to the network in the clear, over connections that are kept for the next one.

use std::error::Error as _;
use std::fmt::Display;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use edgeweir_host_chain::{Activity, EndToEnd, OF_THE_CONNECTION, named_by_connection};
use http::{Request, Response, Version};
use http_body::Body;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{HttpConnector, capture_connection};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};

use crate::body::Timely;
use crate::quiet::Quiet;

/// How long a connection is kept: less than the five seconds after which common servers (Node.js) close theirs.
const KEPT: Duration = Duration::from_secs(4);
/// Connections kept for each authority.
const KEPT_EACH: usize = 64;

/// The most fields of a response that are read at all; the guest's own limits are looked at after.
const MOST_FIELDS: usize = 8192;

/// Where nobody set a limit; far enough, and no clock overflows by it.
const UNBOUNDED: Duration = Duration::from_secs(86_400);

/// Sends requests, and keeps connections.
#[derive(Clone)]
pub(crate) struct Client(legacy::Client<HttpConnector, WasiBody>);

impl Client {
    pub(crate) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self(
            legacy::Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(KEPT)
                .pool_max_idle_per_host(KEPT_EACH)
                .http1_max_headers(MOST_FIELDS)
                .build(connector),
        )
    }

    /// Sends a request and gives the response's head with a body that reads on. The time to the head runs from the last
    /// `activity`.
    pub(crate) async fn send(
        &self,
        mut request: Request<WasiBody>,
        options: RequestOptions,
        activity: &Activity,
    ) -> Result<Response<Incoming>, Error> {
        *request.version_mut() = Version::HTTP_11;
        let again = repeatable(&request);
        match (self.once(request, &options, activity).await, again) {
            // RFC 9110 §9.2.2: "Idempotent methods are distinguished because the request can be repeated automatically if a
            // communication failure occurs before the client is able to read the server's response." The server may have
            // closed a kept connection while the request was on its way.
            (Err(Error::ConnectionTerminated), Some(again)) => {
                self.once(again, &options, activity).await
            }
            (response, _) => response,
        }
    }

    async fn once(
        &self,
        mut request: Request<WasiBody>,
        options: &RequestOptions,
        activity: &Activity,
    ) -> Result<Response<Incoming>, Error> {
        let mut connection = capture_connection(&mut request);
        let mut answer = pin!(self.0.request(request));
        let connected = async {
            let _ = connection.wait_for_connection_metadata().await;
        };
        let most = |limit: Option<Duration>| limit.unwrap_or(UNBOUNDED);
        tokio::select! {
            biased;
            answered = answer.as_mut() => return answered.map_err(mapped),
            () = connected => {}
            () = tokio::time::sleep(most(options.connect_timeout)) => return Err(Error::ConnectionTimeout),
        }
        activity.moved();
        tokio::select! {
            answered = answer => answered.map_err(mapped),
            () = activity.silent_for(most(options.first_byte_timeout)) => Err(Error::ConnectionReadTimeout),
        }
    }
}

/// The response as a guest gets it: without what `Connection` names, while that can still be read, which never comes to a
/// guest; and with a body that is `idle` no longer than so.
pub(crate) fn received<B>(
    response: Response<B>,
    idle: Duration,
    quiet: Option<Arc<Quiet>>,
) -> Response<WasiBody>
where
    B: Body<Data = Bytes, Error: Display> + Send + Unpin + 'static,
{
    let (mut parts, body) = response.into_parts();
    let named = named_by_connection(&parts.headers);
    for name in named.iter().chain(&OF_THE_CONNECTION) {
        parts.headers.remove(name);
    }
    let body = EndToEnd::new(body, named);
    Response::from_parts(parts, Timely::new(body, idle, quiet).boxed_unsync())
}

/// The same request again, where sending it twice does what sending it once does (RFC 9110 §9.2.2) and there is no body, which
/// could not be had again.
fn repeatable(request: &Request<WasiBody>) -> Option<Request<WasiBody>> {
    if !request.method().is_idempotent() || !request.body().is_end_stream() {
        return None;
    }
    let none = Empty::<Bytes>::new().map_err(|never| match never {});
    let mut again = Request::new(none.boxed_unsync());
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.headers_mut() = request.headers().clone();
    *again.version_mut() = request.version();
    Some(again)
}

fn mapped(error: legacy::Error) -> Error {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(cause) = cause
            .downcast_ref::<io::Error>()
            .filter(|_| error.is_connect())
        {
            return Error::Connect(match cause.raw_os_error() {
                Some(code) => io::Error::from_raw_os_error(code),
                None => io::Error::new(cause.kind(), cause.to_string()),
            });
        }
        if let Some(cause) = cause.downcast_ref::<hyper::Error>() {
            return if cause.is_timeout() {
                Error::HttpResponseTimeout
            } else if cause.is_parse() || cause.is_user() {
                Error::HttpProtocolError
            } else {
                Error::ConnectionTerminated
            };
        }
        source = cause.source();
    }
    match error.is_connect() {
        true => Error::ConnectionRefused,
        false => Error::ConnectionTerminated,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use http::Method;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    fn request(address: SocketAddr, method: Method) -> Request<WasiBody> {
        let none = Empty::<Bytes>::new().map_err(|never| match never {});
        Request::builder()
            .method(method)
            .uri(format!("http://{address}/"))
            .body(none.boxed_unsync())
            .expect("a request")
    }

    /// Answers as many requests on each connection as are listed, in turn, and closes it without a word at the one after.
    async fn origin(each: &'static [usize]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            for (number, answers) in each.iter().enumerate() {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                for _ in 0..*answers {
                    head(&mut stream).await;
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\nx-connection: {number}\r\ncontent-length: 1\r\n\r\nx"
                    );
                    stream.write_all(answer.as_bytes()).await.expect("written");
                }
                head(&mut stream).await;
            }
        });
        address
    }

    /// Reads to the end of a head, or of the connection.
    async fn head(stream: &mut TcpStream) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
    }

    async fn sent(client: &Client, request: Request<WasiBody>) -> Result<String, Error> {
        let options = RequestOptions::default();
        let response = client.send(request, options, &Activity::start()).await?;
        let on = response.headers()["x-connection"]
            .to_str()
            .expect("text")
            .to_owned();
        response.into_body().collect().await.map_err(Error::from)?;
        Ok(on)
    }

    #[tokio::test]
    async fn a_connection_serves_many_requests() {
        let address = origin(&[3]).await;
        let client = Client::new();
        for _ in 0..3 {
            let on = sent(&client, request(address, Method::GET)).await;
            assert_eq!(on.expect("a response"), "0");
        }
    }

    #[tokio::test]
    async fn what_can_be_sent_twice_is_when_a_connection_ends_without_an_answer() {
        let address = origin(&[0, 1]).await;
        let on = sent(&Client::new(), request(address, Method::GET)).await;
        assert_eq!(on.expect("a response"), "1");
        let address = origin(&[0, 1]).await;
        let error = sent(&Client::new(), request(address, Method::POST)).await;
        assert!(
            matches!(error, Err(Error::ConnectionTerminated)),
            "{error:?}"
        );
    }

    #[tokio::test]
    async fn many_fields_come_and_those_of_the_connection_do_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            head(&mut stream).await;
            let many: String = (0..200).map(|n| format!("x-{n}: 1\r\n")).collect();
            let own =
                "connection: x-y, transfer-encoding\r\nx-y: 1\r\ntransfer-encoding: chunked\r\n";
            let body = "1\r\na\r\n0\r\nx-y: 1\r\nx-z: 1\r\n\r\n";
            let answer = format!("HTTP/1.1 200 OK\r\n{own}{many}\r\n{body}");
            stream.write_all(answer.as_bytes()).await.expect("written");
        });
        let response = Client::new()
            .send(
                request(address, Method::GET),
                RequestOptions::default(),
                &Activity::start(),
            )
            .await
            .expect("a response");
        let response = received(response, UNBOUNDED, None);
        let fields = response.headers();
        assert!(fields.contains_key("x-199"));
        assert!(!fields.contains_key("x-y"));
        assert!(!fields.contains_key("connection"));
        let body = response.into_body().collect().await.expect("whole");
        let trailers = body.trailers().expect("trailers");
        assert!(!trailers.contains_key("x-y"));
        assert!(trailers.contains_key("x-z"));
    }

    #[tokio::test]
    async fn a_request_that_moves_is_not_late() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut upload = Vec::new();
            while !upload.ends_with(b"0\r\n\r\n") {
                upload.push(stream.read_u8().await.expect("a byte"));
            }
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer).await.expect("written");
        });
        let (mut sender, body) = http_body_util::channel::Channel::<Bytes, Error>::new(1);
        let activity = Activity::start();
        let upload = request(address, Method::POST).map(|_| activity.noting(body.boxed_unsync()));
        tokio::spawn(async move {
            for _ in 0..8 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                sender.send_data("x".into()).await.expect("taken");
            }
        });
        let options = RequestOptions {
            first_byte_timeout: Some(Duration::from_millis(400)),
            ..RequestOptions::default()
        };
        let sent = Client::new().send(upload, options, &activity).await;
        assert_eq!(sent.expect("a response").status(), 200);
    }

    #[tokio::test]
    async fn nobody_there_and_nobody_who_answers_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let options = RequestOptions {
            first_byte_timeout: Some(Duration::from_millis(50)),
            ..RequestOptions::default()
        };
        let silent = Client::new()
            .send(request(address, Method::GET), options, &Activity::start())
            .await;
        assert!(matches!(silent, Err(Error::ConnectionReadTimeout)));
        drop(listener);
        let refused = Client::new()
            .send(request(address, Method::GET), options, &Activity::start())
            .await;
        let Err(Error::Connect(why)) = refused else {
            panic!("no refusal");
        };
        assert_eq!(why.kind(), io::ErrorKind::ConnectionRefused);
    }
}
