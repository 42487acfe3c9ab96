//! One exchange: what its request asks for, what its response may become, its body on the way.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use edgeweir_filter::representation;
use edgeweir_filter::{Body, Cx, Emergency, Exchange, Fields, RequestHead, ResponseHead, Step};

use crate::breach::{self, Breach};
use crate::decode::{self, Applied, DecodeResponses, Unpacker};
use crate::dictionary::Crossing;
use crate::governor::Ease;
use crate::request::{Decoding, Request, Why};
use crate::stream::{Broken, Choice, Stream, Unpacking, Works};
use crate::{Coding, Dictionary, Plan, Shared, Skipped};
use crate::{eligible, etag, measure};

/// One exchange.
pub(crate) struct Coded {
    shared: Rc<Shared>,
    request: Option<Request>,
    /// The request's body is decoded.
    unpacking: Option<Unpacking>,
    works: Works,
    /// The request's content is another than the client's.
    request_changed: bool,
    /// The head says other content than the origin's.
    changed: bool,
    /// What coding took, once the body is whole.
    spent: Duration,
}

impl Coded {
    pub(crate) fn new(shared: Rc<Shared>) -> Self {
        Self {
            shared,
            request: None,
            unpacking: None,
            request_changed: false,
            works: Works::default(),
            changed: false,
            spent: Duration::ZERO,
        }
    }
}

impl Exchange for Coded {
    fn request(&mut self, head: &mut RequestHead, cx: &mut Cx<'_>) -> Step {
        let request = Request::of(head, &self.shared);
        let settings = &self.shared.settings;
        etag::to_origin(settings.etag, &mut head.fields);
        // RFC 9110 §13.1.5: coded or not the content is of one date, so the origin would send a part of plain bytes for
        // the rest of coded ones. §14.2: "A server MAY ignore the Range header field."
        if etag::resumes_by_date(&head.fields) && request.could_be_coded() {
            head.fields.remove("range");
            head.fields.remove("if-range");
        }
        if settings.remove_accept_encoding {
            head.fields.remove("accept-encoding");
        }
        // RFC 9110 §14.5: a part of a representation; the coding is that of the whole.
        let partial = head.fields.has("content-range");
        let open = !head.end && !request.is_connect && !request.no_transform && !partial;
        self.request = Some(request);
        match Applied::of(&head.fields) {
            Applied::One(coding) if open && settings.decode.requests => {
                Step::Forward(self.decode_request(coding, head, cx))
            }
            Applied::Other if open && settings.decode.refuse_unknown => {
                cx.count("compress.request.unsupported");
                Step::Reply(decode::unsupported())
            }
            _ => Step::Forward(Body::Pass),
        }
    }

    fn request_body(&mut self, chunk: &[u8], end: bool, out: &mut Vec<u8>, cx: &mut Cx<'_>) {
        // Once it failed nothing more of it is shown.
        let Some(unpacking) = &mut self.unpacking else {
            return;
        };
        if let Err(why) = unpacking.push(chunk, end, out) {
            out.clear();
            self.unpacking = None;
            Broken::Undecodable(why).tell(why.status(), cx);
        }
    }

    fn request_trailers(&mut self, trailers: &mut Fields, _: &mut Cx<'_>) {
        if self.request_changed {
            representation::drop_digests(trailers);
        }
    }

    fn response(&mut self, head: &mut ResponseHead, cx: &mut Cx<'_>) -> Step {
        let Some(request) = self.request.take() else {
            debug_assert!(false, "a response without a request");
            return Step::Forward(Body::Pass);
        };
        let decided = self.decode_and_decide(&request, head, cx);
        if self.shared.settings.server_timing {
            head.fields.append("server-timing", timing(&decided));
        }
        match decided {
            Ok(choice) => {
                self.changed = true;
                let coding = choice.plan.coding();
                cx.count(measure::coded(coding));
                if choice.level < choice.configured {
                    cx.count("compress.lowered");
                }
                if choice.shared {
                    cx.count("compress.dictionary.used");
                }
                let token = Bytes::from_static(choice.plan.token().as_bytes());
                head.fields.set("content-encoding", token);
                // Bytes that depend on chance, or on what the client has, have no strong tag.
                let varied = choice.padding.is_some() || choice.shared;
                etag::coded(head, coding, self.shared.settings.etag, varied);
            }
            Err(skipped) => cx.count(skipped.counter()),
        }
        self.request = Some(request);
        head.has_tail |= self.works.stream.is_some();
        Step::Forward(match &self.works {
            Works {
                unpacking: None,
                stream: None,
                capture: None,
            } => Body::Pass,
            Works {
                unpacking: None,
                stream: None,
                ..
            } => Body::Observe,
            _ => Body::Transform,
        })
    }

    fn response_body(&mut self, chunk: &[u8], end: bool, out: &mut Vec<u8>, cx: &mut Cx<'_>) {
        let begun = cx.lap();
        let pushed = self.works.push(chunk, end, out, cx);
        let lap = cx.lap();
        let spent = lap.saturating_sub(begun);
        self.shared.spend(spent, cx.now.plus(lap));
        if let Some(stream) = &mut self.works.stream {
            stream.tally.took(stream.choice.plan.coding(), spent, cx);
        }
        if let Err(broken) = pushed {
            broken.tell(502, cx);
            self.works = Works::default();
        } else if end {
            let works = std::mem::take(&mut self.works);
            self.learn(works, cx);
        }
    }

    fn response_trailers(&mut self, trailers: &mut Fields, _: &mut Cx<'_>) {
        if self.changed {
            representation::drop_digests(trailers);
            if self.shared.settings.server_timing {
                // In milliseconds, as integers: what writes fractions takes 20 KB of a module.
                let spent = u64::try_from(self.spent.as_micros()).unwrap_or(u64::MAX);
                let (millis, rest) = (spent / 1000, spent % 1000);
                let entry = format!("edgeweir-compress;dur={millis}.{rest:03}");
                trailers.append("server-timing", entry);
            }
        }
    }
}

impl Coded {
    /// Takes the coding off a request's body, where there is room.
    fn decode_request(&mut self, coding: Coding, head: &mut RequestHead, cx: &mut Cx<'_>) -> Body {
        let Some(room) = self.shared.budget.take(Unpacker::memory(coding)) else {
            cx.count("compress.request.memory");
            return Body::Pass;
        };
        cx.count("compress.request.decoded");
        let ratio = self.shared.settings.decode.max_ratio;
        self.unpacking = Some(Unpacking::new(coding, ratio, room));
        self.request_changed = true;
        for field in ["content-encoding", "content-length"] {
            head.fields.remove(field);
        }
        representation::drop_digests(&mut head.fields);
        Body::Transform
    }

    /// Takes a coding off where that is asked for, then decides as if it had never been there.
    fn decode_and_decide(
        &mut self,
        request: &Request,
        head: &mut ResponseHead,
        cx: &mut Cx<'_>,
    ) -> Result<Choice, Skipped> {
        let shared = Rc::clone(&self.shared);
        let config = &shared.settings.decode;
        let Some(Decoding { coding, why }) = request.decoding(head, config) else {
            if config.responses == DecodeResponses::ForClient
                && matches!(Applied::of(&head.fields), Applied::One(_))
            {
                // Another client gets it plain.
                vary(head);
            }
            return self.decide(request, head, cx);
        };
        if why != Why::Filters {
            vary(head);
        }
        let Some(room) = shared.budget.take(Unpacker::memory(coding)) else {
            return Err(Skipped::Memory);
        };
        let before = head.clone();
        head.fields.remove("content-encoding");
        representation::transformed(head);
        // It grows, nobody knows how much.
        head.expected = None;
        let decided = match why {
            Why::Filters => Err(Skipped::Decoded),
            Why::Client | Why::Better => self.decide(request, head, cx),
        };
        if why == Why::Better && decided.is_err() {
            *head = before;
            self.works = Works::default();
            return Err(Skipped::Coded);
        }
        self.changed = true;
        cx.count(measure::decoded(coding));
        if !request.is_head {
            self.works.unpacking = Some(Unpacking::new(coding, config.max_ratio, room));
        }
        decided
    }

    /// Which coding the content gets; marks the head as negotiable where it is. Sets up the stream unless the
    /// request was HEAD, whose head is that of a GET.
    fn decide(
        &mut self,
        request: &Request,
        head: &mut ResponseHead,
        cx: &mut Cx<'_>,
    ) -> Result<Choice, Skipped> {
        let (shared, policy) = (Rc::clone(&self.shared), &request.policy);
        if request.is_connect {
            return Err(Skipped::NoContent);
        }
        if let Some(asked) = &request.asked {
            let dictionaries = &shared.dictionaries;
            self.works.capture = dictionaries.capture(asked, head, &shared.budget, cx.now);
            let offered = head.status == 200 && head.fields.has("use-as-dictionary");
            if offered && self.works.capture.is_none() {
                cx.count("compress.dictionary.refused");
            }
        }
        if policy.disabled {
            return Err(Skipped::Disabled);
        }
        match eligible::check(head, request.is_head, policy) {
            Err(Skipped::NotModified) => {
                self.not_modified(request, head, cx);
                return Err(Skipped::NotModified);
            }
            Err(Skipped::Partial) => {
                self.partial(request, head, cx);
                return Err(Skipped::Partial);
            }
            other => other?,
        }
        let cookies = shared.settings.breach_cookies;
        let secret = policy.breach_all || cookies.tell(request.personal, &head.fields);
        if secret && policy.breach == Breach::Skip {
            if !policy.breach_all {
                // Without cookies it would be coded.
                vary(head);
            }
            return Err(Skipped::Breach);
        }
        vary(head);
        let dictionary = self.dictionary(request, head, cx);
        if head.tail_closed {
            return Err(Skipped::Trailers);
        }
        let ranked = match &request.accept {
            Some(accept) if !request.no_transform => {
                accept.candidates(&policy.codings, dictionary.is_some())
            }
            _ => Vec::new(),
        };
        if ranked.is_empty() {
            return Err(request.refusal());
        }
        let ease = self.ease(request.emergency, cx)?;
        if shared
            .gains
            .poor(request.gain(&shared.gains), !request.is_head)
        {
            return Err(Skipped::PoorRatio);
        }
        let padding = (secret && policy.breach == Breach::HideLength).then(|| {
            let chance = shared.chance.draw(cx.now);
            breach::length(chance, shared.settings.breach_bytes)
        });
        // What another filter says of it is no promise: windows and memory go by what is declared alone.
        let length = head.content_length();
        let at_hand = head.expected_length().is_some();
        for candidate in ranked {
            let coding = candidate.coding;
            let configured = policy.level(coding);
            let Some(level) = ease.level(coding, configured) else {
                continue;
            };
            let mut plan = Plan::new(coding, level, policy.window_bits, length);
            if candidate.dictionary {
                let shared = dictionary.clone().and_then(|it| plan.with_dictionary(it));
                let Some(shared) = shared else {
                    continue;
                };
                plan = shared;
            }
            let choice = Choice {
                plan,
                shared: candidate.dictionary,
                configured,
                level,
                padding,
                at_hand,
            };
            if request.is_head {
                return Ok(choice);
            }
            if let Some(room) = shared.budget.take(choice.plan.memory()) {
                self.works.stream = Some(Stream::new(choice.clone(), room));
                return Ok(choice);
            }
        }
        Err(Skipped::Memory)
    }

    /// The dictionary that the client has, and whose request it is. Where one is for this path, the response depends on what
    /// the client has; where it has that, on who asks, also when none is used for it.
    fn vary_by_dictionary<'r>(
        &self,
        request: &'r Request,
        head: &mut ResponseHead,
        cx: &Cx<'_>,
    ) -> Option<(Rc<Dictionary>, &'r Crossing)> {
        let asked = request.asked.as_ref()?;
        let dictionaries = &self.shared.dictionaries;
        if !dictionaries.concern(asked, cx.now) {
            return None;
        }
        let found = dictionaries.find(asked, cx.now);
        if !head.fields.list("vary").any(|member| member == b"*") {
            // RFC 9842 §6.2: "the "Vary" header field [...] accept-encoding, available-dictionary".
            head.fields.add_member("vary", "Available-Dictionary");
            // RFC 9842 §9.3.3: a cache would answer another site with what was coded for the site itself.
            for name in found.iter().flat_map(|_| asked.crossing.read()) {
                head.fields.add_member("vary", name);
            }
        }
        Some((found?, &asked.crossing))
    }

    /// The dictionary to code with.
    fn dictionary(
        &self,
        request: &Request,
        head: &mut ResponseHead,
        cx: &mut Cx<'_>,
    ) -> Option<Rc<Dictionary>> {
        let (found, crossing) = self.vary_by_dictionary(request, head, cx)?;
        if !crossing.may_use(&head.fields) {
            cx.count("compress.dictionary.cross_origin");
            return None;
        }
        Some(found)
    }

    /// How far levels are lowered now: by what coding took, or by the machine's emergency, whichever is more.
    fn ease(&self, emergency: Emergency, cx: &Cx<'_>) -> Result<Ease, Skipped> {
        let (own, machine) = (self.shared.ease(cx.now), Ease::new(emergency.level()));
        match () {
            () if own == Ease::OFF => Err(Skipped::Cpu),
            () if machine == Ease::OFF => Err(Skipped::Emergency),
            () => Ok(own.max(machine)),
        }
    }

    /// RFC 9110 §15.3.7: a 206 has the `Vary` "that would have been sent in a 200". What is in several parts has no type here.
    fn partial(&self, request: &Request, head: &mut ResponseHead, cx: &Cx<'_>) {
        let type_is = representation::media_type(&head.fields);
        let several = type_is.as_deref() == Some("multipart/byteranges");
        let eligible = several || eligible::check_media_type(head, &request.policy).is_ok();
        if head.status == 206 && eligible {
            vary(head);
            self.vary_by_dictionary(request, head, cx);
        }
    }

    /// RFC 9110 §15.4.5: a 304 has the `ETag` and `Vary` "that would have been sent in a 200".
    fn not_modified(&self, request: &Request, head: &mut ResponseHead, cx: &Cx<'_>) {
        let settings = &self.shared.settings;
        let decodes = settings.decode.responses != DecodeResponses::Off;
        let typed = head.fields.has("content-type");
        let coded = !typed || eligible::check_media_type(head, &request.policy).is_ok();
        if !coded && !decodes {
            return;
        }
        vary(head);
        self.vary_by_dictionary(request, head, cx);
        let ranked = request.ranked();
        let asked = request.if_none_match.as_deref();
        let changes = decodes || !ranked.is_empty();
        if !etag::not_modified(head, asked, &ranked, changes, settings.etag) {
            // RFC 9110 §8.6, RFC 9530 §3: they would be of the plain content, and freshen what is stored coded.
            representation::drop_fields_of_bytes(&mut head.fields);
        }
    }

    /// The body is whole.
    fn learn(&mut self, works: Works, cx: &mut Cx<'_>) {
        let shared = &self.shared;
        if let Some(Stream { tally, .. }) = works.stream {
            tally.end(cx);
            self.spent = tally.spent;
            if let Some(request) = &self.request {
                let percent = request.policy.max_ratio_percent;
                let (plain, coded) = (tally.plain, tally.coded);
                let key = request.gain(&shared.gains);
                shared.gains.learn(key, plain, coded, percent);
            }
        }
        if let Some(capture) = works.capture {
            let kept = shared.dictionaries.keep(capture, cx.now);
            cx.count(match kept {
                true => "compress.dictionary.kept",
                false => "compress.dictionary.too_large",
            });
        }
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
            let (token, level) = (choice.plan.token(), choice.level);
            match choice.configured {
                configured if configured > level => format!("{token} {configured} to {level}"),
                _ => format!("{token} {level}"),
            }
        }
        Err(skipped) => skipped.name().to_owned(),
    };
    format!("edgeweir-compress;desc=\"{what}\"")
}
