//! The key-value stores behind `spin:key-value`, by their labels, shared by all plugins of a runtime.

mod file;
mod memory;
pub(crate) mod remote;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use edgeweir_host_chain::lock;

use file::{File, blocking};
use memory::Memory;
use remote::Remote;

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

/// Where a store keeps its keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kept {
    /// In memory.
    Memory,
    /// In a file of SQLite, in Spin's form.
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

impl Stores {
    /// # Errors
    /// Names a file that cannot be opened or is no store.
    pub(crate) fn open(kept: &Kept, label: &str) -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(match kept {
            Kept::Memory => Self::Memory(Mutex::default()),
            Kept::Redis(address) => Self::Redis(Box::new(Remote::new(address)?)),
            Kept::File(path) => {
                let file = File::open(path, label);
                let file = file.with_context(|| format!("store file {}", path.display()))?;
                Self::File(Arc::new(file))
            }
        }))
    }

    pub(crate) async fn get(&self, key: String) -> Result<Option<Vec<u8>>, String> {
        match self {
            Self::Memory(memory) => Ok(lock(memory).get(&key)),
            Self::File(file) => blocking(file, move |file| file.get(&key)).await,
            Self::Redis(remote) => remote.ask(redis::cmd("GET").arg(key)).await,
        }
    }

    /// Sets a value and returns the bytes now kept.
    pub(crate) async fn set(&self, key: String, value: Vec<u8>) -> Result<u64, String> {
        check(&key, value.len())?;
        match self {
            Self::Memory(memory) => lock(memory).set(key, value),
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
            Self::Memory(memory) => Ok(lock(memory).delete(&key)),
            Self::File(file) => blocking(file, move |file| file.delete(&key)).await,
            Self::Redis(remote) => {
                let done: Result<i64, String> = remote.ask(redis::cmd("DEL").arg(key)).await;
                done.map(|_| 0)
            }
        }
    }

    pub(crate) async fn exists(&self, key: String) -> Result<bool, String> {
        match self {
            Self::Memory(memory) => Ok(lock(memory).contains(&key)),
            Self::File(file) => blocking(file, move |file| Ok(file.get(&key)?.is_some())).await,
            Self::Redis(remote) => remote.ask(redis::cmd("EXISTS").arg(key)).await,
        }
    }

    pub(crate) async fn keys(&self) -> Result<Vec<String>, String> {
        match self {
            Self::Memory(memory) => Ok(lock(memory).keys()),
            Self::File(file) => blocking(file, |file| file.keys()).await,
            Self::Redis(remote) => remote.ask(redis::cmd("KEYS").arg("*")).await,
        }
    }

    /// Sets a value if the one there is `old`, at once; whether it was.
    pub(crate) async fn swap(
        &self,
        key: String,
        old: Option<Vec<u8>>,
        new: Vec<u8>,
    ) -> Result<bool, String> {
        check(&key, new.len())?;
        match self {
            Self::Memory(memory) => lock(memory).swap(key, old.as_deref(), new),
            Self::File(file) => {
                blocking(file, move |file| file.swap(&key, old.as_deref(), new)).await
            }
            Self::Redis(remote) => remote.swap(key, old.as_deref(), new).await,
        }
    }

    /// Adds to a number, at once: eight bytes, the lowest first, and in Redis its decimal digits, both as Spin keeps it.
    pub(crate) async fn increment(&self, key: String, delta: i64) -> Result<i64, String> {
        check(&key, 0)?;
        match self {
            Self::Memory(memory) => lock(memory).increment(key, delta),
            Self::File(file) => blocking(file, move |file| file.increment(&key, delta)).await,
            Self::Redis(remote) => remote.ask(redis::cmd("INCRBY").arg(key).arg(delta)).await,
        }
    }
}

fn check(key: &str, value: usize) -> Result<(), String> {
    if key.len() > MAX_KEY {
        return Err(format!(
            "the key has {} bytes, at most {MAX_KEY}",
            key.len()
        ));
    }
    if value > MAX_VALUE {
        return Err(format!("the value has {value} bytes, at most {MAX_VALUE}"));
    }
    Ok(())
}

/// What a number becomes; an absent one is zero.
fn number(there: Option<&[u8]>, delta: i64) -> Result<i64, String> {
    let before = match there {
        None => 0,
        Some(bytes) => {
            let bytes = bytes.try_into();
            i64::from_le_bytes(bytes.map_err(|_| "the value is no number of eight bytes")?)
        }
    };
    let after = before.checked_add(delta);
    after.ok_or_else(|| format!("{before} and {delta} are beyond 64 bits"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_kinds_keep_replace_and_forget() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("store.db");
        for (name, path) in [("memory", None), ("file", Some(path.as_path()))] {
            let stores = Stores::open(
                &path.map_or(Kept::Memory, |path| Kept::File(path.to_owned())),
                LABEL,
            )
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
    async fn changes_at_once_are_the_same_in_both_kinds() {
        let dir = tempfile::tempdir().expect("a folder");
        for kept in [Kept::Memory, Kept::File(dir.path().join("store.db"))] {
            let stores = Stores::open(&kept, LABEL).expect("opens");
            let key = || "k".to_owned();
            for (old, new, want) in [
                (Some("a"), "b", false),
                (None, "a", true),
                (None, "b", false),
                (Some("b"), "c", false),
                (Some("a"), "b", true),
            ] {
                let old = old.map(|old| old.as_bytes().to_vec());
                let swapped = stores.swap(key(), old.clone(), new.into()).await;
                assert_eq!(swapped, Ok(want), "{kept:?}: {old:?} for {new}");
            }
            assert_eq!(stores.get(key()).await, Ok(Some(b"b".to_vec())));
            let error = stores.increment(key(), 1).await.expect_err("no number");
            assert!(error.contains("no number"), "{error}");
            assert_eq!(stores.increment("n".into(), 5).await, Ok(5), "{kept:?}");
            assert_eq!(stores.increment("n".into(), -7).await, Ok(-2), "{kept:?}");
            let there = stores.get("n".into()).await;
            assert_eq!(there, Ok(Some((-2i64).to_le_bytes().to_vec())));
            let error = stores.increment("n".into(), i64::MIN).await;
            assert!(error.is_err_and(|it| it.contains("beyond 64 bits")));
        }
    }

    #[tokio::test]
    async fn bounds_are_named_in_the_error() {
        let stores = Stores::open(&Kept::Memory, LABEL).expect("opens");
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
