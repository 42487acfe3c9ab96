//! What an upstream is told.

use std::time::Duration;

use crate::{breaker, health, outlier, retry};

/// Everything about one upstream. Two that are equal can share connections and what is known of the endpoints.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// `host:port` of each endpoint; at least one.
    pub addresses: Vec<String>,
    /// Every address a name resolves to is an endpoint of its own, looked up anew that often; else a name is one
    /// endpoint, and a connection goes to the first of its addresses that takes it.
    pub every_address: Option<Duration>,
    /// What is spoken.
    pub protocol: Protocol,
    /// TLS to the endpoints.
    pub tls: Option<Tls>,
    /// The longest a connection may take to open, TLS included.
    pub connect_timeout: Duration,
    /// The longest wait for a response head, repetitions included, counted from the last move of the request's body.
    pub timeout: Duration,
    /// The longest wait between two pieces of a response body.
    pub idle_timeout: Duration,
    /// Fields of a response head.
    pub headers: usize,
    /// Bytes of a response head.
    pub header_bytes: usize,
    /// Requests at once, each of which is a connection over HTTP/1.1; more wait.
    pub requests: Option<usize>,
    /// Requests that may wait; more are answered with 503.
    pub pending: usize,
    /// When an endpoint is left alone.
    pub breaker: breaker::Policy,
    /// What is sent again.
    pub retry: retry::Policy,
    /// Probes.
    pub health: Option<health::Policy>,
    /// What share of failures puts an endpoint aside.
    pub outlier: Option<outlier::Policy>,
}

impl Settings {
    /// One endpoint over clear HTTP/1.1, nothing repeated, no breaker, no probes.
    pub fn at(address: impl Into<String>) -> Self {
        Self {
            addresses: vec![address.into()],
            every_address: None,
            protocol: Protocol::Http1,
            tls: None,
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(300),
            headers: 1_000,
            header_bytes: 256 << 10,
            requests: None,
            pending: 1_024,
            breaker: breaker::Policy {
                failures: 0,
                open: Duration::from_secs(5),
            },
            retry: retry::Policy::off(),
            health: None,
            outlier: None,
        }
    }
}

/// What is spoken on a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2; on a clear connection with prior knowledge.
    Http2,
    /// What ALPN makes of both; HTTP/1.1 on a clear connection.
    Negotiated,
}

/// TLS to an upstream. Certificates are always checked.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Tls {
    /// Certificates of authorities, PEM; none: the system's.
    pub roots: Option<Vec<u8>>,
    /// The name that is asked for and that the certificate must have; none: the host of each address.
    pub server_name: Option<String>,
}
