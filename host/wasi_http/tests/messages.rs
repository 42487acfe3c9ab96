//! What passes through a component: heads, bodies in both directions, trailers, lengths, ends.

mod support;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use edgeweir_host_chain::{Error, Peer, Request, Response, full};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt as _;
use support::*;

#[tokio::test]
async fn an_untouched_exchange_comes_through_unchanged() {
    let layer = layer(plugin()).await;
    let chain = chain(&layer, |request: Request| async move {
        assert_eq!(request.uri(), "/pass?a=b%20c");
        assert_eq!(request.headers()["host"], "example.test");
        assert_eq!(request.headers()["x-bytes"].as_bytes(), b"\xff\xfe");
        assert_eq!(request.headers().get_all("x-twice").iter().count(), 2);
        assert!(
            request
                .headers()
                .keys()
                .all(|name| !name.as_str().starts_with("spin-"))
        );
        assert_eq!(
            request.extensions().get::<Peer>().map(|p| p.0.port()),
            Some(4711)
        );
        let body = request.into_body().collect().await?.to_bytes();
        assert_eq!(body, "a body");
        Ok(http::Response::builder()
            .status(418)
            .header("content-length", "5")
            .body(full("hello"))?)
    });
    let mut request = request("POST", "/pass?a=b%20c", full("a body"));
    request.headers_mut().insert(
        "x-bytes",
        HeaderValue::from_bytes(b"\xff\xfe").expect("a value"),
    );
    request
        .headers_mut()
        .append("x-twice", HeaderValue::from_static("1"));
    request
        .headers_mut()
        .append("x-twice", HeaderValue::from_static("2"));
    let response = chain.run(request).await.expect("a response");
    assert_eq!(response.status(), StatusCode::IM_A_TEAPOT);
    assert_eq!(response.headers()["content-length"], "5");
    assert_eq!(text(response).await, "hello");
    let meter = layer.meter().expect("metered").snapshot();
    assert_eq!(
        (
            meter.exchanges,
            meter.answered,
            meter.body_in,
            meter.body_out
        ),
        (1, 0, 5, 5)
    );
    // "a body" and "hello", each in and out again.
    assert_eq!(meter.bytes_copied, 22);
    assert_eq!(meter.host_calls["handler.handle"], 1);
    assert_eq!(meter.calls["handle"].calls, 1);
    assert!(meter.memory_now > 0 && meter.memory_peak >= meter.memory_now);
}

#[tokio::test]
async fn a_field_is_added_and_the_length_kept() {
    let layer = layer(plugin()).await;
    let chain = chain(&layer, |_| async {
        Ok(http::Response::builder()
            .header("content-length", "5")
            .body(full("hello"))?)
    });
    let response = chain.run(get("/header")).await.expect("a response");
    assert_eq!(response.headers()["x-guest"], "was here");
    assert_eq!(response.headers()["content-length"], "5");
    assert_eq!(text(response).await, "hello");
}

#[tokio::test]
async fn bodies_stream_both_ways_with_trailers() {
    let layer = layer(plugin()).await;
    let chain = chain(&layer, |request: Request| async move {
        let (mut sender, body) = channel();
        tokio::spawn(async move {
            let collected = request
                .into_body()
                .collect()
                .await
                .expect("the request's body");
            let sum = collected.trailers().and_then(|t| t.get("x-sum")).cloned();
            for chunk in collected.to_bytes().chunks(7) {
                sender
                    .send_data(Bytes::copy_from_slice(chunk))
                    .await
                    .expect("a reader");
            }
            let trailers = [(
                "x-sum".parse().expect("a name"),
                sum.expect("request trailers"),
            )];
            sender
                .send_trailers(trailers.into_iter().collect())
                .await
                .expect("a reader");
        });
        Ok(http::Response::new(body))
    });
    let (mut sender, body) = channel();
    let sending = tokio::spawn(async move {
        for part in ["one ", "two ", "three"] {
            sender.send_data(Bytes::from(part)).await.expect("a reader");
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("13"));
        sender.send_trailers(trailers).await.expect("a reader");
    });
    let response = chain
        .run(request("POST", "/upper-request", body))
        .await
        .expect("a response");
    let collected = response.into_body().collect().await.expect("a whole body");
    assert_eq!(
        collected.trailers().map(|t| t["x-sum"].clone()),
        Some(HeaderValue::from_static("13"))
    );
    assert_eq!(collected.to_bytes(), "ONE TWO THREE");
    sending.await.expect("all was sent");
}

#[tokio::test]
async fn response_parts_arrive_before_the_next_is_made() {
    let layer = layer(plugin()).await;
    let (mut sender, body) = channel();
    let body = std::sync::Mutex::new(Some(body));
    let chain = chain(&layer, move |_| {
        let body = body
            .lock()
            .expect("not poisoned")
            .take()
            .expect("one request");
        async { Ok(http::Response::new(body)) }
    });
    let response = chain.run(get("/upper")).await.expect("a response");
    let mut body = response.into_body();
    for part in ["first", "second"] {
        sender.send_data(Bytes::from(part)).await.expect("a reader");
        let frame = body.frame().await.expect("a frame").expect("no error");
        assert_eq!(frame.into_data().expect("data"), part.to_ascii_uppercase());
    }
    drop(sender);
}

#[tokio::test]
async fn five_megabytes_pass_whole() {
    let layer = layer(plugin()).await;
    let data: Bytes = (0..5 << 20)
        .map(|n: u32| b'a' + (n % 23) as u8)
        .collect::<Vec<_>>()
        .into();
    let sent = data.clone();
    let chain = chain(&layer, move |_| {
        let sent = sent.clone();
        async { Ok(http::Response::new(full(sent))) }
    });
    let response = chain.run(get("/upper")).await.expect("a response");
    let got = bytes(response).await.expect("a whole body");
    assert!(got.eq_ignore_ascii_case(&data) && got[0] == b'A');
}

#[tokio::test]
async fn a_body_cut_upstream_is_an_error_for_guest_and_client() {
    let layer = layer(plugin()).await;
    let chain = chain(&layer, |_| async {
        let (mut sender, body) = channel();
        tokio::spawn(async move {
            sender
                .send_data(Bytes::from("some"))
                .await
                .expect("a reader");
            sender.abort("the connection broke".into());
        });
        Ok(http::Response::new(body))
    });
    let (status, said) = exchange(&chain, get("/swallow")).await;
    assert_eq!(
        (status, said.as_str()),
        (200, "4 error ErrorCode::HttpResponseIncomplete")
    );
    for path in ["/upper", "/pass", "/header"] {
        let response = chain.clone().run(get(path)).await.expect("a response");
        assert!(
            bytes(response).await.is_err(),
            "{path}: a cut body must not look whole"
        );
    }
}

#[tokio::test]
async fn a_request_cut_by_the_client_is_an_error_for_the_origin() {
    let layer = layer(plugin()).await;
    for path in ["/pass", "/upper-request"] {
        let (cut, seen) = tokio::sync::oneshot::channel();
        let cut = std::sync::Mutex::new(Some(cut));
        let chain = chain(&layer, move |request: Request| {
            let cut = cut
                .lock()
                .expect("not poisoned")
                .take()
                .expect("one request");
            async move {
                let _ = cut.send(request.into_body().collect().await.is_err());
                Ok(http::Response::new(full("")))
            }
        });
        let (mut sender, body) = channel();
        tokio::spawn(async move {
            sender
                .send_data(Bytes::from("some"))
                .await
                .expect("a reader");
            sender.abort("the client left".into());
        });
        let _ = chain.run(request("POST", path, body)).await;
        assert_eq!(seen.await, Ok(true), "{path}");
    }
}

#[tokio::test]
async fn a_slow_reader_holds_the_origin_back() {
    let layer = layer(plugin()).await;
    let made = Arc::new(AtomicUsize::new(0));
    let count = made.clone();
    let chain = chain(&layer, move |_| {
        let count = count.clone();
        async move {
            let (mut sender, body) = channel();
            tokio::spawn(async move {
                while sender.send_data(vec![b'x'; 64 << 10].into()).await.is_ok() {
                    count.fetch_add(64 << 10, Ordering::Relaxed);
                }
            });
            Ok(http::Response::new(body))
        }
    });
    for path in ["/upper", "/pass"] {
        made.store(0, Ordering::Relaxed);
        let response = chain.clone().run(get(path)).await.expect("a response");
        let mut body = response.into_body();
        body.frame().await.expect("a frame").expect("no error");
        tokio::time::sleep(Duration::from_millis(200)).await;
        let ahead = made.load(Ordering::Relaxed);
        assert!(
            ahead < 1 << 20,
            "{path}: {ahead} bytes were read ahead of a reader that stopped"
        );
    }
}

#[tokio::test]
async fn responses_without_content_keep_their_length_field() {
    let layer = layer(plugin()).await;
    let chain = chain(&layer, |request: Request| async move {
        let status = if request.method() == "HEAD" { 200 } else { 304 };
        Ok(http::Response::builder()
            .status(status)
            .header("content-length", "1234")
            .body(full(""))?)
    });
    for (method, path) in [("HEAD", "/pass"), ("HEAD", "/header"), ("GET", "/pass")] {
        let response = chain
            .clone()
            .run(request(method, path, full("")))
            .await
            .expect("a response");
        assert_eq!(
            response.headers()["content-length"],
            "1234",
            "{method} {path}"
        );
        assert_eq!(text(response).await, "", "{method} {path}");
    }
}

#[tokio::test]
async fn a_body_that_breaks_its_content_length_is_an_error() {
    let layer = layer(plugin()).await;
    let response = hello(&layer).run(get("/short")).await.expect("a response");
    assert!(bytes(response).await.is_err());
}

#[tokio::test]
async fn a_request_body_is_echoed_while_it_is_sent() {
    let layer = layer(plugin()).await;
    let (mut sender, body) = channel();
    let response = hello(&layer)
        .run(request("POST", "/echo", body))
        .await
        .expect("a response");
    let mut body = response.into_body();
    for part in ["ping", "pong"] {
        sender.send_data(Bytes::from(part)).await.expect("a reader");
        let frame = body.frame().await.expect("a frame").expect("no error");
        assert_eq!(frame.into_data().expect("data"), part);
    }
}

#[tokio::test]
async fn the_next_layers_error_reaches_guest_and_server() {
    let layer = layer(plugin()).await;
    let refuses = chain(&layer, |_| async {
        Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into())
    });
    let (_, said) = exchange(&refuses, get("/status")).await;
    assert_eq!(said, "ErrorCode::ConnectionRefused");
    let error = refuses.run(get("/pass")).await.expect_err("an error");
    assert!(
        error.downcast_ref::<std::io::Error>().is_some(),
        "the origin's own error: {error}"
    );
}

#[tokio::test]
async fn heads_beyond_the_limits_cost_one_request() {
    let layer = layer(plugin()).await;
    let mut many = get("/pass");
    for n in 0..2000 {
        many.headers_mut().append("x-many", HeaderValue::from(n));
    }
    let (status, _) = exchange(&hello(&layer), many).await;
    assert_eq!(status, 431);
    let mut long = get("/pass");
    long.headers_mut().insert(
        "x-long",
        HeaderValue::try_from("x".repeat(300 << 10)).expect("a value"),
    );
    let (status, _) = exchange(&hello(&layer), long).await;
    assert_eq!(status, 431);
    let chain = chain(&layer, |_| async {
        let mut response: Response = http::Response::new(full(""));
        for n in 0..2000 {
            response
                .headers_mut()
                .append("x-many", HeaderValue::from(n));
        }
        Ok(response)
    });
    let (_, said) = exchange(&chain, get("/status")).await;
    assert!(said.contains("HttpResponseHeaderSectionSize"), "{said}");
    let (_, said) = exchange(&chain, get("/large-header")).await;
    assert!(said.contains("SizeExceeded"), "{said}");
}

#[tokio::test]
async fn empty_frames_and_an_empty_body_are_no_trouble() {
    let layer = layer(plugin()).await;
    let chain = chain(&layer, |_| async {
        let frames = ["", "a", "", "", "b", ""].map(|part| Frame::data(Bytes::from(part)));
        Ok(http::Response::new(Frames(frames.into()).boxed_unsync()))
    });
    assert_eq!(exchange(&chain, get("/upper")).await, (200, "AB".into()));
    assert_eq!(exchange(&chain, get("/pass")).await, (200, "ab".into()));
    let empty = support::chain(&layer, |_| async { Ok(http::Response::new(full(""))) });
    assert_eq!(exchange(&empty, get("/upper")).await, (200, String::new()));
}

/// The frames of a body, ready at once.
struct Frames(std::collections::VecDeque<Frame<Bytes>>);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }
}
