//! `spin:key-value` and `spin:variables`, as Spin 4 has them.

use std::sync::Arc;

use wasmtime::component::{Access, Accessor, FutureReader, Linker, Resource, StreamReader};

use super::{NoVariable, OpenStore as Opened, Spin};
use crate::context::Guest;
use crate::stores::Stores;

mod generated {
    wasmtime::component::bindgen!({
        path: "../../wit",
        inline: "
            package edgeweir:host;
            world stores {
                import spin:key-value/key-value@3.0.0;
                import spin:variables/variables@3.0.0;
            }
        ",
        world: "edgeweir:host/stores",
        imports: { default: store | trappable },
        with: { "spin:key-value/key-value.store": super::super::OpenStore },
    });
}

use generated::spin::key_value::key_value;
use generated::spin::variables::variables;

pub(crate) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    key_value::add_to_linker::<Guest, Spin>(linker, |guest| guest)?;
    variables::add_to_linker::<Guest, Spin>(linker, |guest| guest)
}

/// Counts the call and gives the store.
fn stores(
    accessor: &Accessor<Guest, Spin>,
    opened: &Resource<Opened>,
    call: &'static str,
) -> wasmtime::Result<Result<Arc<Stores>, key_value::Error>> {
    let store = accessor.with(|mut access| access.get().store(opened, call))?;
    Ok(store.map_err(key_value::Error::Other))
}

fn keeps(accessor: &Accessor<Guest, Spin>, bytes: u64) {
    accessor.with(|mut access| access.get().keeps(bytes));
}

not_opened!(key_value::Error);

impl key_value::Host for Guest {}

impl key_value::HostStore for Guest {}

impl key_value::HostStoreWithStore<Guest> for Spin {
    async fn open(
        accessor: &Accessor<Guest, Self>,
        label: String,
    ) -> wasmtime::Result<Result<Resource<Opened>, key_value::Error>> {
        accessor.with(|mut access| {
            let guest = access.get();
            let opened = match guest.open_store(&label) {
                Ok(opened) => opened,
                Err(why) => return Ok(Err(why.into())),
            };
            let pushed = guest.table.push(opened);
            Ok(pushed.map_err(|_| key_value::Error::StoreTableFull))
        })
    }

    async fn get(
        accessor: &Accessor<Guest, Self>,
        opened: Resource<Opened>,
        key: String,
    ) -> wasmtime::Result<Result<Option<Vec<u8>>, key_value::Error>> {
        let stores = match stores(accessor, &opened, "key-value.get")? {
            Ok(stores) => stores,
            Err(error) => return Ok(Err(error)),
        };
        Ok(stores.get(key).await.map_err(key_value::Error::Other))
    }

    async fn set(
        accessor: &Accessor<Guest, Self>,
        opened: Resource<Opened>,
        key: String,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), key_value::Error>> {
        let stores = match stores(accessor, &opened, "key-value.set")? {
            Ok(stores) => stores,
            Err(error) => return Ok(Err(error)),
        };
        Ok(stores
            .set(key, value)
            .await
            .map(|bytes| keeps(accessor, bytes))
            .map_err(key_value::Error::Other))
    }

    async fn delete(
        accessor: &Accessor<Guest, Self>,
        opened: Resource<Opened>,
        key: String,
    ) -> wasmtime::Result<Result<(), key_value::Error>> {
        let stores = match stores(accessor, &opened, "key-value.delete")? {
            Ok(stores) => stores,
            Err(error) => return Ok(Err(error)),
        };
        Ok(stores
            .delete(key)
            .await
            .map(|bytes| keeps(accessor, bytes))
            .map_err(key_value::Error::Other))
    }

    async fn exists(
        accessor: &Accessor<Guest, Self>,
        opened: Resource<Opened>,
        key: String,
    ) -> wasmtime::Result<Result<bool, key_value::Error>> {
        let stores = match stores(accessor, &opened, "key-value.exists")? {
            Ok(stores) => stores,
            Err(error) => return Ok(Err(error)),
        };
        Ok(stores.exists(key).await.map_err(key_value::Error::Other))
    }

    async fn get_keys(
        accessor: &Accessor<Guest, Self>,
        opened: Resource<Opened>,
    ) -> wasmtime::Result<(
        StreamReader<String>,
        FutureReader<Result<(), key_value::Error>>,
    )> {
        let listed = match stores(accessor, &opened, "key-value.get-keys")? {
            Ok(stores) => stores.keys().await.map_err(key_value::Error::Other),
            Err(error) => Err(error),
        };
        let (keys, result) = match listed {
            Ok(keys) => (keys, Ok(())),
            Err(error) => (Vec::new(), Err(error)),
        };
        accessor.with(|mut access| {
            let keys = StreamReader::new(&mut access, keys)?;
            let result = FutureReader::new(&mut access, async { wasmtime::error::Ok(result) })?;
            Ok((keys, result))
        })
    }

    fn drop(mut access: Access<'_, Guest, Self>, opened: Resource<Opened>) -> wasmtime::Result<()> {
        access.get().table.delete(opened)?;
        Ok(())
    }
}

impl variables::Host for Guest {}

impl variables::HostWithStore<Guest> for Spin {
    async fn get(
        accessor: &Accessor<Guest, Self>,
        name: String,
    ) -> wasmtime::Result<Result<String, variables::Error>> {
        let value = accessor.with(|mut access| access.get().variable(&name));
        Ok(value.map_err(|why| match why {
            NoVariable::InvalidName(why) => variables::Error::InvalidName(why),
            NoVariable::Undefined(why) => variables::Error::Undefined(why),
        }))
    }
}
