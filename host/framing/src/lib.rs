//! Where an HTTP/1.1 request begins and ends, checked before anything reads it.
//!
//! Two readers of one byte stream that disagree about the end of a request see different requests: that is smuggling. What
//! could be read in two ways is refused here, before the HTTP implementation behind is asked, so that it does not matter how
//! lenient that one is. Of HTTP/2 it looks at the heads of frames and at SETTINGS, for what the implementation behind takes or
//! gives a wrong code. [`Framing`] decides; [`Checked`] puts it in front of a reader.
#![forbid(unsafe_code)]

mod checked;
mod frames;
mod head;
mod machine;

pub use checked::Checked;
pub use head::{Body, Malformed, request};
pub use machine::Framing;
