//! What all plugins of a process share: engines, the cache of compiled modules, the watchdog of deadlines, shared data.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use anyhow::Context as _;
use edgeweir_host_chain::lock;
use wasmtime::{Cache, CacheConfig, Config, Engine};

use crate::callout::Client;
use crate::deadline::Watchdog;
use crate::plugin::Limits;
use crate::shared::Shared;

/// How often deadlines are looked at: the grain of each.
const TICK: Duration = Duration::from_millis(5);

/// Settings of a [`Runtime`].
#[derive(Clone, Debug, Default)]
pub struct RuntimeOptions {
    /// Where compiled modules are kept between runs, keyed by content, settings and version of the compiler. `None`
    /// compiles every time.
    pub cache_dir: Option<PathBuf>,
    /// Whether fuel is counted; costs 4 to 50 % of a plugin's speed.
    pub fuel: bool,
    /// Whether CPU time is measured; costs two readings of the thread's clock a callback, 0.1 to 0.6 µs each.
    pub cpu_time: bool,
}

/// One per process: engines, the thread that ends what is late, the cache of compiled modules, shared data and queues.
pub struct Runtime {
    options: RuntimeOptions,
    cache: Option<Cache>,
    /// By what belongs to an engine: the size of stacks, and whether there are deadlines.
    engines: Arc<Mutex<BTreeMap<(usize, bool), Engine>>>,
    watchdog: Arc<Watchdog>,
    pub(crate) shared: Shared,
    client: OnceLock<Client>,
    /// Keeps the thread that ends what is late.
    _parent: Option<Arc<Runtime>>,
}

impl Runtime {
    /// Starts a runtime; its thread ends with it. Fails if the cache folder cannot be made.
    pub fn new(options: RuntimeOptions) -> anyhow::Result<Arc<Runtime>> {
        let cache = match &options.cache_dir {
            Some(folder) => {
                // wasmtime keeps its cache within bounds by removing whatever else it finds in the folder: it gets
                // one of its own, never a folder that something was in before.
                let folder = &folder.join("compiled");
                let says = || format!("{}: cannot keep compiled modules here", folder.display());
                std::fs::create_dir_all(folder).with_context(says)?;
                let folder = folder.canonicalize().with_context(says)?;
                let mut config = CacheConfig::new();
                config.with_directory(folder);
                Some(
                    Cache::new(config)
                        .map_err(anyhow::Error::from)
                        .with_context(says)?,
                )
            }
            None => None,
        };
        let runtime = Arc::new(Runtime {
            options,
            cache,
            engines: Arc::default(),
            watchdog: Arc::default(),
            shared: Shared::default(),
            client: OnceLock::new(),
            _parent: None,
        });
        let ticking = Arc::downgrade(&runtime);
        std::thread::Builder::new()
            .name("deadlines".into())
            .spawn(move || tick(&ticking))
            .context("the thread for deadlines")?;
        Ok(runtime)
    }

    /// A runtime with the engines of this one and with shared data and queues of its own.
    pub fn fork(self: &Arc<Self>) -> Arc<Runtime> {
        Arc::new(Runtime {
            options: self.options.clone(),
            cache: self.cache.clone(),
            engines: Arc::clone(&self.engines),
            watchdog: Arc::clone(&self.watchdog),
            shared: Shared::default(),
            client: OnceLock::new(),
            _parent: Some(Arc::clone(self)),
        })
    }

    /// Sets a key of the shared data of a `vm_id`, without its bounds.
    pub fn set_shared(&self, vm_id: &str, key: &[u8], value: &[u8]) {
        // Without a bound and without a number to compare there is nothing it could fail for.
        let _ = self
            .shared
            .data(vm_id)
            .set(key, value, 0, usize::MAX, usize::MAX);
    }

    /// The value of a key in the shared data of a `vm_id`.
    pub fn get_shared(&self, vm_id: &str, key: &[u8]) -> Option<bytes::Bytes> {
        self.shared.data(vm_id).get(key).map(|(value, _)| value)
    }

    /// Whether fuel is counted.
    pub(crate) fn fuel(&self) -> bool {
        self.options.fuel
    }

    /// Whether CPU time is measured.
    pub(crate) fn cpu_time(&self) -> bool {
        self.options.cpu_time
    }

    /// What ends callbacks that are late.
    pub(crate) fn watchdog(&self) -> &Watchdog {
        &self.watchdog
    }

    /// Whether a module with these limits has checks put into it. Where fuel is counted they would count: there an engine
    /// with epochs does the same at a price that does not matter beside that of fuel.
    pub(crate) fn inserts_checks(&self, limits: &Limits) -> bool {
        !limits.deadline.is_zero() && !self.options.fuel
    }

    /// The client of all callouts; the first call must be inside a tokio runtime.
    pub(crate) fn client(&self) -> Client {
        self.client.get_or_init(Client::new).clone()
    }

    /// The engine for these limits.
    pub(crate) fn engine(&self, limits: &Limits) -> anyhow::Result<Engine> {
        let mut engines = lock(&self.engines);
        let (stack_bytes, has_deadlines) = (limits.stack_bytes, !limits.deadline.is_zero());
        if let Some(engine) = engines.get(&(stack_bytes, has_deadlines)) {
            return Ok(engine.clone());
        }
        let mut config = Config::new();
        config.epoch_interruption(has_deadlines && self.options.fuel);
        // For the checks alone: a module that shares memory itself is refused.
        config.shared_memory(self.inserts_checks(limits));
        config.consume_fuel(self.options.fuel);
        config.max_wasm_stack(stack_bytes);
        // `max_wasm_stack` must not be beyond it, though no call here is asynchronous.
        config.async_stack_size(stack_bytes.max(1 << 20) + (1 << 20));
        config.cache(self.cache.clone());
        let engine = Engine::new(&config)
            .map_err(anyhow::Error::from)
            .context("the Wasm engine")?;
        engines.insert((stack_bytes, has_deadlines), engine.clone());
        Ok(engine)
    }
}

fn tick(runtime: &Weak<Runtime>) {
    loop {
        std::thread::sleep(TICK);
        let Some(runtime) = runtime.upgrade() else {
            return;
        };
        runtime.watchdog.look();
        for engine in lock(&runtime.engines).values() {
            engine.increment_epoch();
        }
    }
}
