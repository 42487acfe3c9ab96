//! Frames in, frames out.

use super::*;
use crate::frame::{GOAWAY, MAX_FRAME, PADDED, PING, PRIORITY, WINDOW_UPDATE, WITH_PRIORITY};
use crate::machine::copied;

const END: &[u8] = b"SM\r\n\r\n";
/// GET / on the authority "a", and then `x: y`, which goes to the dynamic table.
const GET: &[u8] = b"\x82\x86\x84\x01\x01a\x40\x01x\x01y";
const WHOLE: u8 = END_STREAM | END_HEADERS;

fn on(stream: u8, kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let [_, high, middle, low] = (payload.len() as u32).to_be_bytes();
    let head = [high, middle, low, kind, flags, 0, 0, 0, stream];
    [&head[..], payload].concat()
}

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    on(0, kind, flags, payload)
}

/// What passes when the bytes come in pieces of every size.
fn play(bytes: &[u8]) -> (Vec<u8>, Option<Malformed>) {
    let mut all = None;
    for size in [1, 2, 3, 9, 10, 64, bytes.len()] {
        let mut frames = Frames::new(20_000);
        let mut out = Vec::new();
        for piece in bytes.chunks(size) {
            copied(piece, &mut out, |bytes, out| frames.take(bytes, out));
        }
        let got = (out, frames.refused());
        let first = all.get_or_insert_with(|| got.clone());
        assert_eq!(*first, got, "in pieces of {size}");
    }
    all.expect("there are sizes")
}

fn start() -> Vec<u8> {
    let settings = [0, 4, 0x7f, 0xff, 0xff, 0xff, 0, 9, 0xff, 0, 0, 0];
    [END, &frame(SETTINGS, 0, &settings)].concat()
}

#[test]
fn frames_one_after_the_other() {
    let length = Some(Malformed::FrameLength);
    let window = [0, 1, 0, 0, 0, 0, 0, 4, 0x80, 0, 0, 0];
    for (name, next, why) in [
        ("DATA of any length", on(1, DATA, 0, &[0; 777]), None),
        ("and too long", on(1, DATA, 0, &[0; MAX_FRAME + 1]), length),
        ("HEADERS", on(1, HEADERS, WHOLE, &[0x82; 200]), None),
        ("PING", frame(PING, 0, &[0; 8]), None),
        ("PING of 6", frame(PING, 0, &[0; 6]), length),
        ("an acknowledgement", frame(SETTINGS, ACK, b""), None),
        ("with more", frame(SETTINGS, ACK, &[0; 6]), length),
        ("half a setting", frame(SETTINGS, 0, &[0; 9]), length),
        (
            "a window of 2^31",
            frame(SETTINGS, 0, &window),
            Some(Malformed::Window),
        ),
        (
            "another setting of 2^31",
            frame(SETTINGS, 0, &[0, 6, 0x80, 0, 0, 0]),
            None,
        ),
        ("RST_STREAM of 3", frame(RST_STREAM, 0, &[0; 3]), length),
        ("PRIORITY of 4", frame(PRIORITY, 0, &[0; 4]), length),
        ("GOAWAY of 7", frame(GOAWAY, 0, &[0; 7]), length),
        ("GOAWAY with more", frame(GOAWAY, 0, &[0; 70]), None),
        (
            "WINDOW_UPDATE of 5",
            frame(WINDOW_UPDATE, 0, &[0; 5]),
            length,
        ),
        ("an unknown type", frame(0xf0, 0xff, &[0; 5]), None),
        (
            "PUSH_PROMISE",
            on(1, PUSH_PROMISE, END_HEADERS, &[0, 0, 0, 2, 0x82]),
            Some(Malformed::Push),
        ),
    ] {
        let after = frame(PING, 0, &[1; 8]);
        let (out, got) = play(&[&start()[..], &next, &after].concat());
        assert_eq!(got, why, "{name}");
        let want = match why {
            None => [&start()[..], &next, &after].concat(),
            Some(_) => [&start()[..], &REFUSED].concat(),
        };
        assert!(out == want, "{name}");
    }
}

#[test]
fn settings_come_first() {
    for (name, first) in [
        ("PING", frame(PING, 0, &[0; 8])),
        ("an acknowledgement", frame(SETTINGS, ACK, b"")),
        ("HEADERS", on(1, HEADERS, WHOLE, b"\x82\x86\x84")),
    ] {
        let (out, why) = play(&[END, &first].concat());
        assert_eq!(why, Some(Malformed::FirstFrame), "{name}");
        assert_eq!(out, [END, &REFUSED].concat(), "{name}");
    }
}

#[test]
fn field_blocks() {
    let get = |stream| on(stream, HEADERS, WHOLE, GET);
    let newest = |stream| on(stream, HEADERS, WHOLE, &[0x80 | 62]);
    let begun = on(1, HEADERS, END_STREAM, &GET[..4]);
    let more = |flags, payload: &[u8]| on(1, CONTINUATION, flags, payload);
    let priority = |on: u8| [&[0, 0, 0, on, 16][..], GET].concat();
    let padded = [&[2][..], &priority(3), &[0; 2]].concat();
    for (name, frames, want) in [
        ("one", get(1), Ok(get(1))),
        (
            "two frames",
            [&begun[..], &more(END_HEADERS, &GET[4..]), &newest(3)].concat(),
            Ok([get(1), newest(3)].concat()),
        ),
        (
            "many",
            [
                &begun[..],
                &more(0, &GET[4..5]),
                &more(0, b""),
                &more(0, &GET[5..]),
                &more(END_HEADERS, b""),
            ]
            .concat(),
            Ok(get(1)),
        ),
        (
            "another frame within",
            [&begun[..], &frame(PING, 0, &[0; 8])].concat(),
            Err((vec![], Malformed::Continuation)),
        ),
        (
            "another stream",
            [&begun[..], &on(3, CONTINUATION, END_HEADERS, &GET[4..])].concat(),
            Err((vec![], Malformed::Continuation)),
        ),
        (
            "no HEADERS",
            more(END_HEADERS, GET),
            Err((vec![], Malformed::Continuation)),
        ),
        (
            "behind the end",
            [get(1), more(END_HEADERS, GET)].concat(),
            Err((get(1), Malformed::Continuation)),
        ),
        (
            "empty ones without end",
            [begun.clone(), more(0, b"").repeat(5_000)].concat(),
            Err((vec![], Malformed::Continuations)),
        ),
        (
            "one that cannot be decoded",
            [get(1), on(3, HEADERS, WHOLE, &[0x80 | 63]), get(5)].concat(),
            Err((get(1), Malformed::FieldBlock)),
        ),
        (
            "one that is cut",
            on(1, HEADERS, WHOLE, &GET[..5]),
            Err((vec![], Malformed::FieldBlock)),
        ),
        (
            "padding and priority",
            on(1, HEADERS, WHOLE | PADDED | WITH_PRIORITY, &padded),
            Ok(on(1, HEADERS, WHOLE | PADDED | WITH_PRIORITY, &padded)),
        ),
        (
            "both, and more",
            [
                on(1, HEADERS, END_STREAM | PADDED | WITH_PRIORITY, &padded),
                more(END_HEADERS, b""),
            ]
            .concat(),
            Ok(get(1)),
        ),
        (
            "that depends on itself",
            on(1, HEADERS, WHOLE | WITH_PRIORITY, &priority(1)),
            Ok(get(1)),
        ),
    ] {
        let (out, why) = play(&[start(), frames].concat());
        let (want, want_why) = match want {
            Ok(frames) => (frames, None),
            Err((frames, why)) => ([&frames[..], &REFUSED].concat(), Some(why)),
        };
        assert_eq!(why, want_why, "{name}");
        assert_eq!(out, [start(), want].concat(), "{name}");
    }
}

#[test]
fn errors_of_streams() {
    let get = on(1, HEADERS, WHOLE, GET);
    let post = on(1, HEADERS, END_HEADERS, GET);
    let data = |flags| on(1, DATA, flags, b"body");
    let sum = on(1, HEADERS, WHOLE, b"\0\x01x\x011");
    let path = on(1, HEADERS, WHOLE, b"\x04\x01/");
    let (half, rest) = (
        on(1, HEADERS, END_STREAM, b"\0\x01x\x011\x04"),
        on(1, CONTINUATION, END_HEADERS, b"\x01/"),
    );
    let both = on(1, HEADERS, WHOLE, b"\0\x01x\x011\x04\x01/");
    let reset_by_client = on(1, RST_STREAM, 0, &[0, 0, 0, 8]);
    // What comes, and before which of it an error of the stream is put in.
    for (name, frames, at, closed) in [
        ("a body", vec![&post, &data(0), &data(1)], None, false),
        ("trailers", vec![&post, &data(0), &sum], None, false),
        (
            "DATA behind the end",
            vec![&get, &data(0), &data(1)],
            Some(1),
            true,
        ),
        (
            "DATA behind DATA",
            vec![&post, &data(1), &data(1)],
            Some(2),
            true,
        ),
        (
            "DATA behind trailers",
            vec![&post, &sum, &data(1)],
            Some(2),
            true,
        ),
        (
            "HEADERS behind the end",
            vec![&get, &get, &get],
            Some(1),
            true,
        ),
        (
            "DATA behind RST_STREAM",
            vec![&get, &reset_by_client, &data(1)],
            None,
            false,
        ),
        (
            "a pseudo-field in trailers",
            vec![&post, &path, &data(1)],
            Some(1),
            false,
        ),
    ] {
        let (frames, mut want): (Vec<u8>, _) = (
            frames.iter().copied().flatten().copied().collect(),
            frames.into_iter().cloned().collect::<Vec<_>>(),
        );
        if let Some(at) = at {
            want.insert(at, reset(1).to_vec());
        }
        let all = [start(), frames].concat();
        let (out, why) = play(&all);
        assert_eq!(
            (out, why),
            ([start(), want.concat()].concat(), None),
            "{name}"
        );
        let mut frames = Frames::new(1_000);
        frames.take(&all, &mut Vec::new());
        let code = if closed { 5 } else { 1 };
        let answer = on(1, RST_STREAM, 0, &[0, 0, 0, 1]);
        let due = on(1, RST_STREAM, 0, &[0, 0, 0, code]);
        let changed = frames.changed(&answer);
        assert_eq!(changed, closed.then_some(due), "{name}");
    }
    let (out, _) = play(&[start(), post.clone(), half, rest].concat());
    let want = [start(), post, reset(1).to_vec(), both].concat();
    assert_eq!(out, want, "a pseudo-field behind the first frame");
}

#[test]
fn large_trailers_with_a_pseudo_field_at_their_end() {
    let field = [&b"\0\x01x\x64"[..], &[b'y'; 100]].concat();
    let first = on(1, HEADERS, END_STREAM, &field.repeat(155));
    let second = on(1, CONTINUATION, 0, &field.repeat(10));
    let last = on(1, CONTINUATION, END_HEADERS, b"\x04\x01/");
    let post = on(1, HEADERS, END_HEADERS, GET);
    let (out, why) = play(&[start(), post, first, second, last].concat());
    assert_eq!(why, Some(Malformed::Trailers));
    assert!(out.ends_with(&REFUSED));
}

#[test]
fn codes_of_errors() {
    let answer = frame(GOAWAY, 0, &[0, 0, 0, 1, 0, 0, 0, 1]);
    for (name, wrong, code) in [
        ("a length", frame(PING, 0, b""), 6),
        ("a window", frame(SETTINGS, 0, &[0, 4, 0x80, 0, 0, 0]), 3),
        ("a field block", on(1, HEADERS, WHOLE, &[0x80]), 9),
        ("PUSH_PROMISE", on(1, PUSH_PROMISE, 0, b""), 1),
    ] {
        let mut frames = Frames::new(1_000);
        assert_eq!(frames.changed(&answer), None, "{name}");
        frames.take(&[start(), wrong].concat(), &mut Vec::new());
        let due = frame(GOAWAY, 0, &[0, 0, 0, 1, 0, 0, 0, code]);
        assert_eq!(frames.changed(&answer), Some(due), "{name}");
    }
}
