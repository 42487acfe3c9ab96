//! An origin that does as an exchange says, and takes down what reached it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use anyhow::Result;
use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpListener;

use crate::message::{Answer, Asked, Body, End, fields_of, in_pieces, map_of, whole};

/// By this field of a request the origin knows which exchange it belongs to.
pub const NUMBER: HeaderName = HeaderName::from_static("x-exchange");

/// What to answer, by the number of the exchange.
pub type Scripts = Arc<RwLock<HashMap<u64, Arc<Answer>>>>;

/// An origin that serves until the program ends.
pub struct Origin {
    /// Where.
    pub address: SocketAddr,
    log: Log,
}

type Log = Arc<Mutex<HashMap<u64, Vec<Asked>>>>;

impl Origin {
    /// Starts it on the runtime of the caller.
    pub async fn start(scripts: Scripts) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let log = Log::default();
        let logging = log.clone();
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    continue;
                };
                let _ = stream.set_nodelay(true);
                let (scripts, log) = (scripts.clone(), logging.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let (scripts, log) = (scripts.clone(), log.clone());
                        async move { Ok::<_, Infallible>(answer(request, &scripts, &log).await) }
                    });
                    // A connection that ends early is the proxy's affair: what came is in the log.
                    let mut builder = Builder::new(TokioExecutor::new());
                    builder.http1().max_headers(1_000);
                    let _ = builder
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Ok(Self { address, log })
    }

    /// What reached it for an exchange.
    pub fn received(&self, number: u64) -> Vec<Asked> {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.remove(&number).unwrap_or_default()
    }
}

async fn answer(request: Request<Incoming>, scripts: &Scripts, log: &Log) -> Response<Body> {
    let (head, mut body) = request.into_parts();
    let number = head
        .headers
        .get(NUMBER)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let mut asked = Asked {
        method: head.method.to_string(),
        target: head
            .uri
            .path_and_query()
            .map(ToString::to_string)
            .unwrap_or_default(),
        fields: fields_of(&head.headers),
        ..Asked::default()
    };
    asked.authority = asked.text("host").unwrap_or_default();
    let mut content = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        match frame.into_data() {
            Ok(data) => content.extend_from_slice(&data),
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    asked.trailers = fields_of(&trailers);
                }
            }
        }
    }
    if !content.is_empty() {
        asked.body = vec![content.into()];
    }
    let script = number.and_then(|number| {
        let scripts = scripts.read().unwrap_or_else(PoisonError::into_inner);
        scripts.get(&number).cloned()
    });
    let response = match &script {
        Some(script) => scripted(script, &asked),
        None => {
            let mut response = Response::new(whole(Full::new(Bytes::from("no such exchange\n"))));
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    };
    if let Some(number) = number {
        log.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(number)
            .or_default()
            .push(asked);
    }
    response
}

/// The script's response, or a 304 to a condition that its validators meet.
fn scripted(script: &Answer, asked: &Asked) -> Response<Body> {
    let mut fields = map_of(&script.fields);
    for name in [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::CONTENT_LENGTH,
    ] {
        fields.remove(name);
    }
    if script.decoded {
        // The codings are of bytes that are not known: what is sent is the text.
        fields.remove(header::CONTENT_ENCODING);
    }
    let known = script.status == 200
        && matches!(asked.method.as_str(), "GET" | "HEAD")
        && match asked.text("if-none-match") {
            // RFC 9110 §13.1.2: compared weakly, and it outweighs If-Modified-Since.
            Some(tags) => script.text("etag").is_some_and(|tag| {
                let plain = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
                tags.split(',').any(|it| plain(it) == plain(&tag))
            }),
            None => match (
                asked.text("if-modified-since"),
                script.text("last-modified"),
            ) {
                (Some(since), Some(modified)) => since == modified,
                _ => false,
            },
        };
    let bodiless = known || asked.method == "HEAD" || matches!(script.status, 204 | 304);
    let body: Body = if bodiless {
        whole(Empty::new())
    } else {
        match script.body.as_slice() {
            pieces if script.cut => {
                // With the length it was to have, where that was said: then the cut shows by it.
                let sent: usize = pieces.iter().map(Bytes::len).sum();
                let length = script.text("content-length");
                if let Some(length) = length.and_then(|it| it.parse::<usize>().ok())
                    && length > sent
                {
                    fields.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
                }
                in_pieces(pieces, End::Cut)
            }
            [] if script.trailers.is_empty() => whole(Empty::new()),
            [one] if script.trailers.is_empty() => whole(Full::new(one.clone())),
            pieces => {
                let trailers = map_of(&script.trailers);
                if !trailers.is_empty() {
                    let names: Vec<&str> = trailers.keys().map(HeaderName::as_str).collect();
                    if let Ok(names) = HeaderValue::from_str(&names.join(", ")) {
                        fields.insert(header::TRAILER, names);
                    }
                }
                in_pieces(pieces, End::Whole(trailers))
            }
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = match known {
        true => StatusCode::NOT_MODIFIED,
        false => StatusCode::from_u16(script.status).unwrap_or(StatusCode::OK),
    };
    if known {
        // RFC 9110 §15.4.5: a 304 says what a 200 would have said of these; the rest describes a body that is not sent.
        fields.remove(header::CONTENT_TYPE);
    } else if bodiless
        && asked.method == "HEAD"
        && script.trailers.is_empty()
        && script.status != 204
    {
        let length: usize = script.body.iter().map(Bytes::len).sum();
        fields.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    *response.headers_mut() = fields;
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Client;

    async fn told(script: Answer) -> Answer {
        let scripts = Scripts::new(HashMap::from([(1, Arc::new(script))]).into());
        let origin = Origin::start(scripts).await.expect("it starts");
        let asked = Asked {
            method: "GET".to_owned(),
            target: "/".to_owned(),
            fields: vec![(NUMBER.to_string(), b"1".to_vec())],
            ..Asked::default()
        };
        let answer = Client::new(origin.address).send(&asked).await;
        answer.expect("an answer")
    }

    fn script(fields: &[(&str, &str)], body: &str) -> Answer {
        let lines = fields.iter();
        let lines = lines.map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
        let piece = (!body.is_empty()).then(|| Bytes::from(body.to_owned()));
        Answer {
            status: 200,
            fields: lines.collect(),
            body: piece.into_iter().collect(),
            ..Answer::default()
        }
    }

    #[tokio::test]
    async fn a_body_that_was_cut_is_cut_again() {
        for (name, fields, body) in [
            ("in chunks", &[][..], "a part"),
            ("of a length", &[("content-length", "9")], "a part"),
            ("before its first byte", &[("content-length", "9")], ""),
            ("at its length", &[("content-length", "6")], "a part"),
        ] {
            for cut in [true, false] {
                let answer = told(Answer {
                    cut,
                    ..script(fields, body)
                });
                let answer = answer.await;
                assert_eq!((answer.status, answer.cut), (200, cut), "{name}");
                assert_eq!(answer.whole(), body.as_bytes(), "{name}");
            }
        }
    }

    #[tokio::test]
    async fn a_text_is_sent_without_the_codings_it_had() {
        let answer = told(Answer {
            decoded: true,
            ..script(
                &[("content-encoding", "gzip"), ("vary", "accept-encoding")],
                "a weir",
            )
        });
        let answer = answer.await;
        assert_eq!(answer.text("content-encoding"), None);
        assert_eq!(answer.text("vary").as_deref(), Some("accept-encoding"));
        assert_eq!(answer.whole(), b"a weir");
    }
}
