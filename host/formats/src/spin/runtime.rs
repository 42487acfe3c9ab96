//! Spin's runtime configuration: which stores and databases there are.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::section::{At, Notes};
use crate::{Finding, tree};

/// Where a store keeps its keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Store {
    /// In a file of SQLite; without a path in that of the state folder.
    File(Option<PathBuf>),
    /// In Redis.
    Redis(String),
}

/// What a runtime configuration says.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Runtime {
    /// The folder of what is kept, if it is named.
    pub state: Option<PathBuf>,
    /// Key-value stores by their labels.
    pub stores: BTreeMap<String, Store>,
    /// Files of SQLite databases by their labels; without a path in the state folder.
    pub databases: BTreeMap<String, Option<PathBuf>>,
}

/// Reads a runtime configuration.
pub fn read(text: &str) -> (Runtime, Vec<Finding>) {
    let notes = Notes::default();
    let mut runtime = Runtime::default();
    let root = match tree::parse(text) {
        Ok(root) => root,
        Err(finding) => return (runtime, vec![finding]),
    };
    {
        let at = At {
            node: &root,
            path: String::new(),
            notes: &notes,
        };
        let root = at.section();
        root.unsupported(&["variables_provider", "variable_provider", "config_provider"]);
        if let Some(all) = root.get("key_value_store") {
            for (label, at) in all.entries() {
                if let Some(store) = store(&at) {
                    runtime.stores.insert(label, store);
                }
            }
        }
        if let Some(all) = root.get("sqlite_database") {
            for (label, at) in all.entries() {
                if let Some(path) = database(&at) {
                    runtime.databases.insert(label, path);
                }
            }
        }
        runtime.state = root.text("state_dir").map(PathBuf::from);
    }
    (runtime, notes.take())
}

fn database(at: &At<'_>) -> Option<Option<PathBuf>> {
    let database = at.section();
    let kind = database.need("type")?;
    match kind.text()?.as_str() {
        "spin" => Some(database.text("path").map(PathBuf::from)),
        other => {
            database.let_go();
            kind.unsupported(format!(
                "databases of type \"{other}\" are not supported; `spin` is"
            ));
            None
        }
    }
}

fn store(at: &At<'_>) -> Option<Store> {
    let store = at.section();
    let kind = store.need("type")?;
    match kind.text()?.as_str() {
        "spin" => Some(Store::File(store.text("path").map(PathBuf::from))),
        "redis" => Some(Store::Redis(store.need("url")?.text()?)),
        other => {
            store.let_go();
            kind.unsupported(format!(
                "stores of type \"{other}\" are not supported; `spin` and `redis` are"
            ));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_and_databases_are_read_by_their_labels() {
        let (runtime, findings) = read(
            "state_dir = \"kept\"\n\
             [key_value_store.default]\ntype = \"redis\"\nurl = \"redis://h:1\"\n[key_value_store.other]\ntype = \"spin\"\npath = \"a/b.db\"\n\
             [key_value_store.third]\ntype = \"azure_cosmos\"\nkey = \"k\"\n[llm_compute]\ntype = \"spin\"\n\
             [sqlite_database.default]\ntype = \"spin\"\n[sqlite_database.far]\ntype = \"libsql\"\nurl = \"https://h\"\n",
        );
        assert_eq!(
            runtime.stores["default"],
            Store::Redis("redis://h:1".to_owned())
        );
        assert_eq!(runtime.stores["other"], Store::File(Some("a/b.db".into())));
        assert_eq!(runtime.stores.len(), 2);
        assert_eq!(runtime.state, Some("kept".into()));
        assert_eq!(runtime.databases, [("default".to_owned(), None)].into());
        let told: Vec<_> = findings.iter().map(|it| it.path.as_str()).collect();
        assert_eq!(
            told,
            [
                "key_value_store.third.type",
                "sqlite_database.far.type",
                "llm_compute"
            ],
            "{findings:?}"
        );
    }
}
