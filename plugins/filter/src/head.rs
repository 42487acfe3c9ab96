//! Heads of messages, and whole replies.

use bytes::Bytes;

use crate::{Emergency, Fields};

/// The head of a request.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RequestHead {
    /// The method, as received.
    pub method: Bytes,
    /// `http` or `https`.
    pub scheme: Bytes,
    /// `Host` or `:authority`.
    pub authority: Bytes,
    /// Path and query, as received.
    pub path: Bytes,
    /// The field lines.
    pub fields: Fields,
    /// The connection's client address without its port, text as the edge gives it (`192.0.2.1`, `2001:db8::1`).
    /// Filled only for a filter that wants it; `None` where the edge can't say.
    pub peer: Option<Bytes>,
    /// `peer` is no connection's: the edge took it from `X-Forwarded-For`, and who connects stays unknown.
    pub peer_forwarded: bool,
    /// The route, by a name that all requests to the same next handler have in common. Filled only for a filter that wants
    /// it, where the edge says it before the request goes on (Spin); see also [`Exchange::sent`](crate::Exchange::sent).
    pub route: Option<Bytes>,
    /// Whether the request ends with its head: no body follows. Where the edge does not show how a message is framed
    /// (wasi:http), a GET or HEAD without `content-length` is taken to end.
    pub end: bool,
    /// How short the machine is of resources. Filled only for a filter that wants it.
    pub emergency: Emergency,
    /// Set by a filter that decided by `end`: should there be content after all, it must not go on.
    pub bodiless: bool,
}

impl RequestHead {
    /// The path without its query.
    pub fn path_only(&self) -> &[u8] {
        self.path
            .split(|&byte| byte == b'?')
            .next()
            .unwrap_or_default()
    }

    /// The query without its `?`, when there is one.
    pub fn query(&self) -> Option<&[u8]> {
        let at = self.path.iter().position(|&byte| byte == b'?')?;
        self.path.get(at + 1..)
    }
}

/// The head of a response.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ResponseHead {
    /// The status code.
    pub status: u16,
    /// The field lines.
    pub fields: Fields,
    /// Whether the response ends with its head: no body follows (also HEAD, 204 and 304).
    pub end: bool,
    /// Nothing can be added once the body has ended: trailers are announced, and this edge can't write before them.
    /// A filter that would hold bytes back to the end must not begin.
    pub tail_closed: bool,
    /// Set by a filter that adds bytes at the end of the body, as a coder does: an edge that can't write once trailers came
    /// has to prepare for it, and does so for no other filter. What a filter without it holds back then is an error.
    pub has_tail: bool,
    /// About how many bytes of body follow, where a filter changed what was declared: set by
    /// [`transformed`](crate::representation::transformed).
    pub expected: Option<u64>,
    /// No answer came from the origin: the edge made this one up (refused, reset, timed out). Of the answer to a [`Fetch`]
    /// it says that this may be so: not every edge shows who sent it.
    ///
    /// [`Fetch`]: crate::Fetch
    pub unreached: bool,
}

impl ResponseHead {
    /// The declared length of the body, when it is there and one number.
    pub fn content_length(&self) -> Option<u64> {
        let mut members = self.fields.list("content-length");
        let first = members.next()?;
        if members.any(|other| other != first)
            || first.is_empty()
            || !first.iter().all(u8::is_ascii_digit)
        {
            return None;
        }
        std::str::from_utf8(first).ok()?.parse().ok()
    }

    /// The declared length, or about what it will be after other filters; good for estimates alone.
    pub fn expected_length(&self) -> Option<u64> {
        self.content_length().or(self.expected)
    }
}

/// A whole response made at the edge.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reply {
    /// Status and fields; the adapter sets `content-length` from the body.
    pub head: ResponseHead,
    /// What a GET would carry; for a HEAD request the adapter leaves it out and keeps its length.
    pub body: Bytes,
}

impl Reply {
    /// A reply of a status with text fields and a body.
    pub fn new(status: u16, fields: &[(&str, &str)], body: impl Into<Bytes>) -> Self {
        let body = body.into();
        Self {
            head: ResponseHead {
                status,
                fields: Fields::of(fields),
                end: body.is_empty(),
                ..ResponseHead::default()
            },
            body,
        }
    }

    /// Sets `content-length` from the body. A reply without a body keeps what it says (an answer to HEAD says what a
    /// GET would carry), or says 0 where a body would have been allowed.
    pub fn declare_length(&mut self, is_head: bool) {
        self.head.end = self.body.is_empty();
        // RFC 9110 §8.6: no Content-Length in a 1xx or 204; in a 304 it would be that of the 200.
        if self.head.status < 200 || self.head.status == 204 {
            self.head.fields.remove("content-length");
        } else if !self.body.is_empty() {
            self.head
                .fields
                .set("content-length", self.body.len().to_string());
        } else if !is_head && self.head.status != 304 {
            self.head.fields.set("content-length", "0");
        }
    }
}
