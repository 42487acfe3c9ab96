//! One instance: a store, the requests in it, and its end.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use edgeweir_host_chain::thread_cpu;
use http::StatusCode;
use http_body_util::BodyExt as _;
use tokio::sync::oneshot;
use wasmtime::component::{Accessor, AccessorTask, GuestTaskId, Resource};
use wasmtime::{AsContextMut as _, Store, StoreContextMut, UpdateDeadline, format_err};
use wasmtime_wasi_http::p3::bindings::http::types::{ErrorCode, Request, Response};
use wasmtime_wasi_http::p3::bindings::{Service, ServicePre};

use crate::body::{FromGuest, copied};
use crate::component::Loaded;
use crate::context::Guest;
use crate::exchange::{NextFailed, PROXY_STATUS, body_length, has_no_body};
use crate::layer::Failure;
use crate::pool::{Job, Pool};
use crate::runtime::TICK;

/// How long a guest has to return after its exchange was called off, before its instance is replaced.
pub(crate) const GRACE: Duration = Duration::from_secs(1);
/// Response bodies an instance may have under way, for each request it may handle at once.
const BODIES_PER_REQUEST: usize = 16;

/// What the host's other tasks see of an instance.
#[derive(Default)]
pub(crate) struct Instance {
    dead: AtomicBool,
    retired: AtomicBool,
    /// Exchanges until the end of their response bodies.
    live: AtomicUsize,
    /// Exchanges until their response heads.
    heads: AtomicUsize,
    /// Response bodies that ended and are not accounted for yet.
    ended: AtomicUsize,
    /// Everything the guest could do is done, until something comes from outside.
    settled: AtomicBool,
    /// Epochs the same task has been running through.
    ticks: AtomicU64,
    /// The guest was interrupted in the last poll, and did not wait for anything.
    interrupted: AtomicBool,
    /// Time spent in polls of the store since it was last accounted for, nanoseconds.
    busy_ns: AtomicU64,
    /// As much of it as was CPU time.
    cpu_ns: AtomicU64,
    /// CPU time is measured.
    cpu_time: bool,
    /// Fuel left when it was last accounted for.
    fuel: AtomicU64,
    /// When the poll under way began, or was last accounted for.
    poll: Mutex<Option<Stamp>>,
    waker: Mutex<Option<Waker>>,
}

/// A moment, by the clock and by that of the thread; the latter stays zero where it is not asked.
#[derive(Clone, Copy)]
struct Stamp {
    at: Instant,
    cpu: Duration,
}

/// What was spent in polls of the store.
#[derive(Clone, Copy, Default)]
struct Spent {
    wall: Duration,
    cpu: Duration,
}

impl Instance {
    fn new(cpu_time: bool) -> Self {
        Self {
            cpu_time,
            ..Self::default()
        }
    }

    fn stamp(&self) -> Stamp {
        let cpu = match self.cpu_time {
            true => thread_cpu(),
            false => Duration::ZERO,
        };
        let at = Instant::now();
        Stamp { at, cpu }
    }

    /// The store is gone: bodies it has not ended are cut.
    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    /// The guest trapped, or the store goes: to be said before that is dropped.
    pub(crate) fn die(&self) {
        self.dead.store(true, Ordering::Release);
    }

    /// Lets the instance finish what it has and take nothing new.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        self.wake();
    }

    /// What was spent in polls of the store since the last lap.
    fn lap(&self) -> Spent {
        let mut poll = self.poll.lock().unwrap_or_else(PoisonError::into_inner);
        let before = Spent {
            wall: Duration::from_nanos(self.busy_ns.swap(0, Ordering::Relaxed)),
            cpu: Duration::from_nanos(self.cpu_ns.swap(0, Ordering::Relaxed)),
        };
        let Some(began) = *poll else { return before };
        // A poll stays on its thread from its beginning to its end.
        let now = self.stamp();
        *poll = Some(now);
        Spent {
            wall: before.wall + now.at.saturating_duration_since(began.at),
            cpu: before.cpu + now.cpu.saturating_sub(began.cpu),
        }
    }

    fn begin_poll(&self) {
        *self.poll.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.stamp());
    }

    fn end_poll(&self) {
        let began = self
            .poll
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(began) = began else { return };
        let now = self.stamp();
        let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let busy = now.at.saturating_duration_since(began.at);
        self.busy_ns.fetch_add(ns(busy), Ordering::Relaxed);
        let cpu = now.cpu.saturating_sub(began.cpu);
        self.cpu_ns.fetch_add(ns(cpu), Ordering::Relaxed);
    }

    fn wake(&self) {
        if let Some(waker) = self
            .waker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            waker.wake();
        }
    }

    fn wake_with(&self, waker: &Waker) {
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
    }
}

/// An exchange whose response body has not ended.
pub(crate) struct Live(Arc<Instance>);

impl Live {
    fn new(instance: &Arc<Instance>) -> Self {
        instance.live.fetch_add(1, Ordering::AcqRel);
        Self(instance.clone())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Ordering::AcqRel);
        self.0.ended.fetch_add(1, Ordering::AcqRel);
        self.0.wake();
    }
}

/// An exchange whose response head has not come.
struct Head(Arc<Instance>);

impl Head {
    fn new(instance: &Arc<Instance>) -> Self {
        instance.heads.fetch_add(1, Ordering::AcqRel);
        Self(instance.clone())
    }
}

impl Drop for Head {
    fn drop(&mut self) {
        self.0.heads.fetch_sub(1, Ordering::AcqRel);
        self.0.wake();
    }
}

/// An instance that has not taken a request.
pub(crate) struct Fresh {
    store: Store<Guest>,
    service: Service,
    instance: Arc<Instance>,
}

pub(crate) async fn instantiate(
    loaded: &Arc<Loaded>,
    pre: &ServicePre<Guest>,
) -> wasmtime::Result<Fresh> {
    let instance = Arc::new(Instance::new(loaded.runtime.cpu_time));
    let guest = Guest::new(loaded.clone(), instance.clone());
    let mut store = Store::new(&loaded.runtime.engine, guest);
    store.limiter(|guest| &mut guest.limiter);
    if loaded.runtime.fuel {
        store.set_fuel(u64::MAX)?;
        instance.fuel.store(u64::MAX, Ordering::Relaxed);
    }
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(deadline(&instance, loaded.plugin.limits.deadline));
    let service = pre.instantiate_async(&mut store).await?;
    loaded.meter.instances.fetch_add(1, Ordering::Relaxed);
    Ok(Fresh {
        store,
        service,
        instance,
    })
}

/// Interrupts a guest at each tick, so that the host's thread is shared, and ends one that was found in the
/// same task all the time and waited for nothing in between.
fn deadline(
    instance: &Arc<Instance>,
    slice: Duration,
) -> impl FnMut(StoreContextMut<'_, Guest>) -> wasmtime::Result<UpdateDeadline> + Send + Sync + 'static
{
    let instance = instance.clone();
    let most = u64::try_from(slice.as_nanos() / TICK.as_nanos())
        .unwrap_or(u64::MAX)
        .max(1);
    let mut last: Option<GuestTaskId> = None;
    move |mut store| {
        let task = store.async_call_stack().ok().and_then(Iterator::last);
        if std::mem::replace(&mut last, task) != task {
            instance.ticks.store(0, Ordering::Relaxed);
        }
        if instance.ticks.fetch_add(1, Ordering::Relaxed) >= most {
            return Err(format_err!(
                "the guest ran for its `deadline` of {slice:?} without yielding"
            ));
        }
        instance.interrupted.store(true, Ordering::Relaxed);
        Ok(UpdateDeadline::Yield(1))
    }
}

/// Runs an instance until it is retired or traps. `fresh` is made here where there is none.
pub(crate) async fn run(pool: Arc<Pool>, fresh: Option<Fresh>) {
    let mut place = pool.place(fresh.is_none());
    let loaded = pool.loaded.clone();
    let name = &loaded.plugin.name;
    let fresh = match fresh {
        Some(fresh) => fresh,
        None => match instantiate(&loaded, &pool.pre).await {
            Ok(fresh) => fresh,
            Err(error) => {
                let message = format!("{error:?}");
                tracing::error!(plugin = %name, "no instance could be started: {message}");
                loaded.meter.trap("instantiate", message);
                place.failed();
                return;
            }
        },
    };
    place.started();
    let Fresh {
        mut store,
        service,
        instance,
    } = fresh;
    // Dropped before the store: its bodies end as cut, not as complete.
    let dying = Dying(instance.clone());
    let result = drive(&mut store, &pool, &instance, Arc::new(service)).await;
    if let Err(error) = result {
        let message = format!("{error:?}");
        tracing::error!(plugin = %name, "the guest trapped: {message}");
        loaded.meter.trap("handle", message);
    } else {
        tracing::debug!(plugin = %name, "an instance was retired");
    }
    drop(dying);
    // Ends what the instance still had under way, before a new one takes its place.
    drop(store);
}

struct Dying(Arc<Instance>);

impl Drop for Dying {
    fn drop(&mut self) {
        self.0.die();
    }
}

async fn drive(
    store: &mut Store<Guest>,
    pool: &Arc<Pool>,
    instance: &Arc<Instance>,
    service: Arc<Service>,
) -> wasmtime::Result<()> {
    let mut running = pin!(store.run_concurrent(async |accessor: &Accessor<Guest>| {
        accept(accessor, pool, instance, &service).await?;
        finish(accessor, instance, pool.loaded.plugin.limits.timeout).await;
        wasmtime::error::Ok(())
    }));
    poll_fn(|cx| {
        instance.begin_poll();
        let mut poll;
        loop {
            // Only an interruption of this poll promises another one.
            instance.interrupted.store(false, Ordering::Relaxed);
            poll = running.as_mut().poll(cx);
            if poll.is_ready() || instance.interrupted.load(Ordering::Relaxed) {
                break;
            }
            // All waits for something outside: the time slice is over, and there is room for more work. Where
            // that was not known before, a waiting request is looked for at once: nothing else would wake us.
            instance.ticks.store(0, Ordering::Relaxed);
            if instance.settled.swap(true, Ordering::Relaxed) {
                break;
            }
        }
        instance.end_poll();
        poll
    })
    .await?
}

/// Takes requests while there is room for them, until the instance is due to be replaced.
async fn accept(
    accessor: &Accessor<Guest>,
    pool: &Arc<Pool>,
    instance: &Arc<Instance>,
    service: &Arc<Service>,
) -> wasmtime::Result<()> {
    let limits = &pool.loaded.plugin.limits;
    let bodies = limits.concurrent.saturating_mul(BODIES_PER_REQUEST);
    let mut taken = 0;
    let mut popping: Option<Pin<Box<dyn Future<Output = Option<Job>> + Send>>> = None;
    poll_fn(|cx| {
        instance.wake_with(cx.waker());
        account_bodies(accessor, instance);
        if accessor.poll_no_interesting_tasks(cx).is_ready() {
            accessor.with(|mut store| store.data_mut().forget());
        }
        loop {
            if taken >= limits.requests || instance.retired.load(Ordering::Acquire) {
                return Poll::Ready(Ok(()));
            }
            // One request at a time until it waits for something: a guest that computes would only hold up
            // the ones behind it, which another instance can take.
            let room = instance.settled.load(Ordering::Relaxed)
                && instance.heads.load(Ordering::Acquire) < limits.concurrent
                && instance.live.load(Ordering::Acquire) < bodies;
            if !room {
                popping = None;
                return Poll::Pending;
            }
            let pop = popping.get_or_insert_with(|| Box::pin(pool.clone().pop()));
            let Poll::Ready(job) = pop.as_mut().poll(cx) else {
                return Poll::Pending;
            };
            popping = None;
            let Some(job) = job else {
                return Poll::Ready(Ok(()));
            };
            taken += 1;
            instance.settled.store(false, Ordering::Relaxed);
            let work = Work {
                job,
                service: service.clone(),
                loaded: pool.loaded.clone(),
                live: Live::new(instance),
                head: Head::new(instance),
            };
            if let Err(error) = accessor.spawn(work) {
                return Poll::Ready(Err(error));
            }
        }
    })
    .await
}

/// Waits for the exchanges under way, which have bounds of their own, and for the guest's own tasks, after these no longer
/// than `most`.
async fn finish(accessor: &Accessor<Guest>, instance: &Arc<Instance>, most: Duration) {
    let mut end = pin!(tokio::time::sleep(most));
    poll_fn(|cx: &mut Context<'_>| {
        instance.wake_with(cx.waker());
        account_bodies(accessor, instance);
        let idle = accessor.poll_no_interesting_tasks(cx).is_ready();
        if instance.live.load(Ordering::Acquire) > 0 {
            end.as_mut().reset(tokio::time::Instant::now() + most);
        } else if idle {
            return Poll::Ready(());
        }
        end.as_mut().poll(cx)
    })
    .await;
}

fn account_bodies(accessor: &Accessor<Guest>, instance: &Arc<Instance>) {
    if instance.ended.swap(0, Ordering::AcqRel) > 0 {
        account(accessor, "body", instance.lap());
    }
}

/// Hands one call's time, the fuel since the last one and the host calls to the meter.
fn account(accessor: &Accessor<Guest>, callback: &'static str, spent: Spent) {
    accessor.with(|mut store| {
        let mut store = store.as_context_mut();
        // With fuel off wasmtime would make an error each time, with a backtrace where `RUST_BACKTRACE` asks for them.
        let left = match store.data().loaded.runtime.fuel {
            true => store.get_fuel().unwrap_or(0),
            false => 0,
        };
        let guest = store.data_mut();
        let before = guest.instance.fuel.swap(left, Ordering::Relaxed);
        let meter = &guest.loaded.meter;
        meter.call(callback, spent.wall, before.saturating_sub(left));
        if guest.instance.cpu_time {
            meter.cpu(callback, spent.cpu);
        }
        guest.flush();
    });
}

/// One exchange in the guest, until its response head is handed over.
struct Work {
    job: Job,
    service: Arc<Service>,
    loaded: Arc<Loaded>,
    live: Live,
    head: Head,
}

type Answer = Result<Resource<Response>, ErrorCode>;

impl AccessorTask<Guest> for Work {
    /// An error here is a trap: it ends the instance and all that is in it.
    async fn run(self, accessor: &Accessor<Guest>) -> wasmtime::Result<()> {
        let Self {
            job,
            service,
            loaded,
            live,
            head,
        } = self;
        let Job {
            request,
            exchange,
            mut reply,
        } = job;
        let started = Instant::now();
        let handle = service.wasi_http_handler();
        let handle = handle.func_handle();
        let call = accessor.with(|mut store| -> wasmtime::Result<_> {
            let guest = store.data_mut();
            let meter = guest.loaded.meter.clone();
            let request = request.map(|body| copied(body, meter));
            let (request, _read) = Request::from_http(&mut guest.hooks, request);
            let request = match guest.table.push(request) {
                Ok(request) => request,
                Err(error) => return Ok(Err(error)),
            };
            let call = handle.start_call_concurrent(store.as_context_mut(), (request,))?;
            store.data_mut().begin(call.task(), exchange.clone());
            wasmtime::error::Ok(Ok(call))
        })?;
        let call = match call {
            Ok(call) => call,
            Err(full) => {
                let _ = reply.send(Err(Failure::Unavailable(format!(
                    "too many resources: {full}"
                ))));
                return Ok(());
            }
        };
        let mut answer = pin!(handle.finish_call_concurrent(accessor, call));
        let answered = tokio::select! {
            biased;
            answer = &mut answer => Some(answer?.0),
            () = exchange.quiet.over() => None,
            () = reply.closed() => None,
        };
        let Some(answer) = answered else {
            exchange.cancel();
            let _ = reply.send(Err(Failure::Timeout));
            // The call cannot be ended from outside, only the instance can.
            return match tokio::time::timeout(GRACE, answer).await {
                Ok(answer) => discard(accessor, answer?.0),
                Err(_) => {
                    live.0.retire();
                    Ok(())
                }
            };
        };
        drop(head);
        let forwarded = exchange.forwarded.load(Ordering::Relaxed);
        let below = Duration::from_nanos(exchange.next_ns.load(Ordering::Relaxed));
        // What the guest does from here on is the body's.
        let Spent { cpu, .. } = live.0.lap();
        let wall = started.elapsed().saturating_sub(below);
        account(accessor, "handle", Spent { wall, cpu });
        if forwarded == 0 {
            loaded.meter.answered.fetch_add(1, Ordering::Relaxed);
        }
        let outcome = match answer {
            Ok(response) => {
                let (sent, result) = oneshot::channel();
                let converted = accessor.with(|mut store| -> wasmtime::Result<_> {
                    let response = store.data_mut().table.delete(response)?;
                    let result = async { result.await.unwrap_or(Ok(())) };
                    wasmtime::error::Ok(response.into_http(&mut store, result))
                })?;
                match converted {
                    Ok(response) => {
                        let (mut parts, body) = response.into_parts();
                        let status = parts.status;
                        // What the guest made of a failure below is still no answer of the origin's.
                        if matches!(
                            status,
                            StatusCode::BAD_GATEWAY
                                | StatusCode::SERVICE_UNAVAILABLE
                                | StatusCode::GATEWAY_TIMEOUT
                        ) && let Some(failed) = exchange.take_failed()
                        {
                            parts.extensions.insert(failed.unreached());
                            if let Some(told) = failed.told()
                                && !parts.headers.contains_key(PROXY_STATUS)
                            {
                                parts.headers.insert(PROXY_STATUS, told.clone());
                            }
                        }
                        let body = if has_no_body(&exchange.method, status) {
                            edgeweir_host_chain::empty()
                        } else {
                            let length = body_length(&exchange.method, status, &parts.headers);
                            let quiet = exchange.quiet.clone();
                            let instance = live.0.clone();
                            let meter = loaded.meter.clone();
                            FromGuest::response(body, instance, quiet, sent, length, meter, live)
                                .boxed_unsync()
                        };
                        Ok(http::Response::from_parts(parts, body))
                    }
                    Err(error) => Err(Failure::Guest(format!("its response: {error:#}").into())),
                }
            }
            Err(code) => match exchange.take_failed() {
                Some(NextFailed::Made(_, response)) => Ok(response),
                Some(NextFailed::Error(error)) => Err(Failure::Guest(error)),
                None => {
                    let error = format!("it answered with the error {code:?}");
                    Err(Failure::Guest(error.into()))
                }
            },
        };
        let _ = reply.send(outcome);
        Ok(())
    }
}

/// Frees a response nobody waits for any more.
fn discard(accessor: &Accessor<Guest>, answer: Answer) -> wasmtime::Result<()> {
    let Ok(response) = answer else { return Ok(()) };
    accessor.with(|mut store| {
        let response = store.data_mut().table.delete(response)?;
        // Converted only to be dropped: a body's streams must be closed towards the guest.
        let _ = response.into_http(&mut store, async { Ok(()) });
        Ok(())
    })
}
