//! Wasm that is not there as it is loaded: what is named by its URL and known by its SHA-256, and components that are linked of
//! several. Both are kept in the cache folder.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use edgeweir_host_client::fetch::fetch;
use edgeweir_host_formats::component::made_component;
use edgeweir_host_formats::remote::Remote;
use edgeweir_host_package::{ComposeError, Dependency, Digest, Part, link};

use crate::config::{Config, ConfigError, Filter, Link};
use crate::load::user_cache;

/// The largest module that is fetched, bytes.
const MOST: usize = 128 << 20;

/// Where what is fetched is kept.
pub(crate) fn place(remote: &Remote) -> PathBuf {
    cache("fetched").join(format!("{}.wasm", remote.sha256))
}

/// Where what is linked is kept: one place for what a manifest links of the same files, with the name of the component, which it may
/// be configured by.
pub(crate) fn linked_place(manifest: &Path, link: &Link) -> PathBuf {
    let manifest = std::path::absolute(manifest).unwrap_or_else(|_| manifest.to_owned());
    // Not by where in the manifest they stand.
    let dependencies = link.dependencies.iter();
    let dependencies =
        dependencies.map(|it| (&it.imports.value, &it.file, &it.export, &it.withheld));
    let dependencies: Vec<_> = dependencies.collect();
    let told = format!("{:?}", (manifest, &link.component, dependencies));
    let name = link.component.file_name().unwrap_or_default();
    let folder = cache("linked").join(Digest::of(told.as_bytes()).hex());
    folder.join(name)
}

fn cache(folder: &str) -> PathBuf {
    let cache = user_cache().unwrap_or_else(|| std::env::temp_dir().join("edgeweir"));
    cache.join(folder)
}

/// Fetches what filters name by a URL and is not there, and links what is to be linked.
///
/// # Errors
/// At the place of the source: nobody answers, an answer other than 200, bytes with another SHA-256, a file that cannot be read, or
/// components that do not fit.
pub(crate) async fn make_ready(config: &Config) -> anyhow::Result<()> {
    for (name, filter) in &config.filters {
        let module = filter.module.get_ref();
        let own = filter.link.as_ref().map_or(module, |it| &it.component);
        let linked = filter.link.iter().flat_map(|it| &it.dependencies);
        let linked = linked.map(|it| (&it.file, &it.remote, Some(it.imports.value.as_str())));
        for (file, remote, part) in std::iter::once((own, &filter.remote, None)).chain(linked) {
            let Some(remote) = remote else { continue };
            if is_whole(file, remote) {
                continue;
            }
            tracing::info!(url = remote.url, "fetching; it is kept for the next start");
            got(file, remote).await.map_err(|error| {
                let message = format!("{} cannot be had: {error:#}", remote.url);
                at(config, name, filter, part, message)
            })?;
        }
        if let Some(link) = &filter.link {
            linked_of(name, link, module)
                .map_err(|error| at(config, name, filter, error.part.as_deref(), error.why))?;
        }
    }
    Ok(())
}

/// An error at the place of a filter's source, or of what one of its dependencies is for.
fn at(
    config: &Config,
    name: &str,
    filter: &Filter,
    part: Option<&str>,
    why: String,
) -> ConfigError {
    let mut linked = filter.link.iter().flat_map(|it| &it.dependencies);
    let found = part.and_then(|part| linked.find(|it| it.imports.value.as_str() == part));
    let (span, field) = match found {
        Some(it) => (
            it.imports.span.clone(),
            format!("dependencies.\"{}\"", it.imports.value.as_str()),
        ),
        None => (filter.module.span(), "module".to_owned()),
    };
    ConfigError::at(&config.source, span, &format!("filter.{name}.{field}"), why)
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
    put(file, &bytes)
}

/// Makes a file that is whole or not there, whoever else makes it.
fn put(file: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let folder = file.parent().unwrap_or(Path::new(""));
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let part = file.with_extension(format!("{}.part", std::process::id()));
    std::fs::write(&part, bytes).with_context(|| part.display().to_string())?;
    std::fs::rename(&part, file).with_context(|| file.display().to_string())
}

/// Links a component and what it depends on into the file that the filter loads.
fn linked_of(name: &str, of: &Link, module: &Path) -> Result<(), ComposeError> {
    let part = |name: &str, file: &Path| -> anyhow::Result<Part> {
        let wasm = std::fs::read(file)
            .map_err(|error| anyhow!("{} cannot be read: {error}", file.display()))?;
        let wasm = made_component(wasm).with_context(|| file.display().to_string())?;
        let name = name.to_owned();
        Ok(Part { name, wasm })
    };
    let wrong = |part: Option<&str>| {
        let part = part.map(str::to_owned);
        move |error: anyhow::Error| ComposeError {
            part,
            why: format!("{error:#}"),
        }
    };
    let component = part(name, &of.component).map_err(wrong(None))?;
    let mut dependencies = Vec::new();
    for it in &of.dependencies {
        let name = it.imports.value.as_str();
        dependencies.push(Dependency {
            part: part(name, &it.file).map_err(wrong(Some(name)))?,
            imports: it.imports.value.clone(),
            export: it.export.clone(),
            withheld: it.withheld.clone(),
        });
    }
    let whole = link(&component, &dependencies)?;
    put(module, &whole).map_err(wrong(None))
}
