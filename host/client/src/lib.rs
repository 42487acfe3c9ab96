//! Commands for an edge that runs, the host or Envoy: look at it ([`top`]), fill its cache ([`warm`]), empty it ([`purge`]);
//! and what the host fetches itself ([`fetch`]).
#![forbid(unsafe_code)]

mod ask;
pub mod fetch;
pub mod purge;
mod secret;
pub mod top;
pub mod warm;

pub use secret::token;
