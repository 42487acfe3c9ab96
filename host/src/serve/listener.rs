//! A listening socket and its connections, until it is told to stop.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use edgeweir_host_chain::Response;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::config::Limits;

/// Streams one HTTP/2 connection may have open.
const STREAMS: u32 = 256;

/// What a connection may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Fields of a request head.
    pub headers: usize,
    /// Bytes of a request head.
    pub header_bytes: usize,
    /// Time to send a request head.
    pub head_timeout: Duration,
    /// Connections at once.
    pub connections: usize,
}

impl From<&Limits> for Bounds {
    fn from(limits: &Limits) -> Self {
        Self {
            headers: limits.headers.size(),
            header_bytes: limits.header_kib.size() * 1024,
            head_timeout: limits.head_timeout_ms.millis(),
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

    /// A connection opened (`true`) or closed.
    fn connection(&self, _open: bool) {}
}

/// A listener that accepts.
pub struct Accepting {
    /// The address bound, with its port when 0 was asked for.
    pub address: SocketAddr,
    stop: watch::Sender<Stage>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Serve,
    Finish(Duration),
}

impl Accepting {
    /// Binds and starts to accept. Must be called within a tokio runtime.
    pub async fn start(
        address: SocketAddr,
        bounds: Bounds,
        service: Arc<impl Service>,
    ) -> io::Result<Self> {
        let socket = TcpListener::bind(address).await?;
        let address = socket.local_addr()?;
        let (stop, stage) = watch::channel(Stage::Serve);
        let task = tokio::spawn(accept(socket, bounds, service, stage));
        Ok(Self {
            address,
            stop,
            task,
        })
    }

    /// Accepts no more, lets exchanges in flight finish within `grace`, then closes what is left.
    pub async fn stop(self, grace: Duration) {
        let _ = self.stop.send(Stage::Finish(grace));
        let _ = self.task.await;
    }
}

async fn accept<S: Service>(
    socket: TcpListener,
    bounds: Bounds,
    service: Arc<S>,
    mut stage: watch::Receiver<Stage>,
) {
    let graceful = GracefulShutdown::new();
    let (kill, killed) = watch::channel(());
    let room = Arc::new(Semaphore::new(bounds.connections));
    let builder = Arc::new(connection_builder(bounds));
    loop {
        // At the bound new connections wait in the kernel's queue.
        let place = tokio::select! {
            place = room.clone().acquire_owned() => place,
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
        let builder = builder.clone();
        let service = service.clone();
        let watcher = graceful.watcher();
        let mut killed = killed.clone();
        tokio::spawn(async move {
            let _place = place;
            service.connection(true);
            let answering = service.clone();
            let connection = builder.serve_connection(
                TokioIo::new(stream),
                service_fn(move |request| {
                    let service = answering.clone();
                    async move { Ok::<_, Infallible>(service.answer(peer, request).await) }
                }),
            );
            tokio::select! {
                ended = watcher.watch(connection) => if let Err(error) = ended {
                    tracing::debug!(%peer, error, "a connection ended early");
                },
                _ = killed.changed() => {}
            }
            service.connection(false);
        });
    }
    drop(socket);
    let Stage::Finish(grace) = *stage.borrow() else {
        return;
    };
    if tokio::time::timeout(grace, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!(
            ?grace,
            "exchanges were still in flight after the grace time"
        );
    }
    drop(kill);
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
