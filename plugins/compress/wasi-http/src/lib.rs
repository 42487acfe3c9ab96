//! The compress filter as a wasi:http middleware component.
