//! `edgeweir store`: state that outgrows one machine, over HTTP/1.1, kept in a file or in Redis.
//!
//! Cached responses (the cache's third tier), keys and values with versions, and limits that count once for all edges.
//! Every operation is atomic and takes one round trip. The reference is `README.md` beside this crate.
#![forbid(unsafe_code)]

pub mod backend;
pub mod command;
pub mod embedded;
pub mod journal;
pub mod listen;
pub mod news;
pub mod pattern;
pub mod problem;
pub mod redis;
pub mod service;
pub mod shelf;

pub use edgeweir_store_protocol::{decision, limit, scripts, wire};
