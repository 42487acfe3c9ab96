//! Starts a host, or an Envoy or a wasmtime with the same filters, as a child process on free ports: for commands that compare,
//! measure and ask.
//!
//! What is measured is a process of its own, so that its CPU time is its alone.
#![forbid(unsafe_code)]

mod callbacks;
mod child;
mod conditions;
mod edge;
mod envoy;
mod exit;
mod http;
mod process;
mod routes;
mod wasmtime;
mod ways;
mod weave;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context as _, Result, bail};

pub use callbacks::{Callback, Hearer};
pub use child::{Options, Running, start_envoy, start_host, start_wasmtime};
pub use edge::Edge;
pub use envoy::{bootstrap, find as find_envoy};
pub use exit::Exit;
pub use http::{answer, get};
pub use process::{cpu_time, resident};

/// Something that serves: what a command is pointed at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Side {
    /// A configuration or a module, in the host.
    Host(PathBuf),
    /// The same, in an Envoy.
    Envoy(PathBuf),
    /// Components, composed, in a `wasmtime serve`.
    Wasmtime(PathBuf),
    /// Something that runs already.
    Url(SocketAddr),
}

impl FromStr for Side {
    type Err = String;

    /// `edge.toml`, `cache.wasm`, either with `envoy:` or `wasmtime:` before it, or `http://127.0.0.1:10000`.
    fn from_str(text: &str) -> Result<Self, String> {
        let file = |text: &str| {
            let known = text.ends_with(".toml") || text.ends_with(".wasm");
            let foreign = [".yaml", ".yml", ".json"]
                .iter()
                .any(|it| text.ends_with(it));
            known.then(|| PathBuf::from(text)).ok_or_else(|| match foreign {
                true => format!(
                    "\"{text}\" is a bootstrap of Envoy's, which only `run`, `check` and `record` take: serve it with `run`, \
                     or with Envoy, and name its address (http://127.0.0.1:10000)"
                ),
                false => format!(
                    "\"{text}\" is none of: a configuration (.toml), a module or component (.wasm), either with envoy: \
                     or wasmtime: before it, an address (http://127.0.0.1:10000)"
                ),
            })
        };
        if let Some(rest) = text.strip_prefix("envoy:") {
            return file(rest).map(Self::Envoy);
        }
        if let Some(rest) = text.strip_prefix("wasmtime:") {
            return file(rest).map(Self::Wasmtime);
        }
        match text.strip_prefix("http://") {
            Some(rest) => address(rest.trim_end_matches('/')).map(Self::Url),
            None => file(text).map(Self::Host),
        }
    }
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Host(file) => write!(f, "{}", file.display()),
            Self::Envoy(file) => write!(f, "envoy:{}", file.display()),
            Self::Wasmtime(file) => write!(f, "wasmtime:{}", file.display()),
            Self::Url(address) => write!(f, "http://{address}"),
        }
    }
}

/// `host:port`, resolved.
fn address(text: &str) -> Result<SocketAddr, String> {
    use std::net::ToSocketAddrs as _;
    let with_port = if text
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok())
    {
        text.to_owned()
    } else {
        format!("{text}:80")
    };
    with_port
        .to_socket_addrs()
        .map_err(|error| format!("http://{text}: {error}"))?
        .next()
        .ok_or_else(|| format!("http://{text} has no address"))
}

impl Side {
    /// Says what it cannot be started with, before anything is.
    pub fn check(
        &self,
        edge: impl FnOnce(&std::path::Path) -> Result<Edge>,
        listener: Option<&str>,
    ) -> Result<()> {
        let sound = |file: &std::path::Path| -> Result<()> {
            let edge = edge(file)?;
            edge.filters_of(listener)?;
            match self {
                Self::Envoy(_) => bootstrap(&edge, listener).map(drop),
                Self::Wasmtime(_) => wasmtime::without_routes(&edge, listener),
                Self::Host(_) | Self::Url(_) => Ok(()),
            }
        };
        match self {
            Self::Url(_) => Ok(()),
            Self::Host(file) | Self::Envoy(file) | Self::Wasmtime(file) => sound(file),
        }
        .with_context(|| format!("{self} does not start"))
    }

    /// Starts it. `None` for what runs already.
    pub fn start(
        &self,
        edge: impl FnOnce(&std::path::Path) -> Result<Edge>,
        options: &Options,
    ) -> Result<Option<Running>> {
        match self {
            Self::Url(_) => Ok(None),
            Self::Host(file) => start_host(&edge(file)?, options).map(Some),
            Self::Envoy(file) => start_envoy(&edge(file)?, options).map(Some),
            Self::Wasmtime(file) => start_wasmtime(&edge(file)?, options).map(Some),
        }
        .with_context(|| format!("{self} does not start"))
    }
}

/// The program this is, for children of the same build; `EDGEWEIR_BIN` names another.
pub fn this_program() -> Result<PathBuf> {
    if let Some(given) = std::env::var_os("EDGEWEIR_BIN") {
        let given = PathBuf::from(given);
        if !given.is_file() {
            bail!("EDGEWEIR_BIN is {}, which is no file", given.display());
        }
        return Ok(given);
    }
    std::env::current_exe().context("the path of this program")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_told_apart() {
        for (text, want) in [
            ("a.toml", Ok(Side::Host("a.toml".into()))),
            ("x/cache.wasm", Ok(Side::Host("x/cache.wasm".into()))),
            ("envoy:a.toml", Ok(Side::Envoy("a.toml".into()))),
            ("wasmtime:a.wasm", Ok(Side::Wasmtime("a.wasm".into()))),
            (
                "http://127.0.0.1:81/",
                Ok(Side::Url(([127, 0, 0, 1], 81).into())),
            ),
            (
                "http://127.0.0.1",
                Ok(Side::Url(([127, 0, 0, 1], 80).into())),
            ),
            ("a.yaml", Err(())),
            ("envoy:http://127.0.0.1", Err(())),
        ] {
            assert_eq!(text.parse::<Side>().map_err(|_| ()), want, "{text}");
        }
    }
}
