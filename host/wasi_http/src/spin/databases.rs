//! `spin:sqlite` of Spin 4, whose 3.0.0 Spin 3 has, and `fermyon:spin/sqlite` of Spin 2.

use std::sync::Arc;

use rusqlite::types::Value;
use wasmtime::component::{Accessor, FutureReader, Linker, Resource, StreamReader};

use super::Spin;
use crate::context::Guest;
use crate::databases::{Failed, Opened, Rows};

mod generated {
    wasmtime::component::bindgen!({
        path: "wit",
        world: "databases",
        imports: { default: async | trappable },
        with: {
            "spin:sqlite/sqlite.connection": super::Connection,
            "fermyon:spin/sqlite.connection": super::Connection,
        },
    });
}

use generated::fermyon::spin::sqlite as older;
use generated::spin::sqlite::sqlite as current;

/// A connection a guest has opened.
pub struct Connection(Arc<Opened>);

pub(super) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    current::add_to_linker::<Guest, Spin>(linker, |guest| guest)?;
    older::add_to_linker::<Guest, Spin>(linker, |guest| guest)
}

/// Why there is no connection, or no rows.
enum Refused {
    Denied,
    Unknown,
    Full,
    Other(String),
}

impl From<Failed> for Refused {
    fn from(why: Failed) -> Self {
        match why {
            Failed::Full => Self::Full,
            Failed::Other(why) => Self::Other(why),
        }
    }
}

impl Guest {
    fn database(&mut self, label: &str) -> Result<Arc<crate::databases::Database>, Refused> {
        self.counted("sqlite.open").map_err(Refused::Other)?;
        if !self.loaded.plugin.databases.iter().any(|it| it == label) {
            return Err(Refused::Denied);
        }
        let database = self.loaded.runtime.databases.get(label);
        database.cloned().ok_or(Refused::Unknown)
    }

    fn connected(
        &mut self,
        connection: &Resource<Connection>,
    ) -> wasmtime::Result<Result<Arc<Opened>, Refused>> {
        let counted = self.counted("sqlite.execute");
        let opened = self.table.get(connection)?.0.clone();
        Ok(counted.map(|()| opened).map_err(Refused::Other))
    }

    async fn open_database(&mut self, label: &str) -> Result<Resource<Connection>, Refused> {
        let opened = self.database(label)?.connect().await;
        let connection = Connection(Arc::new(opened.map_err(Refused::Other)?));
        let pushed = self.table.push(connection);
        pushed.map_err(|error| Refused::Other(error.to_string()))
    }

    async fn statement(
        &mut self,
        connection: &Resource<Connection>,
        statement: String,
        parameters: Vec<Value>,
    ) -> wasmtime::Result<Result<Rows, Refused>> {
        let opened = match self.connected(connection)? {
            Ok(opened) => opened,
            Err(why) => return Ok(Err(why)),
        };
        let told = opened.execute(statement, parameters).await;
        Ok(told.map_err(Refused::from))
    }

    fn close(&mut self, connection: Resource<Connection>) -> wasmtime::Result<()> {
        self.table.delete(connection)?;
        Ok(())
    }
}

/// The values, rows and errors of one version: they are the same in each, and each has types of its own.
macro_rules! types_of {
    ($version:ident) => {
        impl From<Refused> for $version::Error {
            fn from(why: Refused) -> Self {
                match why {
                    Refused::Denied => Self::AccessDenied,
                    Refused::Unknown => Self::NoSuchDatabase,
                    Refused::Full => Self::DatabaseFull,
                    Refused::Other(why) => Self::Io(why),
                }
            }
        }

        impl From<$version::Value> for Value {
            fn from(value: $version::Value) -> Self {
                match value {
                    $version::Value::Integer(number) => Self::Integer(number),
                    $version::Value::Real(number) => Self::Real(number),
                    $version::Value::Text(text) => Self::Text(text),
                    $version::Value::Blob(bytes) => Self::Blob(bytes),
                    $version::Value::Null => Self::Null,
                }
            }
        }

        impl From<Vec<Value>> for $version::RowResult {
            fn from(values: Vec<Value>) -> Self {
                let values = values.into_iter().map(|value| match value {
                    Value::Integer(number) => $version::Value::Integer(number),
                    Value::Real(number) => $version::Value::Real(number),
                    Value::Text(text) => $version::Value::Text(text),
                    Value::Blob(bytes) => $version::Value::Blob(bytes),
                    Value::Null => $version::Value::Null,
                });
                Self {
                    values: values.collect(),
                }
            }
        }

        impl From<Rows> for $version::QueryResult {
            fn from(rows: Rows) -> Self {
                Self {
                    columns: rows.columns,
                    rows: rows.rows.into_iter().map(From::from).collect(),
                }
            }
        }
    };
}

types_of!(older);
types_of!(current);

impl older::Host for Guest {}

impl older::HostConnection for Guest {
    async fn open(
        &mut self,
        label: String,
    ) -> wasmtime::Result<Result<Resource<Connection>, older::Error>> {
        Ok(self.open_database(&label).await.map_err(From::from))
    }

    async fn execute(
        &mut self,
        connection: Resource<Connection>,
        statement: String,
        parameters: Vec<older::Value>,
    ) -> wasmtime::Result<Result<older::QueryResult, older::Error>> {
        let parameters = parameters.into_iter().map(Value::from).collect();
        let told = self.statement(&connection, statement, parameters).await?;
        Ok(told.map(From::from).map_err(From::from))
    }

    async fn drop(&mut self, connection: Resource<Connection>) -> wasmtime::Result<()> {
        self.close(connection)
    }
}

impl current::Host for Guest {}

impl current::HostConnection for Guest {
    async fn open(
        &mut self,
        label: String,
    ) -> wasmtime::Result<Result<Resource<Connection>, current::Error>> {
        Ok(self.open_database(&label).await.map_err(From::from))
    }

    async fn execute(
        &mut self,
        connection: Resource<Connection>,
        statement: String,
        parameters: Vec<current::Value>,
    ) -> wasmtime::Result<Result<current::QueryResult, current::Error>> {
        let parameters = parameters.into_iter().map(Value::from).collect();
        let told = self.statement(&connection, statement, parameters).await?;
        Ok(told.map(From::from).map_err(From::from))
    }

    async fn last_insert_rowid(
        &mut self,
        connection: Resource<Connection>,
    ) -> wasmtime::Result<i64> {
        let opened = self.table.get(&connection)?.0.clone();
        opened.last_row().await.map_err(wasmtime::Error::msg)
    }

    async fn changes(&mut self, connection: Resource<Connection>) -> wasmtime::Result<u64> {
        let opened = self.table.get(&connection)?.0.clone();
        opened.changes().await.map_err(wasmtime::Error::msg)
    }

    async fn drop(&mut self, connection: Resource<Connection>) -> wasmtime::Result<()> {
        self.close(connection)
    }
}

/// What `execute-async` gives: the columns, the rows as they are taken, and whether all went well.
type Streamed = (
    Vec<String>,
    StreamReader<current::RowResult>,
    FutureReader<Result<(), current::Error>>,
);

impl current::HostConnectionWithStore<Guest> for Spin {
    async fn open_async(
        accessor: &Accessor<Guest, Self>,
        label: String,
    ) -> wasmtime::Result<Result<Resource<Connection>, current::Error>> {
        let database = match accessor.with(|mut access| access.get().database(&label)) {
            Ok(database) => database,
            Err(why) => return Ok(Err(why.into())),
        };
        Ok(match database.connect().await {
            Err(why) => Err(current::Error::Io(why)),
            Ok(opened) => accessor.with(|mut access| {
                let pushed = access.get().table.push(Connection(Arc::new(opened)));
                pushed.map_err(|error| current::Error::Io(error.to_string()))
            }),
        })
    }

    async fn execute_async(
        accessor: &Accessor<Guest, Self>,
        connection: Resource<Connection>,
        statement: String,
        parameters: Vec<current::Value>,
    ) -> wasmtime::Result<Result<Streamed, current::Error>> {
        let opened = accessor.with(|mut access| access.get().connected(&connection))?;
        let opened = match opened {
            Ok(opened) => opened,
            Err(why) => return Ok(Err(why.into())),
        };
        let parameters = parameters.into_iter().map(Value::from).collect();
        let told = match opened.execute(statement, parameters).await {
            Ok(told) => told,
            Err(why) => return Ok(Err(Refused::from(why).into())),
        };
        accessor.with(|mut access| {
            let rows: Vec<current::RowResult> = told.rows.into_iter().map(From::from).collect();
            let rows = StreamReader::new(&mut access, rows)?;
            let ended = FutureReader::new(&mut access, async { wasmtime::error::Ok(Ok(())) })?;
            Ok(Ok((told.columns, rows, ended)))
        })
    }

    async fn last_insert_rowid_async(
        accessor: &Accessor<Guest, Self>,
        connection: Resource<Connection>,
    ) -> wasmtime::Result<i64> {
        let opened = accessor.with(|mut access| {
            let opened = access.get().table.get(&connection)?.0.clone();
            wasmtime::error::Ok(opened)
        })?;
        opened.last_row().await.map_err(wasmtime::Error::msg)
    }

    async fn changes_async(
        accessor: &Accessor<Guest, Self>,
        connection: Resource<Connection>,
    ) -> wasmtime::Result<u64> {
        let opened = accessor.with(|mut access| {
            let opened = access.get().table.get(&connection)?.0.clone();
            wasmtime::error::Ok(opened)
        })?;
        opened.changes().await.map_err(wasmtime::Error::msg)
    }
}
