//! Files that a Spin manifest shows a component, in a folder of their own.
//!
//! They are copied when the component is loaded, as Spin does: what changes later in the application's folder is seen after a
//! reload, and nothing beside them is ever in reach.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use edgeweir_host_formats::Placed;
use edgeweir_host_formats::spin::{Files, Shown};
use glob::Pattern;
use tempfile::TempDir;

use crate::config::{ConfigError, Source};

/// The most files a component is shown.
const MOST: usize = 100_000;

/// The folder with a component's files; `None` when it is shown none.
///
/// # Errors
/// Names the line of what is not there, lies outside of the application's folder, or is no pattern.
pub fn gathered(files: &Files, source: &Source) -> anyhow::Result<Option<Arc<TempDir>>> {
    if files.shown.is_empty() {
        return Ok(None);
    }
    let manifest = std::path::absolute(&source.file).context("the manifest's place")?;
    let application = manifest.parent().unwrap_or(Path::new("/")).to_owned();
    let to = tempfile::Builder::new()
        .prefix("edgeweir-files-")
        .tempdir()
        .context("making a folder for files")?;
    let hidden = files
        .hidden
        .iter()
        .map(|pattern| {
            Pattern::new(&pattern.value)
                .map_err(|error| refused(source, pattern, "exclude_files", error))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let mut gathering = Gathering {
        application,
        to,
        hidden,
        left: MOST,
    };
    for shown in &files.shown {
        gathering
            .show(&shown.value)
            .map_err(|error| refused(source, shown, "files", format!("{error:#}")))?;
    }
    Ok(Some(Arc::new(gathering.to)))
}

fn refused<T>(
    source: &Source,
    place: &Placed<T>,
    field: &str,
    why: impl std::fmt::Display,
) -> ConfigError {
    ConfigError::at(source, place.span.clone(), field, why.to_string())
}

struct Gathering {
    application: PathBuf,
    to: TempDir,
    hidden: Vec<Pattern>,
    left: usize,
}

impl Gathering {
    fn show(&mut self, shown: &Shown) -> anyhow::Result<()> {
        match shown {
            Shown::InPlace(named) => {
                let path = self.application.join(inside(named)?);
                let from = self.application.clone();
                let to = self.to.path().to_owned();
                if path.is_dir() {
                    self.folder(&path, &from, &to)
                } else if path.is_file() {
                    self.file(&path, &from, &to)
                } else if Pattern::escape(named) != *named {
                    let folder = from.to_str().context("its path is no text")?;
                    let pattern = format!("{}/{named}", Pattern::escape(folder));
                    self.matching(&pattern, &from, &to)
                } else {
                    anyhow::bail!("{named:?} is not there, nor is it a pattern")
                }
            }
            Shown::Elsewhere {
                source,
                destination,
            } => {
                let path = self.application.join(inside(source)?);
                let destination = inside(destination.trim_start_matches('/'))?;
                let to = self.to.path().join(destination);
                if path.is_dir() {
                    self.folder(&path, &path, &to)
                } else if path.is_file() {
                    anyhow::ensure!(
                        to != self.to.path(),
                        "\"/\" is no name of a file: write where {source:?} is to be"
                    );
                    self.copy(&path, &to)
                } else {
                    anyhow::bail!("{source:?} is not there")
                }
            }
        }
    }

    /// All files of a folder, and of those in it.
    fn folder(&mut self, folder: &Path, from: &Path, to: &Path) -> anyhow::Result<()> {
        let folder = folder.to_str().context("its path is no text")?;
        self.matching(&format!("{}/**/*", Pattern::escape(folder)), from, to)
    }

    fn matching(&mut self, pattern: &str, from: &Path, to: &Path) -> anyhow::Result<()> {
        for path in glob::glob(pattern)? {
            let path = path?;
            if path.is_file() {
                self.file(&path, from, to)?;
            }
        }
        Ok(())
    }

    /// A file at its path below `from`, below `to`.
    fn file(&mut self, path: &Path, from: &Path, to: &Path) -> anyhow::Result<()> {
        let own = path
            .strip_prefix(&self.application)
            .context("it is outside of the application's folder")?;
        if self.hidden.iter().any(|pattern| pattern.matches_path(own)) {
            return Ok(());
        }
        let below = path.strip_prefix(from).unwrap_or(own);
        self.copy(path, &to.join(below))
    }

    fn copy(&mut self, path: &Path, to: &Path) -> anyhow::Result<()> {
        self.left = self
            .left
            .checked_sub(1)
            .with_context(|| format!("a component is shown {MOST} files at most"))?;
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        fs::copy(path, to).with_context(|| format!("copying {}", path.display()))?;
        Ok(())
    }
}

/// A path below the one it is joined to.
fn inside(named: &str) -> anyhow::Result<&Path> {
    let path = Path::new(named);
    let mut parts = path.components();
    let below = parts.all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    anyhow::ensure!(below, "{named:?} is not below the application's folder");
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed<T>(value: T) -> Placed<T> {
        Placed { value, span: 0..0 }
    }

    fn listed(folder: &Path) -> Vec<String> {
        let mut all: Vec<String> = glob::glob(&format!("{}/**/*", folder.display()))
            .expect("a pattern")
            .map(|path| path.expect("readable"))
            .filter(|path| path.is_file())
            .map(|path| {
                path.strip_prefix(folder)
                    .expect("below")
                    .display()
                    .to_string()
            })
            .collect();
        all.sort();
        all
    }

    #[test]
    fn files_are_where_the_manifest_says_and_nowhere_else() {
        let application = tempfile::tempdir().expect("a folder");
        for file in [
            "a.txt",
            "b.txt",
            "c.md",
            "img/x.png",
            "img/deep/y.png",
            "img/deep/z.bak",
            "[1]/n",
        ] {
            let path = application.path().join(file);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, file).expect("written");
        }
        let source = Source {
            file: application.path().join("spin.toml"),
            ..Source::default()
        };
        let shown = |all: &[Shown], hidden: &[&str]| {
            let files = Files {
                shown: all.iter().cloned().map(placed).collect(),
                hidden: hidden.iter().map(|it| placed((*it).to_owned())).collect(),
            };
            gathered(&files, &source).map(|folder| listed(folder.expect("a folder").path()))
        };
        let at = |named: &str| Shown::InPlace(named.to_owned());
        let to = |source: &str, destination: &str| Shown::Elsewhere {
            source: source.to_owned(),
            destination: destination.to_owned(),
        };
        for (all, hidden, want) in [
            (vec![at("a.txt")], vec![], vec!["a.txt"]),
            (vec![at("*.txt")], vec![], vec!["a.txt", "b.txt"]),
            (
                vec![at("*.txt"), at("c.md")],
                vec!["b.*"],
                vec!["a.txt", "c.md"],
            ),
            (
                vec![at("img")],
                vec!["**/*.bak"],
                vec!["img/deep/y.png", "img/x.png"],
            ),
            (
                vec![at("img/**/*.png")],
                vec![],
                vec!["img/deep/y.png", "img/x.png"],
            ),
            (vec![at("[1]")], vec![], vec!["[1]/n"]),
            (vec![at("nothing/*")], vec![], vec![]),
            (
                vec![to("img/deep", "/pictures")],
                vec!["img/deep/*.bak"],
                vec!["pictures/y.png"],
            ),
            (vec![to("img/deep", "/")], vec![], vec!["y.png", "z.bak"]),
            (
                vec![to("a.txt", "docs/one.txt")],
                vec![],
                vec!["docs/one.txt"],
            ),
        ] {
            assert_eq!(shown(&all, &hidden).expect("gathered"), want, "{all:?}");
        }
        for (all, hidden, why) in [
            (vec![at("absent.txt")], vec![], "is not there"),
            (vec![at("../other")], vec![], "not below"),
            (vec![at("/etc/passwd")], vec![], "not below"),
            (vec![to("absent", "/")], vec![], "is not there"),
            (vec![to("img", "../up")], vec![], "not below"),
            (vec![to("a.txt", "/")], vec![], "no name of a file"),
            (vec![at("a***")], vec![], "Pattern syntax"),
            (vec![at("a.txt")], vec!["a***"], "exclude_files"),
        ] {
            let error = shown(&all, &hidden).expect_err("refused").to_string();
            assert!(error.contains(why), "{all:?}: {error}");
        }
    }
}
