//! From a configuration to filters that run: which ABI a file speaks, and what each host needs to know of it.

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use edgeweir_host_chain::{Emergency, Layer, Meter};
use edgeweir_host_formats::spin::Store;
use edgeweir_host_formats::{component, settings};
use edgeweir_host_proxy_wasm as proxy_wasm;
use edgeweir_host_wasi_http as wasi_http;

use crate::config::{Config, ConfigError, Filter, Limits, OnTrap, Within};
use crate::files;
use crate::inspect::{self, Inspected};
use crate::kept;
use crate::refusal;
use crate::schema;

/// What takes longer than this at the start is said.
const PATIENCE: Duration = Duration::from_millis(800);

/// Says what takes so long, when it does.
async fn patiently<T>(file: &Path, starting: impl Future<Output = T>) -> T {
    let mut starting = std::pin::pin!(starting);
    tokio::select! {
        done = &mut starting => return done,
        () = tokio::time::sleep(PATIENCE) => {}
    }
    tracing::info!(file = %file.display(), "compiling; what comes of it is kept for the next start");
    starting.await
}

/// How a filter talks to its host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Abi {
    /// A core module with proxy-wasm's callbacks.
    ProxyWasm,
    /// A component with wasi:http's handler.
    WasiHttp,
}

impl Abi {
    /// The name it has in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ProxyWasm => "proxy-wasm",
            Self::WasiHttp => "wasi:http",
        }
    }

    /// Tells a module from a component by the first eight bytes of its file.
    pub fn of(file: &Path) -> anyhow::Result<Self> {
        let mut head = [0; 8];
        let read = std::fs::File::open(file).and_then(|mut file| file.read_exact(&mut head));
        match read {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err(inspect::too_short(file));
            }
            read => read.with_context(|| format!("{} cannot be read", file.display()))?,
        }
        match head {
            // Core: version 1, layer 0. Component: version 13 (the binary format's), layer 1.
            [0, b'a', b's', b'm', 1, 0, 0, 0] => {
                let wasm = std::fs::read(file)
                    .with_context(|| format!("{} cannot be read", file.display()))?;
                Ok(match component::is_component_to_be(&wasm) {
                    true => Self::WasiHttp,
                    false => Self::ProxyWasm,
                })
            }
            [0, b'a', b's', b'm', _, _, 1, 0] => Ok(Self::WasiHttp),
            [0, b'a', b's', b'm', ..] => Err(anyhow!(
                "{} is Wasm of a version this host does not know",
                file.display()
            )),
            _ => Err(anyhow!("{} is not Wasm", file.display())),
        }
    }
}

/// A filter that is loaded.
#[derive(Clone)]
pub struct Loaded {
    /// Its name in the configuration.
    pub name: String,
    /// What it speaks.
    pub abi: Abi,
    /// The file it came from.
    pub file: PathBuf,
    /// The file's size, bytes.
    pub size: u64,
    /// Linear memory one instance may have, bytes.
    pub memory_limit: u64,
    /// On a trap requests go on without it.
    pub passes: bool,
    /// It, ready to serve.
    pub layer: Arc<dyn Layer>,
}

/// The runtimes, made when the first filter needs them. They outlive a reload, and with them what is kept in them: shared
/// data and queues of modules, the key-value store of components.
#[derive(Clone, Default)]
pub struct Runtimes {
    modules: Option<Arc<proxy_wasm::Runtime>>,
    components: Option<Arc<wasi_http::Runtime>>,
}

/// What a configuration is loaded for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// To be served.
    Serving,
    /// To see whether all is well: nothing is opened that would be made, and stores begin empty, in memory.
    Checking,
}

/// Loads the filters of one configuration.
pub struct Loader<'a> {
    config: &'a Config,
    purpose: Purpose,
    runtimes: Runtimes,
    meters: BTreeMap<String, Arc<Meter>>,
}

impl<'a> Loader<'a> {
    /// A loader on runtimes there are; a filter counts on in the meter of its name.
    pub fn following(
        config: &'a Config,
        purpose: Purpose,
        runtimes: Runtimes,
        meters: BTreeMap<String, Arc<Meter>>,
    ) -> Self {
        Self {
            config,
            purpose,
            runtimes,
            meters,
        }
    }

    /// The runtimes, for the loader that follows.
    pub fn runtimes(&self) -> Runtimes {
        self.runtimes.clone()
    }

    fn meter(&self, name: &str) -> Arc<Meter> {
        self.meters.get(name).cloned().unwrap_or_default()
    }

    /// Loads, compiles (or takes from the disk cache) and starts one filter.
    pub async fn load(&mut self, name: &str, filter: &Filter) -> anyhow::Result<Loaded> {
        let file = self.config.resolve(filter.module.get_ref());
        let at = |span, field: &str, message: String| {
            let field = format!("filter.{name}.{field}");
            anyhow::Error::new(ConfigError::at(&self.config.source, span, &field, message))
        };
        let size = match std::fs::metadata(&file) {
            Ok(meta) if meta.is_file() => meta.len(),
            Ok(_) => {
                let message = format!("{} is not a file", file.display());
                return Err(at(filter.module.span(), "module", message));
            }
            Err(error) => {
                let message = format!(
                    "{} cannot be read: {error}; `cargo edge build` writes the project's own modules to target/edge",
                    file.display()
                );
                return Err(at(filter.module.span(), "module", message));
            }
        };
        let abi = Abi::of(&file)
            .map_err(|error| at(filter.module.span(), "module", format!("{error:#}")))?;
        // Only a manifest of Spin's grants; Spin has no proxy-wasm.
        if filter.grants.is_some() && abi == Abi::ProxyWasm {
            let message = format!(
                "{} is a proxy-wasm module: Spin runs components alone",
                file.display()
            );
            return Err(at(filter.module.span(), "module", message));
        }
        if filter.raw.is_some() && abi == Abi::WasiHttp {
            let message = format!(
                "{} is a wasi:http component: Envoy runs proxy-wasm modules alone",
                file.display()
            );
            return Err(at(filter.module.span(), "module", message));
        }
        if let Some((span, field)) = of_the_other_abi(filter, abi) {
            let message = format!(
                "{} is a {}; `{field}` is for {}",
                file.display(),
                match abi {
                    Abi::ProxyWasm => "proxy-wasm module",
                    Abi::WasiHttp => "wasi:http component",
                },
                match abi {
                    Abi::ProxyWasm => "components",
                    Abi::WasiHttp => "proxy-wasm modules",
                },
            );
            return Err(at(span, field, message));
        }
        let settings = match &filter.config {
            None => None,
            Some(value) => {
                let (text, json) = settings::of(value.get_ref())
                    .map_err(|message| at(value.span(), "config", message))?;
                if let Some(schema) = Inspected::read(&file).ok().and_then(|it| it.schema)
                    && let Err(mismatch) = schema::check(&schema, &json)
                {
                    let field = if mismatch.field.is_empty() {
                        "config".to_owned()
                    } else {
                        format!("config.{}", mismatch.field)
                    };
                    let place = self.config.source.below(value.span(), &mismatch.field);
                    let message = settings::unreadable(&json).unwrap_or(mismatch.message);
                    return Err(at(place, &field, message));
                }
                Some(text)
            }
        };
        if abi == Abi::WasiHttp {
            self.check_bounds(name, filter)?;
        }
        let starting = async {
            match abi {
                Abi::ProxyWasm => self.module(name, filter, &file, settings).await,
                Abi::WasiHttp => self.component(name, filter, &file, settings).await,
            }
        };
        let layer = patiently(&file, starting)
            .await
            .map_err(|error| refusal::of(self.config, name, filter, &error))?;
        Ok(Loaded {
            name: name.to_owned(),
            abi,
            file,
            size,
            memory_limit: filter
                .memory_mib
                .unwrap_or(self.config.limits.memory_mib)
                .get()
                * 1024
                * 1024,
            passes: filter.on_trap == OnTrap::Pass,
            layer,
        })
    }

    /// Bounds that are narrower for components than for modules.
    fn check_bounds(&self, name: &str, filter: &Filter) -> Result<(), ConfigError> {
        let limits = &self.config.limits;
        let or = |own: Option<u64>, all: u64, field: &'static str| match own {
            Some(own) => (own, vec!["filter", name, field]),
            None => (all, vec!["limits", field]),
        };
        let own = filter.deadline_ms.map(|it| it.get());
        let deadline = or(own, limits.deadline_ms.get(), "deadline_ms");
        let own = filter.headers.map(|it| it.get());
        let headers = or(own, limits.headers.get(), "headers");
        for ((value, steps), least, most) in [
            (deadline, wasi_http::LEAST_DEADLINE_MS, 60_000),
            (headers, wasi_http::LEAST_HEADERS, 8_192),
        ] {
            if value < least {
                let source = &self.config.source;
                let span = source
                    .place_of(&steps)
                    .unwrap_or_else(|| filter.module.span());
                let message = format!(
                    "{value} is out of bounds: from {least} to {most} where a filter is a component, as [filter.{name}] is"
                );
                return Err(ConfigError::at(source, span, &steps.join("."), message));
            }
        }
        Ok(())
    }

    async fn module(
        &mut self,
        name: &str,
        filter: &Filter,
        file: &Path,
        settings: Option<String>,
    ) -> anyhow::Result<Arc<dyn Layer>> {
        let limits = &self.config.limits;
        let runtime = match &self.runtimes.modules {
            Some(runtime) => runtime.clone(),
            None => {
                let runtime = proxy_wasm::Runtime::new(proxy_wasm::RuntimeOptions {
                    cache_dir: cache_dir(self.config)?,
                    fuel: limits.fuel,
                    cpu_time: limits.cpu_time,
                })?;
                self.runtimes.modules.insert(runtime).clone()
            }
        };
        let text =
            |value: &Option<toml::Spanned<String>>| value.as_ref().map(|it| it.get_ref().clone());
        let defaults = proxy_wasm::Limits::default();
        let plugin = proxy_wasm::Plugin {
            name: name.to_owned(),
            module: file.to_owned(),
            configuration: match &filter.raw {
                Some(raw) => raw
                    .configuration
                    .as_ref()
                    .map_or_else(Vec::new, |it| it.value.clone()),
                None => settings.unwrap_or_default().into_bytes(),
            },
            vm_configuration: match &filter.raw {
                Some(raw) => raw.vm_configuration.clone(),
                None => text(&filter.vm_config).unwrap_or_default().into_bytes(),
            },
            environment: environment(filter),
            root_id: text(&filter.root_id).unwrap_or_default(),
            vm_id: text(&filter.vm_id)
                .or_else(|| filter.shares.clone())
                .unwrap_or_else(|| name.to_owned()),
            limits: proxy_wasm::Limits {
                memory_bytes: filter.memory_mib.unwrap_or(limits.memory_mib).size() * 1024 * 1024,
                deadline: deadline(filter, limits),
                headers: filter.headers.unwrap_or(limits.headers).size(),
                header_bytes: header_bytes(filter, limits),
                body_buffer_bytes: filter
                    .body_buffer_bytes
                    .unwrap_or(defaults.body_buffer_bytes),
                stack_bytes: own(&filter.stack_kib, 1 << 10, defaults.stack_bytes),
                shared_data_bytes: own(
                    &filter.shared_data_mib,
                    1 << 20,
                    defaults.shared_data_bytes,
                ),
                callouts: own(&filter.callouts, 1, defaults.callouts),
                callout_bytes: own(&filter.callout_kib, 1 << 10, defaults.callout_bytes),
                ..defaults
            },
            on_trap: match filter.on_trap {
                OnTrap::Respond => proxy_wasm::OnTrap::Respond,
                OnTrap::Pass => proxy_wasm::OnTrap::PassThrough,
            },
            clusters: self.clusters(filter),
            instances: filter.instances.map_or(2, |count| count.size()),
            allow_on_headers_stop_iteration: filter
                .allow_on_headers_stop_iteration
                .as_ref()
                .is_some_and(|it| *it.get_ref()),
        };
        proxy_wasm::load_metered(&runtime, plugin, self.meter(name)).await
    }

    /// The upstreams that speak clear HTTP/1.1 (their first address) under their names, as a listener's filters see them, and the filter's own.
    fn clusters(&self, filter: &Filter) -> BTreeMap<String, String> {
        let upstreams = self.config.upstreams.iter();
        let upstreams = upstreams
            .filter(|(_, upstream)| !upstream.http2 && upstream.tls.is_none())
            .map(|(name, upstream)| (name.clone(), upstream.address.0.clone()));
        let own = filter.clusters.iter().flat_map(|own| own.get_ref());
        let own = own.map(|(name, authority)| (name.clone(), authority.0.clone()));
        upstreams.chain(own).collect()
    }

    /// How long something outside may let a component wait: whatever lets it wait has a bound of its own.
    fn longest_wait(&self) -> Duration {
        let upstreams = self.config.upstreams.values();
        let bounds = upstreams.flat_map(|it| [it.timeout_ms.millis(), it.idle_timeout_ms.millis()]);
        bounds.fold(self.config.limits.stall_timeout_ms.millis(), Duration::max)
    }

    async fn component(
        &mut self,
        name: &str,
        filter: &Filter,
        file: &Path,
        settings: Option<String>,
    ) -> anyhow::Result<Arc<dyn Layer>> {
        let limits = &self.config.limits;
        let runtime = match &self.runtimes.components {
            Some(runtime) => runtime.clone(),
            None => {
                let mut options = wasi_http::RuntimeOptions {
                    cache_dir: cache_dir(self.config)?,
                    fuel: limits.fuel,
                    cpu_time: limits.cpu_time,
                    store_path: self.config.state.store.clone(),
                    stores: stores(self.config),
                    databases: databases(self.config),
                };
                if self.purpose == Purpose::Checking {
                    in_memory(&mut options);
                }
                let runtime = wasi_http::Runtime::new(options);
                let runtime = runtime.map_err(|error| kept::refused(self.config, error))?;
                self.runtimes.components.insert(runtime).clone()
            }
        };
        let mut environment = environment(filter);
        if let Some(settings) = settings {
            let variable = configuration_variable(file);
            environment.entry(variable).or_insert(settings);
        }
        let defaults = wasi_http::Limits::default();
        let plugin = wasi_http::Plugin {
            name: name.to_owned(),
            component: file.to_owned(),
            environment,
            variables: filter
                .variables
                .as_ref()
                .map(|it| it.get_ref().clone())
                .unwrap_or_default(),
            limits: wasi_http::Limits {
                memory_bytes: filter.memory_mib.unwrap_or(limits.memory_mib).size() * 1024 * 1024,
                deadline: deadline(filter, limits),
                headers: filter.headers.unwrap_or(limits.headers).size(),
                header_bytes: header_bytes(filter, limits),
                instances: filter
                    .instances
                    .map_or(defaults.instances, |count| count.size()),
                idle: self.longest_wait(),
                ..defaults
            },
            on_trap: match filter.on_trap {
                OnTrap::Respond => wasi_http::OnTrap::Respond,
                OnTrap::Pass => wasi_http::OnTrap::PassThrough,
            },
            allowed_outbound: match &filter.grants {
                Some(grants) => grants.outbound.clone(),
                None => outbound(filter)?,
            },
            stores: filter.grants.as_ref().map(|grants| grants.stores.clone()),
            databases: filter
                .grants
                .as_ref()
                .map(|grants| grants.databases.clone())
                .unwrap_or_default(),
            files: match &filter.grants {
                Some(grants) => files::gathered(&grants.files, &self.config.source)?,
                None => None,
            },
        };
        wasi_http::load_metered(&runtime, plugin, self.meter(name)).await
    }
}

/// The bytes of one head that a filter takes.
fn header_bytes(filter: &Filter, limits: &Limits) -> usize {
    let own = filter.header_kib.map(|it| it.size());
    own.unwrap_or_else(|| limits.header_kib.size()) * 1024
}

/// The longest that a filter may compute.
fn deadline(filter: &Filter, limits: &Limits) -> Duration {
    let own = filter.deadline_ms.map(|it| it.millis());
    own.unwrap_or_else(|| limits.deadline_ms.millis())
}

/// A filter's own limit in its unit, or the default.
fn own<const MIN: u64, const MAX: u64>(
    limit: &Option<toml::Spanned<Within<MIN, MAX>>>,
    unit: usize,
    default: usize,
) -> usize {
    limit
        .as_ref()
        .map_or(default, |it| it.get_ref().size() * unit)
}

fn outbound(filter: &Filter) -> anyhow::Result<Vec<wasi_http::Outbound>> {
    let listed = filter.allowed_outbound.iter().flat_map(|it| it.get_ref());
    listed
        .map(|authority| wasi_http::Outbound::authority(&authority.0).map_err(|why| anyhow!(why)))
        .collect()
}

/// The databases that a component may open: no file is made for others.
pub(crate) fn databases(config: &Config) -> BTreeMap<String, Option<PathBuf>> {
    let granted = |label: &String| {
        let mut grants = config.filters.values().filter_map(|it| it.grants.as_ref());
        grants.any(|grants| grants.databases.contains(label))
    };
    let all = config.databases.iter().filter(|(label, _)| granted(label));
    all.map(|(label, file)| (label.clone(), file.clone()))
        .collect()
}

/// The stores of Spin's runtime configuration.
fn stores(config: &Config) -> BTreeMap<String, wasi_http::Kept> {
    let kept = |store: &Store| match store {
        Store::File(Some(path)) => wasi_http::Kept::File(path.clone()),
        Store::File(None) => match &config.state.store {
            Some(path) => wasi_http::Kept::File(path.clone()),
            None => wasi_http::Kept::Memory,
        },
        Store::Redis(address) => wasi_http::Kept::Redis(address.clone()),
    };
    let stores = config.stores.iter();
    stores
        .map(|(label, store)| (label.clone(), kept(store)))
        .collect()
}

/// Leaves every file of a store or database alone.
fn in_memory(options: &mut wasi_http::RuntimeOptions) {
    options.store_path = None;
    for kept in options.stores.values_mut() {
        if let wasi_http::Kept::File(_) = kept {
            *kept = wasi_http::Kept::Memory;
        }
    }
    for file in options.databases.values_mut() {
        *file = None;
    }
}

/// The first field set that means nothing to the ABI of the file.
fn of_the_other_abi(filter: &Filter, abi: Abi) -> Option<(Range<usize>, &'static str)> {
    fn span<T>(value: &Option<toml::Spanned<T>>) -> Option<Range<usize>> {
        value.as_ref().map(|value| value.span())
    }
    let fields = match abi {
        Abi::WasiHttp => vec![
            (span(&filter.vm_id), "vm_id"),
            (span(&filter.vm_config), "vm_config"),
            (span(&filter.root_id), "root_id"),
            (
                span(&filter.allow_on_headers_stop_iteration),
                "allow_on_headers_stop_iteration",
            ),
            (span(&filter.clusters), "clusters"),
            (span(&filter.callouts), "callouts"),
            (span(&filter.callout_kib), "callout_kib"),
            (span(&filter.shared_data_mib), "shared_data_mib"),
            (span(&filter.stack_kib), "stack_kib"),
        ],
        Abi::ProxyWasm => vec![
            (span(&filter.variables), "variables"),
            (span(&filter.allowed_outbound), "allowed_outbound"),
        ],
    };
    fields
        .into_iter()
        .find_map(|(span, field)| span.map(|span| (span, field)))
}

/// A filter's environment, and that this host takes the field of the emergency level off clients.
fn environment(filter: &Filter) -> BTreeMap<String, String> {
    let own = filter.environment.as_ref();
    let mut all = own.map(|it| it.get_ref().clone()).unwrap_or_default();
    all.entry(Emergency::HEEDED.to_owned())
        .or_insert_with(|| "1".to_owned());
    all
}

/// The environment variable a component reads its configuration from.
pub(crate) fn configuration_variable(file: &Path) -> String {
    let wasm = std::fs::read(file).unwrap_or_default();
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    component::configuration_variable(&wasm, &name)
}

/// Where compiled modules are kept; `None` when there is no home to keep them in.
fn cache_dir(config: &Config) -> Result<Option<PathBuf>, ConfigError> {
    let Some(folder) = config.state.cache_dir.clone().or_else(user_cache) else {
        return Ok(None);
    };
    let compiled = folder.join("compiled");
    let Err(error) = std::fs::create_dir_all(&compiled) else {
        return Ok(Some(folder));
    };
    let says = format!(
        "{}: compiled modules cannot be kept here: {error}",
        compiled.display()
    );
    let source = &config.source;
    Err(match source.place_of(&["state", "cache_dir"]) {
        Some(place) => ConfigError::at(source, place, "state.cache_dir", says),
        None => ConfigError::file(
            &source.file,
            format!("{says}; `state.cache_dir` or XDG_CACHE_HOME names another folder"),
        ),
    })
}

/// The cache folder of whoever runs the host.
pub(crate) fn user_cache() -> Option<PathBuf> {
    let set = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("XDG_CACHE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".cache")))
        .map(|folder| folder.join("edgeweir"))
}
