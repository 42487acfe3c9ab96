//! What this VM holds: the filters configured in it, the streams under way, the calls awaited.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

use edgeweir_filter::{Answer, Chain, ConfigError, Level};

use crate::agenda::{Agenda, Ticket, Waiter};
use crate::callout::{self, Call};
use crate::hostcalls::{self, Buffer};
use crate::root::{self, Root};
use crate::stream::{Action, Stream};
use crate::tasks;

/// How many waits are ended between two ticks; the rest follows with the next, 1 ms later.
///
/// Envoy lets a stream go on after the callback, and the next one out of that one's own callbacks: every stream is a
/// few frames deeper on the stack. At about 300 there is no more of it, and the VM is lost.
pub const AT_ONCE: u32 = 32;

/// The filter type of this module.
#[derive(Clone, Copy)]
pub struct Module {
    pub name: &'static str,
    pub load: fn(&[u8]) -> Result<Chain, ConfigError>,
}

/// Ids are the host's own small numbers: nothing to defend against.
#[derive(Default)]
struct ById(u64);

impl Hasher for ById {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u32(&mut self, id: u32) {
        self.0 = u64::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

type Map<T> = HashMap<u32, T, BuildHasherDefault<ById>>;

#[derive(Default)]
struct Vm {
    roots: RefCell<Map<Rc<Root>>>,
    /// `None` while a callback has it.
    streams: RefCell<Map<Option<Box<Stream>>>>,
    calls: RefCell<Map<Call>>,
}

thread_local! {
    static MODULE: Cell<Option<Module>> = const { Cell::new(None) };
    static VM: Vm = Vm::default();
}

/// Sets the filter type; called from `_initialize`.
pub fn install(module: Module) {
    MODULE.set(Some(module));
}

fn with<T>(call: impl FnOnce(&Vm) -> T) -> Option<T> {
    VM.try_with(call).ok()
}

fn root(id: u32) -> Option<Rc<Root>> {
    with(|vm| vm.roots.try_borrow().ok()?.get(&id).cloned()).flatten()
}

/// A context was made: a stream of `parent`, or a root when that is 0.
pub fn create(id: u32, parent: u32) {
    if let Some(root) = root(parent) {
        root.fit();
        let stream = Some(Box::new(Stream::new(id, root)));
        with(|vm| {
            vm.streams
                .try_borrow_mut()
                .map(|mut streams| streams.insert(id, stream))
        });
    }
}

/// Loads the configuration of a root context; `false` refuses it, and the reason is in the log.
pub fn configure(id: u32, size: usize) -> bool {
    let Some(module) = MODULE.get() else {
        return false;
    };
    let json = match hostcalls::buffer(Buffer::PluginConfiguration, 0, size) {
        Ok(json) => json,
        Err(_) if size == 0 => Vec::new(),
        Err(status) => {
            root::log(
                module.name,
                Level::Error,
                &format!("configuration could not be read (status {})", status.0),
            );
            return false;
        }
    };
    match (module.load)(&json) {
        Ok(chain) => {
            // Streams under way keep the filter they began with, but there is one tick for all.
            let agenda = self::root(id).map_or_else(|| Agenda::new(id), |root| root.agenda.clone());
            let root = Rc::new(Root::new(agenda, module.name, chain));
            root.announce();
            root.start();
            root.agenda.schedule(hostcalls::now());
            with(|vm| {
                vm.roots
                    .try_borrow_mut()
                    .map(|mut roots| roots.insert(id, root))
            });
            true
        }
        Err(error) => {
            root::log(module.name, Level::Error, &error.to_string());
            false
        }
    }
}

/// Runs a callback on a stream; a context that is unknown here passes everything on.
pub fn stream(id: u32, call: impl FnOnce(&mut Stream) -> Action) -> u32 {
    let Some(mut stream) = take(id) else {
        return Action::Continue as u32;
    };
    let action = call(&mut stream);
    let agenda = &stream.root().agenda;
    let stirred = agenda.is_stirred().then(|| Rc::clone(agenda));
    put(id, stream);
    if let Some(agenda) = stirred {
        agenda.schedule(hostcalls::now());
    }
    action as u32
}

/// Lets streams and tasks go on whose gate opened. Called from a tick alone: out of another stream's callback a host may not
/// finish that one (Envoy leaves the stream whose body callback it was without its end).
fn wake(agenda: &Rc<Agenda>) {
    while agenda.has_woken() && agenda.take_turn() {
        let Some(ticket) = agenda.woken() else {
            return;
        };
        resume(agenda, ticket, Answer::Waited);
    }
}

fn take(id: u32) -> Option<Box<Stream>> {
    with(|vm| vm.streams.try_borrow_mut().ok()?.get_mut(&id)?.take()).flatten()
}

/// Puts a stream back, unless its context was deleted meanwhile.
fn put(id: u32, stream: Box<Stream>) {
    let deleted = with(|vm| {
        let Ok(mut streams) = vm.streams.try_borrow_mut() else {
            return Some(stream);
        };
        match streams.get_mut(&id) {
            Some(place) => place.replace(stream),
            None => Some(stream),
        }
    });
    // Dropped here, with nothing borrowed.
    drop(deleted);
}

/// A context is gone: with a stream its exchange goes, and the gates open that it was to open.
pub fn delete(id: u32) {
    let gone = with(|vm| {
        let root = vm
            .roots
            .try_borrow_mut()
            .ok()
            .and_then(|mut roots| roots.remove(&id));
        let stream = vm
            .streams
            .try_borrow_mut()
            .ok()
            .and_then(|mut streams| streams.remove(&id));
        (root, stream)
    });
    let Some((root, stream)) = gone else {
        return;
    };
    // Dropped here, with nothing borrowed.
    let stream = stream.flatten();
    let agenda = stream
        .as_ref()
        .map(|stream| Rc::clone(&stream.root().agenda));
    drop(stream);
    if let Some(root) = root {
        root.agenda.clear();
    }
    if let Some(agenda) = agenda.filter(|agenda| agenda.is_stirred()) {
        agenda.schedule(hostcalls::now());
    }
}

/// Somebody waits for the answer to a call.
pub fn await_call(token: u32, call: Call) {
    with(|vm| {
        vm.calls
            .try_borrow_mut()
            .map(|mut calls| calls.insert(token, call))
    });
}

/// Nobody waits for it any more.
pub fn forget_call(token: u32) {
    let call = with(|vm| vm.calls.try_borrow_mut().ok()?.remove(&token)).flatten();
    drop(call);
}

/// The answer to a call is there, or its failure.
pub fn called(own: u32, token: u32, fields: u32, size: usize) {
    let call = with(|vm| vm.calls.try_borrow_mut().ok()?.remove(&token)).flatten();
    let Some(call) = call else {
        return;
    };
    let answer = callout::receive(&call, fields, size, hostcalls::now());
    resume(&call.agenda, call.ticket, Answer::Fetched(answer));
    let _ = hostcalls::set_context(own);
    if call.agenda.is_stirred() {
        call.agenda.schedule(hostcalls::now());
    }
}

/// Gives who waits its answer; the client may have left, and the stream with it.
fn resume(agenda: &Rc<Agenda>, ticket: Ticket, answer: Answer) {
    match ticket.waiter {
        Waiter::Stream(id) => act(
            id,
            |stream| stream.awaits(ticket.number),
            |stream| stream.resume(answer),
        ),
        Waiter::Task(number) => tasks::resume(agenda, number, ticket.number, answer),
    }
}

/// Does something on a stream other than the one whose callback runs, if it is to be done.
fn act(id: u32, wants: impl FnOnce(&Stream) -> bool, call: impl FnOnce(&mut Stream)) {
    let Some(mut stream) = take(id) else {
        return;
    };
    if wants(&stream) && hostcalls::set_context(id).is_ok() {
        call(&mut stream);
    }
    put(id, stream);
}

/// The root context's tick.
pub fn tick(id: u32) {
    let Some(root) = root(id) else {
        return;
    };
    root.fit();
    let (now, agenda) = (hostcalls::now(), &root.agenda);
    tasks::begin(agenda);
    agenda.renew_turns(AT_ONCE);
    while agenda.take_turn() {
        let Some(ticket) = agenda.due(now) else {
            agenda.return_turn();
            break;
        };
        resume(agenda, ticket, Answer::Waited);
    }
    for stream in agenda.holding() {
        act(stream, |_| true, Stream::release);
    }
    wake(agenda);
    let _ = hostcalls::set_context(id);
    root.sweep(now);
    agenda.schedule(hostcalls::now());
}
