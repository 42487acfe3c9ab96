//! Answers: plain ones, and problems (RFC 9457) whose `name` says which "no" it is.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;
use serde_json::json;

use crate::backend::Failure;

/// What is answered.
pub type Answer = Response<Full<Bytes>>;

/// A "no" with its name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The status.
    pub status: u16,
    /// Its name.
    pub name: &'static str,
    /// What to know about this one.
    pub detail: String,
}

impl Problem {
    /// A "no".
    pub fn new(status: u16, name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            name,
            detail: detail.into(),
        }
    }

    /// A request that is not understood.
    pub fn bad(detail: impl Into<String>) -> Self {
        Self::new(400, "bad-request", detail)
    }

    /// As an answer.
    pub fn answer(&self) -> Answer {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // RFC 9457 §3.1: `about:blank` is a problem that says no more than its status; extension members may say more.
        let body = json!({
            "type": "about:blank",
            "title": status.canonical_reason().unwrap_or("Error"),
            "status": self.status,
            "name": self.name,
            "detail": self.detail,
        });
        let mut answer = typed(status, "application/problem+json", body.to_string());
        if self.status == 401 {
            let scheme = HeaderValue::from_static("Bearer");
            answer
                .headers_mut()
                .insert(http::header::WWW_AUTHENTICATE, scheme);
        }
        answer
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        Self::new(failure.status(), failure.name(), failure.detail())
    }
}

/// An answer with a body.
pub fn typed(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// An answer without one.
pub fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer
}
