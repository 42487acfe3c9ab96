//! The contract of an Edgeweir filter: it decides, an adapter acts.
//!
//! A [`Filter`] makes one [`Exchange`] per request: a state machine that is given events (request head, body
//! chunks, response head, trailers, the answer to an effect) with the time, and returns a [`Step`]. It does no IO,
//! reads no clock and knows no ABI. An adapter performs the [`Effect`] in its own way (a hostcall, a callout, an
//! `.await`) and hands the [`Answer`] back.
//!
//! ```
//! use edgeweir_filter::{Body, Cx, Exchange, Filter, ResponseHead, Script, Step};
//!
//! struct Hello;
//! impl Filter for Hello {
//!     fn name(&self) -> &'static str { "hello" }
//!     fn exchange(&self) -> Box<dyn Exchange> { Box::new(Hello) }
//! }
//! impl Exchange for Hello {
//!     fn response(&mut self, head: &mut ResponseHead, _: &mut Cx<'_>) -> Step {
//!         head.fields.set("hello", "edge");
//!         Step::Forward(Body::Pass)
//!     }
//! }
//!
//! let mut script = Script::new(Hello);
//! let seen = script.get("/").origin(200, &[], "body").run();
//! assert_eq!(seen.field("hello"), Some(&b"edge"[..]));
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::indexing_slicing))]

mod body;
mod breaker;
mod chain;
mod config;
mod context;
mod emergency;
mod fields;
mod head;
mod json;
mod path;
mod percent;
pub mod representation;
mod script;
mod service;
mod step;
mod task;
mod time;
mod wants;

pub use body::{Body, Pipe};
pub use breaker::{Breaker, Pass, Trouble};
pub use chain::{Chain, ChainExchange};
pub use config::{ConfigError, Configured, bounded, load, schema};
pub use context::{Cx, Level, Record};
pub use emergency::Emergency;
pub use fields::{Changed, Fields, delta_seconds, entity_tags, is_token, list_members};
pub use head::{Reply, RequestHead, ResponseHead};
pub use path::PathPattern;
pub use percent::{comparable, form_decoded, normal_percent, percent_decoded, respelled};
pub use script::{Script, Seen, SharedMemory};
pub use service::Service;
pub use step::{Answer, Change, Effect, FETCHED, Failed, Fetch, Fetched, Step, To, Way};
pub use task::{Gate, Task};
pub use time::Timestamp;
pub use wants::Wants;

/// A configured filter: makes one [`Exchange`] per request.
///
/// State that outlives an exchange (an `lru`, a parsed table) belongs here, behind `Rc<RefCell<..>>`: a guest is
/// single-threaded, and an exchange never holds a borrow across a returned [`Step`].
pub trait Filter {
    /// The filter's fixed name: `cache`, `compress`, `minify`, `ratelimit`, `edge`.
    fn name(&self) -> &'static str;
    /// A fresh state machine for one request.
    fn exchange(&self) -> Box<dyn Exchange>;
    /// What it needs of an adapter beyond the messages.
    fn wants(&self) -> Wants {
        Wants::default()
    }
    /// Work to begin when the filter is loaded, in each worker or instance.
    fn startup(&self) -> Vec<Box<dyn Task>> {
        Vec::new()
    }
    /// Sentences for the operator, logged once at load: what is approximate here and why.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
    /// Told once at load, before anything else, where a request to a target by name ([`To::Named`]) can be for no other host
    /// than that: wasi:http makes `Host` of the authority it connects to. The filter goes by it, or names the field of its
    /// configuration that asks for what can't be done.
    fn targets_are_hosts(&self) -> Result<(), ConfigError> {
        Ok(())
    }
    /// Told once at load where what goes [`To::Onward`] passes by what the edge does to requests on their way: there it is
    /// the same resource's only as far as [`Exchange::sent`] says so.
    fn routes_rewrite(&self) {}
}

/// One request and its response, seen by one filter.
///
/// Order of calls: `request`, (`request_answer`)*, `request_body`*, `request_trailers`?, then `response`,
/// (`response_answer`)*, `response_body`*, `response_trailers`?. A filter that returned [`Step::Reply`] sees nothing
/// more. An exchange may be dropped at any point (the client left, the upstream was cut): then no call says `end`.
pub trait Exchange {
    /// The request's head; may be changed.
    fn request(&mut self, _head: &mut RequestHead, _cx: &mut Cx<'_>) -> Step {
        Step::Forward(Body::Pass)
    }
    /// The answer to the effect that `request` or `request_answer` asked for.
    fn request_answer(
        &mut self,
        _answer: Answer,
        _head: &mut RequestHead,
        _cx: &mut Cx<'_>,
    ) -> Step {
        debug_assert!(false, "an answer nobody asked for");
        Step::Forward(Body::Pass)
    }
    /// A piece of the request's body; what is to go on is appended to `out` (ignored under [`Body::Observe`]).
    /// `end` is true exactly once, with the last piece (which may be empty), and only after a complete body.
    fn request_body(&mut self, chunk: &[u8], _end: bool, out: &mut Vec<u8>, _cx: &mut Cx<'_>) {
        out.extend_from_slice(chunk);
    }
    /// The trailer section of the request, after its body's end.
    fn request_trailers(&mut self, _trailers: &mut Fields, _cx: &mut Cx<'_>) {}
    /// The response's head; may be changed. Not called for this filter's own reply.
    fn response(&mut self, _head: &mut ResponseHead, _cx: &mut Cx<'_>) -> Step {
        Step::Forward(Body::Pass)
    }
    /// The answer to the effect that `response` or `response_answer` asked for.
    fn response_answer(
        &mut self,
        _answer: Answer,
        _head: &mut ResponseHead,
        _cx: &mut Cx<'_>,
    ) -> Step {
        debug_assert!(false, "an answer nobody asked for");
        Step::Forward(Body::Pass)
    }
    /// As `request_body`, for the response. Each call is also a flush: what the origin sent is to reach the client.
    /// A response without a body (HEAD, 204, 304) gets no call.
    fn response_body(&mut self, chunk: &[u8], _end: bool, out: &mut Vec<u8>, _cx: &mut Cx<'_>) {
        out.extend_from_slice(chunk);
    }
    /// The trailer section, after the body's end.
    fn response_trailers(&mut self, _trailers: &mut Fields, _cx: &mut Cx<'_>) {}
    /// After everything else, and only where the edge shows it then, to a filter that wants the route: how the request went
    /// that was sent on, and that the origin answered.
    fn sent(&mut self, _way: &Way) {}
    /// After everything else, and only where the edge shows it: the edge follows a redirect of the origin itself, in an exchange of
    /// its own, so that there was no response to this request.
    fn redirected(&mut self) {}
}

impl<F: Filter + ?Sized> Filter for Box<F> {
    fn name(&self) -> &'static str {
        (**self).name()
    }
    fn exchange(&self) -> Box<dyn Exchange> {
        (**self).exchange()
    }
    fn wants(&self) -> Wants {
        (**self).wants()
    }
    fn startup(&self) -> Vec<Box<dyn Task>> {
        (**self).startup()
    }
    fn notes(&self) -> Vec<String> {
        (**self).notes()
    }
    fn targets_are_hosts(&self) -> Result<(), ConfigError> {
        (**self).targets_are_hosts()
    }
    fn routes_rewrite(&self) {
        (**self).routes_rewrite();
    }
}
