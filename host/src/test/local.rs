//! Cases on this host: no sockets, and a clock that moves only where everybody waits.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use edgeweir_host_cases::model::{Case, Filter, Step};
use edgeweir_host_cases::seen::{self, Cost, Exchange, Seen};
use edgeweir_host_cases::torture::Fault;
use edgeweir_host_chain::{Layer, MeterSnapshot, Next, Peer, World};
use edgeweir_host_proxy_wasm as proxy_wasm;
use edgeweir_host_wasi_http as wasi_http;
use http::uri::PathAndQuery;

use super::body;
use super::origin::Origin;
use super::world::{Failing, Scripted, Standing, Watching};
use crate::load::{Abi, configuration_variable};

/// How long an exchange may take by its clock; beyond it, it hangs.
const HANGS: Duration = Duration::from_secs(120);
/// What is let pass after an exchange, for what filters do when it is over.
const SETTLE: Duration = Duration::from_millis(2);
/// A clock that is moved further than this does not stop at every tick on the way.
const STEPWISE: Duration = Duration::from_secs(120);
/// How long a callback may compute: a machine under load is no reason to fail.
const DEADLINE: Duration = Duration::from_secs(10);

/// Modules and components compiled once.
pub struct Local {
    modules: Arc<proxy_wasm::Runtime>,
    components: Arc<wasi_http::Runtime>,
    programs: Mutex<HashMap<PathBuf, Program>>,
}

#[derive(Clone)]
enum Program {
    Module(proxy_wasm::Program),
    Component(wasi_http::Program),
}

/// What came of a run of a case.
pub struct Ran {
    /// What was seen.
    pub seen: Seen,
    /// Calls of host functions by name, since the modules had started.
    pub calls: BTreeMap<&'static str, u64>,
    /// Whether the fault was reached.
    pub hit: bool,
}

impl Local {
    /// Counts fuel where a case has a budget of it; keeps what is compiled in `cache`.
    pub fn new(fuel: bool, cache: Option<PathBuf>) -> anyhow::Result<Self> {
        Ok(Self {
            modules: proxy_wasm::Runtime::new(proxy_wasm::RuntimeOptions {
                cache_dir: cache.clone(),
                fuel,
                cpu_time: false,
            })?,
            components: wasi_http::Runtime::new(wasi_http::RuntimeOptions {
                cache_dir: cache,
                fuel,
                cpu_time: false,
                store_path: None,
                stores: BTreeMap::new(),
                databases: BTreeMap::new(),
            })?,
            programs: Mutex::default(),
        })
    }

    /// Compiles a file, unless it is already.
    pub fn compile(&self, file: &Path) -> anyhow::Result<()> {
        self.program(file).map(drop)
    }

    fn program(&self, file: &Path) -> anyhow::Result<Program> {
        let lock = || self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(program) = lock().get(file) {
            return Ok(program.clone());
        }
        let program = match Abi::of(file)? {
            Abi::ProxyWasm => Program::Module(
                proxy_wasm::Program::compile(&self.modules, file, &proxy_wasm::Limits::default())
                    .with_context(|| file.display().to_string())?,
            ),
            Abi::WasiHttp => {
                Program::Component(wasi_http::Program::compile(&self.components, file)?)
            }
        };
        lock().insert(file.to_owned(), program.clone());
        Ok(program)
    }

    /// Runs a case once, in a runtime of its own whose clock stands still.
    pub fn run(&self, case: &Case, split: usize, fault: Option<&Fault>) -> anyhow::Result<Ran> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .context("the runtime cannot start")?;
        runtime.block_on(self.run_inside(case, split, fault))
    }

    async fn run_inside(
        &self,
        case: &Case,
        split: usize,
        fault: Option<&Fault>,
    ) -> anyhow::Result<Ran> {
        let watching = Arc::new(Watching::default());
        let failing = Arc::new(Failing::new(fault.cloned()));
        let world = World {
            clock: Some(Arc::new(Standing::at(case.at))),
            clusters: Some(Arc::new(Scripted::new(
                case.clusters.clone(),
                Arc::clone(&failing),
            ))),
            witness: Some(Arc::clone(&watching) as _),
            faults: Some(Arc::clone(&failing) as _),
        };
        let (modules, components) = (self.modules.fork(), self.components.fork()?);
        for (key, value) in &case.shared {
            for filter in &case.filters {
                modules.set_shared(&filter.name, key.as_bytes(), value);
            }
            components.set_stored(key, value).await?;
        }
        let mut filters = Vec::new();
        for filter in &case.filters {
            let started = match self.program(&filter.module)? {
                Program::Module(program) => {
                    program.start(&modules, plugin(case, filter), world.clone())
                }
                Program::Component(program) => {
                    let plugin = component(case, filter);
                    program.start(&components, plugin, world.clone()).await
                }
            };
            filters.push(started.map_err(|error| told(error, &watching))?);
        }
        let origin = Origin::default();
        let mut layers = filters.clone();
        layers.push(Arc::new(origin.clone()));
        let chain = Next::new(layers);
        // What modules do after their start (a first tick, a task) is no part of the first exchange.
        tokio::time::sleep(SETTLE).await;
        failing.arm();
        let before = meters(&filters);
        let began = std::time::Instant::now();
        let mut seen = Seen::default();
        for (at, step) in case.steps.iter().enumerate() {
            pass(step.advance).await;
            for time in 0..step.times {
                origin.set(&step.upstream, split);
                let traps = traps(&filters);
                let mut exchange = ask(&chain, case, step, split).await;
                tokio::time::sleep(SETTLE).await;
                exchange.upstream = origin.take();
                exchange.log = watching.log();
                exchange.callbacks = watching.callbacks();
                let after = meters(&filters);
                for meter in &after {
                    for (name, value) in &meter.counters {
                        *exchange.metrics.entry(name.clone()).or_default() += value;
                    }
                    if let Some(trap) = &meter.last_trap {
                        exchange.trap = format!("in {}: {}", trap.callback, trap.message);
                    }
                }
                exchange.traps = self::traps(&filters) - traps;
                for (key, _) in &step.expect.shared {
                    let of_module = case
                        .filters
                        .iter()
                        .find_map(|filter| modules.get_shared(&filter.name, key.as_bytes()));
                    let value = match of_module {
                        Some(value) => Some(value.to_vec()),
                        None => components.get_stored(key).await?,
                    };
                    exchange.shared.insert(key.clone(), value);
                }
                let hung = exchange.hung;
                seen.exchanges.push((at, time, exchange));
                if hung {
                    break;
                }
            }
        }
        seen.cost = cost(&before, &meters(&filters), began.elapsed());
        Ok(Ran {
            seen,
            calls: failing.counts(),
            hit: failing.was_hit(),
        })
    }
}

/// Why a filter does not start, with what it logged about it.
fn told(error: anyhow::Error, watching: &Watching) -> anyhow::Error {
    let said: Vec<String> = watching.log().into_iter().map(|(_, line)| line).collect();
    let text = format!("{error:#}");
    match said.iter().any(|line| !text.contains(line.as_str())) {
        true => anyhow::anyhow!("{text}; it said: {}", said.join("; ")),
        false => error,
    }
}

fn plugin(case: &Case, filter: &Filter) -> proxy_wasm::Plugin {
    let mut plugin = proxy_wasm::Plugin::new(filter.name.clone(), filter.module.clone());
    plugin.configuration = filter.config.clone().into_bytes();
    plugin.vm_configuration = filter.vm_config.clone().into_bytes();
    plugin.root_id = filter.root_id.clone();
    plugin.allow_on_headers_stop_iteration = filter.allow_on_headers_stop_iteration;
    plugin.environment = filter.environment.clone();
    plugin.vm_id = filter.name.clone();
    plugin.instances = case.workers as usize;
    plugin.limits.deadline = DEADLINE;
    plugin
}

fn component(case: &Case, filter: &Filter) -> wasi_http::Plugin {
    let mut environment = filter.environment.clone();
    if !filter.config.is_empty() {
        let variable = configuration_variable(&filter.module);
        environment
            .entry(variable)
            .or_insert_with(|| filter.config.clone());
    }
    wasi_http::Plugin {
        name: filter.name.clone(),
        component: filter.module.clone(),
        environment,
        variables: filter.variables.clone(),
        limits: wasi_http::Limits {
            instances: case.workers as usize,
            deadline: DEADLINE,
            ..wasi_http::Limits::default()
        },
        on_trap: wasi_http::OnTrap::Respond,
        // A cluster whose name is no host is none that a component can reach.
        allowed_outbound: case
            .clusters
            .keys()
            .filter_map(|name| wasi_http::Outbound::authority(name).ok())
            .collect(),
        stores: None,
        databases: Vec::new(),
        files: None,
    }
}

/// Moves the clock; the filters' ticks come on the way, but for those of a long time, which are one.
async fn pass(time: Duration) {
    let stepwise = time.min(STEPWISE);
    if !(time - stepwise).is_zero() {
        tokio::time::advance(time - stepwise).await;
    }
    if !stepwise.is_zero() {
        tokio::time::sleep(stepwise).await;
    }
}

async fn ask(chain: &Next, case: &Case, step: &Step, split: usize) -> Exchange {
    let mut exchange = Exchange::default();
    let mut response = None;
    let work = async {
        let got = match chain.clone().run(request(case, step, split)).await {
            Ok(got) => got,
            Err(error) => {
                exchange.error = Some(error.to_string());
                return;
            }
        };
        let (parts, content) = got.into_parts();
        let response = response.insert(seen::Response {
            status: parts.status.as_u16(),
            message: seen::Message {
                fields: body::fields(&parts.headers),
                ..seen::Message::default()
            },
            cut: None,
        });
        response.cut = body::read(content, &mut response.message).await;
    };
    exchange.hung = tokio::time::timeout(HANGS, work).await.is_err();
    exchange.response = response;
    exchange
}

/// The request of a step.
pub fn request(case: &Case, step: &Step, split: usize) -> edgeweir_host_chain::Request {
    let content = body::body(&step.request.body, split, Duration::ZERO);
    let mut request = http::Request::new(content);
    let method = http::Method::from_bytes(step.request.method.as_bytes());
    *request.method_mut() = method.expect("it was checked when the case was read");
    let target = step.request.path.parse::<PathAndQuery>();
    *request.uri_mut() = target
        .expect("it was checked when the case was read")
        .into();
    *request.headers_mut() = body::lines(&step.request.fields);
    let length = step.request.body.bytes.len();
    if length > 0 && !step.request.body.chunked {
        let headers = request.headers_mut();
        headers
            .entry(http::header::CONTENT_LENGTH)
            .or_insert(http::HeaderValue::from(length));
    }
    request.extensions_mut().insert(Peer(case.peer));
    if !case.properties.is_empty() {
        let properties = case.properties.iter();
        let properties = properties.map(|(path, value)| (path.clone(), value.clone().into_bytes()));
        request
            .extensions_mut()
            .insert(proxy_wasm::Properties(properties.collect()));
    }
    request
}

fn meters(filters: &[Arc<dyn Layer>]) -> Vec<MeterSnapshot> {
    filters
        .iter()
        .filter_map(|filter| filter.meter())
        .map(|meter| meter.snapshot())
        .collect()
}

fn traps(filters: &[Arc<dyn Layer>]) -> u64 {
    meters(filters).iter().map(|meter| meter.traps).sum()
}

fn cost(before: &[MeterSnapshot], after: &[MeterSnapshot], wall: Duration) -> Cost {
    let sum = |meters: &[MeterSnapshot], of: fn(&MeterSnapshot) -> u64| -> u64 {
        meters.iter().map(of).sum()
    };
    let since = |of: fn(&MeterSnapshot) -> u64| sum(after, of) - sum(before, of);
    Cost {
        fuel: since(|meter| meter.calls.values().map(|call| call.fuel).sum()),
        memory: after
            .iter()
            .map(|meter| meter.memory_peak)
            .max()
            .unwrap_or(0),
        host_calls: since(|meter| meter.host_calls.values().sum()),
        bytes_copied: since(|meter| meter.bytes_copied),
        wall,
    }
}
