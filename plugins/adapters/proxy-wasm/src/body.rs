//! The body of one direction: read in slices, written once per callback.

use std::cell::Cell;

use edgeweir_filter::{Body, ResponseHead};

use crate::hostcalls::{self, Buffer, Side, Status};

/// Bytes read from the host at once.
const SLICE: usize = 64 * 1024;

/// How much of a body that may have trailers leaves from a paused state. A host cuts the message when one piece is
/// longer than its buffer limit while a filter pauses; Envoy's is 1 MiB by default and 32 KiB in hardened set-ups, and
/// pieces are at most 16 KiB until a client is slower than the upstream, which takes more output than this.
const PAUSED_LIMIT: usize = 16 * 1024;

/// And how much input: a response of HTTP/1.0 without any length looks the same, and its pieces can be as long as the
/// limit once the upstream is faster than the filter.
const PAUSED_INPUT_LIMIT: u64 = 64 * 1024;

/// The most room that is kept for the output of the next callback.
const OUT_KEPT: usize = 256 * 1024;

thread_local! {
    /// Room for what a callback writes, whichever stream it is of: no callback runs inside another's.
    static OUT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What becomes of a body callback.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flowing {
    /// The bytes go on.
    On,
    /// They wait in the host, or go on by a continue asked for already.
    Paused,
    /// They wait; [`Flow::release`] is to be called from a tick.
    Held,
}

/// The property in which a module that takes a declared length away says how far the body is, to those behind it.
const LENGTH: &str = "edgeweir_response_length";
const OPEN: &[u8] = b"open";
const WHOLE: &[u8] = b"whole";

/// How the host holds a body that leaves from a paused state (see the crate's documentation of trailers).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Gate {
    /// It was never paused.
    Open,
    /// The last callback paused.
    Stopped,
    /// A tick continued it since.
    Released,
}

/// Whether trailers may follow a body with this head, so that its last bytes must leave from a paused state.
fn may_have_trailers(received: &ResponseHead) -> bool {
    let fields = &received.fields;
    let events = fields.get("content-type").is_some_and(|value| {
        value
            .get(..17)
            .is_some_and(|start| start.eq_ignore_ascii_case(b"text/event-stream"))
    });
    // HTTP/1: pieces may be as long as the host's buffer, and trailers are dropped unless a host is told otherwise.
    let chunked = fields
        .list("transfer-encoding")
        .any(|coding| coding.eq_ignore_ascii_case(b"chunked"));
    let http1 = chunked || fields.has("connection");
    received.content_length().is_none() && !events && !http1
}

/// Whether nothing can be added after the body's end: trailers are announced, and the body may be longer than what leaves
/// from a paused state. Of HTTP/1.1 too: whether the host passes its trailers on cannot be asked.
pub fn tail_closed(received: &ResponseHead) -> bool {
    received.fields.has("trailer") && received.content_length().is_none()
}

/// Gives a filter a piece: chunk, whether it is the last, where its output goes.
pub type Feed<'a> = &'a mut dyn FnMut(&[u8], bool, &mut Vec<u8>);

/// One direction's body.
#[derive(Debug)]
pub struct Flow {
    side: Side,
    body: Body,
    /// The filter was told of the end.
    ended: bool,
    /// The length the head declared.
    declared: Option<u64>,
    /// Bytes given to the filter.
    seen: u64,
    /// How many more bytes leave from a paused state, so that some can be added when trailers come.
    pausing: usize,
    /// The modules behind this one are to be told of the end.
    tells: bool,
    /// A module before this one tells of it.
    told: bool,
    gate: Gate,
    /// Bytes at the front of the host's buffer that the filter made already.
    held: usize,
    /// The end was written and waits for a tick.
    finishing: bool,
}

impl Flow {
    /// A body nobody looks at.
    pub fn passing(side: Side) -> Self {
        Self {
            side,
            body: Body::Pass,
            ended: false,
            declared: None,
            seen: 0,
            pausing: 0,
            tells: false,
            told: false,
            gate: Gate::Open,
            held: 0,
            finishing: false,
        }
    }

    /// A body treated as said, with bytes added at its end if it `has_tail`; `received` are the fields as they came.
    ///
    /// Only a body with a tail is paused: a host has one buffer for all its filters, and a second one that pauses the same
    /// message mixes its bytes with the first one's (Envoy does).
    pub fn new(side: Side, body: Body, has_tail: bool, received: &ResponseHead) -> Self {
        let open = body == Body::Transform && has_tail && may_have_trailers(received);
        let told = open && side == Side::Response && hostcalls::property(LENGTH).is_ok();
        Self {
            body,
            declared: received.content_length(),
            pausing: if open && !told { PAUSED_LIMIT } else { 0 },
            told,
            ..Self::passing(side)
        }
    }

    /// The length that was declared does not go on: the modules behind this one are told of the body's end in its place.
    pub fn take_length_away(&mut self) {
        self.tells = hostcalls::set_property(LENGTH, OPEN).is_ok();
    }

    fn buffer(&self) -> Buffer {
        match self.side {
            Side::Request => Buffer::RequestBody,
            Side::Response => Buffer::ResponseBody,
        }
    }

    /// Whether the bytes that go on are others than came.
    pub fn transforms(&self) -> bool {
        self.body == Body::Transform
    }

    /// Whether they are looked at and go on as they came.
    pub fn observes(&self) -> bool {
        self.body == Body::Observe
    }

    /// Whether a callback has nothing to do.
    pub fn passes(&self) -> bool {
        self.body == Body::Pass || (self.ended && !self.finishing)
    }

    /// A body callback of `size` bytes in the host's buffer. `feed` is called with chunk, end, out.
    pub fn push(&mut self, size: usize, end: bool, feed: Feed<'_>) -> Result<Flowing, Status> {
        let mut out = OUT.take();
        out.clear();
        let flowing = self.push_into(&mut out, size, end, feed);
        if out.capacity() <= OUT_KEPT {
            OUT.set(out);
        }
        flowing
    }

    fn push_into(
        &mut self,
        out: &mut Vec<u8>,
        size: usize,
        end: bool,
        feed: Feed<'_>,
    ) -> Result<Flowing, Status> {
        let held = self.held.min(size);
        // Before trailers come.
        let whole = self.told && hostcalls::property(LENGTH).is_ok_and(|value| value == WHOLE);
        let end = end || whole;
        if self.body == Body::Observe {
            self.read(0, size, end, out, feed)?;
            return Ok(Flowing::On);
        }
        if held > 0 {
            out.extend_from_slice(&hostcalls::buffer(self.buffer(), 0, held)?);
        }
        self.read(held, size, end, out, feed)?;
        if self.tells && self.ended && !end {
            let _ = hostcalls::set_property(LENGTH, WHOLE);
        }
        if size > 0 || !out.is_empty() {
            hostcalls::set_buffer(self.buffer(), 0, size, out)?;
        }
        self.pausing = self.pausing.saturating_sub(out.len().saturating_sub(held));
        if self.seen > PAUSED_INPUT_LIMIT {
            self.pausing = 0;
        }
        Ok(match (self.gate, end) {
            (Gate::Open | Gate::Stopped, true) => Flowing::On,
            (Gate::Open | Gate::Stopped, false) if self.pausing == 0 => {
                self.gate = Gate::Open;
                self.held = 0;
                Flowing::On
            }
            (Gate::Stopped, false) => {
                let asked = self.held > 0;
                self.held = out.len();
                if asked || out.is_empty() {
                    Flowing::Paused
                } else {
                    Flowing::Held
                }
            }
            (Gate::Open, false) | (Gate::Released, _) => {
                self.gate = Gate::Stopped;
                self.held = out.len();
                self.finishing = end;
                if out.is_empty() && !end {
                    Flowing::Paused
                } else {
                    Flowing::Held
                }
            }
        })
    }

    fn read(
        &mut self,
        start: usize,
        size: usize,
        end: bool,
        out: &mut Vec<u8>,
        feed: Feed<'_>,
    ) -> Result<(), Status> {
        let mut at = start;
        while at < size && !self.ended {
            let slice = hostcalls::buffer(self.buffer(), at, (size - at).min(SLICE))?;
            if slice.is_empty() {
                // The host announced more than it has.
                break;
            }
            at = at.saturating_add(slice.len());
            self.seen = self.seen.saturating_add(slice.len() as u64);
            // Trailers may follow a complete body: tell of the end while bytes can still be written.
            self.ended = (end && at >= size && self.is_whole()) || self.declared == Some(self.seen);
            feed(&slice, self.ended, out);
        }
        if end && !self.ended {
            if self.is_whole() {
                feed(&[], true, out);
            }
            self.ended = true;
        }
        Ok(())
    }

    /// Whether the end may be told, now that the host says so: who only looks on (and may keep the body) must not take
    /// a part of what was declared for the whole.
    fn is_whole(&self) -> bool {
        self.body == Body::Transform || self.declared.is_none_or(|declared| self.seen >= declared)
    }

    /// The trailers came: the body is complete. Answers how many bytes could not be added any more.
    pub fn finish(&mut self, feed: Feed<'_>) -> Result<(Flowing, usize), Status> {
        if self.passes() {
            return Ok((Flowing::On, 0));
        }
        let mut out = Vec::new();
        if !self.ended {
            self.ended = true;
            if self.is_whole() {
                feed(&[], true, &mut out);
            }
        }
        if self.body == Body::Observe || out.is_empty() && self.gate != Gate::Stopped {
            return Ok((Flowing::On, 0));
        }
        match self.gate {
            // The host has no buffer to write to here; Envoy's would be a dangling one.
            // An empty body stays empty: coded or not, nothing is missing of what the origin sent.
            Gate::Open => Ok((Flowing::On, if self.seen == 0 { 0 } else { out.len() })),
            Gate::Stopped => {
                if !out.is_empty() {
                    hostcalls::set_buffer(self.buffer(), self.held, 0, &out)?;
                }
                Ok((Flowing::On, 0))
            }
            Gate::Released => {
                hostcalls::set_buffer(self.buffer(), 0, 0, &out)?;
                self.gate = Gate::Stopped;
                self.finishing = true;
                Ok((Flowing::Held, 0))
            }
        }
    }

    /// Lets go what is held; called from a tick, with the stream as the effective context.
    pub fn release(&mut self) -> Result<(), Status> {
        if self.gate != Gate::Stopped || (self.held == 0 && !self.finishing) {
            return Ok(());
        }
        self.gate = Gate::Released;
        self.held = 0;
        self.finishing = false;
        hostcalls::continue_stream(self.side)
    }

    /// Resets the stream: what is on its way is half changed.
    pub fn abort(&self) {
        if hostcalls::close_stream(self.side).is_err() {
            // A host that can't reset it still ends it when it is answered: where a response has begun that resets it too.
            let _ = hostcalls::send_status(502);
        }
    }
}
