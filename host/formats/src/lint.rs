//! What can be said of whole chains of filters before a request has gone through them.
//!
//! Filters are known by the name they carry themselves: `cache`, `compress`, `minify`, `ratelimit`, and `edge`, which is
//! several in one. Of others nothing is said but what holds for all.

use std::collections::BTreeSet;
use std::ops::Range;

use serde_json::Value;

use crate::envoy::Policy;
use crate::route::{Match, PathMatch};
use crate::{Finding, Level};

/// A proxy-wasm listener's default, bytes: what Envoy holds back for a filter that pauses.
const ENVOY_BUFFER: u64 = 1 << 20;

/// What is known of a filter.
#[derive(Clone, Default, Debug)]
pub struct Facts {
    /// Its name in the configuration.
    pub name: String,
    /// The name it carries itself.
    pub kind: Option<String>,
    /// The filter it is made from, where it is one that a route configures.
    pub base: Option<String>,
    /// The path of it in the file.
    pub path: String,
    /// Where it stands.
    pub span: Range<usize>,
    /// Where its configuration stands, if it has one.
    pub config_span: Range<usize>,
    /// What it is configured with.
    pub config: Value,
    /// It is a component.
    pub component: bool,
    /// Names it can send requests to: clusters of a module, `host:port` of a component.
    pub reaches: Vec<String>,
    /// In Envoy: what a trap does, and where that stands.
    pub policy: Option<(Policy, Range<usize>)>,
    /// Body bytes that are held back for it at most, where the file says so.
    pub buffer: Option<u64>,
    /// The name of the data it shares; `None` where it has data of its own.
    pub vm_id: Option<String>,
}

/// A way through a listener.
#[derive(Clone, Default, Debug)]
pub struct Chain {
    /// What it is called in findings.
    pub name: String,
    /// Its filters, outermost first, as places in the list of facts.
    pub filters: Vec<usize>,
}

/// Looks at filters and at the chains they stand in. A finding is told once, however many chains it is true of.
pub fn chains(filters: &[Facts], chains: &[Chain]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for facts in filters {
        alone(facts, &mut findings);
    }
    together(filters, &mut findings);
    for chain in chains {
        order(filters, chain, &mut findings);
    }
    let used: BTreeSet<usize> = chains
        .iter()
        .flat_map(|chain| chain.filters.clone())
        .collect();
    let bases: BTreeSet<&str> = used
        .iter()
        .filter_map(|at| filters.get(*at)?.base.as_deref())
        .collect();
    for (at, facts) in filters.iter().enumerate() {
        if !used.contains(&at) && !bases.contains(facts.name.as_str()) {
            findings.push(of(
                facts,
                Level::Warning,
                "unused-filter",
                "no listener and no route names this filter: name it, or take it out".to_owned(),
            ));
        }
    }
    let mut told: Vec<Finding> = Vec::new();
    for finding in findings {
        if !told.contains(&finding) {
            told.push(finding);
        }
    }
    told
}

/// Routes that no request can reach, because one before them takes all.
pub fn unreachable<T>(routes: &[(Match, T)]) -> Option<usize> {
    let all = |wanted: &Match| {
        let every = match &wanted.path {
            PathMatch::Any => true,
            PathMatch::Prefix(prefix) => prefix.is_empty() || prefix == "/",
            _ => false,
        };
        every
            && wanted.hosts.is_empty()
            && wanted.methods.is_empty()
            && wanted.fields.is_empty()
            && wanted.query.is_empty()
    };
    let first = routes.iter().position(|(wanted, _)| all(wanted))?;
    (first + 1 < routes.len()).then_some(first + 1)
}

fn of(facts: &Facts, level: Level, code: &'static str, message: String) -> Finding {
    Finding {
        level,
        code,
        path: facts.path.clone(),
        span: facts.span.clone(),
        message,
    }
}

fn in_config(
    facts: &Facts,
    level: Level,
    code: &'static str,
    field: &str,
    message: String,
) -> Finding {
    Finding {
        path: format!("{}.config.{field}", facts.path),
        span: facts.config_span.clone(),
        ..of(facts, level, code, message)
    }
}

/// What is to be said of a filter wherever it stands.
fn alone(facts: &Facts, findings: &mut Vec<Finding>) {
    match &facts.policy {
        Some((Policy::Closed, span)) => findings.push(Finding {
            span: span.clone(),
            ..of(
                facts,
                Level::Warning,
                "failure-policy",
                "in Envoy one trap turns this filter's VM off for good and all its requests get 500: set `failure_policy: \
                 FAIL_RELOAD` and `reload_config: { backoff: { base_interval: 0.1s } }`"
                    .to_owned(),
            )
        }),
        Some((Policy::Open, span)) => findings.push(Finding {
            span: span.clone(),
            ..of(
                facts,
                Level::Warning,
                "failure-policy",
                "in Envoy one trap turns this filter off for good and nobody is told: set `failure_policy: FAIL_RELOAD`"
                    .to_owned(),
            )
        }),
        Some((Policy::Reload, _)) | None => {}
    }
    for part in parts(facts) {
        clusters(facts, &part, findings);
        buffers(facts, &part, findings);
        if part.kind == "compress" && part.config["remove_accept_encoding"] == Value::Bool(false) {
            findings.push(in_config(
                facts,
                Level::Advice,
                "origin-coding",
                &part.field("remove_accept_encoding"),
                "an origin that codes by itself leaves nothing to do here: `true` has all coding done in one place".to_owned(),
            ));
        }
    }
}

/// A filter of a chain, or one of those an `edge` is made of.
struct Part<'a> {
    kind: &'a str,
    config: &'a Value,
    /// Before the names of its fields.
    prefix: String,
}

impl Part<'_> {
    fn field(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

fn parts(facts: &Facts) -> Vec<Part<'_>> {
    let Some(kind) = facts.kind.as_deref() else {
        return Vec::new();
    };
    if kind != "edge" {
        return vec![Part {
            kind,
            config: &facts.config,
            prefix: String::new(),
        }];
    }
    let entries = facts.config["filters"].as_array();
    let mut parts = Vec::new();
    for (at, entry) in entries.into_iter().flatten().enumerate() {
        // "cache", or { "cache": { … } }.
        let (kind, config) = match (entry.as_str(), entry.as_object()) {
            (Some(kind), _) => (kind, &Value::Null),
            (None, Some(entry)) => match entry.iter().next() {
                Some((kind, config)) => (kind.as_str(), config),
                None => continue,
            },
            (None, None) => continue,
        };
        parts.push(Part {
            kind,
            config,
            prefix: format!("filters[{at}].{kind}."),
        });
    }
    parts
}

/// Names that a configuration sends requests to.
fn clusters(facts: &Facts, part: &Part<'_>, findings: &mut Vec<Finding>) {
    let named: &[(&str, &str)] = match part.kind {
        "cache" => &[("l3", "to"), ("background", "cluster")],
        "ratelimit" => &[("store", "to")],
        _ => &[],
    };
    for (section, name) in named {
        let Some(to) = part.config[section][name].as_str() else {
            continue;
        };
        let reached = authority(to);
        let known = |known: &String| known == to || (facts.component && *known == reached);
        if to.is_empty() || facts.reaches.iter().any(known) {
            continue;
        }
        let (what, there) = if facts.component {
            ("the component may not reach", "allowed_outbound")
        } else {
            ("there is no cluster", "clusters")
        };
        let known = match facts.reaches.as_slice() {
            [] => "none".to_owned(),
            known => known.join(", "),
        };
        findings.push(in_config(
            facts,
            Level::Error,
            "missing-cluster",
            &part.field(&format!("{section}.{name}")),
            format!("{what} \"{to}\": add it to the {there} ({known})"),
        ));
    }
}

/// The `host:port` of a store that a URL names, as `redis://name:password@host/0` does; anything else as it is.
fn authority(to: &str) -> String {
    let Some(("redis" | "rediss", rest)) = to.split_once("://") else {
        return to.to_owned();
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let port = host.rsplit(']').next().unwrap_or_default().contains(':');
    format!("{host}{}", if port { "" } else { ":6379" })
}

/// Bodies a filter holds back whole must find room.
fn buffers(facts: &Facts, part: &Part<'_>, findings: &mut Vec<Finding>) {
    if part.kind != "minify" || facts.component {
        return;
    }
    let whole = part.config["whole_bytes"].as_u64().unwrap_or(65_536);
    let room = facts.buffer.unwrap_or(ENVOY_BUFFER);
    if whole > room {
        findings.push(in_config(
            facts,
            Level::Warning,
            "buffer-limit",
            &part.field("whole_bytes"),
            format!(
                "bodies of up to {whole} bytes are held back and {room} fit: raise `per_connection_buffer_limit_bytes`, or \
                 lower `whole_bytes`"
            ),
        ));
    }
}

/// Filters that get into each other's way though they stand in no chain together.
fn together(filters: &[Facts], findings: &mut Vec<Finding>) {
    for (at, facts) in filters.iter().enumerate() {
        let Some(vm_id) = &facts.vm_id else { continue };
        let other = filters.iter().take(at).find(|other| {
            other.vm_id.as_ref() == Some(vm_id)
                && other.kind.is_some()
                && facts.kind.is_some()
                && other.kind != facts.kind
        });
        if let Some(other) = other {
            let message = if vm_id.is_empty() {
                format!(
                    "without a `vm_id` it shares its data with {}, and loses it when its configuration changes: give each filter \
                     one of its own",
                    other.name
                )
            } else {
                format!(
                    "{} has the `vm_id` \"{vm_id}\" too, and the same data: give each filter one of its own",
                    other.name
                )
            };
            findings.push(of(facts, Level::Warning, "vm-id", message));
        }
    }
}

/// The order of a chain.
fn order(filters: &[Facts], chain: &Chain, findings: &mut Vec<Finding>) {
    let mut row: Vec<(&Facts, Part<'_>)> = Vec::new();
    for facts in chain.filters.iter().filter_map(|at| filters.get(*at)) {
        row.extend(parts(facts).into_iter().map(|part| (facts, part)));
    }
    let place = |kind: &str| row.iter().position(|(_, part)| part.kind == kind);
    let in_chain = |facts: &Facts, level, code, message: String| {
        of(
            facts,
            level,
            code,
            format!("in the chain of {}: {message}", chain.name),
        )
    };
    for (at, (facts, part)) in row.iter().enumerate() {
        let known = ["cache", "compress", "minify", "ratelimit"].contains(&part.kind);
        if known && place(part.kind).is_some_and(|first| first < at) {
            findings.push(in_chain(
                facts,
                Level::Warning,
                "twice",
                format!("`{}` is there already: take one of them out", part.kind),
            ));
        }
    }
    if let (Some(minify), Some(compress)) = (place("minify"), place("compress"))
        && minify < compress
        && let Some((facts, _)) = row.get(minify)
    {
        findings.push(in_chain(
            facts,
            Level::Warning,
            "order-minify",
            "it gets bodies that `compress` has coded and leaves them as they are: put it behind `compress`".to_owned(),
        ));
    }
    if let (Some(compress), Some(cache)) = (place("compress"), place("cache"))
        && compress < cache
        && let Some((facts, _)) = row.get(compress)
    {
        findings.push(in_chain(
            facts,
            Level::Advice,
            "order-compress",
            "every hit of `cache` is coded anew: behind `cache`, each coding is made once and stored".to_owned(),
        ));
    }
    if let (Some(cache), Some(compress)) = (place("cache"), place("compress"))
        && cache < compress
        && let (Some((facts, cache)), Some((_, compress))) = (row.get(cache), row.get(compress))
    {
        // zstd, br, gzip and deflate where nothing is said; and the body without a coding.
        let codings = compress.config["codings"].as_array().map_or(4, Vec::len) as u64 + 1;
        let variants = cache.config["max_variants"].as_u64().unwrap_or(8);
        if variants < codings {
            findings.push(in_config(
                facts,
                Level::Warning,
                "vary-variants",
                &cache.field("max_variants"),
                format!(
                    "`compress` behind it makes up to {codings} variants by `Vary: Accept-Encoding` and {variants} are stored: they \
                     drive each other out; set it to {codings}, or name fewer `codings`"
                ),
            ));
        }
    }
    if let (Some(cache), Some(minify)) = (place("cache"), place("minify"))
        && minify < cache
        && let Some((facts, _)) = row.get(minify)
    {
        findings.push(in_chain(
            facts,
            Level::Advice,
            "order-minify-cache",
            "every hit of `cache` is minified anew: behind `cache` it is done once".to_owned(),
        ));
    }
    if let Some(limit) = place("ratelimit").filter(|at| *at > 0)
        && let Some((facts, _)) = row.get(limit)
    {
        let before: Vec<_> = row
            .iter()
            .take(limit)
            .map(|(_, part)| format!("`{}`", part.kind))
            .collect();
        findings.push(in_chain(
            facts,
            Level::Advice,
            "order-ratelimit",
            format!(
                "{} in front of it works for requests it then refuses, and what a cache answers is not counted: put it first, \
                 unless hits are meant to be free",
                before.join(", ")
            ),
        ));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn facts(kind: &str, config: Value) -> Facts {
        Facts {
            name: kind.to_owned(),
            kind: Some(kind.to_owned()),
            path: format!("filter.{kind}"),
            span: 1..2,
            config_span: 3..4,
            config,
            ..Facts::default()
        }
    }

    fn told(filters: &[Facts]) -> Vec<(&'static str, Level)> {
        let chain = Chain {
            name: "main".to_owned(),
            filters: (0..filters.len()).collect(),
        };
        chains(filters, &[chain])
            .into_iter()
            .map(|it| (it.code, it.level))
            .collect()
    }

    #[test]
    fn a_good_chain_has_nothing_to_be_said() {
        let row = ["ratelimit", "cache", "compress", "minify"].map(|kind| facts(kind, Value::Null));
        assert_eq!(told(&row), []);
        let edge = facts(
            "edge",
            json!({ "filters": ["ratelimit", { "cache": {} }, "compress", "minify"] }),
        );
        assert_eq!(told(&[edge]), []);
    }

    #[test]
    fn a_store_at_a_url_is_reached_by_its_host_and_port() {
        let to = |to: &str, component| Facts {
            component,
            reaches: ["127.0.0.1:7399", "redis.test:6379"]
                .map(str::to_owned)
                .to_vec(),
            ..facts("ratelimit", json!({ "store": { "to": to } }))
        };
        for good in [
            "127.0.0.1:7399",
            "redis://127.0.0.1:7399",
            "rediss://name:pass@127.0.0.1:7399/0",
            "redis://redis.test",
        ] {
            assert_eq!(told(&[to(good, true)]), [], "{good}");
        }
        for bad in [
            "redis://127.0.0.1:7398",
            "redis://127.0.0.1",
            "redis://[::1]",
        ] {
            let missing = [("missing-cluster", Level::Error)];
            assert_eq!(told(&[to(bad, true)]), missing, "{bad}");
        }
        // A module's cluster is a name.
        let named = told(&[to("redis://127.0.0.1:7399", false)]);
        assert_eq!(named, [("missing-cluster", Level::Error)]);
    }

    #[test]
    fn each_finding_has_a_chain_that_shows_it() {
        use Level::{Advice, Error, Warning};
        let of = |kind| facts(kind, Value::Null);
        let policy = |policy| Facts {
            policy: Some((policy, 5..6)),
            ..of("minify")
        };
        let shared = |kind| Facts {
            vm_id: Some(String::new()),
            ..of(kind)
        };
        let small = Facts {
            buffer: Some(16_384),
            ..of("minify")
        };
        for (row, code, level) in [
            (vec![of("minify"), of("compress")], "order-minify", Warning),
            (vec![of("compress"), of("cache")], "order-compress", Advice),
            (
                vec![of("minify"), of("cache")],
                "order-minify-cache",
                Advice,
            ),
            (
                vec![of("cache"), of("ratelimit")],
                "order-ratelimit",
                Advice,
            ),
            (vec![of("cache"), of("cache")], "twice", Warning),
            (
                vec![facts("edge", json!({ "filters": ["minify", "compress"] }))],
                "order-minify",
                Warning,
            ),
            (
                vec![facts("cache", json!({ "max_variants": 2 })), of("compress")],
                "vary-variants",
                Warning,
            ),
            (
                vec![facts("cache", json!({ "l3": { "to": "store" } }))],
                "missing-cluster",
                Error,
            ),
            (
                vec![facts("cache", json!({ "background": { "cluster": "x" } }))],
                "missing-cluster",
                Error,
            ),
            (
                vec![facts("ratelimit", json!({ "store": { "to": "store" } }))],
                "missing-cluster",
                Error,
            ),
            (
                vec![facts(
                    "edge",
                    json!({ "filters": [{ "cache": { "l3": { "to": "s" } } }] }),
                )],
                "missing-cluster",
                Error,
            ),
            (vec![small], "buffer-limit", Warning),
            (
                vec![facts("minify", json!({ "whole_bytes": 2_000_000 }))],
                "buffer-limit",
                Warning,
            ),
            (
                vec![facts(
                    "compress",
                    json!({ "remove_accept_encoding": false }),
                )],
                "origin-coding",
                Advice,
            ),
            (vec![policy(Policy::Closed)], "failure-policy", Warning),
            (vec![policy(Policy::Open)], "failure-policy", Warning),
            (vec![shared("cache"), shared("compress")], "vm-id", Warning),
        ] {
            assert!(
                told(&row).contains(&(code, level)),
                "{code}: {:?}",
                told(&row)
            );
        }
        let reached = Facts {
            reaches: vec!["store".to_owned()],
            ..facts("cache", json!({ "l3": { "to": "store" } }))
        };
        assert_eq!(told(&[reached]), []);
        assert_eq!(chains(&[of("cache")], &[])[0].code, "unused-filter");
    }

    #[test]
    fn what_a_route_before_takes_is_not_reached() {
        let route = |path: &str| {
            (
                Match {
                    path: PathMatch::Prefix(path.into()),
                    ..Match::default()
                },
                (),
            )
        };
        assert_eq!(unreachable(&[route("/a"), route("/")]), None);
        assert_eq!(
            unreachable(&[route("/a"), route("/"), route("/b")]),
            Some(2)
        );
        assert_eq!(unreachable::<()>(&[]), None);
    }
}
