//! `edgeweir test`: declarative cases, on this host and on a real Envoy.

mod body;
mod envoy;
mod local;
mod origin;
mod run;
mod watch;
mod world;

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use edgeweir_host_cases::report::Run;
use edgeweir_host_cases::torture::Fault;

use crate::cli::complain;

/// Arguments of `test`.
#[derive(clap::Args, Debug, Clone)]
pub struct Test {
    /// Files of cases, or folders in which files named *.test.toml, *.test.yaml and *.test.yml are looked for.
    #[arg(default_value = ".")]
    pub paths: Vec<PathBuf>,
    /// Only cases whose name holds this.
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
    /// Where the cases run.
    #[arg(long, value_name = "WHERE", value_enum, default_value = "host")]
    pub on: On,
    /// The Envoy to run them on; without it EDGEWEIR_ENVOY counts, else the one on the PATH.
    #[arg(long, value_name = "FILE")]
    pub envoy: Option<PathBuf>,
    /// How the result is printed.
    #[arg(long, value_enum, default_value = "terminal")]
    pub format: Format,
    /// Write a JUnit report here too.
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Run each case again and again with one call of a host function failing.
    #[arg(long, conflicts_with = "torture_at")]
    pub torture: bool,
    /// Run each case once with this call failing.
    #[arg(long, value_name = "CALL:N:STATUS")]
    pub torture_at: Option<Fault>,
    /// The most faults of one case; where there are more, they are taken evenly.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub torture_most: u32,
    /// Cases at once; default: as many as there are processors.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: Option<u16>,
    /// Run again whenever a case or a module changes, until it is stopped.
    #[arg(long)]
    pub watch: bool,
    /// Where compiled modules are kept between runs.
    #[arg(long, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
}

/// Where cases run.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum On {
    /// This host.
    Host,
    /// A real Envoy.
    Envoy,
}

/// How a result is printed.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// For people.
    Terminal,
    /// One JSON object.
    Json,
}

/// Runs the cases; the program's exit code: 0 passed, 1 failed, 2 broken.
pub fn execute(arguments: &Test) -> u8 {
    match attempt(arguments) {
        Ok(code) => code,
        Err(error) => {
            complain(&format!("edgeweir: {error:#}"));
            2
        }
    }
}

fn attempt(arguments: &Test) -> anyhow::Result<u8> {
    anyhow::ensure!(
        arguments.on == On::Host || !(arguments.torture || arguments.torture_at.is_some()),
        "calls of a real Envoy cannot be made to fail: --torture is for --on host"
    );
    if arguments.watch {
        return watch::execute(arguments);
    }
    once(arguments, &mut |_| {}).map(|run| run.exit_code())
}

/// One run, reported; `before` it begins the files it depends on are told.
fn once(arguments: &Test, before: &mut dyn FnMut(&[PathBuf])) -> anyhow::Result<Run> {
    let run = run::all(arguments, before)?;
    let text = match arguments.format {
        Format::Terminal => run.terminal(std::io::stdout().is_terminal()),
        Format::Json => format!("{:#}\n", run.json()),
    };
    let mut out = std::io::stdout().lock();
    // Nobody may be reading any more.
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
    if let Some(file) = &arguments.junit {
        let report = run.junit().map_err(anyhow::Error::msg)?;
        std::fs::write(file, report)
            .with_context(|| format!("{}: cannot be written", file.display()))?;
    }
    Ok(run)
}

/// The files of cases that are meant, sorted below each folder.
fn files(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in paths {
        let meta = std::fs::metadata(path)
            .with_context(|| format!("{}: cannot be read", path.display()))?;
        match meta.is_dir() {
            true => {
                let before = found.len();
                collect(path, 0, &mut found, &mut Vec::new())?;
                found[before..].sort();
            }
            false => found.push(path.clone()),
        }
    }
    Ok(found)
}

/// The folders in which cases are looked for, below one and itself.
fn folders(path: &Path) -> Vec<PathBuf> {
    let mut inside = Vec::new();
    // One that cannot be read holds none that could be run.
    let _ = collect(path, 0, &mut Vec::new(), &mut inside);
    inside
}

/// Whether a file of this name holds cases.
fn is_case(name: &str) -> bool {
    let endings = [".test.toml", ".test.yaml", ".test.yml"];
    endings.iter().any(|ending| name.ends_with(ending))
}

/// Folders are looked into this deep.
const DEEP: usize = 16;

fn collect(
    folder: &Path,
    depth: usize,
    found: &mut Vec<PathBuf>,
    inside: &mut Vec<PathBuf>,
) -> anyhow::Result<()> {
    inside.push(folder.to_owned());
    let entries = std::fs::read_dir(folder)
        .with_context(|| format!("{}: cannot be read", folder.display()))?;
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        let hidden = name.starts_with('.') || name == "target" || name == "node_modules";
        if kind.is_dir() && depth < DEEP && !hidden {
            collect(&path, depth + 1, found, inside)?;
        } else if kind.is_file() && is_case(&name) {
            found.push(path);
        }
    }
    Ok(())
}
