//! The ratelimit filter as a wasi:http middleware component.
