//! Reloading: what is watched, what generations there are, and how reloads went.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc::{Receiver, channel};

use crate::config::Config;
use crate::serve::tls;

/// How long files must have been left alone before they are read: a build writes several.
const QUIET: Duration = Duration::from_millis(300);

/// How reloads of one host went; they outlive each generation.
#[derive(Default)]
pub struct Reloads {
    /// Reloads that were taken on.
    pub good: AtomicU64,
    /// Reloads that were not: the generation before them serves on.
    pub bad: AtomicU64,
    alive: Arc<AtomicUsize>,
    last_error: Mutex<Option<String>>,
}

impl Reloads {
    /// A generation that begins.
    pub fn generation(&self) -> Generation {
        self.alive.fetch_add(1, Relaxed);
        Generation(Arc::new(Alive(self.alive.clone())))
    }

    /// Generations that still have something to do: one, and those whose exchanges have not ended.
    pub fn alive(&self) -> usize {
        self.alive.load(Relaxed)
    }

    /// Notes a reload.
    pub fn note(&self, outcome: Result<(), String>) {
        let mut last = self
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(()) => {
                self.good.fetch_add(1, Relaxed);
                *last = None;
            }
            Err(error) => {
                self.bad.fetch_add(1, Relaxed);
                *last = Some(error);
            }
        }
    }

    /// Why the last reload was not taken on; `None` when it was.
    pub fn last_error(&self) -> Option<String> {
        self.last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Keeps a generation counted as alive.
#[derive(Clone)]
pub struct Generation(#[expect(dead_code, reason = "held")] Arc<Alive>);

struct Alive(Arc<AtomicUsize>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// The files a configuration consists of: its own, modules, certificates and keys.
pub fn files(config: &Config) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    files.insert(config.source.file.clone());
    let modules = config.filters.values();
    files.extend(modules.map(|filter| config.resolve(filter.module.get_ref())));
    for tls in config.listeners.iter().filter_map(|it| it.tls.as_ref()) {
        files.extend(tls::files(config, tls));
    }
    let upstreams = config.upstreams.values();
    let roots = upstreams.filter_map(|it| it.tls.as_ref()?.ca.as_ref());
    files.extend(roots.map(|file| config.resolve(file.get_ref())));
    files
}

/// Says when files are not what they were.
pub struct Changes {
    watcher: RecommendedWatcher,
    events: Receiver<()>,
    folders: BTreeSet<PathBuf>,
    seen: BTreeMap<PathBuf, Option<Stamp>>,
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Changes {
    /// Watches files. Folders are watched, not files: editors and deployments put new files in the place of old ones, and
    /// what a symbolic link leads to may change.
    pub fn watch(files: &BTreeSet<PathBuf>) -> anyhow::Result<Self> {
        let (told, events) = channel(1);
        let watcher = notify::recommended_watcher(move |_: notify::Result<notify::Event>| {
            // One waits already: that is enough.
            let _ = told.try_send(());
        })
        .context("files cannot be watched")?;
        let mut changes = Self {
            watcher,
            events,
            folders: BTreeSet::new(),
            seen: BTreeMap::new(),
        };
        changes.follow(files)?;
        Ok(changes)
    }

    /// Watches these files and no others from now on.
    pub fn follow(&mut self, files: &BTreeSet<PathBuf>) -> anyhow::Result<()> {
        let folders: BTreeSet<PathBuf> = files.iter().flat_map(|file| folders_of(file)).collect();
        for gone in self.folders.difference(&folders) {
            let _ = self.watcher.unwatch(gone);
        }
        for new in folders.difference(&self.folders) {
            self.watcher
                .watch(new, RecursiveMode::NonRecursive)
                .with_context(|| format!("{} cannot be watched", new.display()))?;
        }
        self.folders = folders;
        self.seen = files
            .iter()
            .map(|file| (file.clone(), stamp(file)))
            .collect();
        Ok(())
    }

    /// Waits until one of the files has changed and all are left alone.
    pub async fn next(&mut self) {
        loop {
            if self.events.recv().await.is_none() {
                return std::future::pending().await;
            }
            while let Ok(Some(())) = tokio::time::timeout(QUIET, self.events.recv()).await {}
            let mut changed = false;
            for (file, seen) in &mut self.seen {
                let now = stamp(file);
                // A file that is gone for a moment is about to be written.
                if now.is_some() && *seen != now {
                    *seen = now;
                    changed = true;
                }
            }
            if changed {
                return;
            }
        }
    }
}

/// The folder a file is named in, and the one it is really in.
fn folders_of(file: &Path) -> Vec<PathBuf> {
    let absolute = std::path::absolute(file).ok();
    let real = file.canonicalize().ok();
    let of = |file: Option<PathBuf>| file.and_then(|file| file.parent().map(Path::to_owned));
    of(absolute).into_iter().chain(of(real)).collect()
}

fn stamp(file: &Path) -> Option<Stamp> {
    let of = |meta: Metadata| Stamp {
        inode: meta.ino(),
        size: meta.size(),
        changed: (meta.mtime(), meta.mtime_nsec()),
    };
    std::fs::metadata(file).ok().map(of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_is_told_once_and_only_of_what_is_watched() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.toml");
        std::fs::write(&file, "1").unwrap();
        let files = BTreeSet::from([file.clone()]);
        let mut changes = Changes::watch(&files).unwrap();
        let soon = Duration::from_millis(1_500);
        std::fs::write(folder.path().join("other"), "1").unwrap();
        assert!(
            tokio::time::timeout(soon, changes.next()).await.is_err(),
            "another file"
        );
        std::fs::write(&file, "12").unwrap();
        tokio::time::timeout(soon * 4, changes.next())
            .await
            .expect("written in place");
        assert!(
            tokio::time::timeout(soon, changes.next()).await.is_err(),
            "told twice"
        );
        std::fs::write(folder.path().join("new"), "34").unwrap();
        std::fs::rename(folder.path().join("new"), &file).unwrap();
        tokio::time::timeout(soon * 4, changes.next())
            .await
            .expect("another in its place");
    }

    #[test]
    fn generations_are_counted_until_the_last_holder_goes() {
        let reloads = Reloads::default();
        let first = reloads.generation();
        let exchange = first.clone();
        let second = reloads.generation();
        drop(first);
        assert_eq!(reloads.alive(), 2);
        drop(exchange);
        assert_eq!(reloads.alive(), 1);
        reloads.note(Err("line 3".to_owned()));
        assert_eq!(reloads.last_error().as_deref(), Some("line 3"));
        reloads.note(Ok(()));
        assert_eq!(reloads.last_error(), None);
        drop(second);
    }
}
