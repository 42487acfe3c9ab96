//! The order of callbacks, which is Envoy's: `edgeweir diff` found each of these to be otherwise once.

mod support;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use edgeweir_host_chain::{Layer, Next, Request, Response, Witness, World, empty, full};
use edgeweir_host_proxy_wasm::{Limits, Plugin, Program, Runtime, RuntimeOptions};
use http_body_util::BodyExt;
use support::{Origin, data, guest, seen};

#[derive(Default)]
struct Watching(Mutex<Vec<&'static str>>);

impl Witness for Watching {
    fn log(&self, _: Option<u8>, _: &str) {}
    fn callback(&self, context: u32, name: &'static str) {
        if context > 1 {
            let name = name.trim_start_matches("proxy_on_");
            self.0.lock().unwrap().push(name);
        }
    }
}

/// Every callback of an exchange; the response's head is left to the caller.
fn with_response(headers: &str) -> String {
    guest(&format!(
        r#"(func (export "proxy_on_context_create") (param i32 i32))
           (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 0))
           (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (i32.const 0))
           (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) {headers})
           (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32) (i32.const 0))
           (func (export "proxy_on_done") (param i32) (result i32) (i32.const 1))
           (func (export "proxy_on_log") (param i32))
           (func (export "proxy_on_delete") (param i32))
           {}"#,
        data(0, "new"),
    ))
}

fn passing() -> String {
    with_response("(i32.const 0)")
}

fn replacing() -> String {
    with_response(
        "(call $ok (call $reply (i32.const 200) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 3)
           (i32.const 0) (i32.const 0) (i32.const -1)))
         (i32.const 1)",
    )
}

/// A chain of these guests, and who watches each.
fn chain(guests: &[String], origin: Arc<dyn Layer>) -> (Next, Vec<Arc<Watching>>) {
    let folder = tempfile::tempdir().unwrap();
    let runtime = Runtime::new(RuntimeOptions::default()).unwrap();
    let (mut layers, mut all) = (Vec::new(), Vec::new());
    for (at, text) in guests.iter().enumerate() {
        let file = folder.path().join(format!("{at}.wasm"));
        std::fs::write(&file, wat::parse_str(text).expect("the guest is good")).unwrap();
        let program = Program::compile(&runtime, &file, &Limits::default()).unwrap();
        let watching = Arc::new(Watching::default());
        let world = World {
            witness: Some(watching.clone()),
            ..World::default()
        };
        let mut plugin = Plugin::new(format!("guest{at}"), &file);
        plugin.instances = 1;
        let layer = program.start(&runtime, plugin, world).unwrap();
        layers.push(layer as Arc<dyn Layer>);
        all.push(watching);
    }
    layers.push(origin);
    (Next::new(layers), all)
}

fn called(watching: &Watching) -> String {
    watching.0.lock().unwrap().join(" ")
}

#[tokio::test]
async fn an_exchange_is_logged_then_done_then_deleted() {
    let (chain, all) = chain(&[passing()], Origin::text("old"));
    let got = seen(chain.run(Request::new(empty())).await.unwrap()).await;
    assert_eq!(got.body, "old");
    assert_eq!(
        called(&all[0]),
        "context_create request_headers response_headers response_body log done delete"
    );
}

#[tokio::test]
async fn a_response_in_place_of_another_passes_the_filters_before() {
    let (chain, all) = chain(&[passing(), replacing()], Origin::text("old"));
    let got = seen(chain.run(Request::new(empty())).await.unwrap()).await;
    assert_eq!(got.body, "new");
    assert_eq!(
        called(&all[0]),
        "context_create request_headers log done delete"
    );
    assert_eq!(
        called(&all[1]),
        "context_create request_headers response_headers log done delete"
    );
}

#[tokio::test]
async fn a_stream_that_is_closed_has_no_response() {
    let closing = with_response("(call $ok (call $close (i32.const 1))) (i32.const 1)");
    let (chain, all) = chain(&[passing(), closing], Origin::text("old"));
    assert!(chain.run(Request::new(empty())).await.is_err());
    assert_eq!(
        called(&all[0]),
        "context_create request_headers log done delete"
    );
    assert_eq!(
        called(&all[1]),
        "context_create request_headers response_headers log done delete"
    );
}

#[tokio::test]
async fn nobody_answers_a_client_that_left_in_its_request() {
    let origin = || {
        Origin::answering(|request| async move {
            let mut response = Response::new(full("cut"));
            if request.into_body().collect().await.is_err() {
                *response.status_mut() = http::StatusCode::BAD_GATEWAY;
            }
            Ok(response)
        })
    };
    let failing = || {
        Origin::answering(|request| async move {
            request.into_body().collect().await?;
            Ok(Response::new(full("whole")))
        })
    };
    for origin in [origin(), failing()] {
        let (chain, all) = chain(&[passing()], origin);
        let (mut sender, body) =
            http_body_util::channel::Channel::<Bytes, edgeweir_host_chain::Error>::new(4);
        sender.send_data("part".into()).await.unwrap();
        tokio::spawn(async move { sender.abort("gone".into()) });
        drop(chain.run(Request::new(body.boxed_unsync())).await);
        assert_eq!(
            called(&all[0]),
            "context_create request_headers request_body log done delete"
        );
    }
}
