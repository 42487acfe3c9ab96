//! JSON minification as a pure filter: whitespace that means nothing is left out, every other byte is kept.
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

mod block;
mod config;
mod eligible;
mod lexer;
mod masks;
mod nesting;
mod scalar;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod simd;
mod stretch;
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
mod words;

use edgeweir_filter::representation;
use edgeweir_filter::{
    Body, ConfigError, Configured, Cx, Exchange, Fields, Filter, RequestHead, ResponseHead, Step,
};

pub use config::Config;
pub use eligible::Skipped;
pub use lexer::{Framing, Invalid, Lexer};

use config::Settings;

/// The minify filter.
pub struct Minify {
    settings: Settings,
}

impl Configured for Minify {
    const NAME: &'static str = "minify";
    type Config = Config;

    fn new(config: Config) -> Result<Self, ConfigError> {
        Ok(Self {
            settings: Settings::check(&config)?,
        })
    }
}

impl Filter for Minify {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn exchange(&self) -> Box<dyn Exchange> {
        Box::new(Minified {
            settings: self.settings,
            request: Request::default(),
            lexer: None,
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
}

/// One exchange.
struct Minified {
    settings: Settings,
    request: Request,
    /// There while a body is looked at.
    lexer: Option<Lexer>,
    /// Bytes of the body so far.
    seen: u64,
    /// The whole body comes in one call, and goes on as it is when it is invalid.
    whole: bool,
    /// The head says that the content may have been changed.
    changed: bool,
}

impl Exchange for Minified {
    fn request(&mut self, head: &mut RequestHead, _: &mut Cx<'_>) -> Step {
        self.request = Request {
            is_head: head.method == "HEAD",
            is_connect: head.method == "CONNECT",
            no_transform: representation::no_transform(&head.fields),
            if_none_match: head.fields.joined("if-none-match"),
        };
        Step::Forward(Body::Pass)
    }

    fn response(&mut self, head: &mut ResponseHead, cx: &mut Cx<'_>) -> Step {
        let framing = match self.decide(head) {
            Ok(framing) => framing,
            Err(skipped) => {
                cx.count(skipped.counter());
                return Step::Forward(Body::Pass);
            }
        };
        let limit = self.settings.whole_bytes;
        self.whole = head
            .content_length()
            .and_then(|length| usize::try_from(length).ok())
            .is_some_and(|length| length <= limit);
        cx.count("minify.minified");
        self.changed = true;
        representation::transformed(head);
        // RFC 9110 §9.3.2: the fields of a HEAD are those of the GET, whose body will not come.
        if self.request.is_head {
            return Step::Forward(Body::Pass);
        }
        self.lexer = Some(Lexer::new(framing, self.settings.max_depth));
        Step::Forward(if self.whole {
            Body::Buffer { limit }
        } else {
            Body::Transform
        })
    }

    fn response_body(&mut self, chunk: &[u8], end: bool, out: &mut Vec<u8>, cx: &mut Cx<'_>) {
        let before = out.len();
        out.reserve(chunk.len());
        let invalid = match &mut self.lexer {
            None => {
                out.extend_from_slice(chunk);
                None
            }
            Some(lexer) if self.whole && end => {
                let invalid = lexer.push(chunk, out).or_else(|| lexer.finish(out));
                if invalid.is_some() {
                    out.truncate(before);
                    out.extend_from_slice(chunk);
                }
                invalid
            }
            Some(lexer) => {
                // There is more than was declared: what was held is gone on by now.
                self.whole = false;
                let room = self.settings.max_bytes.saturating_sub(self.seen);
                let room = usize::try_from(room).unwrap_or(usize::MAX);
                let (within, beyond) = chunk.split_at_checked(room).unwrap_or((chunk, &[]));
                let mut invalid = lexer.push(within, out);
                if !beyond.is_empty() {
                    if !lexer.is_passing() {
                        cx.count("minify.stopped.too_large");
                        lexer.pass(out);
                    }
                    out.extend_from_slice(beyond);
                }
                if end {
                    invalid = invalid.or(lexer.finish(out));
                }
                invalid
            }
        };
        if let Some(invalid) = invalid {
            cx.count(invalid.counter());
        }
        if end {
            self.lexer = None;
        }
        self.seen = self.seen.saturating_add(size(chunk.len()));
        cx.add("minify.bytes_in", size(chunk.len()));
        cx.add("minify.bytes_out", size(out.len() - before));
    }

    fn response_trailers(&mut self, trailers: &mut Fields, _: &mut Cx<'_>) {
        if self.changed {
            representation::drop_digests(trailers);
        }
    }
}

impl Minified {
    fn decide(&self, head: &mut ResponseHead) -> Result<Framing, Skipped> {
        if self.request.is_connect {
            return Err(Skipped::NoContent);
        }
        let checked = eligible::check(head, self.request.is_head, &self.settings);
        // RFC 9111 §5.2.1.6: the client asks intermediaries not to transform.
        if self.request.no_transform && matches!(checked, Ok(_) | Err(Skipped::NotModified)) {
            return Err(Skipped::NoTransform);
        }
        if checked == Err(Skipped::NotModified) {
            // RFC 9110 §15.4.5: a 304 has the ETag "that would have been sent in a 200". Most don't say of what type.
            if !head.fields.has("content-type") {
                let held = self.request.if_none_match.as_deref();
                representation::weaken_not_modified(head, held);
            } else if eligible::check_type(head).is_ok() {
                representation::weaken_etag(head);
            }
        }
        checked
    }
}

fn size(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
