//! Spin's manifest (`spin.toml`, version 2) and its runtime configuration, as far as HTTP triggers have a meaning here.

mod dependency;
mod manifest;
mod runtime;
mod template;

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::outbound::Outbound;
use crate::remote::Remote;
use crate::route::Segments;
use crate::{Finding, Placed};

pub use dependency::{Dependency, Imports};
pub use runtime::{Runtime, Store, read as read_runtime};

/// An application.
#[derive(Clone, Default, Debug)]
pub struct Application {
    /// Its name.
    pub name: String,
    /// Its routes, the most particular first.
    pub triggers: Vec<Trigger>,
    /// What its own components reach at `http://ID.spin.internal`: one for each that has a trigger, also a private one.
    pub services: Vec<Service>,
}

/// A route and the component that answers it, behind others.
#[derive(Clone, Debug)]
pub struct Trigger {
    /// The route as it is written, with the base before it.
    pub route: Placed<String>,
    /// The same, read.
    pub pattern: Segments,
    /// Who answers.
    pub service: Service,
}

/// A component behind its middleware.
#[derive(Clone, Debug)]
pub struct Service {
    /// The component that answers.
    pub component: Component,
    /// Those before it, outermost first.
    pub middleware: Vec<Component>,
}

/// A component with what it is granted: middleware has what it inherits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Component {
    /// Its name in the manifest.
    pub id: Placed<String>,
    /// Its file, relative to the manifest, or what is to be fetched.
    pub source: Placed<Source>,
    /// Its environment.
    pub environment: BTreeMap<String, String>,
    /// Its variables.
    pub variables: BTreeMap<String, String>,
    /// Whom it may reach.
    pub outbound: Vec<Outbound>,
    /// Labels of the stores it may open.
    pub key_value_stores: Vec<Placed<String>>,
    /// Labels of the databases it may open.
    pub sqlite_databases: Vec<Placed<String>>,
    /// Files it may read.
    pub files: Files,
    /// What satisfies imports of its own.
    pub dependencies: Vec<Dependency>,
}

/// Where a component is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// Somewhere else.
    Remote(Remote),
}

/// Files of the application that a component may read.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Files {
    /// What it is shown.
    pub shown: Vec<Placed<Shown>>,
    /// Patterns of what it is not, of paths from the manifest's folder.
    pub hidden: Vec<Placed<String>>,
}

/// Some files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Shown {
    /// A file, a folder with all below it, or what a pattern matches, each at its own path from the manifest's folder.
    InPlace(String),
    /// A file or folder at another path.
    Elsewhere {
        /// Relative to the manifest.
        source: String,
        /// What the component sees.
        destination: String,
    },
}

/// Reads a manifest; `given` are the values of variables (`SPIN_VARIABLE_…` and `--variable`), by their names.
pub fn read(text: &str, given: &BTreeMap<String, String>) -> (Application, Vec<Finding>) {
    manifest::read(text, given)
}

/// Before the name of a variable in an environment.
pub const VARIABLES: &str = "SPIN_VARIABLE_";

/// The variables that an environment sets: `SPIN_VARIABLE_NAME=value`.
pub fn variables_of(
    environment: impl Iterator<Item = (String, String)>,
) -> BTreeMap<String, String> {
    environment
        .filter_map(|(name, value)| {
            let name = name.strip_prefix(VARIABLES)?;
            Some((name.to_ascii_lowercase(), value))
        })
        .collect()
}

/// What is said of a name that no variable can have.
pub const VARIABLE: &str = "the name of a variable has small letters and digits, begins with a letter, and its words are apart by one `_`";

/// Whether a variable can have the name, in the manifest and where a component asks for it.
pub fn is_variable(name: &str) -> bool {
    let word = |word: &str| {
        !word.is_empty()
            && word
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    name.starts_with(|c: char| c.is_ascii_lowercase()) && name.split('_').all(word)
}

#[cfg(test)]
mod tests {
    use super::is_variable;

    #[test]
    fn names_of_variables_are_spins() {
        for (name, want) in [
            ("a", true),
            ("a1b2", true),
            ("a_1", true),
            ("a_b_c", true),
            ("", false),
            ("1a", false),
            ("_a", false),
            ("a_", false),
            ("a__b", false),
            ("A", false),
            ("aB", false),
            ("a-b", false),
            ("a.b", false),
        ] {
            assert_eq!(is_variable(name), want, "{name}");
        }
    }
}
