//! RFC 7541, the compression of fields, and RFC 9113 §4.3, which makes what cannot be decoded an error of the connection.

use crate::case::Want::{Answered, AnsweredOrGone, Connection};
use crate::case::{Case, Server, case, in_short, talk};
use crate::wire::*;

/// What cannot be decoded (RFC 9113 §4.3).
fn broken(section: &'static str, says: &'static str, frames: Vec<u8>) -> Case {
    case(section, says, Connection(&[COMPRESSION]), frames)
}

/// 4,096 and one more as a size of the dynamic table.
const SIZE: &[u8] = &[0x3f, 0xe1, 0x1f];
const SIZE_AND_ONE: &[u8] = &[0x3f, 0xe2, 0x1f];

/// `x: y`, which goes to the dynamic table, where it is 62.
const KEPT: &[u8] = &[0x40, 1, b'x', 1, b'y'];
const NEWEST: &[u8] = &[0x80 | 62];

/// A request with the static table.
fn plain() -> Vec<u8> {
    [&[0x82, 0x86, 0x84][..], AUTHORITY].concat()
}

const AUTHORITY: &[u8] = b"\x01\x0bexample.org";

/// A request with more behind its fields.
fn with(stream: u32, more: &[u8]) -> Vec<u8> {
    headers(stream, END | END_HEADERS, &[&plain(), more].concat())
}

/// A request with something before its fields.
fn after(stream: u32, before: &[u8], more: &[u8]) -> Vec<u8> {
    headers(
        stream,
        END | END_HEADERS,
        &[before, &plain(), more].concat(),
    )
}

pub fn cases() -> Vec<Case> {
    [tables(), sizes(), primitives(), encoder()]
        .into_iter()
        .flatten()
        .collect()
}

fn tables() -> Vec<Case> {
    let to = |stream: u32, path: &[u8]| {
        let head = [&[0x82, 0x86][..], AUTHORITY, path].concat();
        headers(stream, END | END_HEADERS, &head)
    };
    let large = [&[0x40, 1, b'x', 0x7f, 0x89, 0x26][..], &[b'y'; 5_000]].concat();
    vec![
        case(
            "RFC 7541 §2.3.1",
            "the last entry of the static table",
            Answered(1),
            with(1, &[0x80 | 61]),
        ),
        case(
            "RFC 7541 §2.3.2",
            "an entry of the dynamic table in the next request",
            Answered(3),
            together([with(1, KEPT), with(3, NEWEST)]),
        ),
        case(
            "RFC 7541 §2.3.2",
            "the newest entry comes first",
            Answered(5),
            together([to(1, b"\x44\x06/never"), to(3, b"\x44\x01/"), to(5, NEWEST)]),
        ),
        broken(
            "RFC 7541 §2.3.3",
            "an index beyond both tables",
            with(1, NEWEST),
        ),
        broken(
            "RFC 7541 §2.3.3",
            "a name's index beyond both tables",
            with(1, &[0x0f, 62 - 15, 1, b'y']),
        ),
        broken(
            "RFC 7541 §2.3.3",
            "a name's index beyond both, to be indexed",
            with(1, &[0x40 | 62, 1, b'y']),
        ),
        broken("RFC 7541 §6.1", "index 0", with(1, &[0x80])),
        case(
            "RFC 7541 §6.2.3",
            "a literal that is never indexed",
            Answered(1),
            with(1, &[0x10, 1, b'x', 1, b'y']),
        ),
        broken(
            "RFC 7541 §6.2.2",
            "a literal without indexing leaves the table alone",
            together([with(1, &[0, 1, b'x', 1, b'y']), with(3, NEWEST)]),
        ),
        broken(
            "RFC 7541 §4.4",
            "an entry larger than the table empties it",
            together([with(1, KEPT), with(3, &large), with(5, NEWEST)]),
        ),
        case(
            "RFC 9113 §4.3",
            "the fields of a malformed request count for the table",
            AnsweredOrGone(3, &[PROTOCOL]),
            together([
                headers(
                    1,
                    END | END_HEADERS,
                    &[&[0x82, 0x86][..], AUTHORITY, KEPT].concat(),
                ),
                with(3, NEWEST),
            ]),
        ),
        case(
            "RFC 9113 §4.3",
            "the fields of HEADERS behind the end of a request count for the table",
            AnsweredOrGone(3, &[STREAM_CLOSED]),
            together([get(1, "/never"), with(1, KEPT), with(3, NEWEST)]),
        ),
        case(
            "RFC 9113 §4.3",
            "the fields of HEADERS that depend on themselves count for the table",
            AnsweredOrGone(3, &[PROTOCOL]),
            together([
                headers(
                    1,
                    END | END_HEADERS | WITH_PRIORITY,
                    &[&[0, 0, 0, 1, 15][..], &plain(), KEPT].concat(),
                ),
                with(3, NEWEST),
            ]),
        ),
        case(
            "RFC 9113 §4.3",
            "trailers with a pseudo-field count for the table",
            AnsweredOrGone(3, &[PROTOCOL]),
            together([
                post(1, "/never"),
                headers(1, END | END_HEADERS, &[KEPT, &[0x84]].concat()),
                with(3, NEWEST),
            ]),
        ),
        case(
            "RFC 9113 §4.3",
            "trailers count for the table",
            Answered(3),
            together([
                post(1, "/echo"),
                headers(1, END | END_HEADERS, KEPT),
                with(3, NEWEST),
            ]),
        ),
    ]
}

fn sizes() -> Vec<Case> {
    let both = [&[0x20][..], SIZE].concat();
    vec![
        case(
            "RFC 7541 §4.2",
            "sizes of the table before the fields",
            Answered(1),
            after(1, &both, b""),
        ),
        broken(
            "RFC 7541 §4.2",
            "a size of the table behind a field",
            with(1, &[0x20]),
        ),
        broken(
            "RFC 7541 §4.2",
            "a size of the table behind a field, in another frame",
            together([
                headers(1, END, &plain()),
                frame(CONTINUATION, END_HEADERS, 1, &[0x20]),
            ]),
        ),
        broken(
            "RFC 7541 §6.3",
            "a size over SETTINGS_HEADER_TABLE_SIZE",
            after(1, SIZE_AND_ONE, b""),
        ),
        broken(
            "RFC 7541 §4.3",
            "a size of 0 empties the table",
            together([with(1, KEPT), after(3, &[0x20], NEWEST)]),
        ),
        broken(
            "RFC 7541 §4.3",
            "and a size that grows again does not bring entries back",
            together([with(1, KEPT), after(3, &both, NEWEST)]),
        ),
        case(
            "RFC 7541 §4.2",
            "a size before trailers",
            Answered(1),
            together([
                post(1, "/echo"),
                headers(
                    1,
                    END | END_HEADERS,
                    &[&[0x20][..], &literal(b"x-sum", b"1")].concat(),
                ),
            ]),
        ),
    ]
}

fn primitives() -> Vec<Case> {
    let path = |text: &[u8]| {
        let head = [&[0x82, 0x86, 0x04][..], text, AUTHORITY].concat();
        headers(1, END | END_HEADERS, &head)
    };
    let overflow = [&[0xff; 11][..], &[0x01]].concat();
    vec![
        broken(
            "RFC 7541 §5.1",
            "an integer without end",
            with(1, &overflow),
        ),
        broken(
            "RFC 7541 §5.1",
            "an integer over 2^32 that would be 2 without its high bits",
            with(1, &[0xff, 0x83, 0xff, 0xff, 0xff, 0x0f]),
        ),
        broken("RFC 7541 §5.1", "an integer that is cut", with(1, &[0xff])),
        broken(
            "RFC 7541 §5.2",
            "a name that is cut",
            with(1, &[0, 5, b'a', b'b']),
        ),
        broken(
            "RFC 7541 §5.2",
            "a literal without its value",
            with(1, &[0, 1, b'x']),
        ),
        broken(
            "RFC 7541 §5.2",
            "a length beyond any frame",
            with(1, &[0, 0x7f, 0xff, 0xff, 0xff, 0x07]),
        ),
        case(
            "RFC 7541 §5.2",
            "a string in Huffman's code",
            Answered(1),
            path(&[0x81, 0x63]),
        ),
        broken("RFC 7541 §5.2", "padding of zeros", path(&[0x81, 0x60])),
        broken(
            "RFC 7541 §5.2",
            "padding of more than 7 bits",
            path(&[0x82, 0x63, 0xff]),
        ),
        broken(
            "RFC 7541 §5.2",
            "the end of strings within a string",
            path(&[0x84, 0xff, 0xff, 0xff, 0xff]),
        ),
        broken(
            "RFC 7541 §5.2",
            "the end of strings behind a letter",
            path(&[0x85, 0x63, 0xff, 0xff, 0xff, 0xff]),
        ),
    ]
}

fn encoder() -> Vec<Case> {
    vec![
        talk(
            "RFC 7541 §4.2",
            "a table that SETTINGS makes smaller is made so in the next fields",
            |server| {
                let mut wire = Wire::open(server.address, &[(TABLE_SIZE, 0)]);
                wire.send(&get(1, "/"));
                wire.read_until(PATIENCE, |got| {
                    got.iter().any(|it| matches!(it, Got::Head { .. }))
                });
                match &wire.first_block {
                    Some(block) if block[0] == 0x20 => Ok(()),
                    Some(block) => Err(format!("fields begin with {:#x}", block[0])),
                    None => Err(in_short(&wire.got)),
                }
            },
        ),
        talk(
            "RFC 9113 §10.5.1",
            "a head of more than SETTINGS_MAX_HEADER_LIST_SIZE is declined",
            too_large_a_head,
        ),
    ]
}

fn too_large_a_head(server: &Server) -> Result<(), String> {
    let mut wire = Wire::open(server.address, &[]);
    let most = wire.announced(6).unwrap_or(60 * 1024) as usize;
    let mut block = plain();
    for _ in 0..=most / 132 {
        block.extend(literal(b"x", &[b'y'; 100]));
    }
    let mut pieces = block.chunks(16_000);
    let mut bytes = headers(1, END, pieces.next().unwrap_or_default());
    for piece in pieces {
        bytes.extend(frame(CONTINUATION, 0, 1, piece));
    }
    bytes.extend(frame(CONTINUATION, END_HEADERS, 1, b""));
    wire.send(&bytes);
    let declined = |it: &Got| {
        matches!(
            it,
            Got::Head { ok: false, .. } | Got::Reset { .. } | Got::GoAway(_) | Got::Closed
        )
    };
    wire.fence(PATIENCE, |got| got.iter().any(declined));
    if wire.got.iter().any(declined) {
        Ok(())
    } else {
        Err(in_short(&wire.got))
    }
}
