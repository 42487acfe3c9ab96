//! One exchange: what its request asks for, what its response may become, its body on the way.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use edgeweir_filter::representation;
use edgeweir_filter::{
    Body, Cx, Emergency, Exchange, Fields, Level, RequestHead, ResponseHead, Step,
};

use crate::breach::{self, Breach};
use crate::budget::Reservation;
use crate::gain::{self, Key};
use crate::governor::Ease;
use crate::measure::{self, Tally, size};
use crate::policy::Policy;
use crate::{AcceptEncoding, Coding, Encoder, EncoderFailed, Plan, Shared, Skipped};
use crate::{eligible, etag};

/// What of the request matters for its response.
struct Request {
    policy: Rc<Policy>,
    is_head: bool,
    is_connect: bool,
    no_transform: bool,
    /// It is of somebody who is known.
    personal: bool,
    emergency: Emergency,
    /// `None` when there is no such field.
    accept: Option<AcceptEncoding>,
    if_none_match: Option<Vec<u8>>,
    gain: Key,
}

/// A coding, and the levels that it was to have and has.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Choice {
    plan: Plan,
    configured: u8,
    level: u8,
    /// Padding is added, of at least 9 bytes.
    padding: Option<usize>,
}

/// A body on its way through an encoder.
struct Stream {
    choice: Choice,
    encoder: Option<Encoder>,
    tally: Tally,
    _room: Reservation,
}

/// One exchange.
pub(crate) struct Coded {
    shared: Rc<Shared>,
    request: Option<Request>,
    stream: Option<Stream>,
    /// The head says that the content is coded.
    coded: bool,
    /// What coding took, once the body is whole.
    spent: Duration,
}

impl Coded {
    pub(crate) fn new(shared: Rc<Shared>) -> Self {
        Self {
            shared,
            request: None,
            stream: None,
            coded: false,
            spent: Duration::ZERO,
        }
    }
}

impl Exchange for Coded {
    fn request(&mut self, head: &mut RequestHead, _: &mut Cx<'_>) -> Step {
        let settings = &self.shared.settings;
        let fields = &mut head.fields;
        let accept = fields
            .has("accept-encoding")
            .then(|| AcceptEncoding::parse(fields));
        let if_none_match = fields.joined("if-none-match");
        etag::to_origin(settings.etag, fields);
        self.request = Some(Request {
            is_head: head.method == "HEAD",
            is_connect: head.method == "CONNECT",
            no_transform: representation::no_transform(fields),
            personal: breach::is_personal(fields),
            emergency: head.emergency,
            accept,
            if_none_match,
            gain: self.shared.gains.key(&head.authority, &head.path),
            policy: Rc::clone(settings.policy(head.path_only())),
        });
        if settings.remove_accept_encoding {
            head.fields.remove("accept-encoding");
        }
        Step::Forward(Body::Pass)
    }

    fn response(&mut self, head: &mut ResponseHead, cx: &mut Cx<'_>) -> Step {
        let Some(request) = self.request.take() else {
            debug_assert!(false, "a response without a request");
            return Step::Forward(Body::Pass);
        };
        let decided = self.decide(&request, head, cx);
        if self.shared.settings.server_timing {
            head.fields.append("server-timing", timing(&decided));
        }
        let body = match decided {
            Ok(choice) => {
                self.coded = true;
                let coding = choice.plan.coding();
                cx.count(measure::coded(coding));
                if choice.level < choice.configured {
                    cx.count("compress.lowered");
                }
                let token = Bytes::from_static(coding.token().as_bytes());
                head.fields.set("content-encoding", token);
                let varied = choice.padding.is_some();
                etag::coded(head, coding, self.shared.settings.etag, varied);
                self.stream.as_ref().map_or(Body::Pass, |_| Body::Transform)
            }
            Err(skipped) => {
                cx.count(skipped.counter());
                Body::Pass
            }
        };
        self.request = Some(request);
        Step::Forward(body)
    }

    fn response_body(&mut self, chunk: &[u8], end: bool, out: &mut Vec<u8>, cx: &mut Cx<'_>) {
        let Some(stream) = &mut self.stream else {
            // Failed before, or called after the end: plain bytes would not be of the coding that the head names.
            debug_assert!(self.coded, "a body without a decision");
            return;
        };
        let (begun, before) = (cx.lap(), out.len());
        let pushed = stream.push(chunk, end, out, cx);
        let lap = cx.lap();
        let coding = stream.choice.plan.coding();
        let piece = Tally {
            plain: size(chunk.len()),
            coded: size(out.len() - before),
            spent: lap.saturating_sub(begun),
        };
        stream.tally.add(coding, piece, cx);
        self.shared.govern(piece.spent, cx.now.plus(lap));
        if pushed.is_err() {
            cx.count("compress.failed");
            cx.cut(502);
            let line = format!("the {} encoder failed; the body is cut", coding.token());
            cx.log(Level::Error, line);
        } else if end {
            let tally = stream.tally;
            tally.end(cx);
            self.spent = tally.spent;
            if let Some(request) = &self.request {
                let percent = request.policy.max_ratio_percent;
                let gains = &self.shared.gains;
                gains.learn(request.gain, tally.plain, tally.coded, percent);
            }
        }
        if end || pushed.is_err() {
            self.stream = None;
        }
    }

    fn response_trailers(&mut self, trailers: &mut Fields, _: &mut Cx<'_>) {
        if self.coded {
            representation::drop_digests(trailers);
            if self.shared.settings.server_timing {
                let millis = self.spent.as_secs_f64() * 1000.0;
                let entry = format!("edgeweir-compress;dur={millis:.3}");
                trailers.append("server-timing", entry);
            }
        }
    }
}

impl Coded {
    /// Which coding the content gets; marks the head as negotiable where it is. Sets up the stream unless the
    /// request was HEAD, whose head is that of a GET.
    fn decide(
        &mut self,
        request: &Request,
        head: &mut ResponseHead,
        cx: &Cx<'_>,
    ) -> Result<Choice, Skipped> {
        let policy = &request.policy;
        if request.is_connect {
            return Err(Skipped::NoContent);
        }
        if policy.disabled {
            return Err(Skipped::Disabled);
        }
        match eligible::check(head, request.is_head, policy) {
            Err(Skipped::NotModified) => {
                self.not_modified(request, head);
                return Err(Skipped::NotModified);
            }
            other => other?,
        }
        let cookies = self.shared.settings.breach_cookies;
        let secret = policy.breach_all || cookies.tell(request.personal, &head.fields);
        if secret && policy.breach == Breach::Skip {
            if !policy.breach_all {
                // Without cookies it would be coded.
                vary(head);
            }
            return Err(Skipped::Breach);
        }
        vary(head);
        if head.tail_closed {
            return Err(Skipped::Trailers);
        }
        let ranked = request.ranked();
        if ranked.is_empty() {
            return Err(request.refusal());
        }
        self.shared.govern(Duration::ZERO, cx.now);
        let ease = self.ease(request.emergency)?;
        if self.shared.gains.poor(request.gain, !request.is_head) {
            return Err(Skipped::PoorRatio);
        }
        let padding = (secret && policy.breach == Breach::HideLength).then(|| {
            let chance = self.shared.chance.draw(cx.now);
            breach::length(chance, self.shared.settings.breach_bytes)
        });
        for coding in ranked {
            let configured = policy.level(coding);
            let Some(level) = ease.level(coding, configured) else {
                continue;
            };
            let choice = Choice {
                plan: Plan::new(coding, level, policy.window_bits, head.content_length()),
                configured,
                level,
                padding,
            };
            if request.is_head {
                return Ok(choice);
            }
            if let Some(room) = self.shared.budget.take(choice.plan.memory()) {
                self.stream = Some(Stream {
                    choice: choice.clone(),
                    encoder: None,
                    tally: Tally::default(),
                    _room: room,
                });
                return Ok(choice);
            }
        }
        Err(Skipped::Memory)
    }

    /// How far levels are lowered now: by what coding took, or by the machine's emergency, whichever is more.
    fn ease(&self, emergency: Emergency) -> Result<Ease, Skipped> {
        let (own, machine) = (self.shared.load.get().ease, Ease::new(emergency.level()));
        match () {
            () if own == Ease::OFF => Err(Skipped::Cpu),
            () if machine == Ease::OFF => Err(Skipped::Emergency),
            () => Ok(own.max(machine)),
        }
    }

    /// RFC 9110 §15.4.5: a 304 has the `ETag` and `Vary` "that would have been sent in a 200".
    fn not_modified(&self, request: &Request, head: &mut ResponseHead) {
        let typed = head.fields.has("content-type");
        if typed && eligible::check_media_type(head, &request.policy).is_err() {
            return;
        }
        vary(head);
        let (ranked, etags) = (request.ranked(), self.shared.settings.etag);
        let asked = request.if_none_match.as_deref();
        if !etag::not_modified(head, asked, &ranked, etags) {
            // RFC 9110 §8.6, RFC 9530 §3: they would be of the plain content, and freshen what is stored coded.
            head.fields.remove("content-length");
            representation::drop_digests(&mut head.fields);
        }
    }
}

impl Request {
    /// The codings to try, best first.
    fn ranked(&self) -> Vec<Coding> {
        match &self.accept {
            Some(accept) if !self.no_transform => accept.rank(&self.policy.codings),
            _ => Vec::new(),
        }
    }

    /// Why there is nothing to try.
    fn refusal(&self) -> Skipped {
        match self {
            // RFC 9111 §5.2.1.6: the client asks intermediaries not to transform.
            Self {
                no_transform: true, ..
            } => Skipped::NoTransform,
            // RFC 9110 §12.5.3: without the field any coding is acceptable, but such a client may know none.
            Self { accept: None, .. } => Skipped::NoAcceptEncoding,
            _ => Skipped::NotAcceptable,
        }
    }
}

impl Stream {
    fn push(
        &mut self,
        chunk: &[u8],
        end: bool,
        out: &mut Vec<u8>,
        cx: &mut Cx<'_>,
    ) -> Result<(), EncoderFailed> {
        let coding = self.choice.plan.coding();
        let plan = &self.choice.plan;
        let encoder = self.encoder.get_or_insert_with(|| {
            if gain::looks_random(chunk) {
                // What can't get smaller is not worth more than the lowest level, which also holds no more memory.
                cx.count("compress.incompressible");
                return plan.clone().at_lowest_level().encoder();
            }
            plan.encoder()
        });
        let Some(padding) = self.choice.padding.take_if(|_| !chunk.is_empty()) else {
            return encoder.push(chunk, end, out);
        };
        encoder.push(chunk, false, out)?;
        breach::pad(coding, padding, out);
        cx.add("compress.padding_bytes", size(padding));
        if end {
            encoder.push(&[], true, out)?;
        }
        Ok(())
    }
}

/// RFC 9110 §12.5.5: the selection depended on the field, also when no coding came of it.
fn vary(head: &mut ResponseHead) {
    if !head.fields.list("vary").any(|member| member == b"*") {
        head.fields.add_member("vary", "Accept-Encoding");
    }
}

/// The entry of `Server-Timing`: the coding and its level, lowered from which, or why there is none.
fn timing(decided: &Result<Choice, Skipped>) -> String {
    let what = match decided {
        Ok(choice) => {
            let (token, level) = (choice.plan.coding().token(), choice.level);
            match choice.configured {
                configured if configured > level => format!("{token} {configured} to {level}"),
                _ => format!("{token} {level}"),
            }
        }
        Err(skipped) => skipped.name().to_owned(),
    };
    format!("edgeweir-compress;desc=\"{what}\"")
}
