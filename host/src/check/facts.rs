//! What is known of the filters and the chains of a configuration without starting anything.

use std::collections::BTreeMap;

use edgeweir_host_formats::lint::{Chain, Facts};
use edgeweir_host_formats::{Finding, Level, settings};
use serde_json::Value;

use crate::config::{Config, Filter};
use crate::inspect::Inspected;
use crate::load::{Abi, configuration_variable};
use crate::refusal;
use crate::schema;

/// The filters, in the order of their names, and the chains they stand in.
pub(super) fn of(config: &Config) -> (Vec<Facts>, Vec<Chain>) {
    let filters: Vec<Facts> = config
        .filters
        .iter()
        .map(|(name, filter)| facts(config, name, filter))
        .collect();
    let places: BTreeMap<&str, usize> = config
        .filters
        .keys()
        .enumerate()
        .map(|(at, name)| (name.as_str(), at))
        .collect();
    let mut chains = Vec::new();
    for listener in &config.listeners {
        for (_, way) in listener
            .ways
            .virtual_hosts
            .iter()
            .flat_map(|host| &host.routes)
        {
            let row: Vec<usize> = way
                .filters
                .iter()
                .filter_map(|name| places.get(name.get_ref().as_str()).copied())
                .collect();
            // Many routes have the same filters: one of them is enough to speak of.
            if !chains.iter().any(|chain: &Chain| chain.filters == row) {
                chains.push(Chain {
                    name: format!("listener {}", listener.name.get_ref()),
                    filters: row,
                });
            }
        }
    }
    (filters, chains)
}

fn facts(config: &Config, name: &str, filter: &Filter) -> Facts {
    let file = config.resolve(filter.module.get_ref());
    let inspected = Inspected::read(&file).ok();
    let component = Abi::of(&file).is_ok_and(|abi| abi == Abi::WasiHttp);
    let (value, span) = configured(filter);
    let upstreams = config.upstreams.iter().filter(|(_, it)| !it.http2);
    let mut reaches: Vec<String> = Vec::new();
    if component {
        let listed = filter.allowed_outbound.iter().flat_map(|it| it.get_ref());
        reaches.extend(listed.map(|authority| authority.0.clone()));
    } else {
        reaches.extend(upstreams.map(|(name, _)| name.clone()));
        let own = filter.clusters.iter().flat_map(|it| it.get_ref().keys());
        reaches.extend(own.cloned());
    }
    Facts {
        name: name.to_owned(),
        kind: inspected.and_then(|it| it.name),
        base: filter.shares.clone(),
        path: format!("filter.{name}"),
        span: filter.module.span(),
        config_span: span,
        config: value,
        component,
        reaches,
        policy: filter
            .raw
            .as_ref()
            .map(|raw| (raw.policy, raw.policy_span.clone())),
        buffer: filter.body_buffer_bytes.map(|bytes| bytes as u64),
        // A Spin manifest grants hosts by patterns, and a route's variant shares on purpose.
        vm_id: filter
            .vm_id
            .as_ref()
            .filter(|_| filter.shares.is_none())
            .map(|it| it.get_ref().clone()),
    }
}

/// What a filter is configured with, as JSON, and where that stands. Nothing where it is no JSON.
fn configured(filter: &Filter) -> (Value, std::ops::Range<usize>) {
    let module = || filter.module.span();
    if let Some(raw) = &filter.raw {
        let Some(configuration) = &raw.configuration else {
            return (Value::Null, module());
        };
        let json = match raw.text {
            true => serde_json::from_slice(&configuration.value).unwrap_or_default(),
            false => Value::Null,
        };
        return (json, configuration.span.clone());
    }
    match &filter.config {
        Some(config) => {
            let (_, json) = settings::of(config.get_ref()).unwrap_or_default();
            (json, config.span())
        }
        None => (Value::Null, module()),
    }
}

/// The schemas the filters carry, in their order.
pub(super) fn schemas(config: &Config, filters: &[Facts]) -> Vec<Option<Value>> {
    let schema = |facts: &Facts| {
        let filter = config.filters.get(&facts.name)?;
        let file = config.resolve(filter.module.get_ref());
        Inspected::read(&file).ok()?.schema
    };
    filters.iter().map(schema).collect()
}

/// Configurations that are texts and no JSON though their filter has a schema, modules that cannot be read, and what modules
/// import and will not get.
pub(super) fn unreadable(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, filter) in &config.filters {
        let file = config.resolve(filter.module.get_ref());
        let inspected = match Inspected::read(&file) {
            Ok(inspected) => inspected,
            // What is wrong with fetching or linking it is said where that is done.
            Err(_) if filter.remote.is_some() || filter.link.is_some() => continue,
            Err(error) => {
                findings.push(Finding {
                    level: Level::Error,
                    code: "module",
                    path: format!("filter.{name}.module"),
                    span: filter.module.span(),
                    message: format!(
                        "{error:#}; `cargo edge build` writes the project's own modules to target/edge"
                    ),
                });
                continue;
            }
        };
        findings.extend(
            inspected
                .unserved()
                .into_iter()
                .map(|(code, message)| Finding {
                    level: Level::Warning,
                    code,
                    path: format!("filter.{name}"),
                    span: filter.module.span(),
                    message,
                }),
        );
        let raw = filter.raw.as_ref().filter(|raw| raw.text);
        let Some(text) = raw.and_then(|raw| raw.configuration.as_ref()) else {
            continue;
        };
        if inspected.schema.is_some()
            && !text.value.iter().all(u8::is_ascii_whitespace)
            && let Err(error) = serde_json::from_slice::<Value>(&text.value)
        {
            findings.push(Finding {
                level: Level::Error,
                code: "option",
                path: format!("filter.{name}.config"),
                span: text.span.clone(),
                message: format!("the configuration is no JSON: {error}"),
            });
        }
    }
    findings
}

/// Configurations of components that stand in the environment or in a variable, against the schema of their filter.
pub(super) fn elsewhere(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, filter) in &config.filters {
        let file = config.resolve(filter.module.get_ref());
        let Some(schema) = Inspected::read(&file).ok().and_then(|it| it.schema) else {
            continue;
        };
        if Abi::of(&file).is_ok_and(|abi| abi == Abi::ProxyWasm) {
            continue;
        }
        let variable = configuration_variable(&file);
        let of_spin = variable.to_ascii_lowercase();
        // As the component looks: what Spin says of a variable comes first.
        let found = [
            ("variables", &of_spin, &filter.variables),
            ("environment", &variable, &filter.environment),
        ]
        .into_iter()
        .find_map(|(table, variable, all)| {
            let all = all.as_ref()?;
            let text = all.get_ref().get(variable)?;
            (!text.trim().is_empty()).then_some((table, variable, all.span(), text))
        });
        let Some((table, variable, all, text)) = found else {
            continue;
        };
        let message = match serde_json::from_str(text) {
            Err(error) => format!("the configuration is no JSON: {error}"),
            Ok(json) => match schema::check(&schema, &json) {
                Ok(()) => continue,
                Err(mismatch) if mismatch.field.is_empty() => mismatch.message,
                Err(mismatch) => format!("in `{}`: {}", mismatch.field, mismatch.message),
            },
        };
        let place = refusal::place_of_variable(config, name, filter, table, variable);
        findings.push(Finding {
            level: Level::Error,
            code: "option",
            path: format!("filter.{name}.{table}.{variable}"),
            span: place.unwrap_or(all),
            message,
        });
    }
    findings
}
