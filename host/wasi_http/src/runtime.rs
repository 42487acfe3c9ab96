//! What all plugins share: the engine, its epoch ticker, the linker and the key-value store.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use wasmtime::component::Linker;
use wasmtime::{Cache, CacheConfig, Config, Engine};

use crate::client::Client;
use crate::context::Guest;
use crate::databases::Database;
use crate::stores::{Kept, LABEL, Stores};

/// How often epochs advance: the resolution of [`crate::Limits::deadline`].
pub(crate) const TICK: Duration = Duration::from_millis(crate::LEAST_DEADLINE_MS);

/// How a [`Runtime`] is set up.
#[derive(Clone, Debug, Default)]
pub struct RuntimeOptions {
    /// Where compiled components are kept, keyed by content, compiler settings and wasmtime's version; `None`
    /// compiles each time.
    pub cache_dir: Option<PathBuf>,
    /// Count fuel. Costs 4 to 50 % of a guest's speed.
    pub fuel: bool,
    /// Measure CPU time; costs two readings of the thread's clock each time a guest goes on, 0.1 to 0.6 µs each.
    pub cpu_time: bool,
    /// The file the store `default` of `spin:key-value` is kept in; `None` keeps it in memory.
    pub store_path: Option<PathBuf>,
    /// Stores by their labels, `default` among them if it is to be another one.
    pub stores: BTreeMap<String, Kept>,
    /// Databases of SQLite by their labels, each in its file; `None` is one that goes when the host does.
    pub databases: BTreeMap<String, Option<PathBuf>>,
}

/// What a runtime was to open and cannot: the context of the error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unopened {
    /// The key-value store of this label.
    Store(String),
    /// The database of this label.
    Database(String),
}

impl fmt::Display for Unopened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(label) => write!(f, "key-value store `{label}`"),
            Self::Database(label) => write!(f, "database `{label}`"),
        }
    }
}

/// An engine with everything a component may import linked.
pub struct Runtime {
    pub(crate) engine: Engine,
    pub(crate) linker: Arc<Linker<Guest>>,
    pub(crate) stores: BTreeMap<String, Arc<Stores>>,
    pub(crate) databases: BTreeMap<String, Arc<Database>>,
    pub(crate) fuel: bool,
    pub(crate) cpu_time: bool,
    pub(crate) client: Client,
}

impl Runtime {
    /// Sets up an engine and its ticker; the ticker ends with the last user of the engine.
    ///
    /// # Errors
    /// A cache folder that cannot be used, by name; with [`Unopened`] as its context, a store or database.
    pub fn new(options: RuntimeOptions) -> anyhow::Result<Arc<Runtime>> {
        let mut config = Config::new();
        config.wasm_component_model_async(true);
        config.epoch_interruption(true);
        config.consume_fuel(options.fuel);
        if let Some(dir) = &options.cache_dir {
            // wasmtime keeps its cache within bounds by removing whatever else it finds in the folder: it gets one of
            // its own, never a folder that something was in before.
            let dir = std::path::absolute(dir.join("compiled"))
                .with_context(|| format!("cache folder {}", dir.display()))?;
            std::fs::create_dir_all(&dir)
                .with_context(|| format!("cache folder {}: cannot be made", dir.display()))?;
            let mut cache = CacheConfig::new();
            cache.with_directory(&dir);
            let cache = Cache::new(cache)
                .map_err(|error| anyhow::anyhow!("cache folder {}: {error:#}", dir.display()))?;
            config.cache(Some(cache));
        }
        let engine = Engine::new(&config).map_err(anyhow::Error::from)?;
        tick(&engine)?;
        let mut linker = Linker::new(&engine);
        link(&mut linker).map_err(anyhow::Error::from)?;
        let mut stores = BTreeMap::new();
        for (label, kept) in &options.stores {
            let store = Stores::open(kept, label);
            let store = store.with_context(|| Unopened::Store(label.clone()))?;
            stores.insert(label.clone(), store);
        }
        if !stores.contains_key(LABEL) {
            let kept = options.store_path.map_or(Kept::Memory, Kept::File);
            let store = Stores::open(&kept, LABEL);
            let store = store.with_context(|| Unopened::Store(LABEL.to_owned()))?;
            stores.insert(LABEL.to_owned(), store);
        }
        let mut databases = BTreeMap::new();
        for (label, file) in &options.databases {
            let database = Database::new(file.as_deref());
            let database = database.with_context(|| Unopened::Database(label.clone()))?;
            databases.insert(label.clone(), database);
        }
        Ok(Arc::new(Self {
            engine,
            linker: Arc::new(linker),
            stores,
            databases,
            fuel: options.fuel,
            cpu_time: options.cpu_time,
            client: Client::new(),
        }))
    }

    /// A runtime with the engine of this one and with an empty key-value store of its own, in memory.
    ///
    /// # Errors
    /// None today: a store in memory can always be made.
    pub fn fork(&self) -> anyhow::Result<Arc<Runtime>> {
        Ok(Arc::new(Self {
            engine: self.engine.clone(),
            linker: Arc::clone(&self.linker),
            stores: BTreeMap::from([(LABEL.to_owned(), Stores::open(&Kept::Memory, LABEL)?)]),
            databases: BTreeMap::new(),
            fuel: self.fuel,
            cpu_time: self.cpu_time,
            client: self.client.clone(),
        }))
    }

    fn store(&self) -> anyhow::Result<&Arc<Stores>> {
        self.stores
            .get(LABEL)
            .context("there is no key-value store")
    }

    /// Sets a key of the key-value store.
    ///
    /// # Errors
    /// A key or value beyond the store's bounds.
    pub async fn set_stored(&self, key: &str, value: &[u8]) -> anyhow::Result<()> {
        let set = self.store()?.set(key.to_owned(), value.to_vec()).await;
        set.map(drop).map_err(anyhow::Error::msg)
    }

    /// The value of a key in the key-value store.
    ///
    /// # Errors
    /// A store file that cannot be read.
    pub async fn get_stored(&self, key: &str) -> anyhow::Result<Option<Vec<u8>>> {
        self.store()?
            .get(key.to_owned())
            .await
            .map_err(anyhow::Error::msg)
    }
}

fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    wasmtime_wasi::p3::add_to_linker(linker)?;
    wasmtime_wasi_http::p3::add_to_linker(linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)?;
    crate::handler::add_to_linker(linker)?;
    crate::outgoing::add_to_linker(linker)?;
    crate::spin::add_to_linker(linker)
}

/// One ticker per engine: one per request costs orders of magnitude more.
fn tick(engine: &Engine) -> anyhow::Result<()> {
    let engine = engine.weak();
    std::thread::Builder::new()
        .name("wasi-http-epoch".into())
        .spawn(move || {
            loop {
                std::thread::sleep(TICK);
                let Some(engine) = engine.upgrade() else {
                    return;
                };
                engine.increment_epoch();
            }
        })?;
    Ok(())
}
