//! What surrounds a filter: the clock, the clusters it calls, who watches it, what is made to fail.
//!
//! [`World::default`] is the real one, and costs a test for `None` where it is asked. A test puts its own in place of it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::{Error, Request, Response};

/// The time a filter is told.
pub trait Clock: Send + Sync {
    /// The wall clock.
    fn wall(&self) -> SystemTime;
    /// Time since some moment, never backwards.
    fn monotonic(&self) -> Duration;
}

/// The answer of a cluster, later.
pub type Answering = Pin<Box<dyn Future<Output = Result<Response, Error>> + Send>>;

/// What a filter's own requests reach.
pub trait Clusters: Send + Sync {
    /// Whether there is one of that name (of a component's requests: `host:port`).
    fn knows(&self, name: &str) -> bool;
    /// Sends a request to it.
    fn call(&self, name: &str, request: Request) -> Answering;
}

/// What an application reaches in itself, without the network: an extension of its requests.
#[derive(Clone)]
pub struct Within(pub Arc<dyn Clusters>);

/// Sees what a filter does.
pub trait Witness: Send + Sync {
    /// A line of its log; levels from 0 (trace) to 5 (critical), `None` where the line says it itself.
    fn log(&self, level: Option<u8>, line: &str);
    /// A callback of the host into the filter begins, for a context.
    fn callback(&self, context: u32, name: &'static str);
}

/// Makes calls of the host fail.
pub trait Faults: Send + Sync {
    /// Asked at each call, by its name; `Some` is what it answers in place of what it would do.
    fn hit(&self, call: &'static str) -> Option<u32>;
}

/// What surrounds a filter. Every part that is `None` is the real one.
#[derive(Clone, Default)]
pub struct World {
    /// The clock.
    pub clock: Option<Arc<dyn Clock>>,
    /// What its requests reach.
    pub clusters: Option<Arc<dyn Clusters>>,
    /// Who watches.
    pub witness: Option<Arc<dyn Witness>>,
    /// What fails.
    pub faults: Option<Arc<dyn Faults>>,
}

impl World {
    /// The wall clock.
    pub fn wall(&self) -> SystemTime {
        self.clock
            .as_ref()
            .map_or_else(SystemTime::now, |clock| clock.wall())
    }

    /// What a call answers in place of what it would do.
    pub fn fault(&self, call: &'static str) -> Option<u32> {
        self.faults.as_ref().and_then(|faults| faults.hit(call))
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("clock", &self.clock.is_some())
            .field("clusters", &self.clusters.is_some())
            .field("witness", &self.witness.is_some())
            .field("faults", &self.faults.is_some())
            .finish()
    }
}
