//! The manifest: triggers, components, variables, and what middleware inherits.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::dependency::GRANTS;
use super::template::fill;
use super::{
    Application, Component, Files, Service, Shown, Source, Trigger, VARIABLE, dependency,
    is_variable,
};
use crate::outbound::Outbound;
use crate::remote::Remote;
use crate::route::Segments;
use crate::section::{At, Notes, Section};
use crate::written::choices;
use crate::yaml::Value;
use crate::{Finding, Level, Placed, tree};

pub(super) fn read(text: &str, given: &BTreeMap<String, String>) -> (Application, Vec<Finding>) {
    let root = match tree::parse(text) {
        Ok(root) => root,
        Err(finding) => return (Application::default(), vec![finding]),
    };
    let notes = Notes::default();
    let at = At {
        node: &root,
        path: String::new(),
        notes: &notes,
    };
    let application = application(&at, given).unwrap_or_default();
    (application, notes.take())
}

fn application(at: &At<'_>, given: &BTreeMap<String, String>) -> Option<Application> {
    let root = at.section();
    if let Some(version) = root.need("spin_manifest_version")
        && version.text().is_some_and(|it| it != "2")
    {
        version.error("only version 2 of the manifest is read; `spin doctor` upgrades the first");
        root.let_go();
        return None;
    }
    let mut found = Application::default();
    if let Some(application) = root.need("application") {
        let application = application.section();
        found.name = application.text("name").unwrap_or_default();
        application.without_effect(&["version", "description", "authors", "tool"]);
        if let Some(trigger) = application.get("trigger") {
            let trigger = trigger.section();
            if let Some(http) = trigger.get("http") {
                let http = http.section();
                match http.text("base").as_deref() {
                    // What Spin 2 had for all routes; Spin 3 has no more of it.
                    Some(base) if base != "/" => http.unsupported(&["base"]),
                    _ => http.without_effect(&["base"]),
                }
            }
        }
    }
    let values = variables(&root, given);
    let mut parts = BTreeMap::new();
    let components = root.get("component");
    let components = components.map_or_else(Vec::new, |at| at.entries());
    for (id, at) in &components {
        let part = Part::read(at, &values, &components);
        parts.insert(id.clone(), part);
    }
    if let Some(triggers) = root.get("trigger") {
        for (kind, at) in triggers.entries() {
            if kind != "http" {
                at.warn(format!(
                    "triggers of type \"{kind}\" are not served: only http is"
                ));
                continue;
            }
            for at in at.items() {
                let Some((route, service)) = trigger(&at, &parts, &values, &components) else {
                    continue;
                };
                let id = |it: &Service| it.component.id.value == service.component.id.value;
                if !found.services.iter().any(id) {
                    found.services.push(service.clone());
                }
                if let Some((route, pattern)) = route {
                    found.triggers.push(Trigger {
                        route,
                        pattern,
                        service,
                    });
                }
            }
        }
    }
    // Where a trigger was refused, that is what there is to say.
    if found.triggers.is_empty() && !at.notes.broken() {
        at.error("it has no [[trigger.http]] that could be served");
    }
    found
        .triggers
        .sort_by_key(|trigger| std::cmp::Reverse(trigger.pattern.rank()));
    Some(found)
}

/// The values of all variables.
fn variables(root: &Section<'_>, given: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    let Some(all) = root.get("variables") else {
        return values;
    };
    for (name, at) in all.entries() {
        if !is_variable(&name) {
            at.error(VARIABLE);
        }
        let variable = at.section();
        // Nothing here shows the value of a variable, secret or not.
        let _ = variable.get("secret");
        variable.without_effect(&["description"]);
        let default = variable.text("default");
        let required = variable.flag("required");
        if required && default.is_some() {
            at.error(format!(
                "the variable `{name}` is either required or has a default"
            ));
        }
        match given.get(&name).cloned().or(default) {
            Some(value) => {
                values.insert(name, value);
            }
            None if required => at.error(format!(
                "the variable `{name}` is required: set SPIN_VARIABLE_{}",
                name.to_ascii_uppercase()
            )),
            None => at.error(format!(
                "the variable `{name}` is neither required nor has it a default"
            )),
        }
    }
    values
}

/// A component as it is written.
struct Part<'a> {
    component: Option<Component>,
    at: At<'a>,
}

impl<'a> Part<'a> {
    fn read(at: &At<'a>, values: &BTreeMap<String, String>, all: &[Entry<'_>]) -> Self {
        Self {
            component: component(at, values, all),
            at: at.clone(),
        }
    }
}

/// A `[component.NAME]`.
pub(super) type Entry<'a> = (String, At<'a>);

fn component(
    at: &At<'_>,
    values: &BTreeMap<String, String>,
    all: &[Entry<'_>],
) -> Option<Component> {
    let fields = at.section();
    fields.without_effect(&["description", "build", "tool", "targets"]);
    for (name, why) in [
        (
            "ai_models",
            "there are no models here: a call for one is a trap",
        ),
        (
            "allowed_http_hosts",
            "it grants nothing here: `allowed_outbound_hosts` does",
        ),
    ] {
        if let Some(at) = fields.get(name)
            && !at.items().is_empty()
        {
            at.warn(why);
        }
    }
    let inherit = fields.flag("dependencies_inherit_configuration");
    let dependencies = fields.get("dependencies");
    let dependencies = dependencies.map_or_else(Vec::new, |at| dependency::read(&at, inherit, all));
    if let Some(profiles) = fields.get("profile") {
        profiles.warn("no profile is chosen: what is written outside of them is run, as without `spin up --profile`");
    }
    let filled = |at: &At<'_>| -> Option<String> {
        match fill(&at.text()?, values) {
            Ok(text) => Some(text),
            Err(why) => {
                at.error(why);
                None
            }
        }
    };
    let entries = |name: &str| fields.get(name).map_or_else(Vec::new, |at| at.entries());
    let mut environment = BTreeMap::new();
    for (name, at) in entries("environment") {
        let Some(value) = at.text() else { continue };
        if value.contains("{{") {
            let why =
                "`{{` begins no template here: Spin hands the environment on as it is written";
            at.say(Level::Advice, "no-effect", why);
        }
        environment.insert(name, value);
    }
    let mut variables = BTreeMap::new();
    for (name, at) in entries("variables") {
        if !is_variable(&name) {
            at.error(VARIABLE);
        }
        if let Some(value) = filled(&at) {
            variables.insert(name, value);
        }
    }
    let mut outbound = Vec::new();
    for at in fields.items("allowed_outbound_hosts") {
        let Some(text) = filled(&at) else { continue };
        match Outbound::parse(&text) {
            Ok(pattern) => outbound.push(pattern),
            Err(why) => at.error(why),
        }
    }
    let labels = |name: &str| -> Option<Vec<Placed<String>>> {
        let all = fields.items(name);
        all.iter().map(|at| Some(at.placed(at.text()?))).collect()
    };
    let key_value_stores = labels("key_value_stores")?;
    let sqlite_databases = labels("sqlite_databases")?;
    let files = files(&fields);
    let source = source(&fields)?;
    Some(Component {
        id: at.placed(at.path.rsplit('.').next().unwrap_or_default().to_owned()),
        source,
        environment,
        variables,
        outbound,
        key_value_stores,
        sqlite_databases,
        files,
        dependencies,
    })
}

pub(super) fn source(component: &Section<'_>) -> Option<Placed<Source>> {
    let at = component.need("source")?;
    let from = match at.node.value {
        Value::Map(_) => Source::Remote(elsewhere(&at)?),
        _ => Source::File(PathBuf::from(at.text()?)),
    };
    Some(at.placed(from))
}

/// `{ url = "…", digest = "sha256:…" }`.
fn elsewhere(at: &At<'_>) -> Option<Remote> {
    let fields = at.section();
    let Some(url) = fields.text("url") else {
        fields.let_go();
        at.unsupported("a source is a file, or `{ url, digest }`; no registry is asked");
        return None;
    };
    remote(at, &fields, &url)
}

/// What the URL names, which is known by the digest beside it.
pub(super) fn remote(at: &At<'_>, fields: &Section<'_>, url: &str) -> Option<Remote> {
    let digest = fields.need("digest")?.text()?;
    Remote::new(url, &digest).map_err(|why| at.error(why)).ok()
}

fn files(fields: &Section<'_>) -> Files {
    let mut found = Files::default();
    for at in fields.items("files") {
        let shown = match at.node.value {
            Value::Map(_) => {
                let place = at.section();
                let source = place.need("source").and_then(|at| at.text());
                let destination = place.need("destination").and_then(|at| at.text());
                let (Some(source), Some(destination)) = (source, destination) else {
                    continue;
                };
                Shown::Elsewhere {
                    source,
                    destination,
                }
            }
            _ => match at.text() {
                Some(text) => Shown::InPlace(text),
                None => continue,
            },
        };
        found.shown.push(at.placed(shown));
    }
    for at in fields.items("exclude_files") {
        if let Some(text) = at.text() {
            found.hidden.push(at.placed(text));
        }
    }
    found
}

/// A route, as it is written and read.
type Public = (Placed<String>, Segments);

/// What a trigger leads to, and its route unless it is private.
fn trigger(
    at: &At<'_>,
    parts: &BTreeMap<String, Part<'_>>,
    values: &BTreeMap<String, String>,
    all: &[Entry<'_>],
) -> Option<(Option<Public>, Service)> {
    let fields = at.section();
    fields.without_effect(&["id"]);
    if let Some(executor) = fields.get("executor") {
        let executor_at = executor.section();
        match executor_at.text("type").as_deref() {
            None | Some("http" | "spin") => {}
            _ => executor.unsupported("only components with wasi:http are run (no WAGI)"),
        }
    }
    let named = |at: &At<'_>| -> Option<Component> {
        if let Value::Map(_) = at.node.value {
            at.unsupported("a component is written in [component.NAME]");
            return None;
        }
        let name = at.text()?;
        match parts.get(&name) {
            Some(part) => part.component.clone(),
            None => {
                let there = choices(parts.keys());
                at.error(format!("there is no [component.{name}]; there {there}"));
                None
            }
        }
    };
    let mut component = None;
    if let Some(at) = fields.need("component") {
        component = match at.node.value {
            // Written where it is used, and told by where that is.
            Value::Map(_) => self::component(&at, values, all).map(|found| Component {
                id: at.placed(at.path.replace(['[', ']', '.'], "-")),
                ..found
            }),
            _ => named(&at),
        };
    }
    let mut middleware = Vec::new();
    if let Some(dependencies) = fields.get("dependencies") {
        let dependencies = dependencies.section();
        for at in dependencies.items("middleware") {
            let layer = at.section();
            let granted = inherited(&layer);
            let Some(mut found) = layer.need("component").and_then(|at| named(&at)) else {
                continue;
            };
            own_grants(&found, parts, &at);
            if let Some(primary) = &component {
                grant(&mut found, primary, &granted);
            }
            middleware.push(found);
        }
    }
    let route = fields.need("route")?;
    let service = Service {
        component: component?,
        middleware,
    };
    if let Value::Map(_) = route.node.value {
        // `{ private = true }`: reached by other components alone.
        if !route.section().flag("private") {
            route.error("a route is a path, or `{ private = true }`");
            return None;
        }
        return Some((None, service));
    }
    let text = route.text()?;
    // Spin takes it from the root, with or without its slash.
    let text = match text.starts_with('/') {
        true => text,
        false => format!("/{text}"),
    };
    let pattern = Segments::parse(&text)
        .map_err(|why| route.error(why))
        .ok()?;
    Some((Some((route.placed(text), pattern)), service))
}

/// What middleware may inherit.
fn inheritable() -> impl Iterator<Item = &'static str> {
    GRANTS.into_iter().chain(["ai_models"])
}

/// Names of what a layer inherits.
fn inherited(layer: &Section<'_>) -> BTreeSet<String> {
    let Some(at) = layer.get("inherit_configuration") else {
        return BTreeSet::new();
    };
    if let Value::Scalar { .. } = at.node.value {
        return match at.flag() {
            Some(true) => inheritable().map(str::to_owned).collect(),
            _ => BTreeSet::new(),
        };
    }
    let mut names = BTreeSet::new();
    for at in at.items() {
        let Some(name) = at.text() else { continue };
        if !inheritable().any(|it| it == name) {
            let all: Vec<_> = inheritable().collect();
            at.error(format!(
                "\"{name}\" cannot be inherited; {} can",
                all.join(", ")
            ));
        }
        names.insert(name);
    }
    names
}

/// What a layer is granted in its own table is not granted by Spin.
fn own_grants(layer: &Component, parts: &BTreeMap<String, Part<'_>>, at: &At<'_>) {
    if layer.granted().next().is_some() {
        let place = parts.get(&layer.id.value).map_or(at, |part| &part.at);
        place.warn(format!(
            "as middleware, {} has what it inherits of the component behind it, and nothing of this",
            layer.id.value
        ));
    }
}

fn grant(layer: &mut Component, primary: &Component, granted: &BTreeSet<String>) {
    fn pick<T: Clone + Default>(granted: bool, value: &T) -> T {
        if granted { value.clone() } else { T::default() }
    }
    let has = |name: &str| granted.contains(name);
    layer.environment = pick(has("environment"), &primary.environment);
    layer.variables = pick(has("variables"), &primary.variables);
    layer.outbound = pick(has("allowed_outbound_hosts"), &primary.outbound);
    layer.key_value_stores = pick(has("key_value_stores"), &primary.key_value_stores);
    layer.sqlite_databases = pick(has("sqlite_databases"), &primary.sqlite_databases);
    layer.files = pick(has("files"), &primary.files);
}
