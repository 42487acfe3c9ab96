//! A listening socket and its connections, until it is told to stop.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use edgeweir_host_chain::Response;
use edgeweir_host_framing::{Checked, Malformed};
use edgeweir_host_upstream::Tallied;
use http::{Request, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::flowing::Flowing;
use super::streams::{Found, Patience, Streams};
use crate::config::Limits;
use crate::stats::ListenerStats;

/// Streams one HTTP/2 connection may have open.
const STREAMS: u32 = 256;

/// What a connection may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Fields of a request head.
    pub headers: usize,
    /// Bytes of a request head.
    pub header_bytes: usize,
    /// Time to send a request head, from when one may come.
    pub head_timeout: Duration,
    /// Time in which something of what is sent has to be taken.
    pub stall_timeout: Duration,
    /// Connections at once.
    pub connections: usize,
}

impl From<&Limits> for Bounds {
    fn from(limits: &Limits) -> Self {
        Self {
            headers: limits.headers.size(),
            header_bytes: limits.header_kib.size() * 1024,
            head_timeout: limits.head_timeout_ms.millis(),
            stall_timeout: limits.stall_timeout_ms.millis(),
            connections: limits.connections.size(),
        }
    }
}

/// What answers the requests of a listener.
pub trait Service: Send + Sync + 'static {
    /// Answers one request.
    fn answer(
        self: Arc<Self>,
        peer: SocketAddr,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response> + Send;

    /// Where connections are counted.
    fn stats(&self) -> Option<Arc<ListenerStats>> {
        None
    }
}

/// The request came over TLS; an extension of requests given to a [`Service`].
#[derive(Clone, Copy, Debug)]
pub struct Secure;

/// How a listener serves.
pub struct Setup<S> {
    /// What answers.
    pub service: Arc<S>,
    /// What a connection may take.
    pub bounds: Bounds,
    /// TLS; clear without it.
    pub tls: Option<Arc<ServerConfig>>,
}

/// The setup of a listener at this moment. A new one counts for connections (bounds, TLS) that are accepted afterwards, and
/// for requests (the service) that come afterwards, also on connections there are.
pub struct Slot<S>(RwLock<Arc<Setup<S>>>);

impl<S> Slot<S> {
    /// A slot with a setup in it.
    pub fn new(setup: Setup<S>) -> Arc<Self> {
        Arc::new(Self(RwLock::new(Arc::new(setup))))
    }

    /// Puts another in its place.
    pub fn put(&self, setup: Setup<S>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(setup);
    }

    fn now(&self) -> Arc<Setup<S>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// A listener that accepts.
pub struct Accepting {
    /// The address bound, with its port when 0 was asked for.
    pub address: SocketAddr,
    stop: watch::Sender<Stage>,
    released: Option<oneshot::Receiver<()>>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Serve,
    Finish(Duration),
}

impl Accepting {
    /// Binds and starts to accept clear connections. Must be called within a tokio runtime.
    pub async fn start(
        address: SocketAddr,
        bounds: Bounds,
        service: Arc<impl Service>,
    ) -> io::Result<Self> {
        let slot = Slot::new(Setup {
            service,
            bounds,
            tls: None,
        });
        Self::on(TcpListener::bind(address).await?, slot)
    }

    /// Starts to accept on a socket. Must be called within a tokio runtime.
    pub fn on(socket: TcpListener, slot: Arc<Slot<impl Service>>) -> io::Result<Self> {
        let address = socket.local_addr()?;
        let (stop, stage) = watch::channel(Stage::Serve);
        let (release, released) = oneshot::channel();
        let task = tokio::spawn(accept(socket, slot, stage, release));
        Ok(Self {
            address,
            stop,
            released: Some(released),
            task,
        })
    }

    /// Accepts no more and gives its address up; [`Accepting::stop`] waits for the rest.
    pub async fn release(&mut self, grace: Duration) {
        let _ = self.stop.send(Stage::Finish(grace));
        if let Some(released) = self.released.take() {
            let _ = released.await;
        }
    }

    /// Accepts no more, lets exchanges in flight finish within `grace`, then closes what is left.
    pub async fn stop(self, grace: Duration) {
        let _ = self.stop.send(Stage::Finish(grace));
        let _ = self.task.await;
    }
}

/// Connections open on a listener; whoever waits for one to close is told.
#[derive(Default)]
struct Room {
    open: AtomicUsize,
    left: Notify,
}

/// One connection's place, given back when it is dropped.
struct Place(Arc<Room>);

impl Room {
    /// A place below a bound, which may be another with every call.
    async fn take(self: &Arc<Self>, most: impl Fn() -> usize) -> Place {
        loop {
            let left = self.left.notified();
            if self.open.load(Relaxed) < most() {
                self.open.fetch_add(1, Relaxed);
                return Place(self.clone());
            }
            left.await;
        }
    }

    /// Waits until none is open.
    async fn empty(&self) {
        loop {
            let left = self.left.notified();
            if self.open.load(Relaxed) == 0 {
                return;
            }
            left.await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
        self.0.left.notify_waiters();
    }
}

async fn accept<S: Service>(
    socket: TcpListener,
    slot: Arc<Slot<S>>,
    mut stage: watch::Receiver<Stage>,
    release: oneshot::Sender<()>,
) {
    let (kill, killed) = watch::channel(());
    let room = Arc::new(Room::default());
    loop {
        // At the bound new connections wait in the kernel's queue.
        let place = tokio::select! {
            place = room.take(|| slot.now().bounds.connections) => place,
            _ = stage.changed() => break,
        };
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            _ = stage.changed() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: the host lives and tries again when some are back.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY was refused");
        }
        let setup = slot.now();
        let mut ending = Ending {
            killed: killed.clone(),
            stopping: stage.clone(),
        };
        let slot = slot.clone();
        tokio::spawn(async move {
            let _place = place;
            let stats = setup.service.stats();
            if let Some(stats) = &stats {
                stats.connections.fetch_add(1, Relaxed);
            }
            let tally = stats.as_ref().map(|stats| stats.wire.clone());
            let stream = Tallied::new(stream, tally.unwrap_or_default());
            let stream = Flowing::new(stream, setup.bounds.stall_timeout);
            let (bounds, tls) = (setup.bounds, setup.tls.clone());
            // What a connection holds of an old setup must not keep the rest of it.
            drop(setup);
            match tls {
                None => serve(stream, peer, bounds, slot, false, ending).await,
                Some(tls) => {
                    let handshake = TlsAcceptor::from(tls).accept(stream);
                    let opened = tokio::select! {
                        opened = tokio::time::timeout(bounds.head_timeout, handshake) => opened,
                        () = ending.begins() => return gone(stats.as_deref()),
                    };
                    match opened {
                        Ok(Ok(stream)) => {
                            serve(stream, peer, bounds, slot, true, ending).await;
                        }
                        Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS"),
                        Err(_) => tracing::debug!(%peer, "no TLS in time"),
                    }
                }
            }
            gone(stats.as_deref());
        });
    }
    drop(socket);
    let _ = release.send(());
    let Stage::Finish(grace) = *stage.borrow() else {
        return;
    };
    if tokio::time::timeout(grace, room.empty()).await.is_err() {
        tracing::warn!(
            ?grace,
            "exchanges were still in flight after the grace time"
        );
    }
    drop(kill);
}

fn gone(stats: Option<&ListenerStats>) {
    if let Some(stats) = stats {
        stats.connections.fetch_sub(1, Relaxed);
    }
}

/// What ends a connection from outside.
struct Ending {
    killed: watch::Receiver<()>,
    stopping: watch::Receiver<Stage>,
}

impl Ending {
    /// The listener stops, or is gone.
    async fn begins(&mut self) {
        tokio::select! {
            _ = self.killed.changed() => {}
            _ = self.stopping.changed() => {}
        }
    }
}

/// The requests of one connection, until it closes.
async fn serve<S: Service>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    bounds: Bounds,
    slot: Arc<Slot<S>>,
    secure: bool,
    mut ending: Ending,
) {
    let builder = connection_builder(bounds);
    let stats = slot.now().service.stats();
    let streams = Streams::new(Instant::now());
    let entered = streams.clone();
    let answer = service_fn(move |mut request: Request<Incoming>| {
        let service = slot.now().service.clone();
        if secure {
            request.extensions_mut().insert(Secure);
        }
        let place = (request.version() == Version::HTTP_2).then(|| entered.enter());
        async move {
            let response = service.answer(peer, request).await;
            Ok::<_, Infallible>(match place {
                Some(place) => place.hold(response),
                None => response,
            })
        }
    });
    let refused = move |why: Malformed| {
        tracing::debug!(%peer, why = why.name(), "a malformed request");
        if let Some(stats) = stats {
            stats.malformed.fetch_add(1, Relaxed);
        }
    };
    let stream = Checked::new(stream, bounds.header_bytes, bounds.head_timeout, refused);
    let two = stream.two();
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), answer));
    let patience = Patience {
        idle: bounds.head_timeout,
        stall: bounds.stall_timeout,
    };
    let mut look = pin!(tokio::time::sleep(patience.idle.min(patience.stall)));
    // Over HTTP/1.1 the connection itself is watched: what has begun by then and is no HTTP/2 never is.
    let (mut looking, mut stopping, mut told) = (true, false, false);
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%peer, error, "a connection ended early");
                }
                return;
            }
            _ = ending.killed.changed() => return,
            _ = ending.stopping.changed(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            () = look.as_mut(), if looking => {
                let now = Instant::now();
                let next = match streams.look(now, patience) {
                    Found::Until(next) => next,
                    // It was told, and stays.
                    Found::Idle if told => return,
                    Found::Idle => {
                        looking = two.load(Relaxed);
                        // RFC 9113 §9.1: GOAWAY says which of the frames sent before the connection closes were processed.
                        if looking && !stopping {
                            connection.as_mut().graceful_shutdown();
                        }
                        told = true;
                        now + patience.idle
                    }
                };
                look.as_mut().reset(next);
            }
        }
    }
}

fn connection_builder(bounds: Bounds) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .max_headers(bounds.headers)
        .max_buf_size(bounds.header_bytes)
        .header_read_timeout(bounds.head_timeout);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(bounds.header_bytes).unwrap_or(u32::MAX));
    builder
}
