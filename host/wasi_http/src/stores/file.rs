//! A store in a file of SQLite, as Spin keeps it: either may open what the other wrote, also at the same time.

use std::path::Path;
use std::sync::{Arc, Mutex};

use edgeweir_host_chain::lock;
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

use super::{ENTRY, number, room, size};
use crate::databases::{self, refused};

/// One label's part of a file, which may hold several.
pub(crate) struct File {
    label: String,
    kept: Mutex<Kept>,
}

struct Kept {
    connection: Connection,
    /// What this process knows to be in it.
    bytes: u64,
}

impl File {
    pub(super) fn open(path: &Path, label: &str) -> anyhow::Result<Self> {
        let connection = databases::open(path)?;
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS spin_key_value (
                store TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (store, key)
            )",
        )?;
        let bytes: i64 = connection.query_row(
            "SELECT COALESCE(SUM(LENGTH(CAST(key AS BLOB)) + LENGTH(value) + ?2), 0)
             FROM spin_key_value WHERE store = ?1",
            params![label, ENTRY.cast_signed()],
            |row| row.get(0),
        )?;
        let kept = Kept {
            connection,
            bytes: bytes.unsigned_abs(),
        };
        Ok(Self {
            label: label.to_owned(),
            kept: Mutex::new(kept),
        })
    }

    pub(super) fn get(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        let kept = lock(&self.kept);
        self.value(&kept.connection, key).map_err(refused)
    }

    pub(super) fn keys(&self) -> Result<Vec<String>, String> {
        let kept = lock(&self.kept);
        let all = "SELECT key FROM spin_key_value WHERE store = ?1 ORDER BY key";
        let mut asked = kept.connection.prepare_cached(all).map_err(refused)?;
        let keys = asked
            .query_map([&self.label], |row| row.get(0))
            .map_err(refused)?;
        keys.collect::<Result<_, _>>().map_err(refused)
    }

    pub(super) fn set(&self, key: &str, value: &[u8]) -> Result<u64, String> {
        self.change(key, |_| Ok((Some(value.to_vec()), ())))
            .map(|(bytes, ())| bytes)
    }

    pub(super) fn delete(&self, key: &str) -> Result<u64, String> {
        self.change(key, |_| Ok((None, ())))
            .map(|(bytes, ())| bytes)
    }

    pub(super) fn swap(&self, key: &str, old: Option<&[u8]>, new: Vec<u8>) -> Result<bool, String> {
        let (_, swapped) = self.change(key, |there| match there.as_deref() == old {
            true => Ok((Some(new), true)),
            false => Ok((there, false)),
        })?;
        Ok(swapped)
    }

    pub(super) fn increment(&self, key: &str, delta: i64) -> Result<i64, String> {
        let (_, after) = self.change(key, |there| {
            let after = number(there.as_deref(), delta)?;
            Ok((Some(after.to_le_bytes().to_vec()), after))
        })?;
        Ok(after)
    }

    /// Puts in place of a value what is made of it, which nobody comes between, and gives the bytes then kept.
    fn change<T>(
        &self,
        key: &str,
        make: impl FnOnce(Option<Vec<u8>>) -> Result<(Option<Vec<u8>>, T), String>,
    ) -> Result<(u64, T), String> {
        let mut kept = lock(&self.kept);
        let Kept { connection, bytes } = &mut *kept;
        let change = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(refused)?;
        let there = self.value(&change, key).map_err(refused)?;
        let old = there.as_ref().map_or(0, |old| size(key, old.len()));
        let (new, told) = make(there)?;
        let after = match new {
            Some(value) => {
                let after = room(*bytes, old, size(key, value.len()))?;
                let set = "INSERT INTO spin_key_value (store, key, value) VALUES (?1, ?2, ?3)
                           ON CONFLICT (store, key) DO UPDATE SET value = ?3";
                let mut set = change.prepare_cached(set).map_err(refused)?;
                set.execute(params![self.label, key, value])
                    .map_err(refused)?;
                after
            }
            None => {
                let delete = "DELETE FROM spin_key_value WHERE store = ?1 AND key = ?2";
                let mut delete = change.prepare_cached(delete).map_err(refused)?;
                delete.execute([&self.label, key]).map_err(refused)?;
                bytes.saturating_sub(old)
            }
        };
        change.commit().map_err(refused)?;
        *bytes = after;
        Ok((after, told))
    }

    fn value(&self, connection: &Connection, key: &str) -> rusqlite::Result<Option<Vec<u8>>> {
        connection
            .prepare_cached("SELECT value FROM spin_key_value WHERE store = ?1 AND key = ?2")?
            .query_row([&self.label, key], |row| row.get(0))
            .optional()
    }
}

/// Runs what waits for a disk where that holds up nobody else.
pub(super) async fn blocking<T: Send + 'static>(
    file: &Arc<File>,
    work: impl FnOnce(&File) -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let file = file.clone();
    let done = tokio::task::spawn_blocking(move || work(&file)).await;
    done.map_err(|error| error.to_string()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Spin 4 makes when it finds no file (`spin up`, then one `set` of a component).
    const SPINS: &str = "CREATE TABLE spin_key_value (
                           store TEXT NOT NULL,
                           key   TEXT NOT NULL,
                           value BLOB NOT NULL,

                           PRIMARY KEY (store, key)
                        );
        INSERT INTO spin_key_value VALUES ('default', 'k', x'0102'), ('other', 'k', x'03'), ('default', 'ü', x'04')";

    #[test]
    fn a_file_of_spin_is_read_and_written_as_spin_does() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("sqlite_key_value.db");
        let spin = Connection::open(&path).expect("opens");
        spin.execute_batch(SPINS).expect("made");
        let file = File::open(&path, "default").expect("opens");
        assert_eq!(file.get("k"), Ok(Some(vec![1, 2])));
        assert_eq!(file.keys(), Ok(vec!["k".to_owned(), "ü".to_owned()]));
        // Two entries, of 1 + 2 and 2 + 1 bytes.
        assert_eq!(file.set("new", b"12345"), Ok(3 * ENTRY + 6 + 8));
        assert_eq!(file.delete("ü"), Ok(2 * ENTRY + 3 + 8));
        let seen = |store: &str, key: &str| -> Option<Vec<u8>> {
            let asked = "SELECT value FROM spin_key_value WHERE store = ?1 AND key = ?2";
            let found = spin.query_row(asked, [store, key], |row| row.get(0));
            found.optional().expect("asked")
        };
        assert_eq!(seen("default", "new"), Some(b"12345".to_vec()));
        assert_eq!(seen("default", "ü"), None);
        assert_eq!(seen("other", "k"), Some(vec![3]));
        let other = File::open(&path, "other").expect("opens");
        assert_eq!(other.keys(), Ok(vec!["k".to_owned()]));
    }

    #[test]
    fn what_is_no_database_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("text");
        std::fs::write(&path, "no database, but long enough to be looked at").expect("written");
        let error = File::open(&path, "default").err().expect("refused");
        assert!(error.to_string().contains("not a database"), "{error:#}");
    }

    #[test]
    fn what_was_written_is_there_for_who_opens_it_next() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("new.db");
        let bytes = File::open(&path, "a").expect("opens").set("k", b"1");
        let file = File::open(&path, "a").expect("opens");
        assert_eq!(file.get("k"), Ok(Some(b"1".to_vec())));
        assert_eq!(
            file.set("l", b"1"),
            bytes.map(|bytes| 2 * bytes),
            "it counts on"
        );
    }
}
