//! `spin.toml`, for its package: what it says as it says it, with templates left to Spin.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use edgeweir_host_formats::component::made_component;
use edgeweir_host_formats::spin::Imports;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::application::{Application, Component, Trigger, Variable};
use crate::compose::{Part, compose};
use crate::link::{Dependency, link};

/// A manifest that could not become an application, and why.
#[derive(Debug)]
pub struct ManifestError(String);

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ManifestError {}

/// What was made of a manifest.
#[derive(Clone, Debug)]
pub struct Manifested {
    /// The application, its middlewares composed into its components.
    pub application: Application,
    /// What who packages should know of it.
    pub notes: Vec<String>,
}

/// Version 2 of the manifest, the part that a package holds. A field that is not here is refused by name: a package
/// without it would be another application.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    #[serde(rename = "spin_manifest_version")]
    version: u32,
    application: About,
    #[serde(default)]
    variables: BTreeMap<String, Given>,
    trigger: Triggers,
    #[serde(default)]
    component: BTreeMap<String, Source>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    name: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    description: String,
    #[serde(rename = "authors")]
    _authors: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    default: Option<String>,
    #[serde(default, rename = "required")]
    _required: bool,
    #[serde(default)]
    secret: bool,
    #[serde(rename = "description")]
    _description: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Triggers {
    http: Vec<Http>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Http {
    route: String,
    component: String,
    #[serde(default)]
    dependencies: Dependencies,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Dependencies {
    #[serde(default)]
    middleware: Vec<Middleware>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Middleware {
    component: String,
    #[serde(default)]
    inherit_configuration: Inherit,
}

/// `true`, or the names of what is inherited.
#[derive(Deserialize)]
#[serde(untagged)]
enum Inherit {
    All(bool),
    Some(Vec<String>),
}

impl Default for Inherit {
    fn default() -> Self {
        Self::All(false)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    source: PathBuf,
    #[serde(rename = "description")]
    _description: Option<String>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    #[serde(default)]
    variables: BTreeMap<String, String>,
    #[serde(default)]
    allowed_outbound_hosts: Vec<String>,
    #[serde(default)]
    key_value_stores: Vec<String>,
    #[serde(default)]
    sqlite_databases: Vec<String>,
    #[serde(default)]
    dependencies: BTreeMap<String, Depends>,
    #[serde(default)]
    dependencies_inherit_configuration: bool,
    #[serde(rename = "build")]
    _build: Option<IgnoredAny>,
}

/// A component that satisfies imports.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Depends {
    path: Option<PathBuf>,
    component: Option<String>,
    export: Option<String>,
    inherit_configuration: Option<bool>,
}

impl Source {
    /// What it is granted, by the names under which middlewares inherit.
    fn grants(&self) -> impl Iterator<Item = &'static str> {
        [
            (
                "allowed_outbound_hosts",
                self.allowed_outbound_hosts.is_empty(),
            ),
            ("environment", self.environment.is_empty()),
            ("key_value_stores", self.key_value_stores.is_empty()),
            ("sqlite_databases", self.sqlite_databases.is_empty()),
            ("variables", self.variables.is_empty()),
        ]
        .into_iter()
        .filter(|(_, empty)| !empty)
        .map(|(name, _)| name)
    }
}

/// Reads the text of a manifest and the components it names, relative to `folder`.
///
/// # Errors
/// What is wrong with the text, with its line; a field a package cannot hold; a file that cannot be read; middlewares that do
/// not fit.
pub fn read(text: &str, folder: &Path) -> Result<Manifested, ManifestError> {
    let is_other = |table: &toml::Table| !table.contains_key("spin_manifest_version");
    if text
        .parse::<toml::Table>()
        .is_ok_and(|table| is_other(&table))
    {
        return Err(ManifestError(
            "it is no Spin manifest: spin_manifest_version is not there; only `spin.toml` is packaged, and modules and components"
                .to_owned(),
        ));
    }
    let manifest: Manifest =
        toml::from_str(text).map_err(|error| ManifestError(error.to_string()))?;
    if manifest.version != 2 {
        return Err(ManifestError(format!(
            "spin_manifest_version is {}; 2 is what can be packaged",
            manifest.version
        )));
    }
    let mut reader = Reader {
        manifest: &manifest,
        folder,
        made: Vec::new(),
        components: Vec::new(),
        notes: Vec::new(),
    };
    let triggers = manifest
        .trigger
        .http
        .iter()
        .map(|trigger| {
            Ok(Trigger {
                route: trigger.route.clone(),
                component: reader.component(trigger)?,
            })
        })
        .collect::<Result<Vec<_>, ManifestError>>()?;
    let Reader {
        components, notes, ..
    } = reader;
    let variables = manifest.variables.into_iter().map(|(name, given)| {
        let variable = Variable {
            default: given.default,
            secret: given.secret,
        };
        (name, variable)
    });
    Ok(Manifested {
        application: Application {
            name: manifest.application.name,
            version: manifest.application.version,
            description: manifest.application.description,
            variables: variables.collect(),
            triggers,
            components,
        },
        notes,
    })
}

struct Reader<'a> {
    manifest: &'a Manifest,
    folder: &'a Path,
    /// What each component was made of: its own name and those before it.
    made: Vec<(&'a str, Vec<&'a str>, String)>,
    components: Vec<Component>,
    notes: Vec<String>,
}

impl<'a> Reader<'a> {
    /// The name of the component that serves a trigger; the same parts make one component once.
    fn component(&mut self, trigger: &'a Http) -> Result<String, ManifestError> {
        let own = trigger.component.as_str();
        let middlewares = &trigger.dependencies.middleware;
        let before: Vec<&str> = middlewares.iter().map(|it| it.component.as_str()).collect();
        let same = |(name, parts, _): &&(&str, Vec<&str>, String)| *name == own && *parts == before;
        if let Some((.., id)) = self.made.iter().find(same) {
            return Ok(id.clone());
        }
        let others = self.made.iter().filter(|(name, ..)| *name == own).count();
        let id = match others {
            0 => own.to_owned(),
            others => format!("{own}-{}", others + 1),
        };
        let settings = self.settings(own)?;
        self.note(own, settings, middlewares);
        let parts = before
            .iter()
            .map(|name| self.part(name, settings))
            .collect::<Result<Vec<_>, _>>()?;
        let wasm = compose(&parts, &self.part(own, settings)?)
            .map_err(|error| ManifestError(format!("trigger \"{}\": {error}", trigger.route)))?;
        self.components.push(Component {
            id: id.clone(),
            wasm,
            environment: settings.environment.clone(),
            variables: settings.variables.clone(),
            allowed_outbound_hosts: settings.allowed_outbound_hosts.clone(),
            key_value_stores: settings.key_value_stores.clone(),
            sqlite_databases: settings.sqlite_databases.clone(),
        });
        self.made.push((own, before, id.clone()));
        Ok(id)
    }

    /// Layers of one component are granted alike: who inherits less in the manifest has more in the package.
    fn note(&mut self, own: &str, settings: &Source, middlewares: &[Middleware]) {
        for middleware in middlewares {
            let lacks: Vec<&str> = settings
                .grants()
                .filter(|grant| match &middleware.inherit_configuration {
                    Inherit::All(all) => !all,
                    Inherit::Some(names) => !names.iter().any(|name| name == grant),
                })
                .collect();
            if !lacks.is_empty() {
                self.notes.push(format!(
                    "{} is composed into {own} and has its {} too, which it does not inherit in the manifest",
                    middleware.component,
                    lacks.join(", ")
                ));
            }
        }
    }

    fn settings(&self, id: &str) -> Result<&'a Source, ManifestError> {
        let names = || {
            let names: Vec<_> = self.manifest.component.keys().map(String::as_str).collect();
            names.join(", ")
        };
        self.manifest.component.get(id).ok_or_else(|| {
            ManifestError(format!(
                "there is no [component.{id}]; there are {}",
                names()
            ))
        })
    }

    /// A component with its dependencies linked in; `granted` is the one whose grants it gets.
    fn part(&self, id: &str, granted: &Source) -> Result<Part, ManifestError> {
        let settings = self.settings(id)?;
        let place = format!("component.{id}.source");
        let part = Part {
            name: id.to_owned(),
            wasm: self.file(&settings.source, &place)?,
        };
        let mut dependencies = Vec::new();
        for (name, it) in &settings.dependencies {
            let all = settings.dependencies_inherit_configuration;
            let inherits = it.inherit_configuration.unwrap_or(all);
            dependencies.push(Dependency {
                part: Part {
                    name: name.clone(),
                    wasm: self.dependency(id, name, it)?,
                },
                imports: Imports::new(name),
                export: it.export.clone(),
                withheld: match inherits {
                    true => Vec::new(),
                    false => granted.grants().collect(),
                },
            });
        }
        let linked = link(&part, &dependencies);
        let wasm = linked.map_err(|error| ManifestError(format!("component.{id}: {error}")))?;
        Ok(Part { wasm, ..part })
    }

    /// The component that satisfies imports of this name of another.
    fn dependency(&self, of: &str, name: &str, it: &Depends) -> Result<Vec<u8>, ManifestError> {
        let place = format!("component.{of}.dependencies.\"{name}\"");
        let id = match (&it.path, &it.component) {
            (Some(path), None) => return self.file(path, &format!("{place}.path")),
            (None, Some(id)) => id,
            _ => {
                return Err(ManifestError(format!(
                    "{place}: it needs a path or a component"
                )));
            }
        };
        let settings = self.settings(id)?;
        if settings.grants().next().is_some() || !settings.dependencies.is_empty() {
            return Err(ManifestError(format!(
                "{place}: [component.{id}] has grants or dependencies of its own, which would not count: a dependency has what it \
                 inherits"
            )));
        }
        self.file(&settings.source, &format!("component.{id}.source"))
    }

    fn file(&self, file: &Path, place: &str) -> Result<Vec<u8>, ManifestError> {
        let file = self.folder.join(file);
        let wasm = std::fs::read(&file).map_err(|error| {
            ManifestError(format!(
                "{place}: {} cannot be read: {error}",
                file.display()
            ))
        })?;
        made_component(wasm)
            .map_err(|error| ManifestError(format!("{place}: {}: {error}", file.display())))
    }
}
