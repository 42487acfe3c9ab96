//! The cache filter as a wasi:http middleware component.
