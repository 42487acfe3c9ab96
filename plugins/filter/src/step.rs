//! What a filter may ask for, and what it is told.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::{Body, Gate, Reply, RequestHead};

/// A filter's decision about a message's head.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "one at a time, and soon taken apart; a box would cost each fetch"
)]
pub enum Step {
    /// The head goes on, as changed; the body is treated as said.
    Forward(Body),
    /// This response is sent instead; the filter sees nothing more of the exchange.
    Reply(Reply),
    /// Do this, then come back with its [`Answer`]; the message waits.
    Do(Effect),
}

/// Something only an adapter can do.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "one at a time, and soon taken apart; a box would cost each fetch"
)]
pub enum Effect {
    /// Read a value shared by the edge's workers or instances.
    Load {
        /// At most 4 KiB.
        key: Bytes,
    },
    /// Write a value; it is gone after `ttl` at the latest, and may be gone earlier.
    Store {
        /// At most 4 KiB.
        key: Bytes,
        /// Bounded by the adapter; too large is answered [`Failed::TooLarge`].
        value: Bytes,
        /// Time to live.
        ttl: Duration,
    },
    /// Remove a value.
    Remove {
        /// The key as stored.
        key: Bytes,
    },
    /// Read, change and write a small value as one atomic operation (compare-and-swap until it holds).
    Update {
        /// The table it is in, always the same for a key: values of one kind, that may come to be shared (see [`Change`]).
        table: &'static str,
        /// At most 4 KiB.
        key: Bytes,
        /// The pure change.
        change: Change,
        /// How long the value matters after this update.
        ttl: Duration,
    },
    /// Send a request of the filter's own and wait for the whole response, whose body has at most [`FETCHED`] bytes.
    Fetch(Fetch),
    /// Wait until the gate opens, where one is given, and no longer than the limit.
    Wait {
        /// Opened by another exchange of this instance.
        gate: Option<Gate>,
        /// The longest wait.
        limit: Duration,
    },
}

/// A pure function of the value before, safe to call more than once: `None` leaves the value as it is.
///
/// Values are at most 64 bytes. When a table of such values is full, unrelated keys of it may share one value: a change
/// must stay safe (never more permissive) under that.
pub struct Change(Box<ChangeFn>);

type ChangeFn = dyn Fn(Option<&[u8]>) -> Option<Vec<u8>>;

impl Change {
    /// Wraps the function.
    pub fn new(change: impl Fn(Option<&[u8]>) -> Option<Vec<u8>> + 'static) -> Self {
        Self(Box::new(change))
    }
    /// The value after, or `None` to leave it.
    pub fn apply(&self, before: Option<&[u8]>) -> Option<Vec<u8>> {
        (self.0)(before)
    }
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Change")
    }
}

/// A request of the filter's own.
#[derive(Clone, Debug)]
pub struct Fetch {
    /// Where to.
    pub to: To,
    /// The request's head.
    pub head: RequestHead,
    /// Its body.
    pub body: Bytes,
    /// The longest it may take.
    pub timeout: Duration,
}

/// Where a [`Fetch`] goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum To {
    /// Where the exchange that asked goes: the cluster of its route (Envoy), the next handler (wasi:http). A task from
    /// [`Filter::startup`](crate::Filter::startup) has no exchange: in Envoy that is [`Failed::Unsupported`].
    Onward,
    /// The name of a cluster (Envoy); an authority (wasi:http), which the request has to be for: see
    /// [`Filter::targets_are_hosts`](crate::Filter::targets_are_hosts).
    Named(String),
}

/// A whole response to a [`Fetch`].
pub type Fetched = Reply;

/// The most bytes of such a response's body; a longer one is [`Failed::TooLarge`].
pub const FETCHED: usize = 8 << 20;

/// How a request went that a filter sent on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Way {
    /// The edge asked the origin for another path or host than the filter did (a rewrite of the route): a request of the
    /// filter's own would not reach the same resource.
    pub rewritten: bool,
    /// Where it went, in the words of [`To::Named`].
    pub to: String,
}

/// What came of an effect.
#[derive(Debug)]
pub enum Answer {
    /// Of `Load`: the value, or `None` when there is none.
    Loaded(Result<Option<Bytes>, Failed>),
    /// Of `Store` and `Remove`: how many others had to go to make room, as far as that is known.
    Stored(Result<u64, Failed>),
    /// Of `Update`: the value *before* the change that was written; apply the change again to know what it decided.
    Updated(Result<Option<Bytes>, Failed>),
    /// Of `Fetch`.
    Fetched(Result<Fetched, Failed>),
    /// Of `Wait`.
    Waited,
}

/// Why an effect did not happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failed {
    /// The value is over the store's bound, the response over [`FETCHED`].
    TooLarge,
    /// The edge has no such store, cluster or function.
    Unsupported,
    /// It took longer than allowed.
    TimedOut,
    /// Many writers at once; gave up after a bounded number of tries.
    Contended,
    /// Anything else, named in the adapter's log.
    Unavailable,
}

impl Failed {
    /// The name shared by log, metric and header.
    pub fn name(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Unsupported => "unsupported",
            Self::TimedOut => "timed_out",
            Self::Contended => "contended",
            Self::Unavailable => "unavailable",
        }
    }
}
