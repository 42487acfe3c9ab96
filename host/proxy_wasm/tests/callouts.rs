//! Callouts, shared data, queues: what reaches beyond one exchange.

mod support;

use std::time::Duration;

use support::{Edge, Origin, data, guest, pairs};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// Calls the cluster named in the request's `to` header; adds the answer's status to the request and lets it go. A call
/// that is refused at once is answered with its status plus 500. The answer is the root context's, as in Envoy.
fn calling(timeout: u32) -> String {
    let (headers, size) = pairs(
        200,
        &[
            (":method", "POST"),
            (":path", "/where?x"),
            (":authority", "inner"),
            (":scheme", "http"),
            ("x-in", "1"),
        ],
    );
    guest(&format!(
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
             (local $status i32)
             (i32.store (i32.const 112) (local.get 0))
             (call $ok (call $get (i32.const 0) (i32.const 0) (i32.const 2) (i32.const 100) (i32.const 104)))
             (local.set $status (call $call (i32.load (i32.const 100)) (i32.load (i32.const 104))
               (i32.const 200) (i32.const {size}) (i32.const 16) (i32.const 4) (i32.const 0) (i32.const 0)
               (i32.const {timeout}) (i32.const 108)))
             (if (local.get $status) (then
               (call $ok (call $reply (i32.add (local.get $status) (i32.const 500)) (i32.const 0) (i32.const 0)
                 (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const -1)))))
             (i32.const 1))
           (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
             (call $must (local.get 0) (i32.const 1))
             (call $must (local.get 1) (i32.load (i32.const 108)))
             ;; The stream that asked may be over.
             (if (call $effective (i32.load (i32.const 112))) (then (return)))
             (call $ok (call $get (i32.const 6) (i32.const 32) (i32.const 7) (i32.const 100) (i32.const 104)))
             (call $ok (call $put (i32.const 0) (i32.const 48) (i32.const 8) (i32.load (i32.const 100))
               (i32.load (i32.const 104))))
             (call $ok (call $get_buffer (i32.const 4) (i32.const 0) (i32.const 1000) (i32.const 100) (i32.const 104)))
             (call $must (i32.load (i32.const 104)) (local.get 3))
             (call $ok (call $put (i32.const 0) (i32.const 64) (i32.const 6) (i32.load (i32.const 100))
               (i32.load (i32.const 104))))
             (call $ok (call $continue (i32.const 0))))
           {headers} {} {} {} {} {}"#,
        data(0, "to"),
        data(16, "body"),
        data(32, ":status"),
        data(48, "x-status"),
        data(64, "x-text"),
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callout_pauses_and_resumes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let up = listener.local_addr().unwrap().to_string();
    let server = tokio::spawn(async move {
        let mut asked = String::new();
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 4096];
        while !asked.ends_with("body") {
            let read = stream.read(&mut buffer).await.unwrap();
            asked.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        }
        stream
            .write_all(b"HTTP/1.1 418 Teapot\r\ncontent-length: 5\r\n\r\nhello")
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        asked
    });
    // A port nobody listens on: bound and let go.
    let refused = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let slow = silent.local_addr().unwrap().to_string();
    let edge = Edge::new(calling(500), Origin::text(""), |plugin| {
        for (name, address) in [("up", up), ("refused", refused), ("slow", slow)] {
            plugin.clusters.insert(name.into(), address);
        }
    });
    let edge = edge.await;
    let got = edge.get("/", &[("to", "up")]).await;
    let lines = got.all("x-seen");
    assert!(
        lines.contains(&"x-status=418") && lines.contains(&"x-text=hello"),
        "{lines:?}"
    );
    let asked = server.await.unwrap();
    assert!(asked.starts_with("POST /where?x HTTP/1.1\r\n"), "{asked}");
    assert!(
        asked.contains("host: inner\r\n") && asked.contains("x-in: 1\r\n"),
        "{asked}"
    );
    assert!(asked.contains("content-length: 4\r\n"), "{asked}");
    let got = edge.get("/", &[("to", "refused")]).await;
    assert!(got.all("x-seen").contains(&"x-status=503"), "{got:?}");
    let got = edge.get("/", &[("to", "slow")]).await;
    assert!(got.all("x-seen").contains(&"x-status=504"), "{got:?}");
    let got = edge.get("/", &[("to", "unknown")]).await;
    assert_eq!(got.status, 502, "BadArgument is 2");
    assert_eq!(edge.meter().traps, 0);
}

/// Answers each request, whatever it is, with `hello`.
async fn greeting() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = [0; 4096];
            while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
                stream.write_all(answer).await.unwrap();
            }
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callouts_are_as_many_and_bring_as_much_as_their_limits() {
    let up = greeting().await;
    for (count, bytes, status, seen) in [
        (1, 5, 200, "x-status=200"),
        (1, 4, 200, "x-status=503"),
        (0, 5, 510, ""),
    ] {
        let edge = Edge::new(calling(5_000), Origin::text(""), |plugin| {
            plugin.clusters.insert("up".into(), up.clone());
            plugin.limits.callouts = count;
            plugin.limits.callout_bytes = bytes;
        });
        let got = edge.await.get("/", &[("to", "up")]).await;
        assert_eq!(got.status, status, "{count}, {bytes}: {got:?}");
        let lines = got.all("x-seen");
        assert!(seen.is_empty() || lines.contains(&seen), "{lines:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shared_data_holds_as_much_as_its_limit() {
    // Writes 1,000 bytes under one key and answers with the status plus 500 where that fails.
    let text = guest(&format!(
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
             (local $status i32)
             (local.set $status (call $set_shared (i32.const 0) (i32.const 3) (i32.const 200) (i32.const 1000) (i32.const 0)))
             (if (local.get $status) (then
               (call $ok (call $reply (i32.add (local.get $status) (i32.const 500)) (i32.const 0) (i32.const 0)
                 (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const -1)))
               (return (i32.const 1))))
             (i32.const 0))
           {}"#,
        data(0, "key"),
    ));
    for (bytes, status) in [(1_200, 200), (999, 510)] {
        let edge = Edge::new(&text, Origin::text(""), |plugin| {
            plugin.limits.shared_data_bytes = bytes;
        });
        assert_eq!(edge.await.get("/", &[]).await.status, status, "{bytes}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_leaves_its_callout_to_the_root_context() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let slow = silent.local_addr().unwrap().to_string();
    let edge = Edge::new(calling(300), Origin::text(""), |plugin| {
        plugin.clusters.insert("slow".into(), slow);
    });
    let edge = edge.await;
    let left =
        tokio::time::timeout(Duration::from_millis(50), edge.get("/", &[("to", "slow")])).await;
    assert!(left.is_err());
    tokio::time::sleep(Duration::from_millis(500)).await;
    let meter = edge.meter();
    let heard = meter.calls.get("proxy_on_http_call_response");
    assert_eq!((heard.map(|stat| stat.calls), meter.traps), (Some(1), 0));
    assert_eq!(edge.get("/", &[("to", "unknown")]).await.status, 502);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shared_data_is_swapped_across_instances() {
    // Adds 1 to a shared counter until the swap succeeds.
    let text = guest(&format!(
        r#"(func (export "proxy_on_configure") (param i32 i32) (result i32)
             (drop (call $set_shared (i32.const 0) (i32.const 3) (i32.const 16) (i32.const 4) (i32.const -1)))
             (i32.const 1))
           (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
             (local $status i32)
             (loop $again
               (call $ok (call $get_shared (i32.const 0) (i32.const 3) (i32.const 100) (i32.const 104) (i32.const 108)))
               (i32.store (i32.const 32) (i32.add (i32.load (i32.load (i32.const 100))) (i32.const 1)))
               (local.set $status (call $set_shared (i32.const 0) (i32.const 3) (i32.const 32) (i32.const 4)
                 (i32.load (i32.const 108))))
               (br_if $again (i32.eq (local.get $status) (i32.const 8))))
             (call $ok (local.get $status))
             (call $ok (call $metric (i32.const 1) (i32.const 0) (i32.const 3) (i32.const 112)))
             (call $ok (call $record (i32.load (i32.const 112)) (i64.load32_u (i32.const 32))))
             (call $must (call $get_shared (i32.const 1) (i32.const 2) (i32.const 100) (i32.const 104) (i32.const 108))
               (i32.const 1))
             (i32.const 0))
           {}"#,
        data(0, "key"),
    ));
    let edge = Edge::new(&text, Origin::text(""), |plugin| plugin.instances = 3).await;
    let edge = std::sync::Arc::new(edge);
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let edge = std::sync::Arc::clone(&edge);
            tokio::spawn(async move {
                for _ in 0..50 {
                    assert_eq!(edge.get("/", &[]).await.status, 200);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    edge.get("/", &[]).await;
    assert_eq!(edge.meter().counters["key"], 401);
    assert!(edge.meter().shared_bytes > 0);
    assert_eq!(edge.meter().instances, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_wakes_the_root_context() {
    let text = guest(&format!(
        r#"(func (export "proxy_on_configure") (param i32 i32) (result i32)
             (call $ok (call $register (i32.const 0) (i32.const 1) (i32.const 100)))
             (call $ok (call $metric (i32.const 0) (i32.const 16) (i32.const 5) (i32.const 104)))
             (call $must (call $dequeue (i32.load (i32.const 100)) (i32.const 108) (i32.const 112)) (i32.const 7))
             (i32.const 1))
           (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
             (call $ok (call $resolve (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 116)))
             (call $ok (call $enqueue (i32.load (i32.const 116)) (i32.const 16) (i32.const 5)))
             (call $must (call $enqueue (i32.const 999) (i32.const 16) (i32.const 5)) (i32.const 1))
             (i32.const 0))
           (func (export "proxy_on_queue_ready") (param i32 i32)
             (call $ok (call $dequeue (local.get 1) (i32.const 108) (i32.const 112)))
             (call $must (i32.load (i32.const 112)) (i32.const 5))
             (call $ok (call $increment (i32.load (i32.const 104)) (i64.const 1))))
           {} {}"#,
        data(0, "q"),
        data(16, "items"),
    ));
    let edge = Edge::new(&text, Origin::text(""), |_| {}).await;
    edge.get("/", &[]).await;
    edge.get("/", &[]).await;
    edge.until("items", 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_without_a_time_out_waits() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let up = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
        stream.write_all(answer).await.unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
    });
    let edge = Edge::new(calling(0), Origin::text(""), |plugin| {
        plugin.clusters.insert("up".into(), up);
    });
    let got = edge.await.get("/", &[("to", "up")]).await;
    assert!(got.all("x-seen").contains(&"x-status=200"), "{got:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_may_be_made_when_the_exchange_is_logged() {
    let up = greeting().await;
    let (headers, size) = pairs(
        200,
        &[(":method", "GET"), (":path", "/"), (":authority", "inner")],
    );
    let text = guest(&format!(
        r#"(func (export "proxy_on_log") (param i32)
             (call $ok (call $call (i32.const 0) (i32.const 2) (i32.const 200) (i32.const {size}) (i32.const 0)
               (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1000) (i32.const 108))))
           (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
             (call $must (local.get 0) (i32.const 1))
             (call $must (local.get 3) (i32.const 5)))
           {headers} {}"#,
        data(0, "up"),
    ));
    let edge = Edge::new(text, Origin::text(""), |plugin| {
        plugin.clusters.insert("up".into(), up);
    });
    let edge = edge.await;
    assert_eq!(edge.get("/", &[]).await.status, 200);
    let heard = || {
        let meter = edge.meter();
        let stat = meter.calls.get("proxy_on_http_call_response");
        (stat.map(|stat| stat.calls), meter.traps)
    };
    for _ in 0..100 {
        if heard().0.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(heard(), (Some(1), 0));
}
