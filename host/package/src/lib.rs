//! Writes modules, components and Spin applications as OCI images, into an image layout on disk.
//!
//! Three forms, each as its readers want it; see [`Form`]. The same input gives the same bytes and so the same digests:
//! nothing of the machine or the time gets in.
#![forbid(unsafe_code)]

mod application;
mod blob;
mod compose;
mod graph;
mod image;
mod layout;
mod link;
mod manifest;

pub use application::{Application, Component, Trigger, Variable};
pub use blob::Digest;
pub use compose::{ComposeError, Part, compose};
pub use image::{Form, Image, Interfaces, Label};
pub use layout::{Layout, Written};
pub use link::{Dependency, link};
pub use manifest::{ManifestError, Manifested, read as read_manifest};
