//! What the host reads beside its own file: routes by which a request finds its way, Envoy bootstraps and Spin manifests.
//!
//! Pure: text in, a model and [`Finding`]s out. Every value keeps its place in the text, so that whatever is wrong with it
//! is said with line and column, and every field that has no meaning here is named and never skipped in silence.
#![forbid(unsafe_code)]

pub mod action;
pub mod component;
pub mod envoy;
mod finding;
pub mod lint;
pub mod number;
pub mod outbound;
pub mod remote;
pub mod route;
mod section;
pub mod settings;
pub mod spin;
mod tree;
pub mod written;
pub mod yaml;

pub use finding::{Finding, Level, Place, Placed};
