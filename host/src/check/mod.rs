//! `edgeweir check`: what is wrong with a configuration, or could be better, before a request has gone through it.

mod facts;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use edgeweir_host_formats::{Finding, Level, lint, settings};
use edgeweir_host_launch::Exit;
use serde_json::{Value, json};

use crate::config::{Config, ConfigError, Options, Source};
use crate::host::Prepared;
use crate::schema;
use crate::sources;

/// Arguments of `check`.
#[derive(clap::Args, Debug)]
pub struct Check {
    /// The configuration: edgeweir.toml, an Envoy bootstrap (YAML or JSON) or a Spin manifest (spin.toml).
    pub file: PathBuf,
    /// Everything as JSON.
    #[arg(long)]
    pub json: bool,
    /// Do not start the filters: only read files. Faster; what a filter itself says of its configuration is not heard.
    #[arg(long)]
    pub no_load: bool,
    /// Envoy bootstraps and Spin manifests: what they ask for and this host does not have is a warning, not an error.
    #[arg(long)]
    pub lenient: bool,
    /// Spin manifests alone: the value of a variable; also SPIN_VARIABLE_NAME in the environment.
    #[arg(long, value_name = "NAME=VALUE", value_parser = crate::cli::variable)]
    pub variable: Vec<(String, String)>,
    /// Spin manifests alone: their stores and databases, a runtime configuration as `spin up` takes it.
    #[arg(long, value_name = "FILE")]
    pub runtime_config_file: Option<PathBuf>,
}

/// A finding in its file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// The file.
    pub file: PathBuf,
    /// Line and column; `None` when it is the file as a whole.
    pub place: Option<(usize, usize)>,
    /// How bad, what, where, and what to do.
    pub finding: Finding,
}

/// Checks a file; what was found, the worst first within a line's order.
pub async fn check(arguments: &Check) -> Vec<Found> {
    let options = Options {
        lenient: arguments.lenient,
        runtime_config: arguments.runtime_config_file.clone(),
        variables: arguments.variable.clone(),
        // All that is wrong is told, not the first alone.
        keep_going: true,
        ..Options::default()
    };
    let (config, mut found) = match Config::read_with(&arguments.file, &options) {
        Ok(config) => {
            // What is not to be loaded is neither fetched nor linked.
            let fetched = match arguments.no_load {
                true => Ok(()),
                false => sources::make_ready(&config).await,
            };
            let mut found = looked_at(&config, &options);
            if let Err(error) = fetched {
                found.push(of_error(&arguments.file, &error));
            }
            (Some(config), found)
        }
        Err(error) => (None, vec![of_config_error(&error)]),
    };
    let broken = found
        .iter()
        .any(|it| it.finding.level >= Level::Unsupported);
    if let Some(config) = config
        && !arguments.no_load
        && !broken
        && let Err(error) = Prepared::checked(config).await
    {
        found.push(of_error(&arguments.file, &error));
    }
    found.sort_by_key(|it| (it.place, std::cmp::Reverse(it.finding.level)));
    found
}

/// What is unwise in the chains of a configuration that is good, a line each.
pub fn unwise(config: &Config) -> Vec<String> {
    let (filters, chains) = facts::of(config);
    let mut findings = lint::chains(&filters, &chains);
    findings.retain(|finding| finding.level >= Level::Warning);
    let placed = findings.into_iter().map(|it| placed(&config.source, it));
    placed.map(|found| found.to_text()).collect()
}

fn looked_at(config: &Config, options: &Options) -> Vec<Found> {
    let mut findings = config.notes.clone();
    let (filters, chains) = facts::of(config);
    findings.extend(lint::chains(&filters, &chains));
    for (facts, schema) in filters.iter().zip(facts::schemas(config, &filters)) {
        let Some(schema) = schema else { continue };
        if facts.config.is_null() {
            continue;
        }
        if let Err(mismatch) = schema::check(&schema, &facts.config) {
            findings.push(Finding {
                level: Level::Error,
                code: "option",
                path: match mismatch.field.as_str() {
                    "" => format!("{}.config", facts.path),
                    field => format!("{}.config.{field}", facts.path),
                },
                span: facts.config_span.clone(),
                message: settings::unreadable(&facts.config).unwrap_or_else(|| {
                    format!(
                        "{}; `edgeweir inspect --schema` of the module says what there is",
                        mismatch.message
                    )
                }),
            });
        }
    }
    for finding in &mut findings {
        exact(config, &filters, finding);
    }
    findings.extend(facts::unreadable(config));
    findings.extend(facts::elsewhere(config));
    findings.extend(routes(config, &filters));
    for finding in &mut findings {
        if finding.level == Level::Unsupported && options.lenient {
            finding.level = Level::Warning;
        }
    }
    findings
        .into_iter()
        .map(|it| placed(&config.source, it))
        .collect()
}

/// What is said of a field of a filter's configuration stands where the field does.
fn exact(config: &Config, filters: &[lint::Facts], finding: &mut Finding) {
    let of = filters.iter().find_map(|facts| {
        let below = finding.path.strip_prefix(&facts.path)?;
        Some((facts, below.strip_prefix(".config.")?))
    });
    if let Some((facts, field)) = of
        && finding.span == facts.config_span
    {
        finding.span = config.source.below(finding.span.clone(), field);
    }
}

/// Routes that nothing reaches, and upstreams that nothing goes to.
fn routes(config: &Config, filters: &[lint::Facts]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut used = std::collections::BTreeSet::new();
    for (index, listener) in config.listeners.iter().enumerate() {
        for host in &listener.ways.virtual_hosts {
            // What a listener's own upstream adds at the end takes all, and has nothing behind it.
            if let Some(at) = lint::unreachable(&host.routes) {
                let span = listener
                    .routes
                    .get(at)
                    .and_then(|route| route.name.as_ref())
                    .map_or(listener.name.span(), toml::Spanned::span);
                let own = listener.upstream.is_some() && at == listener.routes.len();
                if !own {
                    findings.push(Finding {
                        level: Level::Warning,
                        code: "unreachable-route",
                        path: format!("listener[{index}].route[{at}]"),
                        span,
                        message: format!(
                            "the route before it in {} takes every request: put it in front of that one",
                            host.name
                        ),
                    });
                }
            }
            for (_, way) in &host.routes {
                if let edgeweir_host_formats::action::Action::Forward(to) = &way.action {
                    used.extend(to.iter().map(|(_, name)| name.value.clone()));
                }
            }
        }
    }
    let reached = |name: &str| {
        // A module may send requests to it.
        filters
            .iter()
            .any(|facts| !facts.component && names(&facts.config, name))
    };
    for name in config.upstreams.keys() {
        if !used.contains(name) && !reached(name) {
            findings.push(Finding {
                level: Level::Advice,
                code: "unused-upstream",
                path: format!("upstream.{name}"),
                span: config.source.place_of(&["upstream", name]).unwrap_or(0..0),
                message: format!(
                    "no route leads to \"{name}\" and no filter names it: take it out"
                ),
            });
        }
    }
    findings
}

/// Whether a text of a configuration has this name in it, as a word: not as a part of a longer name.
fn names(config: &Value, name: &str) -> bool {
    let of_a_name = |letter: char| letter.is_alphanumeric() || "-_.".contains(letter);
    let has = |text: &str| {
        text.match_indices(name).any(|(at, _)| {
            let before = text[..at].chars().next_back();
            let after = text[at + name.len()..].chars().next();
            !before.is_some_and(of_a_name) && !after.is_some_and(of_a_name)
        })
    };
    match config {
        Value::String(text) => has(text),
        Value::Array(all) => all.iter().any(|it| names(it, name)),
        Value::Object(fields) => fields.iter().any(|(key, it)| has(key) || names(it, name)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn placed(source: &Source, finding: Finding) -> Found {
    let place = finding.place(&source.text);
    Found {
        file: source.file.clone(),
        place: place.map(|place| (place.line, place.column)),
        finding,
    }
}

fn of_config_error(error: &ConfigError) -> Found {
    Found {
        file: error.file.clone(),
        place: error.place,
        finding: Finding {
            level: Level::Error,
            code: "invalid",
            path: error.field.clone(),
            span: 0..0,
            message: error.message.clone(),
        },
    }
}

fn of_error(file: &Path, error: &anyhow::Error) -> Found {
    if let Some(error) = error.downcast_ref::<ConfigError>() {
        let mut found = of_config_error(error);
        found.finding.code = "load";
        return found;
    }
    Found {
        file: file.to_owned(),
        place: None,
        finding: Finding {
            level: Level::Error,
            code: "load",
            path: String::new(),
            span: 0..0,
            message: format!("{error:#}"),
        },
    }
}

impl Found {
    /// `file:line:column: level[code]: in \`field\`: what it is and what to do`.
    pub fn to_text(&self) -> String {
        let Finding {
            level,
            code,
            path,
            message,
            ..
        } = &self.finding;
        let mut text = self.file.display().to_string();
        if let Some((line, column)) = self.place {
            let _ = write!(text, ":{line}:{column}");
        }
        let _ = write!(text, ": {}[{code}]: ", level.name());
        if !path.is_empty() {
            let _ = write!(text, "in `{path}`: ");
        }
        text.push_str(message);
        text
    }

    fn to_json(&self) -> Value {
        json!({
            "level": self.finding.level.name(),
            "code": self.finding.code,
            "file": self.file.display().to_string(),
            "line": self.place.map(|(line, _)| line),
            "column": self.place.map(|(_, column)| column),
            "field": self.finding.path,
            "message": self.finding.message,
        })
    }
}

/// The exit code: 0 nothing, or advice alone; 1 warnings; 2 errors.
pub fn code(found: &[Found]) -> u8 {
    match found.iter().map(|it| it.finding.level).max() {
        None | Some(Level::Advice) => 0,
        Some(Level::Warning) => 1,
        Some(Level::Unsupported | Level::Error) => 2,
    }
}

/// Checks and tells; an error carries the exit code.
pub async fn execute(arguments: &Check) -> anyhow::Result<String> {
    let found = check(arguments).await;
    let count = |level: &str| {
        let of_level = found.iter().filter(|it| it.finding.level.name() == level);
        of_level.count()
    };
    let (errors, warnings, advice) = (count("error"), count("warning"), count("advice"));
    let text = if arguments.json {
        let all: Vec<Value> = found.iter().map(Found::to_json).collect();
        format!("{:#}\n", Value::from(all))
    } else {
        let mut text = String::new();
        for it in &found {
            let _ = writeln!(text, "{}", it.to_text());
        }
        text
    };
    let summary = format!(
        "{}: {errors} error(s), {warnings} warning(s), {advice} piece(s) of advice",
        arguments.file.display()
    );
    match code(&found) {
        0 if arguments.json => Ok(text),
        0 => Ok(format!("{text}{summary}\n")),
        code => {
            crate::cli::say(&text);
            Err(Exit::new(code, summary).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_longer_name_names_no_upstream() {
        for (config, want) in [
            (json!({ "l3": { "to": "api" } }), true),
            (json!({ "clusters": { "api": [] } }), true),
            (json!(["a", "http://api/v1"]), true),
            (json!("outbound|80||api"), true),
            (json!({ "key": [{ "header": "x-api-key" }] }), false),
            (json!({ "rules": [{ "name": "rapid" }] }), false),
            (json!("api.example"), false),
            (json!(null), false),
        ] {
            assert_eq!(names(&config, "api"), want, "{config}");
        }
    }
}
