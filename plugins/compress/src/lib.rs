//! HTTP content coding as a pure filter: gzip, deflate and br by RFC 9110 §12.5.3, streamed, flushed with every
//! chunk, in bounded memory.
//!
//! Requests go on as they are (but see [`Config::remove_accept_encoding`]): an origin that codes by itself is left to
//! it. Ranges too: an origin that answers 206 is passed on, one that answers 200 may be coded.
//!
//! A coded response has a weak `ETag` (RFC 9110 §8.8.1). On the way back `If-None-Match` compares weakly (§13.1.2), so
//! the origin validates it as ever. `If-Match` compares strongly (§13.1.1) and is false for a weak validator, as is
//! `If-Range` (§13.1.5): a client that wants to write or to resume asks with `Accept-Encoding: identity`.
//!
//! ```
//! use edgeweir_filter::{Script, load};
//! use edgeweir_compress::Compress;
//!
//! let compress: Compress = load(br#"{"codings": ["gzip"], "min_bytes": 10}"#).unwrap();
//! let mut script = Script::new(compress).origin(200, &[("content-type", "text/plain")], "to be, or not to be");
//! let seen = script.request(&["GET", "/"], &[("accept-encoding", "gzip")]).run();
//! assert_eq!(seen.text("content-encoding"), "gzip");
//! assert_eq!(seen.text("vary"), "Accept-Encoding");
//! assert_eq!(seen.body()[..2], [0x1f, 0x8b]);
//! ```
#![forbid(unsafe_code)]
#![warn(clippy::unwrap_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

mod accept_encoding;
mod budget;
mod coder;
mod config;
mod eligible;
mod media_type;

use std::rc::Rc;

use bytes::Bytes;
use edgeweir_filter::representation;
use edgeweir_filter::{
    Body, ConfigError, Configured, Cx, Exchange, Fields, Filter, Level, RequestHead, ResponseHead,
    Step,
};

pub use accept_encoding::AcceptEncoding;
pub use coder::{Coding, Encoder, EncoderFailed, Plan};
pub use config::Config;
pub use eligible::Skipped;
pub use media_type::MediaRange;

use budget::{Budget, Reservation};
use config::Settings;

/// The compress filter.
pub struct Compress {
    settings: Rc<Settings>,
    budget: Budget,
}

impl Filter for Compress {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn exchange(&self) -> Box<dyn Exchange> {
        Box::new(Coded {
            settings: Rc::clone(&self.settings),
            budget: self.budget.clone(),
            request: Request::default(),
            stream: None,
            coded: false,
        })
    }

    fn notes(&self) -> Vec<String> {
        let dearest = self
            .settings
            .codings
            .iter()
            .map(|&coding| self.plan(coding).memory())
            .max();
        let (room, dearest) = (self.settings.memory_bytes, dearest.unwrap_or(1));
        vec![format!(
            "encoders hold at most {} MiB together; the dearest of the configured codings takes {} KiB a stream at most",
            room >> 20,
            dearest >> 10,
        )]
    }
}

impl Configured for Compress {
    const NAME: &'static str = "compress";
    type Config = Config;

    fn new(config: Config) -> Result<Self, ConfigError> {
        let settings = Settings::check(&config)?;
        let compress = Self {
            budget: Budget::new(settings.memory_bytes),
            settings: Rc::new(settings),
        };
        for &coding in &compress.settings.codings {
            let (needed, room) = (
                compress.plan(coding).memory(),
                compress.settings.memory_bytes,
            );
            if needed > room {
                let message = format!(
                    "{room} is less than one stream of {} takes at this level and window: {needed}",
                    coding.token()
                );
                return Err(ConfigError::new("memory_bytes", message));
            }
        }
        Ok(compress)
    }
}

impl Compress {
    fn plan(&self, coding: Coding) -> Plan {
        Plan::new(
            coding,
            self.settings.level(coding),
            self.settings.window_bits,
            None,
        )
    }
}

/// What of the request matters for its response.
#[derive(Default)]
struct Request {
    is_head: bool,
    is_connect: bool,
    no_transform: bool,
    /// `None` when there is no such field.
    accept: Option<AcceptEncoding>,
    if_none_match: Option<Vec<u8>>,
}

/// A body on its way through an encoder.
struct Stream {
    plan: Plan,
    encoder: Option<Encoder>,
    _room: Reservation,
}

/// One exchange.
struct Coded {
    settings: Rc<Settings>,
    budget: Budget,
    request: Request,
    stream: Option<Stream>,
    /// The head says that the content is coded.
    coded: bool,
}

impl Exchange for Coded {
    fn request(&mut self, head: &mut RequestHead, _: &mut Cx<'_>) -> Step {
        let fields = &mut head.fields;
        self.request = Request {
            is_head: head.method == "HEAD",
            is_connect: head.method == "CONNECT",
            no_transform: representation::no_transform(fields),
            accept: fields
                .has("accept-encoding")
                .then(|| AcceptEncoding::parse(fields)),
            if_none_match: fields.joined("if-none-match"),
        };
        if self.settings.remove_accept_encoding {
            fields.remove("accept-encoding");
        }
        Step::Forward(Body::Pass)
    }

    fn response(&mut self, head: &mut ResponseHead, cx: &mut Cx<'_>) -> Step {
        match self.decide(head) {
            Ok(plan) => {
                self.coded = true;
                let coding = plan.coding();
                cx.count(counter(coding));
                head.fields.set(
                    "content-encoding",
                    Bytes::from_static(coding.token().as_bytes()),
                );
                representation::transformed(head);
                Step::Forward(if self.stream.is_some() {
                    Body::Transform
                } else {
                    Body::Pass
                })
            }
            Err(skipped) => {
                cx.count(skipped.counter());
                Step::Forward(Body::Pass)
            }
        }
    }

    fn response_body(&mut self, chunk: &[u8], end: bool, out: &mut Vec<u8>, cx: &mut Cx<'_>) {
        let Some(stream) = &mut self.stream else {
            // Failed before, or called after the end: plain bytes would not be of the coding that the head names.
            debug_assert!(self.coded, "a body without a decision");
            return;
        };
        let before = out.len();
        let encoder = stream.encoder.get_or_insert_with(|| stream.plan.encoder());
        let pushed = encoder.push(chunk, end, out);
        cx.add("compress.bytes_in", size(chunk.len()));
        cx.add("compress.bytes_out", size(out.len() - before));
        if pushed.is_err() {
            cx.count("compress.failed");
            let line = format!(
                "the {} encoder failed; the body is cut",
                stream.plan.coding().token()
            );
            cx.log(Level::Error, line);
        }
        if end || pushed.is_err() {
            self.stream = None;
        }
    }

    fn response_trailers(&mut self, trailers: &mut Fields, _: &mut Cx<'_>) {
        if self.coded {
            representation::drop_digests(trailers);
        }
    }
}

impl Coded {
    /// Which coding the content gets; marks the head as negotiable where it is. Sets up the stream unless the
    /// request was HEAD, whose head is that of a GET.
    fn decide(&mut self, head: &mut ResponseHead) -> Result<Plan, Skipped> {
        if self.request.is_connect {
            return Err(Skipped::NoContent);
        }
        match eligible::check(head, self.request.is_head, &self.settings) {
            Err(Skipped::NotModified) => {
                self.not_modified(head);
                return Err(Skipped::NotModified);
            }
            other => other?,
        }
        vary(head);
        if head.tail_closed {
            return Err(Skipped::Trailers);
        }
        let length = head.content_length();
        let mut refused = Err(self.refusal());
        for coding in self.ranked() {
            let (level, window) = (self.settings.level(coding), self.settings.window_bits);
            let plan = Plan::new(coding, level, window, length);
            if self.request.is_head {
                return Ok(plan);
            }
            match self.budget.take(plan.memory()) {
                Some(room) => {
                    self.stream = Some(Stream {
                        plan,
                        encoder: None,
                        _room: room,
                    });
                    return Ok(plan);
                }
                None => refused = Err(Skipped::Memory),
            }
        }
        refused
    }

    /// The codings to try, best first.
    fn ranked(&self) -> Vec<Coding> {
        match &self.request.accept {
            Some(accept) if !self.request.no_transform => accept.rank(&self.settings.codings),
            _ => Vec::new(),
        }
    }

    /// Why there is nothing to try.
    fn refusal(&self) -> Skipped {
        match self.request {
            // RFC 9111 §5.2.1.6: the client asks intermediaries not to transform.
            Request {
                no_transform: true, ..
            } => Skipped::NoTransform,
            // RFC 9110 §12.5.3: without the field any coding is acceptable, but such a client may know none.
            Request { accept: None, .. } => Skipped::NoAcceptEncoding,
            _ => Skipped::NotAcceptable,
        }
    }

    /// RFC 9110 §15.4.5: a 304 has the `ETag` and `Vary` "that would have been sent in a 200".
    fn not_modified(&self, head: &mut ResponseHead) {
        let typed = head.fields.has("content-type");
        if typed && eligible::check_media_type(head, &self.settings).is_err() {
            return;
        }
        vary(head);
        if self.ranked().is_empty() {
            return;
        }
        if typed {
            representation::weaken_etag(head);
        } else {
            // Most 304s don't say what they are of.
            representation::weaken_not_modified(head, self.request.if_none_match.as_deref());
        }
    }
}

/// RFC 9110 §12.5.5: the selection depended on the field, also when no coding came of it.
fn vary(head: &mut ResponseHead) {
    if !head.fields.list("vary").any(|member| member == b"*") {
        head.fields.add_member("vary", "Accept-Encoding");
    }
}

fn counter(coding: Coding) -> &'static str {
    match coding {
        Coding::Brotli => "compress.coded.br",
        Coding::Gzip => "compress.coded.gzip",
        Coding::Deflate => "compress.coded.deflate",
    }
}

fn size(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
