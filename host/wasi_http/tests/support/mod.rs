//! The guest, built once, and the layers around it.
#![allow(dead_code, reason = "each test file uses its part")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use edgeweir_host_chain::{
    Answering, Body, Clusters, Error, Layer, Next, Peer, Request, Response, Within, full,
};
use edgeweir_host_wasi_http::{Limits, OnTrap, Plugin, Runtime, RuntimeOptions, load};
use http_body_util::BodyExt as _;
use http_body_util::channel::{Channel, Sender};

/// The guest component; built at the first call.
pub fn guest() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build("guest")).clone()
}

/// The component of a filter in its adapter; built at the first call.
pub fn filter() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build("filter")).clone()
}

/// Builds the component in a folder of the tests.
pub fn build(folder: &str) -> PathBuf {
    build_for("wasm32-wasip2", folder)
}

/// Builds what is in a folder of the tests.
pub fn build_for(triple: &str, folder: &str) -> PathBuf {
    let manifest = Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"))
        .join(format!("tests/{folder}/Cargo.toml"));
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("the target folder")
        .join("guests-wasi");
    let status = Command::new(env!("CARGO"))
        .args([
            "build",
            "--quiet",
            "--release",
            "--target",
            triple,
            "--manifest-path",
        ])
        .arg(manifest)
        .env("CARGO_TARGET_DIR", &target)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTFLAGS")
        .status()
        .expect("cargo runs");
    assert!(status.success(), "the {folder} does not build");
    target.join(format!("{triple}/release/wasi_http_test_{folder}.wasm"))
}

pub fn plugin() -> Plugin {
    Plugin {
        name: "guest".into(),
        component: guest(),
        environment: [("GREETING".into(), "good day".into())].into(),
        variables: [("answer".into(), "42".into())].into(),
        limits: Limits::default(),
        on_trap: OnTrap::Respond,
        allowed_outbound: Vec::new(),
        stores: None,
        databases: Vec::new(),
        files: None,
    }
}

/// Where what is compiled is kept for the next run.
pub fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("wasi-http-compiled")
}

/// One runtime for the tests of a file: they share the compiled guest.
pub fn runtime() -> Arc<Runtime> {
    static RUNTIME: OnceLock<Arc<Runtime>> = OnceLock::new();
    RUNTIME
        .get_or_init(|| {
            let options = RuntimeOptions {
                cache_dir: Some(cache()),
                ..RuntimeOptions::default()
            };
            Runtime::new(options).expect("a runtime")
        })
        .clone()
}

pub async fn layer(plugin: Plugin) -> Arc<dyn Layer> {
    load(&runtime(), plugin).await.expect("the guest loads")
}

/// The end of a chain, made of a function.
pub struct Origin<F>(pub F);

#[async_trait]
impl<F, R> Layer for Origin<F>
where
    F: Fn(Request) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Response, Error>> + Send + 'static,
{
    fn name(&self) -> &str {
        "origin"
    }

    async fn handle(&self, request: Request, _: Next) -> Result<Response, Error> {
        (self.0)(request).await
    }
}

pub fn chain<F, R>(layer: &Arc<dyn Layer>, origin: F) -> Next
where
    F: Fn(Request) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Response, Error>> + Send + 'static,
{
    Next::new(vec![layer.clone(), Arc::new(Origin(origin))])
}

/// A chain with an origin that says hello.
pub fn hello(layer: &Arc<dyn Layer>) -> Next {
    chain(layer, |_| async { Ok(http::Response::new(full("hello"))) })
}

pub fn get(path: &str) -> Request {
    request("GET", path, full(""))
}

pub fn request(method: &str, path: &str, body: Body) -> Request {
    let mut request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("host", "example.test")
        .body(body)
        .expect("a request");
    request
        .extensions_mut()
        .insert(Peer(([192, 0, 2, 7], 4711).into()));
    request
}

/// A body written by the test as it goes.
pub fn channel() -> (Sender<Bytes, Error>, Body) {
    let (sender, body) = Channel::<Bytes, Error>::new(1);
    (sender, body.boxed_unsync())
}

pub async fn bytes(response: Response) -> Result<Bytes, Error> {
    Ok(response.into_body().collect().await?.to_bytes())
}

pub async fn text(response: Response) -> String {
    String::from_utf8_lossy(&bytes(response).await.expect("a whole body")).into_owned()
}

/// Status and text of one exchange.
pub async fn exchange(chain: &Next, request: Request) -> (u16, String) {
    let response = chain.clone().run(request).await.expect("a response");
    (response.status().as_u16(), text(response).await)
}

/// An application of Spin that says whom it was asked for.
struct Application;

impl Clusters for Application {
    fn knows(&self, name: &str) -> bool {
        name.starts_with("self.alt:")
    }

    fn call(&self, name: &str, _: Request) -> Answering {
        let status = if self.knows(name) { 201 } else { 500 };
        let mut response = Response::new(full(""));
        *response.status_mut() = http::StatusCode::from_u16(status).expect("a status");
        Box::pin(async move { Ok(response) })
    }
}

/// A request in an application.
pub fn within(mut request: Request) -> Request {
    request
        .extensions_mut()
        .insert(Within(Arc::new(Application)));
    request
}
