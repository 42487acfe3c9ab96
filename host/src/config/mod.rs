//! `edgeweir.toml`: listeners, the filters in front of each, and the upstreams behind them.
//!
//! Parsed once. What can be wrong is said with file, line, column and field before anything is served.

mod envoy;
mod error;
mod foreign;
mod listener;
mod place;
mod route;
mod sound;
mod spin;
mod upstream;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use edgeweir_host_chain::Layer;
use edgeweir_host_formats::envoy::Policy;
pub use edgeweir_host_formats::envoy::StripPort;
pub use edgeweir_host_formats::number::Within;
use edgeweir_host_formats::outbound::Outbound;
use edgeweir_host_formats::remote::Remote;
use edgeweir_host_formats::spin::{Files, Imports, Store};
use edgeweir_host_formats::written::choices;
use edgeweir_host_formats::{Finding, Placed};
use serde::Deserialize;
use toml::Spanned;

pub use error::ConfigError;
pub use foreign::{Format, Given, Options};
pub use listener::{Certificate, ListenerTls, RequestId};
pub use route::{Route, Way, Ways};
pub use upstream::{Breaker, Health, Outlier, Retry, Upstream, UpstreamTls};

/// A whole configuration file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Metrics, health and the dashboard; nothing of them without it.
    pub admin: Option<Admin>,
    /// Bounds of the host and of each filter.
    #[serde(default)]
    pub limits: Limits,
    /// What is watched, and what filters are told of it.
    #[serde(default)]
    pub monitor: crate::monitor::Settings,
    /// Where the host keeps things between runs.
    #[serde(default)]
    pub state: State,
    /// Addresses served, at least one.
    #[serde(default, rename = "listener")]
    pub listeners: Vec<Listener>,
    /// Origins by name.
    #[serde(default, rename = "upstream")]
    pub upstreams: BTreeMap<String, Upstream>,
    /// Filters by name.
    #[serde(default, rename = "filter")]
    pub filters: BTreeMap<String, Filter>,
    /// What was found in a file of another program's and does not stop it from being run.
    #[serde(skip)]
    pub notes: Vec<Finding>,
    /// Folders with files that were part of the configuration.
    #[serde(skip)]
    pub held: Vec<Arc<tempfile::TempDir>>,
    /// Stores behind `spin:key-value` by their labels, beside `default` of `[state]`.
    #[serde(skip)]
    pub stores: BTreeMap<String, Store>,
    /// SQLite databases of components by their labels, each in its file or, with none, gone at the end.
    #[serde(skip)]
    pub databases: BTreeMap<String, Option<PathBuf>>,
    /// Where the file is and what it says, for errors found later.
    #[serde(skip)]
    pub source: Source,
    /// What of it comes from elsewhere.
    #[serde(skip)]
    pub given: Given,
    /// Layers that watch; not part of a file.
    #[serde(skip)]
    pub taps: Taps,
}

/// Layers that watch what passes and change nothing.
#[derive(Clone, Default)]
pub struct Taps {
    /// Between the client and the first filter of every listener.
    pub client: Option<Arc<dyn Layer>>,
    /// Between the last filter and the upstream.
    pub origin: Option<Arc<dyn Layer>>,
}

impl std::fmt::Debug for Taps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = |tap: &Option<Arc<dyn Layer>>| tap.as_ref().map(|tap| tap.name().to_owned());
        f.debug_struct("Taps")
            .field("client", &name(&self.client))
            .field("origin", &name(&self.origin))
            .finish()
    }
}

/// The file a configuration came from.
#[derive(Clone, Default, Debug)]
pub struct Source {
    /// As it was named; empty for the built-in demo.
    pub file: PathBuf,
    /// Its text.
    pub text: String,
}

/// `[admin]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// `address:port`; other than loopback with a token only.
    pub listen: Spanned<Address>,
    /// What a client must say in `Authorization: Bearer`, 16 to 256 visible ASCII characters.
    pub token: Option<Spanned<Token>>,
    /// A file whose first line is the token.
    pub token_file: Option<Spanned<PathBuf>>,
}

/// A secret; not shown in logs.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Token(String);

impl Token {
    /// What it is.
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

impl TryFrom<String> for Token {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let sound =
            (16..=256).contains(&text.len()) && text.bytes().all(|it| it.is_ascii_graphic());
        // The value is a secret, however wrong it is: errors are logged.
        sound.then_some(Self(text)).ok_or_else(|| {
            "a token has 16 to 256 visible ASCII characters, such as `openssl rand -hex 32` makes".to_owned()
        })
    }
}

/// `[limits]`: bounds of the host, and of each filter that sets none of its own.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Count fuel (Wasm instructions) per callback. Costs up to half of the speed of a filter: for measuring.
    pub fuel: bool,
    /// Measure CPU time per callback. Costs two readings of the thread's clock each, 0.1 to 0.6 µs: for measuring.
    pub cpu_time: bool,
    /// The longest a filter may compute without giving up the processor, milliseconds.
    pub deadline_ms: Within<1, 60_000>,
    /// Linear memory of one instance, MiB.
    pub memory_mib: Within<1, 4_096>,
    /// Fields of one message head; more are answered with 431.
    pub headers: Within<1, 8_192>,
    /// Bytes of one message head, KiB; more are answered with 431.
    pub header_kib: Within<8, 1_024>,
    /// Connections of one listener at once; more wait to be accepted.
    pub connections: Within<1, 1_000_000>,
    /// How long a connection may take to send a request's head, milliseconds.
    pub head_timeout_ms: Within<1, 3_600_000>,
    /// How long a client may send nothing of a body, or take nothing of a response, milliseconds.
    pub stall_timeout_ms: Within<1, 86_400_000>,
    /// How long exchanges in flight may take to finish when the host stops, milliseconds.
    pub grace_ms: Within<0, 3_600_000>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            fuel: false,
            cpu_time: false,
            deadline_ms: Within::of(1_000),
            memory_mib: Within::of(256),
            headers: Within::of(1_000),
            header_kib: Within::of(256),
            connections: Within::of(10_000),
            head_timeout_ms: Within::of(30_000),
            stall_timeout_ms: Within::of(300_000),
            grace_ms: Within::of(10_000),
        }
    }
}

/// `[state]`: what is kept on disk.
#[derive(Clone, Default, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct State {
    /// Compiled modules; default `$XDG_CACHE_HOME/edgeweir`, else `~/.cache/edgeweir`.
    pub cache_dir: Option<PathBuf>,
    /// The file behind `spin:key-value`; without it the store is in memory and ends with the host.
    pub store: Option<PathBuf>,
}

/// `[[listener]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Its name in metrics and reports.
    pub name: Spanned<String>,
    /// `address:port`; port 0 takes a free one and says which.
    pub listen: Spanned<Address>,
    /// The name of the upstream of what takes no route; without it that is answered with 404.
    pub upstream: Option<Spanned<String>>,
    /// Names of filters, outermost first.
    #[serde(default)]
    pub filters: Vec<Spanned<String>>,
    /// Where some requests go instead, and through which filters; the first that matches is taken.
    #[serde(default, rename = "route")]
    pub routes: Vec<Route>,
    /// The routes and the upstream, as requests take them.
    #[serde(skip)]
    pub ways: Ways,
    /// The client's address is put into `X-Forwarded-For`; a bootstrap of Envoy's may say otherwise.
    #[serde(skip, default = "yes")]
    pub forwarded_for: bool,
    /// The port that is taken off whom a request is for; of a bootstrap of Envoy's.
    #[serde(skip)]
    pub strip_port: StripPort,
    /// The most fields of a request, where they are fewer than those of `[limits]`; of a bootstrap of Envoy's.
    #[serde(skip)]
    pub most_fields: Option<usize>,
    /// TLS: HTTP/2 and HTTP/1.1 by ALPN. Without it the listener is clear.
    pub tls: Option<ListenerTls>,
    /// Say in `Server-Timing` what each filter and the upstream took.
    #[serde(default)]
    pub server_timing: bool,
    /// What becomes of `x-request-id`.
    #[serde(default)]
    pub request_id: RequestId,
    /// Return the request's identifier in the response.
    #[serde(default)]
    pub request_id_in_response: bool,
    /// A line of JSON for each exchange goes to this file; `-` is the standard output.
    pub access_log: Option<Spanned<PathBuf>>,
}

fn yes() -> bool {
    true
}

impl Listener {
    /// A clear listener without routes; [`Config::finish`] makes its way.
    pub fn plain(
        name: Spanned<String>,
        listen: Spanned<Address>,
        upstream: Spanned<String>,
        filters: Vec<Spanned<String>>,
    ) -> Self {
        Self {
            name,
            listen,
            upstream: Some(upstream),
            filters,
            routes: Vec::new(),
            ways: Ways::default(),
            forwarded_for: true,
            strip_port: StripPort::Never,
            most_fields: None,
            tls: None,
            server_timing: false,
            request_id: RequestId::Off,
            request_id_in_response: false,
            access_log: None,
        }
    }
}

/// `[filter.NAME]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// The `.wasm` file: a proxy-wasm module or a wasi:http component, told apart by its first bytes.
    pub module: Spanned<PathBuf>,
    /// What a trap does to the exchange it happens in.
    #[serde(default)]
    pub on_trap: OnTrap,
    /// The filter's own configuration, handed to it as JSON.
    pub config: Option<Spanned<toml::Value>>,
    /// As in `[limits]`, for this filter alone; 0 is none, for a module that is trusted.
    pub deadline_ms: Option<Within<0, 60_000>>,
    /// As in `[limits]`, for this filter alone.
    pub memory_mib: Option<Within<1, 4_096>>,
    /// As in `[limits]`, for this filter alone.
    pub headers: Option<Within<1, 8_192>>,
    /// As in `[limits]`, for this filter alone.
    pub header_kib: Option<Within<1, 1_024>>,
    /// Instances: of a module, the number kept; of a component, the most at once.
    pub instances: Option<Within<1, { edgeweir_host_proxy_wasm::INSTANCES }>>,
    /// Modules only: filters with the same one share data; default: the filter's name.
    pub vm_id: Option<Spanned<String>>,
    /// Modules only: the configuration of the VM.
    pub vm_config: Option<Spanned<String>>,
    /// Modules only: chooses among the root contexts of a module.
    pub root_id: Option<Spanned<String>>,
    /// Modules only: as Envoy's of that name, a head answered with `StopIteration` is held while the body's callbacks run, and
    /// the first that continues lets go of both. Without it the body waits too.
    pub allow_on_headers_stop_iteration: Option<Spanned<bool>>,
    /// Modules only: clusters callouts may reach, name to `host:port`.
    pub clusters: Option<Spanned<BTreeMap<String, Authority>>>,
    /// Modules only: callouts under way for one stream.
    pub callouts: Option<Spanned<Within<0, 1_024>>>,
    /// Modules only: the largest body a callout may be answered with, KiB.
    pub callout_kib: Option<Spanned<Within<1, 1_048_576>>>,
    /// Modules only: what it may put into shared data, MiB.
    pub shared_data_mib: Option<Spanned<Within<1, 4_096>>>,
    /// Modules only: the stack of a callback, KiB.
    pub stack_kib: Option<Spanned<Within<64, 1_024>>>,
    /// Environment variables.
    pub environment: Option<Spanned<BTreeMap<String, String>>>,
    /// Components only: values of `spin:variables`.
    pub variables: Option<Spanned<BTreeMap<String, String>>>,
    /// Components only: `host:port` the component itself may send requests to.
    pub allowed_outbound: Option<Spanned<Vec<Authority>>>,
    /// The filter whose shared data this one uses, where it has no `vm_id`: it is that one with another configuration.
    #[serde(skip)]
    pub shares: Option<String>,
    /// Body bytes held back for a module that pauses.
    #[serde(skip)]
    pub body_buffer_bytes: Option<usize>,
    /// What a bootstrap of Envoy's says in place of `config` and `vm_config`.
    #[serde(skip)]
    pub raw: Option<Raw>,
    /// What a Spin manifest grants, in place of `allowed_outbound` and of every store.
    #[serde(skip)]
    pub grants: Option<Grants>,
    /// Where the module is fetched from, when it is not there.
    #[serde(skip)]
    pub remote: Option<Remote>,
    /// What the module is linked of before it is loaded.
    #[serde(skip)]
    pub link: Option<Link>,
}

/// A component and what satisfies its imports.
#[derive(Clone, Debug)]
pub struct Link {
    /// The component's file; where it is fetched from is the filter's.
    pub component: PathBuf,
    /// The others.
    pub dependencies: Vec<Linked>,
}

impl Link {
    /// All files.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let dependencies = self.dependencies.iter().map(|it| &it.file);
        std::iter::once(&self.component).chain(dependencies)
    }
}

/// A component that satisfies imports of another.
#[derive(Clone, Debug)]
pub struct Linked {
    /// The imports.
    pub imports: Placed<Imports>,
    /// Its file.
    pub file: PathBuf,
    /// Where that is fetched from, when it is not there.
    pub remote: Option<Remote>,
    /// Which of its exports they get.
    pub export: Option<String>,
    /// What it does not inherit of what the component is granted.
    pub withheld: Vec<&'static str>,
}

/// What a component of Spin's may reach.
#[derive(Clone, Default, Debug)]
pub struct Grants {
    /// Hosts.
    pub outbound: Vec<Outbound>,
    /// Labels of stores.
    pub stores: Vec<String>,
    /// Labels of databases.
    pub databases: Vec<String>,
    /// Files, relative to the manifest.
    pub files: Files,
}

/// Whether one of them is enough for both.
fn same(one: &Filter, other: &Filter) -> bool {
    format!("{one:?}") == format!("{other:?}")
}

/// What a module is configured with, byte by byte.
#[derive(Clone, Debug)]
pub struct Raw {
    /// Its configuration, with its place.
    pub configuration: Option<Placed<Vec<u8>>>,
    /// Whether that is a text as it stands in the file, JSON most often.
    pub text: bool,
    /// The configuration of its VM.
    pub vm_configuration: Vec<u8>,
    /// `failure_policy`.
    pub policy: Policy,
    /// Where that stands.
    pub policy_span: Range<usize>,
}

impl Filter {
    /// A filter on its defaults.
    pub fn of(module: PathBuf) -> Self {
        Self {
            module: Spanned::new(0..0, module),
            on_trap: OnTrap::Respond,
            config: None,
            deadline_ms: None,
            memory_mib: None,
            headers: None,
            header_kib: None,
            instances: None,
            vm_id: None,
            vm_config: None,
            root_id: None,
            allow_on_headers_stop_iteration: None,
            clusters: None,
            callouts: None,
            callout_kib: None,
            shared_data_mib: None,
            stack_kib: None,
            environment: None,
            variables: None,
            allowed_outbound: None,
            shares: None,
            body_buffer_bytes: None,
            raw: None,
            grants: None,
            remote: None,
            link: None,
        }
    }
}

/// What a trap does to the exchange it happens in.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnTrap {
    /// It is answered with 500.
    #[default]
    Respond,
    /// It goes on as if the filter were not there, as far as it still can.
    Pass,
}

/// An address to listen on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Address(pub SocketAddr);

impl TryFrom<String> for Address {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| {
            format!("\"{text}\" is not an address to listen on, such as \"127.0.0.1:8000\" or \"[::1]:8000\"")
        })
    }
}

/// The `host:port` of something to connect to.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Authority(pub String);

impl TryFrom<String> for Authority {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let parsed = text.parse::<http::uri::Authority>().ok();
        let sound = parsed.is_some_and(|authority| {
            !authority.host().is_empty()
                && !text.contains('@')
                && authority.port_u16().is_some_and(|port| port > 0)
        });
        if sound {
            Ok(Self(text))
        } else {
            Err(format!(
                "\"{text}\" is not host:port, such as \"127.0.0.1:9000\" or \"origin.internal:80\""
            ))
        }
    }
}

/// The text of a file.
fn text_of(file: &Path) -> Result<String, ConfigError> {
    let bytes = std::fs::read(file)
        .map_err(|error| ConfigError::file(file, format!("cannot be read: {error}")))?;
    if bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]) {
        return Err(ConfigError::file(file, "it is UTF-16: save it as UTF-8"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let byte = error.as_bytes().get(at).copied().unwrap_or_default();
        let source = Source {
            file: file.to_owned(),
            text: String::from_utf8_lossy(error.as_bytes()).into_owned(),
        };
        let message = format!("the byte 0x{byte:02X} is no UTF-8: save the file as UTF-8");
        ConfigError::at(&source, at..at + 1, "", message)
    })
}

impl Config {
    /// One with nothing in it but what was said of its source.
    fn bare(source: Source, notes: Vec<Finding>) -> Self {
        Self {
            admin: None,
            limits: Limits::default(),
            monitor: crate::monitor::Settings::default(),
            state: State::default(),
            listeners: Vec::new(),
            upstreams: BTreeMap::new(),
            filters: BTreeMap::new(),
            notes,
            held: Vec::new(),
            stores: BTreeMap::new(),
            databases: BTreeMap::new(),
            source,
            given: Given::default(),
            taps: Taps::default(),
        }
    }

    /// Reads and checks a file: `edgeweir.toml`, an Envoy bootstrap (YAML or JSON) or a Spin manifest.
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        Self::read_with(file, &Options::default())
    }

    /// As [`Config::read`], with what files of other programs' may be read with.
    pub fn read_with(file: &Path, options: &Options) -> Result<Self, ConfigError> {
        let text = text_of(file)?;
        let format = Format::of(file, &text);
        options.check(format, file)?;
        match format {
            Format::Edgeweir => Self::parse(file, text),
            Format::Envoy => envoy::parse(file, text, options),
            Format::Spin => spin::parse(file, text, options),
        }
    }

    /// Checks the text of a file; `file` is where its relative paths start and what errors name.
    pub fn parse(file: &Path, text: String) -> Result<Self, ConfigError> {
        let source = Source {
            file: file.to_owned(),
            text,
        };
        let parser = toml::Deserializer::parse(&source.text)
            .map_err(|error| ConfigError::toml(&source, "", &error))?;
        let mut config: Self = serde_path_to_error::deserialize(parser).map_err(|error| {
            let field = error.path().to_string();
            ConfigError::toml(&source, &field, error.inner())
        })?;
        config.source = source;
        config.check()?;
        config.finish()
    }

    /// Makes ways of what the listeners say; the end of reading any file.
    pub fn finish(mut self) -> Result<Self, ConfigError> {
        self.find_ways()?;
        Ok(self)
    }

    /// The path of a file the configuration names: as it is if it is there, else beside the configuration.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        if path.is_absolute() || path.exists() {
            return path.to_owned();
        }
        match self.source.file.parent() {
            Some(folder) if folder.join(path).exists() => folder.join(path),
            _ => path.to_owned(),
        }
    }

    /// The token of the admin pages, from wherever it is.
    pub fn admin_token(&self) -> Result<Option<Token>, ConfigError> {
        let Some(admin) = &self.admin else {
            return Ok(None);
        };
        match (&admin.token, &admin.token_file) {
            (None, None) => Ok(None),
            (Some(token), None) => Ok(Some(token.get_ref().clone())),
            (None, Some(file)) => {
                let path = self.resolve(file.get_ref());
                std::fs::read_to_string(&path)
                    .map_err(|error| error.to_string())
                    .and_then(|text| Token::try_from(text.lines().next().unwrap_or("").to_owned()))
                    .map(Some)
                    .map_err(|message| {
                        let message = format!("{}: {message}", path.display());
                        ConfigError::at(&self.source, file.span(), "admin.token_file", message)
                    })
            }
            (Some(_), Some(file)) => Err(ConfigError::at(
                &self.source,
                file.span(),
                "admin.token_file",
                "`token` is there, too: want one of both",
            )),
        }
    }

    /// What no single field can tell: names that lead nowhere, names given twice.
    fn check(&self) -> Result<(), ConfigError> {
        if self.listeners.is_empty() {
            return Err(ConfigError::file(
                &self.source.file,
                "it has no [[listener]]: nothing would be served",
            ));
        }
        if let Some(admin) = &self.admin {
            let address = admin.listen.get_ref().0;
            let token = self.admin_token()?;
            if !address.ip().is_loopback() && token.is_none() {
                return Err(ConfigError::at(
                    &self.source,
                    admin.listen.span(),
                    "admin.listen",
                    format!(
                        "{address} is not a loopback address: give `admin.token` or `admin.token_file`, or listen on \
                         127.0.0.1 or [::1]"
                    ),
                ));
            }
        }
        self.monitor.settings(self)?;
        self.check_upstreams()?;
        self.check_admin()?;
        let mut names = BTreeSet::new();
        let mut addresses = BTreeSet::new();
        for (index, listener) in self.listeners.iter().enumerate() {
            self.check_listener(index, listener, &mut names, &mut addresses)?;
        }
        Ok(())
    }

    fn check_listener<'a>(
        &self,
        index: usize,
        listener: &'a Listener,
        names: &mut BTreeSet<&'a str>,
        addresses: &mut BTreeSet<SocketAddr>,
    ) -> Result<(), ConfigError> {
        let source = &self.source;
        if !names.insert(listener.name.get_ref()) {
            return Err(ConfigError::at(
                source,
                listener.name.span(),
                &format!("listener[{index}].name"),
                format!(
                    "\"{}\" is the name of another listener",
                    listener.name.get_ref()
                ),
            ));
        }
        let address = listener.listen.get_ref().0;
        if address.port() != 0 && !addresses.insert(address) {
            return Err(ConfigError::at(
                source,
                listener.listen.span(),
                &format!("listener[{index}].listen"),
                format!("{address} is the address of another listener"),
            ));
        }
        match &listener.upstream {
            Some(upstream) if !self.upstreams.contains_key(upstream.get_ref()) => {
                return Err(ConfigError::at(
                    source,
                    upstream.span(),
                    &format!("listener[{index}].upstream"),
                    format!(
                        "there is no [upstream.{}]; there {}",
                        upstream.get_ref(),
                        choices(self.upstreams.keys())
                    ),
                ));
            }
            None if listener.routes.is_empty() => {
                return Err(ConfigError::at(
                    source,
                    listener.name.span(),
                    &format!("listener[{index}]"),
                    "missing field `upstream`: a listener without routes has one",
                ));
            }
            _ => {}
        }
        for (at, filter) in listener.filters.iter().enumerate() {
            if !self.filters.contains_key(filter.get_ref()) {
                return Err(ConfigError::at(
                    source,
                    filter.span(),
                    &format!("listener[{index}].filters[{at}]"),
                    format!(
                        "there is no [filter.{}]; there {}",
                        filter.get_ref(),
                        choices(self.filters.keys())
                    ),
                ));
            }
        }
        Ok(())
    }
}
