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

/// The files a configuration consists of: its own, modules, certificates and keys, the token of the admin pages.
pub fn files(config: &Config) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    files.insert(config.source.file.clone());
    for filter in config.filters.values() {
        match &filter.link {
            Some(link) => files.extend(link.files().cloned()),
            None => files.extend([config.resolve(filter.module.get_ref())]),
        }
    }
    for tls in config.listeners.iter().filter_map(|it| it.tls.as_ref()) {
        files.extend(tls::files(config, tls));
    }
    let upstreams = config.upstreams.values();
    let roots = upstreams.filter_map(|it| it.tls.as_ref()?.ca.as_ref());
    files.extend(roots.map(|file| config.resolve(file.get_ref())));
    let token = config.admin.as_ref().and_then(|it| it.token_file.as_ref());
    files.extend(token.map(|file| config.resolve(file.get_ref())));
    files
}

/// Says when files are not what they were.
pub struct Changes {
    watcher: RecommendedWatcher,
    events: Receiver<()>,
    /// Something happened, and the files have not been looked at since.
    told: bool,
    complained: bool,
    folders: BTreeSet<PathBuf>,
    /// Each file as it was before it was read.
    seen: BTreeMap<PathBuf, Option<Stamp>>,
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

/// How often a folder that comes and goes is looked for at once.
const TRIES: usize = 5;

impl Changes {
    /// Watches files, which are to be read after this. Folders are watched, not files: editors and deployments put new files
    /// in the place of old ones, and what a symbolic link leads to may change.
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
            told: false,
            complained: false,
            folders: BTreeSet::new(),
            seen: BTreeMap::new(),
        };
        changes.follow(files)?;
        Ok(changes)
    }

    /// Watches these files and no others from now on. New ones are to be read after this; those that were watched already
    /// may have changed since they were read, which is still told.
    pub fn follow(&mut self, files: &BTreeSet<PathBuf>) -> anyhow::Result<()> {
        let known = std::mem::take(&mut self.seen);
        self.seen = files.iter().map(|file| (file.clone(), None)).collect();
        let watched = self.attend();
        // After its folder is watched: what comes later is an event.
        for (file, seen) in &mut self.seen {
            *seen = known.get(file).copied().unwrap_or_else(|| stamp(file));
        }
        watched
    }

    /// All files are about to be read: what changes from here on is told.
    pub fn begin(&mut self) {
        self.changed();
    }

    /// Waits until one of the files has changed and all are left alone. Nothing is lost when this is dropped before.
    pub async fn next(&mut self) {
        loop {
            if !self.told && self.events.recv().await.is_none() {
                return std::future::pending().await;
            }
            self.told = true;
            self.quiet().await;
            self.told = false;
            if let Err(error) = self.attend()
                && !std::mem::replace(&mut self.complained, true)
            {
                tracing::warn!("{error:#}");
            }
            if self.changed() {
                return;
            }
        }
    }

    /// Waits until the files are left alone; what else happens in their folders, such as a log that is written, is not
    /// waited for.
    async fn quiet(&mut self) {
        let stamps = |changes: &Self| changes.seen.keys().map(|it| stamp(it)).collect::<Vec<_>>();
        let mut before = stamps(self);
        loop {
            tokio::time::sleep(QUIET).await;
            while self.events.try_recv().is_ok() {}
            let now = stamps(self);
            if now == before {
                return;
            }
            before = now;
        }
    }

    /// Whether a file is not what it was when this was last asked.
    fn changed(&mut self) -> bool {
        let mut changed = false;
        for (file, seen) in &mut self.seen {
            let now = stamp(file);
            // A file that is gone for a moment is about to be written.
            if now.is_some() && *seen != now {
                *seen = now;
                changed = true;
            }
        }
        changed
    }

    /// Watches the folders as they are now: one that was made anew under its name is another, and in the place of one that is
    /// gone the nearest above it is watched, to see it come back.
    fn attend(&mut self) -> anyhow::Result<()> {
        for _ in 0..TRIES {
            let folders = self.folders_now();
            for gone in self.folders.difference(&folders) {
                let _ = self.watcher.unwatch(gone);
            }
            let mut watched = Ok(());
            for folder in &folders {
                // To watch what is watched already changes nothing.
                let one = self.watcher.watch(folder, RecursiveMode::NonRecursive);
                let one = one.with_context(|| format!("{} cannot be watched", folder.display()));
                watched = watched.and(one);
            }
            // One that came or went meanwhile would not be noticed.
            let same = self.folders_now() == folders;
            self.folders = folders;
            if same {
                return watched;
            }
        }
        // They come and go all the time, and each time is an event.
        Ok(())
    }

    fn folders_now(&self) -> BTreeSet<PathBuf> {
        let folders = self.seen.keys().flat_map(|file| folders_of(file));
        folders.filter_map(there).collect()
    }
}

/// The folder a file is named in, and the one it is really in.
fn folders_of(file: &Path) -> Vec<PathBuf> {
    let absolute = std::path::absolute(file).ok();
    let real = file.canonicalize().ok();
    let of = |file: Option<PathBuf>| file.and_then(|file| file.parent().map(Path::to_owned));
    of(absolute).into_iter().chain(of(real)).collect()
}

/// A folder, or the nearest above it that is there.
fn there(folder: PathBuf) -> Option<PathBuf> {
    let found = folder.ancestors().find(|it| it.is_dir());
    found.map(Path::to_owned)
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

    /// A folder with a file in it, and what watches that.
    fn watched() -> (tempfile::TempDir, PathBuf, Changes) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("m")).unwrap();
        let file = folder.path().join("m/a.wasm");
        std::fs::write(&file, "1").unwrap();
        let changes = Changes::watch(&BTreeSet::from([file.clone()])).unwrap();
        (folder, file, changes)
    }

    async fn told(changes: &mut Changes) -> bool {
        let soon = Duration::from_secs(5);
        tokio::time::timeout(soon, changes.next()).await.is_ok()
    }

    #[tokio::test]
    async fn a_change_while_files_are_read_is_told_afterwards() {
        let (_folder, file, mut changes) = watched();
        std::fs::write(&file, "12").unwrap();
        assert!(told(&mut changes).await);
        changes.begin();
        // Reading takes its time, and ends with what was read.
        std::fs::write(&file, "123").unwrap();
        let other = file.with_file_name("b.wasm");
        changes
            .follow(&BTreeSet::from([file.clone(), other]))
            .unwrap();
        assert!(told(&mut changes).await, "lost");
    }

    #[tokio::test]
    async fn a_folder_that_is_made_anew_is_watched_again() {
        let (_folder, file, mut changes) = watched();
        let inside = file.parent().unwrap();
        for round in 2..5 {
            std::fs::remove_dir_all(inside).unwrap();
            if round == 3 {
                // Long enough to be seen gone.
                let soon = Duration::from_secs(1);
                assert!(
                    tokio::time::timeout(soon, changes.next()).await.is_err(),
                    "gone is no change"
                );
            }
            std::fs::create_dir(inside).unwrap();
            std::fs::write(&file, "1".repeat(round)).unwrap();
            assert!(told(&mut changes).await, "round {round}: the folder");
            std::fs::write(&file, "2".repeat(round + 9)).unwrap();
            assert!(told(&mut changes).await, "round {round}: a file in it");
        }
    }

    #[tokio::test]
    async fn who_waits_may_be_called_away_and_what_else_happens_there_is_no_reason_to_wait() {
        let (_folder, file, mut changes) = watched();
        std::fs::write(&file, "12").unwrap();
        let log = file.with_file_name("log");
        let mut noise = tokio::time::interval(QUIET / 6);
        for _ in 0..6 {
            noise.tick().await;
            std::fs::write(&log, "a line").unwrap();
            let a_moment = QUIET / 10;
            let waited = tokio::time::timeout(a_moment, changes.next()).await;
            assert!(
                waited.is_err(),
                "the files were left alone for a moment only"
            );
        }
        let writing = async {
            loop {
                noise.tick().await;
                std::fs::write(&log, "a line").unwrap();
            }
        };
        tokio::select! {
            told = told(&mut changes) => assert!(told, "lost"),
            () = writing => {}
        }
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
