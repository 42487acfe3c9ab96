//! The project's own commands, behind the alias `cargo edge`: `build`, `demo`, `test`, `bench` and `fuzz`.
//!
//! They bring what they need (Wasm targets by rustup, Envoy by pip into the target folder, wrk from the distribution)
//! and say so in a line each. As a library it gives tests fresh modules and processes that die with them.

pub mod artifact;
pub mod bench;
pub mod build;
pub mod demo;
pub mod envoy;
pub mod fuzz;
mod linked;
mod logarithms;
pub mod process;
pub mod section;
mod shrink;
mod spared;
pub mod test;
pub mod tools;
pub mod workspace;
pub mod zeros;
