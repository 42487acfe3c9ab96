//! The edge filter as a proxy-wasm module.
