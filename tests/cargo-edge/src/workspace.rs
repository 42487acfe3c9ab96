//! Where things are, and how cargo is called.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The project's root folder: the clone that cargo runs this from. Where it was compiled may be another clone that
/// shares the target folder, and gone.
pub fn root() -> PathBuf {
    let here = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    here.ancestors()
        .find(|folder| folder.join("rust-toolchain.toml").exists())
        .map_or_else(|| here.clone(), Path::to_path_buf)
}

/// Where cargo puts what it builds: `CARGO_TARGET_DIR`, else `target` in the root.
pub fn target_dir() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) if !dir.is_empty() => root().join(dir),
        _ => root().join("target"),
    }
}

/// Where the finished modules and components are, always below the root: examples name this folder.
pub fn edge_dir() -> PathBuf {
    root().join("target/edge")
}

/// A cargo of the pinned toolchain, run from the root, free of what an outer cargo set.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    // Flags meant for the native build (a linker, a sanitizer, coverage) break or bloat a guest. Cargo hands its own
    // view of a package to what it runs: a nested cargo must not take it for settings.
    for (name, _) in env::vars_os() {
        let inherited = name.to_str().is_some_and(|name| {
            matches!(
                name,
                "CARGO_ENCODED_RUSTFLAGS" | "RUSTFLAGS" | "CARGO_BUILD_TARGET" | "OUT_DIR"
            ) || name.starts_with("CARGO_PKG_")
                || name.starts_with("CARGO_MANIFEST")
                || name.starts_with("CARGO_CFG_")
                || name.starts_with("CARGO_FEATURE_")
                || name.starts_with("CARGO_BIN_")
                || name == "CARGO_CRATE_NAME"
                || name == "CARGO_PRIMARY_PACKAGE"
        });
        if inherited {
            command.env_remove(name);
        }
    }
    command
}
