//! What Spin offers its components, in the interfaces of its versions: `spin:…@3.0.0` of Spin 4, `fermyon:spin@2.0.0` of Spin 2
//! and 3, and the drafts of WASI that both have.

/// How an interface says why a store is not opened: the same in each, and each has a type of its own for it.
macro_rules! not_opened {
    ($error:ty) => {
        impl From<super::NotOpened> for $error {
            fn from(why: super::NotOpened) -> Self {
                match why {
                    super::NotOpened::Denied => Self::AccessDenied,
                    super::NotOpened::Unknown => Self::NoSuchStore,
                    super::NotOpened::Failed(why) => Self::Other(why),
                }
            }
        }
    };
}

pub(crate) mod absent;
mod config;
mod current;
mod databases;
mod keyvalue;
mod older;
mod older_redis;
mod redis;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use edgeweir_host_formats::spin::{VARIABLE, is_variable};
use wasmtime::component::{HasData, Linker, Resource};

use crate::context::Guest;
use crate::stores::Stores;

/// What there is for components.
pub(crate) const OFFERED: [&str; 11] = [
    "fermyon:spin/key-value@2.",
    // Types alone.
    "fermyon:spin/rdbms-types@2.",
    "fermyon:spin/redis@2.",
    "fermyon:spin/sqlite@2.",
    "fermyon:spin/variables@2.",
    "spin:key-value/key-value@3.0.0",
    "spin:redis/redis@3.0.0",
    "spin:sqlite/sqlite@3.",
    "spin:variables/variables@3.0.0",
    "wasi:config/store@0.2.0-draft-2024-09-27",
    "wasi:keyvalue/",
];

struct Spin;

impl HasData for Spin {
    type Data<'a> = &'a mut Guest;
}

pub(crate) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    current::add_to_linker(linker)?;
    redis::add_to_linker(linker)?;
    older::add_to_linker(linker)?;
    older_redis::add_to_linker(linker)?;
    databases::add_to_linker(linker)?;
    keyvalue::add_to_linker(linker)?;
    config::add_to_linker(linker)
}

/// A store a guest has opened.
pub struct OpenStore(Arc<Stores>);

/// Why a store is not opened.
enum NotOpened {
    /// The component is not granted it.
    Denied,
    /// There is none of that label.
    Unknown,
    /// Made to fail.
    Failed(String),
}

/// Why a variable has no value.
enum NoVariable {
    InvalidName(String),
    Undefined(String),
}

impl Guest {
    fn open_store(&mut self, label: &str) -> Result<OpenStore, NotOpened> {
        self.counted("key-value.open").map_err(NotOpened::Failed)?;
        let granted = self.loaded.plugin.stores.as_ref();
        if granted.is_some_and(|labels| labels.iter().all(|it| it != label)) {
            return Err(NotOpened::Denied);
        }
        let store = self.loaded.runtime.stores.get(label);
        store.cloned().map(OpenStore).ok_or(NotOpened::Unknown)
    }

    /// Counts the call and gives the store.
    fn store(
        &mut self,
        opened: &Resource<OpenStore>,
        call: &'static str,
    ) -> wasmtime::Result<Result<Arc<Stores>, String>> {
        let counted = self.counted(call);
        let store = self.table.get(opened)?.0.clone();
        Ok(counted.map(|()| store))
    }

    /// Notes the bytes that a store now keeps.
    fn keeps(&self, bytes: u64) {
        let kept = &self.loaded.meter.shared_bytes;
        kept.store(bytes, Ordering::Relaxed);
    }

    fn variable(&mut self, name: &str) -> Result<String, NoVariable> {
        self.count("variables.get");
        if !is_variable(name) {
            return Err(NoVariable::InvalidName(format!("`{name}`: {VARIABLE}")));
        }
        let value = self.loaded.plugin.variables.get(name).cloned();
        value.ok_or_else(|| NoVariable::Undefined(format!("no variable named `{name}`")))
    }
}
