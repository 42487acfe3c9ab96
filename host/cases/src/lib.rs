//! Declarative cases for edge filters: the format, what is expected, whether it holds, and how that is reported.
//!
//! Nothing here runs a filter: a host gives [`seen::Seen`] for a [`model::Case`], and [`judge::judge`] says what does not
//! hold.
//!
//! ```
//! use edgeweir_host_cases::{parse, source::Source};
//!
//! let text = r#"
//! module = "hello.wasm"
//! [[case]]
//! name = "greets"
//! [[case.step]]
//! request = "GET /"
//! expect = { status = 200, feilds = { hello = "edge" } }
//! "#;
//! let wrong = parse::parse(Source { file: "hello.test.toml".into(), text: text.into() }).unwrap_err();
//! assert!(wrong.to_string().starts_with("hello.test.toml:7: in `case[0].step[0].expect.feilds`"), "{wrong}");
//! assert!(wrong.to_string().contains("did you mean `fields`?"));
//! ```
#![forbid(unsafe_code)]

pub mod coding;
pub mod content;
pub mod diff;
pub mod expect;
pub mod judge;
pub mod model;
pub mod parse;
pub mod report;
pub mod seen;
pub mod source;
mod time;
pub mod torture;
mod yaml;
