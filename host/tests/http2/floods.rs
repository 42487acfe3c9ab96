//! RFC 9113 §10.5: what is cheap to send and dear to serve. A server may end the connection; it lives, answers others, and
//! its memory stays bounded.

use std::time::{Duration, Instant};

use crate::case::{Case, Server, good, in_short, talk};
use crate::wire::*;

/// How a server is said to have taken more than it should.
pub const GREW: &str = "it grew by";

/// By how much a flood on one connection may make a server grow.
const ROOM: usize = 128 << 20;

pub fn cases() -> Vec<Case> {
    vec![
        talk(
            "CVE-2023-44487",
            "20,000 requests that are reset at once",
            |server| {
                flood(server, &[], b"", 20_000, |number| {
                    let stream = 1 + 2 * number;
                    together([get(stream, "/never"), rst_stream(stream, 8)])
                })
            },
        ),
        talk(
            "CVE-2025-8671",
            "20,000 requests that the server has to reset",
            |server| {
                flood(server, &[], b"", 20_000, |number| {
                    let stream = 1 + 2 * number;
                    together([get(stream, "/never"), window_update(stream, 0)])
                })
            },
        ),
        talk(
            "CVE-2025-8671",
            "20,000 requests that go on behind their end",
            |server| {
                flood(server, &[], b"", 20_000, |number| {
                    let stream = 1 + 2 * number;
                    together([get(stream, "/never"), data(stream, END, b"body")])
                })
            },
        ),
        talk(
            "CVE-2019-9512",
            "a million PING whose answers are not read",
            |server| flood(server, &[], b"", 1_000_000, |_| frame(PING, 0, 0, &[0; 8])),
        ),
        talk(
            "CVE-2019-9515",
            "a million SETTINGS whose answers are not read",
            |server| flood(server, &[], b"", 1_000_000, |_| settings(&[])),
        ),
        talk("CVE-2019-9518", "200,000 DATA without bytes", |server| {
            flood(server, &[], &post(1, "/echo"), 200_000, |_| data(1, 0, b""))
        }),
        talk("CVE-2019-9513", "200,000 PRIORITY", |server| {
            flood(server, &[], b"", 200_000, |number| {
                priority(1 + 2 * (number % 10_000), 0)
            })
        }),
        talk("RFC 9113 §10.5", "200,000 WINDOW_UPDATE", |server| {
            flood(server, &[], &get(1, "/never"), 200_000, |number| {
                window_update(number % 2, 1)
            })
        }),
        talk(
            "RFC 9113 §10.5",
            "200,000 frames of an unknown type",
            |server| flood(server, &[], b"", 200_000, |_| frame(0xf0, 0, 0, b"")),
        ),
        talk(
            "CVE-2024-27316",
            "64 MiB of CONTINUATION without end",
            |server| {
                let piece = literal(b"x", &[b'y'; 100]).repeat(150);
                let open = headers(1, END, &block("GET", "/"));
                endless(server, &open, 4_300, &frame(CONTINUATION, 0, 1, &piece))
            },
        ),
        talk("CVE-2024-27316", "a million empty CONTINUATION", |server| {
            let open = headers(1, END, &block("GET", "/"));
            endless(server, &open, 1_000_000, &frame(CONTINUATION, 0, 1, b""))
        }),
        talk("CVE-2019-9516", "fields without name and value", |server| {
            let piece = [0, 0, 0].repeat(5_000);
            flood(server, &[], b"", 2_000, |number| {
                let head = [block("GET", "/"), piece.clone()].concat();
                headers(1 + 2 * number, END | END_HEADERS, &head)
            })
        }),
        talk(
            "CVE-2016-6581",
            "heads that are small in the frame and large decoded",
            |server| {
                let kept = [&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e][..], &[b'y'; 4_000]].concat();
                let open = headers(1, END | END_HEADERS, &[block("GET", "/"), kept].concat());
                let head = [block("GET", "/"), vec![0x80 | 62; 16_000]].concat();
                flood(server, &[], &open, 50, |number| {
                    headers(3 + 2 * number, END | END_HEADERS, &head)
                })
            },
        ),
        talk(
            "CVE-2019-9517",
            "32 answers of 5 MB into open windows, not read",
            |server| {
                let most = 0x7fff_ffff;
                let open = window_update(0, most - 65_535);
                flood(server, &[(WINDOW, most)], &open, 32, |number| {
                    get(1 + 2 * number, "/large")
                })
            },
        ),
        talk(
            "CVE-2019-9511",
            "32 answers of 5 MB into windows of one byte",
            |server| {
                flood(server, &[(WINDOW, 1)], b"", 32, |number| {
                    get(1 + 2 * number, "/large")
                })
            },
        ),
    ]
}

/// So many frames, nothing read meanwhile, on one connection.
fn flood(
    server: &Server,
    pairs: &[(u16, u32)],
    open: &[u8],
    times: u32,
    frames: impl Fn(u32) -> Vec<u8>,
) -> Result<(), String> {
    let mut wire = Wire::open(server.address, pairs);
    let before = memory(server);
    let mut most = before;
    wire.send(open);
    let mut chunk = Vec::new();
    for number in 0..times {
        chunk.extend(frames(number));
        if chunk.len() >= 64 << 10 || number + 1 == times {
            if !wire.send(&chunk) {
                break;
            }
            chunk.clear();
            most = most.max(memory(server));
        }
    }
    // What it keeps doing with it.
    let until = Instant::now() + Duration::from_millis(300);
    while Instant::now() < until {
        most = most.max(memory(server));
        std::thread::sleep(Duration::from_millis(20));
    }
    alive(server)?;
    if most - before > ROOM {
        return Err(format!("{GREW} {} MiB", (most - before) >> 20));
    }
    Ok(())
}

/// The same, where a conforming server has to end it.
fn endless(server: &Server, open: &[u8], times: u32, piece: &[u8]) -> Result<(), String> {
    flood(server, &[], open, times, |_| piece.to_vec())?;
    let mut wire = Wire::open(server.address, &[]);
    wire.send(open);
    let chunk = piece.repeat((64 << 10) / piece.len());
    let mut left = times as usize * piece.len() / chunk.len();
    while left > 0 && wire.send(&chunk) {
        left -= 1;
    }
    wire.fence(QUIET, |_| false);
    if wire.closed() || wire.got.iter().any(|it| matches!(it, Got::GoAway(_))) {
        Ok(())
    } else {
        Err(format!(
            "it takes them without end: {}",
            in_short(&wire.got)
        ))
    }
}

/// A fresh request on a fresh connection is answered.
pub fn alive(server: &Server) -> Result<(), String> {
    let mut wire = Wire::open(server.address, &[]);
    wire.send(&get(1, "/"));
    wire.read_until(PATIENCE * 2, |got| good(got, 1) > 0);
    if good(&wire.got, 1) > 0 {
        Ok(())
    } else {
        Err("it does not answer others".to_owned())
    }
}

/// Resident bytes of a server.
fn memory(server: &Server) -> usize {
    let text = std::fs::read_to_string(format!("/proc/{}/statm", server.pid));
    let pages = text
        .ok()
        .and_then(|it| it.split(' ').nth(1)?.parse::<usize>().ok());
    pages.unwrap_or(0) * 4_096
}
