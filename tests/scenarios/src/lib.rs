//! One scenario, every host.
//!
//! A scenario is written once: what a client sends, how the origin behaves, what the client is to see. It runs
//! through the pure contract, through the host with the proxy-wasm modules and with the wasi:http components, and
//! through a real Envoy with two workers; also through Spin where a `spin` is on the PATH. A host that fails is named.
//!
//! ```ignore
//! on_each_host!(a_small_body_is_left_alone, [compress(json!({}))], |edge| {
//!     let seen = edge.send(&get("/x").field("accept-encoding", "gzip"), &Origin::text("small"));
//!     assert_eq!(seen.text("content-encoding"), "");
//! });
//! ```
//!
//! For a closer look: `EDGEWEIR_HOSTS=envoy,pure` runs some hosts only, `EDGEWEIR_BUILD=cache` compiles some filters
//! only, `EDGEWEIR_BIN` and `EDGEWEIR_ENVOY` name other programs. Each host's configuration and log stay below
//! `target/scenarios/`.

pub mod client;
mod edge;
pub mod faulty;
pub mod hosts;
pub mod http2;
pub mod load;
pub mod lockstep;
pub mod machines;
mod message;
pub mod origin;
mod setup;
pub mod streaming;

pub use edge::{Edge, hosts_that_ran, on_each_host};
pub use hosts::Host;
pub use message::{Framing, Origin, Received, Request, Seen, get, request};
pub use setup::{Filter, Setup, cache, compress, edge, minify, ratelimit};

/// A test that runs its scenario on each host: a name, the filters (outermost first) or a [`Setup`], and the scenario.
#[macro_export]
macro_rules! on_each_host {
    ($name:ident, [$($filter:expr),* $(,)?], |$edge:ident| $scenario:block) => {
        $crate::on_each_host!($name, $crate::Setup::of([$($filter),*]), |$edge| $scenario);
    };
    ($name:ident, $setup:expr, |$edge:ident| $scenario:block) => {
        #[test]
        fn $name() {
            $crate::on_each_host(stringify!($name), &$setup, |$edge: &mut $crate::Edge| $scenario);
        }
    };
}
