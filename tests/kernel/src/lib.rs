//! The minifier's inner loop as a Wasm module of its own, in wasmtime.

pub mod document;
mod module;

pub use module::Kernel;
