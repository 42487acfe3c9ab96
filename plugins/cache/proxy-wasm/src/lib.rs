//! The cache filter as a proxy-wasm module.
