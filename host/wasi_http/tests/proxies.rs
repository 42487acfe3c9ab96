//! Proxies of wasi:http 0.2 as layers: the end of a chain, and a filter in front of the next layer.

mod support;

use std::time::{Duration, Instant};

use edgeweir_host_chain::{Error, Request, full};
use edgeweir_host_wasi_http::{Limits, OnTrap, Plugin};
use http_body_util::BodyExt as _;
use support::*;

fn proxy(limits: Limits) -> Plugin {
    Plugin {
        component: build("proxy"),
        limits,
        ..plugin()
    }
}

/// Says what it was asked, and gives back what it was sent.
async fn echo(request: Request) -> Result<edgeweir_host_chain::Response, Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let field = |name: &str| {
        parts
            .headers
            .get(name)
            .map_or("-".into(), |it| it.to_str().unwrap_or("?").to_owned())
    };
    let text = format!(
        "{} {} host={} x-up={} client={} body={}",
        parts.method,
        parts.uri,
        field("host"),
        field("x-up"),
        field("spin-client-addr"),
        String::from_utf8_lossy(&body),
    );
    Ok(http::Response::new(full(text)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_answers_and_forwards() {
    let layer = layer(proxy(Limits::default())).await;
    let chain = chain(&layer, echo);
    assert_eq!(
        exchange(&chain, get("/")).await,
        (200, "answered by the proxy".to_owned())
    );
    let response = chain
        .clone()
        .run(request("POST", "/forward/a?b", full("sent")))
        .await
        .unwrap();
    assert_eq!(response.headers()["x-down"], "1");
    assert_eq!(
        text(response).await,
        "POST /forward/a?b host=example.test x-up=1 client=- body=sent"
    );
    // Whom it may not reach it does not reach by the next layer either: that is another host's.
    let (status, told) = exchange(&chain, get("/outside")).await;
    assert_eq!(
        (status, told.as_str()),
        (200, "ErrorCode::HttpRequestDenied")
    );
    // A guest goes on for a moment after its last byte.
    let until = Instant::now() + Duration::from_secs(10);
    let meter = loop {
        let meter = layer.meter().unwrap().snapshot();
        let ended = meter.calls.get("handle").map_or(0, |it| it.calls);
        if (ended == 3 && meter.memory_now == 0) || Instant::now() > until {
            break meter;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!((meter.exchanges, meter.answered, meter.traps), (3, 2, 0));
    assert_eq!(meter.calls["handle"].calls, 3);
    assert!(meter.bytes_copied > meter.body_out, "{meter:?}");
    assert!(meter.instances >= 4, "one each, and one at the start");
    assert_eq!(meter.memory_now, 0, "they are gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_in_an_application_has_no_next_layer() {
    let layer = layer(proxy(Limits::default())).await;
    let chain = chain(&layer, echo);
    let denied = "ErrorCode::HttpRequestDenied";
    for (path, status) in [("/outside", 200), ("/forward/a", 502)] {
        let told = exchange(&chain, within(get(path))).await;
        assert_eq!(told, (status, denied.to_owned()), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_body_streams_through() {
    let layer = layer(proxy(Limits::default())).await;
    let large: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    let answer = large.clone();
    let chain = chain(&layer, move |_| {
        let answer = answer.clone();
        async move { Ok(http::Response::new(full(answer))) }
    });
    let response = chain.run(get("/forward")).await.unwrap();
    assert!(bytes(response).await.unwrap() == large);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_wrong_costs_one_exchange() {
    let limits = Limits {
        deadline: Duration::from_millis(200),
        timeout: Duration::from_secs(5),
        ..Limits::default()
    };
    let layer = layer(proxy(limits)).await;
    let chain = hello(&layer);
    for (name, path, want) in [
        ("a trap", "/trap", 500),
        ("no end", "/spin", 500),
        ("no answer", "/silent", 500),
        ("an answer that is none", "/interim", 502),
        ("fine", "/", 200),
    ] {
        let began = Instant::now();
        assert_eq!(exchange(&chain, get(path)).await.0, want, "{name}");
        assert!(began.elapsed() < Duration::from_secs(4), "{name}");
    }
    assert!(
        chain.clone().run(get("/error")).await.is_err(),
        "its error is an error"
    );
    let meter = layer.meter().unwrap().snapshot();
    assert_eq!(meter.traps, 2, "{:?}", meter.last_trap);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trap_passes_on_where_that_is_asked() {
    let layer = layer(Plugin {
        on_trap: OnTrap::PassThrough,
        ..proxy(Limits::default())
    })
    .await;
    assert_eq!(
        exchange(&hello(&layer), get("/trap")).await,
        (200, "hello".to_owned())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_a_trap_ends_is_not_whole() {
    let layer = layer(proxy(Limits::default())).await;
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let chain = chain(&layer, move |request| {
        // As a connection does, which outlives whoever waits for its answer.
        let tell = tell.clone();
        let reading = tokio::spawn(async move {
            let body = request.into_body().collect().await;
            let _ = tell.send(body.map(|body| body.to_bytes()));
        });
        async move {
            reading.await?;
            Ok(http::Response::new(full("")))
        }
    });
    let response = chain.clone().run(get("/trap-later")).await.unwrap();
    assert_eq!(response.status(), 200);
    let error = bytes(response).await.expect_err("it was cut");
    assert!(error.to_string().contains("trapped"), "{error}");
    let sending = request("POST", "/trap-sending", full(""));
    assert_eq!(exchange(&chain, sending).await.0, 500);
    let upload = tokio::time::timeout(Duration::from_secs(10), told.recv())
        .await
        .expect("the upload ends")
        .expect("the next layer was asked");
    let error = upload.expect_err("it was cut");
    assert!(error.to_string().contains("trapped"), "{error}");
}
