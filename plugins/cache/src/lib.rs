//! The cache filter.
