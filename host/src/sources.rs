//! Wasm that is fetched: named by its URL, and known by its SHA-256. It is kept in the cache folder under that, and fetched once.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use edgeweir_host_client::fetch::fetch;
use edgeweir_host_formats::remote::Remote;
use edgeweir_host_package::Digest;

use crate::config::{Config, ConfigError};
use crate::load::user_cache;

/// The largest module that is fetched, bytes.
const MOST: usize = 128 << 20;

/// Where what is fetched is kept.
pub(crate) fn place(remote: &Remote) -> PathBuf {
    let cache = user_cache().unwrap_or_else(|| std::env::temp_dir().join("edgeweir"));
    cache
        .join("fetched")
        .join(format!("{}.wasm", remote.sha256))
}

/// Fetches what filters name by a URL and is not there.
///
/// # Errors
/// At the place of the source: nobody answers, an answer other than 200, or bytes with another SHA-256.
pub(crate) async fn fetch_missing(config: &Config) -> anyhow::Result<()> {
    for (name, filter) in &config.filters {
        let Some(remote) = &filter.remote else {
            continue;
        };
        let file = filter.module.get_ref();
        if is_whole(file, remote) {
            continue;
        }
        tracing::info!(url = remote.url, "fetching; it is kept for the next start");
        got(file, remote).await.map_err(|error| {
            let field = format!("filter.{name}.module");
            let message = format!("{} cannot be had: {error:#}", remote.url);
            ConfigError::at(&config.source, filter.module.span(), &field, message)
        })?;
    }
    Ok(())
}

fn is_whole(file: &Path, remote: &Remote) -> bool {
    std::fs::read(file).is_ok_and(|bytes| Digest::of(&bytes).hex() == remote.sha256)
}

async fn got(file: &Path, remote: &Remote) -> anyhow::Result<()> {
    let bytes = fetch(&remote.url, MOST).await?;
    let found = Digest::of(&bytes);
    if found.hex() != remote.sha256 {
        bail!(
            "its SHA-256 is {}, and {} is asked for",
            found.hex(),
            remote.sha256
        );
    }
    let folder = file.parent().unwrap_or(Path::new(""));
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    // Whole or not there, whoever else fetches it.
    let part = file.with_extension(format!("{}.part", std::process::id()));
    std::fs::write(&part, &bytes).with_context(|| part.display().to_string())?;
    std::fs::rename(&part, file).with_context(|| file.display().to_string())
}
