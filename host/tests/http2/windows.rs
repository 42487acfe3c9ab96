//! RFC 9113 §6.5 and §6.9: settings and flow control.

use crate::case::Want::{Answered, Connection, Stream};
use crate::case::{Case, Server, case, in_short, talk};
use crate::wire::*;

const MOST: u32 = 0x7fff_ffff;

pub fn cases() -> Vec<Case> {
    [settings_frames(), updates(), conversations()]
        .into_iter()
        .flatten()
        .collect()
}

fn settings_frames() -> Vec<Case> {
    vec![
        case(
            "RFC 9113 §6.5",
            "SETTINGS whose length is no multiple of 6",
            Connection(&[FRAME_SIZE]),
            frame(SETTINGS, 0, 0, &[0; 5]),
        ),
        case(
            "RFC 9113 §6.5",
            "an acknowledgement of SETTINGS with a payload",
            Connection(&[FRAME_SIZE]),
            frame(SETTINGS, END, 0, &[0; 6]),
        ),
        case(
            "RFC 9113 §6.5",
            "SETTINGS on a stream",
            Connection(&[PROTOCOL]),
            frame(SETTINGS, 0, 1, b""),
        ),
        case(
            "RFC 9113 §6.5.2",
            "SETTINGS_ENABLE_PUSH of 2",
            Connection(&[PROTOCOL]),
            settings(&[(ENABLE_PUSH, 2)]),
        ),
        case(
            "RFC 9113 §6.5.2",
            "SETTINGS_INITIAL_WINDOW_SIZE of 2^31",
            Connection(&[FLOW_CONTROL]),
            settings(&[(WINDOW, MOST + 1)]),
        ),
        case(
            "RFC 9113 §6.5.2",
            "SETTINGS_MAX_FRAME_SIZE of 2^14 - 1",
            Connection(&[PROTOCOL]),
            settings(&[(MAX_FRAME, 16_383)]),
        ),
        case(
            "RFC 9113 §6.5.2",
            "SETTINGS_MAX_FRAME_SIZE of 2^24",
            Connection(&[PROTOCOL]),
            settings(&[(MAX_FRAME, 1 << 24)]),
        ),
        case(
            "RFC 9113 §6.5.2",
            "an unknown setting is ignored",
            Answered(1),
            together([settings(&[(0xf0, u32::MAX), (0, 1)]), get(1, "/")]),
        ),
        case(
            "RFC 9113 §6.5.2",
            "all settings at their largest",
            Answered(1),
            together([
                settings(&[
                    (TABLE_SIZE, u32::MAX),
                    (ENABLE_PUSH, 0),
                    (CONCURRENT, u32::MAX),
                    (WINDOW, MOST),
                    (MAX_FRAME, (1 << 24) - 1),
                    (6, u32::MAX),
                ]),
                get(1, "/"),
            ]),
        ),
    ]
}

fn updates() -> Vec<Case> {
    let open = || get(1, "/never");
    vec![
        case(
            "RFC 9113 §6.9",
            "WINDOW_UPDATE of 0 on the connection",
            Connection(&[PROTOCOL]),
            window_update(0, 0),
        ),
        case(
            "RFC 9113 §6.9",
            "WINDOW_UPDATE of 0 on a stream",
            Stream(1, &[PROTOCOL]),
            together([open(), window_update(1, 0)]),
        ),
        case(
            "RFC 9113 §6.9",
            "WINDOW_UPDATE whose length is not 4",
            Connection(&[FRAME_SIZE]),
            frame(WINDOW_UPDATE, 0, 0, &[0; 3]),
        ),
        case(
            "RFC 9113 §6.9.1",
            "the connection's window over 2^31 - 1",
            Connection(&[FLOW_CONTROL]),
            together([window_update(0, MOST), window_update(0, MOST)]),
        ),
        case(
            "RFC 9113 §6.9.1",
            "a stream's window over 2^31 - 1",
            Stream(1, &[FLOW_CONTROL]),
            together([open(), window_update(1, MOST), window_update(1, MOST)]),
        ),
        case(
            "RFC 9113 §6.9.2",
            "a setting that takes a stream's window over 2^31 - 1",
            Connection(&[FLOW_CONTROL]),
            together([
                open(),
                window_update(1, MOST - 65_535),
                settings(&[(WINDOW, 65_536)]),
            ]),
        )
        .envoy("Reset", "the stream ends, the connection does not"),
    ]
}

fn conversations() -> Vec<Case> {
    vec![
        talk(
            "RFC 9113 §6.5.3",
            "each SETTINGS is acknowledged",
            acknowledged,
        ),
        talk(
            "RFC 9113 §6.5.3",
            "of one setting twice the last counts",
            last_counts,
        ),
        talk(
            "RFC 9113 §6.7",
            "a PING is answered with what it carries",
            |server| {
                let mut wire = Wire::open(server.address, &[]);
                wire.send(&frame(PING, 0, 0, b"\x01\x02\x03\x04\xff\xfe\xfd\xfc"));
                let pong = Got::Pong(b"\x01\x02\x03\x04\xff\xfe\xfd\xfc".to_vec());
                wire.settle(|got| got.contains(&pong));
                if wire.got.contains(&pong) {
                    Ok(())
                } else {
                    Err(in_short(&wire.got))
                }
            },
        ),
        talk(
            "RFC 9113 §6.9.1",
            "no more DATA than a stream's window, and the rest when it grows",
            |server| {
                windows(
                    server,
                    1,
                    &[
                        (Vec::new(), 1),
                        (window_update(1, 5), 6),
                        (window_update(1, 20_000), 20_006),
                    ],
                )
            },
        ),
        talk(
            "RFC 9113 §6.9.1",
            "no more DATA than the connection's window",
            |server| {
                windows(
                    server,
                    MOST,
                    &[
                        (Vec::new(), 65_535),
                        (window_update(0, 10), 65_545),
                        (window_update(1, 10), 65_545),
                    ],
                )
            },
        ),
        talk(
            "RFC 9113 §6.9.1",
            "a window of nothing holds the body, not the head",
            |server| windows(server, 0, &[(Vec::new(), 0), (window_update(1, 1), 1)]),
        ),
        talk(
            "RFC 9113 §6.9.2",
            "a setting grows the windows of streams there are",
            |server| {
                windows(
                    server,
                    0,
                    &[
                        (Vec::new(), 0),
                        (settings(&[(WINDOW, 7)]), 7),
                        (settings(&[(WINDOW, 8)]), 8),
                    ],
                )
            },
        ),
        talk(
            "RFC 9113 §6.9.2",
            "a setting takes a window below nothing",
            |server| {
                let less = settings(&[(WINDOW, 2)]);
                windows(
                    server,
                    3,
                    &[
                        (Vec::new(), 3),
                        (less, 3),
                        (window_update(1, 1), 3),
                        (window_update(1, 1), 4),
                    ],
                )
            },
        ),
        talk(
            "RFC 9113 §6.9",
            "a request's body is larger than the windows announced",
            body_beyond,
        ),
        talk(
            "RFC 9113 §5.2",
            "a stream whose window is used up does not hold another",
            |server| {
                let mut wire = Wire::open(server.address, &[(WINDOW, 10)]);
                wire.send(&together([get(1, "/large"), get(3, "/")]));
                let end = |it: &Got| {
                    matches!(
                        it,
                        Got::Data {
                            stream: 3,
                            end: true,
                            ..
                        }
                    )
                };
                wire.settle(|got| got.iter().any(end) && data_on(got, 1) >= 10);
                if wire.got.iter().any(end) && data_on(&wire.got, 1) == 10 {
                    Ok(())
                } else {
                    Err(in_short(&wire.got))
                }
            },
        ),
    ]
}

/// So many bytes of a large body have come after each of these was sent, in frames no longer than was asked for.
fn windows(server: &Server, initial: u32, turns: &[(Vec<u8>, usize)]) -> Result<(), String> {
    let mut wire = Wire::open(server.address, &[(WINDOW, initial)]);
    wire.send(&get(1, "/large"));
    wire.read_until(PATIENCE, |got| {
        got.iter().any(|it| matches!(it, Got::Head { .. }))
    });
    for (number, (bytes, want)) in turns.iter().enumerate() {
        wire.send(bytes);
        wire.settle(|got| data_on(got, 1) >= *want);
        let came = data_on(&wire.got, 1);
        if came != *want || wire.closed() {
            return Err(format!(
                "{came} bytes in turn {number}: {}",
                in_short(&wire.got)
            ));
        }
    }
    let over = |it: &Got| matches!(it, Got::Data { length, .. } if *length > 16_384);
    match wire.got.iter().find(|it| over(it)) {
        Some(over) => Err(format!("{over:?}")),
        None => Ok(()),
    }
}

fn acknowledged(server: &Server) -> Result<(), String> {
    let mut wire = Wire::open(server.address, &[]);
    wire.send(&together([settings(&[]), settings(&[(WINDOW, 100)])]));
    let acks = |got: &[Got]| got.iter().filter(|it| **it == Got::SettingsAck).count();
    wire.settle(|got| acks(got) >= 3);
    match acks(&wire.got) {
        3 => Ok(()),
        other => Err(format!("{other} acknowledgements of 3")),
    }
}

fn last_counts(server: &Server) -> Result<(), String> {
    let mut wire = Wire::open(server.address, &[(WINDOW, 100), (WINDOW, 3)]);
    wire.send(&get(1, "/large"));
    wire.settle(|got| data_on(got, 1) >= 3);
    match data_on(&wire.got, 1) {
        3 => Ok(()),
        other => Err(format!("{other} bytes")),
    }
}

/// Sent as the windows allow; they have to be given back as the body is read.
fn body_beyond(server: &Server) -> Result<(), String> {
    let total = 4_000_000;
    let mut wire = Wire::open(server.address, &[(WINDOW, MOST)]);
    wire.send(&window_update(0, MOST - 65_535));
    let initial = wire.announced(WINDOW).unwrap_or(65_535) as usize;
    wire.send(&frame(SETTINGS, END, 0, b""));
    wire.send(&post(1, "/echo"));
    let granted = |got: &[Got], wanted: u32, from: usize| {
        let by = got.iter().map(|it| match it {
            Got::WindowUpdate { stream, by } if *stream == wanted => *by as usize,
            _ => 0,
        });
        from + by.sum::<usize>()
    };
    let mut sent = 0;
    while sent < total {
        let room = |got: &[Got]| granted(got, 0, 65_535).min(granted(got, 1, initial)) - sent;
        if !wire.read_until(PATIENCE, |got| room(got) > 0) || wire.closed() {
            return Err(format!(
                "{sent} bytes went, then no more window: {}",
                in_short(&wire.got)
            ));
        }
        let size = room(&wire.got).min(16_384).min(total - sent);
        sent += size;
        let flags = if sent == total { END } else { 0 };
        wire.send(&data(1, flags, &vec![b'x'; size]));
    }
    wire.read_until(PATIENCE, |got| {
        got.iter().any(|it| {
            matches!(
                it,
                Got::Data { end: true, .. } | Got::Head { end: true, .. }
            )
        })
    });
    match data_on(&wire.got, 1) {
        came if came == total => Ok(()),
        came => Err(format!("{came} of {total} bytes came back")),
    }
}
