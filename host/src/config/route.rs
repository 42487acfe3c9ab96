//! `[[listener.route]]`: which requests of a listener go where, and through which filters.

use std::collections::BTreeMap;
use std::ops::Range;

use edgeweir_host_formats::Placed;
use edgeweir_host_formats::action::{Action, Edits, PathEdit, Redirect, Respond};
use edgeweir_host_formats::route::{
    HostPattern, Match, NamedMatch, PathMatch, Segments, TextMatch, VirtualHost, field_name, whole,
};
use http::{Method, StatusCode};
use serde::Deserialize;
use toml::Spanned;

use super::{Config, ConfigError, Filter, Listener, Within, choices};

/// `[[listener.route]]`: the first that matches a request is taken.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Its name, which modules see as `xds.route_name`; default: the listener's.
    pub name: Option<Spanned<String>>,
    /// Whom the request is for: `example.org`, `*.example.org`, `example.*`; any if there is none.
    #[serde(default)]
    pub hosts: Vec<Spanned<String>>,
    /// The very path.
    pub path: Option<Spanned<String>>,
    /// This path and those below it.
    pub prefix: Option<Spanned<String>>,
    /// A regular expression for the whole path.
    pub regex: Option<Spanned<String>>,
    /// Segment by segment: `/a/:name/...`.
    pub pattern: Option<Spanned<String>>,
    /// One of these methods; any if there is none.
    #[serde(default)]
    pub methods: Vec<Spanned<String>>,
    /// Fields the request must have with these values; `"*"` for any value.
    #[serde(default)]
    pub headers: BTreeMap<String, Spanned<String>>,
    /// Where it goes; default: the listener's upstream.
    pub upstream: Option<Spanned<String>>,
    /// What stands in place of `path` or `prefix` on the way to the upstream.
    pub rewrite: Option<Spanned<String>>,
    /// It is told to go elsewhere instead.
    pub redirect: Option<RedirectTo>,
    /// It is answered instead.
    pub respond: Option<Answer>,
    /// Names of filters, outermost first, in place of the listener's.
    pub filters: Option<Vec<Spanned<String>>>,
    /// Configuration of filters in place of their own, by their name.
    #[serde(default)]
    pub config: BTreeMap<String, Spanned<toml::Value>>,
}

/// `redirect` of a route: what is not named stays.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedirectTo {
    /// 301, 302, 303, 307 or 308.
    pub status: Option<Spanned<u16>>,
    /// `https` or `http`.
    pub scheme: Option<Spanned<String>>,
    /// The host.
    pub host: Option<String>,
    /// The port.
    pub port: Option<Within<1, 65_535>>,
    /// The path.
    pub path: Option<String>,
}

/// `respond` of a route.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The status.
    pub status: Within<200, 599>,
    /// The body, text.
    #[serde(default)]
    pub body: String,
}

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
            let reader = Reader {
                config: self,
                field: format!("listener[{index}].route[{at}]"),
            };
            let wanted = reader.wanted(route)?;
            let action = reader.action(route, listener)?;
            let path = reader.rewrite(route)?;
            let filters = route.filters.as_ref().unwrap_or(&listener.filters).clone();
            reader.filters_known(route, &filters)?;
            let name = route
                .name
                .as_ref()
                .unwrap_or(&listener.name)
                .get_ref()
                .clone();
            let filters = self.with_configurations(route, &name, at, filters);
            routes.push((
                wanted,
                Way {
                    name,
                    action,
                    edits: Edits {
                        path,
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
            let mut variant = format!("{base}@{name}");
            if self.filters.contains_key(&variant) {
                variant = format!("{base}@{name}-{at}");
            }
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

struct Reader<'a> {
    config: &'a Config,
    /// The path of the route.
    field: String,
}

impl Reader<'_> {
    fn refuse(&self, span: Range<usize>, field: &str, message: impl Into<String>) -> ConfigError {
        let field = format!("{}.{field}", self.field);
        ConfigError::at(&self.config.source, span, &field, message)
    }

    fn wanted(&self, route: &Route) -> Result<Match, ConfigError> {
        let mut wanted = Match::default();
        for (at, host) in route.hosts.iter().enumerate() {
            let pattern = HostPattern::parse(host.get_ref())
                .map_err(|why| self.refuse(host.span(), &format!("hosts[{at}]"), why))?;
            wanted.hosts.push(pattern);
        }
        let kinds = [
            ("path", &route.path),
            ("prefix", &route.prefix),
            ("regex", &route.regex),
            ("pattern", &route.pattern),
        ];
        let mut set = kinds
            .iter()
            .filter_map(|(kind, it)| Some((*kind, (*it).as_ref()?)));
        if let Some((kind, text)) = set.next() {
            if let Some((other, text)) = set.next() {
                let message = format!("it has a `{kind}` already: a route has one of them");
                return Err(self.refuse(text.span(), other, message));
            }
            let value = text.get_ref();
            if kind != "regex" && !value.starts_with('/') {
                let message = format!("\"{value}\" does not begin with `/`");
                return Err(self.refuse(text.span(), kind, message));
            }
            let refused = |why| self.refuse(text.span(), kind, why);
            wanted.path = match kind {
                "path" => PathMatch::Exact(value.clone()),
                "prefix" if value == "/" => PathMatch::Any,
                "prefix" => PathMatch::Below(value.trim_end_matches('/').to_owned()),
                "regex" => PathMatch::Regex(whole(value).map_err(refused)?),
                _ => PathMatch::Segments(Segments::parse(value).map_err(refused)?),
            };
        }
        for (at, method) in route.methods.iter().enumerate() {
            let parsed = Method::from_bytes(method.get_ref().as_bytes()).map_err(|_| {
                let message = format!("\"{}\" is no method", method.get_ref());
                self.refuse(method.span(), &format!("methods[{at}]"), message)
            })?;
            wanted.methods.push(parsed);
        }
        for (name, value) in &route.headers {
            let refused = |why| self.refuse(value.span(), &format!("headers.{name}"), why);
            wanted.fields.push(NamedMatch {
                name: field_name(name).map_err(refused)?,
                value: match value.get_ref().as_str() {
                    "*" => TextMatch::Present,
                    text => TextMatch::Exact(text.to_owned()),
                },
                ignore_case: false,
                invert: false,
            });
        }
        Ok(wanted)
    }

    fn action(&self, route: &Route, listener: &Listener) -> Result<Action, ConfigError> {
        let span = || listener.name.span();
        let actions = [
            route.upstream.is_some(),
            route.redirect.is_some(),
            route.respond.is_some(),
        ];
        if actions.iter().filter(|set| **set).count() > 1 {
            let span = route.upstream.as_ref().map_or_else(span, Spanned::span);
            let message = "a route has one of `upstream`, `redirect` and `respond`";
            return Err(self.refuse(span, "upstream", message));
        }
        if let Some(redirect) = &route.redirect {
            return self.redirect(redirect).map(Action::Redirect);
        }
        if let Some(answer) = &route.respond {
            let status = u16::try_from(answer.status.get()).unwrap_or(500);
            return Ok(Action::Respond(Respond {
                status: StatusCode::from_u16(status).unwrap_or_default(),
                body: answer.body.clone(),
            }));
        }
        let Some(upstream) = route.upstream.as_ref().or(listener.upstream.as_ref()) else {
            let message = "neither it nor the listener has an `upstream`";
            return Err(self.refuse(span(), "upstream", message));
        };
        let name = upstream.get_ref();
        if !self.config.upstreams.contains_key(name) {
            let there = choices(self.config.upstreams.keys());
            let message = format!("there is no [upstream.{name}]; there {there}");
            return Err(self.refuse(upstream.span(), "upstream", message));
        }
        let to = Placed::new(name.clone(), upstream.span());
        Ok(Action::Forward(vec![(1, to)]))
    }

    fn redirect(&self, redirect: &RedirectTo) -> Result<Redirect, ConfigError> {
        let mut status = None;
        if let Some(wanted) = &redirect.status {
            status = match *wanted.get_ref() {
                code @ (301 | 302 | 303 | 307 | 308) => StatusCode::from_u16(code).ok(),
                code => {
                    let message = format!("{code} is none of 301, 302, 303, 307 and 308");
                    return Err(self.refuse(wanted.span(), "redirect.status", message));
                }
            };
        }
        if let Some(scheme) = &redirect.scheme
            && !matches!(scheme.get_ref().as_str(), "http" | "https")
        {
            let message = format!("\"{}\" is neither http nor https", scheme.get_ref());
            return Err(self.refuse(scheme.span(), "redirect.scheme", message));
        }
        Ok(Redirect {
            status,
            scheme: redirect.scheme.as_ref().map(|it| it.get_ref().clone()),
            host: redirect.host.clone(),
            port: redirect
                .port
                .and_then(|port| u16::try_from(port.get()).ok()),
            path: redirect
                .path
                .clone()
                .map_or(PathEdit::Keep, PathEdit::Whole),
            strip_query: false,
        })
    }

    fn rewrite(&self, route: &Route) -> Result<PathEdit, ConfigError> {
        let Some(rewrite) = &route.rewrite else {
            return Ok(PathEdit::Keep);
        };
        let to = rewrite.get_ref();
        if !to.starts_with('/') {
            let message = format!("\"{to}\" does not begin with `/`");
            return Err(self.refuse(rewrite.span(), "rewrite", message));
        }
        if route.path.is_none() && route.prefix.is_none() {
            let message = "it stands in place of a `path` or a `prefix`, and there is none";
            return Err(self.refuse(rewrite.span(), "rewrite", message));
        }
        // The prefix `/a` rewritten to `/` leaves `/b` of `/a/b`, not `//b`.
        let to = if route.prefix.is_some() && to != "/" {
            to.trim_end_matches('/')
        } else {
            to
        };
        Ok(match (&route.prefix, to) {
            (Some(prefix), to) if prefix.get_ref() == "/" => PathEdit::Prefix(to.to_owned()),
            (Some(_), "/") => PathEdit::Prefix(String::new()),
            _ => PathEdit::Prefix(to.to_owned()),
        })
    }

    fn filters_known(&self, route: &Route, filters: &[Spanned<String>]) -> Result<(), ConfigError> {
        for (at, filter) in filters.iter().enumerate() {
            let name = filter.get_ref();
            if !self.config.filters.contains_key(name) {
                let there = choices(self.config.filters.keys());
                let message = format!("there is no [filter.{name}]; there {there}");
                return Err(self.refuse(filter.span(), &format!("filters[{at}]"), message));
            }
        }
        for (name, config) in &route.config {
            if !filters.iter().any(|filter| filter.get_ref() == name) {
                let there = choices(filters.iter().map(|filter| filter.get_ref()));
                let message = format!("`{name}` is no filter of this route; there {there}");
                return Err(self.refuse(config.span(), &format!("config.{name}"), message));
            }
        }
        Ok(())
    }
}
