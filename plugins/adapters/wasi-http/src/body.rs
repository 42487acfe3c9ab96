//! Bodies as streams, read and written piece by piece.

use std::mem;

use bytes::Bytes;
use edgeweir_filter::Body;
use wit_bindgen::{FutureReader, FutureWriter, StreamReader, StreamResult, StreamWriter};

use crate::bindings::wasi::http::types::{ErrorCode, Fields, Request, Response};
use crate::bindings::{wit_future, wit_stream};
use crate::exchange::{Session, Side};
use crate::message;

/// Bytes read or written at once.
pub(crate) const PIECE: usize = 64 << 10;

/// The end of a body: its trailer section if it has one, or why it was cut.
pub(crate) type Trailers = Result<Option<Fields>, ErrorCode>;

/// A body to be sent on.
pub(crate) type Outgoing = (Option<StreamReader<u8>>, FutureReader<Trailers>);

/// No body at all.
pub(crate) fn empty() -> Outgoing {
    let (_, trailers) = wit_future::new::<Trailers>(|| Ok(None));
    (None, trailers)
}

/// A body that is here already.
pub(crate) fn whole(body: Bytes) -> Outgoing {
    whole_and(body, None)
}

/// A body that is here already, with trailers. It is copied piece by piece, so a stalled client costs one piece.
pub(crate) fn whole_and(body: Bytes, trailers: Option<Fields>) -> Outgoing {
    if body.is_empty() && trailers.is_none() {
        return empty();
    }
    let (mut writer, reader, end, trailers_reader) = channel();
    wit_bindgen::spawn_local(async move {
        let mut rest = body;
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(PIECE));
            if !writer.write_all(Vec::from(piece)).await.is_empty() {
                return;
            }
        }
        drop(writer);
        let _ = end.write(Ok(trailers)).await;
    });
    (Some(reader), trailers_reader)
}

/// A stream and its end. Dropped without a word, the end says that the body was cut.
fn channel() -> (
    StreamWriter<u8>,
    StreamReader<u8>,
    FutureWriter<Trailers>,
    FutureReader<Trailers>,
) {
    let (writer, reader) = wit_stream::new::<u8>();
    let (end, trailers) = wit_future::new::<Trailers>(|| Err(ErrorCode::HttpResponseIncomplete));
    (writer, reader, end, trailers)
}

/// A received body.
pub(crate) struct Incoming {
    stream: StreamReader<u8>,
    trailers: FutureReader<Trailers>,
    declared: Option<u64>,
    read: u64,
}

impl Incoming {
    /// Of a request that declared this length.
    pub(crate) fn of_request(request: Request, declared: Option<u64>) -> Self {
        let (done, received) = wit_future::new::<Result<(), ErrorCode>>(|| Ok(()));
        let (stream, trailers) = Request::consume_body(request, received);
        drop(done);
        Self::new(stream, trailers, declared)
    }

    /// Of a response that declared this length.
    pub(crate) fn of_response(response: Response, declared: Option<u64>) -> Self {
        let (done, received) = wit_future::new::<Result<(), ErrorCode>>(|| Ok(()));
        let (stream, trailers) = Response::consume_body(response, received);
        drop(done);
        Self::new(stream, trailers, declared)
    }

    fn new(
        stream: StreamReader<u8>,
        trailers: FutureReader<Trailers>,
        declared: Option<u64>,
    ) -> Self {
        Self {
            stream,
            trailers,
            declared,
            read: 0,
        }
    }

    /// Handed on as it came, unread.
    pub(crate) fn untouched(self) -> Outgoing {
        (Some(self.stream), self.trailers)
    }

    /// The next piece in `buffer`, whose room is used again; false at the end, which [`Incoming::end`] tells about.
    async fn next(&mut self, buffer: &mut Vec<u8>) -> bool {
        let mut room = mem::take(buffer);
        room.clear();
        if room.capacity() == 0 {
            room.reserve_exact(PIECE);
        }
        let (result, filled) = self.stream.read(room).await;
        self.read = self.read.saturating_add(filled.len() as u64);
        *buffer = filled;
        matches!(result, StreamResult::Complete(_))
    }

    /// How it ended. Fewer bytes than declared is cut, whatever the host says.
    async fn end(self) -> Trailers {
        let trailers = self.trailers.await?;
        match self.declared {
            Some(declared) if declared != self.read => Err(ErrorCode::HttpResponseIncomplete),
            _ => Ok(trailers),
        }
    }
}

/// Why a body could not be read as a whole.
pub(crate) enum ReadFailed {
    /// Over the limit.
    TooLong,
    /// It ended before its end.
    Cut,
}

/// A response's body as a whole, at most `limit` bytes.
pub(crate) async fn collect(
    response: Response,
    declared: Option<u64>,
    limit: usize,
) -> Result<Vec<u8>, ReadFailed> {
    let mut incoming = Incoming::of_response(response, declared);
    let (mut all, mut piece) = (Vec::new(), Vec::new());
    while incoming.next(&mut piece).await {
        if all.len() + piece.len() > limit {
            return Err(ReadFailed::TooLong);
        }
        all.extend_from_slice(&piece);
    }
    incoming.end().await.map_err(|_| ReadFailed::Cut)?;
    Ok(all)
}

/// A body on its way through a filter.
pub(crate) struct Pump {
    session: Session,
    side: Side,
    observes: bool,
    incoming: Incoming,
    piece: Vec<u8>,
    out: Vec<u8>,
}

impl Pump {
    /// A pump for a body that the filter wants to see or to change.
    pub(crate) fn new(session: Session, side: Side, body: Body, incoming: Incoming) -> Self {
        Self {
            session,
            side,
            observes: body == Body::Observe,
            incoming,
            piece: Vec::new(),
            out: Vec::new(),
        }
    }

    /// Sends it on piece by piece, as it comes.
    pub(crate) fn stream(self) -> Outgoing {
        let (writer, reader, end, trailers) = channel();
        wit_bindgen::spawn_local(self.run(writer, end));
        (Some(reader), trailers)
    }

    /// Waits for its end and sends it on as a whole: the length is known then. `None` for the length when it became
    /// more than `limit`, and is streamed after all.
    pub(crate) async fn gather(
        mut self,
        limit: usize,
    ) -> Result<(Outgoing, Option<usize>), ErrorCode> {
        while self.turn().await {
            if let Some(code) = self.session.cut(self.side) {
                return Err(code);
            }
            if self.out.len() > limit {
                return Ok((self.stream(), None));
            }
        }
        let (out, trailers) = self.end().await?;
        let length = out.len();
        Ok((whole_and(Bytes::from(out), trailers), Some(length)))
    }

    async fn run(mut self, mut writer: StreamWriter<u8>, end: FutureWriter<Trailers>) {
        loop {
            let more = self.turn().await;
            if let Some(code) = self.session.cut(self.side) {
                drop(writer);
                let _ = end.write(Err(code)).await;
                return;
            }
            if !self.out.is_empty() {
                // What comes back is what nobody took: the receiver is gone.
                self.out = writer.write_all(mem::take(&mut self.out)).await;
                if !self.out.is_empty() {
                    return;
                }
            }
            if !more {
                break;
            }
        }
        let trailers = match self.end().await {
            Ok((out, trailers)) => {
                if !out.is_empty() && !writer.write_all(out).await.is_empty() {
                    return;
                }
                Ok(trailers)
            }
            Err(code) => Err(code),
        };
        drop(writer);
        let _ = end.write(trailers).await;
    }

    /// Takes one piece in; what goes on is added to `out`. False at the end.
    async fn turn(&mut self) -> bool {
        let more = self.incoming.next(&mut self.piece).await;
        if !self.piece.is_empty() {
            if self.observes {
                let mut ignored = Vec::new();
                self.session
                    .feed(self.side, &self.piece, false, &mut ignored);
                self.out.append(&mut self.piece);
            } else {
                self.session
                    .feed(self.side, &self.piece, false, &mut self.out);
            }
        }
        more
    }

    /// The end of a complete body: what is left to be sent, and the trailers. A cut body has no end.
    async fn end(mut self) -> Result<(Vec<u8>, Option<Fields>), ErrorCode> {
        let received = self.incoming.end().await?;
        let mut last = Vec::new();
        self.session.feed(self.side, &[], true, &mut last);
        if let Some(code) = self.session.cut(self.side) {
            return Err(code);
        }
        if !self.observes {
            self.out.append(&mut last);
        }
        let trailers = match received {
            Some(received) => {
                let mut fields = message::received(&received);
                self.session.trailers(self.side, &mut fields);
                Some(if fields.changed().is_empty() {
                    received
                } else {
                    message::changed(&received, &fields).map_err(|_| match self.side {
                        Side::Request => ErrorCode::HttpRequestTrailerSectionSize(None),
                        Side::Response => ErrorCode::HttpResponseTrailerSectionSize(None),
                    })?
                })
            }
            None => None,
        };
        Ok((self.out, trailers))
    }
}
