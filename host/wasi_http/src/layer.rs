//! A component as a layer of the chain.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use edgeweir_host_chain::{Error, Layer, Meter, Next, Request, Response, Unreached, full};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Method, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt;
use tokio::sync::oneshot;
use wasmtime_wasi_http::p3::bindings::ServicePre;

use crate::body::Reclaimable;
use crate::component::Loaded;
use crate::context::Guest;
use crate::exchange::{Exchange, check_head};
use crate::instance::{Fresh, GRACE};
use crate::pool::{Job, Pool};
use crate::quiet::Quiet;
use crate::{Limits, OnTrap, Plugin};

/// Why there is no response of the guest.
pub(crate) enum Failure {
    /// The guest's own answer is an error, most often that of the next layer.
    Guest(Error),
    /// No response head within `timeout`.
    Timeout,
    /// No instance, or no room in it.
    Unavailable(String),
    /// Too many wait already.
    Overloaded,
}

/// A plugin that takes part in a chain. Dropping it lets its instances finish and go.
pub(crate) struct Component {
    loaded: Arc<Loaded>,
    pool: Arc<Pool>,
}

impl Component {
    pub(crate) fn new(loaded: Arc<Loaded>, first: Fresh, pre: ServicePre<Guest>) -> Self {
        let pool = Pool::new(loaded.clone(), first, pre);
        Self { loaded, pool }
    }
}

impl Drop for Component {
    fn drop(&mut self) {
        self.pool.close();
    }
}

/// A request on its way into a guest, of whichever version.
pub(crate) struct Entered {
    pub(crate) request: http::Request<Reclaimable>,
    pub(crate) exchange: Arc<Exchange>,
    /// What is there should the guest fail.
    pub(crate) saved: Option<Saved>,
}

/// A request kept for the case that the guest traps.
pub(crate) struct Saved {
    parts: http::request::Parts,
    body: Reclaimable,
    next: Next,
    exchange: Arc<Exchange>,
}

impl Entered {
    /// Begins the exchange of a request; it is kept where a guest that traps is passed by.
    pub(crate) fn new(request: Request, next: Next, plugin: &Plugin) -> Self {
        let (parts, body) = request.into_parts();
        let kept = (plugin.on_trap == OnTrap::PassThrough).then(|| (parts.clone(), next.clone()));
        let (exchange, parts) = Exchange::begin(parts, next, &plugin.limits, body.is_end_stream());
        let body = Reclaimable::new(body, exchange.quiet.clone());
        let exchange = Arc::new(exchange);
        let saved = kept.map(|(parts, next)| Saved {
            parts,
            body: body.clone(),
            next,
            exchange: exchange.clone(),
        });
        Self {
            request: http::Request::from_parts(parts, body),
            exchange,
            saved,
        }
    }
}

impl Saved {
    fn reclaim(self) -> Option<(Request, Next)> {
        if !self.exchange.may_resend() {
            return None;
        }
        Some((
            http::Request::from_parts(self.parts, self.body.reclaim()?),
            self.next,
        ))
    }
}

/// The answer to a request that no guest is asked.
pub(crate) fn refusal(request: &Request, limits: &Limits) -> Option<Response> {
    if check_head(request.headers(), limits.headers, limits.header_bytes).is_err() {
        return Some(plain(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "the request's header section is too large\n",
        ));
    }
    // A tunnel is no exchange a filter could see into.
    (request.method() == Method::CONNECT)
        .then(|| plain(StatusCode::NOT_IMPLEMENTED, "CONNECT is not supported\n"))
}

/// What the client gets where the guest failed it.
pub(crate) async fn without_guest(saved: Option<Saved>) -> Result<Response, Error> {
    if let Some(saved) = saved
        && let Some((request, next)) = saved.reclaim()
    {
        return next.run(request).await;
    }
    Ok(plain(
        StatusCode::INTERNAL_SERVER_ERROR,
        "a filter failed\n",
    ))
}

/// Ready when the guest took too long, and had time to say so.
async fn late(quiet: &Quiet) {
    quiet.over().await;
    tokio::time::sleep(GRACE).await;
}

/// What it gets where the guest took too long.
pub(crate) fn too_late() -> Response {
    let mut response = plain(
        StatusCode::GATEWAY_TIMEOUT,
        "a filter did not answer in time\n",
    );
    response.extensions_mut().insert(Unreached::Timeout);
    response
}

#[async_trait]
impl Layer for Component {
    fn name(&self) -> &str {
        &self.loaded.plugin.name
    }

    fn meter(&self) -> Option<&Arc<Meter>> {
        Some(&self.loaded.meter)
    }

    async fn handle(&self, request: Request, next: Next) -> Result<Response, Error> {
        let plugin = &self.loaded.plugin;
        let limits = &plugin.limits;
        self.loaded.meter.exchanges.fetch_add(1, Ordering::Relaxed);
        if let Some(refusal) = refusal(&request, limits) {
            return Ok(refusal);
        }
        let Entered {
            request,
            exchange,
            saved,
        } = Entered::new(request, next, plugin);
        let (reply, response) = oneshot::channel();
        let quiet = exchange.quiet.clone();
        let request = request.map(BodyExt::boxed_unsync);
        let outcome = match self.pool.push(Job {
            request,
            exchange,
            reply,
        }) {
            // An instance that computes cannot look at the clock; here someone does.
            Ok(()) => tokio::select! {
                biased;
                outcome = response => match outcome {
                    Ok(outcome) => outcome,
                    // The sender went with its store: the guest trapped.
                    Err(_) => return without_guest(saved).await,
                },
                () = late(&quiet) => Err(Failure::Timeout),
            },
            Err(failure) => Err(failure),
        };
        match outcome {
            Ok(response) => Ok(response),
            Err(Failure::Guest(error)) => Err(error),
            Err(Failure::Timeout) => Ok(too_late()),
            Err(Failure::Unavailable(why)) => {
                tracing::warn!(plugin = %plugin.name, "a request had no instance: {why}");
                without_guest(saved).await
            }
            Err(Failure::Overloaded) => {
                let mut response = plain(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "too many requests wait for a filter\n",
                );
                response
                    .headers_mut()
                    .insert(RETRY_AFTER, HeaderValue::from_static("1"));
                Ok(response)
            }
        }
    }
}

pub(crate) fn plain(status: StatusCode, text: &'static str) -> Response {
    let mut response = http::Response::new(full(text));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}
