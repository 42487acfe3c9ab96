//! Guests written as text, a chain around them, an origin behind.
#![allow(dead_code, reason = "every test file uses its part")]

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use edgeweir_host_chain::{Body, Error, Layer, MeterSnapshot, Next, Request, Response, full};
use edgeweir_host_proxy_wasm::{Plugin, Runtime, RuntimeOptions, load};
use http::header::HeaderMap;
use http_body::Frame;
use http_body_util::BodyExt;

/// Every function of the ABI, an allocator, and a few words of shorthand. `$put` writes a header to a map: map, then
/// offset and length of name and value. `$must` traps unless a status is what was expected.
pub const PRELUDE: &str = r#"
  (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
  (import "env" "proxy_get_log_level" (func $log_level (param i32) (result i32)))
  (import "env" "proxy_get_current_time_nanoseconds" (func $now (param i32) (result i32)))
  (import "env" "proxy_set_tick_period_milliseconds" (func $set_tick (param i32) (result i32)))
  (import "env" "proxy_get_property" (func $get_property (param i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_set_property" (func $set_property (param i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_get_buffer_bytes" (func $get_buffer (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_set_buffer_bytes" (func $set_buffer (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_get_buffer_status" (func $buffer_status (param i32 i32 i32) (result i32)))
  (import "env" "proxy_get_header_map_size" (func $map_size (param i32 i32) (result i32)))
  (import "env" "proxy_get_header_map_pairs" (func $pairs (param i32 i32 i32) (result i32)))
  (import "env" "proxy_set_header_map_pairs" (func $set_pairs (param i32 i32 i32) (result i32)))
  (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_add_header_map_value" (func $put (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_replace_header_map_value" (func $replace (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_remove_header_map_value" (func $remove (param i32 i32 i32) (result i32)))
  (import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
  (import "env" "proxy_close_stream" (func $close (param i32) (result i32)))
  (import "env" "proxy_send_local_response" (func $reply (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_http_call" (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_grpc_send" (func $grpc_send (param i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_grpc_cancel" (func $grpc_cancel (param i32) (result i32)))
  (import "env" "proxy_grpc_close" (func $grpc_close (param i32) (result i32)))
  (import "env" "proxy_get_status" (func $status (param i32 i32 i32) (result i32)))
  (import "env" "proxy_get_shared_data" (func $get_shared (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_set_shared_data" (func $set_shared (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_register_shared_queue" (func $register (param i32 i32 i32) (result i32)))
  (import "env" "proxy_resolve_shared_queue" (func $resolve (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_dequeue_shared_queue" (func $dequeue (param i32 i32 i32) (result i32)))
  (import "env" "proxy_enqueue_shared_queue" (func $enqueue (param i32 i32 i32) (result i32)))
  (import "env" "proxy_define_metric" (func $metric (param i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_increment_metric" (func $increment (param i32 i64) (result i32)))
  (import "env" "proxy_record_metric" (func $record (param i32 i64) (result i32)))
  (import "env" "proxy_get_metric" (func $get_metric (param i32 i32) (result i32)))
  (import "env" "proxy_call_foreign_function" (func $foreign (param i32 i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_set_effective_context" (func $effective (param i32) (result i32)))
  (import "env" "proxy_done" (func $done (result i32)))
  (memory (export "memory") 16)
  (global $heap (mut i32) (i32.const 524288))
  (func $allocate (export "proxy_on_memory_allocate") (param i32) (result i32)
    (local $at i32)
    (local.set $at (global.get $heap))
    (global.set $heap (i32.add (global.get $heap) (i32.and (i32.add (local.get 0) (i32.const 15)) (i32.const -16))))
    (if (i32.gt_u (global.get $heap) (i32.const 1000000)) (then
      (local.set $at (i32.const 524288))
      (global.set $heap (i32.add (i32.const 524288) (i32.and (i32.add (local.get 0) (i32.const 15)) (i32.const -16))))))
    (local.get $at))
  (func $must (param $got i32) (param $want i32)
    (if (i32.ne (local.get $got) (local.get $want)) (then unreachable)))
  (func $ok (param $got i32) (call $must (local.get $got) (i32.const 0)))
"#;

/// A module of ABI 0.2.1 with the prelude and these functions and data.
pub fn guest(rest: &str) -> String {
    format!("(module {PRELUDE} (func (export \"proxy_abi_version_0_2_1\")) {rest})")
}

/// A data segment at an offset.
pub fn data(at: usize, text: &str) -> String {
    let bytes: String = text.bytes().map(|byte| format!("\\{byte:02x}")).collect();
    format!("(data (i32.const {at}) \"{bytes}\")")
}

/// The wire form of a header map as a data segment, and its length.
pub fn pairs(at: usize, pairs: &[(&str, &str)]) -> (String, usize) {
    let mut wire = (pairs.len() as u32).to_le_bytes().to_vec();
    for (name, value) in pairs {
        wire.extend((name.len() as u32).to_le_bytes());
        wire.extend((value.len() as u32).to_le_bytes());
    }
    for (name, value) in pairs {
        wire.extend(name.bytes());
        wire.push(0);
        wire.extend(value.bytes());
        wire.push(0);
    }
    let bytes: String = wire.iter().map(|byte| format!("\\{byte:02x}")).collect();
    (format!("(data (i32.const {at}) \"{bytes}\")"), wire.len())
}

type Answer = Pin<Box<dyn Future<Output = Result<Response, Error>> + Send>>;

/// The last layer of a test's chain.
pub struct Origin(Box<dyn Fn(Request) -> Answer + Send + Sync>);

impl Origin {
    pub fn answering<F>(answer: impl Fn(Request) -> F + Send + Sync + 'static) -> Arc<dyn Layer>
    where
        F: Future<Output = Result<Response, Error>> + Send + 'static,
    {
        Arc::new(Origin(Box::new(move |request| Box::pin(answer(request)))))
    }

    /// Answers 200 with the text; `x-seen` has the request's own headers, one `name=value` a line.
    pub fn text(text: &'static str) -> Arc<dyn Layer> {
        Self::answering(move |request| async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let mut response = Response::new(full(text));
            let headers = response.headers_mut();
            headers.insert("content-length", text.len().into());
            headers.insert("x-uri", parts.uri.to_string().parse()?);
            headers.insert("x-body", http::HeaderValue::from_bytes(&body)?);
            for (name, value) in &parts.headers {
                headers.append("x-seen", format!("{name}={}", value.to_str()?).parse()?);
            }
            Ok(response)
        })
    }
}

#[async_trait]
impl Layer for Origin {
    fn name(&self) -> &str {
        "origin"
    }

    async fn handle(&self, request: Request, _next: Next) -> Result<Response, Error> {
        (self.0)(request).await
    }
}

/// A body in these chunks, with trailers if there are any.
pub fn chunks(chunks: &[&'static str], trailers: Option<HeaderMap>) -> Body {
    let data = chunks
        .iter()
        .map(|chunk| Ok::<_, Error>(Frame::data(Bytes::from_static(chunk.as_bytes()))));
    let frames: Vec<_> = data
        .chain(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
        .collect();
    let mut frames = frames.into_iter();
    Frames(Mutex::new(Box::new(move || frames.next()))).boxed_unsync()
}

type Pull = Box<dyn FnMut() -> Option<Result<Frame<Bytes>, Error>> + Send>;

struct Frames(Mutex<Pull>);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Error>>> {
        std::task::Poll::Ready((self.0.lock().unwrap())())
    }
}

/// A runtime, one plugin, an origin.
pub struct Edge {
    pub layer: Arc<dyn Layer>,
    next: Next,
    _folder: tempfile::TempDir,
}

impl Edge {
    /// Loads a guest with one instance; `set` changes the plugin before.
    pub async fn new(
        text: impl AsRef<str>,
        origin: Arc<dyn Layer>,
        set: impl FnOnce(&mut Plugin),
    ) -> Edge {
        Self::try_new(text.as_ref().as_bytes(), origin, set)
            .await
            .unwrap_or_else(|error| panic!("{error:#}"))
    }

    pub async fn try_new(
        module: &[u8],
        origin: Arc<dyn Layer>,
        set: impl FnOnce(&mut Plugin),
    ) -> anyhow::Result<Edge> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("guest.wasm");
        let binary = if module.starts_with(b"(") {
            wat::parse_bytes(module)?.into_owned()
        } else {
            module.to_vec()
        };
        std::fs::write(&path, binary)?;
        let runtime = Runtime::new(RuntimeOptions::default())?;
        let mut plugin = Plugin::new("guest", path);
        plugin.instances = 1;
        set(&mut plugin);
        let layer = load(&runtime, plugin).await?;
        let next = Next::new(vec![Arc::clone(&layer), origin]);
        Ok(Edge {
            layer,
            next,
            _folder: folder,
        })
    }

    pub async fn send(&self, request: Request) -> Result<Response, Error> {
        self.next.clone().run(request).await
    }

    /// A GET; status, headers and body of what comes back.
    pub async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Seen {
        let mut request = http::Request::builder()
            .uri(path)
            .header("host", "example.com");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self
            .send(request.body(edgeweir_host_chain::empty()).unwrap())
            .await
            .unwrap();
        seen(response).await
    }

    pub fn meter(&self) -> MeterSnapshot {
        self.layer.meter().unwrap().snapshot()
    }

    /// Waits until a metric of the plugin has a value.
    pub async fn until(&self, metric: &str, value: u64) {
        for _ in 0..400 {
            if self.meter().counters.get(metric) == Some(&value) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!(
            "{metric} did not become {value}: {:?}",
            self.meter().counters
        );
    }
}

/// A response that was read to its end.
#[derive(Debug)]
pub struct Seen {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
    pub trailers: Option<HeaderMap>,
}

impl Seen {
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers
            .get_all(name)
            .iter()
            .map(|value| value.to_str().unwrap())
            .collect()
    }
}

pub async fn seen(response: Response) -> Seen {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap();
    let trailers = body.trailers().cloned();
    let body = String::from_utf8(body.to_bytes().to_vec()).unwrap();
    Seen {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body,
        trailers,
    }
}
