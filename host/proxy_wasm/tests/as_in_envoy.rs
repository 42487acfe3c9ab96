//! What a plugin may see and do by when it asks, as Envoy 1.40 answers it.

mod support;

use std::sync::Arc;

use edgeweir_host_chain::{Next, Request, full};
use edgeweir_host_proxy_wasm::Notes;
use support::{Edge, Origin, chunks, data, guest, seen};

fn request(path: &str) -> Request {
    let request = http::Request::builder().uri(path).header("host", "front");
    request
        .header("x-a", "1")
        .header("x-a", "2")
        .body(edgeweir_host_chain::empty())
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_is_seen_until_it_goes_on_and_again_in_the_log() {
    // 2 is BadArgument, 1 is NotFound; the path as it is logged becomes shared data.
    let text = guest(&format!(
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
             (call $ok (call $get (i32.const 0) (i32.const 0) (i32.const 5) (i32.const 100) (i32.const 104)))
             (call $must (call $map_size (i32.const 2) (i32.const 100)) (i32.const 2))
             (i32.const 0))
           (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
             (call $must (call $get (i32.const 0) (i32.const 0) (i32.const 5) (i32.const 100) (i32.const 104)) (i32.const 2))
             (call $must (call $put (i32.const 0) (i32.const 0) (i32.const 5) (i32.const 0) (i32.const 5)) (i32.const 2))
             (call $must (call $get_property (i32.const 16) (i32.const 12) (i32.const 100) (i32.const 104)) (i32.const 1))
             (call $must (call $get_property (i32.const 64) (i32.const 16) (i32.const 100) (i32.const 104)) (i32.const 1))
             (call $ok (call $map_size (i32.const 2) (i32.const 100)))
             (i32.const 0))
           (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
             (call $must (call $map_size (i32.const 2) (i32.const 100)) (i32.const 2))
             (i32.const 0))
           (func (export "proxy_on_log") (param i32)
             (call $ok (call $get_property (i32.const 64) (i32.const 16) (i32.const 100) (i32.const 104)))
             (call $ok (call $get (i32.const 0) (i32.const 0) (i32.const 5) (i32.const 100) (i32.const 104)))
             (call $ok (call $get_property (i32.const 16) (i32.const 12) (i32.const 100) (i32.const 104)))
             (call $ok (call $set_shared (i32.const 48) (i32.const 3) (i32.load (i32.const 100))
               (i32.load (i32.const 104)) (i32.const 0)))
             (call $ok (call $get_property (i32.const 32) (i32.const 12) (i32.const 100) (i32.const 104)))
             (call $ok (call $set_shared (i32.const 51) (i32.const 3) (i32.load (i32.const 100))
               (i32.load (i32.const 104)) (i32.const 0))))
           (func (export "proxy_on_done") (param i32) (result i32)
             (call $must (call $map_size (i32.const 0) (i32.const 100)) (i32.const 2))
             (call $ok (call $get_shared (i32.const 48) (i32.const 3) (i32.const 100) (i32.const 104) (i32.const 108)))
             (call $ok (call $log (i32.const 2) (i32.load (i32.const 100)) (i32.load (i32.const 104))))
             ;; "/back" and "rear!", which are five bytes each.
             (call $must (i32.load8_u (i32.add (i32.load (i32.const 100)) (i32.const 1))) (i32.const 98))
             (call $ok (call $get_shared (i32.const 51) (i32.const 3) (i32.const 100) (i32.const 104) (i32.const 108)))
             (call $must (i32.load8_u (i32.load (i32.const 100))) (i32.const 114))
             (i32.const 1))
           {} {} {} {} {}"#,
        data(0, ":path"),
        data(16, "request\0path"),
        data(32, "request\0host"),
        data(48, "nowwho"),
        data(64, "request\0duration"),
    ));
    let origin = Origin::answering(|request| async move {
        let notes = request.extensions().get::<Notes>().unwrap();
        notes.rewrite("/back", Some("rear!"));
        Ok(http::Response::new(full("body")))
    });
    let edge = Edge::new(&text, origin, |_| {}).await;
    let got = seen(edge.send(request("/front")).await.unwrap()).await;
    assert_eq!((got.status, got.body.as_str()), (200, "body"));
    let meter = edge.meter();
    assert_eq!(meter.calls["proxy_on_done"].calls, 1);
    assert_eq!(meter.traps, 0, "{:?}", meter.last_trap);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_repeated_lines_the_first_is_the_value_and_a_property_is_all_of_them() {
    let text = guest(&format!(
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
             (call $ok (call $get (i32.const 0) (i32.const 0) (i32.const 3) (i32.const 100) (i32.const 104)))
             (call $must (i32.load (i32.const 104)) (i32.const 1))
             (call $ok (call $get_property (i32.const 16) (i32.const 19) (i32.const 100) (i32.const 104)))
             (call $must (i32.load (i32.const 104)) (i32.const 3))
             (i32.const 0))
           {} {}"#,
        data(0, "x-a"),
        data(16, "request\0headers\0x-a"),
    ));
    let edge = Edge::new(&text, Origin::text("ok"), |_| {}).await;
    let got = seen(edge.send(request("/")).await.unwrap()).await;
    assert_eq!(got.body, "ok");
    assert_eq!(edge.meter().traps, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_property_one_plugin_sets_is_read_by_the_next() {
    let sets = guest(&format!(
        r#"(func (export "proxy_on_configure") (param i32 i32) (result i32)
             ;; The root context has no properties to set.
             (call $must (call $set_property (i32.const 0) (i32.const 5) (i32.const 0) (i32.const 5)) (i32.const 1))
             (i32.const 1))
           (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
             (call $ok (call $set_property (i32.const 0) (i32.const 5) (i32.const 16) (i32.const 2)))
             (i32.const 0))
           {} {}"#,
        data(0, "thing"),
        data(16, "hi"),
    ));
    let reads = guest(&format!(
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
             (call $ok (call $get_property (i32.const 0) (i32.const 5) (i32.const 100) (i32.const 104)))
             (call $ok (call $put (i32.const 0) (i32.const 0) (i32.const 5) (i32.load (i32.const 100))
               (i32.load (i32.const 104))))
             (i32.const 0))
           {}"#,
        data(0, "thing"),
    ));
    let first = Edge::new(&sets, Origin::text(""), |_| {}).await;
    let second = Edge::new(&reads, Origin::text(""), |_| {}).await;
    let chain = vec![
        Arc::clone(&first.layer),
        Arc::clone(&second.layer),
        Origin::text(""),
    ];
    let got = seen(Next::new(chain).run(request("/")).await.unwrap()).await;
    assert!(got.all("x-seen").contains(&"thing=hi"), "{got:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_is_changed_at_its_ends_only() {
    let text = guest(&format!(
        r#"(func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
             (if (i32.eqz (local.get 1)) (then (return (i32.const 0))))
             (call $must (call $set_buffer (i32.const 1) (i32.const 2) (i32.const 1) (i32.const 0) (i32.const 2)) (i32.const 2))
             (call $ok (call $set_buffer (i32.const 1) (i32.const 0) (i32.const 2) (i32.const 0) (i32.const 2)))
             (call $ok (call $set_buffer (i32.const 1) (i32.const 6) (i32.const 0) (i32.const 0) (i32.const 2)))
             (i32.const 0))
           {}"#,
        data(0, "XY"),
    ));
    let origin =
        Origin::answering(|_| async { Ok(http::Response::new(chunks(&["abcdef"], None))) });
    let edge = Edge::new(&text, origin, |_| {}).await;
    assert_eq!(edge.get("/", &[]).await.body, "XYcdefXY");
    assert_eq!(edge.meter().traps, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_counter_is_recorded_and_is_not_incremented_by_nothing() {
    let text = guest(&format!(
        r#"(func (export "proxy_on_configure") (param i32 i32) (result i32)
             (call $ok (call $metric (i32.const 0) (i32.const 0) (i32.const 5) (i32.const 100)))
             (call $ok (call $record (i32.load (i32.const 100)) (i64.const 7)))
             (call $must (call $increment (i32.load (i32.const 100)) (i64.const 0)) (i32.const 2))
             (call $ok (call $increment (i32.load (i32.const 100)) (i64.const 2)))
             (i32.const 1))
           {}"#,
        data(0, "count"),
    ));
    let edge = Edge::new(&text, Origin::text(""), |_| {}).await;
    edge.until("count", 9).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_at_the_bound_has_room_for_what_a_plugin_adds() {
    let text = guest(&format!(
        r#"(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
             (call $ok (call $put (i32.const 2) (i32.const 0) (i32.const 3) (i32.const 0) (i32.const 3)))
             (i32.const 0))
           {}"#,
        data(0, "new"),
    ));
    let origin = Origin::answering(|_| async {
        let mut response = http::Response::new(full("ok"));
        for at in 0..10 {
            let name = http::HeaderName::try_from(format!("x-{at}")).unwrap();
            response.headers_mut().insert(name, 1.into());
        }
        Ok(response)
    });
    let edge = Edge::new(&text, origin, |plugin| plugin.limits.headers = 10).await;
    let got = edge.get("/", &[]).await;
    assert_eq!((got.status, got.all("new")), (200, vec!["new"]));
    assert_eq!(edge.meter().traps, 0);
}
