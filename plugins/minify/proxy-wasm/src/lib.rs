//! The minify filter as a proxy-wasm module.
