//! The Edgeweir host: a reverse proxy over a chain of edge filters, that says what each of them costs.
//!
//! It runs the very `.wasm` files that go to Envoy (proxy-wasm modules) and to Spin (wasi:http components), in any mix.
#![forbid(unsafe_code)]

pub mod admin;
pub mod check;
pub mod cli;
pub mod config;
pub mod demo;
mod files;
pub mod host;
pub mod inspect;
mod kept;
pub mod load;
pub mod monitor;
pub mod package;
pub mod record;
mod refusal;
pub mod reload;
pub mod report;
pub mod routing;
pub mod schema;
pub mod serve;
mod sources;
pub mod stats;
pub mod test;
mod ways;
mod within;
