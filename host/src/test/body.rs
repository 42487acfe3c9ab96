//! Bodies as a case says: in these pieces, with these pauses, whole or cut off.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use edgeweir_host_cases::content;
use edgeweir_host_cases::seen::Message;
use edgeweir_host_chain::{Body, Error};
use http::header::HeaderMap;
use http::{HeaderName, HeaderValue};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::time::Sleep;

/// Why a body a case cuts off ends.
const CUT: &str = "the case cuts it off here";

struct Pieces {
    pieces: VecDeque<Bytes>,
    pause: Duration,
    sleeping: Option<Pin<Box<Sleep>>>,
    first: bool,
    trailers: Option<HeaderMap>,
    cut: bool,
    length: Option<u64>,
}

/// A body; `split` is the point of a body split at each, `least` the shortest pause between two pieces.
pub fn body(content: &content::Body, split: usize, least: Duration) -> Body {
    let pieces: VecDeque<Bytes> = content.pieces(split).into_iter().map(Bytes::from).collect();
    let trailers = lines(&content.trailers);
    let length = (!content.chunked).then_some(content.bytes.len() as u64);
    Pieces {
        pieces,
        pause: content.pause.max(least),
        sleeping: None,
        first: true,
        trailers: (!trailers.is_empty()).then_some(trailers),
        cut: content.cut_after.is_some(),
        length,
    }
    .boxed_unsync()
}

/// Field lines as a map; names and values were checked when they were read.
pub fn lines(fields: &[(String, String)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name.as_bytes()),
            // RFC 9110 §5.5: bytes beyond ASCII are obs-text.
            HeaderValue::from_bytes(value.as_bytes()),
        ) {
            let _ = map.try_append(name, value);
        }
    }
    map
}

/// A map as field lines.
pub fn fields(map: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    map.iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
        .collect()
}

/// Reads a body to its end; why it did not come to one.
pub async fn read(mut body: Body, message: &mut Message) -> Option<String> {
    loop {
        match body.frame().await {
            None => return None,
            Some(Err(error)) => return Some(error.to_string()),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => message.body.extend_from_slice(&data),
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        message.trailers = fields(&trailers);
                    }
                }
            },
        }
    }
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        if this.is_end_stream() {
            return Poll::Ready(None);
        }
        if !this.first && !this.pause.is_zero() {
            let pause = this.pause;
            let sleeping = this
                .sleeping
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
            ready!(sleeping.as_mut().poll(context));
            this.sleeping = None;
        }
        this.first = false;
        if let Some(piece) = this.pieces.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if std::mem::take(&mut this.cut) {
            return Poll::Ready(Some(Err(CUT.into())));
        }
        Poll::Ready(this.trailers.take().map(|it| Ok(Frame::trailers(it))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty() && self.trailers.is_none() && !self.cut
    }

    fn size_hint(&self) -> SizeHint {
        match self.length {
            Some(_) => SizeHint::with_exact(self.pieces.iter().map(|it| it.len() as u64).sum()),
            None => SizeHint::default(),
        }
    }
}
