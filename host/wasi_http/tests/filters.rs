//! A filter in its adapter: gates, tasks, requests onward, and origins that are not reached.

mod support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use edgeweir_host_chain::{Layer, Next, Request, Unreached, full};
use edgeweir_host_wasi_http::{Limits, Plugin};
use http_body::Body as _;
use support::*;

async fn filter_layer(limits: Limits) -> Arc<dyn Layer> {
    layer(Plugin {
        component: filter(),
        limits,
        ..plugin()
    })
    .await
}

#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    fn count(&self, path: &str) -> usize {
        let seen = self.0.lock().expect("not poisoned");
        seen.iter().filter(|one| *one == path).count()
    }

    /// Waits until a path was asked for so often.
    async fn until(&self, path: &str, times: usize) {
        let began = Instant::now();
        while self.count(path) < times {
            assert!(
                began.elapsed() < Duration::from_secs(10),
                "{path} was asked for {} times",
                self.count(path)
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// A chain with an origin that says the path it was asked for, and notes it.
fn noting(layer: &Arc<dyn Layer>, seen: &Seen) -> Next {
    let seen = seen.clone();
    chain(layer, move |request: Request| {
        let path = request.uri().path().to_owned();
        seen.0.lock().expect("not poisoned").push(path.clone());
        async move { Ok(http::Response::new(full(path))) }
    })
}

#[tokio::test]
async fn a_gate_opened_by_one_exchange_lets_the_others_go_on() {
    let layer = filter_layer(Limits::default()).await;
    let chain = noting(&layer, &Seen::default());
    let (status, body) = exchange(&chain, get("/wait-briefly")).await;
    assert_eq!((status, body.as_str()), (200, "it did not open"));
    let waiting: Vec<_> = (0..5)
        .map(|_| {
            let chain = chain.clone();
            tokio::spawn(async move { exchange(&chain, get("/wait")).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(waiting.iter().all(|one| !one.is_finished()));
    let began = Instant::now();
    assert_eq!(exchange(&chain, get("/open")).await.1, "opened it");
    for one in waiting {
        assert_eq!(one.await.expect("an exchange").1, "it opened");
    }
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(exchange(&chain, get("/wait")).await.1, "it opened");
    let meter = layer.meter().expect("metered").snapshot();
    assert_eq!((meter.instances, meter.traps), (1, 0));
}

#[tokio::test]
async fn an_exchange_asks_onward_and_is_sent_on() {
    let layer = filter_layer(Limits::default()).await;
    let seen = Seen::default();
    let chain = noting(&layer, &seen);
    let all: Vec<_> = (0..20)
        .map(|_| tokio::spawn(chain.clone().run(get("/onward"))))
        .collect();
    for one in all {
        let response = one.await.expect("an exchange").expect("a response");
        assert_eq!(response.headers()["first"], "200 /first");
        assert_eq!(text(response).await, "/onward");
    }
    assert_eq!((seen.count("/first"), seen.count("/onward")), (20, 20));
}

#[tokio::test]
async fn a_task_outlives_the_response_and_its_instances_last_request() {
    for (name, requests) in [("kept instance", 100), ("retired after its request", 1)] {
        let layer = filter_layer(Limits {
            requests,
            ..Limits::default()
        })
        .await;
        let seen = Seen::default();
        let chain = noting(&layer, &seen);
        assert_eq!(exchange(&chain, get("/task")).await.1, "/task", "{name}");
        assert_eq!(seen.count("/later"), 0, "{name}: the response came first");
        seen.until("/later", 1).await;
        // Of startup, once per instance.
        seen.until("/startup", 1).await;
        if requests > 1 {
            assert_eq!(exchange(&chain, get("/")).await.0, 200);
            assert_eq!(seen.count("/startup"), 1, "{name}");
        }
        assert_eq!(layer.meter().expect("metered").snapshot().traps, 0);
    }
}

#[tokio::test]
async fn tasks_are_bounded() {
    let layer = filter_layer(Limits::default()).await;
    let seen = Seen::default();
    let chain = noting(&layer, &seen);
    assert_eq!(exchange(&chain, get("/")).await.0, 200);
    seen.until("/startup", 1).await;
    assert_eq!(exchange(&chain, get("/tasks")).await.0, 200);
    seen.until("/later", 64).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(seen.count("/later"), 64);
    // There is room again.
    assert_eq!(exchange(&chain, get("/task")).await.0, 200);
    seen.until("/later", 65).await;
}

#[tokio::test]
async fn an_origin_that_was_not_reached_is_told_from_its_own_answer() {
    let layer = filter_layer(Limits::default()).await;
    for (name, made, status, unreached) in [
        ("its own answer", None, 502, "false"),
        ("refused", Some(Unreached::Refused), 502, "true"),
        ("late", Some(Unreached::Timeout), 504, "true"),
        ("full", Some(Unreached::Full), 503, "true"),
        ("left alone", Some(Unreached::Unavailable), 503, "true"),
    ] {
        let chain = chain(&layer, move |_| async move {
            let mut response = http::Response::builder()
                .status(502)
                .header("proxy-status", "below; error=x")
                .body(full("made"))?;
            if let Some(made) = made {
                response.extensions_mut().insert(made);
            }
            Ok(response)
        });
        let response = chain.run(get("/")).await.expect("a response");
        assert_eq!(response.status(), status, "{name}");
        assert_eq!(response.headers()["unreached"], unreached, "{name}");
        assert_eq!(response.headers()["proxy-status"], "below; error=x");
        // A filter further out is told too.
        assert_eq!(response.extensions().get(), made.as_ref(), "{name}");
    }
}

#[tokio::test]
async fn a_request_with_a_changed_field_is_otherwise_as_it_was() {
    let layer = filter_layer(Limits::default()).await;
    for (authority, status) in [
        ("x", 200),
        ("x:", 200),
        ("[::1]:", 200),
        ("[::1]:8080", 200),
        // The host of the guest lets nobody write such a port.
        ("x:99999", 400),
    ] {
        for method in ["GET", "DELETE", "POST"] {
            let case = format!("{method} {authority}");
            let chain = chain(&layer, move |request: Request| async move {
                assert_eq!(request.headers()["changed"], "yes");
                assert!(request.body().is_end_stream(), "content from nowhere");
                let seen = request.uri().authority().map(ToString::to_string);
                Ok(http::Response::new(full(seen.unwrap_or_default())))
            });
            let request = http::Request::builder()
                .method(method)
                .uri(format!("http://{authority}/changed"))
                .body(edgeweir_host_chain::empty())
                .expect("a request");
            let (got, body) = exchange(&chain, request).await;
            assert_eq!(got, status, "{case}: {body}");
            if got == 200 {
                assert_eq!(body, authority, "{case}");
            }
        }
    }
}

/// Nothing failed that a filter could learn of: those who wait for what the one before asked for are not told that it did.
#[tokio::test]
async fn an_exchange_that_nobody_waits_for_ends_where_it_is() {
    let layer = filter_layer(Limits::default()).await;
    let seen = Seen::default();
    let noted = seen.clone();
    let chain = chain(&layer, move |request: Request| {
        let path = request.uri().path().to_owned();
        noted.0.lock().expect("not poisoned").push(path.clone());
        async move {
            if path == "/opening" {
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
            Ok(http::Response::new(full(path)))
        }
    });
    let leaving = tokio::spawn(chain.clone().run(get("/opening")));
    seen.until("/opening", 1).await;
    leaving.abort();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(
        exchange(&chain, get("/wait-briefly")).await,
        (200, "it did not open".into())
    );
}
