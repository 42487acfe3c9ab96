//! Guests and their instances: state, concurrency, what they may call, and what happens when they fail.

mod support;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use edgeweir_host_chain::{Error, Layer, Next, Peer, Request, Unreached, full};
use edgeweir_host_wasi_http::{Limits, OnTrap, Outbound, Plugin, Runtime, RuntimeOptions, load};
use http::HeaderValue;
use http_body::Frame;
use http_body_util::BodyExt as _;
use support::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn limited(limits: Limits) -> Plugin {
    Plugin { limits, ..plugin() }
}

#[tokio::test]
async fn a_guest_may_answer_itself() {
    let layer = layer(plugin()).await;
    let chain = chain(&layer, |_| async { Err("the origin was asked".into()) });
    assert_eq!(
        exchange(&chain, get("/reply")).await,
        (200, "a reply of its own\n".into())
    );
    let meter = layer.meter().expect("metered").snapshot();
    assert_eq!((meter.exchanges, meter.answered), (1, 1));
    assert!(!meter.host_calls.contains_key("handler.handle"));
}

#[tokio::test]
async fn memory_survives_between_requests_until_the_instance_is_replaced() {
    let layer = layer(limited(Limits {
        requests: 3,
        ..Limits::default()
    }))
    .await;
    let chain = hello(&layer);
    let mut counts = Vec::new();
    for _ in 0..5 {
        counts.push(exchange(&chain, get("/count")).await.1);
    }
    assert_eq!(counts, ["1", "2", "3", "1", "2"]);
    assert_eq!(layer.meter().expect("metered").snapshot().instances, 2);
}

#[tokio::test]
async fn waiting_requests_share_an_instance() {
    let layer = layer(limited(Limits {
        instances: 1,
        ..Limits::default()
    }))
    .await;
    let chain = hello(&layer);
    let started = Instant::now();
    let all: Vec<_> = (0..16)
        .map(|_| {
            tokio::spawn({
                let chain = chain.clone();
                async move { exchange(&chain, get("/wait?300")).await }
            })
        })
        .collect();
    for one in all {
        assert_eq!(one.await.expect("an exchange").1, "waited");
    }
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "they waited one after the other"
    );
    let meter = layer.meter().expect("metered").snapshot();
    assert_eq!((meter.instances, meter.exchanges), (1, 16));
}

#[tokio::test]
async fn every_call_of_next_belongs_to_its_own_exchange() {
    let layer = layer(limited(Limits {
        instances: 1,
        ..Limits::default()
    }))
    .await;
    let chain = chain(&layer, |request: Request| async move {
        let Peer(address) = *request
            .extensions()
            .get::<Peer>()
            .expect("the client's address");
        tokio::time::sleep(Duration::from_millis(u64::from(address.port() * 7 % 40))).await;
        Ok(http::Response::new(full(format!(
            "{} {address}",
            request.uri()
        ))))
    });
    let all: Vec<_> = (0..300u16)
        .map(|n| {
            let chain = chain.clone();
            tokio::spawn(async move {
                let mut request = get(&format!("/{}", if n % 2 == 0 { "pass" } else { "header" }));
                request
                    .extensions_mut()
                    .insert(Peer(([192, 0, 2, 1], n).into()));
                let want = format!("{} 192.0.2.1:{n}", request.uri());
                (exchange(&chain, request).await.1, want)
            })
        })
        .collect();
    for one in all {
        let (got, want) = one.await.expect("an exchange");
        assert_eq!(got, want);
    }
}

#[tokio::test]
async fn next_may_be_called_twice_and_after_the_answer() {
    let layer = layer(plugin()).await;
    let paths = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = paths.clone();
    let chain = chain(&layer, move |request: Request| {
        seen.lock()
            .expect("not poisoned")
            .push(request.uri().path().to_owned());
        async { Ok(http::Response::builder().status(203).body(full(""))?) }
    });
    assert_eq!(
        exchange(&chain, get("/twice")).await,
        (200, "203 203".into())
    );
    assert_eq!(exchange(&chain, get("/background")).await.0, 200);
    for _ in 0..100 {
        if paths.lock().expect("not poisoned").len() == 3 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(
        *paths.lock().expect("not poisoned"),
        ["/twice", "/second", "/refresh"]
    );
}

#[tokio::test]
async fn a_response_made_up_below_is_an_error_to_the_guest() {
    let layer = layer(plugin()).await;
    for (made, code) in [
        (Unreached::Refused, "ErrorCode::ConnectionRefused"),
        (Unreached::ConnectTimeout, "ErrorCode::ConnectionTimeout"),
        (Unreached::Closed, "ErrorCode::ConnectionTerminated"),
        (Unreached::Timeout, "ErrorCode::HttpResponseTimeout"),
        (Unreached::Full, "ErrorCode::ConnectionLimitReached"),
        (Unreached::Unavailable, "ErrorCode::DestinationUnavailable"),
    ] {
        let chain = chain(&layer, move |_| async move {
            let mut response = http::Response::builder()
                .status(502)
                .body(full("made up"))?;
            response.extensions_mut().insert(made);
            Ok(response)
        });
        assert_eq!(exchange(&chain, get("/status")).await, (200, code.into()));
        // A guest that hands the error on is answered for with the response it never saw.
        let response = chain.run(get("/pass")).await.expect("a response");
        assert_eq!(response.extensions().get(), Some(&made));
        assert_eq!(text(response).await, "made up");
    }
}

#[tokio::test]
async fn the_clients_address_cannot_be_forged() {
    let layer = layer(plugin()).await;
    let mut request = get("/address");
    request
        .headers_mut()
        .append("spin-client-addr", HeaderValue::from_static("10.0.0.1:1"));
    assert_eq!(exchange(&hello(&layer), request).await.1, "192.0.2.7:4711");
}

#[tokio::test]
async fn guests_see_their_target_environment_and_variables() {
    let layer = layer(plugin()).await;
    let chain = hello(&layer);
    for (path, want) in [
        ("/environment?GREETING", "good day"),
        ("/environment?PATH", ""),
        ("/variable?answer", "42"),
        (
            "/variable?missing",
            "Error::Undefined(\"no variable named `missing`\")",
        ),
        ("/target?a=b", "Some(Scheme::Http) example.test /target?a=b"),
    ] {
        assert_eq!(exchange(&chain, get(path)).await.1, want, "{path}");
    }
    let (status, said) = exchange(&chain, get("/variable?Bad")).await;
    assert!(status == 404 && said.contains("InvalidName"), "{said}");
}

#[tokio::test]
async fn guests_read_the_files_they_are_shown_and_no_others() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("docs")).expect("made");
    std::fs::write(folder.path().join("docs/a.txt"), "shown").expect("written");
    let shown = Plugin {
        files: Some(Arc::new(folder)),
        ..plugin()
    };
    let (shown, none) = (layer(shown).await, layer(plugin()).await);
    let (shown, none) = (hello(&shown), hello(&none));
    for (chain, path, want) in [
        (&shown, "/file?/docs/a.txt", (200, "shown")),
        (&shown, "/file?docs/a.txt", (200, "shown")),
        (&shown, "/file?/docs/b.txt", (404, "NotFound")),
        (
            &shown,
            "/file?/docs/../../etc/passwd",
            (404, "PermissionDenied"),
        ),
        (&shown, "/write?/docs/a.txt", (403, "PermissionDenied")),
        (&shown, "/write?/new.txt", (403, "PermissionDenied")),
        (&shown, "/file?/docs/a.txt", (200, "shown")),
    ] {
        let (status, said) = exchange(chain, get(path)).await;
        assert_eq!((status, said.as_str()), want, "{path}");
    }
    let (status, said) = exchange(&none, get("/file?/docs/a.txt")).await;
    assert_eq!(status, 404, "{said}");
}

#[tokio::test]
async fn the_store_is_shared_by_the_plugins_of_a_runtime() {
    let dir = tempfile::tempdir().expect("a folder");
    for path in [None, Some(dir.path().join("store.db"))] {
        let kept = path.is_some();
        let runtime = Runtime::new(RuntimeOptions {
            store_path: path,
            ..RuntimeOptions::default()
        })
        .expect("a runtime");
        let one = load(&runtime, plugin()).await.expect("loads");
        let other = load(&runtime, plugin()).await.expect("loads");
        for (layer, call, want) in [
            (&one, "get:k", "Ok(None)"),
            (&one, "set:k=value", "Ok(())"),
            (&other, "get:k", "Ok(Some(\"value\"))"),
            (&other, "exists:k", "Ok(true)"),
            (&other, "keys", "[\"k\"] Ok(())"),
            (&other, "delete:k", "Ok(())"),
            (&one, "get:k", "Ok(None)"),
            (&one, "open:default", "opened"),
            (&one, "open:other", "Error::NoSuchStore"),
        ] {
            let said = exchange(&hello(layer), get(&format!("/store?{call}")))
                .await
                .1;
            assert_eq!(said, want, "{call}, in a file: {kept}");
        }
        let calls = one.meter().expect("metered").snapshot().host_calls;
        assert_eq!((calls["key-value.get"], calls["key-value.set"]), (2, 1));
    }
}

#[tokio::test]
async fn only_allowed_hosts_are_reached() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut head = [0; 1024];
            let _ = connection.read(&mut head).await;
            let _ = connection
                .write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n")
                .await;
        }
    });
    let closed = layer(plugin()).await;
    let open = layer(Plugin {
        allowed_outbound: vec![Outbound::authority(&address).unwrap()],
        ..plugin()
    })
    .await;
    let path = format!("/client?{address}");
    assert_eq!(
        exchange(&hello(&closed), get(&path)).await.1,
        "ErrorCode::HttpRequestDenied"
    );
    assert_eq!(exchange(&hello(&open), get(&path)).await.1, "202");
    assert_eq!(
        open.meter().expect("metered").snapshot().host_calls["client.send"],
        1
    );
}

/// Reads what comes on one connection until it ends, or a request is whole; then answers.
async fn receiving() -> (String, tokio::task::JoinHandle<String>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let received = tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.expect("a connection");
        let mut all = Vec::new();
        while !all.ends_with(b"0\r\n\r\n") {
            let mut some = [0; 1024];
            match connection.read(&mut some).await {
                Ok(0) | Err(_) => break,
                Ok(length) => all.extend_from_slice(&some[..length]),
            }
        }
        let answer = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n";
        let _ = connection.write_all(answer).await;
        String::from_utf8_lossy(&all).into_owned()
    });
    (address, received)
}

#[tokio::test]
async fn content_of_a_guests_own_request_arrives_whole_or_is_cut() {
    for (path, whole) in [("/content", true), ("/half-content", false)] {
        let (address, received) = receiving().await;
        let layer = layer(Plugin {
            allowed_outbound: vec![Outbound::authority(&address).unwrap()],
            ..plugin()
        })
        .await;
        let (status, body) = exchange(&hello(&layer), get(&format!("{path}?{address}"))).await;
        assert_eq!(status, if whole { 200 } else { 500 }, "{path}: {body}");
        let received = received.await.expect("a request");
        assert!(
            received.contains("transfer-encoding: chunked\r\n"),
            "{path}: {received}"
        );
        assert!(received.contains("7\r\ncontent\r\n"), "{path}: {received}");
        assert_eq!(received.ends_with("0\r\n\r\n"), whole, "{path}: {received}");
    }
}

#[tokio::test]
async fn an_application_reaches_itself_by_spins_name() {
    let granted = |pattern: &str| Plugin {
        allowed_outbound: vec![Outbound::parse(pattern).expect("a pattern")],
        ..plugin()
    };
    let denied = "ErrorCode::HttpRequestDenied";
    for (name, pattern, path, want) in [
        ("itself", "http://self", "/client?self.alt", "201"),
        ("any host", "https://*:*", "/client?self.alt:81", "201"),
        ("a pattern's word", "http://self", "/client?self", denied),
        ("not granted", "http://a.test", "/client?self.alt", denied),
    ] {
        let layer = layer(granted(pattern)).await;
        let said = exchange(&hello(&layer), within(get(path))).await.1;
        assert_eq!(said, want, "{name}");
    }
    // Where there is no application, it is a host like any other.
    let layer = layer(granted("http://self")).await;
    let said = exchange(&hello(&layer), get("/client?self.alt")).await.1;
    assert_eq!(said, denied);
}

#[tokio::test]
async fn a_trap_costs_its_request_and_the_next_is_served() {
    for (name, path, want) in [
        ("panic", "/panic", "told to panic"),
        ("deep recursion", "/recurse", ""),
        ("a loop", "/spin", "deadline"),
        ("memory without end", "/allocate", ""),
    ] {
        let limits = Limits {
            memory_bytes: 32 << 20,
            deadline: Duration::from_millis(300),
            ..Limits::default()
        };
        let layer = layer(limited(limits)).await;
        let chain = hello(&layer);
        let started = Instant::now();
        assert_eq!(exchange(&chain, get(path)).await.0, 500, "{name}");
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "{name} took {:?}",
            started.elapsed()
        );
        assert_eq!(
            exchange(&chain, get("/pass")).await,
            (200, "hello".into()),
            "{name}"
        );
        let meter = layer.meter().expect("metered").snapshot();
        assert_eq!((meter.traps, meter.instances), (1, 2), "{name}");
        assert!(
            meter.memory_peak <= 32 << 20,
            "{name}: {}",
            meter.memory_peak
        );
        let trap = meter.last_trap.expect("a trap");
        assert!(
            trap.message.contains("wasm backtrace"),
            "{name}: {}",
            trap.message
        );
        assert!(
            name != "a loop" || trap.message.contains(want),
            "{name}: {}",
            trap.message
        );
    }
}

#[tokio::test]
async fn on_trap_the_request_can_pass_without_the_guest() {
    let layer = layer(Plugin {
        on_trap: OnTrap::PassThrough,
        ..plugin()
    })
    .await;
    let chain = chain(&layer, |request: Request| async move {
        assert!(request.headers().contains_key("x-mine"));
        assert_eq!(request.headers()["host"], "example.test");
        let body = request.into_body().collect().await?.to_bytes();
        Ok(http::Response::new(full(format!("got {}", body.len()))))
    });
    let mut request = request("POST", "/panic", full("a body nobody read"));
    request
        .headers_mut()
        .insert("x-mine", HeaderValue::from_static("1"));
    assert_eq!(exchange(&chain, request).await, (200, "got 18".into()));
    assert_eq!(layer.meter().expect("metered").snapshot().traps, 1);
}

#[tokio::test]
async fn a_trap_in_the_middle_of_a_body_cuts_it() {
    let layer = layer(plugin()).await;
    let response = hello(&layer)
        .run(get("/panic-later"))
        .await
        .expect("a response");
    assert_eq!(response.status(), 200);
    let error = bytes(response)
        .await
        .expect_err("a cut body must not look whole");
    assert!(error.to_string().contains("cut"), "{error}");
}

#[tokio::test]
async fn a_guest_that_never_answers_is_cut_and_replaced() {
    let limits = Limits {
        timeout: Duration::from_millis(300),
        ..Limits::default()
    };
    let layer = layer(limited(limits)).await;
    let chain = hello(&layer);
    assert_eq!(exchange(&chain, get("/never")).await.0, 504);
    // Until the instance that hung is gone, another exchange may still be given to it, and be cut with it.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let response = chain.clone().run(get("/stall")).await.expect("a response");
    let error = bytes(response).await.expect_err("nothing more comes");
    assert!(error.to_string().contains("timeout"), "{error}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(
        exchange(&chain, get("/count")).await,
        (200, "1".into()),
        "a fresh instance"
    );
}

#[tokio::test]
async fn a_slow_origin_is_given_up_but_its_instance_kept() {
    let limits = Limits {
        timeout: Duration::from_millis(300),
        idle: Duration::from_millis(300),
        ..Limits::default()
    };
    let layer = layer(limited(limits)).await;
    let slow = chain(&layer, |_| async {
        tokio::time::sleep(Duration::from_secs(3600)).await;
        Ok(http::Response::new(full("late")))
    });
    assert_eq!(exchange(&slow, get("/pass")).await.0, 504);
    assert_eq!(exchange(&slow, get("/count")).await, (200, "2".into()));
    assert_eq!(layer.meter().expect("metered").snapshot().instances, 1);
}

/// An origin that takes its time before the head, and in the middle of the body.
fn slow(layer: &Arc<dyn Layer>) -> Next {
    const PAUSE: Duration = Duration::from_millis(700);
    chain(layer, |request| async {
        let (mut sender, body) = channel();
        let asked = request.into_body().collect().await?.to_bytes();
        tokio::time::sleep(PAUSE).await;
        tokio::spawn(async move {
            let _ = sender.send_data("some".into()).await;
            tokio::time::sleep(PAUSE).await;
            let _ = sender.send_data(asked).await;
        });
        Ok(http::Response::new(body))
    })
}

#[tokio::test]
async fn who_is_waited_for_outside_has_time_of_its_own() {
    let limits = Limits {
        timeout: Duration::from_millis(300),
        ..Limits::default()
    };
    let layer = layer(limited(limits)).await;
    let (mut sender, body) = channel();
    tokio::spawn(async move {
        for piece in [", ", "in ", "pieces"] {
            tokio::time::sleep(Duration::from_millis(400)).await;
            sender.send_data(piece.into()).await.expect("a reader");
        }
    });
    let (parts, _) = get("/pass").into_parts();
    let response = slow(&layer)
        .run(http::Request::from_parts(parts, body))
        .await
        .expect("a response");
    assert_eq!(response.status(), 200);
    assert_eq!(bytes(response).await.expect("whole"), "some, in pieces");
}

#[tokio::test]
async fn an_instance_that_is_replaced_stays_for_its_bodies() {
    let layer = layer(limited(Limits {
        timeout: Duration::from_millis(300),
        requests: 1,
        ..Limits::default()
    }))
    .await;
    let slow = slow(&layer);
    let response = slow.clone().run(get("/pass")).await.expect("a response");
    // Another takes its place meanwhile.
    assert_eq!(exchange(&slow, get("/count")).await, (200, "1".into()));
    assert_eq!(bytes(response).await.expect("whole"), "some");
}

#[tokio::test]
async fn a_client_that_looks_away_is_no_silence_of_the_guests() {
    let layer = layer(limited(Limits {
        timeout: Duration::from_millis(300),
        ..Limits::default()
    }))
    .await;
    let response = slow(&layer).run(get("/pass")).await.expect("a response");
    let mut body = response.into_body();
    body.frame().await.expect("a piece").expect("whole");
    tokio::time::sleep(Duration::from_millis(500)).await;
    body.collect().await.expect("whole");
}

#[tokio::test]
async fn an_origin_that_pauses_for_too_long_is_an_error_and_the_instance_kept() {
    let layer = layer(limited(Limits {
        timeout: Duration::from_millis(300),
        idle: Duration::from_millis(300),
        ..Limits::default()
    }))
    .await;
    let chain = chain(&layer, |_| async {
        let (mut sender, body) = channel();
        tokio::spawn(async move {
            sender.send_data("some".into()).await.expect("a reader");
            tokio::time::sleep(Duration::from_secs(3600)).await;
            drop(sender);
        });
        Ok(http::Response::new(body))
    });
    for path in ["/upper", "/pass"] {
        let response = chain.clone().run(get(path)).await.expect("a response");
        assert!(bytes(response).await.is_err(), "{path}");
    }
    assert_eq!(exchange(&chain, get("/count")).await, (200, "3".into()));
    assert_eq!(layer.meter().expect("metered").snapshot().instances, 1);
}

#[tokio::test]
async fn what_guests_print_is_accepted() {
    let layer = layer(plugin()).await;
    assert_eq!(
        exchange(&hello(&layer), get("/print?words")).await,
        (200, "printed".into())
    );
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_origins_work() {
    struct Gone(Arc<AtomicBool>);
    impl Drop for Gone {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let layer = layer(plugin()).await;
    let gone = Arc::new(AtomicBool::new(false));
    let watched = gone.clone();
    let slow = chain(&layer, move |_| {
        let gone = Gone(watched.clone());
        async move {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            drop(gone);
            Ok(http::Response::new(full("late")))
        }
    });
    let left =
        tokio::time::timeout(Duration::from_millis(200), slow.clone().run(get("/pass"))).await;
    assert!(left.is_err());
    for _ in 0..100 {
        if gone.load(Ordering::Relaxed) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(
        gone.load(Ordering::Relaxed),
        "the origin still works for nobody"
    );
    assert_eq!(
        exchange(&slow, get("/count")).await,
        (200, "2".into()),
        "the instance is kept"
    );
}

/// Some bytes, and then nothing more; says when it is dropped.
struct Silent(Option<Bytes>, Arc<AtomicBool>);

impl Drop for Silent {
    fn drop(&mut self) {
        self.1.store(true, Ordering::Relaxed);
    }
}

impl http_body::Body for Silent {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.0.take() {
            Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            None => Poll::Pending,
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_a_quiet_stream_ends_it() {
    let layer = layer(plugin()).await;
    for path in ["/upper", "/pass"] {
        let gone = Arc::new(AtomicBool::new(false));
        let watched = gone.clone();
        let quiet = chain(&layer, move |_| {
            let body = Silent(Some("some".into()), watched.clone());
            async { Ok(http::Response::new(body.boxed_unsync())) }
        });
        let response = quiet.clone().run(get(path)).await.expect("a response");
        let mut body = response.into_body();
        body.frame().await.expect("a piece").expect("whole");
        assert!(!gone.load(Ordering::Relaxed));
        drop(body);
        for _ in 0..100 {
            if gone.load(Ordering::Relaxed) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(gone.load(Ordering::Relaxed), "{path}: still waited for");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_at_once_are_all_served() {
    let layer = layer(plugin()).await;
    let served = Arc::new(AtomicUsize::new(0));
    let count = served.clone();
    let chain = chain(&layer, move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        async { Ok(http::Response::new(full("hello"))) }
    });
    let all: Vec<_> = (0..1000)
        .map(|_| {
            tokio::spawn({
                let chain = chain.clone();
                async move { exchange(&chain, get("/upper")).await }
            })
        })
        .collect();
    for one in all {
        assert_eq!(one.await.expect("an exchange"), (200, "HELLO".into()));
    }
    assert_eq!(served.load(Ordering::Relaxed), 1000);
}

#[tokio::test]
async fn two_components_chain() {
    let (outer, inner) = (layer(plugin()).await, layer(plugin()).await);
    let origin = Arc::new(Origin(|_| async { Ok(http::Response::new(full("hello"))) }));
    let chain = Next::new(vec![outer.clone(), inner.clone(), origin]);
    assert_eq!(exchange(&chain, get("/upper")).await, (200, "HELLO".into()));
    for layer in [outer, inner] {
        assert_eq!(layer.meter().expect("metered").snapshot().body_in, 5);
    }
}

#[tokio::test]
async fn cpu_time_is_measured_where_that_is_asked() {
    for cpu_time in [false, true] {
        let options = RuntimeOptions {
            cpu_time,
            ..RuntimeOptions::default()
        };
        let runtime = Runtime::new(options).expect("a runtime");
        let layer = load(&runtime, plugin()).await.expect("loads");
        exchange(&hello(&layer), get("/upper")).await;
        let call = layer.meter().expect("metered").snapshot().calls["handle"];
        let measured = call.cpu_ns > 0;
        assert_eq!(measured, cpu_time && cfg!(target_os = "linux"), "{call:?}");
    }
}

#[tokio::test]
async fn fuel_is_counted_where_it_is_on() {
    let runtime = Runtime::new(RuntimeOptions {
        fuel: true,
        ..RuntimeOptions::default()
    })
    .expect("a runtime");
    let counted = load(&runtime, plugin()).await.expect("loads");
    exchange(&hello(&counted), get("/upper")).await;
    assert!(counted.meter().expect("metered").snapshot().calls["handle"].fuel > 1000);
    let free = layer(plugin()).await;
    exchange(&hello(&free), get("/upper")).await;
    assert_eq!(
        free.meter().expect("metered").snapshot().calls["handle"].fuel,
        0
    );
}

#[tokio::test]
async fn what_cannot_run_is_refused_with_its_reason() {
    let dir = tempfile::tempdir().expect("a folder");
    let component = std::fs::read(guest()).expect("the guest");
    let replaced = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let mut bytes = component.clone();
        let mut at = 0;
        while let Some(found) = bytes[at..]
            .windows(from.len())
            .position(|w| w == from.as_bytes())
        {
            at += found;
            bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        }
        bytes
    };
    for (name, bytes, want) in [
        ("text", b"filters: []\n".to_vec(), "not Wasm"),
        ("nothing", Vec::new(), "not Wasm"),
        (
            "core module",
            b"\0asm\x01\0\0\0".to_vec(),
            "core Wasm module",
        ),
        (
            "cut",
            component[..component.len() / 2].to_vec(),
            "does not compile",
        ),
        (
            "empty component",
            b"\0asm\x0d\0\x01\0".to_vec(),
            "exports no `wasi:http/handler@0.3.0`",
        ),
        (
            "unknown import",
            replaced(
                "spin:key-value/key-value@3.0.0",
                "spin:key-other/key-value@3.0.0",
            ),
            "`spin:key-other/key-value@3.0.0`",
        ),
        (
            "another wasi:http",
            replaced("wasi:http/handler@0.3.0", "wasi:http/handler@0.4.0"),
            "another version of wasi:http",
        ),
    ] {
        let file = dir.path().join("plugin.wasm");
        std::fs::write(&file, bytes).expect("written");
        let plugin = Plugin {
            component: file.clone(),
            ..plugin()
        };
        let error = load(&runtime(), plugin)
            .await
            .err()
            .unwrap_or_else(|| panic!("{name} loads"));
        let said = format!("{error:#}");
        assert!(said.contains(want), "{name}: {said}");
        assert!(
            said.contains("plugin.wasm"),
            "{name} does not name the file: {said}"
        );
    }
    let missing = Plugin {
        component: dir.path().join("missing.wasm"),
        ..plugin()
    };
    let error = load(&runtime(), missing)
        .await
        .err()
        .expect("nothing to load");
    assert!(
        format!("{error:#}").contains("missing.wasm: cannot be read"),
        "{error:#}"
    );
    let none = limited(Limits {
        instances: 0,
        ..Limits::default()
    });
    let error = load(&runtime(), none).await.err().expect("a bad limit");
    assert!(
        error.to_string().contains("`instances` is 0, at least 1"),
        "{error}"
    );
    let small = limited(Limits {
        memory_bytes: 1 << 20,
        ..Limits::default()
    });
    let error = load(&runtime(), small)
        .await
        .err()
        .expect("not enough memory to start");
    assert!(
        error.to_string().contains("no instance could be started"),
        "{error}"
    );
}

#[tokio::test]
async fn compiled_components_are_kept_on_disk() {
    let dir = tempfile::tempdir().expect("a folder");
    let cached = || RuntimeOptions {
        cache_dir: Some(dir.path().join("cache")),
        ..RuntimeOptions::default()
    };
    let time = |options| async {
        let runtime = Runtime::new(options).expect("a runtime");
        let started = Instant::now();
        let layer = load(&runtime, plugin()).await.expect("loads");
        let took = started.elapsed();
        assert_eq!(exchange(&hello(&layer), get("/upper")).await.1, "HELLO");
        took
    };
    let first = time(cached()).await;
    let second = time(cached()).await;
    assert!(second < first / 2, "{second:?} after {first:?}");
}

#[tokio::test]
async fn dropping_a_layer_lets_its_instances_go() {
    let layer = layer(plugin()).await;
    let chain = hello(&layer);
    let meter = layer.meter().expect("metered").clone();
    let response = chain
        .clone()
        .run(get("/large?1000000"))
        .await
        .expect("a response");
    drop((chain, layer));
    assert_eq!(
        bytes(response)
            .await
            .expect("what had begun is finished")
            .len(),
        1_000_000
    );
    for _ in 0..200 {
        if meter.snapshot().memory_now == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the instance is still there");
}
