//! `edgeweir run` without a file: all four filters on both ABIs in front of a built-in origin.

mod origin;
mod pages;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow};

use crate::config::{Address, Admin, Config, Filter, Limits, Listener, Source, State, Upstream};
use crate::host::Host;
use crate::serve::{Accepting, Bounds};

pub use origin::Origin;

/// Where `cargo edge build` writes modules.
pub const MODULES: &str = "target/edge";
/// The first of the four ports.
pub const PORT: u16 = 8_000;

/// The order of the chain, outermost first: what is refused costs least, what is stored is already minified and coded.
const FILTERS: [&str; 4] = ["ratelimit", "cache", "compress", "minify"];
/// The listeners: a name, and which of the four are components.
const LISTENERS: [(&str, [bool; 4]); 3] = [
    ("modules", [false, false, false, false]),
    ("components", [true, true, true, true]),
    ("mixed", [false, true, false, true]),
];

/// A demo that is ready to be served.
pub struct Demo {
    /// The configuration the defaults make.
    pub config: Config,
    /// The origin, which serves already.
    pub origin: Accepting,
}

/// Starts the origin and makes the configuration. `port` is the first of four; 0 takes free ones.
pub async fn start(modules: &Path, port: u16) -> anyhow::Result<Demo> {
    if port > u16::MAX - 3 {
        return Err(anyhow!(
            "--port {port}: the demo takes four ports from there, {} is the last possible",
            u16::MAX - 3
        ));
    }
    let limits = Limits::default();
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let origin = Accepting::start(local, Bounds::from(&limits), Arc::new(Origin::default()))
        .await
        .context("the demo's origin cannot listen")?;
    let at = |offset: u16| {
        let port = if port == 0 { 0 } else { port + offset };
        unplaced(Address(SocketAddr::from((Ipv4Addr::LOCALHOST, port))))
    };
    let mut filters = BTreeMap::new();
    let mut listeners = Vec::new();
    for (offset, (listener, components)) in (0..).zip(LISTENERS) {
        let mut names = Vec::new();
        for (name, component) in FILTERS.into_iter().zip(components) {
            let abi = if component { "wasi-http" } else { "proxy-wasm" };
            let filter = Filter::of(modules.join(format!("{name}.{abi}.wasm")));
            let full = format!("{listener}/{name}");
            names.push(unplaced(full.clone()));
            filters.insert(full, filter);
        }
        listeners.push(Listener::plain(
            unplaced(listener.to_owned()),
            at(offset),
            unplaced("origin".to_owned()),
            names,
        ));
    }
    let config = Config {
        admin: Some(Admin {
            listen: at(3),
            token: None,
            token_file: None,
        }),
        limits,
        monitor: crate::monitor::Settings::default(),
        state: State::default(),
        listeners,
        upstreams: [(
            "origin".to_owned(),
            Upstream::at(origin.address.to_string()),
        )]
        .into(),
        filters,
        notes: Vec::new(),
        held: Vec::new(),
        stores: BTreeMap::new(),
        databases: BTreeMap::new(),
        source: Source::default(),
        given: crate::config::Given::default(),
        taps: crate::config::Taps::default(),
    };
    let config = config.finish()?;
    Ok(Demo { config, origin })
}

/// What the demo says first: where everything is, and what to try.
pub fn introduction(host: &Host, origin: SocketAddr) -> String {
    let mut text = format!("edgeweir {} demo\n\n", env!("CARGO_PKG_VERSION"));
    for listener in &host.state.listeners {
        let address = listener
            .address
            .get()
            .map_or(String::new(), ToString::to_string);
        let chain: Vec<String> = listener
            .filters
            .iter()
            .map(|name| {
                let abi = host
                    .state
                    .filters
                    .iter()
                    .find(|filter| filter.name == *name)
                    .map_or("", |filter| filter.abi.name());
                let short = name.rsplit('/').next().unwrap_or(name);
                format!("{short} [{abi}]")
            })
            .collect();
        let _ = writeln!(
            text,
            "  http://{address}  {:<10} {}",
            listener.name,
            chain.join(" → ")
        );
    }
    let _ = writeln!(
        text,
        "  http://{origin}  origin     built in, behind all three"
    );
    if let Some(admin) = host.admin {
        let _ = writeln!(
            text,
            "\n  dashboard  http://{admin}/\n  metrics    http://{admin}/metrics"
        );
    }
    let first = host
        .addresses()
        .first()
        .map_or(String::new(), ToString::to_string);
    let second = host
        .addresses()
        .get(1)
        .map_or(String::new(), ToString::to_string);
    let _ = write!(
        text,
        "\nTry:\n  \
         curl -i http://{first}/json                      # a miss: Cache-Status says it was stored\n  \
         curl -i http://{first}/json                      # a hit, with its Age\n  \
         curl -si -H 'accept-encoding: gzip' http://{second}/json | head -20   # minified, then compressed\n  \
         curl -s -o /dev/null -w '%{{http_code}} ' 'http://{first}/?[1-40]'   # a burst: 429\n  \
         curl -N -H 'accept-encoding: br' --compressed http://{first}/stream   # compressed, and still live\n\n\
         Stop with Ctrl-C: it then says what each filter cost.\n"
    );
    text
}

/// A value of the built-in configuration has no place in a file.
fn unplaced<T>(value: T) -> toml::Spanned<T> {
    toml::Spanned::new(0..0, value)
}
