//! The compress filter.
