//! Opening a connection: TCP, then TLS where it is asked for.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::failure::{Failure, chain_of, in_words};
use crate::settings::{Protocol, Settings};
use crate::wire::{Tallied, Tally};

/// What a connection goes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum To {
    /// A name (or an address) and a port: the first address that takes it.
    Name(String),
    /// One address of a name.
    Address(SocketAddr),
}

/// Opens the connections of one upstream.
pub(crate) struct Connector {
    tls: Option<(TlsConnector, Option<ServerName<'static>>)>,
    limit: Duration,
    tally: Arc<Tally>,
}

impl Connector {
    /// Reads roots and names; errors name the field. Bytes are counted in `tally`.
    pub(crate) fn new(settings: &Settings, tally: &Arc<Tally>) -> Result<Self, String> {
        let tls = match &settings.tls {
            None => None,
            Some(tls) => {
                let roots = match &tls.roots {
                    Some(pem) => roots_of(pem).map_err(|why| format!("tls.ca: {why}"))?,
                    None => roots_of_the_system()?,
                };
                let provider = Arc::new(rustls::crypto::ring::default_provider());
                let mut config = ClientConfig::builder_with_provider(provider)
                    .with_safe_default_protocol_versions()
                    .map_err(|error| format!("tls: {error}"))?
                    .with_root_certificates(roots)
                    .with_no_client_auth();
                let (h1, h2) = (b"http/1.1".to_vec(), b"h2".to_vec());
                config.alpn_protocols = match settings.protocol {
                    Protocol::Http1 => vec![h1],
                    Protocol::Http2 => vec![h2],
                    Protocol::Negotiated => vec![h2, h1],
                };
                let name = match &tls.server_name {
                    None => None,
                    Some(name) => Some(
                        ServerName::try_from(name.clone())
                            .map_err(|_| format!("tls.server_name: \"{name}\" is no name"))?,
                    ),
                };
                Some((TlsConnector::from(Arc::new(config)), name))
            }
        };
        Ok(Self {
            tls,
            limit: settings.connect_timeout,
            tally: tally.clone(),
        })
    }

    /// Whether TLS is spoken.
    pub(crate) fn secure(&self) -> bool {
        self.tls.is_some()
    }

    /// A connection, and whether HTTP/2 was agreed on by ALPN. `authority` is the `host:port` as it was configured.
    pub(crate) async fn open(
        &self,
        to: &To,
        authority: &str,
    ) -> Result<(Stream, Option<bool>), Failure> {
        let opening = async {
            let stream = match to {
                To::Name(name) => TcpStream::connect(name.as_str()).await,
                To::Address(address) => TcpStream::connect(address).await,
            }
            .map_err(|error| Failure::Connect(chain_of(&error)))?;
            // Some sandboxes refuse the option; the connection works without.
            let _ = stream.set_nodelay(true);
            let stream = Tallied::new(stream, self.tally.clone());
            let Some((connector, name)) = &self.tls else {
                return Ok((Stream::Clear(stream), None));
            };
            let name = match name {
                Some(name) => name.clone(),
                None => {
                    let host = authority.rsplit_once(':').map_or(authority, |it| it.0);
                    let host = host.trim_start_matches('[').trim_end_matches(']');
                    ServerName::try_from(host.to_owned()).map_err(|error| Failure::Tls {
                        certificate: false,
                        why: format!("\"{host}\": {error}"),
                    })?
                }
            };
            let stream = connector
                .connect(name, stream)
                .await
                .map_err(|error| Failure::Tls {
                    certificate: matches!(
                        error.get_ref().and_then(|it| it.downcast_ref()),
                        Some(rustls::Error::InvalidCertificate(_))
                    ),
                    why: in_words(chain_of(&error)),
                })?;
            let agreed = stream.get_ref().1.alpn_protocol().map(|name| name == b"h2");
            Ok((Stream::Tls(Box::new(stream)), Some(agreed == Some(true))))
        };
        match tokio::time::timeout(self.limit, opening).await {
            Ok(opened) => opened,
            Err(_) => Err(Failure::ConnectTimeout(self.limit)),
        }
    }
}

/// The certificates of a PEM file; an error when there is none, or one that cannot be read.
pub fn roots_of(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for (index, certificate) in CertificateDer::pem_slice_iter(pem).enumerate() {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots
            .add(certificate)
            .map_err(|error| format!("certificate {}: {error}", index + 1))?;
    }
    if roots.is_empty() {
        return Err("there is no certificate in it (PEM: -----BEGIN CERTIFICATE-----)".to_owned());
    }
    Ok(roots)
}

fn roots_of_the_system() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        return Err(format!(
            "tls: this system has no certificates of authorities ({}); name a file with `ca`",
            why.join(", ")
        ));
    }
    Ok(roots)
}

/// A connection, clear or not.
pub(crate) enum Stream {
    Clear(Tallied<TcpStream>),
    Tls(Box<TlsStream<Tallied<TcpStream>>>),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Clear(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }
}
