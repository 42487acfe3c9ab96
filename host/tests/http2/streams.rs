//! RFC 9113 §5.1 and §8.1: the states of a stream, and what makes a request whole.

use crate::case::Want::{Answered, Connection, Declined, OnceOrError, Stream};
use crate::case::{Case, Server, case, good, talk};
use crate::wire::*;

pub fn cases() -> Vec<Case> {
    [states(), identifiers(), messages()]
        .into_iter()
        .flatten()
        .collect()
}

fn states() -> Vec<Case> {
    let ended = || get(1, "/never");
    let reset = || together([get(1, "/never"), rst_stream(1, 8)]);
    vec![
        case(
            "RFC 9113 §5.1",
            "DATA on an idle stream",
            Connection(&[PROTOCOL]),
            data(1, END, b"body"),
        ),
        case(
            "RFC 9113 §5.1",
            "RST_STREAM on an idle stream",
            Connection(&[PROTOCOL]),
            rst_stream(1, 8),
        ),
        case(
            "RFC 9113 §5.1",
            "WINDOW_UPDATE on an idle stream",
            Connection(&[PROTOCOL]),
            window_update(1, 100),
        ),
        case(
            "RFC 9113 §5.1",
            "DATA on a half-closed stream",
            Stream(1, &[STREAM_CLOSED]),
            together([ended(), data(1, END, b"body")]),
        ),
        case(
            "RFC 9113 §5.1",
            "HEADERS on a half-closed stream",
            Stream(1, &[STREAM_CLOSED]),
            together([ended(), get(1, "/")]),
        ),
        case(
            "RFC 9113 §5.1",
            "WINDOW_UPDATE on a half-closed stream",
            Answered(1),
            together([get(1, "/slow"), window_update(1, 100)]),
        ),
        // What came before the peer knew may be dropped, or it is an error (RFC 9113 §5.1, "closed").
        case(
            "RFC 9113 §5.1",
            "DATA on a stream that was reset",
            OnceOrError(1, &[PROTOCOL, STREAM_CLOSED]),
            together([post(1, "/never"), rst_stream(1, 8), data(1, END, b"body")]),
        ),
        case(
            "RFC 9113 §5.1",
            "HEADERS on a stream that was reset are no new request",
            OnceOrError(1, &[PROTOCOL, STREAM_CLOSED]),
            together([reset(), get(1, "/")]),
        ),
        case(
            "RFC 9113 §5.1",
            "WINDOW_UPDATE and RST_STREAM on a stream that was reset",
            Answered(3),
            together([
                reset(),
                window_update(1, 100),
                rst_stream(1, 8),
                get(3, "/"),
            ]),
        ),
        talk(
            "RFC 9113 §5.1",
            "HEADERS on a stream that was answered are no new request",
            |server| after_answer(server, &get(1, "/")),
        ),
        talk(
            "RFC 9113 §5.1",
            "DATA on a stream that was answered",
            |server| after_answer(server, &data(1, END, b"body")),
        ),
        talk(
            "RFC 9113 §5.1",
            "WINDOW_UPDATE on a stream that was answered is ignored",
            window_after_answer,
        ),
    ]
}

/// A request, its whole answer, then more on its stream.
fn after_answer(server: &Server, more: &[u8]) -> Result<(), String> {
    let mut wire = answered(server)?;
    wire.got.clear();
    wire.send(more);
    wire.fence(QUIET, |_| false);
    let again = wire.got.iter().any(|it| matches!(it, Got::Head { .. }));
    let other = wire.got.iter().find(|it| match it {
        Got::GoAway(code) | Got::Reset { code, .. } => ![PROTOCOL, STREAM_CLOSED].contains(code),
        _ => false,
    });
    match other {
        _ if again => Err("a second answer".to_owned()),
        Some(other) => Err(format!("{other:?}")),
        None => Ok(()),
    }
}

fn window_after_answer(server: &Server) -> Result<(), String> {
    let mut wire = answered(server)?;
    wire.send(&together([window_update(1, 100), get(3, "/")]));
    wire.fence(PATIENCE, |got| good(got, 3) > 0);
    if good(&wire.got, 3) > 0 && !wire.closed() {
        Ok(())
    } else {
        Err(crate::case::in_short(&wire.got))
    }
}

fn answered(server: &Server) -> Result<Wire, String> {
    let mut wire = Wire::open(server.address, &[]);
    wire.send(&get(1, "/"));
    let ended = |it: &Got| {
        matches!(
            it,
            Got::Head {
                stream: 1,
                end: true,
                ..
            } | Got::Data {
                stream: 1,
                end: true,
                ..
            }
        )
    };
    wire.read_until(PATIENCE, |got| got.iter().any(ended));
    if wire.got.iter().any(ended) {
        Ok(wire)
    } else {
        Err("no answer to begin with".to_owned())
    }
}

fn identifiers() -> Vec<Case> {
    vec![
        case(
            "RFC 9113 §5.1.1",
            "a request on an even stream",
            Connection(&[PROTOCOL]),
            get(2, "/"),
        ),
        case(
            "RFC 9113 §5.1.1",
            "a request on a lower stream than one before",
            Connection(&[PROTOCOL]),
            together([get(5, "/never"), get(3, "/")]),
        )
        .envoy("Pong", "the request is dropped without a word"),
        case(
            "RFC 9113 §5.1.1",
            "streams may be left out",
            Answered(0x7fff_ffff),
            together([get(5, "/"), get(0x7fff_ffff, "/")]),
        ),
        talk(
            "RFC 9113 §5.1.2",
            "more requests than SETTINGS_MAX_CONCURRENT_STREAMS",
            too_many,
        ),
    ]
}

/// One stream more than was announced is refused, and none of the others.
fn too_many(server: &Server) -> Result<(), String> {
    let mut wire = Wire::open(server.address, &[]);
    let most = wire.announced(CONCURRENT).ok_or("it announces no bound")?;
    wire.send(&frame(SETTINGS, END, 0, b""));
    let mut bytes = Vec::new();
    for number in 0..=most {
        bytes.extend(get(1 + 2 * number, "/never"));
    }
    let last = 1 + 2 * most;
    wire.send(&bytes);
    wire.read_until(PATIENCE, |got| {
        got.iter()
            .any(|it| matches!(it, Got::Reset { .. } | Got::GoAway(_)))
    });
    let found = wire
        .got
        .iter()
        .find(|it| matches!(it, Got::Reset { .. } | Got::GoAway(_)));
    match found {
        Some(Got::Reset {
            stream,
            code: PROTOCOL | REFUSED,
        }) if *stream == last => Ok(()),
        Some(Got::GoAway(PROTOCOL | REFUSED | CALM)) => Ok(()),
        None if wire.closed() => Ok(()),
        other => Err(format!(
            "{other:?} for stream {last}: {}",
            crate::case::in_short(&wire.got)
        )),
    }
}

fn messages() -> Vec<Case> {
    let with = |fields: &[(&[u8], &[u8])]| {
        let mut block = block("POST", "/echo");
        for (name, value) in fields {
            block.extend(literal(name, value));
        }
        headers(1, END_HEADERS, &block)
    };
    let long = |length: &[u8]| with(&[(b"content-length", length)]);
    let sum = literal(b"x-sum", b"1");
    let path = literal(b":path", b"/");
    let connect: Vec<u8> = [
        literal(b":method", b"CONNECT"),
        path.clone(),
        literal(b":authority", b"a:80"),
    ]
    .concat();
    vec![
        case(
            "RFC 9113 §8.1",
            "DATA without bytes ends a request",
            Answered(1),
            together([post(1, "/echo"), data(1, END, b"")]),
        ),
        case(
            "RFC 9113 §8.1",
            "trailers",
            Answered(1),
            together([
                post(1, "/echo"),
                data(1, 0, b"body"),
                headers(1, END | END_HEADERS, &sum),
            ]),
        ),
        case(
            "RFC 9113 §8.1",
            "trailers without END_STREAM",
            Stream(1, &[PROTOCOL]),
            together([
                post(1, "/never"),
                data(1, 0, b"body"),
                headers(1, END_HEADERS, &sum),
            ]),
        ),
        case(
            "RFC 9113 §8.1",
            "trailers with a pseudo-field",
            Stream(1, &[PROTOCOL]),
            together([
                post(1, "/never"),
                data(1, 0, b"body"),
                headers(1, END | END_HEADERS, &path),
            ]),
        ),
        case(
            "RFC 9113 §8.1",
            "DATA after trailers",
            Stream(1, &[STREAM_CLOSED]),
            together([
                post(1, "/never"),
                headers(1, END | END_HEADERS, &sum),
                data(1, END, b"body"),
            ]),
        ),
        case(
            "RFC 9113 §8.1.1",
            "content-length as long as two DATA",
            Answered(1),
            together([long(b"8"), data(1, 0, b"body"), data(1, END, b"body")]),
        ),
        case(
            "RFC 9113 §8.1.1",
            "content-length longer than DATA",
            Declined(1),
            together([long(b"9"), data(1, END, b"body")]),
        ),
        case(
            "RFC 9113 §8.1.1",
            "content-length shorter than two DATA",
            Declined(1),
            together([long(b"6"), data(1, 0, b"body"), data(1, END, b"body")]),
        ),
        case(
            "RFC 9113 §8.1.1",
            "content-length longer than DATA before trailers",
            Declined(1),
            together([
                long(b"9"),
                data(1, 0, b"body"),
                headers(1, END | END_HEADERS, &sum),
            ]),
        ),
        case(
            "RFC 9113 §8.1.1",
            "a request without any field",
            Declined(1),
            headers(1, END | END_HEADERS, b""),
        ),
        case("RFC 9113 §8.3.1", "an empty path", Declined(1), get(1, "")),
        case(
            "RFC 9113 §8.5",
            "CONNECT with a path",
            Declined(1),
            headers(1, END | END_HEADERS, &connect),
        ),
    ]
}
