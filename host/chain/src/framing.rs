//! Whether a message has content, and what belongs to the connection it came by alone.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request};
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty};

/// Fields of one connection whether or not `Connection` names them.
// RFC 9110 §7.6.1: intermediaries remove or replace these even when they are not listed.
pub const OF_THE_CONNECTION: [HeaderName; 5] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// What `Connection` names, but for what says whom a message is for and how long it is.
pub fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(header::CONNECTION)
        .into_iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .filter_map(|option| HeaderName::from_bytes(option.trim_ascii()).ok())
        // RFC 9110 §7.6.1: end-to-end fields must not be listed; a sender that lists these would unframe its message.
        .filter(|name| *name != header::CONTENT_LENGTH && *name != header::HOST)
        .collect()
}

/// A body without what its trailer section has of the connection's.
// RFC 9110 §7.6.1: "for each connection-option in this field, remove any header or trailer field(s) from the message with the
// same name as the connection-option".
pub struct EndToEnd<B> {
    body: B,
    named: Vec<HeaderName>,
}

impl<B> EndToEnd<B> {
    /// Of a message whose `Connection` named these.
    pub const fn new(body: B, named: Vec<HeaderName>) -> Self {
        Self { body, named }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for EndToEnd<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        Pin::new(&mut this.body).poll_frame(cx).map_ok(|mut frame| {
            if let Some(trailers) = frame.trailers_mut() {
                for name in this.named.iter().chain(&OF_THE_CONNECTION) {
                    trailers.remove(name);
                }
            }
            frame
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body once its first frame was awaited: one that has nothing says so from then on.
pub async fn begun<E: Send + 'static>(
    mut body: UnsyncBoxBody<Bytes, E>,
) -> UnsyncBoxBody<Bytes, E> {
    if body.is_end_stream() {
        return body;
    }
    match body.frame().await {
        Some(first) => Begun {
            first: Some(first),
            rest: body,
        }
        .boxed_unsync(),
        None => Empty::new().map_err(|never| match never {}).boxed_unsync(),
    }
}

/// The request with a framing for a body that few have, and that the client's library would leave out.
// RFC 9110 §9.3.1: content received in a GET request has no generally defined semantics; it is the origin's to judge, not ours.
pub async fn framed<E: Send + 'static>(
    request: Request<UnsyncBoxBody<Bytes, E>>,
) -> Request<UnsyncBoxBody<Bytes, E>> {
    let bare = matches!(*request.method(), Method::GET | Method::HEAD)
        && !request.headers().contains_key(header::CONTENT_LENGTH)
        && !request.headers().contains_key(header::TRANSFER_ENCODING)
        && request.body().size_hint().exact().is_none();
    if !bare {
        return request;
    }
    let (mut parts, body) = request.into_parts();
    let body = begun(body).await;
    if !body.is_end_stream() {
        let chunked = HeaderValue::from_static("chunked");
        parts.headers.insert(header::TRANSFER_ENCODING, chunked);
    }
    Request::from_parts(parts, body)
}

/// A body whose first frame has come.
struct Begun<E> {
    first: Option<Result<Frame<Bytes>, E>>,
    rest: UnsyncBoxBody<Bytes, E>,
}

// Nothing in it is pinned: the rest is in a box.
impl<E> Unpin for Begun<E> {}

impl<E> Body for Begun<E> {
    type Data = Bytes;
    type Error = E;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, E>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames one after the other; how many there are is not known before.
    struct Frames(Vec<Frame<Bytes>>);

    impl Body for Frames {
        type Data = Bytes;
        type Error = ();

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, ()>>> {
            let next = (!self.0.is_empty()).then(|| Ok(self.0.remove(0)));
            Poll::Ready(next)
        }
    }

    fn data(text: &'static str) -> Frame<Bytes> {
        Frame::data(Bytes::from_static(text.as_bytes()))
    }

    #[tokio::test]
    async fn content_that_is_there_is_framed() {
        for (name, method, length, frames, chunked) in [
            (
                "content",
                Method::GET,
                false,
                vec![data("a"), data("b")],
                true,
            ),
            (
                "content of HEAD",
                Method::HEAD,
                false,
                vec![data("a")],
                true,
            ),
            ("none", Method::GET, false, vec![], false),
            ("a length", Method::GET, true, vec![data("a")], false),
            (
                "what the library frames",
                Method::POST,
                false,
                vec![data("a")],
                false,
            ),
        ] {
            let content: usize = frames
                .iter()
                .filter_map(|frame| Some(frame.data_ref()?.len()))
                .sum();
            let mut request = Request::new(Frames(frames).boxed_unsync());
            *request.method_mut() = method;
            if length {
                request
                    .headers_mut()
                    .insert(header::CONTENT_LENGTH, 1.into());
            }
            let request = framed(request).await;
            let says = request.headers().contains_key(header::TRANSFER_ENCODING);
            assert_eq!(says, chunked, "{name}");
            let body = request.into_body().collect().await.expect("whole");
            assert_eq!(body.to_bytes().len(), content, "{name}");
        }
    }

    #[tokio::test]
    async fn a_body_that_has_begun_knows_that_it_is_empty() {
        let none = begun(Frames(vec![]).boxed_unsync()).await;
        assert!(none.is_end_stream());
        assert_eq!(none.size_hint().exact(), Some(0));
        let some = begun(Frames(vec![data("a")]).boxed_unsync()).await;
        assert!(!some.is_end_stream());
    }

    #[tokio::test]
    async fn trailers_of_the_connection_stay_behind() {
        let mut head = HeaderMap::new();
        head.insert("connection", HeaderValue::from_static("close, X-Hop"));
        let mut trailers = HeaderMap::new();
        for name in ["x-hop", "x-end", "upgrade", "connection"] {
            trailers.insert(name, HeaderValue::from_static("1"));
        }
        let body = Frames(vec![data("a"), Frame::trailers(trailers)]);
        let body = EndToEnd::new(body, named_by_connection(&head));
        let body = body.collect().await.expect("whole");
        let kept = body.trailers().expect("trailers").keys();
        assert_eq!(kept.map(HeaderName::as_str).collect::<Vec<_>>(), ["x-end"]);
    }

    #[test]
    fn what_frames_a_message_cannot_be_named_away() {
        let mut head = HeaderMap::new();
        let lines = ["content-length, host, a", "b"].map(HeaderValue::from_static);
        for line in lines {
            head.append("connection", line);
        }
        assert_eq!(named_by_connection(&head), ["a", "b"]);
    }
}
