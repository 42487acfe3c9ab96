//! Components that satisfy what another imports, made into one with it.

use std::collections::BTreeMap;

use edgeweir_host_formats::spin::Imports;

use crate::compose::{ComposeError, Part};
use crate::graph::{Graph, Instance, wrong};

/// Interfaces through which a component uses what it is granted, by the name of the grant. One that ends in `/` is a package.
const THROUGH: [(&str, &[&str]); 6] = [
    (
        "allowed_outbound_hosts",
        &[
            "wasi:http/outgoing-handler",
            "wasi:http/client",
            "wasi:http/handler",
            "wasi:sockets/",
            "fermyon:spin/http",
            "fermyon:spin/mqtt",
            "fermyon:spin/mysql",
            "fermyon:spin/postgres",
            "fermyon:spin/redis",
            "spin:mqtt/",
            "spin:mysql/",
            "spin:postgres/",
            "spin:redis/",
        ],
    ),
    ("environment", &["wasi:cli/environment"]),
    ("files", &["wasi:filesystem/preopens"]),
    (
        "key_value_stores",
        &[
            "fermyon:spin/key-value",
            "spin:key-value/",
            "wasi:keyvalue/",
        ],
    ),
    ("sqlite_databases", &["fermyon:spin/sqlite", "spin:sqlite/"]),
    (
        "variables",
        &[
            "fermyon:spin/config",
            "fermyon:spin/variables",
            "spin:variables/",
            "wasi:config/",
        ],
    ),
];

/// A component that satisfies imports of another.
#[derive(Clone, Debug)]
pub struct Dependency {
    /// The component.
    pub part: Part,
    /// The imports.
    pub imports: Imports,
    /// What they get of its exports; without it those of the same names.
    pub export: Option<String>,
    /// Names of what the other is granted and this is not: see [`link`].
    pub withheld: Vec<&'static str>,
}

/// One component that is `component` with its `dependencies` in the places of imports, and exports what it exports.
///
/// What they import is imported once by the whole, which has the grants of `component`. Of what is withheld a dependency sees an
/// environment in which nothing is set, and no folders; one that could use another of these grants makes no whole.
///
/// # Errors
/// A part that is no component; a dependency that no import is of, that does not export what is imported, or not of its type, that
/// shares an import with another, or that imports what is withheld: by its name.
pub fn link(component: &Part, dependencies: &[Dependency]) -> Result<Vec<u8>, ComposeError> {
    if dependencies.is_empty() {
        return Ok(component.wasm.clone());
    }
    let mut graph = Graph::default();
    let whole = graph.add(component)?;
    let imports = graph.imports(whole);
    let mut taken: BTreeMap<&str, &str> = BTreeMap::new();
    for dependency in dependencies {
        let name = dependency.part.name.as_str();
        let matched = imports.iter().filter(|it| dependency.imports.matches(it));
        let matched: Vec<&String> = matched.collect();
        if matched.is_empty() {
            let (of, all) = (&component.name, listed(&imports));
            let why = format!("{of} imports nothing of this name; it imports {all}");
            return Err(wrong(name, why));
        }
        let instance = graph.add(&dependency.part)?;
        withhold(&mut graph, instance, dependency)?;
        let exports = graph.exports(instance);
        for import in matched {
            if let Some(other) = taken.insert(import, name) {
                let why = format!("{import} is satisfied by {other} already");
                return Err(wrong(name, why));
            }
            let export = dependency.export.as_ref().unwrap_or(import);
            if !exports.contains(export) {
                let all = listed(&exports);
                let why = format!("it does not export {export}; it exports {all}");
                return Err(wrong(name, why));
            }
            graph.connect((instance, export), (whole, import), name)?;
        }
    }
    let exports = graph.exports(whole);
    graph.encode(whole, &exports)
}

fn listed(names: &[String]) -> String {
    match names {
        [] => "nothing".to_owned(),
        names => names.join(", "),
    }
}

/// Keeps from a dependency what it does not inherit.
fn withhold(graph: &mut Graph, instance: Instance, of: &Dependency) -> Result<(), ComposeError> {
    let name = of.part.name.as_str();
    for import in graph.imports(instance) {
        let Some(grant) = of.withheld.iter().find(|it| leads_to(&import, it)) else {
            continue;
        };
        let Some(nothing) = nothing(&import) else {
            let why = format!(
                "it imports {import} and does not inherit {grant}: set `dependencies_inherit_configuration = true`, or have this \
                 done by a component without {grant}"
            );
            return Err(wrong(name, why));
        };
        let empty = graph.add(&Part {
            name: import.clone(),
            wasm: wat::parse_str(nothing).map_err(|error| wrong(name, error.to_string()))?,
        })?;
        graph.connect((empty, &import), (instance, &import), name)?;
    }
    Ok(())
}

/// Whether what is granted is used through an interface.
fn leads_to(import: &str, grant: &str) -> bool {
    let interface = import.split('@').next().unwrap_or(import);
    THROUGH
        .iter()
        .filter(|(name, _)| *name == grant)
        .flat_map(|(_, through)| through.iter())
        .any(|through| match through.ends_with('/') {
            true => interface.starts_with(through),
            false => interface == *through,
        })
}

/// A component that exports this interface of WASI, and has nothing to give.
fn nothing(interface: &str) -> Option<String> {
    let (name, version) = interface.split_once('@')?;
    // All functions give what zeroes mean: a list without items, or nothing of what may be.
    let shared = r#"
        (core module $zeroes (memory (export "memory") 1) (func (export "zero") (result i32) (i32.const 0)))
        (core instance $zeroes (instantiate $zeroes))
        (alias core export $zeroes "memory" (core memory $memory))
        (alias core export $zeroes "zero" (core func $zero))"#;
    match name {
        "wasi:cli/environment" => Some(format!(
            r#"(component {shared}
                (func $variables (result (list (tuple string string))) (canon lift (core func $zero) (memory $memory)))
                (func $arguments (result (list string)) (canon lift (core func $zero) (memory $memory)))
                (func $folder (result (option string)) (canon lift (core func $zero) (memory $memory)))
                (instance (export "{interface}")
                    (export "get-environment" (func $variables))
                    (export "get-arguments" (func $arguments))
                    (export "initial-cwd" (func $folder))
                    (export "get-initial-cwd" (func $folder))))"#
        )),
        "wasi:filesystem/preopens" => Some(format!(
            r#"(component
                (import "wasi:filesystem/types@{version}" (instance $types (export "descriptor" (type (sub resource)))))
                (alias export $types "descriptor" (type $descriptor)) {shared}
                (func $folders (result (list (tuple (own $descriptor) string))) (canon lift (core func $zero) (memory $memory)))
                (instance (export "{interface}")
                    (export "descriptor" (type $descriptor))
                    (export "get-directories" (func $folders))))"#
        )),
        _ => None,
    }
}
