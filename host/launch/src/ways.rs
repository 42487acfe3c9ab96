//! The ways through a listener, read from the configuration as the host reads them.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use edgeweir_host_formats::Placed;
use edgeweir_host_formats::action::{Action, PathEdit};
use edgeweir_host_formats::route::Match;
use edgeweir_host_formats::written::{Around, Route};
use serde::Deserialize;
use toml::{Spanned, Table, Value};

use crate::edge::{Edge, text};

/// Every way through a listener, the first that matches is taken.
#[derive(Debug)]
pub(crate) struct Ways {
    /// The listener's name.
    pub name: String,
    /// The listener's own filters, which a request passes too that takes no way.
    pub filters: Vec<String>,
    /// The routes, then the listener's upstream.
    pub ways: Vec<Way>,
    /// What routes make of filters that they configure, by its name.
    made: BTreeMap<String, Made>,
}

/// One way.
#[derive(Debug)]
pub(crate) struct Way {
    /// Where it is written: `listener[0].route[1]`.
    pub field: String,
    /// Its name.
    pub name: String,
    /// The requests that take it.
    pub wanted: Match,
    /// What becomes of them.
    pub action: Action,
    /// What becomes of their path behind the filters.
    pub path: PathEdit,
    /// Names of filters, outermost first.
    pub filters: Vec<String>,
}

/// A filter with another configuration.
#[derive(Debug)]
struct Made {
    base: String,
    config: Value,
}

/// What of `[[listener]]` is about its ways.
#[derive(Deserialize)]
struct Listener {
    name: Spanned<String>,
    upstream: Option<Spanned<String>>,
    #[serde(default)]
    filters: Vec<Spanned<String>>,
    #[serde(default, rename = "route")]
    routes: Vec<Route>,
}

impl Ways {
    /// Those of a listener (the first when none is named).
    pub(crate) fn of(edge: &Edge, listener: Option<&str>) -> Result<Self> {
        let wanted = edge.listener(listener)?;
        let mut made = BTreeMap::new();
        for (index, table) in edge.listeners().into_iter().enumerate() {
            // Those before it too: what their routes make of filters takes names.
            let ways = Self::read(edge, index, table, &mut made)?;
            if std::ptr::eq(table, wanted) {
                return Ok(Self { made, ..ways });
            }
        }
        Err(anyhow!("{} has no such listener", edge.file().display()))
    }

    fn read(
        edge: &Edge,
        index: usize,
        table: &Table,
        made: &mut BTreeMap<String, Made>,
    ) -> Result<Self> {
        let wrong = |field: &str, message: &str| {
            let file = edge.file().display();
            anyhow!("{file}: in `listener[{index}]{field}`: {message}")
        };
        let listener = parsed(table).map_err(|(field, message)| wrong(&field, &message))?;
        let (upstreams, known) = (edge.names("upstream"), edge.names("filter"));
        let plain = |names: &[Spanned<String>]| -> Vec<String> {
            names.iter().map(|name| name.get_ref().clone()).collect()
        };
        let mut ways = Vec::new();
        for (at, route) in listener.routes.iter().enumerate() {
            let field = format!(".route[{at}]");
            let meaning = route
                .meaning(&Around {
                    name: &listener.name,
                    upstream: listener.upstream.as_ref(),
                    filters: &listener.filters,
                    upstreams: &upstreams,
                    known: &known,
                })
                .map_err(|refusal| {
                    wrong(&format!("{field}.{}", refusal.field), &refusal.message)
                })?;
            let mut filters = plain(&meaning.filters);
            for filter in &mut filters {
                let Some(config) = route.config.get(filter) else {
                    continue;
                };
                let taken = |name: &str| known.contains(&name) || made.contains_key(name);
                let variant = Route::variant(filter, &meaning.name, at, taken);
                let base = std::mem::replace(filter, variant.clone());
                let config = config.get_ref().clone();
                made.insert(variant, Made { base, config });
            }
            ways.push(Way {
                field: format!("listener[{index}]{field}"),
                name: meaning.name,
                wanted: meaning.wanted,
                action: meaning.action,
                path: meaning.path,
                filters,
            });
        }
        let name = listener.name.into_inner();
        let filters = plain(&listener.filters);
        match listener.upstream {
            Some(upstream) => ways.push(Way {
                field: format!("listener[{index}]"),
                name: name.clone(),
                wanted: Match::default(),
                action: Action::Forward(vec![(1, Placed::new(upstream.into_inner(), 0..0))]),
                path: PathEdit::Keep,
                filters: filters.clone(),
            }),
            None if ways.is_empty() => {
                let message = "missing field `upstream`: a listener without routes has one";
                return Err(wrong("", message));
            }
            None => {}
        }
        Ok(Self {
            name,
            filters,
            ways,
            made: BTreeMap::new(),
        })
    }

    /// The table of a filter, or of what a route makes of one.
    pub(crate) fn filter(&self, edge: &Edge, name: &str) -> Result<Table> {
        let Some(Made { base, config }) = self.made.get(name) else {
            return edge.named("filter", name).cloned();
        };
        let mut table = edge.named("filter", base)?.clone();
        table.insert("config".into(), config.clone());
        // It shares the state of the one it is made from.
        if text(&table, "vm_id").is_none() {
            table.insert("vm_id".into(), base.as_str().into());
        }
        Ok(table)
    }

    /// The lists of filters: the listener's, then each way's.
    pub(crate) fn lists(&self) -> impl Iterator<Item = &[String]> {
        let of_ways = self.ways.iter().map(|way| way.filters.as_slice());
        std::iter::once(self.filters.as_slice()).chain(of_ways)
    }

    /// The upstreams they lead to, each once.
    pub(crate) fn upstreams(&self) -> Vec<&str> {
        let mut all = Vec::new();
        for way in &self.ways {
            let Action::Forward(upstreams) = &way.action else {
                continue;
            };
            for (_, name) in upstreams {
                if !all.contains(&name.value.as_str()) {
                    all.push(name.value.as_str());
                }
            }
        }
        all
    }
}

/// A listener; or what is wrong with which of its fields.
fn parsed(table: &Table) -> Result<Listener, (String, String)> {
    // Places are those of this text, which nobody has seen; a table that was read has none.
    let text = toml::to_string(table).map_err(|error| (String::new(), error.to_string()))?;
    let parser = toml::Deserializer::parse(&text)
        .map_err(|error| (String::new(), error.message().to_owned()))?;
    serde_path_to_error::deserialize(parser).map_err(|error| {
        let path = error.path().to_string();
        // Places of values are carried by made-up fields that mean nothing to an operator.
        let field: String = path
            .split('.')
            .filter(|part| !part.starts_with("$__") && *part != "?")
            .map(|part| format!(".{part}"))
            .collect();
        (field, error.inner().message().to_owned())
    })
}
