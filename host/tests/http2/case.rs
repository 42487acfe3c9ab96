//! A case: what is sent, what a conforming server does, and where Envoy does not.

use std::net::SocketAddr;

use crate::wire::{Got, NO_ERROR, PATIENCE, PING, PREFACE, QUIET, Wire, frame, settings};

/// What a conforming server does.
#[derive(Clone, Copy, Debug)]
pub enum Want {
    /// GOAWAY with one of the codes, or the connection closed without (RFC 9113 §5.4.1).
    Connection(&'static [u32]),
    /// RST_STREAM with one of the codes, or the same as an error of the connection, which RFC 9113 §5.4.1 allows.
    Stream(u32, &'static [u32]),
    /// 200 on a stream, and the connection stays.
    Answered(u32),
    /// An answer other than 200, or an error of the stream or the connection (RFC 9113 §8.1.1).
    Declined(u32),
    /// 200 on a stream once, or an error with one of the codes: what came last may be ignored.
    OnceOrError(u32, &'static [u32]),
    /// 200 on a stream, or an error of the connection: what came before it was malformed.
    AnsweredOrGone(u32, &'static [u32]),
    /// No answer to a PING that is one itself.
    NoPong,
}
use Want::{Answered, AnsweredOrGone, Connection, Declined, NoPong, OnceOrError, Stream};

/// What is sent.
pub enum Sent {
    /// After the preface and empty SETTINGS, with a PING behind it.
    Frames(Vec<u8>),
    /// In the place of the preface.
    Bare(Vec<u8>),
    /// Turn by turn; the error says what did not conform.
    Talk(fn(&Server) -> Result<(), String>),
}

/// Who is asked.
pub struct Server {
    pub name: &'static str,
    pub address: SocketAddr,
    /// Whose memory is watched.
    pub pid: u32,
}

pub struct Case {
    pub section: &'static str,
    pub says: &'static str,
    pub sent: Sent,
    pub want: Want,
    /// How Envoy falls short of it; nothing where it conforms. This host has to conform everywhere.
    pub envoy: Option<Short>,
}

/// A verdict that is known.
#[derive(Clone, Copy, Debug)]
pub struct Short {
    /// Among what came instead; the test fails when it no longer does.
    pub does: &'static str,
    pub because: &'static str,
}

/// Frames after the preface.
pub fn case(section: &'static str, says: &'static str, want: Want, frames: Vec<u8>) -> Case {
    Case {
        section,
        says,
        sent: Sent::Frames(frames),
        want,
        envoy: None,
    }
}

/// Bytes in the place of the preface.
pub fn bare(section: &'static str, says: &'static str, bytes: Vec<u8>) -> Case {
    Case {
        sent: Sent::Bare(bytes),
        ..case(
            section,
            says,
            Connection(&[crate::wire::PROTOCOL]),
            Vec::new(),
        )
    }
}

/// A conversation.
pub fn talk(
    section: &'static str,
    says: &'static str,
    talk: fn(&Server) -> Result<(), String>,
) -> Case {
    Case {
        sent: Sent::Talk(talk),
        ..case(section, says, Answered(1), Vec::new())
    }
}

impl Case {
    /// Envoy falls short here.
    pub fn envoy(mut self, does: &'static str, because: &'static str) -> Self {
        self.envoy = Some(Short { does, because });
        self
    }

    /// Whether a server conforms, or what it did.
    pub fn run(&self, server: &Server) -> Result<(), String> {
        let mut wire = Wire::bare(server.address);
        let want = self.want;
        let done = move |got: &[Got]| decided(want, got);
        match &self.sent {
            Sent::Talk(talk) => return talk(server),
            Sent::Bare(bytes) => {
                wire.send(bytes);
                wire.read_until(PATIENCE, done);
            }
            Sent::Frames(frames) => {
                wire.send(&[PREFACE, &settings(&[]), frames].concat());
                let quiet = match want {
                    // What would fall short comes late, if at all.
                    OnceOrError(..) | NoPong => QUIET * 2,
                    _ => PATIENCE,
                };
                wire.fence(quiet, done);
            }
        }
        if conforms(want, &wire.got) {
            Ok(())
        } else {
            Err(in_short(&wire.got))
        }
    }
}

/// Whether more to come would not change the verdict.
fn decided(want: Want, got: &[Got]) -> bool {
    match want {
        Connection(_) => went_away(got).is_some(),
        Stream(stream, _) => went_away(got).is_some() || reset(got, stream).is_some(),
        Declined(stream) => {
            went_away(got).is_some() || reset(got, stream).is_some() || answers(got, stream) > 0
        }
        Answered(stream) | AnsweredOrGone(stream, _) => {
            went_away(got).is_some() || answers(got, stream) > 0
        }
        OnceOrError(..) | NoPong => false,
    }
}

fn conforms(want: Want, got: &[Got]) -> bool {
    let away = |codes: &[u32]| match went_away(got) {
        Some(Some(code)) => codes.contains(&code),
        Some(None) => true,
        None => false,
    };
    let closed = went_away(got).is_some();
    match want {
        Connection(codes) => away(codes),
        Stream(stream, codes) => {
            away(codes) || reset(got, stream).is_some_and(|code| codes.contains(&code))
        }
        Answered(stream) => {
            !closed && good(got, stream) == 1 && reset_in_error(got, stream).is_none()
        }
        Declined(stream) => {
            good(got, stream) == 0
                && (closed || reset(got, stream).is_some() || answers(got, stream) > 0)
        }
        OnceOrError(stream, codes) => {
            good(got, stream) <= 1
                && match (went_away(got), reset_in_error(got, stream)) {
                    (Some(_), _) => away(codes),
                    (None, Some(code)) => codes.contains(&code),
                    (None, None) => true,
                }
        }
        AnsweredOrGone(stream, codes) => away(codes) || (!closed && good(got, stream) == 1),
        NoPong => !closed && got.iter().filter(|it| matches!(it, Got::Pong(_))).count() == 1,
    }
}

/// The code of a GOAWAY, or the connection closed without one.
fn went_away(got: &[Got]) -> Option<Option<u32>> {
    let code = got.iter().find_map(|it| match it {
        Got::GoAway(code) => Some(*code),
        _ => None,
    });
    match code {
        Some(code) => Some(Some(code)),
        None => got.contains(&Got::Closed).then_some(None),
    }
}

fn reset(got: &[Got], wanted: u32) -> Option<u32> {
    got.iter().find_map(|it| match it {
        Got::Reset { stream, code } if *stream == wanted => Some(*code),
        _ => None,
    })
}

/// A server that answered before the request's end may ask for no more of it (RFC 9113 §8.1).
fn reset_in_error(got: &[Got], wanted: u32) -> Option<u32> {
    reset(got, wanted).filter(|code| *code != NO_ERROR)
}

fn answers(got: &[Got], wanted: u32) -> usize {
    let on = |it: &&Got| matches!(it, Got::Head { stream, .. } if *stream == wanted);
    got.iter().filter(on).count()
}

pub fn good(got: &[Got], wanted: u32) -> usize {
    let on = |it: &&Got| matches!(it, Got::Head { stream, ok: true, .. } if *stream == wanted);
    got.iter().filter(on).count()
}

/// What came, without what each connection begins with.
pub fn in_short(got: &[Got]) -> String {
    let mut words: Vec<String> = Vec::new();
    for it in got {
        let word = match it {
            Got::Settings(_) | Got::SettingsAck | Got::WindowUpdate { .. } => continue,
            other => format!("{other:?}"),
        };
        match words.last() {
            Some(last) if *last == word => {}
            _ if words.len() > 12 => break,
            _ => words.push(word),
        }
    }
    words.join(", ")
}

/// A PING with eight bytes.
pub fn ping(flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    frame(PING, flags, stream, payload)
}
