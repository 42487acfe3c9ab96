//! Bindings of the worlds in `wit/`, as generated.
//!
//! With the feature `spin` they are made from Spin's WIT directly and not taken from spin-sdk 7: the SDK brings the crate
//! wasip3 with another copy of the wasi:http types (a `Response` of the one is none of the other) and another version of
//! wit-bindgen, whose spawned tasks an export of this version would not run.
#![allow(
    missing_docs,
    clippy::all,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

#[cfg(not(feature = "spin"))]
wit_bindgen::generate!({
    path: "../../../wit",
    world: "edgeweir:worlds/filter",
    generate_all,
    pub_export_macro: true,
});

#[cfg(feature = "spin")]
wit_bindgen::generate!({
    path: "../../../wit",
    world: "edgeweir:worlds/spin-filter",
    generate_all,
    pub_export_macro: true,
});
