//! JSON minification as a pure filter: whitespace that means nothing is left out, and what rules say; every other byte
//! is kept.
//!
//! One pass over chunks cut anywhere, in memory that does not depend on the body's size: a few words and one bit per
//! level of nesting. Numbers, escapes (also unknown ones), duplicate members, their order and bytes that are no UTF-8
//! inside strings stay byte for byte. From the first byte that is not JSON on, the rest of a body goes on as it came,
//! and the reason is counted (`minify.invalid.NAME`). A body of a known and small length is checked as a whole before
//! (see [`Config::whole_bytes`]): an invalid one stays whole.
//!
//! Besides JSON texts (`application/json`, `+json`) there are JSON lines (`application/x-ndjson` and its other names; every
//! line feed is kept) and JSON text sequences (RFC 7464; record separators and the white space that ends a text are
//! kept). A body with a byte order mark, or in UTF-16 or UTF-32, goes on as it came.
//!
//! On the way members and elements may go (`null`s, what masks leave out, what a client did not ask for) and values may be
//! replaced (redactions): see [`Config`]. What an operator hides does not pass where it can't be read: see
//! [`Unreadable`].
//!
//! A changed response has a weak `ETag` (RFC 9110 §8.8.1); `If-None-Match` compares weakly (§13.1.2), so the origin
//! validates it as ever.
//!
//! ```
//! use edgeweir_filter::{Script, load};
//! use edgeweir_minify::Minify;
//!
//! let minify: Minify = load(b"").unwrap();
//! let mut script = Script::new(minify).origin(200, &[("content-type", "application/json")], "{ \"a\" : [ 1.0, 2 ] }\n");
//! assert_eq!(script.run().body_text(), r#"{"a":[1.0,2]}"#);
//! ```
#![forbid(unsafe_code)]
#![warn(clippy::unwrap_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

mod bare;
mod block;
mod config;
mod digests;
mod eligible;
mod engine;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod lexer;
mod mask;
mod masks;
mod nesting;
mod pattern;
mod plain;
mod query;
mod redact;
mod rewriter;
mod rules;
mod run;
mod scalar;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod simd;
mod skeleton;
mod stretch;
mod text;
mod token;
mod tokens;
mod walk;
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
mod words;

use std::rc::Rc;

use edgeweir_filter::representation;
use edgeweir_filter::{
    Body, ConfigError, Configured, Cx, Exchange, Fields, Filter, Reply, RequestHead, ResponseHead,
    Step,
};

pub use bare::Bare;
pub use config::{Config, FieldsParameter, Unreadable};
pub use eligible::Skipped;
pub use lexer::{Framing, Invalid, Lexer};
pub use mask::{BadMask, Mask};
pub use pattern::Pattern;
pub use redact::Replacement;
pub use rewriter::{Rewriter, Tally};
pub use rules::{DropNulls, Redaction, Rules};

use config::Settings;
use engine::Engine;

/// The minify filter.
pub struct Minify {
    settings: Rc<Settings>,
}

impl Configured for Minify {
    const NAME: &'static str = "minify";
    type Config = Config;

    fn new(config: Config) -> Result<Self, ConfigError> {
        Ok(Self {
            settings: Rc::new(Settings::check(&config)?),
        })
    }
}

impl Filter for Minify {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn exchange(&self) -> Box<dyn Exchange> {
        Box::new(Minified {
            settings: Rc::clone(&self.settings),
            request: Request::default(),
            engine: None,
            cuts: false,
            seen: 0,
            whole: false,
            changed: false,
        })
    }
}

/// What of the request matters for its response.
#[derive(Default)]
struct Request {
    is_head: bool,
    is_connect: bool,
    no_transform: bool,
    if_none_match: Option<Vec<u8>>,
    /// What the client wants of the response.
    mask: Option<Mask>,
}

/// One exchange.
struct Minified {
    settings: Rc<Settings>,
    request: Request,
    /// There while a body is looked at.
    engine: Option<Engine>,
    /// What can't be read of the body is not to pass.
    cuts: bool,
    /// Bytes of the body so far.
    seen: u64,
    /// The whole body comes in one call, and goes on as it is when it is invalid.
    whole: bool,
    /// The head says that the content may have been changed.
    changed: bool,
}

impl Exchange for Minified {
    fn request(&mut self, head: &mut RequestHead, cx: &mut Cx<'_>) -> Step {
        self.request = Request {
            is_head: head.method == "HEAD",
            is_connect: head.method == "CONNECT",
            no_transform: representation::no_transform(&head.fields),
            if_none_match: head.fields.joined("if-none-match"),
            mask: None,
        };
        if self.request.is_connect {
            return Step::Forward(Body::Pass);
        }
        if let Err(bad) = self.take_mask(head) {
            cx.count("minify.bad_mask");
            return Step::Reply(bad_mask(&bad));
        }
        if self.settings.rules.guards() || self.request.mask.is_some() {
            // RFC 9110 §14.2: a server may ignore Range. Positions of the origin's bytes are none of the rewritten ones,
            // and a part of a body can't be read.
            head.fields.remove("range");
            head.fields.remove("if-range");
            if self.settings.ask_identity {
                // RFC 9110 §12.5.3: without the field any content coding would do.
                head.fields.set("accept-encoding", "identity");
            }
        }
        Step::Forward(Body::Pass)
    }

    fn response(&mut self, head: &mut ResponseHead, cx: &mut Cx<'_>) -> Step {
        if !(200..300).contains(&head.status) {
            // What the client wants of an error is all of it.
            self.request.mask = None;
        }
        let framing = match self.decide(head) {
            Ok(framing) => framing,
            Err(skipped)
                if self.settings.refuses && eligible::shows(skipped, head, &self.settings) =>
            {
                cx.count("minify.refused");
                cx.count(skipped.counter());
                return Step::Reply(unreadable());
            }
            Err(skipped) => {
                cx.count(skipped.counter());
                return Step::Forward(Body::Pass);
            }
        };
        let limit = self.settings.whole_bytes;
        self.cuts = self.settings.refuses;
        self.whole = !self.cuts
            && !self.is_bare(framing)
            && head
                .content_length()
                .and_then(|length| usize::try_from(length).ok())
                .is_some_and(|length| length <= limit);
        cx.count("minify.minified");
        self.changed = true;
        digests::transformed(head);
        // RFC 9110 §9.3.2: the fields of a HEAD are those of the GET, whose body will not come.
        if self.request.is_head {
            return Step::Forward(Body::Pass);
        }
        self.engine = Some(self.engine(framing));
        Step::Forward(if self.whole {
            Body::Buffer { limit }
        } else {
            Body::Transform
        })
    }

    fn response_body(&mut self, chunk: &[u8], end: bool, out: &mut Vec<u8>, cx: &mut Cx<'_>) {
        let begun = cx.lap();
        let before = out.len();
        out.reserve(chunk.len());
        if end && self.seen == 0 && chunk.is_empty() && self.engine.take().is_some() {
            cx.count(Skipped::Empty.counter());
        }
        let invalid = match &mut self.engine {
            None => {
                out.extend_from_slice(chunk);
                None
            }
            Some(engine) if self.whole && end => {
                let invalid = engine.push(chunk, out).or_else(|| engine.finish(out));
                if invalid.is_some() {
                    out.truncate(before);
                    out.extend_from_slice(chunk);
                    engine.take_tally();
                }
                invalid
            }
            Some(engine) => {
                // There is more than was declared: what was held is gone on by now.
                self.whole = false;
                let room = self.settings.max_bytes.saturating_sub(self.seen);
                let room = usize::try_from(room).unwrap_or(usize::MAX);
                let (within, beyond) = chunk.split_at_checked(room).unwrap_or((chunk, &[]));
                let mut invalid = engine.push(within, out);
                if !beyond.is_empty() {
                    if !engine.is_stopped() {
                        cx.count("minify.stopped.too_large");
                        engine.stop(out);
                        cut(engine, cx);
                    }
                    engine.push(beyond, out);
                }
                if end {
                    invalid = invalid.or_else(|| engine.finish(out));
                }
                if invalid.is_some() {
                    cut(engine, cx);
                }
                invalid
            }
        };
        if let Some(invalid) = invalid {
            cx.count(invalid.counter());
        }
        if let Some(engine) = &mut self.engine {
            let tally = engine.take_tally();
            for (counter, by) in [
                ("minify.nulls_dropped", tally.nulls),
                ("minify.members_dropped", tally.left_out),
                ("minify.values_redacted", tally.redacted),
            ] {
                if by > 0 {
                    cx.add(counter, by);
                }
            }
        }
        if end {
            self.engine = None;
        }
        self.seen = self.seen.saturating_add(size(chunk.len()));
        cx.add("minify.bytes_in", size(chunk.len()));
        cx.add("minify.bytes_out", size(out.len() - before));
        let nanoseconds =
            u64::try_from(cx.lap().saturating_sub(begun).as_nanos()).unwrap_or(u64::MAX);
        if nanoseconds > 0 {
            cx.add("minify.nanoseconds", nanoseconds);
        }
    }

    fn response_trailers(&mut self, trailers: &mut Fields, _: &mut Cx<'_>) {
        if self.changed {
            digests::drop_all(trailers);
        }
    }
}

impl Minified {
    /// Reads the mask of the query, and takes it away where the origin is not to see it.
    fn take_mask(&mut self, head: &mut RequestHead) -> Result<(), BadMask> {
        let (Some(parameter), Some(query)) = (&self.settings.fields, head.query()) else {
            return Ok(());
        };
        let (mask, rest) = query::mask(query, parameter)?;
        if !parameter.forward && rest != query {
            let mut path = head.path_only().to_vec();
            if !rest.is_empty() {
                path.push(b'?');
                path.extend_from_slice(&rest);
            }
            head.path = path.into();
        }
        self.request.mask = mask;
        Ok(())
    }

    /// Nothing is checked: whitespace and `null`s alone are to go, and the origin is trusted.
    fn is_bare(&self, framing: Framing) -> bool {
        let is_masked = self.request.mask.is_some() || self.settings.rules.guards();
        !self.settings.validate && !is_masked && framing == Framing::Single
    }

    fn engine(&mut self, framing: Framing) -> Engine {
        if self.is_bare(framing) {
            return Engine::Bare(Bare::new(self.settings.rules.drop_nulls));
        }
        let mask = self.request.mask.take();
        let depth = self.settings.max_depth;
        if mask.is_none() && self.settings.rules.is_empty() {
            return Engine::Space(Lexer::new(framing, depth));
        }
        let rules = Rc::clone(&self.settings.rules);
        Engine::Rules(Box::new(Rewriter::new(
            framing, depth, self.cuts, rules, mask,
        )))
    }

    fn decide(&self, head: &mut ResponseHead) -> Result<Framing, Skipped> {
        if self.request.is_connect {
            return Err(Skipped::NoContent);
        }
        let checked = eligible::check(head, self.request.is_head, &self.settings);
        // RFC 9111 §5.2.1.6: the client asks intermediaries not to transform. It can't ask for what is to be hidden.
        if self.request.no_transform
            && !self.settings.rules.guards()
            && matches!(checked, Ok(_) | Err(Skipped::NotModified))
        {
            return Err(Skipped::NoTransform);
        }
        if checked == Err(Skipped::NotModified) {
            // RFC 9110 §15.4.5: a 304 has the ETag "that would have been sent in a 200". Most don't say of what type.
            if !head.fields.has("content-type") {
                let held = self.request.if_none_match.as_deref();
                representation::weaken_not_modified(head, held);
                // Where the client holds the content as it came it has them already.
                digests::drop_of_stores(&mut head.fields);
            } else if eligible::check_type(head, &self.settings).is_ok() {
                digests::transformed(head);
            }
        }
        checked
    }
}

/// RFC 9112 §8: a message that does not end as its framing says is incomplete, so nobody takes or stores it for whole.
fn cut(engine: &Engine, cx: &mut Cx<'_>) {
    if engine.is_cut() {
        cx.count("minify.cut");
        cx.cut(502);
    }
}

/// RFC 9457: the mask of the query is none.
fn bad_mask(bad: &BadMask) -> Reply {
    // The reasons are fixed words without quotes or backslashes but one.
    let detail = bad.to_string().replace('\\', "\\\\");
    let body = format!(
        r#"{{"type":"about:blank","title":"Bad Request","status":400,"detail":"The mask of fields: {detail}"}}"#
    );
    problem(400, body)
}

/// RFC 9110 §15.6.3: the origin's response is not one that can be passed on.
fn unreadable() -> Reply {
    let body = r#"{"type":"about:blank","title":"Bad Gateway","status":502,"detail":"The response can't be shown"}"#;
    problem(502, body.to_owned())
}

fn problem(status: u16, body: String) -> Reply {
    let fields = [
        ("content-type", "application/problem+json"),
        ("cache-control", "no-store"),
    ];
    Reply::new(status, &fields, body)
}

fn size(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
