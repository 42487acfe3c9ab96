//! Spin manifests.
