//! The key-value stores behind `spin:key-value`, by their labels, shared by all plugins of a runtime.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

/// The label of the store there always is.
pub(crate) const LABEL: &str = "default";
/// Keys and values in all, bytes; each entry counts [`ENTRY`] more.
const MAX_BYTES: u64 = 64 << 20;
/// One value, bytes.
const MAX_VALUE: usize = 1 << 20;
/// One key, bytes.
const MAX_KEY: usize = 1024;
/// What an entry costs beside its key and value.
const ENTRY: u64 = 64;
/// How long a write may be in memory alone. Losing a second of a cache or of counters costs little, a sync for
/// each write costs a thousandfold.
const SYNC: Duration = Duration::from_secs(1);

/// How long Redis may take to be connected to, and to answer.
const PATIENCE: Duration = Duration::from_secs(5);

const TABLE: TableDefinition<&str, &[u8]> = TableDefinition::new(LABEL);

/// Where a store keeps its keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kept {
    /// In memory.
    Memory,
    /// In a file.
    File(PathBuf),
    /// In Redis, by its address. No bound holds but its own.
    Redis(String),
}

/// Keys and values, in memory, in a file or in Redis.
pub(crate) enum Stores {
    Memory(Mutex<Memory>),
    File(Arc<File>),
    Redis(Box<Remote>),
}

#[derive(Default)]
pub(crate) struct Memory {
    entries: BTreeMap<String, Vec<u8>>,
    bytes: u64,
}

pub(crate) struct File {
    database: Database,
    /// Held while writing: redb has one writer at a time anyway.
    bytes: Mutex<u64>,
    dirty: AtomicBool,
}

impl Stores {
    /// # Errors
    /// Names a file that cannot be opened or is no store.
    pub(crate) fn open(kept: &Kept) -> anyhow::Result<Arc<Self>> {
        let path = match kept {
            Kept::Memory => return Ok(Arc::new(Self::Memory(Mutex::default()))),
            Kept::Redis(address) => {
                return Ok(Arc::new(Self::Redis(Box::new(Remote::new(address)?))));
            }
            Kept::File(path) => path,
        };
        if let Some(folder) = path.parent().filter(|it| !it.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).with_context(|| {
                format!("store file {}: its folder cannot be made", path.display())
            })?;
        }
        let file = File::open(path).with_context(|| format!("store file {}", path.display()))?;
        let file = Arc::new(file);
        let weak = Arc::downgrade(&file);
        std::thread::Builder::new()
            .name("key-value-sync".into())
            .spawn(move || {
                loop {
                    std::thread::sleep(SYNC);
                    let Some(file) = weak.upgrade() else { return };
                    file.sync();
                }
            })?;
        Ok(Arc::new(Self::File(file)))
    }

    pub(crate) async fn get(&self, key: String) -> Result<Option<Vec<u8>>, String> {
        match self {
            Self::Memory(memory) => Ok(lock(memory).entries.get(&key).cloned()),
            Self::File(file) => blocking(file, move |file| file.get(&key)).await,
            Self::Redis(remote) => remote.ask(redis::cmd("GET").arg(key)).await,
        }
    }

    /// Sets a value and returns the bytes now kept.
    pub(crate) async fn set(&self, key: String, value: Vec<u8>) -> Result<u64, String> {
        if key.len() > MAX_KEY {
            return Err(format!(
                "the key has {} bytes, at most {MAX_KEY}",
                key.len()
            ));
        }
        if value.len() > MAX_VALUE {
            return Err(format!(
                "the value has {} bytes, at most {MAX_VALUE}",
                value.len()
            ));
        }
        match self {
            Self::Memory(memory) => {
                let mut memory = lock(memory);
                let old = memory
                    .entries
                    .get(&key)
                    .map_or(0, |old| size(&key, old.len()));
                let bytes = room(memory.bytes, old, size(&key, value.len()))?;
                memory.entries.insert(key, value);
                memory.bytes = bytes;
                Ok(bytes)
            }
            Self::File(file) => blocking(file, move |file| file.set(&key, &value)).await,
            Self::Redis(remote) => {
                let done: Result<(), String> =
                    remote.ask(redis::cmd("SET").arg(key).arg(value)).await;
                done.map(|()| 0)
            }
        }
    }

    /// Removes a key, present or not, and returns the bytes now kept.
    pub(crate) async fn delete(&self, key: String) -> Result<u64, String> {
        match self {
            Self::Memory(memory) => {
                let mut memory = lock(memory);
                if let Some(old) = memory.entries.remove(&key) {
                    memory.bytes = memory.bytes.saturating_sub(size(&key, old.len()));
                }
                Ok(memory.bytes)
            }
            Self::File(file) => blocking(file, move |file| file.delete(&key)).await,
            Self::Redis(remote) => {
                let done: Result<i64, String> = remote.ask(redis::cmd("DEL").arg(key)).await;
                done.map(|_| 0)
            }
        }
    }

    pub(crate) async fn exists(&self, key: String) -> Result<bool, String> {
        match self {
            Self::Memory(memory) => Ok(lock(memory).entries.contains_key(&key)),
            Self::File(file) => blocking(file, move |file| Ok(file.get(&key)?.is_some())).await,
            Self::Redis(remote) => remote.ask(redis::cmd("EXISTS").arg(key)).await,
        }
    }

    pub(crate) async fn keys(&self) -> Result<Vec<String>, String> {
        match self {
            Self::Memory(memory) => Ok(lock(memory).entries.keys().cloned().collect()),
            Self::File(file) => blocking(file, |file| file.keys()).await,
            Self::Redis(remote) => remote.ask(redis::cmd("KEYS").arg("*")).await,
        }
    }
}

/// A store in Redis: one connection, opened when it is first used and again after it has failed.
pub(crate) struct Remote {
    client: redis::Client,
    connection: tokio::sync::Mutex<Option<redis::aio::MultiplexedConnection>>,
}

impl Remote {
    fn new(address: &str) -> anyhow::Result<Self> {
        Ok(Self {
            client: redis::Client::open(address).context("this is no address of a Redis")?,
            connection: tokio::sync::Mutex::default(),
        })
    }

    async fn ask<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, String> {
        let mut connection = self.connected().await?;
        let told = command.query_async(&mut connection).await;
        told.map_err(|error: redis::RedisError| error.to_string())
            .inspect_err(|_| {
                // Whatever it was, the next one begins anew.
                if let Ok(mut kept) = self.connection.try_lock() {
                    *kept = None;
                }
            })
    }

    async fn connected(&self) -> Result<redis::aio::MultiplexedConnection, String> {
        let mut kept = self.connection.lock().await;
        if let Some(connection) = &*kept {
            return Ok(connection.clone());
        }
        let config = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE));
        let opened = self
            .client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(|error| error.to_string())?;
        Ok(kept.insert(opened).clone())
    }
}

impl File {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let database = Database::create(path)?;
        let write = database.begin_write()?;
        let mut bytes = 0;
        {
            let table = write.open_table(TABLE)?;
            for entry in table.iter()? {
                let (key, value) = entry?;
                bytes += size(key.value(), value.value().len());
            }
        }
        write.commit()?;
        Ok(Self {
            database,
            bytes: Mutex::new(bytes),
            dirty: AtomicBool::new(false),
        })
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, redb::Error> {
        let table = self.database.begin_read()?.open_table(TABLE)?;
        Ok(table.get(key)?.map(|value| value.value().to_vec()))
    }

    fn keys(&self) -> Result<Vec<String>, redb::Error> {
        let table = self.database.begin_read()?.open_table(TABLE)?;
        let mut keys = Vec::new();
        for entry in table.iter()? {
            keys.push(entry?.0.value().to_owned());
        }
        Ok(keys)
    }

    fn set(&self, key: &str, value: &[u8]) -> Result<u64, redb::Error> {
        self.write(|table, bytes| {
            let old = table
                .get(key)?
                .map_or(0, |old| size(key, old.value().len()));
            let after = room(bytes, old, size(key, value.len()))
                .map_err(|full| redb::Error::Io(std::io::Error::other(full)))?;
            table.insert(key, value)?;
            Ok(after)
        })
    }

    fn delete(&self, key: &str) -> Result<u64, redb::Error> {
        self.write(|table, bytes| {
            let old = table
                .remove(key)?
                .map_or(0, |old| size(key, old.value().len()));
            Ok(bytes.saturating_sub(old))
        })
    }

    fn write(
        &self,
        change: impl FnOnce(&mut redb::Table<'_, &str, &[u8]>, u64) -> Result<u64, redb::Error>,
    ) -> Result<u64, redb::Error> {
        let mut bytes = lock(&self.bytes);
        let mut write = self.database.begin_write()?;
        write
            .set_durability(Durability::None)
            .map_err(|error| redb::Error::Io(std::io::Error::other(error.to_string())))?;
        let after = {
            let mut table = write.open_table(TABLE)?;
            change(&mut table, *bytes)?
        };
        write.commit()?;
        *bytes = after;
        self.dirty.store(true, Ordering::Release);
        Ok(after)
    }

    /// An empty durable commit makes the ones before it durable.
    fn sync(&self) {
        if self.dirty.swap(false, Ordering::AcqRel) {
            let done = self
                .database
                .begin_write()
                .map_err(redb::Error::from)
                .and_then(|write| write.commit().map_err(redb::Error::from));
            if let Err(error) = done {
                tracing::error!(%error, "the key-value store could not be synced");
                self.dirty.store(true, Ordering::Release);
            }
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        self.sync();
    }
}

async fn blocking<T: Send + 'static>(
    file: &Arc<File>,
    work: impl FnOnce(&File) -> Result<T, redb::Error> + Send + 'static,
) -> Result<T, String> {
    let file = file.clone();
    match tokio::task::spawn_blocking(move || work(&file)).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

fn size(key: &str, value: usize) -> u64 {
    (key.len() + value) as u64 + ENTRY
}

fn room(bytes: u64, old: u64, new: u64) -> Result<u64, String> {
    let after = bytes.saturating_sub(old).saturating_add(new);
    if after > MAX_BYTES && new > old {
        return Err(format!("the store is full: {bytes} of {MAX_BYTES} bytes"));
    }
    Ok(after)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_kinds_keep_replace_and_forget() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("store.redb");
        for (name, path) in [("memory", None), ("file", Some(path.as_path()))] {
            let stores =
                Stores::open(&path.map_or(Kept::Memory, |path| Kept::File(path.to_owned())))
                    .expect("opens");
            let key = || "k".to_owned();
            assert_eq!(stores.get(key()).await, Ok(None), "{name}");
            let first = stores.set(key(), vec![1; 10]).await.expect("sets");
            let second = stores.set(key(), vec![2; 30]).await.expect("sets");
            assert_eq!(
                second - first,
                20,
                "{name}: the old value is not counted twice"
            );
            assert_eq!(stores.get(key()).await, Ok(Some(vec![2; 30])), "{name}");
            assert_eq!(stores.exists(key()).await, Ok(true), "{name}");
            assert_eq!(stores.keys().await, Ok(vec![key()]), "{name}");
            assert_eq!(stores.delete(key()).await, Ok(0), "{name}");
            assert_eq!(
                stores.delete(key()).await,
                Ok(0),
                "{name}: nothing to delete is no error"
            );
            assert_eq!(stores.exists(key()).await, Ok(false), "{name}");
        }
    }

    #[tokio::test]
    async fn a_file_keeps_its_entries_and_its_count() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("store.redb");
        let stores = Stores::open(&Kept::File(path.clone())).expect("opens");
        let bytes = stores.set("a".into(), b"1".to_vec()).await.expect("sets");
        drop(stores);
        let stores = reopen(&path);
        assert_eq!(stores.get("a".into()).await, Ok(Some(b"1".to_vec())));
        let more = stores.set("b".into(), b"1".to_vec()).await.expect("sets");
        assert_eq!(more, 2 * bytes);
    }

    /// The syncing thread may hold the file for a moment.
    fn reopen(path: &Path) -> Arc<Stores> {
        for _ in 0..100 {
            if let Ok(stores) = Stores::open(&Kept::File(path.to_owned())) {
                return stores;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the file stays locked");
    }

    #[tokio::test]
    async fn bounds_are_named_in_the_error() {
        let stores = Stores::open(&Kept::Memory).expect("opens");
        let long = stores.set("k".repeat(MAX_KEY + 1), Vec::new()).await;
        assert!(long.is_err_and(|error| error.contains("at most 1024")));
        let large = stores.set("k".into(), vec![0; MAX_VALUE + 1]).await;
        assert!(large.is_err_and(|error| error.contains("at most 1048576")));
        for n in 0..63 {
            stores
                .set(format!("{n}"), vec![0; MAX_VALUE])
                .await
                .expect("there is room");
        }
        let full = stores.set("last".into(), vec![0; MAX_VALUE]).await;
        assert!(full.is_err_and(|error| error.contains("full")));
        stores.delete("0".into()).await.expect("deletes");
        stores
            .set("last".into(), vec![0; MAX_VALUE])
            .await
            .expect("there is room again");
    }
}
