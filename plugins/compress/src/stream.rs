//! A response's body on its way: decoded, kept as a dictionary, coded, each where it is asked for.

use edgeweir_filter::{Cx, Level};

use crate::breach;
use crate::budget::Reservation;
use crate::decode::Unpacker;
use crate::dictionary::Capture;
use crate::gain;
use crate::measure::{Tally, size};
use crate::{Coding, DecoderFailed, Encoder, EncoderFailed, Flush, Plan};

/// How a body is coded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Choice {
    pub(crate) plan: Plan,
    /// The plan has a dictionary.
    pub(crate) shared: bool,
    /// The level it was to have, and the one it has.
    pub(crate) configured: u8,
    pub(crate) level: u8,
    /// Padding is added, of at least 9 bytes.
    pub(crate) padding: Option<usize>,
    /// It is a document of a length that was declared, here or to a filter before.
    pub(crate) at_hand: bool,
}

/// A body being coded.
pub(crate) struct Stream {
    pub(crate) choice: Choice,
    pub(crate) tally: Tally,
    encoder: Option<Encoder>,
    _room: Reservation,
}

/// A body being decoded.
pub(crate) struct Unpacking {
    unpacker: Unpacker,
    _room: Reservation,
}

/// All that happens to a response's body.
#[derive(Default)]
pub(crate) struct Works {
    pub(crate) unpacking: Option<Unpacking>,
    pub(crate) capture: Option<Capture>,
    pub(crate) stream: Option<Stream>,
}

/// Why a body can't go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Broken {
    Undecodable(DecoderFailed),
    Encoder,
}

impl Stream {
    pub(crate) fn new(choice: Choice, room: Reservation) -> Self {
        Self {
            choice,
            tally: Tally::default(),
            encoder: None,
            _room: room,
        }
    }

    fn push(
        &mut self,
        chunk: &[u8],
        flush: Flush,
        out: &mut Vec<u8>,
        cx: &mut Cx<'_>,
    ) -> Result<(), EncoderFailed> {
        let (coding, before) = (self.choice.plan.coding(), out.len());
        let plan = &self.choice.plan;
        let encoder = self.encoder.get_or_insert_with(|| {
            if gain::looks_random(chunk) {
                // What can't get smaller is not worth more than the lowest level, which also holds no more memory.
                cx.count("compress.incompressible");
                return plan.clone().at_lowest_level().encoder();
            }
            plan.encoder()
        });
        match self.choice.padding.take_if(|_| !chunk.is_empty()) {
            None => encoder.feed(chunk, flush, out)?,
            Some(padding) => {
                encoder.feed(chunk, Flush::Now, out)?;
                breach::pad(coding, padding, out);
                cx.add("compress.padding_bytes", size(padding));
                if flush == Flush::End {
                    encoder.feed(&[], Flush::End, out)?;
                }
            }
        }
        self.tally.add(chunk.len(), out.len() - before, cx);
        Ok(())
    }
}

impl Unpacking {
    pub(crate) fn new(coding: Coding, max_ratio: u32, room: Reservation) -> Self {
        Self {
            unpacker: Unpacker::new(coding, max_ratio),
            _room: room,
        }
    }

    /// Decodes a piece of a request's body.
    pub(crate) fn push(
        &mut self,
        chunk: &[u8],
        end: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), DecoderFailed> {
        let mut sink = |plain: &[u8]| out.extend_from_slice(plain);
        self.unpacker.push(chunk, end, &mut sink)
    }
}

impl Works {
    /// Takes a piece through all that is asked for.
    ///
    /// Who knows the length sends a document that is there, not events as they happen: that is not flushed piece by piece,
    /// which would cost a tenth of the time and some of the ratio. What comes with no length is.
    pub(crate) fn push(
        &mut self,
        chunk: &[u8],
        end: bool,
        out: &mut Vec<u8>,
        cx: &mut Cx<'_>,
    ) -> Result<(), Broken> {
        let stream = self.stream.as_ref();
        let flush = match stream.is_some_and(|it| it.choice.at_hand) {
            _ if end => Flush::End,
            true => Flush::Later,
            false => Flush::Now,
        };
        let Some(mut unpacking) = self.unpacking.take() else {
            return self.plain(chunk, flush, out, cx);
        };
        let mut coded = Ok(());
        let decoded = unpacking.unpacker.push(chunk, end, &mut |plain| {
            if coded.is_ok() {
                coded = self.plain(plain, Flush::Later, out, cx);
            }
        });
        decoded.map_err(Broken::Undecodable)?;
        coded?;
        self.unpacking = Some(unpacking);
        self.plain(&[], flush, out, cx)
    }

    fn plain(
        &mut self,
        chunk: &[u8],
        flush: Flush,
        out: &mut Vec<u8>,
        cx: &mut Cx<'_>,
    ) -> Result<(), Broken> {
        if self.capture.as_mut().is_some_and(|it| !it.push(chunk)) {
            cx.count("compress.dictionary.too_large");
            self.capture = None;
        }
        match &mut self.stream {
            Some(stream) => stream
                .push(chunk, flush, out, cx)
                .map_err(|EncoderFailed| Broken::Encoder),
            None => {
                out.extend_from_slice(chunk);
                Ok(())
            }
        }
    }
}

impl Broken {
    /// Counts and logs it, and gives the body up.
    pub(crate) fn tell(self, status: u16, cx: &mut Cx<'_>) {
        match self {
            Self::Undecodable(why) => cx.count(why.counter()),
            Self::Encoder => {
                cx.count("compress.failed");
                cx.log(Level::Error, "an encoder failed; the body is cut");
            }
        }
        cx.cut(status);
    }
}
