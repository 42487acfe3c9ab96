//! `cargo edge build`: the filters as modules and components, in `target/edge/`.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::artifact::{self, Artifact, Flavour, Kind};
use crate::section;
use crate::shrink::shrink;
use crate::spared;
use crate::workspace::{cargo, edge_dir, root, target_dir};
use crate::zeros;

/// What guests may use beyond the toolchain's default. Measured in Node's V8: gzip at level 1 goes 1.3 to 1.5 times as fast
/// (50 KB and 90 KB documents), at 2 to 6 up to 1.14 times; zstd and brotli are as before.
const SIMD: &str = "simd128";

/// What [`shrink`] needs: the linker's notes, and names that tell one instance of a generic function from another; and places in
/// memory as numbers, which components else have as sums with a base that is always zero.
const LINKED: &str =
    "-Clink-arg=--emit-relocs -Csymbol-mangling-version=v0 -Crelocation-model=static";

/// What came of one file.
pub struct Built {
    /// Which.
    pub artifact: Artifact,
    /// Its size in bytes.
    pub bytes: u64,
    /// Whether the file is another than before.
    pub changed: bool,
}

/// The command: builds and prints a table of files and sizes.
pub fn command(names: &[String], flavour: Flavour) -> Result<()> {
    if let Some(name) = names
        .iter()
        .find(|n| !artifact::NAMES.contains(&n.as_str()))
    {
        bail!(
            "no filter is called `{name}`; there are {}",
            artifact::NAMES.join(", ")
        );
    }
    let wanted = artifact::all(names, flavour);
    if wanted.is_empty() {
        bail!("there is a slim form of {} only", artifact::SLIM);
    }
    let built = build_all(&wanted, false)?;
    println!("{:<28} {:>11} {:>11}", "target/edge/", "bytes", "at most");
    for file in &built {
        println!(
            "{:<28} {:>11} {:>11}{}",
            file.artifact.file_name(),
            file.bytes,
            file.artifact.bound(),
            if file.changed { "" } else { "  unchanged" },
        );
    }
    Ok(())
}

/// Builds the files of `names` (all when empty) and a flavour into `target/edge/`; `quiet` shows cargo's messages only on
/// failure.
///
/// An error names the package that does not compile, or the file that is over its bound.
pub fn build(names: &[String], flavour: Flavour, quiet: bool) -> Result<Vec<Built>> {
    build_all(&artifact::all(names, flavour), quiet)
}

fn build_all(wanted: &[Artifact], quiet: bool) -> Result<Vec<Built>> {
    ensure_targets()?;
    fs::create_dir_all(edge_dir()).with_context(|| format!("making {}", edge_dir().display()))?;
    let schemas = schemas(wanted, quiet)?;
    let mut built = Vec::new();
    // One call each: within a call cargo unifies features, and Spin's stores must not leak into the other components.
    for kind in [Kind::ProxyWasm, Kind::WasiHttp, Kind::Spin] {
        let group: Vec<Artifact> = wanted.iter().filter(|a| a.kind == kind).copied().collect();
        let Some(first) = group.first() else {
            continue;
        };
        let target = folder(first);
        compile(kind, &group, &target, quiet)?;
        for artifact in group {
            built.push(finish(artifact, &compiled(&artifact), &schemas)?);
        }
    }
    let over: Vec<String> = built
        .iter()
        .filter(|file| file.bytes > file.artifact.bound())
        .map(|file| {
            let (name, bound) = (file.artifact.file_name(), file.artifact.bound());
            format!("{name} has {} bytes, {bound} are allowed", file.bytes)
        })
        .collect();
    if !over.is_empty() {
        bail!("too large: {}", over.join("; "));
    }
    Ok(built)
}

/// Installs the Wasm targets that the toolchain lacks, and says so.
pub fn ensure_targets() -> Result<()> {
    let sysroot = Command::new("rustc")
        .args(["--print", "sysroot"])
        .current_dir(root())
        .output()
        .context("running rustc")?;
    let sysroot = String::from_utf8_lossy(&sysroot.stdout).trim().to_owned();
    let missing: Vec<&str> = [Kind::ProxyWasm.target(), Kind::WasiHttp.target()]
        .into_iter()
        .filter(|target| {
            !Path::new(&sysroot)
                .join("lib/rustlib")
                .join(target)
                .join("lib")
                .exists()
        })
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!(
        "installing the Rust targets {} with rustup",
        missing.join(" and ")
    );
    let status = Command::new("rustup")
        .args(["target", "add"])
        .args(&missing)
        .current_dir(root())
        .status()
        .context("running rustup (the toolchain lacks Wasm targets)")?;
    if !status.success() {
        bail!("rustup target add {} failed", missing.join(" "));
    }
    Ok(())
}

/// The folder a file is compiled in. Other flags, other folder: else each build of one would throw away that of the other. Cargo
/// names a cdylib's file without a hash, so the two builds of one package need a folder each, too.
fn folder(artifact: &Artifact) -> PathBuf {
    let guests = match artifact.kind {
        Kind::ProxyWasm | Kind::WasiHttp => "guests",
        Kind::Spin => "guests-spin",
    };
    let names = [Some(guests), artifact.flavour.word()];
    let names: Vec<&str> = names.into_iter().flatten().collect();
    target_dir().join(names.join("-"))
}

/// What the compiler made of it, which [`finish`] makes smaller.
pub fn compiled(artifact: &Artifact) -> PathBuf {
    let file = format!("{}.wasm", artifact.package().replace('-', "_"));
    let target = folder(artifact).join(artifact.kind.target());
    target.join("plugin").join(file)
}

fn compile(kind: Kind, group: &[Artifact], target: &Path, quiet: bool) -> Result<()> {
    let mut cargo = cargo();
    cargo.args(["build", "--profile", "plugin", "--target", kind.target()]);
    cargo.arg("--target-dir").arg(target);
    let flavour = group.first().map(|artifact| artifact.flavour);
    let flags = match flavour {
        Some(Flavour::Baseline) => LINKED.to_owned(),
        _ => format!("-Ctarget-feature=+{SIMD} {LINKED}"),
    };
    cargo.env("CARGO_PROFILE_PLUGIN_STRIP", "debuginfo");
    if flavour == Some(Flavour::Slim) {
        cargo.arg("--no-default-features");
        cargo.env("CARGO_PROFILE_PLUGIN_OPT_LEVEL", "z");
        // Of zstd's encoder 9 KB less, for half a percent of its instructions.
        for part in ["core", "encode"] {
            let level = format!("profile.plugin.package.zrip-{part}.opt-level=2");
            cargo.args(["--config", &level]);
        }
    }
    let triple = kind.target().to_uppercase().replace('-', "_");
    cargo.env(format!("CARGO_TARGET_{triple}_RUSTFLAGS"), flags);
    for artifact in group {
        cargo.args(["--package", &artifact.package()]);
        if kind == Kind::Spin {
            cargo.args(["--features", &format!("{}/spin", artifact.package())]);
        }
    }
    run(cargo, quiet).with_context(|| {
        let packages: Vec<_> = group.iter().map(Artifact::package).collect();
        format!("compiling {}", packages.join(", "))
    })?;
    Ok(())
}

/// Runs cargo; its messages go to the terminal, or into the error when `quiet`.
fn run(mut cargo: Command, quiet: bool) -> Result<Vec<u8>> {
    cargo.stdin(Stdio::null()).stdout(Stdio::piped());
    cargo.stderr(if quiet {
        Stdio::piped()
    } else {
        Stdio::inherit()
    });
    let output = cargo.output().context("running cargo")?;
    if !output.status.success() {
        bail!("cargo failed\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.stdout)
}

/// The JSON Schemas by filter, from a native build of the filters.
fn schemas(wanted: &[Artifact], quiet: bool) -> Result<Value> {
    let mut names: Vec<&str> = wanted
        .iter()
        .map(|a| match a.flavour {
            Flavour::Slim => "compress-slim",
            _ => a.name,
        })
        .filter(|name| *name != "gateway")
        .collect();
    names.dedup();
    if names.is_empty() {
        return Ok(Value::Null);
    }
    let mut cargo = cargo();
    cargo.args([
        "run",
        "--quiet",
        "--package",
        "cargo-edge",
        "--bin",
        "schemas",
    ]);
    cargo.args(["--features", &names.join(",")]);
    let printed = run(cargo, quiet).context("making the schemas of the configurations")?;
    serde_json::from_slice(&printed).context("reading the schemas of the configurations")
}

/// Adds what the file says about itself and puts it into place, whole or not at all.
fn finish(artifact: Artifact, compiled: &Path, schemas: &Value) -> Result<Built> {
    let wasm = fs::read(compiled).with_context(|| format!("reading {}", compiled.display()))?;
    let wasm = shrink(&wasm, &spared::of(&artifact))
        .with_context(|| format!("making {} smaller", compiled.display()))?;
    let mut wasm = zeros::strip(&wasm)
        .with_context(|| format!("taking the zeros out of {}", compiled.display()))?;
    section::append(&mut wasm, section::NAME, artifact.name.as_bytes());
    if artifact.flavour != Flavour::Baseline {
        section::append(&mut wasm, section::FEATURES, &section::features(&[SIMD]));
    }
    let version = env!("CARGO_PKG_VERSION");
    section::append(&mut wasm, section::VERSION, version.as_bytes());
    if artifact.name != "gateway" {
        let schema = schemas
            .get(artifact.name)
            .with_context(|| format!("no schema for {}", artifact.name))?;
        section::append(&mut wasm, section::SCHEMA, schema.to_string().as_bytes());
    }
    let path = artifact.path();
    // A file that did not change keeps its time: hosts that watch it do not reload.
    let changed = fs::read(&path).map_or(true, |before| before != wasm);
    if changed {
        let part = path.with_extension(format!("{}.part", std::process::id()));
        let mut file =
            fs::File::create(&part).with_context(|| format!("writing {}", part.display()))?;
        file.write_all(&wasm)?;
        fs::rename(&part, &path).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(Built {
        artifact,
        bytes: wasm.len() as u64,
        changed,
    })
}
