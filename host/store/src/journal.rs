//! Where changes are written down before they are acknowledged: a log that is appended to, and the file (redb) it is
//! folded into once a second.
//!
//! A change is answered when it is in the log: written to the operating system, which outlives the process whatever ends
//! it; with [`Sync::Disk`] flushed to the disk, which outlives a power cut too. The file is flushed at every fold, and the
//! part of the log it holds is deleted only then. A record of the log that was cut short is known by its checksum and was
//! never acknowledged.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use bytes::Bytes;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use tokio::sync::oneshot;

use crate::shelf::{Change, Key, Record};

const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");
/// How often the log is folded into the file.
const FOLD_EVERY: Duration = Duration::from_secs(1);
/// Bytes of the log that make it be folded sooner.
const FOLD_AT: u64 = 32 * 1024 * 1024;
/// Bytes of the file that redb keeps in memory.
const CACHE: usize = 16 * 1024 * 1024;
/// Changes written together at most.
const TOGETHER: usize = 1024;

/// When a change is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Sync {
    /// Written to the operating system: survives the end of the process; a power cut can cost the last second.
    Os,
    /// Flushed to the disk: survives a power cut too, at the cost of a flush for each group of writes.
    Disk,
}

struct Entry {
    changes: Vec<Change>,
    written: oneshot::Sender<Result<(), String>>,
}

/// The log and the file, each with its thread.
pub struct Journal {
    entries: Option<Sender<Entry>>,
    thread: Option<JoinHandle<()>>,
    /// How often the log was folded.
    pub folds: Arc<AtomicU64>,
}

impl Journal {
    /// Opens the file and hands over all that is in it and in its logs, in order.
    pub fn open(
        file: &Path,
        sync: Sync,
        mut restore: impl FnMut(Key, Option<Record>),
    ) -> anyhow::Result<Self> {
        // What is in the file is in memory already: a small cache of its pages is enough.
        let database = Database::builder()
            .set_cache_size(CACHE)
            .create(file)
            .map_err(|error| match error {
                redb::DatabaseError::DatabaseAlreadyOpen => {
                    anyhow!("{} is in use by another store", file.display())
                }
                other => anyhow::Error::new(other)
                    .context(format!("{} cannot be opened as a store", file.display())),
            })?;
        read(&database, &mut restore)
            .with_context(|| format!("{} cannot be read", file.display()))?;
        let logs = Logs::of(file)?;
        let mut left = Pending::new();
        for log in &logs.found {
            for (key, record) in changes_of(log)? {
                restore(key.clone(), record.clone());
                left.insert(key, record.map(Arc::new));
            }
        }
        fold(&database, &left).with_context(|| format!("{} cannot be written", file.display()))?;
        for log in &logs.found {
            fs::remove_file(log).with_context(|| format!("{} cannot be removed", log.display()))?;
        }
        let folds = Arc::new(AtomicU64::new(0));
        let log = Log::create(logs.path(0))
            .with_context(|| format!("no log can be written beside {}", file.display()))?;
        let (entries, incoming) = channel();
        let (folder, folding) = channel();
        let counted = folds.clone();
        let folder_thread = std::thread::Builder::new()
            .name("fold".to_owned())
            .spawn(move || fold_all(&database, &folding, &counted))?;
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || {
                write_all(&incoming, &folder, log, &logs, sync);
                drop(folder);
                let _ = folder_thread.join();
            })?;
        Ok(Self {
            entries: Some(entries),
            thread: Some(thread),
            folds,
        })
    }

    /// Writes changes down, in the order of the calls; the receiver hears when they are safe. To be called under the
    /// lock under which the changes were made.
    pub fn write(&self, changes: Vec<Change>) -> oneshot::Receiver<Result<(), String>> {
        let (written, receiver) = oneshot::channel();
        if let Some(entries) = &self.entries {
            // A dead thread drops the sender, which the receiver hears as a failure.
            let _ = entries.send(Entry { changes, written });
        }
        receiver
    }
}

impl Drop for Journal {
    /// Everything is in the file and flushed when this returns.
    fn drop(&mut self) {
        self.entries = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

type Pending = HashMap<Key, Option<Arc<Record>>>;

fn write_all(
    incoming: &Receiver<Entry>,
    folder: &Sender<(Pending, PathBuf)>,
    mut log: Log,
    logs: &Logs,
    sync: Sync,
) {
    let mut pending = Pending::new();
    let mut since = Instant::now();
    let mut number = 0;
    let mut buffer = Vec::new();
    loop {
        let first = match incoming.recv_timeout(FOLD_EVERY) {
            Ok(entry) => Some(entry),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        let mut group: Vec<Entry> = first.into_iter().collect();
        while !group.is_empty() && group.len() < TOGETHER {
            match incoming.try_recv() {
                Ok(entry) => group.push(entry),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        buffer.clear();
        for (key, record) in group.iter().flat_map(|entry| &entry.changes) {
            append(&mut buffer, key, record.as_deref());
        }
        let written = log.write(&buffer, sync).map_err(|error| error.to_string());
        for entry in group {
            // What failed is in memory still: it is folded with the rest when the disk is well again.
            pending.extend(entry.changes);
            let _ = entry.written.send(written.clone());
        }
        if !pending.is_empty() && (since.elapsed() >= FOLD_EVERY || log.length >= FOLD_AT) {
            since = Instant::now();
            match Log::create(logs.path(number + 1)) {
                Ok(next) => {
                    let full = std::mem::replace(&mut log, next);
                    number += 1;
                    let _ = folder.send((std::mem::take(&mut pending), full.path));
                }
                Err(error) => {
                    tracing::error!(%error, "no new log can be written: the old one grows")
                }
            }
        }
    }
    let _ = folder.send((pending, log.path));
}

fn fold_all(database: &Database, folding: &Receiver<(Pending, PathBuf)>, folds: &AtomicU64) {
    let (mut pending, mut done) = (Pending::new(), Vec::new());
    while let Ok((changes, log)) = folding.recv() {
        pending.extend(changes);
        done.push(log);
        while let Ok((changes, log)) = folding.try_recv() {
            pending.extend(changes);
            done.push(log);
        }
        match fold(database, &pending) {
            Ok(()) => {
                pending.clear();
                folds.fetch_add(1, Ordering::Relaxed);
                for log in done.drain(..) {
                    if let Err(error) = fs::remove_file(&log) {
                        tracing::warn!(%error, log = %log.display(), "a log that is folded stays");
                    }
                }
            }
            // The logs stay and hold it: tried again with the next.
            Err(error) => tracing::error!(%error, "the file cannot be written"),
        }
    }
}

fn fold(database: &Database, pending: &Pending) -> anyhow::Result<()> {
    let mut transaction = database.begin_write()?;
    // A start after a kill then reads a saved list of free pages instead of the whole file.
    transaction.set_quick_repair(true);
    {
        let mut table = transaction.open_table(RECORDS)?;
        for (key, record) in pending {
            match record {
                Some(record) => {
                    table.insert(&key[..], &encoded(record)[..])?;
                }
                None => {
                    table.remove(&key[..])?;
                }
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

fn read(database: &Database, restore: &mut impl FnMut(Key, Option<Record>)) -> anyhow::Result<()> {
    let transaction = database.begin_read()?;
    let table = match transaction.open_table(RECORDS) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(()),
        Err(other) => return Err(other.into()),
    };
    for entry in table.iter()? {
        let (key, value) = entry?;
        match decoded(value.value()) {
            Some(record) => restore(Key::from(key.value()), Some(record)),
            None => tracing::warn!("a record of another layout is passed over"),
        }
    }
    Ok(())
}

/// The logs of a file: `<file>.log.<number>`.
struct Logs {
    file: PathBuf,
    found: Vec<PathBuf>,
    next: u64,
}

impl Logs {
    fn of(file: &Path) -> anyhow::Result<Self> {
        let name = file.file_name().context("the file has no name")?;
        let start = format!("{}.log.", name.to_string_lossy());
        let folder = match file.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let mut found = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let number = name.to_string_lossy();
            if let Some(number) = number
                .strip_prefix(&start)
                .and_then(|it| it.parse::<u64>().ok())
            {
                found.push((number, entry.path()));
            }
        }
        found.sort();
        let next = found.last().map_or(0, |(number, _)| number + 1);
        Ok(Self {
            file: file.to_owned(),
            found: found.into_iter().map(|(_, path)| path).collect(),
            next,
        })
    }

    fn path(&self, number: u64) -> PathBuf {
        let mut name = self.file.clone().into_os_string();
        name.push(format!(".log.{}", self.next + number));
        name.into()
    }
}

struct Log {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Log {
    fn create(path: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new()
            .create_new(true)
            .append(true)
            .open(&path)?;
        Ok(Self {
            path,
            file,
            length: 0,
        })
    }

    /// All of it, or the log is as it was.
    fn write(&mut self, bytes: &[u8], sync: Sync) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let result = self.file.write_all(bytes).and_then(|()| match sync {
            Sync::Os => Ok(()),
            Sync::Disk => self.file.sync_data(),
        });
        match result {
            Ok(()) => {
                self.length += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                Ok(())
            }
            Err(error) => {
                self.file.set_len(self.length)?;
                Err(error)
            }
        }
    }
}

/// Length, checksum, then a byte (1: there, 0: gone), the key's length and the key, and the record.
fn append(out: &mut Vec<u8>, key: &[u8], record: Option<&Record>) {
    let mut body = vec![u8::from(record.is_some())];
    put_bytes(&mut body, key);
    if let Some(record) = record {
        body.extend(encoded(record));
    }
    out.extend(length_of(&body));
    out.extend(checksum(&body).to_le_bytes());
    out.extend(body);
}

/// The changes of a log, up to where it was cut short.
fn changes_of(log: &Path) -> anyhow::Result<Vec<(Key, Option<Record>)>> {
    let mut bytes = Vec::new();
    File::open(log)
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .with_context(|| format!("{} cannot be read", log.display()))?;
    let mut rest = &bytes[..];
    let mut changes = Vec::new();
    while let Some((change, tail)) = next_change(rest) {
        changes.push(change);
        rest = tail;
    }
    if !rest.is_empty() {
        tracing::info!(log = %log.display(), bytes = rest.len(), "the log was cut short: what was not acknowledged is dropped");
    }
    Ok(changes)
}

type Restored = (Key, Option<Record>);

fn next_change(bytes: &[u8]) -> Option<(Restored, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<8>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (body, rest) = rest.split_at_checked(length)?;
    if checksum(body) != u64::from_le_bytes(*sum) {
        return None;
    }
    let (&there, mut body) = body.split_first()?;
    let key = Key::from(take_bytes(&mut body)?);
    let record = match there {
        1 => Some(decoded(body)?),
        _ => None,
    };
    Some(((key, record), rest))
}

fn encoded(record: &Record) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + record.uri.len() + record.value.len());
    out.extend(record.version.to_le_bytes());
    out.extend(record.expires.to_le_bytes());
    put_bytes(&mut out, &record.uri);
    out.extend(
        u32::try_from(record.groups.len())
            .unwrap_or(u32::MAX)
            .to_le_bytes(),
    );
    for group in &record.groups {
        put_bytes(&mut out, group.as_bytes());
    }
    out.extend_from_slice(&record.value);
    out
}

fn decoded(bytes: &[u8]) -> Option<Record> {
    let (version, rest) = bytes.split_first_chunk::<8>()?;
    let (expires, mut rest) = rest.split_first_chunk::<8>()?;
    let uri = take_bytes(&mut rest)?.to_vec();
    let (count, mut rest) = rest.split_first_chunk::<4>()?;
    let mut groups = Vec::new();
    for _ in 0..u32::from_le_bytes(*count) {
        groups.push(String::from_utf8(take_bytes(&mut rest)?.to_vec()).ok()?);
    }
    Some(Record {
        version: u64::from_le_bytes(*version),
        expires: u64::from_le_bytes(*expires),
        uri,
        groups,
        value: Bytes::copy_from_slice(rest),
    })
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(length_of(bytes));
    out.extend_from_slice(bytes);
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, tail) = rest.split_first_chunk::<4>()?;
    let (bytes, tail) =
        tail.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    *rest = tail;
    Some(bytes)
}

fn length_of(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes()
}

/// FNV-1a over words of 8 bytes: tells a cut or torn record, not a forged one.
fn checksum(bytes: &[u8]) -> u64 {
    let mix = |sum: u64, word: u64| (sum ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
    let (words, tail) = bytes.as_chunks::<8>();
    let sum = words.iter().fold(0xcbf2_9ce4_8422_2325, |sum, word| {
        mix(sum, u64::from_le_bytes(*word))
    });
    let sum = tail
        .iter()
        .fold(sum, |sum, byte| mix(sum, u64::from(*byte)));
    mix(sum, u64::try_from(bytes.len()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(value: &'static str) -> Record {
        Record {
            version: 7,
            expires: 9,
            uri: b"u".to_vec(),
            groups: vec!["g".to_owned(), "h".to_owned()],
            value: Bytes::from(value),
        }
    }

    #[test]
    fn a_log_cut_anywhere_gives_what_is_whole_before_the_cut() {
        let mut bytes = Vec::new();
        append(&mut bytes, b"ka", Some(&record("one")));
        let first = bytes.len();
        append(&mut bytes, b"kb", None);
        let second = bytes.len();
        for cut in 0..=second {
            let folder = tempfile::tempdir().expect("a folder");
            let log = folder.path().join("x.log.0");
            fs::write(&log, &bytes[..cut]).expect("written");
            let changes = changes_of(&log).expect("read");
            assert_eq!(
                changes.len(),
                usize::from(cut >= first) + usize::from(cut == second)
            );
            if cut == second {
                assert_eq!(changes[0], (Key::from(&b"ka"[..]), Some(record("one"))));
            }
        }
    }

    #[test]
    fn a_flipped_bit_ends_the_log() {
        let mut bytes = Vec::new();
        append(&mut bytes, b"ka", Some(&record("one")));
        for at in 0..bytes.len() {
            let mut spoiled = bytes.clone();
            spoiled[at] ^= 4;
            assert!(next_change(&spoiled).is_none(), "{at}");
        }
    }
}
