//! A layer that writes down what passes it.

use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::Result;
use async_trait::async_trait;
use bytes::Bytes;
use edgeweir_host_chain::{Body, Error, Layer, Next, Request, Response};
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;

use crate::har::{Writer, now_ms};
use crate::message::{Answer, Asked, Exchange, Fields, fields_of};

/// Exchanges that wait for the disk; more are left out, so that traffic never waits for it.
const WAITING: usize = 1_024;

/// What is written and what is not.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Bytes of the file.
    pub file: u64,
    /// Bytes of one body; of larger ones only the head is kept.
    pub body: usize,
    /// Fields whose values are not written, in lower case.
    pub redacts: Vec<String>,
}

/// A request's fields as the client sent them, before the host added its own; an extension of a request. They are what is
/// recorded: sent again, the host adds its own again.
#[derive(Clone, Debug)]
pub struct Received(pub HeaderMap);

/// The layer.
pub struct Recorder {
    sender: SyncSender<Exchange>,
    lost: Arc<AtomicU64>,
    body: usize,
}

/// The other end, until it has a file: what passes meanwhile waits for it.
pub struct Waiting {
    exchanges: Receiver<Exchange>,
    lost: Arc<AtomicU64>,
    bounds: Bounds,
}

/// The file at the other end.
pub struct Recording {
    writer: JoinHandle<Outcome>,
    lost: Arc<AtomicU64>,
}

/// What came of a recording.
#[derive(Clone, Default, Debug)]
pub struct Outcome {
    /// Exchanges in the file.
    pub written: u64,
    /// Exchanges left out: the file was full, or the disk too slow.
    pub left_out: u64,
    /// Why writing ended early.
    pub error: Option<String>,
}

impl Recorder {
    /// One that has no file yet: that is for when everything else has started.
    pub fn new(bounds: Bounds) -> (Arc<Self>, Waiting) {
        let (sender, exchanges) = sync_channel(WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let recorder = Arc::new(Self {
            sender,
            lost: lost.clone(),
            body: bounds.body,
        });
        let waiting = Waiting {
            exchanges,
            lost,
            bounds,
        };
        (recorder, waiting)
    }
}

impl Waiting {
    /// Writes into a new file until the last copy of the recorder is dropped.
    pub fn start(self, file: &Path) -> Result<Recording> {
        let Self {
            exchanges,
            lost,
            bounds,
        } = self;
        let writer = Writer::create(file, bounds.file)?;
        let writer = std::thread::spawn(move || write(writer, &exchanges, &bounds.redacts));
        Ok(Recording { writer, lost })
    }
}

impl Recording {
    /// Waits until everything is written; all copies of the recorder have to be gone.
    pub fn finish(self) -> Outcome {
        let mut outcome = self.writer.join().unwrap_or_default();
        outcome.left_out += self.lost.load(Relaxed);
        outcome
    }
}

fn write(mut writer: Writer, exchanges: &Receiver<Exchange>, redacts: &[String]) -> Outcome {
    let mut outcome = Outcome::default();
    let mut full = false;
    for exchange in exchanges {
        if full || outcome.error.is_some() {
            outcome.left_out += 1;
            continue;
        }
        match writer.append(&exchange, redacts) {
            Ok(true) => outcome.written += 1,
            Ok(false) => {
                full = true;
                outcome.left_out += 1;
            }
            Err(error) => {
                outcome.error = Some(format!("{error:#}"));
                outcome.left_out += 1;
            }
        }
    }
    outcome
}

#[async_trait]
impl Layer for Recorder {
    fn name(&self) -> &str {
        "record"
    }

    async fn handle(&self, request: Request, next: Next) -> Result<Response, Error> {
        let (began, started_ms) = (Instant::now(), now_ms());
        let (mut parts, body) = request.into_parts();
        let received = parts.extensions.remove::<Received>();
        let received = received.as_ref().map_or(&parts.headers, |it| &it.0);
        let asked = Asked {
            method: parts.method.to_string(),
            authority: parts
                .uri
                .authority()
                .map(ToString::to_string)
                .unwrap_or_default(),
            target: parts
                .uri
                .path_and_query()
                .map_or("/".to_owned(), ToString::to_string),
            fields: fields_of(received),
            ..Asked::default()
        };
        let sent = Arc::new(Mutex::new(Part::default()));
        let body = Tee::over(body, sent.clone(), self.body, None);
        let response = next.run(Request::from_parts(parts, body)).await?;
        let (parts, body) = response.into_parts();
        let ending = Ending {
            asked,
            sent,
            answer: Answer {
                status: parts.status.as_u16(),
                fields: fields_of(&parts.headers),
                ..Answer::default()
            },
            began,
            started_ms,
            sender: self.sender.clone(),
            lost: self.lost.clone(),
        };
        let body = Tee::over(body, Arc::default(), self.body, Some(Box::new(ending)));
        Ok(Response::from_parts(parts, body))
    }
}

/// What is kept of a body.
#[derive(Default)]
struct Part {
    pieces: Vec<Bytes>,
    size: usize,
    trailers: Fields,
    ended: bool,
    left_out: bool,
}

/// What is still to be done when a response has ended.
struct Ending {
    asked: Asked,
    sent: Arc<Mutex<Part>>,
    answer: Answer,
    began: Instant,
    started_ms: u64,
    sender: SyncSender<Exchange>,
    lost: Arc<AtomicU64>,
}

impl Ending {
    fn end(mut self, received: &mut Part) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        self.asked.body = std::mem::take(&mut sent.pieces);
        self.asked.trailers = std::mem::take(&mut sent.trailers);
        self.asked.left_out = sent.left_out;
        drop(sent);
        self.answer.body = std::mem::take(&mut received.pieces);
        self.answer.trailers = std::mem::take(&mut received.trailers);
        self.answer.cut = !received.ended;
        self.answer.left_out = received.left_out;
        let exchange = Exchange {
            started_ms: self.started_ms,
            took_ms: self.began.elapsed().as_secs_f64() * 1e3,
            asked: self.asked,
            answer: self.answer,
        };
        if self.sender.try_send(exchange).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
    }
}

/// A body that passes, and is kept.
struct Tee {
    inner: Body,
    part: Arc<Mutex<Part>>,
    most: usize,
    ending: Option<Box<Ending>>,
}

impl Tee {
    fn over(inner: Body, part: Arc<Mutex<Part>>, most: usize, ending: Option<Box<Ending>>) -> Body {
        Self {
            inner,
            part,
            most,
            ending,
        }
        .boxed_unsync()
    }

    fn keep(&self, frame: &Frame<Bytes>) {
        let mut part = self.part.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(data) = frame.data_ref() {
            part.size += data.len();
            if part.size > self.most {
                part.left_out = true;
                part.pieces.clear();
            } else if !data.is_empty() {
                part.pieces.push(data.clone());
            }
        } else if let Some(trailers) = frame.trailers_ref() {
            part.trailers = fields_of(trailers);
        }
    }

    fn ended(&self) {
        self.part
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .ended = true;
    }
}

impl http_body::Body for Tee {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.keep(frame);
                if self.inner.is_end_stream() {
                    self.ended();
                }
            }
            Poll::Ready(None) => self.ended(),
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Tee {
    fn drop(&mut self) {
        if self.inner.is_end_stream() {
            self.ended();
        }
        if let Some(ending) = self.ending.take() {
            let mut part = self.part.lock().unwrap_or_else(PoisonError::into_inner);
            ending.end(&mut part);
        }
    }
}

#[cfg(test)]
mod tests {
    use edgeweir_host_chain::{empty, full};
    use http_body_util::Channel;

    use super::*;
    use crate::har;

    fn bounds(redacts: &[&str]) -> Bounds {
        Bounds {
            file: 1 << 20,
            body: 10,
            redacts: redacts.iter().map(|it| (*it).to_owned()).collect(),
        }
    }

    /// Answers with what it was sent, and a trailer.
    struct Echo;

    #[async_trait]
    impl Layer for Echo {
        fn name(&self) -> &str {
            "echo"
        }

        async fn handle(&self, request: Request, _: Next) -> Result<Response, Error> {
            let whole = request.into_body().collect().await?.to_bytes();
            let (mut sender, body) = Channel::<Bytes, Error>::new(4);
            tokio::spawn(async move {
                let _ = sender.send(Frame::data(whole)).await;
                let mut trailers = HeaderMap::new();
                trailers.insert("x-sum", http::HeaderValue::from_static("1"));
                let _ = sender.send(Frame::trailers(trailers)).await;
            });
            Ok(Response::new(body.boxed_unsync()))
        }
    }

    fn request(body: Body) -> Request {
        let request = http::Request::builder()
            .method("POST")
            .uri("http://app.test/a?b")
            .header("cookie", "secret");
        request.body(body).expect("a request")
    }

    #[tokio::test]
    async fn what_passes_is_in_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tape.har");
        let (recorder, waiting) = Recorder::new(bounds(&har::SECRET));
        let recording = waiting.start(&file).expect("started");
        let chain = Next::new(vec![recorder.clone(), Arc::new(Echo)]);
        for body in ["small", "more than ten bytes"] {
            let response = chain
                .clone()
                .run(request(full(body)))
                .await
                .expect("a response");
            let whole = response.into_body().collect().await.expect("a body");
            assert_eq!(whole.to_bytes(), body);
        }
        // A client that leaves.
        drop(
            chain
                .clone()
                .run(request(empty()))
                .await
                .expect("a response"),
        );
        drop((recorder, chain));
        let outcome = tokio::task::spawn_blocking(|| recording.finish())
            .await
            .expect("finished");
        assert_eq!((outcome.written, outcome.left_out), (3, 0), "{outcome:?}");
        let all = har::read(&file).expect("read");
        assert_eq!(all[0].asked.target, "/a?b");
        assert_eq!(all[0].asked.authority, "app.test");
        assert_eq!(
            all[0].asked.text("cookie").as_deref(),
            Some("redacted=[redacted]")
        );
        assert_eq!(all[0].answer.whole(), b"small");
        assert_eq!(
            all[0].answer.trailers,
            [("x-sum".to_owned(), b"1".to_vec())]
        );
        assert_eq!(all[0].asked.body, ["small"]);
        assert!(!all[0].asked.left_out);
        assert!(!all[0].answer.cut && !all[0].answer.left_out);
        assert!(all[1].asked.left_out && all[1].asked.body.is_empty());
        assert!(all[1].answer.left_out && !all[1].answer.cut);
        assert!(all[2].answer.cut);
    }

    #[tokio::test]
    async fn what_passes_before_there_is_a_file_is_in_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tape.har");
        let (recorder, waiting) = Recorder::new(bounds(&[]));
        let chain = Next::new(vec![recorder.clone(), Arc::new(Echo)]);
        drop(
            chain
                .clone()
                .run(request(empty()))
                .await
                .expect("a response"),
        );
        assert!(!file.exists());
        let recording = waiting.start(&file).expect("started");
        drop((recorder, chain));
        let outcome = tokio::task::spawn_blocking(|| recording.finish()).await;
        assert_eq!(outcome.expect("finished").written, 1);
    }

    #[tokio::test]
    async fn what_the_host_added_to_a_request_is_not_recorded() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tape.har");
        let (recorder, waiting) = Recorder::new(bounds(&[]));
        let recording = waiting.start(&file).expect("started");
        let chain = Next::new(vec![recorder.clone(), Arc::new(Echo)]);
        let mut request = request(empty());
        let received = Received(request.headers().clone());
        request.extensions_mut().insert(received);
        let added = http::HeaderValue::from_static("192.0.2.1");
        request.headers_mut().insert("x-forwarded-for", added);
        drop(chain.clone().run(request).await.expect("a response"));
        drop((recorder, chain));
        tokio::task::spawn_blocking(|| recording.finish())
            .await
            .expect("finished");
        let all = har::read(&file).expect("read");
        let names = all[0].asked.fields.iter().map(|(name, _)| name.as_str());
        assert_eq!(names.collect::<Vec<_>>(), ["cookie"]);
    }
}
