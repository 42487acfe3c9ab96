//! A whole host: every listener of a configuration with its chain, until it is told to stop.
//!
//! What is served is a generation. A reload prepares the next one aside and puts it in the place of the last: requests that
//! come afterwards take it, those in flight finish on what they began with.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use edgeweir_host_chain::Meter;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::admin::Admin;
use crate::config::{Config, ConfigError, Token};
use crate::kept;
use crate::load::{self, Loaded, Loader, Purpose, Runtimes};
use crate::monitor::{Watch, Watching};
use crate::reload::Reloads;
use crate::serve::access::AccessLog;
use crate::serve::exchange::Telling;
use crate::serve::listener::{Setup, Slot};
use crate::serve::{Accepting, Bounds, Site, Upstream, tls};
use crate::sources;
use crate::stats::ListenerStats;
use crate::ways::{Build, settings_of};

/// A configuration whose filters are loaded, not yet served.
pub struct Prepared {
    config: Config,
    filters: Vec<Loaded>,
    sites: Vec<Arc<Site>>,
    tls: Vec<Option<Arc<rustls::ServerConfig>>>,
    runtimes: Runtimes,
    state: Arc<State>,
    /// Of the admin pages.
    token: Option<Token>,
}

/// What is known of a host while it runs: the source of metrics, dashboard and report.
pub struct State {
    /// The filters, in the order of the chains.
    pub filters: Vec<Loaded>,
    /// The listeners.
    pub listeners: Vec<ListenerState>,
    /// The upstreams, by name.
    pub upstreams: BTreeMap<String, Arc<Upstream>>,
    /// Connections each listener may have at once.
    pub connections: u64,
    /// When the host started.
    pub started: Instant,
    /// What watches it.
    pub watch: Arc<Watch>,
    /// How reloads went.
    pub reloads: Arc<Reloads>,
}

/// One listener of a running host.
pub struct ListenerState {
    /// Its name.
    pub name: String,
    /// The names of its filters, outermost first.
    pub filters: Vec<String>,
    /// Where it forwards to.
    pub upstream: String,
    /// It speaks TLS.
    pub secure: bool,
    /// Its counts.
    pub stats: Arc<ListenerStats>,
    /// The address bound, once it is.
    pub address: std::sync::OnceLock<SocketAddr>,
}

/// What is served at this moment.
#[derive(Clone)]
pub struct Live(Arc<RwLock<Arc<State>>>);

impl Live {
    /// A holder of what is served.
    pub fn new(state: Arc<State>) -> Self {
        Self(Arc::new(RwLock::new(state)))
    }

    /// It.
    pub fn now(&self) -> Arc<State> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn put(&self, state: Arc<State>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = state;
    }
}

/// What a generation leaves to the next.
#[derive(Default)]
struct Kept {
    runtimes: Runtimes,
    state: Option<Arc<State>>,
}

/// A host that serves.
pub struct Host {
    /// Counts and names.
    pub state: Arc<State>,
    /// The address of the admin pages.
    pub admin: Option<SocketAddr>,
    live: Live,
    config: Config,
    runtimes: Runtimes,
    listeners: Vec<Serving>,
    /// Listeners a reload took away, while they finish.
    leaving: tokio::task::JoinSet<()>,
    pages: Option<Arc<Admin>>,
    admin_task: Option<Accepting>,
    sampler: tokio::task::JoinHandle<()>,
    /// Measures until it is dropped.
    watching: Watching,
    grace: Duration,
}

/// A listener with the place its setup is in.
struct Serving {
    name: String,
    /// The address as it was asked for.
    asked: SocketAddr,
    slot: Arc<Slot<Site>>,
    accepting: Accepting,
}

impl Prepared {
    /// Loads every filter a listener names, in order, and connects the chains.
    pub async fn new(config: Config) -> anyhow::Result<Self> {
        sources::make_ready(&config).await?;
        Self::after(config, Kept::default(), Purpose::Serving).await
    }

    /// [`Prepared::new`] of a configuration whose sources are ready, to see whether all is well, not to be served: neither a log
    /// nor a store is made.
    pub async fn checked(config: Config) -> anyhow::Result<Self> {
        Self::after(config, Kept::default(), Purpose::Checking).await
    }

    async fn after(config: Config, kept: Kept, purpose: Purpose) -> anyhow::Result<Self> {
        let token = config.admin_token()?;
        kept::look_at(&config)?;
        let before = kept.state;
        let reloads = before
            .as_ref()
            .map_or_else(Arc::default, |state| state.reloads.clone());
        let generation = reloads.generation();
        // What watches goes on watching; that the next configuration asks for something sound is said now.
        let watch = match &before {
            Some(state) => {
                config.monitor.settings(&config)?;
                state.watch.clone()
            }
            None => Arc::new(Watch::new(&config)?),
        };
        let loader = Loader::following(
            &config,
            purpose,
            kept.runtimes,
            meters_of(before.as_deref()),
        );
        let mut build = Build::new(&config, before.as_deref(), loader);
        let mut sites = Vec::new();
        let mut listeners = Vec::new();
        let mut secured = Vec::new();
        for (index, listener) in config.listeners.iter().enumerate() {
            let field = format!("listener[{index}]");
            let routes = Arc::new(build.routes(&listener.ways).await?);
            let tls = match &listener.tls {
                None => None,
                Some(tls) => Some(tls::server(&config, tls, &field)?),
            };
            let name = listener.name.get_ref();
            let stats = before
                .as_ref()
                .and_then(|state| state.listeners.iter().find(|it| it.name == *name))
                .map_or_else(Arc::default, |known| known.stats.clone());
            sites.push(Arc::new(Site {
                name: name.clone(),
                routes,
                forwarded_for: listener.forwarded_for,
                strip_port: listener.strip_port,
                port: listener.listen.get_ref().0.port(),
                headers: listener.most_fields.unwrap_or(config.limits.headers.size()),
                stall_timeout: config.limits.stall_timeout_ms.millis(),
                stats: stats.clone(),
                watch: watch.clone(),
                telling: telling_of(&config, listener, &field, purpose)?,
                generation: generation.clone(),
            }));
            let (filters, upstream) = build.named(&listener.ways);
            listeners.push(ListenerState {
                name: name.clone(),
                filters,
                upstream,
                secure: tls.is_some(),
                stats,
                address: std::sync::OnceLock::new(),
            });
            secured.push(tls);
        }
        let Build {
            mut loader,
            loaded,
            mut filters,
            upstreams,
            ..
        } = build;
        // A filter no listener names is loaded all the same: what is wrong with it is said now, not when it is used.
        for (name, filter) in &config.filters {
            if !loaded.contains_key(name) {
                filters.push(loader.load(name, filter).await?);
                let made_from_it = |variant: &String| {
                    let variant = config.filters.get(variant);
                    variant.is_some_and(|it| it.shares.as_ref() == Some(name))
                };
                if !loaded.keys().any(made_from_it) {
                    tracing::warn!(filter = name, "no listener names this filter");
                }
            }
        }
        // As is an upstream.
        for (name, upstream) in &config.upstreams {
            if !upstreams.contains_key(name) {
                settings_of(&config, name, upstream)?;
            }
        }
        let runtimes = loader.runtimes();
        let state = Arc::new(State {
            filters: filters.clone(),
            listeners,
            watch,
            upstreams,
            connections: config.limits.connections.get(),
            started: before.map_or_else(Instant::now, |state| state.started),
            reloads,
        });
        Ok(Self {
            config,
            filters,
            sites,
            tls: secured,
            runtimes,
            state,
            token,
        })
    }

    /// What it would serve, in a line.
    pub fn summary(&self) -> String {
        format!(
            "{} listener(s), {} filter(s), {} upstream(s)",
            self.sites.len(),
            self.filters.len(),
            self.config.upstreams.len()
        )
    }

    /// Binds every address and serves.
    pub async fn serve(self) -> anyhow::Result<Host> {
        let bounds = Bounds::from(&self.config.limits);
        let mut listeners = Vec::new();
        for index in 0..self.sites.len() {
            let socket = self.bind(index).await?;
            listeners.push(self.begin(index, socket)?);
        }
        let live = Live::new(self.state.clone());
        let (mut admin_task, mut pages) = (None, None);
        if let Some(admin) = &self.config.admin {
            let address = admin.listen.get_ref().0;
            let service = Arc::new(Admin::new(live.clone(), self.token));
            pages = Some(service.clone());
            let accepting = Accepting::start(address, bounds, service)
                .await
                .map_err(|error| {
                    let span = admin.listen.span();
                    unbound(&self.config, span, "admin.listen", address, &error)
                })?;
            admin_task = Some(accepting);
        }
        let sampled = live.clone();
        let sampler = tokio::spawn(async move {
            let mut second = tokio::time::interval(Duration::from_secs(1));
            loop {
                second.tick().await;
                for listener in &sampled.now().listeners {
                    listener.stats.sample();
                }
            }
        });
        let watching = self.state.watch.start(&live);
        Ok(Host {
            watching,
            state: self.state,
            admin: admin_task.as_ref().map(|admin| admin.address),
            live,
            listeners,
            leaving: tokio::task::JoinSet::new(),
            pages,
            admin_task,
            sampler,
            grace: self.config.limits.grace_ms.millis(),
            runtimes: self.runtimes,
            config: self.config,
        })
    }

    /// The socket of one listener.
    async fn bind(&self, index: usize) -> anyhow::Result<TcpListener> {
        let settings = &self.config.listeners[index];
        let address = settings.listen.get_ref().0;
        let bound = TcpListener::bind(address).await;
        bound.map_err(|error| self.unbound(index, &error))
    }

    /// The address of one listener cannot be listened on.
    fn unbound(&self, index: usize, error: &io::Error) -> anyhow::Error {
        let listen = &self.config.listeners[index].listen;
        let field = format!("listener[{index}].listen");
        unbound(
            &self.config,
            listen.span(),
            &field,
            listen.get_ref().0,
            error,
        )
    }

    /// Serves one listener on its socket.
    fn begin(&self, index: usize, socket: TcpListener) -> anyhow::Result<Serving> {
        let settings = &self.config.listeners[index];
        let slot = Slot::new(self.setup(index));
        let accepting = Accepting::on(socket, slot.clone())?;
        let _ = self.state.listeners[index].address.set(accepting.address);
        Ok(Serving {
            name: settings.name.get_ref().clone(),
            asked: settings.listen.get_ref().0,
            slot,
            accepting,
        })
    }

    fn setup(&self, index: usize) -> Setup<Site> {
        Setup {
            service: self.sites[index].clone(),
            bounds: Bounds::from(&self.config.limits),
            tls: self.tls[index].clone(),
        }
    }
}

/// An address that cannot be listened on.
fn unbound(
    config: &Config,
    span: std::ops::Range<usize>,
    field: &str,
    address: SocketAddr,
    error: &io::Error,
) -> anyhow::Error {
    let own = of_the_same_port(config, &span, address.port());
    // That of a manifest of Spin's stands in no file.
    let by_option = span == (0..0) && !config.source.text.is_empty();
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse if own.is_some() => own.as_deref().unwrap_or(""),
        io::ErrorKind::AddrInUse if config.source.text.is_empty() => {
            ": another program listens there; `--port N` moves all the demo's ports, N being the first of four"
        }
        io::ErrorKind::AddrInUse if by_option => {
            ": another program listens there; `--listen ADDRESS:PORT` names another address"
        }
        io::ErrorKind::AddrInUse => ": another program listens there",
        io::ErrorKind::PermissionDenied => ": ports below 1024 need a privilege",
        _ => "",
    };
    let message = format!("cannot listen on {address}: {error}{advice}");
    anyhow::Error::new(match by_option {
        true => ConfigError::option(&config.source.file, "--listen", message),
        false => ConfigError::at(&config.source, span, field, message),
    })
}

/// What else of a configuration listens on a port, where something does.
fn of_the_same_port(config: &Config, but: &std::ops::Range<usize>, port: u16) -> Option<String> {
    let listeners = config.listeners.iter();
    let listeners = listeners.map(|it| (it.name.get_ref().as_str(), &it.listen));
    let admin = config.admin.iter().map(|it| ("admin", &it.listen));
    let mut others = listeners.chain(admin).filter(|(_, it)| it.span() != *but);
    let (name, listen) = others.find(|(_, it)| port != 0 && it.get_ref().0.port() == port)?;
    Some(format!(
        ": \"{name}\" of this file is to listen on {}",
        listen.get_ref().0
    ))
}

fn telling_of(
    config: &Config,
    listener: &crate::config::Listener,
    field: &str,
    purpose: Purpose,
) -> anyhow::Result<Telling> {
    let access_log = match &listener.access_log {
        None => None,
        Some(file) => {
            let opened = match purpose {
                Purpose::Serving => AccessLog::open(file.get_ref()).map(|log| Some(Arc::new(log))),
                Purpose::Checking => AccessLog::look_at(file.get_ref()).map(|()| None),
            };
            opened.map_err(|error| {
                let field = format!("{field}.access_log");
                let message = format!("{}: cannot be written: {error}", file.get_ref().display());
                ConfigError::at(&config.source, file.span(), &field, message)
            })?
        }
    };
    Ok(Telling {
        server_timing: listener.server_timing,
        request_id: listener.request_id,
        request_id_in_response: listener.request_id_in_response,
        received: config.taps.client.is_some(),
        access_log,
    })
}

fn meters_of(state: Option<&State>) -> BTreeMap<String, Arc<Meter>> {
    let filters = state.into_iter().flat_map(|state| &state.filters);
    filters
        .filter_map(|filter| Some((filter.name.clone(), filter.layer.meter()?.clone())))
        .collect()
}

impl Host {
    /// Reads nothing but the configuration: loads, binds and serves it.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        Prepared::new(config).await?.serve().await
    }

    /// The addresses bound, in the order of the configuration.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners
            .iter()
            .map(|listener| listener.accepting.address)
            .collect()
    }

    /// The configuration served.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Prepares another configuration beside the one that is served: its filters are loaded, on the runtimes there are, so
    /// that shared data stays, and count on under their names; an upstream that did not change keeps its connections.
    pub async fn prepare(&self, config: Config) -> anyhow::Result<Prepared> {
        let kept = Kept {
            runtimes: self.runtimes.clone(),
            state: Some(self.state.clone()),
        };
        sources::make_ready(&config).await?;
        Prepared::after(config, kept, Purpose::Serving).await
    }

    /// Puts what was prepared in the place of what is served. Nothing changes when an address cannot be bound.
    ///
    /// A listener whose address stays keeps its socket and its connections.
    pub async fn adopt(&mut self, prepared: Prepared) -> anyhow::Result<()> {
        let places: Vec<Option<usize>> = (0..prepared.sites.len())
            .map(|index| self.place_of(&prepared, index))
            .collect();
        let mut sockets = self.bind(&prepared, &places).await?;
        self.say_what_stays(&prepared.config);
        let mut before: Vec<Option<Serving>> = Vec::new();
        before.extend(self.listeners.drain(..).map(Some));
        for (index, place) in places.into_iter().enumerate() {
            let kept = place.and_then(|at| before.get_mut(at)?.take());
            let serving = match (kept, sockets.remove(&index)) {
                (Some(mut serving), _) => {
                    serving
                        .name
                        .clone_from(&prepared.state.listeners[index].name);
                    let address = serving.accepting.address;
                    let _ = prepared.state.listeners[index].address.set(address);
                    serving.slot.put(prepared.setup(index));
                    serving
                }
                (None, Some(socket)) => prepared.begin(index, socket)?,
                (None, None) => return Err(anyhow!("a listener has no socket")),
            };
            self.listeners.push(serving);
        }
        self.grace = prepared.config.limits.grace_ms.millis();
        for gone in before.into_iter().flatten() {
            self.leaving.spawn(gone.accepting.stop(self.grace));
        }
        while self.leaving.try_join_next().is_some() {}
        if let Some(pages) = &self.pages
            && admin_address(&self.config) == admin_address(&prepared.config)
        {
            pages.put_token(prepared.token);
        }
        self.runtimes = prepared.runtimes;
        self.config = prepared.config;
        self.state = prepared.state;
        self.live.put(self.state.clone());
        self.state.reloads.note(Ok(()));
        Ok(())
    }

    /// The sockets of listeners that take no other's place.
    ///
    /// What is in the way may be a listener that goes: a port of 127.0.0.1 is one of 0.0.0.0. That one accepts no more from
    /// then on, and does again where this fails.
    async fn bind(
        &mut self,
        prepared: &Prepared,
        places: &[Option<usize>],
    ) -> anyhow::Result<BTreeMap<usize, TcpListener>> {
        let mut sockets = BTreeMap::new();
        let mut released = Vec::new();
        for index in (0..places.len()).filter(|index| places[*index].is_none()) {
            let address = prepared.config.listeners[index].listen.get_ref().0;
            let mut bound = TcpListener::bind(address).await;
            let in_use =
                |it: &io::Result<_>| matches!(it, Err(it) if it.kind() == io::ErrorKind::AddrInUse);
            for (at, serving) in self.listeners.iter_mut().enumerate() {
                let in_the_way = serving.accepting.address.port() == address.port();
                let stays = places.contains(&Some(at)) || released.contains(&at);
                if !in_use(&bound) || !in_the_way || stays {
                    continue;
                }
                serving.accepting.release(self.grace).await;
                released.push(at);
                bound = TcpListener::bind(address).await;
            }
            match bound {
                Ok(socket) => {
                    sockets.insert(index, socket);
                }
                Err(error) => {
                    drop(sockets);
                    self.accept_again(released).await;
                    return Err(prepared.unbound(index, &error));
                }
            }
        }
        Ok(sockets)
    }

    /// Binds anew what was released.
    async fn accept_again(&mut self, released: Vec<usize>) {
        for at in released {
            let serving = &mut self.listeners[at];
            let address = serving.accepting.address;
            let bound = TcpListener::bind(address).await;
            match bound.and_then(|socket| Accepting::on(socket, serving.slot.clone())) {
                Ok(accepting) => {
                    let before = std::mem::replace(&mut serving.accepting, accepting);
                    self.leaving.spawn(before.stop(self.grace));
                }
                Err(error) => {
                    tracing::error!(listener = serving.name, %address, %error, "cannot listen any more");
                }
            }
        }
    }

    /// Which listener goes on as the one at `index`: that of the same address; where the port was left open, of the same
    /// name too.
    fn place_of(&self, prepared: &Prepared, index: usize) -> Option<usize> {
        let wanted = &prepared.config.listeners[index];
        let address = wanted.listen.get_ref().0;
        self.listeners.iter().position(|it| {
            it.asked == address && (address.port() != 0 || it.name == *wanted.name.get_ref())
        })
    }

    /// What a reload does not change.
    fn say_what_stays(&self, next: &Config) {
        let now = &self.config;
        // As it is made from the configuration: places in the file say nothing.
        let monitor = |config: &Config| {
            let told = &config.monitor;
            let settings = told.settings(config).ok();
            let interval = told.interval_ms.get();
            format!(
                "{:?}",
                (told.enabled, interval, told.accept_field, settings)
            )
        };
        for (field, same) in [
            ("limits.fuel", now.limits.fuel == next.limits.fuel),
            (
                "limits.cpu_time",
                now.limits.cpu_time == next.limits.cpu_time,
            ),
            (
                "state.cache_dir",
                now.state.cache_dir == next.state.cache_dir,
            ),
            ("state.store", now.state.store == next.state.store),
            ("key_value_stores", now.stores == next.stores),
            (
                "sqlite_databases",
                load::databases(now) == load::databases(next),
            ),
            // Where the pages stay elsewhere, their token does, too.
            ("admin", admin_address(now) == admin_address(next)),
            ("monitor", monitor(now) == monitor(next)),
        ] {
            if !same {
                tracing::warn!(field, "changed, and takes effect with the next start only");
            }
        }
    }

    /// Stops to accept, lets exchanges finish within the grace time, and gives back what is to be reported.
    pub async fn stop(mut self) -> Arc<State> {
        // First of all: who sends traffic by what it says is to send it elsewhere.
        if let Some(pages) = &self.pages {
            pages.drain();
        }
        let mut stopping = std::mem::take(&mut self.leaving);
        for listener in self.listeners {
            stopping.spawn(listener.accepting.stop(self.grace));
        }
        while stopping.join_next().await.is_some() {}
        if let Some(admin) = self.admin_task {
            admin.stop(Duration::from_millis(200)).await;
        }
        self.sampler.abort();
        drop(self.watching);
        self.state
    }
}

/// Where the admin pages are asked for.
fn admin_address(config: &Config) -> Option<SocketAddr> {
    config.admin.as_ref().map(|it| it.listen.get_ref().0)
}

/// SIGINT and SIGTERM, watched from the moment this is made: one that comes before anybody waits is not lost.
pub struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    /// Takes both signals over from their default, which is to kill.
    pub fn watch() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("SIGINT cannot be watched")?,
            terminate: signal(SignalKind::terminate()).context("SIGTERM cannot be watched")?,
        })
    }

    /// Waits for one of them, and says which.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}
