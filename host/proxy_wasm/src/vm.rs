//! One virtual machine: a store, an instance, a root context. Used by one call at a time.

use std::fmt::Debug;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use edgeweir_host_chain::thread_cpu;
use wasmtime::{
    InstancePre, Store, TypedFunc, UpdateDeadline, WasmBacktrace, WasmParams, WasmResults,
};

use crate::checks;
use crate::deadline::Watch;
use crate::exports::{Called, Exports, OnHeaders, typed};
use crate::host::{CallbackClock, Host, ROOT};
use crate::imports::ProcExit;
use crate::plugin::Common;
use crate::stream::{Direction, Phase, Stream};
use crate::worker::Worker;

/// What the start of a plugin may take at least: tables are built then.
const START_DEADLINE: Duration = Duration::from_secs(5);
/// Streams that wait for `proxy_done`; beyond it they are not waited for.
const LINGERING: usize = 1_000;

/// A callback that trapped. The store is of no further use.
#[derive(Debug)]
pub(crate) struct Trapped {
    pub(crate) callback: &'static str,
    pub(crate) message: String,
}

/// What a callback wants for the message it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Continue,
    Pause,
    /// Of a head: hold it, and ask on about the body (`StopIteration`, where the plugin allows it).
    Lead,
    /// ABI 0.1.0's `StopIterationNoBuffer`: hold, and forget this chunk.
    Discard,
}

/// One virtual machine.
pub(crate) struct Vm {
    pub(crate) store: Store<Host>,
    pub(crate) exports: Exports,
    /// None without a deadline, and where epochs hold callbacks to it.
    watch: Option<Arc<Watch>>,
    fuel: bool,
    cpu_time: bool,
    legacy: bool,
    lingering: usize,
}

impl Vm {
    /// Makes an instance and starts its root context. Errors say what refused, with the plugin's last log lines.
    pub(crate) fn start(
        pre: &InstancePre<Host>,
        common: &Arc<Common>,
        worker: Weak<Worker>,
        generation: u64,
        legacy: bool,
    ) -> anyhow::Result<Vm> {
        let host = Host::new(Arc::clone(common), worker, generation);
        let mut store = Store::new(pre.module().engine(), host);
        store.limiter(|host| &mut host.limiter);
        store.epoch_deadline_callback(|context| pass_time(context.data()));
        let fuel = common.runtime.fuel();
        arm(&mut store, fuel, START_DEADLINE);
        let instance = pre
            .instantiate(&mut store)
            .map_err(anyhow::Error::from)
            .context("it cannot be instantiated")?;
        let grows = instance.get_shared_memory(&mut store, checks::MEMORY);
        let watch = grows.map(|grows| common.runtime.watchdog().watch(grows));
        store.data_mut().memory = instance.get_memory(&mut store, "memory");
        if store.data().memory.is_none() {
            bail!("it exports no memory");
        }
        let allocate = match typed(&instance, &mut store, "proxy_on_memory_allocate")? {
            Some(allocate) => Some(allocate),
            None => typed(&instance, &mut store, "malloc")?,
        };
        store.data_mut().allocate = allocate;
        let exports = Exports::of(&instance, &mut store)?;
        let begin = typed::<(), ()>(&instance, &mut store, checks::START)?;
        let initialize = typed::<(), ()>(&instance, &mut store, "_initialize")?;
        let start = typed::<(), ()>(&instance, &mut store, "_start")?;
        let main = Main::of(&instance, &mut store);
        let cpu_time = common.runtime.cpu_time();
        let mut vm = Vm {
            cpu_time,
            store,
            exports,
            watch,
            fuel,
            legacy,
            lingering: 0,
        };
        let begun = vm.call_for("start", begin.as_ref(), ROOT, (), START_DEADLINE);
        vm.say(begun.map(drop))
            .and_then(|()| vm.boot(initialize, start, main))
            .inspect_err(|_| vm.store.data_mut().flush())?;
        common
            .meter
            .instances
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        vm.store.data_mut().flush();
        vm.store.data_mut().started();
        Ok(vm)
    }

    fn boot(
        &mut self,
        initialize: Option<TypedFunc<(), ()>>,
        start: Option<TypedFunc<(), ()>>,
        main: Option<Main>,
    ) -> anyhow::Result<()> {
        // A reactor is initialised, a command is started; the latter may exit with 0.
        let begun = match (initialize, start) {
            (Some(initialize), _) => {
                let begun =
                    self.call_for("_initialize", Some(&initialize), ROOT, (), START_DEADLINE);
                begun.and_then(|_| {
                    match &main {
                        Some(Main::Full(main)) => {
                            self.call_for("main", Some(main), ROOT, (0, 0), START_DEADLINE)
                        }
                        Some(Main::Bare(main)) => {
                            self.call_for("main", Some(main), ROOT, (), START_DEADLINE)
                        }
                        None => Ok(None),
                    }
                    .map(drop)
                })
            }
            (None, start) => self
                .call_for("_start", start.as_ref(), ROOT, (), START_DEADLINE)
                .map(drop),
        };
        self.say(begun)?;
        let create = self.exports.context_create.clone();
        let created = self.call_for(
            "proxy_on_context_create",
            create.as_ref(),
            ROOT,
            (ROOT, 0),
            START_DEADLINE,
        );
        self.say(created)?;
        let common = Arc::clone(&self.store.data().common);
        let vm_start = self.exports.vm_start.clone();
        let size = common.vm_configuration.len() as u32;
        let started = self.call_for(
            "proxy_on_vm_start",
            vm_start.as_ref(),
            ROOT,
            (ROOT, size),
            START_DEADLINE,
        );
        if self.say(started)? == Some(0) {
            bail!(
                "proxy_on_vm_start refused its configuration{}",
                self.last_lines()
            );
        }
        let configure = self.exports.configure.clone();
        let size = common.configuration.len() as u32;
        let configured = self.call_for(
            "proxy_on_configure",
            configure.as_ref(),
            ROOT,
            (ROOT, size),
            START_DEADLINE,
        );
        if self.say(configured)? == Some(0) {
            bail!(
                "proxy_on_configure refused the configuration{}",
                self.last_lines()
            );
        }
        Ok(())
    }

    fn say<R>(&self, result: Result<R, Trapped>) -> anyhow::Result<R> {
        result.map_err(|trapped| {
            let (callback, message) = (trapped.callback, trapped.message);
            anyhow::anyhow!("it trapped in {callback}: {message}{}", self.last_lines())
        })
    }

    fn last_lines(&self) -> String {
        match self.store.data().start_log.as_deref() {
            None | Some([]) => String::new(),
            Some(lines) => format!("; it said: {}", lines.join(" | ")),
        }
    }

    /// Calls a callback for a context, under the plugin's deadline, and meters it. `None` if the module has none.
    pub(crate) fn call<P: WasmParams + Debug, R: WasmResults>(
        &mut self,
        name: &'static str,
        callback: Option<&TypedFunc<P, R>>,
        context: u32,
        params: P,
    ) -> Result<Option<R>, Trapped> {
        let deadline = self.store.data().common.limits.deadline;
        self.call_for(name, callback, context, params, deadline)
    }

    fn call_for<P: WasmParams + Debug, R: WasmResults>(
        &mut self,
        name: &'static str,
        callback: Option<&TypedFunc<P, R>>,
        context: u32,
        params: P,
        deadline: Duration,
    ) -> Result<Option<R>, Trapped> {
        let Some(callback) = callback else {
            return Ok(None);
        };
        let host = self.store.data_mut();
        host.current = context;
        if let Some(witness) = &host.common.world.witness {
            witness.callback(context, name);
        }
        // Off, as it is unless asked for, this is one load and a branch.
        tracing::trace!(target: "edgeweir::callback", plugin = %host.common.name, "{}", Called(name, &params));
        arm(&mut self.store, self.fuel, deadline);
        let started = self.store.data().clock.started;
        let cpu = self.cpu_time.then(thread_cpu);
        if let Some(watch) = &self.watch {
            watch.begin(deadline);
        }
        let store = &mut self.store;
        let common = Arc::clone(&store.data().common);
        let result = common.slow.run(name, || callback.call(&mut *store, params));
        let stopped = self.watch.as_ref().is_some_and(|watch| watch.end());
        let cpu = cpu.map(|before| thread_cpu().saturating_sub(before));
        let fuel = if self.fuel {
            u64::MAX - self.store.get_fuel().unwrap_or(u64::MAX)
        } else {
            0
        };
        let host = self.store.data_mut();
        let meter = &host.common.meter;
        let took = started.elapsed();
        meter.call(name, took, fuel);
        common.slow.note(name, took);
        if let Some(spent) = cpu {
            meter.cpu(name, spent);
        }
        if stopped {
            // Where it was, if the check of its deadline found it.
            let place = result.err();
            let place = place
                .as_ref()
                .and_then(|error| error.downcast_ref::<WasmBacktrace>());
            let place = place.map(|place| format!("\n{place}")).unwrap_or_default();
            return Err(Trapped {
                callback: name,
                message: format!("{}{place}", late(deadline)),
            });
        }
        match result {
            Ok(result) => Ok(Some(result)),
            Err(error)
                if name == "_start"
                    && error
                        .downcast_ref::<ProcExit>()
                        .is_some_and(|exit| exit.0 == 0) =>
            {
                Ok(None)
            }
            Err(error) => Err(Trapped {
                callback: name,
                message: format!("{error:?}"),
            }),
        }
    }

    /// A stream of this machine.
    pub(crate) fn stream(&mut self, id: u32) -> Option<&mut Stream> {
        self.store.data_mut().streams.get_mut(&id)
    }

    /// Makes room for a stream. Returns its context's identifier, of which the plugin knows nothing yet.
    pub(crate) fn open(&mut self, stream: Stream) -> u32 {
        let host = self.store.data_mut();
        let id = host.next_context;
        // Identifiers are 32 bits and the machine outlives four billion requests: skip what is still in use.
        host.next_context = id.checked_add(1).unwrap_or(ROOT + 1);
        while host.streams.contains_key(&host.next_context) {
            host.next_context = host.next_context.checked_add(1).unwrap_or(ROOT + 1);
        }
        host.streams.insert(id, stream);
        id
    }

    /// Opens the context of a stream.
    pub(crate) fn create(&mut self, id: u32) -> Result<(), Trapped> {
        let create = self.exports.context_create.clone();
        self.call("proxy_on_context_create", create.as_ref(), id, (id, ROOT))
            .map(drop)
    }

    /// Runs a headers callback.
    pub(crate) fn on_headers(
        &mut self,
        id: u32,
        direction: Direction,
        end: bool,
    ) -> Result<Action, Trapped> {
        let allowed = self.store.data().common.allow_on_headers_stop_iteration;
        let Some(stream) = self.stream(id) else {
            return Ok(Action::Continue);
        };
        let side = stream.side(direction);
        side.begins();
        side.end_of_stream = end;
        let count = side.fields.as_ref().map_or(0, |fields| fields.len()) as u32;
        let (name, callback) = match direction {
            Direction::Request => (
                "proxy_on_request_headers",
                self.exports.request_headers.clone(),
            ),
            Direction::Response => (
                "proxy_on_response_headers",
                self.exports.response_headers.clone(),
            ),
        };
        let result = match callback {
            None => None,
            Some(OnHeaders::Full(full)) => {
                self.call(name, Some(&full), id, (id, count, u32::from(end)))?
            }
            Some(OnHeaders::Short(short)) => self.call(name, Some(&short), id, (id, count))?,
        };
        // ABI 0.1.0: 2 is "continue and end the stream", every other stop is a pause.
        let action = match result {
            None | Some(0) => Action::Continue,
            Some(2) if self.legacy => Action::Continue,
            // Without the option Envoy, too, takes it for `StopAllIterationAndWatermark`.
            Some(1) if allowed && !end => Action::Lead,
            Some(_) => Action::Pause,
        };
        Ok(self.settle(id, direction, action))
    }

    /// Runs a body callback over what is buffered.
    pub(crate) fn on_body(
        &mut self,
        id: u32,
        direction: Direction,
        end: bool,
    ) -> Result<Action, Trapped> {
        let Some(stream) = self.stream(id) else {
            return Ok(Action::Continue);
        };
        let side = stream.side(direction);
        side.begins();
        side.end_of_stream = end;
        let size = side.buffer.len() as u32;
        let (name, callback) = match direction {
            Direction::Request => ("proxy_on_request_body", self.exports.request_body.clone()),
            Direction::Response => ("proxy_on_response_body", self.exports.response_body.clone()),
        };
        let action = match self.call(name, callback.as_ref(), id, (id, size, u32::from(end)))? {
            None | Some(0) => Action::Continue,
            Some(3) if self.legacy => Action::Discard,
            Some(_) => Action::Pause,
        };
        Ok(self.settle(id, direction, action))
    }

    /// Runs a trailers callback.
    pub(crate) fn on_trailers(&mut self, id: u32, direction: Direction) -> Result<Action, Trapped> {
        let Some(stream) = self.stream(id) else {
            return Ok(Action::Continue);
        };
        let side = stream.side(direction);
        side.begins();
        let count = side.trailers.as_ref().map_or(0, |fields| fields.len()) as u32;
        let (name, callback) = match direction {
            Direction::Request => (
                "proxy_on_request_trailers",
                self.exports.request_trailers.clone(),
            ),
            Direction::Response => (
                "proxy_on_response_trailers",
                self.exports.response_trailers.clone(),
            ),
        };
        let action = match self.call(name, callback.as_ref(), id, (id, count))? {
            None | Some(0) => Action::Continue,
            Some(_) => Action::Pause,
        };
        Ok(self.settle(id, direction, action))
    }

    /// A pause that was continued from inside the callback is none.
    fn settle(&mut self, id: u32, direction: Direction, action: Action) -> Action {
        let Some(stream) = self.stream(id) else {
            return action;
        };
        let side = stream.side(direction);
        let resumed = std::mem::take(&mut side.resume);
        if action == Action::Discard {
            side.buffer.clear();
            side.rewritten = true;
        }
        side.paused = action != Action::Continue && !resumed;
        if side.paused {
            action
        } else {
            Action::Continue
        }
    }

    /// Ends a stream: `on_log`, `on_done`, `on_delete`, in Envoy's order.
    pub(crate) fn close(&mut self, id: u32) -> Result<(), Trapped> {
        let Some(stream) = self.stream(id) else {
            return Ok(());
        };
        stream.phase = Phase::Log;
        if let (Some((path, authority)), Some(fields)) =
            (stream.notes.rewritten(), &mut stream.request.fields)
        {
            fields.rewritten(path, authority.as_ref());
        }
        let (log, done) = (self.exports.log.clone(), self.exports.done.clone());
        self.call("proxy_on_log", log.as_ref(), id, id)?;
        if let Some(stream) = self.stream(id) {
            stream.phase = Phase::Done;
        }
        let finished = self.call("proxy_on_done", done.as_ref(), id, id)?;
        let already = self.store.data().done.contains(&id);
        if finished == Some(0) && !already && self.lingering < LINGERING {
            if let Some(stream) = self.stream(id) {
                stream.lingers = true;
                self.lingering += 1;
            }
            return Ok(());
        }
        self.store.data_mut().done.retain(|other| *other != id);
        self.delete(id)
    }

    fn delete(&mut self, id: u32) -> Result<(), Trapped> {
        let delete = self.exports.delete.clone();
        self.call("proxy_on_delete", delete.as_ref(), id, id)?;
        let host = self.store.data_mut();
        host.streams.remove(&id);
        host.current = ROOT;
        host.flush();
        Ok(())
    }

    /// What callbacks left to do: contexts that said they are done.
    pub(crate) fn tidy(&mut self) -> Result<(), Trapped> {
        while let Some(id) = self.store.data_mut().done.pop() {
            if self.stream(id).is_some_and(|stream| stream.lingers) {
                self.lingering = self.lingering.saturating_sub(1);
                self.delete(id)?;
            }
        }
        Ok(())
    }
}

/// A reactor's main, by the names compilers give it.
enum Main {
    Full(TypedFunc<(u32, u32), u32>),
    Bare(TypedFunc<(), u32>),
}

impl Main {
    /// One with another signature is no main.
    fn of(instance: &wasmtime::Instance, store: &mut Store<Host>) -> Option<Self> {
        for name in ["main", "__main_argc_argv"] {
            if let Ok(Some(main)) = typed(instance, store, name) {
                return Some(Self::Full(main));
            }
        }
        let bare = typed(instance, store, "__main_void").unwrap_or(None);
        bare.map(Self::Bare)
    }
}

/// Readies the store for one callback.
fn arm(store: &mut Store<Host>, fuel: bool, deadline: Duration) {
    store.data_mut().clock = CallbackClock {
        started: Instant::now(),
        deadline,
    };
    store.set_epoch_deadline(1);
    if fuel {
        // Fails only where fuel is off.
        let _ = store.set_fuel(u64::MAX);
    }
}

/// Called at every tick of the epoch while Wasm runs, where there are epochs.
fn pass_time(host: &Host) -> wasmtime::Result<UpdateDeadline> {
    let deadline = host.clock.deadline;
    if host.clock.started.elapsed() >= deadline {
        return Err(wasmtime::format_err!("{}", late(deadline)));
    }
    Ok(UpdateDeadline::Continue(1))
}

fn late(deadline: Duration) -> String {
    format!("the callback's deadline of {deadline:?} is over")
}
