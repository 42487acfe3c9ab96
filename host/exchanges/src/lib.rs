//! Exchanges recorded, replayed, generated and compared: `edgeweir record`, `replay`, `diff` and `explain`.
#![forbid(unsafe_code)]

mod callbacks;
mod client;
pub mod compare;
pub mod diff;
pub mod explain;
pub mod generate;
pub mod har;
mod message;
mod origin;
mod pair;
pub mod recorder;
pub mod replay;
mod shrink;
mod terminal;

pub use client::Client;
pub use message::{Answer, Asked, Exchange, Fields};
