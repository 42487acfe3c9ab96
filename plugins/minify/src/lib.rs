//! The minify filter.
