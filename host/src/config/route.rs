//! `[[listener.route]]`: which requests of a listener go where, and through which filters.

use edgeweir_host_formats::Placed;
use edgeweir_host_formats::action::{Action, Edits};
use edgeweir_host_formats::route::{HostPattern, Match, VirtualHost};
use edgeweir_host_formats::written::Around;
pub use edgeweir_host_formats::written::Route;
use std::collections::BTreeMap;
use toml::Spanned;

use super::{Config, ConfigError, Filter, Listener};

/// One way through a listener, whatever the file it came from.
#[derive(Clone, Debug)]
pub struct Way {
    /// Its name.
    pub name: String,
    /// What becomes of a request.
    pub action: Action,
    /// What is changed of it behind the filters.
    pub edits: Edits,
    /// Names of filters, outermost first.
    pub filters: Vec<Spanned<String>>,
    /// The route as a Spin manifest writes it; components see it in the fields Spin adds.
    pub spin: Option<String>,
}

/// Every way through a listener.
#[derive(Clone, Default, Debug)]
pub struct Ways {
    /// By host.
    pub virtual_hosts: Vec<VirtualHost<Way>>,
    /// The port of an authority counts for nothing.
    pub ignore_port: bool,
    /// The filters of a request that takes no way: it is answered with 404 behind them.
    pub filters: Vec<Spanned<String>>,
    /// In an application of Spin, what its components reach of it by their names: filters, the component last.
    pub services: BTreeMap<String, Vec<Spanned<String>>>,
}

impl Config {
    /// Makes ways of the routes of each listener, and filters of their own for routes that configure one.
    pub(super) fn find_ways(&mut self) -> Result<(), ConfigError> {
        for index in 0..self.listeners.len() {
            let listener = self.listeners[index].clone();
            self.listeners[index].ways = self.ways_of(index, &listener)?;
        }
        Ok(())
    }

    fn ways_of(&mut self, index: usize, listener: &Listener) -> Result<Ways, ConfigError> {
        let mut routes = Vec::new();
        for (at, route) in listener.routes.iter().enumerate() {
            let meaning = {
                let upstreams: Vec<_> = self.upstreams.keys().map(String::as_str).collect();
                let known: Vec<_> = self.filters.keys().map(String::as_str).collect();
                route.meaning(&Around {
                    name: &listener.name,
                    upstream: listener.upstream.as_ref(),
                    filters: &listener.filters,
                    upstreams: &upstreams,
                    known: &known,
                })
            };
            let meaning = meaning.map_err(|refusal| {
                let field = format!("listener[{index}].route[{at}].{}", refusal.field);
                ConfigError::at(&self.source, refusal.span, &field, refusal.message)
            })?;
            let name = meaning.name;
            let filters = self.with_configurations(route, &name, at, meaning.filters);
            routes.push((
                meaning.wanted,
                Way {
                    name,
                    action: meaning.action,
                    edits: Edits {
                        path: meaning.path,
                        ..Edits::default()
                    },
                    filters,
                    spin: None,
                },
            ));
        }
        if let Some(upstream) = &listener.upstream {
            let to = Placed::new(upstream.get_ref().clone(), upstream.span());
            let way = Way {
                name: listener.name.get_ref().clone(),
                action: Action::Forward(vec![(1, to)]),
                edits: Edits::default(),
                filters: listener.filters.clone(),
                spin: None,
            };
            routes.push((Match::default(), way));
        }
        Ok(Ways {
            virtual_hosts: vec![VirtualHost {
                name: listener.name.get_ref().clone(),
                domains: vec![HostPattern::Any],
                routes,
            }],
            ignore_port: false,
            filters: listener.filters.clone(),
            services: BTreeMap::new(),
        })
    }

    /// A filter that a route configures is one of its own beside the one it is made from, whose state it shares.
    fn with_configurations(
        &mut self,
        route: &Route,
        name: &str,
        at: usize,
        filters: Vec<Spanned<String>>,
    ) -> Vec<Spanned<String>> {
        let own = |filter: Spanned<String>| {
            let Some(config) = route.config.get(filter.get_ref()) else {
                return filter;
            };
            let base = filter.get_ref();
            let taken = |variant: &str| self.filters.contains_key(variant);
            let variant = Route::variant(base, name, at, taken);
            if let Some(original) = self.filters.get(base) {
                let made = Filter {
                    config: Some(config.clone()),
                    shares: Some(base.clone()),
                    ..original.clone()
                };
                self.filters.insert(variant.clone(), made);
            }
            Spanned::new(filter.span(), variant)
        };
        filters.into_iter().map(own).collect()
    }
}
