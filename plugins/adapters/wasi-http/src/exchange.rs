//! One request and its response, through the filter.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use edgeweir_filter::{
    Answer, Body, ChainExchange, Configured, Cx, Effect, Exchange, Fields, Record, Reply,
    RequestHead, ResponseHead, Step,
};

use crate::bindings::wasi::http::handler;
use crate::bindings::wasi::http::types::{self as wasi, ErrorCode, Request, Response};
use crate::body::{self, Incoming, Outgoing, PIECE, Pump};
use crate::fetch::Fetcher;
use crate::instance::{Instance, instance};
use crate::message::{self, Refused};
use crate::{problem, time};

/// A response made as a whole, because its origin declared a small one, is streamed after all beyond this many bytes.
const GATHERED: usize = 1 << 20;

/// What `edgeweir run` says where the client left, or was given up, before there was a response.
const CALLED_OFF: &str = "the exchange was called off";

/// Serves one request: what a component exports as `wasi:http/handler`.
pub async fn handle<F: Configured>(
    request: Request,
    fetcher: Option<Fetcher>,
) -> Result<Response, ErrorCode> {
    serve(instance::<F>(fetcher).await, request).await
}

/// Which message a body belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Request,
    Response,
}

/// The filter's state for one exchange, shared by the head's way and the bodies' pumps.
#[derive(Clone)]
pub(crate) struct Session {
    instance: Rc<Instance>,
    state: Rc<RefCell<State>>,
}

struct State {
    exchange: ChainExchange,
    record: Record,
    /// The filter gave a body up, with this status.
    cut: Option<(Side, u16)>,
}

impl Session {
    fn new(instance: &Rc<Instance>, exchange: ChainExchange) -> Self {
        Self {
            instance: Rc::clone(instance),
            state: Rc::new(RefCell::new(State {
                exchange,
                record: Record::default(),
                cut: None,
            })),
        }
    }

    /// Gives the filter a piece of a body.
    pub(crate) fn feed(&self, side: Side, piece: &[u8], end: bool, out: &mut Vec<u8>) {
        self.call(|exchange, cx| match side {
            Side::Request => exchange.request_body(piece, end, out, cx),
            Side::Response => exchange.response_body(piece, end, out, cx),
        });
        let mut state = self.state.borrow_mut();
        if let Some(status) = state.record.cut.take() {
            state.cut = Some((side, status));
        }
    }

    /// Gives the filter the trailers of a side.
    pub(crate) fn trailers(&self, side: Side, trailers: &mut Fields) {
        self.call(|exchange, cx| match side {
            Side::Request => exchange.request_trailers(trailers, cx),
            Side::Response => exchange.response_trailers(trailers, cx),
        });
    }

    /// Why a body must not end as if it were whole, once the filter gave it up.
    pub(crate) fn cut(&self, side: Side) -> Option<ErrorCode> {
        let cut = self.state.borrow().cut.filter(|(of, _)| *of == side)?;
        Some(match cut {
            (Side::Request, 413) => ErrorCode::HttpRequestBodySize(None),
            (Side::Request, _) => ErrorCode::InternalError(None),
            (Side::Response, _) => ErrorCode::HttpResponseIncomplete,
        })
    }

    /// The reply to a request whose body the filter gave up.
    fn cut_reply(&self) -> Option<Reply> {
        match self.state.borrow().cut? {
            (Side::Request, status) => Some(Reply::new(status, &[], "")),
            (Side::Response, _) => None,
        }
    }

    /// One call of the filter, and what it left behind published. Never held over an `.await`.
    fn call<R>(&self, call: impl FnOnce(&mut ChainExchange, &mut Cx<'_>) -> R) -> R {
        let now = time::now();
        let mut state = self.state.borrow_mut();
        let State {
            exchange, record, ..
        } = &mut *state;
        let outcome = call(exchange, &mut Cx::new(now, record).timed(&time::now));
        self.instance.publish(now, record);
        outcome
    }

    async fn perform(&self, effect: Effect) -> Answer {
        self.instance.effects.perform(effect).await
    }

    /// Runs the request's head: the treatment of its body, or a reply.
    async fn run_request(&self, head: &mut RequestHead) -> Result<Body, Reply> {
        let mut step = self.call(|exchange, cx| exchange.request(head, cx));
        loop {
            match step {
                Step::Forward(body) => return Ok(body),
                Step::Reply(reply) => return Err(reply),
                Step::Do(effect) => {
                    let answer = self.perform(effect).await;
                    step = self.call(|exchange, cx| exchange.request_answer(answer, head, cx));
                }
            }
        }
    }

    /// Runs the response's head: the treatment of its body, or a reply in its place.
    async fn run_response(&self, head: &mut ResponseHead) -> Result<Body, Reply> {
        let mut step = self.call(|exchange, cx| exchange.response(head, cx));
        loop {
            match step {
                Step::Forward(body) => return Ok(body),
                Step::Reply(reply) => return Err(reply),
                Step::Do(effect) => {
                    let answer = self.perform(effect).await;
                    step = self.call(|exchange, cx| exchange.response_answer(answer, head, cx));
                }
            }
        }
    }
}

async fn serve(instance: Rc<Instance>, request: Request) -> Result<Response, ErrorCode> {
    let head = message::request_head(&request, instance.wants);
    let is_head = head.method == "HEAD";
    let session = match &instance.chain {
        Ok(chain) => Session::new(&instance, chain.start()),
        Err(refused) => {
            return send(
                problem::problem(500, "Configuration Refused", refused),
                is_head,
            );
        }
    };
    let request = match pass_request(&session, request, head).await {
        Ok(request) => request,
        Err(reply) => return send(reply, is_head),
    };
    let outcome = match handler::handle(request).await {
        Ok(response) => pass_response(&session, response, is_head).await,
        // Nothing failed that the filter ought to learn of: the exchange ends where it is.
        Err(ErrorCode::InternalError(Some(why))) if why == CALLED_OFF => {
            return Err(ErrorCode::ConnectionTerminated);
        }
        Err(code) => Err(match session.cut_reply() {
            Some(reply) => reply,
            None => pass_reply(&session, problem::no_response(&code), is_head).await,
        }),
    };
    match outcome {
        Ok(response) => Ok(response),
        Err(reply) => send(reply, is_head),
    }
}

/// The request to send on, as it came when nothing is to change; or what to answer instead.
async fn pass_request(
    session: &Session,
    request: Request,
    mut head: RequestHead,
) -> Result<Request, Reply> {
    let declared = declared(&head.fields);
    let line = line_of(&head);
    let wanted = session.run_request(&mut head).await?;
    let body = if head.end { Body::Pass } else { wanted };
    let same_line = line == line_of(&head);
    // Content that shows only when it is read: the filter has decided without it.
    let bodiless = head.bodiless && declared.is_none();
    if bodiless {
        // RFC 9110 §10.1.1: there is no 100-continue expectation in a request without content.
        head.fields.remove("expect");
    }
    if body == Body::Pass && !bodiless && same_line && head.fields.changed().is_empty() {
        return Ok(request);
    }
    let section = message::changed(&request.get_headers(), &head.fields).map_err(refused)?;
    let options = request.get_options().map(|options| options.clone());
    let incoming = Incoming::of_request(request, declared);
    let (contents, trailers) = match body {
        _ if bodiless => body::empty(),
        Body::Pass => incoming.untouched(),
        body => Pump::new(session.clone(), Side::Request, body, incoming).stream(),
    };
    let (request, _sent) = Request::new(section, contents, trailers, options);
    message::set_line(&request, &head).map_err(|why| match same_line {
        // It is the client's own.
        true => problem::problem(400, "Bad Request", why.text()),
        false => refused(why),
    })?;
    Ok(request)
}

/// The response to send out, as it came when nothing is to change; or what to answer instead.
async fn pass_response(
    session: &Session,
    response: Response,
    is_head: bool,
) -> Result<Response, Reply> {
    let mut head = message::response_head(&response, is_head);
    let (declared, status) = (head.content_length(), head.status);
    let wanted = session.run_response(&mut head).await?;
    let body = if head.end { Body::Pass } else { wanted };
    if body == Body::Pass && head.status == status && head.fields.changed().is_empty() {
        return Ok(response);
    }
    let received = response.get_headers();
    let nothing = message::has_no_body(head.status, is_head);
    let incoming = Incoming::of_response(response, declared.filter(|_| !nothing));
    let outgoing = if nothing {
        body::empty()
    } else if body == Body::Pass {
        incoming.untouched()
    } else {
        let pump = Pump::new(session.clone(), Side::Response, body, incoming);
        if body == Body::Transform && declared.is_some_and(|length| length <= PIECE as u64) {
            let (outgoing, length) = pump
                .gather(GATHERED)
                .await
                .map_err(|code| problem::no_response(&code))?;
            match length {
                Some(length) => head.fields.set("content-length", length.to_string()),
                None => drop(head.fields.remove("content-length")),
            }
            outgoing
        } else {
            pump.stream()
        }
    };
    let section = message::changed(&received, &head.fields).map_err(refused)?;
    respond(section, head.status, outgoing).map_err(refused)
}

/// Runs a reply of the adapter's own through the response side of the filter.
async fn pass_reply(session: &Session, mut reply: Reply, is_head: bool) -> Reply {
    reply.declare_length(is_head);
    reply.head.end = is_head || reply.body.is_empty();
    match session.run_response(&mut reply.head).await {
        Err(other) => other,
        Ok(_) if reply.head.end => reply,
        Ok(Body::Pass) => reply,
        Ok(body) => {
            let mut out = Vec::new();
            session.feed(Side::Response, &reply.body, true, &mut out);
            if body != Body::Observe {
                reply.body = Bytes::from(out);
            }
            reply
        }
    }
}

/// Sends a reply: whole, with its length. A HEAD request gets the length without the body.
fn send(mut reply: Reply, is_head: bool) -> Result<Response, ErrorCode> {
    reply.declare_length(is_head);
    let outgoing = if message::has_no_body(reply.head.status, is_head) {
        body::empty()
    } else {
        body::whole(reply.body)
    };
    message::section(&reply.head.fields)
        .and_then(|section| respond(section, reply.head.status, outgoing))
        .map_err(|refused| ErrorCode::InternalError(Some(refused.text().to_owned())))
}

fn respond(section: wasi::Fields, status: u16, outgoing: Outgoing) -> Result<Response, Refused> {
    let (contents, trailers) = outgoing;
    let (response, _sent) = Response::new(section, contents, trailers);
    response
        .set_status_code(status)
        .map_err(|()| Refused::Status)?;
    Ok(response)
}

fn refused(refused: Refused) -> Reply {
    problem::problem(500, "Internal Server Error", refused.text())
}

fn line_of(head: &RequestHead) -> [Bytes; 4] {
    [&head.method, &head.scheme, &head.authority, &head.path].map(Bytes::clone)
}

fn declared(fields: &Fields) -> Option<u64> {
    let head = ResponseHead {
        fields: fields.clone(),
        ..ResponseHead::default()
    };
    head.content_length()
}
