//! The chain of filters the host serves: what a layer is, how it reaches the next one, and what it cost.
//!
//! A layer knows nothing of its neighbours' ABI: it gets a request and [`Next`], and returns a response.
#![forbid(unsafe_code)]

mod activity;
mod cpu;
pub mod distribution;
mod framing;
mod lock;
mod meter;
mod silence;
mod timeline;
mod world;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;

pub use activity::Activity;
pub use cpu::thread_cpu;
pub use framing::{EndToEnd, OF_THE_CONNECTION, begun, framed, named_by_connection};
pub use lock::lock;
pub use meter::{CallStat, Meter, MeterSnapshot, Trap};
pub use silence::Silence;
pub use timeline::{Own, Timeline};
pub use world::{Answering, Clock, Clusters, Faults, Within, Witness, World};

/// A streaming message body with trailers.
pub type Body = UnsyncBoxBody<Bytes, Error>;
/// A request on its way to the origin.
pub type Request = http::Request<Body>;
/// A response on its way to the client.
pub type Response = http::Response<Body>;
/// What goes wrong with an exchange: an upstream that is gone, a body that was cut.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// The address of the client's connection; an extension of every [`Request`] the host accepts.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// How short the machine is of resources, 0 (not at all) to 3; an extension of every [`Request`] the host accepts. A layer
/// tells its filter in the way of its ABI.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Emergency(pub u8);

impl Emergency {
    /// The request field, a digit, in which components are told. A client's own is taken off.
    pub const FIELD: &str = "edgeweir-emergency";
    /// The environment variable by which filters learn that the field is no client's.
    pub const HEEDED: &str = "EDGEWEIR_EMERGENCY_FIELD";
    /// The shared value, a digit, in which proxy-wasm modules are told.
    pub const SHARED: &[u8] = b"edgeweir.emergency";

    /// As a field and a shared value say it.
    pub const fn digit(self) -> &'static str {
        match self.0 {
            0 => "0",
            1 => "1",
            2 => "2",
            _ => "3",
        }
    }
}

/// No answer came from the origin: the host made this response up, a 502, 503 or 504. An extension of such a [`Response`], so
/// that a layer can tell it from the origin's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unreached {
    /// No connection.
    Refused,
    /// No connection in time.
    ConnectTimeout,
    /// The connection was closed before an answer.
    Closed,
    /// No answer in time.
    Timeout,
    /// Nobody was asked: as many requests as may be are under way and wait.
    Full,
    /// Nobody was asked: whoever could be failed too often.
    Unavailable,
}

/// A proxy-wasm filter put this response in the place of one whose head had come already. As in Envoy it goes straight to the
/// client: the proxy-wasm filters before it have no callbacks for it. An extension of such a [`Response`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Direct;

/// One filter of a chain, or the origin at its end.
#[async_trait]
pub trait Layer: Send + Sync + 'static {
    /// The name it has in the configuration, in `/metrics` and in the table at the end.
    fn name(&self) -> &str;
    /// Handles one exchange. An `Err` is answered with 502 by the server.
    async fn handle(&self, request: Request, next: Next) -> Result<Response, Error>;
    /// What it cost so far; `None` for a layer that runs no Wasm.
    fn meter(&self) -> Option<&Arc<Meter>> {
        None
    }
    /// Tells its filter how short the machine is, between exchanges: for one that gives memory back while nothing is asked of it.
    fn tell(&self, _emergency: Emergency) {}
}

/// The rest of a chain, outermost layer first; the last one is the origin.
#[derive(Clone)]
pub struct Next {
    layers: Arc<[Arc<dyn Layer>]>,
    at: usize,
}

impl Next {
    /// The whole chain. `layers` must not be empty: its last element answers without calling on.
    pub fn new(layers: Vec<Arc<dyn Layer>>) -> Self {
        Self {
            layers: layers.into(),
            at: 0,
        }
    }

    /// Hands the request to the next layer and waits for its response head.
    pub async fn run(self, request: Request) -> Result<Response, Error> {
        let Some(layer) = self.layers.get(self.at).cloned() else {
            return Err("the chain has no origin at its end".into());
        };
        let next = Next {
            layers: self.layers,
            at: self.at + 1,
        };
        let Some(timeline) = request.extensions().get::<Timeline>().cloned() else {
            return layer.handle(request, next).await;
        };
        let began = Instant::now();
        let response = layer.handle(request, next).await;
        let took = began.elapsed();
        if response.is_err() {
            timeline.note_failed(self.at, layer.name(), took);
        }
        Ok(timeline.note(self.at, layer.name(), took, response?))
    }
}

/// A body of known bytes.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    http_body_util::Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A body of nothing.
pub fn empty() -> Body {
    full(Bytes::new())
}
