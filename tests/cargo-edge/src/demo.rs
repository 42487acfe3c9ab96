//! `cargo edge demo`: everything built, and the host started on its embedded defaults.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::artifact::Flavour;
use crate::build;
use crate::workspace::{cargo, edge_dir, root, target_dir};

/// The command; on success it becomes the host and never returns.
pub fn command(args: &[String]) -> Result<()> {
    build::build(&[], Flavour::Usual, false)?;
    let host = host(false, false)?;
    let error = Command::new(&host)
        .current_dir(root())
        .args(["run", "--modules"])
        .arg(edge_dir())
        .args(args)
        .exec();
    Err(error).with_context(|| format!("starting {}", host.display()))
}

/// Builds the host and gives its binary; `EDGEWEIR_BIN` names another one to use as it is.
pub fn host(release: bool, quiet: bool) -> Result<PathBuf> {
    if std::env::var_os("EDGEWEIR_BIN").is_some() {
        return Ok(built(release));
    }
    let mut cargo = cargo();
    // Of the whole workspace, as the tests are: of one package alone, its dependencies would have other features and most of
    // them, wasmtime among them, be compiled once more.
    cargo.args(["build", "--workspace", "--bin", "edgeweir"]);
    if release {
        cargo.arg("--release");
    }
    cargo.stderr(if quiet {
        Stdio::piped()
    } else {
        Stdio::inherit()
    });
    let output = cargo
        .stdout(Stdio::null())
        .output()
        .context("running cargo")?;
    if !output.status.success() {
        bail!(
            "the host does not compile\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(built(release))
}

/// Where the host's binary is once it was built, or what `EDGEWEIR_BIN` names.
pub fn built(release: bool) -> PathBuf {
    if let Some(binary) = std::env::var_os("EDGEWEIR_BIN") {
        return binary.into();
    }
    let profile = if release { "release" } else { "debug" };
    target_dir().join(profile).join("edgeweir")
}
