//! What of a request matters for its response.

use std::rc::Rc;

use bytes::Bytes;
use edgeweir_filter::{Emergency, RequestHead, ResponseHead, representation};

use crate::breach;
use crate::decode::{Applied, DecodeConfig, DecodeResponses};
use crate::dictionary::Asked;
use crate::gain::{Gains, Key};
use crate::policy::Policy;
use crate::{AcceptEncoding, Coding, Shared, Skipped};

/// What of a request matters for its response.
pub(crate) struct Request {
    pub(crate) policy: Rc<Policy>,
    pub(crate) is_head: bool,
    pub(crate) is_connect: bool,
    pub(crate) no_transform: bool,
    /// It is of somebody who is known.
    pub(crate) personal: bool,
    pub(crate) emergency: Emergency,
    /// `None` when there is no such field.
    pub(crate) accept: Option<AcceptEncoding>,
    pub(crate) if_none_match: Option<Vec<u8>>,
    authority: Bytes,
    target: Bytes,
    /// `None` when it has nothing to do with dictionaries.
    pub(crate) asked: Option<Asked>,
}

/// A coding to take off a response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Decoding {
    pub(crate) coding: Coding,
    pub(crate) why: Why,
}

/// What a response is decoded for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Why {
    /// What follows is to see it plain.
    Filters,
    /// The client does not accept the coding.
    Client,
    /// The client likes another of ours better; when that can't be had, it stays as it is.
    Better,
}

impl Request {
    pub(crate) fn of(head: &RequestHead, shared: &Shared) -> Self {
        let fields = &head.fields;
        let accept = fields
            .has("accept-encoding")
            .then(|| AcceptEncoding::parse(fields));
        Self {
            policy: Rc::clone(shared.settings.policy(head.path_only())),
            is_head: head.method == "HEAD",
            is_connect: head.method == "CONNECT",
            no_transform: representation::no_transform(fields),
            personal: breach::is_personal(fields),
            emergency: head.emergency,
            accept,
            if_none_match: fields.joined("if-none-match"),
            authority: head.authority.clone(),
            target: head.path.clone(),
            asked: shared.dictionaries.asked(head),
        }
    }

    /// The URL that a body's gain is remembered by.
    pub(crate) fn gain(&self, gains: &Gains) -> Key {
        gains.key(&self.authority, &self.target)
    }

    /// The codings to try, best first.
    pub(crate) fn ranked(&self) -> Vec<Coding> {
        match &self.accept {
            Some(accept) if !self.no_transform => accept.rank(&self.policy.codings),
            _ => Vec::new(),
        }
    }

    /// Whether its response could be coded, as far as it goes by the request.
    pub(crate) fn could_be_coded(&self) -> bool {
        let open = !self.no_transform && !self.is_connect && !self.policy.disabled;
        let accept = self.accept.as_ref().filter(|_| open);
        accept.is_some_and(|it| !it.candidates(&self.policy.codings, true).is_empty())
    }

    /// Why there is nothing to try.
    pub(crate) fn refusal(&self) -> Skipped {
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

    /// Whether the response's coding is to be taken off.
    pub(crate) fn decoding(&self, head: &ResponseHead, config: &DecodeConfig) -> Option<Decoding> {
        let fixed = representation::fixed(head, self.is_head);
        let empty = head.content_length() == Some(0) || head.end && !self.is_head;
        let coded = fixed == Some(representation::Fixed::Coded) && !empty;
        if config.responses == DecodeResponses::Off
            || self.is_connect
            || self.no_transform
            || !coded
        {
            return None;
        }
        let Applied::One(coding) = Applied::of(&head.fields) else {
            return None;
        };
        let why = match (config.responses, &self.accept) {
            (DecodeResponses::ForFilters, _) => Why::Filters,
            // A client that names no coding may know none (but see RFC 9110 §12.5.3).
            (_, None) => Why::Client,
            (_, Some(accept)) if !accept.accepts(coding) => {
                let other = accept.accepts_identity() || !self.ranked().is_empty();
                other.then_some(Why::Client)?
            }
            (_, Some(accept)) => {
                let best = *self.ranked().first()?;
                let better = best != coding && accept.likes(best, coding);
                (config.transcode && better && !self.policy.disabled).then_some(Why::Better)?
            }
        };
        Some(Decoding { coding, why })
    }
}
