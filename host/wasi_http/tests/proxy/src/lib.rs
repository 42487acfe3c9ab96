//! Does what the first segment of the path says: answers, forwards with a field added on both sides, or fails.

use std::io::Write as _;

use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingRequest, OutgoingBody, OutgoingRequest, OutgoingResponse,
    ResponseOutparam, Scheme,
};

wasip2::http::proxy::export!(Proxy);

struct Proxy;

impl wasip2::exports::http::incoming_handler::Guest for Proxy {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        match path.split('/').nth(1).unwrap_or_default() {
            "trap" => panic!("as it was asked"),
            "spin" => loop {
                std::hint::black_box(0);
            },
            "silent" => {}
            "interim" => answer(out, 101, &[], b""),
            "trap-later" => {
                let response = OutgoingResponse::new(Fields::new());
                let body = response.body().unwrap();
                ResponseOutparam::set(out, Ok(response));
                begin(&body);
                panic!("in its response's body");
            }
            "trap-sending" => {
                let sending = OutgoingRequest::new(Fields::new());
                sending.set_method(&request.method()).unwrap();
                sending.set_scheme(Some(&Scheme::Http)).unwrap();
                sending.set_authority(Some("example.test")).unwrap();
                sending.set_path_with_query(Some("/up")).unwrap();
                let body = sending.body().unwrap();
                let _answer_to = outgoing_handler::handle(sending, None).unwrap();
                begin(&body);
                panic!("in its request's body");
            }
            "error" => ResponseOutparam::set(out, Err(ErrorCode::ConfigurationError)),
            "forward" => forward(request, out),
            "outside" => outside(out),
            _ => answer(out, 200, &[("x-by", b"proxy")], b"answered by the proxy"),
        }
    }
}

fn answer(out: ResponseOutparam, status: u16, fields: &[(&str, &[u8])], text: &[u8]) {
    let all = Fields::new();
    for (name, value) in fields {
        all.append(name, value).unwrap();
    }
    let response = OutgoingResponse::new(all);
    response.set_status_code(status).unwrap();
    let body = response.body().unwrap();
    ResponseOutparam::set(out, Ok(response));
    let mut stream = body.write().unwrap();
    stream.write_all(text).unwrap();
    stream.flush().unwrap();
    drop(stream);
    OutgoingBody::finish(body, None).unwrap();
}

/// The first part of a body, which gets out.
fn begin(body: &OutgoingBody) {
    let stream = body.write().unwrap();
    stream.blocking_write_and_flush(b"half of it").unwrap();
    wasip2::clocks::monotonic_clock::subscribe_duration(100_000_000).block();
}

/// Sends the request on, whatever host it is for, and gives back what comes, with a field more each way.
fn forward(request: IncomingRequest, out: ResponseOutparam) {
    let fields = request.headers().clone();
    fields.append("x-up", b"1").unwrap();
    let outgoing = OutgoingRequest::new(fields);
    outgoing.set_method(&request.method()).unwrap();
    outgoing.set_scheme(Some(&Scheme::Http)).unwrap();
    outgoing
        .set_authority(request.authority().as_deref())
        .unwrap();
    outgoing
        .set_path_with_query(request.path_with_query().as_deref())
        .unwrap();
    let body = outgoing.body().unwrap();
    let answer_to = outgoing_handler::handle(outgoing, None).unwrap();
    let incoming = request.consume().unwrap();
    let from = incoming.stream().unwrap();
    let to = body.write().unwrap();
    while let Ok(bytes) = from.blocking_read(16_384) {
        to.blocking_write_and_flush(&bytes).unwrap();
    }
    drop((from, to));
    OutgoingBody::finish(body, None).unwrap();
    answer_to.subscribe().block();
    match answer_to.get().unwrap().unwrap() {
        Ok(response) => {
            let fields = response.headers().clone();
            fields.append("x-down", b"1").unwrap();
            let outgoing = OutgoingResponse::new(fields);
            outgoing.set_status_code(response.status()).unwrap();
            let body = outgoing.body().unwrap();
            ResponseOutparam::set(out, Ok(outgoing));
            let incoming = response.consume().unwrap();
            let from = incoming.stream().unwrap();
            let to = body.write().unwrap();
            while let Ok(bytes) = from.blocking_read(4_096) {
                if to.blocking_write_and_flush(&bytes).is_err() {
                    return;
                }
            }
            drop((from, to));
            OutgoingBody::finish(body, None).unwrap();
        }
        Err(code) => answer(out, 502, &[], format!("{code:?}").as_bytes()),
    }
}

/// Asks a host of its own choice.
fn outside(out: ResponseOutparam) {
    let request = OutgoingRequest::new(Fields::new());
    request.set_scheme(Some(&Scheme::Http)).unwrap();
    request.set_authority(Some("elsewhere.test:81")).unwrap();
    request.set_path_with_query(Some("/from-outside")).unwrap();
    let answer_to = outgoing_handler::handle(request, None).unwrap();
    answer_to.subscribe().block();
    let text = match answer_to.get().unwrap().unwrap() {
        Ok(response) => format!("status {}", response.status()),
        Err(code) => format!("{code:?}"),
    };
    answer(out, 200, &[], text.as_bytes());
}
