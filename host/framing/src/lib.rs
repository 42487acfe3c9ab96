//! Where an HTTP/1.1 request begins and ends, checked before anything reads it.
//!
//! Two readers of one byte stream that disagree about the end of a request see different requests: that is smuggling. What
//! could be read in two ways is refused here, before the HTTP implementation behind is asked, so that it does not matter how
//! lenient that one is. Of HTTP/2 it looks at the heads of frames, at SETTINGS and at field blocks, for what the implementation
//! behind takes or gives a wrong code, and puts the code right in its answer. [`Framing`] decides; [`Checked`] puts it in front of
//! a reader.
#![forbid(unsafe_code)]

mod answers;
mod block;
mod checked;
mod frame;
mod frames;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod head;
mod hpack;
mod machine;
mod streams;

pub use checked::Checked;
pub use head::{Body, Malformed, request};
pub use machine::Framing;
