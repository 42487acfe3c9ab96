//! Exchanges through small guests: headers, bodies, answers, pauses, ends.

mod support;

use std::time::Duration;

use bytes::Bytes;
use edgeweir_host_chain::{Response, full};
use http::header::HeaderMap;
use http_body_util::BodyExt;
use support::{Edge, Origin, chunks, data, guest, pairs, seen};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_are_added_changed_and_removed() {
    let text = guest(&format!(
        r#"
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
          (call $ok (call $put (i32.const 0) (i32.const 0) (i32.const 7) (i32.const 16) (i32.const 3)))
          (call $ok (call $replace (i32.const 0) (i32.const 32) (i32.const 5) (i32.const 48) (i32.const 6)))
          (call $ok (call $remove (i32.const 0) (i32.const 64) (i32.const 3)))
          ;; A line feed in a value is refused.
          (call $must (call $put (i32.const 0) (i32.const 0) (i32.const 7) (i32.const 80) (i32.const 4)) (i32.const 2))
          (i32.const 0))
        (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
          (call $ok (call $put (i32.const 2) (i32.const 0) (i32.const 7) (i32.const 16) (i32.const 3)))
          (call $ok (call $replace (i32.const 2) (i32.const 96) (i32.const 7) (i32.const 112) (i32.const 3)))
          (i32.const 0))
        {} {} {} {} {} {} {} {}"#,
        data(0, "x-guest"),
        data(16, "yes"),
        data(32, ":path"),
        data(48, "/other"),
        data(64, "bad"),
        data(80, "a\r\nb"),
        data(96, ":status"),
        data(112, "203"),
    ));
    let edge = Edge::new(&text, Origin::text("body"), |_| {}).await;
    let got = edge
        .get("/path?q", &[("bad", "1"), ("same", "1"), ("same", "2")])
        .await;
    assert_eq!((got.status, got.body.as_str()), (203, "body"));
    assert_eq!(got.all("x-uri"), ["/other"]);
    assert_eq!(got.all("x-guest"), ["yes"]);
    let mut lines = got.all("x-seen");
    lines.sort_unstable();
    assert_eq!(
        lines,
        ["host=example.com", "same=1", "same=2", "x-guest=yes"]
    );
    let meter = edge.meter();
    assert_eq!(meter.calls["proxy_on_request_headers"].calls, 1);
    assert_eq!(meter.host_calls["proxy_add_header_map_value"], 3);
    assert_eq!((meter.exchanges, meter.traps, meter.body_out), (1, 0, 4));
    assert!(meter.memory_now >= 1 << 20 && meter.bytes_copied > 0);
}

/// Buffers the response, then puts a text in front of it.
fn buffering(prefix: &str) -> String {
    guest(&format!(
        r#"(func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
             (if (i32.eqz (local.get 2)) (then (return (i32.const 1))))
             (call $ok (call $set_buffer (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const {})))
             (i32.const 0))
           {}"#,
        prefix.len(),
        data(0, prefix),
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_of_another_length_than_declared_is_a_failure() {
    // Envoy sends 12 bytes under a length of 6.
    let edge = Edge::new(buffering("edge: "), Origin::text("origin"), |_| {}).await;
    let got = edge.get("/", &[]).await;
    assert_eq!((got.status, edge.meter().traps), (500, 0));
    assert!(!got.body.contains("origin"), "{got:?}");
    let same = Edge::new(buffering(""), Origin::text("origin"), |_| {}).await;
    let got = same.get("/", &[]).await;
    assert_eq!(
        (got.body.as_str(), got.all("content-length")),
        ("origin", vec!["6"])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_accumulate_while_paused() {
    let origin = Origin::answering(|_| async {
        Ok(Response::new(chunks(&["one ", "two ", "three"], None)))
    });
    let edge = Edge::new(buffering("> "), origin, |_| {}).await;
    let got = edge.get("/", &[]).await;
    assert_eq!(got.body, "> one two three");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_rewritten_chunk_by_chunk() {
    let text = guest(&format!(
        r#"(func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
             (if (local.get 1) (then
               (call $ok (call $set_buffer (i32.const 1) (i32.const 0) (local.get 1) (i32.const 0) (i32.const 2)))))
             (i32.const 0))
           {}"#,
        data(0, "x,"),
    ));
    let origin =
        Origin::answering(|_| async { Ok(Response::new(chunks(&["one", "two", "three"], None))) });
    let edge = Edge::new(&text, origin, |_| {}).await;
    assert_eq!(edge.get("/", &[]).await.body, "x,x,x,");
    // Where a length is declared it is held to.
    for (declared, whole) in [(4, true), (6, false)] {
        let origin = Origin::answering(move |_| async move {
            let mut response = Response::new(chunks(&["one", "two"], None));
            response
                .headers_mut()
                .insert("content-length", declared.into());
            Ok(response)
        });
        let edge = Edge::new(&text, origin, |_| {}).await;
        let request = http::Request::get("/").body(edgeweir_host_chain::empty());
        let response = edge.send(request.unwrap()).await.unwrap();
        let got = response.into_body().collect().await;
        assert_eq!(got.is_ok(), whole, "{declared}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_body_is_rewritten_if_its_length_goes() {
    let text = guest(&format!(
        r#"(func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
             (if (i32.eqz (local.get 2)) (then (return (i32.const 1))))
             (call $ok (call $set_buffer (i32.const 0) (i32.const 9999) (i32.const 0) (i32.const 0) (i32.const 3)))
             (i32.const 0))
           {}"#,
        data(0, "!!!"),
    ));
    let without = format!(
        r#"{} (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
             (call $ok (call $remove (i32.const 0) (i32.const 32) (i32.const 14))) (i32.const 0)) {})"#,
        text.trim_end().strip_suffix(')').unwrap(),
        data(32, "content-length"),
    );
    for (module, status) in [(&text, 500), (&without, 200)] {
        let edge = Edge::new(module, Origin::text(""), |_| {}).await;
        let request = http::Request::post("/")
            .header("content-length", "5")
            .body(full("hello"))
            .unwrap();
        let got = seen(edge.send(request).await.unwrap()).await;
        assert_eq!(got.status, status);
        let reached = got.all("x-body");
        assert_eq!(reached.contains(&"hello!!!"), status == 200, "{got:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holding_back_too_much_of_a_request_is_413() {
    let text = guest(
        r#"(func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (i32.const 1))"#,
    );
    let edge = Edge::new(&text, Origin::text(""), |plugin| {
        plugin.limits.body_buffer_bytes = 8
    })
    .await;
    for declared in [true, false] {
        let mut request = http::Request::post("/");
        if declared {
            request = request.header("content-length", "12");
        }
        let body = chunks(&["123456", "789012"], None);
        let got = seen(edge.send(request.body(body).unwrap()).await.unwrap()).await;
        assert_eq!(got.status, 413, "declared: {declared}");
    }
    assert_eq!(edge.meter().traps, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_are_seen_and_passed_on() {
    let text = guest(&format!(
        r#"(func (export "proxy_on_response_body") (param i32 i32 i32) (result i32) (i32.const 1))
           (func (export "proxy_on_response_trailers") (param i32 i32) (result i32)
             (call $must (local.get 1) (i32.const 1))
             (call $ok (call $put (i32.const 3) (i32.const 0) (i32.const 5) (i32.const 0) (i32.const 5)))
             (i32.const 0))
           {}"#,
        data(0, "added"),
    ));
    let origin = Origin::answering(|_| async {
        let trailers = HeaderMap::from_iter([("sum".parse()?, "1".parse()?)]);
        Ok(Response::new(chunks(&["one", "two"], Some(trailers))))
    });
    let edge = Edge::new(&text, origin, |_| {}).await;
    let got = edge.get("/", &[]).await;
    assert_eq!(got.body, "onetwo");
    let trailers = got.trailers.unwrap();
    assert_eq!(
        (&trailers["sum"], &trailers["added"]),
        (&"1".parse().unwrap(), &"added".parse().unwrap())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_response_runs_the_response_callbacks_and_comes_once() {
    let (headers, size) = pairs(100, &[("x-why", "because"), ("content-type", "text/x")]);
    let reply = format!(
        "(call $reply (i32.const 403) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 4) (i32.const 100) \
         (i32.const {size}) (i32.const -1))"
    );
    let text = guest(&format!(
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
             (call $ok {reply})
             (call $must {reply} (i32.const 2))
             (i32.const 1))
           (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
             (call $ok (call $put (i32.const 2) (i32.const 16) (i32.const 6) (i32.const 0) (i32.const 4)))
             (i32.const 0))
           {headers} {} {}"#,
        data(0, "nope"),
        data(16, "x-also"),
    ));
    let origin = Origin::answering(|_| async { panic!("the request must not get here") });
    let edge = Edge::new(&text, origin, |_| {}).await;
    let got = edge.get("/", &[]).await;
    assert_eq!((got.status, got.body.as_str()), (403, "nope"));
    assert_eq!(
        (got.all("x-why"), got.all("x-also")),
        (vec!["because"], vec!["nope"])
    );
    assert_eq!(
        (got.all("content-type"), got.all("content-length")),
        (vec!["text/x"], vec!["4"])
    );
    let head = http::Request::head("/")
        .body(edgeweir_host_chain::empty())
        .unwrap();
    let got = seen(edge.send(head).await.unwrap()).await;
    assert_eq!(
        (got.body.as_str(), got.all("content-length")),
        ("", vec!["4"])
    );
    assert_eq!(edge.meter().answered, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_is_replaced_in_its_head_and_reset_in_its_body() {
    let reply = "(call $reply (i32.const 200) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 4) (i32.const 0) \
                 (i32.const 0) (i32.const -1))";
    let in_head = guest(&format!(
        r#"(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
             (call $ok {reply}) (i32.const 1)) {}"#,
        data(0, "kept"),
    ));
    let origin = || {
        Origin::answering(|_| async {
            let mut response = Response::new(full(""));
            *response.status_mut() = http::StatusCode::NOT_MODIFIED;
            Ok(response)
        })
    };
    let edge = Edge::new(in_head, origin(), |_| {}).await;
    let got = edge.get("/", &[]).await;
    assert_eq!((got.status, got.body.as_str()), (200, "kept"));
    let in_body = guest(&format!(
        r#"(func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
             (call $ok {reply}) (i32.const 1)) {}"#,
        data(0, "kept"),
    ));
    // As in Envoy: its head is gone.
    let edge = Edge::new(in_body, Origin::text("origin"), |_| {}).await;
    let request = http::Request::get("/").body(edgeweir_host_chain::empty());
    match edge.send(request.unwrap()).await {
        Ok(response) => assert!(response.into_body().collect().await.is_err()),
        Err(_) => assert_eq!(edge.meter().traps, 0),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_fails_is_a_response_the_plugin_can_replace() {
    let text = guest(&format!(
        r#"(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
             (call $ok (call $reply (i32.const 200) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 5)
               (i32.const 0) (i32.const 0) (i32.const -1)))
             (i32.const 1)) {}"#,
        data(0, "stale"),
    ));
    let edge = Edge::new(
        text,
        Origin::answering(|_| async { Err("no route".into()) }),
        |_| {},
    )
    .await;
    let got = edge.get("/", &[]).await;
    assert_eq!((got.status, got.body.as_str()), (200, "stale"));
}

/// Counts ends, and body callbacks with the end of the stream.
fn counting() -> String {
    let define = |at: usize, name: &str, id: usize| {
        format!(
            "(call $ok (call $metric (i32.const 0) (i32.const {at}) (i32.const {}) (i32.const {id})))",
            name.len()
        )
    };
    let count = |id: usize| {
        format!("(call $ok (call $increment (i32.load (i32.const {id})) (i64.const 1)))")
    };
    guest(&format!(
        r#"(func (export "proxy_on_configure") (param i32 i32) (result i32) {} {} {} {} (i32.const 1))
           (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
             (if (local.get 2) (then {})) (i32.const 0))
           (func (export "proxy_on_done") (param i32) (result i32) {} (i32.const 1))
           (func (export "proxy_on_log") (param i32) {})
           (func (export "proxy_on_delete") (param i32) {})
           {} {} {} {}"#,
        define(0, "end", 100),
        define(8, "done", 104),
        define(16, "log", 108),
        define(24, "delete", 112),
        count(100),
        count(104),
        count(108),
        count(112),
        data(0, "end"),
        data(8, "done"),
        data(16, "log"),
        data(24, "delete"),
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_stream_ends_once_whoever_leaves() {
    let origin = Origin::answering(|request| async move {
        Ok(Response::new(match request.uri().path() {
            "/cut" => {
                let (mut sender, body) =
                    http_body_util::channel::Channel::<Bytes, edgeweir_host_chain::Error>::new(4);
                sender.send_data("part".into()).await?;
                tokio::spawn(async move { sender.abort("gone".into()) });
                body.boxed_unsync()
            }
            _ => chunks(&["one", "two"], None),
        }))
    });
    let edge = Edge::new(counting(), origin, |_| {}).await;
    edge.get("/", &[]).await;
    edge.until("delete", 1).await;
    assert_eq!(edge.meter().counters["end"], 1);
    let request = |path: &str| {
        http::Request::get(path)
            .body(edgeweir_host_chain::empty())
            .unwrap()
    };
    let mut response = edge.send(request("/")).await.unwrap();
    response.body_mut().frame().await.unwrap().unwrap();
    drop(response);
    edge.until("delete", 2).await;
    let response = edge.send(request("/cut")).await.unwrap();
    assert!(response.into_body().collect().await.is_err());
    edge.until("delete", 3).await;
    let counters = edge.meter().counters;
    assert_eq!(
        (counters["end"], counters["done"], counters["log"]),
        (1, 3, 3)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_request_is_answered_by_the_root_context() {
    let text = guest(&format!(
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
             (i32.store (i32.const 100) (local.get 0))
             (call $ok (call $set_tick (i32.const 20)))
             (i32.const 1))
           (func (export "proxy_on_tick") (param i32)
             (call $ok (call $set_tick (i32.const 0)))
             (call $must (call $effective (i32.const 77777)) (i32.const 2))
             (call $ok (call $effective (i32.load (i32.const 100))))
             (call $ok (call $reply (i32.const 202) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 4)
               (i32.const 0) (i32.const 0) (i32.const -1)))
             (call $ok (call $effective (local.get 0))))
           {}"#,
        data(0, "tick"),
    ));
    let edge = Edge::new(&text, Origin::text(""), |_| {}).await;
    let got = tokio::time::timeout(Duration::from_secs(5), edge.get("/", &[]))
        .await
        .unwrap();
    assert_eq!((got.status, got.body.as_str()), (202, "tick"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forty_thousand_headers_cost_one_request() {
    let edge = Edge::new(counting(), Origin::text("fine"), |_| {}).await;
    let mut request = http::Request::get("/")
        .body(edgeweir_host_chain::empty())
        .unwrap();
    for n in 0..20_000 {
        request.headers_mut().append(
            http::HeaderName::try_from(format!("x-{n}")).unwrap(),
            "1".parse().unwrap(),
        );
        request.headers_mut().append("same", n.into());
    }
    assert_eq!(request.headers().len(), 40_000);
    assert_eq!(seen(edge.send(request).await.unwrap()).await.status, 431);
    assert_eq!(edge.get("/", &[]).await.body, "fine");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn properties_and_the_peer() {
    let property = |at: usize, path: &str, header: usize| {
        format!(
            "(call $ok (call $get_property (i32.const {at}) (i32.const {}) (i32.const 500) (i32.const 504)))
             (call $ok (call $put (i32.const 0) (i32.const {header}) (i32.const 3) (i32.load (i32.const 500))
               (i32.load (i32.const 504))))",
            path.len()
        )
    };
    let paths = [
        "source\0address",
        "request\0url_path",
        "request\0headers\0a",
        "plugin_name",
        "xds\0route_name",
    ];
    let reads: String = paths
        .iter()
        .enumerate()
        .map(|(n, path)| property(n * 32, path, 300 + n * 4))
        .collect();
    let segments: String = paths
        .iter()
        .enumerate()
        .map(|(n, path)| data(n * 32, path) + &data(300 + n * 4, &format!("p-{n}")))
        .collect();
    let text = guest(&format!(
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
             {reads}
             (call $must (call $get_property (i32.const 0) (i32.const 3) (i32.const 500) (i32.const 504)) (i32.const 1))
             (call $ok (call $set_property (i32.const 0) (i32.const 3) (i32.const 0) (i32.const 3)))
             (call $ok (call $get_property (i32.const 0) (i32.const 3) (i32.const 500) (i32.const 504)))
             (call $must (i32.load (i32.const 504)) (i32.const 3))
             (i32.const 0))
           {segments}"#
    ));
    let edge = Edge::new(&text, Origin::text(""), |_| {}).await;
    let mut request = http::Request::get("/a/b?c")
        .header("a", "v")
        .body(edgeweir_host_chain::empty())
        .unwrap();
    request
        .extensions_mut()
        .insert(edgeweir_host_chain::Peer("192.0.2.7:81".parse().unwrap()));
    let got = seen(edge.send(request).await.unwrap()).await;
    let lines = got.all("x-seen");
    for want in [
        "p-0=192.0.2.7:81",
        "p-1=/a/b",
        "p-2=v",
        "p-3=guest",
        "p-4=default",
    ] {
        assert!(lines.contains(&want), "{want} in {lines:?}");
    }
}
