//! The edge filter.
