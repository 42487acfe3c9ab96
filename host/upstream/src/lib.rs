//! Origins behind a chain: which of several endpoints takes a request, over which connection, and what is done when it
//! fails.
//!
//! [`balance`], [`breaker`], [`health`], [`outlier`] and [`retry`] decide, with time and chance as arguments;
//! [`Upstream`] acts on what they say.
#![forbid(unsafe_code)]

pub mod balance;
pub mod bodies;
pub mod breaker;
mod connect;
mod counts;
mod endpoint;
mod failure;
pub mod fields;
pub mod health;
pub mod outlier;
mod pool;
pub mod retry;
mod settings;
mod tend;
mod upstream;
mod wire;

pub use connect::roots_of;
pub use counts::{Counts, Event};
pub use endpoint::EndpointSnapshot;
pub use failure::plain;
pub use settings::{Protocol, Settings, Tls};
pub use upstream::{Snapshot, Upstream};
pub use wire::{Tallied, Tally};
