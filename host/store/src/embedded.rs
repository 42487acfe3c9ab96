//! The embedded back-end: everything in memory under one lock, every change written down before it is acknowledged.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::{Value, json};

use crate::backend::{Decided, Failure, Found, Put};
use crate::decision::limit_name;
use crate::journal::{Journal, Sync};
use crate::limit::{self, Kept as Counted, Limit, State};
use crate::news::Board;
use crate::pattern::What;
use crate::shelf::{self, Bounds, Change, Deleted, Record, Shelf, Space, Written};
use crate::wire::{Ask, Condition};

/// How often what is past its time is let go.
const SWEEP_EVERY: Duration = Duration::from_millis(250);
/// Records let go at one sweep: the lock is held for a moment only.
const SWEEP_MOST: usize = 4096;

/// Everything in this process.
pub struct Embedded {
    kept: Arc<Kept>,
    bounds: Bounds,
    file: Option<(PathBuf, Sync)>,
    board: Board,
    sweeper: tokio::task::JoinHandle<()>,
}

struct Kept {
    shelf: Mutex<Shelf>,
    journal: Option<Journal>,
    failing: AtomicBool,
}

impl Embedded {
    /// In memory, and in a file where one is given. Must be called within a tokio runtime.
    pub fn open(file: Option<(&Path, Sync)>, bounds: Bounds) -> anyhow::Result<Self> {
        let mut shelf = Shelf::new(bounds);
        let journal = match file {
            Some((path, sync)) => Some(Journal::open(path, sync, |key, record| match record {
                Some(record) => shelf.restore(key, record),
                None => shelf.forget(&key),
            })?),
            None => None,
        };
        let kept = Arc::new(Kept {
            shelf: Mutex::new(shelf),
            journal,
            failing: AtomicBool::new(false),
        });
        let swept = kept.clone();
        let sweeper = tokio::spawn(async move {
            let mut every = tokio::time::interval(SWEEP_EVERY);
            loop {
                every.tick().await;
                let done =
                    swept.change(|shelf, changes| shelf.sweep(millis(), SWEEP_MOST, changes));
                // Nobody waits for it, and what stays in the file is past its time when it is read again.
                let _ = done.1.await;
            }
        });
        Ok(Self {
            kept,
            bounds,
            file: file.map(|(path, sync)| (path.to_owned(), sync)),
            board: Board::new(),
            sweeper,
        })
    }

    /// What edges tell one another.
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// Reads a key.
    pub fn get(&self, space: Space, name: &[u8]) -> Option<Found> {
        let now = millis();
        let key = shelf::key(space, name);
        let shelf = self.kept.shelf();
        let record = shelf.get(&key, now)?;
        Some(Found {
            version: record.version,
            left: Duration::from_millis(record.expires - now),
            value: record.value.clone(),
        })
    }

    /// Writes a key when the condition holds.
    pub async fn put(
        &self,
        space: Space,
        name: &[u8],
        put: Put,
        condition: Condition,
    ) -> Result<Written, Failure> {
        let key = shelf::key(space, name);
        let (written, done) = self.kept.change(|shelf, changes| {
            let now = millis();
            let ttl = u64::try_from(put.ttl.as_millis()).unwrap_or(u64::MAX);
            let record = Record {
                version: 0,
                expires: now.saturating_add(ttl),
                uri: put.uri,
                groups: put.groups,
                value: put.value,
            };
            shelf.put(key, record, condition, now, changes)
        });
        done.await?;
        Ok(written)
    }

    /// Deletes a key when the condition holds.
    pub async fn delete(
        &self,
        space: Space,
        name: &[u8],
        condition: Condition,
    ) -> Result<Deleted, Failure> {
        let key = shelf::key(space, name);
        let (deleted, done) = self
            .kept
            .change(|shelf, changes| shelf.delete(&key, condition, millis(), changes));
        done.await?;
        Ok(deleted)
    }

    /// Forgets what is named.
    pub async fn invalidate(&self, space: Space, what: &What) -> Result<(), Failure> {
        let (_, done) = self
            .kept
            .change(|shelf, changes| shelf.invalidate(space, what, changes));
        done.await
    }

    /// Decides at the time of this machine.
    pub async fn limit(&self, asks: &[Ask]) -> Result<Decided, Failure> {
        self.limit_at(asks, nanos()).await
    }

    /// Decides at `now`, nanoseconds since the epoch.
    pub async fn limit_at(&self, asks: &[Ask], now: u64) -> Result<Decided, Failure> {
        let (decisions, done) = self.kept.change(|shelf, changes| {
            let decide = |ask| decide(shelf, ask, now, changes);
            asks.iter().map(decide).collect::<Result<Vec<_>, Failure>>()
        });
        done.await?;
        Ok(Decided {
            now,
            decisions: decisions?,
        })
    }

    /// Fails as long as changes cannot be written down.
    pub fn health(&self) -> Result<(), Failure> {
        match self.kept.failing.load(Ordering::Relaxed) {
            true => Err(Failure::Disk("the last write failed".to_owned())),
            false => Ok(()),
        }
    }

    /// What is kept and what happened.
    pub fn stats(&self) -> Value {
        let shelf = self.kept.shelf();
        let counts = shelf.counts();
        let spaces: serde_json::Map<String, Value> = Space::ALL
            .into_iter()
            .map(|space| (space.name().to_owned(), shelf.count(space).into()))
            .collect();
        let folds = self.kept.journal.as_ref();
        json!({
            "backend": if self.file.is_some() { "embedded" } else { "memory" },
            "keys": shelf.len(),
            "bytes": shelf.bytes(),
            "max_keys": self.bounds.keys,
            "max_bytes": self.bounds.bytes,
            "spaces": spaces,
            "expired": counts.expired,
            "evicted": counts.evicted,
            "refused": counts.refused,
            "folds": folds.map(|journal| journal.folds.load(Ordering::Relaxed)),
        })
    }

    /// What it is, in a line.
    pub fn describe(&self) -> String {
        let bounds = format!(
            "at most {} keys, {} MiB",
            self.bounds.keys,
            self.bounds.bytes / 1024 / 1024
        );
        match &self.file {
            Some((file, sync)) => {
                let sync = match sync {
                    Sync::Os => "written to the operating system before each answer",
                    Sync::Disk => "flushed to the disk before each answer",
                };
                format!("embedded, in {} ({sync}), {bounds}", file.display())
            }
            None => format!("memory only, lost when it ends, {bounds}"),
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.sweeper.abort();
    }
}

impl Kept {
    /// Changes what is kept; the future is done when that is written down. Both orders are the same: the lock is held.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut Shelf, &mut Vec<Change>) -> T,
    ) -> (T, impl Future<Output = Result<(), Failure>>) {
        let mut changes = Vec::new();
        let mut shelf = self.shelf();
        let result = change(&mut shelf, &mut changes);
        let written = self
            .journal
            .as_ref()
            .filter(|_| !changes.is_empty())
            .map(|journal| journal.write(changes));
        drop(shelf);
        let done = async move {
            let Some(written) = written else {
                return Ok(());
            };
            let result = match written.await {
                Ok(result) => result.map_err(Failure::Disk),
                Err(_) => Err(Failure::Disk("the journal's thread is gone".to_owned())),
            };
            self.failing.store(result.is_err(), Ordering::Relaxed);
            result
        };
        (result, done)
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn decide(
    shelf: &mut Shelf,
    ask: &Ask,
    now: u64,
    changes: &mut Vec<Change>,
) -> Result<Vec<limit::Standing>, Failure> {
    let key = shelf::key(Space::Limits, &limit_name(ask));
    // A state past its time says nothing that an absent one does not.
    let before = shelf
        .any(&key)
        .and_then(|record| counted(&record.value, &ask.limits));
    let decision = ask.decide(before.as_ref(), now);
    if let Some(after) = &decision.after {
        let record = Record {
            version: 0,
            expires: limit::expires(&ask.limits, &after.states).div_ceil(1_000_000),
            uri: Vec::new(),
            groups: Vec::new(),
            value: packed(after),
        };
        let millis = now / 1_000_000;
        if shelf.put(key, record, Condition::Any, millis, changes) == Written::Full {
            return Err(Failure::Full);
        }
    }
    Ok(decision.standings)
}

/// The states, then when they were written.
fn packed(counted: &Counted) -> Bytes {
    let mut out = Vec::with_capacity(counted.states.len() * 16 + 8);
    for state in &counted.states {
        match state {
            State::Gcra(tat) => out.extend(tat.to_le_bytes()),
            State::Window {
                index,
                previous,
                current,
            } => {
                out.extend(index.to_le_bytes());
                out.extend(previous.to_le_bytes());
                out.extend(current.to_le_bytes());
            }
        }
    }
    out.extend(counted.written.map(u64::to_le_bytes).into_iter().flatten());
    out.into()
}

fn counted(value: &[u8], limits: &[Limit]) -> Option<Counted> {
    let mut rest = value;
    let mut states = Vec::with_capacity(limits.len());
    for limit in limits {
        let (first, tail) = rest.split_first_chunk::<8>()?;
        let first = u64::from_le_bytes(*first);
        rest = tail;
        states.push(match limit {
            Limit::Gcra { .. } => State::Gcra(first),
            Limit::Window { .. } => {
                let (previous, tail) = rest.split_first_chunk::<4>()?;
                let (current, tail) = tail.split_first_chunk::<4>()?;
                rest = tail;
                State::Window {
                    index: first,
                    previous: u32::from_le_bytes(*previous),
                    current: u32::from_le_bytes(*current),
                }
            }
        });
    }
    let written = match rest {
        // As they were before the time was kept.
        [] => None,
        rest => Some(u64::from_le_bytes(rest.try_into().ok()?)),
    };
    Some(Counted { states, written })
}

fn nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |it| u64::try_from(it.as_nanos()).unwrap_or(u64::MAX))
}

fn millis() -> u64 {
    nanos() / 1_000_000
}
