//! The requests that wait for an instance, and when another instance is started.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use edgeweir_host_chain::Response;
use tokio::sync::{Notify, oneshot};
use wasmtime_wasi_http::WasiBody;
use wasmtime_wasi_http::p3::bindings::ServicePre;

use crate::component::Loaded;
use crate::context::Guest;
use crate::exchange::Exchange;
use crate::instance::{self, Fresh};
use crate::layer::Failure;

/// How long a request waits for one of the instances before another is started: most are free again in less,
/// and each instance has a memory of its own to warm up.
const PATIENCE: Duration = Duration::from_millis(2);
/// Requests that may wait, for each that may be handled at once, and in all at least [`LEAST_WAITING`].
const WAITING_PER_REQUEST: usize = 16;
const LEAST_WAITING: usize = 1024;

/// A request on its way to an instance.
pub(crate) struct Job {
    pub(crate) request: http::Request<WasiBody>,
    pub(crate) exchange: Arc<Exchange>,
    pub(crate) reply: oneshot::Sender<Result<Response, Failure>>,
}

/// The instances of one plugin.
pub(crate) struct Pool {
    pub(crate) loaded: Arc<Loaded>,
    /// What new instances are made of.
    pub(crate) pre: ServicePre<Guest>,
    state: Mutex<State>,
    pushed: Notify,
    most_waiting: usize,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Instances waiting for a job.
    idle: usize,
    /// Instances in all, those being started among them.
    live: usize,
    /// Instances being started.
    starting: usize,
    /// Someone looks after [`PATIENCE`] whether another instance is needed.
    watched: bool,
    closed: bool,
}

impl Pool {
    pub(crate) fn new(loaded: Arc<Loaded>, first: Fresh, pre: ServicePre<Guest>) -> Arc<Self> {
        let limits = &loaded.plugin.limits;
        let at_once = limits.instances.saturating_mul(limits.concurrent);
        let most_waiting = at_once
            .saturating_mul(WAITING_PER_REQUEST)
            .max(LEAST_WAITING);
        let state = Mutex::new(State {
            live: 1,
            ..State::default()
        });
        let pool = Arc::new(Self {
            loaded,
            pre,
            state,
            pushed: Notify::new(),
            most_waiting,
        });
        tokio::spawn(instance::run(pool.clone(), Some(first)));
        pool
    }

    /// Queues a job; gives it back when too many wait already.
    pub(crate) fn push(self: &Arc<Self>, job: Job) -> Result<(), Failure> {
        let mut state = self.lock();
        if state.jobs.len() >= self.most_waiting {
            return Err(Failure::Overloaded);
        }
        state.jobs.push_back(job);
        self.grow(&mut state);
        drop(state);
        // The one that waited least: its memory is the warmest, and the others may be let go.
        self.pushed.notify_last();
        Ok(())
    }

    /// The next job somebody still waits for; `None` when the plugin is gone.
    pub(crate) async fn pop(self: Arc<Self>) -> Option<Job> {
        let _idle = Idle::new(&self);
        let mut pushed = pin!(self.pushed.notified());
        loop {
            pushed.as_mut().enable();
            {
                let mut state = self.lock();
                if state.closed {
                    return None;
                }
                while let Some(job) = state.jobs.pop_front() {
                    if !job.reply.is_closed() {
                        return Some(job);
                    }
                }
            }
            pushed.as_mut().await;
            pushed.set(self.pushed.notified());
        }
    }

    /// Lets all instances finish and go.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.pushed.notify_waiters();
    }

    /// The place of an instance that was counted when it was decided on.
    pub(crate) fn place(self: &Arc<Self>, starting: bool) -> Place {
        Place {
            pool: self.clone(),
            starting,
            failed: false,
        }
    }

    /// Starts an instance, at once if there is none, later if those there are stay busy.
    fn grow(self: &Arc<Self>, state: &mut State) {
        if state.jobs.is_empty() || state.idle > 0 || state.closed {
            return;
        }
        if state.live == 0 {
            self.start(state);
        } else if !state.watched && state.live < self.loaded.plugin.limits.instances {
            state.watched = true;
            let pool = self.clone();
            tokio::spawn(async move {
                // One at a time: an instance being started is the one the job waits for.
                while {
                    tokio::time::sleep(PATIENCE).await;
                    pool.lock().starting > 0
                } {}
                let mut state = pool.lock();
                state.watched = false;
                let needed = !state.jobs.is_empty() && state.idle == 0 && !state.closed;
                if needed && state.live < pool.loaded.plugin.limits.instances {
                    pool.start(&mut state);
                }
                pool.grow(&mut state);
            });
        }
    }

    fn start(self: &Arc<Self>, state: &mut State) {
        state.live += 1;
        state.starting += 1;
        tokio::spawn(instance::run(self.clone(), None));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An instance waiting for a job.
struct Idle<'a>(&'a Arc<Pool>);

impl<'a> Idle<'a> {
    fn new(pool: &'a Arc<Pool>) -> Self {
        pool.lock().idle += 1;
        Self(pool)
    }
}

impl Drop for Idle<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.idle -= 1;
        // A job may have come for this one, which now has none to take it.
        self.0.grow(&mut state);
    }
}

/// An instance's place in its pool; given up when it is dropped.
pub(crate) struct Place {
    pool: Arc<Pool>,
    starting: bool,
    failed: bool,
}

impl Place {
    /// The instance is about to take jobs.
    pub(crate) fn started(&mut self) {
        if std::mem::take(&mut self.starting) {
            self.pool.lock().starting -= 1;
        }
    }

    /// The instance could not be started. Where it was the only one, those who wait are told.
    pub(crate) fn failed(&mut self) {
        self.failed = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.started();
        let mut state = self.pool.lock();
        state.live -= 1;
        if self.failed && state.live == 0 {
            for job in state.jobs.drain(..) {
                let _ = job.reply.send(Err(Failure::Unavailable(
                    "no instance could be started".into(),
                )));
            }
        } else {
            self.pool.grow(&mut state);
        }
    }
}
