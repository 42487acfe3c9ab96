//! What happened at an upstream, by name.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::wire::Tally;

/// One thing that happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A response head came.
    Answered,
    /// A connection could not be opened.
    ConnectFailed,
    /// A connection was not open in time.
    ConnectTimeout,
    /// TLS could not be agreed on, or the certificate is not the right one.
    TlsFailed,
    /// No response head in time.
    Timeout,
    /// The connection ended before a response head.
    Reset,
    /// The response was no sound HTTP.
    Malformed,
    /// The request's body did not come to its end.
    RequestCut,
    /// The upstream refused the stream.
    Refused,
    /// Too many requests were under way and waiting.
    Overflow,
    /// Every endpoint's breaker was open.
    CircuitOpen,
    /// No address for any of its names.
    Unresolved,
    /// The request could not be put in the form the upstream takes.
    Unsendable,
    /// A connection was opened.
    Connected,
    /// A kept connection had closed: the request went out on another.
    Stale,
    /// A request was sent again.
    Repeated,
    /// And was not, because: the method.
    FinalMethod,
    /// The body was on its way.
    FinalBodySent,
    /// It was repeated as often as may be.
    FinalAttempts,
    /// Too many were being repeated.
    FinalBudget,
    /// A breaker opened.
    BreakerOpened,
    /// An endpoint was put aside for its failures.
    Ejected,
    /// Probes changed what is thought of an endpoint.
    HealthChanged,
    /// A probe failed.
    ProbeFailed,
    /// No endpoint was in order, so all were used.
    Panic,
}

/// All, in the order of the enumeration.
const EVENTS: [(Event, &str); 25] = [
    (Event::Answered, "answered"),
    (Event::ConnectFailed, "connect_failed"),
    (Event::ConnectTimeout, "connect_timeout"),
    (Event::TlsFailed, "tls_failed"),
    (Event::Timeout, "timeout"),
    (Event::Reset, "reset"),
    (Event::Malformed, "malformed"),
    (Event::RequestCut, "request_cut"),
    (Event::Refused, "refused_stream"),
    (Event::Overflow, "overflow"),
    (Event::CircuitOpen, "circuit_open"),
    (Event::Unresolved, "unresolved"),
    (Event::Unsendable, "unsendable"),
    (Event::Connected, "connected"),
    (Event::Stale, "stale_connection"),
    (Event::Repeated, "repeated"),
    (Event::FinalMethod, "not_repeated_method"),
    (Event::FinalBodySent, "not_repeated_body_sent"),
    (Event::FinalAttempts, "not_repeated_attempts"),
    (Event::FinalBudget, "not_repeated_budget"),
    (Event::BreakerOpened, "breaker_opened"),
    (Event::Ejected, "ejected"),
    (Event::HealthChanged, "health_changed"),
    (Event::ProbeFailed, "probe_failed"),
    (Event::Panic, "panic"),
];

/// Counts of all events of an upstream. They outlive it: one that takes its place goes on with them.
#[derive(Default, Debug)]
pub struct Counts {
    /// Bytes on its connections.
    pub wire: Arc<Tally>,
    counts: [AtomicU64; EVENTS.len()],
}

impl Counts {
    pub(crate) fn add(&self, event: Event) {
        if let Some(count) = self.counts.get(event as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// How often it happened.
    pub fn get(&self, event: Event) -> u64 {
        self.counts
            .get(event as usize)
            .map_or(0, |count| count.load(Relaxed))
    }

    /// Names and numbers.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        EVENTS.iter().map(|(event, name)| (*name, self.get(*event)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_has_its_own_count() {
        let counts = Counts::default();
        for (index, (event, name)) in EVENTS.into_iter().enumerate() {
            assert_eq!(event as usize, index, "{name}");
            (0..=index).for_each(|_| counts.add(event));
        }
        for (index, (name, count)) in counts.all().enumerate() {
            assert_eq!(count, index as u64 + 1, "{name}");
        }
    }
}
