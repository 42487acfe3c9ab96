//! The compress filter as a proxy-wasm module.
