//! `fermyon:spin/key-value` and `fermyon:spin/variables`, as Spin 2 and 3 have them.

use wasmtime::component::{Linker, Resource};

use super::{NoVariable, OpenStore, Spin};
use crate::context::Guest;

mod generated {
    wasmtime::component::bindgen!({
        path: "wit",
        world: "older",
        imports: { default: async | trappable },
        with: { "fermyon:spin/key-value.store": super::super::OpenStore },
    });
}

use generated::fermyon::spin::key_value::{self, Error};
use generated::fermyon::spin::variables;

pub(super) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    key_value::add_to_linker::<Guest, Spin>(linker, |guest| guest)?;
    variables::add_to_linker::<Guest, Spin>(linker, |guest| guest)
}

not_opened!(Error);

type Told<T> = wasmtime::Result<Result<T, Error>>;

impl key_value::Host for Guest {}

impl key_value::HostStore for Guest {
    async fn open(&mut self, label: String) -> Told<Resource<OpenStore>> {
        let opened = match self.open_store(&label) {
            Ok(opened) => opened,
            Err(why) => return Ok(Err(why.into())),
        };
        let pushed = self.table.push(opened);
        Ok(pushed.map_err(|_| Error::StoreTableFull))
    }

    async fn get(&mut self, store: Resource<OpenStore>, key: String) -> Told<Option<Vec<u8>>> {
        Ok(match self.store(&store, "key-value.get")? {
            Ok(store) => store.get(key).await.map_err(Error::Other),
            Err(why) => Err(Error::Other(why)),
        })
    }

    async fn set(&mut self, store: Resource<OpenStore>, key: String, value: Vec<u8>) -> Told<()> {
        let told = match self.store(&store, "key-value.set")? {
            Ok(store) => store.set(key, value).await,
            Err(why) => Err(why),
        };
        Ok(told.map(|bytes| self.keeps(bytes)).map_err(Error::Other))
    }

    async fn delete(&mut self, store: Resource<OpenStore>, key: String) -> Told<()> {
        let told = match self.store(&store, "key-value.delete")? {
            Ok(store) => store.delete(key).await,
            Err(why) => Err(why),
        };
        Ok(told.map(|bytes| self.keeps(bytes)).map_err(Error::Other))
    }

    async fn exists(&mut self, store: Resource<OpenStore>, key: String) -> Told<bool> {
        Ok(match self.store(&store, "key-value.exists")? {
            Ok(store) => store.exists(key).await.map_err(Error::Other),
            Err(why) => Err(Error::Other(why)),
        })
    }

    async fn get_keys(&mut self, store: Resource<OpenStore>) -> Told<Vec<String>> {
        Ok(match self.store(&store, "key-value.get-keys")? {
            Ok(store) => store.keys().await.map_err(Error::Other),
            Err(why) => Err(Error::Other(why)),
        })
    }

    async fn drop(&mut self, store: Resource<OpenStore>) -> wasmtime::Result<()> {
        self.table.delete(store)?;
        Ok(())
    }
}

impl variables::Host for Guest {
    async fn get(&mut self, name: String) -> wasmtime::Result<Result<String, variables::Error>> {
        Ok(self.variable(&name).map_err(|why| match why {
            NoVariable::InvalidName(why) => variables::Error::InvalidName(why),
            NoVariable::Undefined(why) => variables::Error::Undefined(why),
        }))
    }
}
