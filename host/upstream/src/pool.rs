//! Connections to one endpoint: kept HTTP/1.1 ones, and one HTTP/2 connection that carries every stream.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use edgeweir_host_chain::{Body, Request, framed, lock};
use http::header;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::watch;

use crate::connect::{Connector, Stream, To};
use crate::counts::{Counts, Event};
use crate::failure::{Failure, chain_of};
use crate::settings::{Protocol, Settings};

/// Idle connections kept to one endpoint.
const IDLE_CONNECTIONS: usize = 256;
/// How long a connection is kept idle.
const IDLE: Duration = Duration::from_secs(60);
/// Flow control of HTTP/2: what one stream may have waiting, bytes. The connection's own window is out of the way, so
/// that a client which stops reading stops its own stream only.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1 << 30;

/// What ALPN gave last.
const UNKNOWN: u8 = 0;
const ONE: u8 = 1;
const TWO: u8 = 2;

pub(crate) struct Pool {
    to: To,
    authority: String,
    connector: Arc<Connector>,
    protocol: Protocol,
    headers: usize,
    header_bytes: usize,
    counts: Arc<Counts>,
    speaks: AtomicU8,
    idle: Mutex<Vec<(http1::SendRequest<Body>, Instant)>>,
    shared: Mutex<Shared>,
}

/// The HTTP/2 connection, and the attempt to open one.
#[derive(Default)]
struct Shared {
    open: Option<http2::SendRequest<Body>>,
    opening: Option<Attempt>,
}

/// How an attempt ended, once it has.
type Attempt = watch::Receiver<Option<Result<Opened, Failure>>>;

/// What an attempt brought to all who wait for it.
#[derive(Clone)]
enum Opened {
    /// It is whose who takes it first.
    Http1(Arc<Mutex<Option<http1::SendRequest<Body>>>>),
    Http2(http2::SendRequest<Body>),
}

/// A connection for one request.
pub(crate) struct Taken {
    pub(crate) wire: Wire,
    /// It has carried a request before.
    pub(crate) reused: bool,
}

pub(crate) enum Wire {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

/// A request that got no response head.
pub(crate) enum Unanswered {
    /// Nothing of it was sent; here it is.
    Unsent(Box<Request>, Failure),
    /// It went out.
    Lost(Failure),
}

impl Pool {
    pub(crate) fn new(
        to: To,
        authority: &str,
        connector: &Arc<Connector>,
        settings: &Settings,
        counts: &Arc<Counts>,
    ) -> Arc<Self> {
        let speaks = match (settings.protocol, connector.secure()) {
            (Protocol::Http2, _) => TWO,
            (Protocol::Negotiated, true) => UNKNOWN,
            (Protocol::Http1, _) | (Protocol::Negotiated, false) => ONE,
        };
        Arc::new(Self {
            to,
            authority: authority.to_owned(),
            connector: connector.clone(),
            protocol: settings.protocol,
            headers: settings.headers,
            header_bytes: settings.header_bytes,
            counts: counts.clone(),
            speaks: AtomicU8::new(speaks),
            idle: Mutex::default(),
            shared: Mutex::default(),
        })
    }

    /// A connection: a kept one unless it must be `fresh`.
    pub(crate) async fn take(self: &Arc<Self>, fresh: bool) -> Result<Taken, Failure> {
        while self.speaks.load(Relaxed) != ONE {
            let (mut attempt, own) = {
                let mut shared = lock(&self.shared);
                let open = shared.open.as_ref().filter(|sender| !sender.is_closed());
                if let Some(sender) = open
                    && !fresh
                {
                    return Ok(Taken {
                        wire: Wire::Http2(sender.clone()),
                        reused: true,
                    });
                }
                // One at a time: whoever waits uses what is opened here, or fails with it.
                match &shared.opening {
                    Some(attempt) => (attempt.clone(), false),
                    None => {
                        let attempt = self.attempt();
                        shared.open = None;
                        shared.opening = Some(attempt.clone());
                        (attempt, true)
                    }
                }
            };
            let opened = match attempt.wait_for(Option::is_some).await {
                Ok(opened) => opened.clone(),
                Err(_) => None,
            };
            match opened {
                Some(Ok(Opened::Http2(sender))) => {
                    return Ok(Taken {
                        wire: Wire::Http2(sender),
                        reused: !own,
                    });
                }
                Some(Ok(Opened::Http1(sender))) => {
                    if let Some(sender) = lock(&sender).take() {
                        return Ok(Taken {
                            wire: Wire::Http1(sender),
                            reused: false,
                        });
                    }
                }
                Some(Err(failure)) => return Err(failure),
                None => {
                    lock(&self.shared).opening = None;
                    return Err(Failure::Connect("it was given up".to_owned()));
                }
            }
        }
        if !fresh && let Some(sender) = self.kept() {
            return Ok(Taken {
                wire: Wire::Http1(sender),
                reused: true,
            });
        }
        let wire = self.open().await?;
        Ok(Taken {
            wire,
            reused: false,
        })
    }

    /// Begins to open a connection for all who want one. It goes on when one of them leaves.
    fn attempt(self: &Arc<Self>) -> Attempt {
        let (tell, attempt) = watch::channel(None);
        let pool = self.clone();
        tokio::spawn(async move {
            let opened = pool.open().await.map(|wire| match wire {
                Wire::Http1(sender) => Opened::Http1(Arc::new(Mutex::new(Some(sender)))),
                Wire::Http2(sender) => Opened::Http2(sender),
            });
            let mut shared = lock(&pool.shared);
            shared.opening = None;
            if let Ok(Opened::Http2(sender)) = &opened {
                shared.open = Some(sender.clone());
            }
            drop(shared);
            tell.send_replace(Some(opened));
        });
        attempt
    }

    fn kept(&self) -> Option<http1::SendRequest<Body>> {
        let mut idle = lock(&self.idle);
        while let Some((sender, since)) = idle.pop() {
            if sender.is_ready() && since.elapsed() < IDLE {
                return Some(sender);
            }
        }
        None
    }

    /// Keeps a connection for the next request as soon as this one is through.
    pub(crate) fn keep(self: &Arc<Self>, mut sender: http1::SendRequest<Body>) {
        let pool = Arc::downgrade(self);
        tokio::spawn(async move {
            if sender.ready().await.is_err() {
                return;
            }
            if let Some(pool) = pool.upgrade() {
                let mut idle = lock(&pool.idle);
                if idle.len() < IDLE_CONNECTIONS {
                    idle.push((sender, Instant::now()));
                }
            }
        });
    }

    /// Closes what has been idle for too long.
    pub(crate) fn sweep(&self) {
        let mut idle = lock(&self.idle);
        idle.retain(|(sender, since)| since.elapsed() < IDLE && !sender.is_closed());
    }

    async fn open(&self) -> Result<Wire, Failure> {
        let (stream, agreed) = self.connector.open(&self.to, &self.authority).await?;
        let two = match self.protocol {
            Protocol::Http1 => false,
            Protocol::Http2 => true,
            Protocol::Negotiated => agreed == Some(true),
        };
        if self.protocol == Protocol::Http2 && agreed == Some(false) {
            return Err(Failure::Tls {
                certificate: false,
                why: "it does not speak HTTP/2 (ALPN)".to_owned(),
            });
        }
        let wire = if two {
            self.two(stream).await?
        } else {
            self.one(stream).await?
        };
        self.speaks.store(if two { TWO } else { ONE }, Relaxed);
        self.counts.add(Event::Connected);
        Ok(wire)
    }

    async fn one(&self, stream: Stream) -> Result<Wire, Failure> {
        let (sender, driver) = http1::Builder::new()
            .max_headers(self.headers)
            .max_buf_size(self.header_bytes)
            .handshake::<_, Body>(TokioIo::new(stream))
            .await
            .map_err(|error| Failure::Connect(chain_of(&error)))?;
        let authority = self.authority.clone();
        tokio::spawn(async move {
            if let Err(error) = driver.await {
                tracing::debug!(authority, %error, "a connection ended");
            }
        });
        Ok(Wire::Http1(sender))
    }

    async fn two(&self, stream: Stream) -> Result<Wire, Failure> {
        let (sender, driver) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(u32::try_from(self.header_bytes).unwrap_or(u32::MAX))
            .handshake::<_, Body>(TokioIo::new(stream))
            .await
            .map_err(|error| Failure::Connect(chain_of(&error)))?;
        let authority = self.authority.clone();
        tokio::spawn(async move {
            if let Err(error) = driver.await {
                tracing::debug!(authority, %error, "an HTTP/2 connection ended");
            }
        });
        Ok(Wire::Http2(sender))
    }
}

impl Taken {
    /// Sends a request that is in the form of this connection's version.
    pub(crate) async fn send(
        self,
        pool: &Arc<Pool>,
        mut request: Request,
    ) -> Result<http::Response<Incoming>, Unanswered> {
        let sent = match self.wire {
            Wire::Http1(mut sender) => {
                let sent = sender.try_send_request(framed(request).await).await;
                if let Ok(response) = &sent {
                    let headers = response.headers();
                    // RFC 9112 §6.3: a message with both might indicate an attempt at response splitting and ought to be
                    // handled as an error. The connection goes with it.
                    if headers.contains_key(header::TRANSFER_ENCODING)
                        && headers.contains_key(header::CONTENT_LENGTH)
                    {
                        let why = "it has Transfer-Encoding and Content-Length";
                        return Err(Unanswered::Lost(Failure::Malformed(why)));
                    }
                    pool.keep(sender);
                }
                sent
            }
            Wire::Http2(mut sender) => {
                if let Err(error) = sender.ready().await {
                    let failure = Failure::Closed(chain_of(&error));
                    return Err(Unanswered::Unsent(Box::new(request), failure));
                }
                request.headers_mut().remove(header::TRANSFER_ENCODING);
                sender.try_send_request(request).await
            }
        };
        sent.map_err(|mut error| {
            let request = error.take_message();
            let error = error.into_error();
            let failure = failure_of(&error);
            match request {
                Some(request) => Unanswered::Unsent(Box::new(request), failure),
                None => Unanswered::Lost(failure),
            }
        })
    }
}

fn failure_of(error: &hyper::Error) -> Failure {
    let why = chain_of(error);
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            // RFC 9113 §8.7: REFUSED_STREAM says that the stream was closed before anything was done with it.
            if error.reason() == Some(h2::Reason::REFUSED_STREAM) {
                return Failure::Refused(why);
            }
            if error.is_reset() {
                return Failure::Reset(why);
            }
        }
        cause = error.source();
    }
    Failure::Closed(why)
}
