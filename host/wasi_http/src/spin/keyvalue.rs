//! `wasi:keyvalue`, the draft that Spin has: the stores of `spin:key-value`, with changes that nobody comes between.
//!
//! Differently from Spin, a swap is one step in the store: of two that began with the same value one fails, also where there was
//! none.

use std::sync::Arc;

use wasmtime::component::{Linker, Resource};

use super::{OpenStore, Spin};
use crate::context::Guest;
use crate::stores::Stores;

mod generated {
    wasmtime::component::bindgen!({
        path: "wit",
        world: "keyvalue",
        imports: { default: async | trappable },
        with: {
            "wasi:keyvalue/store.bucket": super::super::OpenStore,
            "wasi:keyvalue/atomics.cas": super::Swap,
        },
    });
}

use generated::wasi::keyvalue::atomics::{self, CasError};
use generated::wasi::keyvalue::batch;
use generated::wasi::keyvalue::store::{self, Error, KeyResponse};

/// Keys of one batch.
const BATCH: usize = 1_000;

/// A value that was looked at, to be replaced if nobody else has.
pub struct Swap {
    store: Arc<Stores>,
    key: String,
    seen: Option<Vec<u8>>,
}

pub(super) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    store::add_to_linker::<Guest, Spin>(linker, |guest| guest)?;
    batch::add_to_linker::<Guest, Spin>(linker, |guest| guest)?;
    atomics::add_to_linker::<Guest, Spin>(linker, |guest| guest)
}

not_opened!(Error);

type Told<T> = wasmtime::Result<Result<T, Error>>;

/// Goes on with a value, or gives the error to the guest.
macro_rules! got {
    ($told:expr) => {
        match $told {
            Ok(value) => value,
            Err(why) => return Ok(Err(Error::Other(why))),
        }
    };
}

impl store::Host for Guest {
    async fn open(&mut self, identifier: String) -> Told<Resource<OpenStore>> {
        let opened = match self.open_store(&identifier) {
            Ok(opened) => opened,
            Err(why) => return Ok(Err(why.into())),
        };
        let pushed = self.table.push(opened);
        Ok(pushed.map_err(|error| Error::Other(error.to_string())))
    }
}

impl store::HostBucket for Guest {
    async fn get(&mut self, bucket: Resource<OpenStore>, key: String) -> Told<Option<Vec<u8>>> {
        let store = got!(self.store(&bucket, "key-value.get")?);
        Ok(store.get(key).await.map_err(Error::Other))
    }

    async fn set(&mut self, bucket: Resource<OpenStore>, key: String, value: Vec<u8>) -> Told<()> {
        let store = got!(self.store(&bucket, "key-value.set")?);
        let bytes = got!(store.set(key, value).await);
        self.keeps(bytes);
        Ok(Ok(()))
    }

    async fn delete(&mut self, bucket: Resource<OpenStore>, key: String) -> Told<()> {
        let store = got!(self.store(&bucket, "key-value.delete")?);
        let bytes = got!(store.delete(key).await);
        self.keeps(bytes);
        Ok(Ok(()))
    }

    async fn exists(&mut self, bucket: Resource<OpenStore>, key: String) -> Told<bool> {
        let store = got!(self.store(&bucket, "key-value.exists")?);
        Ok(store.exists(key).await.map_err(Error::Other))
    }

    /// All at once: there is never a cursor.
    async fn list_keys(
        &mut self,
        bucket: Resource<OpenStore>,
        _cursor: Option<String>,
    ) -> Told<KeyResponse> {
        let store = got!(self.store(&bucket, "key-value.get-keys")?);
        let keys = got!(store.keys().await);
        Ok(Ok(KeyResponse { keys, cursor: None }))
    }

    async fn drop(&mut self, bucket: Resource<OpenStore>) -> wasmtime::Result<()> {
        self.table.delete(bucket)?;
        Ok(())
    }
}

fn bounded(keys: usize) -> Result<(), String> {
    if keys > BATCH {
        return Err(format!("{keys} keys in a batch, at most {BATCH}"));
    }
    Ok(())
}

impl batch::Host for Guest {
    async fn get_many(
        &mut self,
        bucket: Resource<OpenStore>,
        keys: Vec<String>,
    ) -> Told<Vec<(String, Option<Vec<u8>>)>> {
        let store = got!(self.store(&bucket, "key-value.get")?);
        got!(bounded(keys.len()));
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            let value = got!(store.get(key.clone()).await);
            found.push((key, value));
        }
        Ok(Ok(found))
    }

    async fn set_many(
        &mut self,
        bucket: Resource<OpenStore>,
        entries: Vec<(String, Vec<u8>)>,
    ) -> Told<()> {
        let store = got!(self.store(&bucket, "key-value.set")?);
        got!(bounded(entries.len()));
        for (key, value) in entries {
            let bytes = got!(store.set(key, value).await);
            self.keeps(bytes);
        }
        Ok(Ok(()))
    }

    async fn delete_many(&mut self, bucket: Resource<OpenStore>, keys: Vec<String>) -> Told<()> {
        let store = got!(self.store(&bucket, "key-value.delete")?);
        got!(bounded(keys.len()));
        for key in keys {
            let bytes = got!(store.delete(key).await);
            self.keeps(bytes);
        }
        Ok(Ok(()))
    }
}

impl atomics::Host for Guest {
    async fn increment(
        &mut self,
        bucket: Resource<OpenStore>,
        key: String,
        delta: i64,
    ) -> Told<i64> {
        let store = got!(self.store(&bucket, "key-value.increment")?);
        Ok(store.increment(key, delta).await.map_err(Error::Other))
    }

    async fn swap(
        &mut self,
        swap: Resource<Swap>,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), CasError>> {
        let refused = |why| Ok(Err(CasError::StoreError(Error::Other(why))));
        let Swap { store, key, seen } = self.table.delete(swap)?;
        if let Err(why) = self.counted("key-value.swap") {
            return refused(why);
        }
        match store.swap(key.clone(), seen, value).await {
            Ok(true) => return Ok(Ok(())),
            Ok(false) => {}
            Err(why) => return refused(why),
        }
        // "Implementors MUST return a CAS handle that has been updated to the latest version".
        let seen = match store.get(key.clone()).await {
            Ok(seen) => seen,
            Err(why) => return refused(why),
        };
        let again = self.table.push(Swap { store, key, seen })?;
        Ok(Err(CasError::CasFailed(again)))
    }
}

impl atomics::HostCas for Guest {
    async fn new(&mut self, bucket: Resource<OpenStore>, key: String) -> Told<Resource<Swap>> {
        let store = got!(self.store(&bucket, "key-value.get")?);
        let seen = got!(store.get(key.clone()).await);
        let pushed = self.table.push(Swap { store, key, seen });
        Ok(pushed.map_err(|error| Error::Other(error.to_string())))
    }

    async fn current(&mut self, swap: Resource<Swap>) -> Told<Option<Vec<u8>>> {
        let counted = self.counted("key-value.get");
        let Swap { store, key, .. } = self.table.get(&swap)?;
        let (store, key) = (store.clone(), key.clone());
        got!(counted);
        let seen = got!(store.get(key).await);
        self.table.get_mut(&swap)?.seen.clone_from(&seen);
        Ok(Ok(seen))
    }

    async fn drop(&mut self, swap: Resource<Swap>) -> wasmtime::Result<()> {
        self.table.delete(swap)?;
        Ok(())
    }
}
