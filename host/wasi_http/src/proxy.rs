//! Proxies of wasi:http 0.2 (`wasi:http/incoming-handler`), as older toolchains make them.
//!
//! Each exchange has an instance of its own, as such components expect. What one sends by `outgoing-handler` to a host it was
//! allowed goes there; what it sends to the host that the client asked goes to the next layer, so that a proxy of the old kind is a
//! filter like any other, but in an application of Spin, where it is an end. Anything else is denied: what is meant for another
//! host, credentials in it, is nothing for this one's origin.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use edgeweir_host_chain::{
    self as chain, Error, Layer, Meter, Next, Request, Response, thread_cpu,
};
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::sync::{Semaphore, oneshot};
use wasmtime::{Store, UpdateDeadline, format_err};
use wasmtime_wasi_http::WasiHttpView as _;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::p2::bindings::{Proxy as Bound, ProxyPre};

use crate::body::{Unbroken, copied};
use crate::component::Loaded;
use crate::context::Guest;
use crate::instance::{GRACE, Instance};
use crate::layer::{Entered, plain, refusal, too_late, without_guest};
use crate::runtime::TICK;

/// A component of the old kind in a chain.
pub(crate) struct Proxy {
    loaded: Arc<Loaded>,
    pre: ProxyPre<Guest>,
    /// As many exchanges at once as a component of the new kind may have.
    room: Arc<Semaphore>,
}

impl Proxy {
    /// Starts one instance to see that it can be done.
    pub(crate) async fn new(loaded: Arc<Loaded>, pre: ProxyPre<Guest>) -> wasmtime::Result<Self> {
        let limits = &loaded.plugin.limits;
        let room = limits.instances.saturating_mul(limits.concurrent);
        let proxy = Self {
            room: Arc::new(Semaphore::new(room.min(Semaphore::MAX_PERMITS))),
            loaded,
            pre,
        };
        proxy.instantiate().await?;
        Ok(proxy)
    }

    async fn instantiate(&self) -> wasmtime::Result<(Store<Guest>, Bound, Arc<Slice>)> {
        let loaded = &self.loaded;
        let guest = Guest::new(loaded.clone(), Arc::new(Instance::default()));
        let mut store = Store::new(&loaded.runtime.engine, guest);
        store.limiter(|guest| &mut guest.limiter);
        if loaded.runtime.fuel {
            store.set_fuel(u64::MAX)?;
        }
        let slice = Arc::new(Slice::default());
        let limit = loaded.plugin.limits.deadline;
        let most = u64::try_from(limit.as_nanos() / TICK.as_nanos())
            .unwrap_or(u64::MAX)
            .max(1);
        let ticking = slice.clone();
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(move |_| {
            if ticking.ticks.fetch_add(1, Ordering::Relaxed) >= most {
                return Err(format_err!(
                    "the guest ran for its `deadline` of {limit:?} without waiting for anything"
                ));
            }
            ticking.interrupted.store(true, Ordering::Relaxed);
            Ok(UpdateDeadline::Yield(1))
        });
        let bound = self.pre.instantiate_async(&mut store).await?;
        loaded.meter.instances.fetch_add(1, Ordering::Relaxed);
        Ok((store, bound, slice))
    }
}

/// How long a guest has been computing.
#[derive(Default)]
struct Slice {
    ticks: AtomicU64,
    interrupted: AtomicBool,
    busy_ns: AtomicU64,
    cpu_ns: AtomicU64,
}

#[async_trait]
impl Layer for Proxy {
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
        let taking = self.room.clone().acquire_owned();
        let Ok(Ok(place)) = tokio::time::timeout(limits.timeout, taking).await else {
            return Ok(plain(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many requests wait for a filter\n",
            ));
        };
        let Entered {
            request,
            exchange,
            saved,
        } = Entered::new(request, next, plugin);
        let (mut store, bound, slice) = match self.instantiate().await {
            Ok(made) => made,
            Err(error) => {
                tracing::warn!(plugin = %plugin.name, "a request had no instance: {error:?}");
                return without_guest(saved).await;
            }
        };
        store.data_mut().hooks.within = exchange.within();
        store.data_mut().hooks.next = Some(exchange.clone());
        let (sender, answer) = oneshot::channel();
        let given = {
            let meter = self.loaded.meter.clone();
            let request = request.map(|body| copied(body, meter));
            let mut http = store.data_mut().http();
            let request = http.new_incoming_request(Scheme::Http, request);
            request.and_then(|request| Ok((request, http.new_response_outparam(sender)?)))
        };
        let (request, out) = match given {
            Ok(given) => given,
            Err(error) => return Err(error.to_string().into()),
        };
        let loaded = self.loaded.clone();
        let instance = store.data().instance.clone();
        let dying = instance.clone();
        let running = tokio::spawn(async move {
            let _place = place;
            let handler = bound.wasi_http_incoming_handler();
            let ended = {
                let mut call = pin!(handler.call_handle(&mut store, request, out));
                poll_fn(|cx| {
                    let began = Instant::now();
                    let cpu = loaded.runtime.cpu_time.then(thread_cpu);
                    slice.interrupted.store(false, Ordering::Relaxed);
                    let poll = call.as_mut().poll(cx);
                    let busy = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
                    slice.busy_ns.fetch_add(busy, Ordering::Relaxed);
                    if let Some(before) = cpu {
                        // A poll stays on its thread from its beginning to its end.
                        let spent = thread_cpu().saturating_sub(before).as_nanos();
                        let spent = u64::try_from(spent).unwrap_or(u64::MAX);
                        slice.cpu_ns.fetch_add(spent, Ordering::Relaxed);
                    }
                    if !slice.interrupted.load(Ordering::Relaxed) {
                        // It waits for something outside: its time begins anew.
                        slice.ticks.store(0, Ordering::Relaxed);
                    }
                    poll
                })
                .await
            };
            let busy = Duration::from_nanos(slice.busy_ns.load(Ordering::Relaxed));
            let fuel = match loaded.runtime.fuel {
                true => store.get_fuel().map_or(0, |left| u64::MAX - left),
                false => 0,
            };
            loaded.meter.call("handle", busy, fuel);
            if loaded.runtime.cpu_time {
                let spent = Duration::from_nanos(slice.cpu_ns.load(Ordering::Relaxed));
                loaded.meter.cpu("handle", spent);
            }
            store.data_mut().flush();
            if let Err(error) = ended {
                dying.die();
                let message = format!("{error:?}");
                tracing::error!(plugin = %loaded.plugin.name, "the guest trapped: {message}");
                loaded.meter.trap("handle", message);
            }
        });
        let running = Running(running.abort_handle());
        let forwarded = || exchange.forwarded.load(Ordering::Relaxed) > 0;
        let answer = tokio::select! {
            biased;
            answer = answer => answer,
            () = exchange.quiet.over() => return Ok(too_late()),
        };
        match answer {
            // RFC 9110 §15.2: an interim response, and a switch of protocols, is no answer.
            Ok(Ok(response)) if response.status().is_informational() => {
                let status = response.status().as_u16();
                tracing::error!(plugin = %plugin.name, "the guest answered with the interim status {status}");
                Ok(plain(StatusCode::BAD_GATEWAY, "a filter failed\n"))
            }
            Ok(Ok(response)) => {
                if !forwarded() {
                    self.loaded.meter.answered.fetch_add(1, Ordering::Relaxed);
                }
                let meter = self.loaded.meter.clone();
                Ok(response.map(|body| {
                    let answering = Answering {
                        body: Unbroken::new(body, instance),
                        meter,
                        _running: running,
                    };
                    answering.boxed_unsync()
                }))
            }
            Ok(Err(code)) => Err(format!("the filter answered with {code:?}").into()),
            // The sender went with the store: the guest trapped, which was told, or ended without an answer.
            Err(_) => {
                if !instance.is_dead() {
                    tracing::error!(plugin = %plugin.name, "the guest returned without `response-outparam.set`");
                }
                without_guest(saved).await
            }
        }
    }
}

/// Ends a guest that has nobody to write to any more, when it has had a moment to end by itself.
struct Running(tokio::task::AbortHandle);

impl Drop for Running {
    fn drop(&mut self) {
        let handle = self.0.clone();
        if handle.is_finished() {
            return;
        }
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                runtime.spawn(async move {
                    tokio::time::sleep(GRACE).await;
                    handle.abort();
                });
            }
            Err(_) => handle.abort(),
        }
    }
}

/// A response's body, with the guest that writes it.
struct Answering {
    body: Unbroken,
    meter: Arc<Meter>,
    _running: Running,
}

impl Body for Answering {
    type Data = Bytes;
    type Error = chain::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, chain::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            let bytes = data.len() as u64;
            self.meter.body_out.fetch_add(bytes, Ordering::Relaxed);
            self.meter.bytes_copied.fetch_add(bytes, Ordering::Relaxed);
        }
        polled.map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
