//! The ways of all listeners, built: filters loaded once each, upstreams shared, chains connected.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use anyhow::anyhow;
use edgeweir_host_chain::{Layer, Next};
use edgeweir_host_formats::action::Action;
use edgeweir_host_formats::route::{PathMatch, Segments, Table, VirtualHost};

use crate::config::{Config, ConfigError, Way, Ways};
use crate::host::State;
use crate::load::{Loaded, Loader};
use crate::routing::{Chain, Editing, Lost, Redirecting, Responding, Routes, Taken};
use crate::serve::Upstream;

/// What is shared among the ways of all listeners while they are built.
pub(crate) struct Build<'a> {
    config: &'a Config,
    before: Option<&'a State>,
    pub(crate) loader: Loader<'a>,
    pub(crate) loaded: BTreeMap<String, Loaded>,
    pub(crate) filters: Vec<Loaded>,
    pub(crate) upstreams: BTreeMap<String, Arc<Upstream>>,
}

impl<'a> Build<'a> {
    /// Nothing is built yet; `before` is what is served now, if anything.
    pub(crate) fn new(config: &'a Config, before: Option<&'a State>, loader: Loader<'a>) -> Self {
        Self {
            config,
            before,
            loader,
            loaded: BTreeMap::new(),
            filters: Vec::new(),
            upstreams: BTreeMap::new(),
        }
    }

    /// The ways of a listener, their filters loaded.
    pub(crate) async fn routes(&mut self, ways: &Ways) -> anyhow::Result<Routes> {
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
        let mut services = BTreeMap::new();
        for (id, filters) in &ways.services {
            let next = self.chain(filters, vec![Arc::new(Lost)]).await?;
            services.insert(id.clone(), next);
        }
        let table = Table::new(virtual_hosts, ways.ignore_port);
        Ok(Routes::new(table, lost, services))
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
        let upstream = origin_of(self.config, name, self.before)?;
        self.upstreams.insert(name.to_owned(), upstream.clone());
        Ok(upstream)
    }

    /// The filters of a listener and where it leads, each once, for people.
    pub(crate) fn named(&self, ways: &Ways) -> (Vec<String>, String) {
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
                        settings.map_or_else(
                            || name.value.clone(),
                            |it| it.addresses().collect::<Vec<_>>().join(", "),
                        )
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

/// An upstream: the one there was, with its connections and what is known of its endpoints, when nothing about it changed.
fn origin_of(config: &Config, name: &str, before: Option<&State>) -> anyhow::Result<Arc<Upstream>> {
    let upstream = config
        .upstreams
        .get(name)
        .ok_or_else(|| anyhow!("there is no [upstream.{name}]"))?;
    let settings = settings_of(config, name, upstream)?;
    let known = before.and_then(|state| state.upstreams.get(name));
    if let Some(known) = known
        && *known.settings() == settings
    {
        return Ok(known.clone());
    }
    let counts = known.map_or_else(Arc::default, |known| known.counts().clone());
    let upstream = Upstream::new(name, settings, counts)
        .map_err(|error| anyhow!("[upstream.{name}]: {error}"))?;
    Ok(Arc::new(upstream))
}

/// The settings of an upstream.
pub(crate) fn settings_of(
    config: &Config,
    name: &str,
    upstream: &crate::config::Upstream,
) -> anyhow::Result<edgeweir_host_upstream::Settings> {
    upstream
        .settings(&config.limits, |file| config.resolve(file))
        .map_err(|(span, field, message)| {
            let field = format!("upstream.{name}.{field}");
            anyhow::Error::new(ConfigError::at(&config.source, span, &field, message))
        })
}
