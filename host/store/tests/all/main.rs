//! The store as a process, over HTTP, on each back-end; with a real Redis.
#![forbid(unsafe_code)]

mod agree;
mod faults;
// The rate limiter's own arithmetic, as it is: what the store decides must be the same.
#[path = "../../../../plugins/ratelimit/src/gcra.rs"]
#[allow(dead_code, missing_docs)]
mod gcra;
mod kill;
mod page;
mod process;
mod protocol;
#[path = "../../../../plugins/ratelimit/src/window.rs"]
#[allow(dead_code, missing_docs)]
mod window;
