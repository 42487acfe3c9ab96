//! The proxy: listeners in front of chains, and upstreams behind them.

pub mod bodies;
pub mod exchange;
pub mod fields;
pub mod listener;
pub mod upstream;

pub use exchange::Site;
pub use listener::{Accepting, Bounds};
pub use upstream::Upstream;
