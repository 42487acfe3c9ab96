//! The ratelimit filter.
