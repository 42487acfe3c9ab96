//! Dependencies of a component: what satisfies its imports.

use std::path::PathBuf;

use super::manifest::remote;
use super::{Component, Source};
use crate::Placed;
use crate::section::At;
use crate::yaml::Value;

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
    /// What of its own grants a dependency has not, by the names of the manifest.
    pub fn withholds(&self, dependency: &Dependency) -> Vec<&'static str> {
        if dependency.inherits {
            return Vec::new();
        }
        [
            ("allowed_outbound_hosts", self.outbound.is_empty()),
            ("environment", self.environment.is_empty()),
            ("files", self.files.shown.is_empty()),
            ("key_value_stores", self.key_value_stores.is_empty()),
            ("sqlite_databases", self.sqlite_databases.is_empty()),
            ("variables", self.variables.is_empty()),
        ]
        .into_iter()
        .filter(|(_, none)| !none)
        .map(|(name, _)| name)
        .collect()
    }
}

/// Reads `[component.NAME.dependencies]`.
pub(super) fn read(all: &At<'_>, inherit: bool) -> Vec<Dependency> {
    let one = |(name, at): (String, At<'_>)| {
        if let Value::Scalar { .. } = at.node.value {
            at.unsupported("a version of what a registry has: none is asked; `{ path }` and `{ url, digest }` are read");
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
        let source = match (fields.get("path"), fields.get("url")) {
            (Some(path), _) => path.placed(Source::File(PathBuf::from(path.text()?))),
            (None, Some(url)) => url.placed(Source::Remote(remote(&at, &fields, &url.text()?)?)),
            (None, None) => {
                fields.let_go();
                at.unsupported("`{ path }` and `{ url, digest }` are read; no registry is asked");
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
    all.entries().into_iter().filter_map(one).collect()
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
