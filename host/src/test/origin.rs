//! The origin of a case: it answers what the step says, and keeps what it was asked.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use edgeweir_host_cases::model::{Answer, Response as Scripted};
use edgeweir_host_cases::seen;
use edgeweir_host_chain::{Error, Layer, Next, Request, Response, Unreached, empty, full};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderValue, Method, StatusCode};

use super::body;

/// How long the host waits for an origin that is silent: Envoy's default for a route.
pub const TIMEOUT: Duration = Duration::from_secs(15);

/// An origin; clones are the same one.
#[derive(Clone, Default)]
pub struct Origin(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    answer: Option<Answer>,
    split: usize,
    asked: Vec<seen::Request>,
}

impl Origin {
    /// What it answers from now on.
    pub fn set(&self, answer: &Answer, split: usize) {
        let mut state = self.lock();
        state.answer = Some(answer.clone());
        state.split = split;
    }

    /// What it was asked since the last call.
    pub fn take(&self) -> Vec<seen::Request> {
        std::mem::take(&mut self.lock().asked)
    }

    /// What is to be answered now.
    pub fn now(&self) -> (Answer, usize) {
        let state = self.lock();
        (state.answer.clone().unwrap_or(Answer::Silent), state.split)
    }

    /// Keeps a request that was received whole.
    pub fn keep(&self, request: seen::Request) {
        self.lock().asked.push(request);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a request as the origin receives it.
pub async fn received(request: Request, answer: &Answer) -> Result<seen::Request, Error> {
    let (parts, content) = request.into_parts();
    let mut kept = seen::Request {
        method: parts.method.as_str().to_owned(),
        path: parts
            .uri
            .path_and_query()
            .map_or_else(String::new, |path| path.as_str().to_owned()),
        message: seen::Message {
            fields: body::fields(&parts.headers),
            ..seen::Message::default()
        },
        answered: None,
    };
    if let Some(why) = body::read(content, &mut kept.message).await {
        return Err(why.into());
    }
    if let Answer::Response(response) = answer
        && response.body.cut_after.is_none()
    {
        kept.answered = Some(seen::Response {
            status: response.status,
            message: seen::Message {
                fields: body::fields(&body::lines(&response.fields)),
                body: response.body.bytes.clone(),
                ..seen::Message::default()
            },
            cut: None,
        });
    }
    Ok(kept)
}

/// A scripted response; `least` is the shortest pause between two pieces.
pub fn response(scripted: &Scripted, split: usize, to_head: bool, least: Duration) -> Response {
    let content = &scripted.body;
    let bodiless = matches!(scripted.status, 204 | 304);
    let sent = match to_head || bodiless {
        true => empty(),
        false => body::body(content, split, least),
    };
    let mut response = http::Response::new(sent);
    *response.status_mut() = StatusCode::from_u16(scripted.status).unwrap_or_default();
    let headers = response.headers_mut();
    *headers = body::lines(&scripted.fields);
    if !bodiless && !content.chunked && !headers.contains_key(CONTENT_LENGTH) {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(content.bytes.len()));
    }
    response
}

#[async_trait]
impl Layer for Origin {
    fn name(&self) -> &str {
        "origin"
    }

    async fn handle(&self, request: Request, _next: Next) -> Result<Response, Error> {
        let to_head = request.method() == Method::HEAD;
        let (answer, split) = self.now();
        let scripted = match &answer {
            Answer::Refused => return Ok(unreached(Unreached::Refused)),
            answer => {
                let kept = received(request, answer).await?;
                self.keep(kept);
                match answer {
                    Answer::Response(scripted) => scripted,
                    Answer::Silent => {
                        tokio::time::sleep(TIMEOUT).await;
                        return Ok(unreached(Unreached::Timeout));
                    }
                    _ => return Ok(unreached(Unreached::Closed)),
                }
            }
        };
        tokio::time::sleep(scripted.delay).await;
        let mut response = self::response(scripted, split, to_head, Duration::ZERO);
        // As a module of Envoy sees it; a body with trailers comes over HTTP/2.
        if scripted.body.chunked && scripted.body.trailers.is_empty() && !to_head {
            let chunked = HeaderValue::from_static("chunked");
            response.headers_mut().insert(TRANSFER_ENCODING, chunked);
        }
        Ok(response)
    }
}

/// The response a host makes up, as this one's proxy does.
fn unreached(why: Unreached) -> Response {
    let (status, text) = match why {
        Unreached::Timeout | Unreached::ConnectTimeout => {
            (StatusCode::GATEWAY_TIMEOUT, "no response in time\n")
        }
        _ => (StatusCode::BAD_GATEWAY, "no response\n"),
    };
    let mut response = http::Response::new(full(text));
    *response.status_mut() = status;
    response.extensions_mut().insert(why);
    response
}
