//! The ratelimit filter as a proxy-wasm module.
