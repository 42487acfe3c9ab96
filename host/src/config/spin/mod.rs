//! A Spin manifest as a configuration of this host.
//!
//! A component is a filter; as middleware it is one for each component behind it, with what it inherits of that one. The
//! component of a route stands at the end of its chain and has nothing behind it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use edgeweir_host_formats::action::{Action, Edits, Respond};
use edgeweir_host_formats::remote::Remote;
use edgeweir_host_formats::route::{HostPattern, Match, PathMatch, VirtualHost};
use edgeweir_host_formats::spin::{self, Application, Component, Runtime, Service, Store};
use edgeweir_host_formats::written::{choices, meant};
use edgeweir_host_formats::{Finding, Level};
use http::StatusCode;
use toml::Spanned;

use crate::sources::{linked_place, place};

use super::{
    Address, Config, ConfigError, Filter, Grants, Link, Linked, Listener, Options, Source, Way,
    Ways, text_of,
};

/// Where `spin up` listens.
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 3000);
/// The store there always is.
const DEFAULT: &str = "default";
/// Before the name of a variable that the command line gives.
const OPTION: &str = "--variable ";

/// Reads a manifest, and the runtime configuration if there is one.
pub(super) fn parse(file: &Path, text: String, options: &Options) -> Result<Config, ConfigError> {
    // What does not come as text is no value of a variable.
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let mut given = spin::variables_of(environment);
    let variables = given_by(given.keys(), options);
    given.extend(options.variables.iter().cloned());
    let (application, findings) = spin::read(&text, &given);
    let source = Source {
        file: file.to_owned(),
        text,
    };
    let mut config = Config::bare(source, findings);
    config.given.variables = variables;
    config.given.state_dir = options.state_dir.is_some();
    check_variables(&mut config)?;
    let mut runtime = match &options.runtime_config {
        Some(file) => {
            let (runtime, source) = runtime(file, options)?;
            config.given.runtime = Some(source);
            runtime
        }
        None => Runtime::default(),
    };
    if options.state_dir.is_some() {
        runtime.state.clone_from(&options.state_dir);
    }
    keep(runtime, &mut config);
    if options.refuses(&config.notes) {
        return Err(options.refusal(&config));
    }
    translate(&application, &mut config, options);
    if options.refuses(&config.notes) {
        return Err(options.refusal(&config));
    }
    Ok(config)
}

/// Who gives which variable: an option goes before the environment.
fn given_by<'a>(
    environment: impl Iterator<Item = &'a String>,
    options: &Options,
) -> BTreeMap<String, String> {
    let variable = |name: &String| {
        let upper = name.to_ascii_uppercase();
        (name.clone(), format!("{}{upper}", spin::VARIABLES))
    };
    let mut all: BTreeMap<String, String> = environment.map(variable).collect();
    let option = |(name, _): &(String, String)| (name.clone(), format!("{OPTION}{name}"));
    all.extend(options.variables.iter().map(option));
    all
}

/// A value for a variable that the manifest does not have would be lost: an error of the command line, and a warning of
/// the environment, which other applications may have set.
fn check_variables(config: &mut Config) -> Result<(), ConfigError> {
    // What is no TOML is refused for that.
    let Some(there) = config.source.names_in("variables") else {
        return Ok(());
    };
    for (name, by) in &config.given.variables {
        if there.contains(name) {
            continue;
        }
        let mut message = format!(
            "there is no variable `{name}` in [variables]; there {}",
            choices(&there)
        );
        if let Some(meant) = meant(name, there.iter().map(String::as_str)) {
            message.push_str(&format!(": `{meant}` may be meant"));
        }
        if by.starts_with(OPTION) {
            return Err(ConfigError::option(&config.source.file, by, message));
        }
        config.notes.push(Finding {
            level: Level::Warning,
            code: "variable",
            path: by.clone(),
            span: 0..0,
            message,
        });
    }
    Ok(())
}

/// A runtime configuration; the files it names are beside it.
fn runtime(file: &Path, options: &Options) -> Result<(Runtime, Source), ConfigError> {
    let text = text_of(file)?;
    let (mut runtime, findings) = spin::read_runtime(&text);
    let source = Source {
        file: file.to_owned(),
        text,
    };
    for finding in &findings {
        if options.is_fatal(finding) {
            let (span, path) = (finding.span.clone(), &finding.path);
            return Err(ConfigError::at(
                &source,
                span,
                path,
                finding.message.clone(),
            ));
        }
        tracing::warn!("{}: {}: {}", file.display(), finding.path, finding.message);
    }
    // An absolute path is what it was.
    let folder = file.parent().unwrap_or(Path::new(""));
    let stores = runtime.stores.values_mut().filter_map(|it| match it {
        Store::File(path) => path.as_mut(),
        Store::Redis(_) => None,
    });
    let databases = runtime.databases.values_mut().flatten();
    for path in stores.chain(databases).chain(&mut runtime.state) {
        *path = folder.join(&*path);
    }
    Ok((runtime, source))
}

/// Puts what has no file of its own where Spin has it in its state folder, and into none without one.
fn keep(runtime: Runtime, config: &mut Config) {
    let in_state = |name: &str| runtime.state.as_ref().map(|folder| folder.join(name));
    config.stores = runtime.stores;
    config.databases = runtime.databases;
    if let Some(file) = in_state("sqlite_key_value.db") {
        let default = config.stores.entry(DEFAULT.to_owned());
        default.or_insert(Store::File(None));
        for store in config.stores.values_mut() {
            if let Store::File(path) = store {
                path.get_or_insert_with(|| file.clone());
            }
        }
    }
    config.databases.entry(DEFAULT.to_owned()).or_default();
    for database in config.databases.values_mut() {
        *database = database.take().or_else(|| in_state("sqlite_db.db"));
    }
}

fn translate(application: &Application, config: &mut Config, options: &Options) {
    let mut chain = |service: &Service| {
        let mut filters = Vec::new();
        for layer in &service.middleware {
            let behind = Some(&service.component);
            filters.push(add(config, layer, behind));
        }
        filters.push(add(config, &service.component, None));
        filters
    };
    let services = application.services.iter();
    let services = services.map(|it| (it.component.id.value.clone(), chain(it)));
    let services = services.collect();
    let mut routes = Vec::new();
    for trigger in &application.triggers {
        let filters = chain(&trigger.service);
        let way = Way {
            name: trigger.route.value.clone(),
            // Reached only by a component that hands its request on, though nothing is behind it.
            action: Action::Respond(Respond {
                status: StatusCode::NOT_FOUND,
                body: String::new(),
            }),
            edits: Edits::default(),
            filters,
            spin: Some(trigger.route.value.clone()),
        };
        let wanted = Match {
            path: PathMatch::Segments(trigger.pattern.clone()),
            ..Match::default()
        };
        routes.push((wanted, way));
    }
    let name = match application.name.as_str() {
        "" => "spin",
        name => name,
    };
    let unplaced = |value| Spanned::new(0..0, value);
    let listen = Spanned::new(0..0, Address(options.listen.unwrap_or(LISTEN)));
    let name = unplaced(name.to_owned());
    config.listeners.push(Listener {
        upstream: None,
        forwarded_for: false,
        ways: Ways {
            virtual_hosts: vec![VirtualHost {
                name: name.get_ref().clone(),
                domains: vec![HostPattern::Any],
                routes,
            }],
            ignore_port: false,
            filters: Vec::new(),
            services,
        },
        ..Listener::plain(name, listen, unplaced(String::new()), Vec::new())
    });
}

/// A component with its dependencies, if it has any.
fn link(
    component: &Component,
    file: &Path,
    located: &impl Fn(&spin::Source) -> (PathBuf, Option<Remote>),
) -> Option<Link> {
    let dependencies = component.dependencies.iter().map(|it| {
        let (file, remote) = located(&it.source.value);
        Linked {
            imports: it.imports.clone(),
            file,
            remote,
            export: it.export.clone(),
            withheld: component.withholds(it),
        }
    });
    let dependencies: Vec<_> = dependencies.collect();
    (!dependencies.is_empty()).then(|| Link {
        component: file.to_owned(),
        dependencies,
    })
}

/// Adds a component as a filter and gives its name.
fn add(config: &mut Config, component: &Component, behind: Option<&Component>) -> Spanned<String> {
    let folder = config.source.file.parent().unwrap_or(Path::new(""));
    // As Spin: a source is relative to the manifest, wherever one stands.
    let located = |source: &spin::Source| match source {
        spin::Source::File(file) => (folder.join(file), None),
        spin::Source::Remote(remote) => (place(remote), Some(remote.clone())),
    };
    let (module, remote) = located(&component.source.value);
    let link = link(component, &module, &located);
    let module = match &link {
        Some(link) => linked_place(&config.source.file, link),
        None => module,
    };
    let mut filter = Filter::of(module);
    filter.remote = remote;
    filter.link = link;
    filter.module = Spanned::new(component.source.span.clone(), filter.module.into_inner());
    let place = || component.id.span.clone();
    if !component.environment.is_empty() {
        filter.environment = Some(Spanned::new(place(), component.environment.clone()));
    }
    if !component.variables.is_empty() {
        filter.variables = Some(Spanned::new(place(), component.variables.clone()));
    }
    filter.grants = Some(Grants {
        outbound: component.outbound.clone(),
        stores: component
            .key_value_stores
            .iter()
            .map(|label| label.value.clone())
            .collect(),
        databases: component
            .sqlite_databases
            .iter()
            .map(|label| label.value.clone())
            .collect(),
        files: component.files.clone(),
    });
    let stores = component.key_value_stores.iter();
    let stores = stores.filter(|it| it.value != DEFAULT && !config.stores.contains_key(&it.value));
    let stores = stores.map(|it| (it, "key_value_stores", "store", "key_value_store"));
    let databases = component.sqlite_databases.iter();
    let databases = databases.filter(|it| !config.databases.contains_key(&it.value));
    let databases = databases.map(|it| (it, "sqlite_databases", "database", "sqlite_database"));
    for (label, field, kind, section) in stores.chain(databases) {
        let finding = Finding {
            level: Level::Error,
            code: "missing-store",
            path: format!("component.{}.{field}", component.id.value),
            span: label.span.clone(),
            message: format!(
                "there is no {kind} \"{}\": `--runtime-config-file` names a file with a [{section}.{}]",
                label.value, label.value
            ),
        };
        if !config.notes.contains(&finding) {
            config.notes.push(finding);
        }
    }
    let id = &component.id.value;
    let mut name = id.clone();
    if let Some(behind) = behind
        && config
            .filters
            .get(id)
            .is_some_and(|there| !super::same(there, &filter))
    {
        name = format!("{id}@{}", behind.id.value);
    }
    config.filters.insert(name.clone(), filter);
    Spanned::new(place(), name)
}
