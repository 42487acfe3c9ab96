//! A whole host: every listener of a configuration with its chain, until it is told to stop.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use edgeweir_host_chain::{Layer, Next};
use edgeweir_host_formats::action::Action;
use edgeweir_host_formats::route::{PathMatch, Segments, Table, VirtualHost};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::admin::Admin;
use crate::config::{Config, ConfigError, Way, Ways};
use crate::load::{Loaded, Loader};
use crate::routing::{Chain, Editing, Lost, Redirecting, Responding, Routes, Taken};
use crate::serve::{Accepting, Bounds, Site, Upstream};
use crate::stats::ListenerStats;

/// A configuration whose filters are loaded, not yet served.
pub struct Prepared {
    config: Config,
    filters: Vec<Loaded>,
    sites: Vec<Arc<Site>>,
    state: Arc<State>,
}

/// What is known of a host while it runs: the source of metrics, dashboard and report.
pub struct State {
    /// The filters, in the order of the chains.
    pub filters: Vec<Loaded>,
    /// The listeners.
    pub listeners: Vec<ListenerState>,
    /// When it started.
    pub started: Instant,
}

/// One listener of a running host.
pub struct ListenerState {
    /// Its name.
    pub name: String,
    /// The names of its filters, outermost first.
    pub filters: Vec<String>,
    /// Where it forwards to.
    pub upstream: String,
    /// Its counts.
    pub stats: Arc<ListenerStats>,
    /// The address bound, once it is.
    pub address: std::sync::OnceLock<SocketAddr>,
}

/// A host that serves.
pub struct Host {
    /// Counts and names.
    pub state: Arc<State>,
    /// The address of the admin pages.
    pub admin: Option<SocketAddr>,
    listeners: Vec<Accepting>,
    admin_task: Option<Accepting>,
    sampler: tokio::task::JoinHandle<()>,
    grace: Duration,
}

impl Prepared {
    /// Loads every filter a listener names, in order, and connects the chains.
    pub async fn new(config: Config) -> anyhow::Result<Self> {
        let mut build = Build {
            config: &config,
            loader: Loader::new(&config),
            loaded: BTreeMap::new(),
            filters: Vec::new(),
            upstreams: BTreeMap::new(),
        };
        let mut sites = Vec::new();
        let mut listeners = Vec::new();
        for listener in &config.listeners {
            let routes = build.routes(&listener.ways).await?;
            let stats = Arc::new(ListenerStats::default());
            sites.push(Arc::new(Site {
                name: listener.name.get_ref().clone(),
                routes,
                forwarded_for: listener.forwarded_for,
                headers: config.limits.headers.size(),
                stats: stats.clone(),
            }));
            let (filters, upstream) = build.named(&listener.ways);
            listeners.push(ListenerState {
                name: listener.name.get_ref().clone(),
                filters,
                upstream,
                stats,
                address: std::sync::OnceLock::new(),
            });
        }
        let Build {
            mut loader,
            loaded,
            mut filters,
            ..
        } = build;
        // A filter no listener names is loaded all the same: what is wrong with it is said now, not when it is used.
        for (name, filter) in &config.filters {
            if !loaded.contains_key(name) {
                filters.push(loader.load(name, filter).await?);
                tracing::warn!(filter = name, "no listener names this filter");
            }
        }
        let state = Arc::new(State {
            filters: filters.clone(),
            listeners,
            started: Instant::now(),
        });
        Ok(Self {
            config,
            filters,
            sites,
            state,
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
        for (index, (site, settings)) in self.sites.iter().zip(&self.config.listeners).enumerate() {
            let address = settings.listen.get_ref().0;
            let accepting = Accepting::start(address, bounds, site.clone())
                .await
                .map_err(|error| {
                    let field = format!("listener[{index}].listen");
                    self.unbound(settings.listen.span(), &field, address, &error)
                })?;
            let _ = self.state.listeners[index].address.set(accepting.address);
            listeners.push(accepting);
        }
        let mut admin_task = None;
        if let Some(admin) = &self.config.admin {
            let address = admin.listen.get_ref().0;
            let service = Arc::new(Admin::new(self.state.clone()));
            let accepting = Accepting::start(address, bounds, service)
                .await
                .map_err(|error| {
                    self.unbound(admin.listen.span(), "admin.listen", address, &error)
                })?;
            admin_task = Some(accepting);
        }
        let state = self.state.clone();
        let sampler = tokio::spawn(async move {
            let mut second = tokio::time::interval(Duration::from_secs(1));
            loop {
                second.tick().await;
                for listener in &state.listeners {
                    listener.stats.sample();
                }
            }
        });
        Ok(Host {
            state: self.state,
            admin: admin_task.as_ref().map(|admin| admin.address),
            listeners,
            admin_task,
            sampler,
            grace: self.config.limits.grace_ms.millis(),
        })
    }

    fn unbound(
        &self,
        span: std::ops::Range<usize>,
        field: &str,
        address: SocketAddr,
        error: &io::Error,
    ) -> anyhow::Error {
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse if self.config.source.text.is_empty() => {
                ": another program listens there; `--port N` moves all the demo's ports, N being the first of four"
            }
            io::ErrorKind::AddrInUse => ": another program listens there",
            io::ErrorKind::PermissionDenied => ": ports below 1024 need a privilege",
            _ => "",
        };
        let message = format!("cannot listen on {address}: {error}{advice}");
        anyhow::Error::new(ConfigError::at(&self.config.source, span, field, message))
    }
}

/// What is shared among the ways of all listeners while they are built.
struct Build<'a> {
    config: &'a Config,
    loader: Loader<'a>,
    loaded: BTreeMap<String, Loaded>,
    filters: Vec<Loaded>,
    upstreams: BTreeMap<String, Arc<Upstream>>,
}

impl Build<'_> {
    async fn routes(&mut self, ways: &Ways) -> anyhow::Result<Routes> {
        let lost = self.chain(&ways.filters, vec![Arc::new(Lost)]).await?;
        let mut virtual_hosts = Vec::new();
        for host in &ways.virtual_hosts {
            let mut routes = Vec::new();
            for (matched, way) in &host.routes {
                routes.push((matched.clone(), self.way(&matched.path, way).await?));
            }
            virtual_hosts.push(VirtualHost {
                name: host.name.clone(),
                domains: host.domains.clone(),
                routes,
            });
        }
        let table = Table::new(virtual_hosts, ways.ignore_port);
        Ok(Routes::new(table, lost))
    }

    async fn way(&mut self, matched: &PathMatch, way: &Way) -> anyhow::Result<Taken> {
        let matched = || matched.clone();
        let mut ends: Vec<(u32, String, Arc<dyn Layer>)> = Vec::new();
        match &way.action {
            Action::Forward(upstreams) => {
                for (weight, name) in upstreams {
                    let upstream = self.upstream(&name.value)?;
                    ends.push((*weight, name.value.clone(), upstream));
                }
            }
            Action::Redirect(redirect) => {
                let (redirect, matched) = (redirect.clone(), matched());
                let end = Arc::new(Redirecting { redirect, matched });
                ends.push((1, String::new(), end));
            }
            Action::Respond(answer) => {
                ends.push((1, String::new(), Arc::new(Responding(answer.clone()))));
            }
        }
        let mut chains = Vec::new();
        for (weight, cluster, end) in ends {
            let mut rest: Vec<Arc<dyn Layer>> = Vec::new();
            if !way.edits.is_empty() {
                let (edits, matched) = (way.edits.clone(), matched());
                rest.push(Arc::new(Editing { edits, matched }));
            }
            rest.extend(self.config.taps.origin.clone());
            rest.push(end);
            chains.push(Chain {
                weight,
                cluster,
                next: self.chain(&way.filters, rest).await?,
            });
        }
        Ok(Taken {
            name: way.name.clone(),
            chains,
            turn: AtomicU32::new(0),
            spin: way.spin.clone().and_then(|route| {
                let pattern = Segments::parse(&route).ok()?;
                Some((route, pattern))
            }),
        })
    }

    /// Filters by their names, loaded once each, and what is behind them.
    async fn chain(
        &mut self,
        names: &[toml::Spanned<String>],
        rest: Vec<Arc<dyn Layer>>,
    ) -> anyhow::Result<Next> {
        let mut chain: Vec<Arc<dyn Layer>> = Vec::new();
        chain.extend(self.config.taps.client.clone());
        for name in names.iter().map(|name| name.get_ref()) {
            if !self.loaded.contains_key(name) {
                let filter = self
                    .config
                    .filters
                    .get(name)
                    .ok_or_else(|| anyhow!("there is no [filter.{name}]"))?;
                let one = self.loader.load(name, filter).await?;
                self.filters.push(one.clone());
                self.loaded.insert(name.clone(), one);
            }
            chain.push(self.loaded[name].layer.clone());
        }
        chain.extend(rest);
        Ok(Next::new(chain))
    }

    fn upstream(&mut self, name: &str) -> anyhow::Result<Arc<Upstream>> {
        if let Some(upstream) = self.upstreams.get(name) {
            return Ok(upstream.clone());
        }
        let settings = self
            .config
            .upstreams
            .get(name)
            .ok_or_else(|| anyhow!("there is no [upstream.{name}]"))?;
        let upstream = Upstream::new(name, settings, &self.config.limits)
            .map_err(|error| anyhow!("[upstream.{name}]: {error}"))?;
        let upstream = Arc::new(upstream);
        self.upstreams.insert(name.to_owned(), upstream.clone());
        Ok(upstream)
    }

    /// The filters of a listener and where it leads, each once, for people.
    fn named(&self, ways: &Ways) -> (Vec<String>, String) {
        let (mut filters, mut ends) = (Vec::new(), Vec::new());
        let ways_of = || ways.virtual_hosts.iter().flat_map(|host| &host.routes);
        let of_ways = ways_of().flat_map(|(_, way)| &way.filters);
        for name in of_ways.map(|name| name.get_ref()) {
            if !filters.contains(name) {
                filters.push(name.clone());
            }
        }
        for (_, way) in ways_of() {
            let to = match &way.action {
                Action::Forward(upstreams) => upstreams
                    .iter()
                    .map(|(_, name)| {
                        let settings = self.config.upstreams.get(&name.value);
                        settings.map_or_else(|| name.value.clone(), |it| it.address.0.clone())
                    })
                    .collect(),
                Action::Redirect(_) => vec!["a redirect".to_owned()],
                // A Spin component answers by itself.
                Action::Respond(_) if way.spin.is_some() => vec!["itself".to_owned()],
                Action::Respond(_) => vec!["an answer".to_owned()],
            };
            for end in to {
                if !ends.contains(&end) {
                    ends.push(end);
                }
            }
        }
        (filters, ends.join(", "))
    }
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
            .map(|listener| listener.address)
            .collect()
    }

    /// Stops to accept, lets exchanges finish within the grace time, and gives back what is to be reported.
    pub async fn stop(self) -> Arc<State> {
        let mut stopping = tokio::task::JoinSet::new();
        for listener in self.listeners {
            stopping.spawn(listener.stop(self.grace));
        }
        while stopping.join_next().await.is_some() {}
        if let Some(admin) = self.admin_task {
            admin.stop(Duration::from_millis(200)).await;
        }
        self.sampler.abort();
        self.state
    }
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
