//! Spin's runtime configuration: which stores there are.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::section::{At, Notes};
use crate::{Finding, tree};

/// Where a store keeps its keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Store {
    /// In a file; in the host's own place without one.
    File(Option<PathBuf>),
    /// In Redis.
    Redis(String),
}

/// Reads a runtime configuration: stores by their labels.
pub fn read(text: &str) -> (BTreeMap<String, Store>, Vec<Finding>) {
    let notes = Notes::default();
    let mut stores = BTreeMap::new();
    let root = match tree::parse(text) {
        Ok(root) => root,
        Err(finding) => return (stores, vec![finding]),
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
                    stores.insert(label, store);
                }
            }
        }
    }
    (stores, notes.take())
}

fn store(at: &At<'_>) -> Option<Store> {
    let store = at.section();
    let kind = store.need("type")?;
    match kind.text()?.as_str() {
        "spin" => {
            let path = store.text("path").map(PathBuf::from);
            // SQLite's file is not this host's: it gets one beside it.
            Some(Store::File(path.map(|path| path.with_extension("redb"))))
        }
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
    fn stores_are_read_by_their_labels() {
        let (stores, findings) = read(
            "[key_value_store.default]\ntype = \"redis\"\nurl = \"redis://h:1\"\n[key_value_store.other]\ntype = \"spin\"\npath = \"a/b.db\"\n\
             [key_value_store.third]\ntype = \"azure_cosmos\"\nkey = \"k\"\n[llm_compute]\ntype = \"spin\"\n",
        );
        assert_eq!(stores["default"], Store::Redis("redis://h:1".to_owned()));
        assert_eq!(stores["other"], Store::File(Some("a/b.redb".into())));
        assert_eq!(stores.len(), 2);
        let told: Vec<_> = findings.iter().map(|it| it.path.as_str()).collect();
        assert_eq!(
            told,
            ["key_value_store.third.type", "llm_compute"],
            "{findings:?}"
        );
    }
}
