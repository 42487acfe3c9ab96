//! One endpoint: its connections, what is in flight there, and what is thought of it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::breaker::{self, Admission, Breaker};
use crate::connect::To;
use crate::health::Health;
use crate::outlier::Outlier;
use crate::pool::Pool;

pub(crate) struct Endpoint {
    /// `host:port` as it was configured.
    pub(crate) authority: String,
    pub(crate) to: To,
    pub(crate) pool: Arc<Pool>,
    in_flight: AtomicUsize,
    requests: AtomicU64,
    failures: AtomicU64,
    standing: Mutex<Standing>,
}

/// What is thought of an endpoint.
#[derive(Clone, Copy, Default)]
pub(crate) struct Standing {
    pub(crate) breaker: Breaker,
    pub(crate) health: Health,
    pub(crate) outlier: Outlier,
}

/// An endpoint at one moment.
#[derive(Clone, Debug)]
pub struct EndpointSnapshot {
    /// Its address, with its name where it has one.
    pub address: String,
    /// Requests in flight.
    pub in_flight: usize,
    /// Requests sent.
    pub requests: u64,
    /// Of which failed: no answer, or 502, 503 or 504.
    pub failures: u64,
    /// `closed`, `open` or `half-open`.
    pub breaker: &'static str,
    /// What probes say.
    pub healthy: bool,
    /// Put aside for its failures.
    pub ejected: bool,
}

impl Endpoint {
    pub(crate) fn new(authority: &str, to: To, pool: Arc<Pool>) -> Arc<Self> {
        Arc::new(Self {
            authority: authority.to_owned(),
            to,
            pool,
            in_flight: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            standing: Mutex::default(),
        })
    }

    pub(crate) fn load(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    pub(crate) fn standing(&self) -> MutexGuard<'_, Standing> {
        // Each change is one assignment: a poisoned one is whole.
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one request; `None` while the breaker is open.
    pub(crate) fn enter(self: &Arc<Self>, now: Instant) -> Option<Ticket> {
        let admission = self.standing().breaker.admit(now)?;
        self.in_flight.fetch_add(1, Relaxed);
        self.requests.fetch_add(1, Relaxed);
        Some(Ticket {
            endpoint: self.clone(),
            admission,
            judged: false,
        })
    }

    pub(crate) fn snapshot(&self, now: Instant) -> EndpointSnapshot {
        let standing = *self.standing();
        EndpointSnapshot {
            address: match &self.to {
                To::Name(_) => self.authority.clone(),
                To::Address(address) if address.to_string() == self.authority => {
                    self.authority.clone()
                }
                To::Address(address) => format!("{} ({address})", self.authority),
            },
            in_flight: self.load(),
            requests: self.requests.load(Relaxed),
            failures: self.failures.load(Relaxed),
            breaker: standing.breaker.name(),
            healthy: standing.health.healthy(),
            ejected: standing.outlier.ejected(now),
        }
    }
}

/// One request at an endpoint, until its response ended.
pub(crate) struct Ticket {
    pub(crate) endpoint: Arc<Endpoint>,
    admission: Admission,
    judged: bool,
}

impl Ticket {
    /// Tells the breaker how it went; `true` when that opened it.
    pub(crate) fn judge(&mut self, good: bool, now: Instant, policy: breaker::Policy) -> bool {
        if std::mem::replace(&mut self.judged, true) {
            return false;
        }
        let mut standing = self.endpoint.standing();
        if good {
            standing.breaker.succeeded(self.admission);
            return false;
        }
        self.endpoint.failures.fetch_add(1, Relaxed);
        standing.breaker.failed(self.admission, now, policy)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.endpoint.in_flight.fetch_sub(1, Relaxed);
        if !self.judged {
            let mut standing = self.endpoint.standing();
            standing.breaker.abandoned(self.admission, Instant::now());
        }
    }
}
