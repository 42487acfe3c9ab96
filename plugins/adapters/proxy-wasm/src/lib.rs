//! Runs an Edgeweir filter in a proxy-wasm host such as Envoy (ABI 0.2.1).
//!
//! A module is one line: `edgeweir_adapter_proxy_wasm::module!(edgeweir_minify::Minify, response_bodies);`.
//!
//! # What it keeps to
//! - No callback panics on traffic; a hostcall that fails is a value, logged, and the message passes on.
//! - A head is read in one hostcall and only the names a filter changed are written back.
//! - A body is read in slices of at most 64 KiB and written once per callback. An untouched body is not read.
//! - One local response per stream, never after the head went out, and nothing after it in that callback.
//! - State that workers share lives in a fixed set of keys of the host's shared data, because the host never frees
//!   one: objects in the crate's `slots`, counters in its `cells`.
//!
//! # Trailers
//! A host such as Envoy offers no way to add body bytes once trailers are there, unless the body callback before them
//! paused. So the first 64 KiB (16 KiB of output) of a body that a filter adds a tail to, whose length is unknown and which
//! may have trailers (neither `transfer-encoding: chunked` nor `connection`: an HTTP/2 upstream) go out from a paused
//! state: pieces wait for their end or for a tick, 10 ms at most. A module that takes a declared length away says in a
//! property (`edgeweir_response_length`) when all of the body is there, for the modules behind it, which need not pause then. No other body is paused, because two filters of one host
//! that pause the same message get each other's bytes. Where trailers of a body of unknown length are announced in
//! `trailer`, of HTTP/1.1 too, filters are told beforehand that nothing can be added at the end, and one that would hold
//! bytes back (a compressor) does not begin. `text/event-stream` is never held. What remains: a longer body with trailers
//! that nobody announced, or one of HTTP/1.1 in a host that passes its trailers on, of which the filter holds bytes back to
//! its end (a compressor does), is reset instead of ending incomplete, and that is logged.
//!
//! # What a host has to do
//! While a head waits for an effect, body callbacks are not to run: a body that came meanwhile would pass unchanged. So a
//! head that waits is answered with 4, `StopAllIterationAndWatermark`, which says that whatever Envoy's
//! `allow_on_headers_stop_iteration` is; 1 says it only while that is off.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic
    )
)]
#![deny(unsafe_code)]
// Natively only the tests of the pools use what the exports call.
#![cfg_attr(not(target_arch = "wasm32"), allow(dead_code))]

mod agenda;
mod body;
mod callout;
mod cells;
mod directory;
#[cfg(target_arch = "wasm32")]
mod exports;
#[cfg(test)]
mod fake;
mod heads;
mod hostcalls;
mod root;
mod routes;
mod shared;
mod slots;
mod stream;
mod tasks;
mod vm;

use edgeweir_filter::{Chain, Configured, load};

use crate::hostcalls::Side;
use crate::stream::Action;

pub use hostcalls::construct;

/// Makes the crate it stands in a proxy-wasm module of one filter type (which implements
/// [`Configured`](edgeweir_filter::Configured)), with the callbacks that filter needs beyond those of every module:
/// `response_bodies` where it looks at bodies of responses, `log` where it wants to know what became of a request
/// ([`Wants::route`](edgeweir_filter::Wants::route)).
#[macro_export]
macro_rules! module {
    ($filter:ty $(, $needs:ident)*) => {
        /// Called by the host once, before anything else.
        #[cfg(target_arch = "wasm32")]
        #[unsafe(no_mangle)]
        pub extern "C" fn _initialize() {
            $crate::construct();
            $crate::start::<$filter>();
        }
        /// Keeps the filter's type checked where there is no host.
        #[cfg(not(target_arch = "wasm32"))]
        #[doc(hidden)]
        pub fn initialize() {
            $crate::start::<$filter>();
        }
        $($crate::callback!($needs);)*
    };
}

/// A callback that not every module has; for [`module!`] alone.
#[doc(hidden)]
#[macro_export]
macro_rules! callback {
    (response_bodies) => {
        #[cfg(target_arch = "wasm32")]
        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_response_body(context: u32, size: usize, end: u32) -> u32 {
            $crate::response_body(context, size, end != 0)
        }
        #[cfg(target_arch = "wasm32")]
        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_response_trailers(context: u32, _: u32) -> u32 {
            $crate::response_trailers(context)
        }
    };
    (log) => {
        #[cfg(target_arch = "wasm32")]
        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_log(context: u32) {
            $crate::log(context);
        }
    };
}

/// Tells the exports which filter this module holds.
pub fn start<F: Configured>() {
    vm::install(vm::Module {
        name: F::NAME,
        load: |json| load::<F>(json).map(Chain::of),
    });
}

/// A piece of a response's body; for [`module!`] alone.
#[doc(hidden)]
pub fn response_body(context: u32, size: usize, end: bool) -> u32 {
    vm::stream(context, |stream| stream.on_body(Side::Response, size, end))
}

/// The trailers of a response; for [`module!`] alone.
#[doc(hidden)]
pub fn response_trailers(context: u32) -> u32 {
    vm::stream(context, |stream| stream.on_trailers(Side::Response))
}

/// An exchange is over, and the host shows its request once more; for [`module!`] alone.
#[doc(hidden)]
pub fn log(context: u32) {
    vm::stream(context, |stream| {
        stream.on_log();
        Action::Continue
    });
}
