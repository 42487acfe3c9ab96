//! What this VM holds: the filters configured in it, the streams under way, the calls awaited.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

use edgeweir_filter::{Answer, Chain, ConfigError, Level};

use crate::callout::{self, Call};
use crate::hostcalls::{self, Buffer};
use crate::root::{self, Root};
use crate::stream::{Action, Stream};

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
            let root = Rc::new(Root::new(id, module.name, chain));
            root.announce();
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
    put(id, stream);
    action as u32
}

fn take(id: u32) -> Option<Box<Stream>> {
    with(|vm| vm.streams.try_borrow_mut().ok()?.get_mut(&id)?.take()).flatten()
}

/// Puts a stream back, unless its context was deleted meanwhile.
fn put(id: u32, stream: Box<Stream>) {
    with(|vm| {
        if let Ok(mut streams) = vm.streams.try_borrow_mut()
            && let Some(place) = streams.get_mut(&id)
        {
            *place = Some(stream);
        }
    });
}

/// A context is gone.
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
    // Dropped here, with nothing borrowed.
    drop(gone);
}

/// A stream waits for the answer to a call.
pub fn await_call(token: u32, call: Call) {
    with(|vm| {
        vm.calls
            .try_borrow_mut()
            .map(|mut calls| calls.insert(token, call))
    });
}

/// The answer to a call is there, or its failure.
pub fn called(token: u32, fields: u32, size: usize) {
    let call = with(|vm| vm.calls.try_borrow_mut().ok()?.remove(&token)).flatten();
    // Nobody waits for a background call.
    let Some(call) = call else {
        return;
    };
    let answer = callout::receive(&call, fields, size, hostcalls::now());
    resume(call.stream, Answer::Fetched(answer));
}

/// Gives a paused stream its answer; the client may have left, and the stream with it.
fn resume(id: u32, answer: Answer) {
    act(id, |stream| stream.resume(answer));
}

fn act(id: u32, call: impl FnOnce(&mut Stream)) {
    let Some(mut stream) = take(id) else {
        return;
    };
    if hostcalls::set_context(id).is_ok() {
        call(&mut stream);
    }
    put(id, stream);
}

/// The root context's tick.
pub fn tick(id: u32) {
    let Some(root) = root(id) else {
        return;
    };
    let now = hostcalls::now();
    for stream in root.due(now) {
        resume(stream, Answer::Waited);
    }
    for stream in root.holding() {
        act(stream, Stream::release);
    }
    let _ = hostcalls::set_context(id);
    root.sweep(now);
    root.schedule(now);
}
