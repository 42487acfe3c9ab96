//! Callouts: HTTP requests of a plugin to its clusters.

use std::sync::Weak;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use edgeweir_host_chain::World;
use http::header::{HeaderMap, HeaderValue};
use http::{StatusCode, response};
use http_body_util::BodyExt;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::host::{CalloutAnswer, Host, ROOT};
use crate::worker::Worker;

/// How long connecting may take, whatever the call's own time-out.
const CONNECT: Duration = Duration::from_secs(10);

/// The pooled HTTP/1.1 client of all plugins.
#[derive(Clone)]
pub(crate) struct Client {
    pool: hyper_util::client::legacy::Client<HttpConnector, edgeweir_host_chain::Body>,
}

impl Client {
    pub(crate) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT));
        let pool = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .build(connector);
        Self { pool }
    }

    async fn call(
        &self,
        request: edgeweir_host_chain::Request,
        most: usize,
    ) -> Option<CalloutAnswer> {
        let response = self.pool.request(request).await.ok()?;
        let response = response.map(|body| {
            body.map_err(edgeweir_host_chain::Error::from)
                .boxed_unsync()
        });
        read(response, most).await
    }
}

/// Reads an answer to its end, where its body is not longer than that.
async fn read(response: edgeweir_host_chain::Response, most: usize) -> Option<CalloutAnswer> {
    let (head, mut body) = response.into_parts();
    let (mut bytes, mut trailers) = (BytesMut::new(), None);
    while let Some(frame) = body.frame().await {
        match frame.ok()?.into_data() {
            Ok(data) if bytes.len() + data.len() > most => return None,
            Ok(data) => bytes.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Some(CalloutAnswer::new(head, bytes.freeze(), trailers))
}

/// A callout to be made.
pub(crate) struct Callout {
    pub(crate) token: u32,
    pub(crate) generation: u64,
    pub(crate) worker: Weak<Worker>,
    pub(crate) cluster: String,
    pub(crate) request: edgeweir_host_chain::Request,
    /// `None` waits as long as the cluster does.
    pub(crate) timeout: Option<Duration>,
    /// The largest body of an answer, bytes.
    pub(crate) most: usize,
}

impl Callout {
    /// Makes the call and delivers its answer: a time-out as 504, no answer as 503. As in Envoy it is the root context's, which
    /// hears of it even where the stream that asked is over.
    pub(crate) async fn run(self, client: Client, world: World) {
        let Callout {
            token,
            generation,
            worker,
            cluster,
            request,
            timeout,
            most,
        } = self;
        let asked = async {
            match &world.clusters {
                Some(clusters) => read(clusters.call(&cluster, request).await.ok()?, most).await,
                None => client.call(request, most).await,
            }
        };
        let asked = async {
            match timeout {
                Some(timeout) => tokio::time::timeout(timeout, asked).await,
                None => Ok(asked.await),
            }
        };
        let answer = match asked.await {
            Ok(Some(answer)) => answer,
            Ok(None) => failed(
                StatusCode::SERVICE_UNAVAILABLE,
                "upstream connect error or disconnect",
            ),
            Err(_) => failed(StatusCode::GATEWAY_TIMEOUT, "upstream request timeout"),
        };
        let Some(worker) = worker.upgrade() else {
            return;
        };
        let delivered = worker.enter(generation, |vm| {
            let host = vm.store.data_mut();
            end(host, token);
            let (headers, body, trailers) = (
                answer.fields.len() as u32,
                answer.body.len() as u32,
                answer.trailers.len() as u32,
            );
            host.answer = Some(answer);
            let callback = vm.exports.http_call_response.clone();
            let params = (ROOT, token, headers, body, trailers);
            let called = vm.call(
                "proxy_on_http_call_response",
                callback.as_ref(),
                ROOT,
                params,
            );
            vm.store.data_mut().answer = None;
            called.map(drop)
        });
        // A trap in the callback was reported, and its streams told, where it happened.
        let _ = delivered.await;
    }
}

/// Ends a call's entry in the books.
fn end(host: &mut Host, token: u32) {
    match host.callouts.remove(&token) {
        Some(ROOT) => host.root_callouts = host.root_callouts.saturating_sub(1),
        Some(context) => {
            if let Some(stream) = host.streams.get_mut(&context) {
                stream.callouts = stream.callouts.saturating_sub(1);
            }
        }
        None => {}
    }
}

fn failed(status: StatusCode, text: &'static str) -> CalloutAnswer {
    let mut headers = HeaderMap::new();
    headers.insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain"),
    );
    headers.insert(http::header::CONTENT_LENGTH, HeaderValue::from(text.len()));
    let (mut head, ()) = http::Response::new(()).into_parts();
    (head.status, head.headers) = (status, headers);
    let head: response::Parts = head;
    CalloutAnswer::new(head, Bytes::from_static(text.as_bytes()), None)
}
