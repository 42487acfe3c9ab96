//! The proxy: listeners in front of chains, and upstreams behind them.

pub mod access;
pub mod bodies;
pub mod exchange;
mod flowing;
pub mod listener;
pub mod request_id;
mod streams;
pub mod tls;

pub use edgeweir_host_upstream::{Upstream, fields, plain};
pub use exchange::Site;
pub use listener::{Accepting, Bounds};
