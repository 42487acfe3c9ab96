//! What `edgeweir store` and a component that speaks to Redis in its place share, so that both decide alike and find what the
//! other wrote: the layouts of messages, the arithmetic of limits, and the scripts that Redis runs.
//!
//! Pure: no IO, no clock.
#![forbid(unsafe_code)]

pub mod decision;
pub mod limit;
pub mod scripts;
pub mod wire;
