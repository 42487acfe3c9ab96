//! An origin that does as the scenario says: by the first segment of the path it knows which one asks.

mod http1;
mod http2;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

pub(crate) use http1::receive;

use crate::{Origin, Received};

/// The origin of this program, on two ports.
pub struct Server {
    /// HTTP/1.1.
    pub http1: SocketAddr,
    /// HTTP/2 with prior knowledge.
    pub http2: SocketAddr,
    slots: Arc<Slots>,
}

/// What to do, and what came, by the first segment of the path.
#[derive(Default)]
pub(crate) struct Slots(Mutex<HashMap<String, Slot>>);

struct Slot {
    origin: Arc<Origin>,
    received: Vec<Received>,
}

/// The one origin, started on first use.
pub fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| match start() {
        Ok(server) => server,
        Err(error) => panic!("the origin does not start: {error}"),
    })
}

fn start() -> io::Result<Server> {
    cargo_edge::process::raise_file_limit();
    let slots = Arc::new(Slots::default());
    Ok(Server {
        http1: http1::start(Arc::clone(&slots))?,
        http2: http2::start(Arc::clone(&slots))?,
        slots,
    })
}

impl Server {
    /// From now on requests under `/segment/` are answered so.
    pub fn answer(&self, segment: &str, origin: &Origin) {
        let mut slots = self.slots.0.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.entry(segment.to_owned()).or_insert_with(|| Slot {
            origin: Arc::new(origin.clone()),
            received: Vec::new(),
        });
        slot.origin = Arc::new(origin.clone());
    }

    /// The requests under `/segment/` since the last call.
    pub fn received(&self, segment: &str) -> Vec<Received> {
        let mut slots = self.slots.0.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.get_mut(segment);
        slot.map(|slot| std::mem::take(&mut slot.received))
            .unwrap_or_default()
    }
}

impl Slots {
    /// Takes a request down and says what to do; `None` for a path no scenario has.
    pub(crate) fn take(&self, mut received: Received) -> Option<Arc<Origin>> {
        let path = received.path.strip_prefix('/')?.to_owned();
        let end = path.find(['/', '?']).unwrap_or(path.len());
        let (segment, rest) = path.split_at(end);
        received.path = rest.to_owned();
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.get_mut(segment)?;
        slot.received.push(received);
        Some(Arc::clone(&slot.origin))
    }
}
