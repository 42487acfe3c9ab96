//! Dependencies of a component: what satisfies its imports.

use std::path::PathBuf;

use super::manifest::{Entry, remote, source};
use super::{Component, Source};
use crate::Placed;
use crate::section::At;
use crate::yaml::Value;

/// What a component may be granted here, in the order of [`Component::granted`].
pub(super) const GRANTS: [&str; 6] = [
    "allowed_outbound_hosts",
    "environment",
    "files",
    "key_value_stores",
    "sqlite_databases",
    "variables",
];

/// A component that satisfies imports of another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dependency {
    /// Which imports.
    pub imports: Placed<Imports>,
    /// Its file, relative to the manifest, or what is to be fetched.
    pub source: Placed<Source>,
    /// What of its exports they get; without it those of the imports' names.
    pub export: Option<String>,
    /// It may do what the component may that it is linked into.
    pub inherits: bool,
}

/// Imports by a name: `package:name/interface@version`, any version or all interfaces where that is left out; or a plain name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Imports(String);

impl Imports {
    /// What a manifest says.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The name as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether an import of this name is one of them.
    pub fn matches(&self, import: &str) -> bool {
        let (name, version) = versioned(&self.0);
        let (import, its_version) = versioned(import);
        let of_package = || {
            let (package, _) = import.split_once('/').unwrap_or((import, ""));
            name.contains(':') && package == name
        };
        (import == name || of_package()) && (version.is_none() || version == its_version)
    }
}

fn versioned(name: &str) -> (&str, Option<&str>) {
    match name.split_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (name, None),
    }
}

impl Component {
    /// What it is granted, by the names of the manifest.
    pub(super) fn granted(&self) -> impl Iterator<Item = &'static str> {
        let has = [
            !self.outbound.is_empty(),
            !self.environment.is_empty(),
            !self.files.shown.is_empty(),
            !self.key_value_stores.is_empty(),
            !self.sqlite_databases.is_empty(),
            !self.variables.is_empty(),
        ];
        let grants = GRANTS.into_iter().zip(has);
        grants.filter(|(_, has)| *has).map(|it| it.0)
    }

    /// What of its own grants a dependency has not.
    pub fn withholds(&self, dependency: &Dependency) -> Vec<&'static str> {
        match dependency.inherits {
            true => Vec::new(),
            false => self.granted().collect(),
        }
    }
}

/// What is said of one that has none of these, such as a version alone.
const UNREAD: &str = "`{ path }`, `{ url, digest }` and `{ component }` are read; what a registry has is not, for no registry is asked";

/// Reads `[component.NAME.dependencies]`; `all` are the components of the manifest.
pub(super) fn read(at: &At<'_>, inherit: bool, all: &[Entry<'_>]) -> Vec<Dependency> {
    let one = |(name, at): Entry<'_>| {
        if let Value::Scalar { .. } = at.node.value {
            at.unsupported(UNREAD);
            return None;
        }
        let fields = at.section();
        let export = fields.text("export");
        let inherits = fields.get("inherit_configuration");
        let inherits = inherits.map_or(Some(inherit), |at| match at.node.value {
            Value::Scalar { .. } => at.flag(),
            _ => {
                at.unsupported("a dependency inherits all or nothing: true or false");
                None
            }
        });
        let source = match ["path", "url", "component"].map(|name| fields.get(name)) {
            [Some(path), ..] => path.placed(Source::File(PathBuf::from(path.text()?))),
            [_, Some(url), _] => url.placed(Source::Remote(remote(&at, &fields, &url.text()?)?)),
            [.., Some(component)] => component.placed(of_component(&component, all)?),
            _ => {
                fields.let_go();
                at.unsupported(UNREAD);
                return None;
            }
        };
        Some(Dependency {
            imports: at.placed(Imports::new(name)),
            source,
            export,
            inherits: inherits?,
        })
    };
    at.entries().into_iter().filter_map(one).collect()
}

/// The source of the component that is named; a dependency has nothing else of one.
fn of_component(named: &At<'_>, all: &[Entry<'_>]) -> Option<Source> {
    let name = named.text()?;
    let Some((_, at)) = all.iter().find(|(id, _)| *id == name) else {
        named.error(format!("there is no [component.{name}]"));
        return None;
    };
    let fields = at.section();
    fields.let_go();
    // As templates write it, what is there may be empty.
    let has = |it: &&str| fields.get(it).is_some_and(|at| !at.is_empty());
    let lost = GRANTS.into_iter().chain(["dependencies"]);
    let lost: Vec<_> = lost.filter(has).collect();
    if !lost.is_empty() {
        named.error(format!(
            "[component.{name}] has {} of its own, which would not count: a dependency has what it inherits",
            lost.join(", ")
        ));
        return None;
    }
    source(&fields).map(|source| source.value)
}

#[cfg(test)]
mod tests {
    use super::Imports;

    #[test]
    fn names_leave_out_what_may_be_any() {
        for (name, import, want) in [
            ("a:b/c@0.1.0", "a:b/c@0.1.0", true),
            ("a:b/c", "a:b/c@0.1.0", true),
            ("a:b/c", "a:b/c", true),
            ("a:b", "a:b/c@0.1.0", true),
            ("a:b@0.1.0", "a:b/c@0.1.0", true),
            ("plain-name", "plain-name", true),
            ("a:b/c@0.1.0", "a:b/c", false),
            ("a:b/c@0.1.0", "a:b/c@0.1.1", false),
            ("a:b@0.1.0", "a:b/c@0.2.0", false),
            ("a:b/c", "a:b/cd@0.1.0", false),
            ("a:b", "a:bc/d", false),
            ("plain", "plain/x", false),
            ("plain-name", "plain", false),
        ] {
            assert_eq!(Imports::new(name).matches(import), want, "{name} {import}");
        }
    }
}
