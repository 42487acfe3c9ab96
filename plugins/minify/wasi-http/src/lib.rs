//! The minify filter as a wasi:http middleware component.
