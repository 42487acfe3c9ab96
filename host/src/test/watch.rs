//! `--watch`: again whenever a case or a module changes.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context as _;
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};

use super::{Test, files, folders, is_case, once};
use crate::cli::complain;

/// A build writes a file in several pieces: what comes within this time is one change.
const QUIET: Duration = Duration::from_millis(200);

/// Runs until it is stopped.
pub fn execute(arguments: &Test) -> anyhow::Result<u8> {
    let mut watch = Watch::new(&arguments.paths)?;
    // What the command line has wrong ends it; later the same is a file that is away for a moment.
    let mut first = true;
    loop {
        watch.look();
        // Watched before it is read: what changes in the meantime is a change.
        match once(arguments, &mut |files| watch.over(files)) {
            Ok(_) => {}
            Err(error) if first => return Err(error),
            Err(error) => complain(&format!("edgeweir: {error:#}")),
        }
        first = false;
        complain(&format!(
            "waiting for a change of {} files (Ctrl-C ends)",
            watch.files.len()
        ));
        watch.wait()?;
    }
}

struct Watch<'a> {
    watcher: RecommendedWatcher,
    changes: mpsc::Receiver<Vec<PathBuf>>,
    paths: &'a [PathBuf],
    /// What the last run depends on.
    files: Vec<PathBuf>,
    /// The files of cases there were before it.
    listed: Option<Vec<PathBuf>>,
    /// What was watched at any time.
    folders: BTreeSet<PathBuf>,
}

impl<'a> Watch<'a> {
    fn new(paths: &'a [PathBuf]) -> anyhow::Result<Self> {
        let (sender, changes) = mpsc::channel();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if let Ok(event) = event
                && !event.kind.is_access()
            {
                // Nobody listens only when the program ends.
                let _ = sender.send(event.paths);
            }
        })
        .context("files cannot be watched")?;
        Ok(Self {
            watcher,
            changes,
            paths,
            files: Vec::new(),
            listed: None,
            folders: BTreeSet::new(),
        })
    }

    /// Watches where cases are looked for, and lists them.
    fn look(&mut self) {
        for path in self.paths {
            match path.is_dir() {
                true => folders(path).iter().for_each(|folder| self.folder(folder)),
                false => self.parent(path),
            }
        }
        self.listed = files(self.paths).ok();
    }

    /// Watches what a run depends on.
    fn over(&mut self, files: &[PathBuf]) {
        files.iter().for_each(|file| self.parent(file));
        self.files = files.to_vec();
    }

    /// The folder of a file, since tools replace files in place of writing to them; and the one above, since they do so with
    /// folders.
    fn parent(&mut self, file: &Path) {
        for folder in file.ancestors().skip(1).take(2) {
            self.folder(folder);
        }
    }

    /// A folder, or while it is away the nearest one above it.
    fn folder(&mut self, folder: &Path) {
        let here = |at: &Path| match at.as_os_str().is_empty() {
            true => PathBuf::from("."),
            false => at.to_owned(),
        };
        let Some(folder) = folder.ancestors().map(here).find(|at| at.is_dir()) else {
            return;
        };
        // One that was away and is back is another folder: it is watched again.
        match self.watcher.watch(&folder, RecursiveMode::NonRecursive) {
            Ok(()) => drop(self.folders.insert(folder)),
            Err(error) => complain(&format!("{}: cannot be watched: {error}", folder.display())),
        }
    }

    /// Until something changes that counts.
    fn wait(&mut self) -> anyhow::Result<()> {
        loop {
            let paths = self.changes.recv().context("files are watched no more")?;
            let known = |path: &PathBuf| path.is_dir() || self.folders.contains(path);
            if paths.iter().any(|path| self.is_meant(path)) {
                while self.changes.recv_timeout(QUIET).is_ok() {}
                return Ok(());
            }
            // A folder that came may hold cases already, and one that went has taken its own along.
            if paths.iter().any(known) {
                let before = self.listed.take();
                self.look();
                let files = std::mem::take(&mut self.files);
                self.over(&files);
                if self.listed != before {
                    return Ok(());
                }
            }
        }
    }

    fn is_meant(&self, path: &Path) -> bool {
        let Some(name) = path.file_name() else {
            return false;
        };
        let named = |file: &PathBuf| file.file_name() == Some(name);
        is_case(&OsStr::to_string_lossy(name))
            || self.files.iter().any(named)
            || self.paths.iter().any(named)
    }
}
