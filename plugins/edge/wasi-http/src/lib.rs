//! The edge filter as a wasi:http middleware component.
