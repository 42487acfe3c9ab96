//! The socket and its connections: TCP or Unix, bounded, until it is told to stop.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};

use crate::service::Service;

/// Time to send a request's head, and for a connection to be idle.
const HEAD: Duration = Duration::from_secs(60);
/// Bytes of a request's head.
const HEAD_BYTES: usize = 32 * 1024;

/// Where to listen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    /// An address and port.
    Tcp(SocketAddr),
    /// A Unix socket; only its owner may connect.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err("unix: needs a path, like unix:/run/edgeweir.sock".to_owned()),
                path => Ok(Self::Unix(path.into())),
            };
        }
        text.parse().map(Self::Tcp).map_err(|_| {
            format!("{text:?} is no address: write 127.0.0.1:7440 or unix:/run/edgeweir.sock")
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "http://{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A store that serves.
pub struct Serving {
    /// Where, with the port bound when 0 was asked for.
    pub address: Address,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Serving {
    /// Binds and serves at most `connections` at once. Must be called within a tokio runtime.
    pub async fn start(
        address: &Address,
        connections: usize,
        service: Arc<Service>,
    ) -> io::Result<Self> {
        let (socket, address) = match address {
            Address::Tcp(address) => {
                let socket = TcpListener::bind(address).await?;
                let bound = Address::Tcp(socket.local_addr()?);
                (Socket::Tcp(socket), bound)
            }
            Address::Unix(path) => (Socket::Unix(bind_unix(path)?), address.clone()),
        };
        let (stop, stopped) = watch::channel(false);
        let room = Arc::new(Semaphore::new(connections));
        let task = tokio::spawn(accept(socket, room, service, stopped));
        Ok(Self {
            address,
            stop,
            task,
        })
    }

    /// Accepts no more, lets requests in flight finish within `grace`.
    pub async fn stop(self, grace: Duration) {
        let _ = self.stop.send(true);
        // Accepting ends at once; finishing takes as long as it takes, at most the grace time.
        let mut task = self.task;
        if tokio::time::timeout(grace, &mut task).await.is_err() {
            task.abort();
            tracing::warn!(?grace, "requests were still in flight after the grace time");
        }
        if let Address::Unix(path) = &self.address {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A socket left behind by a store that was killed is replaced; one that answers, or another file, is not.
fn bind_unix(path: &std::path::Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
    if let Ok(found) = std::fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "a file is there that is no socket",
            ));
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn accept(
    socket: Socket,
    room: Arc<Semaphore>,
    service: Arc<Service>,
    mut stopped: watch::Receiver<bool>,
) {
    let graceful = GracefulShutdown::new();
    loop {
        // At the bound new connections wait in the kernel's queue.
        let place = tokio::select! {
            place = room.clone().acquire_owned() => place,
            _ = stopped.changed() => break,
        };
        let accepted = tokio::select! {
            accepted = next(&socket) => accepted,
            _ = stopped.changed() => break,
        };
        match accepted {
            Ok(stream) => {
                let service = service.clone();
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD)
                    .max_buf_size(HEAD_BYTES)
                    .pipeline_flush(true)
                    .serve_connection(
                        TokioIo::new(stream),
                        service_fn(move |request| {
                            let service = service.clone();
                            async move { Ok::<_, Infallible>(service.answer(request).await) }
                        }),
                    );
                let watched = graceful.watch(connection);
                tokio::spawn(async move {
                    let _place = place;
                    if let Err(error) = watched.await {
                        tracing::debug!(%error, "a connection ended early");
                    }
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: tried again when some are back.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(socket);
    graceful.shutdown().await;
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn next(socket: &Socket) -> io::Result<Box<dyn Stream>> {
    match socket {
        Socket::Tcp(socket) => {
            let (stream, _) = socket.accept().await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream))
        }
        Socket::Unix(socket) => Ok(Box::new(socket.accept().await?.0)),
    }
}
