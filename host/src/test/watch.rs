//! `--watch`: again whenever a case or a module changes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context as _;
use notify::{RecursiveMode, Watcher as _};

use super::{Test, is_case, once};
use crate::cli::complain;

/// A build writes a file in several pieces: what comes within this time is one change.
const QUIET: Duration = Duration::from_millis(200);

/// Runs until it is stopped.
pub fn execute(arguments: &Test) -> anyhow::Result<u8> {
    let (sender, changes) = mpsc::channel();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if let Ok(event) = event
            && !event.kind.is_access()
        {
            // Nobody listens only when the program ends.
            let _ = sender.send(event.paths);
        }
    })
    .context("files cannot be watched")?;
    let mut watched = BTreeSet::new();
    loop {
        let (_, files) = once(arguments)?;
        // Folders, since tools replace files in place of writing to them.
        let folders = files.iter().filter_map(|file| folder(file));
        for folder in folders.chain(arguments.paths.iter().filter(|path| path.is_dir()).cloned()) {
            if watched.insert(folder.clone()) {
                watcher
                    .watch(&folder, RecursiveMode::NonRecursive)
                    .with_context(|| format!("{}: cannot be watched", folder.display()))?;
            }
        }
        complain(&format!(
            "waiting for a change of {} files (Ctrl-C ends)",
            files.len()
        ));
        wait(&changes, &files)?;
    }
}

fn wait(changes: &mpsc::Receiver<Vec<PathBuf>>, files: &[PathBuf]) -> anyhow::Result<()> {
    let names: BTreeSet<_> = files.iter().filter_map(|file| file.file_name()).collect();
    loop {
        let paths = changes.recv().context("files are watched no more")?;
        let matters = paths.iter().any(|path| {
            let name = path.file_name().unwrap_or_default();
            names.contains(name) || is_case(&name.to_string_lossy())
        });
        if matters {
            while changes.recv_timeout(QUIET).is_ok() {}
            return Ok(());
        }
    }
}

fn folder(file: &Path) -> Option<PathBuf> {
    let parent = file.parent()?;
    Some(match parent.as_os_str().is_empty() {
        true => PathBuf::from("."),
        false => parent.to_owned(),
    })
}
