//! `cargo edge fuzz`: libFuzzer on parsers and coders, with stable Rust.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::workspace::{cargo, root, target_dir};

/// Coverage for libFuzzer: LLVM's own pass, which stable rustc runs by name.
const COVERAGE: [&str; 7] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    // The pass must see what is called, not what was inlined away across units.
    "-Ccodegen-units=1",
    "-Cforce-frame-pointers=yes",
];

/// Values compared, so that libFuzzer can guess words of a grammar.
const COMPARES: &str = "-Cllvm-args=-sanitizer-coverage-trace-compares";

/// Targets without `COMPARES`: coders compare in their inner loops, and there is no word of a grammar to guess.
const BLIND: [&str; 1] = ["code"];

/// Found inputs of each target that are committed beside those that somebody named.
const KEPT: usize = 15;

/// What to run.
#[derive(Args)]
pub struct Options {
    /// A file of tests/fuzz/targets/, without `.rs`; all of them when none is named.
    targets: Vec<String>,
    /// Executions of each.
    #[arg(long, default_value_t = 1_000_000)]
    runs: u64,
    /// Choose what to commit in tests/fuzz/corpus/ from what earlier runs found, instead of running.
    #[arg(long)]
    minimise: bool,
}

/// The command: an error names the target that found something, and the input is in the folder it prints.
pub fn command(options: &Options) -> Result<()> {
    let all = targets()?;
    if let Some(unknown) = options.targets.iter().find(|name| !all.contains(name)) {
        bail!(
            "no target is called `{unknown}`; there are {}",
            all.join(", ")
        );
    }
    let wanted = if options.targets.is_empty() {
        &all
    } else {
        &options.targets
    };
    let (blind, others): (Vec<_>, Vec<_>) = wanted
        .iter()
        .map(String::as_str)
        .partition(|name| BLIND.contains(name));
    let mut binaries = Vec::new();
    for (names, compares) in [(others, true), (blind, false)] {
        if !names.is_empty() {
            let folder = compile(&names, compares)?;
            binaries.extend(names.into_iter().map(|name| (name, folder.join(name))));
        }
    }
    let mut broken = Vec::new();
    for (name, binary) in binaries {
        let corpus = root().join("tests/fuzz/corpus").join(name);
        let found = target_dir().join("fuzz-found").join(name);
        for folder in [&corpus, &found] {
            fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        let mut fuzzer = Command::new(binary);
        fuzzer.current_dir(&found).stdin(Stdio::null());
        // Grammar is short; what is longer repeats itself.
        fuzzer.args(["-max_len=512", "-timeout=10", "-rss_limit_mb=1024"]);
        if options.minimise {
            let cover = found.with_extension("cover");
            let _ = fs::remove_dir_all(&cover);
            fs::create_dir_all(&cover).with_context(|| format!("making {}", cover.display()))?;
            fuzzer
                .arg("-set_cover_merge=1")
                .args([&cover, &corpus, &found]);
            run(fuzzer, name)?;
            keep(&cover, &corpus)?;
            continue;
        }
        fuzzer.arg(format!("-runs={}", options.runs));
        fuzzer.arg("-print_final_stats=1").args([&found, &corpus]);
        if let Err(error) = run(fuzzer, name) {
            eprintln!("{error:#}; the input is in {}", found.display());
            broken.push(name);
        }
    }
    if !broken.is_empty() {
        bail!("found something: {}", broken.join(", "));
    }
    Ok(())
}

fn run(mut fuzzer: Command, name: &str) -> Result<()> {
    println!("fuzz {name}");
    let status = fuzzer.status().with_context(|| format!("running {name}"))?;
    if !status.success() {
        bail!("{name} ended with {status}");
    }
    Ok(())
}

/// Replaces what a machine named in `corpus` with the longest files of `cover`: each of them covers the most.
fn keep(cover: &Path, corpus: &Path) -> Result<()> {
    let is_hash = |name: &str| name.len() == 40 && name.bytes().all(|b| b.is_ascii_hexdigit());
    for file in fs::read_dir(corpus).with_context(|| format!("reading {}", corpus.display()))? {
        let file = file?;
        if is_hash(&file.file_name().to_string_lossy()) {
            fs::remove_file(file.path())?;
        }
    }
    let mut files = Vec::new();
    for file in fs::read_dir(cover).with_context(|| format!("reading {}", cover.display()))? {
        let file = file?;
        files.push((file.metadata()?.len(), file.file_name()));
    }
    files.sort();
    for (_, name) in files.iter().rev().take(KEPT) {
        fs::copy(cover.join(name), corpus.join(name))?;
    }
    Ok(())
}

/// The names of the files in `tests/fuzz/targets/`.
fn targets() -> Result<Vec<String>> {
    let folder = root().join("tests/fuzz/targets");
    let mut names = Vec::new();
    for file in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
        let name = file?.file_name().to_string_lossy().into_owned();
        names.extend(name.strip_suffix(".rs").map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// Compiles targets; gives the folder they are in.
fn compile(names: &[&str], compares: bool) -> Result<PathBuf> {
    let mut flags = COVERAGE.to_vec();
    flags.extend(compares.then_some(COMPARES));
    // Other flags, other folder: else each build would throw away that of the other.
    let folder = target_dir().join(if compares { "fuzz" } else { "fuzz-blind" });
    // With a target named, only what is fuzzed gets the flags: build scripts and macros run without libFuzzer.
    let triple = triple()?;
    let status = cargo()
        .args(["build", "--release", "--manifest-path"])
        .arg(root().join("tests/fuzz/Cargo.toml"))
        .args(["--target", &triple, "--target-dir"])
        .arg(&folder)
        .args(names.iter().flat_map(|name| ["--bin", name]))
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .stdin(Stdio::null())
        .status()
        .context("running cargo")?;
    if !status.success() {
        bail!("the fuzz targets do not compile (libFuzzer needs a C++ compiler)");
    }
    Ok(folder.join(triple).join("release"))
}

fn triple() -> Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .arg("-vV")
        .current_dir(root())
        .output()
        .context("running rustc")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc names no host")
}
