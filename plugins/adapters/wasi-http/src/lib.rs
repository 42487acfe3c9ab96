//! Runs an Edgeweir filter as a wasi:http 0.3 middleware component.
//!
//! A component crate is one line: `edgeweir_adapter_wasi_http::component!(edgeweir_minify::Minify);`, or
//! `component!(edgeweir_x::X, fetch);` for a filter that sends requests of its own to servers it names (only then is
//! `wasi:http/client` imported). What a filter sends onward goes to the next handler, as its exchanges do: that needs no
//! client. Such a response is taken whole, at most 4 MiB of it, without its trailers.
//!
//! # Configuration
//! JSON in the environment variable `EDGEWEIR_` + the filter's name in upper case (`EDGEWEIR_CACHE`); none, or an empty
//! one, means the filter's defaults. With the feature `spin` the Spin variable `edgeweir_cache` comes first. A component
//! has no load phase: a refused configuration is written to standard error once per instance, and every request is
//! answered 500 with problem details that name the field.
//!
//! # State
//! Without the feature `spin` the shared store is the instance's own memory, as many bytes as the filter wants and at
//! most 64 MiB: [`memory`] and [`cells`] bound it. How many instances there are and how long they live is the host's
//! business, so what is counted there is approximate; it is said so on standard error at the first request. With the
//! feature `spin` it is `spin:key-value`, label `default`, with a fixed number of slots: see [`slots`]. A store that can't
//! be opened is named once, and the instance goes on with its memory.
//!
//! # Work beside exchanges
//! An instance has at most 64 effects nobody waits for and 64 tasks under way; what comes on top is dropped. They run
//! beside the exchange that asked for them and may outlive its response, where the host keeps the instance for them.
//!
//! # Bodies
//! What a filter does not want is handed on as it came, stream and trailers, without being read. What it wants is read in
//! pieces of at most 64 KiB; a stalled client holds one piece and what the filter made of it. A body is complete only
//! once its trailers have arrived without an error: a cut one never reaches a filter's `end`, and never ends cleanly for
//! the receiver. A response that is to change and whose origin declared at most 64 KiB is collected and sent with its
//! length, since Spin's listener delays the last piece of a chunked response.
//!
//! # Failures
//! No answer from the next handler becomes a 502 or 504 with problem details and passes through the filter like a
//! response of the origin's.
//!
//! WASI has no metrics: a host gets counters as lines on standard error if it asks for them (`counters`). Log lines of
//! level info and above go to standard error, at most 50 a second.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

#[doc(hidden)]
pub mod bindings;
mod body;
pub mod cells;
mod counters;
mod effects;
mod exchange;
mod fetch;
mod gates;
mod instance;
#[cfg(feature = "spin")]
mod key_value;
mod log;
pub mod memory;
mod message;
mod problem;
#[cfg(feature = "spin")]
mod redis;
mod room;
pub mod slots;
mod tasks;
mod time;

pub use exchange::handle;
pub use fetch::{Fetcher, fetcher};

/// Makes the crate a component of one filter: `component!(Filter)`, or `component!(Filter, fetch)` for a filter that
/// asks for `Effect::Fetch` of a server it names.
#[macro_export]
macro_rules! component {
    ($filter:ty) => {
        $crate::component!(@export $filter, ::core::option::Option::None);
    };
    ($filter:ty, fetch) => {
        $crate::component!(@export $filter, ::core::option::Option::Some($crate::fetcher as $crate::Fetcher));
    };
    (@export $filter:ty, $fetcher:expr) => {
        struct Component;

        impl $crate::bindings::exports::wasi::http::handler::Guest for Component {
            async fn handle(
                request: $crate::bindings::wasi::http::types::Request,
            ) -> ::core::result::Result<
                $crate::bindings::wasi::http::types::Response,
                $crate::bindings::wasi::http::types::ErrorCode,
            > {
                $crate::handle::<$filter>(request, $fetcher).await
            }
        }

        $crate::bindings::export!(Component with_types_in $crate::bindings);
    };
}
