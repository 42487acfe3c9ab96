//! RFC 9113 §3.4, §4, §6: the preface, and each frame by itself.

use crate::case::Want::{Answered, Connection, NoPong, OnceOrError, Stream};
use crate::case::{Case, Server, bare, case, good, in_short, ping, talk};
use crate::wire::*;

pub fn cases() -> Vec<Case> {
    [preface(), framing(), payloads(), control(), continuations()]
        .into_iter()
        .flatten()
        .collect()
}

fn preface() -> Vec<Case> {
    let then = |bytes: &[u8], frames: Vec<u8>| [bytes.to_vec(), frames].concat();
    let wrong = b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n";
    vec![
        bare("RFC 9113 §3.4", "SETTINGS without a preface", settings(&[])),
        bare(
            "RFC 9113 §3.4",
            "a preface that ends in other letters",
            then(wrong, settings(&[])),
        ),
        bare(
            "RFC 9113 §3.4",
            "a PING before SETTINGS",
            then(PREFACE, ping(0, 0, &[0; 8])),
        ),
        bare(
            "RFC 9113 §3.4",
            "a request before SETTINGS",
            then(PREFACE, get(1, "/")),
        ),
        bare(
            "RFC 9113 §3.4",
            "an acknowledgement before SETTINGS",
            then(PREFACE, frame(SETTINGS, END, 0, b"")),
        ),
        case(
            "RFC 9113 §3.4",
            "a request right behind the preface",
            Answered(1),
            get(1, "/"),
        ),
    ]
}

fn framing() -> Vec<Case> {
    let reserved = headers(1 | 1 << 31, END | END_HEADERS, &block("GET", "/"));
    let mut long = block("GET", "/");
    while long.len() < 16_385 {
        long.extend(literal(b"x", &[b'y'; 100]));
    }
    let many: Vec<(u16, u32)> = (0..2_731).map(|_| (0xf0, 1)).collect();
    vec![
        case(
            "RFC 9113 §4.1",
            "a frame of an unknown type is ignored",
            Answered(1),
            together([frame(0xf0, 0xff, 0, b"what"), get(1, "/")]),
        ),
        case(
            "RFC 9113 §4.1",
            "one of an unknown type on a stream",
            Answered(1),
            together([
                post(1, "/echo"),
                frame(0xf0, 0xff, 1, b"what"),
                data(1, END, b"body"),
            ]),
        ),
        case(
            "RFC 9113 §4.1",
            "unknown flags of HEADERS are ignored",
            Answered(1),
            headers(1, END | END_HEADERS | 0xd2 & !0x20, &block("GET", "/")),
        ),
        case(
            "RFC 9113 §4.1",
            "unknown flags of DATA are ignored",
            Answered(1),
            together([post(1, "/echo"), data(1, END | 0xf6, b"body")]),
        ),
        case(
            "RFC 9113 §4.1",
            "unknown flags of PING are ignored",
            Answered(1),
            together([ping(0xfe, 0, &[0; 8]), get(1, "/")]),
        ),
        case(
            "RFC 9113 §4.1",
            "the reserved bit is ignored",
            Answered(1),
            reserved,
        ),
        case(
            "RFC 9113 §4.2",
            "DATA of exactly SETTINGS_MAX_FRAME_SIZE",
            Answered(1),
            together([post(1, "/echo"), data(1, END, &[b'x'; 16_384])]),
        ),
        case(
            "RFC 9113 §4.2",
            "DATA over SETTINGS_MAX_FRAME_SIZE",
            Stream(1, &[FRAME_SIZE]),
            together([post(1, "/never"), data(1, 0, &[b'x'; 16_385])]),
        ),
        case(
            "RFC 9113 §4.2",
            "HEADERS over SETTINGS_MAX_FRAME_SIZE",
            Connection(&[FRAME_SIZE]),
            headers(1, END | END_HEADERS, &long),
        ),
        case(
            "RFC 9113 §4.2",
            "SETTINGS over SETTINGS_MAX_FRAME_SIZE",
            Connection(&[FRAME_SIZE]),
            settings(&many),
        ),
        case(
            "RFC 9113 §4.2",
            "an unknown frame over SETTINGS_MAX_FRAME_SIZE",
            Connection(&[FRAME_SIZE]),
            frame(0xf0, 0, 0, &[0; 16_385]),
        ),
        case(
            "RFC 9113 §5.5",
            "an unknown frame within a field block",
            Connection(&[PROTOCOL]),
            together([
                headers(1, END, &block("GET", "/")),
                frame(0xf0, 0, 0, b"what"),
                frame(CONTINUATION, END_HEADERS, 1, b""),
            ]),
        ),
    ]
}

fn payloads() -> Vec<Case> {
    let padded = |flags: u8, pad: u8, payload: &[u8], padding: usize| {
        let bytes = [&[pad][..], payload, &vec![0; padding]].concat();
        (flags | PADDED, bytes)
    };
    let (flags, good_data) = padded(END, 3, b"body", 3);
    let good_data = data(1, flags, &good_data);
    let (flags, long_data) = padded(END, 5, b"body", 0);
    let long_data = data(1, flags, &long_data);
    let (flags, all_padding) = padded(END, 7, b"", 7);
    let all_padding = data(1, flags, &all_padding);
    let request = block("GET", "/");
    let (flags, good_head) = padded(END | END_HEADERS, 3, &request, 3);
    let good_head = headers(1, flags, &good_head);
    let (flags, long_head) = padded(END | END_HEADERS, 200, &request, 0);
    let long_head = headers(1, flags, &long_head);
    let dependent = |on: u32| [&on.to_be_bytes()[..], &[15], &request].concat();
    let flags = END | END_HEADERS | WITH_PRIORITY;
    vec![
        case(
            "RFC 9113 §6.1",
            "padded DATA",
            Answered(1),
            together([post(1, "/echo"), good_data]),
        ),
        case(
            "RFC 9113 §6.1",
            "DATA of padding alone",
            Answered(1),
            together([post(1, "/echo"), all_padding]),
        ),
        case(
            "RFC 9113 §6.1",
            "padding as long as the payload of DATA or longer",
            Connection(&[PROTOCOL]),
            together([post(1, "/never"), long_data]),
        ),
        case(
            "RFC 9113 §6.1",
            "DATA with PADDED and no length of it",
            Connection(&[PROTOCOL, FRAME_SIZE]),
            together([post(1, "/never"), data(1, END | PADDED, b"")]),
        ),
        case(
            "RFC 9113 §6.1",
            "DATA on stream 0",
            Connection(&[PROTOCOL]),
            data(0, 0, b"body"),
        ),
        case("RFC 9113 §6.2", "padded HEADERS", Answered(1), good_head),
        case(
            "RFC 9113 §6.2",
            "padding longer than the payload of HEADERS",
            Connection(&[PROTOCOL]),
            long_head,
        ),
        case(
            "RFC 9113 §6.2",
            "HEADERS with PADDED and no length of it",
            Connection(&[PROTOCOL, FRAME_SIZE]),
            headers(1, END | END_HEADERS | PADDED, b""),
        ),
        case(
            "RFC 9113 §6.2",
            "HEADERS with a priority",
            Answered(1),
            headers(1, flags, &dependent(0)),
        ),
        case(
            "RFC 9113 §6.2",
            "HEADERS with half a priority",
            Connection(&[PROTOCOL, FRAME_SIZE]),
            headers(1, flags, &[0, 0, 0]),
        ),
        case(
            "RFC 7540 §5.3.1",
            "HEADERS that depend on themselves: an error there, gone in RFC 9113",
            OnceOrError(1, &[PROTOCOL]),
            headers(1, flags, &dependent(1)),
        ),
        case(
            "RFC 9113 §6.2",
            "HEADERS on stream 0",
            Connection(&[PROTOCOL]),
            get(0, "/"),
        ),
    ]
}

fn control() -> Vec<Case> {
    vec![
        case(
            "RFC 9113 §6.3",
            "PRIORITY of an idle stream",
            Answered(1),
            together([priority(9, 0), get(1, "/")]),
        ),
        case(
            "RFC 9113 §6.3",
            "PRIORITY of a half-closed stream",
            Answered(1),
            together([get(1, "/slow"), priority(1, 3)]),
        ),
        case(
            "RFC 9113 §6.3",
            "PRIORITY of a closed stream",
            Answered(3),
            together([get(1, "/"), rst_stream(1, 8), priority(1, 3), get(3, "/")]),
        ),
        case(
            "RFC 9113 §6.3",
            "PRIORITY whose length is not 5",
            Stream(1, &[FRAME_SIZE]),
            together([get(1, "/never"), frame(PRIORITY, 0, 1, &[0; 4])]),
        ),
        case(
            "RFC 9113 §6.3",
            "PRIORITY on stream 0",
            Connection(&[PROTOCOL]),
            priority(0, 3),
        )
        .envoy("Pong", "it is ignored"),
        case(
            "RFC 7540 §5.3.1",
            "PRIORITY on itself: an error there, gone in RFC 9113",
            OnceOrError(1, &[PROTOCOL]),
            together([get(1, "/slow"), priority(1, 1)]),
        ),
        case(
            "RFC 9113 §6.4",
            "RST_STREAM on stream 0",
            Connection(&[PROTOCOL]),
            rst_stream(0, 8),
        ),
        case(
            "RFC 9113 §6.4",
            "RST_STREAM whose length is not 4",
            Connection(&[FRAME_SIZE]),
            together([get(1, "/never"), frame(RST_STREAM, 0, 1, &[0; 3])]),
        ),
        case(
            "RFC 9113 §6.4",
            "RST_STREAM with an unknown code",
            Answered(3),
            together([get(1, "/never"), rst_stream(1, 0xff00_0000), get(3, "/")]),
        ),
        case(
            "RFC 9113 §6.6",
            "PUSH_PROMISE from a client",
            Connection(&[PROTOCOL]),
            together([
                post(1, "/never"),
                frame(
                    PUSH_PROMISE,
                    END_HEADERS,
                    1,
                    &[&[0, 0, 0, 2][..], &block("GET", "/")].concat(),
                ),
            ]),
        ),
        case(
            "RFC 9113 §6.7",
            "a PING that is an answer is not answered",
            NoPong,
            ping(END, 0, b"unasked!"),
        ),
        case(
            "RFC 9113 §6.7",
            "a PING whose length is not 8",
            Connection(&[FRAME_SIZE]),
            ping(0, 0, &[0; 6]),
        ),
        case(
            "RFC 9113 §6.7",
            "a PING on a stream",
            Connection(&[PROTOCOL]),
            ping(0, 1, &[0; 8]),
        ),
        case(
            "RFC 9113 §6.8",
            "GOAWAY on a stream",
            Connection(&[PROTOCOL]),
            frame(GOAWAY, 0, 1, &[0; 8]),
        ),
        case(
            "RFC 9113 §6.8",
            "GOAWAY of less than 8 bytes",
            Connection(&[FRAME_SIZE]),
            frame(GOAWAY, 0, 0, &[0; 7]),
        ),
        talk(
            "RFC 9113 §6.8",
            "a request before GOAWAY is answered",
            answered_after_goaway,
        ),
    ]
}

fn answered_after_goaway(server: &Server) -> Result<(), String> {
    let mut wire = Wire::open(server.address, &[]);
    wire.send(&together([
        get(1, "/slow"),
        frame(GOAWAY, 0, 0, b"\0\0\0\0\0\0\0\0bye"),
    ]));
    wire.read_until(PATIENCE, |got| good(got, 1) > 0);
    if good(&wire.got, 1) > 0 {
        Ok(())
    } else {
        Err(in_short(&wire.got))
    }
}

fn continuations() -> Vec<Case> {
    let head = block("GET", "/");
    let quarter = |at: usize| &head[head.len() * at / 4..head.len() * (at + 1) / 4];
    let four = together([
        headers(1, END, quarter(0)),
        frame(CONTINUATION, 0, 1, quarter(1)),
        frame(CONTINUATION, 0, 1, quarter(2)),
        frame(CONTINUATION, END_HEADERS, 1, quarter(3)),
    ]);
    let pieces = |stream: u32, end: u8| {
        let mut frames = headers(stream, END, &head[..5]);
        for byte in &head[5..head.len() - 1] {
            frames.extend(frame(CONTINUATION, 0, stream, &[*byte]));
        }
        frames.extend(frame(CONTINUATION, end, stream, &head[head.len() - 1..]));
        frames
    };
    let open = || headers(1, END, &head);
    vec![
        case(
            "RFC 9113 §6.10",
            "a field block in four frames",
            Answered(1),
            four,
        ),
        case(
            "RFC 9113 §6.10",
            "a field block byte by byte",
            Answered(1),
            pieces(1, END_HEADERS),
        ),
        case(
            "RFC 9113 §6.10",
            "CONTINUATION after padded HEADERS with a priority",
            Answered(1),
            together([
                headers(
                    1,
                    END | PADDED | WITH_PRIORITY,
                    &[&[2, 0, 0, 0, 0, 15][..], &head[..9], &[0, 0]].concat(),
                ),
                frame(CONTINUATION, END_HEADERS, 1, &head[9..]),
            ]),
        ),
        case(
            "RFC 9113 §6.10",
            "an empty CONTINUATION",
            Answered(1),
            together([open(), frame(CONTINUATION, END_HEADERS, 1, b"")]),
        ),
        case(
            "RFC 9113 §6.10",
            "CONTINUATION after END_HEADERS",
            Connection(&[PROTOCOL]),
            together([
                post(1, "/never"),
                frame(CONTINUATION, END_HEADERS, 1, &literal(b"x", b"y")),
            ]),
        ),
        case(
            "RFC 9113 §6.10",
            "CONTINUATION without HEADERS",
            Connection(&[PROTOCOL]),
            frame(CONTINUATION, END_HEADERS, 1, &head),
        ),
        case(
            "RFC 9113 §6.10",
            "CONTINUATION on another stream",
            Connection(&[PROTOCOL]),
            together([open(), frame(CONTINUATION, END_HEADERS, 3, b"")]),
        ),
        case(
            "RFC 9113 §6.10",
            "CONTINUATION on stream 0",
            Connection(&[PROTOCOL]),
            together([open(), frame(CONTINUATION, END_HEADERS, 0, b"")]),
        ),
        case(
            "RFC 9113 §6.2",
            "DATA within a field block",
            Connection(&[PROTOCOL]),
            together([headers(1, 0, &head), data(1, END, b"body")]),
        ),
        case(
            "RFC 9113 §6.2",
            "HEADERS of another stream within a field block",
            Connection(&[PROTOCOL]),
            together([open(), get(3, "/")]),
        ),
        case(
            "RFC 9113 §6.2",
            "PRIORITY within a field block",
            Connection(&[PROTOCOL]),
            together([
                open(),
                priority(1, 3),
                frame(CONTINUATION, END_HEADERS, 1, b""),
            ]),
        ),
        case(
            "RFC 9113 §6.2",
            "a PING within a field block",
            Connection(&[PROTOCOL]),
            together([
                open(),
                ping(0, 0, &[0; 8]),
                frame(CONTINUATION, END_HEADERS, 1, b""),
            ]),
        ),
    ]
}
